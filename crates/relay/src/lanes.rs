//! The lanes that run: one for each login, whatever mailboxes have it, with what those of one Entra tenant share.
//!
//! A configuration is planned first, which may fail and changes nothing, and then followed, which cannot fail: a lane that is
//! the same stays as it is, with its connections, its health and what it has learned; one that changed ends what is under way
//! and then starts anew; there are never two of one login. What an earlier run or lane has used of the limits is counted.

mod wildcard;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Clock;
use forwarder::{Allowance, ConnectionLimits, Endpoint, Lane, LaneParts, Timeouts};
use mail::{Domain, LaneId, LaneSet};
use spool::{Spool, SqliteSpool, StoreError};
use token_manager::{Vault, VaultError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::{self, FilePath, Mailbox, MailboxAddress, ProxyUrl, Settings, Tenant};
use crate::crew::Crew;
use crate::delivery::{Delivery, Duty, Road};
use crate::refused_senders::RefusedSenders;
use crate::registration::{self, Ledgers, Registration};
use crate::reload::is_same_tenant;
use crate::routing::{self, Routing};
use crate::sign_ins::Seat;
use crate::status::LaneView;
use crate::tls::{CaFileError, Trust};
use crate::tokens::Tokens;
use crate::unknown_mailboxes::UnknownMailboxes;
use crate::wanted_lanes::WantedLanes;

use wildcard::Wildcard;

/// The window of `recipients_per_day`, and the minute that the spool's counts may be older than they say.
const DAY: Duration = Duration::from_mins(24 * 60 + 1);
/// The window of `messages_per_minute`.
const MINUTE: Duration = Duration::from_mins(1);

/// How long a client that waits is kept for a lane of its login that comes after another.
const OPENING: Duration = Duration::from_secs(5);

/// The keys of a tenant that name CA files, in the order of [`Application::authorities`].
const CA_FILES: [&str; 2] = ["authority_ca_file", "smtp.ca_file"];

/// Why a configuration's lanes cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LanesError {
    /// A CA file.
    #[error("{0}")]
    CaFile(#[from] CaFileError),
    /// The directory of refresh tokens.
    #[error("{0}")]
    Vault(#[from] VaultError),
}

/// What lanes are run with.
pub(crate) struct Means {
    /// The queue, and what brings its mail to the lanes; none where nothing is stored.
    pub(crate) road: Option<Arc<Road<SqliteSpool>>>,
    /// Senders whose own mailbox Exchange does not know.
    pub(crate) unknown: Arc<UnknownMailboxes>,
    /// Lanes of wildcard mailboxes that mail has come for.
    pub(crate) wanted: Arc<WantedLanes>,
    /// What was asked of Entra ID lately.
    pub(crate) ledgers: Arc<Ledgers>,
    /// Whom upstream's certificates are believed by.
    pub(crate) trust: Trust,
    /// Has their tasks.
    pub(crate) crew: Arc<Crew>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Ends them.
    pub(crate) stop: CancellationToken,
    /// Tokens outlive the deliveries that need them.
    pub(crate) stop_tokens: CancellationToken,
}

/// All lanes.
pub(crate) struct Lanes {
    means: Means,
    state: Mutex<State>,
    /// Held by whoever makes the lanes another set: what is planned is started before something else is planned.
    changing: tokio::sync::Mutex<()>,
    /// Connections of each that live messages leave to the queue.
    kept_for_queue: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Every lane that runs or ends.
    places: BTreeMap<LaneId, Place>,
    /// By the tenant's name.
    applications: BTreeMap<String, Arc<Application>>,
    /// Opened when the first seat is.
    vault: Option<Arc<Vault>>,
    /// Lanes of mailboxes that have one address.
    named: BTreeSet<LaneId>,
    wildcards: Vec<Wildcard>,
}

/// Where one login's lane is: never more than one at a time.
struct Place {
    wanted: watch::Sender<Wanted>,
    duty: watch::Sender<Arc<Duty>>,
    refused_senders: Arc<RefusedSenders>,
    running: watch::Sender<Running>,
}

/// What shall be at a place.
#[derive(Clone)]
enum Wanted {
    Lane(Arc<Design>),
    Nothing(Ended),
}

/// Why no lane shall be there any more.
#[derive(Clone, Copy)]
enum Ended {
    /// No mailbox has the login, or another lane comes.
    Reload,
    /// Of a sender's own mailbox, which has had no mail for a while.
    Idle,
    /// Of a sender's own mailbox that Exchange lets nobody log in to, which was told.
    Unknown,
}

/// A lane at work.
#[derive(Clone)]
struct Running {
    design: Arc<Design>,
    lane: Arc<Lane<Tokens>>,
    /// Brings it the queue's mail, where there is a queue.
    delivery: Option<Arc<Delivery<SqliteSpool, Tokens>>>,
    /// Whether it takes nothing more, for another that comes or for none.
    is_ending: bool,
}

impl Running {
    /// Until `end`, then until what is under way has come to its end. Nothing is connected any more afterwards.
    async fn run(&self, end: CancellationToken) {
        let carry = async {
            match &self.delivery {
                Some(delivery) => Arc::clone(delivery).run(end).await,
                None => end.cancelled().await,
            }
        };
        tokio::select! {
            () = carry => {}
            // Never ends by itself.
            () = self.lane.sweep() => {}
        }
        // Clients that wait may still have turns.
        self.lane.retire().await;
    }
}

/// What makes a lane what it is: another design is another lane.
struct Design {
    id: LaneId,
    login: String,
    /// The first mailbox that has the login, where users sign in: its tokens are that one's.
    seat: Option<String>,
    application: Arc<Application>,
    endpoint: Endpoint,
    allowance: Allowance,
}

impl Design {
    fn is_same(&self, other: &Self) -> bool {
        let allowed = |design: &Self| {
            let Allowance {
                connections,
                messages_per_minute,
                recipients_per_day,
                recipients_per_message,
                internal_domains,
            } = design.allowance.clone();
            (connections, messages_per_minute, recipients_per_day, recipients_per_message, internal_domains)
        };
        Arc::ptr_eq(&self.application, &other.application)
            && (&self.login, &self.seat) == (&other.login, &other.seat)
            && self.endpoint.hostname == other.endpoint.hostname
            && allowed(self) == allowed(other)
    }
}

/// A tenant's section at work: what its lanes share.
struct Application {
    tenant: Tenant,
    /// What its CA files held.
    authorities: [Option<Vec<u8>>; 2],
    registration: Registration,
    endpoint: Endpoint,
    /// Its health, and with all applications of the Entra tenant the external recipients.
    shared: Arc<forwarder::Tenant>,
    /// The application's own under none, those of users by lane and first mailbox.
    tokens: Mutex<BTreeMap<TokensOf, Held>>,
}

/// Whose tokens: the application's own, or a lane's with its first mailbox.
type TokensOf = Option<(LaneId, String)>;

#[derive(Clone)]
struct Held {
    tokens: Arc<Tokens>,
    stop: CancellationToken,
}

/// What a configuration wants; following it cannot fail.
pub(crate) struct Plan {
    applications: BTreeMap<String, Arc<Application>>,
    lanes: BTreeMap<LaneId, Planned>,
    wildcards: Vec<Wildcard>,
    vault: Option<Arc<Vault>>,
    /// Tenants that are new or changed.
    fresh: Vec<String>,
    /// Keys that name files which hold something else than before.
    contents: Vec<String>,
    /// Shared parts that begin anew, by Entra tenant: what was used of their day is to be counted.
    uncounted: BTreeMap<String, Arc<forwarder::Tenant>>,
    kept_for_queue: usize,
}

struct Planned {
    design: Arc<Design>,
    tenant: String,
    mailboxes: Vec<String>,
    address: mail::Mailbox,
}

impl Lanes {
    /// None yet.
    pub(crate) fn new(means: Means) -> Arc<Self> {
        Arc::new(Self {
            means,
            state: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            kept_for_queue: AtomicUsize::new(0),
        })
    }

    /// What `settings` want. Reads CA files and the vault's directory, and changes nothing that runs. Tells everything that cannot
    /// be had, each by the key that asks for it.
    pub(crate) fn plan(&self, settings: &Settings) -> Result<Plan, Vec<(String, LanesError)>> {
        let (running, vault) = {
            let state = self.state();
            (state.applications.clone(), state.vault.clone())
        };
        let mut plan = Plan {
            applications: BTreeMap::new(),
            lanes: BTreeMap::new(),
            wildcards: Vec::new(),
            vault,
            fresh: Vec::new(),
            contents: Vec::new(),
            uncounted: BTreeMap::new(),
            kept_for_queue: settings.kept_for_queue(),
        };
        let mut errors: Vec<(String, LanesError)> = Vec::new();
        for (name, mailbox) in &settings.mailboxes {
            if let Err((key, error)) = self.plan_mailbox(&mut plan, &running, settings, (name, mailbox))
                // Each mailbox of a tenant meets the same.
                && !errors.iter().any(|(other, _)| *other == key)
            {
                errors.push((key, error));
            }
        }
        if errors.is_empty() { Ok(plan) } else { Err(errors) }
    }

    fn plan_mailbox(
        &self,
        plan: &mut Plan,
        running: &BTreeMap<String, Arc<Application>>,
        settings: &Settings,
        (name, mailbox): (&str, &Mailbox),
    ) -> Result<(), (String, LanesError)> {
        let Some((tenant_name, tenant)) = settings.tenant_of(mailbox) else { return Ok(()) };
        let id = routing::lane(settings, mailbox);
        if let Some(planned) = id.as_ref().and_then(|id| plan.lanes.get_mut(id)) {
            // Another name of the same login.
            planned.mailboxes.push(name.to_owned());
            return Ok(());
        }
        let application = match plan.applications.get(tenant_name) {
            Some(application) => Arc::clone(application),
            None => self.plan_application(plan, running, settings, (tenant_name, tenant))?,
        };
        let (id, address) = match (id, &mailbox.address) {
            (Some(id), MailboxAddress::One(address)) => (id, address),
            (_, MailboxAddress::Wildcard(domain)) => {
                plan.wildcards.push(Wildcard {
                    mailbox: name.to_owned(),
                    tenant: tenant_name.to_owned(),
                    domain: domain.as_str().to_ascii_lowercase(),
                    application,
                    hostname: settings.hostname.as_str().to_owned(),
                    allowance: allowance(settings, tenant_name, mailbox),
                });
                return Ok(());
            }
            (None, MailboxAddress::One(_)) => return Ok(()),
        };
        let is_delegated = tenant.grant == config::Grant::Delegated;
        if is_delegated && plan.vault.is_none() {
            let directory = settings.state_directory().expect("where users sign in there is a state directory");
            let vault = registration::vault(directory, settings.vault.key.as_ref());
            plan.vault = Some(vault.map_err(|error| ("spool.directory".to_owned(), error.into()))?);
        }
        let hostname = settings.hostname.as_str().to_owned();
        let design = Design {
            id: id.clone(),
            login: mailbox.login.as_ref().map(ToString::to_string).unwrap_or_default(),
            seat: is_delegated.then(|| name.to_owned()),
            endpoint: Endpoint { hostname, ..application.endpoint.clone() },
            allowance: allowance(settings, tenant_name, mailbox),
            application,
        };
        let planned = Planned {
            design: Arc::new(design),
            tenant: tenant_name.to_owned(),
            mailboxes: vec![name.to_owned()],
            address: address.clone(),
        };
        plan.lanes.insert(id, planned);
        Ok(())
    }

    /// The one that runs, if its section and its CA files say the same.
    fn plan_application(
        &self,
        plan: &mut Plan,
        running: &BTreeMap<String, Arc<Application>>,
        settings: &Settings,
        (name, tenant): (&str, &Tenant),
    ) -> Result<Arc<Application>, (String, LanesError)> {
        let authorities = [&tenant.authority_ca_file, &tenant.smtp.ca_file]
            .map(|file| file.as_ref().and_then(|file| std::fs::read(file.as_path()).ok()));
        let keys = CA_FILES.map(|key| format!("tenant.{name}.{key}"));
        let said = running.get(name).filter(|old| is_same_tenant(&old.tenant, tenant));
        if let Some(old) = said {
            let changed = (0..keys.len()).filter(|at| old.authorities[*at] != authorities[*at]);
            plan.contents.extend(changed.map(|at| format!("{} (contents)", keys[at])));
        }
        let same = said.filter(|old| old.authorities == authorities).cloned();
        let failed = |key: &str| {
            let key = key.to_owned();
            move |error: CaFileError| (key, error.into())
        };
        let application = match same {
            Some(same) => same,
            None => Arc::new(Application {
                registration: Registration::new(name, tenant, &self.means.ledgers, &self.means.trust)
                    .map_err(failed(&keys[0]))?,
                endpoint: endpoint(settings, &self.means.trust, tenant).map_err(failed(&keys[1]))?,
                shared: shared(plan, running, tenant),
                tenant: tenant.clone(),
                authorities,
                tokens: Mutex::default(),
            }),
        };
        if !running.get(name).is_some_and(|old| Arc::ptr_eq(old, &application)) {
            plan.fresh.push(name.to_owned());
        }
        plan.applications.insert(name.to_owned(), Arc::clone(&application));
        Ok(application)
    }

    /// Follows `plan`: when it returns, what is new runs, and what is to end takes no more mail and ends by itself. Gives the
    /// places where users sign in. `stored` are the sets of lanes that have mail.
    pub(crate) async fn follow(self: &Arc<Self>, plan: Plan, routing: &Routing, stored: &[LaneSet]) -> Vec<Seat> {
        let Plan { applications, mut lanes, wildcards, vault, fresh: _, contents: _, uncounted, kept_for_queue } = plan;
        let _changing = self.changing.lock().await;
        self.kept_for_queue.store(kept_for_queue, Ordering::Relaxed);
        let named = lanes.keys().cloned().collect();
        let needed = wildcards.iter().map(|wildcard| Arc::clone(&wildcard.application)).collect::<Vec<_>>();
        // Senders' own mailboxes that have mail stay open, as long as some wildcard mailbox has them.
        let open: Vec<_> = self.state().places.keys().filter(|id| !lanes.contains_key(id)).cloned().collect();
        lanes.extend(open.into_iter().filter_map(|id| wildcard::planned(&wildcards, &id).map(|planned| (id, planned))));
        {
            let mut state = self.state();
            (state.named, state.wildcards) = (named, wildcards);
        }
        let kept = self.end_others(&lanes);
        for place in self.state().places.values() {
            place.running.borrow().lane.keep_for_queue(kept_for_queue);
        }
        self.replace_tokens(&applications, &lanes, &needed).await;
        self.state().vault.clone_from(&vault);
        if let Err(error) = self.count_external(&uncounted).await {
            warn!(%error, "what was used of the last day's external recipients cannot be counted; it starts anew");
        }
        // Many small files may be read for the tokens.
        tokio::task::block_in_place(|| {
            for planned in lanes.values() {
                self.tokens(&planned.design, vault.as_ref());
            }
            for application in &needed {
                self.held(application, None, || None);
            }
        });
        for (id, planned) in &lanes {
            let duty = Duty {
                tenant: planned.tenant.clone(),
                mailboxes: planned.mailboxes.clone(),
                address: planned.address.clone(),
                queues: queues(id, routing, stored),
            };
            self.start(Arc::clone(&planned.design), duty, kept.get(id));
        }
        let delegated = lanes.into_values().filter(|planned| planned.design.seat.is_some());
        vault.map_or_else(Vec::new, |vault| delegated.map(|planned| self.seat(planned, &vault)).collect())
    }

    /// Ends every lane that is not planned as it is. Gives what is remembered of all.
    fn end_others(&self, lanes: &BTreeMap<LaneId, Planned>) -> BTreeMap<LaneId, Arc<RefusedSenders>> {
        let state = self.state();
        for (id, place) in &state.places {
            let is_kept = lanes.get(id).is_some_and(|planned| place.is_to_be(&planned.design));
            if !is_kept {
                place.wanted.send_replace(Wanted::Nothing(Ended::Reload));
            }
        }
        let remembered = state.places.iter().map(|(id, place)| (id.clone(), Arc::clone(&place.refused_senders)));
        remembered.collect()
    }

    /// Ends the tokens that nobody needs any more, and waits for it: two managers of one application would ask for more than
    /// it may.
    async fn replace_tokens(
        &self,
        applications: &BTreeMap<String, Arc<Application>>,
        lanes: &BTreeMap<LaneId, Planned>,
        of_wildcards: &[Arc<Application>],
    ) {
        let before = std::mem::replace(&mut self.state().applications, applications.clone());
        let mut ending = Vec::new();
        for application in before.into_values() {
            let of_lanes = lanes.values().filter(|planned| Arc::ptr_eq(&planned.design.application, &application));
            let mut needed: BTreeSet<TokensOf> = of_lanes.map(|planned| planned.design.tokens_of()).collect();
            if of_wildcards.iter().any(|other| Arc::ptr_eq(other, &application)) {
                needed.insert(None);
            }
            let mut tokens = application.tokens();
            let idle: Vec<TokensOf> = tokens.keys().filter(|whose| !needed.contains(*whose)).cloned().collect();
            ending.extend(idle.iter().filter_map(|whose| tokens.remove(whose)));
        }
        for held in &ending {
            held.stop.cancel();
        }
        for held in &ending {
            held.tokens.finished().await;
        }
    }

    /// The tokens of a lane; they are asked for at once when they are new.
    fn tokens(&self, design: &Design, vault: Option<&Arc<Vault>>) -> Arc<Tokens> {
        let of_user = || Some((design.seat.as_deref()?, &design.id, vault?));
        self.held(&design.application, design.tokens_of(), of_user)
    }

    /// Those that are held, or new ones: of a user who signs in for a mailbox, or the application's own.
    fn held<'a>(
        &self,
        application: &Application,
        whose: TokensOf,
        of_user: impl FnOnce() -> Option<(&'a str, &'a LaneId, &'a Arc<Vault>)>,
    ) -> Arc<Tokens> {
        let mut tokens = application.tokens();
        let held = tokens.entry(whose).or_insert_with(|| {
            let (clock, stop) = (Arc::clone(&self.means.clock), self.means.stop_tokens.child_token());
            let registration = &application.registration;
            let tokens = match of_user() {
                Some((mailbox, lane, vault)) => {
                    Tokens::of_mailbox(registration, (mailbox, lane), vault, clock, stop.clone())
                }
                None => Tokens::of_application(registration, clock, stop.clone()),
            };
            Held { tokens: Arc::new(tokens), stop }
        });
        Arc::clone(&held.tokens)
    }

    /// Starts a lane, or lets the one of this login become it; with another design that ends first.
    fn start(self: &Arc<Self>, design: Arc<Design>, duty: Duty, remembered: Option<&Arc<RefusedSenders>>) {
        let id = design.id.clone();
        let mut state = self.state();
        if let Some(place) = state.places.get_mut(&id) {
            place.duty.send_if_modified(|now| {
                let is_news = **now != duty;
                *now = Arc::new(duty);
                is_news
            });
            place.wanted.send_if_modified(|now| {
                let is_same = now.is(&design);
                if !is_same {
                    *now = Wanted::Lane(design);
                }
                !is_same
            });
            return;
        }
        let wanted = watch::Sender::new(Wanted::Lane(Arc::clone(&design)));
        let duty = watch::Sender::new(Arc::new(duty));
        let refused_senders = remembered.cloned().unwrap_or_default();
        let tokens = self.tokens(&design, state.vault.as_ref());
        let running = self.open(&design, tokens, duty.subscribe(), Arc::clone(&refused_senders));
        let keeping = Arc::clone(self).keep(id.clone(), wanted.subscribe(), running.clone());
        state.places.insert(id, Place { wanted, duty, refused_senders, running: watch::Sender::new(running) });
        drop(state);
        self.means.crew.spawn(keeping);
    }

    /// Nothing is connected yet.
    fn open(
        &self,
        design: &Arc<Design>,
        tokens: Arc<Tokens>,
        duty: watch::Receiver<Arc<Duty>>,
        refused_senders: Arc<RefusedSenders>,
    ) -> Running {
        let lane = Lane::new(LaneParts {
            id: design.id.clone(),
            login: design.login.clone(),
            endpoint: design.endpoint.clone(),
            tokens,
            tenant: Arc::clone(&design.application.shared),
            allowance: design.allowance.clone(),
            limits: ConnectionLimits::default(),
            kept_for_queue: self.kept_for_queue.load(Ordering::Relaxed),
            clock: Arc::clone(&self.means.clock),
        });
        let road = self.means.road.as_ref();
        let delivery = road.map(|road| Delivery::new(Arc::clone(road), Arc::clone(&lane), duty, refused_senders));
        Running { design: Arc::clone(design), lane, delivery, is_ending: false }
    }

    /// Runs what is wanted at one place, one lane after the other, until none is or the daemon stops.
    async fn keep(self: Arc<Self>, id: LaneId, mut wanted: watch::Receiver<Wanted>, mut running: Running) {
        // What runs, which may be what is wanted no more when this begins.
        let mut design = Some(Arc::clone(&running.design));
        while let Some(now) = design {
            self.remember(&running.lane).await;
            let end = self.means.stop.child_token();
            self.run_until_other(&mut wanted, &now, &running, &end).await;
            if self.means.stop.is_cancelled() {
                return;
            }
            design = self.next(&id, &mut wanted, &mut running);
        }
    }

    async fn run_until_other(
        &self,
        wanted: &mut watch::Receiver<Wanted>,
        now: &Design,
        running: &Running,
        end: &CancellationToken,
    ) {
        let mut work = std::pin::pin!(running.run(end.clone()));
        loop {
            tokio::select! {
                () = &mut work => return,
                Ok(_) = wanted.wait_for(|other| !other.is(now)) => {}
            }
            if self.is_to_end(now) {
                break;
            }
        }
        debug!(lane = %now.id, "the lane ends; what is under way comes to its end first");
        end.cancel();
        work.await;
        match *wanted.borrow() {
            Wanted::Lane(_) | Wanted::Nothing(Ended::Reload) => info!(lane = %now.id, "lane ended by a reload"),
            Wanted::Nothing(Ended::Idle) => debug!(lane = %now.id, "lane of a sender's own mailbox ended, it was idle"),
            Wanted::Nothing(Ended::Unknown) => {
                debug!(lane = %now.id, "lane of a sender's own mailbox ended, nobody can log in to it");
            }
        }
    }

    /// Whether another than the lane of `design` is wanted in its place, or none. Whoever looks for a lane then waits for that.
    fn is_to_end(&self, design: &Design) -> bool {
        // Under the lock what is wanted cannot change.
        let state = self.state();
        let Some(place) = state.places.get(&design.id) else { return true };
        let is_to_end = !place.is_to_be(design);
        if is_to_end {
            place.running.send_modify(|running| running.is_ending = true);
        }
        is_to_end
    }

    /// What comes after a lane that has ended, made and shown; none, and the place is gone, when nothing does.
    fn next(&self, id: &LaneId, wanted: &mut watch::Receiver<Wanted>, running: &mut Running) -> Option<Arc<Design>> {
        // Under the lock what is wanted cannot change.
        let mut state = self.state();
        let Some(design) = wanted.borrow_and_update().design().cloned() else {
            state.places.remove(id);
            return None;
        };
        let tokens = self.tokens(&design, state.vault.as_ref());
        let place = state.places.get_mut(id)?;
        let before = running.lane.status();
        *running = self.open(&design, tokens, place.duty.subscribe(), Arc::clone(&place.refused_senders));
        if self.means.road.is_none() {
            // Nobody else has counted what the login used. Rather too late than too early, all of it counts from now on.
            running.lane.assume_sent(before.sent_in_last_minute);
            running.lane.assume_used(before.recipients_in_last_day, Duration::ZERO);
        }
        place.running.send_replace(running.clone());
        Some(design)
    }

    fn seat(self: &Arc<Self>, planned: Planned, vault: &Arc<Vault>) -> Seat {
        let Planned { design, tenant, mailboxes, .. } = planned;
        Seat {
            tenant,
            mailboxes,
            login: design.login.clone(),
            id: design.id.clone(),
            registration: design.application.registration.clone(),
            endpoint: design.endpoint.clone(),
            vault: Arc::clone(vault),
            lanes: Some(Arc::clone(self)),
        }
    }

    /// The lane of a login, as it runs now.
    pub(crate) fn lane(&self, id: &LaneId) -> Option<Arc<Lane<Tokens>>> {
        self.state().places.get(id).map(|place| Arc::clone(&place.running.borrow().lane))
    }

    /// The lane of a login for a client that waits: at once, unless an earlier one of the login has to end first, and that for
    /// [`OPENING`] at most. A sender's own is opened where it is of a wildcard mailbox and there is room, and does not end as
    /// idle for a while. None when there is no such lane or it ends, and when its mailbox is remembered as unknown. Safe to
    /// drop.
    pub(crate) async fn open_for(self: &Arc<Self>, id: &LaneId) -> Option<Arc<Lane<Tokens>>> {
        let opening = async {
            if self.state().is_wildcard(id) && !self.open_own(id).await {
                return None;
            }
            let (mut running, design) = {
                let state = self.state();
                let place = state.places.get(id)?;
                let design = place.wanted.borrow().design().cloned()?;
                (place.running.subscribe(), design)
            };
            let ready = running.wait_for(|running| !running.is_ending && running.design.is_same(&design));
            Some(Arc::clone(&ready.await.ok()?.lane))
        };
        timeout(OPENING, opening).await.ok().flatten()
    }

    /// The tokens of what a user signed in for: those that the lane has as the configuration is now. None while they are
    /// replaced; new ones look for what is stored by themselves.
    pub(crate) fn tokens_of_user(&self, id: &LaneId) -> Option<Arc<Tokens>> {
        let applications: Vec<_> = self.state().applications.values().cloned().collect();
        applications.iter().find_map(|application| {
            let tokens = application.tokens();
            let mut held = tokens.iter();
            let (_, held) = held.find(|(whose, _)| whose.as_ref().is_some_and(|(lane, _)| lane == id))?;
            Some(Arc::clone(&held.tokens))
        })
    }

    /// Whether mail of any of `lanes` is carried by one that is to stay, or that is opened for it.
    pub(crate) fn serve(&self, lanes: &LaneSet) -> bool {
        let state = self.state();
        lanes.lanes().any(|id| state.places.get(&id).is_some_and(Place::is_wanted) || state.is_wildcard(&id))
    }

    /// All that run, to look at; those that end included.
    pub(crate) fn views(&self) -> Vec<LaneView> {
        let state = self.state();
        let views = state.places.values().map(|place| {
            let duty = Arc::clone(&place.duty.borrow());
            LaneView {
                tenant: duty.tenant.clone(),
                mailbox: duty.mailboxes.join(", "),
                queues: duty.queues.clone(),
                lane: Arc::clone(&place.running.borrow().lane),
                refused_senders: Arc::clone(&place.refused_senders),
            }
        });
        views.collect()
    }

    /// What they deliver the queue's mail by.
    pub(crate) fn deliveries(&self) -> Vec<Arc<Delivery<SqliteSpool, Tokens>>> {
        self.state().places.values().filter_map(|place| place.running.borrow().delivery.clone()).collect()
    }

    /// All tokens: of tenants, and of mailboxes that users sign in for.
    pub(crate) fn all_tokens(&self) -> Vec<Arc<Tokens>> {
        let applications: Vec<_> = self.state().applications.values().cloned().collect();
        let held =
            applications.iter().flat_map(|application| application.tokens().values().cloned().collect::<Vec<_>>());
        held.map(|held| held.tokens).collect()
    }

    /// Upstream's minute and day do not begin anew with a lane or a run of ours, where that was written down.
    async fn remember(&self, lane: &Lane<Tokens>) {
        let Some(road) = &self.means.road else { return };
        if let Err(error) = count_used(road, lane).await {
            warn!(lane = %lane.id(), %error, "what was used of the last minute and day cannot be counted; both start anew");
        }
    }

    /// Lanes that no mailbox has any more count for their tenant all the same.
    async fn count_external(&self, tenants: &BTreeMap<String, Arc<forwarder::Tenant>>) -> Result<(), StoreError> {
        let Some(road) = self.means.road.as_ref().filter(|_| !tenants.is_empty()) else { return Ok(()) };
        let (now, monotonic) = (road.clock.wall(), road.clock.monotonic());
        let mut external: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for id in road.spool.used_lanes(now - DAY).await? {
            let Some((entra_tenant, _)) = tenants.get_key_value(id.tenant_id()) else { continue };
            for (minute, usage) in road.spool.usage_since(&id, now - DAY).await? {
                external.entry(entra_tenant).or_default().push((minute, u64::from(usage.external)));
            }
        }
        for (entra_tenant, mut used) in external {
            used.sort_unstable();
            for (minute, recipients) in used {
                tenants[entra_tenant].assume_used(recipients, now.saturating_since(minute), monotonic);
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below the lock is complete before anything that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// The names of the tenants that are new or changed.
    pub(crate) fn fresh(&self) -> &[String] {
        &self.fresh
    }

    /// The keys of tenants that say the same and name files that do not.
    pub(crate) fn contents(&self) -> &[String] {
        &self.contents
    }
}

impl Place {
    /// Whether a lane shall be here.
    fn is_wanted(&self) -> bool {
        self.wanted.borrow().design().is_some()
    }

    /// Whether it is this lane already, or becomes it.
    fn is_to_be(&self, design: &Design) -> bool {
        self.wanted.borrow().is(design)
    }
}

impl Wanted {
    fn design(&self) -> Option<&Arc<Design>> {
        match self {
            Self::Lane(design) => Some(design),
            Self::Nothing(_) => None,
        }
    }

    fn is(&self, design: &Design) -> bool {
        self.design().is_some_and(|wanted| wanted.is_same(design))
    }
}

impl Design {
    fn tokens_of(&self) -> TokensOf {
        self.seat.clone().map(|mailbox| (self.id.clone(), mailbox))
    }
}

impl Application {
    fn tokens(&self) -> MutexGuard<'_, BTreeMap<TokensOf, Held>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn count_used(road: &Road<SqliteSpool>, lane: &Lane<Tokens>) -> Result<(), StoreError> {
    let now = road.clock.wall();
    let mut lately = 0;
    for (minute, usage) in road.spool.usage_since(lane.id(), now - DAY).await? {
        let ago = now.saturating_since(minute);
        lane.assume_used(u64::from(usage.recipients), ago);
        // This minute and the one before: rather too many.
        lately += if ago < 2 * MINUTE { usage.messages as usize } else { 0 };
    }
    lane.assume_sent(lately);
    Ok(())
}

fn entra_tenant(tenant: &Tenant) -> String {
    tenant.tenant_id.as_str().to_ascii_lowercase()
}

/// What the lanes of one application share; its external recipients with all applications of the same Entra tenant, and with
/// those that it takes the place of.
fn shared(plan: &mut Plan, running: &BTreeMap<String, Arc<Application>>, tenant: &Tenant) -> Arc<forwarder::Tenant> {
    let key = entra_tenant(tenant);
    let is_kin = |other: &&Arc<Application>| {
        entra_tenant(&other.tenant) == key
            && other.tenant.external_recipients_per_day.get() == tenant.external_recipients_per_day.get()
    };
    if let Some(kin) = plan.applications.values().find(is_kin).or_else(|| running.values().find(is_kin)) {
        return Arc::new(kin.shared.beside());
    }
    let limit = Some(tenant.external_recipients_per_day.get()).filter(|limit| *limit > 0);
    let own = Arc::new(forwarder::Tenant::new(limit));
    plan.uncounted.insert(key, Arc::clone(&own));
    own
}

/// Whose mail goes by the lane `id`: what is for it alone, what its routes share among several, and what an earlier
/// configuration shared.
fn queues(id: &LaneId, routing: &Routing, stored: &[LaneSet]) -> Vec<LaneSet> {
    let shared = routing.lanes().chain(stored).filter(|lanes| lanes.contains(id));
    let queues: BTreeSet<_> = std::iter::once(LaneSet::from(id)).chain(shared.cloned()).collect();
    queues.into_iter().collect()
}

/// Where the mail of `tenant` goes.
pub(crate) fn endpoint(settings: &Settings, trust: &Trust, tenant: &Tenant) -> Result<Endpoint, CaFileError> {
    Ok(Endpoint {
        host: tenant.smtp_host().to_owned(),
        port: tenant.smtp.port.port(),
        address_family: tenant.address_family.into(),
        source_address: tenant.source_address,
        proxy: tenant.smtp_proxy.as_ref().map(ProxyUrl::for_smtp),
        hostname: settings.hostname.as_str().to_owned(),
        tls: trust.client(tenant.smtp.ca_file.as_ref().map(FilePath::as_path))?,
        timeouts: Timeouts::default(),
    })
}

fn allowance(settings: &Settings, tenant: &str, mailbox: &Mailbox) -> Allowance {
    Allowance {
        connections: mailbox.connections.size(),
        messages_per_minute: mailbox.messages_per_minute.size(),
        recipients_per_day: mailbox.recipients_per_day.get(),
        recipients_per_message: mailbox.recipients_per_message.size(),
        internal_domains: internal_domains(settings, tenant),
    }
}

/// The tenant's own domains: as given, or those of its mailboxes.
pub(crate) fn internal_domains<'a>(settings: &'a Settings, tenant: &str) -> Vec<Domain> {
    let given = settings.tenants.get(tenant).map(|tenant| tenant.internal_domains.clone()).unwrap_or_default();
    if !given.is_empty() {
        return given;
    }
    let mailboxes = settings.mailboxes.values();
    let of_tenant = mailboxes.filter(|mailbox| mailbox.tenant.as_ref().is_some_and(|name| name.as_str() == tenant));
    let mut domains: Vec<Domain> = Vec::new();
    let domain = |address: &'a MailboxAddress| match address {
        MailboxAddress::One(address) => address.domain(),
        MailboxAddress::Wildcard(domain) => domain,
    };
    for domain in of_tenant.map(|mailbox| domain(&mailbox.address)) {
        if !domains.contains(domain) {
            domains.push(domain.clone());
        }
    }
    domains
}

#[cfg(test)]
mod tests;
