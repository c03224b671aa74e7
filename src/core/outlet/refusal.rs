//! Why a step did not happen, or may not have.

use std::time::Duration;

use crate::spool::SpoolError;

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Not now. The same step is tried again.
    #[error("not now: {source}")]
    Retry {
        /// How long the other side asked us to wait. Then it is not this message's fault.
        after: Option<Duration>,
        /// Whether the step may have happened all the same.
        outcome: Outcome,
        /// What went wrong.
        source: anyhow::Error,
    },
    /// Too fast: turned away before anything happened. It is not the message's fault, and no attempt is counted.
    #[error("too fast for the other side")]
    Limited {
        /// How long the other side asked us to wait.
        after: Option<Duration>,
    },
    /// An answer that looks like never, but that a proxy or a fault over there gives as well: the same step is
    /// tried a few times more.
    #[error("rejected: {reason}")]
    Rejected {
        /// One sentence for a person, without message text.
        reason: String,
    },
    /// Never. It is this message's fault; the next one may pass.
    #[error("refused: {reason}")]
    Refused {
        /// One sentence for a person, without message text.
        reason: String,
    },
    /// The silo no longer allows this change: the step's `otherwise` is taken instead.
    #[error("too late for this change")]
    TooLate,
    /// This place is closed to us (banned, gone, power removed): its lanes wait until someone acts.
    #[error("closed to us: {reason}")]
    Closed {
        /// One sentence for a person.
        reason: String,
    },
    /// Our account there is signed out. It is not the message's fault; the whole side stops.
    #[error("signed out: {reason}")]
    SignedOut {
        /// One sentence for a person.
        reason: String,
    },
}

impl SendError {
    /// Its kind in one fixed word, for tables and metrics.
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
            Self::Limited { .. } => "limited",
            Self::Rejected { .. } => "rejected",
            Self::Refused { .. } => "refused",
            Self::TooLate => "too-late",
            Self::Closed { .. } => "closed",
            Self::SignedOut { .. } => "signed-out",
        }
    }
}

/// A file was planned for a side that takes none.
#[must_use]
pub fn without_files() -> SendError {
    SendError::Refused {
        reason: "this side takes no files".to_owned(),
    }
}

impl From<SpoolError> for SendError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge(_) | SpoolError::Forged => Self::Refused {
                reason: format!("the file is not carried over: {error}"),
            },
            SpoolError::Broken(_) | SpoolError::Disk(_) => Self::Retry {
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
    /// Nobody knows: the request was on its way.
    Unknown,
}
