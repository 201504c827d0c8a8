//! Reloads of the real binary: what changes takes effect, what does not is left alone, and what is wrong changes nothing.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Limits, SandboxOptions};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{
    Client, PATIENCE, RECIPIENT, Relay, World, binary, field, free_port, message, until, write_secret,
};
use crate::lanes::{POOL, SECOND_MAILBOX, tenant};
use crate::systemd::handed_over;

/// Writes another configuration in one step, as an administrator's editor does.
fn write(world: &World, text: &str) {
    let new = world.path("new.toml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, world.path("xoauth2-relay.toml")).unwrap();
}

/// The world's configuration with more tables.
fn with(world: &World, tables: &str) -> String {
    format!("{}\n{tables}\n", world.configuration_text())
}

/// Runs a command of the binary with the world's configuration: exit code, standard output, standard error.
async fn run(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.args(arguments).arg("--config").arg(world.path("xoauth2-relay.toml"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Writes a configuration and has it taken up; panics unless it is.
async fn reload(world: &World, text: &str) -> String {
    write(world, text);
    let (code, said, complaint) = run(world, &["reload"]).await;
    assert_eq!(code, Some(0), "{complaint}");
    said
}

/// The same, refused: what is said of it.
async fn refuse(world: &World, text: &str) -> String {
    write(world, text);
    let (code, said, complaint) = run(world, &["reload"]).await;
    assert_eq!((code, said.as_str()), (Some(64), ""), "{complaint}");
    assert!(complaint.contains("nothing has changed"), "{complaint}");
    complaint
}

async fn status(world: &World) -> Value {
    let (code, said, complaint) = run(world, &["status", "--json"]).await;
    assert_eq!(code, Some(0), "{complaint}");
    serde_json::from_str(&said).unwrap()
}

async fn submit(address: SocketAddr, name: &str) {
    let mut client = Client::connect(address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
}

/// Asks until it is so; false when it never is.
async fn until_async(is_so: impl AsyncFn() -> bool) -> bool {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.is_ok()
}

fn hangups(relay: &Relay) -> usize {
    relay.log().count(|line| line.contains("\"who\":\"SIGHUP\""))
}

/// SIGHUP, and the line that says what came of it.
fn hang_up(relay: &Relay) -> String {
    let before = hangups(relay);
    relay.signal("HUP");
    relay.log().wait_for_another(before, |line| line.contains("\"who\":\"SIGHUP\""))
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Open files of the process.
fn files(relay: &Relay) -> usize {
    std::fs::read_dir(Path::new("/proc").join(relay.pid().to_string()).join("fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_keeps_everything_and_each_mistake_is_told_with_its_line() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut session = Client::connect(relay.address).await.unwrap();
    let text = with(&world, "[listener.lan]\naddress = \"nowhere\"\n[history]\nkep = \"30d\"");
    write(&world, &text);
    let line = |wanted: &str| text.lines().position(|line| line == wanted).unwrap() + 1;
    let places = [("listener.lan.address", line("address = \"nowhere\"")), ("history.kep", line("kep = \"30d\""))];
    let told = hang_up(&relay);
    assert!(told.contains("reload refused") && field(&told, "mistakes") == "2", "{told}");
    let (code, said, complaint) = run(&world, &["reload"]).await;
    assert_eq!((code, said.as_str()), (Some(64), ""), "{complaint}");
    let (code, json, _) = run(&world, &["reload", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["reloaded"]), (Some(64), &Value::from(false)));
    for (number, (key, line)) in places.into_iter().enumerate() {
        let place = format!("xoauth2-relay.toml:{line}:");
        relay.log().wait_for(|line| line.contains("\"ERROR\"") && line.contains(key) && line.contains(&place));
        assert!(complaint.contains(&place) && complaint.contains(key), "{complaint}");
        assert_eq!(json["mistakes"][number]["key"], key, "{json}");
    }
    assert_eq!(session.send(&[RECIPIENT], &message("old")).await.unwrap().code(), 250);
    submit(relay.address, "new").await;
    world.wait_for(2).await;
    std::fs::remove_file(world.path("xoauth2-relay.toml")).unwrap();
    assert!(hang_up(&relay).contains("reload refused"));
    submit(relay.address, "without-a-file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_go_move_and_change_names_while_sessions_go_on() {
    let world = World::new().await;
    let relay = world.relay().await;
    let (one, two) = (free_port(), free_port());
    let lan = |name: &str, port: u16| with(&world, &format!("[listener.{name}]\naddress = \"127.0.0.1:{port}\""));
    assert_eq!(reload(&world, &lan("lan", one)).await, "Reloaded. Changed:\n  listener.lan\n");
    let mut session = Client::connect(loopback(one)).await.unwrap();
    // Moved: who is there stays, who comes goes elsewhere.
    assert_eq!(reload(&world, &lan("lan", two)).await, "Reloaded. Changed:\n  listener.lan.address\n");
    assert!(TcpStream::connect(loopback(one)).await.is_err());
    assert_eq!(session.send(&[RECIPIENT], &message("moved")).await.unwrap().code(), 250);
    let mut other = Client::connect(loopback(two)).await.unwrap();
    let listeners = status(&world).await["listeners"].clone();
    let of_lan = listeners.as_array().unwrap().iter().find(|listener| listener["name"] == "lan").unwrap();
    assert_eq!((&of_lan["sessions"], &of_lan["is_closed"]), (&Value::from(2), &Value::from(false)), "{listeners}");
    // Another name for the same socket: it is never closed, and nobody in its backlog is lost. Who is there comes again.
    reload(&world, &lan("printers", two)).await;
    for client in [&mut session, &mut other] {
        assert_eq!(client.reply().await.unwrap().code(), 421);
    }
    let listening = format!("127.0.0.1:{two}");
    let closed = |line: &str| line.contains("no longer listening") && line.contains(&listening);
    submit(loopback(two), "renamed").await;
    let queued = relay.log().wait_for(|line| line.contains("\"message\":\"queued\"") && line.contains("renamed"));
    assert_eq!(field(&queued, "listener"), "printers");
    // Gone: who sends a message finishes it and is counted until then, also for one of the same name that comes back.
    let mut last = Client::connect(loopback(two)).await.unwrap();
    last.begin(&[RECIPIENT]).await;
    reload(&world, &world.configuration_text()).await;
    relay.log().wait_for(closed);
    assert!(TcpStream::connect(loopback(two)).await.is_err());
    let of_printers = async || {
        let listeners = status(&world).await["listeners"].clone();
        let mut listeners = listeners.as_array().unwrap().iter();
        listeners
            .find(|listener| listener["name"] == "printers")
            .map(|it| (it["is_closed"].clone(), it["sessions"].clone()))
    };
    assert_eq!(of_printers().await, Some((true.into(), 1.into())));
    reload(&world, &lan("printers", one)).await;
    assert_eq!(of_printers().await, Some((false.into(), 1.into())));
    reload(&world, &world.configuration_text()).await;
    last.write(&message("gone")).await.unwrap();
    last.write(b"\r\n.\r\n").await.unwrap();
    assert_eq!((last.reply().await.unwrap().code(), last.reply().await.unwrap().code()), (250, 421));
    assert!(until_async(async || of_printers().await.is_none()).await, "a listener without a session is still shown");
    submit(relay.address, "same").await;
    world.wait_for(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_refuses_the_whole_with_all_reasons_and_nothing_stays_open() {
    let world = World::new().await;
    let relay = world.relay().await;
    let (free, taken) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let taken_address = taken.local_addr().unwrap();
    // That opens a connection, too.
    relay.log().wait_for(|line| line.contains("token fetched"));
    let before = files(&relay);
    let text = with(
        &world,
        &format!(
            "[listener.lan]\naddress = \"127.0.0.1:{free}\"\n[listener.taken]\naddress = \"{taken_address}\"\n\
             [listener.wide]\naddress = \"0.0.0.0:{}\"",
            relay.address.port()
        ),
    );
    let told = refuse(&world, &text.replace("format = \"json\"", "format = \"json\"\nlevel = \"debug\"")).await;
    for part in [
        "listener.taken.address: cannot listen on",
        "another program has this port",
        &format!("listener.wide.address: 0.0.0.0:{} overlaps", relay.address.port()),
        "where listener local listens now",
        "a restart does it",
        "xoauth2-relay.toml:",
    ] {
        assert!(told.contains(part), "{part:?} is missing in {told}");
    }
    assert!(TcpStream::connect(loopback(free)).await.is_err(), "what was bound is closed");
    assert!(until(PATIENCE, || files(&relay) <= before).await, "{} files open, {before} before", files(&relay));
    submit(relay.address, "kept").await;
    assert_eq!(relay.log().count(|line| line.contains("\"DEBUG\"")), 0, "half of it was taken up");
    // Once the place is free it is taken.
    drop(taken);
    let text = with(&world, &format!("[listener.taken]\naddress = \"{taken_address}\""));
    reload(&world, &text).await;
    submit(taken_address, "had").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_daemon_cannot_change_is_refused_by_name() {
    let world = World::new().await;
    let relay = world.relay().await;
    let (old, new) = (world.path("state").display().to_string(), world.path("elsewhere").display().to_string());
    let text = world.configuration_text().replace(&old, &new).replace("format = \"json\"", "format = \"text\"");
    // The command would look for the daemon where the file says.
    write(&world, &text);
    assert!(hang_up(&relay).contains("reload refused"));
    for key in ["spool.directory", "control.socket", "log.format"] {
        let told = relay.log().wait_for(|line| line.contains("configuration mistake") && line.contains(key));
        assert!(told.contains("restart to change it"), "{told}");
    }
    assert!(!world.path("elsewhere").exists());
    submit(relay.address, "kept").await;
    world.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_changes_there_and_back() {
    let world = World::new().await;
    let relay = world.relay().await;
    let debug = || relay.log().count(|line| line.contains("\"DEBUG\""));
    submit(relay.address, "quiet").await;
    assert_eq!(debug(), 0);
    let text = world.configuration_text();
    reload(&world, &text.replace("format = \"json\"", "format = \"json\"\nlevel = \"debug\"")).await;
    submit(relay.address, "loud").await;
    relay.log().wait_for(|line| line.contains("\"DEBUG\"") && line.contains("session ended"));
    reload(&world, &text).await;
    world.wait_for(2).await;
    // What was written before is in the log by now: a line of our own comes behind it.
    let before = relay.log().count(|line| line.contains("nothing changed"));
    reload(&world, &text).await;
    relay.log().wait_for_another(before, |line| line.contains("nothing changed"));
    let loud = debug();
    submit(relay.address, "quiet-again").await;
    world.wait_for(3).await;
    assert_eq!(debug(), loud);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_systemd_stays_open_while_no_listener_has_it() {
    let world = World::new().await;
    let Some(mut command) = handed_over(&world, &["smtp=tcp"]) else { return };
    command.env_remove("XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS");
    let without = world.configuration_text();
    let text = without.replace("address = \"127.0.0.1:0\"", "address = \"systemd:smtp\"");
    write(&world, &text);
    let relay = Relay::spawn(command).await;
    submit(relay.address, "before").await;
    reload(&world, &without).await;
    relay.log().wait_for(|line| line.contains("a socket that no listener names"));
    // It waits in the backlog for whoever listens there next.
    let address = relay.address;
    let waiting = tokio::spawn(async move { submit(address, "waited").await });
    reload(&world, &text).await;
    waiting.await.unwrap();
    world.wait_for(2).await;
}

/// What `hash-password` makes of a password.
fn hashed(password: &str) -> String {
    let mut command = binary();
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{password}\n").as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

async fn log_in(address: SocketAddr, user: &str, password: &str) -> Client {
    let mut client = Client::connect(address).await.unwrap();
    let login = STANDARD.encode(format!("\0{user}\0{password}"));
    assert_eq!(client.command(&format!("AUTH PLAIN {login}")).await.unwrap().code(), 235);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_or_network_that_was_taken_away_may_send_nothing_more_in_an_open_session() {
    let world = World::new().await.set("listener", "authentication = \"optional\"\nnetworks = [\"127.0.0.0/8\"]");
    let (kept, gone, changed) = (hashed("one"), hashed("two"), hashed("three"));
    let user = |name: &str, hash: &str| format!("[user.{name}]\npassword_hash = \"{hash}\"\n");
    let users = [user("kept", &kept), user("gone", &gone), user("changed", &changed)].concat();
    let world = world.set("tables", users.clone());
    let relay = world.relay().await;
    let mut sessions = Vec::new();
    for (name, password) in [("kept", "one"), ("gone", "two"), ("changed", "three")] {
        sessions.push(log_in(relay.address, name, password).await);
    }
    let mut far = Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), relay.address).await.unwrap();
    // A transaction that has begun ends as it began.
    sessions[1].begin(&[RECIPIENT]).await;
    let after = [user("kept", &kept), user("changed", &hashed("four"))].concat();
    let text = world.configuration_text().replace(&users, &after).replace("127.0.0.0/8", "127.0.0.1/32");
    let said = reload(&world, &text).await;
    assert_eq!(said, "Reloaded. Changed:\n  listener.local.networks\n  user.changed.password_hash\n  user.gone\n");
    sessions[1].write(&message("begun")).await.unwrap();
    sessions[1].write(b"\r\n.\r\n").await.unwrap();
    assert_eq!(sessions[1].reply().await.unwrap().code(), 250);
    for (session, answer) in sessions.iter_mut().zip([250, 554, 554]) {
        let reply = session.send(&[RECIPIENT], &message("after")).await.unwrap();
        assert_eq!(reply.code(), answer, "{reply}");
    }
    let reply = far.send(&[RECIPIENT], &message("far")).await.unwrap();
    assert!(reply.code() == 554 && reply.to_string().contains("5.7.1"), "{reply}");
    log_in(relay.address, "changed", "four").await;
    world.wait_for(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_a_listener_that_has_another_name_now_sends_nothing_more_once_he_is_gone() {
    let world = World::new().await;
    let relay = world.relay().await;
    let user = |name: &str| format!("[user.{name}]\npassword_hash = \"{}\"\n", hashed("one"));
    let (kept, gone) = (user("kept"), user("gone"));
    let port = free_port();
    let listener = |name: &str| {
        format!(
            "[listener.{name}]\naddress = \"127.0.0.1:{port}\"\nauthentication = \"required\"\nallow_cleartext_auth = true\n"
        )
    };
    reload(&world, &with(&world, &format!("{}{kept}{gone}", listener("old")))).await;
    let (mut idle, mut sending) =
        (log_in(loopback(port), "gone", "one").await, log_in(loopback(port), "gone", "one").await);
    sending.begin(&[RECIPIENT]).await;
    reload(&world, &with(&world, &format!("{}{kept}", listener("new")))).await;
    assert_eq!(idle.reply().await.unwrap().code(), 421);
    sending.write(&message("begun")).await.unwrap();
    sending.write(b"\r\n.\r\n").await.unwrap();
    assert_eq!((sending.reply().await.unwrap().code(), sending.reply().await.unwrap().code()), (250, 421));
    let mut again = Client::connect(loopback(port)).await.unwrap();
    let login = STANDARD.encode("\0gone\0one");
    assert_eq!(again.command(&format!("AUTH PLAIN {login}")).await.unwrap().code(), 535);
    submit(relay.address, "other").await;
    world.wait_for(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_a_reload_does_not_concern_keeps_its_connection_and_its_token() {
    let world = World::new().await;
    let relay = world.relay().await;
    submit(relay.address, "one").await;
    world.wait_for(1).await;
    let text = world.configuration_text();
    let other = text.replace("[listener.local]\n", "[listener.local]\nmax_connections = 77\n");
    let said = reload(&world, &other).await;
    assert_eq!(said, "Reloaded. Changed:\n  listener.local.max_connections\n");
    submit(relay.address, "two").await;
    world.wait_for(2).await;
    assert_eq!(world.sandbox.counters().connections_total, 1, "the connection was not kept");
    assert_eq!(status(&world).await["listeners"][0]["max_sessions"], 77);
    // Of a lane with other limits there is one more, with what was used of the minute, and by the same token.
    reload(&world, &other.replace("messages_per_minute = 1000000", "messages_per_minute = 3")).await;
    relay.log().wait_for(|line| line.contains("lane ended by a reload"));
    submit(relay.address, "three").await;
    world.wait_for(3).await;
    let lane = status(&world).await["lanes"][0].clone();
    assert_eq!((&lane["messages_per_minute"], &lane["sent_last_minute"]), (&Value::from(3), &Value::from(3)), "{lane}");
    let counters = world.sandbox.counters();
    assert_eq!((counters.connections_total, counters.token_requests), (2, 1));
    submit(relay.address, "four").await;
    let waits = async || status(&world).await["lanes"][0]["queued"] == 1;
    assert!(until_async(waits).await, "the minute was full");
    assert_eq!(world.sandbox.counters().messages, 3);
    // And mail that waits goes once the limit is gone.
    reload(&world, &other).await;
    world.wait_for(4).await;
    // Another name of ours is said to who comes.
    reload(&world, &format!("hostname = \"renamed.test\"\n{other}")).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert!(client.command("HELO x").await.unwrap().to_string().contains("renamed.test"));
    assert_eq!(status(&world).await["hostname"], "renamed.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_joins_shares_the_mail_of_one_that_stays_and_leaves_again() {
    let options = SandboxOptions { limits: Limits::Off, tenants: vec![tenant()], ..SandboxOptions::default() };
    let world = World::with(options).await;
    let relay = world.relay().await;
    submit(relay.address, "alone").await;
    world.wait_for(1).await;
    let said = reload(&world, &with(&world, &format!("{SECOND_MAILBOX}{POOL}"))).await;
    assert_eq!(said, "Reloaded. Changed:\n  mailbox.second\n  route.\"pool\"\n");
    // The first alone, so that it must have learned of the queue that both serve.
    world.sandbox.revoke("second@contoso.com", sandbox::DEFAULT_CLIENT_ID).unwrap();
    for number in 0..5 {
        submit(relay.address, &format!("shared{number}")).await;
    }
    world.wait_for(6).await;
    let ended = |line: &str| line.contains("lane ended by a reload");
    assert_eq!(relay.log().count(ended), 0, "the first lane stays");
    reload(&world, &world.configuration_text()).await;
    assert!(relay.log().wait_for(ended).contains("second@contoso.com"));
    submit(relay.address, "alone-again").await;
    world.wait_for(7).await;
    assert_eq!(relay.log().count(ended), 1);
    assert_eq!(status(&world).await["lanes"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_changed_has_another_token_and_mail_goes_on() {
    let world = World::new().await;
    let relay = world.relay().await;
    submit(relay.address, "one").await;
    world.wait_for(1).await;
    let other = world.path("other-secret");
    write_secret(&other, sandbox::DEFAULT_SECRET);
    let (old, new) = (world.path("secret").display().to_string(), other.display().to_string());
    let said = reload(&world, &world.configuration_text().replace(&old, &new)).await;
    assert_eq!(said, "Reloaded. Changed:\n  tenant.contoso.client_secret.file\n");
    submit(relay.address, "two").await;
    world.wait_for(2).await;
    let counters = world.sandbox.counters();
    assert_eq!((counters.connections_total, counters.token_requests), (2, 2));
    assert_eq!(status(&world).await["tokens"].as_array().unwrap().len(), 1);
    // A secret that cannot be read is a mistake of the configuration, and the old one stays.
    let told = refuse(&world, &world.configuration_text().replace(&old, "/nowhere/secret")).await;
    assert!(told.contains("tenant.contoso.client_secret"), "{told}");
    // So is one that can be read and cannot be used.
    write_secret(&world.path("empty"), "");
    let empty = world.path("empty").display().to_string();
    let told = refuse(&world, &world.configuration_text().replace(&old, &empty)).await;
    assert!(told.contains("xoauth2-relay.toml:") && told.contains("tenant.contoso.client_secret"), "{told}");
    let text = world.configuration_text();
    let line = text.lines().find(|line| line.starts_with("client_secret = ")).unwrap();
    let certificate = format!("certificate_credential = {{ certificate = {old:?}, key = {{ file = {old:?} }} }}");
    let told = refuse(&world, &text.replace(line, &certificate)).await;
    assert!(told.contains("tenant.contoso.certificate_credential.certificate"), "{told}");
    submit(relay.address, "three").await;
    world.wait_for(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_holds_something_else_is_a_change_of_its_key_and_a_broken_one_a_mistake_of_it() {
    let world = World::new().await;
    let relay = world.relay().await;
    let text = world.configuration_text();
    let line = text.lines().find(|line| line.starts_with("authority_ca_file = ")).unwrap();
    let file = line.split('"').nth(1).unwrap();
    let good = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{good}\n# a remark\n")).unwrap();
    let said = reload(&world, &text).await;
    assert!(said.contains("  tenant.contoso.authority_ca_file (contents)\n"), "{said}");
    assert_eq!(reload(&world, &text).await, "Reloaded, nothing changed.\n");
    std::fs::write(file, "no PEM").unwrap();
    let told = refuse(&world, &text).await;
    let number = text.lines().position(|other| other == line).unwrap() + 1;
    assert!(
        told.contains(&format!("xoauth2-relay.toml:{number}:")) && told.contains("contoso.authority_ca_file: "),
        "{told}"
    );
    submit(relay.address, "kept").await;
    world.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_flows_during_reloads_and_none_is_lost_or_doubled() {
    let world = World::new().await;
    let text = world.configuration_text().replace("connections = 10", "connections = 2");
    write(&world, &text);
    let relay = Relay::start(&world.path("xoauth2-relay.toml")).await;
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let address = relay.address;
        clients.spawn(async move {
            for number in 0..50 {
                submit(address, &format!("client{client}-{number}")).await;
            }
        });
    }
    let port = free_port();
    for number in 0..50 {
        let text =
            text.replace("messages_per_minute = 1000000", &format!("messages_per_minute = {}", 900_000 + number));
        let more =
            if number % 2 == 0 { format!("[listener.lan]\naddress = \"127.0.0.1:{port}\"\n") } else { String::new() };
        write(&world, &format!("{text}\n{more}"));
        assert!(hang_up(&relay).contains("configuration reloaded"));
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    world.wait_for(200).await;
    assert!(world.sandbox.duplicates().is_empty());
    let counters = world.sandbox.counters();
    assert_eq!(counters.token_requests, 1, "the tenant did not change");
    assert!(counters.connections_peak <= 2, "two lanes of one login at once: {}", counters.connections_peak);
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_signals_ends_with_the_last_file_and_leaves_nothing_behind() {
    let world = World::new().await;
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.configuration());
    let relay = Relay::spawn_unready(command);
    // It may not be ready yet: that signal is neither its end nor lost.
    relay.log().wait_for(|line| line.contains("\"listening\""));
    relay.signal("HUP");
    relay.log().wait_for(|line| line.contains("\"ready\""));
    relay.log().wait_for(|line| line.contains("reloaded, nothing changed"));
    let before = files(&relay);
    let (port, text) = (free_port(), world.configuration_text());
    for number in 0..100 {
        let lan =
            if number % 2 == 1 { format!("[listener.lan]\naddress = \"127.0.0.1:{port}\"") } else { String::new() };
        let text =
            text.replace("messages_per_minute = 1000000", &format!("messages_per_minute = {}", 900_000 + number));
        write(&world, &format!("{text}\n{lan}"));
        relay.signal("HUP");
    }
    assert!(until_async(async || status(&world).await["lanes"][0]["messages_per_minute"] == 900_099).await);
    submit(loopback(port), "last").await;
    world.wait_for(1).await;
    reload(&world, &text).await;
    assert!(until(PATIENCE, || files(&relay) <= before + 1).await, "{} files open, {before} before", files(&relay));
    // A stop in the middle of one.
    write(&world, &with(&world, &format!("[listener.lan]\naddress = \"127.0.0.1:{port}\"")));
    relay.signal("HUP");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("\"ERROR\""), "{log}");
}

/// Has the configuration taken up by the control socket.
fn ask(world: &World) -> Value {
    let mut stream = UnixStream::connect(world.path("state/control.sock")).unwrap();
    std::io::Write::write_all(&mut stream, b"{\"version\":1,\"request\":\"reload\"}\n").unwrap();
    // Else it would wait for another request.
    stream.shutdown(Shutdown::Write).unwrap();
    serde_json::from_str(&std::io::read_to_string(stream).unwrap()).unwrap()
}

/// Threads of the process.
fn threads(relay: &Relay) -> usize {
    std::fs::read_dir(Path::new("/proc").join(relay.pid().to_string()).join("task")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_reloads_leave_no_file_no_thread_and_no_request_for_a_token_behind() {
    let world = World::new().await;
    let relay = world.relay().await;
    submit(relay.address, "first").await;
    world.wait_for(1).await;
    let (port, text, user) = (free_port(), world.configuration_text(), hashed("one"));
    let other = world.path("other-secret");
    write_secret(&other, sandbox::DEFAULT_SECRET);
    let (old, new) = (world.path("secret").display().to_string(), other.display().to_string());
    let (files_before, threads_before) = (files(&relay), threads(&relay));
    for number in 1..=200_u32 {
        let listener = format!("[listener.lan]\naddress = \"127.0.0.1:{port}\"\n");
        let user = format!("[user.erp]\npassword_hash = \"{user}\"\n");
        let listener = if number & 1 == 0 { "" } else { &listener };
        let user = if number & 4 == 0 { "" } else { &user };
        let text = if number & 2 == 0 { text.clone() } else { text.replace(&old, &new) };
        let text = format!("{text}\n{listener}{user}");
        write(&world, &text);
        let reply = tokio::task::block_in_place(|| ask(&world)).to_string();
        assert!(reply.contains("\"reloaded\":true"), "{number}: {reply}");
    }
    let is_as_before = || files(&relay) <= files_before + 2 && threads(&relay) <= threads_before + 4;
    let shown = || {
        format!("{} files, {files_before} before; {} threads, {threads_before} before", files(&relay), threads(&relay))
    };
    assert!(until(PATIENCE, is_as_before).await, "{}", shown());
    // The tenant changed a hundred times, and each time its record of requests was kept.
    let requests = world.sandbox.counters().token_requests;
    assert!(requests <= 20, "{requests} requests");
    assert_eq!(status(&world).await["tokens"].as_array().unwrap().len(), 1);
    submit(relay.address, "last").await;
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_changed_or_that_nobody_is_there() {
    let world = World::new().await;
    let relay = world.relay().await;
    let text = world.configuration_text();
    assert_eq!(reload(&world, &text).await, "Reloaded, nothing changed.\n");
    let other = text.replace("[history]", "").replace("format = \"json\"", "format = \"json\"\nlevel = \"warn\"");
    write(&world, &format!("{other}\n[history]\nkeep = \"31d\"\n"));
    let (code, json, complaint) = run(&world, &["reload", "--json"]).await;
    assert_eq!(code, Some(0), "{complaint}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["reloaded"], &json["changes"]),
        (&Value::from(true), &Value::from(vec!["history.keep", "log.level"]))
    );
    let told = relay.log().wait_for(|line| line.contains("configuration reloaded"));
    assert_eq!(
        (field(&told, "changes"), field(&told, "changed")),
        ("2".to_owned(), "history.keep, log.level".to_owned())
    );
    assert!(field(&told, "who").starts_with("uid "), "{told}");
    relay.terminate().await;
    let (code, _, complaint) = run(&world, &["reload"]).await;
    assert_eq!(code, Some(69), "{complaint}");
    assert!(complaint.contains("no xoauth2-relay is running"), "{complaint}");
}
