//! What a submission server adds to a header (RFC 6409 section 8), and how a loop is known. Pure: id and date are given.

use clock::WallTime;
use mail::{Field, FieldError, ForwardPath, HeaderBlock, OriginalRecipient, Received, Recipient};
use smtp_server::Client;
use spool::QueueId;

use super::repair::{self, Repair};
use crate::config::ReceivedDetail;

/// More Received fields than this are a loop (RFC 5321 section 6.3 asks for at least 100).
const MAX_HOPS: usize = 100;
/// More Received fields of our own name than this are a loop: each is a way through Exchange and back, for which no
/// configuration has a use. Two listeners of one relay, a mailbox that forwards to a program that submits again, and relays
/// that were given the same name in a row need a few.
const MAX_OWN_HOPS: usize = 10;
/// Characters of a Message-ID that are logged and kept in the history; the header keeps all of it.
const MAX_TRACE_KEY: usize = 250;

/// What makes this acceptance this one.
pub(crate) struct Stamp {
    /// Its queue id.
    id: String,
    /// When, as RFC 5322 writes it.
    date: String,
    /// The same in milliseconds since 1970.
    millis: i64,
}

impl Stamp {
    /// Of the message `id`, accepted `at` this time.
    pub(crate) fn new(id: QueueId, at: WallTime) -> Self {
        Self { id: id.to_string(), date: at.rfc5322(), millis: at.unix_millis() }
    }
}

/// Where it is accepted.
pub(super) struct Place<'a> {
    /// Our name.
    pub(super) hostname: &'a str,
    /// What the Received field tells of the client.
    pub(super) received: ReceivedDetail,
}

/// A header as it is stored.
pub(crate) struct Completed {
    /// With all that it must have.
    pub(crate) header: HeaderBlock,
    /// Its Message-ID for logs and history.
    pub(crate) message_id: String,
    /// What became of a Date that nobody understands.
    pub(crate) date_repair: Option<Repair>,
}

/// Adds Received, and Date and Message-ID where they are missing; a Date that nobody understands is replaced.
pub(super) fn complete(
    mut header: HeaderBlock,
    stamp: &Stamp,
    client: &Client,
    smtputf8: bool,
    place: &Place<'_>,
) -> Result<Completed, FieldError> {
    let Stamp { id, date, millis } = stamp;
    let hostname = place.hostname;
    let date_repair = repair::repair_date(&mut header, date)?;
    if !header.has("Date") {
        header.append(&Field::new("Date", date)?);
    }
    let message_id = if let Some(value) = header.value("Message-ID") {
        trace_key(value)
    } else {
        let message_id = format!("<{id}.{millis}@{hostname}>");
        header.append(&Field::new("Message-ID", &message_id)?);
        message_id
    };
    let protocol = client.protocol(smtputf8);
    let received = Received { helo: &client.helo, client: client.address(), by: hostname, protocol, id, date };
    header.prepend(&match place.received {
        ReceivedDetail::Full => received.field()?,
        ReceivedDetail::Minimal => received.field_without_client()?,
    });
    Ok(Completed { header, message_id, date_repair })
}

/// Whether the message has been handed on too often, or by us.
pub(super) fn is_in_a_loop(header: &HeaderBlock, hostname: &str) -> bool {
    let (mut all, mut own) = (0, 0);
    for value in header.values("Received") {
        all += 1;
        own += usize::from(is_by(value, hostname));
    }
    all > MAX_HOPS || own > MAX_OWN_HOPS
}

/// Whether a Received field names us as the one who received.
fn is_by(value: &[u8], hostname: &str) -> bool {
    let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.any(|word| word.eq_ignore_ascii_case(b"by"))
        && words
            .next()
            .is_some_and(|word| word.strip_suffix(b";").unwrap_or(word).eq_ignore_ascii_case(hostname.as_bytes()))
}

/// A Message-ID for logs and history: clients put anything there, of any length.
fn trace_key(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().filter(|c| !c.is_control()).take(MAX_TRACE_KEY).collect()
}

/// The recipient at its address behind maps and redirection. Whoever reads a report of it knows the address that the client
/// gave (RFC 3461 section 5.2.1).
pub(crate) fn readdressed(given: Recipient, path: ForwardPath) -> Recipient {
    if given.path == path || matches!(given.path, ForwardPath::Postmaster) {
        return Recipient { path, ..given };
    }
    let original = given.original.or_else(|| OriginalRecipient::of(&given.path));
    Recipient { path, original, ..given }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sat, 21 Nov 2026 07:54:00 +0000";

    fn completed(header: &str, received: ReceivedDetail) -> (String, String) {
        let client = Client {
            session: 1,
            listener: "local".into(),
            peer: "192.0.2.1:1000".parse().unwrap(),
            proxy: None,
            helo: "erp01".into(),
            esmtp: true,
            tls: Some("TLSv1.3"),
            user: Some("erp".into()),
        };
        let stamp = Stamp { id: "1-2".into(), date: DATE.into(), millis: 7 };
        let block = HeaderBlock::parse(header.as_bytes().to_vec());
        let place = Place { hostname: "relay.test", received };
        let completed = complete(block, &stamp, &client, false, &place).unwrap();
        (String::from_utf8(completed.header.into_bytes()).unwrap(), completed.message_id)
    }

    #[test]
    fn a_whole_header_gains_only_its_received_field() {
        let header = format!("From: a@b\r\nDate: {DATE}\r\nMessage-ID: <1@b>\r\n");
        let received = "Received: from erp01 ([192.0.2.1]) by relay.test with ESMTPSA id 1-2; Sat, 21\r\n\tNov 2026 07:54:00 +0000\r\n";
        assert_eq!(completed(&header, ReceivedDetail::Full), (format!("{received}{header}"), "<1@b>".to_owned()));
    }

    #[test]
    fn the_received_field_need_not_tell_of_the_client() {
        let (header, _) = completed("Subject: x\r\n", ReceivedDetail::Minimal);
        assert!(
            header
                .starts_with("Received: by relay.test with ESMTPSA id 1-2; Sat, 21 Nov 2026 07:54:00 +0000\r\nSubject"),
            "{header}"
        );
        assert!(!header.contains("erp01") && !header.contains("192.0.2.1"), "{header}");
    }

    #[test]
    fn what_is_missing_is_made() {
        let made = format!("Date: {DATE}\r\nMessage-ID: <1-2.7@relay.test>\r\n");
        let (header, message_id) = completed("Subject: x\r\n", ReceivedDetail::Full);
        assert!(header.ends_with(&format!("\r\nSubject: x\r\n{made}")), "{header}");
        assert_eq!(message_id, "<1-2.7@relay.test>");
    }

    #[test]
    fn loops_are_known_by_the_number_of_hops_and_sooner_by_our_own() {
        let own = "Received: from a (by x)\r\n\tby RELAY.test; today\r\n";
        let minimal = "Received: by relay.test with ESMTP id 1; today\r\n";
        let other = "Received: from relay.test by other.test; today\r\n";
        for (header, is_in_a_loop) in [
            (own.repeat(MAX_OWN_HOPS), false),
            (own.repeat(MAX_OWN_HOPS) + minimal, true),
            (other.repeat(MAX_HOPS), false),
            (other.repeat(MAX_HOPS + 1), true),
            (String::new(), false),
        ] {
            let block = HeaderBlock::parse(header.clone().into_bytes());
            assert_eq!(super::is_in_a_loop(&block, "relay.test"), is_in_a_loop, "{header}");
        }
    }

    #[test]
    fn a_trace_key_is_one_short_line() {
        assert_eq!(trace_key(b" <1@b>\r\n"), "<1@b>");
        assert_eq!(trace_key(b" \x1b[31m<1@b>\r\n\t(folded)\r\n"), "[31m<1@b> (folded)");
        assert_eq!(trace_key(&[b'x'; 10_000]).len(), MAX_TRACE_KEY);
    }

    #[test]
    fn a_recipient_at_another_address_keeps_the_one_that_was_given() {
        let path = |text: &str| ForwardPath::parse(text.as_bytes()).unwrap();
        let said = OriginalRecipient::parse("rfc822;x@y.z").ok();
        for (given, original, now, becomes) in [
            ("a@b.c", None, "a@b.c", None),
            ("a@b.c", None, "d@e.f", Some("rfc822;a@b.c")),
            ("a+b@b.c", None, "d@e.f", Some("rfc822;a+2Bb@b.c")),
            ("a@b.c", said.clone(), "d@e.f", Some("rfc822;x@y.z")),
            ("postmaster", None, "postmaster@contoso.com", None),
        ] {
            let asked = Recipient { path: path(given), notify: Some(mail::Notify::NEVER), original };
            let found = readdressed(asked.clone(), path(now));
            assert_eq!((found.path, found.notify), (path(now), asked.notify));
            assert_eq!(found.original.map(|original| original.to_string()).as_deref(), becomes, "{given}");
        }
    }
}
