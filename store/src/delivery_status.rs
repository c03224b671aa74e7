//! The delivery status of one message from all tables.

use rusqlite::{OptionalExtension, params};

use crate::{
    ClosedLane, DeliveryId, EntryId, Error, LaneId, Millis, ParkedState, Place, RemoteId, SkipRule,
    Store, closed_lanes, columns,
    database::{Tx, TxError},
    links, notices,
    routes::RoutingTable,
};

/// The delivery status of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageStatus {
    /// Its entry.
    pub entry: EntryId,
    /// Where it was written.
    pub from: Place,
    /// When the bridge accepted it.
    pub accepted_at: Millis,
    /// The places it is for, each with the status of its delivery.
    pub deliveries: Vec<(Place, DeliveryStatus)>,
}

impl MessageStatus {
    /// Whether it is a notice of the bridge.
    #[must_use]
    pub fn is_bridge_notice(&self) -> bool {
        self.from == notices::notice_place()
    }
}

/// The status of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// It was delivered.
    Delivered {
        /// Since when, by the clock of that network.
        at: Millis,
        /// How many attempts it took, if it had failed before.
        tries: Option<u32>,
    },
    /// It is still pending.
    Pending {
        /// How many deliveries are before it.
        ahead: u64,
        /// Failed attempts.
        tries: u32,
        /// The kind of the last error.
        last_error: Option<String>,
        /// When the next attempt is due, if it waits for that.
        retry_at: Option<Millis>,
        /// Whether its room key is missing.
        without_key: bool,
        /// Whether it is unknown if it was delivered already.
        outcome_unknown: bool,
        /// Whether its lane is closed.
        closed: Option<ClosedLane>,
        /// Whether a portal on its route is on hold, short delays left out.
        held: bool,
    },
    /// It ended by a rule.
    Skipped {
        /// Which rule.
        rule: SkipRule,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
        /// When.
        at: Millis,
        /// After how many attempts.
        tries: u32,
        /// Whether it can be retried.
        kept: bool,
    },
}

impl Store {
    /// The status of the message that is called `remote` in `place`, the original or a copy; `None` if it is not known.
    pub async fn message_status(
        &self,
        place: &Place,
        remote: &RemoteId,
    ) -> Result<Option<MessageStatus>, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("read the status of a message", move |tx| {
            let linked = links::entry_of(tx.sql, &place, &remote)?;
            let entry: Option<EntryId> = match linked {
                Some(entry) => Some(entry),
                None => tx
                    .sql
                    .prepare_cached("SELECT id FROM journal WHERE place = ?1 AND event_id = ?2")?
                    .query_row(params![place, remote], |row| row.get(0))
                    .optional()?,
            };
            entry.map(|entry| load(tx, entry)).transpose()
        })
        .await
    }

    /// The newest message of this author in a place that the bridge has accepted.
    pub async fn last_message_of(
        &self,
        place: &Place,
        author: &str,
    ) -> Result<Option<RemoteId>, Error> {
        let (place, author) = (place.clone(), author.to_owned());
        self.read("find somebody's last message", move |tx| {
            let author = tx.seal.author_hash(&place, &author);
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT j.event_id FROM last_message a JOIN journal j ON j.id = a.entry_id
                     WHERE a.place = ?1 AND a.author_hash = ?2",
                )?
                .query_row(params![place, author], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// The status of the message that this failed delivery was of.
    pub async fn status_of_parked(
        &self,
        failed: DeliveryId,
    ) -> Result<Option<MessageStatus>, Error> {
        self.read("read the status of a failed message", move |tx| {
            let entry = tx
                .sql
                .prepare_cached("SELECT entry_id FROM parked_delivery WHERE id = ?1")?
                .query_row([failed], |row| row.get(0))
                .optional()?;
            entry.map(|entry| load(tx, entry)).transpose()
        })
        .await
    }

    /// The newest entries of a place that still have a payload, newest first: candidates for a retry that names no message.
    pub async fn recent_retryable(
        &self,
        place: &Place,
        at_most: u32,
    ) -> Result<Vec<(RemoteId, Vec<u8>)>, Error> {
        let place = place.clone();
        self.read("read the retryable messages of a place", move |tx| {
            let found: Vec<(EntryId, RemoteId, Vec<u8>)> = tx
                .sql
                .prepare_cached(
                    "SELECT id, event_id, payload FROM journal WHERE place = ?1 AND payload IS NOT NULL
                     AND missing_session IS NULL AND NOT EXISTS (SELECT 1 FROM command WHERE entry_id = id)
                     ORDER BY id DESC LIMIT ?2",
                )?
                .query_map(params![place, at_most], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<Result<_, _>>()?;
            found
                .into_iter()
                .map(|(entry, event_id, sealed)| {
                    let payload = tx
                        .seal
                        .open(crate::journal::payload_cell(entry), &sealed)?;
                    Ok((event_id, payload))
                })
                .collect()
        })
        .await
    }
}

/// Notes the author's newest message, if this one is newer than the one known.
pub(crate) fn note_last_message(
    tx: &Tx<'_>,
    place: &Place,
    event_id: &RemoteId,
    author: &str,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO last_message (place, author_hash, entry_id)
             SELECT ?1, ?3, id FROM journal WHERE place = ?1 AND event_id = ?2
             ON CONFLICT (place, author_hash) DO UPDATE SET entry_id = max(entry_id, excluded.entry_id)",
        )?
        .execute(params![place, event_id, tx.seal.author_hash(place, author)])?;
    Ok(())
}

fn load(tx: &Tx<'_>, entry: EntryId) -> Result<MessageStatus, TxError> {
    let (from, accepted_at) = tx
        .sql
        .prepare_cached("SELECT place, accepted_at FROM journal WHERE id = ?1")?
        .query_row([entry], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let places: Vec<Place> = tx
        .sql
        .prepare_cached(
            "SELECT to_place AS place FROM outbox WHERE entry_id = ?1
             UNION SELECT to_place FROM parked_delivery WHERE entry_id = ?1
             UNION SELECT to_place FROM skipped_delivery WHERE entry_id = ?1
             UNION SELECT place FROM link WHERE entry_id = ?1 AND place <> ?2 ORDER BY 1",
        )?
        .query_map(params![entry, from], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut deliveries = Vec::new();
    for place in places {
        if let Some(delivery_status) = delivery_status(tx, entry, &place)? {
            deliveries.push((place, delivery_status));
        }
    }
    Ok(MessageStatus {
        entry,
        from,
        accepted_at,
        deliveries,
    })
}

fn delivery_status(
    tx: &Tx<'_>,
    entry: EntryId,
    to: &Place,
) -> Result<Option<DeliveryStatus>, TxError> {
    if let Some(pending) = pending(tx, entry, to)? {
        return Ok(Some(pending));
    }
    let parked = tx
        .sql
        .prepare_cached(
            "SELECT state, reason, failed_at, total_attempts, retryable FROM parked_delivery
             WHERE entry_id = ?1 AND to_place = ?2",
        )?
        .query_row(params![entry, to], |row| {
            Ok((
                ParkedState::from_str(&row.get::<_, String>(0)?),
                DeliveryStatus::Failed {
                    reason: row.get(1)?,
                    at: row.get(2)?,
                    tries: row.get(3)?,
                    kept: row.get(4)?,
                },
            ))
        })
        .optional()?;
    let tries = match parked {
        Some((ParkedState::Failed, failed)) => return Ok(Some(failed)),
        Some((_, DeliveryStatus::Failed { tries, .. })) => Some(tries + 1),
        _ => None,
    };
    let rule = tx
        .sql
        .prepare_cached("SELECT rule FROM skipped_delivery WHERE entry_id = ?1 AND to_place = ?2")?
        .query_row(params![entry, to], |row| row.get(0))
        .optional()?;
    if let Some(rule) = rule {
        return Ok(Some(DeliveryStatus::Skipped { rule }));
    }
    Ok(tx
        .sql
        .prepare_cached("SELECT min(sent_at) FROM link WHERE entry_id = ?1 AND place = ?2")?
        .query_row(params![entry, to], |row| row.get::<_, Option<Millis>>(0))?
        .map(|at| DeliveryStatus::Delivered { at, tries }))
}

fn pending(tx: &Tx<'_>, entry: EntryId, to: &Place) -> Result<Option<DeliveryStatus>, TxError> {
    let found = tx
        .sql
        .prepare_cached(
            "SELECT o.portal_id, o.toward, o.total_attempts, o.last_error, o.retry_at, j.missing_session IS NOT NULL,
                    o.outcome_unknown_since IS NOT NULL, o.from_place, o.urgent,
                    (SELECT count(*) FROM outbox b WHERE b.portal_id = o.portal_id
                     AND b.toward = o.toward AND b.id < o.id)
             FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.entry_id = ?1 AND o.to_place = ?2",
        )?
        .query_row(params![entry, to], |row| {
            let lane: LaneId = columns::lane(row)?;
            let retry_at: Millis = row.get(4)?;
            Ok((
                lane,
                (row.get::<_, Place>(7)?, row.get::<_, bool>(8)?),
                DeliveryStatus::Pending {
                    ahead: row.get(9)?,
                    tries: row.get(2)?,
                    last_error: row.get(3)?,
                    retry_at: (retry_at.0 > 0).then_some(retry_at),
                    without_key: row.get(5)?,
                    outcome_unknown: row.get(6)?,
                    closed: None,
                    held: false,
                },
            ))
        })
        .optional()?;
    let Some((lane, (from, urgent), mut delivery_status)) = found else {
        return Ok(None);
    };
    if let DeliveryStatus::Pending { closed, held, .. } = &mut delivery_status {
        *closed = closed_lanes::of(tx.sql, lane)?;
        let open = RoutingTable::load(tx.sql, Millis(i64::MAX))?.open(lane);
        *held = !urgent && !open.allows(&from, entry);
    }
    Ok(Some(delivery_status))
}
