//! The keys of rooms that we send with, and when all who must have one have it.
//!
//! The SDK goes through all members and their devices for each event that it sends, and checks each device's signature
//! (matrix-sdk 0.18, `room/futures.rs`, `ensure_room_encryption_ready`; matrix-sdk-crypto 0.18, `share_strategy.rs`,
//! `collect_session_recipients`). Here is noted that it has just done so and that since then nothing has changed that it
//! looks at, so that the next event needs only the key.
//!
//! Such keys are not written to the database. A key is used by one process only (`rotation`), so nothing would ever read
//! them, and with all whom it was sent to a key of a room of 3,000 members takes half a megabyte.

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

/// After this the SDK looks at all members again whatever happened: a device that has no Olm session may be able to
/// get one by now.
const RECHECK_AFTER: Duration = Duration::from_mins(10);

/// Who joins does not join alone, and the sync that tells of one is followed by one that tells of the next: so long
/// nothing must have changed in a room before the SDK looks who is in it.
const QUIET_PERIOD: Duration = Duration::from_millis(300);
/// Longer than this nobody waits for that.
const MAX_QUIET_WAIT: Duration = Duration::from_secs(2);

/// What the recipients of a room's key depend on, counted: devices, identities, which of these are believed, and Olm
/// sessions; the room's state.
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
    /// A sync is being taken in: rooms may have changed and we do not know yet which.
    syncing: bool,
    /// The SDK's own objects: what it does to them is seen here, and the other way round.
    sessions: HashMap<OwnedRoomId, OutboundGroupSession>,
    shared: HashMap<OwnedRoomId, SharedKey>,
}

/// The keys.
#[derive(Debug, Default)]
pub(super) struct OutboundKeys(Mutex<OutboundState>);

impl OutboundKeys {
    fn keys(&self) -> MutexGuard<'_, OutboundState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self, room: &RoomId) -> Option<OutboundGroupSession> {
        self.keys().sessions.get(room).cloned()
    }

    /// Takes the keys out of what is to be saved.
    pub(super) fn take(&self, changes: &mut Changes) {
        let sessions = std::mem::take(&mut changes.outbound_group_sessions);
        let mut keys = self.keys();
        for session in sessions {
            keys.sessions.insert(session.room_id().to_owned(), session);
        }
    }

    /// To be told before and after a save of what recipients depend on.
    pub(super) fn recipients_changed(&self) {
        self.keys().people += 1;
    }

    /// To be told before users are saved whose devices the SDK has to ask for. Each sync saves nobody.
    pub(super) fn track(&self, users: &[(&UserId, bool)]) {
        if users.iter().any(|(_, dirty)| *dirty) {
            self.recipients_changed();
        }
    }

    /// The SDK is about to write what a sync says of rooms.
    pub(super) fn sync_begins(&self) {
        let mut keys = self.keys();
        if keys.syncing {
            // The one before was given up, and nobody knows what it wrote.
            keys.people += 1;
        }
        keys.syncing = true;
    }
}

/// Whether changes hold something that decides who gets a key.
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
    /// What a room's recipients depend on, now. To be asked before the SDK sends, for [`HoldingStore::all_have_key`].
    pub(crate) fn recipients(&self, room: &RoomId) -> Recipients {
        let keys = self.outbound.keys();
        Recipients {
            people: keys.people + self.pins.changes(),
            room: keys.rooms.get(room).map_or(0, |(changes, _)| *changes),
        }
    }

    /// Waits while people come into a room or leave it, so that who is known to be there before an event is also among
    /// those who get its key.
    pub(crate) async fn quiet(&self, room: &RoomId) {
        let began = Instant::now();
        loop {
            let (syncing, since) = {
                let keys = self.outbound.keys();
                let changed = keys.rooms.get(room);
                (keys.syncing, changed.map(|(_, at)| at.elapsed()))
            };
            let moving = since.is_some_and(|since| since < QUIET_PERIOD);
            let patience = if moving { MAX_QUIET_WAIT } else { QUIET_PERIOD };
            if !(moving || syncing) || began.elapsed() >= patience {
                return;
            }
            sleep(QUIET_PERIOD / 20).await;
        }
    }

    /// The SDK has sent an event with this key after it has shared it with all recipients.
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

    /// The key of a room, if all who must have it have it, and nobody else, and it may be used once more.
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

    /// A sync was taken in, or failed to be.
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
                let gone = answer.rooms.left.keys().chain(answer.rooms.invited.keys());
                for room in changed.chain(gone) {
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
