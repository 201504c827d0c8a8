//! A body ends at the first CRLF.CRLF and nowhere else, and not an octet behind it is consumed; for a client of bare LFs it
//! ends at the first LF.LF too, but not behind a CR. The pieces in which it comes do not matter; what comes out has only CRLF
//! line ends, is bounded, has the longest line that was told, and survives stuffing and decoding.

#![no_main]

use fuzz::{Sizes, split_sizes};
use libfuzzer_sys::fuzz_target;
use memchr::{memchr, memmem};
use wire::{BodyDecoder, DotStuffer};

const END: &[u8] = b"\r\n.\r\n";
const LF_END: &[u8] = b"\n.\n";

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };
    check(sizes, octets, BodyDecoder::new, end_of(octets));
    check(sizes, octets, BodyDecoder::for_lf_only_client, end_for_lf_only_client(octets));

    let start = &octets[..memchr(b'\r', octets).unwrap_or(octets.len())];
    if let (message, Some(end)) = in_pieces(sizes, start, BodyDecoder::for_lf_only_client()) {
        let with_cr = start[..end].split(|octet| *octet == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
        let same = in_pieces(sizes, &with_cr, BodyDecoder::new());
        assert_eq!(same, (message, Some(with_cr.len())), "bare LFs mean what CRLFs do");
    }
});

fn check(sizes: Sizes, octets: &[u8], decoder: fn() -> BodyDecoder, end: Option<usize>) {
    let (mut in_one, mut whole) = (decoder(), Vec::new());
    let progress = in_one.decode(octets, &mut whole);
    assert_eq!(progress.done, end.is_some());
    assert_eq!(progress.consumed, end.unwrap_or(octets.len()));
    assert!(whole.len() <= 2 * octets.len());
    assert_eq!(in_one.saw_cr(), memchr(b'\r', &octets[..progress.consumed]).is_some());
    assert_eq!(in_pieces(sizes, octets, decoder()), (whole.clone(), end));
    assert_eq!(in_one.longest_line(), longest_line(&whole));
    if !progress.done {
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
    assert_eq!(in_pieces(sizes, &sent, decoder()), (whole, Some(sent.len())));
}

/// Where the octets after the final dot start. The start of the body counts as after CRLF.
fn end_of(octets: &[u8]) -> Option<usize> {
    if octets.starts_with(&END[2..]) {
        return Some(3);
    }
    memmem::find(octets, END).map(|at| at + END.len())
}

/// The same if LF.LF counts before the first CR.
fn end_for_lf_only_client(octets: &[u8]) -> Option<usize> {
    let start = &octets[..memchr(b'\r', octets).unwrap_or(octets.len())];
    if start.starts_with(&LF_END[1..]) {
        return Some(2);
    }
    memmem::find(start, LF_END).map(|at| at + LF_END.len()).or_else(|| end_of(octets))
}

/// Of a message at rest or the start of one; withheld octets are in none.
fn longest_line(message: &[u8]) -> usize {
    let lines = message.split(|octet| *octet == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line).len()).max().unwrap_or_default()
}

/// The message and how many octets it took, if the final dot came.
fn in_pieces(sizes: Sizes, octets: &[u8], mut decoder: BodyDecoder) -> (Vec<u8>, Option<usize>) {
    let (mut message, mut consumed) = (Vec::new(), 0);
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
