//! Which mailbox carries a message: the routes in their order, the first that matches decides. Pure; made from the
//! settings, and asked in the same way for a message that comes, for one that waits, and by `explain`.
//!
//! `submitter` is the question, `route` one route, `carriers` the mailboxes, `dress` what leaves, `placement` what a later
//! reading of the routes does with mail in the queue.

mod address_map;
mod address_set;
mod carriers;
pub(crate) mod dress;
mod epoch;
mod identity;
mod index;
mod placement;
mod refused;
mod route;
mod submitter;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mail::{ForwardPath, HeaderBlock, LaneId, LaneSet, ReversePath};

use crate::config::{self, Authentication, Listener, MailboxAddress, MailboxChoice, SenderPolicy, Settings};

pub(crate) use address_map::AddressMap;
pub(crate) use address_set::{AddressKey, AddressSet};
pub(crate) use carriers::{Carrier, Carriers};
pub(crate) use identity::Identity;
use index::{Filing, Index};
pub(crate) use placement::{Stored, Word};
pub(crate) use refused::Refused;
pub(crate) use route::{Choice, Miss, Route};
use route::{Matchers, Takes};
pub(crate) use submitter::{Asked, Sender, Submitter};

/// How long mail is tried that no route speaks for any more.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);

/// All routes.
#[derive(Debug)]
pub(crate) struct Routing {
    /// Which reading of the routes this is.
    pub(crate) epoch: u64,
    routes: Vec<Arc<Route>>,
    by_name: HashMap<String, usize>,
    index: Index,
    /// `[rewrite]`: of senders.
    pub(crate) senders: AddressMap,
    /// `[rewrite]`: of recipients.
    recipients: AddressMap,
    /// Mailboxes by their address, in lower case.
    own: HashMap<String, Arc<Carriers>>,
    /// Wildcard mailboxes by their domain, in lower case.
    wildcards: HashMap<String, Wildcard>,
    /// Users with `allowed_senders`, in lower case.
    held_users: HashSet<String>,
    /// Listeners that take any name, proven by nothing.
    unproven: HashSet<String>,
    /// Every mailbox of the configuration, by its lane.
    pub(super) by_lane: HashMap<LaneId, Arc<Carriers>>,
}

/// A mailbox of any address of a domain.
#[derive(Debug)]
struct Wildcard {
    name: String,
    tenant: Arc<str>,
    tenant_id: String,
    needs_user: bool,
    max_message_size: u64,
}

/// What the routes answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A route takes it.
    Taken(Taken),
    /// It depends on the From field, which has not come.
    Depends,
    /// None does.
    Refused(Refused),
}

/// A recipient that a route takes.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The route.
    pub(crate) route: Arc<Route>,
    /// Who carries it.
    pub(crate) carriers: Arc<Carriers>,
    /// Why these.
    pub(crate) chosen: Chosen,
    /// Who gets it.
    pub(crate) recipient: ForwardPath,
    /// Whom the routes were asked for, where the route sends to somebody else.
    pub(crate) redirected: Option<mail::Mailbox>,
}

/// Why a message goes by these mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// The route names them.
    Named,
    /// It is the sender's own, by its address.
    Own,
    /// It is the sender's own, by a wildcard mailbox of this name.
    Wildcard(String),
    /// The sender has none.
    Fallback,
    /// The sender's is remembered as one that Exchange does not know.
    Unknown,
}

/// Whether Exchange is remembered not to know a mailbox.
pub(crate) type IsUnknown<'a> = &'a (dyn Fn(&LaneId) -> bool + Sync);

impl Routing {
    /// The routes of right settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut routing = Self {
            epoch: epoch::of(settings),
            routes: Vec::new(),
            by_name: HashMap::new(),
            index: Index::default(),
            senders: AddressMap::new(&settings.rewrite.senders),
            recipients: AddressMap::new(&settings.rewrite.recipients),
            own: HashMap::new(),
            wildcards: HashMap::new(),
            held_users: settings
                .users
                .iter()
                // `*` in a list is no list.
                .filter(|(_, user)| !user.allowed_senders.is_empty())
                .filter(|(_, user)| !user.allowed_senders.contains(&config::AddressPattern::Any))
                .map(|(name, _)| name.to_ascii_lowercase())
                .collect(),
            unproven: settings
                .listeners
                .iter()
                .filter(|(_, listener)| listener.authentication == Authentication::AcceptAny)
                .map(|(name, _)| name.to_owned())
                .collect(),
            by_lane: HashMap::new(),
        };
        for (name, mailbox) in &settings.mailboxes {
            routing.add_mailbox(settings, name, mailbox);
        }
        if settings.routes.is_empty() {
            routing.serve_everything(settings);
        }
        for route in &settings.routes {
            routing.add_route(settings, route);
        }
        routing
    }

    fn add_mailbox(&mut self, settings: &Settings, name: &str, mailbox: &config::Mailbox) {
        match &mailbox.address {
            MailboxAddress::One(address) => {
                let Some(carriers) = carriers(settings, &[name]) else { return };
                for carrier in carriers.members() {
                    self.by_lane.entry(carrier.lane.clone()).or_insert_with(|| Arc::clone(&carriers));
                }
                let key = AddressKey::from(address);
                self.own.entry(key.address().to_owned()).or_insert(carriers);
            }
            MailboxAddress::Wildcard(domain) => {
                let Some((tenant_name, tenant)) = settings.tenant_of(mailbox) else { return };
                let wildcard = Wildcard {
                    name: name.to_owned(),
                    tenant: tenant_name.into(),
                    tenant_id: tenant.tenant_id.as_str().to_owned(),
                    needs_user: mailbox.wildcard_needs_user,
                    max_message_size: mailbox.max_message_size.octets(),
                };
                self.wildcards.insert(domain.as_str().to_ascii_lowercase(), wildcard);
            }
        }
    }

    /// No routes are written: the only mailbox serves everything.
    fn serve_everything(&mut self, settings: &Settings) {
        let named: Vec<_> = settings.mailboxes.keys().map(String::as_str).collect();
        let choice = match carriers(settings, &named) {
            Some(carriers) => Choice::Pool(carriers),
            None if !self.wildcards.is_empty() => Choice::BySender { fallback: None },
            None => return,
        };
        self.push(
            Route {
                name: String::new(),
                matchers: Matchers::default(),
                choice,
                policy: SenderPolicy::Auto,
                allowed: AddressSet::new(&config::AddressPattern::any()),
                denied: AddressSet::default(),
                redirect: None,
                max_age: MAX_AGE,
            },
            &Filing { senders: None, users: None, recipients: None },
        );
    }

    fn add_route(&mut self, settings: &Settings, route: &config::Route) {
        let named: Vec<_> = route
            .mailbox
            .iter()
            .filter_map(|choice| match choice {
                MailboxChoice::Named(name) => Some(name.as_str()),
                MailboxChoice::Sender => None,
            })
            .collect();
        let choice = match carriers(settings, &named) {
            Some(carriers) => Choice::Pool(carriers),
            None if !named.is_empty() => return,
            None => Choice::BySender {
                fallback: route.fallback.as_ref().and_then(|name| carriers(settings, &[name.as_str()])),
            },
        };
        let users: Option<Vec<_>> =
            route.users.as_ref().map(|users| users.iter().map(|user| user.as_str().to_ascii_lowercase()).collect());
        let filing = Filing {
            senders: route.senders.as_deref(),
            users: users.as_deref(),
            recipients: route.recipients.as_deref(),
        };
        let owned = |names: &Vec<config::Name>| names.iter().map(|name| name.as_str().to_owned()).collect();
        self.push(
            Route {
                name: route.name.as_str().to_owned(),
                matchers: Matchers {
                    listeners: route.listeners.as_ref().map(owned),
                    networks: route.networks.clone(),
                    users: users.clone(),
                    senders: route.senders.as_ref().map(AddressSet::new),
                    recipients: route.recipients.as_ref().map(AddressSet::new),
                },
                choice,
                policy: route.sender,
                allowed: AddressSet::new(&route.allow_recipients),
                denied: AddressSet::new(&route.deny_recipients),
                redirect: route.redirect_all_to.0.clone(),
                max_age: route.max_age.duration(),
            },
            &filing,
        );
    }

    fn push(&mut self, route: Route, filing: &Filing<'_>) {
        let place = self.routes.len();
        self.index.file(place, filing);
        self.by_name.entry(route.name.clone()).or_insert(place);
        self.routes.push(Arc::new(route));
    }

    /// All of them, in their order.
    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Route>> {
        self.by_name.get(name).and_then(|place| self.routes.get(*place))
    }

    /// Whether any recipient of `submitter` could be taken.
    pub(crate) fn may_submit(&self, submitter: &Submitter<'_>) -> bool {
        let may = |route: &Arc<Route>| route.takes(submitter, None) != Takes::No;
        if submitter.sender == Sender::Unread {
            return self.routes.iter().any(may);
        }
        let candidates = self.index.candidates(submitter.sender.key(), submitter.user, None);
        candidates.chain(self.index.by_recipients()).filter_map(|place| self.routes.get(place)).any(may)
    }

    /// The sender of an envelope, after the maps.
    pub(crate) fn sender_of_envelope(&self, path: &ReversePath) -> Sender {
        Sender::of_envelope(path, &self.senders)
    }

    /// The sender of a whole message, after the maps.
    pub(crate) fn sender_of_message(&self, path: &ReversePath, header: &HeaderBlock) -> Sender {
        Sender::of_message(path, header, &self.senders)
    }

    /// A recipient, after the maps.
    pub(crate) fn asked(&self, path: &ForwardPath) -> Asked {
        match path {
            ForwardPath::Postmaster => Asked::Postmaster,
            ForwardPath::Mailbox(mailbox) => {
                Asked::mailbox(self.recipients.mapped(mailbox).unwrap_or_else(|| mailbox.clone()))
            }
        }
    }

    /// Who carries mail of `submitter` to `recipient`.
    pub(crate) fn ask(&self, submitter: &Submitter<'_>, recipient: &ForwardPath, is_unknown: IsUnknown<'_>) -> Answer {
        let asked = self.asked(recipient);
        let route = match self.decide(submitter, &asked) {
            Decision::Route(route) => route,
            Decision::Depends => return Answer::Depends,
            Decision::None => return Answer::Refused(Refused::NoRoute),
        };
        match self.take(route, submitter, asked, is_unknown) {
            Ok(taken) => Answer::Taken(taken),
            Err(refused) => Answer::Refused(refused),
        }
    }

    fn take(
        &self,
        route: &Arc<Route>,
        submitter: &Submitter<'_>,
        asked: Asked,
        is_unknown: IsUnknown<'_>,
    ) -> Result<Taken, Refused> {
        if !route.may_send_to(&asked) {
            let recipient = asked.key().map(|key| key.address().to_owned()).unwrap_or_default();
            return Err(Refused::Recipient { route: route.name.clone(), recipient });
        }
        let (carriers, chosen) = self.carriers(route, submitter, is_unknown)?;
        if let Some(sender) = submitter.sender.mailbox() {
            let members = carriers.members().iter();
            let mut answers = members.map(|carrier| dress::may_send(sender, route.policy, &carrier.identity));
            // Of several mailboxes one that may is enough.
            if let Some(Err(refused)) = answers.next()
                && answers.all(|answer| answer.is_err())
            {
                return Err(Refused::Sender(refused));
            }
        }
        let (path, redirected) = match (&route.redirect, asked) {
            (Some(other), Asked::Postmaster) => {
                (ForwardPath::Mailbox(other.clone()), postmaster(&carriers).mailbox().cloned())
            }
            (Some(other), Asked::Mailbox { mailbox, .. }) => (ForwardPath::Mailbox(other.clone()), Some(mailbox)),
            (None, Asked::Postmaster) => (postmaster(&carriers), None),
            (None, Asked::Mailbox { mailbox, .. }) => (ForwardPath::Mailbox(mailbox), None),
        };
        Ok(Taken { route: Arc::clone(route), carriers, chosen, recipient: path, redirected })
    }

    /// The route that decides about `asked`; none if none matches, or it depends on the From field.
    pub(crate) fn decisive(&self, submitter: &Submitter<'_>, asked: &Asked) -> Option<&Arc<Route>> {
        match self.decide(submitter, asked) {
            Decision::Route(route) => Some(route),
            Decision::Depends | Decision::None => None,
        }
    }

    fn decide(&self, submitter: &Submitter<'_>, asked: &Asked) -> Decision<'_> {
        let takes = |route: &Arc<Route>| route.takes(submitter, Some(asked));
        let found = if submitter.sender == Sender::Unread {
            // Whose sender is not known may match any.
            self.routes.iter().map(|route| (route, takes(route))).find(|(_, takes)| *takes != Takes::No)
        } else {
            let candidates = self.index.candidates(submitter.sender.key(), submitter.user, asked.key());
            let routes = candidates.filter_map(|place| self.routes.get(place));
            routes.map(|route| (route, takes(route))).find(|(_, takes)| *takes != Takes::No)
        };
        match found {
            Some((_, Takes::Depends)) => Decision::Depends,
            Some((route, _)) => Decision::Route(route),
            None => Decision::None,
        }
    }

    /// Who carries mail of `submitter` by `route`.
    fn carriers(
        &self,
        route: &Route,
        submitter: &Submitter<'_>,
        is_unknown: IsUnknown<'_>,
    ) -> Result<(Arc<Carriers>, Chosen), Refused> {
        let fallback = match &route.choice {
            Choice::Pool(carriers) => return Ok((Arc::clone(carriers), Chosen::Named)),
            Choice::BySender { fallback } => fallback.clone(),
        };
        let Sender::Known { mailbox, key } = &submitter.sender else {
            let none = || Refused::NoSender { route: route.name.clone() };
            return fallback.map(|carriers| (carriers, Chosen::Fallback)).ok_or_else(none);
        };
        let wildcard = self.wildcards.get(key.domain());
        if let Some(wildcard) = wildcard.filter(|wildcard| wildcard.needs_user && !submitter.is_held_to_senders) {
            return Err(Refused::NeedsUser { mailbox: wildcard.name.clone() });
        }
        // One with a section of its own, in a tenant that this route reaches or whose sender the user may be.
        let reached = wildcard.map(|wildcard| &wildcard.tenant).or(fallback.as_ref().map(|carriers| &carriers.tenant));
        if let Some(own) =
            self.own.get(key.address()).filter(|own| submitter.is_held_to_senders || reached == Some(&own.tenant))
        {
            return Ok((Arc::clone(own), Chosen::Own));
        }
        if let Some(wildcard) = wildcard {
            let carriers = wildcard.carriers(mailbox);
            return match fallback {
                Some(fallback)
                    if fallback.tenant == carriers.tenant && carriers.lanes.lanes().any(|lane| is_unknown(&lane)) =>
                {
                    Ok((fallback, Chosen::Unknown))
                }
                _ => Ok((Arc::new(carriers), Chosen::Wildcard(wildcard.name.clone()))),
            };
        }
        let none = || Refused::NoMailbox { route: route.name.clone(), sender: mailbox.clone() };
        fallback.map(|carriers| (carriers, Chosen::Fallback)).ok_or_else(none)
    }

    /// Who sends when `lane` carries a message of `sender` by `route`.
    pub(crate) fn identity(&self, route: &Route, lane: &LaneId, sender: &Sender) -> Option<Arc<Identity>> {
        let of = |carriers: &Carriers| carriers.identity(lane, sender.mailbox()).cloned();
        match &route.choice {
            Choice::Pool(carriers) => of(carriers),
            Choice::BySender { fallback } => {
                let own = sender.key().and_then(|key| self.own.get(key.address()).and_then(|own| of(own)));
                let wildcard = || {
                    let Sender::Known { mailbox, key } = sender else { return None };
                    of(&self.wildcards.get(key.domain())?.carriers(mailbox))
                };
                own.or_else(wildcard).or_else(|| fallback.as_ref().and_then(|carriers| of(carriers)))
            }
        }
    }

    /// Who sends a report of ours by `lane`.
    pub(crate) fn reporter(&self, lane: &LaneId) -> Option<Arc<Identity>> {
        if let Some(carriers) = self.by_lane.get(lane) {
            return carriers.identity(lane, None).cloned();
        }
        let address: mail::Mailbox = lane.login().parse().ok()?;
        let wildcard = self.wildcard_of(lane).and_then(|_| self.wildcards.get(AddressKey::from(&address).domain()))?;
        wildcard.carriers(&address).identity(lane, None).cloned()
    }

    /// Whether any mailbox is of the tenant called `name`.
    pub(crate) fn has_tenant(&self, name: &str) -> bool {
        self.by_lane.values().any(|carriers| &*carriers.tenant == name)
            || self.wildcards.values().any(|wildcard| &*wildcard.tenant == name)
    }

    /// The wildcard mailbox that a lane belongs to, by name.
    pub(crate) fn wildcard_of(&self, lane: &LaneId) -> Option<&str> {
        if self.by_lane.contains_key(lane) {
            return None;
        }
        let (_, domain) = lane.login().rsplit_once('@')?;
        let wildcard = self.wildcards.get(domain)?;
        wildcard.tenant_id.eq_ignore_ascii_case(lane.tenant_id()).then_some(wildcard.name.as_str())
    }

    /// How long mail of the route `name` is tried.
    pub(crate) fn max_age(&self, name: &str) -> Duration {
        self.named(name).map_or(MAX_AGE, |route| route.max_age)
    }

    /// Whether the user of mail in the queue vouches for its sender.
    pub(crate) fn vouches(&self, listener: &str, user: Option<&str>) -> bool {
        let is_held = |user: &str| self.held_users.contains(&user.to_ascii_lowercase());
        user.is_some_and(is_held) && !self.unproven.contains(listener)
    }

    /// Whether any route has a mailbox for senders who have none.
    pub(crate) fn has_fallback(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.choice, Choice::BySender { fallback: Some(_) }))
    }

    /// Every set of several lanes that a route names.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &LaneSet> {
        self.routes.iter().filter_map(|route| match &route.choice {
            Choice::Pool(carriers) => Some(&carriers.lanes),
            Choice::BySender { fallback } => fallback.as_ref().map(|carriers| &carriers.lanes),
        })
    }

    /// The largest message that `listener` takes, in octets: what no mailbox behind it takes is refused here rather than
    /// hours later.
    pub(crate) fn largest_message(&self, name: &str, listener: &Listener) -> u64 {
        let own = listener.max_message_size.octets();
        let serving = self.routes.iter().filter(|route| route.serves(name));
        let largest = serving.map(|route| match &route.choice {
            Choice::Pool(carriers) => carriers.max_message_size(),
            Choice::BySender { fallback } => {
                let fallback = fallback.iter().map(|carriers| carriers.max_message_size());
                let wildcards = self.wildcards.values().map(|wildcard| wildcard.max_message_size);
                fallback.chain(wildcards).max().unwrap_or(own)
            }
        });
        largest.max().map_or(own, |largest| own.min(largest))
    }
}

/// Which route decides.
enum Decision<'a> {
    Route(&'a Arc<Route>),
    Depends,
    None,
}

impl Wildcard {
    /// `sender` as a mailbox of its own.
    fn carriers(&self, sender: &mail::Mailbox) -> Carriers {
        let key = AddressKey::from(sender);
        let identity = Identity::new(&self.name, sender.clone(), sender.clone(), AddressSet::default());
        // However it is written, it is one login.
        let lane = LaneId::new(&self.tenant_id, key.address());
        let carrier = Carrier { lane, identity: Arc::new(identity), max_message_size: self.max_message_size };
        Carriers::new(Arc::clone(&self.tenant), carrier, Vec::new())
    }
}

/// The mailboxes of these names; none unless there is one at least.
fn carriers(settings: &Settings, names: &[&str]) -> Option<Arc<Carriers>> {
    let mut found = names.iter().filter_map(|name| carrier(settings, name));
    let (tenant, first) = found.next()?;
    Some(Arc::new(Carriers::new(tenant, first, found.map(|(_, carrier)| carrier).collect())))
}

/// A mailbox with one address.
fn carrier(settings: &Settings, name: &str) -> Option<(Arc<str>, Carrier)> {
    let mailbox = settings.mailboxes.get(name)?;
    let (tenant, _) = settings.tenant_of(mailbox)?;
    let address = mailbox.address.one()?.clone();
    let from = mailbox.from.clone().unwrap_or_else(|| address.clone());
    let identity = Identity::new(name, address, from, AddressSet::new(&mailbox.may_send_as));
    let carrier = Carrier {
        lane: lane(settings, mailbox)?,
        identity: Arc::new(identity),
        max_message_size: mailbox.max_message_size.octets(),
    };
    Some((tenant.into(), carrier))
}

/// A bare `postmaster` means nothing upstream: it is the postmaster of the mailbox's domain.
fn postmaster(carriers: &Carriers) -> ForwardPath {
    let path = format!("postmaster@{}", carriers.address().domain());
    ForwardPath::parse(path.as_bytes()).unwrap_or(ForwardPath::Postmaster)
}

/// The lane of a mailbox's login.
pub(crate) fn lane(settings: &Settings, mailbox: &config::Mailbox) -> Option<LaneId> {
    let (_, tenant) = settings.tenant_of(mailbox)?;
    let login = mailbox.login.as_ref()?;
    Some(LaneId::new(tenant.tenant_id.as_str(), &login.to_string()))
}

#[cfg(test)]
mod tests;
