//! One credential serves many mailboxes at one request, and no restart asks more than the budget allows.

use std::collections::BTreeSet;
use std::time::Duration;

use sandbox::{Action, Fault, SandboxOptions, Stage};
use tokio::task::JoinSet;

use super::{Kind, all, listener, log_line, submit, with_mailboxes};
use crate::harness::{World, write_secret};

/// What the relay allows itself in five minutes.
const BUDGET: u64 = 5;
const LANES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_mailboxes_that_ask_at_once_make_one_request() {
    let kind = Kind::CERTIFICATE;
    let world = with_mailboxes(kind.world().await, LANES);
    // So long that all of them wait for it.
    let slow = Fault::once(Stage::Token, Action::Delay(Duration::from_secs(2)));
    world.sandbox.inject(slow).unwrap();
    let relay = kind.relay(&world).await;
    let mut clients = JoinSet::new();
    for number in 0..LANES {
        let address = listener(&relay, number);
        clients.spawn(async move { submit(address, &format!("of{number}")).await });
    }
    all(clients).await;
    let messages = world.wait_for(LANES as u64).await;
    let logins: BTreeSet<_> = messages.iter().map(|message| message.login.as_str()).collect();
    assert_eq!(logins.len(), LANES);
    let counters = world.sandbox.counters();
    assert_eq!((counters.client_credentials_requests, counters.tokens_issued), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn eleven_starts_in_a_minute_keep_to_the_budget() {
    // With Entra's own guard against loops.
    let world = World::with(SandboxOptions::default()).await;
    write_secret(&world.path("secret"), "not8Q~What.Entra-Knows");
    let mut logs = String::new();
    for start in 0..11u64 {
        let relay = Kind::SecretInFile.relay(&world).await;
        if start == 0 {
            submit(relay.address, "one").await;
        }
        let end = if start < BUDGET { "token request failed" } else { "token request budget used up" };
        log_line(&relay, |line| line.contains(end)).await;
        // As often as not it crashes.
        if start % 2 == 0 {
            logs += &relay.terminate().await.1;
        } else {
            relay.kill();
        }
    }
    assert_eq!(world.sandbox.counters().token_requests, BUDGET);
    assert!(logs.contains("AADSTS7000215") && !logs.contains("AADSTS50196"), "{logs}");
    assert_eq!(world.count("SELECT count(*) FROM delivery"), Some(1), "its mail waits");
}
