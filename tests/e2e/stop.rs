//! Stopping: in order, within the grace, losing nothing.

use crate::harness::{Client, RECIPIENT, World, message};
use sandbox::{Action, Fault, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_message_under_way_and_sends_idle_clients_away() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut idle = Client::connect(relay.address).await.unwrap();
    let mut busy = Client::connect(relay.address).await.unwrap();
    busy.begin(&[RECIPIENT]).await;
    busy.write(b"Subject: half\r\n\r\nfirst half, ").await.unwrap();
    relay.signal("TERM");
    let farewell = idle.reply().await.unwrap();
    assert_eq!(farewell.code(), 421, "{farewell}");
    assert!(Client::connect(relay.address).await.is_err(), "nobody new is taken");
    busy.write(b"second half\r\n.\r\n").await.unwrap();
    assert_eq!(busy.reply().await.unwrap().code(), 250);
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    // Whether it went out before the stop or not: it arrives.
    let relay = world.relay().await;
    world.wait_for(1).await;
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_stays_queued_over_a_restart() {
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for number in 0..20 {
        assert_eq!(client.send(&[RECIPIENT], &message(&format!("m{number}"))).await.unwrap().code(), 250);
    }
    drop(client);
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    world.sandbox.clear_faults();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("queue opened") && line.contains("\"queued\":20"));
    world.wait_for(20).await;
    assert!(world.sandbox.duplicates().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_behind_the_final_dot_is_cut_after_the_grace_and_sent_again_marked() {
    let world = World::new().await.set("shutdown", "grace = \"1s\"");
    world.sandbox.inject(Fault::always(Stage::EndOfData, Action::Stall)).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("dot")).await.unwrap().code(), 250);
    drop(client);
    while world.sandbox.counters().auth_successes == 0 {
        tokio::task::yield_now().await;
    }
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("within the grace"), "{log}");
    world.sandbox.clear_faults();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("in flight when the last run was cut"));
    world.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once() {
    let world = World::new().await.set("shutdown", "grace = \"10m\"");
    let relay = world.relay().await;
    let mut busy = Client::connect(relay.address).await.unwrap();
    busy.begin(&[RECIPIENT]).await;
    relay.signal("TERM");
    relay.log().wait_for(|line| line.contains("\"stopping\""));
    relay.signal("TERM");
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("by a second signal"), "{log}");
}
