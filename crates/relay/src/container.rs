//! Whether the relay runs in a container, and by which gateway the rest of the world reaches it. A port that a container
//! engine publishes shows every client under the gateway's address; this says when that is so and what to do.
//!
//! Reading `/proc` and the marks of the engines is the edge; everything else is pure. It knows nothing of sessions:
//! whoever has a client's address compares it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Files that container engines put into every container: Docker and Podman.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
/// What Kubernetes sets in every pod.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";
/// The route is usable (`route.h`).
const RTF_UP: u32 = 0x1;
/// It leads through a gateway.
const RTF_GATEWAY: u32 = 0x2;
/// Longest table of routes that is read, in octets; a container has a handful of routes.
const MAX_TABLE: u64 = 1 << 20;

/// What tells a container from a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signs {
    /// One of the engines' marks is there.
    mark: bool,
    /// Kubernetes names its own service.
    kubernetes: bool,
}

impl Signs {
    fn is_container(self) -> bool {
        self.mark || self.kubernetes
    }
}

/// The gateways by which this container is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Gateways {
    /// Those of this container; none outside of one, where the gateway is a router like any other.
    pub(crate) fn of_this_container() -> Self {
        let signs = Signs {
            mark: MARKS.iter().any(|mark| Path::new(mark).exists()),
            kubernetes: std::env::var_os(KUBERNETES).is_some(),
        };
        if !signs.is_container() {
            return Self::default();
        }
        Self {
            v4: default_gateway_v4(&table("/proc/net/route")),
            v6: default_gateway_v6(&table("/proc/net/ipv6_route")),
        }
    }

    /// That of a container with this gateway, for tests of those who ask.
    #[cfg(test)]
    pub(crate) fn of(v4: Option<Ipv4Addr>) -> Self {
        Self { v4, v6: None }
    }

    /// Whether a client with this address comes through the gateway; an IPv4-mapped address counts as IPv4.
    pub(crate) fn contains(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(client) => self.v4 == Some(client),
            IpAddr::V6(client) => self.v6 == Some(client),
        }
    }
}

/// What to tell, once for each listener, when a client comes from the gateway's address.
pub(crate) fn warning(listener: &str, gateway: IpAddr) -> String {
    format!(
        "listener.{listener}: a client has the address of this container's gateway, {gateway}: the container engine hides \
         the clients' own addresses, so listener.{listener}.networks cannot tell them apart; publish the port on \
         127.0.0.1 only, or use the host's network, or set listener.{listener}.authentication = \"required\" \
         (docs/operation.md, In a container)"
    )
}

/// A table that cannot be read has no gateway in it.
fn table(path: &str) -> String {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_TABLE).read_to_string(&mut text));
    read.map(|_| text).unwrap_or_default()
}

/// The gateway of the default route with the lowest metric in `/proc/net/route` (proc(5)): `Iface Destination Gateway
/// Flags RefCnt Use Metric Mask ...`, addresses as the machine's own integers of the octets in memory.
fn default_gateway_v4(table: &str) -> Option<Ipv4Addr> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, destination, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else { return None };
        let address = |text: &str| u32::from_str_radix(text, 16).ok();
        let flags = address(flags)?;
        let is_default = address(destination)? == 0 && address(mask)? == 0;
        let leads = flags & (RTF_UP | RTF_GATEWAY) == RTF_UP | RTF_GATEWAY;
        let gateway = Ipv4Addr::from(address(gateway)?.to_ne_bytes());
        (is_default && leads).then_some((metric.parse::<u32>().ok()?, gateway))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

/// The same of `/proc/net/ipv6_route`: destination, its prefix length, source, its prefix length, next hop, metric,
/// reference count, use count, flags, interface; all numbers in hexadecimal, addresses in the order of the wire.
fn default_gateway_v6(table: &str) -> Option<Ipv6Addr> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[destination, length, _, _, gateway, metric, _, _, flags, _] = fields.as_slice() else { return None };
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let address = |text: &str| (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        let is_default = address(destination)? == 0 && number(length)? == 0;
        let leads = number(flags)? & (RTF_UP | RTF_GATEWAY) == RTF_UP | RTF_GATEWAY;
        (is_default && leads).then_some((number(metric)?, Ipv6Addr::from(address(gateway)?)))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    /// As Linux writes it.
    fn route(destination: [u8; 4], gateway: [u8; 4], flags: u32, metric: u32, mask: [u8; 4]) -> String {
        let hex = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let (destination, gateway, mask) = (hex(destination), hex(gateway), hex(mask));
        format!("eth0\t{destination}\t{gateway}\t{flags:04X}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
    }

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                     \n";

    #[test]
    fn what_is_a_container() {
        for (mark, kubernetes, is) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
        {
            assert_eq!(Signs { mark, kubernetes }.is_container(), is, "{mark} {kubernetes}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_as_docker_has_it() {
        let table = format!(
            "{HEAD}eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        );
        assert_eq!(default_gateway_v4(&table), Some(Ipv4Addr::new(172, 17, 0, 1)));
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        let (zero, slash16) = ([0; 4], [255, 255, 0, 0]);
        let through = |gateway, metric| route(zero, gateway, 3, metric, zero);
        let (one, two) = ([172, 17, 0, 1], [10, 88, 0, 1]);
        for (what, table, gateway) in [
            ("nothing", String::new(), None),
            ("the head alone", HEAD.to_owned(), None),
            ("one", format!("{HEAD}{}", through(one, 0)), Some(one)),
            ("lowest last", format!("{HEAD}{}{}", through(one, 100), through(two, 50)), Some(two)),
            ("lowest first", format!("{HEAD}{}{}", through(one, 50), through(two, 100)), Some(one)),
            ("down", route(zero, one, 2, 0, zero), None),
            ("no gateway", route(zero, zero, 1, 0, zero), None),
            ("a network", route([10, 0, 0, 0], one, 3, 0, slash16), None),
            ("half of everything", route(zero, one, 3, 0, [128, 0, 0, 0]), None),
            ("cut short", through(one, 0)[..30].to_owned(), None),
        ] {
            assert_eq!(default_gateway_v4(&table), gateway.map(Ipv4Addr::from), "{what}");
        }
    }

    #[test]
    fn routes_of_ipv6() {
        let zero = "0".repeat(32);
        let gateway = "fd000000000000000000000000000001";
        let line = |destination: &str, length: &str, gateway: &str, metric: &str, flags: &str| {
            format!("{destination} {length} {zero} 00 {gateway} {metric} 00000001 00000000 {flags}     eth0\n")
        };
        let default = line(&zero, "00", gateway, "00000400", "00000003");
        for (what, table, found) in [
            ("one", default.clone(), Some("fd00::1")),
            ("the kernel's own, unreachable", line(&zero, "00", &zero, "ffffffff", "00200200"), None),
            ("a network", line("fd000000000000000000000000000000", "40", gateway, "00000100", "00000003"), None),
            (
                "lower",
                default + &line(&zero, "00", &gateway.replace('1', "2"), "00000100", "00000003"),
                Some("fd00::2"),
            ),
            ("too short", line(&zero, "00", "fd00", "00000100", "00000003"), None),
        ] {
            assert_eq!(default_gateway_v6(&table), found.map(|text| text.parse().unwrap()), "{what}");
        }
    }

    #[test]
    fn a_client_is_compared_by_its_canonical_address() {
        let gateways = Gateways::of(Some(Ipv4Addr::new(172, 17, 0, 1)));
        for (client, contained) in
            [("172.17.0.1", true), ("::ffff:172.17.0.1", true), ("172.17.0.2", false), ("::1", false)]
        {
            assert_eq!(gateways.contains(client.parse().unwrap()), contained, "{client}");
        }
        assert!(!Gateways::default().contains(Ipv4Addr::UNSPECIFIED.into()), "no gateway, no client of it");
    }

    #[test]
    fn the_warning_names_the_listener_the_address_and_the_three_remedies() {
        let said = warning("lan", Ipv4Addr::new(172, 17, 0, 1).into());
        for part in [
            "listener.lan: ",
            "172.17.0.1",
            "127.0.0.1 only",
            "host's network",
            "listener.lan.authentication = \"required\"",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    proptest! {
        #[test]
        fn a_gateway_is_found_among_other_routes(
            gateway in any::<[u8; 4]>(),
            metric in 0u32..1000,
            others in proptest::collection::vec((any::<[u8; 4]>(), any::<[u8; 4]>(), 1001u32..9000), 0..8),
            at in any::<usize>(),
        ) {
            let mut lines: Vec<_> =
                others.iter().map(|(to, by, metric)| route(*to, *by, 3, *metric, [255, 255, 255, 0])).collect();
            lines.insert(at % (lines.len() + 1), route([0; 4], gateway, 3, metric, [0; 4]));
            prop_assert_eq!(default_gateway_v4(&(HEAD.to_owned() + &lines.concat())), Some(gateway.into()));
        }

        #[test]
        fn no_table_is_too_strange(table in "(?s).{0,400}", words in "([0-9A-Fa-f]{1,34}[ \t]){0,24}") {
            for table in [table, words] {
                let _ = (default_gateway_v4(&table), default_gateway_v6(&table));
            }
        }
    }
}
