//! The configuration: one TOML file under an environment layer, read against one schema, every mistake in one run.
//!
//! The road: `layers` gives each value its origin, the `config` crate lays environment over file, `reading` takes the
//! merged values section by section as `settings` declares them, `relations` and `files` check what must hold between
//! them, `effective` prints what came out. Nothing beyond this module reads either source.

mod address;
mod effective;
mod files;
mod identity;
mod layers;
mod mistake;
mod network;
mod place;
mod proxy;
mod reading;
mod reference;
mod relations;
#[cfg(test)]
mod sample;
mod schema;
mod secret_reference;
mod settings;
mod value;

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use address::{AddressMap, AddressPattern, MailboxAddress, Place};
pub(crate) use files::exposure;
pub use identity::Date;
pub use mistake::{Mistake, Mistakes};
pub use network::Network;
pub use place::{FilePath, ListenAddress, Name};
pub use proxy::ProxyUrl;
pub use reference::{example, reference};
pub(crate) use relations::overlap;
pub use secret_reference::SecretReference;
pub(crate) use settings::USUAL_DIRECTORY;
pub use settings::{
    Algorithm, Authentication, BounceContent, DeliveryMode, Encryption, Grant, Listener, Log, LogFormat, Mailbox,
    MailboxChoice, ReceivedDetail, Retry, Route, SenderPolicy, Settings, Tenant, User,
};

use layers::{Environment, File};
use reading::{Origins, Reading, Table};

/// What was read: the settings, and where each value came from.
#[derive(Debug)]
pub struct Configuration {
    /// What the daemon is built from.
    pub settings: Settings,
    origins: Origins,
    /// Variables of the environment that were probably meant for us.
    misspelt: Vec<String>,
}

impl Configuration {
    /// What is no mistake and worth a look, now and for whoever asks.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = self.misspelt.clone();
        doubts.extend(files::doubts(&self.settings));
        doubts.extend(relations::doubts(&self.settings));
        doubts
    }
}

/// How much is asked of a configuration.
#[derive(Clone, Copy, Debug)]
struct Demand {
    /// That it asks for nothing that this release cannot do.
    built: bool,
    /// That its values go together.
    relations: bool,
    /// That the files it names are as they must be.
    files: bool,
}

/// Reads the file and the environment and gives the configuration, or every mistake found.
pub fn load(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Configuration, Mistakes> {
    let text = read_file(file)?;
    read(&file.display().to_string(), &text, environment, Demand { built: true, relations: true, files: true })
}

/// Right settings for the tests of what is made from them, without the files that they name.
#[cfg(test)]
pub(crate) fn settings_of(text: &str) -> Settings {
    let demand = Demand { built: true, relations: true, files: false };
    let read = read("test.toml", text, std::iter::empty(), demand);
    read.unwrap_or_else(|mistakes| panic!("{mistakes}")).settings
}

/// The same of settings whose sections are right, whether or not they go together.
#[cfg(test)]
pub(crate) fn settings_unchecked(text: &str) -> Settings {
    let demand = Demand { built: true, relations: false, files: false };
    let read = read("test.toml", text, std::iter::empty(), demand);
    read.unwrap_or_else(|mistakes| panic!("{mistakes}")).settings
}

/// Where a daemon is found.
#[derive(Debug)]
pub struct Places {
    /// Its control socket; none where it has none.
    pub socket: Option<PathBuf>,
    /// Its state directory; none where it stores nothing.
    pub directory: Option<PathBuf>,
    /// Where it serves `/livez`; none where it does not.
    pub livez: Option<SocketAddr>,
    /// Whether the file would be refused as it is now.
    pub is_wrong: bool,
}

/// Where the daemon is found, whatever else of the file is wrong. Fails when the file cannot be read.
pub fn places(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Places, Mistakes> {
    let text = read_file(file)?;
    let (mistakes, variables) = (Mistakes::default(), environment.collect::<Vec<_>>());
    let demand = Demand { built: true, relations: true, files: false };
    match interpret(&file.display().to_string(), &text, &variables, demand, &mistakes) {
        Some((settings, _)) => Ok(Places {
            socket: settings.control_socket().map(Path::to_owned),
            directory: settings.state_directory().map(Path::to_owned),
            livez: settings.http.address.0,
            is_wrong: !mistakes.is_empty(),
        }),
        None => Err(mistakes),
    }
}

/// Longest configuration, in octets.
const MAX_FILE: u64 = 4 << 20;

fn read_file(file: &Path) -> Result<String, Mistakes> {
    let bounded = || {
        let mut text = String::new();
        fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {MAX_FILE} octets")));
        }
        Ok(text)
    };
    bounded().map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "name another file with --config",
            ErrorKind::PermissionDenied => "let the user that runs this read it",
            ErrorKind::InvalidData => "save it as UTF-8",
            ErrorKind::FileTooLarge => "is it the right file?",
            _ => "is it a file?",
        };
        let text = format!("cannot be read: {error}; {remedy}");
        Mistakes::from(vec![Mistake::in_file(&file.display().to_string(), text)])
    })
}

/// The same from a text that stands in for the file called `name`.
fn read(
    name: &str,
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
    demand: Demand,
) -> Result<Configuration, Mistakes> {
    let mistakes = Mistakes::default();
    let variables: Vec<_> = environment.collect();
    match interpret(name, text, &variables, demand, &mistakes) {
        Some((settings, origins)) if mistakes.is_empty() => {
            Ok(Configuration { settings, origins, misspelt: layers::misspelt(&variables) })
        }
        _ => Err(mistakes),
    }
}

/// What can be made of a text, and in `mistakes` what is wrong with it.
fn interpret(
    name: &str,
    text: &str,
    variables: &[(String, String)],
    demand: Demand,
    mistakes: &Mistakes,
) -> Option<(Settings, Origins)> {
    let mut file = File::parse(name, text, mistakes);
    let file_is_broken = !mistakes.is_empty();
    let environment = Environment::collect(variables, mistakes);
    for path in environment.secret_references() {
        file.remove(&path);
    }
    let sections = file.sections().clone();
    let merging = config::Config::builder()
        .add_source(layers::surroundings(variables))
        .add_source(file.into_layer())
        .add_source(environment.into_layer());
    let merged = match merging.build() {
        Ok(merged) => merged,
        Err(error) => {
            mistakes.add(Mistake::in_file(name, error.to_string()));
            return None;
        }
    };
    let reading = Reading::new(name, mistakes, &sections, demand.built);
    if file_is_broken {
        // What the parser lost is not missing.
        for section in ["tenant", "mailbox"] {
            reading.mark_wrong(section);
        }
    }
    let (mut settings, names) = Settings::read(Table::root(merged.cache, &reading));
    proxy::take_from_environment(&mut settings, variables, &reading);
    if demand.relations {
        relations::check(&settings, &names, &reading);
    }
    if demand.files {
        files::check(&settings, &reading);
    }
    Some((settings, reading.into_origins()))
}

#[cfg(test)]
mod tests;
