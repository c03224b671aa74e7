//! What an answered sync proves: all that the homeserver had when it was asked for has been brought, by it or by those
//! before, but for what stands in gaps. By that, and by no clock of anybody who writes, the delay of a consent ends, and
//! what is said in a room passes a portal that was linked while the room was followed already.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use footbridge_store::{LinkBarrier, Millis, Place};
use matrix_sdk::{
    RoomState,
    ruma::{
        OwnedRoomId, OwnedUserId, RoomId,
        api::client::{
            filter::FilterDefinition,
            sync::sync_events::v3::{Filter, Request},
        },
        presence::PresenceState,
        uint,
    },
    sync::SyncResponse,
};

use super::{Boxed, Matrix, MatrixError, SYNC_CURSOR, client, room_cursor_name, rooms::PortalRoom};

/// A sync on its way. It must never be dropped half-way while the client lives on: the SDK keeps its place in
/// the stream before anyone has seen the answer.
pub(super) struct PendingSync {
    /// What comes of it.
    pub answer: Boxed<'static, matrix_sdk::Result<SyncResponse>>,
    /// How things stood when it was asked for; `None` where the homeserver may answer what it had said before.
    pub asked: Option<SyncSnapshot>,
}

/// How things stood before a sync was asked for.
#[derive(Clone, Debug)]
pub(super) struct SyncSnapshot {
    at: Millis,
    link: Option<LinkBarrier>,
    /// The rooms of which it brings all, or leaves gaps: those that we are in.
    rooms: Vec<Place>,
}

impl Matrix {
    /// Asks for a sync. The homeserver may hold it open for `long_poll`, but not beyond the end of a consent's delay: what is
    /// said after that crosses, and what one answer brings may have been said at any time since the one before. What
    /// waits for nothing but an answer is not held open at all.
    pub(super) async fn begin_sync(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
        long_poll: Duration,
        before: Option<&SyncSnapshot>,
    ) -> Result<PendingSync, MatrixError> {
        let inside = self.inside(rooms);
        let link = self.store.newest_link_barrier(inside.clone()).await?;
        let is_open = |place: &Place| {
            let mut rooms = rooms.values();
            rooms.any(|room| room.place == *place && room.gap.is_some())
        };
        let whole = inside.iter().filter(|place| !is_open(place)).cloned();
        // Once is enough.
        let is_new = link.is_some() && before.is_none_or(|before| before.link != link);
        let is_new = is_new
            && self
                .store
                .newest_link_barrier(whole.collect())
                .await?
                .is_some();
        let at = self.clock.now();
        let wait = if is_new || self.store.is_consent_due(at).await? {
            Duration::ZERO
        } else {
            let begins = self.store.next_consent_at(at).await?;
            begins.map_or(long_poll, |begins| begins.since(at).min(long_poll))
        };
        // A sync that failed may have been answered: Synapse then says for two minutes what it said then.
        let repeats = self.repeat_sync.load(Ordering::SeqCst);
        let asked = SyncSnapshot {
            at,
            link,
            rooms: inside,
        };
        let (client, keys) = (self.client.clone(), self.keys.clone());
        Ok(PendingSync {
            answer: Box::pin(async move {
                let answer = client::sync(&client, wait).await;
                keys.sync_ended(answer.as_ref().ok());
                answer
            }),
            asked: (!repeats).then_some(asked),
        })
    }

    /// A sync has been taken in, and what could be fetched of its gaps. Of rooms that it has shown us to have left, nothing
    /// is known.
    pub(super) async fn sync_applied(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
        asked: Option<SyncSnapshot>,
    ) -> Result<Option<SyncSnapshot>, MatrixError> {
        let Some(mut asked) = asked else {
            return Ok(None);
        };
        let inside = self.inside(rooms);
        asked.rooms.retain(|place| inside.contains(place));
        self.note_covered(&asked).await?;
        Ok(Some(asked))
    }

    /// The same as soon as more of its gaps has been fetched.
    pub(super) async fn note_covered(&self, asked: &SyncSnapshot) -> Result<(), MatrixError> {
        self.store.activate_consents(asked.at).await?;
        if let Some(link) = asked.link {
            self.store
                .lift_link_barriers(asked.rooms.clone(), link)
                .await?;
        }
        Ok(())
    }

    /// The rooms that we are in.
    fn inside(&self, rooms: &HashMap<OwnedRoomId, PortalRoom>) -> Vec<Place> {
        let is_in = |id: &RoomId| {
            let room = self.client.get_room(id);
            room.is_some_and(|room| room.state() == RoomState::Joined)
        };
        let inside = rooms.iter().filter(|(id, _)| is_in(id));
        inside.map(|(_, followed)| followed.place.clone()).collect()
    }

    /// Looks whether anything is to be taken in of rooms that new portals join, where a sync that was asked for before the
    /// links may be on its way: what it brings was said after them then.
    pub(super) async fn check_new_links(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
    ) -> Result<(), MatrixError> {
        if self.last_sync().is_none() {
            return Ok(());
        }
        for place in self.inside(rooms) {
            let link = self.store.newest_link_barrier(vec![place.clone()]).await?;
            if let Some(link) = link
                && self.fetch_room_caught_up(&place).await?
            {
                self.store.lift_link_barriers(vec![place], link).await?;
            }
        }
        Ok(())
    }

    /// Whether all that others have said in a room that is followed has been taken in, as the homeserver tells now. Asked
    /// beside the sync on its way, which may be held open for long.
    pub fn is_room_caught_up<'a>(
        &'a self,
        place: &'a Place,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(self.fetch_room_caught_up(place))
    }

    async fn fetch_room_caught_up(&self, place: &Place) -> Result<bool, MatrixError> {
        let room = self.room(place);
        let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
            return Ok(false);
        };
        let is_followed = self.store.cursor(&room_cursor_name(place)).await?.is_some();
        // Read before the gaps: a gap that comes with a later position is seen then.
        let Some(since) = self.store.cursor(SYNC_CURSOR).await? else {
            return Ok(false);
        };
        let gaps = self.store.gaps(Place::MATRIX).await?;
        if !is_followed || gaps.iter().any(|gap| gap.place == *place) {
            return Ok(false);
        }
        let mut request = Request::new();
        request.since = Some(since);
        request.filter = Some(Filter::FilterDefinition(only(room.room_id().to_owned())));
        request.set_presence = PresenceState::Offline;
        request.timeout = Some(Duration::ZERO);
        let Ok(answer) = self.client.send(request).await else {
            return Ok(false);
        };
        if answer.rooms.leave.contains_key(room.room_id()) {
            return Ok(false);
        }
        let Some(joined) = answer.rooms.join.get(room.room_id()) else {
            return Ok(true);
        };
        let is_ours = |sender: Option<OwnedUserId>| sender.is_some_and(|sender| sender == self.own);
        let mut events = joined.timeline.events.iter();
        let only_ours = events.all(|event| is_ours(event.get_field("sender").ok().flatten()));
        Ok(only_ours && !joined.timeline.limited)
    }
}

/// The messages of one room, in words that no question had before: the answer is of now.
fn only(room: OwnedRoomId) -> FilterDefinition {
    let question: u64 = rand::random();
    let mut filter = FilterDefinition::default();
    let nobody = format!("@{question:016x}:invalid").try_into();
    filter.presence.not_senders = nobody.into_iter().collect();
    filter.presence.types = Some(Vec::new());
    filter.account_data.types = Some(Vec::new());
    filter.room.rooms = Some(vec![room]);
    filter.room.account_data.types = Some(Vec::new());
    filter.room.ephemeral.types = Some(Vec::new());
    filter.room.timeline.limit = Some(uint!(50));
    filter
}
