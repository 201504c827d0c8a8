//! A subject that runs: waits for its first greeting, and ends it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Setting, Subject};
use crate::error::BenchError;
use crate::load::greeted;
use crate::process::{self, Tree};

/// A subject that greets its clients; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// From before its start to its first greeting.
    pub(crate) listening: Duration,
    ended: bool,
}

/// How long a start and an end may take.
const START: Duration = Duration::from_mins(1);
const END: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_micros(250);

impl Running {
    /// Starts a subject and waits until it greets.
    pub(crate) async fn start(subject: &dyn Subject, setting: &Setting<'_>) -> Result<Self, BenchError> {
        let name = subject.description().name;
        let spawned = subject.spawn(setting)?;
        let begun = spawned.begun;
        let mut running =
            Self { child: spawned.child, address: spawned.address, listening: Duration::ZERO, ended: false };
        loop {
            // Until it listens, connections are refused, or turned away with 421 while its queue is opened.
            let greeting = tokio::time::timeout(START, greeted(running.address)).await;
            if greeting.is_ok_and(|greeting| greeting.is_ok()) {
                running.listening = begun.elapsed();
                return Ok(running);
            }
            if let Ok(Some(status)) = running.child.try_wait() {
                running.ended = true;
                let said = last_words(setting.directory);
                let why = format!("ended with {status} before it listened; its last words: {said:?}");
                return Err(BenchError::Program { program: name, why });
            }
            if begun.elapsed() > START {
                return Err(BenchError::Late { what: format!("the start of {name}"), seconds: START.as_secs() });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The process that was started.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its processes.
    pub(crate) fn tree(&self) -> Tree {
        Tree::of(self.child.id())
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), BenchError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        let members = self.tree().members();
        signal(self.child.id(), Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < END {
            let ended = self.child.try_wait().map_err(BenchError::program("a subject"))?;
            if ended.is_some() && members.iter().all(|id| !process::alive(*id)) {
                return Ok(());
            }
            std::thread::sleep(LOOK * 4);
        }
        for id in members {
            signal(id, Signal::KILL);
        }
        // It was killed; there is nothing more to wait for than the kernel.
        let _status = self.child.wait();
        Err(BenchError::Late { what: "the end of a subject".to_owned(), seconds: END.as_secs() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error was on its way already when a running subject is dropped.
        let _late = self.end();
    }
}

/// The last line of each log below a subject's directory, which goes with the experiment.
fn last_words(directory: &Path) -> Vec<String> {
    let inside = [directory.to_path_buf(), directory.join("log")];
    let files = inside.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let logs =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let texts = logs.filter_map(|path| std::fs::read_to_string(path).ok());
    texts.filter_map(|text| text.lines().last().map(str::to_owned)).collect()
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _gone = kill_process(pid, signal);
    }
}
