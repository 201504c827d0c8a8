//! Listeners of the real binary: certificates that change under sessions, both families at once, load balancers, names that
//! prove nothing, devices of old TLS, and room that is short.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, World, binary, field, free_port, message, split};

/// A certificate and key made by the command for it, moved into place as an administrator would.
fn make_certificate(world: &World) {
    let (certificate, key) = (world.path("new.pem"), world.path("new.key"));
    let mut command = binary();
    command.args(["self-signed", "--name", "localhost", "--certificate"]).arg(&certificate);
    command.arg("--private-key").arg(&key);
    assert!(command.output().unwrap().status.success());
    std::fs::rename(key, world.path("tls.key")).unwrap();
    std::fs::rename(certificate, world.path("tls.pem")).unwrap();
}

fn with_tls(world: World, tls: &str) -> World {
    make_certificate(&world);
    let (certificate, key) = (world.path("tls.pem"), world.path("tls.key"));
    let (certificate, key) = (certificate.display(), key.display());
    world.set("listener", format!("tls = {tls:?}\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\""))
}

/// A session by TLS from the first octet with a client that trusts the certificate in this file alone.
async fn encrypted(server: SocketAddr, certificate: &Path) -> std::io::Result<BufReader<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = versions.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = BufReader::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?);
    assert!(line(&mut session).await.starts_with("220 "));
    Ok(session)
}

async fn line(session: &mut BufReader<TlsStream<TcpStream>>) -> String {
    let mut line = String::new();
    timeout(PATIENCE, session.read_line(&mut line)).await.unwrap().unwrap();
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_up_while_sessions_go_on() {
    let world = with_tls(World::new().await, "implicit");
    let relay = world.relay().await;
    let old = world.path("old.pem");
    std::fs::copy(world.path("tls.pem"), &old).unwrap();
    let mut session = encrypted(relay.address, &old).await.unwrap();
    make_certificate(&world);
    let changed = world.path("tls.pem");
    tokio::task::block_in_place(|| {
        relay.log().wait_for(|line| line.contains("certificate") && line.contains("reloaded"))
    });
    encrypted(relay.address, &changed).await.unwrap();
    assert!(encrypted(relay.address, &old).await.is_err(), "the old certificate is shown no more");
    session.write_all(b"NOOP\r\n").await.unwrap();
    assert!(line(&mut session).await.starts_with("250 "));
    // Half of a rotation changes nothing.
    std::fs::write(world.path("tls.key"), "no key").unwrap();
    tokio::task::block_in_place(|| relay.log().wait_for(|line| line.contains("\"WARN\"") && line.contains("tls.key")));
    encrypted(relay.address, &changed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_wildcards_listen_on_one_port_and_each_has_its_clients() {
    let port = free_port();
    let world = World::new().await.set(
        "tables",
        format!("[listener.four]\naddress = \"0.0.0.0:{port}\"\n[listener.six]\naddress = \"[::]:{port}\""),
    );
    let relay = world.relay().await;
    for (number, address) in [([127, 0, 0, 1], port).into(), (Ipv6Addr::LOCALHOST, port).into()].into_iter().enumerate()
    {
        let address: SocketAddr = address;
        let mut client = Client::connect(address).await.unwrap();
        assert_eq!(client.send(&[RECIPIENT], &message(&format!("family-{number}"))).await.unwrap().code(), 250);
    }
    world.wait_for(2).await;
    let queued =
        |name: &str| relay.log().wait_for(|line| line.contains("\"message\":\"queued\"") && line.contains(name));
    assert_eq!(field(&queued("family-0"), "listener"), "four");
    assert_eq!(field(&queued("family-1"), "listener"), "six");
    assert_eq!(field(&queued("family-1"), "client"), "::1");
}

/// Writes `octets` first and reads to the end.
async fn says(server: SocketAddr, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(octets).await.unwrap();
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_load_balancer_the_client_is_who_the_header_says() {
    let listener = "networks = [\"10.1.2.0/24\"]\nproxy_protocol_from = [\"127.0.0.1\"]";
    let world = World::new().await.set("listener", listener);
    let relay = world.relay().await;
    let dialog = "EHLO erp\r\nMAIL FROM:<scanner@contoso.com>\r\nRCPT TO:<someone@example.com>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n";
    let proxied = |client: &str| format!("PROXY TCP4 {client} 10.1.2.200 4000 25\r\n{dialog}");
    let said = says(relay.address, proxied("10.1.2.3").as_bytes()).await;
    assert!(said.contains("250 2.0.0 Queued as"), "{said}");
    let (header, _) = split(&world.wait_for(1).await[0]);
    assert!(header.contains("[10.1.2.3]") && !header.contains("127.0.0.1"), "{header}");
    let said = says(relay.address, proxied("10.9.9.9").as_bytes()).await;
    assert!(said.starts_with("554 5.7.1 10.9.9.9"), "{said}");
    assert_eq!(says(relay.address, dialog.as_bytes()).await, "", "nobody knows who this is");
    relay.log().wait_for(|line| line.contains("no right PROXY header") && line.contains("send-proxy-v2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_any_login_is_taken_its_name_is_noted_and_its_password_is_not() {
    let world = World::new().await.set("listener", "authentication = \"accept-any\"");
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    // "\0copier\0hunter2"
    assert_eq!(client.command("AUTH PLAIN AGNvcGllcgBodW50ZXIy").await.unwrap().code(), 235);
    assert_eq!(client.send(&[RECIPIENT], &message("one")).await.unwrap().code(), 250);
    let queued = relay.log().wait_for(|line| line.contains("\"message\":\"queued\""));
    assert_eq!(field(&queued, "user"), "copier");
    world.wait_for(1).await;
}

/// One hello of TLS 1.0 without extensions.
const OLD_HELLO: &[u8] = b"\x16\x03\x01\0\x31\x01\0\0\x2d\x03\x01\
    0123456789abcdef0123456789abcdef\0\0\x04\0\x2f\0\x0a\x01\0\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_knows_old_tls_alone_is_told_of_with_the_remedy() {
    let world = with_tls(World::new().await, "implicit");
    let relay = world.relay().await;
    says(relay.address, OLD_HELLO).await;
    let told = relay.log().wait_for(|line| line.contains("no TLS session"));
    assert!(field(&told, "reason").contains("nothing newer than TLS 1.1"), "{told}");
    assert!(field(&told, "remedy").contains("tls = \"none\""), "{told}");
    // Not again for the same device within the minute.
    says(relay.address, OLD_HELLO).await;
    encrypted(relay.address, &world.path("tls.pem")).await.unwrap();
    assert_eq!(relay.log().count(|line| line.contains("no TLS session")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_stops_the_start_with_the_reason() {
    let world = with_tls(World::new().await, "starttls");
    let other = World::new().await;
    make_certificate(&other);
    std::fs::copy(other.path("tls.key"), world.path("tls.key")).unwrap();
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.configuration());
    let (status, log) = Relay::spawn_unready(command).end().await;
    assert_eq!(status.code(), Some(64), "{log}");
    assert!(log.contains("tls.key") && log.contains("tls.pem"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_said_at_mail_by_the_size_that_is_announced() {
    let world = World::new().await.set("spool", "max_bytes = \"36 MiB\"");
    // What is taken stays.
    world.sandbox.revoke(SENDER, sandbox::DEFAULT_CLIENT_ID).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let large = [message("large"), vec![b'x'; 4 << 20]].concat();
    assert_eq!(client.send(&[RECIPIENT], &large).await.unwrap().code(), 250);
    let reply = client.command("MAIL FROM:<scanner@contoso.com> SIZE=36000000").await.unwrap();
    assert_eq!((reply.code(), reply.text().contains("storage")), (452, true), "{reply}");
    let reply = client.command("MAIL FROM:<scanner@contoso.com> SIZE=1000").await.unwrap();
    assert_eq!(reply.code(), 250);
}
