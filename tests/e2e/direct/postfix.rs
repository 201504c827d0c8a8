//! A real Postfix with Dovecot's XOAUTH2 upstream of a direct listener: its words come through as Exchange's do, and it is a server
//! whose dialog nobody here wrote.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use super::{At, converse, id, submit, world};
use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, UNKNOWN, message, until};
use crate::upstream::{OTHER, Upstream, Verdict, split};

#[tokio::test(flavor = "multi_thread")]
async fn postfix_answers_each_recipient_in_its_own_words_and_gets_the_message() {
    let Some(postfix) = Upstream::start().await else { return };
    let world = world().await;
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.unwrap().code(), 250);
    for (recipient, said) in [(RECIPIENT, "250 2.1.5 Ok"), (UNKNOWN, ""), (OTHER, "250 2.1.5 Ok")] {
        let reply = client.command(&format!("RCPT TO:<{recipient}>")).await.unwrap().to_string();
        let said = if said.is_empty() {
            format!("550 5.1.1 <{UNKNOWN}>: Recipient address rejected: User unknown in virtual mailbox table")
        } else {
            said.to_owned()
        };
        assert_eq!(reply, said);
    }
    assert_eq!(client.command("DATA").await.unwrap().code(), 354);
    client.write(&message("three")).await.unwrap();
    let reply = client.command("\r\n.").await.unwrap().to_string();
    assert!(reply.starts_with("250 2.0.0 Ok: queued as "), "{reply}");
    for recipient in [RECIPIENT, OTHER] {
        let taken = postfix.wait_for(recipient, 1).await;
        let (header, body) = split(&taken[0]);
        assert!(header.contains("Subject: three\n"), "{header}");
        assert_eq!(body, b"This is three.\n");
    }
    // All refused: the client may not go on, and Postfix hears nothing of DATA.
    let heard = converse(&mut client, SENDER, &[UNKNOWN], &message("none")).await.unwrap();
    assert_eq!((heard.at, heard.reply.code()), (At::Rcpt, 550), "{heard:?}");
    assert_eq!(client.command("RSET").await.unwrap().code(), 250);
    let heard = converse(&mut client, SENDER, &[RECIPIENT], &message("after")).await.unwrap();
    assert!(heard.is_taken(), "{heard:?}");
    assert_eq!(postfix.judge.tokens().len(), 1, "one login served all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_dovecot_refuses_is_a_451_to_the_client() {
    let Some(postfix) = Upstream::start().await else { return };
    postfix.judge.say(Verdict::Inactive);
    let world = world().await;
    let relay = Relay::start(&postfix.configuration(&world, 3)).await;
    let heard = submit(relay.address, "refused").await;
    assert_eq!(heard.at, At::Rcpt);
    assert!(
        heard.text().starts_with("451 4.3.0 The relay cannot send now: ") && heard.text().contains("535 5.7.8"),
        "{heard:?}"
    );
    assert_eq!(postfix.count_of(RECIPIENT), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_has_every_message_that_had_its_250_after_kill_9() {
    const MESSAGES: usize = 100;
    let Some(postfix) = Upstream::start().await else { return };
    let world = world().await;
    let configuration = postfix.configuration(&world, 3);
    let next = Arc::new(AtomicUsize::new(0));
    let promised: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for kill_at in [MESSAGES / 3, MESSAGES] {
        let relay = Relay::start(&configuration).await;
        let sending: Vec<_> = (0..3)
            .map(|_| {
                let (next, promised, address) = (Arc::clone(&next), Arc::clone(&promised), relay.address);
                tokio::spawn(async move {
                    let Ok(mut client) = Client::connect(address).await else { return };
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= MESSAGES {
                            return;
                        }
                        let name = format!("m{number}");
                        let Ok(heard) = converse(&mut client, SENDER, &[RECIPIENT], &message(&name)).await else {
                            return;
                        };
                        assert!(heard.is_taken(), "{heard:?}");
                        promised.lock().unwrap().insert(id(&name));
                    }
                })
            })
            .collect();
        let is_over = || promised.lock().unwrap().len() >= kill_at || sending.iter().all(JoinHandle::is_finished);
        assert!(until(PATIENCE, is_over).await);
        relay.kill();
        for client in sending {
            client.await.unwrap();
        }
    }
    let promised = promised.lock().unwrap().clone();
    let has_all = || {
        let ids = postfix.ids_of(RECIPIENT);
        promised.iter().all(|id| ids.contains_key(id))
    };
    assert!(until(PATIENCE, has_all).await, "{:?} of {promised:?}", postfix.ids_of(RECIPIENT));
    postfix.settled().await;
    assert!(postfix.ids_of(RECIPIENT).values().all(|count| *count == 1), "{:?}", postfix.ids_of(RECIPIENT));
    assert!(promised.len() >= MESSAGES - 6, "{} were promised", promised.len());
}
