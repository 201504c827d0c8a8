//! Which way a message goes, and as whom: the first recipient fixes the lane, and routes, rewriting, pools and permissions hold as
//! they do for the queue.

use std::collections::BTreeSet;

use sandbox::{Fault, Limits, Message, SandboxOptions, SmtpAuth, Stage, Target};
use wire::Reply;

use super::{At, DIRECT, Heard, converse, passes, recipients, submit, submit_from, world};
use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, World, field, message};
use crate::lanes::{POOL, SECOND_MAILBOX, tenant};
use crate::tenants::{Row, Submission, Tenants, connected, listener, row, user};

const SECOND: &str = "second@contoso.com";

/// Two mailboxes, each of which may send as the other, and a direct listener with these routes.
async fn two_mailboxes(routes: &str) -> World {
    let options = SandboxOptions { limits: Limits::Off, tenants: vec![tenant()], ..SandboxOptions::default() };
    World::with(options).await.set("listener", DIRECT).set("tables", format!("{SECOND_MAILBOX}{routes}"))
}

/// By recipient.
const PARTED: &str = "[[route]]\nname = \"a\"\nrecipients = [\"*@a.example\"]\nmailbox = [\"scanner\"]\n\
                      [[route]]\nname = \"b\"\nrecipients = [\"*@b.example\"]\nmailbox = [\"second\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_of_another_lane_is_told_to_come_alone_and_passes_so() {
    let world = two_mailboxes(PARTED).await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    let mut asked =
        async |recipient: &str| client.command(&format!("RCPT TO:<{recipient}>")).await.unwrap().to_string();
    assert!(asked("one@a.example").await.starts_with("250 2.1.5 "));
    let reply = asked("one@b.example").await;
    assert!(reply.starts_with("452 4.5.3 Goes another way than the recipients before it"), "{reply}");
    assert!(asked("two@a.example").await.starts_with("250 2.1.5 "));
    // A route that does not exist is refused for good.
    assert!(asked("one@c.example").await.starts_with("550 5.7.1 "));
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(&message("to a")).await.unwrap();
    assert_eq!(client.command("\r\n.").await.unwrap().code(), 250);
    let heard = converse(&mut client, SENDER, &["one@b.example"], &message("to b")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    let taken = world.sandbox.messages();
    let went: Vec<_> = taken.iter().map(|message| (message.login.as_str(), recipients(message))).collect();
    assert_eq!(went, [(SENDER, vec!["one@a.example", "two@a.example"]), (SECOND, vec!["one@b.example"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_the_mailbox_may_not_use_is_rewritten_in_envelope_and_header() {
    let world = world().await;
    let relay = world.relay().await;
    let text = b"From: ERP <app@erp.local>\r\nSubject: rewritten\r\nMessage-ID: <rewritten@test.local>\r\n\r\nbody";
    let mut client = Client::connect(relay.address).await.unwrap();
    let heard = converse(&mut client, "app@erp.local", &[RECIPIENT], text).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    let taken = &world.sandbox.messages()[0];
    assert_eq!((taken.login.as_str(), taken.reverse_path.as_str()), (SENDER, SENDER));
    assert_eq!(taken.header_from, [SENDER]);
    // Envelope and header each for itself.
    for (sender, from) in [(SENDER, "app@erp.local"), ("app@erp.local", SENDER)] {
        let text = format!("From: {from}\r\nSubject: x\r\n\r\nbody");
        let heard = converse(&mut client, sender, &[RECIPIENT], text.as_bytes()).await.unwrap();
        assert!(heard.is_taken(), "{sender}, {from}: {heard:?}");
    }
    assert!(
        world
            .sandbox
            .messages()
            .iter()
            .all(|message| message.reverse_path == SENDER && message.header_from == [SENDER])
    );
    assert_eq!(world.sandbox.send_as_denials(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_sender_goes_as_the_queue_would_send_it() {
    let world = world().await.set("tables", listener("queue", ""));
    let relay = world.relay().await;
    let text = format!("From: {SENDER}\r\nSubject: report\r\n\r\nbody");
    for name in ["local", "queue"] {
        let mut client = connected(&relay, name, 1, None).await;
        let heard = converse(&mut client, "", &[RECIPIENT], text.as_bytes()).await.unwrap();
        assert!(heard.is_taken(), "{name}: {heard:?}");
    }
    let taken = world.wait_for(2).await;
    let shown =
        |message: &Message| (message.reverse_path.clone(), message.header_from.clone(), message.parameters.len());
    assert_eq!(shown(&taken[0]).0, shown(&taken[1]).0);
    assert_eq!(shown(&taken[0]).1, shown(&taken[1]).1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_sender_whose_way_depends_on_its_from_field_is_refused_with_the_reason() {
    let routes = "[[route]]\nname = \"one\"\nsenders = [\"scanner@contoso.com\"]\nmailbox = [\"scanner\"]\n\
                  [[route]]\nname = \"two\"\nmailbox = [\"second\"]\n";
    let world = two_mailboxes(routes).await;
    let relay = world.relay().await;
    let heard = submit_from(relay.address, "", "null").await;
    assert_eq!(heard.at, At::Rcpt);
    assert!(
        heard.text().starts_with("550 5.7.1 The way of mail with a null sender depends on its From field"),
        "{heard:?}"
    );
    passes(relay.address, "named").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_uses_both_mailboxes_and_one_takes_over_while_the_other_is_in_trouble() {
    let world = two_mailboxes(POOL).await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    for number in 0..10 {
        // The first recipient chooses, and the other goes along.
        let text = message(&format!("both{number}"));
        let heard = converse(&mut client, SENDER, &[RECIPIENT, "other@example.com"], &text).await.unwrap();
        assert!(heard.is_taken(), "{heard:?}");
    }
    assert_eq!(logins(&world, 0), BTreeSet::from([SENDER.to_owned(), SECOND.to_owned()]));
    // Its connections are closed before, since a login is looked at only when it is made.
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    world.sandbox.set_mailbox_smtp_auth(SECOND, SmtpAuth::Disabled).unwrap();
    let relay = world.relay().await;
    let mut told = 0;
    for number in 0..10 {
        // Whoever finds out hears so, and all others go by the other.
        let heard = submit(relay.address, &format!("one{number}")).await;
        if !heard.is_taken() {
            assert!(heard.text().starts_with("451 4.3.0 The relay cannot send now: "), "{heard:?}");
            told += 1;
        }
    }
    assert!(told <= 1, "{told} clients were told of the trouble");
    assert_eq!(logins(&world, 10), BTreeSet::from([SENDER.to_owned()]));
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(field(&line, "lane").ends_with(SECOND), "{line}");
    // With both in trouble it is told at once.
    relay.terminate().await;
    world.sandbox.set_mailbox_smtp_auth(SENDER, SmtpAuth::Disabled).unwrap();
    let relay = world.relay().await;
    for number in 0..4 {
        let heard = submit(relay.address, &format!("none{number}")).await;
        assert!(heard.at == At::Rcpt && heard.text().starts_with("451 4.3.0 The relay cannot send now: "), "{heard:?}");
    }
}

/// Which mailboxes carried what came behind the first `before` messages.
fn logins(world: &World, before: usize) -> BTreeSet<String> {
    world.sandbox.messages().iter().skip(before).map(|message| message.login.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirecting_route_sends_everything_to_one_address_once() {
    let routes = "[[route]]\nname = \"test\"\nmailbox = [\"scanner\"]\nredirect_all_to = \"test@contoso.com\"\n";
    let world = two_mailboxes(routes).await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT, "other@example.com"], &message("redirected")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!(recipients(&world.sandbox.messages()[0]), ["test@contoso.com"]);
}

/// One mailbox with a section, and any other by the wildcard.
fn rows() -> [Row; 1] {
    [row("contoso", "scanner")]
}

fn own() -> String {
    [
        &listener("lan", &format!("authentication = \"optional\"\n{DIRECT}")),
        &user("app", "allowed_senders = [\"*@contoso.com\"]"),
        "[mailbox.anybody]\ntenant = \"contoso\"\naddress = \"*@contoso.com\"\nmessages_per_minute = 1000000\n",
        "[[route]]\nname = \"own\"\nmailbox = [\"{sender}\"]\nfallback = \"scanner\"\n",
    ]
    .concat()
}

async fn send(relay: &Relay, sender: &str, from: &str, name: &str) -> Reply {
    Submission { user: Some("app"), from, ..Submission::from("lan", sender, name) }.send(relay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sender_goes_by_the_login_of_its_own_mailbox() {
    let world = Tenants::new(&rows()).await;
    for name in ["anna", "bert"] {
        world.open_mailbox("contoso", &format!("{name}@contoso.com"));
    }
    let relay = world.relay(&own()).await;
    for name in ["anna", "bert", "scanner", "anna"] {
        let address = format!("{name}@contoso.com");
        let reply = send(&relay, &address, &address, &format!("{name}.1")).await;
        assert_eq!(reply.code(), 250, "{name}: {reply}");
        let taken = world.sandbox.messages();
        let last = taken.last().unwrap();
        assert_eq!((last.login.as_str(), last.reverse_path.as_str()), (address.as_str(), address.as_str()));
    }
    // One that Exchange does not know: a passing trouble is told, and the fallback takes over once that is known.
    let unknown = "nobody@contoso.com";
    let reply = send(&relay, unknown, unknown, "nobody.1").await;
    assert!(reply.code() == 451 || reply.code() == 250, "{reply}");
    let reply = send(&relay, unknown, unknown, "nobody.2").await;
    assert!(reply.code() == 451 || reply.code() == 250, "{reply}");
    assert!(world.sandbox.messages().iter().all(|message| message.login != unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_from_that_the_user_may_not_use_is_refused_behind_data_and_the_next_message_passes() {
    let world = Tenants::new(&rows()).await;
    let tables = [
        &listener("lan", &format!("authentication = \"optional\"\n{DIRECT}")),
        &user("app", "allowed_senders = [\"scanner@contoso.com\"]"),
        "[[route]]\nname = \"all\"\nmailbox = [\"scanner\"]\n",
    ]
    .concat();
    let relay = world.relay(&tables).await;
    let mut client = connected(&relay, "lan", 1, Some("app")).await;
    for (number, size) in [0, 500_000].into_iter().enumerate() {
        let filler = "x".repeat(70) + "\r\n";
        let text = format!("From: boss@contoso.com\r\nSubject: no\r\n\r\n{}", filler.repeat(size / filler.len()));
        let Heard { at, reply } = converse(&mut client, SENDER, &[RECIPIENT], text.as_bytes()).await.unwrap();
        assert_eq!(at, At::End);
        let start = "550 5.7.1 User app may not send as boss@contoso.com (From field)";
        assert!(reply.to_string().starts_with(start), "{reply}");
        let heard = converse(&mut client, SENDER, &[RECIPIENT], &message(&format!("next{number}"))).await.unwrap();
        assert!(heard.is_taken(), "{heard:?}");
    }
    let reply = client.command("MAIL FROM:<boss@contoso.com>").await.unwrap();
    assert!(reply.to_string().starts_with("550 5.7.1 User app may not send as boss@contoso.com"), "{reply}");
    let ids: Vec<_> = world.sandbox.messages().iter().map(|message| message.message_id.clone()).collect();
    assert_eq!(ids, [super::id("next0"), super::id("next1")]);
    assert_eq!(world.denials(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trouble_of_one_tenant_is_not_another_ones() {
    let rows = [row("contoso", "scanner"), row("fabrikam", "press")];
    let world = Tenants::new(&rows).await;
    let tables = [
        &listener("lan", DIRECT),
        "[[route]]\nname = \"f\"\nrecipients = [\"*@f.example\"]\nmailbox = [\"press\"]\n",
        "[[route]]\nname = \"c\"\nmailbox = [\"scanner\"]\n",
    ]
    .concat();
    let disabled = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. [..]";
    let fault = Fault::always(Stage::Auth, sandbox::Action::Reply(disabled.to_owned()));
    world.sandbox.inject(fault.only(Target::Mailbox(SENDER.to_owned()))).unwrap();
    let relay = world.relay(&tables).await;
    let mut client = connected(&relay, "lan", 1, None).await;
    let heard = converse(&mut client, SENDER, &["one@c.example"], &message("held")).await.unwrap();
    assert_eq!((heard.at, heard.reply.code()), (At::Rcpt, 451), "{heard:?}");
    assert!(heard.text().contains(disabled.trim_end_matches(" [..]")), "{heard:?}");
    // On the same session, once it is taken back.
    assert_eq!(client.command("RSET").await.unwrap().code(), 250);
    let heard = converse(&mut client, "press@fabrikam.com", &["one@f.example"], &message("passes")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    let taken = world.sandbox.wait_for(1, PATIENCE).await.unwrap();
    assert_eq!((taken.len(), taken[0].login.as_str()), (1, "press@fabrikam.com"));
}
