//! A whole run: builds the relay, finds the peers, alternates them over all repetitions, and keeps what was measured.

use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::cli::{self, Section};
use crate::error::BenchError;
use crate::experiment::{self, Cell};
use crate::figure::{Experiment, Key, Quantity, Run, Sessions};
use crate::progress::say;
use crate::subject::{self, DIRECT, Relay, Setup, Subject};
use crate::{machine, process};

const KIB: usize = 1024;
const MB: usize = 1_000_000;
/// The size, in KiB, that all subjects are measured with; and one-message connections, whose cost has little to do with
/// what is sent on them.
const USUAL_SIZE: usize = 10;
/// Messages in a queue that is drained, as many for each subject.
const DRAIN_MESSAGES: usize = 2_000;
/// Messages whose latency is compared with that of the upstream itself: enough for a 99th percentile where each takes a
/// millisecond, and no more than seconds allow where each takes a tenth of one.
const NEAR_MESSAGES: u32 = 1_000;
const FAR_MESSAGES: u32 = 50;
/// Clients whose system calls are counted.
const CALLS_CONNECTIONS: [usize; 2] = [10, 100];
/// With the starts that fill and empty the queue, as many as the relay asks for tokens in five minutes.
const QUEUED_STARTS: usize = 3;
/// A share of stolen CPU above which a repetition is remarked upon.
const STOLEN: f64 = 0.02;

/// Measures what was asked for, and writes the JSON file after each repetition. A signal ends it, and with it every subject.
pub(crate) async fn run(options: cli::Run) -> Result<Run, BenchError> {
    let wait_for = |kind| signal(kind).map_err(BenchError::socket("wait for signals"));
    let (mut hung_up, mut interrupted, mut terminated) =
        (wait_for(SignalKind::hangup())?, wait_for(SignalKind::interrupt())?, wait_for(SignalKind::terminate())?);
    tokio::select! {
        run = measure(options) => run,
        _ = hung_up.recv() => Err(BenchError::Interrupted),
        _ = interrupted.recv() => Err(BenchError::Interrupted),
        _ = terminated.recv() => Err(BenchError::Interrupted),
    }
}

async fn measure(mut options: cli::Run) -> Result<Run, BenchError> {
    if options.smoke {
        options.connections = vec![10];
        options.sizes = vec![10];
        options.repetitions = 1;
        options.seconds = options.seconds.min(0.2);
    }
    if let Some(parent) = options.output.parent() {
        std::fs::create_dir_all(parent).map_err(BenchError::file("make", parent))?;
    }
    // Much measuring shall not end with a file that cannot be written.
    File::options()
        .append(true)
        .create(true)
        .open(&options.output)
        .map_err(BenchError::file("write", &options.output))?;
    let begun = Instant::now();
    let timestamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    raise_open_files();
    let program = match &options.relay {
        Some(program) => program.clone(),
        None => build()?,
    };
    let relay = Relay::new("relay", program.clone(), Setup::Plain)?;
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(relay)];
    let mut remarks = options.remark.clone();
    match Relay::direct(program.clone()) {
        Ok(direct) => subjects.push(Box::new(direct)),
        Err(error) => remarks.push(format!("{DIRECT} was left out: {error}.")),
    }
    if let Some(before) = &options.before {
        subjects.push(Box::new(Relay::new("relay-before", before.clone(), Setup::Plain)?));
    }
    if options.routes {
        subjects.push(Box::new(Relay::new("relay-routes", program.clone(), Setup::Routes)?));
    }
    for found in subject::peers(&options.peers.python()?, sandbox::DEFAULT_MAILBOX) {
        match found {
            Ok(peer) => subjects.push(peer),
            Err(missing) => {
                remarks.push(format!("{} was left out: {}. {}", missing.name, missing.why, missing.install));
            }
        }
    }
    if !options.subjects.is_empty() {
        for name in &options.subjects {
            if !subjects.iter().any(|subject| subject.description().name == *name) {
                return Err(BenchError::Impossible(format!("there is no subject {name:?}, or it is not installed")));
            }
        }
        subjects.retain(|subject| options.subjects.contains(&subject.description().name));
    }
    std::fs::create_dir_all(&options.directory).map_err(BenchError::file("make", &options.directory))?;
    let directory = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&options.directory)
        .map_err(BenchError::file("make a directory in", &options.directory))?;
    let path = directory.path().canonicalize().map_err(BenchError::file("find", directory.path()))?;
    subject::let_others_in(&path)?;
    let machine = machine::describe(&path);
    if machine::in_memory(&machine.file_system) {
        remarks.push(format!(
            "Queues were kept in memory ({}): nothing here says how fast a disk is.",
            machine.file_system
        ));
    }
    let mut bench = Bench::new(&path)?;
    for remark in remarks {
        bench.remark(remark);
    }
    bench.note(Key::new(Experiment::Program, "relay", Quantity::Size), megabytes(&program)?);
    let mut round = Round { bench, subjects, options };
    let mut result = Run {
        begun: timestamp,
        seconds: 0,
        command: command_line(),
        machine,
        subjects: round.subjects.iter().map(|subject| subject.description()).collect(),
        experiments: Experiment::ALL.to_vec(),
        figures: Vec::new(),
        remarks: Vec::new(),
    };
    for repetition in 0..round.options.repetitions {
        let (stolen, clock) = (process::stolen(), Instant::now());
        round.repetition(repetition).await;
        let share = process::stolen().saturating_sub(stolen).as_secs_f64()
            / (clock.elapsed().as_secs_f64() * f64::from(u32::try_from(result.machine.processors).unwrap_or(1)));
        if share > STOLEN {
            let percent = share * 100.0;
            round.bench.remark(format!(
                "Repetition {}: {percent:.0} % of the CPU was taken by other machines.",
                repetition + 1
            ));
        }
        result.figures = round.bench.figures();
        result.remarks = round.bench.remarks();
        result.seconds = begun.elapsed().as_secs();
        save(&result, &round.options.output)?;
    }
    Ok(result)
}

type Trial<'a> = Pin<Box<dyn Future<Output = Result<(), BenchError>> + 'a>>;

struct Round {
    bench: Bench,
    subjects: Vec<Box<dyn Subject>>,
    options: cli::Run,
}

impl Round {
    fn wants(&self, section: Section) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&section)
    }

    /// Everything once, the subjects one after the other in each experiment; each time another one is first.
    async fn repetition(&mut self, repetition: u32) {
        let of = self.options.repetitions;
        let duration = Duration::from_secs_f64(self.options.seconds);
        if self.wants(Section::Limits) {
            say(&format!("[{}/{of}] the machine", repetition + 1));
            if let Err(error) = experiment::limits(&mut self.bench, duration).await {
                self.bench.remark(format!("the machine's limits: {error}"));
            }
        }
        let mut turn = repetition as usize;
        if self.wants(Section::Matrix) {
            for cell in self.cells(duration) {
                let sessions = if cell.sessions == Sessions::Kept { "kept open" } else { "one message each" };
                let what = format!("{} connections, {} KiB, {sessions}", cell.connections, cell.octets / KIB);
                let fits = |subject: &dyn Subject| {
                    let usual = cell.octets == USUAL_SIZE * KIB && cell.sessions == Sessions::Kept;
                    cell.connections <= if usual { subject.most_clients() } else { subject.most_clients_elsewhere() }
                };
                self.each(&what, repetition, turn, fits, |bench, subject| {
                    Box::pin(experiment::cell(bench, subject, cell))
                })
                .await;
                turn += 1;
            }
        }
        if self.wants(Section::Drain) {
            for kib in self.options.sizes.clone() {
                let messages = if self.options.smoke { 200 } else { DRAIN_MESSAGES };
                let octets = kib as usize * KIB;
                let what = format!("drain, {kib} KiB");
                self.each(
                    &what,
                    repetition,
                    turn,
                    |subject| subject.has_queue(),
                    |bench, subject| Box::pin(experiment::drain(bench, subject, octets, messages)),
                )
                .await;
                turn += 1;
            }
        }
        if self.wants(Section::Distance) {
            for connections in [3, 20] {
                let what = format!("30 ms away, {connections} connections upstream");
                self.each(
                    &what,
                    repetition,
                    turn,
                    |subject| subject.has_queue(),
                    |bench, subject| Box::pin(experiment::distance(bench, subject, connections)),
                )
                .await;
                turn += 1;
            }
        }
        if self.wants(Section::Latency) {
            self.latency(repetition, turn).await;
            turn += 1;
        }
        if self.wants(Section::Large) {
            for octets in self.smoked(&[25 * MB, 100 * MB]) {
                let what = format!("one message of {} MB", octets / MB);
                self.each(
                    &what,
                    repetition,
                    turn,
                    |_| true,
                    |bench, subject| Box::pin(experiment::large(bench, subject, octets)),
                )
                .await;
                turn += 1;
            }
        }
        if self.wants(Section::Start) {
            self.each(
                "start, empty",
                repetition,
                turn,
                |_| true,
                |bench, subject| Box::pin(experiment::start(bench, subject, 0, 1)),
            )
            .await;
        }
        if repetition == 0 {
            self.once().await;
        }
    }

    /// What is added to upstream's own latency, near and far.
    async fn latency(&mut self, repetition: u32, first: usize) {
        let upstreams = [(false, "latency", NEAR_MESSAGES), (true, "latency, upstream 30 ms away", FAR_MESSAGES)];
        for (far, what, messages) in upstreams {
            let messages = if self.options.smoke { messages / 5 } else { messages };
            self.each(
                what,
                repetition,
                first,
                |subject| !subject.has_queue(),
                |bench, subject| Box::pin(experiment::latency(bench, subject, far, messages)),
            )
            .await;
        }
    }

    /// What takes long and differs little.
    async fn once(&mut self) {
        if self.wants(Section::Idle) {
            let sessions = self.smoked(&[1_000, 10_000]);
            self.each(
                "idle",
                0,
                0,
                |_| true,
                |bench, subject| {
                    let sessions = sessions.clone();
                    Box::pin(async move { experiment::idle(bench, subject, &sessions).await })
                },
            )
            .await;
        }
        if self.wants(Section::Calls) {
            for connections in self.smoked(&CALLS_CONNECTIONS) {
                let what = format!("system calls, {connections} connections");
                self.each(
                    &what,
                    0,
                    0,
                    |subject| subject.has_queue(),
                    |bench, subject| Box::pin(experiment::calls(bench, subject, connections)),
                )
                .await;
            }
        }
        if self.wants(Section::Start) {
            let queued = if self.options.smoke { 1_000 } else { 100_000 };
            // Filling the queue of a subject that takes some hundred messages a second would take longer than all else.
            let ours = |subject: &dyn Subject| subject.has_queue() && subject.description().name.starts_with("relay");
            self.each(&format!("start, {queued} queued"), 0, 0, ours, |bench, subject| {
                Box::pin(experiment::start(bench, subject, queued, QUEUED_STARTS))
            })
            .await;
        }
    }

    /// The first alone where only a sign of life is wanted.
    fn smoked(&self, values: &[usize]) -> Vec<usize> {
        values.iter().copied().take(if self.options.smoke { 1 } else { usize::MAX }).collect()
    }

    fn cells(&self, duration: Duration) -> Vec<Cell> {
        let mut cells = Vec::new();
        for sessions in self.options.sessions.clone() {
            for kib in self.options.sizes.clone() {
                if sessions == Sessions::Single && kib as usize != USUAL_SIZE && self.options.sizes.len() > 1 {
                    continue;
                }
                for connections in self.options.connections.clone() {
                    cells.push(Cell {
                        connections: connections as usize,
                        octets: kib as usize * KIB,
                        sessions,
                        duration,
                    });
                }
            }
        }
        cells
    }

    /// One experiment with all subjects that it is for. One that fails is remarked upon; the others go on.
    async fn each(
        &mut self,
        what: &str,
        repetition: u32,
        first: usize,
        fits: impl Fn(&dyn Subject) -> bool,
        mut trial: impl for<'a> FnMut(&'a mut Bench, &'a dyn Subject) -> Trial<'a>,
    ) {
        let count = self.subjects.len();
        for turn in 0..count {
            let subject = self.subjects[(first + turn) % count].as_ref();
            if !fits(subject) {
                continue;
            }
            let name = subject.description().name;
            let begun = Instant::now();
            if let Err(error) = trial(&mut self.bench, subject).await {
                self.bench.remark(format!("{name}, {what}: {error}"));
            }
            let of = self.options.repetitions;
            say(&format!("[{}/{of}] {what}: {name} ({:.1} s)", repetition + 1, begun.elapsed().as_secs_f64()));
        }
    }
}

/// Builds the release relay of this tree and gives its path.
fn build() -> Result<PathBuf, BenchError> {
    say("building the release relay");
    let program = "cargo build";
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "relay", "--message-format", "json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stderr(Stdio::inherit())
        .output()
        .map_err(BenchError::program(program))?;
    if !output.status.success() {
        return Err(BenchError::Program { program: program.to_owned(), why: output.status.to_string() });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = PathBuf::from(message.get("executable")?.as_str()?);
        path.ends_with("xoauth2-relay").then_some(path)
    });
    executables.next_back().ok_or_else(|| BenchError::Impossible("cargo built no xoauth2-relay".to_owned()))
}

/// Idle sessions need a descriptor each, here and in every subject, which inherits the limit.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, sessions that find no descriptor say so.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The command as a reader would repeat it; of a path only its end, which says nothing of this machine.
fn command_line() -> String {
    let end = |word: String| match Path::new(&word).file_name() {
        Some(name) if word.starts_with('/') => name.to_string_lossy().into_owned(),
        _ => word,
    };
    let arguments: Vec<String> = std::env::args().skip(1).map(end).collect();
    format!("cargo run --release -p bench -- {}", arguments.join(" "))
}

fn megabytes(program: &Path) -> Result<f64, BenchError> {
    let length = std::fs::metadata(program).map_err(BenchError::file("look at", program))?.len();
    #[allow(clippy::cast_precision_loss, reason = "programs are small")]
    Ok(length as f64 / f64::from(1024 * 1024))
}

fn save(run: &Run, file: &Path) -> Result<(), BenchError> {
    let text = serde_json::to_string_pretty(run)
        .map_err(|error| BenchError::Impossible(format!("a run that is no JSON: {error}")))?;
    std::fs::write(file, text + "\n").map_err(BenchError::file("write", file))
}
