//! Logins as the whole daemon takes them: what guessing costs it.

use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;

use crate::harness::{Client, Relay, World};

/// As `hash-password` makes them; its password is nobody's.
const USER: &str = "[user.erp]\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
                    aH3wmFUbr0DzXnTtF8S+Z2Z4kUl3hOJ1Tq2g2F0hSmE\"";

/// KiB of a field in the kernel's account of the process.
fn memory(relay: &Relay, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_logins_from_many_addresses_take_the_memory_of_two_and_give_it_back() {
    let world = World::new().await.set("listener", "authentication = \"optional\"").set("tables", USER);
    let relay = world.relay().await;
    let before = memory(&relay, "RssAnon");
    let mut guessers = JoinSet::new();
    for last in 1..=60 {
        let address = relay.address;
        guessers.spawn(async move {
            let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 1, last), address).await.unwrap();
            let login = STANDARD.encode(format!("\0user{last}\0guess"));
            client.command(&format!("AUTH PLAIN {login}")).await.unwrap().code()
        });
    }
    let codes = guessers.join_all().await;
    // On a busy machine some may have waited too long for a place.
    let verified = codes.iter().filter(|code| **code == 535).count();
    assert!(verified >= 20 && codes.iter().all(|code| [535, 454].contains(code)), "{codes:?}");
    let (after, most) = (memory(&relay, "RssAnon"), memory(&relay, "VmHWM"));
    assert!(after < before + (19 << 10), "{before} KiB before {verified} verifications, {after} KiB after");
    assert!(most < memory(&relay, "RssFile") + before + (60 << 10), "{most} KiB at most, {before} KiB before");
}
