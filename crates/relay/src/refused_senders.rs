//! Senders of whom upstream takes no message (`SendAsDenied` and its kin): told once each, and shown by `status` until a message of
//! theirs goes out. Only in memory: after a restart the next try tells them anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clock::WallTime;
use mail::Diagnostic;

/// Senders remembered; whoever comes beyond pushes the others out and they are told again.
const MAX_REMEMBERED: usize = 1000;

/// The refused senders of one lane.
#[derive(Debug, Default)]
pub(crate) struct RefusedSenders(Mutex<HashMap<String, RefusedSender>>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedSender {
    /// Its reverse-path.
    pub(crate) sender: String,
    /// What upstream said last.
    pub(crate) diagnostic: Diagnostic,
    /// When it was refused first.
    pub(crate) since: WallTime,
}

impl RefusedSenders {
    /// A message of `sender` was refused. Whether that is news: the first time, or for another reason than before.
    pub(crate) fn refuse(&self, sender: &str, diagnostic: &Diagnostic, now: WallTime) -> bool {
        let mut senders = self.lock();
        if senders.len() >= MAX_REMEMBERED && !senders.contains_key(sender) {
            senders.clear();
        }
        let before = senders.get(sender);
        let news = before.is_none_or(|before| before.diagnostic.enhanced != diagnostic.enhanced);
        let since = before.map_or(now, |before| before.since);
        let refused = RefusedSender { sender: sender.to_owned(), diagnostic: diagnostic.clone(), since };
        senders.insert(sender.to_owned(), refused);
        news
    }

    /// A message of `sender` was taken.
    pub(crate) fn accept(&self, sender: &str) {
        self.lock().remove(sender);
    }

    /// All of them, who is refused longest first.
    pub(crate) fn list(&self) -> Vec<RefusedSender> {
        let mut senders: Vec<_> = self.lock().values().cloned().collect();
        senders.sort_by(|one, other| one.since.cmp(&other.since).then_with(|| one.sender.cmp(&other.sender)));
        senders
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, RefusedSender>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EnhancedCode;

    #[test]
    fn each_reason_is_news_once_until_a_message_goes_out() {
        let senders = RefusedSenders::default();
        let at = WallTime::from_unix_millis;
        let denied = Diagnostic { enhanced: EnhancedCode::parse("5.2.252"), ..Diagnostic::local("SendAsDenied") };
        let policy = Diagnostic { enhanced: EnhancedCode::parse("5.7.1"), ..Diagnostic::local("policy") };
        assert!(senders.refuse("erp@contoso.com", &denied, at(1)));
        assert!(!senders.refuse("erp@contoso.com", &denied, at(2)));
        assert!(senders.refuse("erp@contoso.com", &policy, at(3)));
        assert!(senders.refuse("crm@contoso.com", &denied, at(4)));
        let listed: Vec<_> = senders.list().into_iter().map(|refused| (refused.sender, refused.since)).collect();
        assert_eq!(listed, [("erp@contoso.com".to_owned(), at(1)), ("crm@contoso.com".to_owned(), at(4))]);
        senders.accept("erp@contoso.com");
        assert_eq!(senders.list().len(), 1);
        assert!(senders.refuse("erp@contoso.com", &denied, at(5)));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let senders = RefusedSenders::default();
        for number in 0..MAX_REMEMBERED + 10 {
            senders.refuse(&number.to_string(), &Diagnostic::local("no"), WallTime::default());
        }
        assert!(senders.list().len() <= MAX_REMEMBERED);
    }
}
