//! Mail in the queue follows the routes: in the background everything that an earlier reading of them gave its lanes is asked
//! about again, and goes by the mailboxes of today or waits, visible, for a route (invariant 7). An operator's word moves
//! mail in the same way, to another tenant too.
//!
//! Whoever claims mail for a lane looks at its epoch as well: nothing is sent by an old reading while this is under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mail::{HeaderBlock, LaneId, LaneSet};
use spool::{Claim, DeliveryId, Place, Placed, Rerouting, Selected, Selection, Spool, StoreError};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::delivery::Road;
use crate::routing::Word;
use crate::sending::stored;

/// When the queue is looked through after a reading of the routes, each after the one before: what was under way at the time,
/// or could not be written, is found by a later one.
const LOOKS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(20), Duration::from_mins(3), Duration::from_mins(30)];
/// Rounds of a look: what somebody held in one is found in the next.
const ROUNDS: usize = 3;
/// Asked about at the same time.
const AT_ONCE: usize = 32;
/// Deliveries that stay where they are, met in one go at the mail of one lane; the next goes on behind them.
const STAYING: usize = 100;
/// How many deliveries that no route takes are told one by one in a look; the rest is counted.
const TOLD: u64 = 20;

/// What became of deliveries that routes were asked about again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Looked at.
    pub(crate) deliveries: u64,
    /// Some of their recipients go by other lanes now.
    pub(crate) moved: u64,
    /// Some of their recipients wait for a route.
    pub(crate) unrouted: u64,
    /// Why the last of these do.
    pub(crate) reason: Option<String>,
}

impl Followed {
    fn add(&mut self, one: Self) {
        self.deliveries += one.deliveries;
        self.moved += one.moved;
        self.unrouted += one.unrouted;
        self.reason = one.reason.or(self.reason.take());
    }
}

impl<S: Spool> Road<S> {
    /// Looks through the queue for the routes as they are now. Run anew after each reload, the earlier run dropped: that is
    /// safe at any point.
    pub(crate) async fn follow(self: &Arc<Self>) {
        // Whatever an upload of an hour brings by rules of long ago is found in the end.
        for pause in LOOKS.into_iter().chain(std::iter::repeat(LOOKS[LOOKS.len() - 1])) {
            sleep(pause).await;
            match self.look_through().await {
                Ok(Followed { deliveries: 0, .. }) => {}
                Ok(Followed { deliveries, moved, unrouted, .. }) if moved + unrouted > 0 => {
                    info!(deliveries, moved, held = unrouted, "mail in the queue follows the routes");
                }
                Ok(Followed { deliveries, .. }) => {
                    debug!(deliveries, "mail in the queue stays where the routes have it");
                }
                Err(error) => {
                    warn!(%error, "the queue cannot be looked through for the routes now; trying again later");
                }
            }
        }
    }

    /// Rounds, until one has left nothing out that somebody held.
    async fn look_through(self: &Arc<Self>) -> Result<Followed, StoreError> {
        let mut followed = Followed::default();
        for _ in 0..ROUNDS {
            if self.round(&mut followed).await? == 0 {
                break;
            }
        }
        Ok(followed)
    }

    /// Gives how many were left out.
    async fn round(self: &Arc<Self>, followed: &mut Followed) -> Result<u32, StoreError> {
        let (mut after, mut left_out) = (None, 0);
        // Each is written with a sync that many can share.
        let mut asked = JoinSet::new();
        loop {
            let epoch = self.rules.get().routing.epoch;
            let selected = self.spool.claim_selected(&Selection::OtherEpoch(epoch), after).await?;
            left_out += selected.passed_over;
            if let Some(claim) = selected.claim {
                let (road, id) = (Arc::clone(self), claim.message);
                asked.spawn(async move { (id, road.ask_again(claim, Word::default(), None).await) });
            }
            after = selected.next;
            while asked.len() >= AT_ONCE || (after.is_none() && !asked.is_empty()) {
                let Some(Ok((id, one))) = asked.join_next().await else { continue };
                let one = match one {
                    Ok(one) => one,
                    // Of this one alone; where nothing can be written the next look at the queue fails, too.
                    Err(error) => {
                        warn!(%id, %error, "the routes' new answer for a message could not be written down; it is asked again");
                        left_out += 1;
                        continue;
                    }
                };
                if let Some(reason) = one.reason.as_ref().filter(|_| followed.unrouted < TOLD) {
                    warn!(%id, %reason, "held: no route takes it as it was accepted");
                }
                followed.add(one);
            }
            if after.is_none() {
                return Ok(left_out);
            }
        }
    }

    /// Moves what `selection` names from behind `after` on by an operator's `word`; `said` is for the history. Those that are
    /// being sent at this moment are left. Ends within about `patience`; gives where to go on.
    pub(crate) async fn move_selected(
        &self,
        selection: &Selection,
        after: Option<DeliveryId>,
        word: Word<'_>,
        said: &str,
        patience: Duration,
    ) -> Result<(Followed, Option<DeliveryId>), StoreError> {
        let (mut followed, mut after) = (Followed::default(), after);
        let began = self.clock.monotonic();
        loop {
            let Selected { claim, next, .. } = self.spool.claim_selected(selection, after).await?;
            if let Some(claim) = claim {
                followed.add(self.ask_again(claim, word, Some(said.to_owned())).await?);
            }
            after = next;
            if after.is_none() || self.clock.monotonic().saturating_since(began) >= patience {
                return Ok((followed, after));
            }
        }
    }

    /// Asks about everything that is queued for exactly these lanes again.
    pub(crate) async fn ask_again_of(&self, lanes: &LaneSet) -> Result<Followed, StoreError> {
        let mut followed = Followed::default();
        // What stays would be found again and again; its content is not needed for that.
        let mut staying = Vec::new();
        let tomorrow = self.clock.wall() + Duration::from_hours(24);
        while staying.len() < STAYING
            && let Some(claim) = self.spool.claim_accepted_before(lanes, tomorrow).await?
        {
            let (epoch, parts) = self.placed(&claim, Word::default());
            let stays = |part: &Placed| match &part.place {
                Place::Stays => true,
                Place::Lanes { lanes, .. } => *lanes == claim.lanes,
                Place::Unrouted { .. } => false,
            };
            if parts.iter().all(stays) {
                followed.deliveries += 1;
                staying.push(claim.guard);
            } else {
                followed.add(self.put(claim, parts, epoch, None).await?);
            }
        }
        Ok(followed)
    }

    async fn ask_again(
        &self,
        claim: Claim<S::Source>,
        word: Word<'_>,
        said: Option<String>,
    ) -> Result<Followed, StoreError> {
        let (epoch, parts) = self.placed(&claim, word);
        let stays = parts.iter().any(|part| part.place == Place::Stays);
        let mut followed = self.put(claim, parts, epoch, said).await?;
        if let Some(tenant) = word.tenant.filter(|_| stays) {
            followed.reason = Some(format!("no route gives it to tenant {tenant}, so it stays where it was"));
        }
        Ok(followed)
    }

    /// Where the routes of today have a claimed delivery, and which reading of them says so.
    fn placed(&self, claim: &Claim<S::Source>, word: Word<'_>) -> (u64, Vec<Placed>) {
        let rules = self.rules.get();
        let header = HeaderBlock::parse(claim.header.to_vec());
        let sender = rules.routing.sender_of_message(&claim.envelope.reverse_path, &header);
        let now = self.clock.monotonic();
        let is_unknown = |lane: &LaneId| self.unknown.contains(lane, now);
        (rules.routing.epoch, rules.routing.place(&stored(&rules.routing, claim, sender), word, &is_unknown))
    }

    /// Gives a claimed delivery the places that the routes of `epoch` said.
    pub(crate) async fn put(
        &self,
        claim: Claim<S::Source>,
        parts: Vec<Placed>,
        epoch: u64,
        said: Option<String>,
    ) -> Result<Followed, StoreError> {
        let mut followed = Followed { deliveries: 1, ..Followed::default() };
        let mut new = BTreeSet::new();
        for part in &parts {
            match &part.place {
                Place::Lanes { lanes, .. } if *lanes != claim.lanes => {
                    followed.moved = 1;
                    new.extend(lanes.lanes());
                }
                Place::Lanes { .. } | Place::Stays => {}
                Place::Unrouted { reason } => {
                    followed.unrouted = 1;
                    followed.reason = Some(reason.clone());
                }
            }
        }
        let id = claim.message;
        self.spool.reroute(claim, Rerouting { epoch, parts, said, at: self.clock.wall() }).await?;
        debug!(%id, ?followed, "asked about again");
        let rules = self.rules.get();
        for lane in new.into_iter().filter(|lane| rules.routing.wildcard_of(lane).is_some()) {
            self.wanted.want(lane);
        }
        Ok(followed)
    }
}
