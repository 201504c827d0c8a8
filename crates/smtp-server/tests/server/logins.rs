//! AUTH over a socket: prompts to the letter, responses that are no commands, and who the client is afterwards.

use smtp_server::session::Authentication;

use crate::client::Client;
use crate::intake::{Event, Running, start_as};

async fn start_required() -> Running {
    start_as(|profile, _| profile.authentication = Authentication::Required).await
}

#[tokio::test]
async fn login_asks_as_devices_expect_and_names_the_client() {
    let server = start_required().await;
    let mut client = Client::greeted(server.address).await;
    client
        .play(
            "C: MAIL FROM:<scan@contoso.com>
             S: 530 5.7.0 Authentication required
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: ZXJw
             S: 334 UGFzc3dvcmQ6
             C: d3Jvbmc=
             S: 535 5.7.8
             C: AUTH LOGIN ZXJw
             S: 334 UGFzc3dvcmQ6
             C: cmlnaHQ=
             S: 235 2.7.0
             C: MAIL FROM:<scan@contoso.com>
             S: 250 2.1.0",
        )
        .await;
    assert_eq!(server.recorder.so_far(), [Event::Mail(" scan@contoso.com as erp".into())]);
}

#[tokio::test]
async fn plain_takes_its_response_with_the_command_or_behind_an_empty_challenge() {
    let server = start_required().await;
    Client::greeted(server.address).await.play("C: AUTH PLAIN AGVycAByaWdodA==\nS: 235 2.7.0").await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"AUTH PLAIN\r\n").await;
    assert_eq!(client.line().await, "334 ");
    client.play("C: AGVycAByaWdodA==\nS: 235 2.7.0").await;
}

#[tokio::test]
async fn a_response_in_pieces_and_with_commands_behind_it_is_one_response() {
    let server = start_required().await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"AUTH LOGIN\r\nZX").await;
    client.play("S: 334").await;
    client.send(b"Jw\r\ncmlnaHQ=\r\nMAIL FROM:<a@b.c>\r\n").await;
    client.play("S: 334\nS: 235\nS: 250 2.1.0").await;
}

#[tokio::test]
async fn a_response_too_long_ends_the_exchange_and_not_the_session() {
    let server = start_required().await;
    let mut client = Client::greeted(server.address).await;
    client.play("C: AUTH PLAIN\nS: 334").await;
    client.send(&[&vec![b'A'; 100_000], &b"\r\n"[..]].concat()).await;
    client.play("S: 500 5.5.6\nC: NOOP\nS: 250\nC: AUTH LOGIN\nS: 334\nC: *\nS: 501 5.7.0").await;
}

#[tokio::test]
async fn three_failed_logins_end_the_session() {
    let server = start_required().await;
    let mut client = Client::greeted(server.address).await;
    let wrong = "C: AUTH PLAIN AGVycAB3cm9uZw==\n";
    client.play(&format!("{wrong}S: 535\n{wrong}S: 535\n{wrong}S: 421 4.7.0")).await;
    client.is_closed().await;
}
