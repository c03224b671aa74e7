//! What a lane does while the account on its target side is rate limited: it waits for a permit, and then combines the
//! deliveries that wait. Messages behind the head may be coalesced into one, and a message that was edited or deleted in the
//! meantime is never sent as it was.

use footbridge_store::{
    Bundle, Copies, Delivery, DeliveryId, EntryId, Error, MergedMessage, Millis, RemoteId,
    SkipRule, Undelivered,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Attempt, Lane, failure::FailedAttempt};
use crate::{
    budget::{Permit, Priority},
    crash_points,
    message::{Action, Message},
    outlet::{Outgoing, Plan, SendError, Step},
};

/// How many deliveries behind the head a lane reads.
const LOOKAHEAD: usize = 64;

/// The result of the lookahead in the queue.
pub(super) enum Coalesced {
    /// The head is sent by itself.
    Alone,
    /// Others are sent with it by this plan, which is saved.
    Together(Plan),
    /// The head is settled, or its text changed: it is read again.
    Settled,
}

/// A message that may be part of a bundle.
struct Member {
    id: DeliveryId,
    outgoing: Outgoing,
    /// The edit whose text it has.
    text_of: Option<EntryId>,
    /// The edits that wait behind it.
    changes: Changes,
}

/// The edits that wait behind a message.
#[derive(Default)]
pub(super) struct Changes {
    /// The edits that its text includes, oldest first, each with the message as it reads after the edit.
    pub in_it: Vec<(DeliveryId, Vec<u8>)>,
    /// The edits that were redacted before they were delivered anywhere.
    pub redacted: Vec<DeliveryId>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.in_it.is_empty() && self.redacted.is_empty()
    }

    /// The edits, each with the rule by which it ends.
    pub fn ended(&self) -> Vec<(DeliveryId, SkipRule)> {
        let in_it = self.in_it.iter();
        let in_it = in_it.map(|(edit, _)| (*edit, SkipRule::EditIncluded));
        let redacted = self
            .redacted
            .iter()
            .map(|edit| (*edit, SkipRule::EditRedacted));
        in_it.chain(redacted).collect()
    }

    /// Includes an edit in the message, which it changes. `text_of` is the edit whose text the message has already: an older one,
    /// whose room key came late, changes nothing, and ends in its own turn.
    pub fn include(
        &mut self,
        delivery: &Delivery,
        edit: &Message,
        message: &mut Message,
        text_of: Option<EntryId>,
    ) {
        if text_of.is_some_and(|newer| delivery.entry < newer) {
            return;
        }
        rewrite(message, edit);
        // The message is serialised in the form in which it was read.
        let payload = message.to_bytes().ok();
        self.in_it
            .extend(payload.map(|payload| (delivery.id, payload)));
    }

    /// The message merged with these edits.
    pub fn of(&self, message: DeliveryId) -> MergedMessage {
        MergedMessage {
            message,
            edits: self.in_it.clone(),
        }
    }
}

impl Lane {
    /// Waits for a permit for this lane; `None` when stopped before it came.
    pub(super) async fn acquire_permit(
        &self,
        message: &Message,
        stop: &CancellationToken,
    ) -> Option<Permit> {
        let priority = match message.action {
            Action::Edit { .. }
            | Action::React { .. }
            | Action::Unreact { .. }
            | Action::Marker { .. } => Priority::Edit,
            Action::Delete { .. } => Priority::Deletion,
            Action::Post { .. }
            | Action::Unsupported { .. }
            | Action::System { .. }
            | Action::Bridge { .. } => Priority::Text,
        };
        tokio::select! {
            biased;
            permit = self.budget.acquire(self.id, priority) => Some(permit),
            () = stop.cancelled() => None,
        }
    }

    /// Reads the queue behind a head that may be coalesced.
    pub(super) async fn coalesce(
        &self,
        head: &Delivery,
        message: &Message,
    ) -> Result<Coalesced, Error> {
        let now = self.clock.now();
        let waiting = self
            .store
            .lookahead(self.id, head.id, LOOKAHEAD, now)
            .await?;
        let copies = match message.target() {
            Some(target) => self.store.copies(&head.from, target, &head.to).await?,
            None => Copies::default(),
        };
        let mut members: Vec<Member> = Vec::new();
        let mut open = true;
        for next in &waiting {
            let Ok(said) = Message::from_bytes(&next.payload) else {
                break;
            };
            match &said.action {
                Action::Edit { target, .. } if was_never_tried(next) => {
                    if let Some(at) = self.find(&members, next, target).await?
                        && let Some(member) = members.get_mut(at)
                    {
                        if self.store.is_edit_redacted(next.entry).await? {
                            member.changes.redacted.push(next.id);
                        } else {
                            let message = &mut member.outgoing.message;
                            member.changes.include(next, &said, message, member.text_of);
                        }
                    }
                }
                Action::Delete { target } if was_never_tried(next) => {
                    if let Some(at) = self.find(&members, next, target).await? {
                        self.cancel_both(members.remove(at), next.id, now).await?;
                        if at == 0 {
                            return Ok(Coalesced::Settled);
                        }
                    }
                }
                // They change nothing that is new, and may be delivered later.
                Action::Edit { .. }
                | Action::Delete { .. }
                | Action::React { .. }
                | Action::Unreact { .. }
                | Action::Marker { .. } => {}
                Action::Post { thread, .. }
                    if open
                        && may_coalesce(next, &said)
                        && (next.id == head.id || !self.has_own_sender(next, &said))
                        && members.first().is_none_or(|first| {
                            thread_of(&first.outgoing.message) == Some(thread)
                        }) =>
                {
                    members.push(Member {
                        id: next.id,
                        text_of: next.text_of,
                        outgoing: Outgoing {
                            key: next.key.clone(),
                            to: next.to.clone(),
                            message: said,
                            copies: copies.copies.clone(),
                            permalink: None,
                            late: false,
                        },
                        changes: Changes::default(),
                    });
                }
                // A new message never overtakes another new message.
                _ => open = false,
            }
        }
        if members.first().map(|first| first.id) != Some(head.id) {
            return Ok(Coalesced::Alone);
        }
        self.save_bundle(members).await
    }

    /// Saves the coalesced messages as a bundle.
    async fn save_bundle(&self, mut members: Vec<Member>) -> Result<Coalesced, Error> {
        let outgoing: Vec<Outgoing> = members
            .iter()
            .map(|member| member.outgoing.clone())
            .collect();
        let bundle = self.outlet.plan_bundle(&outgoing).filter(|_| self.coalesce);
        let Some((step, count)) = bundle else {
            let Member { id, changes, .. } = members.swap_remove(0);
            if changes.is_empty() {
                return Ok(Coalesced::Alone);
            }
            self.store
                .include_edits(changes.of(id), changes.ended())
                .await?;
            return Ok(Coalesced::Settled);
        };
        members.truncate(count);
        let plan = Plan::Steps(vec![step]);
        let changed = members.iter().filter(|member| !member.changes.is_empty());
        let merged = changed.clone().map(|member| member.changes.of(member.id));
        let bundle = Bundle {
            plan: serde_json::to_vec(&plan).unwrap_or_default(),
            members: members.iter().map(|member| member.id).collect(),
            merged: merged.collect(),
            included: changed.flat_map(|member| member.changes.ended()).collect(),
        };
        if !self.store.create_bundle(bundle).await? {
            return Ok(Coalesced::Settled);
        }
        crash_points::point("bundle.saved");
        debug!(messages = count, "Messages coalesced");
        Ok(Coalesced::Together(plan))
    }

    /// The member that an edit or deletion is about.
    async fn find(
        &self,
        members: &[Member],
        change: &Delivery,
        target: &RemoteId,
    ) -> Result<Option<usize>, Error> {
        let known = self.store.copies(&change.from, target, &change.to).await?;
        let is_in_origin = known.home.as_ref() == Some(&change.from);
        Ok(known
            .pending
            .filter(|_| is_in_origin)
            .and_then(|pending| members.iter().position(|member| member.id == pending)))
    }

    /// A message was deleted before it was sent: neither it nor its deletion is delivered.
    async fn cancel_both(
        &self,
        member: Member,
        deletion: DeliveryId,
        now: Millis,
    ) -> Result<(), Error> {
        let deleted = [(member.id, SkipRule::DeletedBeforeDelivery)].into_iter();
        let edits = member.changes.ended().into_iter();
        for (id, rule) in deleted
            .chain(edits)
            .chain([(deletion, SkipRule::DeletedBeforeDelivery)])
        {
            let how = Undelivered::Skipped(rule);
            self.store.end_undelivered(id, how, now).await?;
        }
        self.signals.notify_step_settled();
        Ok(())
    }

    /// An edit of a message whose room key is still missing: the message is delivered with the text of the edit, without the key.
    pub(super) async fn fill_by_edit(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &Copies,
    ) -> Result<Result<Plan, SendError>, Error> {
        if let (
            Action::Edit {
                target,
                body,
                style,
            },
            Some(entry),
        ) = (&edit.action, target.entry)
        {
            let original = self.store.find_message(&delivery.from, target).await?;
            let message = Message {
                action: Action::Post {
                    body: body.clone(),
                    style: *style,
                    reply_to: None,
                    thread: original.and_then(|original| original.copy.thread),
                },
                ..edit.clone()
            };
            let Ok(payload) = message.to_bytes() else {
                return Ok(Ok(Plan::Skip(SkipRule::TargetWaiting)));
            };
            let now = self.clock.now();
            let filled = self.store.fill_by_edit(entry, payload, delivery.entry, now);
            let Some(lanes) = filled.await? else {
                return Ok(Ok(Plan::Skip(SkipRule::EditRedacted)));
            };
            for lane in lanes {
                self.signals.wake(lane);
            }
        }
        Ok(Ok(Plan::Skip(SkipRule::EditIncluded)))
    }

    /// Handles a step that failed or whose outcome is unknown. Messages that were refused as a bundle are retried one by one, but
    /// not where an earlier attempt was not answered: that attempt may have delivered all of them.
    pub(super) async fn handle_step_error(
        &self,
        delivery: &Delivery,
        error: SendError,
        permit: Permit,
        failed: &FailedAttempt<'_>,
    ) -> Result<Attempt, Error> {
        match (failed.step.map(|present| present.step), error) {
            (_, SendError::RateLimited { after }) => {
                permit.record_rate_limit(after);
                let limited = SendError::RateLimited { after };
                if let Some(attempt) = self.yield_to_relay(delivery, &limited).await? {
                    return Ok(attempt);
                }
                if !self.is_idempotent() {
                    self.store.mark_not_attempted(delivery.id).await?;
                    self.signals.notify_step_settled();
                }
                Ok(Attempt::Settled)
            }
            (
                Some(Step::Bundle { .. }),
                SendError::Refused { reason } | SendError::Rejected { reason },
            ) if delivery.unanswered_since.is_none() => {
                permit.record_failure();
                warn!(
                    delivery.id = delivery.id.0,
                    reason, "A coalesced message was refused; retrying each message on its own"
                );
                self.store.split_bundle(delivery.id).await?;
                Ok(Attempt::Settled)
            }
            (_, error) => {
                permit.record_failure();
                self.handle_error(delivery, error, failed).await
            }
        }
    }
}

/// How many messages a step carries.
pub(super) fn carried(step: &Step) -> usize {
    match step {
        Step::Bundle { parts, .. } => parts.len(),
        _ => 1,
    }
}

/// Whether a delivery is a new message that certainly was never attempted, so that it may still be sent in another form.
pub(super) fn may_coalesce(delivery: &Delivery, message: &Message) -> bool {
    matches!(message.action, Action::Post { .. }) && was_never_tried(delivery) && !delivery.late
}

/// A delivery that was in progress when the process ended counts as unanswered when the lane starts.
pub(super) fn was_never_tried(delivery: &Delivery) -> bool {
    delivery.plan.is_none()
        && delivery.steps_done == 0
        && delivery.attempts == 0
        && delivery.outcome_unknown_since.is_none()
        && delivery.unanswered_since.is_none()
}

fn thread_of(message: &Message) -> Option<&Option<RemoteId>> {
    match &message.action {
        Action::Post { thread, .. } => Some(thread),
        _ => None,
    }
}

/// Gives a new message the text and the files of its edit.
pub(super) fn rewrite(message: &mut Message, edit: &Message) {
    if let (
        Action::Post { body, style, .. },
        Action::Edit {
            body: new,
            style: new_style,
            ..
        },
    ) = (&mut message.action, &edit.action)
    {
        body.clone_from(new);
        *style = *new_style;
        message.files.clone_from(&edit.files);
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::{LaneId, Place, PortalId, Side};

    use super::*;
    use crate::{message::Style, text::Body};

    fn delivery(entry: i64) -> Delivery {
        Delivery {
            id: DeliveryId(entry),
            entry: EntryId(entry),
            lane: LaneId {
                portal: PortalId(1),
                toward: Side::Silo,
            },
            path: Vec::new(),
            key: String::new(),
            from: Place::room("!r"),
            to: Place::new("gitter", "c"),
            payload: Vec::new(),
            text_of: None,
            plan: None,
            steps_done: 0,
            attempts: 0,
            outcome_unknown_since: None,
            unanswered_since: None,
            accepted_at: Millis(0),
            late: false,
            tries: 0,
            rejections: 0,
            blame: std::time::Duration::ZERO,
            tried_at: None,
            is_retry: false,
            urgent: false,
            sender: footbridge_store::ChosenSender::Open,
        }
    }

    fn said(action: Action) -> Message {
        Message {
            action,
            ..Message::notice("", Millis(0))
        }
    }

    #[test]
    fn an_older_edit_does_not_change_a_message_that_has_the_text_of_a_newer_one() {
        let (body, style) = (Body::plain("third"), Style::Text);
        let (reply_to, thread) = (None, None);
        let mut message = said(Action::Post {
            body,
            style,
            reply_to,
            thread,
        });
        let edit = |text: &str| {
            said(Action::Edit {
                target: RemoteId::from("$m"),
                body: Body::plain(text),
                style,
            })
        };
        let (newest, mut changes) = (message.clone(), Changes::default());
        changes.include(
            &delivery(4),
            &edit("second"),
            &mut message,
            Some(EntryId(5)),
        );
        assert_eq!((&message, changes.in_it.len()), (&newest, 0));
        for text_of in [Some(EntryId(5)), None] {
            changes.include(&delivery(6), &edit("fourth"), &mut message, text_of);
            assert_ne!(message, newest);
        }
        assert_eq!(changes.in_it.len(), 2);
    }
}
