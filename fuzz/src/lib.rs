//! What the targets share: how an input says in which pieces it arrives, and the splitting of a message.

use mail::{HeaderSplitter, MAX_HEADER_LEN};
use memchr::memmem;

/// Splits off the first octet, which says the sizes of the pieces: its two halves, 1 to 16 octets, in turn.
/// None for an empty input.
pub fn split_sizes(input: &[u8]) -> Option<(Sizes, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((Sizes { now: usize::from(first >> 4) + 1, next: usize::from(first & 15) + 1 }, rest))
}

/// The sizes of the pieces.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    now: usize,
    next: usize,
}

impl Sizes {
    /// `octets` in pieces of these sizes.
    pub fn cut(self, mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
        let Self { mut now, mut next } = self;
        std::iter::from_fn(move || {
            let (piece, rest) = octets.split_at(now.min(octets.len()));
            octets = rest;
            std::mem::swap(&mut now, &mut next);
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Header block and body.
type Message = (Vec<u8>, Vec<u8>);

/// Splits header block from body in one piece and in pieces of these sizes, and compares with a search of our own.
pub fn check_split(sizes: Sizes, octets: &[u8]) {
    let expected = split(octets);
    // Not `assert_eq!`, which would print a quarter of a megabyte.
    assert!(read(std::iter::once(octets)) == expected, "in one piece");
    // A long start in one piece: only its end is of interest.
    let (start, end) = octets.split_at(octets.len().saturating_sub(4096));
    assert!(read(std::iter::once(start).chain(sizes.cut(end))) == expected, "in pieces");
}

/// None if the header is too long.
fn read<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Option<Message> {
    let mut splitter = HeaderSplitter::default();
    while let Some(piece) = pieces.next() {
        if let Some((block, rest)) = splitter.push(piece).ok()? {
            let body = pieces.fold(rest.to_vec(), |body, piece| [&body, piece].concat());
            return Some((block.into_bytes(), body));
        }
    }
    Some((splitter.finish().ok()?.into_bytes(), Vec::new()))
}

/// The same, said in one go. A message without an empty line is all header, and its last line gets a line end.
fn split(octets: &[u8]) -> Option<Message> {
    let end = if octets.starts_with(b"\r\n") { Some(0) } else { memmem::find(octets, b"\r\n\r\n").map(|at| at + 2) };
    let (header, body) = octets.split_at(end.unwrap_or(octets.len()));
    if header.len() > MAX_HEADER_LEN {
        return None;
    }
    let mut header = header.to_vec();
    if !header.is_empty() && !header.ends_with(b"\r\n") {
        header.extend_from_slice(b"\r\n");
    }
    Some((header, body.get(2..).unwrap_or_default().to_vec()))
}
