//! Explanations of small configurations: as they are shown, as JSON, and against what a real intake and delivery do with the
//! same mail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use clock::{ManualClock, WallTime};
use mail::{ForwardPath, LaneSet, ReversePath};
use smtp_server::{Client, Credentials, Intake, MessageSink, Transaction};
use spool::{Claim, Spool, SpoolOptions, SqliteSource, SqliteSpool};
use wire::MailParameters;
use zeroize::Zeroizing;

use super::*;
use crate::config::Configuration;
use crate::container::Gateways;
use crate::current::Current;
use crate::intake::{ListenerIntake, Paces, Rooms, terms};
use crate::rules::Rules;
use crate::sending::{Leave, decided};
use crate::users::Users;

const NOW: i64 = 1_795_247_640_000;
const SMALLEST: &str = r#"
hostname = "relay.test"
[tenant.contoso]
tenant_id = "11111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000000"
client_secret = { env = "NOT_READ" }
[mailbox.scanner]
address = "scanner@contoso.com"
"#;
const WHOLE: &str = r#"
hostname = "relay.test"
[listener.local]
max_recipients = 3
[listener.lan]
address = "10.0.0.1:25"
networks = ["10.1.2.0/24"]
authentication = "optional"
allow_cleartext_auth = true
[listener.strict]
address = "10.0.0.1:26"
networks = ["10.1.3.0/24"]
authentication = "required"
allow_cleartext_auth = true
dialect = "strict"
[user.erp]
password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
allowed_senders = ["*@contoso.com"]
[user.free]
password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
[tenant.contoso]
tenant_id = "11111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000000"
client_secret = { env = "NOT_READ" }
[tenant.fabrikam]
tenant_id = "21111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000001"
client_secret = { env = "NOT_READ" }
[mailbox.scanner]
tenant = "contoso"
address = "scanner@contoso.com"
max_message_size = "2 KiB"
[mailbox.erp]
tenant = "contoso"
address = "erp@contoso.com"
login = "erp@contoso.onmicrosoft.com"
[mailbox.any]
tenant = "contoso"
address = "*@contoso.com"
[mailbox.out]
tenant = "fabrikam"
address = "out@fabrikam.com"
[[route]]
name = "printers"
listeners = ["lan"]
networks = ["10.1.2.0/28"]
recipients = ["*@contoso.com"]
mailbox = ["scanner"]
sender = "rewrite"
[[route]]
name = "partner"
senders = ["*@contoso.com"]
recipients = ["*@fabrikam.com"]
mailbox = ["out"]
deny_recipients = ["boss@fabrikam.com"]
[[route]]
name = "erp"
senders = ["erp@contoso.com"]
mailbox = ["erp", "scanner"]
[[route]]
name = "exact"
senders = ["*@exact.test"]
mailbox = ["erp"]
sender = "reject"
redirect_all_to = "test@contoso.com"
[[route]]
name = "own"
listeners = ["lan"]
senders = ["*@contoso.com", "*@fabrikam.com"]
mailbox = ["{sender}"]
[rewrite]
senders = { "root@erp01" = "erp@contoso.com" }
recipients = { "all@old.test" = "all@contoso.com" }
"#;

fn configuration(text: &str) -> Configuration {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    std::fs::write(&file, text).unwrap();
    crate::config::load(&file, std::iter::empty()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn options(arguments: &[&str]) -> cli::Explain {
    let words = ["xoauth2-relay", "explain"].iter().chain(arguments);
    match cli::Cli::try_parse_from(words).unwrap().command {
        cli::Command::Explain(options) => options,
        other => panic!("{other:?}"),
    }
}

fn explained(text: &str, arguments: &[&str], message: &str) -> Result<Explanation, String> {
    let message = (!message.is_empty()).then(|| Message::read(message.as_bytes()).unwrap());
    answer(&configuration(text).settings, &options(arguments), message).map_err(|error| error.to_string())
}

/// Compares with a file; writes it instead where the variable `GOLDEN` is set, to be read before it is committed.
fn assert_golden(name: &str, said: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/explain/golden").join(name);
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(&file, said).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(said, wanted, "{name}");
}

#[test]
fn the_screen_tells_what_happens_and_why_in_80_columns() {
    let scan = "From: \"Scanner, 2nd floor\"\nTo: a@contoso.com\nBcc: b@contoso.com\nDate: today\nSubject: x\n\nhi\n";
    for (name, configuration, arguments, message) in [
        ("smallest.txt", SMALLEST, "--sender scanner@contoso.com --to a@b.c", ""),
        ("scan.txt", WHOLE, "--client 10.1.2.3 --sender scan@printer.local", scan),
        ("split.txt", WHOLE, "--sender root@erp01 --to a@b.c --to x@fabrikam.com --to boss@fabrikam.com", ""),
        ("no_route.txt", WHOLE, "--sender root@erp02 --to a@b.c", ""),
        ("own.txt", WHOLE, "--client 10.1.2.99 --user ERP --sender anna@contoso.com --to all@old.test", ""),
        ("needs_user.txt", WHOLE, "--client 10.1.2.99 --sender anna@contoso.com --to a@b.c", ""),
        ("reject.txt", WHOLE, "--sender a@exact.test --to a@b.c", ""),
        ("stranger.txt", WHOLE, "--client 192.0.2.1 --sender a@b.c --to a@b.c", ""),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let screen = screen::screen(&explained(configuration, &arguments, message).unwrap());
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        assert_golden(name, &screen);
    }
}

#[test]
fn the_json_is_as_the_documentation_shows_it() {
    let arguments = ["--sender", "root@erp01", "--to", "a@b.c", "--to", "boss@fabrikam.com", "--json"];
    let json = json(&explained(WHOLE, &arguments, "").unwrap());
    assert_golden("example.json", &json);
    let documentation = include_str!("../../../../docs/operation.md");
    assert!(documentation.contains(&json), "docs/operation.md shows another example than golden/example.json");
}

#[test]
fn each_refusal_is_at_its_command_with_the_reply_that_the_client_hears() {
    for (arguments, message, refused) in [
        ("--client 192.0.2.1 --sender a@b.c --to a@b.c", "", &["connect 554 5.7.1"][..]),
        ("--user erp --sender a@b.c --to a@b.c", "", &["AUTH 502 5.5.1"]),
        ("--client 10.1.2.3 --user nobody --sender a@b.c --to a@b.c", "", &["AUTH 535 5.7.8"]),
        ("--client 10.1.3.3 --sender a@b.c --to a@b.c", "", &["MAIL 530 5.7.0"]),
        ("--client 10.1.2.3 --user erp --sender a@fabrikam.com --to a@b.c", "", &["MAIL 550 5.7.1"]),
        ("--sender a@b.c --to a@b.c", "", &["MAIL 550 5.7.1"]),
        ("--sender erp@contoso.com --to boss@fabrikam.com", "", &["RCPT 550 5.7.1"]),
        ("--sender erp@contoso.com --to a@b.c --to b@b.c --to c@b.c --to d@b.c", "", &["RCPT 452 4.5.3"]),
        ("--client 10.1.2.99 --sender a@contoso.com --to a@b.c", "", &["RCPT 550 5.7.1"]),
        ("--client 10.1.2.99 --sender a@fabrikam.com --to a@b.c", "", &["RCPT 550 5.7.1"]),
        ("--sender a@exact.test --to a@b.c", "", &["RCPT 550 5.7.1"]),
        ("--client 10.1.2.3 --user erp --sender erp@contoso.com --to a@b.c", "From: a@b.c\n\n", &["message 550 5.7.1"]),
        ("--client 10.1.3.3 --user free --sender erp@contoso.com --to a@b.c", "To: a@b.c\n\n", &["message 554 5.6.0"]),
        ("--sender <> --to a@b.c", "From: a@b.c\n\n", &["message 550 5.7.1"]),
        ("--sender <> --to a@b.c --header-from erp@contoso.com", "", &[]),
        ("--sender erp@contoso.com --to postmaster", "", &[]),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let said = explained(WHOLE, &words, message).unwrap();
        let heard: Vec<_> = said.refused.iter().map(|it| format!("{} {}", it.command, &it.reply[..9])).collect();
        assert_eq!(heard, refused, "{arguments}: {said:#?}");
        assert_eq!(said.taken, refused.is_empty(), "{arguments}");
        assert!(said.refused.iter().all(|refused| !refused.remedy.is_empty()));
    }
}

#[test]
fn sizes_are_held_against_the_session_and_then_the_mailbox() {
    let message = |octets: usize| format!("From: erp@contoso.com\n\n{}", "x".repeat(octets));
    for (to, octets, refused) in [
        ("a@b.c", 1000, None),
        ("a@b.c", 3000, Some("RCPT 552 5.3.4")),
        ("a@fabrikam.com", 3000, None),
        ("a@b.c", 36 << 20, Some("MAIL 552 5.3.4")),
    ] {
        let said = explained(WHOLE, &["--to", to], &message(octets)).unwrap();
        let heard = said.refused.first().map(|it| format!("{} {}", it.command, &it.reply[..9]));
        assert_eq!(heard.as_deref(), refused, "{to} {octets}");
    }
}

#[test]
fn near_misses_fail_by_one_matcher_and_those_that_meet_most_come_first() {
    let near = |arguments: &str| {
        let words: Vec<_> = arguments.split(' ').collect();
        let said = explained(WHOLE, &words, "").unwrap();
        let misses = said.recipients.into_iter().flat_map(|it| it.near_misses);
        let misses = misses.chain(said.refused.into_iter().flat_map(|it| it.near_misses));
        misses.map(|miss| format!("{} {}: {}", miss.number, miss.matcher, miss.text)).collect::<Vec<_>>()
    };
    for (arguments, misses) in [
        (
            "--client 10.1.2.3 --sender erp@contoso.com --to a@b.c",
            &["1 recipients: a@b.c is not in *@contoso.com", "2 recipients: a@b.c is not in *@fabrikam.com"][..],
        ),
        (
            "--client 10.1.2.99 --sender erp@contoso.com --to a@contoso.com",
            &["1 networks: 10.1.2.99 is not in 10.1.2.0/28", "2 recipients: a@contoso.com is not in *@fabrikam.com"],
        ),
        (
            "--sender x@fabrikam.com --to x@fabrikam.com",
            &[
                "2 senders: x@fabrikam.com is not in *@contoso.com",
                "5 listeners: local is not lan",
                "3 senders: x@fabrikam.com is not in erp@contoso.com",
                "4 senders: x@fabrikam.com is not in *@exact.test",
            ],
        ),
    ] {
        assert_eq!(near(arguments), misses, "{arguments}");
    }
}

#[test]
fn what_cannot_be_asked_is_told_with_the_remedy() {
    for (arguments, message, said) in [
        ("--to a@b.c", "", "--sender ADDRESS"),
        ("--sender a@b.c", "", "--to ADDRESS"),
        ("--sender a --to a@b.c", "", "--sender a: "),
        ("--sender a@b.c --to <>", "", "--to <>: a recipient cannot be empty"),
        ("--to a@b.c", "no header\n", "--sender ADDRESS"),
        ("--sender a@b.c", "Subject: x\n\n", "--to ADDRESS"),
        ("--listener x --sender a@b.c --to a@b.c", "", "there is lan, local, strict"),
        ("--sender <> --header-from a\tb\nc --to a@b.c", "", "--header-from"),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let error = explained(WHOLE, &words, message).unwrap_err();
        assert!(error.contains(said), "{arguments}: {error}");
    }
}

#[test]
fn a_message_is_read_as_a_client_would_send_it() {
    let header = format!("X: {}\nTo: a@b.c\n\n", "x".repeat(mail::MAX_HEADER_LEN));
    let said = explained(WHOLE, &["--sender", "erp@contoso.com", "--to", "a@fabrikam.com"], &header).unwrap();
    assert!(said.refused[0].reply.starts_with("552 5.3.4"), "{said:?}");
    let said = explained(WHOLE, &["--to", "a@b.c"], "From: erp@contoso.com\n\nline\r\nline\n").unwrap();
    assert_eq!(said.size, Some("From: erp@contoso.com\r\n\r\nline\r\nline\r\n".len() as u64));
    let said = explained(WHOLE, &["--sender", "erp@contoso.com", "--to", "a@b.c"], "no header").unwrap();
    assert!(said.taken && said.from[0].given == "erp@contoso.com", "{said:?}");
}

/// A real intake with a real queue, and the rules that it goes by.
struct World {
    spool: Arc<SqliteSpool>,
    configuration: Configuration,
    rooms: Arc<OnceLock<Arc<Rooms<SqliteSpool>>>>,
    users: Arc<Users>,
    rules: Rules,
    clock: Arc<ManualClock>,
    _directory: tempfile::TempDir,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(WallTime::from_unix_millis(NOW)));
    let spool_options = SpoolOptions {
        directory: directory.path().join("state"),
        max_messages: 10_000,
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        memory_budget: 1 << 20,
    };
    let spool = Arc::new(SqliteSpool::open(spool_options, clock.clone()).unwrap().0);
    let configuration = configuration(WHOLE);
    let rooms = Rooms {
        spool: Some(Arc::clone(&spool)),
        direct: None,
        rules: Arc::new(Current::new(Rules::new(&configuration.settings))),
        unknown: Arc::default(),
        wanted: Arc::default(),
        clock: clock.clone(),
        paces: Paces::default(),
    };
    let opened = Arc::new(OnceLock::new());
    assert!(opened.set(Arc::new(rooms)).is_ok());
    let (users, rules) = (Arc::new(Users::new(&configuration.settings.users)), Rules::new(&configuration.settings));
    World { spool, configuration, rooms: opened, users, rules, clock, _directory: directory }
}

/// A delivery: tenant, route, recipients, and by each lane the sender upstream with what was changed.
type Stored = (String, String, Vec<String>, BTreeMap<String, (String, Vec<String>)>);

impl World {
    /// A user's name as a login gives it; any other is nobody's.
    fn known(&self, name: &str) -> Arc<str> {
        let credentials = Credentials { name: name.to_owned(), password: Zeroizing::default() };
        self.users.name_of(&credentials).map_or_else(|| name.into(), Arc::clone)
    }

    /// What the client hears where it is refused.
    async fn submit(&self, client: &Client, sender: &str, recipients: &[&str], message: &str) -> Vec<String> {
        let listener = &self.configuration.settings.listeners[&*client.listener];
        let policy = terms::policy(&self.configuration.settings, listener, &self.users, Gateways::default());
        let intake = ListenerIntake::new(policy, self.clock.clone(), Arc::clone(&self.rooms));
        if let Err(refused) = intake.connect(client) {
            return vec![refused.to_string()];
        }
        let path = ReversePath::parse(sender.as_bytes()).unwrap();
        let size = (!message.is_empty()).then_some(message.len() as u64);
        let parameters = MailParameters { size, ..MailParameters::default() };
        let mut transaction = match intake.mail(client, path, parameters).await {
            Ok(transaction) => transaction,
            Err(refused) => return vec![refused.to_string()],
        };
        let (mut heard, mut taken) = (Vec::new(), 0);
        for recipient in recipients {
            let reply = transaction.rcpt(ForwardPath::parse(recipient.as_bytes()).unwrap().into()).await;
            if reply.is_positive() {
                taken += 1;
            } else {
                heard.push(reply.to_string());
            }
        }
        if taken == 0 {
            return heard;
        }
        let mut sink = transaction.data().await.unwrap();
        let reply = match sink.write(message.as_bytes()).await {
            Ok(()) => sink.end().await,
            Err(reply) => reply,
        };
        if !reply.is_positive() {
            heard.push(reply.to_string());
        }
        heard
    }

    /// What was stored and not looked at before, and how it leaves.
    async fn stored(&self, held: &mut Vec<Claim<SqliteSource>>) -> BTreeSet<Stored> {
        let mut stored = BTreeSet::new();
        let sets: Vec<LaneSet> = self.spool.lanes().await.unwrap();
        for set in sets {
            while let Some(claim) = self.spool.claim(&set, WallTime::from_unix_millis(NOW)).await.unwrap() {
                let recipients = claim.recipients.iter().map(|recipient| recipient.path.to_string()).collect();
                let lanes = claim.lanes.lanes().map(|lane| {
                    let Leave::As(dressed) = decided(&self.rules.routing, &claim, &lane, &|_| false).0 else {
                        panic!("{lane} does not send it")
                    };
                    let edits = dressed.edits.iter().map(ToString::to_string).collect();
                    (lane.to_string(), (dressed.reverse_path.to_string(), edits))
                });
                stored.insert((claim.tenant.clone(), claim.route.clone(), recipients, lanes.collect()));
                // What is dropped would be due again.
                held.push(claim);
            }
        }
        stored
    }
}

/// The same mail is explained, and given to a real intake whose queue is asked by a real delivery: both say the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_is_what_intake_and_delivery_do() {
    let world = world();
    let (mut taken, mut refused) = (0, 0);
    let mut held = Vec::new();
    let clients = [
        ("local", "127.0.0.1", None),
        ("local", "10.1.2.3", None),
        ("lan", "10.1.2.3", None),
        ("lan", "10.1.2.99", Some("erp")),
        ("lan", "10.1.2.99", Some("free")),
        ("strict", "10.1.3.1", Some("free")),
    ];
    let senders = ["root@erp01", "erp@contoso.com", "anna@contoso.com", "x@fabrikam.com", "erp@exact.test", ""];
    let recipients: [&[&str]; 4] = [
        &["a@b.c"],
        &["a@fabrikam.com", "all@old.test", "postmaster"],
        &["boss@fabrikam.com", "a@b.c"],
        &["all@old.test", "all@contoso.com"],
    ];
    let messages = [
        "From: Root <root@erp01>\r\nBcc: b@c.d\r\n\r\nbody\r\n".to_owned(),
        "From: anna@contoso.com, root@erp01\r\nReply-To: r@b.c\r\n\r\nbody\r\n".to_owned(),
        "From: Scanner\r\n\r\nbody\r\n".to_owned(),
        format!("From: erp@contoso.com\r\n\r\n{}\r\n", "x".repeat(3000)),
    ];
    for (listener, address, user) in clients {
        for sender in senders {
            for to in recipients {
                for message in &messages {
                    let given = format!("<{sender}>");
                    let mut words = vec!["--listener", listener, "--client", address, "--sender", &given];
                    words.extend(user.into_iter().flat_map(|user| ["--user", user]));
                    words.extend(to.iter().flat_map(|to| ["--to", to]));
                    let read = Message::read(message.as_bytes()).unwrap();
                    let said = answer(&world.configuration.settings, &options(&words), Some(read)).unwrap();

                    let client = Client {
                        session: 1,
                        listener: listener.into(),
                        peer: format!("{address}:1000").parse().unwrap(),
                        proxy: None,
                        helo: "client".into(),
                        esmtp: true,
                        tls: None,
                        user: user.map(|name| world.known(name)),
                    };
                    let heard = world.submit(&client, sender, to, message).await;
                    let replies: Vec<_> = said.refused.iter().map(|refused| refused.reply.clone()).collect();
                    assert_eq!(replies, heard, "{words:?} {message:?}");
                    let explained: BTreeSet<Stored> = said
                        .deliveries
                        .iter()
                        .map(|delivery| {
                            let mailboxes = delivery.mailboxes.iter();
                            let lanes = mailboxes.map(|it| (it.lane.clone(), (it.mail_from.clone(), it.edits.clone())));
                            let recipients = delivery.recipients.clone();
                            (delivery.tenant.clone(), delivery.route.clone(), recipients, lanes.collect())
                        })
                        .collect();
                    assert_eq!(explained, world.stored(&mut held).await, "{words:?} {message:?}");
                    *(if said.taken { &mut taken } else { &mut refused }) += 1;
                }
            }
        }
    }
    assert!(taken > 50 && refused > 50, "the table says little: {taken} taken, {refused} refused");
}
