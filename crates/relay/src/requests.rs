//! What the daemon answers on its control socket. One arm for each request; the work is done elsewhere.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::{Handler, Peer, Refusal, RefusalCode, Request};
use crate::sign_ins::SignIns;
use crate::status::Overview;

/// The requests there are.
const KNOWN: [&str; 5] = ["status", "login_begin", "login_progress", "login_callback", "login_give_up"];

/// How long a question for progress waits for some.
const PATIENCE: Duration = Duration::from_secs(1);

/// The daemon's handler.
pub(crate) struct Requests {
    overview: Arc<Overview>,
    /// There once the queue is open.
    sign_ins: Arc<OnceLock<SignIns>>,
}

/// Parameters of a request that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

impl Requests {
    /// Answers from `overview` and `sign_ins`.
    pub(crate) fn new(overview: Arc<Overview>, sign_ins: Arc<OnceLock<SignIns>>) -> Self {
        Self { overview, sign_ins }
    }

    fn sign_ins(&self) -> Result<&SignIns, Refusal> {
        let starting = || Refusal::new(RefusalCode::Unavailable, "the daemon is still opening its queue; try again");
        self.sign_ins.get().ok_or_else(starting)
    }
}

impl Handler for Requests {
    async fn handle(&self, request: Request, peer: Peer) -> Result<Value, Refusal> {
        match request.name.as_str() {
            "status" => {
                let NoParameters {} = request.parameters()?;
                json(&self.overview.snapshot().await)
            }
            name if name.starts_with("login_") && !peer.is_root_or_us() => {
                // A group that may look is not one that decides whose mailbox mail leaves by.
                Err(Refusal::new(RefusalCode::Forbidden, "signing in is for root and the service's user"))
            }
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
