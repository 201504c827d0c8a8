//! The `check` command, and how mistakes of the configuration are told.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's output")]

use serde_json::json;

use crate::cli::Check;
use crate::config::{self, Configuration, Mistakes};
use crate::exit::Exit;

/// Prints the configuration in effect, or every mistake.
pub(crate) fn check(options: &Check) -> Exit {
    if options.reference {
        print!("{}", config::reference());
        return Exit::Success;
    }
    if options.example {
        print!("{}", config::example());
        return Exit::Success;
    }
    match crate::load(&options.configured.config) {
        Ok(configuration) => {
            print(&configuration, options.json);
            Exit::Success
        }
        Err(mistakes) if options.json => {
            println!("{:#}", json!({ "mistakes": mistakes.json() }));
            Exit::Usage
        }
        Err(mistakes) => {
            tell(&mistakes);
            Exit::Usage
        }
    }
}

fn print(configuration: &Configuration, as_json: bool) {
    if as_json {
        println!("{:#}", json!({ "configuration": configuration.json(), "doubts": configuration.doubts() }));
    } else {
        let doubts = configuration.doubts();
        let verdict = match doubts.len() {
            0 => "right".to_owned(),
            1 => "right, with one warning at the end".to_owned(),
            count => format!("right, with {count} warnings at the end"),
        };
        println!("# The configuration is {verdict}. In effect, with where each value comes from:\n{configuration}");
        for doubt in doubts {
            eprintln!("warning: {doubt}");
        }
    }
}

/// Tells every mistake.
pub(crate) fn tell(mistakes: &Mistakes) {
    eprintln!("{mistakes}");
}

/// Tells what went wrong where there is no log yet.
pub(crate) fn complain(text: &str) {
    eprintln!("xoauth2-relay: {text}");
}
