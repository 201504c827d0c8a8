//! A credential is another one than before, or none: what is asked with, when, and what is said of it. Files are looked at
//! every 30 s, which here is whenever the clock was moved and the manager woken.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use clock::Clock as _;
use token_manager::{Algorithm, Application, Credential, FailureClass, SigningCertificate, TokenManager};

use tokio::task::yield_now;

use crate::endpoint::Answer;
use crate::entra::{Entra, LIFETIME};
use crate::secrecy::{Log, listen};
use crate::world::{Source, World, endpoints, failure, until};

const OLD: &str = "the-old-one";
const NEW: &str = "the-new-one";
const WRONG: &str = "not-what-it-should-be";
const DAY: u64 = 24 * 60 * 60;
/// Between two looks.
const LOOK: u64 = 30;
/// When a token is refreshed, surely.
const REFRESH: u64 = LIFETIME as u64 * 27 / 40 + 1;

const IS_USED: &str = "is used from now on";
const IS_UNUSABLE: &str = "the credential cannot be used as it stands; the one before it goes on";

/// A manager that asks an endpoint which knows some credentials.
struct Scene {
    world: World,
    entra: Entra,
    application: Application,
    manager: TokenManager,
    log: Log,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Scene {
    /// The client secret of the world.
    async fn new(standing: &str, known: &[&str]) -> Self {
        let world = World::new().await;
        put(&world.source, Some(standing));
        let credential = Credential::ClientSecret(world.source.clone());
        Self::of(world, credential, known).await
    }

    async fn of(world: World, credential: Credential, known: &[&str]) -> Self {
        let application = Application { credential, ..world.application() };
        Self::with(world, application, known).await
    }

    async fn with(world: World, application: Application, known: &[&str]) -> Self {
        let (log, guard) = listen();
        let entra = Entra::start(known).await;
        let application = Application { endpoints: endpoints(entra.url.clone()), ..application };
        let manager = world.start_as(application.clone());
        Self { world, entra, application, manager, log, _guard: guard }
    }

    /// Another manager of the same application, as for another mailbox.
    async fn kin(&self) -> TokenManager {
        let manager = self.world.start_beside(self.application.clone(), "kin.ledger");
        until(&manager, |status| status.next_attempt > self.world.clock.wall() && !status.fetching).await;
        manager
    }

    /// The days, of so many from now on, on which a warning with `text` was told.
    async fn days_with(&self, text: &str, days: u32) -> Vec<u32> {
        let mut told = Vec::new();
        for day in 1..=days {
            let before = self.log.lines("WARN", text);
            self.fetch(DAY).await;
            for _ in before..self.log.lines("WARN", text) {
                told.push(day);
            }
        }
        told
    }

    /// The first token, without a caller who would have the manager look again.
    async fn begin(&self) {
        until(&self.manager, |status| status.last_success.is_some() && !status.fetching).await;
        assert_eq!(self.token().await, "t1");
    }

    fn put(&self, text: Option<&str>) {
        put(&self.world.source, text);
    }

    /// Time goes on, and the manager has looked and told what it saw.
    async fn look(&self, seconds: u64) {
        let mut status = self.manager.watch_status();
        status.mark_unchanged();
        self.world.pass(&self.manager, seconds);
        status.changed().await.unwrap();
    }

    /// Time goes on, and brings a token.
    async fn fetch(&self, seconds: u64) {
        self.world.pass(&self.manager, seconds);
        let now = self.world.clock.wall();
        until(&self.manager, |status| status.last_success == Some(now) && !status.fetching).await;
    }

    async fn token(&self) -> String {
        self.manager.token().await.unwrap().expose().to_owned()
    }

    fn trouble(&self) -> Option<String> {
        self.manager.status().credential.trouble
    }
}

fn put(source: &Source, text: Option<&str>) {
    *source.text.lock().unwrap() = text.map(str::to_owned);
}

#[tokio::test]
async fn a_new_secret_is_proven_at_the_next_look_and_used_from_then_on() {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    scene.entra.know(&[OLD, NEW]);
    scene.put(Some(NEW));
    scene.fetch(LOOK).await;
    assert_eq!(scene.token().await, "t2");
    scene.entra.know(&[NEW]);
    scene.fetch(REFRESH).await;
    assert_eq!(scene.entra.shown(), [OLD, NEW, NEW]);
    assert_eq!((scene.log.lines("INFO", IS_USED), scene.log.lines("WARN", "")), (1, 0), "{}", scene.log.text());
    // Written anew unchanged it is no other, as the next one shows.
    scene.put(Some(&format!("{NEW}\n")));
    scene.world.pass(&scene.manager, LOOK);
    scene.fetch(REFRESH).await;
    assert_eq!((scene.entra.shown().len(), scene.log.lines("INFO", IS_USED)), (4, 1));
}

#[tokio::test]
async fn nobody_waits_while_a_new_secret_is_tried() {
    let scene = Scene::new(OLD, &[OLD, NEW]).await;
    scene.begin().await;
    scene.put(Some(NEW));
    let held = scene.entra.hold().await;
    scene.world.pass(&scene.manager, LOOK);
    until(&scene.manager, |status| status.fetching).await;
    for _ in 0..50 {
        assert_eq!(scene.token().await, "t1");
    }
    drop(held);
    until(&scene.manager, |status| !status.fetching).await;
    assert_eq!(scene.token().await, "t2");
}

#[tokio::test]
async fn a_wrong_new_secret_is_told_once_and_tried_ever_more_seldom_while_the_old_one_goes_on() {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    scene.put(Some(WRONG));
    scene.world.pass(&scene.manager, LOOK);
    let status = until(&scene.manager, |status| status.credential.trouble.is_some() && !status.fetching).await;
    let trouble = status.credential.trouble.unwrap();
    assert!(trouble.contains("the new one was refused") && trouble.contains("AADSTS7000215"), "{trouble}");
    assert_eq!((status.failures, scene.token().await.as_str()), (0, "t1"));
    // After a minute once more, and not within two from then on.
    for (seconds, requests) in [(LOOK, 2), (LOOK, 3), (90, 3)] {
        scene.world.pass(&scene.manager, seconds);
        until(&scene.manager, |status| scene.entra.shown().len() == requests && !status.fetching).await;
    }
    // The refresh is due: the new one once more, and then the old one, which brings it.
    scene.fetch(REFRESH - 180).await;
    assert_eq!(scene.entra.shown(), [OLD, WRONG, WRONG, WRONG, OLD]);
    assert_eq!(scene.token().await, "t5");
    assert!(scene.trouble().is_some_and(|trouble| trouble.contains("the new one was refused")));
    assert_eq!(scene.log.lines("WARN", ""), 1, "{}", scene.log.text());
    scene.entra.know(&[NEW]);
    scene.put(Some(NEW));
    scene.fetch(LOOK).await;
    assert_eq!((scene.entra.shown().last().unwrap().as_str(), scene.trouble()), (NEW, None));
    assert_eq!((scene.log.lines("WARN", ""), scene.log.lines("INFO", IS_USED)), (1, 1));
}

#[tokio::test]
async fn a_first_secret_that_was_wrong_and_is_mended_takes_nobodys_place() {
    let scene = Scene::new(WRONG, &[OLD, NEW]).await;
    assert_eq!(failure(&scene.manager).await.0.class, FailureClass::Credential);
    scene.put(Some(NEW));
    scene.world.pass(&scene.manager, LOOK);
    until(&scene.manager, |status| status.last_success.is_some()).await;
    assert_eq!(scene.log.lines("INFO", IS_USED), 0, "{}", scene.log.text());
    assert_eq!(scene.entra.shown(), [WRONG, NEW]);
}

#[tokio::test]
async fn a_right_secret_in_the_place_of_a_wrong_one_does_not_wait_for_its_next_try() {
    let scene = Scene::new(WRONG, &[NEW]).await;
    assert_eq!(failure(&scene.manager).await.0.class, FailureClass::Credential);
    scene.put(Some(NEW));
    scene.fetch(LOOK).await;
    assert_eq!(scene.entra.shown(), [WRONG, NEW]);
}

#[tokio::test]
async fn a_secret_that_was_deleted_too_early_costs_nothing_while_its_token_lives() {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    scene.entra.know(&[NEW]);
    scene.world.pass(&scene.manager, REFRESH);
    until(&scene.manager, |status| status.failures == 1 && !status.fetching).await;
    assert_eq!(scene.token().await, "t1");
    scene.put(Some(NEW));
    scene.fetch(LOOK).await;
    assert_eq!(scene.entra.shown(), [OLD, OLD, NEW]);
}

#[tokio::test]
async fn a_secret_that_is_gone_is_told_at_the_second_look_and_asked_with_all_the_same() {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    for (standing, word) in [(None, "not found"), (Some(""), "is empty"), (Some("a\nb"), "one line of plain text")] {
        let before = scene.log.lines("WARN", "");
        scene.put(standing);
        for told in [0, 1, 1] {
            scene.look(LOOK).await;
            assert_eq!(scene.log.lines("WARN", IS_UNUSABLE), before + told, "{}", scene.log.text());
            let trouble = scene.trouble().unwrap();
            assert!(trouble.contains("file /etc/xoauth2-relay/contoso.secret") && trouble.contains(word), "{trouble}");
        }
        scene.put(Some(OLD));
        scene.look(LOOK).await;
        assert_eq!(scene.trouble(), None);
    }
    let before = scene.log.lines("WARN", "");
    scene.put(None);
    scene.look(LOOK).await;
    scene.fetch(REFRESH).await;
    scene.look(LOOK).await;
    assert_eq!(scene.entra.shown(), [OLD, OLD]);
    // What the old one still brings is no cure.
    assert!(scene.trouble().is_some() && scene.log.lines("WARN", "") == before + 1, "{}", scene.log.text());
}

#[tokio::test]
async fn a_file_that_is_being_written_when_a_token_is_due_is_no_trouble() {
    let scene = Scene::new(OLD, &[OLD, NEW]).await;
    scene.begin().await;
    scene.put(Some(""));
    scene.fetch(REFRESH).await;
    scene.put(Some(NEW));
    scene.fetch(LOOK).await;
    assert_eq!(scene.entra.shown(), [OLD, OLD, NEW]);
    assert_eq!(scene.log.lines("WARN", ""), 0, "{}", scene.log.text());
}

/// A certificate and its key in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        Self { certificate, key: key.serialize_pem() }
    }

    fn thumbprint(&self) -> String {
        SigningCertificate::from_pem(&self.certificate, &self.key).unwrap().x5t_s256()
    }
}

static PAIRS: LazyLock<[Pair; 2]> = LazyLock::new(|| [Pair::new(), Pair::new()]);

#[tokio::test]
async fn certificate_and_key_are_rotated_one_after_the_other() {
    let [old, new] = &*PAIRS;
    let thumbprints = [old.thumbprint(), new.thumbprint()];
    for is_certificate_first in [true, false] {
        let source = |text: &str| Arc::new(Source { text: Mutex::new(Some(text.to_owned())) });
        let (certificate, key) = (source(&old.certificate), source(&old.key));
        let credential =
            Credential::Certificate { certificate: certificate.clone(), key: key.clone(), algorithm: Algorithm::Ps256 };
        let known: Vec<_> = thumbprints.iter().map(String::as_str).collect();
        let scene = Scene::of(World::new().await, credential, &known).await;
        scene.begin().await;
        let mut halves = [(&certificate, &new.certificate), (&key, &new.key)];
        if !is_certificate_first {
            halves.reverse();
        }
        put(halves[0].0, Some(halves[0].1));
        scene.look(LOOK).await;
        assert!(scene.trouble().unwrap().contains("does not belong to the certificate"));
        assert_eq!(scene.token().await, "t1");
        put(halves[1].0, Some(halves[1].1));
        scene.fetch(LOOK).await;
        assert_eq!((scene.entra.shown().as_slice(), scene.trouble()), (&thumbprints[..], None));
        assert_eq!((scene.log.lines("WARN", ""), scene.log.lines("INFO", IS_USED)), (0, 1), "{}", scene.log.text());
    }
}

impl Pair {
    /// One that ends at the midnight before that day of 2027; the world begins on 15 January at eight in the morning.
    fn until(month: u8, day: u8) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let mut certificate = rcgen::CertificateParams::default();
        certificate.not_after = rcgen::date_time_ymd(2027, month, day);
        Self { certificate: certificate.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// Of an end that is 40 days away: 30, 7 and 1 days before, and when it is over.
const TOLD: [u32; 4] = [10, 33, 39, 40];

async fn dated(days: u64) -> Scene {
    let world = World::new().await;
    put(&world.source, Some(OLD));
    let ends = world.clock.wall() + Duration::from_secs(days * DAY);
    let application = Application { secret_expires: Some(ends), ..world.application() };
    let scene = Scene::with(world, application, &[OLD, NEW]).await;
    scene.begin().await;
    assert_eq!(scene.manager.status().credential.ends_at, Some(ends));
    scene
}

#[tokio::test]
async fn the_end_of_a_secret_is_told_30_7_and_1_days_before_and_when_it_is_over() {
    let scene = dated(40).await;
    assert_eq!(scene.days_with("", 45).await, TOLD, "{}", scene.log.text());
    assert_eq!(scene.log.lines("WARN", "the client secret expires soon"), 3);
    assert_eq!(scene.log.lines("WARN", "the client secret has expired by its date"), 1);
    for left in ["days_left=30", "days_left=7", "days_left=1"] {
        assert_eq!(scene.log.lines("WARN", left), 1, "{left}: {}", scene.log.text());
    }
    assert_eq!(scene.log.lines("WARN", "Certificates & secrets"), 4);
}

#[tokio::test]
async fn the_end_of_a_secret_is_of_no_matter_once_another_took_its_place() {
    let scene = dated(40).await;
    assert_eq!(scene.days_with("", 20).await, [10]);
    scene.put(Some(NEW));
    scene.fetch(LOOK).await;
    assert_eq!(scene.days_with("", 30).await, [0; 0], "{}", scene.log.text());
    assert_eq!(scene.manager.status().credential.ends_at, None);
    assert_eq!(scene.log.lines("INFO", "client_secret_expires"), 1, "where to write the new one's end");
}

#[tokio::test]
async fn the_end_of_a_certificate_is_told_by_its_own_date_until_another_took_its_place() {
    let (old, new) = (Pair::until(2, 24), Pair::until(12, 31));
    let source = |text: &str| Arc::new(Source { text: Mutex::new(Some(text.to_owned())) });
    let (certificate, key) = (source(&old.certificate), source(&old.key));
    let credential =
        Credential::Certificate { certificate: certificate.clone(), key: key.clone(), algorithm: Algorithm::Ps256 };
    let known = [old.thumbprint(), new.thumbprint()];
    let scene = Scene::of(World::new().await, credential, &known.each_ref().map(String::as_str)).await;
    scene.begin().await;
    assert_eq!(scene.days_with("", 42).await, TOLD, "{}", scene.log.text());
    assert_eq!(scene.log.lines("WARN", "the certificate expires soon"), 3);
    assert_eq!(scene.log.lines("WARN", "the certificate has expired by its date"), 1);
    put(&key, Some(&new.key));
    put(&certificate, Some(&new.certificate));
    scene.fetch(LOOK).await;
    assert_eq!(scene.days_with("", 30).await, [0; 0], "{}", scene.log.text());
    // It has an end as well: 31 December less 30 days.
    assert_eq!(scene.days_with("the certificate expires soon", 250).await.len(), 1);
}

#[tokio::test]
async fn what_kin_have_in_common_is_told_once() {
    let scene = dated(40).await;
    let kin = scene.kin().await;
    let mut told = Vec::new();
    for day in 1..=41 {
        let before = scene.log.lines("WARN", "");
        scene.world.clock.advance(Duration::from_secs(DAY));
        let now = scene.world.clock.wall();
        for manager in [&scene.manager, &kin] {
            manager.wake();
            until(manager, |status| status.last_success == Some(now) && !status.fetching).await;
        }
        told.extend((before..scene.log.lines("WARN", "")).map(|_| day));
    }
    assert_eq!(told, TOLD, "{}", scene.log.text());
}

#[tokio::test]
async fn one_of_kin_tries_a_new_secret_and_the_others_use_what_it_proved() {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    let kin = scene.kin().await;
    let pass = async |seconds| {
        scene.world.clock.advance(Duration::from_secs(seconds));
        for manager in [&scene.manager, &kin] {
            manager.wake();
        }
    };
    let at_rest = async || {
        for manager in [&scene.manager, &kin] {
            until(manager, |status| !status.fetching && status.next_attempt > scene.world.clock.wall()).await;
        }
    };
    scene.put(Some(WRONG));
    pass(LOOK).await;
    while scene.log.lines("WARN", "was refused") == 0 {
        yield_now().await;
    }
    at_rest().await;
    assert_eq!(scene.entra.shown(), [OLD, OLD, WRONG]);
    scene.entra.know(&[OLD, NEW]);
    scene.put(Some(NEW));
    pass(LOOK).await;
    while scene.log.lines("INFO", IS_USED) == 0 {
        yield_now().await;
    }
    at_rest().await;
    assert_eq!(scene.entra.shown(), [OLD, OLD, WRONG, NEW]);
    // It is what the other asks with when its own turn has come.
    scene.entra.know(&[NEW]);
    pass(REFRESH).await;
    at_rest().await;
    assert_eq!(scene.entra.shown(), [OLD, OLD, WRONG, NEW, NEW, NEW]);
    assert_eq!((scene.log.lines("WARN", ""), scene.log.lines("INFO", IS_USED)), (1, 1), "{}", scene.log.text());
}

#[tokio::test]
async fn a_pause_that_the_endpoint_asks_for_is_for_all_kin() {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    scene.entra.script(Answer::raw(429, &[("Retry-After", "120")], ""));
    scene.world.pass(&scene.manager, REFRESH);
    until(&scene.manager, |status| status.failures == 1 && !status.fetching).await;
    let kin = scene.kin().await;
    let (told, next) = failure(&kin).await;
    assert_eq!((told.class, next), (FailureClass::Throttled, scene.world.clock.wall() + Duration::from_mins(2)));
    assert_eq!(scene.entra.shown().len(), 2);
    scene.world.pass(&kin, 120);
    until(&kin, |status| status.last_success.is_some() && !status.fetching).await;
    assert_eq!(scene.entra.shown().len(), 3);
}

/// Every mailbox asks every five minutes for a day.
async fn requests_of_a_day(mailboxes: usize) -> usize {
    let scene = Scene::new(OLD, &[OLD]).await;
    scene.begin().await;
    for _ in 0..24 * 12 {
        scene.world.pass(&scene.manager, 300);
        let now = scene.world.clock.wall();
        until(&scene.manager, |status| status.next_attempt > now && !status.fetching).await;
        for _ in 0..mailboxes {
            scene.manager.token().await.unwrap();
        }
    }
    scene.entra.shown().len()
}

#[tokio::test]
async fn a_thousand_mailboxes_cost_what_one_does_which_is_a_request_an_hour() {
    let of_one = requests_of_a_day(1).await;
    assert!((24..=28).contains(&of_one), "{of_one}");
    assert_eq!(requests_of_a_day(1_000).await, of_one);
}
