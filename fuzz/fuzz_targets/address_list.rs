//! The members of an address list stand in order within the value, each address as a mailbox that is written the same way; a
//! right one that is replaced where it stands is read there, and whatever the value says fits a field of ours as a name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{AddressList, Field, Grade, Mailbox, is_date, name_in, named};

fuzz_target!(|value: &[u8]| {
    let _ = is_date(value);
    let other: Mailbox = "other@contoso.com".parse().expect("it is a mailbox");
    let name = name_in(value, 0..0);
    assert!(Field::new("From", &named(&name, &other)).is_ok());
    let Ok(list) = AddressList::parse(value) else { return };
    let mut end = 0;
    for member in list.members() {
        assert!(end <= member.whole.start && member.whole.end <= value.len());
        assert!(member.whole.start <= member.addr_spec.start && member.addr_spec.end <= member.whole.end);
        end = member.whole.end;
    }
    assert_eq!(list.grade() == Grade::Broken, list.mailboxes().next().is_none());
    if list.grade() == Grade::Right {
        replace_each(value, &list, &other);
    }
});

fn replace_each(value: &[u8], list: &AddressList, other: &Mailbox) {
    for (at, member) in list.members().iter().enumerate().take(8) {
        let (before, after) = (&value[..member.addr_spec.start], &value[member.addr_spec.end..]);
        let replaced = [before, other.to_string().as_bytes(), after].concat();
        let Ok(again) = AddressList::parse(&replaced) else { continue };
        assert_eq!(again.grade(), Grade::Right);
        let wanted = list.mailboxes().enumerate().map(|(number, mailbox)| if number == at { other } else { mailbox });
        assert!(again.mailboxes().eq(wanted));
    }
}
