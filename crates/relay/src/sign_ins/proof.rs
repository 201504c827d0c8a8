//! Whether upstream takes a sign-in, and for which XOAUTH2 user. Pure; asking is the caller's.
//!
//! Whose name a shared mailbox wants is disputed (facts 4.5): its own, or that of the user who signed in. So both are tried,
//! its own first, and what was taken is remembered.

use forwarder::{Trouble, TroubleKind, Unproven};
use mail::Scope;
use wire::Reply;

use super::words::Try;

/// What came of all tries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Upstream takes it for this user.
    Proven(String),
    /// It does not, or could not be asked.
    Not {
        /// What happened.
        text: String,
        /// What to do.
        advice: String,
    },
}

/// The users to try, in order.
pub(super) fn users(login: &str, account: Option<&str>) -> Vec<String> {
    let other = account.filter(|account| !account.eq_ignore_ascii_case(login) && is_address(account));
    std::iter::once(login).chain(other).map(str::to_owned).collect()
}

/// What stands in an XOAUTH2 response must not end a field of it early.
fn is_address(account: &str) -> bool {
    mail::Mailbox::parse(account.as_bytes()).is_ok()
}

/// One try. A 4yz says neither yes nor no.
pub(super) fn tried(user: &str, answer: Result<Reply, Unproven>) -> Try {
    let user = user.to_owned();
    match answer {
        Ok(reply) => {
            let is_answered = reply.is_positive() || reply.code() >= 500;
            Try { user, is_taken: reply.is_positive(), is_answered, text: reply.to_string() }
        }
        Err(unproven) => Try { user, is_taken: false, is_answered: false, text: unproven.to_string() },
    }
}

/// Whether the next user is to be tried: only when upstream has said no to those before.
pub(super) fn is_next_worth_a_try(tries: &[Try]) -> bool {
    tries.iter().all(|tried| tried.is_answered && !tried.is_taken)
}

/// What the tries for the mailbox of `login` show.
pub(super) fn verdict(login: &str, tries: &[Try]) -> Verdict {
    if let Some(taken) = tries.iter().find(|tried| tried.is_taken) {
        return Verdict::Proven(taken.user.clone());
    }
    let told: Vec<_> = tries.iter().map(|tried| format!("as {}: {}", tried.user, tried.text)).collect();
    let is_refused = tries.iter().any(|tried| tried.is_answered);
    let what = if is_refused { "upstream does not take it" } else { "upstream could not be asked whether it takes it" };
    let text = format!("the sign-in is good, but {what}; {}", told.join("; "));
    let kind =
        if tries.iter().any(|tried| tried.is_answered) { TroubleKind::Refused } else { TroubleKind::Unreachable };
    // The opaque refusal says nothing of which of these it is.
    let advice = if kind == TroubleKind::Refused && tries.iter().any(|tried| tried.text.contains("5.7.3 ")) {
        format!(
            "sign in as {login} itself, or as a user with FullAccess to it, and not as an administrator; see that SMTP AUTH is on for \
             the mailbox (Set-CASMailbox {login} -SmtpClientAuthenticationDisabled $false); changes take up to two hours. Nothing \
             was stored; --unproven stores it all the same"
        )
    } else {
        let advice = Trouble { kind, scope: Scope::Mailbox, text: text.clone() }.advice();
        format!("{advice}. Nothing was stored; --unproven stores it all the same")
    };
    Verdict::Not { text, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(user: &str, text: &str) -> Try {
        Try { user: user.to_owned(), is_taken: false, is_answered: true, text: text.to_owned() }
    }

    #[test]
    fn both_users_are_tried_and_the_mailbox_first() {
        for (account, expected) in [
            (None, &["scanner@contoso.com"][..]),
            (Some("Scanner@Contoso.com"), &["scanner@contoso.com"]),
            (Some("anna@contoso.com"), &["scanner@contoso.com", "anna@contoso.com"]),
            (Some("a\u{1}auth=Bearer x"), &["scanner@contoso.com"]),
            (Some("Anna"), &["scanner@contoso.com"]),
        ] {
            assert_eq!(users("scanner@contoso.com", account), expected, "{account:?}");
        }
    }

    #[test]
    fn the_next_user_is_tried_only_after_a_no() {
        let reply = |code, text: &'static str| Ok(Reply::plain(code, vec![text.into()]));
        for (answer, is_worth) in [
            (reply(535, "5.7.3 Authentication unsuccessful"), true),
            (reply(432, "4.3.2 Concurrent connections limit exceeded"), false),
            (reply(235, "2.7.0 Authentication successful"), false),
        ] {
            let tried = tried("s@c.example", answer);
            assert_eq!(is_next_worth_a_try(std::slice::from_ref(&tried)), is_worth, "{tried:?}");
        }
        assert!(is_next_worth_a_try(&[]));
    }

    #[test]
    fn verdicts() {
        let opaque = refused("s@c.example", "535 5.7.3 Authentication unsuccessful [X]");
        let taken = Try { is_taken: true, user: "anna@c.example".to_owned(), ..opaque.clone() };
        assert_eq!(verdict("s@c.example", &[opaque.clone(), taken]), Verdict::Proven("anna@c.example".to_owned()));
        let advice = |tries: &[Try]| match verdict("s@c.example", tries) {
            Verdict::Not { advice, .. } => advice,
            Verdict::Proven(user) => panic!("{user}"),
        };
        assert!(advice(std::slice::from_ref(&opaque)).starts_with("sign in as s@c.example itself"));
        let off = refused(
            "s@c.example",
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
        );
        assert!(advice(&[off]).contains("Set-TransportConfig"));
        let silent = Try { is_answered: false, text: "cannot connect".to_owned(), ..opaque };
        assert!(advice(&[silent]).contains("firewall"));
    }
}
