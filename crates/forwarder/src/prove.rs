//! One login with upstream and nothing else: what proves that a token is good for a user. No message, no lane.

use clock::Monotonic;
use wire::Reply;

use crate::connection::{Connection, Lost, OpenError};
use crate::endpoint::Endpoint;

/// Why upstream could not be asked. The text names where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unproven(pub(crate) String);

/// Upstream's answer to AUTH XOAUTH2 for `user` with `token`: positive when it takes it, without the token in its text.
pub async fn prove(endpoint: &Endpoint, now: Monotonic, user: &str, token: &str) -> Result<Reply, Unproven> {
    let mut connection = match Connection::open(endpoint, now).await {
        Ok(connection) => connection,
        Err(OpenError::Network(text)) => return Err(Unproven(text)),
        Err(OpenError::Refused(_, reply)) => return Err(Unproven(format!("{endpoint} refused before AUTH: {reply}"))),
    };
    let answer = connection.authenticate(user, token).await;
    let reply = answer.map_err(|Lost(text)| Unproven(format!("{endpoint}, during AUTH: {text}")))?;
    connection.quit().await;
    Ok(reply)
}
