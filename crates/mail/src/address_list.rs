//! The mailboxes in a From, Sender or Reply-To field (RFC 5322 section 3.4 with the obsolete forms of section 4.4), and where
//! in the value each stands, so that just those octets can be replaced.
//!
//! What is written wrongly but names an address is read all the same. Nothing is decoded: encoded words stay as they are.

use std::ops::Range;

use crate::address::{AddressError, Mailbox};
use crate::token::{Kind, Token, Tokens};

/// Longest value that is read, in octets: some hundred addresses with their names.
const MAX_VALUE_LEN: usize = 64 * 1024;
/// Most members of a list.
const MAX_MEMBERS: usize = 1000;

/// Why a value is not read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressListError {
    /// More octets than a list of addresses has.
    #[error("it is longer than {MAX_VALUE_LEN} octets")]
    TooLong,
    /// More members than a list of addresses has.
    #[error("it has more than {MAX_MEMBERS} addresses")]
    TooMany,
}

/// How well a value keeps to the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// RFC 5322 has it, if only among its obsolete forms; octets beyond ASCII in names are no fault here.
    Right,
    /// It names an address, but not as RFC 5322 wants it: another reader may find another one, or refuse it.
    Tolerable,
    /// No address in it can be used.
    Broken,
}

/// The members of a list of addresses, those of its groups included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressList {
    members: Vec<Member>,
    is_right: bool,
}

/// One member: a mailbox, or what should have been one. All ranges are in the value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The address, or why it is none. One whose dots stand where RFC 5322 has none (`a..b@c.d`, as some providers once gave
    /// out) is here with its local part in quotes, which means the same.
    pub address: Result<Mailbox, AddressError>,
    /// Whether the address is such a one.
    pub has_odd_dots: bool,
    /// Name, address and comments, without blanks around them.
    pub whole: Range<usize>,
    /// The address alone, without angle brackets and without a source route. Empty if there is nothing for one.
    pub addr_spec: Range<usize>,
    /// The address with the source route before it: what another address takes the place of.
    pub path: Range<usize>,
    /// Whether it is written as RFC 5322 has it, the dots of its address left out of account. Others in the list may not be.
    pub is_right: bool,
    /// The name of the group that it is in, comments included.
    pub group: Option<Range<usize>>,
    /// The name as written, quotes and comments included; for an address without angle brackets the comment behind it, which
    /// is how names were written once, with its brackets. None if there is none.
    pub display_name: Option<Range<usize>>,
}

impl AddressList {
    /// Reads the octets after the colon of a field, folds included. In linear time; fails only if there are too many.
    pub fn parse(value: &[u8]) -> Result<Self, AddressListError> {
        if value.len() > MAX_VALUE_LEN {
            return Err(AddressListError::TooLong);
        }
        let mut reader = Reader::new(value);
        for token in Tokens::new(value) {
            reader.take(token)?;
        }
        reader.end()
    }

    /// All members, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The addresses that can be used, in order.
    pub fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        self.members.iter().filter_map(|member| member.address.as_ref().ok())
    }

    /// Whether nothing is wrong but, at most, the dots in local parts: every reader finds the same addresses.
    pub fn is_right_but_for_dots(&self) -> bool {
        self.is_right && self.mailboxes().next().is_some() && self.members.iter().all(|member| member.address.is_ok())
    }

    /// How well it keeps to the standard.
    pub fn grade(&self) -> Grade {
        if self.mailboxes().next().is_none() {
            Grade::Broken
        } else if self.is_right_but_for_dots() && !self.members.iter().any(|member| member.has_odd_dots) {
            Grade::Right
        } else {
            Grade::Tolerable
        }
    }
}

/// What stands between angle brackets so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Angle {
    None,
    /// Open, and nothing but blanks since.
    Opened,
    /// In a source route, whose commas separate no members.
    Route,
    /// In an address.
    Address,
}

/// Takes tokens and makes members of them.
struct Reader<'a> {
    value: &'a [u8],
    members: Vec<Member>,
    is_right: bool,
    /// The tokens of the member under way.
    tokens: Vec<Token>,
    angle: Angle,
    in_group: bool,
    /// The name of that group.
    group: Option<Range<usize>>,
    /// A group has ended and no comma come since.
    after_group: bool,
}

impl<'a> Reader<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self {
            value,
            members: Vec::new(),
            // Whatever the standard said once, a control octet in a name is a fault today.
            is_right: !value.iter().any(|octet| octet.is_ascii_control() && !b"\t\r\n".contains(octet)),
            tokens: Vec::new(),
            angle: Angle::None,
            in_group: false,
            group: None,
            after_group: false,
        }
    }

    fn take(&mut self, token: Token) -> Result<(), AddressListError> {
        match token.kind {
            Kind::Special(b',') if !matches!(self.angle, Angle::Route | Angle::Opened) => {
                self.member()?;
                self.after_group = false;
                return Ok(());
            }
            Kind::Special(b';') => {
                self.member()?;
                // Some programs separate members by it.
                self.is_right &= self.in_group;
                self.after_group = std::mem::take(&mut self.in_group);
                self.group = None;
                return Ok(());
            }
            Kind::Special(b':') if self.angle == Angle::None && self.names_a_group() => {
                self.in_group = true;
                self.group = span_if_any(&self.tokens);
                self.tokens.clear();
                return Ok(());
            }
            Kind::Special(b':') if self.angle == Angle::Route => self.angle = Angle::Address,
            Kind::Special(b'@' | b',') if self.angle == Angle::Opened => self.angle = Angle::Route,
            Kind::Special(b'<') => self.angle = Angle::Opened,
            Kind::Special(b'>') => self.angle = Angle::None,
            Kind::Blank | Kind::Comment => {}
            _ if self.angle == Angle::Opened => self.angle = Angle::Address,
            _ => {}
        }
        self.tokens.push(token);
        Ok(())
    }

    fn names_a_group(&self) -> bool {
        !self.in_group && !self.after_group && is_phrase(&self.tokens) && self.tokens.iter().any(|t| !t.is_filling())
    }

    fn end(mut self) -> Result<AddressList, AddressListError> {
        self.member()?;
        Ok(AddressList { members: self.members, is_right: self.is_right && !self.in_group })
    }

    /// What was taken since the last separator is a member, unless there is nothing in it.
    fn member(&mut self) -> Result<(), AddressListError> {
        self.angle = Angle::None;
        let tokens = std::mem::take(&mut self.tokens);
        if tokens.iter().all(Token::is_filling) {
            return Ok(());
        }
        if self.members.len() == MAX_MEMBERS {
            return Err(AddressListError::TooMany);
        }
        self.is_right &= !self.after_group;
        let member = match bracket(&tokens) {
            Some(open) => self.in_brackets(&tokens, open),
            None => self.bare(&tokens),
        };
        self.is_right &= member.is_right;
        self.members.push(member);
        Ok(())
    }

    /// `name <address>`.
    fn in_brackets(&self, tokens: &[Token], open: usize) -> Member {
        let inside = &tokens[open + 1..];
        let (inside, behind) = match inside.iter().position(|token| token.is(b'>')) {
            Some(close) => (&inside[..close], Some(&inside[close + 1..])),
            None => (inside, None),
        };
        let name = &tokens[..open];
        let is_right = is_phrase(name) && behind.is_some_and(|behind| behind.iter().all(Token::is_filling));
        let (addr_spec, reading) = self.addr_spec(without_route(inside));
        let addr_spec = addr_spec.unwrap_or(tokens[open].range.end..tokens[open].range.end);
        let start = inside.iter().find(|token| !token.is_filling()).map_or(addr_spec.start, |token| token.range.start);
        let Reading { address, is_mended, has_odd_dots } = reading;
        Member {
            address,
            has_odd_dots,
            whole: span(tokens),
            path: start.min(addr_spec.start)..addr_spec.end,
            addr_spec,
            is_right: is_right && !is_mended,
            group: self.group.clone(),
            display_name: span_if_any(name),
        }
    }

    /// An address without brackets, or words with one among them.
    fn bare(&self, tokens: &[Token]) -> Member {
        let whole = span(tokens);
        let (addr_spec, Reading { address, is_mended, has_odd_dots }) = self.addr_spec(tokens);
        let is_right = address.is_ok() && !is_mended;
        let (addr_spec, address) = match (addr_spec, address) {
            (Some(addr_spec), Ok(address)) => (Some(addr_spec), Ok(address)),
            (addr_spec, address) => {
                // A word that is an address as it stands is before those that must be mended to be one.
                let found = self
                    .only_word(tokens, |octets| Mailbox::parse(octets).ok())
                    .or_else(|| self.only_word(tokens, mended));
                found.map_or((addr_spec, address), |(range, mailbox)| (Some(range), Ok(mailbox)))
            }
        };
        let addr_spec = addr_spec.unwrap_or(whole.start..whole.start);
        let comment = tokens.iter().rfind(|token| token.kind == Kind::Comment).map(|token| token.range.clone());
        Member {
            address,
            has_odd_dots: has_odd_dots && is_right,
            whole,
            path: addr_spec.clone(),
            addr_spec,
            is_right,
            group: self.group.clone(),
            display_name: comment,
        }
    }

    /// The one word among `tokens` that is an address to `read`; none if there are several.
    fn only_word(&self, tokens: &[Token], read: impl Fn(&[u8]) -> Option<Mailbox>) -> Option<(Range<usize>, Mailbox)> {
        let mut words = tokens.split(Token::is_filling).filter_map(|word| {
            let range = word.first()?.range.start..word.last()?.range.end;
            read(&self.value[range.clone()]).map(|mailbox| (range, mailbox))
        });
        words.next().filter(|_| words.next().is_none())
    }

    /// The address that `tokens` make when comments and blanks are left out (RFC 5322 section 4.4), and where it stands.
    fn addr_spec(&self, tokens: &[Token]) -> (Option<Range<usize>>, Reading) {
        let mut octets = Vec::new();
        let mut range: Option<Range<usize>> = None;
        let mut filled = false;
        for token in tokens {
            if token.is_filling() {
                filled = true;
                continue;
            }
            let joins = |token: &Token| matches!(token.kind, Kind::Special(b'.' | b'@'));
            if filled && !joins(token) && !octets.ends_with(b".") && !octets.ends_with(b"@") {
                // Two words are no address, and must not become one.
                octets.push(b' ');
            }
            filled = false;
            octets.extend_from_slice(&self.value[token.range.clone()]);
            let start = range.map_or(token.range.start, |range| range.start);
            range = Some(start..token.range.end);
        }
        let octets = octets.strip_prefix(b" ").unwrap_or(&octets);
        (range, Reading::of(octets))
    }
}

/// What stands for an address.
struct Reading {
    address: Result<Mailbox, AddressError>,
    is_mended: bool,
    has_odd_dots: bool,
}

impl Reading {
    fn of(octets: &[u8]) -> Self {
        let reading = |address, is_mended, has_odd_dots| Self { address, is_mended, has_odd_dots };
        match Mailbox::parse(octets) {
            Ok(mailbox) => reading(Ok(mailbox), false, false),
            Err(error) => match (quoted_dots(octets), mended(octets)) {
                (Some(mailbox), _) => reading(Ok(mailbox), false, true),
                (None, Some(mailbox)) => reading(Ok(mailbox), true, false),
                (None, None) => reading(Err(error), false, false),
            },
        }
    }
}

/// The address without the dot of the root behind its domain and without single quotes or square brackets around it.
fn mended(octets: &[u8]) -> Option<Mailbox> {
    let octets = octets.strip_suffix(b".").unwrap_or(octets);
    let between = |open: &[u8], close: &[u8]| octets.strip_prefix(open)?.strip_suffix(close);
    let octets = between(b"'", b"'").or_else(|| between(b"[", b"]")).unwrap_or(octets);
    Mailbox::parse(octets).ok().or_else(|| quoted_dots(octets))
}

/// The address if only the dots of its local part stand wrongly, which they may in quotes.
fn quoted_dots(octets: &[u8]) -> Option<Mailbox> {
    let at = octets.iter().position(|octet| *octet == b'@')?;
    let (local_part, rest) = octets.split_at(at);
    let without_dots: Vec<u8> = local_part.iter().map(|octet| if *octet == b'.' { b'_' } else { *octet }).collect();
    // As an address without these dots it has to be right: what else is wrong is no matter of dots.
    Mailbox::parse(&[&without_dots, rest].concat()).ok().filter(|_| local_part.contains(&b'.'))?;
    Mailbox::parse(&[b"\"", local_part, b"\"", rest].concat()).ok()
}

/// The last `<` with something behind it; if there is none, the last.
fn bracket(tokens: &[Token]) -> Option<usize> {
    let is_filled = |open: &usize| tokens[open + 1..].iter().find(|t| !t.is_filling()).is_some_and(|t| !t.is(b'>'));
    let opens = || tokens.iter().enumerate().filter(|(_, token)| token.is(b'<')).map(|(at, _)| at);
    opens().rfind(is_filled).or_else(|| opens().next_back())
}

/// A phrase of words and dots, or nothing.
fn is_phrase(tokens: &[Token]) -> bool {
    tokens.iter().all(|t| t.is_filling() || t.is(b'.') || matches!(t.kind, Kind::Atom | Kind::Quoted))
}

/// `@one,@two:user@three` is `user@three`.
fn without_route(tokens: &[Token]) -> &[Token] {
    let is_route = tokens.iter().find(|token| !token.is_filling()).is_some_and(|t| t.is(b'@') || t.is(b','));
    let colon = tokens.iter().position(|token| token.is(b':')).filter(|_| is_route);
    colon.map_or(tokens, |colon| &tokens[colon + 1..])
}

/// From the first token to the last, blanks left out.
fn span_if_any(tokens: &[Token]) -> Option<Range<usize>> {
    let is_there = |token: &&Token| token.kind != Kind::Blank;
    let first = tokens.iter().find(is_there)?;
    let last = tokens.iter().rfind(is_there)?;
    Some(first.range.start..last.range.end)
}

fn span(tokens: &[Token]) -> Range<usize> {
    span_if_any(tokens).unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each member as `name|address`, with `?` for what is no address.
    fn read(value: &[u8]) -> (Vec<String>, Grade) {
        let list = AddressList::parse(value).unwrap();
        let shown = |range: &Range<usize>| String::from_utf8_lossy(&value[range.clone()]).into_owned();
        let member = |member: &Member| {
            let name = member.display_name.as_ref().map(shown).unwrap_or_default();
            let address = member.address.as_ref().map_or_else(|_| "?".to_owned(), ToString::to_string);
            format!("{name}|{address}")
        };
        (list.members().iter().map(member).collect(), list.grade())
    }

    fn check(value: &[u8], members: &[&str], grade: Grade) {
        let wanted = members.iter().map(|member| (*member).to_owned()).collect();
        assert_eq!(read(value), (wanted, grade), "{}", String::from_utf8_lossy(value));
    }

    #[test]
    fn what_the_standard_has_is_right() {
        for (value, members) in [
            (&b" scanner@contoso.com\r\n"[..], &["|scanner@contoso.com"][..]),
            (b" <scanner@contoso.com>\r\n", &["|scanner@contoso.com"]),
            (b" HP Scanner <scanner@contoso.com>\r\n", &["HP Scanner|scanner@contoso.com"]),
            (b"\"M\xfcller, Hans\" <h@b.c>", &["\"M\u{fffd}ller, Hans\"|h@b.c"]),
            (b"M\xc3\xbcller\r\n <h@b.c>\r\n", &["M\u{fc}ller|h@b.c"]),
            (b"=?utf-8?Q?M=C3=BCller?= Hans <h@b.c>", &["=?utf-8?Q?M=C3=BCller?= Hans|h@b.c"]),
            (b"root@erp (Cron (nightly) Daemon)", &["(Cron (nightly) Daemon)|root@erp"]),
            (b"(Cron) root @ erp . local", &["(Cron)|root@erp.local"]),
            (b"J.R. Smith Jr. <j@b.c>", &["J.R. Smith Jr.|j@b.c"]),
            (b"<@one,@two:a@b.c>", &["|a@b.c"]),
            (b"x < , @one , @two : a@b.c >", &["x|a@b.c"]),
            (b"a@b.c, , D <d@e.f>,", &["|a@b.c", "D|d@e.f"]),
            (b"Ops: a@b.c, \"D\" <d@e.f>; , g@h.i", &["|a@b.c", "\"D\"|d@e.f", "|g@h.i"]),
            (b"\"a> SIZE=1\"@c.d", &["|\"a> SIZE=1\"@c.d"]),
            (b"<\"a@b\"@[192.0.2.1]>", &["|\"a@b\"@[192.0.2.1]"]),
            (b"x@[IPv6:2001:db8::1]", &["|x@[IPv6:2001:db8::1]"]),
        ] {
            check(value, members, Grade::Right);
        }
    }

    #[test]
    fn what_names_an_address_is_tolerated() {
        for (value, members) in [
            (&b"scanner@contoso.com <scanner@contoso.com>"[..], &["scanner@contoso.com|scanner@contoso.com"][..]),
            (b"HP Scanner scanner@contoso.com", &["|scanner@contoso.com"]),
            (b"scanner@contoso.com HP Scanner", &["|scanner@contoso.com"]),
            (b"M\xfcller, Hans <h@b.c>", &["|?", "Hans|h@b.c"]),
            (b"Copier [2nd floor] <c@b.c>", &["Copier [2nd floor]|c@b.c"]),
            (b"Scanner: hall <s@b.c>", &["hall|s@b.c"]),
            (b"HP <hp@b.c", &["HP|hp@b.c"]),
            (b"<<hp@b.c>>", &["<|hp@b.c"]),
            (b"\"HP <hp@b.c>", &["\"HP|hp@b.c"]),
            (b"HP (hall <hp@b.c>", &["HP (hall|hp@b.c"]),
            (b"HP <> <hp@b.c>", &["HP <>|hp@b.c"]),
            (b"<hp@b.c> HP", &["|hp@b.c"]),
            (b"<hp@b.c> <>", &["|hp@b.c"]),
            (b"a@b.c; d@e.f", &["|a@b.c", "|d@e.f"]),
            (b"HP\x1b[1m <hp@b.c>", &["HP\u{1b}[1m|hp@b.c"]),
            (b"john smith@c.d, <john smith@c.d>", &["|smith@c.d", "|?"]),
            (b"=?utf-8?Q?M=C3=BCller,?= Hans <h@b.c>", &["|?", "?= Hans|h@b.c"]),
            (b"mailto:hp@b.c", &["|hp@b.c"]),
            (b"Ops: a@b.c; d@e.f", &["|a@b.c", "|d@e.f"]),
            (b"a@b.c: <d@e.f>", &["a@b.c:|d@e.f"]),
            // What is meant is clear.
            (b"user@contoso.com.", &["|user@contoso.com"]),
            (b"'a@b.c'", &["|a@b.c"]),
            (b"[a@b.c]", &["|a@b.c"]),
            (b"Hall <'a@b.c'>", &["Hall|a@b.c"]),
            (b"Hall [a@b.c]", &["|a@b.c"]),
            (b"'x@y.z' a@b.c", &["|a@b.c"]),
            (b"john..doe@docomo.ne.jp", &["|\"john..doe\"@docomo.ne.jp"]),
            (b"J <.john.@docomo.ne.jp>", &["J|\".john.\"@docomo.ne.jp"]),
        ] {
            check(value, members, Grade::Tolerable);
        }
    }

    #[test]
    fn dots_are_the_only_fault_or_one_of_several() {
        for (value, only_dots) in [
            ("john..doe@docomo.ne.jp", true),
            ("a@b.c, J <john.@docomo.ne.jp>", true),
            ("a@b.c", true),
            ("john..doe@docomo.ne.jp; a@b.c", false),
            ("john..doe@docomo.ne.jp.", false),
            ("", false),
        ] {
            assert_eq!(AddressList::parse(value.as_bytes()).unwrap().is_right_but_for_dots(), only_dots, "{value}");
        }
    }

    #[test]
    fn what_names_none_is_broken() {
        for value in [
            &b"scanner"[..],
            b"",
            b" \r\n",
            b"<>",
            b"\"HP Scanner\"",
            b"root@",
            b"root@\r\n",
            b"@erp01",
            b"HP Scanner <>",
            b"HP Scanner <scanner>",
            b"CN=Hans Muster/O=Contoso",
            b"QSECOFR AT AS400",
            b"a@b.c d@e.f",
            b"HP hp@b.c>",
            b"undisclosed-senders:;",
            b"a@b\0.c",
            b"\"a\r\nb\"@c.d",
            b",,,;",
            b"a@b.c..",
            b"a@b.c'",
            b"a..b@c..d",
            b"[[a@b.c]]",
            b"m\xfcller@b.c",
        ] {
            let (members, grade) = read(value);
            assert_eq!(grade, Grade::Broken, "{} is {members:?}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn the_address_can_be_replaced_where_it_stands() {
        let value = b" \"Hall\" <@old:hall @ erp01> (x), b@c.d (B)\r\n";
        let list = AddressList::parse(value).unwrap();
        let spans: Vec<_> =
            list.members().iter().map(|m| (&value[m.whole.clone()], &value[m.addr_spec.clone()])).collect();
        assert_eq!(spans, [(&b"\"Hall\" <@old:hall @ erp01> (x)"[..], &b"hall @ erp01"[..]), (b"b@c.d (B)", b"b@c.d")]);
    }

    #[test]
    fn a_member_knows_its_group_and_how_it_is_written() {
        let value = b"\"Ops\" (x) : a@b.c, D <@one,@two:d@e.f>, HP h@b.c; i@b.c (I), <'j@b.c'>, J <j..k@b.c>";
        let list = AddressList::parse(value).unwrap();
        let shown = |range: &Range<usize>| str::from_utf8(&value[range.clone()]).unwrap();
        let members = list.members().iter().map(|m| (m.group.as_ref().map(shown), shown(&m.path), m.is_right));
        let group = Some("\"Ops\" (x)");
        assert_eq!(
            members.collect::<Vec<_>>(),
            [
                (group, "a@b.c", true),
                (group, "@one,@two:d@e.f", true),
                (group, "h@b.c", false),
                (None, "i@b.c", true),
                (None, "'j@b.c'", false),
                (None, "j..k@b.c", true),
            ]
        );
    }

    #[test]
    fn there_is_a_bound() {
        let many = "a@b,".repeat(MAX_MEMBERS);
        assert_eq!(AddressList::parse(many.as_bytes()).unwrap().members().len(), MAX_MEMBERS);
        assert_eq!(AddressList::parse(format!("{many}a@b").as_bytes()), Err(AddressListError::TooMany));
        assert!(AddressList::parse(&b",".repeat(MAX_VALUE_LEN)).is_ok());
        assert_eq!(AddressList::parse(&b",".repeat(MAX_VALUE_LEN + 1)), Err(AddressListError::TooLong));
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"()<>[]:;@\\,.\" ab\r\n"[..])],
            0..80,
        )
    }

    const RIGHT: [&str; 8] = [
        "a@b.c",
        "<a@b.c>",
        "M\u{fc}ller & S\u{f6}hne <a@b.c>",
        "\"x, y\" (z) < @one,@two: a . b @ c . d (e) >",
        "(z) a@b.c (\\))",
        "g: a@b.c, \"a b\"@c.d;",
        "\"<x@y>\"<a@[192.0.2.1]>",
        "=?utf-8?Q?=C3=BC?=\r\n <a@b>",
    ];

    proptest! {
        #[test]
        fn ranges_lie_within_each_other_and_in_order(value in octets()) {
            let list = AddressList::parse(&value).unwrap();
            let mut end = 0;
            for member in list.members() {
                prop_assert!(end <= member.whole.start && member.whole.end <= value.len());
                prop_assert!(member.whole.start <= member.path.start && member.path.start <= member.addr_spec.start);
                prop_assert!(member.addr_spec.end <= member.whole.end && member.path.end == member.addr_spec.end);
                if let Some(name) = &member.display_name {
                    prop_assert!(member.whole.start <= name.start && name.end <= member.whole.end);
                }
                end = member.whole.end;
            }
        }

        #[test]
        fn a_replaced_address_is_read_where_it_was(
            members in proptest::collection::vec(proptest::sample::select(&RIGHT[..]), 1..6),
            separator in proptest::sample::select(&[",", ", ", ",\r\n\t", " , ,"][..]),
        ) {
            let value = members.join(separator).into_bytes();
            let list = AddressList::parse(&value).unwrap();
            prop_assert_eq!(list.grade(), Grade::Right);
            let other: Mailbox = "other@contoso.com".parse().unwrap();
            for (at, member) in list.members().iter().enumerate() {
                let replaced = [&value[..member.addr_spec.start], b"other@contoso.com", &value[member.addr_spec.end..]].concat();
                let again = AddressList::parse(&replaced).unwrap();
                prop_assert_eq!(again.grade(), Grade::Right);
                for (number, mailbox) in again.mailboxes().enumerate() {
                    prop_assert_eq!(Ok(mailbox), if number == at { Ok(&other) } else { list.members()[number].address.as_ref() });
                }
            }
        }

        #[test]
        fn mailboxes_written_by_the_standard_are_found(
            members in proptest::collection::vec(("[a-z]{1,8}", "[a-z]{1,8}[.][a-z]{2,3}", "([A-Z][a-z]{1,8} ?)?|\"[A-Z@,<>a-z ]{1,9}\""), 1..6),
            separator in proptest::sample::select(&[",", ", ", ",\r\n\t", " , ,"][..]),
        ) {
            let written: Vec<_> = members.iter().map(|(local, domain, name)| format!("{name}<{local}@{domain}>")).collect();
            let list = AddressList::parse(written.join(separator).as_bytes()).unwrap();
            let wanted: Vec<_> = members.iter().map(|(local, domain, _)| format!("{local}@{domain}")).collect();
            prop_assert_eq!(list.grade(), Grade::Right);
            prop_assert_eq!(list.mailboxes().map(ToString::to_string).collect::<Vec<_>>(), wanted);
        }
    }
}
