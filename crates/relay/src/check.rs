//! The `check` command, and how mistakes of the configuration are told.

use serde_json::json;

use crate::cli::Check;
use crate::config::{self, Configuration, Mistakes};
use crate::exit::Exit;
use crate::output;

/// Prints the configuration in effect, or every mistake.
pub(crate) fn check(options: &Check) -> Exit {
    if options.reference {
        return output::print(&config::reference());
    }
    if options.example {
        return output::print(&config::example());
    }
    match crate::load(&options.configured.config) {
        Ok(configuration) => print(&configuration, options.json),
        Err(mistakes) if options.json => {
            output::print(&format!("{:#}\n", json!({ "mistakes": mistakes.json() })));
            Exit::Usage
        }
        Err(mistakes) => {
            tell(&mistakes);
            Exit::Usage
        }
    }
}

fn print(configuration: &Configuration, as_json: bool) -> Exit {
    let doubts = configuration.doubts();
    if as_json {
        return output::print(&format!("{:#}\n", json!({ "configuration": configuration.json(), "doubts": doubts })));
    }
    let verdict = match doubts.len() {
        0 => "right".to_owned(),
        1 => "right, with one warning at the end".to_owned(),
        count => format!("right, with {count} warnings at the end"),
    };
    let head = format!("# The configuration is {verdict}. In effect, with where each value comes from:");
    let exit = output::print(&format!("{head}\n{configuration}"));
    for doubt in doubts {
        output::complain(&format!("warning: {doubt}"));
    }
    exit
}

/// Tells every mistake.
pub(crate) fn tell(mistakes: &Mistakes) {
    output::complain(&mistakes.to_string());
}

/// Tells what went wrong where there is no log yet.
pub(crate) fn complain(text: &str) {
    output::complain(&format!("xoauth2-relay: {text}"));
}
