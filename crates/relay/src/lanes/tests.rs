//! Lanes without a queue: who gets which for a client that waits. Nothing is reached upstream; what happens there is the
//! end-to-end tests' matter.

use std::sync::Arc;

use clock::SystemClock;

use super::*;
use crate::config::settings_of;

/// A lane more than the usual: its own mailbox, and whatever `more` says.
fn settings(more: &str) -> Settings {
    settings_of(&format!(
        "[listener.local]\ndelivery = \"direct\"\n\
         [tenant.contoso]\ntenant_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_id = \"66666666-7777-8888-9999-000000000000\"\nclient_secret = {{ file = \"/nowhere/secret\" }}\n\
         authority = \"https://localhost:1\"\nsmtp = {{ host = \"localhost\", port = 1 }}\n\
         [mailbox.scanner]\naddress = \"scanner@contoso.com\"\n{more}"
    ))
}

const ANY_SENDER: &str = "[mailbox.any]\naddress = \"*@contoso.com\"\nwildcard_needs_user = false\n\
                          [[route]]\nname = \"all\"\nmailbox = [\"{sender}\"]\nfallback = \"scanner\"\n";

struct World {
    lanes: Arc<Lanes>,
    unknown: Arc<UnknownMailboxes>,
    crew: Arc<Crew>,
    stop: CancellationToken,
    stop_tokens: CancellationToken,
}

impl World {
    fn new() -> Self {
        let (crew, unknown) = (Arc::new(Crew::new()), Arc::<UnknownMailboxes>::default());
        let (stop, stop_tokens) = (CancellationToken::new(), CancellationToken::new());
        let lanes = Lanes::new(Means {
            road: None,
            unknown: Arc::clone(&unknown),
            wanted: Arc::default(),
            ledgers: Arc::new(Ledgers::new(None)),
            trust: Trust::of_this_machine(),
            crew: Arc::clone(&crew),
            clock: Arc::new(SystemClock::new()),
            stop: stop.clone(),
            stop_tokens: stop_tokens.clone(),
        });
        Self { lanes, unknown, crew, stop, stop_tokens }
    }

    async fn follow(&self, settings: &Settings) {
        let plan = self.lanes.plan(settings).map_err(|errors| errors.len()).unwrap();
        self.lanes.follow(plan, &Routing::new(settings), &[]).await;
    }

    async fn open_for(&self, login: &str) -> Option<Arc<Lane<Tokens>>> {
        self.lanes.open_for(&id(login)).await
    }

    async fn end(&self) {
        self.stop.cancel();
        assert!(self.crew.finish(Duration::from_secs(20)).await, "lanes end by themselves");
        self.stop_tokens.cancel();
    }
}

fn id(login: &str) -> LaneId {
    LaneId::new("11111111-2222-3333-4444-555555555555", login)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_gets_the_lane_that_runs_and_the_next_after_a_change() {
    let world = World::new();
    assert!(world.open_for("scanner@contoso.com").await.is_none());
    world.follow(&settings("")).await;
    let lane = world.open_for("scanner@contoso.com").await.unwrap();
    assert_eq!(lane.id(), &id("scanner@contoso.com"));
    assert!(Arc::ptr_eq(&lane, &world.open_for("scanner@contoso.com").await.unwrap()), "it stays");
    assert!(world.open_for("other@contoso.com").await.is_none());
    world.follow(&settings("connections = 2\n")).await;
    let next = world.open_for("scanner@contoso.com").await.unwrap();
    assert!(!Arc::ptr_eq(&lane, &next));
    assert_eq!(next.status().max_connections, 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_with_a_turn_is_not_followed_by_another_before_that_has_ended() {
    let world = World::new();
    world.follow(&settings("")).await;
    let lane = world.open_for("scanner@contoso.com").await.unwrap();
    let slot = lane.slot().await;
    world.follow(&settings("connections = 2\n")).await;
    // The old one is no more to be had, and the new one is not there yet.
    let opening = world.open_for("scanner@contoso.com");
    let mut opening = std::pin::pin!(opening);
    let now = std::future::poll_fn(|context| std::task::Poll::Ready(opening.as_mut().poll(context))).await;
    match now {
        std::task::Poll::Pending => {
            drop(slot);
            assert!(!Arc::ptr_eq(&lane, &opening.await.unwrap()));
        }
        std::task::Poll::Ready(other) => panic!("{:?}", other.map(|lane| lane.status())),
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_senders_own_lane_is_opened_at_once_unless_nobody_can_log_in_to_it() {
    let world = World::new();
    world.follow(&settings(ANY_SENDER)).await;
    let (anna, bert) = ("anna@contoso.com", "bert@contoso.com");
    assert!(world.lanes.lane(&id(anna)).is_none(), "not before somebody asks for it");
    let lane = world.open_for(anna).await.unwrap();
    assert_eq!(lane.login(), anna);
    assert!(Arc::ptr_eq(&lane, &world.open_for(anna).await.unwrap()));
    assert!(world.open_for("anna@elsewhere.com").await.is_none());
    world.unknown.remember(&id(bert), SystemClock::new().monotonic());
    assert!(world.open_for(bert).await.is_none());
    assert!(world.lanes.lane(&id(bert)).is_none());
    // It ends with the mailbox that it is of.
    world.follow(&settings("")).await;
    assert!(world.open_for(anna).await.is_none());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_uses_now_is_not_ended_as_idle() {
    let world = World::new();
    world.follow(&settings(ANY_SENDER)).await;
    for login in ["anna@contoso.com", "bert@contoso.com"] {
        world.open_for(login).await.unwrap();
    }
    let slot = world.open_for("anna@contoso.com").await.unwrap().slot().await;
    // As when all places are taken: who has nothing to do gives way at once.
    world.lanes.sweep_crowded().await;
    let left: Vec<_> = world.lanes.views().iter().map(|view| view.lane.login().to_owned()).collect();
    assert!(left.contains(&"anna@contoso.com".to_owned()), "{left:?}");
    assert!(!world.lanes.is_wanted(&id("bert@contoso.com")));
    assert!(world.lanes.is_wanted(&id("anna@contoso.com")));
    drop(slot);
    world.end().await;
}

impl Lanes {
    fn is_wanted(&self, id: &LaneId) -> bool {
        self.state().places.get(id).is_some_and(Place::is_wanted)
    }
}
