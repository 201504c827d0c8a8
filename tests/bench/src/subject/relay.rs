//! The relay itself, with its queue: as an operator would set it up, but with pacing off.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::{Setting, Spawned, Subject, free_address};
use crate::error::BenchError;
use crate::figure::Description;

/// The relay, by the path of its program.
#[derive(Debug)]
pub(crate) struct Relay {
    name: String,
    program: PathBuf,
    product: String,
}

impl Relay {
    /// The relay at `program`, under this name; fails when it cannot say its version.
    pub(crate) fn new(name: &str, program: PathBuf) -> Result<Self, BenchError> {
        let product = super::first_line(&program, &["--version"])?;
        Ok(Self { name: name.to_owned(), program, product })
    }

    /// The program.
    pub(crate) fn program(&self) -> &PathBuf {
        &self.program
    }
}

impl Subject for Relay {
    fn description(&self) -> Description {
        Description {
            name: self.name.clone(),
            product: self.product.clone(),
            setup: "client credentials, XOAUTH2, one lane; messages_per_minute out of reach, otherwise defaults".to_owned(),
        }
    }

    fn has_queue(&self) -> bool {
        true
    }

    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError> {
        let address = free_address()?;
        // Nobody listens where a held relay sends to, and so its lane stands.
        let port = if setting.held { free_address()?.port() } else { setting.upstream.port };
        let secret = setting.directory.join("secret");
        let options = File::options().write(true).create(true).truncate(true).mode(0o600).to_owned();
        options
            .open(&secret)
            .and_then(|mut file| std::io::Write::write_all(&mut file, setting.upstream.client_secret.as_bytes()))
            .map_err(BenchError::file("write", &secret))?;
        let state = setting.directory.join("state");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(BenchError::file("make", &state))?;
        let file = setting.directory.join("relay.toml");
        fs::write(&file, configuration(setting, address, port)).map_err(BenchError::file("write", &file))?;
        let log = setting.directory.join("relay.log");
        let log = File::options().append(true).create(true).open(&log).map_err(BenchError::file("open", &log))?;
        let child = setting
            .command(&self.program)
            .args(["run", "--config"])
            .arg(&file)
            .stderr(log)
            .spawn()
            .map_err(BenchError::program("xoauth2-relay"))?;
        Ok(Spawned { child, address })
    }
}

fn configuration(setting: &Setting<'_>, address: std::net::SocketAddr, port: u16) -> String {
    let upstream = setting.upstream;
    let ca_file = upstream.ca_file.display();
    let directory = setting.directory.display();
    format!(
        "[listener.local]\n\
         address = \"{address}\"\n\
         max_message_size = \"{size} B\"\n\
         max_connections = {clients}\n\
         max_connections_per_client = {clients}\n\
         [tenant.contoso]\n\
         tenant_id = \"{tenant_id}\"\n\
         client_id = \"{client_id}\"\n\
         client_secret = {{ file = \"{directory}/secret\" }}\n\
         authority = \"{authority}\"\n\
         authority_ca_file = \"{ca_file}\"\n\
         scope = \"{scope}\"\n\
         smtp = {{ host = \"localhost\", port = {port}, ca_file = \"{ca_file}\" }}\n\
         [mailbox.scanner]\n\
         address = \"{user}\"\n\
         connections = {connections}\n\
         messages_per_minute = 1000000000\n\
         max_message_size = \"{size} B\"\n\
         [spool]\n\
         directory = \"{directory}/state\"\n\
         min_free_bytes = \"0 B\"\n\
         [http]\n\
         address = \"\"\n\
         [log]\n\
         format = \"json\"\n",
        size = setting.largest_message.max(35 * 1024 * 1024),
        clients = setting.clients + 10,
        tenant_id = upstream.tenant_id,
        client_id = upstream.client_id,
        authority = upstream.authority,
        scope = upstream.scope,
        user = upstream.user,
        connections = setting.upstream_connections,
    )
}
