//! The journal: events, each accepted exactly once, together with the cursor up to which the listener has read.

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    Arrival, Batch, Copy, EntryId, Error, LaneId, MessageRef, Millis, Payload, Place, RemoteId,
    Store, before_link, columns, commands, consent,
    counters::{self, DeliveryEnd, NewDelivery},
    cursors,
    database::{Tx, TxError},
    delivery_status, link_barriers, links, opt_outs, peer_bridges,
    pending_changes::{self, ArrivalContext, ArrivalFacts},
    portals::PortalGraph,
    redacted_edits, replay, room_upgrades,
    routes::RoutingTable,
    seal::Cell,
    trust,
    undecryptable::{self, KeyWaitEnd},
    writers,
};

/// The result for an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Written; these lanes have a new delivery.
    New(Vec<LaneId>),
    /// Known already, or a copy that the bridge made itself.
    Duplicate,
    /// An old ciphertext under a new event id: dropped.
    Replayed,
    /// No active portal has this place; not written.
    NotLinked,
}

/// An entry that waits for its room key.
#[derive(Clone, PartialEq, Eq)]
pub struct UndecryptableEvent {
    /// The entry.
    pub entry: EntryId,
    /// Where it happened.
    pub place: Place,
    /// Its id there.
    pub event_id: RemoteId,
    /// The session whose room key is missing.
    pub session: String,
    /// The event as received.
    pub raw: Vec<u8>,
}

impl std::fmt::Debug for UndecryptableEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UndecryptableEvent")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Accepts a batch. Returns one [`Accepted`] per arrival, in order.
    pub async fn accept(&self, batch: Batch, now: Millis) -> Result<Vec<Accepted>, Error> {
        self.transaction("accept a batch", move |tx| {
            let (graph, routing) = (PortalGraph::load(tx.sql)?, RoutingTable::load(tx.sql, now)?);
            let context = ArrivalContext::of_batch(&batch);
            let used = replay::used(&batch);
            let shown = before_link::by_event(&batch);
            let accepted = batch
                .arrivals
                .iter()
                .map(|arrival| {
                    let shown = shown.get(&(&arrival.place, &arrival.event_id)).copied();
                    let of = context.of(arrival);
                    let stays = may_be_command(&graph, arrival);
                    before_link::unless_before_link(tx, shown, stays, || {
                        match replay::reject_replay(tx, &used, arrival, now)? {
                            Some(caught) => accept_arrival(tx, &graph, &routing, &caught, of, now)
                                .map(|_| Accepted::Replayed),
                            None => accept_arrival(tx, &graph, &routing, arrival, of, now),
                        }
                    })
                })
                .collect::<Result<_, TxError>>()?;
            before_link::save(tx, &batch)?;
            for (place, event_id) in &batch.late {
                counters::mark_late(tx, place, event_id)?;
            }
            for (place, event_id, author) in &batch.last_authors {
                delivery_status::note_last_message(tx, place, event_id, author)?;
            }
            for (place, message, user) in &batch.authors {
                writers::save(tx, place, message, user)?;
            }
            trust::save(tx, &batch, now)?;
            cursors::save(tx, &batch, now)?;
            for room in &batch.unencrypted {
                consent::mark_seen_unencrypted(tx, room)?;
            }
            for (place, user) in &batch.joined {
                opt_outs::note_join(tx, place, user)?;
            }
            for claim in &batch.peer_claims {
                peer_bridges::save(tx, claim)?;
            }
            for tombstone in &batch.tombstones {
                room_upgrades::note_tombstone(tx, tombstone, now)?;
            }
            Ok(accepted)
        })
        .await
    }

    /// The entries that wait for a room key: all, or those of one session.
    pub async fn undecryptable_events(
        &self,
        session: Option<&str>,
    ) -> Result<Vec<UndecryptableEvent>, Error> {
        let session = session.map(str::to_owned);
        self.read("read the undecryptable entries", move |tx| {
            let mut waiting = tx
                .sql
                .prepare_cached(
                    "SELECT id, place, event_id, missing_session, payload FROM journal INDEXED BY journal_missing_session
                     WHERE missing_session IS NOT NULL AND missing_session = coalesce(?1, missing_session) ORDER BY id",
                )?
                .query_map([&session], undecryptable_from_row)?
                .collect::<Result<Vec<_>, _>>()?;
            for one in &mut waiting {
                one.raw = tx.seal.open(payload_cell(one.entry), &one.raw)?;
            }
            Ok(waiting)
        })
        .await
    }

    /// Those of these events whose entries wait for a room key, with the entries.
    pub async fn waiting_entries(
        &self,
        events: Vec<(Place, RemoteId)>,
    ) -> Result<Vec<(Place, RemoteId, EntryId)>, Error> {
        self.read("look for entries that wait for a room key", move |tx| {
            let mut query = tx.sql.prepare_cached(
                "SELECT id FROM journal WHERE place = ?1 AND event_id = ?2 AND missing_session IS NOT NULL",
            )?;
            let mut waiting = Vec::new();
            for (place, event_id) in &events {
                let entry = query
                    .query_row(params![place, event_id], |row| row.get(0))
                    .optional()?;
                waiting.extend(entry.map(|entry| (place.clone(), event_id.clone(), entry)));
            }
            Ok(waiting)
        })
        .await
    }

    /// The room key arrived: the entry gets its payload (or, with [`Payload::Skipped`], ends). If others have passed it, its
    /// deliveries are marked as late. Returns the lanes to wake; none if the entry does not wait.
    pub async fn fill(
        &self,
        entry: EntryId,
        payload: Payload,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("fill an entry", move |tx| fill(tx, entry, &payload, now))
            .await
    }
}

/// The cell in which the payload of an entry is sealed.
pub(crate) fn payload_cell(entry: EntryId) -> Cell {
    Cell {
        table: "journal",
        column: "payload",
        row: entry.0,
    }
}

/// The payload of an entry, decrypted, if it is still there.
pub(crate) fn open_payload(tx: &Tx<'_>, entry: EntryId) -> Result<Option<Vec<u8>>, TxError> {
    let sealed: Option<Vec<u8>> = tx
        .sql
        .prepare_cached("SELECT payload FROM journal WHERE id = ?1")?
        .query_row([entry], |row| row.get(0))
        .optional()?
        .flatten();
    sealed
        .map(|sealed| tx.seal.open(payload_cell(entry), &sealed))
        .transpose()
}

pub(crate) fn undecryptable_from_row(row: &Row<'_>) -> rusqlite::Result<UndecryptableEvent> {
    Ok(UndecryptableEvent {
        entry: row.get(0)?,
        place: row.get(1)?,
        event_id: row.get(2)?,
        session: row.get(3)?,
        raw: row.get(4)?,
    })
}

fn accept_arrival(
    tx: &Tx<'_>,
    graph: &PortalGraph,
    routing: &RoutingTable,
    arrival: &Arrival,
    of: ArrivalFacts<'_>,
    now: Millis,
) -> Result<Accepted, TxError> {
    let arrival = &Arrival {
        event_id: tx.seal.stored_id(&arrival.place, &arrival.event_id),
        ..arrival.clone()
    };
    if is_known(tx, arrival)? {
        return Ok(Accepted::Duplicate);
    }
    let reached = link_barriers::routes(graph, routing, &arrival.place, of.out_of_order_at);
    // A management room accepts only commands.
    let asked =
        matches!(arrival.payload, Payload::Command(_)) && graph.is_management_only(&arrival.place);
    // It may turn out to be a command when its room key arrives.
    let may_command = asked || may_be_command(graph, arrival);
    if reached.is_empty() && !may_command {
        return Ok(Accepted::NotLinked);
    }
    let entry = insert_event(tx, &arrival.place, &arrival.event_id, now)?;
    write_payload(tx, entry, &arrival.payload)?;
    if let Payload::Command(_) = arrival.payload {
        commands::add(tx, entry)?;
    }
    if let Some(message) = &arrival.message {
        let original = Copy {
            remote: message.clone(),
            thread: arrival.thread.clone(),
            sent_at: arrival.sent_at,
            file: None,
        };
        links::link(tx.sql, entry, &arrival.place, &original)?;
    }
    let mut lanes = Vec::new();
    let target = of.change.and_then(|change| change.target.as_ref());
    if let Some(target) = target {
        redacted_edits::note_change(tx, entry, arrival, target, of.change)?;
    }
    let is_retraction = of.change.is_some_and(|change| change.is_retraction);
    for (lane, to) in reached {
        // A redaction has no text that would have to stay in its room.
        let too_early =
            (!is_retraction).then(|| routing.skip_rule(&arrival.place, lane, of.out_of_order_at));
        let skipped = arrival.payload.skip_rule();
        if let Some(rule) = skipped.or(too_early.flatten()) {
            counters::skip_on_arrival(tx, entry, lane, &to, rule)?;
            let kept = skipped.is_none() || of.change.is_some_and(|change| change.stays);
            if let Some(target) = target.filter(|_| kept) {
                let message = MessageRef {
                    place: &arrival.place,
                    id: target,
                };
                pending_changes::cancel_if_untried(tx, message, &to, rule, now)?;
            }
        } else {
            let new = NewDelivery {
                entry,
                place: &arrival.place,
                event_id: &arrival.event_id,
                lane,
                to: &to,
                from: &arrival.place,
            };
            counters::enqueue(tx, new, now)?;
            lanes.push(lane);
        }
    }
    if lanes.is_empty() && matches!(arrival.payload, Payload::Ready(_)) {
        counters::erase_payload_if_unneeded(tx, entry)?;
    }
    Ok(Accepted::New(lanes))
}

/// Whether this was sent in a room where only commands are accepted, and waits for its room key.
fn may_be_command(graph: &PortalGraph, arrival: &Arrival) -> bool {
    matches!(arrival.payload, Payload::Undecryptable { .. })
        && graph.is_management_only(&arrival.place)
}

fn is_known(tx: &Tx<'_>, arrival: &Arrival) -> Result<bool, TxError> {
    if tx
        .sql
        .prepare_cached("SELECT 1 FROM journal WHERE place = ?1 AND event_id = ?2")?
        .exists(params![arrival.place, arrival.event_id])?
    {
        return Ok(true);
    }
    match &arrival.message {
        Some(message) => Ok(links::entry_of(tx.sql, &arrival.place, message)?.is_some()),
        None => Ok(false),
    }
}

/// Writes an event without its payload: that is sealed to the row that this creates.
pub(crate) fn insert_event(
    tx: &Tx<'_>,
    place: &Place,
    event_id: &RemoteId,
    now: Millis,
) -> Result<EntryId, TxError> {
    tx.sql
        .prepare_cached("INSERT INTO journal (place, event_id, accepted_at) VALUES (?1, ?2, ?3)")?
        .execute(params![place, event_id, now])?;
    Ok(EntryId(tx.sql.last_insert_rowid()))
}

/// Seals the payload of an entry into its row.
pub(crate) fn write_payload(tx: &Tx<'_>, entry: EntryId, payload: &Payload) -> Result<(), TxError> {
    let (payload, session, key_wait_until) = match payload {
        Payload::Ready(payload) | Payload::Command(payload) => (payload, None, None),
        Payload::Undecryptable {
            session,
            raw,
            key_wait_until,
        } => (
            raw,
            Some(columns::bound_name(session)),
            Some(key_wait_until),
        ),
        Payload::Skipped(_) => return Ok(()),
    };
    let sealed = tx.seal.seal(payload_cell(entry), payload)?;
    tx.sql
        .prepare_cached(
            "UPDATE journal SET payload = ?2, missing_session = ?3, key_wait_until = ?4 WHERE id = ?1",
        )?
        .execute(params![entry, sealed, session, key_wait_until])?;
    Ok(())
}

pub(crate) fn fill(
    tx: &Tx<'_>,
    entry: EntryId,
    payload: &Payload,
    now: Millis,
) -> Result<Vec<LaneId>, TxError> {
    let key_wait_until: Option<Millis> = tx
        .sql
        .prepare_cached(
            "SELECT key_wait_until FROM journal WHERE id = ?1 AND missing_session IS NOT NULL",
        )?
        .query_row([entry], |row| row.get(0))
        .optional()?;
    let Some(key_wait_until) = key_wait_until else {
        return Ok(Vec::new());
    };
    trust::release_hold(tx, entry)?;
    let deliveries = counters::pending_of_entry(tx.sql, entry)?;
    if let Payload::Command(_) = payload {
        write_payload(tx, entry, payload)?;
        commands::add(tx, entry)?;
    }
    if let Some(rule) = payload.skip_rule() {
        undecryptable::count(tx, entry, KeyWaitEnd::Skipped)?;
        for pending in &deliveries {
            counters::settle(tx, pending, DeliveryEnd::Skipped(rule))?;
        }
    } else {
        undecryptable::count(tx, entry, KeyWaitEnd::Decrypted)?;
        write_payload(tx, entry, payload)?;
        tx.mark_erased();
        if key_wait_until <= now {
            tx.sql
                .prepare_cached("UPDATE outbox SET late = 1 WHERE entry_id = ?1")?
                .execute([entry])?;
        }
    }
    if deliveries.is_empty() {
        counters::erase_payload_if_unneeded(tx, entry)?;
    }
    Ok(deliveries.into_iter().map(|pending| pending.lane).collect())
}
