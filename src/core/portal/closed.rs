//! A place that does not let us in: its lane waits, the other end is told once, and what has waited for too long fails.

use std::time::Duration;

use footbridge_store::{Delivery, Error, Millis, Setback, Side};
use tracing::{debug, error, warn};

use super::Lane;
use crate::backoff;

/// A lane whose place is closed to us asks again at least this often.
const CLOSED_POLL: Duration = Duration::from_mins(1);
/// The kind of what a place says that does not let us in. An account that is signed out is said by its silo, once.
const CLOSED: &str = "closed";

impl Lane {
    /// The place is closed to us. It is asked again now and then; the other end is told once; what has waited
    /// for too long ends as failed.
    pub(super) async fn shut(
        &self,
        delivery: &Delivery,
        reason: &str,
        kind: &'static str,
        sure: bool,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let since = self.store.close_lane(self.id, reason, now).await?;
        if self.peers.closed(self.id) && kind == CLOSED {
            let name = self.name().await?;
            error!(
                reason,
                "{name} is closed to the bridge; its messages wait and are tried now and then"
            );
        } else {
            debug!(reason, attempt = delivery.attempts + 1, "Still closed");
        }
        let wait = backoff::after(delivery.attempts + 1).min(CLOSED_POLL);
        self.store
            .postponed(
                delivery.id,
                Setback::of_nobody(now, now.plus(wait), sure, kind),
            )
            .await?;
        if now.since(since) >= self.limits.give_up {
            let give_up = i64::try_from(self.limits.give_up.as_millis()).unwrap_or(i64::MAX);
            let before = Millis(now.0.saturating_sub(give_up));
            let ended = self.store.park_older(self.id, before, reason, now).await?;
            if ended > 0 {
                warn!(
                    ended,
                    "Given up what waited for too long for a closed place"
                );
            }
        }
        self.bells.step_settled();
        self.tell().await
    }

    /// Where the lane leads, as people call it.
    async fn name(&self) -> Result<String, Error> {
        let portals = self.store.portals().await?;
        let here = portals.iter().find(|portal| portal.id == self.id.portal);
        Ok(match (here, self.id.toward) {
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

    /// A step worked, so the place is open.
    pub(super) async fn let_in(&self) -> Result<(), Error> {
        let now = self.clock.now();
        if self.peers.worked(self.id, now) {
            self.store.open_lane(self.id, now).await?;
            self.tell().await?;
        }
        Ok(())
    }

    /// The place that was closed is known to be open although no step of this lane showed it: the other end is told.
    pub(super) async fn note_opened(&self) -> Result<(), Error> {
        if self.peers.is_closed(self.id) && !self.store.is_closed(self.id).await? {
            self.peers.opened(self.id);
            self.tell().await?;
        }
        Ok(())
    }

    /// What an earlier process left: a place that was closed, notices that are not right any more.
    pub(super) async fn take_over(&self) -> Result<(), Error> {
        if self.store.is_closed(self.id).await? && self.peers.closed(self.id) {
            let name = self.name().await?;
            warn!("{name} was closed to the bridge when it last ran; trying again");
        }
        self.tell().await
    }
}
