//! One message over an open session: MAIL, every RCPT and DATA in one flight, the body as a stream, and for each
//! recipient what became of it (RFC 5321 section 3.3, RFC 2920).
//!
//! The line that matters most here is where the final dot goes out: before it a lost connection means not sent,
//! after it nobody knows (invariant 5).

use std::fmt::Display;
use std::future::Future;

use mail::{Diagnostic, Envelope, Outcome, Recipient};
use wire::{DotStuffer, Reply};

use crate::classify::{Stage, classify, is_about_the_dialog};
use crate::connection::{Connection, Lost};

/// Commands in one write. Their replies fit any socket's buffer, so that neither side can wait for the other for ever.
const FLIGHT: usize = 100;
/// Octets of the message in one write.
const BLOCK: usize = 64 * 1024;
/// How long a reply may take that would explain a connection lost in the middle of the message.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Reverse-path and what the transfer needs.
    pub envelope: &'a Envelope,
    /// At least one.
    pub recipients: &'a [Recipient],
    /// The header block as it is to be sent, without the empty line.
    pub header: &'a [u8],
}

/// The body of a message at rest, as a stream.
pub trait Body: Send {
    /// Why it cannot be read.
    type Error: Send;

    /// Octets in all.
    fn total(&self) -> u64;

    /// The next octets; none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<&[u8]>, Self::Error>> + Send;
}

/// How a transfer ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// One outcome for each recipient, and whether the session is good for more.
    Told { outcomes: Vec<Outcome>, usable: bool },
    /// The session was used before and gone when this message came: nothing happened.
    Stale,
    /// Upstream refused MAIL because it finds the dialog wrong: nothing happened, and the session is good for no more.
    Confused(Reply),
    /// The session was lost while the envelope was told, and upstream had decided nothing: the lane's trouble, not the
    /// message's.
    Lost(String),
}

/// Sends `message`. Fails only if its body cannot be read; the session is then good for nothing.
pub(crate) async fn transfer<B: Body>(
    connection: &mut Connection,
    message: &Message<'_>,
    body: &mut B,
) -> Result<Ended, B::Error> {
    if message.envelope.smtputf8 && !connection.extensions.smtputf8 {
        let diagnostic = Diagnostic::local("upstream does not take SMTPUTF8 messages");
        let outcomes = vec![Outcome::Refused(diagnostic); message.recipients.len()];
        return Ok(Ended::Told { outcomes, usable: true });
    }
    connection.messages += 1;
    let dialog = envelope(connection, message, body.total()).await;
    if connection.messages > 1 && dialog.is_stale() {
        return Ok(Ended::Stale);
    }
    if let Some(text) = dialog.undecided() {
        return Ok(Ended::Lost(text));
    }
    if let Some(reply) = dialog.confusion() {
        return Ok(Ended::Confused(reply));
    }
    let mut state = dialog.read(message.recipients.len());
    if state.go_ahead {
        if state.is_wanted() {
            let result = content(connection, message.header, body).await?;
            state.content_ended(&result);
        } else {
            state.usable &= empty_message(connection).await.is_ok();
        }
    }
    connection.reset_first = !state.clean;
    let usable = state.usable;
    Ok(Ended::Told { outcomes: state.outcomes(), usable })
}

/// The replies to RSET, MAIL, RCPT and DATA, as far as they came.
struct Dialog {
    reset: bool,
    replies: Vec<Reply>,
    lost: Option<Lost>,
}

/// Says everything up to DATA.
async fn envelope(connection: &mut Connection, message: &Message<'_>, body_len: u64) -> Dialog {
    let mut commands = Vec::with_capacity(message.recipients.len() + 3);
    let reset = connection.reset_first;
    if reset {
        commands.push("RSET\r\n".to_owned());
    }
    commands.push(mail_command(connection, message, body_len));
    let dsn = connection.extensions.dsn;
    commands.extend(message.recipients.iter().map(|recipient| rcpt_command(recipient, dsn)));
    commands.push("DATA\r\n".to_owned());
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

fn mail_command(connection: &Connection, message: &Message<'_>, body_len: u64) -> String {
    let (envelope, offered) = (message.envelope, connection.extensions);
    let declares_eight_bit = offered.eight_bit_mime && envelope.body_type == mail::BodyType::EightBitMime;
    // Exact: edited header, empty line, stored body.
    let size = offered.size.then(|| format!(" SIZE={}", message.header.len() as u64 + 2 + body_len));
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
fn rcpt_command(recipient: &Recipient, dsn: bool) -> String {
    let notify = asked(dsn, "NOTIFY", recipient.notify.as_ref());
    let original = asked(dsn, "ORCPT", recipient.original.as_ref());
    format!("RCPT TO:<{recipient}>{notify}{original}\r\n")
}

/// A parameter of RFC 3461 as the client wrote it, where upstream offers DSN.
fn asked(dsn: bool, keyword: &str, value: Option<&impl Display>) -> String {
    value.filter(|_| dsn).map(|value| format!(" {keyword}={value}")).unwrap_or_default()
}

/// One flight: all commands in one write, then their replies. After a 421 no more will come.
async fn say(connection: &mut Connection, commands: &[String], replies: &mut Vec<Reply>) -> Result<(), Lost> {
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
    fn is_stale(&self) -> bool {
        self.replies
            .first()
            .is_none_or(|reply| reply.code() == 421 && matches!(classify(Stage::Mail, reply), Outcome::Deferred(_)))
    }

    /// The reply to MAIL, if it speaks of the dialog and the session is still there to be left in good order.
    fn confusion(&self) -> Option<Reply> {
        let mail = self.transaction().first().filter(|_| self.lost.is_none())?;
        is_about_the_dialog(Stage::Mail, mail).then(|| mail.clone())
    }

    /// Why the session was lost, if no reply has decided anything by then. A 421 that asks to slow down has.
    fn undecided(&self) -> Option<String> {
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

    fn transaction(&self) -> &[Reply] {
        self.replies.get(usize::from(self.reset)..).unwrap_or_default()
    }

    /// What the replies mean for each of `recipients`.
    fn read(self, recipients: usize) -> Transaction {
        let replies = self.transaction();
        let closing = replies.last().filter(|reply| reply.code() == 421);
        let missing = match (closing, &self.lost) {
            // It speaks for whoever has no reply of his own.
            (Some(reply), _) => not_accepted(classify(Stage::Rcpt, reply)),
            (None, Some(lost)) => Outcome::Deferred(Diagnostic::local(lost.to_string())),
            (None, None) => Outcome::Deferred(Diagnostic::local("upstream gave no reply")),
        };
        let mail = replies.first();
        let data = replies.get(recipients + 1);
        let go_ahead = data.is_some_and(Reply::is_intermediate);
        let recipient = |at: usize| match (mail, replies.get(at + 1)) {
            (Some(mail), _) if !mail.is_positive() => Some(classify(Stage::Mail, mail)),
            (Some(_), Some(reply)) if reply.is_positive() => match data {
                Some(data) if !go_ahead => Some(not_accepted(classify(Stage::Data, data))),
                Some(_) => None,
                None => Some(missing.clone()),
            },
            (Some(_), Some(reply)) => Some(not_accepted(classify(Stage::Rcpt, reply))),
            _ => Some(missing.clone()),
        };
        Transaction {
            recipients: (0..recipients).map(recipient).collect(),
            go_ahead,
            clean: false,
            usable: self.lost.is_none(),
        }
    }
}

/// The outcomes so far; none for a recipient that waits for the final reply.
struct Transaction {
    recipients: Vec<Option<Outcome>>,
    go_ahead: bool,
    /// Whether the session stands where a new transaction may begin.
    clean: bool,
    usable: bool,
}

impl Transaction {
    fn is_wanted(&self) -> bool {
        self.recipients.contains(&None)
    }

    fn content_ended(&mut self, result: &Content) {
        let outcome = match result {
            Content::Answered(reply) => classify(Stage::EndOfData, reply),
            Content::Interrupted(Some(reply)) => not_accepted(classify(Stage::EndOfData, reply)),
            Content::Interrupted(None) => {
                Outcome::Deferred(Diagnostic::local("the connection was lost in the middle of the message"))
            }
            Content::Unanswered(lost) => {
                Outcome::Uncertain(Diagnostic::local(format!("no reply after the final dot: {lost}")))
            }
        };
        self.clean = matches!(outcome, Outcome::Accepted(_));
        self.usable = matches!(result, Content::Answered(reply) if reply.code() != 421);
        for recipient in &mut self.recipients {
            recipient.get_or_insert_with(|| outcome.clone());
        }
    }

    fn outcomes(self) -> Vec<Outcome> {
        let unasked = || Outcome::Deferred(Diagnostic::local("upstream gave no reply"));
        self.recipients.into_iter().map(|recipient| recipient.unwrap_or_else(unasked)).collect()
    }
}

/// A positive reply out of its place is no acceptance.
fn not_accepted(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Accepted(diagnostic) => Outcome::Deferred(diagnostic),
        other => other,
    }
}

/// How the message itself ended.
enum Content {
    /// Upstream's final reply.
    Answered(Reply),
    /// Broken off before the final dot, with upstream's last words if there were some.
    Interrupted(Option<Reply>),
    /// The final dot went out and no reply came.
    Unanswered(Lost),
}

/// Streams header, empty line and body with dots stuffed, then the final dot.
async fn content<B: Body>(connection: &mut Connection, header: &[u8], body: &mut B) -> Result<Content, B::Error> {
    let wait = connection.timeouts.data_block;
    let mut stuffer = DotStuffer::new();
    let mut block = Vec::with_capacity(BLOCK);
    stuffer.stuff(header, &mut block);
    stuffer.stuff(b"\r\n", &mut block);
    while let Some(octets) = body.next().await? {
        stuffer.stuff(octets, &mut block);
        if block.len() >= BLOCK {
            if connection.write(&block, wait).await.is_err() {
                return Ok(Content::Interrupted(connection.read_reply(LAST_WORDS).await.ok()));
            }
            block.clear();
        }
    }
    stuffer.finish(&mut block);
    // From here on upstream may have the whole message, even if the write fails.
    let written = connection.write(&block, wait).await;
    let wait = if written.is_ok() { connection.timeouts.final_dot } else { LAST_WORDS };
    Ok(match connection.read_reply(wait).await {
        Ok(reply) => Content::Answered(reply),
        Err(lost) => Content::Unanswered(written.err().unwrap_or(lost)),
    })
}

/// Every recipient was refused and 354 came all the same: a lone dot ends it, and its reply counts for nothing.
async fn empty_message(connection: &mut Connection) -> Result<(), Lost> {
    let wait = connection.timeouts.command;
    connection.write(b".\r\n", wait).await?;
    connection.read_reply(wait).await.map(drop)
}
