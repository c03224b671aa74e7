//! What one answer of a sync says of the rooms that are followed: walked into one batch, or, where the server left
//! events out, noted as gaps.

use std::collections::HashMap;

use footbridge_core::inbox::Inbox;
use footbridge_store::{Batch, Flag, Gap, Place, RemoteId, Tombstone};
use matrix_sdk::{
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::{OwnedRoomId, RoomId},
    sync::{State, SyncResponse, Timeline},
};
use tracing::{debug, warn};

use super::{
    Matrix, MatrixError, SYNC_CURSOR,
    encryption_boundary::begins_encryption,
    key_rotation::may_have_lost_member,
    room_cursor_name,
    rooms::{PortalRoom, RoomCursor, leave_management_room},
    timeline::{DisplayNames, EventFields, EventOutcome},
};

/// Writes an answer down: messages, marks, gaps, flags and our place in the stream, all or nothing.
pub(super) async fn answer(
    matrix: &Matrix,
    rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
    inbox: &Inbox,
    response: SyncResponse,
) -> Result<(), MatrixError> {
    let mut batch = Batch::default();
    batch
        .cursors
        .push((SYNC_CURSOR.to_owned(), response.next_batch.clone()));
    let mut shared = Vec::new();
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for id in response.rooms.joined.keys() {
        let here = rooms.get(id).map(|followed| followed.place.clone());
        come.extend(here.filter(|place| matrix.is_unjoined(place)));
    }
    let joined = response.rooms.joined.into_iter();
    let joined = joined.map(|(id, update)| (id, (update.timeline, update.state)));
    // What was said before we had to leave is brought with the leave, and once.
    for id in response.rooms.left.keys() {
        if let Some(followed) = rooms.get(id) {
            warn!(matrix.room = %id, "The bridge left or was removed from a portal room");
            gone.push(followed.place.clone());
        }
    }
    let left = response.rooms.left.into_iter();
    let left = left.map(|(id, update)| (id, (update.timeline, update.state)));
    for (id, update) in joined.chain(left) {
        let Some(room) = rooms.get_mut(&id) else {
            continue;
        };
        let next_batch = &response.next_batch;
        if take_in(matrix, &id, room, update, next_batch, &mut batch).await? {
            shared.push(room.place.clone());
        }
    }
    // What our own account did may be a step of ours whose link is not written yet.
    for place in &shared {
        inbox.wait_settled(place).await?;
    }
    let (flags, clear) = (batch.flags.clone(), batch.unencrypted.clone());
    let arrivals = batch.arrivals.len();
    matrix.accept(batch, inbox).await?;
    matrix.remember_flags(flags);
    for place in &clear {
        matrix.remember_plaintext(place);
    }
    for place in &come {
        matrix.mark_joined(place, inbox).await?;
    }
    for place in &gone {
        matrix.mark_unjoined(place).await?;
        leave_management_room(matrix, place, inbox).await?;
    }
    if arrivals > 0 {
        debug!(arrivals, "Took in a sync");
    }
    Ok(())
}

/// Takes in what an answer says of one room. Answers whether our own account wrote something that this device,
/// as far as the server tells, did not send.
async fn take_in(
    matrix: &Matrix,
    id: &RoomId,
    followed: &mut PortalRoom,
    (timeline, state): (Timeline, State),
    next_batch: &str,
    batch: &mut Batch,
) -> Result<bool, MatrixError> {
    let events = timeline.events;
    if may_have_lost_member(&events, &state, timeline.limited) {
        matrix.rotation.end(&followed.place);
    }
    let Some(room) = matrix.client.get_room(id) else {
        return Ok(false);
    };
    let encrypted = room.encryption_state().is_encrypted() || state_shows_encryption(&state);
    if encrypted && !matrix.was_encrypted(&followed.place).await? {
        batch
            .flags
            .push((followed.place.clone(), Flag::EverEncrypted));
    }
    if matrix.is_unrecorded_plaintext(id, &followed.place).await? {
        batch.unencrypted.push(followed.place.clone());
    }
    // What the SDK has opened lacks the ciphertext, without which an old message cannot be told from a new one: history
    // has it. So in direct rooms, and where a sync was on its way when the room was linked.
    let opened = |event: &TimelineEvent| matches!(event.kind, TimelineEventKind::Decrypted(_));
    // What is left out before our own entry is none of ours.
    let entry = own_join(matrix, &events).filter(|_| followed.mark == Some(RoomCursor::Join));
    let enters = followed.mark == Some(RoomCursor::Join) && !events.is_empty();
    let leaves_out = (timeline.limited || enters) && entry.is_none()
        || followed.gap.is_some() && !events.is_empty()
        || events.iter().any(opened);
    if leaves_out && followed.mark.is_some() {
        let entry = entry.and_then(|entry| events.get(entry)?.event_id());
        let newest = events.iter().rev().find_map(TimelineEvent::event_id);
        let newest = newest.map_or_else(|| next_batch.to_owned(), |newest| newest.to_string());
        note_gap(
            followed,
            newest,
            entry.map(|id| RemoteId(id.to_string())),
            batch,
        );
        return Ok(false);
    }
    if events.is_empty() {
        return Ok(false);
    }
    let start = match &followed.mark {
        // Never seen and not entered by us: from here on.
        None => events.len(),
        Some(RoomCursor::Join) => entry.map_or(0, |entry| entry + 1),
        // It stands in the answer when it was not walked but written down when the room was linked, and when we
        // have come back into the room.
        Some(RoomCursor::Event(mark)) => after(mark, &events),
    };
    let before = before_link(followed, entry, &events);
    let before = matrix.shown_events(Some(&room), &followed.place, before);
    batch.before_link.extend(before.await);
    if let Some(newest) = events.iter().rev().find_map(TimelineEvent::event_id) {
        let newest = RemoteId(newest.to_string());
        batch
            .cursors
            .push((room_cursor_name(&followed.place), newest.0.clone()));
        followed.mark = Some(RoomCursor::Event(newest));
    }
    let (mut names, mut shared) = (DisplayNames::default(), false);
    let events = events.get(start..).unwrap_or_default();
    let begins = !state_shows_encryption(&state) && events.iter().any(begins_encryption);
    let mut beginning = matrix
        .encryption_boundary(&followed.place, encrypted, begins)
        .await?;
    if events.iter().any(begins_encryption) {
        // It stood in the clear while we were in it, however short.
        batch.unencrypted.push(followed.place.clone());
    }
    for event in events {
        let encrypted = beginning.pass(event);
        changes(matrix, &followed.place, event, batch);
        let walked = matrix.process_event(&room, &followed.place, event, &mut names, encrypted);
        match walked.await {
            EventOutcome::Nothing => {}
            EventOutcome::Arrival(found) => found.file(batch),
            EventOutcome::OwnAccount(found) => {
                shared = true;
                found.file(batch);
            }
        }
    }
    batch.flags.extend(beginning.flags());
    Ok(shared)
}

/// Takes in what an event changes in a room: who has entered it, and that it has moved.
pub(super) fn changes(matrix: &Matrix, place: &Place, event: &TimelineEvent, batch: &mut Batch) {
    let Some(envelope) = EventFields::open(event) else {
        return;
    };
    if let Some(user) = envelope
        .joiner()
        .filter(|user| *user != matrix.own.as_str())
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

/// What of an answer was not said to us: all in a room that was never seen, and our own entry, behind which all was.
fn before_link<'e>(
    followed: &PortalRoom,
    entry: Option<usize>,
    events: &'e [TimelineEvent],
) -> &'e [TimelineEvent] {
    let before = match (&followed.mark, entry) {
        (None, _) => Some(events),
        (Some(_), Some(entry)) => events.get(entry..=entry),
        (Some(_), None) => None,
    };
    before.unwrap_or_default()
}

/// Opens the room's gap, or moves the one it has, to what the answer brought last: the gap brings all events of the
/// answer, in order, and none of them must be kept until then. Where nothing was walked it ends at our entry, if the
/// answer shows it.
fn note_gap(followed: &mut PortalRoom, newest: String, entry: Option<RemoteId>, batch: &mut Batch) {
    let stop = match followed.gap.take() {
        Some(gap) => gap.stop,
        None => followed
            .mark
            .as_ref()
            .and_then(RoomCursor::as_stop)
            .or(entry),
    };
    let gap = Gap {
        place: followed.place.clone(),
        from: newest,
        stop,
    };
    batch.gaps.push(gap.clone());
    followed.gap = Some(gap);
}

/// Where to begin in a timeline that may hold what was walked before.
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

/// Where our own entry stands, the last one.
fn own_join(matrix: &Matrix, events: &[TimelineEvent]) -> Option<usize> {
    events.iter().rposition(|event| {
        EventFields::open(event).is_some_and(|envelope| envelope.is_join_of(&matrix.own))
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
