//! Where sign-ins rest: who may read them, what a key does, and what happens when the key or an entry is no good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::task::JoinSet;

use super::people::{
    KEY, other_product, people, sealed, sign_in, stored_token, submit, vault_directory, with_vault_key,
};
use super::terminal::Terminal;
use crate::harness::{SENDER, World, write_secret};
use crate::secrets::forms;

/// The only entry.
fn entry(world: &World) -> PathBuf {
    let mut entries = fs::read_dir(vault_directory(world)).unwrap().map(|entry| entry.unwrap().path());
    let entry = entries.next().unwrap();
    assert_eq!(entries.next(), None);
    entry
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_reads_the_vault_and_nobody_without_its_key() {
    for has_key in [false, true] {
        let world = people().await;
        let world = if has_key { with_vault_key(world) } else { world };
        sign_in(&world, "scanner", SENDER).await;
        let relay = world.relay().await;
        submit(&relay, SENDER, "first").await;
        world.wait_for(1).await;
        relay.terminate().await;
        assert_eq!((mode(&vault_directory(&world)), mode(&entry(&world))), (0o700, 0o600));
        let text = fs::read_to_string(entry(&world)).unwrap();
        let kept =
            if has_key { sealed(&world, SENDER).unwrap() } else { super::people::stored(&world, SENDER).unwrap() };
        let is_found = forms(kept.refresh_token.expose().as_bytes()).iter().any(|form| {
            // The entry's own JSON and base64 lie around it.
            let text = text.lines().nth(3).unwrap();
            let inner = String::from_utf8_lossy(
                &base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap(),
            )
            .into_owned();
            text.contains(form) || inner.contains(form)
        });
        assert_eq!((is_found, text.contains("aes-256-gcm")), (!has_key, has_key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_good_holds_the_mail_and_loses_nothing() {
    let mut runs = JoinSet::new();
    for (key, told, refuses_login) in [
        (None, "cannot be used", true),
        (Some("too-short"), "is too short: it must have 22 characters at least", true),
        (Some("another-key-of-enough-octets"), "was encrypted with another key than the one under [vault]", false),
    ] {
        runs.spawn(async move {
            let world = with_vault_key(people().await);
            sign_in(&world, "scanner", SENDER).await;
            let before = fs::read(entry(&world)).unwrap();
            let file = world.path("vault-key");
            match key {
                Some(key) => write_secret(&file, key),
                None => fs::remove_file(&file).unwrap(),
            }
            let relay = world.relay().await;
            relay
                .log()
                .wait_for(|line| line.contains("the vault of refresh tokens is in trouble") && line.contains(told));
            submit(&relay, SENDER, "held").await;
            relay.log().wait_for(|line| line.contains("lane waits for a token") && line.contains(told));
            if refuses_login {
                let (_, token) = other_product(&world, SENDER);
                let options = ["--mailbox", "scanner", "--import", token.to_str().unwrap()];
                let ended = Terminal::login(&world, &options).end().await;
                assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
                assert!(ended.screen.contains(told), "{}", ended.screen);
            }
            assert_eq!(fs::read(entry(&world)).unwrap(), before);
            write_secret(&file, KEY);
            assert_eq!(world.wait_for(1).await[0].login, SENDER, "{told}");
            relay.terminate().await;
        });
    }
    runs.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_under_a_new_key_takes_the_place_of_one_under_the_old() {
    let world = with_vault_key(people().await);
    sign_in(&world, "scanner", SENDER).await;
    write_secret(&world.path("vault-key"), "another-key-of-enough-octets");
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("was encrypted with another key"));
    submit(&relay, SENDER, "held").await;
    sign_in(&world, "scanner", SENDER).await;
    assert_eq!(world.wait_for(1).await[0].login, SENDER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_is_told_and_kept_until_a_login_mends_it() {
    let world = people().await;
    sign_in(&world, "scanner", SENDER).await;
    let path = entry(&world);
    let mut damaged = fs::read(&path).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let relay = world.relay().await;
    let line = relay.log().wait_for(|line| line.contains("the vault of refresh tokens is in trouble"));
    assert!(line.contains("is damaged") && line.contains("xoauth2-relay login"), "{line}");
    submit(&relay, SENDER, "held").await;
    relay.log().wait_for(|line| line.contains("lane waits for a token") && line.contains("is damaged"));
    assert_eq!(fs::read(&path).unwrap(), damaged, "it is left for whoever wants to look");
    sign_in(&world, "scanner", SENDER).await;
    assert_eq!(world.wait_for(1).await[0].login, SENDER);
    assert!(!stored_token(&world, SENDER).is_empty());
}
