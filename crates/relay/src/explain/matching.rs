//! How a message meets a route's matchers, or what it lacks, in words: the routes as they decide say whether, the
//! configuration says what was wanted. Pure.

use std::fmt::Display;

use super::explanation::{NearMiss, Route as RouteView};
use crate::config::{AddressPattern, Name, Route as Configured, Settings};
use crate::routing::{AddressKey, AddressSet, Asked, Miss, Route, Routing, Sender, Submitter};

/// Most near misses.
const MAX_NEAR: usize = 10;
/// Most of what a route wants that is listed.
const MAX_WANTED: usize = 4;
const MATCHERS: [Miss; 5] = [Miss::Listener, Miss::Network, Miss::User, Miss::Sender, Miss::Recipient];

/// A message as routes are asked about it, beside what they were made from.
#[derive(Clone, Copy)]
pub(super) struct Matching<'a> {
    pub(super) settings: &'a Settings,
    pub(super) routing: &'a Routing,
    pub(super) submitter: &'a Submitter<'a>,
}

impl<'a> Matching<'a> {
    /// The route with what made it match.
    pub(super) fn route(&self, route: &Route, asked: &Asked) -> RouteView {
        let place = self.routing.routes().iter().position(|other| std::ptr::eq(&raw const **other, route));
        let configured = place.and_then(|place| self.configured(place, route));
        let met =
            |configured| MATCHERS.into_iter().filter_map(|matcher| self.met(matcher, configured, asked)).collect();
        RouteView {
            number: configured.and(place).map(|place| place + 1),
            name: route.name.clone(),
            because: configured.map_or_else(Vec::new, met),
        }
    }

    /// The route of the configuration that stands there; none where none is written.
    fn configured(&self, place: usize, route: &Route) -> Option<&'a Configured> {
        self.settings.routes.get(place).filter(|configured| configured.name.as_str() == route.name)
    }

    /// Routes before `decisive`, or all, that one matcher alone kept from deciding: those that meet more matchers come first.
    pub(super) fn near_misses(&self, decisive: Option<&Route>, asked: Option<&Asked>) -> Vec<NearMiss> {
        let before = self
            .routing
            .routes()
            .iter()
            .take_while(|route| decisive.is_none_or(|decisive| !std::ptr::eq(&raw const ***route, decisive)));
        let mut near: Vec<_> = before
            .enumerate()
            .filter_map(|(place, route)| {
                let mut misses = route.misses(self.submitter, asked);
                let (Some(only), None) = (misses.next(), misses.next()) else { return None };
                let configured = self.configured(place, route)?;
                let met = MATCHERS.into_iter().filter(|matcher| *matcher != only && is_written(*matcher, configured));
                let near = NearMiss {
                    number: place + 1,
                    name: route.name.clone(),
                    matcher: only.to_string(),
                    text: format!("{} {}", self.has(only, asked), wanted(only, configured)),
                };
                Some((met.count(), near))
            })
            .collect();
        near.sort_by_key(|(met, _)| std::cmp::Reverse(*met));
        near.into_iter().map(|(_, near)| near).take(MAX_NEAR).collect()
    }

    /// What the message has where a matcher looks, as the subject of a sentence that says no.
    fn has(&self, matcher: Miss, asked: Option<&Asked>) -> String {
        match matcher {
            Miss::Listener => format!("{} is not", self.submitter.listener),
            Miss::Network => self.submitter.client.map_or_else(String::new, |client| format!("{client} is not")),
            Miss::User => match self.submitter.user {
                Some(user) => format!("{user} is not"),
                None => "nobody logs in, and it wants".to_owned(),
            },
            Miss::Sender => match self.submitter.sender.mailbox() {
                Some(sender) => format!("{sender} is not"),
                None => "the message names no sender that is".to_owned(),
            },
            Miss::Recipient => match asked {
                Some(Asked::Mailbox { mailbox, .. }) => format!("{mailbox} is not"),
                Some(Asked::Postmaster) | None => "postmaster without a domain is not".to_owned(),
            },
        }
    }

    /// How a matcher is met; none if it is left out.
    fn met(&self, matcher: Miss, route: &Configured, asked: &Asked) -> Option<String> {
        let pattern = |patterns: &Option<Vec<AddressPattern>>, key: Option<&AddressKey>| {
            let holds = |pattern: &&AddressPattern| {
                let set = AddressSet::new([*pattern]);
                set.has_all() || key.is_some_and(|key| set.contains(key))
            };
            patterns.as_ref()?.iter().find(holds).map(ToString::to_string)
        };
        let text = match matcher {
            Miss::Listener => route.listeners.as_ref().map(|_| self.submitter.listener.to_owned()),
            Miss::Network => {
                let client = self.submitter.client?;
                let network = route.networks.as_ref()?.iter().find(|network| network.contains(client))?;
                Some(format!("{client} is in {network}"))
            }
            Miss::User => route.users.as_ref().and(self.submitter.user).map(str::to_owned),
            Miss::Sender => {
                let pattern = pattern(&route.senders, self.submitter.sender.key())?;
                Some(in_pattern(self.submitter.sender.mailbox(), &pattern))
            }
            Miss::Recipient => {
                let pattern = pattern(&route.recipients, asked.key())?;
                let mailbox = match asked {
                    Asked::Mailbox { mailbox, .. } => Some(mailbox),
                    Asked::Postmaster => None,
                };
                Some(in_pattern(mailbox, &pattern))
            }
        };
        text.map(|text| format!("{matcher}: {text}"))
    }
}

fn in_pattern(mailbox: Option<&mail::Mailbox>, pattern: &str) -> String {
    match mailbox {
        Some(mailbox) if mailbox.to_string() == pattern => pattern.to_owned(),
        Some(mailbox) => format!("{mailbox} is in {pattern}"),
        None => pattern.to_owned(),
    }
}

fn is_written(matcher: Miss, route: &Configured) -> bool {
    match matcher {
        Miss::Listener => route.listeners.is_some(),
        Miss::Network => route.networks.is_some(),
        Miss::User => route.users.is_some(),
        Miss::Sender => route.senders.is_some(),
        Miss::Recipient => route.recipients.is_some(),
    }
}

/// What a matcher wants, behind "is not".
fn wanted(matcher: Miss, route: &Configured) -> String {
    match matcher {
        Miss::Listener => listed("", route.listeners.iter().flatten().map(Name::as_str)),
        Miss::Network => listed("in ", route.networks.iter().flatten()),
        Miss::User => {
            listed("", route.users.as_deref().unwrap_or_default().iter().map(|name| name.as_str().to_owned()))
        }
        Miss::Sender => listed("in ", route.senders.iter().flatten()),
        Miss::Recipient => listed("in ", route.recipients.iter().flatten()),
    }
}

fn listed(before: &str, wanted: impl Iterator<Item = impl Display>) -> String {
    let wanted: Vec<_> = wanted.map(|wanted| wanted.to_string()).collect();
    let shown = wanted.iter().take(MAX_WANTED).map(String::as_str).collect::<Vec<_>>().join(" or ");
    match wanted.len().saturating_sub(MAX_WANTED) {
        0 => format!("{before}{shown}"),
        more => format!("{before}{shown} or {more} more"),
    }
}

/// The sender that decides, for a sentence.
pub(super) fn named(sender: &Sender) -> String {
    sender.mailbox().map_or_else(|| "a message that names no sender".to_owned(), ToString::to_string)
}
