//! Which delivery of a lane is first, with its decrypted payload.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    ChosenSender, Delivery, DeliveryId, EntryId, Error, LaneId, Millis, Place, QueueHead, Store,
    counters,
    database::{Tx, TxError},
    journal, rewritten,
    routes::{Routes, RoutingTable},
    seal::Cell,
};

/// The order of a lane's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOrder {
    /// Urgent deliveries go first.
    #[default]
    UrgentFirst,
    /// A message that can be sent now goes before urgent deliveries.
    MessagesFirst,
}

/// The cell in which the plan of a delivery is sealed.
pub(crate) fn plan_cell(delivery: DeliveryId) -> Cell {
    Cell {
        table: "outbox",
        column: "plan",
        row: delivery.0,
    }
}

/// The rows of a lane, as [`queued_from_row`] reads them, that satisfy a condition and in its order.
macro_rules! select_queue {
    ($condition:literal) => {
        concat!(
            "SELECT o.id, o.entry_id, o.transaction_key, j.place, o.to_place, j.payload, o.plan, o.steps_done, o.attempts,
                    o.outcome_unknown_since, o.accepted_at, o.late, o.retry_at, j.key_wait_until, o.unanswered_since,
                    o.total_attempts, o.rejections, o.blame_ms, o.last_attempt_at,
                    EXISTS (SELECT 1 FROM parked_delivery p WHERE p.id = o.id), o.from_place, o.urgent, o.sender_id,
                    o.relay_chosen
             FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.portal_id = ?1 AND o.toward = ?2 AND ",
            $condition
        )
    };
}

const STARTED: &str = select_queue!(
    "(o.steps_done > 0 OR o.outcome_unknown_since IS NOT NULL)
      AND o.bundle_leader_id IS NULL
    ORDER BY o.id"
);

// Notices of the bridge precede the backlog.
const FIRST_URGENT: &str = select_queue!(
    "o.urgent = 1
    ORDER BY o.id LIMIT 1"
);

// An entry whose room key has been waited for long enough lets others pass. So does one from the future: the clock was put back,
// and nobody knows how long the key has been waited for. There is one query per place, through the index, so that the deliveries
// on hold from one place cost nothing.
const FIRST_PENDING: &str = select_queue!(
    "o.from_place = ?4 AND o.entry_id > ?5 AND (
        j.key_wait_until IS NULL OR j.key_wait_until > ?3 AND o.accepted_at <= ?3)
      AND o.bundle_leader_id IS NULL
    ORDER BY o.id LIMIT 1"
);

// The same without urgent deliveries.
const FIRST_MESSAGE: &str = select_queue!(
    "o.from_place = ?4 AND o.entry_id > ?5 AND (
        j.key_wait_until IS NULL OR j.key_wait_until > ?3 AND o.accepted_at <= ?3)
      AND o.bundle_leader_id IS NULL AND o.urgent = 0
    ORDER BY o.id LIMIT 1"
);

const LOOKAHEAD: &str = select_queue!(
    "o.from_place = ?4 AND o.entry_id > ?5 AND (
        j.key_wait_until IS NULL OR j.key_wait_until > ?3 AND o.accepted_at <= ?3)
      AND o.bundle_leader_id IS NULL AND o.id >= ?6
    ORDER BY o.id LIMIT ?7"
);

const BY_ID: &str = select_queue!("o.id = ?3");

/// What reading the head of a lane found.
enum HeadRead {
    /// The head.
    QueueHead(QueueHead),
    /// A bundle that was not attempted yet, and of which one delivery is on hold now: it must be split first.
    SplitBundle(DeliveryId),
}

impl Store {
    /// The head of the lane. A started delivery is first, then notices of the bridge, then the oldest.
    pub async fn queue_head(&self, lane: LaneId, now: Millis) -> Result<QueueHead, Error> {
        self.next_delivery(lane, QueueOrder::UrgentFirst, now).await
    }

    /// The same in turns: a lane that has just sent something urgent asks with [`QueueOrder::MessagesFirst`], so that many
    /// notices do not delay messages.
    pub async fn next_delivery(
        &self,
        lane: LaneId,
        turn: QueueOrder,
        now: Millis,
    ) -> Result<QueueHead, Error> {
        loop {
            let look = self.read("read the head of a lane", move |tx| {
                queue_head(tx, lane, turn, now)
            });
            match look.await? {
                HeadRead::QueueHead(head) => return Ok(head),
                HeadRead::SplitBundle(bundle_leader) => self.split_bundle(bundle_leader).await?,
            }
        }
    }
}

/// A row with sealed payload and plan.
struct QueuedRow {
    delivery: Delivery,
    /// Where its route begins.
    from: Place,
    sealed: Option<Vec<u8>>,
    retry_at: Millis,
    key_wait_until: Option<Millis>,
}

/// The head of the lane. Other deliveries pass those on hold, and the messages of one place stay in order.
fn queue_head(
    tx: &Tx<'_>,
    lane: LaneId,
    turn: QueueOrder,
    now: Millis,
) -> Result<HeadRead, TxError> {
    let routing = RoutingTable::load(tx.sql, now)?;
    let open = routing.open(lane);
    let bundle_state = bundle_state(tx, lane, &open)?;
    if let BundleState::MustSplit(bundle_leader) = bundle_state {
        return Ok(HeadRead::SplitBundle(bundle_leader));
    }
    let linked = routing.linked(lane);
    let stuck = match bundle_state {
        BundleState::OutcomeUnknown(bundle_leader) => Some(bundle_leader),
        _ => None,
    };
    let started = started(tx, lane, &open)?;
    let ordinary = if started.is_none() && turn == QueueOrder::MessagesFirst && stuck.is_none() {
        // One that cannot be sent yet does not delay notices.
        let first = first_pending(tx, lane, &linked, &open, FIRST_MESSAGE, now)?;
        first.filter(|queued| queued.key_wait_until.is_none() && queued.retry_at <= now)
    } else {
        None
    };
    let first = match started.or(ordinary) {
        Some(first) => Some(first),
        None => match (urgent(tx, lane)?, stuck) {
            (Some(urgent), _) => Some(urgent),
            (None, Some(bundle_leader)) => by_id(tx, lane, bundle_leader)?,
            (None, None) => first_pending(tx, lane, &linked, &open, FIRST_PENDING, now)?,
        },
    };
    let next_release = routing.next_release();
    let not_before = |retry_at: Millis| {
        QueueHead::NotBefore(next_release.map_or(retry_at, |opens| opens.min(retry_at)))
    };
    let Some(mut queued) = first else {
        return Ok(HeadRead::QueueHead(
            next_release.map_or(QueueHead::Empty, QueueHead::NotBefore),
        ));
    };
    if let Some(key_wait_until) = queued.key_wait_until {
        return Ok(HeadRead::QueueHead(not_before(key_wait_until)));
    }
    if queued.retry_at > now {
        return Ok(HeadRead::QueueHead(not_before(queued.retry_at)));
    }
    if let Some(path) = open.route(&queued.from, queued.delivery.entry) {
        queued.delivery.path.clone_from(&path.hops);
    }
    open_queued(tx, queued)
        .map(|delivery| HeadRead::QueueHead(QueueHead::Ready(Box::new(delivery))))
}

/// Whether the bundles of a lane can be sent as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BundleState {
    /// They can.
    Intact,
    /// Part of this one is on hold, and it was not attempted yet.
    MustSplit(DeliveryId),
    /// Part of this one is on hold, and it is unknown whether the message arrived. That must be found out first: until then no
    /// delivery of it can be sent alone, and later ones wait behind it.
    OutcomeUnknown(DeliveryId),
}

fn bundle_state(tx: &Tx<'_>, lane: LaneId, open: &Routes) -> Result<BundleState, TxError> {
    let leaders = tx
        .sql
        .prepare_cached(
            "SELECT DISTINCT r.bundle_leader_id, l.from_place, l.entry_id,
                    l.steps_done = 0 AND l.outcome_unknown_since IS NULL AND l.unanswered_since IS NULL
             FROM outbox r INDEXED BY outbox_bundle_leader CROSS JOIN outbox l ON l.id = r.bundle_leader_id
             WHERE r.bundle_leader_id IS NOT NULL AND l.portal_id = ?1 AND l.toward = ?2",
        )?
        .query_map(params![lane.portal, lane.toward], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<Vec<(DeliveryId, Place, EntryId, bool)>, _>>()?;
    let mut bundle_state = BundleState::Intact;
    for (bundle_leader, from, entry, untried) in leaders {
        let goes = open.allows(&from, entry);
        let members = counters::members_of(tx.sql, bundle_leader)?;
        let together = members
            .iter()
            .all(|(member, _)| open.allows(&member.from, member.entry) == goes);
        if !together {
            if untried {
                return Ok(BundleState::MustSplit(bundle_leader));
            }
            bundle_state = BundleState::OutcomeUnknown(bundle_leader);
        }
    }
    Ok(bundle_state)
}

/// The first started delivery. One with unknown outcome is returned even while it is on hold: looking for its copy shows nobody
/// anything, and the listener on the other side waits for the result.
fn started(tx: &Tx<'_>, lane: LaneId, open: &Routes) -> Result<Option<QueuedRow>, TxError> {
    let mut rows = tx.sql.prepare_cached(STARTED)?;
    let rows = rows.query_map(params![lane.portal, lane.toward], |row| {
        queued_from_row(row, lane)
    })?;
    for queued in rows {
        let queued = queued?;
        let outcome_unknown = queued.delivery.outcome_unknown_since.is_some();
        if outcome_unknown || open.allows(&queued.from, queued.delivery.entry) {
            return Ok(Some(queued));
        }
    }
    Ok(None)
}

/// The oldest that is not on hold.
fn first_pending(
    tx: &Tx<'_>,
    lane: LaneId,
    linked: &Routes,
    open: &Routes,
    which: &str,
    now: Millis,
) -> Result<Option<QueuedRow>, TxError> {
    let first_of_each_source = first_of_each_source(tx, lane, linked, open, which, now)?;
    let first_of_each_source = first_of_each_source.into_iter();
    Ok(first_of_each_source.min_by_key(|queued| queued.delivery.id))
}

/// The first delivery of each place, unless it is on hold: then all later ones from that place wait behind it, also those that
/// another route would carry.
fn first_of_each_source(
    tx: &Tx<'_>,
    lane: LaneId,
    linked: &Routes,
    open: &Routes,
    which: &str,
    now: Millis,
) -> Result<Vec<QueuedRow>, TxError> {
    let mut query = tx.sql.prepare_cached(which)?;
    let mut first_of_each_source = Vec::new();
    for (from, _) in open.all() {
        let oldest = query
            .query_row(
                params![
                    lane.portal,
                    lane.toward,
                    now,
                    from,
                    linked.linked_after(from)
                ],
                |row| queued_from_row(row, lane),
            )
            .optional()?;
        first_of_each_source
            .extend(oldest.filter(|queued| open.allows(from, queued.delivery.entry)));
    }
    Ok(first_of_each_source)
}

fn by_id(tx: &Tx<'_>, lane: LaneId, id: DeliveryId) -> Result<Option<QueuedRow>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(BY_ID)?
        .query_row(params![lane.portal, lane.toward, id], |row| {
            queued_from_row(row, lane)
        })
        .optional()?)
}

/// One delivery of a lane, if it is decrypted.
pub(crate) fn open_pending(
    tx: &Tx<'_>,
    lane: LaneId,
    id: DeliveryId,
) -> Result<Option<Delivery>, TxError> {
    let found = by_id(tx, lane, id)?.filter(|queued| queued.key_wait_until.is_none());
    found.map(|queued| open_queued(tx, queued)).transpose()
}

fn urgent(tx: &Tx<'_>, lane: LaneId) -> Result<Option<QueuedRow>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(FIRST_URGENT)?
        .query_row(params![lane.portal, lane.toward], |row| {
            queued_from_row(row, lane)
        })
        .optional()?)
}

/// The deliveries of the lane from this one on, up to the first at which it would wait, without those on hold.
pub(crate) fn lookahead(
    tx: &Tx<'_>,
    lane: LaneId,
    from: DeliveryId,
    limit: usize,
    now: Millis,
) -> Result<Vec<Delivery>, TxError> {
    let routing = RoutingTable::load(tx.sql, now)?;
    let (linked, open) = (routing.linked(lane), routing.open(lane));
    let mut query = tx.sql.prepare_cached(LOOKAHEAD)?;
    let mut waiting = Vec::new();
    for first in first_of_each_source(tx, lane, &linked, &open, FIRST_PENDING, now)? {
        let (place, after) = (&first.from, linked.linked_after(&first.from));
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(
            params![lane.portal, lane.toward, now, place, after, from, most],
            |row| queued_from_row(row, lane),
        )?;
        for queued in rows {
            waiting.push(queued?);
        }
    }
    waiting.sort_unstable_by_key(|queued| queued.delivery.id);
    let mut lookahead = Vec::new();
    for mut queued in waiting.into_iter().take(limit) {
        if queued.key_wait_until.is_some() {
            break;
        }
        if let Some(path) = open.route(&queued.from, queued.delivery.entry) {
            queued.delivery.path.clone_from(&path.hops);
            lookahead.push(open_queued(tx, queued)?);
        }
    }
    Ok(lookahead)
}

fn queued_from_row(row: &Row<'_>, lane: LaneId) -> rusqlite::Result<QueuedRow> {
    Ok(QueuedRow {
        delivery: Delivery {
            id: row.get(0)?,
            entry: row.get(1)?,
            lane,
            path: vec![lane],
            key: row.get(2)?,
            from: row.get(3)?,
            to: row.get(4)?,
            payload: Vec::new(),
            text_of: None,
            plan: row.get(6)?,
            steps_done: row.get(7)?,
            attempts: row.get(8)?,
            outcome_unknown_since: row.get(9)?,
            unanswered_since: row.get(14)?,
            accepted_at: row.get(10)?,
            late: row.get(11)?,
            tries: row.get(15)?,
            rejections: row.get(16)?,
            blame: Duration::from_millis(row.get(17)?),
            tried_at: row.get(18)?,
            is_retry: row.get(19)?,
            urgent: row.get(21)?,
            sender: match (row.get(22)?, row.get(23)?) {
                (Some(account), _) => ChosenSender::Personal(account),
                (None, true) => ChosenSender::Relay,
                (None, false) => ChosenSender::Open,
            },
        },
        from: row.get(20)?,
        sealed: row.get(5)?,
        retry_at: row.get(12)?,
        key_wait_until: row.get(13)?,
    })
}

fn open_queued(tx: &Tx<'_>, queued: QueuedRow) -> Result<Delivery, TxError> {
    let mut delivery = queued.delivery;
    let sealed = queued.sealed.ok_or(TxError::CorruptRow {
        table: "journal",
        row: delivery.entry.0,
    })?;
    delivery.text_of = rewritten::text_of(tx, delivery.entry, &delivery.to)?;
    delivery.payload = match rewritten::open(tx, delivery.entry, &delivery.to)? {
        Some(payload) => payload,
        None => tx
            .seal
            .open(journal::payload_cell(delivery.entry), &sealed)?,
    };
    delivery.plan = delivery
        .plan
        .map(|plan| tx.seal.open(plan_cell(delivery.id), &plan))
        .transpose()?;
    Ok(delivery)
}
