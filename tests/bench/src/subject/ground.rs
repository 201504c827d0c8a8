//! What the peers need of the machine: a free port, files with a text, a log, the word of a program.
//!
//! It knows no peer, and starts nothing that stays.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::BenchError;

/// How the peers that are written in Python are installed.
pub(super) const INSTALL_PYTHON: &str = "python3 -m venv target/peers && target/peers/bin/pip install -r tests/bench/peers/requirements.txt, \
    and say --python target/peers/bin/python";

/// An address on loopback that nobody listened on a moment ago.
pub(super) fn free_address() -> Result<SocketAddr, BenchError> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::socket("cannot find a free port"))?;
    listener.local_addr().map_err(BenchError::socket("cannot find a free port"))
}

/// Makes a directory with its parents, if it is not there, and gives it its mode.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), BenchError> {
    fs::create_dir_all(path).map_err(BenchError::file("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(BenchError::file("set the mode of", path))
}

/// Writes a file whole, with its mode.
pub(super) fn write(path: &Path, mode: u32, text: impl AsRef<[u8]>) -> Result<(), BenchError> {
    fs::write(path, text).map_err(BenchError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(BenchError::file("set the mode of", path))
}

/// Opens a file to write at its end; makes it, if it is not there.
pub(super) fn append(path: &Path) -> Result<File, BenchError> {
    OpenOptions::new().create(true).append(true).open(path).map_err(BenchError::file("open the log", path))
}

/// A command whose output goes to the end of the file `log`, and that reads nothing.
pub(super) fn logged(mut command: Command, log: &Path) -> Result<Command, BenchError> {
    let file = append(log)?;
    let second = file.try_clone().map_err(BenchError::file("open the log", log))?;
    command.stdin(Stdio::null()).stdout(file).stderr(second);
    Ok(command)
}

/// Runs a program to its end and gives what it said, without the blank ends.
pub(super) fn answer(command: &mut Command) -> Result<String, BenchError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(BenchError::program(&program))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default();
    Err(BenchError::Program { program, why: format!("{}: {last}", output.status) })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpStream;
    use std::path::PathBuf;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::subject::{Setting, Spawned, Subject, Upstream};

    /// Longest wait for a greeting: Python loads for seconds on a busy machine.
    const GREETING: Duration = Duration::from_mins(1);

    /// An upstream at a port nobody listens on, whose certificate authority is a file of `directory`.
    pub(crate) fn upstream(directory: &Path) -> Upstream {
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca_file: PathBuf = directory.join("authority.pem");
        fs::write(&ca_file, authority.cert.pem()).unwrap();
        Upstream {
            port: 9,
            ca_file,
            user: "scanner@contoso.com".to_owned(),
            password: "correct-horse".to_owned(),
            token_endpoint: "https://localhost:10/tenant/oauth2/v2.0/token".to_owned(),
            authority: "https://localhost:10".to_owned(),
            tenant_id: "tenant".to_owned(),
            client_id: "application".to_owned(),
            client_secret: "hush".to_owned(),
            scope: "https://outlook.office365.com/.default".to_owned(),
        }
    }

    /// A setting for two clients.
    pub(crate) fn setting<'a>(directory: &'a Path, upstream: &'a Upstream, held: bool) -> Setting<'a> {
        Setting {
            directory,
            upstream,
            held,
            clients: 2,
            upstream_connections: 2,
            largest_message: 1 << 20,
            tracer: None,
        }
    }

    /// Starts the subject, ends it by SIGTERM when it greeted or hung up, and gives its greeting.
    pub(crate) fn greeting(subject: &dyn Subject, setting: &Setting<'_>) -> String {
        let mut spawned = subject.spawn(setting).unwrap();
        let greeting = first_line(&mut spawned);
        let alive = spawned.child.try_wait().unwrap().is_none();
        kill_process(Pid::from_child(&spawned.child), Signal::TERM).unwrap();
        spawned.child.wait().unwrap();
        assert!(alive, "it ended by itself");
        greeting.expect("it listens")
    }

    fn first_line(spawned: &mut Spawned) -> Option<String> {
        let until = Instant::now() + GREETING;
        while Instant::now() < until && spawned.child.try_wait().unwrap().is_none() {
            if let Ok(stream) = TcpStream::connect(spawned.address) {
                let mut line = String::new();
                stream.set_read_timeout(Some(GREETING)).unwrap();
                BufReader::new(stream).read_line(&mut line).unwrap();
                return Some(line);
            }
            sleep(Duration::from_millis(10));
        }
        None
    }

    #[test]
    fn a_program_that_fails_is_told_with_its_last_words() {
        let error = answer(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh: exit status: 3: last");
        assert_eq!(answer(Command::new("sh").args(["-c", "echo ' word '"])).unwrap(), "word");
    }
}
