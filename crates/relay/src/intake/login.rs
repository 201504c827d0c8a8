//! AUTH as one listener sees it: who may log in, what is answered, and what of it is logged. Whether a password is right is
//! `users`' matter.

use std::sync::Arc;

use mail::Mailbox;
use smtp_server::{Client, Credentials};
use tracing::warn;
use wire::Reply;

use crate::users::{LoginRefused, Users};

use super::door::{Door, Occasion};

/// Who may log in.
#[derive(Clone)]
pub(crate) enum Logins {
    /// The users, with their passwords.
    Users(Arc<Users>),
    /// Anybody with any password, for devices that insist: the name chooses a route, and proves nothing.
    Anybody,
}

impl Logins {
    /// Whether who logged in as `user` may send as `sender`.
    pub(super) fn may_send_as(&self, user: &str, sender: &Mailbox) -> bool {
        match self {
            Self::Users(users) => users.may_send_as(user, sender),
            Self::Anybody => true,
        }
    }
}

impl Logins {
    /// Whether `user` has proven who it is and is held to a list of senders.
    pub(super) fn holds_to_senders(&self, user: &str) -> bool {
        match self {
            Self::Users(users) => users.holds_to_senders(user),
            Self::Anybody => false,
        }
    }

    /// Whether what `user` logged in with is right still.
    pub(super) fn still_knows(&self, user: &Arc<str>) -> bool {
        match self {
            Self::Users(users) => users.still_knows(user),
            Self::Anybody => true,
        }
    }
}

/// What a client hears whose name or password is none of ours, whichever it is.
pub(crate) fn wrong() -> Reply {
    Reply::new(535, (5, 7, 8), "Name or password wrong")
}

impl Door {
    /// Who the client is, or the refusal it hears.
    pub(super) async fn authenticate(&self, client: &Client, credentials: Credentials) -> Result<Arc<str>, Reply> {
        let Logins::Users(users) = &self.policy.logins else { return Ok(credentials.name.into()) };
        let refused = match users.verify(client.address(), &credentials, || self.now()).await {
            Ok(user) => return Ok(user),
            Err(refused) => refused,
        };
        self.login_failed(client, users.name_of(&credentials), refused);
        match refused {
            LoginRefused::Wrong { delay } => {
                tokio::time::sleep(delay).await;
                Err(wrong())
            }
            LoginRefused::LockedOut { wait } => {
                let text =
                    format!("Too many failed logins from your address, try again in {} s", wait.as_secs().max(1));
                Err(Reply::new(454, (4, 7, 0), text))
            }
            LoginRefused::Busy => Err(Reply::new(454, (4, 7, 0), "Too many logins at once, try again shortly")),
        }
    }

    /// A name that is no user's is not shown: a device whose fields were mixed up sends the password there.
    fn login_failed(&self, client: &Client, user: Option<&Arc<str>>, refused: LoginRefused) {
        let Some(left_out) = self.tell(Occasion::Login(client.address(), user.cloned())) else { return };
        let (listener, address) = (&client.listener, client.address());
        let user = user.map_or("(no user of this name)", |name| &**name);
        warn!(%listener, client = %address, user, reason = %refused, left_out, "login refused");
    }
}
