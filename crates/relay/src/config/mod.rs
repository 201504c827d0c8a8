//! The configuration: one TOML file under an environment layer, read against one schema, every mistake in one run.
//!
//! The road: `layers` gives each value its origin, the `config` crate lays environment over file, `table` reads the
//! merged values and gathers mistakes, `settings` holds what came out. Nothing beyond this module reads either source.

mod layers;
mod mistake;
mod schema;
mod settings;
mod table;
mod value;

use std::fs;
use std::path::Path;

pub use mistake::{Mistake, Mistakes};
pub use settings::{Listener, Log, LogFormat, Mailbox, SecretReference, Settings, Tenant};
pub use value::Network;

use layers::{Environment, File};
use table::Table;

/// Reads the file and the environment and gives the settings, or every mistake found.
pub fn load(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, Mistakes> {
    let name = file.display().to_string();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => "name another file with --config",
                std::io::ErrorKind::PermissionDenied => "let the user that runs this read it",
                std::io::ErrorKind::InvalidData => "save it as UTF-8",
                _ => "is it a file?",
            };
            let text = format!("cannot be read: {error}; {remedy}");
            return Err(Mistakes::from(vec![Mistake::in_file(&name, text)]));
        }
    };
    read(&name, &text, environment)
}

/// The same from a text that stands in for the file called `name`.
pub fn read(name: &str, text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, Mistakes> {
    let mistakes = Mistakes::default();
    let mut file = File::parse(name, text, &mistakes);
    let environment = Environment::collect(environment);
    for path in environment.secret_references() {
        file.remove(&path);
    }
    let sections = file.sections().clone();
    let merged = config::Config::builder().add_source(file).add_source(environment).build();
    let settings = match merged {
        Ok(merged) => Settings::read(Table::root(merged.cache, &sections, &mistakes)),
        Err(error) => {
            mistakes.add(Mistake::in_file(name, error.to_string()));
            None
        }
    };
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => Err(mistakes),
    }
}

#[cfg(test)]
mod tests;
