//! Clients that go: at every stage the lane is free for the next one at once, and Exchange has nothing of what was not finished.

use std::time::Duration;

use sandbox::{Action, Fault, Stage};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

use super::{Heard, copies, has_struck, narrow, passes, submit};
use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, World, message, until};

/// As far as a client came with its message.
async fn up_to(relay: &Relay, commands: &[&str]) -> Client {
    let mut client = Client::connect(relay.address).await.unwrap();
    for command in commands {
        let reply = client.command(command).await.unwrap();
        assert!(reply.is_positive() || reply.is_intermediate(), "{command}: {reply}");
    }
    client
}

const MAIL: &str = "MAIL FROM:<scanner@contoso.com>";
const RCPT: &str = "RCPT TO:<someone@example.com>";

/// One connection: whoever holds it keeps all others waiting.
async fn one() -> (World, Relay) {
    let world = narrow(1).await;
    let relay = world.relay().await;
    (world, relay)
}

/// The lane is taken by somebody who holds it until it is dropped.
async fn is_taken(relay: &Relay) -> Client {
    up_to(relay, &[MAIL, RCPT]).await
}

/// A client that waits for its turn. It is known to wait once another's is refused by nobody: the relay has its RCPT.
fn waits(relay: &Relay, name: &'static str) -> JoinHandle<Heard> {
    let address = relay.address;
    tokio::spawn(async move { submit(address, name).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_before_the_final_dot_frees_the_lane_and_leaves_nothing() {
    let (world, relay) = one().await;
    let half = [&message("gone")[..], b"\r\nmore of it\r\n"].concat();
    let large = [&half[..], &b"x".repeat(300_000)].concat();
    let stages: [(&[&str], &[u8]); 6] = [
        (&[MAIL, RCPT], b""),
        (&[MAIL, RCPT, "RCPT TO:<other@example.com>"], b""),
        (&[MAIL, RCPT, "DATA"], b""),
        (&[MAIL, RCPT, "DATA"], b"From: x\r\nSubj"),
        (&[MAIL, RCPT, "DATA"], &half),
        (&[MAIL, RCPT, "DATA"], &large),
    ];
    for (number, (commands, content)) in stages.into_iter().enumerate() {
        let mut client = up_to(&relay, commands).await;
        client.write(content).await.unwrap();
        // Half of them say that they go, the others are gone.
        if number % 2 == 0 {
            client.stream.shutdown().await.unwrap();
        }
        drop(client);
        passes(relay.address, &format!("next{number}")).await;
    }
    assert_eq!(world.sandbox.counters().messages, 6);
    assert_eq!(copies(&world, "gone"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_message_back_frees_the_lane() {
    let (world, relay) = one().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for (number, word) in ["RSET", "EHLO test.local", "HELO test.local"].into_iter().enumerate() {
        for command in [MAIL, RCPT, word] {
            let reply = client.command(command).await.unwrap();
            assert_eq!(reply.code(), 250, "{command}: {reply}");
        }
        passes(relay.address, &format!("other{number}")).await;
    }
    // Its session stays, and so does its connection upstream.
    let heard = super::converse(&mut client, SENDER, &[RECIPIENT], &message("own")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    for command in [MAIL, RCPT] {
        assert_eq!(client.command(command).await.unwrap().code(), 250);
    }
    assert_eq!(client.command("QUIT").await.unwrap().code(), 221);
    passes(relay.address, "last").await;
    assert_eq!(world.sandbox.counters().messages, 5);
    assert!(world.sandbox.counters().connections_total <= 2, "{:?}", world.sandbox.counters());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_it_waits_for_a_turn_is_forgotten() {
    let (world, relay) = one().await;
    let mut holder = is_taken(&relay).await;
    let mut gone = up_to(&relay, &[MAIL]).await;
    gone.write(format!("{RCPT}\r\n").as_bytes()).await.unwrap();
    // Another had said more already: nobody knows of its end before that is worked off.
    let mut ahead = up_to(&relay, &[MAIL]).await;
    ahead.write(format!("{RCPT}\r\nDATA\r\n").as_bytes()).await.unwrap();
    ahead.write(&message("ahead")).await.unwrap();
    let next = waits(&relay, "next");
    drop((gone, ahead));
    // The lane is free: it is the next one's, however long the other's wait would have been.
    assert_eq!(holder.command("RSET").await.unwrap().code(), 250);
    let heard = tokio::time::timeout(Duration::from_secs(15), next).await.expect("it waits behind nobody").unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!((world.sandbox.counters().messages, copies(&world, "next")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_while_upstream_is_asked_holds_nothing() {
    let (world, relay) = one().await;
    for (number, stage) in [Stage::Auth, Stage::Mail, Stage::Rcpt, Stage::Data].into_iter().enumerate() {
        // So late that only who leaves can make room in time.
        world.sandbox.inject(Fault::once(stage, Action::Delay(PATIENCE))).unwrap();
        let said: &[&str] = if stage == Stage::Data { &[MAIL, RCPT] } else { &[MAIL] };
        let mut client = up_to(&relay, said).await;
        let asked = if stage == Stage::Data { "DATA" } else { RCPT };
        client.write(format!("{asked}\r\n").as_bytes()).await.unwrap();
        has_struck(&world).await;
        drop(client);
        passes(relay.address, &format!("next{number}")).await;
    }
    assert_eq!(world.sandbox.counters().messages, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_behind_the_final_dot_loses_the_answer_alone() {
    let (world, relay) = one().await;
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Delay(Duration::from_secs(1)))).unwrap();
    let mut client = up_to(&relay, &[MAIL, RCPT, "DATA"]).await;
    client.write(&[&message("late")[..], b"\r\n.\r\n"].concat()).await.unwrap();
    has_struck(&world).await;
    drop(client);
    let line = super::told(&relay, "late");
    assert!(line.contains("\"outcome\":\"accepted\""), "{line}");
    assert_eq!(copies(&world, "late"), 1);
    passes(relay.address, "next").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_ahead_while_it_waits_is_heard_in_order() {
    let (world, relay) = one().await;
    let mut holder = is_taken(&relay).await;
    let mut client = up_to(&relay, &[MAIL]).await;
    // The whole message in one write, as some do without an offer of PIPELINING.
    let commands = format!("{RCPT}\r\nRCPT TO:<other@example.com>\r\nDATA\r\n");
    let ahead = [commands.as_bytes(), &message("ahead"), b"\r\n.\r\nNOOP\r\n"];
    client.write(&ahead.concat()).await.unwrap();
    assert_eq!(holder.command("QUIT").await.unwrap().code(), 221);
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(client.reply().await.unwrap().code());
    }
    assert_eq!(codes, [250, 250, 354, 250, 250]);
    assert!(until(PATIENCE, || copies(&world, "ahead") == 1).await);
}
