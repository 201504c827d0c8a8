//! From reply to outcome: one table, for the replies that Exchange Online gives (facts/exchange-online.md sections 1.5
//! and 1.6) and for all others. Pure. Rows are read from the top; the first that fits decides.
//!
//! Two rules shape it: what may heal by an administrator's act is held and never refused, and what is not understood
//! is tried again.

use mail::{Diagnostic, EnhancedCode, Outcome, Scope};
use wire::Reply;

use crate::governor::Pacing;

/// Where in the dialog a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Banner, EHLO, STARTTLS.
    Greeting,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, before the message.
    Data,
    /// After the final dot.
    EndOfData,
}

/// What the table knows to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Refused,
    Deferred,
    Paced,
    Held(Scope),
}

/// A row: all that is given must fit.
struct Row {
    stages: &'static [Stage],
    code: Option<u16>,
    enhanced: Option<(u8, u16, u16)>,
    text: Option<&'static str>,
    verdict: Verdict,
}

const ANY: &[Stage] = &[Stage::Greeting, Stage::Auth, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData];
const AUTH: &[Stage] = &[Stage::Auth];
const RCPT: &[Stage] = &[Stage::Rcpt];
const END: &[Stage] = &[Stage::EndOfData];
const MESSAGE: &[Stage] = &[Stage::Mail, Stage::Data, Stage::EndOfData];
/// Where a reply speaks of the sender rather than of one recipient.
const SENDER: &[Stage] = &[Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData];

const fn code(stages: &'static [Stage], code: u16, enhanced: (u8, u16, u16), verdict: Verdict) -> Row {
    Row { stages, code: Some(code), enhanced: Some(enhanced), text: None, verdict }
}

const fn enhanced(stages: &'static [Stage], enhanced: (u8, u16, u16), verdict: Verdict) -> Row {
    Row { stages, code: None, enhanced: Some(enhanced), text: None, verdict }
}

const fn basic(stages: &'static [Stage], code: u16, verdict: Verdict) -> Row {
    Row { stages, code: Some(code), enhanced: None, text: None, verdict }
}

const fn text(stages: &'static [Stage], text: &'static str, verdict: Verdict) -> Row {
    Row { stages, code: None, enhanced: None, text: Some(text), verdict }
}

/// Rows for what Exchange says in particular. General rules follow in [`general`].
const ROWS: &[Row] = &[
    // The switch is the tenant's: every mailbox of it meets the same.
    text(AUTH, "disabled for the Tenant", Verdict::Held(Scope::Tenant)),
    // Pace.
    code(ANY, 432, (4, 3, 2), Verdict::Paced),
    text(SENDER, "submission rate for this client has exceeded", Verdict::Paced),
    text(SENDER, "sender thread limit exceeded", Verdict::Paced),
    // The code of a message with too many recipients, but from the guard against too many of a client.
    text(RCPT, "Too many recipients (AS", Verdict::Paced),
    // The login is not, or no longer, authenticated: the lane's trouble.
    enhanced(SENDER, (5, 7, 57), Verdict::Held(Scope::Mailbox)),
    basic(SENDER, 530, Verdict::Held(Scope::Mailbox)),
    basic(SENDER, 535, Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 7, 30), Verdict::Held(Scope::Mailbox)),
    // The mailbox: its kind, its quota, its limits, its standing.
    enhanced(SENDER, (5, 2, 240), Verdict::Held(Scope::Mailbox)),
    text(SENDER, "SubmissionQuotaExceeded", Verdict::Held(Scope::Mailbox)),
    text(SENDER, "OutboundSpamException", Verdict::Held(Scope::Mailbox)),
    enhanced(MESSAGE, (5, 2, 2), Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 1, 8), Verdict::Held(Scope::Mailbox)),
    enhanced(MESSAGE, (5, 1, 90), Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 7, 236), Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 7, 501), Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 7, 502), Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 7, 503), Verdict::Held(Scope::Mailbox)),
    enhanced(SENDER, (5, 7, 800), Verdict::Held(Scope::Mailbox)),
    // The tenant.
    enhanced(SENDER, (5, 7, 232), Verdict::Held(Scope::Tenant)),
    enhanced(SENDER, (5, 7, 233), Verdict::Held(Scope::Tenant)),
    enhanced(SENDER, (5, 7, 705), Verdict::Held(Scope::Tenant)),
    enhanced(SENDER, (5, 7, 708), Verdict::Held(Scope::Tenant)),
    enhanced(SENDER, (5, 7, 750), Verdict::Held(Scope::Tenant)),
    // The message: its From may not be sent as, until somebody grants it.
    text(SENDER, "SendAsDenied", Verdict::Held(Scope::Message)),
    enhanced(SENDER, (5, 2, 252), Verdict::Held(Scope::Message)),
    enhanced(SENDER, (5, 7, 60), Verdict::Held(Scope::Message)),
    enhanced(END, (5, 6, 241), Verdict::Held(Scope::Message)),
    // The message for good: its size, its header, a recipient that the tenant blocks on purpose. Its sender should hear.
    enhanced(END, (5, 2, 270), Verdict::Refused),
    enhanced(END, (5, 7, 512), Verdict::Refused),
    enhanced(END, (5, 7, 703), Verdict::Refused),
    enhanced(MESSAGE, (5, 3, 4), Verdict::Refused),
    // Others of the 5.7 and 5.2.0 kind come from policies that people change.
    enhanced(MESSAGE, (5, 2, 0), Verdict::Held(Scope::Message)),
    // One domain too often in one message: the rest goes in another.
    code(RCPT, 452, (4, 5, 3), Verdict::Deferred),
];

/// What a reply at this stage means for those it concerns: one recipient at RCPT, the lane before MAIL, else the message.
pub fn classify(stage: Stage, reply: &Reply) -> Outcome {
    let verdict =
        ROWS.iter().find(|row| row.fits(stage, reply)).map_or_else(|| general(stage, reply), |row| row.verdict);
    let diagnostic = reply.diagnostic();
    match verdict {
        Verdict::Accepted => Outcome::Accepted(diagnostic),
        Verdict::Refused => Outcome::Refused(diagnostic),
        Verdict::Deferred => Outcome::Deferred(diagnostic),
        Verdict::Paced => Outcome::Paced(diagnostic),
        Verdict::Held(scope) => Outcome::Held { scope, diagnostic },
    }
}

impl Row {
    fn fits(&self, stage: Stage, reply: &Reply) -> bool {
        let given = |(class, subject, detail)| Some(EnhancedCode::new(class, subject, detail));
        !reply.is_positive()
            && self.stages.contains(&stage)
            && self.code.is_none_or(|code| code == reply.code())
            && self.enhanced.is_none_or(|enhanced| given(enhanced) == reply.enhanced())
            && self.text.is_none_or(|text| reply.text().contains(text))
    }
}

/// Of what upstream has had too much, when it asks to slow down.
pub(crate) fn pacing(diagnostic: &Diagnostic) -> Pacing {
    let says = |text| diagnostic.text.contains(text);
    if diagnostic.code == Some(432) || says("sender thread limit") || says("Concurrent connections") {
        Pacing::Connections
    } else if says("submission rate") {
        Pacing::Rate
    } else {
        Pacing::Busy
    }
}

/// Whether a refused login may be the token's fault: any 535, and what High Volume Email said of a token that ends soon.
pub(crate) fn may_be_the_token(reply: &Reply) -> bool {
    reply.code() == 535 || reply.enhanced() == Some(EnhancedCode::new(5, 5, 127))
}

/// Whether upstream finds the dialog wrong that we know to be right: it says nothing about login or message, and is seen
/// now and then without a cause. Such a session is confused; another may not be.
pub(crate) fn is_about_the_dialog(stage: Stage, reply: &Reply) -> bool {
    match (stage, reply.code()) {
        (Stage::Auth, 500..=504) => true,
        // Not logged in, and not encrypted, as it says; the latter with a code that fits no 451.
        (Stage::Mail, 530) => reply.enhanced() == Some(EnhancedCode::new(5, 7, 57)),
        (Stage::Mail, 451) => reply.text().contains("STARTTLS is required"),
        (Stage::Mail, 500..=504) => !is_about_the_message(reply),
        _ => false,
    }
}

/// What holds for any server.
fn general(stage: Stage, reply: &Reply) -> Verdict {
    match (stage, reply.code() / 100) {
        (_, 2) => Verdict::Accepted,
        // Server busy, access denied for now: the guard against too much at a time (facts section 1.6).
        (Stage::Mail | Stage::Rcpt | Stage::Data | Stage::EndOfData, 4) if is_busy(reply) => Verdict::Paced,
        // Before MAIL no message is concerned: refusals hold the lane, the rest passes.
        (Stage::Greeting | Stage::Auth, 5) => Verdict::Held(Scope::Mailbox),
        // A command that upstream does not know or want there says nothing about the message: a fault of the dialog, or of
        // something in between (502 5.3.3 was seen).
        (_, 5) if matches!(reply.code(), 500..=504) && !is_about_the_message(reply) => Verdict::Deferred,
        (Stage::Rcpt, 5) => Verdict::Refused,
        (Stage::Mail | Stage::Data | Stage::EndOfData, 5) => match reply.enhanced() {
            Some(EnhancedCode { subject: 7, .. }) => Verdict::Held(Scope::Message),
            _ => Verdict::Refused,
        },
        _ => Verdict::Deferred,
    }
}

/// 4.7.500 to 4.7.699.
fn is_busy(reply: &Reply) -> bool {
    reply.enhanced().is_some_and(|given| given.class == 4 && given.subject == 7 && (500..700).contains(&given.detail))
}

/// Address and content troubles come with codes of these subjects, whatever the basic code.
fn is_about_the_message(reply: &Reply) -> bool {
    reply.enhanced().is_some_and(|enhanced| matches!(enhanced.subject, 1 | 2 | 6 | 7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ReplyParser;

    fn reply(line: &str) -> Reply {
        ReplyParser::default().push(format!("{line}\r\n").as_bytes()).unwrap().1.unwrap()
    }

    /// The outcome in short.
    fn short(stage: Stage, line: &str) -> &'static str {
        match classify(stage, &reply(line)) {
            Outcome::Held { scope: Scope::Message, .. } => "held message",
            Outcome::Held { scope: Scope::Mailbox, .. } => "held mailbox",
            Outcome::Held { scope: Scope::Tenant, .. } => "held tenant",
            outcome => outcome.name(),
        }
    }

    #[test]
    fn replies_of_exchange_online() {
        for (stage, line, outcome) in [
            (Stage::Auth, "535 5.7.3 Authentication unsuccessful [X]", "held mailbox"),
            (
                Stage::Auth,
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled",
                "held tenant",
            ),
            (
                Stage::Auth,
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit",
                "held mailbox",
            ),
            (Stage::Auth, "550 5.7.30 Basic authentication is not supported for Client Submission.", "held mailbox"),
            (Stage::Auth, "504 5.7.4 Unrecognized authentication type [X]", "held mailbox"),
            (Stage::Auth, "454 4.7.0 Temporary authentication failure", "deferred"),
            (Stage::Auth, "451 4.7.0 Temporary server error. Please try again later. PRX4 [X]", "deferred"),
            (Stage::Greeting, "421 4.3.2 Service not active", "deferred"),
            (Stage::Mail, "250 2.1.0 Sender OK", "accepted"),
            (Stage::Mail, "530 Authentication required", "held mailbox"),
            (Stage::Mail, "530 5.7.0 Authentication required", "held mailbox"),
            (Stage::Mail, "535 5.7.139 Authentication unsuccessful", "held mailbox"),
            (Stage::Mail, "550 5.7.30 Basic authentication is not supported for Client Submission.", "held mailbox"),
            (Stage::Rcpt, "550 5.7.705 Access denied, tenant has exceeded threshold", "held tenant"),
            (Stage::Rcpt, "550 5.7.233 external recipients", "held tenant"),
            (Stage::Rcpt, "550 5.1.8 Access denied, bad outbound sender", "held mailbox"),
            (Stage::Rcpt, "550 5.7.501 Access denied, spam abuse detected", "held mailbox"),
            (Stage::Rcpt, "550 5.7.1 Unable to relay", "refused"),
            (Stage::Rcpt, "550 5.2.2 mailbox full", "refused"),
            (Stage::Mail, "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 x", "held mailbox"),
            (
                Stage::Mail,
                "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
                "paced",
            ),
            (Stage::Mail, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "held message"),
            (Stage::Mail, "550 5.1.7 Invalid address", "refused"),
            (Stage::Mail, "502 5.3.3 Command not implemented", "deferred"),
            (Stage::Data, "503 5.5.1 Bad sequence of commands", "deferred"),
            (Stage::Mail, "501 5.1.7 Invalid address", "refused"),
            (Stage::Rcpt, "501 5.1.3 Invalid address", "refused"),
            (Stage::Rcpt, "250 2.1.5 Recipient OK", "accepted"),
            (Stage::Rcpt, "550 5.1.1 User unknown", "refused"),
            (Stage::Rcpt, "452 4.5.3 Too many recipients", "deferred"),
            (Stage::Rcpt, "452 4.5.3 Too many recipients (AS780090)", "paced"),
            (Stage::Rcpt, "451 4.7.500 Access denied, please try again later (AS123)", "paced"),
            (Stage::Mail, "451 4.7.500 Server busy. Please try again later", "paced"),
            (Stage::EndOfData, "451 4.7.699 Access denied, please try again later", "paced"),
            (Stage::EndOfData, "451 4.7.700 something else", "deferred"),
            (Stage::EndOfData, "430 4.2.0 STOREDRV; mailbox logon failure", "deferred"),
            (Stage::Mail, "550 5.2.240 Not a High Volume Email account", "held mailbox"),
            (Stage::Mail, "550 5.7.62 Sender is not the authenticated account", "held message"),
            (Stage::EndOfData, "550 5.6.241 From header does not match the account", "held message"),
            (Stage::EndOfData, "550 5.6.11 Message contains bare line feeds", "refused"),
            (
                Stage::EndOfData,
                "550 5.7.236 External recipient limit of onmicrosoft.com senders exceeded",
                "held mailbox",
            ),
            (Stage::EndOfData, "550 5.7.512 message must be RFC 5322 section 3.6.2 compliant", "refused"),
            (Stage::EndOfData, "550 5.7.703 Recipient is on the Tenant Allow/Block List", "refused"),
            (Stage::EndOfData, "250 2.0.0 OK <a@b> [Hostname=X]", "accepted"),
            (
                Stage::EndOfData,
                "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending",
                "paced",
            ),
            (Stage::EndOfData, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", "paced"),
            (
                Stage::EndOfData,
                "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
                "held mailbox",
            ),
            (
                Stage::EndOfData,
                "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException",
                "held mailbox",
            ),
            (Stage::EndOfData, "554 5.2.252 SendAsDenied; a@b not allowed to send as c@d; STOREDRV", "held message"),
            (
                Stage::EndOfData,
                "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; x",
                "held message",
            ),
            (Stage::EndOfData, "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL", "held mailbox"),
            (Stage::EndOfData, "554 5.2.0 something new", "held message"),
            (Stage::EndOfData, "554 5.2.270 Message too large after conversion", "refused"),
            (Stage::EndOfData, "552 5.3.4 Message size exceeds fixed maximum message size", "refused"),
            (Stage::EndOfData, "550 5.1.8 Access denied, bad outbound sender", "held mailbox"),
            (Stage::EndOfData, "550 5.7.705 tenant over threshold", "held tenant"),
            (Stage::EndOfData, "550 5.7.999 something new", "held message"),
            (Stage::EndOfData, "550 5.1.20 Multiple From addresses are not allowed without Sender address", "refused"),
            (Stage::EndOfData, "554 no enhanced code", "refused"),
            (Stage::EndOfData, "451 4.3.0 whatever", "deferred"),
            (Stage::EndOfData, "354 out of place", "deferred"),
        ] {
            assert_eq!(short(stage, line), outcome, "{stage:?}: {line}");
        }
    }

    #[test]
    fn what_upstream_has_had_too_much_of() {
        for (line, wanted) in [
            ("432 4.3.2 Concurrent connections limit exceeded. Visit", Pacing::Connections),
            ("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", Pacing::Connections),
            ("421 4.4.2 Message submission rate for this client has exceeded the configured limit", Pacing::Rate),
            ("451 4.7.500 Server busy. Please try again later", Pacing::Busy),
            ("452 4.5.3 Too many recipients (AS780090)", Pacing::Busy),
        ] {
            assert_eq!(pacing(&reply(line).diagnostic()), wanted, "{line}");
        }
    }

    #[test]
    fn replies_that_speak_of_token_or_dialog() {
        for (stage, line, token, dialog) in [
            (Stage::Auth, "535 5.7.3 Authentication unsuccessful [X]", true, false),
            (Stage::Auth, "535 5.7.142 Token will expire soon", true, false),
            (Stage::Auth, "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon", true, true),
            (Stage::Auth, "501 5.5.121 Invalid XOAUTH2 argument or data", false, true),
            (Stage::Auth, "504 5.7.4 Unrecognized authentication type [X]", false, true),
            (Stage::Auth, "550 5.7.30 Basic authentication is not supported", false, false),
            (Stage::Auth, "454 4.7.0 Temporary authentication failure", false, false),
            (Stage::Mail, "530 5.7.57 Client not authenticated to send mail. [X]", false, true),
            (Stage::Mail, "451 5.7.3 STARTTLS is required to send mail [X]", false, true),
            (Stage::Mail, "451 4.7.0 Temporary server error. Please try again later. PRX4 [X]", false, false),
            (Stage::Mail, "502 5.3.3 Command not implemented", false, true),
            (Stage::Mail, "501 5.1.7 Invalid address", false, false),
            (Stage::Mail, "250 2.1.0 Sender OK", false, false),
            (Stage::Data, "503 5.5.2 Need rcpt command", false, false),
        ] {
            let reply = reply(line);
            assert_eq!((may_be_the_token(&reply), is_about_the_dialog(stage, &reply)), (token, dialog), "{line}");
        }
    }

    #[test]
    fn only_a_positive_reply_is_acceptance() {
        for code in 200..600 {
            for stage in ANY {
                let accepted = matches!(classify(*stage, &reply(&format!("{code} x"))), Outcome::Accepted(_));
                assert_eq!(accepted, code < 300, "{code} at {stage:?}");
            }
        }
    }
}
