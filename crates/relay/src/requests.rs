//! What the daemon answers on its control socket. One arm for each request; the work is done elsewhere.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spool::{DeliveryId, Selection, SqliteSpool};
use tracing::info;

use crate::control::{Handler, Peer, Refusal, RefusalCode, Request};
use crate::daemon::Reloader;
use crate::delivery::Road;
use crate::following::Followed;
use crate::queue::{Rerouted, Rerouting};
use crate::routing::Word;
use crate::sign_ins::SignIns;
use crate::status::Overview;

/// The requests there are.
const KNOWN: [&str; 7] =
    ["status", "reload", "queue_reroute", "login_begin", "login_progress", "login_callback", "login_give_up"];

/// How long a question for progress waits for some.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one request moves mail; the asker goes on with the next.
const REROUTE_PATIENCE: Duration = Duration::from_secs(5);

/// The daemon's handler.
pub(crate) struct Requests {
    overview: Arc<Overview>,
    /// There once the queue is open.
    sign_ins: Arc<OnceLock<SignIns>>,
    /// The same.
    reloader: Arc<OnceLock<Reloader>>,
    /// The same; none in it where there is no queue.
    road: Arc<OnceLock<Option<Arc<Road<SqliteSpool>>>>>,
}

/// Parameters of a request that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

impl Requests {
    /// Answers from `overview`, `sign_ins` and `reloader`, and acts on what is on the `road`.
    pub(crate) fn new(
        overview: Arc<Overview>,
        sign_ins: Arc<OnceLock<SignIns>>,
        reloader: Arc<OnceLock<Reloader>>,
        road: Arc<OnceLock<Option<Arc<Road<SqliteSpool>>>>>,
    ) -> Self {
        Self { overview, sign_ins, reloader, road }
    }

    /// Moves mail that waits by an operator's word.
    async fn reroute(&self, wish: &Rerouting, peer: Peer) -> Result<Rerouted, Refusal> {
        let road = self.road.get().ok_or_else(starting)?;
        let road = road.as_ref().ok_or_else(|| {
            Refusal::new(
                RefusalCode::Unavailable,
                "this relay has no queue: every listener is direct, and nothing is stored",
            )
        })?;
        let bad = |text: String| Refusal::new(RefusalCode::BadRequest, text);
        if let Some(tenant) = wish.tenant.as_ref().filter(|name| !road.rules.get().routing.has_tenant(name)) {
            return Err(bad(format!("no mailbox of the running configuration is in a tenant called {tenant:?}")));
        }
        let selection = match &wish.message {
            Some(id) => Selection::Message(id.parse().map_err(|_| {
                bad(format!("{id:?} is no queue id; the log and the reply to the client have it, as 3-1F"))
            })?),
            None => Selection::Unrouted,
        };
        let said = format!("queue reroute by uid {}", peer.uid);
        let word = Word { tenant: wish.tenant.as_deref() };
        let (followed, next) = road
            .move_selected(&selection, wish.after.map(DeliveryId::from_i64), word, &said, REROUTE_PATIENCE)
            .await
            .map_err(|error| Refusal::new(RefusalCode::Unavailable, error.to_string()))?;
        let Followed { deliveries, moved, unrouted, reason } = followed;
        let (message, tenant) = (wish.message.as_deref(), wish.tenant.as_deref());
        info!(message, tenant, uid = peer.uid, deliveries, moved, held = unrouted, "mail was asked about again");
        Ok(Rerouted { deliveries, moved, held: unrouted, reason, next: next.map(DeliveryId::to_i64) })
    }

    fn sign_ins(&self) -> Result<&SignIns, Refusal> {
        self.sign_ins.get().ok_or_else(starting)
    }

    async fn reload(&self, peer: Peer) -> Result<Value, Refusal> {
        let reloader = self.reloader.get().ok_or_else(starting)?;
        let outcome = reloader.reload(&format!("uid {}", peer.uid)).await;
        json(&outcome.map_err(|error| Refusal::new(RefusalCode::Unavailable, error.to_string()))?)
    }
}

fn starting() -> Refusal {
    Refusal::new(RefusalCode::Unavailable, "the daemon is still opening its queue; try again")
}

impl Handler for Requests {
    async fn handle(&self, request: Request, peer: Peer) -> Result<Value, Refusal> {
        match request.name.as_str() {
            "status" => {
                let NoParameters {} = request.parameters()?;
                json(&self.overview.snapshot().await)
            }
            "reload" if !peer.is_root_or_us() => {
                Err(Refusal::new(RefusalCode::Forbidden, "reloading is for root and the service's user"))
            }
            "reload" => {
                let NoParameters {} = request.parameters()?;
                self.reload(peer).await
            }
            name if name.starts_with("login_") && !peer.is_root_or_us() => {
                // A group that may look is not one that decides whose mailbox mail leaves by.
                Err(Refusal::new(RefusalCode::Forbidden, "signing in is for root and the service's user"))
            }
            "queue_reroute" if !peer.is_root_or_us() => {
                Err(Refusal::new(RefusalCode::Forbidden, "moving mail is for root and the service's user"))
            }
            "queue_reroute" => json(&self.reroute(&request.parameters()?, peer).await?),
            "login_begin" => {
                let who = format!("uid {}", peer.uid);
                json(&self.sign_ins()?.begin(request.parameters()?, &who).await?)
            }
            "login_progress" => json(&self.sign_ins()?.progress(&request.parameters()?, PATIENCE).await?),
            "login_callback" => {
                self.sign_ins()?.callback(&request.parameters()?)?;
                // Null would be no reply at all.
                Ok(Value::Object(serde_json::Map::new()))
            }
            "login_give_up" => json(&self.sign_ins()?.give_up(&request.parameters()?)?),
            name => Err(Refusal::unknown_request(name, &KNOWN)),
        }
    }
}

fn json(reply: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(reply).map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))
}
