//! A credential is rotated while mail goes out: nothing is restarted, and no message waits for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox::{DEFAULT_SECRET, Message};
use tokio::task::JoinSet;

use super::certificates::{FIRST, SECOND};
use super::{Kind, Run, all, another_log_line, change_application, log_line, register, replace, status, warnings};
use crate::harness::{Client, RECIPIENT, World, message, write_secret};

const SECOND_SECRET: &str = "new8Q~The.Second-One_Of~The.Sandbox";
const THIRD_SECRET: &str = "new8Q~The.Third-One_Of~The.Sandbox";
const IS_USED: &str = "the new client secret brought a token and is used from now on";

/// As Microsoft advises: the new one is made beside the old, put in its place, and then the old one is deleted.
fn rotate(world: &World, secret: &str, write: fn(&Path, &str)) {
    change_application(world, |application| application.secrets.push(secret.to_owned()));
    write(&world.path("secret"), secret);
    change_application(world, |application| application.secrets.retain(|known| known == secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_is_taken_up_however_it_was_written() {
    let kind = Kind::SecretInFile;
    let mut run = Run::begin(kind, kind.world().await, 3).await;
    run.send().await;
    for (count, secret, write) in
        [(0, SECOND_SECRET, replace as fn(&Path, &str)), (1, THIRD_SECRET, write_secret as fn(&Path, &str))]
    {
        rotate(&run.world, secret, write);
        run.send_with_another_token().await;
        another_log_line(&run.relay, count, |line| line.contains(IS_USED)).await;
    }
    let log = run.end().await;
    assert_eq!(warnings(&log), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_new_secret_leaves_the_old_one_in_use_until_a_right_one_comes() {
    let kind = Kind::SecretInFile;
    let mut run = Run::begin(kind, kind.world().await, 3).await;
    run.send().await;
    replace(&run.world.path("secret"), "not8Q~What.Entra-Knows");
    run.send_with_another_token().await;
    let is_refused = |line: &str| {
        line.contains("\"WARN\"") && line.contains("the new client secret was refused; the one before it goes on")
    };
    let line = log_line(&run.relay, is_refused).await;
    assert!(line.contains("AADSTS7000215") && line.contains("paste the secret's Value"), "{line}");
    let shown = status(&run.world).await;
    assert_eq!(shown["tokens"][0]["state"], "fetched", "{shown}");
    let told = shown["last_errors"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap();
    assert!(told.contains("the new client secret was refused"), "{shown}");
    rotate(&run.world, SECOND_SECRET, replace);
    run.send_with_another_token().await;
    log_line(&run.relay, |line| line.contains(IS_USED)).await;
    // Two right ones and one wrong one were asked with, and the old one once more when the wrong one had failed.
    assert_eq!(run.world.sandbox.counters().token_requests, 4);
    let log = run.end().await;
    assert_eq!(warnings(&log), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_rotated_pair_of_files_is_no_trouble() {
    let mut runs = JoinSet::new();
    for is_certificate_first in [true, false] {
        runs.spawn(async move {
            let kind = Kind::CERTIFICATE;
            let mut run = Run::begin(kind, kind.world().await, 3).await;
            run.send().await;
            register(&run.world, &[&FIRST, &SECOND]);
            let mut halves = [("cert.pem", &SECOND.certificate), ("key.pem", &SECOND.key)];
            if !is_certificate_first {
                halves.reverse();
            }
            let write = |world: &World, (name, text): (&str, &String)| replace(&world.path(name), text);
            write(&run.world, halves[0]);
            run.send_with_another_token().await;
            write(&run.world, halves[1]);
            register(&run.world, &[&SECOND]);
            run.send_with_another_token().await;
            log_line(&run.relay, |line| line.contains("the new certificate brought a token and is used from now on"))
                .await;
            let log = run.end().await;
            assert_eq!(warnings(&log), 0, "{log}");
        });
    }
    all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_under_load_lose_double_and_delay_nothing() {
    let kind = Kind::SecretInFile;
    let mut run = Run::begin(kind, kind.world().await, 3).await;
    let (is_over, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for client in 0..4 {
        let (is_over, address) = (Arc::clone(&is_over), run.relay.address);
        clients.spawn(async move {
            let mut connection = Client::connect(address).await.unwrap();
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) || count == 0 {
                let text = message(&format!("load{client}-{count}"));
                assert_eq!(connection.send(&[RECIPIENT], &text).await.unwrap().code(), 250);
                count += 1;
            }
            count
        });
    }
    let carried = |run: &Run| run.world.sandbox.counters().messages;
    run.send().await;
    for secret in [SECOND_SECRET, THIRD_SECRET] {
        let before = carried(&run);
        rotate(&run.world, secret, replace);
        run.send_with_another_token().await;
        // Mail flows on both sides of it.
        run.world.wait_for(before + 20).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let flowed: usize = clients.join_all().await.into_iter().sum();
    let all = u64::try_from(flowed + run.sent).unwrap();
    let arrived = run.world.wait_for(all).await;
    assert_eq!(arrived.len(), flowed + run.sent);
    let is_load = |message: &&Arc<Message>| message.message_id.starts_with("<load");
    assert_eq!(arrived.iter().filter(is_load).count(), flowed);
    assert_eq!(run.log().count(|line| line.contains(IS_USED)), 2);
    let log = run.end().await;
    assert_eq!(warnings(&log), 0, "{log}");
    assert!(!log.contains(DEFAULT_SECRET) && !log.contains(THIRD_SECRET));
}
