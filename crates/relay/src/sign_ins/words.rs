//! What `login` and whoever runs its sign-in say to each other, over the control socket or within one process. Only data.
//!
//! A refresh token that is taken over, and the address that a browser came back with, go through here: neither has a form in
//! which it could reach a log.

use serde::{Deserialize, Serialize};
use token_manager::DevicePrompt;
use zeroize::Zeroizing;

/// Begin a sign-in.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begin {
    /// The tenant's name; none: that of the mailbox.
    pub(crate) tenant: Option<String>,
    /// The mailbox's name.
    pub(crate) mailbox: String,
    /// Whether it is kept although upstream took it for nobody.
    #[serde(default)]
    pub(crate) unproven: bool,
    /// How.
    pub(crate) way: Way,
}

/// How one signs in.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// By a code that is typed at another screen.
    DeviceCode,
    /// By a browser, which comes back to a loopback address.
    Browser {
        /// That address.
        redirect_uri: String,
    },
    /// With a refresh token that another product holds.
    TakeOver {
        /// The token.
        refresh_token: Zeroizing<String>,
    },
}

/// One has begun.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Begun {
    /// By which it is asked after.
    pub(crate) id: String,
    /// The tenant's name.
    pub(crate) tenant: String,
    /// The mailbox's.
    pub(crate) mailbox: String,
    /// Its login.
    pub(crate) login: String,
    /// What the user has to see.
    pub(crate) prompt: Option<Prompt>,
}

/// What the user has to see.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Prompt {
    /// Type this code there.
    DeviceCode {
        /// The code.
        user_code: String,
        /// Where.
        verification_uri: String,
        /// How long it is good.
        lifetime_seconds: u64,
    },
    /// Open this.
    Browser {
        /// The address.
        url: String,
    },
}

impl Prompt {
    pub(crate) fn of(prompt: &DevicePrompt) -> Self {
        Self::DeviceCode {
            user_code: prompt.user_code.clone(),
            verification_uri: prompt.verification_uri.to_string(),
            lifetime_seconds: prompt.lifetime.as_secs(),
        }
    }
}

/// Asks how it stands.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Following {
    /// Which.
    pub(crate) id: String,
    /// The step that was seen last.
    #[serde(default)]
    pub(crate) seen: u32,
}

/// Nobody wants it any more.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivingUp {
    /// Which.
    pub(crate) id: String,
}

/// A browser came back to this address.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callback {
    /// Which.
    pub(crate) id: String,
    /// The address, or its path and query.
    pub(crate) url: Zeroizing<String>,
}

/// How a sign-in stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// The mailbox's name.
    pub(crate) mailbox: String,
    /// Counts the changes of `state`.
    pub(crate) step: u32,
    /// What is done.
    pub(crate) state: State,
    /// Who signed in, once that is known.
    pub(crate) account: Option<String>,
    /// What upstream said so far.
    pub(crate) tries: Vec<Try>,
}

/// What is done.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The user has not finished.
    Waiting,
    /// The token endpoint is asked.
    Asking,
    /// Upstream is asked whether it takes the token.
    Proving {
        /// For this XOAUTH2 user.
        user: String,
    },
    /// It is kept.
    Stored {
        /// With this XOAUTH2 user.
        user: String,
        /// Whether upstream took it.
        is_proven: bool,
    },
    /// It is over without one.
    Failed {
        /// What happened.
        text: String,
        /// What to do; may be empty.
        advice: String,
    },
}

/// Whether upstream takes the token for a user.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Try {
    /// The XOAUTH2 user.
    pub(crate) user: String,
    /// Whether it does.
    pub(crate) is_taken: bool,
    /// Whether it could be asked.
    pub(crate) is_answered: bool,
    /// Its own words, or why there are none.
    pub(crate) text: String,
}

impl Progress {
    /// The user has to act.
    pub(crate) fn begun(mailbox: &str) -> Self {
        Self { mailbox: mailbox.to_owned(), step: 1, state: State::Waiting, account: None, tries: Vec::new() }
    }

    /// The next step.
    pub(crate) fn go_on(&mut self, state: State) {
        self.step += 1;
        self.state = state;
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Stored { .. } | State::Failed { .. })
    }
}
