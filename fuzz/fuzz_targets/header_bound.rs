//! A header block is split the same whatever the pieces where it is about as long as it may be, and one octet more is
//! refused whatever the pieces. Apart from `header`, since each input costs a quarter of a megabyte.

#![no_main]

use fuzz::{check_split, split_sizes};
use libfuzzer_sys::fuzz_target;
use mail::MAX_HEADER_LEN;

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };
    check_split(sizes, &[&vec![b'a'; MAX_HEADER_LEN - octets.len() / 2], octets].concat());
});
