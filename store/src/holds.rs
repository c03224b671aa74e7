//! What holds a portal: a user who paused it, a room that was replaced, or an encrypted room without consent. Both lanes keep
//! their queues, and so does every other lane whose routes pass this portal; only notices of the bridge pass.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::{
    Error, LaneId, Millis, PortalId, Store,
    database::{Tx, TxError},
    routes::RoutingTable,
    snapshot,
};

/// One hold of a portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortalHold {
    /// A user paused it.
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
    /// Its room is encrypted, and nobody has given consent.
    Consent,
    /// Somebody has consented, and everybody has some time to object.
    Delay {
        /// Until when.
        until: Millis,
    },
}

/// Whether a portal, as `p`, lacks consent: its room became encrypted after the link, or users of a chat made the portal.
pub(crate) const LACKS_CONSENT: &str = "p.active = 1 AND p.source <> 'management'
    AND (p.source = 'chat' OR p.seen_unencrypted = 1)
    AND EXISTS (SELECT 1 FROM place_flag f WHERE f.place = p.room_place AND f.flag = 'ever-encrypted')
    AND NOT EXISTS (SELECT 1 FROM consent c WHERE c.portal_id = p.id)";

/// The portals that are on hold, each since when.
pub(crate) fn since(sql: &Connection, now: Millis) -> Result<HashMap<PortalId, Millis>, TxError> {
    let mut held = sql.prepare_cached(
        "SELECT portal_id, min(since) FROM (
             SELECT portal_id, since FROM portal_hold
             UNION ALL
             SELECT p.id, f.set_at FROM portal p
             JOIN place_flag f ON f.place = p.room_place AND f.flag = 'ever-encrypted'
             LEFT JOIN consent c ON c.portal_id = p.id
             WHERE p.active = 1 AND p.source <> 'management' AND (p.source = 'chat' OR p.seen_unencrypted = 1)
               AND (c.portal_id IS NULL OR c.effective_at > ?1))
         GROUP BY portal_id",
    )?;
    let held = held.query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(held.collect::<Result<_, _>>()?)
}

impl Store {
    /// The holds of all portals.
    pub async fn portal_holds(&self, now: Millis) -> Result<Vec<(PortalId, PortalHold)>, Error> {
        self.read("read the holds of portals", move |tx| {
            snapshot::holds(tx.sql, now)
        })
        .await
    }

    /// Whether this portal is on hold.
    pub async fn is_portal_held(&self, portal: PortalId, now: Millis) -> Result<bool, Error> {
        let holds = self.portal_holds(now).await?;
        Ok(holds.iter().any(|(held, _)| *held == portal))
    }

    /// Whether the portals of this room may not send people's messages into it.
    pub async fn may_not_relay_into(&self, room: &crate::Place) -> Result<bool, Error> {
        let room = room.clone();
        self.read("look whether a room has consented", move |tx| {
            Ok(tx
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
        self.transaction("pause a portal", move |tx| {
            hold(tx, portal, "paused", &by, now)
        })
        .await
    }

    /// Ends a pause, and with it the hold after a room upgrade. Returns the lanes to wake.
    pub async fn resume(&self, portal: PortalId) -> Result<Vec<LaneId>, Error> {
        self.transaction("resume a portal", move |tx| {
            tx.sql
                .prepare_cached("DELETE FROM portal_hold WHERE portal_id = ?1")?
                .execute([portal])?;
            Ok(RoutingTable::load(tx.sql, Millis::default())?.affected_lanes(portal))
        })
        .await
    }
}

/// Adds a hold to a portal.
pub(crate) fn hold(
    tx: &Tx<'_>,
    portal: PortalId,
    reason: &str,
    by: &str,
    now: Millis,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO portal_hold (portal_id, reason, since, held_by) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (portal_id, reason) DO NOTHING",
        )?
        .execute(params![portal, reason, now, by])?;
    Ok(())
}
