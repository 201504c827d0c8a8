//! An intake that writes down what reaches it. It takes everybody except by name: `refused@` is refused at MAIL and RCPT,
//! `closing@` hears 421 at MAIL, `panic@` makes the hook panic, `nodata@` refuses DATA, `full@` refuses the second chunk of the message; the password is
//! "right". [`STRANGER`] may not connect, [`LOAD_BALANCER`] speaks for others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mail::{BodyType, Recipient, ReversePath};
use smtp_server::session::Profile;
use smtp_server::{Client, Credentials, Gate, Intake, Limits, MessageSink, Notice, Server, SessionWatch, Transaction};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{MailParameters, Reply};

use crate::client::within;

/// What reached the intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A transaction was begun: path, and what MAIL declared.
    Mail(String),
    /// A recipient was asked for: path, and what is to be reported of it.
    Rcpt(String),
    /// A message came to its end.
    Message(Vec<u8>),
    /// A sink was dropped without its end.
    Dropped,
}

impl Event {
    pub(crate) fn message(text: &str) -> Self {
        Self::Message(text.as_bytes().to_vec())
    }
}

/// Comes from an address that is not welcome.
pub(crate) const STRANGER: &str = "127.0.0.66";
/// Must send a PROXY header.
pub(crate) const LOAD_BALANCER: &str = "127.0.0.9";

#[derive(Clone, Default)]
pub(crate) struct Recorder {
    events: watch::Sender<Vec<Event>>,
    notices: watch::Sender<Vec<String>>,
}

impl Recorder {
    fn record(&self, event: Event) {
        self.events.send_modify(|events| events.push(event));
    }

    /// Waits until so many events of messages (ended or dropped) were seen; gives them.
    pub(crate) async fn messages(&self, count: usize) -> Vec<Event> {
        let of_messages = |events: &[Event]| -> Vec<Event> {
            events.iter().filter(|event| matches!(event, Event::Message(_) | Event::Dropped)).cloned().collect()
        };
        let mut events = self.events.subscribe();
        let seen = within(events.wait_for(|events| of_messages(events).len() >= count)).await.unwrap();
        of_messages(&seen)
    }

    /// Whether there was a notice that begins so.
    pub(crate) fn was_noticed(&self, start: &str) -> bool {
        self.notices.borrow().iter().any(|notice| notice.starts_with(start))
    }

    /// Waits for a notice of a client, as `Debug` shows it, that begins so.
    pub(crate) async fn noticed(&self, start: &str) -> String {
        let found = |notices: &[String]| notices.iter().find(|notice| notice.starts_with(start)).cloned();
        let mut notices = self.notices.subscribe();
        let seen = within(notices.wait_for(|notices| found(notices).is_some())).await.unwrap();
        found(&seen).unwrap()
    }

    /// All that was seen so far.
    pub(crate) fn so_far(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }
}

impl Intake for Recorder {
    type Transaction = Recording;

    fn is_proxy(&self, address: IpAddr) -> bool {
        address.to_string() == LOAD_BALANCER
    }

    fn connect(&self, client: &Client) -> Result<(), Reply> {
        if client.address().to_string() == STRANGER { Err(Reply::new(554, (5, 7, 1), "Not you")) } else { Ok(()) }
    }

    fn noticed(&self, client: &Client, notice: &Notice<'_>) {
        self.notices.send_modify(|notices| notices.push(format!("{} {notice:?}", client.address())));
    }

    async fn authenticate(&self, _: &Client, credentials: Credentials) -> Result<Arc<str>, Reply> {
        if credentials.password.as_slice() == b"right" {
            Ok(credentials.name.into())
        } else {
            Err(Reply::new(535, (5, 7, 8), "Name or password wrong"))
        }
    }

    async fn mail(
        &self,
        client: &Client,
        path: ReversePath,
        parameters: MailParameters,
    ) -> Result<Self::Transaction, Reply> {
        let sender = path.to_string();
        assert!(!sender.starts_with("panic@"), "a hook that panics, as this test wants it");
        let body = if parameters.body == BodyType::EightBitMime { " 8bit" } else { "" };
        let ret = parameters.ret.map(|ret| format!(" ret {ret}")).unwrap_or_default();
        let envelope_id = parameters.envelope_id.map(|id| format!(" id {id}")).unwrap_or_default();
        let user = client.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let tls = if client.tls.is_some() { " by TLS" } else { "" };
        self.record(Event::Mail(format!("{} {sender}{body}{ret}{envelope_id}{user}{tls}", client.helo)));
        if sender.starts_with("closing@") {
            return Err(Reply::new(421, (4, 3, 2), "Shutting down"));
        }
        if sender.starts_with("refused@") {
            return Err(Reply::new(550, (5, 7, 1), "Not you"));
        }
        Ok(Recording { recorder: self.clone(), recipients: Vec::new() })
    }
}

pub(crate) struct Recording {
    recorder: Recorder,
    recipients: Vec<String>,
}

impl Transaction for Recording {
    type Sink = Recorded;

    async fn rcpt(&mut self, recipient: Recipient) -> Reply {
        let notify = recipient.notify.map(|notify| format!(" notify {notify}")).unwrap_or_default();
        let original = recipient.original.as_ref().map(|original| format!(" original {original}")).unwrap_or_default();
        self.recorder.record(Event::Rcpt(format!("{recipient}{notify}{original}")));
        let recipient = recipient.to_string();
        let refused = recipient.starts_with("refused@");
        self.recipients.push(recipient);
        if refused { Reply::new(550, (5, 1, 1), "No such user") } else { Reply::new(250, (2, 1, 5), "Recipient OK") }
    }

    async fn data(self) -> Result<Self::Sink, Reply> {
        let has = |name: &str| self.recipients.iter().any(|recipient| recipient.starts_with(name));
        if has("nodata@") {
            return Err(Reply::new(452, (4, 3, 1), "No room now"));
        }
        Ok(Recorded { full: has("full@"), recorder: self.recorder, octets: Vec::new(), ended: false })
    }
}

pub(crate) struct Recorded {
    recorder: Recorder,
    full: bool,
    octets: Vec<u8>,
    ended: bool,
}

impl MessageSink for Recorded {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Reply> {
        if self.full && !self.octets.is_empty() {
            return Err(Reply::new(452, (4, 3, 1), "Disk is full"));
        }
        self.octets.extend_from_slice(chunk);
        Ok(())
    }

    async fn end(mut self) -> Reply {
        self.ended = true;
        let octets = std::mem::take(&mut self.octets);
        self.recorder.record(Event::Message(octets));
        Reply::new(250, (2, 0, 0), "OK queued")
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.ended {
            self.recorder.record(Event::Dropped);
        }
    }
}

/// A server on loopback with a recorder behind it.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) recorder: Recorder,
    pub(crate) sessions: SessionWatch,
    pub(crate) server: Server<Recorder>,
    pub(crate) gate: Gate,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

/// Messages of at most this many octets are taken.
pub(crate) const MAX_MESSAGE_SIZE: u64 = 100_000;

/// Starts a server with the usual limits, changed by `change`.
pub(crate) async fn start_with(change: impl FnOnce(&mut Limits)) -> Running {
    start_as(|_, limits| change(limits)).await
}

/// Starts a server with the usual profile and limits, changed by `change`.
pub(crate) async fn start_as(change: impl FnOnce(&mut Profile, &mut Limits)) -> Running {
    let (mut profile, mut limits) = usual();
    change(&mut profile, &mut limits);
    let recorder = Recorder::default();
    let server = Server::new("legacy", profile, limits, Arc::new(recorder.clone()));
    let sessions = server.watch_sessions();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let gate = Gate::new();
    let serving = tokio::spawn(server.clone().serve_through(&gate, listener, stop.clone()));
    Running { address, recorder, sessions, server, gate, stop, serving }
}

/// What sessions have when nothing else is asked for.
pub(crate) fn usual() -> (Profile, Limits) {
    let profile =
        Profile { max_message_size: MAX_MESSAGE_SIZE, max_recipients: 100, ..Profile::new("relay.test".into()) };
    (profile, Limits { max_refused_octets: 1_000_000, ..Limits::default() })
}

/// Starts a server with the usual limits.
pub(crate) async fn start() -> Running {
    start_with(|_| {}).await
}

/// A wait that a test lets run out.
pub(crate) const SHORT: Duration = Duration::from_millis(100);
