//! Postfix as a relay to the upstream, logging in by AUTH PLAIN or, with the plugin sasl-xoauth2, by AUTH XOAUTH2.
//!
//! An instance of its own for each directory, tuned for this load as its documentation advises, with its durability and
//! its log as they ship. It needs root and the users that the package makes; it touches nothing of the system's Postfix.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::{Missing, Setting, Spawned, Subject, ground};
use crate::error::BenchError;
use crate::figure::Description;

/// Fewest processes that one service may have: Postfix's own default.
const FEWEST_PROCESSES: usize = 100;

/// Processes above the clients, so that smtpd never falls into its stress mode.
const SPARE_PROCESSES: usize = 20;

/// What Postfix adds to a message (Received, its own records), so that the largest one still fits, in octets.
const ADDED: u64 = 64 * 1024;

/// The expiry of the token in its file, in Unix time: in 2038, the last that the plugin's 32 bits hold, so that it never
/// asks for another.
const EXPIRY: i32 = i32::MAX;

/// Where libsasl2 looks for plugins: Debian's multiarch directories, then the others.
const PLUGIN_DIRECTORIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/sasl2",
    "/usr/lib/aarch64-linux-gnu/sasl2",
    "/usr/lib64/sasl2",
    "/usr/lib/sasl2",
    "/usr/local/lib/sasl2",
];

/// The plugin reads it when it is loaded, and stays unloaded without it; its path is fixed when it is built.
const PLUGIN_CONFIGURATION: &str = "/etc/sasl-xoauth2.conf";

/// How old configuration files look.
const AGE: Duration = Duration::from_mins(1);

const PLAIN: &str = "postfix-plain";
const XOAUTH2: &str = "postfix-xoauth2";
const INSTALL: &str = "apt-get install postfix libsasl2-modules";
const INSTALL_XOAUTH2: &str = "apt-get install postfix libsasl2-modules, and sasl-xoauth2 where the distribution has it; on Debian 12 \
     build https://github.com/tarickb/sasl-xoauth2 and install libsasl-xoauth2.so and /etc/sasl-xoauth2.conf";

/// How Postfix logs in upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Xoauth2,
}

/// An installed Postfix.
#[derive(Debug)]
struct Postfix {
    mechanism: Mechanism,
    version: String,
    /// Its `daemon_directory`.
    programs: PathBuf,
    /// User and group that its processes run as.
    owner: (u32, u32),
}

/// Postfix that logs in by AUTH PLAIN.
pub(crate) fn find_plain() -> Result<Box<dyn Subject>, Missing> {
    let missing = |why| Missing { name: PLAIN, why, install: INSTALL };
    Ok(Box::new(Postfix::find(Mechanism::Plain).map_err(missing)?))
}

/// Postfix that logs in by AUTH XOAUTH2, by the plugin sasl-xoauth2.
pub(crate) fn find_xoauth2() -> Result<Box<dyn Subject>, Missing> {
    let missing = |why| Missing { name: XOAUTH2, why, install: INSTALL_XOAUTH2 };
    let postfix = Postfix::find(Mechanism::Xoauth2).map_err(missing)?;
    if !PLUGIN_DIRECTORIES.iter().any(|directory| Path::new(directory).join("libsasl-xoauth2.so").exists()) {
        return Err(missing("libsasl-xoauth2.so is in no plugin directory of libsasl2".to_owned()));
    }
    if !Path::new(PLUGIN_CONFIGURATION).exists() {
        return Err(missing(format!("the plugin sasl-xoauth2 has no {PLUGIN_CONFIGURATION}")));
    }
    Ok(Box::new(postfix))
}

impl Postfix {
    fn find(mechanism: Mechanism) -> Result<Self, String> {
        let programs = ask("postconf", &["-h", "daemon_directory"])?;
        let version = ask("postconf", &["-h", "mail_version"])?;
        if !rustix::process::geteuid().is_root() {
            return Err("Postfix is started by root alone: run the benchmark as root".to_owned());
        }
        let owner = ask("postconf", &["-h", "mail_owner"])?;
        let number = |option| -> Result<u32, String> {
            let said = ask("id", &[option, &owner])?;
            said.parse().map_err(|_| format!("id {option} {owner} said {said:?}"))
        };
        Ok(Self { mechanism, version, programs: PathBuf::from(programs), owner: (number("-u")?, number("-g")?) })
    }

    fn prepare(&self, places: &Places, setting: &Setting<'_>, port: u16) -> Result<(), BenchError> {
        ground::make_directory(setting.directory, 0o755)?;
        is_reachable(setting.directory)?;
        for (directory, mode) in [(&places.configuration, 0o755), (&places.queue, 0o755)] {
            ground::make_directory(directory, mode)?;
        }
        for directory in [&places.data, &places.log] {
            ground::make_directory(directory, 0o700)?;
            self.give(directory)?;
        }
        // postsuper writes it as Postfix's user, postlogd as root: whoever comes first must not keep the other out.
        ground::append(&places.mail_log())?;
        self.give(&places.mail_log())?;
        let authority = &setting.upstream.ca_file;
        let authority = fs::read(authority).map_err(BenchError::file("read", authority))?;
        ground::write(&places.authority(), 0o644, authority)?;
        ground::write(&places.token(), 0o600, token_file(&setting.upstream.password))?;
        self.give(&places.token())?;
        write_aged(&places.login(), 0o600, &login_file(self.mechanism, places, setting))?;
        write_aged(&places.configuration.join("main.cf"), 0o644, &main_cf(self.mechanism, places, setting))?;
        write_aged(&places.configuration.join("master.cf"), 0o644, &master_cf(setting, port))
    }

    fn give(&self, path: &Path) -> Result<(), BenchError> {
        chown(path, Some(self.owner.0), Some(self.owner.1)).map_err(BenchError::file("change the owner of", path))
    }
}

impl Subject for Postfix {
    fn description(&self) -> Description {
        let (name, plugin, login) = match self.mechanism {
            Mechanism::Plain => (PLAIN, "", "AUTH PLAIN"),
            Mechanism::Xoauth2 => {
                (XOAUTH2, " with sasl-xoauth2", "AUTH XOAUTH2, the token from a file, without refresh")
            }
        };
        Description {
            name: name.to_owned(),
            product: format!("Postfix {}{plugin}", self.version),
            setup: format!(
                "{login}. TLS connections and sessions upstream are reused; concurrency from the first message on; \
                 processes live for 10,000 uses; no DNS, no client limits, no flow delay, no chroot; \
                 restrictions are loopback alone; logs to a file. Durability as it ships: every message is synced."
            ),
        }
    }

    fn has_queue(&self) -> bool {
        true
    }

    // It makes a process for each, and one for the message of each.
    fn most_clients_elsewhere(&self) -> usize {
        100
    }

    fn spawn(&self, setting: &Setting<'_>) -> Result<Spawned, BenchError> {
        let address = ground::free_address()?;
        let places = Places::below(setting.directory);
        self.prepare(&places, setting, address.port())?;
        if !places.hold().exists() {
            ground::answer(Command::new("postfix").arg("-c").arg(&places.configuration).arg("check"))?;
        }
        if !setting.held && has_entries(&places.hold())? {
            ground::answer(Command::new("postsuper").arg("-c").arg(&places.configuration).args(["-H", "ALL"]))?;
        }
        let master = self.programs.join("master");
        let mut command = setting.command(&master);
        command.arg("-c").arg(&places.configuration).arg("-d");
        // It ends its children by a signal to its process group, and makes none of its own in the foreground.
        command.process_group(0);
        Spawned::start(ground::logged(command, &places.log.join("master.log"))?, address)
    }
}

/// Where an instance keeps what.
struct Places {
    configuration: PathBuf,
    queue: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Places {
    fn below(directory: &Path) -> Self {
        let at = |name| directory.join(name);
        Self { configuration: at("etc"), queue: at("queue"), data: at("data"), log: at("log") }
    }

    fn hold(&self) -> PathBuf {
        self.queue.join("hold")
    }

    fn authority(&self) -> PathBuf {
        self.configuration.join("authority.pem")
    }

    fn login(&self) -> PathBuf {
        self.configuration.join("login")
    }

    fn mail_log(&self) -> PathBuf {
        self.log.join("mail.log")
    }

    /// Beside the data, because the plugin would write it anew as Postfix's user.
    fn token(&self) -> PathBuf {
        self.data.join("token.json")
    }
}

/// Writes a file that looks [`AGE`] old: Postfix waits for seconds before it trusts one that was written just now, and
/// that is no part of its start.
fn write_aged(path: &Path, mode: u32, text: &str) -> Result<(), BenchError> {
    ground::write(path, mode, text)?;
    let file = fs::File::options().write(true).open(path).map_err(BenchError::file("open", path))?;
    file.set_modified(SystemTime::now() - AGE).map_err(BenchError::file("set the time of", path))
}

fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    ground::answer(Command::new(program).args(arguments)).map_err(|error| error.to_string())
}

/// Some of Postfix's processes open files after they gave up root.
fn is_reachable(directory: &Path) -> Result<(), BenchError> {
    let directory = fs::canonicalize(directory).map_err(BenchError::file("find", directory))?;
    for ancestor in directory.ancestors() {
        let metadata = fs::metadata(ancestor).map_err(BenchError::file("look at", ancestor))?;
        if metadata.permissions().mode() & 0o001 == 0 {
            let ancestor = ancestor.display();
            return Err(BenchError::Impossible(format!(
                "Postfix's user cannot pass {ancestor}: give it mode 0711 or choose another directory"
            )));
        }
    }
    Ok(())
}

fn has_entries(directory: &Path) -> Result<bool, BenchError> {
    Ok(fs::read_dir(directory).map_err(BenchError::file("read", directory))?.next().is_some())
}

fn token_file(token: &str) -> String {
    serde_json::json!({ "access_token": token, "refresh_token": "none", "expiry": EXPIRY.to_string() }).to_string()
}

fn login_file(mechanism: Mechanism, places: &Places, setting: &Setting<'_>) -> String {
    let upstream = setting.upstream;
    let secret = match mechanism {
        Mechanism::Plain => upstream.password.clone(),
        Mechanism::Xoauth2 => places.token().display().to_string(),
    };
    format!("[localhost]:{} {}:{secret}\n", upstream.port, upstream.user)
}

fn processes(setting: &Setting<'_>) -> usize {
    FEWEST_PROCESSES.max(setting.clients + SPARE_PROCESSES)
}

fn main_cf(mechanism: Mechanism, places: &Places, setting: &Setting<'_>) -> String {
    let Setting { directory, upstream, upstream_connections: concurrency, .. } = setting;
    let mut text = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {queue}\n\
         data_directory = {data}\n\
         maillog_file = {log}\n\
         maillog_file_prefixes = {directory}\n\
         \n\
         myhostname = postfix.localdomain\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\n\
         mydestination =\n\
         local_recipient_maps =\n\
         local_transport = error:nothing is delivered here\n\
         alias_maps =\n\
         alias_database =\n\
         fast_flush_domains =\n\
         relayhost = [localhost]:{port}\n\
         message_size_limit = {size}\n\
         mailbox_size_limit = 0\n\
         \n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         smtpd_peername_lookup = no\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_timeout = 3600s\n\
         local_header_rewrite_clients =\n\
         in_flow_delay = 0\n\
         max_use = 10000\n\
         default_process_limit = {processes}\n\
         default_destination_concurrency_limit = {concurrency}\n\
         initial_destination_concurrency = {concurrency}\n\
         minimal_backoff_time = 5s\n\
         queue_run_delay = 5s\n\
         \n\
         smtp_dns_support_level = disabled\n\
         smtp_host_lookup = native\n\
         smtp_tls_security_level = secure\n\
         smtp_tls_CAfile = {authority}\n\
         smtp_tls_session_cache_database = btree:{data}/smtp_scache\n\
         smtp_tls_connection_reuse = yes\n\
         smtp_sasl_auth_enable = yes\n\
         smtp_sasl_security_options = noanonymous\n\
         smtp_sasl_mechanism_filter = {filter}\n\
         smtp_sasl_password_maps = texthash:{login}\n",
        queue = places.queue.display(),
        data = places.data.display(),
        log = places.mail_log().display(),
        directory = directory.display(),
        port = upstream.port,
        size = setting.largest_message.saturating_add(ADDED),
        processes = processes(setting),
        authority = places.authority().display(),
        filter = match mechanism {
            Mechanism::Plain => "plain",
            Mechanism::Xoauth2 => "xoauth2",
        },
        login = places.login().display(),
    );
    if setting.held {
        text.push_str("\nsmtpd_client_restrictions = check_client_access static:HOLD\n");
    }
    text
}

/// The services of a relay; their columns are in master(5). Zero processes mean no limit, a dash the default.
fn master_cf(setting: &Setting<'_>, port: u16) -> String {
    let listener = format!("127.0.0.1:{port}");
    let concurrency = setting.upstream_connections.to_string();
    let services = [
        (listener.as_str(), "inet", "n", "-", "-", "smtpd"),
        ("cleanup", "unix", "n", "-", "0", "cleanup"),
        ("qmgr", "unix", "n", "300", "1", "qmgr"),
        ("tlsmgr", "unix", "-", "1000?", "1", "tlsmgr"),
        ("tlsproxy", "unix", "-", "-", "0", "tlsproxy"),
        ("rewrite", "unix", "-", "-", "-", "trivial-rewrite"),
        ("bounce", "unix", "-", "-", "0", "bounce"),
        ("defer", "unix", "-", "-", "0", "bounce"),
        ("trace", "unix", "-", "-", "0", "bounce"),
        ("smtp", "unix", "-", "-", &concurrency, "smtp"),
        ("error", "unix", "-", "-", "-", "error"),
        ("retry", "unix", "-", "-", "-", "error"),
        ("scache", "unix", "-", "-", "1", "scache"),
        ("postlog", "unix-dgram", "n", "-", "1", "postlogd"),
    ];
    let mut text = String::from("# service type private unpriv chroot wakeup maxproc command\n");
    for (service, kind, private, wakeup, most, program) in services {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{service} {kind} {private} - n {wakeup} {most} {program}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::ground::tests::{greeting, setting, upstream};
    use super::*;

    #[test]
    fn configurations_follow_the_setting() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let places = Places::below(Path::new("/queue"));
        for (mechanism, held, clients, lines, absent) in [
            (
                Mechanism::Plain,
                false,
                2,
                &["relayhost = [localhost]:9", "smtp_sasl_mechanism_filter = plain", "default_process_limit = 100"][..],
                "HOLD",
            ),
            (
                Mechanism::Xoauth2,
                true,
                1000,
                &[
                    "smtp_sasl_mechanism_filter = xoauth2",
                    "default_process_limit = 1020",
                    "default_destination_concurrency_limit = 2",
                    "message_size_limit = 1114112",
                    "smtp_tls_security_level = secure",
                    "smtp_tls_CAfile = /queue/etc/authority.pem",
                    "smtpd_client_restrictions = check_client_access static:HOLD",
                ],
                "filter = plain",
            ),
        ] {
            let mut setting = setting(Path::new("/queue"), &upstream, held);
            setting.clients = clients;
            let text = main_cf(mechanism, &places, &setting);
            for line in lines {
                assert!(text.lines().any(|one| one == *line), "{line} is not in {text}");
            }
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
    }

    #[test]
    fn logins_name_the_password_or_the_token_file() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let setting = setting(Path::new("/queue"), &upstream, false);
        let places = Places::below(Path::new("/queue"));
        for (mechanism, line) in [
            (Mechanism::Plain, "[localhost]:9 scanner@contoso.com:correct-horse\n"),
            (Mechanism::Xoauth2, "[localhost]:9 scanner@contoso.com:/queue/data/token.json\n"),
        ] {
            assert_eq!(login_file(mechanism, &places, &setting), line);
        }
        assert!(token_file("a\"b").contains(r#""access_token":"a\"b""#));
    }

    #[test]
    fn services_have_eight_columns_and_the_limit_of_connections() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = upstream(directory.path());
        let text = master_cf(&setting(directory.path(), &upstream, false), 2525);
        assert!(text.contains("\n127.0.0.1:2525 inet n - n - - smtpd\n"), "{text}");
        assert!(text.contains("\nsmtp unix - - n - 2 smtp\n"), "{text}");
        assert!(text.lines().skip(1).all(|line| line.split(' ').count() == 8), "{text}");
    }

    #[test]
    fn a_directory_behind_a_closed_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        ground::make_directory(&inner, 0o755).unwrap();
        ground::make_directory(directory.path(), 0o700).unwrap();
        assert!(is_reachable(&inner).unwrap_err().to_string().contains("mode 0711"));
    }

    #[test]
    fn it_greets_and_ends_by_sigterm() {
        for found in [find_plain(), find_xoauth2()] {
            let subject = match found {
                Ok(subject) => subject,
                Err(missing) => {
                    let demanded = missing.name == PLAIN && std::env::var_os("REQUIRE_REAL_PEERS").is_some();
                    assert!(!demanded, "{missing:?}");
                    println!("skip: {missing:?}");
                    continue;
                }
            };
            let directory = tempfile::tempdir().unwrap();
            ground::make_directory(directory.path(), 0o755).unwrap();
            let upstream = upstream(directory.path());
            for held in [true, false] {
                let greeting = greeting(&*subject, &setting(directory.path(), &upstream, held));
                assert!(greeting.starts_with("220"), "{greeting:?}");
            }
        }
    }
}
