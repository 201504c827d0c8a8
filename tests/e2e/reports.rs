//! What a sender hears of mail that did not go: reports as other programs read them, digests, and silence where it is due.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use sandbox::{Action, DEFAULT_CLIENT_ID, DEFAULT_TENANT_ID, Fault, Grant, Message, Stage, TenantModel};
use serde_json::Value;

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, UNKNOWN, World, field, message, peer, split, until};

const POSTMASTER: &str = "postmaster@contoso.com";
const EXTERNAL: &str = "customer@example.org";
/// What the simulated Exchange says of [`UNKNOWN`].
const USER_UNKNOWN: &str = "550 5.1.1 User unknown";

/// Prints a report as Python's `email` package reads it, with every defect that it finds.
const READER: &str = r#"
import email, email.policy, json, sys
report = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
defects = [str(d) for part in report.walk() for d in part.defects]
defects += [str(d) for part in report.walk() for value in part.values() for d in value.defects]
parts = list(report.iter_parts())
returned = parts[2].get_payload(0).as_string() if parts[2].is_multipart() else parts[2].get_content()
print(json.dumps({
    "type": report.get_content_type(),
    "report_type": report.get_param("report-type"),
    "header": dict(report.items()),
    "defects": defects,
    "parts": [part.get_content_type() for part in parts],
    "text": " ".join(parts[0].get_content().split()),
    "status": [dict(block.items()) for block in parts[1].get_payload()],
    "returned": returned,
}))
"#;

/// A report as another program reads it.
struct Read(Value);

impl Read {
    /// None, with a line that says so, where Python is not installed.
    async fn by_python(report: &Message) -> Option<Self> {
        let python = peer("python3")?;
        let octets = report.body.octets().unwrap().to_vec();
        let run = tokio::task::spawn_blocking(move || {
            let mut reader = Command::new(python);
            reader.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = reader.spawn().unwrap();
            child.stdin.take().unwrap().write_all(&octets).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = run.await.unwrap();
        assert!(output.status.success());
        let read = Self(serde_json::from_slice(&output.stdout).unwrap());
        assert_eq!(read.0["defects"], Value::Array(Vec::new()));
        assert_eq!((read.text("type"), read.text("report_type")), ("multipart/report", "delivery-status"));
        Some(read)
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.0["header"][name].as_str().unwrap_or_default()
    }

    fn parts(&self) -> Vec<&str> {
        self.0["parts"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    /// A field of the message's block.
    fn of_message(&self, name: &str) -> &str {
        self.0["status"][0][name].as_str().unwrap_or_default()
    }

    /// A field of the first recipient's block.
    fn of_recipient(&self, name: &str) -> &str {
        self.0["status"][1][name].as_str().unwrap_or_default()
    }
}

async fn submit(relay: &Relay, mail: &str, recipients: &[&str], message: &[u8]) {
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send_with(mail, recipients, message).await.unwrap().code(), 250);
}

/// One message from `sender` to a recipient that upstream refuses.
async fn fail(relay: &Relay, sender: &str, name: &str) {
    submit(relay, &format!("<{sender}>"), &[&format!("<{UNKNOWN}>")], &message(name)).await;
}

fn given_up(relay: &Relay) -> String {
    relay.log().wait_for(|line| line.contains("not delivered, and given up"))
}

fn recipient(message: &Message) -> &str {
    &message.recipients[0].address
}

/// Another message passes, and was the only one, or the last after `before` others.
async fn nothing_else_comes(world: &World, relay: &Relay, before: u64) {
    submit(relay, &format!("<{SENDER}>"), &[&format!("<{RECIPIENT}>")], &message("afterwards")).await;
    relay.log().wait_for(|line| line.contains("\"sent\"") && line.contains("<afterwards@test.local>"));
    is_empty(world).await;
    let taken = world.sandbox.messages();
    assert_eq!(taken.len() as u64, before + 1);
    assert!(taken.iter().any(|message| message.message_id == "<afterwards@test.local>"));
}

/// Nothing waits any more.
async fn is_empty(world: &World) {
    let is_empty = || world.count("SELECT count(*) FROM delivery") == Some(0);
    assert!(until(PATIENCE, is_empty).await, "something is still queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_sender_of_a_refused_recipient_gets_a_report_that_programs_understand() {
    let world = World::new().await;
    let relay = world.relay().await;
    fail(&relay, SENDER, "refused").await;
    let reply = field(&given_up(&relay), "reply");
    assert!(reply.starts_with(USER_UNKNOWN), "{reply}");
    let bounce = &world.wait_for(1).await[0];
    assert_eq!((bounce.login.as_str(), bounce.reverse_path.as_str(), recipient(bounce)), (SENDER, SENDER, SENDER));
    let notify = bounce.recipients[0].parameters.iter().find(|parameter| parameter.name == "NOTIFY");
    assert_eq!(notify.and_then(|notify| notify.value.as_deref()), Some("NEVER"));
    let Some(read) = Read::by_python(bounce).await else { return };
    assert_eq!(read.parts(), ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert_eq!(read.of_recipient("Final-Recipient"), format!("rfc822;{UNKNOWN}"));
    assert_eq!((read.of_recipient("Action"), read.of_recipient("Status")), ("failed", "5.1.1"));
    assert_eq!(read.of_recipient("Diagnostic-Code"), format!("smtp;{reply}"));
    assert_eq!(read.header("Auto-Submitted"), "auto-replied");
    assert_eq!(read.header("To"), SENDER);
    assert!(read.header("From").contains(SENDER), "{}", read.header("From"));
    assert_eq!(read.header("In-Reply-To"), "<refused@test.local>");
    assert!(read.text("returned").contains("Message-ID: <refused@test.local>"), "{}", read.text("returned"));
    assert!(!read.text("returned").contains("This is refused."), "the header alone comes back");
    assert!(read.text("text").contains("this address does not exist"), "{}", read.text("text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_report_names_all_recipients_of_a_message_that_were_refused_and_no_other() {
    let world = World::new().await;
    let gone: Vec<_> = (0..3).map(|number| format!("gone{number}@contoso.com")).collect();
    let refuse = |tenant: &mut TenantModel| tenant.refused_recipients.extend(gone.iter().cloned());
    world.sandbox.change_tenant(DEFAULT_TENANT_ID, refuse).unwrap();
    let relay = world.relay().await;
    let all = [&gone[0], RECIPIENT, &gone[1], &gone[2]];
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&all, &message("several")).await.unwrap().code(), 250);
    let taken = world.wait_for(2).await;
    let report = taken.iter().find(|message| recipient(message) == SENDER).expect("a report came");
    nothing_else_comes(&world, &relay, 2).await;
    let Some(read) = Read::by_python(report).await else { return };
    let blocks = read.0["status"].as_array().unwrap();
    let named: Vec<_> = blocks.iter().filter_map(|block| block["Final-Recipient"].as_str()).collect();
    assert_eq!(named, gone.iter().map(|gone| format!("rfc822;{gone}")).collect::<Vec<_>>());
    assert!(!read.text("text").contains(RECIPIENT), "{}", read.text("text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_an_external_sender_is_told_to_the_postmaster() {
    let world = World::new().await.set("bounce", format!("postmaster = \"{POSTMASTER}\""));
    let relay = world.relay().await;
    fail(&relay, EXTERNAL, "external").await;
    let bounce = &world.wait_for(1).await[0];
    assert_eq!((bounce.reverse_path.as_str(), recipient(bounce)), (SENDER, POSTMASTER));
    let Some(read) = Read::by_python(bounce).await else { return };
    assert!(read.text("text").contains(&format!("from {EXTERNAL} to {UNKNOWN}")), "{}", read.text("text"));
    assert!(read.text("text").contains("The sender has not been told."), "{}", read.text("text"));
    nothing_else_comes(&world, &relay, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_postmaster_nobody_is_told_of_an_external_senders_failure_and_the_log_says_why() {
    let world = World::new().await;
    let relay = world.relay().await;
    fail(&relay, EXTERNAL, "external").await;
    let line = relay.log().wait_for(|line| line.contains("nobody is told of the failure by mail"));
    assert!(line.contains("internal_domains") && line.contains("bounce.postmaster is not set"), "{line}");
    nothing_else_comes(&world, &relay, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_domains_that_are_named_as_internal_get_their_reports() {
    let world = World::new().await.set("tenant", "internal_domains = [\"contoso.com\", \"example.org\"]");
    let relay = world.relay().await;
    fail(&relay, EXTERNAL, "named").await;
    assert_eq!(recipient(&world.wait_for(1).await[0]), EXTERNAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_report_gets_none() {
    let world = World::new().await;
    let relay = world.relay().await;
    let never = format!("<{UNKNOWN}> NOTIFY=NEVER");
    submit(&relay, &format!("<{SENDER}>"), &[&never], &message("never")).await;
    given_up(&relay);
    relay.log().wait_for(|line| line.contains("its client wanted no report of failure (NOTIFY)"));
    nothing_else_comes(&world, &relay, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_asks_about_reports_goes_upstream_and_comes_back_in_the_report() {
    let world = World::new().await;
    let relay = world.relay().await;
    let asked = |address: &str| format!("<{address}> NOTIFY=FAILURE ORCPT=rfc822;first+2B{address}");
    let recipients = [asked(RECIPIENT), asked(UNKNOWN)];
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    submit(&relay, &format!("<{SENDER}> RET=HDRS ENVID=batch+2B7"), &recipients, &message("asked")).await;
    let taken = world.wait_for(2).await;
    let (reports, messages): (Vec<_>, Vec<_>) = taken.iter().partition(|message| recipient(message) == SENDER);
    let shown = |parameters: &[sandbox::Parameter]| -> HashSet<String> {
        let shown =
            parameters.iter().map(|given| format!("{}={}", given.name, given.value.clone().unwrap_or_default()));
        shown.collect()
    };
    let sent = shown(&messages[0].parameters);
    assert!(sent.contains("ENVID=batch+2B7") && sent.contains("RET=HDRS"), "{sent:?}");
    let sent = shown(&messages[0].recipients[0].parameters);
    assert!(sent.contains("NOTIFY=FAILURE"), "{sent:?}");
    assert!(sent.contains(&format!("ORCPT=rfc822;first+2B{RECIPIENT}")), "{sent:?}");
    let Some(read) = Read::by_python(reports[0]).await else { return };
    assert_eq!(read.of_message("Original-Envelope-Id"), "batch+7");
    assert_eq!(read.of_recipient("Original-Recipient"), format!("rfc822;first+{UNKNOWN}"));
    assert_eq!(read.of_recipient("Final-Recipient"), format!("rfc822;{UNKNOWN}"));
    assert!(read.0["status"].as_array().unwrap().len() == 2, "only who failed: {}", read.0["status"]);
}

/// A body with what is easily changed on the way, of about so many octets.
fn body(octets: usize) -> Vec<u8> {
    let lines = b".hidden\r\n..\r\n\r\nGr\xC3\xBC\xC3\x9Fe \xFF\r\nFrom me\r\n--=_1-\r\ntrailing  \r\n";
    lines.iter().copied().cycle().take(octets / lines.len() * lines.len()).collect()
}

/// As it goes over the wire, up to the final line end.
fn stuffed(octets: &[u8]) -> Vec<u8> {
    let lines = octets.split_inclusive(|octet| *octet == b'\n');
    let stuffed = lines.flat_map(|line| [if line.starts_with(b".") { b".".as_slice() } else { b"" }, line]);
    let wire = stuffed.collect::<Vec<_>>().concat();
    wire.strip_suffix(b"\r\n").unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_to_come_back_whole_comes_back_octet_for_octet() {
    let world = World::new().await.set("bounce", "content = \"full\"");
    let relay = world.relay().await;
    // In the database, and in a file of its own.
    for (index, octets) in [1_000, 700_000].into_iter().enumerate() {
        let body = body(octets);
        let name = format!("whole{octets}");
        let sent = [message(&name), b"\r\n".to_vec(), stuffed(&body)].concat();
        submit(&relay, &format!("<{SENDER}> RET=FULL BODY=8BITMIME"), &[&format!("<{UNKNOWN}>")], &sent).await;
        let bounce = Arc::clone(&world.wait_for(index as u64 + 1).await[index]);
        let (_, report) = split(&bounce);
        let begin = format!("Message-ID: <{name}@test.local>\r\n");
        let at = find(&report, begin.as_bytes()).expect("the header is there");
        let returned = &report[at..];
        let wanted = [b"\r\nThis is ".as_slice(), name.as_bytes(), b".\r\n", &body, b"\r\n--=_"].concat();
        assert!(find(returned, &wanted).is_some(), "the body of {octets} octets came back changed");
        let Some(read) = Read::by_python(&bounce).await else { return };
        assert_eq!(read.parts(), ["text/plain", "message/delivery-status", "message/rfc822"]);
        assert!(read.text("text").contains("Your whole message is attached."), "{}", read.text("text"));
    }
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_wants_the_header_alone_gets_no_more() {
    let world = World::new().await.set("bounce", "content = \"full\"");
    let relay = world.relay().await;
    submit(&relay, &format!("<{SENDER}> RET=HDRS"), &[&format!("<{UNKNOWN}>")], &message("little")).await;
    let bounce = &world.wait_for(1).await[0];
    assert!(find(bounce.body.octets().unwrap(), b"This is little.").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_mail_without_a_sender_is_told_to_the_postmaster() {
    let world = World::new().await.set("bounce", format!("postmaster = \"{POSTMASTER}\""));
    let relay = world.relay().await;
    fail(&relay, "", "null").await;
    let bounce = &world.wait_for(1).await[0];
    assert_eq!((bounce.reverse_path.as_str(), recipient(bounce)), (SENDER, POSTMASTER));
    let Some(read) = Read::by_python(bounce).await else { return };
    assert!(read.text("text").contains("It has no sender who could be told."), "{}", read.text("text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_that_a_report_was_refused() {
    let world = World::new().await.set("bounce", format!("postmaster = \"{POSTMASTER}\""));
    let refused = "leaver@contoso.com";
    let refuse = |tenant: &mut TenantModel| assert!(tenant.refused_recipients.insert(refused.to_owned()));
    world.sandbox.change_tenant(DEFAULT_TENANT_ID, refuse).unwrap();
    let relay = world.relay().await;
    fail(&relay, refused, "refused").await;
    let is_refused = |line: &str| line.contains("given up") && field(line, "recipients") == refused;
    relay.log().wait_for(is_refused);
    let line = relay.log().wait_for(|line| line.contains("nobody is told of the failure by mail"));
    assert!(line.contains("it was a report itself"), "{line}");
    nothing_else_comes(&world, &relay, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_may_not_be_sent_as_hears_it_in_plain_words_with_the_remedy() {
    // Else it would be rewritten.
    let kept = "[[route]]\nname = \"kept\"\nmailbox = [\"scanner\"]\nsender = \"keep\"\n";
    let world = World::new().await.set("retry", "refused_sender_for = \"0s\"").set("tables", kept);
    let relay = world.relay().await;
    let erp = "erp@contoso.com";
    submit(&relay, &format!("<{erp}>"), &[&format!("<{RECIPIENT}>")], &message("denied")).await;
    let line = given_up(&relay);
    assert_eq!(
        (field(&line, "outcome").as_str(), field(&line, "why").as_str()),
        ("held", "retry.refused_sender_for is over")
    );
    let bounce = &world.wait_for(1).await[0];
    assert_eq!((bounce.reverse_path.as_str(), recipient(bounce)), (SENDER, erp));
    let Some(read) = Read::by_python(bounce).await else { return };
    for said in [
        format!("the mail server does not let the mailbox {SENDER} send it as {erp}."),
        "What to do: Please show this report to your administrator: let the software send as the mailbox itself"
            .to_owned(),
        "-AccessRights SendAs".to_owned(),
    ] {
        assert!(read.text("text").contains(&said), "{said} is not in {}", read.text("text"));
    }
    assert_eq!((read.of_recipient("Action"), read.of_recipient("Status")), ("failed", "5.2.252"));
    assert!(read.of_recipient("Diagnostic-Code").contains("SendAsDenied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_told_once_that_a_message_is_late() {
    let world = World::new().await.set("retry", "schedule = [\"1s\"]").set("bounce", "delay_notice_after = \"1s\"");
    let busy = Action::Reply("451 4.2.1 Mailbox busy".to_owned());
    world.sandbox.inject(Fault::once(Stage::Rcpt, busy).times(10)).unwrap();
    let relay = world.relay().await;
    submit(&relay, &format!("<{SENDER}>"), &[&format!("<{RECIPIENT}>")], &message("late")).await;
    let taken = world.wait_for(2).await;
    let notice = taken.iter().find(|message| recipient(message) == SENDER).expect("a notice came");
    relay.log().wait_for(|line| line.contains("\"sent\"") && line.contains("<late@test.local>"));
    let tried = relay.log().count(|line| line.contains("not sent yet") && line.contains("<late@test.local>"));
    assert!(tried >= 4, "it stayed late after the notice: {tried} tries");
    nothing_else_comes(&world, &relay, 2).await;
    let Some(read) = Read::by_python(notice).await else { return };
    assert_eq!((read.of_recipient("Action"), read.of_recipient("Status")), ("delayed", "4.2.1"));
    assert_eq!(read.of_recipient("Diagnostic-Code"), "smtp;451 4.2.1 Mailbox busy");
    assert!(!read.of_recipient("Will-Retry-Until").is_empty());
    assert!(read.text("text").contains("It is not lost: it is kept and tried again until"), "{}", read.text("text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_of_failures_ten_are_told_at_once_and_the_others_in_one_digest() {
    let world = World::new().await;
    let relay = world.relay().await;
    for number in 0..15 {
        fail(&relay, SENDER, &format!("flood{number}")).await;
    }
    let given_up = |line: &str| line.contains("not delivered, and given up");
    assert!(until(PATIENCE, || relay.log().count(given_up) == 15).await);
    is_empty(&world).await;
    assert_eq!(world.sandbox.counters().messages, 10);
    assert_eq!(world.count("SELECT count(*) FROM report"), Some(5));
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let relay = world.relay().await;
    let taken = world.wait_for(11).await;
    is_empty(&world).await;
    assert_eq!(world.count("SELECT count(*) FROM report"), Some(0));
    let text = |message: &Message| String::from_utf8(message.body.octets().unwrap().to_vec()).unwrap();
    let digest = text(&taken[10]);
    assert!(digest.contains("Subject: 5 messages were not delivered\r\n"), "{digest}");
    assert!(digest.contains("Auto-Submitted: auto-generated\r\n"), "{digest}");
    assert_eq!(recipient(&taken[10]), SENDER);
    // Everybody's failure is told in exactly one of the eleven.
    for number in 0..15 {
        let id = format!("<flood{number}@test.local>");
        assert_eq!(taken.iter().filter(|message| text(message).contains(&id)).count(), 1, "{id}");
    }
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_is_held_for_longer_than_it_may_be_is_given_up() {
    let world = World::new().await.set("retry", "max_hold = \"4s\"");
    world.sandbox.revoke(SENDER, DEFAULT_CLIENT_ID).unwrap();
    let relay = world.relay().await;
    submit(&relay, &format!("<{SENDER}>"), &[&format!("<{RECIPIENT}>")], &message("held")).await;
    relay.log().wait_for(|line| line.contains("lane stands still"));
    let line = given_up(&relay);
    assert_eq!(field(&line, "why"), "retry.max_hold is over");
    assert!(field(&line, "reply").contains("535 5.7.3 Authentication unsuccessful"), "{line}");
    // Its report waits for the lane, too.
    relay.terminate().await;
    world.sandbox.grant(SENDER, DEFAULT_CLIENT_ID, Grant::Rbac).unwrap();
    let relay = world.relay().await;
    let bounce = &world.wait_for(1).await[0];
    assert_eq!(recipient(bounce), SENDER);
    nothing_else_comes(&world, &relay, 1).await;
    let Some(read) = Read::by_python(bounce).await else { return };
    let said = format!("the mailbox {SENDER} could not send for too long.");
    assert!(read.text("text").contains(&said), "{}", read.text("text"));
    assert_eq!(read.of_recipient("Action"), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waited_for_long_is_not_given_up_for_a_moments_trouble_of_its_lane() {
    let world = World::new().await.set("retry", "max_hold = \"5s\"");
    world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
    let relay = world.relay().await;
    submit(&relay, &format!("<{SENDER}>"), &[&format!("<{RECIPIENT}>")], &message("old")).await;
    relay.terminate().await;
    world.sandbox.clear_faults();
    // Accepted an hour ago, and due just before the first look; upstream is away then, for three seconds.
    let queue = rusqlite::Connection::open(world.path("state/queue.db")).unwrap();
    queue.execute("UPDATE message SET accepted_at = accepted_at - 3600000", []).unwrap();
    let due = SystemClock::new().wall() + Duration::from_secs(4);
    queue.execute("UPDATE delivery SET due = ?1", [due.unix_millis()]).unwrap();
    drop(queue);
    world.sandbox.inject(Fault::once(Stage::Connect, Action::Close).times(2)).unwrap();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("\"sent\"") && line.contains("<old@test.local>"));
    assert_eq!(relay.log().count(|line| line.contains("given up")), 0);
    nothing_else_comes(&world, &relay, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_every_refusal_is_told_by_one_report() {
    const MESSAGES: usize = 60;
    for seed in 1..=3 {
        let world = World::new().await;
        world.sandbox.inject(Fault::always(Stage::Connect, Action::Close)).unwrap();
        let relay = world.relay().await;
        // Each has its own sender, so that no flood is gathered.
        for number in 0..MESSAGES {
            fail(&relay, &format!("s{number}@contoso.com"), &format!("m{number}")).await;
        }
        relay.terminate().await;
        world.sandbox.clear_faults();
        world.let_time_pass();
        let relay = world.relay().await;
        // The line is written before the settlement: the kill comes between the two, or soon after.
        let kill_at = fastrand::Rng::with_seed(seed).usize(1..MESSAGES);
        let refusals = || relay.log().count(|line| line.contains("not delivered, and given up"));
        while refusals() < kill_at {
            tokio::task::yield_now().await;
        }
        relay.kill();
        let (queued, reported) =
            (world.count("SELECT count(*) FROM delivery WHERE origin = 0"), world.sandbox.counters().messages);
        eprintln!(
            "killed at refusal {kill_at} of {MESSAGES}, with {queued:?} messages queued and {reported} reports sent"
        );
        let relay = world.relay().await;
        is_empty(&world).await;
        let mut reports: HashMap<String, HashSet<String>> = HashMap::new();
        for message in world.sandbox.messages() {
            reports.entry(recipient(&message).to_owned()).or_default().insert(message.message_id.clone());
        }
        let senders: HashSet<_> = (0..MESSAGES).map(|number| format!("s{number}@contoso.com")).collect();
        assert_eq!(reports.keys().cloned().collect::<HashSet<_>>(), senders);
        assert!(reports.values().all(|reports| reports.len() == 1), "{reports:?}");
        // A report that was itself in flight may come twice, as any mail.
        let twice = world.sandbox.duplicates().len();
        eprintln!("{twice} reports were in flight at the kill and came twice");
        drop(relay);
    }
}
