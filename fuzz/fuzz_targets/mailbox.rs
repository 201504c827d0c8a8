//! An address is kept as it was written, in one line that no terminal or log acts on, and reads the same as a mailbox,
//! as either path, in brackets, and split in its two parts; an EHLO name that is a domain fits a Received field.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{Domain, ForwardPath, LocalPart, Mailbox, Received, ReversePath, domain_or_literal};

fuzz_target!(|octets: &[u8]| {
    if let Ok(mailbox) = Mailbox::parse(octets) {
        check_mailbox(octets, &mailbox);
    }
    if let Ok(path) = ReversePath::parse(octets) {
        assert_eq!(ReversePath::parse(path.to_string().as_bytes()), Ok(path));
    }
    if let Ok(path) = ForwardPath::parse(octets) {
        assert_eq!(ForwardPath::parse(path.to_string().as_bytes()), Ok(path));
    }
    if let Ok(sender) = LocalPart::parse(octets) {
        let host = Domain::parse("relay.test").unwrap();
        let path = ReversePath::qualified(&sender, &host);
        assert_eq!(ReversePath::parse(path.to_string().as_bytes()), Ok(path));
        assert!(Mailbox::parse(octets).is_err());
    }
    if let Some(helo) = std::str::from_utf8(octets).ok().and_then(domain_or_literal) {
        let client = [192, 0, 2, 1].into();
        let received = Received { helo, client, by: "here", protocol: "ESMTP", id: "1", date: "today" };
        assert!(received.field().is_ok());
    }
});

fn check_mailbox(octets: &[u8], mailbox: &Mailbox) {
    let text = mailbox.to_string();
    assert_eq!(text.as_bytes(), octets);
    assert!(!text.contains(is_acted_on));
    assert_eq!(mailbox.is_ascii(), octets.is_ascii());
    assert_eq!(format!("{}@{}", mailbox.local_part(), mailbox.domain()), text);
    assert_eq!(Domain::parse(mailbox.domain().as_str()).as_ref(), Ok(mailbox.domain()));
    assert_eq!(ReversePath::parse(octets), Ok(ReversePath::Mailbox(mailbox.clone())));
    assert_eq!(ForwardPath::parse(octets), Ok(ForwardPath::Mailbox(mailbox.clone())));
}

/// Line and paragraph ends and what turns the direction of text, so that a log shows another address than was used.
fn is_acted_on(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
