//! A portal links one room and one channel; a [`Lane`] is one direction of a portal. A lane takes the head of its queue, sends
//! it, settles it, and only then takes the next delivery: this alone keeps the order.
//!
//! A lane does not know Matrix or any silo, only [`Outlet`]. The outbox table is the queue; a signal only wakes the lane.

mod coalesce;
mod pending_changes;
mod relay_filter;
mod closed;
mod edits;
mod reconcile;
mod media_links;
mod failure;
mod failed_sends;
pub mod notice_texts;
mod outlet_health;
mod images;
mod reactions;
mod execute;
mod step_attempt;
mod fallback;
mod redacted_edits;
mod removals;
pub mod personal_accounts;
mod sender;
mod settle;

use std::{sync::Arc, time::Duration};

use footbridge_store::{
    Copies, Copy, Delivery, Error, LaneId, Place, QueueHead, QueueOrder, Side, SkipRule, Store,
    TextCarrier, Undelivered,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use coalesce::Coalesced;
use edits::{copies_to_edit, with_edit_removals, with_leftovers, without_removed};
use failed_sends::BeforeRetry;
pub use failure::RetryLimits;
pub use outlet_health::OutletHealth;
use redacted_edits::CurrentText;
pub use relay_filter::{EncryptedPolicy, RelayFilter, RelayFilters};
use removals::{edited_anew, removals, with_removals};
pub use sender::LaneSender;

use crate::{
    backoff,
    budget::{Budget, Permit},
    clock::Clock,
    inbox::Signals,
    media_links::MediaLinks,
    message::{Action, Message},
    outlet::{Outgoing, Outlet, Plan, SendError},
    peer_bridges::PeerBridges,
    persons::People,
    spool::Spool,
};

/// An idle lane queries the outbox at this interval even without a signal.
const SLOW_POLL: Duration = Duration::from_secs(30);

/// What a lane needs from the rest of the bridge.
#[derive(Clone)]
pub struct Lane {
    /// Which lane this is.
    pub id: LaneId,
    /// The outlet to which it delivers.
    pub outlet: Arc<dyn Outlet>,
    /// Which accounts may send beside the one of the outlet.
    pub sender: LaneSender,
    /// The outlet of the source side: the lane fetches files from there.
    pub source: Arc<dyn Outlet>,
    /// Where files are spooled between download and upload.
    pub spool: Spool,
    /// The store with its pending deliveries.
    pub store: Store,
    /// The signals that wake it.
    pub signals: Signals,
    /// The clock.
    pub clock: Clock,
    /// How many attempts and how much time one message may take.
    pub limits: RetryLimits,
    /// The health of the outlet, shared by all lanes that deliver to it.
    pub health: OutletHealth,
    /// The rate limit of the account on its target side.
    pub budget: Budget,
    /// Whether messages that wait for that rate limit may be coalesced into one.
    pub coalesce: bool,
    /// What is relayed only where the configuration says so: of this portal, and of the portals that a message passes before it.
    pub filters: RelayFilters,
    /// The persons who can be mentioned.
    pub people: People,
    /// Creates links to files, if the operator runs a media gateway.
    pub links: Option<MediaLinks>,
    /// Which rooms are bridged to which channels.
    pub peer_bridges: PeerBridges,
}

/// Why a lane no longer runs.
#[derive(Debug, PartialEq, Eq)]
pub enum LaneEnd {
    /// It was stopped.
    Stopped,
    /// The bridge's account on the target side is signed out. The pending deliveries stay in the outbox.
    SignedOut,
}

/// How one attempt left the head of the queue.
enum Attempt {
    /// The head is settled or postponed; the store knows when it is due.
    Settled,
    SignedOut,
    /// Stopped while waiting.
    Stopped,
}

impl Lane {
    /// Delivers the lane's pending deliveries until it is stopped. Stops only between attempts. A store error ends it.
    pub async fn run(self, stop: CancellationToken) -> Result<LaneEnd, Error> {
        let signal = self.signals.of_lane(self.id);
        let now = self.clock.now();
        let latest = now.plus(backoff::CEILING);
        self.store
            .start_lane(self.id, now, latest, self.is_idempotent())
            .await?;
        self.resume_state().await?;
        let mut turn = QueueOrder::UrgentFirst;
        loop {
            if stop.is_cancelled() {
                return Ok(LaneEnd::Stopped);
            }
            self.note_opened().await?;
            let wait = match self
                .store
                .next_delivery(self.id, turn, self.clock.now())
                .await?
            {
                QueueHead::Ready(delivery) => {
                    // While messages wait, at most every second event is one that the bridge itself sends.
                    turn = if delivery.urgent {
                        QueueOrder::MessagesFirst
                    } else {
                        QueueOrder::UrgentFirst
                    };
                    match self.deliver_by_sender(*delivery, &stop).await? {
                        Attempt::Settled => continue,
                        Attempt::SignedOut => return Ok(LaneEnd::SignedOut),
                        Attempt::Stopped => return Ok(LaneEnd::Stopped),
                    }
                }
                QueueHead::NotBefore(due) => due.since(self.clock.now()),
                QueueHead::Empty => SLOW_POLL,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = signal.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// One attempt at one delivery: performs its remaining steps until one fails.
    async fn deliver(
        &self,
        delivery: Delivery,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let Ok(message) = Message::from_bytes(&delivery.payload) else {
            let reason = "it was stored by another version and cannot be read".to_owned();
            return self.fail(&delivery, "unreadable", reason, None).await;
        };
        if self.id.toward == Side::Matrix {
            let origin = self.source.bridge_marker(&delivery.from);
            self.peer_bridges
                .update(&delivery.to, &delivery.from, origin);
        }
        let is_edit = matches!(message.action, Action::Edit { .. });
        let current_text = self.current_text(&delivery, message.clone(), stop);
        let (message, restored) = match current_text.await? {
            CurrentText::Text(message) => (message, None),
            CurrentText::Restores(message, carriers) => (message, Some(carriers)),
            CurrentText::Removes(message, carriers) => {
                let steps = removals(&carriers);
                return self.execute(&delivery, &message, &steps, None, stop).await;
            }
            CurrentText::PlansAgain => return Ok(Attempt::Settled),
            CurrentText::Nothing(rule) => return self.skip(&delivery, rule).await,
            CurrentText::Unknown(error) => {
                return self
                    .handle_plan_error(&delivery, error, &message, stop)
                    .await;
            }
            CurrentText::Stopped => return Ok(Attempt::Stopped),
        };
        let found = self.find_before_retry(&delivery, &message, stop);
        let may_change = match found.await? {
            BeforeRetry::NotSent => true,
            BeforeRetry::MayBeSent => false,
            BeforeRetry::Ends(attempt) => return Ok(attempt),
        };
        let (mut turn, mut bound) = (None, None);
        if coalesce::may_coalesce(&delivery, &message) {
            let Some(permit) = self.acquire_permit(&message, stop).await else {
                return Ok(Attempt::Stopped);
            };
            turn = Some(permit);
        }
        if matches!(message.action, Action::Post { .. }) && coalesce::was_never_tried(&delivery) {
            // If edits or a deletion changed the message, it is read again.
            if self.was_changed(&delivery, &message, may_change).await? {
                return Ok(Attempt::Settled);
            }
        }
        if turn.as_ref().is_some_and(Permit::is_limited) {
            match self.coalesce(&delivery, &message).await? {
                Coalesced::Alone => {}
                Coalesced::Together(plan) => bound = Some(Ok(plan)),
                Coalesced::Settled => return Ok(Attempt::Settled),
            }
        }
        if bound.is_none() && self.queue_behind_target(&delivery, &message).await? {
            return Ok(Attempt::Settled);
        }
        let plan = match bound {
            Some(plan) => plan,
            None => self.plan(&delivery, &message, restored.as_deref()).await?,
        };
        let plan = if is_edit {
            plan.map(removals::mark_by_edit)
        } else {
            plan
        };
        let steps = match plan {
            Ok(Plan::Steps(steps)) if !steps.is_empty() => steps,
            Ok(Plan::Steps(_)) => return self.skip(&delivery, SkipRule::NothingToDo).await,
            Ok(Plan::Skip(rule)) => return self.skip(&delivery, rule).await,
            Err(refusal) => {
                return self
                    .handle_plan_error(&delivery, refusal, &message, stop)
                    .await;
            }
        };
        if restored.is_some() {
            // If another edit is redacted before this one is answered, it must not be retried with the same transaction key and
            // another text.
            self.save_plan(&delivery, &steps).await?;
        }
        self.execute(&delivery, &message, &steps, turn, stop).await
    }

    /// The plan: the saved one, or a new one. `restored`: the message is the text from before an edit that was redacted, and this
    /// contains the edit's text.
    async fn plan(
        &self,
        delivery: &Delivery,
        message: &Message,
        restored: Option<&[TextCarrier]>,
    ) -> Result<Result<Plan, SendError>, Error> {
        if let Some(plan) = self.saved_plan(delivery, message).await? {
            return Ok(Ok(plan));
        }
        let mut passed = self.passed(delivery);
        if let Some(rule) = passed.find_map(|(toward, filters)| filters.skip_rule(message, toward))
        {
            return Ok(Ok(Plan::Skip(rule)));
        }
        let mut known = self.target_copies(delivery, message).await?;
        if let Some(plan) = self
            .plan_if_written_elsewhere(delivery, message, &known)
            .await?
        {
            return Ok(Ok(plan));
        }
        if let Some(plan) = self.plan_reaction(delivery, message, &known).await? {
            return Ok(Ok(plan));
        }
        if let Action::Edit { target, .. } = &message.action {
            match self
                .edit_skip_rule(delivery, message, target, &known)
                .await?
            {
                Ok(None) => {}
                Ok(Some(rule)) => return Ok(Ok(Plan::Skip(rule))),
                Err(error) => return Ok(Err(error)),
            }
            self.revoke_media_links(message, &known).await?;
            if known.pending.is_some() && known.copies.is_empty() {
                // The target message still waits for its room key: the edit contains the whole text, and is decrypted.
                return self.fill_by_edit(delivery, message, &known).await;
            }
        }
        if let Action::Delete { target } = &message.action {
            match self
                .prepare_deletion(delivery, message, target, known)
                .await?
            {
                Ok(copies) => known = copies,
                Err(plan) => return Ok(plan),
            }
        }
        let mut outgoing = Outgoing {
            key: delivery.key.clone(),
            to: delivery.to.clone(),
            message: self.with_mentions_resolved(delivery, message),
            permalink: self.permalink(&delivery.to, &known.copies),
            copies: copies_to_edit(message, &known),
            late: delivery.late,
        };
        if matches!(message.action, Action::Edit { .. })
            && self.has_absent_owner(&delivery.to, &known).await?
        {
            let anew = edited_anew(outgoing, known.copies.first());
            return Ok(Ok(self.outlet.plan(&anew, self.clock.now())));
        }
        let carriers = restored
            .filter(|_| self.outlet.capabilities().can_delete())
            .unwrap_or_default();
        if let (Some(slot), Action::Edit { .. } | Action::Delete { .. }) =
            (known.slot, &message.action)
        {
            let mut plan = self.outlet.plan_part_edit(&outgoing, slot);
            if matches!(message.action, Action::Delete { .. }) && outgoing.copies.len() > 1 {
                // It was sent again by itself, because nobody could tell whether the bundle had arrived.
                outgoing.copies.remove(0);
                plan = plan.and(self.outlet.plan(&outgoing, self.clock.now()));
            }
            let plan = with_removals(plan, carriers, &known.copies, message);
            return Ok(Ok(with_edit_removals(plan, message, &known)));
        }
        self.leave_out(&mut outgoing, carriers);
        let plan = self
            .plan_with_media_links(delivery, &known, outgoing)
            .await?;
        let plan = without_removed(plan, message, &known);
        let plan = with_removals(plan, carriers, &known.copies, message);
        let plan = with_edit_removals(plan, message, &known);
        if !matches!(message.action, Action::Delete { .. }) {
            return Ok(Ok(plan));
        }
        let plan = with_leftovers(plan, &known.leftovers);
        let plan = self.with_summary_removal(delivery, &known, plan);
        plan.await.map(Ok)
    }

    /// The stored copies of the message that this one is about.
    async fn target_copies(&self, delivery: &Delivery, message: &Message) -> Result<Copies, Error> {
        let Some(target) = message.target() else {
            return Ok(Copies::default());
        };
        let (from, to) = (&delivery.from, &delivery.to);
        let mut known = self.store.copies(from, target, to).await?;
        if let (Action::Post { .. }, true, Some(entry)) =
            (&message.action, known.copies.is_empty(), known.entry)
        {
            known.copies = self.store.emptied_copies(entry, to).await?;
        }
        Ok(known)
    }

    /// The address of the first of these copies.
    fn permalink(&self, to: &Place, copies: &[Copy]) -> Option<String> {
        let first = copies.first()?;
        self.outlet.permalink(to, &first.remote)
    }

    /// The portals that a delivery passes: in which direction, and with which filter.
    fn passed(&self, delivery: &Delivery) -> impl Iterator<Item = (Side, RelayFilter)> {
        let hops = delivery.path.iter();
        hops.map(|hop| (hop.toward, self.filters.of(hop.portal)))
    }

    /// The message with its mentions resolved to persons that the target side knows.
    fn with_mentions_resolved(&self, delivery: &Delivery, message: &Message) -> Message {
        let silo = match self.id.toward {
            Side::Matrix => &delivery.from,
            Side::Silo => &delivery.to,
        };
        self.people
            .resolve_mentions(message, silo.network(), self.id.toward)
    }

    async fn skip(&self, delivery: &Delivery, rule: SkipRule) -> Result<Attempt, Error> {
        let how = Undelivered::Skipped(rule);
        self.store
            .end_undelivered(delivery.id, how, self.clock.now())
            .await?;
        self.signals.notify_step_settled();
        debug!(delivery.id = delivery.id.0, rule = rule.as_str(), "Skipped");
        if delivery.is_retry {
            self.refresh_notices().await?;
        }
        Ok(Attempt::Settled)
    }
}
