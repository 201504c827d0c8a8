//! Exchange's limits for each mailbox (facts 2), moved by the clock.

use std::fmt::Write as _;
use std::time::Duration;

use sandbox::{DEFAULT_MAILBOX, Limits};

use crate::support::{BACK_END, World};

#[tokio::test]
async fn a_fourth_connection_may_not_submit() {
    let world = World::new().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(world.logged_in().await);
    }
    let refused = format!(
        "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. {BACK_END}"
    );
    let mut fourth = clients.pop().unwrap();
    assert_eq!(fourth.send("\r\n").await, refused);
    for client in &mut clients {
        assert!(client.send("\r\n").await.starts_with("250 "));
    }
    drop(clients.remove(1));
    world.connections(3).await;
    assert!(fourth.send("\r\n").await.starts_with("250 "));
}

#[tokio::test]
async fn thirty_messages_a_minute() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    for _ in 0..30 {
        assert!(client.send("\r\n").await.starts_with("250 "));
    }
    let refused = "421 4.4.2 Message submission rate for this client has exceeded the configured limit [..]";
    assert_eq!(client.say("MAIL FROM:<scanner@contoso.com>").await, refused);
    assert_eq!(client.line().await, None);
    world.clock.advance(Duration::from_mins(1));
    let mut client = world.logged_in().await;
    assert!(client.send("\r\n").await.starts_with("250 "));
}

#[tokio::test]
async fn ten_thousand_recipients_a_day() {
    let world = World::with(|options| options.tenants[0].mailboxes[0].recipient_limit = 1_000).await;
    let mut client = world.logged_in().await;
    let mut sent = Vec::new();
    for count in [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 999, 2, 1] {
        let mut group = String::from("MAIL FROM:<scanner@contoso.com>\r\n");
        (0..count).for_each(|i| write!(group, "RCPT TO:<{i}@{}.example>\r\n", i % 10).unwrap());
        client.write(format!("{group}DATA\r\n")).await;
        for _ in 0..count + 2 {
            assert!(client.reply().await.starts_with(['2', '3']));
        }
        sent.push(client.say("\r\n.").await);
    }
    let refused = format!(
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message {BACK_END}"
    );
    assert_eq!(sent[10], refused);
    assert!(sent[11].starts_with("250 "));
    assert_eq!(client.send("\r\n").await, refused);
    world.clock.advance(Duration::from_hours(24));
    assert!(client.send("\r\n").await.starts_with("250 "));
}

#[tokio::test]
async fn off_means_an_instant_upstream() {
    let world = World::with(|options| options.limits = Limits::Off).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(world.logged_in().await);
    }
    for client in &mut clients {
        for _ in 0..10 {
            assert!(client.send("\r\n").await.starts_with("250 "));
        }
    }
    assert_eq!(world.sandbox.counters().messages, 50);
    // One message's own limits stay.
    world.sandbox.change_mailbox(DEFAULT_MAILBOX, |mailbox| mailbox.max_send_size = 1).unwrap();
    assert!(clients[0].send("\r\n").await.starts_with("554 5.2.270 "));
}
