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
mod run;
mod subject;
mod upstream;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::error::BenchError;
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::socket("start the runtime"))?;
    match command {
        Command::Upstream { directory } => runtime.block_on(upstream::serve(&directory)),
        Command::Run(options) => {
            let run = runtime.block_on(run::run(*options))?;
            let _ = run;
            Ok(())
        }
        _ => Ok(()),
    }
}
