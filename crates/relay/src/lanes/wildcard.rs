//! Lanes of wildcard mailboxes: each sender's own, opened when mail has come for it, ended when it has been idle, and never
//! more than so many at a time. A sender whose mailbox Exchange lets nobody log in to is remembered as such; where the route
//! has a fallback, his mail goes by that.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forwarder::{Allowance, Lane, TroubleKind};
use mail::{LaneId, LaneSet, Mailbox, Scope};
use spool::{Spool, StoreError};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::{Application, Design, Ended, Lanes, Place, Planned, Wanted};
use crate::delivery::Duty;
use crate::tokens::Tokens;
use crate::unknown_mailboxes::REMEMBERED_FOR;

/// Lanes of senders' own mailboxes at a time: each may have three connections. Mail for others waits until one is idle.
const MOST: usize = 500;
/// A lane without mail ends after this, so that the next sender finds a place.
const IDLE: Duration = Duration::from_mins(10);
/// How often open lanes are looked at, for one that Exchange lets nobody log in to.
const LOOK: Duration = Duration::from_secs(2);
/// How often the queue is looked at for lanes that nobody serves, and for those that nobody needs.
const SWEEP: Duration = Duration::from_mins(1);

/// A wildcard mailbox of the configuration.
pub(super) struct Wildcard {
    /// Its name.
    pub(super) mailbox: String,
    /// The tenant's name.
    pub(super) tenant: String,
    /// In lower case.
    pub(super) domain: String,
    pub(super) application: Arc<Application>,
    /// Our name.
    pub(super) hostname: String,
    /// Each of its mailboxes'.
    pub(super) allowance: Allowance,
}

impl Wildcard {
    /// Whether `id` is a lane of it.
    fn has(&self, id: &LaneId) -> bool {
        let domain = id.login().rsplit_once('@').map(|(_, domain)| domain);
        let tenant_id = self.application.tenant.tenant_id.as_str();
        domain == Some(self.domain.as_str()) && id.tenant_id().eq_ignore_ascii_case(tenant_id)
    }

    /// The lane of one of its mailboxes.
    fn planned(&self, id: &LaneId) -> Option<Planned> {
        let address: Mailbox = id.login().parse().ok()?;
        let endpoint = &self.application.endpoint;
        let design = Design {
            id: id.clone(),
            login: address.to_string(),
            seat: None,
            application: Arc::clone(&self.application),
            endpoint: forwarder::Endpoint { hostname: self.hostname.clone(), ..endpoint.clone() },
            allowance: self.allowance.clone(),
        };
        Some(Planned {
            design: Arc::new(design),
            tenant: self.tenant.clone(),
            mailboxes: vec![self.mailbox.clone()],
            address,
        })
    }
}

/// The lane `id` if it is one of `wildcards`.
pub(super) fn planned(wildcards: &[Wildcard], id: &LaneId) -> Option<Planned> {
    wildcards.iter().find(|wildcard| wildcard.has(id))?.planned(id)
}

/// What is known of an open lane between two looks.
#[derive(Default)]
struct Watched {
    /// Since when it has had nothing to do.
    idle: Option<Instant>,
}

impl Lanes {
    /// Opens and ends lanes of senders' own mailboxes as mail comes; runs until dropped.
    pub(crate) async fn keep_wildcards(self: Arc<Self>) {
        let mut watched: HashMap<LaneId, Watched> = HashMap::new();
        let mut swept: Option<Instant> = None;
        let mut looked = Instant::now();
        // Whether somebody has found no place since the last sweep.
        let mut is_crowded = false;
        loop {
            if !self.state().wildcards.is_empty() && swept.is_none_or(|at| at.elapsed() >= SWEEP) {
                is_crowded = self.sweep(&mut watched, is_crowded).await;
                swept = Some(Instant::now());
            }
            let pause = if self.open_wildcards().is_empty() { SWEEP } else { LOOK };
            tokio::select! {
                wanted = self.means.wanted.next() => {
                    for id in &wanted {
                        watched.remove(id);
                    }
                    self.give_to_fallback(&wanted).await;
                    is_crowded |= !self.open_wanted(wanted).await;
                }
                // From the last look on: mail that keeps coming must not put it off.
                () = sleep_until(looked + pause) => {
                    self.look().await;
                    looked = Instant::now();
                }
            }
        }
    }

    /// Those that are remembered as unknown, with how long ago that was learned.
    pub(crate) fn unknown_mailboxes(&self) -> Vec<(LaneId, Duration)> {
        self.means.unknown.list(self.means.clock.monotonic())
    }

    /// Lanes of senders' own mailboxes that run and are to stay.
    fn open_wildcards(&self) -> Vec<(LaneId, Arc<Lane<Tokens>>)> {
        let state = self.state();
        let of_wildcards = state.places.iter().filter(|(id, place)| place.is_wanted() && state.is_wildcard(id));
        of_wildcards.map(|(id, place)| (id.clone(), Arc::clone(&place.running.borrow().lane))).collect()
    }

    /// Opens that of one sender, for a client that waits, unless it is open; false where it cannot be had now.
    pub(super) async fn open_own(self: &Arc<Self>, id: &LaneId) -> bool {
        if self.means.unknown.contains(id, self.means.clock.monotonic()) {
            return false;
        }
        // Whoever ends idle lanes hears that it is in use, and looks whether anybody can log in to it.
        self.means.wanted.want(id.clone());
        let is_open = self.state().places.get(id).is_some_and(Place::is_wanted);
        is_open || self.open_wanted(BTreeSet::from([id.clone()])).await
    }

    /// Opens those that mail waits for, as far as there is room; whether there was for all.
    async fn open_wanted(self: &Arc<Self>, wanted: BTreeSet<LaneId>) -> bool {
        // A reload in between would leave lanes and tokens of what was configured before.
        let _changing = self.changing.lock().await;
        let now = self.means.clock.monotonic();
        let mut is_room_for_all = true;
        let mut room = MOST.saturating_sub(self.open_wildcards().len());
        for id in wanted {
            let planned = {
                let state = self.state();
                let is_open = state.places.get(&id).is_some_and(Place::is_wanted);
                if is_open || self.means.unknown.contains(&id, now) { None } else { planned(&state.wildcards, &id) }
            };
            let Some(Planned { design, tenant, mailboxes, address }) = planned else { continue };
            if room == 0 {
                is_room_for_all = false;
                debug!(lane = %id, most = MOST, "mail of this sender waits until another one's lane is idle");
                continue;
            }
            room -= 1;
            debug!(lane = %id, "lane opened for a sender's own mailbox");
            let queues = vec![LaneSet::from(&id)];
            self.start(design, Duty { tenant, mailboxes, address, queues }, None);
        }
        is_room_for_all
    }

    /// A sender's mailbox that Exchange lets nobody log in to is remembered; its mail goes by the fallback, if there is one.
    async fn look(&self) {
        let now = self.means.clock.monotonic();
        for (id, lane) in self.open_wildcards() {
            let Some(trouble) = lane.trouble().filter(|trouble| {
                // Of the whole tenant it would say nothing about this mailbox.
                trouble.kind == TroubleKind::Refused && trouble.scope == Scope::Mailbox
            }) else {
                continue;
            };
            if self.means.unknown.remember(&id, now) {
                let minutes = REMEMBERED_FOR.as_secs() / 60;
                warn!(
                    lane = %id, reason = trouble.text, minutes,
                    "Exchange lets nobody log in to the sender's own mailbox: either there is none of that address, or the \
                     application may not use it. Its mail goes by the route's fallback or, without one, waits; it is tried again \
                     after these minutes, and after a restart"
                );
            }
            self.end(&id, Ended::Unknown);
            self.give_to_fallback(&BTreeSet::from([id])).await;
        }
    }

    /// Mail that waits for lanes whose mailboxes are remembered as unknown, asked about again: what was being received or
    /// sent while that was learned, too.
    async fn give_to_fallback(&self, waiting: &BTreeSet<LaneId>) {
        let Some(road) = self.means.road.as_ref().filter(|road| road.rules.get().routing.has_fallback()) else {
            return;
        };
        let now = road.clock.monotonic();
        for id in waiting.iter().filter(|id| road.unknown.contains(id, now)) {
            match road.ask_again_of(&LaneSet::from(id)).await {
                Ok(followed) if followed.moved > 0 => {
                    info!(lane = %id, moved = followed.moved, "mail of the sender goes by the fallback");
                }
                Ok(_) => {}
                Err(error) => warn!(lane = %id, %error, "mail of the sender cannot be moved now; trying again later"),
            }
        }
    }

    /// Finds in the queue what nobody told of, after a start or when all places were taken, and ends what has long been idle.
    /// `is_crowded` tells that somebody has found no place since the last time; gives whether somebody does not find one now.
    async fn sweep(self: &Arc<Self>, watched: &mut HashMap<LaneId, Watched>, is_crowded: bool) -> bool {
        let waiting = match self.due_soon().await {
            Ok(waiting) => waiting,
            Err(error) => {
                debug!(%error, "the queue cannot be looked at for senders' lanes now");
                return is_crowded;
            }
        };
        let open = self.open_wildcards();
        watched.retain(|id, _| open.iter().any(|(other, _)| other == id));
        let to_open = waiting.iter().filter(|id| !open.iter().any(|(other, _)| other == *id)).count();
        // Where others wait for a place, who has nothing to do gives way at once.
        let is_crowded = is_crowded || open.len() + to_open > MOST;
        for (id, lane) in open {
            let watched = watched.entry(id.clone()).or_default();
            if waiting.contains(&id) || lane.status().in_flight > 0 {
                watched.idle = None;
                continue;
            }
            let since = watched.idle.get_or_insert_with(Instant::now);
            if is_crowded || since.elapsed() >= IDLE {
                self.end(&id, Ended::Idle);
            }
        }
        self.give_to_fallback(&waiting).await;
        !self.open_wanted(waiting).await
    }

    /// A sweep of a moment when somebody has found no place.
    #[cfg(test)]
    pub(super) async fn sweep_crowded(self: &Arc<Self>) {
        self.sweep(&mut HashMap::new(), true).await;
    }

    /// Lanes of wildcard mailboxes that have something of the queue to send before the next but one sweep: what waits for
    /// longer needs no place meanwhile.
    async fn due_soon(&self) -> Result<BTreeSet<LaneId>, StoreError> {
        let Some(road) = &self.means.road else { return Ok(BTreeSet::new()) };
        let stored = road.spool.lanes().await?;
        let soon = road.clock.wall() + 2 * SWEEP;
        let of_wildcards: BTreeSet<_> = {
            let single = stored.iter().filter(|lanes| lanes.is_single()).flat_map(LaneSet::lanes);
            let state = self.state();
            single.filter(|id| state.is_wildcard(id)).collect()
        };
        let mut due = BTreeSet::new();
        for id in of_wildcards {
            if let Ok(Some(at)) = road.spool.next_due(&LaneSet::from(&id)).await
                && at <= soon
            {
                due.insert(id);
            }
        }
        Ok(due)
    }

    /// What is under way comes to its end first. A mailbox that a reload has named meanwhile is left.
    fn end(&self, id: &LaneId, why: Ended) {
        let state = self.state();
        if let Some(place) = state.places.get(id).filter(|_| state.is_wildcard(id)) {
            place.wanted.send_if_modified(|now| {
                let is_wanted = now.design().is_some();
                if is_wanted {
                    *now = Wanted::Nothing(why);
                }
                is_wanted
            });
        }
    }
}

impl super::State {
    /// Whether `id` belongs to a wildcard mailbox, and to no other.
    pub(super) fn is_wildcard(&self, id: &LaneId) -> bool {
        !self.named.contains(id) && self.wildcards.iter().any(|wildcard| wildcard.has(id))
    }
}
