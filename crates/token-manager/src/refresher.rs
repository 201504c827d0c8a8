//! The task that keeps one token fresh: it looks at the clock, the credential and the vault, asks when `state` says so, and
//! tells what happened.
//!
//! It alone sends requests for its token. What follows from an answer is decided in `state`, `rotation` and `holding`.

use std::pin::pin;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use clock::WallTime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::accounts::{AccountLedger, LEFT_TO_THE_NEEDY};
use crate::application::{Application, Grant};
use crate::credential::Standing;
use crate::expiry::{Nearness, Told};
use crate::failure::{FailureClass, TokenFailure};
use crate::holding::{Denied, Holding};
use crate::http::Seen;
use crate::kinship::Keeping;
use crate::ledger::Ledger;
use crate::manager::Shared;
use crate::request::{Answer, Asked, Issued, REQUEST_TIMEOUT, Useless, failure, request_token};
use crate::rotation::{Choice, Material};
use crate::schedule::{FIRST_REFUSED_GRANT_RETRY, LEAST_LIFE_LEFT, Now};
use crate::state::{Event, Step};
use crate::status::TokenStatus;
use crate::vault::StoredGrant;

/// How long a request that is under way at a stop may take to end.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Keeps the token of [`Shared`].
pub(crate) struct Refresher {
    shared: Arc<Shared>,
    http: reqwest::Client,
    ledger: Ledger,
    /// None for an application's own token.
    holding: Option<Holding>,
    /// What was last said at warn, so that it is said once.
    warned: Option<Trouble>,
    /// The credential could not be read at the last look.
    is_unreadable: bool,
    /// A new credential that is ours to try.
    claimed: Option<Arc<Standing>>,
    sign_in_told: Told,
}

/// One kind of trouble for the log: a class and its first code, or the budget.
#[derive(PartialEq, Eq)]
enum Trouble {
    Failure(FailureClass, Option<u32>),
    Budget,
}

/// What is asked with.
struct Means {
    standing: Arc<Standing>,
    /// It has brought no token yet, while another has.
    is_new: bool,
    /// The refresh token, where a user's right is shown.
    grant: Option<Arc<StoredGrant>>,
}

/// Tells waiting handles that nothing more will come, also when the task panics.
struct StopMark(Arc<Shared>);

impl StopMark {
    fn tell(&self, is_finished: bool) {
        self.0.board.send_modify(|board| {
            board.stopped = true;
            board.finished = is_finished;
            board.fetching = false;
        });
        self.0.status.send_modify(|status| status.fetching = false);
    }
}

impl Drop for StopMark {
    fn drop(&mut self) {
        self.tell(true);
    }
}

impl Refresher {
    pub(crate) fn new(shared: Arc<Shared>, http: reqwest::Client, ledger: Ledger) -> Self {
        let holding = match &shared.application.grant {
            Grant::ClientCredentials => None,
            Grant::Delegated { vault, name, mailbox } => {
                Some(Holding::new(Arc::clone(vault), name.clone(), &shared.application.name, mailbox))
            }
        };
        let (warned, is_unreadable, claimed, sign_in_told) = (None, false, None, Told::default());
        Self { shared, http, ledger, holding, warned, is_unreadable, claimed, sign_in_told }
    }

    /// Runs until `stop`. A request that is under way then has a moment to end: what it brings in a refresh token's place must
    /// reach the vault.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mark = StopMark(Arc::clone(&self.shared));
        let mut refresh = pin!(self.refresh(&stop));
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                mark.tell(false);
                let _ = timeout(LAST_REQUEST, refresh).await;
            }
            () = &mut refresh => {}
        }
    }

    async fn refresh(&mut self, stop: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        if let Some(holding) = &mut self.holding {
            holding.look().await;
        }
        while !stop.is_cancelled() {
            let next = shared.board.borrow().state.step(shared.now());
            match next {
                Step::Fetch => self.fetch().await,
                Step::Sleep(sleep) => {
                    tokio::select! {
                        () = tokio::time::sleep(sleep) => {}
                        () = shared.poke.notified() => {}
                        () = stop.cancelled() => return,
                    }
                    self.look().await;
                }
            }
        }
    }

    /// Looks whether what is asked with has changed, and what ends soon.
    async fn look(&mut self) {
        let mut is_changed = false;
        if self.application().credential.is_lasting() {
            is_changed = self.look_at_credential().await;
        }
        if let Some(holding) = &mut self.holding {
            is_changed |= holding.look().await;
        }
        if is_changed {
            self.publish(Some(Event::Changed), false);
        }
        self.tell_ends();
    }

    /// Whether another credential stands there than the one in use, or than the one that failed, and is ours to try now.
    async fn look_at_credential(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        // One look is enough for all of an application.
        let Some(_looking) = shared.application.kinship.looking() else { return false };
        match self.application().credential.read().await {
            Ok(standing) => {
                let is_back = self.is_unreadable && self.keeping().rotation.proven().is_none();
                self.note_readable(&standing);
                // Who has nothing to show with it leaves a new one to others.
                let can_try = self.holding.as_ref().is_none_or(|holding| holding.usable(shared.clock.wall()).is_ok());
                let claimed = if can_try { self.keeping().rotation.claim(standing, shared.now()) } else { None };
                let is_news = claimed.is_some();
                self.claimed = claimed.or(self.claimed.take());
                is_back || is_news
            }
            Err(failure) => {
                self.note_unreadable(&failure);
                false
            }
        }
    }

    fn application(&self) -> &Application {
        &self.shared.application
    }

    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        self.shared.application.kinship.keeping()
    }

    async fn fetch(&mut self) {
        self.publish(None, true);
        let event = self.attempt().await;
        self.log(&event);
        self.publish(Some(event), false);
        self.tell_ends();
    }

    /// One request, unless something that it needs is not to be had or the budget forbids it.
    async fn attempt(&mut self) -> Event {
        let shared = Arc::clone(&self.shared);
        let application = &shared.application;
        let wait = self.ledger.wait(shared.now());
        if !wait.is_zero() {
            return Event::BudgetUsed(wait);
        }
        let Some(place) = application.kinship.place(REQUEST_TIMEOUT).await else {
            let text = "the other mailboxes of this application wait for the endpoint, too".to_owned();
            let failure = failure(FailureClass::Transient, &Seen::default(), text);
            return Event::Failed { failure: Arc::new(failure), least: Duration::ZERO };
        };
        // From here on, for a wait may have been long: what stands there now, and an assertion of now.
        let throttled = self.keeping().throttled(shared.now());
        let means = match throttled.map_or(Ok(()), Err) {
            Ok(()) => self.means().await,
            Err(denied) => Err(denied),
        };
        let means = match means {
            Ok(means) => means,
            Err(Denied { failure, least }) => return Event::Failed { failure, least },
        };
        let account = self.account_ledger(&means).await;
        if let Some(account) = &account
            && let wait = account.lock().await.wait_leaving(shared.now(), self.left_to_others())
            && !wait.is_zero()
        {
            self.keeping().rotation.give_up(&means.standing);
            return Event::Queued(wait);
        }
        let (client_id, audience) = (&application.client_id, &application.endpoints.token);
        let proof = application.credential.prove(&means.standing, client_id, audience, shared.clock.wall()).await;
        let proof = match proof {
            Ok(proof) => proof,
            Err(failure) => return self.failed(&means, failure.into()).await,
        };
        // Last, so that what is not Entra ID's trouble does not use up the budget.
        let sent = shared.now();
        if let Err(event) = self.take(account, sent).await {
            self.keeping().rotation.give_up(&means.standing);
            return event;
        }
        let asked =
            means.grant.as_ref().map_or(Asked::ClientCredentials, |grant| Asked::RefreshToken(&grant.refresh_token));
        let answer = request_token(&self.http, application, &proof, &asked, &*shared.clock).await;
        drop(place);
        match answer {
            Ok(answer) => self.answered(&means, answer, sent).await,
            Err(useless) => self.failed(&means, useless).await,
        }
    }

    /// Counts a request, in the budget of the account and in that of the mailbox or application.
    async fn take(&mut self, account: Option<AccountLedger>, sent: Now) -> Result<(), Event> {
        if let Some(account) = account {
            let left = self.left_to_others();
            account.lock().await.take_leaving(sent, left).await.map_err(Event::Queued)?;
        }
        self.ledger.take(sent).await.map_err(Event::BudgetUsed)
    }

    /// That of who signed in, where it is known.
    async fn account_ledger(&self, means: &Means) -> Option<AccountLedger> {
        let account = means.grant.as_ref()?.account.as_ref()?;
        let Shared { application, clock, .. } = &*self.shared;
        Some(application.kinship.accounts().ledger(application, account, &self.ledger, clock).await)
    }

    /// How many requests of the account are not for this mailbox now: none where mail waits for a token or soon will.
    fn left_to_others(&self) -> usize {
        let now = self.shared.now();
        let board = self.shared.board.borrow();
        let is_good = |end: WallTime| end.saturating_since(now.wall) > LEAST_LIFE_LEFT;
        let has_time = board.state.valid(now).is_some_and(|token| is_good(token.expires_at()));
        if has_time { LEFT_TO_THE_NEEDY } else { 0 }
    }

    /// What to ask with; or why nothing is asked, and for how long at least.
    async fn means(&mut self) -> Result<Means, Denied> {
        let (standing, is_new) = self.standing().await?;
        let grant = self.holding.as_ref().map(|holding| holding.usable(self.shared.clock.wall())).transpose();
        if grant.is_err() {
            self.keeping().rotation.give_up(&standing);
        }
        Ok(Means { standing, is_new, grant: grant? })
    }

    /// The credential to ask with, and whether it is one that has to be proven beside another.
    async fn standing(&mut self) -> Result<(Arc<Standing>, bool), TokenFailure> {
        if let Some(claimed) = self.claimed.take() {
            // In the place of one that was refused it is the first.
            let is_beside_another = self.keeping().rotation.proven().is_some();
            return Ok((claimed, is_beside_another));
        }
        match self.application().credential.read().await {
            Ok(standing) if self.application().credential.is_lasting() => {
                self.note_readable(&standing);
                Ok(match self.keeping().rotation.choose(standing, self.shared.now()) {
                    Choice::Usual(standing) => (standing, false),
                    Choice::New(standing) => (standing, true),
                })
            }
            Ok(standing) => Ok((Arc::new(standing), false)),
            Err(failure) => {
                self.note_unreadable(&failure);
                self.keeping().rotation.proven().map(|proven| (Arc::clone(proven), false)).ok_or(failure)
            }
        }
    }

    fn note_readable(&mut self, standing: &Standing) {
        self.is_unreadable = false;
        let (is_in_use, is_rotated) = {
            let mut keeping = self.keeping();
            keeping.note_readable();
            let is_in_use = keeping.rotation.proven().is_none_or(|proven| proven.is_same(standing));
            (is_in_use, keeping.is_rotated)
        };
        let ends_at = standing.ends().or(self.application().secret_expires.filter(|_| !is_rotated));
        if is_in_use {
            self.shared.status.send_modify(|status| {
                (status.credential.ends_at, status.credential.trouble) = (ends_at, None);
            });
        }
    }

    fn note_unreadable(&mut self, failure: &TokenFailure) {
        self.is_unreadable = true;
        let now = self.shared.now();
        let is_news = {
            let mut keeping = self.keeping();
            if keeping.rotation.proven().is_none() {
                return;
            }
            keeping.note_unreadable(now)
        };
        if is_news {
            let (tenant, advice) = (&self.application().name, &failure.advice);
            tracing::warn!(tenant, %failure, advice, "the credential cannot be used as it stands; the one before it goes on");
        }
        let trouble = Some(failure.text.clone());
        self.shared.status.send_modify(|status| status.credential.trouble = trouble);
    }

    async fn answered(&mut self, means: &Means, answer: Answer, sent: Now) -> Event {
        let Answer { mut issued, refresh_token, account } = answer;
        if self.application().credential.is_lasting() {
            if means.is_new {
                let (tenant, what) = (&self.application().name, self.application().credential.noun());
                let is_dated = self.application().secret_expires.is_some();
                let advice = if is_dated { "write its date as client_secret_expires" } else { "" };
                tracing::info!(tenant, advice, "the new {what} brought a token and is used from now on");
                self.keeping().is_rotated = true;
            }
            let is_news = {
                let mut keeping = self.keeping();
                let is_news = keeping.rotation.proven().is_none_or(|proven| !proven.is_same(&means.standing));
                keeping.rotation.prove(Arc::clone(&means.standing));
                is_news
            };
            // Of one that goes on, what stands there may be another, or none.
            if is_news {
                self.note_readable(&means.standing);
            }
        }
        if let (Some(holding), Some(grant)) = (&mut self.holding, &means.grant) {
            holding.renew(grant, refresh_token, account, self.shared.clock.wall()).await;
            issued.token = issued.token.of_user(grant.user.clone());
        }
        Event::Issued { issued, asked: sent }
    }

    async fn failed(&mut self, means: &Means, useless: Box<Useless>) -> Event {
        let (failure, now) = (Arc::new(useless.failure), self.shared.now());
        if let (Some(holding), Some(grant), Some(refresh_token)) =
            (&mut self.holding, &means.grant, useless.refresh_token)
        {
            holding.renew(grant, Some(refresh_token), None, now.wall).await;
        }
        if failure.class == FailureClass::Throttled {
            self.keeping().throttle(&failure, now);
        }
        let is_about_the_grant = failure.class.is_about_the_grant();
        if means.is_new && means.grant.is_some() && is_about_the_grant {
            // Of the new credential it says nothing: another mailbox may try it.
            self.keeping().rotation.give_up(&means.standing);
        } else if means.is_new {
            self.tell_new_refused(means, &failure);
            return Event::NewRefused;
        }
        let is_of_credential = failure.class == FailureClass::Credential && self.application().credential.is_lasting();
        if is_of_credential && self.keeping().rotation.proven().is_none() {
            // So that another one is tried as soon as it stands there.
            self.keeping().rotation.refuse(Arc::clone(&means.standing), now);
        }
        let least = match (&mut self.holding, &means.grant) {
            (Some(holding), Some(grant)) if is_about_the_grant => holding.refuse(grant, &failure, now.wall).await,
            // AADSTS50196 looks like that, which wants five minutes (facts 4.6).
            _ if failure.class == FailureClass::Grant => FIRST_REFUSED_GRANT_RETRY,
            _ => Duration::ZERO,
        };
        Event::Failed { failure, least }
    }

    fn tell_new_refused(&mut self, means: &Means, failure: &TokenFailure) {
        let is_first = self.keeping().rotation.refuse(Arc::clone(&means.standing), self.shared.now());
        if failure.class.passes() || failure.class == FailureClass::Grant {
            // Not the credential's fault; the old one may meet the same.
            tracing::debug!(tenant = self.application().name, %failure, "a new credential could not be proven yet");
            return;
        }
        let (tenant, what, advice) = (&self.application().name, self.application().credential.noun(), &failure.advice);
        if is_first {
            tracing::warn!(tenant, %failure, advice, "the new {what} was refused; the one before it goes on and the new one is tried again");
        } else {
            tracing::debug!(tenant, %failure, "the new {what} was refused again");
        }
        let trouble = Some(format!("the new one was refused: {failure}"));
        self.shared.status.send_modify(|status| status.credential.trouble = trouble);
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
        let sign_in = self.holding.as_ref().and_then(Holding::status);
        self.shared.status.send_modify(|status| {
            status.fetching = fetching;
            status.sign_in = sign_in;
            status.expires_at = board.state.expires_at();
            status.failures = board.state.failures();
            status.next_attempt = board.state.next_attempt(now);
            note(status, news, now.wall);
        });
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::Issued { issued, .. } => self.log_token(issued),
            Event::Failed { failure, .. } => self.log_failure(failure),
            Event::BudgetUsed(wait) => {
                let (tenant, mailbox, wait_secs) = (&self.application().name, self.mailbox(), wait.as_secs());
                if self.warned.is_none() {
                    tracing::warn!(tenant, mailbox, wait_secs, "token request budget used up");
                    self.warned = Some(Trouble::Budget);
                } else {
                    tracing::debug!(tenant, mailbox, wait_secs, "token request budget used up");
                }
            }
            Event::Queued(wait) => {
                let (tenant, mailbox, wait_secs) = (&self.application().name, self.mailbox(), wait.as_secs());
                tracing::debug!(tenant, mailbox, wait_secs, "other mailboxes of the same account ask first");
            }
            Event::Rejected(_) | Event::Changed | Event::NewRefused => {}
        }
    }

    /// The mailbox's name, where a user signed in for it.
    fn mailbox(&self) -> Option<&str> {
        match &self.application().grant {
            Grant::ClientCredentials => None,
            Grant::Delegated { mailbox, .. } => Some(mailbox),
        }
    }

    fn log_token(&mut self, issued: &Issued) {
        let (tenant, mailbox) = (&self.application().name, self.mailbox());
        let lifetime_secs = issued.lifetime.as_secs();
        let refresh_in_secs = issued.refresh_in.map(|refresh_in| refresh_in.as_secs());
        let extended_secs = issued.extended_lifetime.map(|extended| extended.as_secs());
        let expires_at = issued.token.expires_at();
        tracing::info!(tenant, mailbox, lifetime_secs, refresh_in_secs, extended_secs, %expires_at, "token fetched");
        if self.warned.is_some() {
            tracing::info!(tenant, mailbox, "token requests work again");
        }
        self.warned = None;
    }

    /// Warns when requests start to fail and when the trouble becomes another one; repeats are for debug.
    fn log_failure(&mut self, failure: &TokenFailure) {
        let (tenant, mailbox, advice) = (&self.application().name, self.mailbox(), &failure.advice);
        let trouble = Some(Trouble::Failure(failure.class, failure.codes.first().copied()));
        if self.warned == trouble {
            tracing::debug!(tenant, mailbox, %failure, "token request failed again");
        } else {
            tracing::warn!(tenant, mailbox, %failure, advice, "token request failed");
            self.warned = trouble;
        }
    }

    /// Says of the credential and the sign-in that they end soon, 30, 7 and 1 days before, and that they are over.
    fn tell_ends(&mut self) {
        let now = self.shared.clock.wall();
        let (credential, sign_in) = {
            let status = self.shared.status.borrow();
            (status.credential.ends_at, status.sign_in.as_ref().map(|sign_in| sign_in.ends_at))
        };
        let news = credential.and_then(|end| Some((end, self.keeping().end_news(end, now)?)));
        if let Some((end, nearness)) = news {
            self.tell_credential_end(end, nearness, now);
        }
        let news = sign_in.and_then(|end| Some((end, self.sign_in_told.news(end, now)?)));
        if let Some((ends_at, nearness)) = news {
            self.tell_sign_in_end(ends_at, nearness);
        }
    }

    fn tell_credential_end(&self, ends_at: WallTime, nearness: Nearness, now: WallTime) {
        let (tenant, what) = (&self.application().name, self.application().credential.noun());
        let days_left = ends_at.saturating_since(now).as_secs() / (24 * 60 * 60);
        let advice = "make another in the app registration (Certificates & secrets) and put it in its place; it is taken up without a restart";
        if nearness == Nearness::Over {
            tracing::warn!(tenant, %ends_at, advice, "the {what} has expired by its date");
        } else {
            tracing::warn!(tenant, %ends_at, days_left, advice, "the {what} expires soon");
        }
    }

    fn tell_sign_in_end(&self, ends_at: WallTime, nearness: Nearness) {
        let (tenant, mailbox) = (&self.application().name, self.mailbox());
        let advice = "the relay has not been able to renew it for a long time: see why token requests fail, or sign in again with `xoauth2-relay login`";
        if nearness == Nearness::Over {
            tracing::warn!(tenant, mailbox, %ends_at, advice, "the refresh token has ended by its age");
        } else {
            tracing::warn!(tenant, mailbox, %ends_at, advice, "the refresh token ends soon");
        }
    }
}

/// What an event changes in the status beyond the state.
fn note(status: &mut TokenStatus, event: Option<Event>, now: WallTime) {
    match event {
        Some(Event::Issued { .. }) => status.last_success = Some(now),
        Some(Event::Failed { failure, .. }) => status.last_failure = Some((now, failure)),
        _ => {}
    }
}
