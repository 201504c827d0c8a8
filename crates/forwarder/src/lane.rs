//! A lane: one login's road upstream. It gives turns within the login's limits, keeps connections warm, and stands
//! still as a whole when the login is in trouble, which is no message's fault.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Clock, Monotonic};
use mail::{LaneId, Outcome, Scope};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use wire::Reply;

use crate::classify::{Stage, classify, is_about_the_dialog, may_be_the_token};
use crate::connection::{Connection, Lost, OpenError};
use crate::endpoint::Endpoint;
use crate::health::{Health, Permission, Trouble, TroubleKind, TroubleStatus};
use crate::pacer::Pacer;
use crate::token::{BearerToken, TokenSource};
use crate::transfer::{Body, Ended, Message, transfer};

/// Upstream is not asked for a fresh token in answer to a 535 more often than this: the token is rarely at fault.
const FRESH_TOKEN_EVERY: Duration = Duration::from_mins(10);

/// What a login may do upstream, and how long its connections live.
#[derive(Clone, Debug)]
pub struct LaneLimits {
    /// Connections at the same time.
    pub connections: usize,
    /// Messages in any minute.
    pub messages_per_minute: usize,
    /// An idle connection is closed after this; Exchange counts it against the three.
    pub idle_timeout: Duration,
    /// A connection is not used for more messages than this.
    pub max_messages: u32,
    /// A connection is not used for longer than this.
    pub max_age: Duration,
    /// A connection is not used when its token ends within this.
    pub token_margin: Duration,
}

impl Default for LaneLimits {
    fn default() -> Self {
        Self {
            connections: 3,
            messages_per_minute: 30,
            idle_timeout: Duration::from_mins(1),
            max_messages: 1000,
            max_age: Duration::from_mins(5),
            token_margin: Duration::from_mins(2),
        }
    }
}

/// One login's road upstream.
pub struct Lane<T> {
    id: LaneId,
    login: String,
    endpoint: Endpoint,
    tokens: Arc<T>,
    limits: LaneLimits,
    clock: Arc<dyn Clock>,
    connections: Arc<Semaphore>,
    /// Each logged-in connection holds a clone, so that counting them is looking at it.
    open: Arc<()>,
    state: Mutex<State>,
    /// Health or pace changed.
    changed: Notify,
    /// A connection was parked.
    parked: Notify,
}

struct State {
    pacer: Pacer,
    health: Health,
    idle: Vec<Connection>,
    fresh_token: Option<Monotonic>,
}

/// A lane as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// Connections that are logged in upstream, idle ones included.
    pub connections: usize,
    /// How many there may be.
    pub max_connections: usize,
    /// Messages that have a turn now.
    pub in_flight: usize,
    /// Messages that upstream saw in the last minute, before a restart included.
    pub sent_in_last_minute: usize,
    /// How many there may be in any minute.
    pub messages_per_minute: usize,
    /// What is wrong; none when the lane works.
    pub trouble: Option<TroubleStatus>,
}

/// A turn on a lane: a connection's place and a place in the minute. Dropped unused, it costs nothing.
pub struct Slot<T> {
    lane: Arc<Lane<T>>,
    _connection: OwnedSemaphorePermit,
    /// Whether upstream may have seen a message in this turn.
    seen: bool,
    /// Whether it is the probe of a lane in trouble and its end has not been told.
    probing: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt<E> {
    /// Upstream was spoken to: one outcome for each recipient, in their order.
    Told(Vec<Outcome>),
    /// The lane is in trouble and upstream has not heard of the message.
    NotStarted(Trouble),
    /// Upstream heard of the message and hung up before it decided anything or had content.
    NotTaken(Trouble),
    /// The body could not be read; upstream got no final dot.
    BodyFailed(E),
}

impl<T: TokenSource> Lane<T> {
    /// A lane for `login` at `endpoint`.
    pub fn new(
        id: LaneId,
        login: String,
        endpoint: Endpoint,
        tokens: Arc<T>,
        limits: LaneLimits,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let state = State {
            pacer: Pacer::new(limits.messages_per_minute),
            health: Health::default(),
            idle: Vec::new(),
            fresh_token: None,
        };
        Arc::new(Self {
            id,
            login,
            endpoint,
            tokens,
            connections: Arc::new(Semaphore::new(limits.connections.max(1))),
            open: Arc::default(),
            limits,
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
            parked: Notify::new(),
        })
    }

    /// The lane's name.
    pub fn id(&self) -> &LaneId {
        &self.id
    }

    /// The login, as shown in logs and history.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// Counts messages of the last minute that an earlier run sent: upstream counts them too.
    pub fn assume_sent(&self, messages: usize) {
        let now = self.clock.monotonic();
        self.state().pacer.assume_ended(messages, now);
    }

    /// What is wrong with it now.
    pub fn trouble(&self) -> Option<Trouble> {
        self.state().health.trouble().cloned()
    }

    /// How it stands now.
    pub fn status(&self) -> LaneStatus {
        let now = self.clock.monotonic();
        let state = self.state();
        LaneStatus {
            connections: Arc::strong_count(&self.open) - 1,
            max_connections: self.limits.connections,
            in_flight: state.pacer.under_way(),
            sent_in_last_minute: state.pacer.in_last_minute(now),
            messages_per_minute: self.limits.messages_per_minute,
            trouble: state.health.status(now),
        }
    }

    /// Waits for a turn: a connection's place, the pace, and a lane that is well or may be probed. Safe to drop.
    pub async fn slot(self: &Arc<Self>) -> Slot<T> {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let permit = permit.expect("the semaphore of a lane is never closed");
        loop {
            let changed = self.changed.notified();
            match self.try_turn() {
                Ok(permission) => {
                    let probing = permission == Permission::Probe;
                    return Slot { lane: Arc::clone(self), _connection: permit, seen: false, probing };
                }
                Err(Some(wait)) => tokio::select! {
                    () = sleep(wait) => {}
                    () = changed => {}
                },
                Err(None) => changed.await,
            }
        }
    }

    fn try_turn(&self) -> Result<Permission, Option<Duration>> {
        let now = self.clock.monotonic();
        let state = &mut *self.state();
        // The pace is asked first: a probe that is let through must follow.
        state.pacer.begin(now)?;
        match state.health.permission(now) {
            permission @ (Permission::Well | Permission::Probe) => Ok(permission),
            Permission::Wait(wait) => {
                state.pacer.end(now, false);
                Err(Some(wait))
            }
            Permission::WaitForProbe => {
                state.pacer.end(now, false);
                Err(None)
            }
        }
    }

    /// A warm connection, or a new one.
    async fn connection(&self) -> Result<Connection, Trouble> {
        while let Some(mut connection) = self.take_idle() {
            if !connection.is_quiet() {
                // Upstream has ended it already.
                continue;
            }
            if self.is_fit(&connection) {
                return Ok(connection);
            }
            // Waited for: until upstream has ended it, it counts against the login's few.
            connection.quit().await;
        }
        self.connect().await
    }

    fn take_idle(&self) -> Option<Connection> {
        self.state().idle.pop()
    }

    fn is_fit(&self, connection: &Connection) -> bool {
        let now = self.clock.monotonic();
        connection.messages < self.limits.max_messages
            && now.saturating_since(connection.opened) < self.limits.max_age
            && now.saturating_since(connection.used) < self.limits.idle_timeout
            && self.clock.wall() + self.limits.token_margin < connection.token_ends
    }

    /// Opens and logs in. A 535 may mean that the token is no longer good: one more try with a fresh one. A dialog that
    /// upstream finds wrong is tried once more as it was.
    async fn connect(&self) -> Result<Connection, Trouble> {
        let token = self.tokens.token().await.map_err(|trouble| no_token(&trouble.0))?;
        match self.log_in(&token).await? {
            Ok(connection) => Ok(connection),
            Err(reply) if may_be_the_token(&reply) && self.may_ask_for_fresh_token() => {
                debug!(lane = %self.id, %reply, "login refused; trying once more with a fresh token");
                match self.tokens.replace(&token).await {
                    Ok(fresh) => self.log_in(&fresh).await?.map_err(|reply| self.login_refused(&reply)),
                    Err(trouble) => {
                        // The token may well be good for other mailboxes: what is known is that this one was refused.
                        debug!(lane = %self.id, %trouble, "no fresh token");
                        Err(self.login_refused(&reply))
                    }
                }
            }
            Err(reply) if is_about_the_dialog(Stage::Auth, &reply) => {
                debug!(lane = %self.id, %reply, "login not understood; trying once more on a new connection");
                self.log_in(&token).await?.map_err(|reply| self.login_refused(&reply))
            }
            Err(reply) => Err(self.login_refused(&reply)),
        }
    }

    async fn log_in(&self, token: &T::Token) -> Result<Result<Connection, Reply>, Trouble> {
        let opened = Connection::open(&self.endpoint, self.clock.monotonic()).await;
        let mut connection = opened.map_err(|error| self.unreachable(error))?;
        let answer = connection.authenticate(&self.login, token.expose()).await;
        let reply =
            answer.map_err(|Lost(text)| self.unreachable(OpenError::Network(format!("during AUTH: {text}"))))?;
        if reply.is_positive() {
            connection.token_ends = token.expires_at();
            connection.counted = Some(Arc::clone(&self.open));
            debug!(lane = %self.id, "connected and logged in");
            Ok(Ok(connection))
        } else {
            connection.quit().await;
            Ok(Err(reply))
        }
    }

    fn may_ask_for_fresh_token(&self) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let may = state.fresh_token.is_none_or(|last| now.saturating_since(last) >= FRESH_TOKEN_EVERY);
        if may {
            state.fresh_token = Some(now);
        }
        may
    }

    fn unreachable(&self, error: OpenError) -> Trouble {
        match error {
            OpenError::Network(text) => Trouble { kind: TroubleKind::Unreachable, scope: Scope::Mailbox, text },
            OpenError::Refused(stage, reply) => self.refused(stage, &reply),
        }
    }

    fn login_refused(&self, reply: &Reply) -> Trouble {
        self.refused(Stage::Auth, reply)
    }

    fn refused(&self, stage: Stage, reply: &Reply) -> Trouble {
        let host = &self.endpoint.host;
        let what = match stage {
            Stage::Auth => format!("the login {}", self.login),
            _ => "to serve us".to_owned(),
        };
        match classify(stage, reply) {
            Outcome::Held { scope, diagnostic } => {
                Trouble { kind: TroubleKind::Refused, scope, text: format!("{host} refused {what}: {diagnostic}") }
            }
            outcome => Trouble {
                kind: TroubleKind::Unreachable,
                scope: Scope::Mailbox,
                text: format!("{host} does not let {} in now: {}", self.login, outcome.diagnostic()),
            },
        }
    }

    /// What the outcomes tell of the lane itself; true if it is well.
    fn learn(&self, outcomes: &[Outcome]) -> bool {
        let trouble = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Held { scope: scope @ (Scope::Mailbox | Scope::Tenant), diagnostic } => Some(Trouble {
                kind: TroubleKind::Refused,
                scope: *scope,
                text: format!("Exchange takes nothing from {}: {diagnostic}", self.login),
            }),
            Outcome::Paced(diagnostic) => Some(Trouble {
                kind: TroubleKind::Throttled,
                scope: Scope::Mailbox,
                text: format!("Exchange asks {} to slow down: {diagnostic}", self.login),
            }),
            _ => None,
        });
        match &trouble {
            Some(trouble) => self.troubled(trouble),
            None => self.well(),
        }
        trouble.is_none()
    }

    fn well(&self) {
        let ended = self.state().health.well();
        if let Some(trouble) = ended {
            info!(lane = %self.id, was = %trouble, "lane works again");
            self.changed.notify_waiters();
        }
    }

    fn troubled(&self, trouble: &Trouble) {
        let (now, chance) = (self.clock.monotonic(), self.clock.chance());
        let (wait, news) = self.state().health.troubled(trouble.clone(), now, chance);
        let wait = wait.as_secs_f64().ceil();
        if news && trouble.kind == TroubleKind::NoToken {
            // Whoever gives tokens has warned, once, with the advice.
            info!(lane = %self.id, reason = %trouble, "lane waits for a token");
        } else if news {
            warn!(lane = %self.id, scope = trouble.reach(), reason = %trouble, advice = trouble.advice(), probe_in_seconds = wait, "lane stands still; its mail stays queued and goes out by itself once this is mended");
        } else {
            debug!(lane = %self.id, reason = %trouble, probe_in_seconds = wait, "lane still stands still");
        }
        self.changed.notify_waiters();
    }

    fn park(&self, mut connection: Connection) {
        connection.used = self.clock.monotonic();
        self.state().idle.push(connection);
        self.parked.notify_one();
    }

    /// Closes connections that have been idle for too long; runs until dropped and sleeps while none is idle.
    pub async fn sweep(&self) {
        loop {
            self.parked.notified().await;
            while let Some(wait) = self.close_expired() {
                sleep(wait).await;
            }
        }
    }

    /// Closes what is no longer fit; gives the time until the next may be, none when none is idle.
    fn close_expired(&self) -> Option<Duration> {
        let mut state = self.state();
        let (mut kept, unfit): (Vec<_>, Vec<_>) = state.idle.drain(..).partition(|connection| self.is_fit(connection));
        for connection in unfit {
            // Until upstream has ended it, it counts against the login's few: its place is taken meanwhile. Where
            // there is none, all turns are given and whoever has one meets this connection first.
            match Arc::clone(&self.connections).try_acquire_owned() {
                Ok(place) => drop(tokio::spawn(async move {
                    connection.quit().await;
                    drop(place);
                })),
                Err(_none_free) => kept.push(connection),
            }
        }
        state.idle = kept;
        let now = self.clock.monotonic();
        let left =
            |connection: &Connection| self.limits.idle_timeout.saturating_sub(now.saturating_since(connection.used));
        state.idle.iter().map(left).min().map(|wait| wait.max(Duration::from_millis(100)))
    }

    /// Says QUIT on every idle connection.
    pub async fn close_idle(&self) {
        let idle = std::mem::take(&mut self.state().idle);
        let mut quits: JoinSet<()> = idle.into_iter().map(Connection::quit).collect();
        while quits.join_next().await.is_some() {}
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below the lock is complete before anything that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: TokenSource> Slot<T> {
    /// Sends a message in this turn. `started` is called right before upstream can see anything of it.
    pub async fn deliver<B: Body>(
        mut self,
        message: &Message<'_>,
        body: &mut B,
        started: impl FnOnce(),
    ) -> Attempt<B::Error> {
        let lane = Arc::clone(&self.lane);
        let mut started = Some(started);
        let mut was_confused = false;
        loop {
            let mut connection = match lane.connection().await {
                Ok(connection) => connection,
                Err(trouble) => return Attempt::NotStarted(self.failed(trouble)),
            };
            if let Some(started) = started.take() {
                started();
            }
            self.seen = true;
            match transfer(&mut connection, message, body).await {
                Ok(Ended::Stale) => debug!(lane = %lane.id, "an idle connection had gone; opening another"),
                Ok(Ended::Confused(reply)) if !was_confused => {
                    was_confused = true;
                    debug!(lane = %lane.id, %reply, "the session is confused; trying once more on another");
                    connection.quit().await;
                }
                Ok(Ended::Confused(reply)) => {
                    connection.quit().await;
                    let outcomes = vec![classify(Stage::Mail, &reply); message.recipients.len()];
                    lane.learn(&outcomes);
                    self.probing = false;
                    return Attempt::Told(outcomes);
                }
                Ok(Ended::Lost(text)) => {
                    return Attempt::NotTaken(self.failed(lane.unreachable(OpenError::Network(text))));
                }
                Ok(Ended::Told { outcomes, usable }) => {
                    let is_well = lane.learn(&outcomes);
                    self.probing = false;
                    // The trouble may be this connection's, as with one too many: the probe shall have another. What was
                    // accepted comes first, and shows that it is not.
                    if usable && (is_well || outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted(_)))) {
                        lane.park(connection);
                    } else if usable {
                        connection.quit().await;
                    }
                    return Attempt::Told(outcomes);
                }
                Err(error) => return Attempt::BodyFailed(error),
            }
        }
    }

    fn failed(&mut self, trouble: Trouble) -> Trouble {
        self.lane.troubled(&trouble);
        self.probing = false;
        trouble
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        let now = self.lane.clock.monotonic();
        {
            let mut state = self.lane.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.pacer.end(now, self.seen);
            if self.probing {
                state.health.unknown();
            }
        }
        self.lane.changed.notify_waiters();
    }
}

fn no_token(text: &str) -> Trouble {
    Trouble { kind: TroubleKind::NoToken, scope: Scope::Tenant, text: text.to_owned() }
}
