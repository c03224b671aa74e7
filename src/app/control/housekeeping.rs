//! Regular work without a command: codes that were posted, rooms that must agree, rooms that were upgraded, new
//! members, and the bridge state event of a portal.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::rate_limiter::{Rate, RateLimiter};
use footbridge_store::{self as store, Place, PortalId, PortalSource, RemoteId};
use tokio::time::Instant;

use super::{Control, backend::BackendError, portals::payload};

/// What was done since the start and need not be repeated.
#[derive(Debug, Default)]
pub struct AlreadyDone {
    notice_ids: Mutex<HashSet<String>>,
    portals: Mutex<HashSet<PortalId>>,
    moves: Mutex<RateLimiter<Place>>,
}

/// How often the bridge says that it does not follow an upgrade of a room: members who may send a tombstone may send
/// any number of them.
const MOVE_NOTICE_RATE: Rate = Rate {
    burst: 3,
    every: Duration::from_hours(8),
};

impl AlreadyDone {
    /// Whether this is the first time since the start.
    pub(super) fn is_first(&self, notice_id: &str) -> bool {
        let mut notice_ids = self
            .notice_ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        notice_ids.insert(notice_id.to_owned())
    }

    /// Whether the bridge may say once more that it does not follow this room.
    pub(super) fn may_tell_of_move(&self, room: &Place) -> bool {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let may = moves.has(room, MOVE_NOTICE_RATE, now);
        if may {
            moves.take(room, MOVE_NOTICE_RATE, now);
        }
        may
    }

    /// Makes the bridge state event of this portal be written again.
    pub(super) fn forget(&self, portal: PortalId) {
        let mut portals = self.portals.lock().unwrap_or_else(PoisonError::into_inner);
        portals.remove(&portal);
    }

    fn has(&self, portal: PortalId) -> bool {
        let portals = self.portals.lock().unwrap_or_else(PoisonError::into_inner);
        portals.contains(&portal)
    }

    fn add(&self, portal: PortalId) {
        let mut portals = self.portals.lock().unwrap_or_else(PoisonError::into_inner);
        portals.insert(portal);
    }
}

impl Control {
    /// Does all of it once. Returns whether to come back soon.
    pub(super) async fn run_once(&self) -> Result<bool, store::Error> {
        self.ask_for_consent().await?;
        let requests_open = self.check_portal_requests().await?;
        let codes_open = self.check_person_codes().await?;
        self.tell_stand_ins().await?;
        let moved = self.follow_upgrades().await?;
        self.notify_newcomers(self.clock.now()).await?;
        self.show_portals().await?;
        Ok(requests_open || codes_open || moved)
    }

    /// Sends a notice to a place, once, ahead of its pending messages.
    pub(super) async fn say(
        &self,
        place: &Place,
        notice_id: &str,
        text: &str,
    ) -> Result<(), store::Error> {
        let now = self.clock.now();
        let lane = self
            .store
            .send_notice(
                place,
                &RemoteId(notice_id.to_owned()),
                &payload(text, now),
                now,
            )
            .await?;
        if let Some(lane) = lane {
            self.signals.wake(lane);
        }
        Ok(())
    }

    /// Writes the bridge state event into rooms that are not encrypted (MSC2346), once since the start.
    async fn show_portals(&self) -> Result<(), store::Error> {
        for portal in self.store.portals().await? {
            let is_shown = portal.active || portal.source == PortalSource::Chat;
            if !is_shown || portal.source == PortalSource::Management || self.shown.has(portal.id) {
                continue;
            }
            match self.backend.show(&portal).await {
                Ok(()) | Err(BackendError::Denied(_)) => self.shown.add(portal.id),
                Err(BackendError::Unavailable(_)) => {}
                Err(BackendError::Store(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn any_number_of_tombstones_causes_a_few_notices_a_day() {
        let (shown, room) = (AlreadyDone::default(), Place::room("!r"));
        let notices = (0..20).filter(|_| shown.may_tell_of_move(&room)).count();
        assert_eq!(notices, 3);
        assert!(shown.may_tell_of_move(&Place::room("!another")));
        tokio::time::advance(Duration::from_hours(8)).await;
        assert!(shown.may_tell_of_move(&room));
    }
}
