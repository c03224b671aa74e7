//! Reconciliation of a step whose outcome is unknown: it may or may not have happened, and the other side does not deduplicate.
//! The lane looks for it before it repeats it (reliability: D04, D05).

use footbridge_store::{Delivery, Error, Millis};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Lane;
use crate::{
    capabilities::Idempotency,
    message::Message,
    outlet::{Done, Outcome, SendError, Step},
};

/// Why a delivery fails whose step the other side answered with the id of another message.
pub(super) const WRONG_ID: &str = "the other side answered with the id of another message, so nobody knows whether this one arrived";

/// Why a delivery fails that was looked for among more messages than the outlet reads.
const TOO_MANY_MESSAGES: &str =
    "so many messages followed it that nobody can tell whether it arrived";

/// The present step of a delivery: the first that is not done.
#[derive(Clone, Copy)]
pub(super) struct PresentStep<'a> {
    /// Its index in the plan.
    pub index: usize,
    /// What it does.
    pub step: &'a Step,
    /// Whether it is the last of the plan.
    pub is_last: bool,
}

/// A step whose outcome is unknown.
#[derive(Clone, Copy)]
pub(super) struct UnknownStep<'a> {
    /// The step.
    pub present: PresentStep<'a>,
    /// Since when its outcome is unknown.
    pub since: Millis,
    /// Why it is looked for.
    pub looked_for: ReconcileFor,
}

/// Whether a step with unknown outcome turned out to have happened.
pub(super) enum Reconciled {
    Happened,
    NotHappened,
    CannotTellYet(SendError),
    /// It can never be known, for this reason.
    Unknowable(&'static str),
    Stopped,
}

/// Why a step with unknown outcome is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReconcileFor {
    /// If it did not happen, it is repeated with the same transaction key.
    Retry,
    /// If it did not happen, its messages are sent with other transaction keys, which the other side does not know.
    Split,
}

impl Lane {
    /// Looks for a step with unknown outcome on the other side several times within the outlet's settle time.
    pub(super) async fn reconcile(
        &self,
        delivery: &Delivery,
        message: &Message,
        unknown: UnknownStep<'_>,
        stop: &CancellationToken,
    ) -> Result<Reconciled, Error> {
        let PresentStep { step, is_last, .. } = unknown.present;
        let idempotency = self.outlet.capabilities().idempotency_of(step);
        if idempotency == Idempotency::ByKey {
            return self.reconcile_by_key(delivery, message, unknown).await;
        }
        let (settle, repeated) = match (idempotency, new_message(step)) {
            (Idempotency::Unknowable { reason }, Some(_)) => {
                return Ok(Reconciled::Unknowable(reason));
            }
            (Idempotency::ByContent { settle }, Some(repeated)) => (settle, repeated),
            _ => return Ok(Reconciled::NotHappened),
        };
        let mut is_cut_off = false;
        // The lane looks at once, then at a tenth, a third and the whole of the settle time from now.
        for share in [0.0, 0.1, 0.23, 0.67] {
            tokio::select! {
                () = stop.cancelled() => return Ok(Reconciled::Stopped),
                () = sleep(settle.mul_f64(share)) => {}
            }
            let found = match self
                .outlet
                .find_similar(&delivery.to, repeated, unknown.since)
                .await
            {
                Ok(found) => found,
                Err(error) => return Ok(Reconciled::CannotTellYet(error)),
            };
            is_cut_off = found.is_cut_off;
            for copy in found.copies {
                if !self.store.is_linked(&delivery.to, &copy.remote).await? {
                    info!(
                        delivery.id = delivery.id.0,
                        "A message with unknown outcome was found on the other side; not sent again"
                    );
                    self.settle(delivery, message, step, &Done::Created(copy), is_last)
                        .await?;
                    return Ok(Reconciled::Happened);
                }
            }
        }
        if is_cut_off {
            return Ok(Reconciled::Unknowable(TOO_MANY_MESSAGES));
        }
        info!(
            delivery.id = delivery.id.0,
            "A message with unknown outcome was not found; sending it again"
        );
        Ok(Reconciled::NotHappened)
    }

    /// For an other side that makes one message of any number of attempts with one key, unless it has forgotten the key (D09):
    /// then the step is looked for.
    async fn reconcile_by_key(
        &self,
        delivery: &Delivery,
        message: &Message,
        unknown: UnknownStep<'_>,
    ) -> Result<Reconciled, Error> {
        let PresentStep {
            index,
            step,
            is_last,
        } = unknown.present;
        let since = unknown.since;
        let key = step_key(delivery, index, step);
        let found = match unknown.looked_for {
            ReconcileFor::Retry => self.outlet.find_by_key(&delivery.to, &key, step, since),
            ReconcileFor::Split => self
                .outlet
                .find_by_key_always(&delivery.to, &key, step, since),
        };
        match found.await {
            Ok(None) => Ok(Reconciled::NotHappened),
            Ok(Some(done)) => {
                if self.is_another_message(delivery, message, &done).await? {
                    return Ok(Reconciled::Unknowable(WRONG_ID));
                }
                self.settle(delivery, message, step, &done, is_last).await?;
                Ok(Reconciled::Happened)
            }
            Err(error) => Ok(Reconciled::CannotTellYet(error)),
        }
    }

    /// Whether the other side makes one message of any number of attempts with one key.
    pub(super) fn is_idempotent(&self) -> bool {
        self.outlet.capabilities().is_idempotent()
    }

    /// Records an attempt that was not answered, and only then: recording it before every send would cost a commit each time.
    /// When the process ends in the middle of an attempt, the lane notices that at its next start.
    pub(super) async fn note_unanswered(
        &self,
        delivery: &Delivery,
        error: &SendError,
        began: Millis,
    ) -> Result<(), Error> {
        if is_unknown(error) && self.is_idempotent() {
            self.store.mark_unanswered(delivery.id, began).await?;
        }
        Ok(())
    }
}

/// Whether it is unknown after this error if the step happened.
pub(super) fn is_unknown(error: &SendError) -> bool {
    matches!(
        error,
        SendError::Retry {
            outcome: Outcome::Unknown,
            ..
        }
    )
}

/// Whether the present step of the delivery may have happened.
pub(super) fn may_have_begun(delivery: &Delivery) -> bool {
    delivery.outcome_unknown_since.is_some() || delivery.unanswered_since.is_some()
}

/// The transaction key of one step of a delivery: the same at every attempt. A bundle never has the key of a message that was
/// sent by itself.
pub(super) fn step_key(delivery: &Delivery, index: usize, step: &Step) -> String {
    match step {
        Step::Bundle { .. } => bundle_key(&delivery.key),
        _ => format!("{}.{index}", delivery.key),
    }
}

/// The transaction key of a bundle, from that of its leader.
pub(super) fn bundle_key(leader: &str) -> String {
    format!("{leader}.bundle")
}

/// The step that creates a message, and so must not happen twice: the step itself, or its fallback.
fn new_message(step: &Step) -> Option<&Step> {
    match step {
        Step::Post { .. } | Step::SendFile { .. } | Step::Bundle { .. } => Some(step),
        Step::Edit { fallback, .. } | Step::EditPart { fallback, .. } => fallback.as_deref(),
        Step::Delete { .. } | Step::React { .. } | Step::Unreact { .. } => None,
    }
}
