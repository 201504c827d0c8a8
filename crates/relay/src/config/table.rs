//! Reads one table of the merged configuration: takes keys one by one, turns them into values, and gathers what is
//! wrong, missing, unknown or not built yet.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::mistake::{Mistake, Mistakes};
use super::schema::{Key, nearest};
use super::value;

/// A table being read.
pub(crate) struct Table<'a> {
    path: String,
    origin: String,
    entries: Map<String, Value>,
    sections: &'a HashMap<String, String>,
    mistakes: &'a Mistakes,
}

/// A value that was there, with its place.
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) origin: String,
    pub(crate) key: String,
}

impl<'a> Table<'a> {
    /// The top level.
    pub(crate) fn root(value: Value, sections: &'a HashMap<String, String>, mistakes: &'a Mistakes) -> Self {
        let entries = match value.kind {
            ValueKind::Table(entries) => entries,
            _ => Map::new(),
        };
        Self { path: String::new(), origin: "configuration".to_owned(), entries, sections, mistakes }
    }

    /// Records a mistake of this table as a whole, or of a key that is not there.
    pub(crate) fn mistake(&self, key: &str, text: impl Into<String>) {
        self.mistakes.add(Mistake { origin: self.origin.clone(), key: self.key(key), text: text.into() });
    }

    /// Records a mistake of a value.
    pub(crate) fn wrong(&self, found: &Found, text: impl Into<String>) {
        self.mistakes.add(Mistake { origin: found.origin.clone(), key: found.key.clone(), text: text.into() });
    }

    fn key(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }

    fn take(&mut self, key: &str) -> Option<Found> {
        let value = self.entries.remove(key)?;
        let path = self.key(key);
        let section = || self.sections.get(&path).map(String::as_str);
        let origin = value.origin().or_else(section).or_else(|| origin_of(&value)).map(ToOwned::to_owned);
        Some(Found { origin: origin.unwrap_or_else(|| self.origin.clone()), key: path, value })
    }

    /// A table within this one, empty if it is not there.
    pub(crate) fn table(&mut self, key: &str) -> Self {
        let path = self.key(key);
        let found = self.take(key);
        let entries = match found {
            None => Map::new(),
            Some(Found { value: Value { kind: ValueKind::Table(entries), .. }, .. }) => entries,
            Some(found) => {
                self.wrong(&found, "must be a table");
                Map::new()
            }
        };
        let inner = || entries.values().find_map(origin_of);
        let origin = self.sections.get(&path).map(String::as_str).or_else(inner).unwrap_or(&self.origin).to_owned();
        Self { path, origin, entries, sections: self.sections, mistakes: self.mistakes }
    }

    /// Whether this key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether this key holds a table.
    pub(crate) fn is_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| matches!(value.kind, ValueKind::Table(_)))
    }

    /// The names in the table `key`, without reading it.
    pub(crate) fn names_in(&self, key: &str) -> Vec<String> {
        match self.entries.get(key).map(|value| &value.kind) {
            Some(ValueKind::Table(entries)) => entries.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Refuses whatever stands at `key`.
    pub(crate) fn reject(&mut self, key: &str, text: impl Into<String>) {
        if let Some(found) = self.take(key) {
            self.wrong(&found, text);
        }
    }

    /// The tables within this one by the administrator's names, in the order of the names.
    pub(crate) fn named_tables(&mut self) -> Vec<(String, Self)> {
        let mut names: Vec<_> = self.entries.keys().cloned().collect();
        names.sort();
        let mut tables = Vec::new();
        for name in names {
            let right = !name.is_empty()
                && name.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_');
            let table = self.table(&name);
            if right {
                tables.push((name, table));
            } else {
                table.mistake(
                    "",
                    "names are of lower-case letters, digits and _, so that the environment can reach them",
                );
            }
        }
        tables
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &str) -> Option<(String, Found)> {
        let found = self.take(key)?;
        if let ValueKind::String(text) = &found.value.kind {
            return Some((text.clone(), found));
        }
        self.wrong(&found, format!("must be a text in quotes, not {}", kind_name(&found.value)));
        None
    }

    /// A text that must be there.
    pub(crate) fn required(&mut self, key: &str) -> Option<(String, Found)> {
        if !self.has(key) {
            self.mistake(key, "is missing");
            return None;
        }
        self.text(key)
    }

    /// A text of a type that parses itself; `allowed` says what is right.
    pub(crate) fn parsed<T: FromStr>(&mut self, key: &str, allowed: &str) -> Option<T> {
        let (text, found) = self.text(key)?;
        text.parse().map_or_else(
            |_| {
                self.wrong(&found, format!("{text:?} is not {allowed}"));
                None
            },
            Some,
        )
    }

    /// A whole number within bounds. The environment gives it as text.
    pub(crate) fn number<T>(&mut self, key: &str, lowest: T, highest: T) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let found = self.take(key)?;
        let number = match &found.value.kind {
            ValueKind::I64(number) => Some(*number),
            ValueKind::String(text) if is_from_environment(&found) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        let right = number.filter(|number| (lowest..=highest).contains(number));
        if right.is_none() {
            self.wrong(&found, format!("must be a whole number from {lowest} to {highest}"));
        }
        right
    }

    /// A duration such as `"10m"`, within bounds.
    pub(crate) fn duration(&mut self, key: &str, lowest: Duration, highest: Duration) -> Option<Duration> {
        let (text, found) = self.text(key)?;
        let right = value::duration(&text).filter(|duration| (lowest..=highest).contains(duration));
        if right.is_none() {
            let bounds = format!("from {}s to {}s", lowest.as_secs(), highest.as_secs());
            self.wrong(&found, format!("{text:?} is not a duration such as \"5s\", \"10m\" or \"2h\" {bounds}"));
        }
        right
    }

    /// A size such as `"35 MiB"`, within bounds.
    pub(crate) fn size(&mut self, key: &str, lowest: u64, highest: u64) -> Option<u64> {
        let (text, found) = self.text(key)?;
        let right = value::size(&text).filter(|size| (lowest..=highest).contains(size));
        if right.is_none() {
            let bounds = format!("from {} to {}", value::octets(lowest), value::octets(highest));
            self.wrong(&found, format!("{text:?} is not a size such as \"35 MiB\" {bounds}"));
        }
        right
    }

    /// A list of texts of a type that parses itself. The environment gives it comma-separated.
    pub(crate) fn list<T: FromStr>(&mut self, key: &str, allowed: &str) -> Option<Vec<T>> {
        let found = self.take(key)?;
        let texts: Option<Vec<String>> = match &found.value.kind {
            ValueKind::Array(items) => items.iter().map(text_of).collect(),
            ValueKind::String(text) if is_from_environment(&found) => {
                Some(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
            }
            _ => None,
        };
        let Some(texts) = texts else {
            self.wrong(&found, format!("must be a list of texts, each {allowed}"));
            return None;
        };
        let mut items = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(item) => items.push(item),
                Err(_) => self.wrong(&found, format!("{text:?} is not {allowed}")),
            }
        }
        Some(items)
    }

    /// One of a few words of which only some are built.
    pub(crate) fn choice<T: Copy>(&mut self, key: &str, built: &[(&str, T)], later: &[&str]) -> Option<T> {
        let (text, found) = self.text(key)?;
        if let Some((_, choice)) = built.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let words = built.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        if later.contains(&text.as_str()) {
            self.wrong(&found, format!("{text:?} is not built yet in this release; it knows {words}"));
        } else {
            self.wrong(&found, format!("{text:?} is not one of {words}"));
        }
        None
    }

    /// Ends the reading: whatever is left is unknown or not built yet.
    pub(crate) fn finish(mut self, keys: &[Key]) {
        let mut left: Vec<_> = self.entries.keys().cloned().collect();
        left.sort();
        for name in left {
            let Some(found) = self.take(&name) else { continue };
            let text = match keys.iter().find(|key| key.name == name) {
                Some(key) if !key.built => "is not built yet in this release; remove it".to_owned(),
                _ => match nearest(keys, &name) {
                    Some(meant) => format!("is not a known key; did you mean {meant}?"),
                    None => "is not a known key".to_owned(),
                },
            };
            self.wrong(&found, text);
        }
    }
}

/// A table's own origin is lost in the merge; that of the first value in it serves.
fn origin_of(value: &Value) -> Option<&str> {
    value.origin().or_else(|| match &value.kind {
        ValueKind::Table(entries) => entries.values().find_map(origin_of),
        _ => None,
    })
}

fn is_from_environment(found: &Found) -> bool {
    found.origin.starts_with("environment variable ")
}

fn text_of(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn kind_name(value: &Value) -> &'static str {
    match &value.kind {
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a fraction",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
        ValueKind::String(_) => "a text",
        ValueKind::Nil => "nothing",
    }
}
