//! One route: what it takes, who carries that, and what becomes of sender and recipients. Which of several routes decides
//! is `Routing`'s matter.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::Mailbox;

use super::address_set::{AddressKey, AddressSet};
use super::carriers::Carriers;
use super::submitter::{Asked, Sender, Submitter};
use crate::config::{Network, SenderPolicy};

/// A route, with what follows from it.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its name; empty where none is written and the only mailbox serves everything.
    pub(crate) name: String,
    pub(super) matchers: Matchers,
    /// Who carries its mail.
    pub(crate) choice: Choice,
    /// What becomes of the message's own sender.
    pub(crate) policy: SenderPolicy,
    pub(super) allowed: AddressSet,
    pub(super) denied: AddressSet,
    /// Test mode: who gets its mail instead of the recipients.
    pub(crate) redirect: Option<Mailbox>,
    /// How long its mail is tried.
    pub(crate) max_age: Duration,
}

/// Who carries a route's mail.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// These mailboxes.
    Pool(Arc<Carriers>),
    /// The sender's own; this one where the sender has none.
    BySender {
        /// For senders without a mailbox.
        fallback: Option<Arc<Carriers>>,
    },
}

/// What a route asks for; a matcher that is left out matches all.
#[derive(Debug, Default)]
pub(crate) struct Matchers {
    pub(super) listeners: Option<Vec<String>>,
    pub(super) networks: Option<Vec<Network>>,
    /// In lower case.
    pub(super) users: Option<Vec<String>>,
    pub(super) senders: Option<AddressSet>,
    pub(super) recipients: Option<AddressSet>,
}

/// A matcher that stands against a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The client came to another listener.
    Listener,
    /// The client is in none of its networks.
    Network,
    /// Nobody logged in, or another user.
    User,
    /// The sender is none of its senders.
    Sender,
    /// The recipient is none of its recipients.
    Recipient,
}

/// The key of the route.
impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listener => "listeners",
            Self::Network => "networks",
            Self::User => "users",
            Self::Sender => "senders",
            Self::Recipient => "recipients",
        })
    }
}

/// Whether a route takes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Yes,
    No,
    /// All else matches, and the sender is not known yet.
    Depends,
}

impl Route {
    /// What stands against it, in the order of the keys. Whether a sender that is not known yet would do is left open.
    pub(crate) fn misses<'a>(
        &'a self,
        submitter: &'a Submitter<'_>,
        recipient: Option<&'a Asked>,
    ) -> impl Iterator<Item = Miss> {
        // In the order of what they cost, too.
        let all = [Miss::Listener, Miss::Network, Miss::User, Miss::Sender, Miss::Recipient];
        all.into_iter().filter(move |miss| !self.matches(*miss, submitter, recipient))
    }

    fn matches(&self, matcher: Miss, submitter: &Submitter<'_>, recipient: Option<&Asked>) -> bool {
        let Matchers { listeners: _, networks, users, senders, recipients } = &self.matchers;
        match matcher {
            Miss::Listener => self.serves(submitter.listener),
            Miss::Network => is_in(networks.as_deref(), submitter.client),
            Miss::User => is_one_of(users.as_deref(), submitter.user),
            Miss::Sender => is_sender(senders.as_ref(), &submitter.sender),
            Miss::Recipient => recipient.is_none_or(|asked| holds(recipients.as_ref(), asked.key())),
        }
    }

    pub(super) fn takes(&self, submitter: &Submitter<'_>, recipient: Option<&Asked>) -> Takes {
        if self.misses(submitter, recipient).next().is_some() {
            Takes::No
        } else if submitter.sender == Sender::Unread && self.asks_for_sender() {
            Takes::Depends
        } else {
            Takes::Yes
        }
    }

    fn asks_for_sender(&self) -> bool {
        matches!(self.choice, Choice::BySender { .. })
            || self.matchers.senders.as_ref().is_some_and(|senders| !senders.has_all())
    }

    /// Whether it takes mail of this listener.
    pub(super) fn serves(&self, listener: &str) -> bool {
        self.matchers.listeners.as_ref().is_none_or(|names| names.iter().any(|name| name == listener))
    }

    /// Whether its mail may go to this recipient.
    pub(crate) fn may_send_to(&self, recipient: &Asked) -> bool {
        match recipient.key() {
            Some(key) => self.allowed.contains(key) && !self.denied.contains(key),
            // Somebody must be there for every server (RFC 5321 section 4.5.1).
            None => true,
        }
    }
}

fn is_in(networks: Option<&[Network]>, client: Option<IpAddr>) -> bool {
    let Some(networks) = networks else { return true };
    client.is_some_and(|client| networks.iter().any(|network| network.contains(client)))
}

fn is_one_of(users: Option<&[String]>, user: Option<&str>) -> bool {
    let Some(users) = users else { return true };
    user.is_some_and(|user| users.iter().any(|name| name.eq_ignore_ascii_case(user)))
}

fn is_sender(senders: Option<&AddressSet>, sender: &Sender) -> bool {
    *sender == Sender::Unread || holds(senders, sender.key())
}

/// Who has no address is in no set but that of all.
fn holds(set: Option<&AddressSet>, key: Option<&AddressKey>) -> bool {
    set.is_none_or(|set| set.has_all() || key.is_some_and(|key| set.contains(key)))
}
