//! D14, D15: a full disk and a locked file. A writer waits, and continues when the error has passed.

use std::time::Duration;

use footbridge_store::{Payload, TransientError};

use crate::support::{Ground, balances, payload, sealed_letter, to_silo};

/// Waits until the store says this of itself.
async fn until(ground: &Ground, transient_error: Option<TransientError>) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while ground.store.transient_error() != transient_error {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the store says so");
}

#[tokio::test]
async fn f22_a_file_that_somebody_else_writes_to_is_waited_for() {
    let ground = Ground::with_one_portal().await;
    let other = ground.sql();
    // Longer than SQLite itself waits.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let accepting = async {
        for n in 0..5 {
            ground
                .accept(vec![payload(&ground.room, &format!("${n}"))])
                .await;
        }
    };
    let releasing = async {
        until(&ground, Some(TransientError::Busy)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.execute_batch("ROLLBACK").unwrap();
        until(&ground, None).await;
    };
    tokio::join!(accepting, releasing);
    // And in short.
    for n in 0..20 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let letters = vec![payload(&ground.room, &format!("$s{n}"))];
        let release = async {
            tokio::time::sleep(Duration::from_millis(n * 5)).await;
            other.execute_batch("COMMIT").unwrap();
        };
        tokio::join!(ground.accept(letters), release);
    }
    let counters = ground.counters(to_silo(&ground.a)).await;
    assert!(
        balances(&counters) && counters.pending == 25,
        "{counters:?}"
    );
}

/// `SQLite` says that the disk is full also when a table has no number left to give: that can be had without one.
fn fill(ground: &Ground, table: &str) -> i64 {
    let sql = ground.sql();
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

fn free(ground: &Ground, table: &str, before: i64) {
    let put_back = "UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1";
    let changed = ground.sql().execute(put_back, (table, before));
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn f21_a_full_disk_loses_nothing_and_the_work_goes_on_by_itself() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground
        .accept(vec![sealed_letter(&ground.room, "$0", 0)])
        .await;
    let entry = ground.store.undecryptable_events(None).await.unwrap()[0].entry;
    // In the journal nothing has been done by then; in the outbox half of the transaction has.
    for (round, table) in ["journal", "outbox"].into_iter().enumerate() {
        let before = fill(&ground, table);
        let letters = vec![payload(&ground.room, &format!("${table}"))];
        let freeing = async {
            until(&ground, Some(TransientError::DiskFull)).await;
            // Others may still read, and what needs no new row succeeds.
            let counters = ground.counters(lane).await;
            assert!(
                balances(&counters) && counters.accepted == 1 + round as u64,
                "{counters:?}"
            );
            let raw = Payload::Ready(b"$0".to_vec());
            ground
                .store
                .fill(entry, raw, footbridge_store::Millis(1))
                .await
                .unwrap();
            free(&ground, table, before);
        };
        tokio::join!(ground.accept(letters), freeing);
        assert_eq!(ground.store.transient_error(), None);
    }
    let ground = ground.restart().await;
    for (remote, text) in [("g0", "$0"), ("g1", "$journal"), ("g2", "$outbox")] {
        assert_eq!(ground.deliver(lane, remote).await.payload, text.as_bytes());
    }
    let counters = ground.counters(lane).await;
    assert!(
        balances(&counters) && counters.delivered == 3,
        "{counters:?}"
    );
}
