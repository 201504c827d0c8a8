//! From and Date of what is accepted: repaired where no reader could make sense of them, and never changed where they are
//! right. Pure. Not here: whether that sender may be used, and what else a header gains.

use mail::{
    AddressList, Field, FieldError, Grade, HeaderBlock, Mailbox, Member, encoded_if_needed, name_in, named, readable,
};
use wire::Dialect;

/// Most From fields of one message; more come from no program that writes mail.
const MAX_FROM_FIELDS: usize = 20;
/// Characters of a value that is kept beside its repair.
const MAX_KEPT: usize = 500;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FromFault {
    /// Strict: none is there.
    #[error("it has no From field")]
    Missing,
    /// Strict: two are there; lenient: more than anybody means.
    #[error("it has more than one From field")]
    Several,
    /// Strict: there is no address in it, or it is not RFC 5322.
    #[error("its From field names no address as RFC 5322 section 3.4 wants it")]
    Wrong,
    /// Cannot happen with what is written here.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// A field that was repaired, and what it said, in one printable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    /// Its name.
    pub(crate) field: &'static str,
    /// What it said.
    pub(crate) was: String,
}

/// Sees to it that the header names a sender. `sender` is who stands in for one that is missing or cannot be read.
pub(crate) fn settle_from(
    header: &mut HeaderBlock,
    sender: &Mailbox,
    dialect: Dialect,
) -> Result<Option<Repair>, FromFault> {
    let count = header.count("From");
    let most = if dialect == Dialect::Strict { 1 } else { MAX_FROM_FIELDS };
    if count > most {
        return Err(FromFault::Several);
    }
    let Some(value) = header.value("From") else {
        if dialect == Dialect::Strict {
            return Err(FromFault::Missing);
        }
        header.append(&Field::new("From", &sender.to_string())?);
        return Ok(None);
    };
    let was = readable(value, MAX_KEPT);
    if dialect == Dialect::Strict {
        let is_right = AddressList::parse(value).is_ok_and(|list| list.grade() == Grade::Right);
        return if is_right { Ok(None) } else { Err(FromFault::Wrong) };
    }
    let right = right_form(value, sender);
    if let Some(right) = &right {
        let fields = [Some(Field::new("From", right)?), original("From", &was)?];
        header.replace("From", &fields.into_iter().flatten().collect::<Vec<_>>());
    }
    let renamed = header.rename("From", "X-Original-From", 1)?;
    Ok((right.is_some() || renamed > 0).then_some(Repair { field: "From", was }))
}

/// What the value must become; none if it is right as it is, or nothing is wrong but the dots of a local part, of which
/// Exchange makes what it wants: everybody finds the same addresses in it.
fn right_form(value: &[u8], sender: &Mailbox) -> Option<String> {
    let list = match AddressList::parse(value) {
        Ok(list) if list.is_right_but_for_dots() => return None,
        Ok(list) => list,
        // More than anybody reads: its name would be noise.
        Err(_) => return Some(sender.to_string()),
    };
    let mut usable = list.members().iter().filter_map(|member| Some((member, member.address.as_ref().ok()?)));
    Some(match (usable.next(), usable.next()) {
        (None, _) => named(&name_in(value, 0..0), sender),
        (Some((member, mailbox)), None) => named(&name_in(value, member.addr_spec.clone()), mailbox),
        _ => each_named(value, list.members()),
    })
}

/// The usable among several members, each with its name. Words without an address belong to the next one: a name with a
/// comma in it is read as two members.
fn each_named(value: &[u8], members: &[Member]) -> String {
    let mut written = Vec::new();
    let mut words = None;
    for member in members {
        let whole = &value[member.whole.clone()];
        match &member.address {
            Ok(mailbox) => {
                let start = words.take().unwrap_or(member.whole.start);
                let addr_spec = member.addr_spec.start - start..member.addr_spec.end - start;
                written.push(named(&name_in(&value[start..member.whole.end], addr_spec), mailbox));
            }
            Err(_) if whole.iter().any(|octet| b"<@".contains(octet)) => words = None,
            Err(_) => words = words.or(Some(member.whole.start)),
        }
    }
    written.join(", ")
}

/// The field that keeps what a repaired one said, if it said anything.
fn original(field: &str, was: &str) -> Result<Option<Field>, FieldError> {
    if was.is_empty() {
        return Ok(None);
    }
    let text = if was.is_ascii() { was.to_owned() } else { encoded_if_needed(was) };
    Field::new(&format!("X-Original-{field}"), &text).map(Some)
}

/// Sees to it that one Date at most leaves (RFC 5322 section 3.6), and that it can be read: the first right one stays where
/// it stands; if none is right, one of ours takes the place of the first. The others get another name.
pub(crate) fn repair_date(header: &mut HeaderBlock, date: &str) -> Result<Option<Repair>, FieldError> {
    let kept = header.values("Date").position(mail::is_date);
    let Some(wrong) = header.values("Date").enumerate().find_map(|(at, value)| (Some(at) != kept).then_some(value))
    else {
        return Ok(None);
    };
    let was = readable(wrong, MAX_KEPT);
    if kept.is_none() {
        let fields = [Some(Field::new("Date", date)?), original("Date", &was)?];
        header.replace("Date", &fields.into_iter().flatten().collect::<Vec<_>>());
    }
    header.rename_others("Date", "X-Original-Date", kept.unwrap_or(0))?;
    Ok(Some(Repair { field: "Date", was }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATE: &str = "Sat, 21 Nov 2026 07:54:00 +0000";

    fn sender() -> Mailbox {
        "erp@contoso.com".parse().unwrap()
    }

    /// The header afterwards, without the line ends of its fields.
    fn repaired(header: &[u8]) -> Vec<String> {
        let mut block = HeaderBlock::parse(header.to_vec());
        settle_from(&mut block, &sender(), Dialect::Lenient).unwrap();
        repair_date(&mut block, DATE).unwrap();
        let text = String::from_utf8_lossy(block.as_bytes()).replace("\r\n\t", " ");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn senders_of_devices_and_scripts_are_repaired() {
        for (value, from) in [
            // Printers and scanners.
            (&b"HP Scanner"[..], "HP Scanner <erp@contoso.com>"),
            (b"\"HP Scanner\"", "HP Scanner <erp@contoso.com>"),
            (b"<>", "erp@contoso.com"),
            (b"", "erp@contoso.com"),
            (b"KONICA [2nd floor] <kM@contoso.com>", "\"KONICA [2nd floor]\" <kM@contoso.com>"),
            (b"scanner@contoso.com <scanner@contoso.com>", "\"scanner@contoso.com\" <scanner@contoso.com>"),
            (b"Xerox WorkCentre xerox@contoso.com", "Xerox WorkCentre <xerox@contoso.com>"),
            (b"M\xfcller, Hans <h@contoso.com>", "=?utf-8?Q?M=C3=BCller=2C_Hans?= <h@contoso.com>"),
            (b"Copier\0 <c@contoso.com>", "Copier <c@contoso.com>"),
            (b"\"Copier <c@contoso.com>", "Copier <c@contoso.com>"),
            // cron and other programs of Unix.
            (b"root", "root <erp@contoso.com>"),
            (b"root@", "\"root@\" <erp@contoso.com>"),
            (b"root (Cron Daemon)", "\"root (Cron Daemon)\" <erp@contoso.com>"),
            // What is meant is clear: no other identity may go out.
            (b"user@contoso.com.", "user@contoso.com"),
            (b"'a@b.c'", "a@b.c"),
            (b"Hall <[a@b.c]>", "Hall <a@b.c>"),
            (b"J [x] <j..d@b.c>", "\"J [x]\" <\"j..d\"@b.c>"),
            // Names in character sets that are not known here.
            (b"=?windows-1250?Q?Nov=E1k,_Jan?= <jan@firma.cz>", "=?windows-1250?Q?Nov=E1k=2C_Jan?= <jan@firma.cz>"),
            (b"=?gb2312?B?1cXI/Q==?= <z@b.cn>;", "=?gb2312?B?1cXI/Q==?= <z@b.cn>"),
            (b"=?gb2312?B?1cXI/Q==?= z@b.cn", "=?gb2312?B?1cXI/Q==?= <z@b.cn>"),
            (b"=?ISO-8859-2?Q?Jan@firma?= <jan@firma.cz>", "=?ISO-8859-2?Q?Jan=40firma?= <jan@firma.cz>"),
            // Raw ISO-2022-JP: ESC is a control and must not go upstream, so that the name cannot stay as it is.
            (b"\x1b$B;3ED\x1b(B <y@b.jp>", "\"$B;3ED (B\" <y@b.jp>"),
            // Several keep their names.
            (b"Anna <a@b.c>; Bob <d@e.f>", "Anna <a@b.c>, Bob <d@e.f>"),
            (b"a@b.c (Anna); M\xfcller, Hans <d@e.f>", "Anna <a@b.c>, =?utf-8?Q?M=C3=BCller=2C_Hans?= <d@e.f>"),
            (b"<x y@b.c>, =?koi8-r?B?8tXT?= <a@b.c>; d@e.f.", "=?koi8-r?B?8tXT?= <a@b.c>, d@e.f"),
            // Notes, AS/400, hosts.
            (b"CN=Hans Muster/O=Contoso", "\"CN=Hans Muster/O=Contoso\" <erp@contoso.com>"),
            (b"QSECOFR AT AS400", "QSECOFR AT AS400 <erp@contoso.com>"),
            (b"a@contoso.com; b@contoso.com", "a@contoso.com, b@contoso.com"),
            (b"HP\x1b[31m\x07", "\"HP [31m\" <erp@contoso.com>"),
        ] {
            let lines = repaired(&[b"A: 1\r\nFrom: ", value, b"\r\nB: 2\r\n"].concat());
            assert_eq!((lines[0].as_str(), lines.last().unwrap().as_str()), ("A: 1", "B: 2"));
            assert_eq!(lines[1], format!("From: {from}"));
            let was = readable(value, MAX_KEPT);
            assert_eq!(lines[2].starts_with("X-Original-From: "), !was.is_empty(), "{lines:?}");
            assert!(lines[2].bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic()), "{lines:?}");
        }
    }

    #[test]
    fn right_senders_and_dates_are_left_alone() {
        for header in [
            "From: a@b.c\r\n",
            "From: Root (Cron Daemon) <root@erp01>\r\nDate: Sat, 21 Nov 26 7:54 CET\r\n",
            "From : J. R. M\u{fc}ller <j@b.c> (x)\r\n\t\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000 (never set)\r\n",
            "FROM: a@b.c, b@c.d\r\nSender: a@b.c\r\n",
            "From: john..doe@docomo.ne.jp\r\n",
            "From: J <.john.@docomo.ne.jp>\r\n",
        ] {
            let mut block = HeaderBlock::parse(header.as_bytes().to_vec());
            assert_eq!(settle_from(&mut block, &sender(), Dialect::Lenient), Ok(None));
            assert_eq!(repair_date(&mut block, DATE), Ok(None));
            assert_eq!(block.as_bytes(), header.as_bytes());
        }
    }

    #[test]
    fn dates_of_no_meaning_are_replaced() {
        for (value, original) in [
            ("21/11/2026 10:00", Some("21/11/2026 10:00")),
            ("", None),
            ("Sat Nov 21 07:54:00 2026", Some("Sat Nov 21 07:54:00 2026")),
            ("%d.%m. \u{1b}[1m", Some("%d.%m. [1m")),
        ] {
            let lines = repaired(format!("From: a@b.c\r\nDate: {value}\r\nB: 2\r\n").as_bytes());
            let mut wanted = vec!["From: a@b.c".to_owned(), format!("Date: {DATE}")];
            wanted.extend(original.map(|original| format!("X-Original-Date: {original}")));
            wanted.push("B: 2".to_owned());
            assert_eq!(lines, wanted);
        }
    }

    #[test]
    fn one_date_leaves_and_it_is_a_right_one_if_there_is_one() {
        const OTHER: &str = "Fri, 20 Nov 2026 10:00:00 +0100";
        for (dates, wanted) in [
            (["today", OTHER, "now"], ["X-Original-Date: today", &format!("Date: {OTHER}"), "X-Original-Date: now"]),
            ([OTHER, DATE, ""], [&format!("Date: {OTHER}"), &format!("X-Original-Date: {DATE}"), "X-Original-Date:"]),
            (["", "today", "now"], [&format!("Date: {DATE}"), "X-Original-Date: today", "X-Original-Date: now"]),
        ] {
            let fields: Vec<_> = dates.iter().map(|date| format!("Date: {date}\r\n")).collect();
            let header = fields.concat();
            let lines = repaired(format!("From: a@b.c\r\n{header}B: 2\r\n").as_bytes());
            assert_eq!(lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>()[1..4], wanted);
            assert_eq!(lines.len(), 5, "{lines:?}");
        }
    }

    #[test]
    fn the_first_of_several_senders_stays() {
        let lines = repaired(b"From: a@b.c\r\nTo: x\r\nfrom: b@c.d\r\n");
        assert_eq!(lines, ["From: a@b.c", "To: x", "X-Original-From: b@c.d"]);
        let many = "From: a@b.c\r\n".repeat(MAX_FROM_FIELDS + 1);
        let mut block = HeaderBlock::parse(many.into_bytes());
        assert_eq!(settle_from(&mut block, &sender(), Dialect::Lenient), Err(FromFault::Several));
    }

    #[test]
    fn a_missing_sender_is_made() {
        assert_eq!(repaired(b"A: 1\r\n"), ["A: 1", "From: erp@contoso.com"]);
    }

    /// All lines but those of the fields that a repair names.
    fn others(header: &HeaderBlock) -> Vec<u8> {
        let mut left = header.clone();
        for name in ["From", "Date", "X-Original-From", "X-Original-Date"] {
            while left.replace(name, &[]) {}
        }
        left.into_bytes()
    }

    /// Each character as an octet of a Q word, with bare commas and the like, as careless programs write it.
    fn careless_word(name: &str) -> String {
        let octet = |c: char| match c {
            ' ' => "_".to_owned(),
            '?' | '=' | '_' => format!("={:02X}", u32::from(c)),
            c if c.is_ascii() => c.to_string(),
            c => format!("={:02X}", u32::from(c)),
        };
        format!("=?iso-8859-1?Q?{}?=", name.chars().map(octet).collect::<String>())
    }

    proptest! {
        #[test]
        fn a_repaired_name_says_what_it_said(
            name in "[A-Z\u{e4}\u{df}]([a-z\u{fc},.;:@?=_()!' ]{0,30}[a-z\u{e9}])?",
            fault in proptest::sample::select(&["W <a@b.c>;", "W <a@b.c", "W a@b.c", "\"W\" <a@b.c>;", "W, <a@b.c>", "W <'a@b.c'>"][..]),
        ) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            let value = fault.replace('W', &careless_word(&name));
            let list = AddressList::parse(value.as_bytes()).unwrap();
            prop_assume!(list.grade() == Grade::Tolerable && list.mailboxes().count() == 1);
            let mut header = HeaderBlock::parse(format!("From: {value}\r\n").into_bytes());
            settle_from(&mut header, &sender(), Dialect::Lenient).unwrap();
            let after = header.value("From").unwrap();
            let list = AddressList::parse(after).unwrap();
            let member = &list.members()[0];
            prop_assert_eq!(list.grade(), Grade::Right);
            prop_assert_eq!(member.address.as_ref().unwrap().to_string(), "a@b.c");
            prop_assert_eq!(name_in(&after[member.display_name.clone().unwrap()], 0..0), mail::Name::Text(name));
        }

        #[test]
        fn a_repair_changes_no_octet_outside_the_fields_it_names(
            fields in proptest::collection::vec((
                proptest::sample::select(&["From", "from ", "Date", "Subject", "X-Original-From", "To", "no field"][..]),
                proptest::collection::vec(prop_oneof![Just(b'@'), Just(b'<'), Just(b'"'), Just(b'a'), Just(b'.'), Just(b' '), any::<u8>()], 0..20),
            ), 0..8),
        ) {
            let octets: Vec<_> = fields.iter().map(|(name, value)| [name.as_bytes(), b":", value, b"\r\n"].concat()).collect();
            let before = HeaderBlock::parse(octets.concat());
            let mut after = before.clone();
            let repair = settle_from(&mut after, &sender(), Dialect::Lenient).unwrap();
            let date = repair_date(&mut after, DATE).unwrap();
            prop_assert_eq!(others(&after), others(&before));
            if before.has("From") {
                prop_assert_eq!(repair.is_none() && date.is_none(), after == before);
            }
            // What leaves is right, and right it stays.
            prop_assert_eq!(after.count("From"), 1);
            let again = AddressList::parse(after.value("From").unwrap()).unwrap();
            prop_assert!(again.is_right_but_for_dots());
            let strict = settle_from(&mut after.clone(), &sender(), Dialect::Strict);
            prop_assert_eq!(strict, if again.grade() == Grade::Right { Ok(None) } else { Err(FromFault::Wrong) });
            prop_assert_eq!(settle_from(&mut after.clone(), &sender(), Dialect::Lenient), Ok(None));
            prop_assert!(after.value("Date").is_none_or(mail::is_date));
            prop_assert_eq!(after.count("Date"), before.count("Date").min(1));
        }
    }
}
