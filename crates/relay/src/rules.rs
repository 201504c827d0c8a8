//! What the configuration says about mail, in one value that a reload replaces whole: a message never meets half of an
//! old and half of a new one.

use crate::config::Settings;
use crate::reporting::Reporting;
use crate::retry::Plan;
use crate::routing::Routing;

/// The rules of one configuration.
pub(crate) struct Rules {
    /// Our name.
    pub(crate) hostname: String,
    /// Which message goes where, and what its sender becomes.
    pub(crate) routing: Routing,
    /// When what is tried again.
    pub(crate) plan: Plan,
    /// Who hears of what did not go.
    pub(crate) reporting: Reporting,
}

impl Rules {
    /// Those of right settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            hostname: settings.hostname.as_str().to_owned(),
            routing: Routing::new(settings),
            plan: Plan::new(&settings.retry),
            reporting: Reporting::new(settings),
        }
    }

    /// Those of other settings, with what these remember.
    pub(crate) fn renewed(&self, settings: &Settings) -> Self {
        Self { reporting: self.reporting.renewed(settings), ..Self::new(settings) }
    }
}
