//! The SMTP session as a pure state machine: a command goes in, a [`Step`] comes out. No socket, no clock, no storage.
//!
//! Two things live here: the connection's state and, inside it, the mail transaction; RSET drops the second. Whatever
//! needs a decision is a step for the connection to carry out, and its result is told back.

use std::borrow::Cow;
use std::sync::Arc;

use mail::{AddressError, Domain, LocalPart, Recipient, ReversePath};
use rustls::ServerConfig;
use wire::{AuthCommand, Command, CommandError, Dialect, MailParameters, Reply};

use crate::sasl::{self, Credentials, Exchange, ExchangeError, MECHANISMS, Next};

/// Errors after which a session is closed: enough for a client that tries what a server knows, too few for a guesser.
const MAX_ERRORS: u32 = 10;
/// Commands in a row that bring no mail; more are errors. A pool that asks NOOP before each message never gets there.
const MAX_IDLE_COMMANDS: u32 = 100;
/// Refused recipients of one message, for each that it may have, after which a session is closed. Lists are old and long.
const REFUSED_FOR_EACH: usize = 10;
/// Failed logins after which a session is closed: each wait for one is slow, and a new session costs the guesser more.
const MAX_FAILED_LOGINS: u32 = 3;

/// What this server says and allows.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Our name in the banner and in EHLO.
    pub hostname: String,
    /// Largest message at rest, in octets; advertised as SIZE.
    pub max_message_size: u64,
    /// Most recipients of one message.
    pub max_recipients: usize,
    /// How closely clients must keep to the standard.
    pub dialect: Dialect,
    /// Whether a client that has sent nothing but bare LF may end its message with LF.LF.
    pub lf_only_clients: bool,
    /// Whether and when a client logs in.
    pub authentication: Authentication,
    /// Whether AUTH is offered without TLS to clients beyond this machine.
    pub cleartext_auth: bool,
    /// Whether and when a session is encrypted.
    pub tls: Tls,
}

impl Profile {
    /// What a listener says and allows when nobody says otherwise: no AUTH, no TLS, 35 MiB, 500 recipients.
    pub fn new(hostname: String) -> Self {
        Self {
            hostname,
            max_message_size: 35 << 20,
            max_recipients: 500,
            dialect: Dialect::Lenient,
            lf_only_clients: false,
            authentication: Authentication::None,
            cleartext_auth: false,
            tls: Tls::None,
        }
    }
}

/// Whether and when a client logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// AUTH is not offered.
    None,
    /// A client may log in.
    Optional,
    /// A client must log in before MAIL.
    Required,
}

/// Whether and when a session is encrypted, and with which certificate.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Never.
    None,
    /// When the client asks by STARTTLS.
    StartTls(Arc<ServerConfig>),
    /// By STARTTLS, before anything else.
    RequireStartTls(Arc<ServerConfig>),
    /// From the first octet.
    Implicit(Arc<ServerConfig>),
}

/// What the connection must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Say this.
    Reply(Reply),
    /// Say this and close.
    Close(Reply),
    /// Say this, forget what the client has sent already, take it through TLS, then call [`Session::encrypted`].
    StartTls(Reply),
    /// Say this, and give the next line to [`Session::response`]: it is no command, and may be a password.
    Challenge(Reply),
    /// Ask the intake, then call [`Session::authentication_answered`].
    Authenticate(Credentials),
    /// Ask the intake for a transaction, then call [`Session::mail_answered`].
    Mail(ReversePath, MailParameters),
    /// Ask the transaction, then call [`Session::rcpt_answered`].
    Rcpt(Recipient),
    /// Ask the transaction for a sink and read the message, then call [`Session::data_ended`].
    Data,
    /// Drop the transaction and say this.
    Reset(Reply),
}

/// One session.
#[derive(Debug)]
pub struct Session {
    profile: Arc<Profile>,
    /// Whether the client is on this machine: what it sends in the clear crosses no network.
    local: bool,
    encrypted: bool,
    authenticated: bool,
    greeting: Option<Greeting>,
    exchange: Option<Exchange>,
    transaction: Option<Recipients>,
    /// Why the last MAIL was refused, until something else begins.
    refused_mail: Option<Reply>,
    errors: u32,
    /// Commands that brought no mail, since the last message.
    idle_commands: u32,
    failed_logins: u32,
}

/// What the client called itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The name in EHLO or HELO.
    pub name: String,
    /// Whether it was EHLO.
    pub extended: bool,
}

/// The recipients of the transaction under way.
#[derive(Debug, Default)]
struct Recipients {
    taken: usize,
    refused: usize,
    /// The last refusal, as long as all of them are for now only.
    not_now: Option<Reply>,
    smtputf8: bool,
}

impl Recipients {
    fn refuse(&mut self, reply: &Reply) {
        let are_all_for_now = self.refused == 0 || self.not_now.is_some();
        self.refused += 1;
        self.not_now = (are_all_for_now && reply.code() / 100 == 4).then(|| reply.clone());
    }
}

impl Session {
    /// A session before its banner, with a client on this machine or not.
    pub fn new(profile: Arc<Profile>, local: bool) -> Self {
        Self {
            profile,
            local,
            encrypted: false,
            authenticated: false,
            greeting: None,
            exchange: None,
            transaction: None,
            refused_mail: None,
            errors: 0,
            idle_commands: 0,
            failed_logins: 0,
        }
    }

    /// The 220 that opens the session.
    pub fn banner(&self) -> Reply {
        Reply::plain(220, vec![format!("{} ESMTP xoauth2-relay", self.profile.hostname).into()])
    }

    /// The 421 that ends it when we stop.
    pub fn shutting_down(&self) -> Reply {
        Reply::new(421, (4, 3, 2), format!("{} is shutting down, try again shortly", self.profile.hostname))
    }

    /// The 421 for a client that said nothing for too long.
    pub fn timed_out(&self) -> Reply {
        Reply::new(421, (4, 4, 2), format!("{} timeout, closing", self.profile.hostname))
    }

    /// What the client called itself, once it did.
    pub fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    /// Whether the next line answers a challenge.
    pub fn awaits_response(&self) -> bool {
        self.exchange.is_some()
    }

    /// Takes the next command.
    pub fn command(&mut self, command: Result<Command, CommandError>) -> Step {
        let command = match command.and_then(|command| self.qualified(command)) {
            Ok(command) => command,
            Err(CommandError::Http) => return Step::Close(Reply::new(554, (5, 5, 1), "This is a mail port")),
            Err(error) => return self.no_command(&error),
        };
        if self.lacks_tls(&command) {
            let refusal = Reply::new(530, (5, 7, 0), "Must issue a STARTTLS command first");
            self.refused_mail = matches!(command, Command::Mail(..)).then(|| refusal.clone());
            return self.error(refusal);
        }
        if self.brings_no_mail(&command) && self.idles_too_long() {
            return self.error(Reply::new(450, (4, 7, 0), "Too many commands without a message"));
        }
        match command {
            Command::Ehlo(name) => self.ehlo(name),
            Command::Helo(name) => self.helo(name),
            Command::StartTls => self.start_tls(),
            Command::Auth(command) => self.auth(&command),
            Command::Mail(path, parameters) => self.mail(path, parameters),
            // Completed before it came here.
            Command::MailWithoutDomain(..) => self.error(bad_command(&CommandError::Unrecognized)),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => self.data(),
            Command::Rset => self.reset(Reply::new(250, (2, 0, 0), "OK")),
            Command::Noop => Step::Reply(Reply::new(250, (2, 0, 0), "OK")),
            // Whether an address exists is Exchange's knowledge, and telling it would help a stranger.
            Command::Vrfy => Step::Reply(Reply::new(252, (2, 1, 5), "Cannot verify, but will take a message and try")),
            Command::Help => Step::Reply(self.help()),
            Command::Quit => Step::Close(Reply::new(221, (2, 0, 0), format!("{} closing", self.profile.hostname))),
            // Its octets would come next, and be read as commands.
            Command::NotOffered("BDAT") => Step::Close(Reply::new(502, (5, 5, 1), "BDAT is not offered, closing")),
            Command::NotOffered(verb) => self.error(Reply::new(502, (5, 5, 1), format!("{verb} is not offered"))),
        }
    }

    /// What cron, RAID monitors and UPS cards send as has no domain: it is theirs on the machine that takes their mail, as RFC 6409
    /// section 8 lets a submission server complete addresses. Nobody knows whose a recipient without one is: that stays refused.
    fn qualified(&self, command: Command) -> Result<Command, CommandError> {
        match command {
            Command::MailWithoutDomain(sender, parameters) => Ok(Command::Mail(self.at_our_name(&sender)?, parameters)),
            command => Ok(command),
        }
    }

    fn at_our_name(&self, sender: &LocalPart) -> Result<ReversePath, CommandError> {
        // A name that is no domain completes nothing.
        let domain = Domain::parse(&self.profile.hostname);
        let domain = domain.map_err(|_| CommandError::Sender(AddressError::NoDomain.into()))?;
        Ok(ReversePath::qualified(sender, &domain))
    }

    /// A line that is no command. An address that is none costs its recipient and no other; behind a MAIL that is none the
    /// client may have pipelined the rest.
    fn no_command(&mut self, error: &CommandError) -> Step {
        let reply = bad_command(error);
        match (&mut self.transaction, error) {
            (Some(recipients), CommandError::Recipient(_)) => {
                recipients.refuse(&reply);
                self.refused_recipient(reply)
            }
            (None, CommandError::Recipient(_)) if self.refused_mail.is_some() => self.out_of_order(""),
            (None, CommandError::Unrecognized | CommandError::Control | CommandError::Recipient(_)) | (Some(_), _) => {
                self.error(reply)
            }
            (None, _) => {
                self.refused_mail = Some(reply.clone());
                self.error(reply)
            }
        }
    }

    /// Recipients that are refused are no mistakes, but no session tries them for ever.
    fn refused_recipient(&self, reply: Reply) -> Step {
        let refused = self.transaction.as_ref().map_or(0, |recipients| recipients.refused);
        if refused <= self.profile.max_recipients.saturating_mul(REFUSED_FOR_EACH) {
            Step::Reply(reply)
        } else {
            Step::Close(Reply::new(421, (4, 7, 0), "Too many refused recipients, closing"))
        }
    }

    /// Takes the line that answers a challenge.
    pub fn response(&mut self, line: &[u8]) -> Step {
        match self.exchange.take() {
            Some(exchange) => self.exchanged(exchange.respond(line)),
            // Asked for by [`Step::Challenge`] alone.
            None => self.error(bad_command(&CommandError::Unrecognized)),
        }
    }

    /// A line was longer than any command or response.
    pub fn line_too_long(&mut self) -> Step {
        let detail = if self.exchange.take().is_some() { 6 } else { 2 };
        self.error(Reply::new(500, (5, 5, detail), "Line too long"))
    }

    /// A line ended in a bare LF, which the strict dialect does not take.
    pub fn line_ended_in_lf(&mut self) -> Step {
        self.exchange = None;
        self.error(Reply::new(500, (5, 5, 2), "Lines end in CR LF"))
    }

    /// The handshake is done. All that was said before it counts for nothing (RFC 3207 section 4.2).
    pub fn encrypted(&mut self) {
        self.encrypted = true;
        self.authenticated = false;
        self.greeting = None;
        self.exchange = None;
        self.transaction = None;
        self.refused_mail = None;
    }

    /// The intake answered AUTH: nothing, or its refusal.
    pub fn authentication_answered(&mut self, refusal: Option<Reply>) -> Step {
        let Some(refusal) = refusal else {
            self.authenticated = true;
            return Step::Reply(Reply::new(235, (2, 7, 0), "Authentication successful"));
        };
        if refusal.code() != 535 {
            // Nothing was said about the password.
            return self.error(refusal);
        }
        self.failed_logins += 1;
        if self.failed_logins < MAX_FAILED_LOGINS {
            self.error(refusal)
        } else {
            Step::Close(Reply::new(421, (4, 7, 0), "Too many failed logins, closing"))
        }
    }

    /// The intake answered MAIL: nothing, or its refusal.
    pub fn mail_answered(&mut self, refusal: Option<&Reply>, smtputf8: bool) {
        self.transaction = refusal.is_none().then(|| Recipients { smtputf8, ..Recipients::default() });
        self.refused_mail = refusal.cloned();
    }

    /// The transaction answered RCPT.
    pub fn rcpt_answered(&mut self, reply: &Reply) {
        match &mut self.transaction {
            Some(recipients) if reply.is_positive() => recipients.taken += 1,
            Some(recipients) => recipients.refuse(reply),
            None => {}
        }
    }

    /// The message was read and taken or refused, or DATA was refused: the transaction is over either way. A client that
    /// brought mail has a new start.
    pub fn data_ended(&mut self, taken: bool) {
        self.transaction = None;
        if taken {
            self.errors = 0;
            self.idle_commands = 0;
        }
    }

    fn ehlo(&mut self, name: String) -> Step {
        let mut lines: Vec<Cow<'static, str>> = vec![self.profile.hostname.clone().into()];
        lines.extend(["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"].map(Cow::Borrowed));
        lines.push(format!("SIZE {}", self.profile.max_message_size).into());
        if self.offers_tls() {
            lines.push("STARTTLS".into());
        }
        if self.offers_auth() {
            lines.push(format!("AUTH {MECHANISMS}").into());
        }
        lines.push("HELP".into());
        self.greet(name, true, Reply::plain(250, lines))
    }

    fn helo(&mut self, name: String) -> Step {
        let reply = Reply::plain(250, vec![self.profile.hostname.clone().into()]);
        self.greet(name, false, reply)
    }

    /// EHLO and HELO also end a transaction (RFC 5321 section 4.1.4).
    fn greet(&mut self, name: String, extended: bool, reply: Reply) -> Step {
        self.greeting = Some(Greeting { name, extended });
        self.reset(reply)
    }

    fn reset(&mut self, reply: Reply) -> Step {
        self.transaction = None;
        self.refused_mail = None;
        Step::Reset(reply)
    }

    fn offers_tls(&self) -> bool {
        !self.encrypted && matches!(self.profile.tls, Tls::StartTls(_) | Tls::RequireStartTls(_))
    }

    /// RFC 3207 section 4: before TLS nothing but what leads there.
    fn lacks_tls(&self, command: &Command) -> bool {
        let leads_there = matches!(
            command,
            Command::Ehlo(_) | Command::Helo(_) | Command::StartTls | Command::Noop | Command::Help | Command::Quit
        );
        !self.encrypted && !leads_there && matches!(self.profile.tls, Tls::RequireStartTls(_))
    }

    fn start_tls(&mut self) -> Step {
        match &self.profile.tls {
            _ if self.encrypted => self.error(Reply::new(503, (5, 5, 1), "The session is encrypted already")),
            Tls::None | Tls::Implicit(_) => {
                self.error(Reply::new(502, (5, 5, 1), "TLS is not offered on this listener"))
            }
            Tls::StartTls(_) | Tls::RequireStartTls(_) => {
                Step::StartTls(Reply::new(220, (2, 0, 0), "Ready to start TLS"))
            }
        }
    }

    /// Whether a password may be sent as the session is now.
    fn auth_is_safe(&self) -> bool {
        let required = matches!(self.profile.tls, Tls::RequireStartTls(_));
        self.encrypted || (!required && (self.local || self.profile.cleartext_auth))
    }

    /// What cannot be used is not offered: a device would try it and give up.
    fn offers_auth(&self) -> bool {
        self.profile.authentication != Authentication::None && self.auth_is_safe() && !self.authenticated
    }

    fn auth(&mut self, command: &AuthCommand) -> Step {
        if self.profile.authentication == Authentication::None {
            return self.error(Reply::new(502, (5, 5, 1), "No login is needed on this listener: send without AUTH"));
        }
        if self.authenticated || self.transaction.is_some() {
            return self.error(Reply::new(503, (5, 5, 1), "AUTH cannot come now: logged in, or within a message"));
        }
        if !self.auth_is_safe() {
            let text = "Encryption required: no password is taken in the clear; use STARTTLS";
            return self.error(Reply::new(538, (5, 7, 11), text));
        }
        let response = command.initial_response.as_ref().map(|response| response.as_slice());
        let next = sasl::begin(&command.mechanism, response);
        self.exchanged(next)
    }

    fn exchanged(&mut self, next: Result<Next, ExchangeError>) -> Step {
        match next {
            Ok(Next::Challenge(exchange)) => {
                let challenge = exchange.challenge();
                self.exchange = Some(exchange);
                Step::Challenge(Reply::plain(334, vec![challenge.into()]))
            }
            Ok(Next::Done(credentials)) => Step::Authenticate(credentials),
            Err(error) => self.error(auth_failed(error)),
        }
    }

    fn mail(&mut self, path: ReversePath, parameters: MailParameters) -> Step {
        if self.transaction.is_some() {
            return self.error(Reply::new(503, (5, 5, 1), "Nested MAIL command"));
        }
        if let Err(refusal) = self.may_begin() {
            self.mail_answered(Some(&refusal), false);
            return self.error(refusal);
        }
        let limit = self.profile.max_message_size;
        let refusal = if parameters.size.is_some_and(|size| size > limit) {
            too_large(limit)
        } else if !parameters.smtputf8 && !path.is_ascii() {
            needs_smtputf8()
        } else {
            return Step::Mail(path, parameters);
        };
        self.mail_answered(Some(&refusal), false);
        Step::Reply(refusal)
    }

    /// Old scripts greet nobody, and nothing depends on it here; by the letter EHLO comes first (RFC 5321 section 4.1.4).
    fn may_begin(&self) -> Result<(), Reply> {
        if self.profile.dialect == Dialect::Strict && self.greeting.is_none() {
            Err(Reply::new(503, (5, 5, 1), "Need EHLO or HELO before MAIL"))
        } else if self.profile.authentication == Authentication::Required && !self.authenticated {
            Err(self.login_needed())
        } else {
            Ok(())
        }
    }

    /// RFC 4954 section 6, with the way there.
    fn login_needed(&self) -> Reply {
        let text = if self.auth_is_safe() {
            "Authentication required"
        } else if self.offers_tls() {
            "Authentication required, and for that STARTTLS first"
        } else {
            "Authentication required, and no password is taken in the clear on this listener"
        };
        Reply::new(530, (5, 7, 0), text)
    }

    fn rcpt(&mut self, recipient: Recipient) -> Step {
        let Some(recipients) = &mut self.transaction else {
            return self.out_of_order("Need MAIL before RCPT");
        };
        let refusal = if recipients.taken >= self.profile.max_recipients {
            Reply::new(452, (4, 5, 3), "Too many recipients")
        } else if !recipients.smtputf8 && !recipient.path.is_ascii() {
            needs_smtputf8()
        } else if recipients.refused >= self.profile.max_recipients.saturating_mul(REFUSED_FOR_EACH) {
            Reply::new(452, (4, 5, 3), "Too many refused recipients")
        } else {
            return Step::Rcpt(recipient);
        };
        recipients.refuse(&refusal);
        self.refused_recipient(refusal)
    }

    fn data(&mut self) -> Step {
        match &self.transaction {
            None => self.out_of_order("Need MAIL and RCPT before DATA"),
            Some(Recipients { taken: 0, refused: 0, .. }) => {
                self.error(Reply::new(503, (5, 5, 1), "Need RCPT before DATA"))
            }
            // Who minds this reply alone shall come again where everybody may be taken later.
            Some(Recipients { taken: 0, not_now: Some(refusal), .. }) => Step::Reply(refusal.clone()),
            // The client pipelined DATA behind recipients that were refused: its mistake is none (RFC 2920 section 3.1).
            Some(Recipients { taken: 0, .. }) => Step::Reply(Reply::new(554, (5, 5, 1), "No valid recipients")),
            Some(_) => Step::Data,
        }
    }

    /// Behind a MAIL that was refused the client may have pipelined the rest, which is no mistake of its: it hears again why,
    /// since some clients keep the last reply only.
    fn out_of_order(&mut self, text: &'static str) -> Step {
        match &self.refused_mail {
            Some(refusal) => Step::Reply(refusal.clone()),
            None => self.error(Reply::new(503, (5, 5, 1), text)),
        }
    }

    fn help(&self) -> Reply {
        let tls = if self.offers_tls() { " STARTTLS" } else { "" };
        let auth = if self.offers_auth() { " AUTH" } else { "" };
        let text = format!("EHLO HELO{tls}{auth} MAIL RCPT DATA RSET NOOP VRFY HELP QUIT - RFC 5321");
        Reply::new(214, (2, 0, 0), text)
    }

    /// What a client that has mail says seldom, and one that only wants to hold a session says for ever.
    fn brings_no_mail(&self, command: &Command) -> bool {
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop | Command::Vrfy | Command::Help => true,
            Command::Mail(..) | Command::Rcpt(_) => self.refused_mail.is_some(),
            Command::Data => self.transaction.as_ref().is_none_or(|recipients| recipients.taken == 0),
            _ => false,
        }
    }

    fn idles_too_long(&mut self) -> bool {
        self.idle_commands = self.idle_commands.saturating_add(1);
        self.idle_commands > MAX_IDLE_COMMANDS
    }

    fn error(&mut self, reply: Reply) -> Step {
        self.errors += 1;
        if self.errors < MAX_ERRORS {
            Step::Reply(reply)
        } else {
            Step::Close(Reply::new(421, (4, 7, 0), "Too many errors, closing"))
        }
    }
}

/// RFC 4954 section 4 and 6.
fn auth_failed(error: ExchangeError) -> Reply {
    match error {
        ExchangeError::Mechanism => Reply::new(504, (5, 5, 4), format!("Mechanism not offered; there is {MECHANISMS}")),
        ExchangeError::Cancelled => Reply::new(501, (5, 7, 0), "Authentication cancelled"),
        ExchangeError::Response => Reply::new(501, (5, 5, 2), "The response is not what this mechanism sends"),
        ExchangeError::OnBehalf => Reply::new(535, (5, 7, 8), "Nobody acts for somebody else here"),
    }
}

/// The message is, or claims to be, too large.
pub fn too_large(limit: u64) -> Reply {
    Reply::new(552, (5, 3, 4), format!("Message is larger than the {limit} octets allowed here"))
}

/// The message has a line that is longer than the strict dialect takes.
pub fn line_too_long() -> Reply {
    Reply::new(554, (5, 6, 0), "A line of the message is longer than the 998 octets of RFC 5321")
}

fn needs_smtputf8() -> Reply {
    Reply::new(553, (5, 6, 7), "An address with characters beyond ASCII needs SMTPUTF8 on the MAIL command")
}

fn bad_command(error: &CommandError) -> Reply {
    let code = match error {
        CommandError::Unrecognized | CommandError::Http => (500, (5, 5, 1)),
        CommandError::Syntax(_) | CommandError::ParameterValue(_) => (501, (5, 5, 4)),
        CommandError::Control => (500, (5, 5, 2)),
        CommandError::Sender(_) => (553, (5, 1, 7)),
        CommandError::Recipient(_) => (553, (5, 1, 3)),
        CommandError::ParameterUnknown(_) => (555, (5, 5, 4)),
    };
    Reply::new(code.0, code.1, capitalized(&error.to_string()))
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile { max_message_size: 1000, max_recipients: 2, ..Profile::new("relay.test".into()) }
    }

    fn session() -> Session {
        session_of(profile())
    }

    /// With a client beyond this machine.
    fn session_of(profile: Profile) -> Session {
        Session::new(Arc::new(profile), false)
    }

    /// Any configuration: no handshake is made here.
    fn certificate() -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let resolver = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        Arc::new(versions.with_no_client_auth().with_cert_resolver(resolver))
    }

    /// Plays lines; the intake takes everybody but `refused@x.y`, and whoever says the password "right". `TLS` stands for a
    /// handshake. Gives the code of each answer.
    fn play(session: &mut Session, lines: &[&str]) -> Vec<u16> {
        lines.iter().map(|line| answer(session, line)).collect()
    }

    fn answer(session: &mut Session, line: &str) -> u16 {
        let step = if session.awaits_response() {
            session.response(line.as_bytes())
        } else {
            let dialect = session.profile.dialect;
            session.command(Command::parse(line.as_bytes(), dialect))
        };
        match step {
            Step::Reply(reply) | Step::Close(reply) | Step::Reset(reply) | Step::Challenge(reply) => reply.code(),
            Step::StartTls(reply) => {
                session.encrypted();
                reply.code()
            }
            Step::Authenticate(credentials) => {
                let wrong = credentials.password.as_slice() != b"right";
                let answer = session.authentication_answered(wrong.then(|| Reply::new(535, (5, 7, 8), "Wrong")));
                let (Step::Reply(reply) | Step::Close(reply)) = answer else { panic!("{answer:?}") };
                reply.code()
            }
            Step::Mail(path, parameters) => {
                let refusal = (path.to_string() == "refused@x.y").then(|| Reply::new(452, (4, 3, 1), "No room"));
                session.mail_answered(refusal.as_ref(), parameters.smtputf8);
                refusal.map_or(250, |refusal| refusal.code())
            }
            Step::Rcpt(recipient) => {
                let reply = match recipient.to_string().as_str() {
                    "refused@x.y" => Reply::new(550, (5, 1, 1), "No such user"),
                    "later@x.y" => Reply::new(451, (4, 4, 5), "Not now"),
                    _ => Reply::new(250, (2, 1, 5), "OK"),
                };
                session.rcpt_answered(&reply);
                reply.code()
            }
            Step::Data => {
                session.data_ended(true);
                354
            }
        }
    }

    #[test]
    fn dialogs() {
        for (lines, codes) in [
            (&["EHLO a", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "QUIT"][..], &[250, 250, 250, 354, 221][..]),
            (&["HELO a", "MAIL FROM:<>", "RCPT TO:<postmaster>", "DATA"], &[250, 250, 250, 354]),
            // Old scripts greet nobody.
            (&["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"], &[250, 250, 354]),
            (&["RCPT TO:<c@d>", "DATA", "MAIL FROM:<a@b>", "MAIL FROM:<a@b>", "DATA"], &[503, 503, 250, 503, 503]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<refused@x.y>", "DATA"], &[250, 550, 554]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<refused@x.y>", "RCPT TO:<c@d>", "DATA"], &[250, 550, 250, 354]),
            // Where everybody may be taken later, DATA says no "never".
            (&["MAIL FROM:<a@b>", "RCPT TO:<later@x.y>", "DATA"], &[250, 451, 451]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<later@x.y>", "RCPT TO:<refused@x.y>", "DATA"], &[250, 451, 550, 554]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<refused@x.y>", "RCPT TO:<later@x.y>", "DATA"], &[250, 550, 451, 554]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<later@x.y>", "RCPT TO:<c@d>", "DATA"], &[250, 451, 250, 354]),
            // After a message the next transaction starts anew.
            (&["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "RCPT TO:<c@d>", "DATA"], &[250, 250, 354, 503, 503]),
            // RSET and EHLO drop the transaction, NOOP and VRFY do not.
            (&["MAIL FROM:<a@b>", "RSET", "RCPT TO:<c@d>"], &[250, 250, 503]),
            (&["MAIL FROM:<a@b>", "EHLO x", "RCPT TO:<c@d>"], &[250, 250, 503]),
            (&["MAIL FROM:<a@b>", "NOOP", "VRFY x", "HELP", "RCPT TO:<c@d>"], &[250, 250, 252, 214, 250]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<1@d>", "RCPT TO:<2@d>", "RCPT TO:<3@d>"], &[250, 250, 250, 452]),
            (&["MAIL FROM:<a@b> SIZE=1000", "RSET", "MAIL FROM:<a@b> SIZE=1001"], &[250, 250, 552]),
            (&["MAIL FROM:<ä@b>", "MAIL FROM:<ä@b> SMTPUTF8", "RCPT TO:<ö@d>"], &[553, 250, 250]),
            (&["MAIL FROM:<a@b>", "RCPT TO:<ö@d>"], &[250, 553]),
            (
                &["MAIL FROM:<a@b> RET=FULL ENVID=7", "RCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;e@f", "DATA"],
                &[250, 250, 354],
            ),
            (&["MAIL FROM:<a@b> RET=X", "MAIL FROM:<a@b>", "RCPT TO:<c@d> NOTIFY=X"], &[501, 250, 501]),
            (
                &["STARTTLS", "AUTH LOGIN", "EXPN x", "FROB", "MAIL", "RCPT TO:<>", "BDAT 1"],
                &[502, 502, 502, 500, 501, 501, 502],
            ),
            (&["GET / HTTP/1.1"], &[554]),
        ] {
            assert_eq!(play(&mut session(), lines), codes, "{lines:?}");
        }
    }

    #[test]
    fn ehlo_offers_what_is_there() {
        let Step::Reset(reply) = session().command(Ok(Command::Ehlo("a".into()))) else {
            panic!("EHLO was not answered")
        };
        let expected =
            ["relay.test", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8", "SIZE 1000", "HELP"];
        assert_eq!(reply.lines(), expected);
    }

    /// "\0erp\0right" and "\0erp\0wrong" for PLAIN; "erp", "right" and "wrong" for LOGIN.
    const PLAIN_RIGHT: &str = "AUTH PLAIN AGVycAByaWdodA==";
    const PLAIN_WRONG: &str = "AUTH PLAIN AGVycAB3cm9uZw==";
    const NAME: &str = "ZXJw";
    const RIGHT: &str = "cmlnaHQ=";
    const WRONG: &str = "d3Jvbmc=";

    #[test]
    fn logins() {
        use Authentication::{None as Never, Optional, Required};
        let mail = "MAIL FROM:<a@b>";
        for (authentication, lines, codes) in [
            (Never, &["EHLO a", PLAIN_RIGHT, mail][..], &[250, 502, 250][..]),
            (Optional, &["EHLO a", mail], &[250, 250]),
            (Optional, &["EHLO a", PLAIN_RIGHT, mail], &[250, 235, 250]),
            (Optional, &["EHLO a", "auth login", NAME, RIGHT, mail], &[250, 334, 334, 235, 250]),
            (Optional, &["EHLO a", "AUTH LOGIN ZXJw", RIGHT], &[250, 334, 235]),
            (Optional, &["EHLO a", "AUTH PLAIN", "AGVycAByaWdodA=="], &[250, 334, 235]),
            (Required, &["EHLO a", mail, PLAIN_RIGHT, mail], &[250, 530, 235, 250]),
            // A login that failed may be tried again, and no more often than a person would.
            (Required, &[PLAIN_WRONG, mail, PLAIN_RIGHT, mail], &[535, 530, 235, 250]),
            (Required, &[PLAIN_WRONG, "AUTH LOGIN", NAME, WRONG, PLAIN_WRONG], &[535, 334, 334, 535, 421]),
            // What was cancelled, misspelled or unknown leaves the session where it was.
            (Required, &["AUTH LOGIN", "*", "AUTH PLAIN", "!", mail, PLAIN_RIGHT], &[334, 501, 334, 501, 530, 235]),
            (Required, &["AUTH CRAM-MD5", "AUTH NTLM TlRMTVNTUA==", "AUTH", "AUTH LOGIN a b"], &[504, 504, 501, 501]),
            // A response is no command.
            (Required, &["AUTH LOGIN", "QUIT", "NOOP"], &[334, 501, 250]),
            // Not twice, and not within a message.
            (Optional, &[PLAIN_RIGHT, PLAIN_RIGHT, mail, PLAIN_RIGHT], &[235, 503, 250, 503]),
            (Optional, &[mail, PLAIN_RIGHT, "RSET", PLAIN_RIGHT], &[250, 503, 250, 235]),
            // A login outlasts RSET and EHLO.
            (Required, &[PLAIN_RIGHT, "RSET", "EHLO a", mail], &[235, 250, 250, 250]),
        ] {
            let profile = Profile { authentication, cleartext_auth: true, ..profile() };
            assert_eq!(play(&mut session_of(profile), lines), codes, "{authentication:?} {lines:?}");
        }
    }

    #[test]
    fn encryption() {
        let config = certificate();
        let (start, require) = (Tls::StartTls(Arc::clone(&config)), Tls::RequireStartTls(Arc::clone(&config)));
        let mail = "MAIL FROM:<a@b>";
        for (tls, lines, codes) in [
            (&Tls::None, &["STARTTLS", mail][..], &[502, 250][..]),
            (&start, &["EHLO a", mail, "STARTTLS", mail], &[250, 250, 220, 250]),
            (&start, &["STARTTLS", "STARTTLS", "STARTTLS now"], &[220, 503, 501]),
            // No password in the clear, and none before TLS is there.
            (&start, &["EHLO a", PLAIN_RIGHT, "STARTTLS", "EHLO a", PLAIN_RIGHT], &[250, 538, 220, 250, 235]),
            (&require, &["EHLO a", mail, "RSET", "VRFY x", "NOOP", "HELP"], &[250, 530, 530, 530, 250, 214]),
            (&require, &["HELO a", PLAIN_RIGHT, "STARTTLS", mail, PLAIN_RIGHT], &[250, 530, 220, 250, 503]),
            (&require, &["FROB", "QUIT"], &[500, 221]),
            (&Tls::Implicit(config), &["STARTTLS", "EHLO a"], &[502, 250]),
        ] {
            let profile = Profile { authentication: Authentication::Optional, tls: tls.clone(), ..profile() };
            assert_eq!(play(&mut session_of(profile), lines), codes, "{lines:?}");
        }
    }

    #[test]
    fn tls_forgets_who_the_client_said_it_is() {
        let profile = Profile {
            authentication: Authentication::Required,
            cleartext_auth: true,
            tls: Tls::StartTls(certificate()),
            ..profile()
        };
        let lines = ["EHLO a", PLAIN_RIGHT, "MAIL FROM:<a@b>", "STARTTLS", "RCPT TO:<c@d>", "MAIL FROM:<a@b>"];
        let mut session = session_of(profile);
        assert_eq!(play(&mut session, &lines), [250, 235, 250, 220, 503, 530]);
        assert_eq!(session.greeting(), None);
    }

    /// What EHLO offers of TLS and AUTH.
    fn offered(session: &mut Session) -> Vec<String> {
        let Step::Reset(reply) = session.command(Ok(Command::Ehlo("a".into()))) else {
            panic!("EHLO was not answered")
        };
        let of_interest = |line: &&std::borrow::Cow<'_, str>| line.starts_with("STARTTLS") || line.starts_with("AUTH");
        reply.lines().iter().filter(of_interest).map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_offered_that_cannot_be_used() {
        let auth = "AUTH PLAIN LOGIN";
        let start = || Tls::StartTls(certificate());
        for (tls, authentication, cleartext_auth, local, before, after) in [
            (Tls::None, Authentication::None, true, true, &[][..], &[][..]),
            (Tls::None, Authentication::Optional, true, false, &[auth], &[auth]),
            (Tls::None, Authentication::Required, false, false, &[], &[]),
            (Tls::None, Authentication::Required, false, true, &[auth], &[auth]),
            (start(), Authentication::None, false, false, &["STARTTLS"], &[]),
            (start(), Authentication::Required, false, false, &["STARTTLS"], &[auth]),
            (start(), Authentication::Required, true, false, &["STARTTLS", auth], &[auth]),
            (Tls::RequireStartTls(certificate()), Authentication::Required, true, true, &["STARTTLS"], &[auth]),
            (Tls::Implicit(certificate()), Authentication::Required, false, false, &[], &[auth]),
        ] {
            let profile = Profile { authentication, cleartext_auth, tls, ..profile() };
            let mut session = Session::new(Arc::new(profile), local);
            assert_eq!(offered(&mut session), before);
            if !matches!(session.profile.tls, Tls::None) {
                session.encrypted();
            }
            assert_eq!(offered(&mut session), after);
            if !after.is_empty() {
                assert_eq!(play(&mut session, &[PLAIN_RIGHT]), [235]);
                assert_eq!(offered(&mut session), [""; 0]);
            }
        }
    }

    #[test]
    fn the_strict_dialect_wants_a_greeting_first() {
        let profile = Profile { dialect: Dialect::Strict, ..profile() };
        let lines = ["MAIL FROM:<a@b>", "EHLO a.b", "MAIL FROM:<a@b>"];
        assert_eq!(play(&mut session_of(profile), &lines), [503, 250, 250]);
    }

    #[test]
    fn a_session_that_brings_no_mail_ends() {
        let mut session = session();
        let mut answers = (0..).map(|_| answer(&mut session, "NOOP"));
        assert!(answers.by_ref().take(100).all(|code| code == 250));
        assert_eq!(answers.take(10).collect::<Vec<_>>(), [[450; 9].as_slice(), &[421]].concat());
    }

    /// A client that pipelines brings all of its commands whatever becomes of the first, and comes again later.
    #[test]
    fn what_was_pipelined_behind_a_refused_mail_hears_why_and_counts_for_nothing() {
        let mut session = session();
        for _ in 0..12 {
            let lines = ["MAIL FROM:<refused@x.y>", "RCPT TO:<c@d>", "RCPT TO:<d@d>", "DATA"];
            assert_eq!(play(&mut session, &lines), [452, 452, 452, 452]);
            let lines = ["MAIL FROM:<a@b> SIZE=1001", "RCPT TO:<c@d>", "DATA"];
            assert_eq!(play(&mut session, &lines), [552, 552, 552]);
        }
        let lines = ["MAIL FROM:<refused@x.y>", "RSET", "RCPT TO:<c@d>", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"];
        assert_eq!(play(&mut session, &lines), [452, 250, 503, 250, 250, 354]);
    }

    #[test]
    fn a_session_whose_mail_is_refused_for_ever_ends() {
        let mut session = session();
        let codes: Vec<_> = (0..200).map(|_| answer(&mut session, "MAIL FROM:<refused@x.y>")).collect();
        assert_eq!((codes[100], codes[101], codes[110]), (452, 450, 421));
    }

    /// A list with old entries in it reaches those that are right.
    #[test]
    fn addresses_that_are_none_hurt_no_other_recipient() {
        let mut session = session();
        assert_eq!(play(&mut session, &["MAIL FROM:<a@b>", "RCPT TO:<c@d>"]), [250, 250]);
        for _ in 0..20 {
            assert_eq!(play(&mut session, &["RCPT TO:<n/a>"]), [553]);
        }
        assert_eq!(play(&mut session, &["DATA"]), [354]);
    }

    #[test]
    fn a_sender_without_a_domain_is_at_our_name_in_lenient_and_a_recipient_never() {
        let mail = |session: &mut Session, line: &str| {
            session.command(Command::parse(line.as_bytes(), session.profile.dialect))
        };
        for (line, sender) in [
            ("MAIL FROM:<root>", "root@relay.test"),
            ("MAIL FROM:root", "root@relay.test"),
            ("MAIL FROM:<PostMaster> SIZE=7", "PostMaster@relay.test"),
            ("MAIL FROM:<root@erp01>", "root@erp01"),
            ("MAIL FROM:<>", ""),
        ] {
            let Step::Mail(path, _) = mail(&mut session(), line) else { panic!("{line} was not taken") };
            assert_eq!(path.to_string(), sender, "{line}");
        }
        assert_eq!(play(&mut session(), &["MAIL FROM:<root>", "RCPT TO:<root>", "RCPT TO:<c@d>"]), [250, 553, 250]);
        // As any address: beyond ASCII it needs SMTPUTF8, and where TLS comes first it hears so.
        assert_eq!(play(&mut session(), &["MAIL FROM:<j\u{f6}rg>", "MAIL FROM:<j\u{f6}rg> SMTPUTF8"]), [553, 250]);
        let tls = Profile { tls: Tls::RequireStartTls(certificate()), ..profile() };
        assert_eq!(play(&mut session_of(tls), &["MAIL FROM:<root>", "RCPT TO:<c@d>"]), [530, 530]);
        let strict = Profile { dialect: Dialect::Strict, ..profile() };
        assert_eq!(play(&mut session_of(strict), &["EHLO a.b", "MAIL FROM:<root>"]), [250, 553]);
        let nameless = Profile { hostname: "no name".into(), ..profile() };
        assert_eq!(play(&mut session_of(nameless), &["MAIL FROM:<root>"]), [553]);
    }

    #[test]
    fn what_was_pipelined_behind_a_mail_that_is_none_hears_so() {
        for (mail, code) in [("MAIL FROM:<scan ner>", 553), ("MAIL FROM", 501), ("MAIL FROM:<a@b> RET=X", 501)] {
            let mut session = session();
            assert_eq!(play(&mut session, &[mail]), [code]);
            for _ in 0..30 {
                assert_eq!(play(&mut session, &["RCPT TO:<c@d>", "RCPT TO:<n/a>", "DATA"]), [code; 3]);
            }
        }
        let profile = Profile { tls: Tls::RequireStartTls(certificate()), ..profile() };
        let lines = ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"];
        assert_eq!(play(&mut session_of(profile), &lines), [530, 530, 530]);
    }

    /// Whatever costs nothing else is counted, too.
    #[test]
    fn no_command_comes_for_ever_within_a_message() {
        for line in ["RCPT TO:<ö@d>", "RCPT TO:<n/a>", "RCPT TO:<refused@x.y>", "DATA"] {
            let mut session = session();
            assert_eq!(play(&mut session, &["MAIL FROM:<a@b>", "RCPT TO:<refused@x.y>"]), [250, 550]);
            assert!((0..200).any(|_| answer(&mut session, line) == 421), "{line}");
        }
        let mut session = session();
        assert_eq!(play(&mut session, &["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<d@d>"]), [250, 250, 250]);
        assert!((0..200).any(|_| answer(&mut session, "RCPT TO:<e@d>") == 421));
    }

    #[test]
    fn a_login_of_which_nothing_could_be_said_is_no_guess() {
        let profile = Profile { authentication: Authentication::Required, cleartext_auth: true, ..profile() };
        let mut session = session_of(profile);
        for _ in 0..5 {
            assert!(matches!(
                session.command(Command::parse(PLAIN_RIGHT.as_bytes(), Dialect::Lenient)),
                Step::Authenticate(_)
            ));
            let answer = session.authentication_answered(Some(Reply::new(454, (4, 7, 0), "Later")));
            assert!(matches!(answer, Step::Reply(reply) if reply.code() == 454));
        }
    }

    #[test]
    fn a_session_that_brings_mail_goes_on() {
        let mut session = session();
        for _ in 0..20 {
            let lines = ["FROB", "FROB", "NOOP", "RSET", "EHLO a", "NOOP", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"];
            assert_eq!(play(&mut session, &lines), [500, 500, 250, 250, 250, 250, 250, 250, 354]);
        }
    }

    #[test]
    fn who_asks_for_one_unknown_recipient_after_the_other_is_sent_away() {
        let mut session = session();
        assert_eq!(play(&mut session, &["MAIL FROM:<a@b>"]), [250]);
        for _ in 0..20 {
            assert_eq!(play(&mut session, &["RCPT TO:<refused@x.y>"]), [550]);
        }
        assert_eq!(play(&mut session, &["RCPT TO:<refused@x.y>"]), [421]);
    }

    #[test]
    fn a_session_of_errors_ends() {
        let mut session = session();
        let answers: Vec<_> = (0..10).map(|_| session.command(Command::parse(b"FROB", Dialect::Lenient))).collect();
        assert!(answers[..9].iter().all(|step| matches!(step, Step::Reply(reply) if reply.code() == 500)));
        assert!(matches!(&answers[9], Step::Close(reply) if reply.code() == 421));
    }
}
