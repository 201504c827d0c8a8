//! Replies on the wire, row by row as in facts 1.5 and 1.6, with the few of 1.7. Where the facts give several texts or
//! stages, each is a row; where they give only a code, the words are ours and the row says so.

use super::{Channel, Class, Effect, Row};
use crate::Stage;

const fn reply(
    stage: Stage,
    name: &'static str,
    class: Class,
    facts: &'static str,
    text: &'static str,
    meaning: &'static str,
) -> Row {
    Row::at(stage, name, class, Effect::Reply(text), meaning).facts(facts)
}

pub(super) const ROWS: &[Row] = &[
    reply(
        Stage::Auth,
        "auth-unsuccessful",
        Class::RefreshToken,
        "1.5",
        "535 5.7.3 Authentication unsuccessful [..]",
        "anything: a wrong or expired token, the wrong audience, user and token that do not belong together, no \
         grant",
    ),
    reply(
        Stage::Auth,
        "smtp-auth-disabled-tenant",
        Class::TenantConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit \
         https://aka.ms/smtp_auth_disabled for more information. [..]",
        "the tenant's SMTP AUTH switch is off; hits OAuth as well",
    ),
    reply(
        Stage::Auth,
        "smtp-auth-disabled-mailbox",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit \
         https://aka.ms/smtp_auth_disabled for more information. [..]",
        "the mailbox's SMTP AUTH switch is off",
    ),
    reply(
        Stage::Auth,
        "basic-auth-disabled",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [..]",
        "a password was used where basic authentication is off",
    ),
    reply(
        Stage::Auth,
        "security-defaults",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults \
         policy. Contact your administrator.",
        "security defaults block legacy authentication",
    ),
    reply(
        Stage::Auth,
        "criteria-not-met",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated \
         successfully. Contact your administrator. [..]",
        "Conditional Access or an authentication policy blocks",
    ),
    reply(
        Stage::Auth,
        "credentials-incorrect",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
        "a wrong password, or MFA without an app password",
    ),
    reply(
        Stage::Auth,
        "sts-unreachable",
        Class::Transient,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, federated STS service was unreachable.",
        "a fault of the on-premises federation: try again",
    ),
    reply(
        Stage::Auth,
        "sts-without-https",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, the federated STS URL does not support HTTPS.",
        "the on-premises federation is set up wrongly",
    ),
    reply(
        Stage::Auth,
        "organization-disallows",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.139 Authentication unsuccessful, the organization configuration doesn't allow this \
         authentication request.",
        "security defaults or an authentication policy of the tenant",
    )
    .channel(Channel::HighVolume),
    reply(
        Stage::Auth,
        "basic-auth-removed",
        Class::ConfigurationAtAuth,
        "1.5",
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        "announced for the day on which basic authentication ends",
    ),
    reply(
        Stage::Mail,
        "not-authenticated",
        Class::Protocol,
        "1.5",
        "530 5.7.57 Client not authenticated to send mail. [..]",
        "MAIL without a successful AUTH",
    ),
    reply(
        Stage::Mail,
        "not-authenticated-older",
        Class::Protocol,
        "1.5",
        "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM [..]",
        "the same in older words",
    ),
    reply(
        Stage::Mail,
        "not-authenticated-embedding",
        Class::ConfigurationAtAuth,
        "1.5",
        "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, \
         SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more \
         information. [..]",
        "MAIL after a failed AUTH, whose error it embeds",
    ),
    reply(
        Stage::Auth,
        "mechanism-unrecognized",
        Class::Protocol,
        "1.5",
        "504 5.7.4 Unrecognized authentication type [..]",
        "a mechanism that is not offered; seen now and then for XOAUTH2 too",
    ),
    reply(
        Stage::Mail,
        "starttls-required",
        Class::Protocol,
        "1.5",
        "451 5.7.3 STARTTLS is required to send mail [..]",
        "MAIL before STARTTLS",
    ),
    reply(
        Stage::Auth,
        "proxy-error-at-auth",
        Class::Transient,
        "1.5",
        "451 4.7.0 Temporary server error. Please try again later. PRX4 [..]",
        "the mailbox server was not found; seen for months on bad mailboxes",
    ),
    reply(
        Stage::Mail,
        "proxy-error-at-mail",
        Class::Transient,
        "1.5",
        "451 4.7.0 Temporary server error. Please try again later. PRX4 [..]",
        "the mailbox server was not found",
    ),
    reply(
        Stage::Auth,
        "temporary-auth-failure",
        Class::Transient,
        "1.5",
        "454 4.7.0 Temporary authentication failure",
        "a passing fault behind AUTH",
    ),
    reply(
        Stage::Connect,
        "service-not-active",
        Class::Transient,
        "1.5",
        "421 4.3.2 Service not active",
        "the front end is starting, stopping or full",
    ),
    reply(
        Stage::Auth,
        "too-many-errors",
        Class::Reconnect,
        "1.5",
        "421 4.7.0 Too many errors on this connection, closing transmission channel [..]",
        "after repeated protocol errors",
    )
    .unproven(),
    reply(
        Stage::Auth,
        "hve-malformed-121",
        Class::Protocol,
        "1.5",
        "501 5.5.121 Invalid XOAUTH2 argument or data",
        "a malformed XOAUTH2 argument or its data",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-malformed-122",
        Class::Protocol,
        "1.5",
        "501 5.5.122 Invalid XOAUTH2 argument or data",
        "a malformed XOAUTH2 argument or its data",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-malformed-123",
        Class::Protocol,
        "1.5",
        "501 5.5.123 Invalid XOAUTH2 argument or data",
        "a malformed XOAUTH2 argument or its data",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-malformed-124",
        Class::Protocol,
        "1.5",
        "501 5.5.124 Invalid XOAUTH2 argument or data",
        "a malformed XOAUTH2 argument or its data",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-malformed-125",
        Class::Protocol,
        "1.5",
        "501 5.5.125 Invalid XOAUTH2 argument or data",
        "a malformed XOAUTH2 argument or its data",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-malformed-126",
        Class::Protocol,
        "1.5",
        "501 5.5.126 Invalid XOAUTH2 argument or data",
        "a malformed XOAUTH2 argument or its data",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-token-expires-soon-older",
        Class::RefreshToken,
        "1.5",
        "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon",
        "the token has too little life left; refresh it 10 minutes before its end or earlier",
    )
    .channel(Channel::HighVolume),
    reply(
        Stage::Auth,
        "hve-token-expires-soon",
        Class::RefreshToken,
        "1.5",
        "535 5.7.142 Token will expire soon",
        "the token has too little life left",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-token-expired",
        Class::RefreshToken,
        "1.5",
        "535 5.7.143 Token has expired",
        "the token has expired",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-api-permissions",
        Class::ConfigurationAtAuth,
        "1.5",
        "535 5.7.144 Invalid API permissions",
        "the application lacks its Entra permission",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Auth,
        "hve-app-not-allowed",
        Class::ConfigurationAtAuth,
        "1.5",
        "550 5.7.240 Application is not on the account's allowed list",
        "the account does not allow the application",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Mail,
        "hve-other-sender",
        Class::SenderRefused,
        "1.5",
        "550 5.7.62 Sender is not the authenticated account",
        "MAIL FROM is not the account",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::EndOfData,
        "hve-other-header-from",
        Class::SenderRefused,
        "1.5",
        "550 5.6.241 From header does not match the account",
        "the From header field is not the account",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Mail,
        "hve-not-an-account",
        Class::ConfigurationAtAuth,
        "1.5",
        "550 5.2.240 Not a High Volume Email account",
        "the user is no High Volume Email account",
    )
    .channel(Channel::HighVolume)
    .own_words(),
    reply(
        Stage::Rcpt,
        "hve-external-recipient",
        Class::PermanentRecipient,
        "1.5",
        "550 5.5.105 External sending is not supported for High Volume Email accounts",
        "a recipient outside the tenant",
    )
    .channel(Channel::HighVolume),
    reply(
        Stage::EndOfData,
        "concurrent-connections",
        Class::Throttled,
        "1.6",
        "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more \
         information. [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "more than three connections send at a time",
    ),
    reply(
        Stage::EndOfData,
        "sender-thread-limit",
        Class::Throttled,
        "1.6",
        "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
        "the same in older words",
    ),
    reply(
        Stage::Mail,
        "submission-rate",
        Class::Throttled,
        "1.6",
        "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
        "more than 30 messages a minute; the connection is closed",
    ),
    reply(
        Stage::EndOfData,
        "recipient-quota",
        Class::QuotaUsedUp,
        "1.6",
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message \
         [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "10,000 recipients in 24 hours are used up",
    ),
    reply(
        Stage::EndOfData,
        "mailbox-full",
        Class::MailboxFull,
        "1.6",
        "554 5.2.2 mailbox full; \
         STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to \
         process message [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "the sending mailbox is full (Sent Items)",
    ),
    reply(
        Stage::EndOfData,
        "mailbox-full-newer",
        Class::MailboxFull,
        "1.6",
        "554 5.2.2 Mailbox full. Visit https://aka.ms/mailboxfull for more information. \
         [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "the same in newer words",
    ),
    reply(
        Stage::EndOfData,
        "send-as-denied",
        Class::SenderRefused,
        "1.6",
        "554 5.2.252 SendAsDenied; scanner@contoso.com not allowed to send as boss@contoso.com; \
         STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process \
         message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. \
         0.00000:00000000[EndDiagnosticData] [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "the From is not permitted",
    ),
    reply(
        Stage::EndOfData,
        "send-as-denied-older",
        Class::SenderRefused,
        "1.6",
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to \
         process message due to a permanent exception with message Cannot submit message. \
         [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "the same in older words",
    ),
    reply(
        Stage::Mail,
        "send-as-refused-at-mail",
        Class::SenderRefused,
        "1.6",
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        "the same in the documented words, at MAIL",
    ),
    reply(
        Stage::EndOfData,
        "send-as-refused",
        Class::SenderRefused,
        "1.6",
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        "the same in the documented words, behind the dot",
    ),
    reply(
        Stage::EndOfData,
        "outbound-spam",
        Class::MailboxBlocked,
        "1.6",
        "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a \
         permanent exception with message WASCL UserAction verdict is not None. Actual verdict is RefuseQuota, \
         ShowTierUpgrade. [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "the account is flagged; clears by itself or by unblocking",
    ),
    reply(
        Stage::EndOfData,
        "too-large-after-conversion",
        Class::PermanentMessage,
        "1.6",
        "554 5.2.270 Message too large; the message exceeds the maximum send size of the mailbox \
         [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "over the mailbox's limit after content conversion",
    )
    .own_words(),
    reply(
        Stage::Mail,
        "size-exceeded-at-mail",
        Class::PermanentMessage,
        "1.6",
        "552 5.3.4 Message size exceeds fixed maximum message size [..]",
        "SIZE= over 150 MiB or a connector limit",
    )
    .unproven(),
    reply(
        Stage::EndOfData,
        "size-exceeded",
        Class::PermanentMessage,
        "1.6",
        "552 5.3.4 Message size exceeds fixed maximum message size \
         [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]",
        "over 150 MiB or a connector limit",
    )
    .unproven(),
    reply(
        Stage::EndOfData,
        "bad-outbound-sender",
        Class::MailboxBlocked,
        "1.6",
        "550 5.1.8 Access denied, bad outbound sender",
        "the mailbox is on the list of restricted entities (spam)",
    ),
    reply(
        Stage::EndOfData,
        "daily-recipient-limit",
        Class::QuotaUsedUp,
        "1.6",
        "550 5.1.90 Daily recipient limit exceeded",
        "the recipient rate limit of the mailbox",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "submission-quota-bounce",
        Class::QuotaUsedUp,
        "1.6",
        "554 5.2.2 Submission quota exceeded",
        "a recipient or message rate limit; the code is that of a full mailbox",
    )
    .channel(Channel::Bounce),
    reply(
        Stage::Rcpt,
        "too-many-recipients",
        Class::SplitAndResend,
        "1.6",
        "452 4.5.3 Too many recipients [..]",
        "more than 200 recipients of one domain in a message",
    ),
    reply(
        Stage::Rcpt,
        "too-many-recipients-mx",
        Class::Throttled,
        "1.6",
        "452 4.5.3 Too many recipients (AS780090)",
        "throttling by address of the client, with the same code",
    )
    .channel(Channel::Mx),
    reply(
        Stage::EndOfData,
        "multiple-from",
        Class::PermanentMessage,
        "1.6",
        "550 5.1.20 Multiple From addresses are not allowed without Sender address",
        "a fault of the header",
    )
    .channel(Channel::Bounce),
    reply(
        Stage::EndOfData,
        "bare-line-feeds",
        Class::PermanentMessage,
        "1.6",
        "550 5.6.11 Message contains bare line feeds",
        "the next hop does not take bare LF",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "trial-tenant-external-limit",
        Class::TenantQuotaUsedUp,
        "1.6",
        "550 5.7.232 Tenant external recipient rate limit of a trial exceeded",
        "the external recipient rate limit of a trial tenant",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "tenant-external-limit",
        Class::TenantQuotaUsedUp,
        "1.6",
        "550 5.7.233 Tenant external recipient rate limit exceeded",
        "the external recipient rate limit of the tenant",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "onmicrosoft-sender-limit",
        Class::QuotaUsedUp,
        "1.6",
        "550 5.7.236 External recipient limit of onmicrosoft.com senders exceeded",
        "an onmicrosoft.com sender over 100 external recipients in 24 hours",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "banned-sender-501",
        Class::MailboxBlocked,
        "1.6",
        "550 5.7.501 Access denied, banned sender",
        "the sender is banned for spam",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "banned-sender-502",
        Class::MailboxBlocked,
        "1.6",
        "550 5.7.502 Access denied, banned sender",
        "the sender is banned for spam",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "banned-sender-503",
        Class::MailboxBlocked,
        "1.6",
        "550 5.7.503 Access denied, banned sender",
        "the sender is banned for spam",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "banned-sender-800",
        Class::MailboxBlocked,
        "1.6",
        "550 5.7.800 Access denied, banned sender",
        "the sender is banned for spam",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "recipient-on-block-list",
        Class::PermanentMessage,
        "1.6",
        "550 5.7.703 Recipient is on the Tenant Allow/Block List",
        "a recipient is on the tenant's block list; the whole message is refused",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::EndOfData,
        "tenant-over-threshold",
        Class::TenantBlocked,
        "1.6",
        "550 5.7.705 Access denied, tenant has exceeded threshold",
        "the tenant sent too much that looks bad",
    )
    .own_words(),
    reply(
        Stage::EndOfData,
        "low-reputation",
        Class::TenantBlocked,
        "1.6",
        "550 5.7.708 Access denied, traffic not accepted from this IP",
        "an address of low reputation (trial tenants)",
    )
    .own_words(),
    reply(
        Stage::Rcpt,
        "access-denied-4-7-500",
        Class::Transient,
        "1.6",
        "451 4.7.500 Access denied, please try again later (AS500)",
        "grey-listing or throttling by address; the codes go from 4.7.500 to 4.7.699",
    )
    .channel(Channel::Mx),
    reply(
        Stage::Rcpt,
        "access-denied-4-7-699",
        Class::Transient,
        "1.6",
        "451 4.7.699 Access denied, please try again later (AS699)",
        "grey-listing or throttling by address; the codes go from 4.7.500 to 4.7.699",
    )
    .channel(Channel::Mx),
    reply(
        Stage::EndOfData,
        "unregistered-domain",
        Class::TenantBlocked,
        "1.6",
        "550 5.7.750 Client blocked from sending from unregistered domains",
        "mail from domains that are not registered",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::Mail,
        "invalid-sender",
        Class::PermanentMessage,
        "1.6",
        "550 5.1.7 Invalid address [..]",
        "the reverse-path has no good syntax",
    ),
    reply(
        Stage::Rcpt,
        "user-unknown",
        Class::PermanentRecipient,
        "1.6",
        "550 5.1.1 User unknown [..]",
        "there is no such recipient",
    ),
    reply(
        Stage::Rcpt,
        "recipient-not-found",
        Class::PermanentRecipient,
        "1.6",
        "550 5.1.10 Recipient not found",
        "an unknown recipient within the tenant",
    )
    .channel(Channel::Bounce)
    .own_words(),
    reply(
        Stage::Mail,
        "session-timeout",
        Class::Reconnect,
        "1.7",
        "421 4.4.1 Connection timed out [..]",
        "the session was idle or open for too long",
    )
    .unproven()
    .own_words(),
    reply(
        Stage::Mail,
        "session-timeout-4-4-2",
        Class::Reconnect,
        "1.7",
        "421 4.4.2 Timeout waiting for client input [..]",
        "the same with the other code",
    )
    .unproven()
    .own_words(),
    reply(
        Stage::Mail,
        "smtputf8-stumble",
        Class::Protocol,
        "1.7",
        "502 5.3.3 Command not implemented",
        "one report, when SMTPUTF8 was used right after AUTH",
    )
    .own_words(),
    reply(
        Stage::EndOfData,
        "invalid-from-header",
        Class::PermanentMessage,
        "1.7",
        "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant",
        "From is missing or invalid; told on the side of the recipient",
    )
    .channel(Channel::Bounce)
    .own_words(),
];
