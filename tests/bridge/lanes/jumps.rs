//! D19, F26: a clock that was set back or forward while the bridge did not run.

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn jumps(from: Millis) -> [Millis; 4] {
    [
        Millis(from.0 - 3_600_000),
        from.plus(HOUR * 24),
        Millis(0),
        from.plus(HOUR * 24 * 365),
    ]
}

fn later(wait: Duration) -> SendError {
    SendError::Retry {
        after: Some(wait),
        outcome: Outcome::NotDone,
        source: anyhow::anyhow!("told to"),
    }
}

#[tokio::test(start_paused = true)]
async fn f26_a_clock_that_jumps_stalls_no_lane_and_changes_no_order() {
    for jump in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(directory.path()).await;
        let start = bench.clock.now();
        for text in ["a", "b", "c"] {
            bench.arrive(text, post(text)).await;
        }
        let outlet = FakeOutlet::new(true, vec![Next::Fail(later(HOUR / 2))]);
        bench.run(&outlet, Duration::from_secs(1)).await;
        assert!(outlet.texts().is_empty());
        bench.clock = Clock::at(jumps(start)[jump]);
        let begun = tokio::time::Instant::now();
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.texts(), ["a", "b", "c"], "jump {jump}");
        // No longer than the longest back-off, and the bench looks every ten seconds.
        assert!(
            begun.elapsed() <= Duration::from_secs(311),
            "{:?}",
            begun.elapsed()
        );
        // No repeated attempts: the first one, and one for each message.
        assert_eq!(outlet.keys.lock().unwrap().len(), 4);
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn f26_a_missing_key_delays_no_message_when_the_clock_was_put_back() {
    for jump in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(directory.path()).await;
        let start = bench.clock.now();
        let payload = ArrivalContent::Undecryptable {
            session: "s".into(),
            raw: b"raw".to_vec(),
            key_wait_until: start.plus(Duration::from_secs(5)),
        };
        bench
            .arrive_payload("locked", Some("locked".into()), payload)
            .await;
        bench.arrive("passes", post("passes")).await;
        bench.clock = Clock::at(jumps(start)[jump]);
        let outlet = FakeOutlet::new(false, Vec::new());
        let begun = tokio::time::Instant::now();
        bench.run(&outlet, LONG).await;
        assert_eq!(outlet.texts(), ["passes"], "jump {jump}");
        assert!(begun.elapsed() <= Duration::from_secs(6));
        bench.balance().await;
    }
}

#[tokio::test(start_paused = true)]
async fn d08_a_try_without_an_answer_stays_in_doubt_until_the_step_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("a", post("a")).await;
    let lane = LaneId {
        portal: bench.portal.id,
        toward: Side::Silo,
    };
    let unknown = || Next::WorkThenFail(not_now(Outcome::Unknown));
    let sure = Next::Fail(later(Duration::from_secs(100)));
    let outlet = FakeOutlet::new(true, vec![unknown(), sure]);
    bench.run(&outlet, Duration::from_secs(50)).await;
    assert_eq!(outlet.keys.lock().unwrap().len(), 2);
    let late = bench.clock.now().plus(HOUR);
    let QueueHead::Ready(delivery) = bench.store.queue_head(lane, late).await.unwrap() else {
        panic!("the delivery is still pending")
    };
    // The second attempt certainly did not happen; that does not settle the first.
    assert!(delivery.unanswered_since.is_some());
    assert!(delivery.outcome_unknown_since.is_none());
    bench.run(&outlet, LONG).await;
    assert_eq!(bench.tally(Side::Silo).await.delivered, 1);
}
