//! Faults on demand: at a stage of the conversation, something other than the right answer, a number of times. Small
//! and general; scripted outages are built from it. It does not decide what would have been right.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Behind the final dot.
    EndOfData,
    /// At the token endpoint.
    Token,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Answers with this text, sent as it is (no suffix; CRLF is added). A 2xx or 3xx text only replaces the words of a
    /// command that is otherwise carried out; 4xx and 5xx refuse it, and 421 closes. Refusing at
    /// [`Stage::Connect`] closes too. At [`Stage::EndOfData`] a refusing text means that the message is not kept.
    Reply(String),
    /// Cuts the connection without an answer; the message, if any, is not kept.
    Close,
    /// At [`Stage::EndOfData`] only: keeps the message as if all were well, then cuts the connection without the
    /// reply. The client cannot know (facts 8, ambiguous acceptance).
    KeepThenClose,
    /// Never answers; the connection stays open until the client leaves.
    Stall,
    /// At [`Stage::Token`] only: an error of the token endpoint.
    TokenError(TokenFault),
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

/// A fault to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// What.
    pub action: Action,
    /// How often; `None` until [`Sandbox::clear_faults`](crate::Sandbox::clear_faults).
    pub times: Option<u32>,
}

impl Fault {
    /// A fault that strikes once.
    pub fn once(stage: Stage, action: Action) -> Self {
        Self { stage, action, times: Some(1) }
    }

    /// A fault that strikes until it is cleared.
    pub fn always(stage: Stage, action: Action) -> Self {
        Self { stage, action, times: None }
    }

    fn check(&self) -> Result<(), SandboxError> {
        let senseless = match (&self.action, self.stage) {
            (Action::Reply(_), Stage::Token) => "answer with an SMTP reply",
            (Action::KeepThenClose, stage) if stage != Stage::EndOfData => "keep a message",
            (Action::TokenError(_), stage) if stage != Stage::Token => "answer with a token error",
            _ => return Ok(()),
        };
        Err(SandboxError::SenselessFault { stage: self.stage, action: senseless })
    }
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

    /// What strikes now at `stage`, if anything does.
    pub(crate) fn strike(&self, stage: Stage) -> Option<Action> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut list = self.list();
        let at = list.iter().position(|fault| fault.stage == stage)?;
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

    #[test]
    fn faults_strike_in_order_and_as_often_as_asked() {
        let faults = Faults::default();
        let reply = |text: &str| Action::Reply(text.to_owned());
        faults.inject(Fault { stage: Stage::Mail, action: reply("451 a"), times: Some(2) }).unwrap();
        faults.inject(Fault::always(Stage::Mail, Action::Close)).unwrap();
        faults.inject(Fault { stage: Stage::Rcpt, action: Action::Stall, times: Some(0) }).unwrap();
        assert_eq!(faults.strike(Stage::Rcpt), None);
        assert_eq!(faults.strike(Stage::Mail), Some(reply("451 a")));
        assert_eq!(faults.strike(Stage::Mail), Some(reply("451 a")));
        assert_eq!(faults.strike(Stage::Mail), Some(Action::Close));
        assert_eq!(faults.strike(Stage::Mail), Some(Action::Close));
        faults.clear();
        assert_eq!(faults.strike(Stage::Mail), None);
    }

    #[test]
    fn senseless_faults_are_refused() {
        let faults = Faults::default();
        assert!(faults.inject(Fault::once(Stage::Token, Action::Reply("250 x".to_owned()))).is_err());
        assert!(faults.inject(Fault::once(Stage::Mail, Action::KeepThenClose)).is_err());
        assert_eq!(faults.strike(Stage::Mail), None);
    }
}
