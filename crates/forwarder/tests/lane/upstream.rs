//! A scripted upstream: it expects lines and says replies, in clear until STARTTLS and over TLS after it.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Longer than anything here takes; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `what`, or fails.
pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("what was waited for did not happen")
}

/// The name in the certificate.
pub(crate) const HOST: &str = "localhost";

/// A CA and a server with a certificate of it.
struct Trust {
    ca: CertificateDer<'static>,
    server: Arc<ServerConfig>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![HOST.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    Trust { ca: ca.der().clone(), server: Arc::new(server) }
});

/// A client configuration that trusts the upstream's CA.
pub(crate) fn trusting() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(TRUST.ca.clone()).unwrap();
    client_config(roots)
}

/// A client configuration that trusts nobody.
pub(crate) fn trusting_nobody() -> Arc<ClientConfig> {
    client_config(RootCertStore::empty())
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Waits for connections.
pub(crate) struct Upstream {
    listener: TcpListener,
}

/// What EHLO offers after TLS, usually.
pub(crate) const EHLO: &str = "250-upstream.test Hello\r\n250-SIZE 157286400\r\n250-PIPELINING\r\n250-AUTH LOGIN XOAUTH2\r\n250-8BITMIME\r\n250 SMTPUTF8";

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// One whose kernel takes little ahead of what is read.
    pub(crate) fn start_narrow() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { listener: socket.listen(8).unwrap() }
    }

    /// Comes up where another was before.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        Self { listener: TcpListener::bind(address).await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection, before the banner.
    pub(crate) async fn connected(&self) -> Session<TcpStream> {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Session { stream: BufReader::new(stream) }
    }

    /// The next connection, with TLS and EHLO behind it, before AUTH.
    pub(crate) async fn greeted(&self) -> Session<Tls> {
        self.greeted_with(EHLO).await
    }

    /// As [`Self::greeted`], with another offer.
    pub(crate) async fn greeted_with(&self, offer: &str) -> Session<Tls> {
        let mut session = self.connected().await.in_tls().await;
        session.expect("EHLO relay.test").await;
        session.say(offer).await;
        session
    }

    /// The next connection, logged in.
    pub(crate) async fn logged_in(&self) -> Session<Tls> {
        let mut session = self.greeted().await;
        session.log_in().await;
        session
    }
}

pub(crate) type Tls = tokio_rustls::server::TlsStream<TcpStream>;

/// One connection.
pub(crate) struct Session<S> {
    stream: BufReader<S>,
}

impl Session<TcpStream> {
    /// Where the client is.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.stream.get_ref().peer_addr().unwrap()
    }

    /// Banner, EHLO, STARTTLS, handshake.
    pub(crate) async fn in_tls(mut self) -> Session<Tls> {
        self.say("220 upstream.test ready").await;
        self.expect("EHLO relay.test").await;
        self.say("250-upstream.test Hello\r\n250 STARTTLS").await;
        self.expect("STARTTLS").await;
        self.say("220 2.0.0 SMTP server ready").await;
        self.handshake().await.expect("the client takes our certificate")
    }

    /// The server's side of the handshake.
    pub(crate) async fn handshake(self) -> std::io::Result<Session<Tls>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&TRUST.server));
        let stream = within(acceptor.accept(self.stream.into_inner())).await?;
        Ok(Session { stream: BufReader::new(stream) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// AUTH and its 235.
    pub(crate) async fn log_in(&mut self) {
        assert!(self.line().await.starts_with("AUTH XOAUTH2 "));
        self.say("235 2.7.0 Authentication successful").await;
    }

    /// The next line without its end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        within(self.stream.read_until(b'\n', &mut line)).await.expect("a line");
        let line = String::from_utf8(line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line but {line:?}")).to_owned()
    }

    /// Asserts that these lines come next.
    pub(crate) async fn expect(&mut self, lines: &str) {
        for expected in lines.lines().map(str::trim) {
            assert_eq!(self.line().await, expected);
        }
    }

    /// Says replies, one a line.
    pub(crate) async fn say(&mut self, replies: &str) {
        let octets: String = replies.lines().flat_map(|line| [line.trim_start(), "\r\n"]).collect();
        within(self.stream.write_all(octets.as_bytes())).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// Says octets one by one; ends when the client has gone.
    pub(crate) async fn drip(&mut self, octets: impl IntoIterator<Item = u8>, every: Duration) {
        for octet in octets {
            tokio::time::sleep(every).await;
            if self.stream.write_all(&[octet]).await.is_err() || self.stream.flush().await.is_err() {
                break;
            }
        }
    }

    /// Reads the rest of a message's `octets` in such pieces, one after each pause; whether the client was there to the end.
    pub(crate) async fn sip(&mut self, octets: usize, piece: usize, every: Duration) -> bool {
        let mut left = octets;
        while left > 0 {
            tokio::time::sleep(every).await;
            let mut buffer = vec![0; piece.min(left)];
            match within(self.stream.read(&mut buffer)).await {
                Ok(0) | Err(_) => return false,
                Ok(read) => left -= read,
            }
        }
        true
    }

    /// Expects lines, then says replies.
    pub(crate) async fn answer(&mut self, lines: &str, replies: &str) {
        self.expect(lines).await;
        self.say(replies).await;
    }

    /// Reads a whole message: all lines to the final dot, as they stand on the wire, the dot left out.
    pub(crate) async fn message(&mut self) -> String {
        let mut message = String::new();
        loop {
            let line = self.line().await;
            if line == "." {
                return message;
            }
            message.push_str(&line);
            message.push_str("\r\n");
        }
    }

    /// Reads some octets and leaves the rest.
    pub(crate) async fn some(&mut self, octets: usize) {
        within(self.stream.read_exact(&mut vec![0; octets])).await.unwrap();
    }

    /// Takes any message without trouble, from MAIL to the final reply.
    pub(crate) async fn take(&mut self) -> String {
        loop {
            match self.line().await.split(' ').next() {
                Some("RSET" | "MAIL" | "RCPT") => self.say("250 2.1.0 OK").await,
                Some("DATA") => break,
                other => panic!("{other:?} is not what comes before DATA"),
            }
        }
        self.say("354 go ahead").await;
        let message = self.message().await;
        self.say("250 2.0.0 OK <id@x> [Hostname=X]").await;
        message
    }

    /// All that the client still sends until it closes.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A client that drops TLS without a word is gone as well.
        let _ = within(self.stream.read_to_end(&mut rest)).await;
        rest
    }

    /// Closes our side in good order and reads until the client closes its own.
    pub(crate) async fn close(mut self) -> Vec<u8> {
        let _ = within(self.stream.shutdown()).await;
        self.rest().await
    }
}
