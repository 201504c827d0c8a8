//! What Entra remembers of people's sign-ins: authorization codes, device codes and refresh tokens (facts 4.5), and
//! which assertions it has seen. It remembers and bounds; what is answered is `entra`'s.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Monotonic, WallTime};

use crate::entra::Scopes;
use crate::token::filler;

/// Authorization codes expire in about ten minutes (facts 4.5).
const CODE_LIFETIME: Duration = Duration::from_mins(10);
/// A refresh token dies when it is that old; each use gives a new one (facts 4.5).
pub(crate) const REFRESH_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// RFC 8628 section 3.5: what `slow_down` adds to the interval.
const SLOWER: Duration = Duration::from_secs(5);
/// Codes and device sign-ins remembered; with one more the oldest is forgotten.
const PENDING: usize = 1_000;
/// Refresh tokens remembered.
const REFRESH_TOKENS: usize = 100_000;
/// Assertions remembered, as long as their time lasts.
const ASSERTIONS: usize = 100_000;
/// Letters of user codes: those that a person cannot mistake.
const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Who let which application act for him, and in what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignIn {
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) user: String,
    pub(crate) scopes: Scopes,
    /// For the ID token.
    pub(crate) nonce: Option<String>,
}

/// What a browser came back with.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) sign_in: SignIn,
    pub(crate) redirect_uri: String,
    /// PKCE: base64url of SHA-256 of the verifier.
    pub(crate) challenge: String,
    pub(crate) made: Monotonic,
    pub(crate) redeemed: bool,
}

impl Code {
    pub(crate) fn has_expired(&self, now: Monotonic) -> bool {
        now.saturating_since(self.made) >= CODE_LIFETIME
    }
}

/// A device's wish for a sign-in.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) user_code: String,
    /// What the device itself holds.
    pub(crate) secret: String,
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) scopes: Scopes,
    pub(crate) made: Monotonic,
    pub(crate) lifetime: Duration,
    pub(crate) interval: Duration,
    polled: Option<Monotonic>,
    state: DeviceState,
}

impl Device {
    pub(crate) fn new(tenant_id: &str, client_id: &str, scopes: Scopes, made: Monotonic) -> Self {
        let letter = || char::from(LETTERS[fastrand::usize(..LETTERS.len())]);
        Self {
            user_code: std::iter::repeat_with(letter).take(9).collect(),
            secret: filler(200),
            tenant_id: tenant_id.to_owned(),
            client_id: client_id.to_owned(),
            scopes,
            made,
            lifetime: Duration::ZERO,
            interval: Duration::ZERO,
            polled: None,
            state: DeviceState::Waiting,
        }
    }

    fn is_waiting(&self, now: Monotonic) -> bool {
        self.state == DeviceState::Waiting && now.saturating_since(self.made) < self.lifetime
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum DeviceState {
    Waiting,
    Approved(String),
    Declined,
    Redeemed,
}

/// What a device hears when it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    Unknown,
    Expired,
    TooFast,
    Pending,
    Declined,
    Redeemed,
    Approved(SignIn),
}

/// A refresh token that was issued.
#[derive(Clone)]
pub(crate) struct Refresh {
    pub(crate) sign_in: SignIn,
    pub(crate) issued: WallTime,
    pub(crate) revoked: bool,
}

impl Refresh {
    pub(crate) fn has_expired(&self, now: WallTime) -> bool {
        now.saturating_since(self.issued) >= REFRESH_LIFETIME
    }
}

/// Everything remembered. Locks are held for a lookup.
#[derive(Default)]
pub(crate) struct SignIns {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    codes: VecDeque<(String, Code)>,
    devices: VecDeque<Device>,
    refresh: HashMap<String, Refresh>,
    /// Refresh tokens, oldest first.
    order: VecDeque<String>,
    /// Client and `jti` of accepted assertions, with the second in which their time ends.
    assertions: HashMap<(String, String), i64>,
}

impl SignIns {
    /// Remembers an authorization code and gives it its name.
    pub(crate) fn keep_code(&self, code: Code) -> String {
        let name = format!("1.{}", filler(400));
        let mut held = self.held();
        if held.codes.len() == PENDING {
            held.codes.pop_front();
        }
        held.codes.push_back((name.clone(), code));
        name
    }

    pub(crate) fn code(&self, name: &str) -> Option<Code> {
        self.held().codes.iter().find(|(known, _)| known == name).map(|(_, code)| code.clone())
    }

    /// Uses a code up; false if it was.
    pub(crate) fn redeem(&self, name: &str) -> bool {
        let mut held = self.held();
        let found = held.codes.iter_mut().find(|(known, _)| known == name);
        found.is_some_and(|(_, code)| !std::mem::replace(&mut code.redeemed, true))
    }

    pub(crate) fn keep_device(&self, device: Device) {
        let mut held = self.held();
        if held.devices.len() == PENDING {
            held.devices.pop_front();
        }
        held.devices.push_back(device);
    }

    /// A device asks whether somebody has signed in.
    pub(crate) fn poll(&self, device_code: &str, client_id: &str, tenant_id: &str, now: Monotonic) -> Poll {
        let mut held = self.held();
        let is_it = |device: &&mut Device| {
            device.secret == device_code && device.client_id == client_id && device.tenant_id == tenant_id
        };
        let Some(device) = held.devices.iter_mut().find(is_it) else { return Poll::Unknown };
        if device.state == DeviceState::Redeemed {
            return Poll::Redeemed;
        }
        if now.saturating_since(device.made) >= device.lifetime {
            return Poll::Expired;
        }
        let is_too_fast = device.polled.is_some_and(|last| now.saturating_since(last) < device.interval);
        device.polled = Some(now);
        if is_too_fast {
            device.interval += SLOWER;
            return Poll::TooFast;
        }
        match &device.state {
            DeviceState::Waiting => Poll::Pending,
            DeviceState::Declined => Poll::Declined,
            DeviceState::Redeemed => Poll::Redeemed,
            DeviceState::Approved(user) => {
                let sign_in = SignIn {
                    tenant_id: device.tenant_id.clone(),
                    client_id: device.client_id.clone(),
                    user: user.clone(),
                    scopes: device.scopes.clone(),
                    nonce: None,
                };
                device.state = DeviceState::Redeemed;
                Poll::Approved(sign_in)
            }
        }
    }

    /// The devices that wait for a person, oldest first.
    pub(crate) fn waiting(&self, now: Monotonic) -> Vec<Device> {
        self.held().devices.iter().filter(|device| device.is_waiting(now)).cloned().collect()
    }

    /// A person lets the device act for `user`, or for `None` declines; false if no device waits with this code.
    pub(crate) fn decide(&self, user_code: &str, user: Option<&str>, now: Monotonic) -> bool {
        let mut held = self.held();
        let is_it = |device: &&mut Device| device.user_code.eq_ignore_ascii_case(user_code) && device.is_waiting(now);
        let Some(device) = held.devices.iter_mut().find(is_it) else { return false };
        device.state = user.map_or(DeviceState::Declined, |user| DeviceState::Approved(user.to_owned()));
        true
    }

    /// A new refresh token. Earlier ones stay good (facts 4.5).
    pub(crate) fn issue_refresh(&self, sign_in: SignIn, issued: WallTime) -> String {
        let token = format!("1.{}", filler(1_200));
        let mut held = self.held();
        if held.order.len() == REFRESH_TOKENS
            && let Some(oldest) = held.order.pop_front()
        {
            held.refresh.remove(&oldest);
        }
        held.order.push_back(token.clone());
        held.refresh.insert(token.clone(), Refresh { sign_in, issued, revoked: false });
        token
    }

    pub(crate) fn refresh(&self, token: &str) -> Option<Refresh> {
        self.held().refresh.get(token).cloned()
    }

    /// Ends every sign-in of a user; gives how many good refresh tokens died of it.
    pub(crate) fn revoke(&self, user: &str, now: WallTime) -> usize {
        let mut held = self.held();
        held.codes.retain(|(_, code)| !code.sign_in.user.eq_ignore_ascii_case(user));
        let of_user = held.refresh.values_mut().filter(|refresh| refresh.sign_in.user.eq_ignore_ascii_case(user));
        of_user
            .map(|refresh| usize::from(!std::mem::replace(&mut refresh.revoked, true) && !refresh.has_expired(now)))
            .sum()
    }

    /// How many refresh tokens of a user, or of all for `None`, are good at `now`.
    pub(crate) fn alive(&self, user: Option<&str>, now: WallTime) -> usize {
        let is_of = |refresh: &&Refresh| user.is_none_or(|user| refresh.sign_in.user.eq_ignore_ascii_case(user));
        let held = self.held();
        held.refresh.values().filter(is_of).filter(|refresh| !refresh.revoked && !refresh.has_expired(now)).count()
    }

    /// Notes an assertion that is good until `until`, in seconds; false if it was seen.
    pub(crate) fn is_first_use(&self, client_id: &str, jti: &str, until: i64, now: i64) -> bool {
        let mut held = self.held();
        if held.assertions.len() >= ASSERTIONS {
            held.assertions.retain(|_, until| *until > now);
        }
        held.assertions.insert((client_id.to_ascii_lowercase(), jti.to_owned()), until).is_none_or(|until| until <= now)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SignIns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignIns(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in(user: &str) -> SignIn {
        SignIn {
            tenant_id: "t".to_owned(),
            client_id: "c".to_owned(),
            user: user.to_owned(),
            scopes: Scopes::default(),
            nonce: None,
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let sign_ins = SignIns::default();
        let code = Code {
            sign_in: sign_in("a"),
            redirect_uri: String::new(),
            challenge: String::new(),
            made: Monotonic::default(),
            redeemed: false,
        };
        let names: Vec<String> = (0..=PENDING).map(|_| sign_ins.keep_code(code.clone())).collect();
        assert!(sign_ins.code(&names[0]).is_none() && sign_ins.code(&names[1]).is_some());
        for _ in 0..=PENDING {
            let mut device = Device::new("t", "c", Scopes::default(), Monotonic::default());
            device.lifetime = Duration::from_secs(1);
            sign_ins.keep_device(device);
        }
        assert_eq!(sign_ins.waiting(Monotonic::default()).len(), PENDING);
    }

    #[test]
    fn an_assertion_may_come_again_when_its_time_is_over_or_from_another_client() {
        let sign_ins = SignIns::default();
        assert!(sign_ins.is_first_use("a", "j", 100, 50));
        assert!(!sign_ins.is_first_use("A", "j", 100, 99));
        assert!(sign_ins.is_first_use("b", "j", 100, 99));
        assert!(sign_ins.is_first_use("a", "k", 100, 99));
        assert!(sign_ins.is_first_use("a", "j", 200, 100));
    }

    #[test]
    fn a_code_is_used_up_once() {
        let sign_ins = SignIns::default();
        let made = Monotonic::default();
        let (redirect_uri, challenge) = (String::new(), String::new());
        let name = sign_ins.keep_code(Code { sign_in: sign_in("a"), redirect_uri, challenge, made, redeemed: false });
        assert_eq!((sign_ins.redeem(&name), sign_ins.redeem(&name), sign_ins.redeem("x")), (true, false, false));
    }
}
