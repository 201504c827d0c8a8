//! An intake one of whose hooks waits until the test lets it go on, and that tells when it was dropped instead.

use std::net::SocketAddr;
use std::sync::Arc;

use mail::{Recipient, ReversePath};
use smtp_server::session::Profile;
use smtp_server::{Client, Credentials, Intake, Limits, MessageSink, Notice, Server, SessionWatch, Transaction};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{MailParameters, Reply};

use crate::client::within;
use crate::intake::usual;

/// Where the intake waits or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Mail,
    Rcpt,
    Data,
    Write,
    End,
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Hooks that have begun to wait.
    pub(crate) waiting: usize,
    /// Hooks, transactions and sinks that were dropped before their end.
    pub(crate) dropped: usize,
    /// Messages taken.
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) timed_out: bool,
}

/// Takes everything, but waits or refuses at one hook.
#[derive(Clone)]
pub(crate) struct Patient {
    waits_at: Option<Hook>,
    refuses: Option<(Hook, Reply)>,
    go: Arc<Notify>,
    seen: watch::Sender<Seen>,
}

/// Something of upstream's.
struct Held {
    seen: watch::Sender<Seen>,
    used: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.used {
            self.seen.send_modify(|seen| seen.dropped += 1);
        }
    }
}

impl Patient {
    fn held(&self) -> Held {
        Held { seen: self.seen.clone(), used: false }
    }

    async fn at(&self, hook: Hook) -> Result<(), Reply> {
        if self.waits_at == Some(hook) {
            self.seen.send_modify(|seen| seen.waiting += 1);
            self.go.notified().await;
        }
        match &self.refuses {
            Some((refuses, reply)) if *refuses == hook => Err(reply.clone()),
            _ => Ok(()),
        }
    }
}

impl Intake for Patient {
    type Transaction = Passing;

    fn connect(&self, _: &Client) -> Result<(), Reply> {
        Ok(())
    }

    fn noticed(&self, _: &Client, notice: &Notice<'_>) {
        if matches!(notice, Notice::TimedOut) {
            self.seen.send_modify(|seen| seen.timed_out = true);
        }
    }

    async fn authenticate(&self, _: &Client, credentials: Credentials) -> Result<Arc<str>, Reply> {
        Ok(credentials.name.into())
    }

    async fn mail(&self, _: &Client, _: ReversePath, _: MailParameters) -> Result<Passing, Reply> {
        let held = self.held();
        self.at(Hook::Mail).await?;
        Ok(Passing { intake: self.clone(), held, octets: Vec::new() })
    }
}

/// Transaction and sink in one.
pub(crate) struct Passing {
    intake: Patient,
    held: Held,
    octets: Vec<u8>,
}

impl Transaction for Passing {
    type Sink = Self;

    fn is_live(&self) -> bool {
        true
    }

    async fn rcpt(&mut self, _: Recipient) -> Reply {
        self.intake.at(Hook::Rcpt).await.err().unwrap_or_else(|| Reply::new(250, (2, 1, 5), "Recipient OK"))
    }

    async fn data(self) -> Result<Self, Reply> {
        self.intake.at(Hook::Data).await?;
        Ok(self)
    }
}

impl MessageSink for Passing {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Reply> {
        self.intake.at(Hook::Write).await?;
        self.octets.extend_from_slice(chunk);
        Ok(())
    }

    async fn end(mut self) -> Reply {
        if let Err(refusal) = self.intake.at(Hook::End).await {
            return refusal;
        }
        self.held.used = true;
        let octets = std::mem::take(&mut self.octets);
        self.intake.seen.send_modify(|seen| seen.messages.push(octets));
        Reply::new(250, (2, 0, 0), "OK")
    }
}

/// A server on loopback with such an intake.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) server: Server<Patient>,
    pub(crate) sessions: SessionWatch,
    pub(crate) serving: JoinHandle<()>,
    go: Arc<Notify>,
    seen: watch::Sender<Seen>,
}

impl Running {
    /// Lets one hook go on.
    pub(crate) fn go_on(&self) {
        self.go.notify_one();
    }

    /// Waits until this was seen.
    pub(crate) async fn until(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        within(seen.wait_for(condition)).await.unwrap().clone()
    }

    /// Waits until a hook waits.
    pub(crate) async fn waits(&self) {
        self.until(|seen| seen.waiting > 0).await;
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }
}

/// Waits at this hook.
pub(crate) async fn waiting_at(hook: Hook) -> Running {
    start(Some(hook), None, |_, _| {}).await
}

/// Refuses with this reply.
pub(crate) async fn refusing(hook: Hook, reply: Reply) -> Running {
    start(None, Some((hook, reply)), |_, _| {}).await
}

pub(crate) async fn start(
    waits_at: Option<Hook>,
    refuses: Option<(Hook, Reply)>,
    change: impl FnOnce(&mut Profile, &mut Limits),
) -> Running {
    let (mut profile, mut limits) = usual();
    change(&mut profile, &mut limits);
    let intake = Patient { waits_at, refuses, go: Arc::default(), seen: watch::Sender::default() };
    let (go, seen) = (Arc::clone(&intake.go), intake.seen.clone());
    let server = Server::new("direct", profile, limits, Arc::new(intake));
    let sessions = server.watch_sessions();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(server.clone().serve(listener, CancellationToken::new()));
    Running { address, server, sessions, serving, go, seen }
}
