//! Drives one session over a stream: reads lines and bodies, asks the intake, writes replies. It decides nothing itself.
//!
//! Replies of pipelined commands leave in one write. While a hook works no more is read than shows that the client is still
//! there, so a client can never fill memory; once it has gone for good, hook and transaction are dropped at once. A stop is
//! seen between commands; a message that has begun is read to its end.

use std::fmt;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use wire::{
    BodyDecoder, Command, Dialect, Framed, LineFramer, MAX_COMMAND_LEN, MailParameters, Reply, looks_like_tls,
    starts_like_proxy_header,
};

use crate::client::Client;
use crate::holding::Allowance;
use crate::input::Input;
use crate::intake::{Intake, MessageSink, Transaction};
use crate::notice::Notice;
use crate::progress::{Pace, Progress};
use crate::sasl::Credentials;
use crate::server::Limits;
use crate::session::{Profile, Session, Step, Tls, line_too_long, too_large};
use crate::stream::{HandshakeError, Stream};
use crate::watch::{Until, attend};

/// How long a client that is cut off in the middle of sending may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of it meanwhile.
const LINGER_OCTETS: u64 = 1024 * 1024;
/// Longest line of a message by the letter, its end not counted (RFC 5321 section 4.5.3.1.6).
const MAX_LINE_LEN: usize = 998;
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
    /// There was no TLS where there must be.
    NoTls(HandshakeError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by us"),
            Self::Gone => f.write_str("the client went"),
            Self::Io(error) => error.fmt(f),
            Self::NoTls(error) => error.fmt(f),
        }
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a connection is made with.
pub(crate) struct Terms<I> {
    pub(crate) profile: Arc<Profile>,
    pub(crate) intake: Arc<I>,
    pub(crate) limits: Arc<Limits>,
}

/// One connection with its session.
pub(crate) struct Connection<S, I> {
    stream: Stream<S>,
    client: Client,
    session: Session,
    terms: Terms<I>,
    stop: CancellationToken,
    framer: LineFramer,
    input: Input,
    output: Vec<u8>,
    /// Since when the next line is awaited; a piece of it now and then does not begin that anew.
    awaited: Option<Instant>,
    /// What a client that holds something of upstream's may still take for itself before its message.
    allowance: Option<Allowance>,
    said_421: bool,
    /// Whether a message held a CR.
    saw_cr: bool,
    /// Whether no line was read yet.
    fresh: bool,
}

impl<S, I> Connection<S, I>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    I: Intake,
{
    /// A connection before its banner, none of it read.
    pub(crate) fn new(stream: S, client: Client, terms: Terms<I>, stop: CancellationToken) -> Self {
        let session = Session::new(Arc::clone(&terms.profile), client.is_on_this_machine());
        let dialect = terms.profile.dialect;
        Self {
            stream: Stream::Clear(stream),
            session,
            stop,
            framer: LineFramer::new(MAX_COMMAND_LEN, dialect),
            input: Input::default(),
            output: Vec::new(),
            awaited: None,
            allowance: None,
            said_421: false,
            saw_cr: false,
            fresh: true,
            client,
            terms,
        }
    }

    /// Runs the session to its end.
    pub(crate) async fn run(mut self) {
        let end = match self.converse().await {
            Ok(()) => End::Closed,
            Err(End::Gone) => {
                // It may have closed one side only, and is owed what was said before; nothing is held for it any more.
                let _ = timeout(LINGER, self.flush()).await;
                End::Gone
            }
            Err(end) => end,
        };
        debug!(session = self.client.session, listener = %self.client.listener, client = %self.client.peer, %end, "session ended");
    }

    async fn converse(&mut self) -> Result<(), End> {
        if let Tls::Implicit(config) = &self.terms.profile.tls {
            self.encrypt(Arc::clone(config)).await?;
        }
        self.say(&self.session.banner());
        let mut transaction = None;
        loop {
            // Whoever answered, 421 says that the session is over (RFC 5321 section 3.8).
            if self.said_421 {
                // Before the last word, which the client takes in its own time.
                drop(transaction);
                return self.finish().await;
            }
            if transaction.is_none() {
                self.allowance = None;
            }
            match self.next_step().await? {
                Step::Reply(reply) | Step::Challenge(reply) => self.say(&reply),
                Step::Close(reply) => {
                    drop(transaction);
                    return self.close(&reply).await;
                }
                Step::Reset(reply) => {
                    transaction = None;
                    self.say(&reply);
                }
                Step::StartTls(reply) => {
                    transaction = None;
                    self.start_tls(&reply).await?;
                }
                Step::Authenticate(credentials) => {
                    // Boxed, as a message is: few do it, and each but once.
                    if Box::pin(self.authenticate(credentials)).await?.is_break() {
                        return Ok(());
                    }
                }
                Step::Mail(path, parameters) => transaction = self.mail(path, parameters).await?,
                Step::Rcpt(recipient) => {
                    if let Some(transaction) = &mut transaction {
                        let is_live = transaction.is_live();
                        let hook = pin!(transaction.rcpt(recipient));
                        let reply = attend(hook, Until::Line, &mut self.stream, &mut self.input).await?;
                        self.session.rcpt_answered(&reply);
                        // Whatever the answer, something is held there from now on.
                        if self.allowance.is_none() && is_live {
                            self.allowance = Some(Allowance::new(self.terms.limits.holding));
                        }
                        self.say(&reply);
                    }
                }
                Step::Data => {
                    if let Some(transaction) = transaction.take() {
                        // Boxed, so that thousands of sessions that wait do not each hold the room that a message takes.
                        Box::pin(self.data(transaction)).await?;
                    }
                }
            }
        }
    }

    /// What the session makes of the next line, or of its not coming.
    async fn next_step(&mut self) -> Result<Step, End> {
        loop {
            // Short commands have long replies: one read of them must not become megabytes held back.
            self.flush_if_long().await?;
            let (step, consumed) = match self.framer.next(self.input.rest()) {
                Framed::Line { line, consumed } if self.session.awaits_response() => {
                    (self.session.response(line), consumed)
                }
                Framed::Line { line, consumed } => {
                    let command = Command::parse(line, self.terms.profile.dialect);
                    debug!(session = self.client.session, ?command, "command");
                    (self.session.command(command), consumed)
                }
                Framed::TooLong { consumed } => (self.session.line_too_long(), consumed),
                Framed::BareLf { consumed } => (self.session.line_ended_in_lf(), consumed),
                Framed::Incomplete { consumed } => {
                    self.input.consume(consumed);
                    if let Some(farewell) = self.more_commands().await? {
                        return Ok(Step::Close(farewell));
                    }
                    continue;
                }
            };
            self.input.consume(consumed);
            if let Some(since) = self.awaited.take() {
                self.spend(since.elapsed());
            }
            self.fresh = false;
            if let Some(greeting) = self.session.greeting() {
                self.client.esmtp = greeting.extended;
                if self.client.helo != greeting.name {
                    self.client.helo.clone_from(&greeting.name);
                }
            }
            return Ok(step);
        }
    }

    /// Waits for more octets of commands; gives the last word when the session is over: stopped, timed out, or no SMTP at all.
    async fn more_commands(&mut self) -> Result<Option<Reply>, End> {
        self.flush().await?;
        let stop = self.stop.clone();
        let due = *self.awaited.get_or_insert_with(Instant::now) + self.patience();
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Some(self.session.shutting_down())),
            read = timeout_at(due, self.read()) => match read {
                Ok(read) => {
                    read?;
                    self.no_smtp()
                }
                Err(_elapsed) => {
                    self.terms.intake.noticed(&self.client, &Notice::TimedOut);
                    Ok(Some(self.session.timed_out()))
                }
            },
        }
    }

    /// How long the client may take for one thing, from now on.
    fn patience(&self) -> Duration {
        let wait = self.terms.limits.command_timeout;
        self.allowance.map_or(wait, |allowance| wait.min(allowance.left()))
    }

    /// The client took so much for itself.
    fn spend(&mut self, time: Duration) {
        if let Some(allowance) = &mut self.allowance {
            allowance.spend(time);
        }
    }

    /// Whether the first octets are those of another protocol: the client is closed at once, with a word if it understands
    /// one, since many a device tries TLS first and the plain port again when that fails quickly.
    fn no_smtp(&self) -> Result<Option<Reply>, End> {
        if !self.fresh || self.client.tls.is_some() {
            return Ok(None);
        }
        if looks_like_tls(self.input.rest()).is_some() {
            self.terms.intake.noticed(&self.client, &Notice::TlsInTheClear);
            return Err(End::Closed);
        }
        if starts_like_proxy_header(self.input.rest()) {
            self.terms.intake.noticed(&self.client, &Notice::ProxyHeaderRefused);
            return Ok(Some(Reply::new(554, (5, 5, 1), "No PROXY header is taken from your address")));
        }
        Ok(None)
    }

    /// What the client sent behind STARTTLS came in the clear, perhaps from somebody else: it is forgotten (RFC 3207
    /// section 6, CVE-2011-0411).
    async fn start_tls(&mut self, reply: &Reply) -> Result<(), End> {
        let (Tls::StartTls(config) | Tls::RequireStartTls(config)) = &self.terms.profile.tls else { return Ok(()) };
        let config = Arc::clone(config);
        self.input = Input::default();
        self.say(reply);
        self.flush().await?;
        self.encrypt(config).await?;
        self.client.helo.clear();
        self.client.esmtp = false;
        self.client.user = None;
        let dialect = self.terms.profile.dialect;
        self.framer = LineFramer::new(MAX_COMMAND_LEN, dialect);
        Ok(())
    }

    async fn encrypt(&mut self, config: Arc<ServerConfig>) -> Result<(), End> {
        let limit = self.terms.limits.handshake_timeout;
        let stop = self.stop.clone();
        // Boxed: a handshake's room is needed once, and by few.
        let handshake = Box::pin(timeout(limit, self.stream.encrypt(config)));
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(End::Closed),
            outcome = handshake => outcome.unwrap_or(Err(HandshakeError::TimedOut)),
        };
        if let Err(error) = outcome {
            self.terms.intake.noticed(&self.client, &Notice::HandshakeFailed(&error));
            return Err(End::NoTls(error));
        }
        self.session.encrypted();
        self.client.tls = self.stream.tls_version();
        debug!(session = self.client.session, tls = self.client.tls, "encrypted");
        Ok(())
    }

    /// Asks who it is. Breaks when the session is over.
    async fn authenticate(&mut self, credentials: Credentials) -> Result<ControlFlow<()>, End> {
        let stop = self.stop.clone();
        let answer = tokio::select! {
            biased;
            // A wrong password is answered after a while; a stop waits for none.
            () = stop.cancelled() => {
                self.close(&self.session.shutting_down()).await?;
                return Ok(ControlFlow::Break(()));
            }
            answer = self.terms.intake.authenticate(&self.client, credentials) => answer,
        };
        let refusal = match answer {
            Ok(user) => {
                self.client.user = Some(user);
                None
            }
            Err(refusal) => Some(refusal),
        };
        match self.session.authentication_answered(refusal) {
            Step::Close(reply) => {
                self.close(&reply).await?;
                Ok(ControlFlow::Break(()))
            }
            other => {
                if let Step::Reply(reply) = other {
                    self.say(&reply);
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    async fn mail(
        &mut self,
        path: mail::ReversePath,
        parameters: MailParameters,
    ) -> Result<Option<I::Transaction>, End> {
        let smtputf8 = parameters.smtputf8;
        let answer = {
            let hook = pin!(self.terms.intake.mail(&self.client, path, parameters));
            attend(hook, Until::Line, &mut self.stream, &mut self.input).await?
        };
        match answer {
            Ok(transaction) => {
                self.session.mail_answered(None, smtputf8);
                self.say(&Reply::new(250, (2, 1, 0), "Sender OK"));
                Ok(Some(transaction))
            }
            Err(refusal) => {
                self.session.mail_answered(Some(&refusal), smtputf8);
                self.say(&refusal);
                Ok(None)
            }
        }
    }

    async fn data(&mut self, transaction: I::Transaction) -> Result<(), End> {
        let limits = &self.terms.limits;
        let pace = if transaction.is_live() { limits.live_pace } else { limits.body_pace };
        let answer = {
            let hook = pin!(transaction.data());
            attend(hook, Until::Line, &mut self.stream, &mut self.input).await?
        };
        let reply = match answer {
            Ok(sink) => {
                self.say(&Reply::plain(354, vec!["Start mail input; end with <CRLF>.<CRLF>".into()]));
                self.flush().await?;
                self.allowance = None;
                self.message(sink, pace).await?
            }
            Err(refusal) => refusal,
        };
        self.session.data_ended(reply.is_positive());
        self.say(&reply);
        Ok(())
    }

    /// Reads a message to its final dot and gives the final reply. What was refused on the way is still read, so that the
    /// client hears why, up to a bound.
    async fn message(&mut self, sink: impl MessageSink, pace: Pace) -> Result<Reply, End> {
        let limit = self.terms.profile.max_message_size;
        let mut decoder = self.decoder();
        let mut progress = Progress::new(pace, Instant::now().into_std());
        let mut size = 0u64;
        let mut taking = Ok(sink);
        loop {
            let mut content = Vec::with_capacity(self.input.rest().len());
            let read = decoder.decode(self.input.rest(), &mut content);
            self.input.consume(read.consumed);
            size += content.len() as u64;
            if taking.is_ok() && size > limit {
                taking = Err(too_large(limit));
            }
            if let Ok(sink) = &mut taking
                && !content.is_empty()
            {
                let begun = Instant::now();
                let written = {
                    let hook = pin!(sink.write(&content));
                    // Behind the final dot, all that this message needs has come.
                    if read.done {
                        hook.await
                    } else {
                        attend(hook, Until::Octets, &mut self.stream, &mut self.input).await?
                    }
                };
                if let Err(refusal) = written {
                    taking = Err(refusal);
                }
                progress.resumed(begun.elapsed(), Instant::now().into_std());
            }
            drop(content);
            if read.done {
                break;
            }
            if let Err(refusal) = &taking
                && size > limit.saturating_mul(2).max(self.terms.limits.max_refused_octets)
            {
                let refusal = refusal.clone();
                self.close(&refusal).await?;
                self.linger().await;
                return Err(End::Closed);
            }
            if !self.more_body(&mut progress).await? {
                // Before the last word, which the client takes in its own time.
                drop(taking);
                self.terms.intake.noticed(&self.client, &Notice::TimedOut);
                self.close(&self.session.timed_out()).await?;
                return Err(End::Closed);
            }
        }
        self.saw_cr |= decoder.saw_cr();
        if self.terms.profile.dialect == Dialect::Strict && decoder.longest_line() > MAX_LINE_LEN {
            return Ok(taking.err().unwrap_or_else(line_too_long));
        }
        match taking {
            Ok(sink) => Ok(sink.end().await),
            Err(refusal) => Ok(refusal),
        }
    }

    /// The one exception to CRLF.CRLF, where the listener makes it: for a client that has never sent a CR.
    fn decoder(&self) -> BodyDecoder {
        if self.terms.profile.lf_only_clients && !self.saw_cr && !self.framer.saw_cr() {
            BodyDecoder::for_lf_only_client()
        } else {
            BodyDecoder::new()
        }
    }

    /// More of a message, unless it came while the last of it was written. False if it makes no progress.
    async fn more_body(&mut self, progress: &mut Progress) -> Result<bool, End> {
        if self.input.is_empty() {
            match timeout_at(progress.deadline().into(), self.read()).await {
                Ok(read) => read?,
                Err(_elapsed) => return Ok(false),
            }
        }
        progress.came(self.input.rest().len() as u64, Instant::now().into_std());
        Ok(true)
    }

    /// Reads once.
    async fn read(&mut self) -> Result<(), End> {
        match self.input.fill(&mut self.stream).await? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    fn say(&mut self, reply: &Reply) {
        debug!(session = self.client.session, %reply, "reply");
        self.said_421 |= reply.code() == 421;
        reply.write_to(&mut self.output);
    }

    async fn flush_if_long(&mut self) -> Result<(), End> {
        if self.output.len() > OUTPUT_BOUND { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let written = timeout(self.patience(), async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        written.await.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into()))?;
        self.output = Vec::new();
        self.spend(begun.elapsed());
        Ok(())
    }

    /// Says the last word and closes.
    async fn close(&mut self, reply: &Reply) -> Result<(), End> {
        self.say(reply);
        self.finish().await
    }

    /// Closes behind what was said.
    async fn finish(&mut self) -> Result<(), End> {
        // Nothing is held any more: the last word is taken like any other.
        self.allowance = None;
        self.flush().await?;
        // The client may be gone by now; its going is no trouble of ours.
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        if !self.input.is_empty() {
            self.linger().await;
        }
        Ok(())
    }

    /// Reads on for a moment after the last word: octets left unread when the socket closes become a reset, and a reset
    /// can take that word away from a client that is still sending.
    async fn linger(&mut self) {
        let mut rest = (&mut self.stream).take(LINGER_OCTETS);
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};

    use mail::{Recipient, ReversePath};
    use tokio::io::ReadBuf;

    use super::*;
    use crate::input::READ_ROOM;

    /// Brings all of `input` at once, then its end; notes the length of each write.
    struct Flood {
        input: Vec<u8>,
        writes: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncRead for Flood {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let taken = self.input.len().min(buffer.remaining());
            buffer.put_slice(&self.input[..taken]);
            self.input.drain(..taken);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.lock().unwrap().push(octets.len());
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Takes everything and keeps nothing.
    struct Sieve;

    impl Intake for Sieve {
        type Transaction = Self;

        fn connect(&self, _: &Client) -> Result<(), Reply> {
            Ok(())
        }

        async fn authenticate(&self, _: &Client, _: Credentials) -> Result<Arc<str>, Reply> {
            Err(Reply::new(535, (5, 7, 8), "Nobody has a name here"))
        }

        async fn mail(&self, _: &Client, _: ReversePath, _: MailParameters) -> Result<Self, Reply> {
            Ok(Self)
        }
    }

    impl Transaction for Sieve {
        type Sink = Self;

        async fn rcpt(&mut self, _: Recipient) -> Reply {
            Reply::new(250, (2, 1, 5), "Taken, in more words than the command had")
        }

        async fn data(self) -> Result<Self, Reply> {
            Ok(self)
        }
    }

    impl MessageSink for Sieve {
        async fn write(&mut self, _: &[u8]) -> Result<(), Reply> {
            Ok(())
        }

        async fn end(self) -> Reply {
            Reply::new(250, (2, 0, 0), "OK")
        }
    }

    fn connection(input: Vec<u8>, writes: &Arc<Mutex<Vec<usize>>>) -> Connection<Flood, Sieve> {
        let profile =
            Profile { max_message_size: 1_000_000, max_recipients: 10_000, ..Profile::new("relay.test".into()) };
        let terms = Terms { profile: Arc::new(profile), intake: Arc::new(Sieve), limits: Arc::new(Limits::default()) };
        let client = Client::new(1, "test".into(), "127.0.0.1:1".parse().unwrap());
        let stream = Flood { input, writes: Arc::clone(writes) };
        Connection::new(stream, client, terms, CancellationToken::new())
    }

    /// The room of a message's buffer filled with commands whose replies are longer.
    fn flood() -> Vec<u8> {
        let message = vec![b'x'; READ_ROOM / 4];
        let commands = b"RCPT TO:<c@d>\r\n".repeat(READ_ROOM / 16);
        let begin = b"MAIL FROM:<a@b>\r\n";
        [begin, &b"RCPT TO:<c@d>\r\nDATA\r\n"[..], &message, b"\r\n.\r\n", begin, &commands].concat()
    }

    #[tokio::test]
    async fn replies_held_back_for_one_write_have_a_bound() {
        let writes = Arc::default();
        let end = connection(flood(), &writes).converse().await;
        assert!(matches!(end, Err(End::Gone)), "{end:?}");
        let longest = writes.lock().unwrap().iter().copied().max();
        assert!(longest < Some(OUTPUT_BOUND + 1024), "{longest:?} octets were held back");
    }

    #[tokio::test]
    async fn a_session_that_waits_keeps_no_room() {
        let writes = Arc::default();
        let mut connection = connection(flood(), &writes);
        let _ = connection.converse().await;
        let kept = connection.input.capacity() + connection.output.capacity();
        assert_eq!(kept, 0, "octets of room are kept");
    }
}
