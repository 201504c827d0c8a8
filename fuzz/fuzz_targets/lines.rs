//! Lines are those between line feeds, however the octets are cut into pieces: none is lost, joined or longer than the
//! limit, and no more than the limit and a CR is kept between two pieces.

#![no_main]

use fuzz::{Sizes, split_sizes};
use libfuzzer_sys::fuzz_target;
use wire::{Framed, LineFramer};

/// Small, so that the fuzzer passes it often.
const LIMIT: usize = 12;

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };
    assert_eq!(framed(sizes, octets), split(octets));
});

/// None stands for a line that was too long.
fn framed(sizes: Sizes, octets: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut framer = LineFramer::new(LIMIT);
    let (mut buffer, mut lines) = (Vec::new(), Vec::new());
    for piece in sizes.cut(octets) {
        buffer.extend_from_slice(piece);
        while !step(&mut framer, &mut buffer, &mut lines) {}
        assert!(buffer.len() <= LIMIT + 1);
    }
    lines
}

/// Takes one step; true if more octets are needed.
fn step(framer: &mut LineFramer, buffer: &mut Vec<u8>, lines: &mut Vec<Option<Vec<u8>>>) -> bool {
    let (consumed, wait) = match framer.next(buffer) {
        Framed::Line { line, consumed } => {
            lines.push(Some(line.to_vec()));
            (consumed, false)
        }
        Framed::TooLong { consumed } => {
            lines.push(None);
            (consumed, false)
        }
        Framed::Incomplete { consumed } => (consumed, true),
    };
    buffer.drain(..consumed);
    wait
}

/// The same, said in one go.
fn split(octets: &[u8]) -> Vec<Option<Vec<u8>>> {
    octets
        .split_inclusive(|octet| *octet == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .map(|line| (line.len() <= LIMIT).then(|| line.to_vec()))
        .collect()
}
