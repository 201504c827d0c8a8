//! Thirty days of a busy relay in a second: the pure cores that decide (turns, batches, classification, retry plan) against
//! a model of Exchange with its limits, on injected time, with faults, outages and crashes by seeded chance.
//!
//! The queue, the sockets and the disk are modelled here and tested elsewhere. What is shown: limits never exceeded, nobody
//! lost, nobody served twice but by a counted uncertain resend, and nothing starves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use clock::{Monotonic, WallTime};
use forwarder::{
    Allowance, Mode, Moment, NoRoom, Spent, Stage, TenantTurns, Trouble, TroubleKind, Turn, Turns, classify,
};
use mail::{Diagnostic, Domain, ForwardPath, Outcome, Recipient, Scope};
use spool::Progress;
use wire::{Reply, ReplyParser};

use crate::retry::{Attempted, Plan, Verdict, Why};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MAX_AGE: Duration = Duration::from_hours(5 * 24);

/// Seeded, so that each run is the same.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn happens(&mut self, in_thousand: u64) -> bool {
        self.below(1000) < in_thousand
    }
}

/// What a login may do upstream.
#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    messages: usize,
    recipients: u64,
}

/// One login as Exchange sees it.
struct Account {
    limits: Limits,
    begun: VecDeque<u64>,
    served: VecDeque<(u64, u64)>,
    open: usize,
    /// Its SMTP AUTH is switched off until then.
    off_until: u64,
    refusals: BTreeMap<&'static str, u64>,
    last_refusal: u64,
}

impl Account {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            begun: VecDeque::new(),
            served: VecDeque::new(),
            open: 0,
            off_until: 0,
            refusals: BTreeMap::new(),
            last_refusal: 0,
        }
    }

    fn refuse(&mut self, what: &'static str, now: u64) {
        *self.refusals.entry(what).or_default() += 1;
        self.last_refusal = now;
    }

    fn may_begin(&mut self, now: u64) -> bool {
        while self.begun.front().is_some_and(|at| at + MINUTE <= now) {
            self.begun.pop_front();
        }
        let may = self.begun.len() < self.limits.messages;
        if may {
            self.begun.push_back(now);
        } else {
            self.refuse("rate", now);
        }
        may
    }

    fn may_serve(&mut self, count: u64, now: u64) -> bool {
        while self.served.front().is_some_and(|(at, _)| at + DAY <= now) {
            self.served.pop_front();
        }
        let used: u64 = self.served.iter().map(|(_, count)| count).sum();
        let may = used + count <= self.limits.recipients;
        if may {
            self.served.push_back((now, count));
        } else {
            self.refuse("day", now);
        }
        may
    }
}

/// A delivery in the model's queue.
#[derive(Clone)]
struct Waiting {
    recipients: Vec<Person>,
    /// Lanes that may carry it.
    lanes: Vec<usize>,
    client: u64,
    sender_denied: bool,
    due: u64,
    accepted: u64,
    progress: Progress,
}

type Person = u64;
/// For each client, what is due when.
type Queue = BTreeMap<u64, BTreeSet<(u64, u64)>>;
/// What must be alike for two recipients to stay together.
type Way = (u64, u32, u32, Duration, Duration);

struct UnderWay {
    delivery: u64,
    lane: usize,
    chosen: Vec<usize>,
    turn: Turn,
    began: u64,
    rate_refused: bool,
    surplus: bool,
    /// Connections of the login when it began, itself included.
    open: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Submit(u64),
    Wake(usize),
    End(u64),
    Outage,
    Crash,
}

/// What became of a person's copy.
#[derive(Default)]
struct Fate {
    copies: u32,
    uncertain: u32,
    ended: Option<&'static str>,
}

struct World {
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    chance: Chance,
    accounts: Vec<Account>,
    tenant_off_until: u64,
    /// External recipients that all logins served, as Exchange counts them.
    served: VecDeque<(u64, u64)>,
    denied_until: u64,
    turns: Vec<Turns>,
    tenant: TenantTurns,
    /// External recipients that the tenant may serve in a day.
    external: Option<u64>,
    plan: Plan,
    waiting: HashMap<u64, Waiting>,
    /// For each set of lanes, for each client, what is due when.
    queues: BTreeMap<Vec<usize>, Queue>,
    cursor: BTreeMap<Vec<usize>, u64>,
    under_way: BTreeMap<u64, UnderWay>,
    alarms: [Option<u64>; 3],
    /// What the spool knows of each lane's use: minute, messages' ends, recipients.
    ends: Vec<VecDeque<u64>>,
    usage: Vec<BTreeMap<u64, u64>>,
    fates: HashMap<Person, Fate>,
    next_person: Person,
    next_delivery: u64,
    longest_quick_wait: u64,
    crashes: u64,
    alerts: u64,
}

fn recipient(person: Person) -> Recipient {
    ForwardPath::parse(format!("p{person}@d{}.example", person % 7).as_bytes()).unwrap().into()
}

fn reply(line: &str) -> Reply {
    ReplyParser::default().push(format!("{line}\r\n").as_bytes()).unwrap().1.unwrap()
}

fn monotonic(now: u64) -> Monotonic {
    Monotonic::from_start(Duration::from_millis(now))
}

fn wall(now: u64) -> WallTime {
    WallTime::from_unix_millis(i64::try_from(now).unwrap())
}

/// Configured for each login; what Exchange really allows may be less.
const CONFIGURED: Limits = Limits { connections: 3, messages: 30, recipients: 10_000 };
/// External recipients of the tenant in a day: everybody is external, and the busiest days want more.
const EXTERNAL: u64 = 8_000;
/// Of the third login, whose clients want about as many.
const SHORT_DAY: u64 = 1_500;

fn turns(login: usize) -> Turns {
    let allowance = Allowance {
        connections: CONFIGURED.connections,
        messages_per_minute: CONFIGURED.messages,
        recipients_per_day: if login == 2 { SHORT_DAY } else { CONFIGURED.recipients },
        recipients_per_message: 50,
        internal_domains: vec![Domain::parse("contoso.com").unwrap()],
    };
    Turns::new(format!("login{login}@contoso.com"), allowance, 0)
}

impl World {
    fn new(seed: u64, external: Option<u64>) -> Self {
        let lower = Limits { connections: 2, messages: 20, recipients: SHORT_DAY };
        let mut world = Self {
            now: 60 * DAY,
            order: 0,
            events: BinaryHeap::new(),
            chance: Chance(seed),
            accounts: vec![Account::new(CONFIGURED), Account::new(CONFIGURED), Account::new(lower)],
            tenant_off_until: 0,
            served: VecDeque::new(),
            denied_until: 0,
            turns: (0..3).map(turns).collect(),
            tenant: TenantTurns::new(external),
            external,
            plan: Plan::of_the_contract(),
            waiting: HashMap::new(),
            queues: BTreeMap::new(),
            cursor: BTreeMap::new(),
            under_way: BTreeMap::new(),
            alarms: [None; 3],
            ends: vec![VecDeque::new(); 3],
            usage: vec![BTreeMap::new(); 3],
            fates: HashMap::new(),
            next_person: 0,
            next_delivery: 0,
            longest_quick_wait: 0,
            crashes: 0,
            alerts: 0,
        };
        for client in 0..5 {
            world.at(client * MINUTE, Event::Submit(client));
        }
        world.at(3 * HOUR, Event::Outage);
        world.at(5 * HOUR, Event::Crash);
        world
    }

    /// A lane has one alarm, as the real one: the earliest counts.
    fn at(&mut self, after: u64, event: Event) {
        let at = self.now + after;
        if let Event::Wake(lane) = event {
            if self.alarms[lane].is_some_and(|alarm| alarm <= at) {
                return;
            }
            self.alarms[lane] = Some(at);
        }
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn run(&mut self, busy: u64, quiet: u64) {
        let begin = self.now;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > begin + busy + quiet {
                break;
            }
            self.now = at;
            let is_busy = at < begin + busy;
            match event {
                Event::Submit(client) if is_busy => self.submit(client),
                Event::Outage if is_busy => self.outage(),
                Event::Crash if is_busy => self.crash(),
                Event::Wake(lane) if self.alarms[lane] == Some(at) => {
                    self.alarms[lane] = None;
                    self.serve(lane);
                }
                Event::End(attempt) => self.end(attempt),
                // An earlier alarm took its place, or the busy days are over.
                Event::Wake(_) | Event::Submit(_) | Event::Outage | Event::Crash => {}
            }
        }
    }

    /// Clients 0 to 2 share lanes 0 and 1, the others have lane 2; client 0 floods now and then, client 1 sends lists.
    fn submit(&mut self, client: u64) {
        let messages = if client == 0 && self.chance.happens(3) { 600 } else { 1 };
        for _ in 0..messages {
            let people = match client {
                1 if self.chance.happens(10) => 1 + self.chance.below(700),
                _ => 1 + self.chance.below(3),
            };
            let recipients: Vec<Person> = (0..people).map(|_| self.person()).collect();
            let lanes = if client < 3 { vec![0, 1] } else { vec![2] };
            let sender_denied = self.chance.happens(30);
            let (due, accepted) = (self.now, self.now);
            self.enqueue(Waiting {
                recipients,
                lanes,
                client,
                sender_denied,
                due,
                accepted,
                progress: Progress::default(),
            });
        }
        let wait = self.chance.below(10 * MINUTE);
        self.at(wait, Event::Submit(client));
    }

    fn person(&mut self) -> Person {
        self.next_person += 1;
        self.fates.insert(self.next_person, Fate::default());
        self.next_person
    }

    fn enqueue(&mut self, waiting: Waiting) {
        self.next_delivery += 1;
        let id = self.next_delivery;
        let queue = self.queues.entry(waiting.lanes.clone()).or_default();
        queue.entry(waiting.client).or_default().insert((waiting.due, id));
        let wait = waiting.due.saturating_sub(self.now);
        for lane in waiting.lanes.clone() {
            self.at(wait, Event::Wake(lane));
        }
        self.waiting.insert(id, waiting);
    }

    /// An outage of one login, of the tenant (a weekend at most), or of a permission.
    fn outage(&mut self) {
        match self.chance.below(4) {
            0 => self.tenant_off_until = self.now + self.chance.below(60 * HOUR),
            1 | 2 => {
                let login = usize::try_from(self.chance.below(3)).unwrap();
                self.accounts[login].off_until = self.now + self.chance.below(20 * HOUR);
            }
            _ => self.denied_until = self.now + self.chance.below(30 * HOUR),
        }
        let wait = self.chance.below(40 * HOUR);
        self.at(wait, Event::Outage);
    }

    /// kill -9: what is under way is uncertain, and pinned; counts come back from what was written down.
    fn crash(&mut self) {
        self.crashes += 1;
        let now = self.now;
        for (_, attempt) in std::mem::take(&mut self.under_way) {
            let UnderWay { delivery, lane, chosen, .. } = attempt;
            self.accounts[lane].open -= 1;
            let mut waiting = self.waiting.remove(&delivery).unwrap();
            let arrived = self.chance.happens(500);
            let count = chosen.len() as u64;
            let is_served = arrived && self.may_serve(lane, count);
            for person in &waiting.recipients {
                let fate = self.fates.get_mut(person).unwrap();
                fate.uncertain += 1;
            }
            for position in &chosen {
                self.fates.get_mut(&waiting.recipients[*position]).unwrap().copies += u32::from(is_served);
            }
            *self.usage[lane].entry(now / MINUTE).or_default() += waiting.recipients.len() as u64;
            self.ends[lane].push_back(now);
            waiting.progress.uncertain += 1;
            waiting.lanes = vec![lane];
            waiting.due = now;
            self.enqueue(waiting);
        }
        self.tenant = TenantTurns::new(self.external);
        let mut used: BTreeMap<u64, u64> = BTreeMap::new();
        for (minute, recipients) in self.usage.iter().flatten() {
            *used.entry(*minute).or_default() += recipients;
        }
        for (minute, recipients) in used.range(now.saturating_sub(DAY + MINUTE) / MINUTE..) {
            let ago = Duration::from_millis(now.saturating_sub(minute * MINUTE));
            self.tenant.assume_used(*recipients, ago, monotonic(now));
        }
        for lane in 0..3 {
            let mut fresh = turns(lane);
            let ended = self.ends[lane].iter().filter(|at| **at + MINUTE > now).count();
            fresh.assume_sent(ended, monotonic(now));
            for (minute, recipients) in self.usage[lane].range(now.saturating_sub(DAY + MINUTE) / MINUTE..) {
                let ago = Duration::from_millis(now.saturating_sub(minute * MINUTE));
                fresh.assume_used(*recipients, ago, monotonic(now));
            }
            self.turns[lane] = fresh;
            self.at(0, Event::Wake(lane));
        }
        let wait = self.chance.below(50 * HOUR);
        self.at(wait, Event::Crash);
    }

    fn serve(&mut self, lane: usize) {
        loop {
            let Some(set) = self.due_set(lane) else { return self.wake_when_due(lane) };
            let turn = match self.turns[lane].begin(&mut self.tenant, Mode::Queue, monotonic(self.now)) {
                Ok(turn) => turn,
                Err(hindrance) => {
                    // Else the end of another turn wakes it.
                    if let Some(wait) = hindrance.wait() {
                        let wait = u64::try_from(wait.as_millis()).unwrap() + 1;
                        self.at(wait, Event::Wake(lane));
                    }
                    return;
                }
            };
            if !self.attempt(lane, &set, turn) {
                return;
            }
        }
    }

    fn due_set(&self, lane: usize) -> Option<Vec<usize>> {
        let is_due =
            |queue: &Queue| queue.values().any(|waiting| waiting.first().is_some_and(|(due, _)| *due <= self.now));
        let mut sets = self.queues.iter().filter(|(set, _)| set.contains(&lane));
        sets.find(|(_, queue)| is_due(queue)).map(|(set, _)| set.clone())
    }

    fn wake_when_due(&mut self, lane: usize) {
        let queues = self.queues.iter().filter(|(set, _)| set.contains(&lane));
        let first = queues.flat_map(|(_, queue)| queue.values()).filter_map(|waiting| waiting.first()).min();
        if let Some((due, _)) = first.copied() {
            self.at(due - self.now, Event::Wake(lane));
        }
    }

    /// The clients of a queue take turns.
    fn claim(&mut self, set: &Vec<usize>) -> u64 {
        let queue = self.queues.get_mut(set).unwrap();
        let is_due = |waiting: &BTreeSet<(u64, u64)>| waiting.first().is_some_and(|(due, _)| *due <= self.now);
        let from = self.cursor.get(set).copied().unwrap_or(0);
        let due: Vec<u64> = queue.iter().filter(|(_, waiting)| is_due(waiting)).map(|(client, _)| *client).collect();
        let client = due.iter().copied().find(|client| *client >= from).unwrap_or(due[0]);
        self.cursor.insert(set.clone(), client + 1);
        queue.get_mut(&client).unwrap().pop_first().unwrap().1
    }

    fn attempt(&mut self, lane: usize, set: &Vec<usize>, mut turn: Turn) -> bool {
        let delivery = self.claim(set);
        let now = self.now;
        let waiting = self.waiting[&delivery].clone();
        if waiting.progress.uncertain > self.plan.uncertain_resends {
            self.turns[lane].end(&mut self.tenant, turn, false, Spent::default(), monotonic(now));
            self.waiting.remove(&delivery);
            self.finish(&waiting.recipients, "held");
            return true;
        }
        let recipients: Vec<Recipient> = waiting.recipients.iter().copied().map(recipient).collect();
        let chosen = match self.turns[lane].admit(&mut self.tenant, &mut turn, &recipients, monotonic(now)) {
            Ok(chosen) => chosen,
            Err(no_room) => {
                self.turns[lane].end(&mut self.tenant, turn, false, Spent::default(), monotonic(now));
                if no_room == NoRoom::Day {
                    let queue = self.queues.get_mut(set).unwrap();
                    queue.entry(waiting.client).or_default().insert((waiting.due, delivery));
                    return true;
                }
                self.waiting.remove(&delivery);
                self.enqueue(Waiting { due: now + HOUR, ..waiting });
                return true;
            }
        };
        self.note_wait(&waiting);
        if let Some(trouble) = self.no_login(lane) {
            let moment = Moment { now: monotonic(now), chance: self.chance.share() };
            let pause = self.turns[lane].troubled(&mut self.tenant, &mut turn, trouble, moment);
            self.alerts += u64::from(pause.is_news);
            self.turns[lane].end(&mut self.tenant, turn, false, Spent::default(), monotonic(now));
            // Unsettled: due at once.
            let queue = self.queues.get_mut(set).unwrap();
            queue.entry(waiting.client).or_default().insert((waiting.due, delivery));
            self.wake_all();
            return true;
        }
        let account = &mut self.accounts[lane];
        account.open += 1;
        let open = account.open;
        let rate_refused = !account.may_begin(now);
        let surplus = open > account.limits.connections;
        if surplus && !rate_refused {
            account.refuse("connections", now);
        }
        self.order += 1;
        let attempt = self.order;
        let chosen_attempt = UnderWay { delivery, lane, chosen, turn, began: now, rate_refused, surplus, open };
        self.under_way.insert(attempt, chosen_attempt);
        let took = 200 + self.chance.below(4 * SECOND);
        self.at(took, Event::End(attempt));
        true
    }

    /// Client 2 sends little, by the lanes that client 0 floods: how long it waits while nothing is out of order.
    fn note_wait(&mut self, waiting: &Waiting) {
        let is_first = waiting.client == 2 && waiting.progress == Progress::default();
        let mended = self.tenant_off_until.max(self.accounts[0].off_until.min(self.accounts[1].off_until));
        let since = waiting.accepted.max(mended);
        if is_first {
            self.longest_quick_wait = self.longest_quick_wait.max(self.now.saturating_sub(since));
        }
    }

    fn no_login(&self, lane: usize) -> Option<Trouble> {
        let text = "test".to_owned();
        if self.now < self.tenant_off_until {
            return Some(Trouble { kind: TroubleKind::NoToken, scope: Scope::Tenant, text });
        }
        let off = self.now < self.accounts[lane].off_until;
        off.then_some(Trouble { kind: TroubleKind::Refused, scope: Scope::Mailbox, text })
    }

    fn wake_all(&mut self) {
        for lane in 0..3 {
            self.at(0, Event::Wake(lane));
        }
    }

    fn end(&mut self, attempt: u64) {
        // Cut by a crash.
        let Some(UnderWay { delivery, lane, chosen, mut turn, began, rate_refused, surplus, open }) =
            self.under_way.remove(&attempt)
        else {
            return;
        };
        let now = self.now;
        self.accounts[lane].open -= 1;
        let waiting = self.waiting.remove(&delivery).unwrap();
        let people: Vec<Person> = chosen.iter().map(|position| waiting.recipients[*position]).collect();
        let outcomes = self.outcomes(lane, &waiting, &people, rate_refused, surplus);
        let taken = people
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Accepted(_) | Outcome::Uncertain(_)));
        let taken: Vec<Recipient> = taken.map(|(person, _)| recipient(*person)).collect();
        let spent = self.turns[lane].spent(taken.iter());
        let moment = Moment { now: monotonic(now), chance: self.chance.share() };
        self.turns[lane].learn(&mut self.tenant, &mut turn, &outcomes, open, moment);
        self.turns[lane].end(&mut self.tenant, turn, true, spent, monotonic(now));
        self.ends[lane].push_back(now);
        while self.ends[lane].front().is_some_and(|at| at + MINUTE <= now) {
            self.ends[lane].pop_front();
        }
        *self.usage[lane].entry(now / MINUTE).or_default() += spent.recipients;
        let took = Duration::from_millis(now - began);
        let attempted = Attempted { progress: waiting.progress, took, max_age: MAX_AGE };
        let mut ways: BTreeMap<Way, Waiting> = BTreeMap::new();
        for (person, outcome) in people.iter().zip(&outcomes) {
            let chance = self.chance.share();
            match self.plan.verdict(outcome, attempted, wall(now), chance) {
                Verdict::Delivered => self.finish(&[*person], "accepted"),
                Verdict::Held(_) => self.finish(&[*person], "held"),
                Verdict::GivenUp(Why::Refused) => self.finish(&[*person], "refused"),
                Verdict::GivenUp(Why::SenderRefused) => self.finish(&[*person], "sender refused"),
                Verdict::GivenUp(_) => self.finish(&[*person], "expired"),
                Verdict::Again(due, progress) => {
                    let due = u64::try_from(due.unix_millis()).unwrap();
                    if matches!(outcome, Outcome::Uncertain(_)) {
                        self.fates.get_mut(person).unwrap().uncertain += 1;
                    }
                    let key = (due, progress.attempts, progress.uncertain, progress.age, progress.denied);
                    let lanes = if progress.uncertain > 0 { vec![lane] } else { waiting.lanes.clone() };
                    let again = Waiting { recipients: Vec::new(), lanes, due, progress, ..waiting.clone() };
                    ways.entry(key).or_insert(again).recipients.push(*person);
                }
            }
        }
        let rest = (0..waiting.recipients.len()).filter(|position| !chosen.contains(position));
        let rest: Vec<Person> = rest.map(|position| waiting.recipients[position]).collect();
        if !rest.is_empty() {
            self.enqueue(Waiting { recipients: rest, due: now, ..waiting });
        }
        for again in ways.into_values() {
            self.enqueue(again);
        }
        self.wake_all();
    }

    fn outcomes(
        &mut self,
        lane: usize,
        waiting: &Waiting,
        people: &[Person],
        rate_refused: bool,
        surplus: bool,
    ) -> Vec<Outcome> {
        let all = |stage, line: &str| vec![classify(stage, &reply(line)); people.len()];
        if rate_refused {
            return all(
                Stage::Mail,
                "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
            );
        }
        if surplus {
            return all(Stage::EndOfData, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/x");
        }
        match self.chance.below(1000) {
            0..10 => return all(Stage::EndOfData, "451 4.7.0 Temporary server error. Please try again later. PRX4"),
            10..15 => {
                let lost = Outcome::Deferred(Diagnostic::local("the connection was lost in the middle of the message"));
                return vec![lost; people.len()];
            }
            _ => {}
        }
        if waiting.sender_denied && self.now < self.denied_until {
            return all(Stage::EndOfData, "554 5.2.252 SendAsDenied; a not allowed to send as b");
        }
        let gone = |person: &Person| person.is_multiple_of(50);
        let good = people.iter().filter(|person| !gone(person)).count() as u64;
        if !self.may_serve(lane, good) {
            return all(Stage::EndOfData, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException");
        }
        let lost = self.chance.happens(3);
        let arrived = !lost || self.chance.happens(500);
        let outcome = |person: &Person| {
            if gone(person) {
                return classify(Stage::Rcpt, &reply("550 5.1.1 User unknown"));
            }
            if lost {
                Outcome::Uncertain(Diagnostic::local("no reply after the final dot"))
            } else {
                classify(Stage::EndOfData, &reply("250 2.0.0 OK <x@y> [Hostname=Z]"))
            }
        };
        for person in people.iter().filter(|person| !gone(person) && arrived) {
            self.fates.get_mut(person).unwrap().copies += 1;
        }
        people.iter().map(outcome).collect()
    }

    fn may_serve(&mut self, lane: usize, count: u64) -> bool {
        let now = self.now;
        let may = self.accounts[lane].may_serve(count, now);
        if may {
            while self.served.front().is_some_and(|(at, _)| at + DAY <= now) {
                self.served.pop_front();
            }
            self.served.push_back((now, count));
            let day: u64 = self.served.iter().map(|(_, count)| count).sum();
            assert!(
                self.external.is_none_or(|limit| day <= limit),
                "the tenant served {day} external recipients in a day"
            );
        }
        may
    }

    fn finish(&mut self, people: &[Person], how: &'static str) {
        for person in people {
            let fate = self.fates.get_mut(person).unwrap();
            assert_eq!(fate.ended, None, "{person} ended twice");
            fate.ended = Some(how);
        }
    }
}

#[test]
fn thirty_days_of_faults_lose_nobody_and_exceed_nothing() {
    // What the tenant's day lacks is missing to all its clients: there nobody's wait is looked at.
    for (seed, external) in [(1, Some(EXTERNAL)), (2, None)] {
        let mut world = World::new(seed, external);
        // Ten more days without new mail let what was tried for five days come to its end.
        world.run(30 * DAY, 10 * DAY);
        let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
        let mut twice = 0;
        for (person, fate) in &world.fates {
            let end = fate.ended.unwrap_or_else(|| panic!("seed {seed}: {person} still waits"));
            *ends.entry(end).or_default() += 1;
            assert!(fate.copies <= 1 + fate.uncertain, "seed {seed}: {person} was served {} times", fate.copies);
            assert!(end != "accepted" || fate.copies >= 1, "seed {seed}: {person} was never served");
            twice += u64::from(fate.copies > 1);
        }
        println!("seed {seed}: {ends:?}, {twice} served twice, {} crashes, {} alerts", world.crashes, world.alerts);
        assert!(ends["accepted"] > 50_000, "{ends:?}");
        assert!(!ends.contains_key("expired"), "seed {seed}: time held made somebody expire: {ends:?}");
        for account in &world.accounts[..2] {
            assert_eq!(account.refusals, BTreeMap::new(), "seed {seed}: limits that were known were exceeded");
        }
        let lower = &world.accounts[2];
        println!("seed {seed}: the login with lower limits: {:?}", lower.refusals);
        assert_eq!(lower.refusals.get("day"), None, "seed {seed}");
        assert!(lower.refusals.values().sum::<u64>() < 200, "seed {seed}: {:?}", lower.refusals);
        let longest = world.longest_quick_wait / MINUTE;
        println!("seed {seed}: the quiet client waited {longest} minutes at most");
        // Its own backlog after an outage of a weekend included.
        assert!(
            external.is_some() || longest < 120,
            "seed {seed}: one client's flood kept another waiting for {longest} minutes"
        );
    }
}
