//! The `check` command, and how mistakes of the configuration are told.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's output")]

use crate::config::{Mistakes, Settings};
use crate::exit::Exit;

/// Prints the configuration in effect.
pub(crate) fn check(settings: &Settings) -> Exit {
    println!("# The configuration is right. In effect, defaults included:\n{settings}");
    Exit::Success
}

/// Tells every mistake.
pub(crate) fn tell(mistakes: &Mistakes) {
    eprintln!("{mistakes}");
}

/// Tells what went wrong where there is no log yet.
pub(crate) fn complain(text: &str) {
    eprintln!("xoauth2-relay: {text}");
}
