//! A recipient with all that its client said of it: the path, and what is to be reported of it. What became of it is an
//! `Outcome`.

use std::fmt;

use crate::dsn::{Notify, OriginalRecipient};
use crate::path::ForwardPath;

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Whom it goes to.
    pub path: ForwardPath,
    /// `NOTIFY=`; none if the client did not say.
    pub notify: Option<Notify>,
    /// `ORCPT=`.
    pub original: Option<OriginalRecipient>,
}

impl Recipient {
    /// Of what its sender wants to hear.
    pub fn notify(&self) -> Notify {
        self.notify.unwrap_or(Notify::UNSAID)
    }
}

/// One of which the client said nothing more.
impl From<ForwardPath> for Recipient {
    fn from(path: ForwardPath) -> Self {
        Self { path, notify: None, original: None }
    }
}

/// Its path.
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
