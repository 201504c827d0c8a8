//! A real Postfix that takes mail by STARTTLS and AUTH XOAUTH2, asks a real Dovecot about each token, and delivers to files.
//!
//! Both run as root from a directory of their own, on loopback, and touch nothing of the system's. Dovecot asks the test about
//! each token (RFC 7662), and the test reads the claims; it cannot check the signature, since the simulated Entra gives its key
//! to nobody. It is not Exchange: its limits and its words are its own. Dovecot 2.3 (Debian 12) alone: 2.4 is configured
//! otherwise.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{PATIENCE, RECIPIENT, SENDER, World, free_port, is_root, peer, skip, until};

/// A second recipient that Postfix knows.
pub(crate) const OTHER: &str = "other@example.com";
/// Postfix takes messages up to this size, in octets.
const LARGEST_MESSAGE: u32 = 64 << 20;
/// Octets of a line of commands that Postfix takes. A token in the AUTH command is longer than the 2,048 that it takes
/// otherwise; this is what RFC 4954 section 4 has for the lines of the dialog.
const LONGEST_LINE: u32 = 12_288;
/// How old configuration files look: Postfix waits for seconds before it trusts one that was written just now.
const AGE: Duration = Duration::from_mins(1);
/// How long a server may take to end before it is killed.
const FAREWELL: Duration = Duration::from_secs(10);
/// Octets of a request that Dovecot may make.
const LARGEST_REQUEST: usize = 64 * 1024;

/// A running Postfix and the Dovecot that it asks. Both end when it is dropped.
pub(crate) struct Upstream {
    // In this order they are dropped.
    postfix: Option<Server>,
    dovecot: Option<Server>,
    pub(crate) judge: Arc<Judge>,
    port: u16,
    /// The programs that stay.
    programs: [PathBuf; 2],
    directory: TempDir,
}

/// What the test says of the tokens that Dovecot asks about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// A token of the simulated Entra is good for the mailbox with this address.
    GoodFor(&'static str),
    /// No token is good.
    Inactive,
    /// The token that was asked about first is good no more; another is good for the usual mailbox.
    FirstRevoked,
}

/// The endpoint that Dovecot asks.
pub(crate) struct Judge {
    verdict: Mutex<Verdict>,
    /// Every token that was asked about, as often as it was.
    tokens: Mutex<Vec<String>>,
}

impl Upstream {
    /// Starts both; none, with a line that says why, where that cannot be.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// The same with more settings of Postfix.
    pub(crate) async fn start_with(settings: &str) -> Option<Self> {
        let (dovecot, _postconf, openssl) = (peer("dovecot")?, peer("postconf")?, peer("openssl")?);
        if !is_root() {
            skip("Postfix and Dovecot are started by root alone");
            return None;
        }
        let version = answer(Command::new(&dovecot).arg("--version"));
        if !version.starts_with("2.3.") {
            skip(&format!("this test configures Dovecot 2.3, not {version}"));
            return None;
        }
        let directory = TempDir::new().unwrap();
        make_directory(directory.path(), 0o755);
        assert_reachable(directory.path());
        let (judge, judge_port) = Judge::start().await;
        prepare_dovecot(directory.path(), judge_port);
        make_certificate(&openssl, directory.path());
        let port = free_port();
        prepare_postfix(directory.path(), port, settings);
        let master = PathBuf::from(answer(Command::new("postconf").args(["-h", "daemon_directory"]))).join("master");
        let mut upstream = Self { postfix: None, dovecot: None, judge, port, programs: [dovecot, master], directory };
        upstream.start_dovecot().await;
        upstream.start_postfix().await;
        Some(upstream)
    }

    /// Starts Dovecot, on the same socket as before.
    pub(crate) async fn start_dovecot(&mut self) {
        let mut command = Command::new(&self.programs[0]);
        command.arg("-F").arg("-c").arg(self.path("dovecot/dovecot.conf"));
        self.dovecot = Some(Server::start(command));
        let socket = self.path("sasl");
        assert!(until(PATIENCE, || UnixStream::connect(&socket).is_ok()).await, "Dovecot does not start");
    }

    /// Starts Postfix, on the same port and queue as before.
    pub(crate) async fn start_postfix(&mut self) {
        let mut command = Command::new(&self.programs[1]);
        command.arg("-c").arg(self.path("etc")).arg("-d");
        self.postfix = Some(Server::start(command));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        assert!(until(PATIENCE, || TcpStream::connect(address).is_ok()).await, "Postfix does not start");
    }

    /// Ends Dovecot: nobody can log in any more.
    pub(crate) fn stop_dovecot(&mut self) {
        self.dovecot = None;
    }

    /// Ends Postfix with every connection that it has.
    pub(crate) fn stop_postfix(&mut self) {
        self.postfix = None;
    }

    /// The configuration of a relay that takes its tokens from the world's simulated Entra and sends to this Postfix by so many
    /// connections at most.
    pub(crate) fn configuration(&self, world: &World, connections: usize) -> PathBuf {
        let smtp = format!(
            "smtp = {{ host = \"localhost\", port = {}, ca_file = {:?} }}",
            self.port,
            self.path("etc/certificate.pem").display().to_string(),
        );
        let lines: Vec<_> = world
            .configuration_text()
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some(("smtp", _)) => smtp.clone(),
                Some(("connections", _)) => format!("connections = {connections}"),
                _ => line.to_owned(),
            })
            .collect();
        let path = world.path("postfix.toml");
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The messages that were delivered to a recipient, in no order, with LF for CRLF as Postfix stores them.
    pub(crate) fn mail_of(&self, recipient: &str) -> Vec<Vec<u8>> {
        let directory = self.path("mail").join(recipient).join("new");
        // There is none before the first message.
        let Ok(files) = std::fs::read_dir(directory) else { return Vec::new() };
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Waits until so many messages were delivered to a recipient, and gives them.
    pub(crate) async fn wait_for(&self, recipient: &str, count: usize) -> Vec<Vec<u8>> {
        assert!(
            until(PATIENCE, || self.count_of(recipient) >= count).await,
            "{} instead of {count} messages came for {recipient}",
            self.count_of(recipient)
        );
        self.mail_of(recipient)
    }

    /// How many messages were delivered to a recipient.
    pub(crate) fn count_of(&self, recipient: &str) -> usize {
        std::fs::read_dir(self.path("mail").join(recipient).join("new")).map_or(0, Iterator::count)
    }

    /// How often each Message-ID was delivered to a recipient.
    pub(crate) fn ids_of(&self, recipient: &str) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for mail in self.mail_of(recipient) {
            let header = split(&mail).0;
            let id = header.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap();
            *ids.entry(id.to_owned()).or_default() += 1;
        }
        ids
    }

    /// Waits until Postfix has delivered whatever it took.
    pub(crate) async fn settled(&self) {
        let is_settled = || {
            let log = self.log();
            let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
            count("(queue active)") == count(": removed")
        };
        assert!(until(PATIENCE, is_settled).await, "Postfix does not deliver what it took");
    }

    /// Postfix's log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log/mail.log")).unwrap()
    }

    /// Waits until its log has a line, and gives it.
    pub(crate) async fn wait_for_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        let found = || self.log().lines().find(|line| wanted(line)).map(str::to_owned);
        assert!(until(PATIENCE, || found().is_some()).await, "the line did not come");
        found().unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["log/mail.log", "dovecot/log"] {
                eprintln!("--- {name} ---\n{}", std::fs::read_to_string(self.path(name)).unwrap_or_default());
            }
        }
    }
}

/// Header and body of a message that was delivered.
pub(crate) fn split(mail: &[u8]) -> (String, &[u8]) {
    let at = mail.windows(2).position(|two| two == b"\n\n").expect("there is an empty line");
    (String::from_utf8_lossy(&mail[..=at]).into_owned(), &mail[at + 2..])
}

/// A process with children, in a group of its own: Postfix ends its children by a signal to its group.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        let _ = kill_process(pid, Signal::TERM);
        let end = std::time::Instant::now() + FAREWELL;
        while matches!(self.0.try_wait(), Ok(None)) {
            if std::time::Instant::now() >= end {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Judge {
    /// Starts an endpoint that finds the tokens of the usual mailbox good, and gives its port.
    async fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let judge = Arc::new(Self { verdict: Mutex::new(Verdict::GoodFor(SENDER)), tokens: Mutex::new(Vec::new()) });
        let served = Arc::clone(&judge);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let judge = Arc::clone(&served);
                // Dovecot that hangs up has heard enough.
                tokio::spawn(async move { judge.serve(stream).await });
            }
        });
        (judge, port)
    }

    /// What it says from now on.
    pub(crate) fn say(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap() = verdict;
    }

    /// Every token that was asked about, as often as it was.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    /// One request a connection.
    async fn serve(&self, mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
        let body = read_request(&mut stream).await?;
        let token = url::form_urlencoded::parse(&body).find(|(name, _)| name == "token");
        let token = token.map(|(_, token)| token.into_owned()).unwrap_or_default();
        let answer = self.answer(&token).to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        let reply = format!("{head}Content-Length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await
    }

    fn answer(&self, token: &str) -> Value {
        let mut tokens = self.tokens.lock().unwrap();
        tokens.push(token.to_owned());
        let user = match *self.verdict.lock().unwrap() {
            Verdict::GoodFor(user) => Some(user),
            Verdict::FirstRevoked => (tokens[0] != token).then_some(SENDER),
            Verdict::Inactive => None,
        };
        match user.zip(claims(token)) {
            Some((user, claims)) => {
                json!({ "active": true, "username": user, "iss": claims["iss"], "exp": claims["exp"] })
            }
            None => json!({ "active": false }),
        }
    }
}

/// The body of one HTTP request.
async fn read_request(stream: &mut tokio::net::TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            if let Some(body) = request.get(at + 4..).and_then(|rest| rest.get(..length)) {
                return Ok(body.to_vec());
            }
        }
        if stream.read_buf(&mut request).await? == 0 || request.len() > LARGEST_REQUEST {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}

/// The claims of a token that the simulated Entra gave the relay for Exchange and that has not ended.
fn claims(token: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let good = claims["aud"] == "https://outlook.office365.com"
        && claims["tid"] == sandbox::DEFAULT_TENANT_ID
        && claims["appid"] == sandbox::DEFAULT_CLIENT_ID
        && claims["exp"].as_u64()? > now;
    good.then_some(claims)
}

fn prepare_dovecot(directory: &Path, judge: u16) {
    let home = directory.join("dovecot");
    make_directory(&home, 0o755);
    let (home, sasl, tenant) = (home.display(), directory.join("sasl"), sandbox::DEFAULT_TENANT_ID);
    let main = format!(
        "base_dir = {home}/run\n\
         state_dir = {home}/state\n\
         log_path = {home}/log\n\
         instance_name = xoauth2-relay-test\n\
         protocols =\n\
         ssl = no\n\
         auth_mechanisms = xoauth2\n\
         auth_failure_delay = 0\n\
         service anvil {{\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n\
         auth_verbose = yes\n\
         passdb {{\n  driver = oauth2\n  mechanisms = xoauth2\n  args = {home}/oauth2.conf\n}}\n\
         service auth {{\n  unix_listener {} {{\n    mode = 0666\n  }}\n}}\n",
        sasl.display(),
    );
    let oauth2 = format!(
        "introspection_url = http://127.0.0.1:{judge}/introspect\n\
         introspection_mode = post\n\
         force_introspection = yes\n\
         username_attribute = username\n\
         active_attribute = active\n\
         active_value = true\n\
         issuers = https://sts.windows.net/{tenant}/\n\
         timeout_msecs = 10000\n"
    );
    std::fs::write(directory.join("dovecot/dovecot.conf"), main).unwrap();
    std::fs::write(directory.join("dovecot/oauth2.conf"), oauth2).unwrap();
}

/// A certificate for `localhost` that is its own authority.
fn make_certificate(openssl: &Path, directory: &Path) {
    let etc = directory.join("etc");
    make_directory(&etc, 0o755);
    let request = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n[name]\nCN = localhost\n\
        [extensions]\nsubjectAltName = DNS:localhost\nbasicConstraints = critical, CA:FALSE\n\
        extendedKeyUsage = serverAuth\n";
    std::fs::write(etc.join("request"), request).unwrap();
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.current_dir(&etc).args(["-config", "request", "-keyout", "key.pem", "-out", "certificate.pem"]);
    answer(&mut command);
}

fn prepare_postfix(directory: &Path, port: u16, settings: &str) {
    let at = |name: &str| directory.join(name);
    let owner = answer(Command::new("postconf").args(["-h", "mail_owner"]));
    let number = |option: &str| answer(Command::new("id").args([option, owner.as_str()])).parse::<u32>().unwrap();
    let (user, group) = (number("-u"), number("-g"));
    make_directory(&at("queue"), 0o755);
    // What processes write that have given up root.
    for name in ["data", "log", "mail"] {
        make_directory(&at(name), 0o700);
        chown(at(name), Some(user), Some(group)).unwrap();
    }
    write_aged(&at("etc/main.cf"), &(main_cf(directory, user, group) + settings));
    write_aged(&at("etc/master.cf"), &master_cf(port));
    // Makes the queue's directories.
    answer(Command::new("postfix").arg("-c").arg(at("etc")).arg("check"));
}

fn main_cf(directory: &Path, user: u32, group: u32) -> String {
    let directory = directory.display();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {directory}/queue\n\
         data_directory = {directory}/data\n\
         maillog_file = {directory}/log/mail.log\n\
         maillog_file_prefixes = {directory}\n\
         \n\
         myhostname = postfix.localdomain\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mynetworks =\n\
         mydestination =\n\
         local_recipient_maps =\n\
         local_transport = error:nothing is local here\n\
         default_transport = error:nothing leaves here\n\
         alias_maps =\n\
         alias_database =\n\
         local_header_rewrite_clients =\n\
         smtp_dns_support_level = disabled\n\
         message_size_limit = {LARGEST_MESSAGE}\n\
         line_length_limit = {LONGEST_LINE}\n\
         service_throttle_time = 1s\n\
         \n\
         virtual_mailbox_domains = example.com, contoso.com\n\
         virtual_mailbox_maps = inline:{{ {{ {RECIPIENT} = {RECIPIENT}/ }}, {{ {OTHER} = {OTHER}/ }}, {{ {SENDER} = {SENDER}/ }} }}\n\
         virtual_mailbox_base = {directory}/mail\n\
         virtual_mailbox_limit = 0\n\
         virtual_uid_maps = static:{user}\n\
         virtual_gid_maps = static:{group}\n\
         \n\
         smtpd_peername_lookup = no\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_tls_chain_files = {directory}/etc/key.pem, {directory}/etc/certificate.pem\n\
         smtpd_tls_security_level = encrypt\n\
         smtpd_tls_loglevel = 1\n\
         smtpd_sasl_auth_enable = yes\n\
         smtpd_sasl_type = dovecot\n\
         smtpd_sasl_path = {directory}/sasl\n\
         smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
         smtpd_recipient_restrictions = reject_unlisted_recipient, permit_sasl_authenticated, reject\n"
    )
}

/// The services of a server that takes mail and keeps it; their columns are in master(5).
fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         virtual unix - n n - - virtual\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

pub(crate) fn make_directory(path: &Path, mode: u32) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Both open files after they gave up root.
pub(crate) fn assert_reachable(directory: &Path) {
    for ancestor in directory.ancestors() {
        let mode = std::fs::metadata(ancestor).unwrap().permissions().mode();
        assert!(mode & 0o001 != 0, "Postfix's user cannot pass {}: set TMPDIR to another place", ancestor.display());
    }
}

pub(crate) fn write_aged(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - AGE).unwrap();
}

/// Runs a program to its end and gives what it said.
pub(crate) fn answer(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
