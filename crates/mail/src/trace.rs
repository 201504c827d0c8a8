//! The Received field of RFC 5321 section 4.4, made from what the listener saw. It takes the date as text: this crate
//! has no clock.

use std::net::IpAddr;

use crate::address::Domain;
use crate::header::{Field, FieldError};

/// What a Received field tells.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// What the client called itself in EHLO or HELO; shown only if it is a domain or literal, since clients lie.
    pub helo: &'a str,
    /// Where the client's connection came from.
    pub client: IpAddr,
    /// Our host name.
    pub by: &'a str,
    /// `SMTP`, `ESMTP`, `UTF8SMTP` and their kin (RFC 3848, RFC 6531 section 4.3).
    pub protocol: &'a str,
    /// The queue id, an atom.
    pub id: &'a str,
    /// RFC 5322 date.
    pub date: &'a str,
}

impl Received<'_> {
    /// The field. Fails only if a part holds control characters.
    pub fn field(&self) -> Result<Field, FieldError> {
        let helo = domain_or_literal(self.helo).unwrap_or("unknown");
        let client = match self.client.to_canonical() {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        };
        Field::new("Received", &format!("from {helo} ({client}) {}", self.rest()))
    }

    /// The field without a word about the client. RFC 5321 section 4.4 wants a name after FROM, but any other than the
    /// client's would be a lie; RFC 5322 section 3.6.7 and what reads the field do without.
    pub fn field_without_client(&self) -> Result<Field, FieldError> {
        Field::new("Received", &self.rest())
    }

    fn rest(&self) -> String {
        let Self { by, protocol, id, date, .. } = self;
        format!("by {by} with {protocol} id {id}; {date}")
    }
}

/// `text` if it is a domain name or an address literal that may be written into a header.
pub fn domain_or_literal(text: &str) -> Option<&str> {
    Domain::parse(text).ok().map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::HeaderBlock;

    #[test]
    fn the_field_names_client_host_protocol_and_id() {
        let mut received = Received {
            helo: "erp01.local",
            client: "192.0.2.7".parse().unwrap(),
            by: "relay01.example.com",
            protocol: "ESMTP",
            id: "1-2A",
            date: "Sat, 21 Nov 2026 08:34:00 +0000",
        };
        let mut header = HeaderBlock::parse(Vec::new());
        header.prepend(&received.field().unwrap());
        assert_eq!(
            String::from_utf8_lossy(header.as_bytes()),
            "Received: from erp01.local ([192.0.2.7]) by relay01.example.com with ESMTP id\r\n\t\
             1-2A; Sat, 21 Nov 2026 08:34:00 +0000\r\n"
        );
        let mut header = HeaderBlock::parse(Vec::new());
        header.prepend(&received.field_without_client().unwrap());
        assert_eq!(
            String::from_utf8_lossy(header.as_bytes()),
            "Received: by relay01.example.com with ESMTP id 1-2A; Sat, 21 Nov 2026 08:34:00\r\n\t+0000\r\n"
        );
        received.helo = "evil (comment\r\nX: y";
        received.client = "::1".parse().unwrap();
        let mut header = HeaderBlock::parse(Vec::new());
        header.prepend(&received.field().unwrap());
        assert!(header.as_bytes().starts_with(b"Received: from unknown ([IPv6:::1]) by relay01"));
    }
}
