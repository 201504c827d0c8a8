//! Many clients on one listener: how many may come, and how little they matter to each other.

use crate::client::{Client, within};
use crate::intake::{STRANGER, start, start_with};

/// Connects until there is a place: it comes back a moment after its session has closed.
async fn gets_a_place(server: std::net::SocketAddr) -> Client {
    within(async {
        loop {
            let mut client = Client::connect(server).await;
            if client.line().await.starts_with("220 ") {
                return client;
            }
        }
    })
    .await
}

#[tokio::test]
async fn beyond_the_listeners_places_there_is_a_421_until_one_comes_back() {
    let server = start_with(|limits| limits.max_connections = 1).await;
    let mut first = Client::greeted(server.address).await;
    let mut second = Client::connect(server.address).await;
    second.play("S: 421 4.7.0 Too many connections, try again later").await;
    second.is_closed().await;
    let counts = server.sessions.counts();
    assert_eq!((counts.open, counts.max, counts.admitted, counts.turned_away), (1, 1, 1, 1));
    first.play("C: QUIT\nS: 221").await;
    gets_a_place(server.address).await;
}

#[tokio::test]
async fn a_client_that_goes_without_quit_gives_its_place_back() {
    let server = start_with(|limits| limits.max_connections = 1).await;
    drop(Client::greeted(server.address).await);
    gets_a_place(server.address).await;
}

#[tokio::test]
async fn one_clients_places_are_not_anothers() {
    let server = start_with(|limits| limits.max_connections_per_client = 1).await;
    let _first = Client::greeted(server.address).await;
    let mut second = Client::connect(server.address).await;
    second.play("S: 421 4.7.0 Too many connections from your address").await;
    let mut other = Client::connect_from("127.0.0.2", server.address).await.unwrap();
    other.play("S: 220 ").await;
}

#[tokio::test]
async fn a_hook_that_panics_ends_its_own_session_only() {
    let server = start_with(|limits| limits.max_connections = 2).await;
    let mut well = Client::greeted(server.address).await;
    let mut unlucky = Client::greeted(server.address).await;
    unlucky.play("C: MAIL FROM:<panic@b.c>").await;
    unlucky.is_closed().await;
    well.play("C: MAIL FROM:<a@b.c>\nS: 250 2.1.0").await;
    gets_a_place(server.address).await;
}

#[tokio::test]
async fn a_stranger_takes_nobodys_place() {
    let server = start().await;
    let mut stranger = Client::connect_from(STRANGER, server.address).await.unwrap();
    stranger.play("S: 554 5.7.1 Not you").await;
    stranger.is_closed().await;
    assert_eq!(server.sessions.counts().admitted, 0);
}

/// The first ten of a client that may have one session at a time come at once; then it waits for its turn.
#[tokio::test]
async fn a_client_that_connects_without_end_waits_and_is_not_refused() {
    let server = start_with(|limits| limits.max_connections_per_client = 1).await;
    for _ in 0..12 {
        gets_a_place(server.address).await.play("C: QUIT\nS: 221").await;
    }
    server.recorder.noticed("127.0.0.1 Paced").await;
}
