//! What a step carries, and what is done where it cannot be done as planned.

use footbridge_store::{Copy, Delivery, Error, Millis};

use super::Lane;
use crate::outlet::{Done, Outcome, SendError, Step};

impl Lane {
    /// Whether the fallback of a step that was refused may be sent, as for the step itself. The step certainly did not happen: from
    /// its answer until the fallback is sent the delivery may change.
    pub(super) async fn begin_fallback(
        &self,
        delivery: &Delivery,
        parts: usize,
        refused: &SendError,
        began: Millis,
    ) -> Result<bool, Error> {
        self.record_answer(delivery, parts, refused, began).await?;
        self.store.mark_not_attempted(delivery.id).await?;
        self.begin_attempt(delivery, parts).await
    }
}

/// The digest of the file that a step's message carries (see [`Copy::file`]).
pub(super) fn file_digest_of(step: &Step) -> String {
    match step {
        Step::SendFile { file, .. } => file.digest(),
        _ => String::new(),
    }
}

/// The result of a step whose file could not be sent: a line that names the file.
pub(super) fn with_file_unsent(step: &Step, done: Done) -> Done {
    match (step, done) {
        (Step::SendFile { file, .. }, Done::Created(copy)) => Done::Created(Copy {
            file: Some(Copy::placeholder_for(&file.digest())),
            ..copy
        }),
        (_, done) => done,
    }
}

/// The step to perform instead of one that can never be done as planned.
pub(super) fn fallback_for<'a>(step: &'a Step, error: &SendError) -> Option<&'a Step> {
    match (step, error) {
        (Step::Edit { fallback, .. } | Step::EditPart { fallback, .. }, SendError::TooLate)
        | (Step::SendFile { fallback, .. }, SendError::Refused { .. }) => fallback.as_deref(),
        _ => None,
    }
}

/// An error of the side that has a file is not an error of the side that should receive it.
pub(super) fn fetch_error(error: SendError) -> SendError {
    match error {
        SendError::Refused { .. } => error,
        error => source_error(error, "the file cannot be fetched now"),
    }
}

/// The same for the side that has a text.
pub(super) fn read_error(error: SendError) -> SendError {
    source_error(error, "the earlier text of the message cannot be read now")
}

fn source_error(error: SendError, what: &str) -> SendError {
    let (after, source) = match error {
        SendError::Retry { .. } => return error,
        SendError::RateLimited { after } => (
            after,
            anyhow::anyhow!("{what}: its side is rate-limiting the bridge"),
        ),
        other => (None, anyhow::anyhow!("{what}: {other}")),
    };
    SendError::Retry {
        after,
        outcome: Outcome::NotDone,
        source,
    }
}
