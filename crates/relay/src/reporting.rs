//! Who hears of mail that did not go, and in which form: reports of failure and of delay, each stored by the settlement that
//! gave rise to it, and digests of what would be a flood of them.
//!
//! Reports go to the tenant's own domains, else to the postmaster; never in answer to a report of ours (invariant 11). They
//! leave by the mailbox that carried the mail, and from its address: Exchange takes no null reverse-path from a login. The
//! words are `mail::report`'s.

mod composition;
mod digest;
mod flood;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clock::{Clock, WallTime};
use mail::report::Kind;
use mail::{Domain, LaneId, LaneSet, Mailbox, Outcome, Recipient, Ret, Scope};
use spool::{BodySink, Claim, NewMessage, NewReport, Origin, Spool};
use tracing::{info, warn};

use crate::config::{BounceContent, Settings};
use crate::lanes::internal_domains;
use crate::retry::{Verdict, Why};
use crate::routing::{self, AddressMap};

use composition::Words;
use flood::Flood;

/// The rules of reporting, and how much was reported lately.
pub(crate) struct Reporting {
    hostname: String,
    /// By the tenant's name.
    internal: BTreeMap<String, Vec<Domain>>,
    /// Every lane, with its tenant's name and the mailbox that sends its digests.
    senders: BTreeMap<LaneId, (String, Mailbox)>,
    /// Tenants with a wildcard mailbox.
    wildcards: BTreeSet<String>,
    /// `[rewrite]` of senders.
    rewritten: AddressMap,
    postmaster: Option<Mailbox>,
    /// The most that is returned of a message.
    content: Ret,
    delay_notice_after: Option<Duration>,
    /// Kept over a reload.
    flood: Arc<Mutex<Flood>>,
}

/// The lane that carried a delivery, or did not.
#[derive(Clone, Copy)]
pub(crate) struct Carrier<'a> {
    /// Its name.
    pub(crate) lane: &'a LaneId,
    /// Its mailbox: who sends the report.
    pub(crate) address: &'a Mailbox,
    /// The server at its end.
    pub(crate) host: &'a str,
    /// How long the delivery's route tries.
    pub(crate) max_age: Duration,
    /// Whether the server took the client's wishes for reports with the message, if it took the message.
    pub(crate) takes_wishes: bool,
}

/// What became of some recipients of a delivery.
pub(crate) struct Ended<'a> {
    /// Their positions.
    pub(crate) positions: &'a [usize],
    /// What they met.
    pub(crate) outcome: &'a Outcome,
    /// What follows. That they have been told of the delay is noted in it.
    pub(crate) verdict: &'a mut Verdict,
}

/// What a settlement stores of it.
pub(crate) struct Reports<Sink> {
    /// Reports, each a message.
    pub(crate) messages: Vec<(Sink, NewMessage)>,
    /// For the next digest.
    pub(crate) gathered: Vec<NewReport>,
}

impl<Sink> Default for Reports<Sink> {
    fn default() -> Self {
        Self { messages: Vec::new(), gathered: Vec::new() }
    }
}

/// What is said of one recipient.
#[derive(Clone)]
struct Account {
    recipient: Recipient,
    outcome: Outcome,
    /// Half a sentence; none where the reply says it.
    reason: Option<String>,
    /// Who must do what; none where the reply says it.
    remedy: Option<String>,
    will_retry_until: Option<WallTime>,
}

impl Reporting {
    /// As configured.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut senders = BTreeMap::new();
        for mailbox in settings.mailboxes.values() {
            let Some((tenant, _)) = settings.tenant_of(mailbox) else { continue };
            let (Some(lane), Some(address)) = (routing::lane(settings, mailbox), mailbox.address.one()) else {
                continue;
            };
            senders.entry(lane).or_insert_with(|| (tenant.to_owned(), address.clone()));
        }
        let delay = settings.bounce.delay_notice_after.duration();
        let tenants = settings.tenants.keys();
        Self {
            hostname: settings.hostname.as_str().to_owned(),
            internal: tenants.map(|name| (name.clone(), internal_domains(settings, name))).collect(),
            senders,
            wildcards: settings
                .mailboxes
                .values()
                .filter(|mailbox| mailbox.address.one().is_none())
                .filter_map(|mailbox| Some(settings.tenant_of(mailbox)?.0.to_owned()))
                .collect(),
            rewritten: AddressMap::new(&settings.rewrite.senders),
            postmaster: settings.bounce.postmaster.0.clone(),
            content: match settings.bounce.content {
                BounceContent::Headers => Ret::Headers,
                BounceContent::Full => Ret::Full,
            },
            delay_notice_after: Some(delay).filter(|delay| !delay.is_zero()),
            flood: Arc::default(),
        }
    }

    /// By other settings, with what was reported lately.
    pub(crate) fn renewed(&self, settings: &Settings) -> Self {
        Self { flood: Arc::clone(&self.flood), ..Self::new(settings) }
    }

    /// Reports what is to be reported of a delivery. Never fails: what cannot be told now goes into the next digest.
    pub(crate) async fn tell<S: Spool>(
        &self,
        spool: &S,
        claim: &mut Claim<S::Source>,
        mut ended: Vec<Ended<'_>>,
        carrier: &Carrier<'_>,
        clock: &dyn Clock,
    ) -> Reports<S::Sink> {
        let mut reports = Reports::default();
        let failed = failed(&ended, claim, carrier);
        if !failed.is_empty() {
            self.tell_failure(spool, claim, failed, carrier, clock, &mut reports).await;
        }
        let passed_on = passed_on(&ended, claim, carrier);
        if !passed_on.is_empty() {
            reports.messages.extend(self.tell_sender(spool, claim, Kind::Relayed, &passed_on, carrier, clock).await);
        }
        let late = self.late(&ended, claim, carrier, clock.wall());
        if !late.is_empty()
            && let Some(message) = self.tell_sender(spool, claim, Kind::Delayed, &late, carrier, clock).await
        {
            reports.messages.push(message);
            note_delay(&mut ended);
        }
        reports
    }

    async fn tell_failure<S: Spool>(
        &self,
        spool: &S,
        claim: &mut Claim<S::Source>,
        failed: Vec<Account>,
        carrier: &Carrier<'_>,
        clock: &dyn Clock,
        reports: &mut Reports<S::Sink>,
    ) {
        let id = claim.message;
        let to = match self.addressee(claim) {
            Ok(to) => to,
            Err(reason) => return warn!(%id, reason, "nobody is told of the failure by mail"),
        };
        let wanted: Vec<_> = failed.into_iter().filter(|account| account.recipient.notify().failure).collect();
        if wanted.is_empty() {
            return info!(%id, "its client wanted no report of failure (NOTIFY)");
        }
        if self.may_tell(&to, clock) {
            let returned = self.returned(claim);
            let words = Words { kind: Kind::Failed, to: &to, accounts: &wanted, returned };
            match self.compose(spool, claim, &words, carrier, clock).await {
                Ok((sink, message)) => {
                    let report = sink.id();
                    info!(%id, %report, %to, "its failure is reported");
                    return reports.messages.push((sink, message));
                }
                Err(error) => warn!(%id, %error, "the report of a failure cannot be stored; it goes into a digest"),
            }
        }
        info!(%id, %to, "its failure goes into the next digest");
        reports.gathered.extend(wanted.iter().map(|account| NewReport {
            tenant: claim.tenant.clone(),
            lanes: LaneSet::from(carrier.lane),
            to: to.to_string(),
            at: clock.wall(),
            message: id,
            message_id: claim.message_id.clone(),
            sender: claim.envelope.reverse_path.to_string(),
            recipients: account.recipient.to_string(),
            reply: account.outcome.diagnostic().to_string(),
        }));
    }

    /// What is no failure is the sender's alone, and no digest's. None if it cannot be told now.
    async fn tell_sender<S: Spool>(
        &self,
        spool: &S,
        claim: &mut Claim<S::Source>,
        kind: Kind,
        accounts: &[Account],
        carrier: &Carrier<'_>,
        clock: &dyn Clock,
    ) -> Option<(S::Sink, NewMessage)> {
        let to = self.internal_sender(claim)?;
        if !self.may_tell(&to, clock) {
            return None;
        }
        let id = claim.message;
        let words = Words { kind, to: &to, accounts, returned: Ret::Headers };
        match self.compose(spool, claim, &words, carrier, clock).await {
            Ok((sink, message)) => {
                let report = sink.id();
                info!(%id, %report, %to, ?kind, "its sender is told");
                Some((sink, message))
            }
            Err(error) => {
                warn!(%id, ?kind, %error, "its sender cannot be told");
                None
            }
        }
    }

    /// The lane of these that sends a digest: one that failed and is still configured, else any of the tenant's.
    fn digest_sender(&self, tenant: &str, lanes: &LaneSet) -> Option<(LaneId, Mailbox)> {
        let mut of_tenant = self.senders.iter().filter(|(_, (name, _))| name == tenant);
        let that = of_tenant.clone().find(|(lane, _)| lanes.contains(lane));
        let named = that.or_else(|| of_tenant.next()).map(|(lane, (_, address))| (lane.clone(), address.clone()));
        // Where each sender has a mailbox of his own, the one that failed sends it.
        let own = || lanes.lanes().find_map(|lane| Some((lane.clone(), lane.login().parse().ok()?)));
        named.or_else(|| own().filter(|_| self.wildcards.contains(tenant)))
    }

    /// Who hears of a failure, or why nobody does.
    fn addressee<B>(&self, claim: &Claim<B>) -> Result<Mailbox, &'static str> {
        if claim.origin == Origin::Report {
            return Err("it was a report itself");
        }
        self.internal_sender(claim).or_else(|| self.postmaster.clone()).ok_or(
            "its sender is in none of the tenant's own domains (internal_domains), and bounce.postmaster is not set",
        )
    }

    /// The sender as the maps have it: `root@erp01` is somebody of the tenant by them alone.
    fn internal_sender<B>(&self, claim: &Claim<B>) -> Option<Mailbox> {
        let given = claim.envelope.reverse_path.mailbox()?;
        let sender = self.rewritten.mapped(given).unwrap_or_else(|| given.clone());
        let internal = self.internal.get(&claim.tenant)?;
        let may_hear = claim.origin == Origin::Submitted && internal.contains(sender.domain());
        may_hear.then_some(sender)
    }

    /// The client's wish, up to what is configured.
    fn returned<B>(&self, claim: &Claim<B>) -> Ret {
        match (self.content, claim.envelope.ret) {
            (Ret::Full, Some(Ret::Full) | None) => Ret::Full,
            _ => Ret::Headers,
        }
    }

    fn may_tell(&self, to: &Mailbox, clock: &dyn Clock) -> bool {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner).admits(&to.to_string(), clock.monotonic())
    }

    /// Those who wait for a failure of their own and have not been told. Whose lane stands still has nothing to hear: it is
    /// the administrator's, and the notice would wait behind the mail that it speaks of.
    fn late<B>(&self, ended: &[Ended<'_>], claim: &Claim<B>, carrier: &Carrier<'_>, now: WallTime) -> Vec<Account> {
        if self.delay_notice_after.is_none_or(|delay| now.saturating_since(claim.accepted_at) < delay) {
            return Vec::new();
        }
        let accounts =
            ended.iter().filter(|ended| ended.is_late()).flat_map(|Ended { positions, outcome, verdict }| {
                let wanted = recipients(claim, positions).filter(|recipient| recipient.notify().delay);
                let age = match **verdict {
                    Verdict::Again(_, progress) => progress.age,
                    _ => Duration::ZERO,
                };
                let until = now + carrier.max_age.saturating_sub(age);
                wanted.map(move |recipient| Account {
                    recipient: recipient.clone(),
                    outcome: (*outcome).clone(),
                    reason: None,
                    remedy: None,
                    will_retry_until: matches!(outcome, Outcome::Deferred(_)).then_some(until),
                })
            });
        accounts.collect()
    }
}

impl Ended<'_> {
    /// Whether they are tried again for a reason of their own, and have not been told so.
    fn is_late(&self) -> bool {
        let is_own = matches!(self.outcome, Outcome::Deferred(_) | Outcome::Held { scope: Scope::Message, .. });
        is_own && matches!(&*self.verdict, Verdict::Again(_, progress) if !progress.delay_told)
    }
}

/// They have been told that it is late.
fn note_delay(ended: &mut [Ended<'_>]) {
    for ended in ended.iter_mut().filter(|ended| ended.is_late()) {
        if let Verdict::Again(_, progress) = ended.verdict {
            progress.delay_told = true;
        }
    }
}

/// Those who were given up.
fn failed<B>(ended: &[Ended<'_>], claim: &Claim<B>, carrier: &Carrier<'_>) -> Vec<Account> {
    let mut accounts = Vec::new();
    for Ended { positions, outcome, verdict } in ended {
        let Verdict::GivenUp(why) = **verdict else { continue };
        let (reason, remedy) = explained(why, outcome, claim, carrier);
        accounts.extend(recipients(claim, positions).map(|recipient| Account {
            recipient: recipient.clone(),
            outcome: (*outcome).clone(),
            reason: reason.clone(),
            remedy: remedy.clone(),
            will_retry_until: None,
        }));
    }
    accounts
}

/// Those whose client wants to hear of success, from a server that will not report it (RFC 3461 section 5.2.2).
fn passed_on<B>(ended: &[Ended<'_>], claim: &Claim<B>, carrier: &Carrier<'_>) -> Vec<Account> {
    let delivered = ended.iter().filter(|ended| !carrier.takes_wishes && *ended.verdict == Verdict::Delivered);
    let accounts = delivered.flat_map(|Ended { positions, outcome, .. }| {
        let wanted = recipients(claim, positions).filter(|recipient| recipient.notify().success);
        wanted.map(|recipient| Account {
            recipient: recipient.clone(),
            outcome: (*outcome).clone(),
            reason: None,
            remedy: None,
            will_retry_until: None,
        })
    });
    accounts.collect()
}

/// In plain words, where the relay knows more than the reply says.
fn explained<B>(
    why: Why,
    outcome: &Outcome,
    claim: &Claim<B>,
    carrier: &Carrier<'_>,
) -> (Option<String>, Option<String>) {
    let ask = |what: &str| Some(format!("Please show this report to your administrator: {what}"));
    match why {
        Why::Refused if claim.progress.uncertain > 0 => (
            None,
            Some("An earlier try ended without an answer, so it may have arrived all the same: ask before you send it again.".to_owned()),
        ),
        Why::Refused => (None, None),
        Why::SenderRefused => (
            Some(format!(
                "the mail server does not let the mailbox {} send it as {}",
                carrier.address, claim.envelope.reverse_path
            )),
            ask(&format!("{}.", forwarder::sender_advice(outcome.diagnostic()))),
        ),
        Why::TooOld => (
            Some(format!("it was tried for {} without success", in_words(carrier.max_age))),
            ask("the last answer of the mail server stands below. Then send the message again."),
        ),
        Why::HeldTooLong => (
            Some(format!("the mailbox {} could not send for too long", carrier.address)),
            ask("the reason stands below. Send the message again once that is mended."),
        ),
    }
}

fn recipients<'a, B>(claim: &'a Claim<B>, positions: &'a [usize]) -> impl Iterator<Item = &'a Recipient> {
    positions.iter().filter_map(|position| claim.recipients.get(*position))
}

/// `5 days`, `36 hours`, `90 minutes`.
fn in_words(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (number, unit) = match minutes {
        minutes if minutes > 0 && minutes % (24 * 60) == 0 => (minutes / (24 * 60), "day"),
        minutes if minutes > 0 && minutes % 60 == 0 => (minutes / 60, "hour"),
        minutes => (minutes, "minute"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_say_them() {
        for (minutes, text) in [
            (5 * 24 * 60, "5 days"),
            (24 * 60, "1 day"),
            (36 * 60, "36 hours"),
            (90, "90 minutes"),
            (1, "1 minute"),
            (0, "0 minutes"),
        ] {
            assert_eq!(in_words(Duration::from_mins(minutes)), text);
        }
    }
}
