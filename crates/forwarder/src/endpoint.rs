//! Where upstream is and how long it may take, as values that the relay makes from its configuration.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::proxy::{Proxy, authority};

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
    /// Which addresses of the host are tried; of the proxy where there is one.
    pub address_family: AddressFamily,
    /// Where connections come from; only addresses of its family are tried.
    pub source_address: Option<IpAddr>,
    /// What tunnels the connection by CONNECT; it resolves the host's name.
    pub proxy: Option<Proxy>,
    /// What we call ourselves in EHLO.
    pub hostname: String,
    /// TLS with its trust store; certificates are always verified.
    pub tls: Arc<ClientConfig>,
    /// Bounds of each phase.
    pub timeouts: Timeouts,
}

/// Where it is and by which way, for errors.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))?;
        match &self.proxy {
            Some(proxy) => write!(f, " through the proxy {proxy}"),
            None => Ok(()),
        }
    }
}

/// How long each phase may take. RFC 5321 section 4.5.3.2 gives the later ones.
///
/// Up to the login each is for a phase as a whole. From there on they are for progress: each octet of a reply, each 16 KiB of
/// a message begins them anew. That has an end, too: a reply takes twice its time at most, and 16 KiB must go in one.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Name resolution and TCP connect, to the proxy where there is one.
    pub connect: Duration,
    /// Each of a proxy's answer, banner, EHLO, STARTTLS, its handshake; each reply to AUTH.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5321 section 4.5.3.2: less is a fault, for servers do take that long.
    #[test]
    fn no_wait_is_shorter_than_the_standard_says() {
        let timeouts = Timeouts::default();
        for (name, wait, minutes) in [
            ("4.5.3.2.2 MAIL, 4.5.3.2.3 RCPT", timeouts.command, 5),
            ("4.5.3.2.4 DATA", timeouts.command, 2),
            ("4.5.3.2.5 data block", timeouts.data_block, 3),
            ("4.5.3.2.6 final dot", timeouts.final_dot, 10),
        ] {
            assert!(wait >= Duration::from_mins(minutes), "{name}");
        }
    }
}
