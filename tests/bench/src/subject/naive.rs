//! What many write for themselves: a short Python program that sends each message on before it answers, without a queue.
//!
//! The program is `peers/naive_relay.py`, on aiosmtpd and smtplib; here it is only set up and started.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Missing, Setting, Spawned, Subject, ground};
use crate::error::BenchError;
use crate::figure::Description;

const NAME: &str = "naive";
const PROGRAM: &str = include_str!("../../peers/naive_relay.py");

const PROBE: [&str; 2] = [
    "-c",
    "import importlib.metadata as m, platform, aiosmtpd.controller; \
     print(m.version('aiosmtpd'), 'on Python', platform.python_version())",
];

/// The program, with a Python interpreter that has aiosmtpd.
#[derive(Debug)]
struct Naive {
    interpreter: PathBuf,
    versions: String,
}

/// The program, for this Python interpreter.
pub(crate) fn find(interpreter: &Path) -> Result<Box<dyn Subject>, Missing> {
    let missing = |error: BenchError| Missing { name: NAME, why: error.to_string(), install: ground::INSTALL_PYTHON };
    let versions = ground::answer(Command::new(interpreter).args(PROBE)).map_err(missing)?;
    Ok(Box::new(Naive { interpreter: interpreter.to_path_buf(), versions }))
}

impl Subject for Naive {
    fn description(&self) -> Description {
        Description {
            name: NAME.to_owned(),
            product: format!("A short program with aiosmtpd {}", self.versions),
            setup:
                "No queue: for each message it connects upstream by smtplib with STARTTLS and AUTH XOAUTH2, its token \
                    from a file, and answers when upstream has taken it."
                    .to_owned(),
        }
    }

    fn has_queue(&self) -> bool {
        false
    }

    // It sends over a handful of threads; more clients only wait longer.
    fn most_clients(&self) -> usize {
        100
    }

    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError> {
        if setting.held {
            return Err(BenchError::Impossible(format!("{NAME} has no queue: it cannot be held")));
        }
        let address = ground::free_address()?;
        let at = |name| setting.directory.join(name);
        ground::make_directory(setting.directory, 0o755)?;
        ground::write(&at("naive_relay.py"), 0o644, PROGRAM)?;
        ground::write(&at("token"), 0o600, &setting.upstream.password)?;
        let mut command = setting.command(&self.interpreter);
        command.arg(at("naive_relay.py")).args(arguments(setting, address.port()));
        Spawned::start(ground::logged(command, &at("output.log"))?, address)
    }
}

fn arguments(setting: &Setting<'_>, port: u16) -> Vec<String> {
    let upstream = setting.upstream;
    [
        format!("--port={port}"),
        format!("--upstream-port={}", upstream.port),
        format!("--ca-file={}", upstream.ca_file.display()),
        format!("--user={}", upstream.user),
        format!("--token-file={}", setting.directory.join("token").display()),
        format!("--largest-message={}", setting.largest_message),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::super::ground::tests::{greeting, setting, upstream};
    use super::*;

    #[test]
    fn the_program_is_told_where_to_listen_and_to_send() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let said = arguments(&setting(Path::new("/d"), &upstream, false), 2525);
        for word in ["--port=2525", "--upstream-port=9", "--token-file=/d/token", "--largest-message=1048576"] {
            assert!(said.iter().any(|one| one == word), "{word} is not in {said:?}");
        }
        assert!(!said.iter().any(|one| one.contains(&upstream.password)), "{said:?}");
    }

    #[test]
    fn it_greets_and_ends_by_sigterm() {
        let interpreter = std::env::var_os("BENCH_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let subject = match find(&interpreter) {
            Ok(subject) => subject,
            Err(missing) => return println!("skip: {missing:?}"),
        };
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let greeting = greeting(&*subject, &setting(directory.path(), &upstream, false));
        assert!(greeting.starts_with("220"), "{greeting:?}");
    }
}
