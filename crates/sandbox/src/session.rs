//! The SMTP session as a state machine: octets in, replies out, no I/O and no waiting. It decides what Exchange Online
//! says to each command in each state (facts 1.2 to 1.6). Sockets, TLS and timers are `front_end`'s.

mod login;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::RateMode;
use crate::answer::{Answer, Step, Then, put};
use crate::body::BodyReader;
use crate::command::{self, Command};
use crate::counters::count;
use crate::fault::{Action, Stage};
use crate::inbox::{Inbox, Line};
use crate::replies;
use crate::sasl::AuthRefusal;
use crate::submission::{self, Origin};
use crate::transaction::Transaction;
use crate::world::World;

pub(crate) use login::Login;

/// Longest command line other than AUTH. U: RFC 5321's 512 plus room for every extension that EHLO advertises.
const LONGEST_COMMAND: usize = 2_048;
/// A fault at [`Stage::Content`] strikes when so many octets were read.
const INTO_CONTENT: usize = 512;

/// How the client introduced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    None,
    /// No extension is known to the client, so it cannot authenticate (facts 1.2).
    Helo,
    Ehlo,
}

/// What the next octets are.
#[derive(Debug)]
enum Phase {
    Command,
    /// The answer to the empty challenge.
    Xoauth2Response,
    LoginUsername,
    LoginPassword,
    Content(Box<BodyReader>),
    /// A chunk behind a refused BDAT, of which this many octets are still to come.
    Chunk(u64),
}

/// One SMTP session.
pub(crate) struct Session {
    world: Arc<World>,
    client: IpAddr,
    /// 16 hexadecimal digits, in the banner and in every error.
    id: String,
    connection: u64,
    secure: bool,
    hello: Hello,
    login: Option<Login>,
    /// Embedded in the 530 that a MAIL without AUTH gets (facts 1.5).
    last_auth_error: Option<String>,
    transaction: Option<Transaction>,
    phase: Phase,
    before_354: bool,
    errors: u32,
    /// What is ready to be said when the tarpit or a fault's delay has passed.
    late: Option<Answer>,
    /// A fault that strikes in the middle of the content.
    interruption: Option<Interruption>,
    /// The login and the transaction of a MAIL that waits for room in the rate.
    postponed: Option<(String, Transaction)>,
}

/// A fault at [`Stage::Content`], and how much content came.
struct Interruption {
    action: Action,
    read: usize,
}

impl Session {
    pub(crate) fn new(world: Arc<World>, client: IpAddr, connection: u64) -> Self {
        Self {
            world,
            client,
            id: format!("08DE{:012X}", fastrand::u64(..1 << 48)),
            connection,
            secure: false,
            hello: Hello::None,
            login: None,
            last_auth_error: None,
            transaction: None,
            phase: Phase::Command,
            before_354: false,
            errors: 0,
            late: None,
            interruption: None,
            postponed: None,
        }
    }

    /// The banner, or what a fault puts in its place.
    pub(crate) fn greet(&mut self, out: &mut Vec<u8>) -> Step {
        let answer = self.with_fault(Stage::Connect, |session| {
            Answer::say(replies::banner(session.world.clock.wall(), &session.id))
        });
        let answer = if matches!(answer.class(), b'4' | b'5') { answer.then(Then::Close) } else { answer };
        self.say(answer, out).unwrap_or(Step::Read)
    }

    /// The handshake is done. Everything said in clear is forgotten (RFC 3207 section 4.2).
    pub(crate) fn encrypted(&mut self) {
        self.secure = true;
        self.hello = Hello::None;
        self.transaction = None;
    }

    /// The last words to a client that stayed silent or stayed too long.
    pub(crate) fn timed_out(&self, out: &mut Vec<u8>) {
        put(out, &self.stamped(replies::TIMED_OUT));
    }

    /// True while a message is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        matches!(self.phase, Phase::Content(_))
    }

    /// Works through what has arrived, until more is needed or the driver must act. Replies are appended to `out`, so
    /// that a pipelined group is answered in one write (RFC 2920 section 3.2).
    pub(crate) fn advance(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Step {
        if let Some(late) = self.late.take() {
            // What came while the 354 was held back did not wait for it.
            self.before_354 |= self.is_receiving() && !inbox.is_empty();
            if let Some(step) = late.deliver(out) {
                return step;
            }
        }
        if let Some((login, transaction)) = self.postponed.take() {
            let answer = self.begin(&login, transaction);
            if let Some(step) = self.say(answer, out) {
                return step;
            }
        }
        loop {
            let Some(answer) = self.next(inbox) else {
                return Step::Read;
            };
            if let Some(step) = self.say(answer, out) {
                return step;
            }
        }
    }

    /// Says it now, or lets it wait for the tarpit and what a fault adds.
    fn say(&mut self, answer: Answer, out: &mut Vec<u8>) -> Option<Step> {
        let tarpit = if answer.class() == b'5' { self.world.conditions().tarpit } else { Duration::ZERO };
        let wait = tarpit + answer.delay;
        if wait.is_zero() {
            return answer.deliver(out);
        }
        self.late = Some(answer);
        Some(Step::Wait(wait))
    }

    /// The answer to the next whole thing in the inbox, or `None` if it is not whole yet.
    fn next(&mut self, inbox: &mut Inbox) -> Option<Answer> {
        if let Phase::Chunk(left) = &mut self.phase {
            let taken = inbox.unread().len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= taken as u64;
            let ended = *left == 0;
            inbox.consume(taken);
            if !ended {
                return None;
            }
            self.phase = Phase::Command;
        }
        if let Phase::Content(reader) = &mut self.phase {
            let (taken, ended) = reader.feed(inbox.unread());
            inbox.consume(taken);
            if let Some(interruption) = &mut self.interruption {
                interruption.read += taken;
                if ended || interruption.read >= INTO_CONTENT {
                    return self.interruption.take().map(|interruption| self.interrupted(interruption.action));
                }
            }
            return ended.then(|| self.end_of_data());
        }
        let answer = match inbox.line()? {
            Line::Good(line) => self.line(&line),
            // U: Exchange's handling of a bare LF in commands is not on record; it is no command line.
            Line::BareLf => Answer::say(self.stamped(&replies::unrecognized(""))),
            Line::TooLong => self.too_long(),
        };
        match self.phase {
            // What already lies behind DATA was sent without waiting for the 354.
            Phase::Content(_) => self.before_354 = !inbox.is_empty(),
            _ if answer.then == Then::StartTls => inbox.clear(),
            _ => {}
        }
        Some(self.counting_errors(answer))
    }

    /// After too many syntax, sequence and AUTH errors the session ends (facts 1.5, U).
    fn counting_errors(&mut self, answer: Answer) -> Answer {
        let is_protocol_error =
            answer.text.as_ref().is_some_and(|text| text.starts_with("50") || text.starts_with("535"));
        if !is_protocol_error {
            return answer;
        }
        self.errors += 1;
        if self.errors <= self.world.protocol_errors {
            return answer;
        }
        Answer::say(self.stamped(replies::TOO_MANY_ERRORS)).then(Then::Close)
    }

    fn line(&mut self, line: &[u8]) -> Answer {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Xoauth2Response => self.xoauth2(&String::from_utf8_lossy(line)),
            Phase::LoginUsername => self.login_username(line),
            Phase::LoginPassword => self.login_password(line),
            Phase::Command | Phase::Content(_) | Phase::Chunk(_) => self.command(line),
        }
    }

    fn command(&mut self, line: &[u8]) -> Answer {
        let command = command::parse(line);
        if line.len() > LONGEST_COMMAND && !matches!(command, Command::Auth(..)) {
            return self.too_long();
        }
        match command {
            Command::Ehlo(domain) => self.with_fault(Stage::Ehlo, |session| session.hello(Hello::Ehlo, domain)),
            Command::Helo(domain) => self.with_fault(Stage::Ehlo, |session| session.hello(Hello::Helo, domain)),
            Command::StartTls => self.with_fault(Stage::StartTls, Self::start_tls),
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial),
            Command::Mail(rest) => self.with_fault(Stage::Mail, |session| session.mail(rest)),
            Command::Rcpt(rest) => self.with_fault(Stage::Rcpt, |session| session.rcpt(rest)),
            Command::Data => self.with_fault(Stage::Data, Self::data),
            Command::Bdat(size) => self.bdat(size),
            Command::Rset => {
                self.transaction = None;
                Answer::say(replies::RESETTING)
            }
            Command::Noop => Answer::say(replies::NOOP_OK),
            Command::Quit => Answer::say(replies::CLOSING).then(Then::Close),
            Command::Vrfy => Answer::say(replies::CANNOT_VRFY),
            Command::Help => Answer::say(replies::HELP),
            Command::BadArguments => self.refuse(replies::INVALID_ARGUMENTS),
            Command::Unknown(verb) => self.refuse(&replies::unrecognized(&verb)),
        }
    }

    fn too_long(&mut self) -> Answer {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Xoauth2Response | Phase::LoginUsername | Phase::LoginPassword => {
                self.auth_refused(AuthRefusal::Malformed)
            }
            _ => self.refuse(replies::LINE_TOO_LONG),
        }
    }

    fn hello(&mut self, hello: Hello, domain: &str) -> Answer {
        if !command::is_hello_domain(domain) {
            return self.refuse(replies::INVALID_DOMAIN);
        }
        // RFC 5321 section 4.1.4: a repeated EHLO resets the transaction. The login stays (U).
        self.transaction = None;
        self.hello = hello;
        Answer::say(match hello {
            Hello::Ehlo => replies::ehlo(self.client, self.secure),
            Hello::Helo | Hello::None => replies::helo(self.client),
        })
    }

    fn start_tls(&mut self) -> Answer {
        match (self.secure, self.hello) {
            (true, _) => self.refuse(replies::BAD_SEQUENCE),
            (false, Hello::None) => self.refuse(replies::HELLO_FIRST),
            (false, _) => Answer::say(replies::STARTTLS_READY).then(Then::StartTls),
        }
    }

    fn mail(&mut self, rest: &str) -> Answer {
        if self.hello == Hello::None {
            return self.refuse(replies::HELLO_FIRST);
        }
        if !self.secure {
            return self.refuse(replies::STARTTLS_REQUIRED);
        }
        let Some(login) = &self.login else {
            return self.refuse(&replies::not_authenticated(self.last_auth_error.as_deref()));
        };
        if self.transaction.is_some() {
            return self.refuse(replies::SENDER_SPECIFIED);
        }
        let transaction = match Transaction::open(rest) {
            Ok(transaction) => transaction,
            Err(refusal) => return self.refuse(refusal),
        };
        let login = login.address.clone();
        self.begin(&login, transaction)
    }

    /// Begins a transaction if the mailbox's rate has room; if not, the client is refused or waits.
    fn begin(&mut self, login: &str, transaction: Transaction) -> Answer {
        if !self.world.has_limits() || self.world.limiter.begin_message(login, self.world.clock.monotonic()) {
            self.transaction = Some(transaction);
            return Answer::say(replies::SENDER_OK);
        }
        match self.world.conditions().rate {
            RateMode::Reject => self.refuse(replies::RATE_EXCEEDED).then(Then::Close),
            RateMode::Delay => {
                self.postponed = Some((login.to_owned(), transaction));
                Answer::silently(Then::AskAgain)
            }
        }
    }

    fn rcpt(&mut self, rest: &str) -> Answer {
        let (Some(login), Some(transaction)) = (&self.login, &mut self.transaction) else {
            return self.refuse(replies::MAIL_FIRST);
        };
        let directory = self.world.directory();
        let limit = directory.mailbox(&login.address).map_or(0, |(_, mailbox)| mailbox.recipient_limit);
        let added = transaction.add_recipient(rest, limit, |address| directory.refuses_recipient(address));
        drop(directory);
        match added {
            Ok(()) => Answer::say(replies::RECIPIENT_OK),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn data(&mut self) -> Answer {
        match &self.transaction {
            None => self.refuse(replies::MAIL_FIRST),
            Some(transaction) if transaction.recipients.is_empty() => self.refuse(replies::RCPT_FIRST),
            // RFC 3030 section 3: BINARYMIME is for BDAT only.
            Some(transaction) if transaction.binary => self.refuse(replies::BAD_SEQUENCE),
            Some(transaction) => {
                let expected = usize::try_from(transaction.announced).unwrap_or(usize::MAX);
                let reader = BodyReader::new(self.world.mail.keep_up_to(), expected);
                self.phase = Phase::Content(Box::new(reader));
                let action = self.world.faults.strike(Stage::Content, self.mailbox());
                self.interruption = action.map(|action| Interruption { action, read: 0 });
                Answer::say(replies::START_INPUT)
            }
        }
    }

    /// CHUNKING is advertised, but BDAT has hung on real clients (facts 0, point 12). It is refused here; the chunk
    /// is swallowed, so that its content is never taken for commands.
    fn bdat(&mut self, size: u64) -> Answer {
        self.phase = Phase::Chunk(size);
        self.refuse(&replies::unrecognized("BDAT"))
    }

    fn end_of_data(&mut self) -> Answer {
        let phase = std::mem::replace(&mut self.phase, Phase::Command);
        let (Phase::Content(reader), Some(transaction)) = (phase, self.transaction.take()) else {
            return self.refuse(replies::BAD_SEQUENCE);
        };
        self.with_fault(Stage::EndOfData, |session| {
            let Some(login) = &session.login else {
                return session.refuse(replies::BAD_SEQUENCE);
            };
            let origin = Origin { login, session_id: &session.id, before_354: session.before_354 };
            Answer::say(submission::submit(&session.world, origin, transaction, reader.finish()))
        })
    }

    /// The end of a transfer that a fault strikes in the middle; the phase stays, so that it counts as cut off.
    fn interrupted(&self, action: Action) -> Answer {
        match action {
            Action::Reply(text) => Answer::say(self.worded(text)).then(Then::Close),
            Action::Stall => Answer::silently(Then::Freeze),
            _ => Answer::silently(Then::Cut),
        }
    }

    /// Carries a command out unless a fault strikes at its stage.
    fn with_fault(&mut self, stage: Stage, carry_out: impl FnOnce(&mut Self) -> Answer) -> Answer {
        let action = self.world.faults.strike(stage, self.mailbox());
        self.with_action(stage, action, carry_out)
    }

    /// Carries a command out unless `action` is to be done in its place.
    fn with_action(
        &mut self,
        stage: Stage,
        action: Option<Action>,
        carry_out: impl FnOnce(&mut Self) -> Answer,
    ) -> Answer {
        match action {
            None | Some(Action::TokenError(_) | Action::Http(_) | Action::OddToken(_)) => carry_out(self),
            Some(Action::Close) => Answer::silently(Then::Cut),
            Some(Action::Stall) => Answer::silently(Then::Stall),
            Some(Action::Delay(delay)) => carry_out(self).late_by(delay),
            Some(Action::KeepThenClose) => {
                carry_out(self);
                Answer::silently(Then::Cut)
            }
            Some(Action::Reply(text)) if text.starts_with(['2', '3']) => {
                let mut answer = carry_out(self);
                if answer.is_good() {
                    answer.text = Some(Cow::Owned(self.worded(text)));
                }
                answer
            }
            Some(Action::Reply(text)) => self.refused_by_fault(stage, text),
        }
    }

    fn refused_by_fault(&mut self, stage: Stage, text: String) -> Answer {
        if stage == Stage::Auth {
            self.world.tally.refused(AuthRefusal::Injected);
            self.last_auth_error = Some(text.strip_suffix(" [..]").unwrap_or(&text).to_owned());
        }
        let then = if text.starts_with("421") { Then::Close } else { Then::GoOn };
        Answer::say(self.worded(text)).then(then)
    }

    /// A fault's text with the session's suffix where it has `[..]`.
    fn worded(&self, text: String) -> String {
        match text.strip_suffix(" [..]") {
            Some(words) => self.stamped(words),
            None => text,
        }
    }

    /// The mailbox that is logged in.
    fn mailbox(&self) -> Option<&str> {
        self.login.as_ref().map(|login| login.address.as_str())
    }

    /// A refusal with the front end's suffix.
    fn refuse(&self, text: &str) -> Answer {
        Answer::say(self.stamped(text))
    }

    fn stamped(&self, text: &str) -> String {
        replies::stamped(text, self.world.clock.wall(), &self.id)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_receiving() {
            count(&self.world.tally.cut_transfers);
        }
    }
}
