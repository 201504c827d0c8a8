//! The main job: what goes in arrives, once, as it was, by the right login, within Exchange's limits.

use sandbox::{Limits, SandboxOptions};

use crate::harness::{Client, RECIPIENT, SENDER, UNKNOWN, World, message, split};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_by_xoauth2_with_its_headers_completed() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let reply = client.send(&[RECIPIENT], b"Subject: bare\r\n\r\nbody").await.unwrap();
    assert!(reply.to_string().starts_with("250 2.0.0 Queued as 1-"), "{reply}");
    let taken = world.wait_for(1).await;
    assert_eq!(taken[0].login, SENDER);
    let (header, body) = split(&taken[0]);
    assert_eq!(body, b"body\r\n");
    assert!(header.starts_with("Received: from test.local ([127.0.0.1]) by "), "{header}");
    for field in ["\r\nSubject: bare\r\n", &format!("\r\nFrom: {SENDER}\r\n"), "\r\nDate: ", "\r\nMessage-ID: <1-"] {
        assert!(header.contains(field), "{field:?} is missing in\n{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_header_arrives_as_a_body() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.send(&[RECIPIENT], b"the disk is full\r\n\r\nreally").await.unwrap();
    let taken = world.wait_for(1).await;
    assert_eq!(split(&taken[0]).1, b"the disk is full\r\n\r\nreally\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_on_one_connection_all_arrive() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for number in 0..200 {
        let reply = client.send(&[RECIPIENT], &message(&format!("m{number}"))).await.unwrap();
        assert_eq!(reply.code(), 250, "{reply}");
    }
    let taken = world.wait_for(200).await;
    let mut ids: Vec<_> = taken.iter().map(|message| message.message_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    let counters = world.sandbox.counters();
    assert_eq!(counters.tokens_issued, 1, "one token serves all");
    assert!(counters.connections_total <= 10, "connections are reused: {}", counters.connections_total);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_recipients_one_is_refused_and_two_are_served() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let reply = client.send(&[RECIPIENT, UNKNOWN, "other@example.com"], &message("three")).await.unwrap();
    assert_eq!(reply.code(), 250);
    let taken = world.wait_for(1).await;
    let served: Vec<_> = taken[0].recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(served, [RECIPIENT, "other@example.com"]);
    let line = relay.log().wait_for(|line| line.contains("not delivered"));
    assert!(line.contains(UNKNOWN) && line.contains("5.1."), "{line}");
    assert_eq!(relay.log().count(|line| line.contains("\"sent\"")), 1);
    // Its sender hears of it, and it is not sent again.
    let bounce = &world.wait_for(2).await[1];
    assert_eq!(bounce.recipients[0].address, SENDER);
    assert!(String::from_utf8_lossy(bounce.body.octets().unwrap()).contains("Undelivered: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_limits_are_kept() {
    let world = World::with(SandboxOptions { limits: Limits::Exchange, ..SandboxOptions::default() }).await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for number in 0..40 {
        assert_eq!(client.send(&[RECIPIENT], &message(&format!("m{number}"))).await.unwrap().code(), 250);
    }
    world.wait_for(30).await;
    while relay.log().count(|line| line.contains("\"sent\"")) < 30 {
        tokio::task::yield_now().await;
    }
    // Exchange would answer the 31st with 421 and a fourth connection with 432; the relay shows both as warnings. Without
    // a pace it would follow within a millisecond.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(world.sandbox.counters().messages, 30);
    assert!(world.sandbox.counters().connections_peak <= 3);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
    // A restart does not begin the minute anew.
    relay.terminate().await;
    let relay = world.relay().await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(world.sandbox.counters().messages, 30, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_and_the_session_goes_on() {
    let world = World::new().await.set("listener", "max_message_size = \"64 KiB\"");
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let reply = client.command(&format!("MAIL FROM:<{SENDER}> SIZE=70000")).await.unwrap();
    assert_eq!(reply.to_string(), "552 5.3.4 Message is larger than the 65536 octets allowed here");
    let large = [message("large"), vec![b'x'; 70_000]].concat();
    assert_eq!(client.send(&[RECIPIENT], &large).await.unwrap().code(), 552);
    assert_eq!(client.send(&[RECIPIENT], &message("small")).await.unwrap().code(), 250);
    let taken = world.wait_for(1).await;
    assert_eq!(taken[0].message_id, "<small@test.local>");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_100_megabytes_passes_in_little_memory() {
    const BLOCK: usize = 1 << 20;
    let world = World::new()
        .await
        .set("listener", "max_message_size = \"150 MiB\"")
        .set("mailbox", "max_message_size = \"150 MiB\"");
    world.mailbox(|mailbox| mailbox.max_send_size = 150 << 20);
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    client.send(&[RECIPIENT], &message("warm")).await.unwrap();
    world.wait_for(1).await;
    let before = peak_memory(relay.pid());
    client.begin(&[RECIPIENT]).await;
    client.write(&message("large")).await.unwrap();
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let block: Vec<u8> = line.iter().copied().cycle().take(BLOCK / line.len() * line.len()).collect();
    client.write(b"\r\n").await.unwrap();
    for _ in 0..100 {
        client.write(&block).await.unwrap();
    }
    client.write(b".\r\n").await.unwrap();
    assert_eq!(client.reply().await.unwrap().code(), 250);
    let taken = world.wait_for(2).await;
    assert!(taken[1].body.length() > 100 * block.len() as u64);
    let grown = peak_memory(relay.pid()).saturating_sub(before);
    eprintln!("a message of {} octets moved the peak of resident memory by {grown} KiB", taken[1].body.length());
    // The message held in memory would be six times this.
    assert!(grown < 16 * 1024, "resident memory grew by {grown} KiB");
}

/// The highest resident memory so far, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
