//! Routes: three tenants and twenty mailboxes behind one relay, messages that part between tenants, refusals with their
//! remedy, maps and redirection, pools of mailboxes with different From. What a reload does with mail that waits is in
//! `following`.

mod following;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Action, Fault, Stage, Target};
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, RECIPIENT, Relay, field};
use crate::tenants::{ROWS, Row, Submission, Tenants, connected, listener, row, user};

/// Who sends by which way, and what shall come of it: the table is the test's own, the relay's code has no part in it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    listener: &'static str,
    client: u8,
    user: Option<&'static str>,
    sender: &'static str,
    recipient: &'static str,
    /// Whose login carries it.
    login: &'static str,
    /// What From and the envelope are upstream.
    from: &'static str,
}

const OFFICE: &str = "office@customers.example";
const ONCALL: &str = "oncall@pager.example";

const fn case(
    name: &'static str,
    (listener, client, user): (&'static str, u8, Option<&'static str>),
    (sender, recipient): (&'static str, &'static str),
    login: &'static str,
) -> Case {
    Case { name, listener, client, user, sender, recipient, login, from: login }
}

impl Case {
    const fn from(mut self, from: &'static str) -> Self {
        self.from = from;
        self
    }
}

/// What an administrator of such a company might write.
const ROUTES: &str = r#"
[[route]]
name = "alerts"
recipients = ["*@pager.example"]
mailbox = ["monitoring"]
[[route]]
name = "erp invoices"
users = ["erp_server"]
recipients = ["*@customers.example"]
mailbox = ["invoices"]
[[route]]
name = "erp"
users = ["erp_server"]
mailbox = ["erp"]
[[route]]
name = "own"
listeners = ["cloud"]
mailbox = ["{sender}"]
fallback = "tickets"
[[route]]
name = "printers"
networks = ["127.0.0.16/28"]
mailbox = ["scanner"]
[[route]]
name = "robots"
networks = ["127.0.0.32/28"]
senders = ["*@robots.fabrikam.com", "plc@hall3.local"]
mailbox = ["robots"]
[[route]]
name = "welding shop"
networks = ["127.0.0.32/28"]
recipients = ["*@fabrikam.com"]
mailbox = ["welding"]
[[route]]
name = "fabrikam"
networks = ["127.0.0.32/28"]
mailbox = ["press"]
[[route]]
name = "crew"
senders = ["crew@tailspin.example"]
mailbox = ["crew"]
[[route]]
name = "tailspin"
senders = ["*@tailspin.example"]
mailbox = ["booking"]
[[route]]
name = "backup"
networks = ["127.0.0.64/32"]
mailbox = ["backup"]
[[route]]
name = "default"
mailbox = ["docs"]
"#;

fn company() -> String {
    let cloud = "authentication = \"required\"";
    [
        listener("lan", "authentication = \"optional\""),
        listener("cloud", cloud),
        user("erp_server", ""),
        "[mailbox.staff]\ntenant = \"contoso\"\naddress = \"*@contoso.com\"\n".to_owned(),
        user("hr_app", "allowed_senders = [\"*@contoso.com\", \"*@fabrikam.com\"]"),
        ROUTES.to_owned(),
    ]
    .concat()
}

fn cases() -> Vec<Case> {
    let lan = |client| ("lan", client, None);
    let erp = ("lan", 2, Some("erp_server"));
    let hr = ("cloud", 3, Some("hr_app"));
    vec![
        case("printer", lan(17), ("printer@floor1.local", RECIPIENT), "scanner@contoso.com"),
        case("printer-alert", lan(18), ("printer@floor1.local", ONCALL), "monitoring@contoso.com"),
        case("printer-customer", lan(31), ("scanner@contoso.com", OFFICE), "scanner@contoso.com"),
        case("erp-invoice", erp, ("root@erp01", OFFICE), "invoices@contoso.com"),
        case("erp-other", erp, ("root@erp01", RECIPIENT), "erp@contoso.com"),
        case("erp-own", erp, ("erp@contoso.com", RECIPIENT), "erp@contoso.com"),
        case("erp-alert", erp, ("root@erp01", ONCALL), "monitoring@contoso.com"),
        case("erp-alias", erp, ("orders@contoso.com", RECIPIENT), "erp@contoso.com").from("orders@contoso.com"),
        // Beyond both networks.
        case("erp-in-the-cloud", ("cloud", 40, Some("erp_server")), ("hr@contoso.com", RECIPIENT), "erp@contoso.com"),
        case("hr-own", hr, ("hr@contoso.com", RECIPIENT), "hr@contoso.com"),
        case("hr-docs", hr, ("docs@contoso.com", OFFICE), "docs@contoso.com"),
        case("hr-capital", hr, ("Docs@Contoso.COM", OFFICE), "docs@contoso.com").from("Docs@Contoso.COM"),
        case("hr-gate", hr, ("gate@fabrikam.com", RECIPIENT), "gate@fabrikam.com"),
        case("hr-nobody", hr, ("nobody@contoso.com", RECIPIENT), "tickets@contoso.com"),
        case("robot", lan(33), ("arm7@robots.fabrikam.com", RECIPIENT), "robots@fabrikam.com"),
        case("plc", lan(34), ("plc@hall3.local", RECIPIENT), "robots@fabrikam.com"),
        case("other-plc", lan(34), ("plc@hall4.local", RECIPIENT), "press@fabrikam.com"),
        case("welding", lan(47), ("welder@hall4.local", "quality@fabrikam.com"), "welding@fabrikam.com"),
        case("press", lan(47), ("press@fabrikam.com", RECIPIENT), "press@fabrikam.com"),
        case("not-fabrikam", lan(48), ("arm7@robots.fabrikam.com", RECIPIENT), "docs@contoso.com"),
        case("crew", lan(50), ("crew@tailspin.example", RECIPIENT), "crew@tailspin.example"),
        case("cargo", lan(50), ("cargo@tailspin.example", RECIPIENT), "booking@tailspin.example"),
        case("crew-alert", lan(50), ("crew@tailspin.example", ONCALL), "monitoring@contoso.com"),
        case("backup", lan(64), ("veeam@bak01", RECIPIENT), "backup@contoso.com"),
        case("not-backup", lan(65), ("veeam@bak01", RECIPIENT), "docs@contoso.com"),
        case("null", lan(66), ("", RECIPIENT), "docs@contoso.com"),
        case("default", lan(1), ("somebody@elsewhere.example", RECIPIENT), "docs@contoso.com"),
    ]
}

/// The world of [`ROWS`], where erp has an alias too.
fn rows() -> Vec<Row> {
    let mut rows = ROWS.to_vec();
    let erp = rows.iter_mut().find(|row| row.name == "erp").unwrap();
    (erp.aliases, erp.keys) = (&["orders@contoso.com"], "may_send_as = [\"orders@contoso.com\"]");
    rows
}

/// The part of a Message-ID that the test made up.
fn name_of(message_id: &str) -> &str {
    message_id.trim_matches(['<', '>']).split('@').next().unwrap_or_default()
}

/// So many messages of a case on one connection.
async fn send_each(relay: Arc<Relay>, case: Case, count: usize) {
    let mut client = connected(&relay, case.listener, case.client, case.user).await;
    for number in 0..count {
        let from = if case.sender.is_empty() { "daemon@box.local" } else { case.sender };
        let name = format!("{}.{number}", case.name);
        let text = format!(
            "From: \"Some program\" <{from}>\r\nTo: {}\r\nSubject: {name}\r\nMessage-ID: <{name}@test.local>\r\n\r\nhi",
            case.recipient
        );
        let reply = client.send_from(case.sender, &[case.recipient], text.as_bytes()).await.unwrap();
        assert_eq!(reply.code(), 250, "{name}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_clients_of_three_tenants_leave_by_the_mailboxes_that_the_routes_say() {
    const EACH: usize = 12;
    let world = Tenants::new(&rows()).await;
    let relay = Arc::new(world.relay(&company()).await);
    let cases = cases();
    let mut clients = JoinSet::new();
    for case in cases.iter().copied() {
        clients.spawn(send_each(Arc::clone(&relay), case, EACH));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let total = cases.len() * EACH;
    world.sandbox.wait_for(total as u64, PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    world.is_empty().await;
    let taken = world.sandbox.messages();
    assert_eq!(taken.len(), total, "nothing came twice");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for message in &taken {
        let name = name_of(&message.message_id).rsplit_once('.').unwrap().0;
        let case = cases.iter().find(|case| case.name == name).unwrap();
        assert_eq!(message.login, case.login, "{name}");
        assert_eq!(message.header_from, [case.from], "{name}");
        assert_eq!(message.reverse_path, case.from, "{name}");
        let recipients: Vec<_> = message.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
        assert_eq!(recipients, [case.recipient], "{name}");
        *seen.entry(name.to_owned()).or_default() += 1;
    }
    assert_eq!(seen, cases.iter().map(|case| (case.name.to_owned(), EACH)).collect());
    assert_eq!(world.sandbox.duplicates(), []);
    assert_eq!(world.denials(), []);
    // The one whose mailbox there is not is told of.
    let is_trouble = |line: &str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    let others = relay.log().count(|line| is_trouble(line) && !line.contains("nobody@contoso.com"));
    assert_eq!(others, 0, "{}", relay.log().text());
}

/// One address goes by contoso, another by fabrikam, the rest by tailspin.
fn three_ways() -> String {
    let route = |name: &str, recipients: &str, mailbox: &str| {
        format!("[[route]]\nname = \"{name}\"\nrecipients = [\"{recipients}\"]\nmailbox = [\"{mailbox}\"]\n")
    };
    [
        listener("lan", ""),
        route("c", "*@c.example", "scanner"),
        route("f", "*@f.example", "press"),
        route("t", "*", "crew"),
    ]
    .concat()
}

fn three_rows() -> [Row; 3] {
    [row("contoso", "scanner"), row("fabrikam", "press"), row("tailspin", "crew")]
}

/// Login and recipients of what Exchange has.
fn who_got_what(world: &Tenants) -> BTreeSet<(String, Vec<String>)> {
    let all = world.sandbox.messages();
    let all = all.iter().map(|message| {
        (message.login.clone(), message.recipients.iter().map(|recipient| recipient.address.clone()).collect())
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_parts_between_tenants_hurts_in_none_what_another_refuses() {
    let world = Tenants::new(&three_rows()).await;
    let relay = world.relay(&three_ways()).await;
    world.refuse_logins("press@fabrikam.com");
    let unknown = Action::Reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found".to_owned());
    let refused = Fault::always(Stage::Rcpt, unknown).only(Target::Mailbox("crew@tailspin.example".to_owned()));
    world.sandbox.inject(refused).unwrap();
    let recipients = ["a@c.example", "b@f.example", "d@x.example", "e@c.example", "f@f.example"];
    let submission = Submission { recipients: &recipients, ..Submission::from("lan", "scanner@contoso.com", "parts") };
    let reply = submission.send(&relay).await;
    assert_eq!(reply.code(), 250, "{reply}");
    let contoso = ("scanner@contoso.com".to_owned(), vec!["a@c.example".to_owned(), "e@c.example".to_owned()]);
    world.carried(1).await;
    assert_eq!(who_got_what(&world), BTreeSet::from([contoso.clone()]));
    let line = relay.log().wait_for(|line| line.contains("given up"));
    assert!(line.contains("d@x.example") && !line.contains("f.example") && !line.contains("c.example"), "{line}");
    // Fabrikam's part waits for its login, and goes when that is mended.
    world.are_queued(1).await;
    let (status, _) = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    world.sandbox.clear_faults();
    world.let_time_pass();
    let _relay = world.relay(&three_ways()).await;
    world.carried(2).await;
    world.is_empty().await;
    let fabrikam = ("press@fabrikam.com".to_owned(), vec!["b@f.example".to_owned(), "f@f.example".to_owned()]);
    assert_eq!(who_got_what(&world), BTreeSet::from([contoso, fabrikam]));
    assert_eq!(world.sandbox.messages().len(), 2);
    assert_eq!(world.denials(), []);
}

/// The reply to each line in turn.
async fn dialog(relay: &Relay, client: u8, lines: &[&str]) -> Vec<String> {
    let mut client = connected(relay, "lan", client, None).await;
    let mut replies = Vec::new();
    for line in lines {
        replies.push(client.command(line).await.unwrap().to_string().trim_end().to_owned());
    }
    replies
}

fn is_refusal(line: &str) -> bool {
    line.contains("\"mail refused\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_no_route_takes_is_refused_at_once_and_told_once_for_each_client() {
    let world = Tenants::new(&[row("contoso", "scanner")]).await;
    let route = "[[route]]\nname = \"only\"\nsenders = [\"*@contoso.com\"]\nrecipients = [\"*@c.example\"]\n\
                 networks = [\"127.0.0.0/28\"]\nmailbox = [\"scanner\"]\n";
    let relay = world.relay(&(listener("lan", "") + route)).await;
    let no_route = "550 5.7.1 No route takes this mail from here";
    // At MAIL where no recipient could mend it, at RCPT where another could.
    for _ in 0..3 {
        let replies = dialog(&relay, 2, &["MAIL FROM:<a@elsewhere.example>"]).await;
        assert!(replies[0].starts_with(no_route), "{replies:?}");
    }
    let lines = ["MAIL FROM:<a@contoso.com>", "RCPT TO:<a@other.example>", "RCPT TO:<a@c.example>", "RSET"];
    let replies = dialog(&relay, 2, &lines).await;
    assert!(replies[0].starts_with("250") && replies[1].starts_with(no_route), "{replies:?}");
    assert!(replies[2].starts_with("250"), "the others are taken: {replies:?}");
    let line = relay.log().wait_for(is_refusal);
    assert_eq!(
        (field(&line, "client").as_str(), field(&line, "reason").as_str()),
        ("127.0.0.2", "no [[route]] matches")
    );
    assert!(field(&line, "remedy").contains("add a [[route]] that matches"), "{line}");
    assert_eq!(relay.log().count(is_refusal), 1, "{}", relay.log().text());
    // Another client is told of by itself, one outside of the networks at MAIL.
    let replies = dialog(&relay, 99, &["MAIL FROM:<a@contoso.com>"]).await;
    assert!(replies[0].starts_with(no_route), "{replies:?}");
    let line = relay.log().wait_for_another(1, is_refusal);
    assert_eq!(field(&line, "client"), "127.0.0.99");
    assert_eq!(relay.log().count(is_refusal), 2, "{}", relay.log().text());
    assert_eq!(world.count("SELECT count(*) FROM message"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_route_does_not_write_to_is_refused_alone() {
    let world = Tenants::new(&[row("contoso", "scanner")]).await;
    let route = "[[route]]\nname = \"inside\"\nmailbox = [\"scanner\"]\nallow_recipients = [\"*@contoso.com\", \"*@partner.example\"]\n\
                 deny_recipients = [\"boss@contoso.com\"]\n\
                 [rewrite]\nrecipients = { \"chief@contoso.com\" = \"boss@contoso.com\", \"@old.example\" = \"@partner.example\" }\n";
    let relay = world.relay(&(listener("lan", "") + route)).await;
    let denied = |address: &str| format!("550 5.7.1 Mail to {address} is not allowed from here");
    let mut client = connected(&relay, "lan", 2, None).await;
    assert_eq!(client.command("MAIL FROM:<scanner@contoso.com>").await.unwrap().code(), 250);
    for (recipient, answer) in [
        ("a@contoso.com", None),
        ("Boss@CONTOSO.com", Some("boss@contoso.com")),
        ("chief@contoso.com", Some("boss@contoso.com")),
        ("a@outside.example", Some("a@outside.example")),
        ("b@old.example", None),
        ("postmaster", None),
    ] {
        let reply = client.command(&format!("RCPT TO:<{recipient}>")).await.unwrap();
        match answer {
            None => assert_eq!(reply.code(), 250, "{recipient}: {reply}"),
            Some(address) => assert!(reply.to_string().starts_with(&denied(address)), "{recipient}: {reply}"),
        }
    }
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(b"From: scanner@contoso.com\r\nSubject: s\r\n\r\nhi\r\n.\r\n").await.unwrap();
    assert_eq!(client.reply().await.unwrap().code(), 250);
    world.carried(1).await;
    let got = vec!["a@contoso.com".to_owned(), "b@partner.example".to_owned(), "postmaster@contoso.com".to_owned()];
    assert_eq!(who_got_what(&world), BTreeSet::from([("scanner@contoso.com".to_owned(), got)]));
    let line = relay.log().wait_for(is_refusal);
    assert!(field(&line, "remedy").contains("allow_recipients"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_in_test_mode_sends_one_copy_to_one_address_and_reports_of_those_who_were_meant() {
    let world = Tenants::new(&[row("contoso", "scanner")]).await;
    let route = "[[route]]\nname = \"test\"\nmailbox = [\"scanner\"]\nredirect_all_to = \"tester@contoso.com\"\n\
                 deny_recipients = [\"never@contoso.com\"]\n";
    let relay = world.relay(&(listener("lan", "") + route)).await;
    let recipients = ["a@c.example", "b@f.example", "a@c.example"];
    let submission =
        Submission { recipients: &recipients, ..Submission::from("lan", "scanner@contoso.com", "redirected") };
    assert_eq!(submission.send(&relay).await.code(), 250);
    world.carried(1).await;
    let tester = ("scanner@contoso.com".to_owned(), vec!["tester@contoso.com".to_owned()]);
    assert_eq!(who_got_what(&world), BTreeSet::from([tester]));
    world.is_empty().await;
    assert_eq!(world.sandbox.messages().len(), 1, "one copy");
    // Recipient policy is of those who were meant.
    let never =
        Submission { recipients: &["never@contoso.com"], ..Submission::from("lan", "scanner@contoso.com", "never") };
    assert_eq!(never.send(&relay).await.code(), 550);
    // Its sender knows whom he wrote to, and no tester.
    let unknown = Action::Reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found".to_owned());
    world.sandbox.inject(Fault::once(Stage::Rcpt, unknown)).unwrap();
    let refused =
        Submission { recipients: &["a@c.example"], ..Submission::from("lan", "scanner@contoso.com", "refused") };
    assert_eq!(refused.send(&relay).await.code(), 250);
    let messages = world.sandbox.wait_for(2, PATIENCE).await.unwrap();
    let report = String::from_utf8_lossy(messages[1].body.octets().unwrap()).into_owned();
    assert_eq!(messages[1].recipients[0].address, "scanner@contoso.com");
    assert!(report.contains("Original-Recipient: rfc822;a@c.example"), "{report}");
    assert!(report.contains("Final-Recipient: rfc822;tester@contoso.com"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_come_before_the_routes_and_make_one_recipient_of_two() {
    let rows = [row("contoso", "erp"), row("fabrikam", "press")];
    let world = Tenants::new(&rows).await;
    let tables = "[[route]]\nname = \"press\"\nsenders = [\"*@fabrikam.com\"]\nrecipients = [\"*@f.example\"]\nmailbox = [\"press\"]\n\
                  [[route]]\nname = \"erp\"\nsenders = [\"erp@contoso.com\"]\nmailbox = [\"erp\"]\nsender = \"reject\"\n\
                  [rewrite]\nsenders = { \"root@erp01\" = \"erp@contoso.com\", \"@hall3.local\" = \"@fabrikam.com\" }\n\
                  recipients = { \"all@old.example\" = \"one@f.example\", \"@old.example\" = \"@f.example\" }\n";
    let relay = world.relay(&(listener("lan", "") + tables)).await;
    let recipients = ["all@old.example", "one@old.example", "one@F.Example", "two@old.example"];
    let press = Submission { recipients: &recipients, ..Submission::from("lan", "press@hall3.local", "press") };
    assert_eq!(press.send(&relay).await.code(), 250);
    let erp = Submission { recipients: &["all@old.example"], ..Submission::from("lan", "Root@ERP01", "erp") };
    assert_eq!(erp.send(&relay).await.code(), 250, "what it is mapped to may be sent as");
    world.carried(2).await;
    world.is_empty().await;
    for message in world.sandbox.messages() {
        let recipients: Vec<_> =
            message.recipients.iter().map(|recipient| recipient.address.to_ascii_lowercase()).collect();
        let (login, wanted): (_, &[&str]) = match name_of(&message.message_id) {
            "press" => ("press@fabrikam.com", &["one@f.example", "two@f.example"]),
            _ => ("erp@contoso.com", &["one@f.example"]),
        };
        assert_eq!((message.login.as_str(), message.reverse_path.as_str()), (login, login));
        assert_eq!(message.header_from, [login]);
        assert_eq!(recipients, wanted);
    }
    assert_eq!(world.denials(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mailbox_of_a_pool_carries_is_from_that_mailbox() {
    const MESSAGES: usize = 60;
    let rows = [
        Row {
            aliases: &["documents@contoso.com"],
            keys: "from = \"documents@contoso.com\"",
            ..row("contoso", "scanner")
        },
        Row { send_as: &["billing@contoso.com"], keys: "from = \"billing@contoso.com\"", ..row("contoso", "invoices") },
        row("contoso", "backup"),
    ];
    let world = Tenants::new(&rows).await;
    world.open_mailbox("contoso", "billing@contoso.com");
    let pool = "[[route]]\nname = \"pool\"\nmailbox = [\"scanner\", \"invoices\", \"backup\"]\n";
    let relay = world.relay(&(listener("lan", "") + pool)).await;
    let send = async |kind: &str| {
        let mut client = connected(&relay, "lan", 2, None).await;
        for number in 0..MESSAGES {
            let text = format!("From: root@erp01\r\nMessage-ID: <{kind}{number}@test.local>\r\n\r\nhi");
            assert_eq!(client.send_from("root@erp01", &[RECIPIENT], text.as_bytes()).await.unwrap().code(), 250);
        }
    };
    let from = BTreeMap::from([
        ("scanner@contoso.com", "documents@contoso.com"),
        ("invoices@contoso.com", "billing@contoso.com"),
        ("backup@contoso.com", "backup@contoso.com"),
    ]);
    let check = |kind: &str| {
        let mut logins = BTreeSet::new();
        for message in world.sandbox.messages().iter().filter(|message| message.message_id[1..].starts_with(kind)) {
            assert_eq!(message.header_from, [from[message.login.as_str()]], "{}", message.login);
            assert_eq!(message.reverse_path, from[message.login.as_str()]);
            logins.insert(message.login.clone());
        }
        logins
    };
    send("all").await;
    world.carried(MESSAGES).await;
    assert_eq!(check("all").len(), 3, "all are used");
    // Connections are kept: who is out of order is so for the message that comes.
    let down = Action::Reply("421 4.3.2 Service not available".to_owned());
    let refused = |stage| Fault::always(stage, down.clone()).only(Target::Mailbox("invoices@contoso.com".to_owned()));
    world.sandbox.inject(refused(Stage::Mail)).unwrap();
    world.refuse_logins("invoices@contoso.com");
    send("others").await;
    world.carried(2 * MESSAGES).await;
    let others = BTreeSet::from(["backup@contoso.com".to_owned(), "scanner@contoso.com".to_owned()]);
    assert_eq!(check("others"), others);
    world.is_empty().await;
    assert_eq!(world.denials(), []);
    assert_eq!(world.sandbox.duplicates(), []);
}

/// Two of three mailboxes may send as the sender, by the route's own policy: both stay, the third has no part in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_refuses_foreign_senders_sends_by_those_mailboxes_that_may() {
    const MESSAGES: usize = 20;
    let rows = [
        row("contoso", "scanner"),
        Row {
            send_as: &["sales@contoso.com"],
            keys: "may_send_as = [\"sales@contoso.com\"]",
            ..row("contoso", "invoices")
        },
        Row {
            send_as: &["sales@contoso.com"],
            keys: "may_send_as = [\"sales@contoso.com\"]",
            ..row("contoso", "backup")
        },
    ];
    let world = Tenants::new(&rows).await;
    let pool = "[[route]]\nname = \"pool\"\nsender = \"reject\"\nmailbox = [\"scanner\", \"invoices\", \"backup\"]\n";
    let relay = world.relay(&(listener("lan", "") + pool)).await;
    for number in 0..MESSAGES {
        let name = format!("sales{number}");
        let submission = Submission::from("lan", "sales@contoso.com", &name);
        assert_eq!(submission.send(&relay).await.code(), 250);
    }
    world.carried(MESSAGES).await;
    world.is_empty().await;
    let logins: BTreeSet<_> = world.sandbox.messages().iter().map(|message| message.login.clone()).collect();
    assert!(!logins.contains("scanner@contoso.com"), "{logins:?}");
    assert_eq!(world.denials(), []);
    assert_eq!(world.sandbox.duplicates(), []);
}

/// Exchange would report to whom it is from: a sender that maps make one of the tenant's own hears of it, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_sender_hears_of_what_was_refused() {
    let world = Tenants::new(&[row("contoso", "erp")]).await;
    let tables = "[[route]]\nname = \"erp\"\nmailbox = [\"erp\"]\n[rewrite]\nsenders = { \"root@erp01\" = \"erp@contoso.com\" }\n";
    let relay = world.relay(&(listener("lan", "") + tables)).await;
    let unknown = Action::Reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found".to_owned());
    world.sandbox.inject(Fault::once(Stage::Rcpt, unknown)).unwrap();
    assert_eq!(Submission::from("lan", "root@erp01", "refused").send(&relay).await.code(), 250);
    relay.log().wait_for(|line| line.contains("given up"));
    let messages = world.sandbox.wait_for(1, Duration::from_secs(10)).await;
    let messages = messages.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(messages[0].recipients[0].address, "erp@contoso.com");
}
