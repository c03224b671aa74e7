//! The outbound room keys, and whether all members that must have one have it.
//!
//! For each event that it sends, the SDK goes through all members and their devices and checks each device's signature
//! (matrix-sdk 0.18, `room/futures.rs`, `ensure_room_encryption_ready`; matrix-sdk-crypto 0.18, `share_strategy.rs`,
//! `collect_session_recipients`). This module records that the SDK has just done so and that nothing has changed since
//! that the SDK would check, so that the next event needs only the key.
//!
//! Outbound keys are not written to the database. Only one process uses a key (`key_rotation`), so nothing would ever
//! read it, and with its recipients a key of a room of 3,000 members takes half a megabyte.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use matrix_sdk::{deserialized_responses::TimelineEvent, sync::State, sync::SyncResponse};
use matrix_sdk_crypto::{olm::OutboundGroupSession, store::types::Changes};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep};

use super::BufferedCryptoStore;

/// After this time the SDK checks all members again, whatever happened: a device without an Olm session may be able to
/// get one by now.
const RECHECK_AFTER: Duration = Duration::from_mins(10);

/// Members often join in a row, and the sync that reports one is followed by a sync that reports the next: a room must
/// not have changed for this long before the SDK reads its members.
const QUIET_PERIOD: Duration = Duration::from_millis(300);
/// The longest wait for that.
const MAX_QUIET_WAIT: Duration = Duration::from_secs(2);

/// Counters of what the recipients of a room key depend on: devices, identities, pins and Olm sessions; and the room's
/// state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipients {
    people: u64,
    room: u64,
}

#[derive(Debug)]
struct SharedKey {
    session: OutboundGroupSession,
    with: Recipients,
    at: Instant,
}

#[derive(Debug, Default)]
struct OutboundState {
    people: u64,
    /// How often a room's state has changed, and when it last did.
    rooms: HashMap<OwnedRoomId, (u64, Instant)>,
    /// The SDK is processing a sync: rooms may have changed, and it is not known yet which.
    syncing: bool,
    /// The SDK's own objects: what the SDK changes in them is visible here, and the other way round.
    sessions: HashMap<OwnedRoomId, OutboundGroupSession>,
    shared: HashMap<OwnedRoomId, SharedKey>,
}

/// The outbound keys.
#[derive(Debug, Default)]
pub(super) struct OutboundKeys(Mutex<OutboundState>);

impl OutboundKeys {
    fn keys(&self) -> MutexGuard<'_, OutboundState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self, room: &RoomId) -> Option<OutboundGroupSession> {
        self.keys().sessions.get(room).cloned()
    }

    /// Moves the outbound keys out of changes that are to be saved.
    pub(super) fn take(&self, changes: &mut Changes) {
        let sessions = std::mem::take(&mut changes.outbound_group_sessions);
        let mut keys = self.keys();
        for session in sessions {
            keys.sessions.insert(session.room_id().to_owned(), session);
        }
    }

    /// Must be called before and after a save of anything that recipients depend on.
    pub(super) fn recipients_changed(&self) {
        self.keys().people += 1;
    }

    /// Must be called before saving users whose devices the SDK has to query. Each sync calls it with an empty list.
    pub(super) fn track(&self, users: &[(&UserId, bool)]) {
        if users.iter().any(|(_, dirty)| *dirty) {
            self.recipients_changed();
        }
    }

    /// The SDK is about to write what a sync reports about rooms.
    pub(super) fn sync_begins(&self) {
        let mut keys = self.keys();
        if keys.syncing {
            // The sync before was cancelled, and it is unknown what it wrote.
            keys.people += 1;
        }
        keys.syncing = true;
    }
}

/// Whether changes contain something that decides who gets a key.
pub(super) fn affects_recipients(changes: &Changes) -> bool {
    let (devices, identities) = (&changes.devices, &changes.identities);
    !(devices.new.is_empty()
        && devices.changed.is_empty()
        && devices.deleted.is_empty()
        && identities.new.is_empty()
        && identities.changed.is_empty())
        || changes.private_identity.is_some()
}

impl BufferedCryptoStore {
    /// The current recipients of a room's key. Must be read before the SDK sends, for
    /// [`BufferedCryptoStore::note_key_shared`].
    pub(crate) fn recipients(&self, room: &RoomId) -> Recipients {
        let keys = self.outbound.keys();
        Recipients {
            people: keys.people + self.pins.changes(),
            room: keys.rooms.get(room).map_or(0, |(changes, _)| *changes),
        }
    }

    /// Waits while members join or leave a room, so that members who are known before an event also get its key.
    pub(crate) async fn quiet(&self, room: &RoomId) {
        let began = Instant::now();
        loop {
            let (syncing, since) = {
                let keys = self.outbound.keys();
                let changed = keys.rooms.get(room);
                (keys.syncing, changed.map(|(_, at)| at.elapsed()))
            };
            let moving = since.is_some_and(|since| since < QUIET_PERIOD);
            let limit = if moving { MAX_QUIET_WAIT } else { QUIET_PERIOD };
            if !(moving || syncing) || began.elapsed() >= limit {
                return;
            }
            sleep(QUIET_PERIOD / 20).await;
        }
    }

    /// The SDK has sent an event with this key after it had shared the key with all recipients.
    pub(crate) fn note_key_shared(&self, room: &RoomId, id: &str, with: Recipients) {
        let mut keys = self.outbound.keys();
        let session = keys.sessions.get(room).cloned();
        let Some(session) = session.filter(|session| session.session_id() == id) else {
            return;
        };
        let at = Instant::now();
        let shared = SharedKey { session, with, at };
        keys.shared.insert(room.to_owned(), shared);
    }

    /// The room key, if exactly the members that must have it have it, and it may be used once more.
    pub(crate) fn shared_key(&self, room: &RoomId) -> Option<OutboundGroupSession> {
        let now = self.recipients(room);
        let mut keys = self.outbound.keys();
        if keys.syncing {
            return None;
        }
        let SharedKey { session, with, at } = keys.shared.get(room)?;
        let good = *with == now
            && at.elapsed() < RECHECK_AFTER
            && session.shared()
            && !session.invalidated()
            && !session.expired();
        if good {
            return Some(session.clone());
        }
        keys.shared.remove(room);
        None
    }

    /// The SDK has processed a sync, or failed to.
    pub(crate) fn sync_ended(&self, answer: Option<&SyncResponse>) {
        let mut keys = self.outbound.keys();
        match answer {
            Some(answer) => {
                let joined = answer.rooms.joined.iter();
                let changed = joined.filter(|(_, room)| {
                    let timeline = &room.timeline;
                    timeline.limited || changes_state(&timeline.events, &room.state)
                });
                let changed = changed.map(|(id, _)| id);
                let left = answer.rooms.left.keys().chain(answer.rooms.invited.keys());
                for room in changed.chain(left) {
                    let now = Instant::now();
                    let changed = keys.rooms.entry(room.clone()).or_insert((0, now));
                    *changed = (changed.0 + 1, now);
                }
            }
            None => keys.people += 1,
        }
        keys.syncing = false;
    }
}

fn changes_state(timeline: &[TimelineEvent], state: &State) -> bool {
    let (State::Before(before) | State::After(before)) = state;
    !before.is_empty()
        || timeline.iter().any(|event| {
            let key = event.raw().get_field::<IgnoredAny>("state_key");
            !matches!(key, Ok(None))
        })
}
