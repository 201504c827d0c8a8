//! AUTH XOAUTH2: its octets, its two forms, its refusals, and how sparingly fresh tokens are asked for.

use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forwarder::{Attempt, TroubleKind};
use mail::Scope;

use crate::road::{LOGIN, lane_to, lane_with, mail};
use crate::upstream::{EHLO, Session, Tls, Upstream};

const REFUSED: &str = "535 5.7.3 Authentication unsuccessful [X]";

fn response(token: usize) -> String {
    STANDARD.encode(format!("user={LOGIN}\x01auth=Bearer very-secret-token-number-{token}\x01\x01"))
}

/// Refuses the login with this token, and sees the client off.
async fn refuse(mut session: Session<Tls>, token: usize, reply: &str) {
    session.answer(&format!("AUTH XOAUTH2 {}", response(token)), reply).await;
    session.answer("QUIT", "221 2.0.0 bye").await;
}

#[tokio::test]
async fn the_response_goes_inline() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.greeted().await;
    session.answer(&format!("AUTH XOAUTH2 {}", response(1)), "235 2.7.0 Authentication successful").await;
    session.take().await;
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

#[tokio::test]
async fn an_empty_challenge_gets_the_response_on_a_line_of_its_own() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.greeted().await;
    session.answer(&format!("AUTH XOAUTH2 {}", response(1)), "334 ").await;
    session.answer(&response(1), "235 2.7.0 Authentication successful").await;
    session.take().await;
    assert_eq!(sending.outcomes().await.len(), 1);
}

#[tokio::test]
async fn a_json_challenge_gets_an_empty_line_and_not_the_token_again() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.tokens.irreplaceable = true);
    let sending = road.send(mail());
    let mut session = upstream.greeted().await;
    session.answer(&format!("AUTH XOAUTH2 {}", response(1)), "334 eyJzdGF0dXMiOiI0MDAifQ==").await;
    assert_eq!(session.line().await, "");
    session.say(REFUSED).await;
    session.answer("QUIT", "221 2.0.0 bye").await;
    assert!(matches!(sending.ended().await, Attempt::NotStarted(_)));
}

#[tokio::test]
async fn a_535_brings_one_fresh_token_and_the_next_535_holds_the_mailbox() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    refuse(upstream.greeted().await, 1, REFUSED).await;
    refuse(upstream.greeted().await, 2, REFUSED).await;
    match sending.ended().await {
        Attempt::NotStarted(trouble) => {
            assert_eq!((trouble.kind, trouble.scope), (TroubleKind::Refused, Scope::Mailbox));
            assert!(trouble.text.contains("535 5.7.3 Authentication unsuccessful [X]"), "{trouble}");
            assert!(trouble.text.contains(LOGIN), "{trouble}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(road.tokens.replaced.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_next_probe_of_a_refused_login_asks_for_no_fresh_token() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    refuse(upstream.greeted().await, 1, REFUSED).await;
    refuse(upstream.greeted().await, 2, REFUSED).await;
    sending.ended().await;
    road.advance(60);
    let probe = road.send(mail());
    refuse(upstream.greeted().await, 2, REFUSED).await;
    assert!(matches!(probe.ended().await, Attempt::NotStarted(_)));
    assert_eq!(road.tokens.replaced.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_fresh_token_that_is_taken_sends_the_message() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    refuse(upstream.greeted().await, 1, REFUSED).await;
    let mut session = upstream.greeted().await;
    session.answer(&format!("AUTH XOAUTH2 {}", response(2)), "235 2.7.0 Authentication successful").await;
    session.take().await;
    assert_eq!(sending.outcomes().await.len(), 1);
    assert_eq!(road.lane.trouble(), None);
}

/// A token that is revoked meets all connections at once: the later 535 is about the same token, not about the login.
#[tokio::test]
async fn connections_whose_token_was_refused_share_the_fresh_one() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sendings = [road.send(mail()), road.send(mail())];
    let sessions = [upstream.greeted().await, upstream.greeted().await];
    for session in sessions {
        refuse(session, 1, REFUSED).await;
        let mut session = upstream.greeted().await;
        session.answer(&format!("AUTH XOAUTH2 {}", response(2)), "235 2.7.0 Authentication successful").await;
        session.take().await;
    }
    for sending in sendings {
        assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
    }
    assert_eq!(road.lane.trouble(), None);
    assert_eq!(road.tokens.replaced.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_fresh_token_that_was_not_to_be_had_is_not_asked_for_by_each_connection() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.tokens.irreplaceable = true);
    let sendings = [road.send(mail()), road.send(mail())];
    for session in [upstream.greeted().await, upstream.greeted().await] {
        refuse(session, 1, REFUSED).await;
    }
    for sending in sendings {
        assert!(matches!(sending.ended().await, Attempt::NotStarted(_)));
    }
    assert_eq!(road.tokens.replaced.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_token_that_ends_too_soon_for_high_volume_email_is_replaced() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    let soon = "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon";
    refuse(upstream.greeted().await, 1, soon).await;
    let mut session = upstream.greeted().await;
    session.answer(&format!("AUTH XOAUTH2 {}", response(2)), "235 2.7.0 Authentication successful").await;
    session.take().await;
    assert_eq!(sending.outcomes().await.len(), 1);
}

#[tokio::test]
async fn a_login_that_is_not_understood_is_tried_once_more_with_the_same_token() {
    const NOT_UNDERSTOOD: &str = "504 5.7.4 Unrecognized authentication type [X]";
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    refuse(upstream.greeted().await, 1, NOT_UNDERSTOOD).await;
    refuse(upstream.greeted().await, 1, NOT_UNDERSTOOD).await;
    let Attempt::NotStarted(trouble) = sending.ended().await else { panic!("it was sent") };
    assert_eq!((trouble.kind, trouble.scope), (TroubleKind::Refused, Scope::Mailbox));
    assert!(trouble.text.contains(NOT_UNDERSTOOD), "{trouble}");
    assert_eq!(road.tokens.replaced.load(Ordering::SeqCst), 0);
}

/// The shared token is not discredited by one mailbox: the trouble stays that mailbox's.
#[tokio::test]
async fn a_535_stays_the_mailboxs_when_no_fresh_token_is_to_be_had() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.tokens.irreplaceable = true);
    let sending = road.send(mail());
    refuse(upstream.greeted().await, 1, REFUSED).await;
    match sending.ended().await {
        Attempt::NotStarted(trouble) => {
            assert_eq!((trouble.kind, trouble.scope), (TroubleKind::Refused, Scope::Mailbox), "{trouble}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_tenants_switch_is_the_tenants_trouble() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.tokens.irreplaceable = true);
    let sending = road.send(mail());
    let reply = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.";
    refuse(upstream.greeted().await, 1, reply).await;
    match sending.ended().await {
        Attempt::NotStarted(trouble) => {
            assert_eq!((trouble.kind, trouble.scope), (TroubleKind::Refused, Scope::Tenant), "{trouble}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_temporary_refusal_asks_for_no_fresh_token() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    refuse(upstream.greeted().await, 1, "454 4.7.0 Temporary authentication failure").await;
    match sending.ended().await {
        Attempt::NotStarted(trouble) => assert_eq!(trouble.kind, TroubleKind::Unreachable, "{trouble}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(road.tokens.replaced.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_upstream_without_xoauth2_gets_no_login_at_all() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let session = upstream.greeted_with(&EHLO.replace("AUTH LOGIN XOAUTH2", "AUTH LOGIN PLAIN")).await;
    assert_eq!(String::from_utf8_lossy(&session.rest().await), "");
    assert!(matches!(sending.ended().await, Attempt::NotStarted(trouble) if trouble.text.contains("XOAUTH2")));
}

#[tokio::test]
async fn without_a_token_nobody_connects() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.tokens.dry = true);
    match road.send(mail()).ended().await {
        Attempt::NotStarted(trouble) => {
            assert_eq!((trouble.kind, trouble.scope), (TroubleKind::NoToken, Scope::Tenant));
            assert!(trouble.text.contains("AADSTS7000222"));
        }
        other => panic!("{other:?}"),
    }
}
