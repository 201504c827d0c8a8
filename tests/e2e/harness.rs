//! What every test stands on: a simulated tenant, a relay process with its own state directory, and a client.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandbox::{Limits, Mailbox, Message, Sandbox, SandboxOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::RuntimeFlavor;
use wire::{Reply, ReplyParser};

pub(crate) const SENDER: &str = sandbox::DEFAULT_MAILBOX;
pub(crate) const RECIPIENT: &str = "someone@example.com";
/// The simulated Exchange refuses this one at RCPT.
pub(crate) const UNKNOWN: &str = "unknown@contoso.com";
/// Longest wait for anything that should happen at once; a busy machine needs some of it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A simulated tenant and the files of a relay in front of it.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) directory: TempDir,
    /// What the tenant proves itself with, as the configuration says it.
    credential: String,
    /// Settings beyond the usual ones, by section.
    extra: Vec<(&'static str, String)>,
    limits: Limits,
}

impl World {
    /// A tenant without limits, and a relay that does not pace.
    pub(crate) async fn new() -> Self {
        Self::with(SandboxOptions { limits: Limits::Off, ..SandboxOptions::default() }).await
    }

    pub(crate) async fn with(options: SandboxOptions) -> Self {
        let limits = options.limits;
        let sandbox = Sandbox::start(options).await.unwrap();
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("ca.pem"), sandbox.ca_pem()).unwrap();
        let secret = directory.path().join("secret");
        write_secret(&secret, sandbox::DEFAULT_SECRET);
        let credential = format!("client_secret = {{ file = {:?} }}", secret.display().to_string());
        Self { sandbox, directory, credential, extra: Vec::new(), limits }
    }

    /// Another credential than the file of a client secret, as a line of the tenant's table.
    pub(crate) fn proved_by(self, credential: impl Into<String>) -> Self {
        Self { credential: credential.into(), ..self }
    }

    /// Adds a line to a section of the configuration; to `tables`, whole tables.
    pub(crate) fn set(mut self, section: &'static str, line: impl Into<String>) -> Self {
        self.extra.push((section, line.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration and gives its path.
    pub(crate) fn configuration(&self) -> PathBuf {
        let path = self.path("xoauth2-relay.toml");
        // In one step: a command that was started before may be reading it.
        let readable = std::fs::Permissions::from_mode(0o644);
        let new = tempfile::Builder::new().permissions(readable).tempfile_in(self.directory.path()).unwrap();
        std::fs::write(new.path(), self.configuration_text()).unwrap();
        new.persist(&path).unwrap();
        path
    }

    pub(crate) fn configuration_text(&self) -> String {
        let shown = |name: &str| self.path(name).display().to_string();
        let (tenant_id, client_id) = (sandbox::DEFAULT_TENANT_ID, sandbox::DEFAULT_CLIENT_ID);
        let pace = if self.limits == Limits::Off { "connections = 10\nmessages_per_minute = 1000000" } else { "" };
        let extra = |section: &str| {
            let lines = self.extra.iter().filter(|(name, _)| *name == section).map(|(_, line)| line.as_str());
            lines.collect::<Vec<_>>().join("\n")
        };
        format!(
            "[listener.local]\naddress = \"127.0.0.1:0\"\n{}\n\
             [tenant.contoso]\ntenant_id = \"{tenant_id}\"\nclient_id = \"{client_id}\"\n\
             {}\nauthority = \"{}\"\nauthority_ca_file = {:?}\n\
             smtp = {{ host = \"{}\", port = {}, ca_file = {:?} }}\n{}\n\n\
             [mailbox.scanner]\naddress = \"{SENDER}\"\n{pace}\n{}\n\
             [spool]\n{}\n{}\n[http]\naddress = \"\"\n\n[log]\nformat = \"json\"\n{}\n\
             [shutdown]\n{}\n\n[retry]\n{}\n\n[bounce]\n{}\n\n{}\n",
            extra("listener"),
            self.credential,
            self.sandbox.authority(),
            shown("ca.pem"),
            self.sandbox.smtp_host(),
            self.sandbox.smtp_port(),
            shown("ca.pem"),
            extra("tenant"),
            extra("mailbox"),
            self.spool_directory(),
            extra("spool"),
            extra("log"),
            extra("shutdown"),
            extra("retry"),
            extra("bounce"),
            extra("tables"),
        )
    }

    fn spool_directory(&self) -> String {
        if self.extra.iter().any(|(section, line)| *section == "spool" && line.starts_with("directory")) {
            String::new()
        } else {
            format!("directory = {:?}\nmin_free_bytes = \"1 MiB\"", self.path("state").display().to_string())
        }
    }

    /// Starts the relay and waits until it is ready.
    pub(crate) async fn relay(&self) -> Relay {
        Relay::start(&self.configuration()).await
    }

    pub(crate) async fn wait_for(&self, count: u64) -> Vec<Arc<Message>> {
        self.sandbox.wait_for(count, PATIENCE).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// So much time that everything that waits in the queue of a stopped relay is due.
    pub(crate) fn let_time_pass(&self) {
        let queue = rusqlite::Connection::open(self.path("state/queue.db")).unwrap();
        queue.execute("UPDATE delivery SET due = 0", []).unwrap();
    }

    /// The queue's database, to look into.
    pub(crate) fn queue(&self) -> rusqlite::Connection {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(self.path("state/queue.db"), flags).unwrap()
    }

    /// The number that a query of the queue's database gives; none while that cannot be read.
    pub(crate) fn count(&self, query: &str) -> Option<i64> {
        self.queue().query_row(query, [], |row| row.get(0)).ok()
    }

    pub(crate) fn mailbox(&self, change: impl FnOnce(&mut Mailbox)) {
        self.sandbox.change_mailbox(SENDER, change).unwrap();
    }
}

/// Writes a secret as an administrator should: for its owner only.
pub(crate) fn write_secret(path: &Path, secret: &str) {
    std::fs::write(path, secret).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// The binary under test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xoauth2-relay"));
    command
        .stdin(Stdio::null())
        .env_remove("STATE_DIRECTORY")
        .env_remove("XDG_STATE_HOME")
        .env_remove("RUNTIME_DIRECTORY");
    // The simulated Entra is on this machine.
    command.env_remove("HTTPS_PROXY").env_remove("https_proxy");
    command
}

/// A running relay; killed when dropped.
pub(crate) struct Relay {
    child: Child,
    log: Arc<Log>,
    pub(crate) address: SocketAddr,
}

/// The lines of its log so far.
#[derive(Default)]
pub(crate) struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Relay {
    pub(crate) async fn start(configuration: &Path) -> Self {
        let mut command = binary();
        command.args(["run", "--config"]).arg(configuration);
        Self::spawn(command).await
    }

    /// Starts `command` and waits until the relay is ready.
    pub(crate) async fn spawn(command: Command) -> Self {
        let relay = Self::spawn_unready(command);
        tokio::task::spawn_blocking(move || {
            let mut relay = relay;
            relay.log.wait_for(|line| line.contains("\"ready\""));
            relay.address = relay.log.address();
            relay
        })
        .await
        .unwrap()
    }

    /// Starts `command` without waiting.
    pub(crate) fn spawn_unready(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::of(child.stderr.take().unwrap());
        Self { child, log, address: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// kill -9, as a power failure would as far as the process is concerned.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    /// SIGTERM, then its end.
    pub(crate) async fn terminate(self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.end().await
    }

    /// Waits for its end; gives the exit status and the whole log.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        tokio::task::spawn_blocking(move || {
            self.log.wait_for_end();
            let status = self.child.wait().unwrap();
            (status, self.log.text())
        })
        .await
        .unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the relay ---\n{}", self.log.text());
        }
    }
}

impl Log {
    /// The lines of `output`, as they come.
    pub(crate) fn of(output: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.add(line);
            }
            lines.end();
        });
        log
    }

    /// A test that failed while it looked is told by its own words alone.
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: String) {
        self.lock().0.push(line);
        self.grown.notify_all();
    }

    fn end(&self) {
        self.lock().1 = true;
        self.grown.notify_all();
    }

    pub(crate) fn text(&self) -> String {
        self.lock().0.join("\n")
    }

    pub(crate) fn count(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.lock().0.iter().filter(|line| wanted(line)).count()
    }

    /// Blocks until a line is there; gives it.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_another(0, wanted)
    }

    /// The same of one more line than `before`.
    pub(crate) fn wait_for_another(&self, before: usize, wanted: impl Fn(&str) -> bool) -> String {
        // A worker of the runtime that just stood still would keep its next task waiting, which may be the sandbox's.
        match tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| self.look_for(before, wanted)),
            _ => self.look_for(before, wanted),
        }
    }

    fn look_for(&self, before: usize, wanted: impl Fn(&str) -> bool) -> String {
        let mut lines = self.lock();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = lines.0.iter().filter(|line| wanted(line)).nth(before) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !lines.1, "the line did not come; the log is:\n{}", lines.0.join("\n"));
            lines = self.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Blocks until no more will come.
    pub(crate) fn wait_for_end(&self) {
        let mut lines = self.lock();
        let end = Instant::now() + PATIENCE;
        while !lines.1 {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the process did not end; the log is:\n{}", lines.0.join("\n"));
            lines = self.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn address(&self) -> SocketAddr {
        let line = self.wait_for(|line| line.contains("\"listening\""));
        field(&line, "address").parse().unwrap()
    }
}

/// The text of a field in a JSON log line.
pub(crate) fn field(line: &str, name: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    match &value[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A plain SMTP client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    parser: ReplyParser,
    input: Vec<u8>,
}

impl Client {
    /// Connects, reads the banner, says EHLO.
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        Self::connect_from(Ipv4Addr::LOCALHOST, address).await
    }

    /// The same as another client.
    pub(crate) async fn connect_from(client: Ipv4Addr, address: SocketAddr) -> std::io::Result<Self> {
        let stream = if address.is_ipv4() {
            let socket = TcpSocket::new_v4()?;
            socket.bind((client, 0).into())?;
            socket.connect(address).await?
        } else {
            TcpStream::connect(address).await?
        };
        stream.set_nodelay(true)?;
        let mut client = Self { stream, parser: ReplyParser::default(), input: Vec::new() };
        client.reply().await?;
        client.command("EHLO test.local").await?;
        Ok(client)
    }

    pub(crate) async fn write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(octets).await
    }

    pub(crate) async fn reply(&mut self) -> std::io::Result<Reply> {
        loop {
            let (used, reply) = self.parser.push(&self.input).map_err(std::io::Error::other)?;
            self.input.drain(..used);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input));
            if read.await.map_err(std::io::Error::other)?? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) async fn command(&mut self, line: &str) -> std::io::Result<Reply> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// MAIL, RCPT and DATA; panics unless all are taken.
    pub(crate) async fn begin(&mut self, recipients: &[&str]) {
        assert_eq!(self.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
        for recipient in recipients {
            assert_eq!(self.command(&format!("RCPT TO:<{recipient}>")).await.unwrap().code(), 250);
        }
        assert_eq!(self.command("DATA").await.unwrap().code(), 354);
    }

    /// Sends a message, already in wire form without the final dot; gives the final reply.
    pub(crate) async fn send(&mut self, recipients: &[&str], message: &[u8]) -> std::io::Result<Reply> {
        self.send_from(SENDER, recipients, message).await
    }

    /// The same from another sender.
    pub(crate) async fn send_from(
        &mut self,
        sender: &str,
        recipients: &[&str],
        message: &[u8],
    ) -> std::io::Result<Reply> {
        let paths: Vec<_> = recipients.iter().map(|recipient| format!("<{recipient}>")).collect();
        self.send_with(&format!("<{sender}>"), &paths, message).await
    }

    /// The same with what follows `MAIL FROM:` and each `RCPT TO:`, parameters included.
    pub(crate) async fn send_with(
        &mut self,
        mail: &str,
        recipients: &[impl AsRef<str>],
        message: &[u8],
    ) -> std::io::Result<Reply> {
        let rcpts: Vec<_> = recipients.iter().map(|recipient| format!("RCPT TO:{}\r\n", recipient.as_ref())).collect();
        let commands = format!("MAIL FROM:{mail}\r\n{}DATA\r\n", rcpts.concat());
        self.write(commands.as_bytes()).await?;
        for _ in 0..=recipients.len() {
            let reply = self.reply().await?;
            if !reply.is_positive() {
                return Ok(reply);
            }
        }
        let reply = self.reply().await?;
        if !reply.is_intermediate() {
            return Ok(reply);
        }
        self.write(message).await?;
        self.write(b"\r\n.\r\n").await?;
        self.reply().await
    }
}

/// A message that names itself.
pub(crate) fn message(name: &str) -> Vec<u8> {
    format!(
        "From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: {name}\r\nMessage-ID: <{name}@test.local>\r\n\r\nThis is {name}."
    )
    .into_bytes()
}

/// Header and body of a message that the simulated Exchange took.
pub(crate) fn split(message: &Message) -> (String, Vec<u8>) {
    let octets = message.body.octets().expect("small bodies are kept");
    let at = octets.windows(4).position(|four| four == b"\r\n\r\n").expect("there is an empty line");
    (String::from_utf8_lossy(&octets[..at + 2]).into_owned(), octets[at + 4..].to_vec())
}

/// The path of a program that the test needs; none, with a line that says so, when it is not installed.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
    });
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// As Postfix stores lines: CRLF becomes LF; a CR or LF that stood alone stays where it was.
pub(crate) fn with_lf(octets: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        if !(*octet == b'\r' && octets.get(at + 1) == Some(&b'\n')) {
            kept.push(*octet);
        }
    }
    kept
}

/// How often a condition is looked at that nobody tells.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until something is so; whether it was in time.
pub(crate) async fn until(within: Duration, is_so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + within;
    while !is_so() {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Says that a test is skipped; fails where that is not allowed.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var("REQUIRE_REAL_PEERS").as_deref() != Ok("1"), "REQUIRE_REAL_PEERS=1, but {reason}");
    eprintln!("skipped: {reason}");
}

/// Whether tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A free port: another process could take it, which the caller's test would show at once.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
