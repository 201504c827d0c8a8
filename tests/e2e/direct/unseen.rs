//! What a client never hears of: connections that ended while nobody used them, one that is lost before DATA, tokens that must be
//! renewed.

use std::time::Duration;

use sandbox::{Action, Fault, Limits, SandboxOptions, Stage};

use super::{At, DIRECT, Road, converse, copies, has_connections, id, passes, recipients, submit, world};
use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, message};

const OTHER: &str = "other@example.com";

fn warnings(relay: &Relay) -> usize {
    relay.log().count(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
}

fn cut(stage: Stage) -> Fault {
    Fault::once(stage, Action::Close)
}

fn says(stage: Stage, text: &str) -> Fault {
    Fault::once(stage, Action::Reply(text.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_cut_while_idle_is_replaced() {
    let world = world().await;
    let road = Road::to(world.sandbox.smtp_port()).await;
    let relay = road.relay(&world).await;
    for number in 0..5 {
        passes(relay.address, &format!("m{number}")).await;
        // Upstream sees its end; whether the relay has, too, is chance, and must not matter.
        road.cut();
        has_connections(&world, 0).await;
    }
    assert_eq!(world.sandbox.counters().connections_total, 5);
    assert_eq!((world.sandbox.counters().messages, warnings(&relay)), (5, 0), "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_421_to_an_idle_connection_is_heard_by_nobody() {
    let idle_timeout = Duration::from_millis(200);
    let options = SandboxOptions { limits: Limits::Off, idle_timeout, ..SandboxOptions::default() };
    let world = World::with(options).await.set("listener", DIRECT);
    let relay = world.relay().await;
    for number in 0..3 {
        passes(relay.address, &format!("m{number}")).await;
        has_connections(&world, 0).await;
    }
    // So when it comes in answer to the next message.
    for (number, reply) in
        ["421 4.4.1 Connection timed out", "421 4.4.2 Timeout waiting for client input"].iter().enumerate()
    {
        passes(relay.address, &format!("before{number}")).await;
        world.sandbox.inject(says(Stage::Mail, reply)).unwrap();
        let heard = submit(relay.address, &format!("then{number}")).await;
        assert!(heard.is_taken(), "{reply}: {heard:?}");
    }
    assert_eq!((world.sandbox.counters().messages, warnings(&relay)), (7, 0), "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_before_data_is_replaced_once_and_told_the_same() {
    let world = world().await;
    let relay = world.relay().await;
    for (number, stage) in [Stage::Mail, Stage::Rcpt, Stage::Data].into_iter().enumerate() {
        // Of two recipients the second is struck.
        if stage == Stage::Rcpt {
            world.sandbox.inject(says(stage, "250 2.1.5 Recipient OK")).unwrap();
        }
        world.sandbox.inject(cut(stage)).unwrap();
        let name = format!("m{number}");
        let mut client = Client::connect(relay.address).await.unwrap();
        let heard = converse(&mut client, SENDER, &[RECIPIENT, OTHER], &message(&name)).await.unwrap();
        assert!(heard.is_taken(), "{stage}: {heard:?}");
        let taken = world.wait_for(number as u64 + 1).await;
        assert_eq!((taken[number].message_id.clone(), recipients(&taken[number])), (id(&name), vec![RECIPIENT, OTHER]));
    }
    assert_eq!(world.sandbox.counters().messages, 3);
    // And no more than once. A connection that was used before may be lost beside that.
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
        world.sandbox.inject(cut(stage).times(3)).unwrap();
        let mut client = Client::connect(relay.address).await.unwrap();
        let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("lost")).await.unwrap();
        let at = if stage == Stage::Data { At::Data } else { At::Rcpt };
        assert_eq!((heard.at, heard.reply.code()), (at, 451), "{stage}: {heard:?}");
        world.sandbox.clear_faults();
    }
    assert_eq!(copies(&world, "lost"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_replaced_by_one_that_says_otherwise() {
    let world = world().await;
    let relay = world.relay().await;
    for fault in [
        says(Stage::Rcpt, "250 2.1.5 Recipient OK"),
        cut(Stage::Rcpt),
        says(Stage::Rcpt, "550 5.1.10 Recipient not found"),
    ] {
        world.sandbox.inject(fault).unwrap();
    }
    let mut client = Client::connect(relay.address).await.unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT, OTHER], &message("turned")).await.unwrap();
    assert_eq!((heard.at, heard.reply.code()), (At::Rcpt, 451), "the first was told that it is taken: {heard:?}");
    assert!(world.sandbox.waiting_faults().is_empty());
    // The client was told so of a recipient that is its message's no longer: it may not send it.
    let reply = client.command("DATA").await.unwrap();
    assert!(!reply.is_intermediate(), "{reply}");
    assert_eq!(client.command("RSET").await.unwrap().code(), 250);
    let heard = converse(&mut client, SENDER, &[RECIPIENT, OTHER], &message("again")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!(copies(&world, "turned"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_upstream_finds_expired_is_renewed() {
    let world = world().await;
    let relay = world.relay().await;
    world.sandbox.inject(says(Stage::Auth, "535 5.7.3 Authentication unsuccessful [..]")).unwrap();
    passes(relay.address, "one").await;
    assert_eq!((world.sandbox.counters().tokens_issued, world.sandbox.counters().auth_failures), (2, 1));
    passes(relay.address, "two").await;
    assert_eq!((world.sandbox.counters().messages, warnings(&relay)), (2, 0), "{}", relay.log().text());
}
