//! Files and directories: modes, replacement, leftovers, races.

use std::fs::{self, FileTimes};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use clock::WallTime;
use proptest::prelude::*;
use token_manager::{RefusedGrant, Secret, StoredGrant, Vault, VaultError, VaultName};

use crate::room::{KEY, Room, assert_same, grant, granted, name, named};

#[test]
fn nobody_else_may_look() {
    let room = Room::new();
    let vault = room.plain();
    vault.store(&name(), &grant()).unwrap();
    assert_eq!(fs::metadata(room.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(room.file()).unwrap().permissions().mode() & 0o777, 0o600);
    // A backup restored it otherwise.
    fs::set_permissions(room.file(), fs::Permissions::from_mode(0o644)).unwrap();
    vault.store(&name(), &grant()).unwrap();
    assert_eq!(fs::metadata(room.file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_root_stores_belongs_to_the_directorys_owner() {
    let room = Room::new();
    // Only root can give it away; to any other user it belongs already.
    let _ = std::os::unix::fs::chown(room.directory.path(), Some(4242), Some(4243));
    room.plain().store(&name(), &grant()).unwrap();
    let owner = fs::metadata(room.directory.path()).unwrap();
    for path in [room.path(), room.file()] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (owner.uid(), owner.gid()), "{}", path.display());
    }
}

#[test]
fn nobody_signed_in_is_no_error() {
    let room = Room::new();
    let vault = room.plain();
    assert!(vault.load(&name()).unwrap().is_none());
    assert_eq!(vault.stamp(&name()), None);
    vault.store(&named("other@contoso.com"), &grant()).unwrap();
    assert!(vault.load(&name()).unwrap().is_none());
}

#[test]
fn the_two_ids_are_the_same_in_capitals() {
    let room = Room::new();
    let vault = room.with_key(Some(KEY));
    vault.store(&name(), &grant()).unwrap();
    let VaultName { tenant_id, client_id, mailbox } = name();
    let capitals =
        VaultName { tenant_id: tenant_id.to_ascii_uppercase(), client_id: client_id.to_ascii_uppercase(), mailbox };
    assert_same(&vault.load(&capitals).unwrap().unwrap(), &grant());
    vault.store(&capitals, &grant()).unwrap();
    assert_same(&vault.load(&name()).unwrap().unwrap(), &grant());
    assert_eq!(room.files().len(), 1);
}

#[test]
fn a_stamp_shows_that_another_has_stored() {
    let room = Room::new();
    let (vault, other) = (room.plain(), room.plain());
    vault.store(&name(), &grant()).unwrap();
    let stamp = vault.stamp(&name());
    assert!(stamp.is_some());
    vault.load(&name()).unwrap();
    assert_eq!(vault.stamp(&name()), stamp);
    other.store(&name(), &grant()).unwrap();
    assert_ne!(vault.stamp(&name()), stamp);
}

#[test]
fn what_a_crash_left_does_no_harm() {
    let room = Room::new();
    let vault = room.plain();
    vault.store(&name(), &grant()).unwrap();
    let leftover = |number: u32| {
        let path = format!("{}.{number:016x}.new", room.file().display());
        fs::write(&path, "xoauth2-relay refresh tok").unwrap();
        path
    };
    let fresh = leftover(1);
    assert_same(&vault.load(&name()).unwrap().unwrap(), &grant());
    vault.store(&name(), &granted("newer")).unwrap();
    assert_same(&vault.load(&name()).unwrap().unwrap(), &granted("newer"));
    assert!(fs::exists(&fresh).unwrap(), "somebody may be writing it");
    let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_hours(2));
    fs::File::open(&fresh).unwrap().set_times(old).unwrap();
    vault.store(&named("other@contoso.com"), &grant()).unwrap();
    assert!(fs::exists(&fresh).unwrap(), "it is not its own");
    vault.store(&name(), &granted("newest")).unwrap();
    assert!(!fs::exists(&fresh).unwrap());
    assert_eq!(room.files().len(), 2);
}

#[test]
fn a_store_that_fails_leaves_what_was_there() {
    let room = Room::new();
    let vault = room.plain();
    vault.store(&name(), &grant()).unwrap();
    let too_long = granted(&"x".repeat(5 * 1024 * 1024));
    let error = vault.store(&name(), &too_long).unwrap_err();
    assert!(matches!(error, VaultError::Unwritable { .. }), "{error}");
    assert_same(&vault.load(&name()).unwrap().unwrap(), &grant());
    assert_eq!(room.files(), [room.file()]);
}

#[test]
fn what_the_system_refuses_is_told_with_the_file() {
    let room = Room::new();
    let vault = room.plain();
    vault.store(&name(), &grant()).unwrap();
    let file = room.file();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (read, written) = (vault.load(&name()).unwrap_err(), vault.store(&name(), &grant()).unwrap_err());
    assert!(matches!(read, VaultError::Unreadable { .. }), "{read}");
    assert!(matches!(written, VaultError::Unwritable { .. }), "{written}");
    for error in [read, written] {
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
    }
    assert_eq!(room.files(), [file]);
    let parent_missing = Vault::open(room.directory.path().join("a/b"), None).unwrap_err();
    assert!(matches!(parent_missing, VaultError::Unwritable { .. }), "{parent_missing}");
}

#[test]
fn two_who_store_leave_one_whole_entry() {
    let room = Room::new();
    let start = Arc::new(Barrier::new(4));
    let racers: Vec<_> = (0..4)
        .map(|racer| {
            let (vault, start) = (room.with_key(Some(KEY)), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for round in 0..5 {
                    vault.store(&name(), &granted(&format!("{racer} {round}").repeat(100))).unwrap();
                    // Whatever another has stored meanwhile, it is whole.
                    assert!(vault.load(&name()).unwrap().is_some());
                }
            })
        })
        .collect();
    for racer in racers {
        racer.join().unwrap();
    }
    let found = room.with_key(Some(KEY)).load(&name()).unwrap().unwrap();
    let token = found.refresh_token.expose();
    assert_eq!(token, token[..3].repeat(100));
    assert_eq!(room.files().len(), 1, "{:?}", room.files());
}

#[test]
fn who_is_late_replaces_nothing() {
    let room = Room::new();
    let vault = room.plain();
    let first = vault.store_over(&name(), &granted("first"), None).unwrap();
    assert!(first.is_some() && first == vault.stamp(&name()));
    assert_eq!(vault.store_over(&name(), &granted("late"), None).unwrap(), None);
    let second = vault.store_over(&name(), &granted("second"), first).unwrap();
    assert!(second.is_some() && second != first && second == vault.stamp(&name()));
    assert_eq!(vault.store_over(&name(), &granted("late"), first).unwrap(), None);
    assert_same(&vault.load(&name()).unwrap().unwrap(), &granted("second"));
}

prop_compose! {
    fn grants()(
        token in "[ -~]{1,3000}",
        account in prop::option::of(any::<String>()),
        user in any::<String>(),
        times in any::<[i64; 3]>(),
        failure in prop::option::of(any::<String>()),
    ) -> StoredGrant {
        let [signed_in_at, renewed_at, at] = times.map(WallTime::from_unix_millis);
        let refused = failure.map(|failure| RefusedGrant { at, last: at, failure });
        let refresh_token = Secret::new(token).unwrap();
        StoredGrant { refresh_token, account, user, signed_in_at, renewed_at, refused }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_stored_comes_back(grant in grants(), mailbox in any::<String>(), key in any::<bool>()) {
        let room = Room::new();
        let vault = if key { room.with_key(Some(KEY)) } else { room.plain() };
        vault.store(&named(&mailbox), &grant).unwrap();
        assert_same(&vault.load(&named(&mailbox)).unwrap().unwrap(), &grant);
    }
}
