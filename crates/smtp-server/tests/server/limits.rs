//! What a session bounds: lines, errors, sizes, silence, and replies that nobody reads.

use smtp_server::Pace;

use crate::client::Client;
use crate::intake::{Event, SHORT, start, start_with};

#[tokio::test]
async fn a_size_that_is_too_large_is_refused_at_mail() {
    let server = start().await;
    Client::greeted(server.address)
        .await
        .play(
            "C: MAIL FROM:<a@b.c> SIZE=100001
             S: 552 5.3.4
             C: MAIL FROM:<a@b.c> SIZE=100000
             S: 250 2.1.0",
        )
        .await;
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_next_is_a_command_again() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client.send(&[&b"NOOP "[..], &vec![b'x'; 100_000], b"\r\n"].concat()).await;
    client.play("S: 500 5.5.2 Line too long\nC: NOOP\nS: 250 2.0.0").await;
}

#[tokio::test]
async fn a_client_of_errors_only_is_sent_away() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    for _ in 0..9 {
        client.play("C: FROB\nS: 500 5.5.1").await;
    }
    client.play("C: FROB\nS: 421 4.7.0").await;
    client.is_closed().await;
}

#[tokio::test]
async fn a_silent_client_is_told_and_closed() {
    let server = start_with(|limits| limits.command_timeout = SHORT).await;
    let mut client = Client::greeted(server.address).await;
    client.play("S: 421 4.4.2").await;
    client.is_closed().await;
}

/// An octet now and then holds no session.
#[tokio::test]
async fn a_command_that_drips_is_told_and_closed() {
    let server = start_with(|limits| limits.command_timeout = SHORT).await;
    let mut client = Client::greeted(server.address).await;
    while client.try_send(b"N").await.is_ok() {
        tokio::task::yield_now().await;
        if server.recorder.was_noticed("127.0.0.1 TimedOut") {
            break;
        }
    }
    server.recorder.noticed("127.0.0.1 TimedOut").await;
}

#[tokio::test]
async fn a_message_that_drips_is_told_and_closed() {
    let server = start_with(|limits| {
        limits.body_pace = Pace { silence: SHORT * 10, window: SHORT, octets: 1_000_000_000 };
    })
    .await;
    let mut client = Client::in_data(server.address).await;
    while !server.recorder.was_noticed("127.0.0.1 TimedOut") {
        if client.try_send(b"x\r\n").await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
    server.recorder.noticed("127.0.0.1 TimedOut").await;
}

#[tokio::test]
async fn a_client_silent_in_the_middle_of_a_message_is_told_and_closed() {
    let server = start_with(|limits| limits.body_pace.silence = SHORT).await;
    let mut client = Client::in_data(server.address).await;
    client.send(b"half of").await;
    client.play("S: 421 4.4.2").await;
    client.is_closed().await;
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
}

#[tokio::test]
async fn a_client_that_reads_no_replies_is_cut() {
    let server = start_with(|limits| limits.command_timeout = SHORT).await;
    let mut client = Client::greeted(server.address).await;
    let commands = b"HELP\r\n".repeat(10_000);
    let mut sent = 0;
    // Far more than the socket's buffers hold: a server that kept replies in memory would take all of it.
    while sent < 100_000_000 && client.try_send(&commands).await.is_ok() {
        sent += commands.len();
    }
    assert!(sent < 100_000_000, "the server takes commands whose replies nobody reads");
}
