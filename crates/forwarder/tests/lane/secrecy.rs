//! No token in anything that can be shown (invariant 8), even where upstream repeats what it was told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forwarder::{Attempt, TokenTrouble};
use mail::Scope;

use crate::road::{BodyError, LOGIN, Sending, lane_to, lane_with, mail};
use crate::upstream::Upstream;

/// Fails if the token or a good part of its coded form stands in `shown`.
fn holds_no_token(shown: &str) {
    let coded = STANDARD.encode(format!("user={LOGIN}\x01auth=Bearer very-secret-token-number-1\x01\x01"));
    // The login itself is no secret; what follows it is.
    let secret_part = &coded[STANDARD.encode(format!("user={LOGIN}\x01auth=Bearer ")).len()..][..12];
    assert!(!shown.contains("very-secret-token") && !shown.contains(secret_part), "{shown}");
}

async fn shows_no_token(sending: Sending) {
    let attempt: Attempt<BodyError> = sending.ended().await;
    match &attempt {
        Attempt::NotStarted(trouble) => holds_no_token(&format!("{trouble} {trouble:?}")),
        other => panic!("{other:?}"),
    }
    holds_no_token(&format!("{attempt:?}"));
}

#[tokio::test]
async fn an_upstream_that_repeats_the_login_does_not_bring_it_into_the_trouble() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    // What is not understood is said once more.
    for _ in 0..2 {
        let mut session = upstream.greeted().await;
        let login = session.line().await;
        session.say(&format!("500 5.3.3 Unrecognized command '{login}' [X]")).await;
    }
    shows_no_token(sending).await;
    let trouble = road.lane.trouble().unwrap();
    assert!(trouble.text.contains("500 5.3.3 Unrecognized command"), "{trouble}");
}

#[tokio::test]
async fn an_upstream_that_echoes_the_login_does_not_bring_it_into_the_trouble() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.greeted().await;
    let login = session.line().await;
    session.say(&login).await;
    drop(session);
    shows_no_token(sending).await;
}

#[tokio::test]
async fn an_upstream_that_decodes_the_login_does_not_bring_it_into_the_trouble() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.tokens.irreplaceable = true);
    let sending = road.send(mail());
    let mut session = upstream.greeted().await;
    session.line().await;
    session.say("535 5.7.3 no such token: very-secret-token-number-1").await;
    drop(session);
    shows_no_token(sending).await;
}

#[tokio::test]
async fn what_an_endpoint_and_its_limits_show_is_no_secret() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| {
        holds_no_token(&format!("{:?} {:?}", plan.endpoint, plan.limits));
    });
    holds_no_token(&format!("{:?} {:?}", road.lane.id(), TokenTrouble { text: "x".into(), scope: Scope::Tenant }));
}
