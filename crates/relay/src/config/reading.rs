//! Reading one merged configuration: takes keys one by one, and gathers where each value came from and what is wrong,
//! missing, unknown or not built yet. It knows the schema's shape and none of its names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use config::{Map, Value as Raw, ValueKind};

use super::layers::VARIABLE;
use super::mistake::{Mistake, Mistakes};
use super::schema::{Fallback, Key, Section, nearest};
use super::value::Value;

/// Where each value that was given came from, by its path: `file:line:column` or `environment variable NAME`.
pub(crate) type Origins = BTreeMap<String, String>;

/// What one reading gathers.
pub(crate) struct Reading<'a> {
    /// The file, for what stands nowhere in it.
    file: &'a str,
    pub(crate) mistakes: &'a Mistakes,
    /// Where each table of the file starts: merging keeps the origins of values only.
    sections: &'a HashMap<String, String>,
    /// Whether what this release cannot do is refused. Only tests of the whole contract let it pass.
    refuse_later: bool,
    origins: RefCell<Origins>,
    /// Paths that were given and are wrong: what depends on them cannot be judged.
    wrong: RefCell<BTreeSet<String>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(
        file: &'a str,
        mistakes: &'a Mistakes,
        sections: &'a HashMap<String, String>,
        refuse_later: bool,
    ) -> Self {
        Self { file, mistakes, sections, refuse_later, origins: RefCell::default(), wrong: RefCell::default() }
    }

    /// The sources, once all is read.
    pub(crate) fn into_origins(self) -> Origins {
        self.origins.into_inner()
    }

    /// Records that what stands at `paths` does not go together; told at the first. Nothing is recorded when one of them
    /// is wrong already, since its mistake may be the cause.
    pub(crate) fn relation(&self, paths: &[&str], text: impl Into<String>) {
        let wrong = self.wrong.borrow();
        if paths.iter().any(|path| wrong.contains(*path)) {
            return;
        }
        let Some(path) = paths.first() else { return };
        let origin = self.origin(path);
        self.mistakes.add(Mistake { origin, key: (*path).to_owned(), text: text.into() });
    }

    /// Whether something stands at `path`.
    pub(crate) fn is_given(&self, path: &str) -> bool {
        self.origins.borrow().contains_key(path)
    }

    /// Notes where the value at `path` came from that was read elsewhere.
    pub(crate) fn note_origin(&self, path: String, origin: String) {
        self.origins.borrow_mut().insert(path, origin);
    }

    /// Notes that what stands at `path` is wrong, for a mistake told elsewhere.
    pub(crate) fn mark_wrong(&self, path: &str) {
        self.wrong.borrow_mut().insert(path.to_owned());
    }

    /// Where `path` was given, or the table that it would stand in.
    fn origin(&self, path: &str) -> String {
        let origins = self.origins.borrow();
        let mut path = path;
        loop {
            if let Some(origin) = origins.get(path).or_else(|| self.sections.get(path)) {
                return origin.clone();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return self.file.to_owned(),
            }
        }
    }
}

/// A table being read.
pub(crate) struct Table<'a> {
    reading: &'a Reading<'a>,
    path: String,
    entries: Map<String, Raw>,
}

/// A value that was there, with its place.
pub(crate) struct Found {
    pub(crate) raw: Raw,
    origin: String,
    path: String,
}

impl Found {
    /// The environment gives everything as text.
    pub(crate) fn is_from_environment(&self) -> bool {
        self.origin.starts_with(VARIABLE)
    }
}

impl<'a> Table<'a> {
    /// The top level.
    pub(crate) fn root(raw: Raw, reading: &'a Reading<'a>) -> Self {
        let entries = match raw.kind {
            ValueKind::Table(entries) => entries,
            _ => Map::new(),
        };
        Self { reading, path: String::new(), entries }
    }

    /// The path of `key` in this table; of the table itself when empty.
    pub(crate) fn path_of(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }

    /// Records a mistake of this table as a whole, or of a key that is not there.
    pub(crate) fn mistake(&self, key: &str, text: impl Into<String>) {
        let path = self.path_of(key);
        let origin = self.reading.origin(&path);
        self.reading.mistakes.add(Mistake { origin, key: path, text: text.into() });
    }

    /// Records a mistake of a value.
    pub(crate) fn wrong(&self, found: &Found, text: impl Into<String>) {
        self.reading.wrong.borrow_mut().insert(found.path.clone());
        let Found { origin, path, .. } = found;
        self.reading.mistakes.add(Mistake { origin: origin.clone(), key: path.clone(), text: text.into() });
    }

    /// The same of one item of a list, told where that item stands.
    pub(crate) fn wrong_item(&self, found: &Found, item: &Raw, text: impl Into<String>) {
        let origin = item.origin().unwrap_or(&found.origin).to_owned();
        self.wrong(&Found { origin, path: found.path.clone(), raw: Raw::new(None, ValueKind::Nil) }, text);
    }

    /// Takes what stands at `key`.
    pub(crate) fn take(&mut self, key: &str) -> Option<Found> {
        let raw = self.entries.remove(key)?;
        let path = self.path_of(key);
        let section = || self.reading.sections.get(&path).map(String::as_str);
        let origin = raw.origin().or_else(section).or_else(|| origin_of(&raw)).map(ToOwned::to_owned);
        let origin = origin.unwrap_or_else(|| self.reading.origin(&path));
        self.reading.origins.borrow_mut().insert(path.clone(), origin.clone());
        Some(Found { raw, origin, path })
    }

    /// Reads a key; None if it is absent, or wrong and told.
    pub(crate) fn read<T: Value>(&mut self, key: &Key) -> Option<T> {
        if !self.entries.contains_key(key.name) {
            if matches!(key.fallback, Fallback::Required) {
                self.mistake(key.name, "is missing");
            }
            return None;
        }
        if !key.built && self.reading.refuse_later {
            self.reject(key.name, NOT_BUILT);
            return None;
        }
        let value = T::read(self, key.name)?;
        match value.later() {
            Some(text) if self.reading.refuse_later => {
                self.reading.relation(&[&self.path_of(key.name)], text);
                self.mark_wrong(key.name);
                None
            }
            _ => Some(value),
        }
    }

    /// The table at `key`; None if it is absent or no table.
    pub(crate) fn inner(&mut self, key: &str) -> Option<Self> {
        let found = self.take(key)?;
        if let ValueKind::Table(entries) = found.raw.kind {
            return Some(Self { reading: self.reading, path: found.path, entries });
        }
        self.wrong(&found, "must be a table");
        None
    }

    /// A section that stands once: an empty table if it is not there.
    pub(crate) fn section(&mut self, name: &str) -> Self {
        self.inner(name).unwrap_or_else(|| self.absent(name))
    }

    /// A section that stands under names of the administrator's, in the order of the names.
    pub(crate) fn named_sections(&mut self, name: &str) -> Vec<(String, Self)> {
        let Some(mut section) = self.inner(name) else { return Vec::new() };
        let mut names: Vec<_> = section.entries.keys().cloned().collect();
        names.sort();
        names.into_iter().filter_map(|name| Some((name.clone(), section.inner(&name)?))).collect()
    }

    /// A section that stands any number of times in an order that matters.
    pub(crate) fn ordered_sections(&mut self, name: &str) -> Vec<Self> {
        let Some(found) = self.take(name) else { return Vec::new() };
        if found.is_from_environment() {
            self.wrong(&found, "can be given in the file only");
            return Vec::new();
        }
        let path = found.path.clone();
        let ValueKind::Array(items) = &found.raw.kind else {
            self.wrong(&found, format!("must be written [[{name}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (at, item) in items.iter().enumerate() {
            if let ValueKind::Table(entries) = item.kind.clone() {
                let path = format!("{path}.{}", at + 1);
                let origin = item.origin().map_or_else(|| found.origin.clone(), ToOwned::to_owned);
                self.reading.origins.borrow_mut().insert(path.clone(), origin);
                sections.push(Self { reading: self.reading, path, entries });
            } else {
                self.wrong(&found, format!("must be written [[{name}]]"));
            }
        }
        sections
    }

    /// Whether this key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether this key holds a table.
    pub(crate) fn is_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|raw| matches!(raw.kind, ValueKind::Table(_)))
    }

    /// The same of a key of this table.
    pub(crate) fn mark_wrong(&self, key: &str) {
        self.reading.mark_wrong(&self.path_of(key));
    }

    /// Refuses whatever stands at `key`.
    pub(crate) fn reject(&mut self, key: &str, text: impl Into<String>) {
        if let Some(found) = self.take(key) {
            self.wrong(&found, text);
        }
    }

    /// Refuses the sections that this release has no use for.
    pub(crate) fn refuse_later(&mut self, sections: &[Section]) {
        for section in sections.iter().filter(|section| !section.built && self.reading.refuse_later) {
            self.reject(section.name, NOT_BUILT);
        }
    }

    /// The empty table that stands for one that is not there.
    pub(crate) fn absent(&self, key: &str) -> Self {
        Self { reading: self.reading, path: self.path_of(key), entries: Map::new() }
    }

    /// Ends the reading: whatever is left is unknown.
    pub(crate) fn finish(self, keys: &[Key]) {
        self.finish_names(&keys.iter().map(|key| key.name).collect::<Vec<_>>());
    }

    /// Ends the reading of the top level. A key of a section that stands there has lost its header.
    pub(crate) fn finish_root(mut self, sections: &[Section], own: &[&str]) {
        let keys: Vec<_> = self.entries.keys().cloned().collect();
        for name in keys {
            let known = sections.iter().any(|section| section.name == name) || own.contains(&name.as_str());
            let home = sections.iter().find(|section| section.keys.iter().any(|key| key.name == name));
            if let (false, Some(home)) = (known, home) {
                self.reject(&name, format!("belongs below a line {}, which is missing before it", home.header()));
            }
        }
        let known: Vec<_> = sections.iter().map(|section| section.name).chain(own.iter().copied()).collect();
        self.finish_names(&known);
    }

    /// The same with the names alone.
    pub(crate) fn finish_names(mut self, known: &[&str]) {
        let mut left: Vec<_> = self.entries.keys().cloned().collect();
        left.sort();
        for name in left {
            match nearest(known.iter().copied(), &name) {
                Some(meant) => self.reject(&name, format!("is not a known key; did you mean {meant}?")),
                None => self.reject(&name, format!("is not a known key; known here: {}", known.join(", "))),
            }
        }
    }
}

const NOT_BUILT: &str = "is not built yet in this release; remove it";

/// A table's own origin is lost in the merge; that of the first value in it serves.
fn origin_of(raw: &Raw) -> Option<&str> {
    raw.origin().or_else(|| match &raw.kind {
        ValueKind::Table(entries) => entries.values().filter_map(origin_of).min(),
        _ => None,
    })
}
