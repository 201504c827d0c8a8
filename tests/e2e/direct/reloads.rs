//! Reloads: a listener changes its mode while mail flows, and nothing is lost or doubled on either side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{DIRECT, converse, id, passes};
use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, World, binary, free_port, message, until};

/// Writes another configuration in one step and has it taken up.
async fn reload(world: &World, text: &str) {
    let new = world.path("new.toml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, world.path("xoauth2-relay.toml")).unwrap();
    let mut command = binary();
    command.args(["reload", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The world's configuration in each mode, with a port of its own.
fn modes(world: &World) -> [String; 2] {
    let queue = world.configuration_text().replacen("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()), 1);
    let direct = queue.replacen("[listener.local]\n", &format!("[listener.local]\n{DIRECT}\n"), 1);
    [queue, direct]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_changes_its_mode_and_back_while_mail_flows() {
    const CLIENTS: usize = 4;
    let world = World::new().await;
    let [queue, direct] = modes(&world);
    let path = world.path("xoauth2-relay.toml");
    std::fs::write(&path, &queue).unwrap();
    let relay = Relay::start(&path).await;
    let (over, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let promised: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let sending: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (over, next, promised, address) =
                (Arc::clone(&over), Arc::clone(&next), Arc::clone(&promised), relay.address);
            tokio::spawn(async move {
                // One session for all: its mode changes between two messages.
                let mut client = Client::connect(address).await.unwrap();
                while !over.load(Ordering::SeqCst) {
                    let name = format!("m{}", next.fetch_add(1, Ordering::SeqCst));
                    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message(&name)).await.unwrap();
                    assert!(heard.is_taken(), "{name}: {heard:?}");
                    promised.lock().unwrap().insert(id(&name), heard.text());
                }
            })
        })
        .collect();
    let said = |wanted: &str| promised.lock().unwrap().values().filter(|said| said.contains(wanted)).count();
    for text in [&direct, &queue, &direct, &queue] {
        let wanted = if *text == direct { " OK <" } else { "Queued as" };
        let before = said(wanted);
        reload(&world, text).await;
        assert!(until(PATIENCE, || said(wanted) > before + 10).await, "no answer says {wanted}");
    }
    over.store(true, Ordering::SeqCst);
    for client in sending {
        client.await.unwrap();
    }
    let promised = promised.lock().unwrap().clone();
    let taken = world.wait_for(promised.len() as u64).await;
    let mut arrived: Vec<_> = taken.iter().map(|message| message.message_id.clone()).collect();
    arrived.sort();
    assert_eq!(arrived, promised.into_keys().collect::<Vec<_>>());
    assert_eq!(world.sandbox.duplicates(), []);
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("\"WARN\"") && !log.contains("\"ERROR\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_under_way_ends_in_the_mode_in_which_it_began() {
    let world = World::new().await;
    let [queue, direct] = modes(&world);
    let path = world.path("xoauth2-relay.toml");
    std::fs::write(&path, &direct).unwrap();
    let relay = Relay::start(&path).await;
    for (now, then, wanted) in [(&direct, &queue, " OK <"), (&queue, &direct, "Queued as")] {
        reload(&world, now).await;
        let mut client = Client::connect(relay.address).await.unwrap();
        client.begin(&[RECIPIENT]).await;
        reload(&world, then).await;
        client.write(&message("between")).await.unwrap();
        let reply = client.command("\r\n.").await.unwrap().to_string();
        assert!(reply.contains(wanted), "{reply}");
    }
    world.wait_for(2).await;
    passes(relay.address, "next").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_holds_a_lane_keeps_it_when_its_mailbox_is_replaced() {
    let world = super::world().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.begin(&[RECIPIENT]).await;
    let text = world.configuration_text().replace("connections = 10", "connections = 2");
    reload(&world, &text).await;
    client.write(&message("kept")).await.unwrap();
    assert_eq!(client.command("\r\n.").await.unwrap().code(), 250);
    passes(relay.address, "next").await;
    assert_eq!(world.sandbox.counters().messages, 2);
}
