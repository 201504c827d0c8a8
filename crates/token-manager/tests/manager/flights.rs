//! Many callers, one request.

use token_manager::TokenUnavailable;
use tokio::task::{JoinSet, yield_now};

use crate::endpoint::Answer;
use crate::world::{World, failure};

#[tokio::test]
async fn a_hundred_callers_one_request() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3599).held()]);
    let manager = world.start();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let manager = manager.clone();
        callers.spawn(async move { manager.token().await.unwrap().expose().to_owned() });
    }
    world.endpoint.received(1).await;
    yield_now().await;
    world.endpoint.release();
    assert_eq!(callers.join_all().await, vec!["t1"; 100]);
    assert_eq!(world.endpoint.requests(), 1);
}

#[tokio::test]
async fn a_hundred_callers_learn_of_one_failure() {
    let world = World::new().await;
    world.endpoint.script([Answer::raw(500, &[], "").held()]);
    let manager = world.start();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let manager = manager.clone();
        callers.spawn(async move { failure(&manager).await.0.http_status });
    }
    world.endpoint.received(1).await;
    world.endpoint.release();
    assert_eq!(callers.join_all().await, vec![Some(500); 100]);
    assert_eq!(world.endpoint.requests(), 1);
}

#[tokio::test]
async fn fifty_rejections_one_request() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3599), Answer::token("t2", 3599).held()]);
    let manager = world.start();
    let rejected = manager.token().await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (manager, rejected) = (manager.clone(), rejected.clone());
        callers.spawn(async move { manager.replace(&rejected).await.unwrap().expose().to_owned() });
    }
    world.endpoint.received(2).await;
    // Other mailboxes go on with the old one meanwhile.
    assert!(manager.token().await.unwrap().same(&rejected));
    world.endpoint.release();
    assert_eq!(callers.join_all().await, vec!["t2"; 50]);
    assert_eq!(world.endpoint.requests(), 2);
    // Whoever comes late with the old one gets the newer one, without a request.
    assert_eq!(manager.replace(&rejected).await.unwrap().expose(), "t2");
    assert_eq!(world.endpoint.requests(), 2);
}

#[tokio::test]
async fn a_failed_replacement_leaves_the_old_token_to_the_others() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3599), Answer::raw(503, &[], "")]);
    let manager = world.start();
    let rejected = manager.token().await.unwrap();
    assert!(matches!(manager.replace(&rejected).await, Err(TokenUnavailable::Failed { .. })));
    assert!(manager.token().await.unwrap().same(&rejected));
    // Within the back-off the answer comes at once and nobody is asked.
    assert!(matches!(manager.replace(&rejected).await, Err(TokenUnavailable::Failed { .. })));
    assert_eq!(world.endpoint.requests(), 2);
}

#[tokio::test]
async fn a_caller_who_goes_away_stops_nothing() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3599).held()]);
    let manager = world.start();
    let caller = tokio::spawn({
        let manager = manager.clone();
        async move { manager.token().await.map(drop) }
    });
    world.endpoint.received(1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.endpoint.release();
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    assert_eq!(world.endpoint.requests(), 1);
}

#[tokio::test]
async fn a_stop_answers_those_who_wait() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("t1", 3599).held()]);
    let manager = world.start();
    let caller = tokio::spawn({
        let manager = manager.clone();
        async move { manager.token().await }
    });
    world.endpoint.received(1).await;
    world.stop.cancel();
    assert!(matches!(caller.await.unwrap(), Err(TokenUnavailable::Stopped)));
    assert!(matches!(manager.token().await, Err(TokenUnavailable::Stopped)));
}
