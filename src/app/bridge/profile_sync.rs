//! Names, topics and pictures of rooms and channels: looked at now and then, and carried over where a portal wants it and
//! we have the right. What stands there is compared with what stood there before, so that nothing swings to and fro.

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

/// How often both sides are looked at. Tests wait for several looks.
const CHECK_INTERVAL: Duration =
    Duration::from_secs(if cfg!(feature = "testbed") { 4 } else { 30 });
/// How soon after the start.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// How long one question may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// After a refusal it is not tried again for so long.
const REFUSED_RETRY: Duration = Duration::from_mins(10);

/// What was refused, and when: anything else is tried at once.
type RefusedChanges = HashMap<(PortalId, ProfileField), (String, Instant)>;

impl App {
    /// Whether any portal shares any of it.
    pub(super) fn shares_profiles(&self) -> bool {
        self.config.portals.iter().any(|portal| portal.shares.any())
    }

    /// Looks until told to stop. An error of the store ends it.
    pub(super) async fn sync_profiles(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut refused = RefusedChanges::new();
        let mut looked = false;
        loop {
            // The portals are not found at once.
            let wait = if looked { CHECK_INTERVAL } else { FIRST_CHECK };
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
                    done = self.look(&portal, shares, silo, &mut refused) => done?,
                }
                looked = true;
            }
        }
    }

    async fn look(
        &self,
        portal: &Portal,
        shares: ProfileSync,
        silo: &Arc<dyn Silo>,
        refused: &mut RefusedChanges,
    ) -> anyhow::Result<()> {
        let asked = async {
            let room = self.matrix.room_profile(&portal.room).await.ok()?;
            let channel = silo.room_profile(&portal.channel).await.ok()?;
            Some((room, channel))
        };
        let Ok(Some((room, channel))) = timeout(REQUEST_TIMEOUT, asked).await else {
            debug!(portal.id = portal.id.0, "Failed to read name and topic");
            return Ok(());
        };
        for field in ProfileField::ALL {
            let follow = shares.of(field);
            let (Some(here), Some(there)) = (room.get(field), channel.get(field)) else {
                continue;
            };
            // Switched on later, it begins as one that was never looked at.
            if follow == SyncDirection::Off {
                continue;
            }
            let name = format!("facts/{}/{}", portal.id.0, field.as_str());
            let seen = self.store.cursor(&name).await?;
            let seen = seen.as_deref().and_then(ProfileFingerprint::from_text);
            // What a picture is called on one side says nothing on the other.
            let (here, there) = (normalize(field, here), normalize(field, there));
            let change = room_profile::profile_update(follow, seen.as_ref(), &here, &there);
            let value = match change {
                ProfileUpdate::Channel => &here,
                ProfileUpdate::Room | ProfileUpdate::None => &there,
            };
            let which = (portal.id, field);
            if change != ProfileUpdate::None && was_refused(refused, which, value) {
                continue;
            }
            // It took some time to ask for them.
            let held = self.store.is_portal_held(portal.id, self.clock.now());
            if change != ProfileUpdate::None && held.await? {
                return Ok(());
            }
            let done = match change {
                ProfileUpdate::None => Ok(ProfileFingerprint::of(&here, &there)),
                ProfileUpdate::Room => {
                    let told = self.update_room(portal, silo, field, &there).await;
                    told.map(|written| ProfileFingerprint::of(&written, &there))
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
                    refuse(refused, which, value, &failure);
                    continue;
                }
            };
            if change != ProfileUpdate::None {
                info!(portal.id = portal.id.0, what = field.as_str(), to = ?change, "Carried over");
            }
            if seen.as_ref() != Some(&now) {
                let mut batch = Batch::default();
                batch.cursors.push((name, now.to_text()));
                self.store.accept(batch, self.clock.now()).await?;
            }
        }
        Ok(())
    }

    /// Lets the room follow. Answers what stands there afterwards.
    async fn update_room(
        &self,
        portal: &Portal,
        silo: &Arc<dyn Silo>,
        field: ProfileField,
        value: &str,
    ) -> Result<String, String> {
        let told = async {
            let picture = match field {
                ProfileField::Avatar if !value.is_empty() => Some(self.fetch(silo, value).await?),
                _ => None,
            };
            let set = self
                .matrix
                .set_room_profile(&portal.room, field, value, picture.as_ref());
            set.await.map_err(|error| format!("the room: {error:#}"))
        };
        let told = timeout(REQUEST_TIMEOUT, told).await;
        told.unwrap_or_else(|_| Err("it takes too long".to_owned()))
    }

    async fn fetch(&self, silo: &Arc<dyn Silo>, url: &str) -> Result<Image, String> {
        let of = Sender {
            avatar: Some(url.to_owned()),
            ..Sender::default()
        };
        let spool = self.spool.with_limits(LARGEST, 1);
        let fetched = silo.avatar(&of, &spool).await;
        fetched.map_err(|error| format!("the picture: {error}"))
    }
}

fn normalize(field: ProfileField, text: &str) -> String {
    match field {
        ProfileField::Avatar => text.to_owned(),
        ProfileField::Name | ProfileField::Topic => room_profile::sanitize_line(text, usize::MAX),
    }
}

fn was_refused(refused: &RefusedChanges, which: (PortalId, ProfileField), value: &str) -> bool {
    let known = refused.get(&which);
    known.is_some_and(|(refused, at)| refused == value && at.elapsed() < REFUSED_RETRY)
}

/// The next try is not soon: mostly a right is missing.
fn refuse(refused: &mut RefusedChanges, which: (PortalId, ProfileField), value: &str, why: &str) {
    let (portal, field) = which;
    warn!(
        portal.id = portal.0,
        what = field.as_str(),
        why,
        "Name, topic or picture not copied; retrying in ten minutes"
    );
    refused.insert(which, (value.to_owned(), Instant::now()));
}
