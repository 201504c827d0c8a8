//! What is measured: a relay that takes SMTP on loopback and sends it on to the instant upstream.
//!
//! A subject knows whether it is installed, how it is set up and how it is started and stopped; nothing of load or
//! figures. Every subject is one child process with perhaps children of its own, and ends by SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::figure::Description;

mod relay;

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
