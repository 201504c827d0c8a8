//! How a message's content ends on the wire, whoever streamed it, and what its recipients' outcome is then. Before the final
//! dot a lost connection means not sent, after it nobody knows (invariant 5).

use mail::{Diagnostic, Outcome};
use wire::Reply;

use crate::classify::{Stage, classify};
use crate::connection::{Connection, Lost};
use crate::dialog::{LAST_WORDS, not_accepted};

/// How the message itself ended.
#[derive(Debug)]
pub(crate) enum Content {
    /// Upstream's final reply.
    Answered(Reply),
    /// Broken off before the final dot, with upstream's last words if there were some.
    Interrupted(Option<Reply>),
    /// The final dot went out and no reply came.
    Unanswered(Lost),
}

impl Content {
    /// What became of whoever waited for the final reply.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Answered(reply) => classify(Stage::EndOfData, reply),
            Self::Interrupted(Some(reply)) => not_accepted(classify(Stage::EndOfData, reply)),
            Self::Interrupted(None) => {
                Outcome::Deferred(Diagnostic::local("the connection was lost in the middle of the message"))
            }
            Self::Unanswered(lost) => {
                Outcome::Uncertain(Diagnostic::local(format!("no reply after the final dot: {lost}")))
            }
        }
    }

    /// Whether the session is good for more.
    pub(crate) fn is_session_usable(&self) -> bool {
        matches!(self, Self::Answered(reply) if reply.code() != 421)
    }
}

/// The content could not be written: upstream's last words, if there are any.
pub(crate) async fn interrupted(connection: &mut Connection) -> Content {
    Content::Interrupted(connection.read_reply(LAST_WORDS).await.ok())
}

/// Writes the last block, which has the final dot, and waits for the reply to it. From here on upstream may have the whole
/// message, even if the write fails.
pub(crate) async fn finish(connection: &mut Connection, block: &[u8]) -> Content {
    let written = connection.write(block, connection.timeouts.data_block).await;
    let wait = if written.is_ok() { connection.timeouts.final_dot } else { LAST_WORDS };
    match connection.read_reply(wait).await {
        Ok(reply) => Content::Answered(reply),
        Err(lost) => Content::Unanswered(written.err().unwrap_or(lost)),
    }
}
