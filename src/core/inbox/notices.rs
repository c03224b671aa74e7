//! The notices that the inbox sends: once for each notice id, and no more of a kind than the limit for a place.

use footbridge_store::{Error, LaneId, Place, RemoteId, ResolvedGroup, Side, UndecryptableNotice};

use super::{Inbox, UndecryptableTexts, notice_limiter};
use crate::message::Message;

impl Inbox {
    /// How many notices were withheld since the start because there were too many of them.
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.limiter.withheld()
    }

    /// Sends a notice to a room, or to the room that is linked to a channel, once for each notice id. If there are too many of a
    /// kind in one place the notice is not sent; it may be sent later.
    pub async fn send_notice(
        &self,
        place: &Place,
        notice_id: &str,
        text: &str,
    ) -> Result<(), Error> {
        let kind = notice_limiter::kind(notice_id);
        if self.limiter.allows(place, kind) {
            self.enqueue_notice(place, notice_id, text, &[kind]).await?;
        }
        Ok(())
    }

    /// The same for a notice that one person can provoke again and again: there is a lower limit for each person. Returns whether
    /// the notice need not be sent later.
    pub async fn send_notice_about(
        &self,
        place: &Place,
        who: &str,
        notice_id: &str,
        text: &str,
    ) -> Result<bool, Error> {
        let kind = notice_limiter::kind(notice_id);
        let personal = notice_limiter::personal(kind, who);
        let allows = self.limiter.allows(place, &personal) && self.limiter.allows(place, kind);
        if allows {
            self.enqueue_notice(place, notice_id, text, &[kind, &personal])
                .await?;
        }
        Ok(allows)
    }

    async fn enqueue_notice(
        &self,
        place: &Place,
        notice_id: &str,
        text: &str,
        kinds: &[&str],
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let Ok(payload) = Message::notice(text, now).to_bytes() else {
            return Ok(());
        };
        let portals = self.store.portals().await?;
        // One of several portals of a room is enough: all of them lead to the same people.
        let Some(portal) = portals
            .iter()
            .find(|portal| portal.active && (portal.room == *place || portal.channel == *place))
        else {
            return Ok(());
        };
        let lane = LaneId {
            portal: portal.id,
            toward: Side::Matrix,
        };
        let notice_id = RemoteId::from(notice_id);
        if let Some(lane) = self
            .store
            .enqueue_notice(lane, &notice_id, &payload, now)
            .await?
        {
            for kind in kinds {
                self.limiter.record(place, kind);
            }
            self.signals.wake(lane);
        }
        Ok(())
    }

    /// Sends the notices about undecryptable entries. If too many senders in one place are affected, it sends nothing, and the
    /// caller may retry. Returns whether a notice was sent.
    pub async fn notify_undecryptable(
        &self,
        notice: UndecryptableNotice,
        words: UndecryptableTexts,
    ) -> Result<bool, Error> {
        let place = notice.place.clone();
        if !self.limiter.allows(&place, notice_limiter::UNREADABLE) {
            return Ok(false);
        }
        let now = self.clock.now();
        let lanes = self
            .store
            .notify_undecryptable(notice, words.renderer(now), now)
            .await?;
        let notified = !lanes.is_empty();
        if notified {
            self.limiter.record(&place, notice_limiter::UNREADABLE);
        }
        self.wake(lanes);
        Ok(notified)
    }

    /// Replaces the notices about a group of undecryptable entries with its result.
    pub async fn notify_resolved(
        &self,
        group: ResolvedGroup,
        words: UndecryptableTexts,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let lanes = self
            .store
            .notify_resolved(group, words.renderer(now), now)
            .await?;
        self.wake(lanes);
        Ok(())
    }

    /// The same where no entry waited any more and the notices had been left unchanged.
    pub async fn notify_obsolete(
        &self,
        group: ResolvedGroup,
        words: UndecryptableTexts,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let lanes = self
            .store
            .notify_obsolete(group, words.renderer(now), now)
            .await?;
        self.wake(lanes);
        Ok(())
    }
}
