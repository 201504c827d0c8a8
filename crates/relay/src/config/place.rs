//! Where something is: hosts, sockets, files, and names within the configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

#[cfg(test)]
use super::sample::Chance;
use super::value::{Scalar, Wrong};

/// A host name: letters, digits, hyphens and dots, and no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The machine's name, made into a valid one.
    pub(crate) fn of_this_machine() -> Self {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self(crate::hostname::valid(&machine))
    }

    /// A name that is known to be one.
    pub(crate) fn known(name: &'static str) -> Self {
        Self(name.to_owned())
    }
}

impl Scalar for HostName {
    fn allowed() -> String {
        "a host name such as \"relay01.example.com\" (letters, digits, hyphens and dots; not an IP address)".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        // Exchange answers EHLO with another name by 501; an address has no certificate to verify.
        let right = crate::hostname::valid(text) == text && text.parse::<IpAddr>().is_err();
        right.then(|| Self(text.to_owned())).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(chance.domain())
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Socket(SocketAddr),
    /// A socket that systemd hands over under this name.
    Systemd(String),
}

impl ListenAddress {
    /// The address, if it is ours to bind.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Systemd(_) => None,
        }
    }
}

impl Scalar for ListenAddress {
    fn allowed() -> String {
        "an address with a port such as \"127.0.0.1:2525\" or \"[::1]:2525\", or \"systemd:NAME\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix("systemd:") {
            // FileDescriptorName= of systemd.socket(5): what can be told apart by the colons between names.
            Some(name) if !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':') => {
                Ok(Self::Systemd(name.to_owned()))
            }
            Some(_) => Err(Wrong::NotAllowed),
            None => {
                let address: SocketAddr = text.parse().map_err(|_| Wrong::NotAllowed)?;
                // `[::ffff:127.0.0.1]` is 127.0.0.1.
                Ok(Self::Socket(SocketAddr::new(address.ip().to_canonical(), address.port())))
            }
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Socket(address) => Json::String(address.to_string()),
            Self::Systemd(name) => Json::String(format!("systemd:{name}")),
        }
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("127.0.0.1:{}", chance.between(1024, 65535)))
    }
}

/// Where HTTP is served; nowhere when written `""`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress(pub Option<SocketAddr>);

impl Scalar for HttpAddress {
    fn allowed() -> String {
        "an address with a port such as \"127.0.0.1:9525\", or \"\" for none".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::String(self.0.map(|address| address.to_string()).unwrap_or_default())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("127.0.0.2:{}", chance.between(1024, 65535)))
    }
}

impl Scalar for IpAddr {
    fn allowed() -> String {
        "an IP address such as \"10.1.0.5\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::String(self.to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("10.1.0.{}", chance.below(256)))
    }
}

/// A path, which is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Scalar for FilePath {
    fn allowed() -> String {
        "a path".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "" => Err(Wrong::Because("is empty; write a path, or leave it out for the default".to_owned())),
            _ if text.contains('\0') => Err(Wrong::NotAllowed),
            _ => Ok(Self(PathBuf::from(text))),
        }
    }

    fn json(&self) -> Json {
        Json::String(self.0.display().to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("/etc/xoauth2-relay/file {}", chance.below(1000)))
    }
}

/// The name of a section of the administrator's: lower-case letters, digits and `_`, so that the environment can reach it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Name {
    fn allowed() -> String {
        "a name of lower-case letters, digits and _".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let right = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
        let right = !text.is_empty() && text.bytes().all(right);
        right.then(|| Self(text.to_owned())).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("name_{}", chance.below(4)))
    }
}

/// The name of a user: a name, or an address, which the environment cannot reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for UserName {
    fn allowed() -> String {
        "a name of lower-case letters, digits and _, or an address".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let right = Name::parse(text).is_ok() || text.parse::<mail::Mailbox>().is_ok();
        right.then(|| Self(text.to_owned())).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Name::sample(chance)
    }
}

/// A text of the administrator's, on one line and not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A text that is known to be one.
    pub(crate) fn known(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

impl Scalar for Text {
    fn allowed() -> String {
        "a text on one line, not empty".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let right = !text.is_empty() && !text.chars().any(char::is_control);
        right.then(|| Self(text.to_owned())).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("gr\u{fc}n \"{}\" \\ ü", chance.below(1000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        for text in ["127.0.0.1:2525", "[::1]:25", "0.0.0.0:0", "systemd:smtp"] {
            assert_eq!(Scalar::json(&ListenAddress::parse(text).unwrap()), text);
        }
        assert_eq!(Scalar::json(&ListenAddress::parse("[::ffff:127.0.0.1]:25").unwrap()), "127.0.0.1:25");
        for text in ["localhost:25", "127.0.0.1", "", "systemd:", "systemd:a:b", ":25"] {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_names() {
        for text in ["relay01.example.com", "localhost"] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), text);
        }
        for text in ["relay_01.x", "10.0.0.1", "", "a..b", "-a.b"] {
            assert!(HostName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert!(Name::parse("scanner_2").is_ok());
        for text in ["", "Scanner", "a-b", "a b", "é"] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
        assert!(UserName::parse("erp@contoso.com").is_ok() && UserName::parse("ERP").is_err());
    }
}
