//! xoauth2-relay: the binary. It reads the command line, runs one command and maps how that ended to an exit code;
//! nothing else exits or prints on its own.

#![allow(unreachable_pub, reason = "a binary has no public interface; `pub` marks what leaves a module")]

mod check;
mod cli;
mod clock_watch;
mod config;
mod container;
mod control;
mod daemon;
mod delivery;
mod exit;
mod hash_password;
mod hostname;
mod http;
mod intake;
mod lanes;
mod listener_certificate;
mod logging;
mod login;
mod output;
mod process;
mod recent;
mod refused_senders;
mod registration;
mod repeats;
mod reporting;
mod requests;
mod retry;
mod routing;
mod run;
mod sandbox_command;
mod sandbox_orders;
mod secret;
mod self_signed;
mod sign_ins;
#[cfg(test)]
mod simulation;
mod status;
mod systemd_sockets;
mod tls;
mod tokens;
mod users;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::config::{Configuration, Mistakes};
use crate::exit::Exit;
use crate::systemd_sockets::SystemdSockets;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with nothing wrong.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            let _ = error.print();
            return exit.into();
        }
    };
    process::prepare();
    match cli.command {
        Command::Run(options) => configured(&options.config, start),
        Command::Check(options) => check::check(&options),
        Command::Status(options) => match &options.socket {
            Some(socket) => in_runtime(status::status(socket, None, &options)),
            None => ask_status(&options),
        },
        Command::Login(options) => configured(&options.configured.config, |configuration| {
            in_runtime(login::login(&configuration.settings, &options))
        }),
        Command::HashPassword => hash_password::hash_password(),
        Command::SelfSigned(options) => self_signed::self_signed(&options),
        Command::Sandbox(options) => in_runtime(sandbox_command::sandbox(&options)),
    }
    .into()
}

/// Reads the configuration, then does `command`; or tells every mistake.
fn configured(file: &Path, command: impl FnOnce(&Configuration) -> Exit) -> Exit {
    match load(file) {
        Ok(configuration) => command(&configuration),
        Err(mistakes) => {
            check::tell(&mistakes);
            Exit::Usage
        }
    }
}

/// Asks the daemon that the configuration tells of. What else is wrong in the file is no matter of the daemon that runs.
fn ask_status(options: &cli::Status) -> Exit {
    let file = &options.configured.config;
    let places = match config::places(file, environment()) {
        Ok(places) => places,
        Err(mistakes) => {
            check::tell(&mistakes);
            check::complain("or name a running daemon's socket with --socket");
            return Exit::Usage;
        }
    };
    if places.is_wrong {
        let file = file.display();
        check::complain(&format!(
            "{file} is wrong now (see xoauth2-relay check); asking the daemon that runs all the same"
        ));
    }
    in_runtime(status::status(&places.socket, Some(&places.directory), options))
}

fn load(file: &Path) -> Result<Configuration, Mistakes> {
    config::load(file, environment())
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // A variable of ours that is not UTF-8 cannot be right; others are no concern of ours.
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

fn start(configuration: &Configuration) -> Exit {
    // Before logging starts the first thread.
    let handed = SystemdSockets::from_environment();
    let settings = &configuration.settings;
    let logging = logging::start(&settings.log);
    in_runtime(run::run(settings, logging.recent.clone(), handed))
}

fn in_runtime(command: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(command);
            // Nothing is waited for that a stop has not waited for already.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            check::complain(&format!("cannot start threads: {error}"));
            Exit::Internal
        }
    }
}
