//! The seam between the wire and whoever takes the mail: a hook for each verb that needs a decision.
//!
//! A hook answers with a reply for the client; its text is for outside. A 421 of any hook is sent and the connection closed,
//! whatever the client sent behind its command (RFC 5321 section 3.8). Sequence, syntax and the listener's own limits have
//! been checked before a hook is called.
//!
//! The futures of `mail`, `rcpt`, `data` and `write` are dropped at any point where they wait, with the transaction or the
//! sink, when the client has gone and nothing is left of what it sent: nobody would hear their answer.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use mail::{Recipient, ReversePath};
use wire::{MailParameters, Reply};

use crate::client::Client;
use crate::notice::Notice;
use crate::sasl::Credentials;

/// Decides what comes in. One for each listener, shared by its connections.
pub trait Intake: Send + Sync + 'static {
    /// One mail transaction; dropped by RSET, EHLO or the client's going, before the client takes our last word.
    type Transaction: Transaction;

    /// Whether a connection from this address is a load balancer's, whose PROXY header says who the client is.
    fn is_proxy(&self, address: IpAddr) -> bool {
        let _ = address;
        false
    }

    /// A connection was made. A refusal is sent in place of the banner and the connection closed. Asked before the client
    /// has a place among the sessions: it must be cheap.
    fn connect(&self, client: &Client) -> Result<(), Reply>;

    /// Something about a client that is no command of its. Must be cheap.
    fn noticed(&self, client: &Client, notice: &Notice<'_>) {
        let _ = (client, notice);
    }

    /// AUTH: the name under which the client goes from now on, or a refusal (535 when name or password are wrong, 454 when
    /// that cannot be said now). Whatever the answer, how long it takes must not tell whether the name is known.
    fn authenticate(
        &self,
        client: &Client,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Arc<str>, Reply>> + Send;

    /// MAIL: a transaction, or a refusal.
    fn mail(
        &self,
        client: &Client,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> impl Future<Output = Result<Self::Transaction, Reply>> + Send;
}

/// A mail transaction between MAIL and DATA.
pub trait Transaction: Send + 'static {
    /// Takes the message.
    type Sink: MessageSink;

    /// Whether the message is carried while its client waits: from the first recipient's answer on it holds something of
    /// upstream's, and its client must be quick.
    fn is_live(&self) -> bool {
        false
    }

    /// RCPT: a positive reply takes the recipient.
    fn rcpt(&mut self, recipient: Recipient) -> impl Future<Output = Reply> + Send;

    /// DATA, when at least one recipient was taken: a sink for the message, or a refusal. 354 is sent on `Ok`.
    fn data(self) -> impl Future<Output = Result<Self::Sink, Reply>> + Send;
}

/// Takes a message at rest (dots unstuffed, line ends CRLF) as it arrives. Dropped before its end, the client has gone
/// or the message was refused: nothing may stay of it.
pub trait MessageSink: Send + 'static {
    /// The next octets. After an error the rest of the message is read and dropped and the error is the final reply.
    fn write(&mut self, chunk: &[u8]) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The final dot came. The reply is the promise: a positive one means the message is safe (invariant 1).
    /// Never run under a timeout, nor dropped because the client went.
    fn end(self) -> impl Future<Output = Reply> + Send;
}
