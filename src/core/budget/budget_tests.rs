//! The budget against a homeserver that rate-limits as Synapse does, by a leaky bucket.

use footbridge_store::Side;
use proptest::prelude::*;
use tokio::{task::JoinSet, time::sleep};

use super::*;

fn lane(portal: i64) -> LaneId {
    LaneId {
        portal: PortalId(portal),
        toward: Side::Matrix,
    }
}

/// Accepts `burst` at once, then one every `interval`.
struct Server {
    interval: Duration,
    burst: f64,
    level: f64,
    at: Instant,
    refusals: usize,
}

impl Server {
    fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            burst: f64::from(burst),
            level: 0.0,
            at: Instant::now(),
            refusals: 0,
        }
    }

    fn take(&mut self) -> Result<(), Duration> {
        let leaked = self.at.elapsed().as_secs_f64() / self.interval.as_secs_f64();
        self.level = (self.level - leaked).max(0.0);
        self.at = Instant::now();
        if self.level + 1.0 > self.burst + 1e-6 {
            self.refusals += 1;
            return Err(self.interval.mul_f64(self.level + 1.0 - self.burst));
        }
        self.level += 1.0;
        Ok(())
    }
}

/// One attempt at a step: when it began, the pace known at that time, and its result.
#[derive(Clone, Copy, Debug)]
struct Try {
    at: Instant,
    lane: i64,
    limited: bool,
    passed: bool,
    pace: Option<Duration>,
    waited_for: u64,
}

/// Lanes with these backlogs send everything; returns the attempts in order, and the number of refusals.
async fn play(backlogs: Vec<(u32, Priority)>, server: Server) -> (Vec<Try>, usize) {
    let budget = Budget::default();
    let server = Arc::new(Mutex::new(server));
    let tries = Arc::new(Mutex::new(Vec::<Try>::new()));
    let mut lanes = JoinSet::new();
    for (portal, (backlog, priority)) in (0..).zip(backlogs) {
        let (budget, server, tries) = (budget.clone(), server.clone(), tries.clone());
        lanes.spawn(async move {
            let mut left = backlog;
            while left > 0 {
                let turn = budget.lock().turn;
                let permit = budget.acquire(lane(portal), priority).await;
                let began = Instant::now();
                let waited_for = budget.lock().turn - turn;
                sleep(Duration::from_millis(20)).await;
                let answer = server.lock().unwrap().take();
                let one = Try {
                    at: began,
                    lane: portal,
                    limited: permit.is_limited(),
                    passed: answer.is_ok(),
                    pace: budget.lock().interval,
                    waited_for,
                };
                tries.lock().unwrap().push(one);
                match answer {
                    Ok(()) => {
                        left -= 1;
                        permit.record_success(1);
                    }
                    Err(after) => permit.record_rate_limit(Some(after)),
                }
            }
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.unwrap();
    }
    let tries = tries.lock().unwrap().clone();
    let refusals = server.lock().unwrap().refusals;
    (tries, refusals)
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_before_the_first_refusal() {
    let budget = Budget::default();
    let began = Instant::now();
    for _ in 0..1000 {
        budget
            .acquire(lane(1), Priority::Text)
            .await
            .record_success(1);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(budget.pace(), None);
}

#[tokio::test(start_paused = true)]
async fn the_pace_of_a_default_synapse_is_learned_from_a_few_refusals() {
    let began = Instant::now();
    let server = Server::new(Duration::from_secs(5), 10);
    let (tries, refusals) = play(vec![(30, Priority::Text), (30, Priority::Text)], server).await;
    assert_eq!(tries.iter().filter(|one| one.passed).count(), 60);
    // 50 messages beyond the burst, one every five seconds.
    let spent = began.elapsed();
    assert!(
        (Duration::from_secs(245)..Duration::from_secs(265)).contains(&spent),
        "{spent:?}"
    );
    // Lanes that do not share a budget would be refused before nearly every step.
    assert!(refusals <= 10, "{refusals}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_budget_is_unlimited_again() {
    let budget = Budget::default();
    let refused = budget.acquire(lane(1), Priority::Text).await;
    refused.record_rate_limit(Some(Duration::from_secs(5)));
    assert!(budget.pace().is_some());
    let limited = budget.acquire(lane(1), Priority::Text).await;
    assert!(limited.is_limited());
    limited.record_success(1);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(budget.pace(), None);
    assert!(!budget.acquire(lane(1), Priority::Text).await.is_limited());
}

#[tokio::test(start_paused = true)]
async fn new_messages_go_before_edits_and_deletions_and_portals_take_turns() {
    let budget = Budget::default();
    let first = budget.acquire(lane(9), Priority::Text).await;
    first.record_rate_limit(Some(Duration::from_secs(1)));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut lanes = JoinSet::new();
    let requests = [
        (1, Priority::Deletion),
        (2, Priority::Edit),
        (3, Priority::Text),
        (3, Priority::Text),
        (4, Priority::Text),
    ];
    for (portal, priority) in requests {
        let (budget, order) = (budget.clone(), order.clone());
        lanes.spawn(async move {
            let permit = budget.acquire(lane(portal), priority).await;
            order.lock().unwrap().push(portal);
            permit.record_failure();
        });
        tokio::task::yield_now().await;
    }
    while lanes.join_next().await.is_some() {}
    assert_eq!(*order.lock().unwrap(), [3, 4, 3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_or_a_dropped_permit_delays_no_other_lane() {
    let budget = Budget::default();
    let first = budget.acquire(lane(1), Priority::Text).await;
    first.record_rate_limit(Some(Duration::from_secs(5)));
    let impatient = budget.acquire(lane(1), Priority::Text);
    let gave_up = tokio::time::timeout(Duration::from_secs(1), impatient).await;
    assert!(gave_up.is_err());
    assert!(budget.lock().waiting.is_empty());
    drop(budget.acquire(lane(2), Priority::Text).await);
    let began = Instant::now();
    budget
        .acquire(lane(3), Priority::Text)
        .await
        .record_success(1);
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "an unused turn costs nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_wait_double_the_wait() {
    let budget = Budget::default();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let asked = Instant::now();
        let permit = budget.acquire(lane(1), Priority::Text).await;
        waits.push(asked.elapsed().as_secs());
        permit.record_rate_limit(None);
    }
    assert_eq!(waits, [0, 1, 1, 2, 4, 8, 16, 32]);
}

#[tokio::test(start_paused = true)]
async fn a_windowed_budget_learns_no_pace() {
    let budget = Budget::windowed();
    for _ in 0..2 {
        budget
            .acquire(lane(1), Priority::Text)
            .await
            .record_success(1);
        let refused = budget.acquire(lane(1), Priority::Text).await;
        refused.record_rate_limit(Some(Duration::from_secs(40)));
    }
    assert_eq!(budget.pace().and_then(|pace| pace.interval), None);
    for _ in 0..UNLIMITED {
        budget
            .acquire(lane(1), Priority::Text)
            .await
            .record_success(1);
    }
    assert_eq!(budget.pace(), None);
}

#[test]
fn the_estimate_counts_the_turns_of_others() {
    let pace = Pace {
        interval: Some(Duration::from_secs(5)),
        carried: 1.0,
    };
    let after = |backlog, all: &[u64]| pace.empty_after(backlog, all).map(|after| after.as_secs());
    assert_eq!(after(10, &[10]), Some(50));
    assert_eq!(after(10, &[10, 3, 100]), Some(115));
    assert_eq!(after(0, &[0, 7]), Some(0));
    let packed = Pace {
        carried: 10.0,
        ..pace
    };
    assert_eq!(
        packed.empty_after(100, &[100]),
        Some(Duration::from_secs(50))
    );
}

fn priorities() -> impl Strategy<Value = Priority> {
    prop_oneof![
        Just(Priority::Text),
        Just(Priority::Edit),
        Just(Priority::Deletion)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// While limited, no two steps follow each other faster than the pace known between them, and no lane waits for
    /// more turns than [`MAX_PASSED_OVER`] and two for each lane.
    #[test]
    fn the_pace_is_kept_and_no_portal_starves(
        backlogs in prop::collection::vec((1..25_u32, priorities()), 1..8),
        interval_ms in 200..8_000_u64,
        burst in 1..12_u32,
    ) {
        let lanes = backlogs.len() as u64;
        let total: u32 = backlogs.iter().map(|(backlog, _)| backlog).sum();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let tries = runtime.block_on(async {
            let server = Server::new(Duration::from_millis(interval_ms), burst);
            play(backlogs, server).await.0
        });
        let passed = tries.iter().filter(|one| one.passed).count();
        prop_assert_eq!(passed, usize::try_from(total).unwrap());
        let limited: Vec<&Try> = tries.iter().filter(|one| one.limited).collect();
        for pair in limited.windows(2) {
            let [earlier, later] = pair else { continue };
            if let (true, Some(pace)) = (earlier.passed, earlier.pace) {
                // A probe makes the pace a tenth faster after the step.
                prop_assert!(later.at - earlier.at >= pace.mul_f64(0.9), "{earlier:?} {later:?}");
            }
        }
        for one in &limited {
            prop_assert!(one.waited_for <= u64::from(MAX_PASSED_OVER) + 2 * lanes, "{one:?}");
        }
        prop_assert!(tries.iter().all(|one| one.lane >= 0));
    }
}
