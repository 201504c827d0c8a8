//! What a login may do at the same time and in a minute, counted where it counts: at upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forwarder::Attempt;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::road::{Road, Sending, deliver, lane_with, mail};
use crate::upstream::{Session, Tls, Upstream, within};

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) open: AtomicUsize,
    pub(crate) most_open: AtomicUsize,
    pub(crate) messages: AtomicUsize,
}

/// Takes all connections and all messages. The first message of each connection ends when `together` of them have come
/// so far, so that connections are surely used at the same time.
pub(crate) fn take_all(upstream: Upstream, together: usize) -> Arc<Counts> {
    let counts = Arc::new(Counts::default());
    let barrier = Arc::new(Barrier::new(together));
    let counting = Arc::clone(&counts);
    tokio::spawn(async move {
        loop {
            let session = upstream.connected().await;
            let (counts, barrier) = (Arc::clone(&counting), Arc::clone(&barrier));
            let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
            counts.most_open.fetch_max(open, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut session = session.in_tls().await;
                session.expect("EHLO relay.test").await;
                session.say(crate::upstream::EHLO).await;
                session.log_in().await;
                converse(&mut session, &counts, &barrier).await;
                // Exchange takes its time, too, and counts until then.
                tokio::time::sleep(Duration::from_millis(20)).await;
                counts.open.fetch_sub(1, Ordering::SeqCst);
                session.say("221 2.0.0 bye").await;
            });
        }
    });
    counts
}

/// Messages until QUIT.
async fn converse(session: &mut Session<Tls>, counts: &Counts, barrier: &Barrier) {
    let mut first = true;
    loop {
        let line = session.line().await;
        match line.split(' ').next() {
            Some("QUIT") => return,
            Some("DATA") => {
                session.say("354 go ahead").await;
                session.message().await;
                if std::mem::take(&mut first) {
                    within(barrier.wait()).await;
                }
                counts.messages.fetch_add(1, Ordering::SeqCst);
                session.say("250 2.0.0 OK").await;
            }
            _ => session.say("250 2.1.0 OK").await,
        }
    }
}

async fn all_accepted(sendings: Vec<Sending>) {
    for sending in sendings {
        assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK"]);
    }
}

fn twenty(road: &Road) -> Vec<Sending> {
    (0..20).map(|_| road.send(mail())).collect()
}

#[tokio::test]
async fn twenty_deliveries_use_all_connections_and_no_more() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.allowance.connections = 3);
    let counts = take_all(upstream, 3);
    all_accepted(twenty(&road)).await;
    assert_eq!(counts.messages.load(Ordering::SeqCst), 20);
    assert_eq!(counts.most_open.load(Ordering::SeqCst), 3);
}

/// A connection that has done its part still counts at upstream until it is closed there.
#[tokio::test]
async fn connections_that_are_replaced_are_closed_first() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| {
        plan.allowance.connections = 3;
        plan.limits.max_messages = 1;
    });
    let counts = take_all(upstream, 1);
    all_accepted(twenty(&road)).await;
    assert_eq!(counts.messages.load(Ordering::SeqCst), 20);
    assert!(counts.most_open.load(Ordering::SeqCst) <= 3, "{:?} at the same time", counts.most_open);
}

#[tokio::test]
async fn of_twenty_deliveries_as_many_go_out_as_the_minute_allows() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.allowance.messages_per_minute = 7);
    let counts = take_all(upstream, 3);
    for minute in 1..=2 {
        let mut sendings = JoinSet::new();
        for _ in 0..20 {
            let lane = Arc::clone(&road.lane);
            sendings.spawn(async move { deliver(lane.slot().await, mail()).await });
        }
        for _ in 0..7 {
            let attempt = within(sendings.join_next()).await.unwrap().unwrap();
            assert!(matches!(attempt, Attempt::Told(..)), "{attempt:?}");
        }
        // Those that still wait give up their places, so that only the pace is left to say no.
        sendings.shutdown().await;
        assert!(!road.has_turn().await, "an eighth turn in minute {minute}");
        assert_eq!(counts.messages.load(Ordering::SeqCst), minute * 7);
        road.advance(60);
    }
}
