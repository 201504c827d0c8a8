mod fixtures;
mod properties;

use std::collections::BTreeMap;

use super::*;
use crate::config::{self, AddressPattern};
use crate::routing::address_set::AddressSet;

/// A map as `[rewrite]` has it.
fn map(rules: &[(&str, &str)]) -> AddressMap {
    let place = |text: &str| match text.strip_prefix('@') {
        Some(domain) => config::Place::Domain(domain.parse().unwrap()),
        None => config::Place::Address(text.parse().unwrap()),
    };
    let rules: BTreeMap<_, _> = rules.iter().map(|(old, new)| (old.to_ascii_lowercase(), place(new))).collect();
    AddressMap::new(&config::AddressMap(rules))
}

/// The mailbox `scanner`, which leaves as `from` and may send as `others`.
fn identity(from: &str, others: &[&str]) -> Identity {
    let patterns: Vec<_> = others
        .iter()
        .map(|text| match text.strip_prefix("*@") {
            Some(domain) => AddressPattern::Domain(domain.parse().unwrap()),
            None if *text == "*" => AddressPattern::Any,
            None => AddressPattern::Address(text.parse().unwrap()),
        })
        .collect();
    let address = "scanner@contoso.com".parse().unwrap();
    Identity::new("scanner", address, from.parse().unwrap(), AddressSet::new(&patterns))
}

/// The mailbox of most cases.
fn scanner() -> Identity {
    identity("scanner@contoso.com", &["alias@contoso.com", "*@fabrikam.com"])
}

fn path(text: &str) -> ReversePath {
    ReversePath::parse(text.as_bytes()).unwrap()
}

fn block(octets: impl AsRef<[u8]>) -> HeaderBlock {
    HeaderBlock::parse(octets.as_ref().to_vec())
}

fn dressed(
    policy: SenderPolicy,
    envelope: &str,
    header: &HeaderBlock,
    senders: &AddressMap,
) -> Result<Dressed, MayNotSendAs> {
    dress(&Given { reverse_path: &path(envelope), header }, policy, &scanner(), senders)
}

/// Envelope sender and header of what leaves, as text.
fn sent(policy: SenderPolicy, envelope: &str, header: &[u8], senders: &AddressMap) -> (String, String) {
    let dressed = dressed(policy, envelope, &block(header), senders).unwrap();
    let text = String::from_utf8_lossy(dressed.header.as_bytes()).into_owned();
    (dressed.reverse_path.to_string(), text)
}

use SenderPolicy::{Auto, Keep, Reject, Rewrite};

const MAPS: [(&str, &str); 5] = [
    ("root@erp01", "alias@contoso.com"),
    ("@erp01", "@fabrikam.com"),
    ("quoted@erp01", "\"a b\"@fabrikam.com"),
    ("in@old.local", "out@new.local"),
    ("@odd.local", "@fabrikam.com"),
];

#[test]
fn maps_change_the_octets_of_the_address_and_no_others() {
    for (value, mapped) in [
        // In place.
        (&b" root@erp01"[..], &b" alias@contoso.com"[..]),
        (b"root@erp01", b"alias@contoso.com"),
        (b" \"Root, the\" <ROOT@ERP01> (x)", b" \"Root, the\" <alias@contoso.com> (x)"),
        (
            b" =?koi8-r?B?8tXT?=\r\n\t=?utf-8?Q?x?= < root@erp01 >",
            b" =?koi8-r?B?8tXT?=\r\n\t=?utf-8?Q?x?= < alias@contoso.com >",
        ),
        (b" M\xfcller <cron@erp01>", b" M\xfcller <cron@fabrikam.com>"),
        (b"   root@erp01   (Cron\r\n Daemon) ", b"   alias@contoso.com   (Cron\r\n Daemon) "),
        // Folded in the middle of the address.
        (b" R <root\r\n @erp01>", b" R <alias@contoso.com>"),
        (b" root@\r\n\terp01 (x)", b" alias@contoso.com (x)"),
        // Groups and several.
        (b" Ops: root@erp01, J <j@x.y>;", b" Ops: alias@contoso.com, J <j@x.y>;"),
        (b" a@b.c,\r\n\tB <b@erp01>,\r\n\troot@erp01", b" a@b.c,\r\n\tB <b@fabrikam.com>,\r\n\talias@contoso.com"),
        // What cannot be done in place.
        (b" \"R\" (x) <@old,@older:root@erp01> (y)", b" \"R\" (x) <alias@contoso.com> (y)"),
        (b" HP root@erp01", b" HP <alias@contoso.com>"),
        (b" a@b.c, HP M\xfcller root@erp01", b" a@b.c, =?utf-8?Q?HP_M=C3=BCller?= <alias@contoso.com>"),
        (b" J <a..b@odd.local>", b" J <\"a..b\"@fabrikam.com>"),
        (b" J <'root@erp01'>, K <k@x.y>", b" J <alias@contoso.com>, K <k@x.y>"),
        // A stray quote would be read with those of the address: all is written anew.
        (b" x \" y, a..b@odd.local, K <k@x.y>", b" \"a..b\"@fabrikam.com, K <k@x.y>"),
        (b" quoted@erp01", b" \"a b\"@fabrikam.com"),
        // A broken line, which must not become a field.
        (b" a@b.c,\r\nroot@erp01", b" a@b.c,\r\nalias@contoso.com"),
    ] {
        for name in ["From", "Sender", "Reply-To"] {
            let header = [b"A: root@erp01\r\n", name.as_bytes(), b" :", value, b"\r\nTo: root@erp01\r\n"].concat();
            let after = dressed(Keep, "a@b.c", &block(header), &map(&MAPS)).unwrap().header;
            let got = after.value(name).unwrap();
            let is_in_place = !mapped.starts_with(b" \"a..b");
            let colon = if is_in_place { " :" } else { ":" };
            let start = [b"A: root@erp01\r\n", name.as_bytes(), colon.as_bytes()].concat();
            let wanted = [mapped, b"\r\n"].concat();
            let shown = String::from_utf8_lossy(value);
            assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(&wanted), "{shown}");
            assert_eq!(got, wanted, "{shown}");
            assert!(after.as_bytes().starts_with(&start), "{shown}");
            assert!(after.as_bytes().ends_with(b"\r\nTo: root@erp01\r\n"), "{shown}");
        }
    }
}

#[test]
fn maps_are_applied_once_and_before_the_mailbox_is_asked() {
    let chain = map(&[("a@b.c", "d@e.f"), ("d@e.f", "alias@contoso.com"), ("@erp01", "@fabrikam.com")]);
    let header = b"From: a@b.c\r\nReply-To: <d@e.f>\r\n";
    let (envelope, text) = sent(Keep, "A@b.c", header, &chain);
    assert_eq!((envelope.as_str(), text.as_str()), ("d@e.f", "From: d@e.f\r\nReply-To: <alias@contoso.com>\r\n"));
    for policy in [Auto, Reject] {
        let (envelope, text) = sent(policy, "cron@erp01", b"From: Cron <cron@erp01>\r\n", &chain);
        assert_eq!((envelope.as_str(), text.as_str()), ("cron@fabrikam.com", "From: Cron <cron@fabrikam.com>\r\n"));
    }
    let (envelope, text) = sent(Auto, "a@b.c", b"From: a@b.c\r\n", &chain);
    assert_eq!(
        (envelope.as_str(), text.as_str()),
        ("scanner@contoso.com", "From: scanner@contoso.com\r\nReply-To: d@e.f\r\n")
    );
    assert_eq!(sent(Keep, "", b"From: x@b.c\r\n", &chain).0, "");
}

#[test]
fn auto_rewrites_both_envelope_and_header_if_it_must_rewrite_either() {
    const OURS: &str = "scanner@contoso.com";
    for (envelope, header, sent_envelope, sent_header) in [
        // All allowed, in whatever case and form: as it is.
        (OURS, "From: Scanner@Contoso.COM\r\n", OURS, "From: Scanner@Contoso.COM\r\n"),
        (
            "X@Fabrikam.com",
            "From: =?x?= <alias@contoso.com> (x)\r\n",
            "X@Fabrikam.com",
            "From: =?x?= <alias@contoso.com> (x)\r\n",
        ),
        (
            OURS,
            "From: a@fabrikam.com\r\nSender: b@fabrikam.com\r\n",
            OURS,
            "From: a@fabrikam.com\r\nSender: b@fabrikam.com\r\n",
        ),
        // A null envelope sender alone leaves the header.
        ("", "From: alias@contoso.com\r\n", OURS, "From: alias@contoso.com\r\n"),
        // The envelope.
        ("root@erp01", "From: Scanner@contoso.com\r\n", OURS, "From: Scanner@contoso.com\r\n"),
        (
            "root@erp01",
            "From: A <alias@contoso.com>\r\n",
            OURS,
            "From: A <scanner@contoso.com>\r\nReply-To: A <alias@contoso.com>\r\n",
        ),
        // From.
        ("alias@contoso.com", "From: root@erp01\r\n", OURS, "From: scanner@contoso.com\r\nReply-To: root@erp01\r\n"),
        ("", "From: root@erp01\r\n", OURS, "From: scanner@contoso.com\r\nReply-To: root@erp01\r\n"),
        // Sender.
        (
            OURS,
            "Sender: root@erp01\r\nFrom: A <alias@contoso.com>\r\n",
            OURS,
            "X-Original-Sender: root@erp01\r\nFrom: A <scanner@contoso.com>\r\nReply-To: A <alias@contoso.com>\r\n",
        ),
        // A Sender that may stay stays; one that names nobody goes alone.
        (
            "root@erp01",
            "From: scanner@contoso.com\r\nSender: alias@contoso.com\r\n",
            OURS,
            "From: scanner@contoso.com\r\nSender: alias@contoso.com\r\n",
        ),
        (
            "alias@contoso.com",
            "Sender: root\r\nFrom: a@fabrikam.com\r\n",
            "alias@contoso.com",
            "X-Original-Sender: root\r\nFrom: a@fabrikam.com\r\n",
        ),
        // Several that may all stay need a Sender.
        (
            "alias@contoso.com",
            "From: a@fabrikam.com, b@fabrikam.com\r\n",
            "alias@contoso.com",
            "From: a@fabrikam.com, b@fabrikam.com\r\nSender: alias@contoso.com\r\n",
        ),
        // No sender at all.
        (OURS, "To: x\r\n", OURS, "To: x\r\nFrom: scanner@contoso.com\r\n"),
        (
            "alias@contoso.com",
            "From: root (Cron Daemon)\r\nTo: x\r\n",
            OURS,
            "X-Original-From: root (Cron Daemon)\r\nTo: x\r\nFrom: \"root (Cron Daemon)\" <scanner@contoso.com>\r\n",
        ),
    ] {
        let (got_envelope, got_header) = sent(Auto, envelope, header.as_bytes(), &AddressMap::default());
        assert_eq!((got_envelope.as_str(), got_header.as_str()), (sent_envelope, sent_header), "{envelope} {header}");
    }
}

#[test]
fn keep_keeps_reject_refuses_and_rewrite_rewrites() {
    let none = AddressMap::default();
    let header = "From: A <root@erp01>\r\nSender: x@y.z\r\n";
    assert_eq!(sent(Keep, "root@erp01", header.as_bytes(), &none), ("root@erp01".to_owned(), header.to_owned()));
    assert_eq!(sent(Keep, "", b"To: x\r\n", &none), (String::new(), "To: x\r\n".to_owned()));
    let allowed = "From: A <alias@contoso.com>, b@fabrikam.com\r\nSender: X@fabrikam.com\r\n";
    assert_eq!(
        sent(Reject, "alias@contoso.com", allowed.as_bytes(), &none),
        ("alias@contoso.com".to_owned(), allowed.to_owned())
    );
    assert_eq!(sent(Reject, "", allowed.as_bytes(), &none), ("scanner@contoso.com".to_owned(), allowed.to_owned()));
    let ours = "From: A <Scanner@contoso.com>\r\nSender: SCANNER@contoso.com\r\n";
    assert_eq!(
        sent(Rewrite, "Scanner@contoso.com", ours.as_bytes(), &none),
        ("Scanner@contoso.com".to_owned(), ours.to_owned())
    );
    assert_eq!(
        sent(Rewrite, "alias@contoso.com", allowed.as_bytes(), &none),
        (
            "scanner@contoso.com".to_owned(),
            "From: A <scanner@contoso.com>\r\nX-Original-Sender: X@fabrikam.com\r\n\
             Reply-To: A <alias@contoso.com>, b@fabrikam.com\r\n"
                .to_owned()
        )
    );
}

#[test]
fn reject_names_the_first_sender_that_may_not_be_and_where_it_stands() {
    for (envelope, header, sender, place) in [
        ("root@erp01", "From: x@y.z\r\n", "root@erp01", Place::MailFrom),
        ("", "From: a@fabrikam.com, x@y.z, v@w.x\r\nSender: b@y.z\r\n", "x@y.z", Place::From),
        ("alias@contoso.com", "Sender: b@y.z\r\nFrom: a@fabrikam.com\r\n", "b@y.z", Place::Sender),
    ] {
        let refused = dressed(Reject, envelope, &block(header), &AddressMap::default()).unwrap_err();
        let wanted = MayNotSendAs { sender: sender.parse().unwrap(), place, mailbox: "scanner".to_owned() };
        assert_eq!(refused, wanted);
    }
    let refused = may_send(&"out@new.local".parse().unwrap(), Reject, &scanner()).unwrap_err();
    assert_eq!(refused.to_string(), "mailbox \"scanner\" may not send as out@new.local, which stands in MAIL FROM");
}

#[test]
fn only_reject_refuses_a_sender_before_there_is_a_header() {
    for (sender, reject) in [("scanner@contoso.com", true), ("Alias@contoso.com", true), ("x@y.z", false)] {
        for (policy, wanted) in [(Auto, true), (Keep, true), (Rewrite, true), (Reject, reject)] {
            let may = may_send(&sender.parse().unwrap(), policy, &scanner()).is_ok();
            assert_eq!(may, wanted, "{sender} {policy:?}");
        }
    }
}

#[test]
fn the_name_stays_with_the_rewritten_sender() {
    for (value, from, reply_to) in [
        (&b" HP Scanner <hp@local>"[..], &b" HP Scanner <scanner@contoso.com>"[..], Some("HP Scanner <hp@local>")),
        (
            b" \"M\xfcller, \\\"Hans\\\"\"  <h@local>",
            b" \"M\xfcller, \\\"Hans\\\"\"  <scanner@contoso.com>",
            Some("=?utf-8?Q?M=C3=BCller=2C_Hans?= <h@local>"),
        ),
        (
            b" =?iso-8859-1?Q?M=FCller?= <h@local>",
            b" =?iso-8859-1?Q?M=FCller?= <scanner@contoso.com>",
            Some("=?utf-8?Q?M=C3=BCller?= <h@local>"),
        ),
        (
            b" =?koi8-r?B?8tXT?= <h@local>",
            b" =?koi8-r?B?8tXT?= <scanner@contoso.com>",
            Some("=?koi8-r?B?8tXT?= <h@local>"),
        ),
        (b" root@erp01 (Cron Daemon)", b" scanner@contoso.com (Cron Daemon)", Some("Cron Daemon <root@erp01>")),
        (b" (Cron) root@erp01", b" (Cron) scanner@contoso.com", Some("Cron <root@erp01>")),
        (
            b" \"Cron\r\n Daemon\"\r\n <root\r\n @erp01>",
            b" \"Cron\r\n Daemon\"\r\n <scanner@contoso.com>",
            Some("Cron Daemon <root@erp01>"),
        ),
        (b"<root@erp01>", b"<scanner@contoso.com>", Some("root@erp01")),
        (b" R <@a,@b:root@erp01>", b" R <scanner@contoso.com>", Some("R <root@erp01>")),
        (b" J <j..d@docomo.ne.jp>", b" J <scanner@contoso.com>", Some("J <\"j..d\"@docomo.ne.jp>")),
        // Several, and groups.
        (b" A <a@local>,\r\n\tB <b@local>", b" A <scanner@contoso.com>", Some("A <a@local>, B <b@local>")),
        (b" a@local, SCANNER@contoso.com, b@local (B)", b" scanner@contoso.com", Some("a@local, B <b@local>")),
        (b" Ops: a@local, B <b@local>;", b" Ops <scanner@contoso.com>", Some("a@local, B <b@local>")),
        (b" Ops: A <a@local>;", b" A <scanner@contoso.com>", Some("A <a@local>")),
        (b" \"Ops, all\": scanner@contoso.com;", b" \"Ops, all\" <scanner@contoso.com>", None),
        (b" , A <a@local>,", b" A <scanner@contoso.com>", Some("A <a@local>")),
        // Already it.
        (b"  \"S\" < Scanner@Contoso.com > (x) ", b"  \"S\" < Scanner@Contoso.com > (x) ", None),
        // Broken, as it was stored before acceptance repaired it.
        (b" HP Scanner hp@local", b" HP Scanner <scanner@contoso.com>", Some("HP Scanner <hp@local>")),
        (
            b" M\xfcller, Hans <h@local>",
            b" =?utf-8?Q?M=C3=BCller=2C_Hans?= <scanner@contoso.com>",
            Some("Hans <h@local>"),
        ),
        (b" a@local; B <b@local>", b" scanner@contoso.com", Some("a@local, B <b@local>")),
        (b" A <a@local>,\r\nB <b@local>", b" A <scanner@contoso.com>", Some("A <a@local>, B <b@local>")),
        (b" \"A <a@local>", b" A <scanner@contoso.com>", Some("A <a@local>")),
    ] {
        let header = [b"A: 1\r\nFROM:", value, b"\r\nTo: x\r\n"].concat();
        let after = dressed(Rewrite, "root@erp01", &block(header), &AddressMap::default()).unwrap();
        let shown = String::from_utf8_lossy(value);
        let got = after.header.value("From").unwrap();
        assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(&[from, b"\r\n"].concat()), "{shown}");
        assert_eq!(got, [from, b"\r\n"].concat(), "{shown}");
        let answered = after.header.value("Reply-To").map(|value| String::from_utf8(value.to_vec()).unwrap());
        assert_eq!(answered.as_deref().map(str::trim), reply_to, "{shown}");
        assert!(after.header.as_bytes().starts_with(b"A: 1\r\n"), "{shown}");
    }
}

#[test]
fn senders_without_an_address_leave_their_words() {
    for (header, from) in [
        ("", "scanner@contoso.com"),
        ("From: root\r\n", "root <scanner@contoso.com>"),
        ("From: \"HP Scanner\" <>\r\n", "HP Scanner <scanner@contoso.com>"),
        ("From: undisclosed:;\r\n", "\"undisclosed:\" <scanner@contoso.com>"),
        ("From:\r\n", "scanner@contoso.com"),
        (&format!("From: {}\r\n", "a@b.c, ".repeat(1001)), "scanner@contoso.com"),
    ] {
        let (envelope, text) = sent(Auto, "alias@contoso.com", header.as_bytes(), &AddressMap::default());
        assert_eq!(envelope, "scanner@contoso.com");
        let kept = header.strip_prefix("From:").map(|value| format!("X-Original-From:{value}")).unwrap_or_default();
        assert_eq!(text, format!("{kept}From: {from}\r\n"));
    }
}

#[test]
fn a_reply_to_that_names_somebody_stays_and_another_is_replaced() {
    for (given, wanted) in [
        ("Reply-To: b@c.d\r\n", "Reply-To: b@c.d\r\n"),
        ("reply-to : nobody,\r\n  \"B\" <b@c.d>\r\n", "reply-to : nobody,\r\n  \"B\" <b@c.d>\r\n"),
        ("Reply-To:\r\n", "Reply-To: R <r@local>\r\n"),
        ("REPLY-TO: nobody\r\n in particular\r\n", "Reply-To: R <r@local>\r\n"),
        ("Reply-To: <>\r\nReply-To: nobody\r\n", "Reply-To: R <r@local>\r\n"),
        ("Reply-To: <>\r\nReply-To: b@c.d\r\n", "Reply-To: <>\r\nReply-To: b@c.d\r\n"),
    ] {
        let header = format!("{given}From: R <r@local>\r\nTo: x\r\n");
        let (_, text) = sent(Auto, "r@local", header.as_bytes(), &AddressMap::default());
        assert_eq!(text, format!("{wanted}From: R <scanner@contoso.com>\r\nTo: x\r\n"));
        let (_, text) = sent(Keep, "r@local", header.as_bytes(), &AddressMap::default());
        assert_eq!(text, header);
    }
}

#[test]
fn senders_that_may_not_stay_are_renamed() {
    for (policy, sender, stays) in [
        (Auto, "alias@contoso.com", true),
        (Auto, "root@erp01", false),
        (Auto, "alias@contoso.com, root@erp01", false),
        (Auto, "", false),
        (Rewrite, "alias@contoso.com", false),
        (Rewrite, "root", false),
        (Rewrite, "\"S\" <SCANNER@contoso.com>", true),
        (Keep, "root", true),
    ] {
        let header = format!("sender : {sender}\r\nFrom: scanner@contoso.com\r\n");
        let (_, text) = sent(policy, "scanner@contoso.com", header.as_bytes(), &AddressMap::default());
        let wanted = if stays { header.clone() } else { header.replace("sender", "X-Original-Sender") };
        assert_eq!(text, wanted, "{policy:?}");
    }
}

#[test]
fn blind_copies_go_whatever_the_policy() {
    let header = b"From x\r\nBCC: a@b.c,\r\n d@e.f\r\nFrom: scanner@contoso.com\r\nbcc:\r\nResent-Bcc : x\r\nnot a field\r\nX-Bcc: y\r\n";
    for policy in [Auto, Keep, Reject, Rewrite] {
        let dressed = dressed(policy, "scanner@contoso.com", &block(header), &AddressMap::default()).unwrap();
        assert_eq!(dressed.header, block("From x\r\nFrom: scanner@contoso.com\r\nX-Bcc: y\r\n"));
        let told: Vec<_> = dressed.edits.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], "Bcc: a@b.c, d@e.f removed (who had a blind copy is not told)");
    }
}

#[test]
fn what_was_resent_and_what_else_names_addresses_stays() {
    let header = "Resent-From: root@erp01\r\nResent-Sender: root@erp01\r\nReturn-Path: <root@erp01>\r\n\
                  Errors-To: root@erp01\r\nDisposition-Notification-To: root@erp01\r\nFrom: scanner@contoso.com\r\n";
    for policy in [Auto, Keep, Reject, Rewrite] {
        let (_, text) = sent(policy, "scanner@contoso.com", header.as_bytes(), &map(&MAPS));
        assert_eq!(text, header);
    }
}

#[test]
fn one_from_field_is_left_of_several() {
    let header = "From: alias@contoso.com\r\nTo: x\r\nfrom : root@erp01\r\n more\r\n";
    for policy in [Auto, Keep, Reject] {
        let (_, text) = sent(policy, "scanner@contoso.com", header.as_bytes(), &AddressMap::default());
        assert_eq!(text, "From: alias@contoso.com\r\nTo: x\r\nX-Original-From : root@erp01\r\n more\r\n");
    }
    let (_, text) = sent(Rewrite, "scanner@contoso.com", header.as_bytes(), &AddressMap::default());
    assert_eq!(
        text,
        "From: scanner@contoso.com\r\nTo: x\r\nX-Original-From : root@erp01\r\n more\r\nReply-To: alias@contoso.com\r\n"
    );
}

#[test]
fn each_edit_is_told_in_one_line() {
    let header = "From: Root <root@erp02>\r\nSender: cron@erp01\r\nReply-To: nobody\r\nBcc: x@y.z\r\n";
    let told = dressed(Auto, "in@old.local", &block(header), &map(&MAPS)).unwrap().edits;
    let why = "(mailbox \"scanner\" may not send as out@new.local, which stood in MAIL FROM)";
    assert_eq!(
        told.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "MAIL FROM: <in@old.local> became <out@new.local> (mapped by [rewrite])".to_owned(),
            "Sender: cron@erp01 became cron@fabrikam.com (mapped by [rewrite])".to_owned(),
            format!("MAIL FROM: <out@new.local> became <scanner@contoso.com> {why}"),
            format!("From: Root <root@erp02> became Root <scanner@contoso.com> {why}"),
            "Reply-To: nobody became Root <root@erp02> (answers go to those that From named)".to_owned(),
            "Bcc: x@y.z removed (who had a blind copy is not told)".to_owned(),
        ]
    );
    let told = dressed(Rewrite, "", &block("Sender:\r\nTo: x\r\n"), &AddressMap::default()).unwrap().edits;
    assert_eq!(
        told.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "MAIL FROM: <> became <scanner@contoso.com> (Exchange takes no null sender from a login)",
            "From: scanner@contoso.com added (the route has sender = \"rewrite\")",
            "Sender: (empty) became X-Original-Sender (it names no address)",
        ]
    );
    let long = format!("From: {} <a@b.c>\r\n{}", "x".repeat(9000), "Bcc: \u{1b}[1mx\u{202e}\r\n".repeat(1000));
    let told = dressed(Auto, "scanner@contoso.com", &block(long), &AddressMap::default()).unwrap().edits;
    assert_eq!(told.len(), MAX_EDITS);
    for edit in told {
        let line = edit.to_string();
        assert!(line.chars().count() < 600 && !line.chars().any(mail::is_acted_on), "{line:?}");
    }
}

#[test]
fn a_line_that_gets_too_long_is_folded_and_others_are_left() {
    let long = "x".repeat(2000);
    let many = vec!["root@erp01"; 80].join(", ");
    let header = format!("X-Long: {long}\r\nReply-To: {many}\r\nFrom: {long} <scanner@contoso.com>\r\n");
    let (_, text) =
        sent(Auto, "scanner@contoso.com", header.as_bytes(), &map(&[("root@erp01", "alias.of.root@contoso.com")]));
    let reply_to = block(&text).value("Reply-To").unwrap().to_vec();
    assert!(reply_to.split(|octet| *octet == b'\n').all(|line| line.len() < 1000));
    assert_eq!(AddressList::parse(&reply_to).unwrap().mailboxes().count(), 80);
    assert_eq!(text.replace("\r\n alias", " alias"), header.replace("root@erp01", "alias.of.root@contoso.com"));
}

#[test]
fn a_from_of_another_address_is_what_a_mailbox_leaves_as() {
    let documents = identity("documents@contoso.com", &[]);
    let header = block("From: Scan <root@erp01>\r\n");
    let given = Given { reverse_path: &path(""), header: &header };
    let dressed = dress(&given, Auto, &documents, &AddressMap::default()).unwrap();
    assert_eq!(dressed.reverse_path, path("documents@contoso.com"));
    assert_eq!(dressed.header, block("From: Scan <documents@contoso.com>\r\nReply-To: Scan <root@erp01>\r\n"));
}
