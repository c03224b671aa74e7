//! Processing a sync response: the events of the followed rooms go into one batch; where the homeserver omitted events,
//! a gap is recorded.

use std::{collections::HashMap, sync::Arc};

use footbridge_core::{
    clock::Clock,
    inbox::{Batch, Inbox},
};
use footbridge_store::{Flag, Gap, Place, RemoteId, Store, Tombstone};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::{OwnedRoomId, RoomId},
    sync::{State, SyncResponse, Timeline as SyncTimeline},
};
use tracing::{debug, warn};

use super::{
    MatrixError,
    account_client::AccountClient,
    decrypt::Decryptor,
    encryption_boundary::{EncryptionBoundary, begins_encryption},
    event_fields::{DisplayNames, EventFields},
    journal_writer::JournalWriter,
    key_rotation::{KeyRotation, may_have_lost_member},
    plaintext_rooms::PlaintextRooms,
    room_cursor_name,
    room_flags::RoomFlags,
    rooms::{PortalRoom, RoomCursor},
    timeline::{EventOutcome, Timeline},
    unjoined_rooms::UnjoinedRooms,
};

/// Saves the sync responses of one account.
#[derive(Debug)]
pub(super) struct SyncResponses {
    pub account: AccountClient,
    pub store: Store,
    pub clock: Clock,
    pub flags: Arc<RoomFlags>,
    pub plaintext_rooms: Arc<PlaintextRooms>,
    pub unjoined_rooms: Arc<UnjoinedRooms>,
    pub rotation: Arc<KeyRotation>,
    pub decryptor: Arc<Decryptor>,
    pub timeline: Arc<Timeline>,
    pub journal: Arc<JournalWriter>,
}

/// What a response says about one room.
struct RoomUpdate {
    timeline: SyncTimeline,
    state: State,
}

impl SyncResponses {
    /// Saves a response: messages, room cursors, gaps, flags and the sync cursor, all or nothing.
    pub(super) async fn save(
        &self,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
        response: SyncResponse,
    ) -> Result<(), MatrixError> {
        let mut batch = Batch::default();
        batch
            .cursors
            .push((self.account.sync_cursor(), response.next_batch.clone()));
        let mut shared = Vec::new();
        let (mut left_rooms, mut rejoined) = (Vec::new(), Vec::new());
        for id in response.rooms.joined.keys() {
            let place = rooms.get(id).map(|followed| followed.place.clone());
            rejoined.extend(place.filter(|place| self.unjoined_rooms.contains(place)));
        }
        let joined = response.rooms.joined.into_iter();
        let joined = joined.map(|(id, joined)| {
            let (timeline, state) = (joined.timeline, joined.state);
            (id, RoomUpdate { timeline, state })
        });
        // Events from before the account had to leave are in the leave section, once.
        for id in response.rooms.left.keys() {
            if let Some(followed) = rooms.get(id) {
                warn!(matrix.room = %id, "The bridge left or was removed from a portal room");
                left_rooms.push(followed.place.clone());
            }
        }
        let left = response.rooms.left.into_iter();
        let left = left.map(|(id, left)| {
            let (timeline, state) = (left.timeline, left.state);
            (id, RoomUpdate { timeline, state })
        });
        for (id, update) in joined.chain(left) {
            let Some(room) = rooms.get_mut(&id) else {
                continue;
            };
            let next_batch = &response.next_batch;
            if self
                .take_in(&id, room, update, next_batch, &mut batch)
                .await?
            {
                shared.push(room.place.clone());
            }
        }
        // An event of the bridge's account may be a step of a lane whose link is not saved yet.
        for place in &shared {
            inbox.wait_settled(place).await?;
        }
        let (flags, plaintext) = (batch.flags.clone(), batch.unencrypted.clone());
        let arrivals = batch.arrivals.len();
        self.journal.accept(batch, inbox).await?;
        self.flags.remember(flags);
        for place in &plaintext {
            self.plaintext_rooms.remember(place);
        }
        for place in &rejoined {
            self.unjoined_rooms.mark_joined(place, inbox).await?;
        }
        for place in &left_rooms {
            self.unjoined_rooms.mark_unjoined(place).await?;
            self.leave_management_room(place, inbox).await?;
        }
        if arrivals > 0 {
            debug!(arrivals, "Processed a sync response");
        }
        Ok(())
    }

    /// Processes one room of a response. Returns whether the account wrote something that, by the homeserver's claim, this
    /// device did not send.
    async fn take_in(
        &self,
        id: &RoomId,
        followed: &mut PortalRoom,
        update: RoomUpdate,
        next_batch: &str,
        batch: &mut Batch,
    ) -> Result<bool, MatrixError> {
        let RoomUpdate { timeline, state } = update;
        let events = timeline.events;
        if may_have_lost_member(&events, &state, timeline.limited) {
            self.rotation.end(&followed.place);
        }
        let Some(room) = self.account.client().get_room(id) else {
            return Ok(false);
        };
        let encrypted = room.encryption_state().is_encrypted() || state_shows_encryption(&state);
        if encrypted && !self.flags.was_encrypted(&followed.place).await? {
            batch
                .flags
                .push((followed.place.clone(), Flag::EverEncrypted));
        }
        if self
            .plaintext_rooms
            .is_unrecorded(id, &followed.place)
            .await?
        {
            batch.unencrypted.push(followed.place.clone());
        }
        // An event that the SDK has decrypted lacks the ciphertext, which is needed to detect replays, so it is fetched
        // from history. That happens in direct rooms, and where a sync was in flight when the room was linked.
        let opened = |event: &TimelineEvent| matches!(event.kind, TimelineEventKind::Decrypted(_));
        // Omitted events from before the bridge's own join are not relayed.
        let own_join =
            own_join(&self.account, &events).filter(|_| followed.mark == Some(RoomCursor::Join));
        let enters = followed.mark == Some(RoomCursor::Join) && !events.is_empty();
        let leaves_out = (timeline.limited || enters) && own_join.is_none()
            || followed.gap.is_some() && !events.is_empty()
            || events.iter().any(opened);
        if leaves_out && followed.mark.is_some() {
            let own_join = own_join.and_then(|own_join| events.get(own_join)?.event_id());
            let newest = events.iter().rev().find_map(TimelineEvent::event_id);
            let newest = newest.map_or_else(|| next_batch.to_owned(), |newest| newest.to_string());
            note_gap(
                followed,
                newest,
                own_join.map(|id| RemoteId(id.to_string())),
                batch,
            );
            return Ok(false);
        }
        if events.is_empty() {
            return Ok(false);
        }
        let start = match &followed.mark {
            // Never seen and not joined by the bridge: from here on.
            None => events.len(),
            Some(RoomCursor::Join) => own_join.map_or(0, |own_join| own_join + 1),
            // The event is in the response if it was not processed but recorded when the room was linked, or if the account
            // has rejoined the room.
            Some(RoomCursor::Event(mark)) => after(mark, &events),
        };
        let before = before_link(followed, own_join, &events);
        let before = self
            .decryptor
            .shown_events(Some(&room), &followed.place, before);
        batch.before_link.extend(before.await);
        if let Some(newest) = events.iter().rev().find_map(TimelineEvent::event_id) {
            let newest = RemoteId(newest.to_string());
            batch
                .cursors
                .push((room_cursor_name(&followed.place), newest.0.clone()));
            followed.mark = Some(RoomCursor::Event(newest));
        }
        let events = events.get(start..).unwrap_or_default();
        let begins = !state_shows_encryption(&state) && events.iter().any(begins_encryption);
        let boundary = EncryptionBoundary::begin(&self.flags, &followed.place, encrypted, begins);
        let mut boundary = boundary.await?;
        if events.iter().any(begins_encryption) {
            // The room was unencrypted while the account was in it, however briefly.
            batch.unencrypted.push(followed.place.clone());
        }
        let place = &followed.place;
        let shared = self.process(&room, place, events, &mut boundary, batch);
        let shared = shared.await;
        batch.flags.extend(boundary.flags());
        Ok(shared)
    }

    /// Processes the events of a room, oldest first, into the batch. Returns whether the account wrote something that,
    /// by the homeserver's claim, this device did not send.
    async fn process(
        &self,
        room: &Room,
        place: &Place,
        events: &[TimelineEvent],
        boundary: &mut EncryptionBoundary,
        batch: &mut Batch,
    ) -> bool {
        let (mut names, mut shared) = (DisplayNames::default(), false);
        for event in events {
            let encrypted = boundary.pass(event);
            changes(&self.account, place, event, batch);
            let outcome = self
                .timeline
                .process(room, place, event, &mut names, encrypted);
            match outcome.await {
                EventOutcome::Nothing => {}
                EventOutcome::Arrival(processed) => processed.file(batch),
                EventOutcome::OwnAccount(processed) => {
                    shared = true;
                    processed.file(batch);
                }
            }
        }
        shared
    }

    /// The account is no longer in this management room, so nobody can be answered there.
    async fn leave_management_room(&self, place: &Place, inbox: &Inbox) -> Result<(), MatrixError> {
        if self
            .store
            .close_management_room(place, self.clock.now())
            .await?
        {
            inbox.signals().notify_portals_changed();
        }
        Ok(())
    }
}

/// Adds to the batch what an event changes in a room: a user joined it, or it was upgraded.
pub(super) fn changes(
    account: &AccountClient,
    place: &Place,
    event: &TimelineEvent,
    batch: &mut Batch,
) {
    let Some(envelope) = EventFields::open(event) else {
        return;
    };
    if let Some(user) = envelope
        .joiner()
        .filter(|user| *user != account.user().as_str())
    {
        batch.joined.push((place.clone(), user.to_owned()));
    }
    if let Some(successor) = envelope.successor() {
        batch.tombstones.push(Tombstone {
            room: place.clone(),
            successor: successor.to_owned(),
            sender: envelope.sender.clone(),
        });
    }
}

/// The events of a response from before the link: all of a room that was never seen; otherwise the bridge's own join,
/// which all such events precede.
fn before_link<'e>(
    followed: &PortalRoom,
    own_join: Option<usize>,
    events: &'e [TimelineEvent],
) -> &'e [TimelineEvent] {
    let before = match (&followed.mark, own_join) {
        (None, _) => Some(events),
        (Some(_), Some(own_join)) => events.get(own_join..=own_join),
        (Some(_), None) => None,
    };
    before.unwrap_or_default()
}

/// Opens the room's gap, or extends the existing one, up to the newest event of the response: filling the gap brings
/// all events of the response, in order, so none of them is saved now. If no event of the room was processed before,
/// the gap ends at the bridge's own join, if the response contains it.
fn note_gap(
    followed: &mut PortalRoom,
    newest: String,
    own_join: Option<RemoteId>,
    batch: &mut Batch,
) {
    let stop = match followed.gap.take() {
        Some(gap) => gap.stop,
        None => followed
            .mark
            .as_ref()
            .and_then(RoomCursor::as_stop)
            .or(own_join),
    };
    let gap = Gap {
        place: followed.place.clone(),
        from: newest,
        stop,
    };
    batch.gaps.push(gap.clone());
    followed.gap = Some(gap);
}

/// Where to start in a timeline that may contain events that were processed before.
fn after(mark: &RemoteId, events: &[TimelineEvent]) -> usize {
    events
        .iter()
        .rposition(|event| {
            event
                .event_id()
                .is_some_and(|id| id.as_str() == mark.as_str())
        })
        .map_or(0, |position| position + 1)
}

/// The position of the bridge's last own join.
fn own_join(account: &AccountClient, events: &[TimelineEvent]) -> Option<usize> {
    events.iter().rposition(|event| {
        EventFields::open(event).is_some_and(|envelope| envelope.is_join_of(account.user()))
    })
}

fn state_shows_encryption(state: &State) -> bool {
    let (State::Before(events) | State::After(events)) = state;
    events.iter().any(|event| {
        event
            .get_field::<String>("type")
            .is_ok_and(|kind| kind.as_deref() == Some("m.room.encryption"))
    })
}
