//! Whatever strangers wrote, a report is one message of three parts that any server takes.

use mail::report::{Content, Digest, DigestEntry, Fate, Kind, Letter, Notice, Report};
use mail::{
    BodyType, Diagnostic, EnhancedCode, Envelope, EnvelopeId, ForwardPath, HeaderBlock, Mailbox, MessageId,
    OriginalRecipient, Recipient, Ret, ReversePath,
};
use proptest::prelude::*;

use crate::reading::{Entity, fields, octets};

/// Text of strangers: line ends, boundaries, fields, characters that turn text, words without end.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~]{0,40}",
        "\\PC{0,20}",
        Just("\r\n".to_owned()),
        Just("\n\r\nBcc: eve@x.example\r\n\r\n".to_owned()),
        Just("\r\n--=_1-2A.".to_owned()),
        Just("\r\n.\r\n".to_owned()),
        Just("\u{202e}\u{2028}\0\u{85}".to_owned()),
        Just("=?utf-8?Q?a=0D=0ABcc:_eve?=".to_owned()),
        Just("x".repeat(1200)),
        Just("ß€😀 ".repeat(150)),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn mailbox() -> impl Strategy<Value = Mailbox> {
    prop_oneof![
        "[a-z0-9.+]{1,20}@[a-z]{1,10}\\.example",
        "\"[ -~]{0,100}\"@[a-z]{1,10}\\.example",
        "[a-zäß€😀]{1,30}@[a-zü]{1,60}\\.example",
    ]
    .prop_filter_map("a mailbox", |text| Mailbox::parse(text.as_bytes()).ok())
}

fn recipient() -> impl Strategy<Value = Recipient> {
    (prop::option::weighted(0.9, mailbox()), prop::option::of("rfc822;[!-~]{1,100}")).prop_map(|(mailbox, original)| {
        Recipient {
            original: original.and_then(|original| OriginalRecipient::parse(&original).ok()),
            ..mailbox.map_or(ForwardPath::Postmaster, ForwardPath::Mailbox).into()
        }
    })
}

fn diagnostic() -> impl Strategy<Value = Diagnostic> {
    (prop::option::of(200u16..600), prop::option::of((2u8..6, 0u16..1000, 0u16..1000)), text()).prop_map(
        |(code, enhanced, text)| Diagnostic {
            code,
            enhanced: enhanced.map(|(class, subject, detail)| EnhancedCode::new(class, subject, detail)),
            text,
        },
    )
}

#[derive(Clone, Debug)]
struct Told {
    recipient: Recipient,
    reply: Diagnostic,
    texts: [Option<String>; 5],
}

fn told() -> impl Strategy<Value = Told> {
    let texts = prop::array::uniform5(prop::option::weighted(0.3, text()));
    (recipient(), diagnostic(), texts).prop_map(|(recipient, reply, texts)| Told { recipient, reply, texts })
}

impl Told {
    fn fate(&self) -> Fate<'_> {
        let [remote_mta, reason, remedy, last_attempt, will_retry_until] = &self.texts;
        Fate {
            recipient: &self.recipient,
            reply: &self.reply,
            remote_mta: remote_mta.as_deref(),
            reason: reason.as_deref(),
            remedy: remedy.as_deref(),
            last_attempt: last_attempt.as_deref(),
            will_retry_until: will_retry_until.as_deref(),
        }
    }
}

/// A stored header block: lines with CRLF, whatever stands in them.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "(Subject|Message-ID|X-A): [ -~]{0,80}".prop_map(String::into_bytes),
        "Subject: [ -~ß€😀]{1,200}".prop_map(String::into_bytes),
        "[ -~]{1,80}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>().prop_filter("no line end", |octet| !b"\r\n".contains(octet)), 1..80),
        Just([b"X-Long: ", &b"y".repeat(2500)[..]].concat()),
        Just([b"Subject: ", &b"z".repeat(2500)[..]].concat()),
        Just(b"--=_1-2A.".to_vec()),
    ];
    prop::collection::vec(line, 0..8)
        .prop_map(|lines| lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect())
}

/// Everything a notice is made of.
#[derive(Clone, Debug)]
struct Input {
    kind: Kind,
    returned: Ret,
    parties: (Mailbox, Mailbox, Option<Mailbox>),
    texts: [String; 4],
    header: Vec<u8>,
    told: Vec<Told>,
    envelope_id: Option<EnvelopeId>,
    nonce: u128,
}

fn input() -> impl Strategy<Value = Input> {
    let kind = prop_oneof![Just(Kind::Failed), Just(Kind::Delayed), Just(Kind::Relayed)];
    (
        (kind, prop_oneof![Just(Ret::Full), Just(Ret::Headers)], any::<u128>()),
        (mailbox(), mailbox(), prop::option::of(mailbox())),
        prop::array::uniform4(text()),
        header(),
        prop::collection::vec(told(), 1..5),
        prop::option::of("[!-~]{1,100}"),
    )
        .prop_map(|((kind, returned, nonce), parties, texts, header, told, envelope_id)| Input {
            kind,
            returned,
            parties,
            texts,
            header,
            told,
            envelope_id: envelope_id.and_then(|id| EnvelopeId::parse(&id).ok()),
            nonce,
        })
}

impl Input {
    fn with_letter<T>(&self, act: impl FnOnce(Letter<'_>) -> T) -> T {
        let message_id = MessageId::parse("<1@relay.test>").unwrap();
        let (from, to, _) = &self.parties;
        let [hostname, date, ..] = &self.texts;
        act(Letter { hostname, from, to, date, message_id: &message_id })
    }

    fn report(&self) -> Report {
        let reverse_path = self.parties.2.clone().map_or(ReversePath::Null, ReversePath::Mailbox);
        let envelope = Envelope { envelope_id: self.envelope_id.clone(), ..Envelope::from(reverse_path) };
        let original = HeaderBlock::parse(self.header.clone());
        let fates: Vec<_> = self.told.iter().map(Told::fate).collect();
        let [.., queue_id, arrival] = &self.texts;
        self.with_letter(|letter| {
            Notice {
                kind: self.kind,
                letter,
                nonce: self.nonce,
                queue_id,
                arrival,
                envelope: &envelope,
                original: &original,
                returned: self.returned,
                fates: &fates,
            }
            .report()
        })
    }
}

/// Every line ends in CRLF, holds no other line end, and any server takes it.
fn has_good_lines(octets: &[u8]) -> bool {
    octets.ends_with(b"\r\n")
        && octets.split(|octet| *octet == b'\n').all(|line| line.len() <= 999)
        && String::from_utf8_lossy(octets).replace("\r\n", "").chars().all(|c| !"\r\n\0".contains(c))
}

/// The fields of the message itself, without the optional ones and with no others.
fn has_its_fields(message: &Entity, own: &[&str]) -> bool {
    let mut names = message.names();
    names.retain(|name| !["In-Reply-To", "References", "Date"].contains(name));
    let rest = ["Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
    names == [own, &rest].concat()
}

const BODY: &[u8] = b"Hello,\r\n--=_1-2A.\r\n\r\n--\r\nthe end without its line end";

proptest! {
    // Each case is a whole report of thousands of octets.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_notice_is_one_message_of_three_parts(input in input()) {
        let report = input.report();
        let octets = octets(&report, BODY);
        let message = Entity::read(&octets);
        let (boundary, parts) = (message.boundary(), message.parts());
        let shown = String::from_utf8_lossy(&octets);

        prop_assert!(has_good_lines(&octets), "{shown}");
        prop_assert!(has_its_fields(&message, &["From", "To", "Subject", "Message-ID"]), "{shown}");
        prop_assert_eq!(message.value("Auto-Submitted"), "auto-replied");
        let unfolded = message.value("To").trim();
        prop_assert_eq!(unfolded, input.parties.1.to_string());

        // Boundaries stand where they must and nowhere else.
        let lines: Vec<_> = shown.split("\r\n").filter(|line| line.contains(&boundary) && line.starts_with("--")).collect();
        let (delimiter, last) = (format!("--{boundary}"), format!("--{boundary}--"));
        prop_assert_eq!(lines, [&delimiter, &delimiter, &delimiter, &last]);

        // Three parts, each of which says what it is.
        let media: Vec<_> = parts.iter().map(|part| part.value("Content-Type")).collect();
        let whole = input.kind == Kind::Failed && input.returned == Ret::Full;
        let third = if whole { "message/rfc822" } else { "text/rfc822-headers" };
        prop_assert_eq!(media, ["text/plain; charset=utf-8; format=fixed", "message/delivery-status", third]);
        for part in &parts {
            prop_assert_eq!(part.names(), ["Content-Type", "Content-Transfer-Encoding", "Content-Description"]);
            if part.value("Content-Transfer-Encoding") != "8bit" {
                prop_assert!(part.body.is_ascii());
            }
        }
        let eight_bit = message.value("Content-Transfer-Encoding") == "8bit";
        prop_assert_eq!(eight_bit, whole);
        prop_assert_eq!(report.body_type == BodyType::EightBitMime, whole);
        prop_assert_eq!(report.smtputf8, !report.header.as_bytes().is_ascii());
    }

    #[test]
    fn a_delivery_status_has_a_block_for_the_message_and_one_for_each_recipient(input in input()) {
        let message = Entity::read(&octets(&input.report(), BODY));
        let status = String::from_utf8(message.parts()[1].body.clone()).unwrap();
        let blocks: Vec<_> = status.split("\r\n\r\n").map(|block| fields(block.as_bytes())).collect();
        prop_assert_eq!(blocks.len(), input.told.len() + 1);
        let names = |block: &[(String, String)]| block.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let in_order = |names: &[String], allowed: &[&str]| {
            let mut allowed = allowed.iter();
            names.iter().all(|name| allowed.any(|known| known == name))
        };
        prop_assert!(in_order(&names(&blocks[0]), &["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date"]));
        let class = match input.kind {
            Kind::Failed => "5",
            Kind::Delayed => "4",
            Kind::Relayed => "2",
        };
        for block in &blocks[1..] {
            let names = names(block);
            prop_assert!(in_order(&names, &[
                "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
                "Last-Attempt-Date", "Will-Retry-Until",
            ]), "{names:?}");
            for needed in ["Final-Recipient", "Action", "Status"] {
                prop_assert!(names.iter().any(|name| name == needed));
            }
            let status = &block.iter().find(|(name, _)| name == "Status").unwrap().1;
            prop_assert!(status.starts_with(class), "{status}");
        }
    }

    #[test]
    fn the_text_is_for_people_and_the_header_comes_back_as_it_was(input in input()) {
        let message = Entity::read(&octets(&input.report(), BODY));
        let parts = message.parts();
        let text = String::from_utf8(parts[0].decoded()).unwrap();
        prop_assert!(text.starts_with("Your message") || text.starts_with("The message"));
        prop_assert!(text.split("\r\n").all(|line| line.chars().count() <= 76), "{text}");
        prop_assert!(!text.replace("\r\n", "").chars().any(char::is_control));
        prop_assert!(text.ends_with(".\r\n"), "{}", text);
        let original = HeaderBlock::parse(input.header.clone());
        if parts[2].value("Content-Type") == "text/rfc822-headers" {
            prop_assert_eq!(parts[2].decoded(), original.as_bytes());
        } else {
            prop_assert!(parts[2].body.ends_with(&[b"\r\n", BODY].concat()));
        }
    }

    #[test]
    fn a_digest_is_one_plain_message(input in input(), beyond: u64) {
        let sender = input.parties.2.clone().map_or(ReversePath::Null, ReversePath::Mailbox);
        let recipients: Vec<_> = input.told.iter().map(|told| told.recipient.clone()).collect();
        let [.., queue_id, time] = &input.texts;
        let entry = |reply| DigestEntry {
            time, queue_id, sender: &sender, recipients: &recipients, message_id: queue_id, reply,
        };
        let entries: Vec<_> = input.told.iter().map(|told| entry(&told.reply)).collect();
        let report = input.with_letter(|letter| Digest { letter, entries: &entries, beyond }.report());
        prop_assert!(matches!(report.content, Content::Whole(_)));
        let octets = octets(&report, b"");
        prop_assert!(has_good_lines(&octets));
        let message = Entity::read(&octets);
        prop_assert!(has_its_fields(&message, &["From", "To", "Subject", "Message-ID"]));
        prop_assert_eq!(message.value("Auto-Submitted"), "auto-generated");
        let text = String::from_utf8(message.decoded()).unwrap();
        prop_assert!(text.split("\r\n").all(|line| line.chars().count() <= 76));
        prop_assert!(message.body.is_ascii());
    }
}
