//! Through a proxy: the request asks for a tunnel, and what the proxy says is told with its name and the remedy.
//! That a token comes through one, with the certificate checked, is the end-to-end tests' matter, which have TLS.

use token_manager::{Application, FailureClass};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use crate::world::{World, endpoints, failure, http_through};

const NOBODY: &str = "https://login.invalid/tenant/oauth2/v2.0/token";

/// What a manager says of a proxy that answers so, and what the proxy was asked.
async fn said_of(answer: &'static str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shown = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        // Once the client has what it wants it may be gone.
        let _ = stream.write_all(answer.as_bytes()).await;
        String::from_utf8(request).unwrap()
    });
    let world = World::new().await;
    let application = Application {
        endpoints: endpoints(Url::parse(NOBODY).unwrap()),
        proxy: Some(shown.clone()),
        ..world.application()
    };
    let proxy = reqwest::Proxy::https(&shown).unwrap().basic_auth("relay", "hunter2");
    let manager = world.start_with(application, http_through(proxy));
    let (failure, _) = failure(&manager).await;
    assert_eq!(failure.class, FailureClass::Transient, "{failure}");
    let text = failure.to_string();
    assert!(!text.contains("hunter2") && !text.contains("cmVsYX"), "{text}");
    assert!(text.contains(&format!("login.invalid:443 through the proxy {shown}: ")), "{text}");
    (text, asked.await.unwrap())
}

#[tokio::test]
async fn a_tunnel_is_asked_for_and_nothing_told_in_clear() {
    let (_, asked) = said_of("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    assert!(asked.starts_with("CONNECT login.invalid:443 HTTP/1.1\r\nHost: login.invalid:443\r\n"), "{asked}");
    let fields = asked.to_ascii_lowercase();
    assert!(fields.contains("proxy-authorization: basic cmvsyxk6ahvudgvymg==\r\n"), "{asked}");
    assert!(!asked.contains("client_secret"), "{asked}");
}

#[tokio::test]
async fn what_a_proxy_says_is_told_with_the_remedy() {
    for (answer, remedy) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "let its rules allow that host and port"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "let its rules allow that host and port"),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy wants a user and password"),
        ("220 smtp.example.com ESMTP\r\n", "did not answer CONNECT with 200"),
        ("", "tunnel error: unexpected end of file"),
    ] {
        let (text, _) = said_of(answer).await;
        assert!(text.contains(remedy), "{answer:?}: {text}");
    }
}

#[tokio::test]
async fn a_proxy_whose_header_does_not_end_is_left() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
    let (text, _) = said_of(endless.leak()).await;
    assert!(text.contains("too long"), "{text}");
}
