//! Whether the value of a Date field is a time that its readers understand (RFC 5322 section 3.3, its obsolete forms, and
//! what old software makes of them). What time it is stays its own matter: a clock that runs wrong writes right dates.
//!
//! A parser of right dates is not enough for this: what every reader takes is not to be called broken.

use crate::token::{Kind, Token, Tokens};

/// Longest value that is read, in octets: a date, its folds and a comment.
const MAX_LEN: usize = 998;
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MONTHS: [(&str, u32); 12] = [
    ("jan", 31),
    ("feb", 29),
    ("mar", 31),
    ("apr", 30),
    ("may", 31),
    ("jun", 30),
    ("jul", 31),
    ("aug", 31),
    ("sep", 30),
    ("oct", 31),
    ("nov", 30),
    ("dec", 31),
];

/// Whether the octets after the colon of a Date field are a date and a time in the order of RFC 5322. Names of zones, years
/// of two digits, comments, hours of one digit, and a missing weekday, comma, second or zone are no fault.
pub fn is_date(value: &[u8]) -> bool {
    let is_clean = !value.iter().any(|octet| octet.is_ascii_control() && !b"\t\r\n".contains(octet));
    value.len() <= MAX_LEN && is_clean && Reader::new(value).date().is_some()
}

/// The words of a date, comments and blanks left out.
struct Reader<'a> {
    value: &'a [u8],
    tokens: Vec<Token>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self { value, tokens: Tokens::new(value).filter(|token| !token.is_filling()).collect(), at: 0 }
    }

    fn date(mut self) -> Option<()> {
        self.weekday();
        let day = self.number(1..=2, 31)?;
        let month = self.word()?;
        let (_, days) = MONTHS.iter().find(|(name, _)| is_named(month, name))?;
        self.number(2..=4, 9999)?;
        self.skip(b',');
        self.time()?;
        (day > 0 && day <= *days && self.zone()).then_some(())
    }

    /// Readers skip what stands before a comma, in whatever language.
    fn weekday(&mut self) {
        let Some(word) = self.peek_word() else { return };
        let is_name = word.iter().all(|octet| !octet.is_ascii_digit());
        let has_comma = self.tokens.get(self.at + 1).is_some_and(|token| token.is(b','));
        if is_name && (has_comma || WEEKDAYS.iter().any(|name| is_named(word, name))) {
            self.at += 1;
            self.skip(b',');
        }
    }

    fn time(&mut self) -> Option<()> {
        self.number(1..=2, 23)?;
        self.skip(b':').then_some(())?;
        self.number(1..=2, 59)?;
        if self.skip(b':') {
            self.number(1..=2, 60)?;
            if self.skip(b'.') {
                self.number(1..=9, u32::MAX)?;
            }
        }
        Some(())
    }

    /// `+0100`, `GMT`, `+01:00`, `+0100 CET`, `GMT+1` or nothing; hours of half a day would be read as those of a whole one.
    fn zone(&self) -> bool {
        let rest = &self.tokens[self.at..];
        rest.len() <= 4
            && rest.iter().all(|token| {
                let word = &self.value[token.range.clone()];
                let is_half = [&b"am"[..], b"pm"].iter().any(|half| word.eq_ignore_ascii_case(half));
                token.is(b':') || (token.kind == Kind::Atom && word.is_ascii() && !is_half)
            })
    }

    /// A number of so many digits, at most `most`.
    fn number(&mut self, digits: std::ops::RangeInclusive<usize>, most: u32) -> Option<u32> {
        let word = self.word()?;
        let number = std::str::from_utf8(word).ok()?.parse().ok()?;
        // A sign is read by `parse`, and no digit.
        (digits.contains(&word.len()) && word[0].is_ascii_digit() && number <= most).then_some(number)
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        let word = self.peek_word()?;
        self.at += 1;
        Some(word)
    }

    fn peek_word(&self) -> Option<&'a [u8]> {
        let token = self.tokens.get(self.at).filter(|token| token.kind == Kind::Atom)?;
        Some(&self.value[token.range.clone()])
    }

    fn skip(&mut self, octet: u8) -> bool {
        let is_there = self.tokens.get(self.at).is_some_and(|token| token.is(octet));
        self.at += usize::from(is_there);
        is_there
    }
}

/// Whether `word` begins with the three letters of a name.
fn is_named(word: &[u8], name: &str) -> bool {
    word.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_that_readers_understand() {
        for value in [
            " Sat, 21 Nov 2026 07:54:00 +0000\r\n",
            "21 Nov 2026 07:54 -0500",
            "Sat, 21 Nov 26 7:54:00 EST",
            "Sat,21 Nov 2026 07:54:00 GMT",
            "Sat 21 Nov 2026 07:54:00 +0100 (CET)",
            "Sat, 21 Nov 2026\r\n\t07:54:00 +0200 CEST",
            "Sat (a \\) (b)) , 21 (c) Nov 2026 07 : 54 : 00 +0000",
            "Sat, 21 Nov 2026 07:54:00.123 +01:00",
            "Sat, 21 Nov 2026 07:54:00",
            "Sat, 21 November 2026 07:54:00 GMT+1",
            "Sa, 21 Nov 2026 07:54:00 +0100",
            // The wrong weekday, and clocks that were never set.
            "Mon, 21 Nov 2026 07:54:00 +0000",
            "Thu, 01 Jan 1970 00:00:00 +0000",
            "Mon, 01 Jan 1900 00:00:00 +0000",
            "Thu, 31 Dec 2026 23:59:60 +0000",
        ] {
            assert!(is_date(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn dates_that_nobody_understands() {
        for value in [
            "",
            " \r\n",
            "21/11/2026 10:00",
            "2026-11-21T07:54:00Z",
            "21.11.2026 07:54:00",
            "today",
            "Sat, 21 Nov 2026",
            "Sat, 00 Nov 2026 07:54:00 +0000",
            "Sat, 31 Nov 2026 07:54:00 +0000",
            "Sat, 21 Dez 2026 07:54:00 +0000",
            "Sat, 21 Nov 2026 25:54:00 +0000",
            "Sat, 21 Nov 2026 07:54:00 PM",
            "Sat, 21 Nov 2026 07:54:00 +0000 and so on and on and on",
            "Sat Nov 21 07:54:00 2026",
            "Sat, +1 Nov 2026 07:54:00 +0000",
            "Sat, 21 Nov 2026 07:54:00 +0000\0",
            "Sat, 21 Nov 2026 07:54:00 (\u{1b}[1m)",
            "1763711640",
            "%d %b %Y %H:%M:%S",
        ] {
            assert!(!is_date(value.as_bytes()), "{value}");
        }
        assert!(!is_date(format!("Sat, 21 Nov 2026 07:54:00 +0000{}", " ".repeat(MAX_LEN)).as_bytes()));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(value: Vec<u8>) {
            let _ = is_date(&value);
        }

        #[test]
        fn dates_of_the_standard_are_understood(
            date in "((Mon|Tue|Wed|Thu|Fri|Sat|Sun), ?)?(0?[1-9]|1[0-9]|2[0-8]) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (19|20)?[0-9]{2} ([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])? ([+-][01][0-9][0-5][0-9]|GMT|UT|[ECMP][SD]T|[A-IK-Z])( [(]x[)])?",
        ) {
            prop_assert!(is_date(date.as_bytes()), "{}", date);
        }
    }
}
