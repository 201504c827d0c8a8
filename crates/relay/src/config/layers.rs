//! The two layers as sources of the `config` crate: each value carries its origin, so that a mistake found after the
//! merge still names file, line and column, or the variable.

use std::collections::HashMap;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Mistakes};
use super::{schema, settings};

/// How the origin of an environment's value starts.
pub(crate) const VARIABLE: &str = "environment variable ";

/// Every variable of ours starts with it; two underscores part the names of a path.
pub(crate) const PREFIX: &str = "XOAUTH2_RELAY__";

/// The file layer.
#[derive(Clone, Debug)]
pub(crate) struct File {
    entries: Map<String, Value>,
    /// Where each table starts: merging keeps the origins of values only.
    sections: HashMap<String, String>,
}

impl File {
    /// Parses `text`. What is not TOML is a mistake, and the rest is read all the same.
    pub(crate) fn parse(name: &str, text: &str, mistakes: &Mistakes) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let places = Places { name, text };
        for error in &errors {
            let origin = places.origin(error.span().map_or(0, |span| span.start));
            mistakes.add(Mistake::in_file(&origin, format!("not valid TOML: {}", error.message())));
        }
        let mut sections = HashMap::new();
        let entries = table(document.get_ref(), "", &places, &mut sections);
        Self { entries, sections }
    }

    /// Where each table starts, by its path.
    pub(crate) fn sections(&self) -> &HashMap<String, String> {
        &self.sections
    }

    /// Removes what stands at `path`, for a layer above that replaces it whole.
    pub(crate) fn remove(&mut self, path: &str) {
        let mut entries = &mut self.entries;
        let mut names: Vec<_> = path.split('.').collect();
        let Some(last) = names.pop() else { return };
        for name in names {
            match entries.get_mut(name).map(|value| &mut value.kind) {
                Some(ValueKind::Table(inner)) => entries = inner,
                _ => return,
            }
        }
        entries.remove(last);
    }
}

impl Source for File {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.entries.clone())
    }
}

/// Turns offsets into `name:line:column`.
struct Places<'a> {
    name: &'a str,
    text: &'a str,
}

impl Places<'_> {
    fn origin(&self, offset: usize) -> String {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        format!("{}:{line}:{column}", self.name)
    }
}

fn table(
    table: &DeTable<'_>,
    path: &str,
    places: &Places<'_>,
    sections: &mut HashMap<String, String>,
) -> Map<String, Value> {
    let mut entries = Map::new();
    for (key, value) in table {
        let origin = places.origin(key.span().start);
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        let value = convert(value, &path, &origin, places, sections);
        entries.insert(key.get_ref().to_string(), value);
    }
    entries
}

fn convert(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    origin: &str,
    places: &Places<'_>,
    sections: &mut HashMap<String, String>,
) -> Value {
    let kind = match value.get_ref() {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Boolean(truth) => ValueKind::Boolean(*truth),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix());
            number.map_or_else(|_| ValueKind::String(integer.as_str().to_owned()), ValueKind::I64)
        }
        // Neither is the type of any key; the reader says so with the text as written.
        DeValue::Float(float) => ValueKind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
        DeValue::Array(items) => ValueKind::Array(
            items
                .iter()
                .enumerate()
                .map(|(at, item)| {
                    let path = format!("{path}.{}", at + 1);
                    convert(item, &path, &places.origin(item.span().start), places, sections)
                })
                .collect(),
        ),
        DeValue::Table(inner) => {
            sections.insert(path.to_owned(), origin.to_owned());
            ValueKind::Table(table(inner, path, places, sections))
        }
    };
    Value::new(Some(&origin.to_owned()), kind)
}

/// The environment layer.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    entries: Vec<(String, Value)>,
}

impl Environment {
    /// Takes the variables that are ours.
    pub(crate) fn collect(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut entries: Vec<_> = variables
            .filter_map(|(name, value)| {
                let path = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
                let origin = format!("{VARIABLE}{name}");
                Some((path, Value::new(Some(&origin), ValueKind::String(value))))
            })
            .collect();
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        Self { entries }
    }

    /// The secret references that this layer gives: it replaces the whole reference, whatever kind the file had.
    pub(crate) fn secret_references(&self) -> Vec<String> {
        let parent = |(path, _): &(String, Value)| path.rsplit_once('.').map(|(parent, _)| parent.to_owned());
        let is_reference = |path: &String| schema::is_secret_reference(settings::SECTIONS, path);
        self.entries.iter().filter_map(parent).filter(is_reference).collect()
    }
}

impl Source for Environment {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.entries.iter().cloned().collect())
    }
}
