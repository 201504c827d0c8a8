//! What a status code means for whoever wrote the mail, in plain words, where the caller has none that fit better. The
//! meanings are those of RFC 3463; what Exchange means by its own codes is the caller's knowledge.

use crate::outcome::{Diagnostic, EnhancedCode};

use super::Kind;
use super::status::class;

/// Half a sentence that says why, and a sentence that says who must do what.
pub(super) struct Reason {
    pub(super) why: &'static str,
    pub(super) remedy: Option<&'static str>,
}

const ASK: Option<&str> = Some("Please show this report to the administrator of your mail system.");
const CHECK: Option<&str> = Some("Please check the address for typing mistakes, then send the message again.");

/// The reason in `reply`. There is nothing to do about mail that is still tried, unless the caller knows of something.
pub(super) fn reason(kind: Kind, reply: &Diagnostic) -> Reason {
    match kind {
        Kind::Relayed => Reason { why: "the mail server took it", remedy: None },
        Kind::Delayed => Reason { remedy: None, ..reply.enhanced.and_then(by_code).unwrap_or_else(|| not_yet(reply)) },
        // What was refused for now and given up at last was not refused for its reason alone.
        Kind::Failed if class(reply) == Some(4) => Reason {
            why: "it was tried again and again, and the time allowed for that is over",
            remedy: Some("Please send the message again, or reach the recipient by other means."),
        },
        Kind::Failed => reply.enhanced.and_then(by_code).unwrap_or_else(|| never(reply)),
    }
}

fn by_code(code: EnhancedCode) -> Option<Reason> {
    let (why, remedy) = match (code.subject, code.detail) {
        (1, 1 | 10) => ("this address does not exist", CHECK),
        (1, 2 | 3 | 6) => ("the address is not valid or no longer in use", CHECK),
        (2, 1) => ("the mailbox of the recipient is switched off", ASK),
        (2, 2) => (
            "the mailbox of the recipient is full",
            Some("Please tell the recipient by other means, and send the message again when there is room."),
        ),
        (2, 3) | (3, 4) => (
            "the message is too large",
            Some("Please send it again with fewer or smaller attachments, or with a link to the files."),
        ),
        (5, 3) => ("it has too many recipients", Some("Please send it again to fewer recipients at a time.")),
        (7, _) => ("the mail server does not permit it", ASK),
        _ => return None,
    };
    Some(Reason { why, remedy })
}

fn not_yet(reply: &Diagnostic) -> Reason {
    let why = match reply.code {
        Some(_) => "the mail server cannot take it now",
        None => "it could not yet be handed to the mail server",
    };
    Reason { why, remedy: None }
}

fn never(reply: &Diagnostic) -> Reason {
    let why = match reply.code {
        Some(_) => "the mail server refused it",
        None => "it could not be handed to the mail server",
    };
    Reason { why, remedy: ASK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_a_meaning_for_people() {
        for (kind, text, why) in [
            (Kind::Failed, "550 5.1.1", "this address does not exist"),
            (Kind::Failed, "552 5.2.2", "the mailbox of the recipient is full"),
            (Kind::Delayed, "452 4.2.2", "the mailbox of the recipient is full"),
            (Kind::Failed, "552 5.2.3", "the message is too large"),
            (Kind::Failed, "552 5.3.4", "the message is too large"),
            (Kind::Failed, "550 5.7.60", "the mail server does not permit it"),
            (Kind::Failed, "550 5.9.9", "the mail server refused it"),
            (Kind::Failed, "554 5.2.252", "the mail server refused it"),
            (Kind::Failed, "452 4.2.2", "it was tried again and again, and the time allowed for that is over"),
            (Kind::Failed, "- 4.4.1", "it was tried again and again, and the time allowed for that is over"),
            (Kind::Failed, "- -", "it could not be handed to the mail server"),
            (Kind::Delayed, "451 -", "the mail server cannot take it now"),
            (Kind::Delayed, "- -", "it could not yet be handed to the mail server"),
        ] {
            let (code, enhanced) = text.split_once(' ').unwrap();
            let enhanced = EnhancedCode::parse(enhanced);
            let reply = Diagnostic { code: code.parse().ok(), enhanced, text: String::new() };
            let found = reason(kind, &reply);
            assert_eq!((found.why, found.remedy.is_some()), (why, kind == Kind::Failed), "{text}");
        }
    }
}
