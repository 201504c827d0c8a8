//! One authenticated session with upstream: opened with verified TLS, logged in by XOAUTH2, then octets in and replies
//! out. What is said over it after login is `transfer.rs`'s.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use clock::{Monotonic, WallTime};
use mail_send::SmtpClient;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::{Reply, ReplyParser};

use crate::classify::Stage;
use crate::dial::dial;
use crate::endpoint::{Endpoint, Timeouts};
use crate::xoauth2::{self, Answer};

/// Octets that upstream must take within the time for a piece of a message: what TLS seals at once. In the usual 3 minutes
/// that is 91 a second, less than any line has, and more than a peer takes that wants to hold us for ever.
const PIECE: usize = 16 << 10;
/// How many times the wait for its next octet a reply may take as a whole, so that one that drips has an end, too.
const REPLY_WAITS: u32 = 2;

/// Why a session did not come about.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The network, TLS or an upstream that does not speak SMTP.
    Network(String),
    /// Upstream said no.
    Refused(Stage, Reply),
}

/// Why an open session ended.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What upstream offers, after TLS.
#[allow(clippy::struct_excessive_bools, reason = "each is an extension that is offered or not, none is a state")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) pipelining: bool,
    pub(crate) size: bool,
    pub(crate) eight_bit_mime: bool,
    pub(crate) smtputf8: bool,
    pub(crate) dsn: bool,
}

/// An open session.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    parser: ReplyParser,
    input: Vec<u8>,
    start: usize,
    pub(crate) extensions: Extensions,
    pub(crate) timeouts: Timeouts,
    /// When it was opened.
    pub(crate) opened: Monotonic,
    /// When it was last used.
    pub(crate) used: Monotonic,
    /// Transactions begun on it.
    pub(crate) messages: u32,
    /// When the token that it was opened with ends.
    pub(crate) token_ends: WallTime,
    /// Whether the last transaction did not end well, so that the next starts with RSET.
    pub(crate) reset_first: bool,
    /// Held by a connection that is logged in; the lane counts them.
    pub(crate) counted: Option<Arc<()>>,
}

impl Connection {
    /// Connects, starts TLS and greets; not logged in yet.
    pub(crate) async fn open(endpoint: &Endpoint, now: Monotonic) -> Result<Self, OpenError> {
        let dialled = dial(endpoint).await;
        let stream = dialled.map_err(|error| OpenError::Network(format!("cannot connect to {endpoint}: {error}")))?;
        let mut client = SmtpClient { stream, timeout: endpoint.timeouts.greeting };
        let named = |error| said(endpoint, error);
        banner(&mut client, endpoint).await?;
        let offered = client.ehlo(&endpoint.hostname).await.map_err(named)?;
        if !offered.has_capability(smtp_proto::EXT_START_TLS) {
            return Err(OpenError::Network(format!("{} does not offer STARTTLS", endpoint.host)));
        }
        let connector = TlsConnector::from(Arc::clone(&endpoint.tls));
        // STARTTLS that is refused is an error here: never a word in clear beyond it.
        let mut client = client.start_tls(&connector, &endpoint.host).await.map_err(named)?;
        let offered = client.ehlo(&endpoint.hostname).await.map_err(named)?;
        if offered.auth_mechanisms & smtp_proto::AUTH_XOAUTH2 == 0 {
            return Err(OpenError::Network(format!("{} does not offer AUTH XOAUTH2", endpoint.host)));
        }
        Ok(Self {
            stream: client.stream,
            parser: ReplyParser::default(),
            input: Vec::new(),
            start: 0,
            extensions: Extensions {
                pipelining: offered.has_capability(smtp_proto::EXT_PIPELINING),
                size: offered.has_capability(smtp_proto::EXT_SIZE),
                eight_bit_mime: offered.has_capability(smtp_proto::EXT_8BIT_MIME),
                smtputf8: offered.has_capability(smtp_proto::EXT_SMTP_UTF8),
                dsn: offered.has_capability(smtp_proto::EXT_DSN),
            },
            timeouts: endpoint.timeouts.clone(),
            opened: now,
            used: now,
            messages: 0,
            token_ends: WallTime::default(),
            reset_first: false,
            counted: None,
        })
    }

    /// AUTH XOAUTH2: the response inline, or on its own line where upstream asks for it. Gives upstream's last word,
    /// without the token if it repeats it.
    pub(crate) async fn authenticate(&mut self, user: &str, token: &str) -> Result<Reply, Lost> {
        match self.auth_dialog(&xoauth2::initial_response(user, token)).await {
            Ok(reply) => Ok(xoauth2::reply_without_secrets(&reply, token)),
            Err(Lost(text)) => Err(Lost(xoauth2::without_secrets(&text, token))),
        }
    }

    async fn auth_dialog(&mut self, response: &str) -> Result<Reply, Lost> {
        let wait = self.timeouts.greeting;
        self.write_secret(&["AUTH XOAUTH2 ", response, "\r\n"]).await?;
        let mut reply = self.read_reply(wait).await?;
        if reply.is_intermediate() {
            match xoauth2::answer(&reply.text()) {
                Answer::Response => self.write_secret(&[response, "\r\n"]).await?,
                Answer::EmptyLine => self.write(b"\r\n", wait).await?,
            }
            reply = self.read_reply(wait).await?;
        }
        if reply.is_intermediate() {
            self.write(b"\r\n", wait).await?;
            reply = self.read_reply(wait).await?;
        }
        Ok(reply)
    }

    async fn write_secret(&mut self, parts: &[&str]) -> Result<(), Lost> {
        let line = zeroize::Zeroizing::new(parts.concat());
        self.write(line.as_bytes(), self.timeouts.greeting).await
    }

    /// Writes all, each [`PIECE`] within `wait`.
    pub(crate) async fn write(&mut self, octets: &[u8], wait: Duration) -> Result<(), Lost> {
        for piece in octets.chunks(PIECE) {
            let stream = &mut self.stream;
            let written = async {
                stream.write_all(piece).await?;
                // Flushed each: what TLS only buffers is no progress.
                stream.flush().await
            };
            match timeout(wait, written).await {
                Ok(written) => written.map_err(|error| Lost(format!("connection lost: {error}")))?,
                Err(_elapsed) => return Err(timed_out(wait)),
            }
        }
        Ok(())
    }

    /// The next reply, its octets coming within `wait` of each other, and all within [`REPLY_WAITS`] of them.
    pub(crate) async fn read_reply(&mut self, wait: Duration) -> Result<Reply, Lost> {
        let end = Instant::now() + wait * REPLY_WAITS;
        loop {
            if self.start < self.input.len() {
                let pushed = self.parser.push(&self.input[self.start..]);
                let (used, reply) = pushed.map_err(|error| Lost(error.to_string()))?;
                self.start += used;
                if let Some(reply) = reply {
                    return Ok(reply);
                }
            }
            self.input.clear();
            self.start = 0;
            self.input.reserve(4096);
            let next = Instant::now() + wait;
            match timeout_at(next.min(end), self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => return Err(Lost("upstream closed the connection".to_owned())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Lost(format!("connection lost: {error}"))),
                Err(_elapsed) if next <= end => return Err(timed_out(wait)),
                Err(_elapsed) => {
                    let seconds = (wait * REPLY_WAITS).as_secs_f64();
                    return Err(Lost(format!("upstream did not end its reply within {seconds} s")));
                }
            }
        }
    }

    /// Whether upstream has said nothing since the last reply. What it says unasked is a 421 or its going.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut octet = [0u8; 1];
        let mut buffer = ReadBuf::new(&mut octet);
        let poll = std::pin::Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        self.start == self.input.len() && matches!(poll, Poll::Pending)
    }

    /// Says QUIT. Nothing depends on the answer: what was accepted has been told before.
    pub(crate) async fn quit(mut self) {
        let wait = self.timeouts.quit;
        if self.write(b"QUIT\r\n", wait).await.is_ok() {
            let _ = self.read_reply(wait).await;
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("messages", &self.messages)
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

fn timed_out(wait: Duration) -> Lost {
    Lost(format!("upstream did not answer within {} s", wait.as_secs()))
}

async fn banner(client: &mut SmtpClient<TcpStream>, endpoint: &Endpoint) -> Result<(), OpenError> {
    let read = timeout(endpoint.timeouts.greeting, client.read()).await.unwrap_or(Err(mail_send::Error::Timeout));
    let reply = read.map_err(|error| said(endpoint, error))?;
    if reply.is_positive_completion() { Ok(()) } else { Err(said(endpoint, mail_send::Error::UnexpectedReply(reply))) }
}

/// What mail-send met before login, in our words.
fn said(endpoint: &Endpoint, error: mail_send::Error) -> OpenError {
    let upstream = endpoint;
    match error {
        mail_send::Error::UnexpectedReply(reply) => {
            let [class, subject, detail] = reply.esc;
            let text = reply.message;
            let reply = if class == 0 {
                Reply::plain(reply.code, vec![text.into()])
            } else {
                Reply::new(reply.code, (class, subject.into(), detail.into()), text)
            };
            OpenError::Refused(Stage::Greeting, reply)
        }
        mail_send::Error::Tls(error) => OpenError::Network(format!("TLS with {upstream} failed: {error}")),
        mail_send::Error::UnparseableReply => {
            OpenError::Network(format!("{upstream} closed the connection or does not speak SMTP"))
        }
        mail_send::Error::Timeout => OpenError::Network(format!("{upstream} did not answer in time")),
        error => OpenError::Network(format!("{upstream}: {error}")),
    }
}
