//! A real Postfix as the other server of the transcripts: it takes mail for anybody from this machine and keeps it in files.
//!
//! Each set of settings that a transcript asks for is an smtpd on a port of its own; queue and files are one. It runs as root
//! from a directory of its own, on loopback, and touches nothing of the system's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::script::Script;
use super::{Arrived, Failure, Player, check};
use crate::harness::{PATIENCE, free_port, is_root, peer, skip, until};
use crate::upstream::{Server, answer, assert_reachable, make_directory, write_aged};

/// A running Postfix; ends when it is dropped.
pub(super) struct OtherMta {
    // In this order they are dropped.
    _server: Server,
    /// By the settings of each smtpd.
    ports: BTreeMap<Vec<String>, u16>,
    /// Messages that earlier dialogs brought, by file.
    seen: Vec<PathBuf>,
    directory: TempDir,
}

impl OtherMta {
    /// Starts one with an smtpd for each of these sets of settings; none, with a line that says why, where that cannot be.
    pub(super) async fn start<'a>(settings: impl Iterator<Item = &'a [String]>) -> Option<Self> {
        peer("postconf")?;
        if !is_root() {
            skip("Postfix is started by root alone");
            return None;
        }
        let ports: BTreeMap<_, _> = settings.map(|settings| (settings.to_vec(), free_port())).collect();
        let directory = TempDir::new().unwrap();
        make_directory(directory.path(), 0o755);
        assert_reachable(directory.path());
        prepare(directory.path(), &ports);
        let master = PathBuf::from(answer(Command::new("postconf").args(["-h", "daemon_directory"]))).join("master");
        let mut command = Command::new(master);
        command.arg("-c").arg(directory.path().join("etc")).arg("-d");
        let server = Server::start(command);
        let is_up = || ports.values().all(|port| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok());
        assert!(until(PATIENCE, is_up).await, "Postfix does not start");
        Some(Self { _server: server, ports, seen: Vec::new(), directory })
    }

    /// Plays a transcript against the smtpd with these settings.
    pub(super) async fn play(&mut self, script: &Script, settings: &[String]) -> Result<(), Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[settings]));
        let stream = TcpStream::connect(address).await.unwrap();
        let client = stream.local_addr().unwrap().port();
        let played = Player::new(stream).play(&script.steps).await;
        // smtpd says so when it is done with a client; by then what it took is in the queue.
        let ended = format!("disconnect from unknown[127.0.0.1]:{client} ");
        if !until(PATIENCE, || self.log().contains(&ended)).await {
            return Err(Failure::new(1, "Postfix does not end the session"));
        }
        if !until(PATIENCE, || self.is_settled()).await {
            return Err(Failure::new(1, format!("Postfix does not deliver what it took:\n{}", self.log())));
        }
        let arrived = self.arrived();
        played?;
        check(&script.checks, &arrived)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log/mail.log")).unwrap_or_default()
    }

    /// Nothing is in the queue any more.
    fn is_settled(&self) -> bool {
        ["incoming", "active", "deferred"].iter().all(|name| files(&self.path("queue").join(name)).is_empty())
    }

    /// The messages that came since it was asked last.
    fn arrived(&mut self) -> Vec<Arrived> {
        let mut found = files(&self.path("mail/all/new"));
        found.retain(|file| !self.seen.contains(file));
        found.sort();
        self.seen.extend(found.iter().cloned());
        found.iter().map(|file| stored(&std::fs::read(file).unwrap())).collect()
    }
}

/// The files in a directory and those below it; Postfix may move them meanwhile.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A message as [`KEEP`] left it: lines of sender and recipients and an empty one come first.
fn stored(octets: &[u8]) -> Arrived {
    let at = octets.windows(2).position(|two| two == b"\n\n").expect("the envelope comes first");
    let envelope = String::from_utf8_lossy(&octets[..at]).into_owned();
    let mut lines = envelope.lines();
    let from = lines.next().unwrap_or_default().trim_start_matches('<').trim_end_matches('>').to_owned();
    Arrived { from, to: lines.map(str::to_owned).collect(), content: octets[at + 2..].to_vec(), announced: None }
}

fn prepare(directory: &Path, ports: &BTreeMap<Vec<String>, u16>) {
    let at = |name: &str| directory.join(name);
    let number = |option: &str, user: &str| answer(Command::new("id").args([option, user])).parse::<u32>().unwrap();
    let owner = answer(Command::new("postconf").args(["-h", "mail_owner"]));
    for name in ["queue", "etc", "data", "log", "mail/all/new", "mail/all/tmp"] {
        make_directory(&at(name), 0o755);
    }
    // What processes write that have given up root.
    for (name, user) in [("data", owner.as_str()), ("log", &owner), ("mail/all/new", KEEPER), ("mail/all/tmp", KEEPER)]
    {
        chown(at(name), Some(number("-u", user)), Some(number("-g", user))).unwrap();
    }
    write_aged(&at("etc/main.cf"), &main_cf(directory));
    write_aged(&at("etc/master.cf"), &master_cf(directory, ports));
    write_aged(&at("etc/keep"), KEEP);
    // Makes the queue's directories.
    answer(Command::new("postfix").arg("-c").arg(at("etc")).arg("check"));
}

/// Who writes the files: pipe(8) wants neither root nor Postfix's own user.
const KEEPER: &str = "nobody";

/// Keeps a message with its envelope: `keep DIRECTORY SENDER RECIPIENT...`, the message on standard input.
const KEEP: &str = "directory=$1\nshift\nfile=$(mktemp \"$directory/tmp/XXXXXXXX\") || exit 75\n\
    { printf '%s\\n' \"<$1>\"; shift; printf '%s\\n' \"$@\"; echo; cat; } > \"$file\" || exit 75\n\
    mv \"$file\" \"$directory/new/\" || exit 75\n";

fn main_cf(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {directory}/queue\n\
         data_directory = {directory}/data\n\
         maillog_file = {directory}/log/mail.log\n\
         maillog_file_prefixes = {directory}\n\
         \n\
         myhostname = postfix.localdomain\n\
         myorigin = contoso.com\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\n\
         mydestination =\n\
         local_recipient_maps =\n\
         local_transport = keep:all\n\
         default_transport = keep:all\n\
         alias_maps =\n\
         alias_database =\n\
         smtp_dns_support_level = disabled\n\
         service_throttle_time = 1s\n\
         \n\
         # A submission service completes headers, and this one does it for everybody.\n\
         local_header_rewrite_clients =\n\
         always_add_missing_headers = yes\n\
         # As strict against smuggling as it knows how to be without refusing old clients.\n\
         smtpd_forbid_bare_newline = yes\n\
         smtpd_forbid_bare_newline_exclusions =\n\
         # It closes after the errors, junk and hops after which we do; it answers before it counts, and we count first.\n\
         smtpd_hard_error_limit = 9\n\
         smtpd_junk_command_limit = 99\n\
         hopcount_limit = 102\n\
         smtpd_error_sleep_time = 0s\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         smtpd_recipient_restrictions =\n\
         smtpd_peername_lookup = no\n\
         smtpd_client_port_logging = yes\n\
         smtpd_client_connection_count_limit = 0\n"
    )
}

/// The services of a server that takes mail and keeps it; their columns are in master(5).
fn master_cf(directory: &Path, ports: &BTreeMap<Vec<String>, u16>) -> String {
    let smtpd = |(settings, port): (&Vec<String>, &u16)| {
        let settings: Vec<_> = settings.iter().map(|setting| format!(" -o {{ {setting} }}")).collect();
        format!("127.0.0.1:{port} inet n - n - - smtpd{}\n", settings.concat())
    };
    let directory = directory.display();
    ports.iter().map(smtpd).collect::<String>()
        + &format!(
            "cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\n\
             error unix - - n - - error\n\
             retry unix - - n - - error\n\
             postlog unix-dgram n - n - 1 postlogd\n\
             keep unix - n n - - pipe flags=q null_sender= user={KEEPER} argv=/bin/sh {directory}/etc/keep {directory}/mail/all \
             ${{sender}} ${{recipient}}\n"
        )
}
