//! Decodes what follows DATA into a message at rest: dots unstuffed, every line end CRLF (RFC 5321 section 4.5.2).
//!
//! Only CRLF.CRLF ends a message and dots are unstuffed only after a real CRLF: a lone CR or LF around a dot is content.
//! Taking it for the end is how one message smuggles another past a relay. Long lines and 8-bit octets pass unchanged.

use memchr::memchr2;

/// CRs in the header that are withheld until what follows them is known. Printers write two; a client that writes more
/// gets spaces for them, and no memory or silence of ours.
const MAX_CR_RUN: usize = 16;

/// What [`BodyDecoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Octets of the input that were used. Less than all of it only when the message ended.
    pub consumed: usize,
    /// Whether the final dot was read.
    pub done: bool,
}

/// Where the decoder stands between two octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the very start, or right after a real CRLF: a dot here is stuffing or the end.
    LineStart,
    /// After a dot at a line start; the dot is withheld.
    Dot,
    /// After dot and CR at a line start; both are withheld.
    DotCr,
    /// Anywhere else in a line, or after a lone LF.
    Text,
    /// After this many CRs that may yet be followed by LF; they are withheld.
    Cr(usize),
    /// After the final dot.
    Done,
}

/// Decodes one message from octets in pieces of any size.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    in_header: bool,
    /// Whether the decoded line in progress has no octets: an empty line ends the header.
    line_is_empty: bool,
}

impl BodyDecoder {
    /// A decoder at the start of a message, which counts as after a CRLF.
    pub fn new() -> Self {
        Self { state: State::LineStart, in_header: true, line_is_empty: true }
    }

    /// Decodes `input` and appends to `output`, at most twice as many octets and a few withheld ones. After the final dot
    /// nothing more is consumed: the rest of the input are commands.
    pub fn decode(&mut self, input: &[u8], output: &mut Vec<u8>) -> Decoded {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Text {
                at += self.copy_text(&input[at..], output);
                if at == input.len() {
                    break;
                }
            }
            at += usize::from(self.step(input[at], output));
        }
        Decoded { consumed: at, done: self.state == State::Done }
    }

    /// Copies up to the next CR or LF.
    fn copy_text(&mut self, input: &[u8], output: &mut Vec<u8>) -> usize {
        let len = memchr2(b'\r', b'\n', input).unwrap_or(input.len());
        output.extend_from_slice(&input[..len]);
        self.line_is_empty &= len == 0;
        len
    }

    /// Moves over one octet; false if it must be looked at again in the new state.
    fn step(&mut self, octet: u8, output: &mut Vec<u8>) -> bool {
        let (state, taken) = match (self.state, octet) {
            (State::LineStart, b'.') => (State::Dot, true),
            (State::Dot, b'\r') => (State::DotCr, true),
            // After Dot, the withheld dot was stuffing and stays away.
            (State::LineStart | State::Dot, _) => (State::Text, false),
            (State::DotCr, b'\n') => (State::Done, true),
            (State::DotCr, _) => (State::Cr(1), false),
            (State::Text, b'\r') => (State::Cr(1), true),
            (State::Text, _) => {
                self.end_line(output);
                (State::Text, true)
            }
            (State::Cr(run), b'\n') => {
                self.end_crs(run - 1, output);
                self.end_line(output);
                (State::LineStart, true)
            }
            (State::Cr(run), b'\r') if self.in_header && run < MAX_CR_RUN => (State::Cr(run + 1), true),
            (State::Cr(run), b'\r') => {
                self.lone_crs(1, output);
                (State::Cr(run), true)
            }
            (State::Cr(run), _) => {
                self.lone_crs(run, output);
                (State::Text, false)
            }
            (State::Done, _) => (State::Done, false),
        };
        self.state = state;
        taken
    }

    /// CRs before a CRLF: in the header they belong to the line end (some printers write CR CR LF), in the body each
    /// is a line end of its own. In the body a run is never longer than one, so none are left here.
    fn end_crs(&mut self, extra: usize, output: &mut Vec<u8>) {
        if !self.in_header {
            self.lone_crs(extra, output);
        }
    }

    /// CRs that no LF followed.
    fn lone_crs(&mut self, run: usize, output: &mut Vec<u8>) {
        for _ in 0..run {
            if self.in_header {
                output.push(b' ');
                self.line_is_empty = false;
            } else {
                self.end_line(output);
            }
        }
    }

    fn end_line(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"\r\n");
        self.in_header &= !self.line_is_empty;
        self.line_is_empty = true;
    }
}

impl Default for BodyDecoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stuffing::DotStuffer;
    use proptest::prelude::*;

    /// Decodes in pieces of `size`; gives the message and what was left of the input, if the final dot came.
    fn decode(input: &[u8], size: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut decoder, mut output, mut at) = (BodyDecoder::new(), Vec::new(), 0);
        while at < input.len() {
            let piece = &input[at..input.len().min(at + size)];
            let progress = decoder.decode(piece, &mut output);
            at += progress.consumed;
            if progress.done {
                return Some((output, input[at..].to_vec()));
            }
            assert_eq!(progress.consumed, piece.len());
        }
        None
    }

    #[test]
    fn messages_at_rest() {
        for (input, message) in [
            (".\r\n", ""),
            ("\r\n.\r\n", "\r\n"),
            ("A: b\r\n\r\nbody\r\n.\r\n", "A: b\r\n\r\nbody\r\n"),
            // Dots: unstuffed after a real CRLF, and on the very first line.
            ("..\r\n.\r\n", ".\r\n"),
            ("...A\r\n.\r\n", "..A\r\n"),
            ("A: b\r\n\r\n..\r\n..x\r\nx..\r\n.\r\n", "A: b\r\n\r\n.\r\n.x\r\nx..\r\n"),
            // Header: CR+ LF is a line end, a lone CR a space, a lone LF a line end.
            ("A: b\r\r\nB: c\r\n\r\n.\r\n", "A: b\r\nB: c\r\n\r\n"),
            ("A: b\rc\r\n\r\n.\r\n", "A: b c\r\n\r\n"),
            ("A: b\r\rc\r\n\r\n.\r\n", "A: b  c\r\n\r\n"),
            ("A: b\nB: c\n\nbody\r\n.\r\n", "A: b\r\nB: c\r\n\r\nbody\r\n"),
            ("A: b\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\n\r\n.\r\n", "A: b  \r\n\r\n"),
            // Body: lone CR and LF are line ends.
            ("A: b\r\n\r\nx\ry\nz\r\r\n.\r\n", "A: b\r\n\r\nx\r\ny\r\nz\r\n\r\n"),
            // Smuggling: none of these ends the message.
            ("A: b\r\n\r\nx\n.\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n.\r\nMAIL\r\n"),
            ("A: b\r\n\r\nx\n.\r\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n.\r\nMAIL\r\n"),
            ("A: b\r\n\r\nx\r.\r\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n.\r\nMAIL\r\n"),
            ("A: b\r\n\r\nx\r\n.\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n\r\nMAIL\r\n"),
            ("A: b\r\n\r\nx\r\n.\rMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n\r\nMAIL\r\n"),
            ("A: b\r\n\r\nx\r\n.\r\r\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n\r\n\r\nMAIL\r\n"),
            // CR CR LF before the dot holds a real CRLF.
            ("A: b\r\n\r\nx\r\r\n.\r\n", "A: b\r\n\r\nx\r\n\r\n"),
            // 8-bit and NUL pass.
            ("A: b\r\n\r\n\0\u{e9}\r\n.\r\n", "A: b\r\n\r\n\0\u{e9}\r\n"),
        ] {
            for size in 1..=input.len() {
                let (found, rest) = decode(input.as_bytes(), size).unwrap_or_else(|| panic!("{input:?} did not end"));
                assert_eq!(String::from_utf8_lossy(&found), message, "{input:?} in pieces of {size}");
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn no_octets_are_withheld_without_bound() {
        let (mut decoder, mut output) = (BodyDecoder::new(), Vec::new());
        decoder.decode(&[b'\r'; 10_000], &mut output);
        assert_eq!(output.len(), 10_000 - MAX_CR_RUN);
    }

    #[test]
    fn what_follows_the_final_dot_is_left() {
        let (message, rest) = decode(b"x\r\n.\r\nQUIT\r\n", 100).unwrap();
        assert_eq!((&message[..], &rest[..]), (&b"x\r\n"[..], &b"QUIT\r\n"[..]));
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'x'), any::<u8>()], 0..80)
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(input in octets(), size in 1usize..9) {
            prop_assert_eq!(decode(&input, size), decode(&input, input.len().max(1)));
        }

        #[test]
        fn what_comes_out_has_only_crlf_line_ends(input in octets()) {
            let input = [&input[..], b"\r\n.\r\n"].concat();
            let (message, _) = decode(&input, input.len()).unwrap();
            prop_assert!(message.is_empty() || message.ends_with(b"\r\n"));
            let without = String::from_utf8_lossy(&message).replace("\r\n", "");
            prop_assert!(!without.contains(['\r', '\n']));
        }

        #[test]
        fn stuffing_and_decoding_give_back_any_message_at_rest(input in octets()) {
            let (message, _) = decode(&[&input[..], b"\r\n.\r\n"].concat(), 1000).unwrap();
            let mut stuffer = DotStuffer::new();
            let mut sent = Vec::new();
            stuffer.stuff(&message, &mut sent);
            stuffer.finish(&mut sent);
            prop_assert_eq!(decode(&sent, 3), Some((message, Vec::new())));
        }
    }
}
