//! A small HTTP proxy that does what a test tells it: it hears one CONNECT a connection and says or tunnels.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forwarder::{Authorization, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::upstream::within;

pub(crate) struct TestProxy {
    listener: TcpListener,
}

impl TestProxy {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The way through it, by IP address.
    pub(crate) fn way(&self) -> Proxy {
        Proxy { host: "127.0.0.1".into(), port: self.port(), authorization: None }
    }

    pub(crate) fn way_with_login(&self) -> Proxy {
        Proxy { authorization: Some(Authorization::basic("relay", "hunter2")), ..self.way() }
    }

    /// The next connection, with its request.
    pub(crate) async fn asked(&self) -> Asked {
        let (mut stream, peer) = within(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(within(stream.read_u8()).await.expect("a whole request"));
        }
        Asked { stream, peer: peer.ip(), request: String::from_utf8(request).unwrap() }
    }
}

/// A connection that wants a tunnel.
pub(crate) struct Asked {
    pub(crate) stream: TcpStream,
    pub(crate) peer: IpAddr,
    pub(crate) request: String,
}

impl Asked {
    /// Says all that the client hears of it before it goes.
    pub(crate) async fn say(&mut self, octets: &str) {
        let _ = within(self.stream.write_all(octets.as_bytes())).await;
    }

    /// Says octets one by one until the client has gone.
    pub(crate) async fn drip(mut self, octets: impl IntoIterator<Item = u8>, every: Duration) {
        for octet in octets {
            tokio::time::sleep(every).await;
            if self.stream.write_all(&[octet]).await.is_err() {
                break;
            }
        }
    }

    /// Says 200 and joins the ends.
    pub(crate) async fn tunnel(mut self, upstream: SocketAddr) {
        let far = TcpStream::connect(upstream).await.unwrap();
        self.say("HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n").await;
        self.join(far);
    }

    /// Joins the ends and says nothing.
    pub(crate) fn join(mut self, mut far: TcpStream) {
        tokio::spawn(async move { copy_bidirectional(&mut self.stream, &mut far).await });
    }
}
