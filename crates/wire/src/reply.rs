//! A reply: code, enhanced code with three full numbers, and lines of text (RFC 5321 section 4.2, RFC 2034).
//! The same value is written to clients and read from upstream.

use std::borrow::Cow;
use std::fmt;

use mail::{Diagnostic, EnhancedCode};

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
        let last = self.lines.len().saturating_sub(1);
        for (at, line) in self.lines.iter().enumerate() {
            output.extend_from_slice(self.code.to_string().as_bytes());
            output.push(if at == last { b' ' } else { b'-' });
            if let Some(enhanced) = self.enhanced {
                output.extend_from_slice(format!("{enhanced} ").as_bytes());
            }
            // Text may quote what a client sent: nothing in it may end the line or reach a terminal.
            output.extend(line.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c as u8 } else { b'?' }));
            output.extend_from_slice(b"\r\n");
        }
    }
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
    fn quoted_text_cannot_end_the_line() {
        assert_eq!(written(&Reply::new(501, (5, 5, 2), "bad \r\n250 é")), "501 5.5.2 bad ??250 ?\r\n");
    }
}
