//! A place that the bridge's account may not enter or write to: its lane waits, the other end gets one notice, and what has
//! waited for too long fails.

use std::time::Duration;

use footbridge_store::{Delivery, Error, Millis, RetryDecision, Side};
use tracing::{debug, error, warn};

use super::Lane;
use crate::{backoff, message::Message};

/// A lane whose place is closed retries at least this often.
const CLOSED_POLL: Duration = Duration::from_mins(1);
/// The error kind for a place that the account may not enter or write to. The silo reports a signed-out account, once.
const CLOSED: &str = "closed";

impl Lane {
    /// Marks the lane as closed. The lane retries at intervals; the other end gets one notice; what has waited for too long ends
    /// as failed.
    pub(super) async fn wait_while_closed(
        &self,
        delivery: &Delivery,
        reason: &str,
        kind: &'static str,
        not_done: bool,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let since = self.store.close_lane(self.id, reason, now).await?;
        if self.health.record_closed(self.id) && kind == CLOSED {
            let name = self.name().await?;
            error!(
                reason,
                "{name} is closed to the bridge; messages wait and are retried"
            );
        } else {
            debug!(
                reason,
                attempt = delivery.attempts + 1,
                "Place still closed to the bridge"
            );
        }
        let wait = backoff::after(delivery.attempts + 1).min(CLOSED_POLL);
        self.store
            .postpone(
                delivery.id,
                RetryDecision::without_blame(now, now.plus(wait), not_done, kind),
            )
            .await?;
        if now.since(since) >= self.limits.give_up {
            let give_up = i64::try_from(self.limits.give_up.as_millis()).unwrap_or(i64::MAX);
            let before = Millis(now.0.saturating_sub(give_up));
            let ended = self
                .store
                .park_overdue(self.id, before, reason, Message::edited_by, now)
                .await?;
            if ended > 0 {
                warn!(
                    ended,
                    "Deliveries failed: their place was closed for too long"
                );
            }
        }
        self.signals.notify_step_settled();
        self.refresh_notices().await
    }

    /// The name of the lane's target, as people know it.
    async fn name(&self) -> Result<String, Error> {
        let portals = self.store.portals().await?;
        let own = portals.iter().find(|portal| portal.id == self.id.portal);
        Ok(match (own, self.id.toward) {
            (Some(portal), Side::Matrix) => format!("The room {}", portal.room_name()),
            (Some(portal), Side::Silo) => {
                format!(
                    "The channel {} of {}",
                    portal.spec.channel, portal.spec.silo
                )
            }
            (None, _) => format!("The place of portal {}", self.id.portal),
        })
    }

    /// A step succeeded, so the place is open.
    pub(super) async fn note_open(&self) -> Result<(), Error> {
        let now = self.clock.now();
        if self.health.record_success(self.id, now) {
            self.store.open_lane(self.id, now).await?;
            self.refresh_notices().await?;
        }
        Ok(())
    }

    /// Another part of the bridge found the closed place open although no step of this lane showed it: the other end is notified.
    pub(super) async fn note_opened(&self) -> Result<(), Error> {
        if self.health.is_closed(self.id) && !self.store.is_closed(self.id).await? {
            self.health.opened(self.id);
            self.refresh_notices().await?;
        }
        Ok(())
    }

    /// Restores what an earlier process left: a closed lane, and outdated notices.
    pub(super) async fn resume_state(&self) -> Result<(), Error> {
        if self.store.is_closed(self.id).await? && self.health.record_closed(self.id) {
            let name = self.name().await?;
            warn!("{name} was closed to the bridge at the last shutdown; retrying");
        }
        self.refresh_notices().await
    }
}
