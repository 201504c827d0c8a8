//! Who may go now: everything that decides over a turn of a lane, as two values without socket, clock or lock. [`Turns`] is
//! a login's: pace, learned limits, day and health; [`TenantTurns`] what all logins of a tenant share.
//!
//! A turn is begun, perhaps admitted to recipients all at once or one by one, tells what it met, and ends; whoever holds it does
//! so in this order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Monotonic;
use mail::{Diagnostic, Domain, Outcome, Recipient, Scope};

use crate::batch::{self, Full, Load, Room, Spent};
use crate::classify::pacing;
use crate::governor::{Governor, Level, Pacing};
use crate::health::{Health, Pause, Permission, Trouble, TroubleKind, TroubleStatus};
use crate::pacer::Pacer;
use crate::quota::Quota;

/// What all logins of an application share: its health, and with the other applications of the same tenant its external
/// recipients of a day.
#[derive(Debug)]
pub struct TenantTurns {
    health: Health,
    external: Arc<Mutex<Quota>>,
}

impl TenantTurns {
    /// At most so many external recipients a day, or as many as there are.
    pub fn new(external_recipients_per_day: Option<u64>) -> Self {
        Self { health: Health::default(), external: Arc::new(Mutex::new(Quota::new(external_recipients_per_day))) }
    }

    /// Those of another application of the same tenant: with a health of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { health: Health::default(), external: Arc::clone(&self.external) }
    }

    /// Locked last of all, and for one look.
    fn quota(&self) -> MutexGuard<'_, Quota> {
        // Every change below the lock is complete before anything that may panic.
        self.external.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// External recipients that an earlier run served `ago`; oldest first.
    pub fn assume_used(&mut self, external: u64, ago: Duration, now: Monotonic) {
        self.quota().assume_used(external, ago, now);
    }

    /// What is wrong with all of the tenant, if anything is.
    pub fn trouble(&self, now: Monotonic) -> Option<TroubleStatus> {
        self.health.status(now)
    }

    /// External recipients of the last day, and how many there may be.
    pub fn external(&self, now: Monotonic) -> (u64, Option<u64>) {
        let quota = self.quota();
        (quota.used(now), quota.limit())
    }
}

/// What a login may do.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// Connections at a time.
    pub connections: usize,
    /// Messages in any minute.
    pub messages_per_minute: usize,
    /// Recipients in any 24 hours.
    pub recipients_per_day: u64,
    /// Recipients of one message.
    pub recipients_per_message: usize,
    /// The tenant's own domains; recipients of others are external.
    pub internal_domains: Vec<Domain>,
}

/// When something was learned, and the chance that spreads what follows.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When.
    pub now: Monotonic,
    /// From 0 to 1.
    pub chance: f64,
}

/// What an answer taught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// All is well; these troubles have ended.
    Well(Vec<Trouble>),
    /// The login or its tenant is in trouble.
    Troubled(Trouble, Pause),
}

/// What decides over the turns of one login.
#[derive(Debug)]
pub struct Turns {
    login: String,
    pacer: Pacer,
    governor: Governor,
    health: Health,
    day: Quota,
    recipients_per_message: usize,
    internal_domains: Vec<Domain>,
    /// Connections that live messages leave to the queue.
    kept_for_queue: usize,
    /// Turns of live messages that have not ended.
    live: usize,
}

/// Who asks for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The queue, which may use all connections.
    Queue,
    /// A client that waits while its message is carried live.
    Direct,
}

/// Why there is no turn now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// All connections have a turn that whoever asks may have one of.
    Busy,
    /// The minute is full: for so long, or until one of those ends that make it so.
    Minute(Option<Duration>),
    /// The login's day is used up for so long, or set aside.
    Day(Option<Duration>),
    /// The login or its tenant is in trouble and not probed before so long, or before the probe ends that is under way.
    Trouble(Trouble, Option<Duration>),
}

impl Hindrance {
    /// How long until there may be a turn; none where only the end of another turn can tell.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Busy => None,
            Self::Minute(wait) | Self::Day(wait) | Self::Trouble(_, wait) => *wait,
        }
    }
}

/// Why another recipient has no place in a turn's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The message has as many recipients as it may, or as many of this domain.
    Message,
    /// The login's day is used up or set aside.
    Day,
    /// The recipient is external, and the tenant's day has no room for those; perhaps it has after this long.
    External(Duration),
}

/// Why none of a message's recipients may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The login's day is used up, or what is left of it is set aside: there will be no turn either.
    Day,
    /// All are external, and the tenant's day has no room for those; perhaps it has after this long.
    External(Duration),
}

/// A turn that was given. To be ended by [`Turns::end`].
#[derive(Debug)]
#[must_use]
pub struct Turn {
    begun: Begun,
    mode: Mode,
    probes_lane: bool,
    probes_tenant: bool,
    /// Whom its message was admitted to, which is what is set aside.
    load: Load,
}

impl Turn {
    /// What was set aside for it: what it may have used if nobody knows better.
    pub fn reserved(&self) -> Spent {
        self.load.spent
    }
}

/// How a turn began. Upstream counts a message soon after that.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Monotonic,
    /// Messages of the minute before and those under way, this one included; what began later is none of them.
    messages: usize,
}

impl Turns {
    /// A login that has done nothing yet. Live messages leave `kept_for_queue` of its connections free.
    pub fn new(login: String, allowance: Allowance, kept_for_queue: usize) -> Self {
        Self {
            login,
            pacer: Pacer::default(),
            governor: Governor::new(allowance.connections, allowance.messages_per_minute),
            health: Health::default(),
            day: Quota::new(Some(allowance.recipients_per_day)),
            recipients_per_message: allowance.recipients_per_message,
            internal_domains: allowance.internal_domains,
            kept_for_queue,
            live: 0,
        }
    }

    /// Live messages leave so many of its connections free from now on. Those under way have theirs.
    pub fn keep_for_queue(&mut self, connections: usize) {
        self.kept_for_queue = connections;
    }

    /// Messages that an earlier run sent within the last minute.
    pub fn assume_sent(&mut self, messages: usize, now: Monotonic) {
        let limit = self.governor.rate(now);
        self.pacer.assume_ended(messages.min(limit), now);
    }

    /// Recipients that an earlier run served `ago`; oldest first.
    pub fn assume_used(&mut self, recipients: u64, ago: Duration, now: Monotonic) {
        self.day.assume_used(recipients, ago, now);
    }

    /// Gives a turn, or says why there is none now.
    pub fn begin(&mut self, tenant: &mut TenantTurns, mode: Mode, now: Monotonic) -> Result<Turn, Hindrance> {
        if let Some(hindrance) = self.hindrance(tenant, mode, now) {
            return Err(hindrance);
        }
        self.pacer.begin(self.governor.rate(now), now).map_err(Hindrance::Minute)?;
        // Health is asked last: a probe that is let through must follow.
        let probes_lane = self.health.permission(now) == Permission::Probe;
        let probes_tenant = tenant.health.permission(now) == Permission::Probe;
        self.live += usize::from(mode == Mode::Direct);
        let begun = Begun { at: now, messages: self.pacer.in_last_minute(now) + self.pacer.under_way() };
        Ok(Turn { begun, mode, probes_lane, probes_tenant, load: Load::default() })
    }

    /// Why there is no turn now, if there is none: of several reasons the one that lasts longest. Takes nothing.
    pub fn hindrance(&mut self, tenant: &TenantTurns, mode: Mode, now: Monotonic) -> Option<Hindrance> {
        let trouble = |(trouble, wait)| Hindrance::Trouble(trouble, wait);
        let hindrances = [
            self.is_busy(mode, now).then_some(Hindrance::Busy),
            self.pacer.room(self.governor.rate(now), now).err().map(Hindrance::Minute),
            (self.day.left(now) == 0).then(|| Hindrance::Day(self.day.wait(now))),
            tenant.health.withholds(now).map(trouble),
            self.health.withholds(now).map(trouble),
        ];
        hindrances.into_iter().flatten().max_by_key(Hindrance::wait)
    }

    fn is_busy(&mut self, mode: Mode, now: Monotonic) -> bool {
        let connections = self.governor.connections(now);
        let for_live = connections.saturating_sub(self.kept_for_queue).max(1);
        self.pacer.under_way() >= connections || (mode == Mode::Direct && self.live >= for_live)
    }

    /// Which of `recipients` go in this turn's message, at least one.
    pub fn admit(
        &mut self,
        tenant: &mut TenantTurns,
        turn: &mut Turn,
        recipients: &[Recipient],
        now: Monotonic,
    ) -> Result<Vec<usize>, NoRoom> {
        let room =
            Room { message: self.recipients_per_message, day: self.day.left(now), external: tenant.quota().left(now) };
        let (chosen, load) = batch::choose(recipients, room, &self.internal_domains);
        if chosen.is_empty() {
            return Err(match room.day {
                0 => NoRoom::Day,
                _ => NoRoom::External(tenant.quota().wait(now).unwrap_or_default()),
            });
        }
        self.day.reserve(load.spent.recipients);
        tenant.quota().reserve(load.spent.external);
        turn.load = load;
        Ok(chosen)
    }

    /// One more recipient in this turn's message.
    pub(crate) fn add(
        &mut self,
        tenant: &mut TenantTurns,
        turn: &mut Turn,
        recipient: &Recipient,
        now: Monotonic,
    ) -> Result<(), NoPlace> {
        let before = turn.reserved();
        // What is set aside for the message already is room of its own.
        let room = Room {
            message: self.recipients_per_message,
            day: self.day.left(now).saturating_add(before.recipients),
            external: tenant.quota().left(now).saturating_add(before.external),
        };
        turn.load.add(recipient, room, &self.internal_domains).map_err(|full| match full {
            Full::Message | Full::Domain => NoPlace::Message,
            Full::Day => NoPlace::Day,
            Full::External => NoPlace::External(tenant.quota().wait(now).unwrap_or_default()),
        })?;
        let after = turn.reserved();
        self.day.reserve(after.recipients - before.recipients);
        tenant.quota().reserve(after.external - before.external);
        Ok(())
    }

    /// What upstream counts of those that it took, or may have taken.
    pub fn spent<'a>(&self, recipients: impl Iterator<Item = &'a Recipient>) -> Spent {
        recipients.fold(Spent::default(), |spent, recipient| Spent {
            recipients: spent.recipients + 1,
            external: spent.external + u64::from(batch::is_external(recipient, &self.internal_domains)),
        })
    }

    /// What upstream said of a message tells of the login and its tenant, too. `open` connections are logged in.
    pub fn learn(
        &mut self,
        tenant: &mut TenantTurns,
        turn: &mut Turn,
        outcomes: &[Outcome],
        open: usize,
        moment: Moment,
    ) -> Lesson {
        let was_accepted = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted(_)));
        let signs = outcomes.iter().filter_map(symptom);
        // Where others were accepted, one that was put off says nothing of the login.
        let mut signs = signs.filter(|(kind, ..)| !(was_accepted && *kind == TroubleKind::Throttled));
        let Some((kind, scope, diagnostic)) = signs.next() else {
            return Lesson::Well(self.answered(tenant, turn, was_accepted, moment));
        };
        if kind == TroubleKind::Throttled {
            self.paced(pacing(diagnostic), open, turn.begun, moment.now);
        }
        let text = match kind {
            TroubleKind::Throttled => format!("Exchange asks {} to slow down: {diagnostic}", self.login),
            _ => format!("Exchange takes nothing from {}: {diagnostic}", self.login),
        };
        let trouble = Trouble { kind, scope, text };
        let pause = self.troubled(tenant, turn, trouble.clone(), moment);
        Lesson::Troubled(trouble, pause)
    }

    /// Upstream waits for the content of the turn's message, and its client may be slow: what a probe can show by then it has shown,
    /// and nobody waits for its end. Gives the troubles that have ended by that.
    pub fn let_in(&mut self, tenant: &mut TenantTurns, turn: &mut Turn, moment: Moment) -> Vec<Trouble> {
        let Moment { now, chance } = moment;
        let lane = std::mem::take(&mut turn.probes_lane).then(|| self.health.let_in(now, chance));
        let tenant = std::mem::take(&mut turn.probes_tenant).then(|| tenant.health.let_in(now, chance));
        [lane, tenant].into_iter().flatten().flatten().collect()
    }

    /// Upstream answered without a sign of trouble. Gives the troubles that have ended by that.
    fn answered(
        &mut self,
        tenant: &mut TenantTurns,
        turn: &mut Turn,
        was_accepted: bool,
        moment: Moment,
    ) -> Vec<Trouble> {
        let Moment { now, chance } = moment;
        let probes = [
            (std::mem::take(&mut turn.probes_lane), &mut self.health),
            (std::mem::take(&mut turn.probes_tenant), &mut tenant.health),
        ];
        let ended = probes.into_iter().filter_map(|(is_probe, health)| {
            if was_accepted {
                health.well(now)
            } else if is_probe {
                health.answered(now, chance)
            } else {
                None
            }
        });
        ended.collect()
    }

    /// The turn met trouble.
    pub fn troubled(&mut self, tenant: &mut TenantTurns, turn: &mut Turn, trouble: Trouble, moment: Moment) -> Pause {
        let Moment { now, chance } = moment;
        let probes_tenant = std::mem::take(&mut turn.probes_tenant);
        let probes_lane = std::mem::take(&mut turn.probes_lane);
        if trouble.scope == Scope::Tenant {
            if probes_lane {
                self.health.unknown();
            }
            return tenant.health.troubled(trouble, probes_tenant, now, chance);
        }
        if probes_tenant {
            // A login was tried, so there was a token; of another trouble of the tenant nothing is known.
            let had_token = tenant.health.kind() == Some(TroubleKind::NoToken);
            if had_token && trouble.kind != TroubleKind::Unreachable {
                tenant.health.well(now);
            } else {
                tenant.health.unknown();
            }
        }
        self.health.troubled(trouble, probes_lane, now, chance)
    }

    /// Upstream has asked what `begun` then to slow down, with so many connections open.
    fn paced(&mut self, pacing: Pacing, connections: usize, begun: Begun, now: Monotonic) {
        let Begun { at, messages } = begun;
        self.governor.refused(pacing, Level { connections, messages }, at, now);
    }

    /// The turn ended; upstream may have `seen` a message in it and counts `spent` of its recipients.
    #[allow(clippy::needless_pass_by_value, reason = "a turn ends once")]
    pub fn end(&mut self, tenant: &mut TenantTurns, turn: Turn, seen: bool, spent: Spent, now: Monotonic) {
        let reserved = turn.reserved();
        let Turn { begun: _, mode, probes_lane, probes_tenant, load: _ } = turn;
        self.pacer.end(now, seen);
        self.live -= usize::from(mode == Mode::Direct);
        self.day.settle(reserved.recipients, spent.recipients, now);
        tenant.quota().settle(reserved.external, spent.external, now);
        if probes_lane {
            self.health.unknown();
        }
        if probes_tenant {
            tenant.health.unknown();
        }
    }

    /// This login was seen to work: what was wrong with it is probed at once.
    pub fn hasten(&mut self, now: Monotonic) {
        self.health.hasten(now);
    }

    /// What is wrong with this login, if anything is.
    pub fn trouble(&self, now: Monotonic) -> Option<TroubleStatus> {
        self.health.status(now)
    }

    /// Turns given that have not ended.
    pub fn under_way(&self) -> usize {
        self.pacer.under_way()
    }

    /// Messages that ended within the minute before `now`.
    pub fn in_last_minute(&self, now: Monotonic) -> usize {
        self.pacer.in_last_minute(now)
    }

    /// Whether the day has no room for anybody now.
    pub fn is_day_used_up(&mut self, now: Monotonic) -> bool {
        self.day.left(now) == 0
    }

    /// Recipients of the last day, and how many there may be.
    pub fn day(&self, now: Monotonic) -> (u64, Option<u64>) {
        (self.day.used(now), self.day.limit())
    }

    /// Connections and messages a minute that upstream seems to allow now.
    pub fn allowed(&mut self, now: Monotonic) -> (usize, usize) {
        (self.governor.connections(now), self.governor.rate(now))
    }
}

/// Whether an outcome is a sign of trouble that is none of the message's.
pub(crate) fn is_sign_of_trouble(outcome: &Outcome) -> bool {
    symptom(outcome).is_some()
}

/// The trouble that an outcome is a sign of, if it is none of the message's.
fn symptom(outcome: &Outcome) -> Option<(TroubleKind, Scope, &Diagnostic)> {
    match outcome {
        Outcome::Held { scope: scope @ (Scope::Mailbox | Scope::Tenant), diagnostic } => {
            Some((TroubleKind::Refused, *scope, diagnostic))
        }
        Outcome::Paced(diagnostic) => Some((TroubleKind::Throttled, Scope::Mailbox, diagnostic)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::ForwardPath;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    fn turns(recipients_per_day: u64) -> Turns {
        let allowance = Allowance {
            connections: 2,
            messages_per_minute: 30,
            recipients_per_day,
            recipients_per_message: 500,
            internal_domains: vec![Domain::parse("contoso.com").unwrap()],
        };
        Turns::new("scanner@contoso.com".into(), allowance, 0)
    }

    fn moment(seconds: u64) -> Moment {
        Moment { now: at(seconds), chance: 0.5 }
    }

    fn trouble(kind: TroubleKind, scope: Scope) -> Trouble {
        Trouble { kind, scope, text: "test".into() }
    }

    fn people(count: usize) -> Vec<Recipient> {
        (0..count).map(|number| ForwardPath::parse(format!("r{number}@x.y").as_bytes()).unwrap().into()).collect()
    }

    #[test]
    fn trouble_of_the_tenant_is_probed_by_one_login_of_all() {
        let mut tenant = TenantTurns::new(None);
        let (mut one, mut other) = (turns(100), turns(100));
        let mut turn = one.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        let waiting = other.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        let told = one.troubled(&mut tenant, &mut turn, trouble(TroubleKind::NoToken, Scope::Tenant), moment(0));
        assert_eq!(told, Pause { wait: Duration::from_secs(2), is_news: true });
        one.end(&mut tenant, turn, false, Spent::default(), at(0));
        other.end(&mut tenant, waiting, false, Spent::default(), at(0));
        assert_eq!(other.begin(&mut tenant, Mode::Queue, at(1)).unwrap_err().wait(), Some(Duration::from_secs(1)));
        let mut probe = other.begin(&mut tenant, Mode::Queue, at(2)).unwrap();
        assert_eq!(one.begin(&mut tenant, Mode::Queue, at(2)).unwrap_err().wait(), None, "one probe at a time");
        let ended = other.answered(&mut tenant, &mut probe, true, moment(2));
        assert_eq!(ended.len(), 1);
        assert!(one.begin(&mut tenant, Mode::Queue, at(2)).is_ok());
    }

    #[test]
    fn a_login_refused_shows_that_there_was_a_token() {
        let mut tenant = TenantTurns::new(None);
        let (mut one, mut other) = (turns(100), turns(100));
        let mut turn = one.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        one.troubled(&mut tenant, &mut turn, trouble(TroubleKind::NoToken, Scope::Tenant), moment(0));
        one.end(&mut tenant, turn, false, Spent::default(), at(0));
        let mut probe = one.begin(&mut tenant, Mode::Queue, at(2)).unwrap();
        one.troubled(&mut tenant, &mut probe, trouble(TroubleKind::Refused, Scope::Mailbox), moment(2));
        one.end(&mut tenant, probe, false, Spent::default(), at(2));
        assert!(tenant.trouble(at(2)).is_none());
        assert!(other.begin(&mut tenant, Mode::Queue, at(2)).is_ok(), "another login is not concerned");
        assert!(one.begin(&mut tenant, Mode::Queue, at(2)).is_err());
    }

    #[test]
    fn a_login_in_trouble_takes_no_probe_of_its_tenant() {
        let mut tenant = TenantTurns::new(None);
        let (mut bad, mut good) = (turns(100), turns(100));
        let mut turn = bad.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        bad.troubled(&mut tenant, &mut turn, trouble(TroubleKind::Refused, Scope::Mailbox), moment(0));
        bad.end(&mut tenant, turn, true, Spent::default(), at(0));
        let mut turn = good.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        good.troubled(&mut tenant, &mut turn, trouble(TroubleKind::Refused, Scope::Tenant), moment(0));
        good.end(&mut tenant, turn, true, Spent::default(), at(0));
        assert!(bad.begin(&mut tenant, Mode::Queue, at(59)).is_err());
        let probe = bad.begin(&mut tenant, Mode::Queue, at(60)).unwrap();
        assert!(good.begin(&mut tenant, Mode::Queue, at(60)).is_err());
        bad.end(&mut tenant, probe, false, Spent::default(), at(60));
        assert!(
            good.begin(&mut tenant, Mode::Queue, at(60)).is_ok(),
            "a probe that tells nothing leaves room for another"
        );
    }

    #[test]
    fn the_day_admits_as_many_as_it_has_and_then_gives_no_turn() {
        let mut tenant = TenantTurns::new(None);
        let mut login = turns(10);
        let mut turn = login.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        assert_eq!(login.admit(&mut tenant, &mut turn, &people(25), at(0)).unwrap().len(), 10);
        assert_eq!(
            login.begin(&mut tenant, Mode::Queue, at(0)).unwrap_err().wait(),
            None,
            "all is reserved, nothing used"
        );
        let spent = login.spent(people(8).iter());
        login.end(&mut tenant, turn, true, spent, at(0));
        let mut turn = login.begin(&mut tenant, Mode::Queue, at(1)).unwrap();
        assert_eq!(login.admit(&mut tenant, &mut turn, &people(15), at(1)).unwrap().len(), 2);
        let spent = login.spent(people(2).iter());
        login.end(&mut tenant, turn, true, spent, at(1));
        assert_eq!(
            login.begin(&mut tenant, Mode::Queue, at(1)).unwrap_err().wait(),
            Some(Duration::from_secs(24 * 3600 + 59))
        );
        assert!(login.begin(&mut tenant, Mode::Queue, at(24 * 3600 + 60)).is_ok());
    }

    #[test]
    fn applications_of_a_tenant_share_its_recipients_and_not_their_trouble() {
        let mut application = TenantTurns::new(Some(10));
        let mut other = application.beside();
        application.assume_used(4, Duration::ZERO, at(0));
        assert_eq!(other.external(at(0)), (4, Some(10)));
        application.health.troubled(trouble(TroubleKind::NoToken, Scope::Tenant), false, at(0), 0.5);
        assert!(application.trouble(at(0)).is_some() && other.trouble(at(0)).is_none());
        other.assume_used(1, Duration::ZERO, at(0));
        assert_eq!(application.external(at(0)).0, 5);
    }

    #[test]
    fn the_external_recipients_of_a_tenant_are_those_of_all_its_logins() {
        let mut tenant = TenantTurns::new(Some(10));
        let (mut one, mut other) = (turns(100), turns(100));
        let mut turn = one.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        assert_eq!(one.admit(&mut tenant, &mut turn, &people(8), at(0)).unwrap().len(), 8);
        let spent = one.spent(people(8).iter());
        one.end(&mut tenant, turn, true, spent, at(0));
        let mut turn = other.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        assert_eq!(other.admit(&mut tenant, &mut turn, &people(8), at(0)).unwrap().len(), 2);
        let spent = other.spent(people(2).iter());
        other.end(&mut tenant, turn, true, spent, at(0));
        let mut turn = other.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
        assert_eq!(
            other.admit(&mut tenant, &mut turn, &people(8), at(0)).unwrap_err(),
            NoRoom::External(Duration::from_mins(24 * 60 + 1))
        );
        other.end(&mut tenant, turn, false, Spent::default(), at(0));
        assert_eq!(tenant.external(at(0)), (10, Some(10)));
    }

    fn login(connections: usize, kept_for_queue: usize) -> Turns {
        let allowance = Allowance {
            connections,
            messages_per_minute: 4,
            recipients_per_day: 10,
            recipients_per_message: 5,
            internal_domains: vec![Domain::parse("contoso.com").unwrap()],
        };
        Turns::new("scanner@contoso.com".into(), allowance, kept_for_queue)
    }

    #[test]
    fn live_messages_leave_to_the_queue_what_is_kept_for_it() {
        use Mode::{Direct, Queue};
        for (connections, learned, kept, asked, given) in [
            (3, 3, 1, &[Direct, Direct, Direct, Queue, Queue][..], &[true, true, false, true, false][..]),
            (3, 3, 1, &[Queue, Queue, Direct, Direct], &[true, true, true, false]),
            (3, 3, 1, &[Queue, Queue, Queue, Direct], &[true, true, true, false]),
            (3, 3, 0, &[Direct, Direct, Direct, Direct], &[true, true, true, false]),
            (1, 1, 1, &[Direct, Direct, Queue], &[true, false, false]),
            (3, 2, 1, &[Direct, Direct, Queue], &[true, false, true]),
            (3, 1, 1, &[Direct, Queue], &[true, false]),
        ] {
            let (mut tenant, mut turns) = (TenantTurns::new(None), login(connections, kept));
            if learned < connections {
                let level = Level { connections: learned + 1, messages: 1 };
                turns.governor.refused(Pacing::Connections, level, at(0), at(0));
            }
            let got: Vec<_> = asked.iter().map(|mode| turns.begin(&mut tenant, *mode, at(0))).collect();
            let were: Vec<_> = got.iter().map(Result::is_ok).collect();
            assert_eq!(were, given, "{connections} connections, {learned} learned, {kept} kept: {asked:?}");
            for turn in got.into_iter().flatten() {
                turns.end(&mut tenant, turn, false, Spent::default(), at(0));
            }
            assert!(turns.begin(&mut tenant, Direct, at(0)).is_ok(), "what has ended is free again");
        }
    }

    #[test]
    fn of_several_hindrances_the_one_that_lasts_longest_is_told() {
        let seconds = |count| Some(Duration::from_secs(count));
        let refused = || trouble(TroubleKind::Refused, Scope::Mailbox);
        let minute = || Some(Hindrance::Minute(seconds(50)));
        let day = || Some(Hindrance::Day(seconds(24 * 3600 + 40)));
        for (name, busy, full, sick, used, told) in [
            ("none", false, false, false, 0, None),
            ("busy", true, false, false, 0, Some(Hindrance::Busy)),
            ("a full minute", false, true, false, 0, minute()),
            ("trouble", false, false, true, 0, Some(Hindrance::Trouble(refused(), seconds(60)))),
            ("a full day", false, false, false, 10, day()),
            ("busy and full", true, true, false, 0, minute()),
            ("full and in trouble", false, true, true, 0, Some(Hindrance::Trouble(refused(), seconds(60)))),
            ("all", true, true, true, 10, day()),
        ] {
            let (mut tenant, mut turns) = (TenantTurns::new(None), login(1, 0));
            turns.assume_used(used, Duration::from_secs(10), at(0));
            turns.assume_sent(if full { 4 } else { 0 }, at(0));
            // As long ago as makes the minute's rest another than the trouble's.
            let now = at(10);
            if busy {
                turns.live = 1;
            }
            if sick {
                turns.health.troubled(refused(), false, now, 0.5);
            }
            assert_eq!(turns.hindrance(&tenant, Mode::Direct, now), told, "{name}");
            assert_eq!(turns.begin(&mut tenant, Mode::Direct, now).err(), told, "{name}");
        }
    }

    #[test]
    fn a_look_at_what_hinders_takes_no_probe() {
        let (mut tenant, mut turns) = (TenantTurns::new(None), login(3, 0));
        turns.health.troubled(trouble(TroubleKind::Unreachable, Scope::Mailbox), false, at(0), 0.5);
        assert_eq!(turns.hindrance(&tenant, Mode::Direct, at(5)), None);
        let probe = turns.begin(&mut tenant, Mode::Direct, at(5)).expect("the probe is there still");
        let hindered = turns.hindrance(&tenant, Mode::Queue, at(5));
        assert!(matches!(hindered, Some(Hindrance::Trouble(_, None))), "{hindered:?}");
        turns.end(&mut tenant, probe, false, Spent::default(), at(5));
        assert_eq!(turns.hindrance(&tenant, Mode::Queue, at(5)), None);
    }

    #[test]
    fn recipients_that_are_added_one_by_one_are_set_aside_until_their_turn_ends() {
        let mut tenant = TenantTurns::new(Some(3));
        let mut turns = login(3, 0);
        let ours: Recipient = ForwardPath::parse(b"anna@contoso.com").unwrap().into();
        let theirs: Recipient = ForwardPath::parse(b"bob@x.example").unwrap().into();
        let mut one = turns.begin(&mut tenant, Mode::Direct, at(0)).unwrap();
        let mut other = turns.begin(&mut tenant, Mode::Direct, at(0)).unwrap();
        for (turn, recipient, told) in [
            (1, &theirs, Ok(())),
            (2, &theirs, Ok(())),
            (1, &theirs, Ok(())),
            (2, &theirs, Err(NoPlace::External(Duration::ZERO))),
            (1, &ours, Ok(())),
            (1, &ours, Ok(())),
            (1, &ours, Ok(())),
            (1, &ours, Err(NoPlace::Message)),
            (2, &ours, Ok(())),
            (2, &ours, Ok(())),
            (2, &ours, Ok(())),
            (2, &ours, Ok(())),
            (2, &ours, Err(NoPlace::Message)),
        ] {
            let turn = if turn == 1 { &mut one } else { &mut other };
            assert_eq!(turns.add(&mut tenant, turn, recipient, at(0)), told);
        }
        assert_eq!(one.reserved(), Spent { recipients: 5, external: 2 });
        assert_eq!(turns.begin(&mut tenant, Mode::Direct, at(0)).unwrap_err(), Hindrance::Day(None));
        turns.end(&mut tenant, one, true, Spent { recipients: 1, external: 1 }, at(0));
        let mut third = turns.begin(&mut tenant, Mode::Direct, at(0)).unwrap();
        assert_eq!(turns.add(&mut tenant, &mut third, &theirs, at(0)), Ok(()));
        for _ in 0..3 {
            assert_eq!(turns.add(&mut tenant, &mut third, &ours, at(0)), Ok(()));
        }
        assert_eq!(turns.add(&mut tenant, &mut third, &ours, at(0)), Err(NoPlace::Day));
    }

    #[test]
    fn of_messages_that_are_refused_together_the_first_tells_how_many_upstream_takes() {
        let mut tenant = TenantTurns::new(None);
        let mut login = turns(100);
        for _ in 0..10 {
            let turn = login.begin(&mut tenant, Mode::Queue, at(0)).unwrap();
            login.end(&mut tenant, turn, true, Spent::default(), at(0));
        }
        let under_way = [1, 1].map(|second| login.begin(&mut tenant, Mode::Queue, at(second)).unwrap());
        // In whatever order they are answered.
        for turn in under_way.into_iter().rev() {
            login.paced(Pacing::Rate, 2, turn.begun, at(2));
            login.end(&mut tenant, turn, true, Spent::default(), at(2));
        }
        assert_eq!(login.allowed(at(2)), (2, 10));
    }

    #[test]
    fn a_login_that_is_refused_one_too_many_uses_one_less() {
        let mut tenant = TenantTurns::new(None);
        let mut login = turns(100);
        let (mut first, second) = (
            login.begin(&mut tenant, Mode::Queue, at(0)).unwrap(),
            login.begin(&mut tenant, Mode::Queue, at(0)).unwrap(),
        );
        login.paced(Pacing::Connections, 2, first.begun, at(0));
        login.answered(&mut tenant, &mut first, true, moment(0));
        login.end(&mut tenant, first, true, Spent::default(), at(0));
        assert_eq!(
            login.begin(&mut tenant, Mode::Queue, at(0)).unwrap_err().wait(),
            None,
            "one turn is out, and no more than one may be"
        );
        login.end(&mut tenant, second, true, Spent::default(), at(0));
        assert!(login.begin(&mut tenant, Mode::Queue, at(0)).is_ok());
        assert_eq!(login.allowed(at(0)), (1, 30));
    }
}
