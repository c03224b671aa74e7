//! Audits of rooms: the newest events of each portal's room are compared with the journal, because a homeserver's syncs
//! may omit an event without reporting a gap. An event that was missed is accepted, late.
//!
//! An event counts as missed when it is older than one that a sync has returned since; or when nothing newer has arrived
//! and a later audit still finds it. Events from before the link, from before the bridge's own join, or from before
//! every known event are not accepted.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use footbridge_core::inbox::{Batch, Inbox};
use footbridge_store::{Accepted, Flag, Place, RemoteId, Store};
use matrix_sdk::{Room, deserialized_responses::TimelineEvent, ruma::OwnedRoomId};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    MatrixError,
    account_client::AccountClient,
    event_fields::{DisplayNames, EventFields},
    history_pages::{id_of, page},
    journal_writer::JournalWriter,
    request_error::RequestError,
    room_flags::RoomFlags,
    rooms::{PortalRoom, RoomCursor},
    sync_state::SyncState,
    timeline::{EventOutcome, Timeline},
};

/// How many events are compared.
const PAGE_SIZE: u16 = 100;
/// The shortest time between two audit requests, however many rooms there are.
const MIN_AUDIT_PAUSE: Duration = Duration::from_secs(2);
/// When an event that no sync has returned yet is checked again.
const SECOND_LOOK_AFTER: Duration = Duration::from_mins(1);
/// How long audits pause where the homeserver rate-limits them without a delay.
const RATE_LIMIT_PAUSE: Duration = Duration::from_mins(5);

/// When each room is audited next, and what is known of its events.
#[derive(Debug, Default)]
pub(super) struct AuditSchedule {
    every: Duration,
    /// No room is audited before this.
    rest_until: Option<Instant>,
    rooms: HashMap<OwnedRoomId, RoomAudit>,
}

/// What is remembered of a room between two audits, for the events of one page.
#[derive(Debug)]
struct RoomAudit {
    due: Instant,
    /// Events that were processed and relayed nothing: the journal does not have them.
    nothing: HashSet<RemoteId>,
    /// Events newer than what the syncs have returned.
    unsynced: HashSet<RemoteId>,
}

impl AuditSchedule {
    /// The first audit of each room comes after one interval, the rooms spread over it.
    fn of<'a>(every: Duration, rooms: impl ExactSizeIterator<Item = &'a OwnedRoomId>) -> Self {
        let now = Instant::now();
        let count = u32::try_from(rooms.len()).unwrap_or(u32::MAX).max(1);
        let step = (every / count).max(MIN_AUDIT_PAUSE);
        let rooms = rooms.zip(1..).map(|(room, number): (_, u32)| {
            let audited = RoomAudit {
                due: now + step.saturating_mul(number),
                nothing: HashSet::new(),
                unsynced: HashSet::new(),
            };
            (room.clone(), audited)
        });
        Self {
            every,
            rest_until: None,
            rooms: rooms.collect(),
        }
    }

    /// When a room is to be audited.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let next = self.rooms.values().map(|audited| audited.due).min()?;
        Some(self.rest_until.map_or(next, |rest| next.max(rest)))
    }

    fn take_due(&mut self) -> Option<(OwnedRoomId, RoomAudit)> {
        let now = Instant::now();
        if self.rest_until.is_some_and(|rest| rest > now) {
            return None;
        }
        let mut rooms = self.rooms.iter();
        let (id, _) = rooms.find(|(_, audited)| audited.due <= now)?;
        let id = id.clone();
        let audited = self.rooms.remove(&id)?;
        // Rooms that are all overdue are audited one by one.
        self.rest_until = Some(now + MIN_AUDIT_PAUSE);
        Some((id, audited))
    }
}

/// What to do with the events of a page.
#[derive(Debug, PartialEq, Eq)]
struct PageFindings {
    /// Positions on the page of missed events, newest first.
    missed: Vec<usize>,
    /// Positions of events that no sync has returned yet and still may.
    unsynced: Vec<usize>,
}

/// What is known of a page, newest first, each item by position.
struct PageStatus<'a> {
    /// Up to where the syncs have come; `None` where that event is not on the page.
    mark: Option<usize>,
    /// The first event from before the link.
    unlinked: Option<usize>,
    /// The bridge's last join.
    entry: Option<usize>,
    /// Whether the event is in the journal, or was processed and relayed nothing.
    settled: &'a [bool],
    /// Whether the event is in the journal.
    journalled: &'a [bool],
    /// Whether an earlier audit found it as not returned by a sync.
    unsynced: &'a [bool],
}

fn findings(page: &PageStatus<'_>) -> PageFindings {
    let oldest_known = page.journalled.iter().rposition(|known| *known);
    let end = page.unlinked.or(oldest_known).unwrap_or_default();
    let end = page.entry.map_or(end, |entry| end.min(entry));
    let mut findings = PageFindings {
        missed: Vec::new(),
        unsynced: Vec::new(),
    };
    let mark = page.mark.unwrap_or(page.journalled.len());
    let open = page.settled.iter().zip(page.unsynced).enumerate().take(end);
    for (place, (_, unsynced)) in open.filter(|(_, (settled, _))| !**settled) {
        if place > mark || *unsynced {
            findings.missed.push(place);
        } else {
            findings.unsynced.push(place);
        }
    }
    findings
}

/// Audits the rooms of one account.
#[derive(Debug)]
pub(super) struct Auditor {
    pub account: AccountClient,
    pub store: Store,
    pub flags: Arc<RoomFlags>,
    pub timeline: Arc<Timeline>,
    pub journal: Arc<JournalWriter>,
    pub sync: Arc<SyncState>,
    /// How often each room is audited.
    pub every: Duration,
}

impl Auditor {
    /// When each of these rooms is audited.
    pub(super) fn schedule<'a>(
        &self,
        rooms: impl ExactSizeIterator<Item = &'a OwnedRoomId>,
    ) -> AuditSchedule {
        AuditSchedule::of(self.every, rooms)
    }

    /// Audits one room that is due. Events that arrive meanwhile wait for this one request at most.
    pub(super) async fn audit(
        &self,
        audits: &mut AuditSchedule,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let Some((id, mut audited)) = audits.take_due() else {
            return Ok(());
        };
        let now = Instant::now();
        audited.due = now + audits.every;
        // Events inside a gap come when the gap is filled. A gap of another room that cannot be filled must not stop
        // this audit.
        let followed = rooms.get(&id).filter(|followed| followed.gap.is_none());
        let room = self.account.client().get_room(&id);
        if let (Some(followed), Some(room)) = (followed, room) {
            match self.compare(&room, followed, &mut audited, inbox).await? {
                Ok(()) => {}
                Err(error @ RequestError::SignedOut(_)) => {
                    return Err(error.into_matrix_error("compare a room"));
                }
                Err(RequestError::RateLimited(wait)) => {
                    audits.rest_until = Some(now + wait.unwrap_or(RATE_LIMIT_PAUSE));
                }
                Err(_) => debug!(matrix.room = %id, "Audit failed; it will be retried"),
            }
        }
        if !audited.unsynced.is_empty() {
            audited.due = now + audits.every.min(SECOND_LOOK_AFTER);
        }
        audits.rooms.insert(id, audited);
        Ok(())
    }

    async fn compare(
        &self,
        room: &Room,
        followed: &PortalRoom,
        audited: &mut RoomAudit,
        inbox: &Inbox,
    ) -> Result<Result<(), RequestError>, MatrixError> {
        let Some(RoomCursor::Event(mark)) = &followed.mark else {
            return Ok(Ok(()));
        };
        let place = &followed.place;
        let mut names = DisplayNames::default();
        let events = match page(room, None, PAGE_SIZE, &mut names).await {
            Ok((events, _)) => events,
            Err(error) => return Ok(Err(error)),
        };
        let ids: Vec<Option<RemoteId>> = events.iter().map(id_of).collect();
        let named: Vec<RemoteId> = ids.iter().flatten().cloned().collect();
        let known = self.store.known_events(place, named.clone()).await?;
        let unlinked = self.store.events_before_link(place, named.clone()).await?;
        let each = |holds: &dyn Fn(&RemoteId) -> bool| -> Vec<bool> {
            let one = |id: &Option<RemoteId>| id.as_ref().is_none_or(holds);
            ids.iter().map(one).collect()
        };
        let is_entry = |event: &TimelineEvent| {
            EventFields::open(event)
                .is_some_and(|envelope| envelope.is_join_of(self.account.user()))
        };
        let nothing = &audited.nothing;
        let findings = findings(&PageStatus {
            mark: ids.iter().position(|id| id.as_ref() == Some(mark)),
            unlinked: ids
                .iter()
                .position(|id| id.as_ref().is_some_and(|id| unlinked.contains(id))),
            entry: events.iter().position(is_entry),
            settled: &each(&|id| known.contains(id) || nothing.contains(id)),
            journalled: &each(&|id| known.contains(id)),
            unsynced: &each(&|id| audited.unsynced.contains(id)),
        });
        let at = |places: &[usize]| -> Vec<RemoteId> {
            let ids = places.iter().filter_map(|at| ids.get(*at)?.clone());
            ids.collect()
        };
        audited.unsynced = at(&findings.unsynced).into_iter().collect();
        let looked_at = at(&findings.missed);
        let missed = findings
            .missed
            .iter()
            .rev()
            .filter_map(|at| events.get(*at));
        let missed = missed.collect();
        self.accept_missed(room, place, missed, &mut names, inbox)
            .await?;
        // Events that are in the journal by now need not be remembered, and do no harm.
        audited.nothing.extend(looked_at);
        let on_page: HashSet<RemoteId> = named.into_iter().collect();
        audited.nothing.retain(|id| on_page.contains(id));
        Ok(Ok(()))
    }

    /// Processes missed events, oldest first, and accepts them as late.
    async fn accept_missed(
        &self,
        room: &Room,
        place: &Place,
        events: Vec<&TimelineEvent>,
        names: &mut DisplayNames,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        if events.is_empty() {
            return Ok(());
        }
        // The audit does not look for the beginning of encryption: plaintext is relayed only where the room was never
        // encrypted.
        let encrypted = room.encryption_state().is_encrypted()
            || self.flags.was_encrypted(place).await?
            || self
                .flags
                .is_set(place, Flag::HistoryReachesEncrypted)
                .await?;
        let (mut batch, mut shared) = (Batch::default(), false);
        for event in events {
            match self
                .timeline
                .process(room, place, event, names, encrypted)
                .await
            {
                EventOutcome::Nothing => {}
                EventOutcome::Arrival(processed) => processed.file(&mut batch),
                EventOutcome::OwnAccount(processed) => {
                    shared = true;
                    processed.file(&mut batch);
                }
            }
        }
        if shared {
            inbox.wait_settled(place).await?;
        }
        let facts = batch.arrivals.iter();
        batch.late = facts
            .map(|one| (one.place.clone(), one.event_id.clone()))
            .collect();
        let accepted = self.journal.accept(batch, inbox).await?;
        let new = accepted
            .iter()
            .filter(|one| matches!(one, Accepted::New(_)));
        let count = new.count();
        if count > 0 {
            warn!(
                matrix.room = place.address(),
                count, "The homeserver's syncs omitted events; they are accepted late"
            );
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.sync.add_missed(count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions of missed and of unsynced events on a page written as `k`nown, `n`othing, `u`nsynced before, own
    /// `e`ntry, `?`.
    fn check(page: &str, mark: Option<usize>, unlinked: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let each = |letters: &str| -> Vec<bool> {
            page.chars().map(|one| letters.contains(one)).collect()
        };
        let findings = findings(&PageStatus {
            mark,
            unlinked,
            entry: page.find('e'),
            settled: &each("kn"),
            journalled: &each("k"),
            unsynced: &each("u"),
        });
        (findings.missed, findings.unsynced)
    }

    #[test]
    fn what_is_unknown_among_the_known_was_missed() {
        assert_eq!(check("kkkk", Some(0), None), (vec![], vec![]));
        assert_eq!(check("k?kn?k", Some(0), None), (vec![1, 4], vec![]));
        // Older than every known event: perhaps from before the link.
        assert_eq!(check("kk??", Some(0), None), (vec![], vec![]));
        assert_eq!(check("????", Some(0), None), (vec![], vec![]));
        // Up to the link, where that is on the page, and never beyond the bridge's own join.
        assert_eq!(check("k?e?k", Some(0), None), (vec![1], vec![]));
        assert_eq!(check("k?n?k??", Some(0), Some(6)), (vec![1, 3, 5], vec![]));
        assert_eq!(check("n??k", Some(0), Some(2)), (vec![1], vec![]));
    }

    #[test]
    fn what_is_newer_than_the_syncs_is_missed_at_the_second_look() {
        assert_eq!(check("??k?k", Some(2), None), (vec![3], vec![0, 1]));
        assert_eq!(check("?uk", Some(2), None), (vec![1], vec![0]));
        assert_eq!(check("??kk", None, None), (vec![], vec![0, 1]));
    }
}
