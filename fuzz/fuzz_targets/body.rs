//! A body ends at the first CRLF.CRLF and nowhere else, and not an octet behind it is consumed; the pieces in which it
//! comes do not matter; what comes out has only CRLF line ends, is bounded, and survives stuffing and decoding.

#![no_main]

use fuzz::{Sizes, split_sizes};
use libfuzzer_sys::fuzz_target;
use memchr::memmem;
use wire::{BodyDecoder, DotStuffer};

const END: &[u8] = b"\r\n.\r\n";

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };

    let mut whole = Vec::new();
    let decoded = BodyDecoder::new().decode(octets, &mut whole);
    let end = end_of(octets);
    assert_eq!(decoded.done, end.is_some());
    assert_eq!(decoded.consumed, end.unwrap_or(octets.len()));
    assert!(whole.len() <= 2 * octets.len());
    assert_eq!(in_pieces(sizes, octets), (whole.clone(), end));
    if !decoded.done {
        return;
    }

    assert!(whole.is_empty() || whole.ends_with(b"\r\n"));
    for (at, octet) in whole.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(whole.get(at + 1), Some(&b'\n')),
            b'\n' => assert_eq!(whole[at - 1], b'\r'),
            _ => {}
        }
    }

    let sent = stuffed(sizes, &whole);
    assert_eq!(in_pieces(sizes, &sent), (whole, Some(sent.len())));
});

/// Where the octets after the final dot start. The start of the body counts as after CRLF.
fn end_of(octets: &[u8]) -> Option<usize> {
    if octets.starts_with(&END[2..]) {
        return Some(3);
    }
    memmem::find(octets, END).map(|at| at + END.len())
}

/// The message and how many octets it took, if the final dot came.
fn in_pieces(sizes: Sizes, octets: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut decoder, mut message, mut consumed) = (BodyDecoder::new(), Vec::new(), 0);
    for piece in sizes.cut(octets) {
        let progress = decoder.decode(piece, &mut message);
        consumed += progress.consumed;
        if progress.done {
            return (message, Some(consumed));
        }
        assert_eq!(progress.consumed, piece.len());
    }
    (message, None)
}

fn stuffed(sizes: Sizes, message: &[u8]) -> Vec<u8> {
    let (mut stuffer, mut sent) = (DotStuffer::new(), Vec::new());
    for piece in sizes.cut(message) {
        stuffer.stuff(piece, &mut sent);
    }
    stuffer.finish(&mut sent);
    sent
}
