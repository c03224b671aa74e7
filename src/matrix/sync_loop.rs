//! The sync loop of the account. The events of a sync response are written to the journal together with the sync
//! cursor, in one transaction; only then is the next sync requested.

use std::{collections::HashMap, time::Duration};

use anyhow::anyhow;
use footbridge_core::{backoff::Backoff, crash_points, inbox::Inbox};
use footbridge_store::Place;
use futures_util::{
    StreamExt,
    future::{Either, select},
    stream::BoxStream,
};
use matrix_sdk::{ruma::OwnedRoomId, sync::SyncResponse};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Device, MatrixError,
    audit::AuditSchedule,
    client,
    gaps::GapFill,
    invites::Invites,
    late_keys::Wakeup,
    request_error::RequestError,
    rooms::{PortalRoom, RoomCursor},
    sync_coverage::{PendingSync, SyncSnapshot},
    verify::requests_in,
};

/// How long the homeserver may hold a sync open.
const LONG_POLL: Duration = Duration::from_secs(30);
/// The longest time that a sync response may take. The first sync, which the homeserver does not hold open, may take
/// the second addend.
pub(super) const MAX_SYNC: Duration = LONG_POLL.saturating_add(client::REQUEST_TIMEOUT);
/// How long a sync that the SDK is processing when the loop stops may take to finish.
const STOP_GRACE: Duration = Duration::from_millis(200);
/// A pause between syncs while responses with messages follow each other, so that there are fewer and larger responses.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Responses closer than this follow each other. A conversation of ten messages a second does not count as busy: there
/// the pause would only add a visible delay.
const BUSY_WITHIN: Duration = Duration::from_millis(40);
/// How often all events that wait for a room key are retried, whatever happens.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// Runs the sync loop until stopped.
pub(super) async fn listen(
    device: &Device,
    places: Vec<Place>,
    inbox: Inbox,
    stop: CancellationToken,
) -> Result<(), MatrixError> {
    if !device.lease.acquire(&stop).await? {
        return Ok(());
    }
    let mut listener = SyncLoop {
        device,
        rooms: device.inbound.portal_rooms.followed(places).await?,
        wakes: device.inbound.late_keys.wakeups().await?,
        duplicates: device
            .account
            .client()
            .subscribe_to_duplicate_key_upload_errors(),
        flight: device.sync.resume(),
        inbox,
        stop,
        invites: Invites::of(device.inbound.invitee.clone()),
        backoff: Backoff::default(),
        long_poll: Duration::ZERO,
        coverage: None,
        last_progress: None,
        next_sweep: Instant::now() + SWEEP_INTERVAL,
        audits: AuditSchedule::default(),
    };
    let joined = device.inbound.portal_rooms.with_channels().await?;
    let rooms = listener.rooms.iter();
    let deferred = rooms.filter(|(_, followed)| joined.contains(&followed.place));
    let deferred: Vec<_> = deferred.map(|(id, _)| id.clone()).collect();
    listener.audits = device.inbound.auditor.schedule(deferred.iter());
    device
        .inbound
        .coverage
        .defer_rooms(deferred.iter().cloned());
    let outcome = {
        tokio::select! {
            outcome = Box::pin(listener.run()) => outcome,
            lost = Box::pin(device.lease.maintain()) => Err(lost),
            over = Box::pin(device.session.maintain()) => Err(over),
            () = Box::pin(device.verifier.run()) => Ok(()),
            () = Box::pin(device.claims.follow(&deferred)) => Ok(()),
        }
    };
    device.verifier.cancel_all().await;
    listener.park().await;
    outcome
}

struct SyncLoop<'a> {
    device: &'a Device,
    rooms: HashMap<OwnedRoomId, PortalRoom>,
    wakes: BoxStream<'static, Wakeup>,
    duplicates:
        broadcast::Receiver<Option<matrix_sdk::encryption::DuplicateOneTimeKeyErrorMessage>>,
    /// The sync in flight.
    flight: Option<PendingSync>,
    inbox: Inbox,
    stop: CancellationToken,
    invites: Invites,
    backoff: Backoff,
    /// Zero until a sync response brings nothing, so that the bridge knows at once that a quiet account is alive and
    /// that it has caught up.
    long_poll: Duration,
    /// What was current when the last answered sync was requested: the next response reports what changed after that.
    coverage: Option<SyncSnapshot>,
    last_progress: Option<Instant>,
    next_sweep: Instant,
    audits: AuditSchedule,
}

/// What the loop waits for.
enum LoopEvent {
    Stopped,
    Answer(Box<matrix_sdk::Result<SyncResponse>>),
    Woken(Wakeup),
    /// The homeserver has one-time keys of this device that the device does not know.
    DuplicateKeys,
    /// A timer expired.
    Due,
}

/// What the loop does while a sync may be in flight.
enum LoopWork {
    Begin,
    Woken(Wakeup),
    Due,
}

impl SyncLoop<'_> {
    async fn run(&mut self) -> Result<(), MatrixError> {
        self.work_during_sync(LoopWork::Begin).await?;
        loop {
            let mut flight = if let Some(flight) = self.flight.take() {
                flight
            } else {
                let before = self.coverage.as_ref();
                let sync =
                    self.device
                        .inbound
                        .coverage
                        .begin_sync(&self.rooms, self.long_poll, before);
                sync.await?
            };
            let event = self.next(&mut flight).await;
            let work = match event {
                LoopEvent::Answer(answer) => {
                    match *answer {
                        Ok(response) => self.answered(response, flight.asked).await?,
                        Err(error) => self.failed(&error).await?,
                    }
                    continue;
                }
                LoopEvent::Woken(woken) => Ok(Some(LoopWork::Woken(woken))),
                LoopEvent::Due => Ok(Some(LoopWork::Due)),
                LoopEvent::Stopped => Ok(None),
                LoopEvent::DuplicateKeys => Err(MatrixError::StaleStore(
                    "the homeserver has one-time keys of this device that the store does not know"
                        .into(),
                )),
            };
            self.flight = Some(flight);
            match work? {
                Some(work) => self.work_during_sync(work).await?,
                None => return Ok(()),
            }
        }
    }

    /// Does some work while the sync in flight continues. The sync may hold locks of the SDK that the work needs, and
    /// would never release them if it were not polled.
    async fn work_during_sync(&mut self, work: LoopWork) -> Result<(), MatrixError> {
        let Some(mut flight) = self.flight.take() else {
            return Box::pin(self.work(work)).await;
        };
        let outcome = {
            let work = Box::pin(self.work(work));
            match select(work, &mut flight.answer).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right((answer, work)) => {
                    flight.answer = Box::pin(std::future::ready(answer));
                    work.await
                }
            }
        };
        self.flight = Some(flight);
        outcome
    }

    async fn work(&mut self, work: LoopWork) -> Result<(), MatrixError> {
        match work {
            LoopWork::Begin => {
                self.device
                    .inbound
                    .portal_rooms
                    .init(&mut self.rooms, &self.inbox, &self.stop)
                    .await?;
                self.device
                    .inbound
                    .coverage
                    .check_new_links(&self.rooms)
                    .await?;
                self.device
                    .inbound
                    .unjoined_rooms
                    .mark_left_rooms(&self.rooms)
                    .await?;
                self.device
                    .inbound
                    .unjoined_rooms
                    .open_entered_rooms(&self.rooms, &self.inbox)
                    .await?;
                self.device
                    .inbound
                    .plaintext_rooms
                    .record(&self.rooms)
                    .await?;
                self.invites.enter(&mut self.rooms, &self.inbox).await?;
                self.device
                    .inbound
                    .late_keys
                    .retry(None, &self.inbox)
                    .await?;
                self.device.inbound.key_waits.check(&self.inbox).await?;
                self.fill_gaps().await
            }
            LoopWork::Woken(woken) => {
                self.device
                    .inbound
                    .late_keys
                    .handle_wakeup(woken, &self.inbox)
                    .await?;
                self.device
                    .inbound
                    .notices
                    .notify_resolved(&self.inbox)
                    .await
            }
            LoopWork::Due => self.due().await,
        }
    }

    async fn next(&mut self, flight: &mut PendingSync) -> LoopEvent {
        let due = self.next_due();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => LoopEvent::Stopped,
            answer = &mut flight.answer => LoopEvent::Answer(Box::new(answer)),
            Some(woken) = self.wakes.next() => LoopEvent::Woken(woken),
            duplicate = self.duplicates.recv() => match duplicate {
                Ok(_) | Err(RecvError::Lagged(_)) => LoopEvent::DuplicateKeys,
                // The client was dropped, and no error can be reported any more.
                Err(RecvError::Closed) => LoopEvent::Stopped,
            },
            () = sleep_until(due) => LoopEvent::Due,
        }
    }

    /// Keeps the sync in flight for the next run of the loop: if it were dropped, messages that the SDK counts as seen
    /// could be lost with it.
    async fn park(&mut self) {
        let Some(mut flight) = self.flight.take() else {
            return;
        };
        if let Ok(answer) = timeout(STOP_GRACE, &mut flight.answer).await {
            flight.answer = Box::pin(std::future::ready(answer));
        }
        self.device.sync.suspend(flight);
    }

    fn next_due(&self) -> Instant {
        let gaps = self
            .rooms
            .values()
            .filter(|room| room.gap.is_some())
            .map(|room| room.gap_retry_at);
        gaps.chain(self.device.inbound.late_keys.next_deadline())
            .chain(self.device.inbound.key_waits.next_check())
            .chain(self.audits.next_due())
            .fold(self.next_sweep, Instant::min)
    }

    async fn due(&mut self) -> Result<(), MatrixError> {
        self.device.inbound.late_keys.give_up(&self.inbox).await?;
        let look = self.device.inbound.key_waits.next_check();
        if look.is_some_and(|at| at <= Instant::now()) {
            self.device.inbound.key_waits.check(&self.inbox).await?;
        }
        if self.next_sweep <= Instant::now() {
            self.next_sweep = Instant::now() + SWEEP_INTERVAL;
            self.device.inbound.late_keys.sweep(&self.inbox).await?;
        }
        self.fill_gaps().await?;
        self.device
            .inbound
            .auditor
            .audit(&mut self.audits, &self.rooms, &self.inbox)
            .await
    }

    async fn answered(
        &mut self,
        response: SyncResponse,
        asked: Option<SyncSnapshot>,
    ) -> Result<(), MatrixError> {
        crash_points::point("sync.received");
        self.device.sync.arrived();
        self.device.session.keep().await?;
        self.backoff.worked();
        self.device.sync.answered();
        // Events that earlier responses had left to fetch may have arrived since.
        if let Some(before) = self.coverage.take() {
            self.device.inbound.coverage.note_covered(&before).await?;
        }
        let has_messages = response
            .rooms
            .joined
            .values()
            .any(|room| !room.timeline.events.is_empty());
        let rooms = &response.rooms;
        self.invites.renewed(rooms.invited.keys(), &self.rooms);
        let no_rooms = rooms.joined.is_empty() && rooms.invited.is_empty() && rooms.left.is_empty();
        let is_empty = no_rooms && response.to_device.is_empty();
        let requests = requests_in(&self.device.account, &response);
        self.device
            .inbound
            .responses
            .save(&mut self.rooms, &self.inbox, response)
            .await?;
        self.device
            .verifier
            .handle_requests(requests, &self.inbox)
            .await?;
        self.invites.answer(&mut self.rooms, &self.inbox).await?;
        self.fill_gaps().await?;
        self.coverage = self
            .device
            .inbound
            .coverage
            .sync_applied(&self.rooms, asked)
            .await?;
        if is_empty {
            self.long_poll = LONG_POLL;
            self.device.sync.caught_up();
        }
        if has_messages {
            let busy = self
                .last_progress
                .is_some_and(|at| at.elapsed() < BUSY_WITHIN);
            self.last_progress = Some(Instant::now());
            if busy {
                rest(BUSY_PAUSE, &self.stop).await;
            }
        }
        Ok(())
    }

    async fn failed(&mut self, error: &matrix_sdk::Error) -> Result<(), MatrixError> {
        self.coverage = None;
        self.device.sync.failed();
        if !matches!(error, matrix_sdk::Error::Http(_)) {
            // The SDK received the response and could not store it. Continuing would skip the response; a restart does
            // not.
            return Err(MatrixError::Unavailable(anyhow!(
                "the SDK could not store a sync response: {error}"
            )));
        }
        let wait = match RequestError::from(error) {
            error @ RequestError::SignedOut(_) => return Err(error.into_matrix_error("sync")),
            RequestError::RateLimited(Some(wait)) => wait.max(self.backoff.failed()),
            _ => self.backoff.failed(),
        };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(wait_ms, error = %error, "The homeserver does not answer; trying again");
        rest(wait, &self.stop).await;
        Ok(())
    }

    /// Fills every gap that is due.
    async fn fill_gaps(&mut self) -> Result<(), MatrixError> {
        for (id, followed) in &mut self.rooms {
            let Some(mut gap) = followed
                .gap
                .clone()
                .filter(|_| followed.gap_retry_at <= Instant::now())
            else {
                continue;
            };
            // The room is not known after a start without network; the first sync brings it.
            let Some(room) = self.device.account.client().get_room(id) else {
                followed.gap_retry_at = Instant::now() + followed.backoff.failed();
                continue;
            };
            let filled = self
                .device
                .inbound
                .gaps
                .fill(&room, &mut gap, &self.inbox, &self.stop)
                .await?;
            followed.gap = Some(gap);
            match filled {
                GapFill::Complete(newest) => {
                    if let Some(newest) = newest {
                        followed.mark = Some(RoomCursor::Event(newest));
                    }
                    followed.gap = None;
                    followed.backoff.worked();
                    info!(matrix.room = %id, "Filled a gap");
                }
                GapFill::Stopped => return Ok(()),
                GapFill::Failed(error @ RequestError::SignedOut(_)) => {
                    return Err(error.into_matrix_error("read history"));
                }
                GapFill::Failed(error) => {
                    let wait = followed.backoff.failed();
                    followed.gap_retry_at = Instant::now() + wait;
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let error = format!("{:#}", error.into_matrix_error("read history"));
                    warn!(matrix.room = %id, wait_ms, error, "Failed to fill a gap; trying again");
                }
            }
        }
        Ok(())
    }
}

async fn rest(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(wait) => {}
    }
}
