//! The answer to the start of a connection is the same whatever the pieces: incomplete, and from some octet on a header or a
//! refusal that stays. It comes within the bound, reads nothing behind the header, and holds nothing a log would act on.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use wire::{ProxyHeader, ProxyProgress, looks_like_tls, starts_like_proxy_header};

/// 16 octets and 2,048 of addresses and extensions: no later is anything decided.
const MAX_LEN: usize = 2064;

fuzz_target!(|input: &[u8]| {
    let answer = ProxyHeader::read(input);
    let decided = (0..=input.len()).find(|end| ProxyHeader::read(&input[..*end]) != ProxyProgress::Incomplete);
    for end in 0..=input.len().min(MAX_LEN + 1) {
        let early = decided.is_none_or(|decided| end < decided);
        assert_eq!(ProxyHeader::read(&input[..end]), if early { ProxyProgress::Incomplete } else { answer });
    }
    match answer {
        ProxyProgress::Incomplete => assert!(input.len() < MAX_LEN),
        ProxyProgress::Done { consumed, source } => {
            assert_eq!(decided, Some(consumed));
            assert!(consumed <= MAX_LEN && starts_like_proxy_header(&input[..consumed]));
            check_source(source, &input[..consumed]);
            for other in [0, b'\r', b'\n', b' ', 0xff] {
                let rest = vec![other; 20];
                assert_eq!(ProxyHeader::read(&[&input[..consumed], &rest].concat()), answer);
            }
        }
        ProxyProgress::Refused(error) => {
            assert!(decided.is_some_and(|decided| decided <= MAX_LEN));
            assert!(!error.to_string().contains(char::is_control));
        }
    }
    assert!(looks_like_tls(input).is_none() || !starts_like_proxy_header(input));
});

/// The address is what another reading of the header finds.
fn check_source(source: Option<SocketAddr>, header: &[u8]) {
    if let Some(source) = source {
        assert_eq!(source.ip(), source.ip().to_canonical());
    }
    if let Some(text) = header.strip_suffix(b"\r\n").filter(|text| text.starts_with(b"PROXY ")) {
        let text = String::from_utf8_lossy(text);
        let mut words = text.split(' ').skip(1);
        let is_known = words.next() != Some("UNKNOWN");
        let read = || {
            let address: std::net::IpAddr = words.next()?.parse().ok()?;
            let port = words.nth(1)?.parse().ok()?;
            Some(SocketAddr::new(address.to_canonical(), port))
        };
        assert_eq!(source, is_known.then(read).flatten());
        assert_eq!(source.is_some(), is_known);
        return;
    }
    let address = match (header[12], header[13]) {
        (0x21, 0x11) => <[u8; 4]>::try_from(&header[16..20]).ok().map(|octets| (octets.into(), 24)),
        (0x21, 0x21) => <[u8; 16]>::try_from(&header[16..32]).ok().map(|octets| (octets.into(), 48)),
        _ => None,
    };
    let expected = address.map(|(address, at): (std::net::IpAddr, usize)| {
        SocketAddr::new(address.to_canonical(), u16::from_be_bytes([header[at], header[at + 1]]))
    });
    assert_eq!(source, expected);
}
