//! The Python package `emailproxy` (email-oauth2-proxy): a proxy that turns a client's AUTH PLAIN into AUTH XOAUTH2, without a queue.
//!
//! It is started by the Python interpreter it is installed for, without its window, and fetches its token itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Missing, Setting, Spawned, Subject, ground};
use crate::error::BenchError;
use crate::figure::Description;

const NAME: &str = "emailproxy";

/// What clients log in with. The proxy only seals its token with it, at the first login.
const PASSWORD: &str = "benchmark";

/// Says the version; the module looks at the arguments when it is imported, and wants a window without this one.
const PROBE: [&str; 3] =
    ["-c", "import importlib.metadata as m, emailproxy; print(m.version('emailproxy'))", "--no-gui"];

/// An installed emailproxy.
#[derive(Debug)]
struct EmailProxy {
    interpreter: PathBuf,
    version: String,
    /// The mailbox that clients log in as, the one that logs in upstream.
    user: String,
}

/// The proxy, installed for this Python interpreter; its clients log in as `user`, which is [`super::Upstream::user`].
pub(crate) fn find(interpreter: &Path, user: &str) -> Result<Box<dyn Subject>, Missing> {
    let missing = |error: BenchError| Missing { name: NAME, why: error.to_string(), install: ground::INSTALL_PYTHON };
    let version = ground::answer(Command::new(interpreter).args(PROBE)).map_err(missing)?;
    Ok(Box::new(EmailProxy { interpreter: interpreter.to_path_buf(), version, user: user.to_owned() }))
}

impl Subject for EmailProxy {
    fn description(&self) -> Description {
        Description {
            name: NAME.to_owned(),
            product: format!("email-oauth2-proxy {}", self.version),
            setup: "No queue: it answers with upstream's replies. Clients log in by AUTH PLAIN; AUTH XOAUTH2 upstream with \
                    a token of the client credentials grant; a connection upstream for each client's; logs to a file."
                .to_owned(),
        }
    }

    fn has_queue(&self) -> bool {
        false
    }

    fn login(&self) -> Option<(String, String)> {
        Some((self.user.clone(), PASSWORD.to_owned()))
    }

    // Each login of a client costs it most of a second.
    fn most_clients(&self) -> usize {
        10
    }

    fn most_clients_elsewhere(&self) -> usize {
        1
    }

    // For each it connects upstream and thinks for most of a second.
    fn most_idle(&self) -> usize {
        0
    }

    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError> {
        if setting.held {
            return Err(BenchError::Impossible(format!("{NAME} has no queue: it cannot be held")));
        }
        let address = ground::free_address()?;
        let at = |name| setting.directory.join(name);
        ground::make_directory(setting.directory, 0o755)?;
        ground::write(&at("emailproxy.config"), 0o600, configuration(setting, address.port()))?;
        let mut command = setting.command(&self.interpreter);
        command.args(["-m", "emailproxy", "--no-gui", "--config-file"]).arg(at("emailproxy.config"));
        command.arg("--log-file").arg(at("emailproxy.log"));
        command.env("SSL_CERT_FILE", &setting.upstream.ca_file).current_dir(setting.directory);
        Spawned::start(ground::logged(command, &at("output.log"))?, address)
    }
}

fn configuration(setting: &Setting<'_>, port: u16) -> String {
    let upstream = setting.upstream;
    format!(
        "[SMTP-{port}]\n\
         local_address = 127.0.0.1\n\
         server_address = localhost\n\
         server_port = {server_port}\n\
         server_starttls = True\n\
         \n\
         [{user}]\n\
         token_url = {token_url}\n\
         oauth2_scope = {scope}\n\
         oauth2_flow = client_credentials\n\
         client_id = {client_id}\n\
         client_secret = {client_secret}\n",
        server_port = upstream.port,
        user = upstream.user,
        token_url = upstream.token_endpoint,
        scope = upstream.scope,
        client_id = upstream.client_id,
        client_secret = upstream.client_secret,
    )
}

#[cfg(test)]
mod tests {
    use super::super::ground::tests::{greeting, setting, upstream};
    use super::*;

    #[test]
    fn the_configuration_names_port_mailbox_and_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let text = configuration(&setting(directory.path(), &upstream, false), 2525);
        for line in [
            "[SMTP-2525]",
            "server_port = 9",
            "server_starttls = True",
            "[scanner@contoso.com]",
            "token_url = https://localhost:10/tenant/oauth2/v2.0/token",
            "oauth2_flow = client_credentials",
            "client_secret = hush",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn it_listens_and_ends_by_sigterm() {
        let interpreter = std::env::var_os("BENCH_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let subject = match find(&interpreter, "scanner@contoso.com") {
            Ok(subject) => subject,
            Err(missing) => return println!("skip: {missing:?}"),
        };
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        // It greets with upstream's greeting, and hangs up where there is none.
        assert_eq!(greeting(&*subject, &setting(directory.path(), &upstream, false)), "");
    }
}
