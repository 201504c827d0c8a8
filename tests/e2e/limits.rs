//! Limits of clients, users and listeners as the whole daemon keeps them: who has sent enough for this minute hears so at MAIL, and
//! nobody else does.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::Reply;

use crate::harness::{Client, RECIPIENT, World, field, message};
use crate::tenants::{PASSWORD, address_of, listener, user};

async fn client(relay: SocketAddr, last: u8) -> Client {
    Client::connect_from(Ipv4Addr::new(127, 0, 0, last), relay).await.unwrap()
}

async fn log_in(client: &mut Client, user: &str) {
    let login = STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
    assert_eq!(client.command(&format!("AUTH PLAIN {login}")).await.unwrap().code(), 235);
}

async fn send(client: &mut Client, name: &str) -> Reply {
    client.send(&[RECIPIENT], &message(name)).await.unwrap()
}

async fn send_all(client: &mut Client, names: &[&str]) {
    for name in names {
        assert_eq!(send(client, name).await.code(), 250, "{name}");
    }
}

/// The refusal, but for the seconds.
fn refusal(reply: &Reply) -> String {
    let text = reply.lines().join(" ");
    let (said, seconds) = text.split_once(", try again in ").unwrap_or_else(|| panic!("{reply:?}"));
    let seconds: u64 = seconds.trim_end_matches(" s").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{text}");
    format!("{} {said}", reply.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_limit_is_asked_to_come_back_and_no_other_is() {
    let world = World::new().await.set("listener", "max_messages_per_minute_per_client = 3");
    let relay = world.relay().await;
    let (mut one, mut other) = (client(relay.address, 1).await, client(relay.address, 2).await);
    send_all(&mut one, &["a", "b", "c"]).await;
    let said = "450 Client 127.0.0.1 may send 3 messages a minute";
    let reply = send(&mut one, "d").await;
    assert_eq!(refusal(&reply), said);
    assert_eq!(reply.enhanced().map(|code| code.to_string()).as_deref(), Some("4.7.1"));
    // What it had pipelined hears the same.
    for _ in ["RCPT", "DATA"] {
        assert_eq!(refusal(&one.reply().await.unwrap()), said);
    }
    // In another session, too; and the session that was refused goes on.
    assert_eq!(refusal(&send(&mut client(relay.address, 1).await, "e").await), said);
    assert_eq!(one.command("NOOP").await.unwrap().code(), 250);
    send_all(&mut other, &["f", "g", "h"]).await;
    let told = relay.log().wait_for(|line| line.contains("more in a minute than the limit allows"));
    assert_eq!(
        [field(&told, "client"), field(&told, "limit"), field(&told, "most")],
        ["127.0.0.1", "[listener.*] max_messages_per_minute_per_client", "3"]
    );
    world.wait_for(6).await;
    let (_, log) = relay.terminate().await;
    assert_eq!(log.matches("more in a minute than the limit allows").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_begun_counts_whether_a_message_comes_or_not() {
    let world = World::new().await.set("listener", "max_messages_per_minute_per_client = 2");
    let relay = world.relay().await;
    let mut client = client(relay.address, 1).await;
    for _ in 0..2 {
        assert_eq!(client.command("MAIL FROM:<scanner@contoso.com>").await.unwrap().code(), 250);
        assert_eq!(client.command("RSET").await.unwrap().code(), 250);
    }
    assert_eq!(refusal(&send(&mut client, "a").await), "450 Client 127.0.0.1 may send 2 messages a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_clients_of_a_listener_share_its_limit() {
    let world = World::new().await.set("listener", "max_messages_per_minute = 3");
    let world = world.set("tables", listener("other", ""));
    let relay = world.relay().await;
    for last in 1..=3 {
        send_all(&mut client(address_of(&relay, "local"), last).await, &["a"]).await;
    }
    let reply = send(&mut client(address_of(&relay, "local"), 4).await, "b").await;
    assert_eq!(refusal(&reply), "450 All clients of this listener together may send 3 messages a minute");
    send_all(&mut client(address_of(&relay, "other"), 1).await, &["c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_counted_over_listeners_and_addresses() {
    let world = World::new().await.set("listener", "authentication = \"optional\"");
    let world = world.set("tables", user("erp", "max_messages_per_minute = 3"));
    let world = world.set("tables", user("other", ""));
    let world = world.set("tables", listener("other", "authentication = \"required\""));
    let relay = world.relay().await;
    let mut here = client(address_of(&relay, "local"), 1).await;
    log_in(&mut here, "erp").await;
    send_all(&mut here, &["a", "b"]).await;
    let mut there = client(address_of(&relay, "other"), 2).await;
    log_in(&mut there, "ERP").await;
    send_all(&mut there, &["c"]).await;
    let said = "450 User erp may send 3 messages a minute";
    assert_eq!(refusal(&send(&mut there, "d").await), said);
    assert_eq!(refusal(&send(&mut here, "e").await), said);
    // Neither the address nor the listener is at fault.
    send_all(&mut client(address_of(&relay, "local"), 1).await, &["f"]).await;
    let mut other = client(address_of(&relay, "other"), 2).await;
    log_in(&mut other, "other").await;
    send_all(&mut other, &["g", "h", "i", "j"]).await;
}
