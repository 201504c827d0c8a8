//! Octets that arrived and were not consumed yet, and the framing of command lines among them. Bounded: a line that
//! never ends is thrown away as it comes. It does not read and does not know what a line means.

/// RFC 4954 section 4: an AUTH command or response may have 12,288 octets. No other line may be longer.
pub(crate) const LONGEST_LINE: usize = 12_288;

/// One framed line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Ended by CRLF, which is not part of it.
    Good(Vec<u8>),
    /// Ended by a lone LF: no command line for Exchange's kind.
    BareLf,
    /// Longer than [`LONGEST_LINE`].
    TooLong,
}

/// The unread input of a connection.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    /// A line passed [`LONGEST_LINE`]; octets are dropped up to its LF.
    discarding: bool,
}

impl Inbox {
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
        if self.is_empty() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Forgets everything: what was sent in clear behind STARTTLS must not count inside TLS (RFC 3207 section 4).
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
        self.discarding = false;
    }

    /// Room for the next read, at the end of the buffer.
    pub(crate) fn space(&mut self, octets: usize) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(octets);
        &mut self.buffer
    }

    /// The next whole line, if it is there.
    pub(crate) fn line(&mut self) -> Option<Line> {
        let unread = self.unread();
        let Some(end) = unread.iter().position(|&octet| octet == b'\n') else {
            if unread.len() > LONGEST_LINE + 1 {
                self.clear();
                self.discarding = true;
            }
            return None;
        };
        let line = match unread[..end].split_last() {
            _ if self.discarding || end > LONGEST_LINE + 1 => Line::TooLong,
            Some((b'\r', line)) => Line::Good(line.to_vec()),
            _ => Line::BareLf,
        };
        self.discarding = false;
        self.consume(end + 1);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(octets: &[u8]) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.space(octets.len()).extend_from_slice(octets);
        inbox
    }

    #[test]
    fn lines_end_only_at_crlf() {
        let mut inbox = holding(b"NOOP\r\nNO\rOP\r\nRSET\nQU");
        assert_eq!(inbox.line(), Some(Line::Good(b"NOOP".to_vec())));
        assert_eq!(inbox.line(), Some(Line::Good(b"NO\rOP".to_vec())));
        assert_eq!(inbox.line(), Some(Line::BareLf));
        assert_eq!(inbox.line(), None);
        inbox.space(4).extend_from_slice(b"IT\r\n");
        assert_eq!(inbox.line(), Some(Line::Good(b"QUIT".to_vec())));
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_line_of_the_limit_passes_and_a_longer_one_does_not() {
        let mut longest = vec![b'a'; LONGEST_LINE];
        longest.extend_from_slice(b"\r\n");
        assert_eq!(holding(&longest).line().map(|line| matches!(line, Line::Good(_))), Some(true));
        longest.insert(0, b'a');
        assert_eq!(holding(&longest).line(), Some(Line::TooLong));
    }

    #[test]
    fn an_endless_line_needs_no_memory() {
        let mut inbox = Inbox::default();
        for _ in 0..1000 {
            inbox.space(4096).extend_from_slice(&[b'a'; 4096]);
            assert_eq!(inbox.line(), None);
            assert!(inbox.unread().len() <= LONGEST_LINE + 4096);
        }
        inbox.space(8).extend_from_slice(b"\r\nNOOP\r\n");
        assert_eq!(inbox.line(), Some(Line::TooLong));
        assert_eq!(inbox.line(), Some(Line::Good(b"NOOP".to_vec())));
    }
}
