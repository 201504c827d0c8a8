//! Why no mailbox takes a message: what its client hears, and what the administrator reads. Two texts, since the client is
//! a printer's display and the administrator has the configuration.

use mail::Mailbox;
use wire::Reply;

use super::dress::{MAY_NOT_REMEDY, MayNotSendAs};

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// No route matches.
    #[error("no [[route]] matches")]
    NoRoute,
    /// The route does not send there.
    #[error("route {route:?} does not send to {recipient} (allow_recipients, deny_recipients)")]
    Recipient {
        /// The route.
        route: String,
        /// After the maps.
        recipient: String,
    },
    /// `{sender}`, and there is none.
    #[error("route {route:?} chooses the sender's own mailbox, and the message names no sender")]
    NoSender {
        /// The route.
        route: String,
    },
    /// `{sender}`, and no mailbox of the configuration is his.
    #[error("route {route:?} chooses the sender's own mailbox, and {sender} has none here, nor is there a fallback")]
    NoMailbox {
        /// The route.
        route: String,
        /// After the maps.
        sender: Mailbox,
    },
    /// A wildcard mailbox, and nobody vouches for the sender.
    #[error(
        "mailbox {mailbox:?} lets only users send who have logged in and have allowed_senders (wildcard_needs_user), and \
         this client has not or its user has none"
    )]
    NeedsUser {
        /// The mailbox's name.
        mailbox: String,
    },
    /// `sender = "reject"`.
    #[error("{0}")]
    Sender(#[from] MayNotSendAs),
}

impl Refused {
    /// What the client hears.
    pub(crate) fn reply(&self) -> Reply {
        let text = match self {
            Self::NoRoute => {
                "No route takes this mail from here; the relay's administrator can add one (xoauth2-relay explain shows why)"
                    .to_owned()
            }
            Self::Recipient { recipient, .. } => format!("Mail to {recipient} is not allowed from here"),
            Self::NoSender { .. } => "Mail without a sender is not taken here".to_owned(),
            Self::NoMailbox { sender, .. } => format!("{sender} has no mailbox here; send as an address that has one"),
            Self::NeedsUser { .. } => {
                "Log in to choose your sender here (AUTH), as a user who may send as that address".to_owned()
            }
            Self::Sender(refused) => format!("Mail as {} is not taken here ({})", refused.sender, refused.place),
        };
        Reply::new(550, (5, 7, 1), text)
    }

    /// What the administrator can do.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NoRoute => {
                "add a [[route]] that matches, or widen one; `xoauth2-relay explain` shows what stands against each"
            }
            Self::Recipient { .. } => "add the address to the route's allow_recipients, if it may be written to",
            Self::NoSender { .. } => {
                "let the program name a sender, or give such mail a route with a mailbox of its own"
            }
            Self::NoMailbox { .. } => {
                "add a [mailbox.*] for that domain, or a fallback to the route, or map the sender in [rewrite]"
            }
            Self::NeedsUser { .. } => {
                "let the client log in as a [user.*] with allowed_senders, or set the mailbox's wildcard_needs_user = false if \
                 any listed client may send as anybody there"
            }
            Self::Sender(_) => MAY_NOT_REMEDY,
        }
    }
}
