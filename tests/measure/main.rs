//! Measures the built binary against the sandbox: messages a second accepted and delivered, memory, time to listening.
//! A first instrument, of one machine and one run; the benchmark beside Postfix takes its place.
//!
//! `cargo build --release && cargo run --release --example measure -- target/release/xoauth2-relay`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool for developers")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sandbox::{Action, BodyPolicy, DEFAULT_MAILBOX, Fault, Limits, Sandbox, SandboxOptions, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY: usize = 10 * 1024;

#[tokio::main]
async fn main() {
    let binary = std::env::args().nth(1).expect("the path of the binary to measure is the first argument");
    println!("binary: {} KiB", std::fs::metadata(&binary).unwrap().len() / 1024);
    for (connections, messages) in [(1, 2_000), (10, 20_000), (100, 20_000)] {
        round(&binary, connections, messages).await;
    }
}

/// One relay: accept all with the lane held, then start again and drain, then both at once.
async fn round(binary: &str, connections: usize, messages: usize) {
    let directory = tempfile::TempDir::new_in(".").unwrap();
    let bodies = BodyPolicy { keep_up_to: 0, keep_in_total: 0 };
    let options = SandboxOptions { limits: Limits::Off, bodies, ..SandboxOptions::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let configuration = configure(&sandbox, directory.path());
    sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let (relay, address, fresh) = start(binary, &configuration);
    let resident = memory(&relay, "VmRSS");
    let accepted = rate(messages, send(address, connections, messages)).await;
    let filled = memory(&relay, "VmHWM");
    end(relay);
    sandbox.clear_faults();
    let (relay, address, full) = start(binary, &configuration);
    let drained = rate(messages, wait(&sandbox, messages)).await;
    let both = async {
        send(address, connections, messages).await;
        wait(&sandbox, 2 * messages).await;
    };
    let through = rate(messages, both).await;
    println!(
        "{connections:>3} connections, {messages} messages of 10 KiB: accepted {accepted:.0}/s with the lane held, \
         drained {drained:.0}/s, through {through:.0}/s; resident {resident} KiB fresh, {filled} KiB at the peak of \
         accepting, {} KiB at the peak of sending; listening after {} ms empty, {} ms with {messages} queued",
        memory(&relay, "VmHWM"),
        fresh.as_millis(),
        full.as_millis(),
    );
    end(relay);
    assert!(sandbox.duplicates().is_empty());
    sandbox.stop().await;
}

fn configure(sandbox: &Sandbox, directory: &Path) -> std::path::PathBuf {
    let path = |name: &str| directory.join(name).display().to_string();
    std::fs::write(path("ca.pem"), sandbox.ca_pem()).unwrap();
    std::fs::write(path("secret"), sandbox::DEFAULT_SECRET).unwrap();
    std::fs::set_permissions(path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "[listener.local]\naddress = \"127.0.0.1:0\"\nmax_connections_per_client = 1000\n\
         [tenant.t]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = {:?} }}\n\
         authority = \"{}\"\nauthority_ca_file = {:?}\nsmtp = {{ host = \"localhost\", port = {}, ca_file = {:?} }}\n\
         [mailbox.m]\naddress = \"{DEFAULT_MAILBOX}\"\nconnections = 20\nmessages_per_minute = 1000000000\n\
         [spool]\ndirectory = {:?}\nmin_free_bytes = \"0 B\"\n[http]\naddress = \"\"\n[log]\nformat = \"json\"\n",
        sandbox::DEFAULT_TENANT_ID,
        sandbox::DEFAULT_CLIENT_ID,
        path("secret"),
        sandbox.authority(),
        path("ca.pem"),
        sandbox.smtp_port(),
        path("ca.pem"),
        path("state"),
    );
    let file = directory.join("relay.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Starts the relay; gives its address and the time until it listened.
fn start(binary: &str, configuration: &Path) -> (Child, SocketAddr, Duration) {
    let begun = Instant::now();
    let mut child =
        Command::new(binary).args(["run", "--config"]).arg(configuration).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("\"listening\"")).unwrap();
    let took = begun.elapsed();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = value["address"].as_str().unwrap().parse().unwrap();
    lines.find(|line| line.contains("\"ready\"")).unwrap();
    // The log must be read, or it would fill up.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address, took)
}

fn end(mut relay: Child) {
    Command::new("kill").args(["-TERM", &relay.id().to_string()]).status().unwrap();
    assert!(relay.wait().unwrap().success());
}

fn memory(relay: &Child, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn rate(messages: usize, work: impl Future<Output = ()>) -> f64 {
    let begun = Instant::now();
    work.await;
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let messages = messages as f64;
    messages / begun.elapsed().as_secs_f64()
}

async fn wait(sandbox: &Sandbox, messages: usize) {
    while sandbox.counters().messages < messages as u64 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn send(address: SocketAddr, connections: usize, messages: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> =
        (0..connections).map(|_| tokio::spawn(client(address, Arc::clone(&next), messages))).collect();
    for client in clients {
        client.await.unwrap();
    }
}

async fn client(address: SocketAddr, next: Arc<AtomicUsize>, messages: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    expect(&mut stream, "220").await;
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let body: Vec<u8> = line.iter().copied().cycle().take(BODY / line.len() * line.len()).collect();
    let content = [b"From: scanner@contoso.com\r\nSubject: x\r\n\r\n", &body[..], b".\r\n"].concat();
    let commands = format!("MAIL FROM:<{DEFAULT_MAILBOX}>\r\nRCPT TO:<someone@example.com>\r\nDATA\r\n");
    while next.fetch_add(1, Ordering::Relaxed) < messages {
        stream.write_all(commands.as_bytes()).await.unwrap();
        expect(&mut stream, "354").await;
        stream.write_all(&content).await.unwrap();
        expect(&mut stream, "250 2.0.0 Queued").await;
    }
}

/// Reads until the text has come; each of them ends a round trip here.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(text) {
        assert!(
            stream.read_buf(&mut said).await.unwrap() > 0,
            "the relay hung up after {:?}",
            String::from_utf8_lossy(&said)
        );
    }
}
