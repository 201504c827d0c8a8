//! The daemon: makes every room from the settings, joins them, and takes them down in order.
//!
//! It listens first and opens what is slow afterwards; clients hear 421 meanwhile. Stopping goes the other way round:
//! no new connections and claims, what is under way ends within the grace, then the queue is closed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clock::Clock;
use mail::LaneSet;
use spool::Spool;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Configuration, Mistakes, Settings, USUAL_DIRECTORY};
use crate::control::{Service, SocketError};
use crate::crew::Crew;
use crate::current::Current;
use crate::direct::Direct;
use crate::intake::{Paces, Rooms};
use crate::lanes::{Lanes, LanesError, Means, Plan};
use crate::listener_certificate::{CertificateError, ListenerCertificates};
use crate::listeners::{Listeners, Prepared, SharedRooms, Terms, Trouble};
use crate::logging::Threshold;
use crate::recent::Recent;
use crate::registration::{self, Ledgers};
use crate::reload::{self, Mistake, Outcome};
use crate::requests::Requests;
use crate::rules::Rules;
use crate::sign_ins::SignIns;
use crate::status::{Opened, Overview};
use crate::store::{Common, Store, StoreOpenError, open_spool, tell_left_behind};
use crate::systemd_sockets::{SystemdSocketError, SystemdSockets};
use crate::tls::Trust;
use crate::users::Users;

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
    /// The same, where one of our own is in the way.
    #[error("{text}")]
    Overlap {
        /// `listener.NAME` or `http`.
        what: String,
        /// Which, and the remedy.
        text: String,
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
    Store(#[from] StoreOpenError),
    /// What the lanes need.
    #[error("{0}")]
    Lanes(#[from] LanesError),
    /// A fault of ours.
    #[error("the start ended by a fault of ours: {0}")]
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

/// Where a daemon's configuration is read again.
pub(crate) struct Source {
    /// The same file and environment as at the start. Blocks.
    pub(crate) read: Arc<dyn Fn() -> Result<Configuration, Mistakes> + Send + Sync>,
    /// How much is logged.
    pub(crate) threshold: Threshold,
}

/// What a daemon finds when it starts.
pub(crate) struct Surroundings {
    /// What `status` shows of the log.
    pub(crate) recent: Recent,
    /// What systemd opened for the listeners that say so.
    pub(crate) handed: SystemdSockets,
    /// None where there is no file to read again.
    pub(crate) source: Option<Source>,
}

/// A running daemon.
pub(crate) struct Daemon {
    inner: Arc<Inner>,
    /// Goes down last: a stop can be watched. None where commands have no place to find it.
    control: Option<Service>,
}

/// What runs, and what a reload changes of it.
struct Inner {
    source: Option<Source>,
    clock: Arc<dyn Clock>,
    /// What is in effect.
    settings: watch::Sender<Arc<Settings>>,
    rules: Arc<Current<Rules>>,
    users: Current<Arc<Users>>,
    certificates: Current<Arc<ListenerCertificates>>,
    listeners: Arc<Listeners>,
    lanes: Arc<Lanes>,
    sign_ins: Arc<OnceLock<SignIns>>,
    /// None where nothing is stored.
    store: Option<Store>,
    /// Sessions and deliveries: what a stop waits for.
    crew: Arc<Crew>,
    /// What a stop cuts.
    attendants: Mutex<JoinSet<()>>,
    /// The one of them that follows the certificates' files.
    watching: Mutex<Option<AbortHandle>>,
    stop: CancellationToken,
    /// Tokens outlive the deliveries that need them.
    stop_tokens: CancellationToken,
    /// One at a time; a stop waits for it.
    reloading: tokio::sync::Mutex<()>,
}

/// Lets a daemon take up its configuration anew; clones reload the same.
#[derive(Clone)]
pub(crate) struct Reloader(Arc<Inner>);

/// Why there was no reload at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotReload {
    /// The sandbox's.
    #[error("this relay has no configuration file to read again")]
    NoSource,
    /// It ends anyway.
    #[error("the daemon is stopping")]
    Stopping,
    /// A fault of ours.
    #[error("the reload ended by a fault of ours: {0}; restart the daemon to be sure of what is in effect")]
    Fault(#[from] tokio::task::JoinError),
}

impl Reloader {
    /// Takes up the configuration as it is now, whole or not at all; waits for a reload that is under way. `who` asked for it.
    /// Runs to its end when the caller does not wait.
    pub(crate) async fn reload(&self, who: &str) -> Result<Outcome, CannotReload> {
        let (inner, who) = (Arc::clone(&self.0), who.to_owned());
        tokio::spawn(async move { inner.reload(&who).await }).await?
    }
}

impl Daemon {
    /// Starts everything. When it returns, mail is taken and sent.
    pub(crate) async fn start(
        settings: Settings,
        clock: Arc<dyn Clock>,
        surroundings: Surroundings,
    ) -> Result<Self, StartError> {
        let Surroundings { recent, handed, source } = surroundings;
        let (stop, stop_tokens) = (CancellationToken::new(), CancellationToken::new());
        let crew = Arc::new(Crew::new());
        let rooms = SharedRooms::default();
        let mut attendants = JoinSet::new();
        let rules = Arc::new(Current::new(Rules::new(&settings)));
        let certificates = Arc::new(ListenerCertificates::load(&settings)?);
        certificates.announce(&ListenerCertificates::default(), clock.wall());
        let users = Arc::new(Users::new(&settings.users));
        let listeners =
            Arc::new(Listeners::new(Arc::clone(&rooms), Arc::clone(&clock), Arc::clone(&crew), stop.clone(), handed));
        let prepared = listeners.prepare(&settings).map_err(first)?;
        let terms = Terms { settings: &settings, rules: &rules.get(), certificates: &certificates, users: &users };
        listeners.take_up(prepared, &terms).await;
        let watching = attendants.spawn(Arc::clone(&certificates).watch(Arc::clone(&clock)));
        let in_effect = watch::Sender::new(Arc::new(settings));
        let settings = Arc::clone(&in_effect.borrow());
        let overview =
            Overview::new(in_effect.subscribe(), Arc::clone(&listeners), recent, Arc::clone(&clock), stop.clone());
        let overview = Arc::new(overview);
        let (sign_ins, reloader) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let opened_road = Arc::new(OnceLock::new());
        let requests = Requests::new(
            Arc::clone(&overview),
            Arc::clone(&sign_ins),
            Arc::clone(&reloader),
            Arc::clone(&opened_road),
        );
        let control = open_control(&settings, requests, &clock).await?;
        let trust = tokio::task::spawn_blocking(Trust::of_this_machine).await?;
        let common = Common {
            rules: Arc::clone(&rules),
            unknown: Arc::default(),
            wanted: Arc::default(),
            clock: Arc::clone(&clock),
        };
        let store = if let Some(directory) = settings.state_directory() {
            Some(Store::open(directory, &settings, common.clone()).await?)
        } else {
            info!("this relay has no state directory: every listener is direct, and nothing is stored");
            tell_left_behind(USUAL_DIRECTORY).await;
            None
        };
        let road = store.as_ref().map(|store| Arc::clone(store.road()));
        let lanes = Lanes::new(Means {
            road: road.clone(),
            unknown: Arc::clone(&common.unknown),
            wanted: Arc::clone(&common.wanted),
            ledgers: Arc::new(Ledgers::new(settings.state_directory())),
            trust,
            crew: Arc::clone(&crew),
            clock: Arc::clone(&clock),
            stop: stop.clone(),
            stop_tokens: stop_tokens.clone(),
        });
        let plan = tokio::task::block_in_place(|| lanes.plan(&settings));
        let plan = plan.map_err(|errors| errors.into_iter().next().expect("what cannot be planned has a reason").1)?;
        let stored = stored_lanes(store.as_ref()).await;
        let seats = lanes.follow(plan, &rules.get().routing, &stored).await;
        let spool = store.as_ref().map(|store| Arc::clone(store.spool()));
        let _ = rooms.set(Arc::new(Rooms {
            spool: spool.clone(),
            direct: Some(Direct::new(Arc::clone(&lanes), spool.clone(), Arc::clone(&clock), stop.clone())),
            rules: Arc::clone(&rules),
            unknown: common.unknown,
            wanted: common.wanted,
            clock: Arc::clone(&clock),
            paces: Paces::default(),
        }));
        let _ = opened_road.set(road);
        let _ = sign_ins.set(SignIns::new(seats, Arc::clone(&clock)));
        overview.opened(Opened { spool, lanes: Arc::clone(&lanes) });
        attendants.spawn(Arc::clone(&lanes).keep_wildcards());
        if let Some(store) = &store {
            store.attend(&mut attendants, &lanes, &in_effect, stop.clone());
        }
        let inner = Arc::new(Inner {
            source,
            clock,
            settings: in_effect,
            rules,
            users: Current::new(users),
            certificates: Current::new(certificates),
            listeners,
            lanes,
            sign_ins,
            store,
            crew,
            attendants: Mutex::new(attendants),
            watching: Mutex::new(Some(watching)),
            stop,
            stop_tokens,
            reloading: tokio::sync::Mutex::default(),
        });
        let _ = reloader.set(Reloader(Arc::clone(&inner)));
        Ok(Self { inner, control })
    }

    /// What is in effect now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.borrow())
    }

    /// Lets it take up its configuration anew.
    pub(crate) fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.inner))
    }

    /// Where each listener listens.
    pub(crate) fn listeners(&self) -> BTreeMap<String, SocketAddr> {
        self.inner.listeners.views().into_iter().map(|view| (view.name, view.address)).collect()
    }

    /// Resolves when a part has died that mail needs: the daemon must stop. Never resolves otherwise.
    pub(crate) async fn failed(&self) -> &'static str {
        let store = async {
            match &self.inner.store {
                Some(store) => store.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            thread = store => thread,
            () = self.inner.crew.failed() => "a listener or a delivery loop",
        }
    }

    /// Stops in order, what is under way within `grace`.
    pub(crate) async fn stop(self, grace: Duration) {
        let Self { inner, control } = self;
        let until = Instant::now() + grace;
        inner.stop.cancel();
        // What a reload has begun to change is changed to its end; it takes moments, and none begins any more.
        let _ = timeout(grace, inner.reloading.lock()).await;
        inner.listeners.close();
        let left = until.saturating_duration_since(Instant::now());
        if !inner.crew.finish(left).await {
            warn!(
                grace_seconds = grace.as_secs(),
                "not all sessions and deliveries ended within the grace; they are cut, and what was in flight is marked"
            );
        }
        inner.stop_tokens.cancel();
        for tokens in inner.lanes.all_tokens() {
            tokens.finished().await;
        }
        let mut attendants = std::mem::take(&mut *inner.attendants());
        attendants.shutdown().await;
        if let Some(store) = &inner.store {
            store.close().await;
        }
        if let Some(control) = control {
            control.stop().await;
        }
    }
}

/// What a configuration needs and may not get: all of it, before anything changes.
struct Ready {
    settings: Settings,
    rules: Rules,
    users: Arc<Users>,
    certificates: Arc<ListenerCertificates>,
    sockets: Prepared,
    plan: Plan,
}

impl Inner {
    async fn reload(&self, who: &str) -> Result<Outcome, CannotReload> {
        let source = self.source.as_ref().ok_or(CannotReload::NoSource)?;
        let _one = self.reloading.lock().await;
        if self.stop.is_cancelled() {
            return Err(CannotReload::Stopping);
        }
        let read = Arc::clone(&source.read);
        let configuration = match tokio::task::spawn_blocking(move || read()).await? {
            Ok(configuration) => configuration,
            Err(mistakes) => return Ok(refused(who, Mistake::of_reading(&mistakes))),
        };
        let old = Arc::clone(&self.settings.borrow());
        let mut changes = reload::changes(&old, &configuration.settings);
        let unchangeable = reload::unchangeable(&old, &configuration.settings, &changes);
        let prepared = tokio::task::block_in_place(|| self.prepare(&configuration.settings, unchangeable));
        let ready = match prepared {
            Ok(ready) => ready,
            Err(mistakes) => {
                let mistakes = mistakes.into_iter().map(|mistake| mistake.placed(&configuration)).collect();
                return Ok(refused(who, mistakes));
            }
        };
        let stored = stored_lanes(self.store.as_ref()).await;
        if self.stop.is_cancelled() {
            return Err(CannotReload::Stopping);
        }
        let (before, after) = (tracing::Level::from(old.log.level), tracing::Level::from(ready.settings.log.level));
        // What is said of this reload is said at the more telling of both.
        source.threshold.set(before.max(after));
        changes.extend(self.take_up(ready, &stored).await);
        if changes.is_empty() {
            info!(who, "reloaded, nothing changed");
        } else {
            info!(who, changes = changes.len(), changed = reload::in_a_line(&changes), "configuration reloaded");
        }
        source.threshold.set(after);
        Ok(Outcome { reloaded: true, changes, mistakes: Vec::new() })
    }

    /// Everything that may fail. Reads files and binds sockets.
    fn prepare(&self, settings: &Settings, unchangeable: Vec<Mistake>) -> Result<Ready, Vec<Mistake>> {
        let mut mistakes = unchangeable;
        if !mistakes.is_empty() {
            // What follows makes the vault's directory, and that of another spool is not to be made.
            return Err(mistakes);
        }
        let certificates = self.certificates.get().renewed(settings);
        let certificates = certificates.map_err(|errors| mistakes.extend(of_keys(errors)));
        let plan = self.lanes.plan(settings);
        let plan = plan.map_err(|errors| mistakes.extend(of_keys(errors)));
        if let Ok(plan) = &plan {
            // A start goes on without: it has nothing better. Where something runs, that is kept.
            let fresh = plan.fresh().iter().filter_map(|name| Some((name, settings.tenants.get(name)?)));
            mistakes.extend(of_keys(fresh.flat_map(|(name, tenant)| registration::unusable(name, tenant))));
        }
        // Nobody is to knock at a door that does not open.
        let sockets = if mistakes.is_empty() {
            let sockets = self.listeners.prepare(settings);
            let told = |Trouble { key, error }| (key, error);
            sockets.map_err(|all| mistakes.extend(of_keys(all.into_iter().map(told))))
        } else {
            Err(())
        };
        match (certificates, plan, sockets) {
            (Ok(certificates), Ok(plan), Ok(sockets)) => Ok(Ready {
                settings: settings.clone(),
                rules: self.rules.get().renewed(settings),
                users: Arc::new(self.users.get().renewed(&settings.users)),
                certificates: Arc::new(certificates),
                sockets,
                plan,
            }),
            _ => Err(mistakes),
        }
    }

    /// Cannot fail. The rules come before the doors: a client who is let in newly meets the new rules. Gives the keys of files that
    /// hold something else than before.
    async fn take_up(&self, ready: Ready, stored: &[LaneSet]) -> Vec<String> {
        let Ready { settings, rules, users, certificates, sockets, plan } = ready;
        let mut contents = plan.contents().to_vec();
        self.rules.set(rules);
        let rules = self.rules.get();
        let terms = Terms { settings: &settings, rules: &rules, certificates: &certificates, users: &users };
        self.listeners.take_up(sockets, &terms).await;
        let seats = self.lanes.follow(plan, &rules.routing, stored).await;
        if let Some(sign_ins) = self.sign_ins.get() {
            sign_ins.set_seats(seats);
        }
        self.users.set(users);
        contents.extend(self.follow_certificates(certificates));
        if let Some(store) = &self.store {
            store.take_up(&settings);
        }
        self.settings.send_replace(Arc::new(settings));
        contents
    }

    /// Gives the keys of those that were renewed since the last look.
    fn follow_certificates(&self, certificates: Arc<ListenerCertificates>) -> Vec<String> {
        let before = self.certificates.get();
        let now = self.clock.wall();
        let renewed = tokio::task::block_in_place(|| certificates.announce(&before, now));
        let watch = Arc::clone(&certificates).watch(Arc::clone(&self.clock));
        self.certificates.set(certificates);
        let mut attendants = self.attendants();
        while attendants.try_join_next().is_some() {}
        let watching = attendants.spawn(watch);
        let before = self.watching.lock().unwrap_or_else(PoisonError::into_inner).replace(watching);
        if let Some(before) = before {
            before.abort();
        }
        renewed
    }

    fn attendants(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.attendants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong, with the keys that ask for it.
fn of_keys<E: std::fmt::Display>(errors: impl IntoIterator<Item = (String, E)>) -> impl Iterator<Item = Mistake> {
    errors.into_iter().map(|(key, error)| Mistake::new(key, error.to_string()))
}

/// Tells every reason.
fn refused(who: &str, mistakes: Vec<Mistake>) -> Outcome {
    for mistake in &mistakes {
        error!("configuration mistake: {mistake}");
    }
    error!(who, mistakes = mistakes.len(), "reload refused; the running configuration is kept, whole");
    Outcome { mistakes, ..Outcome::default() }
}

/// A start tells the first reason; `check` and `status` help with the rest.
fn first(troubles: Vec<Trouble>) -> StartError {
    let first = troubles.into_iter().next();
    first.expect("what cannot be prepared has a reason").error
}

/// The sets of lanes that have mail now.
async fn stored_lanes(store: Option<&Store>) -> Vec<LaneSet> {
    match store {
        Some(store) => store.lanes().await,
        None => Vec::new(),
    }
}

/// Where the state directory is at fault, or another daemon has it, the queue's own words say it better. None where there is
/// no place for it.
async fn open_control(
    settings: &Settings,
    requests: Requests,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Service>, StartError> {
    let Some(path) = settings.control_socket() else {
        info!(
            "this relay has no control socket: status and reload cannot reach it; control.socket gives it one, SIGHUP reloads"
        );
        return Ok(None);
    };
    let error = match Service::start(path, Arc::new(requests)).await {
        Ok(service) => return Ok(Some(service)),
        Err(error) => error,
    };
    let of_place = matches!(error, SocketError::Failed { .. } | SocketError::InUse { .. });
    if let Some(directory) = settings.state_directory().filter(|directory| of_place && path.starts_with(directory)) {
        open_spool(directory, settings, Arc::clone(clock)).await?.close().await;
    }
    Err(error.into())
}
