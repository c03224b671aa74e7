//! A lane that waits because its side did not answer wakes up when the side answers again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lane_resumes_at_once_when_its_side_answers_again_unless_it_was_asked_to_wait() {
    let far = Duration::from_mins(4);
    let setbacks = [
        SendError::Retry {
            after: Some(far),
            outcome: Outcome::NotDone,
            source: anyhow::anyhow!("it is out"),
        },
        SendError::RateLimited { after: Some(far) },
    ];
    for (setback, is_woken) in setbacks.into_iter().zip([true, false]) {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::open(directory.path()).await;
        bench.arrive("$e", post("hello")).await;
        let outlet = FakeOutlet::new(true, vec![Next::Fail(setback)]);
        let soon = Duration::from_secs(5);
        bench.run(&outlet, soon).await;
        assert_eq!(outlet.texts(), Vec::<String>::new());
        let lane = LaneId {
            portal: bench.portal.id,
            toward: Side::Silo,
        };
        let now = bench.clock.now();
        assert_eq!(bench.store.retry_now(lane, now).await.unwrap(), is_woken);
        assert!(!bench.store.retry_now(lane, now).await.unwrap());
        bench.run(&outlet, soon).await;
        assert_eq!(outlet.texts().len(), usize::from(is_woken));
        bench.balance().await;
    }
}
