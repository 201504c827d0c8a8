//! No refresh token, access token, code, device code or verifier in anything that the daemon or `login` shows, at the most
//! talkative level, nor in the files of the state directory when the vault has a key; in any common form.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::redirect::Policy;
use sandbox::{DEFAULT_CLIENT_ID, DEFAULT_SECRET};

use super::browser::{browser, last_address};
use super::people::{BOSS, INFO, Proof, other_product, people_of, sealed, submit, with_vault_key};
use super::terminal::{Ended, Terminal};
use crate::harness::{SENDER, World, binary, write_secret};
use crate::secrets::forms;

/// A verifier of RFC 7636 has so many characters at least; device codes, codes and tokens have many more.
const SHORTEST: usize = 43;
/// A list of so many numbers below 256 is octets.
const NUMBERS: usize = 12;

/// Everything that was shown so far, and what must not be in it.
#[derive(Default)]
struct Seen {
    shown: String,
    secrets: Vec<String>,
}

impl Seen {
    fn add(&mut self, ended: &Ended) {
        self.shown.extend([ended.screen.as_str(), "\n", ended.result.as_str(), "\n"]);
    }

    /// Pieces of a secret: a text that is cut off shows its beginning, one in a buffer any part.
    fn must_not_show(&mut self, secret: &str) {
        let pieces = [&secret[..24], &secret[secret.len() / 2..][..24]];
        self.secrets.extend(pieces.map(str::to_owned));
    }

    fn must_not_show_stored(&mut self, world: &World) {
        for address in [SENDER, BOSS, INFO] {
            if let Some(grant) = sealed(world, address) {
                self.must_not_show(grant.refresh_token.expose());
            }
        }
    }

    /// What in `text` is a secret.
    fn found_in(&self, text: &str) -> Vec<String> {
        let forms = self.secrets.iter().flat_map(|secret| forms(secret.as_bytes()));
        forms.filter(|form| text.contains(form.as_str())).collect()
    }
}

/// Runs of characters in `text` that may be a token or the base64 of one, and lists of numbers.
fn suspicious(text: &str) -> Vec<String> {
    let is_token = |char: char| char.is_ascii_alphanumeric() || "-_~+/".contains(char);
    // Neither alphabet of base64 has both: it is a path.
    let is_path = |run: &str| run.contains('/') && run.contains('-');
    let runs = text.split(|char| !is_token(char));
    let runs = runs.filter(|run| run.len() >= SHORTEST && !is_path(run)).map(str::to_owned);
    let mut lists = Vec::new();
    let mut row = 0;
    for number in text.split([',', ' ', '[', ']']).filter(|word| !word.is_empty()) {
        row = if number.parse::<u8>().is_ok() { row + 1 } else { 0 };
        if row == NUMBERS {
            lists.push(format!("a list of numbers that ends in {number}"));
        }
    }
    runs.chain(lists).collect()
}

/// What `text` says without the links that a browser is to open: they hold a state and a challenge, which are no secrets
/// of anybody who sees the terminal.
fn without_links(text: &str) -> String {
    text.lines().filter(|line| !line.trim().starts_with("https://")).collect::<Vec<_>>().join("\n")
}

async fn status(world: &World) -> String {
    let mut status = binary();
    status.args(["status", "--json", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let shown = tokio::task::spawn_blocking(move || status.output().unwrap()).await.unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let found = entries.flat_map(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_what_a_sign_in_is_made_of() {
    sign_ins_show_nothing(Proof::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_where_the_application_has_a_secret_beside_the_refresh_tokens() {
    sign_ins_show_nothing(Proof::Secret).await;
}

async fn sign_ins_show_nothing(proof: Proof) {
    let world = with_vault_key(people_of(proof).await).set("log", "level = \"trace\"");
    let mut seen = Seen::default();
    seen.secrets.extend(["auth=Bearer", DEFAULT_SECRET].map(str::to_owned));
    // The beginning of every access token, and of every identity token, of the simulated Entra.
    let access = world.sandbox.issue_delegated_token(DEFAULT_CLIENT_ID, SENDER).unwrap();
    seen.secrets.push(access[..24].to_owned());

    // Without a daemon, by device code.
    let terminal = Terminal::device(&world, "scanner");
    world.sandbox.approve_device(&terminal.code(), SENDER).unwrap();
    seen.add(&terminal.end().await);
    seen.must_not_show_stored(&world);

    // Beside a daemon, every way.
    let relay = world.relay().await;
    let (token, file) = sign_in_every_way(&world, &mut seen).await;
    for (address, name) in [(SENDER, "one"), (BOSS, "two"), (INFO, "three")] {
        submit(&relay, address, name).await;
    }
    world.wait_for(3).await;
    seen.must_not_show_stored(&world);

    fail_to_sign_in(&world, &mut seen, &token, &file).await;

    seen.shown += &status(&world).await;
    let log = relay.terminate().await.1;
    assert!(log.contains("\"DEBUG\"") && log.contains("AADSTS50173"), "the level was as talkative as asked: {log}");
    seen.shown += &log;
    // A start with one sign-in that is dead.
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("token request failed"));
    seen.shown += &status(&world).await;
    seen.shown += &relay.terminate().await.1;
    seen.must_not_show_stored(&world);

    assert_eq!(seen.found_in(&seen.shown), Vec::<String>::new());
    assert_eq!(suspicious(&without_links(&seen.shown)), Vec::<String>::new());
    let files = files(&world.path("state"));
    assert!(files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "token")).count() == 3, "{files:?}");
    for file in files {
        let octets = fs::read(&file).unwrap();
        assert_eq!(seen.found_in(&String::from_utf8_lossy(&octets)), Vec::<String>::new(), "{}", file.display());
    }
}

/// By device code, by a browser with what people paste wrongly, and by a token of another product, which is given with its file.
async fn sign_in_every_way(world: &World, seen: &mut Seen) -> (String, PathBuf) {
    let terminal = Terminal::device(world, "scanner");
    world.sandbox.approve_device(&terminal.code(), SENDER).unwrap();
    seen.add(&terminal.end().await);
    world.sandbox.change_conditions(|conditions| conditions.browser_user = Some(BOSS.to_owned()));
    let mut terminal = Terminal::browser(world, "boss");
    let address = last_address(world, &terminal.link()).await;
    let code = address.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned();
    seen.must_not_show(&code);
    for text in [format!("nonsense {code}"), address.as_str().replace("state=", "state=x"), address.to_string()] {
        terminal.enter(&text);
    }
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    seen.add(&ended);
    let (token, file) = other_product(world, BOSS);
    seen.must_not_show(&token);
    let ended = Terminal::login(world, &["--mailbox", "info", "--import", file.to_str().unwrap()]).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    seen.add(&ended);
    seen.must_not_show_stored(world);
    (token, file)
}

/// Declined at the page, a dead token, garbage.
async fn fail_to_sign_in(world: &World, seen: &mut Seen, token: &str, file: &Path) {
    let terminal = Terminal::browser(world, "boss");
    browser(world, Policy::limited(3)).get(format!("{}&sandbox_consent=0", terminal.link())).send().await.unwrap();
    seen.add(&terminal.end().await);
    world.sandbox.revoke_sign_ins(BOSS).unwrap();
    let ended = Terminal::login(world, &["--mailbox", "info", "--import", file.to_str().unwrap()]).end().await;
    assert!(ended.screen.contains("AADSTS50173"), "{ended:?}");
    seen.add(&ended);
    write_secret(file, &format!("two words {token}"));
    let ended = Terminal::login(world, &["--mailbox", "info", "--import", file.to_str().unwrap()]).end().await;
    assert_eq!(ended.code, Some(64), "{ended:?}");
    seen.add(&ended);
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let token = "0.AXkA-refresh-token_of-enough-length~that-nobody-may-see";
    let seen = Seen { shown: String::new(), secrets: vec![token[..24].to_owned()] };
    let numbers = token.bytes().map(|octet| octet.to_string()).collect::<Vec<_>>();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{{\"t\":\"{token}\"}}"));
    for text in [token.to_owned(), base64, numbers.join(", "), numbers.join(",")] {
        assert!(!seen.found_in(&format!("x=[{text}]")).is_empty(), "{text}");
        assert!(!suspicious(&format!("x=[{text}]")).is_empty(), "{text}");
    }
    assert!(suspicious("took 1, 2, 3 ms; trace ab2a65b2-0c3d-4b5a-9f1e-2a3b4c5d6e00").is_empty());
}
