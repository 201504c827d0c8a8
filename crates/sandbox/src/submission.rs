//! The verdict behind the final dot. Exchange proxies the message to the mailbox server and decides there what neither
//! MAIL nor RCPT showed: concurrency, size, a full mailbox, SendAs, the day's quota (facts 1.6). The order among them is U.

use crate::body::FinishedBody;
use crate::counters::SendAsDenial;
use crate::mailstore::Message;
use crate::replies;
use crate::session::Login;
use crate::transaction::Transaction;
use crate::world::World;

/// Where a message came in.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) login: &'a Login,
    pub(crate) session_id: &'a str,
    pub(crate) before_354: bool,
}

/// Decides on a message, keeps it if it is good, and gives the reply.
pub(crate) fn submit(world: &World, origin: Origin<'_>, transaction: Transaction, finished: FinishedBody) -> String {
    let shown_from = match judge(world, origin.login, &transaction, &finished) {
        Ok(shown_from) => shown_from,
        Err(refusal) => return refusal,
    };
    let message_id = finished.header.message_id.unwrap_or_else(made_up_id);
    let reply = replies::accepted(&message_id);
    world.mail.put(Message {
        index: 0,
        login: origin.login.address.clone(),
        reverse_path: transaction.reverse_path,
        parameters: transaction.parameters,
        recipients: transaction.recipients,
        body: finished.body,
        message_id,
        header_from: finished.header.from,
        shown_from,
        bare_lf: finished.bare_lf,
        bare_cr: finished.bare_cr,
        before_354: origin.before_354,
        received: world.clock.wall(),
        session_id: origin.session_id.to_owned(),
        connection: origin.login.connection,
    });
    reply
}

/// Whom recipients see as From, or the refusal.
fn judge(
    world: &World,
    login: &Login,
    transaction: &Transaction,
    finished: &FinishedBody,
) -> Result<Vec<String>, String> {
    let back_end = |text| Err(replies::from_back_end(text));
    if world.has_limits() && !world.limiter.may_submit(&login.address, login.connection) {
        return back_end(replies::CONCURRENCY_EXCEEDED);
    }
    let length = finished.body.length();
    if length > replies::ADVERTISED_SIZE {
        return back_end(replies::SIZE_EXCEEDED);
    }
    let shown_from = {
        let directory = world.directory();
        let Some((tenant, mailbox)) = directory.mailbox(&login.address) else {
            // Deleted while the session was open; nothing could be stored for it. U: the text is our choice.
            return back_end(replies::MAILBOX_FULL);
        };
        if length > mailbox.max_send_size {
            return back_end(replies::TOO_LARGE);
        }
        if mailbox.full {
            return back_end(replies::MAILBOX_FULL);
        }
        let null = transaction.reverse_path.is_empty();
        let envelope = Some(&transaction.reverse_path).filter(|_| !null);
        let seen = directory.as_seen(world.clock.monotonic());
        let judged = seen.mailbox(&login.address).map_or(mailbox, |(_, mailbox)| mailbox);
        if let Some(from) = finished.header.from.iter().chain(envelope).find(|from| !judged.may_be_from(from)) {
            world.tally.denied(SendAsDenial {
                login: login.address.clone(),
                from: from.clone(),
                message_id: finished.header.message_id.clone(),
            });
            return Err(replies::send_as_denied(&login.address, from));
        }
        let shown = |from: &String| judged.shown(from, tenant.send_from_alias).to_owned();
        finished.header.from.iter().map(shown).collect()
    };
    // Charged last: a message refused for another reason does not use the quota.
    let now = world.clock.monotonic();
    let count = transaction.recipients.len();
    if !world.has_limits() || world.limiter.charge_recipients(&login.address, count, now) {
        Ok(shown_from)
    } else {
        back_end(replies::QUOTA_EXCEEDED)
    }
}

/// Exchange gives a message without Message-ID one of its own.
fn made_up_id() -> String {
    let host = replies::BACK_END.split('.').next().unwrap_or_default();
    format!("<{host}{:016X}{:016X}@{}>", fastrand::u64(..), fastrand::u64(..), replies::BACK_END)
}
