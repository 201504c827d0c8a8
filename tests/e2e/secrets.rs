//! No secret, token or body in the log, at the most talkative level, in any common form (invariant 8).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sandbox::{Action, Fault, Grant, HttpFault, Stage, TokenFault};
use tokio::task::JoinSet;

use crate::credentials::certificates::{FIRST, KeyForm, der};
use crate::credentials::{Kind, log_line, status, submit};
use crate::harness::{Client, RECIPIENT, SENDER, World, binary, message, write_secret};

/// Base64url of `{"alg"` and of `{"typ"`.
const JWT_STARTS: [&str; 2] = ["eyJhbGci", "eyJ0eXAi"];
const BODY: &str = "the-body-of-the-message-is-nobodys-business";

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_secret_at_any_level() {
    let world = World::new().await.set("log", "level = \"trace\"");
    // A life with everything in it: refusals, a fresh token, a broken connection, a success.
    world.sandbox.revoke(SENDER, sandbox::DEFAULT_CLIENT_ID).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let text = [message("one"), b"\r\n".to_vec(), BODY.into()].concat();
    client.send(&[RECIPIENT], &text).await.unwrap();
    relay.log().wait_for(|line| line.contains("lane stands still"));
    drop(client);
    let (_, mut log) = relay.terminate().await;
    world.sandbox.grant(SENDER, sandbox::DEFAULT_CLIENT_ID, Grant::Rbac).unwrap();
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Close)).unwrap();
    world.sandbox.inject(Fault::once(Stage::Token, Action::Close)).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.send(&[RECIPIENT], &text).await.unwrap();
    world.wait_for(1).await;
    drop(client);
    // What the control socket tells is as public as the log.
    let mut status = binary();
    status.args(["status", "--json", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let shown = tokio::task::spawn_blocking(move || status.output().unwrap()).await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("\"state\": \"fetched\""), "{shown}");
    log += &relay.terminate().await.1;
    log += &shown;
    assert!(log.contains("\"DEBUG\""), "the level was as talkative as asked");
    let token = world.sandbox.issue_token(sandbox::DEFAULT_CLIENT_ID, sandbox::EXCHANGE_SCOPE).unwrap();
    // Every token of the simulated Entra starts alike.
    let token_start = token[..24].to_owned();
    for secret in [sandbox::DEFAULT_SECRET, BODY, "auth=Bearer", &token_start] {
        assert_clean(&log, secret.as_bytes());
    }
}

/// The roads that have no client secret: what proves the application on each, and every token on the way.
#[tokio::test(flavor = "multi_thread")]
async fn no_road_to_a_token_leaves_a_trace_of_what_it_carries() {
    let mut runs = JoinSet::new();
    for kind in [
        Kind::Certificate("PS256", KeyForm::Pkcs8),
        Kind::Certificate("RS256", KeyForm::Pkcs1),
        Kind::FederatedToken,
        Kind::MANAGED_IDENTITY,
    ] {
        runs.spawn(live(kind));
    }
    runs.join_all().await;
}

/// A life with everything in it: bad files, answers that repeat what was sent, refusals, a fresh token, a success.
async fn live(kind: Kind) {
    let world = kind.world().await.set("log", "level = \"trace\"");
    let mut secrets = match kind {
        Kind::Certificate(..) => pieces_of_the_key(),
        Kind::FederatedToken => vec![std::fs::read(world.path("token")).unwrap()],
        _ => Vec::new(),
    };
    // Every JWT begins with one of these, be it an assertion, the token of the machine's identity or one for Exchange.
    secrets.extend(JWT_STARTS.map(Vec::from));
    let token = world.sandbox.issue_token(sandbox::DEFAULT_CLIENT_ID, sandbox::EXCHANGE_SCOPE).unwrap();
    assert!(JWT_STARTS.iter().any(|start| token.starts_with(start)), "{token}");
    let mut seen = first_start(kind, &world, &secrets).await;
    let relay = kind.relay(&world).await;
    let refusal = Action::Reply("535 5.7.3 Authentication unsuccessful [..]".to_owned());
    world.sandbox.inject(Fault::once(Stage::Auth, refusal)).unwrap();
    submit(relay.address, "two").await;
    world.wait_for(2).await;
    seen += &status(&world).await.to_string();
    let mut command = binary();
    command.args(["status", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let shown = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    seen += &String::from_utf8(shown.stdout).unwrap();
    seen += &relay.terminate().await.1;
    assert!(seen.contains("\"DEBUG\"") && seen.contains("token fetched"), "the level was as talkative as asked");
    add_files(&world.path("state"), &mut seen);
    for secret in &secrets {
        assert_clean(&seen, secret);
    }
}

/// The credential is no good and the answers are hostile; then its restart mends it all.
async fn first_start(kind: Kind, world: &World, secrets: &[Vec<u8>]) -> String {
    match kind {
        Kind::Certificate(..) => {
            write_secret(&world.path("cert.pem"), &FIRST.key);
            write_secret(&world.path("key.pem"), &FIRST.certificate);
        }
        Kind::FederatedToken => {
            let token = std::fs::read_to_string(world.path("token")).unwrap();
            let repeated = TokenFault {
                status: 401,
                error: "invalid_client".to_owned(),
                code: 700_213,
                message: format!("You sent {token}"),
                retry_after: None,
            };
            world.sandbox.inject(Fault::once(Stage::Token, Action::TokenError(repeated))).unwrap();
        }
        _ => {
            // Half of a good reply.
            let body = format!("{{\"access_token\":\"{}.x", str::from_utf8(&secrets[0]).unwrap());
            let fault = HttpFault { status: 200, body, ..HttpFault::default() };
            world.sandbox.inject(Fault::once(Stage::Imds, Action::Http(fault))).unwrap();
        }
    }
    let relay = kind.relay(world).await;
    submit(relay.address, "one").await;
    log_line(&relay, |line| line.contains("token request failed")).await;
    let mut seen = status(world).await.to_string();
    seen += &relay.terminate().await.1;
    if let Kind::Certificate(_, form) = kind {
        FIRST.write(world, form);
    }
    seen
}

/// What of the private key nobody may see, wherever a text or a list begins in it. Its public part and the envelope are left out.
fn pieces_of_the_key() -> Vec<Vec<u8>> {
    let key = der(&FIRST.key);
    // Version, modulus and public exponent end before octet 310 of an RSA key of 2048 bits in PKCS #8.
    let pieces = key[310..].chunks_exact(12).map(<[u8]>::to_vec);
    pieces.collect()
}

/// Appends what every file below `directory` holds.
fn add_files(directory: &Path, seen: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_files(&path, seen);
        } else if path.is_file() {
            seen.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
}

/// The hash of a password by the command for it.
fn hash(password: &str) -> String {
    let mut command = binary();
    let mut child = command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_password_of_a_client_at_any_level() {
    let (right, wrong) = ("the-password-of-the-erp-system", "a-password-of-something-else");
    let hash = hash(right);
    let world = World::new()
        .await
        .set("log", "level = \"trace\"")
        .set("listener", "authentication = \"required\"")
        .set("tables", format!("[user.erp]\npassword_hash = {hash:?}"));
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let plain = |name: &str, password: &str| format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{name}\0{password}")));
    assert_eq!(client.command(&plain("erp", wrong)).await.unwrap().code(), 535);
    // A device whose fields were mixed up.
    assert_eq!(client.command(&plain(right, "erp")).await.unwrap().code(), 535);
    drop(client);
    let mut client = Client::connect(relay.address).await.unwrap();
    for (line, code) in [("AUTH LOGIN", 334), (&STANDARD.encode("erp"), 334), (&STANDARD.encode(right), 235)] {
        assert_eq!(client.command(line).await.unwrap().code(), code);
    }
    client.send(&[RECIPIENT], &message("one")).await.unwrap();
    drop(client);
    let mut again = Client::connect(relay.address).await.unwrap();
    assert_eq!(again.command(&plain("erp", right)).await.unwrap().code(), 235);
    // Sent where a command is due, after a login that ended otherwise.
    again.command(&STANDARD.encode(right)).await.unwrap();
    drop(again);
    world.wait_for(1).await;
    let log = relay.terminate().await.1;
    assert!(log.contains("\"DEBUG\"") && log.contains("login refused"), "{log}");
    for secret in [right, wrong, &hash] {
        assert_clean(&log, secret.as_bytes());
    }
}

/// Fails if `text` shows `secret` in any common form.
fn assert_clean(text: &str, secret: &[u8]) {
    for form in forms(secret) {
        assert!(!text.contains(&form), "{form:?}, a form of {:?}, is shown", String::from_utf8_lossy(secret));
    }
}

/// A text as it is, in base64 at each of the three places where it may begin, in hexadecimal, and as a list of numbers.
pub(crate) fn forms(secret: &[u8]) -> Vec<String> {
    let numbers = secret.iter().map(u8::to_string).collect::<Vec<_>>();
    let hexadecimal = secret.iter().fold(String::new(), |mut text, octet| {
        write!(text, "{octet:02x}").unwrap();
        text
    });
    let mut forms = vec![numbers.join(", "), numbers.join(","), numbers.join(" "), hexadecimal];
    forms.extend(str::from_utf8(secret).map(str::to_owned));
    for start in 0..3 {
        // Without the characters that share bits with what stands around the text.
        let whole = &secret[start..];
        let whole = &whole[..whole.len() / 3 * 3];
        forms.extend([STANDARD.encode(whole), STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)]);
    }
    forms
}
