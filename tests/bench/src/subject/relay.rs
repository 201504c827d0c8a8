//! The relay itself, with its queue: as an operator would set it up, but with pacing off.

use std::fmt::Write as _;
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
}

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
}

impl Subject for Relay {
    fn description(&self) -> Description {
        let routes = match self.setup {
            Setup::Plain => String::new(),
            Setup::Routes => format!("; {ROUTES} routes, of which the last matches, and {MAP_ENTRIES} map entries"),
        };
        Description {
            name: self.name.clone(),
            product: self.product.clone(),
            setup: format!(
                "client credentials, XOAUTH2, one lane; messages_per_minute and recipients_per_day out of reach, otherwise \
                 defaults{routes}"
            ),
        }
    }

    fn has_queue(&self) -> bool {
        true
    }

    fn most_idle(&self) -> usize {
        10_000
    }

    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError> {
        let address = ground::free_address()?;
        // Nobody listens where a held relay sends to, and so its lane stands.
        let port = if setting.held { ground::free_address()?.port() } else { setting.upstream.port };
        let at = |name| setting.directory.join(name);
        ground::write(&at("secret"), 0o600, &setting.upstream.client_secret)?;
        ground::make_directory(&at("state"), 0o700)?;
        let mut configuration = configuration(setting, &self.program, address, port);
        if self.setup == Setup::Routes {
            configuration += &routes();
        }
        ground::write(&at("relay.toml"), 0o644, configuration)?;
        let mut command = setting.command(&self.program);
        command.args(["run", "--config"]).arg(at("relay.toml"));
        Spawned::start(ground::logged(command, &at("relay.log"))?, address)
    }
}

/// Whether this relay counts recipients: an older one refuses the key.
fn counts_recipients(program: &Path) -> bool {
    let reference = Command::new(program).args(["check", "--reference"]).output();
    reference.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("| `recipients_per_day` |"))
}

fn configuration(setting: &Setting<'_>, program: &Path, address: std::net::SocketAddr, port: u16) -> String {
    let upstream = setting.upstream;
    let ca_file = upstream.ca_file.display();
    let directory = setting.directory.display();
    format!(
        "[listener.local]\n\
         address = \"{address}\"\n\
         max_message_size = \"{size} B\"\n\
         max_connections = {clients}\n\
         max_connections_per_client = {clients}\n\
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
         [spool]\n\
         directory = \"{directory}/state\"\n\
         min_free_bytes = \"0 B\"\n\
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
        day = if counts_recipients(program) { "recipients_per_day = 1000000000\n" } else { "" },
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
