//! What changes while a server serves: who comes gets the new terms, who is there keeps the old ones.

use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, within};
use crate::intake::{Event, start, usual};

#[tokio::test]
async fn a_renewed_profile_is_for_new_sessions_and_the_old_one_goes_on() {
    let server = start().await;
    let mut old = Client::greeted(server.address).await;
    let (mut profile, limits) = usual();
    profile.hostname = "renamed.test".to_owned();
    profile.max_message_size = 7_000;
    server.server.renew(profile, limits);
    let mut new = Client::connect(server.address).await;
    new.play("S: 220 renamed.test").await;
    new.play("C: MAIL FROM:<a@b.c> SIZE=8000\nS: 552").await;
    old.play("C: MAIL FROM:<a@b.c> SIZE=8000\nS: 250 2.1.0").await;
}

#[tokio::test]
async fn renewed_bounds_count_the_sessions_that_are_there_and_end_none() {
    let server = start().await;
    let mut first = Client::greeted(server.address).await;
    let (profile, mut limits) = usual();
    limits.max_connections = 1;
    server.server.renew(profile.clone(), limits.clone());
    Client::connect(server.address).await.play("S: 421 4.7.0 Too many connections, try again later").await;
    first.play("C: NOOP\nS: 250").await;
    limits.max_connections = 2;
    server.server.renew(profile, limits);
    Client::connect(server.address).await.play("S: 220 relay.test").await;
    assert_eq!(server.sessions.counts().max, 2);
}

#[tokio::test]
async fn a_closed_socket_takes_nobody_while_its_sessions_end_in_their_own_time() {
    let server = start().await;
    let mut busy = Client::in_data(server.address).await;
    within(server.gate.close()).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "the socket is closed when the gate says so");
    assert_eq!(server.sessions.counts().open, 1);
    busy.play("C: Subject: late\nC: .\nS: 250 2.0.0\nC: NOOP\nS: 250").await;
    assert_eq!(server.recorder.messages(1).await, [Event::message("Subject: late\r\n")]);
    assert!(!server.serving.is_finished());
    busy.play("C: QUIT\nS: 221").await;
    within(server.serving).await.unwrap();
}

#[tokio::test]
async fn a_stop_still_reaches_the_sessions_of_a_closed_socket() {
    let server = start().await;
    let mut idle = Client::greeted(server.address).await;
    within(server.gate.close()).await;
    server.stop.cancel();
    idle.play("S: 421 4.3.2").await;
    within(server.serving).await.unwrap();
}

#[tokio::test]
async fn another_socket_shares_the_sessions_of_the_one_that_was_closed() {
    let server = start().await;
    let _old = Client::greeted(server.address).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let moved = listener.local_addr().unwrap();
    let gate = smtp_server::Gate::new();
    let serving = tokio::spawn(server.server.clone().serve_through(&gate, listener, server.stop.clone()));
    within(server.gate.close()).await;
    let _new = Client::greeted(moved).await;
    assert_eq!(server.sessions.counts().open, 2);
    serving.abort();
    // Whoever closes what was cut does not wait for ever.
    within(gate.close()).await;
}
