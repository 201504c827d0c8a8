//! The queue can be looked at a page at a time, whatever its length.

use std::time::Duration;

use mail::{LaneId, LaneSet, Mailbox, Outcome};
use spool::{
    BodySink, DeliveryState, ListFilter, Listed, NewDelivery, NewMessage, Next, Origin, Part, Progress, Spool,
    SqliteSpool,
};

use crate::harness::*;

async fn all(spool: &SqliteSpool, filter: &ListFilter, limit: u32) -> Vec<Listed> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = spool.list(filter, after, limit).await.unwrap();
        assert!(page.deliveries.len() <= limit as usize);
        found.extend(page.deliveries);
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_listed_with_all_that_is_known_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sink = sink(&spool, &pattern(100_000)).await;
    let id = sink.id();
    let asked = Some(Mailbox::parse(b"asked@b.c").unwrap());
    let deliveries = vec![NewDelivery { asked: asked.clone(), ..delivery(&lanes(), &["a@b.c", "d@e.f"]) }];
    let user = Some("erp".to_owned());
    let report = NewMessage { origin: Origin::Report, user: user.clone(), deliveries, ..message(&[]) };
    spool.commit(sink, report).await.unwrap();
    let claim = claim(&spool).await.unwrap();
    let due = NOW + Duration::from_mins(5);
    let progress = Progress {
        attempts: 2,
        uncertain: 0,
        age: Duration::from_millis(1_234),
        denied: Duration::from_secs(9),
        delay_told: true,
    };
    let later = Part { progress, ..part(&[0, 1], Outcome::Deferred(said("450 busy")), Next::Due(due)) };
    let delivery = claim.delivery;
    spool.settle(claim, settlement(vec![later])).await.unwrap();
    let listed = Listed {
        delivery,
        message: id,
        lanes: lanes(),
        tenant: "contoso".to_owned(),
        route: "invoices".to_owned(),
        route_epoch: 7,
        asked,
        state: DeliveryState::Queued,
        due,
        progress,
        diagnostic: Some("450 busy".to_owned()),
        recipients: vec![path("a@b.c"), path("d@e.f")],
        sender: "erp@contoso.com".to_owned(),
        size: 100_000 + message(&[]).header.len() as u64,
        listener: "main".to_owned(),
        client: "192.0.2.7".to_owned(),
        user,
        accepted_at: NOW,
        message_id: "<1@contoso.com>".to_owned(),
        origin: Origin::Report,
    };
    assert_eq!(all(&spool, &ListFilter::default(), 10).await, [listed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_the_last_one_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let other = LaneSet::new(&lane(), &[LaneId::new("tenant", "other@contoso.com")]);
    for at in 0..20 {
        let lanes = if at % 4 == 0 { &other } else { &lanes() };
        let message = NewMessage { deliveries: vec![delivery(lanes, &["a@b.c"])], ..message(&[]) };
        spool.commit(sink(&spool, b"body").await, message).await.unwrap();
    }
    let held = claim(&spool).await.unwrap();
    let parts = vec![part(&[0], Outcome::Paced(said("hold")), Next::Held)];
    spool.settle(held, settlement(parts)).await.unwrap();
    for (filter, wanted) in [
        (ListFilter::default(), 20),
        (ListFilter { lanes: Some(other), state: None }, 5),
        (ListFilter { lanes: Some(lanes()), state: Some(DeliveryState::Queued) }, 14),
        (ListFilter { lanes: None, state: Some(DeliveryState::Held) }, 1),
        (ListFilter { lanes: None, state: Some(DeliveryState::Quarantined) }, 0),
    ] {
        let found = all(&spool, &filter, 3).await;
        assert_eq!(found.len(), wanted, "{filter:?}");
        assert!(found.is_sorted_by_key(|listed| listed.delivery));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_no_more_rows_than_a_short_read_may() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    database(directory.path())
        .execute_batch(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 25000)
             INSERT INTO delivery SELECT id + n, message, tenant, lane, route_epoch, state, due, attempts, uncertain,
                 in_flight, version, diagnostic, recipients, route, client, origin, age, denied, delay_told, user, asked
             FROM delivery, number WHERE id = (SELECT min(id) FROM delivery)",
        )
        .unwrap();
    let held = ListFilter { lanes: None, state: Some(DeliveryState::Held) };
    let (mut pages, mut after) = (0, None);
    loop {
        let page = spool.list(&held, after, 10).await.unwrap();
        assert_eq!(page.deliveries, []);
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(spool.list(&ListFilter::default(), None, u32::MAX).await.unwrap().deliveries.len(), 1_000);
}
