//! Two credentials while one takes the other's place: the new one is tried, and the old one goes on until the new one has
//! brought a token. Pure: time is an argument.
//!
//! What a credential is, and how it is tried, is no concern of it.

use std::sync::Arc;
use std::time::Duration;

use crate::schedule::{Deadline, Now};

/// The first wait after a new credential was refused: Entra ID takes some minutes to know one that was just uploaded.
const FIRST_WAIT: Duration = Duration::from_mins(1);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Something that can be told from another of its kind.
pub(crate) trait Material {
    /// Whether both are the same credential.
    fn is_same(&self, other: &Self) -> bool;
}

/// What has brought a token, and what did not.
pub(crate) struct Rotation<M> {
    proven: Option<Arc<M>>,
    refused: Option<Refused<M>>,
    /// A new one that somebody tries now.
    tried: Option<Arc<M>>,
}

struct Refused<M> {
    material: Arc<M>,
    again: Deadline,
    wait: Duration,
}

/// What to ask with.
pub(crate) enum Choice<M> {
    /// What brought the last token, or the only one that there is.
    Usual(Arc<M>),
    /// One that has brought none yet, while another has.
    New(Arc<M>),
}

impl<M> Default for Rotation<M> {
    fn default() -> Self {
        Self { proven: None, refused: None, tried: None }
    }
}

impl<M: Material> Rotation<M> {
    /// What brought the last token.
    pub(crate) fn proven(&self) -> Option<&Arc<M>> {
        self.proven.as_ref()
    }

    /// What stands there, if it is another than the one in use, or than the one that was refused while none is, and is to be
    /// tried now. Whoever is given it tries it, and says how that ended by [`Rotation::prove`], [`Rotation::refuse`] or
    /// [`Rotation::give_up`]; nobody else does meanwhile.
    pub(crate) fn claim(&mut self, standing: M, now: Now) -> Option<Arc<M>> {
        let refused = self.refused.as_ref().map(|refused| &refused.material);
        let is_other = self.proven.as_ref().or(refused).is_some_and(|before| !before.is_same(&standing));
        if !is_other || self.waits(&standing, now) {
            return None;
        }
        let standing = Arc::new(standing);
        self.tried = Some(Arc::clone(&standing));
        Some(standing)
    }

    fn waits(&self, standing: &M, now: Now) -> bool {
        let is_refused = |refused: &Refused<M>| refused.material.is_same(standing) && !refused.again.passed(now);
        self.refused.as_ref().is_some_and(is_refused)
            || self.tried.as_ref().is_some_and(|tried| tried.is_same(standing))
    }

    /// What to ask with while `standing` stands there and nothing new was claimed.
    pub(crate) fn choose(&mut self, standing: M, now: Now) -> Choice<M> {
        let Some(proven) = self.proven.clone() else {
            return Choice::Usual(Arc::new(standing));
        };
        self.claim(standing, now).map_or(Choice::Usual(proven), Choice::New)
    }

    /// The asker of a new one learned nothing of it.
    pub(crate) fn give_up(&mut self, material: &M) {
        self.tried = self.tried.take().filter(|tried| !tried.is_same(material));
    }

    /// `material` brought a token; what was in use before is dropped.
    pub(crate) fn prove(&mut self, material: Arc<M>) {
        self.give_up(&material);
        if self.refused.as_ref().is_some_and(|refused| refused.material.is_same(&material)) {
            self.refused = None;
        }
        self.proven = Some(material);
    }

    /// A new one was refused, or failed in a way that may not be its own; the one in use, if there is any, goes on. Says whether
    /// it is the first time.
    pub(crate) fn refuse(&mut self, material: Arc<M>, now: Now) -> bool {
        self.give_up(&material);
        let before = self.refused.take().filter(|refused| refused.material.is_same(&material));
        let is_first = before.is_none();
        let wait = before.map_or(FIRST_WAIT, |refused| (refused.wait * 2).min(LONGEST_WAIT));
        self.refused = Some(Refused { material, again: Deadline::after(now, wait), wait });
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::{Monotonic, WallTime};

    #[derive(Debug, PartialEq)]
    struct Word(&'static str);

    impl Material for Word {
        fn is_same(&self, other: &Self) -> bool {
            self == other
        }
    }

    fn at(seconds: u64) -> Now {
        let elapsed = Duration::from_secs(seconds);
        Now { wall: WallTime::from_unix_millis(0) + elapsed, monotonic: Monotonic::from_start(elapsed) }
    }

    /// What is asked with, and whether it is new.
    /// Whether somebody is to try it now.
    fn is_news(rotation: &mut Rotation<Word>, standing: &'static str, now: u64) -> bool {
        let claimed = rotation.claim(Word(standing), at(now));
        claimed.is_some_and(|word| {
            rotation.give_up(&word);
            true
        })
    }

    fn chosen(rotation: &mut Rotation<Word>, standing: &'static str, now: u64) -> (&'static str, bool) {
        match rotation.choose(Word(standing), at(now)) {
            Choice::Usual(word) => (word.0, false),
            Choice::New(word) => {
                rotation.give_up(&word);
                (word.0, true)
            }
        }
    }

    #[test]
    fn the_first_is_no_news_until_it_is_proven() {
        let mut rotation = Rotation::default();
        assert_eq!(chosen(&mut rotation, "a", 0), ("a", false));
        assert!(!is_news(&mut rotation, "a", 0));
        assert_eq!(chosen(&mut rotation, "b", 0), ("b", false));
        // While none is proven, one that was refused is asked with again, and another is news.
        rotation.refuse(Arc::new(Word("a")), at(0));
        assert_eq!(chosen(&mut rotation, "a", 0), ("a", false));
        assert!(!is_news(&mut rotation, "a", 0) && is_news(&mut rotation, "b", 0));
        rotation.prove(Arc::new(Word("b")));
        assert!(!is_news(&mut rotation, "b", 0) && is_news(&mut rotation, "c", 0));
    }

    #[test]
    fn a_refused_one_waits_ever_longer_while_the_old_goes_on() {
        let mut rotation = Rotation::default();
        rotation.prove(Arc::new(Word("old")));
        assert_eq!(chosen(&mut rotation, "new", 0), ("new", true));
        assert!(rotation.refuse(Arc::new(Word("new")), at(0)));
        for (now, expected) in [(59, ("old", false)), (60, ("new", true))] {
            assert_eq!(chosen(&mut rotation, "new", now), expected);
            assert_eq!(is_news(&mut rotation, "new", now), expected.1);
        }
        assert!(!rotation.refuse(Arc::new(Word("new")), at(60)));
        assert_eq!(chosen(&mut rotation, "new", 179), ("old", false));
        assert_eq!(chosen(&mut rotation, "new", 180), ("new", true));
        // Another one does not wait for the refused one's turn.
        assert_eq!(chosen(&mut rotation, "newer", 61), ("newer", true));
        // Put back as it was.
        assert_eq!(chosen(&mut rotation, "old", 61), ("old", false));
        for _ in 0..20 {
            rotation.refuse(Arc::new(Word("new")), at(1000));
        }
        assert_eq!(chosen(&mut rotation, "new", 4599), ("old", false));
        assert_eq!(chosen(&mut rotation, "new", 4600), ("new", true));
        rotation.prove(Arc::new(Word("new")));
        assert_eq!(rotation.proven().unwrap().0, "new");
        assert_eq!(chosen(&mut rotation, "new", 4600), ("new", false));
        // And back: the old one is news now.
        assert_eq!(chosen(&mut rotation, "old", 4600), ("old", true));
    }

    #[test]
    fn a_new_one_is_tried_by_one_at_a_time() {
        let mut rotation = Rotation::default();
        rotation.prove(Arc::new(Word("old")));
        assert!(matches!(rotation.choose(Word("new"), at(0)), Choice::New(_)));
        assert!(!is_news(&mut rotation, "new", 0));
        assert!(matches!(rotation.choose(Word("new"), at(0)), Choice::Usual(old) if old.0 == "old"));
        rotation.give_up(&Word("new"));
        assert!(is_news(&mut rotation, "new", 0));
        assert!(matches!(rotation.choose(Word("new"), at(0)), Choice::New(_)));
        rotation.prove(Arc::new(Word("new")));
        assert!(!is_news(&mut rotation, "new", 0) && is_news(&mut rotation, "old", 0));
    }
}
