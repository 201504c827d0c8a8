//! Cuts a stream of octets into lines of a bounded length. Pure: octets in, lines out; whoever reads stands around it.
//!
//! A line too long ends the framing: what follows cannot be told from the rest of it. Lines may hold what a sign-in is made of:
//! they and the buffer are wiped.

use zeroize::Zeroizing;

/// A line was longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Lines coming in.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: Zeroizing<Vec<u8>>,
    /// Octets of the buffer that hold no line end.
    looked_at: usize,
    longest: usize,
}

impl Lines {
    /// Lines of at most `longest` octets without their end.
    pub(crate) fn new(longest: usize) -> Self {
        Self { buffer: Zeroizing::default(), looked_at: 0, longest }
    }

    /// Adds what was read. Never call it without taking the lines out: that keeps the buffer within the longest line and
    /// one read.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        let length = self.buffer.len() + octets.len();
        if length > self.buffer.capacity() {
            // By itself it would leave the smaller one behind as it was.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * length));
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole line without its end, which is LF or CRLF; empty lines are passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, TooLong> {
        loop {
            let rest = &self.buffer[self.looked_at..];
            let Some(at) = rest.iter().position(|octet| *octet == b'\n') else {
                self.looked_at = self.buffer.len();
                // One more octet than a line may have could be its CR.
                return if self.looked_at > self.longest + 1 { Err(TooLong) } else { Ok(None) };
            };
            let end = self.looked_at + at;
            let line = Zeroizing::new(self.buffer[..end].to_vec());
            self.buffer.drain(..=end);
            self.looked_at = 0;
            if let Some(line) = self.checked(line)? {
                return Ok(Some(line));
            }
        }
    }

    /// The line that the end of the stream ended, for whoever forgot the line end.
    pub(crate) fn last(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, TooLong> {
        let line = std::mem::take(&mut self.buffer);
        self.looked_at = 0;
        self.checked(line)
    }

    /// Whether a line has begun and not ended.
    pub(crate) fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn checked(&self, mut line: Zeroizing<Vec<u8>>) -> Result<Option<Zeroizing<Vec<u8>>>, TooLong> {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        match line.len() {
            0 => Ok(None),
            length if length > self.longest => Err(TooLong),
            _ => Ok(Some(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All lines of `chunks` with a longest line of five octets; `!` where one is too long.
    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(5);
        let mut found = Vec::new();
        let mut take = |line: Result<Option<Zeroizing<Vec<u8>>>, TooLong>| match line {
            Ok(Some(line)) => {
                found.push(String::from_utf8(line.to_vec()).unwrap());
                true
            }
            Ok(None) => false,
            Err(TooLong) => {
                found.push("!".to_owned());
                false
            }
        };
        for chunk in chunks {
            lines.push(chunk);
            while take(lines.next()) {}
        }
        take(lines.last());
        found
    }

    #[test]
    fn line_table() {
        for (chunks, expected) in [
            (&[&b"one\ntwo\n"[..]][..], &["one", "two"][..]),
            (&[b"on", b"e\r", b"\ntwo"], &["one", "two"]),
            (&[b"\n\r\n\none\n\n"], &["one"]),
            (&[b"12345\r\n"], &["12345"]),
            (&[b"12345\n"], &["12345"]),
            (&[b"123456\n"], &["!"]),
            (&[b"123456"], &["!"]),
            (&[b"1234567"], &["!", "!"]),
            (&[b"ok\n1234567"], &["ok", "!", "!"]),
            (&[b""], &[]),
        ] {
            assert_eq!(lines(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_that_has_begun_is_known() {
        let mut lines = Lines::new(5);
        assert!(!lines.has_begun());
        lines.push(b"one\ntw");
        assert_eq!(lines.next(), Ok(Some(b"one".to_vec().into())));
        assert!(lines.has_begun());
        lines.push(b"o\n");
        assert_eq!(lines.next(), Ok(Some(b"two".to_vec().into())));
        assert!(!lines.has_begun());
    }

    proptest! {
        /// However the octets are cut, the same lines come out.
        #[test]
        fn cuts_change_nothing(octets in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..40), cut in 0usize..40) {
            let cut = cut.min(octets.len());
            let whole = lines(&[&octets]);
            if !whole.contains(&"!".to_owned()) {
                prop_assert_eq!(lines(&[&octets[..cut], &octets[cut..]]), whole);
            }
        }
    }
}
