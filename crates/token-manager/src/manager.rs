//! The handle that gives a token out, and the board that it shares with the task that keeps the token fresh.
//!
//! The task (`refresher`) is the only one to send requests, which makes every fetch a single flight. Handles read the board,
//! mark a rejected token on it, poke the task, and wait for the board to change.

use std::fmt;
use std::sync::Arc;

use clock::Clock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::access_token::AccessToken;
use crate::application::{Application, Grant};
use crate::failure::TokenUnavailable;
use crate::ledger::Ledger;
use crate::refresher::Refresher;
use crate::schedule::Now;
use crate::state::{Event, TokenState};
use crate::status::{CredentialStatus, TokenStatus};

/// A handle to one application's token; clones share it. Dropping handles stops nothing, the cancellation token does.
#[derive(Clone)]
pub struct TokenManager {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) application: Application,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: watch::Sender<Board>,
    pub(crate) status: watch::Sender<TokenStatus>,
    /// Wakes the task before its timer.
    pub(crate) poke: Notify,
}

/// What handles and task tell each other.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) state: TokenState,
    pub(crate) fetching: bool,
    /// Nothing more is given out.
    pub(crate) stopped: bool,
    /// Nothing more is done.
    pub(crate) finished: bool,
}

impl TokenManager {
    /// Starts the task that fetches the first token at once and then keeps one; call it inside a tokio runtime. It ends
    /// with `stop`, and [`TokenManager::finished`] tells when: a request that is under way has two seconds left.
    ///
    /// `http` must follow no redirects (`redirect(Policy::none())`: a redirect could carry the secret elsewhere), take no
    /// proxy from the environment that the configuration does not name, and verify certificates; the relay builds it,
    /// for it alone knows the trust roots. Requests are bounded here, 30 s and 1 MiB. `ledger` is the one of this (tenant,
    /// client, scope), and of this mailbox where a user signed in: start no two managers for the same.
    pub fn start(
        application: Application,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
        ledger: Ledger,
        stop: CancellationToken,
    ) -> Self {
        let mailbox = match &application.grant {
            Grant::ClientCredentials => None,
            Grant::Delegated { mailbox, .. } => Some(mailbox.clone()),
        };
        let status = TokenStatus {
            tenant: application.name.clone(),
            mailbox,
            credential: CredentialStatus {
                description: application.credential.description(),
                ends_at: None,
                trouble: None,
            },
            sign_in: None,
            expires_at: None,
            last_success: None,
            last_failure: None,
            failures: 0,
            fetching: false,
            next_attempt: clock.wall(),
        };
        let shared = Arc::new(Shared {
            application,
            clock,
            board: watch::Sender::default(),
            status: watch::Sender::new(status),
            poke: Notify::new(),
        });
        tokio::spawn(Refresher::new(Arc::clone(&shared), http, ledger).run(stop));
        Self { shared }
    }

    /// The valid token, at once if there is one. Otherwise waits for the request that is under way or due, 30 s and a
    /// little at most, or gives the reason why there will be none before a later time. Safe to drop at any point.
    pub async fn token(&self) -> Result<AccessToken, TokenUnavailable> {
        let mut board = self.shared.board.subscribe();
        loop {
            if let Some(answer) = board.borrow_and_update().answer(self.shared.now(), None) {
                return answer;
            }
            self.shared.wait_for_change(&mut board).await?;
        }
    }

    /// Another token than `rejected`, which Exchange answered with 535: the newer one if there is one, else a fresh one
    /// (one request for all who ask meanwhile, within the budget). While none comes, [`TokenManager::token`] goes on
    /// giving `rejected` out: one bad mailbox does not discredit the token of the others. Safe to drop at any point.
    pub async fn replace(&self, rejected: &AccessToken) -> Result<AccessToken, TokenUnavailable> {
        let mut board = self.shared.board.subscribe();
        loop {
            let now = self.shared.now();
            let mut answer = None;
            self.shared.board.send_if_modified(|board| {
                answer = board.answer(now, Some(rejected));
                if answer.is_none() && !board.fetching {
                    board.apply(Event::Rejected(rejected.clone()), now, 0.0);
                }
                // Only the task cares, and the poke below reaches it.
                false
            });
            if let Some(answer) = answer {
                return answer;
            }
            self.shared.wait_for_change(&mut board).await?;
        }
    }

    /// Waits until nothing more is done after a stop.
    pub async fn finished(&self) {
        // It cannot end while `self` holds the sender.
        let _ = self.shared.board.subscribe().wait_for(|board| board.finished).await;
    }

    /// What an operator may see, now.
    pub fn status(&self) -> TokenStatus {
        self.shared.status.borrow().clone()
    }

    /// The same, following each change.
    pub fn watch_status(&self) -> watch::Receiver<TokenStatus> {
        self.shared.status.subscribe()
    }

    /// Looks at the clock, the credential and the vault now instead of within 30 s: for whoever knows that time has jumped or
    /// that somebody has signed in, and for tests. It hastens no request that is not due.
    pub fn wake(&self) {
        self.shared.poke.notify_one();
    }
}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenManager").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now::of(&*self.clock)
    }

    async fn wait_for_change(&self, board: &mut watch::Receiver<Board>) -> Result<(), TokenUnavailable> {
        self.poke.notify_one();
        // It cannot end while `self` holds the sender.
        board.changed().await.map_err(|_| TokenUnavailable::Stopped)
    }
}

impl Board {
    /// What to tell somebody who wants a token other than `rejected`; none while a request is under way or due.
    fn answer(&self, now: Now, rejected: Option<&AccessToken>) -> Option<Result<AccessToken, TokenUnavailable>> {
        if self.stopped {
            return Some(Err(TokenUnavailable::Stopped));
        }
        let token = self.state.valid(now).filter(|token| !rejected.is_some_and(|rejected| rejected.same(token)));
        if let Some(token) = token {
            return Some(Ok(token.clone()));
        }
        if self.fetching { None } else { self.state.unavailable(now).map(Err) }
    }

    pub(crate) fn apply(&mut self, event: Event, now: Now, chance: f64) {
        self.state = std::mem::take(&mut self.state).after(event, now, chance);
    }
}
