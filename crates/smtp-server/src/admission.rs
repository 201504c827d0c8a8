//! Counts open sessions, in all and by client address, and says who may open one more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;

/// Why a connection gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The listener has all the sessions it may have.
    Listener,
    /// This client address has.
    Client,
}

/// The sessions of one listener as an operator sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Open now.
    pub open: usize,
    /// How many there may be.
    pub max: usize,
    /// Opened since the start, those that the intake refused included.
    pub admitted: u64,
    /// Clients that heard 421 since the start because they or the listener had all the sessions they may have.
    pub turned_away: u64,
}

/// Follows the sessions of one server, which is given away when it serves; clones see the same.
#[derive(Clone, Debug)]
pub struct SessionWatch(Arc<Admission>);

impl SessionWatch {
    pub(crate) fn new(admission: &Arc<Admission>) -> Self {
        Self(Arc::clone(admission))
    }

    /// The counts now.
    pub fn counts(&self) -> SessionCounts {
        self.0.status()
    }
}

/// Admits sessions up to two bounds, and no faster from one client than those could ever be worked off.
#[derive(Debug)]
pub(crate) struct Admission {
    open: Mutex<Open>,
    arrivals: Mutex<Arrivals>,
}

#[derive(Debug, Default)]
struct Open {
    max_connections: usize,
    max_connections_per_client: usize,
    /// Admitted and turned away since the start.
    admitted: u64,
    refused: u64,
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A place in the count, given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    /// None while a load balancer has not said whose it is.
    client: Option<IpAddr>,
}

impl Admission {
    pub(crate) fn new(max_connections: usize, max_connections_per_client: usize) -> Arc<Self> {
        let arrivals = Mutex::new(Arrivals::new(max_connections_per_client));
        let open = Open { max_connections, max_connections_per_client, ..Open::default() };
        Arc::new(Self { open: Mutex::new(open), arrivals })
    }

    /// Other bounds for whoever comes from now on; those who are in stay.
    pub(crate) fn set_bounds(&self, max_connections: usize, max_connections_per_client: usize) {
        let mut open = self.open();
        (open.max_connections, open.max_connections_per_client) = (max_connections, max_connections_per_client);
        drop(open);
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).set_rate(max_connections_per_client);
    }

    /// How long a session of `client` that begins now waits for its banner.
    pub(crate) fn pace(&self, client: IpAddr, now: Instant) -> Duration {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).arrive(client.to_canonical(), now)
    }

    /// A ticket for a session whose client is not known yet, which counts in all.
    pub(crate) fn admit_unnamed(self: &Arc<Self>) -> Result<Ticket, Full> {
        let mut open = self.open();
        if open.total >= open.max_connections {
            open.refused += 1;
            return Err(Full::Listener);
        }
        open.admitted += 1;
        open.total += 1;
        Ok(Ticket { admission: Arc::clone(self), client: None })
    }

    /// A ticket for one more session of `client`, or the bound that stands against it.
    pub(crate) fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Ticket, Full> {
        let client = client.to_canonical();
        let mut open = self.open();
        if let Some(full) = open.full(client) {
            open.refused += 1;
            return Err(full);
        }
        open.admitted += 1;
        *open.by_client.entry(client).or_default() += 1;
        open.total += 1;
        Ok(Ticket { admission: Arc::clone(self), client: Some(client) })
    }

    /// The counts now.
    pub(crate) fn status(&self) -> SessionCounts {
        let open = self.open();
        SessionCounts {
            open: open.total,
            max: open.max_connections,
            admitted: open.admitted,
            turned_away: open.refused,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Counts are changed in one step; a panic elsewhere cannot leave them half-changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn full(&self, client: IpAddr) -> Option<Full> {
        let of_client = self.by_client.get(&client).copied().unwrap_or_default();
        if self.total >= self.max_connections {
            Some(Full::Listener)
        } else if of_client >= self.max_connections_per_client {
            Some(Full::Client)
        } else {
            None
        }
    }
}

impl Ticket {
    /// The ticket with its client, unless that one has all the sessions it may have.
    pub(crate) fn name(mut self, client: IpAddr) -> Result<Self, Full> {
        let client = client.to_canonical();
        {
            let mut open = self.admission.open();
            let of_client = open.by_client.get(&client).copied().unwrap_or_default();
            if of_client >= open.max_connections_per_client {
                open.refused += 1;
                return Err(Full::Client);
            }
            open.by_client.insert(client, of_client + 1);
        }
        self.client = Some(client);
        Ok(self)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.total -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = open.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                open.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_places_come_back() {
        let admission = Admission::new(3, 2);
        let (one, mapped, two): (IpAddr, IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "::ffff:192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = admission.admit(one).unwrap();
        let _second = admission.admit(mapped).unwrap();
        assert_eq!(admission.admit(one).unwrap_err(), Full::Client);
        let third = admission.admit(two).unwrap();
        assert_eq!(admission.admit(two).unwrap_err(), Full::Listener);
        drop(first);
        drop(third);
        let _again = admission.admit(one).unwrap();
        assert_eq!(admission.status(), SessionCounts { open: 2, max: 3, admitted: 4, turned_away: 2 });
        assert_eq!(admission.open().total, 2);
        assert_eq!(admission.open().by_client.len(), 1);
    }

    #[test]
    fn other_bounds_hold_for_who_comes_and_throw_nobody_out() {
        let admission = Admission::new(3, 2);
        let (one, two): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = admission.admit(one).unwrap();
        let _second = admission.admit(one).unwrap();
        admission.set_bounds(2, 1);
        assert_eq!(admission.admit(two).unwrap_err(), Full::Listener);
        drop(first);
        assert_eq!(admission.admit(one).unwrap_err(), Full::Client);
        let _third = admission.admit(two).unwrap();
        admission.set_bounds(4, 2);
        let _fourth = admission.admit(one).unwrap();
        assert_eq!((admission.status().open, admission.status().max), (3, 4));
    }

    #[test]
    fn a_place_behind_a_load_balancer_is_its_clients_once_that_is_named() {
        let admission = Admission::new(3, 1);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admission.admit_unnamed().unwrap().name(client).unwrap();
        assert_eq!(admission.admit_unnamed().unwrap().name(client).unwrap_err(), Full::Client);
        assert_eq!(admission.admit(client).unwrap_err(), Full::Client);
        let _others = (admission.admit_unnamed().unwrap(), admission.admit_unnamed().unwrap());
        assert_eq!(admission.admit_unnamed().unwrap_err(), Full::Listener);
        drop(first);
        assert_eq!(admission.status().open, 2);
        assert!(admission.open().by_client.is_empty());
    }
}
