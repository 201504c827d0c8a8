//! Tells the first octets of a TLS client from those of a mail client, so that the log can say that a device speaks TLS to a
//! port that begins in plain text. A hint from five octets: no handshake is read here.

/// What a TLS client began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsHello {
    /// A handshake record of SSL 3.0 or any TLS. Its version says nothing: TLS 1.3 writes 1.0 here too.
    Record,
    /// A hello in the form of SSL 2.0, as devices of before 2005 send it to offer up to TLS 1.0.
    Sslv2,
}

/// Looks at the first octets of a connection: three tell a record, five a hello of SSL 2.0. None for anything else and
/// for fewer octets. No command of SMTP can begin so: both hold control octets.
pub fn looks_like_tls(input: &[u8]) -> Option<TlsHello> {
    match input {
        [0x16, 0x03, 0x00..=0x04, ..] => Some(TlsHello::Record),
        // Length with the high bit set, client-hello, version 2 or 3.x.
        [0x80..=0xff, _, 0x01, 0x00, 0x02, ..] | [0x80..=0xff, _, 0x01, 0x03, 0x00..=0x03, ..] => Some(TlsHello::Sslv2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_octets() {
        for (input, hello) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], Some(TlsHello::Record)),
            (b"\x16\x03\x00", Some(TlsHello::Record)),
            (b"\x16\x03\x03", Some(TlsHello::Record)),
            (b"\x80\x2e\x01\x03\x01\x00\x15", Some(TlsHello::Sslv2)),
            (b"\x80\x1c\x01\x00\x02", Some(TlsHello::Sslv2)),
            (b"", None),
            (b"\x16\x03", None),
            (b"\x16\x04\x01", None),
            // An alert, application data.
            (b"\x15\x03\x01", None),
            (b"\x17\x03\x01", None),
            (b"\x80\x2e\x01\x03", None),
            (b"\x80\x2e\x02\x03\x01", None),
            (b"EHLO x\r\n", None),
            (b"\xc3\xa9hlo\r\n", None),
        ] {
            assert_eq!(looks_like_tls(input), hello, "{input:?}");
        }
    }
}
