//! The background task that keeps a token fresh, and the handle that gives it out.
//!
//! One task is the only one to send requests, which makes every fetch a single flight. Handles read the board, mark a
//! rejected token on it, poke the task, and wait for the board to change.

use std::fmt;
use std::sync::Arc;

use clock::{Clock, WallTime};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::access_token::AccessToken;
use crate::application::{Application, Credential};
use crate::failure::{TokenFailure, TokenUnavailable};
use crate::ledger::Ledger;
use crate::request::{Issued, REQUEST_TIMEOUT, request_token, unreadable_credential};
use crate::schedule::Now;
use crate::secret::Secret;
use crate::state::{Event, Step, TokenState};
use crate::status::TokenStatus;

/// A handle to one application's token; clones share it. Dropping handles stops nothing, the cancellation token does.
#[derive(Clone)]
pub struct TokenManager {
    shared: Arc<Shared>,
}

struct Shared {
    application: Application,
    clock: Arc<dyn Clock>,
    board: watch::Sender<Board>,
    status: watch::Sender<TokenStatus>,
    /// Wakes the task before its timer.
    poke: Notify,
}

/// What handles and task tell each other.
#[derive(Default)]
struct Board {
    state: TokenState,
    fetching: bool,
    stopped: bool,
}

impl TokenManager {
    /// Starts the task that fetches the first token at once and then keeps one; call it inside a tokio runtime. It ends
    /// with `stop`, which abandons a request under way.
    ///
    /// `http` must follow no redirects (`redirect(Policy::none())`: a redirect could carry the secret elsewhere), take no
    /// proxy from the environment that the configuration does not name, and verify certificates; the relay builds it,
    /// for it alone knows the trust roots. Requests are bounded here, 30 s and 1 MiB. `ledger` belongs to this (tenant,
    /// client, scope) alone: start no two managers for the same.
    pub fn start(
        application: Application,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
        ledger: Ledger,
        stop: CancellationToken,
    ) -> Self {
        let status = TokenStatus {
            tenant: application.name.clone(),
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
        let refresher = Refresher { shared: Arc::clone(&shared), http, ledger, warned: None };
        tokio::spawn(refresher.run(stop));
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

    /// What an operator may see, now.
    pub fn status(&self) -> TokenStatus {
        self.shared.status.borrow().clone()
    }

    /// The same, following each change.
    pub fn watch_status(&self) -> watch::Receiver<TokenStatus> {
        self.shared.status.subscribe()
    }

    /// Looks at the clock now instead of within 30 s: for whoever knows that time has jumped, and for tests. It hastens
    /// no request that is not due.
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
    fn now(&self) -> Now {
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

    fn apply(&mut self, event: Event, now: Now, chance: f64) {
        self.state = std::mem::take(&mut self.state).after(event, now, chance);
    }
}

/// The task. It alone sends requests and owns the ledger.
struct Refresher {
    shared: Arc<Shared>,
    http: reqwest::Client,
    ledger: Ledger,
    /// What was last said at warn, so that it is said once.
    warned: Option<Trouble>,
}

/// One kind of trouble for the log: a class and its first code, or the budget.
#[derive(PartialEq, Eq)]
enum Trouble {
    Failure(crate::FailureClass, Option<u32>),
    Budget,
}

/// Tells waiting handles that nothing more will come, also when the task panics.
struct StopMark(Arc<Shared>);

impl Drop for StopMark {
    fn drop(&mut self) {
        self.0.board.send_modify(|board| {
            board.stopped = true;
            board.fetching = false;
        });
        self.0.status.send_modify(|status| status.fetching = false);
    }
}

impl Refresher {
    async fn run(mut self, stop: CancellationToken) {
        let mark = StopMark(Arc::clone(&self.shared));
        tokio::select! {
            () = stop.cancelled_owned() => {}
            () = self.refresh() => {}
        }
        drop(mark);
    }

    async fn refresh(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let step = shared.board.borrow().state.step(shared.now());
            match step {
                Step::Fetch => self.fetch().await,
                Step::Sleep(sleep) => tokio::select! {
                    () = tokio::time::sleep(sleep) => {}
                    () = shared.poke.notified() => {}
                },
            }
        }
    }

    async fn fetch(&mut self) {
        self.publish(None, true);
        let event = self.attempt().await;
        self.log(&event);
        self.publish(Some(event), false);
    }

    /// One request, unless the budget or an unreadable credential forbids it.
    async fn attempt(&mut self) -> Event {
        let wait = self.ledger.wait(self.shared.now());
        if !wait.is_zero() {
            return Event::BudgetUsed(wait);
        }
        // Read first: a missing file is not Entra ID's trouble and must not use up the budget.
        let secret = match read_secret(&self.shared.application.credential).await {
            Ok(secret) => secret,
            Err(failure) => return Event::Failed(Arc::new(failure)),
        };
        let asked = self.shared.now();
        self.ledger.record(asked).await;
        match request_token(&self.http, &self.shared.application, &secret, &*self.shared.clock).await {
            Ok(issued) => Event::Issued { issued, asked },
            Err(failure) => Event::Failed(Arc::new(failure)),
        }
    }

    /// Puts an event on the board and what follows from it into the status.
    fn publish(&self, event: Option<Event>, fetching: bool) {
        let now = self.shared.now();
        let chance = self.shared.clock.chance();
        let news = event.clone();
        self.shared.board.send_modify(|board| {
            board.fetching = fetching;
            if let Some(event) = event {
                board.apply(event, now, chance);
            }
        });
        let board = self.shared.board.borrow();
        self.shared.status.send_modify(|status| {
            status.fetching = fetching;
            status.expires_at = board.state.expires_at();
            status.failures = board.state.failures();
            status.next_attempt = board.state.next_attempt(now);
            note(status, news, now.wall);
        });
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::Issued { issued, .. } => self.log_token(issued),
            Event::Failed(failure) => self.log_failure(failure),
            Event::BudgetUsed(wait) => {
                let (tenant, wait_secs) = (&self.shared.application.name, wait.as_secs());
                if self.warned.is_none() {
                    tracing::warn!(tenant, wait_secs, "token request budget used up");
                    self.warned = Some(Trouble::Budget);
                } else {
                    tracing::debug!(tenant, wait_secs, "token request budget used up");
                }
            }
            Event::Rejected(_) => {}
        }
    }

    fn log_token(&mut self, issued: &Issued) {
        let tenant = &self.shared.application.name;
        let lifetime_secs = issued.lifetime.as_secs();
        let refresh_in_secs = issued.refresh_in.map(|refresh_in| refresh_in.as_secs());
        let extended_secs = issued.extended_lifetime.map(|extended| extended.as_secs());
        let expires_at = issued.token.expires_at();
        tracing::info!(tenant, lifetime_secs, refresh_in_secs, extended_secs, %expires_at, "token fetched");
        if self.warned.take().is_some() {
            tracing::info!(tenant, "token requests work again");
        }
    }

    /// Warns when requests start to fail and when the trouble becomes another one; repeats are for debug.
    fn log_failure(&mut self, failure: &TokenFailure) {
        let tenant = &self.shared.application.name;
        let advice = &failure.advice;
        let trouble = Some(Trouble::Failure(failure.class, failure.codes.first().copied()));
        if self.warned == trouble {
            tracing::debug!(tenant, %failure, "token request failed again");
        } else {
            tracing::warn!(tenant, %failure, advice, "token request failed");
            self.warned = trouble;
        }
    }
}

/// What an event changes in the status beyond the state.
fn note(status: &mut TokenStatus, event: Option<Event>, now: WallTime) {
    match event {
        Some(Event::Issued { .. }) => status.last_success = Some(now),
        Some(Event::Failed(failure)) => status.last_failure = Some((now, failure)),
        _ => {}
    }
}

/// Reads the secret on a blocking thread: a file may stand on a slow or dead mount.
async fn read_secret(credential: &Credential) -> Result<Secret, TokenFailure> {
    let place = credential.description();
    let Credential::ClientSecret(source) = credential;
    let source = Arc::clone(source);
    match tokio::time::timeout(REQUEST_TIMEOUT, spawn_blocking(move || source.read())).await {
        Ok(Ok(Ok(secret))) => Ok(secret),
        Ok(Ok(Err(error))) => Err(unreadable_credential(&place, &error.to_string())),
        Ok(Err(_)) => Err(unreadable_credential(&place, "reading it failed unexpectedly")),
        Err(_) => Err(unreadable_credential(&place, "reading it takes too long")),
    }
}
