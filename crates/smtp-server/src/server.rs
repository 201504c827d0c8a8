//! Accepts connections on one listener and runs a session for each, until told to stop.
//!
//! It always accepts: whoever gets no session hears a 421 and why. It pauses only when the process is out of
//! descriptors, and never ends by itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use wire::Reply;

use crate::admission::{Admission, Full, SessionWatch, Ticket};
use crate::client::Client;
use crate::connection::Connection;
use crate::intake::Intake;
use crate::session::Profile;

/// Refusals told at the same time; beyond that connections are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long a refusal may take to be told.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the process ran out of descriptors or memory: long enough for sessions to end, short for a client that waits.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// Bounds of the sessions of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions at the same time.
    pub max_connections: usize,
    /// Sessions of one client address at the same time.
    pub max_connections_per_client: usize,
    /// Longest wait for a command and for a reply to be taken (RFC 5321 section 4.5.3.2.7: five minutes).
    pub command_timeout: Duration,
    /// Longest wait for more of a message (RFC 5321 section 4.5.3.2.5: three minutes).
    pub data_timeout: Duration,
    /// Octets read of a message that is already refused, at least; the client is cut off beyond.
    pub max_refused_octets: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1000,
            max_connections_per_client: 50,
            command_timeout: Duration::from_mins(5),
            data_timeout: Duration::from_mins(3),
            max_refused_octets: 64 * 1024 * 1024,
        }
    }
}

/// One listener's server.
pub struct Server<I> {
    name: Arc<str>,
    profile: Arc<Profile>,
    limits: Arc<Limits>,
    intake: Arc<I>,
    admission: Arc<Admission>,
    refusals: Arc<Semaphore>,
    sessions: AtomicU64,
}

impl<I: Intake> Server<I> {
    /// A server for the listener called `name`.
    pub fn new(name: &str, profile: Profile, limits: Limits, intake: Arc<I>) -> Self {
        Self {
            name: name.into(),
            profile: Arc::new(profile),
            admission: Admission::new(limits.max_connections, limits.max_connections_per_client),
            limits: Arc::new(limits),
            intake,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            sessions: AtomicU64::new(1),
        }
    }

    /// Follows the number of its sessions while it serves.
    pub fn watch_sessions(&self) -> SessionWatch {
        SessionWatch::new(&self.admission)
    }

    /// Accepts until `stop`, then waits for the sessions to end: between commands they say 421, a message under way is
    /// finished. The caller bounds that wait by dropping this future, which cuts them.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = sessions.join_next() => self.reap(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut sessions, stream, peer, &stop),
                    Err(error) => self.accept_failed(&error, &stop).await,
                },
            }
        }
        drop(listener);
        while let Some(ended) = sessions.join_next().await {
            self.reap(ended);
        }
    }

    fn admit(&self, sessions: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
        match self.admission.admit(peer.ip()) {
            Ok(ticket) => {
                let connection = self.connection(stream, peer, stop.child_token());
                sessions.spawn(run(connection, ticket));
            }
            Err(full) => self.refuse(sessions, stream, peer, full),
        }
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) -> Connection<TcpStream, I> {
        // Without it a reply waits for the client's acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY was not set");
        }
        let client = Client::new(self.sessions.fetch_add(1, Ordering::Relaxed), Arc::clone(&self.name), peer);
        debug!(session = client.session, listener = %self.name, client = %client.peer, "session started");
        Connection::new(
            stream,
            client,
            Arc::clone(&self.profile),
            Arc::clone(&self.intake),
            Arc::clone(&self.limits),
            stop,
        )
    }

    fn refuse(&self, sessions: &mut JoinSet<()>, mut stream: TcpStream, peer: SocketAddr, full: Full) {
        debug!(listener = %self.name, client = %peer, ?full, "connection refused");
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let text = match full {
            Full::Listener => "Too many connections, try again later",
            Full::Client => "Too many connections from your address, try again later",
        };
        sessions.spawn(async move {
            let _permit = permit;
            let mut octets = Vec::new();
            Reply::new(421, (4, 7, 0), text).write_to(&mut octets);
            // Whoever does not take a refusal goes without one.
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, stream.write_all(&octets)).await;
        });
    }

    /// A failed accept concerns one connection or the whole process for a moment; neither is a reason to stop.
    async fn accept_failed(&self, error: &io::Error, stop: &CancellationToken) {
        // EMFILE and ENFILE: the same connection would fail again at once.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            warn!(listener = %self.name, %error, "out of file descriptors, accepting again shortly; raise LimitNOFILE if this lasts");
            let _ = tokio::time::timeout(EXHAUSTED_PAUSE, stop.cancelled()).await;
        } else if error.kind() == io::ErrorKind::ConnectionAborted {
            debug!(listener = %self.name, %error, "a connection was lost before it was accepted");
        } else {
            warn!(listener = %self.name, %error, "a connection could not be accepted, trying again shortly");
            let _ = tokio::time::timeout(EXHAUSTED_PAUSE, stop.cancelled()).await;
        }
    }

    fn reap(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            error!(listener = %self.name, %error, "a session ended by a fault of ours; the others go on. Please report this");
        }
    }
}

async fn run<I: Intake>(connection: Connection<TcpStream, I>, ticket: Ticket) {
    let _ticket = ticket;
    connection.run().await;
}
