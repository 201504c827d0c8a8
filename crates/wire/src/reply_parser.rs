//! Reads upstream's replies from octets in pieces of any size (RFC 5321 section 4.2.1), within bounds. An upstream that
//! answers garbage is an error with its own name, never a reply.

use std::borrow::Cow;

use mail::{EnhancedCode, is_acted_on};

use crate::reply::Reply;

/// Kept of one line; Exchange's diagnostics run to a few thousand octets.
const MAX_LINE_LEN: usize = 4096;
/// Lines of one reply.
const MAX_LINES: usize = 200;

/// Why octets are not a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line without a code from 200 to 599 at its start.
    #[error("upstream sent {0:?}, which is no SMTP reply")]
    NoReply(String),
    /// A reply of too many lines.
    #[error("upstream sent a reply of more than {MAX_LINES} lines")]
    TooManyLines,
}

/// Reads one reply after another.
#[derive(Debug, Default)]
pub struct ReplyParser {
    line: Vec<u8>,
    lines: Vec<Cow<'static, str>>,
    enhanced: Option<EnhancedCode>,
}

impl ReplyParser {
    /// Takes octets up to the end of a reply. Gives how many were used and the reply, if one is whole; call again with
    /// what is left. After an error the connection is good for nothing.
    pub fn push(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[used..]) {
            self.keep(&input[used..used + end]);
            used += end + 1;
            if let Some(reply) = self.end_line()? {
                return Ok((used, Some(reply)));
            }
        }
        self.keep(&input[used..]);
        Ok((input.len(), None))
    }

    fn keep(&mut self, octets: &[u8]) {
        let room = MAX_LINE_LEN - self.line.len();
        self.line.extend_from_slice(&octets[..octets.len().min(room)]);
    }

    fn end_line(&mut self) -> Result<Option<Reply>, ReplyError> {
        let line = std::mem::take(&mut self.line);
        let text = readable(line.strip_suffix(b"\r").unwrap_or(&line));
        let (code, last, rest) = split(&text).ok_or_else(|| ReplyError::NoReply(excerpt(&text)))?;
        let (enhanced, rest) = split_enhanced(code, rest);
        // Some servers change their mind between lines: what the last line's code contradicts is dropped.
        self.enhanced = self.enhanced.filter(|known| is_of(*known, code)).or(enhanced);
        self.lines.push(Cow::Owned(rest.to_owned()));
        if last {
            let lines = std::mem::take(&mut self.lines);
            Ok(Some(Reply::from_parts(code, self.enhanced.take(), lines)))
        } else if self.lines.len() >= MAX_LINES {
            Err(ReplyError::TooManyLines)
        } else {
            Ok(None)
        }
    }
}

/// What a log or a terminal would act on is shown as `?`: servers repeat what clients wrote, such as a Message-ID.
fn readable(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).chars().map(|c| if is_acted_on(c) { '?' } else { c }).collect()
}

/// Code, whether it is the last line, text.
fn split(line: &str) -> Option<(u16, bool, &str)> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
    if !(200..600).contains(&code) {
        return None;
    }
    match rest.as_bytes().first() {
        None => Some((code, true, "")),
        Some(b' ') => Some((code, true, &rest[1..])),
        Some(b'-') => Some((code, false, &rest[1..])),
        Some(_) => None,
    }
}

/// The enhanced code counts only where its class is the code's (RFC 2034 section 4).
fn split_enhanced(code: u16, text: &str) -> (Option<EnhancedCode>, &str) {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    match EnhancedCode::parse(first) {
        Some(enhanced) if is_of(enhanced, code) => (Some(enhanced), rest),
        _ => (None, text),
    }
}

fn is_of(enhanced: EnhancedCode, code: u16) -> bool {
    u16::from(enhanced.class) == code / 100
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replies(input: &[u8], size: usize) -> Result<Vec<Reply>, ReplyError> {
        let (mut parser, mut found) = (ReplyParser::default(), Vec::new());
        for piece in input.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (used, reply) = parser.push(rest)?;
                found.extend(reply);
                rest = &rest[used..];
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_come_out_alike_whatever_the_pieces() {
        let input = b"250-one\r\n250 two\r\n554 5.2.270 too large\r\n250\r\n421 5.7.705 odd\n";
        for size in 1..input.len() {
            let found = replies(input, size).unwrap();
            let found: Vec<_> =
                found.iter().map(|r| (r.code(), r.enhanced().map(|e| e.to_string()), r.text())).collect();
            let expected = [
                (250, None, "one two".to_owned()),
                (554, Some("5.2.270".to_owned()), "too large".to_owned()),
                (250, None, String::new()),
                // A class that is not the code's is text.
                (421, None, "5.7.705 odd".to_owned()),
            ];
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_enhanced_code_of_an_earlier_line_does_not_contradict_the_last_code() {
        for (input, code, enhanced) in [
            ("250-2.1.0 one\r\n550 two\r\n", 550, None),
            ("250-2.1.0 one\r\n550 5.1.1 two\r\n", 550, Some(EnhancedCode::new(5, 1, 1))),
            ("550-5.7.60 one\r\n550 5.1.1 two\r\n", 550, Some(EnhancedCode::new(5, 7, 60))),
        ] {
            let found = replies(input.as_bytes(), 100).unwrap();
            assert_eq!((found[0].code(), found[0].enhanced()), (code, enhanced), "{input:?}");
        }
    }

    #[test]
    fn what_a_terminal_would_act_on_is_no_part_of_a_reply() {
        let found = replies("250 2.0.0 OK <\x1b[31m1\x07\u{202e}@erp01>\r\n".as_bytes(), 100).unwrap();
        assert_eq!(found[0].text(), "OK <?[31m1??@erp01>");
    }

    #[test]
    fn garbage_is_named_and_bounded() {
        for input in ["HTTP/1.1 400 Bad Request\r\n", "\r\n", "99 x\r\n", "250x\r\n", "999 x\r\n", "2\u{e9}0 x\r\n"] {
            assert!(matches!(replies(input.as_bytes(), 100), Err(ReplyError::NoReply(_))), "{input:?}");
        }
        let endless = "250-x\r\n".repeat(MAX_LINES);
        assert_eq!(replies(endless.as_bytes(), 100), Err(ReplyError::TooManyLines));
        let mut parser = ReplyParser::default();
        assert_eq!(parser.push(&vec![b'2'; 1_000_000]), Ok((1_000_000, None)));
        assert_eq!(parser.line.len(), MAX_LINE_LEN);
    }

    proptest! {
        #[test]
        fn octets_never_panic(input: Vec<u8>, size in 1usize..20) {
            let _ = replies(&input, size);
        }
    }
}
