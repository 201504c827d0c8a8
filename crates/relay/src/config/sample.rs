//! Right values at random, for the property tests: whatever the schema allows, the sections of one configuration going
//! together.

use serde_json::{Map, Value as Json};

use super::schema::{Fallback, Key};

/// A source of chance that a failing test can repeat.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From `low` to `high`, the ends often.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        match self.below(8) {
            0 => low,
            1 => high,
            _ => low + self.next() % (high - low).max(1),
        }
    }

    pub(crate) fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let bound = items.len() as u64;
        &items[usize::try_from(self.below(bound)).unwrap()]
    }

    pub(crate) fn domain(&mut self) -> String {
        format!(
            "{}.{}",
            self.one(&["contoso", "fabrikam", "old-host", "a"]),
            self.one(&["com", "local", "example.org"])
        )
    }

    /// What is required of a table and some of the rest.
    pub(crate) fn table(&mut self, keys: &[Key]) -> Json {
        let mut table = Map::new();
        for key in keys {
            if matches!(key.fallback, Fallback::Required) || self.below(2) == 0 {
                table.insert(key.name.to_owned(), (key.sample)(self));
            }
        }
        Json::Object(table)
    }
}
