//! A lane in trouble stands still as a whole, is probed by one message at a time, and recovers by itself.

use std::sync::Arc;

use clock::{ManualClock, SystemClock};
use forwarder::{Attempt, Tenant, TroubleKind};
use mail::Scope;
use tokio::net::TcpListener;

use crate::road::{Road, deliver, lane_to, lane_with, mail, make, send};
use crate::upstream::{Session, Tls, Upstream, within};

/// An address where nobody listens.
async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn fails_to_start(road: &Road, kind: TroubleKind) {
    match road.send(mail()).ended().await {
        Attempt::NotStarted(trouble) => assert_eq!(trouble.kind, kind, "{trouble}"),
        other => panic!("{other:?}"),
    }
}

/// Ends a message with this final reply.
async fn ends_with(session: &mut Session<Tls>, reply: &str) {
    session.line().await;
    session.expect("RCPT TO:<anna@contoso.com>\nDATA").await;
    session.say("250 2.1.0 OK\n250 2.1.5 OK\n354 go ahead").await;
    session.message().await;
    session.say(reply).await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there_stops_the_lane_until_it_comes_up() {
    let address = nobody().await;
    let road = lane_to(address);
    fails_to_start(&road, TroubleKind::Unreachable).await;
    assert_eq!(road.lane.trouble().map(|trouble| trouble.scope), Some(Scope::Mailbox));
    let told = road.lane.status();
    assert_eq!((told.connections, told.in_flight, told.sent_in_last_minute), (0, 0, 0));
    assert_eq!(told.trouble.map(|told| told.trouble), road.lane.trouble());
    assert!(!road.has_turn().await);
    let upstream = Upstream::start_at(address).await;
    road.advance(1);
    let sending = road.send(mail());
    let mut session = upstream.logged_in().await;
    assert_eq!(road.lane.status().in_flight, 1);
    session.take().await;
    assert_eq!(sending.outcomes().await.len(), 1);
    let told = road.lane.status();
    assert_eq!((told.connections, told.in_flight, told.sent_in_last_minute), (1, 0, 1));
    assert_eq!(told.trouble, None);
}

/// On the machine's own clock: the first wait for an upstream that is not there is a second.
#[tokio::test]
async fn mail_that_waits_goes_out_by_itself_once_upstream_is_there() {
    let address = nobody().await;
    let (lane, _) = make(address, Arc::new(SystemClock::new()), |_| {});
    assert!(matches!(send(&lane, mail()).ended().await, Attempt::NotStarted(_)));
    let waiting = send(&lane, mail());
    let upstream = Upstream::start_at(address).await;
    upstream.logged_in().await.take().await;
    assert_eq!(waiting.outcomes().await.len(), 1);
}

#[tokio::test]
async fn one_probe_goes_at_a_time_and_its_success_wakes_who_waits() {
    let address = nobody().await;
    let road = lane_to(address);
    fails_to_start(&road, TroubleKind::Unreachable).await;
    let upstream = Upstream::start_at(address).await;
    road.advance(1);
    let probe = road.turn_now().await.expect("the probe has its turn");
    assert!(!road.has_turn().await, "two probes at a time");
    let waiting = road.send(mail());
    let probing = tokio::spawn(async move { deliver(probe, mail()).await });
    let mut session = upstream.logged_in().await;
    session.take().await;
    assert!(matches!(within(probing).await.unwrap(), Attempt::Told(..)));
    // The waiter uses the probe's connection, or one of its own if it was quicker than the probe's end.
    tokio::select! {
        _ = session.take() => {}
        mut another = upstream.logged_in() => { another.take().await; }
    }
    assert_eq!(waiting.outcomes().await.len(), 1);
}

#[tokio::test]
async fn a_probe_that_fails_keeps_the_lane_still_for_longer() {
    let road = lane_to(nobody().await);
    fails_to_start(&road, TroubleKind::Unreachable).await;
    road.advance(1);
    fails_to_start(&road, TroubleKind::Unreachable).await;
    road.advance(1);
    assert!(!road.has_turn().await);
    road.advance(1);
    assert!(road.has_turn().await);
}

/// Only the probe's own end makes room for another.
#[tokio::test]
async fn a_turn_from_before_the_trouble_that_is_dropped_lets_no_second_probe_through() {
    let road = lane_to(nobody().await);
    let from_before = road.turn_now().await.expect("a lane that is well gives turns");
    fails_to_start(&road, TroubleKind::Unreachable).await;
    road.advance(1);
    let probe = road.turn_now().await.expect("the probe has its turn");
    drop(from_before);
    assert!(!road.has_turn().await, "two probes at a time");
    drop(probe);
    assert!(road.has_turn().await);
}

#[tokio::test]
async fn a_432_paces_the_lane_until_a_probe_gets_through() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    let mut session = upstream.logged_in().await;
    let said = "432 4.3.2 Concurrent connections limit exceeded.";
    ends_with(&mut session, said).await;
    // It may be this connection that is one too many.
    session.answer("QUIT", "221 2.0.0 bye").await;
    assert_eq!(sending.outcomes().await, [format!("paced: {said}")]);
    assert_eq!(road.lane.trouble().map(|trouble| trouble.kind), Some(TroubleKind::Throttled));
    road.advance(14);
    assert!(!road.has_turn().await);
    road.advance(1);
    let probe = road.send(mail());
    ends_with(&mut upstream.logged_in().await, "250 2.0.0 OK").await;
    assert_eq!(probe.outcomes().await, ["accepted: 250 2.0.0 OK"]);
    assert_eq!(road.lane.trouble(), None);
    assert!(road.has_turn().await);
}

#[tokio::test]
async fn a_message_that_may_not_be_sent_as_its_from_does_not_stop_the_lane() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    let mut session = upstream.logged_in().await;
    ends_with(&mut session, "554 5.2.252 SendAsDenied; a not allowed to send as b").await;
    assert!(sending.outcomes().await[0].starts_with("held message: 554 5.2.252"));
    assert_eq!(road.lane.trouble(), None);
    assert!(road.has_turn().await);
}

#[tokio::test]
async fn a_tenant_over_its_threshold_stops_the_lane_for_the_tenant() {
    let upstream = Upstream::start().await;
    let road = lane_to(upstream.address());
    let sending = road.send(mail());
    let mut session = upstream.logged_in().await;
    ends_with(&mut session, "550 5.7.705 Tenant over threshold").await;
    sending.outcomes().await;
    let trouble = road.lane.trouble().expect("the lane is in trouble");
    assert_eq!((trouble.kind, trouble.scope), (TroubleKind::Refused, Scope::Tenant));
    assert!(!road.has_turn().await);
}

/// Two lanes of one tenant, on one clock.
fn two_lanes(upstream: &Upstream) -> (Road, Road) {
    let tenant = Arc::new(Tenant::new(None));
    let first = lane_with(upstream.address(), |plan| plan.tenant = Arc::clone(&tenant));
    let clock = Arc::clone(&first.clock);
    let (lane, tokens) = make(upstream.address(), Arc::<ManualClock>::clone(&clock), |plan| {
        plan.tenant = tenant;
        plan.login = "erp@contoso.com";
    });
    (first, Road { lane, tokens, clock })
}

#[tokio::test]
async fn trouble_of_a_tenant_stops_all_its_lanes_and_one_probe_frees_them() {
    let upstream = Upstream::start().await;
    let (one, other) = two_lanes(&upstream);
    let sending = one.send(mail());
    let mut session = upstream.logged_in().await;
    ends_with(&mut session, "550 5.7.705 Access denied, tenant has exceeded threshold").await;
    session.answer("QUIT", "221 2.0.0 bye").await;
    assert_eq!(sending.outcomes().await, ["held tenant: 550 5.7.705 Access denied, tenant has exceeded threshold"]);
    assert_eq!(other.lane.trouble().map(|trouble| trouble.scope), Some(Scope::Tenant));
    assert!(!other.has_turn().await);
    other.advance(75);
    let probe = other.turn_now().await.expect("one lane probes");
    assert!(!one.has_turn().await, "the other waits for its end");
    let probing = tokio::spawn(async move { deliver(probe, mail()).await });
    let waiting = one.send(mail());
    upstream.logged_in().await.take().await;
    assert!(matches!(within(probing).await.unwrap(), Attempt::Told(..)));
    upstream.logged_in().await.take().await;
    assert_eq!(waiting.outcomes().await.len(), 1);
    assert_eq!((one.lane.trouble(), other.lane.trouble()), (None, None));
}

#[tokio::test]
async fn a_432_leaves_the_lane_with_one_connection_less() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.allowance.connections = 2);
    let (first, second) = (road.send(mail()), road.send(mail()));
    let (mut one, mut two) = (upstream.logged_in().await, upstream.logged_in().await);
    one.take().await;
    ends_with(&mut two, "432 4.3.2 Concurrent connections limit exceeded.").await;
    two.answer("QUIT", "221 2.0.0 bye").await;
    let mut outcomes = [first.outcomes().await, second.outcomes().await];
    outcomes.sort();
    assert!(outcomes[0][0].starts_with("accepted") && outcomes[1][0].starts_with("paced"), "{outcomes:?}");
    assert_eq!(road.lane.status().allowed, (1, 30));
    road.advance(20);
    let turn = road.turn_now().await.expect("the probe has its turn");
    let probing = tokio::spawn(async move { deliver(turn, mail()).await });
    one.take().await;
    assert!(matches!(within(probing).await.unwrap(), Attempt::Told(..)));
    let _only = road.turn_now().await.expect("a lane that is well gives turns");
    assert!(!road.has_turn().await, "a second connection is not tried again so soon");
    assert_eq!(road.lane.status().connections, 1);
}
