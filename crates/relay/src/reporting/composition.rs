//! Makes a report a message in the queue: words, body and envelope. It is stored only by the settlement that it goes with.

use clock::{Clock, WallTime};
use mail::report::{Content, Fate, Kind, Letter, Notice, Report};
use mail::{Envelope, ForwardPath, HeaderBlock, LaneSet, Mailbox, MessageId, Notify, Recipient, Ret, ReversePath};
use spool::{BodySink, BodySource, Claim, NewDelivery, NewMessage, Origin, QueueId, Spool, StoreError};

use super::{Account, Carrier, Reporting};

/// Larger bodies are not returned: a report that upstream refuses for its size tells nobody anything.
const LARGEST_RETURNED: u64 = 10 << 20;

/// What a report is to say.
pub(super) struct Words<'a> {
    pub(super) kind: Kind,
    pub(super) to: &'a Mailbox,
    /// At least one.
    pub(super) accounts: &'a [Account],
    pub(super) returned: Ret,
}

/// Where a report goes and who sends it.
pub(super) struct Posting<'a> {
    pub(super) tenant: &'a str,
    pub(super) route: &'a str,
    pub(super) lanes: LaneSet,
    pub(super) from: &'a Mailbox,
    pub(super) to: &'a Mailbox,
}

impl Reporting {
    /// A report on `claim`, whole, and ready to be stored.
    pub(super) async fn compose<S: Spool>(
        &self,
        spool: &S,
        claim: &mut Claim<S::Source>,
        words: &Words<'_>,
        carrier: &Carrier<'_>,
        clock: &dyn Clock,
    ) -> Result<(S::Sink, NewMessage), StoreError> {
        let mut sink = spool.receive_own()?;
        let now = clock.wall();
        let posting = Posting {
            tenant: &claim.tenant,
            route: &claim.route,
            lanes: LaneSet::from(carrier.lane),
            from: carrier.address,
            to: words.to,
        };
        let message_id = self.message_id(sink.id(), now);
        let returned = if claim.body.total() > LARGEST_RETURNED { Ret::Headers } else { words.returned };
        let report =
            notice(claim, words, carrier, returned, &self.letter(&posting, &now.rfc5322(), &message_id), clock);
        let message = new_message(&posting, &report, &message_id, now);
        match &report.content {
            Content::Whole(body) => sink.write(body).await?,
            Content::Around { before, after } => {
                sink.write(before).await?;
                copy(&mut claim.body, &mut sink).await?;
                sink.write(after).await?;
            }
        }
        // What fails now goes into a digest; failing at the settlement it would take the outcomes with it.
        sink.flush().await?;
        Ok((sink, message))
    }

    pub(super) fn letter<'a>(&'a self, posting: &Posting<'a>, date: &'a str, message_id: &'a MessageId) -> Letter<'a> {
        Letter { hostname: &self.hostname, from: posting.from, to: posting.to, date, message_id }
    }

    /// As messages that come without one get it.
    pub(super) fn message_id(&self, id: QueueId, now: WallTime) -> MessageId {
        let text = format!("<{id}.{}@{}>", now.unix_millis(), self.hostname);
        let bare = || MessageId::parse(&format!("<{id}.{}@localhost>", now.unix_millis()));
        MessageId::parse(&text).or_else(bare).expect("an id, a number and a name make an identifier")
    }
}

/// From the start, whatever was read of it before.
async fn copy<B: BodySource, K: BodySink>(body: &mut B, sink: &mut K) -> Result<(), StoreError> {
    body.rewind().await?;
    while let Some(octets) = body.next().await? {
        sink.write(octets).await?;
    }
    Ok(())
}

fn notice<B>(
    claim: &Claim<B>,
    words: &Words<'_>,
    carrier: &Carrier<'_>,
    returned: Ret,
    letter: &Letter<'_>,
    clock: &dyn Clock,
) -> Report {
    let (queue_id, arrival, date) = (claim.message.to_string(), claim.accepted_at.rfc5322(), letter.date);
    let ends: Vec<_> = words.accounts.iter().map(|account| account.will_retry_until.map(WallTime::rfc5322)).collect();
    let fate = |(account, end): (&'_ Account, &'_ Option<String>)| {
        let reply = account.outcome.diagnostic();
        (account.clone(), end.clone(), reply.code.is_some())
    };
    let told: Vec<_> = words.accounts.iter().zip(&ends).map(fate).collect();
    let fates: Vec<Fate<'_>> = told
        .iter()
        .map(|(account, end, was_answered)| Fate {
            recipient: &account.recipient,
            reply: account.outcome.diagnostic(),
            remote_mta: was_answered.then_some(carrier.host),
            reason: account.reason.as_deref(),
            remedy: account.remedy.as_deref(),
            last_attempt: Some(date),
            will_retry_until: end.as_deref(),
        })
        .collect();
    let notice = Notice {
        kind: words.kind,
        letter: *letter,
        nonce: nonce(clock),
        queue_id: &queue_id,
        arrival: &arrival,
        envelope: &claim.envelope,
        original: &HeaderBlock::parse(claim.header.to_vec()),
        returned,
        fates: &fates,
    };
    notice.report()
}

/// 128 bits of chance.
fn nonce(clock: &dyn Clock) -> u128 {
    (0..4).fold(0, |nonce, _| (nonce << 32) | u128::from(clock.chance().to_bits() >> 20 & 0xffff_ffff))
}

/// The queue's own message that carries `report`.
pub(super) fn new_message(posting: &Posting<'_>, report: &Report, message_id: &MessageId, now: WallTime) -> NewMessage {
    let path = ForwardPath::Mailbox(posting.to.clone());
    NewMessage {
        envelope: Envelope {
            body_type: report.body_type,
            smtputf8: report.smtputf8,
            ..Envelope::from(ReversePath::Mailbox(posting.from.clone()))
        },
        header: report.header.as_bytes().to_vec(),
        message_id: message_id.to_string(),
        listener: String::new(),
        client: String::new(),
        user: None,
        accepted_at: now,
        origin: Origin::Report,
        deliveries: vec![NewDelivery {
            tenant: posting.tenant.to_owned(),
            lanes: posting.lanes.clone(),
            route: posting.route.to_owned(),
            route_epoch: 0,
            asked: None,
            // Nobody is to report on a report.
            recipients: vec![Recipient { notify: Some(Notify::NEVER), ..path.into() }],
        }],
    }
}
