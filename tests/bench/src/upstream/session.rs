//! One session of the instant upstream: as few instructions for each message as a correct dialog allows.
//!
//! It reads whatever has come, answers all of it with one write, and keeps nothing of a message but its mark and the
//! length of its body.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::ledger::Ledger;
use crate::load::MARK;

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Desk {
    /// What has come.
    pub(super) ledger: Mutex<Ledger>,
    /// How long a final reply takes.
    pub(super) dot: Mutex<Duration>,
    /// Told of each message.
    pub(super) arrived: tokio::sync::Notify,
}

/// Octets that a header may have; longer ones have no mark.
const LONGEST_HEADER: usize = 64 * 1024;
const READ: usize = 64 * 1024;
const END: &[u8] = b"\r\n.\r\n";

/// Serves a client that needs neither TLS nor AUTH.
pub(super) async fn bare(stream: TcpStream, desk: Arc<Desk>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(stream, desk, true);
    session.say("220 localhost ESMTP\r\n");
    session.converse().await.map(drop)
}

/// Serves a client that must use STARTTLS and log in.
pub(super) async fn secure(stream: TcpStream, desk: Arc<Desk>, acceptor: TlsAcceptor) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(stream, Arc::clone(&desk), false);
    session.starttls = true;
    session.say("220 localhost Microsoft ESMTP MAIL Service ready\r\n");
    if session.converse().await? == End::StartTls {
        let stream = acceptor.accept(session.stream).await?;
        Session::new(stream, desk, false).converse().await?;
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum End {
    Quit,
    StartTls,
}

struct Session<S> {
    stream: S,
    desk: Arc<Desk>,
    /// What came and was not looked at yet.
    input: Vec<u8>,
    output: Vec<u8>,
    logged_in: bool,
    starttls: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(stream: S, desk: Arc<Desk>, logged_in: bool) -> Self {
        Self { stream, desk, input: Vec::new(), output: Vec::new(), logged_in, starttls: false }
    }

    fn say(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
    }

    /// Sends what is due, then waits for more.
    async fn more(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await?;
            self.output.clear();
        }
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memmem::find(&self.input, b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + 2);
                return Ok(line);
            }
            self.more().await?;
        }
    }

    async fn converse(&mut self) -> io::Result<End> {
        let mut recipients = 0;
        loop {
            let line = self.line().await?;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "HELO" => self.greet(),
                "STARTTLS" if self.starttls => {
                    self.say("220 2.0.0 SMTP server ready\r\n");
                    let answer = std::mem::take(&mut self.output);
                    self.stream.write_all(&answer).await?;
                    return Ok(End::StartTls);
                }
                "AUTH" => self.log_in(&line).await?,
                "NOOP" => self.say("250 2.0.0 OK\r\n"),
                "QUIT" => {
                    self.say("221 2.0.0 Service closing transmission channel\r\n");
                    let answer = std::mem::take(&mut self.output);
                    self.stream.write_all(&answer).await?;
                    self.stream.shutdown().await?;
                    return Ok(End::Quit);
                }
                _ if !self.logged_in => self.say("530 5.7.57 Client not authenticated to send mail.\r\n"),
                "RSET" => {
                    recipients = 0;
                    self.say("250 2.0.0 Resetting\r\n");
                }
                "MAIL" => {
                    recipients = 0;
                    self.say("250 2.1.0 Sender OK\r\n");
                }
                "RCPT" => {
                    recipients += 1;
                    self.say("250 2.1.5 Recipient OK\r\n");
                }
                "DATA" if recipients > 0 => {
                    self.say("354 Start mail input; end with <CRLF>.<CRLF>\r\n");
                    recipients = 0;
                    self.take_message().await?;
                }
                "DATA" => self.say("503 5.5.2 Need rcpt command\r\n"),
                _ => self.say("500 5.3.3 Unrecognized command\r\n"),
            }
        }
    }

    fn greet(&mut self) {
        self.say(
            "250-localhost Hello\r\n250-SIZE 157286400\r\n250-PIPELINING\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n",
        );
        self.say(match (self.starttls, self.logged_in) {
            (true, _) => "250-STARTTLS\r\n",
            (false, false) => "250-AUTH PLAIN XOAUTH2\r\n",
            (false, true) => "",
        });
        self.say("250-8BITMIME\r\n250 SMTPUTF8\r\n");
    }

    /// AUTH with or without an initial response; any credential of the right shape is good.
    async fn log_in(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let response = if let Some(initial) = words.next() {
            initial.to_owned()
        } else {
            self.say("334 \r\n");
            self.line().await?
        };
        let response = STANDARD.decode(response.trim()).unwrap_or_default();
        let response = String::from_utf8_lossy(&response);
        let good = match mechanism.as_str() {
            "PLAIN" => response.split('\0').filter(|part| !part.is_empty()).count() >= 2,
            "XOAUTH2" => {
                let mut fields = response.split('\u{1}');
                fields.any(|field| field.strip_prefix("user=").is_some_and(|user| !user.is_empty()))
                    && fields.any(|field| field.strip_prefix("auth=Bearer ").is_some_and(|token| !token.is_empty()))
            }
            _ => false,
        };
        self.logged_in = good && !self.starttls;
        self.say(if self.logged_in {
            "235 2.7.0 Authentication successful\r\n"
        } else {
            "535 5.7.3 Authentication unsuccessful\r\n"
        });
        Ok(())
    }

    /// Reads a message up to its final dot, and answers it.
    async fn take_message(&mut self) -> io::Result<()> {
        let header = loop {
            if let Some(end) = memmem::find(&self.input, b"\r\n\r\n") {
                break end + 4;
            }
            if self.input.len() > LONGEST_HEADER {
                break 0;
            }
            self.more().await?;
        };
        let mark = mark_of(&self.input[..header]);
        self.input.drain(..header);
        let mut body = 0;
        loop {
            if let Some(end) = memmem::find(&self.input, END) {
                body += end + 2;
                self.input.drain(..end + END.len());
                break;
            }
            let looked_at = self.input.len().saturating_sub(END.len() - 1);
            body += looked_at;
            self.input.drain(..looked_at);
            self.more().await?;
        }
        let dot = *self.desk.dot.lock().unwrap_or_else(PoisonError::into_inner);
        if !dot.is_zero() {
            tokio::time::sleep(dot).await;
        }
        self.desk.ledger.lock().unwrap_or_else(PoisonError::into_inner).take(mark, body, Instant::now());
        self.desk.arrived.notify_waiters();
        self.say("250 2.0.0 OK <1@localhost> [Hostname=localhost] Queued mail for delivery\r\n");
        Ok(())
    }
}

/// The epoch and number that the load wrote into a header.
fn mark_of(header: &[u8]) -> Option<(u32, u32)> {
    let begin = memmem::find(header, MARK.as_bytes())? + MARK.len();
    let line = &header[begin..];
    let line = std::str::from_utf8(&line[..memmem::find(line, b"\r\n")?]).ok()?;
    let (epoch, number) = line.split_once('-')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a dialog in pieces of every size and gives what was answered.
    async fn dialog(lines: &str, piece: usize) -> (String, super::super::ledger::Account) {
        let desk = Arc::new(Desk {
            ledger: Mutex::new(Ledger::new()),
            dot: Mutex::new(Duration::ZERO),
            arrived: tokio::sync::Notify::new(),
        });
        desk.ledger.lock().unwrap().begin(3, 9, Instant::now());
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let shared = Arc::clone(&desk);
        let conversation = tokio::spawn(async move { Session::new(server, shared, false).converse().await.is_ok() });
        for chunk in lines.as_bytes().chunks(piece) {
            client.write_all(chunk).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(conversation.await.unwrap());
        let account = desk.ledger.lock().unwrap().account();
        (said, account)
    }

    #[tokio::test]
    async fn a_dialog_in_pieces_of_any_size() {
        let token = STANDARD.encode("user=a@b.example\u{1}auth=Bearer t\u{1}\u{1}");
        let lines = format!(
            "EHLO x\r\nMAIL FROM:<a@b>\r\nAUTH XOAUTH2 eA==\r\nAUTH XOAUTH2 {token}\r\nMAIL FROM:<a@b>\r\nDATA\r\n\
             RCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n{MARK}3-1\r\n\r\n1234567\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n\
             DATA\r\n{MARK}3-0\r\n\r\n1\r\n.\n.7\r\n.\r\nQUIT\r\n"
        );
        for piece in [1, 2, 3, 7, 64, 4096] {
            let (said, account) = dialog(&lines, piece).await;
            let codes: Vec<&str> =
                said.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect();
            let expected = "250 530 535 235 250 503 250 354 250 250 250 354 250 221";
            assert_eq!(codes.join(" "), expected, "pieces of {piece}: {said}");
            assert_eq!(
                (account.messages, account.duplicates, account.strays, account.damaged),
                (2, 0, 0, 0),
                "{piece}"
            );
            assert_eq!(account.copies, "11", "pieces of {piece}");
        }
    }

    #[test]
    fn marks() {
        for (header, mark) in [
            (format!("A: b\r\n{MARK}00000012-00000345\r\nC: d\r\n\r\n"), Some((12, 345))),
            ("A: b\r\n\r\n".to_owned(), None),
            (format!("{MARK}x-1\r\n"), None),
            (format!("{MARK}1-1"), None),
        ] {
            assert_eq!(mark_of(header.as_bytes()), mark, "{header:?}");
        }
    }
}
