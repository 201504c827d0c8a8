//! The token is renewed in the background, and a valid one outlives every trouble.

use std::time::Duration;

use clock::Clock;
use token_manager::FailureClass;

use crate::endpoint::Answer;
use crate::world::{World, until};

#[tokio::test]
async fn refreshed_before_expiry_without_anyone_asking() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3600), Answer::token("t2", 3600)]);
    let manager = world.start();
    let first = manager.token().await.unwrap();
    let due = until(&manager, |status| !status.fetching).await.next_attempt;
    assert_eq!(due, world.clock.wall() + Duration::from_secs(2430));
    // A moment early: the wake-up asks for nothing, as the count of requests shows in the end.
    world.pass(&manager, 2429);
    world.pass(&manager, 1);
    until(&manager, |status| status.last_success == Some(due)).await;
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
    assert!(first.expires_at() > world.clock.wall());
    assert_eq!(world.endpoint.requests(), 2);
}

#[tokio::test]
async fn the_endpoints_wish_for_a_refresh_is_met_soon_after_and_not_before() {
    let world = World::new().await;
    let body = r#"{"token_type":"Bearer","expires_in":3600,"refresh_in":900,"access_token":"t1"}"#;
    world.endpoint.script([Answer::json(200, body), Answer::token("t2", 3600)]);
    let manager = world.start();
    manager.token().await.unwrap();
    let due = until(&manager, |status| !status.fetching).await.next_attempt;
    let after = due.saturating_since(world.clock.wall());
    assert!((900..=990).contains(&after.as_secs()), "{after:?}");
    world.pass(&manager, after.as_secs() - 1);
    world.pass(&manager, 1);
    until(&manager, |status| status.last_success == Some(due)).await;
    assert_eq!(world.endpoint.requests(), 2);
}

#[tokio::test]
async fn a_valid_token_outlives_failing_refreshes() {
    let world = World::new().await;
    world.endpoint.script([
        Answer::token("t1", 3600),
        Answer::error(401, "invalid_client", 7_000_222, "The provided client secret keys are expired."),
        Answer::raw(500, &[], "<html>"),
        Answer::token("t2", 3600),
    ]);
    let manager = world.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    world.pass(&manager, 2430);
    let status = until(&manager, |status| status.failures == 1).await;
    assert_eq!(status.last_failure.unwrap().1.class, FailureClass::Credential);
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    world.pass(&manager, 60);
    until(&manager, |status| status.failures == 2).await;
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    world.pass(&manager, 15);
    let status = until(&manager, |status| status.failures == 0).await;
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
    assert!(status.last_failure.is_some() && status.last_success == Some(world.clock.wall()));
    assert_eq!(world.endpoint.requests(), 4);
}

#[tokio::test]
async fn an_expired_token_is_never_given_out() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3600), Answer::token("t2", 3600)]);
    let manager = world.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    // The machine slept: only wall time went on, and no timer has run.
    world.clock.set_wall(world.clock.wall() + Duration::from_hours(1));
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
    assert_eq!(world.endpoint.requests(), 2);
}

#[tokio::test]
async fn a_clock_set_back_does_not_keep_a_dead_token() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3600), Answer::token("t2", 3600)]);
    let manager = world.start();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    world.clock.set_wall(world.clock.wall() - Duration::from_hours(24));
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
}

#[tokio::test]
async fn a_rotated_secret_is_taken_up() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3600), Answer::token("t2", 3600)]);
    let manager = world.start();
    manager.token().await.unwrap();
    *world.source.text.lock().unwrap() = Some("rotated\r\n".to_owned());
    world.endpoint.expect_secret("rotated");
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(manager.token().await.unwrap().expose(), "t2");
    assert_eq!(world.endpoint.requests(), 2);
}
