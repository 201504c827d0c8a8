//! What a listener sees of its clients beyond their commands: nothing that changes a session, and often the one hint that an
//! administrator needs. Telling it, and how often, is the intake's matter.

use std::time::Duration;

use crate::stream::HandshakeError;

/// Something about one client.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A session began.
    Connected,
    /// TLS could not be agreed upon.
    HandshakeFailed(&'a HandshakeError),
    /// It speaks TLS from the first octet, on a listener that does not; it was closed at once, so that it may try without.
    TlsInTheClear,
    /// It sent a PROXY header and is none of the load balancers that are believed; it was closed.
    ProxyHeaderRefused,
    /// A load balancer that is believed sent no right PROXY header; it was closed. Says why.
    ProxyHeaderMissing(&'a str),
    /// It said nothing more, or sent too slowly, and was closed.
    TimedOut,
    /// It made connections faster than one client may, and waited this long for its banner.
    Paced(Duration),
}
