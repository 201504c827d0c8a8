//! Clients that nobody here wrote, at a direct listener: their message arrives, and Exchange's own refusal is shown to whoever runs
//! them. Command lines stand here, scripts in `../clients/`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox::catalogue::{self, Effect};

use super::world;
use crate::harness::{RECIPIENT, Relay, SENDER, World, peer, skip, split};

const OTHER: &str = "other@example.com";
/// What no client may lose of Exchange's reply.
const REFUSAL: [&str; 3] = ["554", "5.2.252", "SendAsDenied"];

fn text(subject: &str) -> String {
    format!(
        "From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: {subject}\r\n\r\n.\r\n..dots\r\n{}\r\nlast\r\n",
        "x".repeat(900)
    )
}

/// A run of a client.
struct Task {
    port: u16,
    subject: &'static str,
    to: String,
    /// The scripts want a certificate to trust, needed or not.
    ca: PathBuf,
}

/// Whether a program ended well with `input`, and what it said.
fn run(program: &mut Command, input: &str) -> (bool, String) {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A client that is refused early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
    (output.status.success(), said.concat())
}

async fn play(name: &str, is_unix: bool, make: &dyn Fn(&Task) -> Command) {
    let world: World = world().await;
    let relay: Relay = world.relay().await;
    let task =
        |subject, to: &[&str]| Task { port: relay.address.port(), subject, to: to.join(","), ca: world.path("ca.pem") };
    let fed = |subject| if is_unix { text(subject).replace("\r\n", "\n") } else { text(subject) };
    let (went_well, said) = run(&mut make(&task("served", &[RECIPIENT, OTHER])), &fed("served"));
    assert!(went_well, "{name}: {said}");
    let taken = world.wait_for(1).await;
    let (header, body) = split(&taken[0]);
    assert!(header.contains("Subject: served\r\n"), "{name}: {header}");
    assert_eq!(String::from_utf8_lossy(&body), text("served").split_once("\r\n\r\n").unwrap().1, "{name}");
    assert_eq!(super::recipients(&taken[0]), [RECIPIENT, OTHER], "{name}");
    let row = catalogue::find("send-as-denied").unwrap();
    assert!(matches!(row.effect, Effect::Reply(reply) if REFUSAL.iter().all(|part| reply.contains(part))));
    world.sandbox.inject(row.fault()).unwrap();
    let (went_well, said) = run(&mut make(&task("refused", &[RECIPIENT])), &fed("refused"));
    assert!(!went_well && REFUSAL.iter().all(|part| said.contains(part)), "{name} was refused with: {said}");
    assert_eq!(world.sandbox.counters().messages, 1, "{name}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/clients").join(name)
}

/// Plays one of the scripts.
async fn play_script(name: &str, program: &Path, file: &str) {
    let make = |task: &Task| {
        let mut client = Command::new(program);
        client.arg(script(file)).envs([
            ("SMTP_HOST", "localhost"),
            ("SMTP_PORT", &task.port.to_string()),
            ("SMTP_TLS", "none"),
            ("SMTP_CA", &task.ca.display().to_string()),
            ("SMTP_AUTH", "none"),
            ("SMTP_FROM", SENDER),
            ("SMTP_TO", &task.to),
            ("SMTP_SUBJECT", task.subject),
        ]);
        client
    };
    play(name, false, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_delivers_and_shows_exchanges_refusal() {
    let Some(swaks) = peer("swaks") else { return };
    let make = |task: &Task| {
        let mut client = Command::new(&swaks);
        client.args(["--server", &format!("localhost:{}", task.port), "--from", SENDER, "--to", &task.to]);
        // It ends the last line itself.
        client.args(["--data", text(task.subject).replace("\r\n", "\n").trim_end()]);
        client
    };
    play("swaks", true, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_delivers_and_shows_exchanges_refusal() {
    let Some(curl) = peer("curl") else { return };
    let make = |task: &Task| {
        let mut client = Command::new(&curl);
        client.args(["--silent", "--show-error", "--verbose", "--url", &format!("smtp://localhost:{}", task.port)]);
        client.args(["--mail-from", SENDER, "--upload-file", "-"]);
        for recipient in task.to.split(',') {
            client.args(["--mail-rcpt", recipient]);
        }
        client
    };
    play("curl", false, &make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_delivers_and_shows_exchanges_refusal() {
    let Some(python) = peer("python3") else { return };
    play_script("Python smtplib", &python, "python.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodemailer_delivers_and_shows_exchanges_refusal() {
    let Some(node) = peer("node") else { return };
    if !run(Command::new(&node).args(["-e", "require('nodemailer')"]), "").0 {
        return skip(
            "node does not find nodemailer: npm install --prefix DIR nodemailer@7.0.13, then NODE_PATH=DIR/node_modules",
        );
    }
    play_script("nodemailer", &node, "nodemailer.js").await;
}
