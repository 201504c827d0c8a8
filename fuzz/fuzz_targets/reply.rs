//! Upstream's replies are the same whatever the pieces, errors too; each is bounded, has an enhanced code only of its own
//! class, and written to a client it is printable lines that read as one reply of that code.

#![no_main]

use fuzz::{Sizes, split_sizes};
use libfuzzer_sys::fuzz_target;
use wire::{Reply, ReplyError, ReplyParser};

/// Those of the parser, which keeps them to itself; a lossy octet becomes three.
const MAX_LINES: usize = 200;
const MAX_LINE_LEN: usize = 3 * 4096;

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };
    let (replies, error) = read(std::iter::once(octets));
    assert_eq!(read(sizes.cut(octets)), (replies.clone(), error));
    for reply in &replies {
        check(sizes, reply);
    }
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut parser, mut replies) = (ReplyParser::default(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            match parser.push(piece) {
                Ok((used, reply)) => {
                    assert!(used > 0, "no progress");
                    piece = &piece[used..];
                    replies.extend(reply);
                }
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

fn check(sizes: Sizes, reply: &Reply) {
    assert!((200..600).contains(&reply.code()));
    assert!((1..=MAX_LINES).contains(&reply.lines().len()));
    assert!(reply.lines().iter().all(|line| line.len() <= MAX_LINE_LEN));
    assert!(reply.enhanced().is_none_or(|enhanced| u16::from(enhanced.class) == reply.code() / 100));

    let mut written = Vec::new();
    reply.write_to(&mut written);
    let printable = |line: &[u8]| line.iter().all(|octet| (b' '..=b'~').contains(octet));
    assert!(written.split(|octet| *octet == b'\n').all(|line| printable(line.strip_suffix(b"\r").unwrap_or(line))));
    let (again, error) = read(sizes.cut(&written));
    assert_eq!(error, None);
    let [again] = &again[..] else { panic!("{} replies", again.len()) };
    assert_eq!((again.code(), again.lines().len()), (reply.code(), reply.lines().len()));
}
