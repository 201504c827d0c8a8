//! The `reload` command: asks the running daemon to take up its configuration anew, and tells what came of it. The daemon reads
//! its own file; this command reads one only to find the daemon.

use std::path::Path;
use std::time::Duration;

use crate::check;
use crate::cli::Reload;
use crate::control::{AskError, Request, ask};
use crate::exit::Exit;
use crate::output;
use crate::reload::Outcome;

/// How long the daemon may take: one reload may have to wait for another, and each for files and for tokens that end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Asks the daemon on `socket`.
pub(crate) async fn reload(socket: &Path, options: &Reload) -> Exit {
    let reply = ask(socket, &Request::new("reload"), PATIENCE).await;
    let outcome = reply.and_then(|reply| {
        serde_json::from_value::<Outcome>(reply).map_err(|error| AskError::Broken(error.to_string()))
    });
    match outcome {
        Ok(outcome) => show(&outcome, options.json),
        Err(error) => {
            check::complain(&error.to_string());
            Exit::Unavailable
        }
    }
}

fn show(outcome: &Outcome, as_json: bool) -> Exit {
    let exit = if outcome.reloaded { Exit::Success } else { Exit::Usage };
    if as_json {
        let json = serde_json::to_string_pretty(outcome).expect("texts always become JSON");
        let printed = output::print(&format!("{json}\n"));
        return if outcome.reloaded { printed } else { exit };
    }
    if outcome.reloaded {
        return output::print(&told(&outcome.changes));
    }
    for mistake in &outcome.mistakes {
        output::complain(&mistake.to_string());
    }
    check::complain("nothing has changed: the daemon keeps its running configuration");
    exit
}

fn told(changes: &[String]) -> String {
    match changes {
        [] => "Reloaded, nothing changed.\n".to_owned(),
        changes => format!("Reloaded. Changed:\n  {}\n", changes.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_a_key_a_line() {
        assert_eq!(told(&[]), "Reloaded, nothing changed.\n");
        let changes = ["log.level".to_owned(), "listener.lan".to_owned()];
        assert_eq!(told(&changes), "Reloaded. Changed:\n  log.level\n  listener.lan\n");
    }
}
