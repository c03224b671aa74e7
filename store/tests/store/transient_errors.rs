//! D14, D15: a full disk and a locked file. A writer waits, and continues when the error has passed.

use std::time::Duration;

use footbridge_store::{Payload, TransientError};

use crate::support::{Fixture, balances, payload, to_silo, undecryptable_arrival};

/// Waits until the store reports this transient error, or none.
async fn until(fixture: &Fixture, transient_error: Option<TransientError>) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while fixture.store.transient_error() != transient_error {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the store reports it");
}

#[tokio::test]
async fn f22_the_bridge_waits_while_another_process_locks_the_file() {
    let fixture = Fixture::with_one_portal().await;
    let other = fixture.sql();
    // Longer than SQLite itself waits.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let accepting = async {
        for n in 0..5 {
            fixture
                .accept(vec![payload(&fixture.room, &format!("${n}"))])
                .await;
        }
    };
    let releasing = async {
        until(&fixture, Some(TransientError::Busy)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.execute_batch("ROLLBACK").unwrap();
        until(&fixture, None).await;
    };
    tokio::join!(accepting, releasing);
    // The same with short locks.
    for n in 0..20 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let arrivals = vec![payload(&fixture.room, &format!("$s{n}"))];
        let release = async {
            tokio::time::sleep(Duration::from_millis(n * 5)).await;
            other.execute_batch("COMMIT").unwrap();
        };
        tokio::join!(fixture.accept(arrivals), release);
    }
    let counters = fixture.counters(to_silo(&fixture.a)).await;
    assert!(
        balances(&counters) && counters.pending == 25,
        "{counters:?}"
    );
}

/// `SQLite` also reports a full disk when a table has no row id left: a test can cause that without a full disk.
fn fill(fixture: &Fixture, table: &str) -> i64 {
    let sql = fixture.sql();
    let before = sql.query_row(
        "SELECT seq FROM sqlite_sequence WHERE name = ?1",
        [table],
        |row| row.get(0),
    );
    let changed = sql.execute(
        "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = ?1",
        [table],
    );
    assert_eq!(changed.unwrap(), 1);
    before.unwrap()
}

fn free(fixture: &Fixture, table: &str, before: i64) {
    let put_back = "UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1";
    let changed = fixture.sql().execute(put_back, (table, before));
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn f21_a_full_disk_loses_nothing_and_the_work_resumes_by_itself() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![undecryptable_arrival(&fixture.room, "$0", 0)])
        .await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    // For the journal, nothing is done yet at that point; for the outbox, half of the transaction is.
    for (round, table) in ["journal", "outbox"].into_iter().enumerate() {
        let before = fill(&fixture, table);
        let arrivals = vec![payload(&fixture.room, &format!("${table}"))];
        let freeing = async {
            until(&fixture, Some(TransientError::DiskFull)).await;
            // Readers still work, and what needs no new row succeeds.
            let counters = fixture.counters(lane).await;
            assert!(
                balances(&counters) && counters.accepted == 1 + round as u64,
                "{counters:?}"
            );
            let raw = Payload::Ready(b"$0".to_vec());
            fixture
                .store
                .fill(entry, raw, footbridge_store::Millis(1))
                .await
                .unwrap();
            free(&fixture, table, before);
        };
        tokio::join!(fixture.accept(arrivals), freeing);
        assert_eq!(fixture.store.transient_error(), None);
    }
    let fixture = fixture.restart().await;
    for (remote, text) in [("g0", "$0"), ("g1", "$journal"), ("g2", "$outbox")] {
        assert_eq!(fixture.deliver(lane, remote).await.payload, text.as_bytes());
    }
    let counters = fixture.counters(lane).await;
    assert!(
        balances(&counters) && counters.delivered == 3,
        "{counters:?}"
    );
}
