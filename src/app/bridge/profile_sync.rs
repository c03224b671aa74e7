//! Names, topics and avatars of rooms and channels: compared regularly, and copied where a portal wants it and the
//! account has the right. The current values are compared with those of the last check, so that a change is not copied
//! back and forth.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{
    image::{Image, LARGEST},
    message::Sender,
    room_profile::{
        self, ProfileField, ProfileFingerprint, ProfileSync, ProfileUpdate, SyncDirection,
    },
};
use footbridge_silo::Silo;
use footbridge_store::{Batch, Portal, PortalId};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::App;

/// How often both sides are checked. Tests wait for several checks.
const CHECK_INTERVAL: Duration =
    Duration::from_secs(if cfg!(feature = "testbed") { 4 } else { 30 });
/// How soon after the start the first check comes.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A refused change is not tried again for this time.
const REFUSED_RETRY: Duration = Duration::from_mins(10);

/// The refused value of each field and when it was refused; any other value is tried at once.
type RefusedChanges = HashMap<(PortalId, ProfileField), (String, Instant)>;

impl App {
    /// Whether any portal syncs any field.
    pub(super) fn shares_profiles(&self) -> bool {
        self.config.portals.iter().any(|portal| portal.shares.any())
    }

    /// Checks all portals until it is stopped. An error of the store ends it.
    pub(super) async fn sync_profiles(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut refused = RefusedChanges::new();
        let mut checked = false;
        loop {
            // The portals are not resolved at once.
            let wait = if checked { CHECK_INTERVAL } else { FIRST_CHECK };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(wait) => {}
            }
            for portal in self.store.portals().await? {
                let shares = self.shares(&portal);
                let Some(silo) = self.silos.get(&portal.spec.silo) else {
                    continue;
                };
                let held = self.store.is_portal_held(portal.id, self.clock.now());
                if !portal.active || !shares.any() || held.await? {
                    continue;
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    done = self.sync_profile(&portal, shares, silo, &mut refused) => done?,
                }
                checked = true;
            }
        }
    }

    async fn sync_profile(
        &self,
        portal: &Portal,
        shares: ProfileSync,
        silo: &Arc<dyn Silo>,
        refused: &mut RefusedChanges,
    ) -> anyhow::Result<()> {
        let request = async {
            let room = self.matrix.device().room_profile(&portal.room).await.ok()?;
            let channel = silo.room_profile(&portal.channel).await.ok()?;
            Some((room, channel))
        };
        let Ok(Some((room, channel))) = timeout(REQUEST_TIMEOUT, request).await else {
            debug!(portal.id = portal.id.0, "Failed to read name and topic");
            return Ok(());
        };
        for field in ProfileField::ALL {
            let follow = shares.of(field);
            let (Some(here), Some(there)) = (room.get(field), channel.get(field)) else {
                continue;
            };
            // Nothing is stored while it is off, so that switching it on later counts as a first check.
            if follow == SyncDirection::Off {
                continue;
            }
            let name = format!("facts/{}/{}", portal.id.0, field.as_str());
            let seen = self.store.cursor(&name).await?;
            let seen = seen.as_deref().and_then(ProfileFingerprint::from_text);
            // The URL of an avatar on one side says nothing on the other side.
            let (here, there) = (normalize(field, here), normalize(field, there));
            let change = room_profile::profile_update(follow, seen.as_ref(), &here, &there);
            let value = match change {
                ProfileUpdate::Channel => &here,
                ProfileUpdate::Room | ProfileUpdate::None => &there,
            };
            if change != ProfileUpdate::None && was_refused(refused, portal.id, field, value) {
                continue;
            }
            // The requests took some time, so the portal may be on hold by now.
            let held = self.store.is_portal_held(portal.id, self.clock.now());
            if change != ProfileUpdate::None && held.await? {
                return Ok(());
            }
            let done = match change {
                ProfileUpdate::None => Ok(ProfileFingerprint::of(&here, &there)),
                ProfileUpdate::Room => {
                    let set = self.update_room(portal, silo, field, &there).await;
                    set.map(|written| ProfileFingerprint::of(&written, &there))
                }
                ProfileUpdate::Channel => {
                    let set = silo.set_profile_field(&portal.channel, field, &here).await;
                    set.map(|()| ProfileFingerprint::of(&here, &here))
                        .map_err(|error| format!("the channel: {error}"))
                }
            };
            let now = match done {
                Ok(now) => now,
                Err(failure) => {
                    refuse(refused, portal.id, field, value, &failure);
                    continue;
                }
            };
            if change != ProfileUpdate::None {
                info!(portal.id = portal.id.0, what = field.as_str(), to = ?change, "Name, topic or picture copied");
            }
            if seen.as_ref() != Some(&now) {
                let mut batch = Batch::default();
                batch.cursors.push((name, now.to_text()));
                self.store.accept(batch, self.clock.now()).await?;
            }
        }
        Ok(())
    }

    /// Sets the field in the room. Returns the value that it has afterwards.
    async fn update_room(
        &self,
        portal: &Portal,
        silo: &Arc<dyn Silo>,
        field: ProfileField,
        value: &str,
    ) -> Result<String, String> {
        let update = async {
            let picture = match field {
                ProfileField::Avatar if !value.is_empty() => Some(self.fetch(silo, value).await?),
                _ => None,
            };
            let set =
                self.matrix
                    .device()
                    .set_room_profile(&portal.room, field, value, picture.as_ref());
            set.await.map_err(|error| format!("the room: {error:#}"))
        };
        let updated = timeout(REQUEST_TIMEOUT, update).await;
        updated.unwrap_or_else(|_| Err("it takes too long".to_owned()))
    }

    async fn fetch(&self, silo: &Arc<dyn Silo>, url: &str) -> Result<Image, String> {
        let sender = Sender {
            avatar: Some(url.to_owned()),
            ..Sender::default()
        };
        let spool = self.spool.with_limits(LARGEST, 1);
        let fetched = silo.avatar(&sender, &spool).await;
        fetched.map_err(|error| format!("the picture: {error}"))
    }
}

fn normalize(field: ProfileField, text: &str) -> String {
    match field {
        ProfileField::Avatar => text.to_owned(),
        ProfileField::Name | ProfileField::Topic => room_profile::sanitize_line(text, usize::MAX),
    }
}

fn was_refused(
    refused: &RefusedChanges,
    portal: PortalId,
    field: ProfileField,
    value: &str,
) -> bool {
    let known = refused.get(&(portal, field));
    known.is_some_and(|(refused, at)| refused == value && at.elapsed() < REFUSED_RETRY)
}

/// The next attempt is not soon: mostly a power level is too low.
fn refuse(
    refused: &mut RefusedChanges,
    portal: PortalId,
    field: ProfileField,
    value: &str,
    why: &str,
) {
    warn!(
        portal.id = portal.0,
        what = field.as_str(),
        why,
        "Name, topic or picture not copied; retrying in ten minutes"
    );
    refused.insert((portal, field), (value.to_owned(), Instant::now()));
}
