//! Takes mail from the spool to a lane: waits for work and for a turn, claims, sends, and writes down what became of it.
//!
//! One loop for each lane. A turn comes before a claim, so that nothing is claimed that cannot go; the claim is marked
//! in flight before upstream can see anything of it, so that a crash leaves a trace.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use forwarder::{Attempt, Body, Lane, Message, Slot, TokenSource};
use mail::{Diagnostic, Outcome, Scope};
use spool::{BodySource, Claim, Next, Part, Settlement, Spool, StoreError};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::refused_senders::RefusedSenders;
use crate::retry::{History, Plan};

/// Longest sleep on a due time: the machine's clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Deliveries of a lane that may be under way. Those that upstream has answered wait for their settlement to be synced, and
/// while a disk stands still nothing more is sent: a crash just then would send all of it again.
const UNDER_WAY_MAX: usize = 512;

/// Delivers what is queued for one lane.
pub(crate) struct Delivery<S, T> {
    spool: Arc<S>,
    lane: Arc<Lane<T>>,
    plan: Plan,
    clock: Arc<dyn Clock>,
    /// Whom upstream takes no message of, each told once.
    refused_senders: Arc<RefusedSenders>,
}

impl<S: Spool, T: TokenSource> Delivery<S, T> {
    /// Delivers from `spool` over `lane`, trying again by `plan`.
    pub(crate) fn new(
        spool: Arc<S>,
        lane: Arc<Lane<T>>,
        plan: Plan,
        refused_senders: Arc<RefusedSenders>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self { spool, lane, plan, clock, refused_senders })
    }

    /// Runs until `stop`, then until the deliveries under way have ended. Dropped earlier, it cuts them; their marks tell
    /// the next start.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut under_way = JoinSet::new();
        let mut readable = true;
        // Where one was claimed there is probably more: asking first would be a read for nothing.
        let mut more = false;
        while !stop.is_cancelled() {
            let claimed = async {
                room(&mut under_way).await;
                self.next_claim(more).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
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

    /// Waits for something that is due, unless there is probably `more`, and for a turn, then claims. None when there was
    /// nothing. Safe to drop: a claim that is not handed over is released.
    async fn next_claim(&self, more: bool) -> Result<Option<(Slot<T>, Claim<S::Source>)>, StoreError> {
        if !more {
            self.something_due().await?;
        }
        let slot = self.lane.slot().await;
        let claim = self.spool.claim(self.lane.id(), self.clock.wall()).await?;
        Ok(claim.map(|claim| (slot, claim)))
    }

    async fn something_due(&self) -> Result<(), StoreError> {
        let waker = self.spool.waker(self.lane.id());
        loop {
            let woken = waker.notified();
            let wait = match self.spool.next_due(self.lane.id()).await? {
                Some(due) => due.saturating_since(self.clock.wall()),
                None => LONGEST_SLEEP,
            };
            if wait.is_zero() {
                return Ok(());
            }
            tokio::select! {
                () = woken => {}
                () = sleep(wait.min(LONGEST_SLEEP)) => {}
            }
        }
    }

    async fn deliver(self: Arc<Self>, slot: Slot<T>, mut claim: Claim<S::Source>) {
        let history = History { attempts: claim.attempts, uncertain: claim.uncertain, accepted_at: claim.accepted_at };
        if claim.uncertain > self.plan.uncertain_resends {
            let text = format!("upstream may have it already; {} tries ended without an answer", claim.uncertain);
            let part = whole(&claim, Outcome::Uncertain(Diagnostic::local(text)), Next::Held);
            return self.settle(claim, vec![part]).await;
        }
        let message = Message { envelope: &claim.envelope, recipients: &claim.recipients, header: &claim.header };
        let mut marked = false;
        let started = || {
            self.spool.mark_in_flight(&claim.guard);
            marked = true;
        };
        let attempt = slot.deliver(&message, &mut StoredBody(&mut claim.body), started).await;
        let parts = match attempt {
            Attempt::Told(outcomes) => self.parts(outcomes, history),
            Attempt::NotStarted(trouble) => {
                debug!(id = %claim.message, lane = %claim.lane, %trouble, "not sent, the lane is in trouble");
                if !marked {
                    return;
                }
                // Marked for a connection that turned out to be gone: nothing is uncertain, and the mark must go.
                let outcome = Outcome::Held { scope: trouble.scope, diagnostic: Diagnostic::local(trouble.text) };
                vec![whole(&claim, outcome, Next::Due(self.clock.wall()))]
            }
            Attempt::NotTaken(trouble) => {
                // Upstream heard of it and hung up. Probably the lane's trouble, but should this message be the cause, the
                // next probe must go with another: it counts as an attempt.
                let outcome = Outcome::Deferred(Diagnostic::local(trouble.text));
                let next = self.next(&outcome, history);
                vec![whole(&claim, outcome, next)]
            }
            Attempt::BodyFailed(StoreError::Damaged(text)) => {
                error!(id = %claim.message, %text, "the stored message is damaged; it is set aside");
                vec![whole(&claim, Outcome::Deferred(Diagnostic::local(text)), Next::Quarantined)]
            }
            Attempt::BodyFailed(error) => {
                error!(id = %claim.message, %error, "the stored message cannot be read now; trying again");
                let outcome = Outcome::Deferred(Diagnostic::local(error.to_string()));
                let next = self.next(&outcome, history);
                vec![whole(&claim, outcome, next)]
            }
        };
        self.settle(claim, parts).await;
    }

    fn next(&self, outcome: &Outcome, history: History) -> Next {
        self.plan.next(outcome, history, self.clock.wall(), self.clock.chance())
    }

    /// Recipients that met the same go the same way.
    fn parts(&self, outcomes: Vec<Outcome>, history: History) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (recipient, outcome) in outcomes.into_iter().enumerate() {
            if let Some(part) = parts.iter_mut().find(|part| is_same(&part.outcome, &outcome)) {
                part.recipients.push(recipient);
            } else {
                let next = self.next(&outcome, history);
                parts.push(Part { recipients: vec![recipient], outcome, next });
            }
        }
        parts
    }

    /// A sender that may not be sent as is told once for each reason, not at each try of each of its messages.
    fn is_news(&self, claim: &Claim<S::Source>, part: &Part) -> bool {
        let sender = claim.envelope.reverse_path.to_string();
        match &part.outcome {
            Outcome::Held { scope: Scope::Message, diagnostic } => {
                self.refused_senders.refuse(&sender, diagnostic, self.clock.wall())
            }
            Outcome::Accepted(_) => {
                self.refused_senders.accept(&sender);
                true
            }
            _ => true,
        }
    }

    async fn settle(&self, claim: Claim<S::Source>, parts: Vec<Part>) {
        for part in &parts {
            if self.is_news(&claim, part) {
                tell(&claim, part, self.lane.login());
            }
        }
        let id = claim.message;
        let settlement = Settlement {
            parts,
            at: self.clock.wall(),
            mailbox: self.lane.login().to_owned(),
            new_messages: Vec::new(),
        };
        if let Err(error) = self.spool.settle(claim, settlement).await {
            error!(%id, %error, "what became of a message could not be written down; it is kept and written once the queue can be written");
        }
    }
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
fn is_same(one: &Outcome, other: &Outcome) -> bool {
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

fn whole<B>(claim: &Claim<B>, outcome: Outcome, next: Next) -> Part {
    Part { recipients: (0..claim.recipients.len()).collect(), outcome, next }
}

fn tell<B>(claim: &Claim<B>, part: &Part, mailbox: &str) {
    let id = claim.message;
    let recipients: Vec<_> =
        part.recipients.iter().filter_map(|at| claim.recipients.get(*at)).map(ToString::to_string).collect();
    let recipients = recipients.join(",");
    let (outcome, reply) = (part.outcome.name(), part.outcome.diagnostic());
    let message_id = &claim.message_id;
    match &part.next {
        Next::Finished => info!(%id, outcome, mailbox, recipients, %reply, message_id, "sent"),
        // The lane has said so, once for all its mail.
        Next::Due(_) if matches!(part.outcome, Outcome::Held { scope: Scope::Mailbox | Scope::Tenant, .. }) => {
            debug!(%id, outcome, mailbox, recipients, %reply, message_id, "waits for its lane");
        }
        Next::Due(due) if matches!(part.outcome, Outcome::Held { .. }) => {
            let (sender, advice) = (&claim.envelope.reverse_path, forwarder::sender_advice(reply));
            warn!(%id, outcome, mailbox, %sender, recipients, %reply, advice, message_id, next_attempt = %due, "not sent yet");
        }
        Next::Due(due) => {
            warn!(%id, outcome, mailbox, recipients, %reply, message_id, next_attempt = %due, "not sent yet");
        }
        Next::Held => warn!(%id, outcome, mailbox, recipients, %reply, message_id, "held for the operator"),
        Next::Refused => {
            warn!(%id, outcome, mailbox, recipients, %reply, message_id, "refused by upstream; kept in the queue");
        }
        Next::Quarantined => warn!(%id, outcome, mailbox, recipients, %reply, message_id, "set aside as damaged"),
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
