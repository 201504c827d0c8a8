//! One client: a connection, its greeting, perhaps TLS and AUTH, and transactions with one command at a time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::message::Message;
use crate::error::BenchError;

/// How a client presents itself.
#[derive(Clone)]
pub(crate) enum Security {
    /// Plain, as old software does.
    None,
    /// Plain, with AUTH PLAIN.
    Login(String, String),
    /// STARTTLS and AUTH XOAUTH2, to measure the upstream itself.
    Xoauth2(Arc<rustls::ClientConfig>),
}

impl Security {
    /// Plain, with the login that is demanded, if any is: user and password.
    pub(crate) fn with(login: Option<(String, String)>) -> Self {
        login.map_or(Self::None, |(user, password)| Self::Login(user, password))
    }

    /// STARTTLS and AUTH XOAUTH2, with trust in the certificates of a PEM file.
    pub(crate) fn xoauth2(ca_file: &Path) -> Result<Self, BenchError> {
        let refused = |error: String| BenchError::Impossible(format!("{}: {error}", ca_file.display()));
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| refused(error.to_string()))? {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        }
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Each handshake is a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self::Xoauth2(Arc::new(config)))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection of a client, between transactions.
pub(crate) struct Line {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    from: String,
    to: String,
}

/// Connects and reads the greeting, nothing more: the first sign of life.
pub(crate) async fn greeted(address: SocketAddr) -> Result<TcpStream, BenchError> {
    let mut stream = TcpStream::connect(address).await.map_err(BenchError::socket("connect"))?;
    stream.set_nodelay(true).map_err(BenchError::socket("connect"))?;
    let mut input = Vec::new();
    expect(&mut stream, &mut input, "220").await?;
    Ok(stream)
}

impl Line {
    /// Connects, and says everything up to the first transaction.
    pub(crate) async fn open(
        address: SocketAddr,
        security: &Security,
        from: &str,
        to: &str,
    ) -> Result<Self, BenchError> {
        let stream = greeted(address).await?;
        let mut line = Self {
            stream: Box::new(stream),
            input: Vec::new(),
            from: command("MAIL FROM", from),
            to: command("RCPT TO", to),
        };
        line.ask("EHLO bench.example\r\n", "250").await?;
        match security {
            Security::None => {}
            Security::Login(user, password) => {
                let response = STANDARD.encode(format!("\0{user}\0{password}"));
                line.ask(&format!("AUTH PLAIN {response}\r\n"), "235").await?;
            }
            Security::Xoauth2(config) => {
                line.ask("STARTTLS\r\n", "220").await?;
                let name = ServerName::try_from("localhost")
                    .map_err(|error| BenchError::Impossible(format!("localhost is no server name: {error}")))?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, line.stream).await.map_err(BenchError::socket("TLS"))?;
                line.stream = Box::new(stream);
                line.ask("EHLO bench.example\r\n", "250").await?;
                let response = STANDARD.encode(format!("user={from}\u{1}auth=Bearer measured\u{1}\u{1}"));
                line.ask(&format!("AUTH XOAUTH2 {response}\r\n"), "235").await?;
            }
        }
        Ok(line)
    }

    /// Hands in a message.
    pub(crate) async fn send(&mut self, message: &mut Message, number: u32) -> Result<(), BenchError> {
        let from = std::mem::take(&mut self.from);
        let to = std::mem::take(&mut self.to);
        self.ask(&from, "250").await?;
        self.ask(&to, "25").await?;
        (self.from, self.to) = (from, to);
        self.ask("DATA\r\n", "354").await?;
        write(&mut self.stream, message.numbered(number)).await?;
        expect(&mut self.stream, &mut self.input, "250").await
    }

    /// Says good-bye and does not wait for the answer.
    pub(crate) async fn quit(mut self) {
        // The other side may have gone first; nothing depends on it.
        let _gone = write(&mut self.stream, b"QUIT\r\n").await;
    }

    async fn ask(&mut self, command: &str, wanted: &'static str) -> Result<(), BenchError> {
        write(&mut self.stream, command.as_bytes()).await?;
        expect(&mut self.stream, &mut self.input, wanted).await
    }
}

fn command(verb: &str, address: &str) -> String {
    format!("{verb}:<{address}>\r\n")
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> Result<(), BenchError> {
    stream.write_all(octets).await.map_err(BenchError::socket("write to the subject"))?;
    stream.flush().await.map_err(BenchError::socket("write to the subject"))
}

/// Reads one reply to its last line, which must begin with `wanted`.
async fn expect(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut Vec<u8>,
    wanted: &'static str,
) -> Result<(), BenchError> {
    input.clear();
    loop {
        let count = stream.read_buf(input).await.map_err(BenchError::socket("read from the subject"))?;
        if input.ends_with(b"\r\n") {
            let last = input[..input.len() - 2].rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
            if last.get(3) != Some(&b'-') {
                if last.starts_with(wanted.as_bytes()) {
                    return Ok(());
                }
                return Err(dialog(wanted, last));
            }
        }
        if count == 0 {
            return Err(dialog(wanted, b"nothing, and hung up,"));
        }
    }
}

fn dialog(wanted: &'static str, said: &[u8]) -> BenchError {
    BenchError::Dialog { whom: "the subject", wanted, said: String::from_utf8_lossy(said).into_owned() }
}
