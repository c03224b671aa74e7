//! How changes are written: those of a sync, which may be held back until it ends, and those of all other tasks, which
//! may have to wait for that.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::crash_points;
use matrix_sdk_crypto::{
    Session,
    store::{CryptoStore as _, types::Changes},
};
use ruma::OwnedUserId;
use tokio::{sync::Notify, time::timeout};

use super::{BufferedCryptoStore, Error, Result};
use crate::{
    duplicate_keys, olm,
    pending_sessions::{PendingSessions, single_session},
};

/// How long a save waits for the end of a sync. A sync ends a few milliseconds after it was read; one that does not end
/// has failed, and then nothing may be written that would overtake it.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// Set while the SDK processes a sync: see [`within_sync`]. True once its keys are stored and its rooms are
    /// processed.
    static TAKING_IN: Cell<bool>;
}

/// Runs a sync of the SDK so that its writes can be distinguished from those of tasks that encrypt at the same time.
pub(crate) fn within_sync<F: Future>(sync: F) -> impl Future<Output = F::Output> {
    TAKING_IN.scope(Cell::new(false), sync)
}

/// Whether the caller is a sync that has stored its keys and is processing the rooms.
pub(super) fn is_reading_rooms() -> bool {
    TAKING_IN.try_with(Cell::get).unwrap_or(false)
}

/// Users whose devices were saved and that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct NewDevices {
    users: Mutex<BTreeSet<OwnedUserId>>,
    notify: Notify,
}

impl NewDevices {
    pub(super) fn add(&self, users: Vec<OwnedUserId>) {
        if users.is_empty() {
            return;
        }
        let mut pending = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        pending.extend(users);
        self.notify.notify_one();
    }
}

impl BufferedCryptoStore {
    pub(super) fn held(&self) -> MutexGuard<'_, PendingSessions> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until devices have been saved, and returns their users.
    pub(crate) async fn fresh(&self) -> BTreeSet<OwnedUserId> {
        loop {
            let users = {
                let fresh = &self.fresh.users;
                std::mem::take(&mut *fresh.lock().unwrap_or_else(PoisonError::into_inner))
            };
            if !users.is_empty() {
                return users;
            }
            self.fresh.notify.notified().await;
        }
    }

    /// Saves changes of any task.
    pub(super) async fn save(&self, mut changes: Changes) -> Result<()> {
        if TAKING_IN.try_with(|_| ()).is_ok() {
            return self.save_sync_changes(changes).await;
        }
        let mut ended = self.ended.subscribe();
        while !self.try_save(&mut changes).await? {
            // The sender lives as long as this store.
            if timeout(SYNC_TIMEOUT, ended.changed()).await.is_err() {
                return Err(unusable(
                    "a sync with messages of the same Olm session did not end".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Whether a message was received through the session that is not stored.
    async fn has_unstored(&self, session: &Session) -> Result<bool> {
        if !session.inner.lock().await.has_received_message() {
            // True of most sessions by far: made by the bridge for a room key. Nothing need be read.
            return Ok(false);
        }
        let sender = session.sender_key().to_base64();
        let stored = self.inner.get_sessions(&sender).await?.unwrap_or_default();
        let stored = stored.iter().find(|stored| *stored == session);
        olm::received_since(session, stored).await.map_err(unusable)
    }

    /// Saves the changes of a sync.
    async fn save_sync_changes(&self, changes: Changes) -> Result<()> {
        let _saving = self.saving.lock().await;
        if let Some(session) = single_session(&changes)
            && self.has_unstored(session).await?
        {
            self.held().keep(changes);
            crash_points::point("keys.received");
            return Ok(());
        }
        let ends = changes.next_batch_token.is_some();
        if ends {
            self.outbound.sync_begins();
        }
        let (mut joined, rest) = self.held().join(changes);
        duplicate_keys::keep_earliest(&mut joined.inbound_group_sessions);
        self.write(joined).await?;
        *self.held() = rest;
        if ends {
            self.ended.send_modify(|ended| *ended += 1);
            TAKING_IN.with(|reading| reading.set(true));
        }
        Ok(())
    }

    /// Saves the changes of another task, unless they include a session through which a sync received a message that is
    /// not stored.
    async fn try_save(&self, changes: &mut Changes) -> Result<bool> {
        let _saving = self.saving.lock().await;
        let mut sessions = Vec::with_capacity(changes.sessions.len());
        for session in &changes.sessions {
            let session = olm::snapshot(session).await.map_err(unusable)?;
            if self.held().has(session.session_id()) || self.has_unstored(&session).await? {
                return Ok(false);
            }
            sessions.push(session);
        }
        let mut changes = std::mem::take(changes);
        changes.sessions = sessions;
        let (changes, rest) = self.held().join(changes);
        self.write(changes).await?;
        *self.held() = rest;
        Ok(true)
    }
}

fn unusable(details: String) -> Error {
    Error::InvalidData { details }
}
