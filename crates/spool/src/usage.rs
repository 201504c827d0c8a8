//! What a login has used of Exchange's limits. Not here: the limits.

/// Messages and recipients that went up by one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages.
    pub messages: u32,
    /// Recipients.
    pub recipients: u32,
    /// Recipients outside the tenant, of those.
    pub external: u32,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            recipients: self.recipients.saturating_add(other.recipients),
            external: self.external.saturating_add(other.external),
        }
    }
}
