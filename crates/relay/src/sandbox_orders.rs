//! Orders to a running `sandbox`, given on the command line: its end and ours. What can be ordered is the sandbox's own
//! language; here is only the way there, a control socket at a place that both find by user and port.

use std::env;
use std::fs::{DirBuilder, metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Order, Sandbox};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::check::complain;
use crate::control::{AskError, Handler, Peer, Refusal, RefusalCode, Request, ask};
use crate::exit::Exit;
use crate::output;

/// The only request.
const ORDER: &str = "order";
/// How long an order may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries out what is ordered.
pub(crate) struct Orders(Arc<Sandbox>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    line: String,
}

impl Orders {
    /// Orders to this sandbox.
    pub(crate) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self(sandbox)
    }
}

impl Handler for Orders {
    async fn handle(&self, request: Request, _: Peer) -> Result<Value, Refusal> {
        if request.name != ORDER {
            return Err(Refusal::unknown_request(&request.name, &[ORDER]));
        }
        let Line { line } = request.parameters()?;
        let wrong = |error: String| Refusal::new(RefusalCode::BadRequest, error);
        let order: Order = line.parse().map_err(|error: sandbox::OrderError| wrong(error.to_string()))?;
        self.0.obey(&order).map(Value::String).map_err(|error| wrong(error.to_string()))
    }
}

/// Where the sandbox in front of which the relay listens on `port` takes orders: in a directory of this user's own,
/// which is made if need be.
pub(crate) fn place(port: u16) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|directory| Path::new(directory).is_absolute());
    let directory = match runtime {
        Some(runtime) => PathBuf::from(runtime).join("xoauth2-relay-sandbox"),
        None => env::temp_dir().join(format!("xoauth2-relay-sandbox-{user}")),
    };
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // In a directory for all, somebody else may have been there first.
    let found = metadata(&directory)?;
    if found.uid() != user || found.mode() & 0o077 != 0 {
        let text = format!("{} is not this user's alone; remove it or set XDG_RUNTIME_DIR", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(directory.join(format!("{port}.sock")))
}

/// The `sandbox order` command: gives one order to the sandbox that runs and prints its answer; without one it lists what
/// can be ordered.
pub(crate) async fn order(port: u16, words: &[String]) -> Exit {
    if words.is_empty() {
        return output::print(&format!("{}\n", sandbox::order::help()));
    }
    let place = match place(port) {
        Ok(place) => place,
        Err(error) => {
            complain(&error.to_string());
            return Exit::Unavailable;
        }
    };
    let request = Request::with(ORDER, Map::from_iter([("line".to_owned(), Value::String(words.join(" ")))]));
    match ask(&place, &request, PATIENCE).await {
        Ok(Value::String(answer)) => output::print(&format!("{answer}\n")),
        Ok(_) => {
            complain("the sandbox's answer is no text");
            Exit::Internal
        }
        Err(AskError::NotRunning { .. }) => {
            complain(&format!(
                "no sandbox runs on port {port}: start `xoauth2-relay sandbox` in another terminal, or name its --port before `order`"
            ));
            Exit::Unavailable
        }
        Err(AskError::Refused(refusal)) => {
            complain(&refusal.message);
            Exit::Usage
        }
        Err(error) => {
            complain(&error.to_string());
            Exit::Unavailable
        }
    }
}
