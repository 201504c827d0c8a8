//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where the configuration is when nobody says otherwise.
const DEFAULT_CONFIG: &str = "/etc/xoauth2-relay/xoauth2-relay.toml";

/// Takes mail from old software by plain SMTP, keeps it safely, and sends it through Microsoft 365 with OAuth2.
#[derive(Debug, Parser)]
#[command(name = "xoauth2-relay", version, after_help = GUIDE)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the sandbox's relay takes mail when nobody says otherwise.
pub(crate) const DEFAULT_PORT: u16 = 2525;

const GUIDE: &str = "\
First time here? Watch a message travel, with nothing to configure:
  xoauth2-relay sandbox

Then write /etc/xoauth2-relay/xoauth2-relay.toml; this is the smallest that works:
  [tenant.contoso]
  tenant_id     = \"11111111-2222-3333-4444-555555555555\"   # Entra admin center, Overview
  client_id     = \"66666666-7777-8888-9999-000000000000\"   # App registrations, your app
  client_secret = { file = \"/etc/xoauth2-relay/contoso.secret\" }   # the secret's Value, not its ID

  [mailbox.scanner]
  address = \"scanner@contoso.com\"

Or with a user's sign-in instead of a client secret: grant = \"delegated\", and then
  xoauth2-relay login --mailbox scanner

Check it, and run it:
  xoauth2-relay check
  xoauth2-relay run

Every key can be given by the environment too: XOAUTH2_RELAY__MAILBOX__SCANNER__ADDRESS=...

Exit codes: 0 success, 64 wrong command line or configuration, 69 something outside is not to be had (a port, the
state directory), 70 a fault of the relay itself, 77 (explain) the message would be refused.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground; SIGTERM stops it in order, a second one at once.
    Run(Configured),
    /// Read the configuration, tell every mistake in it, and print what is in effect and where each value comes from (secrets are never shown).
    Check(Check),
    /// Show the running daemon on one screen: listeners, lanes, tokens, queue, last errors; what is wrong and the remedy first.
    Status(Status),
    /// Let the running daemon take up its configuration anew, as SIGHUP does: prints what changed; or every mistake, and then nothing has changed.
    Reload(Reload),
    /// Show which route, mailbox and sender a message would get and why, or why it would be refused and what to do; sends nothing and asks no daemon.
    Explain(Explain),
    /// Sign in as a user, for a mailbox of a tenant with grant = "delegated": by a code typed at another screen, by a browser, or with a refresh token that another product holds.
    Login(Login),
    /// Act on what is in the queue of the running daemon.
    Queue(Queue),
    /// Make the Argon2id hash of a password for [user.NAME]: asks twice on a terminal, else reads one line from standard input, and prints the hash alone.
    HashPassword,
    /// Make a self-signed certificate and its key, for devices that insist on TLS and check nothing, and print the lines for the configuration.
    SelfSigned(SelfSigned),
    /// Run a simulated Microsoft 365 tenant and the relay in front of it, on loopback: nothing to configure, no account.
    Sandbox(Sandbox),
}

/// Options of commands that read the configuration.
#[derive(Debug, Args)]
pub(crate) struct Configured {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) configured: Configured,
    /// Print the configuration in effect, or the mistakes, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the reference of every key, in Markdown, and read nothing.
    #[arg(long, conflicts_with_all = ["json", "example"])]
    pub(crate) reference: bool,
    /// Print an annotated example of a configuration file, and read nothing.
    #[arg(long, conflicts_with = "json")]
    pub(crate) example: bool,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) configured: Configured,
    /// The daemon's control socket; without it the configuration says where it is.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long, conflicts_with = "check")]
    pub(crate) json: bool,
    /// Print one line; exit 0 when the daemon answers, listens and takes mail, 69 otherwise. Trouble of a tenant or
    /// mailbox is named and is no failure: a restart would not cure it.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Options of `reload`.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) configured: Configured,
    /// The daemon's control socket; without it the configuration says where it is.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print the outcome as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) configured: Configured,
    /// The listener that the client comes to, by name; without it the only one, or the first that the client's address may use.
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) client: IpAddr,
    /// Who it logs in as; no password is asked for.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The envelope sender, as in MAIL FROM; "<>" is the null sender. Without it the message's From field is read.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// A recipient, as in RCPT TO; may be given several times. Without it the message's To, Cc and Bcc fields are read.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Vec<String>,
    /// The From field, where there is no message; without it that is the envelope sender.
    #[arg(long, value_name = "TEXT", conflicts_with = "message")]
    pub(crate) header_from: Option<String>,
    /// The message, with its header; "-" is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) message: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `login`.
#[derive(Debug, Args)]
pub(crate) struct Login {
    #[command(flatten)]
    pub(crate) configured: Configured,
    /// The tenant's name in the configuration; may be left out.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// The mailbox's name in the configuration; may be left out where users sign in for one only.
    #[arg(long, value_name = "NAME")]
    pub(crate) mailbox: Option<String>,
    /// Sign in by a browser that comes back to a port of this machine, or whose last address is pasted here; without it by a code typed at another screen.
    #[arg(long, conflicts_with = "import")]
    pub(crate) browser: bool,
    /// Take over a refresh token from this file, or with "-" from standard input: the token alone on a line, or the JSON file in which other products keep it.
    #[arg(long, value_name = "FILE")]
    pub(crate) import: Option<PathBuf>,
    /// The daemon's control socket; without it the configuration says where it is.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Keep the sign-in although Exchange took it for no user, as while a permission is not in effect yet.
    #[arg(long)]
    pub(crate) unproven: bool,
}

/// Options of `queue`.
#[derive(Debug, Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    pub(crate) action: QueueAction,
}

/// What `queue` does.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueAction {
    /// Ask the routes of today who carries mail that waits: within its tenant, or with --tenant in another one.
    Reroute(Reroute),
}

/// Options of `queue reroute`.
#[derive(Debug, Args)]
pub(crate) struct Reroute {
    #[command(flatten)]
    pub(crate) configured: Configured,
    /// Queue ids of messages, as the log and the reply to their client have them.
    #[arg(value_name = "ID", required_unless_present = "held")]
    pub(crate) messages: Vec<String>,
    /// All mail that is held because no route takes it as it was accepted.
    #[arg(long, conflicts_with = "messages")]
    pub(crate) held: bool,
    /// The tenant that it may move to, by its name in the configuration: the explicit word without which mail stays in the tenant that accepted it.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// The daemon's control socket; without it the configuration says where it is.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print what became of it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `self-signed`.
#[derive(Debug, Args)]
pub(crate) struct SelfSigned {
    /// Where the certificate is written, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: PathBuf,
    /// Where its private key is written, in PEM, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: PathBuf,
    /// A name or IP address by which clients reach the relay; may be given several times. Without it this machine's name and localhost.
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// How long it is good.
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
    /// The kind of key.
    #[arg(long, value_enum, default_value_t = KeyKind::Rsa)]
    pub(crate) key: KeyKind,
    /// Replace the files if they are there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Kinds of keys that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    /// RSA of 2048 bits: every device that speaks TLS 1.2 knows it.
    Rsa,
    /// ECDSA on P-256: smaller and faster, unknown to some old devices.
    Ecdsa,
}

/// Options of `sandbox`.
#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    #[command(subcommand)]
    pub(crate) action: Option<SandboxAction>,
    /// List what of the simulated Microsoft nobody has proven against a real tenant, and how it is taken here.
    #[arg(long)]
    pub(crate) unproven: bool,
    /// Send one message down the whole road, print each step, and exit.
    #[arg(long)]
    pub(crate) send: bool,
    /// Port on 127.0.0.1 where the relay takes mail; with --send any free one is taken.
    #[arg(long, global = true, default_value_t = DEFAULT_PORT)]
    pub(crate) port: u16,
    /// Whether the simulated Exchange enforces its limits: 3 connections, 30 messages a minute, 10,000 recipients a day.
    #[arg(long, value_enum, default_value_t = LimitsSwitch::Exchange)]
    pub(crate) limits: LimitsSwitch,
}

/// What else `sandbox` does.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxAction {
    /// Order the sandbox that runs to misbehave or to mend itself; `order help` lists what there is.
    Order {
        /// The order, as in `fault mailbox-full times 3`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// The limits of the simulated Exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LimitsSwitch {
    /// As Exchange Online has them.
    Exchange,
    /// None, and a relay that does not pace.
    Off,
}
