//! Clients that nobody here wrote, each with every way to log in by every way to encrypt: a message must arrive octet for octet, and
//! what they are refused must reach whoever runs them. `docs/clients.md` shows the table; its rows are held to what went through here.
//!
//! Command lines stand here, scripts in `clients/`. Where a client can verify the relay's certificate, it does.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox::Message;

use crate::harness::{RECIPIENT, Relay, SENDER, World, binary, field, peer, skip, split, write_secret};

/// In the envelope only.
const HIDDEN: &str = "hidden@example.com";
const USER: &str = "erp";
/// With what has a meaning in URLs, shells and configuration files.
const PASSWORD: &str = "right: p@ss%word #1";
const PAGE: &str = include_str!("../../docs/clients.md");
/// As the clients' scripts are told, and as the listeners are called.
const LOGINS: [&str; 3] = ["none", "PLAIN", "LOGIN"];
const ENCRYPTIONS: [&str; 3] = ["none", "starttls", "implicit"];

/// A body with what goes wrong elsewhere: dots, a long line, a blank line, what mbox files mask, 8-bit text.
fn body() -> String {
    format!(".\r\n..dots\r\n.hidden\r\n{}\r\n\r\nFrom here on\r\nGrüße aus Köln\r\n", "x".repeat(900))
}

fn header(subject: &str) -> String {
    format!(
        "From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: {subject}\r\nX-Folded: one\r\n\ttwo\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    )
}

/// One run of a client.
struct Task {
    login: &'static str,
    tls: &'static str,
    password: &'static str,
    port: u16,
    /// The relay's certificate, which is the one to trust.
    certificate: String,
    subject: String,
    /// A file of the client's own, if it wants one.
    scratch: PathBuf,
}

impl Task {
    fn logs_in(&self) -> bool {
        self.login != "none"
    }

    /// Host and port.
    fn server(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What the scripts are told.
    fn tell(&self, script: &mut Command) {
        script.envs([
            ("SMTP_HOST", "localhost"),
            ("SMTP_PORT", &self.port.to_string()),
            ("SMTP_TLS", self.tls),
            ("SMTP_CA", &self.certificate),
            ("SMTP_AUTH", self.login),
            ("SMTP_USER", USER),
            ("SMTP_PASSWORD", self.password),
            ("SMTP_FROM", SENDER),
            ("SMTP_TO", &format!("{RECIPIENT},{HIDDEN}")),
            ("SMTP_SUBJECT", &self.subject),
        ]);
    }
}

/// What a client is fed.
#[derive(Clone, Copy)]
enum Input {
    /// The whole message with CRLF.
    Message,
    /// The whole message with LF, as a Unix program expects it.
    UnixMessage,
    /// The body with LF; the client writes the header, and does this to the body.
    UnixBody(fn(&str) -> String),
}

impl Input {
    fn text(self, subject: &str) -> String {
        match self {
            Self::Message => header(subject) + "\r\n" + &body(),
            Self::UnixMessage => (header(subject) + "\r\n" + &body()).replace("\r\n", "\n"),
            Self::UnixBody(_) => body().replace("\r\n", "\n"),
        }
    }

    fn has_header(self) -> bool {
        matches!(self, Self::Message | Self::UnixMessage)
    }

    /// The body that must arrive.
    fn arrives(self) -> String {
        match self {
            Self::Message | Self::UnixMessage => body(),
            Self::UnixBody(odd) => odd(&body()),
        }
    }
}

/// A relay with a listener for each way to come in.
struct Office {
    world: World,
    relay: Relay,
    ports: HashMap<String, u16>,
    certificate: String,
}

impl Office {
    async fn open() -> Self {
        let world = World::new().await;
        let shown = |name: &str| world.path(name).display().to_string();
        let (certificate, key) = (shown("tls.pem"), shown("tls.key"));
        let made = binary()
            .args(["self-signed", "--certificate", &certificate, "--private-key", &key])
            .args(["--name", "localhost", "--name", "127.0.0.1"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let files = format!("certificate = {certificate:?}\nprivate_key = {key:?}\n");
        let listener = |name: &str, tls: &str, authentication: &str| {
            let files = if tls == "none" { "" } else { &files };
            format!(
                "[listener.{name}]\naddress = \"127.0.0.1:0\"\nauthentication = {authentication:?}\ntls = {tls:?}\n{files}"
            )
        };
        let mut tables = format!("[user.{USER}]\npassword_hash = \"{}\"\n", hash(PASSWORD));
        for tls in ENCRYPTIONS {
            tables += &listener(&format!("open_{tls}"), tls, "none");
            tables += &listener(&format!("users_{tls}"), tls, "required");
        }
        tables += &listener("strict", "require-starttls", "none");
        let world = world.set("tables", tables);
        let relay = world.relay().await;
        let ports = listeners(&relay.log().text());
        Self { world, relay, ports, certificate }
    }

    /// A run at the listener that fits.
    fn task(&self, login: &'static str, tls: &'static str) -> Task {
        let listener = if login == "none" { format!("open_{tls}") } else { format!("users_{tls}") };
        Task {
            login,
            tls,
            password: PASSWORD,
            port: self.ports[&listener],
            certificate: self.certificate.clone(),
            subject: format!("login {login}, TLS {tls}"),
            scratch: self.world.path("client.conf"),
        }
    }

    fn count_queued(&self) -> usize {
        self.relay.log().count(is_queued)
    }
}

fn is_queued(line: &str) -> bool {
    line.contains("\"message\":\"queued\"")
}

/// The port of each listener by name.
fn listeners(log: &str) -> HashMap<String, u16> {
    let lines = log.lines().filter(|line| line.contains("\"listening\""));
    let port = |line: &str| field(line, "address").rsplit_once(':').unwrap().1.parse().unwrap();
    lines.map(|line| (field(line, "listener"), port(line))).collect()
}

fn hash(password: &str) -> String {
    let (_, hash, complaint) = run(binary().arg("hash-password"), &format!("{password}\n"));
    assert_eq!(complaint, "");
    hash.trim_end().to_owned()
}

/// Whether a program ended well with `input` on standard input, and what it said on its two outputs.
fn run(program: &mut Command, input: &str) -> (bool, String, String) {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A client that is refused early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// The command of a run.
type Make<'a> = dyn Fn(&Task) -> Command + 'a;

/// Plays a client in every way, and holds its row of the page to what went through.
async fn plays_all(name: &str, input: Input, make: &Make<'_>) {
    let office = Office::open().await;
    is_told_what_is_refused(&office, input, make);
    let mut cells = vec![name.to_owned()];
    let mut went_through = 0;
    for tls in ENCRYPTIONS {
        let mut logins = Vec::new();
        for login in LOGINS {
            let task = office.task(login, tls);
            let (went_well, said, complaint) = run(&mut make(&task), &input.text(&task.subject));
            let said = said + &complaint;
            assert!(went_well, "{}: {said}", task.subject);
            shows_mechanism(login, &said);
            let line = office.relay.log().wait_for_another(went_through, is_queued);
            is_logged_as(&task, &line);
            went_through += 1;
            logins.push(login);
            let taken = office.world.wait_for(went_through as u64).await;
            arrived(&task, input, &taken[went_through - 1]);
        }
        cells.push(logins.join(", "));
    }
    assert_eq!(office.count_queued(), went_through, "no refused message was taken");
    let row = format!("| {} |", cells.join(" | "));
    assert!(PAGE.contains(&row), "docs/clients.md does not have the row\n{row}");
}

/// A wrong password, and clear text where TLS is required: the client ends with an error that has the reply's code.
fn is_told_what_is_refused(office: &Office, input: Input, make: &Make<'_>) {
    let wrong = ["PLAIN", "LOGIN"].map(|login| Task { password: "wrong", ..office.task(login, "none") });
    let clear = Task { port: office.ports["strict"], ..office.task("none", "none") };
    for (task, code) in wrong.iter().map(|task| (task, "535")).chain([(&clear, "530")]) {
        let (went_well, said, complaint) = run(&mut make(task), &input.text("refused"));
        let said = said + &complaint;
        assert!(!went_well && said.contains(code), "{code} for {}: {said}", task.subject);
    }
    assert_eq!(office.count_queued(), 0, "what was refused is not taken");
}

/// That the client's own trace names the mechanism that was asked of it. The offer has both: `AUTH PLAIN LOGIN`.
fn shows_mechanism(login: &str, said: &str) {
    if login != "none" {
        let command = said.matches(&format!("AUTH {login}")).count();
        assert!(command > said.matches("AUTH PLAIN LOGIN").count() * usize::from(login == "PLAIN"), "{login}: {said}");
    }
}

fn is_logged_as(task: &Task, line: &str) {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let (user, tls) = (value["user"].as_str(), value["tls"].as_str());
    assert_eq!(user, task.logs_in().then_some(USER), "{line}");
    match task.tls {
        "none" => assert_eq!(tls, None, "{line}"),
        _ => assert!(tls.is_some_and(|version| version.starts_with("TLS")), "{line}"),
    }
    assert_eq!(field(line, "sender"), SENDER);
}

fn arrived(task: &Task, input: Input, message: &Message) {
    let (found_header, found_body) = split(message);
    assert_eq!(String::from_utf8_lossy(&found_body), input.arrives(), "{}", task.subject);
    if input.has_header() {
        assert!(found_header.contains(&header(&task.subject)), "the header only gains lines:\n{found_header}");
    } else {
        let lines = format!("\r\n{found_header}");
        for line in ["From: ", "To: ", &format!("Subject: {}\r\n", task.subject)] {
            assert_eq!(lines.matches(&format!("\r\n{line}")).count(), 1, "{line}: {found_header}");
        }
    }
    assert!(!found_header.contains(HIDDEN), "{found_header}");
    assert_eq!(message.reverse_path, SENDER);
    let recipients: Vec<_> = message.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(recipients, [RECIPIENT, HIDDEN]);
    assert!(!message.bare_lf && !message.bare_cr);
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/clients").join(name)
}

/// Plays a script that needs `library`; `probe` are the arguments that show whether the program finds it.
async fn plays_script(name: &str, program: &str, probe: &[&str], library: &str, file: &str, input: Input) {
    let Some(program) = peer(program) else { return };
    if !run(Command::new(&program).args(probe), "").0 {
        return skip(&format!("{} does not find {library}", program.display()));
    }
    let make = |task: &Task| {
        let mut client = Command::new(&program);
        client.arg(script(file));
        task.tell(&mut client);
        client
    };
    plays_all(name, input, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_delivers() {
    let Some(swaks) = peer("swaks") else { return };
    let make = |task: &Task| {
        let mut client = Command::new(&swaks);
        client.args(["--server", &task.server(), "--from", SENDER, "--to", &format!("{RECIPIENT},{HIDDEN}")]);
        // swaks writes CRLF for LF, stuffs dots, and ends the last line itself.
        let message = Input::UnixMessage.text(&task.subject);
        client.args(["--data", message.trim_end()]);
        match task.tls {
            "starttls" => client.arg("--tls"),
            "implicit" => client.arg("--tls-on-connect"),
            _ => &mut client,
        };
        if task.tls != "none" {
            client.args(["--tls-verify", "--tls-ca-path", task.certificate()]);
        }
        if task.logs_in() {
            client.args(["--auth", task.login, "--auth-user", USER, "--auth-password", task.password]);
        }
        client
    };
    plays_all("swaks", Input::UnixMessage, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_delivers() {
    let Some(curl) = peer("curl") else { return };
    let make = |task: &Task| {
        let scheme = if task.tls == "implicit" { "smtps" } else { "smtp" };
        let mut client = Command::new(&curl);
        client.args(["--silent", "--show-error", "--verbose", "--url", &format!("{scheme}://{}", task.server())]);
        client.args(["--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--mail-rcpt", HIDDEN, "--upload-file", "-"]);
        if task.tls != "none" {
            client.args(["--ssl-reqd", "--cacert", task.certificate()]);
        }
        if task.logs_in() {
            client.args(["--user", &format!("{USER}:{}", task.password)]);
            client.args(["--login-options", &format!("AUTH={}", task.login)]);
        }
        client
    };
    plays_all("curl", Input::Message, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msmtp_delivers() {
    let Some(msmtp) = peer("msmtp") else { return };
    let make = |task: &Task| {
        let (tls, from_first_octet) = match task.tls {
            "none" => ("off", "off"),
            "starttls" => ("on", "off"),
            _ => ("on", "on"),
        };
        let starttls = if from_first_octet == "on" { "off" } else { "on" };
        let auth = if task.logs_in() { task.login.to_lowercase() } else { "off".to_owned() };
        let configuration = format!(
            "account relay\nhost localhost\nport {}\nfrom {SENDER}\ntls {tls}\ntls_starttls {starttls}\n\
             tls_trust_file {}\nauth {auth}\nuser {USER}\npassword \"{}\"\naccount default : relay\n",
            task.port, task.certificate, task.password,
        );
        write_secret(&task.scratch, &configuration);
        let mut client = Command::new(&msmtp);
        client.arg("-C").arg(&task.scratch).args(["--debug", RECIPIENT, HIDDEN]);
        client
    };
    plays_all("msmtp", Input::UnixMessage, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s_nail_delivers() {
    let Some(s_nail) = peer("s-nail") else { return };
    let make = |task: &Task| {
        let scheme = if task.tls == "implicit" { "smtps" } else { "smtp" };
        let mut client = Command::new(&s_nail);
        client.env("LC_ALL", "C.UTF-8").args(["-vv", "-:/", "-r", SENDER, "-s", &task.subject, "-b", HIDDEN]);
        let mut set = |setting: &str| {
            client.args(["-S", setting]);
        };
        set("v15-compat");
        set("sendwait");
        set("mime-encoding=8b");
        set(&format!("mta={scheme}://{}", task.server()));
        set("tls-verify=strict");
        set(&format!("tls-ca-file={}", task.certificate));
        if task.tls == "starttls" {
            set("smtp-use-starttls");
        }
        set(&format!("smtp-auth={}", task.login.to_lowercase()));
        set(&format!("user={USER}"));
        set(&format!("password={}", task.password));
        client.arg(RECIPIENT);
        client
    };
    // It masks such lines as if it wrote an mbox file.
    let masked = |body: &str| body.replace("\r\nFrom ", "\r\n>From ");
    plays_all("s-nail", Input::UnixBody(masked), &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_delivers() {
    plays_script("Python smtplib", "python3", &["-c", "import ssl"], "ssl", "python.py", Input::Message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn perl_delivers() {
    let probe = ["-MNet::SMTP", "-MIO::Socket::SSL", "-MAuthen::SASL", "-e", "1"];
    let library = "IO::Socket::SSL and Authen::SASL";
    plays_script("Perl Net::SMTP", "perl", &probe, library, "perl.pl", Input::UnixMessage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodemailer_delivers() {
    let library = "nodemailer: npm install --prefix DIR nodemailer@7.0.13, then NODE_PATH=DIR/node_modules";
    let probe = ["-e", "require('nodemailer')"];
    plays_script("nodemailer", "node", &probe, library, "nodemailer.js", Input::Message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn phpmailer_delivers() {
    let (library, probe) = ("libphp-phpmailer", ["-r", "require 'libphp-phpmailer/autoload.php';"]);
    // It ends every text with a blank line.
    let input = Input::UnixBody(|body| format!("{body}\r\n"));
    plays_script("PHPMailer", "php", &probe, library, "phpmailer.php", input).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jakarta_mail_delivers() {
    let (Some(java), Some(javac), Some(keytool)) = (peer("java"), peer("javac"), peer("keytool")) else { return };
    let jars = ["/usr/share/java/jakarta-mail.jar", "/usr/share/java/jakarta-activation.jar"];
    if let Some(missing) = jars.iter().find(|jar| !Path::new(jar).is_file()) {
        return skip(&format!("{missing} is not installed"));
    }
    let classes = tempfile::TempDir::new().unwrap();
    let path = format!("{}:{}", jars.join(":"), classes.path().display());
    let mut compiler = Command::new(javac);
    compiler.args(["-cp", &path, "-d"]).arg(classes.path()).arg(script("SendMail.java"));
    let (went_well, _, complaint) = run(&mut compiler, "");
    assert!(went_well, "{complaint}");
    let store = classes.path().join("trusted.p12");
    let make = |task: &Task| {
        if !store.exists() {
            let mut import = Command::new(&keytool);
            import.args(["-importcert", "-noprompt", "-alias", "relay", "-file", task.certificate()]);
            let (imported, said, _) = run(import.args(["-storepass", "changeit", "-keystore"]).arg(&store), "");
            assert!(imported, "{said}");
        }
        let mut client = Command::new(&java);
        client.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
        // Without the password a PKCS #12 store reads as empty.
        client.args(["-Djavax.net.ssl.trustStorePassword=changeit", "-cp", &path, "SendMail"]);
        task.tell(&mut client);
        client
    };
    plays_all("Jakarta Mail", Input::Message, &make).await;
}
