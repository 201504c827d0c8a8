//! `{sender}`: each sender's own mailbox, by a login of its own. Who may choose, what becomes of a mailbox that Exchange does
//! not know, a restart with mail for such lanes, and many senders at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use sandbox::{Action, Fault, Stage, Target};
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, RECIPIENT, Relay, field, until};
use crate::tenants::{Row, Submission, Tenants, connected, listener, row, user};

const SCANNER: &str = "scanner@contoso.com";

/// One mailbox with a section, and any other by the wildcard.
fn rows() -> [Row; 1] {
    [row("contoso", "scanner")]
}

/// `{sender}` with further lines of the wildcard mailbox and of the route.
fn tables(mailbox: &str, route: &str) -> String {
    [
        &listener("lan", "authentication = \"optional\""),
        &user("app", "allowed_senders = [\"*@contoso.com\"]"),
        &user("free", ""),
        "[mailbox.anybody]\ntenant = \"contoso\"\naddress = \"*@contoso.com\"\nmessages_per_minute = 1000000\n",
        mailbox,
        "[[route]]\nname = \"own\"\nmailbox = [\"{sender}\"]\n",
        route,
    ]
    .concat()
}

const ANYBODY: &str = "wildcard_needs_user = false\n";
const FALLBACK: &str = "fallback = \"scanner\"\n";

fn address(name: &str) -> String {
    format!("{name}@contoso.com")
}

async fn world(people: &[&str]) -> Tenants {
    let world = Tenants::new(&rows()).await;
    for name in people {
        world.open_mailbox("contoso", &address(name));
    }
    world
}

/// As the user `app` by envelope and From.
async fn send(relay: &Relay, sender: &str, name: &str) -> String {
    let submission = Submission { user: Some("app"), ..Submission::from("lan", sender, name) };
    submission.send(relay).await.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_send_as_several_sends_by_the_login_of_each() {
    let world = world(&["anna", "bert", "cleo"]).await;
    let relay = world.relay(&tables("", "")).await;
    for name in ["anna", "bert", "cleo", "scanner"] {
        for number in 0..5 {
            let reply = send(&relay, &address(name), &format!("{name}.{number}")).await;
            assert!(reply.starts_with("250"), "{reply}");
        }
    }
    // However it is written it is the same mailbox.
    assert!(send(&relay, "ANNA@Contoso.com", "anna.capital").await.starts_with("250"));
    for (name, login) in world.carried(21).await {
        assert_eq!(login.to_ascii_lowercase(), address(name.split('.').next().unwrap()));
    }
    world.is_empty().await;
    assert_eq!(world.denials(), []);
    assert_eq!(world.sandbox.duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_choose_any_sender_has_logged_in_and_has_senders() {
    let world = world(&["anna"]).await;
    let relay = world.relay(&tables("", FALLBACK)).await;
    for user in [None, Some("free")] {
        let submission = Submission { user, ..Submission::from("lan", "anna@contoso.com", "refused") };
        let reply = submission.send(&relay).await.to_string();
        assert!(reply.starts_with("550 5.7.1 Log in to choose your sender here (AUTH)"), "{user:?}: {reply}");
    }
    let line = relay.log().wait_for(|line| line.contains("\"mail refused\""));
    assert!(field(&line, "remedy").contains("wildcard_needs_user"), "{line}");
    assert!(field(&line, "reason").contains("anybody"), "{line}");
    // A user's own list is asked first.
    let reply = send(&relay, "anna@fabrikam.com", "list").await;
    assert!(reply.starts_with("550 5.7.1 User app may not send as anna@fabrikam.com"), "{reply}");
    assert_eq!(world.count("SELECT count(*) FROM message"), Some(0));
    // So it is with a mailbox of the same domain that has a section of its own.
    let reply = Submission::from("lan", SCANNER, "own").send(&relay).await.to_string();
    assert!(reply.starts_with("550 5.7.1 Log in to choose your sender here (AUTH)"), "{reply}");
    assert!(send(&relay, SCANNER, "own").await.starts_with("250"));
    assert_eq!(world.carried(1).await["own"], SCANNER);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_user_any_sender_is_taken_only_where_that_was_said() {
    let world = world(&["anna", "bert"]).await;
    let relay = world.relay(&tables(ANYBODY, "")).await;
    for name in ["anna", "bert"] {
        assert_eq!(Submission::from("lan", &address(name), name).send(&relay).await.code(), 250);
    }
    let nobody = Submission::from("lan", "anna@elsewhere.example", "elsewhere").send(&relay).await.to_string();
    assert!(nobody.starts_with("550 5.7.1 anna@elsewhere.example has no mailbox here"), "{nobody}");
    let carried = world.carried(2).await;
    assert_eq!(carried, ["anna", "bert"].map(|name| (name.to_owned(), address(name))).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_from_of_somebody_else_is_rewritten_or_refused_and_never_denied() {
    let world = world(&["anna", "bert"]).await;
    let relay = world.relay(&tables(ANYBODY, "")).await;
    let other = Submission { from: "Bert <bert@contoso.com>", ..Submission::from("lan", "anna@contoso.com", "other") };
    assert_eq!(other.send(&relay).await.code(), 250);
    world.carried(1).await;
    let message = world.sandbox.messages()[0].clone();
    assert_eq!((message.login.as_str(), message.reverse_path.as_str()), ("anna@contoso.com", "anna@contoso.com"));
    assert_eq!(message.header_from, ["anna@contoso.com"]);
    // A user is held to his list in the From field, too.
    let foreign = Submission {
        user: Some("app"),
        from: "boss@fabrikam.com",
        ..Submission::from("lan", "anna@contoso.com", "foreign")
    };
    let reply = foreign.send(&relay).await.to_string();
    assert!(reply.starts_with("550 5.7.1 User app may not send as boss@fabrikam.com (From field)"), "{reply}");
    // A null sender is whom From names.
    let null = Submission { sender: "", ..Submission::from("lan", "bert@contoso.com", "null") };
    assert_eq!(null.send(&relay).await.code(), 250);
    assert_eq!(world.carried(2).await["null"], "bert@contoso.com");
    world.reload(&tables(ANYBODY, "sender = \"reject\"\n"));
    let reply = other.send(&relay).await.to_string();
    assert!(reply.starts_with("550 5.7.1 Mail as bert@contoso.com is not taken here"), "{reply}");
    assert_eq!(world.denials(), []);
}

fn is_unknown(line: &str) -> bool {
    line.contains("Exchange lets nobody log in to the sender's own mailbox")
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_an_unknown_mailbox_goes_by_the_fallback_and_the_next_at_once() {
    const MESSAGES: usize = 30;
    let world = world(&["anna"]).await;
    let relay = world.relay(&tables("", FALLBACK)).await;
    for number in 0..MESSAGES {
        assert!(send(&relay, "ghost@contoso.com", &format!("ghost.{number}")).await.starts_with("250"));
    }
    assert!(send(&relay, "anna@contoso.com", "anna.0").await.starts_with("250"));
    let carried = world.carried(MESSAGES + 1).await;
    world.is_empty().await;
    for (name, login) in &carried {
        assert_eq!(login, if name == "anna.0" { "anna@contoso.com" } else { SCANNER }, "{name}");
    }
    let line = relay.log().wait_for(is_unknown);
    assert!(field(&line, "lane").ends_with("ghost@contoso.com"), "{line}");
    // The next is not tried there again.
    let failures = world.sandbox.counters().auth_failures;
    assert!(send(&relay, "ghost@contoso.com", "ghost.next").await.starts_with("250"));
    assert_eq!(world.carried(MESSAGES + 2).await["ghost.next"], SCANNER);
    assert_eq!(world.sandbox.counters().auth_failures, failures);
    assert_eq!(relay.log().count(is_unknown), 1);
    assert!(world.sandbox.messages().iter().all(|message| message.header_from == [message.login.as_str()]));
    assert_eq!(world.denials(), []);
    assert_eq!(world.sandbox.duplicates(), []);
}

/// What a client began before the mailbox turned out to be unknown, and ends after.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_under_way_when_its_mailbox_turned_out_unknown_goes_by_the_fallback() {
    let world = world(&[]).await;
    let relay = world.relay(&tables("", FALLBACK)).await;
    let mut slow = connected(&relay, "lan", 2, Some("app")).await;
    for line in ["MAIL FROM:<ghost@contoso.com>", "RCPT TO:<a@c.example>"] {
        assert_eq!(slow.command(line).await.unwrap().code(), 250);
    }
    assert_eq!(slow.command("DATA").await.unwrap().code(), 354);
    assert!(send(&relay, "ghost@contoso.com", "fast").await.starts_with("250"));
    world.carried(1).await;
    relay.log().wait_for(is_unknown);
    slow.write(b"From: ghost@contoso.com\r\nMessage-ID: <slow@test.local>\r\n\r\nhi\r\n.\r\n").await.unwrap();
    assert_eq!(slow.reply().await.unwrap().code(), 250);
    assert_eq!(world.carried(2).await["slow"], SCANNER);
    world.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_keeps_coming_does_not_keep_an_unknown_mailbox_from_its_fallback() {
    let world = world(&["anna"]).await;
    let relay = world.relay(&tables("", FALLBACK)).await;
    assert!(send(&relay, "ghost@contoso.com", "ghost").await.starts_with("250"));
    let by_fallback = || world.sandbox.messages().iter().any(|message| message.message_id == "<ghost@test.local>");
    let (began, mut number) = (Instant::now(), 0);
    while !by_fallback() {
        assert!(began.elapsed() < PATIENCE, "{number} others went meanwhile");
        assert!(send(&relay, "anna@contoso.com", &format!("anna.{number}")).await.starts_with("250"));
        number += 1;
        world.sandbox.wait_for(number, PATIENCE).await.unwrap();
    }
    world.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_an_unknown_mailbox_without_a_fallback_waits_alone() {
    let world = world(&["anna"]).await;
    let relay = world.relay(&tables("", "")).await;
    for number in 0..5 {
        assert!(send(&relay, "ghost@contoso.com", &format!("ghost.{number}")).await.starts_with("250"));
    }
    relay.log().wait_for(is_unknown);
    assert!(send(&relay, "ghost@contoso.com", "ghost.after").await.starts_with("250"));
    for number in 0..20 {
        assert!(send(&relay, "anna@contoso.com", &format!("anna.{number}")).await.starts_with("250"));
    }
    let carried = world.carried(20).await;
    assert!(
        carried.iter().all(|(name, login)| name.starts_with("anna.") && login == "anna@contoso.com"),
        "{carried:?}"
    );
    world.are_queued(6).await;
    // A fallback that comes by a reload takes them up.
    world.reload(&tables("", FALLBACK));
    let carried = world.carried(26).await;
    assert!(carried.iter().all(|(name, login)| name.starts_with("anna.") || login == SCANNER), "{carried:?}");
    world.is_empty().await;
    assert_eq!(world.sandbox.duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_an_unknown_mailbox_without_a_fallback_goes_after_a_restart_once_it_exists() {
    let world = world(&[]).await;
    let relay = world.relay(&tables("", "")).await;
    assert!(send(&relay, "ghost@contoso.com", "ghost").await.starts_with("250"));
    relay.log().wait_for(is_unknown);
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    world.open_mailbox("contoso", "ghost@contoso.com");
    world.let_time_pass();
    let _relay = world.relay(&tables("", "")).await;
    assert_eq!(world.carried(1).await["ghost"], "ghost@contoso.com");
    world.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_opens_the_lanes_of_senders_who_have_mail() {
    let people = ["anna", "bert", "cleo"];
    let world = world(&people).await;
    for name in people {
        world.refuse_logins(&address(name));
    }
    // With a fallback it would go by that.
    let relay = world.relay(&tables(ANYBODY, "")).await;
    for name in people {
        for number in 0..4 {
            assert!(send(&relay, &address(name), &format!("{name}.{number}")).await.starts_with("250"));
        }
    }
    world.are_queued(12).await;
    relay.kill();
    world.sandbox.clear_faults();
    world.let_time_pass();
    let _relay = world.relay(&tables(ANYBODY, "")).await;
    for (name, login) in world.carried(12).await {
        assert_eq!(login, address(name.split('.').next().unwrap()));
    }
    world.is_empty().await;
    assert_eq!(world.sandbox.duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_senders_at_once_each_have_their_own_lane() {
    const SENDERS: usize = 60;
    const EACH: usize = 4;
    let world = Tenants::new(&rows()).await;
    for number in 0..SENDERS {
        world.open_mailbox("contoso", &address(&format!("person{number}")));
    }
    let relay = Arc::new(world.relay(&tables(ANYBODY, FALLBACK)).await);
    let mut clients = JoinSet::new();
    for (number, host) in (0..SENDERS).zip(2..) {
        let relay = Arc::clone(&relay);
        clients.spawn(async move {
            let mut client = connected(&relay, "lan", host, None).await;
            let sender = address(&format!("person{number}"));
            for message in 0..EACH {
                let text = format!("From: {sender}\r\nMessage-ID: <person{number}.{message}@test.local>\r\n\r\nhi");
                assert_eq!(client.send_from(&sender, &[RECIPIENT], text.as_bytes()).await.unwrap().code(), 250);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (name, login) in world.carried(SENDERS * EACH).await {
        assert_eq!(login, address(name.split('.').next().unwrap()));
        *seen.entry(login).or_default() += 1;
    }
    assert_eq!(seen.len(), SENDERS);
    assert!(seen.values().all(|count| *count == EACH), "{seen:?}");
    world.is_empty().await;
    assert_eq!(world.sandbox.counters().token_requests, 1, "one application, one token");
    assert_eq!(world.denials(), []);
    assert_eq!(world.sandbox.duplicates(), []);
}

/// A mailbox that works and is refused a moment is not taken for an unknown one for longer than that lasts to be seen.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_the_tenant_makes_no_mailbox_unknown() {
    let world = world(&["anna", "bert"]).await;
    let busy = Action::Reply("421 4.3.2 Service not available, closing transmission channel".to_owned());
    world.sandbox.inject(Fault::always(Stage::Auth, busy).only(Target::Mailbox(address("anna")))).unwrap();
    let relay = world.relay(&tables("", FALLBACK)).await;
    assert!(send(&relay, "anna@contoso.com", "anna").await.starts_with("250"));
    relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(send(&relay, "bert@contoso.com", "bert").await.starts_with("250"));
    assert_eq!(world.carried(1).await["bert"], "bert@contoso.com");
    world.sandbox.clear_faults();
    assert_eq!(world.carried(2).await["anna"], "anna@contoso.com");
    assert_eq!(relay.log().count(is_unknown), 0);
    let logins: BTreeSet<_> = world.sandbox.messages().iter().map(|message| message.login.clone()).collect();
    assert!(!logins.contains(SCANNER));
    assert!(until(PATIENCE, || world.count("SELECT count(*) FROM delivery") == Some(0)).await);
}

/// A name that nobody has proven opens no mailbox, whoever's it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_taken_unproven_chooses_no_sender() {
    let world = world(&["anna"]).await;
    let relay = world.relay(&(tables("", FALLBACK) + &listener("any", "authentication = \"accept-any\""))).await;
    let submission = Submission { user: Some("app"), ..Submission::from("any", "anna@contoso.com", "unproven") };
    let reply = submission.send(&relay).await.to_string();
    assert!(reply.starts_with("550 5.7.1 Log in to choose your sender here (AUTH)"), "{reply}");
    assert_eq!(world.count("SELECT count(*) FROM message"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_senders_own_mailboxes_goes_by_a_named_one_when_a_reload_takes_the_wildcard_away() {
    let world = world(&["anna", "bert"]).await;
    for name in ["anna", "bert"] {
        world.refuse_logins(&address(name));
    }
    let relay = world.relay(&tables("", "")).await;
    for (number, name) in ["anna", "bert", "anna", "bert"].into_iter().enumerate() {
        assert!(send(&relay, &address(name), &format!("{name}.{number}")).await.starts_with("250"));
    }
    relay.log().wait_for_another(1, is_unknown);
    let named = listener("lan", "") + "[[route]]\nname = \"named\"\nmailbox = [\"scanner\"]\n";
    world.reload(&named);
    let carried = world.carried(4).await;
    assert!(carried.values().all(|login| login == SCANNER), "{carried:?}");
    world.is_empty().await;
    let lanes = world.status()["lanes"].as_array().unwrap().clone();
    let logins: BTreeSet<_> = lanes.iter().map(|lane| lane["login"].as_str().unwrap().to_owned()).collect();
    assert_eq!(logins, BTreeSet::from([SCANNER.to_owned()]));
    assert_eq!(world.denials(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_mail_of_an_unknown_mailbox_finds_the_fallback_again() {
    let world = world(&[]).await;
    let relay = world.relay(&tables("", "")).await;
    for number in 0..10 {
        assert!(send(&relay, "ghost@contoso.com", &format!("ghost.{number}")).await.starts_with("250"));
    }
    relay.log().wait_for(is_unknown);
    relay.kill();
    world.let_time_pass();
    let _relay = world.relay(&tables("", FALLBACK)).await;
    let carried = world.carried(10).await;
    assert!(carried.values().all(|login| login == SCANNER), "{carried:?}");
    world.is_empty().await;
    assert_eq!(world.sandbox.duplicates(), []);
}

/// Nobody has vouched for its sender when it came, whatever the routes say now.
#[tokio::test(flavor = "multi_thread")]
async fn mail_of_nobody_in_particular_does_not_leave_by_a_senders_own_mailbox_after_a_reload() {
    let world = world(&["anna"]).await;
    world.refuse_logins(SCANNER);
    let named = "[[route]]\nname = \"named\"\nmailbox = [\"scanner\"]\n";
    let relay = world.relay(&(listener("lan", "") + named)).await;
    assert_eq!(Submission::from("lan", "anna@contoso.com", "spoofed").send(&relay).await.code(), 250);
    relay.log().wait_for(|line| line.contains("lane stands still"));
    world.reload(&tables("", ""));
    let line = relay.log().wait_for(|line| line.contains("held: no route takes it") || line.contains("\"sent\""));
    assert!(line.contains("held"), "{line}");
    assert_eq!(world.sandbox.messages().len(), 0);
}
