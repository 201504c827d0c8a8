//! Disks that fail: each system call that the queue depends on fails on demand, by strace's injection, and a disk that is
//! full. What had its 250 arrives, once unless a crash came between; who was refused was told so; and the relay mends itself
//! or stops with a sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};
use sandbox::{Action, Fault, Stage};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::campaign::open_deliveries;
use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, UNKNOWN, World, message, peer, skip, until};
use crate::small_disk::SmallDisk;

/// Worlds at a time: each is two processes that stand still at every system call.
const TOGETHER: usize = 4;
const CLIENTS: usize = 3;
const MESSAGES: usize = 8;
/// Messages that a world may name: as many body files can be told to strace.
const NAMES: usize = 100;
/// Beyond what stays in the database.
const FILED: usize = 100_000;

/// What a call is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Log,
    Database,
    Body,
    Bodies,
}

/// While what it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum While {
    /// Mail comes in and goes out.
    Flowing,
    /// Mail that came in goes out.
    Leaving,
    /// The relay starts after a kill.
    Starting,
}

/// What must hold beside "nothing is lost".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Somebody is refused, with one of these codes and no other.
    Refused(&'static [u16]),
    /// Whoever is refused hears this; perhaps nobody is.
    Perhaps(&'static [u16]),
    /// It does not start, and says why.
    Stops,
    /// It starts as if nothing had been.
    Starts,
}

/// A call that fails.
#[derive(Clone, Copy, Debug)]
struct Row {
    calls: &'static str,
    on: On,
    error: &'static str,
    /// Which of the calls, as strace counts them: for each thread.
    when: &'static str,
    during: While,
    holds: Holds,
}

const fn row(during: While, calls: &'static str, on: On, error: &'static str, when: &'static str, holds: Holds) -> Row {
    Row { calls, on, error, when, during, holds }
}

const SYNC: &str = "fsync,fdatasync";

/// The table. A sync or a write that failed is `451` and reopens the store, a full disk is `452`; neither costs what was
/// promised, and what upstream had taken meanwhile is settled once it can be written.
const ROWS: &[Row] = {
    use Holds::{Perhaps, Refused, Starts, Stops};
    use On::{Bodies, Body, Database, Log};
    use While::{Flowing, Leaving, Starting};
    const FAILED: &[u16] = &[451];
    // A log that has no room is one thing; that it stays so when settlements have had the reserve, another.
    const FULL: &[u16] = &[451, 452];
    &[
        row(Flowing, SYNC, Log, "EIO", "1", Refused(FAILED)),
        row(Flowing, SYNC, Log, "EIO", "3", Refused(FAILED)),
        row(Flowing, SYNC, Log, "EIO", "2+3", Refused(FAILED)),
        row(Flowing, SYNC, Log, "EIO", "1+", Refused(FAILED)),
        row(Flowing, SYNC, Database, "EIO", "1", Perhaps(FAILED)),
        row(Flowing, SYNC, Body, "EIO", "1", Refused(FAILED)),
        row(Flowing, SYNC, Bodies, "EIO", "2", Refused(FAILED)),
        row(Flowing, "pwrite64", Log, "EIO", "1", Refused(FAILED)),
        row(Flowing, "pwrite64", Log, "EIO", "7", Refused(FAILED)),
        row(Flowing, "pwrite64", Log, "ENOSPC", "2", Refused(FULL)),
        row(Flowing, "pwrite64", Log, "ENOSPC", "1+", Refused(FULL)),
        row(Flowing, "pwrite64", Database, "EIO", "1", Perhaps(FAILED)),
        row(Flowing, "pwrite64", Database, "ENOSPC", "1+", Perhaps(FULL)),
        row(Flowing, "openat", Body, "EIO", "1", Refused(FAILED)),
        row(Flowing, "openat", Body, "ENOSPC", "1", Refused(&[452])),
        row(Flowing, "write", Body, "EIO", "2", Refused(FAILED)),
        row(Flowing, "write", Body, "ENOSPC", "1", Refused(&[452])),
        row(Flowing, "write", Body, "EDQUOT", "1", Refused(&[452])),
        row(Flowing, "pwrite64", Log, "EDQUOT", "1+", Refused(FULL)),
        row(Flowing, SYNC, Body, "EIO", "1+", Refused(FAILED)),
        row(Flowing, "pread64", Log, "EIO", "1+", Perhaps(FAILED)),
        row(Flowing, "ftruncate", Log, "EIO", "1+", Perhaps(FAILED)),
        row(Flowing, "unlink", Body, "EIO", "1+", Perhaps(&[])),
        row(Leaving, SYNC, Log, "EIO", "1", Perhaps(&[])),
        row(Leaving, SYNC, Log, "EIO", "1+", Perhaps(&[])),
        row(Leaving, "pwrite64", Log, "ENOSPC", "1+", Perhaps(&[])),
        row(Leaving, "openat", Body, "EIO", "1", Perhaps(&[])),
        row(Leaving, "read", Body, "EIO", "1", Perhaps(&[])),
        row(Leaving, "read", Body, "EIO", "1+", Perhaps(&[])),
        row(Leaving, "pread64", Log, "EIO", "1+", Perhaps(&[])),
        row(Leaving, "pread64", Log, "EIO", "9", Perhaps(&[])),
        row(Starting, "openat", Log, "EIO", "1+", Stops),
        row(Starting, "getdents64", Bodies, "EIO", "1", Starts),
        row(Starting, "openat", Database, "EIO", "1+", Stops),
        row(Starting, "pread64", Database, "EIO", "1", Stops),
        row(Starting, "pread64", Database, "EIO", "1+", Stops),
        row(Starting, "pread64", Database, "EIO", "5", Starts),
        row(Starting, "pread64", Log, "EIO", "2", Stops),
        row(Starting, "pread64", Log, "EIO", "1+", Stops),
        row(Starting, SYNC, Log, "EIO", "1", Stops),
        row(Starting, "pwrite64", Log, "EIO", "1", Stops),
        // The reserve helps where it is enough.
        row(Starting, "pwrite64", Log, "ENOSPC", "1", Starts),
        row(Starting, "pwrite64", Log, "ENOSPC", "1+", Stops),
        row(Starting, "unlink", Body, "EIO", "1+", Starts),
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_of_the_disk_fails_nothing_promised_is_lost_and_nothing_doubled_without_a_crash() {
    if peer("strace").is_none() {
        return;
    }
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        skip("processes cannot be traced here");
        return;
    }
    let wanted = std::env::var("DISK_FAULT").ok().map(|text| text.parse::<usize>().unwrap());
    let begun = Instant::now();
    let places = Arc::new(Semaphore::new(TOGETHER));
    let mut runs = JoinSet::new();
    for (number, row) in ROWS.iter().enumerate().filter(|(number, _)| wanted.is_none_or(|wanted| wanted == *number)) {
        for killed in [false, true] {
            let places = Arc::clone(&places);
            runs.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                // A task of its own: a panic is this row's failure.
                let ended = tokio::spawn(drive(row, killed)).await;
                ended.err().map(|panic| format!("{number} {row:?}, killed: {killed}: {panic}"))
            });
        }
    }
    let failures: Vec<_> = runs.join_all().await.into_iter().flatten().collect();
    eprintln!("{} calls failed in {:.0} s", ROWS.len(), begun.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
}

async fn drive(row: &'static Row, killed: bool) {
    let world = World::new().await.set("retry", "schedule = [\"1s\"]\nuncertain_delay = \"1s\"");
    let mut run = Run { row, world, said: Arc::default(), in_doubt: BTreeSet::new() };
    match row.during {
        While::Flowing => run.flowing(killed).await,
        While::Leaving => run.leaving(killed).await,
        While::Starting => run.starting(killed).await,
    }
}

/// What clients heard.
#[derive(Default)]
struct Said {
    promised: Mutex<BTreeSet<String>>,
    refusals: Mutex<BTreeMap<u16, u32>>,
}

/// One row against a world of its own.
struct Run {
    row: &'static Row,
    world: World,
    said: Arc<Said>,
    /// What may arrive twice: it was under way, or not settled, at a kill.
    in_doubt: BTreeSet<String>,
}

impl Run {
    async fn flowing(&mut self, killed: bool) {
        let relay = self.world.relay().await;
        let injection = self.inject(&relay);
        self.submit(relay.address, "flowing", CLIENTS * MESSAGES).await;
        injection.strike().await;
        self.end(relay, injection, killed).await;
    }

    async fn leaving(&mut self, killed: bool) {
        self.world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
        let relay = self.world.relay().await;
        self.submit(relay.address, "leaving", CLIENTS * MESSAGES).await;
        let injection = self.inject(&relay);
        self.world.sandbox.clear_faults();
        injection.strike().await;
        self.end(relay, injection, killed).await;
    }

    async fn starting(&mut self, killed: bool) {
        self.world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
        let relay = self.world.relay().await;
        self.submit(relay.address, "starting", CLIENTS * MESSAGES).await;
        // A body that was never accepted, for the sweep.
        let mut client = Client::connect(relay.address).await.unwrap();
        client.begin(&[RECIPIENT]).await;
        client.write(&text("never", FILED)).await.unwrap();
        let files = self.world.path("state/bodies");
        let promised = self.said.promised.lock().unwrap().len() / 2;
        assert!(until(PATIENCE, || std::fs::read_dir(&files).unwrap().count() > promised).await);
        // All is in the database after a stop, and much is in the log after a kill.
        if self.row.on == On::Database && !killed {
            drop(client);
            relay.terminate().await;
        } else {
            relay.kill();
        }
        let trace = self.world.path("trace");
        let mut command = Command::new("strace");
        command.args(self.arguments(&trace)).arg(env!("CARGO_BIN_EXE_xoauth2-relay"));
        command.args(["run", "--config"]).arg(self.world.configuration());
        if self.row.holds == Holds::Stops {
            let (status, log) = Relay::spawn_unready(command).end().await;
            assert_eq!(status.code(), Some(69), "{log}");
            let error = log.lines().find(|line| line.contains("\"ERROR\"")).unwrap_or_else(|| panic!("{log}"));
            // Nothing is wrong with the queue, and nobody is to think so.
            assert!(error.contains("queue.db") && !error.contains("damaged"), "{error}");
        } else {
            let relay = Relay::spawn(command).await;
            let struck = until(PATIENCE, || strikes(&trace) > 0).await;
            assert!(struck, "the call was never made");
            let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", relay.pid())).unwrap();
            let signal = if killed { "-KILL" } else { "-TERM" };
            Command::new("kill").args([signal, child.trim()]).status().unwrap();
            relay.end().await;
        }
        self.world.sandbox.clear_faults();
        self.all_arrive(self.world.relay().await, killed).await;
    }

    /// The disk is mended under a relay that runs on, or found mended by the next.
    async fn end(&mut self, relay: Relay, injection: Injection, killed: bool) {
        self.judge_refusals();
        if killed {
            relay.signal("KILL");
            let (_, log) = relay.end().await;
            injection.end();
            assert!(!log.contains("\"ready\"") || !log.contains("panicked"), "{log}");
            assert!(until(PATIENCE, || self.world.sandbox.counters().connections == 0).await);
            let open = open_deliveries(&self.world);
            self.in_doubt = open.into_keys().map(|(id, _)| id).collect();
            self.all_arrive(self.world.relay().await, killed).await;
            return;
        }
        injection.end();
        self.is_taken(relay.address).await;
        self.all_arrive(relay, killed).await;
    }

    fn judge_refusals(&self) {
        let refusals = self.said.refusals.lock().unwrap();
        let (Holds::Refused(codes) | Holds::Perhaps(codes)) = self.row.holds else { return };
        assert!(refusals.keys().all(|code| codes.contains(code)), "clients heard {refusals:?}");
        assert!(!refusals.is_empty() || matches!(self.row.holds, Holds::Perhaps(_)), "nobody was refused");
    }

    /// It accepts again by itself.
    async fn is_taken(&self, address: SocketAddr) {
        let end = Instant::now() + PATIENCE;
        for number in 0.. {
            let name = format!("after{number}");
            let mut client = Client::connect(address).await.unwrap();
            if client.send(&[RECIPIENT], &message(&name)).await.unwrap().code() == 250 {
                self.said.promised.lock().unwrap().insert(name);
                return;
            }
            assert!(Instant::now() < end, "it does not accept again");
            tokio::task::yield_now().await;
        }
    }

    /// Everything promised is there, and only what was in doubt is there twice; nothing is left on the disk.
    async fn all_arrive(&self, relay: Relay, killed: bool) {
        let promised = self.said.promised.lock().unwrap().clone();
        let settled = until(PATIENCE, || queued(&self.world).is_empty()).await;
        assert!(settled, "{:?} is left:\n{}", queued(&self.world), relay.log().text());
        let mut copies = BTreeMap::<String, u32>::new();
        for message in self.world.sandbox.messages() {
            *copies.entry(message.message_id.clone()).or_default() += 1;
        }
        for name in &promised {
            let id = format!("<{name}@test.local>");
            let most = if self.in_doubt.contains(&id) { 2 } else { 1 };
            let found = copies.get(&id).copied().unwrap_or_default();
            assert!((1..=most).contains(&found), "{name} arrived {found} times");
        }
        let unpromised =
            copies.keys().filter(|id| !promised.contains(id.trim_matches(['<', '>']).trim_end_matches("@test.local")));
        // A crash comes before what was told to have failed is taken back.
        assert!(
            killed || unpromised.clone().next().is_none(),
            "refused, and sent: {:?}",
            unpromised.collect::<Vec<_>>()
        );
        let (status, log) = relay.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        let relay = self.world.relay().await;
        let files = self.world.path("state/bodies");
        let swept = until(PATIENCE, || std::fs::read_dir(&files).unwrap().count() == 0).await;
        assert!(swept, "body files are left over");
        relay.terminate().await;
        let queue = Connection::open(self.world.path("state/queue.db")).unwrap();
        let whole: String = queue.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }

    /// Small and large ones in turn, over several connections.
    async fn submit(&self, address: SocketAddr, name: &'static str, count: usize) {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let said = Arc::clone(&self.said);
                tokio::spawn(async move {
                    let mut connection = Client::connect(address).await.unwrap();
                    for number in (client..count).step_by(CLIENTS) {
                        let name = format!("{name}{number}");
                        let size = if number % 2 == 0 { FILED } else { 100 };
                        let reply = connection.send(&[RECIPIENT], &text(&name, size)).await.unwrap();
                        if reply.code() == 250 {
                            said.promised.lock().unwrap().insert(name);
                        } else {
                            *said.refusals.lock().unwrap().entry(reply.code()).or_default() += 1;
                            // MAIL may have been refused, and what was sent behind it is answered too.
                            connection = Client::connect(address).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    }

    fn arguments(&self, trace: &Path) -> Vec<String> {
        let Row { calls, on, error, when, .. } = self.row;
        let state = self.world.path("state");
        let paths: Vec<PathBuf> = match on {
            On::Log => vec![state.join("queue.db-wal")],
            On::Database => vec![state.join("queue.db")],
            On::Bodies => vec![state.join("bodies")],
            On::Body => (0..NAMES).map(|number| state.join(format!("bodies/1-{number:X}"))).collect(),
        };
        let fixed = ["--follow-forks", "--output", &trace.display().to_string()].map(str::to_owned);
        let traced = [format!("--trace={calls}"), format!("--inject={calls}:error={error}:when={when}")];
        let paths = paths.iter().map(|path| format!("--trace-path={}", path.display()));
        fixed.into_iter().chain(traced).chain(paths).collect()
    }

    fn inject(&self, relay: &Relay) -> Injection {
        let trace = self.world.path("trace");
        let mut command = Command::new("strace");
        command.args(self.arguments(&trace)).arg(format!("--attach={}", relay.pid()));
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // One line once every thread is held.
        let mut said = String::new();
        let stderr = strace.stderr.take().unwrap();
        let mut lines = std::io::BufReader::new(stderr);
        std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Injection { strace, trace }
    }
}

/// A strace at its work; without it the disk is well.
struct Injection {
    strace: Child,
    trace: PathBuf,
}

impl Injection {
    async fn strike(&self) {
        assert!(until(PATIENCE, || strikes(&self.trace) > 0).await, "the call was never made");
    }

    fn end(mut self) {
        Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status().unwrap();
        self.strace.wait().unwrap();
    }
}

fn strikes(trace: &Path) -> usize {
    std::fs::read_to_string(trace).map_or(0, |text| text.matches("(INJECTED)").count())
}

fn text(name: &str, size: usize) -> Vec<u8> {
    [message(name), b"\r\n".to_vec(), vec![b'x'; size]].concat()
}

/// The Message-IDs of what waits in the queue.
fn queued(world: &World) -> BTreeSet<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let queue = Connection::open_with_flags(world.path("state/queue.db"), flags).unwrap();
    let mut statement =
        queue.prepare("SELECT m.message_id FROM delivery d JOIN message m ON m.id = d.message").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(|id| id.unwrap_or_else(|_| "the queue cannot be read now".to_owned())).collect()
}

/// Room for the reserve, and for some dozens of messages.
const DISK: u32 = 32;
/// Failures that are reported one by one; others would wait for a digest.
const BOUNCES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_another_program_fills_costs_no_promise_and_drains_with_its_bounces() {
    for killed in [Killed::Never, Killed::Full, Killed::Draining] {
        let Some(disk) = SmallDisk::mount(DISK) else { return };
        let state = disk.path().join("state");
        let world = World::new().await.set("retry", "schedule = [\"1s\"]\nuncertain_delay = \"1s\"");
        let world =
            world.set("spool", format!("directory = {:?}\nmin_free_bytes = \"0 B\"", state.display().to_string()));
        world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
        let relay = world.relay().await;
        assert!(until(PATIENCE, || state.join("ballast").exists()).await);
        let said = Arc::new(Said::default());
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| tokio::spawn(until_refused(relay.address, client, Arc::clone(&said)))).collect();
        let enough = || said.promised.lock().unwrap().len() >= 2 * BOUNCES;
        assert!(until(PATIENCE, enough).await);
        fill(disk.path());
        for client in clients {
            client.await.unwrap();
        }
        let mut relay = relay;
        if killed != Killed::Never {
            relay.kill();
            fill(disk.path());
            relay = world.relay().await;
        }
        // Bounces need room at a disk that has none, until what leaves makes some.
        world.sandbox.clear_faults();
        if killed == Killed::Draining {
            relay.log().wait_for(|line| line.contains("\"sent\""));
            relay.kill();
            relay = world.relay().await;
        }
        let drained = until(PATIENCE, || open_messages(&state) == Some(0)).await;
        assert!(drained, "{:?} messages are left:\n{}", open_messages(&state), relay.log().text());
        let copies = if killed == Killed::Draining { 2 } else { 1 };
        assert_arrived(&world, &said.promised.lock().unwrap(), copies);
        // The other program's file is still there.
        let mut client = Client::connect(relay.address).await.unwrap();
        let end = Instant::now() + PATIENCE;
        // The files of what left go a moment later than their rows.
        while client.send(&[RECIPIENT], &message("after")).await.unwrap().code() != 250 {
            assert!(Instant::now() < end, "it does not accept again");
            tokio::task::yield_now().await;
        }
        let (status, log) = relay.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

/// When a kill comes beside the trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Never,
    Full,
    Draining,
}

/// Sends until nothing is taken any more, every third message to somebody unknown too.
async fn until_refused(address: SocketAddr, client: usize, said: Arc<Said>) {
    let mut connection = Client::connect(address).await.unwrap();
    for number in 0.. {
        let bounces = number % 3 == 0 && number * CLIENTS / 3 < BOUNCES;
        let name = format!("{}{client}x{number}", if bounces { "bounces" } else { "goes" });
        let recipients = if bounces { &[RECIPIENT, UNKNOWN][..] } else { &[RECIPIENT] };
        let size = [100, FILED, 4000, 3 * FILED][number % 4];
        let reply = connection.send(recipients, &text(&name, size)).await.unwrap();
        if reply.code() != 250 {
            assert_eq!(reply.to_string(), "452 4.3.1 Insufficient system storage, try again later");
            return;
        }
        said.promised.lock().unwrap().insert(name);
    }
}

/// Everything, at most so often, and a report for each unknown recipient.
fn assert_arrived(world: &World, promised: &BTreeSet<String>, most: usize) {
    let messages = world.sandbox.messages();
    for name in promised {
        let id = format!("<{name}@test.local>");
        let copies = messages.iter().filter(|message| message.message_id == id).count();
        assert!((1..=most).contains(&copies), "{copies} copies of {name}");
        let names_it = |octets: &[u8]| String::from_utf8_lossy(octets).contains(&id);
        let is_report = |message: &sandbox::Message| message.recipients[0].address == SENDER;
        let reports =
            messages.iter().filter(|message| is_report(message) && message.body.octets().is_some_and(names_it));
        let reports: BTreeSet<_> = reports.map(|report| &report.message_id).collect();
        assert_eq!(reports.len(), usize::from(name.starts_with("bounces")), "reports of {name}");
    }
    assert!(promised.iter().any(|name| name.starts_with("bounces")));
}

fn open_messages(state: &Path) -> Option<i64> {
    let queue = Connection::open_with_flags(state.join("queue.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    queue.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).ok()
}

/// Takes all the room that is left.
fn fill(disk: &Path) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(disk.join("filler")).unwrap();
    while file.write_all(&[0x5a; 4096]).is_ok() {}
}
