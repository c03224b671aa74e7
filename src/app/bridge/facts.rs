//! Names, topics and pictures of rooms and channels: looked at now and then, and carried over where a portal wants it and
//! we have the right. What stands there is compared with what stood there before, so that nothing swings to and fro.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{
    facts::{self, Change, Fact, Follow, Seen, Shares},
    message::Sender,
    picture::{LARGEST, Picture},
};
use footbridge_silo::Silo;
use footbridge_store::{Batch, Portal, PortalId};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::House;

/// How often both sides are looked at. Tests wait for several looks.
const LOOK: Duration = Duration::from_secs(if cfg!(feature = "testbed") { 4 } else { 30 });
/// How soon after the start.
const FIRST: Duration = Duration::from_secs(1);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// After a refusal it is not tried again for so long.
const REFUSED: Duration = Duration::from_mins(10);

/// What was refused, and when: anything else is tried at once.
type Refused = HashMap<(PortalId, Fact), (String, Instant)>;

impl House {
    /// Whether any portal shares any of it.
    pub(super) fn shares_facts(&self) -> bool {
        self.config.portals.iter().any(|portal| portal.shares.any())
    }

    /// Looks until told to stop. An error of the store ends it.
    pub(super) async fn keep_facts(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut refused = Refused::new();
        let mut looked = false;
        loop {
            // The portals are not found at once.
            let wait = if looked { LOOK } else { FIRST };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(wait) => {}
            }
            for portal in self.store.portals().await? {
                let shares = self.shares(&portal);
                let Some(silo) = self.silos.get(&portal.spec.silo) else {
                    continue;
                };
                let held = self.store.is_held(portal.id, self.clock.now());
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
        shares: Shares,
        silo: &Arc<dyn Silo>,
        refused: &mut Refused,
    ) -> anyhow::Result<()> {
        let asked = async {
            let room = self.matrix.facts(&portal.room).await.ok()?;
            let channel = silo.facts(&portal.channel).await.ok()?;
            Some((room, channel))
        };
        let Ok(Some((room, channel))) = timeout(PATIENCE, asked).await else {
            debug!(portal.id = portal.id.0, "Name and topic cannot be read now");
            return Ok(());
        };
        for fact in Fact::ALL {
            let follow = shares.of(fact);
            let (Some(here), Some(there)) = (room.get(fact), channel.get(fact)) else {
                continue;
            };
            // Switched on later, it begins as one that was never looked at.
            if follow == Follow::Off {
                continue;
            }
            let name = format!("facts/{}/{}", portal.id.0, fact.word());
            let seen = self.store.cursor(&name).await?;
            let seen = seen.as_deref().and_then(Seen::from_text);
            // What a picture is called on one side says nothing on the other.
            let (here, there) = (tidy(fact, here), tidy(fact, there));
            let change = facts::change(follow, seen.as_ref(), &here, &there);
            let value = match change {
                Change::Channel => &here,
                Change::Room | Change::None => &there,
            };
            let which = (portal.id, fact);
            if change != Change::None && is_refused(refused, which, value) {
                continue;
            }
            // It took some time to ask for them.
            let held = self.store.is_held(portal.id, self.clock.now());
            if change != Change::None && held.await? {
                return Ok(());
            }
            let done = match change {
                Change::None => Ok(Seen::of(&here, &there)),
                Change::Room => {
                    let told = self.tell_room(portal, silo, fact, &there).await;
                    told.map(|written| Seen::of(&written, &there))
                }
                Change::Channel => {
                    let set = silo.set_fact(&portal.channel, fact, &here).await;
                    set.map(|()| Seen::of(&here, &here))
                        .map_err(|error| format!("the channel: {error}"))
                }
            };
            let now = match done {
                Ok(now) => now,
                Err(why) => {
                    refuse(refused, which, value, &why);
                    continue;
                }
            };
            if change != Change::None {
                info!(portal.id = portal.id.0, what = fact.word(), to = ?change, "Carried over");
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
    async fn tell_room(
        &self,
        portal: &Portal,
        silo: &Arc<dyn Silo>,
        fact: Fact,
        value: &str,
    ) -> Result<String, String> {
        let told = async {
            let picture = match fact {
                Fact::Picture if !value.is_empty() => Some(self.fetch(silo, value).await?),
                _ => None,
            };
            let set = self
                .matrix
                .set_fact(&portal.room, fact, value, picture.as_ref());
            set.await.map_err(|error| format!("the room: {error:#}"))
        };
        let told = timeout(PATIENCE, told).await;
        told.unwrap_or_else(|_| Err("it takes too long".to_owned()))
    }

    async fn fetch(&self, silo: &Arc<dyn Silo>, url: &str) -> Result<Picture, String> {
        let of = Sender {
            avatar: Some(url.to_owned()),
            ..Sender::default()
        };
        let spool = self.spool.apart(LARGEST, 1);
        let fetched = silo.picture(&of, &spool).await;
        fetched.map_err(|error| format!("the picture: {error}"))
    }
}

fn tidy(fact: Fact, text: &str) -> String {
    match fact {
        Fact::Picture => text.to_owned(),
        Fact::Name | Fact::Topic => facts::harmless(text, usize::MAX),
    }
}

fn is_refused(refused: &Refused, which: (PortalId, Fact), value: &str) -> bool {
    let known = refused.get(&which);
    known.is_some_and(|(refused, at)| refused == value && at.elapsed() < REFUSED)
}

/// The next try is not soon: mostly a right is missing.
fn refuse(refused: &mut Refused, which: (PortalId, Fact), value: &str, why: &str) {
    let (portal, fact) = which;
    warn!(
        portal.id = portal.0,
        what = fact.word(),
        why,
        "Not carried over; tried again in ten minutes"
    );
    refused.insert(which, (value.to_owned(), Instant::now()));
}
