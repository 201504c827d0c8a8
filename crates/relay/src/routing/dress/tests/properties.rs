//! What holds for every header, right or broken.

use mail::MAX_HEADER_LEN;
use proptest::prelude::*;

use super::*;

const ADDRESSES: [&str; 10] = [
    "scanner@contoso.com",
    "Scanner@CONTOSO.com",
    "alias@contoso.com",
    "x@fabrikam.com",
    "root@erp01",
    "\"a b\"@erp01",
    "in@old.local",
    "a..b@odd.local",
    "m\u{fc}ller@b\u{fc}cher.example",
    "a@b.c",
];

const FORMS: [&str; 20] = [
    " @\r\n",
    " <@>\r\n",
    " \"N, n\" <@> (c)\r\n",
    " =?utf-8?Q?=C3=BC?= <@>\r\n",
    " =?koi8-r?B?8tXT?=\r\n <@>\r\n",
    " @ (C d)\r\n",
    " <@x,@y:@>\r\n",
    " G: @, N <@>;\r\n",
    " G: @;\r\n",
    " @, N <@>,\r\n\t@\r\n",
    " @; @\r\n",
    " HP @\r\n",
    " HP, hall <@>\r\n",
    " \" @\r\n",
    " ( <@\r\n",
    " <'@'>\r\n",
    " root (Cron Daemon)\r\n",
    " <>\r\n",
    "\r\n",
    " @,\r\n@ is broken\r\n",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let form =
        (proptest::sample::select(&FORMS[..]), proptest::collection::vec(proptest::sample::select(&ADDRESSES[..]), 3));
    let written = form.prop_map(|(form, addresses)| {
        let mut addresses = addresses.iter().cycle();
        // The `@` of a source route is none to fill.
        let form = form.replace("@x,@y:", "\u{1}");
        let filled: String = form
            .chars()
            .map(|c| if c == '@' { (*addresses.next().unwrap()).to_owned() } else { c.to_string() })
            .collect();
        filled.replace('\u{1}', "@x,@y:").into_bytes()
    });
    let octets = prop_oneof![any::<u8>(), proptest::sample::select(&b"()<>[]:;@\\,.\" ab\r\n"[..])];
    let noise = proptest::collection::vec(octets, 0..40).prop_map(|octets| [&octets[..], b"\r\n"].concat());
    prop_oneof![4 => written, 1 => noise]
}

const NAMES: [&str; 16] = [
    "From",
    "from ",
    "Sender",
    "SENDER",
    "Reply-To",
    "reply-to",
    "Bcc",
    "bCC ",
    "Resent-Bcc",
    "Resent-From",
    "To",
    "Subject",
    "X-Original-From",
    "Received",
    "no field",
    "From x",
];

fn header() -> impl Strategy<Value = HeaderBlock> {
    let field = (proptest::sample::select(&NAMES[..]), value()).prop_map(|(name, value)| {
        [name.as_bytes(), if name.contains(" x") || name.starts_with("no") { b" " } else { b":" }, &value].concat()
    });
    proptest::collection::vec(field, 0..8).prop_map(|fields| block(fields.concat()))
}

fn envelope() -> impl Strategy<Value = ReversePath> {
    proptest::sample::select(
        &["", "scanner@contoso.com", "Alias@contoso.com", "root@erp01", "in@old.local", "a@b.c"][..],
    )
    .prop_map(path)
}

fn policy() -> impl Strategy<Value = SenderPolicy> {
    proptest::sample::select(&[Auto, Keep, Rewrite, Reject][..])
}

/// None of what these maps give is mapped again.
fn senders() -> impl Strategy<Value = AddressMap> {
    prop_oneof![
        Just(AddressMap::default()),
        Just(map(&MAPS)),
        Just(map(&[("@old.local", "\"q <r>\"@x.y"), ("@erp01", "@contoso.com")]))
    ]
}

/// All but the fields that may change.
fn others(header: &HeaderBlock) -> Vec<u8> {
    let mut left = header.clone();
    for name in ["From", "Sender", "Reply-To", "Bcc", "Resent-Bcc", "X-Original-From", "X-Original-Sender"] {
        left.remove(name);
    }
    left.into_bytes()
}

fn addresses(header: &HeaderBlock, name: &str) -> Vec<Mailbox> {
    let lists = header.values(name).filter_map(|value| AddressList::parse(value).ok());
    lists.flat_map(|list| list.mailboxes().cloned().collect::<Vec<_>>()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn twice_is_once(envelope in envelope(), header in header(), policy in policy(), senders in senders()) {
        let identity = scanner();
        if let Ok(once) = dress(&Given { reverse_path: &envelope, header: &header }, policy, &identity, &senders) {
            let given = Given { reverse_path: &once.reverse_path, header: &once.header };
            let twice = dress(&given, policy, &identity, &senders).unwrap();
            prop_assert_eq!(&twice.edits, &[]);
            prop_assert_eq!((&twice.reverse_path, twice.header.as_bytes()), (&once.reverse_path, once.header.as_bytes()));
        }
    }

    #[test]
    fn other_fields_stay_octet_for_octet(envelope in envelope(), header in header(), policy in policy(), senders in senders()) {
        if let Ok(after) = dress(&Given { reverse_path: &envelope, header: &header }, policy, &scanner(), &senders) {
            let (after, before) = (others(&after.header), others(&header));
            prop_assert_eq!(String::from_utf8_lossy(&after), String::from_utf8_lossy(&before));
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn what_leaves_may_be_sent(envelope in envelope(), header in header(), policy in policy(), senders in senders()) {
        let identity = scanner();
        let after = match dress(&Given { reverse_path: &envelope, header: &header }, policy, &identity, &senders) {
            Ok(after) => after,
            Err(refused) => {
                prop_assert!(policy == Reject && !identity.may_send_as(&refused.sender));
                return Ok(());
            }
        };
        prop_assert!(!after.header.has("Bcc") && !after.header.has("Resent-Bcc"));
        prop_assert!(after.header.count("From") <= 1);
        if policy == Keep {
            prop_assert_eq!(after.reverse_path == ReversePath::Null, envelope == ReversePath::Null);
            return Ok(());
        }
        prop_assert!(identity.may_send_as(after.reverse_path.mailbox().unwrap()));
        let from = addresses(&after.header, "From");
        prop_assert!(from.iter().chain(&addresses(&after.header, "Sender")).all(|sender| identity.may_send_as(sender)));
        if policy == Rewrite {
            prop_assert_eq!(from.len(), 1);
            prop_assert!(is_same(&from[0], &identity.from) && is_same(after.reverse_path.mailbox().unwrap(), &identity.from));
            prop_assert!(AddressList::parse(after.header.value("From").unwrap()).unwrap().is_right_but_for_dots());
        }
        if policy == Auto {
            prop_assert!(!from.is_empty() && (from.len() == 1 || after.header.has("Sender")));
        }
    }

    #[test]
    fn only_blind_copies_go_where_nothing_is_to_be_rewritten(envelope in envelope(), header in header()) {
        prop_assume!(header.count("From") < 2);
        let mut without = header.clone();
        without.remove("Bcc");
        without.remove("Resent-Bcc");
        for policy in [Keep, Reject] {
            if let Ok(after) = dress(&Given { reverse_path: &envelope, header: &header }, policy, &scanner(), &AddressMap::default()) {
                // Several senders need somebody who sent it, and reject promises that Exchange takes what it takes.
                let needs_sender = policy == Reject && addresses(&header, "From").len() > 1 && !header.has("Sender");
                let mut wanted = without.clone();
                if needs_sender {
                    let sender = envelope.mailbox().unwrap_or(&scanner().from).to_string();
                    wanted.append(&Field::new("Sender", &sender).unwrap());
                }
                prop_assert_eq!(after.header.as_bytes(), wanted.as_bytes());
            }
        }
    }

    #[test]
    fn a_map_changes_the_addresses_it_is_for(header in header()) {
        let senders = map(&MAPS);
        let after = dress(&Given { reverse_path: &ReversePath::Null, header: &header }, Keep, &scanner(), &senders).unwrap().header;
        for name in ["From", "Sender", "Reply-To"] {
            let mut before = header.clone();
            if name == "From" {
                renamed(&mut before, "From", "X", 1);
            }
            let wanted: Vec<_> = addresses(&before, name).iter().map(|old| senders.mapped(old).unwrap_or_else(|| old.clone())).collect();
            prop_assert_eq!(addresses(&after, name), wanted);
        }
    }

    #[test]
    fn no_octets_are_too_odd(octets: Vec<u8>, policy in policy()) {
        let _ = dress(&Given { reverse_path: &ReversePath::Null, header: &block(octets) }, policy, &scanner(), &map(&MAPS));
    }

    #[test]
    fn edits_are_told_in_one_printable_line(envelope in envelope(), header in header(), policy in policy()) {
        if let Ok(after) = dress(&Given { reverse_path: &envelope, header: &header }, policy, &scanner(), &map(&MAPS)) {
            prop_assert!(after.edits.len() <= MAX_EDITS);
            for edit in after.edits {
                prop_assert!(!edit.to_string().chars().any(mail::is_acted_on), "{}", edit);
            }
        }
    }
}

#[test]
fn the_largest_headers_are_dressed() {
    let many = vec!["R <r..r@erp01>"; 1000].join(",\r\n ");
    let lists = format!("From: {many}\r\nSender: {many}\r\nReply-To: {many}\r\n");
    let fill = |field: &str| {
        let mut header = lists.clone();
        header.push_str(&field.repeat((MAX_HEADER_LEN - header.len()) / field.len()));
        block(header)
    };
    let headers = [
        "A:\r\n",
        "Bcc:\r\n",
        "Bcc:x\r\n\r\n",
        "From:x\r\n",
        "Sender:r@erp01\r\n",
        "Reply-To:\"r@erp01\r\n",
        "x\r\n",
        "(\r\n",
    ]
    .map(fill);
    let [long, deep] = [("x ".repeat(60_000), "x@y.z"), ("(".repeat(60_000), "root@erp01")]
        .map(|(words, address)| block(format!("From: {words}<{address}>\r\n")));
    // Each takes some tenths of a second unoptimised, and would take hours if anything were quadratic.
    for header in headers.iter().chain([&long, &deep]) {
        let dressed = dressed(Auto, "root@erp01", header, &map(&MAPS)).unwrap();
        assert_eq!(dressed.header.count("From"), 1);
    }
}
