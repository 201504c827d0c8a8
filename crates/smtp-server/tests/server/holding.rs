//! Clients that hold something of upstream's: they must be quick, and whoever serves them need not. By which rule is
//! `holding.rs`'s own unit tests; here is what needs a socket.

use smtp_server::{Holding, Limits};

use crate::client::Client;
use crate::intake::{SHORT, usual};
use crate::patient::{Hook, Running, start, waiting_at};

async fn start_holding(waits_at: Option<Hook>) -> Running {
    start(waits_at, None, |_, limits| limits.holding = Holding { envelope: SHORT }).await
}

#[tokio::test]
async fn a_client_that_is_silent_behind_its_recipient_is_told_and_closed() {
    let server = start_holding(None).await;
    let mut client = Client::greeted(server.address).await;
    client.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250\nS: 421 4.4.2 relay.test timeout").await;
    client.is_closed().await;
    let seen = server.until(|seen| seen.dropped == 1).await;
    assert!(seen.timed_out);
}

#[tokio::test]
async fn a_client_that_drips_behind_its_recipient_is_told_and_closed() {
    let server = start_holding(None).await;
    let mut client = Client::greeted(server.address).await;
    client.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250").await;
    while server.seen().dropped == 0 && client.try_send(b"N").await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.until(|seen| seen.dropped == 1 && seen.timed_out).await;
}

#[tokio::test]
async fn a_client_that_holds_nothing_has_the_time_of_any_other() {
    let server = start_holding(None).await;
    let mut idle = Client::greeted(server.address).await;
    let mut begun = Client::greeted(server.address).await;
    begun.play("C: MAIL FROM:<a@b.c>\nS: 250").await;
    let mut reset = Client::greeted(server.address).await;
    reset.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250\nC: RSET\nS: 250").await;
    let mut in_data = Client::greeted(server.address).await;
    in_data.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250\nC: DATA\nS: 354").await;
    // This one's time began last, and has run out.
    let mut holding = Client::greeted(server.address).await;
    holding.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250\nS: 421").await;
    for client in [&mut idle, &mut begun, &mut reset] {
        client.play("C: NOOP\nS: 250").await;
    }
    in_data.play("C: A: b\nC: .\nS: 250").await;
}

#[tokio::test]
async fn renewed_limits_hold_for_sessions_that_begin_then() {
    let server = waiting_at(Hook::End).await;
    let mut old = Client::greeted(server.address).await;
    old.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250").await;
    let (profile, limits) = usual();
    server.server.renew(profile, Limits { holding: Holding { envelope: SHORT }, ..limits });
    let mut new = Client::greeted(server.address).await;
    new.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<d@b.c>\nS: 250\nS: 421 4.4.2").await;
    old.play("C: NOOP\nS: 250").await;
}
