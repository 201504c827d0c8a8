//! Five requests in five minutes, whatever happens, across restarts.

use std::time::Duration;

use clock::Clock;
use proptest::prelude::*;
use token_manager::{Application, REQUEST_LIMIT, REQUEST_PERIOD, TokenManager, TokenUnavailable};

use crate::endpoint::Answer;
use crate::entra::Entra;
use crate::world::{World, endpoints, until};

fn tokens(count: usize) -> impl Iterator<Item = Answer> {
    (0..count).map(|number| Answer::token(&format!("t{number}"), 3600))
}

#[tokio::test]
async fn a_restart_gives_no_new_budget() {
    let world = World::new().await;
    world.endpoint.script(tokens(REQUEST_LIMIT + 1));
    let started = world.clock.wall();
    let manager = world.start();
    let mut token = manager.token().await.unwrap();
    for _ in 1..REQUEST_LIMIT {
        world.clock.advance(Duration::from_secs(1));
        token = manager.replace(&token).await.unwrap();
    }
    let next = |error| match error {
        TokenUnavailable::Budget { next } => next,
        other => panic!("{other:?}"),
    };
    let free = started + Duration::from_secs(301);
    assert_eq!(next(manager.replace(&token).await.unwrap_err()), free);
    // The token itself is as good as before.
    assert!(manager.token().await.unwrap().same(&token));
    let world = world.restarted();
    let manager = world.start();
    assert_eq!(next(manager.token().await.unwrap_err()), free);
    assert_eq!(manager.status().next_attempt, free);
    assert_eq!(world.endpoint.requests(), REQUEST_LIMIT);
    // It asks by itself when the budget is there again.
    world.pass(&manager, 297);
    until(&manager, |status| status.last_success.is_some()).await;
    assert_eq!(manager.token().await.unwrap().expose(), "t5");
    assert_eq!(world.endpoint.requests(), REQUEST_LIMIT + 1);
}

#[tokio::test]
async fn restarting_without_end_asks_five_times() {
    let world = World::new().await;
    world.endpoint.script(tokens(REQUEST_LIMIT));
    for restart in 0..20 {
        let manager = world.start();
        assert_eq!(manager.token().await.is_ok(), restart < REQUEST_LIMIT, "{restart}");
        world.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(world.endpoint.requests(), REQUEST_LIMIT);
}

#[tokio::test]
async fn a_damaged_ledger_waits_and_recovers() {
    let world = World::new().await;
    std::fs::write(world.ledger_path(), b"\x00garbage").unwrap();
    world.endpoint.script(tokens(1));
    let manager = world.start();
    assert!(matches!(manager.token().await, Err(TokenUnavailable::Budget { .. })));
    assert_eq!(world.endpoint.requests(), 0);
    world.clock.advance(Duration::from_secs(301));
    assert_eq!(manager.token().await.unwrap().expose(), "t0");
}

/// What happens to a manager.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    /// The process ends and another one begins.
    Restart,
    /// Exchange refuses the token.
    Replace,
    /// Another secret stands there: one of those in [`SECRETS`].
    Rotate(usize),
    /// The endpoint answers the next request so: one of [`odd`].
    Answer(usize),
}

/// Entra ID knows all but the last.
const SECRETS: [&str; 3] = ["first", "second", "wrong"];
const ODD: usize = 6;

fn odd(which: usize) -> Answer {
    match which {
        0 => Answer::raw(503, &[], "<html>"),
        1 => Answer::raw(429, &[("Retry-After", "1")], ""),
        2 => Answer::error(400, "invalid_grant", 50_196, "A loop."),
        3 => Answer::error(401, "invalid_client", 7_000_222, "Expired."),
        4 => Answer::token("short", 61),
        _ => Answer::json(200, "{}"),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..90u64).prop_map(Step::Pass),
        1 => (90..4000u64).prop_map(Step::Pass),
        3 => Just(Step::Restart),
        4 => Just(Step::Replace),
        2 => (0..SECRETS.len()).prop_map(Step::Rotate),
        3 => (0..ODD).prop_map(Step::Answer),
    ];
    prop::collection::vec(step, 20..60)
}

/// All is done that was to be done at this moment.
async fn at_rest(world: &World, manager: &TokenManager) {
    let now = world.clock.wall();
    until(manager, |status| !status.fetching && status.next_attempt > now).await;
}

async fn live(steps: Vec<Step>) -> Vec<clock::Monotonic> {
    let mut world = World::new().await;
    let entra = Entra::start(&SECRETS[..2]).await;
    entra.keep_time(world.clock.clone());
    let start =
        |world: &World| world.start_as(Application { endpoints: endpoints(entra.url.clone()), ..world.application() });
    *world.source.text.lock().unwrap() = Some(SECRETS[0].to_owned());
    let mut manager = start(&world);
    for step in steps {
        at_rest(&world, &manager).await;
        match step {
            Step::Pass(seconds) => world.pass(&manager, seconds),
            Step::Restart => {
                world = world.restarted();
                manager = start(&world);
            }
            Step::Replace => {
                if let Ok(token) = manager.token().await {
                    let _ = manager.replace(&token).await;
                }
            }
            Step::Rotate(which) => *world.source.text.lock().unwrap() = Some(SECRETS[which].to_owned()),
            Step::Answer(which) => entra.script(odd(which)),
        }
    }
    at_rest(&world, &manager).await;
    entra.came()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// The whole manager, its file and its endpoint; that the clock may be set as well is the ledger's own property.
    #[test]
    fn whatever_happens_five_minutes_hold_five_requests(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let came = runtime.block_on(live(steps));
        prop_assert!(!came.is_empty());
        for six in came.windows(REQUEST_LIMIT + 1) {
            prop_assert!(six[REQUEST_LIMIT].saturating_since(six[0]) > REQUEST_PERIOD, "{six:?}");
        }
    }
}
