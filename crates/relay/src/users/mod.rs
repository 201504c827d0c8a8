//! `[user.*]` at work: whether a login is right, and who it may send as. Shared by all listeners.
//!
//! Passwords are verified with Argon2id away from the async threads, few at a time (`places`); what was right once is remembered as
//! a keyed digest, so that devices which log in for every message cost nothing; who guesses is slowed and locked out (`lockout`).
//! It sends no reply and never sleeps: the caller does.

mod argon2id;
mod lockout;
mod places;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc;
use aws_lc_rs::{constant_time, hmac, rand};
use clock::Monotonic;
use mail::Mailbox;
use smtp_server::Credentials;
use tokio::task;
use zeroize::Zeroizing;

use self::argon2id::NotVerifiable;
pub(crate) use self::lockout::counted;
use self::lockout::{Attempt, Lockout, Tag};
use self::places::{Place, Places};
use crate::config::User;
use crate::routing::{AddressKey, AddressSet};

/// Why a login was not taken. Texts to clients are the caller's; they must not tell unknown names from wrong passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginRefused {
    /// There is no such user, or the password is another. The answer is to be sent after `delay`, at most 5 s.
    #[error("name or password are wrong")]
    Wrong {
        /// How long the caller waits before it answers.
        delay: Duration,
    },
    /// Too much was wrong before from this client; nothing was verified.
    #[error("too many logins from this client were wrong, it is locked out for {} s", .wait.as_secs_f64().ceil())]
    LockedOut {
        /// How long that lasts still, at most 15 minutes.
        wait: Duration,
    },
    /// Too many logins wait, or there is no memory to verify one: nothing is said about name and password.
    #[error("too many logins are being verified")]
    Busy,
}

/// Verifies a password against a hash; an error when that cannot be done now.
type Verifier = dyn Fn(&[u8], &phc::PasswordHash) -> Result<bool, NotVerifiable> + Send + Sync;

/// All users.
pub(crate) struct Users {
    shared: Arc<Shared>,
    places: Arc<Places>,
}

/// What verifications need on their own threads.
struct Shared {
    users: Vec<Known>,
    /// Places in `users`, by name in lower case.
    by_name: HashMap<String, usize>,
    /// Of all digests; made at the start and never written down.
    key: hmac::Key,
    /// Kept over a reload.
    memory: Arc<Mutex<Memory>>,
    verifier: Arc<Verifier>,
}

struct Known {
    /// The same value for as long as name and hash are the same: whoever logged in holds it.
    name: Arc<str>,
    hash: phc::PasswordHash,
    /// As it is written, for digests.
    hash_text: String,
    /// None: whatever the route allows.
    allowed_senders: Option<AddressSet>,
}

struct Memory {
    lockout: Lockout,
    /// What was right, by the user's name in lower case. The hash is in it: one of another hash is never met again.
    right: HashMap<String, Tag>,
}

impl Memory {
    /// The refusal of who is locked out, or of what was wrong before.
    fn refused_before(&mut self, attempt: Attempt, now: Monotonic) -> Option<LoginRefused> {
        if let Some(wait) = self.lockout.remaining(attempt.client, attempt.user, now) {
            return Some(LoginRefused::LockedOut { wait });
        }
        self.lockout.repeated(attempt, now).map(|delay| LoginRefused::Wrong { delay })
    }
}

/// One login, its password replaced by a digest.
#[derive(Clone, Copy)]
struct Login {
    attempt: Attempt,
    /// The user whose hash is verified: the one that was named, or for an unknown name one that stands in, so that both take as
    /// long. None where there are no users.
    hash_of: Option<usize>,
    /// Whether it is the one that was named.
    is_known: bool,
}

impl Users {
    /// The users of the configuration.
    pub(crate) fn new(users: &BTreeMap<String, User>) -> Self {
        Self::with(users, Places::new(), Arc::new(argon2id::verify))
    }

    fn with(users: &BTreeMap<String, User>, places: Places, verifier: Arc<Verifier>) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .expect("aws-lc ends the process rather than fail to draw random octets");
        let memory = Arc::new(Mutex::new(Memory { lockout: Lockout::new(), right: HashMap::new() }));
        let users: Vec<_> = users.iter().map(|(name, user)| Known::new(Arc::from(name.as_str()), user)).collect();
        let by_name = by_name(&users);
        Self { shared: Arc::new(Shared { users, by_name, key, memory, verifier }), places: Arc::new(places) }
    }

    /// The users of another configuration, with what these remember: who guesses stays slowed and locked out, and who has
    /// the same hash stays logged in.
    pub(crate) fn renewed(&self, users: &BTreeMap<String, User>) -> Self {
        let users: Vec<_> = users.iter().map(|(name, user)| self.shared.renewed(name, user)).collect();
        let by_name = by_name(&users);
        self.shared.memory().right.retain(|name, _| by_name.contains_key(name));
        let Shared { key, memory, verifier, .. } = &*self.shared;
        let (key, memory, verifier) = (key.clone(), Arc::clone(memory), Arc::clone(verifier));
        let shared = Arc::new(Shared { users, by_name, key, memory, verifier });
        Self { shared, places: Arc::clone(&self.places) }
    }

    /// Whether whoever logged in as `user`, which [`Users::verify`] gave, could do so again: the user is there and has the
    /// hash of then.
    pub(crate) fn still_knows(&self, user: &Arc<str>) -> bool {
        let known = self.shared.find(user).and_then(|at| self.shared.users.get(at));
        known.is_some_and(|known| Arc::ptr_eq(&known.name, user))
    }

    /// Whether name and password are right: the user's name as it is configured. Names are compared without regard to ASCII case.
    ///
    /// What was verified counts even if the caller does not wait for it. Takes as long for an unknown name as for a wrong password;
    /// at most the 10 s of waiting for a place, and the verification. After a wrong one the client's next turn comes when the answer
    /// is due, so that logins at the same time make guessing no faster. `now` is asked again after waiting.
    pub(crate) async fn verify(
        &self,
        client: IpAddr,
        credentials: &Credentials,
        now: impl Fn() -> Monotonic,
    ) -> Result<Arc<str>, LoginRefused> {
        let login = self.shared.login(counted(client), credentials);
        if let Some(answer) = self.shared.known_at_once(login, now()) {
            return answer;
        }
        let place = self.places.enter(login.attempt.client).await.map_err(|_| LoginRefused::Busy)?;
        let now = now();
        // Whoever was here before may have found it right, or wrong once too often.
        if let Some(answer) = self.shared.remembered(login, now) {
            return answer;
        }
        let shared = Arc::clone(&self.shared);
        let password = credentials.password.clone();
        let verified = task::spawn_blocking(move || shared.verified(login, password, now, place));
        verified.await.unwrap_or(Err(LoginRefused::Busy))
    }

    /// The user that the client names, as it is configured.
    pub(crate) fn name_of(&self, credentials: &Credentials) -> Option<&Arc<str>> {
        let at = self.shared.find(&credentials.name)?;
        self.shared.users.get(at).map(|user| &user.name)
    }

    /// Whether `user` may send as `sender`, by its `allowed_senders`: all if there are none. Addresses are compared without regard
    /// to ASCII case, as Exchange does. A name that is no user may not.
    pub(crate) fn may_send_as(&self, user: &str, sender: &Mailbox) -> bool {
        let Some(user) = self.shared.find(user).and_then(|at| self.shared.users.get(at)) else { return false };
        user.allowed_senders.as_ref().is_none_or(|allowed| allowed.contains(&AddressKey::from(sender)))
    }

    /// Whether `user` may send as some and not as others.
    pub(crate) fn holds_to_senders(&self, user: &str) -> bool {
        let user = self.shared.find(user).and_then(|at| self.shared.users.get(at));
        user.and_then(|user| user.allowed_senders.as_ref()).is_some_and(|allowed| !allowed.has_all())
    }
}

impl Known {
    fn new(name: Arc<str>, user: &User) -> Self {
        let hash = user.password_hash.phc().clone();
        let patterns = Some(&user.allowed_senders).filter(|patterns| !patterns.is_empty());
        Self { name, hash_text: hash.to_string(), hash, allowed_senders: patterns.map(AddressSet::new) }
    }
}

/// Places in `users`, by name in lower case.
fn by_name(users: &[Known]) -> HashMap<String, usize> {
    users.iter().enumerate().map(|(at, user)| (user.name.to_ascii_lowercase(), at)).collect()
}

impl Shared {
    /// A user of another configuration; the very one that is here if name and hash are the same.
    fn renewed(&self, name: &str, user: &User) -> Known {
        let known = Known::new(Arc::from(name), user);
        let same = self.users.iter().find(|old| *old.name == *known.name && old.hash_text == known.hash_text);
        Known { name: same.map_or_else(|| Arc::clone(&known.name), |old| Arc::clone(&old.name)), ..known }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    fn login(&self, client: IpAddr, credentials: &Credentials) -> Login {
        let name = credentials.name.to_ascii_lowercase();
        let user = self.tag(&[name.as_bytes()]);
        let known = self.find(&name);
        let hash_of = known.or_else(|| self.stand_in(user));
        let hash = hash_of.and_then(|at| self.users.get(at)).map_or("", |user| &user.hash_text);
        let secret = self.tag(&[name.as_bytes(), hash.as_bytes(), &credentials.password]);
        Login { attempt: Attempt { client, user, secret }, hash_of, is_known: known.is_some() }
    }

    /// Whose hash is verified for an unknown name: for one name always the same, spread over all users, so that hashes with other
    /// parameters do not tell them from unknown names.
    fn stand_in(&self, user: Tag) -> Option<usize> {
        let [first, second, third, fourth, ..] = user;
        let drawn = usize::try_from(u32::from_be_bytes([first, second, third, fourth])).unwrap_or_default();
        drawn.checked_rem(self.users.len())
    }

    /// A digest that nobody can make or check without the key.
    fn tag(&self, fields: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for field in fields {
            // With its length, so that no octet can move from one field to the next.
            context.update(&field.len().to_be_bytes());
            context.update(field);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// The answer that needs neither a turn nor a verification. What was right before is let in even where its client is locked
    /// out, so that nobody is kept out by a guesser at the same address; but since that makes it a guess which costs no time, few
    /// are looked up so.
    fn known_at_once(&self, login: Login, now: Monotonic) -> Option<Result<Arc<str>, LoginRefused>> {
        let mut memory = self.memory();
        if memory.lockout.may_look(login.attempt, now) {
            if let Some(user) = self.right_before(&mut memory, login, now) {
                return Some(Ok(user));
            }
            if login.is_known {
                memory.lockout.looked_in_vain(login.attempt, now);
            }
        }
        memory.refused_before(login.attempt, now).map(Err)
    }

    /// The answer that needs no verification, for one whose turn it is.
    fn remembered(&self, login: Login, now: Monotonic) -> Option<Result<Arc<str>, LoginRefused>> {
        let mut memory = self.memory();
        if let Some(refused) = memory.refused_before(login.attempt, now) {
            return Some(Err(refused));
        }
        self.right_before(&mut memory, login, now).map(Ok)
    }

    /// The user's name, if just this was right before; it is one more success then.
    fn right_before(&self, memory: &mut Memory, login: Login, now: Monotonic) -> Option<Arc<str>> {
        let user = login.hash_of.and_then(|at| self.users.get(at));
        let right = user.and_then(|user| memory.right.get(&user.name.to_ascii_lowercase()).copied());
        // Compared for unknown names too; their digest is never one that was right, since the name is in it.
        let same = constant_time::verify_slices_are_equal(&right.unwrap_or_default(), &login.attempt.secret).is_ok();
        let user = user.filter(|_| same && login.is_known)?;
        memory.lockout.succeeded(login.attempt.client, login.attempt.user, now);
        Some(Arc::clone(&user.name))
    }

    /// Verifies and remembers. Holds its place until the end, also when nobody waits for the answer any more.
    fn verified(
        &self,
        login: Login,
        password: Zeroizing<Vec<u8>>,
        now: Monotonic,
        place: Place,
    ) -> Result<Arc<str>, LoginRefused> {
        let user = login.hash_of.and_then(|at| self.users.get(at));
        let right = user.map_or(Ok(false), |user| (self.verifier)(&password, &user.hash));
        drop(password);
        let right = right.map_err(|NotVerifiable| LoginRefused::Busy)?;
        let mut memory = self.memory();
        let answer = match user {
            Some(user) if right && login.is_known => {
                memory.right.insert(user.name.to_ascii_lowercase(), login.attempt.secret);
                memory.lockout.succeeded(login.attempt.client, login.attempt.user, now);
                Ok(Arc::clone(&user.name))
            }
            _ => Err(LoginRefused::Wrong { delay: memory.lockout.failed(login.attempt, now) }),
        };
        // Whoever waits behind it finds what was remembered.
        drop(memory);
        match answer {
            Err(LoginRefused::Wrong { delay }) => place.leave_shut(delay),
            _ => drop(place),
        }
        answer
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic between two changes leaves at worst a mistake that was not counted.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
