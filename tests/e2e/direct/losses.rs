//! kill -9, and connections that upstream drops at each stage: a client never holds a 250 for a message that Exchange does not have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sandbox::{Action, Fault, Stage};

use super::{At, Heard, converse, copies, events, passes, submit, told, world};
use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, World, message, until};

const CLIENTS: usize = 10;

/// Messages that clients send until each was taken, as programs do that can try again.
struct Messages {
    count: usize,
    next: AtomicUsize,
    /// How often each was promised.
    promised: Mutex<BTreeMap<String, usize>>,
    /// Sent, and not taken.
    left: Mutex<Vec<String>>,
}

impl Messages {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { count, next: AtomicUsize::new(0), promised: Mutex::default(), left: Mutex::default() })
    }

    fn next(&self) -> Option<String> {
        if let Some(name) = self.left.lock().unwrap().pop() {
            return Some(name);
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        (number < self.count).then(|| format!("m{number}"))
    }

    fn count(&self) -> usize {
        self.promised.lock().unwrap().len()
    }

    /// Sends until nothing is left or nobody listens any more.
    async fn send_all(self: Arc<Self>, address: SocketAddr) {
        while let Some(name) = self.next() {
            match attempt(address, &name).await {
                Some(heard) if heard.is_taken() => {
                    *self.promised.lock().unwrap().entry(name).or_default() += 1;
                }
                Some(heard) => {
                    assert_eq!(heard.reply.code() / 100, 4, "{name}: {heard:?}");
                    self.left.lock().unwrap().push(name);
                }
                None => {
                    self.left.lock().unwrap().push(name);
                    if Client::connect(address).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn send_with(self: &Arc<Self>, clients: usize, address: SocketAddr) {
        let sending: Vec<_> = (0..clients).map(|_| tokio::spawn(Arc::clone(self).send_all(address))).collect();
        for client in sending {
            client.await.unwrap();
        }
    }

    /// What was promised is there.
    fn are_kept(&self, world: &World) {
        for (name, times) in self.promised.lock().unwrap().iter() {
            assert!(
                copies(world, name) >= *times,
                "{name} was promised {times} times and is there {}",
                copies(world, name)
            );
        }
    }
}

/// A message of a session of its own; none if that ended.
async fn attempt(address: SocketAddr, name: &str) -> Option<Heard> {
    let mut client = Client::connect(address).await.ok()?;
    converse(&mut client, SENDER, &[RECIPIENT], &message(name)).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_holds_no_250_for_what_exchange_does_not_have_after_kill_9() {
    const ROUNDS: u64 = 8;
    const MESSAGES: usize = 150;
    let mut chance = fastrand::Rng::with_seed(9);
    for round in 0..ROUNDS {
        let world = world().await;
        let relay = world.relay().await;
        let messages = Messages::new(MESSAGES);
        let kill_at = chance.usize(1..MESSAGES - 2 * CLIENTS);
        let sending = tokio::spawn({
            let (messages, address) = (Arc::clone(&messages), relay.address);
            async move { messages.send_with(CLIENTS, address).await }
        });
        assert!(until(PATIENCE, || messages.count() >= kill_at).await);
        relay.kill();
        sending.await.unwrap();
        messages.are_kept(&world);
        assert!(messages.count() < MESSAGES, "round {round}: the kill came in the middle");
        // The clients come back with what is left.
        let relay = world.relay().await;
        messages.send_with(CLIENTS, relay.address).await;
        assert_eq!(messages.count(), MESSAGES);
        messages.are_kept(&world);
        assert!(messages.promised.lock().unwrap().values().all(|times| *times == 1));
        // What was in its final wait at the kill may be there, and was sent again by a client that cannot know.
        let twice = world.sandbox.messages().len() - MESSAGES;
        assert!(twice <= CLIENTS, "round {round}: {twice} are there twice");
        let (status, log) = relay.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(world.count("SELECT count(*) FROM message"), Some(0), "nothing is stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_holds_no_250_for_what_exchange_does_not_have_after_a_drop_at_any_stage() {
    const MESSAGES: usize = 120;
    let world = world().await;
    let relay = world.relay().await;
    let drops: [(Stage, Action); 8] = [
        (Stage::Mail, Action::Close),
        (Stage::Rcpt, Action::Close),
        (Stage::Data, Action::Close),
        (Stage::Content, Action::Close),
        (Stage::EndOfData, Action::Close),
        (Stage::EndOfData, Action::KeepThenClose),
        (Stage::EndOfData, Action::Reply("421 4.3.2 Service not active".to_owned())),
        (Stage::Connect, Action::Close),
    ];
    let messages = Messages::new(MESSAGES);
    let sending = tokio::spawn({
        let (messages, address) = (Arc::clone(&messages), relay.address);
        async move { messages.send_with(3, address).await }
    });
    // One drop after the other, each when the one before has struck.
    let mut chance = fastrand::Rng::with_seed(90);
    let mut lost = 0;
    while !sending.is_finished() {
        if world.sandbox.waiting_faults().is_empty() {
            let (stage, action) = drops[chance.usize(..drops.len())].clone();
            lost += usize::from(action == Action::KeepThenClose);
            world.sandbox.inject(Fault::once(stage, action)).unwrap();
            // A few messages between them, lest the lane never works.
            let before = messages.count();
            until(PATIENCE, || messages.count() >= before + 2 || sending.is_finished()).await;
        }
        tokio::task::yield_now().await;
    }
    sending.await.unwrap();
    messages.are_kept(&world);
    assert_eq!(messages.count(), MESSAGES);
    let duplicates = world.sandbox.messages().len() - MESSAGES;
    assert!(duplicates <= lost, "{duplicates} duplicates of {lost} replies that were lost");
    let uncertain = relay.log().count(|line| line.contains("\"outcome\":\"uncertain\""));
    assert!(uncertain >= duplicates, "{uncertain} uncertain and {duplicates} twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_reply_that_is_lost_is_told_as_uncertain_to_client_log_and_history() {
    let world = world().await;
    let relay = world.relay().await;
    for (name, action, is_there) in [("dropped", Action::Close, 0), ("taken", Action::KeepThenClose, 1)] {
        world.sandbox.inject(Fault::once(Stage::EndOfData, action)).unwrap();
        let heard = submit(relay.address, name).await;
        assert_eq!(heard.at, At::End);
        assert!(
            heard.text().starts_with("451 4.4.2 Exchange did not answer behind the end of the message"),
            "{heard:?}"
        );
        assert_eq!(copies(&world, name), is_there);
        let line = told(&relay, name);
        assert!(line.contains("\"WARN\"") && line.contains("\"outcome\":\"uncertain\""), "{line}");
        assert!(line.contains("it may arrive twice"), "{line}");
    }
    passes(relay.address, "next").await;
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    for (name, event) in [("dropped", "uncertain"), ("taken", "uncertain"), ("next", "accepted")] {
        assert_eq!(events(&world, name), [event], "{name}");
    }
    // Nobody sends them again but their client.
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("queue opened") && line.contains("\"queued\":0"));
    assert_eq!(world.sandbox.counters().messages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_at_each_stage_promises_nothing_and_stores_nothing() {
    let world = world().await;
    let commands = ["MAIL FROM:<scanner@contoso.com>", "RCPT TO:<someone@example.com>", "DATA"];
    // No more starts than there may be requests for tokens in five minutes.
    for stage in 1..=4 {
        let relay: Relay = world.relay().await;
        let mut client = Client::connect(relay.address).await.unwrap();
        for command in commands.iter().take(stage) {
            assert!(matches!(client.command(command).await.unwrap().code(), 250 | 354));
        }
        if stage == 4 {
            // Upstream has it all and its dot, and is slow to answer.
            world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Stall)).unwrap();
            client.write(&[&message("killed")[..], b"\r\n.\r\n"].concat()).await.unwrap();
            super::has_struck(&world).await;
        } else if stage == 3 {
            client.write(&[&message("killed")[..], b"\r\nhalf"].concat()).await.unwrap();
        }
        relay.kill();
        assert!(client.reply().await.is_err(), "nothing is promised");
    }
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("queue opened") && line.contains("\"queued\":0"));
    assert_eq!(copies(&world, "killed"), 0);
    passes(relay.address, "next").await;
}
