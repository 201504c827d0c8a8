//! What is measured: a relay that takes SMTP on loopback and sends it on to the instant upstream.
//!
//! A subject knows whether it is installed, how it is set up and how it is started and stopped; nothing of load or
//! figures. Every subject is one child process with perhaps children of its own, and ends by SIGTERM.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use crate::error::BenchError;
use crate::figure::Description;

mod emailproxy;
mod ground;
mod naive;
mod postfix;
mod relay;
mod running;

pub(crate) use relay::{DIRECT, Relay, SETUPS, Setup};
pub(crate) use running::Running;

/// The upstream as a subject sees it.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Port on `localhost`: plain greeting, STARTTLS required, AUTH PLAIN and XOAUTH2.
    pub(crate) port: u16,
    /// The certificate authorities of upstream and token endpoint together, in PEM.
    pub(crate) ca_file: PathBuf,
    /// The mailbox that logs in.
    pub(crate) user: String,
    /// Its password for AUTH PLAIN, and an access token for XOAUTH2 that does not expire.
    pub(crate) password: String,
    /// The token endpoint, `https://localhost:PORT/TENANT/oauth2/v2.0/token`, for client credentials.
    pub(crate) token_endpoint: String,
    /// `https://localhost:PORT`, its beginning.
    pub(crate) authority: String,
    /// Its tenant.
    pub(crate) tenant_id: String,
    /// The application there.
    pub(crate) client_id: String,
    /// The application's secret.
    pub(crate) client_secret: String,
    /// The scope to ask for.
    pub(crate) scope: String,
}

/// How a subject is started.
#[derive(Clone, Debug)]
pub(crate) struct Setting<'a> {
    /// Its own directory on the disk that is measured; what an earlier start left there is its queue.
    pub(crate) directory: &'a Path,
    /// Where it sends to.
    pub(crate) upstream: &'a Upstream,
    /// True: it takes messages and sends none. False: it sends, also what an earlier start took.
    pub(crate) held: bool,
    /// Most clients at a time.
    pub(crate) clients: usize,
    /// Most connections upstream at a time.
    pub(crate) upstream_connections: usize,
    /// Largest message, in octets.
    pub(crate) largest_message: u64,
    /// Counts its system calls.
    pub(crate) tracer: Option<Tracer<'a>>,
}

/// strace as a grandchild, so that the subject stays our child; writes its table when the subject has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracer<'a> {
    /// Where the table goes.
    pub(crate) table: &'a Path,
    /// The system calls that are counted, as strace names them; the fewer, the less the subject is slowed down.
    pub(crate) calls: &'a str,
}

impl Setting<'_> {
    /// The command that starts a program, under the tracer if there is one. It reads nothing.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.tracer {
            None => Command::new(program),
            Some(Tracer { table, calls }) => {
                let mut command = Command::new("strace");
                command.args(["-D", "-f", "-c", "-U", "calls,name", "--seccomp-bpf", "-e", calls, "-o"]).arg(table);
                command.arg("--").arg(program);
                command
            }
        };
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command
    }
}

/// A subject that is installed on this machine.
pub(crate) trait Subject {
    /// Its name in figures, and what it is.
    fn description(&self) -> Description;

    /// Whether it keeps a queue: it can be held, drained, and started with mail waiting.
    fn has_queue(&self) -> bool;

    /// The login that clients must give by AUTH PLAIN, if it demands one.
    fn login(&self) -> Option<(String, String)> {
        None
    }

    /// How many clients at a time it is measured with at most, so that one cell does not take minutes.
    fn most_clients(&self) -> usize {
        usize::MAX
    }

    /// The same, of other than the usual messages and sessions.
    fn most_clients_elsewhere(&self) -> usize {
        self.most_clients()
    }

    /// How many idle sessions it is measured with at most.
    fn most_idle(&self) -> usize {
        1_000
    }

    /// Writes its configuration and starts it; does not wait until it listens. Logs go to files in its directory.
    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError>;
}

/// A child process that was started a moment ago.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// The process, the root of all its children.
    pub(crate) child: Child,
    /// Where it will listen.
    pub(crate) address: SocketAddr,
    /// Just before it was started; what had to be prepared is no part of its start.
    pub(crate) begun: Instant,
}

impl Spawned {
    /// Starts a command that will listen there.
    fn start(mut command: Command, address: SocketAddr) -> Result<Self, BenchError> {
        let begun = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(BenchError::program(&program))?;
        Ok(Self { child, address, begun })
    }
}

/// Why a subject is left out, and how to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Its name.
    pub(crate) name: &'static str,
    /// What was looked for in vain.
    pub(crate) why: String,
    /// The command that installs it on Debian.
    pub(crate) install: &'static str,
}

/// The peers that this machine has, and what is missing for the others.
pub(crate) fn peers(python: &Path, user: &str) -> Vec<Result<Box<dyn Subject>, Missing>> {
    vec![postfix::find_plain(), postfix::find_xoauth2(), emailproxy::find(python, user), naive::find(python)]
}

/// Lets the users that peers run as pass a directory of ours.
pub(crate) fn let_others_in(directory: &Path) -> Result<(), BenchError> {
    ground::make_directory(directory, 0o755)
}
