//! The ledger on a real directory: restarts, other processes, and files and disks that fail it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Barrier};
use std::thread;

use clock::{ManualClock, WallTime};
use proptest::prelude::*;

use super::*;

fn clock() -> ManualClock {
    ManualClock::at(WallTime::from_unix_millis(1_800_000_000_000))
}

fn wait(ledger: &Ledger, clock: &ManualClock) -> Duration {
    ledger.wait(Now::of(clock))
}

#[test]
fn the_name_is_that_of_the_budget() {
    let name = Ledger::file_name("Contoso.COM", "ABC", "https://x/.default", None);
    assert_eq!(name.strip_prefix("token-requests-").map(str::len), Some(32));
    assert_eq!(name, Ledger::file_name("contoso.com", "abc", "https://x/.default", None));
    let others = [
        name,
        Ledger::file_name("contoso.com", "abc", "https://y/.default", None),
        Ledger::file_name("contoso.com", "abc", "https://x/.default", Some("a@contoso.com")),
        Ledger::file_name("contoso.com", "abc", "https://x/.default", Some("../b")),
    ];
    assert_eq!(others.iter().collect::<HashSet<_>>().len(), others.len());
    assert!(others.iter().all(|name| !name.contains('/')));
}

#[tokio::test]
async fn the_budget_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("contoso.ledger");
    let clock = clock();
    for _ in 0..REQUEST_LIMIT {
        let mut ledger = Ledger::open(&path, &clock);
        assert_eq!(wait(&ledger, &clock), Duration::ZERO);
        assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
        clock.advance(Duration::from_secs(10));
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::from_secs(251));
    clock.advance(Duration::from_secs(251));
    assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::ZERO);
}

#[tokio::test]
async fn the_budget_is_one_for_all_processes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = clock();
    let mut ledgers = [(); 3].map(|()| Ledger::open(&path, &clock));
    for turn in 0..REQUEST_LIMIT {
        assert_eq!(ledgers[turn % 3].take(Now::of(&clock)).await, Ok(()));
        clock.advance(Duration::from_secs(1));
    }
    for ledger in &mut ledgers {
        assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(296)));
    }
    // Neither direction frees what they know, nor locks it.
    for hours in [1, 48] {
        clock.set_wall(
            WallTime::from_unix_millis(1_800_000_000_000) - Duration::from_hours(24) + Duration::from_hours(hours),
        );
        assert_eq!(ledgers[0].take(Now::of(&clock)).await, Err(Duration::from_secs(296)));
    }
    clock.advance(Duration::from_secs(296));
    assert_eq!(ledgers[1].take(Now::of(&clock)).await, Ok(()));
    assert_eq!(ledgers[2].take(Now::of(&clock)).await, Err(Duration::from_secs(1)));
}

#[tokio::test]
async fn what_version_1_wrote_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let times = [0, 1, 2, 3, 4].map(|second| format!("{}\n", 1_799_999_990_000_i64 + second * 1000));
    fs::write(&path, format!("xoauth2-relay token requests 1\n{}", times.concat())).unwrap();
    let clock = clock();
    let mut ledger = Ledger::open(&path, &clock);
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(291)));
    clock.advance(Duration::from_secs(291));
    assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(1)));
}

const GARBAGE: [&[u8]; 6] = [
    b"\xff\xfe\x00",
    b"",
    b"xoauth2-relay token requests 3\n",
    b"xoauth2-relay token requests 2\n12 ff 1\n1",
    b"xoauth2-relay token requests 2\nx\n",
    &[b'1'; 9999],
];

#[test]
fn what_is_not_a_ledger_is_met_with_caution_once() {
    for garbage in GARBAGE {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        fs::write(&path, garbage).unwrap();
        let clock = clock();
        assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::from_secs(301), "{garbage:?}");
        clock.advance(Duration::from_secs(301));
        assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::ZERO, "{garbage:?}");
    }
}

#[tokio::test]
async fn what_becomes_garbage_is_met_with_caution_each_time_by_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = clock();
    let mut ledgers = [(); 2].map(|()| Ledger::open(&path, &clock));
    for garbage in GARBAGE {
        fs::write(&path, garbage).unwrap();
        for ledger in &mut ledgers {
            assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(301)), "{garbage:?}");
        }
        clock.advance(Duration::from_secs(301));
        for ledger in &mut ledgers {
            assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()), "{garbage:?}");
        }
    }
}

#[tokio::test]
async fn garbage_that_cannot_be_replaced_locks_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = clock();
    let mut ledger = Ledger::open(&path, &clock);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(301)));
    clock.advance(Duration::from_secs(301));
    for _ in 0..REQUEST_LIMIT {
        assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    }
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(301)));
}

#[test]
fn a_directory_that_takes_no_file_is_met_with_caution() {
    let clock = clock();
    let ledger = Ledger::open("/nonexistent/directory/ledger", &clock);
    assert_eq!(wait(&ledger, &clock), Duration::from_secs(301));
}

#[tokio::test]
async fn a_clock_set_back_costs_one_period_even_with_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = clock();
    let mut ledger = Ledger::open(&path, &clock);
    for _ in 0..REQUEST_LIMIT {
        assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    }
    clock.set_wall(clock.wall() - Duration::from_hours(24));
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(wait(&Ledger::open(&path, &clock), &clock).as_secs());
        clock.advance(Duration::from_secs(100));
    }
    assert_eq!(waits, [301, 201, 101, 1]);
}

#[tokio::test]
async fn a_lost_directory_does_not_stop_counting() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let mut ledger = Ledger::open(directory.path().join("ledger"), &clock);
    drop(directory);
    for _ in 0..REQUEST_LIMIT {
        assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    }
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(Duration::from_secs(301)));
}

#[tokio::test]
async fn a_process_that_never_lets_go_holds_the_others_for_one_period() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = clock();
    let mut ledger = Ledger::open(&path, &clock);
    let held = state_file::lock(&path).ok().unwrap();
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(HELD_WAIT));
    clock.advance(COUNTED);
    assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    drop(held);
    // What was counted in memory counts on, and is told as soon as it can be.
    for _ in 1..REQUEST_LIMIT {
        assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    }
    assert_eq!(ledger.take(Now::of(&clock)).await, Err(COUNTED));
    assert_eq!(wait(&Ledger::open(&path, &clock), &clock), COUNTED);
}

#[tokio::test]
async fn an_abandoned_request_stays_counted_and_its_number_is_not_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = clock();
    let mut ledger = Ledger::open(&path, &clock);
    let mut other = Ledger::open(&path, &clock);
    let mut abandoned = ledger.book().clone();
    drop(tokio::time::timeout(Duration::ZERO, ledger.take(Now::of(&clock))).await);
    // The thread may have come to it yet or not; this is what it does, and twice is once.
    assert_eq!(abandoned.take(Now::of(&clock), REQUEST_LIMIT), Ok(()));
    assert_eq!(other.take(Now::of(&clock)).await, Ok(()));
    for _ in 2..REQUEST_LIMIT {
        assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
    }
    for ledger in &mut [ledger, other] {
        // Not to the millisecond: the thread may hold the lock meanwhile.
        assert!(ledger.take(Now::of(&clock)).await.is_err());
    }
}

#[test]
fn processes_that_race_share_five() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clock = Arc::new(clock());
    let start = Arc::new(Barrier::new(4));
    let racers: Vec<_> = (0..4)
        .map(|_| {
            let (path, clock, start) = (path.clone(), Arc::clone(&clock), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let mut ledger = Ledger::open(&path, &*clock);
                (0..REQUEST_LIMIT).filter(|_| ledger.book().take(Now::of(&*clock), REQUEST_LIMIT).is_ok()).count()
            })
        })
        .collect();
    let taken: usize = racers.into_iter().map(|racer| racer.join().unwrap()).sum();
    assert_eq!(taken, REQUEST_LIMIT);
}

/// One thing that happens to processes on one machine.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    SetClock(i64),
    Restart(usize),
    Ask(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..90_000u64).prop_map(Step::Pass),
        // So that steps to and fro do not cancel: that, between two looks, nobody could see.
        1 => (0..12i64).prop_map(|minutes| Step::SetClock(minutes * 60_000 + 600)),
        1 => (1..12i64).prop_map(|minutes| Step::SetClock(minutes * -60_000)),
        2 => (0..3usize).prop_map(Step::Restart),
        6 => (0..3usize).prop_map(Step::Ask),
    ];
    prop::collection::vec(step, 15..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// The law of `window`, with real files: no five minutes of true time hold more than five requests. As there, nobody
    /// starts less than a period after the clock was set forward.
    #[test]
    fn no_five_minutes_hold_more_than_five(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let clock = clock();
        let mut ledgers = [(); 3].map(|()| Ledger::open(&path, &clock));
        let (mut set_forward, mut made) = (None, Vec::new());
        for step in steps {
            let now = Now::of(&clock);
            match step {
                Step::Pass(millis) => clock.advance(Duration::from_millis(millis)),
                Step::SetClock(by) => {
                    clock.set_wall(WallTime::from_unix_millis(now.wall.unix_millis() + by));
                    if by > 0 {
                        set_forward = Some(now.monotonic);
                    }
                }
                Step::Restart(place) => {
                    if set_forward.is_none_or(|set| now.monotonic.saturating_since(set) > COUNTED) {
                        ledgers[place] = Ledger::open(&path, &clock);
                    }
                }
                Step::Ask(place) => {
                    let wait = ledgers[place].book().take(now, REQUEST_LIMIT);
                    prop_assert!(wait.is_ok() || wait.is_err_and(|wait| wait <= COUNTED));
                    if wait.is_ok() {
                        made.push(now.monotonic);
                    }
                }
            }
        }
        for six in made.windows(REQUEST_LIMIT + 1) {
            prop_assert!(six[REQUEST_LIMIT].saturating_since(six[0]) > crate::REQUEST_PERIOD, "{:?}", six);
        }
    }
}
