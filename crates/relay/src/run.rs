//! The `run` command: the daemon in the foreground until a signal.

use std::sync::Arc;

use clock::SystemClock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::Settings;
use crate::daemon::{Daemon, StartError};
use crate::exit::Exit;
use crate::lanes::LanesError;
use crate::recent::Recent;
use crate::systemd_sockets::SystemdSockets;

/// Runs the daemon on its own sockets and those that were `handed` over.
pub(crate) async fn run(settings: &Settings, recent: Recent, handed: SystemdSockets) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals cannot be received");
            return Exit::Internal;
        }
    };
    let mut daemon = tokio::select! {
        started = Daemon::start(settings, Arc::new(SystemClock::new()), recent, handed) => match started {
            Ok(daemon) => daemon,
            Err(error) => {
                error!("{error}");
                return exit(&error);
            }
        },
        () = signals.next() => return Exit::Success,
    };
    info!(version = env!("CARGO_PKG_VERSION"), hostname = settings.hostname.as_str(), "ready");
    let exit = tokio::select! {
        () = signals.next() => Exit::Success,
        part = daemon.failed() => {
            error!(part, "a part of the relay ended by a fault of ours; stopping so that mail is not taken and left lying");
            Exit::Internal
        }
    };
    let grace = settings.shutdown.grace.duration();
    info!(grace_seconds = grace.as_secs(), "stopping");
    tokio::select! {
        () = daemon.stop(grace) => info!("stopped"),
        () = signals.next() => warn!("stopped at once by a second signal; what was in flight is marked"),
    }
    exit
}

/// The exit code of a daemon that did not start.
pub(crate) fn exit(error: &StartError) -> Exit {
    match error {
        StartError::Internal(_) => Exit::Internal,
        StartError::Lanes(LanesError::CaFile(_)) | StartError::Certificate(_) => Exit::Usage,
        StartError::Lanes(LanesError::Vault(_))
        | StartError::Listen { .. }
        | StartError::HandedOver { .. }
        | StartError::Control(_)
        | StartError::Spool(_) => Exit::Unavailable,
    }
}

/// The signals that we answer.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens for SIGTERM, SIGINT and SIGHUP.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next that asks us to stop: SIGTERM or SIGINT.
    pub(crate) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Elsewhere it means reload; ending mail for it would be the worst answer.
                _ = self.hangup.recv() => warn!("SIGHUP is ignored: reloading is not built yet, restart to take up a new configuration"),
            }
        }
    }
}
