//! Mail that waits and routes that change: it goes by the mailboxes of today within its tenant, is held before it moves to
//! another one, moves there by an operator's word, and never leaves the mailbox that may have sent it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Action, Fault, Stage, Target};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, RECIPIENT, Relay, field, until};
use crate::tenants::{Row, Submission, Tenants, connected, listener, row};

const SCANNER: &str = "scanner@contoso.com";
const INVOICES: &str = "invoices@contoso.com";
const PRESS: &str = "press@fabrikam.com";

fn rows() -> [Row; 3] {
    [
        row("contoso", "scanner"),
        Row {
            aliases: &["documents@contoso.com"],
            keys: "from = \"documents@contoso.com\"",
            ..row("contoso", "invoices")
        },
        row("fabrikam", "press"),
    ]
}

/// Everything by one mailbox.
fn by(mailbox: &str) -> String {
    by_route(mailbox, mailbox)
}

fn by_route(name: &str, mailbox: &str) -> String {
    listener("lan", "") + &format!("[[route]]\nname = \"{name}\"\nmailbox = [\"{mailbox}\"]\n")
}

/// Sends numbered messages of a sender whom every mailbox rewrites; gives their queue ids.
async fn submit(relay: &Relay, kind: &str, count: usize) -> Vec<String> {
    let mut client = connected(relay, "lan", 2, None).await;
    let mut ids = Vec::new();
    for number in 0..count {
        let text = format!("From: root@erp01\r\nMessage-ID: <{kind}{number}@test.local>\r\n\r\nhi");
        let reply = client.send_from("root@erp01", &[RECIPIENT], text.as_bytes()).await.unwrap();
        assert_eq!(reply.code(), 250, "{reply}");
        ids.push(reply.to_string().trim_end().rsplit(' ').next().unwrap().to_owned());
    }
    ids
}

/// Every message of Exchange came by this login with this From, each once, and they are these many.
async fn all_went(world: &Tenants, count: usize, (login, from): (&str, &str)) {
    world.carried(count).await;
    world.is_empty().await;
    let messages = world.sandbox.messages();
    assert_eq!(messages.len(), count);
    for message in &messages {
        assert_eq!((message.login.as_str(), message.reverse_path.as_str()), (login, from));
        assert_eq!(message.header_from, [from]);
    }
    assert_eq!(world.sandbox.duplicates(), []);
    assert_eq!(world.denials(), []);
}

fn stands_still(line: &str) -> bool {
    line.contains("lane stands still")
}

/// A relay whose scanner may not log in, with so many messages for it.
async fn held_world(count: usize) -> (Tenants, Relay, Vec<String>) {
    let world = Tenants::new(&rows()).await;
    world.refuse_logins(SCANNER);
    let relay = world.relay(&by("scanner")).await;
    let ids = submit(&relay, "m", count).await;
    relay.log().wait_for(stands_still);
    world.are_queued(i64::try_from(count).unwrap()).await;
    (world, relay, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_follows_a_reload_to_another_mailbox_of_its_tenant() {
    let (world, relay, _) = held_world(120).await;
    world.reload(&by("invoices"));
    all_went(&world, 120, (INVOICES, "documents@contoso.com")).await;
    let line = relay.log().wait_for(|line| line.contains("follows the routes"));
    assert_eq!(field(&line, "held"), "0");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_follows_a_sighup_where_both_mailboxes_stay() {
    let (world, relay, _) = held_world(40).await;
    world.configure(&by_route("renamed", "invoices"));
    relay.signal("HUP");
    all_went(&world, 40, (INVOICES, "documents@contoso.com")).await;
    // What comes now goes by the new one, too.
    submit(&relay, "later", 5).await;
    all_went(&world, 45, (INVOICES, "documents@contoso.com")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_only_changes_its_sender_rewrites_what_waits() {
    let (world, relay, _) = held_world(10).await;
    world.open_mailbox("contoso", "erp@contoso.com");
    world.sandbox.allow_send_as(SCANNER, "erp@contoso.com").unwrap();
    let map = "[rewrite]\nsenders = { \"root@erp01\" = \"erp@contoso.com\" }\n";
    let kept = by("scanner") + "sender = \"keep\"\n" + map;
    world.reload(&kept);
    // So that the lane tries at once.
    let (status, _) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    world.sandbox.clear_faults();
    world.let_time_pass();
    let _relay = world.relay(&kept).await;
    all_went(&world, 10, (SCANNER, "erp@contoso.com")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_follows_the_configuration_of_the_next_start() {
    let (world, relay, _) = held_world(60).await;
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let _relay = world.relay(&by("invoices")).await;
    all_went(&world, 60, (INVOICES, "documents@contoso.com")).await;
}

fn is_held(line: &str) -> bool {
    line.contains("held: no route takes it as it was accepted")
}

/// Held, queued.
fn counts(world: &Tenants) -> (u64, u64) {
    let status = world.status();
    let count = |name: &str| status["queue"]["counts"][name].as_u64().unwrap_or_else(|| panic!("{status}"));
    (count("held"), count("queued"))
}

async fn are_held(world: &Tenants, held: u64) {
    let are_held = until(PATIENCE, || counts(world) == (held, 0)).await;
    assert!(are_held, "{:?}", counts(world));
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_a_reload_gives_to_another_tenant_is_held_until_the_routes_come_back() {
    let (world, relay, ids) = held_world(30).await;
    world.reload(&by("press"));
    are_held(&world, 30).await;
    let line = relay.log().wait_for(is_held);
    assert!(ids.contains(&field(&line, "id")), "{line}");
    let reason = field(&line, "reason");
    assert!(
        reason.contains("accepted for tenant contoso") && reason.contains("gives it to tenant fabrikam now"),
        "{reason}"
    );
    assert!(reason.contains("xoauth2-relay queue reroute ID --tenant fabrikam"), "{reason}");
    // What comes now is of the new tenant.
    submit(&relay, "new", 1).await;
    assert_eq!(world.carried(1).await["new0"], PRESS);
    // A restart changes nothing of it.
    let (_, _) = relay.terminate().await;
    let relay = world.relay(&by("press")).await;
    are_held(&world, 30).await;
    assert_eq!(world.sandbox.messages().len(), 1);
    world.sandbox.clear_faults();
    world.reload(&by("scanner"));
    let carried = world.carried(31).await;
    assert!(carried.iter().all(|(name, login)| login == if name == "new0" { PRESS } else { SCANNER }), "{carried:?}");
    world.is_empty().await;
    assert_eq!(counts(&world), (0, 0));
    assert_eq!(world.sandbox.duplicates(), []);
    drop(relay);
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_moves_held_mail_to_another_tenant() {
    let (world, relay, ids) = held_world(12).await;
    world.reload(&by("press"));
    are_held(&world, 12).await;
    // Without the word it stays, and is told why.
    let output = world.command(&["queue", "reroute", &ids[0]]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.starts_with(&format!("{}: 1 looked at, 0 moved to other mailboxes, 1 held: ", ids[0])), "{said}");
    assert!(said.contains("--tenant fabrikam"), "{said}");
    assert_eq!(counts(&world), (12, 0));
    // A tenant or a message that is not there.
    for (arguments, said) in [
        (["queue", "reroute", ids[0].as_str(), "--tenant", "tailspin"], "in a tenant called \"tailspin\""),
        (["queue", "reroute", "no id", "--tenant", "fabrikam"], "\"no id\" is no queue id"),
    ] {
        let output = world.command(&arguments);
        assert_ne!(output.status.code(), Some(0), "{output:?}");
        assert!(text(&output.stderr).contains(said) && output.stdout.is_empty(), "{output:?}");
    }
    let output = world.command(&["queue", "reroute", "77-1F", "--tenant", "fabrikam"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(text(&output.stdout).starts_with("77-1F: nothing waits there"), "{output:?}");
    let output = world.command(&["queue", "reroute"]);
    assert_eq!(output.status.code(), Some(64), "neither an id nor --held: {output:?}");
    // One, then the rest.
    let output = world.command(&["queue", "reroute", &ids[0], "--tenant", "fabrikam"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), format!("{}: 1 looked at, 1 moved to other mailboxes\n", ids[0]));
    assert_eq!(world.carried(1).await["m0"], PRESS);
    are_held(&world, 11).await;
    let output = world.command(&["queue", "reroute", "--held", "--tenant", "fabrikam", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json[0]["deliveries"], &json[0]["moved"], &json[0]["held"]),
        (&11.into(), &11.into(), &0.into()),
        "{json}"
    );
    all_went(&world, 12, (PRESS, PRESS)).await;
    let output = world.command(&["queue", "reroute", "--held", "--tenant", "fabrikam"]);
    assert!(text(&output.stdout).contains("nothing waits there"), "{output:?}");
    let told = |line: &str| line.contains("\"mail was asked about again\"") && line.contains("\"moved\":1,");
    assert_eq!(field(&relay.log().wait_for(told), "tenant"), "fabrikam");
    // It is of that tenant now: a reload back does not take it home by itself.
    assert_eq!(counts(&world), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mailbox_may_have_sent_goes_by_no_other_whatever_is_asked() {
    let world = Tenants::new(&rows()).await;
    let lost = Fault::once(Stage::EndOfData, Action::KeepThenClose).only(Target::Mailbox(SCANNER.to_owned()));
    world.sandbox.inject(lost).unwrap();
    let relay = world.relay(&by("scanner")).await;
    let ids = submit(&relay, "m", 1).await;
    let is_uncertain = || world.count("SELECT count(*) FROM delivery WHERE uncertain > 0") == Some(1);
    assert!(until(PATIENCE, is_uncertain).await);
    world.reload(&by("invoices"));
    are_held(&world, 1).await;
    let reason = field(&relay.log().wait_for(is_held), "reason");
    assert!(reason.contains("upstream may have it from") && reason.contains(SCANNER), "{reason}");
    for arguments in [["queue", "reroute", ids[0].as_str()], ["queue", "reroute", "--held"]] {
        let output = world.command(&arguments);
        assert!(
            text(&output.stdout).contains("0 moved to other mailboxes, 1 held: upstream may have it"),
            "{output:?}"
        );
    }
    world.reload(&by("press"));
    // It was held before: until it is told again somebody has it in his hands.
    relay.log().wait_for_another(1, is_held);
    let output = world.command(&["queue", "reroute", &ids[0], "--tenant", "fabrikam"]);
    assert!(text(&output.stdout).contains("0 moved to other mailboxes, 1 held: upstream may have it"), "{output:?}");
    assert_eq!(world.sandbox.messages().len(), 1);
    // Home again it is the same mailbox that sends it once more.
    world.reload(&by("scanner"));
    // Unless it is in somebody's hands already.
    let output = world.command(&["queue", "reroute", &ids[0]]);
    assert!(matches!(output.status.code(), Some(0 | 69)), "{output:?}");
    assert!(until(PATIENCE, || counts(&world).0 == 0).await);
    let (_, _) = relay.terminate().await;
    world.let_time_pass();
    let _relay = world.relay(&by("scanner")).await;
    all_again(&world).await;
}

async fn all_again(world: &Tenants) {
    world.sandbox.wait_for(2, PATIENCE).await.unwrap();
    world.is_empty().await;
    let logins: Vec<_> = world.sandbox.messages().iter().map(|message| message.login.clone()).collect();
    assert_eq!(logins, [SCANNER, SCANNER]);
}

/// A reload parts a message's recipients anew, within its tenant and beyond it.
#[tokio::test(flavor = "multi_thread")]
async fn recipients_that_new_routes_part_go_each_their_way_and_only_those_of_another_tenant_are_held() {
    let world = Tenants::new(&rows()).await;
    world.refuse_logins(SCANNER);
    let relay = world.relay(&by("scanner")).await;
    let recipients = ["a@i.example", "b@f.example", "c@s.example", "d@i.example"];
    let submission = Submission { recipients: &recipients, ..Submission::from("lan", SCANNER, "parts") };
    assert_eq!(submission.send(&relay).await.code(), 250);
    relay.log().wait_for(stands_still);
    let route = |recipients: &str, mailbox: &str| {
        format!("[[route]]\nname = \"{mailbox}\"\nrecipients = [\"{recipients}\"]\nmailbox = [\"{mailbox}\"]\n")
    };
    let routes = [
        listener("lan", ""),
        route("*@i.example", "invoices"),
        route("*@f.example", "press"),
        route("*@s.example", "scanner"),
    ];
    world.reload(&routes.concat());
    world.carried(1).await;
    let of = |message: &sandbox::Message| {
        let recipients: Vec<_> = message.recipients.iter().map(|recipient| recipient.address.clone()).collect();
        (message.login.clone(), recipients)
    };
    let all = || world.sandbox.messages().iter().map(|message| of(message)).collect::<BTreeSet<_>>();
    let invoices = (INVOICES.to_owned(), vec!["a@i.example".to_owned(), "d@i.example".to_owned()]);
    assert_eq!(all(), BTreeSet::from([invoices.clone()]));
    assert!(until(PATIENCE, || counts(&world) == (1, 1)).await, "{:?}", counts(&world));
    let output = world.command(&["queue", "reroute", "--held", "--tenant", "fabrikam"]);
    assert_eq!(text(&output.stdout), "held mail: 1 looked at, 1 moved to other mailboxes\n");
    world.carried(2).await;
    let press = (PRESS.to_owned(), vec!["b@f.example".to_owned()]);
    assert_eq!(all(), BTreeSet::from([invoices, press]));
    world.are_queued(1).await;
}

/// The kill comes while the queue is looked through; whatever was moved by then goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_is_being_moved_survives_kill_9() {
    const MESSAGES: usize = 400;
    let (world, relay, _) = held_world(MESSAGES).await;
    // Nothing leaves before the kill.
    world.refuse_logins(INVOICES);
    world.configure(&by("invoices"));
    relay.signal("HUP");
    let moved = "SELECT count(*) FROM delivery WHERE lane LIKE '%invoices@contoso.com%'";
    let some = || world.count(moved).is_some_and(|count| count > 0);
    assert!(until(PATIENCE, some).await);
    relay.kill();
    let by_then = world.count(moved).unwrap();
    eprintln!("{by_then} of {MESSAGES} were moved at the kill");
    world.sandbox.clear_faults();
    let _relay = world.relay(&by("invoices")).await;
    all_went(&world, MESSAGES, (INVOICES, "documents@contoso.com")).await;
}

/// What no route takes any more waits for one that does.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_no_route_takes_any_more_is_held_until_one_does() {
    let (world, relay, ids) = held_world(5).await;
    world.reload(&(by("scanner") + "senders = [\"*@contoso.com\"]\n"));
    are_held(&world, 5).await;
    let line = relay.log().wait_for(is_held);
    assert!(ids.contains(&field(&line, "id")), "{line}");
    assert_eq!(field(&line, "reason"), "no route takes it any more; route \"scanner\" did when it was accepted");
    let output = world.command(&["queue", "reroute", "--held", "--tenant", "fabrikam"]);
    let said = text(&output.stdout);
    assert!(
        said.contains("0 moved to other mailboxes: no route gives it to tenant fabrikam, so it stays where it was"),
        "{said}"
    );
    world.reload(&by("invoices"));
    all_went(&world, 5, (INVOICES, "documents@contoso.com")).await;
    assert_eq!(counts(&world), (0, 0));
}

/// One reading of the routes holds for a transaction; what it queues follows the next all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_begun_before_a_reload_goes_by_the_routes_behind_it() {
    let world = Tenants::new(&rows()).await;
    let relay = world.relay(&by("scanner")).await;
    let mut client = connected(&relay, "lan", 2, None).await;
    for line in ["MAIL FROM:<root@erp01>", "RCPT TO:<a@c.example>"] {
        assert_eq!(client.command(line).await.unwrap().code(), 250);
    }
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(b"From: root@erp01\r\nMessage-ID: <m0@test.local>\r\n").await.unwrap();
    world.reload(&by_route("renamed", "invoices"));
    client.write(b"\r\nhi\r\n.\r\n").await.unwrap();
    assert_eq!(client.reply().await.unwrap().code(), 250);
    all_went(&world, 1, (INVOICES, "documents@contoso.com")).await;
}

/// Reloads to and fro under load: every message leaves once, by one of the two mailboxes and as that one.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_lose_nothing_and_mix_no_identities() {
    const CLIENTS: u8 = 6;
    const EACH: usize = 80;
    let world = Tenants::new(&rows()).await;
    let relay = Arc::new(world.relay(&by("scanner")).await);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let relay = Arc::clone(&relay);
        clients.spawn(async move { submit(&relay, &format!("c{client}."), EACH).await.len() });
    }
    let mut reloads = 0;
    while clients.try_join_next().is_none() || reloads < 6 {
        reloads += 1;
        world.reload(&if reloads % 2 == 0 { by("scanner") } else { by_route("other", "invoices") });
    }
    while let Some(done) = clients.join_next().await {
        assert_eq!(done.unwrap(), EACH);
    }
    let total = usize::from(CLIENTS) * EACH;
    world.carried(total).await;
    world.is_empty().await;
    let messages = world.sandbox.messages();
    assert_eq!(messages.len(), total, "each once");
    let mut logins = BTreeSet::new();
    for message in &messages {
        let from = if message.login == INVOICES { "documents@contoso.com" } else { SCANNER };
        assert_eq!((message.reverse_path.as_str(), message.header_from[0].as_str()), (from, from));
        logins.insert(message.login.as_str());
    }
    assert_eq!(logins.len(), 2, "both carried some");
    assert_eq!(world.sandbox.duplicates(), []);
    assert_eq!(world.denials(), []);
}

/// A pool that refuses foreign senders has mail for two of its three mailboxes, and the routes are read anew.
#[tokio::test(flavor = "multi_thread")]
async fn mail_for_some_mailboxes_of_a_pool_stays_with_these_over_a_reload() {
    const MESSAGES: usize = 20;
    let sales = |name| Row {
        send_as: &["sales@contoso.com"],
        keys: "may_send_as = [\"sales@contoso.com\"]",
        ..row("contoso", name)
    };
    let rows = [row("contoso", "scanner"), sales("backup"), sales("docs")];
    let world = Tenants::new(&rows).await;
    world.open_mailbox("contoso", "sales@contoso.com");
    let pool = |name: &str| {
        listener("lan", "")
            + &format!(
                "[[route]]\nname = \"{name}\"\nsender = \"reject\"\nmailbox = [\"scanner\", \"backup\", \"docs\"]\n"
            )
    };
    for name in ["scanner", "backup", "docs"] {
        world.refuse_logins(&format!("{name}@contoso.com"));
    }
    let relay = world.relay(&pool("pool")).await;
    for number in 0..MESSAGES {
        let name = format!("m{number}");
        assert_eq!(Submission::from("lan", "sales@contoso.com", &name).send(&relay).await.code(), 250);
    }
    world.are_queued(i64::try_from(MESSAGES).unwrap()).await;
    world.reload(&pool("renamed"));
    let followed = || world.count("SELECT count(*) FROM delivery WHERE route = 'renamed'");
    assert!(until(PATIENCE, || followed() == Some(i64::try_from(MESSAGES).unwrap())).await, "{:?}", followed());
    let (status, _) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    world.sandbox.clear_faults();
    world.let_time_pass();
    let relay = world.relay(&pool("renamed")).await;
    world.carried(MESSAGES).await;
    world.is_empty().await;
    assert!(world.sandbox.messages().iter().all(|message| message.login != SCANNER));
    assert_eq!(world.denials(), []);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
}

/// What the simulated Exchange has had and not answered, as the queue marks it.
async fn is_in_flight(world: &Tenants) {
    let is_marked = || world.count("SELECT count(*) FROM delivery WHERE in_flight IS NOT NULL") == Some(1);
    assert!(until(PATIENCE, is_marked).await);
}

/// Exchange keeps one message at once and answers so late.
fn late_answer(world: &Tenants, after: Duration) {
    let late = Fault::once(Stage::EndOfData, Action::Delay(after)).only(Target::Mailbox(SCANNER.to_owned()));
    world.sandbox.inject(late).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_sent_during_a_reload_ends_where_it_began() {
    let world = Tenants::new(&rows()).await;
    late_answer(&world, Duration::from_secs(3));
    let relay = world.relay(&by("scanner")).await;
    submit(&relay, "m", 1).await;
    world.carried(1).await;
    is_in_flight(&world).await;
    world.reload(&by("invoices"));
    submit(&relay, "next", 1).await;
    let carried = world.carried(2).await;
    assert_eq!((carried["m0"].as_str(), carried["next0"].as_str()), (SCANNER, INVOICES));
    world.is_empty().await;
    assert_eq!(world.sandbox.messages().len(), 2, "each once");
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_sent_at_a_kill_is_held_when_the_next_start_gives_it_to_another_mailbox() {
    let world = Tenants::new(&rows()).await;
    late_answer(&world, Duration::from_mins(5));
    let relay = world.relay(&by("scanner")).await;
    submit(&relay, "m", 1).await;
    world.carried(1).await;
    is_in_flight(&world).await;
    relay.kill();
    world.let_time_pass();
    let relay = world.relay(&by("invoices")).await;
    are_held(&world, 1).await;
    let reason = field(&relay.log().wait_for(is_held), "reason");
    assert!(reason.contains("upstream may have it from") && reason.contains(SCANNER), "{reason}");
    submit(&relay, "next", 1).await;
    assert_eq!(world.carried(2).await["next0"], INVOICES);
    assert_eq!(world.sandbox.messages().len(), 2);
    // Back home it is sent once more, which is what its mark means.
    let (status, _) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    let _relay = world.relay(&by("scanner")).await;
    world.sandbox.wait_for(3, PATIENCE).await.unwrap();
    let messages = world.sandbox.messages();
    assert_eq!((messages[2].login.as_str(), messages[2].message_id.as_str()), (SCANNER, "<m0@test.local>"));
    world.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_mailbox_that_a_reload_removes_goes_by_the_one_that_took_its_place() {
    let world = Tenants::new(&rows()).await;
    world.open_mailbox("contoso", "extra@contoso.com");
    world.refuse_logins("extra@contoso.com");
    let extra = "[mailbox.extra]\ntenant = \"contoso\"\naddress = \"extra@contoso.com\"\n";
    let relay = world.relay(&(extra.to_owned() + &by("extra"))).await;
    submit(&relay, "m", 50).await;
    relay.log().wait_for(stands_still);
    world.reload(&by("invoices"));
    all_went(&world, 50, (INVOICES, "documents@contoso.com")).await;
    relay.log().wait_for(|line| line.contains("lane ended by a reload"));
    let lanes = world.status()["lanes"].as_array().unwrap().clone();
    assert!(lanes.iter().all(|lane| lane["login"] != "extra@contoso.com"), "{lanes:?}");
}
