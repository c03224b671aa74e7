//! One attempt at one step: what it needs is fetched, what a restart must know is saved, the step is performed, and the result is
//! settled or handled.

use footbridge_store::{Cascade, Delivery, Error, Millis};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Lane, coalesce,
    failure::FailedAttempt,
    fallback::{fallback_for, fetch_error, with_file_unsent},
    reconcile::{PresentStep, WRONG_ID, step_key},
};
use crate::{
    budget::Permit,
    capabilities::Idempotency,
    crash_points,
    message::Message,
    outlet::{Done, FetchedFile, SendError, Step},
};

/// A step that is about to be performed.
pub(super) struct StepBegun<'a> {
    pub present: PresentStep<'a>,
    /// How many steps the plan has.
    pub count: usize,
    /// Whether it is the first of this attempt.
    pub is_first: bool,
    /// Whether it was unknown whether it had happened.
    pub was_unknown: bool,
    pub stop: &'a CancellationToken,
}

/// A request for a step.
struct StepRequest {
    key: String,
    began: Millis,
    /// How many steps the plan has.
    count: usize,
}

impl Lane {
    /// Performs one step and settles it; `None` where the delivery goes on with the next one.
    pub(super) async fn perform_step(
        &self,
        delivery: &Delivery,
        message: &Message,
        begun: StepBegun<'_>,
        permit: Permit,
        unsaved: &mut Option<Vec<u8>>,
    ) -> Result<Option<Attempt>, Error> {
        let StepBegun {
            present,
            count,
            stop,
            ..
        } = begun;
        let PresentStep { index, step, .. } = present;
        let parts = coalesce::carried(step);
        let (key, began) = (step_key(delivery, index, step), self.clock.now());
        let fetched = self.fetch(delivery, step).await;
        if self.is_redacted_meanwhile(delivery, message).await? {
            if begun.was_unknown {
                // The other side would recognise its transaction key: now the lane must know whether the step happened.
                return Ok(Some(Attempt::Settled));
            }
            // The redaction of the edit deletes or replaces what was created so far; the lane sends no more of it.
            let ended = self.end_redacted(delivery, message, index);
            if let Some(ended) = ended.await? {
                return Ok(Some(ended));
            }
        }
        // The delivery may have been put on hold or split since it was read: while the lane waited for its permit, reconciled
        // the step, or fetched the file.
        if !self.begin_attempt(delivery, parts).await? {
            let outcome_unknown = begun.is_first && delivery.outcome_unknown_since.is_some();
            self.forget_unsent(delivery, message).await?;
            let released = self.release_unsent(delivery, permit, outcome_unknown);
            return released.await.map(Some);
        }
        let request = StepRequest { key, began, count };
        let attempted = self.attempt(delivery, step, request, fetched, unsaved);
        let Some(result) = attempted.await? else {
            let released = self.release_unsent(delivery, permit, false);
            return released.await.map(Some);
        };
        match result {
            Ok(done) => {
                permit.record_success(parts);
                if self.is_another_message(delivery, message, &done).await? {
                    let failed = self.fail_unknowable(delivery, WRONG_ID, message);
                    return failed.await.map(Some);
                }
                self.settle(delivery, message, step, &done, present.is_last)
                    .await?;
                Ok(None)
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
                handled.await.map(Some)
            }
        }
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
