//! Whatever lines a client sends, a session that must be encrypted or logged in takes no mail before, takes no password in
//! the clear, asks RCPT and DATA of the intake in their order only, and ends when nothing but noise comes.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;
use smtp_server::session::{Authentication, Profile, Session, Step, Tls};
use wire::{Command, Dialect, Framed, LineFramer, Reply};

/// Commands between two messages beyond which a session must have ended.
const NOISE: u32 = 400;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, lines)) = input.split_first() else { return };
    let mut play = Play::new(choice);
    let mut framer = LineFramer::new(2048, play.profile.dialect);
    let mut rest = lines;
    loop {
        let (step, consumed) = match framer.next(rest) {
            Framed::Line { line, consumed } if play.session.awaits_response() => {
                (play.session.response(line), consumed)
            }
            Framed::Line { line, consumed } => {
                (play.session.command(Command::parse(line, play.profile.dialect)), consumed)
            }
            Framed::TooLong { consumed } => (play.session.line_too_long(), consumed),
            Framed::BareLf { consumed } => (play.session.line_ended_in_lf(), consumed),
            Framed::Incomplete { .. } => return,
        };
        rest = &rest[consumed..];
        if !play.carry_out(step) {
            return;
        }
    }
});

/// The session with a model of what it must remember.
struct Play {
    session: Session,
    profile: Profile,
    local: bool,
    encrypted: bool,
    authenticated: bool,
    mail: bool,
    recipients: usize,
    noise: u32,
}

impl Play {
    fn new(choice: u8) -> Self {
        let authentication = match choice & 3 {
            0 => Authentication::None,
            1 => Authentication::Optional,
            _ => Authentication::Required,
        };
        let tls = match choice >> 2 & 3 {
            0 | 1 => Tls::None,
            2 => Tls::StartTls(config()),
            _ => Tls::RequireStartTls(config()),
        };
        let profile = Profile {
            authentication,
            tls,
            dialect: if choice & 16 == 0 { Dialect::Lenient } else { Dialect::Strict },
            cleartext_auth: choice & 32 != 0,
            max_recipients: 2,
            ..Profile::new("relay.test".to_owned())
        };
        let local = choice & 64 != 0;
        let session = Session::new(Arc::new(profile.clone()), local);
        Self {
            session,
            profile,
            local,
            encrypted: false,
            authenticated: false,
            mail: false,
            recipients: 0,
            noise: 0,
        }
    }

    /// False when the session is over.
    fn carry_out(&mut self, step: Step) -> bool {
        self.noise += 1;
        match step {
            Step::Reply(reply) | Step::Challenge(reply) => one_line_each(&reply),
            Step::Close(reply) => {
                one_line_each(&reply);
                return false;
            }
            Step::Reset(reply) => {
                one_line_each(&reply);
                self.mail = false;
            }
            Step::StartTls(_) => {
                assert!(!self.encrypted);
                (self.encrypted, self.authenticated, self.mail) = (true, false, false);
                self.session.encrypted();
            }
            Step::Authenticate(credentials) => {
                let must_encrypt = matches!(self.profile.tls, Tls::RequireStartTls(_));
                assert!(self.encrypted || !must_encrypt && (self.local || self.profile.cleartext_auth));
                assert!(!self.authenticated && self.profile.authentication != Authentication::None);
                assert!(!credentials.name.is_empty() && !credentials.name.chars().any(char::is_control));
                let right = credentials.password.first() == Some(&b'r');
                self.authenticated = right;
                let refusal = (!right).then(|| Reply::new(535, (5, 7, 8), "No"));
                if matches!(self.session.authentication_answered(refusal), Step::Close(_)) {
                    return false;
                }
            }
            Step::Mail(path, parameters) => {
                assert!(self.encrypted || !matches!(self.profile.tls, Tls::RequireStartTls(_)));
                assert!(self.authenticated || self.profile.authentication != Authentication::Required);
                assert!(!self.mail);
                self.mail = !path.to_string().starts_with('r');
                self.recipients = 0;
                let refusal = (!self.mail).then(|| Reply::new(452, (4, 3, 1), "No"));
                self.session.mail_answered(refusal.as_ref(), parameters.smtputf8);
            }
            Step::Rcpt(recipient) => {
                assert!(self.mail && self.recipients < 2);
                let reply = match recipient.to_string().chars().next() {
                    Some('r') => Reply::new(550, (5, 1, 1), "No"),
                    Some('l') => Reply::new(451, (4, 4, 5), "Later"),
                    _ => Reply::new(250, (2, 1, 5), "OK"),
                };
                self.recipients += usize::from(reply.is_positive());
                self.session.rcpt_answered(&reply);
            }
            Step::Data => {
                assert!(self.mail && self.recipients > 0);
                (self.mail, self.noise) = (false, 0);
                self.session.data_ended(true);
            }
        }
        // Transactions that are begun and given up count as noise too, through their RSET.
        assert!(self.noise < NOISE || self.mail, "the session goes on for ever");
        true
    }
}

/// What is quoted from the client ends no line.
fn one_line_each(reply: &Reply) {
    let mut octets = Vec::new();
    reply.write_to(&mut octets);
    assert_eq!(octets.iter().filter(|octet| **octet == b'\n').count(), reply.lines().len());
    assert!(octets.iter().all(|octet| octet.is_ascii_graphic() || b" \r\n".contains(octet)));
}

/// Any: no handshake is made here.
fn config() -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let resolver = Arc::new(ResolvesServerCertUsingSni::new());
    Arc::new(versions.expect("TLS 1.2 and 1.3 are there").with_no_client_auth().with_cert_resolver(resolver))
}
