//! The few header fields that Exchange decides by or gives back: From for SendAs, Message-ID for the final reply.
//! A small reading of RFC 5322 of our own; it edits nothing and ignores everything else.

/// What was found in a header block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The addresses of every From field, in order.
    pub(crate) from: Vec<String>,
    /// The first Message-ID with its angle brackets.
    pub(crate) message_id: Option<String>,
}

impl Header {
    /// Reads the header block at the start of `message`.
    pub(crate) fn of(message: &[u8]) -> Self {
        let mut header = Self::default();
        for (name, value) in fields(message) {
            if name.eq_ignore_ascii_case("from") {
                header.from.extend(addresses(&value));
            } else if name.eq_ignore_ascii_case("message-id") && header.message_id.is_none() {
                header.message_id = Some(value.trim().to_owned()).filter(|id| !id.is_empty());
            }
        }
        header
    }
}

/// Field names and unfolded values up to the empty line. A lone LF counts as a line end here: a From field must not
/// hide behind one.
fn fields(message: &[u8]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in message.split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(line);
        if text.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push_str(&text);
            }
        } else if let Some((name, value)) = text.split_once(':') {
            fields.push((name.trim_end().to_owned(), value.to_owned()));
        } else {
            break;
        }
    }
    fields
}

/// The address of each mailbox in an address list (RFC 5322 section 3.4). Entries without an `@` are left out.
fn addresses(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut entry = Entry::default();
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match character {
            '(' => skip_comment(&mut characters),
            '"' => entry.push_quoted(&mut characters),
            '<' => entry.angle = Some(String::new()),
            '>' => entry.closed = true,
            ',' | ';' => found.extend(std::mem::take(&mut entry).address()),
            // A group's name ends here; its members follow.
            ':' if entry.angle.is_none() => entry = Entry::default(),
            _ => entry.push(character),
        }
    }
    found.extend(entry.address());
    found
}

/// One entry of an address list while it is read.
#[derive(Default)]
struct Entry {
    /// Words outside angle brackets: a bare address or a display name.
    plain: String,
    /// What stands within angle brackets.
    angle: Option<String>,
    closed: bool,
}

impl Entry {
    /// White space within angle brackets is folding, not part of the address.
    fn push(&mut self, character: char) {
        if self.angle.is_none() || !character.is_whitespace() {
            self.push_as_is(character);
        }
    }

    fn push_as_is(&mut self, character: char) {
        match &mut self.angle {
            Some(_) if self.closed => {}
            Some(angle) => angle.push(character),
            None => self.plain.push(character),
        }
    }

    fn push_quoted(&mut self, characters: &mut std::str::Chars<'_>) {
        self.push_as_is('"');
        while let Some(character) = characters.next() {
            self.push_as_is(character);
            match character {
                '\\' => characters.next().into_iter().for_each(|escaped| self.push_as_is(escaped)),
                '"' => return,
                _ => {}
            }
        }
    }

    fn address(self) -> Option<String> {
        let address = self.angle.unwrap_or_else(|| self.plain.trim().to_owned());
        address.contains('@').then_some(address)
    }
}

/// Skips to the end of a comment, which may nest; the opening parenthesis is already taken.
fn skip_comment(characters: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    while depth > 0 {
        match characters.next() {
            None => return,
            Some('(') => depth += 1,
            Some(')') => depth -= 1,
            Some('\\') => drop(characters.next()),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_found_in_its_odd_forms() {
        let table: &[(&str, &[&str])] = &[
            ("From: a@b.c\r\n\r\n", &["a@b.c"]),
            ("FROM : <a@b.c>\r\n\r\n", &["a@b.c"]),
            ("From: \"x@y.z, <n@m.o>\" <a@b.c>\r\n\r\n", &["a@b.c"]),
            ("From: Scan (copy: <x@y.z>)\r\n\t<a@b.c>\r\n\r\n", &["a@b.c"]),
            ("From: x@y.z <a@b.c>\r\n\r\n", &["a@b.c"]),
            ("From: A <a@b.c>, d@e.f\r\n\r\n", &["a@b.c", "d@e.f"]),
            ("From: team: a@b.c, B <d@e.f>;\r\n\r\n", &["a@b.c", "d@e.f"]),
            ("From: < \"a b\"@c.d >\r\n\r\n", &["\"a b\"@c.d"]),
            ("From: Scanner\r\n\r\n", &[]),
            ("Subject: x\nFrom: a@b.c\r\n\r\n", &["a@b.c"]),
            ("From: a@b.c\r\nFrom: d@e.f\r\n\r\n", &["a@b.c", "d@e.f"]),
            ("Subject: x\r\n\r\nFrom: a@b.c\r\n", &[]),
            ("From: (unclosed \\) a@b.c", &[]),
            ("From: \"unclosed a@b.c", &["\"unclosed a@b.c"]),
        ];
        for &(block, expected) in table {
            assert_eq!(Header::of(block.as_bytes()).from, expected, "{block:?}");
        }
    }

    #[test]
    fn message_id_comes_back_as_it_was() {
        let header = Header::of(b"X: y\r\nMessage-Id:\r\n <aKj2@maxwell>\r\n\r\n");
        assert_eq!(header.message_id.as_deref(), Some("<aKj2@maxwell>"));
        assert_eq!(Header::of(b"Message-ID:  \r\n\r\n").message_id, None);
    }
}
