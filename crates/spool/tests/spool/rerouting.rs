//! Queued mail follows the routes, or an operator's word: what is selected, where it goes, and who is woken.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use clock::WallTime;
use mail::{LaneId, LaneSet, Mailbox, Outcome};
use spool::{
    Claim, DeliveryId, DeliveryState, ListFilter, Listed, NewDelivery, NewMessage, Next, Place, Placed, Progress,
    QueueId, Rerouting, Selected, Selection, Settlement, Spool, SqliteSource, SqliteSpool, StoreError,
};

use tokio::task::JoinSet;

use crate::harness::*;

const LATER: WallTime = WallTime::from_unix_millis(NOW.unix_millis() + 5_000);

fn other() -> LaneSet {
    LaneSet::from(&LaneId::new("tenant", "other@contoso.com"))
}

async fn put_for(spool: &SqliteSpool, recipients: &[&str]) -> QueueId {
    let sink = sink(spool, b"body").await;
    let id = spool::BodySink::id(&sink);
    spool.commit(sink, message(recipients)).await.unwrap();
    id
}

async fn selected(spool: &SqliteSpool, selection: Selection) -> Option<Claim<SqliteSource>> {
    spool.claim_selected(&selection, None).await.unwrap().claim
}

/// All of a selection, with how many looks it took.
async fn all(spool: &SqliteSpool, selection: Selection) -> (Vec<Claim<SqliteSource>>, u32, u32) {
    let (mut claims, mut after, mut looks, mut held) = (Vec::new(), None, 0, 0);
    loop {
        let Selected { claim, next, passed_over } = spool.claim_selected(&selection, after).await.unwrap();
        claims.extend(claim);
        looks += 1;
        held += passed_over;
        match next {
            Some(next) => after = Some(next),
            None => return (claims, looks, held),
        }
    }
}

fn to_other() -> Place {
    Place::Lanes { tenant: "fabrikam".to_owned(), route: "new".to_owned(), lanes: other() }
}

fn nowhere(reason: &str) -> Place {
    Place::Unrouted { reason: reason.to_owned() }
}

/// A place for each recipient, by position.
fn rerouting(places: Vec<Place>) -> Rerouting {
    let part = |(at, place)| Placed { recipients: vec![at], place };
    Rerouting { epoch: 8, parts: places.into_iter().enumerate().map(part).collect(), said: None, at: LATER }
}

async fn listed(spool: &SqliteSpool) -> Vec<Listed> {
    spool.list(&ListFilter::default(), None, 100).await.unwrap().deliveries
}

async fn only(spool: &SqliteSpool) -> Listed {
    let mut listed = listed(spool).await;
    assert_eq!(listed.len(), 1);
    listed.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_claimed_in_order_whatever_its_lanes_due_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut wanted = Vec::new();
    for at in 0..9_u64 {
        let lanes = if at % 2 == 0 { lanes() } else { other() };
        let deliveries = vec![NewDelivery { route_epoch: 7 + at % 3, ..delivery(&lanes, &["a@b.c"]) }];
        let accepted_at = NOW + Duration::from_secs(at * 1_000);
        let sink = sink(&spool, b"body").await;
        if at % 3 != 1 {
            wanted.push(spool::BodySink::id(&sink));
        }
        spool.commit(sink, NewMessage { accepted_at, deliveries, ..message(&[]) }).await.unwrap();
    }
    let (claims, _, held) = all(&spool, Selection::OtherEpoch(8)).await;
    assert_eq!(claims.iter().map(|claim| claim.message).collect::<Vec<_>>(), wanted);
    assert_eq!(held, 0);
    // Nobody else gets them, and who looks again is told.
    let (again, _, held) = all(&spool, Selection::OtherEpoch(8)).await;
    assert_eq!((again.len(), held), (0, 6));
    let far = NOW + Duration::from_hours(9);
    let (mut left, mut others) = (Vec::new(), 0);
    while let Some(claim) = spool.claim(&lanes(), far).await.unwrap() {
        assert_eq!(claim.route_epoch, 8);
        left.push(claim);
    }
    while let Some(claim) = spool.claim(&other(), far).await.unwrap() {
        assert_eq!(claim.route_epoch, 8);
        left.push(claim);
        others += 1;
    }
    assert_eq!((left.len(), others), (3, 2));
    drop(claims);
    assert_eq!(all(&spool, Selection::OtherEpoch(8)).await.0.len(), 6, "let go, they can be claimed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_claim_that_is_dropped_is_claimable_in_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    assert!(claim(&spool).await.is_some(), "the queue is known");
    let waker = spool.waker(&lanes());
    let held = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    assert!(claim(&spool).await.is_none());
    drop(held);
    tokio::time::timeout(Duration::from_secs(10), waker.notified()).await.unwrap();
    assert!(claim(&spool).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_at_acceptance_is_there_when_the_routes_are_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let asked = Some(Mailbox::parse(b"\"a b\"@contoso.com").unwrap());
    let deliveries = vec![NewDelivery { asked: asked.clone(), ..delivery(&lanes(), &["a@b.c", "d@e.f"]) }];
    let user = Some("erp".to_owned());
    let new = NewMessage { listener: "printers".to_owned(), user: user.clone(), deliveries, ..message(&[]) };
    spool.commit(sink(&spool, b"body").await, new).await.unwrap();
    let first = claim(&spool).await.unwrap();
    let is_told = |claim: &Claim<SqliteSource>| {
        assert_eq!((claim.listener.as_str(), &claim.user, &claim.asked), ("printers", &user, &asked));
    };
    is_told(&first);
    // Parted by a settlement, then by a rerouting.
    let parts = vec![
        part(&[0], Outcome::Deferred(said("later")), Next::Due(LATER)),
        part(&[1], Outcome::Deferred(said("now")), Next::Due(NOW)),
    ];
    spool.settle(first, settlement(parts)).await.unwrap();
    let (claims, ..) = all(&spool, Selection::OtherEpoch(8)).await;
    assert_eq!(claims.len(), 2);
    for claim in claims {
        is_told(&claim);
        spool.reroute(claim, rerouting(vec![to_other()])).await.unwrap();
    }
    for claim in [spool.claim(&other(), LATER).await.unwrap(), spool.claim(&other(), LATER).await.unwrap()] {
        is_told(&claim.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_go_three_ways_and_keep_what_they_have_behind_them() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let id = put_for(&spool, &["a@b.c", "d@e.f", "g@h.i", "j@k.l"]).await;
    let due = NOW + Duration::from_mins(1);
    let progress = Progress {
        attempts: 3,
        uncertain: 0,
        age: Duration::from_secs(7),
        denied: Duration::from_secs(8),
        delay_told: true,
    };
    let later = part(&[0, 1, 2, 3], Outcome::Deferred(said("450 busy")), Next::Due(due));
    let later = settlement(vec![spool::Part { progress, ..later }]);
    spool.settle(claim(&spool).await.unwrap(), later).await.unwrap();
    let before = only(&spool).await;
    let claim = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    let places = vec![to_other(), Place::Stays, nowhere("no route"), to_other()];
    spool.reroute(claim, rerouting(places)).await.unwrap();
    let mut left = listed(&spool).await;
    left.sort_by_key(|listed| listed.recipients.len());
    let names = |listed: &Listed| listed.recipients.iter().map(ToString::to_string).collect::<Vec<_>>();
    let wanted = [
        Listed { recipients: vec![path("d@e.f")], route_epoch: 8, ..before.clone() },
        Listed {
            delivery: left[1].delivery,
            recipients: vec![path("g@h.i")],
            route_epoch: 8,
            state: DeliveryState::Unrouted,
            due: LATER,
            diagnostic: Some("no route".to_owned()),
            ..before.clone()
        },
        Listed {
            delivery: left[2].delivery,
            recipients: vec![path("a@b.c"), path("j@k.l")],
            route_epoch: 8,
            tenant: "fabrikam".to_owned(),
            route: "new".to_owned(),
            lanes: other(),
            ..before.clone()
        },
    ];
    assert_eq!(left, wanted, "{:?}", left.iter().map(names).collect::<Vec<_>>());
    let counts = spool.counts().await.unwrap();
    assert_eq!((counts.messages, counts.queued, counts.held), (1, 2, 1));
    // Each can be sent, and the message goes with the last of them.
    for lanes in [lanes(), other()] {
        assert!(spool.claim(&lanes, NOW).await.unwrap().is_none(), "not due");
        let claim = spool.claim(&lanes, due).await.unwrap().unwrap();
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    let last = selected(&spool, Selection::Message(id)).await.unwrap();
    let discarded = Settlement { lane: lane(), ..accepted(&last) };
    spool.settle(last, discarded).await.unwrap();
    assert_eq!(spool.counts().await.unwrap(), spool::Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrouted_delivery_waits_until_a_route_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    let claim = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    spool.reroute(claim, rerouting(vec![nowhere("no route for erp@contoso.com")])).await.unwrap();
    let is_lying = async |spool: &SqliteSpool, epoch| {
        let found = only(spool).await;
        assert_eq!((found.state, found.route_epoch), (DeliveryState::Unrouted, epoch));
        assert_eq!(found.diagnostic.as_deref(), Some("no route for erp@contoso.com"));
        assert!(spool.claim(&lanes(), LATER).await.unwrap().is_none());
        assert_eq!((spool.counts().await.unwrap().held, spool.next_due(&lanes()).await.unwrap()), (1, None));
        assert!(selected(spool, Selection::OtherEpoch(epoch)).await.is_none());
        let filter = ListFilter { lanes: None, state: Some(DeliveryState::Unrouted) };
        assert_eq!(spool.list(&filter, None, 9).await.unwrap().deliveries.len(), 1);
    };
    is_lying(&spool, 8).await;
    let again = selected(&spool, Selection::Unrouted).await.unwrap();
    spool.reroute(again, Rerouting { epoch: 9, ..rerouting(vec![Place::Stays]) }).await.unwrap();
    is_lying(&spool, 9).await;
    spool.close().await;
    let (spool, recovered) = open(directory.path());
    assert_eq!(recovered.counts.held, 1);
    is_lying(&spool, 9).await;
    let claim = selected(&spool, Selection::OtherEpoch(10)).await.unwrap();
    let at_once = LATER + Duration::from_secs(1);
    spool.reroute(claim, Rerouting { at: at_once, ..rerouting(vec![to_other()]) }).await.unwrap();
    assert!(spool.claim(&other(), LATER).await.unwrap().is_none(), "due when a route took it");
    assert!(spool.claim(&other(), at_once).await.unwrap().is_some());
    let found = only(&spool).await;
    assert_eq!((found.state, found.diagnostic, found.due), (DeliveryState::Queued, None, at_once));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_delivery_is_selected_by_its_message_alone_and_a_damaged_one_never() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let id = put_for(&spool, &["a@b.c", "d@e.f"]).await;
    let parts = vec![
        part(&[0], Outcome::Paced(said("hold")), Next::Held),
        part(&[1], Outcome::Paced(said("damaged")), Next::Quarantined),
    ];
    spool.settle(claim(&spool).await.unwrap(), settlement(parts)).await.unwrap();
    for selection in [Selection::OtherEpoch(8), Selection::Unrouted, Selection::Message(QueueId::new(9, 9))] {
        assert!(selected(&spool, selection).await.is_none(), "{selection:?}");
    }
    let (mut claims, ..) = all(&spool, Selection::Message(id)).await;
    assert_eq!(claims.len(), 1);
    assert!(all(&spool, Selection::Message(id)).await.0.is_empty(), "it has one holder");
    drop(claims.remove(0));
    assert!(claim(&spool).await.is_none(), "still held");
    let held = selected(&spool, Selection::Message(id)).await.unwrap();
    let said = Some("by hand".to_owned());
    spool.reroute(held, Rerouting { said, ..rerouting(vec![to_other()]) }).await.unwrap();
    let counts = spool.counts().await.unwrap();
    assert_eq!((counts.queued, counts.held, counts.quarantined), (1, 0, 1));
    let claim = spool.claim(&other(), LATER).await.unwrap().unwrap();
    assert_eq!(claim.recipients, [path("a@b.c")]);
    let told = "SELECT recipient || ' ' || lane || ' ' || tenant || ' ' || reply || ' ' || sender || ' ' || client
         FROM history WHERE event = 'rerouted'";
    let told: String = database(directory.path()).query_row(told, [], |row| row.get(0)).unwrap();
    assert_eq!(told, "a@b.c tenant/other@contoso.com fabrikam by hand erp@contoso.com 192.0.2.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_new_lanes_is_woken_and_the_old_ones_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for _ in 0..3 {
        put(&spool, b"body").await;
    }
    // Both queues know what they have.
    drop(claim(&spool).await.unwrap());
    assert!(spool.claim(&other(), NOW).await.unwrap().is_none());
    let waker = spool.waker(&other());
    let moved = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    let id = moved.delivery;
    spool.reroute(moved, rerouting(vec![to_other()])).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waker.notified()).await.unwrap();
    assert_eq!(spool.claim(&other(), NOW).await.unwrap().unwrap().delivery, id);
    let (mut left, mut claims): (Vec<DeliveryId>, Vec<_>) = Default::default();
    while let Some(claim) = claim(&spool).await {
        left.push(claim.delivery);
        claims.push(claim);
    }
    assert_eq!(left.len(), 2);
    assert!(!left.contains(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_sends_by_no_other_lane_what_upstream_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let id = put(&spool, b"body").await;
    // A transfer that was cut in this boot: nothing in the row counts it yet.
    let cut = claim(&spool).await.unwrap();
    spool.mark_in_flight(&cut.guard, &lane());
    drop(cut);
    spool.prune_history(NOW).await.unwrap();
    let refused = |result| assert!(matches!(result, Err(StoreError::Failed(why)) if why.contains("upstream")));
    let claim = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    assert_eq!(claim.progress.uncertain, 1);
    refused(spool.reroute(claim, rerouting(vec![to_other()])).await);
    // It stays, and stays cut; and its own lane may have it under another route.
    let claim = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    spool.reroute(claim, rerouting(vec![Place::Stays])).await.unwrap();
    let claim = selected(&spool, Selection::OtherEpoch(9)).await.unwrap();
    assert_eq!((claim.progress.uncertain, claim.route_epoch), (1, 8));
    let own = Place::Lanes { tenant: "contoso".to_owned(), route: "new".to_owned(), lanes: lanes() };
    spool.reroute(claim, rerouting(vec![own])).await.unwrap();
    let found = only(&spool).await;
    assert_eq!((found.progress.uncertain, found.route.as_str()), (1, "new"), "now the row says so");
    assert_eq!(spool.counts().await.unwrap().uncertain, 1);
    let claim = selected(&spool, Selection::Message(id)).await.unwrap();
    assert_eq!(claim.progress.uncertain, 1, "counted once");
    refused(spool.reroute(claim, rerouting(vec![to_other()])).await);
    let claim = selected(&spool, Selection::Message(id)).await.unwrap();
    let said = Some("by hand".to_owned());
    spool.reroute(claim, Rerouting { said, ..rerouting(vec![to_other()]) }).await.unwrap();
    assert_eq!(spool.claim(&other(), NOW).await.unwrap().unwrap().progress.uncertain, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerouting_that_is_not_whole_or_comes_in_flight_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put_for(&spool, &["a@b.c", "d@e.f"]).await;
    let before = only(&spool).await;
    for places in [vec![], vec![to_other()], vec![to_other(), to_other(), to_other()]] {
        let claim = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
        assert!(matches!(spool.reroute(claim, rerouting(places)).await, Err(StoreError::Failed(_))));
        assert_eq!(only(&spool).await, before);
    }
    let flying = claim(&spool).await.unwrap();
    spool.mark_in_flight(&flying.guard, &lane());
    assert!(selected(&spool, Selection::OtherEpoch(8)).await.is_none(), "its worker has it");
    let result = spool.reroute(flying, rerouting(vec![to_other(), to_other()])).await;
    assert!(matches!(result, Err(StoreError::Failed(why)) if why.contains("flight")));
    assert_eq!(claim(&spool).await.unwrap().progress.uncertain, 1, "upstream may have it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_looks_at_no_more_rows_than_a_short_read_may() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    database(directory.path())
        .execute_batch(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 25000)
             INSERT INTO delivery SELECT id + n, message, tenant, lane, CASE n WHEN 25000 THEN 1 ELSE 7 END, state, due,
                 attempts, uncertain, in_flight, version, diagnostic, recipients, route, client, origin, age, denied,
                 delay_told, user, asked
             FROM delivery, number WHERE id = (SELECT min(id) FROM delivery)",
        )
        .unwrap();
    let (claims, looks, _) = all(&spool, Selection::OtherEpoch(7)).await;
    assert_eq!((claims.len(), looks), (1, 4), "three looks to meet it, and one behind it");
    assert_eq!(claims[0].route_epoch, 1);
    let Selected { claim, next, .. } = spool.claim_selected(&Selection::Unrouted, None).await.unwrap();
    assert!(claim.is_none() && next.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_delivery_that_does_not_read_is_set_aside_and_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let (first, second) = (put(&spool, b"body").await, put(&spool, b"body").await);
    let damage = "UPDATE delivery SET asked = 'nobody', state = ?2 WHERE message = ?1";
    database(directory.path()).execute(damage, [first.to_i64(), 4]).unwrap();
    database(directory.path()).execute("UPDATE meta SET queued = queued - 1, held = held + 1", []).unwrap();
    spool.close().await;
    let (spool, _) = open(directory.path());
    let (claims, ..) = all(&spool, Selection::OtherEpoch(8)).await;
    assert_eq!(claims.iter().map(|claim| claim.message).collect::<Vec<_>>(), [second]);
    spool.prune_history(NOW).await.unwrap();
    let counts = spool.counts().await.unwrap();
    assert_eq!((counts.queued, counts.held, counts.quarantined), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_limits_hold_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    spool.set_limits(1, 1 << 34, 0);
    assert!(matches!(spool.receive(), Err(StoreError::Full(_))));
    assert!(claim(&spool).await.is_some(), "what is queued drains");
    spool.set_limits(2, 1 << 34, 0);
    assert!(spool.receive().is_ok());
}

/// Sends all that these lanes get, until nothing is queued.
async fn work(spool: &SqliteSpool, lanes: &LaneSet) -> Vec<QueueId> {
    let mut sent = Vec::new();
    while spool.counts().await.unwrap().messages > 0 {
        let Some(claim) = spool.claim(lanes, LATER).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        let by = claim.lanes.lanes().next().unwrap();
        spool.mark_in_flight(&claim.guard, &by);
        sent.push(claim.message);
        let settlement = Settlement { lane: by, ..accepted(&claim) };
        spool.settle(claim, settlement).await.unwrap();
    }
    sent
}

/// Moves all that was not moved yet, round after round.
async fn follow(spool: &SqliteSpool) -> u32 {
    let mut moved = 0;
    while spool.counts().await.unwrap().messages > 0 {
        let mut after = None;
        loop {
            let selected = spool.claim_selected(&Selection::OtherEpoch(8), after).await.unwrap();
            if let Some(claim) = selected.claim {
                let place = if moved % 3 == 0 { Place::Stays } else { to_other() };
                spool.reroute(claim, rerouting(vec![place])).await.unwrap();
                moved += 1;
            }
            match selected.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    moved
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rerouted_while_lanes_work_is_sent_once() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let spool = Arc::new(spool);
    let mut puts = JoinSet::new();
    for _ in 0..400 {
        let spool = Arc::clone(&spool);
        puts.spawn(async move { put(&spool, b"body").await });
    }
    let put: HashSet<_> = puts.join_all().await.into_iter().collect();
    let mut workers = JoinSet::new();
    for lanes in [lanes(), other(), other()] {
        let spool = Arc::clone(&spool);
        workers.spawn(async move { work(&spool, &lanes).await });
    }
    let moved = tokio::time::timeout(Duration::from_mins(1), follow(&spool)).await.unwrap();
    assert!(moved > 1, "{moved}");
    let sent: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(sent.len(), 400);
    assert_eq!(sent.into_iter().collect::<HashSet<_>>(), put);
    assert_eq!(spool.counts().await.unwrap(), spool::Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rerouted_is_found_so_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put_for(&spool, &["a@b.c", "d@e.f"]).await;
    let claim = selected(&spool, Selection::OtherEpoch(8)).await.unwrap();
    spool.reroute(claim, rerouting(vec![to_other(), nowhere("none")])).await.unwrap();
    let before = listed(&spool).await;
    let crashed = copy_of(directory.path());
    let (spool, recovered) = open(crashed.path());
    assert_eq!((recovered.uncertain, recovered.counts.queued, recovered.counts.held), (0, 1, 1));
    assert_eq!(listed(&spool).await, before);
    assert_eq!(spool.claim(&other(), NOW).await.unwrap().unwrap().recipients, [path("a@b.c")]);
}
