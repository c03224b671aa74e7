//! What happens when an attempt fails: a retry, a permanent failure, or a closed lane. Also which failures count against the
//! message (D22, D23).
//!
//! One message must not block its lane for ever, and an outage of the target side must not cost a message. So only what speaks
//! against the message counts against it:
//!
//! - A request to wait (a rate limit) never counts.
//! - A response that looks permanent counts as one of `attempts`, unless the other lanes of the side fail as well: then a proxy
//!   or the whole side is out of order, and the response counts like any other failure.
//! - Any other failure counts by time, against `give_up`. It counts the time since the previous attempt if a step of another lane
//!   succeeded in that time, or, where no other lane tried, if the side answered a sync or a feed. While the side answers
//!   nothing, no time counts. While all lanes fail and the side still answers syncs, a quarter of the time counts: two messages
//!   that cause failures must not shield each other for ever.
//! - The lane reconciles a step that may have happened once more before it gives the step up.

use std::time::Duration;

use footbridge_store::{Delivery, Error, FailureNotice, Millis, RetryDecision, Undelivered};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Attempt, Lane, notice_texts,
    outlet_health::Evidence,
    reconcile::{PresentStep, ReconcileFor, Reconciled, UnknownStep},
};
use crate::{
    backoff, crash_points, error_chain,
    message::{Action, Message},
    outlet::{Outcome, SendError},
};

/// No single wait counts for more than this: the process may have been down in between.
const MAX_BLAME: Duration = Duration::from_mins(10);

/// The lane accepts a shorter wait than this from a server only once.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long to wait before the next attempt at a delivery; `after` is the wait that the other side asked for.
fn retry_wait(delivery: &Delivery, after: Option<Duration>) -> Duration {
    match after {
        None => backoff::after(delivery.attempts + 1),
        Some(after) if delivery.attempts == 0 => after,
        // One message must not keep a lane busy.
        Some(after) => after.max(SHORTEST),
    }
}

/// How many attempts and how much time one message may take.
#[derive(Clone, Copy, Debug)]
pub struct RetryLimits {
    /// The number of attempts at a message whose rejection looks permanent.
    pub attempts: u32,
    /// How long a message is retried that fails although its side works.
    pub give_up: Duration,
}

/// The context of a failed attempt.
pub(super) struct FailedAttempt<'a> {
    pub message: &'a Message,
    /// The step; `None` where the delivery failed before any step.
    pub step: Option<PresentStep<'a>>,
    /// When this attempt began.
    pub began: Millis,
    pub stop: &'a CancellationToken,
}

impl Lane {
    /// Handles an error that prevented a plan.
    pub(super) async fn handle_plan_error(
        &self,
        delivery: &Delivery,
        refusal: SendError,
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let failed = FailedAttempt {
            message,
            step: None,
            began: self.clock.now(),
            stop,
        };
        self.handle_error(delivery, refusal, &failed).await
    }

    /// An attempt failed: postpones the delivery, ends it as failed, or closes the lane.
    pub(super) async fn handle_error(
        &self,
        delivery: &Delivery,
        error: SendError,
        failed: &FailedAttempt<'_>,
    ) -> Result<Attempt, Error> {
        let kind = error.kind();
        if !matches!(error, SendError::RateLimited { .. })
            && let Some(attempt) = self.yield_to_relay(delivery, &error).await?
        {
            return Ok(attempt);
        }
        match error {
            SendError::Refused { reason } => {
                self.fail(delivery, kind, reason, Some(failed.message))
                    .await
            }
            SendError::TooLate => {
                let reason = "the other side no longer allows the change".to_owned();
                self.fail(delivery, kind, reason, Some(failed.message))
                    .await
            }
            SendError::Rejected { reason } => self.rejected(delivery, reason, failed.message).await,
            SendError::SignedOut { reason } => {
                // The task that noticed this has logged it once for all lanes.
                debug!(reason, "Delivery paused: the account is signed out");
                self.wait_while_closed(delivery, &reason, kind, true)
                    .await?;
                Ok(Attempt::SignedOut)
            }
            SendError::Closed { reason } => {
                self.wait_while_closed(delivery, &reason, kind, true)
                    .await?;
                Ok(Attempt::Settled)
            }
            // The error comes not from the step itself, but from a request that was needed before it: an unknown outcome stays
            // unknown.
            SendError::RateLimited { after } => {
                let now = self.clock.now();
                let wait = retry_wait(delivery, after);
                self.postpone(
                    delivery,
                    RetryDecision::without_blame(now, now.plus(wait), false, kind),
                )
                .await
            }
            SendError::Retry {
                after,
                outcome,
                source,
            } => {
                let wait = retry_wait(delivery, after);
                warn!(
                    delivery.id = delivery.id.0,
                    attempt = delivery.attempts + 1,
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    error = error_chain::format(source.as_ref()),
                    "Delivery attempt failed; retrying"
                );
                let now = self.clock.now();
                let blame = match after {
                    Some(_) => Duration::ZERO,
                    None => self.blame(delivery, now),
                };
                if delivery.blame + blame >= self.limits.give_up {
                    return self.give_up(delivery, outcome, failed).await;
                }
                let decision = RetryDecision {
                    blame,
                    ..RetryDecision::without_blame(
                        now,
                        now.plus(wait),
                        outcome == Outcome::NotDone,
                        kind,
                    )
                };
                self.postpone(delivery, decision).await
            }
        }
    }

    async fn postpone(
        &self,
        delivery: &Delivery,
        decision: RetryDecision,
    ) -> Result<Attempt, Error> {
        self.store.postpone(delivery.id, decision).await?;
        if decision.not_done {
            self.signals.notify_step_settled();
        }
        Ok(Attempt::Settled)
    }

    /// Handles a response that looks permanent.
    async fn rejected(
        &self,
        delivery: &Delivery,
        reason: String,
        message: &Message,
    ) -> Result<Attempt, Error> {
        let now = self.clock.now();
        self.health.record_failure(self.id, now);
        let rejected = self
            .health
            .evidence(self.id, delivery.tried_at.unwrap_or(now), now)
            != Evidence::Fails;
        let blame = if rejected {
            Duration::ZERO
        } else {
            self.blame(delivery, now)
        };
        if rejected && delivery.rejections + 1 >= self.limits.attempts
            || delivery.blame + blame >= self.limits.give_up
        {
            return self.fail(delivery, "rejected", reason, Some(message)).await;
        }
        let wait = backoff::after(delivery.attempts + 1);
        warn!(
            delivery.id = delivery.id.0,
            attempt = delivery.attempts + 1,
            rejected,
            reason,
            "Rejected; retrying"
        );
        let decision = RetryDecision {
            rejected,
            blame,
            ..RetryDecision::without_blame(now, now.plus(wait), true, "rejected")
        };
        self.postpone(delivery, decision).await
    }

    /// How much of the time since the last attempt counts against the message.
    fn blame(&self, delivery: &Delivery, now: Millis) -> Duration {
        self.health.record_failure(self.id, now);
        let Some(since) = delivery.tried_at else {
            return Duration::ZERO;
        };
        let passed = now.since(since).min(MAX_BLAME);
        match self.health.evidence(self.id, since, now) {
            Evidence::Works => passed,
            _ if !self.outlet.has_answered_since(since) => Duration::ZERO,
            Evidence::None => passed,
            Evidence::Fails => passed / 4,
        }
    }

    /// A step with unknown outcome could not be checked: its outcome stays unknown, whatever the error was.
    pub(super) async fn postpone_reconcile(
        &self,
        delivery: &Delivery,
        error: SendError,
    ) -> Result<Attempt, Error> {
        let kind = error.kind();
        if matches!(
            error,
            SendError::SignedOut { .. } | SendError::Closed { .. }
        ) && let Some(attempt) = self.yield_to_relay(delivery, &error).await?
        {
            return Ok(attempt);
        }
        let after = match error {
            SendError::SignedOut { reason } => {
                self.wait_while_closed(delivery, &reason, kind, false)
                    .await?;
                return Ok(Attempt::SignedOut);
            }
            SendError::Closed { reason } => {
                self.wait_while_closed(delivery, &reason, kind, false)
                    .await?;
                return Ok(Attempt::Settled);
            }
            SendError::Retry { after, .. } | SendError::RateLimited { after } => after,
            _ => None,
        };
        warn!(
            delivery.id = delivery.id.0,
            kind, "Outcome of a message still unknown; checking again later"
        );
        let now = self.clock.now();
        let wait = retry_wait(delivery, after);
        let decision = RetryDecision::without_blame(now, now.plus(wait), false, kind);
        self.postpone(delivery, decision).await
    }

    /// The message was retried for long enough. The lane first checks what may have happened.
    async fn give_up(
        &self,
        delivery: &Delivery,
        outcome: Outcome,
        failed: &FailedAttempt<'_>,
    ) -> Result<Attempt, Error> {
        if let (Outcome::Unknown, Some(present)) = (outcome, failed.step) {
            let since = delivery
                .outcome_unknown_since
                .or(delivery.unanswered_since)
                .unwrap_or(failed.began);
            let unknown = UnknownStep {
                present,
                since,
                // From here on nobody repeats it with the same transaction key in time.
                looked_for: ReconcileFor::Split,
            };
            let looked = self
                .reconcile(delivery, failed.message, unknown, failed.stop)
                .await?;
            match looked {
                Reconciled::Happened => return Ok(Attempt::Settled),
                Reconciled::Stopped => return Ok(Attempt::Stopped),
                Reconciled::CannotTellYet(SendError::Refused { reason }) => {
                    return self
                        .fail_unknowable(delivery, &reason, failed.message)
                        .await;
                }
                Reconciled::CannotTellYet(error) => {
                    return self.postpone_reconcile(delivery, error).await;
                }
                Reconciled::Unknowable(reason) => {
                    return self.fail_unknowable(delivery, reason, failed.message).await;
                }
                Reconciled::NotHappened => self.store.mark_answered(delivery.id).await?,
            }
        }
        let reason = format!(
            "it failed {} times although other messages were delivered",
            delivery.tries + 1
        );
        self.fail(delivery, "given-up", reason, Some(failed.message))
            .await
    }

    /// The outcome of a step can never be known. The lane does not repeat it: a person decides.
    pub(super) async fn fail_unknowable(
        &self,
        delivery: &Delivery,
        reason: &str,
        message: &Message,
    ) -> Result<Attempt, Error> {
        let reason = reason.to_owned();
        self.fail(delivery, "unknown", reason, Some(message)).await
    }

    /// Ends a delivery as failed, and notifies the side of its sender.
    pub(super) async fn fail(
        &self,
        delivery: &Delivery,
        kind: &'static str,
        reason: String,
        message: Option<&Message>,
    ) -> Result<Attempt, Error> {
        warn!(
            delivery.id = delivery.id.0,
            entry.id = delivery.entry.0,
            kind,
            reason,
            "Delivery failed permanently"
        );
        // If the message stands for an edit that was redacted, somebody else requested it.
        let by_bridge = message.is_some_and(|message| message.sender.is_bridge())
            && Message::from_bytes(&delivery.payload).is_ok_and(|asked| asked.sender.is_bridge());
        let (about, failure_notice) = match message.map(|message| &message.action) {
            // A failed edit of a notice does not get a notice either.
            Some(Action::Edit { .. }) if by_bridge => (None, FailureNotice::None),
            Some(Action::Edit { target, .. }) => (Some(target.clone()), FailureNotice::ToSender),
            // A failed notice does not get a notice, and no person wrote a system message. A failed reaction does not get one
            // either.
            Some(
                Action::Bridge { .. }
                | Action::System { .. }
                | Action::React { .. }
                | Action::Unreact { .. }
                | Action::Marker { .. },
            ) => (None, FailureNotice::None),
            _ => (None, FailureNotice::ToSender),
        };
        let how = Undelivered::Failed {
            kind,
            reason,
            about,
            notice: failure_notice,
        };
        self.store
            .end_undelivered(delivery.id, how, self.clock.now())
            .await?;
        crash_points::point("delivery.parked");
        self.signals.notify_step_settled();
        self.refresh_notices().await?;
        Ok(Attempt::Settled)
    }

    /// Updates the notices that are outdated.
    pub(super) async fn refresh_notices(&self) -> Result<(), Error> {
        let now = self.clock.now();
        for lane in self
            .store
            .refresh_notices(notice_texts::render, now)
            .await?
        {
            self.signals.wake(lane);
        }
        Ok(())
    }
}
