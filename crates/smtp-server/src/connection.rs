//! Drives one session over a stream: reads lines and bodies, asks the intake, writes replies. It decides nothing itself.
//!
//! Replies of pipelined commands leave in one write; reading stops while a hook works, so a client can never fill
//! memory. A stop is seen between commands; a message that has begun is read to its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use wire::{BodyDecoder, Command, Framed, LineFramer, MAX_COMMAND_LEN, MailParameters, Reply};

use crate::client::Client;
use crate::intake::{Intake, MessageSink, Transaction};
use crate::server::Limits;
use crate::session::{Profile, Session, Step, too_large};

/// Room for commands; a session that only waits keeps no more.
const COMMAND_BUFFER: usize = 2 * 1024;
/// Room while a message is read.
const BODY_BUFFER: usize = 64 * 1024;
/// Replies held back for one write; more than this is written at once.
const OUTPUT_BOUND: usize = 16 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// We said the last word: QUIT, a refusal, a timeout or our stop.
    Closed,
    /// The client went without QUIT.
    Gone,
    /// The stream failed.
    Io(std::io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by us"),
            Self::Gone => f.write_str("the client went"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// One connection with its session.
pub(crate) struct Connection<S, I> {
    stream: S,
    client: Client,
    session: Session,
    intake: Arc<I>,
    limits: Arc<Limits>,
    max_message_size: u64,
    stop: CancellationToken,
    framer: LineFramer,
    input: Vec<u8>,
    /// Where the octets not yet consumed start in `input`.
    start: usize,
    output: Vec<u8>,
}

impl<S, I> Connection<S, I>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    I: Intake,
{
    pub(crate) fn new(
        stream: S,
        client: Client,
        profile: Arc<Profile>,
        intake: Arc<I>,
        limits: Arc<Limits>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            stream,
            client,
            max_message_size: profile.max_message_size,
            session: Session::new(profile),
            intake,
            limits,
            stop,
            framer: LineFramer::new(MAX_COMMAND_LEN),
            input: Vec::new(),
            start: 0,
            output: Vec::new(),
        }
    }

    /// Runs the session to its end.
    pub(crate) async fn run(mut self) {
        let end = match self.converse().await {
            Ok(()) => End::Closed,
            Err(end) => end,
        };
        debug!(session = self.client.session, listener = %self.client.listener, client = %self.client.peer, %end, "session ended");
    }

    async fn converse(&mut self) -> Result<(), End> {
        match self.intake.connect(&self.client).await {
            Ok(()) => self.say(&self.session.banner()),
            Err(refusal) => return self.close(&refusal).await,
        }
        let mut transaction = None;
        loop {
            let Some(step) = self.next_step().await? else { return Ok(()) };
            match step {
                Step::Reply(reply) => self.say(&reply),
                Step::Close(reply) => return self.close(&reply).await,
                Step::Reset(reply) => {
                    transaction = None;
                    self.say(&reply);
                }
                Step::Mail(path, parameters) => transaction = self.mail(path, parameters).await,
                Step::Rcpt(path) => {
                    if let Some(transaction) = &mut transaction {
                        let reply = transaction.rcpt(path).await;
                        self.session.rcpt_answered(reply.is_positive());
                        self.say(&reply);
                    }
                }
                Step::Data => {
                    if let Some(transaction) = transaction.take() {
                        self.data(transaction).await?;
                    }
                }
            }
        }
    }

    /// What the session makes of the next command; none when the session is over.
    async fn next_step(&mut self) -> Result<Option<Step>, End> {
        loop {
            match self.framer.next(&self.input[self.start..]) {
                Framed::Line { line, consumed } => {
                    let command = Command::parse(line);
                    self.consume(consumed);
                    debug!(session = self.client.session, ?command, "command");
                    let step = self.session.command(command);
                    if let Some(greeting) = self.session.greeting() {
                        self.client.esmtp = greeting.extended;
                        if self.client.helo != greeting.name {
                            self.client.helo.clone_from(&greeting.name);
                        }
                    }
                    return Ok(Some(step));
                }
                Framed::TooLong { consumed } => {
                    self.consume(consumed);
                    return Ok(Some(self.session.line_too_long()));
                }
                Framed::Incomplete { consumed } => {
                    self.consume(consumed);
                    if !self.more_commands().await? {
                        return Ok(None);
                    }
                }
            }
            self.flush_if_long().await?;
        }
    }

    /// Waits for more octets of commands. False when the session is over: stopped or timed out.
    async fn more_commands(&mut self) -> Result<bool, End> {
        self.flush().await?;
        let stop = self.stop.clone();
        let wait = self.limits.command_timeout;
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.close(&self.session.shutting_down()).await?;
                Ok(false)
            }
            read = timeout(wait, self.read(COMMAND_BUFFER)) => match read {
                Ok(read) => read.map(|()| true),
                Err(_elapsed) => {
                    self.close(&self.session.timed_out()).await?;
                    Ok(false)
                }
            },
        }
    }

    async fn mail(&mut self, path: mail::ReversePath, parameters: MailParameters) -> Option<I::Transaction> {
        let smtputf8 = parameters.smtputf8;
        match self.intake.mail(&self.client, path, parameters).await {
            Ok(transaction) => {
                self.session.mail_answered(true, smtputf8);
                self.say(&Reply::new(250, (2, 1, 0), "Sender OK"));
                Some(transaction)
            }
            Err(refusal) => {
                self.session.mail_answered(false, smtputf8);
                self.say(&refusal);
                None
            }
        }
    }

    async fn data(&mut self, transaction: I::Transaction) -> Result<(), End> {
        let reply = match transaction.data().await {
            Ok(sink) => {
                self.say(&Reply::plain(354, vec!["Start mail input; end with <CRLF>.<CRLF>".into()]));
                self.flush().await?;
                self.message(sink).await?
            }
            Err(refusal) => refusal,
        };
        self.session.data_ended();
        self.say(&reply);
        if self.input.is_empty() {
            // The room that a message took is not kept by a session that only waits.
            self.input = Vec::new();
        }
        Ok(())
    }

    /// Reads a message to its final dot and gives the final reply. What was refused on the way is still read, so that the
    /// client hears why, up to a bound.
    async fn message(&mut self, sink: impl MessageSink) -> Result<Reply, End> {
        let mut decoder = BodyDecoder::new();
        let mut content = Vec::new();
        let mut size = 0u64;
        let mut taking = Ok(sink);
        loop {
            let progress = decoder.decode(&self.input[self.start..], &mut content);
            self.consume(progress.consumed);
            size += content.len() as u64;
            if taking.is_ok() && size > self.max_message_size {
                taking = Err(too_large(self.max_message_size));
            }
            if let Ok(sink) = &mut taking
                && !content.is_empty()
                && let Err(refusal) = sink.write(&content).await
            {
                taking = Err(refusal);
            }
            content.clear();
            if progress.done {
                break;
            }
            if let Err(refusal) = &taking
                && size > self.max_message_size.saturating_mul(2).max(self.limits.max_refused_octets)
            {
                let refusal = refusal.clone();
                self.close(&refusal).await?;
                return Err(End::Closed);
            }
            self.more_body().await?;
        }
        match taking {
            Ok(sink) => Ok(sink.end().await),
            Err(refusal) => Ok(refusal),
        }
    }

    async fn more_body(&mut self) -> Result<(), End> {
        match timeout(self.limits.data_timeout, self.read(BODY_BUFFER)).await {
            Ok(read) => read,
            Err(_elapsed) => {
                self.close(&self.session.timed_out()).await?;
                Err(End::Closed)
            }
        }
    }

    /// Reads once, into room for `room` octets.
    async fn read(&mut self, room: usize) -> Result<(), End> {
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        if self.input.capacity() - self.input.len() < room / 2 {
            self.input.reserve(room);
        }
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    fn consume(&mut self, octets: usize) {
        self.start += octets;
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
        }
    }

    fn say(&mut self, reply: &Reply) {
        debug!(session = self.client.session, %reply, "reply");
        reply.write_to(&mut self.output);
    }

    async fn flush_if_long(&mut self) -> Result<(), End> {
        if self.output.len() > OUTPUT_BOUND { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = timeout(self.limits.command_timeout, async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        written.await.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into()))?;
        self.output.clear();
        Ok(())
    }

    /// Says the last word and closes.
    async fn close(&mut self, reply: &Reply) -> Result<(), End> {
        self.say(reply);
        self.flush().await?;
        // The client may be gone by now; its going is no trouble of ours.
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        Ok(())
    }
}
