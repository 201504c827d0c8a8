//! The DATA reader: finds CRLF.CRLF and nothing else, removes stuffed dots (RFC 5321 section 4.5.2), and keeps the
//! octets or, past a limit, only their length and SHA-256. It repairs nothing; it notes what Exchange would mind.

use aws_lc_rs::digest;

use crate::header::Header;
use crate::mailstore::Body;

/// The header block is kept up to here whatever the policy says, since SendAs is decided by it.
const HEADER_ROOM: usize = 64 << 10;

/// Where the reader stands relative to the line structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Behind a real CRLF, or before the first octet.
    LineStart,
    /// A dot at a line start was seen and not kept.
    Dot,
    /// That dot and a CR.
    DotCr,
    /// Within a line.
    Text,
    /// Within a line, behind a CR.
    Cr,
}

/// Reads one message.
#[derive(Debug)]
pub(crate) struct BodyReader {
    at: At,
    keeper: Keeper,
    bare_lf: bool,
    bare_cr: bool,
}

/// A message read to its end.
#[derive(Debug)]
pub(crate) struct FinishedBody {
    pub(crate) body: Body,
    pub(crate) header: Header,
    pub(crate) bare_lf: bool,
    pub(crate) bare_cr: bool,
}

impl BodyReader {
    /// Keeps up to `keep_up_to` octets; `expected` is what SIZE announced.
    pub(crate) fn new(keep_up_to: usize, expected: usize) -> Self {
        Self { at: At::LineStart, keeper: Keeper::new(keep_up_to, expected), bare_lf: false, bare_cr: false }
    }

    /// Takes octets up to the end of the message. Gives how many belonged to it and whether that end was seen.
    pub(crate) fn feed(&mut self, input: &[u8]) -> (usize, bool) {
        let mut rest = input;
        while let Some(&octet) = rest.first() {
            let taken = match self.at {
                At::LineStart if octet == b'.' => {
                    self.at = At::Dot;
                    1
                }
                At::Dot if octet == b'\r' => {
                    self.at = At::DotCr;
                    1
                }
                At::DotCr if octet == b'\n' => return (input.len() - rest.len() + 1, true),
                At::DotCr => {
                    // The CR ended no line: it is content behind a removed dot. The octet is looked at again.
                    self.keeper.keep(b"\r");
                    self.at = At::Cr;
                    0
                }
                At::Cr if octet == b'\n' => {
                    self.keeper.keep(b"\n");
                    self.at = At::LineStart;
                    1
                }
                At::Cr => {
                    self.bare_cr = true;
                    self.at = At::Text;
                    0
                }
                At::LineStart | At::Dot | At::Text => self.text(rest),
            };
            rest = &rest[taken..];
        }
        (input.len(), false)
    }

    /// Takes plain content up to and with the next CR or LF.
    fn text(&mut self, rest: &[u8]) -> usize {
        let end = rest.iter().position(|&octet| octet == b'\r' || octet == b'\n');
        let taken = end.map_or(rest.len(), |end| end + 1);
        self.keeper.keep(&rest[..taken]);
        self.at = match end.map(|end| rest[end]) {
            Some(b'\r') => At::Cr,
            Some(_) => {
                self.bare_lf = true;
                At::Text
            }
            None => At::Text,
        };
        taken
    }

    pub(crate) fn finish(self) -> FinishedBody {
        let (body, header) = self.keeper.finish();
        FinishedBody { body, header, bare_lf: self.bare_lf, bare_cr: self.bare_cr }
    }
}

/// Holds the octets, or digests them once there are too many.
#[derive(Debug)]
struct Keeper {
    keep_up_to: usize,
    octets: Vec<u8>,
    overflow: Option<Overflow>,
}

struct Overflow {
    header: Header,
    length: u64,
    context: digest::Context,
}

impl std::fmt::Debug for Overflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overflow").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Keeper {
    fn new(keep_up_to: usize, expected: usize) -> Self {
        let room = expected.min(keep_up_to.max(HEADER_ROOM));
        Self { keep_up_to, octets: Vec::with_capacity(room), overflow: None }
    }

    fn keep(&mut self, octets: &[u8]) {
        if let Some(overflow) = &mut self.overflow {
            overflow.context.update(octets);
            overflow.length += octets.len() as u64;
        } else if self.octets.len() + octets.len() <= self.keep_up_to.max(HEADER_ROOM) {
            self.octets.extend_from_slice(octets);
        } else {
            self.overflow = Some(self.spill(octets));
        }
    }

    /// Everything so far and `more` go into the digest; the memory is given back.
    fn spill(&mut self, more: &[u8]) -> Overflow {
        let octets = std::mem::take(&mut self.octets);
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&octets);
        context.update(more);
        Overflow { header: Header::of(&octets), length: (octets.len() + more.len()) as u64, context }
    }

    fn finish(mut self) -> (Body, Header) {
        if self.overflow.is_none() && self.octets.len() > self.keep_up_to {
            self.overflow = Some(self.spill(b""));
        }
        if let Some(Overflow { header, length, context }) = self.overflow {
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(context.finish().as_ref());
            (Body::Digest { length, sha256 }, header)
        } else {
            let header = Header::of(&self.octets);
            (Body::Octets(self.octets), header)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` in pieces of `step` octets; gives the content, the octets left and the notes.
    fn read(input: &[u8], step: usize) -> Option<(Vec<u8>, usize, bool, bool)> {
        let mut reader = BodyReader::new(1 << 20, 0);
        let mut used = 0;
        for piece in input.chunks(step) {
            let (taken, ended) = reader.feed(piece);
            used += taken;
            if ended {
                let finished = reader.finish();
                let Body::Octets(octets) = finished.body else { panic!("small bodies are kept") };
                return Some((octets, input.len() - used, finished.bare_lf, finished.bare_cr));
            }
            assert_eq!(taken, piece.len());
        }
        None
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (b".\r\n", Some(b"")),
            (b"\r\n.\r\n", Some(b"\r\n")),
            (b"a\r\n.\r\n", Some(b"a\r\n")),
            (b"..\r\n.\r\n", Some(b".\r\n")),
            (b"a\r\n..b\r\n.\r\n", Some(b"a\r\n.b\r\n")),
            (b"a\r\n.b\r\n.\r\n", Some(b"a\r\nb\r\n")),
            (b"a\n.\n", None),
            (b"a\n.\r\n", None),
            (b"a\r.\r\n", None),
            (b"a\r\n.\n", None),
            (b"a\r\n.\r", None),
            (b"a\n.\r\nb\r\n.\r\n", Some(b"a\n.\r\nb\r\n")),
            (b"a\r\n.\r\r\n.\r\n", Some(b"a\r\n\r\r\n")),
            (b"a\r\n.\rx\r\n.\r\n", Some(b"a\r\n\rx\r\n")),
            (b"a\r\n.\nb\r\n.\r\n", Some(b"a\r\n\nb\r\n")),
        ];
        for &(input, expected) in table {
            for step in 1..=input.len() {
                let content = read(input, step).map(|(octets, ..)| octets);
                assert_eq!(content.as_deref(), expected, "{:?} by {step}", input.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn what_follows_is_left_and_bare_line_ends_are_noted() {
        let (content, left, bare_lf, bare_cr) = read(b"a\r\n.\r\nQUIT\r\n", 100).unwrap();
        assert_eq!((content.as_slice(), left, bare_lf, bare_cr), (&b"a\r\n"[..], 6, false, false));
        assert!(read(b"a\nb\r\n.\r\n", 3).unwrap().2);
        assert!(read(b"a\rb\r\n.\r\n", 3).unwrap().3);
    }

    #[test]
    fn large_bodies_are_only_hashed() {
        let text = b"From: a@b.c\r\n\r\n".iter().copied().chain(std::iter::repeat_n(b'x', 200_000));
        let content: Vec<u8> = text.chain(*b"\r\n").collect();
        let expected = digest::digest(&digest::SHA256, &content);
        for (keep_up_to, step) in [(0, 1000), (70_000, 999), (199_999, 200_100)] {
            let mut reader = BodyReader::new(keep_up_to, 0);
            content.chunks(step).for_each(|piece| assert_eq!(reader.feed(piece), (piece.len(), false)));
            assert!(reader.feed(b".\r\n").1);
            let finished = reader.finish();
            assert_eq!(finished.header.from, ["a@b.c"]);
            assert_eq!(finished.body.length(), content.len() as u64);
            assert_eq!(finished.body.octets(), None);
            assert_eq!(finished.body.sha256().as_slice(), expected.as_ref());
        }
    }

    #[test]
    fn a_small_body_is_hashed_too_when_nothing_is_to_be_kept() {
        let mut reader = BodyReader::new(0, 10_000_000);
        assert!(reader.feed(b"Message-ID: <x@y>\r\n\r\nhi\r\n.\r\n").1);
        let finished = reader.finish();
        assert!(matches!(finished.body, Body::Digest { length: 25, .. }));
        assert_eq!(finished.header.message_id.as_deref(), Some("<x@y>"));
    }
}
