//! Addresses as patterns mean them, looked up rather than gone through: an administrator may list thousands. Compared
//! without regard to ASCII case, as Exchange does.

use std::collections::HashSet;

use mail::Mailbox;

use crate::config::AddressPattern;

/// An address as sets and maps look it up: folded once, asked often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressKey {
    folded: String,
    domain: usize,
}

impl AddressKey {
    /// `local-part@domain` in lower case.
    pub(crate) fn address(&self) -> &str {
        &self.folded
    }

    /// The domain in lower case.
    pub(crate) fn domain(&self) -> &str {
        &self.folded[self.domain..]
    }
}

impl From<&Mailbox> for AddressKey {
    fn from(mailbox: &Mailbox) -> Self {
        let mut folded = unquoted(mailbox).unwrap_or_else(|| mailbox.to_string());
        folded.make_ascii_lowercase();
        Self { domain: folded.len() - mailbox.domain().as_str().len(), folded }
    }
}

/// The address without quotes that it does not need (RFC 5321 section 4.1.2): whoever writes them means nobody else, and
/// no rule is to be got round by them.
fn unquoted(mailbox: &Mailbox) -> Option<String> {
    let inside = mailbox.local_part().strip_prefix('"')?.strip_suffix('"')?;
    let mut escaped = false;
    let is_sign = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    let plain: String = inside.chars().filter(is_sign).collect();
    let bare = format!("{plain}@{}", mailbox.domain());
    bare.parse::<Mailbox>().is_ok().then_some(bare)
}

/// A set of addresses, made from patterns.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressSet {
    has_all: bool,
    domains: HashSet<String>,
    addresses: HashSet<String>,
}

impl AddressSet {
    /// What any of `patterns` means.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = &'a AddressPattern>) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            match pattern {
                AddressPattern::Any => set.has_all = true,
                AddressPattern::Domain(domain) => {
                    set.domains.insert(domain.as_str().to_ascii_lowercase());
                }
                AddressPattern::Address(address) => set.add(address),
            }
        }
        set
    }

    /// One address more.
    pub(crate) fn add(&mut self, address: &Mailbox) {
        self.addresses.insert(AddressKey::from(address).folded);
    }

    /// Whether the address is in it.
    pub(crate) fn contains(&self, address: &AddressKey) -> bool {
        self.has_all || self.domains.contains(address.domain()) || self.addresses.contains(address.address())
    }

    /// Whether every address there is is in it.
    pub(crate) fn has_all(&self) -> bool {
        self.has_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_addresses_without_regard_to_case() {
        let pattern = |text: &str| match text.strip_prefix("*@") {
            Some(domain) => AddressPattern::Domain(domain.parse().unwrap()),
            None => AddressPattern::Address(text.parse().unwrap()),
        };
        let patterns = [pattern("*@Contoso.com"), pattern("Root@erp01"), pattern("\"a@b\"@c.d")];
        let set = AddressSet::new(&patterns);
        for (address, is_in_it) in [
            ("x@contoso.COM", true),
            ("x@sub.contoso.com", false),
            ("contoso.com@other.test", false),
            ("ROOT@ERP01", true),
            ("root@erp02", false),
            ("\"A@B\"@C.d", true),
            ("\"ro\\ot\"@erp01", true),
            ("\"roo t\"@erp01", false),
        ] {
            let mailbox: Mailbox = address.parse().unwrap();
            assert_eq!(set.contains(&AddressKey::from(&mailbox)), is_in_it, "{address}");
        }
        assert!(!set.has_all() && AddressSet::new(&[AddressPattern::Any]).has_all());
    }

    #[test]
    fn the_domain_of_a_key_is_behind_the_last_at() {
        let mailbox: Mailbox = "\"a@b\"@C.d".parse().unwrap();
        let key = AddressKey::from(&mailbox);
        assert_eq!((key.address(), key.domain()), ("\"a@b\"@c.d", "c.d"));
    }
}
