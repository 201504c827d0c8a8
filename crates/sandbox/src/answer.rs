//! What a session answers, and what the connection does then. Plain values between `session`, which decides, and
//! `front_end`, which acts.

use std::borrow::Cow;
use std::time::Duration;

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Flush what was said and read more.
    Read,
    /// Flush what was said, wait, and go on.
    Wait(Duration),
    /// Flush and start the TLS handshake.
    StartTls,
    /// Flush and close in order.
    Close,
    /// Cut the connection at once.
    Cut,
    /// Flush what was said before and never answer again.
    Stall,
    /// The same, and read no more.
    Freeze,
}

/// How often a client that waits for room in its rate is looked after.
const AGAIN: Duration = Duration::from_millis(20);

/// What a command is answered with, and what then.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: Option<Cow<'static, str>>,
    pub(crate) then: Then,
    /// How late it is said.
    pub(crate) delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    StartTls,
    Close,
    Cut,
    Stall,
    Freeze,
    /// Nothing to say yet: the session is asked again in a moment.
    AskAgain,
}

impl Answer {
    pub(crate) fn say(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: Some(text.into()), then: Then::GoOn, delay: Duration::ZERO }
    }

    pub(crate) fn silently(then: Then) -> Self {
        Self { text: None, then, delay: Duration::ZERO }
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    pub(crate) fn late_by(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The first digit of the reply: 2 and 3 are good, 4 and 5 are not.
    pub(crate) fn class(&self) -> u8 {
        self.text.as_ref().and_then(|text| text.bytes().next()).unwrap_or(b'0')
    }

    pub(crate) fn is_good(&self) -> bool {
        matches!(self.class(), b'2' | b'3')
    }

    /// Appends the reply to `out`; gives the step that interrupts the session, if the answer has one.
    pub(crate) fn deliver(&self, out: &mut Vec<u8>) -> Option<Step> {
        if let Some(text) = &self.text {
            put(out, text);
        }
        match self.then {
            Then::GoOn => None,
            Then::StartTls => Some(Step::StartTls),
            Then::Close => Some(Step::Close),
            Then::Cut => Some(Step::Cut),
            Then::Stall => Some(Step::Stall),
            Then::Freeze => Some(Step::Freeze),
            Then::AskAgain => Some(Step::Wait(AGAIN)),
        }
    }
}

/// Appends a line.
pub(crate) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}
