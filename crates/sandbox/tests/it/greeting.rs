//! Banner, EHLO and HELO, STARTTLS (facts 1.1, 1.2).

use crate::support::World;

const HOST: &str = "AM0PR04CA0042.outlook.office365.com";

fn ehlo_list(changing: &str) -> String {
    [
        &format!("250-{HOST} Hello [127.0.0.1]"),
        "250-SIZE 157286400",
        "250-PIPELINING",
        "250-DSN",
        "250-ENHANCEDSTATUSCODES",
        &format!("250-{changing}"),
        "250-8BITMIME",
        "250-BINARYMIME",
        "250-CHUNKING",
        "250 SMTPUTF8",
    ]
    .join("\n")
}

#[tokio::test]
async fn the_banner_has_site_date_and_session_id() {
    let world = World::new().await;
    let client = world.connect().await;
    let start = format!("220 {HOST} Microsoft ESMTP MAIL Service ready at Wed, 14 Feb 2024 14:50:26 +0000 [");
    assert!(client.banner.starts_with(&start), "{}", client.banner);
    assert_eq!(client.session_id.len(), 16);
    assert!(client.session_id.bytes().all(|octet| octet.is_ascii_digit() || (b'A'..=b'F').contains(&octet)));
}

#[tokio::test]
async fn ehlo_lists_are_exact_before_and_inside_tls() {
    let world = World::new().await;
    let mut client = world.connect().await;
    assert_eq!(client.say("HELO client.example").await, format!("250 {HOST} Hello [127.0.0.1]"));
    for _ in 0..2 {
        assert_eq!(client.say("EHLO client.example").await, ehlo_list("STARTTLS"));
    }
    assert_eq!(client.say("STARTTLS").await, "220 2.0.0 SMTP server ready");
    let mut client = client.handshake(&world.sandbox).await;
    for _ in 0..2 {
        assert_eq!(client.say("EHLO client.example").await, ehlo_list("AUTH LOGIN XOAUTH2"));
    }
    assert_eq!(client.say("EHLO my_host").await, "501 5.5.4 Invalid domain name [..]");
}

#[tokio::test]
async fn the_session_starts_anew_inside_tls() {
    let world = World::new().await;
    let mut client = world.connect().await;
    client.say("EHLO client.example").await;
    client.say("STARTTLS").await;
    let mut client = client.handshake(&world.sandbox).await;
    client.play("C: MAIL FROM:<scanner@contoso.com>\nS: 503 5.5.2 Send hello first [..]").await;
}

#[tokio::test]
async fn what_is_pipelined_behind_starttls_is_discarded() {
    let world = World::new().await;
    let mut client = world.connect().await;
    client.say("EHLO client.example").await;
    client.write("STARTTLS\r\nNOOP\r\nEHLO injected.example\r\n").await;
    assert_eq!(client.reply().await, "220 2.0.0 SMTP server ready");
    let mut client = client.handshake(&world.sandbox).await;
    // The next thing said inside TLS is the answer to the next thing asked inside TLS.
    assert_eq!(client.say("RSET").await, "250 2.0.0 Resetting");
}

#[tokio::test]
async fn the_certificate_is_for_localhost_and_its_address() {
    let world = World::new().await;
    for name in ["localhost", "127.0.0.1"] {
        let mut client = world.connect().await;
        client.say("EHLO client.example").await;
        client.say("STARTTLS").await;
        assert_eq!(world.sandbox.smtp_host(), "localhost");
        client.handshake_as(&world.sandbox, name).await.unwrap();
    }
    let mut client = world.connect().await;
    client.say("EHLO client.example").await;
    client.say("STARTTLS").await;
    assert!(client.handshake_as(&world.sandbox, "smtp.office365.com").await.is_err());
}
