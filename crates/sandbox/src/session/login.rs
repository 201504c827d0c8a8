//! AUTH within a session (facts 1.3, 1.5): XOAUTH2 in both forms, LOGIN only to be refused, and the login that a
//! success leaves. What a token must be is in `token`, who may have a mailbox in `directory`.

use std::sync::Arc;

use super::{Hello, Phase, Session};
use crate::answer::Answer;
use crate::fault::Stage;
use crate::replies;
use crate::sasl::{AuthRefusal, Xoauth2};
use crate::world::World;

/// A mailbox logged in on a connection; counts against its concurrency limit as long as it lives.
pub(crate) struct Login {
    pub(crate) address: String,
    pub(crate) connection: u64,
    world: Arc<World>,
}

impl Login {
    fn new(world: &Arc<World>, address: String, connection: u64) -> Self {
        world.limiter.enter(&address, connection);
        Self { address, connection, world: Arc::clone(world) }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.world.limiter.leave(&self.address, self.connection);
    }
}

impl Session {
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Answer {
        if self.hello == Hello::None {
            return self.refuse(replies::HELLO_FIRST);
        }
        if self.login.is_some() || self.transaction.is_some() {
            // RFC 4954 section 4: once per session, and not within a transaction.
            return self.refuse(replies::BAD_SEQUENCE);
        }
        let offered = self.secure && self.hello == Hello::Ehlo;
        match mechanism.to_ascii_uppercase().as_str() {
            "XOAUTH2" if offered => self.auth_xoauth2(initial),
            "LOGIN" if offered => self.auth_login(initial),
            _ => self.refuse(replies::MECHANISM_UNKNOWN),
        }
    }

    fn auth_xoauth2(&mut self, initial: Option<&str>) -> Answer {
        if let Some(response) = initial {
            return self.xoauth2(response);
        }
        self.phase = Phase::Xoauth2Response;
        Answer::say(replies::EMPTY_CHALLENGE)
    }

    fn auth_login(&mut self, initial: Option<&str>) -> Answer {
        let (phase, prompt) = match initial {
            // The initial response is the user name.
            Some(_) => (Phase::LoginPassword, replies::LOGIN_PASSWORD),
            None => (Phase::LoginUsername, replies::LOGIN_USERNAME),
        };
        self.phase = phase;
        Answer::say(prompt)
    }

    pub(super) fn login_username(&mut self, line: &[u8]) -> Answer {
        if line == b"*" {
            return self.auth_refused(AuthRefusal::Cancelled);
        }
        self.phase = Phase::LoginPassword;
        Answer::say(replies::LOGIN_PASSWORD)
    }

    /// The password is never looked at: basic authentication is off, as facts 0 point 13 foretells.
    pub(super) fn login_password(&mut self, line: &[u8]) -> Answer {
        let why = if line == b"*" { AuthRefusal::Cancelled } else { AuthRefusal::BasicDisabled };
        self.with_fault(Stage::Auth, |session| session.auth_refused(why))
    }

    pub(super) fn xoauth2(&mut self, response: &str) -> Answer {
        let decoded = if response == "*" { Err(AuthRefusal::Cancelled) } else { Xoauth2::decode(response) };
        let user = decoded.as_ref().ok().map(|credentials| credentials.user.as_str());
        let action = self.world.faults.strike(Stage::Auth, user);
        self.with_action(Stage::Auth, action, |session| match session.admit(decoded) {
            Ok(address) => {
                session.world.tally.authenticated();
                session.last_auth_error = None;
                session.login = Some(Login::new(&session.world, address, session.connection));
                Answer::say(replies::AUTH_OK)
            }
            Err(why) => session.auth_refused(why),
        })
    }

    /// Which mailbox the credentials open.
    fn admit(&self, credentials: Result<Xoauth2, AuthRefusal>) -> Result<String, AuthRefusal> {
        let Xoauth2 { user, token } = credentials?;
        let claims = self.world.mint.verify(&token, self.world.clock.wall())?;
        let shared = self.world.conditions().shared_login;
        self.world.directory().as_seen(self.world.clock.monotonic()).admit(&user, &claims, shared)
    }

    pub(super) fn auth_refused(&mut self, why: AuthRefusal) -> Answer {
        tracing::debug!(session = %self.id, reason = %why, "AUTH refused");
        self.world.tally.refused(why);
        self.last_auth_error = Some(why.reply().to_owned());
        self.refuse(why.reply())
    }
}
