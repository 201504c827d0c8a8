//! The way out: through an HTTP proxy for mail and tokens, and from an address of the administrator's choosing.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Client, RECIPIENT, Relay, World, binary, message};

const PASSWORD: &str = "hunter2-of-the-proxy";
const SMTP_PROXY: &str = "XOAUTH2_RELAY__TENANT__CONTOSO__SMTP_PROXY";
const HTTPS_PROXY: &str = "XOAUTH2_RELAY__TENANT__CONTOSO__HTTPS_PROXY";

/// A proxy that tunnels to wherever it is asked on this machine, as long as it is not told to refuse.
struct TestProxy {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    /// The status of its answers; 0: tunnels.
    refusing: AtomicU16,
}

impl TestProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn url_with_password(&self) -> String {
        format!("http://relay:{PASSWORD}@{}", self.address)
    }

    fn refuse(&self, status: u16) {
        self.seen.refusing.store(status, Ordering::SeqCst);
    }

    /// The ports it was asked for.
    fn ports(&self) -> Vec<u16> {
        let requests = self.seen.requests.lock().unwrap();
        let target = |request: &String| request.split([' ', ':']).nth(2).unwrap().parse().unwrap();
        requests.iter().map(target).collect()
    }
}

async fn serve(mut near: TcpStream, seen: Arc<Seen>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(octet) = near.read_u8().await else { return };
        request.push(octet);
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).expect("CONNECT alone");
    let target = target.to_owned();
    seen.requests.lock().unwrap().push(request);
    let status = seen.refusing.load(Ordering::SeqCst);
    if status != 0 {
        let _ = near.write_all(format!("HTTP/1.1 {status} By order\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    if near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}

/// The relay of `world` with variables in its environment.
async fn relay_with(world: &World, environment: &[(&str, String)]) -> Relay {
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.configuration());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Relay::spawn(command).await
}

async fn submit(relay: &Relay, name: &str) {
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
}

fn authority_port(world: &World) -> u16 {
    world.sandbox.authority().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap()
}

async fn output(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_and_tokens_go_through_a_proxy_whose_password_nobody_sees() {
    let world = World::new().await.set("log", "level = \"trace\"");
    let proxy = TestProxy::start().await;
    let environment = [SMTP_PROXY, HTTPS_PROXY].map(|name| (name, proxy.url_with_password()));
    let relay = relay_with(&world, &environment).await;
    submit(&relay, "tunnelled").await;
    world.wait_for(1).await;
    assert_eq!(proxy.ports(), [authority_port(&world), world.sandbox.smtp_port()]);
    let coded = STANDARD.encode(format!("relay:{PASSWORD}"));
    let login = format!("proxy-authorization: basic {}", coded.to_ascii_lowercase());
    for request in proxy.seen.requests.lock().unwrap().iter() {
        assert!(request.to_ascii_lowercase().contains(&login), "{request}");
    }
    let mut shown = String::new();
    for arguments in [&["status", "--json"][..], &["check"], &["check", "--json"]] {
        let mut command = binary();
        command.args(arguments).arg("--config").arg(world.path("xoauth2-relay.toml")).envs(environment.clone());
        shown += &output(command).await;
    }
    assert!(shown.contains(&format!("smtp_proxy = \"{}\"", proxy.url())), "{shown}");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    shown += &log;
    for secret in [PASSWORD, coded.as_str(), &coded[8..24]] {
        assert!(!shown.contains(secret), "{secret} in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environments_proxy_is_for_tokens_alone_and_not_for_hosts_that_are_excluded() {
    let world = World::new().await;
    let proxy = TestProxy::start().await;
    let relay = relay_with(&world, &[("HTTPS_PROXY", proxy.url())]).await;
    submit(&relay, "tokens").await;
    world.wait_for(1).await;
    assert_eq!(proxy.ports(), [authority_port(&world)]);
    relay.terminate().await;
    let environment = [("HTTPS_PROXY", proxy.url()), ("NO_PROXY", "localhost,127.0.0.1".to_owned())];
    let relay = relay_with(&world, &environment).await;
    submit(&relay, "excluded").await;
    world.wait_for(2).await;
    relay.terminate().await;
    // What the HTTP library would read by itself.
    let environment = [("ALL_PROXY", proxy.url()), ("all_proxy", proxy.url())];
    let relay = relay_with(&world, &environment).await;
    submit(&relay, "not ours").await;
    world.wait_for(3).await;
    assert_eq!(proxy.ports().len(), 1, "nothing more came to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_told_with_its_words_and_costs_no_mail() {
    let world = World::new().await;
    let proxy = TestProxy::start().await;
    proxy.refuse(407);
    let relay = relay_with(&world, &[(SMTP_PROXY, proxy.url())]).await;
    submit(&relay, "waits").await;
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    let said = format!(
        "cannot connect to localhost:{} through the proxy {}: it answered \\\"HTTP/1.1 407 By order\\\"; it wants a user and password",
        world.sandbox.smtp_port(),
        proxy.url()
    );
    assert!(line.contains(&said), "{line}");
    proxy.refuse(0);
    world.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_the_token_endpoint_is_named() {
    let world = World::new().await;
    let proxy = TestProxy::start().await;
    proxy.refuse(403);
    let relay = relay_with(&world, &[(HTTPS_PROXY, proxy.url())]).await;
    submit(&relay, "waits").await;
    let line = relay.log().wait_for(|line| line.contains("token request failed"));
    assert!(line.contains(&format!(" through the proxy {}: ", proxy.url())), "{line}");
    assert!(line.contains("let its rules allow that host and port"), "{line}");
    assert_eq!(world.sandbox.counters().token_requests, 0);
}

/// A proxy that opened TLS itself would have a certificate of a CA that nobody named.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_behind_a_proxy() {
    let world = World::new().await;
    let proxy = TestProxy::start().await;
    let text = world.configuration_text();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("authority_ca_file")).collect();
    let configuration = world.path("without-ca.toml");
    std::fs::write(&configuration, text.join("\n")).unwrap();
    let mut command = binary();
    command.args(["run", "--config"]).arg(configuration).env(HTTPS_PROXY, proxy.url());
    let relay = Relay::spawn(command).await;
    let line = relay.log().wait_for(|line| line.contains("token request failed"));
    assert!(line.contains("invalid peer certificate"), "{line}");
    assert_eq!(proxy.ports(), [authority_port(&world)]);
    assert_eq!(world.sandbox.counters().token_requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_from_the_source_address() {
    let world = World::new().await;
    let upstream = world.sandbox.smtp_port();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = world.configuration_text().replace(&format!("port = {upstream}"), &format!("port = {port}"));
    let text = text.replace("[mailbox.scanner]", "source_address = \"127.0.0.2\"\n[mailbox.scanner]");
    let configuration = world.path("from.toml");
    std::fs::write(&configuration, text).unwrap();
    let relay = Relay::start(&configuration).await;
    submit(&relay, "from 127.0.0.2").await;
    let (mut near, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip(), "127.0.0.2".parse::<IpAddr>().unwrap());
    let mut far = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
    tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
    world.wait_for(1).await;
}
