//! Performs the steps of a plan, one after the other. The lane reconciles a step if its outcome is unknown, waits for a permit,
//! records the step before the attempt, and settles it before the next step.

use footbridge_store::{Cascade, Delivery, Error, Millis};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Lane, coalesce,
    failure::FailedAttempt,
    fallback::{fallback_for, fetch_error, with_file_unsent},
    reconcile::{
        PresentStep, ReconcileFor, Reconciled, UnknownStep, WRONG_ID, is_unknown, step_key,
    },
    redacted_edits::is_restoration,
};
use crate::{
    budget::Permit,
    capabilities::Idempotency,
    crash_points,
    message::{Action, Message},
    outlet::{Done, FetchedFile, Plan, SendError, Step},
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

/// A request for a step.
struct StepRequest {
    key: String,
    began: Millis,
    /// How many steps the plan has.
    count: usize,
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
        for (index, step) in steps.iter().enumerate().skip(done) {
            let present = PresentStep {
                index,
                step,
                is_last: index + 1 == count,
            };
            let parts = coalesce::carried(step);
            if self.is_done_otherwise(delivery, steps, index).await? {
                self.pass_step(delivery, present.is_last).await?;
                outcome = None;
                continue;
            }
            let was_unknown = outcome.is_some();
            if let Some(since) = outcome.take() {
                let checked = self.check_outcome(delivery, message, present, since, stop);
                match checked.await? {
                    OutcomeCheck::Adopted => continue,
                    OutcomeCheck::Repeat => {}
                    OutcomeCheck::Ends(attempt) => return Ok(attempt),
                }
            }
            let permit = match permit.take() {
                None => self.acquire_permit(message, stop).await,
                taken => taken,
            };
            let Some(permit) = permit else {
                return Ok(Attempt::Stopped);
            };
            let (key, began) = (step_key(delivery, index, step), self.clock.now());
            let fetched = self.fetch(delivery, step).await;
            if self.is_redacted_meanwhile(delivery, message).await? {
                if was_unknown {
                    // The other side would recognise its transaction key: now the lane must know whether the step happened.
                    return Ok(Attempt::Settled);
                }
                // The redaction of the edit deletes or replaces what was created so far; the lane sends no more of it.
                let ended = self.end_redacted(delivery, message, index);
                if let Some(ended) = ended.await? {
                    return Ok(ended);
                }
            }
            // The delivery may have been put on hold or split since it was read: while the lane waited for its permit, reconciled
            // the step, or fetched the file.
            if !self.begin_attempt(delivery, parts).await? {
                let outcome_unknown = index == done && delivery.outcome_unknown_since.is_some();
                self.forget_unsent(delivery, message).await?;
                return self.release_unsent(delivery, permit, outcome_unknown).await;
            }
            let request = StepRequest { key, began, count };
            let attempted = self.attempt(delivery, step, request, fetched, &mut unsaved);
            let Some(result) = attempted.await? else {
                return self.release_unsent(delivery, permit, false).await;
            };
            match result {
                Ok(done) => {
                    permit.record_success(parts);
                    if self.is_another_message(delivery, message, &done).await? {
                        return self.fail_unknowable(delivery, WRONG_ID, message).await;
                    }
                    self.settle(delivery, message, step, &done, present.is_last)
                        .await?;
                }
                Err(error) => {
                    self.record_answer(delivery, parts, &error, began).await?;
                    let failed = FailedAttempt {
                        message,
                        step: Some(present),
                        began,
                        stop,
                    };
                    let handled = self.handle_step_error(delivery, error, permit, &failed);
                    return handled.await;
                }
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

    /// Performs a step, or its fallback where the other side does not take it. `None` where the delivery was put on hold before the
    /// fallback.
    async fn attempt(
        &self,
        delivery: &Delivery,
        step: &Step,
        request: StepRequest,
        fetched: Result<Option<FetchedFile>, SendError>,
        unsaved: &mut Option<Vec<u8>>,
    ) -> Result<Option<Result<Done, SendError>>, Error> {
        let StepRequest { key, began, count } = request;
        let mut result = match fetched {
            Ok(file) => {
                let recorded = self.record_before_attempt(delivery, step, count, unsaved);
                recorded.await?;
                crash_points::point("perform.before");
                let result = self.perform(delivery, &key, step, file).await;
                crash_points::point("perform.after");
                result
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result
            && let Some(instead) = fallback_for(step, error)
        {
            let parts = coalesce::carried(step);
            if !self.begin_fallback(delivery, parts, error, began).await? {
                return Ok(None);
            }
            let recorded = self.record_before_attempt(delivery, instead, count, unsaved);
            recorded.await?;
            let performed = self.outlet.perform(&delivery.to, &key, instead).await;
            result = performed.map(|done| with_file_unsent(step, done));
        }
        if let Ok(Done::NeedsCascade(cascade)) = result {
            result = self.delete_cascade(delivery, step, cascade).await?;
        }
        Ok(Some(result))
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
    async fn forget_unsent(&self, delivery: &Delivery, message: &Message) -> Result<(), Error> {
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
    async fn release_unsent(
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

    /// Prepares what a step needs: uploads its author's avatar, and fetches its file into the spool.
    async fn fetch(
        &self,
        delivery: &Delivery,
        step: &Step,
    ) -> Result<Option<FetchedFile>, SendError> {
        self.upload_author_avatar(delivery, step).await;
        let Step::SendFile { file, .. } = step else {
            return Ok(None);
        };
        let spooled = self.source.fetch(file, &self.spool).await;
        let spooled = spooled.map_err(fetch_error)?;
        let thumbnail = self.thumbnail(delivery, file).await;
        Ok(Some(FetchedFile { spooled, thumbnail }))
    }

    async fn perform(
        &self,
        delivery: &Delivery,
        key: &str,
        step: &Step,
        file: Option<FetchedFile>,
    ) -> Result<Done, SendError> {
        let outlet = &self.outlet;
        match &file {
            Some(file) => outlet.send_file(&delivery.to, key, step, file).await,
            None => outlet.perform(&delivery.to, key, step).await,
        }
    }

    /// Deletes a message together with the messages that are deleted with it. The lane records their ids before it deletes: if
    /// the response is lost, the bridge still does not take their end for a deletion by somebody else.
    async fn delete_cascade(
        &self,
        delivery: &Delivery,
        step: &Step,
        cascade: Cascade,
    ) -> Result<Result<Done, SendError>, Error> {
        let noted = self.store.note_cascade(delivery.id, &delivery.to, cascade);
        noted.await?;
        crash_points::point("perform.before");
        let removed = self.outlet.delete_cascade(&delivery.to, step).await;
        crash_points::point("perform.after");
        if let Err(
            SendError::Refused { .. }
            | SendError::Rejected { .. }
            | SendError::Closed { .. }
            | SendError::TooLate,
        ) = &removed
        {
            // The message was not deleted.
            self.store.forget_cascade(delivery.id).await?;
        }
        Ok(removed)
    }

    /// Saves, before a step, what a restart must know about it.
    async fn record_before_attempt(
        &self,
        delivery: &Delivery,
        step: &Step,
        steps: usize,
        unsaved: &mut Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let repeatable = matches!(
            self.outlet.capabilities().idempotency_of(step),
            Idempotency::ByKey | Idempotency::Harmless
        );
        if !repeatable {
            self.store
                .mark_outcome_unknown(delivery.id, unsaved.take().as_deref(), self.clock.now())
                .await?;
        } else if steps > 1
            && let Some(plan) = unsaved.take()
        {
            self.store.save_plan(delivery.id, &plan).await?;
        }
        crash_points::point("plan.saved");
        Ok(())
    }
}

fn serialized(steps: &[Step]) -> Vec<u8> {
    serde_json::to_vec(&Plan::Steps(steps.to_vec())).unwrap_or_default()
}
