//! Time: what progresses is waited for, what only pretends to is not.

use std::iter::repeat;
use std::time::Duration;

use crate::road::{Mail, Pieces, Plan, Sending, lane_with, mail};
use crate::upstream::{Session, Tls, Upstream};

const SHORT: Duration = Duration::from_secs(1);
/// Far more often than [`SHORT`], so that a busy machine makes no gap of that length.
const OFTEN: Duration = Duration::from_millis(20);

/// An upstream that has told `mail` to go ahead.
async fn told_to_go_ahead(upstream: &Upstream, mail: Mail, change: impl FnOnce(&mut Plan)) -> (Session<Tls>, Sending) {
    let sending = lane_with(upstream.address(), change).send(mail);
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.expect("RCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    (session, sending)
}

#[tokio::test]
async fn a_banner_that_drips_for_ever_ends() {
    let upstream = Upstream::start().await;
    let sending = lane_with(upstream.address(), |plan| plan.endpoint.timeouts.greeting = SHORT).send(mail());
    let mut session = upstream.connected().await;
    tokio::spawn(async move { session.drip(b"220-".iter().copied().chain(repeat(b'x')), OFTEN).await });
    let why = sending.unreachable().await;
    assert!(why.contains("did not answer in time"), "{why}");
}

#[tokio::test]
async fn an_answer_to_auth_that_drips_for_ever_ends() {
    let upstream = Upstream::start().await;
    // The handshake is under the same bound and needs some of it on a busy machine.
    let greeting = Duration::from_secs(2);
    let sending = lane_with(upstream.address(), |plan| plan.endpoint.timeouts.greeting = greeting).send(mail());
    let mut session = upstream.greeted().await;
    assert!(session.line().await.starts_with("AUTH XOAUTH2 "));
    tokio::spawn(async move { session.drip(b"235-".iter().copied().chain(repeat(b'x')), OFTEN).await });
    let why = sending.unreachable().await;
    assert!(why.contains("during AUTH: upstream did not end its reply within 4 s"), "{why}");
}

#[tokio::test]
async fn an_answer_to_mail_that_drips_for_ever_ends() {
    let upstream = Upstream::start().await;
    let sending = lane_with(upstream.address(), |plan| plan.endpoint.timeouts.command = SHORT).send(mail());
    let mut session = upstream.logged_in().await;
    tokio::spawn(async move { session.drip(b"250-".iter().copied().chain(repeat(b'x')), OFTEN).await });
    assert_eq!(sending.trouble().await, "upstream did not end its reply within 2 s");
}

#[tokio::test]
async fn a_last_reply_that_drips_for_ever_leaves_it_uncertain() {
    let upstream = Upstream::start().await;
    let short = |plan: &mut Plan| plan.endpoint.timeouts.final_dot = SHORT;
    let (mut session, sending) = told_to_go_ahead(&upstream, mail(), short).await;
    session.message().await;
    tokio::spawn(async move { session.drip(b"250-".iter().copied().chain(repeat(b'x')), OFTEN).await });
    assert_eq!(
        sending.outcomes().await,
        ["uncertain: no reply after the final dot: upstream did not end its reply within 2 s"]
    );
}

/// Each octet begins the wait anew.
#[tokio::test]
async fn a_reply_that_comes_slowly_is_a_reply() {
    let upstream = Upstream::start().await;
    let wait = Duration::from_secs(1);
    let (mut session, sending) =
        told_to_go_ahead(&upstream, mail(), |plan| plan.endpoint.timeouts.final_dot = wait).await;
    session.message().await;
    let reply = *b"250 2.0.0 OK\r\n";
    session.drip(reply, wait * 5 / 4 / u32::try_from(reply.len()).unwrap()).await;
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK"]);
}

/// More than the buffers between hold, taken in many times the wait for a piece of it.
#[tokio::test]
async fn a_large_message_on_a_slow_line_takes_as_long_as_it_takes() {
    const OCTETS: usize = 5 << 20;
    let upstream = Upstream::start_narrow();
    let line = [&[b'x'; 62][..], b"\r\n"].concat();
    let body = Pieces::of(&vec![&line.repeat(1024)[..]; OCTETS >> 16]);
    let wait = SHORT;
    let mail = Mail { body, ..mail() };
    let (mut session, sending) =
        told_to_go_ahead(&upstream, mail, |plan| plan.endpoint.timeouts.data_block = wait).await;
    let started = tokio::time::Instant::now();
    assert!(session.sip(OCTETS, 12 << 10, OFTEN).await, "the client gave up after {:?}", started.elapsed());
    assert!(started.elapsed() > wait * 3, "no slow line: {:?}", started.elapsed());
    assert!(session.message().await.ends_with("x\r\n"));
    session.say("250 2.0.0 OK").await;
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK"]);
}

/// It takes something all the time and would need hours.
#[tokio::test]
async fn an_upstream_that_sips_at_a_message_for_ever_is_left() {
    let upstream = Upstream::start_narrow();
    let short = |plan: &mut Plan| plan.endpoint.timeouts.data_block = SHORT;
    let (mut session, sending) = told_to_go_ahead(&upstream, crate::road::large_mail(), short).await;
    tokio::spawn(async move { session.sip(usize::MAX, 8, OFTEN).await });
    assert_eq!(sending.outcomes().await, ["deferred: the connection was lost in the middle of the message"]);
}
