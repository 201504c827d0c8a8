//! Cuts command lines out of a stream of octets (RFC 5321 section 2.3.8). Not for bodies: those end differently and
//! are `body.rs`'s.

/// Longest command line without its end: paths may be 256 octets each and parameters follow; lenient beyond the 512 of
/// RFC 5321 section 4.5.3.1.4, bounded all the same.
pub const MAX_COMMAND_LEN: usize = 2048;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole line, without its end.
    Line {
        /// The line.
        line: &'a [u8],
        /// Octets to drop from the input, the line's end included.
        consumed: usize,
    },
    /// The end of a line that was too long; its octets were dropped.
    TooLong {
        /// Octets to drop from the input.
        consumed: usize,
    },
    /// No line end yet.
    Incomplete {
        /// Octets to drop from the input: none, or those of a line that is already too long.
        consumed: usize,
    },
}

/// Cuts lines of a bounded length. A bare LF ends a command as CRLF does: it is the body, not the command, where taking
/// it for a line end lets one message pass for two.
#[derive(Debug)]
pub struct LineFramer {
    limit: usize,
    discarding: bool,
}

impl LineFramer {
    /// Lines of at most `limit` octets, ends not counted.
    pub fn new(limit: usize) -> Self {
        Self { limit, discarding: false }
    }

    /// Looks at the octets received and not yet consumed. Call it again with what is left.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Framed<'a> {
        match memchr::memchr(b'\n', input) {
            Some(end) => self.line(&input[..end]),
            None if self.discarding || input.len() > self.limit + 1 => {
                self.discarding = true;
                Framed::Incomplete { consumed: input.len() }
            }
            None => Framed::Incomplete { consumed: 0 },
        }
    }

    fn line<'a>(&mut self, octets: &'a [u8]) -> Framed<'a> {
        let consumed = octets.len() + 1;
        let line = octets.strip_suffix(b"\r").unwrap_or(octets);
        if std::mem::take(&mut self.discarding) || line.len() > self.limit {
            Framed::TooLong { consumed }
        } else {
            Framed::Line { line, consumed }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of `input`, fed in pieces of `size`; `None` stands for one that was too long.
    fn lines(input: &[u8], size: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut framer = LineFramer::new(limit);
        let (mut buffer, mut lines) = (Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                let (consumed, more) = match framer.next(&buffer) {
                    Framed::Line { line, consumed } => {
                        lines.push(Some(line.to_vec()));
                        (consumed, true)
                    }
                    Framed::TooLong { consumed } => {
                        lines.push(None);
                        (consumed, true)
                    }
                    Framed::Incomplete { consumed } => (consumed, false),
                };
                buffer.drain(..consumed);
                if !more {
                    break;
                }
            }
            assert!(buffer.len() <= limit + 1, "nothing is kept beyond the limit");
        }
        lines
    }

    #[test]
    fn lines_come_out_alike_whatever_the_pieces() {
        let input = b"EHLO x\r\nNOOP\n\r\nMAIL FROM:<too-long-a-line@x>\r\nA\rB\r\nQUIT\r\nrest";
        let expected = [Some("EHLO x"), Some("NOOP"), Some(""), None, Some("A\rB"), Some("QUIT")];
        for size in 1..input.len() {
            let found = lines(input, size, 10);
            let found: Vec<_> =
                found.iter().map(|line| line.as_deref().map(|l| std::str::from_utf8(l).unwrap())).collect();
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn the_limit_does_not_count_the_end() {
        assert_eq!(
            lines(b"12345\r\n12345\n123456\r\n", 1, 5),
            [Some(b"12345".to_vec()), Some(b"12345".to_vec()), None]
        );
    }
}
