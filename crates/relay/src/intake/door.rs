//! What one listener asks of its clients, and the refusals that may come in floods: each is logged once a minute.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clock::{Clock, Monotonic};
use mail::ReversePath;
use smtp_server::Client;
use spool::StoreError;
use tracing::{error, warn};
use wire::{Dialect, Reply};

use crate::config::{DeliveryMode, Network, ReceivedDetail};
use crate::container::Gateways;
use crate::repeats::Repeats;

use super::acceptance::Refusal;
use super::login::Logins;
use super::pace::{Counted, MessageLimits, Over, Paces};

/// What one listener asks of its clients.
pub(crate) struct ListenerPolicy {
    /// Where clients may come from.
    pub(crate) networks: Vec<Network>,
    /// Load balancers, whose PROXY header is required and believed.
    pub(crate) proxies: Vec<Network>,
    /// Behind whose addresses a container engine may hide the clients.
    pub(crate) gateways: Gateways,
    /// How many messages they may begin in a minute.
    pub(crate) limits: MessageLimits,
    /// How closely they must keep to the standard.
    pub(crate) dialect: Dialect,
    /// What the Received field tells of them.
    pub(crate) received: ReceivedDetail,
    /// Who may log in, where AUTH is offered.
    pub(crate) logins: Logins,
    /// Whether who has not logged in may not send.
    pub(crate) needs_login: bool,
    /// What the answer to a message means.
    pub(crate) delivery: DeliveryMode,
}

impl ListenerPolicy {
    /// Whether a client comes from where clients may come from.
    pub(super) fn admits(&self, client: IpAddr) -> Result<(), Refusal> {
        if self.networks.iter().any(|network| network.contains(client)) {
            Ok(())
        } else {
            Err(Refusal::Stranger(client))
        }
    }
}

/// A policy with what was told of late. A transaction keeps the one that it began with.
pub(super) struct Door {
    pub(super) policy: ListenerPolicy,
    memory: Arc<Memory>,
}

/// What outlives a policy.
struct Memory {
    clock: Arc<dyn Clock>,
    repeats: Repeats<Occasion>,
    seen_behind_gateway: AtomicBool,
}

/// What is told apart in the log.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Occasion {
    Stranger(IpAddr),
    Refused(IpAddr),
    NoRoom,
    StoreFailed,
    Sender(Arc<str>),
    /// With the user that was named, if there is such.
    Login(IpAddr, Option<Arc<str>>),
    Handshake(IpAddr),
    Proxy(IpAddr),
    Silence(IpAddr),
    Pace(IpAddr),
    /// Whose messages were too many.
    OverLimit(Counted),
    /// Whom a direct listener asked to come back.
    ComeBack(IpAddr),
}

impl Door {
    pub(super) fn new(policy: ListenerPolicy, clock: Arc<dyn Clock>) -> Self {
        let memory = Memory { clock, repeats: Repeats::default(), seen_behind_gateway: AtomicBool::new(false) };
        Self { policy, memory: Arc::new(memory) }
    }

    /// The same door with another policy.
    pub(super) fn renewed(&self, policy: ListenerPolicy) -> Self {
        Self { policy, memory: Arc::clone(&self.memory) }
    }

    /// How many were left out since the last time, if this is to be told now.
    pub(super) fn tell(&self, occasion: Occasion) -> Option<u64> {
        self.memory.repeats.tell(occasion, self.now())
    }

    pub(super) fn now(&self) -> Monotonic {
        self.memory.clock.monotonic()
    }

    /// Whether what comes from `address` says by a PROXY header who the client is.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.policy.proxies.iter().any(|network| network.contains(address))
    }

    /// Whether no client was seen behind a container's gateway before.
    pub(super) fn is_first_behind_gateway(&self) -> bool {
        !self.memory.seen_behind_gateway.swap(true, Ordering::Relaxed)
    }

    /// Whether the client comes from where clients may come from.
    pub(super) fn admits(&self, client: &Client) -> Result<(), Reply> {
        self.policy.admits(client.address()).map_err(|refusal| self.refused(client, &ReversePath::Null, &refusal))
    }

    /// Whether the client may begin a transaction: what was so when it connected and logged in may be so no longer.
    pub(super) fn still_admits(&self, client: &Client) -> Result<(), Reply> {
        self.admits(client)?;
        let Some(user) = &client.user else {
            let text = "Authentication is required now, connect again";
            return if self.policy.needs_login { Err(Reply::new(530, (5, 7, 0), text)) } else { Ok(()) };
        };
        if self.policy.logins.still_knows(user) {
            return Ok(());
        }
        if let Some(left_out) = self.tell(Occasion::Login(client.address(), Some(Arc::clone(user)))) {
            let (listener, address) = (&client.listener, client.address());
            warn!(%listener, client = %address, %user, left_out, "mail refused: the user of this session was removed or has another password now");
        }
        Err(Reply::new(554, (5, 7, 1), "Your login is no longer valid here, connect and log in again"))
    }

    /// Whether the client, its user and the listener may all begin another message; then it counts for each of them.
    pub(super) fn within_limits(&self, client: &Client, paces: &Paces) -> Result<(), Reply> {
        let limits = self.policy.limits.of(&client.listener, client.address(), client.user.as_ref());
        paces.count(&limits, self.now()).map_err(|over| self.over_limit(client, &over))
    }

    fn over_limit(&self, client: &Client, over: &Over<'_>) -> Reply {
        let (listener, address, most) = (&client.listener, client.address(), over.limit.most);
        let (what, whose) = match &over.limit.counted {
            Counted::Client(..) => ("[listener.*] max_messages_per_minute_per_client", format!("Client {address}")),
            Counted::User(user) => ("[user.*] max_messages_per_minute", format!("User {user}")),
            Counted::Listener(_) => {
                ("[listener.*] max_messages_per_minute", "All clients of this listener together".to_owned())
            }
        };
        if let Some(left_out) = self.tell(Occasion::OverLimit(over.limit.counted.clone())) {
            let user = client.user.as_deref();
            warn!(
                %listener, client = %address, user, limit = what, most, left_out,
                "message refused for now: more in a minute than the limit allows; a client that queues sends it later. If a script \
                 runs wild, stop it; if the client is meant to send so much, raise the limit"
            );
        }
        let noun = if most == 1 { "message" } else { "messages" };
        let seconds = over.wait.as_secs_f64().ceil();
        Reply::new(450, (4, 7, 1), format!("{whose} may send {most} {noun} a minute, try again in {seconds} s"))
    }

    /// The answer when what the client wants is not taken.
    pub(super) fn refused(&self, client: &Client, sender: &ReversePath, refusal: &Refusal) -> Reply {
        self.tell_refusal(client, sender, refusal);
        refusal.reply()
    }

    fn tell_refusal(&self, client: &Client, sender: &ReversePath, refusal: &Refusal) {
        let (listener, address, user) = (&client.listener, client.address(), client.user.as_deref());
        match refusal {
            Refusal::Stranger(_) => {
                let Some(left_out) = self.tell(Occasion::Stranger(address)) else { return };
                warn!(%listener, client = %address, left_out, "client refused: not in the listener's networks");
            }
            Refusal::Routes { recipient, refused } => {
                let Some(left_out) = self.tell(Occasion::Refused(address)) else { return };
                let recipient = recipient.as_ref().map(tracing::field::display);
                let remedy = refused.remedy();
                warn!(%listener, client = %address, user, %sender, recipient, reason = %refused, remedy, left_out, "mail refused");
            }
            Refusal::Sender { user, sender, place } => {
                let Some(left_out) = self.tell(Occasion::Sender(Arc::clone(user))) else { return };
                warn!(%listener, client = %address, %user, %sender, place, left_out, "mail refused: not among the user's allowed_senders");
            }
            // Of one message, and its client's matter.
            Refusal::TooLarge { .. }
            | Refusal::Loop
            | Refusal::HeaderTooLong(_)
            | Refusal::UndeclaredHeader
            | Refusal::Header(_) => {}
        }
    }

    /// A client of a direct listener must come back, for a reason that is ours.
    pub(super) fn come_back(&self, client: &Client, reply: &Reply) {
        if let Some(left_out) = self.tell(Occasion::ComeBack(client.address())) {
            let (listener, address, user) = (&client.listener, client.address(), client.user.as_deref());
            warn!(%listener, client = %address, user, %reply, left_out, "message not taken now; its client was told to come back");
        }
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
