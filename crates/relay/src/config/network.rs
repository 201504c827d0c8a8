//! Networks of clients, as the configuration names them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value as Json;

#[cfg(test)]
use super::sample::Chance;
use super::value::{Scalar, Wrong};

/// A network of clients: `10.1.2.0/24`, `::1/128`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Networks that no stranger on the internet comes from: loopback, private use, link-local, carrier NAT, unique local.
const PRIVATE: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

impl Network {
    /// Whether `address` is in it; an IPv4-mapped address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether all of it is in private ranges.
    pub fn is_private(&self) -> bool {
        PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|private| private.contains(&self.0))
    }

    /// Whether all of it is this machine.
    pub fn is_loopback(&self) -> bool {
        self.0.network().is_loopback() && self.0.broadcast().is_loopback()
    }

    /// This machine by both protocols.
    pub(crate) fn loopback() -> Vec<Self> {
        ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| Self::parse(text).ok()).collect()
    }
}

impl Scalar for Network {
    fn allowed() -> String {
        "a network such as \"10.1.2.0/24\" with no bits beyond its length".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| Wrong::NotAllowed)?;
        if matches!(network, IpNet::V6(six) if six.network().to_ipv4_mapped().is_some()) {
            return Err(Wrong::Because(format!(
                "{text:?} is an IPv4 network in the clothes of IPv6; write it as IPv4"
            )));
        }
        // `10.1.2.3/24` is more likely a slip than the network around it.
        let around = network.trunc();
        if around == network {
            Ok(Self(network))
        } else {
            Err(Wrong::Because(format!("{text:?} has bits beyond its length; the network around it is \"{around}\"")))
        }
    }

    fn json(&self) -> Json {
        Json::String(self.to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        let third = chance.below(256);
        Json::String(if chance.below(4) == 0 { format!("fd00:{third:x}::/32") } else { format!("10.1.{third}.0/24") })
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::parse(text).map_err(|_| ())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let network = Network::parse("10.1.2.0/24").unwrap();
        assert!(network.contains("10.1.2.3".parse().unwrap()));
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("10.1.3.3".parse().unwrap()));
        for text in ["10.1.2.3/24", "10.1.2.0/33", "host", "", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        for (text, private) in [
            ("127.0.0.0/8", true),
            ("192.168.7.0/24", true),
            ("10.0.0.0/7", false),
            ("0.0.0.0/0", false),
            ("::/0", false),
            ("8.8.8.8", false),
            ("fd00::/8", true),
        ] {
            assert_eq!(Network::parse(text).unwrap().is_private(), private, "{text}");
        }
        for (text, loopback) in [("127.0.0.0/8", true), ("::1", true), ("126.0.0.0/7", false), ("10.0.0.0/8", false)] {
            assert_eq!(Network::parse(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
