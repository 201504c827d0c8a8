//! Clients that nobody here wrote: each sends a message that must arrive octet for octet.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{RECIPIENT, SENDER, World, peer, split};

/// A body with what goes wrong elsewhere: dots, a long line, a blank line, 8-bit text.
fn body() -> String {
    format!(".\r\n..dots\r\n.hidden\r\n{}\r\n\r\nGrüße aus Köln\r\n", "x".repeat(900))
}

fn header() -> String {
    format!(
        "From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: octets\r\nX-Folded: one\r\n\ttwo\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    )
}

/// Runs `client`, feeds it the message, and compares what arrived.
async fn delivers(world: World, mut client: Command, input: String) {
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let output = ran.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let taken = world.wait_for(1).await;
    let (found_header, found_body) = split(&taken[0]);
    assert_eq!(String::from_utf8_lossy(&found_body), body());
    assert!(found_header.contains(&header()), "the header only gains lines:\n{found_header}");
    assert_eq!(taken[0].reverse_path, SENDER);
    assert_eq!(taken[0].recipients[0].address, RECIPIENT);
    assert!(!taken[0].bare_lf && !taken[0].bare_cr);
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_delivers() {
    let Some(swaks) = peer("swaks") else { return };
    let world = World::new().await;
    let relay = world.relay().await;
    let mut client = Command::new(swaks);
    // swaks reads LF lines and writes CRLF, stuffs dots, and ends the last line itself.
    client.args(["--server", &relay.address.to_string(), "--from", SENDER, "--to", RECIPIENT, "--data", "-"]);
    let input = (header() + "\r\n" + &body()).replace("\r\n", "\n");
    delivers(world, client, input.trim_end().to_owned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_delivers() {
    let Some(curl) = peer("curl") else { return };
    let world = World::new().await;
    let relay = world.relay().await;
    let mut client = Command::new(curl);
    client.args(["--silent", "--show-error", "--url", &format!("smtp://{}", relay.address)]);
    client.args(["--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", "-"]);
    delivers(world, client, header() + "\r\n" + &body()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_delivers() {
    let Some(python) = peer("python3") else { return };
    let world = World::new().await;
    let relay = world.relay().await;
    let script = "import smtplib, sys\n\
        data = sys.stdin.buffer.read()\n\
        with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as client:\n\
        \x20   refused = client.sendmail(sys.argv[3], [sys.argv[4]], data, ['BODY=8BITMIME'])\n\
        \x20   assert not refused, refused\n";
    let mut client = Command::new(python);
    let (host, port) = (relay.address.ip().to_string(), relay.address.port().to_string());
    client.args(["-c", script, &host, &port, SENDER, RECIPIENT]);
    delivers(world, client, header() + "\r\n" + &body()).await;
}
