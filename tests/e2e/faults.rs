//! Every fault that the sandbox's catalogue knows, each driven once down the whole road: what the relay makes of it, that
//! nothing is lost or doubled, and that mail goes out again afterwards. What a reply means in each scope is the table of
//! `forwarder::classify`; conditions that last, such as a full mailbox, are in `conditions.rs`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::catalogue::{self, Class, Effect, Row};
use sandbox::{Fault, Message, Stage};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, field, message, until};

/// Worlds at a time: most of them wait most of the time, and each is two processes' work at its start.
const TOGETHER: usize = 8;
/// Longest wait for one step. The token endpoint is given up after 30 s, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// A message that fills every buffer on the way, so that what strikes in its middle strikes before its end.
const LARGE: usize = 16 << 20;
/// No fault may cost more connections than this: its own, one or two more tries, and the second message's.
const MOST_CONNECTIONS: u64 = 6;
/// No fault at the token endpoint may cost more requests than this: the one it struck and the next; a redirect that was
/// followed would be a third.
const MOST_TOKEN_REQUESTS: u64 = 2;
/// No other fault may cost more than this: one, a fresh one, and one more after a restart.
const MOST_TOKEN_REQUESTS_OF_A_REFUSAL: u64 = 3;
const OTHER: &str = "other@example.com";

/// What the relay promises of a message that met a fault.
#[derive(Clone, Copy, Debug)]
enum Promise {
    /// It goes out, at most late, and nobody needs to hear of it.
    Unnoticed,
    /// It is told, and goes out by itself.
    ByItself(Told),
    /// Upstream is silent, and the relay patient: other mail passes meanwhile, and a restart sends this message too.
    Patience,
    /// It is told, and goes out by itself after a wait that is too long for a test: a restart cuts it short.
    AfterAWait(Told),
    /// It is told, and all mail of the lane waits until somebody has mended it.
    UntilMended,
    /// It is told, and this message waits for its sender's permission; others pass.
    HeldForSender,
    /// It is told, given up, and its sender gets a report; others pass.
    Refused,
}

/// Where and how a fault is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// The lane stands still since upstream is away for a moment, with its reply if it gave one.
    Away,
    /// The lane stands still since upstream asks to slow down, with its reply.
    Pace,
    /// The lane stands still since upstream refuses it, with its reply, how far that reaches, and advice.
    Refusal,
    /// This message was not sent yet, with this outcome and upstream's reply.
    Message(&'static str),
    /// This message or recipient is given up, with upstream's reply.
    ForGood,
    /// No token, with one of these classes, AADSTS code and advice.
    Token(&'static [&'static str]),
}

/// The table: what the relay does with each class.
fn promise(row: &Row) -> Promise {
    use Promise::{AfterAWait, ByItself, HeldForSender, Patience, Refused, Unnoticed, UntilMended};
    let is_silence = row.effect == Effect::Stall && row.stage != Stage::Token;
    let is_entra = matches!(row.effect, Effect::Entra { .. });
    let is_535 = matches!(row.effect, Effect::Reply(text) if text.starts_with("535"));
    match (row.class, row.stage) {
        (_, _) if is_silence => Patience,
        (Class::Harmless | Class::Protocol, _) | (Class::RefreshToken, Stage::Auth) => Unnoticed,
        // Whatever its text says, a 535 is first answered with a fresh token.
        (Class::Transient, Stage::Auth) if is_535 => Unnoticed,
        (Class::Transient, Stage::Token) => ByItself(Told::Token(&["transient"])),
        (Class::Unusable | Class::RefreshToken, Stage::Token) => ByItself(Told::Token(&["unexpected"])),
        // Entra's own word for throttling looks like a bad grant; the next request waits for a minute either way.
        (Class::Throttled, Stage::Token) if is_entra => AfterAWait(Told::Token(&["grant"])),
        (Class::Throttled, Stage::Token) => ByItself(Told::Token(&["throttled"])),
        (Class::Transient | Class::Reconnect, Stage::Connect | Stage::Ehlo | Stage::StartTls | Stage::Auth) => {
            ByItself(Told::Away)
        }
        // The guard against too much at a time.
        (Class::Transient, Stage::Rcpt) if is_busy(row) => AfterAWait(Told::Pace),
        (Class::Transient | Class::Reconnect | Class::SplitAndResend, _) => ByItself(Told::Message("deferred")),
        (Class::Ambiguous, _) => ByItself(Told::Message("uncertain")),
        (Class::Throttled, _) => AfterAWait(Told::Pace),
        (
            Class::ConfigurationAtAuth
            | Class::TenantConfigurationAtAuth
            | Class::QuotaUsedUp
            | Class::TenantQuotaUsedUp
            | Class::MailboxFull
            | Class::MailboxBlocked
            | Class::TenantBlocked,
            _,
        ) => UntilMended,
        (Class::SenderRefused, _) => HeldForSender,
        (Class::PermanentMessage | Class::PermanentRecipient, _) => Refused,
        (Class::ConfigurationAtToken | Class::ClientBug, _) => {
            AfterAWait(Told::Token(&["credential", "configuration", "grant"]))
        }
        (Class::NeedsConsent, _) => AfterAWait(Told::Token(&["consent", "grant"])),
        (Class::Policy, _) => AfterAWait(Told::Token(&["policy", "grant"])),
        (Class::SignInAgain | Class::AccountLocked, _) => AfterAWait(Told::Token(&["grant"])),
        // Nothing that answers client credentials.
        (Class::Flow, _) => AfterAWait(Told::Token(&["unexpected"])),
        (class, stage) => panic!("what does the relay promise for {class:?} at {stage}?"),
    }
}

/// 4.7.500 to 4.7.699.
fn is_busy(row: &Row) -> bool {
    matches!(row.effect, Effect::Reply(text) if text.starts_with("451 4.7.5") || text.starts_with("451 4.7.6"))
}

/// What history says of the message's first recipient, whom the fault struck, in order. Trouble before MAIL is no event of a
/// message.
fn history(row: &Row) -> &'static [&'static str] {
    match promise(row) {
        // The restart cut a transfer: nobody knows how far upstream had come.
        Promise::Patience if is_transfer(row.stage) => &["uncertain", "accepted"],
        Promise::ByItself(Told::Message("deferred")) => &["deferred", "accepted"],
        Promise::ByItself(Told::Message("uncertain")) => &["uncertain", "accepted"],
        // Pace that upstream asked for in so many words.
        Promise::AfterAWait(Told::Pace) if is_transfer(row.stage) => &["paced", "accepted"],
        Promise::UntilMended if row.stage != Stage::Auth => &["held", "accepted"],
        Promise::HeldForSender => &["held", "accepted"],
        Promise::Refused => &["refused"],
        _ => &["accepted"],
    }
}

/// Whether upstream has heard of the message.
fn is_transfer(stage: Stage) -> bool {
    matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Content | Stage::EndOfData)
}

/// `FAULT=name` drives one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_fault_of_the_catalogue_ends_as_its_class_promises_and_leaves_the_relay_healthy() {
    let wanted = std::env::var("FAULT").ok();
    // The metadata service is asked only by a tenant with a managed identity, which these have not.
    let mut rows: Vec<_> = catalogue::all()
        .filter(|row| row.stage != Stage::Imds && wanted.as_deref().is_none_or(|name| name == row.name))
        .collect();
    // The longest first, so that they do not make the end wait.
    rows.sort_by_key(|row| !matches!((row.effect, row.stage), (Effect::Delay(_), _) | (Effect::Stall, Stage::Token)));
    let (count, begun) = (rows.len(), Instant::now());
    let places = Arc::new(Semaphore::new(TOGETHER));
    let mut runs = JoinSet::new();
    for row in rows {
        let places = Arc::clone(&places);
        runs.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            // A task of its own: a panic in the harness is this row's failure, too.
            let ended = tokio::spawn(drive(row)).await.unwrap_or_else(|panic| Err(panic.to_string()));
            ended.err().map(|why| format!("{row}\n    {:?} promises {:?}, but {why}\n", row.class, promise(row)))
        });
    }
    let failures: Vec<_> = runs.join_all().await.into_iter().flatten().collect();
    eprintln!("{count} faults driven in {:.0} s", begun.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{} of {count} faults:\n\n{}", failures.len(), failures.join("\n"));
}

async fn drive(row: &'static Row) -> Result<(), String> {
    let mut run = Run::begin(row).await;
    let driven = run.drive().await;
    driven.map_err(|why| format!("{why}; the log ends with\n{}", run.end_of_log()))
}

/// One row against a world of its own.
struct Run {
    row: &'static Row,
    world: World,
    relay: Option<Relay>,
    /// What relays before this one logged.
    earlier: String,
}

impl Run {
    async fn begin(row: &'static Row) -> Self {
        let world = World::new().await;
        let world =
            world.set("retry", "schedule = [\"1s\"]\nuncertain_delay = \"1s\"").set("shutdown", "grace = \"1s\"");
        // What somebody must mend lasts until then: it shows that the relay asks no more than it should.
        let fault = row.fault();
        let lasts = matches!(promise(row), Promise::UntilMended);
        world.sandbox.inject(if lasts { Fault::always(fault.stage, fault.action) } else { fault }).unwrap();
        let relay = Some(world.relay().await);
        Self { row, world, relay, earlier: String::new() }
    }

    async fn drive(&mut self) -> Result<(), String> {
        let promise = promise(self.row);
        self.submit("first", self.recipients()).await;
        self.strikes(promise).await?;
        let others_pass = matches!(promise, Promise::Patience | Promise::HeldForSender);
        if others_pass {
            self.second().await?;
        }
        match promise {
            Promise::Patience | Promise::AfterAWait(_) => self.restart(false).await?,
            Promise::UntilMended | Promise::HeldForSender => self.restart(true).await?,
            Promise::Unnoticed | Promise::ByItself(_) | Promise::Refused => {}
        }
        self.delivered("first", &self.recipients()[self.refused()..]).await?;
        if matches!(promise, Promise::ByItself(Told::Away)) {
            self.line("the lane's recovery", |line| line.contains("lane works again")).await?;
        }
        if !others_pass {
            self.second().await?;
        }
        if self.refused() > 0 {
            let is_it = |line: &str| line.contains("\"sent\"") && field(line, "recipients") == SENDER;
            self.line("the report of the failure", is_it).await?;
        }
        self.judge().await
    }

    /// Waits until the fault struck and was told.
    async fn strikes(&self, promise: Promise) -> Result<(), String> {
        match promise {
            Promise::Unnoticed => Ok(()),
            Promise::ByItself(told) | Promise::AfterAWait(told) => self.told(told).await,
            Promise::Patience => {
                self.until("the fault's strike", |run| run.world.sandbox.waiting_faults().is_empty()).await
            }
            Promise::UntilMended => self.told(Told::Refusal).await,
            Promise::HeldForSender => self.told(Told::Message("held")).await,
            Promise::Refused => self.told(Told::ForGood).await,
        }
    }

    /// How many recipients, from the first, stay refused.
    fn refused(&self) -> usize {
        usize::from(matches!(promise(self.row), Promise::Refused))
    }

    /// What strikes one recipient must not hurt another.
    fn recipients(&self) -> &'static [&'static str] {
        let of_one = matches!(self.row.class, Class::PermanentRecipient | Class::SplitAndResend);
        if of_one { &[RECIPIENT, OTHER] } else { &[RECIPIENT] }
    }

    /// Upstream's reply as the log must repeat it.
    fn reply(&self) -> &'static str {
        match self.row.effect {
            Effect::Reply(text) => text.trim_end_matches("[..]"),
            _ => "",
        }
    }

    async fn submit(&self, name: &str, recipients: &[&str]) {
        let filler = if self.row.stage == Stage::Content && name == "first" { LARGE } else { 0 };
        let line = [&[b'x'; 76][..], b"\r\n"].concat();
        let filler = line.iter().copied().cycle().take(filler / line.len() * line.len()).collect();
        let text = [message(name), b"\r\n".to_vec(), filler].concat();
        let mut client = Client::connect(self.relay().address).await.unwrap();
        assert_eq!(client.send(recipients, &text).await.unwrap().code(), 250);
    }

    /// The proof of health: another message goes through.
    async fn second(&self) -> Result<(), String> {
        self.submit("second", &[RECIPIENT]).await;
        self.delivered("second", &[RECIPIENT]).await
    }

    async fn delivered(&self, name: &str, recipients: &[&str]) -> Result<(), String> {
        let id = format!("<{name}@test.local>");
        for recipient in recipients {
            let is_it = |line: &str| line.contains("\"sent\"") && line.contains(&id) && line.contains(recipient);
            self.line(&format!("the delivery of {name} to {recipient}"), is_it).await?;
        }
        Ok(())
    }

    async fn told(&self, told: Told) -> Result<(), String> {
        let reply = self.reply();
        match told {
            Told::Away | Told::Pace | Told::Refusal => {
                let is_it = |line: &str| line.contains("lane stands still") && line.contains(reply);
                let line = self.line("the lane's trouble with the reply", is_it).await?;
                let is_pace = line.contains("to slow down");
                let is_refusal = line.contains("refused the login") || line.contains("takes nothing from");
                let of_tenant = matches!(
                    self.row.class,
                    Class::TenantConfigurationAtAuth | Class::TenantQuotaUsedUp | Class::TenantBlocked
                );
                let has_scope = field(&line, "scope") == if of_tenant { "tenant" } else { "mailbox" };
                let has_advice = field(&line, "advice").len() > 20;
                let is_right = match told {
                    Told::Pace => is_pace,
                    Told::Refusal => is_refusal && has_scope && has_advice,
                    _ => !is_pace && !is_refusal,
                };
                if is_right { Ok(()) } else { Err(format!("it is told as {line}")) }
            }
            Told::Message(outcome) => {
                let outcome = format!("\"outcome\":\"{outcome}\"");
                let is_it =
                    |line: &str| line.contains("not sent yet") && line.contains(&outcome) && line.contains(reply);
                self.line("the message's trouble with the reply", is_it).await.map(drop)
            }
            Told::ForGood => {
                let is_it = |line: &str| line.contains("not delivered, and given up") && line.contains(reply);
                let line = self.line("the refusal with the reply", is_it).await?;
                let is_right = field(&line, "outcome") == "refused" && field(&line, "why") == "refused for good";
                if is_right { Ok(()) } else { Err(format!("it is told as {line}")) }
            }
            Told::Token(classes) => {
                let line = self.line("the failed request", |line| line.contains("token request failed")).await?;
                let failure = field(&line, "failure");
                let is_one = classes.iter().any(|class| failure.starts_with(&format!("{class}: ")));
                let is_verbatim = match self.row.effect {
                    Effect::Entra { code, message, .. } => {
                        failure.contains(&format!("AADSTS{code}")) && failure.contains(message)
                    }
                    _ => true,
                };
                let has_advice = field(&line, "advice").len() > 20;
                if is_one && is_verbatim && has_advice { Ok(()) } else { Err(format!("it is told as {line}")) }
            }
        }
    }

    /// Waits until a line of the log of this relay is there.
    async fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        self.until(what, |run| run.relay().log().count(&wanted) > 0).await?;
        Ok(self.relay().log().wait_for(wanted))
    }

    async fn until(&self, what: &str, is_there: impl Fn(&Self) -> bool) -> Result<(), String> {
        if until(PATIENCE, || is_there(self)).await { Ok(()) } else { Err(format!("{what} did not come")) }
    }

    /// As an operator would after mending the cause. `time_passes`: so much that whatever waits is due.
    async fn restart(&mut self, time_passes: bool) -> Result<(), String> {
        self.world.sandbox.clear_faults();
        self.stop().await?;
        if time_passes {
            self.world.let_time_pass();
        }
        self.relay = Some(self.world.relay().await);
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), String> {
        let relay = self.relay.take().expect("it runs");
        let (status, log) = relay.terminate().await;
        self.earlier.push_str(&log);
        self.earlier.push('\n');
        if status.code() == Some(0) { Ok(()) } else { Err(format!("the relay ended with {status}")) }
    }

    /// Nothing lost, nothing doubled beyond what the class allows, nothing told without need, no storm.
    async fn judge(&mut self) -> Result<(), String> {
        self.stop().await?;
        let mut wrong = String::new();
        let kept = self.world.count("SELECT count(*) FROM delivery");
        if kept != Some(0) {
            let _ = write!(wrong, "the queue holds {kept:?} deliveries; ");
        }
        let events = self.events();
        let names: Vec<_> = events.iter().map(|(event, _)| event.as_str()).collect();
        let is_verbatim = |(event, reply): &(String, String)| event == "accepted" || reply.contains(self.reply());
        if names != history(self.row) || !events.iter().all(is_verbatim) {
            let _ = write!(wrong, "history says {events:?} and not {:?}; ", history(self.row));
        }
        let (reports, messages): (Vec<_>, Vec<_>) =
            self.world.sandbox.messages().into_iter().partition(|message| is_report(message));
        if reports.len() != self.refused() || !reports.iter().all(|report| self.is_right(report)) {
            let texts: Vec<_> = reports.iter().map(|report| text(report)).collect();
            let _ = write!(wrong, "the reports are {texts:?}; ");
        }
        let mut copies: HashMap<(String, String), usize> = HashMap::new();
        for message in messages {
            for recipient in &message.recipients {
                *copies.entry((message.message_id.clone(), recipient.address.clone())).or_default() += 1;
            }
        }
        let first = if self.row.effect == Effect::KeepThenClose { 2 } else { 1 };
        let expected = self
            .recipients()
            .iter()
            .skip(self.refused())
            .map(|recipient| (("<first@test.local>".to_owned(), (*recipient).to_owned()), first));
        let second = (("<second@test.local>".to_owned(), RECIPIENT.to_owned()), 1);
        if copies != expected.chain([second]).collect() {
            let _ = write!(wrong, "upstream has {copies:?}; ");
        }
        if matches!(promise(self.row), Promise::Unnoticed) && self.earlier.contains("\"WARN\"") {
            wrong.push_str("it warned; ");
        }
        if self.earlier.contains("\"ERROR\"") {
            wrong.push_str("it met an error; ");
        }
        let counters = self.world.sandbox.counters();
        let is_token = self.row.stage == Stage::Token;
        let most = if is_token { MOST_TOKEN_REQUESTS } else { MOST_TOKEN_REQUESTS_OF_A_REFUSAL };
        if counters.connections_total > MOST_CONNECTIONS || counters.token_requests > most {
            let _ = write!(wrong, "it stormed: {counters:?}; ");
        }
        if self.row.class == Class::RefreshToken && self.row.stage == Stage::Auth && counters.tokens_issued != 2 {
            let _ = write!(wrong, "{} tokens instead of one and a fresh one; ", counters.tokens_issued);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("it runs")
    }

    /// What history says of the first message's first recipient: events and replies.
    fn events(&self) -> Vec<(String, String)> {
        let queue = self.world.queue();
        let wanted =
            "SELECT event, reply FROM history WHERE message_id = '<first@test.local>' AND recipient = ?1 ORDER BY id";
        let mut rows = queue.prepare(wanted).unwrap();
        rows.query_map([RECIPIENT], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    }

    /// A report to the sender, by the mailbox that carried the message, on the one that was refused and nobody else.
    fn is_right(&self, report: &Message) -> bool {
        let text = text(report);
        let recipients: Vec<_> = report.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
        let others = self.recipients().iter().filter(|recipient| **recipient != RECIPIENT);
        recipients == [SENDER]
            && report.login == SENDER
            && report.reverse_path == SENDER
            && text.contains(&format!("\r\nFinal-Recipient: rfc822;{RECIPIENT}\r\n"))
            && text.contains(&format!("\r\nDiagnostic-Code: smtp;{}", self.reply()))
            && others.into_iter().all(|other| !text.contains(&format!("Final-Recipient: rfc822;{other}")))
    }

    fn end_of_log(&self) -> String {
        let now = self.relay.as_ref().map(|relay| relay.log().text()).unwrap_or_default();
        let log = format!("{}{now}", self.earlier);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

fn is_report(message: &Message) -> bool {
    text(message).contains("report-type=delivery-status")
}

/// Its header and body, unfolded. Of a large message nothing.
fn text(message: &Message) -> String {
    let octets = message.body.octets().unwrap_or_default();
    String::from_utf8_lossy(octets).replace("\r\n ", " ").replace("  ", " ")
}
