//! What became of an attempt, for one recipient: the six words of the design, each with the verbatim reason.
//!
//! This is vocabulary. Which reply leads to which outcome is the forwarder's table; what follows from an outcome
//! (due times, holds, bounces) is decided by the relay and written by the spool.

use std::fmt;

/// An enhanced status code of RFC 3463: three full numbers, since Exchange uses `5.2.270` and `5.7.705`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// Second number.
    pub subject: u16,
    /// Third number.
    pub detail: u16,
}

impl EnhancedCode {
    /// From the three numbers as they are written.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Parses `5.7.139`: class 2, 4 or 5, the others one to three digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || !matches!(class, "2" | "4" | "5") {
            return None;
        }
        let number = |digits: &str| {
            let right = (1..=3).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
            if right { digits.parse().ok() } else { None }
        };
        Some(Self { class: class.parse().ok()?, subject: number(subject)?, detail: number(detail)? })
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The verbatim reason of an outcome: upstream's reply, or our own words when there was none. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Upstream's reply code; none when no reply came.
    pub code: Option<u16>,
    /// Upstream's enhanced code, if it gave one.
    pub enhanced: Option<EnhancedCode>,
    /// Upstream's text, lines joined by a space, or a sentence of ours.
    pub text: String,
}

impl Diagnostic {
    /// A sentence of ours, where upstream said nothing.
    pub fn local(text: impl Into<String>) -> Self {
        Self { code: None, enhanced: None, text: text.into() }
    }
}

/// `550 5.1.1 User unknown`, or our own sentence.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text)
    }
}

/// How far a trouble reaches; exactly that much is held (invariant 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This message alone, as when its From may not be sent as.
    Message,
    /// All mail of this login, as with a 535 for it alone.
    Mailbox,
    /// All mail of this tenant: its token, its switch.
    Tenant,
}

/// What became of an attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Upstream took responsibility: its `250` after the final dot was read.
    Accepted(Diagnostic),
    /// Upstream will never take it for this recipient.
    Refused(Diagnostic),
    /// Try again later; the attempt counts.
    Deferred(Diagnostic),
    /// Our own or upstream's pace; try again later, the attempt does not count.
    Paced(Diagnostic),
    /// Trouble of `scope`; waits without counting until the scope is well again.
    Held {
        /// What is held.
        scope: Scope,
        /// Why.
        diagnostic: Diagnostic,
    },
    /// The final dot was sent and no reply came: upstream may have it or not.
    Uncertain(Diagnostic),
}

impl Outcome {
    /// The word for logs, history and the spool.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Deferred(_) => "deferred",
            Self::Held { .. } => "held",
            Self::Paced(_) => "paced",
            Self::Refused(_) => "refused",
            Self::Uncertain(_) => "uncertain",
        }
    }

    /// The verbatim reason.
    pub fn diagnostic(&self) -> &Diagnostic {
        match self {
            Self::Accepted(diagnostic)
            | Self::Deferred(diagnostic)
            | Self::Held { diagnostic, .. }
            | Self::Paced(diagnostic)
            | Self::Refused(diagnostic)
            | Self::Uncertain(diagnostic) => diagnostic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_keep_full_numbers() {
        assert_eq!(EnhancedCode::parse("5.2.270"), Some(EnhancedCode::new(5, 2, 270)));
        assert_eq!(EnhancedCode::parse("5.7.705").map(|code| code.to_string()), Some("5.7.705".to_owned()));
        for wrong in ["", "5", "5.2", "5.2.", "5.2.1.1", "3.1.1", "5.2.1000", "5.a.1", "5.+2.1", "15.2.1"] {
            assert_eq!(EnhancedCode::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_diagnostic_reads_like_the_reply() {
        let reply =
            Diagnostic { code: Some(550), enhanced: Some(EnhancedCode::new(5, 1, 1)), text: "User unknown".into() };
        assert_eq!(reply.to_string(), "550 5.1.1 User unknown");
        assert_eq!(Diagnostic::local("connection lost").to_string(), "connection lost");
    }
}
