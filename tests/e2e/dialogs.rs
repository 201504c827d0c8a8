//! Plays the transcripts in `tests/dialogs/` against the real binary, and once against a real Postfix, so that a transcript is
//! no opinion of ours alone.
//!
//! The format is `script.rs`'s, the other server `other_mta.rs`'s. What a dialog means is in its file, not here.

mod other_mta;
mod script;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::{Reply, ReplyParser};

use crate::harness::{PATIENCE, Relay, SENDER, World, until, with_lf};
use other_mta::OtherMta;
use script::{Check, Numbered, Script, Server, Step};

/// The folders of transcripts, each with a test below.
const FOLDERS: [&str; 5] = ["attacks", "devices", "lenient", "limits", "strict"];
/// How long a server is given to read one write, and how often that is looked at.
const READING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);
/// An empty queue in proc(5).
const NO_OCTETS: &str = "00000000";
/// Characters of a reply or a message that a failure shows.
const SHOWN: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn attacks_fail_and_leave_no_control_octet_in_the_log() {
    play_folder("attacks").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_send_as_they_are_used_to() {
    play_folder("devices").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lenient_dialect_takes_what_is_harmless() {
    play_folder("lenient").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_and_the_session_goes_on() {
    play_folder("limits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_dialect_refuses_what_is_not_to_the_letter() {
    play_folder("strict").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_answers_the_transcripts_as_they_say() {
    let scripts: Vec<_> = FOLDERS.iter().flat_map(|folder| transcripts(folder, Server::Postfix)).collect();
    let both = |script: &Script| script.not_postfix.is_none();
    let forgiving = ["smtpd_forbid_bare_newline=no".to_owned()];
    let settings = scripts.iter().map(|(_, script)| script.postfix.as_slice()).chain([&forgiving[..]]);
    let Some(mut postfix) = OtherMta::start(settings).await else { return };
    let mut failures = Vec::new();
    for (name, script) in scripts.iter().filter(|(_, script)| both(script)) {
        let played = postfix.play(script, &script.postfix).await;
        failures.extend(played.err().map(|failure| failure.of(name)));
    }
    // As it was until 2023 it falls for the attack: the transcript is one.
    for attack in ["attacks/smuggling-lf-dot-lf.dialog", "attacks/smuggling-lf-dot-crlf.dialog"] {
        let (_, script) = scripts.iter().find(|(name, _)| name == attack).expect("the transcript is there");
        assert!(postfix.play(script, &forgiving).await.is_err(), "tests/dialogs/{attack} smuggles nothing");
    }
    let left_out = scripts.iter().filter(|(_, script)| !both(script)).count();
    eprintln!("Postfix played {} transcripts, and {left_out} were not for it", scripts.len() - left_out);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_transcript_is_in_a_folder_that_is_played() {
    let mut found: Vec<_> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    found.sort();
    assert_eq!(found, FOLDERS);
    // Where no Postfix is, its lines are still read.
    for server in [Server::Relay, Server::Postfix] {
        for folder in FOLDERS {
            assert!(!transcripts(folder, server).is_empty(), "tests/dialogs/{folder} is empty");
        }
    }
}

#[tokio::test]
async fn what_the_server_has_not_read_is_seen() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    assert!(!has_unread(to, from));
    client.write_all(b"x").await.unwrap();
    assert!(has_unread(to, from));
    server.read_u8().await.unwrap();
    assert!(!has_unread(to, from));
}

/// A message that arrived, with LF for CRLF.
struct Arrived {
    from: String,
    to: Vec<String>,
    content: Vec<u8>,
    /// The parameters of MAIL upstream; none where there is no upstream.
    announced: Option<Vec<String>>,
}

/// What a line of a transcript wanted and did not get.
struct Failure {
    line: usize,
    why: String,
}

impl Failure {
    fn new(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }

    fn of(&self, name: &str) -> String {
        format!("tests/dialogs/{name}:{}: {}", self.line, self.why)
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dialogs")
}

/// The transcripts of a folder by name.
fn transcripts(folder: &str, server: Server) -> Vec<(String, Script)> {
    let mut files: Vec<_> =
        std::fs::read_dir(directory().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = format!("{folder}/{}", path.file_name().unwrap().display());
        assert!(name.ends_with(".dialog"), "tests/dialogs/{name} is no transcript");
        let text = std::fs::read_to_string(&path).unwrap();
        let script = Script::parse(&text, server)
            .unwrap_or_else(|mistake| panic!("tests/dialogs/{name}:{}: {}", mistake.line, mistake.why));
        (name, script)
    };
    files.into_iter().map(read).collect()
}

/// Plays a folder, with one relay for each set of settings, and tells all that failed together.
async fn play_folder(folder: &str) {
    let scripts = transcripts(folder, Server::Relay);
    let mut by_settings: BTreeMap<&[String], Vec<_>> = BTreeMap::new();
    for (name, script) in &scripts {
        by_settings.entry(&script.listener).or_default().push((name, script));
    }
    let mut failures = Vec::new();
    for (settings, scripts) in by_settings {
        let stage = Stage::new(settings).await;
        for (name, script) in scripts {
            let played = stage.play(script).await;
            failures.extend(played.err().map(|failure| failure.of(name)));
        }
        failures.extend(stage.end().await);
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// A relay with a listener of these settings, and the tenant behind it.
struct Stage {
    world: World,
    relay: Relay,
}

impl Stage {
    async fn new(settings: &[String]) -> Self {
        // Every command is logged, so that what is in them could do harm there; and the end of each session is.
        let mut world = World::new().await.set("log", "level = \"debug\"");
        for setting in settings {
            world = world.set("listener", setting);
        }
        let relay = world.relay().await;
        Self { world, relay }
    }

    async fn play(&self, script: &Script) -> Result<(), Failure> {
        for check in &script.checks {
            // Who may send as whom is Exchange's matter and has its own tests.
            if let Check::Envelope(from, _) = &check.what {
                self.world.sandbox.allow_send_as(SENDER, from).unwrap();
            }
        }
        let before = self.world.sandbox.messages().len();
        let stream = TcpStream::connect(self.relay.address).await.unwrap();
        let client = format!("\"client\":\"{}\"", stream.local_addr().unwrap());
        let is_end = |line: &str| line.contains("\"session ended\"") && line.contains(&client);
        let ended = self.relay.log().count(is_end);
        Player::new(stream).play(&script.steps).await?;
        // Whatever the session accepted is in the queue when it has ended, and upstream when the queue is empty.
        self.relay.log().wait_for_another(ended, is_end);
        let is_empty = || self.world.count("SELECT count(*) FROM delivery") == Some(0);
        if !until(PATIENCE, is_empty).await {
            return Err(Failure::new(1, "what was accepted did not all arrive upstream"));
        }
        let arrived: Vec<_> =
            self.world.sandbox.messages().split_off(before).iter().map(|message| as_arrived(message)).collect();
        check(&script.checks, &arrived)
    }

    /// Stops the relay. Its log holds no control octet but the ends of its lines.
    async fn end(self) -> Option<String> {
        let (status, log) = self.relay.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        let line = log.lines().find(|line| line.chars().any(is_harmful) || has_harmful_text(line))?;
        Some(format!("a control character is in the log: {line:?}"))
    }
}

/// Whether a character does something to a terminal; those that turn the direction of text are CVE-2021-42574's.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same of a line of JSON once it is read: other formats of the log show the text as it is.
fn has_harmful_text(line: &str) -> bool {
    fn is_so(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => text.chars().any(is_harmful),
            serde_json::Value::Array(values) => values.iter().any(is_so),
            serde_json::Value::Object(fields) => fields.values().any(is_so),
            _ => false,
        }
    }
    is_so(&serde_json::from_str(line).unwrap())
}

fn as_arrived(message: &sandbox::Message) -> Arrived {
    Arrived {
        from: message.reverse_path.clone(),
        to: message.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        content: with_lf(message.body.octets().expect("transcripts are small")),
        announced: Some(message.parameters.iter().map(as_sent).collect()),
    }
}

fn as_sent(parameter: &sandbox::Parameter) -> String {
    let value = parameter.value.as_ref().map(|value| format!("={value}"));
    format!("{}{}", parameter.name, value.unwrap_or_default())
}

/// The client's side of a dialog.
struct Player {
    stream: TcpStream,
    parser: ReplyParser,
    input: Vec<u8>,
}

impl Player {
    fn new(stream: TcpStream) -> Self {
        // So that two writes are two packets.
        stream.set_nodelay(true).unwrap();
        Self { stream, parser: ReplyParser::default(), input: Vec::new() }
    }

    async fn play(mut self, steps: &[Numbered<Step>]) -> Result<(), Failure> {
        for Numbered { line, what } in steps {
            let done = match what {
                Step::Send(octets) => self.send(octets).await,
                Step::Replies(count, start) => self.expect(*count, start).await,
                Step::Closed => self.expect_close().await,
                Step::Drop => return Ok(()),
                Step::Nothing => Ok(()),
            };
            done.map_err(|why| Failure::new(*line, why))?;
        }
        Ok(())
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        self.until_read().await;
        match timeout(PATIENCE, self.stream.write_all(octets)).await {
            // A server that has closed says so where its answer is awaited.
            Ok(_) => Ok(()),
            Err(_elapsed) => Err("the server does not read on".into()),
        }
    }

    /// Waits until the server has read what was written, so that the next write is a packet of its own to it. One that reads no
    /// further has enough of it.
    async fn until_read(&self) {
        let (Ok(server), Ok(client)) = (self.stream.peer_addr(), self.stream.local_addr()) else { return };
        let end = Instant::now() + READING;
        while has_unread(server, client) && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn expect(&mut self, count: usize, start: &str) -> Result<(), String> {
        for at in 1..=count {
            let reply = self.reply().await?;
            let mut wire = Vec::new();
            reply.write_to(&mut wire);
            let wire =
                String::from_utf8_lossy(&wire).trim_end().replacen('-', " ", usize::from(reply.lines().len() > 1));
            if !wire.starts_with(start) {
                return Err(format!("reply {at} of {count} is not {start:?} but {}", shown(wire.as_bytes())));
            }
        }
        Ok(())
    }

    async fn reply(&mut self) -> Result<Reply, String> {
        loop {
            let (used, reply) = self.parser.push(&self.input).map_err(|error| error.to_string())?;
            self.input.drain(..used);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            if self.read().await? == 0 {
                return Err("the server closed instead of a reply".into());
            }
        }
    }

    async fn expect_close(&mut self) -> Result<(), String> {
        while self.input.is_empty() && self.read().await? > 0 {}
        if self.input.is_empty() { Ok(()) } else { Err(format!("the server says more: {}", shown(&self.input))) }
    }

    /// Reads once; 0 when the server closed, in whatever way.
    async fn read(&mut self) -> Result<usize, String> {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await {
            Ok(read) => Ok(read.unwrap_or(0)),
            Err(_elapsed) => Err("the server says nothing".into()),
        }
    }
}

/// Whether octets wait for the server of a connection on this machine, by what the kernel says of its sockets (proc(5)).
fn has_unread(server: SocketAddr, client: SocketAddr) -> bool {
    let shown = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()),
        IpAddr::V6(_) => String::new(),
    };
    let (server, client) = (shown(server), shown(client));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let waiting = sockets.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next() == Some(&server) && fields.next() == Some(&client);
        fields.nth(1).filter(|_| is_it).and_then(|queues| queues.split_once(':')).map(|(_, unread)| unread != NO_OCTETS)
    });
    waiting.unwrap_or(false)
}

/// What arrived is what the transcript says.
fn check(checks: &[Numbered<Check>], arrived: &[Arrived]) -> Result<(), Failure> {
    for Numbered { line, what } in checks {
        let contains = |octets: &[u8]| arrived.iter().any(|message| finds(&message.content, octets));
        let is_so = match what {
            Check::Messages(count) => arrived.len() == *count,
            Check::Envelope(from, to) => {
                let to = sorted(to);
                arrived.iter().any(|message| message.from == *from && sorted(&message.to) == to)
            }
            Check::Contains(octets) => contains(octets),
            Check::Lacks(octets) => !contains(octets),
            Check::Announced(wanted) => arrived
                .iter()
                .any(|message| message.announced.as_ref().is_none_or(|parameters| parameters.contains(wanted))),
        };
        if !is_so {
            return Err(Failure::new(*line, format!("this is not so of what arrived:{}", shown_all(arrived))));
        }
    }
    Ok(())
}

fn sorted(addresses: &[String]) -> Vec<&String> {
    let mut sorted: Vec<_> = addresses.iter().collect();
    sorted.sort();
    sorted
}

fn finds(content: &[u8], octets: &[u8]) -> bool {
    content.windows(octets.len().max(1)).any(|window| window == octets)
}

fn shown_all(arrived: &[Arrived]) -> String {
    let mut text = format!(" {} messages", arrived.len());
    for message in arrived {
        let _ = write!(
            text,
            "\n<{}> -> {:?} {:?}\n{}",
            message.from,
            message.to,
            message.announced,
            shown(&message.content)
        );
    }
    text
}

/// The beginning of what a terminal can show.
fn shown(octets: &[u8]) -> String {
    let text: String = octets.escape_ascii().to_string().chars().take(SHOWN).collect();
    text.replace("\\r\\n", "\n    ").replace("\\n", "\n    ")
}
