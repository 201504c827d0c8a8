//! Lines are those between line feeds, however the octets are cut into pieces: none is lost, joined or longer than the
//! limit, those of bare LF are told in strict and only there, a CR is seen as soon as it is consumed, and no more than the
//! limit and a CR is kept between two pieces.

#![no_main]

use fuzz::{Sizes, split_sizes};
use libfuzzer_sys::fuzz_target;
use wire::{Dialect, Framed, LineFramer};

/// Small, so that the fuzzer passes it often.
const LIMIT: usize = 12;

/// What is told of a line.
#[derive(Debug, PartialEq)]
enum Told {
    Line(Vec<u8>),
    TooLong,
    BareLf,
}

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };
    for dialect in [Dialect::Lenient, Dialect::Strict] {
        assert_eq!(framed(sizes, octets, dialect), split(octets, dialect));
    }
});

fn framed(sizes: Sizes, octets: &[u8], dialect: Dialect) -> Vec<Told> {
    let mut framer = LineFramer::new(LIMIT, dialect);
    let (mut buffer, mut told) = (Vec::new(), Vec::new());
    let mut received = 0;
    for piece in sizes.cut(octets) {
        buffer.extend_from_slice(piece);
        received += piece.len();
        while !step(&mut framer, &mut buffer, &mut told) {}
        assert!(buffer.len() <= LIMIT + 1);
        assert_eq!(framer.saw_cr(), octets[..received - buffer.len()].contains(&b'\r'));
    }
    told
}

/// Takes one step; true if more octets are needed.
fn step(framer: &mut LineFramer, buffer: &mut Vec<u8>, told: &mut Vec<Told>) -> bool {
    let (consumed, line) = match framer.next(buffer) {
        Framed::Line { line, consumed } => (consumed, Some(Told::Line(line.to_vec()))),
        Framed::TooLong { consumed } => (consumed, Some(Told::TooLong)),
        Framed::BareLf { consumed } => (consumed, Some(Told::BareLf)),
        Framed::Incomplete { consumed } => (consumed, None),
    };
    buffer.drain(..consumed);
    let wait = line.is_none();
    told.extend(line);
    wait
}

/// The same, said in one go.
fn split(octets: &[u8], dialect: Dialect) -> Vec<Told> {
    octets
        .split_inclusive(|octet| *octet == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
        .map(|line| match line.strip_suffix(b"\r") {
            Some(line) if line.len() <= LIMIT => Told::Line(line.to_vec()),
            None if line.len() <= LIMIT && dialect == Dialect::Strict => Told::BareLf,
            None if line.len() <= LIMIT => Told::Line(line.to_vec()),
            _ => Told::TooLong,
        })
        .collect()
}
