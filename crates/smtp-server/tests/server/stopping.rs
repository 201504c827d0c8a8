//! The stop: 421 between commands, a message under way comes to its end, nobody new.

use tokio::net::TcpStream;

use crate::client::{Client, within};
use crate::intake::{Event, start};

#[tokio::test]
async fn an_idle_session_is_told_and_the_server_ends() {
    let server = start().await;
    let mut idle = Client::greeted(server.address).await;
    server.stop.cancel();
    idle.play("S: 421 4.3.2").await;
    idle.is_closed().await;
    within(server.serving).await.unwrap();
}

#[tokio::test]
async fn a_message_under_way_is_finished_and_gets_its_reply() {
    let server = start().await;
    let mut busy = Client::in_data(server.address).await;
    let mut idle = Client::greeted(server.address).await;
    server.stop.cancel();
    idle.play("S: 421 4.3.2").await;
    busy.play("C: Subject: last\nC: .\nS: 250 2.0.0\nS: 421 4.3.2").await;
    busy.is_closed().await;
    assert_eq!(server.recorder.messages(1).await, [Event::message("Subject: last\r\n")]);
    within(server.serving).await.unwrap();
}

#[tokio::test]
async fn nobody_new_is_taken_while_a_message_is_finished() {
    let server = start().await;
    let _busy = Client::in_data(server.address).await;
    server.stop.cancel();
    within(async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    assert!(!server.serving.is_finished(), "the message under way was not waited for");
}

#[tokio::test]
async fn dropping_the_server_cuts_what_is_left() {
    let server = start().await;
    let mut busy = Client::in_data(server.address).await;
    busy.send(b"half of").await;
    server.stop.cancel();
    server.serving.abort();
    busy.is_closed().await;
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
}
