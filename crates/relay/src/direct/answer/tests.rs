//! Every reply of facts sections 1.5 and 1.6, at the stage where Exchange says it, and what the client of a direct listener hears.

use forwarder::{LiveTold, NoTurn, Stage, Trouble, TroubleKind};
use mail::Scope;
use proptest::prelude::*;
use wire::{Reply, ReplyParser};

use super::{another_way, depends, no_lane, no_turn, reply, stopping};

fn parsed(line: &str) -> Reply {
    ReplyParser::default().push(format!("{line}\r\n").as_bytes()).unwrap().1.unwrap()
}

fn heard(stage: Stage, line: &str) -> String {
    reply(&LiveTold::Upstream(stage, parsed(line))).to_string()
}

const AUTHENTICATED: &str = "451 4.3.0 Exchange takes nothing from the relay's mailbox now: ";
const NOT_NOW: &str = "451 4.3.0 Exchange does not take it now: ";

#[test]
fn what_is_about_the_message_is_exchanges_own_word() {
    use Stage::{Data, EndOfData, Mail, Rcpt};
    for (stage, line) in [
        (Rcpt, "250 2.1.5 Recipient OK"),
        (Rcpt, "251 2.1.5 User not local; will forward"),
        (EndOfData, "250 2.0.0 OK <1@contoso.com> [Hostname=SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM]"),
        (EndOfData, "250 2.6.0 <1@contoso.com> [InternalId=1, Hostname=x] Queued mail for delivery"),
        // Pace, in Exchange's words: whoever waits tries again.
        (
            EndOfData,
            "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.",
        ),
        (EndOfData, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"),
        (Mail, "421 4.4.2 Message submission rate for this client has exceeded the configured limit"),
        (Rcpt, "452 4.5.3 Too many recipients"),
        (Rcpt, "452 4.5.3 Too many recipients (AS780090)"),
        (Rcpt, "451 4.7.500 Access denied, please try again later (AS843)"),
        (EndOfData, "451 4.7.699 Access denied, please try again later (AS843)"),
        (Mail, "451 4.7.0 Temporary server error. Please try again later. PRX4 [x]"),
        (Data, "451 4.7.0 Temporary server error. Please try again later. PRX4 [x]"),
        (Mail, "421 4.3.2 Service not active"),
        (Data, "421 4.7.0 Too many errors on this connection, closing transmission channel"),
        (EndOfData, "421 4.4.1 Connection timed out"),
        // The message: its sender, its size, its header, its recipients.
        (
            EndOfData,
            "554 5.2.252 SendAsDenied; scanner@contoso.com not allowed to send as x@contoso.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
        ),
        (EndOfData, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed"),
        (Mail, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
        (EndOfData, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
        (Mail, "550 5.7.62 Sender is not the account"),
        (EndOfData, "554 5.6.241 From header mismatch"),
        (EndOfData, "554 5.2.270 Message too large"),
        (Mail, "552 5.3.4 Message size exceeds fixed maximum message size"),
        (EndOfData, "552 5.3.4 Message size exceeds fixed maximum message size"),
        (EndOfData, "550 5.1.20 Multiple From addresses are not allowed without Sender address"),
        (EndOfData, "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; bare line feeds"),
        (EndOfData, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant"),
        (EndOfData, "550 5.7.703 Your message can't be delivered because one or more recipients are blocked"),
        (Mail, "550 5.1.7 Invalid address"),
        (Rcpt, "550 5.1.1 User unknown"),
        (Rcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"),
        (Rcpt, "550 5.5.105 External sending is not supported for High Volume Email accounts"),
        // Without an enhanced code, and of a server that is not Exchange.
        (Rcpt, "550 no such user"),
        (EndOfData, "552 too large"),
    ] {
        assert_eq!(heard(stage, line), line, "{stage:?}");
    }
}

#[test]
fn trouble_of_login_mailbox_and_tenant_is_ours() {
    use Stage::{Data, EndOfData, Mail, Rcpt};
    for (stage, line) in [
        (Mail, "530 5.7.57 Client not authenticated to send mail."),
        (Mail, "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM [x]"),
        (Mail, "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, x"),
        (Mail, "535 5.7.3 Authentication unsuccessful [x]"),
        (Data, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."),
        (Rcpt, "530 5.7.1 Authentication required"),
        (Mail, "550 5.7.30 Basic authentication is not supported for Client Submission."),
        (EndOfData, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"),
        (
            EndOfData,
            "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
        ),
        (EndOfData, "554 5.2.2 Mailbox full. Visit https://aka.ms/mailboxfull"),
        (EndOfData, "550 5.2.2 Submission quota exceeded"),
        (
            EndOfData,
            "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is not None.",
        ),
        (EndOfData, "550 5.1.8 Access denied, bad outbound sender"),
        (EndOfData, "550 5.1.90 Your message can't be sent because you've reached your daily limit"),
        (EndOfData, "550 5.7.232 Your message can't be sent because your trial tenant has exceeded its daily limit"),
        (EndOfData, "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit"),
        (Rcpt, "550 5.7.236 onmicrosoft.com limit"),
        (EndOfData, "550 5.7.501 Access denied, spam abuse detected"),
        (EndOfData, "550 5.7.502 Access denied, banned sender"),
        (EndOfData, "550 5.7.503 Access denied, banned sender"),
        (EndOfData, "550 5.7.800 banned"),
        (EndOfData, "550 5.7.705 Access denied, tenant has exceeded threshold"),
        (EndOfData, "550 5.7.708 Access denied, traffic not accepted from this IP"),
        (EndOfData, "550 5.7.750 Client blocked from sending from unregistered domains"),
        (Mail, "550 5.2.240 Not an HVE user"),
    ] {
        assert_eq!(heard(stage, line), format!("{AUTHENTICATED}{line}"), "{stage:?}");
    }
}

#[test]
fn what_is_said_of_our_dialog_is_not_said_of_the_clients() {
    use Stage::{Data, EndOfData, Mail, Rcpt};
    for (stage, line) in [
        (Mail, "503 5.5.1 Bad sequence of commands"),
        (Rcpt, "500 5.3.3 Unrecognized command 'RCPT'"),
        (Mail, "502 5.3.3 Command not implemented"),
        (Data, "504 5.7.4 Unrecognized authentication type"),
        (Mail, "454 4.7.0 Temporary authentication failure"),
        (Mail, "451 5.7.3 STARTTLS is required to send mail [x]"),
        // Out of its place.
        (Rcpt, "354 Go ahead"),
        (Data, "250 2.0.0 OK"),
        (EndOfData, "354 Go ahead"),
    ] {
        let heard = heard(stage, line);
        let is_ours = [NOT_NOW, AUTHENTICATED].iter().any(|start| heard == format!("{start}{line}"));
        assert!(is_ours, "{stage:?} {line}: {heard}");
    }
}

#[test]
fn our_own_reasons() {
    use std::time::Duration;
    let trouble = |kind, text: &str| Trouble { kind, scope: Scope::Mailbox, text: text.to_owned() };
    let refused = trouble(TroubleKind::Refused, "smtp.x refused the login a@b: 535 5.7.3 Authentication unsuccessful");
    for (said, expected) in [
        (
            no_turn(&NoTurn::Busy),
            "451 4.4.5 Not now, all connections of the mailbox to Exchange are in use; try again later",
        ),
        (
            no_turn(&NoTurn::Minute(Duration::from_millis(41_200))),
            "451 4.4.5 Not now, the mailbox has sent as many messages as Exchange takes in a minute; try again in 42 s",
        ),
        (
            no_turn(&NoTurn::Day(None)),
            "451 4.4.5 Not now, the mailbox has used up its recipients of 24 hours; try again later",
        ),
        (
            no_turn(&NoTurn::Trouble(refused.clone())),
            "451 4.3.0 The relay cannot send now: smtp.x refused the login a@b: 535 5.7.3 Authentication unsuccessful",
        ),
        (
            reply(&LiveTold::Trouble(refused)),
            "451 4.3.0 The relay cannot send now: smtp.x refused the login a@b: 535 5.7.3 Authentication unsuccessful",
        ),
        (
            reply(&LiveTold::Trouble(trouble(TroubleKind::NoToken, "no token: x"))),
            "451 4.3.0 The relay cannot send now: no token: x",
        ),
        (
            reply(&LiveTold::Trouble(trouble(TroubleKind::Unreachable, "cannot connect"))),
            "451 4.4.1 The relay cannot send now: cannot connect",
        ),
        (
            reply(&LiveTold::Trouble(trouble(TroubleKind::Throttled, "slow down"))),
            "451 4.4.5 The relay cannot send now: slow down",
        ),
        (
            reply(&LiveTold::Lost("cut".to_owned())),
            "451 4.4.2 The connection to Exchange was lost, nothing was sent: cut",
        ),
        (
            reply(&LiveTold::Uncertain("cut".to_owned())),
            "451 4.4.2 Exchange did not answer behind the end of the message and may have taken it: cut",
        ),
        (reply(&LiveTold::MessageFull), "452 4.5.3 Too many recipients for one message, send the others in another"),
        (another_way(), "452 4.5.3 Goes another way than the recipients before it, send it in a message of its own"),
    ] {
        assert_eq!(said.to_string(), expected);
    }
    assert_eq!((stopping().code(), no_lane().code(), depends().code()), (421, 451, 550));
}

fn stage() -> impl Strategy<Value = Stage> {
    proptest::sample::select(vec![Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData])
}

proptest! {
    /// Whatever upstream says: a client hears 2xx only where upstream took something, never a word about a login, and
    /// never that it may go on.
    #[test]
    fn no_reply_misleads(
        stage in stage(),
        code in 200u16..600,
        enhanced in proptest::option::of((0u16..900, 0u16..900)),
        text in "[ -~]{0,80}",
    ) {
        let enhanced = enhanced.filter(|_| matches!(code / 100, 2 | 4 | 5)).map(|(subject, detail)| format!("{}.{subject}.{detail} ", code / 100));
        let said = parsed(&format!("{code} {}{text}", enhanced.unwrap_or_default()));
        let heard = reply(&LiveTold::Upstream(stage, said.clone()));
        let may_take = said.is_positive() && matches!(stage, Stage::Rcpt | Stage::EndOfData);
        prop_assert_eq!(heard.is_positive(), may_take);
        prop_assert!(matches!(heard.code() / 100, 2 | 4 | 5));
        prop_assert!(!matches!(heard.code(), 334 | 354 | 454 | 504 | 530 | 534 | 535 | 538), "{}", heard);
        prop_assert!(heard == said || heard.code() == 451, "{} became {}", said, heard);
    }
}
