//! The text of reports to people: that mail failed, is late or was passed on (RFC 3464 in a multipart/report of RFC 6522),
//! and a digest of many failures. A report says first, in plain words, what happened and who must do what.
//!
//! Octets only: who gets a report, whether one is due and how it is sent is not decided here. Whatever strangers wrote
//! (replies, addresses, header fields) passes `text.rs`, so that nothing of it can begin a field, a part or a line.

mod digest;
mod notice;
mod reason;
mod status;
mod subject;
mod text;

pub use digest::{Digest, DigestEntry};

use crate::address::Mailbox;
use crate::dsn::Ret;
use crate::envelope::{BodyType, Envelope};
use crate::header::HeaderBlock;
use crate::message_id::MessageId;
use crate::outcome::Diagnostic;
use crate::recipient::Recipient;

use text::{Fields, encoded, sendable};

/// Characters of a queue id that a boundary repeats.
const MAX_BOUNDARY_ID: usize = 30;

/// What every report needs. Texts may hold anything; they are written as one line.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The machine that makes the report.
    pub hostname: &'a str,
    /// The mailbox that sends it: one that upstream lets us send as.
    pub from: &'a Mailbox,
    /// Who gets it.
    pub to: &'a Mailbox,
    /// Now, as RFC 5322 writes it.
    pub date: &'a str,
    /// The report's own identifier.
    pub message_id: &'a MessageId,
}

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It will never be delivered.
    Failed,
    /// It is late and tried again.
    Delayed,
    /// It was passed to a server that does not report (RFC 3461 section 5.2.2), and the client wanted to hear of success.
    Relayed,
}

/// A report about one message.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// What is reported.
    pub kind: Kind,
    /// Who reports it to whom.
    pub letter: Letter<'a>,
    /// Drawn by chance for this report, after the message was stored: see [`Notice::report`].
    pub nonce: u128,
    /// The message's id in the queue.
    pub queue_id: &'a str,
    /// When it was accepted, as RFC 5322 writes it.
    pub arrival: &'a str,
    /// The message's own envelope.
    pub envelope: &'a Envelope,
    /// The message's own header block as it is stored; subject and Message-ID are read from it.
    pub original: &'a HeaderBlock,
    /// How much of the message goes back. Only a failure returns all of it (RFC 3461 section 4.3).
    pub returned: Ret,
    /// What became of it for whom: at least one, and only those of whom this is to be reported.
    pub fates: &'a [Fate<'a>],
}

/// What became of a message for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate<'a> {
    /// For whom.
    pub recipient: &'a Recipient,
    /// The reply, or our own words where none came. A failure whose class is 4 is one that was tried for too long.
    pub reply: &'a Diagnostic,
    /// The server that gave the reply.
    pub remote_mta: Option<&'a str>,
    /// Half a sentence that says why in plain words ("the mailbox x may not send as y"). If none is given, one is made from
    /// the reply's code.
    pub reason: Option<&'a str>,
    /// Who must do what, in plain words; as above.
    pub remedy: Option<&'a str>,
    /// When it was last tried, as RFC 5322 writes it.
    pub last_attempt: Option<&'a str>,
    /// Until when it is tried again, as RFC 5322 writes it; only a delay says it.
    pub will_retry_until: Option<&'a str>,
}

/// A message, to be sent so that nothing is reported of it in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its header block.
    pub header: HeaderBlock,
    /// Its body.
    pub content: Content,
    /// What its envelope declares.
    pub body_type: BodyType,
    /// Whether its envelope needs SMTPUTF8: an address in its header is not ASCII.
    pub smtputf8: bool,
}

/// The body of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole(Vec<u8>),
    /// It returns a whole message whose body is not in memory: the stored body goes between these.
    Around {
        /// What comes before the stored body.
        before: Vec<u8>,
        /// What comes after it, whether or not it ended its last line.
        after: Vec<u8>,
    },
}

impl Notice<'_> {
    /// The report.
    ///
    /// Its parts are divided by a boundary of the queue id and 128 bits drawn by chance. Whoever wrote the message wrote it
    /// before they were drawn, so nothing in it can be made to look like a boundary, and by accident it happens never.
    /// Everything but a message that is returned whole is 7-bit: such a message is passed as it is and declared 8-bit, which
    /// is never wrong. Its header stands in lines that any server takes; its body is the caller's stream.
    pub fn report(&self) -> Report {
        let boundary = boundary(self.queue_id, self.nonce);
        let whole = self.kind == Kind::Failed && self.returned == Ret::Full;
        let mut parts = Parts { boundary: &boundary, octets: Vec::new() };
        let (encoding, prose) = notice::prose(self, whole).encoded();
        parts.begin("text/plain; charset=utf-8; format=fixed", encoding, "What happened");
        parts.octets.extend_from_slice(&prose);
        parts.begin("message/delivery-status", "7bit", "Delivery status");
        parts.octets.extend_from_slice(&status::fields(self));
        let content = if whole {
            // Not message/global where the header is UTF-8 (RFC 6532): what every program opens is of more use.
            parts.begin("message/rfc822", "8bit", "Your message");
            parts.octets.extend_from_slice(&sendable(self.original.as_bytes()));
            parts.octets.extend_from_slice(b"\r\n");
            Content::Around { before: parts.octets, after: format!("\r\n--{boundary}--\r\n").into_bytes() }
        } else {
            // RFC 6522 lets a header that is not 7-bit be quoted-printable in this type.
            let (encoding, header) = encoded(self.original.as_bytes());
            parts.begin("text/rfc822-headers", encoding, "Header of your message");
            parts.octets.extend_from_slice(&header);
            parts.octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            Content::Whole(parts.octets)
        };
        let media_type = format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\"");
        let mut header = self.letter.fields(&notice::title(self));
        if let Some(message_id) = notice::original_id(self) {
            header.exact("In-Reply-To", &message_id.to_string());
            header.exact("References", &message_id.to_string());
        }
        // RFC 3834 section 5.
        header.text("Auto-Submitted", "auto-replied");
        let body_type = if whole { BodyType::EightBitMime } else { BodyType::SevenBit };
        self.letter.report(header, &media_type, if whole { "8bit" } else { "7bit" }, content, body_type)
    }
}

impl Letter<'_> {
    /// The fields that every report begins with. `title` is ASCII.
    fn fields(&self, title: &str) -> Fields {
        let mut fields = Fields::default();
        fields.exact("From", &format!("Mail Delivery System <{}>", self.from));
        fields.exact("To", &self.to.to_string());
        fields.text("Subject", title);
        fields.text("Date", self.date);
        fields.exact("Message-ID", &self.message_id.to_string());
        fields
    }

    fn report(
        &self,
        mut fields: Fields,
        media_type: &str,
        encoding: &str,
        content: Content,
        body_type: BodyType,
    ) -> Report {
        fields.text("MIME-Version", "1.0");
        fields.text("Content-Type", media_type);
        fields.text("Content-Transfer-Encoding", encoding);
        let smtputf8 = !(self.from.is_ascii() && self.to.is_ascii());
        Report { header: HeaderBlock::parse(fields.into_bytes()), content, body_type, smtputf8 }
    }
}

/// The parts of a multipart body.
struct Parts<'a> {
    boundary: &'a str,
    octets: Vec<u8>,
}

impl Parts<'_> {
    /// Begins a part. The line end before a boundary belongs to the boundary (RFC 2046 section 5.1.1).
    fn begin(&mut self, media_type: &str, encoding: &str, description: &str) {
        let before = if self.octets.is_empty() { "" } else { "\r\n" };
        self.octets.extend_from_slice(format!("{before}--{}\r\n", self.boundary).as_bytes());
        let mut fields = Fields::default();
        fields.text("Content-Type", media_type);
        fields.text("Content-Transfer-Encoding", encoding);
        fields.text("Content-Description", description);
        fields.end_block();
        self.octets.extend_from_slice(&fields.into_bytes());
    }
}

/// At most 70 characters (RFC 2046 section 5.1.1). `=_` stands in no text that is quoted-printable or base64.
fn boundary(id: &str, nonce: u128) -> String {
    let id: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(MAX_BOUNDARY_ID).collect();
    format!("=_{id}.{nonce:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_one_whatever_the_id() {
        assert_eq!(boundary("1-2A", 7), "=_1-2A.00000000000000000000000000000007");
        let boundary = boundary(&"\"x\r\n".repeat(100), u128::MAX);
        assert!(boundary.len() <= 70 && boundary.starts_with("=_xxx"), "{boundary}");
    }
}
