//! A header block is split from the body at the first empty line whatever the pieces; new fields are found again, are one
//! field each, and leave every octet that was there in place; look-ups never panic.

#![no_main]

use fuzz::{check_split, split_sizes};
use libfuzzer_sys::fuzz_target;
use mail::{Field, HeaderBlock, begins_with_header};

fuzz_target!(|input: &[u8]| {
    let Some((sizes, octets)) = split_sizes(input) else { return };
    check_split(sizes, octets);
    edit(octets);
});

/// The first line of the input names a field, the second is its value, all of it is the block.
fn edit(octets: &[u8]) {
    let mut block = HeaderBlock::parse(octets.to_vec());
    let before = block.as_bytes().to_vec();
    let mut lines = octets.split(|octet| *octet == b'\n').map(String::from_utf8_lossy);
    let (name, value) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let count = look_up(&block, &name);
    let Ok(field) = Field::new(&name, &value) else { return };

    let mut alone = HeaderBlock::default();
    alone.prepend(&field);
    let own = alone.as_bytes();
    let first = alone.value(&name).expect("the field is there").to_vec();
    assert_eq!(own, [name.as_bytes(), b":", &first].concat(), "one field, whatever its value");

    block.prepend(&field);
    block.append(&field);
    assert_eq!(look_up(&block, &name), count + 2);
    assert_eq!(block.as_bytes(), [own, &before, own].concat());
    assert_eq!(words(&first), words(value.as_bytes()), "folding changes only blanks");
    assert_eq!(look_up(&HeaderBlock::parse(block.into_bytes()), &name), count + 2, "and so for the next reader");
}

/// How often the field is there, from every way to ask.
fn look_up(block: &HeaderBlock, name: &str) -> usize {
    let count = block.count(name);
    assert_eq!(block.has(name), count > 0);
    assert_eq!(block.value(&name.to_ascii_uppercase()), block.value(name));
    let _ = begins_with_header(block.as_bytes());
    count
}

fn words(octets: &[u8]) -> Vec<&[u8]> {
    octets.split(|octet| b" \t\r\n".contains(octet)).filter(|word| !word.is_empty()).collect()
}
