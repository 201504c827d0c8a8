//! The crash campaign: round after round on one state directory, mail of all sizes, faults upstream, kill -9 at any moment.
//! At the end each recipient of each message that had its 250 has it, or its sender has a report, or it is held as uncertain;
//! and each copy too many has a cause that `docs/flow.md` names.
//!
//! `CAMPAIGN_ROUNDS=200` runs the whole, `CAMPAIGN_SEED` repeats one; chance of the machine's own stays, as after any kill.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rusqlite::{Connection, OpenFlags};
use sandbox::catalogue::{self, Class, Effect, Row};
use sandbox::{Action, BodyPolicy, Fault, Limits, Message, SandboxOptions, Stage};

use crate::harness::{Client, PATIENCE, Relay, UNKNOWN, World, binary, until};

const USUAL_ROUNDS: u64 = 12;
const CLIENTS: usize = 5;
/// Messages of one client in one round at most.
const MESSAGES: usize = 8;
const DOMAIN: &str = "campaign.test";
const OTHERS: [&str; 3] = ["ann@example.com", "bob@example.com", "eve@example.com"];
/// Addresses that the mailbox may send as: each hears of a few failures an hour before they are gathered.
const SENDERS: usize = 12;
/// Longest wait before a kill: a start, some messages in, some out.
const LONGEST_ROUND_MILLIS: u64 = 800;
/// Every so often a round ends in order, and so much time passes that all that waits is due.
const ROUNDS_TO_A_STOP: u64 = 10;
/// Every so often the kill comes before the relay is ready.
const ROUNDS_TO_A_KILLED_START: u64 = 8;
const KEPT_BODY: usize = 16 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_and_fails_each_promise_is_kept_and_each_copy_too_many_has_its_cause() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("CAMPAIGN_ROUNDS").unwrap_or(USUAL_ROUNDS);
    let seed = number("CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("CAMPAIGN_SEED={seed} CAMPAIGN_ROUNDS={rounds}");
    let begun = Instant::now();
    let mut campaign = Campaign::begin(seed).await;
    for round in 1..=rounds {
        campaign.round(round).await;
    }
    let killed = begun.elapsed();
    campaign.drain().await;
    let figures = campaign.judge();
    let (round_time, all) = (killed.as_secs_f64(), begun.elapsed().as_secs_f64());
    eprintln!("{rounds} rounds in {round_time:.0} s, {all:.0} s with the drain\n{figures}");
    assert!(figures.wrong.is_empty(), "CAMPAIGN_SEED={seed}\n{}", figures.wrong.join("\n"));
}

/// A message that its client was told is queued.
struct Promise {
    recipients: Vec<&'static str>,
    body: usize,
}

/// What the clients of all rounds have in common.
#[derive(Default)]
struct Clients {
    next: AtomicU64,
    promised: Mutex<BTreeMap<String, Promise>>,
    refused: AtomicU64,
    /// Clients whose connection was cut with a message under way.
    cut: AtomicU64,
}

/// One run of the relay, from its start to its end.
struct Boot {
    events: Vec<Event>,
    /// Connections upstream until then: a message's connection tells its boot.
    connections: u64,
    /// What the queue held when it ended.
    open: HashMap<(String, String), Open>,
}

/// A line of the log about a message.
struct Event {
    what: String,
    outcome: String,
    message_id: String,
    recipients: String,
}

/// A recipient whose delivery has not been settled.
#[derive(Clone, Copy)]
pub(crate) struct Open {
    marked: bool,
    held: bool,
}

struct Campaign {
    world: World,
    chance: Rng,
    clients: Arc<Clients>,
    boots: Vec<Boot>,
    struck: usize,
}

impl Campaign {
    async fn begin(seed: u64) -> Self {
        let bodies = BodyPolicy { keep_up_to: KEPT_BODY, ..BodyPolicy::default() };
        let world = World::with(SandboxOptions { limits: Limits::Off, bodies, ..SandboxOptions::default() }).await;
        world.mailbox(|mailbox| mailbox.may_send_as.extend((0..SENDERS).map(sender)));
        let world = world
            .set("retry", "schedule = [\"1s\"]\nuncertain_delay = \"1s\"\nuncertain_resends = 10")
            .set("mailbox", "recipients_per_day = 1000000")
            .set("shutdown", "grace = \"1s\"");
        Self { world, chance: Rng::with_seed(seed), clients: Arc::default(), boots: Vec::new(), struck: 0 }
    }

    async fn round(&mut self, round: u64) {
        let faults = self.order_faults();
        self.forget_token_requests();
        if round.is_multiple_of(ROUNDS_TO_A_KILLED_START) {
            let mut command = binary();
            command.args(["run", "--config"]).arg(self.world.configuration());
            let relay = Relay::spawn_unready(command);
            // The moment of the kill is what is drawn here; there is nothing to wait for.
            tokio::time::sleep(Duration::from_millis(self.chance.u64(0..150))).await;
            return self.kill(relay, faults).await;
        }
        let relay = self.world.relay().await;
        let senders: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(submit(relay.address, Arc::clone(&self.clients), self.chance.fork())))
            .collect();
        // As above: whatever is under way just then is what the round is about.
        tokio::time::sleep(Duration::from_millis(self.chance.u64(0..LONGEST_ROUND_MILLIS))).await;
        if round.is_multiple_of(ROUNDS_TO_A_STOP) {
            self.stop(relay, faults).await;
        } else {
            self.kill(relay, faults).await;
        }
        for sender in senders {
            sender.await.unwrap();
        }
    }

    /// Faults of single messages mostly; now and then one that stops the lane, or the tokens.
    fn order_faults(&mut self) -> usize {
        let chance = &mut self.chance;
        let of_messages: Vec<_> = catalogue::all().filter(|row| is_usable(row) && is_of_a_message(row)).collect();
        let of_lanes: Vec<_> = catalogue::all().filter(|row| is_usable(row) && !is_of_a_message(row)).collect();
        let named = |name: &str| catalogue::find(name).unwrap().fault();
        let mut faults = Vec::new();
        for _ in 0..chance.usize(0..10) {
            faults.push(match chance.u8(0..6) {
                0 => named("drop-after-dot-taken"),
                1 => named("drop-after-dot"),
                2 => Fault::once(Stage::EndOfData, Action::Delay(Duration::from_millis(chance.u64(20..400)))),
                _ => of_messages[chance.usize(..of_messages.len())].fault(),
            });
        }
        if chance.u8(0..8) == 0 {
            faults.push(of_lanes[chance.usize(..of_lanes.len())].fault());
        }
        chance.shuffle(&mut faults);
        for fault in &faults {
            self.world.sandbox.inject(fault.clone()).unwrap();
        }
        faults.len()
    }

    /// The budget of token requests outlives a restart, and would have each round wait for the fifth before it.
    fn forget_token_requests(&self) {
        let Ok(entries) = std::fs::read_dir(self.world.path("state")) else { return };
        for entry in entries.map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("token-requests") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    async fn kill(&mut self, relay: Relay, faults: usize) {
        relay.signal("KILL");
        let (_, log) = relay.end().await;
        self.ended(&log, faults).await;
    }

    async fn stop(&mut self, relay: Relay, faults: usize) {
        let (status, log) = relay.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        self.ended(&log, faults).await;
        self.world.let_time_pass();
    }

    /// Notes how a run ended, once upstream has read all that it had sent.
    async fn ended(&mut self, log: &str, faults: usize) {
        let sandbox = &self.world.sandbox;
        assert!(until(PATIENCE, || sandbox.counters().connections == 0).await, "a session upstream does not end");
        self.struck += faults - sandbox.waiting_faults().len();
        sandbox.clear_faults();
        let open = open_deliveries(&self.world);
        let connections = sandbox.counters().connections_total;
        self.boots.push(Boot { events: log.lines().filter_map(event).collect(), connections, open });
    }

    /// Without faults, until nothing is left that would go by itself.
    async fn drain(&mut self) {
        self.forget_token_requests();
        let relay = self.world.relay().await;
        self.stop(relay, 0).await;
        self.forget_token_requests();
        let relay = self.world.relay().await;
        let drained = until(2 * PATIENCE, || queued(&self.world) == 0).await;
        assert!(drained, "{} deliveries do not go:\n{}", queued(&self.world), relay.log().text());
        let files = self.world.path("state/bodies");
        let swept = until(PATIENCE, || std::fs::read_dir(&files).unwrap().count() as u64 == filed(&self.world)).await;
        assert!(swept, "a body file is left over");
        self.stop(relay, 0).await;
    }

    fn judge(&self) -> Figures {
        let queue = Connection::open(self.world.path("state/queue.db")).unwrap();
        let whole: String = queue.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        let mut figures = Figures { rounds_ended: self.boots.len(), faults: self.struck, ..Figures::default() };
        figures.count_totals(&queue);
        let evidence = Evidence::gather(&queue, self.world.sandbox.messages(), &self.boots);
        let promised = self.clients.promised.lock().unwrap();
        figures.promised = promised.len();
        figures.refused = self.clients.refused.load(Ordering::Relaxed);
        figures.cut = self.clients.cut.load(Ordering::Relaxed);
        for (id, promise) in &*promised {
            for recipient in &promise.recipients {
                figures.count_promise(&evidence, id, recipient);
            }
            figures.check_content(&evidence, id, promise.body);
        }
        figures.check_untold(&evidence);
        for pair in evidence.arrivals.keys() {
            figures.count_copies(&evidence, pair);
        }
        figures
    }
}

/// A fault that ends with the relay's run, and that passes in a moment, where this relay can meet it.
fn is_usable(row: &Row) -> bool {
    row.stage != Stage::Imds
        && !matches!(row.effect, Effect::Delay(_))
        && (row.effect != Effect::Stall || row.stage != Stage::Content)
}

/// Others stop the lane for longer than a round.
fn is_of_a_message(row: &Row) -> bool {
    matches!(row.stage, Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Content | Stage::EndOfData)
        && matches!(
            row.class,
            Class::Transient
                | Class::Reconnect
                | Class::Ambiguous
                | Class::SplitAndResend
                | Class::PermanentMessage
                | Class::PermanentRecipient
                | Class::SenderRefused
        )
}

fn sender(number: usize) -> String {
    format!("sender{number}@contoso.com")
}

/// Sends messages until the relay is gone.
async fn submit(address: SocketAddr, clients: Arc<Clients>, mut chance: Rng) {
    let Ok(mut client) = Client::connect(address).await else { return };
    for _ in 0..MESSAGES {
        let id = format!("<c{}@{DOMAIN}>", clients.next.fetch_add(1, Ordering::Relaxed));
        let mut recipients: Vec<_> = OTHERS.into_iter().chain([UNKNOWN]).collect();
        chance.shuffle(&mut recipients);
        recipients.truncate(chance.usize(1..=3));
        let size = match chance.u8(0..20) {
            0 => chance.usize(1_000_000..3_000_000),
            1..5 => 100_000,
            _ => 1000,
        };
        let from = sender(chance.usize(..SENDERS));
        let header = format!("From: {from}\r\nTo: {RECIPIENTS}\r\nSubject: campaign\r\nMessage-ID: {id}\r\n\r\n");
        let body = body(&id, size);
        let octets = [header.as_bytes(), &body].concat();
        match client.send_from(&from, &recipients, &octets).await {
            Ok(reply) if reply.code() == 250 => {
                clients.promised.lock().unwrap().insert(id, Promise { recipients, body: body.len() });
            }
            Ok(reply) if matches!(reply.code(), 421 | 451 | 452) => {
                clients.refused.fetch_add(1, Ordering::Relaxed);
                // MAIL may have been refused, and what was sent behind it is answered too.
                let Ok(anew) = Client::connect(address).await else { return };
                client = anew;
            }
            Ok(reply) => panic!("{id} was answered {reply}"),
            Err(_) => {
                clients.cut.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

const RECIPIENTS: &str = "undisclosed-recipients:;";

/// Lines that name their message.
fn body(id: &str, size: usize) -> Vec<u8> {
    let line = format!("{id} {}\r\n", "x".repeat(60));
    line.repeat(size / line.len() + 1).into_bytes()
}

fn read_only(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn count(world: &World, query: &str) -> u64 {
    let queue = read_only(&world.path("state/queue.db"));
    queue.query_row(query, [], |row| row.get(0).map(i64::unsigned_abs)).unwrap_or(u64::MAX)
}

fn queued(world: &World) -> u64 {
    count(world, "SELECT count(*) FROM delivery WHERE state = 0")
}

fn filed(world: &World) -> u64 {
    count(world, "SELECT count(*) FROM message WHERE body_filed")
}

/// What the queue holds, read from a copy: the relay must find its log as the kill left it.
pub(crate) fn open_deliveries(world: &World) -> HashMap<(String, String), Open> {
    let mut open = HashMap::new();
    let copy = tempfile::tempdir().unwrap();
    for name in ["queue.db", "queue.db-wal"] {
        let _ = std::fs::copy(world.path("state").join(name), copy.path().join(name));
    }
    let Ok(queue) = Connection::open(copy.path().join("queue.db")) else { return open };
    // Killed before there was a table.
    let Ok(mut statement) = queue.prepare(
        "SELECT m.message_id, d.recipients, d.in_flight IS NOT NULL, d.state = 1
         FROM delivery d JOIN message m ON m.id = d.message",
    ) else {
        return open;
    };
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (id, recipients): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let how = Open { marked: row.get(2).unwrap(), held: row.get(3).unwrap() };
        for line in recipients.lines() {
            let recipient = line.split('\t').next().unwrap_or_default();
            open.insert((id.clone(), recipient.to_owned()), how);
        }
    }
    open
}

fn event(line: &str) -> Option<Event> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let message_id = text("message_id");
    (!message_id.is_empty()).then(|| Event {
        what: text("message"),
        outcome: text("outcome"),
        message_id,
        recipients: text("recipients"),
    })
}

/// A message, by its Message-ID, and one of its recipients.
type Pair = (String, String);

/// Everything that is known at the end.
struct Evidence<'a> {
    boots: &'a [Boot],
    /// The connections of the copies that arrived, in order.
    arrivals: BTreeMap<Pair, Vec<u64>>,
    contents: HashMap<String, Vec<Arc<Message>>>,
    /// Final and uncertain events.
    history: HashMap<Pair, Vec<(String, String)>>,
    /// By the Message-ID that a report names: the report's own, and its text.
    reports: HashMap<String, Vec<(String, String)>>,
    /// Failures that wait for the next digest.
    gathered: HashSet<Pair>,
}

impl<'a> Evidence<'a> {
    fn gather(queue: &Connection, messages: Vec<Arc<Message>>, boots: &'a [Boot]) -> Self {
        let mut evidence = Self {
            boots,
            arrivals: BTreeMap::new(),
            contents: HashMap::new(),
            history: HashMap::new(),
            reports: HashMap::new(),
            gathered: HashSet::new(),
        };
        for message in messages {
            for recipient in &message.recipients {
                let pair = (message.message_id.clone(), recipient.address.clone());
                evidence.arrivals.entry(pair).or_default().push(message.connection);
            }
            if !is_ours(&message.message_id) {
                evidence.note_report(&message);
            }
            evidence.contents.entry(message.message_id.clone()).or_default().push(message);
        }
        let mut statement = queue.prepare("SELECT message_id, recipient, event, reply FROM history").unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let pair = (row.get(0).unwrap(), row.get(1).unwrap());
            evidence.history.entry(pair).or_default().push((row.get(2).unwrap(), row.get(3).unwrap()));
        }
        let mut statement = queue.prepare("SELECT message_id, recipients FROM report").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        evidence.gathered = rows.map(Result::unwrap).collect();
        evidence
    }

    fn note_report(&mut self, message: &Message) {
        let text = String::from_utf8_lossy(message.body.octets().expect("reports are small")).into_owned();
        let ids: BTreeSet<_> = text.split_whitespace().filter(|word| is_ours(word)).map(str::to_owned).collect();
        for id in ids {
            let told = self.reports.entry(id).or_default();
            if !told.iter().any(|(report, _)| *report == message.message_id) {
                told.push((message.message_id.clone(), text.clone()));
            }
        }
    }

    fn events(&self, pair: &Pair, wanted: &str) -> usize {
        self.history.get(pair).map_or(0, |events| events.iter().filter(|(event, _)| event == wanted).count())
    }

    /// Reports at the sender that name this failure.
    fn told(&self, pair: &Pair) -> usize {
        let reports = self.reports.get(&pair.0);
        reports.map_or(0, |reports| reports.iter().filter(|(_, text)| text.contains(&pair.1)).count())
    }

    /// How it stands at the end.
    fn open(&self, pair: &Pair) -> Option<Open> {
        self.boots.last().and_then(|boot| boot.open.get(pair)).copied()
    }

    /// Outcomes that say "the reply was lost" in all of history, other than at a start.
    fn lost_replies_stored(&self, pair: &Pair) -> usize {
        let is_lost = |(event, reply): &&(String, String)| event == "uncertain" && !reply.contains("the relay stopped");
        self.history.get(pair).map_or(0, |events| events.iter().filter(is_lost).count())
    }
}

impl Boot {
    /// Outcomes that say "the reply was lost".
    fn lost_replies(&self, pair: &Pair) -> usize {
        let is_lost = |event: &&Event| event.outcome == "uncertain" && event.is_of(pair);
        self.events.iter().filter(is_lost).count()
    }
}

impl Event {
    fn is_of(&self, (id, recipient): &Pair) -> bool {
        self.message_id == *id && self.recipients.split(',').any(|one| one == recipient)
    }
}

/// Whether a client of ours wrote it.
fn is_ours(message_id: &str) -> bool {
    message_id.ends_with(&format!("@{DOMAIN}>"))
}

/// What came out.
#[derive(Default)]
struct Figures {
    rounds_ended: usize,
    faults: usize,
    promised: usize,
    refused: u64,
    cut: u64,
    arrived: usize,
    bounced: usize,
    gathered: usize,
    held: usize,
    untold: BTreeSet<String>,
    refused_reports: usize,
    /// Copies too many by cause.
    reply_lost: usize,
    cut_and_marked: usize,
    cut_unmarked: usize,
    settlement_lost: usize,
    wrong: Vec<String>,
}

impl Figures {
    /// One recipient of a promised message: it ended in exactly one way.
    fn count_promise(&mut self, evidence: &Evidence<'_>, id: &str, recipient: &str) {
        let pair = (id.to_owned(), recipient.to_owned());
        let (accepted, refused) = (evidence.events(&pair, "accepted"), evidence.events(&pair, "refused"));
        let open = evidence.open(&pair);
        match (accepted, refused, open) {
            (1, 0, None) if evidence.arrivals.contains_key(&pair) => self.arrived += 1,
            (0, 1, None) => self.count_failure(evidence, &pair),
            (0, 0, Some(Open { held: true, .. })) if evidence.events(&pair, "uncertain") > 0 => self.held += 1,
            _ => self.wrong.push(format!(
                "LOST? {pair:?}: accepted {accepted} times, refused {refused} times, {} in the queue, {} arrivals, {:?}",
                open.map_or("not", |_| "still"),
                evidence.arrivals.get(&pair).map_or(0, Vec::len),
                evidence.history.get(&pair),
            )),
        }
    }

    fn count_failure(&mut self, evidence: &Evidence<'_>, pair: &Pair) {
        match (evidence.told(pair), evidence.gathered.contains(pair)) {
            (1, false) => self.bounced += 1,
            (0, true) => self.gathered += 1,
            (0, false) => {
                self.untold.insert(pair.0.clone());
            }
            (told, gathered) => {
                self.wrong.push(format!("{pair:?} was told in {told} reports, and waits for a digest: {gathered}"));
            }
        }
    }

    /// Nobody hears of a report that was itself refused: as many failures may be untold, and no more.
    fn check_untold(&mut self, evidence: &Evidence<'_>) {
        let refused = |(pair, events): &(&Pair, &Vec<(String, String)>)| {
            !is_ours(&pair.0) && events.iter().any(|(event, _)| event == "refused")
        };
        self.refused_reports = evidence.history.iter().filter(refused).count();
        let held = evidence.boots.last().map_or(0, |boot| boot.open.keys().filter(|(id, _)| !is_ours(id)).count());
        if self.untold.len() > self.refused_reports + held {
            self.wrong.push(format!(
                "{} failures were told nobody, but only {} reports refused: {:?}",
                self.untold.len(),
                self.refused_reports,
                self.untold
            ));
        }
    }

    /// Every copy but the one that was settled, of ours and of reports.
    fn count_copies(&mut self, evidence: &Evidence<'_>, pair: &Pair) {
        let arrivals = &evidence.arrivals[pair];
        let settled = evidence.events(pair, "accepted").min(1);
        let mut explained: HashMap<usize, (usize, bool)> = HashMap::new();
        let mut lost_replies = 0;
        for connection in &arrivals[..arrivals.len() - settled] {
            let number = evidence.boots.iter().position(|boot| *connection <= boot.connections).unwrap();
            let boot = &evidence.boots[number];
            let (lost, cut) = explained.entry(number).or_default();
            let open = boot.open.get(pair).filter(|_| !*cut);
            let was_answered = boot.events.iter().any(|event| event.what == "sent" && event.is_of(pair));
            if *lost < boot.lost_replies(pair) {
                *lost += 1;
                lost_replies += 1;
                self.reply_lost += 1;
            } else if let Some(open) = open {
                *cut = true;
                match (was_answered, open.marked) {
                    (true, _) => self.settlement_lost += 1,
                    (false, true) => self.cut_and_marked += 1,
                    (false, false) => self.cut_unmarked += 1,
                }
            } else if lost_replies < evidence.lost_replies_stored(pair) {
                // The kill cut its line off the log.
                lost_replies += 1;
                self.reply_lost += 1;
            } else {
                self.wrong.push(format!(
                    "a copy of {pair:?} has no cause: it arrived in boot {} of connections {arrivals:?}; history {:?}",
                    number + 1,
                    evidence.history.get(pair)
                ));
            }
        }
    }

    /// Every copy is whole.
    fn check_content(&mut self, evidence: &Evidence<'_>, id: &str, length: usize) {
        for message in evidence.contents.get(id).into_iter().flatten() {
            let is_whole = match message.body.octets() {
                Some(octets) => octets.ends_with(&[body(id, length - 1), b"\r\n".to_vec()].concat()),
                // Beside the body there are the header's few lines.
                None => (length as u64..length as u64 + 1000).contains(&message.body.length()),
            };
            if !is_whole {
                self.wrong.push(format!("{id} came with {:?} instead of {length} octets", message.body));
            }
        }
    }

    /// The queue counts what it holds without looking: the sums are right after every kill.
    fn count_totals(&mut self, queue: &Connection) {
        let row = |query: &str| {
            let read = |row: &rusqlite::Row<'_>| Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
            queue.query_row(query, [], read).unwrap()
        };
        let noted = row("SELECT messages, queued, held, quarantined FROM meta");
        let found = row("SELECT (SELECT count(*) FROM message), count(*) FILTER (WHERE state = 0),
             count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 3) FROM delivery");
        if noted != found {
            self.wrong.push(format!("messages, queued, held, quarantined: noted {noted:?}, found {found:?}"));
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lost = self.wrong.iter().filter(|wrong| wrong.starts_with("LOST")).count();
        let copies = self.reply_lost + self.cut_and_marked + self.cut_unmarked + self.settlement_lost;
        writeln!(
            f,
            "{} boots, {} faults struck; {} messages promised, {} refused for now, {} clients cut",
            self.rounds_ended, self.faults, self.promised, self.refused, self.cut
        )?;
        writeln!(
            f,
            "of their recipients {} arrived, {} bounced, {} wait for a digest, {} held as uncertain, {} untold since their \
             report was refused ({} were), {lost} lost",
            self.arrived,
            self.bounced,
            self.gathered,
            self.held,
            self.untold.len(),
            self.refused_reports
        )?;
        write!(
            f,
            "{copies} copies too many: {} reply lost by a fault, {} cut and marked, {} cut and not marked yet, {} answered and \
             not settled yet, {} without a cause",
            self.reply_lost,
            self.cut_and_marked,
            self.cut_unmarked,
            self.settlement_lost,
            self.wrong.len() - lost
        )
    }
}
