//! Consent that messages of an encrypted room may be relayed; and linking, which in an encrypted room is one transaction with the
//! consent.

use rusqlite::params;

use crate::{
    Error, LaneId, Millis, Place, Portal, PortalId, RemoteId, Store, commands, cursors,
    database::{Tx, TxError},
    link_barriers, management_rooms, notices,
    portals::{self, PortalGraph, PortalSource, PortalSpec},
    routes::RoutingTable,
    snapshot,
};

/// Whether a consent is not active although its delay was over at that moment, and no event of its room is still to be fetched.
const DUE: &str = "active = 0 AND effective_at <= ?1 AND NOT EXISTS (
    SELECT 1 FROM portal p JOIN gap g ON g.place = p.room_place WHERE p.id = portal_id)";

/// What somebody consented to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Who.
    pub by: String,
    /// Which version of the disclosure they read.
    pub text_version: u32,
    /// When the first message may be relayed.
    pub effective_at: Millis,
}

/// What is written when a portal request is approved.
#[derive(Clone, Debug)]
pub struct ApprovedRequest {
    /// The portal request.
    pub request: i64,
    /// The consent of its room, where that is encrypted.
    pub consent: Option<Consent>,
    /// The command that this answers.
    pub question: Option<crate::EntryId>,
    /// The notice for the room.
    pub notice: Vec<u8>,
    /// Whether all events that were sent in the room by now have been accepted.
    pub is_caught_up: bool,
}

impl Store {
    /// Somebody consented for a portal. Where there is a consent already, nothing changes, so that the delay does not start
    /// again. Returns the consent that applies, and the lanes to wake.
    pub async fn record_consent(
        &self,
        portal: PortalId,
        consent: Consent,
        now: Millis,
    ) -> Result<(Consent, Vec<LaneId>), Error> {
        self.transaction("record a consent", move |tx| {
            write(tx, portal, &consent, now)?;
            let holds = tx
                .sql
                .prepare_cached(
                    "SELECT given_by, text_version, effective_at FROM consent WHERE portal_id = ?1",
                )?
                .query_row([portal], |row| {
                    Ok(Consent {
                        by: row.get(0)?,
                        text_version: row.get(1)?,
                        effective_at: row.get(2)?,
                    })
                })?;
            Ok((
                holds,
                RoutingTable::load(tx.sql, now)?.affected_lanes(portal),
            ))
        })
        .await
    }

    /// All events that were sent in rooms before `accepted_until` have been accepted. Consents whose delay was over then become active:
    /// events that arrive from now on were sent after it. Consents of rooms with events that are still to be fetched do not.
    pub async fn activate_consents(&self, accepted_until: Millis) -> Result<(), Error> {
        if !self.is_consent_due(accepted_until).await? {
            return Ok(());
        }
        self.transaction("activate a consent", move |tx| {
            let begin = format!("UPDATE consent SET active = 1 WHERE {DUE}");
            tx.sql.prepare_cached(&begin)?.execute([accepted_until])?;
            Ok(())
        })
        .await
    }

    /// Whether a consent becomes active if all events from before `accepted_until` have been accepted.
    pub async fn is_consent_due(&self, accepted_until: Millis) -> Result<bool, Error> {
        self.read("look for consents that are due", move |tx| {
            let due = format!("SELECT 1 FROM consent WHERE {DUE}");
            Ok(tx.sql.prepare_cached(&due)?.exists([accepted_until])?)
        })
        .await
    }

    /// When the next delay is over.
    pub async fn next_consent_at(&self, now: Millis) -> Result<Option<Millis>, Error> {
        self.read("look when a consent is due", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT min(effective_at) FROM consent WHERE active = 0 AND effective_at > ?1",
                )?
                .query_row([now], |row| row.get(0))?)
        })
        .await
    }

    /// How many messages wait to leave the room of a portal through it.
    pub async fn waiting_to_leave(&self, portal: PortalId) -> Result<u64, Error> {
        self.read("count the messages that wait in a room", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT count(*) FROM outbox o JOIN journal j ON j.id = o.entry_id
                     WHERE o.portal_id = ?1 AND o.toward = 'silo' AND j.place <> ?2",
                )?
                .query_row(params![portal, notices::notice_place()], |row| row.get(0))?)
        })
        .await
    }

    /// The portals whose encrypted room has not consented.
    pub async fn lacking_consent(&self) -> Result<Vec<Portal>, Error> {
        self.read("look for portals without consent", |tx| {
            snapshot::lacking_consent(tx.sql)
        })
        .await
    }

    /// The room is unencrypted although it is linked: encryption that is switched on later needs a consent.
    pub async fn note_unencrypted_room(&self, room: &Place) -> Result<(), Error> {
        let room = room.clone();
        self.transaction("note that a room is unencrypted", move |tx| {
            mark_seen_unencrypted(tx, &room)
        })
        .await
    }

    /// A portal request is approved: its portal is opened, the room notified, the command answered. If the request no longer
    /// exists, nothing happens. Returns the portal and the lanes to wake.
    pub async fn open_requested_portal(
        &self,
        linking: ApprovedRequest,
        now: Millis,
    ) -> Result<Option<(Portal, Vec<LaneId>)>, Error> {
        self.transaction("link a room", move |tx| {
            let request = tx
                .sql
                .prepare_cached(
                    "DELETE FROM portal_request WHERE id = ?1
                     RETURNING room_place, channel_place, room, silo, channel, requested_in",
                )?
                .query_map([linking.request], |row| {
                    let spec = PortalSpec {
                        room: row.get(2)?,
                        silo: row.get(3)?,
                        channel: row.get(4)?,
                    };
                    let ends: (Place, Place) = (row.get(0)?, row.get(1)?);
                    Ok((spec, ends, row.get::<_, Place>(5)?))
                })?
                .next()
                .transpose()?;
            let Some((spec, (room, channel), asked_in)) = request else {
                return Ok(None);
            };
            if PortalGraph::load(tx.sql)?.lane_to(&channel).is_none() {
                // Messages from before were not written to this room.
                cursors::forget(tx, &channel)?;
            }
            let portal = portals::open(tx, PortalSource::Chat, &spec, &room, &channel, now)?;
            if linking.is_caught_up {
                link_barriers::lift(tx, portal.id, &room)?;
            }
            if let Some(consent) = &linking.consent {
                write(tx, portal.id, consent, now)?;
            }
            let mut lanes = RoutingTable::load(tx.sql, now)?.affected_lanes(portal.id);
            let notice_id = RemoteId(format!("linked-{}-{}", portal.id, now.0));
            lanes.extend(management_rooms::send_notice(
                tx,
                &room,
                &notice_id,
                &linking.notice,
                now,
            )?);
            if asked_in != room {
                let notice_id = RemoteId(format!("linked-{}-{}-elsewhere", portal.id, now.0));
                lanes.extend(management_rooms::send_notice(
                    tx,
                    &asked_in,
                    &notice_id,
                    &linking.notice,
                    now,
                )?);
            }
            if let Some(question) = linking.question {
                commands::close(tx, question)?;
            }
            Ok(Some((portal, lanes)))
        })
        .await
    }
}

fn write(tx: &Tx<'_>, portal: PortalId, consent: &Consent, now: Millis) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO consent (portal_id, given_by, given_at, text_version, effective_at, active)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (portal_id) DO NOTHING",
        )?
        .execute(params![
            portal,
            consent.by,
            now,
            consent.text_version,
            consent.effective_at,
            consent.effective_at <= now
        ])?;
    Ok(())
}

/// See [`Store::note_unencrypted_room`].
pub(crate) fn mark_seen_unencrypted(tx: &Tx<'_>, room: &Place) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE portal SET seen_unencrypted = 1 WHERE room_place = ?1 AND active = 1",
        )?
        .execute([room])?;
    Ok(())
}
