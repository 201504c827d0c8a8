//! Connections between messages: used again, reset, replaced when they have gone, and closed in time.

use std::sync::Arc;
use std::time::Duration;

use clock::SystemClock;

use crate::road::{lane_to, lane_with, mail, make, send, turn_now};
use crate::upstream::{PATIENCE, Upstream, within};

#[tokio::test]
async fn two_messages_go_over_one_login() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    session.take().await;
    assert_eq!(first.outcomes().await.len(), 1);
    let second = road.send(mail());
    // Straight on, without a greeting, a login or a RSET.
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK <second@x>").await;
    assert_eq!(second.outcomes().await, ["accepted: 250 2.0.0 OK <second@x>"]);
}

#[tokio::test]
async fn a_transaction_that_failed_is_reset_before_the_next() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    session.expect("MAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n451 4.3.0 not now").await;
    assert_eq!(first.outcomes().await, ["deferred: 451 4.3.0 not now"]);
    let second = road.send(mail());
    // In one flight with what follows.
    session.expect("RSET\nMAIL FROM:<scanner@contoso.com> SIZE=25\nRCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.0.0 Resetting\n250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say("250 2.0.0 OK <second@x>").await;
    assert_eq!(second.outcomes().await, ["accepted: 250 2.0.0 OK <second@x>"]);
}

#[tokio::test]
async fn an_idle_connection_that_has_gone_is_replaced_without_an_outcome() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    session.take().await;
    first.outcomes().await;
    drop(session);
    let second = road.send(mail());
    upstream.logged_in().await.take().await;
    assert_eq!(second.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

/// Upstream gave the connection up at the very moment that it was used again.
#[tokio::test]
async fn a_421_in_answer_to_the_first_word_on_an_idle_connection_is_no_outcome() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    session.take().await;
    first.outcomes().await;
    let second = road.send(mail());
    session.line().await;
    session.say("421 4.4.1 Connection timed out. Total session duration: 00:10:00").await;
    session.close().await;
    upstream.logged_in().await.take().await;
    assert_eq!(second.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

/// A pace asked for is heard on an idle connection as on a new one.
#[tokio::test]
async fn a_421_of_pace_on_an_idle_connection_is_an_outcome() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    session.take().await;
    first.outcomes().await;
    let second = road.send(mail());
    session.line().await;
    let said = "421 4.4.2 Message submission rate for this client has exceeded the configured limit";
    session.say(said).await;
    session.close().await;
    assert_eq!(second.outcomes().await, [format!("paced: {said}")]);
}

#[tokio::test]
async fn a_421_on_a_new_connection_is_the_lanes_trouble() {
    let upstream = Upstream::start().await;
    let sending = lane_to(upstream.address()).send(mail());
    let mut session = upstream.logged_in().await;
    session.line().await;
    session.say("421 4.3.2 Service not active").await;
    session.close().await;
    assert_eq!(sending.trouble().await, "421 4.3.2 Service not active");
}

#[tokio::test]
async fn a_connection_too_old_is_ended_in_good_order_before_the_next_is_opened() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.limits.max_messages = 1);
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    session.take().await;
    first.outcomes().await;
    let second = road.send(mail());
    session.answer("QUIT", "221 2.0.0 bye").await;
    upstream.logged_in().await.take().await;
    assert_eq!(second.outcomes().await.len(), 1);
}

#[tokio::test]
async fn idle_connections_are_swept_with_quit() {
    let upstream = Upstream::start().await;
    let (lane, _) = make(upstream.address(), Arc::new(SystemClock::new()), |plan| {
        plan.limits.idle_timeout = Duration::from_millis(50);
    });
    let sweeper = tokio::spawn({
        let lane = Arc::clone(&lane);
        async move { lane.sweep().await }
    });
    for _ in 0..2 {
        let sending = send(&lane, mail());
        let mut session = upstream.logged_in().await;
        session.take().await;
        sending.outcomes().await;
        session.answer("QUIT", "221 2.0.0 bye").await;
        assert_eq!(session.rest().await, b"");
    }
    sweeper.abort();
}

/// Exchange counts a connection until it is closed, whoever closes it and why.
#[tokio::test]
async fn a_connection_that_is_swept_keeps_its_place_until_it_is_closed() {
    let upstream = Upstream::start().await;
    let (lane, _) = make(upstream.address(), Arc::new(SystemClock::new()), |plan| {
        plan.limits.idle_timeout = Duration::from_millis(50);
        plan.allowance.connections = 1;
        plan.endpoint.timeouts.quit = PATIENCE;
    });
    let sending = send(&lane, mail());
    let mut session = upstream.logged_in().await;
    session.take().await;
    sending.outcomes().await;
    let sweeper = tokio::spawn({
        let lane = Arc::clone(&lane);
        async move { lane.sweep().await }
    });
    session.expect("QUIT").await;
    assert!(turn_now(&lane).await.is_none(), "a second connection while the first still counts");
    session.say("221 2.0.0 bye").await;
    within(lane.slot()).await;
    sweeper.abort();
}

#[tokio::test]
async fn a_lane_that_is_closed_says_quit_on_each_idle_connection() {
    let upstream = Upstream::start().await;
    // The second must not wait for the first, which may be slow.
    let road = lane_with(upstream.address(), |plan| plan.endpoint.timeouts.quit = PATIENCE);
    let (first, second) = (road.send(mail()), road.send(mail()));
    let mut one = upstream.logged_in().await;
    let mut two = upstream.logged_in().await;
    one.take().await;
    two.take().await;
    first.outcomes().await;
    second.outcomes().await;
    let closing = tokio::spawn(async move { road.lane.close_idle().await });
    one.expect("QUIT").await;
    two.expect("QUIT").await;
    one.say("221 2.0.0 bye").await;
    two.say("221 2.0.0 bye").await;
    within(closing).await.unwrap();
}

#[tokio::test]
async fn a_lane_that_retires_lets_turns_end_and_gives_no_more() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let first = road.send(mail());
    let mut session = upstream.logged_in().await;
    let mut retired = std::pin::pin!(road.lane.retire());
    assert!(is_pending(&mut retired).await, "a turn is under way");
    assert!(!road.has_turn().await, "others are free, and are not given");
    session.take().await;
    assert_eq!(first.outcomes().await.len(), 1);
    let ((), ()) = tokio::join!(within(retired), async {
        session.expect("QUIT").await;
        session.close().await;
    });
    assert!(!road.has_turn().await);
    assert_eq!(road.lane.status().connections, 0);
}

/// Whether it has more to wait for, looked at once.
async fn is_pending(future: &mut std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}
