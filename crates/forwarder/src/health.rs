//! Whether a lane can be used now: well, or in trouble until a probe gets through. Pure: times and chance come in.
//!
//! Trouble of a lane is no message's fault and costs none an attempt, save the one that upstream had heard of when it hung up. One
//! probe at a time is let through, at growing distances; the first success makes the lane well again.

use std::fmt;
use std::time::Duration;

use clock::{Monotonic, jitter};
use mail::Scope;

/// Trouble of a kind that comes back within this is no news.
const SAME_TROUBLE: Duration = Duration::from_hours(1);

/// What kind of trouble, which decides how soon to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// No name, no route, no TLS, or upstream hung up before we could send: usually soon over.
    Unreachable,
    /// No token to be had; the token manager has its own pace, this is the pace of asking it.
    NoToken,
    /// Upstream asks us to slow down.
    Throttled,
    /// Upstream refused the login, or will take nothing from it: somebody must act, and permissions take up to two hours.
    Refused,
}

impl TroubleKind {
    /// First wait and longest wait between probes.
    fn waits(self) -> (Duration, Duration) {
        match self {
            Self::Unreachable => (Duration::from_secs(1), Duration::from_mins(1)),
            Self::NoToken => (Duration::from_secs(2), Duration::from_mins(1)),
            Self::Throttled => (Duration::from_secs(15), Duration::from_mins(5)),
            Self::Refused => (Duration::from_mins(1), Duration::from_mins(15)),
        }
    }
}

/// Trouble of a whole lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: TroubleKind,
    /// How far it reaches: the mailbox, or all of the tenant.
    pub scope: Scope,
    /// What was seen, with the reply verbatim.
    pub text: String,
}

impl TroubleKind {
    /// The word for `--json` and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::NoToken => "no_token",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
        }
    }
}

impl Trouble {
    /// The word for how far it reaches, for the log and `--json`.
    pub const fn reach(&self) -> &'static str {
        match self.scope {
            Scope::Tenant => "tenant",
            Scope::Mailbox | Scope::Message => "mailbox",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A lane's health.
#[derive(Debug, Default)]
pub(crate) struct Health {
    illness: Option<Illness>,
    /// What kind of trouble ended last, and when.
    ended: Option<(TroubleKind, Monotonic)>,
}

/// A lane's trouble as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubleStatus {
    /// What is wrong.
    pub trouble: Trouble,
    /// How long the lane has not worked, whatever kinds of trouble followed each other.
    pub lasting: Duration,
    /// How long until a message may be sent as a probe, zero when the next one goes at once; none while a probe is under way.
    pub next_probe: Option<Duration>,
}

#[derive(Debug)]
struct Illness {
    trouble: Trouble,
    /// When the lane ceased to work.
    since: Monotonic,
    failures: u32,
    until: Monotonic,
    probing: bool,
}

/// What trouble leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Until the next probe.
    pub wait: Duration,
    /// Whether it is a first failure, or another kind of trouble than before.
    pub is_news: bool,
}

/// Whether the lane may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Yes.
    Well,
    /// Yes, as the one probe.
    Probe,
    /// Not before this long.
    Wait(Duration),
    /// A probe is under way; its end will tell.
    WaitForProbe,
}

impl Illness {
    /// The probe told nothing final: the next one comes after a first wait.
    fn probe_again(&mut self, now: Monotonic, chance: f64) {
        self.probing = false;
        self.until = now + jitter(self.trouble.kind.waits().0, 0.2, chance);
    }
}

impl Health {
    /// Whether the lane may be used at `now`. A [`Permission::Probe`] must be followed by one of the three reports.
    pub(crate) fn permission(&mut self, now: Monotonic) -> Permission {
        let permission = self.outlook(now);
        if let (Permission::Probe, Some(illness)) = (permission, &mut self.illness) {
            illness.probing = true;
        }
        permission
    }

    /// What [`Self::permission`] would say, without taking the probe.
    pub(crate) fn outlook(&self, now: Monotonic) -> Permission {
        match &self.illness {
            None => Permission::Well,
            Some(illness) if illness.probing => Permission::WaitForProbe,
            Some(illness) if now < illness.until => Permission::Wait(illness.until.saturating_since(now)),
            Some(_) => Permission::Probe,
        }
    }

    /// The trouble that withholds leave at `now`, and for how long if that is known.
    pub(crate) fn withholds(&self, now: Monotonic) -> Option<(Trouble, Option<Duration>)> {
        let wait = match self.outlook(now) {
            Permission::Well | Permission::Probe => return None,
            Permission::Wait(wait) => Some(wait),
            // Its end will tell.
            Permission::WaitForProbe => None,
        };
        self.illness.as_ref().map(|illness| (illness.trouble.clone(), wait))
    }

    /// The lane works. Gives the trouble that ended, if there was one.
    pub(crate) fn well(&mut self, now: Monotonic) -> Option<Trouble> {
        let trouble = self.illness.take()?.trouble;
        self.ended = Some((trouble.kind, now));
        Some(trouble)
    }

    /// The lane does not work. Only its probe makes the next wait longer: connections that fail together, or that began
    /// before the trouble, are one failure.
    pub(crate) fn troubled(&mut self, trouble: Trouble, is_probe: bool, now: Monotonic, chance: f64) -> Pause {
        let before = self.illness.take();
        let same = before.as_ref().filter(|illness| illness.trouble.kind == trouble.kind);
        if let (Some(illness), false) = (same, is_probe) {
            let pause = Pause { wait: illness.until.saturating_since(now), is_news: false };
            self.illness = before;
            return pause;
        }
        let is_news = same.is_none() && !self.ended_lately(trouble.kind, now);
        let failures = same.map_or(1, |illness| illness.failures + 1);
        let since = before.as_ref().map_or(now, |illness| illness.since);
        let probing = !is_probe && before.as_ref().is_some_and(|illness| illness.probing);
        let (first, longest) = trouble.kind.waits();
        let wait = jitter(first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest), 0.2, chance);
        self.illness = Some(Illness { trouble, since, failures, until: now + wait, probing });
        Pause { wait, is_news }
    }

    /// Trouble that comes and goes, as with some messages of many, is told once.
    fn ended_lately(&self, kind: TroubleKind, now: Monotonic) -> bool {
        self.ended.is_some_and(|(ended, at)| ended == kind && now < at + SAME_TROUBLE)
    }

    /// The probe was answered without an end of the trouble: it is over if it was none of what upstream takes, else the next
    /// probe comes after a first wait.
    pub(crate) fn answered(&mut self, now: Monotonic, chance: f64) -> Option<Trouble> {
        let illness = self.illness.as_mut()?;
        if illness.trouble.kind != TroubleKind::Refused {
            return self.well(now);
        }
        illness.probe_again(now, chance);
        None
    }

    /// Upstream has let the probe in as far as to its content, which may take long: what kept everybody out is over, and of what
    /// upstream may say at the end another probe tells after a first wait.
    pub(crate) fn let_in(&mut self, now: Monotonic, chance: f64) -> Option<Trouble> {
        let illness = self.illness.as_mut()?;
        if matches!(illness.trouble.kind, TroubleKind::Unreachable | TroubleKind::NoToken) {
            return self.well(now);
        }
        illness.probe_again(now, chance);
        None
    }

    /// The probe ended without telling anything: another may follow at once.
    pub(crate) fn unknown(&mut self) {
        if let Some(illness) = &mut self.illness {
            illness.probing = false;
        }
    }

    /// What is wrong, for how long, and when it is tried again; none when all is well.
    pub(crate) fn status(&self, now: Monotonic) -> Option<TroubleStatus> {
        self.illness.as_ref().map(|illness| TroubleStatus {
            trouble: illness.trouble.clone(),
            lasting: now.saturating_since(illness.since),
            next_probe: (!illness.probing).then(|| illness.until.saturating_since(now)),
        })
    }

    /// The login was seen to work: the next message may go as a probe at once.
    pub(crate) fn hasten(&mut self, now: Monotonic) {
        if let Some(illness) = self.illness.as_mut().filter(|illness| !illness.probing) {
            illness.until = illness.until.min(now);
        }
    }

    /// What kind of trouble there is now.
    pub(crate) fn kind(&self) -> Option<TroubleKind> {
        self.illness.as_ref().map(|illness| illness.trouble.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(kind: TroubleKind) -> Trouble {
        Trouble { kind, scope: Scope::Mailbox, text: "test".into() }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn probes_come_one_at_a_time_and_at_growing_distances() {
        let mut health = Health::default();
        assert_eq!(health.permission(at(0)), Permission::Well);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let Pause { wait, .. } = health.troubled(trouble(TroubleKind::Unreachable), true, now, 0.5);
            waits.push(wait.as_secs());
            assert_eq!(health.permission(now), Permission::Wait(wait));
            now = now + wait;
            assert_eq!(health.permission(now), Permission::Probe);
            assert_eq!(health.permission(now), Permission::WaitForProbe);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(health.well(now).is_some());
        assert_eq!(health.permission(now), Permission::Well);
        assert!(health.well(now).is_none());
    }

    #[test]
    fn connections_that_fail_together_are_one_failure_and_one_warning() {
        let mut health = Health::default();
        let mut told = |kind| {
            let Pause { wait, is_news } = health.troubled(trouble(kind), false, at(0), 0.5);
            (wait.as_secs(), is_news)
        };
        assert_eq!(told(TroubleKind::Unreachable), (1, true));
        assert_eq!(told(TroubleKind::Unreachable), (1, false));
        assert_eq!(told(TroubleKind::Refused), (60, true));
    }

    #[test]
    fn the_status_tells_since_when_and_when_next() {
        let mut health = Health::default();
        assert_eq!(health.status(at(0)), None);
        health.troubled(trouble(TroubleKind::Unreachable), false, at(10), 0.5);
        health.troubled(trouble(TroubleKind::Refused), false, at(20), 0.5);
        let status = health.status(at(50)).unwrap();
        assert_eq!(status.trouble.kind, TroubleKind::Refused);
        assert_eq!((status.lasting.as_secs(), status.next_probe), (40, Some(Duration::from_secs(30))));
        assert_eq!(health.status(at(90)).unwrap().next_probe, Some(Duration::ZERO));
        assert_eq!(health.permission(at(90)), Permission::Probe);
        assert_eq!(health.status(at(90)).unwrap().next_probe, None);
        health.well(at(91));
        assert_eq!(health.status(at(91)), None);
    }

    #[test]
    fn a_login_that_was_seen_to_work_is_probed_at_once_and_not_twice() {
        let mut health = Health::default();
        health.hasten(at(0));
        assert_eq!(health.permission(at(0)), Permission::Well);
        health.troubled(trouble(TroubleKind::Refused), false, at(0), 0.5);
        health.hasten(at(5));
        assert_eq!(health.permission(at(5)), Permission::Probe);
        health.hasten(at(6));
        assert_eq!(health.permission(at(6)), Permission::WaitForProbe);
    }

    #[test]
    fn a_probe_that_tells_nothing_leaves_room_for_another() {
        let mut health = Health::default();
        health.troubled(trouble(TroubleKind::Throttled), false, at(0), 0.5);
        assert_eq!(health.permission(at(15)), Permission::Probe);
        health.unknown();
        assert_eq!(health.permission(at(15)), Permission::Probe);
    }

    #[test]
    fn a_straggler_neither_ends_a_probe_nor_makes_the_wait_longer() {
        let mut health = Health::default();
        health.troubled(trouble(TroubleKind::Unreachable), false, at(0), 0.5);
        assert_eq!(health.permission(at(1)), Permission::Probe);
        let pause = health.troubled(trouble(TroubleKind::Unreachable), false, at(1), 0.5);
        assert!(!pause.is_news);
        assert_eq!(health.permission(at(1)), Permission::WaitForProbe);
        let pause = health.troubled(trouble(TroubleKind::Unreachable), true, at(1), 0.5);
        assert_eq!(pause.wait, Duration::from_secs(2));
    }

    #[test]
    fn trouble_that_comes_and_goes_is_told_once_an_hour() {
        let mut health = Health::default();
        assert!(health.troubled(trouble(TroubleKind::Refused), false, at(0), 0.5).is_news);
        health.well(at(60));
        assert!(!health.troubled(trouble(TroubleKind::Refused), false, at(120), 0.5).is_news);
        assert!(health.troubled(trouble(TroubleKind::Throttled), true, at(121), 0.5).is_news);
        health.well(at(200));
        assert!(health.troubled(trouble(TroubleKind::Throttled), true, at(200 + 3600), 0.5).is_news);
    }

    #[test]
    fn an_answer_ends_what_it_disproves_and_no_more() {
        let mut health = Health::default();
        health.troubled(trouble(TroubleKind::Unreachable), false, at(0), 0.5);
        assert!(health.answered(at(1), 0.5).is_some());
        health.troubled(trouble(TroubleKind::Refused), false, at(2), 0.5);
        assert_eq!(health.permission(at(62)), Permission::Probe);
        assert!(health.answered(at(62), 0.5).is_none());
        assert_eq!(health.permission(at(62)), Permission::Wait(Duration::from_mins(1)));
    }
}
