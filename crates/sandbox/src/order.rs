//! Orders to a running sandbox, one line each: the language of the command line and of scripts. Parsing is pure
//! (`grammar`); carrying out is [`Sandbox::obey`](crate::Sandbox::obey). There is no order that a test cannot give by
//! the sandbox's methods too, and none that a client of the simulated services could give.

mod execution;
mod grammar;
mod picture;

use std::fmt;
use std::time::Duration;

use crate::catalogue::UnknownFault;
use crate::suggestion;
use crate::{Fault, Grant, Limits, RateMode, SharedLogin, SmtpAuth};

/// What can be ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Injects a fault.
    Fault(Fault),
    /// Lists the catalogue, or what of it has this word in its name or text.
    Faults(Option<String>),
    /// Lists the faults that wait.
    Waiting,
    /// Forgets the faults that wait.
    Clear,
    /// Changes a mailbox.
    Mailbox {
        /// Its address.
        address: String,
        /// What about it.
        change: MailboxOrder,
    },
    /// Sets the tenant's SMTP AUTH switch.
    TenantSmtpAuth {
        /// Whether SMTP AUTH is on.
        on: bool,
        /// The tenant's GUID or domain; the first one if it is not given.
        tenant: Option<String>,
    },
    /// Consents to `SMTP.SendAsApp`, or withdraws it.
    Role {
        /// Whether the application has it.
        on: bool,
        /// The client id; the first tenant's first application if it is not given.
        client: Option<String>,
    },
    /// Replaces every secret of an application.
    Secret {
        /// The new one.
        value: ClientSecret,
        /// The client id; the first tenant's first application if it is not given.
        client: Option<String>,
    },
    /// Sets "Allow public client flows".
    Public {
        /// Whether sign-ins go without a secret.
        on: bool,
        /// The client id; the first tenant's first application if it is not given.
        client: Option<String>,
    },
    /// Lists the devices that wait for a person.
    Devices,
    /// Signs in on behalf of a device.
    ApproveDevice {
        /// The code that the device shows.
        code: String,
        /// Who signs in; the first tenant's first user if it is not given.
        user: Option<String>,
    },
    /// Declines what a device asks for; the code that it shows.
    DeclineDevice(String),
    /// Sets who signs in at once when a browser comes; `None` shows it a page.
    Browser(Option<String>),
    /// Sets which user of a shared mailbox counts at AUTH.
    SharedLogin(SharedLogin),
    /// Ends every sign-in of a user.
    Revoke(String),
    /// Sets the lifetime of tokens; `None` draws it.
    Lifetime(Option<Duration>),
    /// Sets the wait before each 5xx.
    Tarpit(Duration),
    /// Sets how the message rate is enforced.
    Rate(RateMode),
    /// Sets whether rates and quotas apply.
    Limits(Limits),
    /// Sets how long changes of permissions take.
    PermissionDelay(Duration),
    /// Shows tenants, mailboxes, conditions and counters.
    State,
    /// Lists what is unproven.
    Unproven,
    /// Lists the orders.
    Help,
}

/// What can be ordered about a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxOrder {
    /// Adds it to the tenant of its domain, granted to nobody.
    Add,
    /// Fills or empties it.
    Full(bool),
    /// Sets its SMTP AUTH switch.
    SmtpAuth(SmtpAuth),
    /// Grants it to the tenant's applications by this path and no other, or to none.
    Grant(Option<Grant>),
    /// Makes it shared, or a user's own.
    Shared(bool),
    /// Gives a user full access to it.
    Delegate(String),
    /// Lets it send as another address.
    SendAs(String),
    /// Another address of its own.
    Alias(String),
}

/// A client secret in an order; never in Debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(..)")
    }
}

/// Why a line is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The line is empty.
    #[error("no order; `help` lists them")]
    Empty,
    /// A word that is not allowed where it stands.
    #[error("no {what} `{word}`{}; there are: {}", suggestion::hint(*.nearest), .known.join(", "))]
    UnknownWord {
        /// What should stand there.
        what: &'static str,
        /// The word.
        word: String,
        /// What may stand there.
        known: Vec<&'static str>,
        /// The one that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The catalogue has no such fault.
    #[error(transparent)]
    UnknownFault(#[from] UnknownFault),
    /// The line ends too early.
    #[error("{expected} is missing; the order is `{usage}`")]
    Missing {
        /// What should follow.
        expected: &'static str,
        /// The whole form.
        usage: &'static str,
    },
    /// The line goes on behind its order.
    #[error("`{word}` is too much; the order is `{usage}`")]
    TooMuch {
        /// The first word that is too much.
        word: String,
        /// The whole form.
        usage: &'static str,
    },
    /// A value that is none.
    #[error("`{given}` is not {expected}")]
    BadValue {
        /// The value.
        given: String,
        /// What is allowed.
        expected: &'static str,
    },
}

/// The forms of orders: first word, whole form, what it does.
const FORMS: &[(&str, &str, &str)] = &[
    ("fault", "fault NAME [times N|always] [for WHO]", "inject a fault of the catalogue, once if nothing else is said"),
    (
        "fault",
        "fault at STAGE [times N|always] [for WHO] reply TEXT|close|stall|wait SECONDS",
        "inject any other; `[..]` at the end of TEXT is the session's suffix. WHO is a mailbox, or a client id at token, device-code and imds",
    ),
    ("faults", "faults [WORD]", "list the catalogue, or what of it has the word"),
    ("waiting", "waiting", "list what was injected and has not struck"),
    ("clear", "clear", "forget it"),
    ("mailbox", "mailbox ADDRESS add", "add a mailbox to the tenant of its domain"),
    ("mailbox", "mailbox ADDRESS full on|off", "fill or empty it"),
    ("mailbox", "mailbox ADDRESS smtp-auth inherit|on|off", "set its SMTP AUTH switch"),
    (
        "mailbox",
        "mailbox ADDRESS grant rbac|full-access|none",
        "let the tenant's applications use it by that path (full-access needs `role on`)",
    ),
    ("mailbox", "mailbox ADDRESS shared on|off", "make it a shared mailbox, as which nobody signs in"),
    ("mailbox", "mailbox ADDRESS delegate USER", "give a user full access to it"),
    ("mailbox", "mailbox ADDRESS alias OTHER", "give it another address"),
    ("mailbox", "mailbox ADDRESS send-as OTHER", "let it send as another address"),
    ("tenant", "tenant smtp-auth on|off [for TENANT]", "set the tenant's SMTP AUTH switch"),
    ("role", "role on|off [for CLIENT]", "the permission SMTP.SendAsApp: needed for full-access, wrong with rbac"),
    ("secret", "secret VALUE [for CLIENT]", "replace every secret of the application"),
    ("public", "public on|off [for CLIENT]", "allow public client flows: people sign in, and no secret may be sent"),
    ("devices", "devices", "list the codes of devices that wait for a person"),
    ("device", "device approve CODE [as USER]", "sign in on behalf of a device; as the first user if nobody is named"),
    ("device", "device decline CODE", "decline what it asks for"),
    ("browser", "browser USER|nobody", "who signs in at once when a browser comes; nobody: it shows a page"),
    ("shared-login", "shared-login mailbox|delegate", "which user a delegate of a shared mailbox must name at AUTH"),
    ("revoke", "revoke USER", "end every sign-in of a user: his refresh tokens die"),
    ("lifetime", "lifetime SECONDS|random", "how long new tokens live"),
    ("tarpit", "tarpit SECONDS", "wait before each 5xx; Exchange waits about 5"),
    ("rate", "rate reject|delay", "what happens beyond 30 messages a minute"),
    ("limits", "limits exchange|off", "whether rates and quotas apply"),
    ("permission-delay", "permission-delay SECONDS", "how late grants and switches take effect; up to 7200 out there"),
    ("state", "state", "tenants, mailboxes, conditions, counters"),
    ("unproven", "unproven", "what nobody has proven against a real tenant"),
    ("help", "help", "this list"),
];

/// The list of orders, for a person.
pub fn help() -> String {
    let lines = FORMS.iter().map(|(_, form, meaning)| format!("{form}\n    {meaning}"));
    lines.collect::<Vec<_>>().join("\n")
}
