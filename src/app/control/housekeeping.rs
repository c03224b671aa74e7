//! What is done without being asked: codes that were posted, rooms that have to agree, rooms that have moved, people
//! who came, and the mark of a portal in the state of its room.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::rate_limiter::{Rate, RateLimiter};
use footbridge_store::{self as store, Place, PortalId, PortalSource, RemoteId};
use tokio::time::Instant;

use super::{Control, backend::BackendError, portals::payload};

/// What was done since the start and need not be done again.
#[derive(Debug, Default)]
pub struct AlreadyDone {
    notice_ids: Mutex<HashSet<String>>,
    portals: Mutex<HashSet<PortalId>>,
    moves: Mutex<RateLimiter<Place>>,
}

/// How often it is said of a room that the bridge does not follow it: members who may write a tombstone may write any
/// number of them.
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

    /// Whether it may be said once more that this room is not followed.
    pub(super) fn may_tell_of_move(&self, room: &Place) -> bool {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let may = moves.has(room, MOVE_NOTICE_RATE, now);
        if may {
            moves.take(room, MOVE_NOTICE_RATE, now);
        }
        may
    }

    /// The mark of this portal is to be looked at again.
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
    /// One round. Answers whether to come again soon.
    pub(super) async fn run_once(&self) -> Result<bool, store::Error> {
        self.ask_for_consent().await?;
        let wishes = self.check_portal_requests().await?;
        let moved = self.follow_upgrades().await?;
        self.take_unnotified_newcomers(self.clock.now()).await?;
        self.show_portals().await?;
        Ok(wishes || moved)
    }

    /// Says something in a place, once, ahead of what waits there.
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

    /// Marks portals in the state of rooms that are not encrypted (MSC2346), once since the start.
    async fn show_portals(&self) -> Result<(), store::Error> {
        for portal in self.store.portals().await? {
            let marked = portal.active || portal.source == PortalSource::Chat;
            if !marked || portal.source == PortalSource::Management || self.shown.has(portal.id) {
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
    async fn any_number_of_tombstones_is_told_of_a_few_times_a_day() {
        let (shown, room) = (AlreadyDone::default(), Place::room("!r"));
        let told = (0..20).filter(|_| shown.may_tell_of_move(&room)).count();
        assert_eq!(told, 3);
        assert!(shown.may_tell_of_move(&Place::room("!another")));
        tokio::time::advance(Duration::from_hours(8)).await;
        assert!(shown.may_tell_of_move(&room));
    }
}
