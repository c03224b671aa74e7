//! What holds a portal up: a person, a room that was replaced, or an encrypted room in which nobody has agreed that
//! what is said there may leave it. Both directions keep their queues, and so does every other portal for what has to pass
//! this one; only what the bridge itself has to say passes.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::{
    Error, LaneId, Millis, PortalId, Store,
    database::{Desk, Fault},
    paths::Net,
    peek,
};

/// One thing that holds a portal up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A person has paused it.
    Paused {
        /// Who.
        by: String,
        /// When.
        since: Millis,
    },
    /// Its room was replaced by another one.
    Upgraded {
        /// Since when.
        since: Millis,
    },
    /// Its room is encrypted, and nobody has agreed.
    Consent,
    /// Somebody has agreed, and everybody has some time to object.
    Delay {
        /// Until when.
        until: Millis,
    },
}

/// Whether a portal, as `p`, lacks consent: the encryption of its room is news since it was linked, or it was people
/// who made it.
pub(crate) const LACKS_CONSENT: &str = "p.active = 1 AND p.origin <> 'desk'
    AND (p.origin = 'chat' OR p.seen_clear = 1)
    AND EXISTS (SELECT 1 FROM flag f WHERE f.place = p.room_place AND f.flag = 'ever-encrypted')
    AND NOT EXISTS (SELECT 1 FROM consent c WHERE c.portal_id = p.id)";

/// The portals that are held up, each since when.
pub(crate) fn since(sql: &Connection, now: Millis) -> Result<HashMap<PortalId, Millis>, Fault> {
    let mut held = sql.prepare_cached(
        "SELECT portal_id, min(since) FROM (
             SELECT portal_id, since FROM hold
             UNION ALL
             SELECT p.id, f.raised_at FROM portal p
             JOIN flag f ON f.place = p.room_place AND f.flag = 'ever-encrypted'
             LEFT JOIN consent c ON c.portal_id = p.id
             WHERE p.active = 1 AND p.origin <> 'desk' AND (p.origin = 'chat' OR p.seen_clear = 1)
               AND (c.portal_id IS NULL OR c.effective_at > ?1))
         GROUP BY portal_id",
    )?;
    let held = held.query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(held.collect::<Result<_, _>>()?)
}

impl Store {
    /// What holds up each portal that is held up.
    pub async fn holds(&self, now: Millis) -> Result<Vec<(PortalId, Hold)>, Error> {
        self.read("read what holds portals up", move |desk| {
            peek::holds(desk.sql, now)
        })
        .await
    }

    /// Whether this portal is held up.
    pub async fn is_held(&self, portal: PortalId, now: Millis) -> Result<bool, Error> {
        let holds = self.holds(now).await?;
        Ok(holds.iter().any(|(held, _)| *held == portal))
    }

    /// Whether the portals of this room may not send into it what people say.
    pub async fn is_silenced(&self, room: &crate::Place) -> Result<bool, Error> {
        let room = room.clone();
        self.read("look whether a room has agreed", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(&format!(
                    "SELECT 1 FROM portal p WHERE p.room_place = ?1 AND {LACKS_CONSENT}"
                ))?
                .exists([&room])?)
        })
        .await
    }

    /// Pauses a portal; paused already, nothing happens.
    pub async fn pause(&self, portal: PortalId, by: &str, now: Millis) -> Result<(), Error> {
        let by = by.to_owned();
        self.transaction("pause a portal", move |desk| {
            hold(desk, portal, "paused", &by, now)
        })
        .await
    }

    /// Ends a pause, and with it the hold of a room that was replaced. Answers the lanes to ring.
    pub async fn resume(&self, portal: PortalId) -> Result<Vec<LaneId>, Error> {
        self.transaction("resume a portal", move |desk| {
            desk.sql
                .prepare_cached("DELETE FROM hold WHERE portal_id = ?1")?
                .execute([portal])?;
            Ok(Net::load(desk.sql, Millis::default())?.around(portal))
        })
        .await
    }
}

/// Holds a portal up.
pub(crate) fn hold(
    desk: &Desk<'_>,
    portal: PortalId,
    reason: &str,
    by: &str,
    now: Millis,
) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO hold (portal_id, reason, since, by_whom) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (portal_id, reason) DO NOTHING",
        )?
        .execute(params![portal, reason, now, by])?;
    Ok(())
}
