//! What is kept of messages that nobody stores: a line of the log, history, the counts of Exchange's limits; and the limits of
//! clients.

use sandbox::{Action, Fault, Stage};
use serde_json::Value;

use super::{At, converse, copies, passes, submit, told, world};
use crate::harness::{Client, RECIPIENT, Relay, SENDER, UNKNOWN, World, binary, field, message};
use crate::tenants::{address_of, listener, user};

const OTHER: &str = "other@example.com";

/// Rows of history, oldest first: message, event, recipient, reply, mailbox, client.
fn history(world: &World) -> Vec<[String; 6]> {
    let queue = world.queue();
    let wanted = "SELECT message_id, event, recipient, reply, mailbox, client FROM history ORDER BY id";
    let mut rows = queue.prepare(wanted).unwrap();
    let row =
        |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]);
    rows.query_map([], row).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_leaves_one_line_and_its_rows_in_history() {
    let world = world().await.set("listener", "authentication = \"optional\"").set("tables", user("erp", ""));
    let relay = world.relay().await;
    let mut client = crate::tenants::connected(&relay, "local", 3, Some("erp")).await;
    let recipients = [RECIPIENT, OTHER];
    let heard = converse(&mut client, SENDER, &recipients, &message("both")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    // One of two is refused, and the message goes to the other.
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    assert_eq!(client.command(&format!("RCPT TO:<{UNKNOWN}>")).await.unwrap().code(), 550);
    assert_eq!(client.command(&format!("RCPT TO:<{OTHER}>")).await.unwrap().code(), 250);
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(&message("half")).await.unwrap();
    assert_eq!(client.command("\r\n.").await.unwrap().code(), 250);
    let line = told(&relay, "both");
    let value: Value = serde_json::from_str(&line).unwrap();
    for (name, wanted) in [
        ("level", "INFO"),
        ("outcome", "accepted"),
        ("client", "127.0.0.3"),
        ("listener", "local"),
        ("user", "erp"),
        ("sender", SENDER),
        ("mailbox", SENDER),
        ("recipients", "someone@example.com,other@example.com"),
        ("message_id", "<both@test.local>"),
    ] {
        assert_eq!(value[name], wanted, "{name} in {line}");
    }
    assert!(!field(&line, "id").is_empty() && field(&line, "reply").contains("2.0.0 OK <both@test.local>"), "{line}");
    assert_eq!(relay.log().count(|line| line.contains("<both@test.local>")), 1, "{}", relay.log().text());
    let refused = relay.log().wait_for(|line| line.contains("\"outcome\":\"refused\""));
    assert!(refused.contains(UNKNOWN) && refused.contains("550 5.1.1") && !refused.contains(OTHER), "{refused}");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let rows = history(&world);
    let shown: Vec<_> = rows.iter().map(|[id, event, recipient, ..]| [id.as_str(), event, recipient]).collect();
    assert_eq!(
        shown,
        [
            ["<both@test.local>", "accepted", RECIPIENT],
            ["<both@test.local>", "accepted", OTHER],
            ["<half@test.local>", "refused", UNKNOWN],
            ["<half@test.local>", "accepted", OTHER],
        ]
    );
    assert!(rows.iter().all(|[.., mailbox, client]| mailbox == SENDER && client == "127.0.0.3"), "{rows:?}");
    assert!(rows[0][3].contains("2.0.0 OK") && rows[2][3].contains("550 5.1.1 User unknown"), "{rows:?}");
    assert_eq!(world.count("SELECT count(*) FROM message"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_limit_is_asked_to_come_back() {
    let world = world().await.set("listener", "max_messages_per_minute_per_client = 2");
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for name in ["a", "b"] {
        assert!(converse(&mut client, SENDER, &[RECIPIENT], &message(name)).await.unwrap().is_taken(), "{name}");
    }
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("c")).await.unwrap();
    assert_eq!(heard.at, At::Mail);
    assert!(heard.text().starts_with("450 4.7.1 Client 127.0.0.1 may send 2 messages a minute"), "{heard:?}");
    assert_eq!(world.sandbox.counters().messages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailboxs_day_and_minute_are_counted_over_a_restart_and_with_the_queue() {
    let limits = "recipients_per_day = 4\n";
    let world = world().await.set("mailbox", limits).set("tables", listener("queue", ""));
    let relay = world.relay().await;
    passes(address_of(&relay, "local"), "one").await;
    passes(address_of(&relay, "queue"), "two").await;
    world.wait_for(2).await;
    let mut client = Client::connect(address_of(&relay, "local")).await.unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("three")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    relay.log().wait_for(|line| line.contains("<two@test.local>") && line.contains("\"sent\""));
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let relay = world.relay().await;
    let mut client = Client::connect(address_of(&relay, "local")).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    assert_eq!(client.command(&format!("RCPT TO:<{RECIPIENT}>")).await.unwrap().code(), 250);
    // There is room for no other, and the first goes all the same.
    let reply = client.command(&format!("RCPT TO:<{OTHER}>")).await.unwrap().to_string();
    assert!(reply.starts_with("451 4.4.5 Not now, the mailbox has used up its recipients of 24 hours"), "{reply}");
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(&message("four")).await.unwrap();
    assert_eq!(client.command("\r\n.").await.unwrap().code(), 250);
    let heard = submit(address_of(&relay, "local"), "five").await;
    assert_eq!(heard.at, At::Rcpt);
    assert!(
        heard.text().starts_with("451 4.4.5 Not now, the mailbox has used up its recipients of 24 hours"),
        "{heard:?}"
    );
    assert_eq!((world.sandbox.counters().messages, copies(&world, "five")), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_beyond_those_of_a_message_are_told_to_come_in_another() {
    let world = world().await.set("mailbox", "recipients_per_message = 2");
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    let mut codes = Vec::new();
    for number in 0..4 {
        let reply = client.command(&format!("RCPT TO:<r{number}@example.com>")).await.unwrap();
        codes.push((reply.code(), reply.enhanced().unwrap().to_string()));
    }
    let told = |code, enhanced: &str| (code, enhanced.to_owned());
    assert_eq!(codes, [told(250, "2.1.5"), told(250, "2.1.5"), told(452, "4.5.3"), told(452, "4.5.3")]);
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(&message("two")).await.unwrap();
    assert_eq!(client.command("\r\n.").await.unwrap().code(), 250);
    assert_eq!(super::recipients(&world.sandbox.messages()[0]), ["r0@example.com", "r1@example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_directory_the_log_tells_all_and_nothing_is_written() {
    let world = world().await.set("log", "level = \"info\"");
    let text = world.configuration_text();
    let is_state = |line: &&str| line.starts_with("directory = ") || line.starts_with("min_free_bytes");
    let text = text.lines().filter(|line| !is_state(line)).collect::<Vec<_>>().join("\n");
    let (path, home) = (world.path("stateless.toml"), world.path("home"));
    std::fs::write(&path, text).unwrap();
    std::fs::create_dir(&home).unwrap();
    let mut command = binary();
    command.args(["run", "--config"]).arg(&path).current_dir(&home).env("HOME", &home).env("TMPDIR", &home);
    command.env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
    let relay = Relay::spawn(command).await;
    passes(relay.address, "one").await;
    let accepted = told(&relay, "one");
    assert!(accepted.contains("\"outcome\":\"accepted\""), "{accepted}");
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::KeepThenClose)).unwrap();
    let heard = submit(relay.address, "lost").await;
    assert_eq!((heard.at, heard.reply.code()), (At::End, 451), "{heard:?}");
    let uncertain = told(&relay, "lost");
    assert!(uncertain.contains("\"outcome\":\"uncertain\""), "{uncertain}");
    assert_ne!(field(&accepted, "id"), field(&uncertain, "id"));
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let left: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty() && !world.path("state").exists(), "{left:?}");
}
