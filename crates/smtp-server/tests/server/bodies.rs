//! What comes behind 354: octets that must arrive as they are, ends that are none, and messages that are refused.

use crate::client::Client;
use crate::intake::{Event, MAX_MESSAGE_SIZE, start, start_with};

/// Sends one message as `octets`, final dot included, in one write; gives what the intake got.
async fn delivered(octets: &[u8]) -> Vec<u8> {
    let server = start().await;
    let mut client = Client::in_data(server.address).await;
    client.send(octets).await;
    client.play("S: 250 2.0.0\nC: NOOP\nS: 250 2.0.0").await;
    match &server.recorder.messages(1).await[..] {
        [Event::Message(message)] => message.clone(),
        events => panic!("one message was sent and this came: {events:?}"),
    }
}

#[tokio::test]
async fn dots_are_unstuffed_at_line_starts_only() {
    let message = delivered(b"A: b\r\n\r\n..\r\n..two\r\nin.side\r\nend.\r\n.\r\n").await;
    assert_eq!(String::from_utf8_lossy(&message), "A: b\r\n\r\n.\r\n.two\r\nin.side\r\nend.\r\n");
}

#[tokio::test]
async fn all_other_octets_pass_unchanged() {
    let octets: Vec<u8> = (0..=255).filter(|octet| !b"\r\n".contains(octet)).collect();
    let message = [b"A: b\r\n\r\n", &octets[..], b"\r\n"].concat();
    assert_eq!(delivered(&[&message[..], b".\r\n"].concat()).await, message);
}

#[tokio::test]
async fn a_line_without_end_passes_unchanged() {
    let message = [b"A: b\r\n\r\n", &vec![b'x'; 90_000][..], b"\r\n"].concat();
    assert_eq!(delivered(&[&message[..], b".\r\n"].concat()).await, message);
}

#[tokio::test]
async fn bare_line_ends_become_crlf_and_a_bare_cr_in_the_header_a_space() {
    let message = delivered(b"A: b\rc\r\r\nB: d\n\nx\ry\nz\r\n.\r\n").await;
    assert_eq!(String::from_utf8_lossy(&message), "A: b c\r\nB: d\r\n\r\nx\r\ny\r\nz\r\n");
}

#[tokio::test]
async fn an_empty_message_is_a_message() {
    assert_eq!(delivered(b".\r\n").await, b"");
}

/// Each is taken for the end by some server; behind it stands a second message that must never be one.
#[tokio::test]
async fn what_is_almost_the_end_does_not_end_the_message() {
    for almost in
        ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\n.\r\r\n", "\r\n.\0\r\n", "\r\n. \r\n"]
    {
        let smuggled = "MAIL FROM:<ceo@contoso.com>\r\nRCPT TO:<d@b.c>\r\nDATA\r\nsmuggled";
        let sent = format!("A: b\r\n\r\nbody{almost}{smuggled}\r\n.\r\n");
        let message = delivered(sent.as_bytes()).await;
        let text = String::from_utf8_lossy(&message);
        assert!(
            text.starts_with("A: b\r\n\r\nbody") && text.ends_with(&format!("{smuggled}\r\n")),
            "{almost:?}: {text:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_message_leaves_none() {
    let server = start().await;
    let mut client = Client::in_data(server.address).await;
    client.send(b"A: b\r\n\r\nhalf of").await;
    drop(client);
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
}

#[tokio::test]
async fn a_message_too_large_is_read_to_its_end_and_refused() {
    let server = start().await;
    let mut client = Client::in_data(server.address).await;
    client.send(&vec![b'x'; 2 * usize::try_from(MAX_MESSAGE_SIZE).unwrap()]).await;
    client.send(b"\r\nQUIT\r\n.\r\n").await;
    client.play("S: 552 5.3.4\nC: MAIL FROM:<a@b.c>\nS: 250 2.1.0").await;
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
}

#[tokio::test]
async fn a_message_of_exactly_the_largest_size_is_taken() {
    let message = [&vec![b'x'; usize::try_from(MAX_MESSAGE_SIZE).unwrap() - 2][..], b"\r\n"].concat();
    assert_eq!(delivered(&[&message[..], b".\r\n"].concat()).await.len() as u64, MAX_MESSAGE_SIZE);
}

#[tokio::test]
async fn a_message_without_end_is_cut_off_and_told_why() {
    let server = start_with(|limits| limits.max_refused_octets = 300_000).await;
    let mut client = Client::in_data(server.address).await;
    let mut sent = 0;
    // The last writes may meet a connection that is gone already.
    while sent < 100_000_000 && client.try_send(&[b'x'; 10_000]).await.is_ok() {
        sent += 10_000;
    }
    assert!(sent < 100_000_000, "the server reads on for ever");
    client.play("S: 552 5.3.4").await;
    client.is_closed().await;
}

/// CRs in the header are withheld until what follows them is known; they count all the same.
#[tokio::test]
async fn endless_carriage_returns_in_the_header_are_cut_off() {
    let server = start_with(|limits| limits.max_refused_octets = 300_000).await;
    let mut client = Client::in_data(server.address).await;
    client.send(b"A: ").await;
    let mut sent = 0;
    while sent < 100_000_000 && client.try_send(&[b'\r'; 10_000]).await.is_ok() {
        sent += 10_000;
    }
    assert!(sent < 100_000_000, "the server reads on for ever");
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
}

#[tokio::test]
async fn a_sink_that_refuses_in_the_middle_has_the_last_word() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client.play("C: MAIL FROM:<a@b.c>\nS: 250\nC: RCPT TO:<full@b.c>\nS: 250\nC: DATA\nS: 354").await;
    client.send(&vec![b'x'; 90_000]).await;
    // The rest is read and dropped: none of it is a command.
    client.send(b"\r\nMAIL FROM:<a@b.c>\r\n.\r\n").await;
    client.play("S: 452 4.3.1 Disk is full\nC: MAIL FROM:<a@b.c>\nS: 250 2.1.0").await;
    assert_eq!(server.recorder.messages(1).await, [Event::Dropped]);
}
