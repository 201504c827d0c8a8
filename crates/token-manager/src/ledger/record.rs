//! The ledger's file: its text, and how it is read and written. It locks nothing and counts nothing.
//!
//! Version 2 has a line for each request: its wall time in Unix milliseconds, the random id of its owner, its number.
//! Version 1 had the times alone.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clock::WallTime;

use crate::state_file::{beside, overwrite, replace};
use crate::window::{Record, RequestId};

/// First line of the file; the number is the version of the format.
const HEADER: &str = "xoauth2-relay token requests 2";

const HEADER_1: &str = "xoauth2-relay token requests 1";

/// A file of ours has some 250 octets; whatever is longer is not ours.
const MAX_FILE: u64 = 4096;

/// The requests that the file at `path` tells of; none if there is no file.
pub(super) fn read(path: &Path) -> io::Result<Vec<Record>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not a ledger of ours"))
}

/// Replaces the file; where there is no room for another, its own blocks hold what is new. A crash in the middle of that
/// leaves a file that does not read, which costs a wait and nothing else. The caller holds the lock.
pub(super) fn write(path: &Path, records: &[Record]) -> io::Result<()> {
    let text = render(records);
    match replace(path, &beside(path, "new"), text.as_bytes()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            overwrite(path, text.as_bytes())
        }
        replaced => replaced.map(drop),
    }
}

fn parse(text: &str) -> Option<Vec<Record>> {
    let (header, body) = text.split_once('\n')?;
    // The final line end proves that the file is whole.
    if !body.is_empty() && !body.ends_with('\n') {
        return None;
    }
    let lines = (0..).zip(body.lines());
    match header {
        HEADER => lines.map(|(_, line)| parse_record(line)).collect(),
        HEADER_1 => lines.map(|(number, line)| record(line, RequestId { owner: 0, number })).collect(),
        _ => None,
    }
}

fn parse_record(line: &str) -> Option<Record> {
    let mut words = line.split(' ');
    let (time, owner, number) = (words.next()?, words.next()?, words.next()?);
    let id = RequestId { owner: u64::from_str_radix(owner, 16).ok()?, number: number.parse().ok()? };
    if words.next().is_some() { None } else { record(time, id) }
}

fn record(time: &str, id: RequestId) -> Option<Record> {
    time.parse().ok().map(|millis| Record { time: WallTime::from_unix_millis(millis), id })
}

fn render(records: &[Record]) -> String {
    let mut text = format!("{HEADER}\n");
    for Record { time, id } in records {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {:016x} {}", time.unix_millis(), id.owner, id.number);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64, owner: u64, number: u64) -> Record {
        Record { time: WallTime::from_unix_millis(millis), id: RequestId { owner, number } }
    }

    #[test]
    fn the_text_is_this() {
        let text = "xoauth2-relay token requests 2\n1800000000000 00000000000000ff 7\n";
        assert_eq!(render(&[at(1_800_000_000_000, 255, 7)]), text);
    }

    #[test]
    fn version_1_names_no_owners() {
        let text = "xoauth2-relay token requests 1\n12\n13\n";
        assert_eq!(parse(text), Some(vec![at(12, 0, 0), at(13, 0, 1)]));
    }

    #[test]
    fn what_is_not_a_ledger_of_ours() {
        for text in [
            "",
            "xoauth2-relay token requests 2",
            "xoauth2-relay token requests 3\n",
            "xoauth2-relay token requests 2\n12 ff 1",
            "xoauth2-relay token requests 2\n12 ff\n",
            "xoauth2-relay token requests 2\n12 ff 1 x\n",
            "xoauth2-relay token requests 2\n12 fg 1\n",
            "xoauth2-relay token requests 2\n\n",
            "xoauth2-relay token requests 1\n12 ff 1\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(records in prop::collection::vec((any::<i64>(), any::<u64>(), any::<u64>()), 0..40)) {
            let records: Vec<_> = records.into_iter().map(|(millis, owner, number)| at(millis, owner, number)).collect();
            prop_assert_eq!(parse(&render(&records)), Some(records));
        }
    }
}
