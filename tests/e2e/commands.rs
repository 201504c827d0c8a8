//! The commands as a newcomer meets them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use crate::harness::{Client, RECIPIENT, World, binary, free_port, message, peer, skip};

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

/// `hash-password` with `input` on standard input.
fn hash_password(input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hashed_password_is_one_line_that_the_configuration_takes() {
    let (code, hash, complaint) = hash_password(b"correct horse\n");
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let hash = hash.strip_suffix('\n').unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !hash.contains('\n'), "{hash}");
    assert_ne!(hash_password(b"correct horse\n").1.trim_end(), hash, "each has a salt of its own");

    let world = World::new().await;
    let path = world.path("users.toml");
    let check = |hash: &str| {
        let user = format!("\n[user.erp]\npassword_hash = \"{hash}\"\n");
        std::fs::write(&path, world.configuration_text() + &user).unwrap();
        output(&["check", "--config", &path.display().to_string()])
    };
    let (code, said, complaint) = check(hash);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.contains("$argon2id$v=19$m=19456,t=2,p=1$hidden$hidden"), "{said}");
    let (salt, _) = hash.rsplit_once('$').unwrap();
    assert!(!said.contains(salt), "{said}");
    let (code, _, complaint) = check("correct horse");
    assert_eq!(code, Some(64));
    assert!(complaint.contains("user.erp.password_hash: this is not an Argon2id hash"), "{complaint}");
    assert!(!complaint.contains("horse"), "{complaint}");
}

#[test]
fn a_password_that_no_login_could_carry_is_refused_and_not_repeated() {
    for (input, why) in [
        (&b""[..], "there is no password"),
        (b"\n", "there is no password"),
        (b"hunter\0hunter\n", "NUL"),
        (b"hunter\nhunter\n", "more than one line"),
    ] {
        let (code, said, complaint) = hash_password(input);
        assert_eq!((code, said.as_str()), (Some(64), ""), "{complaint}");
        assert!(complaint.contains(why) && !complaint.contains("hunter"), "{complaint}");
    }
    let (code, said, _) = output(&["hash-password", "hunter2"]);
    assert_eq!((code, said.as_str()), (Some(64), ""), "it is never taken from the command line");
}

/// Whether what is typed on `terminal` is shown.
fn shows_what_is_typed(terminal: &str) -> bool {
    let settings = std::process::Command::new("stty").args(["-F", terminal, "-a"]).output().unwrap();
    assert!(settings.status.success(), "{settings:?}");
    String::from_utf8_lossy(&settings.stdout).split_whitespace().any(|word| word == "echo")
}

/// A terminal is what `script` makes (util-linux).
#[test]
fn on_a_terminal_a_password_is_asked_twice_and_not_shown() {
    let found = std::process::Command::new("script").arg("--version").output();
    if !found.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux")) {
        return skip("script of util-linux is not installed");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let hash = folder.path().join("hash");
    let ask = |first: &str, second: &str| {
        let _ = std::fs::remove_file(&hash);
        let asked = format!("tty; {} hash-password > {}", env!("CARGO_BIN_EXE_xoauth2-relay"), hash.display());
        let mut command = std::process::Command::new("script");
        command.args(["--quiet", "--return", "--command", &asked, "/dev/null"]);
        let mut child = Guarded(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let (mut input, mut shown) = (child.0.stdin.take().unwrap(), child.0.stdout.take().unwrap());
        let mut screen = String::new();
        for (prompt, typed) in [("Password: ", first), ("Once more: ", second)] {
            while !screen.contains(prompt) {
                let mut octet = [0];
                assert_eq!(shown.read(&mut octet).unwrap(), 1, "{prompt:?} does not come after {screen:?}");
                screen.push(octet[0].into());
            }
            // It asks a moment before it hides the answer, which no person is quick enough to notice.
            let terminal = screen.lines().next().unwrap();
            while shows_what_is_typed(terminal) {
                std::thread::yield_now();
            }
            std::io::Write::write_all(&mut input, format!("{typed}\r").as_bytes()).unwrap();
        }
        shown.read_to_string(&mut screen).unwrap();
        let code = child.0.wait().unwrap().code();
        (code, screen, std::fs::read_to_string(&hash).unwrap())
    };
    let (code, screen, hash) = ask("hunter2", "hunter2");
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("[user.NAME]") && !screen.contains("hunter2"), "{screen}");
    assert!(hash.starts_with("$argon2id$") && hash.lines().count() == 1, "{hash}");
    let (code, screen, hash) = ask("hunter2", "hunter3");
    assert_eq!((code, hash.as_str()), (Some(64), ""), "{screen}");
    assert!(screen.contains("not the same") && !screen.contains("hunter"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_what_openssl_and_check_take() {
    let world = World::new().await;
    let shown = |name: &str| world.path(name).display().to_string();
    let (certificate, key) = (shown("tls.pem"), shown("tls.key"));
    let make = |more: &[&str]| {
        let files = ["self-signed", "--certificate", &certificate, "--private-key", &key];
        output(&[&files[..], more].concat())
    };
    let (code, said, complaint) = make(&["--name", "relay01.example.com", "--name", "10.1.2.3"]);
    assert_eq!(code, Some(0), "{complaint}");
    for line in [format!("certificate = {certificate:?}"), format!("private_key = {key:?}")] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert!(said.contains(&format!("Clients that verify certificates must be given {certificate}")), "{said}");

    // Neither is replaced by a slip.
    let before = std::fs::read(&key).unwrap();
    let (code, _, complaint) = make(&[]);
    assert_eq!(code, Some(64));
    assert!(complaint.contains(&format!("{key} is there already")) && complaint.contains("--force"), "{complaint}");
    assert_eq!(std::fs::read(&key).unwrap(), before);

    // As the daemon reads it; and what it says when the files do not go together.
    let listener = |certificate: &str, key: &str| {
        let tls = format!("tls = \"starttls\"\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
        let text = world.configuration_text().replace("[listener.local]\n", &format!("[listener.local]\n{tls}"));
        std::fs::write(world.path("tls.toml"), text).unwrap();
        output(&["check", "--config", &shown("tls.toml")])
    };
    let (code, _, complaint) = listener(&certificate, &key);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, complaint) = listener(&certificate, &key);
    assert_eq!(code, Some(64));
    assert!(complaint.contains(&format!("listener.local.private_key: everybody can read {key}")), "{complaint}");
    let (code, _, complaint) = listener(&key, &certificate);
    assert_eq!(code, Some(64));
    assert_eq!(complaint.matches("are certificate and private_key swapped?").count(), 2, "{complaint}");

    let openssl = |openssl: &std::path::Path, args: &[&str]| {
        let output = std::process::Command::new(openssl).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    let Some(program) = peer("openssl") else { return };
    let text = openssl(&program, &["x509", "-in", &certificate, "-noout", "-text"]);
    for part in [
        "Public-Key: (2048 bit)",
        "sha256WithRSAEncryption",
        "DNS:relay01.example.com, IP Address:10.1.2.3",
        "CA:FALSE",
        "TLS Web Server Authentication",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Given to a client as one to trust, it is trusted under its names.
    let by_name =
        ["verify", "-CAfile", &certificate, "-purpose", "sslserver", "-verify_hostname", "relay01.example.com"];
    openssl(&program, &[&by_name[..], &["-x509_strict", &certificate]].concat());
    openssl(&program, &["verify", "-CAfile", &certificate, "-verify_ip", "10.1.2.3", &certificate]);
    openssl(&program, &["pkey", "-in", &key, "-check", "-noout"]);
    let (code, _, complaint) = make(&["--force", "--key", "ecdsa", "--days", "90"]);
    assert_eq!(code, Some(0), "{complaint}");
    let text = openssl(&program, &["x509", "-in", &certificate, "-noout", "-text"]);
    assert!(text.contains("prime256v1") && text.contains("DNS:localhost"), "{text}");
    assert_eq!(listener(&certificate, &key).0, Some(0), "its key is its owner's alone again");
}

#[test]
fn self_signed_says_what_is_wrong_with_the_command_line_or_the_place() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key) = (file("tls.pem"), file("tls.key"));
    let nowhere = file("nowhere/tls.key");
    for (key, more, code, said) in [
        (&key, &["--name", "re lay"][..], 64, "neither a host name"),
        (&key, &["--days", "0"], 64, "--days"),
        (&key, &["--key", "dsa"], 64, "--key"),
        (&certificate, &[], 64, "name the same file"),
        (&nowhere, &["--key", "ecdsa"], 69, "is its directory there"),
    ] {
        let files = ["self-signed", "--certificate", &certificate, "--private-key", key];
        let (found, _, complaint) = output(&[&files[..], more].concat());
        assert_eq!(found, Some(code), "{complaint}");
        assert!(complaint.contains(said), "{said}: {complaint}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{said}: nothing is left");
    }
}
