//! The words of mail that every room shares: mailbox, path, envelope, header block, trace fields, outcome, and the text of
//! reports.
//!
//! A value of these types exists only if it is right: a [`Mailbox`] cannot hold a control octet, a [`HeaderBlock`]
//! cannot gain a field that breaks out of its line. This crate knows nothing of sockets, disk or time.

mod address;
mod address_list;
mod date;
mod dsn;
mod encoded_word;
mod envelope;
mod header;
mod lane;
mod message_id;
mod outcome;
mod path;
mod phrase;
mod readable;
mod recipient;
pub mod report;
mod token;
mod trace;

pub use address::{AddressError, Domain, LocalPart, Mailbox, is_acted_on};
pub use address_list::{AddressList, AddressListError, Grade, Member};
pub use date::is_date;
pub use dsn::{DsnError, EnvelopeId, Notify, OriginalRecipient, Ret};
pub use encoded_word::encoded_if_needed;
pub use envelope::{BodyType, Envelope};
pub use header::{
    EditedValue, Field, FieldEdit, FieldError, HeaderBlock, HeaderSplitter, HeaderTooLong, MAX_HEADER_LEN,
    begins_with_header,
};
pub use lane::{LaneId, LaneSet};
pub use message_id::MessageId;
pub use outcome::{Diagnostic, EnhancedCode, Outcome, Scope};
pub use path::{ForwardPath, PathError, ReversePath};
pub use phrase::{Name, name_in, named};
pub use readable::readable;
pub use recipient::Recipient;
pub use trace::{Received, domain_or_literal};
