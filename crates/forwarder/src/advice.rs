//! What an administrator does about trouble of a lane: one table, by what Exchange said (facts sections 1.5, 1.6 and 5.4). Pure;
//! it decides nothing: texts may change, and then the advice is only less particular.

use mail::{Diagnostic, EnhancedCode};

use crate::health::{Trouble, TroubleKind};

/// What stands in Exchange's reply, and what to do about it. Rows are read from the top; the first that fits decides.
const ROWS: [(&[&str], &str); 13] = [
    (
        &["disabled for the Tenant"],
        "switch SMTP AUTH on for this mailbox (Set-CASMailbox ADDRESS -SmtpClientAuthenticationDisabled $false) or for the whole tenant \
         (Set-TransportConfig -SmtpClientAuthenticationDisabled $false)",
    ),
    (
        &["disabled for the Mailbox"],
        "switch SMTP AUTH on for this mailbox: Set-CASMailbox ADDRESS -SmtpClientAuthenticationDisabled $false",
    ),
    (
        &["security defaults", "did not meet the criteria", "organization configuration doesn't allow"],
        "a policy of the tenant blocks this login: look at the sign-in log of Entra for the policy's name, and except the application or \
         its location from it",
    ),
    (
        &["federated STS"],
        "the tenant's own sign-in server did not answer as it should: nothing to do if it passes, else look at it",
    ),
    (
        &["SubmissionQuotaExceeded", "Submission quota exceeded", " 5.1.90 "],
        "the mailbox has used up its recipients of 24 hours (10,000): it goes on as the day slides; send from more mailboxes, or less",
    ),
    (
        &["mailbox full", "Mailbox full", " 5.2.2 "],
        "empty the mailbox: usually Sent Items, where Exchange keeps a copy of each message \
         (Set-Mailbox ADDRESS -MessageCopyForSMTPClientSubmissionEnabled $false stops that)",
    ),
    (
        &["OutboundSpamException", " 5.1.8 ", " 5.7.501 ", " 5.7.502 ", " 5.7.503 ", " 5.7.800 "],
        "Microsoft has blocked the mailbox for outbound spam: find what sent it, then unblock it in the Defender portal under Restricted \
         entities",
    ),
    (
        &[" 5.7.232 ", " 5.7.233 "],
        "the tenant has used up its external recipients of 24 hours: it goes on as the day slides; send less, or buy licences",
    ),
    (
        &[" 5.7.705 ", " 5.7.708 "],
        "Microsoft limits the whole tenant for what was sent from it: find the source, then open a support request",
    ),
    (
        &[" 5.7.750 "],
        "mail was sent from a domain that the tenant does not own: add the domain to the tenant, or send from one that it has",
    ),
    (
        &["5.7.30 Basic authentication", "basic authentication is disabled"],
        "this is never a matter of the relay's login by OAuth2: please report it",
    ),
    (
        &[" 5.7.3 ", " 5.7.57 "],
        "check in this order: `address` or `login` in the configuration is spelled exactly as the mailbox's own address; the service \
         principal has the Object ID of the enterprise application, not of the registration; it may use \
         this mailbox, by App RBAC or by SMTP.SendAsApp with FullAccess and not by both; where a user signed in for it, that was the \
         mailbox's own user or one with FullAccess; changes take up to two hours",
    ),
    (
        &["535 "],
        "check the service principal, its permission on this mailbox and SMTP AUTH of the mailbox; changes take up to two hours",
    ),
];

/// What an administrator does about a sender of whom upstream takes no message, in one line.
pub fn sender_advice(diagnostic: &Diagnostic) -> &'static str {
    let fits = |codes: &[(u8, u16, u16)]| {
        diagnostic.enhanced.is_some_and(|given| codes.iter().any(|&(a, b, c)| EnhancedCode::new(a, b, c) == given))
    };
    if diagnostic.text.contains("SendAsDenied") || fits(&[(5, 2, 252), (5, 7, 60), (5, 7, 62), (5, 6, 241)]) {
        "let the software send as the mailbox itself, or let the mailbox send as that address (Add-RecipientPermission SENDER \
         -AccessRights SendAs -Trustee SERVICE_PRINCIPAL); permissions take up to two hours"
    } else {
        "look at Exchange's words: a policy of the tenant refuses this message, and it is tried on in case that changes"
    }
}

impl Trouble {
    /// What an administrator does about it, in one line.
    pub fn advice(&self) -> &'static str {
        let particular = || {
            let fits = |fragments: &[&str]| fragments.iter().any(|fragment| self.text.contains(fragment));
            ROWS.iter().find(|(fragments, _)| fits(fragments)).map(|(_, advice)| *advice)
        };
        match self.kind {
            TroubleKind::Unreachable => {
                "nothing to do if it passes; else check DNS, route and firewall from this machine to that host, and Microsoft's service \
                 health"
            }
            TroubleKind::NoToken => "mend the token of its tenant; mail goes out by itself then",
            TroubleKind::Throttled => {
                "nothing to do if it passes; else find what else sends as this login, or lower its messages_per_minute"
            }
            TroubleKind::Refused => particular().unwrap_or(
                "look at Exchange's words; if they name nothing that you can mend, open a support request with them",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Scope;

    fn advice(kind: TroubleKind, reply: &str) -> &'static str {
        let text = format!("Exchange takes nothing from scanner@contoso.com: {reply}");
        Trouble { kind, scope: Scope::Mailbox, text }.advice()
    }

    #[test]
    fn advice_fits_what_was_said() {
        for (reply, part) in [
            (
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit",
                "Set-TransportConfig",
            ),
            (
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit",
                "for this mailbox: ",
            ),
            ("535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be", "sign-in log"),
            ("535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", "service principal"),
            ("535 5.7.3 Authentication unsuccessful [X]", "Object ID"),
            ("530 5.7.57 Client not authenticated to send mail.", "Object ID"),
            ("554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException", "empty the mailbox"),
            ("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", "10,000"),
            ("550 5.1.8 Access denied, bad outbound sender", "Restricted entities"),
            ("550 5.7.705 Access denied", "whole tenant"),
            ("554 9.9.9 never heard of", "Exchange's words"),
        ] {
            assert!(
                advice(TroubleKind::Refused, reply).contains(part),
                "{reply}: {}",
                advice(TroubleKind::Refused, reply)
            );
        }
    }

    #[test]
    fn senders_have_advice_of_their_own() {
        let denied = Diagnostic::local("SendAsDenied; a not allowed to send as b");
        assert!(sender_advice(&denied).contains("-AccessRights SendAs"));
        let policy = Diagnostic { enhanced: EnhancedCode::parse("5.7.1"), ..Diagnostic::local("no") };
        assert!(sender_advice(&policy).contains("policy"));
    }

    #[test]
    fn what_is_no_refusal_has_its_own_advice() {
        assert!(advice(TroubleKind::Throttled, "432 4.3.2 mailbox full").contains("messages_per_minute"));
        assert!(advice(TroubleKind::Unreachable, "5.7.3").contains("DNS"));
    }
}
