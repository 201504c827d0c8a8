//! Direct listeners: the answer is Exchange's own, and nothing is stored. What a client hears, that it never holds a 250 for a
//! message that Exchange does not have, and that it keeps nobody else waiting.
//!
//! That a slow client is cut is shown by the tests of `smtp-server`, whose clock is theirs: its limit is half a minute.

mod carriage;
mod clients;
mod crowd;
mod departures;
mod losses;
mod postfix;
mod records;
mod reloads;
mod replies;
mod routing;
mod stops;
mod unseen;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sandbox::{Limits, Message, SandboxOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use wire::Reply;

use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, message, until};

/// What makes a listener a direct one.
const DIRECT: &str = "delivery = \"direct\"";
/// Longest wait for what should happen at once, where nobody tells that it has.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tenant without limits, and a relay whose usual listener is direct.
async fn world() -> World {
    World::new().await.set("listener", DIRECT)
}

/// The same with a mailbox that has this many connections, and no others.
async fn narrow(connections: usize) -> World {
    // The limits of the harness's own are left out where the sandbox has limits.
    let world = World::with(SandboxOptions { limits: Limits::Exchange, ..SandboxOptions::default() }).await;
    world.sandbox.change_conditions(|conditions| conditions.limits = Limits::Off);
    let mailbox = format!("connections = {connections}\nmessages_per_minute = 1000000");
    world.set("listener", DIRECT).set("mailbox", mailbox)
}

/// The road between a relay and Exchange, which can be cut without a word to either.
struct Road {
    port: u16,
    cut: watch::Sender<u64>,
}

impl Road {
    /// A road that leads to `upstream`, a port of this machine.
    async fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { port, cut }
    }

    /// Cuts whatever is on it now.
    fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
    }

    /// Starts a relay that goes by it.
    async fn relay(&self, world: &World) -> Relay {
        let (old, new) = (format!("port = {}", world.sandbox.smtp_port()), format!("port = {}", self.port));
        let path = world.path("road.toml");
        std::fs::write(&path, world.configuration_text().replace(&old, &new)).unwrap();
        Relay::start(&path).await
    }
}

/// At which command a client was told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Mail,
    Rcpt,
    Data,
    End,
}

/// The first answer that is not the usual one, or the last.
#[derive(Debug)]
struct Heard {
    at: At,
    reply: Reply,
}

impl Heard {
    /// Whether the message was taken.
    fn is_taken(&self) -> bool {
        self.at == At::End && self.reply.code() == 250
    }

    /// The reply as one line.
    fn text(&self) -> String {
        self.reply.to_string()
    }
}

/// Says a message command by command, each when the one before was answered, and gives up at the first refusal.
async fn converse(client: &mut Client, sender: &str, recipients: &[&str], message: &[u8]) -> std::io::Result<Heard> {
    let reply = client.command(&format!("MAIL FROM:<{sender}>")).await?;
    if !reply.is_positive() {
        return Ok(Heard { at: At::Mail, reply });
    }
    for recipient in recipients {
        let reply = client.command(&format!("RCPT TO:<{recipient}>")).await?;
        if !reply.is_positive() {
            return Ok(Heard { at: At::Rcpt, reply });
        }
    }
    let reply = client.command("DATA").await?;
    if !reply.is_intermediate() {
        return Ok(Heard { at: At::Data, reply });
    }
    client.write(message).await?;
    let reply = client.command("\r\n.").await?;
    Ok(Heard { at: At::End, reply })
}

/// A usual message of a client of its own.
async fn submit(address: SocketAddr, name: &str) -> Heard {
    submit_from(address, SENDER, name).await
}

/// The same from another sender.
async fn submit_from(address: SocketAddr, sender: &str, name: &str) -> Heard {
    let mut client = Client::connect(address).await.unwrap();
    converse(&mut client, sender, &[RECIPIENT], &message(name)).await.unwrap()
}

/// The same, which must be taken.
async fn passes(address: SocketAddr, name: &str) {
    let heard = submit(address, name).await;
    assert!(heard.is_taken(), "{name}: {heard:?}");
}

/// As the simulated Exchange knows a message.
fn id(name: &str) -> String {
    format!("<{name}@test.local>")
}

/// How many copies of a message it has.
fn copies(world: &World, name: &str) -> usize {
    world.sandbox.messages().iter().filter(|message| message.message_id == id(name)).count()
}

/// Whether the server has closed the connection, once it has.
async fn is_closed(client: &mut Client) -> bool {
    matches!(client.reply().await, Err(error) if error.kind() != std::io::ErrorKind::TimedOut)
}

/// Waits until the lane has so many connections upstream.
async fn has_connections(world: &World, wanted: u64) {
    let has = || world.sandbox.counters().connections == wanted;
    assert!(until(PATIENCE, has).await, "{:?} and not {wanted} connections", world.sandbox.counters());
}

/// Waits until every fault has struck.
async fn has_struck(world: &World) {
    assert!(until(PATIENCE, || world.sandbox.waiting_faults().is_empty()).await, "the fault did not strike");
}

/// The recipients of a message as upstream was told.
fn recipients(message: &Message) -> Vec<&str> {
    message.recipients.iter().map(|recipient| recipient.address.as_str()).collect()
}

/// The line of the log on what became of a message.
fn told(relay: &Relay, name: &str) -> String {
    let id = id(name);
    relay.log().wait_for(|line| line.contains("\"outcome\"") && line.contains(&id))
}

/// What history says of a message's recipient, in order.
fn events(world: &World, name: &str) -> Vec<String> {
    let queue = world.queue();
    let mut rows = queue.prepare("SELECT event FROM history WHERE message_id = ?1 ORDER BY id").unwrap();
    rows.query_map([id(name)], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}
