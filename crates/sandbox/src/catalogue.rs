//! The faults that the public record knows, by name: one row for each reply of facts 1.5 and 1.6, for each code of 4.6,
//! and for each way in which a connection can fail. Pure values to look up; injecting them is the sandbox's, and what
//! a client should make of them is said as a [`Class`], never checked here.

mod connection;
mod imds;
mod smtp;
mod token;

use std::fmt;
use std::time::Duration;

use crate::suggestion;
use crate::{Action, Fault, HttpFault, OddToken, Stage, TokenFault};

/// A named fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// In lower case with hyphens; unique.
    pub name: &'static str,
    /// Where it strikes.
    pub stage: Stage,
    /// What it does.
    pub effect: Effect,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// The section of the fact sheet; `none` for what can happen to any client of HTTPS.
    pub facts: &'static str,
    /// What the facts say a client should make of it.
    pub class: Class,
    /// Where Microsoft shows it.
    pub channel: Channel,
    /// The facts mark it U, or leave part of it open.
    pub unproven: bool,
    /// The facts have only the code; the words behind it are ours.
    pub own_words: bool,
}

/// What a row does: an [`Action`] of constant parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// [`Action::Reply`]; `[..]` stands for the session's suffix.
    Reply(&'static str),
    /// [`Action::Close`]
    Close,
    /// [`Action::KeepThenClose`]
    KeepThenClose,
    /// [`Action::Stall`]
    Stall,
    /// [`Action::Delay`]
    Delay(Duration),
    /// [`Action::TokenError`]
    Entra {
        /// The HTTP status.
        status: u16,
        /// The word in `error`.
        error: &'static str,
        /// The AADSTS number.
        code: u32,
        /// What follows it in the description.
        message: &'static str,
    },
    /// [`Action::Http`]
    Http {
        /// The HTTP status.
        status: u16,
        /// Seconds in `Retry-After`.
        retry_after: Option<u32>,
        /// Where a redirect leads.
        location: Option<&'static str>,
        /// The body.
        body: &'static str,
    },
    /// [`Action::OddToken`]
    OddToken(OddToken),
}

/// What a client should make of it, by the facts' own classes. Texts and codes may change; classes are what matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Nothing is wrong, only slow or short: the mail goes out.
    Harmless,
    /// Try again later, unchanged.
    Transient,
    /// Try again on a new connection.
    Reconnect,
    /// The client's dialog was wrong, or seemed so: once more on a new connection, then a fault to report.
    Protocol,
    /// Refresh the token once; if that does not help, it is the mailbox's configuration.
    RefreshToken,
    /// An administrator must change something about the mailbox or how it authenticates; mail waits.
    ConfigurationAtAuth,
    /// The same for every mailbox of the tenant.
    TenantConfigurationAtAuth,
    /// Too fast or too many at a time: slower, then again.
    Throttled,
    /// The mailbox's quota of recipients is used up: wait until the window slides.
    QuotaUsedUp,
    /// The tenant's quota of external recipients is used up.
    TenantQuotaUsedUp,
    /// The mailbox is full: wait for somebody to empty it.
    MailboxFull,
    /// The mailbox may not send as the From of this message.
    SenderRefused,
    /// The mailbox is blocked, mostly as a source of spam.
    MailboxBlocked,
    /// The tenant is blocked or has a low reputation.
    TenantBlocked,
    /// This message will never pass: its size, its header, its content.
    PermanentMessage,
    /// This recipient will never pass; others may.
    PermanentRecipient,
    /// Too many recipients in one message: the rest in another.
    SplitAndResend,
    /// The message may have been accepted: only a bounded number of blind tries.
    Ambiguous,
    /// No token until an administrator changes the credential, the application, the tenant or the request.
    ConfigurationAtToken,
    /// No token until an administrator consents.
    NeedsConsent,
    /// No token until a person signs in again (delegated grants).
    SignInAgain,
    /// No token because of a policy such as Conditional Access.
    Policy,
    /// No token until the account is unlocked.
    AccountLocked,
    /// The client asked wrongly: a bug to report.
    ClientBug,
    /// A state of a sign-in under way (device code).
    Flow,
    /// An answer that is none: not JSON, a redirect, too large, without a token. Never used; tried again with patience.
    Unusable,
}

/// Where Microsoft shows a reply. Whatever it is, the row can be injected at its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Channel {
    /// To the client that submits.
    Submission,
    /// Known as a bounce that comes by mail; offered at the stage where its code could come on the wire.
    Bounce,
    /// Known from the MX hosts, for mail between servers.
    Mx,
    /// High Volume Email only.
    HighVolume,
    /// At the token endpoint or the metadata service.
    Token,
}

impl Row {
    /// The fault of the row, to strike once, whoever comes.
    pub fn fault(&self) -> Fault {
        Fault::once(self.stage, self.effect.action())
    }

    const fn at(stage: Stage, name: &'static str, class: Class, effect: Effect, meaning: &'static str) -> Self {
        let channel = if matches!(stage, Stage::Token | Stage::Imds) { Channel::Token } else { Channel::Submission };
        Self { name, stage, effect, meaning, facts: "8", class, channel, unproven: false, own_words: false }
    }

    const fn facts(mut self, facts: &'static str) -> Self {
        self.facts = facts;
        self
    }

    const fn unproven(mut self) -> Self {
        self.unproven = true;
        self
    }

    const fn own_words(mut self) -> Self {
        self.own_words = true;
        self
    }

    const fn channel(mut self, channel: Channel) -> Self {
        self.channel = channel;
        self
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, stage, effect, meaning, facts, .. } = self;
        write!(f, "{name} (at {stage}; facts {facts}")?;
        f.write_str(match self.channel {
            Channel::Submission | Channel::Token => "",
            Channel::Bounce => "; known as a bounce",
            Channel::Mx => "; known from MX hosts",
            Channel::HighVolume => "; High Volume Email",
        })?;
        f.write_str(if self.unproven { "; unproven" } else { "" })?;
        write!(f, ")\n    {}\n    {meaning}", effect.action())
    }
}

impl Effect {
    /// As a fault's action.
    pub fn action(self) -> Action {
        match self {
            Self::Reply(text) => Action::Reply(text.to_owned()),
            Self::Close => Action::Close,
            Self::KeepThenClose => Action::KeepThenClose,
            Self::Stall => Action::Stall,
            Self::Delay(delay) => Action::Delay(delay),
            Self::Entra { status, error, code, message } => Action::TokenError(TokenFault {
                status,
                error: error.to_owned(),
                code,
                message: message.to_owned(),
                retry_after: None,
            }),
            Self::Http { status, retry_after, location, body } => Action::Http(HttpFault {
                status,
                retry_after,
                location: location.map(str::to_owned),
                body: body.to_owned(),
            }),
            Self::OddToken(odd) => Action::OddToken(odd),
        }
    }
}

/// No row has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no fault `{name}`{}; `faults` lists them", suggestion::hint(*.nearest))]
pub struct UnknownFault {
    /// The name that was asked for.
    pub name: String,
    /// The name that was probably meant.
    pub nearest: Option<&'static str>,
}

/// Every row: replies in the order of the facts, then connections, then the token endpoint, then the
/// metadata service.
pub fn all() -> impl Iterator<Item = &'static Row> {
    smtp::ROWS.iter().chain(connection::ROWS).chain(token::ROWS).chain(imds::ROWS)
}

/// The row with this name.
pub fn find(name: &str) -> Result<&'static Row, UnknownFault> {
    all().find(|row| row.name == name).ok_or_else(|| UnknownFault {
        name: name.to_owned(),
        nearest: suggestion::nearest(name, all().map(|row| row.name)),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clock::WallTime;

    use super::*;
    use crate::entra::EntraError;
    use crate::fault::{Faults, is_reply};
    use crate::replies;

    /// Facts 4.6, from the top.
    const CODES: [u32; 68] = [
        7_000_215, 7_000_222, 700_027, 700_024, 50_012, 700_016, 700_011, 7_000_112, 70_001, 7_000_218, 700_025,
        90_002, 90_038, 900_144, 70_011, 28_002, 500_011, 650_052, 65_005, 65_001, 90_094, 50_034, 50_126, 50_056,
        50_053, 50_055, 50_057, 50_144, 50_076, 50_079, 50_074, 50_078, 50_072, 50_158, 50_097, 53_000, 53_001,
        530_032, 53_003, 530_035, 70_043, 70_008, 700_082, 50_173, 50_133, 50_132, 54_005, 9_001_023, 50_194, 700_229,
        70_016, 70_018, 70_019, 50_196, 90_055, 90_033, 90_006, 90_012, 90_024, 90_090, 50_033, 50_087, 70_012, 40_010,
        80_002, 80_014, 50_000, 90_036,
    ];

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let mut names = HashSet::new();
        for row in all() {
            assert!(names.insert(row.name), "{} twice", row.name);
            let is_kebab = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
            assert!(row.name.bytes().all(is_kebab), "{}", row.name);
            assert!(!row.meaning.is_empty() && !row.meaning.contains('\n'), "{}", row.name);
            assert_eq!(find(row.name), Ok(row));
        }
    }

    #[test]
    fn every_row_makes_sense_at_its_stage() {
        for row in all() {
            assert!(Faults::default().inject(row.fault()).is_ok(), "{row}");
            assert_eq!(row.channel == Channel::Token, row.stage.is_http(), "{row}");
        }
    }

    #[test]
    fn texts_are_replies_whose_codes_agree() {
        for row in all() {
            let Effect::Reply(text) = row.effect else { continue };
            assert!(is_reply(text) && text.len() <= 512, "{row}");
            let mut words = text.split(' ');
            let (code, enhanced) = (words.next().unwrap(), words.next().unwrap());
            // Facts 1.5: STARTTLS is asked for with a 451 and an enhanced 5.
            if row.name != "starttls-required" {
                assert_eq!(code[..1], enhanced[..1], "{row}");
            }
            assert!(matches!(&code[..1], "4" | "5"), "{row}");
            let parts: Vec<u16> = enhanced.split('.').map(|part| part.parse().unwrap()).collect();
            assert_eq!(parts.len(), 3, "{row}");
            let is_final = matches!(row.class, Class::PermanentMessage | Class::PermanentRecipient);
            assert!(!is_final || code.starts_with('5'), "{row}");
        }
    }

    #[test]
    fn every_code_of_entra_has_a_row_of_its_name() {
        for code in CODES {
            let row = find(&format!("token-{code}")).unwrap();
            let Effect::Entra { status, error, code: given, .. } = row.effect else { panic!("{row}") };
            assert_eq!(given, code);
            let json = EntraError::from(match row.effect.action() {
                Action::TokenError(fault) => fault,
                _ => panic!("{row}"),
            })
            .json(WallTime::from_unix_millis(1_707_922_226_590));
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(json["error"], error);
            assert_eq!(json["error_codes"], serde_json::json!([code]));
            assert!(json["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
            assert_eq!(status == 401, error == "invalid_client", "{row}");
        }
        let listed: HashSet<_> = CODES.into_iter().collect();
        for row in all() {
            let Effect::Entra { code, .. } = row.effect else { continue };
            assert!(listed.contains(&code), "{row}");
        }
    }

    #[test]
    fn what_the_sandbox_says_by_itself_is_in_the_catalogue() {
        for text in [
            replies::AUTH_FAILED,
            replies::TENANT_SWITCH,
            replies::MAILBOX_SWITCH,
            replies::BASIC_DISABLED,
            replies::MECHANISM_UNKNOWN,
            replies::NOT_AUTHENTICATED,
            replies::STARTTLS_REQUIRED,
            replies::TOO_MANY_ERRORS,
            replies::NOT_ACTIVE,
            replies::TIMED_OUT,
            replies::SENDER_INVALID,
            replies::USER_UNKNOWN,
            replies::TOO_MANY_RECIPIENTS,
            replies::SIZE_EXCEEDED,
            replies::RATE_EXCEEDED,
            replies::CONCURRENCY_EXCEEDED,
            replies::QUOTA_EXCEEDED,
            replies::MAILBOX_FULL,
            replies::TOO_LARGE,
        ] {
            let is_said = |row: &Row| matches!(row.effect, Effect::Reply(said) if said.starts_with(text));
            assert!(all().any(is_said), "{text}");
        }
        for row in all() {
            if let Effect::Reply(text) = row.effect
                && let Some((_, host)) = text.split_once("[Hostname=")
            {
                assert_eq!(host.trim_end_matches(']'), replies::BACK_END, "{row}");
            }
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        let unknown = find("mailbox-ful").unwrap_err();
        assert_eq!(unknown.to_string(), "no fault `mailbox-ful` (did you mean `mailbox-full`?); `faults` lists them");
        assert_eq!(find("token-7000251").unwrap_err().nearest, Some("token-7000215"));
        assert_eq!(find("x").unwrap_err().to_string(), "no fault `x`; `faults` lists them");
    }
}
