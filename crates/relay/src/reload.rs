//! What differs between two configurations, and what of it a running daemon can follow. Pure: who follows is the daemon.
//!
//! Keys are dotted paths as `check` shows them, never values: those may be secret.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::config::{Configuration, Mistakes, Settings, Tenant, overlap};

/// What a daemon keeps from its start to its end, with the reason.
const FIXED: [(&str, &str); 4] = [
    ("spool.directory", "the queue is open there, and mail in it must not be left behind"),
    ("control.socket", "the daemon answers there, also to whoever asks for a reload"),
    ("log.format", "the lines of one run are of one kind"),
    ("vault.key", "the sign-ins that are stored are encrypted with it"),
];

/// The section whose order matters.
const ROUTE: &str = "route";
/// Most keys in a line of the log.
const MOST_TOLD: usize = 50;

/// What came of a reload, as it goes over the control socket and out of `reload --json`. Fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Whether the configuration that was read is in effect. Else nothing has changed.
    pub(crate) reloaded: bool,
    /// The keys that changed; a section that came or went stands for its keys.
    #[serde(default)]
    pub(crate) changes: Vec<String>,
    /// Why it was refused.
    #[serde(default)]
    pub(crate) mistakes: Vec<Mistake>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mistake {
    /// `file:line:column` or `environment variable NAME`; empty where it stands nowhere.
    #[serde(default)]
    pub(crate) origin: String,
    /// The key; empty where the file as a whole is meant.
    #[serde(default)]
    pub(crate) key: String,
    /// What is wrong, and the remedy.
    pub(crate) text: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in [&self.origin, &self.key].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.text)
    }
}

impl Mistake {
    /// Of `key`; where that stands is not known yet.
    pub(crate) fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { origin: String::new(), key: key.into(), text: text.into() }
    }

    /// All that were found by reading, as `check` tells them.
    pub(crate) fn of_reading(mistakes: &Mistakes) -> Vec<Self> {
        serde_json::from_value(mistakes.json()).unwrap_or_else(|_| vec![Self::new("", mistakes.to_string())])
    }

    /// With the place where `configuration` says so, if it was written.
    pub(crate) fn placed(mut self, configuration: &Configuration) -> Self {
        let json = configuration.json();
        let found = self.key.split('.').try_fold(&json, |at, part| at.get(part));
        if let Some(origin) = found.and_then(written) {
            self.origin = origin;
        }
        self
    }
}

/// Where a value was written; of a table, as a secret's is, the first of it that was.
fn written(value: &Json) -> Option<String> {
    match value.get("source") {
        Some(source) => origin(source),
        None => value.as_object()?.values().find_map(written),
    }
}

/// A source as [`Configuration::json`] gives it; none of a default.
fn origin(source: &Json) -> Option<String> {
    if let Some(variable) = source.get("environment").and_then(Json::as_str) {
        return Some(format!("environment variable {variable}"));
    }
    let file = source.get("file")?.as_str()?;
    Some(format!("{file}:{}:{}", source.get("line")?, source.get("column")?))
}

/// The keys that differ, in the order of the contract. What secrets hide in their shown form is compared, too.
pub(crate) fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let (before, after) = (sections(old), sections(new));
    let mut paths: Vec<&String> = after.iter().map(|(path, _)| path).collect();
    paths.extend(before.iter().map(|(path, _)| path).filter(|path| !after.iter().any(|(other, _)| other == *path)));
    let find = |all: &[(String, BTreeMap<String, Json>)], path: &str| {
        all.iter().find(|(other, _)| other == path).map(|(_, keys)| keys.clone())
    };
    let mut changes = Vec::new();
    for path in paths {
        match (find(&before, path), find(&after, path)) {
            (Some(before), Some(after)) => {
                let keys = after.keys().chain(before.keys().filter(|key| !after.contains_key(*key)));
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    differ(&path, before.get(key), after.get(key), &mut changes);
                }
                changes.extend(hidden(old, new, path));
            }
            _ => changes.push(path.clone()),
        }
    }
    if !is_same_order(&before, &after) {
        changes.push(format!("{ROUTE} (order)"));
    }
    changes
}

/// Every section with its keys. A route goes by its name: one that comes in between changes no other.
fn sections(settings: &Settings) -> Vec<(String, BTreeMap<String, Json>)> {
    let mut sections: Vec<(String, BTreeMap<String, Json>)> = Vec::new();
    for entry in settings.entries() {
        let keys = entry.keys.into_iter().filter_map(|(key, value)| Some((key.name.to_owned(), value?)));
        let keys: BTreeMap<_, _> = keys.collect();
        let path = match (&entry.name, keys.get("name")) {
            (Some(_), Some(name)) if entry.section == ROUTE => {
                let path = format!("{ROUTE}.{name}");
                let alike = |other: &&(String, BTreeMap<String, Json>)| other.1.get("name") == Some(name);
                match sections.iter().filter(|(path, _)| is_route(path)).filter(alike).count() {
                    0 => path,
                    before => format!("{path} ({})", before + 1),
                }
            }
            (Some(name), _) => format!("{}.{name}", entry.section),
            (None, _) => entry.section.to_owned(),
        };
        sections.push((path, keys));
    }
    sections
}

fn is_route(path: &str) -> bool {
    path.strip_prefix(ROUTE).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether the routes that are in both come one after the other as they did: the first that matches decides.
fn is_same_order(before: &[(String, BTreeMap<String, Json>)], after: &[(String, BTreeMap<String, Json>)]) -> bool {
    let routes = |all: &[(String, BTreeMap<String, Json>)]| {
        all.iter().map(|(path, _)| path.clone()).filter(|path| is_route(path)).collect::<Vec<_>>()
    };
    let (before, after) = (routes(before), routes(after));
    let (is_old, is_new) = (BTreeSet::from_iter(&before), BTreeSet::from_iter(&after));
    let kept = before.iter().filter(|path| is_new.contains(path));
    kept.eq(after.iter().filter(|path| is_old.contains(path)))
}

/// At most [`MOST_TOLD`] keys for a line of the log.
pub(crate) fn in_a_line(changes: &[String]) -> String {
    let told = changes.iter().take(MOST_TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    match changes.len().saturating_sub(MOST_TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

fn differ(path: &str, before: Option<&Json>, after: Option<&Json>, changes: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        // A table within the section: of another shape it is another value.
        (Some(Json::Object(before)), Some(Json::Object(after)))
            if before.keys().eq(after.keys()) && before.keys().all(|key| is_name(key)) =>
        {
            for (key, value) in after {
                differ(&format!("{path}.{key}"), before.get(key), Some(value), changes);
            }
        }
        _ => changes.push(path.to_owned()),
    }
}

fn is_name(key: &str) -> bool {
    key.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_')
}

/// What differs in a section without being seen.
fn hidden(old: &Settings, new: &Settings, path: &str) -> Vec<String> {
    let mut changes = Vec::new();
    if let Some(name) = path.strip_prefix("user.")
        && let (Some(before), Some(after)) = (old.users.get(name), new.users.get(name))
        && before.password_hash.phc() != after.password_hash.phc()
    {
        changes.push(format!("{path}.password_hash"));
    }
    if let Some(name) = path.strip_prefix("tenant.")
        && let (Some(before), Some(after)) = (old.tenants.get(name), new.tenants.get(name))
    {
        for (key, before, after) in [
            ("https_proxy", &before.https_proxy, &after.https_proxy),
            ("smtp_proxy", &before.smtp_proxy, &after.smtp_proxy),
        ] {
            if before != after && before.as_ref().map(ToString::to_string) == after.as_ref().map(ToString::to_string) {
                changes.push(format!("{path}.{key}"));
            }
        }
    }
    changes
}

/// Whether two sections of a tenant say the same, what is hidden included.
pub(crate) fn is_same_tenant(one: &Tenant, other: &Tenant) -> bool {
    let values = |tenant: &Tenant| tenant.entries().into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    values(one) == values(other) && one.https_proxy == other.https_proxy && one.smtp_proxy == other.smtp_proxy
}

/// What of `changes` from `old` to `new` only a restart can follow.
pub(crate) fn unchangeable(old: &Settings, new: &Settings, changes: &[String]) -> Vec<Mistake> {
    let Some(mistake) = another_state(old, new) else { return fixed(changes) };
    // The socket's default goes with the directory.
    let of_state = |mistake: &Mistake| ["spool.directory", "control.socket"].contains(&mistake.key.as_str());
    std::iter::once(mistake).chain(fixed(changes).into_iter().filter(|mistake| !of_state(mistake))).collect()
}

/// That one of the two stores nothing and the other does.
fn another_state(old: &Settings, new: &Settings) -> Option<Mistake> {
    match (old.why_state(), new.why_state()) {
        (None, Some(key)) => Some(Mistake::new(
            key,
            "needs a state directory, and the daemon runs without one: nothing is stored; restart to change it",
        )),
        (Some(key), None) => Some(Mistake::new(
            key,
            "needed the state directory that the daemon has open, and nothing does any more: mail in its queue must not be left \
             behind; restart to change it, or keep the directory by naming it in spool.directory",
        )),
        _ => None,
    }
}

/// The keys of [`FIXED`] among `changes`.
fn fixed(changes: &[String]) -> Vec<Mistake> {
    let refused = FIXED.iter().filter(|(key, _)| {
        let is_it =
            |change: &String| change == key || change.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        changes.iter().any(is_it)
    });
    refused
        .map(|(key, why)| {
            Mistake::new(*key, format!("cannot change while the daemon runs: {why}; restart to change it"))
        })
        .collect()
}

/// Who has a place where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// One of ours, by its name.
    Ours(String),
    /// A socket of systemd, by its name; used or not, it stays open.
    HandedOver(String),
}

/// Why `wanted` cannot be bound while what is in `taken` is: one of the two takes the place of both, and the old one is closed only
/// when all new ones are bound, or never.
pub(crate) fn overlaps(wanted: SocketAddr, taken: &[(Holder, SocketAddr)]) -> Option<String> {
    let (holder, address) = taken.iter().find(|(_, address)| overlap(*address, wanted))?;
    let how = if *address == wanted { "is".to_owned() } else { format!("overlaps {address}, which is") };
    Some(match holder {
        Holder::Ours(what) => format!(
            "{wanted} {how} where {what} listens now, and it cannot be bound before that is closed; a restart does it, or two reloads: one without it, one with it"
        ),
        Holder::HandedOver(name) => format!(
            "{wanted} {how} the socket \"{name}\" that systemd handed over, which stays open for as long as this process runs; write address = \"systemd:{name}\", or take it out of the .socket unit and restart both"
        ),
    })
}

#[cfg(test)]
mod tests;
