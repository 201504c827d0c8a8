//! Drives one session over a stream: reads lines and bodies, asks the intake, writes replies. It decides nothing itself.
//!
//! Replies of pipelined commands leave in one write; reading stops while a hook works, so a client can never fill
//! memory. A stop is seen between commands; a message that has begun is read to its end.

use std::fmt;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use wire::{
    BodyDecoder, Command, Dialect, Framed, LineFramer, MAX_COMMAND_LEN, MailParameters, Reply, looks_like_tls,
    starts_like_proxy_header,
};

use crate::client::Client;
use crate::intake::{Intake, MessageSink, Transaction};
use crate::notice::Notice;
use crate::progress::Progress;
use crate::sasl::Credentials;
use crate::server::Limits;
use crate::session::{Profile, Session, Step, Tls, line_too_long, too_large};
use crate::stream::{HandshakeError, Stream};

/// Octets of one read. They come to the stack first, so that a session that waits holds no room for what has not come.
const READ_ROOM: usize = 16 * 1024;
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
    input: Vec<u8>,
    /// Where the octets not yet consumed start in `input`.
    start: usize,
    output: Vec<u8>,
    /// When the line that is awaited must be whole; a piece of it now and then does not put that off.
    line_due: Option<Instant>,
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
            input: Vec::new(),
            start: 0,
            output: Vec::new(),
            line_due: None,
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
                return self.finish().await;
            }
            let Some(step) = self.next_step().await? else { return Ok(()) };
            match step {
                Step::Reply(reply) | Step::Challenge(reply) => self.say(&reply),
                Step::Close(reply) => return self.close(&reply).await,
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
                Step::Mail(path, parameters) => transaction = self.mail(path, parameters).await,
                Step::Rcpt(recipient) => {
                    if let Some(transaction) = &mut transaction {
                        let reply = transaction.rcpt(recipient).await;
                        self.session.rcpt_answered(reply.is_positive());
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

    /// What the session makes of the next line; none when the session is over.
    async fn next_step(&mut self) -> Result<Option<Step>, End> {
        loop {
            // Short commands have long replies: one read of them must not become megabytes held back.
            self.flush_if_long().await?;
            let (step, consumed) = match self.framer.next(&self.input[self.start..]) {
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
                    self.consume(consumed);
                    if !self.more_commands().await? {
                        return Ok(None);
                    }
                    continue;
                }
            };
            self.consume(consumed);
            self.line_due = None;
            self.fresh = false;
            if let Some(greeting) = self.session.greeting() {
                self.client.esmtp = greeting.extended;
                if self.client.helo != greeting.name {
                    self.client.helo.clone_from(&greeting.name);
                }
            }
            return Ok(Some(step));
        }
    }

    /// Waits for more octets of commands. False when the session is over: stopped, timed out, or no SMTP at all.
    async fn more_commands(&mut self) -> Result<bool, End> {
        self.flush().await?;
        let stop = self.stop.clone();
        let wait = self.terms.limits.command_timeout;
        let due = *self.line_due.get_or_insert_with(|| Instant::now() + wait);
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.close(&self.session.shutting_down()).await?;
                Ok(false)
            }
            read = timeout_at(due, self.read()) => match read {
                Ok(read) => {
                    read?;
                    Ok(!self.is_no_smtp().await?)
                }
                Err(_elapsed) => {
                    self.terms.intake.noticed(&self.client, &Notice::TimedOut);
                    self.close(&self.session.timed_out()).await?;
                    Ok(false)
                }
            },
        }
    }

    /// Whether the first octets are those of another protocol: the client is closed at once, since many a device tries TLS
    /// first and the plain port again when that fails quickly.
    async fn is_no_smtp(&mut self) -> Result<bool, End> {
        if !self.fresh || self.client.tls.is_some() {
            return Ok(false);
        }
        if looks_like_tls(&self.input).is_some() {
            self.terms.intake.noticed(&self.client, &Notice::TlsInTheClear);
            return Ok(true);
        }
        if starts_like_proxy_header(&self.input) {
            self.terms.intake.noticed(&self.client, &Notice::ProxyHeaderRefused);
            self.close(&Reply::new(554, (5, 5, 1), "No PROXY header is taken from your address")).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// What the client sent behind STARTTLS came in the clear, perhaps from somebody else: it is forgotten (RFC 3207
    /// section 6, CVE-2011-0411).
    async fn start_tls(&mut self, reply: &Reply) -> Result<(), End> {
        let (Tls::StartTls(config) | Tls::RequireStartTls(config)) = &self.terms.profile.tls else { return Ok(()) };
        let config = Arc::clone(config);
        self.input = Vec::new();
        self.start = 0;
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

    async fn mail(&mut self, path: mail::ReversePath, parameters: MailParameters) -> Option<I::Transaction> {
        let smtputf8 = parameters.smtputf8;
        match self.terms.intake.mail(&self.client, path, parameters).await {
            Ok(transaction) => {
                self.session.mail_answered(None, smtputf8);
                self.say(&Reply::new(250, (2, 1, 0), "Sender OK"));
                Some(transaction)
            }
            Err(refusal) => {
                self.session.mail_answered(Some(&refusal), smtputf8);
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
        self.session.data_ended(reply.is_positive());
        self.say(&reply);
        Ok(())
    }

    /// Reads a message to its final dot and gives the final reply. What was refused on the way is still read, so that the
    /// client hears why, up to a bound.
    async fn message(&mut self, sink: impl MessageSink) -> Result<Reply, End> {
        let limit = self.terms.profile.max_message_size;
        let mut decoder = self.decoder();
        let mut progress = Progress::new(self.terms.limits.body_pace, Instant::now().into_std());
        let mut size = 0u64;
        let mut taking = Ok(sink);
        loop {
            let mut content = Vec::with_capacity(self.input.len() - self.start);
            let read = decoder.decode(&self.input[self.start..], &mut content);
            self.consume(read.consumed);
            size += content.len() as u64;
            if taking.is_ok() && size > limit {
                taking = Err(too_large(limit));
            }
            if let Ok(sink) = &mut taking
                && !content.is_empty()
            {
                let begun = Instant::now();
                if let Err(refusal) = sink.write(&content).await {
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
            self.more_body(&mut progress).await?;
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

    async fn more_body(&mut self, progress: &mut Progress) -> Result<(), End> {
        match timeout_at(progress.deadline().into(), self.read()).await {
            Ok(read) => {
                progress.came(read? as u64, Instant::now().into_std());
                Ok(())
            }
            Err(_elapsed) => {
                self.terms.intake.noticed(&self.client, &Notice::TimedOut);
                self.close(&self.session.timed_out()).await?;
                Err(End::Closed)
            }
        }
    }

    /// Reads once; gives how many octets came.
    async fn read(&mut self) -> Result<usize, End> {
        self.input.drain(..self.start);
        self.start = 0;
        let (stream, input) = (&mut self.stream, &mut self.input);
        poll_fn(|context| {
            let mut room = [MaybeUninit::uninit(); READ_ROOM];
            let mut room = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut room))?;
            input.extend_from_slice(room.filled());
            Poll::Ready(match room.filled().len() {
                0 => Err(End::Gone),
                octets => Ok(octets),
            })
        })
        .await
    }

    fn consume(&mut self, octets: usize) {
        self.start += octets;
        if self.start == self.input.len() {
            // The room goes too: most sessions wait for something most of the time.
            self.input = Vec::new();
            self.start = 0;
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
        let written = timeout(self.terms.limits.command_timeout, async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        written.await.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into()))?;
        self.output = Vec::new();
        Ok(())
    }

    /// Says the last word and closes.
    async fn close(&mut self, reply: &Reply) -> Result<(), End> {
        self.say(reply);
        self.finish().await
    }

    /// Closes behind what was said.
    async fn finish(&mut self) -> Result<(), End> {
        self.flush().await?;
        // The client may be gone by now; its going is no trouble of ours.
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        if self.start < self.input.len() {
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
    use std::sync::Mutex;
    use std::task::Context;

    use mail::{Recipient, ReversePath};

    use super::*;

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
