//! The routes as tables: who carries which message, and what a later reading of them does with mail in the queue.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mail::Recipient;
use proptest::prelude::*;
use spool::{Origin, Place, Placed};

use super::*;
use crate::config::{settings_of, settings_unchecked};

/// Two tenants with two mailboxes each, and a domain of many.
const MAILBOXES: &str = r#"
[listener.local]
[listener.plant]
address = "127.0.0.1:2526"
[user.erp]
password_hash = "$argon2id$v=19$m=8192,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
allowed_senders = ["*@contoso.com"]
[user.crm]
password_hash = "$argon2id$v=19$m=8192,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
[tenant.contoso]
tenant_id = "11111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000000"
client_secret = { env = "SECRET" }
[tenant.fabrikam]
tenant_id = "fabrikam.example"
client_id = "66666666-7777-8888-9999-000000000000"
client_secret = { env = "SECRET" }
[mailbox.scanner]
tenant = "contoso"
address = "scanner@contoso.com"
max_message_size = "10 MiB"
[mailbox.invoices]
tenant = "contoso"
address = "invoices@contoso.com"
login = "svc@contoso.onmicrosoft.com"
from = "billing@contoso.com"
may_send_as = ["*@invoices.contoso.com", "dunning@contoso.com"]
[mailbox.any]
tenant = "contoso"
address = "*@people.contoso.com"
[mailbox.fab]
tenant = "fabrikam"
address = "office@fabrikam.com"
[mailbox.fab2]
tenant = "fabrikam"
address = "plant@fabrikam.com"
"#;

fn routing(routes: &str) -> Routing {
    Routing::new(&settings_of(&format!("{MAILBOXES}{routes}")))
}

/// Everything goes by the scanner.
const ALL: &str = "[[route]]\nname = \"all\"\nmailbox = [\"scanner\"]\n";

/// A question in a line: `user@listener/client sender recipient`, each part of the first word left out at will; `<>` is the
/// null sender, with a From field behind it if there is one.
fn ask(routing: &Routing, question: &str) -> String {
    ask_knowing(routing, question, &[])
}

fn ask_knowing(routing: &Routing, question: &str, unknown: &[&str]) -> String {
    let words: Vec<_> = question.split_whitespace().collect();
    let [place, sender, recipient] = words[..] else { panic!("{question}") };
    let (user, place) = place.split_once('@').map_or((None, place), |(user, place)| (Some(user), place));
    let (listener, client) = place.split_once('/').unwrap_or((place, "127.0.0.1"));
    let (path, from) = sender.split_once(':').unwrap_or((sender, ""));
    let path = ReversePath::parse(path.trim_matches(['<', '>']).as_bytes()).unwrap();
    let sender = match (&path, from) {
        (ReversePath::Null, "") => routing.sender_of_envelope(&path),
        (path, from) => {
            let header = if from == "-" { String::new() } else { format!("From: {from}\r\n") };
            routing.sender_of_message(path, &HeaderBlock::parse(header.into_bytes()))
        }
    };
    let submitter = Submitter {
        listener,
        client: Some(client.parse().unwrap()),
        user,
        is_held_to_senders: user == Some("erp"),
        sender,
    };
    let recipient = ForwardPath::parse(recipient.as_bytes()).unwrap();
    let is_unknown = |lane: &LaneId| unknown.contains(&lane.login());
    let answer = routing.ask(&submitter, &recipient, &is_unknown);
    if matches!(answer, Answer::Taken(_) | Answer::Depends) {
        assert!(routing.may_submit(&submitter), "what is taken at RCPT is not refused at MAIL: {question}");
    }
    match answer {
        Answer::Taken(Taken { route, carriers, recipient, redirected, .. }) => {
            let names: Vec<_> = carriers.members().iter().map(|carrier| carrier.identity.name.as_str()).collect();
            let asked = redirected.map(|asked| format!(" for {asked}")).unwrap_or_default();
            let logins: Vec<_> = carriers.lanes.lanes().map(|lane| lane.login().to_owned()).collect();
            format!("{}: {} ({}) to {recipient}{asked}", route.name, names.join("+"), logins.join(","))
        }
        Answer::Depends => "depends".to_owned(),
        Answer::Refused(refused) => {
            let reply = refused.reply();
            assert!((reply.code(), refused.remedy().len() > 10) == (550, true), "{reply}");
            refused.to_string()
        }
    }
}

#[test]
fn without_routes_the_only_mailbox_serves_everything() {
    let only = MAILBOXES.split("[mailbox.invoices]").next().unwrap();
    let routing = Routing::new(&settings_of(only));
    assert_eq!(ask(&routing, "local root@erp01 a@b.c"), ": scanner (scanner@contoso.com) to a@b.c");
    assert_eq!(ask(&routing, "local <> a@b.c"), ": scanner (scanner@contoso.com) to a@b.c");
}

#[test]
fn the_first_route_that_matches_decides() {
    let routing = routing(
        r#"
[[route]]
name = "plant"
listeners = ["plant"]
networks = ["10.1.2.0/24"]
mailbox = ["fab2"]
[[route]]
name = "erp invoices"
users = ["ERP"]
senders = ["invoices@contoso.com", "*@invoices.contoso.com"]
mailbox = ["invoices"]
[[route]]
name = "erp"
users = ["erp"]
mailbox = ["scanner", "invoices"]
[[route]]
name = "to fabrikam"
recipients = ["*@fabrikam.com"]
mailbox = ["fab"]
[[route]]
name = "old"
senders = ["*@old.local"]
recipients = ["*"]
mailbox = ["scanner"]
"#
        .replace("ERP", "erp")
        .as_str(),
    );
    for (question, answer) in [
        ("plant/10.1.2.3 x@y a@b.c", "plant: fab2 (plant@fabrikam.com) to a@b.c"),
        ("plant/10.1.3.3 x@y a@b.c", "no [[route]] matches"),
        ("local/10.1.2.3 x@y a@b.c", "no [[route]] matches"),
        ("plant/10.1.2.3 x@y postmaster", "plant: fab2 (plant@fabrikam.com) to postmaster@fabrikam.com"),
        ("erp@local Invoices@Contoso.com a@b.c", "erp invoices: invoices (svc@contoso.onmicrosoft.com) to a@b.c"),
        ("ERP@local x@INVOICES.contoso.com a@b.c", "erp invoices: invoices (svc@contoso.onmicrosoft.com) to a@b.c"),
        ("local invoices@contoso.com a@b.c", "no [[route]] matches"),
        ("erp@local x@y a@b.c", "erp: scanner+invoices (scanner@contoso.com,svc@contoso.onmicrosoft.com) to a@b.c"),
        (
            "erp@local x@y a@fabrikam.com",
            "erp: scanner+invoices (scanner@contoso.com,svc@contoso.onmicrosoft.com) to a@fabrikam.com",
        ),
        ("crm@local x@y a@FABRIKAM.com", "to fabrikam: fab (office@fabrikam.com) to a@FABRIKAM.com"),
        ("local x@old.local a@fabrikam.com", "to fabrikam: fab (office@fabrikam.com) to a@fabrikam.com"),
        ("local x@old.local a@b.c", "old: scanner (scanner@contoso.com) to a@b.c"),
        ("local x@old.local postmaster", "old: scanner (scanner@contoso.com) to postmaster@contoso.com"),
        ("local <>:x@old.local a@b.c", "old: scanner (scanner@contoso.com) to a@b.c"),
        ("local <>:- a@b.c", "no [[route]] matches"),
        ("local <> a@b.c", "depends"),
        ("erp@local <> a@b.c", "depends"),
        ("plant/10.1.2.3 <> a@b.c", "plant: fab2 (plant@fabrikam.com) to a@b.c"),
        ("local <> a@fabrikam.com", "to fabrikam: fab (office@fabrikam.com) to a@fabrikam.com"),
    ] {
        assert_eq!(ask(&routing, question), answer, "{question}");
    }
}

#[test]
fn the_sender_may_choose_its_own_mailbox() {
    let fallback = "[[route]]\nname = \"own\"\nmailbox = [\"{sender}\"]\n";
    let (without, with) = (routing(fallback), routing(&format!("{fallback}fallback = \"scanner\"\n")));
    let unvouched = "mailbox \"any\" lets only users send who have logged in and have allowed_senders (wildcard_needs_user), \
                     and this client has not or its user has none";
    let nobody = "route \"own\" chooses the sender's own mailbox, and the message names no sender";
    let none = "route \"own\" chooses the sender's own mailbox, and x@y has none here, nor is there a fallback";
    let scanner = "own: scanner (scanner@contoso.com) to a@b.c";
    let at_home = "route \"own\" chooses the sender's own mailbox, and Scanner@contoso.com has none here, nor is there a fallback";
    let elsewhere = "route \"own\" chooses the sender's own mailbox, and Office@fabrikam.com has none here, nor is there a fallback";
    for (question, answer_without, answer_with) in [
        ("erp@local Jo@People.contoso.com a@b.c", "own: any (jo@people.contoso.com) to a@b.c", ""),
        (
            "erp@local jo@people.contoso.com postmaster",
            "own: any (jo@people.contoso.com) to postmaster@people.contoso.com",
            "",
        ),
        ("local jo@people.contoso.com a@b.c", unvouched, unvouched),
        ("crm@local jo@people.contoso.com a@b.c", unvouched, unvouched),
        // A section of its own, in a tenant that the route does not reach.
        ("local Office@fabrikam.com a@b.c", elsewhere, scanner),
        ("local Scanner@contoso.com a@b.c", at_home, scanner),
        ("local x@y a@b.c", none, scanner),
        ("erp@local <>:jo@people.contoso.com a@b.c", "own: any (jo@people.contoso.com) to a@b.c", ""),
        ("erp@local <>:- a@b.c", nobody, scanner),
        ("erp@local <> a@b.c", "depends", ""),
    ] {
        assert_eq!(ask(&without, question), answer_without, "{question}");
        let answer_with = if answer_with.is_empty() { answer_without } else { answer_with };
        assert_eq!(ask(&with, question), answer_with, "{question}");
    }
    let question = "erp@local jo@people.contoso.com a@b.c";
    let unknown = ["jo@people.contoso.com"];
    assert_eq!(ask_knowing(&with, question, &unknown), scanner);
    assert_eq!(ask_knowing(&without, question, &unknown), "own: any (jo@people.contoso.com) to a@b.c");
}

#[test]
fn recipients_are_mapped_then_judged_then_redirected() {
    let routing = routing(
        r#"
[rewrite]
recipients = { "helpdesk" = "x@y" }
senders = { "@old.local" = "@invoices.contoso.com" }
[[route]]
name = "test"
users = ["crm"]
mailbox = ["fab"]
allow_recipients = ["*@fabrikam.com"]
deny_recipients = ["boss@fabrikam.com"]
redirect_all_to = "lab@fabrikam.com"
[[route]]
name = "invoices"
senders = ["*@invoices.contoso.com"]
sender = "reject"
mailbox = ["scanner", "invoices"]
[[route]]
name = "strict"
sender = "reject"
deny_recipients = ["*@rival.example"]
mailbox = ["scanner"]
"#
        .replace("\"helpdesk\" = \"x@y\"", "\"@intern\" = \"@fabrikam.com\", \"all@intern\" = \"boss@fabrikam.com\"")
        .as_str(),
    );
    let denied =
        |route: &str, to: &str| format!("route {route:?} does not send to {to} (allow_recipients, deny_recipients)");
    for (question, answer) in [
        (
            "crm@local x@y jo@intern",
            "test: fab (office@fabrikam.com) to lab@fabrikam.com for jo@fabrikam.com".to_owned(),
        ),
        ("crm@local x@y a@b.c", denied("test", "a@b.c")),
        ("crm@local x@y all@intern", denied("test", "boss@fabrikam.com")),
        (
            "crm@local x@y postmaster",
            "test: fab (office@fabrikam.com) to lab@fabrikam.com for postmaster@fabrikam.com".to_owned(),
        ),
        ("local scanner@contoso.com a@rival.example", denied("strict", "a@rival.example")),
        ("local scanner@contoso.com a@intern", "strict: scanner (scanner@contoso.com) to a@fabrikam.com".to_owned()),
        (
            "local a@old.local a@b.c",
            "invoices: scanner+invoices (scanner@contoso.com,svc@contoso.onmicrosoft.com) to a@b.c".to_owned(),
        ),
    ] {
        assert_eq!(ask(&routing, question), answer, "{question}");
    }
    let refused = ask(&routing, "local other@contoso.com a@b.c");
    assert!(refused.contains("other@contoso.com") && refused.contains("scanner"), "{refused}");
}

#[test]
fn near_misses_name_the_matchers_that_stand_against_a_route() {
    let routing = routing(
        "[[route]]\nname = \"r\"\nlisteners = [\"plant\"]\nnetworks = [\"10.0.0.0/8\"]\nusers = [\"erp\"]\n\
         senders = [\"a@b.c\"]\nrecipients = [\"*@contoso.com\"]\nmailbox = [\"scanner\"]\n",
    );
    let submitter = |listener, client: &str, user, sender: &str| Submitter {
        listener,
        client: client.parse().ok(),
        user,
        is_held_to_senders: false,
        sender: routing.sender_of_envelope(&ReversePath::parse(sender.as_bytes()).unwrap()),
    };
    for (submitter, recipient, misses) in [
        (submitter("plant", "10.1.1.1", Some("erp"), "a@b.c"), "x@contoso.com", ""),
        (submitter("plant", "10.1.1.1", Some("erp"), "a@b.c"), "x@other.test", "recipients"),
        (submitter("plant", "10.1.1.1", None, "a@b.c"), "x@contoso.com", "users"),
        (submitter("local", "127.0.0.1", None, "x@y"), "postmaster", "listeners networks users senders recipients"),
    ] {
        let asked = routing.asked(&ForwardPath::parse(recipient.as_bytes()).unwrap());
        let found: Vec<_> = routing.routes()[0].misses(&submitter, Some(&asked)).map(|miss| miss.to_string()).collect();
        assert_eq!(found.join(" "), misses);
    }
}

#[test]
fn the_largest_message_is_what_some_mailbox_behind_the_listener_takes() {
    let routes = "[[route]]\nname = \"a\"\nlisteners = [\"plant\"]\nmailbox = [\"scanner\", \"invoices\"]\n\
                  [[route]]\nname = \"b\"\nusers = [\"erp\"]\nmailbox = [\"{sender}\"]\n";
    let settings = settings_of(&format!("{MAILBOXES}{routes}"));
    let routing = Routing::new(&settings);
    let plain = settings_of(&format!("{MAILBOXES}{ALL}"));
    let largest = |routing: &Routing, name: &str| routing.largest_message(name, &settings.listeners[name]) >> 20;
    assert_eq!((largest(&routing, "plant"), largest(&routing, "local")), (35, 35));
    assert_eq!(largest(&Routing::new(&plain), "plant"), 10);
}

#[test]
fn the_epoch_tells_readings_of_the_routes_apart_and_nothing_else() {
    let epoch = |text: &str| Routing::new(&settings_of(text)).epoch;
    let text = format!("{MAILBOXES}{ALL}");
    let same = epoch(&text);
    assert_eq!(epoch(&text), same);
    assert_eq!(epoch(&text.replace("[listener.plant]", "[retry]\nuncertain_delay = \"2h\"\n[listener.plant]")), same);
    assert_eq!(epoch(&text.replace("from = ", "connections = 2\nfrom = ")), same);
    assert_eq!(epoch(&text.replace("{ env = \"SECRET\" }", "{ env = \"OTHER\" }")), same);
    for (old, new) in [
        ("mailbox = [\"scanner\"]", "mailbox = [\"fab\"]"),
        ("mailbox = [\"scanner\"]", "mailbox = [\"scanner\"]\nsender = \"keep\""),
        ("from = \"billing@contoso.com\"", "from = \"bill@contoso.com\""),
        ("dunning@contoso.com", "reminder@contoso.com"),
        ("tenant_id = \"fabrikam.example\"", "tenant_id = \"fabrikam.com\""),
        ("[[route]]", "[rewrite]\nsenders = { \"@a\" = \"@b\" }\n[[route]]"),
    ] {
        let changed = text.replace(old, new);
        assert_ne!((changed == text, epoch(&changed)), (true, same));
        assert_ne!(epoch(&changed), same, "{new}");
    }
}

/// A delivery in the queue: who submitted it and by which lanes it was to go.
struct Waiting<'a> {
    recipients: &'a [&'a str],
    redirected: Option<&'a str>,
    tenant: &'a str,
    lanes: &'a [&'a str],
    is_uncertain: bool,
    origin: Origin,
    sender: &'a str,
}

impl Default for Waiting<'_> {
    fn default() -> Self {
        Self {
            recipients: &["a@b.c"],
            redirected: None,
            tenant: "contoso",
            lanes: &["scanner@contoso.com"],
            is_uncertain: false,
            origin: Origin::Submitted,
            sender: "x@y",
        }
    }
}

const CONTOSO: &str = "11111111-2222-3333-4444-555555555555";

fn placed(routing: &Routing, waiting: &Waiting<'_>, word: Word<'_>) -> String {
    let recipients: Vec<Recipient> =
        waiting.recipients.iter().map(|path| ForwardPath::parse(path.as_bytes()).unwrap().into()).collect();
    let tenant_id = if waiting.tenant == "fabrikam" { "fabrikam.example" } else { CONTOSO };
    let lanes: Vec<_> = waiting.lanes.iter().map(|login| LaneId::new(tenant_id, login)).collect();
    let lanes = LaneSet::new(&lanes[0], &lanes);
    let redirected = waiting.redirected.map(|asked| asked.parse().unwrap());
    let stored = Stored {
        submitter: Submitter {
            listener: "local",
            client: "127.0.0.1".parse().ok(),
            user: None,
            is_held_to_senders: waiting.lanes == [waiting.sender],
            sender: routing.sender_of_envelope(&ReversePath::parse(waiting.sender.as_bytes()).unwrap()),
        },
        origin: waiting.origin,
        recipients: &recipients,
        redirected: redirected.as_ref(),
        tenant: waiting.tenant,
        lanes: &lanes,
        route: "gone",
        is_uncertain: waiting.is_uncertain,
    };
    let mut told = String::new();
    let mut seen: BTreeMap<usize, u8> = BTreeMap::new();
    for Placed { recipients, place } in routing.place(&stored, word, &|_| false) {
        for at in &recipients {
            *seen.entry(*at).or_default() += 1;
        }
        let recipients: Vec<_> = recipients.iter().map(ToString::to_string).collect();
        let place = match place {
            Place::Stays => "stays".to_owned(),
            Place::Lanes { tenant, route, lanes } => {
                let logins: Vec<_> = lanes.lanes().map(|lane| lane.login().to_owned()).collect();
                format!("{tenant}/{route}/{}", logins.join(","))
            }
            Place::Unrouted { reason } => reason,
        };
        let _ = write!(told, "{}: {place}; ", recipients.join("+"));
    }
    assert!(seen.len() == waiting.recipients.len() && seen.values().all(|times| *times == 1), "{seen:?}");
    told
}

#[test]
fn mail_in_the_queue_follows_the_routes_within_its_tenant() {
    let routing = routing(
        r#"
[[route]]
name = "to fabrikam"
recipients = ["*@fabrikam.com"]
mailbox = ["fab"]
[[route]]
name = "to c"
recipients = ["*@b.c"]
mailbox = ["invoices"]
[[route]]
name = "own"
senders = ["*@people.contoso.com", "office@fabrikam.com"]
mailbox = ["{sender}"]
[[route]]
name = "people at home"
senders = ["*@people.contoso.com"]
mailbox = ["fab"]
[[route]]
name = "to d"
recipients = ["*@d.e"]
mailbox = ["scanner", "invoices"]
"#,
    );
    let told = |waiting: &Waiting<'_>| placed(&routing, waiting, Word::default());
    let usual = Waiting::default;
    assert_eq!(told(&usual()), "0: contoso/to c/svc@contoso.onmicrosoft.com; ");
    let recipients = &["a@b.c", "a@d.e", "b@b.c", "x@fabrikam.com", "n@o.where"];
    let split = told(&Waiting { recipients, ..usual() });
    assert_eq!(
        split,
        "0+2: contoso/to c/svc@contoso.onmicrosoft.com; 1: contoso/to d/scanner@contoso.com,svc@contoso.onmicrosoft.com; \
         3: it was accepted for tenant contoso and route \"to fabrikam\" gives it to tenant fabrikam now; to move it there: \
         xoauth2-relay queue reroute ID --tenant fabrikam; 4: no route takes it any more; route \"gone\" did when it was accepted; "
    );
    // The same Entra tenant under another name.
    assert_eq!(told(&Waiting { tenant: "renamed", ..usual() }), "0: contoso/to c/svc@contoso.onmicrosoft.com; ");
    // Redirected: the routes are asked for whom the client asked for.
    let redirected = Waiting { recipients: &["lab@x.y"], redirected: Some("a@b.c"), ..usual() };
    assert_eq!(told(&redirected), "0: contoso/to c/svc@contoso.onmicrosoft.com; ");
    // What upstream may have goes by nobody else.
    let uncertain = Waiting { is_uncertain: true, ..usual() };
    assert!(told(&uncertain).starts_with("0: upstream may have it from"), "{}", told(&uncertain));
    let pinned = Waiting { is_uncertain: true, recipients: &["a@d.e"], ..usual() };
    assert_eq!(told(&pinned), "0: contoso/to d/scanner@contoso.com; ");
    // What goes by the sender's own mailbox was found right when it was accepted; nobody becomes him by a reload.
    let sender = "jo@people.contoso.com";
    let own = Waiting { sender, recipients: &["n@o.where"], lanes: &[sender], ..usual() };
    assert_eq!(told(&own), "0: contoso/own/jo@people.contoso.com; ");
    let claimed = told(&Waiting { lanes: &["scanner@contoso.com"], ..own });
    assert!(claimed.starts_with("0: mailbox \"any\" lets only users send who have logged in"), "{claimed}");
    // A report goes by whoever is left.
    let report = Waiting { origin: Origin::Report, ..usual() };
    assert_eq!(told(&report), "0: stays; ");
    let orphaned = Waiting { lanes: &["gone@contoso.com"], ..report };
    assert_eq!(told(&orphaned), "0: contoso/gone/scanner@contoso.com; ");
    let uncertain = told(&Waiting { is_uncertain: true, ..orphaned });
    assert!(uncertain.contains("upstream may have it"), "{uncertain}");
    let foreign = Waiting { tenant: "nobody", lanes: &["gone@contoso.com"], origin: Origin::Report, ..usual() };
    assert_eq!(told(&foreign), "0: no mailbox of tenant nobody is left to send it; ");
}

#[test]
fn an_operators_word_moves_mail_to_another_tenant() {
    let routing = routing(
        "[[route]]\nname = \"a\"\nsenders = [\"x@y\"]\nmailbox = [\"scanner\"]\n\
         [[route]]\nname = \"b\"\nmailbox = [\"fab\"]\n",
    );
    let word = |tenant| Word { tenant: Some(tenant) };
    assert_eq!(placed(&routing, &Waiting::default(), word("fabrikam")), "0: fabrikam/b/office@fabrikam.com; ");
    assert_eq!(placed(&routing, &Waiting::default(), word("contoso")), "0: contoso/a/scanner@contoso.com; ");
    assert_eq!(placed(&routing, &Waiting { sender: "z@y", ..Waiting::default() }, word("contoso")), "0: stays; ");
}

/// Routes by chance, told apart by all sorts of matchers.
fn routes() -> impl Strategy<Value = String> {
    let pattern = prop_oneof![Just("*"), Just("*@a.test"), Just("*@b.test"), Just("x@a.test"), Just("y@b.test")];
    let patterns = || proptest::option::of(proptest::collection::vec(pattern.clone(), 1..3));
    let users = proptest::option::of(prop_oneof![Just(vec!["erp"]), Just(vec!["crm"]), Just(vec!["erp", "crm"])]);
    let listeners = proptest::option::of(prop_oneof![Just(vec!["local"]), Just(vec!["plant"])]);
    let mailbox = prop_oneof![Just("scanner"), Just("fab"), Just("{sender}")];
    let route = (listeners, users, patterns(), patterns(), mailbox);
    proptest::collection::vec(route, 1..12).prop_map(|routes| {
        let mut text = String::new();
        for (at, (listeners, users, senders, recipients, mailbox)) in routes.into_iter().enumerate() {
            let _ = write!(text, "[[route]]\nname = \"{at}\"\nmailbox = [{mailbox:?}]\n");
            let lists = [("listeners", listeners), ("users", users), ("senders", senders), ("recipients", recipients)];
            for (key, list) in lists {
                let _ = list.map(|list| writeln!(text, "{key} = {list:?}"));
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is looked up is what would be found by going through all of them.
    #[test]
    fn the_index_leaves_no_route_out(
        routes in routes(),
        listener in prop_oneof![Just("local"), Just("plant")],
        user in proptest::option::of(prop_oneof![Just("ERP"), Just("crm"), Just("other")]),
        sender in prop_oneof![Just("x@a.test"), Just("X@B.test"), Just("y@b.test"), Just("z@c.test"), Just("")],
        recipient in prop_oneof![Just("x@a.test"), Just("y@A.test"), Just("z@c.test"), Just("postmaster")],
    ) {
        let settings = settings_unchecked(&format!("{MAILBOXES}{routes}"));
        let routing = Routing::new(&settings);
        let path = ReversePath::parse(sender.as_bytes()).unwrap();
        let sender = routing.sender_of_message(&path, &HeaderBlock::default());
        let submitter = Submitter { listener, client: None, user, is_held_to_senders: true, sender };
        let asked = routing.asked(&ForwardPath::parse(recipient.as_bytes()).unwrap());
        let found = match routing.decide(&submitter, &asked) {
            Decision::Route(route) => Some(route.name.clone()),
            Decision::None | Decision::Depends => None,
        };
        let mut all = routing.routes().iter();
        let wanted = all.find(|route| route.misses(&submitter, Some(&asked)).next().is_none());
        prop_assert_eq!(&found, &wanted.map(|route| route.name.clone()));
        prop_assert!(found.is_none() || routing.may_submit(&submitter));
        let may_any = routing.routes().iter().any(|route| route.misses(&submitter, None).next().is_none());
        prop_assert_eq!(routing.may_submit(&submitter), may_any);
    }
}
