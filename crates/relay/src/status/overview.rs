//! Gathers the snapshot of a running daemon from its rooms. It only looks, and it waits for nothing for long.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clock::{Clock, Monotonic, WallTime};
use forwarder::{TroubleStatus, sender_advice};
use mail::LaneSet;
use smtp_server::SessionWatch;
use spool::{Spool, SqliteSpool, StoreError};
use token_manager::TokenStatus;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::snapshot::{
    Credential, Lane, Listener, LoggedEvent, Queue, QueueCounts, RefusedSender, SignIn, Snapshot, State, Time, Token,
    TokenFailure, TokenState, Trouble, UnknownMailbox,
};
use crate::config::Settings;
use crate::lanes::Lanes;
use crate::listeners::Listeners;
use crate::recent::Recent;
use crate::refused_senders::{self, RefusedSenders};
use crate::tokens::Tokens;
use crate::unknown_mailboxes::REMEMBERED_FOR;

/// How long the queue may take to be looked at: beyond it the disk hangs, and that is what `status` must say.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// Deliveries of one lane that are counted.
const COUNTED: u32 = 1000;

/// Why there is no queue in a snapshot of a relay that has none.
const NO_QUEUE: &str = "every listener is direct, and nothing is stored";

/// What a snapshot is gathered from.
pub(crate) struct Overview {
    /// The configuration in effect.
    settings: watch::Receiver<Arc<Settings>>,
    clock: Arc<dyn Clock>,
    started: (WallTime, Monotonic),
    listeners: Arc<Listeners>,
    recent: Recent,
    /// Cancelled when the daemon stops.
    stop: CancellationToken,
    opened: OnceLock<Opened>,
}

/// A listener to look at.
#[derive(Clone)]
pub(crate) struct ListenerView {
    /// Its name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its sessions.
    pub(crate) sessions: SessionWatch,
    /// Whether it was taken away and only its last sessions are there.
    pub(crate) is_closed: bool,
}

/// What there is once all is open.
pub(crate) struct Opened {
    /// The queue; none where nothing is stored.
    pub(crate) spool: Option<Arc<SqliteSpool>>,
    /// The lanes and their tokens.
    pub(crate) lanes: Arc<Lanes>,
}

/// A lane to look at.
pub(crate) struct LaneView {
    /// Name of its tenant.
    pub(crate) tenant: String,
    /// Names of its mailboxes.
    pub(crate) mailbox: String,
    /// Whose mail goes by it.
    pub(crate) queues: Vec<LaneSet>,
    /// The lane.
    pub(crate) lane: Arc<forwarder::Lane<Tokens>>,
    /// Whose messages upstream does not take.
    pub(crate) refused_senders: Arc<RefusedSenders>,
}

impl Overview {
    /// Of a daemon that listens and has not opened what is slow.
    pub(crate) fn new(
        settings: watch::Receiver<Arc<Settings>>,
        listeners: Arc<Listeners>,
        recent: Recent,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        let started = (clock.wall(), clock.monotonic());
        Self { settings, clock, started, listeners, recent, stop, opened: OnceLock::new() }
    }

    /// All is open.
    pub(crate) fn opened(&self, opened: Opened) {
        // A daemon opens it once.
        let _ = self.opened.set(opened);
    }

    /// The daemon now.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let now = Now { wall: self.clock.wall(), monotonic: self.clock.monotonic() };
        let (started_at, since) = self.started;
        let opened = self.opened.get();
        let settings = Arc::clone(&self.settings.borrow());
        let tokens = opened.map(|opened| opened.lanes.all_tokens()).unwrap_or_default();
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state(),
            pid: std::process::id(),
            hostname: settings.hostname.as_str().to_owned(),
            started_at: Time(started_at),
            taken_at: Time(now.wall),
            uptime_seconds: now.monotonic.saturating_since(since).as_secs(),
            listeners: self.listeners.views().iter().map(listener).collect(),
            lanes: match opened {
                Some(opened) => lanes(opened, now).await,
                None => Vec::new(),
            },
            tokens: tokens.iter().map(|tokens| token(tokens.status(), now)).collect(),
            queue: match opened.and_then(|opened| opened.spool.as_ref()) {
                Some(spool) => Some(queue(spool, &settings).await),
                None => None,
            },
            no_queue: settings.state_directory().is_none().then(|| NO_QUEUE.to_owned()),
            unknown_mailboxes: opened.map(|opened| unknown_mailboxes(&opened.lanes, now)).unwrap_or_default(),
            stranded: match opened {
                Some(opened) => stranded(opened).await,
                None => Vec::new(),
            },
            last_errors: self.last_errors(),
        }
    }

    fn state(&self) -> State {
        if self.stop.is_cancelled() {
            State::Stopping
        } else if self.opened.get().is_none() {
            State::OpeningQueue
        } else {
            State::Serving
        }
    }

    fn last_errors(&self) -> Vec<LoggedEvent> {
        let events = self.recent.events().into_iter();
        let shown = events.map(|event| LoggedEvent {
            at: Time(event.at),
            level: event.level.to_string(),
            target: event.target,
            text: event.text,
        });
        shown.collect()
    }
}

#[derive(Clone, Copy)]
struct Now {
    wall: WallTime,
    monotonic: Monotonic,
}

fn listener(view: &ListenerView) -> Listener {
    let counts = view.sessions.counts();
    Listener {
        name: view.name.clone(),
        address: view.address.to_string(),
        is_closed: view.is_closed,
        sessions: counts.open,
        max_sessions: counts.max,
        accepted: counts.admitted,
        turned_away: counts.turned_away,
    }
}

/// Lanes that have mail and that no mailbox of the configuration serves; none where the queue does not say in time.
async fn stranded(opened: &Opened) -> Vec<String> {
    let Some(spool) = &opened.spool else { return Vec::new() };
    let stored = timeout(QUEUE_PATIENCE, spool.lanes()).await;
    let stored = stored.ok().and_then(Result::ok).unwrap_or_default();
    stored.iter().filter(|lanes| !opened.lanes.serve(lanes)).map(ToString::to_string).collect()
}

async fn lanes(opened: &Opened, now: Now) -> Vec<Lane> {
    let views = opened.lanes.views();
    let served: Vec<_> = views.iter().map(|view| view.queues.as_slice()).collect();
    let queued = match &opened.spool {
        Some(spool) => queued(spool, &served).await,
        None => vec![None; views.len()],
    };
    views.iter().zip(queued).map(|(view, queued)| lane(view, queued, now)).collect()
}

/// How much waits for each lane; none for those that could not be counted in time.
async fn queued(spool: &SqliteSpool, lanes: &[&[LaneSet]]) -> Vec<Option<u32>> {
    let mut counted = Vec::with_capacity(lanes.len());
    // A look that is cut leaves its count out, and that of those behind it.
    let _ = timeout(QUEUE_PATIENCE, async {
        for queues in lanes {
            let mut sum = Some(0);
            for lanes in *queues {
                let queued = spool.queued(lanes, COUNTED).await.ok();
                sum = sum.zip(queued).map(|(sum, queued)| sum + queued);
            }
            counted.push(sum);
        }
    })
    .await;
    counted.resize(lanes.len(), None);
    counted
}

fn lane(view: &LaneView, queued: Option<u32>, now: Now) -> Lane {
    let status = view.lane.status();
    Lane {
        tenant: view.tenant.clone(),
        mailbox: view.mailbox.clone(),
        login: view.lane.login().to_owned(),
        connections: status.connections,
        max_connections: status.max_connections,
        in_flight: status.in_flight,
        sent_last_minute: status.sent_in_last_minute,
        messages_per_minute: status.messages_per_minute,
        allowed_connections: status.allowed.0,
        allowed_messages_per_minute: status.allowed.1,
        recipients_last_day: status.recipients_in_last_day,
        recipients_per_day: status.recipients_per_day,
        queued,
        refused_senders: view.refused_senders.list().iter().map(refused_sender).collect(),
        trouble: status.trouble.map(|trouble| self::trouble(&trouble, now.wall)),
    }
}

fn unknown_mailboxes(lanes: &Lanes, now: Now) -> Vec<UnknownMailbox> {
    let unknown = lanes.unknown_mailboxes().into_iter();
    let shown = unknown.map(|(lane, age)| UnknownMailbox {
        lane: lane.to_string(),
        since: Time(now.wall - age),
        until: Time(now.wall + REMEMBERED_FOR.saturating_sub(age)),
    });
    shown.collect()
}

fn refused_sender(refused: &refused_senders::RefusedSender) -> RefusedSender {
    RefusedSender {
        sender: refused.sender.clone(),
        text: refused.diagnostic.to_string(),
        advice: sender_advice(&refused.diagnostic).to_owned(),
        since: Time(refused.since),
    }
}

fn trouble(status: &TroubleStatus, now: WallTime) -> Trouble {
    let TroubleStatus { trouble, lasting, next_probe } = status;
    Trouble {
        kind: trouble.kind.as_str().to_owned(),
        scope: trouble.reach().to_owned(),
        text: trouble.text.clone(),
        advice: trouble.advice().to_owned(),
        since: Time(now - *lasting),
        next_probe: next_probe.map(|wait| Time(now + wait)),
    }
}

fn token(status: TokenStatus, now: Now) -> Token {
    let valid = status.expires_at.is_some_and(|expires_at| expires_at > now.wall);
    let state = match status.failures {
        0 if valid => TokenState::Fetched,
        0 => TokenState::Waiting,
        _ => TokenState::Failing,
    };
    Token {
        tenant: status.tenant,
        state,
        expires_at: status.expires_at.map(Time),
        next_request: Time(status.next_attempt),
        last_success: status.last_success.map(Time),
        failures: status.failures,
        last_failure: status.last_failure.map(|(at, failure)| TokenFailure {
            at: Time(at),
            class: failure.class.as_str().to_owned(),
            http_status: failure.http_status,
            codes: failure.codes.clone(),
            trace_id: failure.trace_id.clone(),
            correlation_id: failure.correlation_id.clone(),
            text: failure.text.clone(),
            advice: failure.advice.clone(),
        }),
        mailbox: status.mailbox,
        credential: Some(Credential {
            description: status.credential.description,
            ends_at: status.credential.ends_at.map(Time),
            trouble: status.credential.trouble,
        }),
        sign_in: status.sign_in.map(|sign_in| SignIn {
            account: sign_in.account,
            user: sign_in.user,
            signed_in_at: Time(sign_in.signed_in_at),
            renewed_at: Time(sign_in.renewed_at),
            ends_at: Time(sign_in.ends_at),
            refused_at: sign_in.refused.map(|(at, _)| Time(at)),
        }),
    }
}

async fn queue(spool: &SqliteSpool, settings: &Settings) -> Queue {
    let read = timeout(QUEUE_PATIENCE, counts(spool)).await;
    let counts = read.unwrap_or_else(|_| {
        Err(StoreError::Failed(format!("no answer from the disk within {} s", QUEUE_PATIENCE.as_secs())))
    });
    let problem = counts.as_ref().err().cloned().or_else(|| spool.check_room(0).err());
    Queue {
        problem: problem.map(|problem| problem.to_string()),
        max_messages: settings.spool.max_messages.get(),
        max_bytes: settings.spool.max_bytes.octets(),
        counts: counts.ok(),
    }
}

async fn counts(spool: &SqliteSpool) -> Result<QueueCounts, StoreError> {
    let counts = spool.counts().await?;
    Ok(QueueCounts {
        messages: counts.messages,
        bytes: counts.bytes,
        queued: counts.queued,
        held: counts.held,
        quarantined: counts.quarantined,
        uncertain: counts.uncertain,
        oldest_accepted_at: counts.oldest.map(Time),
        earliest_due_at: spool.earliest_due().await?.map(Time),
    })
}
