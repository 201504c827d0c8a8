//! As whom a message leaves: each of the four policies as Exchange sees it, octet for octet.

use std::sync::Arc;

use sandbox::Message;

use crate::harness::{Client, PATIENCE, Relay, field, until};
use crate::tenants::{Row, Submission, Tenants, connected, listener, row};

const ERP: &str = "erp@contoso.com";

/// A mailbox that may send as an alias, too, and a relay with one route of this policy.
async fn world(policy: &str) -> (Tenants, Relay) {
    let erp = Row {
        aliases: &["orders@contoso.com"],
        keys: "may_send_as = [\"orders@contoso.com\"]",
        ..row("contoso", "erp")
    };
    let world = Tenants::new(&[erp]).await;
    let route = format!("[[route]]\nname = \"only\"\nmailbox = [\"erp\"]\nsender = \"{policy}\"\n");
    let relay = world.relay(&(listener("lan", "") + &route)).await;
    (world, relay)
}

/// What a program of the nineties might write: 8-bit octets, dots, an endless line, blanks at ends, no final CRLF of its own.
fn body() -> Vec<u8> {
    let mut body = b"Gr\xfc\xdfe aus M\xfcnchen \r\n.\r\n..\r\n.leading dot\r\n\r\n".to_vec();
    body.extend(std::iter::repeat_n(b'x', 5000));
    body.extend_from_slice(b"\r\n\ttab \t\r\nFrom: root@erp01\r\nBcc: nobody\r\n\x00\x7f\xff\r\n");
    body
}

/// As it goes over the wire.
fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::new();
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

/// Submits a header, as it is, and the body; gives the last reply.
async fn submit(client: &mut Client, sender: &str, header: &str) -> String {
    let mut message = format!("{header}\r\n").into_bytes();
    message.extend_from_slice(&stuffed(&body()));
    // The client ends the last line itself.
    message.truncate(message.len() - 2);
    client.send_from(sender, &["a@c.example"], &message).await.unwrap().to_string()
}

/// Header behind our Received field, and body.
fn parted(message: &Arc<Message>) -> (String, Vec<u8>) {
    let octets = message.body.octets().unwrap();
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let header = String::from_utf8_lossy(&octets[..end + 2]).into_owned();
    assert!(header.starts_with("Received: from "), "{header}");
    let received = header.split_inclusive("\r\n").skip(1).take_while(|line| line.starts_with([' ', '\t']));
    let received = header.find('\n').unwrap() + 1 + received.map(str::len).sum::<usize>();
    (header[received..].to_owned(), octets[end + 4..].to_vec())
}

const REST: &str = "X-Mailer:   ERP  4.7   (old)\r\n\tfolded \r\nTo: a@c.example\r\nSUBJECT: =?iso-8859-1?Q?Gr=FC=DFe?= \r\n\
                    date: Sat, 21 Nov 2026 07:54:00 +0000\r\nMessage-Id: <1@test.local>\r\nX-Empty:\r\n";

/// Envelope, From and what follows of one message, and what they shall be upstream.
struct Case {
    sender: &'static str,
    fields: &'static str,
    envelope: &'static str,
    becomes: &'static str,
}

const fn case(sender: &'static str, fields: &'static str, envelope: &'static str, becomes: &'static str) -> Case {
    Case { sender, fields, envelope, becomes }
}

async fn each_becomes(policy: &str, cases: &[Case]) {
    let (world, relay) = world(policy).await;
    let mut client = connected(&relay, "lan", 2, None).await;
    for (number, Case { sender, fields, envelope, becomes }) in cases.iter().enumerate() {
        // Fields that are edited stand in the midst of those that are not.
        let (before, after) = REST.split_at(REST.find("To:").unwrap());
        let reply = submit(&mut client, sender, &format!("{before}{fields}{after}")).await;
        assert!(reply.starts_with("250"), "{fields}: {reply}");
        let messages =
            world.sandbox.wait_for(number as u64 + 1, PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
        let message = &messages[number];
        let (header, got) = parted(message);
        let (kept, added) = becomes.split_once("...").unwrap_or((becomes, ""));
        assert_eq!(header, format!("{before}{kept}{after}{added}"), "{sender} {fields}");
        assert_eq!(message.reverse_path, *envelope, "{fields}");
        assert!(got == body(), "{fields}: {:?}", String::from_utf8_lossy(&got));
    }
    assert_eq!(world.denials(), []);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_keeps_what_the_mailbox_may_send_as_and_rewrites_what_it_may_not() {
    each_becomes(
        "auto",
        &[
            case(
                "root@erp01",
                "From: \"ERP system\" <root@erp01>\r\n",
                ERP,
                "From: \"ERP system\" <erp@contoso.com>\r\n...Reply-To: ERP system <root@erp01>\r\n",
            ),
            case("root@erp01", "From: root@erp01\r\n", ERP, "From: erp@contoso.com\r\n...Reply-To: root@erp01\r\n"),
            // A Reply-To of its own is kept, and Bcc goes wherever it stands.
            case(
                "root@erp01",
                "Bcc: secret@c.example,\r\n second@c.example\r\nFrom: ERP <root@erp01>\r\nReply-To: desk@contoso.com\r\nBCC: x@y.example\r\n",
                ERP,
                "From: ERP <erp@contoso.com>\r\nReply-To: desk@contoso.com\r\n",
            ),
            case("orders@contoso.com", "From: Orders <Orders@Contoso.com>\r\nbcc:\r\n", "orders@contoso.com", "From: Orders <Orders@Contoso.com>\r\n"),
            // One of the two alone makes it foreign.
            case("root@erp01", "From: erp@contoso.com\r\n", ERP, "From: erp@contoso.com\r\n"),
            case(ERP, "From: root@erp01\r\n", ERP, "From: erp@contoso.com\r\n...Reply-To: root@erp01\r\n"),
            case("", "From: orders@contoso.com\r\n", ERP, "From: orders@contoso.com\r\n"),
            case(
                ERP,
                "From: erp@contoso.com\r\nSender: cron@erp01\r\n",
                ERP,
                "From: erp@contoso.com\r\nX-Original-Sender: cron@erp01\r\n",
            ),
            case(
                "root@erp01",
                "From: =?utf-8?B?R3LDvMOfZQ==?=\r\n <root@erp01>\r\n",
                ERP,
                "From: =?utf-8?B?R3LDvMOfZQ==?=\r\n <erp@contoso.com>\r\n...Reply-To: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= <root@erp01>\r\n",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrite_makes_every_sender_the_mailbox() {
    each_becomes(
        "rewrite",
        &[
            case(ERP, "From: \"ERP\" <erp@contoso.com>\r\n", ERP, "From: \"ERP\" <erp@contoso.com>\r\n"),
            case(
                "orders@contoso.com",
                "From: orders@contoso.com\r\n",
                ERP,
                "From: erp@contoso.com\r\n...Reply-To: orders@contoso.com\r\n",
            ),
            case(
                "",
                "From: root@erp01\r\nBcc: x@y.example\r\n",
                ERP,
                "From: erp@contoso.com\r\n...Reply-To: root@erp01\r\n",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_leaves_it_to_exchange_whose_denial_is_told_and_waits() {
    let (world, relay) = world("keep").await;
    let mut client = connected(&relay, "lan", 2, None).await;
    let header = format!("Bcc: x@y.example\r\nFrom: Orders <orders@contoso.com>\r\n{REST}");
    assert!(submit(&mut client, "orders@contoso.com", &header).await.starts_with("250"));
    let (header, got) = parted(&world.sandbox.wait_for(1, PATIENCE).await.unwrap()[0]);
    assert_eq!(header, format!("From: Orders <orders@contoso.com>\r\n{REST}"));
    assert!(got == body());
    let foreign = Submission::from("lan", "root@erp01", "foreign");
    assert_eq!(foreign.send(&relay).await.code(), 250);
    let line = relay.log().wait_for(|line| line.contains("not sent yet"));
    assert!(field(&line, "reply").contains("5.2.252") && !field(&line, "advice").is_empty(), "{line}");
    assert!(until(PATIENCE, || world.denials().len() == 1).await);
    assert_eq!((world.denials()[0].from.as_str(), world.denials()[0].login.as_str()), ("root@erp01", ERP));
    world.are_queued(1).await;
    // What is right goes on meanwhile.
    assert_eq!(Submission::from("lan", ERP, "right").send(&relay).await.code(), 250);
    world.carried(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keep_left_denied_is_sent_once_the_route_rewrites() {
    let (world, relay) = world("keep").await;
    assert_eq!(Submission::from("lan", "root@erp01", "denied").send(&relay).await.code(), 250);
    relay.log().wait_for(|line| line.contains("not sent yet"));
    let (status, _) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    world.let_time_pass();
    let _relay = world.relay(&(listener("lan", "") + "[[route]]\nname = \"only\"\nmailbox = [\"erp\"]\n")).await;
    world.carried(1).await;
    assert_eq!(world.sandbox.messages()[0].header_from, [ERP]);
    assert_eq!(world.denials().len(), 1, "the first alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn reject_refuses_the_envelope_at_rcpt_and_the_from_field_behind_the_dot() {
    let (world, relay) = world("reject").await;
    let mut client = connected(&relay, "lan", 2, None).await;
    assert_eq!(client.command("MAIL FROM:<root@erp01>").await.unwrap().code(), 250);
    let reply = client.command("RCPT TO:<a@c.example>").await.unwrap().to_string();
    assert!(reply.starts_with("550 5.7.1 Mail as root@erp01 is not taken here"), "{reply}");
    client.command("RSET").await.unwrap();
    for (sender, header) in [
        (ERP, "From: root@erp01\r\n"),
        (ERP, "From: erp@contoso.com, root@erp01\r\n"),
        (ERP, "From: erp@contoso.com\r\nSender: root@erp01\r\n"),
        ("", "From: root@erp01\r\n"),
    ] {
        let reply = submit(&mut client, sender, &format!("{header}{REST}")).await;
        assert!(reply.starts_with("550 5.7.1 Mail as root@erp01 is not taken here"), "{header}: {reply}");
    }
    let line = relay.log().wait_for(|line| line.contains("\"mail refused\""));
    assert!(field(&line, "remedy").contains("may_send_as"), "{line}");
    // The session goes on, and what the mailbox may send as leaves as it is.
    for (sender, from) in [(ERP, ERP), ("orders@contoso.com", ERP), (ERP, "orders@contoso.com"), ("", ERP)] {
        let reply = submit(&mut client, sender, &format!("From: <{from}>\r\n{REST}")).await;
        assert!(reply.starts_with("250"), "{reply}");
    }
    world.sandbox.wait_for(4, PATIENCE).await.unwrap();
    world.is_empty().await;
    assert_eq!(world.denials(), []);
    assert!(world.sandbox.messages().iter().all(|message| !message.reverse_path.is_empty()));
}
