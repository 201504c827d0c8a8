//! The HTTP proxy on the way to upstream, as a value that the relay makes from its configuration. What is said to it is
//! `tunnel.rs`'s.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// An HTTP proxy that tunnels by CONNECT. Shown, it is its URL without user and password.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Host name or IP address, the latter without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What it wants to know of us.
    pub authorization: Option<Authorization>,
}

/// What stands in `Proxy-Authorization`; wiped when dropped, redacted in Debug.
#[derive(Clone)]
pub struct Authorization(Zeroizing<String>);

impl Authorization {
    /// User and password in the scheme Basic (RFC 7617).
    pub fn basic(user: &str, password: &str) -> Self {
        let plain = Zeroizing::new(format!("{user}:{password}"));
        Self(Zeroizing::new(STANDARD.encode(plain.as_bytes())))
    }

    /// The base64 behind the scheme's name.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(redacted)")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let authorization = Some(Authorization::basic("Aladdin", "open sesame"));
        assert_eq!(authorization.as_ref().unwrap().expose(), "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "RFC 7617's own example");
        let proxy = Proxy { host: "::1".into(), port: 3128, authorization };
        assert_eq!(proxy.to_string(), "http://[::1]:3128");
        let shown = format!("{proxy:?}");
        assert!(!shown.contains("sesame") && !shown.contains("QWxh"), "{shown}");
    }
}
