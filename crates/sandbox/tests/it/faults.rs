//! Injected faults, one for each stage and action.

use std::time::{Duration, Instant};

use sandbox::catalogue::Effect;
use sandbox::{
    Action, DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, EXCHANGE_SCOPE, Fault, Grant, HttpFault, Limits,
    Mailbox, OddToken, SandboxError, Stage, Target, TokenFault, catalogue,
};

use crate::support::{Client, World, form, http, imds, xoauth2};

fn reply(text: &str) -> Action {
    Action::Reply(text.to_owned())
}

/// Brings a client to where the next command is the one of `stage`, and gives that command.
async fn just_before(world: &World, stage: Stage) -> (Client, String) {
    just_before_with(world, stage, || {}).await
}

/// The same; `inject` is called before DATA's 354 for what strikes within the content, else last.
async fn just_before_with(world: &World, stage: Stage, inject: impl Fn()) -> (Client, String) {
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
        Stage::Content | Stage::EndOfData => {
            if stage == Stage::Content {
                inject();
            }
            client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
        }
        _ => {}
    }
    if stage != Stage::Content {
        inject();
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
    assert_eq!(error.to_string(), "a fault at token cannot answer with an SMTP reply");
    assert!(matches!(error, SandboxError::SenselessFault { stage: Stage::Token, .. }), "{error}");
}

#[tokio::test]
async fn a_late_answer_is_the_right_one() {
    let world = World::new().await;
    let late = Duration::from_millis(30);
    for stage in STAGES {
        let (mut client, command) = just_before(&world, stage).await;
        world.sandbox.inject(Fault::once(stage, Action::Delay(late))).unwrap();
        let asked = Instant::now();
        let answer = client.say(&command).await;
        assert!(asked.elapsed() >= late, "{stage}");
        assert!(answer.starts_with(['2', '3']), "{stage}: {answer}");
    }
    world.sandbox.inject(Fault::once(Stage::Connect, Action::Delay(late))).unwrap();
    let asked = Instant::now();
    world.connect().await;
    assert!(asked.elapsed() >= late);
}

#[tokio::test]
async fn a_message_is_kept_before_its_slow_final_reply() {
    let world = World::new().await;
    let (mut client, command) = just_before(&world, Stage::EndOfData).await;
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Delay(Duration::from_hours(1)))).unwrap();
    client.write(format!("{command}\r\n")).await;
    assert_eq!(world.sandbox.wait_for(1, crate::support::PATIENCE).await.unwrap()[0].message_id, "<m@x>");
    // A client that leaves is noticed while the answer waits.
    drop(client);
    world.connections(0).await;
}

#[tokio::test]
async fn content_that_does_not_wait_for_a_late_354_is_noted() {
    let world = World::new().await;
    for impatient in [false, true] {
        let (mut client, command) = just_before(&world, Stage::Data).await;
        world.sandbox.inject(Fault::once(Stage::Data, Action::Delay(Duration::from_millis(400)))).unwrap();
        client.write(format!("{command}\r\n")).await;
        if impatient {
            client.write("\r\n.\r\n").await;
        }
        assert!(client.reply().await.starts_with("354 "));
        if !impatient {
            client.write("\r\n.\r\n").await;
        }
        assert!(client.reply().await.starts_with("250 "));
        assert_eq!(world.sandbox.messages().pop().unwrap().before_354, impatient);
    }
}

#[tokio::test]
async fn every_cut_of_the_catalogue_says_nothing() {
    let world = World::new().await;
    let mut cuts = 0;
    for row in catalogue::all().filter(|row| matches!(row.effect, Effect::Close | Effect::KeepThenClose)) {
        let inject = || world.sandbox.inject(row.fault()).unwrap();
        match row.stage {
            Stage::Token => {
                inject();
                assert!(form(&world.sandbox, &[]).await.is_none(), "{row}");
            }
            Stage::Imds => {
                inject();
                assert!(imds(&world.sandbox, "", "").await.is_none(), "{row}");
            }
            Stage::Connect => {
                inject();
                assert_eq!(world.connect_silently().await.line().await, None, "{row}");
            }
            stage => {
                let (mut client, command) = just_before_with(&world, stage, inject).await;
                client.write(format!("{command}\r\n")).await;
                assert_eq!(client.line().await, None, "{row}");
            }
        }
        cuts += 1;
    }
    assert_eq!(cuts, 12);
    // Only `drop-after-dot-taken` kept its message.
    assert_eq!(world.sandbox.counters().messages, 1);
}

#[tokio::test]
async fn what_was_sent_in_clear_in_a_pause_does_not_count_inside_tls() {
    let world = World::new().await;
    let (mut client, command) = just_before(&world, Stage::StartTls).await;
    world.sandbox.inject(Fault::once(Stage::StartTls, Action::Delay(Duration::from_millis(400)))).unwrap();
    client.write(format!("{command}\r\n")).await;
    client.write("EHLO injected.example\r\n").await;
    assert_eq!(client.reply().await, "220 2.0.0 SMTP server ready");
    let mut client = client.handshake(&world.sandbox).await;
    assert_eq!(client.say("MAIL FROM:<scanner@contoso.com>").await, "503 5.5.2 Send hello first [..]");
}

#[tokio::test]
async fn a_transfer_can_be_struck_in_its_middle() {
    let world = World::new().await;
    let content = format!("{}\r\n", "x".repeat(100)).repeat(10);
    for (content, answer) in [(content.as_str(), None), (content.as_str(), Some("421 4.3.2 Service not active"))] {
        let action = answer.map_or(Action::Close, reply);
        world.sandbox.inject(Fault::once(Stage::Content, action)).unwrap();
        let mut client = world.logged_in().await;
        client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
        client.write(content).await;
        assert_eq!(client.line().await.as_deref(), answer);
        assert_eq!(client.line().await, None);
    }
    // A message that is shorter than the place of the fault is struck at its dot.
    world.sandbox.inject(Fault::once(Stage::Content, Action::Close)).unwrap();
    let mut client = world.logged_in().await;
    client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
    client.write("x\r\n.\r\n").await;
    assert_eq!(client.line().await, None);
    world.connections(0).await;
    let counters = world.sandbox.counters();
    assert_eq!((counters.messages, counters.cut_transfers), (0, 3));
}

#[tokio::test]
async fn a_stalled_transfer_stops_reading() {
    let world = World::with(|options| options.session_limit = Duration::from_millis(1_500)).await;
    world.sandbox.inject(Fault::once(Stage::Content, Action::Stall)).unwrap();
    let mut client = world.logged_in().await;
    client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
    // More than the sockets hold: the write ends only because the session does.
    let content = vec![b'x'; 64 << 20];
    assert!(client.try_write(&content).await.is_err());
}

#[tokio::test]
async fn a_fault_can_be_meant_for_one_mailbox() {
    let world = World::with(|options| {
        options.tenants[0].mailboxes.push(Mailbox::new("b@contoso.com").granted(DEFAULT_CLIENT_ID, Grant::Rbac));
    })
    .await;
    let only = || Target::Mailbox("B@contoso.com".to_owned());
    world.sandbox.inject(Fault::once(Stage::Auth, reply("454 4.7.0 Not you")).only(only())).unwrap();
    world.sandbox.inject(Fault::always(Stage::Mail, reply("451 4.7.0 Nor this [..]")).only(only())).unwrap();
    let mut other = world.logged_in().await;
    assert!(other.send("\r\n").await.starts_with("250 "));
    let token = world.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap();
    let auth = format!("AUTH XOAUTH2 {}", xoauth2("b@contoso.com", &token));
    let mut client = world.secure().await;
    assert_eq!(client.say(&auth).await, "454 4.7.0 Not you");
    assert_eq!(client.say(&auth).await, "235 2.7.0 Authentication successful");
    assert_eq!(client.say("MAIL FROM:<b@contoso.com>").await, "451 4.7.0 Nor this [..]");
    assert_eq!(world.sandbox.waiting_faults().len(), 1);
}

#[tokio::test]
async fn the_token_endpoint_answers_oddly() {
    let world = World::new().await;
    let ask = async || {
        let good = [
            ("client_id", DEFAULT_CLIENT_ID),
            ("scope", EXCHANGE_SCOPE),
            ("grant_type", "client_credentials"),
            ("client_secret", DEFAULT_SECRET),
        ];
        form(&world.sandbox, &good).await
    };
    let inject = |action| world.sandbox.inject(Fault::once(Stage::Token, action)).unwrap();
    inject(Action::Http(HttpFault { status: 429, retry_after: Some(7), ..HttpFault::default() }));
    let throttled = ask().await.unwrap();
    assert_eq!((throttled.status, throttled.body.as_str()), (429, ""));
    assert!(throttled.head.contains("\r\nretry-after: 7"));
    let location = Some("/common/oauth2/v2.0/token".to_owned());
    inject(Action::Http(HttpFault { status: 307, location, ..HttpFault::default() }));
    let moved = ask().await.unwrap();
    assert!(moved.status == 307 && moved.head.contains("\r\nlocation: /common/"), "{}", moved.head);
    inject(Action::Http(HttpFault { status: 200, body: "<html>".to_owned(), ..HttpFault::default() }));
    let garbage = ask().await.unwrap();
    assert!(garbage.head.contains("\r\ncontent-type: text/html"));
    assert_eq!((garbage.status, garbage.body.as_str()), (200, "<html>"));
    inject(Action::OddToken(OddToken::Empty));
    assert_eq!(ask().await.unwrap().json()["access_token"], "");
    inject(Action::OddToken(OddToken::Lifetime(Duration::from_mins(1))));
    assert_eq!(ask().await.unwrap().json()["expires_in"], 60);
    inject(Action::OddToken(OddToken::Padded(10 << 20)));
    assert!(ask().await.unwrap().body.len() > 10 << 20);
    inject(Action::Delay(Duration::from_millis(30)));
    let asked = Instant::now();
    assert_eq!(ask().await.unwrap().status, 200);
    assert!(asked.elapsed() >= Duration::from_millis(30));
    // For another client, so not for this one.
    let other = Fault::once(Stage::Token, Action::Close).only(Target::Client("another".to_owned()));
    world.sandbox.inject(other).unwrap();
    assert_eq!(ask().await.unwrap().status, 200);
    let mine = Fault::once(Stage::Token, Action::Close).only(Target::Client(DEFAULT_CLIENT_ID.to_owned()));
    world.sandbox.inject(mine).unwrap();
    assert!(ask().await.is_none());
}

#[tokio::test]
async fn every_reply_of_the_catalogue_is_said_to_the_letter() {
    let world = World::with(|options| options.limits = Limits::Off).await;
    let mut said = 0;
    for row in catalogue::all() {
        let Effect::Reply(text) = row.effect else { continue };
        let inject = || world.sandbox.inject(row.fault()).unwrap();
        let answer = match row.stage {
            Stage::Connect => {
                inject();
                world.connect_silently().await.line().await.unwrap()
            }
            stage => {
                let (mut client, command) = just_before_with(&world, stage, inject).await;
                client.say(&command).await
            }
        };
        assert_eq!(answer, text, "{row}");
        said += 1;
    }
    assert!(said > 70, "{said}");
    assert_eq!(world.sandbox.counters().messages, 0);
    assert!(world.sandbox.waiting_faults().is_empty());
}

#[tokio::test]
async fn token_rows_come_over_https() {
    let world = World::new().await;
    for (name, status, error) in [
        ("token-7000215", 401, "invalid_client"),
        ("token-90002", 400, "invalid_request"),
        ("token-700082", 400, "invalid_grant"),
        ("token-53003-invalid-grant", 400, "invalid_grant"),
        ("token-90033", 503, "temporarily_unavailable"),
        ("token-70016", 400, "authorization_pending"),
    ] {
        world.sandbox.inject(catalogue::find(name).unwrap().fault()).unwrap();
        let reply = form(&world.sandbox, &[]).await.unwrap();
        let code: u64 = name.split('-').nth(1).unwrap().parse().unwrap();
        assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)), "{name}");
        assert_eq!(reply.json()["error_codes"][0].as_u64(), Some(code));
        let description = reply.json()["error_description"].as_str().unwrap().to_owned();
        assert!(description.starts_with(&format!("AADSTS{code}: ")) && description.contains("\r\nTrace ID: "));
    }
    for (name, status, head) in [
        ("token-429", 429, "retry-after: 5"),
        ("token-503", 503, "retry-after: 5"),
        ("token-redirect", 302, "location: /common/oauth2/v2.0/token"),
        ("token-garbage", 200, "content-type: text/html"),
        ("token-half-json", 200, "content-type: application/json"),
    ] {
        world.sandbox.inject(catalogue::find(name).unwrap().fault()).unwrap();
        let reply = form(&world.sandbox, &[]).await.unwrap();
        assert_eq!(reply.status, status, "{name}");
        assert!(reply.head.contains(head), "{name}: {}", reply.head);
    }
}
