//! TLS: asked for and from the first octet, what was sent before it, and clients that cannot or do not.

use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use smtp_server::session::Tls;

use crate::client::{Client, within};
use crate::intake::{Event, LOAD_BALANCER, Running, SHORT, start, start_as};

/// A certificate for `relay.test`, and clients that trust it.
pub(crate) fn certificate() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.clone()], key.into()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}

async fn start_tls(kind: impl FnOnce(Arc<ServerConfig>) -> Tls) -> (Running, Arc<ClientConfig>) {
    let (server, trust) = certificate();
    (start_as(|profile, _| profile.tls = kind(server)).await, trust)
}

const A_MESSAGE: &str = "
    C: EHLO erp01
    S: 250-relay.test
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-ENHANCEDSTATUSCODES
    S: 250-DSN
    S: 250-SMTPUTF8
    S: 250-SIZE
    S: 250 HELP
    C: MAIL FROM:<erp@contoso.com>
    S: 250 2.1.0
    C: RCPT TO:<anna@contoso.com>
    S: 250 2.1.5
    C: DATA
    S: 354
    C: Subject: safe
    C: .
    S: 250 2.0.0
    C: QUIT
    S: 221
";

#[tokio::test]
async fn a_message_comes_through_starttls() {
    let (server, trust) = start_tls(Tls::RequireStartTls).await;
    let mut client = Client::greeted(server.address).await;
    client.play("C: MAIL FROM:<a@b.c>\nS: 530 5.7.0\nC: STARTTLS\nS: 220 2.0.0").await;
    let mut client = client.encrypted(&trust).await;
    client.play(A_MESSAGE).await;
    client.is_closed().await;
    let expected = [
        Event::Mail("erp01 erp@contoso.com by TLS".into()),
        Event::Rcpt("anna@contoso.com".into()),
        Event::message("Subject: safe\r\n"),
    ];
    assert_eq!(server.recorder.so_far(), expected);
}

#[tokio::test]
async fn a_message_comes_through_tls_from_the_first_octet() {
    let (server, trust) = start_tls(Tls::Implicit).await;
    let mut client = Client::connect(server.address).await.encrypted(&trust).await;
    client.play("S: 220 relay.test").await;
    client.play(A_MESSAGE).await;
    assert_eq!(server.recorder.messages(1).await, [Event::message("Subject: safe\r\n")]);
}

/// Somebody between client and server puts commands behind STARTTLS; answered within TLS they would pass for the client's.
#[tokio::test]
async fn what_came_behind_starttls_in_the_clear_is_forgotten() {
    let (server, trust) = start_tls(Tls::StartTls).await;
    let mut client = Client::greeted(server.address).await;
    client.send(b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@b.c>\r\nRCPT TO:<d@b.c>\r\nNOOP half a li").await;
    client
        .play(
            "S: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-STARTTLS\nS: 250 HELP\nS: 220 2.0.0",
        )
        .await;
    let mut client = client.encrypted(&trust).await;
    client.play("C: RCPT TO:<d@b.c>\nS: 503 5.5.1 Need MAIL before RCPT").await;
    client.play(A_MESSAGE).await;
    assert_eq!(server.recorder.so_far()[0], Event::Mail("erp01 erp@contoso.com by TLS".into()));
}

/// A hello of TLS 1.0, as a printer of 2008 sends it: one record, no extensions.
fn old_hello() -> Vec<u8> {
    let mut hello = vec![3, 1];
    hello.extend([7; 32]);
    // No session, two cipher suites (AES128-SHA and 3DES-SHA), no compression.
    hello.extend([0, 0, 4, 0, 0x2f, 0, 0x0a, 1, 0]);
    let len = u8::try_from(hello.len()).unwrap();
    [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len], &hello[..]].concat()
}

#[tokio::test]
async fn a_client_of_old_tls_hears_an_alert_and_the_intake_why() {
    for (kind, before) in [(Tls::Implicit as fn(_) -> Tls, ""), (Tls::StartTls, "S: 220\nC: STARTTLS\nS: 220")] {
        let (server, _) = start_tls(kind).await;
        let mut client = Client::connect(server.address).await;
        client.play(before).await;
        client.send(&old_hello()).await;
        // An alert, fatal.
        assert_eq!(client.rest().await[..6], [0x15, 3, 3, 0, 2, 2]);
        assert_eq!(server.recorder.noticed("127.0.0.1 Handshake").await, "127.0.0.1 HandshakeFailed(TooOld)");
    }
}

#[tokio::test]
async fn a_client_that_sends_no_tls_is_told_apart() {
    let (server, _) = start_tls(Tls::Implicit).await;
    let mut client = Client::connect(server.address).await;
    client.send(b"EHLO printer\r\n").await;
    client.rest().await;
    assert_eq!(server.recorder.noticed("127.0.0.1 Handshake").await, "127.0.0.1 HandshakeFailed(NoTls)");
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_told_apart() {
    let (server, _) = start_tls(Tls::Implicit).await;
    let (_, other_trust) = certificate();
    let name = rustls::pki_types::ServerName::try_from("relay.test").unwrap();
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    within(tokio_rustls::TlsConnector::from(other_trust).connect(name, stream)).await.unwrap_err();
    let notice = server.recorder.noticed("127.0.0.1 Handshake").await;
    assert!(notice.contains("CertificateRefused"), "{notice}");
}

#[tokio::test]
async fn a_client_that_says_nothing_on_an_encrypted_port_is_closed() {
    let (config, _) = certificate();
    let server = start_as(|profile, limits| {
        profile.tls = Tls::Implicit(config);
        limits.handshake_timeout = SHORT;
    })
    .await;
    let mut client = Client::connect(server.address).await;
    client.is_closed().await;
    assert_eq!(server.recorder.noticed("127.0.0.1 Handshake").await, "127.0.0.1 HandshakeFailed(TimedOut)");
}

/// Many a device tries TLS first, and the plain port again once that has failed.
#[tokio::test]
async fn a_client_that_speaks_tls_to_a_plain_port_is_closed_at_once() {
    let server = start().await;
    let mut client = Client::greeted(server.address).await;
    client.send(&old_hello()).await;
    client.is_closed().await;
    server.recorder.noticed("127.0.0.1 TlsInTheClear").await;
    Client::greeted(server.address).await.play("C: NOOP\nS: 250").await;
}

/// A load balancer sends its header and the client's first octets in one packet; those are the client's TLS.
#[tokio::test]
async fn a_hello_right_behind_a_proxy_header_begins_the_handshake() {
    let (server, trust) = start_tls(Tls::Implicit).await;
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 465\r\n";
    let client = Client::connect_from(LOAD_BALANCER, server.address).await.unwrap();
    let mut client = client.encrypted_behind(header, &trust).await;
    client.play("S: 220 relay.test").await;
    client.play(A_MESSAGE).await;
    assert_eq!(server.recorder.messages(1).await, [Event::message("Subject: safe\r\n")]);
}

/// What stands there in the clear is nobody's command.
#[tokio::test]
async fn commands_right_behind_a_proxy_header_are_no_commands_within_tls() {
    let (server, _) = start_tls(Tls::Implicit).await;
    let mut client = Client::connect_from(LOAD_BALANCER, server.address).await.unwrap();
    client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 465\r\nEHLO evil\r\nMAIL FROM:<evil@b.c>\r\n").await;
    client.rest().await;
    assert_eq!(server.recorder.noticed("192.0.2.1 Handshake").await, "192.0.2.1 HandshakeFailed(NoTls)");
    assert_eq!(server.recorder.so_far(), []);
}

#[tokio::test]
async fn strangers_cost_no_handshake() {
    let (server, _) = start_tls(Tls::Implicit).await;
    let mut stranger = Client::connect_from(crate::intake::STRANGER, server.address).await.unwrap();
    stranger.is_closed().await;
    assert_eq!(server.sessions.counts().admitted, 0);
}
