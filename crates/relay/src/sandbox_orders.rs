//! Orders to a running `sandbox`, given on the command line: its end and ours. What can be ordered is the sandbox's own
//! language; here is only the way there, a control socket at a place that both find by user and port.

use std::env;
use std::fs::{DirBuilder, remove_dir, symlink_metadata};
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
/// Permissions of anybody but the owner.
const ALL_BUT_OWNER: u32 = 0o077;
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
    let directory = directory();
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    check(&directory)?;
    Ok(socket(&directory, port))
}

/// Removes the directory when the last sandbox of this user has ended.
pub(crate) fn leave() {
    // Fails while another one has its socket there. Left behind it harms nobody: the next start takes it.
    let _ = remove_dir(directory());
}

fn directory() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|directory| Path::new(directory).is_absolute());
    match runtime {
        Some(runtime) => PathBuf::from(runtime).join("xoauth2-relay-sandbox"),
        None => env::temp_dir().join(format!("xoauth2-relay-sandbox-{}", rustix::process::geteuid().as_raw())),
    }
}

fn socket(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!("{port}.sock"))
}

/// In a directory for all, somebody else may have been there first, also with a link to a directory of ours.
fn check(directory: &Path) -> io::Result<()> {
    let found = symlink_metadata(directory)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & ALL_BUT_OWNER == 0 {
        return Ok(());
    }
    let text = format!("{} is no directory of this user alone; remove it or set XDG_RUNTIME_DIR", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// The `sandbox order` command: gives one order to the sandbox that runs and prints its answer; without one it lists what
/// can be ordered.
pub(crate) async fn order(port: u16, words: &[String]) -> Exit {
    if words.is_empty() {
        return output::print(&format!("{}\n", sandbox::order::help()));
    }
    let directory = directory();
    // Without a directory there is no sandbox, which is told below.
    if let Err(error) = check(&directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        complain(&error.to_string());
        return Exit::Unavailable;
    }
    let request = Request::with(ORDER, Map::from_iter([("line".to_owned(), Value::String(words.join(" ")))]));
    match ask(&socket(&directory, port), &request, PATIENCE).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn orders_are_taken_in_a_directory_of_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let (own, other) = (parent.path().join("own"), parent.path().join("other"));
        assert_eq!(check(&own).unwrap_err().kind(), io::ErrorKind::NotFound);
        DirBuilder::new().mode(0o700).create(&own).unwrap();
        check(&own).unwrap();
        let refused = |directory: &Path| {
            let error = check(directory).unwrap_err();
            assert!(error.to_string().contains("is no directory of this user alone; remove it"), "{error}");
        };
        symlink(&own, &other).unwrap();
        refused(&other);
        fs::remove_file(&other).unwrap();
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        refused(&other);
        fs::set_permissions(&own, fs::Permissions::from_mode(0o750)).unwrap();
        refused(&own);
    }
}
