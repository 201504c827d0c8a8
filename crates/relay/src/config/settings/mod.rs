//! The settings: what the daemon is built from, section by section. A `Settings` that exists has right values in every
//! key; that they also go together is what `relations` checks.

mod listener;
mod mailbox;
mod operation;
mod queue;
mod route;
mod tenant;

use std::collections::BTreeMap;
use std::path::Path;

pub use listener::{Authentication, DeliveryMode, Encryption, Listener, ReceivedDetail, User};
pub use mailbox::Mailbox;
pub use operation::{Alert, Control, Http, Log, LogFormat, Shutdown, Vault};
pub(crate) use queue::USUAL_DIRECTORY;
pub use queue::{Bounce, BounceContent, History, Retry, Spool};
pub use route::{MailboxChoice, Rewrite, Route, SenderPolicy};
use serde_json::Value as Json;
pub use tenant::{Algorithm, CertificateCredential, Family, Grant, Tenant};

use super::place::{FilePath, HostName, Name, UserName};
use super::reading::Table;
use super::schema::{Fallback, Form, Key, Section};
use super::value::{Scalar, Value};

/// The top level's own key.
pub(crate) const HOSTNAME: Key = Key {
    name: "hostname",
    about: " Our name in the banner, EHLO, Received and Message-ID.\n",
    built: true,
    fallback: Fallback::Derived("the machine's name, made into a valid one"),
    shape: <HostName as Value>::shape,
    #[cfg(test)]
    sample: <HostName as Value>::sample,
};

macro_rules! sections {
    ($($state:ident $name:literal $form:ident $Section:ident;)+) => {
        /// Every section, in the order of the contract.
        pub(crate) const SECTIONS: &[Section] = &[
            $( Section {
                name: $name,
                about: $Section::ABOUT,
                built: super::schema::field!(built $state),
                form: Form::$form,
                keys: $Section::KEYS,
            }, )+
        ];
    };
}

sections! {
    built "listener" Named Listener;
    built "user" Named User;
    built "tenant" Named Tenant;
    built "mailbox" Named Mailbox;
    built "route" Ordered Route;
    built "rewrite" One Rewrite;
    built "spool" One Spool;
    built "retry" One Retry;
    built "bounce" One Bounce;
    built "history" One History;
    built "http" One Http;
    built "control" One Control;
    later "alert" One Alert;
    built "log" One Log;
    built "vault" One Vault;
    built "shutdown" One Shutdown;
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What we call ourselves.
    pub hostname: HostName,
    /// By name.
    pub listeners: BTreeMap<String, Listener>,
    /// By name.
    pub users: BTreeMap<String, User>,
    /// By name.
    pub tenants: BTreeMap<String, Tenant>,
    /// By name.
    pub mailboxes: BTreeMap<String, Mailbox>,
    /// In their order.
    pub routes: Vec<Route>,
    /// Maps of addresses.
    pub rewrite: Rewrite,
    /// The queue.
    pub spool: Spool,
    /// Retries.
    pub retry: Retry,
    /// Bounces.
    pub bounce: Bounce,
    /// What was sent.
    pub history: History,
    /// Health over HTTP.
    pub http: Http,
    /// The control socket.
    pub control: Control,
    /// Alerts.
    pub alert: Alert,
    /// Logging.
    pub log: Log,
    /// Refresh tokens at rest.
    pub vault: Vault,
    /// Stopping.
    pub shutdown: Shutdown,
}

/// The names that the administrator chose, of sections right or wrong within: what refers to one is no mistake.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) listeners: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) tenants: Vec<String>,
    pub(crate) mailboxes: Vec<String>,
    pub(crate) routes: usize,
}

impl Settings {
    /// Reads the top level. Sections with mistakes in them are told and left out.
    pub(crate) fn read(mut root: Table<'_>) -> (Self, Names) {
        let hostname = root.read(&HOSTNAME).unwrap_or_else(HostName::of_this_machine);
        root.refuse_later(SECTIONS);
        let (listener_names, mut listeners) = named_by::<Name, _>(&mut root, "listener", Listener::read);
        if listener_names.is_empty() {
            let local = root.absent("listener").absent("local");
            listeners.extend(Listener::read(local).map(|listener| ("local".to_owned(), listener)));
        }
        let (user_names, users) = named_by::<UserName, _>(&mut root, "user", User::read);
        let (tenant_names, tenants) = named_by::<Name, _>(&mut root, "tenant", Tenant::read);
        let (mailbox_names, mailboxes) = named_by::<Name, _>(&mut root, "mailbox", Mailbox::read);
        let routes = root.ordered_sections("route");
        let names = Names {
            listeners: if listener_names.is_empty() { vec!["local".to_owned()] } else { listener_names },
            users: user_names,
            tenants: tenant_names,
            mailboxes: mailbox_names,
            routes: routes.len(),
        };
        // What a listener that is wrong would say is not known: the usual.
        let may_queue = listeners.len() < names.listeners.len();
        let settings = Self {
            hostname,
            listeners,
            users,
            tenants: tenants.into_iter().map(|(name, tenant)| (name, tenant.complete())).collect(),
            mailboxes,
            routes: routes.into_iter().filter_map(Route::read).collect(),
            rewrite: one(Rewrite::read(root.section("rewrite"))),
            retry: one(Retry::read(root.section("retry"))),
            bounce: one(Bounce::read(root.section("bounce"))),
            history: one(History::read(root.section("history"))),
            http: one(Http::read(root.section("http"))),
            control: one(Control::read(root.section("control"))),
            alert: one(Alert::read(root.section("alert"))),
            log: one(Log::read(root.section("log"))),
            vault: one(Vault::read(root.section("vault"))),
            shutdown: one(Shutdown::read(root.section("shutdown"))),
            spool: one(Spool::read(root.section("spool"))),
        };
        root.finish_root(SECTIONS, &[HOSTNAME.name]);
        (settings.with_only_tenant(&names).with_places(may_queue), names)
    }

    /// Where state and control socket are, once it is known whether there is state.
    fn with_places(mut self, may_queue: bool) -> Self {
        if may_queue || self.why_state().is_some() {
            self.spool = self.spool.complete();
        }
        self.control = self.control.complete(self.spool.directory.as_ref().map(FilePath::as_path));
        self
    }

    /// The first key that asks for a state directory: a listener that queues, a tenant whose users sign in, or the directory
    /// itself where it is given. None where nothing is stored.
    pub(crate) fn why_state(&self) -> Option<String> {
        let queues = self.listeners.iter().find(|(_, listener)| listener.delivery == DeliveryMode::Queue);
        let delegated = self.tenants.iter().find(|(_, tenant)| tenant.grant == Grant::Delegated);
        let queues = queues.map(|(name, _)| format!("listener.{name}.delivery"));
        queues
            .or_else(|| delegated.map(|(name, _)| format!("tenant.{name}.grant")))
            .or_else(|| self.spool.directory.as_ref().map(|_| "spool.directory".to_owned()))
    }

    /// A mailbox that names no tenant is in the only one.
    fn with_only_tenant(mut self, names: &Names) -> Self {
        if let [only] = names.tenants.as_slice() {
            for mailbox in self.mailboxes.values_mut().filter(|mailbox| mailbox.tenant.is_none()) {
                mailbox.tenant = Name::parse(only).ok();
            }
        }
        self
    }

    /// The tenant of a mailbox, with its name.
    pub fn tenant_of(&self, mailbox: &Mailbox) -> Option<(&str, &Tenant)> {
        let (name, tenant) = self.tenants.get_key_value(mailbox.tenant.as_ref()?.as_str())?;
        Some((name, tenant))
    }

    /// The state directory; none where the relay runs without: nothing is created, opened or written on disk then.
    pub fn state_directory(&self) -> Option<&Path> {
        self.spool.directory.as_ref().map(FilePath::as_path)
    }

    /// The control socket's place; none where commands cannot reach the relay.
    pub fn control_socket(&self) -> Option<&Path> {
        self.control.socket.as_ref().map(FilePath::as_path)
    }

    /// Connections of each lane that live messages leave to the queue: one where there are both.
    pub(crate) fn kept_for_queue(&self) -> usize {
        let has = |mode| self.listeners.values().any(|listener| listener.delivery == mode);
        usize::from(has(DeliveryMode::Direct) && has(DeliveryMode::Queue))
    }

    /// What is in effect, in the order of the contract: the path of each section, its keys and their values.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::new("", None, vec![(&HOSTNAME, Some(Scalar::json(&self.hostname)))])];
        for section in SECTIONS {
            let mut add = |name: Option<&str>, keys| entries.push(Entry::new(section.name, name, keys));
            match section.name {
                "listener" => self.listeners.iter().for_each(|(name, listener)| add(Some(name), listener.entries())),
                "user" => self.users.iter().for_each(|(name, user)| add(Some(name), user.entries())),
                "tenant" => self.tenants.iter().for_each(|(name, tenant)| add(Some(name), tenant.entries())),
                "mailbox" => self.mailboxes.iter().for_each(|(name, mailbox)| add(Some(name), mailbox.entries())),
                "route" => {
                    for (at, route) in self.routes.iter().enumerate() {
                        add(Some(&(at + 1).to_string()), route.entries());
                    }
                }
                "rewrite" => add(None, self.rewrite.entries()),
                "spool" => add(None, self.spool.entries()),
                "retry" => add(None, self.retry.entries()),
                "bounce" => add(None, self.bounce.entries()),
                "history" => add(None, self.history.entries()),
                "http" => add(None, self.http.entries()),
                "control" => add(None, self.control.entries()),
                "alert" => add(None, self.alert.entries()),
                "log" => add(None, self.log.entries()),
                "vault" => add(None, self.vault.entries()),
                "shutdown" => add(None, self.shutdown.entries()),
                other => unreachable!("the section {other} is printed"),
            }
        }
        entries
    }
}

/// A section in effect.
pub(crate) struct Entry {
    /// `listener`; empty for the top level.
    pub(crate) section: &'static str,
    /// The administrator's name, or the place in the order.
    pub(crate) name: Option<String>,
    pub(crate) keys: Vec<(&'static Key, Option<Json>)>,
}

impl Entry {
    fn new(section: &'static str, name: Option<&str>, keys: Vec<(&'static Key, Option<Json>)>) -> Self {
        Self { section, name: name.map(ToOwned::to_owned), keys }
    }
}

/// A section that stands once can always be read.
fn one<T>(section: Option<T>) -> T {
    section.expect("every key of a section that stands once may be left out")
}

/// Sections under names of the administrator's: the names, and those that are right.
fn named_by<N: Scalar, T>(
    root: &mut Table<'_>,
    section: &str,
    read: impl Fn(Table<'_>) -> Option<T>,
) -> (Vec<String>, BTreeMap<String, T>) {
    let mut names = Vec::new();
    let mut sections = BTreeMap::new();
    for (name, table) in root.named_sections(section) {
        names.push(name.clone());
        if let Err(wrong) = N::parse(&name) {
            table.mistake("", wrong.tell::<N>(&name));
            continue;
        }
        sections.extend(read(table).map(|section| (name, section)));
    }
    (names, sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_once_may_be_left_out() {
        for section in SECTIONS.iter().filter(|section| section.form == Form::One) {
            for key in section.keys {
                assert!(!matches!(key.fallback, Fallback::Required), "{}.{}", section.name, key.name);
            }
        }
    }
}
