//! Which lanes carry a message: the routes in their order, the first that matches decides. Pure; made from the settings once.
//!
//! Of the matchers only the listener is built. Where no routes are written, the only mailbox serves everything.

use std::time::Duration;

use mail::{LaneId, LaneSet};

use crate::config::{Listener, Mailbox, MailboxChoice, Settings};

/// How long mail is tried that no route speaks for any more.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);

/// All routes.
#[derive(Debug)]
pub(crate) struct Routing {
    routes: Vec<Route>,
}

/// A route, with what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its name; empty if none is written.
    pub(crate) name: String,
    /// Those that it takes mail of; none: all.
    listeners: Option<Vec<String>>,
    /// Name of the tenant.
    pub(crate) tenant: String,
    /// The lanes of its mailboxes.
    pub(crate) lanes: LaneSet,
    /// Its first mailbox: the From of messages that have none, and the domain of a bare `postmaster`.
    pub(crate) address: mail::Mailbox,
    /// How long its mail is tried.
    pub(crate) max_age: Duration,
    /// The largest message that all its mailboxes take, in octets.
    max_message_size: u64,
}

impl Routing {
    /// The routes of right settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        if settings.routes.is_empty() {
            let only: Vec<_> = settings.mailboxes.values().collect();
            return Self { routes: Route::of(settings, "", None, &only, MAX_AGE).into_iter().collect() };
        }
        let routes = settings.routes.iter().filter_map(|route| {
            let named = route.mailbox.iter().filter_map(|choice| match choice {
                MailboxChoice::Named(name) => settings.mailboxes.get(name.as_str()),
                MailboxChoice::Sender => None,
            });
            let listeners =
                route.listeners.as_ref().map(|names| names.iter().map(|name| name.as_str().to_owned()).collect());
            let mailboxes: Vec<_> = named.collect();
            Route::of(settings, route.name.as_str(), listeners, &mailboxes, route.max_age.duration())
        });
        Self { routes: routes.collect() }
    }

    /// The route of mail from `listener`, if one takes it.
    pub(crate) fn route(&self, listener: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.takes(listener))
    }

    /// How long mail of the route `name` is tried.
    pub(crate) fn max_age(&self, name: &str) -> Duration {
        self.routes.iter().find(|route| route.name == name).map_or(MAX_AGE, |route| route.max_age)
    }

    /// Every set of lanes that a route names.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &LaneSet> {
        self.routes.iter().map(|route| &route.lanes)
    }

    /// The largest message that `listener` takes, in octets: what no mailbox takes is refused here rather than hours later.
    pub(crate) fn largest_message(&self, name: &str, listener: &Listener) -> u64 {
        let own = listener.max_message_size.octets();
        self.route(name).map_or(own, |route| own.min(route.max_message_size))
    }
}

impl Route {
    fn of(
        settings: &Settings,
        name: &str,
        listeners: Option<Vec<String>>,
        mailboxes: &[&Mailbox],
        max_age: Duration,
    ) -> Option<Self> {
        let (tenant, _) = settings.tenant_of(mailboxes.first()?)?;
        let lanes: Vec<_> = mailboxes.iter().filter_map(|mailbox| lane(settings, mailbox)).collect();
        let sizes = mailboxes.iter().map(|mailbox| mailbox.max_message_size.octets());
        Some(Self {
            name: name.to_owned(),
            listeners,
            tenant: tenant.to_owned(),
            lanes: LaneSet::new(lanes.first()?, &lanes),
            // Wildcards have no address, and are not built.
            address: mailboxes.first()?.address.one()?.clone(),
            max_age,
            max_message_size: sizes.min()?,
        })
    }

    fn takes(&self, listener: &str) -> bool {
        self.listeners.as_ref().is_none_or(|names| names.iter().any(|name| name == listener))
    }
}

/// The lane of a mailbox's login.
pub(crate) fn lane(settings: &Settings, mailbox: &Mailbox) -> Option<LaneId> {
    let (_, tenant) = settings.tenant_of(mailbox)?;
    let login = mailbox.login.as_ref()?;
    Some(LaneId::new(tenant.tenant_id.as_str(), &login.to_string()))
}
