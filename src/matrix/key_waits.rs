//! Entries whose room key does not arrive: after a while a notice is sent about them, and after a longer one they are
//! given up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use footbridge_core::{clock::Clock, crash_points, inbox::Inbox};
use footbridge_store::{KeyWait, Store};
use tokio::time::Instant;
use tracing::warn;

use super::{
    MatrixError, late_keys::LateKeys, undecryptable::UndecryptableNotices, wait_timer::WaitTimer,
};

/// How often at least the age of waiting entries is saved, so that a kill loses no more of it.
const CHECK_INTERVAL: Duration = Duration::from_hours(1);
/// The shortest time between two checks.
const MIN_CHECK_PAUSE: Duration = Duration::from_millis(200);

/// Watches the waiting entries of one account.
#[derive(Debug)]
pub(super) struct KeyWaits {
    pub store: Store,
    pub clock: Clock,
    /// When the other side gets a notice that a message cannot be decrypted yet.
    pub notice_after: Duration,
    /// When a room key is no longer expected.
    pub key_limit: Duration,
    pub timer: Arc<WaitTimer>,
    pub notices: Arc<UndecryptableNotices>,
    pub late_keys: Arc<LateKeys>,
}

impl KeyWaits {
    /// When [`KeyWaits::check`] has something to do.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.timer.next_check()
    }

    /// Sends notices about entries that have waited for a while, and gives up those that have waited for too long.
    pub(super) async fn check(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let ran = self.timer.restart();
        let (notice_after, limit) = (self.notice_after, self.key_limit);
        let waiting = self.store.age_key_waits(ran, self.clock.now()).await?;
        let (expired, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|one| one.waited >= limit);
        let without_notice = |one: &&KeyWait| !one.has_notice;
        let due = waiting
            .iter()
            .filter(without_notice)
            .filter(|one| one.age >= notice_after);
        let due: Vec<&KeyWait> = due.chain(expired.iter().filter(without_notice)).collect();
        self.notices.notify_waiting(&due, inbox).await?;
        self.give_up(&expired, inbox).await?;
        for one in &waiting {
            if !one.has_notice && one.age < notice_after {
                self.timer
                    .check_by(Instant::now() + notice_after.saturating_sub(one.age));
            }
            let left = limit
                .saturating_sub(one.waited)
                .clamp(MIN_CHECK_PAUSE, CHECK_INTERVAL);
            self.timer.check_by(Instant::now() + left);
        }
        self.notices.notify_resolved(inbox).await
    }

    /// Gives up these entries unless a last retry decrypts them.
    async fn give_up(&self, expired: &[KeyWait], inbox: &Inbox) -> Result<(), MatrixError> {
        let sessions: HashSet<&str> = expired.iter().map(|one| one.session.as_str()).collect();
        for session in sessions {
            self.late_keys.retry(Some(session), inbox).await?;
        }
        for one in expired {
            if self
                .store
                .fail_key_wait(one.entry, self.clock.now())
                .await?
            {
                warn!(entry.id = %one.entry, "Room key never arrived; message failed");
                crash_points::point("undecryptable.failed");
            }
        }
        Ok(())
    }
}
