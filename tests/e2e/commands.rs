//! The commands as a newcomer meets them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use crate::harness::{Client, RECIPIENT, World, binary, free_port, message};

fn output(args: &[&str]) -> (Option<i32>, String, String) {
    let output = binary().args(args).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_teaches() {
    let (code, said, _) = output(&["--help"]);
    assert_eq!(code, Some(0));
    for line in
        ["xoauth2-relay sandbox", "[tenant.contoso]", "xoauth2-relay check", "xoauth2-relay run", "Exit codes: 0"]
    {
        assert!(said.contains(line), "{line:?} is missing in\n{said}");
    }
    let (code, said, _) = output(&["--version"]);
    assert_eq!((code, said), (Some(0), format!("xoauth2-relay {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, _, said) = output(&["runn"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("run"), "{said}");
}

#[test]
fn the_sandbox_sends_one_message_down_the_whole_road() {
    let (code, said, complaint) = output(&["sandbox", "--send"]);
    assert_eq!(code, Some(0), "{said}{complaint}");
    for step in [
        "1. Simulated tenant up",
        "2. Relay listens",
        "250 2.0.0 Queued as 1-1",
        "4. Token fetched",
        "6. Exchange took",
    ] {
        assert!(said.contains(step), "{step:?} is missing in\n{said}");
    }
    assert_eq!(complaint, "");
}

/// A child that does not outlive a test that fails.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_shows_each_message_and_ends_with_ctrl_c() {
    let port = free_port().to_string();
    let child = binary().args(["sandbox", "--port", &port]).stdout(Stdio::piped()).spawn();
    let mut child = Guarded(child.unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let read_until = move |wanted: &str| {
        let mut read = String::new();
        while !read.contains(wanted) {
            read += &lines.next().unwrap_or_else(|| panic!("{wanted:?} did not come after\n{read}")).unwrap();
            read.push('\n');
        }
        (read, lines)
    };
    let greeting = tokio::task::spawn_blocking(move || read_until("Ctrl-C"));
    let (greeting, mut lines) = greeting.await.unwrap();
    for client in ["swaks --server", "curl -sS --url", "python3 -c"] {
        assert!(greeting.contains(client), "{greeting}");
    }
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    client.send(&[RECIPIENT], &message("shown")).await.unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("<shown@test.local>"));
        (line, lines)
    });
    let (shown, mut lines) = shown.await.unwrap();
    assert!(shown.unwrap().contains("message 1: from <scanner@contoso.com> to <someone@example.com>"));
    let kept = lines.next().unwrap().unwrap();
    let file = std::path::PathBuf::from(kept.trim().strip_prefix("as Exchange got it: ").unwrap());
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("\r\n\r\nThis is shown.\r\n"));
    // Its relay is looked at as any other is, by the configuration that it names.
    let mut words = greeting.split_whitespace().map(|word| word.trim_end_matches(';'));
    let configuration = words.find(|word| word.ends_with("/xoauth2-relay.toml")).unwrap().to_owned();
    let status = move || output(&["status", "--check", "--config", &configuration]);
    let (code, said, complaint) = tokio::task::spawn_blocking(status).await.unwrap();
    assert_eq!((code, said.as_str()), (Some(0), "healthy\n"), "{complaint}");
    std::process::Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap();
    let (status, rest) = tokio::task::spawn_blocking(move || {
        let rest: Vec<_> = lines.map(Result::unwrap).collect();
        (child.0.wait().unwrap(), rest.join("\n"))
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(rest.contains("took 1 message(s)"), "{rest}");
    assert!(!file.exists(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_takes_orders_while_it_runs() {
    let runtime = tempfile::TempDir::new().unwrap();
    let port = free_port();
    let command = |words: &[&str]| {
        let mut command = binary();
        command.args(["sandbox", "--port", &port.to_string()]).args(words).env("XDG_RUNTIME_DIR", runtime.path());
        command
    };
    let order = |words: &str| {
        let words: Vec<_> = std::iter::once("order").chain(words.split(' ')).collect();
        let output = command(&words).output().unwrap();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, said) = order("state");
    assert_eq!(code, Some(69));
    assert!(said.contains(&format!("no sandbox runs on port {port}")), "{said}");

    let mut sandbox = command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines().map(Result::unwrap);
    let greeting: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("The configuration in use")).collect();
    assert!(greeting.iter().any(|line| line.contains(&format!("--port {port} order help"))), "{greeting:?}");
    let status = greeting.iter().find_map(|line| line.split(" status --socket ").nth(1)).unwrap();

    let (code, said, _) = order("fault send-as-denied");
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = order("fault send-as-denyed");
    assert_eq!(code, Some(64));
    assert!(said.contains("did you mean `send-as-denied`?"), "{said}");
    assert!(order("waiting").1.contains("SendAsDenied"));
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    client.send(&[RECIPIENT], &message("denied")).await.unwrap();
    client.send(&[RECIPIENT], &message("taken")).await.unwrap();
    // One of the two meets the fault, whichever comes first; the relay's own log says so and the other arrives.
    let shown = lines.find(|line| line.contains("message 1: ")).unwrap();
    assert!(shown.contains("@test.local>"), "{shown}");
    assert!(!order("waiting").1.contains("SendAsDenied"), "it has struck");
    assert!(order("state").1.contains("messages: 1 kept"), "{}", order("state").1);
    let (code, said, complaint) = output(&["status", "--socket", status]);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.contains("SendAsDenied"), "{said}");

    std::process::Command::new("kill").args(["-INT", &sandbox.id().to_string()]).status().unwrap();
    assert_eq!(sandbox.wait().unwrap().code(), Some(0));
    assert_eq!(order("state").0, Some(69), "its socket went with it");
}

#[test]
fn what_is_unproven_is_listed() {
    let (code, said, _) = output(&["sandbox", "--unproven"]);
    assert_eq!(code, Some(0));
    for section in ["facts 0.10", "facts 1.4", "facts 4.3", "facts 8b"] {
        assert!(said.contains(section), "{section} is missing in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_prints_what_is_in_effect_without_the_secret() {
    let world = World::new().await;
    let path = world.configuration().display().to_string();
    let (code, said, complaint) = output(&["check", "--config", &path]);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.contains("[mailbox.scanner]") && said.contains("max_recipients = 500 "), "{said}");
    assert!(said.contains(&format!("# {path}:2:1")), "{said}");
    assert!(!said.contains(sandbox::DEFAULT_SECRET), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_speaks_json_for_programs() {
    let world = World::new().await;
    let path = world.configuration().display().to_string();
    let variable = "XOAUTH2_RELAY__MAILBOX__SCANNER__CONNECTIONS";
    let check = |value: &str| {
        let output = binary().args(["check", "--json", "--config", &path]).env(variable, value).output().unwrap();
        (output.status.code(), serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap())
    };
    let (code, said) = check("2");
    assert_eq!(code, Some(0), "{said}");
    let connections = &said["configuration"]["mailbox"]["scanner"]["connections"];
    assert_eq!(*connections, serde_json::json!({ "value": 2, "source": { "environment": variable } }));
    assert_eq!(said["configuration"]["listener"]["local"]["address"]["source"]["file"], path.as_str());
    let (code, said) = check("many");
    assert_eq!(code, Some(64));
    assert_eq!(said["mistakes"][0]["origin"], format!("environment variable {variable}"));
    assert_eq!(said["mistakes"][0]["key"], "mailbox.scanner.connections");
}

/// Nothing that commands write ends in a panic: 101 is no exit code of ours.
#[test]
fn a_reader_that_has_gone_or_a_full_disk_is_no_fault_of_ours() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for words in [&["check", "--example"][..], &["sandbox", "--unproven"], &["sandbox", "order"]] {
        assert_eq!(binary().args(words).stdout(full()).stderr(full()).status().unwrap().code(), Some(69), "{words:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(binary().args(words).stdout(writer).status().unwrap().code(), Some(0), "{words:?}");
    }
    let nowhere = ["check", "--config", "/nonexistent"];
    assert_eq!(binary().args(nowhere).stderr(full()).status().unwrap().code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
    let world = World::new().await;
    let path = world.configuration().display().to_string();
    let secret = world.path("secret");
    for (mode, right) in [(0o644, false), (0o660, false), (0o602, false), (0o600, true), (0o640, true), (0o400, true)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, complaint) = output(&["check", "--config", &path]);
        assert_eq!(code, Some(if right { 0 } else { 64 }), "{mode:o}: {complaint}");
        assert_eq!(complaint.contains(&format!("chmod 600 {}", secret.display())), !right, "{complaint}");
        assert_eq!(complaint.contains("not only its owner can write"), matches!(mode, 0o660 | 0o602), "{complaint}");
    }
    // It may come later: mail is held until then, not refused.
    std::fs::remove_file(&secret).unwrap();
    let (code, _, complaint) = output(&["check", "--config", &path]);
    assert_eq!(code, Some(0));
    assert!(complaint.starts_with("warning: tenant.contoso.client_secret: "), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn livez_answers() {
    let world = World::new().await;
    let port = free_port();
    let text = world
        .configuration_text()
        .replace("[http]\naddress = \"\"", &format!("[http]\naddress = \"127.0.0.1:{port}\""));
    let path = world.path("livez.toml");
    std::fs::write(&path, text).unwrap();
    let _relay = crate::harness::Relay::start(&path).await;
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    let said = said.await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nok\n"), "{said}");
}
