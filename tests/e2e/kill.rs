//! kill -9: what had its 250 arrives, whatever happens to the process.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sandbox::{Action, Fault, Stage};

use crate::harness::{Client, RECIPIENT, Relay, World, field, message};

const ROUNDS: u32 = 5;
const CONNECTIONS: usize = 10;
const MESSAGES: usize = 1000;

/// What the clients of a round have in common.
#[derive(Default)]
struct Round {
    next: AtomicUsize,
    /// Names of messages that had their 250.
    promised: Mutex<HashSet<String>>,
}

/// Sends messages one after another until none is left or the relay is gone.
async fn send_all(address: SocketAddr, round: Arc<Round>) {
    let Ok(mut client) = Client::connect(address).await else { return };
    loop {
        let number = round.next.fetch_add(1, Ordering::SeqCst);
        if number >= MESSAGES {
            return;
        }
        let name = format!("m{number}");
        match client.send(&[RECIPIENT], &message(&name)).await {
            Ok(reply) if reply.code() == 250 => {
                round.promised.lock().unwrap().insert(format!("<{name}@test.local>"));
            }
            Ok(reply) => panic!("{name} was answered {reply}"),
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_that_had_its_250_arrives_after_kill_9() {
    let (mut promised, mut duplicates, mut uncertain) = (0, 0, 0);
    for round in 0..ROUNDS {
        // Anywhere in the run, the same places for the same seed.
        let seed = u64::from(round) + 1;
        let result = play_round(seed).await;
        promised += result.0;
        duplicates += result.1;
        uncertain += result.2;
    }
    eprintln!(
        "{ROUNDS} rounds, {promised} messages promised, 0 lost, {duplicates} duplicates, {uncertain} deliveries marked uncertain"
    );
}

async fn play_round(seed: u64) -> (usize, usize, usize) {
    let world = World::new().await;
    let relay = world.relay().await;
    let round = Arc::new(Round::default());
    let kill_at = fastrand::Rng::with_seed(seed).usize(50..MESSAGES - 50);
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(send_all(relay.address, Arc::clone(&round)))).collect();
    while round.promised.lock().unwrap().len() < kill_at {
        tokio::task::yield_now().await;
    }
    relay.kill();
    for client in clients {
        client.await.unwrap();
    }
    let first = round.promised.lock().unwrap().len();
    assert!((kill_at..MESSAGES).contains(&first), "the kill came in the middle: {first}");
    // The clients come back with what is left, to the relay that was started again.
    let relay = world.relay().await;
    let uncertain = marked(&relay);
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(send_all(relay.address, Arc::clone(&round)))).collect();
    for client in clients {
        client.await.unwrap();
    }
    let promised = round.promised.lock().unwrap().clone();
    arrived(&world, &promised).await;
    drop(relay);
    (promised.len(), world.sandbox.duplicates().len(), uncertain)
}

/// How many deliveries were in flight at the kill.
fn marked(relay: &Relay) -> usize {
    let lines = relay.log().text();
    let line = lines.lines().find(|line| line.contains("in flight when the last run was cut"));
    line.map_or(0, |line| field(line, "deliveries").parse().unwrap())
}

/// Waits until every promised message is at the simulated Exchange.
async fn arrived(world: &World, promised: &HashSet<String>) {
    let mut count = promised.len() as u64;
    loop {
        let taken = world.wait_for(count).await;
        let ids: HashSet<_> = taken.iter().map(|message| message.message_id.clone()).collect();
        let missing = promised.iter().filter(|id| !ids.contains(*id)).count() as u64;
        if missing == 0 {
            return;
        }
        // Some came twice; wait for as many more as are missing.
        count = taken.len() as u64 + missing.min(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_at_a_kill_is_sent_again_and_marked() {
    let world = World::new().await;
    let relay = world.relay().await;
    world.sandbox.inject(Fault::always(Stage::EndOfData, Action::Stall)).unwrap();
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("flight")).await.unwrap().code(), 250);
    wait_for_mark(&world).await;
    relay.kill();
    world.sandbox.clear_faults();
    let relay = world.relay().await;
    relay
        .log()
        .wait_for(|line| line.contains("in flight when the last run was cut") && line.contains("\"deliveries\":1"));
    let taken = world.wait_for(1).await;
    assert_eq!(taken[0].message_id, "<flight@test.local>");
    assert_settled(&relay);
}

/// The message is with the simulated Exchange, which does not answer, and the mark is on disk.
async fn wait_for_mark(world: &World) {
    let database = world.path("state/queue.db");
    let marked = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(&database, flags).unwrap();
        connection
            .query_row("SELECT count(*) FROM delivery WHERE in_flight IS NOT NULL", [], |row| row.get::<_, i64>(0))
    };
    while marked().unwrap_or(0) == 0 {
        tokio::task::yield_now().await;
    }
}

fn assert_settled(relay: &Relay) {
    let line = relay.log().wait_for(|line| line.contains("\"sent\""));
    assert!(line.contains("accepted"), "{line}");
}
