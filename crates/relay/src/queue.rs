//! The `queue` command: asks the daemon to act on mail that waits, and tells what became of it. The words of the request are
//! here too; the acting is `following`'s.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cli::Reroute;
use crate::control::{AskError, Request, ask};
use crate::exit::Exit;
use crate::{check, output};

/// How long one request may take; a long queue takes several.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `queue reroute` asks of the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rerouting {
    /// The message, by its queue id; none: all that no route takes.
    pub(crate) message: Option<String>,
    /// The tenant that it may move to.
    pub(crate) tenant: Option<String>,
    /// Where the last request stopped.
    pub(crate) after: Option<i64>,
}

/// What became of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rerouted {
    /// Deliveries that were looked at.
    pub(crate) deliveries: u64,
    /// Of these, those that go by other mailboxes now.
    pub(crate) moved: u64,
    /// Of these, those that no route takes.
    pub(crate) held: u64,
    /// Why the last of them is held.
    pub(crate) reason: Option<String>,
    /// Where the next request goes on; none at the end.
    pub(crate) next: Option<i64>,
}

/// Runs `queue reroute` against the daemon behind `socket`.
pub(crate) async fn reroute(socket: &Path, options: &Reroute) -> Exit {
    let messages: Vec<_> = match options.messages.as_slice() {
        [] => vec![None],
        messages => messages.iter().cloned().map(Some).collect(),
    };
    let mut exit = Exit::Success;
    let mut all = Vec::new();
    for message in messages {
        let message_named = message.is_some();
        let name = message.clone().unwrap_or_else(|| "held mail".to_owned());
        match whole(socket, message, options.tenant.as_deref()).await {
            Ok(rerouted) => {
                if message_named && rerouted.deliveries == 0 {
                    exit = Exit::Unavailable;
                }
                if !options.json {
                    output::print(&format!("{name}: {}\n", sentence(&rerouted)));
                }
                all.push(json!({ "message": name, "deliveries": rerouted.deliveries, "moved": rerouted.moved,
                    "held": rerouted.held, "reason": rerouted.reason }));
            }
            Err(error) => {
                check::complain(&format!("{name}: {error}"));
                exit = Exit::Unavailable;
            }
        }
    }
    if options.json {
        output::print(&format!("{}\n", Value::Array(all)));
    }
    exit
}

/// Asks until all of it was looked at.
async fn whole(socket: &Path, message: Option<String>, tenant: Option<&str>) -> Result<Rerouted, AskError> {
    let mut sum = Rerouted::default();
    loop {
        let mut parameters = Map::new();
        let given = [
            ("message", message.clone().map(Value::from)),
            ("tenant", tenant.map(Value::from)),
            ("after", sum.next.map(Value::from)),
        ];
        parameters.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        let reply = ask(socket, &Request::with("queue_reroute", parameters), PATIENCE).await?;
        let one: Rerouted = serde_json::from_value(reply).map_err(|error| AskError::Broken(error.to_string()))?;
        sum.deliveries += one.deliveries;
        sum.moved += one.moved;
        sum.held += one.held;
        sum.reason = one.reason.or(sum.reason);
        sum.next = one.next;
        if sum.next.is_none() {
            return Ok(sum);
        }
    }
}

fn sentence(rerouted: &Rerouted) -> String {
    let Rerouted { deliveries, moved, held, reason, .. } = rerouted;
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match (deliveries, held) {
        (0, _) => "nothing waits there (sent already, being sent at this moment, or set aside as damaged)".to_owned(),
        (_, 0) => format!("{deliveries} looked at, {moved} moved to other mailboxes{reason}"),
        _ => format!("{deliveries} looked at, {moved} moved to other mailboxes, {held} held{reason}"),
    }
}
