//! The machine's part of a report: message/delivery-status (RFC 3464), a block about the message and one for each
//! recipient.
//!
//! Always 7-bit. Addresses beyond ASCII are of type `utf-8` in the form that RFC 6533 section 3 has for that, and other text
//! borrows its escapes; message/global-delivery-status would say the same to fewer readers.

use crate::outcome::{Diagnostic, EnhancedCode};
use crate::path::ForwardPath;

use super::text::{Fields, unicode_address};
use super::{Fate, Kind, Notice};

/// Of what was tried until its time was over: delivery time expired (RFC 3463 section 3.5).
const EXPIRED: EnhancedCode = EnhancedCode::new(5, 4, 7);

/// The blocks.
pub(super) fn fields(notice: &Notice<'_>) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.text("Reporting-MTA", &format!("dns;{}", notice.letter.hostname));
    if let Some(id) = &notice.envelope.envelope_id {
        fields.text("Original-Envelope-Id", &id.decoded());
    }
    fields.text("Arrival-Date", notice.arrival);
    for fate in notice.fates {
        fields.end_block();
        recipient(&mut fields, notice.kind, fate);
    }
    fields.into_bytes()
}

fn recipient(fields: &mut Fields, kind: Kind, fate: &Fate<'_>) {
    if let Some(original) = &fate.recipient.original {
        fields.exact("Original-Recipient", &original.decoded());
    }
    fields.exact("Final-Recipient", &address(&fate.recipient.path));
    fields.text("Action", action(kind));
    fields.text("Status", &status(kind, fate.reply).to_string());
    if let Some(remote_mta) = fate.remote_mta {
        fields.text("Remote-MTA", &format!("dns;{remote_mta}"));
    }
    // What no server said is no diagnostic of SMTP (RFC 3464 section 2.3.6).
    let kind_of_diagnostic = if fate.reply.code.is_some() { "smtp" } else { "X-xoauth2-relay" };
    fields.text("Diagnostic-Code", &format!("{kind_of_diagnostic};{}", fate.reply));
    fields.text("Last-Attempt-Date", fate.last_attempt.unwrap_or_default());
    if kind == Kind::Delayed {
        fields.text("Will-Retry-Until", fate.will_retry_until.unwrap_or_default());
    }
}

fn address(path: &ForwardPath) -> String {
    if path.is_ascii() { format!("rfc822;{path}") } else { format!("utf-8;{}", unicode_address(&path.to_string())) }
}

fn action(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Delayed => "delayed",
        Kind::Relayed => "relayed",
    }
}

/// The reply's status, in the class that the action needs (RFC 3464 section 2.3.4).
fn status(kind: Kind, reply: &Diagnostic) -> EnhancedCode {
    match (kind, reply.enhanced, class(reply)) {
        (Kind::Failed, Some(code), Some(5)) | (Kind::Relayed, Some(code), Some(2)) => code,
        // It failed because it was tried for too long; why each try failed stands in the diagnostic.
        (Kind::Failed, _, Some(4)) => EXPIRED,
        (Kind::Failed, ..) => EnhancedCode::new(5, 0, 0),
        // What is held may have been refused for good and yet be tried again.
        (Kind::Delayed, Some(code), Some(4 | 5)) => EnhancedCode { class: 4, ..code },
        (Kind::Delayed, ..) => EnhancedCode::new(4, 0, 0),
        (Kind::Relayed, ..) => EnhancedCode::new(2, 0, 0),
    }
}

/// The class of a reply's enhanced code, or else of its code.
pub(super) fn class(reply: &Diagnostic) -> Option<u8> {
    reply.enhanced.map(|code| code.class).or_else(|| u8::try_from(reply.code? / 100).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_class_of_its_action() {
        for (kind, code, enhanced, wanted) in [
            (Kind::Failed, Some(550), "5.1.1", "5.1.1"),
            (Kind::Failed, Some(554), "5.2.252", "5.2.252"),
            (Kind::Failed, Some(452), "4.2.2", "5.4.7"),
            (Kind::Failed, Some(451), "", "5.4.7"),
            (Kind::Failed, Some(550), "", "5.0.0"),
            (Kind::Failed, Some(250), "2.0.0", "5.0.0"),
            (Kind::Failed, None, "", "5.0.0"),
            (Kind::Delayed, Some(452), "4.2.2", "4.2.2"),
            (Kind::Delayed, Some(550), "5.7.60", "4.7.60"),
            (Kind::Delayed, Some(451), "", "4.0.0"),
            (Kind::Delayed, None, "", "4.0.0"),
            (Kind::Relayed, Some(250), "2.6.0", "2.6.0"),
            (Kind::Relayed, Some(250), "", "2.0.0"),
        ] {
            let reply = Diagnostic { code, enhanced: EnhancedCode::parse(enhanced), text: String::new() };
            assert_eq!(status(kind, &reply).to_string(), wanted, "{kind:?} {reply}");
        }
    }

    #[test]
    fn addresses_have_the_type_they_need() {
        for (path, wanted) in [
            ("bob@x.example", "rfc822;bob@x.example"),
            ("postmaster", "rfc822;postmaster"),
            ("\"a  b\"@x.example", "rfc822;\"a  b\"@x.example"),
            ("müller@bücher.example", "utf-8;m\\x{FC}ller@b\\x{FC}cher.example"),
        ] {
            assert_eq!(address(&ForwardPath::parse(path.as_bytes()).unwrap()), wanted);
        }
    }
}
