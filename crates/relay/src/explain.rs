//! The `explain` command: what would become of a message, and why, by the very functions that sessions, intake and delivery
//! call. It asks no daemon, sends nothing and reads no secret's value.

mod diff;
mod explanation;
mod matching;
mod question;
mod rehearsal;
mod screen;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::Path;

use serde_json::json;

use self::explanation::Explanation;
use self::question::{Message, Question};
use crate::check;
use crate::cli;
use crate::config::Settings;
use crate::exit::Exit;
use crate::output;

/// Explains one message; 77 if it would be refused.
pub(crate) fn explain(options: &cli::Explain) -> Exit {
    let configuration = match crate::load(&options.configured.config) {
        Ok(configuration) => configuration,
        Err(mistakes) if options.json => {
            output::print(&format!("{:#}\n", json!({ "mistakes": mistakes.json() })));
            return Exit::Usage;
        }
        Err(mistakes) => {
            check::tell(&mistakes);
            return Exit::Usage;
        }
    };
    let message = match options.message.as_deref().map(read).transpose() {
        Ok(message) => message,
        Err(error) => {
            let file = options.message.as_deref().unwrap_or(Path::new("-")).display();
            check::complain(&format!("the message {file} cannot be read: {error}"));
            return Exit::Unavailable;
        }
    };
    match answer(&configuration.settings, options, message) {
        Ok(explanation) => print(&explanation, options.json),
        Err(error) => {
            check::complain(&error.to_string());
            Exit::Usage
        }
    }
}

fn read(file: &Path) -> io::Result<Message> {
    if file == Path::new("-") { Message::read(io::stdin().lock()) } else { Message::read(File::open(file)?) }
}

fn answer(
    settings: &Settings,
    options: &cli::Explain,
    message: Option<Message>,
) -> Result<Explanation, question::QuestionError> {
    rehearsal::rehearse(settings, &Question::new(options, message)?)
}

fn print(explanation: &Explanation, as_json: bool) -> Exit {
    let text = if as_json { json(explanation) } else { screen::screen(explanation) };
    match output::print(&text) {
        Exit::Success if !explanation.taken => Exit::Refused,
        exit => exit,
    }
}

fn json(explanation: &Explanation) -> String {
    let json = serde_json::to_string_pretty(explanation).expect("an explanation always becomes JSON");
    format!("{json}\n")
}
