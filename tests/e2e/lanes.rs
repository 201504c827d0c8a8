//! Several mailboxes: routes by listener, pools that spread and take over, limits of a message and a day, limits that are
//! learned, turns between clients.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock as _, SystemClock, WallTime};
use sandbox::{
    Action, Application, DEFAULT_CLIENT_ID, DEFAULT_SECRET, DEFAULT_TENANT_ID, Fault, Grant, Limits, Mailbox, Message,
    SandboxOptions, SmtpAuth, Stage, Target, TenantModel,
};
use serde_json::Value;

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, World, binary, field, message, split, until};

const SECOND: &str = "second@contoso.com";
/// Without limits of its own, as the harness sets the first.
pub(crate) const SECOND_MAILBOX: &str =
    "[mailbox.second]\naddress = \"second@contoso.com\"\nconnections = 10\nmessages_per_minute = 1000000\n";
pub(crate) const POOL: &str = "[[route]]\nname = \"pool\"\nmailbox = [\"scanner\", \"second\"]\n";

/// The ready tenant with a second mailbox; each may send as the other, as those of a pool must.
pub(crate) fn tenant() -> TenantModel {
    let mailbox =
        |address: &str, other: &str| Mailbox::new(address).granted(DEFAULT_CLIENT_ID, Grant::Rbac).send_as(other);
    TenantModel::new(DEFAULT_TENANT_ID, &["contoso.onmicrosoft.com", "contoso.com"])
        .application(Application::new(DEFAULT_CLIENT_ID, DEFAULT_SECRET))
        .mailbox(mailbox(SENDER, SECOND))
        .mailbox(mailbox(SECOND, SENDER))
}

/// A tenant of two mailboxes, and a relay with both and this in the sections that are named.
async fn two_mailboxes(second: &str) -> World {
    let options = SandboxOptions { limits: Limits::Off, tenants: vec![tenant()], ..SandboxOptions::default() };
    World::with(options).await.set("tables", format!("{SECOND_MAILBOX}{second}"))
}

async fn pool() -> World {
    two_mailboxes("").await.set("tables", POOL)
}

async fn submit(address: SocketAddr, name: &str, recipients: &[impl AsRef<str>]) {
    let mut client = Client::connect(address).await.unwrap();
    let recipients: Vec<_> = recipients.iter().map(AsRef::as_ref).collect();
    assert_eq!(client.send(&recipients, &message(name)).await.unwrap().code(), 250);
}

/// Numbered messages on one connection.
async fn submit_many(client: &mut Client, name: &str, count: usize) {
    for number in 0..count {
        assert_eq!(client.send(&[RECIPIENT], &message(&format!("{name}{number}"))).await.unwrap().code(), 250);
    }
}

/// How many of these came by which login.
fn by_login(messages: &[Arc<Message>]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(message.login.as_str()).or_default() += 1;
    }
    counts
}

/// Where a listener listens.
fn address(relay: &Relay, listener: &str) -> SocketAddr {
    let is_it = |line: &str| line.contains("\"listening\"") && field(line, "listener") == listener;
    field(&relay.log().wait_for(is_it), "address").parse().unwrap()
}

/// The lanes that `status --json` shows, by login.
fn lanes(world: &World) -> BTreeMap<String, Value> {
    let output = binary().args(["status", "--json", "--config"]).arg(world.configuration()).output().unwrap();
    let snapshot: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lanes = snapshot["lanes"].as_array().unwrap().iter();
    lanes.map(|lane| (lane["login"].as_str().unwrap().to_owned(), lane.clone())).collect()
}

async fn is_empty(world: &World) {
    let is_empty = || world.count("SELECT count(*) FROM delivery") == Some(0);
    assert!(until(PATIENCE, is_empty).await, "something is still queued");
}

async fn restart(world: &World, relay: Relay) -> Relay {
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    world.relay().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_spreads_its_mail_and_goes_on_by_one_mailbox_while_the_other_is_switched_off() {
    let world = pool().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "both", 200).await;
    let taken = world.wait_for(200).await;
    assert_eq!(by_login(&taken).into_keys().collect::<Vec<_>>(), [SENDER, SECOND], "both are used");
    // Its connections are closed before, since a login is looked at only when it is made.
    let relay = restart(&world, relay).await;
    world.sandbox.set_mailbox_smtp_auth(SECOND, SmtpAuth::Disabled).unwrap();
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "one", 200).await;
    let taken = world.wait_for(400).await;
    assert_eq!(by_login(&taken[200..]), BTreeMap::from([(SENDER, 200)]), "everything goes by the other");
    let stands_still = |line: &str| line.contains("lane stands still");
    let line = relay.log().wait_for(stands_still);
    assert!(field(&line, "lane").ends_with(SECOND) && field(&line, "scope") == "mailbox", "{line}");
    assert_eq!(relay.log().count(stands_still), 1, "told once");
    world.sandbox.set_mailbox_smtp_auth(SECOND, SmtpAuth::Inherit).unwrap();
    let relay = restart(&world, relay).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "again", 200).await;
    let taken = world.wait_for(600).await;
    assert_eq!(by_login(&taken[400..]).into_keys().collect::<Vec<_>>(), [SENDER, SECOND], "both again");
    assert_eq!(world.sandbox.duplicates(), []);
    is_empty(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_with_a_route_each_go_by_their_own_mailbox() {
    let world = two_mailboxes(
        "[listener.other]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"first\"\nlisteners = [\"local\"]\nmailbox = [\"scanner\"]\n\
         [[route]]\nname = \"other\"\nlisteners = [\"other\"]\nmailbox = [\"second\"]\n",
    )
    .await;
    let relay = world.relay().await;
    for (listener, login) in [("local", SENDER), ("other", SECOND)] {
        let before = world.sandbox.counters().messages;
        for number in 0..5 {
            submit(address(&relay, listener), &format!("{listener}{number}"), &[RECIPIENT]).await;
        }
        let taken = world.wait_for(before + 5).await;
        let before = usize::try_from(before).unwrap();
        assert_eq!(by_login(&taken[before..]), BTreeMap::from([(login, 5)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_listener_without_a_route_is_refused_and_told() {
    let world = two_mailboxes(
        "[listener.other]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"only\"\nlisteners = [\"local\"]\nmailbox = [\"scanner\", \"second\"]\n",
    )
    .await;
    let relay = world.relay().await;
    let mut client = Client::connect(address(&relay, "other")).await.unwrap();
    let reply = client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap();
    assert!(reply.to_string().starts_with("550 5.7.1 No route takes this mail from here"), "{reply}");
    let line = relay.log().wait_for(|line| line.contains("mail refused") && line.contains("no [[route]] matches"));
    assert_eq!((field(&line, "listener").as_str(), field(&line, "client").as_str()), ("other", "127.0.0.1"));
    submit(address(&relay, "local"), "routed", &[RECIPIENT]).await;
    world.wait_for(1).await;
}

/// So many recipients of each domain.
fn people(count: usize, domain: &str) -> Vec<String> {
    (0..count).map(|number| format!("r{number}@{domain}")).collect()
}

/// Everybody in `recipients` has the same message once, in messages of these sizes.
fn assert_split(taken: &[Arc<Message>], recipients: &[String], sizes: &[usize]) {
    let mut found: Vec<_> = taken.iter().map(|message| message.recipients.len()).collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(found, sizes);
    let mut served: Vec<_> = taken.iter().flat_map(|message| &message.recipients).map(|one| &one.address).collect();
    served.sort();
    let mut wanted: Vec<_> = recipients.iter().collect();
    wanted.sort();
    assert_eq!(served, wanted);
    let contents: HashSet<_> = taken.iter().map(|message| split(message)).collect();
    assert_eq!(contents.len(), 1, "the same content for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_more_recipients_than_a_message_may_have_goes_in_several_of_the_same_content() {
    let world = World::new().await.set("mailbox", "recipients_per_message = 3");
    let relay = world.relay().await;
    let recipients = people(8, "example.com");
    submit(relay.address, "eight", &recipients).await;
    let taken = world.wait_for(3).await;
    is_empty(&world).await;
    assert_split(&world.sandbox.messages(), &recipients, &[3, 3, 2]);
    assert_eq!(taken.len(), 3);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_of_one_domain_beyond_200_go_in_a_message_of_their_own() {
    let world = World::new().await;
    let relay = world.relay().await;
    let recipients = people(250, "example.com");
    submit(relay.address, "many", &recipients).await;
    world.wait_for(2).await;
    is_empty(&world).await;
    assert_split(&world.sandbox.messages(), &recipients, &[200, 50]);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_beyond_those_of_a_mailboxs_day_wait_over_a_restart_too() {
    let world = World::new().await.set("mailbox", "recipients_per_day = 5");
    let relay = world.relay().await;
    submit(relay.address, "three", &people(3, "a.example")).await;
    world.wait_for(1).await;
    let recipients = people(3, "b.example");
    submit(relay.address, "three more", &recipients).await;
    world.wait_for(2).await;
    let is_shown = || {
        let lane = &lanes(&world)[SENDER];
        (lane["recipients_last_day"].as_u64(), lane["recipients_per_day"].as_u64(), lane["queued"].as_u64())
            == (Some(5), Some(5), Some(1))
    };
    assert!(until(PATIENCE, is_shown).await, "{:?}", lanes(&world));
    let relay = restart(&world, relay).await;
    assert!(until(PATIENCE, is_shown).await, "{:?}", lanes(&world));
    submit(relay.address, "waits too", &[RECIPIENT]).await;
    assert!(until(PATIENCE, || lanes(&world)[SENDER]["queued"] == 2).await, "{:?}", lanes(&world));
    let taken = world.sandbox.messages();
    let served: Vec<_> = taken.iter().flat_map(|message| &message.recipients).collect();
    assert_eq!((taken.len(), served.len()), (2, 5), "no sixth");
    let warned = |line: &str| line.contains("\"WARN\"") && line.contains("the login's day is used up");
    assert_eq!(relay.log().count(warned), 1, "{}", relay.log().text());
    // With a day of more recipients they go.
    relay.terminate().await;
    let text = world.configuration_text().replace("recipients_per_day = 5", "recipients_per_day = 7");
    let configuration = world.path("later.toml");
    std::fs::write(&configuration, text).unwrap();
    let _relay = Relay::start(&configuration).await;
    let taken = world.wait_for(4).await;
    assert_eq!(taken.iter().flat_map(|message| &message.recipients).count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn external_recipients_of_a_tenants_day_are_those_of_all_its_mailboxes() {
    let world = two_mailboxes(
        "[listener.other]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"first\"\nlisteners = [\"local\"]\nmailbox = [\"scanner\"]\n\
         [[route]]\nname = \"other\"\nlisteners = [\"other\"]\nmailbox = [\"second\"]\n",
    )
    .await
    .set("tenant", "external_recipients_per_day = 5");
    let relay = world.relay().await;
    submit(address(&relay, "local"), "three", &people(3, "a.example")).await;
    world.wait_for(1).await;
    submit(address(&relay, "other"), "three more", &people(3, "b.example")).await;
    world.wait_for(2).await;
    // The tenant's own are not counted, and go by both.
    for (listener, count) in [("local", 3), ("other", 4)] {
        submit(address(&relay, listener), "own", &people(1, "contoso.com")).await;
        world.wait_for(count).await;
    }
    let relay = restart(&world, relay).await;
    for listener in ["local", "other"] {
        submit(address(&relay, listener), "too many", &people(1, "c.example")).await;
    }
    submit(address(&relay, "local"), "own again", &people(1, "contoso.com")).await;
    let taken = world.wait_for(5).await;
    let is_external = |address: &str| !address.ends_with("@contoso.com");
    let all = taken.iter().flat_map(|message| &message.recipients);
    assert_eq!(all.filter(|recipient| is_external(&recipient.address)).count(), 5);
    assert!(until(PATIENCE, || world.count("SELECT count(*) FROM delivery") == Some(3)).await);
    assert_eq!(world.sandbox.counters().messages, 5);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 0, "{}", relay.log().text());
}

/// Takes more than a minute, since the relay's own minute is a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_configured_too_high_settles_at_what_upstream_takes() {
    const MESSAGES: usize = 45;
    let options = SandboxOptions { limits: Limits::Exchange, ..SandboxOptions::default() };
    let world = World::with(options).await.set("mailbox", "connections = 5\nmessages_per_minute = 60");
    // Long enough that five are under way at the same time.
    let slow = Fault::once(Stage::Data, Action::Delay(Duration::from_secs(1))).times(5);
    world.sandbox.inject(slow).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "m", MESSAGES).await;
    let all_went = || world.sandbox.counters().messages == MESSAGES as u64;
    assert!(until(3 * PATIENCE, all_went).await, "{}", relay.log().text());
    let text = relay.log().text();
    let is_refusal = |line: &&str| line.contains("not sent yet") && line.contains("\"paced\"");
    let connections = text.lines().filter(is_refusal).filter(|line| line.contains("432 4.3.2")).count();
    let rate = text.lines().filter(is_refusal).filter(|line| line.contains("421 4.4.2")).count();
    eprintln!("{connections} refusals for connections and {rate} for the rate until the lane had settled");
    // How often each limit is met depends on how many are under way at that moment, and on the machine's load. Each was met,
    // and the lane keeps below what met it from then on.
    assert!(connections >= 1 && rate >= 1, "{text}");
    let lane = &lanes(&world)[SENDER];
    assert!((1..5).contains(&lane["allowed_connections"].as_u64().unwrap()), "{lane}");
    assert!((1..60).contains(&lane["allowed_messages_per_minute"].as_u64().unwrap()), "{lane}");
    assert_eq!(world.sandbox.duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_clients_flood_does_not_keep_another_clients_message_waiting() {
    const FLOOD: usize = 300;
    let options = SandboxOptions { limits: Limits::Off, ..SandboxOptions::default() };
    let world = World::with(options).await.set("listener", "networks = [\"127.0.0.0/8\"]");
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    let mut loud = Client::connect_from(Ipv4Addr::LOCALHOST, relay.address).await.unwrap();
    submit_many(&mut loud, "flood", FLOOD).await;
    let mut quiet = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), relay.address).await.unwrap();
    submit_many(&mut quiet, "quiet", 1).await;
    relay.log().wait_for(|line| line.contains("lane stands still"));
    world.sandbox.clear_faults();
    let taken = world.wait_for(FLOOD as u64 + 1).await;
    let place = taken.iter().position(|message| message.message_id == "<quiet0@test.local>").unwrap();
    eprintln!("the other client's message was number {} of {}", place + 1, taken.len());
    // Those that were probed with while the lane was in trouble, and those of the ten connections that were claimed before.
    assert!(place <= 20, "it came at place {place}");
    assert_eq!(world.sandbox.duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mailbox_of_a_pool_may_have_sent_is_sent_again_by_no_other() {
    const MESSAGES: usize = 8;
    let world = pool().await.set("retry", "uncertain_delay = \"1s\"");
    // Whichever has it loses the reply, once each.
    let lost = Fault::once(Stage::EndOfData, Action::KeepThenClose).times(u32::try_from(MESSAGES).unwrap());
    world.sandbox.inject(lost).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "lost", MESSAGES).await;
    is_empty(&world).await;
    let taken = world.sandbox.messages();
    assert_same_login(&taken);
    assert_eq!(taken.len(), 2 * MESSAGES, "each came twice");
    let lost = relay.log().count(|line| line.contains("not sent yet") && line.contains("\"uncertain\""));
    assert_eq!(lost, MESSAGES);
}

/// All copies of a message came by one login.
fn assert_same_login(messages: &[Arc<Message>]) {
    let mut logins: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for message in messages {
        logins.entry(&message.message_id).or_default().insert(&message.login);
    }
    assert!(logins.values().all(|logins| logins.len() == 1), "{logins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mailbox_of_a_pool_may_have_sent_waits_for_that_mailbox_over_kill_9() {
    let world = pool().await;
    // Upstream takes it and is silent.
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Delay(Duration::from_mins(5)))).unwrap();
    let relay = world.relay().await;
    submit(relay.address, "pinned", &[RECIPIENT]).await;
    let taken = world.wait_for(1).await;
    let login = taken[0].login.clone();
    let is_marked = || world.count("SELECT count(*) FROM delivery WHERE in_flight IS NOT NULL") == Some(1);
    assert!(until(PATIENCE, is_marked).await);
    relay.kill();
    // That mailbox is out of order, and the other is not.
    world.sandbox.set_mailbox_smtp_auth(&login, SmtpAuth::Disabled).unwrap();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("in flight when the last run was cut"));
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(field(&line, "lane").ends_with(&login), "{line}");
    submit(relay.address, "other", &[RECIPIENT]).await;
    let taken = world.wait_for(2).await;
    assert_ne!(taken[1].login, login, "what is not pinned goes by the other");
    assert_eq!(taken[1].message_id, "<other@test.local>");
    let waits_alone = || world.count("SELECT count(*) FROM delivery") == Some(1);
    assert!(until(PATIENCE, waits_alone).await, "what is pinned waits");
    world.sandbox.set_mailbox_smtp_auth(&login, SmtpAuth::Inherit).unwrap();
    relay.terminate().await;
    world.let_time_pass();
    let _relay = world.relay().await;
    let taken = world.wait_for(3).await;
    assert_eq!((taken[2].message_id.as_str(), &taken[2].login), ("<pinned@test.local>", &login));
    is_empty(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_a_tenant_is_told_once_however_many_mailboxes_it_holds() {
    let world = pool().await;
    world.sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, true).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "first", 1).await;
    let stands_still = |line: &str| line.contains("lane stands still");
    let line = relay.log().wait_for(stands_still);
    assert_eq!(field(&line, "scope"), "tenant");
    submit_many(&mut client, "held", 19).await;
    let are_troubled = || lanes(&world).values().all(|lane| lane["trouble"]["scope"] == "tenant");
    assert!(until(PATIENCE, are_troubled).await, "{:?}", lanes(&world));
    assert_eq!(world.sandbox.counters().messages, 0);
    // The login of one, and once more with a fresh token, tells it for both.
    assert_eq!(world.sandbox.counters().auth_failures, 2);
    assert_eq!(relay.log().count(|line| line.contains("\"WARN\"")), 1, "{}", relay.log().text());
    world.sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, false).unwrap();
    relay.terminate().await;
    world.let_time_pass();
    let _relay = world.relay().await;
    world.wait_for(20).await;
    is_empty(&world).await;
    assert_eq!(world.sandbox.duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_pool_is_held_only_when_none_of_its_mailboxes_works() {
    let options = SandboxOptions { limits: Limits::Off, tenants: vec![tenant()], ..SandboxOptions::default() };
    // The second sends one message a minute: what waits for its turn is not held.
    let slow = "[mailbox.second]\naddress = \"second@contoso.com\"\nmessages_per_minute = 1\n";
    let world = World::with(options).await.set("tables", format!("{slow}{POOL}")).set("retry", "max_hold = \"2s\"");
    world.sandbox.set_mailbox_smtp_auth(SENDER, SmtpAuth::Disabled).unwrap();
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    submit_many(&mut client, "waits", 3).await;
    assert_eq!(world.wait_for(1).await[0].login, SECOND);
    let has_stood_still = || lanes(&world)[SENDER]["trouble"]["since"].as_str().is_some_and(|since| is_ago(since, 5));
    assert!(until(PATIENCE, has_stood_still).await, "{:?}", lanes(&world));
    assert_eq!(relay.log().count(|line| line.contains("given up")), 0);
    assert_eq!(world.count("SELECT count(*) FROM delivery WHERE origin = 0"), Some(2));
    // Without the second, too, it is.
    relay.terminate().await;
    world.sandbox.set_mailbox_smtp_auth(SECOND, SmtpAuth::Disabled).unwrap();
    let text = world.configuration_text().replace("messages_per_minute = 1\n", "messages_per_minute = 1000\n");
    let configuration = world.path("fast.toml");
    std::fs::write(&configuration, text).unwrap();
    world.let_time_pass();
    let relay = Relay::start(&configuration).await;
    relay.log().wait_for_another(1, |line| line.contains("given up") && line.contains("retry.max_hold is over"));
}

/// Whether a time of the snapshot lies at least so many seconds back.
fn is_ago(time: &str, seconds: u64) -> bool {
    let time = WallTime::parse_rfc3339(time).unwrap();
    SystemClock::new().wall().saturating_since(time) >= Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mailbox_that_carried_a_message_of_a_pool_sends_its_report() {
    let world = pool().await;
    let off = Fault::always(Stage::Auth, Action::Reply("535 5.7.3 Authentication unsuccessful".to_owned()));
    world.sandbox.inject(off.only(Target::Mailbox(SENDER.to_owned()))).unwrap();
    let relay = world.relay().await;
    submit(relay.address, "refused", &[crate::harness::UNKNOWN]).await;
    let bounce = &world.wait_for(1).await[0];
    assert_eq!((bounce.login.as_str(), bounce.reverse_path.as_str()), (SECOND, SECOND));
    assert_eq!(bounce.recipients[0].address, SENDER);
}
