//! The name of a lane: one login's road upstream. Exchange counts its limits by login, so lanes of two tenants that
//! share one Entra tenant and login are the same lane.

use std::fmt;

/// Names a lane, in the spool, in logs and in `status`. Two configurations that mean the same login give the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(String);

impl LaneId {
    /// The lane of `login` in the Entra tenant `tenant_id` (GUID or verified domain). Both compare without case.
    pub fn new(tenant_id: &str, login: &str) -> Self {
        Self(format!("{}/{}", tenant_id.to_ascii_lowercase(), login.to_ascii_lowercase()))
    }

    /// A name that the spool stored earlier.
    pub fn from_stored(name: String) -> Self {
        Self(name)
    }

    /// `tenant_id/login`, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_login_has_one_lane_however_it_is_written() {
        assert_eq!(LaneId::new("ABC", "Scanner@Contoso.com"), LaneId::new("abc", "scanner@contoso.COM"));
        assert_eq!(LaneId::new("abc", "a@b").as_str(), "abc/a@b");
    }
}
