//! Who submits, as routes are asked about it: the same for a message that comes and for one that waits in the queue.

use std::net::IpAddr;

use mail::{AddressList, HeaderBlock, Mailbox, ReversePath};

use super::address_map::AddressMap;
use super::address_set::AddressKey;

/// Where a message comes from and whom it names as its sender.
#[derive(Clone, Debug)]
pub(crate) struct Submitter<'a> {
    /// The listener's name.
    pub(crate) listener: &'a str,
    /// The client's address; none for what this relay makes itself.
    pub(crate) client: Option<IpAddr>,
    /// Who it logged in as.
    pub(crate) user: Option<&'a str>,
    /// Whether that user has proven it and is held to a list of senders.
    pub(crate) is_held_to_senders: bool,
    /// Whose message it is.
    pub(crate) sender: Sender,
}

/// The sender that routes and mailboxes are chosen by: that of the envelope or, where that is null, the From field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The envelope has none, and the header has not come yet.
    Unread,
    /// Neither has one.
    Nobody,
    /// After the maps.
    Known {
        /// As it is written.
        mailbox: Mailbox,
        /// As it is looked up.
        key: AddressKey,
    },
}

impl Sender {
    /// The sender of an envelope whose header has not come.
    pub(crate) fn of_envelope(path: &ReversePath, map: &AddressMap) -> Self {
        path.mailbox().map_or(Self::Unread, |mailbox| Self::known(mailbox, map))
    }

    /// The sender of a whole message.
    pub(crate) fn of_message(path: &ReversePath, header: &HeaderBlock, map: &AddressMap) -> Self {
        if let Some(mailbox) = path.mailbox() {
            return Self::known(mailbox, map);
        }
        let list = header.value("From").and_then(|value| AddressList::parse(value).ok());
        list.as_ref().and_then(|list| list.mailboxes().next()).map_or(Self::Nobody, |mailbox| Self::known(mailbox, map))
    }

    fn known(mailbox: &Mailbox, map: &AddressMap) -> Self {
        let mailbox = map.mapped(mailbox).unwrap_or_else(|| mailbox.clone());
        Self::Known { key: AddressKey::from(&mailbox), mailbox }
    }

    /// The sender, if one is known.
    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Known { mailbox, .. } => Some(mailbox),
            Self::Unread | Self::Nobody => None,
        }
    }

    /// The same as it is looked up.
    pub(crate) fn key(&self) -> Option<&AddressKey> {
        match self {
            Self::Known { key, .. } => Some(key),
            Self::Unread | Self::Nobody => None,
        }
    }
}

/// A recipient as routes are asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A bare `postmaster`, who is in no domain.
    Postmaster,
    /// Everybody else, after the maps.
    Mailbox {
        /// As it is written.
        mailbox: Mailbox,
        /// As it is looked up.
        key: AddressKey,
    },
}

impl Asked {
    /// What routes are asked for a recipient that is `mailbox` now.
    pub(crate) fn mailbox(mailbox: Mailbox) -> Self {
        Self::Mailbox { key: AddressKey::from(&mailbox), mailbox }
    }

    /// The address as it is looked up.
    pub(crate) fn key(&self) -> Option<&AddressKey> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox { key, .. } => Some(key),
        }
    }
}
