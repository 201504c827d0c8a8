//! No secret and no token in any log level, Debug or Display, in any form; and how often trouble is told.

use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use token_manager::{Ledger, Secret};
use tracing_subscriber::fmt::MakeWriter;

use crate::endpoint::{Answer, TRACE_ID};
use crate::world::{SECRET, World, failure, until};

const TOKEN: &str = "eyJ0eXAiOiJKV1Qi.sesame-open_token.c2lnbmF0dXJl";

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn lines(&self, level: &str, text: &str) -> usize {
        self.text().lines().filter(|line| line.contains(level) && line.contains(text)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// Everything that this thread logs, at every level.
pub(crate) fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log.clone());
    (log, tracing::subscriber::set_default(subscriber.finish()))
}

/// Fails if `text` holds a secret as it is, in base64 at any alignment, form-encoded, or as a list of numbers.
fn assert_clean(text: &str) {
    for secret in [SECRET, TOKEN] {
        let octets = secret.as_bytes();
        let numbers = |octet: &dyn Fn(u8) -> String| octets[..8].iter().map(|it| octet(*it)).collect::<Vec<_>>();
        let mut forms = vec![
            secret.to_owned(),
            secret[..10].to_owned(),
            url::form_urlencoded::byte_serialize(octets).collect(),
            numbers(&|octet| octet.to_string()).join(", "),
            numbers(&|octet| octet.to_string()).join(" "),
            numbers(&|octet| format!("{octet:02x}")).concat(),
            numbers(&|octet| format!("0x{octet:x}")).join(", "),
        ];
        forms.extend((0..3).map(|skip| STANDARD.encode(&octets[skip..skip + 9])));
        for form in forms {
            assert!(!text.contains(&form), "{form:?} in {text}");
        }
    }
}

#[tokio::test]
async fn nothing_secret_is_ever_shown() {
    let (log, _guard) = listen();
    let world = World::new().await;
    world.endpoint.script([
        // Bodies that would show the token or the secret if an error formatted them.
        Answer::json(200, &format!(r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"{TOKEN}","#)),
        Answer::json(400, &format!(r#"{{"error":"{SECRET}","error_description":"{SECRET}","trace_id":"{SECRET}"}}"#)),
        Answer::raw(500, &[("x-ms-request-id", SECRET)], &format!("<html>{SECRET}")),
        Answer::token(TOKEN, 3600),
    ]);
    let application = world.application();
    let ledger = Ledger::open(world.ledger_path(), &*world.clock);
    let manager = world.start();
    let mut shown = vec![format!("{application:?} {:?} {ledger:?}", application.credential)];
    for wait in [5, 60, 45] {
        let error = manager.token().await.unwrap_err();
        shown.push(format!("{error} {error:?} {error:#?} {:?} {manager:#?}", manager.status()));
        let (failure, _) = failure(&manager).await;
        shown.push(format!("{failure} {failure:?} {}", failure.class));
        world.clock.advance(std::time::Duration::from_secs(wait));
    }
    let token = manager.token().await.unwrap();
    assert_eq!(token.expose(), TOKEN);
    shown.push(format!("{token:?} {manager:?} {:?} {:?}", manager.status(), Secret::new(SECRET.to_owned())));
    assert_clean(&shown.concat());
    assert_clean(&log.text());
    assert!(log.lines("INFO", "token fetched") == 1 && log.lines("TRACE", "") > 0, "{}", log.text());
    let kept = std::fs::read_to_string(world.ledger_path()).unwrap();
    assert_clean(&kept);
}

#[tokio::test]
async fn trouble_is_told_once() {
    let (log, _guard) = listen();
    let world = World::new().await;
    let expired = || Answer::error(401, "invalid_client", 7_000_222, "The provided client secret keys are expired.");
    world.endpoint.script([expired(), expired(), expired(), Answer::token("t1", 3600)]);
    let manager = world.start();
    for (failures, wait) in [(1, 60), (2, 60), (3, 60)] {
        until(&manager, |status| status.failures == failures).await;
        world.pass(&manager, wait);
    }
    manager.token().await.unwrap();
    assert_eq!(log.lines("WARN", ""), 1, "{}", log.text());
    assert_eq!(log.lines("WARN", "create a new one"), 1);
    assert_eq!(log.lines("WARN", TRACE_ID), 1);
    assert_eq!(log.lines("DEBUG", "failed again"), 2);
    assert_eq!(log.lines("INFO", "work again"), 1);
    assert_eq!(log.lines("INFO", "lifetime_secs=3600"), 1);
}
