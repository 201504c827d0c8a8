//! Load balancers: who may speak for others must, and nobody else can.

use crate::client::Client;
use crate::intake::{LOAD_BALANCER, STRANGER, start, start_with};

async fn behind(server: std::net::SocketAddr, header: &[u8]) -> Client {
    let mut client = Client::connect_from(LOAD_BALANCER, server).await.unwrap();
    client.send(header).await;
    client
}

/// Version 2, PROXY, TCP over IPv4, from 192.0.2.1:1000 to 192.0.2.2:25.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x03\xe8\0\x19";

#[tokio::test]
async fn the_header_names_the_client() {
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n"[..], V2] {
        let server = start().await;
        // The client's first words may come in the same packet.
        let mut client = behind(server.address, &[header, b"NOOP\r\n"].concat()).await;
        client.play("S: 220\nS: 250 2.0.0").await;
        assert_eq!(server.recorder.noticed("").await, "192.0.2.1 Connected");
    }
}

#[tokio::test]
async fn a_header_in_pieces_is_one() {
    let server = start().await;
    let mut client = Client::connect_from(LOAD_BALANCER, server.address).await.unwrap();
    for octet in V2 {
        client.send(&[*octet]).await;
    }
    client.play("S: 220").await;
    assert_eq!(server.recorder.noticed("").await, "192.0.2.1 Connected");
}

#[tokio::test]
async fn a_load_balancer_that_asks_for_itself_is_itself() {
    let server = start().await;
    behind(server.address, b"PROXY UNKNOWN\r\n").await.play("S: 220").await;
    assert_eq!(server.recorder.noticed("").await, format!("{LOAD_BALANCER} Connected"));
}

#[tokio::test]
async fn a_load_balancer_that_only_looks_is_no_trouble() {
    let server = start().await;
    drop(Client::connect_from(LOAD_BALANCER, server.address).await.unwrap());
    behind(server.address, b"PROXY UNKNOWN\r\n").await.play("S: 220").await;
    server.recorder.noticed(&format!("{LOAD_BALANCER} Connected")).await;
    assert!(!server.recorder.was_noticed(&format!("{LOAD_BALANCER} ProxyHeaderMissing")));
}

#[tokio::test]
async fn a_load_balancer_without_a_header_gets_no_word() {
    let server = start().await;
    let mut client = behind(server.address, b"EHLO health-check\r\n").await;
    client.is_closed().await;
    server.recorder.noticed(&format!("{LOAD_BALANCER} ProxyHeaderMissing")).await;
    assert_eq!(server.sessions.counts().open, 0);
}

#[tokio::test]
async fn nobody_else_can_say_who_he_is() {
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n"[..], V2] {
        let server = start().await;
        let mut client = Client::greeted(server.address).await;
        client.send(header).await;
        client.play("S: 554 5.5.1").await;
        client.is_closed().await;
        server.recorder.noticed("127.0.0.1 ProxyHeaderRefused").await;
    }
}

#[tokio::test]
async fn a_stranger_behind_a_load_balancer_is_a_stranger() {
    let server = start().await;
    let mut client = behind(server.address, format!("PROXY TCP4 {STRANGER} 192.0.2.2 1000 25\r\n").as_bytes()).await;
    client.play("S: 554 5.7.1").await;
    client.is_closed().await;
}

/// Its own address is a client's only if the load balancer is on this machine, too: all of 127.0.0.0/8 is, here.
#[tokio::test]
async fn a_load_balancer_on_this_machine_may_name_this_machine() {
    let server = start().await;
    behind(server.address, b"PROXY TCP4 127.0.0.1 127.0.0.1 1000 25\r\n").await.play("S: 220").await;
    server.recorder.noticed("127.0.0.1 Connected").await;
}

#[tokio::test]
async fn places_are_counted_by_the_client_and_not_by_the_load_balancer() {
    let server = start_with(|limits| limits.max_connections_per_client = 1).await;
    let header = |last: u8| format!("PROXY TCP4 192.0.2.{last} 192.0.2.200 1000 25\r\n").into_bytes();
    let mut one = behind(server.address, &header(1)).await;
    one.play("S: 220").await;
    let mut other = behind(server.address, &header(2)).await;
    other.play("S: 220").await;
    behind(server.address, &header(1)).await.play("S: 421 4.7.0 Too many connections from your address").await;
}
