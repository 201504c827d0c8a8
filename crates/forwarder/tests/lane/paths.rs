//! The way to upstream: through a proxy by CONNECT, from an address, and what is said when it is none.

use std::net::IpAddr;
use std::time::Duration;

use forwarder::AddressFamily;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::proxy::TestProxy;
use crate::road::{Plan, lane_with, mail};
use crate::upstream::{Upstream, trusting_nobody, within};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn mail_goes_through_a_proxy_that_resolves_the_name() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let road = lane_with(upstream.address(), |plan| plan.endpoint.proxy = Some(proxy.way_with_login()));
    let sending = road.send(mail());
    let asked = proxy.asked().await;
    let target = format!("localhost:{}", upstream.address().port());
    assert_eq!(
        asked.request,
        format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic cmVsYXk6aHVudGVyMg==\r\n\r\n"
        )
    );
    asked.tunnel(upstream.address()).await;
    let mut session = upstream.logged_in().await;
    assert!(session.take().await.contains("page 1"));
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

#[tokio::test]
async fn a_name_that_only_the_proxy_knows_is_left_to_it() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.proxy = Some(proxy.way());
        plan.endpoint.host = "smtp.invalid".into();
    });
    let sending = road.send(mail());
    let asked = proxy.asked().await;
    assert!(asked.request.starts_with("CONNECT smtp.invalid:"), "{}", asked.request);
    assert!(!asked.request.contains("Authorization"), "{}", asked.request);
    drop(asked);
    assert!(sending.unreachable().await.contains("closed the connection"));
}

/// One packet, as a proxy sends it that has upstream's banner before the client is told of the tunnel.
#[tokio::test]
async fn a_banner_that_comes_with_the_proxys_answer_is_not_lost() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let road = lane_with(upstream.address(), |plan| plan.endpoint.proxy = Some(proxy.way()));
    let sending = road.send(mail());
    let joining = async {
        let mut asked = proxy.asked().await;
        let mut far = TcpStream::connect(upstream.address()).await.unwrap();
        let mut banner = String::new();
        while !banner.ends_with('\n') {
            banner.push(char::from(within(far.read_u8()).await.unwrap()));
        }
        asked.say(&format!("HTTP/1.1 200 OK\r\n\r\n{banner}")).await;
        asked.join(far);
    };
    let ((), mut session) = tokio::join!(joining, upstream.logged_in());
    session.take().await;
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

#[tokio::test]
async fn an_answer_that_comes_in_pieces_is_an_answer() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let road = lane_with(upstream.address(), |plan| plan.endpoint.proxy = Some(proxy.way()));
    let sending = road.send(mail());
    let mut asked = proxy.asked().await;
    let answer = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "long ".repeat(500));
    for piece in answer.as_bytes().chunks(7) {
        asked.say(std::str::from_utf8(piece).unwrap()).await;
        tokio::task::yield_now().await;
    }
    asked.join(TcpStream::connect(upstream.address()).await.unwrap());
    upstream.logged_in().await.take().await;
    assert_eq!(sending.outcomes().await, ["accepted: 250 2.0.0 OK <id@x> [Hostname=X]"]);
}

/// The proxy sees ciphertext alone, and upstream's certificate is upstream's.
#[tokio::test]
async fn certificates_are_checked_through_a_proxy_too() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.proxy = Some(proxy.way());
        plan.endpoint.tls = trusting_nobody();
    });
    let sending = road.send(mail());
    proxy.asked().await.tunnel(upstream.address()).await;
    let mut session = upstream.connected().await;
    session.say("220 upstream.test ready").await;
    session.answer("EHLO relay.test", "250-upstream.test Hello\r\n250 STARTTLS").await;
    session.answer("STARTTLS", "220 2.0.0 ready").await;
    let _ = session.handshake().await;
    let text = sending.unreachable().await;
    let (upstream, proxy) = (upstream.address().port(), proxy.port());
    assert!(
        text.starts_with(&format!("TLS with localhost:{upstream} through the proxy http://127.0.0.1:{proxy} failed: ")),
        "{text}"
    );
}

/// What is said of a proxy that answers so.
async fn said_of(answer: &str, change: impl FnOnce(&mut Plan)) -> String {
    let proxy = TestProxy::start().await;
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.proxy = Some(proxy.way_with_login());
        change(plan);
    });
    let sending = road.send(mail());
    let mut asked = proxy.asked().await;
    asked.say(answer).await;
    let text = sending.unreachable().await;
    assert!(!text.contains("hunter2") && !text.contains("cmVsYX"), "{text}");
    let start =
        format!("cannot connect to localhost:{} through the proxy {}: ", upstream.address().port(), proxy.way());
    text.strip_prefix(&start).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn what_a_proxy_says_is_told_with_the_remedy() {
    for (answer, said) in [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno,no",
            "it answered \"HTTP/1.1 403 Forbidden\"; let its rules allow CONNECT to that host and port: many allow port 443 only",
        ),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
            "it answered \"HTTP/1.1 407 Proxy Authentication Required\"; it does not take the user and password of smtp_proxy, or wants another scheme than Basic",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "it answered \"HTTP/1.1 502 Bad Gateway\"; it cannot reach upstream: look at its log, its name resolution and its firewall",
        ),
        (
            "HTTP/1.1 201 Created\r\n\r\n",
            "it answered \"HTTP/1.1 201 Created\"; only 200 opens a tunnel; is smtp_proxy an HTTP proxy that allows CONNECT?",
        ),
        (
            "220 smtp.example.com ESMTP\r\n",
            "it sent \"220 smtp.example.com ESMTP\", which is no answer of an HTTP proxy; is smtp_proxy the right host and port?",
        ),
        (
            "\u{0}\u{1}\u{2}garbage",
            "it sent \"\\0\\u{1}\\u{2}garbage\", which is no answer of an HTTP proxy; is smtp_proxy the right host and port?",
        ),
    ] {
        assert_eq!(said_of(answer, |_| {}).await, said);
    }
}

#[tokio::test]
async fn a_proxy_whose_header_does_not_end_is_left() {
    let long = "header of its answer is longer than 8192 octets; is smtp_proxy the right host and port?";
    let one = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
    assert!(said_of(&one, |_| {}).await.ends_with(long));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(1000));
    assert!(said_of(&many, |_| {}).await.ends_with(long));
}

#[tokio::test]
async fn a_proxy_that_hangs_is_not_waited_for_for_ever() {
    for answer in ["", "HTTP/1.1 200 OK\r\nVia: x\r\n"] {
        let said = said_of(answer, |plan| plan.endpoint.timeouts.greeting = SHORT).await;
        assert_eq!(said, "it did not answer CONNECT within 0.2 s; can it reach upstream?");
    }
}

#[tokio::test]
async fn a_proxy_that_drips_is_not_waited_for_for_ever() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.proxy = Some(proxy.way());
        plan.endpoint.timeouts.greeting = SHORT;
    });
    let sending = road.send(mail());
    let answer = b"HTTP/1.1 200 OK\r\n".iter().copied().chain(std::iter::repeat(b'x'));
    tokio::spawn(proxy.asked().await.drip(answer, SHORT / 20));
    assert!(sending.unreachable().await.ends_with("did not answer CONNECT within 0.2 s; can it reach upstream?"));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let (upstream, proxy) = (Upstream::start().await, TestProxy::start().await);
    let way = proxy.way();
    drop(proxy);
    let shown = way.to_string();
    let address = shown.trim_start_matches("http://").to_owned();
    let road = lane_with(upstream.address(), |plan| plan.endpoint.proxy = Some(way));
    let text = road.send(mail()).unreachable().await;
    assert!(
        text.ends_with(&format!(" through the proxy {shown}: {address}: Connection refused (os error 111)")),
        "{text}"
    );
}

#[tokio::test]
async fn connections_come_from_the_address_that_is_set() {
    let source: IpAddr = "127.0.0.2".parse().unwrap();
    let upstream = Upstream::start().await;
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.source_address = Some(source);
        plan.endpoint.address_family = AddressFamily::Any;
    });
    let _sending = road.send(mail());
    assert_eq!(upstream.connected().await.peer().ip(), source);
    // With a proxy it is of the connection to that.
    let proxy = TestProxy::start().await;
    let road = lane_with(upstream.address(), |plan| {
        plan.endpoint.source_address = Some(source);
        plan.endpoint.proxy = Some(proxy.way());
    });
    let _sending = road.send(mail());
    assert_eq!(proxy.asked().await.peer, source);
}

#[tokio::test]
async fn an_address_that_this_machine_does_not_have_is_told() {
    let upstream = Upstream::start().await;
    let change = |plan: &mut Plan| plan.endpoint.source_address = Some("192.0.2.1".parse().unwrap());
    let text = lane_with(upstream.address(), change).send(mail()).unreachable().await;
    assert!(
        text.ends_with(": this machine does not have the address 192.0.2.1 of source_address; set that to one that `ip address` shows, or remove it"),
        "{text}"
    );
}

#[tokio::test]
async fn an_upstream_without_address_of_the_family_is_told() {
    let upstream = Upstream::start().await;
    for (family, source, said) in [
        (
            AddressFamily::Any,
            Some("::1"),
            "127.0.0.1 has no IPv6 address that could be reached from source_address ::1; set that to an address of the other family, or remove it",
        ),
        (AddressFamily::Ipv6, None, "127.0.0.1 has no IPv6 address; address_family allows no other"),
    ] {
        let road = lane_with(upstream.address(), |plan| {
            plan.endpoint.host = "127.0.0.1".into();
            plan.endpoint.address_family = family;
            plan.endpoint.source_address = source.map(|source| source.parse().unwrap());
        });
        let text = road.send(mail()).unreachable().await;
        assert!(text.ends_with(said), "{text}");
    }
}
