//! Never a downgrade (invariant 9): without verified TLS nothing is said beyond EHLO and STARTTLS.

use forwarder::Attempt;

use crate::road::{Plan, lane_to, lane_with, mail};
use crate::upstream::{Upstream, trusting_nobody};

#[tokio::test]
async fn an_upstream_without_starttls_hears_nothing_more() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.connected().await;
    session.say("220 upstream.test ready").await;
    session.answer("EHLO relay.test", "250-upstream.test Hello\n250 AUTH XOAUTH2").await;
    assert_eq!(String::from_utf8_lossy(&session.rest().await), "");
    let why = sending.unreachable().await;
    assert!(why.contains("STARTTLS"), "{why}");
}

#[tokio::test]
async fn an_upstream_that_refuses_starttls_hears_nothing_more() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.connected().await;
    session.say("220 upstream.test ready").await;
    session.answer("EHLO relay.test", "250-upstream.test Hello\n250-AUTH XOAUTH2\n250 STARTTLS").await;
    session.answer("STARTTLS", "454 4.7.0 TLS not available").await;
    assert_eq!(String::from_utf8_lossy(&session.rest().await), "");
    let why = sending.unreachable().await;
    assert!(why.contains("454 4.7.0 TLS not available"), "{why}");
}

/// Goes as far as STARTTLS; the handshake must fail and nothing may follow.
async fn refuses_certificate(change: impl FnOnce(&mut Plan)) {
    let upstream = Upstream::start().await;
    let sending = lane_with(upstream.address(), change).send(mail());
    let mut session = upstream.connected().await;
    session.say("220 upstream.test ready").await;
    session.answer("EHLO relay.test", "250-upstream.test Hello\n250 STARTTLS").await;
    session.answer("STARTTLS", "220 2.0.0 SMTP server ready").await;
    // In TLS 1.3 the server has done its part before the client refuses: then it reads nothing but the alert.
    if let Ok(session) = session.handshake().await {
        assert_eq!(String::from_utf8_lossy(&session.rest().await), "");
    }
    let why = sending.unreachable().await;
    assert!(why.contains("TLS with"), "{why}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_refused() {
    refuses_certificate(|plan| plan.endpoint.tls = trusting_nobody()).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    refuses_certificate(|plan| plan.endpoint.host = "127.0.0.1".into()).await;
}

/// What stands in clear behind the 220 is no answer to anything that is said over TLS.
#[tokio::test]
async fn replies_injected_before_tls_are_not_believed() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.connected().await;
    session.say("220 upstream.test ready").await;
    session.answer("EHLO relay.test", "250-upstream.test Hello\n250 STARTTLS").await;
    session.answer("STARTTLS", "220 2.0.0 ready\n250-evil.test\n250 AUTH XOAUTH2\n235 2.7.0 welcome").await;
    // Either the client gives up, or it asks again and waits for an answer over TLS.
    if let Ok(mut session) = session.handshake().await {
        session.answer("EHLO relay.test", "250 nothing offered here").await;
        assert_eq!(String::from_utf8_lossy(&session.rest().await), "");
    }
    assert!(matches!(sending.ended().await, Attempt::NotStarted(_)));
}
