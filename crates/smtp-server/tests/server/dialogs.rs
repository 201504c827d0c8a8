//! Whole dialogs: greeting, transactions, pipelining, and clients that are none.

use wire::Reply;

use crate::client::{Client, TO_DATA};
use crate::intake::{Event, start};
use crate::patient::{Hook, refusing};

#[tokio::test]
async fn banner_and_ehlo_say_who_we_are_and_what_we_offer() {
    let server = start().await;
    Client::connect(server.address)
        .await
        .play(
            "S: 220 relay.test ESMTP
             C: EHLO erp01
             S: 250-relay.test
             S: 250-PIPELINING
             S: 250-8BITMIME
             S: 250-ENHANCEDSTATUSCODES
             S: 250-DSN
             S: 250-SMTPUTF8
             S: 250-SIZE 100000
             S: 250 HELP",
        )
        .await;
}

#[tokio::test]
async fn a_whole_dialog_brings_one_message_with_its_envelope() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client
        .play(
            "C: HELO old-printer
             S: 250 relay.test
             C: MAIL FROM:<scan@contoso.com> SIZE=1000 BODY=8BITMIME
             S: 250 2.1.0
             C: RCPT TO:<anna@contoso.com>
             S: 250 2.1.5
             C: RCPT TO:<refused@contoso.com>
             S: 550 5.1.1
             C: DATA
             S: 354
             C: Subject: scan
             C:
             C: page 1
             C: .
             S: 250 2.0.0 OK queued
             C: QUIT
             S: 221 2.0.0",
        )
        .await;
    client.is_closed().await;
    let expected = [
        Event::Mail("old-printer scan@contoso.com 8bit".into()),
        Event::Rcpt("anna@contoso.com".into()),
        Event::Rcpt("refused@contoso.com".into()),
        Event::message("Subject: scan\r\n\r\npage 1\r\n"),
    ];
    assert_eq!(server.recorder.so_far(), expected);
}

#[tokio::test]
async fn what_a_client_asks_of_reports_reaches_the_intake_as_it_was_written() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client
        .play(
            "C: EHLO erp01
             S: 250-relay.test
             S: 250-
             S: 250-
             S: 250-
             S: 250-DSN
             S: 250-
             S: 250-
             S: 250 HELP
             C: MAIL FROM:<erp@contoso.com> RET=HDRS ENVID=4711+2Ba ENVID=4711
             S: 501 5.5.4
             C: MAIL FROM:<erp@contoso.com> RET=HDRS ENVID=4711+2Ba
             S: 250 2.1.0
             C: RCPT TO:<anna@contoso.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Anna+2Bx@contoso.com
             S: 250 2.1.5
             C: RCPT TO:<bob@contoso.com>
             S: 250 2.1.5
             C: RCPT TO:<bob@contoso.com> NOTIFY=SOMETIMES
             S: 501 5.5.4",
        )
        .await;
    let expected = [
        Event::Mail("erp01 erp@contoso.com ret HDRS id 4711+2Ba".into()),
        Event::Rcpt("anna@contoso.com notify SUCCESS,DELAY original rfc822;Anna+2Bx@contoso.com".into()),
        Event::Rcpt("bob@contoso.com".into()),
    ];
    assert_eq!(server.recorder.so_far(), expected);
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_their_order() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<refused@b.c>\r\nRCPT TO:<d@b.c>\r\nNOOP\r\nDATA\r\n").await;
    client
        .play(
            "S: 250-relay.test
             S: 250-
             S: 250-
             S: 250-
             S: 250-
             S: 250-
             S: 250-
             S: 250 HELP
             S: 250 2.1.0
             S: 550 5.1.1
             S: 250 2.1.5
             S: 250 2.0.0
             S: 354",
        )
        .await;
}

#[tokio::test]
async fn a_refused_sender_leaves_room_for_another() {
    let server = start().await;
    Client::greeted(server.address)
        .await
        .play(
            "C: MAIL FROM:<refused@b.c>
             S: 550 5.7.1 Not you
             C: RCPT TO:<d@b.c>
             S: 550 5.7.1 Not you
             C: RSET
             S: 250
             C: RCPT TO:<d@b.c>
             S: 503 5.5.1
             C: MAIL FROM:<a@b.c>
             S: 250 2.1.0",
        )
        .await;
}

/// RFC 5321 section 3.8: 421 is the last word, whoever says it.
#[tokio::test]
async fn a_421_of_the_intake_ends_the_session() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"MAIL FROM:<closing@b.c>\r\nRCPT TO:<d@b.c>\r\nDATA\r\n").await;
    client.play("S: 421 4.3.2").await;
    client.is_closed().await;
}

/// Also of the hooks behind MAIL, whatever stands behind the command in the same packet; said for a message, the rest of that
/// is read before.
#[tokio::test]
async fn a_421_of_any_hook_is_the_last_word() {
    let to_data: &[u8] = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nRCPT TO:<e@b.c>\r\nDATA\r\n";
    let message = [b"A: b\r\n\r\n", &vec![b'x'; 50_000][..], b"\r\n.\r\nMAIL FROM:<a@b.c>\r\nQUIT\r\n"].concat();
    for (hook, before) in [
        (Hook::Mail, &[][..]),
        (Hook::Rcpt, &["250"]),
        (Hook::Data, &["250", "250", "250"]),
        (Hook::Write, &["250", "250", "250", "354"]),
        (Hook::End, &["250", "250", "250", "354"]),
    ] {
        let server = refusing(hook, Reply::new(421, (4, 3, 2), "Service not active")).await;
        let mut client = Client::greeted(server.address).await;
        client.send(to_data).await;
        for code in before {
            client.play(&format!("S: {code}")).await;
        }
        if before.contains(&"354") {
            client.send(&message).await;
        }
        client.play("S: 421 4.3.2 Service not active").await;
        client.is_closed().await;
        let seen = server.until(|seen| seen.dropped == 1).await;
        assert!(seen.messages.is_empty(), "{hook:?}");
    }
}

#[tokio::test]
async fn any_other_refusal_leaves_the_session_as_it_is() {
    for (hook, replies) in [
        (Hook::Rcpt, "S: 250\nS: 452\nS: 452\nS: 452 4.3.1 Not now"),
        (Hook::Data, "S: 250\nS: 250\nS: 250\nS: 452"),
        (Hook::Write, "S: 250\nS: 250\nS: 250\nS: 354\nC: A: b\nC: RCPT TO:<f@b.c>\nC: .\nS: 452"),
        (Hook::End, "S: 250\nS: 250\nS: 250\nS: 354\nC: A: b\nC: .\nS: 452"),
    ] {
        let server = refusing(hook, Reply::new(452, (4, 3, 1), "Not now")).await;
        let mut client = Client::greeted(server.address).await;
        client.send(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nRCPT TO:<e@b.c>\r\nDATA\r\n").await;
        client.play(replies).await;
        client.play("C: RSET\nS: 250\nC: MAIL FROM:<a@b.c>\nS: 250 2.1.0").await;
    }
}

#[tokio::test]
async fn rset_forgets_the_recipients_asked_before() {
    let server = start().await;
    Client::greeted(server.address)
        .await
        .play(
            "C: MAIL FROM:<a@b.c>
             S: 250
             C: RCPT TO:<d@b.c>
             S: 250
             C: RSET
             S: 250 2.0.0
             C: DATA
             S: 503 5.5.1",
        )
        .await;
}

#[tokio::test]
async fn data_refused_by_the_intake_ends_the_transaction_and_not_the_session() {
    let server = start().await;
    Client::greeted(server.address)
        .await
        .play(
            "C: MAIL FROM:<a@b.c>
             S: 250
             C: RCPT TO:<nodata@b.c>
             S: 250
             C: DATA
             S: 452 4.3.1 No room now
             C: DATA
             S: 503 5.5.1
             C: MAIL FROM:<a@b.c>
             S: 250 2.1.0",
        )
        .await;
}

#[tokio::test]
async fn many_messages_go_over_one_connection() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    let mut expected = Vec::new();
    for number in 0..50 {
        client.play(TO_DATA).await;
        client.play(&format!("C: Subject: {number}\nC: .\nS: 250 2.0.0")).await;
        expected.push(Event::message(&format!("Subject: {number}\r\n")));
    }
    assert_eq!(server.recorder.messages(50).await, expected);
}

#[tokio::test]
async fn a_command_behind_the_final_dot_in_the_same_packet_is_answered() {
    let server = start().await;
    let mut client = Client::in_data(server.address).await;
    client.send(b"first\r\n.\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nDATA\r\n").await;
    client.play("S: 250 2.0.0\nS: 250 2.1.0\nS: 250 2.1.5\nS: 354").await;
    client.send(b"second\r\n.\r\nQUIT\r\n").await;
    client.play("S: 250 2.0.0\nS: 221").await;
    let expected = [Event::message("first\r\n"), Event::message("second\r\n")];
    assert_eq!(server.recorder.messages(2).await, expected);
}

#[tokio::test]
async fn octets_that_arrive_one_at_a_time_make_the_same_session() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    let dialog = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nDATA\r\n";
    for octet in dialog {
        client.send(&[*octet]).await;
    }
    client.play("S: 250\nS: 250\nS: 354").await;
    for octet in b"A: b\r\n\r\n..dot\r\n.\r\nQUIT\r\n" {
        client.send(&[*octet]).await;
    }
    client.play("S: 250 2.0.0\nS: 221").await;
    assert_eq!(server.recorder.messages(1).await, [Event::message("A: b\r\n\r\n.dot\r\n")]);
}

#[tokio::test]
async fn an_http_request_is_shown_the_door_before_its_headers_are_read() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@b.c>\r\nDATA\r\n").await;
    client.play("S: 554 5.5.1").await;
    client.is_closed().await;
    assert_eq!(server.recorder.so_far(), []);
}
