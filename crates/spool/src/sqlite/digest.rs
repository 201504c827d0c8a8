//! Failures that wait to be told together: written by settlements, read in groups, and gone in the transaction that stores
//! the digest which tells of them. Not here: that transaction.

use clock::WallTime;
use mail::LaneSet;
use rusqlite::{Connection, params};

use crate::id::QueueId;
use crate::report::{NewReport, ReportGroup};

/// Inside the caller's transaction.
pub(super) fn add(connection: &Connection, report: &NewReport) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO report (tenant, address, at, lane, message, message_id, sender, recipients, reply)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        report.tenant,
        report.to,
        report.at.unix_millis(),
        report.lanes.as_str(),
        report.message.to_i64(),
        report.message_id,
        report.sender,
        report.recipients,
        report.reply
    ])?;
    Ok(())
}

/// Forgets these failures, if all of them are there and there is one at all; else changes nothing and says no.
pub(super) fn take(connection: &Connection, reports: &[i64]) -> rusqlite::Result<bool> {
    let mut exists = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM report WHERE id = ?1)")?;
    for report in reports {
        if !exists.query_row([report], |row| row.get::<_, bool>(0))? {
            return Ok(false);
        }
    }
    let mut delete = connection.prepare_cached("DELETE FROM report WHERE id = ?1")?;
    for report in reports {
        delete.execute([report])?;
    }
    Ok(!reports.is_empty())
}

const GROUPS: &str = "SELECT tenant, address, count(*), min(at) FROM report GROUP BY tenant, address LIMIT ?1";

/// The addresses for which failures wait, counted in the index.
pub(super) fn groups(connection: &Connection, at_most: u32) -> rusqlite::Result<Vec<ReportGroup>> {
    let mut statement = connection.prepare_cached(GROUPS)?;
    let rows = statement.query_map([at_most], |row| {
        Ok(ReportGroup {
            tenant: row.get(0)?,
            to: row.get(1)?,
            count: row.get::<_, i64>(2)?.unsigned_abs(),
            oldest: WallTime::from_unix_millis(row.get(3)?),
        })
    })?;
    rows.collect()
}

const ENTRIES: &str = "SELECT id, at, lane, message, message_id, sender, recipients, reply FROM report
     WHERE tenant = ?1 AND address = ?2 ORDER BY at, id LIMIT ?3";

/// The failures that wait for one address, oldest first.
pub(super) fn entries(
    connection: &Connection,
    tenant: &str,
    to: &str,
    limit: u32,
) -> rusqlite::Result<Vec<(i64, NewReport)>> {
    let mut statement = connection.prepare_cached(ENTRIES)?;
    let rows = statement.query_map(params![tenant, to, limit], |row| {
        let report = NewReport {
            tenant: tenant.to_owned(),
            to: to.to_owned(),
            at: WallTime::from_unix_millis(row.get(1)?),
            lanes: LaneSet::from_stored(row.get(2)?),
            message: QueueId::from_i64(row.get(3)?).ok_or(rusqlite::Error::IntegralValueOutOfRange(3, -1))?,
            message_id: row.get(4)?,
            sender: row.get(5)?,
            recipients: row.get(6)?,
            reply: row.get(7)?,
        };
        Ok((row.get(0)?, report))
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::fetch::tests::plan;

    #[test]
    fn failures_are_found_by_their_index() {
        assert!(plan(GROUPS).contains("USING COVERING INDEX report_address"), "{}", plan(GROUPS));
        let entries = plan(ENTRIES);
        assert!(entries.contains("USING INDEX report_address (tenant=? AND address=?)"), "{entries}");
        assert!(!entries.contains("TEMP B-TREE"), "{entries}");
    }
}
