//! What the library itself can fail with. Refusals on the wire are not errors here: they are the product.

use std::time::Duration;

/// Why the sandbox could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A listener could not be opened on loopback.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port that was asked for; 0 means any.
        port: u16,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The CA or the server certificate could not be made.
    #[error("cannot make the certificates")]
    Certificate(#[from] rcgen::Error),
    /// rustls refused the certificate or the protocol versions.
    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),
    /// The system's random number generator failed while the token key was made.
    #[error("cannot make the token signing key")]
    TokenKey,
    /// No tenant has this id or domain.
    #[error("no tenant `{0}` in the sandbox")]
    UnknownTenant(String),
    /// No tenant has an application with this client id.
    #[error("no application `{0}` in the sandbox")]
    UnknownApplication(String),
    /// No tenant has a mailbox with this address.
    #[error("no mailbox `{0}` in the sandbox")]
    UnknownMailbox(String),
    /// No tenant has a user of this name; a shared mailbox is none.
    #[error("no user `{0}` in the sandbox")]
    UnknownUser(String),
    /// No device waits with this code: it was decided on, it expired, or there never was one.
    #[error("no device waits with the code `{0}`")]
    UnknownDevice(String),
    /// A mailbox with this address is there already.
    #[error("mailbox `{0}` is in the sandbox already")]
    MailboxExists(String),
    /// The user belongs to another tenant than the application.
    #[error("user `{user}` is not in the tenant of application `{client_id}`")]
    ForeignUser {
        /// The user.
        user: String,
        /// The application.
        client_id: String,
    },
    /// The scope is neither Exchange's nor Graph's.
    #[error("no token for scope `{0}`")]
    UnknownScope(String),
    /// The fault's action means nothing at its stage.
    #[error("a fault at {stage} cannot {action}")]
    SenselessFault {
        /// Where it was to happen.
        stage: crate::Stage,
        /// What was to happen.
        action: &'static str,
    },
    /// Fewer messages than awaited arrived in time.
    #[error("{arrived} of {awaited} messages arrived within {within:?}")]
    TooFewMessages {
        /// How many were awaited.
        awaited: u64,
        /// How many had come.
        arrived: u64,
        /// How long was waited.
        within: Duration,
    },
}
