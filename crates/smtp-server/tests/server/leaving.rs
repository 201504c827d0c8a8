//! Clients that go while a hook works: what it held for them is free at once. And clients that only seem to have gone.

use smtp_server::session::Tls;

use crate::client::{Client, within};
use crate::encryption::certificate;
use crate::patient::{Hook, Running, start, waiting_at};

/// Sends what leads to a wait at `hook`, reading replies on the way.
async fn lead_to(hook: Hook, client: &mut Client) {
    client.play("C: MAIL FROM:<a@b.c>").await;
    if hook != Hook::Mail {
        client.play("S: 250\nC: RCPT TO:<d@b.c>").await;
        if hook != Hook::Rcpt {
            client.play("S: 250\nC: DATA").await;
            if hook != Hook::Data {
                client.play("S: 354").await;
                client.send(b"A: b\r\n\r\nhalf of").await;
            }
        }
    }
}

/// A session gives its place back once it has ended.
async fn is_empty(server: &Running) {
    within(async {
        while server.sessions.counts().open > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Lets every hook go on: each piece of a message waits for itself, and nobody knows in how many it comes.
async fn goes_on_to_the_end(server: &Running) {
    within(async {
        while server.seen().messages.is_empty() {
            server.go_on();
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_while_a_hook_works_frees_what_it_held_at_once() {
    for hook in [Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Write] {
        let server = waiting_at(hook).await;
        let mut client = Client::greeted(server.address).await;
        lead_to(hook, &mut client).await;
        server.waits().await;
        assert_eq!(server.seen().dropped, 0, "{hook:?}");
        drop(client);
        // Nobody lets the hook go on.
        server.until(|seen| seen.dropped == 1).await;
        is_empty(&server).await;
        assert!(server.seen().messages.is_empty());
    }
}

#[tokio::test]
async fn within_tls_too() {
    for hook in [Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Write] {
        let (config, trust) = certificate();
        let server = start(Some(hook), None, |profile, _| profile.tls = Tls::Implicit(config)).await;
        let mut client = Client::connect(server.address).await.encrypted(&trust).await;
        client.play("S: 220").await;
        lead_to(hook, &mut client).await;
        server.waits().await;
        drop(client);
        server.until(|seen| seen.dropped == 1).await;
        is_empty(&server).await;
    }
}

/// Whoever closes with something unread sends a reset.
#[tokio::test]
async fn a_client_that_is_cut_off_has_gone() {
    let server = waiting_at(Hook::Mail).await;
    let mut client = Client::connect(server.address).await;
    client.send(b"MAIL FROM:<a@b.c>\r\n").await;
    server.waits().await;
    drop(client);
    server.until(|seen| seen.dropped == 1).await;
}

#[tokio::test]
async fn a_piece_of_a_line_keeps_nothing() {
    let server = waiting_at(Hook::Rcpt).await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nDA").await;
    server.waits().await;
    client.send(b"TA").await;
    drop(client);
    server.until(|seen| seen.dropped == 1).await;
}

/// As `printf ... | nc` does. The message is longer than one read, so that its first pieces are written before its end has come.
#[tokio::test]
async fn a_client_that_has_sent_all_and_closed_its_side_is_served_to_the_end() {
    let body = [b"A: b\r\n\r\n", &vec![b'x'; 50_000][..], b"\r\n"].concat();
    let dialog = [b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nDATA\r\n", &body[..], b".\r\nQUIT\r\n"].concat();
    for hook in [Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Write, Hook::End] {
        let server = waiting_at(hook).await;
        let mut client = Client::connect(server.address).await;
        client.send(&dialog).await;
        client.close_its_side().await;
        server.waits().await;
        goes_on_to_the_end(&server).await;
        let said = String::from_utf8(client.rest().await).unwrap();
        let codes: Vec<&str> = said.lines().filter(|line| !line.starts_with("250-")).map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "221"], "{hook:?}");
        assert_eq!(server.seen().messages, std::slice::from_ref(&body), "{hook:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_too_soon_hears_what_was_said_before() {
    let server = waiting_at(Hook::Rcpt).await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"HELO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\n").await;
    server.waits().await;
    client.close_its_side().await;
    server.until(|seen| seen.dropped == 1).await;
    client.play("S: 250 relay.test\nS: 250 2.1.0").await;
    client.is_closed().await;
}

#[tokio::test]
async fn what_comes_while_a_hook_works_is_not_lost() {
    for hook in [Hook::Mail, Hook::Rcpt, Hook::Data] {
        let server = waiting_at(hook).await;
        let mut client = Client::greeted(server.address).await;
        client.play("C: MAIL FROM:<a@b.c>").await;
        if hook == Hook::Mail {
            server.waits().await;
        }
        client.send(b"RCPT TO:<d@b").await;
        client.send(b".c>\r\n").await;
        if hook == Hook::Rcpt {
            server.waits().await;
        }
        client.send(b"DA").await;
        client.send(b"TA\r").await;
        client.send(b"\n").await;
        server.waits().await;
        server.go_on();
        client.play("S: 250\nS: 250\nS: 354\nC: A: b\nC: .\nS: 250\nC: QUIT\nS: 221").await;
        assert_eq!(server.seen().messages, [b"A: b\r\n"]);
    }
}

#[tokio::test]
async fn what_comes_while_a_piece_of_the_message_is_written_is_not_lost() {
    let server = waiting_at(Hook::Write).await;
    let mut client = Client::greeted(server.address).await;
    lead_to(Hook::Write, &mut client).await;
    server.waits().await;
    client.send(b" it\r").await;
    client.send(b"\n.\r\nQUIT\r\n").await;
    goes_on_to_the_end(&server).await;
    client.play("S: 250\nS: 221").await;
    assert_eq!(server.seen().messages, [b"A: b\r\n\r\nhalf of it\r\n"]);
}

/// The final dot was sent: upstream may have the message, and what it said is to be written down.
#[tokio::test]
async fn the_end_of_a_message_is_never_given_up() {
    let server = waiting_at(Hook::End).await;
    let mut client = Client::greeted(server.address).await;
    lead_to(Hook::End, &mut client).await;
    client.send(b"\r\n.\r\n").await;
    server.waits().await;
    drop(client);
    server.go_on();
    server.until(|seen| seen.messages.len() == 1).await;
    is_empty(&server).await;
    assert_eq!(server.seen().dropped, 0);
}

/// What a stop does when its grace is over.
#[tokio::test]
async fn a_server_that_is_cut_drops_what_a_hook_held() {
    for hook in [Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Write, Hook::End] {
        let server = waiting_at(hook).await;
        let mut client = Client::greeted(server.address).await;
        lead_to(hook, &mut client).await;
        if hook == Hook::End {
            client.send(b"\r\n.\r\n").await;
        }
        server.waits().await;
        server.serving.abort();
        server.until(|seen| seen.dropped == 1).await;
        client.is_closed().await;
    }
}
