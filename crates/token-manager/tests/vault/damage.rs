//! Whatever happens to a file is noticed and said, and the file stays as it is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use token_manager::VaultError;

use crate::room::{KEY, Room, assert_same, grant, name, named};

#[test]
fn each_octet_counts() {
    for key in [None, Some(KEY)] {
        let room = Room::new();
        let vault = key.map_or_else(|| room.plain(), |key| room.with_key(Some(key)));
        vault.store(&name(), &grant()).unwrap();
        let path = room.file();
        let whole = fs::read(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for place in 0..whole.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut text = whole.clone();
                text[place] ^= flip;
                file.write_all_at(&text, 0).unwrap();
                let error = vault.load(&name()).unwrap_err();
                // A flipped version may look like a later one.
                let version = place == "xoauth2-relay refresh token ".len();
                let said = matches!(&error, VaultError::Damaged { .. })
                    || version && matches!(error, VaultError::Newer { .. });
                assert!(said, "{place} {flip}: {error}");
                assert_eq!(fs::read(&path).unwrap(), text);
            }
        }
        file.write_all_at(&whole, 0).unwrap();
        assert_same(&vault.load(&name()).unwrap().unwrap(), &grant());
    }
}

#[test]
fn each_length_but_the_right_one_is_damage() {
    let room = Room::new();
    let vault = room.with_key(Some(KEY));
    vault.store(&name(), &grant()).unwrap();
    let mut whole = fs::read(room.file()).unwrap();
    let file = File::options().write(true).open(room.file()).unwrap();
    for length in (0..whole.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert!(matches!(vault.load(&name()), Err(VaultError::Damaged { .. })), "{length}");
    }
    whole.push(b'\n');
    fs::write(room.file(), &whole).unwrap();
    assert!(matches!(vault.load(&name()), Err(VaultError::Damaged { .. })));
}

#[test]
fn garbage_is_damage_and_says_what_to_do() {
    let room = Room::new();
    let vault = room.plain();
    vault.store(&name(), &grant()).unwrap();
    let zeros = vec![0; 5 * 1024 * 1024];
    for garbage in [&b""[..], b"\n\n\n\n\n", b"\xff\xfe", b"{\"refresh_token\":\"x\"}", &zeros] {
        fs::write(room.file(), garbage).unwrap();
        let error = vault.load(&name()).unwrap_err();
        assert!(matches!(error, VaultError::Damaged { .. }), "{error}");
        for word in ["scanner@contoso.com", "xoauth2-relay login --tenant", ".token", "left as it is"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(fs::read(room.file()).unwrap() == garbage, "changed");
    }
    vault.store(&name(), &grant()).unwrap();
    assert_same(&vault.load(&name()).unwrap().unwrap(), &grant());
}

#[test]
fn a_later_version_is_not_damage() {
    let room = Room::new();
    let vault = room.plain();
    vault.store(&name(), &grant()).unwrap();
    fs::write(room.file(), "xoauth2-relay refresh token 12\nwhatever it will be").unwrap();
    let error = vault.load(&name()).unwrap_err();
    assert!(matches!(error, VaultError::Newer { version: 12, .. }), "{error}");
}

#[test]
fn an_entry_under_anothers_name_is_not_taken() {
    for key in [None, Some(KEY)] {
        let room = Room::new();
        let vault = key.map_or_else(|| room.plain(), |key| room.with_key(Some(key)));
        vault.store(&name(), &grant()).unwrap();
        let first = room.file();
        vault.store(&named("other@contoso.com"), &grant()).unwrap();
        let second = room.files().into_iter().find(|file| *file != first).unwrap();
        fs::copy(&first, &second).unwrap();
        let error = vault.load(&named("other@contoso.com")).unwrap_err();
        assert!(matches!(error, VaultError::AnotherMailbox { .. }), "{error}");
        assert!(error.to_string().contains("scanner@contoso.com"), "{error}");
    }
}
