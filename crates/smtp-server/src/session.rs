//! The SMTP session as a pure state machine: a command goes in, a [`Step`] comes out. No socket, no clock, no storage.
//!
//! Two things live here: the connection's state and, inside it, the mail transaction; RSET drops the second. Whatever
//! needs a decision is a step for the connection to carry out, and its result is told back.

use std::borrow::Cow;
use std::sync::Arc;

use mail::{Recipient, ReversePath};
use rustls::ServerConfig;
use wire::{Command, CommandError, Dialect, MailParameters, Reply};

/// Errors after which a session is closed: enough for a client that tries what a server knows, too few for a guesser.
const MAX_ERRORS: u32 = 10;

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
    greeting: Option<Greeting>,
    transaction: Option<Recipients>,
    errors: u32,
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
    smtputf8: bool,
}

impl Session {
    /// A session before its banner.
    pub fn new(profile: Arc<Profile>) -> Self {
        Self { profile, greeting: None, transaction: None, errors: 0 }
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

    /// Takes the next command.
    pub fn command(&mut self, command: Result<Command, CommandError>) -> Step {
        match command {
            Ok(Command::Ehlo(name)) => self.ehlo(name),
            Ok(Command::Helo(name)) => self.helo(name),
            Ok(Command::Mail(path, parameters)) => self.mail(path, parameters),
            Ok(Command::Rcpt(recipient)) => self.rcpt(recipient),
            Ok(Command::Data) => self.data(),
            Ok(Command::Rset) => self.reset(Reply::new(250, (2, 0, 0), "OK")),
            Ok(Command::Noop) => Step::Reply(Reply::new(250, (2, 0, 0), "OK")),
            // Whether an address exists is Exchange's knowledge, and telling it would help a stranger.
            Ok(Command::Vrfy) => {
                Step::Reply(Reply::new(252, (2, 1, 5), "Cannot verify, but will take a message and try"))
            }
            Ok(Command::Help) => Step::Reply(help()),
            Ok(Command::Quit) => Step::Close(Reply::new(221, (2, 0, 0), format!("{} closing", self.profile.hostname))),
            Ok(Command::StartTls) => self.error(not_offered("STARTTLS")),
            Ok(Command::Auth(_)) => self.error(not_offered("AUTH")),
            Ok(Command::NotOffered(verb)) => self.error(not_offered(verb)),
            Err(CommandError::Http) => Step::Close(Reply::new(554, (5, 5, 1), "This is a mail port")),
            Err(error) => self.error(bad_command(&error)),
        }
    }

    /// A line was longer than any command.
    pub fn line_too_long(&mut self) -> Step {
        self.error(Reply::new(500, (5, 5, 2), "Line too long"))
    }

    /// The intake answered MAIL.
    pub fn mail_answered(&mut self, taken: bool, smtputf8: bool) {
        self.transaction = taken.then(|| Recipients { smtputf8, ..Recipients::default() });
    }

    /// The transaction answered RCPT.
    pub fn rcpt_answered(&mut self, taken: bool) {
        if let Some(recipients) = &mut self.transaction {
            *(if taken { &mut recipients.taken } else { &mut recipients.refused }) += 1;
        }
    }

    /// The message was read, or DATA was refused: the transaction is over either way.
    pub fn data_ended(&mut self) {
        self.transaction = None;
    }

    fn ehlo(&mut self, name: String) -> Step {
        let mut lines: Vec<Cow<'static, str>> = vec![self.profile.hostname.clone().into()];
        lines.extend(["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"].map(Cow::Borrowed));
        lines.push(format!("SIZE {}", self.profile.max_message_size).into());
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
        Step::Reset(reply)
    }

    /// No EHLO is asked for first: scripts of thirty years start with MAIL, and nothing depends on it here.
    fn mail(&mut self, path: ReversePath, parameters: MailParameters) -> Step {
        let limit = self.profile.max_message_size;
        if self.transaction.is_some() {
            self.error(Reply::new(503, (5, 5, 1), "Nested MAIL command"))
        } else if parameters.size.is_some_and(|size| size > limit) {
            Step::Reply(too_large(limit))
        } else if !parameters.smtputf8 && !path.is_ascii() {
            Step::Reply(needs_smtputf8())
        } else {
            Step::Mail(path, parameters)
        }
    }

    fn rcpt(&mut self, recipient: Recipient) -> Step {
        let Some(recipients) = &self.transaction else {
            return self.error(Reply::new(503, (5, 5, 1), "Need MAIL before RCPT"));
        };
        if recipients.taken >= self.profile.max_recipients {
            return Step::Reply(Reply::new(452, (4, 5, 3), "Too many recipients"));
        }
        if !recipients.smtputf8 && !recipient.path.is_ascii() {
            return Step::Reply(needs_smtputf8());
        }
        Step::Rcpt(recipient)
    }

    fn data(&mut self) -> Step {
        match &self.transaction {
            None => self.error(Reply::new(503, (5, 5, 1), "Need MAIL and RCPT before DATA")),
            Some(Recipients { taken: 0, refused: 0, .. }) => {
                self.error(Reply::new(503, (5, 5, 1), "Need RCPT before DATA"))
            }
            // The client pipelined DATA behind recipients that were refused: its mistake is none (RFC 2920 section 3.1).
            Some(Recipients { taken: 0, .. }) => Step::Reply(Reply::new(554, (5, 5, 1), "No valid recipients")),
            Some(_) => Step::Data,
        }
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

/// The message is, or claims to be, too large.
pub fn too_large(limit: u64) -> Reply {
    Reply::new(552, (5, 3, 4), format!("Message is larger than the {limit} octets allowed here"))
}

fn needs_smtputf8() -> Reply {
    Reply::new(553, (5, 6, 7), "An address with characters beyond ASCII needs SMTPUTF8 on the MAIL command")
}

fn not_offered(verb: &str) -> Reply {
    match verb {
        "STARTTLS" => Reply::new(502, (5, 5, 1), "TLS is not offered on this listener"),
        "AUTH" => Reply::new(502, (5, 5, 1), "No login is needed on this listener: send without AUTH"),
        _ => Reply::new(502, (5, 5, 1), format!("{verb} is not offered")),
    }
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

fn help() -> Reply {
    Reply::new(214, (2, 0, 0), "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT - RFC 5321, no login needed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let profile = Profile { max_message_size: 1000, max_recipients: 2, ..Profile::new("relay.test".into()) };
        Session::new(Arc::new(profile))
    }

    /// Plays commands; the intake takes everybody but `refused@x.y`. Gives the code of each answer.
    fn play(session: &mut Session, lines: &[&str]) -> Vec<u16> {
        lines.iter().map(|line| answer(session, line)).collect()
    }

    fn answer(session: &mut Session, line: &str) -> u16 {
        match session.command(Command::parse(line.as_bytes(), Dialect::Lenient)) {
            Step::Reply(reply) | Step::Close(reply) | Step::Reset(reply) => reply.code(),
            Step::Mail(_, parameters) => {
                session.mail_answered(true, parameters.smtputf8);
                250
            }
            Step::Rcpt(recipient) => {
                let taken = recipient.to_string() != "refused@x.y";
                session.rcpt_answered(taken);
                if taken { 250 } else { 550 }
            }
            Step::Data => {
                session.data_ended();
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
                &["STARTTLS", "AUTH LOGIN", "BDAT 1", "EXPN x", "FROB", "MAIL", "RCPT TO:<>"],
                &[502, 502, 502, 502, 500, 501, 553],
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

    #[test]
    fn a_session_of_errors_ends() {
        let mut session = session();
        let answers: Vec<_> = (0..10).map(|_| session.command(Command::parse(b"FROB", Dialect::Lenient))).collect();
        assert!(answers[..9].iter().all(|step| matches!(step, Step::Reply(reply) if reply.code() == 500)));
        assert!(matches!(&answers[9], Step::Close(reply) if reply.code() == 421));
    }
}
