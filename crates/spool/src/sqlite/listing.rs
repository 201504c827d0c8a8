//! A page of the list of deliveries. Reads neither header nor body: what it shows stands before them in their rows. Bounded
//! by rows looked at, so that a filter that lets little through holds no checkpoint up. Not here: the order of sending.

use std::time::Duration;

use clock::WallTime;
use mail::LaneSet;
use rusqlite::{Connection, params};

use super::apply::origin;
use super::recipients;
use super::schema::State;
use crate::id::{DeliveryId, QueueId};
use crate::list::{DeliveryState, ListFilter, Listed, Page};
use crate::progress::Progress;

/// Rows looked at for a page: some milliseconds.
const LOOKED_AT: u32 = 10_000;
/// Deliveries in a page; each may be a few KiB with its recipients.
const PAGE: u32 = 1_000;

/// Some of the deliveries behind `after`, at most `limit`.
pub(super) fn page(
    connection: &Connection,
    filter: &ListFilter,
    after: Option<DeliveryId>,
    limit: u32,
) -> rusqlite::Result<Page> {
    let limit = limit.clamp(1, PAGE) as usize;
    let after = after.map_or(i64::MIN, |after| after.0);
    let mut statement =
        connection.prepare_cached("SELECT id, lane, state FROM delivery WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = statement.query(params![after, LOOKED_AT])?;
    let (mut page, mut looked_at) = (Page::default(), 0);
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        looked_at += 1;
        if is_let_through(filter, row.get_ref(1)?.as_str()?, row.get(2)?) {
            page.deliveries.extend(listed(connection, id)?);
        }
        if page.deliveries.len() == limit || looked_at == LOOKED_AT {
            page.next = Some(DeliveryId(id));
            return Ok(page);
        }
    }
    Ok(page)
}

fn is_let_through(filter: &ListFilter, lanes: &str, state: i64) -> bool {
    filter.lanes.as_ref().is_none_or(|wanted| wanted.as_str() == lanes)
        && filter.state.is_none_or(|wanted| stored(wanted) as i64 == state)
}

fn stored(state: DeliveryState) -> State {
    match state {
        DeliveryState::Queued => State::Queued,
        DeliveryState::Held => State::Held,
        DeliveryState::Quarantined => State::Quarantined,
        DeliveryState::Unrouted => State::Unrouted,
    }
}

/// What does not read in a damaged row is shown empty: it is set aside once it is claimed.
fn listed(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<Listed>> {
    let mut statement = connection.prepare_cached(
        "SELECT d.message, d.lane, d.tenant, d.route, d.state, d.due, d.attempts, d.uncertain, d.age, d.denied,
         d.delay_told, d.diagnostic, d.recipients, d.client, d.origin, m.reverse_path, m.size, m.accepted_at, m.message_id,
         m.listener, d.route_epoch, d.user, d.asked
         FROM delivery d LEFT JOIN message m ON m.id = d.message WHERE d.id = ?1",
    )?;
    let mut rows = statement.query([delivery])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let number = |at| row.get::<_, i64>(at).map(|value| u32::try_from(value.max(0)).unwrap_or(u32::MAX));
    let time = |at| row.get::<_, i64>(at).map(|value| Duration::from_millis(u64::try_from(value).unwrap_or(0)));
    let text = |at| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
    let progress = Progress {
        attempts: number(6)?,
        uncertain: number(7)?,
        age: time(8)?,
        denied: time(9)?,
        delay_told: row.get(10)?,
    };
    Ok(Some(Listed {
        delivery: DeliveryId(delivery),
        message: QueueId::from_i64(row.get(0)?).unwrap_or(QueueId::new(0, 0)),
        lanes: LaneSet::from_stored(row.get(1)?),
        tenant: row.get(2)?,
        route: row.get(3)?,
        route_epoch: row.get::<_, i64>(20)?.cast_unsigned(),
        asked: row.get::<_, Option<String>>(22)?.and_then(|asked| asked.parse().ok()),
        state: match row.get::<_, i64>(4)? {
            0 => DeliveryState::Queued,
            1 => DeliveryState::Held,
            4 => DeliveryState::Unrouted,
            _ => DeliveryState::Quarantined,
        },
        due: WallTime::from_unix_millis(row.get(5)?),
        progress,
        diagnostic: row.get(11)?,
        recipients: recipients::decode(&row.get::<_, String>(12)?).unwrap_or_default(),
        listener: text(19)?,
        client: row.get(13)?,
        user: row.get(21)?,
        origin: origin(row.get(14)?).unwrap_or_default(),
        sender: text(15)?,
        size: u64::try_from(row.get::<_, Option<i64>>(16)?.unwrap_or(0)).unwrap_or(0),
        accepted_at: WallTime::from_unix_millis(row.get::<_, Option<i64>>(17)?.unwrap_or(0)),
        message_id: text(18)?,
    }))
}
