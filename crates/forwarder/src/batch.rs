//! Which recipients of a delivery go in one message: as many as Exchange takes at a time, and as the day still has. Pure;
//! the others go in the next.

use std::collections::HashMap;

use mail::{Domain, ForwardPath, Recipient};

/// Exchange answers 452 4.5.3 to more recipients of one domain in a message (facts sections 1.6 and 2).
const SAME_DOMAIN: usize = 200;

/// How many may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// In one message.
    pub(crate) message: usize,
    /// What the login's day still has.
    pub(crate) day: u64,
    /// What the tenant's day still has of external ones.
    pub(crate) external: u64,
}

/// Recipients that upstream counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// All of them.
    pub recipients: u64,
    /// Those beyond the tenant's own domains, of them.
    pub external: u64,
}

/// The positions of those that go, in their order, and what they cost.
pub(crate) fn choose(recipients: &[Recipient], room: Room, internal: &[Domain]) -> (Vec<usize>, Spent) {
    let (mut chosen, mut spent) = (Vec::new(), Spent::default());
    let mut domains: HashMap<String, usize> = HashMap::new();
    for (position, recipient) in recipients.iter().enumerate() {
        if chosen.len() >= room.message || spent.recipients >= room.day {
            break;
        }
        let is_external = is_external(recipient, internal);
        let of_domain = domains.entry(domain(recipient)).or_default();
        if *of_domain >= SAME_DOMAIN || (is_external && spent.external >= room.external) {
            continue;
        }
        *of_domain += 1;
        spent.recipients += 1;
        spent.external += u64::from(is_external);
        chosen.push(position);
    }
    (chosen, spent)
}

/// Whether Exchange counts it against the tenant's external recipients.
pub(crate) fn is_external(recipient: &Recipient, internal: &[Domain]) -> bool {
    match &recipient.path {
        ForwardPath::Postmaster => false,
        ForwardPath::Mailbox(mailbox) => !internal.contains(mailbox.domain()),
    }
}

fn domain(recipient: &Recipient) -> String {
    match &recipient.path {
        ForwardPath::Postmaster => String::new(),
        ForwardPath::Mailbox(mailbox) => mailbox.domain().as_str().to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Room = Room { message: 500, day: u64::MAX, external: u64::MAX };

    fn people(count: usize, domain: &str) -> Vec<Recipient> {
        let one = |number| ForwardPath::parse(format!("r{number}@{domain}").as_bytes()).unwrap().into();
        (0..count).map(one).collect()
    }

    fn internal() -> Vec<Domain> {
        vec![Domain::parse("contoso.com").unwrap()]
    }

    #[test]
    fn no_message_has_more_than_it_may() {
        let all =
            [people(3, "a.example"), people(250, "b.example"), people(300, "B.Example"), people(400, "c.example")]
                .concat();
        let (chosen, spent) = choose(&all, ALL, &internal());
        assert_eq!(chosen.len(), 3 + 200 + 200);
        assert_eq!(spent, Spent { recipients: 403, external: 403 });
        assert_eq!(choose(&all, Room { message: 5, ..ALL }, &internal()).0, [0, 1, 2, 3, 4]);
        assert_eq!(choose(&all, Room { day: 2, ..ALL }, &internal()).0, [0, 1]);
    }

    #[test]
    fn a_tenant_without_external_recipients_left_still_serves_its_own() {
        let mixed = [people(2, "x.example"), people(2, "Contoso.com"), vec![ForwardPath::Postmaster.into()]].concat();
        let (chosen, spent) = choose(&mixed, Room { external: 1, ..ALL }, &internal());
        assert_eq!((chosen, spent), (vec![0, 2, 3, 4], Spent { recipients: 4, external: 1 }));
        let (chosen, _) = choose(&people(3, "x.example"), Room { external: 0, ..ALL }, &internal());
        assert!(chosen.is_empty());
    }

    proptest! {
        /// Message after message, everybody goes exactly once.
        #[test]
        fn nobody_is_left_or_goes_twice(
            domains in proptest::collection::vec(0u8..3, 1..1200),
            message in 1usize..600,
        ) {
            let mut waiting: Vec<Recipient> =
                domains.iter().map(|domain| people(1, &format!("d{domain}.example")).remove(0)).collect();
            let mut rounds = 0;
            while !waiting.is_empty() {
                let (chosen, spent) = choose(&waiting, Room { message, ..ALL }, &[]);
                prop_assert!(!chosen.is_empty() && chosen.len() <= message && spent.recipients == chosen.len() as u64);
                prop_assert!(chosen.is_sorted_by(|one, other| one < other));
                for position in chosen.into_iter().rev() {
                    waiting.remove(position);
                }
                rounds += 1;
                prop_assert!(rounds <= domains.len());
            }
        }
    }
}
