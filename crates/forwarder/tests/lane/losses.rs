//! Connections that are lost at each place of the dialog: before the final dot nothing was sent, after it nobody knows.

use std::time::Duration;

use forwarder::Attempt;

use crate::road::{BodyError, Sending, lane_to, lane_with, large_mail, mail, mail_to};
use crate::upstream::{Session, Tls, Upstream};

const SHORT: Duration = Duration::from_millis(100);

/// An upstream in the middle of `mail`, which it has told to go ahead.
async fn told_to_go_ahead(mail: crate::road::Mail) -> (Session<Tls>, Sending) {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.endpoint.timeouts.final_dot = SHORT);
    let sending = road.send(mail);
    let mut session = upstream.logged_in().await;
    assert!(session.line().await.starts_with("MAIL FROM:<scanner@contoso.com> SIZE="));
    session.expect("RCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    (session, sending)
}

async fn outcome(sending: Sending) -> String {
    let mut outcomes = sending.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

#[tokio::test]
async fn a_421_in_the_middle_of_a_flight_keeps_the_replies_before_it() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail_to(&["a@x.y", "b@x.y", "c@x.y", "d@x.y"]));
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nRCPT TO:<c@x.y>\nRCPT TO:<d@x.y>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n550 5.1.1 User unknown\n421 4.3.2 Service not active").await;
    session.close().await;
    let closing = "deferred: 421 4.3.2 Service not active";
    assert_eq!(sending.outcomes().await, [closing, "refused: 550 5.1.1 User unknown", closing, closing]);
}

/// The reply means the same for whoever was asked before it and whoever was not.
#[tokio::test]
async fn a_421_of_pace_in_the_middle_of_a_flight_paces_all_that_are_left() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail_to(&["a@x.y", "b@x.y", "c@x.y"]));
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nRCPT TO:<c@x.y>\nDATA").await;
    let said = "421 4.4.2 Message submission rate for this client has exceeded the configured limit";
    session.say(&format!("250 2.1.0 OK\n250 2.1.5 OK\n{said}")).await;
    session.close().await;
    assert_eq!(
        sending.outcomes().await,
        [format!("paced: {said}"), format!("paced: {said}"), format!("paced: {said}")]
    );
}

#[tokio::test]
async fn a_connection_lost_before_data_is_answered_defers() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail_to(&["a@x.y", "b@x.y"]));
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<a@x.y>\nRCPT TO:<b@x.y>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n550 5.1.1 User unknown").await;
    session.close().await;
    let outcomes = sending.outcomes().await;
    assert_eq!(outcomes, ["deferred: upstream closed the connection", "refused: 550 5.1.1 User unknown"]);
}

#[tokio::test]
async fn garbage_in_the_dialog_is_the_lanes_trouble_and_ends_the_session() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\nHTTP/1.1 400 Bad Request").await;
    assert_eq!(session.rest().await, b"");
    assert!(sending.trouble().await.starts_with("upstream sent \"HTTP/1.1 400 Bad Request\""));
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_the_message_defers() {
    let (mut session, sending) = told_to_go_ahead(large_mail()).await;
    session.some(100_000).await;
    drop(session);
    assert_eq!(outcome(sending).await, "deferred: the connection was lost in the middle of the message");
}

#[tokio::test]
async fn last_words_in_the_middle_of_the_message_are_the_outcome() {
    let (mut session, sending) = told_to_go_ahead(large_mail()).await;
    session.some(100_000).await;
    session.say("552 5.3.4 Message size exceeds fixed maximum message size").await;
    drop(session);
    assert_eq!(outcome(sending).await, "refused: 552 5.3.4 Message size exceeds fixed maximum message size");
}

#[tokio::test]
async fn an_upstream_that_stops_taking_the_message_is_not_waited_for_for_ever() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.endpoint.timeouts.data_block = SHORT);
    let sending = road.send(large_mail());
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    assert_eq!(outcome(sending).await, "deferred: the connection was lost in the middle of the message");
}

#[tokio::test]
async fn a_connection_cut_after_the_final_dot_is_uncertain() {
    let (mut session, sending) = told_to_go_ahead(mail()).await;
    session.message().await;
    session.close().await;
    assert!(outcome(sending).await.starts_with("uncertain: no reply after the final dot"));
}

#[tokio::test]
async fn silence_after_the_final_dot_is_uncertain() {
    let (mut session, sending) = told_to_go_ahead(mail()).await;
    session.message().await;
    assert!(outcome(sending).await.starts_with("uncertain: no reply after the final dot"));
}

#[tokio::test]
async fn garbage_after_the_final_dot_is_uncertain() {
    let (mut session, sending) = told_to_go_ahead(mail()).await;
    session.message().await;
    session.say("<html>250 OK</html>").await;
    assert!(outcome(sending).await.starts_with("uncertain: no reply after the final dot"));
}

#[tokio::test]
async fn half_a_reply_after_the_final_dot_is_uncertain() {
    let (mut session, sending) = told_to_go_ahead(mail()).await;
    session.message().await;
    session.say("250-2.0.0 OK, and").await;
    session.close().await;
    assert!(outcome(sending).await.starts_with("uncertain: no reply after the final dot"));
}

#[tokio::test]
async fn a_421_after_the_final_dot_is_a_reply() {
    let (mut session, sending) = told_to_go_ahead(mail()).await;
    session.message().await;
    session.say("421 4.3.2 Service not active").await;
    session.close().await;
    assert_eq!(outcome(sending).await, "deferred: 421 4.3.2 Service not active");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_gets_no_final_dot() {
    let mut mail = mail();
    mail.body.broken = true;
    let (session, sending) = told_to_go_ahead(mail).await;
    let sent = session.rest().await;
    assert!(!String::from_utf8_lossy(&sent).contains("\r\n.\r\n"), "{sent:?}");
    match sending.ended().await {
        Attempt::BodyFailed(error) => assert_eq!(error, BodyError),
        other => panic!("{other:?}"),
    }
}
