//! A client that plays a dialog: `C:` lines are sent, each `S:` line must be the start of the next line received.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longer than anything here takes; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `what`, or fails.
pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("what was waited for did not happen")
}

/// In the clear or through TLS.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub(crate) struct Client {
    stream: BufReader<Box<dyn Duplex>>,
}

impl Client {
    /// Connects, without a word.
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        Self::connect_from("127.0.0.1", server).await.unwrap()
    }

    /// Connects from another address of this machine.
    pub(crate) async fn connect_from(address: &str, server: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(address.parse::<IpAddr>().unwrap(), 0))?;
        // Little room, so that a client that does not read is soon noticed.
        socket.set_recv_buffer_size(16 * 1024)?;
        let stream = within(socket.connect(server)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Connects and reads the banner.
    pub(crate) async fn greeted(server: SocketAddr) -> Self {
        let mut client = Self::connect(server).await;
        client.play("S: 220 ").await;
        client
    }

    /// Connects and goes as far as 354.
    pub(crate) async fn in_data(server: SocketAddr) -> Self {
        let mut client = Self::greeted(server).await;
        client.play(TO_DATA).await;
        client
    }

    /// Goes through TLS from here on, whatever the certificate.
    pub(crate) async fn encrypted(self, trust: &Arc<ClientConfig>) -> Self {
        assert!(self.stream.buffer().is_empty(), "the server said something more before TLS");
        let name = ServerName::try_from("relay.test").unwrap();
        let stream = within(TlsConnector::from(Arc::clone(trust)).connect(name, self.stream.into_inner())).await;
        Self { stream: BufReader::new(Box::new(stream.expect("the handshake"))) }
    }

    /// The same, with `first` in one packet with the hello.
    pub(crate) async fn encrypted_behind(self, first: &[u8], trust: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("relay.test").unwrap();
        let mut held = BufWriter::with_capacity(64 * 1024, self.stream.into_inner());
        within(held.write_all(first)).await.unwrap();
        let stream = within(TlsConnector::from(Arc::clone(trust)).connect(name, held)).await;
        Self { stream: BufReader::new(Box::new(stream.expect("the handshake"))) }
    }

    /// Plays a dialog.
    pub(crate) async fn play(&mut self, dialog: &str) {
        for line in dialog.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (who, text) = line.split_at_checked(2).unwrap_or_else(|| panic!("not a line of a dialog: {line}"));
            match who {
                "C:" => self.send(format!("{}\r\n", text.trim_start()).as_bytes()).await,
                "S:" => {
                    let received = self.line().await;
                    assert!(received.starts_with(text.trim_start()), "{received:?} came where {text:?} must");
                }
                _ => panic!("not a line of a dialog: {line}"),
            }
        }
    }

    /// Sends octets in one write.
    pub(crate) async fn send(&mut self, octets: &[u8]) {
        within(self.stream.write_all(octets)).await.expect("the server takes what is sent");
        within(self.stream.flush()).await.expect("the server takes what is sent");
    }

    /// Says that nothing more will be sent, and listens on.
    pub(crate) async fn close_its_side(&mut self) {
        within(self.stream.shutdown()).await.expect("the server is there");
    }

    /// Sends as much as the server takes, and says whether it still does.
    pub(crate) async fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        within(self.stream.write_all(octets)).await
    }

    /// The next line without its end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        within(self.stream.read_line(&mut line)).await.expect("a line");
        assert!(line.ends_with("\r\n"), "the server closed where a line was due, after {line:?}");
        line.truncate(line.len() - 2);
        line
    }

    /// All that the server says until it closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is a way to close, too.
        let _ = within(self.stream.read_to_end(&mut rest)).await;
        rest
    }

    /// Asserts that the server says nothing more and closes.
    pub(crate) async fn is_closed(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest().await), "");
    }
}

/// From the banner to 354.
pub(crate) const TO_DATA: &str = "
    C: EHLO erp01
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250
    C: MAIL FROM:<erp@contoso.com>
    S: 250 2.1.0
    C: RCPT TO:<anna@contoso.com>
    S: 250 2.1.5
    C: DATA
    S: 354
";
