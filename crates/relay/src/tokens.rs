//! Joins the token manager to the forwarder: one gives tokens, the other asks for them, and neither knows the other.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, WallTime};
use forwarder::{BearerToken, TokenSource, TokenTrouble};
use mail::{LaneId, Scope};
use token_manager::{AccessToken, TokenManager, TokenStatus, TokenUnavailable, Vault};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::registration::Registration;

/// How long the first token after a sign-in is waited for.
const RENEWAL: Duration = Duration::from_secs(35);

/// The tokens of one tenant's application, or those of one mailbox that somebody signs in for.
pub(crate) struct Tokens {
    manager: TokenManager,
    scope: Scope,
}

/// A token as the forwarder wants it.
#[derive(Clone)]
pub(crate) struct Token(AccessToken);

impl BearerToken for Token {
    fn expose(&self) -> &str {
        self.0.expose()
    }

    fn expires_at(&self) -> WallTime {
        self.0.expires_at()
    }

    fn user(&self) -> Option<&str> {
        self.0.user()
    }
}

impl Tokens {
    /// Starts the manager of the application's own token, which is asked for at once.
    pub(crate) fn of_application(registration: &Registration, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        let ledger = registration.ledger(None, &*clock);
        let manager = TokenManager::start(registration.application(), registration.http(), clock, ledger, stop);
        Self { manager, scope: Scope::Tenant }
    }

    /// Starts the manager of what a user signed in for: the mailbox called `mailbox`, whose lane is `lane`.
    pub(crate) fn of_mailbox(
        registration: &Registration,
        (mailbox, lane): (&str, &LaneId),
        vault: &Arc<Vault>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        let ledger = registration.ledger(Some(lane), &*clock);
        let application = registration.delegated(mailbox, lane, vault);
        let manager = TokenManager::start(application, registration.http(), clock, ledger, stop);
        Self { manager, scope: Scope::Mailbox }
    }

    /// What an operator may see, now.
    pub(crate) fn status(&self) -> TokenStatus {
        self.manager.status()
    }

    /// Waits until nothing more is done after a stop.
    pub(crate) async fn finished(&self) {
        self.manager.finished().await;
    }

    /// Looks for what somebody signed in with, and waits for its first token: a while at most, or until it is known why there
    /// is none.
    pub(crate) async fn renewed(&self) {
        let mut status = self.manager.watch_status();
        let before = status.borrow_and_update().clone();
        self.manager.wake();
        let is_over = |now: &TokenStatus| {
            !now.fetching && (now.last_success != before.last_success || now.last_failure != before.last_failure)
        };
        let _ = timeout(RENEWAL, status.wait_for(is_over)).await;
    }

    fn trouble(&self, error: &TokenUnavailable) -> TokenTrouble {
        TokenTrouble { text: error.to_string(), scope: self.scope }
    }
}

impl TokenSource for Tokens {
    type Token = Token;

    async fn token(&self) -> Result<Token, TokenTrouble> {
        self.manager.token().await.map(Token).map_err(|error| self.trouble(&error))
    }

    async fn replace(&self, rejected: &Token) -> Result<Token, TokenTrouble> {
        self.manager.replace(&rejected.0).await.map(Token).map_err(|error| self.trouble(&error))
    }
}
