//! Limits as tables and properties: nobody has more than his limit in any minute, and nobody less.

use proptest::prelude::*;

use super::*;

fn at(seconds: f64) -> Monotonic {
    Monotonic::from_start(Duration::from_secs_f64(seconds))
}

fn client(last: u32) -> Counted {
    Counted::Client("local".into(), IpAddr::from(last.to_be_bytes()))
}

fn limit(counted: Counted, most: u64) -> Vec<Limit> {
    vec![Limit { counted, most }]
}

/// How long the message has to wait, in seconds, if it must.
fn count(paces: &Paces, limits: &[Limit], seconds: f64) -> Option<f64> {
    paces.count(limits, at(seconds)).err().map(|over| over.wait.as_secs_f64())
}

fn remembered(paces: &Paces) -> usize {
    paces.0.lock().unwrap().paces.len()
}

#[test]
fn a_minute_slides() {
    let paces = Paces::default();
    let three = limit(client(1), 3);
    for (seconds, wait) in [
        (0.0, None),
        (10.0, None),
        (20.0, None),
        (20.0, Some(40.0)),
        // What was refused does not count.
        (59.5, Some(0.5)),
        (60.0, None),
        (60.0, Some(10.0)),
        (70.0, None),
        (79.0, Some(1.0)),
        (1000.0, None),
        (1000.0, None),
        (1000.0, None),
        (1001.0, Some(59.0)),
    ] {
        assert_eq!(count(&paces, &three, seconds), wait, "at {seconds} s");
    }
}

#[test]
fn clients_users_and_listeners_are_counted_apart() {
    let paces = Paces::default();
    let local: Arc<str> = "local".into();
    let all = [
        client(1),
        client(2),
        Counted::Client("lan".into(), IpAddr::from([0, 0, 0, 1])),
        Counted::User("local".into()),
        Counted::User("lan".into()),
        Counted::Listener(local),
    ];
    for counted in &all {
        assert_eq!(count(&paces, &limit(counted.clone(), 1), 0.0), None, "{counted:?}");
    }
    for counted in &all {
        assert_eq!(count(&paces, &limit(counted.clone(), 1), 1.0), Some(59.0), "{counted:?}");
    }
}

#[test]
fn a_message_counts_for_all_its_limits_or_for_none() {
    let paces = Paces::default();
    let both = [limit(client(1), 3), limit(Counted::User("erp".into()), 2)].concat();
    assert_eq!(count(&paces, &limit(client(1), 3), 0.0), None);
    assert_eq!(count(&paces, &both, 10.0), None);
    assert_eq!(count(&paces, &both, 20.0), None);
    // Both are used up: the one that lasts longer is told.
    let over = paces.count(&both, at(30.0)).unwrap_err();
    assert_eq!((&over.limit.counted, over.wait), (&both[1].counted, Duration::from_secs(40)));
    // The client has room again, its user has none: nothing is counted for the client.
    assert_eq!(count(&paces, &both, 65.0), Some(5.0));
    assert_eq!(count(&paces, &limit(client(1), 3), 65.0), None);
    assert_eq!(count(&paces, &limit(client(1), 3), 65.0), Some(5.0));
}

#[test]
fn a_limit_that_changes_holds_at_once() {
    let paces = Paces::default();
    for seconds in 0..10 {
        assert_eq!(count(&paces, &limit(client(1), 10), f64::from(seconds)), None);
    }
    // Eight of the ten have to go before there is room for one more.
    assert_eq!(count(&paces, &limit(client(1), 3), 10.0), Some(57.0));
    assert_eq!(count(&paces, &limit(client(1), 11), 10.0), None);
    assert_eq!(count(&paces, &limit(client(1), 11), 10.0), Some(50.0));
    // From one way of counting to the other and back.
    for (most, seconds) in [(1_000_000, 10.05), (13, 10.07), (1_000_000, 10.08), (15, 10.09)] {
        assert_eq!(count(&paces, &limit(client(1), most), seconds), None, "{most}");
    }
    assert_eq!(count(&paces, &limit(client(1), 15), 10.09), Some(49.91));
}

#[test]
fn a_user_is_counted_where_he_has_proved_to_be_one() {
    let local: Arc<str> = "local".into();
    let limits =
        MessageLimits { per_client: Some(1), of_listener: Some(9), users: HashMap::from([("erp".to_owned(), 5)]) };
    let address = "192.0.2.1".parse().unwrap();
    let user = |name: &str| Arc::<str>::from(name);
    let of =
        |user: Option<Arc<str>>| limits.of(&local, address, user.as_ref()).iter().map(|limit| limit.most).collect();
    let counts: [Vec<u64>; 3] = [of(None), of(Some(user("erp"))), of(Some(user("other")))];
    assert_eq!(counts, [vec![1, 9], vec![1, 5, 9], vec![1, 9]]);
    // The same client by either family of addresses.
    assert_eq!(limits.of(&local, "::ffff:192.0.2.1".parse().unwrap(), None), limits.of(&local, address, None));
    assert_eq!(MessageLimits::default().of(&local, address, Some(&user("erp"))), []);
}

#[test]
fn nothing_is_remembered_without_a_limit() {
    let paces = Paces::default();
    assert_eq!(count(&paces, &[], 0.0), None);
    assert_eq!(remembered(&paces), 0);
}

#[test]
fn whoever_comes_memory_is_bounded_and_nobody_at_his_limit_is_forgotten() {
    let paces = Paces::default();
    let at_limit: Vec<_> = (0..1000).map(|last| limit(client(last), 1)).collect();
    let quiet: Vec<_> = (0..1000).map(|last| limit(client(1_000_000 + last), 2)).collect();
    for limits in at_limit.iter().chain(&quiet) {
        assert_eq!(count(&paces, limits, 0.0), None);
    }
    for last in 0..20_000_u32 {
        assert_eq!(count(&paces, &limit(client(2_000_000 + last), 2), 1.0 + f64::from(last) / 1000.0), None);
        assert!(remembered(&paces) <= MAX_REMEMBERED);
    }
    for limits in &at_limit {
        assert_eq!(count(&paces, limits, 30.0), Some(30.0));
    }
    // The oldest of the quiet ones began anew, the youngest did not.
    for (last, expected) in [(1_000_000, [None, None]), (2_019_999, [None, Some(50.999)])] {
        let limits = limit(client(last), 2);
        assert_eq!([30.0, 30.0].map(|seconds| count(&paces, &limits, seconds)), expected, "{last}");
    }
}

#[test]
fn where_everybody_is_at_his_limit_newcomers_share_one() {
    let paces = Paces::default();
    let whole = u32::try_from(MAX_REMEMBERED).unwrap();
    for last in 0..whole {
        assert_eq!(count(&paces, &limit(client(last), 1), 0.0), None);
    }
    assert_eq!(count(&paces, &limit(client(whole), 2), 1.0), None);
    assert_eq!(count(&paces, &limit(client(whole + 1), 2), 2.0), None);
    assert_eq!(count(&paces, &limit(client(whole + 2), 2), 3.0), Some(58.0));
    assert_eq!(remembered(&paces), MAX_REMEMBERED);
    // A minute later there is place for everybody.
    assert_eq!(count(&paces, &limit(client(whole + 2), 2), 60.0), None);
    assert_eq!(remembered(&paces), 1);
}

#[test]
fn what_is_remembered_of_one_is_bounded() {
    for (most, moments) in [(600, 600), (601, 121), (1_000_000, 600)] {
        let paces = Paces::default();
        let limits = limit(client(1), most);
        for message in 0..6000 {
            let _ = paces.count(&limits, at(f64::from(message) / 50.0));
        }
        let table = paces.0.lock().unwrap();
        assert_eq!(table.paces[&limits[0].counted].moments.len(), moments, "{most}");
    }
}

/// A limit, and the pauses before each message in milliseconds: bursts, steady ones and long silences.
fn arrivals() -> impl Strategy<Value = (u64, Vec<u64>)> {
    let pause = prop_oneof![4 => Just(0_u64), 4 => 0..50_u64, 2 => 0..3000_u64, 1 => 0..90_000_u64];
    let limit = prop_oneof![1..20_u64, Just(599_u64), 600..700_u64];
    (limit, prop::collection::vec(pause, 1..1500))
}

proptest! {
    #[test]
    fn in_no_minute_is_more_than_the_limit_and_who_waits_as_told_is_taken((most, pauses) in arrivals()) {
        let paces = Paces::default();
        let limits = limit(client(1), most);
        let mut now = Monotonic::from_start(Duration::from_millis(123_457));
        let mut taken: Vec<Monotonic> = Vec::new();
        // Whole ticks where many are counted.
        let minute = if most <= MAX_MOMENTS { MINUTE } else { MINUTE.saturating_sub(TICK) };
        let most = usize::try_from(most).unwrap();
        for pause in pauses {
            now = now + Duration::from_millis(pause);
            if let Err(over) = paces.count(&limits, now) {
                prop_assert!(over.wait > Duration::ZERO && over.wait <= MINUTE, "{:?}", over.wait);
                let in_minute = taken.iter().filter(|at| now.saturating_since(**at) < MINUTE + TICK).count();
                prop_assert!(in_minute >= most, "refused after {in_minute}");
                // Not a moment earlier, and not later.
                prop_assert!(paces.count(&limits, now + over.wait.saturating_sub(Duration::from_nanos(1))).is_err());
                now = now + over.wait;
                prop_assert_eq!(paces.count(&limits, now), Ok(()));
            }
            taken.push(now);
        }
        for (first, beyond) in taken.iter().zip(taken.iter().skip(most)) {
            prop_assert!(beyond.saturating_since(*first) >= minute, "{first:?} {beyond:?}");
        }
    }

    #[test]
    fn who_keeps_the_pace_of_the_limit_is_never_refused(
        most in prop_oneof![1..1000_u64, 1..1_000_000_u64],
        start in 0..100_000_000_000_u64,
    ) {
        let paces = Paces::default();
        let limits = limit(client(1), most);
        let pause = Duration::from_nanos(60_000_000_000_u64.div_ceil(most));
        let mut now = Monotonic::from_start(Duration::from_nanos(start));
        for message in 0..(3 * most).min(5000) {
            prop_assert_eq!(paces.count(&limits, now), Ok(()), "message {} at {:?}", message, now);
            now = now + pause;
        }
    }
}
