//! Finds the routes that may take a message without looking at all of them: each is filed under its most telling matcher.
//! What is found is asked in full afterwards; what is not found could not match.

use std::collections::HashMap;

use super::address_set::AddressKey;
use crate::config::AddressPattern;

/// Places in the list of routes, by what they are filed under; each list in order.
#[derive(Debug, Default)]
pub(crate) struct Index {
    senders: HashMap<String, Vec<usize>>,
    users: HashMap<String, Vec<usize>>,
    recipients: HashMap<String, Vec<usize>>,
    /// All that stand in `recipients`.
    by_recipients: Vec<usize>,
    rest: Vec<usize>,
}

/// The lists that are gone through together.
const LISTS: usize = 6;

/// What a route asks for.
pub(crate) struct Filing<'a> {
    pub(crate) senders: Option<&'a [AddressPattern]>,
    /// In lower case.
    pub(crate) users: Option<&'a [String]>,
    pub(crate) recipients: Option<&'a [AddressPattern]>,
}

impl Index {
    /// Files the route at `place`; places come in order.
    pub(crate) fn file(&mut self, place: usize, filing: &Filing<'_>) {
        let list = if let Some(keys) = filing.senders.and_then(keys) {
            (&mut self.senders, keys)
        } else if let Some(users) = filing.users {
            (&mut self.users, users.to_vec())
        } else if let Some(keys) = filing.recipients.and_then(keys) {
            self.by_recipients.push(place);
            (&mut self.recipients, keys)
        } else {
            return self.rest.push(place);
        };
        let (map, keys) = list;
        for key in keys {
            let places = map.entry(key).or_default();
            // One pattern may stand twice in a route.
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }

    /// Places of routes that are filed under their recipients alone.
    pub(crate) fn by_recipients(&self) -> impl Iterator<Item = usize> {
        self.by_recipients.iter().copied()
    }

    /// Places of routes that may match, in order: all that do are among them.
    pub(crate) fn candidates(
        &self,
        sender: Option<&AddressKey>,
        user: Option<&str>,
        recipient: Option<&AddressKey>,
    ) -> impl Iterator<Item = usize> {
        let user = user.map(str::to_ascii_lowercase);
        let domain = |key: &AddressKey| format!("@{}", key.domain());
        merged([
            found(&self.senders, sender.map(AddressKey::address)),
            found(&self.senders, sender.map(domain).as_deref()),
            found(&self.users, user.as_deref()),
            found(&self.recipients, recipient.map(AddressKey::address)),
            found(&self.recipients, recipient.map(domain).as_deref()),
            &self.rest,
        ])
    }
}

/// None if a pattern means all addresses: then it tells nothing.
fn keys(patterns: &[AddressPattern]) -> Option<Vec<String>> {
    let key = |pattern: &AddressPattern| match pattern {
        AddressPattern::Any => None,
        AddressPattern::Domain(domain) => Some(format!("@{}", domain.as_str().to_ascii_lowercase())),
        AddressPattern::Address(address) => Some(AddressKey::from(address).address().to_owned()),
    };
    patterns.iter().map(key).collect()
}

fn found<'a>(map: &'a HashMap<String, Vec<usize>>, key: Option<&str>) -> &'a [usize] {
    key.and_then(|key| map.get(key)).map_or(&[], Vec::as_slice)
}

/// All that are in any of the lists, in order and each once.
fn merged(mut lists: [&[usize]; LISTS]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let least = lists.iter().filter_map(|list| list.first().copied()).min()?;
        for list in &mut lists {
            if list.first() == Some(&least) {
                *list = &list[1..];
            }
        }
        Some(least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_gone_through_in_order_and_each_place_once() {
        let lists: [&[usize]; LISTS] = [&[1, 4], &[], &[0, 4, 9], &[2], &[4], &[3, 10]];
        assert_eq!(merged(lists).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 9, 10]);
    }
}
