//! Texts of the configuration that mean a quantity: durations, sizes, networks. Each type holds only what is right.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// `5s`, `10m`, `12h`, `5d`; a whole number and a unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// `35 MiB`, `512 KiB`, `20 GiB`, `1000 B`; a whole number and a unit.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let octets: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(octets)
}

/// A size as it may be written: the largest unit that leaves a whole number.
pub(crate) fn octets(size: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| size >= *unit && size.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", size / unit),
        None => format!("{size} B"),
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

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
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| ())?;
        // `10.1.2.3/24` is more likely a slip than the network around it.
        if network.trunc() == network { Ok(Self(network)) } else { Err(()) }
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
    fn durations() {
        for (text, seconds) in [("0s", 0), ("8s", 8), ("10m", 600), ("2h", 7200), ("5d", 432_000), (" 1 m ", 60)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "m", "-1s", "1.5h", "5 weeks", "99999999999999999999s", "9999999999999999999d"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_read_as_they_are_written() {
        for (text, number) in [("35 MiB", 36_700_160), ("1KiB", 1024), ("20 GiB", 21_474_836_480), ("7 B", 7)] {
            assert_eq!(size(text), Some(number), "{text}");
            assert_eq!(size(&octets(number)), Some(number));
        }
        for text in ["", "35", "35 MB", "35 mib", "-1 B", "99999999 TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(octets(36_700_160), "35 MiB");
    }

    #[test]
    fn networks() {
        let network: Network = "10.1.2.0/24".parse().unwrap();
        assert!(network.contains("10.1.2.3".parse().unwrap()));
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("10.1.3.3".parse().unwrap()));
        for text in ["10.1.2.3/24", "10.1.2.0/33", "host", ""] {
            assert_eq!(text.parse::<Network>(), Err(()), "{text}");
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
            assert_eq!(text.parse::<Network>().unwrap().is_private(), private, "{text}");
        }
    }
}
