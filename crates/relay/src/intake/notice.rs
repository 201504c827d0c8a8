//! What a listener saw of a client beyond its commands, in words for the administrator: each with the remedy, and once a
//! minute for a client.

use smtp_server::{Client, HandshakeError, Notice};
use tracing::{debug, info, warn};

use crate::container;

use super::door::{Door, Occasion};

impl Door {
    /// Tells a notice, if it was not told of late.
    pub(super) fn noticed(&self, client: &Client, notice: &Notice<'_>) {
        match notice {
            Notice::Connected => self.connected(client),
            Notice::HandshakeFailed(error) => self.handshake_failed(client, error),
            Notice::TlsInTheClear => self.inform(
                client,
                Occasion::Handshake(client.address()),
                "the client speaks TLS from the first octet, which this listener does not; it was closed at once, since many \
                 devices try again without. If it does not, turn SSL/TLS off on the device, or point it at a listener with \
                 tls = \"implicit\"",
            ),
            Notice::ProxyHeaderRefused => self.inform(
                client,
                Occasion::Proxy(client.address()),
                "the client sent a PROXY header and was refused: only those in the listener's proxy_protocol_from may say \
                 who a client is",
            ),
            Notice::ProxyHeaderMissing(reason) => {
                if let Some(left_out) = self.tell(Occasion::Proxy(client.address())) {
                    let (listener, address) = (&client.listener, client.address());
                    warn!(
                        %listener, client = %address, reason, left_out,
                        "no right PROXY header came from an address in proxy_protocol_from, so nobody knows who the client is; \
                         switch the header on at the load balancer (HAProxy: send-proxy-v2), or take the address out of \
                         proxy_protocol_from"
                    );
                }
            }
            Notice::TimedOut => self.inform(
                client,
                Occasion::Silence(client.address()),
                "the client sent nothing more, or too slowly, and was closed",
            ),
            Notice::Paced(_) => self.inform(
                client,
                Occasion::Pace(client.address()),
                "the client connects faster than its sessions could be worked off, and waits for its turn",
            ),
        }
    }

    fn inform(&self, client: &Client, occasion: Occasion, text: &str) {
        if let Some(left_out) = self.tell(occasion) {
            info!(listener = %client.listener, client = %client.address(), left_out, "{text}");
        }
    }

    /// A container engine may hide who the clients are.
    fn connected(&self, client: &Client) {
        let address = client.address();
        if self.policy.gateways.contains(address) && self.is_first_behind_gateway() {
            warn!("{}", container::warning(&client.listener, address));
        }
    }

    fn handshake_failed(&self, client: &Client, failure: &HandshakeError) {
        let remedy = match failure {
            HandshakeError::TooOld => {
                "update its firmware; if there is none, turn TLS off on it and give it a listener of its own with tls = \
                 \"none\" whose networks name that device alone"
            }
            HandshakeError::NothingInCommon => {
                "an RSA certificate helps some old devices (xoauth2-relay self-signed makes one); else turn TLS off on it \
                 and give it a listener of its own with tls = \"none\" whose networks name that device alone"
            }
            HandshakeError::NoTls => {
                "if it is a mail client, it is set to no encryption or to STARTTLS: set it to SSL/TLS from the start, or \
                 point it at a listener with tls = \"starttls\""
            }
            HandshakeError::TimedOut => {
                "a client that is set to no encryption or to STARTTLS waits for a banner here: set it to SSL/TLS from the \
                 start, or point it at a listener with tls = \"starttls\""
            }
            HandshakeError::CertificateRefused(_) => {
                "it does not trust the certificate: give it the listener's certificate file, or use one from an authority \
                 that it knows, with the name that it connects to"
            }
            HandshakeError::Failed(_) => "compare the TLS settings of the client with those of its maker's documents",
            // Port scans and impatient clients.
            HandshakeError::Lost(_) => {
                debug!(listener = %client.listener, client = %client.address(), reason = %failure, "no TLS session");
                return;
            }
        };
        if let Some(left_out) = self.tell(Occasion::Handshake(client.address())) {
            let (listener, address) = (&client.listener, client.address());
            warn!(%listener, client = %address, reason = %failure, remedy, left_out, "no TLS session");
        }
    }
}
