//! Measures the relay beside its peers on this machine: `cargo run --release -p bench -- --help`.
//!
//! It drives the relay as clients and Exchange would, over sockets alone, and shares no code with it; only the token
//! endpoint is the sandbox's. Tests never assert what it measures.

mod bench;
mod cli;
mod error;
mod experiment;
mod figure;
mod load;
mod machine;
mod process;
mod progress;
mod report;
mod run;
mod subject;
mod upstream;

use std::path::Path;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::error::BenchError;
use crate::figure::Run;
use crate::progress::say;

fn main() -> std::process::ExitCode {
    match carry_out(Cli::parse().command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench: {error}"));
            std::process::ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> Result<(), BenchError> {
    match command {
        Command::Upstream { directory } => runtime()?.block_on(upstream::serve(&directory)),
        Command::Run(options) => {
            let run = runtime()?.block_on(run::run(*options))?;
            print(&report::text(&run));
            Ok(())
        }
        Command::Subjects(peers) => {
            for (name, what) in subject::SETUPS {
                print(&format!("{name}: {what}"));
            }
            for found in subject::peers(&peers.python()?, sandbox::DEFAULT_MAILBOX) {
                print(&match found {
                    Ok(peer) => format!("{}: {}", peer.description().name, peer.description().product),
                    Err(missing) => format!("{}: missing, {}\n    {}", missing.name, missing.why, missing.install),
                });
            }
            Ok(())
        }
        Command::Show { file } => {
            print(&report::text(&read(&file)?));
            Ok(())
        }
        Command::Compare { before, after } => {
            print(&report::comparison(&read(&before)?, &read(&after)?).to_string());
            Ok(())
        }
        Command::Page { file, docs, check } => page(&read(&file)?, &docs, check),
    }
}

/// One thread: the load must not take more of the machine than it needs.
fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::socket("start the runtime"))
}

#[allow(clippy::print_stdout, reason = "the one place that prints results")]
fn print(text: &str) {
    println!("{text}");
}

fn read(file: &Path) -> Result<Run, BenchError> {
    let text = std::fs::read_to_string(file).map_err(BenchError::file("read", file))?;
    serde_json::from_str(&text)
        .map_err(|error| BenchError::Impossible(format!("{} is no run: {error}", file.display())))
}

/// Writes the page and its charts, or only compares them with what is there.
fn page(run: &Run, docs: &Path, check: bool) -> Result<(), BenchError> {
    let mut files = vec![(docs.join("performance.md"), report::page(run))];
    for (name, chart) in report::charts(run)? {
        files.push((docs.join("performance").join(name), chart));
    }
    for (path, text) in files {
        if !check {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).map_err(BenchError::file("make", directory))?;
            }
            std::fs::write(&path, text).map_err(BenchError::file("write", &path))?;
        } else if std::fs::read_to_string(&path).map_err(BenchError::file("read", &path))? != text {
            return Err(BenchError::Impossible(format!("{} is not what its run gives: make it anew", path.display())));
        }
    }
    Ok(())
}
