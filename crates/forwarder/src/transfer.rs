//! One message of the queue over an open session: MAIL, every RCPT and DATA in one flight, the body as a stream, and for each
//! recipient what became of it (RFC 5321 section 3.3, RFC 2920).
//!
//! The line that matters most here is where the final dot goes out: before it a lost connection means not sent,
//! after it nobody knows (invariant 5).

use std::future::Future;

use mail::{Diagnostic, Envelope, Outcome, Recipient};
use wire::{DotStuffer, Reply};

use crate::classify::{Stage, classify};
use crate::connection::{Connection, Lost};
use crate::content::{self, Content};
use crate::dialog::{Dialog, converse, mail_command, not_accepted, rcpt_command};

/// Octets of the message in one write.
const BLOCK: usize = 64 * 1024;

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

/// Says everything up to DATA.
async fn envelope(connection: &mut Connection, message: &Message<'_>, body_len: u64) -> Dialog {
    let offered = connection.extensions;
    // Exact: edited header, empty line, stored body.
    let size = message.header.len() as u64 + 2 + body_len;
    let mut commands = Vec::with_capacity(message.recipients.len() + 3);
    commands.push(mail_command(offered, message.envelope, Some(size)));
    commands.extend(message.recipients.iter().map(|recipient| rcpt_command(recipient, offered.dsn)));
    commands.push("DATA\r\n".to_owned());
    converse(connection, commands).await
}

impl Dialog {
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

    fn content_ended(&mut self, content: &Content) {
        let outcome = content.outcome();
        self.clean = matches!(outcome, Outcome::Accepted(_));
        self.usable = content.is_session_usable();
        for recipient in &mut self.recipients {
            recipient.get_or_insert_with(|| outcome.clone());
        }
    }

    fn outcomes(self) -> Vec<Outcome> {
        let unasked = || Outcome::Deferred(Diagnostic::local("upstream gave no reply"));
        self.recipients.into_iter().map(|recipient| recipient.unwrap_or_else(unasked)).collect()
    }
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
                return Ok(content::interrupted(connection).await);
            }
            block.clear();
        }
    }
    stuffer.finish(&mut block);
    Ok(content::finish(connection, &block).await)
}

/// Every recipient was refused and 354 came all the same: a lone dot ends it, and its reply counts for nothing.
async fn empty_message(connection: &mut Connection) -> Result<(), Lost> {
    let wait = connection.timeouts.command;
    connection.write(b".\r\n", wait).await?;
    connection.read_reply(wait).await.map(drop)
}
