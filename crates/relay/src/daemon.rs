//! The daemon: makes every room from the settings, joins them, and takes them down in order.
//!
//! It listens first and opens what is slow afterwards; clients hear 421 meanwhile. Stopping goes the other way round:
//! no new connections and claims, what is under way ends within the grace, then the queue is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clock::{Clock, WallTime};
use forwarder::Lane;
use mail::{LaneId, LaneSet};
use smtp_server::session::{Profile, Tls};
use smtp_server::{Limits, Server};
use spool::{OpenError, Recovered, Spool, SpoolOptions, SqliteSpool};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock_watch::ClockWatch;
use crate::config::{Authentication, Encryption, ListenAddress, Listener, Settings};
use crate::container::Gateways;
use crate::control::{Service, SocketError};
use crate::delivery::{Delivery, Road, give_up_held};
use crate::http;
use crate::intake::{ListenerIntake, ListenerPolicy, Logins, Rooms};
use crate::lanes::{Ground, Lanes, LanesError};
use crate::listener_certificate::{CertificateError, ListenerCertificate, ListenerCertificates};
use crate::recent::Recent;
use crate::reporting::Reporting;
use crate::requests::Requests;
use crate::retry::Plan;
use crate::routing::Routing;
use crate::sign_ins::SignIns;
use crate::status::{ListenerView, Opened, Overview};
use crate::systemd_sockets::{SystemdSocketError, SystemdSockets};
use crate::tls::Trust;
use crate::tokens::Tokens;
use crate::users::Users;

/// Octets of bodies in memory, all together; beyond that they go to files at once.
const MEMORY_BUDGET: u64 = 16 << 20;
/// How often the clock is looked at.
const CLOCK_LOOK: Duration = Duration::from_secs(30);
/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 1024;
/// How often failures that were gathered are told.
const DIGEST_EVERY: Duration = Duration::from_mins(15);
/// How often old history is forgotten.
const HOUSEKEEPING: Duration = Duration::from_hours(1);

/// Why the daemon did not start. One plain sentence each, with the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A listener's or the HTTP address.
    #[error("cannot listen on {address} ({what}): {}", remedy(.source, .what))]
    Listen {
        /// `listener.NAME` or `http`.
        what: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A listener's socket from systemd.
    #[error("listener.{listener}: {source}")]
    HandedOver {
        /// Its name.
        listener: String,
        /// Why.
        source: SystemdSocketError,
    },
    /// A listener's certificate or its key.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] SocketError),
    /// The state directory.
    #[error("{0}")]
    Spool(#[from] OpenError),
    /// What the lanes need.
    #[error("{0}")]
    Lanes(#[from] LanesError),
    /// A fault of ours.
    #[error("opening the queue ended by a fault of ours: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

fn remedy(error: &io::Error, what: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has this port; if that is another xoauth2-relay, `xoauth2-relay status` answers; else `ss -ltnp` shows which; stop it, or set {what}.address to another port"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "a port below 1024 needs CAP_NET_BIND_SERVICE; give it to the service or set {what}.address to a higher port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; set {what}.address to one that it has")
        }
        _ => error.to_string(),
    }
}

/// A running daemon.
pub(crate) struct Daemon {
    listeners: BTreeMap<String, SocketAddr>,
    spool: Arc<SqliteSpool>,
    /// Sessions and deliveries: what a stop waits for.
    road: JoinSet<()>,
    /// What a stop cuts.
    attendants: JoinSet<()>,
    /// Goes down last: a stop can be watched.
    control: Service,
    stop: CancellationToken,
    /// Tokens outlive the deliveries that need them.
    stop_tokens: CancellationToken,
    tokens: Vec<Arc<Tokens>>,
}

impl Daemon {
    /// Starts everything. When it returns, mail is taken and sent. `recent` is what `status` shows of the log, `handed`
    /// what systemd opened for the listeners that say so.
    pub(crate) async fn start(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        recent: Recent,
        handed: SystemdSockets,
    ) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let stop_tokens = CancellationToken::new();
        let rooms = Arc::new(OnceLock::new());
        let mut road = JoinSet::new();
        let mut attendants = JoinSet::new();
        let routing = Arc::new(Routing::new(settings));
        let certificates = ListenerCertificates::load(settings, clock.wall())?;
        let ground = Listening {
            settings,
            routing: &routing,
            certificates: &certificates,
            users: &Arc::new(Users::new(&settings.users)),
            gateways: Gateways::of_this_container(),
            clock: &clock,
            rooms: &rooms,
        };
        let views = listen(&ground, handed, &mut road, &stop)?;
        attendants.spawn(certificates.watch(Arc::clone(&clock)));
        let listeners = views.iter().map(|view| (view.name.clone(), view.address)).collect();
        if let Some(address) = settings.http.address.0 {
            let listener = bind("http", address)?;
            attendants.spawn(http::serve(listener, stop.clone()));
        }
        let hostname = settings.hostname.as_str().to_owned();
        let overview = Arc::new(Overview::new(hostname, views, recent, Arc::clone(&clock), stop.clone()));
        let sign_ins = Arc::new(OnceLock::new());
        let control = open_control(settings, &overview, &sign_ins, &clock).await?;
        let trust = tokio::task::spawn_blocking(Trust::of_this_machine).await?;
        let spool = open_spool(settings, Arc::clone(&clock)).await?;
        let plan = Plan::new(&settings.retry);
        bring_forward(&spool, plan.longest_wait(), clock.wall()).await;
        let ground = Ground { settings, trust: &trust, clock: &clock, stop_tokens: &stop_tokens };
        // Many small files may be read and written for it.
        let mut lanes = tokio::task::block_in_place(|| Lanes::open(&ground))?;
        lanes.remember(&*spool, &*clock).await;
        let stored = stored_lanes(&spool).await;
        let max_hold = settings.retry.max_hold.duration();
        let shared = Arc::new(Road {
            spool: Arc::clone(&spool),
            plan: plan.clone(),
            routing: Arc::clone(&routing),
            reporting: Reporting::new(settings),
            clock: Arc::clone(&clock),
        });
        let mut deliveries = Vec::new();
        for (id, view) in &mut lanes.views {
            view.queues = queues(id, &routing, &stored);
            let delivery = Delivery::new(
                Arc::clone(&shared),
                Arc::clone(&view.lane),
                view.queues.clone(),
                view.address.clone(),
                Arc::clone(&view.refused_senders),
            );
            attendants.spawn(sweep(Arc::clone(&view.lane)));
            road.spawn(Arc::clone(&delivery).run(stop.clone()));
            deliveries.push(delivery);
        }
        if !max_hold.is_zero() {
            attendants.spawn(give_up_held(deliveries, max_hold));
        }
        let hostname = settings.hostname.as_str().to_owned();
        let _ = rooms.set(Arc::new(Rooms { spool: Arc::clone(&spool), hostname, routing, clock: Arc::clone(&clock) }));
        let tokens = lanes.tokens.clone();
        let stranded = stranded(&stored, &lanes);
        let _ = sign_ins.set(SignIns::new(lanes.seats, Arc::clone(&clock)));
        overview.opened(Opened {
            spool: Arc::clone(&spool),
            max_messages: settings.spool.max_messages.get(),
            max_bytes: settings.spool.max_bytes.octets(),
            stranded,
            lanes: lanes.views.into_values().collect(),
            tokens: lanes.tokens,
        });
        attendants.spawn(send_digests(shared, stop.clone()));
        let keep = settings.history.keep.duration();
        attendants.spawn(keep_house(Arc::clone(&spool), plan.longest_wait(), keep, clock));
        Ok(Self { listeners, spool, road, attendants, control, stop, stop_tokens, tokens })
    }

    /// Where each listener listens.
    pub(crate) fn listeners(&self) -> &BTreeMap<String, SocketAddr> {
        &self.listeners
    }

    /// Resolves when a part has died that mail needs: the daemon must stop. Never resolves otherwise.
    pub(crate) async fn failed(&mut self) -> &'static str {
        tokio::select! {
            thread = self.spool.failed() => thread,
            // None of them ends before a stop.
            Some(_) = self.road.join_next() => "a listener or a delivery loop",
        }
    }

    /// Stops in order, what is under way within `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) {
        self.stop.cancel();
        let ended = timeout(grace, async { while self.road.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            warn!(
                grace_seconds = grace.as_secs(),
                "not all sessions and deliveries ended within the grace; they are cut, and what was in flight is marked"
            );
        }
        self.road.shutdown().await;
        self.stop_tokens.cancel();
        for tokens in &self.tokens {
            tokens.finished().await;
        }
        self.attendants.shutdown().await;
        self.spool.close().await;
        debug!("the queue is closed");
        self.control.stop().await;
    }
}

type SharedRooms = Arc<OnceLock<Arc<Rooms<SqliteSpool>>>>;

/// What listeners are made from.
struct Listening<'a> {
    settings: &'a Settings,
    routing: &'a Routing,
    certificates: &'a ListenerCertificates,
    users: &'a Arc<Users>,
    gateways: Gateways,
    clock: &'a Arc<dyn Clock>,
    rooms: &'a SharedRooms,
}

/// Binds every listener, then serves on them. The sockets of one listener, where systemd hands it several, share its limits.
fn listen(
    ground: &Listening<'_>,
    mut handed: SystemdSockets,
    road: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Vec<ListenerView>, StartError> {
    let mut bound = Vec::new();
    for (name, listener) in &ground.settings.listeners {
        bound.push((name, listener, sockets(name, &listener.address, &mut handed)?));
    }
    let mut views = Vec::new();
    for (name, listener, sockets) in bound {
        let server = server(ground, name, listener);
        for (socket, address) in sockets {
            info!(listener = %name, %address, "listening");
            views.push(ListenerView { name: name.clone(), address, sessions: server.watch_sessions() });
            road.spawn(server.clone().serve(socket, stop.clone()));
        }
    }
    for socket in handed.untaken() {
        warn!(
            %socket,
            "systemd handed over a socket that no listener names; who connects there is never answered. Write address = \
             \"systemd:{socket}\" in a listener, or take it out of the .socket unit"
        );
    }
    Ok(views)
}

/// The sockets of one listener, with where they are.
fn sockets(
    name: &str,
    address: &ListenAddress,
    handed: &mut SystemdSockets,
) -> Result<Vec<(TcpListener, SocketAddr)>, StartError> {
    let wanted = match address {
        ListenAddress::Socket(wanted) => *wanted,
        ListenAddress::Systemd(socket) => {
            let failed = |source| StartError::HandedOver { listener: name.to_owned(), source };
            let sockets = handed.take(socket).map_err(failed)?.into_iter().map(|socket| {
                let address = socket.local_addr()?;
                Ok((TcpListener::from_std(socket)?, address))
            });
            let sockets: io::Result<Vec<_>> = sockets.collect();
            return sockets.map_err(|error| failed(SystemdSocketError::of_system(socket, error)));
        }
    };
    let socket = bind(&format!("listener.{name}"), wanted)?;
    let address = socket.local_addr().unwrap_or(wanted);
    Ok(vec![(socket, address)])
}

/// Where the state directory is at fault, or another daemon has it, the queue's own words say it better.
async fn open_control(
    settings: &Settings,
    overview: &Arc<Overview>,
    sign_ins: &Arc<OnceLock<SignIns>>,
    clock: &Arc<dyn Clock>,
) -> Result<Service, StartError> {
    let path = settings.control_socket();
    let requests = Requests::new(Arc::clone(overview), Arc::clone(sign_ins));
    let error = match Service::start(&path, Arc::new(requests)).await {
        Ok(service) => return Ok(service),
        Err(error) => error,
    };
    let of_place = matches!(error, SocketError::Failed { .. } | SocketError::InUse { .. });
    if of_place && path.starts_with(settings.spool.directory.as_path()) {
        open_spool(settings, Arc::clone(clock)).await?.close().await;
    }
    Err(error.into())
}

fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if address.is_ipv6() {
            // `[::]` and `0.0.0.0` are two listeners that do not take each other's clients, whatever the machine's default.
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        // A restart need not wait for the last run's connections.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Listen { what: what.to_owned(), address, source })
}

fn server(ground: &Listening<'_>, name: &str, listener: &Listener) -> Server<ListenerIntake<SqliteSpool>> {
    let Listening { settings, routing, certificates, rooms, .. } = ground;
    let profile = Profile {
        hostname: settings.hostname.as_str().to_owned(),
        max_message_size: routing.largest_message(name, listener),
        max_recipients: listener.max_recipients.size(),
        dialect: listener.dialect.of_wire(),
        lf_only_clients: listener.lf_only_clients,
        authentication: listener.authentication.of_session(),
        cleartext_auth: listener.allow_cleartext_auth,
        tls: tls_of(listener.tls, certificates.of(name)),
    };
    let limits = Limits {
        max_connections: listener.max_connections.size(),
        max_connections_per_client: listener.max_connections_per_client.size(),
        ..Limits::default()
    };
    let policy = ListenerPolicy {
        networks: listener.networks.clone(),
        proxies: listener.proxy_protocol_from.clone(),
        gateways: ground.gateways,
        dialect: listener.dialect.of_wire(),
        received: listener.received,
        logins: match listener.authentication {
            Authentication::AcceptAny => Logins::Anybody,
            _ => Logins::Users(Arc::clone(ground.users)),
        },
    };
    let intake = ListenerIntake::new(policy, Arc::clone(ground.clock), Arc::clone(rooms));
    Server::new(name, profile, limits, Arc::new(intake))
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

async fn open_spool(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Arc<SqliteSpool>, StartError> {
    let options = SpoolOptions {
        directory: settings.spool.directory.as_path().to_owned(),
        max_messages: settings.spool.max_messages.get(),
        max_bytes: settings.spool.max_bytes.octets(),
        min_free_bytes: settings.spool.min_free_bytes.octets(),
        memory_budget: MEMORY_BUDGET,
    };
    let (spool, recovered) = tokio::task::spawn_blocking(move || SqliteSpool::open(options, clock)).await??;
    tell(&recovered);
    Ok(Arc::new(spool))
}

/// What waits in the queue at the start: what nobody looks for is not found.
fn tell(recovered: &Recovered) {
    let Recovered { boot, uncertain, counts } = recovered;
    info!(
        boot,
        messages = counts.messages,
        queued = counts.queued,
        held = counts.held,
        quarantined = counts.quarantined,
        "queue opened"
    );
    if *uncertain > 0 {
        warn!(
            deliveries = uncertain,
            "in flight when the last run was cut: upstream may have them; they are sent again"
        );
    }
    if counts.held + counts.quarantined > 0 {
        warn!(
            held = counts.held,
            quarantined = counts.quarantined,
            "the queue holds mail that does not go out by itself"
        );
    }
}

/// The sets of lanes that have mail, as of the start.
async fn stored_lanes(spool: &SqliteSpool) -> Vec<LaneSet> {
    spool.lanes().await.unwrap_or_else(|error| {
        warn!(%error, "the lanes of the queue cannot be listed");
        Vec::new()
    })
}

/// Whose mail goes by the lane `id`: what is for it alone, what its routes share among several, and what an earlier
/// configuration shared.
fn queues(id: &LaneId, routing: &Routing, stored: &[LaneSet]) -> Vec<LaneSet> {
    let shared = routing.lanes().chain(stored).filter(|lanes| lanes.contains(id));
    let queues: BTreeSet<_> = std::iter::once(LaneSet::from(id)).chain(shared.cloned()).collect();
    queues.into_iter().collect()
}

/// Mail of lanes that this configuration does not serve waits for them to come back (invariant 7); nobody would look for it.
fn stranded(stored: &[LaneSet], lanes: &Lanes) -> Vec<String> {
    let is_served = |set: &&LaneSet| set.lanes().any(|lane| lanes.views.contains_key(&lane));
    let stranded: Vec<_> = stored.iter().filter(|set| !is_served(set)).collect();
    for lane in &stranded {
        warn!(%lane, "mail waits for a login that no mailbox of this configuration has; it goes out once that mailbox is configured again");
    }
    stranded.iter().map(ToString::to_string).collect()
}

/// Failures that were gathered rather than told one by one.
async fn send_digests(road: Arc<Road<SqliteSpool>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        road.reporting.send_digests(&*road.spool, &*road.clock).await;
        sleep(DIGEST_EVERY).await;
    }
}

async fn sweep(lane: Arc<Lane<Tokens>>) {
    lane.sweep().await;
}

/// Follows the clock, and forgets history that is too old.
async fn keep_house(spool: Arc<SqliteSpool>, longest_wait: Duration, keep: Duration, clock: Arc<dyn Clock>) {
    let mut watch = ClockWatch::new(clock.wall(), clock.monotonic());
    let mut pruned = clock.monotonic();
    loop {
        sleep(CLOCK_LOOK).await;
        let now = clock.monotonic();
        if watch.was_set_back(clock.wall(), now) {
            warn!("the machine's clock was set back; what would be due too late is due now");
            bring_forward(&spool, longest_wait, clock.wall()).await;
        }
        if now.saturating_since(pruned) >= HOUSEKEEPING {
            pruned = now;
            forget_history(&spool, clock.wall() - keep).await;
        }
    }
}

/// What is due later than any wait could make it is due now.
async fn bring_forward(spool: &SqliteSpool, longest_wait: Duration, now: WallTime) {
    match spool.bring_forward(now + longest_wait, now).await {
        Ok(0) => {}
        Ok(deliveries) => warn!(deliveries, "mail was queued while the machine's clock ran ahead; it is due now"),
        Err(error) => warn!(%error, "due times could not be looked through"),
    }
}

async fn forget_history(spool: &SqliteSpool, before: WallTime) {
    loop {
        match spool.prune_history(before).await {
            Ok(0) => break,
            Ok(rows) => debug!(rows, "old history forgotten"),
            Err(error) => {
                debug!(%error, "old history could not be forgotten now");
                break;
            }
        }
    }
}
