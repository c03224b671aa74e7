//! The errors of a step that did not happen, or may not have.

use std::time::Duration;

use crate::spool::SpoolError;

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Not now. The lane retries the same step.
    #[error("temporarily unavailable: {source}")]
    Retry {
        /// How long the other side asked the bridge to wait. If it did, this message is not to blame.
        after: Option<Duration>,
        /// Whether the step may have happened all the same.
        outcome: Outcome,
        /// What went wrong.
        source: anyhow::Error,
    },
    /// Too fast: refused before anything happened. The message is not to blame, and no attempt is counted.
    #[error("rate-limited by the other side")]
    RateLimited {
        /// How long the other side asked the bridge to wait.
        after: Option<Duration>,
    },
    /// A response that looks permanent, but that a proxy or a fault of the other side gives as well: the lane retries the same
    /// step a few times.
    #[error("rejected: {reason}")]
    Rejected {
        /// One sentence for a person, without message text.
        reason: String,
    },
    /// Never. The message is to blame; the next one may succeed.
    #[error("refused: {reason}")]
    Refused {
        /// One sentence for a person, without message text.
        reason: String,
    },
    /// The silo no longer allows this change: the lane performs the step's `fallback` instead.
    #[error("too late for this change")]
    TooLate,
    /// This place is closed to the bridge (banned, deleted, power removed): its lanes wait until someone acts.
    #[error("no access: {reason}")]
    Closed {
        /// One sentence for a person.
        reason: String,
    },
    /// The bridge's account there is signed out. The message is not to blame; the whole side stops.
    #[error("signed out: {reason}")]
    SignedOut {
        /// One sentence for a person.
        reason: String,
    },
}

impl SendError {
    /// The kind of the error as one fixed word, for tables and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Retry { after: Some(_), .. } => "slowed",
            Self::Retry {
                outcome: Outcome::NotDone,
                ..
            } => "not-done",
            Self::Retry {
                outcome: Outcome::Unknown,
                ..
            } => "unknown",
            Self::RateLimited { .. } => "limited",
            Self::Rejected { .. } => "rejected",
            Self::Refused { .. } => "refused",
            Self::TooLate => "too-late",
            Self::Closed { .. } => "closed",
            Self::SignedOut { .. } => "signed-out",
        }
    }
}

/// A file was planned for a side that accepts none.
#[must_use]
pub fn no_files_error() -> SendError {
    SendError::Refused {
        reason: "this side takes no files".to_owned(),
    }
}

impl From<SpoolError> for SendError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge(_) | SpoolError::HashMismatch => Self::Refused {
                reason: format!("the file is not relayed: {error}"),
            },
            SpoolError::Incomplete(_) | SpoolError::Disk(_) => Self::Retry {
                after: None,
                outcome: Outcome::NotDone,
                source: anyhow::anyhow!("a file was not fetched: {error}"),
            },
        }
    }
}

/// What is known about a step that failed for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It certainly did not happen.
    NotDone,
    /// It is unknown: the request was on its way.
    Unknown,
}
