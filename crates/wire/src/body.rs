//! Decodes what follows DATA into a message at rest: dots unstuffed, every line end CRLF (RFC 5321 section 4.5.2).
//!
//! Only CRLF.CRLF ends a message and dots are unstuffed only after a real CRLF: a lone CR or LF around a dot is content.
//! Taking it for the end is how one message smuggles another past a relay. Long lines and 8-bit octets pass unchanged.
//! The one exception is asked for by name: `for_lf_only_client`. Whether a client is one is not decided here.

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
    /// For a client of bare LFs, before its first CR: after an LF, where a dot is stuffing or the end.
    LfLineStart,
    /// After a dot there; the dot is withheld.
    LfDot,
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
    /// Whether LF.LF ends the message as long as no CR was seen.
    lf_only: bool,
    saw_cr: bool,
    /// Octets of the decoded line in progress: one without any ends the header.
    line_len: usize,
    /// Octets of the longest decoded line that has ended.
    longest: usize,
}

impl BodyDecoder {
    /// A decoder at the start of a message, which counts as after a CRLF.
    pub fn new() -> Self {
        Self { state: State::LineStart, in_header: true, lf_only: false, saw_cr: false, line_len: 0, longest: 0 }
    }

    /// The same for a client that has never sent a CR: until it sends one in this message, LF "." LF ends the message too,
    /// and dots are unstuffed after LF. From the first CR on only CRLF.CRLF ends it, as for everybody: who mixes the two can
    /// smuggle.
    pub fn for_lf_only_client() -> Self {
        Self { lf_only: true, ..Self::new() }
    }

    /// Whether the octets consumed so far held a CR.
    pub fn saw_cr(&self) -> bool {
        self.saw_cr
    }

    /// Octets of the longest line decoded so far, the one in progress included, ends and stuffed dots not counted: RFC 5321
    /// section 4.5.3.1.6 allows 998.
    pub fn longest_line(&self) -> usize {
        self.longest.max(self.line_len)
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
        self.line_len += len;
        len
    }

    /// Moves over one octet; false if it must be looked at again in the new state.
    fn step(&mut self, octet: u8, output: &mut Vec<u8>) -> bool {
        let lf_only = self.lf_only && !self.saw_cr;
        self.saw_cr |= octet == b'\r';
        let (state, taken) = match (self.state, octet) {
            (State::LineStart, b'.') => (State::Dot, true),
            (State::LfLineStart, b'.') => (State::LfDot, true),
            (State::Dot, b'\r') => (State::DotCr, true),
            (State::DotCr | State::LfDot, b'\n') => (State::Done, true),
            (State::Dot, b'\n') if lf_only => (State::Done, true),
            (State::LfDot, b'\r') => {
                // The exception ends here, so that the dot stands after a lone LF: content, as for everybody.
                output.push(b'.');
                self.line_len += 1;
                (State::Text, false)
            }
            // After a dot, the withheld dot was stuffing and stays away.
            (State::LineStart | State::Dot | State::LfLineStart | State::LfDot, _) => (State::Text, false),
            (State::DotCr, _) => (State::Cr(1), false),
            (State::Text, b'\r') => (State::Cr(1), true),
            (State::Text, _) => {
                self.end_line(output);
                (if lf_only { State::LfLineStart } else { State::Text }, true)
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
                self.line_len += 1;
            } else {
                self.end_line(output);
            }
        }
    }

    fn end_line(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"\r\n");
        self.in_header &= self.line_len > 0;
        self.longest = self.longest.max(self.line_len);
        self.line_len = 0;
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
        decode_by(BodyDecoder::new(), input, size)
    }

    fn decode_by(mut decoder: BodyDecoder, input: &[u8], size: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut output, mut at) = (Vec::new(), 0);
        while at < input.len() {
            let piece = &input[at..input.len().min(at + size)];
            let progress = decoder.decode(piece, &mut output);
            at += progress.consumed;
            assert_eq!(decoder.saw_cr(), input[..at].contains(&b'\r'), "up to {at}");
            if progress.done {
                assert_eq!(decoder.longest_line(), longest_line(&output));
                return Some((output, input[at..].to_vec()));
            }
            assert_eq!(progress.consumed, piece.len());
        }
        None
    }

    /// Of a message at rest, said in one go.
    fn longest_line(message: &[u8]) -> usize {
        message.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line).len()).max().unwrap()
    }

    /// Where the octets behind the final dot start, for everybody. Octet by octet, so that it shares nothing with the decoder.
    fn end(input: &[u8]) -> Option<usize> {
        (1..=input.len()).find(|at| input[..*at] == *b".\r\n" || input[..*at].ends_with(b"\r\n.\r\n"))
    }

    /// The same for a client of bare LFs.
    fn end_for_lf_only_client(input: &[u8]) -> Option<usize> {
        let is_end = |start: &[u8]| start == b".\n" || start.ends_with(b"\n.\n");
        (1..=input.len()).find(|at| is_end(&input[..*at]) && !input[..*at].contains(&b'\r')).or_else(|| end(input))
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

    /// Every variant puts a second transaction behind what some servers take for an end. All of it is one message, whatever
    /// the packets, and nothing of it is left for the command parser.
    #[test]
    fn smuggled_transactions_stay_inside_the_message() {
        let ends =
            ["\n", "\r", "\r\r\n", "\n\r", "\r\0\n", "\0\r\n", "\r\n\0", "\n\0", "\0\n", "\r \n", "\u{85}", "\u{2028}"];
        let dots = [".", "..", "\0.", ".\0", ". ", " .", "\r.", ".\r", "\u{ff0e}"];
        let mut variants = 0;
        for before in ends.iter().chain(&["\r\n"]) {
            for dot in dots {
                for after in ends.iter().chain(&["\r\n"]) {
                    let smuggled = format!("{before}{dot}{after}");
                    if smuggled.contains("\r\n.\r\n") {
                        continue;
                    }
                    variants += 1;
                    let body = format!("A: b\r\n\r\nx{smuggled}MAIL FROM:<ceo@b.c>\r\nDATA\r\ny");
                    let sent = format!("{body}\r\n.\r\n");
                    for size in [1, 2, 3, 5, 7, sent.len()] {
                        for decoder in [BodyDecoder::new(), BodyDecoder::for_lf_only_client()] {
                            let (message, rest) = decode_by(decoder, sent.as_bytes(), size).unwrap();
                            assert!(rest.is_empty(), "{smuggled:?} in pieces of {size}");
                            assert!(message.ends_with(b"MAIL FROM:<ceo@b.c>\r\nDATA\r\ny\r\n"), "{smuggled:?}");
                        }
                    }
                    for split in 0..sent.len() {
                        let (mut decoder, mut output) = (BodyDecoder::new(), Vec::new());
                        let first = decoder.decode(&sent.as_bytes()[..split], &mut output);
                        assert_eq!(first, Decoded { consumed: split, done: false }, "{smuggled:?} split at {split}");
                        let second = decoder.decode(&sent.as_bytes()[split..], &mut output);
                        assert_eq!(
                            second,
                            Decoded { consumed: sent.len() - split, done: true },
                            "{smuggled:?} at {split}"
                        );
                    }
                }
            }
        }
        assert!(variants > 1000, "{variants}");
    }

    #[test]
    fn messages_of_a_client_that_never_sent_a_cr() {
        for (input, message, rest) in [
            (".\n", "", ""),
            (".\nQUIT\n", "", "QUIT\n"),
            ("\n.\n", "\r\n", ""),
            ("A: b\n\nbody\n.\nQUIT\n", "A: b\r\n\r\nbody\r\n", "QUIT\n"),
            // Dots: unstuffed after LF, and on the very first line.
            ("..\n.\n", ".\r\n", ""),
            ("A: b\n\n..\n...x\nx.\n.y\n.\n", "A: b\r\n\r\n.\r\n..x\r\nx.\r\ny\r\n", ""),
            ("x\n.\0\n.\n", "x\r\n\0\r\n", ""),
            // The first CR ends the exception, wherever it is.
            ("\r\n.\nx\r\n.\r\n", "\r\n\r\nx\r\n", ""),
            ("A: b\n\nx\r\n.\nMAIL\n.\nz\r\n.\r\n", "A: b\r\n\r\nx\r\n\r\nMAIL\r\n.\r\nz\r\n", ""),
            ("A: b\n\nx\ry\n.\nz\r\n.\r\n", "A: b\r\n\r\nx\r\ny\r\n.\r\nz\r\n", ""),
            // A CR right behind the dot is the first one: this dot stands after a lone LF.
            ("A: b\n\nx\n.\r\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n.\r\nMAIL\r\n", ""),
            ("A: b\n\nx\n.\r.\nMAIL\r\n.\r\n", "A: b\r\n\r\nx\r\n.\r\n.\r\nMAIL\r\n", ""),
            ("A: b\n\nx\n.\rMAIL\n.\n\r\n.\r\n", "A: b\r\n\r\nx\r\n.\r\nMAIL\r\n.\r\n\r\n", ""),
            // The dot that stays is no empty line, which would end the header.
            ("A: b\n.\r\nC: d\re\r\n\r\n.\r\n", "A: b\r\n.\r\nC: d e\r\n\r\n", ""),
            // What anybody may send.
            (".\r\n", "", ""),
            ("A: b\r\n\r\nbody\r\n.\r\nQUIT\r\n", "A: b\r\n\r\nbody\r\n", "QUIT\r\n"),
        ] {
            for size in 1..=input.len() {
                let decoded = decode_by(BodyDecoder::for_lf_only_client(), input.as_bytes(), size);
                let (found, left) = decoded.unwrap_or_else(|| panic!("{input:?} did not end"));
                assert_eq!(String::from_utf8_lossy(&found), message, "{input:?} in pieces of {size}");
                assert_eq!(String::from_utf8_lossy(&left), rest, "{input:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_longest_line_is_known_while_it_is_read() {
        let (mut decoder, mut output) = (BodyDecoder::new(), Vec::new());
        for (input, longest) in [
            (&b""[..], 0),
            (b"A: ", 3),
            (b"bc", 5),
            (b"\rd", 7),
            (b"\r\n\r\n", 7),
            (b"..345", 7),
            (b"678\n", 7),
            (b".234567", 7),
            (b"\n.........\r", 9),
            (b"x\r\n.\r\n", 9),
        ] {
            decoder.decode(input, &mut output);
            assert_eq!(decoder.longest_line(), longest, "after {:?}", String::from_utf8_lossy(input));
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

    /// Lines with bare LFs and few CRs.
    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![6 => Just(b'\n'), 6 => Just(b'.'), 3 => Just(b'x'), 1 => Just(b'\r')];
        proptest::collection::vec(octet, 0..40)
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(input in octets(), size in 1usize..9) {
            prop_assert_eq!(decode(&input, size), decode(&input, input.len().max(1)));
            let in_pieces = decode_by(BodyDecoder::for_lf_only_client(), &input, size);
            prop_assert_eq!(in_pieces, decode_by(BodyDecoder::for_lf_only_client(), &input, input.len().max(1)));
        }

        #[test]
        fn a_message_ends_at_the_first_end_and_nowhere_else(input in octets()) {
            let decoded = BodyDecoder::new().decode(&input, &mut Vec::new());
            let expected = Decoded { consumed: end(&input).unwrap_or(input.len()), done: end(&input).is_some() };
            prop_assert_eq!(decoded, expected);
        }

        #[test]
        fn and_so_it_does_for_a_client_of_bare_lfs(input in lines(), ended in lines()) {
            for input in [&input, &[&ended[..], b"\n.\n", &input].concat()] {
                let decoded = BodyDecoder::for_lf_only_client().decode(input, &mut Vec::new());
                let end = end_for_lf_only_client(input);
                prop_assert_eq!(decoded, Decoded { consumed: end.unwrap_or(input.len()), done: end.is_some() });
            }
        }

        #[test]
        fn a_message_with_bare_lfs_is_the_one_with_crlf(input in lines()) {
            let with_cr = String::from_utf8_lossy(&input).replace('\n', "\r\n").into_bytes();
            if !input.contains(&b'\r') {
                let bare = decode_by(BodyDecoder::for_lf_only_client(), &input, 3).map(|(message, _)| message);
                prop_assert_eq!(bare, decode(&with_cr, 3).map(|(message, _)| message));
            }
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
