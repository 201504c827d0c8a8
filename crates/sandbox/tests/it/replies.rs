//! Exchange's words to each command in each state (facts 1.2, 1.4, 1.5, 1.6), as transcripts.

use std::fmt::Write as _;

use crate::support::World;

async fn patient() -> World {
    World::with(|options| options.protocol_errors = 1_000).await
}

#[tokio::test]
async fn the_happy_path() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    client
        .play(
            "C: MAIL FROM:<scanner@contoso.com> SIZE=100 BODY=8BITMIME
             S: 250 2.1.0 Sender OK
             C: RCPT TO:<you@example.org> NOTIFY=FAILURE
             S: 250 2.1.5 Recipient OK
             C: DATA
             S: 354 Start mail input; end with <CRLF>.<CRLF>
             C: From: scanner@contoso.com
             C: Message-ID: <aKj2@maxwell>
             C:
             C: hello
             C: .
             S: 250 2.0.0 OK <aKj2@maxwell> [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]
             C: NOOP
             S: 250 2.0.0 OK
             C: RSET
             S: 250 2.0.0 Resetting
             C: QUIT
             S: 221 2.0.0 Service closing transmission channel",
        )
        .await;
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn before_hello_and_before_tls() {
    let world = patient().await;
    let mut client = world.connect().await;
    client
        .play(
            "C: unknown
             S: 500 5.3.3 Unrecognized command 'unknown' [..]
             C: MAIL FROM:<scanner@contoso.com>
             S: 503 5.5.2 Send hello first [..]
             C: STARTTLS
             S: 503 5.5.2 Send hello first [..]
             C: EHLO
             S: 501 5.5.4 Invalid domain name [..]
             C: HELO client.example
             S: 250 AM0PR04CA0042.outlook.office365.com Hello [127.0.0.1]
             C: MAIL FROM:<scanner@contoso.com>
             S: 451 5.7.3 STARTTLS is required to send mail [..]
             C: AUTH XOAUTH2
             S: 504 5.7.4 Unrecognized authentication type [..]
             C: RCPT TO:<you@example.org>
             S: 503 5.5.2 Need mail command [..]
             C: DATA
             S: 503 5.5.2 Need mail command [..]
             C: STARTTLS now
             S: 501 5.5.4 Invalid arguments [..]
             C: VRFY scanner
             S: 252 2.1.5 Cannot VRFY user
             C: HELP
             S: 214-This server supports the following commands:
             S: 214 HELO EHLO STARTTLS RCPT DATA RSET MAIL QUIT HELP AUTH BDAT",
        )
        .await;
}

#[tokio::test]
async fn mail_without_auth() {
    let world = patient().await;
    let mut client = world.secure().await;
    client
        .play(
            "C: MAIL FROM:<scanner@contoso.com>
             S: 530 5.7.57 Client not authenticated to send mail. [..]
             C: AUTH XOAUTH2 =
             S: 535 5.7.3 Authentication unsuccessful [..]
             C: MAIL FROM:<scanner@contoso.com>
             S: 530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful [..]
             C: STARTTLS
             S: 503 5.5.2 Bad sequence of commands [..]",
        )
        .await;
}

#[tokio::test]
async fn the_envelope() {
    let world = patient().await;
    let mut client = world.logged_in().await;
    client
        .play(
            "C: AUTH XOAUTH2
             S: 503 5.5.2 Bad sequence of commands [..]
             C: RCPT TO:<you@example.org>
             S: 503 5.5.2 Need mail command [..]
             C: MAIL FROM:<scanner@contoso.com> SIZE=157286401
             S: 552 5.3.4 Message size exceeds fixed maximum message size [..]
             C: MAIL FROM:scanner@contoso.com
             S: 501 5.5.4 Invalid arguments [..]
             C: MAIL FROM: <scanner@contoso.com>
             S: 501 5.5.4 Invalid arguments [..]
             C: MAIL FROM:<scanner@contoso.com> FOO=BAR
             S: 501 5.5.4 Invalid arguments [..]
             C: MAIL FROM:<scanner>
             S: 550 5.1.7 Invalid address [..]
             C: MAIL FROM:<>
             S: 250 2.1.0 Sender OK
             C: MAIL FROM:<scanner@contoso.com>
             S: 503 5.5.2 Sender already specified [..]
             C: DATA
             S: 503 5.5.2 Need rcpt command [..]
             C: RCPT TO:<you>
             S: 501 5.1.3 Invalid address [..]
             C: RCPT TO:<unknown@contoso.com>
             S: 550 5.1.1 User unknown [..]
             C: RCPT TO:<unknown@example.org>
             S: 250 2.1.5 Recipient OK
             C: BDAT 6 LAST
             S: 500 5.3.3 Unrecognized command 'BDAT' [..]
             // Exactly the six octets of the chunk are swallowed: the QUIT in it is content.
             C: QUIT
             C: RSET
             S: 250 2.0.0 Resetting
             C: MAIL FROM:<scanner@contoso.com> BODY=BINARYMIME
             S: 250 2.1.0 Sender OK
             C: RCPT TO:<you@example.org>
             S: 250 2.1.5 Recipient OK
             C: DATA
             S: 503 5.5.2 Bad sequence of commands [..]
             C: EHLO client.example
             S: 250-AM0PR04CA0042.outlook.office365.com Hello [127.0.0.1]",
        )
        .await;
}

#[tokio::test]
async fn recipient_limits() {
    let world = World::with(|options| options.tenants[0].mailboxes[0].recipient_limit = 250).await;
    let mut client = world.logged_in().await;
    client.say("MAIL FROM:<scanner@contoso.com>").await;
    let mut group = String::new();
    for i in 0..201 {
        write!(group, "RCPT TO:<{i}@one.example>\r\n").unwrap();
    }
    for i in 0..51 {
        write!(group, "RCPT TO:<{i}@two.example>\r\n").unwrap();
    }
    client.write(group).await;
    for i in 0..252 {
        let full = [200, 251].contains(&i);
        let expected = if full { "452 4.5.3 Too many recipients [..]" } else { "250 2.1.5 Recipient OK" };
        assert_eq!(client.reply().await, expected, "{i}");
    }
}

#[tokio::test]
async fn line_lengths_and_line_ends() {
    let world = patient().await;
    let mut client = world.secure().await;
    assert_eq!(client.say(&format!("NOOP {}", "x".repeat(2_043))).await, "250 2.0.0 OK");
    assert_eq!(client.say(&format!("NOOP {}", "x".repeat(2_044))).await, "500 5.5.2 Line too long [..]");
    let longest = format!("AUTH XOAUTH2 {}", "x".repeat(12_275));
    assert_eq!(client.say(&longest).await, "535 5.7.3 Authentication unsuccessful [..]");
    assert_eq!(client.say(&format!("{longest}x")).await, "500 5.5.2 Line too long [..]");
    assert_eq!(client.say("AUTH XOAUTH2").await, "334 ");
    assert_eq!(client.say(&"x".repeat(100_000)).await, "535 5.7.3 Authentication unsuccessful [..]");
    client.write("NOOP\nNOOP\r\n").await;
    assert_eq!(client.reply().await, "500 5.3.3 Unrecognized command '' [..]");
    assert_eq!(client.reply().await, "250 2.0.0 OK");
}

#[tokio::test]
async fn too_many_errors_end_the_session() {
    let world = World::new().await;
    let mut client = world.connect().await;
    for _ in 0..5 {
        assert_eq!(client.say("huh").await, "500 5.3.3 Unrecognized command 'huh' [..]");
    }
    let last = "421 4.7.0 Too many errors on this connection, closing transmission channel [..]";
    assert_eq!(client.say("huh").await, last);
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn an_idle_session_is_closed() {
    let world = World::with(|options| options.idle_timeout = std::time::Duration::from_millis(20)).await;
    let mut client = world.connect().await;
    assert_eq!(client.reply().await, "421 4.4.1 Connection timed out [..]");
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn a_session_is_closed_when_it_lasted_too_long() {
    let world = World::with(|options| options.session_limit = std::time::Duration::from_millis(20)).await;
    let mut client = world.connect().await;
    assert_eq!(client.reply().await, "421 4.4.1 Connection timed out [..]");
}

#[tokio::test]
async fn a_full_house_is_not_active() {
    let world = World::with(|options| options.max_connections = 1).await;
    let first = world.connect().await;
    let mut second = world.connect_silently().await;
    assert_eq!(second.reply().await, "421 4.3.2 Service not active");
    assert_eq!(second.line().await, None);
    drop(first);
    world.connections(0).await;
    world.connect().await;
}

#[tokio::test]
async fn the_tarpit_delays_errors_but_not_what_was_said_before() {
    let tarpit = std::time::Duration::from_millis(30);
    let world = World::with(|options| options.tarpit = tarpit).await;
    let mut client = world.connect().await;
    let started = std::time::Instant::now();
    client.write("NOOP\r\nhuh\r\nNOOP\r\n").await;
    assert_eq!(client.reply().await, "250 2.0.0 OK");
    assert_eq!(client.reply().await, "500 5.3.3 Unrecognized command 'huh' [..]");
    assert!(started.elapsed() >= tarpit);
    assert_eq!(client.reply().await, "250 2.0.0 OK");
}
