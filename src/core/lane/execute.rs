//! Performs the steps of a plan, one after the other. The lane reconciles a step if its outcome is unknown, waits for a permit,
//! records the step before the attempt, and settles it before the next step.

use footbridge_store::{Delivery, Error, Millis};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Lane, coalesce,
    reconcile::{PresentStep, ReconcileFor, Reconciled, UnknownStep, is_unknown},
    redacted_edits::is_restoration,
    sender::Performer,
    step_attempt::StepBegun,
};
use crate::{
    budget::Permit,
    message::{Action, Message},
    outlet::{Done, Plan, SendError, Step},
};

/// The result of the check for a step whose outcome is unknown.
enum OutcomeCheck {
    /// It happened.
    Adopted,
    /// It did not happen, and is retried.
    Repeat,
    /// This attempt is over.
    Ends(Attempt),
}

impl Lane {
    /// Performs the steps that are not done yet, one after the other, until one fails.
    pub(super) async fn execute(
        &self,
        delivery: &Delivery,
        message: &Message,
        steps: &[Step],
        mut permit: Option<Permit>,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let mut unsaved = delivery.plan.is_none().then(|| serialized(steps));
        let mut outcome = delivery.outcome_unknown_since.or(delivery.unanswered_since);
        let done = usize::try_from(delivery.steps_done).unwrap_or(usize::MAX);
        let count = steps.len();
        let mut sender = delivery.sender.account();
        for (index, step) in steps.iter().enumerate().skip(done) {
            let performer = self.performer(&delivery.to, step).await?;
            let lane = match &performer {
                Performer::Owner(lane) => lane,
                Performer::Same | Performer::Gone => self,
            };
            let step = match (&performer, step) {
                // Nobody would see a change that another account makes.
                (
                    Performer::Gone,
                    Step::Edit { fallback, .. } | Step::EditPart { fallback, .. },
                ) => fallback.as_deref().unwrap_or(step),
                _ => step,
            };
            let present = PresentStep {
                index,
                step,
                is_last: index + 1 == count,
            };
            if self.is_done_otherwise(delivery, steps, index).await? {
                self.pass_step(delivery, present.is_last).await?;
                outcome = None;
                continue;
            }
            let was_unknown = outcome.is_some();
            if let Some(since) = outcome.take() {
                let checked = lane.check_outcome(delivery, message, present, since, stop);
                match checked.await? {
                    OutcomeCheck::Adopted => continue,
                    OutcomeCheck::Repeat => {}
                    OutcomeCheck::Ends(attempt) => return Ok(attempt),
                }
            }
            if sender != lane.sender.account {
                sender = lane.sender.account;
                self.store.set_sender(delivery.id, sender).await?;
            }
            // The permit is that of the account which was to send the delivery.
            let taken = permit
                .take()
                .filter(|_| matches!(performer, Performer::Same));
            let permit = match taken {
                None => lane.acquire_permit(message, stop).await,
                taken => taken,
            };
            let Some(permit) = permit else {
                return Ok(Attempt::Stopped);
            };
            let begun = StepBegun {
                present,
                count,
                is_first: index == done,
                was_unknown,
                stop,
            };
            let performed = lane.perform_step(delivery, message, begun, permit, &mut unsaved);
            if let Some(attempt) = performed.await? {
                return Ok(attempt);
            }
        }
        Ok(Attempt::Settled)
    }

    /// A step that needs no request: it counts as done.
    async fn pass_step(&self, delivery: &Delivery, last: bool) -> Result<(), Error> {
        let now = self.clock.now();
        let passed = self.store.complete_step(delivery.id, None, None, last, now);
        passed.await?;
        self.signals.notify_step_settled();
        if last && delivery.is_retry {
            self.refresh_notices().await?;
        }
        Ok(())
    }

    /// Whether the id that the other side returned for a new message is that of another message.
    pub(super) async fn is_another_message(
        &self,
        delivery: &Delivery,
        message: &Message,
        done: &Done,
    ) -> Result<bool, Error> {
        match (done, &message.action) {
            // What an edit creates is linked to the message that it edits.
            (_, Action::Edit { .. }) => Ok(false),
            (Done::Created(copy), _) => {
                self.store
                    .is_copy_of_another(delivery.id, &copy.remote)
                    .await
            }
            _ => Ok(false),
        }
    }

    /// Forgets a reaction that was not sent: the lane plans it again.
    pub(super) async fn forget_unsent(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<(), Error> {
        if matches!(message.action, Action::React { .. }) {
            let (reaction, to) = (delivery.entry, &delivery.to);
            self.store.forget_unsent_reaction(reaction, to).await?;
        }
        Ok(())
    }

    /// A step failed: records whether the other side answered it.
    pub(super) async fn record_answer(
        &self,
        delivery: &Delivery,
        parts: usize,
        error: &SendError,
        began: Millis,
    ) -> Result<(), Error> {
        self.note_unanswered(delivery, error, began).await?;
        let was_marked = parts > 1 || delivery.text_of.is_some();
        if was_marked && delivery.unanswered_since.is_none() && !is_unknown(error) {
            self.store.mark_answered(delivery.id).await?;
        }
        Ok(())
    }

    /// Writes a plan down before its first try.
    pub(super) async fn save_plan(&self, delivery: &Delivery, steps: &[Step]) -> Result<(), Error> {
        self.store.save_plan(delivery.id, &serialized(steps)).await
    }

    /// Checks the other side for a step whose outcome is unknown since this moment.
    async fn check_outcome(
        &self,
        delivery: &Delivery,
        message: &Message,
        present: PresentStep<'_>,
        since: Millis,
        stop: &CancellationToken,
    ) -> Result<OutcomeCheck, Error> {
        let PresentStep { index, step, .. } = present;
        // A delivery that may no longer go out as it is ends only when its step certainly did not happen.
        let parts = coalesce::carried(step);
        let goes = self.store.may_send(delivery.id, parts, self.clock.now());
        let is_edit = matches!(message.action, Action::Edit { .. });
        let is_redacted = self.is_redacted_meanwhile(delivery, message).await?;
        let has_redacted_text =
            delivery.steps_done == 0 && self.store.has_redacted_text(delivery.id).await?;
        let how = if !is_redacted && !has_redacted_text && (parts == 1 || goes.await?) {
            ReconcileFor::Retry
        } else {
            ReconcileFor::Split
        };
        let unknown = UnknownStep {
            present,
            since,
            looked_for: how,
        };
        let reconciled = self.reconcile(delivery, message, unknown, stop);
        let attempt = match reconciled.await? {
            Reconciled::Happened => return Ok(OutcomeCheck::Adopted),
            Reconciled::NotHappened if is_redacted && (is_edit || index > 0) => {
                if is_edit && !is_restoration(delivery) {
                    self.note_possible_text(delivery, step).await?;
                }
                let ended = self.end_redacted(delivery, message, index);
                match ended.await? {
                    Some(attempt) => attempt,
                    None => return Ok(OutcomeCheck::Repeat),
                }
            }
            Reconciled::NotHappened if how == ReconcileFor::Split => {
                self.store.mark_not_attempted(delivery.id).await?;
                self.store.split_bundle(delivery.id).await?;
                self.signals.notify_step_settled();
                Attempt::Settled
            }
            // Where steps are found by their keys, nobody can tell any more.
            Reconciled::CannotTellYet(SendError::Refused { reason })
                if how == ReconcileFor::Split || self.is_idempotent() =>
            {
                self.fail_unknowable(delivery, &reason, message).await?
            }
            Reconciled::NotHappened => return Ok(OutcomeCheck::Repeat),
            Reconciled::CannotTellYet(error) => self.postpone_reconcile(delivery, error).await?,
            Reconciled::Unknowable(reason) => {
                self.fail_unknowable(delivery, reason, message).await?
            }
            Reconciled::Stopped => Attempt::Stopped,
        };
        Ok(OutcomeCheck::Ends(attempt))
    }

    /// A step of an edit was not found, but an edit in place leaves nothing by which it could be found: its message may have the
    /// edit's text. Its redaction restores the text from before.
    async fn note_possible_text(&self, delivery: &Delivery, step: &Step) -> Result<(), Error> {
        let changed = match step {
            Step::Edit { target, .. } if !self.outlet.capabilities().keeps_earlier_texts() => {
                Some(target)
            }
            _ => None,
        };
        self.store
            .may_be_delivered(delivery.entry, &delivery.to, changed)
            .await
    }

    /// A step may not go now, and did not.
    pub(super) async fn release_unsent(
        &self,
        delivery: &Delivery,
        permit: Permit,
        outcome_unknown: bool,
    ) -> Result<Attempt, Error> {
        drop(permit);
        if outcome_unknown {
            self.store.mark_not_attempted(delivery.id).await?;
        }
        self.signals.notify_step_settled();
        Ok(Attempt::Settled)
    }

    /// Whether a delivery may still be sent; a bundle, or a delivery that contains the text of an edit, counts as attempted from
    /// here.
    pub(super) async fn begin_attempt(
        &self,
        delivery: &Delivery,
        parts: usize,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        match delivery.text_of {
            _ if parts > 1 => {
                self.store
                    .begin_bundle_attempt(delivery.id, parts, now)
                    .await
            }
            Some(edit) if delivery.steps_done == 0 => {
                self.store
                    .begin_rewritten_attempt(delivery.id, edit, now)
                    .await
            }
            _ => self.store.may_send(delivery.id, parts, now).await,
        }
    }
}

fn serialized(steps: &[Step]) -> Vec<u8> {
    serde_json::to_vec(&Plan::Steps(steps.to_vec())).unwrap_or_default()
}
