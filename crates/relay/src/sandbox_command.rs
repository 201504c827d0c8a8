//! The `sandbox` command: a simulated tenant and the relay in front of it, on loopback, with nothing to configure.
//!
//! The relay here is the real one, built from a configuration file like anybody's; only Microsoft is simulated.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clock::SystemClock;
use sandbox::{
    DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, DEFAULT_TENANT_ID, Limits, Message, SandboxOptions, unproven,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use wire::{Reply, ReplyParser};

use crate::check;
use crate::cli::{DEFAULT_PORT, LimitsSwitch, Sandbox, SandboxAction};
use crate::config::{self, Settings};
use crate::control::{Service, SocketError};
use crate::daemon::{Daemon, StartError, Surroundings};
use crate::exit::Exit;
use crate::logging::{self, Logging};
use crate::output;
use crate::run::{self, Hangup, Signals};
use crate::sandbox_orders::{self, Orders};
use crate::systemd_sockets::SystemdSockets;

/// Somebody to write to; nothing is ever delivered to anybody.
const RECIPIENT: &str = "someone@example.com";
/// The control socket's name, and the configuration's.
const SOCKET: &str = "control.sock";
const CONFIGURATION: &str = "xoauth2-relay.toml";
/// How long the one message of `--send` may take for the whole road.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Sandbox(#[from] sandbox::SandboxError),
    #[error(
        "port {0} is taken by another program, perhaps by a sandbox in another terminal; choose another with --port"
    )]
    PortTaken(u16),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("the sandbox's own files or its test connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Control(#[from] SocketError),
    #[error("the relay answered {0}")]
    Refused(Reply),
    #[error("{0}")]
    Broken(String),
}

/// Runs the command.
pub(crate) async fn sandbox(options: &Sandbox) -> Exit {
    if options.action.is_some() && (options.send || options.unproven) {
        check::complain("an order is for a sandbox that runs: leave --send and --unproven out");
        return Exit::Usage;
    }
    if options.unproven {
        let head = "Sections are those of docs/facts/exchange-online.md in the sources.";
        return output::print(&format!("{head}\n\n{}\n", unproven::list()));
    }
    if let Some(SandboxAction::Order { words }) = &options.action {
        return sandbox_orders::order(options.port, words).await;
    }
    // SIGHUP means nothing here, and must not end what is watched.
    let (Ok(mut signals), Ok(_hangup)) = (Signals::new(), Hangup::new()) else { return Exit::Internal };
    let result = tokio::select! {
        result = play(options) => result,
        () = signals.stop() => return Exit::Success,
    };
    let mut stage = match result {
        Ok(stage) => stage,
        Err(failure) => {
            check::complain(&failure.to_string());
            return exit(&failure);
        }
    };
    let exit = if options.send {
        tokio::select! {
            exit = stage.send_one() => exit,
            () = signals.stop() => Exit::Success,
        }
    } else {
        stage.show_all(&mut signals).await
    };
    tokio::select! {
        () = stage.leave() => {}
        () = signals.stop() => {}
    }
    exit
}

fn exit(failure: &Failure) -> Exit {
    match failure {
        Failure::Start(error) => run::exit(error),
        Failure::Sandbox(_) | Failure::Io(_) | Failure::Control(_) | Failure::PortTaken(_) => Exit::Unavailable,
        Failure::Refused(_) | Failure::Broken(_) => Exit::Internal,
    }
}

/// The simulated tenant, the relay and their files.
struct Stage {
    tenant: Arc<sandbox::Sandbox>,
    /// Takes orders for it; not for the one message of `--send`.
    orders: Option<Service>,
    relay: Daemon,
    address: SocketAddr,
    settings: Settings,
    /// Removed when dropped.
    directory: TempDir,
    _logging: Logging,
}

/// Starts both.
async fn play(options: &Sandbox) -> Result<Stage, Failure> {
    let (limits, pace) = match options.limits {
        LimitsSwitch::Exchange => (Limits::Exchange, ""),
        LimitsSwitch::Off => (Limits::Off, "messages_per_minute = 1_000_000\nrecipients_per_day = 1_000_000_000"),
    };
    let tenant = sandbox::Sandbox::start(SandboxOptions { limits, ..SandboxOptions::default() }).await?;
    let tenant = Arc::new(tenant);
    let directory = tempfile::Builder::new().prefix("xoauth2-relay-sandbox-").tempdir()?;
    let port = if options.send { 0 } else { options.port };
    // Who watches sees what the relay does; the one message of `--send` is told step by step.
    let level = if options.send { "warn" } else { "info" };
    let settings = settings(&tenant, directory.path(), port, pace, level)?;
    let logging = logging::start(&settings.log);
    // There is no file of anybody's to read again.
    let surroundings = Surroundings { recent: logging.recent.clone(), handed: SystemdSockets::none(), source: None };
    let relay =
        Daemon::start(settings.clone(), Arc::new(SystemClock::new()), surroundings).await.map_err(
            |error| match error {
                StartError::Listen { ref source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                    Failure::PortTaken(port)
                }
                error => Failure::Start(error),
            },
        )?;
    let address = relay.listeners().values().next().copied();
    let address = address.ok_or_else(|| Failure::Broken("the relay has no listener".to_owned()))?;
    let orders = if options.send {
        None
    } else {
        let socket = sandbox_orders::place(address.port())?;
        Some(Service::start(&socket, Arc::new(Orders::new(Arc::clone(&tenant)))).await?)
    };
    Ok(Stage { tenant, orders, relay, address, settings, directory, _logging: logging })
}

/// Writes the files an administrator would, and reads them as the daemon does.
fn settings(
    tenant: &sandbox::Sandbox,
    directory: &Path,
    port: u16,
    pace: &str,
    level: &str,
) -> Result<Settings, Failure> {
    let (ca_file, secret) = (directory.join("ca.pem"), directory.join("tenant.secret"));
    fs::write(&ca_file, tenant.ca_pem())?;
    fs::write(&secret, DEFAULT_SECRET)?;
    let text = format!(
        r#"
[listener.local]
address = "127.0.0.1:{port}"

[tenant.contoso]
tenant_id = "{DEFAULT_TENANT_ID}"
client_id = "{DEFAULT_CLIENT_ID}"
client_secret = {{ file = {secret:?} }}
authority = "{authority}"
authority_ca_file = {ca_file:?}
smtp = {{ host = "{host}", port = {smtp_port}, ca_file = {ca_file:?} }}

[mailbox.scanner]
address = "{DEFAULT_MAILBOX}"
{pace}

[spool]
directory = {state:?}
min_free_bytes = "16 MiB"

[http]
address = ""

[control]
socket = {socket:?}

[log]
format = "text"
level = "{level}"
"#,
        authority = tenant.authority(),
        host = tenant.smtp_host(),
        smtp_port = tenant.smtp_port(),
        secret = secret.display().to_string(),
        ca_file = ca_file.display().to_string(),
        state = directory.join("state").display().to_string(),
        socket = directory.join(SOCKET).display().to_string(),
    );
    let file = directory.join(CONFIGURATION);
    fs::write(&file, text)?;
    config::load(&file, std::iter::empty())
        .map(|read| read.settings)
        .map_err(|mistakes| Failure::Broken(mistakes.to_string()))
}

impl Stage {
    /// Tells where to send, and shows each message as it arrives, until a signal.
    async fn show_all(&mut self, signals: &mut Signals) -> Exit {
        self.greet();
        let mut messages = self.tenant.subscribe();
        let mut shown = 0u64;
        loop {
            tokio::select! {
                () = signals.stop() => break,
                part = self.relay.failed() => {
                    check::complain(&format!("a part of the relay ended by a fault of ours: {part}"));
                    return Exit::Internal;
                }
                received = messages.recv() => match received {
                    Ok(message) => {
                        shown += 1;
                        show(shown, &message, self.save(shown, &message));
                    }
                    Err(RecvError::Lagged(missed)) => {
                        shown += missed;
                        say(&format!("({missed} messages came too fast to be shown)"));
                    }
                    Err(RecvError::Closed) => break,
                },
            }
        }
        say(&format!("\nStopping. The simulated Exchange took {} message(s).", self.tenant.counters().messages));
        Exit::Success
    }

    fn greet(&self) {
        let (host, port) = (self.address.ip(), self.address.port());
        say(&format!(
            "\
A simulated Microsoft 365 tenant is up, and xoauth2-relay in front of it. Nothing leaves this machine.

  your software  ->  {address}  ->  relay  ->  simulated Exchange Online on localhost:{smtp_port} (STARTTLS, XOAUTH2)
                                          \\->  simulated Entra ID at {authority}

Send something from another terminal:

  swaks --server {address} --from {DEFAULT_MAILBOX} --to {RECIPIENT}

  printf 'From: {DEFAULT_MAILBOX}\\nTo: {RECIPIENT}\\nSubject: hello\\n\\nfrom curl\\n' | \\
    curl -sS --url smtp://{address} --mail-from {DEFAULT_MAILBOX} --mail-rcpt {RECIPIENT} --upload-file -

  python3 -c 'import smtplib; smtplib.SMTP(\"{host}\", {port}).sendmail(\"{DEFAULT_MAILBOX}\", \"{RECIPIENT}\",
    \"From: {DEFAULT_MAILBOX}\\r\\nSubject: hello\\r\\n\\r\\nfrom Python\")'

The mailbox {DEFAULT_MAILBOX} may only send as itself, as at Exchange. Try unknown@contoso.com as recipient too.

Make Microsoft misbehave, and look at the relay meanwhile:

  {program} sandbox{port_option} order fault mailbox-full
  {program} sandbox{port_option} order help
  {program} status --socket {socket}

The configuration in use is {config}; Ctrl-C ends it all and removes its files.
",
            address = self.address,
            smtp_port = self.tenant.smtp_port(),
            authority = self.tenant.authority(),
            program = program(),
            port_option = if port == DEFAULT_PORT { String::new() } else { format!(" --port {port}") },
            socket = self.directory.path().join(SOCKET).display(),
            config = self.directory.path().join(CONFIGURATION).display(),
        ));
    }

    /// Keeps the octets that the simulated Exchange took, for whoever wants to read them, until the command ends.
    fn save(&self, number: u64, message: &Message) -> Option<PathBuf> {
        let path = self.directory.path().join(format!("message-{number}.eml"));
        fs::write(&path, message.body.octets()?).ok().map(|()| path)
    }

    /// Sends one message down the whole road and tells each step.
    async fn send_one(&self) -> Exit {
        say(&format!(
            "1. Simulated tenant up: Entra ID at {}, Exchange Online on localhost:{}",
            self.tenant.authority(),
            self.tenant.smtp_port()
        ));
        say(&format!("2. Relay listens on {}", self.address));
        let road = async {
            let queued = submit(self.address).await?;
            say(&format!("3. Message submitted from {DEFAULT_MAILBOX} to {RECIPIENT}; the relay answered: {queued}"));
            let taken = self.tenant.wait_for(1, PATIENCE).await?;
            Ok::<_, Failure>(taken)
        };
        match road.await {
            Ok(taken) => {
                let counters = self.tenant.counters();
                say(&format!(
                    "4. Token fetched: {} request(s) to Entra ID, {} issued",
                    counters.token_requests, counters.tokens_issued
                ));
                say(&format!(
                    "5. Logged in by XOAUTH2: {} success(es), {} failure(s)",
                    counters.auth_successes, counters.auth_failures
                ));
                for message in taken {
                    let length = message.body.length();
                    say(&format!(
                        "6. Exchange took {length} octets as {} for {}: {}",
                        message.login,
                        recipients(&message),
                        message.message_id
                    ));
                }
                say("The whole road works.");
                Exit::Success
            }
            Err(failure) => {
                check::complain(&failure.to_string());
                exit(&failure)
            }
        }
    }

    async fn leave(self) {
        if let Some(orders) = self.orders {
            orders.stop().await;
            sandbox_orders::leave();
        }
        self.relay.stop(self.settings.shutdown.grace.duration()).await;
        // Nobody else has it now: the orders that held it have ended.
        if let Some(tenant) = Arc::into_inner(self.tenant) {
            tenant.stop().await;
        }
    }
}

/// As the user called us, so that the lines above can be pasted.
fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(char::is_whitespace)).unwrap_or("xoauth2-relay".to_owned())
}

/// A line for whoever watches; nothing depends on its being read.
fn say(line: &str) {
    output::print(&format!("{line}\n"));
}

fn show(number: u64, message: &Message, file: Option<PathBuf>) {
    let Message { login, reverse_path, message_id, .. } = message;
    say(&format!(
        "{} message {number}: from <{reverse_path}> to {} by login {login}, {} octets, {message_id}",
        message.received.rfc3339(),
        recipients(message),
        message.body.length(),
    ));
    if let Some(file) = file {
        say(&format!("    as Exchange got it: {}", file.display()));
    }
}

fn recipients(message: &Message) -> String {
    let addresses: Vec<_> = message.recipients.iter().map(|recipient| format!("<{}>", recipient.address)).collect();
    addresses.join(", ")
}

/// Submits the one message as any client would; gives the relay's final reply.
async fn submit(address: SocketAddr) -> Result<Reply, Failure> {
    let mut client =
        Client { stream: TcpStream::connect(address).await?, parser: ReplyParser::default(), input: Vec::new() };
    client.expect(2).await?;
    for (line, class) in [
        ("EHLO sandbox.localhost".to_owned(), 2),
        (format!("MAIL FROM:<{DEFAULT_MAILBOX}>"), 2),
        (format!("RCPT TO:<{RECIPIENT}>"), 2),
        ("DATA".to_owned(), 3),
    ] {
        client.say(&line).await?;
        client.expect(class).await?;
    }
    client
        .say(&format!("From: {DEFAULT_MAILBOX}\r\nTo: {RECIPIENT}\r\nSubject: Hello\r\n\r\nDown the whole road.\r\n."))
        .await?;
    let queued = client.expect(2).await?;
    client.say("QUIT").await?;
    Ok(queued)
}

struct Client {
    stream: TcpStream,
    parser: ReplyParser,
    input: Vec<u8>,
}

impl Client {
    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await
    }

    async fn expect(&mut self, class: u16) -> Result<Reply, Failure> {
        let reply = timeout(PATIENCE, self.reply())
            .await
            .map_err(|_| Failure::Broken("the relay does not answer".to_owned()))??;
        if reply.code() / 100 == class { Ok(reply) } else { Err(Failure::Refused(reply)) }
    }

    async fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            let (used, reply) = self.parser.push(&self.input).map_err(|error| Failure::Broken(error.to_string()))?;
            self.input.drain(..used);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Failure::Broken("the relay closed the connection".to_owned()));
            }
        }
    }
}
