//! From DATA to the verdict behind the final dot (facts 1.4, 1.6), and what is then known about a message.

use std::fmt::Write as _;

use sandbox::{BodyPolicy, DEFAULT_MAILBOX};

use crate::support::{BACK_END, PATIENCE, World};

#[tokio::test]
async fn a_pipelined_group_in_one_write() {
    let world = World::new().await;
    let mut messages = world.sandbox.subscribe();
    let mut client = world.logged_in().await;
    for i in 0..3 {
        client
            .write("MAIL FROM:<scanner@contoso.com> SIZE=20\r\nRCPT TO:<A@example.org>\r\nRCPT TO:<unknown@contoso.com>\r\nRCPT TO:<b@example.org> NOTIFY=NEVER\r\nDATA\r\n")
            .await;
        assert_eq!(client.reply().await, "250 2.1.0 Sender OK");
        assert_eq!(client.reply().await, "250 2.1.5 Recipient OK");
        assert_eq!(client.reply().await, "550 5.1.1 User unknown [..]");
        assert_eq!(client.reply().await, "250 2.1.5 Recipient OK");
        assert_eq!(client.reply().await, "354 Start mail input; end with <CRLF>.<CRLF>");
        let accepted = format!("250 2.0.0 OK <{i}@x> {BACK_END}");
        assert_eq!(client.say(&format!("Message-ID: <{i}@x>\r\n\r\nhi\r\n.")).await, accepted);
    }
    let kept = world.sandbox.wait_for(3, PATIENCE).await.unwrap();
    let message = &kept[2];
    assert_eq!((message.index, message.connection, message.login.as_str()), (2, 1, DEFAULT_MAILBOX));
    assert_eq!(message.session_id, client.session_id);
    assert_eq!(message.reverse_path, "scanner@contoso.com");
    assert_eq!((message.parameters[0].name.as_str(), message.parameters[0].value.as_deref()), ("SIZE", Some("20")));
    let recipients: Vec<_> = message.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(recipients, ["A@example.org", "b@example.org"]);
    assert_eq!(message.recipients[1].parameters[0].value.as_deref(), Some("NEVER"));
    assert_eq!(message.received.rfc3339(), "2024-02-14T14:50:26.590Z");
    assert!(!message.before_354);
    for index in 0..3 {
        assert_eq!(messages.recv().await.unwrap().index, index);
    }
}

#[tokio::test]
async fn dots_and_line_ends_arrive_exactly() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    let table = [
        ("", "", false, false),
        ("\r\n", "\r\n", false, false),
        ("..\r\n", ".\r\n", false, false),
        ("a\r\n...b\r\n..c\r\n", "a\r\n..b\r\n.c\r\n", false, false),
        ("a\n.\r\nb\r\n", "a\n.\r\nb\r\n", true, false),
        ("a\r.\r\nb\r\n", "a\r.\r\nb\r\n", false, true),
    ];
    for (index, (wire, content, bare_lf, bare_cr)) in (0..).zip(table) {
        assert!(client.send(wire).await.starts_with("250 2.0.0 OK <"), "{wire:?}");
        let message = world.sandbox.message(index).unwrap();
        assert_eq!(message.body.octets(), Some(content.as_bytes()), "{wire:?}");
        assert_eq!((message.bare_lf, message.bare_cr), (bare_lf, bare_cr), "{wire:?}");
        assert!(message.message_id.ends_with("@AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM>"));
    }
}

#[tokio::test]
async fn content_that_does_not_wait_for_the_354_is_noted() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    client.write("MAIL FROM:<>\r\nRCPT TO:<a@b.c>\r\nDATA\r\nhi\r\n.\r\nNOOP\r\n").await;
    for code in ["250", "250", "354", "250", "250"] {
        assert_eq!(client.reply().await.get(..3), Some(code));
    }
    assert!(world.sandbox.message(0).unwrap().before_354);
}

#[tokio::test]
async fn send_as_is_decided_after_the_dot() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    let denied = |from: &str| {
        format!(
            "554 5.2.252 SendAsDenied; scanner@contoso.com not allowed to send as {from}; \
             STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message \
             due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. \
             0.00000:00000000[EndDiagnosticData] {BACK_END}"
        )
    };
    let table = [
        ("scanner@contoso.com", "From: Scanner <SCANNER@contoso.com>", None),
        ("", "From: scanner@contoso.com", None),
        ("boss@contoso.com", "From: scanner@contoso.com", Some("boss@contoso.com")),
        ("scanner@contoso.com", "From: Boss <boss@contoso.com>", Some("boss@contoso.com")),
        ("", "From: scanner@contoso.com,\r\n\tboss@contoso.com", Some("boss@contoso.com")),
    ];
    for (reverse_path, header, refused) in table {
        client.envelope(reverse_path, "you@example.org").await;
        let reply = client.say(&format!("{header}\r\n\r\nhi\r\n.")).await;
        match refused {
            Some(from) => assert_eq!(reply, denied(from), "{header}"),
            None => assert!(reply.starts_with("250 2.0.0 OK <"), "{header}: {reply}"),
        }
    }
    world
        .sandbox
        .change_mailbox(DEFAULT_MAILBOX, |mailbox| *mailbox = mailbox.clone().send_as("Boss@contoso.com"))
        .unwrap();
    client.envelope("boss@contoso.com", "you@example.org").await;
    assert!(client.say("From: boss@contoso.com\r\n\r\nhi\r\n.").await.starts_with("250 "));
    assert_eq!(world.sandbox.counters().messages, 3);
}

#[tokio::test]
async fn size_and_a_full_mailbox_are_decided_after_the_dot() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    world.sandbox.change_mailbox(DEFAULT_MAILBOX, |mailbox| mailbox.max_send_size = 10).unwrap();
    assert!(client.send("12345678\r\n").await.starts_with("250 "));
    assert!(client.send("123456789\r\n").await.starts_with("554 5.2.270 "));
    world.sandbox.set_mailbox_full(DEFAULT_MAILBOX, true).unwrap();
    let full = format!(
        "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message {BACK_END}"
    );
    assert_eq!(client.send("1\r\n").await, full);
    world.sandbox.set_mailbox_full(DEFAULT_MAILBOX, false).unwrap();
    assert!(client.send("1\r\n").await.starts_with("250 "));
}

#[tokio::test]
async fn large_bodies_leave_only_their_digest() {
    let bodies = BodyPolicy { keep_up_to: 100_000, keep_in_total: 150_000 };
    let world = World::with(|options| options.bodies = bodies).await;
    let mut client = world.logged_in().await;
    let mut content = String::from("Message-ID: <big@x>\r\n\r\n");
    while content.len() < 2_000_000 {
        writeln!(content, "{:076}\r", content.len()).unwrap();
    }
    assert_eq!(client.send(&content).await, format!("250 2.0.0 OK <big@x> {BACK_END}"));
    let big = world.sandbox.message(0).unwrap();
    assert_eq!((big.body.octets(), big.body.length()), (None, content.len() as u64));
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
    assert_eq!(big.body.sha256().as_slice(), expected.as_ref());
    // Small ones are kept until all together reach the total.
    let small = format!("{}\r\n", "x".repeat(99_998));
    for _ in 0..2 {
        client.send(&small).await;
    }
    assert!(world.sandbox.message(1).unwrap().body.octets().is_some());
    assert!(world.sandbox.message(2).unwrap().body.octets().is_none());
}

#[tokio::test]
async fn a_message_beyond_35_mib_is_refused_without_being_kept() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
    let piece = format!("{}\r\n", "x".repeat(1_022)).repeat(1_024);
    for _ in 0..36 {
        client.write(&piece).await;
    }
    assert!(client.say(".").await.starts_with("554 5.2.270 "));
    assert_eq!(world.sandbox.counters().messages, 0);
}

#[tokio::test]
async fn duplicates_are_seen_by_message_id_and_recipient() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    for (id, to) in [("<1@x>", "a@b.c"), ("<1@x>", "d@e.f"), ("<2@x>", "a@b.c"), ("<1@x>", "A@b.c")] {
        client.envelope(DEFAULT_MAILBOX, to).await;
        client.say(&format!("Message-ID: {id}\r\n\r\n.")).await;
    }
    let duplicates = world.sandbox.duplicates();
    assert_eq!(duplicates.len(), 1);
    assert_eq!(
        (duplicates[0].message_id.as_str(), duplicates[0].recipient.as_str(), duplicates[0].count),
        ("<1@x>", "a@b.c", 2)
    );
}

#[tokio::test]
async fn old_records_are_forgotten_and_indices_stay() {
    let world = World::with(|options| options.message_records = 2).await;
    let mut client = world.logged_in().await;
    for i in 0..3 {
        client.send(&format!("Message-ID: <{i}@x>\r\n\r\n")).await;
    }
    assert!(world.sandbox.message(0).is_none());
    assert_eq!(world.sandbox.message(2).unwrap().message_id, "<2@x>");
    assert_eq!(world.sandbox.messages().len(), 2);
    assert_eq!(world.sandbox.wait_for(3, PATIENCE).await.unwrap().len(), 2);
    assert!(world.sandbox.message(3).is_none());
}

#[tokio::test]
async fn a_transfer_that_is_cut_off_leaves_nothing() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    client.envelope(DEFAULT_MAILBOX, "you@example.org").await;
    client.write("half a message\r\n.").await;
    drop(client);
    world.connections(0).await;
    let counters = world.sandbox.counters();
    assert_eq!((counters.messages, counters.cut_transfers), (0, 1));
    assert_eq!((counters.connections_peak, counters.connections_total), (1, 1));
}

#[tokio::test]
async fn waiting_in_vain_says_how_many_came() {
    let world = World::new().await;
    let error = world.sandbox.wait_for(1, std::time::Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "0 of 1 messages arrived within 1ms");
}

#[tokio::test]
async fn stop_ends_every_connection() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    let mut other = world.connect().await;
    world.sandbox.stop().await;
    assert_eq!(client.line().await, None);
    assert_eq!(other.line().await, None);
}
