//! Damage stops one delivery, never the queue (action x place).

use spool::{BodySource, Spool, StoreError};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_decode_is_set_aside() {
    for (place, sql) in [
        ("recipients", "UPDATE delivery SET recipients = 'no path' WHERE message = ?1"),
        ("no recipients", "UPDATE delivery SET recipients = '' WHERE message = ?1"),
        ("reverse-path", "UPDATE message SET reverse_path = 'no path' WHERE id = ?1"),
        ("body type", "UPDATE message SET body_type = 9 WHERE id = ?1"),
        ("body", "UPDATE message SET body = x'00' WHERE id = ?1"),
        ("body length", "UPDATE message SET body_len = -1 WHERE id = ?1"),
        ("attempts", "UPDATE delivery SET attempts = -1 WHERE message = ?1"),
        ("message", "DELETE FROM message WHERE id = ?1"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        let damaged = put(&spool, b"first").await;
        let sound = put(&spool, b"second").await;
        database(directory.path()).execute(sql, [damaged.to_i64()]).unwrap();
        let next = claim(&spool).await.unwrap();
        assert_eq!(next.message, sound, "{place}");
        let settlement = accepted(&next);
        spool.settle(next, settlement).await.unwrap();
        assert!(claim(&spool).await.is_none(), "{place}");
        let counts = spool.counts().await.unwrap();
        assert_eq!((counts.queued, counts.quarantined), (0, 1), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_file_that_is_not_what_was_stored_is_damage() {
    for damage in ["missing", "shorter", "longer"] {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        put(&spool, &pattern(100_000)).await;
        let path = body_files(directory.path()).remove(0);
        let mut claim = claim(&spool).await.unwrap();
        assert_eq!(claim.body.total(), 100_000);
        match damage {
            "missing" => std::fs::remove_file(&path).unwrap(),
            "shorter" => std::fs::write(&path, pattern(99_999)).unwrap(),
            _ => std::fs::write(&path, pattern(100_001)).unwrap(),
        }
        assert!(matches!(claim.body.next().await, Err(StoreError::Damaged(_))), "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stored_shows_in_debug_output() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let receiving = sink(&spool, b"SECRET").await;
    put(&spool, b"SECRET").await;
    let claim = claim(&spool).await.unwrap();
    let shown = format!("{receiving:?} {claim:?} {:?} {spool:?}", claim.body);
    let decimal = format!("{:?}", b"SECRET");
    assert!(!shown.contains("SECRET") && !shown.contains(decimal.trim_matches(['[', ']'])), "{shown}");
}

/// A message to so many recipients that their list goes on in pages of its own.
async fn put_long(spool: &spool::SqliteSpool) {
    let people: Vec<String> = (0..2_000).map(|number| format!("recipient{number}@a-long-domain.example")).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    let sink = sink(spool, b"to many").await;
    spool.commit(sink, message(&people)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_place_in_the_queue_stops_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put_long(&spool).await;
    spool.close().await;
    // A page of its recipients points to one that does not exist.
    let file = directory.path().join("queue.db");
    let mut octets = std::fs::read(&file).unwrap();
    let within = octets.windows(13).position(|window| window == b"recipient500@").expect("they stand in the file");
    let page = within / 4096 * 4096;
    octets[page..page + 4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    std::fs::write(&file, octets).unwrap();
    let (spool, _) = open(directory.path());
    let sound = put(&spool, b"sound").await;
    let next = claim(&spool).await.unwrap();
    assert_eq!(next.message, sound);
    let settlement = accepted(&next);
    spool.settle(next, settlement).await.unwrap();
    put(&spool, b"and later").await;
    assert!(claim(&spool).await.is_some(), "mail is taken and given as before");
}
