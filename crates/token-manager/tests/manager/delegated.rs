//! The life of a user's refresh token: renewed with each access token, kept through every odd answer and every trouble of
//! the vault, and never asked with more than it should be.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::Clock;
use token_manager::{
    Application, Credential, FailureClass, Grant, Secret, StoredGrant, TokenManager, Vault, VaultName,
};

use crate::endpoint::{Answer, CLIENT_ID, DELEGATED_SCOPE};
use crate::entra::Entra;
use crate::secrecy::listen;
use crate::world::{Source, World, endpoints, failure, until};

const MAILBOX: &str = "scanner@contoso.com";
const DAY: u64 = 24 * 60 * 60;
const HOUR: u64 = 60 * 60;

/// A mailbox that somebody signed in for, with the refresh token `r0`.
struct Seat {
    world: World,
    key: Option<Arc<Source>>,
}

impl Seat {
    async fn new() -> Self {
        let seat = Self { world: World::new().await, key: None };
        seat.sign_in("r0", MAILBOX);
        seat.world.endpoint.expect_refresh_token("r0");
        seat
    }

    /// The same with a key under `[vault]`.
    async fn sealed() -> Self {
        let key = Source { text: Mutex::new(Some("q3Xk9vB1mZ7tR5nY2wL8pQ==".to_owned())) };
        let seat = Self { world: World::new().await, key: Some(Arc::new(key)) };
        seat.sign_in("r0", MAILBOX);
        seat.world.endpoint.expect_refresh_token("r0");
        seat
    }

    fn vault(&self) -> Vault {
        let key = self.key.clone().map(|key| key as Arc<dyn token_manager::SecretSource>);
        Vault::open(self.world.path("refresh-tokens"), key).unwrap()
    }

    /// As `xoauth2-relay login` of another process does.
    fn sign_in(&self, token: &str, user: &str) {
        let now = self.world.clock.wall();
        let grant = StoredGrant {
            refresh_token: Secret::new(token.to_owned()).unwrap(),
            account: Some(user.to_owned()),
            user: user.to_owned(),
            signed_in_at: now,
            renewed_at: now,
            refused: None,
        };
        self.vault().store(&name(), &grant).unwrap();
    }

    fn stored(&self) -> StoredGrant {
        self.vault().load(&name()).unwrap().unwrap()
    }

    fn stored_token(&self) -> String {
        self.stored().refresh_token.expose().to_owned()
    }

    fn start(&self) -> TokenManager {
        let grant = Grant::Delegated { vault: Arc::new(self.vault()), name: name(), mailbox: "scanner".to_owned() };
        let scope = DELEGATED_SCOPE.to_owned();
        self.world.start_as(Application { credential: Credential::Public, scope, grant, ..self.world.application() })
    }

    fn restarted(self) -> Self {
        Self { world: self.world.restarted(), ..self }
    }

    /// The only entry's file.
    fn entry(&self) -> std::path::PathBuf {
        let mut files = fs::read_dir(self.world.path("refresh-tokens")).unwrap();
        files.next().unwrap().unwrap().path()
    }
}

fn name() -> VaultName {
    VaultName {
        tenant_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        client_id: CLIENT_ID.to_owned(),
        mailbox: MAILBOX.to_owned(),
    }
}

fn revoked() -> Answer {
    Answer::error(400, "invalid_grant", 50_173, "The provided grant has expired due to it being revoked.")
}

#[tokio::test]
async fn a_mailbox_that_sends_nothing_is_renewed_for_200_days() {
    let seat = Seat::new().await;
    let manager = seat.start();
    seat.world.endpoint.script([Answer::renewed("t0", "r1")]);
    until(&manager, |status| status.last_success.is_some()).await;
    for day in 1..=200 {
        // Nobody asks for a token: time passes, and the refresher looks at it.
        seat.world.endpoint.script([Answer::renewed(&format!("t{day}"), &format!("r{}", day + 1))]);
        seat.world.pass(&manager, DAY);
        let now = seat.world.clock.wall();
        let status = until(&manager, |status| status.last_success == Some(now)).await;
        let sign_in = status.sign_in.unwrap();
        assert_eq!((sign_in.renewed_at, sign_in.refused), (now, None));
        assert_eq!(sign_in.ends_at, now + Duration::from_secs(90 * DAY));
    }
    assert_eq!(seat.stored_token(), "r201");
    assert!(seat.stored().signed_in_at < seat.stored().renewed_at);
    assert_eq!(seat.world.endpoint.requests(), 201);
}

#[tokio::test]
async fn the_refresh_token_is_renewed_with_each_access_token_and_in_the_vault_before_that_is_used() {
    let seat = Seat::new().await;
    seat.world.endpoint.script([Answer::renewed("t1", "r1"), Answer::renewed("t2", "r2")]);
    let manager = seat.start();
    let token = manager.token().await.unwrap();
    assert_eq!((token.expose(), token.user(), seat.stored_token().as_str()), ("t1", Some(MAILBOX), "r1"));
    seat.world.pass(&manager, 2430);
    let due = seat.world.clock.wall();
    until(&manager, |status| status.last_success == Some(due)).await;
    assert_eq!(seat.stored_token(), "r2");
    // A process killed between the reply and the write knows r1 only, which stays good for its own 90 days (facts 4.5).
    let seat = seat.restarted();
    seat.sign_in("r1", MAILBOX);
    seat.world.endpoint.expect_refresh_token("r1");
    seat.world.endpoint.script([Answer::renewed("t3", "r3")]);
    let manager = seat.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t3");
    assert_eq!((seat.stored_token().as_str(), seat.world.endpoint.requests()), ("r3", 3));
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_leaves_the_one_there_is() {
    let seat = Seat::new().await;
    seat.world.endpoint.script([Answer::token("t1", 3600), Answer::token("t2", 3600)]);
    let manager = seat.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    seat.world.pass(&manager, HOUR);
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
    assert_eq!((seat.stored_token().as_str(), seat.world.endpoint.requests()), ("r0", 2));
}

#[tokio::test]
async fn no_odd_answer_costs_the_refresh_token() {
    let loose = |body: &str| Answer::json(400, body);
    for odd in [
        Answer::raw(500, &[("Content-Type", "text/html")], "<html>"),
        Answer::raw(200, &[("Content-Type", "text/html")], "<html>"),
        Answer::json(200, r#"{"token_type":"Bearer","expires_in":3600,"access_token":""}"#),
        Answer::json(200, r#"{"token_type":"Bearer","expires_in":3600,"access_token":"","refresh_token":""}"#),
        Answer::json(200, ""),
        Answer::json(200, "{}"),
        Answer::json(200, r#"{"error":"something_new"}"#),
        Answer::raw(429, &[("Retry-After", "120")], ""),
        Answer::error(429, "invalid_grant", 90_055, "Throttled."),
        Answer::error(503, "invalid_grant", 90_033, "A transient error has occurred."),
        loose(r#"{"error":"something_new"}"#),
        loose(r#"{"error":"authorization_pending"}"#),
        Answer::error(401, "invalid_client", 7_000_215, "Invalid client secret provided."),
        Answer::error(400, "invalid_request", 900_144, "The request body must contain a parameter."),
        Answer::raw(302, &[("Location", "http://127.0.0.1:1/")], ""),
        Answer::raw(404, &[], ""),
    ] {
        let seat = Seat::new().await;
        seat.world.endpoint.script([odd, Answer::renewed("t1", "r1")]);
        let manager = seat.start();
        let (failure, _) = failure(&manager).await;
        assert!(!failure.class.is_about_the_grant(), "{failure}");
        assert_eq!((seat.stored_token().as_str(), seat.stored().refused), ("r0", None), "{failure}");
        seat.world.clock.advance(Duration::from_mins(5));
        assert_eq!(manager.token().await.unwrap().expose(), "t1", "{failure}");
        assert_eq!((seat.stored_token().as_str(), seat.world.endpoint.requests()), ("r1", 2), "{failure}");
    }
}

#[tokio::test]
async fn a_refused_refresh_token_is_kept_and_asked_with_ever_more_seldom_over_restarts_too() {
    let mut seat = Seat::new().await;
    let first = seat.world.clock.wall();
    seat.world.endpoint.script(std::iter::repeat_with(revoked).take(7).chain([Answer::renewed("t1", "r1")]));
    for (asked, wait) in [5, 5, 10, 20, 40, 60, 60].into_iter().enumerate() {
        let manager = seat.start();
        let (told, next) = failure(&manager).await;
        assert_eq!((told.class, told.codes.as_slice()), (FailureClass::Grant, &[50_173][..]));
        assert_eq!(next, seat.world.clock.wall() + Duration::from_mins(wait), "{asked}");
        let kept = seat.stored();
        let refused = kept.refused.unwrap();
        assert_eq!((kept.refresh_token.expose(), refused.at, refused.last), ("r0", first, seat.world.clock.wall()));
        assert!(refused.failure.contains("AADSTS50173"), "{}", refused.failure);
        // Started again, it does not ask before its time.
        seat = seat.restarted();
        let manager = seat.start();
        let (told, _) = failure(&manager).await;
        assert_eq!(told.class, FailureClass::Grant);
        assert!(told.text.starts_with("AADSTS50173"), "the class is said once: {}", told.text);
        assert!(told.advice.contains("login --tenant contoso --mailbox scanner"), "{}", told.advice);
        let status = until(&manager, |status| status.sign_in.is_some()).await;
        assert!(status.sign_in.unwrap().refused.is_some());
        assert_eq!(seat.world.endpoint.requests(), asked + 1);
        seat.world.clock.advance(Duration::from_mins(wait));
        seat = seat.restarted();
    }
    // Revived, as after a policy was changed: the mark goes, and all is well.
    let manager = seat.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    assert_eq!((seat.stored_token().as_str(), seat.stored().refused), ("r1", None));
}

#[tokio::test]
async fn what_another_process_stores_is_taken_up_at_the_next_look() {
    let seat = Seat::new().await;
    seat.world.endpoint.script([revoked(), Answer::renewed("t1", "r2"), Answer::renewed("t2", "s2")]);
    let manager = seat.start();
    failure(&manager).await;
    // Right after a refusal, which holds for an hour.
    seat.world.clock.advance(Duration::from_secs(1));
    seat.sign_in("r1", "anna@contoso.com");
    seat.world.endpoint.expect_refresh_token("r1");
    manager.wake();
    until(&manager, |status| status.last_success.is_some()).await;
    let token = manager.token().await.unwrap();
    assert_eq!((token.expose(), token.user()), ("t1", Some("anna@contoso.com")));
    // While a token is good: it is replaced by one of the new sign-in.
    seat.world.clock.advance(Duration::from_secs(1));
    seat.sign_in("s1", MAILBOX);
    seat.world.endpoint.expect_refresh_token("s1");
    manager.wake();
    let now = seat.world.clock.wall();
    until(&manager, |status| status.last_success == Some(now)).await;
    let token = manager.token().await.unwrap();
    assert_eq!((token.expose(), token.user(), seat.stored_token().as_str()), ("t2", Some(MAILBOX), "s2"));
    assert_eq!(seat.world.endpoint.requests(), 3);
}

#[tokio::test]
async fn a_sign_in_during_a_request_outlives_its_answer_and_is_used_at_once() {
    for answer in [Answer::renewed("t1", "r1"), revoked()] {
        let seat = Seat::new().await;
        seat.world.endpoint.script([answer.held(), Answer::renewed("u1", "s1")]);
        let manager = seat.start();
        seat.world.endpoint.received(1).await;
        seat.world.clock.advance(Duration::from_secs(1));
        seat.sign_in("s0", "anna@contoso.com");
        seat.world.endpoint.release();
        until(&manager, |status| !status.fetching && (status.failures > 0 || status.last_success.is_some())).await;
        assert_eq!((seat.stored_token().as_str(), seat.stored().refused), ("s0", None));
        seat.world.endpoint.expect_refresh_token("s0");
        // As the daemon does when its own `login` has stored one.
        manager.wake();
        seat.world.endpoint.received(2).await;
        until(&manager, |status| !status.fetching && status.failures == 0).await;
        let token = manager.token().await.unwrap();
        assert_eq!(
            (token.expose(), token.user(), seat.stored_token().as_str()),
            ("u1", Some("anna@contoso.com"), "s1")
        );
        assert_eq!(seat.world.endpoint.requests(), 2);
    }
}

#[tokio::test]
async fn a_vault_that_cannot_be_written_is_told_once_and_gets_it_later() {
    let (log, _guard) = listen();
    let seat = Seat::new().await;
    seat.world.endpoint.script([Answer::renewed("t1", "r1"), Answer::renewed("t2", "r2"), Answer::renewed("t3", "r3")]);
    let manager = seat.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    let (directory, aside) = (seat.world.path("refresh-tokens"), seat.world.path("aside"));
    fs::rename(&directory, &aside).unwrap();
    fs::write(&directory, "in the way").unwrap();
    for token in ["t2", "t3"] {
        seat.world.clock.advance(Duration::from_secs(HOUR));
        assert_eq!(manager.token().await.unwrap().expose(), token);
    }
    // More looks say nothing more.
    seat.world.pass(&manager, 30);
    seat.world.pass(&manager, 30);
    fs::remove_file(&directory).unwrap();
    fs::rename(&aside, &directory).unwrap();
    assert_eq!(seat.stored_token(), "r1");
    let stored = async || {
        loop {
            manager.wake();
            tokio::task::yield_now().await;
            if seat.stored_token() == "r3" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stored()).await.unwrap();
    assert_eq!(seat.world.endpoint.requests(), 3);
    assert_eq!(log.lines("WARN", ""), 1, "{}", log.text());
    assert_eq!(log.lines("WARN", "the vault of refresh tokens is in trouble"), 1);
    assert_eq!(log.lines("WARN", "is_held=true"), 1);
}

#[tokio::test]
async fn a_key_that_comes_back_is_taken_up_without_a_restart() {
    let (log, _guard) = listen();
    let seat = Seat::sealed().await;
    let key = seat.key.as_ref().unwrap();
    let right = key.text.lock().unwrap().take();
    seat.world.endpoint.script([Answer::renewed("t1", "r1")]);
    let manager = seat.start();
    let (told, _) = failure(&manager).await;
    assert!(told.text.contains("the key under [vault]"), "{}", told.text);
    *key.text.lock().unwrap() = right;
    seat.world.pass(&manager, 30);
    until(&manager, |status| status.last_success.is_some()).await;
    assert_eq!((seat.stored_token().as_str(), seat.world.endpoint.requests()), ("r1", 1));
    assert_eq!(log.lines("WARN", "the vault of refresh tokens is in trouble"), 1, "{}", log.text());
}

#[tokio::test]
async fn a_sign_in_that_cannot_be_read_now_is_not_written_over() {
    let (log, _guard) = listen();
    let seat = Seat::sealed().await;
    seat.world.endpoint.script([Answer::renewed("t1", "r1"), Answer::renewed("t2", "s1")]);
    let manager = seat.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    seat.world.clock.advance(Duration::from_secs(1));
    seat.sign_in("s0", MAILBOX);
    let entry = fs::read(seat.entry()).unwrap();
    let key = seat.key.as_ref().unwrap();
    let right = key.text.lock().unwrap().replace("another-key-of-enough-octets".to_owned());
    let looked = async || {
        while log.lines("WARN", "with another key") == 0 {
            manager.wake();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked()).await.unwrap();
    assert_eq!(fs::read(seat.entry()).unwrap(), entry);
    *key.text.lock().unwrap() = right;
    seat.world.endpoint.expect_refresh_token("s0");
    seat.world.pass(&manager, 30);
    seat.world.endpoint.received(2).await;
    until(&manager, |status| !status.fetching && status.failures == 0).await;
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
    assert_eq!((seat.stored_token().as_str(), seat.world.endpoint.requests()), ("s1", 2));
}

#[tokio::test]
async fn an_entry_that_is_damaged_or_gone_is_written_anew_by_whoever_holds_it() {
    let seat = Seat::new().await;
    seat.world.endpoint.script([Answer::renewed("t1", "r1")]);
    let manager = seat.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    let entry = seat.entry();
    let harms: [&dyn Fn(); 2] = [&|| fs::write(&entry, "garbage").unwrap(), &|| fs::remove_file(&entry).unwrap()];
    for harm in harms {
        harm();
        let mended = async || {
            while !matches!(seat.vault().load(&name()), Ok(Some(grant)) if grant.refresh_token.expose() == "r1") {
                seat.world.pass(&manager, 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), mended()).await.unwrap();
    }
    assert_eq!(seat.world.endpoint.requests(), 1);
}

#[tokio::test]
async fn the_end_of_a_refresh_token_is_told_30_7_and_1_days_before() {
    let (log, _guard) = listen();
    let seat = Seat::new().await;
    seat.world.endpoint.script([Answer::renewed("t1", "r1")]);
    let manager = seat.start();
    manager.token().await.unwrap();
    let mut told = Vec::new();
    for day in 1..=91 {
        seat.world.endpoint.script([Answer::raw(503, &[], "")]);
        seat.world.pass(&manager, DAY);
        until(&manager, |status| status.failures == day).await;
        let warnings = log.lines("WARN", "the refresh token ends soon") + log.lines("WARN", "has ended by its age");
        if warnings > told.len() {
            told.push(day);
        }
    }
    assert_eq!(told, [60, 83, 89, 90]);
    assert_eq!(log.lines("WARN", "the refresh token has ended by its age"), 1);
    assert_eq!(log.lines("WARN", "mailbox=\"scanner\" ends_at="), 4, "{}", log.text());
    // It is not thrown away: only the endpoint knows.
    assert_eq!((seat.stored_token().as_str(), seat.stored().refused), ("r1", None));
    assert_eq!(seat.world.endpoint.requests(), 92);
}

#[tokio::test]
async fn a_refused_grant_says_nothing_of_a_new_secret_that_was_shown_with_it() {
    let (log, _guard) = listen();
    let seat = Seat::new().await;
    let entra = Entra::start(&["old", "new"]).await;
    *seat.world.source.text.lock().unwrap() = Some("old".to_owned());
    let grant = Grant::Delegated { vault: Arc::new(seat.vault()), name: name(), mailbox: "scanner".to_owned() };
    let (endpoints, scope) = (endpoints(entra.url.clone()), DELEGATED_SCOPE.to_owned());
    let manager = seat.world.start_as(Application { endpoints, scope, grant, ..seat.world.application() });
    until(&manager, |status| status.last_success.is_some() && !status.fetching).await;
    entra.script(revoked());
    *seat.world.source.text.lock().unwrap() = Some("new".to_owned());
    seat.world.pass(&manager, 30);
    let status = until(&manager, |status| status.failures == 1 && !status.fetching).await;
    assert_eq!(entra.shown(), ["old", "new"]);
    assert_eq!(status.last_failure.unwrap().1.codes, [50_173]);
    assert_eq!(status.credential.trouble, None);
    assert!(seat.stored().refused.is_some() && status.sign_in.unwrap().refused.is_some());
    assert_eq!((log.lines("WARN", ""), log.lines("WARN", "AADSTS50173")), (1, 1), "{}", log.text());
    // More looks change nothing: nobody is asked with a refused refresh token, and the token that there is goes on.
    for _ in 0..3 {
        seat.world.pass(&manager, 30);
        tokio::task::yield_now().await;
    }
    assert_eq!((manager.token().await.unwrap().expose(), manager.status().failures), ("t1", 1));
    seat.sign_in("r1", MAILBOX);
    seat.world.pass(&manager, 1);
    let now = seat.world.clock.wall();
    until(&manager, |status| status.last_success == Some(now) && !status.fetching).await;
    assert_eq!(entra.shown(), ["old", "new", "new"], "the right secret did not wait for its next try");
    assert_eq!((log.lines("INFO", "the new client secret brought a token"), log.lines("WARN", "")), (1, 1));
}
