//! A daemon at one moment, as it goes over the control socket and out of `status --json`. Only data.
//!
//! Fields are added, never renamed and never given another meaning, without a new version of the protocol. Times are RFC
//! 3339 in UTC; sizes are octets.

use clock::WallTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The daemon's release.
    pub(crate) version: String,
    /// How far it is.
    pub(crate) state: State,
    /// Its process.
    pub(crate) pid: u32,
    /// What it calls itself in EHLO.
    pub(crate) hostname: String,
    /// When it started.
    pub(crate) started_at: Time,
    /// When this snapshot was taken.
    pub(crate) taken_at: Time,
    /// Seconds since it started, by a clock that nobody sets.
    pub(crate) uptime_seconds: u64,
    /// Every listener.
    pub(crate) listeners: Vec<Listener>,
    /// Every lane; none while the queue is being opened.
    pub(crate) lanes: Vec<Lane>,
    /// Every token, of tenants and of mailboxes that users sign in for; none while the queue is being opened.
    pub(crate) tokens: Vec<Token>,
    /// The queue; none while it is being opened, and where there is none.
    pub(crate) queue: Option<Queue>,
    /// Why there is no queue; none where there is one.
    #[serde(default)]
    pub(crate) no_queue: Option<String>,
    /// Lanes (`tenant_id/login`) that have mail and that no mailbox of the configuration serves.
    #[serde(default)]
    pub(crate) stranded: Vec<String>,
    /// Senders' own mailboxes that Exchange lets nobody log in to.
    #[serde(default)]
    pub(crate) unknown_mailboxes: Vec<UnknownMailbox>,
    /// The last warnings and errors of the log, newest last.
    pub(crate) last_errors: Vec<LoggedEvent>,
}

/// A sender's own mailbox that Exchange lets nobody log in to: its mail goes by the fallback, or waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnknownMailbox {
    /// The lane (`tenant_id/login`).
    pub(crate) lane: String,
    /// Since when it is remembered.
    pub(crate) since: Time,
    /// When it is tried again.
    pub(crate) until: Time,
}

/// How far the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It listens; clients hear 421.
    OpeningQueue,
    /// Mail is taken and sent.
    Serving,
    /// What is under way ends.
    Stopping,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Address and port.
    pub(crate) address: String,
    /// Sessions open now.
    pub(crate) sessions: usize,
    /// How many there may be.
    pub(crate) max_sessions: usize,
    /// Sessions opened since the start.
    pub(crate) accepted: u64,
    /// Clients that heard 421 since the start, because they or the listener had all the sessions they may have.
    pub(crate) turned_away: u64,
    /// Whether it was taken out of the configuration and only its last sessions are there.
    #[serde(default)]
    pub(crate) is_closed: bool,
}

/// A login's road upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lane {
    /// Its tenant's name in the configuration.
    pub(crate) tenant: String,
    /// Its mailbox's name in the configuration.
    pub(crate) mailbox: String,
    /// The login.
    pub(crate) login: String,
    /// Connections that are logged in upstream, idle ones included.
    pub(crate) connections: usize,
    /// How many there may be.
    pub(crate) max_connections: usize,
    /// Messages that have a turn now.
    pub(crate) in_flight: usize,
    /// Messages that upstream saw in the last minute.
    pub(crate) sent_last_minute: usize,
    /// How many there may be in any minute.
    pub(crate) messages_per_minute: usize,
    /// Connections at a time that upstream seems to take now, where that is less.
    #[serde(default)]
    pub(crate) allowed_connections: usize,
    /// Messages in any minute that upstream seems to take now, where that is less.
    #[serde(default)]
    pub(crate) allowed_messages_per_minute: usize,
    /// Recipients that upstream counts of the last 24 hours.
    #[serde(default)]
    pub(crate) recipients_last_day: u64,
    /// How many there may be in any 24 hours.
    #[serde(default)]
    pub(crate) recipients_per_day: u64,
    /// Deliveries that it may carry, those that it shares with other lanes included, each queue counted up to 1000; none
    /// when that cannot be read, and where there is no queue.
    pub(crate) queued: Option<u32>,
    /// What is wrong; none when it works.
    pub(crate) trouble: Option<Trouble>,
    /// Senders of whom upstream takes no message, while it takes those of others.
    #[serde(default)]
    pub(crate) refused_senders: Vec<RefusedSender>,
}

/// A sender of whom upstream takes no message. Its mail is tried on, ever more seldom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedSender {
    /// Its reverse-path.
    pub(crate) sender: String,
    /// Upstream's own words.
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: String,
    /// Since when, as far as this process knows.
    pub(crate) since: Time,
}

/// Trouble of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// `unreachable`, `no_token`, `throttled` or `refused`.
    pub(crate) kind: String,
    /// How far it reaches: `mailbox` or `tenant`.
    pub(crate) scope: String,
    /// What was seen, upstream's own words included.
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: String,
    /// Since when the lane does not work.
    pub(crate) since: Time,
    /// When the next message may be tried; in the past: as soon as there is one; none: one is being tried.
    pub(crate) next_probe: Option<Time>,
}

/// The access token of a tenant, or of a mailbox that a user signed in for. Never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// The tenant's name in the configuration.
    pub(crate) tenant: String,
    /// How it stands.
    pub(crate) state: TokenState,
    /// When the last one ends or ended; none before the first.
    pub(crate) expires_at: Option<Time>,
    /// When the next one is asked for.
    pub(crate) next_request: Time,
    /// When the last one came.
    pub(crate) last_success: Option<Time>,
    /// Failed requests since then.
    pub(crate) failures: u32,
    /// The last failed request, kept after a success.
    pub(crate) last_failure: Option<TokenFailure>,
    /// The mailbox's name in the configuration, where a user signs in for it; none for an application's own token.
    #[serde(default)]
    pub(crate) mailbox: Option<String>,
    /// What the application proves itself with.
    #[serde(default)]
    pub(crate) credential: Option<Credential>,
    /// Who signed in; none for an application's own token, and where nobody has.
    #[serde(default)]
    pub(crate) sign_in: Option<SignIn>,
}

/// What an application proves itself with. Never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credential {
    /// What it is and where it stands.
    pub(crate) description: String,
    /// When it ends, where that is known.
    pub(crate) ends_at: Option<Time>,
    /// What is wrong with what stands there now, while the one before it goes on.
    pub(crate) trouble: Option<String>,
}

/// A user's sign-in. Never the refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignIn {
    /// Who signed in, where Entra ID said so.
    pub(crate) account: Option<String>,
    /// The XOAUTH2 user that upstream took.
    pub(crate) user: String,
    /// When somebody signed in.
    pub(crate) signed_in_at: Time,
    /// When the refresh token came that is held now.
    pub(crate) renewed_at: Time,
    /// When it ends unless it is renewed.
    pub(crate) ends_at: Time,
    /// Since when Entra ID does not take it; none when it does.
    pub(crate) refused_at: Option<Time>,
}

/// How a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenState {
    /// There is a valid one.
    Fetched,
    /// There is none, and a request is due or under way.
    Waiting,
    /// The last request failed; an older token may still be valid, see `expires_at`.
    Failing,
}

/// A failed token request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenFailure {
    /// When.
    pub(crate) at: Time,
    /// `transient`, `throttled`, `credential`, `configuration`, `consent`, `grant`, `policy` or `unexpected`.
    pub(crate) class: String,
    /// HTTP status of the answer; none when there was none.
    pub(crate) http_status: Option<u16>,
    /// AADSTS numbers.
    pub(crate) codes: Vec<u32>,
    /// Microsoft's support asks for it.
    #[serde(default)]
    pub(crate) trace_id: Option<String>,
    /// And for this.
    #[serde(default)]
    pub(crate) correlation_id: Option<String>,
    /// What happened.
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: String,
}

/// The queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// Why no mail is taken now; none when it is.
    pub(crate) problem: Option<String>,
    /// Messages that it may hold.
    pub(crate) max_messages: u64,
    /// Octets that it may hold.
    pub(crate) max_bytes: u64,
    /// What is in it; none when that cannot be read.
    pub(crate) counts: Option<QueueCounts>,
}

/// What is in the queue. A message has a delivery for each lane that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueCounts {
    /// Messages.
    pub(crate) messages: u64,
    /// Octets of their headers and bodies.
    pub(crate) bytes: u64,
    /// Deliveries that wait for their turn or their next attempt.
    pub(crate) queued: u64,
    /// Deliveries that wait for an operator.
    pub(crate) held: u64,
    /// Deliveries whose stored message is damaged.
    pub(crate) quarantined: u64,
    /// Of the queued ones, those of which upstream may already have a copy.
    pub(crate) uncertain: u64,
    /// When the oldest message was accepted.
    pub(crate) oldest_accepted_at: Option<Time>,
    /// When the earliest queued delivery is or was due.
    pub(crate) earliest_due_at: Option<Time>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoggedEvent {
    /// When.
    pub(crate) at: Time,
    /// `WARN` or `ERROR`.
    pub(crate) level: String,
    /// Which part of the relay.
    pub(crate) target: String,
    /// The message and its fields, at most 500 characters.
    pub(crate) text: String,
}

/// A wall time, as RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) WallTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        WallTime::parse_rfc3339(&text)
            .map(Self)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"a time such as 2026-11-21T07:54:00Z"))
    }
}

impl Snapshot {
    /// Why this daemon is not healthy; none when it listens and takes mail. Trouble of a tenant or a mailbox is no part
    /// of it: restarting cures nothing there.
    pub(crate) fn ailment(&self) -> Option<String> {
        let problem = self.queue.as_ref().and_then(|queue| queue.problem.as_deref());
        match self.state {
            State::OpeningQueue if self.no_queue.is_some() => Some("it is still starting".to_owned()),
            State::OpeningQueue => Some("the queue is still being opened".to_owned()),
            State::Stopping => Some("the daemon is stopping".to_owned()),
            State::Serving if self.listeners.is_empty() => Some("it listens nowhere".to_owned()),
            State::Serving => problem.map(|problem| format!("no mail is taken: {problem}")),
        }
    }
}
