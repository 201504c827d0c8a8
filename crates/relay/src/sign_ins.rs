//! Sign-ins under way: begins one for a mailbox, takes it to a token, proves that by AUTH, and puts the refresh token into the
//! vault. The daemon has one of these behind its control socket, and `login` has its own where no daemon runs.
//!
//! Whom it shows what is the command's matter. A sign-in that nobody asks after any more is given up.

mod proof;
mod words;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Clock;
use forwarder::Endpoint;
use mail::LaneId;
use token_manager::{
    AuthorizationRequest, BadCallback, DeviceCode, Ledger, Secret, SignIn, SignInError, SignedIn, StoredGrant, Vault,
    code_advice,
};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use url::{Host, Url};

use crate::control::{Refusal, RefusalCode};
use crate::current::Current;
use crate::lanes::Lanes;
use crate::registration::Registration;

use proof::Verdict;
pub(crate) use words::{Begin, Begun, Callback, Following, GivingUp, Progress, Prompt, State, Try, Way};

/// How long a browser may take.
pub(crate) const BROWSER: Duration = Duration::from_mins(15);
/// A sign-in that nobody has asked after for so long is given up; `login` asks every 5 s.
const ABANDONED: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// At a time.
const MOST: usize = 8;
/// How often upstream is asked for one user when it does not say yes or no, and the pause between.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// What policies against device codes are told by.
const BLOCKED: [&str; 5] = ["AADSTS53003", "AADSTS50097", "AADSTS530032", "AADSTS53000", "AADSTS53001"];

/// Where a user signs in: one mailbox of a delegated tenant.
pub(crate) struct Seat {
    /// The tenant's name in the configuration.
    pub(crate) tenant: String,
    /// Those of the mailboxes that have the login; at least one.
    pub(crate) mailboxes: Vec<String>,
    /// The login.
    pub(crate) login: String,
    /// Its lane.
    pub(crate) id: LaneId,
    /// The application that the user signs in to.
    pub(crate) registration: Registration,
    /// Where the sign-in is proven.
    pub(crate) endpoint: Endpoint,
    /// Where it is kept.
    pub(crate) vault: Arc<Vault>,
    /// Those of the running daemon, which are to know of it; none where there is none.
    pub(crate) lanes: Option<Arc<Lanes>>,
}

/// All of them.
pub(crate) struct SignIns {
    seats: Current<Vec<Arc<Seat>>>,
    clock: Arc<dyn Clock>,
    open: Mutex<BTreeMap<String, Open>>,
    /// How many there were; names the next.
    begun: AtomicU64,
}

/// One under way.
struct Open {
    progress: watch::Receiver<Progress>,
    /// Where a browser's way back goes; none for the other ways.
    browser: Option<(Arc<AuthorizationRequest>, mpsc::Sender<Callbacked>)>,
    /// When somebody asked after it last.
    asked: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a browser came back with: a code, or the endpoint's refusal in words.
type Callbacked = Result<Secret, String>;

/// The rest of the way to a token.
enum Road {
    DeviceCode(DeviceCode),
    Browser(Arc<AuthorizationRequest>, mpsc::Receiver<Callbacked>),
    TakeOver(Secret),
}

impl SignIns {
    /// At these seats.
    pub(crate) fn new(seats: Vec<Seat>, clock: Arc<dyn Clock>) -> Self {
        Self {
            seats: Current::new(seats.into_iter().map(Arc::new).collect()),
            clock,
            open: Mutex::default(),
            begun: AtomicU64::new(1),
        }
    }

    /// At other seats from now on; what is under way goes on where it began.
    pub(crate) fn set_seats(&self, seats: Vec<Seat>) {
        self.seats.set(seats.into_iter().map(Arc::new).collect());
    }

    /// Begins one. `who` is for the log.
    pub(crate) async fn begin(&self, wish: Begin, who: &str) -> Result<Begun, Refusal> {
        let seat = self.seat(wish.tenant.as_deref(), &wish.mailbox)?;
        self.make_room(&seat)?;
        info!(tenant = seat.tenant, mailbox = seat.mailbox(), who, "sign-in begun");
        let ledger = seat.ready(&self.clock).await?;
        let application = seat.registration.application();
        let mut sign_in = SignIn::new(application, seat.registration.http(), Arc::clone(&self.clock), ledger);
        let (prompt, road, browser) = match wish.way {
            Way::DeviceCode => {
                let code = sign_in.device_code().await.map_err(|error| refused(&error))?;
                (Some(Prompt::of(code.prompt())), Road::DeviceCode(code), None)
            }
            Way::Browser { redirect_uri } => {
                check_redirect(&redirect_uri)?;
                let request = Arc::new(sign_in.authorization(&redirect_uri, Some(&seat.login)));
                let prompt = Prompt::Browser { url: request.url().to_string() };
                let (sender, codes) = mpsc::channel(1);
                (Some(prompt), Road::Browser(Arc::clone(&request), codes), Some((request, sender)))
            }
            Way::TakeOver { refresh_token } => {
                let token = Secret::new(refresh_token);
                let token = token.map_err(|error| Refusal::new(RefusalCode::BadRequest, error.to_string()))?;
                (None, Road::TakeOver(token), None)
            }
        };
        let begun = Begun {
            id: self.begun.fetch_add(1, Ordering::Relaxed).to_string(),
            tenant: seat.tenant.clone(),
            mailbox: seat.mailbox(),
            login: seat.login.clone(),
            prompt,
        };
        let running = Running { seat, sign_in, who: who.to_owned(), is_unproven_allowed: wish.unproven };
        self.start(&begun.id, running, road, browser);
        Ok(begun)
    }

    fn seat(&self, tenant: Option<&str>, mailbox: &str) -> Result<Arc<Seat>, Refusal> {
        let seats = self.seats.get();
        let found = seats.iter().find(|seat| {
            let is_meant = seat.mailboxes.iter().any(|name| name == mailbox);
            is_meant && tenant.is_none_or(|tenant| seat.tenant == tenant)
        });
        found.cloned().ok_or_else(|| {
            let text = format!(
                "no mailbox {mailbox:?} that users sign in for is known to the daemon that runs; if it is new in the configuration, `xoauth2-relay reload` makes it known"
            );
            Refusal::new(RefusalCode::Unavailable, text)
        })
    }

    /// Few at a time, beside the one that this one takes the place of.
    fn make_room(&self, seat: &Seat) -> Result<(), Refusal> {
        let mut open = self.open();
        open.retain(|_, open| !open.is_over());
        let others = open.values().filter(|open| open.progress.borrow().mailbox != seat.mailbox());
        if others.count() < MOST {
            return Ok(());
        }
        let text = format!("{MOST} sign-ins are under way; finish one of them first");
        Err(Refusal::new(RefusalCode::Unavailable, text))
    }

    fn start(
        &self,
        id: &str,
        running: Running,
        road: Road,
        browser: Option<(Arc<AuthorizationRequest>, mpsc::Sender<Callbacked>)>,
    ) {
        let mailbox = running.seat.mailbox();
        let (told, progress) = watch::channel(Progress::begun(&mailbox));
        let asked = Arc::new(Mutex::new(Instant::now()));
        let abandoned = abandoned(Arc::clone(&asked));
        let clock = Arc::clone(&self.clock);
        let task = tokio::spawn(async move {
            let (tenant, mailbox) = (running.seat.tenant.clone(), running.seat.mailbox());
            tokio::select! {
                () = running.run(road, &told, &*clock) => {}
                () = abandoned => info!(tenant, mailbox, "sign-in given up: nobody waits for it any more"),
            }
        });
        let task = task.abort_handle();
        let mut open = self.open();
        // One for each mailbox, the newest.
        open.retain(|_, open| open.progress.borrow().mailbox != mailbox);
        open.insert(id.to_owned(), Open { progress, browser, asked, task });
    }

    /// How it stands, when that has changed since `seen`, or after `patience`.
    pub(crate) async fn progress(&self, following: &Following, patience: Duration) -> Result<Progress, Refusal> {
        let mut progress = {
            let open = self.open();
            let open = open.get(&following.id).ok_or_else(unknown)?;
            *open.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            open.progress.clone()
        };
        let is_news = |progress: &Progress| progress.step != following.seen;
        // Whoever asks is told how it stands, news or not; a task that has ended has said so before.
        let _ = timeout(patience, progress.wait_for(is_news)).await;
        let progress = progress.borrow().clone();
        Ok(progress)
    }

    /// A browser has come back.
    pub(crate) fn callback(&self, callback: &Callback) -> Result<(), Refusal> {
        let open = self.open();
        let (request, codes) = open
            .get(&callback.id)
            .ok_or_else(unknown)?
            .browser
            .as_ref()
            .ok_or_else(|| Refusal::new(RefusalCode::BadRequest, "this sign-in needs no address of a browser"))?;
        let brought = match request.accept(&callback.url) {
            Ok(code) => Ok(code),
            // It is ours, for the state is right: the sign-in is over.
            Err(error @ BadCallback::Refused(_)) => Err(error.to_string()),
            Err(error) => return Err(Refusal::new(RefusalCode::BadRequest, error.to_string())),
        };
        // A second one is the browser's reload.
        let _ = codes.try_send(brought);
        Ok(())
    }

    /// Gives one up; says how it stood.
    pub(crate) fn give_up(&self, giving_up: &GivingUp) -> Result<Progress, Refusal> {
        let open = self.open().remove(&giving_up.id).ok_or_else(unknown)?;
        open.task.abort();
        let progress = open.progress.borrow().clone();
        if !progress.is_over() {
            info!(mailbox = progress.mailbox, "sign-in given up by whoever began it");
        }
        Ok(progress)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn is_over(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.task.is_finished() && asked.elapsed() > ABANDONED
    }
}

async fn abandoned(asked: Arc<Mutex<Instant>>) {
    loop {
        sleep(LOOK).await;
        if asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > ABANDONED {
            return;
        }
    }
}

/// What a sign-in is made with.
struct Running {
    seat: Arc<Seat>,
    sign_in: SignIn,
    /// Who asked for it.
    who: String,
    is_unproven_allowed: bool,
}

impl Running {
    async fn run(mut self, road: Road, told: &watch::Sender<Progress>, clock: &dyn Clock) {
        let is_device_code = matches!(road, Road::DeviceCode(_));
        let ended = match self.token(road, told).await {
            Ok(signed_in) => {
                told.send_modify(|progress| progress.account.clone_from(&signed_in.account));
                self.keep(signed_in, told, clock).await
            }
            Err(ended) => ended,
        };
        let ended = with_other_way(ended, is_device_code);
        if let State::Failed { text, .. } = &ended {
            info!(tenant = self.seat.tenant, mailbox = self.seat.mailbox(), reason = text, "sign-in failed");
        }
        told.send_modify(|progress| progress.go_on(ended));
    }

    async fn token(&mut self, road: Road, told: &watch::Sender<Progress>) -> Result<SignedIn, State> {
        let signed_in = match road {
            Road::DeviceCode(code) => self.sign_in.finish_device_code(&code).await,
            Road::Browser(request, mut codes) => match timeout(BROWSER, codes.recv()).await.ok().flatten() {
                Some(Ok(code)) => {
                    told.send_modify(|progress| progress.go_on(State::Asking));
                    self.sign_in.redeem(&request, &code).await
                }
                Some(Err(text)) => {
                    let advice = code_advice(&text).unwrap_or_default().to_owned();
                    return Err(State::Failed { text, advice });
                }
                None => Err(SignInError::Expired),
            },
            Road::TakeOver(token) => {
                told.send_modify(|progress| progress.go_on(State::Asking));
                self.sign_in.take_over(&token).await
            }
        };
        signed_in.map_err(|error| failed(&error))
    }

    /// Proves the token for each user that it may be for, and stores the sign-in with the one that upstream took.
    async fn keep(&self, signed_in: SignedIn, told: &watch::Sender<Progress>, clock: &dyn Clock) -> State {
        let seat = &self.seat;
        let mut tries: Vec<Try> = Vec::new();
        for user in proof::users(&seat.login, signed_in.account.as_deref()) {
            if !proof::is_next_worth_a_try(&tries) {
                break;
            }
            told.send_modify(|progress| progress.go_on(State::Proving { user: user.clone() }));
            tries.push(seat.try_user(user, &signed_in, clock).await);
            told.send_modify(|progress| progress.tries.clone_from(&tries));
        }
        let (user, is_proven) = match proof::verdict(&seat.login, &tries) {
            Verdict::Proven(user) => (user, true),
            Verdict::Not { .. } if self.is_unproven_allowed => (seat.login.clone(), false),
            Verdict::Not { text, advice } => return State::Failed { text, advice },
        };
        let now = clock.wall();
        let SignedIn { refresh_token, account, .. } = signed_in;
        let grant = StoredGrant { refresh_token, account, user, signed_in_at: now, renewed_at: now, refused: None };
        // By itself, so that it is not cut in the middle when nobody waits any more.
        let stored = tokio::spawn(Arc::clone(seat).store(grant, is_proven, self.who.clone())).await;
        stored.unwrap_or_else(|error| State::Failed {
            text: format!("storing it ended by a fault of ours: {error}"),
            advice: String::new(),
        })
    }
}

impl Seat {
    /// The names of its mailboxes.
    fn mailbox(&self) -> String {
        self.mailboxes.join(", ")
    }

    async fn prove(&self, user: &str, token: &str, clock: &dyn Clock) -> Result<wire::Reply, forwarder::Unproven> {
        // Through the lane, which has few connections. Where it has just ended nobody else uses them.
        let lane = self.lanes.as_ref().and_then(|lanes| lanes.lane(&self.id));
        match lane {
            Some(lane) => lane.prove(user, token).await,
            None => forwarder::prove(&self.endpoint, clock.monotonic(), user, token).await,
        }
    }

    /// Whether upstream takes the token for `user`; what passes is tried a few times.
    async fn try_user(&self, user: String, signed_in: &SignedIn, clock: &dyn Clock) -> Try {
        let mut tried = proof::tried(&user, self.prove(&user, signed_in.token.expose(), clock).await);
        for _ in 1..TRIES {
            if tried.is_answered {
                break;
            }
            sleep(BETWEEN_TRIES).await;
            tried = proof::tried(&user, self.prove(&user, signed_in.token.expose(), clock).await);
        }
        tried
    }

    /// The record of its requests, once it is sure that a sign-in could be stored: the user should not do it for nothing.
    async fn ready(self: &Arc<Self>, clock: &Arc<dyn Clock>) -> Result<Ledger, Refusal> {
        let (seat, clock) = (Arc::clone(self), Arc::clone(clock));
        let ready = tokio::task::spawn_blocking(move || {
            seat.vault.check().map_err(|error| Refusal::new(RefusalCode::Unavailable, error.to_string()))?;
            Ok(seat.registration.ledger(Some(&seat.id), &*clock))
        });
        ready.await.unwrap_or_else(|error| Err(Refusal::new(RefusalCode::Internal, error.to_string())))
    }

    /// Stores a sign-in and sees that the lane uses it.
    async fn store(self: Arc<Self>, grant: StoredGrant, is_proven: bool, who: String) -> State {
        let (tenant, mailbox) = (self.tenant.clone(), self.mailbox());
        let (account, user) = (grant.account.clone(), grant.user.clone());
        let (vault, name) = (Arc::clone(&self.vault), self.registration.vault_name(&self.id));
        let stored = tokio::task::spawn_blocking(move || vault.store(&name, &grant).map_err(|error| error.to_string()));
        if let Err(text) =
            stored.await.unwrap_or_else(|error| Err(format!("writing it ended by a fault of ours: {error}")))
        {
            warn!(tenant, mailbox, error = text, "a sign-in could not be stored");
            let advice = "mend that and sign in again; what was stored before is as it was".to_owned();
            return State::Failed { text, advice };
        }
        info!(tenant, mailbox, account, user, who, is_proven, "signed in");
        if let Some(lanes) = &self.lanes {
            // Those of now: a reload may have replaced the ones that there were when the sign-in began.
            if let Some(tokens) = lanes.tokens_of_user(&self.id) {
                tokens.renewed().await;
            }
            if let Some(lane) = lanes.lane(&self.id) {
                lane.hasten().await;
            }
        }
        State::Stored { user, is_proven }
    }
}

/// Only a browser of this machine may bring the code here.
fn check_redirect(redirect_uri: &str) -> Result<(), Refusal> {
    let is_loopback = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let is_right = Url::parse(redirect_uri).is_ok_and(|url| url.scheme() == "http" && is_loopback(&url));
    let text = "redirect_uri must be an http URL of this machine";
    if is_right { Ok(()) } else { Err(Refusal::new(RefusalCode::BadRequest, text)) }
}

fn unknown() -> Refusal {
    Refusal::new(
        RefusalCode::Unavailable,
        "this sign-in is over: it was given up, or another `login` for the same mailbox has begun",
    )
}

fn refused(error: &SignInError) -> Refusal {
    let text = match with_other_way(failed(error), true) {
        State::Failed { text, advice } if !advice.is_empty() => format!("{text}\n{advice}"),
        _ => error.to_string(),
    };
    Refusal::new(RefusalCode::Unavailable, text)
}

fn failed(error: &SignInError) -> State {
    let advice = match error {
        SignInError::Failed(failure) => failure.advice.clone(),
        _ => String::new(),
    };
    State::Failed { text: error.to_string(), advice }
}

/// A tenant that allows no device codes is the usual reason (facts 4.5), and there is another way.
fn with_other_way(state: State, is_device_code: bool) -> State {
    match state {
        State::Failed { text, advice } if is_device_code && BLOCKED.iter().any(|code| text.contains(code)) => {
            let advice = format!("{advice}; or, if only device codes are blocked, sign in with --browser");
            State::Failed { text, advice }
        }
        state => state,
    }
}
