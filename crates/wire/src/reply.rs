//! A reply: code, enhanced code with three full numbers, and lines of text (RFC 5321 section 4.2, RFC 2034).
//! The same value is written to clients and read from upstream.

use std::borrow::Cow;
use std::fmt;

use mail::{Diagnostic, EnhancedCode};

/// Longest line of a reply with code and CRLF (RFC 5321 section 4.5.3.1.5); what is longer is written as several.
const MAX_LINE_LEN: usize = 512;

/// One reply of one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: Vec<Cow<'static, str>>,
}

impl Reply {
    /// `code class.subject.detail text`. The text may hold anything: what cannot stand in a reply is replaced when written.
    pub fn new(code: u16, (class, subject, detail): (u8, u16, u16), text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: Some(EnhancedCode::new(class, subject, detail)), lines: vec![text.into()] }
    }

    /// A reply without an enhanced code: 220, 354, and EHLO's lines (RFC 2034 section 4).
    pub fn plain(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, lines }
    }

    pub(crate) fn from_parts(code: u16, enhanced: Option<EnhancedCode>, lines: Vec<Cow<'static, str>>) -> Self {
        Self { code, enhanced, lines }
    }

    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, if there is one.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The lines without codes.
    pub fn lines(&self) -> &[Cow<'static, str>] {
        &self.lines
    }

    /// The lines without codes, joined by a space.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// 2yz.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3yz.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// The verbatim reason, for outcomes.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic { code: Some(self.code), enhanced: self.enhanced, text: self.text() }
    }

    /// Appends the reply as it stands on the wire.
    pub fn write_to(&self, output: &mut Vec<u8>) {
        let enhanced = self.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
        // Text may quote what a client sent: nothing in it may end the line or reach a terminal.
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c as u8 } else { b'?' };
        let lines = self.lines.iter().map(|line| line.chars().map(printable).collect::<Vec<u8>>());
        let room = MAX_LINE_LEN - "250 \r\n".len() - enhanced.len();
        let pieces: Vec<Vec<u8>> = lines.flat_map(|line| pieces(&line, room)).collect();
        let last = pieces.len().saturating_sub(1);
        for (at, piece) in pieces.iter().enumerate() {
            output.extend_from_slice(self.code.to_string().as_bytes());
            output.push(if at == last { b' ' } else { b'-' });
            output.extend_from_slice(enhanced.as_bytes());
            output.extend_from_slice(piece);
            output.extend_from_slice(b"\r\n");
        }
    }
}

/// A line in pieces of at most `room` octets, parted at blanks where there are some: Exchange's diagnostics run to thousands.
fn pieces(line: &[u8], room: usize) -> Vec<Vec<u8>> {
    let (mut pieces, mut rest) = (Vec::new(), line);
    while rest.len() > room {
        let (end, next) = match rest[..=room].iter().rposition(|octet| *octet == b' ') {
            Some(blank) if blank > 0 => (blank, blank + 1),
            _ => (room, room),
        };
        pieces.push(rest[..end].to_vec());
        rest = &rest[next..];
    }
    pieces.push(rest.to_vec());
    pieces
}

/// `250 2.1.0 Sender OK`, lines joined.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply) -> String {
        let mut output = Vec::new();
        reply.write_to(&mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn replies_on_the_wire() {
        assert_eq!(written(&Reply::new(250, (2, 1, 0), "Sender OK")), "250 2.1.0 Sender OK\r\n");
        assert_eq!(written(&Reply::plain(250, vec!["host".into(), "SIZE 1".into()])), "250-host\r\n250 SIZE 1\r\n");
    }

    #[test]
    fn a_long_line_is_written_as_several() {
        let words = "word ".repeat(300);
        let text = written(&Reply::new(554, (5, 2, 252), words.trim_end().to_owned()));
        assert!(text.lines().all(|line| line.len() <= 510), "{text}");
        let (before, last) = text.trim_end().rsplit_once("\r\n").unwrap();
        assert!(
            before.lines().all(|line| line.starts_with("554-5.2.252 word")) && last.starts_with("554 5.2.252 word")
        );
        assert_eq!(text.matches("word").count(), 300);
        let unbroken = written(&Reply::new(250, (2, 0, 0), "x".repeat(1000)));
        assert_eq!(unbroken.matches('x').count(), 1000);
        assert!(unbroken.lines().all(|line| line.len() <= 510), "{unbroken}");
        let exact = written(&Reply::plain(250, vec!["x".repeat(506).into()]));
        assert_eq!((exact.lines().count(), exact.len()), (1, 512));
    }

    #[test]
    fn quoted_text_cannot_end_the_line() {
        assert_eq!(written(&Reply::new(501, (5, 5, 2), "bad \r\n250 é")), "501 5.5.2 bad ??250 ?\r\n");
    }
}
