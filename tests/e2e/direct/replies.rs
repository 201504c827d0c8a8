//! Every row of the sandbox's catalogue that a client can meet, as a table: at which of its commands it hears something, and what.
//! What is about its message is Exchange's own reply word for word; what is about our login, its tenant or its pace is a 451.
//!
//! One relay drives them all: each row has a tenant and a mailbox of its own, so that the trouble of one is no other's.

use std::fmt::Write as _;
use std::sync::Arc;

use sandbox::catalogue::{self, Effect, Row};
use sandbox::{
    Action, Application, DEFAULT_SECRET, Fault, Grant, Limits, Mailbox, SandboxOptions, Stage, Target, TenantModel,
};
use tokio::task::JoinSet;

use super::At::{Data, End, Rcpt};
use super::{At, DIRECT, Heard, converse, copies, has_struck, id, narrow, world};
use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, message};

/// What the client of a message hears that met the row's fault.
#[derive(Clone, Copy, Debug)]
enum Hears {
    /// The row's own reply, word for word.
    Own(At),
    /// A reply of ours that begins so.
    Ours(At, &'static str),
    /// 250 when it strikes once. What lasts is heard here, as a reply that begins so.
    Once(At, &'static str),
    /// 250.
    Nothing,
}

use Hears::{Nothing, Once, Ours, Own};

const LANE: &str = "451 4.3.0 The relay cannot send now: ";
const ROAD: &str = "451 4.4.1 The relay cannot send now: ";
const MAILBOX: &str = "451 4.3.0 Exchange takes nothing from the relay's mailbox now: ";
const LOST: &str = "451 4.4.2 The connection to Exchange was lost, nothing was sent: ";
const UNCERTAIN: &str = "451 4.4.2 Exchange did not answer behind the end of the message and may have taken it: ";

/// Every row at a stage of SMTP, but for upstream's silence, which has a test of its own; and some of the token endpoint's.
const TABLE: &[(&str, Hears)] = &[
    // The login: once is hidden by a fresh token, or by another connection where the dialog is said to be wrong.
    ("auth-unsuccessful", Once(Rcpt, LANE)),
    ("smtp-auth-disabled-tenant", Once(Rcpt, LANE)),
    ("smtp-auth-disabled-mailbox", Once(Rcpt, LANE)),
    ("basic-auth-disabled", Once(Rcpt, LANE)),
    ("security-defaults", Once(Rcpt, LANE)),
    ("criteria-not-met", Once(Rcpt, LANE)),
    ("credentials-incorrect", Once(Rcpt, LANE)),
    ("sts-unreachable", Once(Rcpt, LANE)),
    ("sts-without-https", Once(Rcpt, LANE)),
    ("organization-disallows", Once(Rcpt, LANE)),
    ("basic-auth-removed", Ours(Rcpt, LANE)),
    ("mechanism-unrecognized", Once(Rcpt, LANE)),
    ("hve-malformed-121", Once(Rcpt, LANE)),
    ("hve-malformed-122", Once(Rcpt, LANE)),
    ("hve-malformed-123", Once(Rcpt, LANE)),
    ("hve-malformed-124", Once(Rcpt, LANE)),
    ("hve-malformed-125", Once(Rcpt, LANE)),
    ("hve-malformed-126", Once(Rcpt, LANE)),
    ("hve-token-expires-soon-older", Once(Rcpt, LANE)),
    ("hve-token-expires-soon", Once(Rcpt, LANE)),
    ("hve-token-expired", Once(Rcpt, LANE)),
    ("hve-api-permissions", Once(Rcpt, LANE)),
    ("hve-app-not-allowed", Ours(Rcpt, LANE)),
    ("proxy-error-at-auth", Ours(Rcpt, ROAD)),
    ("temporary-auth-failure", Ours(Rcpt, ROAD)),
    ("service-not-active", Ours(Rcpt, ROAD)),
    ("too-many-errors", Ours(Rcpt, ROAD)),
    // MAIL, which goes up with the first recipient.
    ("not-authenticated", Once(Rcpt, "451 4.3.0 ")),
    ("not-authenticated-older", Once(Rcpt, "451 4.3.0 ")),
    ("not-authenticated-embedding", Once(Rcpt, "451 4.3.0 ")),
    ("starttls-required", Once(Rcpt, "451 4.3.0 ")),
    ("smtputf8-stumble", Once(Rcpt, "451 4.3.0 ")),
    ("proxy-error-at-mail", Own(Rcpt)),
    ("hve-other-sender", Own(Rcpt)),
    ("hve-not-an-account", Ours(Rcpt, MAILBOX)),
    ("submission-rate", Own(Rcpt)),
    ("send-as-refused-at-mail", Own(Rcpt)),
    ("size-exceeded-at-mail", Own(Rcpt)),
    ("invalid-sender", Own(Rcpt)),
    ("session-timeout", Once(Rcpt, ROAD)),
    ("session-timeout-4-4-2", Once(Rcpt, ROAD)),
    // RCPT.
    ("hve-external-recipient", Own(Rcpt)),
    ("too-many-recipients", Own(Rcpt)),
    ("too-many-recipients-mx", Own(Rcpt)),
    ("access-denied-4-7-500", Own(Rcpt)),
    ("access-denied-4-7-699", Own(Rcpt)),
    ("user-unknown", Own(Rcpt)),
    ("recipient-not-found", Own(Rcpt)),
    // Behind the final dot: the message.
    ("hve-other-header-from", Own(End)),
    ("send-as-denied", Own(End)),
    ("send-as-denied-older", Own(End)),
    ("send-as-refused", Own(End)),
    ("too-large-after-conversion", Own(End)),
    ("size-exceeded", Own(End)),
    ("multiple-from", Own(End)),
    ("bare-line-feeds", Own(End)),
    ("recipient-on-block-list", Own(End)),
    ("invalid-from-header", Own(End)),
    // Its pace.
    ("concurrent-connections", Own(End)),
    ("sender-thread-limit", Own(End)),
    // The mailbox.
    ("recipient-quota", Ours(End, MAILBOX)),
    ("mailbox-full", Ours(End, MAILBOX)),
    ("mailbox-full-newer", Ours(End, MAILBOX)),
    ("outbound-spam", Ours(End, MAILBOX)),
    ("bad-outbound-sender", Ours(End, MAILBOX)),
    ("daily-recipient-limit", Ours(End, MAILBOX)),
    ("submission-quota-bounce", Ours(End, MAILBOX)),
    ("onmicrosoft-sender-limit", Ours(End, MAILBOX)),
    ("banned-sender-501", Ours(End, MAILBOX)),
    ("banned-sender-502", Ours(End, MAILBOX)),
    ("banned-sender-503", Ours(End, MAILBOX)),
    ("banned-sender-800", Ours(End, MAILBOX)),
    // The tenant.
    ("trial-tenant-external-limit", Ours(End, MAILBOX)),
    ("tenant-external-limit", Ours(End, MAILBOX)),
    ("tenant-over-threshold", Ours(End, MAILBOX)),
    ("low-reputation", Ours(End, MAILBOX)),
    ("unregistered-domain", Ours(End, MAILBOX)),
    // Connections that are cut.
    ("drop-at-connect", Ours(Rcpt, ROAD)),
    ("drop-at-ehlo", Ours(Rcpt, ROAD)),
    ("drop-at-starttls", Ours(Rcpt, ROAD)),
    ("drop-at-auth", Ours(Rcpt, ROAD)),
    ("drop-at-mail", Once(Rcpt, ROAD)),
    ("drop-at-rcpt", Once(Rcpt, ROAD)),
    ("drop-at-data", Once(Data, ROAD)),
    ("drop-in-data", Ours(End, LOST)),
    ("drop-after-dot", Ours(End, UNCERTAIN)),
    ("drop-after-dot-taken", Ours(End, UNCERTAIN)),
    // Front ends that go away, and say so.
    ("closing-at-ehlo", Ours(Rcpt, ROAD)),
    ("closing-at-starttls", Ours(Rcpt, ROAD)),
    ("closing-at-auth", Ours(Rcpt, ROAD)),
    ("closing-at-mail", Once(Rcpt, ROAD)),
    ("closing-at-rcpt", Once(Rcpt, ROAD)),
    ("closing-at-data", Once(Data, ROAD)),
    ("closing-in-data", Own(End)),
    ("closing-after-dot", Own(End)),
    // Answers that come late.
    ("slow-greeting", Nothing),
    ("slow-ehlo", Nothing),
    ("slow-starttls", Nothing),
    ("slow-auth", Nothing),
    ("slow-mail", Nothing),
    ("slow-rcpt", Nothing),
    ("slow-data", Nothing),
    ("slow-final-reply", Nothing),
    // No token.
    ("token-7000215", Ours(Rcpt, LANE)),
    ("token-7000222", Ours(Rcpt, LANE)),
    ("token-65001", Ours(Rcpt, LANE)),
    ("token-90033", Ours(Rcpt, LANE)),
    ("token-garbage", Ours(Rcpt, LANE)),
    ("token-empty", Ours(Rcpt, LANE)),
    ("token-drop", Ours(Rcpt, LANE)),
];

/// Codes that a client takes for a word on its own login or encryption.
const OF_A_LOGIN: [u16; 5] = [454, 530, 534, 535, 538];
/// A message that fills every buffer on the way, so that what strikes in its middle strikes before its end.
const LARGE: usize = 16 << 20;

/// A row with the tenant and mailbox that are its own.
#[derive(Clone, Copy)]
struct Case {
    row: &'static Row,
    hears: Hears,
    /// Its place in the table.
    number: usize,
}

impl Case {
    fn client_id(self) -> String {
        format!("66666666-0000-4000-8000-{:012}", self.number)
    }

    fn tenant_id(self) -> String {
        format!("11111111-0000-4000-8000-{:012}", self.number)
    }

    fn domain(self) -> String {
        format!("t{}.example", self.number)
    }

    fn mailbox(self) -> String {
        format!("app@{}", self.domain())
    }

    fn tenant(self) -> TenantModel {
        let mailbox = Mailbox::new(&self.mailbox()).granted(&self.client_id(), Grant::Rbac);
        TenantModel::new(&self.tenant_id(), &[&self.domain()])
            .application(Application::new(&self.client_id(), DEFAULT_SECRET))
            .mailbox(mailbox)
    }

    /// Its tenant, mailbox and route in the configuration of `world`.
    fn tables(self, world: &World) -> String {
        let shown = |name: &str| world.path(name).display().to_string();
        let Self { number, .. } = self;
        format!(
            "[tenant.t{number}]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = {:?} }}\n\
             authority = \"{}\"\nauthority_ca_file = {ca:?}\n\
             smtp = {{ host = \"{}\", port = {}, ca_file = {ca:?} }}\n\
             [mailbox.m{number}]\ntenant = \"t{number}\"\naddress = \"{mailbox}\"\n\
             [[route]]\nname = \"r{number}\"\nsenders = [\"{mailbox}\"]\nmailbox = [\"m{number}\"]\n",
            self.tenant_id(),
            self.client_id(),
            shown("secret"),
            world.sandbox.authority(),
            world.sandbox.smtp_host(),
            world.sandbox.smtp_port(),
            ca = shown("ca.pem"),
            mailbox = self.mailbox(),
        )
    }

    /// The row's fault, for this case alone wherever Exchange knows by then who it is.
    fn fault(self) -> Fault {
        let fault = self.row.fault();
        match self.row.stage {
            Stage::Connect | Stage::Ehlo | Stage::StartTls => fault,
            Stage::Token => fault.only(Target::Client(self.client_id())),
            _ => fault.only(Target::Mailbox(self.mailbox())),
        }
    }

    /// The reply of the row, without what the session adds; empty if it is none.
    fn words(self) -> &'static str {
        match self.row.effect {
            Effect::Reply(text) => text.trim_end_matches(" [..]"),
            _ => "",
        }
    }

    /// Sends a message, on a connection of its own.
    async fn submit(self, relay: &Relay, name: &str) -> (Heard, Client) {
        let mut text = message(name);
        if self.row.stage == Stage::Content {
            text.extend_from_slice(b"\r\n");
            let line = [&[b'x'; 76][..], b"\r\n"].concat();
            text.extend(line.iter().copied().cycle().take(LARGE / line.len() * line.len()));
        }
        let mut client = Client::connect(relay.address).await.unwrap();
        let heard = converse(&mut client, &self.mailbox(), &[RECIPIENT], &text).await.unwrap();
        (heard, client)
    }

    /// What is wrong with what was heard where `expected` is right.
    async fn judge(self, world: &World, name: &str, expected: Hears, (heard, client): (Heard, Client)) -> String {
        let mut wrong = String::new();
        let (is_right, text) = match expected {
            Nothing => (heard.is_taken(), "250"),
            Own(at) => (heard.at == at && self.is_own(&heard), self.words()),
            // Whoever runs the client reads Exchange's reason.
            Ours(at, start) | Once(at, start) => {
                (heard.at == at && heard.text().starts_with(start) && heard.text().contains(self.words()), start)
            }
        };
        if !is_right {
            let _ = write!(wrong, "heard at {:?}: {}, and not {text}; ", heard.at, heard.text());
        }
        if OF_A_LOGIN.contains(&heard.reply.code()) {
            wrong.push_str("it looks like the client's login; ");
        }
        let most = usize::from(heard.is_taken() || self.row.effect == Effect::KeepThenClose);
        if copies(world, name) != most {
            let _ = write!(wrong, "upstream has {} copies; ", copies(world, name));
        }
        let goes_on = goes_on(client).await;
        if goes_on == (heard.reply.code() == 421) {
            let _ = write!(wrong, "the session goes on: {goes_on}; ");
        }
        wrong
    }

    /// Whether it is the row's reply: with its code, its enhanced code, its words and no others.
    fn is_own(self, heard: &Heard) -> bool {
        let text = heard.text();
        let session = text.strip_prefix(self.words());
        // What a front end adds: its name, the time, the session.
        let is_added = |rest: &str| rest.is_empty() || (rest.starts_with(" [") && rest.ends_with(']'));
        session.is_some_and(is_added)
    }
}

/// Whether the session takes another command; its end is waited for if not.
async fn goes_on(mut client: Client) -> bool {
    client.command("NOOP").await.is_ok_and(|reply| reply.code() == 250)
}

fn cases() -> Vec<Case> {
    let found = |name: &str| catalogue::find(name).unwrap_or_else(|error| panic!("{error}"));
    let numbered = TABLE.iter().enumerate();
    numbered.map(|(number, (name, hears))| Case { row: found(name), hears: *hears, number }).collect()
}

/// A world with a tenant for each case, and a relay that knows them all.
async fn bench(cases: &[Case]) -> World {
    let tenants = std::iter::once(TenantModel::default()).chain(cases.iter().map(|case| case.tenant())).collect();
    let options = SandboxOptions { limits: Limits::Off, tenants, ..SandboxOptions::default() };
    let world = World::with(options)
        .await
        .set("listener", DIRECT)
        .set("listener", "max_connections_per_client = 1000")
        .set("mailbox", "tenant = \"contoso\"");
    let tables: String = cases.iter().map(|case| case.tables(&world)).collect();
    world.set("tables", tables)
}

fn is_http(row: &Row) -> bool {
    matches!(row.stage, Stage::Token | Stage::DeviceCode | Stage::Imds)
}

#[test]
fn the_table_has_every_row_that_a_client_can_meet() {
    let is_silence = |row: &Row| row.effect == Effect::Stall;
    let missing: Vec<_> = catalogue::all()
        .filter(|row| !is_http(row) && !is_silence(row))
        .filter(|row| TABLE.iter().all(|(name, _)| *name != row.name))
        .map(|row| row.name)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// `FAULT=name` drives one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_hears_exchanges_own_words_on_its_message_and_451_on_what_is_ours() {
    let wanted = std::env::var("FAULT").ok();
    let all = cases();
    let chosen = |case: &&Case| wanted.as_deref().is_none_or(|name| name == case.row.name);
    let (late, prompt): (Vec<_>, Vec<_>) =
        all.iter().filter(chosen).copied().partition(|case| matches!(case.row.effect, Effect::Delay(_)));
    let world = Arc::new(bench(&all).await);
    // The relay asks for tokens when it starts.
    let (tokens, prompt): (Vec<_>, Vec<_>) = prompt.into_iter().partition(|case| case.row.stage == Stage::Token);
    for case in &tokens {
        world.sandbox.inject(lasting(case.fault())).unwrap();
    }
    let relay = Arc::new(world.relay().await);
    let mut failures = Vec::new();
    for case in &tokens {
        let name = format!("first-{}", case.row.name);
        let heard = case.submit(&relay, &name).await;
        let wrong = case.judge(&world, &name, case.hears, heard).await;
        if !wrong.is_empty() {
            failures.push(format!("{}\n    {:?}, but {wrong}\n", case.row, case.hears));
        }
    }
    world.sandbox.clear_faults();
    for case in &prompt {
        let wrong = drive(*case, &world, &relay).await;
        world.sandbox.clear_faults();
        if !wrong.is_empty() {
            failures.push(format!("{}\n    {:?}, but {wrong}\n", case.row, case.hears));
        }
    }
    let (next, together) = tokio::join!(all_go_on(&prompt, &world, &relay), drive_together(&late, &world, &relay));
    failures.extend(next.into_iter().chain(together));
    // Whoever mends the cause starts the relay again: every mailbox sends then, whatever it had met.
    let relay = Arc::into_inner(relay).unwrap();
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    if log.contains("\"ERROR\"") {
        failures.push("the relay met an error\n".to_owned());
    }
    let relay = world.relay().await;
    for case in all.iter().filter(chosen) {
        let heard = case.submit(&relay, &format!("mended-{}", case.row.name)).await.0;
        if !heard.is_taken() {
            failures.push(format!("{}\n    mended, but heard {heard:?}\n", case.row));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n\n{}", failures.len(), failures.join("\n"));
    assert_eq!(world.sandbox.duplicates(), []);
}

/// One row: struck once, and then for good where once is hidden.
async fn drive(case: Case, world: &World, relay: &Relay) -> String {
    let once = case.fault();
    world.sandbox.inject(if matches!(case.hears, Ours(Rcpt, _)) { lasting(once) } else { once }).unwrap();
    let name = format!("first-{}", case.row.name);
    let heard = case.submit(relay, &name).await;
    match case.hears {
        Once(..) => {
            let hidden = case.judge(world, &name, Nothing, heard).await;
            let hidden = if hidden.is_empty() { hidden } else { format!("struck once: {hidden}") };
            // What is logged in stays so: another login is made on another connection.
            world.sandbox.clear_faults();
            world.sandbox.inject(lasting(case.fault())).unwrap();
            if case.row.stage == Stage::Auth {
                close_idle(case, world, relay).await;
                world.sandbox.clear_faults();
                world.sandbox.inject(lasting(case.fault())).unwrap();
            }
            let name = format!("lasting-{}", case.row.name);
            let heard = case.submit(relay, &name).await;
            hidden + &case.judge(world, &name, case.hears, heard).await
        }
        expected => case.judge(world, &name, expected, heard).await,
    }
}

/// Has upstream close the case's connection.
async fn close_idle(case: Case, world: &World, relay: &Relay) {
    let cut = Fault::once(Stage::EndOfData, Action::Close).only(Target::Mailbox(case.mailbox()));
    world.sandbox.clear_faults();
    world.sandbox.inject(cut).unwrap();
    let heard = case.submit(relay, &format!("cut-{}", case.row.name)).await.0;
    assert!(!heard.is_taken(), "{heard:?}");
}

fn lasting(fault: Fault) -> Fault {
    Fault { times: None, ..fault }
}

/// What is over hurts no other message. Where the lane stands still others are told so, or wait for its probe: all together.
async fn all_go_on(cases: &[Case], world: &Arc<World>, relay: &Arc<Relay>) -> Vec<String> {
    let mut runs = JoinSet::new();
    for case in cases.iter().copied() {
        let (world, relay) = (Arc::clone(world), Arc::clone(relay));
        runs.spawn(async move {
            let name = format!("next-{}", case.row.name);
            let (heard, client) = case.submit(&relay, &name).await;
            let is_about_the_message = matches!(case.hears, Own(_)) && case.words().starts_with("55");
            if heard.is_taken() || (!is_about_the_message && heard.at == Rcpt && heard.reply.code() == 451) {
                return None;
            }
            let wrong = case.judge(&world, &name, Nothing, (heard, client)).await;
            Some(format!("{}\n    the next message: {wrong}\n", case.row))
        });
    }
    runs.join_all().await.into_iter().flatten().collect()
}

/// Rows that wait, all at the same time. Faults before the login strike whoever comes.
async fn drive_together(cases: &[Case], world: &Arc<World>, relay: &Arc<Relay>) -> Vec<String> {
    for case in cases {
        world.sandbox.inject(case.fault()).unwrap();
    }
    let mut runs = JoinSet::new();
    for case in cases.iter().copied() {
        let (world, relay) = (Arc::clone(world), Arc::clone(relay));
        runs.spawn(async move {
            let name = format!("first-{}", case.row.name);
            let heard = case.submit(&relay, &name).await;
            let wrong = case.judge(&world, &name, case.hears, heard).await;
            (!wrong.is_empty()).then(|| format!("{}\n    {:?}, but {wrong}\n", case.row, case.hears))
        });
    }
    let failures = runs.join_all().await.into_iter().flatten().collect();
    has_struck(world).await;
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_several_lines_comes_through_line_by_line() {
    let world = world().await;
    let relay = world.relay().await;
    let text = "554-5.2.252 SendAsDenied; scanner@contoso.com not allowed to send as boss@contoso.com;\r\n\
                554-5.2.252 STOREDRV.Submission.Exception:SendAsDeniedException\r\n\
                554 5.2.252 [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]";
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Reply(text.to_owned()))).unwrap();
    let mut client = Client::connect(relay.address).await.unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("lines")).await.unwrap();
    let mut written = Vec::new();
    heard.reply.write_to(&mut written);
    assert_eq!(String::from_utf8(written).unwrap(), format!("{text}\r\n"));
    // A line of thousands of octets is parted, and nothing of it is lost.
    let long = format!("554 5.2.0 {}[end]", "STOREDRV.Submission.Exception:SendAsDeniedException ".repeat(30));
    world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Reply(long.clone()))).unwrap();
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("long")).await.unwrap();
    assert!(heard.reply.lines().len() > 1);
    assert_eq!(heard.text(), long);
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("after")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!(world.sandbox.messages().iter().map(|message| &message.message_id).collect::<Vec<_>>(), [&id("after")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_recipient_refused_hurts_no_other() {
    let world = world().await;
    let relay = world.relay().await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().to_string(), "250 2.1.0 Sender OK");
    for (recipient, start) in [
        (crate::harness::UNKNOWN, "550 5.1.1 User unknown ["),
        (RECIPIENT, "250 2.1.5 Recipient OK"),
        ("other@example.com", "250 2.1.5 Recipient OK"),
        // The same again.
        (RECIPIENT, "250 2.1.5 "),
    ] {
        let reply = client.command(&format!("RCPT TO:<{recipient}>")).await.unwrap().to_string();
        assert!(reply.starts_with(start), "{recipient}: {reply}");
    }
    let reply = client.command("DATA").await.unwrap();
    assert_eq!(reply.code(), 354, "{reply}");
    client.write(&message("some")).await.unwrap();
    let reply = client.command("\r\n.").await.unwrap().to_string();
    assert!(reply.starts_with("250 2.0.0 OK <some@test.local> [Hostname="), "{reply}");
    let taken = world.sandbox.messages();
    assert_eq!((taken.len(), super::recipients(&taken[0])), (1, vec![RECIPIENT, "other@example.com"]));
    assert_eq!(world.sandbox.counters().connections_total, 1);
}

/// Rows of the catalogue where upstream says nothing: nobody waits for its end here, a client does not either.
#[tokio::test(flavor = "multi_thread")]
async fn upstreams_silence_holds_the_lane_no_longer_than_the_client_waits() {
    let mut runs = JoinSet::new();
    for row in catalogue::all().filter(|row| row.effect == Effect::Stall && !is_http(row)) {
        // Behind the final dot the answer is waited for, whether or not somebody wants to hear it. In the content what the client
        // sent is not worked off, and its end lies behind that: upstream's own time limit ends such a wait.
        if matches!(row.stage, Stage::Content | Stage::EndOfData) {
            continue;
        }
        runs.spawn(async move {
            let world = narrow(1).await;
            let relay = world.relay().await;
            world.sandbox.inject(row.fault()).unwrap();
            let mut client = Client::connect(relay.address).await.unwrap();
            let text = message("silence");
            tokio::select! {
                heard = converse(&mut client, SENDER, &[RECIPIENT], &text) => panic!("{}: {heard:?}", row.name),
                () = has_struck(&world) => {}
            }
            drop(client);
            let heard = super::submit(relay.address, "next").await;
            assert!(heard.is_taken(), "{}: {heard:?}", row.name);
            assert_eq!(copies(&world, "silence"), 0, "{}", row.name);
        });
    }
    runs.join_all().await;
}
