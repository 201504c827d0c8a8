//! Which fields of a header change, as a diff for a person. Fields are compared as they are written and shown in one
//! printable line each; their order is kept, as all that edits a header here keeps it.

use mail::{HeaderBlock, readable};

/// Most characters of a field.
const MAX_SHOWN: usize = 300;
/// Most lines; a header with more changes was made to have them.
const MAX_LINES: usize = 40;
/// Most pairs of fields that are compared; beyond them all that is between the first and the last change is shown as changed.
const MAX_PAIRS: usize = 1_000_000;

/// The fields of `old` that are gone, each after `- `, and those of `new` that came, each after `+ `.
pub(super) fn diff(old: &HeaderBlock, new: &HeaderBlock) -> Vec<String> {
    let (old, new) = (fields(old.as_bytes()), fields(new.as_bytes()));
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let lengths = common(old, new);
    let at = |from: usize, to: usize| lengths.get(from * (new.len() + 1) + to).copied().unwrap_or(0);
    let mut lines = Vec::new();
    let (mut from, mut to) = (0, 0);
    while from < old.len() || to < new.len() {
        if lines.len() == MAX_LINES {
            lines.push("  (and more)".to_owned());
            break;
        }
        if from < old.len() && to < new.len() && old[from] == new[to] {
            (from, to) = (from + 1, to + 1);
        } else if from < old.len() && (to == new.len() || at(from + 1, to) >= at(from, to + 1)) {
            lines.push(format!("- {}", readable(old[from], MAX_SHOWN)));
            from += 1;
        } else {
            lines.push(format!("+ {}", readable(new[to], MAX_SHOWN)));
            to += 1;
        }
    }
    lines
}

/// For each pair of places how many fields the rests have in common, row by row; empty if there are too many.
fn common(old: &[&[u8]], new: &[&[u8]]) -> Vec<u16> {
    let width = new.len() + 1;
    if old.len().saturating_mul(width) > MAX_PAIRS {
        return Vec::new();
    }
    let mut lengths = vec![0_u16; (old.len() + 1) * width];
    for from in (0..old.len()).rev() {
        for to in (0..new.len()).rev() {
            lengths[from * width + to] = if old[from] == new[to] {
                lengths[(from + 1) * width + to + 1].saturating_add(1)
            } else {
                lengths[(from + 1) * width + to].max(lengths[from * width + to + 1])
            };
        }
    }
    lengths
}

/// Each field with the lines that go on with it.
fn fields(octets: &[u8]) -> Vec<&[u8]> {
    let mut fields: Vec<&[u8]> = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if end > start && !line.starts_with(b" ") && !line.starts_with(b"\t") {
            fields.push(&octets[start..end]);
            start = end;
        }
        end += line.len();
    }
    if end > start {
        fields.push(&octets[start..end]);
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(old: &str, new: &str) -> Vec<String> {
        let block = |text: &str| HeaderBlock::parse(text.as_bytes().to_vec());
        diff(&block(old), &block(new))
    }

    #[test]
    fn what_changes_is_shown_in_its_place_and_nothing_else() {
        for (old, new, wanted) in [
            ("A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n", &[][..]),
            ("A: 1\r\nB: 2\r\nC: 3\r\n", "A: 1\r\nB: 4\r\nC: 3\r\n", &["- B: 2", "+ B: 4"]),
            ("B: 2\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n", &["+ A: 1", "+ C: 3"]),
            ("A: 1\r\nBcc: x\r\nC: 3\r\nF: a\r\n", "A: 1\r\nC: 3\r\nF: b\r\n", &["- Bcc: x", "- F: a", "+ F: b"]),
            (
                "A: long\r\n value\r\nB: 2\r\n",
                "A: long\r\n\tother\r\nB: 2\r\n",
                &["- A: long value", "+ A: long other"],
            ),
            ("A: \x1b[2J1\r\n", "", &["- A: [2J1"]),
        ] {
            assert_eq!(lines(old, new), wanted, "{old:?} {new:?}");
        }
    }

    #[test]
    fn headers_that_were_made_to_cost_time_cost_none() {
        let many = |name: &str| (0..20_000).map(|number| format!("{name}: {number}\r\n")).collect::<Vec<_>>().concat();
        assert_eq!(lines(&many("A"), &many("B")).len(), MAX_LINES + 1);
    }

    proptest! {
        /// The counted lines are exactly what one has more than the other.
        #[test]
        fn a_diff_tells_all_and_only_what_changed(
            old in proptest::collection::vec("[ABC]: [12]\r\n", 0..8), new in proptest::collection::vec("[ABC]: [12]\r\n", 0..8),
        ) {
            let said = lines(&old.concat(), &new.concat());
            prop_assert_eq!(said.is_empty(), old == new);
            let count = |mark: char| said.iter().filter(|line| line.starts_with(mark)).count();
            prop_assert_eq!(old.len() - count('-'), new.len() - count('+'));
        }
    }
}
