//! `[[route]]` and `[rewrite]`: which message goes where.

use serde_json::Value as Json;

use crate::config::address::{AddressMap, AddressPattern, OptionalAddress};
use crate::config::network::Network;
use crate::config::place::{Name, Text, UserName};
#[cfg(test)]
use crate::config::sample::Chance;
use crate::config::schema::section;
use crate::config::value::{Period, Scalar, Wrong, choice};

choice! {
    /// What becomes of the message's own sender.
    pub enum SenderPolicy {
        /// Kept when the mailbox may send as it, else rewritten.
        built Auto = "auto",
        /// Kept.
        built Keep = "keep",
        /// Replaced by the mailbox's `from`.
        built Rewrite = "rewrite",
        /// Refused when the mailbox may not send as it.
        built Reject = "reject",
    }
}

/// A mailbox of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxChoice {
    /// By name.
    Named(Name),
    /// `{sender}`: the sender's own, by a wildcard mailbox.
    Sender,
}

impl Scalar for MailboxChoice {
    fn allowed() -> String {
        "the name of a mailbox, or \"{sender}\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "{sender}" { Ok(Self::Sender) } else { Name::parse(text).map(Self::Named) }
    }

    fn json(&self) -> Json {
        Json::from(match self {
            Self::Named(name) => name.as_str(),
            Self::Sender => "{sender}",
        })
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Name::sample(chance)
    }
}

section! {
    /// Routes are tried in their order and the first that matches decides; a matcher left out matches all. With no routes the
    /// only mailbox serves everything. They stand in the file only.
    pub struct Route {
        /// Shown in logs, explain and history.
        built name: Text;
        /// Listeners, by name.
        built listeners ? Vec<Name>;
        /// Networks that the client is in.
        built networks ? Vec<Network>;
        /// Users that have logged in.
        built users ? Vec<UserName>;
        /// The envelope sender, or From when that is null.
        built senders ? Vec<AddressPattern>;
        /// The recipients; those that another route takes go another way.
        built recipients ? Vec<AddressPattern>;
        /// The mailbox; several spread and take over, within one tenant; `{sender}` with a `*@` mailbox.
        built mailbox: Vec<MailboxChoice>;
        /// For `{sender}`, when the sender has no mailbox.
        built fallback ? Name;
        /// What becomes of the message's own sender.
        built sender: SenderPolicy = SenderPolicy::Auto;
        /// Recipients that are allowed.
        built allow_recipients: Vec<AddressPattern> = AddressPattern::any();
        /// Recipients that are refused all the same.
        built deny_recipients: Vec<AddressPattern> = Vec::new();
        /// Test mode: every recipient is replaced by this one; `""`: off.
        built redirect_all_to: OptionalAddress = OptionalAddress(None);
        /// How long is tried; time held or paced does not count.
        built max_age: Period<60, { 365 * 86_400 }> = Period::new(5 * 86_400);
    }
}

section! {
    /// Maps that are applied before the mailbox is chosen: from an address or a whole domain to an address, or from a domain to a domain.
    pub struct Rewrite {
        /// Of senders.
        built senders: AddressMap = AddressMap::default();
        /// Of recipients.
        built recipients: AddressMap = AddressMap::default();
    }
}
