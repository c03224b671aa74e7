//! Lanes that wait because their side did not answer are woken when it answers again: a feed notices that sooner than
//! their next attempt.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_silo::FeedState;
use footbridge_store::{LaneId, Place, PortalSource, Side};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::App;

/// How often the bridge checks the feeds.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Which sides answered at the last check, and how often their connections had ended by then.
#[derive(Default)]
struct FeedStates(HashMap<String, (bool, u64)>);

impl FeedStates {
    /// Whether a side answers again that did not before, also if it was away between two checks only, or before the first one.
    fn is_back(&mut self, side: &str, answers: bool, interruptions: u64) -> bool {
        let before = self.0.insert(side.to_owned(), (answers, interruptions));
        answers && before.unwrap_or((true, 0)) != (true, interruptions)
    }
}

impl App {
    /// Wakes the lanes toward a side whenever its feed is live again.
    pub(super) async fn wake_lanes(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut sides = FeedStates::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(CHECK_INTERVAL) => {}
            }
            if sides.is_back(Place::MATRIX, self.matrix.device().is_answered(), 0) {
                self.wake(Place::MATRIX).await?;
            }
            for (name, silo) in &self.silos {
                let interruptions = silo.account().interruptions();
                if sides.is_back(name, silo.feed() == FeedState::Live, interruptions) {
                    self.wake(name).await?;
                }
            }
        }
    }

    async fn wake(&self, side: &str) -> anyhow::Result<()> {
        let portals = self.store.portals().await?.into_iter();
        let portals = portals.filter(|portal| portal.active);
        let mut woken = 0;
        for portal in portals {
            let toward = match side {
                Place::MATRIX => Side::Matrix,
                _ if portal.source != PortalSource::Management && portal.spec.silo == side => {
                    Side::Silo
                }
                _ => continue,
            };
            let lane = LaneId {
                portal: portal.id,
                toward,
            };
            if self.store.retry_now(lane, self.clock.now()).await? {
                self.signals.wake(lane);
                woken += 1;
            }
        }
        if woken > 0 {
            info!(side, lanes = woken, "Connection restored; delivery resumes");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_reported_as_back_once_after_each_outage() {
        let mut sides = FeedStates::default();
        let checks = [true, true, false, false, true, true, false, true];
        let back = checks.map(|answers| sides.is_back("chat", answers, 0));
        assert_eq!(back, [false, false, false, false, true, false, false, true]);
        assert!(!sides.is_back("other", false, 0) && sides.is_back("other", true, 0));
    }

    #[test]
    fn an_outage_between_two_checks_is_noticed() {
        let mut sides = FeedStates::default();
        let checks = [(true, 0), (true, 1), (true, 1), (false, 2), (true, 2)];
        let back = checks.map(|(answers, ended)| sides.is_back("chat", answers, ended));
        assert_eq!(back, [false, true, false, false, true]);
        assert!(sides.is_back("at the start", true, 1));
        assert!(!sides.is_back("at the start", true, 1));
    }
}
