//! Accepts connections on one listener and runs a session for each, until told to stop.
//!
//! It always accepts: whoever gets no session hears a 421 and why. It pauses only when the process is out of
//! descriptors, and never ends by itself. Profile and limits can be renewed while it serves: a session keeps those that
//! it began with.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use wire::{ProxyHeader, ProxyProgress, Reply};

use crate::admission::{Admission, Full, SessionWatch, Ticket};
use crate::client::Client;
use crate::connection::{Connection, Terms};
use crate::holding::Holding;
use crate::intake::Intake;
use crate::notice::Notice;
use crate::progress::Pace;
use crate::session::{Profile, Tls};

/// Refusals told at the same time; beyond that connections are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long a refusal may take to be told.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the process ran out of descriptors or memory: long enough for sessions to end, short for a client that waits.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// The same trouble of accepting is told no more often.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Longest wait for a load balancer's PROXY header, which it sends with its first packet.
const PROXY_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of a client that was refused before its banner that are read, for how long at most: octets left unread when a
/// socket closes become a reset, and a reset can take the refusal away.
const REFUSAL_OCTETS: u64 = 4096;
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Bounds of the sessions of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions at the same time.
    pub max_connections: usize,
    /// Sessions of one client address at the same time. One that connects faster than these could ever be worked off waits
    /// for its banner.
    pub max_connections_per_client: usize,
    /// Longest wait for a whole command and for a reply to be taken (RFC 5321 section 4.5.3.2.7: five minutes).
    pub command_timeout: Duration,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// What keeps a message alive while it comes.
    pub body_pace: Pace,
    /// The same for a message that is carried while its client waits.
    pub live_pace: Pace,
    /// What the client of such a message may take for itself before it comes.
    pub holding: Holding,
    /// Octets read of a message that is already refused, at least; the client is cut off beyond.
    pub max_refused_octets: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1000,
            max_connections_per_client: 50,
            command_timeout: Duration::from_mins(5),
            handshake_timeout: Duration::from_mins(1),
            body_pace: Pace::default(),
            live_pace: Pace::live(),
            holding: Holding::default(),
            max_refused_octets: 512 * 1024 * 1024,
        }
    }
}

/// One listener's server. Clones share its sessions and their bounds, so that a listener may have several sockets.
#[derive(Debug)]
pub struct Server<I>(Arc<Shared<I>>);

impl<I> Clone for Server<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What a session is given when it begins.
#[derive(Clone, Debug)]
struct Offer {
    profile: Arc<Profile>,
    limits: Arc<Limits>,
}

/// Stops one socket of a server from accepting, while its sessions go on.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    close: CancellationToken,
    /// The socket is closed.
    shut: CancellationToken,
}

impl Gate {
    /// An open one, for one socket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops accepting, and waits until the socket is closed: a moment. Needs a server that serves through it.
    pub async fn close(&self) {
        self.close.cancel();
        self.shut.cancelled().await;
    }
}

#[derive(Debug)]
struct Shared<I> {
    name: Arc<str>,
    /// For sessions that begin now.
    offer: RwLock<Offer>,
    intake: Arc<I>,
    admission: Arc<Admission>,
    refusals: Arc<Semaphore>,
    sessions: AtomicU64,
    /// The last trouble of accepting that was told, and when.
    told: Mutex<Option<(Option<i32>, Instant)>>,
}

impl<I: Intake> Server<I> {
    /// A server for the listener called `name`.
    pub fn new(name: &str, profile: Profile, limits: Limits, intake: Arc<I>) -> Self {
        Self(Arc::new(Shared {
            name: name.into(),
            admission: Admission::new(limits.max_connections, limits.max_connections_per_client),
            offer: RwLock::new(Offer { profile: Arc::new(profile), limits: Arc::new(limits) }),
            intake,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            sessions: AtomicU64::new(1),
            told: Mutex::default(),
        }))
    }

    /// Follows the number of its sessions while it serves.
    pub fn watch_sessions(&self) -> SessionWatch {
        SessionWatch::new(&self.0.admission)
    }

    /// Gives sessions that begin from now on another profile and other limits. Those under way keep theirs; they count
    /// against the new bounds, and none is ended for being one too many.
    pub fn renew(&self, profile: Profile, limits: Limits) {
        self.0.admission.set_bounds(limits.max_connections, limits.max_connections_per_client);
        let offer = Offer { profile: Arc::new(profile), limits: Arc::new(limits) };
        *self.0.offer.write().unwrap_or_else(PoisonError::into_inner) = offer;
    }

    /// Who decides over its mail.
    pub fn intake(&self) -> &Arc<I> {
        &self.0.intake
    }

    /// Accepts until `stop`, then waits for the sessions to end: between commands they say 421, a message under way is
    /// finished. The caller bounds that wait by dropping this future, which cuts them.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        self.serve_through(&Gate::new(), listener, stop).await;
    }

    /// The same until `gate` is closed, too: then the socket is closed and the sessions go on to their own end, or until
    /// `stop`.
    pub fn serve_through(
        self,
        gate: &Gate,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<I> {
        // Even if this future is never run: whoever closes the gate must not wait for ever.
        let shut = gate.shut.clone().drop_guard();
        let close = gate.close.clone();
        async move {
            let mut sessions = JoinSet::new();
            self.accept(&listener, &mut sessions, &close, &stop).await;
            drop(listener);
            drop(shut);
            while let Some(ended) = sessions.join_next().await {
                self.reap(ended);
            }
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        sessions: &mut JoinSet<()>,
        close: &CancellationToken,
        stop: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = close.cancelled() => break,
                Some(ended) = sessions.join_next() => self.reap(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.accepted(sessions, stream, peer, stop),
                    Err(error) => self.accept_failed(&error, stop).await,
                },
            }
        }
    }

    fn accepted(&self, sessions: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
        // Without it a reply waits for the client's acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY was not set");
        }
        let shared = Arc::clone(&self.0);
        let client = Client::new(shared.sessions.fetch_add(1, Ordering::Relaxed), Arc::clone(&shared.name), peer);
        let is_proxy = shared.intake.is_proxy(client.address());
        let entered = if is_proxy { shared.admission.admit_unnamed().map_err(refusal) } else { shared.enter(&client) };
        let stop = stop.child_token();
        match entered {
            Ok(ticket) if is_proxy => {
                sessions.spawn(async move { shared.behind_proxy(stream, client, ticket, stop).await });
            }
            Ok(ticket) => {
                sessions.spawn(async move { shared.session(stream, client, ticket, stop).await });
            }
            Err(refusal) => {
                let Ok(permit) = Arc::clone(&shared.refusals).try_acquire_owned() else { return };
                sessions.spawn(async move {
                    let _permit = permit;
                    shared.refuse(stream, &client, &refusal).await;
                });
            }
        }
    }

    /// A failed accept concerns one connection or the whole process for a moment; neither is a reason to stop.
    async fn accept_failed(&self, error: &io::Error, stop: &CancellationToken) {
        // EMFILE and ENFILE: the same connection would fail again at once.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            if self.0.is_to_be_told(error.raw_os_error()) {
                warn!(listener = %self.0.name, %error, "out of file descriptors, accepting again shortly; raise LimitNOFILE if this lasts");
            }
            let _ = tokio::time::timeout(EXHAUSTED_PAUSE, stop.cancelled()).await;
        } else if error.kind() == io::ErrorKind::ConnectionAborted {
            debug!(listener = %self.0.name, %error, "a connection was lost before it was accepted");
        } else {
            if self.0.is_to_be_told(error.raw_os_error()) {
                warn!(listener = %self.0.name, %error, "a connection could not be accepted, trying again shortly");
            }
            let _ = tokio::time::timeout(EXHAUSTED_PAUSE, stop.cancelled()).await;
        }
    }

    fn reap(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            error!(listener = %self.0.name, %error, "a session ended by a fault of ours; the others go on. Please report this");
        }
    }
}

impl<I: Intake> Shared<I> {
    /// Whether this trouble of accepting was not told within the last minute.
    fn is_to_be_told(&self, code: Option<i32>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.is_none_or(|(last, at)| last != code || at.elapsed() >= TELL_EVERY);
        if is_new {
            *told = Some((code, Instant::now()));
        }
        is_new
    }

    fn offer(&self) -> Offer {
        // Nothing runs under this lock that may panic.
        self.offer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A place for a session of this client, or why there is none.
    fn enter(&self, client: &Client) -> Result<Ticket, Reply> {
        self.intake.connect(client)?;
        self.admission.admit(client.address()).map_err(refusal)
    }

    async fn session(&self, stream: TcpStream, client: Client, ticket: Ticket, stop: CancellationToken) {
        let _ticket = ticket;
        let wait = self.admission.pace(client.address(), Instant::now().into_std());
        if !wait.is_zero() {
            self.intake.noticed(&client, &Notice::Paced(wait));
            if timeout(wait, stop.cancelled()).await.is_ok() {
                let farewell = Reply::new(421, (4, 3, 2), "Shutting down, try again shortly");
                return self.refuse(stream, &client, &farewell).await;
            }
        }
        debug!(session = client.session, listener = %self.name, client = %client.peer, "session started");
        self.intake.noticed(&client, &Notice::Connected);
        let Offer { profile, limits } = self.offer();
        let terms = Terms { profile, intake: Arc::clone(&self.intake), limits };
        Connection::new(stream, client, terms, stop).run().await;
    }

    /// A load balancer's connection: its header says who the client is, and only then is asked whether that one may come.
    async fn behind_proxy(&self, mut stream: TcpStream, mut client: Client, ticket: Ticket, stop: CancellationToken) {
        let header = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            header = timeout(PROXY_TIMEOUT, read_proxy_header(&mut stream)) => header,
        };
        match header.unwrap_or_else(|_elapsed| Err(NoHeader::Wrong("it did not come in time".to_owned()))) {
            // Loopback networks are this machine's: no other speaks for it.
            Ok(Some(source)) if source.ip().to_canonical().is_loopback() && !client.address().is_loopback() => {
                let text = "it names this machine's own address as the client's";
                return self.intake.noticed(&client, &Notice::ProxyHeaderMissing(text));
            }
            Ok(Some(source)) => client.named_by_proxy(source),
            Ok(None) => {}
            // A load balancer looks whether the port is open.
            Err(NoHeader::NoWord) => return,
            Err(NoHeader::Wrong(text)) => return self.intake.noticed(&client, &Notice::ProxyHeaderMissing(&text)),
        }
        let entered = self.intake.connect(&client).and_then(|()| ticket.name(client.address()).map_err(refusal));
        match entered {
            Ok(ticket) => self.session(stream, client, ticket, stop).await,
            Err(refusal) => self.refuse(stream, &client, &refusal).await,
        }
    }

    /// Tells a client in place of the banner why it gets no session. Where it would have to be told through TLS it is not: a
    /// stranger costs no handshake.
    async fn refuse(&self, mut stream: TcpStream, client: &Client, refusal: &Reply) {
        debug!(listener = %self.name, client = %client.peer, %refusal, "connection refused");
        if matches!(self.offer().profile.tls, Tls::Implicit(_)) {
            return;
        }
        let mut octets = Vec::new();
        refusal.write_to(&mut octets);
        // Whoever does not take a refusal goes without one.
        let told = timeout(REFUSAL_TIMEOUT, async {
            stream.write_all(&octets).await?;
            stream.shutdown().await
        });
        // Strangers are not waited for: they would keep the words from those who are over a limit for a moment.
        if let Ok(Ok(())) = told.await
            && refusal.code() == 421
        {
            let mut rest = stream.take(REFUSAL_OCTETS);
            let _ = timeout(REFUSAL_LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        }
    }
}

fn refusal(full: Full) -> Reply {
    let text = match full {
        Full::Listener => "Too many connections, try again later",
        Full::Client => "Too many connections from your address, try again later",
    };
    Reply::new(421, (4, 7, 0), text)
}

/// Why a load balancer's connection has no header.
enum NoHeader {
    /// It was closed without a word.
    NoWord,
    /// This is wrong with it.
    Wrong(String),
}

/// The client that a load balancer speaks for, none if it speaks for itself. Reads no octet beyond the header: what follows is
/// the client's, and perhaps the first of its TLS.
async fn read_proxy_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, NoHeader> {
    let mut input = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(octet) => input.push(octet),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(NoHeader::Wrong(error.to_string()));
            }
            Err(_) if input.is_empty() => return Err(NoHeader::NoWord),
            Err(_) => return Err(NoHeader::Wrong("the connection was closed within it".to_owned())),
        }
        match ProxyHeader::read(&input) {
            ProxyProgress::Incomplete => {}
            ProxyProgress::Done { source, .. } => return Ok(source),
            ProxyProgress::Refused(error) => return Err(NoHeader::Wrong(error.to_string())),
        }
    }
}
