//! What is known of the client at the other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One client connection, as the hooks of an intake see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Number of the connection in this process, for logs.
    pub session: u64,
    /// Name of the listener it came to.
    pub listener: Arc<str>,
    /// Where it came from; IPv4-mapped addresses as IPv4.
    pub peer: SocketAddr,
    /// The load balancer that said so, if one did.
    pub proxy: Option<SocketAddr>,
    /// What it called itself in EHLO or HELO; empty before.
    pub helo: String,
    /// Whether it said EHLO.
    pub esmtp: bool,
    /// The version of TLS that the session is encrypted with.
    pub tls: Option<&'static str>,
    /// Who it logged in as.
    pub user: Option<Arc<str>>,
}

impl Client {
    pub(crate) fn new(session: u64, listener: Arc<str>, peer: SocketAddr) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self { session, listener, peer, proxy: None, helo: String::new(), esmtp: false, tls: None, user: None }
    }

    /// A load balancer said where the client is.
    pub(crate) fn named_by_proxy(&mut self, client: SocketAddr) {
        self.proxy = Some(self.peer);
        self.peer = SocketAddr::new(client.ip().to_canonical(), client.port());
    }

    /// Whether what it sends crosses no network: a load balancer elsewhere that names this machine's own address does not count.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        self.address().is_loopback() && self.proxy.is_none_or(|proxy| proxy.ip().is_loopback())
    }

    /// The client's address.
    pub fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The protocol as a Received field names it (RFC 3848, RFC 6531 section 4.3).
    pub fn protocol(&self, smtputf8: bool) -> &'static str {
        match (smtputf8, self.tls.is_some(), self.user.is_some()) {
            (true, false, false) => "UTF8SMTP",
            (true, false, true) => "UTF8SMTPA",
            (true, true, false) => "UTF8SMTPS",
            (true, true, true) => "UTF8SMTPSA",
            // A client that never said EHLO cannot have asked for TLS or logged in but on a port that is always encrypted.
            (false, false, false) if !self.esmtp => "SMTP",
            (false, false, false) => "ESMTP",
            (false, false, true) => "ESMTPA",
            (false, true, false) => "ESMTPS",
            (false, true, true) => "ESMTPSA",
        }
    }
}
