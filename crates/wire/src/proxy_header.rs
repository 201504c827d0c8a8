//! The header by which a load balancer says whose connection it passes on: PROXY protocol, version 1 (text) and version 2
//! (binary), as haproxy.org/download/2.8/doc/proxy-protocol.txt has it. Fields are read by ppp once a header is whole; how
//! much may be read for it, and what of it counts, is decided here. Whether the peer is believed is the caller's question.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// Longest header of version 1 with its CRLF, as the specification bounds it.
const MAX_V1_LEN: usize = 107;
/// Start of version 1, up to the blank that a command named so would have to have too.
const V1_START: &[u8] = b"PROXY ";
/// Signature, command, family and length of version 2.
const V2_FIXED_LEN: usize = 16;
/// Most octets of addresses and extensions in version 2. They are a few hundred at most in practice (a TLS client's name
/// among them); the specification asks receivers to be ready for 536.
const MAX_V2_VARIABLE_LEN: usize = 2048;
/// Octets of the signature of version 2 that no mail client begins with: CR LF CR LF NUL.
const V2_TELLING_LEN: usize = 5;

/// Reads PROXY headers.
#[derive(Clone, Copy, Debug)]
pub struct ProxyHeader;

/// How far a header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProgress {
    /// So far it may become one; nothing is consumed. At most 2,064 octets are ever asked for.
    Incomplete,
    /// A whole header.
    Done {
        /// Octets to drop from the input: what follows are the client's own.
        consumed: usize,
        /// Who connected to the proxy, IPv4-mapped addresses as IPv4. None if the proxy speaks for itself (health checks)
        /// or does not know: the connection's own address counts.
        source: Option<SocketAddr>,
    },
    /// It will never become one, whatever follows.
    Refused(ProxyError),
}

/// Why a connection has no valid PROXY header. Holds nothing of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The first octets are something else, most often SMTP.
    #[error("the connection does not start with a PROXY header: let the load balancer send one, or do not require it")]
    Missing,
    /// More octets than any header needs.
    #[error("the PROXY header is longer than {limit} octets: let the load balancer send fewer extensions")]
    TooLong {
        /// Most octets of a header of this version.
        limit: usize,
    },
    /// A text header with a wrong part.
    #[error("the PROXY header (version 1) is broken: {0}")]
    Version1(&'static str),
    /// A binary header with a wrong part.
    #[error("the PROXY header (version 2) is broken: {0}")]
    Version2(&'static str),
}

impl ProxyHeader {
    /// Looks at the first octets of a connection. Call it again with these and more while it is incomplete; the answer does
    /// not depend on how the octets arrive.
    pub fn read(input: &[u8]) -> ProxyProgress {
        if starts_alike(input, V1_START) {
            version_1(input)
        } else if starts_alike(input, v2::PROTOCOL_PREFIX) {
            version_2(input)
        } else {
            ProxyProgress::Refused(ProxyError::Missing)
        }
    }
}

/// Whether the first octets of a connection are the start of a PROXY header: for one whose header is not believed, and which
/// must not be answered as if these were commands. False as long as they may be anything else.
pub fn starts_like_proxy_header(input: &[u8]) -> bool {
    input.starts_with(V1_START) || (input.len() >= V2_TELLING_LEN && starts_alike(input, v2::PROTOCOL_PREFIX))
}

/// Whether the shorter of both is the start of the other.
fn starts_alike(input: &[u8], start: &[u8]) -> bool {
    input.iter().zip(start).all(|(octet, wanted)| octet == wanted)
}

/// ppp sees only whole lines: of a line that ends within the last port it says that the port is wrong.
fn version_1(input: &[u8]) -> ProxyProgress {
    let start = &input[..input.len().min(MAX_V1_LEN)];
    let Some(end) = memchr::memchr(b'\n', start) else {
        return if input.len() < MAX_V1_LEN {
            ProxyProgress::Incomplete
        } else {
            ProxyProgress::Refused(ProxyError::TooLong { limit: MAX_V1_LEN })
        };
    };
    match version_1_source(&input[..=end]) {
        Ok(source) => ProxyProgress::Done { consumed: end + 1, source },
        Err(reason) => ProxyProgress::Refused(ProxyError::Version1(reason)),
    }
}

fn version_1_source(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    let inner = line.strip_suffix(b"\r\n").ok_or("it does not end in CRLF")?;
    // What follows this word is to be ignored, whatever it is; ppp takes only so many parts of it.
    if inner == b"PROXY UNKNOWN" || inner.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    // ppp's own texts hold line ends, and its errors parts of the input.
    let header = v1::Header::try_from(line).map_err(|error| match error {
        v1::BinaryParseError::Parse(error) => wrong_part(&error),
        v1::BinaryParseError::InvalidUtf8(_) => "it is not text",
    })?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(pair) => Some(canonical(pair.source_address.into(), pair.source_port)),
        v1::Addresses::Tcp6(pair) => Some(canonical(pair.source_address.into(), pair.source_port)),
    })
}

fn wrong_part(error: &v1::ParseError) -> &'static str {
    match error {
        v1::ParseError::InvalidProtocol | v1::ParseError::MissingProtocol | v1::ParseError::Partial => {
            "the protocol is neither TCP4, TCP6 nor UNKNOWN"
        }
        v1::ParseError::InvalidSourceAddress(_) => "the source address is not one",
        v1::ParseError::InvalidDestinationAddress(_) => "the destination address is not one",
        v1::ParseError::InvalidSourcePort(_) => "the source port is not one",
        v1::ParseError::InvalidDestinationPort(_) => "the destination port is not one",
        _ => "it is not \"PROXY protocol source destination port port\"",
    }
}

/// The bound is checked before ppp waits for up to 64 KiB. The command LOCAL is read here: its family and addresses are to
/// be ignored, and ppp refuses one whose family does not fit its length.
fn version_2(input: &[u8]) -> ProxyProgress {
    let Some(&[.., version_and_command, _, high, low]) = input.first_chunk::<V2_FIXED_LEN>() else {
        return ProxyProgress::Incomplete;
    };
    let variable = usize::from(u16::from_be_bytes([high, low]));
    if variable > MAX_V2_VARIABLE_LEN {
        return ProxyProgress::Refused(ProxyError::TooLong { limit: V2_FIXED_LEN + MAX_V2_VARIABLE_LEN });
    }
    let consumed = V2_FIXED_LEN + variable;
    let whole = input.get(..consumed);
    if version_and_command == v2::Version::Two | v2::Command::Local {
        return whole.map_or(ProxyProgress::Incomplete, |_| ProxyProgress::Done { consumed, source: None });
    }
    match v2::Header::try_from(whole.unwrap_or(input)) {
        Ok(header) => match version_2_source(&header) {
            Ok(source) => ProxyProgress::Done { consumed, source },
            Err(reason) => ProxyProgress::Refused(ProxyError::Version2(reason)),
        },
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => ProxyProgress::Incomplete,
        Err(error) => ProxyProgress::Refused(ProxyError::Version2(match error {
            v2::ParseError::Version(_) => "the version is not 2",
            v2::ParseError::Command(_) => "the command is neither LOCAL nor PROXY",
            v2::ParseError::AddressFamily(_) | v2::ParseError::Protocol(_) => "the address family is unknown",
            _ => "the addresses do not fit its length",
        })),
    }
}

fn version_2_source(header: &v2::Header<'_>) -> Result<Option<SocketAddr>, &'static str> {
    match (header.protocol, header.addresses) {
        // A mail client that came by UDP: the proxy means another connection than this one.
        (v2::Protocol::Datagram, _) => Err("it speaks of datagrams"),
        (v2::Protocol::Unspecified, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Ok(None),
        (_, v2::Addresses::IPv4(pair)) => Ok(Some(canonical(pair.source_address.into(), pair.source_port))),
        (_, v2::Addresses::IPv6(pair)) => Ok(Some(canonical(pair.source_address.into(), pair.source_port))),
    }
}

/// A proxy that listens on IPv6 for both families writes mapped addresses; networks are configured as IPv4.
fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x09, 0xdd];

    fn ipv6(source: &str) -> Vec<u8> {
        let source: std::net::Ipv6Addr = source.parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0x30, 0x39, 0x09, 0xdd]].concat()
    }

    /// A header of version 2.
    fn binary(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let len = u16::try_from(variable.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &len, variable].concat()
    }

    /// Every shorter start is incomplete, and what follows is neither read nor consumed.
    #[track_caller]
    fn assert_source(header: &[u8], source: Option<&str>) {
        let source = source.map(|source| source.parse().unwrap());
        let done = ProxyProgress::Done { consumed: header.len(), source };
        for end in 0..header.len() {
            assert_eq!(ProxyHeader::read(&header[..end]), ProxyProgress::Incomplete, "{end} octets");
        }
        for rest in [&b""[..], b"EHLO x\r\n", b"\r\n", b" \0\xff", &[b'x'; 7000]] {
            assert_eq!(ProxyHeader::read(&[header, rest].concat()), done);
        }
        assert!(starts_like_proxy_header(header));
    }

    /// Once refused it stays so, and before that it was incomplete.
    #[track_caller]
    fn assert_refused(input: &[u8], error: ProxyError) {
        let refused = ProxyProgress::Refused(error);
        let first = (0..=input.len()).find(|end| ProxyHeader::read(&input[..*end]) != ProxyProgress::Incomplete);
        for end in first.expect("not refused")..=input.len() {
            assert_eq!(
                ProxyHeader::read(&input[..end]),
                refused,
                "{end} octets of {:?}",
                String::from_utf8_lossy(input)
            );
        }
    }

    #[test]
    fn headers_of_version_1() {
        for (header, source) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 12345 2525\r\n", Some("192.0.2.7:12345")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", Some("[2001:db8::7]:1")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 12345 2525\r\n", Some("192.0.2.7:12345")),
            ("PROXY TCP6 ::1 ::1 0 0\r\n", Some("[::1]:0")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN \r\n", None),
            ("PROXY UNKNOWN anything a b c d e f g h\r\n", None),
            (
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                None,
            ),
        ] {
            assert_source(header.as_bytes(), source);
        }
        assert_source(&[&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat(), None);
    }

    #[test]
    fn headers_of_version_2() {
        assert_source(&binary(0x21, 0x11, &IPV4), Some("192.0.2.7:12345"));
        assert_source(&binary(0x21, 0x21, &ipv6("2001:db8::7")), Some("[2001:db8::7]:12345"));
        assert_source(&binary(0x21, 0x21, &ipv6("::ffff:192.0.2.7")), Some("192.0.2.7:12345"));
        // With extensions, broken ones too, up to the bound.
        assert_source(&binary(0x21, 0x11, &[&IPV4[..], b"\x04\0\x01x"].concat()), Some("192.0.2.7:12345"));
        assert_source(&binary(0x21, 0x11, &[&IPV4[..], b"\x04\xff\xffx"].concat()), Some("192.0.2.7:12345"));
        assert_source(&binary(0x21, 0x11, &[&IPV4[..], &[0; 2036]].concat()), Some("192.0.2.7:12345"));
        // The proxy itself, whatever stands behind it; and what is not known.
        assert_source(&binary(0x20, 0x00, b""), None);
        assert_source(&binary(0x20, 0x11, &IPV4), None);
        assert_source(&binary(0x20, 0x21, b"short"), None);
        assert_source(&binary(0x20, 0xff, b""), None);
        assert_source(&binary(0x21, 0x00, b""), None);
        assert_source(&binary(0x21, 0x00, &[7; 2048]), None);
        assert_source(&binary(0x21, 0x10, &IPV4), None);
        assert_source(&binary(0x21, 0x31, &[b'/'; 216]), None);
    }

    #[test]
    fn what_is_no_header() {
        for input in
            ["EHLO x\r\n", "PROXYTCP4 ", "proxy TCP4 ", "\r\nEHLO", "\r\n\r\n\r\n", "\n", " PROXY", "\0", "PRI * "]
        {
            assert_refused(input.as_bytes(), ProxyError::Missing);
            assert!(!starts_like_proxy_header(input.as_bytes()), "{input:?}");
        }
        let v1 = ProxyError::Version1;
        let form = "it is not \"PROXY protocol source destination port port\"";
        for (input, error) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 12345 2525\n", v1("it does not end in CRLF")),
            ("PROXY \r\n", v1("the protocol is neither TCP4, TCP6 nor UNKNOWN")),
            ("PROXY  TCP4 192.0.2.7 10.0.0.1 1 2\r\n", v1("the protocol is neither TCP4, TCP6 nor UNKNOWN")),
            ("PROXY UNKN\r\n", v1("the protocol is neither TCP4, TCP6 nor UNKNOWN")),
            ("PROXY UNKNOWNS\r\n", v1("the protocol is neither TCP4, TCP6 nor UNKNOWN")),
            ("PROXY tcp4 192.0.2.7 10.0.0.1 1 2\r\n", v1("the protocol is neither TCP4, TCP6 nor UNKNOWN")),
            ("PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n", v1("the source address is not one")),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", v1("the source address is not one")),
            ("PROXY TCP4 0192.0.2.7 10.0.0.1 1 2\r\n", v1("the source address is not one")),
            ("PROXY TCP6 ::1%eth0 ::1 1 2\r\n", v1("the source address is not one")),
            ("PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n", v1("the source address is not one")),
            ("PROXY TCP4 192.0.2.7 x 1 2\r\n", v1("the destination address is not one")),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n", v1("the source port is not one")),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n", v1("the source port is not one")),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 1 -2\r\n", v1("the destination port is not one")),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n", v1("the destination port is not one")),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n", v1(form)),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n", v1(form)),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\r\n", v1(form)),
            ("PROXY TCP4 192.0.2.7 10.0.0.1 1 2\rMAIL\r\n", v1(form)),
            ("PROXY TCP4\r\n", v1(form)),
            ("PROXY TCP4 192.0.2.7 10.0.0.1\r\n", v1(form)),
        ] {
            assert_refused(input.as_bytes(), error);
        }
        assert_refused(b"PROXY TCP4 \xff\r\n", v1("it is not text"));
        let too_long = ProxyError::TooLong { limit: 107 };
        assert_refused(&[&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(), too_long);
        assert_refused(&[&b"PROXY "[..], &[b'x'; 7000]].concat(), too_long);
    }

    #[test]
    fn what_is_no_header_of_version_2() {
        let v2 = ProxyError::Version2;
        for (input, error) in [
            (binary(0x11, 0x11, &IPV4), v2("the version is not 2")),
            (binary(0x00, 0x00, b""), v2("the version is not 2")),
            (binary(0x22, 0x11, &IPV4), v2("the command is neither LOCAL nor PROXY")),
            (binary(0x21, 0x41, &IPV4), v2("the address family is unknown")),
            (binary(0x21, 0x13, &IPV4), v2("the address family is unknown")),
            (binary(0x21, 0x12, &IPV4), v2("it speaks of datagrams")),
            (binary(0x21, 0x11, &IPV4[..11]), v2("the addresses do not fit its length")),
            (binary(0x21, 0x21, &IPV4), v2("the addresses do not fit its length")),
            (binary(0x21, 0x31, &[0; 215]), v2("the addresses do not fit its length")),
            (binary(0x21, 0x11, &[0; 2049]), ProxyError::TooLong { limit: 2064 }),
            (binary(0x20, 0x00, &[0; 2049]), ProxyError::TooLong { limit: 2064 }),
        ] {
            assert_refused(&input, error);
        }
    }

    #[test]
    fn the_start_of_one_is_told_from_commands() {
        for (input, starts) in [
            (&b"PROXY "[..], true),
            (b"PROXY TCP4 garbage", true),
            (b"PROXY", false),
            (b"PROXY\r\n", false),
            (b"", false),
            (b"\r\n\r\n", false),
            (b"\r\n\r\n\0", true),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", true),
            (b"\r\n\r\n\0QUIT", false),
        ] {
            assert_eq!(starts_like_proxy_header(input), starts, "{:?}", String::from_utf8_lossy(input));
        }
    }

    fn inputs() -> impl Strategy<Value = Vec<u8>> {
        let text = "PROXY (TCP4|TCP6|UNKNOWN|TCP)( [0-9.:a-f]{0,12}){0,5}[ \r\n]{0,3}".prop_map(String::into_bytes);
        let binary = (0x1fu8..0x23, 0u8..0x40, proptest::collection::vec(any::<u8>(), 0..240), -40i32..40).prop_map(
            |(command, family, variable, off)| {
                let mut header = binary(command, family, &variable);
                let len = u16::try_from(i32::try_from(variable.len()).unwrap().saturating_add(off).max(0)).unwrap();
                header[14..16].copy_from_slice(&len.to_be_bytes());
                header
            },
        );
        prop_oneof![text, binary, proptest::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        #[test]
        fn the_answer_is_the_same_however_it_arrives(input in inputs(), rest in proptest::collection::vec(any::<u8>(), 0..9)) {
            let input = [input, rest].concat();
            let whole = ProxyHeader::read(&input);
            for end in 0..input.len() {
                let early = ProxyHeader::read(&input[..end]);
                prop_assert!(early == ProxyProgress::Incomplete || early == whole, "{end}: {early:?}, {whole:?}");
                if let ProxyProgress::Done { consumed, .. } = whole {
                    prop_assert_eq!(early == whole, end >= consumed);
                }
            }
        }
    }
}
