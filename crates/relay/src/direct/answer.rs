//! What the client of a direct listener hears. Pure.
//!
//! Exchange's own words where they are about the message or its recipients. What is ours stays ours: trouble of our login, its
//! tenant or its pace becomes 451 with the reason, since a 535 would look like the client's password and a 5xx would have it
//! throw away what can be sent an hour later.

use std::fmt::Display;
use std::time::Duration;

use forwarder::{LiveTold, NoTurn, Stage, Trouble, TroubleKind, classify};
use mail::{Outcome, Scope};
use wire::Reply;

/// What a client hears of what upstream, or our road there, said of its message.
pub(super) fn reply(told: &LiveTold) -> Reply {
    match told {
        LiveTold::Upstream(stage, reply) => upstream(*stage, reply),
        LiveTold::Trouble(trouble) => troubled(trouble),
        LiveTold::MessageFull => {
            Reply::new(452, (4, 5, 3), "Too many recipients for one message, send the others in another")
        }
        LiveTold::DayFull => busy("the mailbox has used up its recipients of 24 hours", None),
        LiveTold::ExternalFull(wait) => busy("the tenant has used up its external recipients of 24 hours", Some(*wait)),
        LiveTold::NoSmtpUtf8 => Reply::new(553, (5, 6, 7), "Exchange does not take SMTPUTF8 messages"),
        LiveTold::Lost(text) => {
            Reply::new(451, (4, 4, 2), format!("The connection to Exchange was lost, nothing was sent: {text}"))
        }
        LiveTold::Uncertain(text) => Reply::new(
            451,
            (4, 4, 2),
            format!("Exchange did not answer behind the end of the message and may have taken it: {text}"),
        ),
    }
}

/// What it hears when there is no turn for it within its wait.
pub(super) fn no_turn(reason: &NoTurn) -> Reply {
    match reason {
        NoTurn::Trouble(trouble) => troubled(trouble),
        NoTurn::Minute(wait) => {
            busy("the mailbox has sent as many messages as Exchange takes in a minute", Some(*wait))
        }
        NoTurn::Day(wait) => busy("the mailbox has used up its recipients of 24 hours", *wait),
        NoTurn::Busy => busy("all connections of the mailbox to Exchange are in use", None),
    }
}

/// There is no lane: its mailbox is being replaced, or too many others have theirs.
pub(super) fn no_lane() -> Reply {
    busy("the mailbox has no connection to Exchange at this moment", None)
}

/// Exchange let nobody log in to the sender's own mailbox lately.
pub(super) fn unknown_mailbox() -> Reply {
    Reply::new(
        451,
        (4, 3, 0),
        "Exchange lets nobody log in to the sender's own mailbox; it is tried again within the hour",
    )
}

/// The mailbox that had a turn may not send as From says, and another of the route may.
pub(super) fn another_mailbox() -> Reply {
    Reply::new(451, (4, 3, 0), "Another mailbox of the route may send as this From, and it had no turn; try again")
}

/// The message goes one way, and this recipient another.
pub(crate) fn another_way() -> Reply {
    Reply::new(452, (4, 5, 3), "Goes another way than the recipients before it, send it in a message of its own")
}

/// The route depends on what has not come.
pub(crate) fn depends() -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        "The way of mail with a null sender depends on its From field here, for which a direct listener cannot wait",
    )
}

/// We stop.
pub(super) fn stopping() -> Reply {
    Reply::new(421, (4, 3, 2), "Shutting down, try again shortly")
}

fn busy(what: impl Display, wait: Option<Duration>) -> Reply {
    let when = match wait {
        Some(wait) => format!("in {} s", wait.as_secs_f64().ceil().max(1.0)),
        None => "later".to_owned(),
    };
    Reply::new(451, (4, 4, 5), format!("Not now, {what}; try again {when}"))
}

fn troubled(Trouble { kind, text, .. }: &Trouble) -> Reply {
    let enhanced = match kind {
        TroubleKind::Unreachable => (4, 4, 1),
        TroubleKind::Throttled => (4, 4, 5),
        TroubleKind::NoToken | TroubleKind::Refused => (4, 3, 0),
    };
    Reply::new(451, enhanced, format!("The relay cannot send now: {text}"))
}

fn upstream(stage: Stage, reply: &Reply) -> Reply {
    let class = reply.code() / 100;
    match classify(stage, reply) {
        Outcome::Accepted(_) if matches!(stage, Stage::Rcpt | Stage::EndOfData) => reply.clone(),
        Outcome::Held { scope: Scope::Mailbox | Scope::Tenant, .. } => {
            Reply::new(451, (4, 3, 0), format!("Exchange takes nothing from the relay's mailbox now: {reply}"))
        }
        Outcome::Refused(_) | Outcome::Held { .. } if class == 5 && !is_about_a_login(reply) => reply.clone(),
        Outcome::Deferred(_) | Outcome::Paced(_) if class == 4 && !is_about_a_login(reply) => reply.clone(),
        // Our dialog with upstream is at fault, or upstream is: never the client's commands.
        _ => Reply::new(451, (4, 3, 0), format!("Exchange does not take it now: {reply}")),
    }
}

/// Codes by which RFC 4954 and RFC 3207 speak of a login, its mechanism or encryption: ours is meant, and the client would take
/// it for its own; and `451 5.7.3 STARTTLS is required`, which has a code of its own.
fn is_about_a_login(reply: &Reply) -> bool {
    matches!(reply.code(), 454 | 504 | 530 | 534 | 535 | 538) || reply.text().contains("STARTTLS is required")
}

#[cfg(test)]
mod tests;
