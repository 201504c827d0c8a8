//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::error::BenchError;
use crate::figure::Sessions;

/// Measures xoauth2-relay beside its peers on this machine, all on loopback.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "Queues are kept on the disk of --directory, and what it acknowledges is part of the figures. \
Build with --release; leave the machine alone while it runs. With all peers a repetition takes some five minutes, the \
experiments that are done once another five; --smoke is through in three. See docs/performance.md.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measures; prints tables and writes a JSON file.
    Run(Box<Run>),
    /// Says who can be measured: the relay in its setups, and which peers are installed and how to install the others.
    Subjects(Peers),
    /// Prints the tables of a run's JSON file.
    Show {
        /// The file.
        file: PathBuf,
    },
    /// Compares two runs, figure by figure: which agree within the noise they state.
    Compare {
        /// The earlier run.
        before: PathBuf,
        /// The later run.
        after: PathBuf,
    },
    /// Makes docs/performance.md and its charts from a run's JSON file.
    Page {
        /// The file.
        file: PathBuf,
        /// The directory of documents.
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
        /// Writes nothing, and fails when the documents are not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// The instant upstream, driven by `run` over standard input.
    #[command(hide = true)]
    Upstream {
        /// Where its certificate authority goes.
        directory: PathBuf,
    },
}

/// Where peers are looked for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Peers {
    /// The Python that has emailproxy and aiosmtpd.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
}

impl Peers {
    /// The Python, wherever a subject runs: a path, unlike a name, is taken from here.
    pub(crate) fn python(&self) -> Result<PathBuf, BenchError> {
        if self.python.components().count() == 1 {
            return Ok(self.python.clone());
        }
        std::path::absolute(&self.python).map_err(BenchError::file("find", &self.python))
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Run {
    /// Measures only these.
    #[arg(long, value_name = "SECTION", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Section>,
    /// Measures only these subjects, by name; `bench subjects` lists them.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) subjects: Vec<String>,
    /// Clients at a time.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1,10,100,1000",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: Vec<u32>,
    /// Message sizes in KiB.
    #[arg(long, value_name = "KIB", value_delimiter = ',', default_value = "1,10,100",
        value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub(crate) sizes: Vec<u32>,
    /// How clients use their connections.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "kept,single")]
    pub(crate) sessions: Vec<Sessions>,
    /// How often everything is measured.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repetitions: u32,
    /// How long messages are handed in, for each figure of the matrix.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// The least that shows all of it works: one client count, one size, short loads, once.
    #[arg(long)]
    pub(crate) smoke: bool,
    /// The relay to measure; else the release build of this tree, which is built first.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) relay: Option<PathBuf>,
    /// Another build of the relay, measured beside it as "relay-before".
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) before: Option<PathBuf>,
    /// The relay with 1,000 routes and 10,000 map entries, measured beside it as "relay-routes".
    #[arg(long)]
    pub(crate) routes: bool,
    #[command(flatten)]
    pub(crate) peers: Peers,
    /// What a reader must know of this machine or its peers; goes into the run's remarks.
    #[arg(long, value_name = "TEXT")]
    pub(crate) remark: Vec<String>,
    /// Where queues are kept while it runs.
    #[arg(long, default_value = "target")]
    pub(crate) directory: PathBuf,
    /// The JSON file that it writes.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    pub(crate) output: PathBuf,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Acceptance with nothing sent on, and acceptance and sending together, at all client counts and sizes.
    Matrix,
    /// A full queue that is sent on.
    Drain,
    /// System calls and syncs for each message.
    Calls,
    /// Memory and wakes without work, with 1,000 and 10,000 idle sessions.
    Idle,
    /// One message of 25 MB, one of 100 MB.
    Large,
    /// From the start to the first greeting, with 0 and 100,000 messages queued.
    Start,
    /// Drain to an upstream 30 ms away.
    Distance,
    /// What a subject without a queue adds to the latency of upstream itself, which is near or 30 ms away.
    Latency,
    /// What the machine itself can do.
    Limits,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 60".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
