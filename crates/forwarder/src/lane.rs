//! A lane: one login's road upstream. It gives turns within the login's limits, keeps connections warm, and stands
//! still as a whole when the login is in trouble, which is no message's fault.

mod retire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Clock, Monotonic};
use mail::{LaneId, Outcome, Recipient, Scope};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};
use wire::Reply;
use zeroize::Zeroizing;

use crate::batch::Spent;
use crate::classify::{Stage, classify, is_about_the_dialog, may_be_the_token};
use crate::connection::{Connection, Lost, OpenError};
use crate::endpoint::Endpoint;
use crate::health::{Pause, Trouble, TroubleKind, TroubleStatus};
use crate::live::NoTurn;
use crate::prove::{Unproven, prove};
use crate::tenant::Tenant;
use crate::token::{BearerToken, TokenSource, TokenTrouble};
use crate::transfer::{Body, Ended, Message, transfer};
use crate::turns::{Allowance, Hindrance, Lesson, Mode, Moment, NoPlace, NoRoom, TenantTurns, Turn, Turns};

/// Upstream is not asked for a fresh token in answer to a 535 more often than this: the token is rarely at fault.
const FRESH_TOKEN_EVERY: Duration = Duration::from_mins(10);

/// How long the proof of a sign-in waits for a connection's place.
const PLACE_WITHIN: Duration = Duration::from_mins(2);

/// That a day is used up is told no more often than this: it slides, and frees a little at a time.
const DAY_TOLD_EVERY: Duration = Duration::from_hours(6);

/// How long a lane's connections live.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// An idle connection is closed after this; Exchange counts it against the three.
    pub idle_timeout: Duration,
    /// A connection is not used for more messages than this.
    pub max_messages: u32,
    /// A connection is not used for longer than this.
    pub max_age: Duration,
    /// A connection is not used when its token ends within this.
    pub token_margin: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
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
    tenant: Arc<Tenant>,
    allowance: Allowance,
    limits: ConnectionLimits,
    clock: Arc<dyn Clock>,
    connections: Arc<Semaphore>,
    /// Clients that wait for a turn come one after the other: the first wakes alone, and none overtakes.
    clients: tokio::sync::Mutex<()>,
    /// Each logged-in connection holds a clone, so that counting them is looking at it.
    open: Arc<()>,
    state: Mutex<State>,
    /// Health or pace changed.
    changed: Notify,
    /// A connection was parked.
    parked: Notify,
}

struct State {
    turns: Turns,
    idle: Vec<Connection>,
    /// When it was told last that the day is used up.
    day_told: Option<Monotonic>,
    /// Since when the lane retires: live messages have an end then.
    retires: Option<Monotonic>,
    fresh_token: Option<FreshToken>,
}

/// The last time that a fresh token was asked for in answer to a 535.
struct FreshToken {
    asked: Monotonic,
    /// The one that was refused; none when no other was to be had.
    refused: Option<Zeroizing<String>>,
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
    /// Connections and messages a minute that upstream seems to allow, when that is less.
    pub allowed: (usize, usize),
    /// Recipients that upstream counts of the last day, before a restart included.
    pub recipients_in_last_day: u64,
    /// How many there may be in any day.
    pub recipients_per_day: u64,
    /// What is wrong with it or all of its tenant; none when the lane works.
    pub trouble: Option<TroubleStatus>,
}

/// A turn on a lane: a connection's place and a place in the minute. Dropped unused, it costs nothing.
pub struct Slot<T> {
    lane: Arc<Lane<T>>,
    _connection: OwnedSemaphorePermit,
    /// Taken at its end only.
    turn: Option<Turn>,
    /// Whether upstream may have seen a message in this turn.
    pub(crate) seen: bool,
    /// What upstream counts of it; all that was set aside while it is not known.
    pub(crate) spent: Option<Spent>,
}

/// What upstream told.
#[derive(Debug)]
pub struct Told {
    /// One for each recipient, in their order.
    pub outcomes: Vec<Outcome>,
    /// What it counts of them.
    pub spent: Spent,
    /// Whether it takes the client's wishes for reports (RFC 3461) with the message.
    pub takes_wishes: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt<E> {
    /// Upstream was spoken to.
    Told(Told),
    /// The lane is in trouble and upstream has not heard of the message.
    NotStarted(Trouble),
    /// Upstream heard of the message and hung up before it decided anything or had content.
    NotTaken(Trouble),
    /// The body could not be read; upstream got no final dot.
    BodyFailed(E),
}

/// What a lane is made of.
pub struct LaneParts<T> {
    /// Its name.
    pub id: LaneId,
    /// The XOAUTH2 user.
    pub login: String,
    /// Where it leads.
    pub endpoint: Endpoint,
    /// Its tokens.
    pub tokens: Arc<T>,
    /// What it shares with other lanes.
    pub tenant: Arc<Tenant>,
    /// What the login may do.
    pub allowance: Allowance,
    /// Connections that live messages leave to the queue: 0 or 1. One is theirs in any case.
    pub kept_for_queue: usize,
    /// How long its connections live.
    pub limits: ConnectionLimits,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl<T: TokenSource> Lane<T> {
    /// A lane that has done nothing yet.
    pub fn new(parts: LaneParts<T>) -> Arc<Self> {
        let LaneParts { id, login, endpoint, tokens, tenant, allowance, kept_for_queue, limits, clock } = parts;
        let state = State {
            turns: Turns::new(login.clone(), allowance.clone(), kept_for_queue),
            idle: Vec::new(),
            day_told: None,
            retires: None,
            fresh_token: None,
        };
        Arc::new(Self {
            id,
            login,
            endpoint,
            tokens,
            tenant,
            connections: Arc::new(Semaphore::new(allowance.connections.max(1))),
            clients: tokio::sync::Mutex::new(()),
            open: Arc::default(),
            allowance,
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

    /// The server at its end.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Live messages leave so many connections to the queue from now on; one is theirs in any case.
    pub fn keep_for_queue(&self, connections: usize) {
        self.state().turns.keep_for_queue(connections);
        self.notify();
    }

    /// Counts messages of the last minute that an earlier run sent: upstream counts them too.
    pub fn assume_sent(&self, messages: usize) {
        let now = self.clock.monotonic();
        self.state().turns.assume_sent(messages, now);
    }

    /// Counts recipients that an earlier run served `ago`; oldest first.
    pub fn assume_used(&self, recipients: u64, ago: Duration) {
        let now = self.clock.monotonic();
        self.state().turns.assume_used(recipients, ago, now);
    }

    /// What is wrong with it, or with all of its tenant, now.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble_status().map(|status| status.trouble)
    }

    /// The same, with how long it lasts and when it is probed.
    pub fn trouble_status(&self) -> Option<TroubleStatus> {
        let now = self.clock.monotonic();
        let own = self.state().turns.trouble(now);
        own.or_else(|| self.tenant.trouble(now))
    }

    /// How it stands now.
    pub fn status(&self) -> LaneStatus {
        let now = self.clock.monotonic();
        let trouble = self.trouble_status();
        let mut state = self.state();
        LaneStatus {
            connections: self.open(),
            max_connections: self.allowance.connections,
            in_flight: state.turns.under_way(),
            sent_in_last_minute: state.turns.in_last_minute(now),
            messages_per_minute: self.allowance.messages_per_minute,
            allowed: state.turns.allowed(now),
            recipients_in_last_day: state.turns.day(now).0,
            recipients_per_day: self.allowance.recipients_per_day,
            trouble,
        }
    }

    /// Connections that are logged in.
    fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Waits for a turn: a connection's place, the pace, the day, and a lane and tenant that are well or may be probed.
    /// Safe to drop.
    pub async fn slot(self: &Arc<Self>) -> Slot<T> {
        loop {
            // Given back where there is no turn: an idle connection that is to be closed needs a place meanwhile.
            let permit = Arc::clone(&self.connections).acquire_owned().await;
            let permit = permit.expect("the semaphore of a lane is never closed");
            let (changed, tenant_changed) = (self.changed.notified(), self.tenant.changed.notified());
            let wait = match self.begin(permit, Mode::Queue) {
                Ok(slot) => return slot,
                Err(hindrance) => hindrance.wait(),
            };
            self.tell_day();
            tokio::select! {
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = changed => {}
                () = tenant_changed => {}
            }
        }
    }

    /// Waits for a turn as [`Lane::slot`] does, for a client that waits: not beyond `within`, and not at all where it is known
    /// that there will be none by then. Leaves the connections that are kept for the queue. Clients have their turns in the
    /// order in which they came. Safe to drop.
    pub async fn live_slot(self: &Arc<Self>, within: Duration) -> Result<Slot<T>, NoTurn> {
        let end = Instant::now() + within;
        // Said at once, however many wait before.
        if let Some(hindrance) = self.hindrance().filter(|hindrance| lasts_beyond(hindrance, end)) {
            return Err(self.no_turn(hindrance));
        }
        let Ok(_first) = timeout_at(end, self.clients.lock()).await else {
            return Err(self.no_turn(self.hindrance().unwrap_or(Hindrance::Busy)));
        };
        loop {
            let (changed, tenant_changed) = (self.changed.notified(), self.tenant.changed.notified());
            let Some(hindrance) = self.hindrance() else {
                // A turn is free, its connection's place will be: a session that ends has it for a moment.
                let Ok(permit) = timeout_at(end, Arc::clone(&self.connections).acquire_owned()).await else {
                    return Err(NoTurn::Busy);
                };
                let permit = permit.expect("the semaphore of a lane is never closed");
                match self.begin(permit, Mode::Direct) {
                    Ok(slot) => return Ok(slot),
                    Err(_another_was_first) => continue,
                }
            };
            if lasts_beyond(&hindrance, end) {
                return Err(self.no_turn(hindrance));
            }
            let wait = hindrance.wait();
            tokio::select! {
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = changed => {}
                () = tenant_changed => {}
                () = sleep_until(end) => return Err(self.no_turn(self.hindrance().unwrap_or(hindrance))),
            }
        }
    }

    fn begin(self: &Arc<Self>, connection: OwnedSemaphorePermit, mode: Mode) -> Result<Slot<T>, Hindrance> {
        let turn = self.turns(|turns, tenant, now| turns.begin(tenant, mode, now))?;
        Ok(Slot { lane: Arc::clone(self), _connection: connection, turn: Some(turn), seen: false, spent: None })
    }

    /// Why a client has no turn now.
    fn hindrance(&self) -> Option<Hindrance> {
        self.turns(|turns, tenant, now| turns.hindrance(tenant, Mode::Direct, now))
    }

    fn no_turn(&self, hindrance: Hindrance) -> NoTurn {
        self.tell_day();
        NoTurn::from(hindrance)
    }

    /// Mail that waits for the day is no trouble of anybody, and must not wait unseen.
    fn tell_day(&self) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let is_news = state.day_told.is_none_or(|told| now >= told + DAY_TOLD_EVERY);
        if is_news && state.turns.is_day_used_up(now) {
            state.day_told = Some(now);
            drop(state);
            let recipients_per_day = self.allowance.recipients_per_day;
            warn!(lane = %self.id, recipients_per_day, "the login's day is used up; what is queued for it waits, and goes on as the day slides");
        }
    }

    /// What decides over turns, at this moment.
    fn turns<R>(&self, decide: impl FnOnce(&mut Turns, &mut TenantTurns, Monotonic) -> R) -> R {
        let now = self.clock.monotonic();
        decide(&mut self.state().turns, &mut self.tenant.turns(), now)
    }

    fn notify(&self) {
        self.changed.notify_waiters();
        self.tenant.changed.notify_waiters();
    }

    /// A warm connection, or a new one.
    pub(crate) async fn connection(&self) -> Result<Connection, Trouble> {
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
        let token = self.tokens.token().await.map_err(no_token)?;
        match self.log_in(&token).await? {
            Ok(connection) => Ok(connection),
            Err(reply) if may_be_the_token(&reply) && self.may_ask_for_fresh_token(&token) => {
                debug!(lane = %self.id, %reply, "login refused; trying once more with a fresh token");
                match self.tokens.replace(&token).await {
                    Ok(fresh) => self.log_in(&fresh).await?.map_err(|reply| self.login_refused(&fresh, &reply)),
                    Err(trouble) => {
                        // The token may well be good for other mailboxes: what is known is that this one was refused.
                        debug!(lane = %self.id, %trouble, "no fresh token");
                        self.no_fresh_token();
                        Err(self.login_refused(&token, &reply))
                    }
                }
            }
            Err(reply) if is_about_the_dialog(Stage::Auth, &reply) => {
                debug!(lane = %self.id, %reply, "login not understood; trying once more on a new connection");
                self.log_in(&token).await?.map_err(|reply| self.login_refused(&token, &reply))
            }
            Err(reply) => Err(self.login_refused(&token, &reply)),
        }
    }

    async fn log_in(&self, token: &T::Token) -> Result<Result<Connection, Reply>, Trouble> {
        let opened = Connection::open(&self.endpoint, self.clock.monotonic()).await;
        let mut connection = opened.map_err(|error| self.unreachable(error))?;
        let answer = connection.authenticate(self.user(token), token.expose()).await;
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

    /// Whether upstream takes `token` for `user`, by one login on a connection of its own: a sign-in is proven by it. It has a
    /// connection's place like any other, and spends no message. Fails when upstream cannot be asked.
    pub async fn prove(&self, user: &str, token: &str) -> Result<Reply, Unproven> {
        let permit = timeout(PLACE_WITHIN, Arc::clone(&self.connections).acquire_owned()).await;
        let _permit = permit.map_err(|_| Unproven("all connections of the login are in use".to_owned()))?;
        if let Some(idle) = self.take_idle() {
            // It counts against the login's few.
            idle.quit().await;
        }
        prove(&self.endpoint, self.clock.monotonic(), user, token).await
    }

    /// The login has a new token that upstream takes: mail is tried at once, and nothing goes on connections of the old one.
    pub async fn hasten(&self) {
        while let Some(idle) = self.take_idle() {
            idle.quit().await;
        }
        self.turns(|turns, _, now| turns.hasten(now));
        self.notify();
    }

    /// Whether another token than the `refused` one may be asked for. Connections that were opened together meet the same
    /// refusal one after the other: what one of them asked for is there for all of them, at no request more.
    fn may_ask_for_fresh_token(&self, refused: &T::Token) -> bool {
        let now = self.clock.monotonic();
        let last = &mut self.state().fresh_token;
        if let Some(last) = last {
            if last.refused.as_ref().is_some_and(|token| token.as_str() == refused.expose()) {
                return true;
            }
            if now.saturating_since(last.asked) < FRESH_TOKEN_EVERY {
                return false;
            }
        }
        *last = Some(FreshToken { asked: now, refused: Some(Zeroizing::new(refused.expose().to_owned())) });
        true
    }

    /// Whoever meets the same refusal from now on does not ask again before its time.
    fn no_fresh_token(&self) {
        if let Some(last) = &mut self.state().fresh_token {
            last.refused = None;
        }
    }

    pub(crate) fn unreachable(&self, error: OpenError) -> Trouble {
        match error {
            OpenError::Network(text) => Trouble { kind: TroubleKind::Unreachable, scope: Scope::Mailbox, text },
            OpenError::Refused(stage, reply) => self.refused(stage, &self.login, &reply),
        }
    }

    /// Whom upstream is told to let in.
    fn user<'a>(&'a self, token: &'a T::Token) -> &'a str {
        token.user().unwrap_or(&self.login)
    }

    fn login_refused(&self, token: &T::Token, reply: &Reply) -> Trouble {
        self.refused(Stage::Auth, self.user(token), reply)
    }

    fn refused(&self, stage: Stage, user: &str, reply: &Reply) -> Trouble {
        let host = &self.endpoint.host;
        let what = match stage {
            Stage::Auth => format!("the login {user}"),
            _ => "to serve us".to_owned(),
        };
        match classify(stage, reply) {
            Outcome::Held { scope, diagnostic } => {
                Trouble { kind: TroubleKind::Refused, scope, text: format!("{host} refused {what}: {diagnostic}") }
            }
            outcome => Trouble {
                kind: TroubleKind::Unreachable,
                scope: Scope::Mailbox,
                text: format!("{host} does not let {user} in now: {}", outcome.diagnostic()),
            },
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.clock.monotonic(), chance: self.clock.chance() }
    }

    /// What the outcomes tell of the lane itself; true if it is well.
    fn learn(&self, turn: &mut Turn, outcomes: &[Outcome]) -> bool {
        let (open, moment) = (self.open(), self.moment());
        match self.turns(|turns, tenant, _| turns.learn(tenant, turn, outcomes, open, moment)) {
            Lesson::Well(ended) => {
                self.tell_ended(&ended);
                if !ended.is_empty() {
                    self.notify();
                }
                true
            }
            Lesson::Troubled(trouble, pause) => {
                self.tell(&trouble, pause);
                false
            }
        }
    }

    fn tell_ended(&self, ended: &[Trouble]) {
        for trouble in ended {
            info!(lane = %self.id, scope = trouble.reach(), was = %trouble, "lane works again");
        }
    }

    fn troubled(&self, turn: &mut Turn, trouble: &Trouble) {
        let moment = self.moment();
        let pause = self.turns(|turns, tenant, _| turns.troubled(tenant, turn, trouble.clone(), moment));
        self.tell(trouble, pause);
    }

    /// Once for each trouble, and to whoever waits for a turn.
    fn tell(&self, trouble: &Trouble, pause: Pause) {
        let Pause { wait, is_news } = pause;
        let wait = wait.as_secs_f64().ceil();
        if is_news && trouble.kind == TroubleKind::NoToken {
            // Whoever gives tokens has warned, once, with the advice.
            info!(lane = %self.id, reason = %trouble, "lane waits for a token");
        } else if is_news {
            warn!(lane = %self.id, scope = trouble.reach(), reason = %trouble, advice = trouble.advice(), probe_in_seconds = wait, "lane stands still; what is queued for it stays so and goes out by itself once this is mended");
        } else {
            debug!(lane = %self.id, reason = %trouble, probe_in_seconds = wait, "lane still stands still");
        }
        self.notify();
    }

    /// Keeps a connection warm, or says QUIT on one too many.
    pub(crate) async fn park(&self, connection: Connection) {
        if let Some(surplus) = self.keep(connection) {
            surplus.quit().await;
        }
    }

    /// Keeps a connection warm, unless there are more than upstream seems to allow: then it comes back.
    pub(crate) fn keep(&self, mut connection: Connection) -> Option<Connection> {
        connection.used = self.clock.monotonic();
        let allowed = self.turns(|turns, _, now| turns.allowed(now).0);
        if self.open() > allowed {
            return Some(connection);
        }
        self.state().idle.push(connection);
        self.parked.notify_one();
        None
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
    /// Which of `recipients` may go in this turn's message, at least one: a message has a limit, and so has the day.
    pub fn admit(&mut self, recipients: &[Recipient]) -> Result<Vec<usize>, NoRoom> {
        let turn = self.turn.as_mut().expect("a turn ends with its slot only");
        self.lane.turns(|turns, tenant, now| turns.admit(tenant, turn, recipients, now))
    }

    /// The lane whose turn it is.
    pub fn lane(&self) -> &Arc<Lane<T>> {
        &self.lane
    }

    /// Sets another recipient of this turn's message aside, if there is a place for it.
    pub(crate) fn add(&mut self, recipient: &Recipient) -> Result<(), NoPlace> {
        let turn = self.turn.as_mut().expect("a turn ends with its slot only");
        self.lane.turns(|turns, tenant, now| turns.add(tenant, turn, recipient, now))
    }

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
            let takes_wishes = connection.extensions.dsn;
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
                    self.told(message.recipients, &outcomes);
                    return Attempt::Told(Told { outcomes, spent: Spent::default(), takes_wishes });
                }
                Ok(Ended::Lost(text)) => {
                    return Attempt::NotTaken(self.failed(lane.unreachable(OpenError::Network(text))));
                }
                Ok(Ended::Told { outcomes, usable }) => {
                    let is_well = self.told(message.recipients, &outcomes);
                    // The trouble may be this connection's, as with one too many: the probe shall have another. What was
                    // accepted comes first, and shows that it is not.
                    if usable && (is_well || outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted(_)))) {
                        lane.park(connection).await;
                    } else if usable {
                        connection.quit().await;
                    }
                    let spent = self.spent.unwrap_or_default();
                    return Attempt::Told(Told { outcomes, spent, takes_wishes });
                }
                Err(error) => {
                    // No final dot went out: upstream counts nothing of it.
                    self.spent = Some(Spent::default());
                    return Attempt::BodyFailed(error);
                }
            }
        }
    }

    /// What the lane learns of the last answer; true if it is well.
    pub(crate) fn told(&mut self, recipients: &[Recipient], outcomes: &[Outcome]) -> bool {
        let taken = recipients.iter().zip(outcomes);
        let taken = taken.filter(|(_, outcome)| matches!(outcome, Outcome::Accepted(_) | Outcome::Uncertain(_)));
        self.spends(taken.map(|(recipient, _)| recipient));
        self.learn(outcomes)
    }

    /// Upstream counts these, or may.
    pub(crate) fn spends<'a>(&mut self, taken: impl Iterator<Item = &'a Recipient>) {
        self.spent = Some(self.worth(taken));
    }

    /// What upstream counts of these.
    pub(crate) fn worth<'a>(&self, taken: impl Iterator<Item = &'a Recipient>) -> Spent {
        self.lane.turns(|turns, _, _| turns.spent(taken))
    }

    /// What the lane learns of what was heard; true if it is well.
    pub(crate) fn learn(&mut self, outcomes: &[Outcome]) -> bool {
        self.turn.as_mut().is_some_and(|turn| self.lane.learn(turn, outcomes))
    }

    /// Upstream waits for the content: a probe has shown what it can, and others need not wait for its end.
    pub(crate) fn let_in(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        let moment = self.lane.moment();
        let ended = self.lane.turns(|turns, tenant, _| turns.let_in(tenant, turn, moment));
        self.lane.tell_ended(&ended);
        self.lane.notify();
    }

    /// The message met the lane's trouble, and upstream counts nothing of it.
    pub(crate) fn failed(&mut self, trouble: Trouble) -> Trouble {
        self.spent = Some(Spent::default());
        if let Some(turn) = &mut self.turn {
            self.lane.troubled(turn, &trouble);
        }
        trouble
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let lane = &self.lane;
        let now = lane.clock.monotonic();
        let unknown = if self.seen { turn.reserved() } else { Spent::default() };
        let spent = self.spent.unwrap_or(unknown);
        {
            let mut state = lane.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.turns.end(&mut lane.tenant.turns(), turn, self.seen, spent, now);
        }
        lane.changed.notify_waiters();
        lane.tenant.changed.notify_waiters();
    }
}

/// Whether it is known that there is no turn until `end`.
fn lasts_beyond(hindrance: &Hindrance, end: Instant) -> bool {
    hindrance.wait().is_some_and(|wait| wait > end.saturating_duration_since(Instant::now()))
}

fn no_token(TokenTrouble { text, scope }: TokenTrouble) -> Trouble {
    Trouble { kind: TroubleKind::NoToken, scope, text }
}
