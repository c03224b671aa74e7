//! Crash recovery: a write-ahead log that was cut at any byte.

use std::{fs, path::Path};

use footbridge_store::{Store, StoreKey};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use crate::support::{Fixture, balances, data, key, payload, to_silo};

/// The header of the log, and of each frame in it (`SQLite` file format, section 4.1).
const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

/// Opens a store from these bytes: the number of its entries and deliveries. Checks that the database is intact.
async fn reopened(database: &[u8], log: &[u8], key: &StoreKey) -> (i64, u64) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(data(home.path())).unwrap();
    let path = data(home.path()).join("footbridge.db");
    fs::write(&path, database).unwrap();
    fs::write(data(home.path()).join("footbridge.db-wal"), log).unwrap();
    let store = Store::open(&data(home.path()), key).await.unwrap();
    let tallies = store.lane_counters().await.unwrap();
    assert!(tallies.iter().all(balances), "{tallies:?}");
    let delivered = tallies.iter().map(|counters| counters.delivered).sum();
    (check_integrity(&path), delivered)
}

fn check_integrity(path: &Path) -> i64 {
    let sql = rusqlite::Connection::open(path).unwrap();
    let verdict: String = sql
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    let (count, expected): (i64, i64) = sql
        .query_row(
            "SELECT count(*), count(*) FILTER (WHERE event_id = '$' || (id - 1)) FROM journal",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(count, expected, "the entries are the first ones, in order");
    count
}

#[tokio::test]
async fn a_log_cut_anywhere_opens_as_some_earlier_state() {
    let fixture = Fixture::with_one_portal().await;
    fixture.store.checkpoint().await.unwrap();
    let copied = fixture.data().join("footbridge.db");
    let database = fs::read(&copied).unwrap();
    for n in 0..12 {
        fixture
            .accept(vec![payload(&fixture.room, &format!("${n}"))])
            .await;
        if n % 3 == 2 {
            let head = fixture.ready(to_silo(&fixture.a)).await;
            fixture.store.save_plan(head.id, b"plan").await.unwrap();
        }
    }
    let log = fs::read(fixture.data().join("footbridge.db-wal")).unwrap();
    assert_eq!(
        fs::read(&copied).unwrap(),
        database,
        "all of it is in the log"
    );
    let key = key(fixture.home.path());
    assert_eq!(reopened(&database, &log, &key).await.0, 12);

    let mut cuts: Vec<usize> = (LOG_HEADER..=log.len()).step_by(FRAME).collect();
    assert!(cuts.len() > 12);
    let mut runner = TestRunner::deterministic();
    let anywhere = 0..log.len();
    for _ in 0..40 {
        cuts.push(anywhere.new_tree(&mut runner).unwrap().current());
    }
    cuts.sort_unstable();
    let mut before = 0;
    for cut in cuts {
        let (facts, _) = reopened(&database, &log[..cut], &key).await;
        assert!(facts >= before, "a longer log never has fewer entries");
        before = facts;
    }
    assert_eq!(before, 12);
}

#[tokio::test]
async fn a_log_with_a_flipped_byte_opens_as_some_earlier_state() {
    let fixture = Fixture::with_one_portal().await;
    fixture.store.checkpoint().await.unwrap();
    let database = fs::read(fixture.data().join("footbridge.db")).unwrap();
    for n in 0..6 {
        fixture
            .accept(vec![payload(&fixture.room, &format!("${n}"))])
            .await;
    }
    let log = fs::read(fixture.data().join("footbridge.db-wal")).unwrap();
    let key = key(fixture.home.path());
    let mut runner = TestRunner::deterministic();
    let anywhere = LOG_HEADER..log.len();
    for _ in 0..25 {
        let mut torn = log.clone();
        torn[anywhere.new_tree(&mut runner).unwrap().current()] ^= 0xff;
        let (facts, _) = reopened(&database, &torn, &key).await;
        assert!(facts < 6);
    }
}
