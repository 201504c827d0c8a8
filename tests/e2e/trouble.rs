//! Trouble: what is wrong outside costs no mail, and what is wrong in the set-up is told in one plain sentence.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use sandbox::Grant;

use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, binary, free_port, is_root, message};
use crate::small_disk::SmallDisk;

/// A message submitted and promised.
async fn submit(relay: &Relay, name: &str) {
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message(name)).await.unwrap().code(), 250);
}

fn warnings(relay: &Relay) -> usize {
    relay.log().count(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_535_fetches_one_fresh_token_then_holds_the_lane_and_the_mail_stays() {
    let world = World::new().await;
    world.sandbox.revoke(SENDER, sandbox::DEFAULT_CLIENT_ID).unwrap();
    let relay = world.relay().await;
    submit(&relay, "held").await;
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains("535 5.7.3 Authentication unsuccessful"), "{line}");
    assert_eq!(world.sandbox.counters().tokens_issued, 2, "the first and one fresh one");
    assert_eq!(world.sandbox.counters().auth_failures, 2);
    submit(&relay, "held too").await;
    assert_eq!(warnings(&relay), 1, "{}", relay.log().text());
    let (status, _) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    // Once the administrator has granted the mailbox, everything goes out.
    world.sandbox.grant(SENDER, sandbox::DEFAULT_CLIENT_ID, Grant::Rbac).unwrap();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("queue opened") && line.contains("\"queued\":2"));
    world.wait_for(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_waits_while_upstream_is_away_and_goes_out_by_itself() {
    let world = World::new().await;
    let port = free_port();
    let upstream = world.sandbox.smtp_port();
    let text = world.configuration_text().replace(&format!("port = {upstream}"), &format!("port = {port}"));
    let configuration = world.path("away.toml");
    std::fs::write(&configuration, text).unwrap();
    let relay = Relay::start(&configuration).await;
    submit(&relay, "one").await;
    submit(&relay, "two").await;
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains(&format!("cannot connect to localhost:{port}")), "{line}");
    // Upstream comes up where nobody listened.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    world.wait_for(2).await;
    relay.log().wait_for(|line| line.contains("lane works again"));
    assert_eq!(warnings(&relay), 1, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_upstream_that_recovers_is_used_again_without_a_restart() {
    use sandbox::{Action, Fault, Stage};
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    submit(&relay, "one").await;
    submit(&relay, "two").await;
    relay.log().wait_for(|line| line.contains("lane stands still"));
    world.sandbox.clear_faults();
    world.wait_for(2).await;
    relay.log().wait_for(|line| line.contains("lane works again"));
    assert_eq!(warnings(&relay), 1, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_recovers_is_used_again_without_a_restart() {
    use sandbox::{Action, Fault, Stage};
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::Token, Action::Close)).unwrap();
    let relay = world.relay().await;
    submit(&relay, "one").await;
    let line = relay.log().wait_for(|line| line.contains("lane waits for a token"));
    assert!(line.contains("no token"), "{line}");
    world.sandbox.clear_faults();
    world.wait_for(1).await;
    assert_eq!(warnings(&relay), 1, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_told_with_its_remedy_and_costs_no_mail() {
    let world = World::new().await;
    std::fs::write(world.path("secret"), "wrong\n").unwrap();
    let relay = world.relay().await;
    submit(&relay, "waits").await;
    let line = relay.log().wait_for(|line| line.contains("7000215"));
    assert!(line.contains("secret"), "{line}");
    assert!(!line.contains("wrong\\n"), "{line}");
    assert_eq!(world.sandbox.counters().messages, 0);
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    std::fs::write(world.path("secret"), sandbox::DEFAULT_SECRET).unwrap();
    let relay = world.relay().await;
    world.wait_for(1).await;
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_in_the_middle_of_data_leaves_nothing() {
    let world = World::new().await;
    let relay = world.relay().await;
    for size in [10, 200_000] {
        let mut client = Client::connect(relay.address).await.unwrap();
        client.begin(&[RECIPIENT]).await;
        client.write(&message("half")).await.unwrap();
        client.write(&vec![b'x'; size]).await.unwrap();
        drop(client);
    }
    submit(&relay, "whole").await;
    world.wait_for(1).await;
    let (_, log) = relay.terminate().await;
    assert_eq!(log.matches("\"queued\"").count() - log.matches("\"queued\":").count(), 1, "{log}");
    let bodies = std::fs::read_dir(world.path("state/bodies")).unwrap().count();
    assert_eq!(bodies, 0, "no body file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_452_and_what_is_queued_still_drains() {
    use sandbox::{Action, Fault, Stage};
    let world = World::new().await.set("spool", "max_bytes = \"1 MiB\"");
    let world = world.set("listener", "max_message_size = \"512 KiB\"");
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let filler = [message("filler"), b"\r\n".to_vec(), vec![b'x'; 300_000]].concat();
    let mut taken = 0;
    let refusal = loop {
        let reply = client.send(&[RECIPIENT], &filler).await.unwrap();
        if reply.code() != 250 {
            break reply;
        }
        taken += 1;
        assert!(taken < 10, "the queue never fills");
    };
    assert_eq!(refusal.to_string(), "452 4.3.1 Insufficient system storage, try again later");
    assert!(taken >= 2);
    world.sandbox.clear_faults();
    world.wait_for(taken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_452_and_what_is_queued_still_drains() {
    use sandbox::{Action, Fault, Stage};
    let Some(disk) = SmallDisk::mount(24) else { return };
    let world = World::new().await;
    let directory =
        format!("directory = {:?}\nmin_free_bytes = \"0 B\"", disk.path().join("state").display().to_string());
    let world = world.set("spool", directory);
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let mut taken = 0;
    let refusal = loop {
        let filler = [message(&format!("filler{taken}")), b"\r\n".to_vec(), vec![b'x'; 1_000_000]].concat();
        let reply = client.send(&[RECIPIENT], &filler).await.unwrap();
        if reply.code() != 250 {
            break reply;
        }
        taken += 1;
        assert!(taken < 100, "the disk never fills");
    };
    assert_eq!(refusal.to_string(), "452 4.3.1 Insufficient system storage, try again later");
    assert!(taken >= 2, "{taken}");
    let files = std::fs::read_dir(disk.path().join("state/bodies")).unwrap().count() as u64;
    assert_eq!(files, taken, "nothing of the refused message is left");
    world.sandbox.clear_faults();
    world.wait_for(taken).await;
    // With room again the relay takes mail again.
    relay.log().wait_for(|line| line.contains("\"sent\""));
    assert_eq!(client.send(&[RECIPIENT], &message("after")).await.unwrap().code(), 250);
    world.wait_for(taken + 1).await;
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Starts the relay where it cannot run: its exit code and what it said.
async fn refuses(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run_command(world: &World) -> Command {
    let mut command = binary();
    command.args(["run", "--config"]).arg(world.configuration());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_the_configuration_is_told_in_one_run() {
    let world = World::new().await;
    let file = world.path("wrong.toml");
    std::fs::write(&file, "hostnam = \"x\"\n[tenant.a]\nclient_secret = { file = \"x\" }\n[mailbox.b]\n").unwrap();
    for verb in ["run", "check"] {
        let mut command = binary();
        command.args([verb, "--config"]).arg(&file);
        let (code, said) = refuses(command).await;
        assert_eq!(code, Some(64), "{said}");
        for mistake in [
            ":1:1: hostnam: is not a known key; did you mean hostname?",
            ":2:9: tenant.a.tenant_id: is missing",
            ":2:9: tenant.a.client_id: is missing",
            ":4:10: mailbox.b.address: is missing",
        ] {
            assert!(said.contains(&format!("wrong.toml{mistake}")), "{mistake} is not in\n{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let world = World::new().await;
    let mut command = run_command(&world);
    command.env("XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS", address.to_string());
    let (code, said) = refuses(command).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {address} (listener.local): another program has this port")),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_cannot_be_written_is_named() {
    let world = World::new().await;
    let state = world.path("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = run_command(&world);
    if is_root() {
        // An unprivileged user, who can read and run everything but the state directory. The build may lie where it cannot.
        let copy = world.path("xoauth2-relay");
        std::fs::copy(command.get_program(), &copy).unwrap();
        for file in [copy.clone(), world.path("ca.pem")] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::set_permissions(world.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        command = Command::new(copy);
        command.args(["run", "--config"]).arg(world.configuration()).uid(65534).gid(65534).current_dir("/");
    }
    let (code, said) = refuses(command).await;
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(code, Some(69), "{said}");
    let error = said.lines().find(|line| line.contains("\"ERROR\"")).unwrap_or_else(|| panic!("{said}"));
    assert!(error.contains(&state.display().to_string()) && error.contains("permission denied"), "{error}");
}

/// A sender that may not be sent as is the commonest slip of all: `status` says whose mail waits and what to do, and says it
/// although the file has become wrong meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_sender_that_exchange_refuses() {
    // Else it would be rewritten.
    let kept = "[[route]]\nname = \"kept\"\nmailbox = [\"scanner\"]\nsender = \"keep\"";
    let world = World::new().await.set("tables", kept);
    let relay = world.relay().await;
    let file = world.path("xoauth2-relay.toml");
    let status = |words: &[&str]| {
        let mut command = binary();
        let output = command.arg("status").args(words).arg("--config").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let mut client = Client::connect(relay.address).await.unwrap();
    client.send_from("erp@contoso.com", &[RECIPIENT], &message("denied")).await.unwrap();
    relay.log().wait_for(|line| line.contains("not sent yet") && line.contains("-AccessRights SendAs"));
    std::fs::write(&file, world.configuration_text() + "\n[nonsense]\n").unwrap();
    let (code, said, complaint) = status(&[]);
    assert_eq!(code, Some(0), "{complaint}");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("! Mail from erp@contoso.com waits since") && said.contains("SendAsDenied"), "{said}");
    assert!(said.contains("Do this: let the software send as the mailbox itself"), "{said}");
    assert!(complaint.contains("is wrong now (see xoauth2-relay check)"), "{complaint}");
    let (code, said, _) = status(&["--check"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("healthy; mail from erp@contoso.com is not taken: "), "{said}");
    // Once it may, it goes out, and nothing is wrong any more.
    world.mailbox(|mailbox| {
        mailbox.may_send_as.insert("erp@contoso.com".to_owned());
    });
    client.send_from("erp@contoso.com", &[RECIPIENT], &message("granted")).await.unwrap();
    world.wait_for(1).await;
    relay.log().wait_for(|line| line.contains("\"sent\"") && line.contains("<granted@test.local>"));
    assert!(status(&[]).1.contains("All is well."), "{}", status(&[]).1);
}

/// Each takes its own clients, whatever the machine's default for IPv6 is.
#[tokio::test(flavor = "multi_thread")]
async fn all_addresses_of_both_protocols_are_two_listeners_of_one_port() {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        eprintln!("skipped: this machine has no IPv6: {error}");
        return;
    }
    let world = World::new().await;
    let port = free_port();
    let text =
        world.configuration_text().replace("address = \"127.0.0.1:0\"", &format!("address = \"0.0.0.0:{port}\""));
    let file = world.path("both.toml");
    std::fs::write(&file, format!("{text}\n[listener.six]\naddress = \"[::]:{port}\"\n")).unwrap();
    let _relay = Relay::start(&file).await;
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        Client::connect(address.parse().unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_queue_is_refused() {
    let world = World::new().await;
    let relay = world.relay().await;
    let (code, said) = refuses(run_command(&world)).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("another xoauth2-relay already uses the state directory"), "{said}");
    submit(&relay, "unharmed").await;
    world.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_and_a_newer_queue_are_named_and_left_alone() {
    let world = World::new().await;
    let relay = world.relay().await;
    relay.terminate().await;
    let database = world.path("state/queue.db");
    rusqlite::Connection::open(&database).unwrap().pragma_update(None, "user_version", 4711).unwrap();
    let (code, said) = refuses(run_command(&world)).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("has schema 4711, this release knows"), "{said}");
    let damaged = b"this is no database, whatever its name says".repeat(100);
    std::fs::write(&database, &damaged).unwrap();
    let (code, said) = refuses(run_command(&world)).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("queue.db") && (said.contains("damaged") || said.contains("is not a queue")), "{said}");
    assert_eq!(std::fs::read(&database).unwrap(), damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_from_elsewhere_is_refused() {
    let world = World::new().await.set("listener", "networks = [\"10.1.2.0/24\"]");
    let relay = world.relay().await;
    let mut stream = tokio::net::TcpStream::connect(relay.address).await.unwrap();
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut said).await.unwrap();
    assert_eq!(said, "554 5.7.1 127.0.0.1 is not in the networks of this listener\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_login_that_is_gone_is_held_and_named_where_no_route_takes_it_and_goes_out_when_it_is_back() {
    use sandbox::{Action, Fault, Stage};
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    submit(&relay, "stranded").await;
    relay.terminate().await;
    world.sandbox.clear_faults();
    let other = world.path("other.toml");
    let text =
        world.configuration_text().replace("[mailbox.scanner]", "[mailbox.scanner]\nlogin = \"other@contoso.com\"");
    let route = "[[route]]\nname = \"nobody\"\nrecipients = [\"nobody@elsewhere.test\"]\nmailbox = [\"scanner\"]\n";
    std::fs::write(&other, format!("{text}\n{route}")).unwrap();
    let relay = Relay::start(&other).await;
    relay.log().wait_for(|line| line.contains("held: no route takes it as it was accepted"));
    let status = binary().arg("status").arg("--config").arg(&other).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("! Mail is queued for ") && status.contains(&format!("/{SENDER}")), "{status}");
    relay.terminate().await;
    assert_eq!(world.sandbox.counters().messages, 0, "never by another login");
    let relay = world.relay().await;
    world.wait_for(1).await;
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_queued_while_the_clock_ran_ahead_goes_out_after_it_was_set_right() {
    use sandbox::{Action, Fault, Stage};
    let world = World::new().await;
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    submit(&relay, "early").await;
    relay.terminate().await;
    world.sandbox.clear_faults();
    // As if it had been accepted a year ahead of the true time.
    let database = rusqlite::Connection::open(world.path("state/queue.db")).unwrap();
    assert_eq!(database.execute("UPDATE delivery SET due = due + 31536000000", []).unwrap(), 1);
    drop(database);
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("clock ran ahead") && line.contains("\"deliveries\":1"));
    world.wait_for(1).await;
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_may_not_be_sent_as_is_told_once_and_stops_nobody() {
    let kept = "[[route]]\nname = \"kept\"\nmailbox = [\"scanner\"]\nsender = \"keep\"";
    let world = World::new().await.set("tables", kept);
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for number in 0..3 {
        let text = format!("From: root@erp01\r\nSubject: {number}\r\n\r\nx");
        assert_eq!(client.send(&[RECIPIENT], text.as_bytes()).await.unwrap().code(), 250);
    }
    submit(&relay, "good").await;
    let taken = world.wait_for(1).await;
    assert_eq!(taken[0].message_id, "<good@test.local>");
    relay.terminate().await;
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("queue opened") && line.contains("\"queued\":3"));
}
