//! The `status` command: asks the running daemon and prints its answer.

use std::path::Path;
use std::time::Duration;

use spool::{Counts, SqliteSpool};

use super::screen::{screen, verdict};
use super::snapshot::Snapshot;
use crate::check;
use crate::cli::Status;
use crate::control::{AskError, Request, ask};
use crate::exit::Exit;
use crate::output;

/// How long the daemon may take; it gives its disk five seconds twice.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the daemon on `socket`. Where none runs, `queue`, the state directory, is looked at if it is ours and at rest.
pub(crate) async fn status(socket: &Path, queue: Option<&Path>, options: &Status) -> Exit {
    match snapshot(socket).await {
        Ok(snapshot) => show(&snapshot, options),
        Err(error) => {
            complain(&error, queue, options);
            Exit::Unavailable
        }
    }
}

fn complain(error: &AskError, queue: Option<&Path>, options: &Status) {
    if options.check {
        output::print(&format!("not healthy: {error}\n"));
        return;
    }
    check::complain(&error.to_string());
    if let (AskError::NotRunning { .. }, Some(directory)) = (error, queue) {
        let found = SqliteSpool::peek(directory).map_err(|error| error.to_string());
        check::complain(&at_rest(directory, found));
    }
}

/// What there is to say of a queue without a daemon.
fn at_rest(directory: &Path, found: Result<Counts, String>) -> String {
    let directory = directory.display();
    match found {
        Ok(Counts { messages, queued, held, quarantined, .. }) => format!(
            "looked by itself at the queue in {directory}: {messages} messages, {queued} queued, {held} held, {quarantined} damaged"
        ),
        Err(why) => format!("the queue in {directory} cannot be looked at: {why}"),
    }
}

async fn snapshot(socket: &Path) -> Result<Snapshot, AskError> {
    let reply = ask(socket, &Request::new("status"), PATIENCE).await?;
    serde_json::from_value(reply).map_err(|error| AskError::Broken(error.to_string()))
}

fn show(snapshot: &Snapshot, options: &Status) -> Exit {
    if options.check {
        output::print(&format!("{}\n", verdict(snapshot)));
        return if snapshot.ailment().is_none() { Exit::Success } else { Exit::Unavailable };
    }
    if options.json {
        let json = serde_json::to_string_pretty(snapshot).expect("a snapshot always becomes JSON");
        return output::print(&format!("{json}\n"));
    }
    output::print(&screen(snapshot, snapshot.taken_at.0))
}
