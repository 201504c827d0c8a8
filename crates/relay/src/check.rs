//! The `check` command, and how mistakes of the configuration are told.

use serde_json::json;

use crate::cli::Check;
use crate::config::{self, Configuration, Mistakes, Settings};
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
        let settings = &configuration.settings;
        return output::print(&format!(
            "{:#}\n",
            json!({
                "configuration": configuration.json(),
                "state_directory": settings.state_directory(),
                "control_socket": settings.control_socket(),
                "doubts": doubts,
            })
        ));
    }
    let verdict = match doubts.len() {
        0 => "right".to_owned(),
        1 => "right, with one warning at the end".to_owned(),
        count => format!("right, with {count} warnings at the end"),
    };
    let head = format!("# The configuration is {verdict}. In effect, with where each value comes from:");
    let absent = absent(&configuration.settings);
    let exit = output::print(&format!("{head}\n{absent}{configuration}"));
    for doubt in doubts {
        output::complain(&format!("warning: {doubt}"));
    }
    exit
}

/// What this relay runs without, in comments.
fn absent(settings: &Settings) -> String {
    let mut lines = String::new();
    if settings.state_directory().is_none() {
        lines += "# No state directory: every listener is direct and no user signs in, so nothing is stored.\n";
    }
    if settings.control_socket().is_none() {
        lines += "# No control socket: status and reload cannot reach this relay; control.socket gives it one.\n";
    }
    lines
}

/// Tells every mistake.
pub(crate) fn tell(mistakes: &Mistakes) {
    output::complain(&mistakes.to_string());
}

/// Tells what went wrong where there is no log yet.
pub(crate) fn complain(text: &str) {
    output::complain(&format!("xoauth2-relay: {text}"));
}
