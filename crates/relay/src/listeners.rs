//! Every TCP socket that we listen on: those of the listeners, each with its server, and that of HTTP.
//!
//! A configuration is prepared first, which binds what is new and may fail, and then taken up, which cannot fail. A socket whose
//! address stays is kept, whichever listener has it then; a listener that goes, or is called otherwise, stops at once: its sessions
//! finish the message that they are sending and hear 421, since no configuration says any more what they may do.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use clock::Clock;
use smtp_server::session::{Profile, Tls};
use smtp_server::{Gate, Limits, Server};
use spool::SqliteSpool;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Encryption, ListenAddress, Listener, Settings};
use crate::container::Gateways;
use crate::crew::Crew;
use crate::daemon::StartError;
use crate::http;
use crate::intake::{self, ListenerIntake, Rooms};
use crate::listener_certificate::{ListenerCertificate, ListenerCertificates};
use crate::reload::{self, Holder};
use crate::rules::Rules;
use crate::status::ListenerView;
use crate::systemd_sockets::{SystemdSocketError, SystemdSockets};
use crate::users::Users;

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 1024;

/// What listeners share once the queue is open.
pub(crate) type SharedRooms = Arc<OnceLock<Arc<Rooms<SqliteSpool>>>>;

/// All of them.
pub(crate) struct Listeners {
    rooms: SharedRooms,
    gateways: Gateways,
    clock: Arc<dyn Clock>,
    crew: Arc<Crew>,
    stop: CancellationToken,
    handed: Mutex<SystemdSockets>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By name.
    running: BTreeMap<String, Running>,
    /// Those that were taken away, by name; forgotten when their last session has ended.
    leaving: BTreeMap<String, Leaving>,
    http: Option<Http>,
}

struct Running {
    server: Server<ListenerIntake<SqliteSpool>>,
    sockets: Vec<Open>,
    /// Ends its sessions.
    stop: CancellationToken,
}

/// A listener that was taken away while sessions finish their messages: they count for one of the same name that comes back.
struct Leaving {
    server: Server<ListenerIntake<SqliteSpool>>,
    address: SocketAddr,
}

/// A socket that is listened on.
struct Open {
    /// As the configuration says it.
    wanted: ListenAddress,
    /// Where that is.
    address: SocketAddr,
    /// The same socket as the server's: another listener may take it over.
    listener: std::net::TcpListener,
    gate: Gate,
}

struct Http {
    wanted: SocketAddr,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What listeners are made from.
pub(crate) struct Terms<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) rules: &'a Rules,
    pub(crate) certificates: &'a ListenerCertificates,
    pub(crate) users: &'a Arc<Users>,
}

/// Why a socket cannot be had, with the key that asks for it.
pub(crate) struct Trouble {
    pub(crate) key: String,
    pub(crate) error: StartError,
}

/// The sockets of a configuration. Dropped, what was bound for it is closed.
pub(crate) struct Prepared {
    /// By the listener's name.
    listeners: BTreeMap<String, Vec<Socket>>,
    http: Option<(SocketAddr, Binding)>,
    unused: Vec<String>,
}

struct Socket {
    wanted: ListenAddress,
    address: SocketAddr,
    /// None where the listener has it already.
    fresh: Option<Fresh>,
}

/// A socket that a listener does not have yet. Both are made before anything changes: a full table of open files is a reason to
/// refuse.
struct Fresh {
    listener: std::net::TcpListener,
    /// The same, for the server.
    twin: TcpListener,
}

/// Where HTTP is to be.
enum Binding {
    Kept,
    New(TcpListener),
}

impl Listeners {
    /// None yet. Their tasks are `crew`'s, `handed` are the sockets of systemd.
    pub(crate) fn new(
        rooms: SharedRooms,
        clock: Arc<dyn Clock>,
        crew: Arc<Crew>,
        stop: CancellationToken,
        handed: SystemdSockets,
    ) -> Self {
        let gateways = Gateways::of_this_container();
        Self { rooms, gateways, clock, crew, stop, handed: Mutex::new(handed), state: Mutex::default() }
    }

    /// Binds what `settings` ask for and what is not there yet; nothing accepts meanwhile. Tells everything that cannot be had.
    pub(crate) fn prepare(&self, settings: &Settings) -> Result<Prepared, Vec<Trouble>> {
        let (state, mut handed) = (self.state(), self.handed.lock().unwrap_or_else(PoisonError::into_inner));
        let mut troubles = Vec::new();
        let mut listeners = BTreeMap::new();
        for (name, listener) in &settings.listeners {
            match state.sockets(name, &listener.address, &mut handed) {
                Ok(sockets) => drop(listeners.insert(name.clone(), sockets)),
                Err(error) => troubles.push(Trouble { key: format!("listener.{name}.address"), error }),
            }
        }
        let http = match settings.http.address.0 {
            None => None,
            Some(wanted) if state.http.as_ref().is_some_and(|http| http.wanted == wanted) => {
                Some((wanted, Binding::Kept))
            }
            Some(wanted) => {
                match state.bind("http", wanted, &mut handed).and_then(|socket| into_tokio("http", wanted, socket)) {
                    Ok(socket) => Some((wanted, Binding::New(socket))),
                    Err(error) => {
                        troubles.push(Trouble { key: "http.address".to_owned(), error });
                        None
                    }
                }
            }
        };
        if !troubles.is_empty() {
            return Err(troubles);
        }
        let used = settings.listeners.values().filter_map(|listener| match &listener.address {
            ListenAddress::Systemd(name) => Some(name.as_str()),
            ListenAddress::Socket(_) => None,
        });
        let used: Vec<_> = used.collect();
        Ok(Prepared { listeners, http, unused: handed.unused(&used) })
    }

    /// Takes up what was prepared. When it returns, what is new accepts and what is gone is closed.
    pub(crate) async fn take_up(&self, prepared: Prepared, terms: &Terms<'_>) {
        let Prepared { listeners, http, unused } = prepared;
        let closed = self.switch(listeners, terms);
        for open in closed {
            open.gate.close().await;
            info!(address = %open.address, "no longer listening here");
        }
        self.switch_http(http).await;
        for socket in unused {
            warn!(
                %socket,
                "systemd handed over a socket that no listener names; who connects there is never answered. Write address = \
                 \"systemd:{socket}\" in a listener, or take it out of the .socket unit"
            );
        }
    }

    /// Gives the sockets that are to be closed.
    fn switch(&self, listeners: BTreeMap<String, Vec<Socket>>, terms: &Terms<'_>) -> Vec<Open> {
        let mut state = self.state();
        state.forget_left();
        let mut before = std::mem::take(&mut state.running);
        let mut closed = Vec::new();
        for (name, sockets) in listeners {
            let Some(listener) = terms.settings.listeners.get(&name) else { continue };
            let (profile, limits) = offer(&name, listener, terms);
            let policy = intake::terms::policy(terms.settings, listener, terms.users, self.gateways);
            let (known, mut open, stop) = if let Some(Running { server, sockets, stop }) = before.remove(&name) {
                (Some(server), sockets, stop)
            } else {
                let left = state.leaving.remove(&name).map(|leaving| leaving.server);
                (left, Vec::new(), self.stop.child_token())
            };
            let server = if let Some(server) = known {
                server.intake().renew(policy);
                server.renew(profile, limits);
                server
            } else {
                let intake = ListenerIntake::new(policy, Arc::clone(&self.clock), Arc::clone(&self.rooms));
                Server::new(&name, profile, limits, Arc::new(intake))
            };
            let mut kept = Vec::new();
            for Socket { wanted, address, fresh } in sockets {
                if let Some(Fresh { listener, twin }) = fresh {
                    info!(listener = %name, %address, "listening");
                    let gate = Gate::new();
                    self.crew.spawn(server.clone().serve_through(&gate, twin, stop.clone()));
                    kept.push(Open { wanted, address, listener, gate });
                } else if let Some(at) = open.iter().position(|open| open.is(&wanted, address)) {
                    kept.push(open.remove(at));
                }
            }
            closed.append(&mut open);
            state.running.insert(name, Running { server, sockets: kept, stop });
        }
        for (name, Running { server, sockets, stop }) in before {
            stop.cancel();
            // One stands for all, so that its sessions are not counted twice.
            if let Some(Open { address, .. }) = sockets.first() {
                state.leaving.insert(name, Leaving { server, address: *address });
            }
            closed.extend(sockets);
        }
        closed
    }

    async fn switch_http(&self, http: Option<(SocketAddr, Binding)>) {
        let old = match http {
            Some((_, Binding::Kept)) => return,
            Some((wanted, Binding::New(socket))) => {
                let (stop, address) = (self.stop.child_token(), socket.local_addr().unwrap_or(wanted));
                let task = tokio::spawn(http::serve(socket, stop.clone()));
                self.state().http.replace(Http { wanted, address, stop, task })
            }
            None => self.state().http.take(),
        };
        if let Some(old) = old {
            old.stop.cancel();
            // Cut or ended, it is closed.
            let _ = old.task.await;
        }
    }

    /// Closes every socket, for a stop: who connects is refused rather than left waiting. Servers close theirs by themselves.
    pub(crate) fn close(&self) {
        for running in self.state().running.values_mut() {
            running.sockets.clear();
        }
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = SystemdSockets::none();
    }

    /// All that listen, a line for each socket, and those that were taken away and have sessions.
    pub(crate) fn views(&self) -> Vec<ListenerView> {
        let mut state = self.state();
        state.forget_left();
        let running = state.running.iter().flat_map(|(name, running)| {
            running.sockets.iter().map(|open| ListenerView {
                name: name.clone(),
                address: open.address,
                sessions: running.server.watch_sessions(),
                is_closed: false,
            })
        });
        let leaving = state.leaving.iter().map(|(name, leaving)| ListenerView {
            name: name.clone(),
            address: leaving.address,
            sessions: leaving.server.watch_sessions(),
            is_closed: true,
        });
        running.chain(leaving).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic runs between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets who was taken away and has no session any more.
    fn forget_left(&mut self) {
        self.leaving.retain(|_, leaving| leaving.server.watch_sessions().counts().open > 0);
    }

    /// The sockets of the listener `name`: those that are there under this address, or new ones.
    fn sockets(
        &self,
        name: &str,
        wanted: &ListenAddress,
        handed: &mut SystemdSockets,
    ) -> Result<Vec<Socket>, StartError> {
        let what = format!("listener.{name}");
        let address = match wanted {
            ListenAddress::Socket(address) => *address,
            ListenAddress::Systemd(socket) => {
                let failed = |source| StartError::HandedOver { listener: name.to_owned(), source };
                let sockets = handed.take(socket).map_err(failed)?.into_iter().map(|socket| {
                    let address = socket.local_addr()?;
                    let fresh = if self.has(name, wanted, address) { None } else { Some(Fresh::of(socket)?) };
                    Ok(Socket { wanted: wanted.clone(), address, fresh })
                });
                let sockets: io::Result<Vec<_>> = sockets.collect();
                return sockets.map_err(|error| failed(SystemdSocketError::of_system(socket, error)));
            }
        };
        // Port 0 is any port: it is the listener's own.
        let is_it =
            |(owner, open): &(&String, &Open)| open.wanted == *wanted && (address.port() != 0 || *owner == name);
        let mut all =
            self.running.iter().flat_map(|(owner, running)| running.sockets.iter().map(move |open| (owner, open)));
        let failed = |source| StartError::Listen { what: what.clone(), address, source };
        let (address, fresh) = match all.find(is_it) {
            Some((owner, open)) if owner == name => (open.address, None),
            Some((_, open)) => (open.address, Some(open.listener.try_clone().and_then(Fresh::of).map_err(failed)?)),
            None => {
                let socket = self.bind(&what, address, handed)?;
                let bound = socket.local_addr().unwrap_or(address);
                (bound, Some(Fresh::of(socket).map_err(failed)?))
            }
        };
        Ok(vec![Socket { wanted: wanted.clone(), address, fresh }])
    }

    /// Whether the listener `name` listens there already.
    fn has(&self, name: &str, wanted: &ListenAddress, address: SocketAddr) -> bool {
        self.running.get(name).is_some_and(|running| running.sockets.iter().any(|open| open.is(wanted, address)))
    }

    /// Binds for `what`; refused where it would need a place that one of ours has still.
    fn bind(
        &self,
        what: &str,
        address: SocketAddr,
        handed: &mut SystemdSockets,
    ) -> Result<std::net::TcpListener, StartError> {
        let handed = handed.addresses().into_iter().map(|(name, address)| (Holder::HandedOver(name), address));
        let listeners = self.running.iter().flat_map(|(name, running)| {
            let own = running.sockets.iter().filter(|open| open.wanted.socket().is_some());
            own.map(move |open| (Holder::Ours(format!("listener {name}")), open.address))
        });
        let http = self.http.iter().map(|http| (Holder::Ours("http".to_owned()), http.address));
        let taken: Vec<_> = handed.chain(listeners).chain(http).collect();
        match reload::overlaps(address, &taken) {
            Some(text) => Err(StartError::Overlap { what: what.to_owned(), text }),
            None => bind(address).map_err(|source| StartError::Listen { what: what.to_owned(), address, source }),
        }
    }
}

impl Open {
    fn is(&self, wanted: &ListenAddress, address: SocketAddr) -> bool {
        self.wanted == *wanted && self.address == address
    }
}

impl Fresh {
    fn of(listener: std::net::TcpListener) -> io::Result<Self> {
        let twin = TcpListener::from_std(listener.try_clone()?)?;
        Ok(Self { listener, twin })
    }
}

fn into_tokio(what: &str, address: SocketAddr, socket: std::net::TcpListener) -> Result<TcpListener, StartError> {
    TcpListener::from_std(socket).map_err(|source| StartError::Listen { what: what.to_owned(), address, source })
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two listeners that do not take each other's clients, whatever the machine's default.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // A restart need not wait for the last run's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// What a session of the listener begins with.
fn offer(name: &str, listener: &Listener, terms: &Terms<'_>) -> (Profile, Limits) {
    let largest = terms.rules.routing.largest_message(name, listener);
    let tls = tls_of(listener.tls, terms.certificates.of(name));
    let profile = intake::terms::profile(terms.settings.hostname.as_str(), listener, largest, tls);
    let limits = Limits {
        max_connections: listener.max_connections.size(),
        max_connections_per_client: listener.max_connections_per_client.size(),
        ..Limits::default()
    };
    (profile, limits)
}

fn tls_of(encryption: Encryption, certificate: Option<&Arc<ListenerCertificate>>) -> Tls {
    let config = || certificate.expect("TLS without a certificate is refused with the configuration").server_config();
    match encryption {
        Encryption::None => Tls::None,
        Encryption::StartTls => Tls::StartTls(config()),
        Encryption::RequireStartTls => Tls::RequireStartTls(config()),
        Encryption::Implicit => Tls::Implicit(config()),
    }
}
