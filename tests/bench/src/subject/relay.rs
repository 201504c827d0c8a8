//! The relay itself, with its queue or with a direct listener: as an operator would set it up, but with pacing off.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Setting, Spawned, Subject, ground};
use crate::error::BenchError;
use crate::figure::Description;

/// A client that has gone counts until its session has ended, and by then the next may have come.
const MORE_CLIENTS: usize = 100;

/// Routes of a relay that has many; the last takes what is measured.
const ROUTES: usize = 1_000;
/// Entries of its maps, half of them of senders and half of recipients; none is for what is measured.
const MAP_ENTRIES: usize = 10_000;

/// How a relay is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// The only mailbox serves everything.
    Plain,
    /// [`ROUTES`] and [`MAP_ENTRIES`] are gone through first.
    Routes,
    /// A direct listener, no queue, and no directory to keep anything in.
    Direct,
}

/// All setups that can be asked for: the name of each, and what it is.
pub(crate) const SETUPS: [(&str, &str); 4] = [
    ("relay", "the release build of this tree, or that of --relay, with its queue"),
    (DIRECT, "the same with delivery = \"direct\": no queue and no state"),
    ("relay-before", "the build of --before"),
    ("relay-routes", "with --routes, the relay with many routes and map entries"),
];
/// The name of [`Setup::Direct`].
pub(crate) const DIRECT: &str = "relay-direct";
/// What a service manager's environment would make a state directory of.
const PLACES: [&str; 3] = ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME"];

/// The relay, by the path of its program.
#[derive(Debug)]
pub(crate) struct Relay {
    name: String,
    program: PathBuf,
    product: String,
    setup: Setup,
}

impl Relay {
    /// The relay at `program`, under this name; fails when it cannot say its version.
    pub(crate) fn new(name: &str, program: PathBuf, setup: Setup) -> Result<Self, BenchError> {
        let product = ground::answer(Command::new(&program).arg("--version"))?;
        Ok(Self { name: name.to_owned(), program, product, setup })
    }

    /// The relay at `program` as [`DIRECT`]; fails, with the words that a remark needs, when it has no direct mode.
    pub(crate) fn direct(program: PathBuf) -> Result<Self, BenchError> {
        if !has_direct_mode(&reference(&program)?) {
            return Err(BenchError::Impossible("this relay has no direct mode".to_owned()));
        }
        Self::new(DIRECT, program, Setup::Direct)
    }
}

impl Subject for Relay {
    fn description(&self) -> Description {
        let more = match self.setup {
            Setup::Plain => String::new(),
            Setup::Routes => format!("; {ROUTES} routes, of which the last matches, and {MAP_ENTRIES} map entries"),
            Setup::Direct => {
                "; a direct listener without a state directory: no queue, it answers with upstream's replies".to_owned()
            }
        };
        Description {
            name: self.name.clone(),
            product: self.product.clone(),
            setup: format!(
                "client credentials, XOAUTH2, one lane; messages_per_minute and recipients_per_day out of reach, otherwise \
                 defaults{more}"
            ),
        }
    }

    fn has_queue(&self) -> bool {
        self.setup != Setup::Direct
    }

    fn most_idle(&self) -> usize {
        10_000
    }

    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError> {
        if setting.held && !self.has_queue() {
            return Err(BenchError::Impossible(format!("{} has no queue: it cannot be held", self.name)));
        }
        let address = ground::free_address()?;
        // Nobody listens where a held relay sends to, and so its lane stands.
        let port = if setting.held { ground::free_address()?.port() } else { setting.upstream.port };
        let at = |name| setting.directory.join(name);
        ground::write(&at("secret"), 0o600, &setting.upstream.client_secret)?;
        if self.has_queue() {
            ground::make_directory(&at("state"), 0o700)?;
        }
        let counts_recipients = reference(&self.program)?.contains("| `recipients_per_day` |");
        let mut configuration = configuration(setting, self.setup, counts_recipients, address, port);
        if self.setup == Setup::Routes {
            configuration += &routes();
        }
        ground::write(&at("relay.toml"), 0o644, configuration)?;
        let mut command = setting.command(&self.program);
        command.args(["run", "--config"]).arg(at("relay.toml"));
        if self.setup == Setup::Direct {
            for place in PLACES {
                command.env_remove(place);
            }
        }
        Spawned::start(ground::logged(command, &at("relay.log"))?, address)
    }
}

/// What this relay says of its configuration; an older one knows less.
fn reference(program: &Path) -> Result<String, BenchError> {
    ground::answer(Command::new(program).args(["check", "--reference"]))
}

/// Whether a relay with this reference has direct listeners, and does not only promise them.
fn has_direct_mode(reference: &str) -> bool {
    let delivery = reference.lines().find(|line| line.starts_with("| `delivery` |")).unwrap_or_default();
    delivery.contains("`\"direct\"`") && !delivery.contains("`\"direct\"` *(later)*")
}

fn configuration(
    setting: &Setting<'_>,
    setup: Setup,
    counts_recipients: bool,
    address: SocketAddr,
    port: u16,
) -> String {
    let upstream = setting.upstream;
    let ca_file = upstream.ca_file.display();
    let directory = setting.directory.display();
    let (delivery, spool) = match setup {
        Setup::Plain | Setup::Routes => {
            ("", format!("[spool]\ndirectory = \"{directory}/state\"\nmin_free_bytes = \"0 B\"\n"))
        }
        Setup::Direct => ("delivery = \"direct\"\n", String::new()),
    };
    format!(
        "[listener.local]\n\
         address = \"{address}\"\n\
         max_message_size = \"{size} B\"\n\
         max_connections = {clients}\n\
         max_connections_per_client = {clients}\n\
         {delivery}\
         [tenant.contoso]\n\
         tenant_id = \"{tenant_id}\"\n\
         client_id = \"{client_id}\"\n\
         client_secret = {{ file = \"{directory}/secret\" }}\n\
         authority = \"{authority}\"\n\
         authority_ca_file = \"{ca_file}\"\n\
         scope = \"{scope}\"\n\
         smtp = {{ host = \"localhost\", port = {port}, ca_file = \"{ca_file}\" }}\n\
         [mailbox.scanner]\n\
         address = \"{user}\"\n\
         connections = {connections}\n\
         messages_per_minute = 1000000000\n\
         {day}\
         max_message_size = \"{size} B\"\n\
         {spool}\
         [http]\n\
         address = \"\"\n\
         [log]\n\
         format = \"json\"\n",
        size = setting.largest_message.max(35 * 1024 * 1024),
        clients = 2 * setting.clients + MORE_CLIENTS,
        tenant_id = upstream.tenant_id,
        client_id = upstream.client_id,
        authority = upstream.authority,
        scope = upstream.scope,
        user = upstream.user,
        connections = setting.upstream_connections,
        day = if counts_recipients { "recipients_per_day = 1000000000\n" } else { "" },
    )
}

/// Routes told apart by senders, users, recipients and networks in turn, none of which is the measured mail's, before one that
/// takes everything; and maps of other addresses and domains.
fn routes() -> String {
    let mut text = String::new();
    for at in 1..ROUTES {
        let matcher = match at % 4 {
            0 => format!("senders = [\"app{at}@old{at}.local\", \"*@host{at}.local\"]"),
            1 => format!("users = [\"user{at}\"]"),
            2 => format!("recipients = [\"list{at}@contoso.com\", \"*@department{at}.contoso.com\"]"),
            _ => format!("networks = [\"10.{}.{}.0/24\"]", at / 256, at % 256),
        };
        let _ = write!(text, "[[route]]\nname = \"route {at}\"\n{matcher}\nmailbox = [\"scanner\"]\n");
    }
    text += "[[route]]\nname = \"measured\"\nmailbox = [\"scanner\"]\n";
    for at in (1..ROUTES).filter(|at| at % 4 == 1) {
        // Nobody logs in: it is the hash of nothing.
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";
        let _ = write!(text, "[user.user{at}]\npassword_hash = \"{hash}\"\n");
    }
    let map = |kind: &str| {
        let entry = |at: usize| match at % 2 {
            0 => format!("\"{kind}{at}@erp.local\" = \"{kind}{at}@contoso.com\""),
            _ => format!("\"@{kind}{at}.local\" = \"@contoso.com\""),
        };
        (0..MAP_ENTRIES / 2).map(entry).collect::<Vec<_>>().join(", ")
    };
    text + &format!("[rewrite]\nsenders = {{ {} }}\nrecipients = {{ {} }}\n", map("sender"), map("recipient"))
}

#[cfg(test)]
mod tests {
    use super::super::ground::tests::{setting, upstream};
    use super::*;

    #[test]
    fn a_direct_relay_is_told_of_no_directory_and_a_queue_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let setting = setting(Path::new("/d"), &upstream, false);
        for (setup, direct) in [(Setup::Plain, false), (Setup::Routes, false), (Setup::Direct, true)] {
            let text = configuration(&setting, setup, true, ([127, 0, 0, 1], 2525).into(), 9);
            let has = |wanted: &str| text.lines().any(|line| line == wanted);
            assert_eq!(has("delivery = \"direct\""), direct, "{text}");
            assert_eq!(has("[spool]") && has("directory = \"/d/state\""), !direct, "{text}");
            assert!(has("address = \"127.0.0.1:2525\"") && has("recipients_per_day = 1000000000"), "{text}");
            let listener = text.split("\n[").next().unwrap_or_default();
            assert!(listener.contains("delivery") == direct, "{text}");
        }
    }

    #[test]
    fn direct_mode_is_told_from_the_promise_of_it() {
        for (reference, has) in [
            ("| `delivery` | `\"queue\"` | `\"queue\"`: 250; `\"direct\"`: live. |", true),
            ("| `delivery` | `\"queue\"` | `\"queue\"`: 250; `\"direct\"` *(later)*: live. |", false),
            ("| `delivery` | `\"queue\"` | `\"queue\"`: 250. |", false),
            ("| `other` | `\"direct\"` |", false),
        ] {
            assert_eq!(has_direct_mode(&format!("# Keys\n\n{reference}\n")), has, "{reference}");
        }
    }
}
