//! A digest: one plain message that lists many failures, so that a whole queue that fails does not become as many reports.
//! The caller bounds the list and says how many are not on it.

use crate::envelope::BodyType;
use crate::outcome::Diagnostic;
use crate::path::ReversePath;
use crate::recipient::Recipient;

use super::text::{MAX_TEXT, Prose};
use super::{Content, Letter, Report, notice};
use crate::readable::{cut, one_line};

/// Recipients named of one message.
const MAX_NAMED: usize = 10;

/// A list of failures.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    /// Who reports to whom.
    pub letter: Letter<'a>,
    /// As many as are to be listed.
    pub entries: &'a [DigestEntry<'a>],
    /// How many more there were.
    pub beyond: u64,
}

/// One failure.
#[derive(Clone, Copy, Debug)]
pub struct DigestEntry<'a> {
    /// When, in UTC.
    pub time: &'a str,
    /// The message's id in the queue.
    pub queue_id: &'a str,
    /// Who sent it.
    pub sender: &'a ReversePath,
    /// Who does not get it.
    pub recipients: &'a [Recipient],
    /// Its Message-ID, of which may be made whatever it is.
    pub message_id: &'a str,
    /// Why.
    pub reply: &'a Diagnostic,
}

impl Digest<'_> {
    /// The report.
    pub fn report(&self) -> Report {
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX).saturating_add(self.beyond);
        let messages = if count == 1 { "1 message was".to_owned() } else { format!("{count} messages were") };
        let (encoding, text) = self.prose(&messages).encoded();
        let mut header = self.letter.fields(&format!("{messages} not delivered"));
        // It answers no message, unlike a notice (RFC 3834 section 5).
        header.text("Auto-Submitted", "auto-generated");
        let media_type = "text/plain; charset=utf-8; format=fixed";
        self.letter.report(header, media_type, encoding, Content::Whole(text), BodyType::SevenBit)
    }

    fn prose(&self, messages: &str) -> Prose {
        let mut prose = Prose::default();
        prose.paragraph(&format!(
            "{messages} not delivered. Those with the same answer below have one cause, and most often an administrator \
             of Exchange can put it right."
        ));
        for (at, entry) in self.entries.iter().enumerate() {
            entry.write(&mut prose, at + 1);
        }
        if self.beyond > 0 {
            let others = if self.beyond == 1 { "1 more is".to_owned() } else { format!("{} more are", self.beyond) };
            let hostname = self.letter.hostname;
            prose.paragraph(&format!("{others} not listed here; the relay's history on {hostname} has all of them."));
        }
        notice::signature(&mut prose, &self.letter);
        prose
    }
}

impl DigestEntry<'_> {
    fn write(&self, prose: &mut Prose, number: usize) {
        let sender = match self.sender {
            ReversePath::Mailbox(sender) => sender.to_string(),
            ReversePath::Null => "none".to_owned(),
        };
        let named = self.recipients.iter().take(MAX_NAMED).map(Recipient::to_string).collect::<Vec<_>>().join(", ");
        let unnamed = self.recipients.len().saturating_sub(MAX_NAMED);
        let recipients = if unnamed > 0 { format!("{named} and {unnamed} more") } else { named };
        let said = if self.reply.code.is_some() { "Answer:      " } else { "Cause:       " };
        prose.beside(&format!("{:<4}", format!("{number}. ")), &notice::time(self.time));
        for (label, value) in [
            ("Queue id:    ", self.queue_id),
            ("Sender:      ", &sender),
            ("Recipients:  ", &recipients),
            ("Message-ID:  ", self.message_id),
            (said, &self.reply.to_string()),
        ] {
            if !one_line(value).is_empty() {
                // Recipients have a bound of their own.
                prose.beside(&format!("    {label}"), &cut(value, 2 * MAX_TEXT));
            }
        }
        prose.gap();
    }
}
