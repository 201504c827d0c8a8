//! Stopping with clients that wait: for a turn, for Exchange's answer.

use std::time::Duration;

use sandbox::{Action, Fault, Stage};

use super::{copies, events, has_struck, narrow, told, world};
use crate::harness::{Client, RECIPIENT, SENDER, message};

async fn up_to_rcpt(server: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(server).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    client.write(format!("RCPT TO:<{RECIPIENT}>\r\n").as_bytes()).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_a_turn_hears_421_and_one_under_way_is_served() {
    let world = narrow(1).await;
    let relay = world.relay().await;
    let mut served = up_to_rcpt(relay.address).await;
    assert_eq!(served.reply().await.unwrap().code(), 250);
    assert_eq!(served.command("DATA").await.unwrap().code(), 354);
    served.write(b"Message-ID: <half@test.local>\r\n\r\nfirst half, ").await.unwrap();
    let mut waiting = up_to_rcpt(relay.address).await;
    let mut idle = Client::connect(relay.address).await.unwrap();
    relay.signal("TERM");
    for client in [&mut waiting, &mut idle] {
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.code(), 421, "{reply}");
        assert!(super::is_closed(client).await);
    }
    served.write(b"second half\r\n.\r\n").await.unwrap();
    assert_eq!(served.reply().await.unwrap().code(), 250);
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!((copies(&world, "half"), world.sandbox.counters().messages), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_its_final_wait_is_answered_within_the_grace() {
    let world = world().await.set("shutdown", "grace = \"20s\"");
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Delay(Duration::from_secs(1)))).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.begin(&[RECIPIENT]).await;
    client.write(&[&message("final")[..], b"\r\n.\r\n"].concat()).await.unwrap();
    has_struck(&world).await;
    relay.signal("TERM");
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.code(), 250, "{reply}");
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("<final@test.local>") && log.contains("\"outcome\":\"accepted\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_wait_beyond_the_grace_promises_nothing_and_is_told() {
    let world = world().await.set("shutdown", "grace = \"1s\"");
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Stall)).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.begin(&[RECIPIENT]).await;
    client.write(&[&message("silent")[..], b"\r\n.\r\n"].concat()).await.unwrap();
    has_struck(&world).await;
    relay.signal("TERM");
    match client.reply().await {
        Ok(reply) => assert_eq!(reply.code() / 100, 4, "{reply}"),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut),
    }
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("<silent@test.local>") && log.contains("\"outcome\":\"uncertain\""), "{log}");
    assert_eq!(events(&world, "silent"), ["uncertain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_client_that_stands_still_when_the_grace_is_over() {
    let world = world().await.set("shutdown", "grace = \"1s\"");
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.begin(&[RECIPIENT]).await;
    client.write(&[&message("still")[..], b"\r\nhalf"].concat()).await.unwrap();
    relay.signal("TERM");
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(copies(&world, "still"), 0);
    let relay = world.relay().await;
    super::passes(relay.address, "next").await;
    let line = told(&relay, "next");
    assert!(line.contains("\"outcome\":\"accepted\""), "{line}");
}
