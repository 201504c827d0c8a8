//! What `explain` found, as data: `screen` makes it readable, `--json` prints it as it is. Names are stable: fields may be
//! added, none is renamed or given another meaning.

use std::net::IpAddr;

use serde::Serialize;

/// What would become of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    /// Whether all of it would be taken, for every recipient.
    pub(crate) taken: bool,
    /// The listener's name.
    pub(crate) listener: String,
    /// The client's address.
    pub(crate) client: IpAddr,
    /// Who it logs in as.
    pub(crate) user: Option<String>,
    /// The envelope sender; `null` for the null sender.
    pub(crate) sender: Option<Rewritten>,
    /// The addresses of the From field as it is stored.
    pub(crate) from: Vec<Rewritten>,
    /// The message's size in octets, if there is one.
    pub(crate) size: Option<u64>,
    /// What was asked on the way, in order.
    pub(crate) steps: Vec<Step>,
    /// What the client would be refused; empty if nothing.
    pub(crate) refused: Vec<Refused>,
    /// Who gets it, as they are asked for.
    pub(crate) recipients: Vec<Recipient>,
    /// What would be stored, a part for each way.
    pub(crate) deliveries: Vec<Delivery>,
    /// What only the daemon or Exchange knows.
    pub(crate) not_known: Vec<String>,
}

/// An address, and what `[rewrite]` makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rewritten {
    /// As it is given.
    pub(crate) given: String,
    /// What the maps make of it; `null` if they leave it.
    pub(crate) mapped: Option<String>,
}

/// What was asked, and the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// What was asked: one of a few words.
    pub(crate) step: &'static str,
    /// The answer with its reason.
    pub(crate) text: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    /// What the client said last: `connect`, `AUTH`, `MAIL`, `RCPT`, `DATA` or `message`.
    pub(crate) command: &'static str,
    /// Whom that was for, at RCPT.
    pub(crate) recipient: Option<String>,
    /// What the client hears.
    pub(crate) reply: String,
    /// What the administrator is told.
    pub(crate) reason: String,
    /// What the administrator can do.
    pub(crate) remedy: String,
    /// Routes that were near.
    pub(crate) near_misses: Vec<NearMiss>,
}

/// A recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Recipient {
    /// As it is given, and what the maps make of it.
    #[serde(flatten)]
    pub(crate) address: Rewritten,
    /// Whether a route takes it.
    pub(crate) taken: bool,
    /// The route that decides.
    pub(crate) route: Option<Route>,
    /// Routes before it that were near.
    pub(crate) near_misses: Vec<NearMiss>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Route {
    /// Its place in the configuration, from 1; `null` where no routes are written and the only mailbox serves everything.
    pub(crate) number: Option<usize>,
    /// Its name.
    pub(crate) name: String,
    /// How each of its matchers is met.
    pub(crate) because: Vec<String>,
}

/// A route that one matcher alone kept from deciding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NearMiss {
    /// Its place in the configuration, from 1.
    pub(crate) number: usize,
    /// Its name.
    pub(crate) name: String,
    /// The key of the matcher.
    pub(crate) matcher: String,
    /// What the message has there, and what the route wants.
    pub(crate) text: String,
}

/// A part of the message that goes its own way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Delivery {
    /// The route's name.
    pub(crate) route: String,
    /// Who gets it, behind maps and redirection.
    pub(crate) recipients: Vec<String>,
    /// Whom the routes were asked for, where the route has `redirect_all_to`.
    pub(crate) redirected_from: Vec<String>,
    /// The tenant's name.
    pub(crate) tenant: String,
    /// How its mailboxes were chosen: `named`, `only`, `own`, `wildcard` or `fallback`.
    pub(crate) chosen: &'static str,
    /// The same with its reason.
    pub(crate) because: String,
    /// The route's word for senders: `auto`, `keep`, `rewrite` or `reject`.
    pub(crate) policy: &'static str,
    /// For how long it is tried, in seconds.
    pub(crate) max_age: u64,
    /// The largest message that these mailboxes take, in octets.
    pub(crate) max_message_size: u64,
    /// By which it may leave; several spread the mail and take over from each other.
    pub(crate) mailboxes: Vec<Mailbox>,
}

/// A mailbox, and the message as it sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mailbox {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: String,
    /// The login whose lane it is.
    pub(crate) login: String,
    /// The same lane as the spool and the log name it.
    pub(crate) lane: String,
    /// The envelope sender upstream; empty for the null sender.
    pub(crate) mail_from: String,
    /// What is changed when it leaves, and why.
    pub(crate) edits: Vec<String>,
    /// Fields that change from what the client sent, as a diff: `- ` goes, `+ ` comes.
    pub(crate) header_diff: Vec<String>,
}
