//! The life of a refresh token with the whole daemon: renewed at each start, kept through odd answers and kill -9, and what
//! happens when it is revoked.

use std::fs;

use sandbox::{Action, Fault, HttpFault, OddToken, Stage, TokenFault};
use tokio::task::JoinSet;

use super::people::{BOSS, people, sign_in, stored, stored_token, submit, vault_directory};
use super::terminal::Terminal;
use crate::harness::{PATIENCE, SENDER, binary, until};

#[tokio::test(flavor = "multi_thread")]
async fn each_start_renews_the_refresh_token_and_a_kill_before_the_write_loses_nothing() {
    let world = people().await;
    sign_in(&world, "scanner", SENDER).await;
    let first = stored_token(&world, SENDER);
    let relay = world.relay().await;
    submit(&relay, SENDER, "first").await;
    world.wait_for(1).await;
    let second = stored_token(&world, SENDER);
    assert_ne!(first, second, "the newest is in the vault before its access token is used");
    relay.terminate().await;
    let entries = || fs::read_dir(vault_directory(&world)).unwrap().map(|entry| entry.unwrap().path());
    let entry = entries().next().unwrap();
    let before = fs::read(&entry).unwrap();
    let relay = world.relay().await;
    submit(&relay, SENDER, "second").await;
    world.wait_for(2).await;
    let third = stored_token(&world, SENDER);
    assert_ne!(second, third);
    relay.kill();
    // As if it had died between the reply and the write: the one before is still good (facts 4.5).
    fs::write(&entry, before).unwrap();
    let relay = world.relay().await;
    submit(&relay, SENDER, "third").await;
    assert_eq!(world.wait_for(3).await[2].login, SENDER);
    assert_ne!(stored_token(&world, SENDER), second);
    assert_eq!(world.sandbox.counters().refresh_token_requests, 4, "one at the sign-in, one at each start");
    assert_eq!(entries().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_sign_in_holds_its_mailbox_alone_until_somebody_signs_in_again() {
    let world = people().await;
    sign_in(&world, "scanner", SENDER).await;
    sign_in(&world, "boss", BOSS).await;
    let token = stored_token(&world, SENDER);
    world.sandbox.revoke_sign_ins(SENDER).unwrap();
    let relay = world.relay().await;
    submit(&relay, SENDER, "held").await;
    submit(&relay, BOSS, "passes").await;
    assert_eq!(world.wait_for(1).await[0].login, BOSS);
    let line = relay.log().wait_for(|line| line.contains("token request failed") && line.contains("AADSTS50173"));
    assert!(
        line.contains("\"mailbox\":\"scanner\"") && line.contains("sign in again with `xoauth2-relay login`"),
        "{line}"
    );
    relay.log().wait_for(|line| line.contains("lane waits for a token") && line.contains(SENDER));
    let kept = stored(&world, SENDER).unwrap();
    assert_eq!(kept.refresh_token.expose(), token);
    assert!(kept.refused.unwrap().failure.contains("AADSTS50173"));
    let mut status = binary();
    status.args(["status", "--json", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let shown = tokio::task::spawn_blocking(move || status.output().unwrap()).await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("AADSTS50173") && shown.contains("xoauth2-relay login"), "{shown}");
    relay.terminate().await;
    // After a restart nobody is asked again so soon.
    let asked = world.sandbox.counters().refresh_token_requests;
    let relay = world.relay().await;
    let remedy = "login --tenant contoso --mailbox scanner";
    relay.log().wait_for(|line| line.contains("AADSTS50173") && line.contains(remedy));
    submit(&relay, BOSS, "passes-too").await;
    world.wait_for(2).await;
    assert_eq!(world.sandbox.counters().refresh_token_requests, asked + 1, "for the other mailbox");
    let terminal = Terminal::device(&world, "scanner");
    world.sandbox.approve_device(&terminal.code(), SENDER).unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let messages = world.wait_for(3).await;
    assert_eq!((messages[2].login.as_str(), messages[2].message_id.as_str()), (SENDER, "<held@test.local>"));
    assert_eq!(stored(&world, SENDER).unwrap().refused, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_answer_throws_nothing_away() {
    let page = "<!doctype html><title>Wi-Fi</title>".to_owned();
    let unknown = TokenFault {
        status: 400,
        error: "something_new".to_owned(),
        code: 999_999,
        message: "Nobody has seen this before.".to_owned(),
        retry_after: None,
    };
    let http = |status, body: &str| Action::Http(HttpFault { status, body: body.to_owned(), ..HttpFault::default() });
    let mut runs = JoinSet::new();
    for odd in [
        http(500, &page),
        http(200, &page),
        http(429, ""),
        http(200, r#"{"error":"invalid_request"}"#),
        Action::OddToken(OddToken::Empty),
        Action::TokenError(unknown),
        Action::Close,
        Action::Stall,
    ] {
        runs.spawn(async move {
            let world = people().await;
            sign_in(&world, "scanner", SENDER).await;
            let token = stored_token(&world, SENDER);
            let is_silent = odd == Action::Stall;
            world.sandbox.inject(Fault::once(Stage::Token, odd.clone())).unwrap();
            let relay = world.relay().await;
            submit(&relay, SENDER, "first").await;
            if is_silent {
                assert!(until(PATIENCE, || world.sandbox.waiting_faults().is_empty()).await);
            } else {
                relay.log().wait_for(|line| {
                    line.contains("token request failed") && line.contains("HTTP") || line.contains("transient")
                });
            }
            let kept = stored(&world, SENDER).unwrap();
            // With an empty access token came another refresh token, and the one before might be used up.
            let is_replaced = odd == Action::OddToken(OddToken::Empty);
            assert_eq!((kept.refresh_token.expose() != token, kept.refused), (is_replaced, None), "{odd}");
            // Instead of a wait for the next try.
            relay.kill();
            let relay = world.relay().await;
            assert_eq!(world.wait_for(1).await[0].login, SENDER, "{odd}");
            assert_ne!(stored_token(&world, SENDER), token, "{odd}");
            relay.terminate().await;
        });
    }
    runs.join_all().await;
}
