//! Takes mail from the spool to a lane: waits for work and for a turn, claims, sends, and writes down what became of it.
//!
//! One loop for each lane, over every queue that it serves. A turn comes before a claim, so that nothing is claimed that
//! cannot go; the claim is marked in flight before upstream can see anything of it, so that a crash leaves a trace.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use clock::{Clock, Monotonic};
use forwarder::{Attempt, Body, Lane, Message, NoRoom, Slot, Spent, TokenSource, Trouble, TroubleKind};
use mail::{Diagnostic, EnhancedCode, Envelope, LaneId, LaneSet, Outcome, Recipient, Scope};
use spool::{BodySource, Claim, Next, Part, Placed, Settlement, Spool, StoreError, Usage};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::current::Current;
use crate::following::Followed;
use crate::refused_senders::RefusedSenders;
use crate::reporting::{Carrier, Ended, Reports};
use crate::retry::{Attempted, Verdict, Why, time_held};
use crate::routing::dress::MAY_NOT_REMEDY;
use crate::rules::Rules;
use crate::sending::{Leave, leave};
use crate::unknown_mailboxes::UnknownMailboxes;
use crate::wanted_lanes::WantedLanes;

/// Longest sleep on a due time: the machine's clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often is looked for mail that was held for too long: often enough for whatever may be configured, and no oftener.
const HOLD_LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How soon mail is looked at again whose external recipients the tenant's day has no room for: each look is a write.
const EXTERNAL_LOOK: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(1));
/// Deliveries given up in one look; the next goes on.
const GIVEN_UP_AT_ONCE: usize = 100;

/// Deliveries of a lane that may be under way. Those that upstream has answered wait for their settlement to be synced, and
/// while a disk stands still nothing more is sent: a crash just then would send all of it again.
const UNDER_WAY_MAX: usize = 512;

/// What every lane's loop shares.
pub(crate) struct Road<S> {
    /// The queue.
    pub(crate) spool: Arc<S>,
    /// What a reload replaces.
    pub(crate) rules: Arc<Current<Rules>>,
    /// Senders whose own mailbox Exchange does not know.
    pub(crate) unknown: Arc<UnknownMailboxes>,
    /// Lanes of wildcard mailboxes that mail has come for.
    pub(crate) wanted: Arc<WantedLanes>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// What a lane does for the configuration: a reload may change it while deliveries are under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Duty {
    /// Name of its tenant.
    pub(crate) tenant: String,
    /// Names of its mailboxes.
    pub(crate) mailboxes: Vec<String>,
    /// The first one's address: it sends reports of what this lane did not deliver.
    pub(crate) address: mail::Mailbox,
    /// Whose mail goes by this lane: its own, and that of each set it is in.
    pub(crate) queues: Vec<LaneSet>,
}

/// Delivers what is queued for one lane.
pub(crate) struct Delivery<S, T> {
    road: Arc<Road<S>>,
    lane: Arc<Lane<T>>,
    duty: watch::Receiver<Arc<Duty>>,
    /// Whom upstream takes no message of, each told once.
    refused_senders: Arc<RefusedSenders>,
}

impl<S: Spool, T: TokenSource> Delivery<S, T> {
    /// Delivers over `lane` what waits in the queues of its `duty`, as that is at each moment.
    pub(crate) fn new(
        road: Arc<Road<S>>,
        lane: Arc<Lane<T>>,
        duty: watch::Receiver<Arc<Duty>>,
        refused_senders: Arc<RefusedSenders>,
    ) -> Arc<Self> {
        Arc::new(Self { road, lane, duty, refused_senders })
    }

    /// Runs until `stop`, then until the deliveries under way have ended. Dropped earlier, it cuts them; their marks tell
    /// the next start.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut under_way = JoinSet::new();
        let mut following = self.duty.clone();
        let mut duty = Arc::clone(&following.borrow_and_update());
        let mut wakers = self.wakers(&duty);
        let mut readable = true;
        // Where one was claimed there is probably more: asking first would be a read for nothing.
        let mut more = false;
        // The queue whose turn it is.
        let mut turn = 0;
        while !stop.is_cancelled() {
            let claimed = async {
                room(&mut under_way).await;
                if !more {
                    self.something_due(&duty.queues, &wakers).await?;
                }
                self.next_claim(&duty.queues, &mut turn).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = following.changed() => {
                    duty = Arc::clone(&following.borrow_and_update());
                    wakers = self.wakers(&duty);
                }
                claimed = claimed => match claimed {
                    Ok(Some((slot, claim))) => {
                        (readable, more) = (true, true);
                        under_way.spawn(Arc::clone(&self).deliver(slot, claim));
                    }
                    Ok(None) => more = false,
                    Err(error) => {
                        more = false;
                        if std::mem::replace(&mut readable, false) {
                            error!(lane = %self.lane.id(), %error, "the queue cannot be read; trying again every second");
                        }
                        sleep(STORE_PAUSE).await;
                    }
                },
            }
        }
        while let Some(ended) = under_way.join_next().await {
            reap(ended);
        }
        self.lane.close_idle().await;
    }

    fn wakers(&self, duty: &Duty) -> Vec<Arc<Notify>> {
        duty.queues.iter().map(|lanes| self.road.spool.waker(lanes)).collect()
    }

    /// Whether mail of `lanes` goes by this lane.
    fn serves(&self, lanes: &LaneSet) -> bool {
        self.duty.borrow().queues.contains(lanes)
    }

    /// What has kept the lane from sending for at least so long.
    fn held_for(&self, max_hold: Duration) -> Option<Trouble> {
        let status = self.lane.trouble_status()?;
        let is_held = status.trouble.kind != TroubleKind::Throttled && status.lasting >= max_hold;
        is_held.then_some(status.trouble)
    }

    async fn give_up(&self, lanes: &LaneSet, max_hold: Duration, reason: &str) -> Result<(), StoreError> {
        let now = self.road.clock.wall();
        let mut spared = Vec::new();
        for _ in 0..GIVEN_UP_AT_ONCE {
            let Some(claim) = self.road.spool.claim_accepted_before(lanes, now - max_hold).await? else { break };
            // What may have arrived is the operator's, and what is nobody's mail is not given up on anybody.
            if time_held(claim.accepted_at, claim.progress, now) < max_hold || claim.progress.uncertain > 0 {
                // Kept from being found again in this look.
                spared.push(claim);
                continue;
            }
            let outcome = Outcome::Held { scope: Scope::Mailbox, diagnostic: Diagnostic::local(reason) };
            let verdict = Verdict::GivenUp(Why::HeldTooLong);
            let fates = vec![whole(&claim, outcome, verdict)];
            self.settle(claim, fates, Contact::default()).await;
        }
        Ok(())
    }

    /// Waits for a turn and claims from the queues in turn. None when there was nothing. Safe to drop: a claim that is not
    /// handed over is released.
    async fn next_claim(
        &self,
        queues: &[LaneSet],
        turn: &mut usize,
    ) -> Result<Option<(Slot<T>, Claim<S::Source>)>, StoreError> {
        let slot = self.lane.slot().await;
        for _ in 0..queues.len() {
            let lanes = &queues[*turn % queues.len()];
            *turn = (*turn + 1) % queues.len();
            if let Some(claim) = self.road.spool.claim(lanes, self.road.clock.wall()).await? {
                return Ok(Some((slot, claim)));
            }
        }
        Ok(None)
    }

    async fn something_due(&self, queues: &[LaneSet], wakers: &[Arc<Notify>]) -> Result<(), StoreError> {
        loop {
            // A wake that comes while the queue is looked at is kept for it.
            let woken = woken(wakers);
            let mut wait = LONGEST_SLEEP;
            for lanes in queues {
                if let Some(due) = self.road.spool.next_due(lanes).await? {
                    wait = wait.min(due.saturating_since(self.road.clock.wall()));
                }
            }
            if wait.is_zero() {
                return Ok(());
            }
            tokio::select! {
                () = woken => {}
                () = sleep(wait) => {}
            }
        }
    }

    async fn deliver(self: Arc<Self>, mut slot: Slot<T>, mut claim: Claim<S::Source>) {
        if claim.progress.uncertain > self.road.rules.get().plan.uncertain_resends {
            let text =
                format!("upstream may have it already; {} tries ended without an answer", claim.progress.uncertain);
            let outcome = Outcome::Uncertain(Diagnostic::local(text));
            let held = Verdict::Held(claim.progress);
            drop(slot);
            let fates = vec![whole(&claim, outcome, held)];
            return self.settle(claim, fates, Contact::default()).await;
        }
        let rules = self.road.rules.get();
        let dressed = match self.leave(&rules, &mut claim) {
            Leave::As(dressed) => dressed,
            Leave::Refused(refused) => {
                drop(slot);
                let outcome = Outcome::Held {
                    scope: Scope::Message,
                    diagnostic: Diagnostic::local(format!("{refused}; {MAY_NOT_REMEDY}")),
                };
                let attempted = self.attempted(&claim, self.road.clock.monotonic());
                let everybody: Vec<_> = (0..claim.recipients.len()).collect();
                let fates = vec![self.fate(&everybody, outcome, attempted)];
                return self.settle(claim, fates, Contact::default()).await;
            }
            Leave::Elsewhere(parts) => {
                drop(slot);
                return self.hand_over(claim, parts, rules.routing.epoch).await;
            }
        };
        let chosen = match slot.admit(&claim.recipients) {
            Ok(chosen) => chosen,
            // Unsettled it is due at once, and the lane gives no turn until its day has room again.
            Err(NoRoom::Day) => return,
            Err(NoRoom::External(wait)) => {
                // Mail to the tenant's own domains goes on meanwhile.
                drop(slot);
                let outcome =
                    Outcome::Paced(Diagnostic::local("the tenant's day has no room for more external recipients"));
                let (soonest, latest) = EXTERNAL_LOOK;
                let due = self.road.clock.wall() + wait.clamp(soonest, latest);
                let fates = vec![whole(&claim, outcome, Verdict::Again(due, claim.progress))];
                return self.settle(claim, fates, Contact::default()).await;
            }
        };
        let recipients: Vec<Recipient> =
            chosen.iter().filter_map(|position| claim.recipients.get(*position)).cloned().collect();
        let began = self.road.clock.monotonic();
        let envelope = Envelope {
            // The mailbox's own address may need what the client's did not.
            smtputf8: claim.envelope.smtputf8 || !dressed.reverse_path.is_ascii(),
            reverse_path: dressed.reverse_path,
            ..claim.envelope.clone()
        };
        let message = Message { envelope: &envelope, recipients: &recipients, header: dressed.header.as_bytes() };
        let mut marked = false;
        let started = || {
            self.road.spool.mark_in_flight(&claim.guard, self.lane.id());
            marked = true;
        };
        let attempt = slot.deliver(&message, &mut StoredBody(&mut claim.body), started).await;
        let attempted = self.attempted(&claim, began);
        let (mut fates, contact) = match attempt {
            Attempt::Told(told) => {
                let contact = Contact { usage: usage(told.spent), takes_wishes: told.takes_wishes };
                let shared = !claim.lanes.is_single();
                (self.fates(told.outcomes, &chosen, attempted, shared), contact)
            }
            Attempt::NotStarted(trouble) => {
                debug!(id = %claim.message, lane = %self.lane.id(), %trouble, "not sent, the lane is in trouble");
                if !marked {
                    return;
                }
                // Marked for a connection that turned out to be gone: nothing is uncertain, and the mark must go.
                let outcome = Outcome::Held { scope: trouble.scope, diagnostic: Diagnostic::local(trouble.text) };
                let again = Verdict::Again(self.road.clock.wall(), claim.progress);
                (vec![Fate { positions: chosen.clone(), outcome, verdict: again }], Contact::default())
            }
            Attempt::NotTaken(trouble) => {
                // Upstream heard of it and hung up. Probably the lane's trouble, but should this message be the cause, the
                // next probe must go with another: it counts as an attempt.
                let outcome = Outcome::Deferred(Diagnostic::local(trouble.text));
                let contact = Contact { usage: usage(Spent::default()), ..Contact::default() };
                (vec![self.fate(&chosen, outcome, attempted)], contact)
            }
            Attempt::BodyFailed(StoreError::Damaged(text)) => {
                error!(id = %claim.message, %text, "the stored message is damaged; it is set aside");
                return self.quarantine(claim, text, usage(Spent::default())).await;
            }
            Attempt::BodyFailed(error) => {
                error!(id = %claim.message, %error, "the stored message cannot be read now; trying again");
                let outcome = Outcome::Deferred(Diagnostic::local(error.to_string()));
                let contact = Contact { usage: usage(Spent::default()), ..Contact::default() };
                (vec![self.fate(&chosen, outcome, attempted)], contact)
            }
        };
        fates.extend(self.rest(&claim, &chosen));
        self.settle(claim, fates, contact).await;
    }

    fn leave(&self, rules: &Rules, claim: &mut Claim<S::Source>) -> Leave {
        let now = self.road.clock.monotonic();
        let is_unknown = |lane: &LaneId| self.road.unknown.contains(lane, now);
        leave(&rules.routing, claim, self.lane.id(), &is_unknown)
    }

    /// The routes as they are now give it to other mailboxes.
    async fn hand_over(&self, claim: Claim<S::Source>, parts: Vec<Placed>, epoch: u64) {
        let id = claim.message;
        match self.road.put(claim, parts, epoch, None).await {
            Ok(Followed { reason: Some(reason), .. }) => {
                warn!(%id, %reason, "held: no route takes it as it was accepted");
            }
            Ok(_) => debug!(%id, "goes by other mailboxes, since the routes have changed"),
            Err(error) => error!(%id, %error, "its new mailboxes could not be written down; it is kept"),
        }
    }

    fn attempted(&self, claim: &Claim<S::Source>, began: Monotonic) -> Attempted {
        Attempted {
            progress: claim.progress,
            took: self.road.clock.monotonic().saturating_since(began),
            max_age: self.road.rules.get().routing.max_age(&claim.route),
        }
    }

    fn verdict(&self, outcome: &Outcome, attempted: Attempted) -> Verdict {
        let Road { rules, clock, .. } = &*self.road;
        rules.get().plan.verdict(outcome, attempted, clock.wall(), clock.chance())
    }

    /// All that were tried met the same.
    fn fate(&self, chosen: &[usize], outcome: Outcome, attempted: Attempted) -> Fate {
        let verdict = self.verdict(&outcome, attempted);
        Fate { positions: chosen.to_vec(), outcome, verdict }
    }

    /// Recipients that met the same go the same way. `chosen` are the positions of those that the outcomes are of; `shared`,
    /// whether another mailbox may carry them.
    fn fates(&self, outcomes: Vec<Outcome>, chosen: &[usize], attempted: Attempted, shared: bool) -> Vec<Fate> {
        let progressed = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted(_)));
        let mut fates: Vec<Fate> = Vec::new();
        for (outcome, position) in outcomes.into_iter().zip(chosen) {
            let outcome = if progressed { his_own(outcome) } else { outcome };
            if let Some(fate) = fates.iter_mut().find(|fate| is_same(&fate.outcome, &outcome)) {
                fate.positions.push(*position);
                continue;
            }
            // The message was full for it, or another mailbox may take it: no attempt has failed, and it need not wait.
            let verdict = if (progressed && is_one_too_many(&outcome)) || (shared && is_of_mailbox(&outcome)) {
                Verdict::Again(self.road.clock.wall(), attempted.progress)
            } else {
                self.verdict(&outcome, attempted)
            };
            fates.push(Fate { positions: vec![*position], outcome, verdict });
        }
        fates
    }

    /// Those who were not in the message wait for the next.
    fn rest(&self, claim: &Claim<S::Source>, chosen: &[usize]) -> Option<Fate> {
        let positions: Vec<usize> =
            (0..claim.recipients.len()).filter(|position| chosen.binary_search(position).is_err()).collect();
        let outcome = Outcome::Paced(Diagnostic::local("goes in the next message: this one has as many as it may"));
        let verdict = Verdict::Again(self.road.clock.wall(), claim.progress);
        (!positions.is_empty()).then_some(Fate { positions, outcome, verdict })
    }

    /// A sender that may not be sent as is told once for each reason, not at each try of each of its messages.
    fn is_news(&self, claim: &Claim<S::Source>, fate: &Fate) -> bool {
        let sender = claim.envelope.reverse_path.to_string();
        match (&fate.outcome, fate.verdict) {
            (_, Verdict::GivenUp(_)) => true,
            (Outcome::Held { scope: Scope::Message, diagnostic }, _) => {
                self.refused_senders.refuse(&sender, diagnostic, self.road.clock.wall())
            }
            (Outcome::Accepted(_), _) => {
                self.refused_senders.accept(&sender);
                true
            }
            _ => true,
        }
    }

    async fn quarantine(&self, claim: Claim<S::Source>, text: String, usage: Usage) {
        let part = Part {
            recipients: (0..claim.recipients.len()).collect(),
            outcome: Outcome::Deferred(Diagnostic::local(text)),
            next: Next::Quarantined,
            progress: claim.progress,
        };
        let settlement = self.settlement(vec![part], usage);
        self.write(claim, settlement).await;
    }

    async fn settle(&self, mut claim: Claim<S::Source>, mut fates: Vec<Fate>, contact: Contact) {
        let reports = self.report(&mut claim, &mut fates, &contact).await;
        for fate in &fates {
            if self.is_news(&claim, fate) {
                tell(&claim, fate, self.lane.login());
            }
        }
        let mut settlement = self.settlement(fates.into_iter().map(Fate::part).collect(), contact.usage);
        settlement.new_messages = reports.messages;
        settlement.reports = reports.gathered;
        self.write(claim, settlement).await;
    }

    /// Who must hear of it hears of it in the settlement's own transaction.
    async fn report(&self, claim: &mut Claim<S::Source>, fates: &mut [Fate], contact: &Contact) -> Reports<S::Sink> {
        let rules = self.road.rules.get();
        let max_age = rules.routing.max_age(&claim.route);
        let duty = Arc::clone(&self.duty.borrow());
        let carrier = Carrier {
            lane: self.lane.id(),
            address: &duty.address,
            host: self.lane.host(),
            max_age,
            takes_wishes: contact.takes_wishes,
        };
        let ended: Vec<Ended<'_>> = fates
            .iter_mut()
            .map(|Fate { positions, outcome, verdict }| Ended { positions, outcome, verdict })
            .collect();
        rules.reporting.tell(&*self.road.spool, claim, ended, &carrier, &*self.road.clock).await
    }

    fn settlement(&self, parts: Vec<Part>, usage: Usage) -> Settlement<S::Sink> {
        Settlement {
            parts,
            at: self.road.clock.wall(),
            lane: self.lane.id().clone(),
            mailbox: self.lane.login().to_owned(),
            usage,
            new_messages: Vec::new(),
            reports: Vec::new(),
        }
    }

    async fn write(&self, claim: Claim<S::Source>, settlement: Settlement<S::Sink>) {
        let id = claim.message;
        if let Err(error) = self.road.spool.settle(claim, settlement).await {
            error!(%id, %error, "what became of a message could not be written down; it is kept and written once the queue can be written");
        }
    }
}

/// Gives up what was held for longer than it may be, for as long as no lane can carry it; runs until dropped. `max_hold` is
/// how long that is now, zero for ever; `deliveries` are those that run now.
pub(crate) async fn give_up_held<S: Spool, T: TokenSource>(
    deliveries: impl Fn() -> Vec<Arc<Delivery<S, T>>>,
    mut max_hold: watch::Receiver<Duration>,
) {
    loop {
        let limit = *max_hold.borrow_and_update();
        if limit.is_zero() {
            if max_hold.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = sleep(limit.clamp(HOLD_LOOKS.0, HOLD_LOOKS.1)) => {}
            Ok(()) = max_hold.changed() => continue,
        }
        let deliveries = deliveries();
        let queues: BTreeSet<_> =
            deliveries.iter().flat_map(|delivery| delivery.duty.borrow().queues.clone()).collect();
        for lanes in &queues {
            let serving = deliveries.iter().filter(|delivery| delivery.serves(lanes));
            // Long enough in one piece, and by a clock that nobody sets: pace, a moment's trouble and a jump of the wall clock
            // hold nothing.
            let held: Option<Vec<_>> = serving.map(|delivery| Some((delivery, delivery.held_for(limit)?))).collect();
            let Some((delivery, trouble)) = held.and_then(|mut held| held.pop()) else { continue };
            if let Err(error) = delivery.give_up(lanes, limit, &trouble.text).await {
                debug!(%lanes, %error, "what was held too long cannot be looked for now");
            }
        }
    }
}

/// What upstream had to do with a message.
struct Contact {
    usage: Usage,
    takes_wishes: bool,
}

/// It never heard of it.
impl Default for Contact {
    fn default() -> Self {
        Self { usage: Usage::default(), takes_wishes: true }
    }
}

/// Recipients of a delivery that met the same, by their positions in it.
struct Fate {
    positions: Vec<usize>,
    outcome: Outcome,
    verdict: Verdict,
}

impl Fate {
    fn part(self) -> Part {
        let Self { positions, outcome, verdict } = self;
        let (next, progress) = match verdict {
            Verdict::Delivered | Verdict::GivenUp(_) => (Next::Finished, spool::Progress::default()),
            Verdict::Again(due, progress) => (Next::Due(due), progress),
            Verdict::Held(progress) => (Next::Held, progress),
        };
        Part { recipients: positions, outcome, next, progress }
    }
}

/// A message, with what upstream counts of its recipients.
pub(crate) fn usage(spent: Spent) -> Usage {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Usage { messages: 1, recipients: count(spent.recipients), external: count(spent.external) }
}

/// Resolves when any of them is notified.
async fn woken(wakers: &[Arc<Notify>]) {
    let mut notified: Vec<_> = wakers.iter().map(|waker| Box::pin(waker.notified())).collect();
    poll_fn(|context| {
        let is_woken = notified.iter_mut().any(|notified| notified.as_mut().poll(context).is_ready());
        if is_woken { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Beside others that were accepted, one that is put off for its pace is so for himself: it counts, and comes to an end.
fn his_own(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Paced(diagnostic) => Outcome::Deferred(diagnostic),
        other => other,
    }
}

/// Trouble of the mailbox that carried it.
fn is_of_mailbox(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Held { scope: Scope::Mailbox, .. })
}

/// 452 4.5.3: a message had as many recipients as it may.
fn is_one_too_many(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(diagnostic) if diagnostic.enhanced == Some(EnhancedCode::new(4, 5, 3)))
}

/// The spool's body as the forwarder reads it.
struct StoredBody<'a, B>(&'a mut B);

impl<B: BodySource> Body for StoredBody<'_, B> {
    type Error = StoreError;

    fn total(&self) -> u64 {
        self.0.total()
    }

    async fn next(&mut self) -> Result<Option<&[u8]>, StoreError> {
        self.0.next().await
    }
}

/// Whether two recipients met the same. Exchange ends each refusal with the time, so that no two texts are alike; only
/// those that are to be reported are kept apart by their texts.
pub(crate) fn is_same(one: &Outcome, other: &Outcome) -> bool {
    let alike = |one: &Diagnostic, other: &Diagnostic| {
        (one.code, one.enhanced) == (other.code, other.enhanced) && (one.code.is_some() || one.text == other.text)
    };
    match (one, other) {
        (Outcome::Deferred(one), Outcome::Deferred(other)) | (Outcome::Paced(one), Outcome::Paced(other)) => {
            alike(one, other)
        }
        (Outcome::Held { scope, diagnostic }, Outcome::Held { scope: other_scope, diagnostic: other_diagnostic }) => {
            scope == other_scope && alike(diagnostic, other_diagnostic)
        }
        (one, other) => one == other,
    }
}

fn whole<B>(claim: &Claim<B>, outcome: Outcome, verdict: Verdict) -> Fate {
    Fate { positions: (0..claim.recipients.len()).collect(), outcome, verdict }
}

fn tell<B>(claim: &Claim<B>, fate: &Fate, mailbox: &str) {
    let id = claim.message;
    let recipients: Vec<_> =
        fate.positions.iter().filter_map(|at| claim.recipients.get(*at)).map(ToString::to_string).collect();
    let recipients = recipients.join(",");
    let (outcome, reply) = (fate.outcome.name(), fate.outcome.diagnostic());
    let message_id = &claim.message_id;
    match (fate.verdict, &fate.outcome) {
        (Verdict::Delivered, _) => info!(%id, outcome, mailbox, recipients, %reply, message_id, "sent"),
        // The lane has said so, once for all its mail.
        (Verdict::Again(..), Outcome::Held { scope: Scope::Mailbox | Scope::Tenant, .. }) => {
            debug!(%id, outcome, mailbox, recipients, %reply, message_id, "waits for its lane");
        }
        (Verdict::Again(due, _), Outcome::Held { .. }) => {
            let (sender, advice) = (&claim.envelope.reverse_path, forwarder::sender_advice(reply));
            warn!(%id, outcome, mailbox, %sender, recipients, %reply, advice, message_id, next_attempt = %due, "not sent yet");
        }
        // Of our own making: nothing is wrong with it.
        (Verdict::Again(due, _), Outcome::Paced(said)) if said.code.is_none() => {
            debug!(%id, outcome, mailbox, recipients, %reply, message_id, next_attempt = %due, "not sent yet");
        }
        (Verdict::Again(due, _), _) => {
            warn!(%id, outcome, mailbox, recipients, %reply, message_id, next_attempt = %due, "not sent yet");
        }
        (Verdict::Held(_), _) => warn!(%id, outcome, mailbox, recipients, %reply, message_id, "held for the operator"),
        (Verdict::GivenUp(why), _) => {
            let sender = &claim.envelope.reverse_path;
            warn!(%id, outcome, mailbox, %sender, recipients, %reply, message_id, why = why.as_str(), "not delivered, and given up");
        }
    }
}

/// Waits until less than [`UNDER_WAY_MAX`] are under way.
async fn room(under_way: &mut JoinSet<()>) {
    while let Some(ended) = under_way.try_join_next() {
        reap(ended);
    }
    if under_way.len() >= UNDER_WAY_MAX
        && let Some(ended) = under_way.join_next().await
    {
        reap(ended);
    }
}

fn reap(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a delivery ended by a fault of ours; its message stays queued. Please report this");
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_settlement_that_hangs_stops_the_claims_in_the_end() {
        let settled = Arc::new(Notify::new());
        let mut under_way = JoinSet::new();
        for _ in 0..UNDER_WAY_MAX {
            room(&mut under_way).await;
            let settled = Arc::clone(&settled);
            under_way.spawn(async move { settled.notified().await });
        }
        {
            let mut waits = pin!(room(&mut under_way));
            let polled = poll_fn(|context| Poll::Ready(waits.as_mut().poll(context))).await;
            assert!(polled.is_pending());
            settled.notify_one();
            waits.await;
        }
        assert_eq!(under_way.len(), UNDER_WAY_MAX - 1);
        under_way.shutdown().await;
    }

    fn reply(text: &str) -> Diagnostic {
        let (code, rest) = text.split_once(' ').unwrap();
        let enhanced = rest.split_once(' ').and_then(|(enhanced, _)| mail::EnhancedCode::parse(enhanced));
        Diagnostic { code: Some(code.parse().unwrap()), enhanced, text: rest.to_owned() }
    }

    #[test]
    fn recipients_that_met_the_same_stay_together_whatever_the_time_in_the_reply() {
        let held = |scope, text| Outcome::Held { scope, diagnostic: reply(text) };
        let local = |text: &str| Outcome::Deferred(Diagnostic::local(text));
        for (one, other, same) in [
            (Outcome::Deferred(reply("452 4.5.3 x [t1]")), Outcome::Deferred(reply("452 4.5.3 x [t2]")), true),
            (Outcome::Deferred(reply("452 4.5.3 x")), Outcome::Deferred(reply("451 4.7.500 x")), false),
            (Outcome::Deferred(reply("452 4.5.3 x")), Outcome::Paced(reply("452 4.5.3 x")), false),
            (Outcome::Paced(reply("432 4.3.2 x [t1]")), Outcome::Paced(reply("432 4.3.2 x [t2]")), true),
            (held(Scope::Message, "550 5.7.60 [t1]"), held(Scope::Message, "550 5.7.60 [t2]"), true),
            (held(Scope::Message, "550 5.7.60 x"), held(Scope::Mailbox, "550 5.7.60 x"), false),
            (Outcome::Refused(reply("550 5.1.1 no a")), Outcome::Refused(reply("550 5.1.1 no b")), false),
            (Outcome::Refused(reply("550 5.1.1 no")), Outcome::Refused(reply("550 5.1.1 no")), true),
            (local("lost"), local("lost"), true),
            (local("lost"), local("silent"), false),
        ] {
            assert_eq!(is_same(&one, &other), same, "{one:?} {other:?}");
        }
    }
}
