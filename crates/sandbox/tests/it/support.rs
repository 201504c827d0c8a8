//! A plain SMTP and HTTPS client, written for these tests only, and a sandbox whose clock stands still.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clock::{Clock as _, ManualClock, WallTime};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sandbox::{DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, EXCHANGE_SCOPE, Sandbox, SandboxOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No condition of these tests takes longer, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const FRONT_END: &str = "AM0PR04CA0042.EURPRD04.PROD.OUTLOOK.COM";
pub(crate) const BACK_END: &str = "[Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]";

/// A sandbox and its clock, which stands at 2024-02-14T14:50:26.590Z until a test moves it.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Arc<ManualClock>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let clock = Arc::new(ManualClock::at(WallTime::from_unix_millis(1_707_922_226_590)));
        let mut options = SandboxOptions { clock: clock.clone(), ..SandboxOptions::default() };
        change(&mut options);
        Self { sandbox: Sandbox::start(options).await.unwrap(), clock }
    }

    /// A connection behind its banner.
    pub(crate) async fn connect(&self) -> Client {
        let mut client = self.connect_silently().await;
        let banner = client.line().await.unwrap();
        let id = banner.rsplit_once('[').unwrap().1.trim_end_matches(']');
        client.suffix = format!("[{FRONT_END} {} {id}]", self.clock.wall().rfc3339());
        client.session_id = id.to_owned();
        client.banner = banner;
        client
    }

    pub(crate) async fn connect_silently(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.sandbox.smtp_port())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    /// A connection behind STARTTLS and EHLO.
    pub(crate) async fn secure(&self) -> Client {
        let mut client = self.connect().await;
        client.say("EHLO client.example").await;
        assert_eq!(client.say("STARTTLS").await, "220 2.0.0 SMTP server ready");
        let mut client = client.handshake(&self.sandbox).await;
        client.say("EHLO client.example").await;
        client
    }

    /// A connection that is logged in to the default mailbox.
    pub(crate) async fn logged_in(&self) -> Client {
        let mut client = self.secure().await;
        assert_eq!(client.say(&self.auth()).await, "235 2.7.0 Authentication successful");
        client
    }

    /// An AUTH command with a good token for the default mailbox.
    pub(crate) fn auth(&self) -> String {
        let token = self.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap();
        format!("AUTH XOAUTH2 {}", xoauth2(DEFAULT_MAILBOX, &token))
    }

    /// Waits until so many SMTP connections are open.
    pub(crate) async fn connections(&self, count: u64) {
        let condition = async {
            while self.sandbox.counters().connections != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, condition).await.unwrap();
    }
}

impl World {
    /// The first two words of the answer to a login.
    pub(crate) async fn answer_to(&self, user: &str, token: &str) -> String {
        let reply = self.secure().await.say(&format!("AUTH XOAUTH2 {}", xoauth2(user, token))).await;
        reply.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }
}

pub(crate) fn xoauth2(user: &str, token: &str) -> String {
    STANDARD.encode(format!("user={user}\x01auth=Bearer {token}\x01\x01"))
}

pub(crate) fn connector(sandbox: &Sandbox) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sandbox.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An SMTP client that does as it is told.
pub(crate) struct Client {
    stream: BufReader<Box<dyn Stream>>,
    pub(crate) banner: String,
    pub(crate) session_id: String,
    /// The exact suffix of this session's errors; replies show it as `[..]`.
    suffix: String,
}

impl Client {
    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: BufReader::new(Box::new(stream)),
            banner: String::new(),
            session_id: String::new(),
            suffix: "[none]".to_owned(),
        }
    }

    pub(crate) async fn handshake(self, sandbox: &Sandbox) -> Self {
        self.handshake_as(sandbox, sandbox.smtp_host()).await.unwrap()
    }

    pub(crate) async fn handshake_as(self, sandbox: &Sandbox, name: &'static str) -> std::io::Result<Self> {
        let name = ServerName::try_from(name).unwrap();
        let stream = connector(sandbox).connect(name, self.stream.into_inner()).await?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), ..self })
    }

    pub(crate) async fn write(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Writes while the server reads; an error if it never does, or goes away.
    pub(crate) async fn try_write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        tokio::time::timeout(PATIENCE, self.stream.write_all(octets)).await.unwrap()
    }

    /// One line without its CRLF; `None` when the connection has ended, however.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await.unwrap();
        if read.is_err() || line.is_empty() {
            return None;
        }
        Some(line.strip_suffix("\r\n").unwrap().replace(&self.suffix, "[..]"))
    }

    /// A whole reply, its lines joined by `\n`.
    pub(crate) async fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if is_last {
                break;
            }
        }
        lines.join("\n")
    }

    pub(crate) async fn say(&mut self, command: &str) -> String {
        self.write(format!("{command}\r\n")).await;
        self.reply().await
    }

    /// A transaction up to DATA's 354.
    pub(crate) async fn envelope(&mut self, from: &str, to: &str) {
        assert_eq!(self.say(&format!("MAIL FROM:<{from}>")).await, "250 2.1.0 Sender OK");
        assert_eq!(self.say(&format!("RCPT TO:<{to}>")).await, "250 2.1.5 Recipient OK");
        assert_eq!(self.say("DATA").await, "354 Start mail input; end with <CRLF>.<CRLF>");
    }

    /// A message from the default mailbox to its end; `content` as it goes over the wire, without the final dot.
    pub(crate) async fn send(&mut self, content: &str) -> String {
        self.envelope(DEFAULT_MAILBOX, "you@example.org").await;
        self.say(&format!("{content}.")).await
    }

    /// Plays a transcript: `C:` lines are sent, `S:` lines must be the answer, `//` is a comment.
    pub(crate) async fn play(&mut self, transcript: &str) {
        for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
            match line.split_at(2) {
                ("C:", command) => self.write(format!("{}\r\n", command.trim_start())).await,
                ("S:", expected) => {
                    let expected = expected.strip_prefix(' ').unwrap_or_default();
                    assert_eq!(self.line().await.as_deref(), Some(expected), "in {transcript}");
                }
                _ => panic!("not a transcript line: {line}"),
            }
        }
    }
}

/// An answer of the token endpoint.
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl HttpReply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// A member of the JSON that is a text; empty if it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    /// Status, `error` and the AADSTS code; the latter two empty and 0 in a good answer.
    pub(crate) fn verdict(&self) -> (u16, String, u64) {
        (self.status, self.text("error"), self.json()["error_codes"][0].as_u64().unwrap_or_default())
    }

    /// Where a redirect leads.
    pub(crate) fn location(&self) -> url::Url {
        let line = self.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
        line.parse().unwrap()
    }
}

/// Header names in lower case; values as they came.
fn with_lower_names(head: &str) -> String {
    let lower = |line: &str| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
        None => line.to_owned(),
    };
    head.split("\r\n").map(lower).collect::<Vec<_>>().join("\r\n")
}

/// A form to the default tenant's token endpoint; `None` if the connection ended without an answer.
pub(crate) async fn form(sandbox: &Sandbox, parameters: &[(&str, &str)]) -> Option<HttpReply> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let head = "Content-Type: application/x-www-form-urlencoded\r\n";
    http(sandbox, "POST", "/contoso.com/oauth2/v2.0/token", head, &body).await
}

/// One raw HTTP/1.1 request; `None` if the connection ended without an answer.
pub(crate) async fn http(sandbox: &Sandbox, method: &str, path: &str, head: &str, body: &str) -> Option<HttpReply> {
    let port = sandbox.authority().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(sandbox).connect(name, stream).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_reply(&mut stream).await
}

async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> Option<HttpReply> {
    let mut octets = Vec::new();
    // A server that closes without a TLS goodbye is an error to rustls, and an end to us.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut octets)).await.unwrap();
    let text = String::from_utf8(octets).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(HttpReply { status, head: with_lower_names(head), body: body.to_owned() })
}

/// A request to the metadata service; `None` if the connection ended without an answer.
pub(crate) async fn imds(sandbox: &Sandbox, query: &str, head: &str) -> Option<HttpReply> {
    let address = sandbox.imds();
    let address = address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /metadata/identity/oauth2/token?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{head}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_reply(&mut stream).await
}
