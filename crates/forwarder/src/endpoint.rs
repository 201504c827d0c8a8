//! Where upstream is and how long it may take, as values that the relay makes from its configuration.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

/// Which addresses of the host are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFamily {
    /// Both, IPv6 first, racing (RFC 8305).
    #[default]
    Any,
    /// IPv4 only, for networks whose IPv6 path is broken.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host name, as it must stand in the certificate.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Which addresses of the host are tried.
    pub address_family: AddressFamily,
    /// What we call ourselves in EHLO.
    pub hostname: String,
    /// TLS with its trust store; certificates are always verified.
    pub tls: Arc<ClientConfig>,
    /// Bounds of each phase.
    pub timeouts: Timeouts,
}

/// How long each phase may take without progress. RFC 5321 section 4.5.3.2 gives the later ones.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Name resolution and TCP connect.
    pub connect: Duration,
    /// Each of banner, EHLO, STARTTLS with its handshake, AUTH.
    pub greeting: Duration,
    /// Each reply to MAIL, RCPT, RSET and DATA.
    pub command: Duration,
    /// Each piece of a message taken by upstream.
    pub data_block: Duration,
    /// The reply to the final dot.
    pub final_dot: Duration,
    /// The reply to QUIT, which nobody waits for in earnest.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            greeting: Duration::from_mins(1),
            command: Duration::from_mins(5),
            data_block: Duration::from_mins(3),
            final_dot: Duration::from_mins(10),
            quit: Duration::from_secs(5),
        }
    }
}
