//! Injected faults, one for each stage and action.

use sandbox::{Action, DEFAULT_MAILBOX, Fault, SandboxError, Stage, TokenFault};

use crate::support::{Client, World, http};

fn reply(text: &str) -> Action {
    Action::Reply(text.to_owned())
}

/// Brings a client to where the next command is the one of `stage`, and gives that command.
async fn just_before(world: &World, stage: Stage) -> (Client, String) {
    let mut client = match stage {
        Stage::Ehlo | Stage::StartTls => world.connect().await,
        Stage::Auth => world.secure().await,
        _ => world.logged_in().await,
    };
    let mail = format!("MAIL FROM:<{DEFAULT_MAILBOX}>");
    match stage {
        Stage::StartTls => drop(client.say("EHLO client.example").await),
        Stage::Rcpt => drop(client.say(&mail).await),
        Stage::Data => {
            client.say(&mail).await;
            client.say("RCPT TO:<you@example.org>").await;
        }
        Stage::EndOfData => client.envelope(DEFAULT_MAILBOX, "you@example.org").await,
        _ => {}
    }
    let command = match stage {
        Stage::Ehlo => "EHLO client.example".to_owned(),
        Stage::StartTls => "STARTTLS".to_owned(),
        Stage::Auth => world.auth(),
        Stage::Mail => mail,
        Stage::Rcpt => "RCPT TO:<you@example.org>".to_owned(),
        Stage::Data => "DATA".to_owned(),
        _ => "Message-ID: <m@x>\r\n\r\nhi\r\n.".to_owned(),
    };
    (client, command)
}

const STAGES: [Stage; 7] =
    [Stage::Ehlo, Stage::StartTls, Stage::Auth, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData];

#[tokio::test]
async fn a_temporary_reply_refuses_once_and_the_session_goes_on() {
    let world = World::new().await;
    for stage in STAGES {
        let (mut client, command) = just_before(&world, stage).await;
        let text = "451 4.7.0 Temporary server error. Please try again later. PRX4";
        world.sandbox.inject(Fault::once(stage, reply(text))).unwrap();
        assert_eq!(client.say(&command).await, text, "{stage:?}");
        if stage == Stage::EndOfData {
            client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
        }
        let second = client.say(&command).await;
        assert!(second.starts_with(['2', '3']), "{stage:?}: {second}");
    }
    // The refused message was not kept.
    assert_eq!(world.sandbox.counters().messages, 1);
}

#[tokio::test]
async fn a_421_closes() {
    let world = World::new().await;
    for stage in STAGES {
        let (mut client, command) = just_before(&world, stage).await;
        world.sandbox.inject(Fault::once(stage, reply("421 4.3.2 Service not active"))).unwrap();
        assert_eq!(client.say(&command).await, "421 4.3.2 Service not active", "{stage:?}");
        assert_eq!(client.line().await, None, "{stage:?}");
    }
    assert_eq!(world.sandbox.counters().messages, 0);
}

#[tokio::test]
async fn a_cut_says_nothing_and_keeps_nothing() {
    let world = World::new().await;
    for stage in STAGES {
        let (mut client, command) = just_before(&world, stage).await;
        world.sandbox.inject(Fault::once(stage, Action::Close)).unwrap();
        client.write(format!("{command}\r\n")).await;
        assert_eq!(client.line().await, None, "{stage:?}");
    }
    assert_eq!(world.sandbox.counters().messages, 0);
}

#[tokio::test]
async fn a_stall_says_nothing_and_stays_open() {
    let world = World::new().await;
    let mut clients = Vec::new();
    for stage in STAGES {
        let (mut client, command) = just_before(&world, stage).await;
        world.sandbox.inject(Fault::once(stage, Action::Stall)).unwrap();
        client.write(format!("{command}\r\nNOOP\r\n")).await;
        clients.push(client);
    }
    world.connections(STAGES.len() as u64).await;
    world.sandbox.stop().await;
    for client in &mut clients {
        assert_eq!(client.line().await, None);
    }
}

#[tokio::test]
async fn the_greeting_can_fail_too() {
    let world = World::new().await;
    world.sandbox.inject(Fault::once(Stage::Connect, reply("421 4.3.2 Service not active"))).unwrap();
    world.sandbox.inject(Fault::once(Stage::Connect, reply("554 5.3.2 No"))).unwrap();
    world.sandbox.inject(Fault::once(Stage::Connect, Action::Close)).unwrap();
    for expected in [Some("421 4.3.2 Service not active"), Some("554 5.3.2 No"), None] {
        let mut client = world.connect_silently().await;
        if expected.is_some() {
            assert_eq!(client.line().await.as_deref(), expected);
        }
        assert_eq!(client.line().await, None);
    }
    world.connect().await;
}

#[tokio::test]
async fn acceptance_can_be_left_in_doubt() {
    let world = World::new().await;
    let (mut client, command) = just_before(&world, Stage::EndOfData).await;
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::KeepThenClose)).unwrap();
    client.write(format!("{command}\r\n")).await;
    assert_eq!(client.line().await, None);
    assert_eq!(world.sandbox.message(0).unwrap().message_id, "<m@x>");
}

#[tokio::test]
async fn a_good_reply_only_changes_the_words() {
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::EndOfData, reply("250 2.6.0 <m@x> Queued mail for delivery"))).unwrap();
    let mut client = world.logged_in().await;
    assert_eq!(client.send("\r\n").await, "250 2.6.0 <m@x> Queued mail for delivery");
    assert_eq!(world.sandbox.counters().messages, 1);
    // It does not turn a refusal into an acceptance.
    world.sandbox.set_mailbox_full(DEFAULT_MAILBOX, true).unwrap();
    assert!(client.send("\r\n").await.starts_with("554 5.2.2 "));
    world.sandbox.clear_faults();
    world.sandbox.set_mailbox_full(DEFAULT_MAILBOX, false).unwrap();
    assert!(client.send("\r\n").await.starts_with("250 2.0.0 OK "));
}

#[tokio::test]
async fn a_failed_auth_is_embedded_whoever_failed_it() {
    let world = World::new().await;
    let mut client = world.secure().await;
    world.sandbox.inject(Fault::once(Stage::Auth, reply("454 4.7.0 Temporary authentication failure"))).unwrap();
    client.say(&world.auth()).await;
    let embedded =
        "530 5.7.57 Client not authenticated to send mail. Error: 454 4.7.0 Temporary authentication failure [..]";
    assert_eq!(client.say("MAIL FROM:<scanner@contoso.com>").await, embedded);
    assert_eq!(world.sandbox.counters().auth_failures, 1);
}

#[tokio::test]
async fn the_token_endpoint_fails_as_told() {
    let world = World::new().await;
    let path = "/contoso.com/oauth2/v2.0/token";
    let fault = TokenFault {
        status: 503,
        error: "temporarily_unavailable".to_owned(),
        code: 90_033,
        message: "A transient error has occurred. Please try again.".to_owned(),
        retry_after: Some(17),
    };
    world.sandbox.inject(Fault::once(Stage::Token, Action::TokenError(fault))).unwrap();
    world.sandbox.inject(Fault::once(Stage::Token, Action::Close)).unwrap();
    let failed = http(&world.sandbox, "POST", path, "", "").await.unwrap();
    assert_eq!(failed.status, 503);
    assert!(failed.head.contains("\r\nretry-after: 17"), "{}", failed.head);
    assert_eq!(failed.json()["error"], "temporarily_unavailable");
    assert_eq!(failed.json()["error_codes"][0], 90_033);
    assert!(http(&world.sandbox, "POST", path, "", "").await.is_none());
    assert_eq!(http(&world.sandbox, "POST", path, "", "").await.unwrap().status, 400);
    assert_eq!(world.sandbox.counters().token_requests, 3);
}

#[tokio::test]
async fn a_senseless_fault_is_an_error() {
    let world = World::new().await;
    let error = world.sandbox.inject(Fault::once(Stage::Token, reply("250 x"))).unwrap_err();
    assert!(matches!(error, SandboxError::SenselessFault { stage: Stage::Token, .. }), "{error}");
}
