//! xoauth2-relay: the binary. It reads the command line, runs one command and maps how that ended to an exit code;
//! nothing else exits or prints on its own.

#![allow(unreachable_pub, reason = "a binary has no public interface; `pub` marks what leaves a module")]

mod check;
mod cli;
mod clock_watch;
mod config;
mod container;
mod control;
mod crew;
mod current;
mod daemon;
mod delivery;
mod direct;
mod exit;
mod explain;
mod following;
mod hash_password;
mod hostname;
mod http;
mod intake;
mod lanes;
mod listener_certificate;
mod listeners;
mod logging;
mod login;
mod output;
mod process;
mod queue;
mod recent;
mod refused_senders;
mod registration;
mod reload;
mod reload_command;
mod repeats;
mod reporting;
mod requests;
mod retry;
mod routing;
mod rules;
mod run;
mod sandbox_command;
mod sandbox_orders;
mod secret;
mod self_signed;
mod sending;
mod sign_ins;
#[cfg(test)]
mod simulation;
mod status;
mod store;
mod systemd_sockets;
mod tls;
mod tokens;
mod unknown_mailboxes;
mod users;
mod wanted_lanes;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, QueueAction};
use crate::config::{Configuration, Mistakes, Places};
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
        Command::Run(options) => {
            // Before the runtime starts the first thread.
            let handed = SystemdSockets::from_environment();
            in_runtime(run::run(options.config, handed))
        }
        Command::Check(options) => check::check(&options),
        Command::Status(options) => {
            let file = &options.configured.config;
            if options.check
                && options.socket.is_none()
                && let Ok(Places { socket: None, livez: Some(livez), .. }) = config::places(file, environment())
            {
                // A health check has an answer all the same.
                return status::check_livez(livez).into();
            }
            at_daemon(file, options.socket.as_deref(), |socket, directory| {
                in_runtime(status::status(socket, directory, &options))
            })
        }
        Command::Reload(options) => at_daemon(&options.configured.config, options.socket.as_deref(), |socket, _| {
            in_runtime(reload_command::reload(socket, &options))
        }),
        Command::Explain(options) => explain::explain(&options),
        Command::Login(options) => configured(&options.configured.config, |configuration| {
            in_runtime(login::login(&configuration.settings, &options))
        }),
        Command::Queue(options) => match &options.action {
            QueueAction::Reroute(options) => {
                at_daemon(&options.configured.config, options.socket.as_deref(), |socket, _| {
                    in_runtime(queue::reroute(socket, options))
                })
            }
        },
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

/// Does `command` with the control socket of the running daemon, the one that is named or the configuration's, and with the state
/// directory where that is known. What else is wrong in the file is no matter of the daemon that runs.
fn at_daemon(file: &Path, named: Option<&Path>, command: impl FnOnce(&Path, Option<&Path>) -> Exit) -> Exit {
    if let Some(socket) = named {
        return command(socket, None);
    }
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
    let Some(socket) = &places.socket else {
        check::complain(
            "this relay runs without a control socket, since it has no state directory: set control.socket to a path, or start it \
             with $RUNTIME_DIRECTORY; or name a running daemon's socket with --socket",
        );
        return Exit::Unavailable;
    };
    command(socket, places.directory.as_deref())
}

fn load(file: &Path) -> Result<Configuration, Mistakes> {
    config::load(file, environment())
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // A variable of ours that is not UTF-8 cannot be right; others are no concern of ours.
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
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
