//! The device code and the pace at which it is asked whether the user has finished (RFC 8628 sections 3.2 to 3.5). Pure.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::{SignInError, failed};
use crate::failure::{FailureClass, TokenFailure};
use crate::reply::DeviceReply;
use crate::schedule::{Deadline, Now};
use crate::secret::Secret;

/// RFC 8628 section 3.5: what `slow_down` adds, and the interval where none is given.
const STEP: Duration = Duration::from_secs(5);
/// Entra ID's codes live 15 minutes; what says nothing is taken for that.
const USUAL_LIFE: Duration = Duration::from_mins(15);
/// Whatever an endpoint says, nobody is waited for longer.
const LONGEST_LIFE: Duration = Duration::from_hours(1);
/// Nor is it asked more seldom.
const LONGEST_INTERVAL: Duration = Duration::from_mins(1);
/// Characters of a code that a person types.
const LONGEST_CODE: usize = 64;

/// A device code of the endpoint's.
pub struct DeviceCode {
    pub(super) secret: Secret,
    prompt: DevicePrompt,
    interval: Duration,
    ends: Deadline,
}

/// What the user has to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePrompt {
    /// What the user types.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// How long the code lives from now.
    pub lifetime: Duration,
}

impl DeviceCode {
    pub(super) fn of(reply: DeviceReply, asked: Now) -> Result<Self, String> {
        let lifetime = reply.lifetime().unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
        let interval = reply.interval().unwrap_or(STEP).clamp(Duration::from_secs(1), LONGEST_INTERVAL);
        let is_code = |code: &str| {
            (1..=LONGEST_CODE).contains(&code.len()) && code.chars().all(|char| char.is_ascii_graphic() || char == ' ')
        };
        let DeviceReply { device_code, user_code, verification_uri, .. } = reply;
        let user_code = Some(user_code).filter(|code| is_code(code)).ok_or("the reply's user code is none")?;
        let verification_uri = Url::parse(&verification_uri).ok().filter(is_web);
        let verification_uri = verification_uri.ok_or("the reply's verification_uri is no web address")?;
        let secret = Secret::new(device_code).map_err(|error| format!("the reply's device code is none: {error}"))?;
        let prompt = DevicePrompt { user_code, verification_uri, lifetime };
        Ok(Self { secret, prompt, interval, ends: Deadline::after(asked, lifetime) })
    }

    /// What the user has to see.
    pub fn prompt(&self) -> &DevicePrompt {
        &self.prompt
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http") && url.has_host()
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCode").field("prompt", &self.prompt).finish_non_exhaustive()
    }
}

/// The pace.
pub(super) struct Polling {
    interval: Duration,
    /// Added for one poll only, after trouble.
    patience: Duration,
    ends: Deadline,
}

/// What follows from an answer that is no token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask again after [`Polling::wait`].
    Poll,
    /// It is over.
    End(SignInError),
}

impl Polling {
    pub(super) fn new(code: &DeviceCode) -> Self {
        Self { interval: code.interval, patience: Duration::ZERO, ends: code.ends }
    }

    /// How long to wait before the next poll.
    pub(super) fn wait(&self) -> Duration {
        self.interval + self.patience
    }

    pub(super) fn after(&mut self, failure: TokenFailure, now: Now) -> Next {
        let (before, error) = (self.patience, failure.error.as_deref().unwrap_or_default());
        self.patience = Duration::ZERO;
        match error {
            "authorization_pending" => {}
            "slow_down" => self.interval = (self.interval + STEP).min(LONGEST_INTERVAL),
            "authorization_declined" => return Next::End(SignInError::Declined),
            "expired_token" | "code_expired" => return Next::End(SignInError::Expired),
            // RFC 8628 section 3.5: back off exponentially.
            _ if failure.class.passes() => {
                let asked = failure.retry_after.unwrap_or_default();
                self.patience = (before * 2).max(self.interval).max(asked).min(LONGEST_INTERVAL);
            }
            // The user may have come back from a page of the tenant's policy: that page has said why.
            "access_denied" if failure.class == FailureClass::Policy && failure.codes.is_empty() => {
                return Next::End(SignInError::Declined);
            }
            _ => return Next::End(failed(failure)),
        }
        if self.ends.remaining(now) <= self.wait() { Next::End(SignInError::Expired) } else { Next::Poll }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::{Monotonic, WallTime};

    fn at(seconds: u64) -> Now {
        let elapsed = Duration::from_secs(seconds);
        Now { wall: WallTime::from_unix_millis(0) + elapsed, monotonic: Monotonic::from_start(elapsed) }
    }

    fn code(json: &str) -> Result<DeviceCode, String> {
        DeviceCode::of(serde_json::from_str(json).unwrap(), at(0))
    }

    fn good() -> DeviceCode {
        code(r#"{"device_code":"secret-code","user_code":"ABCD-1234","verification_uri":"https://login.example/device","expires_in":900,"interval":5}"#)
            .unwrap()
    }

    fn answer(error: &str, class: FailureClass, retry_after: Option<u64>) -> TokenFailure {
        TokenFailure {
            class,
            http_status: Some(400),
            error: Some(error.to_owned()),
            codes: Vec::new(),
            trace_id: None,
            correlation_id: None,
            retry_after: retry_after.map(Duration::from_secs),
            advice: String::new(),
            text: String::new(),
        }
    }

    #[test]
    fn what_a_person_is_shown_is_harmless() {
        assert_eq!(good().prompt().user_code, "ABCD-1234");
        assert!(!format!("{:?}", good()).contains("secret-code"));
        for json in [
            r#"{"device_code":"d","user_code":"\u001b[2J","verification_uri":"https://login.example/"}"#,
            r#"{"device_code":"d","user_code":"","verification_uri":"https://login.example/"}"#,
            r#"{"device_code":"d","user_code":"A","verification_uri":"javascript:alert(1)"}"#,
            r#"{"device_code":"","user_code":"A","verification_uri":"https://login.example/"}"#,
        ] {
            assert!(code(json).is_err(), "{json}");
        }
        let bare = code(r#"{"device_code":"d","user_code":"A","verification_url":"https://login.example/"}"#).unwrap();
        assert_eq!((bare.interval, bare.prompt.lifetime), (STEP, USUAL_LIFE));
        let odd =
            r#"{"device_code":"d","user_code":"A","verification_uri":"https://x/","interval":0,"expires_in":999999}"#;
        let odd = code(odd).unwrap();
        assert_eq!((odd.interval, odd.prompt.lifetime), (Duration::from_secs(1), LONGEST_LIFE));
    }

    #[test]
    fn the_pace_is_the_endpoints() {
        use FailureClass::{Throttled, Transient, Unexpected};
        let mut polling = Polling::new(&good());
        for (error, class, retry_after, wait) in [
            ("authorization_pending", Unexpected, None, 5),
            ("slow_down", Unexpected, None, 10),
            ("authorization_pending", Unexpected, None, 10),
            ("slow_down", Unexpected, None, 15),
            // Trouble on the way: longer and longer, until it answers again.
            ("", Transient, None, 30),
            ("", Transient, None, 45),
            ("", Throttled, Some(50), 75),
            ("", Transient, None, 75),
            ("authorization_pending", Unexpected, None, 15),
        ] {
            assert_eq!(polling.after(answer(error, class, retry_after), at(10)), Next::Poll, "{error}");
            assert_eq!(polling.wait(), Duration::from_secs(wait), "{error} {class}");
        }
    }

    #[test]
    fn ends() {
        use FailureClass::{Configuration, Policy, Unexpected};
        let end = |error, class, now| {
            let mut polling = Polling::new(&good());
            match polling.after(answer(error, class, None), at(now)) {
                Next::End(error) => error.to_string(),
                Next::Poll => "poll".to_owned(),
            }
        };
        for (error, class, now, expected) in [
            ("authorization_pending", Unexpected, 890, "poll"),
            ("authorization_pending", Unexpected, 895, "the sign-in was not finished in time; start again"),
            ("expired_token", Unexpected, 5, "the sign-in was not finished in time; start again"),
            ("authorization_declined", Unexpected, 5, "the sign-in was declined"),
            ("access_denied", Policy, 5, "the sign-in was declined"),
            ("bad_verification_code", Unexpected, 5, "unexpected: ; HTTP 400; bad_verification_code"),
            ("invalid_client", Configuration, 5, "configuration: ; HTTP 400; invalid_client"),
        ] {
            assert_eq!(end(error, class, now), expected, "{error}");
        }
    }
}
