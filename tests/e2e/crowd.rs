//! Many clients at once, and hostile ones beside a normal one: nobody who is served waits for those who are not, and what was
//! taken arrives.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, binary, message};

/// As many descriptors as the system allows this process.
fn raise_limit(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(limit.current.is_none_or(|most| most > needed), "this machine allows {limit:?}, and {needed} are needed");
}

/// A connection from one of this machine's many addresses, without a word.
async fn connect(client: Ipv4Addr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((client, 0).into())?;
    socket.connect(server).await
}

fn many_sessions(world: World) -> World {
    world.set("listener", "max_connections = 20000")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_that_wait_keep_nobody_from_sending() {
    raise_limit(12_000);
    let world = many_sessions(World::new().await);
    let relay = world.relay().await;
    let mut idle = Vec::with_capacity(10_000);
    for number in 0..10_000u32 {
        let [_, _, third, fourth] = number.to_be_bytes();
        let mut stream = connect(Ipv4Addr::new(127, 1, third, fourth / 8 + 1), relay.address).await.unwrap();
        let mut banner = [0; 4];
        stream.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 ", "session {number}");
        idle.push(stream);
    }
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("one")).await.unwrap().code(), 250);
    world.wait_for(1).await;
    // They wait still, and each may speak.
    for stream in idle.iter_mut().step_by(1000) {
        stream.write_all(b"NOOP\r\n").await.unwrap();
        let mut line = vec![0; 256];
        let len = loop {
            let len = stream.read(&mut line).await.unwrap();
            if line[..len].windows(3).any(|three| three == b"250") {
                break len;
            }
        };
        assert!(len > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_send_at_once_lose_nothing() {
    raise_limit(4_000);
    let world = many_sessions(World::new().await);
    let relay = world.relay().await;
    let mut clients = JoinSet::new();
    let all_there = Arc::new(Barrier::new(1_000));
    for number in 0..1_000u32 {
        let (server, all_there) = (relay.address, Arc::clone(&all_there));
        clients.spawn(async move {
            let [_, _, third, fourth] = number.to_be_bytes();
            let from = Ipv4Addr::new(127, 2, third, fourth / 8 + 1);
            let mut client = Client::connect_from(from, server).await.unwrap();
            let name = format!("of-client-{number}");
            all_there.wait().await;
            assert_eq!(client.send(&[RECIPIENT], &message(&name)).await.unwrap().code(), 250, "{name}");
            name
        });
    }
    let promised: BTreeSet<_> = clients.join_all().await.into_iter().collect();
    let taken = world.wait_for(1_000).await;
    let arrived: Vec<_> = taken.iter().map(|message| subject(message)).collect();
    assert_eq!(arrived.len(), 1_000, "none twice");
    assert_eq!(arrived.into_iter().collect::<BTreeSet<_>>(), promised);
}

/// Out of descriptors the relay waits, says so once, and goes on when it has some.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_out_of_descriptors_takes_connections_again_when_some_close() {
    let world = many_sessions(World::new().await).set("listener", "max_connections_per_client = 20000");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 80; exec \"$0\" run --config \"$1\""]).arg(binary().get_program());
    command.arg(world.configuration());
    let relay = Relay::spawn(command).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        // The system takes the connection; the relay may not.
        held.push(connect(Ipv4Addr::LOCALHOST, relay.address).await.unwrap());
    }
    tokio::task::block_in_place(|| relay.log().wait_for(|line| line.contains("out of file descriptors")));
    drop(held);
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("after")).await.unwrap().code(), 250);
    world.wait_for(1).await;
    assert_eq!(relay.log().count(|line| line.contains("out of file descriptors")), 1, "{}", relay.log().text());
}

fn subject(message: &sandbox::Message) -> String {
    let (header, _) = crate::harness::split(message);
    header.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned()
}

/// What an attacker sends over one connection, again and again.
const ATTACKS: [(&str, &[u8]); 8] = [
    ("port scan", b""),
    ("TLS octets", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n"),
    ("NOOP", b"NOOP\r\n"),
    ("AUTH", b"AUTH PLAIN AGFkbWluAGd1ZXNz\r\n"),
    ("garbage", b"\0\xff\n\r\n\r\r\n\x1b[2J\n"),
    ("endless line", &[b'x'; 8192]),
    ("MAIL without end", b"MAIL FROM:<a@b.c>\r\nRSET\r\n"),
];

/// Attacks from an address of its own until told to stop.
async fn attack(
    octets: &'static [u8],
    from: Ipv4Addr,
    server: SocketAddr,
    over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut stream) = connect(from, server).await else { continue };
        made.fetch_add(1, Ordering::Relaxed);
        let (mut reading, mut writing) = stream.split();
        // Until the server has had enough; replies are read, since one that reads none is cut for that.
        let send = async {
            for _ in 0..if octets.is_empty() { 0 } else { 200 } {
                if writing.write_all(octets).await.is_err() {
                    break;
                }
            }
            let _ = writing.shutdown().await;
        };
        let read = async { while matches!(reading.read(&mut [0; 4096]).await, Ok(1..)) {} };
        tokio::join!(send, read);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_normal_client_is_served_while_hostile_ones_do_their_worst() {
    raise_limit(4_000);
    let user = "[user.erp]\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
                aH3wmFUbr0DzXnTtF8S+Z2Z4kUl3hOJ1Tq2g2F0hSmE\"";
    let world = World::new().await.set("listener", "authentication = \"optional\"").set("tables", user);
    let relay = world.relay().await;
    let (over, mut attackers, mut counts) = (Arc::new(AtomicBool::new(false)), JoinSet::new(), Vec::new());
    for (number, (_, octets)) in (1u8..).zip(ATTACKS) {
        let made = Arc::new(AtomicU64::new(0));
        counts.push(Arc::clone(&made));
        // Several at once, from several addresses.
        for last in 1..=4 {
            let from = Ipv4Addr::new(127, 3, number, last);
            attackers.spawn(attack(octets, from, relay.address, Arc::clone(&over), Arc::clone(&made)));
        }
    }
    // And some that connect, say half a word, and wait, as many as one address may.
    let mut half_open = Vec::new();
    for _ in 0..60 {
        if let Ok(mut stream) = connect(Ipv4Addr::new(127, 3, 0, 1), relay.address).await {
            let _ = stream.write_all(b"EHL").await;
            half_open.push(stream);
        }
    }
    let mut sent = 0;
    // As long as it takes for every attack to have been made often.
    while sent < 50 || counts.iter().any(|count| count.load(Ordering::Relaxed) < 20) {
        let mut client = Client::connect(relay.address).await.unwrap();
        let reply = client.send(&[RECIPIENT], &message(&format!("calm-{sent}"))).await.unwrap();
        assert_eq!(reply.code(), 250, "message {sent}");
        assert_eq!(client.command("QUIT").await.unwrap().code(), 221);
        sent += 1;
    }
    over.store(true, Ordering::Relaxed);
    attackers.join_all().await;
    let taken = world.wait_for(sent).await;
    assert_eq!(taken.len() as u64, sent, "the attackers' mail is none");
    assert!(taken.iter().all(|message| message.reverse_path == SENDER));
}
