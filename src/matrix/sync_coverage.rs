//! What a sync response proves: everything that the homeserver had when the sync was requested has arrived by now,
//! except for events in gaps. That, and not the clock of any sender, ends the delay of a consent, and decides from
//! which message on a portal relays that was linked while its room was already followed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::clock::Clock;
use footbridge_store::{LinkBarrier, Millis, Place, Store};
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

use super::{
    Boxed, MatrixError, account_client::AccountClient, client, crypto_store::BufferedCryptoStore,
    room_cursor_name, rooms::PortalRoom, sync_state::SyncState,
};

/// A sync in flight. It must never be dropped while the client lives on: the SDK moves its cursor before the response
/// has been processed.
pub(super) struct PendingSync {
    /// The result of the sync.
    pub answer: Boxed<'static, matrix_sdk::Result<SyncResponse>>,
    /// The state when it was requested; `None` where the homeserver may repeat an earlier response.
    pub asked: Option<SyncSnapshot>,
}

/// The state before a sync was requested.
#[derive(Clone, Debug)]
pub(super) struct SyncSnapshot {
    at: Millis,
    link: Option<LinkBarrier>,
    /// The joined rooms: all their events have arrived or are in gaps.
    rooms: Vec<Place>,
}

/// Requests syncs, and records what their responses prove.
#[derive(Debug)]
pub(super) struct SyncCoverage {
    account: AccountClient,
    keys: Arc<BufferedCryptoStore>,
    store: Store,
    clock: Clock,
    sync: Arc<SyncState>,
}

impl SyncCoverage {
    pub(super) fn of(
        account: AccountClient,
        keys: Arc<BufferedCryptoStore>,
        store: Store,
        clock: Clock,
        sync: Arc<SyncState>,
    ) -> Self {
        Self {
            account,
            keys,
            store,
            clock,
            sync,
        }
    }

    /// From now on the events of these rooms, and of no others, arrive as they came, to be decrypted by the bridge.
    pub(super) fn defer_rooms(&self, rooms: impl Iterator<Item = OwnedRoomId>) {
        self.keys.defer_rooms(rooms);
    }

    /// Requests a sync. The homeserver may hold it open for `long_poll`, but not beyond the end of a consent's delay:
    /// messages after that are relayed, and the events of one response may have been sent at any time since the
    /// previous one. If something waits only for a response, the sync is not held open at all.
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
        // A sync that failed may have been processed by the homeserver: for two minutes Synapse then repeats its
        // response.
        let repeats = !self.sync.is_answered();
        let snapshot = SyncSnapshot {
            at,
            link,
            rooms: inside,
        };
        let (client, keys) = (self.account.client().clone(), self.keys.clone());
        Ok(PendingSync {
            answer: Box::pin(async move {
                let answer = client::sync(&client, wait).await;
                keys.sync_ended(answer.as_ref().ok());
                answer
            }),
            asked: (!repeats).then_some(snapshot),
        })
    }

    /// A sync was processed, and its gaps were filled where possible. Rooms that it shows as left are not covered.
    pub(super) async fn sync_applied(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
        snapshot: Option<SyncSnapshot>,
    ) -> Result<Option<SyncSnapshot>, MatrixError> {
        let Some(mut snapshot) = snapshot else {
            return Ok(None);
        };
        let inside = self.inside(rooms);
        snapshot.rooms.retain(|place| inside.contains(place));
        self.note_covered(&snapshot).await?;
        Ok(Some(snapshot))
    }

    /// Records the coverage once more after further gaps were filled.
    pub(super) async fn note_covered(&self, snapshot: &SyncSnapshot) -> Result<(), MatrixError> {
        self.store.activate_consents(snapshot.at).await?;
        if let Some(link) = snapshot.link {
            self.store
                .lift_link_barriers(snapshot.rooms.clone(), link)
                .await?;
        }
        Ok(())
    }

    /// The joined rooms.
    fn inside(&self, rooms: &HashMap<OwnedRoomId, PortalRoom>) -> Vec<Place> {
        let is_in = |id: &RoomId| {
            let room = self.account.client().get_room(id);
            room.is_some_and(|room| room.state() == RoomState::Joined)
        };
        let inside = rooms.iter().filter(|(id, _)| is_in(id));
        inside.map(|(_, followed)| followed.place.clone()).collect()
    }

    /// Lifts the link barriers of new portals whose rooms have no unprocessed events. A sync that was requested before
    /// the links may be in flight: all its events were sent after the links then.
    pub(super) async fn check_new_links(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
    ) -> Result<(), MatrixError> {
        if self.sync.last_sync().is_none() {
            return Ok(());
        }
        for place in self.inside(rooms) {
            let link = self.store.newest_link_barrier(vec![place.clone()]).await?;
            if let Some(link) = link
                && self.is_room_caught_up(&place).await?
            {
                self.store.lift_link_barriers(vec![place], link).await?;
            }
        }
        Ok(())
    }

    /// Whether all messages of others in a followed room have been processed, by a request to the homeserver now. Runs
    /// beside the sync in flight, which may be held open for long.
    pub(super) async fn is_room_caught_up(&self, place: &Place) -> Result<bool, MatrixError> {
        let room = self.account.room(place);
        let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
            return Ok(false);
        };
        let is_followed = self.store.cursor(&room_cursor_name(place)).await?.is_some();
        // Read before the gaps: a gap that is recorded with a later cursor is seen then.
        let Some(since) = self.store.cursor(&self.account.sync_cursor()).await? else {
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
        let Ok(answer) = self.account.client().send(request).await else {
            return Ok(false);
        };
        if answer.rooms.leave.contains_key(room.room_id()) {
            return Ok(false);
        }
        let Some(joined) = answer.rooms.join.get(room.room_id()) else {
            return Ok(true);
        };
        let is_own = |sender: Option<OwnedUserId>| {
            sender.is_some_and(|sender| sender == self.account.user())
        };
        let mut events = joined.timeline.events.iter();
        let only_own = events.all(|event| is_own(event.get_field("sender").ok().flatten()));
        Ok(only_own && !joined.timeline.limited)
    }
}

/// A filter for the messages of one room, different from every earlier filter, so that the response is not a cached
/// one.
fn only(room: OwnedRoomId) -> FilterDefinition {
    let nonce: u64 = rand::random();
    let mut filter = FilterDefinition::default();
    let nobody = format!("@{nonce:016x}:invalid").try_into();
    filter.presence.not_senders = nobody.into_iter().collect();
    filter.presence.types = Some(Vec::new());
    filter.account_data.types = Some(Vec::new());
    filter.room.rooms = Some(vec![room]);
    filter.room.account_data.types = Some(Vec::new());
    filter.room.ephemeral.types = Some(Vec::new());
    filter.room.timeline.limit = Some(uint!(50));
    filter
}
