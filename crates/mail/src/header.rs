//! The header block of a message at rest: found in a stream, read by field, and extended without touching an octet
//! that was there (RFC 5322 section 2.2). It ends before the empty line; the body never comes here.

use std::ops::Range;

/// Longest header block we take and edit in memory (design section 4).
pub const MAX_HEADER_LEN: usize = 256 * 1024;

/// The header block grew beyond [`MAX_HEADER_LEN`] before its empty line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header block is longer than {MAX_HEADER_LEN} octets")]
pub struct HeaderTooLong;

/// A name or value that would not be one header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The name is empty or holds what a name cannot (RFC 5322 section 3.6.8).
    #[error("not a header field name")]
    Name,
    /// The value holds a control octet; folding is done here, not by the caller.
    #[error("a header field value cannot hold control characters")]
    Value,
    /// What is to be replaced overlaps, is out of order or lies outside the value.
    #[error("the edits do not lie one behind the other within the value")]
    Place,
    /// A line of the value would begin with what reads as a field of its own.
    #[error("a line of the header field would be another field")]
    Line,
}

/// Longest line of a message, its end left out (RFC 5322 section 2.1.1).
const MAX_LINE_LEN: usize = 998;

/// Longest start of a line in which the colon of a field is looked for: RFC 5322 section 2.1.1 has no longer line.
const MAX_NAME_LEN: usize = 998;

/// Whether a message that begins with `octets` begins with a header: a field (or an mbox `From ` line and then a field), or
/// the empty line that ends an empty one. If not, the client sent a body without a header. None as long as more octets must
/// come to know, which is for two lines at most.
pub fn begins_with_header(octets: &[u8]) -> Option<bool> {
    if octets.starts_with(b"\r\n") {
        return Some(true);
    }
    let (line, next) = octets.split_at(line_len(octets));
    let is_mbox = line.starts_with(b"From ") && line.ends_with(b"\n") && line.len() <= MAX_NAME_LEN;
    match begins_with_field(octets) {
        Some(false) if is_mbox => begins_with_field(next),
        answer => answer,
    }
}

fn begins_with_field(octets: &[u8]) -> Option<bool> {
    let line = &octets[..line_len(octets)];
    if name_len(&line[..line.len().min(MAX_NAME_LEN)]).is_some() {
        return Some(true);
    }
    (line.ends_with(b"\n") || line.len() >= MAX_NAME_LEN).then_some(false)
}

/// Finds the end of the header block in a stream of octets whose lines end in CRLF.
#[derive(Debug, Default)]
pub struct HeaderSplitter {
    octets: Vec<u8>,
}

impl HeaderSplitter {
    /// Takes the next octets. When the empty line has come, gives the header block and those octets of `chunk` that
    /// already belong to the body.
    pub fn push<'a>(&mut self, chunk: &'a [u8]) -> Result<Option<(HeaderBlock, &'a [u8])>, HeaderTooLong> {
        let before = self.octets.len();
        let room = MAX_HEADER_LEN + 4 - before.min(MAX_HEADER_LEN + 4);
        let taken = &chunk[..chunk.len().min(room)];
        self.octets.extend_from_slice(taken);
        let Some((header_len, body_start)) = empty_line(&self.octets, before.saturating_sub(3)) else {
            // CR LF CR of the end may be here and its last LF yet to come.
            let room_for_end = MAX_HEADER_LEN + 1;
            return if self.octets.len() > room_for_end { Err(HeaderTooLong) } else { Ok(None) };
        };
        if header_len > MAX_HEADER_LEN {
            return Err(HeaderTooLong);
        }
        // What follows the empty line was in this chunk: before it, no empty line had been seen.
        let rest = &chunk[body_start - before..];
        self.octets.truncate(header_len);
        Ok(Some((HeaderBlock::parse(std::mem::take(&mut self.octets)), rest)))
    }

    /// The message ended without an empty line: all of it is header block.
    pub fn finish(self) -> Result<HeaderBlock, HeaderTooLong> {
        if self.octets.len() > MAX_HEADER_LEN { Err(HeaderTooLong) } else { Ok(HeaderBlock::parse(self.octets)) }
    }
}

/// Length of the header block and start of the body, looking from `from` on.
fn empty_line(octets: &[u8], from: usize) -> Option<(usize, usize)> {
    if octets.starts_with(b"\r\n") {
        return Some((0, 2));
    }
    octets[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| (from + at + 2, from + at + 4))
}

/// One new header field, checked and folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field(Vec<u8>);

impl Field {
    /// `name: value`, folded at spaces so that no line passes 78 octets where that can be helped (RFC 5322 section 2.1.1).
    pub fn new(name: &str, value: &str) -> Result<Self, FieldError> {
        if !is_name(name) {
            return Err(FieldError::Name);
        }
        if value.chars().any(char::is_control) {
            return Err(FieldError::Value);
        }
        let mut line = format!("{name}:");
        let mut line_len = line.len();
        let mut is_quoted = false;
        for word in value.split(' ') {
            // Blanks within quotes are the text's own: of an address they are part.
            if word.is_empty() && !is_quoted {
                continue;
            }
            let is_too_long = line_len + 1 + word.len() > if is_quoted { 998 } else { 78 };
            // The first word never gets a line of its own: some readers take `Name:` CRLF for an empty field.
            if is_too_long && line_len > name.len() + 1 {
                line.push_str("\r\n\t");
                line_len = 1;
            } else {
                line.push(' ');
                line_len += 1;
            }
            line.push_str(word);
            line_len += word.len();
            is_quoted ^= ends_in_other_quotes(word);
        }
        line.push_str("\r\n");
        Ok(Self(line.into_bytes()))
    }
}

/// The value of a field that is there, with some of its octets replaced: it is one field still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditedValue(Vec<u8>);

impl EditedValue {
    /// The value of a field `name`: `value`, which is what follows the colon with its final CRLF, with the octets of each
    /// range replaced by its text. The ranges are in order and do not overlap. A line that gets longer than 998 octets only by this is folded at its blanks;
    /// all other octets stay.
    pub fn new(name: &str, value: &[u8], edits: &[(Range<usize>, String)]) -> Result<Self, FieldError> {
        let content = value.strip_suffix(b"\r\n").ok_or(FieldError::Place)?.len();
        let (mut octets, mut end) = (Vec::with_capacity(value.len()), 0);
        for (range, text) in edits {
            if text.chars().any(char::is_control) {
                return Err(FieldError::Value);
            }
            if range.start < end || range.end < range.start || range.end > content {
                return Err(FieldError::Place);
            }
            octets.extend_from_slice(&value[end..range.start]);
            octets.extend_from_slice(text.as_bytes());
            end = range.end;
        }
        octets.extend_from_slice(&value[end..]);
        // The first line has the name and its colon before it.
        let before = name.len() + 1;
        if longest_line(&octets, before) > MAX_LINE_LEN && longest_line(value, before) <= MAX_LINE_LEN {
            octets = folded(&octets, before);
        }
        let first = line_len(&octets);
        let is_one_field = lines(&octets[first..]).all(|line| line != b"\r\n" && name_len(line).is_none());
        if is_one_field { Ok(Self(octets)) } else { Err(FieldError::Line) }
    }

    /// What follows the colon, with its final CRLF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split_inclusive(|octet| *octet == b'\n')
}

/// In octets without its end, `before` of them before the first line.
fn longest_line(value: &[u8], before: usize) -> usize {
    let first = lines(value).next().map_or(0, |first| first.len() + before);
    lines(value).map(<[u8]>::len).max().unwrap_or(0).max(first).saturating_sub(b"\r\n".len())
}

/// Each line that is too long with a CRLF before some of its blanks, which is nothing but a fold (RFC 5322 section 2.2.3).
fn folded(value: &[u8], mut before: usize) -> Vec<u8> {
    let mut folded = Vec::with_capacity(value.len() + value.len() / 50);
    for line in lines(value) {
        let mut rest = line;
        while before + rest.len() > MAX_LINE_LEN + b"\r\n".len() {
            let Some(at) = fold_before(rest, MAX_LINE_LEN.saturating_sub(before)) else { break };
            folded.extend_from_slice(&rest[..at]);
            folded.extend_from_slice(b"\r\n");
            rest = &rest[at..];
            before = 0;
        }
        folded.extend_from_slice(rest);
        before = 0;
    }
    folded
}

/// The last blank at or before `most` that has something other than blanks before it and behind it; if there is none, the
/// first such behind `most`.
fn fold_before(line: &[u8], most: usize) -> Option<usize> {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let start = line.iter().position(|octet| !is_blank(octet))?;
    let end = line.iter().rposition(|octet| !octet.is_ascii_whitespace())?;
    // A run of blanks stays whole on the line that it begins.
    let is_fold = |at: &usize| is_blank(&line[*at]) && !is_blank(&line[*at - 1]);
    let most = most.min(end);
    (start + 1..=most).rev().find(is_fold).or_else(|| (most.max(start) + 1..end).find(is_fold))
}

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldEdit {
    /// Its name stays, its value is this.
    Value(EditedValue),
    /// Another field stands in its place.
    Field(Field),
    /// It goes, with all lines that belong to it.
    Removed,
}

/// Whether what is quoted before a word is not behind it, or the other way round.
fn ends_in_other_quotes(word: &str) -> bool {
    let mut escaped = false;
    let quotes = word.chars().filter(|c| {
        let is_quote = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        is_quote
    });
    quotes.count() % 2 == 1
}

/// The octets of a header block: whole lines with CRLF, without the empty line that ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderBlock {
    octets: Vec<u8>,
}

impl HeaderBlock {
    /// Reads a block. Never fails: a line that is no field belongs to the field before it and stays as it is.
    /// A last line without CRLF gets one.
    pub fn parse(mut octets: Vec<u8>) -> Self {
        if !octets.is_empty() && !octets.ends_with(b"\r\n") {
            octets.extend_from_slice(b"\r\n");
        }
        Self { octets }
    }

    /// Whether a field of this name is there; case does not matter.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// How many fields of this name are there.
    pub fn count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// The octets after the colon of the first field of this name, folds and final CRLF included.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// What follows the colon of each field of this name, in order, folds and final CRLF included.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields().filter_map(move |field| value_of(field, name))
    }

    /// Puts `fields` in the place of the first field of this name; false if there is none. No other octet changes.
    pub fn replace(&mut self, name: &str, fields: &[Field]) -> bool {
        let mut spans = self.spans();
        let Some(span) = spans.find(|span| value_of(&self.octets[span.clone()], name).is_some()) else { return false };
        drop(spans);
        let new: Vec<u8> = fields.iter().flat_map(|field| field.0.iter().copied()).collect();
        self.octets.splice(span, new);
        true
    }

    /// Edits the fields of this name: `edit` is given the value of each in order, and says what becomes of it; none: it stays
    /// as it is. Gives how many it changed. No octet of another field changes. In time linear in the block, `edit` left out.
    pub fn edit(&mut self, name: &str, mut edit: impl FnMut(&[u8]) -> Option<FieldEdit>) -> usize {
        let (mut edited, mut end) = (0, 0);
        let mut octets = Vec::new();
        for span in self.spans() {
            let field = &self.octets[span.clone()];
            let Some(value) = value_of(field, name) else { continue };
            let Some(change) = edit(value) else { continue };
            edited += 1;
            octets.extend_from_slice(&self.octets[end..span.start]);
            match change {
                FieldEdit::Value(new) => {
                    octets.extend_from_slice(&field[..field.len() - value.len()]);
                    octets.extend_from_slice(&new.0);
                }
                FieldEdit::Field(new) => octets.extend_from_slice(&new.0),
                FieldEdit::Removed => {}
            }
            end = span.end;
        }
        if edited > 0 {
            octets.extend_from_slice(&self.octets[end..]);
            self.octets = octets;
        }
        edited
    }

    /// Removes every field of this name, with all lines that belong to it; gives how many. No other octet changes.
    pub fn remove(&mut self, name: &str) -> usize {
        self.edit(name, |_| Some(FieldEdit::Removed))
    }

    /// Gives every field of this name but the first `kept` the name `new_name`; gives how many. No other octet changes.
    pub fn rename(&mut self, name: &str, new_name: &str, kept: usize) -> Result<usize, FieldError> {
        self.rename_where(name, new_name, |at| at >= kept)
    }

    /// Gives every field of this name but the one at `kept`, counted from 0 among those of the name, the name `new_name`;
    /// gives how many. No other octet changes.
    pub fn rename_others(&mut self, name: &str, new_name: &str, kept: usize) -> Result<usize, FieldError> {
        self.rename_where(name, new_name, |at| at != kept)
    }

    fn rename_where(
        &mut self,
        name: &str,
        new_name: &str,
        is_meant: impl Fn(usize) -> bool,
    ) -> Result<usize, FieldError> {
        if !is_name(new_name) {
            return Err(FieldError::Name);
        }
        let (mut seen, mut renamed, mut end) = (0, 0, 0);
        let mut octets = Vec::new();
        for span in self.spans() {
            let field = &self.octets[span.clone()];
            if value_of(field, name).is_none() {
                continue;
            }
            if is_meant(seen) {
                renamed += 1;
                // A field of this name begins with it: neither blanks nor anything else stand before.
                octets.extend_from_slice(&self.octets[end..span.start]);
                octets.extend_from_slice(new_name.as_bytes());
                end = span.start + name.len();
            }
            seen += 1;
        }
        if end > 0 {
            octets.extend_from_slice(&self.octets[end..]);
            self.octets = octets;
        }
        Ok(renamed)
    }

    /// Each field with its folded lines. What stands before the first field (an mbox `From ` line) is in none.
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.spans().map(|span| &self.octets[span])
    }

    /// Where each field stands, found as it is asked for: a list of them would be larger than the block.
    fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let mut end = 0;
        while end < self.octets.len() && name_len(&self.octets[end..]).is_none() {
            end += line_len(&self.octets[end..]);
        }
        std::iter::from_fn(move || {
            let start = end;
            end += line_len(&self.octets[start..]);
            while end < self.octets.len() && name_len(&self.octets[end..]).is_none() {
                end += line_len(&self.octets[end..]);
            }
            (end > start).then_some(start..end)
        })
    }

    /// Adds a field at the top, as trace fields must be (RFC 5321 section 4.4).
    pub fn prepend(&mut self, field: &Field) {
        self.octets.splice(0..0, field.0.iter().copied());
    }

    /// Adds a field at the end.
    pub fn append(&mut self, field: &Field) {
        self.octets.extend_from_slice(&field.0);
    }

    /// The block as it is sent, without the empty line.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// The block as it is sent, without the empty line.
    pub fn into_bytes(self) -> Vec<u8> {
        self.octets
    }
}

/// What stands after the colon, if the field has this name.
fn value_of<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let len = name_len(field)?;
    field[..len].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()).then(|| &field[len + 1..])
}

/// The length of the first line, its end included.
fn line_len(octets: &[u8]) -> usize {
    octets.iter().position(|octet| *octet == b'\n').map_or(octets.len(), |at| at + 1)
}

/// The length of the field name at the start of a line, or none if the line starts no field. Blanks before the colon
/// are obsolete syntax (RFC 5322 section 4.5) and still a field.
fn name_len(line: &[u8]) -> Option<usize> {
    let colon = line.iter().take_while(|octet| **octet != b'\n').position(|octet| *octet == b':')?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().copied().all(is_name_octet)).then_some(colon)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_name_octet)
}

fn is_name_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b':'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(text: &str) -> HeaderBlock {
        HeaderBlock::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn fields_are_found_with_folds_case_and_obsolete_blanks() {
        let header = block("Subject: one\r\n two\r\nFROM : a@b\r\nX: 1\r\n");
        assert_eq!(header.value("subject"), Some(&b" one\r\n two\r\n"[..]));
        assert_eq!(header.value("From"), Some(&b" a@b\r\n"[..]));
        assert!(!header.has("Date"));
        assert_eq!((header.count("x"), header.count("Date")), (1, 0));
        assert!(!header.has("Sub"));
    }

    #[test]
    fn a_body_without_a_header_is_recognised_by_its_first_line() {
        let long = "x".repeat(MAX_NAME_LEN);
        for (octets, answer) in [
            ("Hello,\r\n", Some(false)),
            ("Hello,", None),
            ("see http://x\r\n", Some(false)),
            (" A: b\r\n", Some(false)),
            ("From root Mon Jan 1\r\nSubject:", Some(true)),
            ("From root Mon Jan 1\r\nSubject", None),
            ("From root Mon Jan 1\r\n", None),
            ("From here on no header\r\nat all\r\nA: b\r\n", Some(false)),
            ("From here on no header\r\n\r\nA: b\r\n", Some(false)),
            ("", None),
            ("\r", None),
            ("\r\n", Some(true)),
            ("Subject", None),
            ("Subject :", Some(true)),
            (&long, Some(false)),
            (&long[1..], None),
            (&format!("{}:", &long[1..]), Some(true)),
            (&format!("{long}:"), Some(false)),
            (&format!("From {long}"), Some(false)),
        ] {
            assert_eq!(begins_with_header(octets.as_bytes()), answer, "{octets}");
        }
    }

    #[test]
    fn new_fields_are_folded_and_cannot_break_out() {
        let long = "word ".repeat(40);
        let field = Field::new("X-Long", &long).unwrap();
        assert!(field.0.split(|octet| *octet == b'\n').all(|line| line.len() <= 79));
        let spaced = format!("{} <\"a  b\"@c.d>, e@f.g", "n".repeat(70));
        let field = Field::new("From", &spaced).unwrap();
        assert_eq!(
            String::from_utf8(field.0).unwrap(),
            format!("From: {}\r\n\t<\"a  b\"@c.d>, e@f.g\r\n", "n".repeat(70))
        );
        assert_eq!(Field::new("X", "a\r\nBcc: b"), Err(FieldError::Value));
        assert_eq!(Field::new("X Y", "a"), Err(FieldError::Name));
        assert_eq!(Field::new("", "a"), Err(FieldError::Name));
    }

    #[test]
    fn adding_leaves_every_octet_in_place() {
        let mut header = block("Subject: x\r\n broken\r\nno field here\r\nTo: y\r\n");
        let before = header.as_bytes().to_vec();
        header.prepend(&Field::new("Received", "by us").unwrap());
        header.append(&Field::new("Date", "today").unwrap());
        let after = header.as_bytes();
        assert_eq!(after, [b"Received: by us\r\n", &before[..], b"Date: today\r\n"].concat());
        assert_eq!(header.value("To"), Some(&b" y\r\n"[..]));
    }

    #[test]
    fn a_field_is_replaced_where_it_stands() {
        let mut header = block("From x\r\nA: 1\r\nfrom : a\r\n b\r\nFrom: c\r\n");
        assert!(!header.replace("Date", &[]));
        let fields = [Field::new("From", "d").unwrap(), Field::new("X-Original-From", "a b").unwrap()];
        assert!(header.replace("From", &fields));
        assert_eq!(header, block("From x\r\nA: 1\r\nFrom: d\r\nX-Original-From: a b\r\nFrom: c\r\n"));
    }

    #[test]
    fn fields_are_renamed_but_for_those_that_stay() {
        let text = "A: 1\r\nFrom: a\r\n b\r\nFROM : c\r\nno field\r\nfrom:d\r\nTo: From: x\r\n";
        for (kept, renamed, wanted) in [
            (1, 2, "A: 1\r\nFrom: a\r\n b\r\nX-F : c\r\nno field\r\nX-F:d\r\nTo: From: x\r\n"),
            (0, 3, "A: 1\r\nX-F: a\r\n b\r\nX-F : c\r\nno field\r\nX-F:d\r\nTo: From: x\r\n"),
            (3, 0, text),
        ] {
            let mut header = block(text);
            assert_eq!(header.rename("From", "X-F", kept), Ok(renamed));
            assert_eq!(header, block(wanted));
        }
        assert_eq!(block(text).rename("From", "X F", 1), Err(FieldError::Name));
        let mut header = block(text);
        assert_eq!(header.rename_others("From", "X-F", 1), Ok(2));
        assert_eq!(header, block("A: 1\r\nX-F: a\r\n b\r\nFROM : c\r\nno field\r\nX-F:d\r\nTo: From: x\r\n"));
    }

    #[test]
    fn fields_are_removed_with_the_lines_that_belong_to_them() {
        let text = "From x\r\nBcc: a\r\n b\r\nTo: Bcc: x\r\nBCC : c\r\nno field\r\nFrom y\r\nbcc:\r\nA: 1\r\n";
        let mut header = block(text);
        assert_eq!(header.remove("Bcc"), 3);
        assert_eq!(header, block("From x\r\nTo: Bcc: x\r\nA: 1\r\n"));
        assert_eq!(header.remove("Bcc"), 0);
        let mut header = block("Bcc: a\r\nno field\r\n");
        assert_eq!((header.remove("bcc"), header.as_bytes()), (1, &b""[..]));
    }

    fn edited(value: &str, edits: &[(Range<usize>, &str)]) -> Result<String, FieldError> {
        let edits: Vec<_> = edits.iter().map(|(range, text)| (range.clone(), (*text).to_owned())).collect();
        EditedValue::new("From", value.as_bytes(), &edits).map(|value| String::from_utf8(value.0).unwrap())
    }

    #[test]
    fn a_value_is_edited_in_place_and_stays_one_field() {
        for (value, edits, wanted) in [
            (" a, b\r\n c\r\n", &[(1..2, "x y"), (8..9, "")][..], Ok(" x y, b\r\n \r\n")),
            (" a\r\n", &[], Ok(" a\r\n")),
            (" a\r\n", &[(1..2, "a\r\nBcc: b")], Err(FieldError::Value)),
            (" a\r\nb\r\n", &[(4..5, "Bcc: b")], Err(FieldError::Line)),
            (" a\r\nb\r\n", &[(4..5, "")], Err(FieldError::Line)),
            (" a\r\n b: c\r\n", &[(4..5, "")], Err(FieldError::Line)),
            (" a\r\n", &[(1..3, "b")], Err(FieldError::Place)),
            (" abc\r\n", &[(2..3, "x"), (1..2, "y")], Err(FieldError::Place)),
            (" abc\r\n", &[(1..3, "x"), (2..4, "y")], Err(FieldError::Place)),
            (" abc", &[], Err(FieldError::Place)),
        ] {
            assert_eq!(edited(value, edits), wanted.map(str::to_owned), "{value:?} {edits:?}");
        }
        let mut header = block("A: 1\r\nfrom : a\r\nFrom: b\r\nTo: c\r\n");
        let new = EditedValue::new("From", b" a\r\n", &[(1..2, "d".to_owned())]).unwrap();
        assert_eq!(header.edit("FROM", |value| (value == b" a\r\n").then(|| FieldEdit::Value(new.clone()))), 1);
        assert_eq!(header, block("A: 1\r\nfrom : d\r\nFrom: b\r\nTo: c\r\n"));
    }

    #[test]
    fn a_line_that_an_edit_makes_too_long_is_folded_and_one_that_was_is_not() {
        let list = |len: usize| format!(" {}\r\n", vec!["a@b.c"; len].join(",  "));
        let short = edited(&list(100), &[(1..6, "x")]).unwrap();
        assert_eq!(short.matches("\r\n").count(), 1);
        let words = "x ".repeat(40);
        let edits = [(1..6, words.as_str()), (9..14, &"y".repeat(1200)), (16..21, "z")];
        let mut unfolded = list(110);
        for (range, text) in edits.iter().rev() {
            unfolded.replace_range(range.clone(), text);
        }
        let long = edited(&list(110), &edits).unwrap();
        assert_eq!(long.replace("\r\n", ""), unfolded.trim_end());
        let lines: Vec<_> = long.lines().collect();
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= MAX_LINE_LEN || line.contains('y')), "{long}");
        assert!(lines.iter().all(|line| line.starts_with(' ') && !line.trim().is_empty()), "{long}");
        assert_eq!(edited(&list(300), &[(1..6, "longer@b.c")]).unwrap().matches("\r\n").count(), 1);
    }

    proptest! {
        #[test]
        fn an_edit_changes_nothing_but_what_it_names(
            lines in proptest::collection::vec("(A|From|Bcc|no field| fold)( ?:)?[ -~]{0,10}", 0..8),
            text in "[ -~]{0,8}",
            at in 0_usize..12,
            len in 0_usize..6,
        ) {
            let before = HeaderBlock::parse(lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect());
            let mut after = before.clone();
            after.edit("From", |value| EditedValue::new("From", value, &[(at..at + len, text.clone())]).ok().map(FieldEdit::Value));
            prop_assert_eq!(after.fields().count(), before.fields().count());
            let mut without = [before, after];
            for header in &mut without {
                let count = header.count("From");
                prop_assert_eq!(header.remove("From"), count);
                prop_assert!(!header.has("From"));
            }
            let [before, after] = without;
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn the_header_is_split_from_the_body_wherever_the_chunks_end() {
        for (message, header, body) in [
            ("A: b\r\n\r\nbody\r\n", "A: b\r\n", "body\r\n"),
            ("\r\nbody\r\n", "", "body\r\n"),
            ("A: b\r\n\r\n", "A: b\r\n", ""),
        ] {
            for cut in 0..=message.len() {
                let mut splitter = HeaderSplitter::default();
                let (first, second) = message.as_bytes().split_at(cut);
                let (block, rest) = if let Some((block, rest)) = splitter.push(first).unwrap() {
                    (block, [rest, second].concat())
                } else {
                    let (block, rest) = splitter.push(second).unwrap().unwrap();
                    (block, rest.to_vec())
                };
                assert_eq!(block.as_bytes(), header.as_bytes(), "cut at {cut}");
                assert_eq!(rest, body.as_bytes(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_header_without_end_is_bounded() {
        let mut splitter = HeaderSplitter::default();
        let chunk = vec![b'a'; 100_000];
        assert_eq!(splitter.push(&chunk), Ok(None));
        assert_eq!(splitter.push(&chunk), Ok(None));
        assert_eq!(splitter.push(&chunk), Err(HeaderTooLong));
        assert!(splitter.octets.len() <= MAX_HEADER_LEN + 4);
    }

    #[test]
    fn the_longest_header_is_taken_wherever_the_chunks_end() {
        for (header_len, taken) in [(MAX_HEADER_LEN, true), (MAX_HEADER_LEN + 1, false)] {
            let message = [&vec![b'a'; header_len - 2], &b"\r\n\r\nbody"[..]].concat();
            for cut in header_len - 3..=message.len() {
                let (first, second) = message.split_at(cut);
                let mut splitter = HeaderSplitter::default();
                let found = match splitter.push(first) {
                    Ok(None) => splitter.push(second),
                    found => found,
                };
                let len = found.map(|split| split.map(|(block, _)| block.as_bytes().len()));
                assert_eq!(len, if taken { Ok(Some(header_len)) } else { Err(HeaderTooLong) }, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_message_that_is_only_header_ends_it() {
        let mut splitter = HeaderSplitter::default();
        assert_eq!(splitter.push(b"Subject: x\r\nTo: y"), Ok(None));
        assert_eq!(splitter.finish().unwrap().as_bytes(), b"Subject: x\r\nTo: y\r\n");
    }

    /// What is left when the fields of these names are taken out.
    fn without(header: &HeaderBlock, names: &[&str]) -> Vec<u8> {
        let mut rest = header.as_bytes().to_vec();
        let spans: Vec<_> = header.spans().collect();
        for span in spans.into_iter().rev() {
            if names.iter().any(|name| value_of(&header.octets[span.clone()], name).is_some()) {
                rest.drain(span);
            }
        }
        rest
    }

    proptest! {
        #[test]
        fn what_a_message_begins_with_does_not_change_as_more_comes(octets in "(From |A| |:|\r|\r\n|\n){0,12}", long in any::<bool>()) {
            let octets = if long { octets.replace('A', &"A".repeat(500)) } else { octets };
            let answer = begins_with_header(octets.as_bytes());
            for end in 0..octets.len() {
                let sooner = begins_with_header(&octets.as_bytes()[..end]);
                prop_assert!(sooner.is_none() || sooner == answer, "{sooner:?} at {end}, {answer:?}");
            }
        }

        #[test]
        fn replacing_and_renaming_leave_every_other_octet(
            octets in "([AB]{1,2}|From|from |From x| |\t)?:?[ -~\u{fc}\0\r]{0,6}(\r\n|\r\n|\n)".prop_map(String::into_bytes).prop_flat_map(|line| {
                proptest::collection::vec(prop_oneof![Just(line), Just(b"From: a\r\n".to_vec()), Just(b"B : c\r\n d\r\n".to_vec())], 0..8)
            }),
            kept in 0usize..3,
        ) {
            let before = HeaderBlock::parse(octets.concat());
            let names = ["From", "X-F"];
            let mut header = before.clone();
            let renamed = header.rename("From", "X-F", kept).unwrap();
            prop_assert_eq!(renamed, before.count("From").saturating_sub(kept));
            prop_assert_eq!(header.count("X-F"), renamed);
            prop_assert_eq!(without(&header, &names), without(&before, &names));
            prop_assert_eq!(header.values("X-F").collect::<Vec<_>>(), before.values("From").skip(kept).collect::<Vec<_>>());

            let mut header = before.clone();
            prop_assert_eq!(header.replace("From", &[Field::new("X-F", "new").unwrap()]), before.has("From"));
            prop_assert_eq!(without(&header, &names), without(&before, &names));
            prop_assert_eq!(header.values("From").collect::<Vec<_>>(), before.values("From").skip(1).collect::<Vec<_>>());
        }

        #[test]
        fn chunks_do_not_change_what_is_split(octets in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), Just(b':')], 0..60), size in 1usize..7) {
            let whole = {
                let mut splitter = HeaderSplitter::default();
                splitter.push(&octets).unwrap().map(|(block, rest)| (block, rest.to_vec()))
            };
            let mut splitter = HeaderSplitter::default();
            let mut pieces = None;
            for chunk in octets.chunks(size) {
                match &mut pieces {
                    None => pieces = splitter.push(chunk).unwrap().map(|(block, rest)| (block, rest.to_vec())),
                    Some((_, rest)) => rest.extend_from_slice(chunk),
                }
            }
            prop_assert_eq!(whole, pieces);
        }
    }
}
