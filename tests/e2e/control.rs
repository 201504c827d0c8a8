//! The control socket and `status`: what they tell, whom they answer, and that nobody on it can harm the mail.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox::{Action, Fault, Stage};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::harness::{
    Client, PATIENCE, RECIPIENT, Relay, SENDER, World, binary, free_port, is_root, message, peer, skip,
};

const STATUS: &[u8] = b"{\"version\":1,\"request\":\"status\"}\n";

fn socket(world: &World) -> PathBuf {
    world.path("state/control.sock")
}

/// Runs a command to its end: exit code, standard output, standard error.
async fn output(mut command: Command) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `status` with the world's configuration.
async fn status(world: &World, options: &[&str]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.args(["status", "--config"]).arg(world.path("xoauth2-relay.toml")).args(options);
    output(command).await
}

async fn snapshot(world: &World) -> Value {
    let (code, said, complaint) = status(world, &["--json"]).await;
    assert_eq!(code, Some(0), "{complaint}");
    serde_json::from_str(&said).unwrap()
}

/// Asks again and again until the answer is as wanted: for what the log tells a moment before it is so.
async fn snapshot_when(world: &World, wanted: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let snapshot = snapshot(world).await;
            if wanted(&snapshot) {
                return snapshot;
            }
        }
    };
    timeout(PATIENCE, asked).await.expect("the status never became as wanted")
}

async fn submit(relay: &Relay, name: &str) {
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
}

/// Everything that the daemon says to `octets`, until it closes.
async fn told(path: &Path, octets: &[u8]) -> String {
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    stream.write_all(octets).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut said)).await.unwrap().unwrap();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_listener_lane_token_and_queue() {
    let world = World::new().await;
    let relay = world.relay().await;
    submit(&relay, "sent").await;
    world.wait_for(1).await;
    relay.log().wait_for(|line| line.contains("\"sent\""));
    let open = Client::connect(relay.address).await.unwrap();
    let snapshot = snapshot_when(&world, |snapshot| snapshot["queue"]["counts"]["messages"] == 0).await;
    assert_eq!(snapshot["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(snapshot["state"], "serving");
    assert_eq!(snapshot["pid"], relay.pid());
    let listener = &snapshot["listeners"][0];
    assert_eq!(listener["name"], "local");
    assert_eq!(listener["address"], relay.address.to_string());
    assert_eq!(listener["max_sessions"], 1000);
    assert!(listener["sessions"].as_u64() >= Some(1) && listener["accepted"].as_u64() >= Some(2), "{listener}");
    let lane = &snapshot["lanes"][0];
    assert_eq!((&lane["tenant"], &lane["mailbox"]), (&Value::from("contoso"), &Value::from("scanner")));
    assert_eq!((&lane["login"], &lane["trouble"]), (&Value::from(SENDER), &Value::Null));
    assert_eq!((&lane["sent_last_minute"], &lane["max_connections"]), (&Value::from(1), &Value::from(10)));
    let token = &snapshot["tokens"][0];
    assert_eq!((&token["tenant"], &token["state"]), (&Value::from("contoso"), &Value::from("fetched")));
    assert!(token["expires_at"].is_string(), "{token}");
    assert_eq!(snapshot["queue"]["problem"], Value::Null);
    assert_eq!(snapshot["last_errors"], Value::from(Vec::<Value>::new()));
    let (code, screen, _) = status(&world, &[]).await;
    assert_eq!(code, Some(0));
    for part in ["serving since", "All is well.", "127.0.0.1:", SENDER, "works", "fetched", "0 of 1000000 messages"] {
        assert!(screen.contains(part), "{part:?} is missing in\n{screen}");
    }
    assert!(screen.lines().count() <= 24, "{screen}");
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_a_wrong_secret_with_its_remedy_and_what_waits_for_it() {
    let world = World::new().await;
    std::fs::write(world.path("secret"), "wrong-but-still-secret\n").unwrap();
    let relay = world.relay().await;
    submit(&relay, "waits").await;
    relay.log().wait_for(|line| line.contains("lane waits for a token"));
    let snapshot = snapshot(&world).await;
    let token = &snapshot["tokens"][0];
    assert_eq!(token["state"], "failing");
    assert_eq!(token["last_failure"]["codes"][0], 7_000_215);
    assert!(token["last_failure"]["advice"].as_str().unwrap().contains("paste the secret's Value"), "{token}");
    let trouble = &snapshot["lanes"][0]["trouble"];
    assert_eq!((&trouble["kind"], &trouble["scope"]), (&Value::from("no_token"), &Value::from("tenant")));
    assert_eq!(snapshot["queue"]["counts"]["queued"], 1);
    assert_eq!(snapshot["lanes"][0]["queued"], 1);
    assert!(snapshot["queue"]["counts"]["oldest_accepted_at"].is_string(), "{snapshot}");
    let event = &snapshot["last_errors"][0];
    assert_eq!((&event["level"], &event["target"]), (&Value::from("WARN"), &Value::from("token_manager::refresher")));
    assert!(event["text"].as_str().unwrap().starts_with("token request failed tenant=\"contoso\""), "{event}");
    let (_, screen, _) = status(&world, &[]).await;
    assert!(screen.contains("! Tenant contoso gets no token, its mail waits: "), "{screen}");
    assert!(screen.contains("AADSTS7000215"), "{screen}");
    for text in [screen, snapshot.to_string()] {
        assert!(!text.contains("wrong-but-still-secret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_hears_what_is_wrong_and_harms_nothing() {
    let world = World::new().await;
    let relay = world.relay().await;
    let path = socket(&world);
    let mut noise = Vec::new();
    for number in 0..100_000_u32 {
        noise.extend_from_slice(&number.wrapping_mul(2_654_435_761).to_le_bytes());
    }
    for (octets, code) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "not_json"),
        (b"\0\xff\xfe\n", "not_json"),
        (b"{\"version\":1,\"request\":\"status\"", "not_json"),
        (b"{\"version\":3,\"request\":\"status\"}\n", "unknown_version"),
        (b"{\"version\":1,\"request\":\"statsu\"}\n", "unknown_request"),
        (b"{\"version\":1,\"request\":\"status\",\"force\":true}\n", "bad_request"),
        (b"{\"version\":1,\"request\":\"status\",\"parameters\":{\"x\":1}}\n", "bad_request"),
        (&b"[".repeat(60_000), "not_json"),
        (&b"x".repeat(1_000_000), "too_long"),
    ] {
        let said = told(&path, octets).await;
        let answer: Value = serde_json::from_str(said.lines().next().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {said:?} to {:?}", &octets[..octets.len().min(50)]));
        assert_eq!(answer["error"]["code"], code, "{said}");
        assert_eq!(answer["version"], 1, "{said}");
    }
    // Random octets have line ends at random places: whatever is said, each line is an answer.
    let said = told(&path, &noise[..60_000]).await;
    assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
    // An empty connection, and one that is cut in the middle of a request and of an answer.
    assert_eq!(told(&path, b"").await, "");
    for octets in [&STATUS[..10], STATUS] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(octets).unwrap();
    }
    let (code, _, complaint) = status(&world, &[]).await;
    assert_eq!(code, Some(0), "{complaint}");
    submit(&relay, "unharmed").await;
    world.wait_for(1).await;
    assert_eq!(relay.log().count(|line| line.contains("ERROR")), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_and_silent_ones_are_served_while_mail_flows() {
    const CLIENTS: usize = 1000;
    raise_descriptors();
    let world = World::new().await;
    let relay = world.relay().await;
    let path = socket(&world);
    // These stay in the middle of a request, or say nothing at all.
    let mut silent = Vec::new();
    for number in 0..24 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        if number % 3 > 0 {
            stream.write_all(&STATUS[..20]).await.unwrap();
        }
        silent.push(stream);
    }
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { ask_once(&path).await })
        })
        .collect();
    let address = relay.address;
    let mail = tokio::spawn(async move {
        for number in 0..20 {
            let mut client = Client::connect(address).await.unwrap();
            let reply = client.send(&[RECIPIENT], &message(&format!("mail{number}"))).await.unwrap();
            assert_eq!(reply.code(), 250);
        }
    });
    for client in clients {
        let answer: Value = serde_json::from_str(&client.await.unwrap()).unwrap();
        assert_eq!(answer["reply"]["state"], "serving", "{answer}");
    }
    mail.await.unwrap();
    world.wait_for(20).await;
    // Those who began hear why they are sent away; the others only cost a place until somebody needs it.
    for (_, mut stream) in silent.into_iter().enumerate().filter(|(number, _)| number % 3 > 0) {
        let mut said = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut said)).await.unwrap().unwrap();
        assert!(said.contains("\"code\":\"timeout\""), "{said:?}");
    }
    let (code, said, _) = status(&world, &["--check"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "healthy\n"));
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

/// One request; the backlog may be full for a moment.
async fn ask_once(path: &Path) -> String {
    let asked = async {
        let mut stream = loop {
            match tokio::net::UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        stream.write_all(STATUS).await.unwrap();
        let mut answer = String::new();
        stream.shutdown().await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(PATIENCE, asked).await.unwrap()
}

/// A thousand clients and what other tests have open at the same time.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_gets_nothing() {
    if !is_root() {
        return skip("only root can act as another user");
    }
    let Some(setpriv) = peer("setpriv") else { return };
    let world = World::new().await;
    let relay = world.relay().await;
    // Another user can reach the binary and the directory; what keeps it out is the socket alone.
    let copy = world.path("xoauth2-relay");
    std::fs::copy(binary().get_program(), &copy).unwrap();
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for (path, mode) in [(&copy, 0o755), (&world.path(""), 0o755), (&world.path("state"), 0o755)] {
        open(path, mode);
    }
    let ask = || {
        let mut command = Command::new(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).current_dir("/");
        command.arg(&copy).args(["status", "--socket"]).arg(socket(&world));
        output(command)
    };
    let (code, said, complaint) = ask().await;
    assert_eq!((code, said.as_str()), (Some(69), ""));
    assert!(complaint.contains("user 65534 may not use"), "{complaint}");
    assert_eq!(relay.log().count(|line| line.contains("was refused")), 0, "the kernel has kept it out");
    // Somebody opened the file to all: the daemon itself looks who asks.
    open(&socket(&world), 0o666);
    let (code, said, complaint) = ask().await;
    assert_eq!((code, said.as_str()), (Some(69), ""));
    assert!(complaint.contains("user 65534 may not use"), "{complaint}");
    relay.log().wait_for(|line| line.contains("may not use the control socket") && line.contains("\"uid\":65534"));
    // Root may always.
    assert_eq!(status(&world, &[]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_the_set_group_id_bit_lets_its_group_in() {
    if !is_root() {
        return skip("only root can act as another user");
    }
    let Some(setpriv) = peer("setpriv") else { return };
    let world = World::new().await;
    let directory = world.path("shared");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, None, Some(65533)).unwrap();
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let copy = world.path("xoauth2-relay");
    std::fs::copy(binary().get_program(), &copy).unwrap();
    // Everybody can reach the socket: what keeps others out is its file and the daemon alone.
    for (path, mode) in [(&copy, 0o755), (&world.path(""), 0o755), (&directory, 0o2755)] {
        open(path, mode);
    }
    let path = directory.join("control.sock");
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.configuration()).env("XOAUTH2_RELAY__CONTROL__SOCKET", &path);
    let relay = Relay::spawn(command).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let check = |groups: &[&str]| {
        let mut command = Command::new(&setpriv);
        command.arg("--reuid=65534").args(groups).current_dir("/");
        command.arg(&copy).args(["status", "--check", "--socket"]).arg(&path);
        output(command)
    };
    let (primary, other) = (["--regid=65533", "--clear-groups"], ["--regid=65532", "--clear-groups"]);
    let supplementary = ["--regid=65532", "--groups=65533"];
    for (groups, expected) in [(primary, Some(0)), (supplementary, Some(0)), (other, Some(69))] {
        let (code, said, _) = check(&groups).await;
        assert_eq!(code, expected, "{groups:?}: {said}");
    }
    assert_eq!(relay.log().count(|line| line.contains("was refused")), 0, "the kernel has kept it out");
    // Somebody opened the file to all: that it lets somebody in says nothing of his groups any more.
    open(&path, 0o666);
    for groups in [primary, supplementary, other] {
        let (code, said, _) = check(&groups).await;
        assert_eq!(code, Some(69), "{groups:?}: {said}");
    }
    relay
        .log()
        .wait_for(|line| line.contains("may not use the control socket") && line.contains("or 0660 for a group"));
    assert_eq!(status(&world, &["--socket", path.to_str().unwrap()]).await.0, Some(0), "root may always");
    open(&path, 0o660);
    assert_eq!(check(&primary).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_daemons_socket_is_replaced_and_an_orderly_stop_removes_it() {
    let world = World::new().await;
    world.relay().await.kill();
    let path = socket(&world);
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket(), "what a kill leaves behind");
    let (code, _, complaint) = status(&world, &[]).await;
    assert_eq!(code, Some(69));
    assert!(complaint.contains("no xoauth2-relay is running: nobody answers on"), "{complaint}");
    let relay = world.relay().await;
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(status(&world, &[]).await.0, Some(0));
    let (ended, log) = relay.terminate().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_queue_of_ones_own_is_counted_and_not_changed() {
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    submit(&relay, "waits").await;
    relay.terminate().await;
    let (code, said, complaint) = status(&world, &[]).await;
    assert_eq!((code, said.as_str()), (Some(69), ""));
    assert!(complaint.contains("no xoauth2-relay is running"), "{complaint}");
    assert!(complaint.contains("1 messages, 1 queued, 0 held, 0 damaged"), "{complaint}");
    world.relay().await.kill();
    let (_, _, complaint) = status(&world, &[]).await;
    assert!(complaint.contains("it was not closed in order"), "{complaint}");
    world.sandbox.clear_faults();
    let _relay = world.relay().await;
    world.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_answers_while_the_queue_opens_and_while_the_daemon_stops() {
    let world = World::new().await.set("shutdown", "grace = \"1m\"");
    world.relay().await.terminate().await;
    // Another program has the database for a moment.
    let database = rusqlite::Connection::open(world.path("state/queue.db")).unwrap();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.path("xoauth2-relay.toml"));
    let relay = Relay::spawn_unready(command);
    let path = socket(&world);
    let line = relay.log().wait_for(|line| line.contains("\"listening\""));
    // The next thing it makes.
    let answering = async {
        while UnixStream::connect(&path).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, answering).await.unwrap();
    let said = told(&path, STATUS).await;
    assert!(said.contains("\"state\":\"opening_queue\""), "{said}");
    let (code, said, _) = status(&world, &["--check"]).await;
    assert_eq!((code, said.as_str()), (Some(69), "not healthy: the queue is still being opened\n"));
    drop(database);
    relay.log().wait_for(|line| line.contains("\"ready\""));
    let address = crate::harness::field(&line, "address").parse().unwrap();
    let mut busy = Client::connect(address).await.unwrap();
    busy.begin(&[RECIPIENT]).await;
    relay.signal("TERM");
    relay.log().wait_for(|line| line.contains("\"stopping\""));
    snapshot_when(&world, |snapshot| snapshot["state"] == "stopping").await;
    let (code, said, _) = status(&world, &["--check"]).await;
    assert_eq!((code, said.as_str()), (Some(69), "not healthy: the daemon is stopping\n"));
    busy.write(&[message("last"), b"\r\n.\r\n".to_vec()].concat()).await.unwrap();
    assert_eq!(busy.reply().await.unwrap().code(), 250);
    let (ended, log) = relay.end().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_still_answers() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.path("xoauth2-relay.toml"));
    command.env("XOAUTH2_RELAY__SPOOL__DIRECTORY", world.path("other"));
    command.env("XOAUTH2_RELAY__CONTROL__SOCKET", socket(&world));
    let (code, _, log) = output(command).await;
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("another process answers on the control socket"), "{log}");
    assert_eq!(snapshot(&world).await["pid"], relay.pid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_cannot_be_made_is_told_with_its_remedy() {
    let world = World::new().await;
    let configuration = world.configuration();
    std::fs::write(world.path("file"), "precious").unwrap();
    for (path, expected) in [
        (world.path("file"), "is where the control socket belongs, but it is no socket"),
        (world.path("file/control.sock"), "cannot make the control socket"),
        (world.path(&"x".repeat(120)), "the system allows 107"),
    ] {
        let mut command = binary();
        command.args(["run", "--config"]).arg(&configuration).env("XOAUTH2_RELAY__CONTROL__SOCKET", &path);
        let (code, _, log) = output(command).await;
        assert_eq!(code, Some(69), "{log}");
        assert!(log.contains(expected) && log.contains("set [control] socket"), "{log}");
    }
    assert_eq!(std::fs::read_to_string(world.path("file")).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fails_for_what_a_restart_or_an_operator_must_cure_and_only_for_that() {
    let world = World::new().await.set("spool", "max_messages = 1");
    world.configuration();
    let (code, said, _) = status(&world, &["--check"]).await;
    assert_eq!(code, Some(69));
    assert!(said.starts_with("not healthy: no xoauth2-relay is running") && said.lines().count() == 1, "{said}");
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    let (code, said, _) = status(&world, &["--check"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "healthy\n"));
    submit(&relay, "stuck").await;
    relay.log().wait_for(|line| line.contains("lane stands still"));
    let (code, said, _) = status(&world, &["--check"]).await;
    assert_eq!(code, Some(69));
    assert!(said.starts_with("not healthy: no mail is taken: the queue is full: 1 messages are stored"), "{said}");
    assert!(said.contains("; mailbox scanner cannot send: ") && said.lines().count() == 1, "{said}");
    world.sandbox.clear_faults();
    world.wait_for(1).await;
    relay.log().wait_for(|line| line.contains("\"sent\""));
    snapshot_when(&world, |snapshot| snapshot["queue"]["problem"].is_null()).await;
    assert_eq!(status(&world, &["--check"]).await.0, Some(0));
    // A peer that never answers is not waited for forever by anybody else, and the socket is no SMTP port.
    let mut plain = UnixStream::connect(socket(&world)).unwrap();
    plain.write_all(b"EHLO x\r\n").unwrap();
    plain.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    plain.read_to_string(&mut said).unwrap();
    assert!(said.contains("not_json"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_takes_orders_in_a_directory_of_its_own_that_goes_with_it() {
    let runtime = tempfile::TempDir::new().unwrap();
    let directory = runtime.path().join("xoauth2-relay-sandbox");
    let port = free_port().to_string();
    let sandbox = |words: &[&str]| {
        let mut command = binary();
        command.args(["sandbox", "--port", &port]).args(words).env("XDG_RUNTIME_DIR", runtime.path());
        command
    };
    assert_eq!(output(sandbox(&["order", "state"])).await.0, Some(69));
    assert!(!directory.exists(), "whoever asks makes nothing");
    // Somebody has been there first, with a link to a directory that would do.
    std::os::unix::fs::symlink(tempfile::TempDir::new_in(runtime.path()).unwrap().keep(), &directory).unwrap();
    for words in [&[][..], &["order", "state"]] {
        let (code, _, complaint) = output(sandbox(words)).await;
        assert_eq!(code, Some(69), "{complaint}");
        assert!(complaint.contains("is no directory of this user alone"), "{complaint}");
    }
    std::fs::remove_file(&directory).unwrap();
    let mut running = sandbox(&[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
    // The rest is read too, so that nothing it says gets stuck.
    let (greeted, greeting) = tokio::sync::oneshot::channel();
    let reader = tokio::task::spawn_blocking(move || {
        let mut greeted = Some(greeted);
        for line in lines {
            if line.starts_with("The configuration in use")
                && let Some(greeted) = greeted.take()
            {
                greeted.send(()).unwrap();
            }
        }
    });
    timeout(PATIENCE, greeting).await.unwrap().unwrap();
    assert_eq!(output(sandbox(&["order", "state"])).await.0, Some(0));
    assert!(directory.join(format!("{port}.sock")).exists());
    let sent = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(sent.success());
    timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert!(!directory.exists(), "nothing is left behind");
}
