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

    /// The Entra tenant, lower case.
    pub fn tenant_id(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(tenant_id, _)| tenant_id)
    }

    /// The login, lower case.
    pub fn login(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, login)| login)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The lanes that may carry a delivery: one, or several of one Entra tenant that share the work and take over from each
/// other. Two sets of the same lanes are the same, in whatever order they were given. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneSet(String);

/// Between the lanes of a set, as stored: no login holds a control octet.
const BETWEEN: char = '\n';

impl LaneSet {
    /// Of `first` and the others.
    pub fn new(first: &LaneId, others: &[LaneId]) -> Self {
        let mut names: Vec<&str> = others.iter().chain([first]).map(LaneId::as_str).collect();
        names.sort_unstable();
        names.dedup();
        Self(names.join("\n"))
    }

    /// What the spool stored earlier.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// As the spool stores it: the lanes in order, a line each.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its lanes, in order.
    pub fn lanes(&self) -> impl Iterator<Item = LaneId> {
        self.0.split(BETWEEN).map(|name| LaneId(name.to_owned()))
    }

    /// Whether `lane` is one of them.
    pub fn contains(&self, lane: &LaneId) -> bool {
        self.0.split(BETWEEN).any(|name| name == lane.0)
    }

    /// Whether there is a choice.
    pub fn is_single(&self) -> bool {
        !self.0.contains(BETWEEN)
    }
}

/// The set of one.
impl From<&LaneId> for LaneSet {
    fn from(lane: &LaneId) -> Self {
        Self(lane.0.clone())
    }
}

/// `tenant/one,tenant/two`
impl fmt::Display for LaneSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(BETWEEN, ","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_lanes_is_the_same_in_any_order() {
        let (one, two) = (LaneId::new("t", "a@x"), LaneId::new("t", "b@x"));
        let both = LaneSet::new(&two, &[one.clone(), two.clone()]);
        assert_eq!(both, LaneSet::new(&one, std::slice::from_ref(&two)));
        assert_eq!(both.to_string(), "t/a@x,t/b@x");
        assert_eq!(both.lanes().collect::<Vec<_>>(), [one.clone(), two.clone()]);
        assert!(both.contains(&two) && !both.is_single());
        assert!(!LaneSet::from(&one).contains(&two) && LaneSet::from(&one).is_single());
        assert_eq!(LaneSet::from_stored(both.as_str().to_owned()), both);
    }

    #[test]
    fn one_login_has_one_lane_however_it_is_written() {
        assert_eq!(LaneId::new("ABC", "Scanner@Contoso.com"), LaneId::new("abc", "scanner@contoso.COM"));
        assert_eq!(LaneId::new("abc", "a@b").as_str(), "abc/a@b");
        assert_eq!(LaneId::new("ABC", "a/x@b").tenant_id(), "abc");
    }
}
