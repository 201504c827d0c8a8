//! Five requests in five minutes, whatever happens, across restarts.

use std::time::Duration;

use clock::Clock;
use token_manager::{REQUEST_LIMIT, TokenUnavailable};

use crate::endpoint::Answer;
use crate::world::{World, until};

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
