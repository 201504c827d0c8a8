//! The `run` command: the daemon in the foreground until a signal that ends it; SIGHUP lets it take up its configuration anew.

use std::path::PathBuf;
use std::sync::Arc;

use clock::SystemClock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::check;
use crate::daemon::{Daemon, Source, StartError, Surroundings};
use crate::exit::Exit;
use crate::lanes::LanesError;
use crate::logging;
use crate::store::StoreOpenError;
use crate::systemd_sockets::SystemdSockets;

/// Runs the daemon of the configuration in `file` on its own sockets and those that were `handed` over.
pub(crate) async fn run(file: PathBuf, handed: SystemdSockets) -> Exit {
    // First of all: SIGHUP would end a process that does not ask for it, and one that comes early is kept for later.
    let (mut signals, mut hangup) = match Hangup::new().and_then(|hangup| Ok((Signals::new()?, hangup))) {
        Ok(both) => both,
        Err(error) => {
            check::complain(&format!("signals cannot be received: {error}"));
            return Exit::Internal;
        }
    };
    let settings = match crate::load(&file) {
        Ok(configuration) => configuration.settings,
        Err(mistakes) => {
            check::tell(&mistakes);
            return Exit::Usage;
        }
    };
    let logging = logging::start(&settings.log);
    let surroundings = Surroundings {
        recent: logging.recent.clone(),
        handed,
        source: Some(Source { read: Arc::new(move || crate::load(&file)), threshold: logging.threshold.clone() }),
    };
    let daemon = tokio::select! {
        started = Daemon::start(settings, Arc::new(SystemClock::new()), surroundings) => match started {
            Ok(daemon) => daemon,
            Err(error) => {
                error!("{error}");
                return exit(&error);
            }
        },
        () = signals.stop() => return Exit::Success,
    };
    info!(version = env!("CARGO_PKG_VERSION"), hostname = daemon.settings().hostname.as_str(), "ready");
    let exit = serve(&daemon, &mut signals, &mut hangup).await;
    let grace = daemon.settings().shutdown.grace.duration();
    info!(grace_seconds = grace.as_secs(), "stopping");
    tokio::select! {
        () = daemon.stop(grace) => info!("stopped"),
        () = signals.stop() => warn!("stopped at once by a second signal; what was in flight is marked"),
    }
    exit
}

/// Until it is to stop: a signal for it, or a fault. Signals that come while a reload is under way become one reload more.
async fn serve(daemon: &Daemon, signals: &mut Signals, hangup: &mut Hangup) -> Exit {
    let reloader = daemon.reloader();
    let mut reloading = JoinSet::new();
    loop {
        tokio::select! {
            () = signals.stop() => return Exit::Success,
            () = hangup.next(), if reloading.is_empty() => {
                let reloader = reloader.clone();
                reloading.spawn(async move {
                    if let Err(error) = reloader.reload("SIGHUP").await {
                        error!("not reloaded: {error}");
                    }
                });
            }
            Some(_) = reloading.join_next() => {}
            part = daemon.failed() => {
                error!(part, "a part of the relay ended by a fault of ours; stopping so that mail is not taken and left lying");
                return Exit::Internal;
            }
        }
    }
}

/// The exit code of a daemon that did not start.
pub(crate) fn exit(error: &StartError) -> Exit {
    match error {
        StartError::Internal(_) | StartError::Store(StoreOpenError::Internal(_)) => Exit::Internal,
        StartError::Lanes(LanesError::CaFile(_)) | StartError::Certificate(_) => Exit::Usage,
        StartError::Lanes(LanesError::Vault(_))
        | StartError::Listen { .. }
        | StartError::Overlap { .. }
        | StartError::HandedOver { .. }
        | StartError::Control(_)
        | StartError::Store(StoreOpenError::Spool(_)) => Exit::Unavailable,
    }
}

/// The signals that ask us to stop.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens for SIGTERM and SIGINT.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next that asks us to stop: SIGTERM or SIGINT. What else comes meanwhile waits.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP, apart: it is waited for beside the others.
pub(crate) struct Hangup(Signal);

impl Hangup {
    /// Listens for it from now on; before, it ends the process.
    pub(crate) fn new() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// The next, however many came since the last.
    pub(crate) async fn next(&mut self) {
        let _ = self.0.recv().await;
    }
}
