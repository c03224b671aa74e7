//! A step in doubt: it may or may not have happened, and the other side does not dedupe. Looks before it is
//! repeated (reliability: D04, D05).

use footbridge_store::{Delivery, Error, Millis};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Lane;
use crate::{
    message::Message,
    outlet::{Done, Outcome, SendError, Step},
};

/// Whether a step in doubt turned out to have happened.
pub(super) enum Recalled {
    Adopted,
    NeverHappened,
    NotNow(SendError),
    /// Nobody will ever know; why.
    NeverKnown(&'static str),
    Stopped,
}

/// Why a step in doubt is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looking {
    /// If it is not there it is repeated under the same key.
    BeforeRepeating,
    /// If it is not there, what it carries is sent under other keys, of which the other side knows nothing.
    BeforeTakingApart,
}

impl Lane {
    /// A step is in doubt: looks for it on the other side several times within the outlet's settle time.
    pub(super) async fn recall(
        &self,
        delivery: &Delivery,
        message: &Message,
        (index, step, last): (usize, &Step, bool),
        (since, how): (Millis, Looking),
        stop: &CancellationToken,
    ) -> Result<Recalled, Error> {
        if self.outlet.dedupes() {
            return self
                .look_up(delivery, message, (index, step, last), (since, how))
                .await;
        }
        let Some(repeated) = new_message(step) else {
            return Ok(Recalled::NeverHappened);
        };
        if let Some(reason) = self.outlet.never_tells() {
            return Ok(Recalled::NeverKnown(reason));
        }
        let settle = self.outlet.settle();
        // Look at once, then at a tenth, a third and the whole of the settle time after now.
        for share in [0.0, 0.1, 0.23, 0.67] {
            tokio::select! {
                () = stop.cancelled() => return Ok(Recalled::Stopped),
                () = sleep(settle.mul_f64(share)) => {}
            }
            let found = match self.outlet.recall(&delivery.to, repeated, since).await {
                Ok(found) => found,
                Err(error) => return Ok(Recalled::NotNow(error)),
            };
            for copy in found {
                if !self.store.is_linked(&delivery.to, &copy.remote).await? {
                    info!(
                        delivery.id = delivery.id.0,
                        "A send of unknown outcome had happened; adopted"
                    );
                    self.settle(delivery, message, (step, &Done::Made(copy)), last)
                        .await?;
                    return Ok(Recalled::Adopted);
                }
            }
        }
        info!(
            delivery.id = delivery.id.0,
            "A send of unknown outcome had not happened; repeating it"
        );
        Ok(Recalled::NeverHappened)
    }

    /// The other side makes one message of however many tries, unless it has forgotten them (D09): then it is
    /// looked for.
    async fn look_up(
        &self,
        delivery: &Delivery,
        message: &Message,
        (index, step, last): (usize, &Step, bool),
        (since, how): (Millis, Looking),
    ) -> Result<Recalled, Error> {
        let key = step_key(delivery, index, step);
        let found = match how {
            Looking::BeforeRepeating => self.outlet.look_up(&delivery.to, &key, step, since),
            Looking::BeforeTakingApart => self.outlet.find_sent(&delivery.to, &key, step, since),
        };
        match found.await {
            Ok(None) => Ok(Recalled::NeverHappened),
            Ok(Some(done)) => {
                self.settle(delivery, message, (step, &done), last).await?;
                Ok(Recalled::Adopted)
            }
            Err(error) => Ok(Recalled::NotNow(error)),
        }
    }

    /// A try that was not answered is written down, but only then: to write it down before every send would cost
    /// each of them a commit. A death in the middle of a try is noticed when the lane starts again.
    pub(super) async fn note_unanswered(
        &self,
        delivery: &Delivery,
        error: &SendError,
        began: Millis,
    ) -> Result<(), Error> {
        if is_unknown(error) && self.outlet.dedupes() {
            self.store.unanswered(delivery.id, began).await?;
        }
        Ok(())
    }
}

/// Whether nobody knows after this whether the step happened.
pub(super) fn is_unknown(error: &SendError) -> bool {
    matches!(
        error,
        SendError::Retry {
            outcome: Outcome::Unknown,
            ..
        }
    )
}

/// The key of one step of a delivery: the same at every try. A message that carries several never has the key of
/// one that went by itself.
pub(super) fn step_key(delivery: &Delivery, index: usize, step: &Step) -> String {
    match step {
        Step::Bundle { .. } => format!("{}.bundle", delivery.key),
        _ => format!("{}.{index}", delivery.key),
    }
}

/// The step that makes a message, and so must not happen twice: the step itself, or what stands in for it.
fn new_message(step: &Step) -> Option<&Step> {
    match step {
        Step::Post { .. } | Step::Send { .. } | Step::Bundle { .. } => Some(step),
        Step::Replace { otherwise, .. } | Step::Revise { otherwise, .. } => otherwise.as_deref(),
        Step::Remove { .. } | Step::React { .. } | Step::Unreact { .. } => None,
    }
}
