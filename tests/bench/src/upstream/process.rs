//! The benchmark's end of the upstream: starts the process, gives orders and reads answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::ledger::Account;
use super::order::{Answer, Doors, Order};
use crate::error::BenchError;

/// A running upstream; ends when dropped.
#[derive(Debug)]
pub(crate) struct UpstreamProcess {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    doors: Doors,
    epoch: u32,
}

impl UpstreamProcess {
    /// Starts this program anew as the upstream, with its files in `directory`.
    pub(crate) fn start(directory: &Path) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::program("bench"))?;
        let mut child = Command::new(program)
            .arg("upstream")
            .arg(directory)
            // A signal to us from the terminal is not for it: it ends when we do.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::program("bench upstream"))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Impossible("the upstream has no pipes".to_owned()));
        };
        let mut answers = BufReader::new(answers);
        match read(&mut answers)? {
            Answer::Open(doors) => Ok(Self { child, orders, answers, doors, epoch: 0 }),
            other => Err(unexpected(&other)),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Begins a new epoch: forgets all messages; gives its number, for the load.
    pub(crate) fn begin(&mut self, body: usize, dot: u64) -> Result<u32, BenchError> {
        self.epoch += 1;
        match self.order(&Order::Begin { epoch: self.epoch, body, dot })? {
            Answer::Begun => Ok(self.epoch),
            other => Err(unexpected(&other)),
        }
    }

    /// What has come, once so many messages have, or so much time has passed.
    pub(crate) fn wait(&mut self, messages: usize, bound: Duration) -> Result<Account, BenchError> {
        match self.order(&Order::Wait { messages, bound })? {
            Answer::Account(account) => Ok(account),
            other => Err(unexpected(&other)),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Answer, BenchError> {
        let mut text = serde_json::to_string(order)
            .map_err(|error| BenchError::Impossible(format!("an order that is no JSON: {error}")))?;
        text.push('\n');
        self.orders.write_all(text.as_bytes()).map_err(BenchError::socket("give an order to the upstream"))?;
        read(&mut self.answers)
    }
}

impl Drop for UpstreamProcess {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn read(answers: &mut BufReader<ChildStdout>) -> Result<Answer, BenchError> {
    let mut line = String::new();
    answers.read_line(&mut line).map_err(BenchError::socket("read the upstream's answer"))?;
    serde_json::from_str(&line)
        .map_err(|error| BenchError::Impossible(format!("the upstream said {line:?}, which is no answer: {error}")))
}

fn unexpected(answer: &Answer) -> BenchError {
    BenchError::Impossible(format!("the upstream gave an answer to another order: {answer:?}"))
}
