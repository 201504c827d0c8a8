//! The configuration in effect, with where each value came from: as TOML that reads as the same configuration, and as
//! JSON. It holds where secrets are and never what they are.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use super::Configuration;
use super::layers::VARIABLE;
use super::schema::{Fallback, Form, Key, Shape};
use super::settings::{Entry, SECTIONS};
use super::value::{Toml, TomlKey};

/// The column where sources stand, if the value leaves room.
const SOURCE_COLUMN: usize = 64;

/// One value in effect.
struct Line<'a> {
    /// Its key below the section, dotted where it is within a table.
    key: String,
    value: Json,
    /// Where it was given; None for a default.
    origin: Option<&'a str>,
}

impl Configuration {
    /// The values in effect of one section. What is not built is not in effect, unless it was given.
    fn lines(&self, entry: &Entry) -> Vec<Line<'_>> {
        let path = entry.path();
        let mut lines = Vec::new();
        for (key, value) in &entry.keys {
            let Some(value) = value else { continue };
            self.add_lines(&mut lines, &path, key, key.name.to_owned(), value);
        }
        let built = SECTIONS.iter().find(|section| section.name == entry.section).is_none_or(|section| section.built);
        lines.retain(|line| built || line.origin.is_some());
        lines
    }

    fn add_lines<'a>(&'a self, lines: &mut Vec<Line<'a>>, path: &str, key: &Key, name: String, value: &Json) {
        let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match ((key.shape)(), value) {
            (Shape::Table(keys), Json::Object(entries)) if !entries.is_empty() => {
                for inner in keys {
                    if let Some(value) = entries.get(inner.name) {
                        self.add_lines(lines, path, inner, format!("{name}.{}", inner.name), value);
                    }
                }
            }
            (Shape::Secret, Json::Object(entries)) => {
                for (form, value) in entries {
                    let origin = self.origins.get(&format!("{full}.{form}")).map(String::as_str);
                    lines.push(Line { key: format!("{name}.{form}"), value: value.clone(), origin });
                }
            }
            _ => {
                let origin = self.origins.get(&full).map(String::as_str);
                if key.built || origin.is_some() {
                    lines.push(Line { key: name, value: value.clone(), origin });
                }
            }
        }
    }

    /// The same as JSON: each key has its `value` and its `source`.
    pub fn json(&self) -> Json {
        let mut root = Map::new();
        for entry in self.settings.entries() {
            let mut section = Map::new();
            for Line { key, value, origin } in self.lines(&entry) {
                insert(&mut section, &key, json!({ "value": value, "source": source(origin) }));
            }
            match (entry.section, entry.name) {
                ("", _) => root.extend(section),
                (_, _) if section.is_empty() => {}
                (name, None) => {
                    root.insert(name.to_owned(), Json::Object(section));
                }
                (name, Some(own)) if form(name) == Form::Named => {
                    let all = root.entry(name).or_insert_with(|| json!({}));
                    all.as_object_mut().map(|all| all.insert(own, Json::Object(section)));
                }
                (name, Some(_)) => {
                    let all = root.entry(name).or_insert_with(|| json!([]));
                    if let Some(all) = all.as_array_mut() {
                        all.push(Json::Object(section));
                    }
                }
            }
        }
        Json::Object(root)
    }
}

fn form(section: &str) -> Form {
    SECTIONS.iter().find(|known| known.name == section).map_or(Form::One, |known| known.form)
}

/// Puts a value at a dotted key.
fn insert(table: &mut Map<String, Json>, key: &str, value: Json) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            if let Some(inner) = table.entry(first).or_insert_with(|| json!({})).as_object_mut() {
                insert(inner, rest, value);
            }
        }
    }
}

/// `file`, `line` and `column`; `environment`; or `default`.
fn source(origin: Option<&str>) -> Json {
    let Some(origin) = origin else { return json!("default") };
    if let Some(variable) = origin.strip_prefix(VARIABLE) {
        return json!({ "environment": variable });
    }
    let mut parts = origin.rsplitn(3, ':');
    let (column, line) = (parts.next(), parts.next());
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    json!({ "file": parts.next(), "line": number(line), "column": number(column) })
}

impl Entry {
    /// `listener.local`; empty for the top level.
    fn path(&self) -> String {
        match &self.name {
            Some(name) => format!("{}.{name}", self.section),
            None => self.section.to_owned(),
        }
    }

    fn header(&self) -> String {
        match (&self.name, form(self.section)) {
            (Some(name), Form::Named) => format!("[{}.{}]", self.section, TomlKey(name)),
            (_, Form::Ordered) => format!("[[{}]]", self.section),
            _ => format!("[{}]", self.section),
        }
    }
}

/// As TOML, the source of each value behind it.
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self.settings.entries() {
            let lines = self.lines(&entry);
            if lines.is_empty() {
                continue;
            }
            if !entry.section.is_empty() {
                writeln!(f, "\n{}", entry.header())?;
            }
            for Line { key, value, origin } in lines {
                let origin = origin.map_or("default".to_owned(), |origin| origin.escape_default().to_string());
                writeln!(f, "{:<SOURCE_COLUMN$}  # {origin}", format!("{key} = {}", Toml(&value)))?;
            }
        }
        Ok(())
    }
}

/// What is in effect when a key is left out, in the words of the reference.
pub(crate) fn fallback(key: &Key) -> String {
    match &key.fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Absent => "none".to_owned(),
        Fallback::Constant(default) => format!("`{}`", Toml(&default())),
        Fallback::Derived(words) => (*words).to_owned(),
    }
}
