//! What the daemon answers on its control socket. One arm for each request; the work is done elsewhere.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::control::{Handler, Peer, Refusal, RefusalCode, Request};
use crate::status::Overview;

/// The requests there are.
const KNOWN: [&str; 1] = ["status"];

/// The daemon's handler.
pub(crate) struct Requests {
    overview: Arc<Overview>,
}

/// Parameters of a request that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

impl Requests {
    /// Answers from `overview`.
    pub(crate) fn new(overview: Arc<Overview>) -> Self {
        Self { overview }
    }
}

impl Handler for Requests {
    async fn handle(&self, request: Request, _: Peer) -> Result<Value, Refusal> {
        match request.name.as_str() {
            "status" => {
                let NoParameters {} = request.parameters()?;
                serde_json::to_value(self.overview.snapshot().await)
                    .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))
            }
            name => Err(Refusal::unknown_request(name, &KNOWN)),
        }
    }
}
