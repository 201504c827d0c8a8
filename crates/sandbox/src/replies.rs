//! Exchange Online's words, each where it stands in facts 1.2 to 1.6. Texts marked U there or absent are Exchange
//! Server's well-known ones and marked U here. Only text: who says what when is decided in `session` and `submission`.

use std::net::IpAddr;

use clock::WallTime;

/// Advertised in EHLO: exactly 150 MiB (facts 1.2).
pub(crate) const ADVERTISED_SIZE: u64 = 157_286_400;

/// The site's name in the banner and in EHLO.
const GREETING_HOST: &str = "AM0PR04CA0042.outlook.office365.com";
/// The front end's name in the suffix of errors.
const FRONT_END: &str = "AM0PR04CA0042.EURPRD04.PROD.OUTLOOK.COM";
/// The mailbox server's name in replies to the final dot.
pub(crate) const BACK_END: &str = "AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM";

pub(crate) const AUTH_OK: &str = "235 2.7.0 Authentication successful";
/// Two-step XOAUTH2: an empty challenge, with its space (facts 1.3).
pub(crate) const EMPTY_CHALLENGE: &str = "334 ";
pub(crate) const LOGIN_USERNAME: &str = "334 VXNlcm5hbWU6";
pub(crate) const LOGIN_PASSWORD: &str = "334 UGFzc3dvcmQ6";
pub(crate) const STARTTLS_READY: &str = "220 2.0.0 SMTP server ready";
pub(crate) const SENDER_OK: &str = "250 2.1.0 Sender OK";
pub(crate) const RECIPIENT_OK: &str = "250 2.1.5 Recipient OK";
pub(crate) const START_INPUT: &str = "354 Start mail input; end with <CRLF>.<CRLF>";
pub(crate) const CLOSING: &str = "221 2.0.0 Service closing transmission channel";
pub(crate) const RESETTING: &str = "250 2.0.0 Resetting";
pub(crate) const NOOP_OK: &str = "250 2.0.0 OK";
/// U: Exchange Server's text.
pub(crate) const CANNOT_VRFY: &str = "252 2.1.5 Cannot VRFY user";
/// U: Exchange Server's text, with the verbs that this front end takes.
pub(crate) const HELP: &str = "214-This server supports the following commands:\r\n\
    214 HELO EHLO STARTTLS RCPT DATA RSET MAIL QUIT HELP AUTH BDAT";

pub(crate) const AUTH_FAILED: &str = "535 5.7.3 Authentication unsuccessful";
pub(crate) const TENANT_SWITCH: &str = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.";
pub(crate) const MAILBOX_SWITCH: &str = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.";
pub(crate) const BASIC_DISABLED: &str = "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.";
pub(crate) const MECHANISM_UNKNOWN: &str = "504 5.7.4 Unrecognized authentication type";
pub(crate) const NOT_AUTHENTICATED: &str = "530 5.7.57 Client not authenticated to send mail.";
/// Facts 1.5: reported for Exchange's connectors; whether this front end says it is U.
pub(crate) const STARTTLS_REQUIRED: &str = "451 5.7.3 STARTTLS is required to send mail";
pub(crate) const INVALID_DOMAIN: &str = "501 5.5.4 Invalid domain name";
/// U: Exchange Server's text, as are the 503s.
pub(crate) const INVALID_ARGUMENTS: &str = "501 5.5.4 Invalid arguments";
pub(crate) const HELLO_FIRST: &str = "503 5.5.2 Send hello first";
pub(crate) const MAIL_FIRST: &str = "503 5.5.2 Need mail command";
pub(crate) const RCPT_FIRST: &str = "503 5.5.2 Need rcpt command";
pub(crate) const SENDER_SPECIFIED: &str = "503 5.5.2 Sender already specified";
pub(crate) const BAD_SEQUENCE: &str = "503 5.5.2 Bad sequence of commands";
/// U: RFC 5321 section 4.5.3.1.9 asks for a 500.
pub(crate) const LINE_TOO_LONG: &str = "500 5.5.2 Line too long";
pub(crate) const TOO_MANY_ERRORS: &str = "421 4.7.0 Too many errors on this connection, closing transmission channel";
pub(crate) const NOT_ACTIVE: &str = "421 4.3.2 Service not active";
/// U: facts 1.7 names only the code.
pub(crate) const TIMED_OUT: &str = "421 4.4.1 Connection timed out";

pub(crate) const SENDER_INVALID: &str = "550 5.1.7 Invalid address";
/// U: Exchange Server's text for a recipient; the facts have only the sender's.
pub(crate) const RECIPIENT_INVALID: &str = "501 5.1.3 Invalid address";
pub(crate) const USER_UNKNOWN: &str = "550 5.1.1 User unknown";
/// U: RFC 6531 section 3.5 with its code.
pub(crate) const NEEDS_SMTPUTF8: &str = "553 5.6.7 Address requires SMTPUTF8";
pub(crate) const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients";
pub(crate) const SIZE_EXCEEDED: &str = "552 5.3.4 Message size exceeds fixed maximum message size";
pub(crate) const RATE_EXCEEDED: &str =
    "421 4.4.2 Message submission rate for this client has exceeded the configured limit";
pub(crate) const CONCURRENCY_EXCEEDED: &str =
    "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.";
pub(crate) const QUOTA_EXCEEDED: &str =
    "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message";
pub(crate) const MAILBOX_FULL: &str = "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message";
/// U: the facts have only the code; what follows it is ours.
pub(crate) const TOO_LARGE: &str =
    "554 5.2.270 Message too large; the message exceeds the maximum send size of the mailbox";

/// The greeting (facts 1.2): date in UTC, then the session's id.
pub(crate) fn banner(now: WallTime, session_id: &str) -> String {
    format!("220 {GREETING_HOST} Microsoft ESMTP MAIL Service ready at {} [{session_id}]", now.rfc5322())
}

/// EHLO's list in Exchange's order: AUTH stands in STARTTLS's place once the session is encrypted (facts 1.2).
pub(crate) fn ehlo(client: IpAddr, secure: bool) -> String {
    let changing = if secure { "AUTH LOGIN XOAUTH2" } else { "STARTTLS" };
    format!(
        "250-{GREETING_HOST} Hello [{client}]\r\n\
         250-SIZE {ADVERTISED_SIZE}\r\n\
         250-PIPELINING\r\n\
         250-DSN\r\n\
         250-ENHANCEDSTATUSCODES\r\n\
         250-{changing}\r\n\
         250-8BITMIME\r\n\
         250-BINARYMIME\r\n\
         250-CHUNKING\r\n\
         250 SMTPUTF8"
    )
}

/// HELO's one line.
pub(crate) fn helo(client: IpAddr) -> String {
    format!("250 {GREETING_HOST} Hello [{client}]")
}

/// An error with the front end's suffix: name, time and the banner's session id (facts 1.2).
pub(crate) fn stamped(text: &str, now: WallTime, session_id: &str) -> String {
    format!("{text} [{FRONT_END} {} {session_id}]", now.rfc3339())
}

/// An error of the mailbox server, after the final dot.
pub(crate) fn from_back_end(text: &str) -> String {
    format!("{text} [Hostname={BACK_END}]")
}

/// `500 5.3.3` with the verb as it was given (facts 1.2).
pub(crate) fn unrecognized(verb: &str) -> String {
    format!("500 5.3.3 Unrecognized command '{verb}'")
}

/// MAIL without AUTH; after a failed AUTH the text embeds its error (facts 1.5).
pub(crate) fn not_authenticated(last_error: Option<&str>) -> String {
    match last_error {
        Some(error) => format!("{NOT_AUTHENTICATED} Error: {error}"),
        None => NOT_AUTHENTICATED.to_owned(),
    }
}

/// The final reply: the message's own Message-ID, no queue id (facts 1.4).
pub(crate) fn accepted(message_id: &str) -> String {
    format!("250 2.0.0 OK {message_id} [Hostname={BACK_END}]")
}

/// `SendAsDenied` with the shape of Exchange's diagnostics; the numbers in them mean nothing (facts 1.6).
pub(crate) fn send_as_denied(login: &str, from: &str) -> String {
    from_back_end(&format!(
        "554 5.2.252 SendAsDenied; {login} not allowed to send as {from}; \
         STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; \
         Failed to process message due to a permanent exception with message \
         [BeginDiagnosticData]Cannot submit message. 0.00000:00000000[EndDiagnosticData]"
    ))
}
