//! Every way in which the relay proves itself to Entra ID, on the real binary: each brings mail down the whole road, is rotated
//! while mail flows, and is told with advice when it does not do. When what is looked at is the crate's
//! (`crates/token-manager/tests/manager`); nothing here waits for the relay's look at its files every 30 s.
//!
//! Instead Exchange refuses the relay's token once with a 535, to a mailbox that has not logged in before: then the relay asks
//! for another at once, with the credential as it stands by then. So most worlds here have many mailboxes.

mod bad_input;
pub(crate) mod certificates;
mod delivery;
mod failures;
mod rotation;
mod sharing;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock as _, ManualClock, SystemClock};
use sandbox::{
    Action, Application, DEFAULT_CLIENT_ID, DEFAULT_SECRET, DEFAULT_TENANT_ID, Fault, FederatedIdentity, Grant, Limits,
    Mailbox, ManagedIdentity, SandboxOptions, Stage, TOKEN_EXCHANGE_AUDIENCE, Target,
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::{
    Client, Log, PATIENCE, RECIPIENT, Relay, SENDER, World, binary, field, message, until, write_secret,
};
use certificates::{FIRST, KeyForm, Pair};

/// Worlds at a time.
const TOGETHER: usize = 8;

/// The managed identity of the simulated machine.
pub(crate) const IDENTITY: &str = "77777777-8888-9999-aaaa-000000000000";
const SUBJECT: &str = "system:serviceaccount:mail:relay";
const VARIABLE: &str = "CONTOSO_SECRET";
const HOUR: Duration = Duration::from_hours(1);

/// A credential as an administrator sets it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SecretInFile,
    SecretInVariable,
    SecretOfSystemd,
    Certificate(&'static str, KeyForm),
    FederatedToken,
    /// By its client id, or as the only one of the machine.
    ManagedIdentity {
        is_named: bool,
    },
}

impl Kind {
    pub(crate) const CERTIFICATE: Self = Self::Certificate("PS256", KeyForm::Pkcs8);
    pub(crate) const MANAGED_IDENTITY: Self = Self::ManagedIdentity { is_named: true };

    /// A tenant that takes it, and it alone, and a relay that has it.
    pub(crate) async fn world(self) -> World {
        self.world_at(&manual_clock()).await
    }

    /// The same; `clock` is the simulated Microsoft's alone.
    pub(crate) async fn world_at(self, clock: &Arc<ManualClock>) -> World {
        let options = SandboxOptions { limits: Limits::Off, clock: clock.clone(), ..SandboxOptions::default() };
        self.set_up(World::with(options).await)
    }

    fn set_up(self, world: World) -> World {
        let path = |name: &str| world.path(name).display().to_string();
        let bare = Application::without_credential(DEFAULT_CLIENT_ID);
        let (application, line) = match self {
            Self::SecretInFile => return world,
            Self::SecretInVariable => return world.proved_by(format!("client_secret = {{ env = {VARIABLE:?} }}")),
            Self::SecretOfSystemd => {
                std::fs::create_dir(world.path("credentials")).unwrap();
                write_secret(&world.path("credentials/contoso"), DEFAULT_SECRET);
                return world.proved_by("client_secret = { systemd_credential = \"contoso\" }");
            }
            Self::Certificate(algorithm, form) => {
                FIRST.write(&world, form);
                let (certificate, key) = (path("cert.pem"), path("key.pem"));
                let line = format!(
                    "certificate_credential = {{ certificate = {certificate:?}, key = {{ file = {key:?} }}, \
                     algorithm = {algorithm:?} }}"
                );
                (bare.with_certificate(FIRST.der.clone()), line)
            }
            Self::FederatedToken => {
                write_secret(&world.path("token"), &workload_token(&world));
                let line = format!("federated_token = {{ file = {:?} }}", path("token"));
                (bare.with_federated(FederatedIdentity::workload(SUBJECT)), line)
            }
            Self::ManagedIdentity { is_named } => {
                let identity = ManagedIdentity::new(IDENTITY);
                let trusted = FederatedIdentity::managed_identity(DEFAULT_TENANT_ID, &identity);
                let has_identity = |tenant: &mut sandbox::TenantModel| tenant.managed_identities.push(identity);
                world.sandbox.change_tenant(DEFAULT_TENANT_ID, has_identity).unwrap();
                let name = if is_named { format!(", client_id = {IDENTITY:?}") } else { String::new() };
                let line = format!("managed_identity = {{ endpoint = {:?}{name} }}", world.sandbox.imds());
                (bare.with_federated(trusted), line)
            }
        };
        change_application(&world, |registered| *registered = application);
        world.proved_by(line)
    }

    /// What starts a relay in `world`, unready.
    fn command(self, world: &World) -> Command {
        let mut command = binary();
        command.args(["run", "--config"]).arg(world.configuration());
        match self {
            Self::SecretInVariable => command.env(VARIABLE, DEFAULT_SECRET),
            Self::SecretOfSystemd => command.env("CREDENTIALS_DIRECTORY", world.path("credentials")),
            _ => &mut command,
        };
        command
    }

    pub(crate) async fn relay(self, world: &World) -> Relay {
        Relay::spawn(self.command(world)).await
    }
}

/// A clock for the simulated Microsoft that shows the time and stands still.
pub(crate) fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(SystemClock::new().wall()))
}

fn change_application(world: &World, change: impl FnOnce(&mut Application)) {
    world.sandbox.change_application(DEFAULT_CLIENT_ID, change).unwrap();
}

/// A token as Kubernetes would project it, for an hour.
pub(crate) fn workload_token(world: &World) -> String {
    world.sandbox.workload_token(SUBJECT, TOKEN_EXCHANGE_AUDIENCE, HOUR)
}

/// Puts another file in the place of one, as careful administrators and tools do.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    write_secret(&new, text);
    std::fs::rename(&new, path).unwrap();
}

/// What `status --json` shows.
pub(crate) async fn status(world: &World) -> Value {
    let mut command = binary();
    command.args(["status", "--json", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Waits for a line of the log. Never by blocking: the simulated Microsoft needs this test's threads to bring it about.
pub(crate) async fn log_line(relay: &Relay, wanted: impl Fn(&str) -> bool) -> String {
    another_log_line(relay, 0, wanted).await
}

/// The same of one more line than `before`.
async fn another_log_line(relay: &Relay, before: usize, wanted: impl Fn(&str) -> bool) -> String {
    let is_there = until(PATIENCE, || relay.log().count(&wanted) > before).await;
    assert!(is_there, "the line did not come; the log is:\n{}", relay.log().text());
    relay.log().wait_for_another(before, wanted)
}

/// Sends a message to the listener at `address`.
pub(crate) async fn submit(address: SocketAddr, name: &str) {
    let mut client = Client::connect(address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
}

/// Drives each case, some at a time, and waits for all of them.
async fn each<C, F>(cases: impl IntoIterator<Item = C>, drive: impl Fn(C) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (places, mut runs) = (Arc::new(Semaphore::new(TOGETHER)), JoinSet::new());
    for case in cases {
        let (places, driven) = (Arc::clone(&places), drive(case));
        runs.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            driven.await;
        });
    }
    all(runs).await;
}

/// Waits for all of them, and fails with what each that failed said.
async fn all(mut runs: JoinSet<()>) {
    let mut failures = Vec::new();
    while let Some(ended) = runs.join_next().await {
        failures.extend(ended.err().map(|panic| panic.to_string()));
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

fn mailbox(number: usize) -> String {
    format!("box{number}@contoso.com")
}

/// So many more mailboxes, each with a listener of its own.
fn with_mailboxes(world: World, count: usize) -> World {
    let local = "[[route]]\nname = \"local\"\nlisteners = [\"local\"]\nmailbox = [\"scanner\"]\n".to_owned();
    let tables = (0..count).map(|number| {
        let address = mailbox(number);
        let granted = Mailbox::new(&address).granted(DEFAULT_CLIENT_ID, Grant::Rbac).send_as(SENDER);
        world.sandbox.add_mailbox(DEFAULT_TENANT_ID, granted).unwrap();
        format!(
            "[mailbox.box{number}]\naddress = {address:?}\nmessages_per_minute = 1000000\n\
             [listener.box{number}]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"box{number}\"\nlisteners = [\"box{number}\"]\nmailbox = [\"box{number}\"]\n"
        )
    });
    let tables = std::iter::once(local).chain(tables).collect::<String>();
    world.set("tables", tables)
}

/// Where the listener of a mailbox listens.
fn listener(relay: &Relay, number: usize) -> SocketAddr {
    let name = format!("box{number}");
    let line = relay.log().wait_for(|line| line.contains("\"listening\"") && field(line, "listener") == name);
    field(&line, "address").parse().unwrap()
}

/// A relay that has its first token, and what was sent through it.
struct Run {
    world: World,
    relay: Relay,
    /// Messages so far, each by a mailbox of its own.
    sent: usize,
}

impl Run {
    /// Mail by up to `mailboxes` mailboxes.
    async fn begin(kind: Kind, world: World, mailboxes: usize) -> Self {
        let world = with_mailboxes(world, mailboxes);
        let relay = kind.relay(&world).await;
        log_line(&relay, |line| line.contains("token fetched")).await;
        Self { world, relay, sent: 0 }
    }

    fn log(&self) -> &Log {
        self.relay.log()
    }

    /// A message from a mailbox that logs in for it, and its arrival.
    async fn send(&mut self) {
        let sender = mailbox(self.sent);
        submit(listener(&self.relay, self.sent), &format!("message{}", self.sent)).await;
        self.sent += 1;
        let has_arrived = || self.world.sandbox.messages().iter().any(|message| message.login == sender);
        assert!(until(PATIENCE, has_arrived).await, "no mail by {sender}; the log is\n{}", self.log().text());
    }

    /// The same; Exchange refuses the login once, so that the relay asks for another token on the way.
    async fn send_with_another_token(&mut self) {
        let fetched = |line: &str| line.contains("token fetched");
        let before = self.log().count(fetched);
        self.refuse_the_next_login();
        self.send().await;
        another_log_line(&self.relay, before, fetched).await;
        assert_eq!(self.world.sandbox.waiting_faults(), [], "the login was refused");
    }

    fn refuse_the_next_login(&self) {
        let refusal = Action::Reply("535 5.7.3 Authentication unsuccessful [..]".to_owned());
        let fault = Fault::once(Stage::Auth, refusal).only(Target::Mailbox(mailbox(self.sent)));
        self.world.sandbox.inject(fault).unwrap();
    }

    /// The whole log of the relay, which ends without a message lost, doubled, bounced or late.
    async fn end(self) -> String {
        let (status, log) = self.relay.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(self.world.count("SELECT count(*) FROM delivery"), Some(0));
        assert_eq!(self.world.sandbox.duplicates().len(), 0);
        assert!(!log.contains("not sent yet") && !log.contains("\"ERROR\""), "{log}");
        log
    }
}

/// How many lines of a log warn.
fn warnings(log: &str) -> usize {
    log.lines().filter(|line| line.contains("\"WARN\"")).count()
}

/// A pair of files at Entra's side: this certificate is registered, others are not.
fn register(world: &World, pairs: &[&Pair]) {
    let certificates = pairs.iter().map(|pair| pair.der.clone()).collect();
    change_application(world, |application| application.certificates = certificates);
}
