//! Sends what was gathered: one message for each address that has failures waiting, which replaces them in one transaction.

use clock::Clock;
use mail::report::{Content, Digest, DigestEntry};
use mail::{Diagnostic, ForwardPath, LaneSet, Mailbox, Recipient, ReversePath};
use spool::{BodySink, NewReport, ReportGroup, Spool, StoreError};
use tracing::{info, warn};

use super::Reporting;
use super::composition::{Posting, new_message};

/// Addresses that get a digest in one round: more than there are, so that none can keep others out.
const GROUPS: u32 = 10_000;
/// Failures that one digest replaces, and how many of them it lists.
const ENTRIES: u32 = 10_000;
const LISTED: usize = 100;

impl Reporting {
    /// One round; what does not fit comes in the next.
    pub(crate) async fn send_digests<S: Spool>(&self, spool: &S, clock: &dyn Clock) {
        match spool.reports(GROUPS).await {
            Ok(groups) => {
                for group in groups {
                    if let Err(error) = self.send_digest(spool, &group, clock).await {
                        warn!(to = group.to, %error, "a digest of failures cannot be stored now; it is tried again");
                    }
                }
            }
            Err(error) => warn!(%error, "the failures that wait for a digest cannot be read; it is tried again"),
        }
    }

    async fn send_digest<S: Spool>(&self, spool: &S, group: &ReportGroup, clock: &dyn Clock) -> Result<(), StoreError> {
        let entries = spool.report_entries(&group.tenant, &group.to, ENTRIES).await?;
        let (Some((_, newest)), Ok(to)) = (entries.last(), group.to.parse::<Mailbox>()) else { return Ok(()) };
        let Some((lane, from)) = self.digest_sender(&group.tenant, &newest.lanes) else {
            warn!(
                to = group.to,
                tenant = group.tenant,
                "failures wait for a digest of a tenant that is not configured"
            );
            return Ok(());
        };
        let now = clock.wall();
        let mut sink = spool.receive_own()?;
        let message_id = self.message_id(sink.id(), now);
        let posting = Posting { tenant: &group.tenant, route: "", lanes: LaneSet::from(&lane), from: &from, to: &to };
        let date = now.rfc5322();
        // Recipients of one message stand together: they were settled together.
        let messages: Vec<Told> =
            entries.chunk_by(|(_, one), (_, other)| one.message == other.message).filter_map(Told::new).collect();
        let listed: Vec<_> = messages.iter().take(LISTED).map(Told::entry).collect();
        // What this one does not replace is told by the next.
        let beyond = (messages.len() - listed.len()) as u64;
        let digest = Digest { letter: self.letter(&posting, &date, &message_id), entries: &listed, beyond };
        let report = digest.report();
        if let Content::Whole(body) = &report.content {
            sink.write(body).await?;
        }
        let message = new_message(&posting, &report, &message_id, now);
        let failures = entries.len();
        let (id, newest) = (sink.id(), newest.at);
        if spool.commit_digest(sink, message, entries.iter().map(|(id, _)| *id).collect()).await? {
            info!(%id, %to, failures, %newest, "a digest of failures is queued");
        }
        Ok(())
    }
}

/// A failure with its words as values.
struct Told {
    time: String,
    queue_id: String,
    sender: ReversePath,
    recipients: Vec<Recipient>,
    message_id: String,
    reply: Diagnostic,
}

impl Told {
    /// Of failures that are all of one message; none of none.
    fn new(failures: &[(i64, NewReport)]) -> Option<Self> {
        let recipient = |(_, report): &(i64, NewReport)| ForwardPath::parse(report.recipients.as_bytes()).ok();
        let (_, first) = failures.first()?;
        Some(Self {
            time: first.at.rfc3339(),
            queue_id: first.message.to_string(),
            // As the queue stored them; what does not read is named as none.
            sender: ReversePath::parse(first.sender.as_bytes()).unwrap_or(ReversePath::Null),
            recipients: failures.iter().filter_map(recipient).map(Recipient::from).collect(),
            message_id: first.message_id.clone(),
            reply: Diagnostic::local(first.reply.clone()),
        })
    }

    fn entry(&self) -> DigestEntry<'_> {
        let Self { time, queue_id, sender, recipients, message_id, reply } = self;
        DigestEntry { time, queue_id, sender, recipients, message_id, reply }
    }
}
