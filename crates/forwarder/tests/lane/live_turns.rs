//! Turns for clients that wait: in order, within their wait, and beside the queue's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use forwarder::{LaneStatus, NoTurn, Slot, TroubleKind};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::bounds::take_all;
use crate::live::{live, short, to};
use crate::road::{Road, Tokens, lane_to, lane_with, mail};
use crate::upstream::{PATIENCE, Upstream, within};

/// Less than any wait here that is not to be waited for.
const SHORT: Duration = Duration::from_millis(50);

async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn asks(road: &Road, wait: Duration) -> Result<Slot<Tokens>, NoTurn> {
    within(road.lane.live_slot(wait)).await
}

/// No turn; why.
async fn none(road: &Road, wait: Duration) -> NoTurn {
    asks(road, wait).await.err().expect("no turn")
}

#[tokio::test]
async fn live_messages_leave_one_connection_to_the_queue() {
    let road = lane_with(nobody().await, |plan| plan.kept_for_queue = 1);
    let one = asks(&road, SHORT).await.unwrap();
    let _two = asks(&road, SHORT).await.unwrap();
    assert_eq!(none(&road, SHORT).await, NoTurn::Busy);
    let third = road.turn_now().await.expect("the queue's own");
    assert!(!road.has_turn().await, "there are no more than three");
    drop(one);
    let _again = asks(&road, SHORT).await.unwrap();
    drop(third);
    assert_eq!(none(&road, SHORT).await, NoTurn::Busy);
}

#[tokio::test]
async fn a_client_waits_for_a_connection_and_has_it_when_it_is_free() {
    let road = lane_with(nobody().await, |plan| plan.allowance.connections = 1);
    let first = asks(&road, SHORT).await.unwrap();
    let lane = Arc::clone(&road.lane);
    let mut waiting = tokio::spawn(async move { lane.live_slot(PATIENCE).await.map(drop) });
    tokio::select! {
        biased;
        ended = &mut waiting => panic!("{ended:?}"),
        () = tokio::task::yield_now() => {}
    }
    drop(first);
    within(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_that_is_known_to_be_too_long_is_not_begun() {
    // So long that only a client that is told at once is told within the test's patience.
    let long = Duration::from_secs(58);
    let minute = lane_with(nobody().await, |plan| plan.allowance.messages_per_minute = 2);
    minute.lane.assume_sent(2);
    assert_eq!(none(&minute, long).await, NoTurn::Minute(Duration::from_mins(1)));
    let line = lane_with(nobody().await, |plan| {
        plan.allowance.connections = 1;
        plan.allowance.messages_per_minute = 2;
    });
    let _turn = asks(&line, SHORT).await.unwrap();
    let mut first_in_line = Box::pin(line.lane.live_slot(PATIENCE));
    assert!(std::future::poll_fn(|context| Poll::Ready(first_in_line.as_mut().poll(context).is_pending())).await);
    line.lane.assume_sent(2);
    assert_eq!(none(&line, long).await, NoTurn::Minute(Duration::from_mins(1)), "whoever stands before");
    drop(first_in_line);
    let day = lane_with(nobody().await, |plan| plan.allowance.recipients_per_day = 10);
    day.lane.assume_used(10, Duration::from_hours(23));
    assert_eq!(none(&day, long).await, NoTurn::Day(Some(Duration::from_mins(61))));
    let road = lane_with(nobody().await, |plan| plan.tokens.dry = true);
    let mut message = live(&road).await;
    assert!(short(&message.rcpt(to("a@x.y")).await).starts_with("trouble: AADSTS7000222"));
    drop(message);
    match none(&road, Duration::from_millis(1900)).await {
        NoTurn::Trouble(trouble) => assert_eq!(trouble.kind, TroubleKind::NoToken),
        other => panic!("{other:?}"),
    }
}

/// Trouble that begins while clients wait ends their waits, in a chain.
#[tokio::test]
async fn trouble_ends_the_waits_of_all_that_cannot_wait_for_its_probe() {
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| plan.allowance.connections = 1);
    let mut message = live(&road).await;
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let lane = Arc::clone(&road.lane);
        waiting.spawn(async move { lane.live_slot(PATIENCE * 2).await.map(drop) });
    }
    let (told, ()) = tokio::join!(message.rcpt(to("a@contoso.com")), async {
        let mut session = upstream.logged_in().await;
        session
            .answer(
                &format!("{}\nRCPT TO:<a@contoso.com>", crate::live::MAIL),
                "550 5.1.8 Bad outbound sender\n503 5.5.1 x",
            )
            .await;
    });
    assert!(short(&told).starts_with("Mail: 550 5.1.8"));
    while let Some(ended) = within(waiting.join_next()).await {
        assert!(matches!(ended.unwrap(), Err(NoTurn::Trouble(_))));
    }
}

#[tokio::test]
async fn a_probe_is_waited_for_and_one_that_ends_without_an_answer_is_not_lost() {
    let road = lane_to(nobody().await);
    let mut message = live(&road).await;
    assert!(short(&message.rcpt(to("a@x.y")).await).starts_with("trouble: "));
    drop(message);
    assert!(matches!(none(&road, SHORT).await, NoTurn::Trouble(_)));
    road.advance(1);
    let probe = asks(&road, SHORT).await.expect("the probe has its turn");
    assert!(matches!(none(&road, SHORT).await, NoTurn::Trouble(_)), "two probes at a time");
    let lane = Arc::clone(&road.lane);
    let waiting = tokio::spawn(async move { lane.live_slot(PATIENCE).await.map(drop) });
    drop(probe);
    within(waiting).await.unwrap().unwrap();
    // Whoever stops waiting, and whoever has the turn and goes, leaves it to the next.
    let mut given_up = Box::pin(road.lane.live_slot(PATIENCE));
    tokio::select! {
        biased;
        () = std::future::ready(()) => {}
        _ = &mut given_up => {}
    }
    drop(given_up);
    assert!(asks(&road, SHORT).await.is_ok());
}

#[tokio::test]
async fn clients_have_their_turns_in_the_order_in_which_they_came() {
    let road = lane_with(nobody().await, |plan| plan.allowance.connections = 1);
    let first = asks(&road, SHORT).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(20);
    let mut waits = Vec::new();
    for number in 0..20 {
        let (lane, tell) = (Arc::clone(&road.lane), tell.clone());
        let mut wait = Box::pin(async move {
            let _slot = lane.live_slot(PATIENCE).await.unwrap();
            tell.send(number).await.unwrap();
        });
        // It stands in line from here on.
        assert!(std::future::poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_pending())).await);
        waits.push(tokio::spawn(wait));
    }
    drop((first, tell));
    let mut late = Box::pin(road.lane.live_slot(PATIENCE));
    let waits = std::future::poll_fn(|context| Poll::Ready(late.as_mut().poll(context).is_pending())).await;
    assert!(waits, "a turn is free, and others came before");
    drop(late);
    let mut order = Vec::new();
    while let Some(number) = within(told.recv()).await {
        order.push(number);
    }
    assert!(order.is_sorted() && order.len() == 20, "{order:?}");
}

/// One transaction from turn to final reply.
async fn one_message(road: &Road, wait: Duration) -> Result<String, NoTurn> {
    let mut live = road.lane.live_slot(wait).await?.live(mail().envelope, None);
    let told = live.rcpt(to("a@contoso.com")).await;
    let Ok(mut content) = live.data().await else { return Ok(short(&told)) };
    content.write(b"Subject: x\r\n\r\nx\r\n").await.unwrap();
    Ok(short(&content.end().await.told))
}

#[tokio::test]
async fn two_hundred_clients_on_three_connections_are_all_served_or_told_within_their_wait() {
    let upstream = Upstream::start().await;
    let road = Arc::new(lane_with(upstream.address(), |plan| plan.allowance.messages_per_minute = 150));
    let counts = take_all(upstream, 3);
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let road = Arc::clone(&road);
        clients.spawn(async move { one_message(&road, PATIENCE).await });
    }
    let (mut served, mut told) = (0, 0);
    while let Some(ended) = within(clients.join_next()).await {
        match ended.unwrap() {
            Ok(said) if said == "EndOfData: 250 2.0.0 OK" => served += 1,
            // The clock stands still: the minute never ends.
            Err(NoTurn::Minute(_)) => told += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((served, told), (150, 50));
    assert_eq!(counts.messages.load(Ordering::SeqCst), 150);
    assert_eq!(counts.most_open.load(Ordering::SeqCst), 3);
    let LaneStatus { in_flight, connections, .. } = road.lane.status();
    assert_eq!((in_flight, connections), (0, 3));
}

#[tokio::test]
async fn two_hundred_clients_that_no_turn_comes_for_end_with_their_wait() {
    let road = Arc::new(lane_to(nobody().await));
    let _busy = [asks(&road, SHORT).await, asks(&road, SHORT).await, asks(&road, SHORT).await];
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let road = Arc::clone(&road);
        clients.spawn(async move { road.lane.live_slot(SHORT).await.map(drop) });
    }
    while let Some(ended) = within(clients.join_next()).await {
        assert_eq!(ended.unwrap(), Err(NoTurn::Busy));
    }
}

/// The queue's messages and the clients' share a lane, and neither starves.
#[tokio::test]
async fn queue_and_clients_share_a_lane() {
    let upstream = Upstream::start().await;
    let road = Arc::new(lane_with(upstream.address(), |plan| {
        plan.kept_for_queue = 1;
        plan.allowance.messages_per_minute = 1000;
    }));
    let counts = take_all(upstream, 3);
    let mut clients = JoinSet::new();
    let mut queue = Vec::new();
    for _ in 0..40 {
        let road_of_client = Arc::clone(&road);
        clients.spawn(async move { one_message(&road_of_client, PATIENCE).await });
        queue.push(road.send(mail()));
    }
    while let Some(ended) = within(clients.join_next()).await {
        assert_eq!(ended.unwrap(), Ok("EndOfData: 250 2.0.0 OK".to_owned()));
    }
    for sending in queue {
        assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK"]);
    }
    assert_eq!(counts.messages.load(Ordering::SeqCst), 80);
    assert!(counts.most_open.load(Ordering::SeqCst) <= 3);
}
