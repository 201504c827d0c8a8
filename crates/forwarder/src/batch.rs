//! Which recipients go in one message: as many as Exchange takes at a time, and as the day still has. Pure; of a delivery the
//! others go in the next, to a client that waits they are refused for now.

use std::collections::HashMap;

use mail::{Domain, ForwardPath, Recipient};

/// Exchange answers 452 4.5.3 to more recipients of one domain in a message (facts sections 1.6 and 2).
const SAME_DOMAIN: usize = 200;

/// How many may go in a message.
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

/// The recipients of one message so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// What they cost.
    pub(crate) spent: Spent,
    domains: HashMap<String, usize>,
}

/// What has no place for another recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The message, whoever the recipient is.
    Message,
    /// The message, for recipients of this domain.
    Domain,
    /// The login's day.
    Day,
    /// The tenant's day, for external recipients.
    External,
}

impl Load {
    /// One more, where all of the message may take up so much `room`.
    pub(crate) fn add(&mut self, recipient: &Recipient, room: Room, internal: &[Domain]) -> Result<(), Full> {
        if self.spent.recipients >= room.message as u64 {
            return Err(Full::Message);
        }
        if self.spent.recipients >= room.day {
            return Err(Full::Day);
        }
        let is_external = is_external(recipient, internal);
        let domain = domain(recipient);
        if self.domains.get(&domain).is_some_and(|count| *count >= SAME_DOMAIN) {
            return Err(Full::Domain);
        }
        if is_external && self.spent.external >= room.external {
            return Err(Full::External);
        }
        *self.domains.entry(domain).or_default() += 1;
        self.spent.recipients += 1;
        self.spent.external += u64::from(is_external);
        Ok(())
    }
}

/// The positions of those that go, in their order, and what they load the message with.
pub(crate) fn choose(recipients: &[Recipient], room: Room, internal: &[Domain]) -> (Vec<usize>, Load) {
    let (mut chosen, mut load) = (Vec::new(), Load::default());
    for (position, recipient) in recipients.iter().enumerate() {
        match load.add(recipient, room, internal) {
            Ok(()) => chosen.push(position),
            Err(Full::Message | Full::Day) => break,
            Err(Full::Domain | Full::External) => {}
        }
    }
    (chosen, load)
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
        let (chosen, load) = choose(&all, ALL, &internal());
        assert_eq!(chosen.len(), 3 + 200 + 200);
        assert_eq!(load.spent, Spent { recipients: 403, external: 403 });
        assert_eq!(choose(&all, Room { message: 5, ..ALL }, &internal()).0, [0, 1, 2, 3, 4]);
        assert_eq!(choose(&all, Room { day: 2, ..ALL }, &internal()).0, [0, 1]);
    }

    #[test]
    fn a_tenant_without_external_recipients_left_still_serves_its_own() {
        let mixed = [people(2, "x.example"), people(2, "Contoso.com"), vec![ForwardPath::Postmaster.into()]].concat();
        let (chosen, load) = choose(&mixed, Room { external: 1, ..ALL }, &internal());
        assert_eq!((chosen, load.spent), (vec![0, 2, 3, 4], Spent { recipients: 4, external: 1 }));
        let (chosen, _) = choose(&people(3, "x.example"), Room { external: 0, ..ALL }, &internal());
        assert!(chosen.is_empty());
    }

    #[test]
    fn who_finds_no_place_hears_what_is_full() {
        let of = |address: &str| Recipient::from(ForwardPath::parse(address.as_bytes()).unwrap());
        let (theirs, ours) = (of("a@x.example"), of("a@contoso.com"));
        let before = |theirs: usize, ours: usize| {
            let mut load = Load::default();
            for recipient in [people(theirs, "X.example"), people(ours, "contoso.com")].concat() {
                load.add(&recipient, ALL, &internal()).unwrap();
            }
            load
        };
        for (had, room, next, told) in [
            ((0, 0), ALL, &theirs, Ok(())),
            ((4, 0), Room { message: 4, ..ALL }, &theirs, Err(Full::Message)),
            ((2, 2), Room { day: 4, ..ALL }, &ours, Err(Full::Day)),
            ((200, 0), ALL, &theirs, Err(Full::Domain)),
            ((200, 0), ALL, &ours, Ok(())),
            ((2, 2), Room { external: 2, ..ALL }, &theirs, Err(Full::External)),
            ((2, 2), Room { external: 2, ..ALL }, &ours, Ok(())),
        ] {
            let mut load = before(had.0, had.1);
            assert_eq!(load.add(next, room, &internal()), told, "{had:?} {room:?} {next}");
            let added = u64::from(told.is_ok());
            assert_eq!(load.spent.recipients, had.0 as u64 + had.1 as u64 + added, "who has no place is not counted");
        }
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
                let (chosen, load) = choose(&waiting, Room { message, ..ALL }, &[]);
                prop_assert!(!chosen.is_empty() && chosen.len() <= message);
                prop_assert_eq!(load.spent.recipients, chosen.len() as u64);
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
