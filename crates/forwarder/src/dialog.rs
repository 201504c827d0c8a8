//! What is said up to DATA: MAIL and RCPT as they stand on the wire, flights of commands, and the replies as far as they came
//! (RFC 5321 section 3.3, RFC 2920). What the replies mean for whom is told by those who asked.

use std::fmt::Display;
use std::time::Duration;

use mail::{BodyType, Envelope, Outcome, Recipient};
use wire::Reply;

use crate::classify::{Stage, classify, is_about_the_dialog};
use crate::connection::{Connection, Extensions, Lost};

/// Commands in one write. Their replies fit any socket's buffer, so that neither side can wait for the other for ever.
const FLIGHT: usize = 100;
/// How long a reply may take that would explain a connection lost in the middle of what we write.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// The replies to RSET, MAIL, RCPT and DATA, as far as they came.
pub(crate) struct Dialog {
    reset: bool,
    replies: Vec<Reply>,
    pub(crate) lost: Option<Lost>,
}

/// Begins a transaction with these `commands`, behind RSET where the session needs it.
pub(crate) async fn converse(connection: &mut Connection, mut commands: Vec<String>) -> Dialog {
    let reset = connection.reset_first;
    if reset {
        commands.insert(0, "RSET\r\n".to_owned());
    }
    // Until this one has ended well.
    connection.reset_first = true;
    let flight = if connection.extensions.pipelining { FLIGHT } else { 1 };
    let mut dialog = Dialog { reset, replies: Vec::with_capacity(commands.len()), lost: None };
    for commands in commands.chunks(flight) {
        if dialog.is_over(commands) {
            break;
        }
        if let Err(lost) = say(connection, commands, &mut dialog.replies).await {
            dialog.lost = Some(lost);
            break;
        }
    }
    dialog
}

/// MAIL with what is `offered`; the message has `size` octets, where that is known.
pub(crate) fn mail_command(offered: Extensions, envelope: &Envelope, size: Option<u64>) -> String {
    let declares_eight_bit = offered.eight_bit_mime && envelope.body_type == BodyType::EightBitMime;
    let size = size.filter(|_| offered.size).map(|size| format!(" SIZE={size}"));
    format!(
        "MAIL FROM:<{}>{}{}{}{}{}\r\n",
        envelope.reverse_path,
        size.unwrap_or_default(),
        if declares_eight_bit { " BODY=8BITMIME" } else { "" },
        if envelope.smtputf8 { " SMTPUTF8" } else { "" },
        asked(offered.dsn, "RET", envelope.ret.as_ref()),
        asked(offered.dsn, "ENVID", envelope.envelope_id.as_ref()),
    )
}

/// Of a recipient of which the client asked nothing, nothing is asked: upstream then reports a failure to the reverse-path.
pub(crate) fn rcpt_command(recipient: &Recipient, dsn: bool) -> String {
    let notify = asked(dsn, "NOTIFY", recipient.notify.as_ref());
    let original = asked(dsn, "ORCPT", recipient.original.as_ref());
    format!("RCPT TO:<{recipient}>{notify}{original}\r\n")
}

/// A parameter of RFC 3461 as the client wrote it, where upstream offers DSN.
fn asked(dsn: bool, keyword: &str, value: Option<&impl Display>) -> String {
    value.filter(|_| dsn).map(|value| format!(" {keyword}={value}")).unwrap_or_default()
}

/// One flight: all commands in one write, then their replies. After a 421 no more will come.
pub(crate) async fn say(
    connection: &mut Connection,
    commands: &[String],
    replies: &mut Vec<Reply>,
) -> Result<(), Lost> {
    let wait = connection.timeouts.command;
    // What upstream said before it hung up is worth more than the error of our write.
    let written = connection.write(commands.concat().as_bytes(), wait).await;
    for _ in commands {
        let wait = if written.is_ok() { wait } else { LAST_WORDS };
        let reply = connection.read_reply(wait).await?;
        let closing = reply.code() == 421;
        replies.push(reply);
        if closing {
            return Err(Lost("upstream closed the connection".to_owned()));
        }
    }
    written
}

impl Dialog {
    /// Whether there is nothing more to say: MAIL was refused, or only DATA is left and nobody wants it.
    fn is_over(&self, next: &[String]) -> bool {
        let replies = self.transaction();
        let refused = replies.first().is_some_and(|reply| !reply.is_positive());
        let unwanted = !replies.is_empty() && !replies.iter().skip(1).any(Reply::is_positive);
        refused || (unwanted && next.len() == 1 && next[0].starts_with("DATA"))
    }

    /// Whether upstream had given the session up before it heard of this message: by silence, or by a 421 in answer to
    /// the first word. One that asks to slow down is heard all the same.
    pub(crate) fn is_stale(&self) -> bool {
        self.replies
            .first()
            .is_none_or(|reply| reply.code() == 421 && matches!(classify(Stage::Mail, reply), Outcome::Deferred(_)))
    }

    /// The reply to MAIL, if it speaks of the dialog and the session is still there to be left in good order.
    pub(crate) fn confusion(&self) -> Option<Reply> {
        let mail = self.transaction().first().filter(|_| self.lost.is_none())?;
        is_about_the_dialog(Stage::Mail, mail).then(|| mail.clone())
    }

    /// Why the session was lost, if no reply has decided anything by then. A 421 that asks to slow down has.
    pub(crate) fn undecided(&self) -> Option<String> {
        let reason = self.lost.as_ref()?;
        let (farewell, before) = match self.transaction().split_last() {
            Some((reply, before)) if reply.code() == 421 => (Some(reply), before),
            _ => (None, self.transaction()),
        };
        let paced = farewell.is_some_and(|reply| !matches!(classify(Stage::Mail, reply), Outcome::Deferred(_)));
        if paced || !before.iter().all(Reply::is_positive) {
            return None;
        }
        Some(farewell.map_or_else(|| reason.to_string(), |reply| reply.diagnostic().to_string()))
    }

    /// The replies to MAIL and what followed.
    pub(crate) fn transaction(&self) -> &[Reply] {
        self.replies.get(usize::from(self.reset)..).unwrap_or_default()
    }
}

/// A positive reply out of its place is no acceptance.
pub(crate) fn not_accepted(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Accepted(diagnostic) => Outcome::Deferred(diagnostic),
        other => other,
    }
}
