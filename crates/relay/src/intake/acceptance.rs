//! What is decided of a message while it comes: whether its client and sender may send it, which way each recipient goes,
//! and what its header must say. Pure: a transaction acts on it for a client, and `explain` asks it for an administrator.
//!
//! Not here: whether a password is right (`login`), what the queue has room for, and the log.

use std::net::IpAddr;
use std::sync::Arc;

use mail::{AddressList, Envelope, ForwardPath, HeaderBlock, HeaderTooLong, Mailbox, ReversePath};
use smtp_server::Client;
use wire::{Dialect, Reply};

use super::door::ListenerPolicy;
use super::repair::{self, Repair};
use super::{Addressed, completion};
use crate::config::SenderPolicy;
use crate::routing::dress::{Given, dress};
use crate::routing::{Answer, Carriers, IsUnknown, Refused, Sender, Submitter, Taken};
use crate::rules::Rules;

/// What a client's messages are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Acceptance<'a> {
    /// What its listener asks.
    pub(crate) policy: &'a ListenerPolicy,
    /// The routes, and our name.
    pub(crate) rules: &'a Rules,
    /// The client.
    pub(crate) client: &'a Client,
}

/// Why a message is not taken, or one of its recipients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The client comes from elsewhere.
    #[error("{0} is not in the networks of this listener")]
    Stranger(IpAddr),
    /// The routes do not take it.
    #[error("{refused}")]
    Routes {
        /// For whom; none if for nobody.
        recipient: Option<ForwardPath>,
        /// Why.
        refused: Box<Refused>,
    },
    /// Not among the user's `allowed_senders`.
    #[error("User {user} may not send as {sender} ({place})")]
    Sender {
        /// Who logged in.
        user: Arc<str>,
        /// As whom.
        sender: Mailbox,
        /// Where that stands.
        place: &'static str,
    },
    /// No mailbox that carries it takes so much.
    #[error("The message is too large: its mailbox takes at most {largest} octets")]
    TooLarge {
        /// In octets.
        largest: u64,
    },
    /// Too many Received fields.
    #[error("Too many hops: this message goes round in a loop")]
    Loop,
    /// The header is longer than we edit in memory.
    #[error("The message cannot be taken: {0}")]
    HeaderTooLong(#[from] HeaderTooLong),
    /// Strict: nobody said so before.
    #[error("The header holds 8-bit octets, which SMTPUTF8 must announce")]
    UndeclaredHeader,
    /// What no reader would understand.
    #[error("The message header cannot be taken: {0}")]
    Header(String),
}

impl Refusal {
    /// Whether there is no route for it.
    pub(crate) fn is_unrouted(&self) -> bool {
        matches!(self, Self::Routes { refused, .. } if **refused == Refused::NoRoute)
    }

    /// What the client hears.
    pub(crate) fn reply(&self) -> Reply {
        let (code, enhanced) = match self {
            Self::Routes { refused, .. } => return refused.reply(),
            Self::Stranger(_) => (554, (5, 7, 1)),
            Self::Sender { .. } => (550, (5, 7, 1)),
            Self::TooLarge { .. } | Self::HeaderTooLong(_) => (552, (5, 3, 4)),
            Self::Loop => (554, (5, 4, 6)),
            Self::UndeclaredHeader => (554, (5, 6, 1)),
            Self::Header(_) => (554, (5, 6, 0)),
        };
        Reply::new(code, enhanced, self.to_string())
    }

    /// What the administrator can do.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Routes { refused, .. } => refused.remedy(),
            Self::Stranger(_) => "add the client's network to the listener's networks, if it may send",
            Self::Sender { .. } => {
                "add the address to the user's allowed_senders, or have the program send as one of them"
            }
            Self::TooLarge { .. } => {
                "send less, or raise the mailbox's MaxSendSize in Exchange and its max_message_size here"
            }
            Self::Loop => "find who sends the relay's own mail back to it: a forwarding rule of a mailbox, most often",
            Self::HeaderTooLong(_) => "look at the program that wrote the message: no header is so long",
            Self::UndeclaredHeader | Self::Header(_) => {
                "mend the program that wrote it, or let the listener have dialect = \"lenient\", which repairs most headers"
            }
        }
    }
}

fn header_refused(text: &str) -> Refusal {
    Refusal::Header(text.to_owned())
}

impl<'a> Acceptance<'a> {
    /// The client as routes are asked about it.
    pub(crate) fn submitter(&self, sender: Sender) -> Submitter<'a> {
        let Client { listener, user, .. } = self.client;
        Submitter {
            listener,
            client: Some(self.client.address()),
            user: user.as_deref(),
            is_held_to_senders: user.as_ref().is_some_and(|user| self.policy.logins.holds_to_senders(user)),
            sender,
        }
    }

    /// Whether the client comes from where clients may come from.
    pub(crate) fn admits(&self) -> Result<(), Refusal> {
        self.policy.admits(self.client.address())
    }

    /// Whose mail it is, if the routes take any of that sender and the client may send as it. The null reverse-path is
    /// anybody's: then the From field decides.
    pub(crate) fn mail(&self, path: &ReversePath) -> Result<Sender, Refusal> {
        let sender = self.rules.routing.sender_of_envelope(path);
        if !self.rules.routing.may_submit(&self.submitter(sender.clone())) {
            return Err(Refusal::Routes { recipient: None, refused: Box::new(Refused::NoRoute) });
        }
        match path.mailbox() {
            Some(mailbox) => self.may_send_as(mailbox, "MAIL FROM").map(|()| sender),
            None => Ok(sender),
        }
    }

    /// Whether the client, if it logged in, may send as `sender`; `place` is where it says so.
    pub(crate) fn may_send_as(&self, sender: &Mailbox, place: &'static str) -> Result<(), Refusal> {
        match &self.client.user {
            Some(user) if !self.policy.logins.may_send_as(user, sender) => {
                Err(Refusal::Sender { user: Arc::clone(user), sender: sender.clone(), place })
            }
            _ => Ok(()),
        }
    }

    /// Which way a recipient goes; none if that depends on the From field, which has not come.
    pub(crate) fn way(
        &self,
        sender: Sender,
        path: &ForwardPath,
        is_unknown: IsUnknown<'_>,
    ) -> Result<Option<Taken>, Refusal> {
        match self.rules.routing.ask(&self.submitter(sender), path, is_unknown) {
            Answer::Taken(taken) => Ok(Some(taken)),
            Answer::Depends => Ok(None),
            Answer::Refused(refused) => {
                Err(Refusal::Routes { recipient: Some(path.clone()), refused: Box::new(refused) })
            }
        }
    }

    /// The header has come, and nothing of the body is stored yet: it is refused, or it is repaired and every recipient's way
    /// is known. `size` is what the client said the message would have, in octets; 0 if nothing.
    pub(crate) fn header(
        &self,
        envelope: &Envelope,
        size: u64,
        recipients: &mut [Addressed],
        header: &mut HeaderBlock,
        is_unknown: IsUnknown<'_>,
    ) -> Result<Option<Repair>, Refusal> {
        let is_strict = self.policy.dialect == Dialect::Strict;
        if is_strict && !header.as_bytes().is_ascii() && !envelope.smtputf8 {
            return Err(Refusal::UndeclaredHeader);
        }
        if is_strict && header.count("Date") > 1 {
            return Err(header_refused("it has more than one Date field"));
        }
        if is_strict && !header.values("Date").all(mail::is_date) {
            return Err(header_refused("its Date field is not a date as RFC 5322 section 3.3 wants it"));
        }
        let path = &envelope.reverse_path;
        if path.mailbox().is_none() {
            let sender = self.rules.routing.sender_of_message(path, header);
            for Addressed { given, way } in recipients.iter_mut().filter(|addressed| addressed.way.is_none()) {
                *way = self.way(sender.clone(), &given.path, is_unknown)?;
            }
            check_size(recipients, size)?;
        }
        let first = recipients.iter().find_map(|addressed| addressed.way.as_ref());
        let stand_in = first.map(|way| way.carriers.address());
        let Some(sender) = path.mailbox().or(stand_in) else {
            return Err(header_refused("it names no sender"));
        };
        let repair = repair::settle_from(header, sender, self.policy.dialect);
        let repair = repair.map_err(|fault| header_refused(&fault.to_string()))?;
        if self.client.user.is_some()
            && let Ok(list) = AddressList::parse(header.value("From").unwrap_or_default())
        {
            list.mailboxes().try_for_each(|mailbox| self.may_send_as(mailbox, "From field"))?;
        }
        self.drop_foreign_sender(header)?;
        self.narrow_to_senders(path, recipients, header)?;
        Ok(repair)
    }

    /// A Sender field speaks for whom it names as much as From does. Mail programs add one by themselves, so that it is no
    /// reason to refuse the message; it keeps its words under another name.
    fn drop_foreign_sender(&self, header: &mut HeaderBlock) -> Result<(), Refusal> {
        let is_foreign = |value: &[u8]| match AddressList::parse(value) {
            Ok(list) => list.mailboxes().any(|mailbox| self.may_send_as(mailbox, "Sender field").is_err()),
            Err(_) => true,
        };
        if self.client.user.is_some() && header.values("Sender").any(is_foreign) {
            let renamed = header.rename("Sender", "X-Original-Sender", 0);
            renamed.map_err(|error| header_refused(&error.to_string()))?;
        }
        Ok(())
    }

    /// Whether the message has been handed on too often, or by us.
    pub(crate) fn check_hops(&self, header: &HeaderBlock) -> Result<(), Refusal> {
        if completion::is_in_a_loop(header, &self.rules.hostname) { Err(Refusal::Loop) } else { Ok(()) }
    }

    /// Where routes refuse senders that a mailbox may not send as, one must be left that may. Of several that are left whoever
    /// carries it sees to it: there is no queue for each choice of a pool.
    fn narrow_to_senders(
        &self,
        reverse_path: &ReversePath,
        recipients: &mut [Addressed],
        header: &HeaderBlock,
    ) -> Result<(), Refusal> {
        let given = Given { reverse_path, header };
        // A route gives all its recipients the same mailboxes, and a header takes its time.
        let mut judged: Vec<(Arc<Carriers>, Option<Arc<Carriers>>)> = Vec::new();
        for Addressed { given: recipient, way } in recipients {
            let Some(way) = way.as_mut().filter(|way| way.route.policy == SenderPolicy::Reject) else { continue };
            if let Some((_, right)) = judged.iter().find(|(asked, _)| Arc::ptr_eq(asked, &way.carriers)) {
                way.carriers = right.as_ref().unwrap_or(&way.carriers).clone();
                continue;
            }
            let asked = Arc::clone(&way.carriers);
            let mut last = None;
            let right = way.carriers.filtered(|identity| {
                let dressed = dress(&given, SenderPolicy::Reject, identity, &self.rules.routing.senders);
                dressed.map_err(|refused| last = Some(refused)).is_ok()
            });
            match (right, last) {
                (Some(carriers), _) if carriers.lanes.is_single() => way.carriers = Arc::new(carriers),
                (None, Some(refused)) => {
                    let recipient = Some(recipient.path.clone());
                    return Err(Refusal::Routes { recipient, refused: Box::new(Refused::Sender(refused)) });
                }
                (Some(_), _) | (None, None) => {}
            }
            let right = (!Arc::ptr_eq(&asked, &way.carriers)).then(|| Arc::clone(&way.carriers));
            judged.push((asked, right));
        }
        Ok(())
    }
}

/// What no mailbox would take is refused at acceptance rather than hours later.
pub(crate) fn check_size(recipients: &[Addressed], octets: u64) -> Result<(), Refusal> {
    let ways = recipients.iter().filter_map(|addressed| addressed.way.as_ref());
    let largest = ways.map(|way| way.carriers.max_message_size()).min().unwrap_or(u64::MAX);
    if octets <= largest { Ok(()) } else { Err(Refusal::TooLarge { largest }) }
}
