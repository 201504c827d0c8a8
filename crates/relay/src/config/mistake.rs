//! What is wrong in the configuration, gathered so that one run shows all of it.

use std::cell::RefCell;
use std::fmt;

use serde_json::{Value as Json, json};

/// One mistake: where, which key, what is wrong and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line:column` or `environment variable NAME`.
    pub origin: String,
    /// The key, as in `tenant.contoso.client_id`; empty when the file itself is meant.
    pub key: String,
    /// What is wrong, and the remedy.
    pub text: String,
}

impl Mistake {
    /// A mistake of the file as a whole, or at a place in it where no key is.
    pub fn in_file(origin: &str, text: String) -> Self {
        Self { origin: origin.to_owned(), key: String::new(), text }
    }

    /// Line and column for sorting; the environment comes last.
    fn place(&self) -> (u32, u32) {
        let mut numbers = self.origin.rsplit(':');
        let column = numbers.next().and_then(|text| text.parse().ok());
        let line = numbers.next().and_then(|text| text.parse().ok());
        line.zip(column).unwrap_or((u32::MAX, 0))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, text } = self;
        if key.is_empty() { write!(f, "{origin}: {text}") } else { write!(f, "{origin}: {key}: {text}") }
    }
}

/// All mistakes of one run.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl From<Vec<Mistake>> for Mistakes {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self(RefCell::new(mistakes))
    }
}

impl Mistakes {
    /// Adds one.
    pub fn add(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// In the order of the file; what is wrong in two ways at one place is told twice, the same only once.
    fn sorted(&self) -> Vec<Mistake> {
        let mut mistakes = self.0.borrow().clone();
        mistakes.sort_by_key(Mistake::place);
        mistakes.dedup();
        mistakes
    }

    /// Each with its `origin`, `key` and `text`.
    pub fn json(&self) -> Json {
        let mistakes = self.sorted();
        mistakes
            .iter()
            .map(|Mistake { origin, key, text }| json!({ "origin": origin, "key": key, "text": text }))
            .collect()
    }
}

/// One a line, in the order of the file.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.sorted().iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}
