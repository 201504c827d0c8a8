//! Who does the work of a sign-in: the daemon that runs, by its control socket, or this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clock::SystemClock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spool::SqliteSpool;
use token_manager::VaultError;
use zeroize::Zeroizing;

use crate::config::{Grant, Settings};
use crate::control::{AskError, Refusal, RefusalCode, Request, ask};
use crate::lanes;
use crate::registration::{self, Ledgers, Registration};
use crate::routing;
use crate::sign_ins::{Begin, Begun, Callback, Following, GivingUp, Progress, Seat, SignIns};
use crate::tls::{CaFileError, Trust};

/// How long the daemon may take to answer: beginning a sign-in asks Entra ID, which has 30 s.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a step is waited for at a time.
const STEP: Duration = Duration::from_secs(5);

/// Who does it.
pub(super) enum Desk {
    /// The daemon behind this socket.
    Daemon(PathBuf),
    /// This process.
    Here(Box<SignIns>),
}

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeskError {
    #[error("{0}")]
    Ask(#[from] AskError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    CaFile(#[from] CaFileError),
    #[error("{0}")]
    Vault(#[from] VaultError),
    #[error("a daemon has the state directory {}, and nobody answers on {}: if it is starting, try again; else name its control socket with --socket", .directory.display(), .socket.display())]
    Elsewhere { directory: PathBuf, socket: PathBuf },
    #[error("{} is no state directory yet: start the daemon once, or make the directory for the user that runs it", .0.display())]
    NoStateDirectory(PathBuf),
    #[error(
        "this configuration has no state directory, where a sign-in would be stored: set spool.directory, or grant = \"delegated\" in the tenant"
    )]
    Stateless,
    #[error("ended by a fault of ours: {0}")]
    Internal(String),
}

impl Desk {
    /// Begins at the daemon, or here when none runs.
    pub(super) async fn begin(
        settings: &Settings,
        socket: Option<&Path>,
        wish: Begin,
    ) -> Result<(Self, Begun), DeskError> {
        let (Some(directory), Some(socket)) = (settings.state_directory(), socket.or(settings.control_socket())) else {
            return Err(DeskError::Stateless);
        };
        let daemon = Self::Daemon(socket.to_owned());
        match daemon.ask("login_begin", &wish).await {
            Ok(begun) => Ok((daemon, begun)),
            Err(DeskError::Ask(AskError::NotRunning { .. })) if SqliteSpool::is_owned(directory) => {
                Err(DeskError::Elsewhere { directory: directory.to_owned(), socket: socket.to_owned() })
            }
            Err(DeskError::Ask(AskError::NotRunning { .. })) => {
                let sign_ins = SignIns::new(seats(settings, directory)?, Arc::new(SystemClock::new()));
                let begun = sign_ins.begin(wish, "this command").await?;
                Ok((Self::Here(Box::new(sign_ins)), begun))
            }
            Err(error) => Err(error),
        }
    }

    /// Who does it, in words.
    pub(super) fn who(&self) -> &'static str {
        match self {
            Self::Daemon(_) => "by the daemon that runs",
            Self::Here(_) => "by this command alone: no daemon runs",
        }
    }

    /// How it stands, as soon as that is another step than `seen`, or after a while.
    pub(super) async fn progress(&self, id: &str, seen: u32) -> Result<Progress, DeskError> {
        let following = Following { id: id.to_owned(), seen };
        match self {
            Self::Daemon(_) => self.ask("login_progress", &following).await,
            Self::Here(sign_ins) => Ok(sign_ins.progress(&following, STEP).await?),
        }
    }

    /// The browser came back to `url`.
    pub(super) async fn callback(&self, id: &str, url: Zeroizing<String>) -> Result<(), DeskError> {
        let callback = Callback { id: id.to_owned(), url };
        match self {
            Self::Daemon(_) => self.ask::<Value>("login_callback", &callback).await.map(|_| ()),
            Self::Here(sign_ins) => Ok(sign_ins.callback(&callback)?),
        }
    }

    /// Nobody wants it any more. How it stood.
    pub(super) async fn give_up(&self, id: &str) -> Result<Progress, DeskError> {
        let giving_up = GivingUp { id: id.to_owned() };
        match self {
            Self::Daemon(_) => self.ask("login_give_up", &giving_up).await,
            Self::Here(sign_ins) => Ok(sign_ins.give_up(&giving_up)?),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, name: &str, parameters: &impl Serialize) -> Result<T, DeskError> {
        let Self::Daemon(socket) = self else {
            return Err(DeskError::Internal("there is no daemon to ask".to_owned()));
        };
        let internal = |error: serde_json::Error| DeskError::Internal(error.to_string());
        let request = Request::of(name, parameters).map_err(internal)?;
        let reply = ask(socket, &request, PATIENCE).await;
        match reply {
            Ok(reply) => serde_json::from_value(reply).map_err(internal),
            Err(AskError::Refused(refusal)) if refusal.code == RefusalCode::UnknownRequest => {
                Err(AskError::OtherVersion.into())
            }
            Err(AskError::Refused(refusal)) => Err(refusal.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// All places where users sign in, without a daemon.
fn seats(settings: &Settings, directory: &Path) -> Result<Vec<Seat>, DeskError> {
    if !directory.is_dir() {
        return Err(DeskError::NoStateDirectory(directory.to_owned()));
    }
    let trust = Trust::of_this_machine();
    let vault = registration::vault(directory, settings.vault.key.as_ref())?;
    let ledgers = Arc::new(Ledgers::new(Some(directory)));
    let mut seats = Vec::new();
    for (name, mailbox) in &settings.mailboxes {
        let (Some((tenant_name, tenant)), Some(id)) = (settings.tenant_of(mailbox), routing::lane(settings, mailbox))
        else {
            continue;
        };
        if tenant.grant != Grant::Delegated {
            continue;
        }
        seats.push(Seat {
            tenant: tenant_name.to_owned(),
            mailboxes: vec![name.clone()],
            login: mailbox.login.as_ref().map(ToString::to_string).unwrap_or_default(),
            id,
            registration: Registration::new(tenant_name, tenant, &ledgers, &trust)?,
            endpoint: lanes::endpoint(settings, &trust, tenant)?,
            vault: Arc::clone(&vault),
            lanes: None,
        });
    }
    Ok(seats)
}
