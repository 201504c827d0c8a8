//! What a status code means for whoever wrote the mail, in plain words, where the caller has none that fit better. The
//! meanings are those of RFC 3463; what Exchange means by its own codes is the caller's knowledge.

use crate::outcome::{Diagnostic, EnhancedCode};

use super::Kind;

/// Half a sentence that says why, and a sentence that says who must do what.
pub(super) struct Reason {
    pub(super) why: &'static str,
    pub(super) remedy: Option<&'static str>,
}

const ASK: Option<&str> = Some("Please show this report to the administrator of your mail system.");
const CHECK: Option<&str> = Some("Please check the address for typing mistakes, then send the message again.");

/// The reason in `reply`.
pub(super) fn reason(kind: Kind, reply: &Diagnostic) -> Reason {
    if kind == Kind::Relayed {
        return Reason { why: "the mail server took it", remedy: None };
    }
    let known = reply.enhanced.and_then(|code| by_code(code, kind));
    known.unwrap_or_else(|| by_kind(kind, reply))
}

fn by_code(code: EnhancedCode, kind: Kind) -> Option<Reason> {
    // What was refused for now and given up at last was not refused for its reason alone.
    if kind == Kind::Failed && code.class == 4 {
        return None;
    }
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
        (4, 7) => return Some(by_time()),
        (5, 3) => ("it has too many recipients", Some("Please send it again to fewer recipients at a time.")),
        (7, _) => ("the mail server does not permit it", ASK),
        _ => return None,
    };
    Some(Reason { why, remedy })
}

fn by_kind(kind: Kind, reply: &Diagnostic) -> Reason {
    let gave_up = reply.code.is_some_and(|code| code / 100 == 4);
    let (why, remedy) = match (kind, reply.code) {
        (Kind::Failed, Some(_)) if gave_up => return by_time(),
        (Kind::Failed, Some(_)) => ("the mail server refused it", ASK),
        (Kind::Failed, None) => ("it could not be handed to the mail server", ASK),
        (_, Some(_)) => ("the mail server cannot take it now", None),
        (_, None) => ("it could not yet be handed to the mail server", None),
    };
    Reason { why, remedy }
}

fn by_time() -> Reason {
    Reason {
        why: "it was tried again and again, and the time allowed for that is over",
        remedy: Some("Please send the message again, or reach the recipient by other means."),
    }
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
            (Kind::Failed, "- -", "it could not be handed to the mail server"),
            (Kind::Delayed, "451 -", "the mail server cannot take it now"),
            (Kind::Delayed, "- -", "it could not yet be handed to the mail server"),
        ] {
            let (code, enhanced) = text.split_once(' ').unwrap();
            let enhanced = EnhancedCode::parse(enhanced);
            let reply = Diagnostic { code: code.parse().ok(), enhanced, text: String::new() };
            assert_eq!(reason(kind, &reply).why, why, "{text}");
        }
    }
}
