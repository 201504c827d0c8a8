//! Addresses of the configuration: mailboxes, patterns of them, and maps from one to another.

use std::collections::BTreeMap;
use std::fmt;

use config::ValueKind;
use serde_json::Value as Json;

use super::reading::Table;
#[cfg(test)]
use super::sample::Chance;
use super::schema::Shape;
use super::value::{Scalar, Value, Wrong, allowed, kind_name, scalar};

impl Scalar for mail::Mailbox {
    fn allowed() -> String {
        "an address such as \"scanner@contoso.com\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::String(self.to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("user{}@{}", chance.below(1000), chance.domain()))
    }
}

impl Scalar for mail::Domain {
    fn allowed() -> String {
        "a domain such as \"contoso.com\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        Self::parse(text).map_err(|_| Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::String(self.to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(chance.domain())
    }
}

/// An address, or none when written `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalAddress(pub Option<mail::Mailbox>);

impl Scalar for OptionalAddress {
    fn allowed() -> String {
        "an address such as \"postmaster@contoso.com\", or \"\" for none".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() { Ok(Self(None)) } else { Scalar::parse(text).map(|address| Self(Some(address))) }
    }

    fn json(&self) -> Json {
        Json::String(self.0.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        if chance.below(3) == 0 { Json::from("") } else { <mail::Mailbox as Scalar>::sample(chance) }
    }
}

/// Which addresses are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// `*`
    Any,
    /// `*@contoso.com`
    Domain(mail::Domain),
    /// `scanner@contoso.com`
    Address(mail::Mailbox),
}

impl AddressPattern {
    /// All of them.
    pub(crate) fn any() -> Vec<Self> {
        vec![Self::Any]
    }
}

impl Scalar for AddressPattern {
    fn allowed() -> String {
        "an address such as \"erp@contoso.com\", a domain as \"*@contoso.com\", or \"*\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_prefix("*@") {
            Some(domain) => <mail::Domain as Scalar>::parse(domain).map(Self::Domain),
            // `erp*@x` would be taken for an address with an asterisk in it, and match nothing.
            None if text.contains('*') => Err(Wrong::NotAllowed),
            None => Scalar::parse(text).map(Self::Address),
        }
    }

    fn json(&self) -> Json {
        Json::String(self.to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        match chance.below(3) {
            0 => Json::from("*"),
            1 => Json::String(format!("*@{}", chance.domain())),
            _ => <mail::Mailbox as Scalar>::sample(chance),
        }
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Domain(domain) => write!(f, "*@{domain}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The address of a mailbox, or of all mailboxes of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxAddress {
    /// One mailbox.
    One(mail::Mailbox),
    /// `*@contoso.com`: the message's own sender is the mailbox.
    Wildcard(mail::Domain),
}

impl MailboxAddress {
    /// The address of one mailbox.
    pub fn one(&self) -> Option<&mail::Mailbox> {
        match self {
            Self::One(address) => Some(address),
            Self::Wildcard(_) => None,
        }
    }
}

impl Scalar for MailboxAddress {
    fn allowed() -> String {
        "an address such as \"scanner@contoso.com\", or \"*@contoso.com\" for the sender's own mailbox".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match AddressPattern::parse(text)? {
            AddressPattern::Any => Err(Wrong::NotAllowed),
            AddressPattern::Domain(domain) => Ok(Self::Wildcard(domain)),
            AddressPattern::Address(address) => Ok(Self::One(address)),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::One(address) => Json::String(address.to_string()),
            Self::Wildcard(domain) => Json::String(format!("*@{domain}")),
        }
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        <mail::Mailbox as Scalar>::sample(chance)
    }
}

/// One side of a map: an address, or all of a domain as `@contoso.com`.
#[derive(Clone, Debug)]
pub enum Place {
    /// `root@erp01`
    Address(mail::Mailbox),
    /// `@old.local`
    Domain(mail::Domain),
}

impl Scalar for Place {
    fn allowed() -> String {
        "an address such as \"root@erp01\", or a domain as \"@old.local\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix('@') {
            Some(domain) => <mail::Domain as Scalar>::parse(domain).map(Self::Domain).map_err(|_| Wrong::NotAllowed),
            None => Scalar::parse(text).map(Self::Address),
        }
    }

    fn json(&self) -> Json {
        Json::String(self.to_string())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        if chance.below(2) == 0 {
            Json::String(format!("@{}", chance.domain()))
        } else {
            <mail::Mailbox as Scalar>::sample(chance)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

/// What addresses become, by the address or domain they are. The environment has it as `old=new,old=new`.
#[derive(Clone, Debug, Default)]
pub struct AddressMap(pub BTreeMap<String, Place>);

impl AddressMap {
    fn take(&mut self, old: &str, new: Place) -> Result<(), String> {
        let from = Place::parse(old).map_err(|wrong| wrong.tell::<Place>(old))?;
        if matches!((&from, &new), (Place::Address(_), Place::Domain(_))) {
            return Err(format!("{old:?} is one address and cannot become all of {new}"));
        }
        self.0.insert(from.to_string().to_ascii_lowercase(), new);
        Ok(())
    }
}

impl Value for AddressMap {
    fn shape() -> Shape {
        Shape::Map(allowed::<Place>(), allowed::<Place>())
    }

    fn read(table: &mut Table<'_>, key: &str) -> Option<Self> {
        let found = table.take(key)?;
        let mut pairs: Vec<(String, config::Value)> = match &found.raw.kind {
            ValueKind::Table(entries) => entries.iter().map(|(old, new)| (old.clone(), new.clone())).collect(),
            ValueKind::String(text) if found.is_from_environment() => text
                .split(',')
                .filter(|pair| !pair.trim().is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(old, new)| (old.trim().to_owned(), config::Value::from(new.trim())))
                .collect(),
            other => {
                table.wrong(
                    &found,
                    format!(
                        "must be a table such as {{ \"@old.local\" = \"@contoso.com\" }}, not {}",
                        kind_name(other)
                    ),
                );
                return None;
            }
        };
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        let mut map = Self::default();
        let mut right = true;
        for (old, raw) in pairs {
            let taken = scalar(&raw, found.is_from_environment()).and_then(|new| map.take(&old, new));
            if let Err(text) = taken {
                table.wrong_item(&found, &raw, text);
                right = false;
            }
        }
        right.then_some(map)
    }

    fn json(&self) -> Json {
        Json::Object(self.0.iter().map(|(old, new)| (old.clone(), Scalar::json(new))).collect())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        let old = Json::String(format!("@{}", chance.domain()));
        let entries = (0..chance.below(3))
            .map(|_| (old.as_str().unwrap_or_default().to_owned(), <Place as Scalar>::sample(chance)));
        Json::Object(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for text in ["*", "*@contoso.com", "erp@contoso.com", "root@erp01"] {
            assert_eq!(AddressPattern::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "contoso.com", "@contoso.com", "erp*@contoso.com", "*@*.contoso.com", "*@", "**"] {
            assert!(AddressPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn maps_go_from_one_to_one_and_from_many_to_one_but_not_from_one_to_many() {
        let mut map = AddressMap::default();
        let mut take = |old: &str, new: &str| map.take(old, Place::parse(new).unwrap());
        assert_eq!(take("root@erp01", "erp@contoso.com"), Ok(()));
        assert_eq!(take("@old.local", "@contoso.com"), Ok(()));
        assert_eq!(take("@older.local", "erp@contoso.com"), Ok(()));
        assert!(take("root@erp01", "@contoso.com").is_err());
        assert!(take("erp01", "erp@contoso.com").is_err());
    }
}
