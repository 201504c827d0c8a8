//! One credential serves many mailboxes at one request, and no restart asks more than the budget allows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Action, Fault, SandboxOptions, Stage};
use tokio::task::JoinSet;

use super::{Kind, all, listener, log_line, submit, with_mailboxes};
use crate::harness::{RECIPIENT, World, write_secret};
use crate::tenants::{self, Tenants, connected, row};

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

/// Each with a section and a lane of its own, all in the tenant of one application; some have mail, each of them logs in. That an
/// hour costs one request is told in `token-manager`'s tests.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_mailboxes_cost_one_request() {
    const MAILBOXES: usize = 1_000;
    const WITH_MAIL: usize = 50;
    let world = Tenants::new(&[row("contoso", "scanner")]).await;
    (0..MAILBOXES).for_each(|number| world.open_mailbox("contoso", &super::mailbox(number)));
    let sections = (0..MAILBOXES).map(|number| {
        let address = super::mailbox(number);
        format!("[mailbox.box{number}]\ntenant = \"contoso\"\naddress = {address:?}\nmessages_per_minute = 1000000\n")
    });
    let sections = sections.collect::<String>();
    let tables = [
        &tenants::listener("lan", ""),
        &sections,
        "[mailbox.anybody]\ntenant = \"contoso\"\naddress = \"*@contoso.com\"\nmessages_per_minute = 1000000\n",
        "wildcard_needs_user = false\n",
        "[[route]]\nname = \"own\"\nmailbox = [\"{sender}\"]\n",
    ];
    let relay = Arc::new(world.relay(&tables.concat()).await);
    let mut clients = JoinSet::new();
    for (number, host) in (0..MAILBOXES).step_by(MAILBOXES / WITH_MAIL).zip(2..) {
        let relay = Arc::clone(&relay);
        clients.spawn(async move {
            let (mut client, sender) = (connected(&relay, "lan", host, None).await, super::mailbox(number));
            let text = format!("From: {sender}\r\nMessage-ID: <of{number}.1@test.local>\r\n\r\nhi");
            assert_eq!(client.send_from(&sender, &[RECIPIENT], text.as_bytes()).await.unwrap().code(), 250);
        });
    }
    all(clients).await;
    let logins: BTreeSet<_> = world.carried(WITH_MAIL).await.into_values().collect();
    assert_eq!(logins.len(), WITH_MAIL);
    assert_eq!(world.status()["tokens"].as_array().unwrap().len(), 1);
    assert_eq!(world.sandbox.counters().token_requests, 1);
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
