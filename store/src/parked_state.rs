//! The state of a delivery that failed: it may be retried, and end in another way then.

/// The state of a delivery that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// Failed.
    Failed,
    /// It is being retried.
    Retrying,
    /// A retry delivered it.
    Delivered,
    /// A retry ended by a rule.
    Skipped,
}

impl ParkedState {
    pub(crate) fn from_str(word: &str) -> Self {
        match word {
            "retrying" => Self::Retrying,
            "delivered" => Self::Delivered,
            "skipped" => Self::Skipped,
            _ => Self::Failed,
        }
    }
}
