//! Keys: none, one, another, and unusable ones.

use std::fmt::Write;
use std::fs;

use token_manager::VaultError;

use crate::room::{KEY, OTHER_KEY, Room, assert_same, grant, granted, name};

fn line(room: &Room, number: usize) -> String {
    fs::read_to_string(room.file()).unwrap().lines().nth(number).unwrap().to_owned()
}

#[test]
fn a_plain_entry_is_encrypted_once_there_is_a_key() {
    let room = Room::new();
    room.plain().store(&name(), &grant()).unwrap();
    assert_eq!(line(&room, 2), "plain");
    let vault = room.with_key(Some(KEY));
    let found = vault.load(&name()).unwrap().unwrap();
    assert_same(&found, &grant());
    vault.store(&name(), &found).unwrap();
    assert!(line(&room, 2).starts_with("aes-256-gcm "));
    assert_same(&vault.load(&name()).unwrap().unwrap(), &grant());
}

#[test]
fn whose_it_is_can_be_read_of_both() {
    for encrypted in [false, true] {
        let room = Room::new();
        let vault = if encrypted { room.with_key(Some(KEY)) } else { room.plain() };
        vault.store(&name(), &grant()).unwrap();
        let names = r#"{"tenant_id":"contoso.com","client_id":"66666666-7777-8888-9999-00000000000a","mailbox":"scanner@contoso.com"}"#;
        assert_eq!(line(&room, 1), names);
    }
}

#[test]
fn no_two_are_encrypted_alike() {
    let room = Room::new();
    let vault = room.with_key(Some(KEY));
    vault.store(&name(), &grant()).unwrap();
    let (protection, payload) = (line(&room, 2), line(&room, 3));
    vault.store(&name(), &grant()).unwrap();
    assert_ne!(line(&room, 2), protection);
    assert_ne!(line(&room, 3), payload);
}

#[test]
fn another_key_opens_nothing_and_the_right_one_still_does() {
    let room = Room::new();
    room.with_key(Some(KEY)).store(&name(), &grant()).unwrap();
    let error = room.with_key(Some(OTHER_KEY)).load(&name()).unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
    let error = room.plain().load(&name()).unwrap_err();
    assert!(matches!(error, VaultError::KeyMissing { .. }), "{error}");
    assert!(error.to_string().contains("[vault]"), "{error}");
    assert_same(&room.with_key(Some(KEY)).load(&name()).unwrap().unwrap(), &grant());
    // Signing in anew is the way to another key.
    room.with_key(Some(OTHER_KEY)).store(&name(), &granted("newer")).unwrap();
    assert_same(&room.with_key(Some(OTHER_KEY)).load(&name()).unwrap().unwrap(), &granted("newer"));
}

#[test]
fn a_key_that_cannot_be_used_changes_nothing() {
    let room = Room::new();
    room.with_key(Some(KEY)).store(&name(), &grant()).unwrap();
    let before = fs::read(room.file()).unwrap();
    for key in [None, Some(""), Some("two\nlines, and long enough"), Some("only-21-characters-it")] {
        let vault = room.with_key(key);
        for error in [vault.load(&name()).unwrap_err(), vault.store(&name(), &granted("newer")).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("file /run/vault.key"), "{text}");
            let short = key.is_some_and(|key| key.len() == 21);
            assert_eq!(matches!(error, VaultError::KeyTooShort { .. }), short, "{text}");
            assert_eq!(matches!(error, VaultError::KeyUnusable { .. }), !short, "{text}");
            assert_eq!(text.contains("openssl rand -base64 32"), short, "{text}");
        }
        assert_eq!(fs::read(room.file()).unwrap(), before);
    }
}

#[test]
fn a_plain_entry_needs_no_key_to_be_read() {
    let room = Room::new();
    room.plain().store(&name(), &grant()).unwrap();
    assert_same(&room.with_key(None).load(&name()).unwrap().unwrap(), &grant());
}

#[test]
fn what_the_tag_vouches_for_cannot_be_changed_with_its_digest() {
    let room = Room::new();
    let vault = room.with_key(Some(KEY));
    vault.store(&name(), &grant()).unwrap();
    let text = fs::read_to_string(room.file()).unwrap();
    // The same name in capitals passes for the same entry; the octets are others.
    let body = text.split_once("sha256 ").unwrap().0.replacen("contoso.com", "CONTOSO.COM", 1);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let mut text = format!("{body}sha256 ");
    for octet in digest.as_ref() {
        write!(text, "{octet:02x}").unwrap();
    }
    fs::write(room.file(), text + "\n").unwrap();
    let error = vault.load(&name()).unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
}
