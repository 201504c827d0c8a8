//! What one listener asks of its clients, and the refusals that may come in floods: each is logged once a minute.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clock::{Clock, Monotonic};
use mail::Mailbox;
use smtp_server::Client;
use spool::StoreError;
use tracing::{error, warn};
use wire::{Dialect, Reply};

use crate::config::{Network, ReceivedDetail};
use crate::container::Gateways;
use crate::repeats::Repeats;

use super::login::Logins;

/// What one listener asks of its clients.
pub(crate) struct ListenerPolicy {
    /// Where clients may come from.
    pub(crate) networks: Vec<Network>,
    /// Load balancers, whose PROXY header is required and believed.
    pub(crate) proxies: Vec<Network>,
    /// Behind whose addresses a container engine may hide the clients.
    pub(crate) gateways: Gateways,
    /// How closely they must keep to the standard.
    pub(crate) dialect: Dialect,
    /// What the Received field tells of them.
    pub(crate) received: ReceivedDetail,
    /// Who may log in, where AUTH is offered.
    pub(crate) logins: Logins,
}

/// A policy with what was told of late.
pub(super) struct Door {
    pub(super) policy: ListenerPolicy,
    clock: Arc<dyn Clock>,
    repeats: Repeats<Occasion>,
    seen_behind_gateway: AtomicBool,
}

/// What is told apart in the log.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Occasion {
    Stranger(IpAddr),
    NoRoute,
    NoRoom,
    StoreFailed,
    Sender(Arc<str>),
    /// With the user that was named, if there is such.
    Login(IpAddr, Option<Arc<str>>),
    Handshake(IpAddr),
    Proxy(IpAddr),
    Silence(IpAddr),
    Pace(IpAddr),
}

impl Door {
    pub(super) fn new(policy: ListenerPolicy, clock: Arc<dyn Clock>) -> Self {
        Self { policy, clock, repeats: Repeats::default(), seen_behind_gateway: AtomicBool::new(false) }
    }

    /// How many were left out since the last time, if this is to be told now.
    pub(super) fn tell(&self, occasion: Occasion) -> Option<u64> {
        self.repeats.tell(occasion, self.now())
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.monotonic()
    }

    /// Whether what comes from `address` says by a PROXY header who the client is.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.policy.proxies.iter().any(|network| network.contains(address))
    }

    /// Whether no client was seen behind a container's gateway before.
    pub(super) fn is_first_behind_gateway(&self) -> bool {
        !self.seen_behind_gateway.swap(true, Ordering::Relaxed)
    }

    /// Whether the client comes from where clients may come from.
    pub(super) fn admits(&self, client: &Client) -> Result<(), Reply> {
        let address = client.address();
        if self.policy.networks.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        if let Some(left_out) = self.tell(Occasion::Stranger(address)) {
            let listener = &client.listener;
            warn!(%listener, client = %address, left_out, "client refused: not in the listener's networks");
        }
        Err(Reply::new(554, (5, 7, 1), format!("{address} is not in the networks of this listener")))
    }

    /// Whether the client, if it logged in, may send as `sender`; `place` is where it says so.
    pub(super) fn may_send_as(&self, client: &Client, sender: &Mailbox, place: &str) -> Result<(), Reply> {
        let Some(user) = &client.user else { return Ok(()) };
        if self.policy.logins.may_send_as(user, sender) {
            return Ok(());
        }
        if let Some(left_out) = self.tell(Occasion::Sender(Arc::clone(user))) {
            let (listener, address) = (&client.listener, client.address());
            warn!(%listener, client = %address, %user, %sender, place, left_out, "mail refused: not among the user's allowed_senders");
        }
        Err(Reply::new(550, (5, 7, 1), format!("User {user} may not send as {sender} ({place})")))
    }

    /// The answer when no route takes the client's mail.
    pub(super) fn no_route(&self, client: &Client) -> Reply {
        if let Some(left_out) = self.tell(Occasion::NoRoute) {
            let listener = &client.listener;
            warn!(%listener, client = %client.address(), left_out, "mail refused: no [[route]] takes mail of this listener");
        }
        Reply::new(550, (5, 7, 1), "No route takes mail from here; the relay's administrator can add one")
    }

    /// The store's trouble as the client hears it: always a reason to come back, never to give up.
    pub(super) fn store_failed(&self, error: &StoreError) -> Reply {
        match error {
            StoreError::Full(_) => {
                if let Some(left_out) = self.tell(Occasion::NoRoom) {
                    warn!(%error, left_out, "message not accepted");
                }
                Reply::new(452, (4, 3, 1), "Insufficient system storage, try again later")
            }
            StoreError::Failed(_) | StoreError::Damaged(_) => {
                if let Some(left_out) = self.tell(Occasion::StoreFailed) {
                    error!(%error, left_out, "message not accepted");
                }
                Reply::new(451, (4, 3, 0), "The queue cannot be written now, try again later")
            }
            StoreError::Closed => Reply::new(421, (4, 3, 2), "Shutting down, try again shortly"),
        }
    }
}
