//! Faults on demand: at a stage of the conversation, something other than the right answer, a number of times. Small
//! and general; scripted outages are built from it, and `catalogue` names those that the public record knows. It does
//! not decide what would have been right.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::SandboxError;

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// In place of the banner.
    Connect,
    /// At each EHLO and HELO, before and inside TLS.
    Ehlo,
    /// At STARTTLS.
    StartTls,
    /// When the credentials are complete, whatever the mechanism.
    Auth,
    /// At MAIL.
    Mail,
    /// At each RCPT.
    Rcpt,
    /// At DATA, in place of the 354.
    Data,
    /// While the content comes in: when 512 octets of it were read, or at the final dot of a shorter one. The message
    /// is not kept. A client that wrote its dot by then cannot know that; one that has more to write than the sockets
    /// hold (some MB) is surely in the middle.
    Content,
    /// Behind the final dot.
    EndOfData,
    /// At the token endpoint, whatever the grant.
    Token,
    /// At the endpoint that gives out device codes; their polls come to [`Stage::Token`].
    DeviceCode,
    /// At the metadata service of managed identities.
    Imds,
}

impl Stage {
    /// Every stage, in the order of the conversation.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::Ehlo,
        Self::StartTls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Content,
        Self::EndOfData,
        Self::Token,
        Self::DeviceCode,
        Self::Imds,
    ];

    /// The word for it in orders and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Content => "content",
            Self::EndOfData => "end-of-data",
            Self::Token => "token",
            Self::DeviceCode => "device-code",
            Self::Imds => "imds",
        }
    }

    /// True where the mailbox is known: from AUTH on.
    fn has_mailbox(self) -> bool {
        !matches!(self, Self::Connect | Self::Ehlo | Self::StartTls) && !self.is_http()
    }

    /// True where HTTP is spoken, and the client id is known.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Token | Self::DeviceCode | Self::Imds)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Answers with this text, sent as it is (CRLF is added; a text that ends in `[..]` gets the session's suffix there,
    /// facts 1.2). A 2xx or 3xx text only replaces the words of a command that is otherwise carried out; 4xx and 5xx
    /// refuse it, and 421 closes. Refusing at [`Stage::Connect`] closes too. At [`Stage::EndOfData`] a refusing text
    /// means that the message is not kept. At [`Stage::Content`] only 421 makes sense.
    Reply(String),
    /// Cuts the connection without an answer; the message, if any, is not kept.
    Close,
    /// At [`Stage::EndOfData`] only: keeps the message as if all were well, then cuts the connection without the
    /// reply. The client cannot know (facts 8, ambiguous acceptance).
    KeepThenClose,
    /// Never answers; the connection stays open until the client leaves. At [`Stage::Content`] it stops reading, so
    /// that the client's writes get stuck, until the session's limit.
    Stall,
    /// Does what is right, and says so only after this time (real time, not the clock's). A message is kept at once:
    /// whoever does not wait for the slow final reply cannot know.
    Delay(Duration),
    /// At [`Stage::Token`] and [`Stage::DeviceCode`] only: an error of Entra.
    TokenError(TokenFault),
    /// Where HTTP is spoken only, which is from [`Stage::Token`] on: an answer that is not the service's, as from a proxy or
    /// an overloaded front.
    Http(HttpFault),
    /// At [`Stage::Token`] and [`Stage::Imds`] only: what is right but for one thing. A request that deserves an error gets
    /// that error.
    OddToken(OddToken),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(text) => f.write_str(text),
            Self::Close => f.write_str("closes"),
            Self::KeepThenClose => f.write_str("keeps the message and closes"),
            Self::Stall => f.write_str("stalls"),
            Self::Delay(wait) => write!(f, "answers {} s late", wait.as_secs_f64()),
            Self::TokenError(fault) => fault.fmt(f),
            Self::Http(fault) => fault.fmt(f),
            Self::OddToken(odd) => odd.fmt(f),
        }
    }
}

/// An error of the token endpoint, rendered in Entra's form (facts 4.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFault {
    /// The HTTP status.
    pub status: u16,
    /// `error`, as in `temporarily_unavailable`.
    pub error: String,
    /// The AADSTS number.
    pub code: u32,
    /// What follows `AADSTSnnnn: ` in the description.
    pub message: String,
    /// Seconds in a `Retry-After` header.
    pub retry_after: Option<u32>,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {} {} AADSTS{}: {}", self.status, self.error, self.code, self.message)
    }
}

/// A plain HTTP answer of the token endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpFault {
    /// The status, from 200 to 599.
    pub status: u16,
    /// Seconds in a `Retry-After` header.
    pub retry_after: Option<u32>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// The body, whatever it is; sent as `text/html`, or as JSON if it begins with a brace.
    pub body: String,
}

impl fmt::Display for HttpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(secs) = self.retry_after {
            write!(f, ", Retry-After: {secs}")?;
        }
        if let Some(location) = &self.location {
            write!(f, ", Location: {location}")?;
        }
        if self.body.is_empty() { Ok(()) } else { write!(f, ", {}", self.body.escape_debug()) }
    }
}

/// In which way an otherwise right token answer is odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OddToken {
    /// The token lives for this time only.
    Lifetime(Duration),
    /// `access_token` is empty.
    Empty,
    /// The JSON has a member of so many octets that nobody asked for.
    Padded(usize),
}

impl fmt::Display for OddToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lifetime(lifetime) => write!(f, "a token for {} s", lifetime.as_secs()),
            Self::Empty => f.write_str("an empty token"),
            Self::Padded(octets) => write!(f, "a token and {octets} octets of filler"),
        }
    }
}

/// Whom a fault strikes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Whoever comes.
    #[default]
    Anyone,
    /// The session of this mailbox, from AUTH on. AUTH LOGIN names none.
    Mailbox(String),
    /// This client id at the token endpoint, whatever the grant; or this managed identity's, where it is asked for.
    Client(String),
}

impl Target {
    fn is(&self, who: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Mailbox(name) | Self::Client(name) => name.eq_ignore_ascii_case(who),
        }
    }
}

/// A fault to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// What.
    pub action: Action,
    /// How often; `None` until [`Sandbox::clear_faults`](crate::Sandbox::clear_faults).
    pub times: Option<u32>,
    /// Whom.
    pub target: Target,
}

impl Fault {
    /// A fault that strikes once, whoever comes.
    pub fn once(stage: Stage, action: Action) -> Self {
        Self { stage, action, times: Some(1), target: Target::Anyone }
    }

    /// A fault that strikes until it is cleared, whoever comes.
    pub fn always(stage: Stage, action: Action) -> Self {
        Self { times: None, ..Self::once(stage, action) }
    }

    /// Strikes so often.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Strikes only this mailbox or client.
    #[must_use]
    pub fn only(self, target: Target) -> Self {
        Self { target, ..self }
    }

    fn check(&self) -> Result<(), SandboxError> {
        let is_entra = matches!(self.stage, Stage::Token | Stage::DeviceCode);
        let gives_tokens = matches!(self.stage, Stage::Token | Stage::Imds);
        let http = self.stage.is_http();
        let content = self.stage == Stage::Content;
        let senseless = match (&self.action, &self.target) {
            (_, Target::Client(_)) if !http => "know the client id",
            (_, Target::Mailbox(_)) if !self.stage.has_mailbox() => "know the mailbox",
            (Action::Reply(_), _) if http => "answer with an SMTP reply",
            (Action::Reply(text), _) if !is_reply(text) => "answer with a text that does not begin with a reply code",
            (Action::Reply(text), _) if content && !text.starts_with("421") => "answer with anything but 421",
            (Action::Delay(_), _) if content => "answer late",
            (Action::KeepThenClose, _) if self.stage != Stage::EndOfData => "keep a message",
            (Action::TokenError(_), _) if !is_entra => "answer with a token error",
            (Action::Http(_), _) if !http => "answer over HTTP",
            (Action::Http(fault), _) if !(200..=599).contains(&fault.status) => "answer with such an HTTP status",
            (Action::OddToken(_), _) if !gives_tokens => "issue a token",
            _ => return Ok(()),
        };
        Err(SandboxError::SenselessFault { stage: self.stage, action: senseless })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", self.stage)?;
        match self.times {
            None => write!(f, ", always")?,
            Some(1) => write!(f, ", once")?,
            Some(times) => write!(f, ", {times} times")?,
        }
        if let Target::Mailbox(name) | Target::Client(name) = &self.target {
            write!(f, ", for {name}")?;
        }
        write!(f, ": {}", self.action)
    }
}

/// A code from 200 to 599, then nothing or a space or hyphen, and no control characters but the CRLF between lines.
pub(crate) fn is_reply(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', rest @ ..] if matches!(rest.first(), None | Some(b' ' | b'-')))
        && !text.replace("\r\n", "").contains(char::is_control)
}

/// The faults that wait to strike, first injected first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// How many wait, so that a command without faults costs no lock.
    waiting: AtomicUsize,
    list: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) -> Result<(), SandboxError> {
        fault.check()?;
        let mut list = self.list();
        if fault.times != Some(0) {
            list.push(fault);
        }
        self.waiting.store(list.len(), Ordering::Release);
        Ok(())
    }

    pub(crate) fn clear(&self) {
        let mut list = self.list();
        list.clear();
        self.waiting.store(0, Ordering::Release);
    }

    /// What waits, in the order in which it was injected.
    pub(crate) fn waiting(&self) -> Vec<Fault> {
        self.list().clone()
    }

    /// What strikes now at `stage`, if anything does. `who` is the mailbox, or the client id where HTTP is spoken.
    pub(crate) fn strike(&self, stage: Stage, who: Option<&str>) -> Option<Action> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut list = self.list();
        let who = who.unwrap_or_default();
        let at = list.iter().position(|fault| fault.stage == stage && fault.target.is(who))?;
        let fault = &mut list[at];
        let action = fault.action.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                list.remove(at);
            }
        }
        self.waiting.store(list.len(), Ordering::Release);
        Some(action)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Action {
        Action::Reply(text.to_owned())
    }

    #[test]
    fn faults_strike_in_order_and_as_often_as_asked() {
        let faults = Faults::default();
        faults.inject(Fault::once(Stage::Mail, reply("451 a")).times(2)).unwrap();
        faults.inject(Fault::always(Stage::Mail, Action::Close)).unwrap();
        faults.inject(Fault::once(Stage::Rcpt, Action::Stall).times(0)).unwrap();
        assert_eq!(faults.waiting().len(), 2);
        assert_eq!(faults.strike(Stage::Rcpt, None), None);
        assert_eq!(faults.strike(Stage::Mail, None), Some(reply("451 a")));
        assert_eq!(faults.strike(Stage::Mail, None), Some(reply("451 a")));
        assert_eq!(faults.strike(Stage::Mail, None), Some(Action::Close));
        assert_eq!(faults.strike(Stage::Mail, None), Some(Action::Close));
        faults.clear();
        assert_eq!(faults.strike(Stage::Mail, None), None);
    }

    #[test]
    fn a_fault_for_one_passes_over_the_others() {
        let faults = Faults::default();
        let one = Target::Mailbox("One@contoso.com".to_owned());
        faults.inject(Fault::once(Stage::Mail, Action::Stall).only(one)).unwrap();
        faults.inject(Fault::once(Stage::Mail, Action::Close)).unwrap();
        assert_eq!(faults.strike(Stage::Mail, Some("two@contoso.com")), Some(Action::Close));
        assert_eq!(faults.strike(Stage::Mail, Some("two@contoso.com")), None);
        assert_eq!(faults.strike(Stage::Mail, None), None);
        assert_eq!(faults.strike(Stage::Mail, Some("one@CONTOSO.com")), Some(Action::Stall));
    }

    #[test]
    fn senseless_faults_are_refused() {
        let mailbox = || Target::Mailbox("a@b.c".to_owned());
        let client = || Target::Client("c".to_owned());
        let http = |status| Action::Http(HttpFault { status, ..HttpFault::default() });
        for fault in [
            Fault::once(Stage::Token, reply("250 x")),
            Fault::once(Stage::Mail, reply("hello")),
            Fault::once(Stage::Mail, reply("2500 x")),
            Fault::once(Stage::Mail, reply("250 x\r")),
            Fault::once(Stage::Content, reply("451 x")),
            Fault::once(Stage::Content, Action::Delay(Duration::ZERO)),
            Fault::once(Stage::Mail, Action::KeepThenClose),
            Fault::once(Stage::Mail, http(503)),
            Fault::once(Stage::Token, http(99)),
            Fault::once(Stage::Auth, Action::OddToken(OddToken::Empty)),
            Fault::once(Stage::Ehlo, Action::Close).only(mailbox()),
            Fault::once(Stage::Token, Action::Close).only(mailbox()),
            Fault::once(Stage::Imds, Action::Close).only(mailbox()),
            Fault::once(Stage::Imds, reply("250 x")),
            Fault::once(Stage::DeviceCode, Action::OddToken(OddToken::Empty)),
            Fault::once(Stage::Mail, Action::Close).only(client()),
        ] {
            assert!(Faults::default().inject(fault.clone()).is_err(), "{fault}");
        }
        for fault in [
            Fault::once(Stage::Content, reply("421 4.3.2 Service not active")),
            Fault::once(Stage::Mail, reply("250-x\r\n250 y")),
            Fault::once(Stage::Auth, Action::Close).only(mailbox()),
            Fault::once(Stage::Token, http(503)).only(client()),
            Fault::once(Stage::DeviceCode, http(503)).only(client()),
            Fault::once(Stage::Imds, http(410)).only(client()),
            Fault::once(Stage::Imds, Action::OddToken(OddToken::Empty)),
        ] {
            assert!(Faults::default().inject(fault.clone()).is_ok(), "{fault}");
        }
    }
}
