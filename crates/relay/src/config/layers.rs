//! The layers as sources of the `config` crate, from the lowest: the directories that a service manager gives, the file, the
//! environment. Each value carries its origin, so that a mistake found after the merge still names file, line and column, or
//! the variable. No key reaches what it does not say: of that crate's path syntax only the dots between names are let through.

use std::collections::{BTreeMap, HashMap};

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Mistakes};
use super::{schema, settings};

/// How the origin of an environment's value starts.
pub(crate) const VARIABLE: &str = "environment variable ";

/// Every variable of ours starts with it; two underscores part the names of a path.
pub(crate) const PREFIX: &str = "XOAUTH2_RELAY__";

/// Values to be laid over each other, the later over the earlier: tables are merged, all else is replaced.
#[derive(Clone, Debug)]
pub(crate) struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// The file layer.
#[derive(Debug)]
pub(crate) struct File {
    entries: Map<String, Value>,
    /// Where each table starts: merging keeps the origins of values only.
    sections: HashMap<String, String>,
}

impl File {
    /// Parses `text`. What is not TOML is a mistake, and the rest is read all the same.
    pub(crate) fn parse(name: &str, text: &str, mistakes: &Mistakes) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let places = Places::new(name, text);
        for error in &errors {
            let origin = error.span().map_or_else(|| name.to_owned(), |span| places.origin(span.start));
            mistakes.add(Mistake::in_file(&origin, format!("not valid TOML: {}", error.message())));
        }
        let mut sections = HashMap::new();
        let mut entries = table(document.get_ref(), "", &places, &mut sections);
        // The crate that merges takes names at the top for paths: `a[99999999999]` would be a list of that length.
        entries.retain(|name, value| {
            let is_plain = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-');
            if !is_plain {
                let origin = value.origin().unwrap_or(places.name).to_owned();
                mistakes.add(Mistake { origin, key: name.clone(), text: "is not a known key".to_owned() });
            }
            is_plain
        });
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

    /// Its values.
    pub(crate) fn into_layer(self) -> Layer {
        Layer(self.entries)
    }
}

/// Turns offsets into `name:line:column`.
struct Places<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self { name, text, lines: std::iter::once(0).chain(ends).collect() }
    }

    fn origin(&self, offset: usize) -> String {
        let offset = self.text.floor_char_boundary(offset);
        // The first line starts at 0, so that there is always one.
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.text[start..offset].chars().count() + 1;
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
            let digits = integer.as_str().replace('_', "");
            // What fits nowhere is out of every bounds.
            let number = i128::from_str_radix(&digits, integer.radix()).unwrap_or(i128::MAX);
            i64::try_from(number).map_or(ValueKind::I128(number), ValueKind::I64)
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

/// The lowest layer: the directories that systemd, or else the user's session, gives a program. `$STATE_DIRECTORY`, else
/// `$XDG_STATE_HOME/xoauth2-relay`; `$RUNTIME_DIRECTORY/control.sock`. Of several directories the first.
pub(crate) fn surroundings(variables: &[(String, String)]) -> Layer {
    let first = |wanted: &str, below: &str| {
        let value = variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())?;
        let directory = value.split(':').next().filter(|directory| !directory.is_empty())?;
        let value = ValueKind::String(format!("{directory}{below}"));
        Some(Value::new(Some(&format!("{VARIABLE}{wanted}")), value))
    };
    let state = first("STATE_DIRECTORY", "").or_else(|| first("XDG_STATE_HOME", "/xoauth2-relay"));
    let socket = first("RUNTIME_DIRECTORY", "/control.sock");
    let given = [("spool.directory", state), ("control.socket", socket)];
    Layer(given.into_iter().filter_map(|(path, value)| Some((path.to_owned(), value?))).collect())
}

/// The environment layer.
#[derive(Debug)]
pub(crate) struct Environment {
    /// By path, in order.
    values: BTreeMap<Vec<String>, Value>,
}

impl Environment {
    /// Takes the variables that are ours. What is no key, or contradicts another variable, is a mistake.
    pub(crate) fn collect(variables: &[(String, String)], mistakes: &Mistakes) -> Self {
        let mut values: BTreeMap<Vec<String>, Value> = BTreeMap::new();
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let origin = format!("{VARIABLE}{name}");
            let path: Vec<_> = rest.to_ascii_lowercase().split("__").map(ToOwned::to_owned).collect();
            let is_name = |part: &String| {
                let right = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
                !part.is_empty() && part.bytes().all(right)
            };
            if !path.iter().all(is_name) {
                let text = "names no key: letters, digits and _, two underscores between the names";
                mistakes.add(Mistake::in_file(&origin, text.to_owned()));
                continue;
            }
            let rival = values.iter().find(|(other, _)| other.starts_with(&path) || path.starts_with(other.as_slice()));
            if let Some((_, rival)) = rival {
                let rival = rival.origin().unwrap_or_default();
                mistakes.add(Mistake::in_file(&origin, format!("contradicts {rival}; keep one")));
                continue;
            }
            values.insert(path, Value::new(Some(&origin), ValueKind::String(value.clone())));
        }
        Self { values }
    }

    /// The secret references that this layer gives: it replaces the whole reference, whatever kind the file had.
    pub(crate) fn secret_references(&self) -> Vec<String> {
        let parents = self.values.keys().filter_map(|path| path.split_last()).map(|(_, parent)| parent.join("."));
        parents.filter(|path| schema::is_secret_reference(settings::SECTIONS, path)).collect()
    }

    /// Its values. The names in a path have nothing that the merging crate would take for more than a name.
    pub(crate) fn into_layer(self) -> Layer {
        Layer(self.values.into_iter().map(|(path, value)| (path.join("."), value)).collect())
    }
}

/// Variables that were probably meant for us and are not: `XOAUTH2_RELAY_SPOOL__...` with one underscore. Others of that prefix
/// are a container orchestrator's own.
pub(crate) fn misspelt(variables: &[(String, String)]) -> Vec<String> {
    let known = || settings::SECTIONS.iter().map(|section| section.name).chain([settings::HOSTNAME.name]);
    let doubt = |(name, _): &(String, String)| {
        let rest = name.strip_prefix(PREFIX.strip_suffix('_')?).filter(|rest| !rest.starts_with('_'))?;
        let first = rest.split("__").next()?.to_ascii_lowercase();
        known().any(|known| known == first).then(|| format!("{VARIABLE}{name} is not read; it is spelt {PREFIX}{rest}"))
    };
    variables.iter().filter_map(doubt).collect()
}
