//! No secret, token or body in the log, at the most talkative level, in any common form (invariant 8).

use std::io::Write;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sandbox::{Action, Fault, Grant, Stage};

use crate::harness::{Client, RECIPIENT, SENDER, World, binary, message};

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
        for form in forms(secret) {
            assert!(!log.contains(&form), "{form:?}, a form of {secret:?}, is in the log");
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
        for form in forms(secret) {
            assert!(!log.contains(&form), "{form:?}, a form of {secret:?}, is in the log");
        }
    }
}

/// A text as it is, in base64 at each of the three places where it may begin, and as a list of numbers.
fn forms(text: &str) -> Vec<String> {
    let numbers = text.bytes().map(|octet| octet.to_string()).collect::<Vec<_>>();
    let mut forms = vec![text.to_owned(), numbers.join(", "), numbers.join(",")];
    for start in 0..3 {
        // Without the characters that share bits with what stands around the text.
        let whole = &text.as_bytes()[start..];
        let whole = &whole[..whole.len() / 3 * 3];
        forms.extend([STANDARD.encode(whole), STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)]);
    }
    forms
}
