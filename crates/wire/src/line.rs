//! Cuts command lines out of a stream of octets (RFC 5321 section 2.3.8). Not for bodies: those end differently and
//! are `body.rs`'s.

use crate::dialect::Dialect;

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
    /// A line that ends in LF alone, which is none in strict (RFC 5321 section 2.3.8). Never told in lenient.
    BareLf {
        /// Octets to drop from the input.
        consumed: usize,
    },
    /// No line end yet.
    Incomplete {
        /// Octets to drop from the input: none, or those of a line that is already too long.
        consumed: usize,
    },
}

/// Cuts lines of a bounded length. In lenient a bare LF ends a command as CRLF does: it is the body, not the command,
/// where taking it for a line end lets one message pass for two.
#[derive(Debug)]
pub struct LineFramer {
    limit: usize,
    dialect: Dialect,
    discarding: bool,
    saw_cr: bool,
}

impl LineFramer {
    /// Lines of at most `limit` octets, ends not counted.
    pub fn new(limit: usize, dialect: Dialect) -> Self {
        Self { limit, dialect, discarding: false, saw_cr: false }
    }

    /// Looks at the octets received and not yet consumed. Call it again with what is left.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Framed<'a> {
        match memchr::memchr(b'\n', input) {
            Some(end) => self.line(&input[..end]),
            None if self.discarding || input.len() > self.limit + 1 => {
                self.discarding = true;
                self.look_for_cr(input);
                Framed::Incomplete { consumed: input.len() }
            }
            None => Framed::Incomplete { consumed: 0 },
        }
    }

    /// Whether the octets consumed so far held a CR anywhere, in lines that were dropped too: a client that never sent one
    /// ends its lines with LF alone.
    pub fn saw_cr(&self) -> bool {
        self.saw_cr
    }

    fn line<'a>(&mut self, octets: &'a [u8]) -> Framed<'a> {
        let consumed = octets.len() + 1;
        self.look_for_cr(octets);
        let stripped = octets.strip_suffix(b"\r");
        let line = stripped.unwrap_or(octets);
        // The length comes first: of a line that was dropped it is no longer known how it ended.
        if std::mem::take(&mut self.discarding) || line.len() > self.limit {
            Framed::TooLong { consumed }
        } else if stripped.is_none() && self.dialect == Dialect::Strict {
            Framed::BareLf { consumed }
        } else {
            Framed::Line { line, consumed }
        }
    }

    fn look_for_cr(&mut self, consumed: &[u8]) {
        self.saw_cr = self.saw_cr || memchr::memchr(b'\r', consumed).is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was told of a line.
    #[derive(Debug, PartialEq)]
    enum Told {
        Line(&'static str),
        TooLong,
        BareLf,
    }
    use Told::{BareLf, Line, TooLong};

    /// What is told of `input`, fed in pieces of `size`, and whether a CR was seen.
    fn told(input: &'static [u8], size: usize, limit: usize, dialect: Dialect) -> (Vec<Told>, bool) {
        let mut framer = LineFramer::new(limit, dialect);
        let (mut at, mut told) = (0, Vec::new());
        for received in (0..input.len()).step_by(size).map(|start| input.len().min(start + size)) {
            loop {
                let consumed = match framer.next(&input[at..received]) {
                    Framed::Line { line, consumed } => {
                        told.push(Line(std::str::from_utf8(line).unwrap()));
                        consumed
                    }
                    Framed::TooLong { consumed } => {
                        told.push(TooLong);
                        consumed
                    }
                    Framed::BareLf { consumed } => {
                        told.push(BareLf);
                        consumed
                    }
                    Framed::Incomplete { consumed } => {
                        at += consumed;
                        break;
                    }
                };
                at += consumed;
                assert_eq!(framer.saw_cr(), input[..at].contains(&b'\r'), "pieces of {size}, up to {at}");
            }
            assert!(received - at <= limit + 1, "nothing is kept beyond the limit");
        }
        (told, framer.saw_cr())
    }

    #[test]
    fn lines_come_out_alike_whatever_the_pieces() {
        let input = b"EHLO x\r\nNOOP\n\r\n\nMAIL FROM:<too-long-a-line@x>\r\nA\rB\r\nQUIT\r\nrest";
        for size in 1..input.len() {
            let (found, _) = told(input, size, 10, Dialect::Lenient);
            let lines = [Line("EHLO x"), Line("NOOP"), Line(""), Line(""), TooLong, Line("A\rB"), Line("QUIT")];
            assert_eq!(found, lines, "lenient, pieces of {size}");
            let (found, _) = told(input, size, 10, Dialect::Strict);
            let lines = [Line("EHLO x"), BareLf, Line(""), BareLf, TooLong, Line("A\rB"), Line("QUIT")];
            assert_eq!(found, lines, "strict, pieces of {size}");
        }
    }

    #[test]
    fn the_limit_does_not_count_the_end() {
        let input = b"12345\r\n12345\n123456\r\n123456\n12345678\n";
        for size in 1..input.len() {
            let (found, _) = told(input, size, 5, Dialect::Lenient);
            assert_eq!(found, [Line("12345"), Line("12345"), TooLong, TooLong, TooLong], "pieces of {size}");
            let (found, _) = told(input, size, 5, Dialect::Strict);
            assert_eq!(found, [Line("12345"), BareLf, TooLong, TooLong, TooLong], "pieces of {size}");
        }
    }

    #[test]
    fn a_cr_is_seen_wherever_it_was_but_not_before_it_is_consumed() {
        for (input, seen) in [
            (&b"HELO x\nQUIT\n"[..], false),
            (b"HELO x\nQUIT\r", false),
            (b"HELO x\r\n", true),
            (b"HELO\rx\n", true),
            (b"far too long, with \r in it", true),
        ] {
            for dialect in [Dialect::Lenient, Dialect::Strict] {
                for size in 1..input.len() {
                    assert_eq!(told(input, size, 10, dialect).1, seen, "{input:?} in pieces of {size}");
                }
            }
        }
    }
}
