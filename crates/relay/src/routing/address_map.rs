//! `[rewrite]` at work: what an address becomes. Applied once, so that a rule never meets another rule's result; the rule
//! for one address comes before that for its domain.

use std::collections::HashMap;

use mail::{Domain, Mailbox};

use super::address_set::AddressKey;
use crate::config::{self, Place};

/// A map of addresses, looked up rather than gone through.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressMap {
    /// By address, and by domain behind an `@`, in lower case.
    rules: HashMap<String, Place>,
}

impl AddressMap {
    /// As configured.
    pub(crate) fn new(map: &config::AddressMap) -> Self {
        Self { rules: map.0.iter().map(|(old, new)| (old.clone(), new.clone())).collect() }
    }

    /// What `address` becomes; none if no rule is for it, or it becomes what it is.
    pub(crate) fn mapped(&self, address: &Mailbox) -> Option<Mailbox> {
        if self.rules.is_empty() {
            return None;
        }
        let key = AddressKey::from(address);
        let rule = self.rules.get(key.address()).or_else(|| self.rules.get(&format!("@{}", key.domain())))?;
        let new = match rule {
            Place::Address(new) => new.clone(),
            Place::Domain(domain) => in_domain(address, domain)?,
        };
        (new != *address).then_some(new)
    }
}

/// The same local part elsewhere.
fn in_domain(address: &Mailbox, domain: &Domain) -> Option<Mailbox> {
    // A right local part and a right domain make a right address.
    format!("{}@{domain}", address.local_part()).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_rule_for_an_address_comes_before_that_for_its_domain() {
        let place = |text: &str| match text.strip_prefix('@') {
            Some(domain) => Place::Domain(domain.parse().unwrap()),
            None => Place::Address(text.parse().unwrap()),
        };
        let rules = [
            ("root@erp01", "erp@contoso.com"),
            ("@erp01", "@contoso.com"),
            ("@all.old", "one@contoso.com"),
            ("@contoso.com", "@fabrikam.com"),
            ("same@contoso.com", "same@contoso.com"),
        ];
        let rules: BTreeMap<_, _> = rules.iter().map(|(old, new)| ((*old).to_owned(), place(new))).collect();
        let map = AddressMap::new(&config::AddressMap(rules));
        for (address, becomes) in [
            ("Root@ERP01", Some("erp@contoso.com")),
            ("Cron@erp01", Some("Cron@contoso.com")),
            ("\"a b\"@erp01", Some("\"a b\"@contoso.com")),
            ("anybody@all.old", Some("one@contoso.com")),
            ("x@contoso.com", Some("x@fabrikam.com")),
            ("same@contoso.com", None),
            ("x@sub.contoso.com", None),
        ] {
            let mapped = map.mapped(&address.parse().unwrap()).map(|address| address.to_string());
            assert_eq!(mapped.as_deref(), becomes, "{address}");
        }
    }
}
