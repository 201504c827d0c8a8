//! Several tenants behind one relay: [`Tenants`] builds the simulated Microsoft 365 and the configuration for it, sends as anybody,
//! and tells which login carried which message and what SendAs denied. The tests here hold the builder; routing has its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{
    Action, Application, Fault, Grant, Limits, Mailbox, Sandbox, SandboxOptions, SendAsDenial, Stage, Target,
    TenantModel,
};
use serde_json::Value;
use tempfile::TempDir;
use wire::Reply;

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, binary, field, until, write_secret};

/// The password of every user that [`user`] writes.
pub(crate) const PASSWORD: &str = "correct horse";
/// As `hash-password` made it of [`PASSWORD`].
pub(crate) const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$+X9Xjr4HV8S6PLRBC93HvQ$NaLftakxtDw5+iimeBuvboqL9ARLHgEYkoktJU/nyBE";

/// A tenant: its name in the configuration and its domain.
pub(crate) type Organisation = (&'static str, &'static str);

/// The three tenants of [`ROWS`].
pub(crate) const ORGANISATIONS: [Organisation; 3] =
    [("contoso", "contoso.com"), ("fabrikam", "fabrikam.com"), ("tailspin", "tailspin.example")];

/// A mailbox of the world.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Of which tenant, by its name in the configuration.
    pub(crate) tenant: &'static str,
    /// Its name in the configuration; its address has this name at the tenant's domain.
    pub(crate) name: &'static str,
    /// What Exchange lets it send as besides itself.
    pub(crate) send_as: &'static [&'static str],
    /// Its other addresses in Exchange.
    pub(crate) aliases: &'static [&'static str],
    /// Further lines of its section of the configuration.
    pub(crate) keys: &'static str,
}

/// A mailbox that may send as itself, and of which the configuration says nothing more.
pub(crate) const fn row(tenant: &'static str, name: &'static str) -> Row {
    Row { tenant, name, send_as: &[], aliases: &[], keys: "" }
}

impl Row {
    /// Its address.
    pub(crate) fn address(&self) -> String {
        format!("{}@{}", self.name, domain(self.tenant))
    }
}

/// Twenty mailboxes in three tenants.
pub(crate) const ROWS: [Row; 20] = [
    row("contoso", "scanner"),
    row("contoso", "erp"),
    row("contoso", "invoices"),
    row("contoso", "backup"),
    row("contoso", "monitoring"),
    row("contoso", "tickets"),
    row("contoso", "hr"),
    row("contoso", "docs"),
    row("fabrikam", "press"),
    row("fabrikam", "welding"),
    row("fabrikam", "robots"),
    row("fabrikam", "quality"),
    row("fabrikam", "gate"),
    row("fabrikam", "ups"),
    row("tailspin", "booking"),
    row("tailspin", "crew"),
    row("tailspin", "hangar"),
    row("tailspin", "fuel"),
    row("tailspin", "tower"),
    row("tailspin", "cargo"),
];

fn domain(tenant: &str) -> &'static str {
    ORGANISATIONS.iter().find(|(name, _)| *name == tenant).unwrap_or_else(|| panic!("there is no tenant {tenant}")).1
}

/// A GUID of its own for each place in [`ORGANISATIONS`].
fn guid(kind: u32, at: usize) -> String {
    format!("{kind:08}-0000-4000-8000-{at:012}")
}

/// A `[user.NAME]` with [`PASSWORD`] and further lines.
pub(crate) fn user(name: &str, keys: &str) -> String {
    format!("[user.{name}]\npassword_hash = \"{HASH}\"\n{keys}\n")
}

/// A `[listener.NAME]` on any port with further lines.
pub(crate) fn listener(name: &str, keys: &str) -> String {
    format!("[listener.{name}]\naddress = \"127.0.0.1:0\"\n{keys}\n")
}

/// One simulated Microsoft 365 with several tenants, each with an application and a secret of its own, and the files of a relay in
/// front of it. SendAs is enforced; rates and quotas are not.
pub(crate) struct Tenants {
    pub(crate) sandbox: Sandbox,
    directory: TempDir,
    rows: Vec<Row>,
}

impl Tenants {
    /// The tenants of these mailboxes.
    pub(crate) async fn new(rows: &[Row]) -> Self {
        let secret = |name: &str| format!("{name}~Only.For-The_Tests~Opens.Nothing");
        let tenants = ORGANISATIONS.iter().enumerate().map(|(at, (name, domain))| {
            let (tenant, client) = (guid(1, at), guid(2, at));
            let model = TenantModel::new(&tenant, &[domain]).application(Application::new(&client, &secret(name)));
            rows.iter().filter(|row| row.tenant == *name).fold(model, |model, row| {
                let mailbox = Mailbox::new(&row.address()).granted(&client, Grant::Rbac);
                let mailbox = row.send_as.iter().fold(mailbox, |mailbox, other| mailbox.send_as(other));
                model.mailbox(row.aliases.iter().fold(mailbox, |mailbox, alias| mailbox.alias(alias)))
            })
        });
        let options = SandboxOptions { limits: Limits::Off, tenants: tenants.collect(), ..SandboxOptions::default() };
        let sandbox = Sandbox::start(options).await.unwrap();
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("ca.pem"), sandbox.ca_pem()).unwrap();
        for (name, _) in ORGANISATIONS {
            write_secret(&directory.path().join(format!("{name}.secret")), &secret(name));
        }
        Self { sandbox, directory, rows: rows.to_vec() }
    }

    /// The configuration of all tenants and mailboxes, with `tables` behind it: listeners, users, routes and rewriting.
    pub(crate) fn configuration_text(&self, tables: &str) -> String {
        let shown = |name: &str| self.directory.path().join(name).display().to_string();
        let (ca, authority) = (shown("ca.pem"), self.sandbox.authority());
        let (host, port) = (self.sandbox.smtp_host(), self.sandbox.smtp_port());
        let used =
            ORGANISATIONS.iter().enumerate().filter(|(_, (name, _))| self.rows.iter().any(|row| row.tenant == *name));
        let tenants = used.map(|(at, (name, _))| {
            format!(
                "[tenant.{name}]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = {:?} }}\n\
                 authority = \"{authority}\"\nauthority_ca_file = {ca:?}\n\
                 smtp = {{ host = \"{host}\", port = {port}, ca_file = {ca:?} }}\n",
                guid(1, at),
                guid(2, at),
                shown(&format!("{name}.secret")),
            )
        });
        let mailboxes = self.rows.iter().map(|row| {
            format!(
                "[mailbox.{}]\ntenant = \"{}\"\naddress = \"{}\"\nmessages_per_minute = 1000000\n{}\n",
                row.name,
                row.tenant,
                row.address(),
                row.keys
            )
        });
        format!(
            "hostname = \"relay01.example.com\"\n{}{}[spool]\ndirectory = {:?}\nmin_free_bytes = \"1 MiB\"\n\
             [http]\naddress = \"\"\n[log]\nformat = \"json\"\n{tables}",
            tenants.collect::<String>(),
            mailboxes.collect::<String>(),
            shown("state"),
        )
    }

    /// Writes it, in one step, over what a relay was started with; gives its path.
    pub(crate) fn configure(&self, tables: &str) -> PathBuf {
        let path = self.directory.path().join("xoauth2-relay.toml");
        let readable = std::fs::Permissions::from_mode(0o644);
        let new = tempfile::Builder::new().permissions(readable).tempfile_in(self.directory.path()).unwrap();
        std::fs::write(new.path(), self.configuration_text(tables)).unwrap();
        new.persist(&path).unwrap();
        path
    }

    /// Starts a relay that is configured so.
    pub(crate) async fn relay(&self, tables: &str) -> Relay {
        Relay::start(&self.configure(tables)).await
    }

    /// Waits until Exchange has this many messages, and gives the login that carried each, by the name of its [`Submission`].
    pub(crate) async fn carried(&self, count: usize) -> BTreeMap<String, String> {
        let count = u64::try_from(count).unwrap();
        let messages = self.sandbox.wait_for(count, PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
        let name = |id: &str| id.trim_matches(['<', '>']).split('@').next().unwrap_or_default().to_owned();
        messages.iter().map(|message| (name(&message.message_id), message.login.clone())).collect()
    }

    /// A mailbox in Exchange that has no section of its own: one of a wildcard mailbox.
    pub(crate) fn open_mailbox(&self, tenant: &str, address: &str) {
        let at = ORGANISATIONS.iter().position(|(name, _)| *name == tenant).unwrap();
        let mailbox = Mailbox::new(address).granted(&guid(2, at), Grant::Rbac);
        self.sandbox.add_mailbox(&guid(1, at), mailbox).unwrap();
    }

    /// Exchange lets nobody log in to this mailbox until the faults are cleared.
    pub(crate) fn refuse_logins(&self, address: &str) {
        let refused = Action::Reply("535 5.7.3 Authentication unsuccessful".to_owned());
        self.sandbox.inject(Fault::always(Stage::Auth, refused).only(Target::Mailbox(address.to_owned()))).unwrap();
    }

    /// Runs a command of the binary beside the daemon, with the configuration that is written now.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let mut command = binary();
        command.args(arguments).arg("--config").arg(self.directory.path().join("xoauth2-relay.toml"));
        tokio::task::block_in_place(|| command.output().unwrap())
    }

    /// Has the daemon take up this configuration.
    pub(crate) fn reload(&self, tables: &str) {
        self.configure(tables);
        let output = self.command(&["reload"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// What `status --json` shows.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.command(&["status", "--json"]).stdout).unwrap()
    }

    /// The number that a query of the queue's database gives; none while that cannot be read.
    pub(crate) fn count(&self, query: &str) -> Option<i64> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let path = self.directory.path().join("state/queue.db");
        let queue = rusqlite::Connection::open_with_flags(path, flags).ok()?;
        queue.query_row(query, [], |row| row.get(0)).ok()
    }

    /// Waits until nothing is queued.
    pub(crate) async fn is_empty(&self) {
        let is_empty = until(PATIENCE, || self.count("SELECT count(*) FROM delivery") == Some(0)).await;
        assert!(is_empty, "something is still queued");
    }

    /// Waits until so many deliveries are queued.
    pub(crate) async fn are_queued(&self, count: i64) {
        let are_queued = || self.count("SELECT count(*) FROM delivery") == Some(count);
        assert!(until(PATIENCE, are_queued).await, "{:?}", self.count("SELECT count(*) FROM delivery"));
    }

    /// So much time that everything that waits in the queue of a stopped relay is due.
    pub(crate) fn let_time_pass(&self) {
        let queue = rusqlite::Connection::open(self.directory.path().join("state/queue.db")).unwrap();
        queue.execute("UPDATE delivery SET due = 0", []).unwrap();
    }

    /// What Exchange denied so far.
    pub(crate) fn denials(&self) -> Vec<SendAsDenial> {
        self.sandbox.send_as_denials()
    }
}

/// Where a listener of the relay is.
pub(crate) fn address_of(relay: &Relay, listener: &str) -> SocketAddr {
    let is_its = |line: &str| line.contains("\"listening\"") && field(line, "listener") == listener;
    field(&relay.log().wait_for(is_its), "address").parse().unwrap()
}

/// The client 127.0.0.`client`, logged in as `user` with [`PASSWORD`].
pub(crate) async fn connected(relay: &Relay, listener: &str, client: u8, user: Option<&str>) -> Client {
    let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 0, client), address_of(relay, listener)).await.unwrap();
    if let Some(user) = user {
        let login = STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
        assert_eq!(client.command(&format!("AUTH PLAIN {login}")).await.unwrap().code(), 235, "{user}");
    }
    client
}

/// A message as some client sends it.
pub(crate) struct Submission<'a> {
    /// By which listener.
    pub(crate) listener: &'a str,
    /// From 127.0.0.this.
    pub(crate) client: u8,
    /// Logged in as whom, with [`PASSWORD`].
    pub(crate) user: Option<&'a str>,
    /// The reverse-path, without brackets.
    pub(crate) sender: &'a str,
    /// What stands in From.
    pub(crate) from: &'a str,
    /// To whom.
    pub(crate) recipients: &'a [&'a str],
    /// What it is known by: the left side of its Message-ID.
    pub(crate) name: &'a str,
}

impl<'a> Submission<'a> {
    /// From `address`, by envelope and header, by the only client there is.
    pub(crate) fn from(listener: &'a str, address: &'a str, name: &'a str) -> Self {
        Self { listener, client: 1, user: None, sender: address, from: address, recipients: &[RECIPIENT], name }
    }

    /// Sends it; gives the last reply.
    pub(crate) async fn send(&self, relay: &Relay) -> Reply {
        let mut client = connected(relay, self.listener, self.client, self.user).await;
        let Self { from, name, .. } = self;
        let text =
            format!("From: {from}\r\nTo: {RECIPIENT}\r\nSubject: {name}\r\nMessage-ID: <{name}@test.local>\r\n\r\nhi");
        client.send_from(self.sender, self.recipients, text.as_bytes()).await.unwrap()
    }
}

/// A listener and a route to it for each mailbox, all by the mailbox's name.
fn a_route_for_each() -> String {
    let tables = ROWS.iter().map(|Row { name, .. }| {
        listener(name, "authentication = \"optional\"")
            + &format!("[[route]]\nname = \"{name}\"\nlisteners = [\"{name}\"]\nmailbox = [\"{name}\"]\n")
    });
    tables.collect::<String>() + &user("erp_server", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mailbox_of_every_tenant_sends_as_itself() {
    let world = Tenants::new(&ROWS).await;
    let relay = world.relay(&a_route_for_each()).await;
    for (at, row) in (0_u8..).zip(&ROWS) {
        let address = row.address();
        let user = (at % 5 == 0).then_some("erp_server");
        let submission = Submission { client: 1 + at, user, ..Submission::from(row.name, &address, row.name) };
        assert_eq!(submission.send(&relay).await.code(), 250, "{}", row.name);
    }
    let expected: BTreeMap<_, _> = ROWS.iter().map(|row| (row.name.to_owned(), row.address())).collect();
    assert_eq!(world.carried(ROWS.len()).await, expected);
    assert_eq!(world.denials(), []);
    // Each tenant was asked once, by its own application.
    assert_eq!(world.sandbox.counters().token_requests, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchange_denies_what_is_from_another_mailbox_but_for_its_send_as() {
    let rows = [
        Row { send_as: &["sales@contoso.com"], aliases: &["orders@contoso.com"], ..row("contoso", "erp") },
        row("contoso", "hr"),
        row("tailspin", "crew"),
    ];
    let world = Tenants::new(&rows).await;
    let kept = "[[route]]\nname = \"all\"\nmailbox = [\"erp\"]\nsender = \"keep\"\n";
    let relay = world.relay(&(listener("local", "") + kept)).await;
    for (name, sender, from) in [
        ("sales", "sales@contoso.com", "sales@contoso.com"),
        ("alias", "orders@contoso.com", "orders@contoso.com"),
        ("envelope", "hr@contoso.com", "erp@contoso.com"),
        ("header", "erp@contoso.com", "crew@tailspin.example"),
        ("own", "erp@contoso.com", "erp@contoso.com"),
    ] {
        let submission = Submission { sender, ..Submission::from("local", from, name) };
        assert_eq!(submission.send(&relay).await.code(), 250, "{name}");
    }
    let carried = world.carried(3).await;
    assert!(["sales", "alias", "own"].iter().all(|name| carried[*name] == "erp@contoso.com"), "{carried:?}");
    let denied = until(PATIENCE, || world.denials().len() == 2).await;
    let mut denials = world.denials();
    denials.sort_by(|one, other| one.from.cmp(&other.from));
    let said: Vec<_> = denials.iter().map(|denial| (denial.login.as_str(), denial.from.as_str())).collect();
    assert!(denied, "{said:?}");
    assert_eq!(said, [("erp@contoso.com", "crew@tailspin.example"), ("erp@contoso.com", "hr@contoso.com")]);
}
