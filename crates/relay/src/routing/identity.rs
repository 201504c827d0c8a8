//! Who a mailbox may send as, and what a sender becomes that it may not. A value made from the configuration; what
//! Exchange really allows is only known from its answer.

use mail::Mailbox;

use super::address_set::{AddressKey, AddressSet};

/// A mailbox as a sender.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Its own address.
    pub(crate) address: Mailbox,
    /// What a rewritten sender becomes.
    pub(crate) from: Mailbox,
    /// Beside `address` and `from`.
    others: AddressSet,
}

impl Identity {
    /// A mailbox that may send as `address`, as `from` and as `others`.
    pub(crate) fn new(name: &str, address: Mailbox, from: Mailbox, mut others: AddressSet) -> Self {
        others.add(&address);
        others.add(&from);
        Self { name: name.to_owned(), address, from, others }
    }

    /// Whether it may send as `sender`, as far as the configuration says.
    pub(crate) fn may_send_as(&self, sender: &Mailbox) -> bool {
        self.others.contains(&AddressKey::from(sender))
    }
}
