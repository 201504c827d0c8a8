//! Logs to standard error, in UTC, through a thread of their own: a terminal that stands still costs lines, never mail.
//!
//! Only our own crates speak below `warn`: what libraries write at their lowest levels may hold octets of the wire. The level
//! can be changed while it runs.

use std::io::{self, BufWriter, IsTerminal};
use std::sync::Arc;

use clock::SystemClock;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry, reload};

use crate::config::{Log, LogFormat};
use crate::recent::Recent;

/// Our crates as log targets.
const CRATES: [&str; 9] =
    ["xoauth2_relay", "smtp_server", "spool", "token_manager", "forwarder", "sandbox", "wire", "mail", "clock"];

/// Lines that may wait for a log that stands still, beyond which lines are lost. Room for all of them is taken at the
/// start; the crate's own default takes 4 MiB.
const WAITING_LINES: usize = 8 * 1024;
/// Octets of one write, when many lines wait: some dozens of them.
const WRITTEN_AT_ONCE: usize = 16 * 1024;

/// Logging under way.
pub(crate) struct Logging {
    /// The last warnings and errors.
    pub(crate) recent: Recent,
    /// What is shown.
    pub(crate) threshold: Threshold,
    /// Writes what is left when it is dropped.
    _guard: WorkerGuard,
}

/// The least important level that is shown; clones set the same.
#[derive(Clone)]
pub(crate) struct Threshold(Arc<dyn Fn(Level) + Send + Sync>);

impl Threshold {
    /// Shows this level and what is more important from now on.
    pub(crate) fn set(&self, level: Level) {
        (self.0)(level);
    }
}

/// Starts logging.
pub(crate) fn start(log: &Log) -> Logging {
    // Lines that wait for the thread leave in one write; it flushes as soon as none waits.
    let stderr = BufWriter::with_capacity(WRITTEN_AT_ONCE, io::stderr());
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).finish(stderr);
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        // The journal's own fields are not built yet; the configuration refuses the word.
        LogFormat::Auto | LogFormat::Journald => !terminal,
    };
    let layer = fmt::layer().with_writer(writer);
    let layer = if json {
        layer.json().flatten_event(true).with_target(true).boxed()
    } else {
        layer.with_ansi(terminal).with_target(false).boxed()
    };
    let level = Level::from(log.level);
    let recent = Recent::new(Arc::new(SystemClock::new()));
    let (shown, show) = reload::Layer::new(targets(level));
    let (remembered, remember) = reload::Layer::new(warnings(level));
    let subscriber = registry().with(layer.with_filter(shown)).with(recent.clone().with_filter(remembered));
    // A second start in one process keeps the first; only tests could do that.
    let _ = subscriber.try_init();
    let set = move |level| {
        // Neither fails while the subscriber lives, which is for ever.
        let _ = show.reload(targets(level));
        let _ = remember.reload(warnings(level));
    };
    Logging { recent, threshold: Threshold(Arc::new(set)), _guard: guard }
}

/// Of what the log shows, the part that is a warning or worse.
fn warnings(level: Level) -> Targets {
    targets(level.min(Level::WARN))
}

fn targets(level: Level) -> Targets {
    let others = LevelFilter::from_level(level).min(LevelFilter::WARN);
    Targets::new().with_default(others).with_targets(CRATES.map(|name| (name, level)))
}
