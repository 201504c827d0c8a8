//! More clients than connections: each is served or told to come back within its wait, and the queue keeps a connection of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{Action, Fault, Stage};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{At, Heard, copies, has_connections, id, narrow, passes, submit};
use crate::harness::{Client, RECIPIENT, SENDER, World, message};
use crate::tenants::{address_of, listener};

/// How long a client waits for a turn.
const WAIT: Duration = Duration::from_secs(20);
/// Whoever is told that there is no turn has waited for so long: its time began a little after ours.
const ALMOST: Duration = Duration::from_secs(19);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(20);

/// One of many clients: its message, what it heard, and how long that took.
struct Served {
    name: String,
    heard: Heard,
    took: Duration,
}

/// So many clients that send at the same moment.
async fn crowd(count: usize, server: SocketAddr) -> Vec<Served> {
    let all_there = Arc::new(Barrier::new(count));
    let mut clients = JoinSet::new();
    for number in 0..count {
        let all_there = Arc::clone(&all_there);
        clients.spawn(async move {
            let name = format!("of-client-{number}");
            let mut client = Client::connect(server).await.unwrap();
            all_there.wait().await;
            let begun = Instant::now();
            let heard = super::converse(&mut client, SENDER, &[RECIPIENT], &message(&name)).await.unwrap();
            Served { name, heard, took: begun.elapsed() }
        });
    }
    clients.join_all().await
}

fn many(world: World) -> World {
    world.set("listener", "max_connections_per_client = 1000")
}

/// Exchange has what was taken, each once, and nothing else; the others heard this. Gives how many were taken.
fn assert_told(world: &World, served: &[Served], refusal: &str) -> usize {
    let (taken, refused): (Vec<_>, Vec<_>) = served.iter().partition(|served| served.heard.is_taken());
    for Served { name, heard, .. } in &refused {
        assert!(heard.at == At::Rcpt && heard.text().starts_with(refusal), "{name}: {heard:?}");
    }
    let promised: BTreeSet<_> = taken.iter().map(|served| id(&served.name)).collect();
    let arrived: Vec<_> = world.sandbox.messages().iter().map(|message| message.message_id.clone()).collect();
    assert_eq!(arrived.len(), promised.len());
    assert_eq!(arrived.into_iter().collect::<BTreeSet<_>>(), promised);
    promised.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_on_three_connections_are_all_served() {
    let world = many(narrow(3).await);
    let relay = world.relay().await;
    let served = crowd(200, relay.address).await;
    assert_eq!(assert_told(&world, &served, "451 4.4.5 "), 200);
    assert!(world.sandbox.counters().connections_peak <= 3, "{:?}", world.sandbox.counters());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_served_in_time_is_told_within_its_wait() {
    let world = many(narrow(3).await);
    world.sandbox.inject(Fault::always(Stage::EndOfData, Action::Delay(Duration::from_secs(2)))).unwrap();
    let relay = world.relay().await;
    let served = crowd(200, relay.address).await;
    let taken =
        assert_told(&world, &served, "451 4.4.5 Not now, all connections of the mailbox to Exchange are in use");
    // Three at a time, each for two seconds.
    assert!((3..=60).contains(&taken), "{taken} were served");
    for Served { name, heard, took } in &served {
        assert!(*took <= WAIT + SLACK, "{name} waited for {took:?}: {heard:?}");
        assert!(heard.is_taken() || *took >= ALMOST, "{name} had a wait of {took:?}");
    }
    assert!(world.sandbox.counters().connections_peak <= 3, "{:?}", world.sandbox.counters());
    // Whoever waited in vain holds nothing.
    world.sandbox.clear_faults();
    passes(relay.address, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_forty_clients_exactly_the_thirty_of_a_minute_pass_and_the_others_hear_so_at_once() {
    let world = many(narrow(3).await.set("tables", ""));
    let text = world.configuration_text().replace("messages_per_minute = 1000000", "messages_per_minute = 30");
    let configuration = world.path("thirty.toml");
    std::fs::write(&configuration, text).unwrap();
    let relay = crate::harness::Relay::start(&configuration).await;
    let served = crowd(40, relay.address).await;
    let refusal =
        "451 4.4.5 Not now, the mailbox has sent as many messages as Exchange takes in a minute; try again in ";
    assert_eq!(assert_told(&world, &served, refusal), 30);
    for Served { name, heard, took } in &served {
        let seconds = heard.text().rsplit_once(" in ").map(|(_, rest)| rest.trim_end_matches(" s").to_owned());
        if !heard.is_taken() {
            assert!((1..=60).contains(&seconds.unwrap().parse::<u64>().unwrap()), "{heard:?}");
            assert!(*took < WAIT, "{name} waited for {took:?} in vain");
        }
    }
}

/// Two listeners of one mailbox, one of each mode.
async fn both_modes(connections: usize) -> World {
    narrow(connections).await.set("tables", listener("queue", ""))
}

/// A client of a direct listener that holds a connection.
async fn holds(server: SocketAddr) -> Client {
    let mut client = Client::connect(server).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    assert_eq!(client.command(&format!("RCPT TO:<{RECIPIENT}>")).await.unwrap().code(), 250);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hold_connections_leave_one_to_the_queue() {
    let world = both_modes(3).await;
    let relay = world.relay().await;
    let (direct, queue) = (address_of(&relay, "local"), address_of(&relay, "queue"));
    let (one, mut two) = (holds(direct).await, holds(direct).await);
    has_connections(&world, 2).await;
    // A third waits, though the lane has three.
    let third = tokio::spawn(async move { submit(direct, "third").await });
    for number in 0..20 {
        passes(queue, &format!("queued{number}")).await;
    }
    world.wait_for(20).await;
    assert!(!third.is_finished());
    assert_eq!(copies(&world, "third"), 0);
    // One leaves, and the third has its place.
    drop(one);
    let heard = third.await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!(two.command("DATA").await.unwrap().code(), 354);
    two.write(&message("two")).await.unwrap();
    assert_eq!(two.command("\r\n.").await.unwrap().code(), 250);
    world.wait_for(22).await;
    assert!(world.sandbox.counters().connections_peak <= 3, "{:?}", world.sandbox.counters());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_leaves_clients_their_turn() {
    let world = both_modes(2).await;
    let relay = world.relay().await;
    let (direct, queue) = (address_of(&relay, "local"), address_of(&relay, "queue"));
    // The queue has work for longer than a client waits.
    world.sandbox.inject(Fault::always(Stage::EndOfData, Action::Delay(Duration::from_millis(500)))).unwrap();
    let mut client = Client::connect(queue).await.unwrap();
    for number in 0..100 {
        assert_eq!(client.send(&[RECIPIENT], &message(&format!("queued{number}"))).await.unwrap().code(), 250);
    }
    let heard = submit(direct, "live").await;
    assert!(heard.is_taken(), "{heard:?}");
    assert!(world.sandbox.counters().messages < 100, "it did not wait for the queue");
    world.sandbox.clear_faults();
}
