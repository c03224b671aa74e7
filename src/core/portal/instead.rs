//! What a step carries, and what is done where it cannot be done as it is.

use footbridge_store::Copy;

use crate::outlet::{Done, Outcome, SendError, Step};

/// Which file a step's message carries (see [`Copy::file`]).
pub(super) fn carried_by(step: &Step) -> String {
    match step {
        Step::Send { file, .. } => file.digest(),
        _ => String::new(),
    }
}

/// What a step made whose file could not be carried: a line that names it.
pub(super) fn in_words(step: &Step, done: Done) -> Done {
    match (step, done) {
        (Step::Send { file, .. }, Done::Made(copy)) => Done::Made(Copy {
            file: Some(format!("{}{}", Copy::NAMED, file.digest())),
            ..copy
        }),
        (_, done) => done,
    }
}

/// What is done instead of a step that can never be done like this.
pub(super) fn instead_of<'a>(step: &'a Step, error: &SendError) -> Option<&'a Step> {
    match (step, error) {
        (Step::Replace { otherwise, .. } | Step::Revise { otherwise, .. }, SendError::TooLate)
        | (Step::Send { otherwise, .. }, SendError::Refused { .. }) => otherwise.as_deref(),
        _ => None,
    }
}

/// What is wrong with the side that has a file is not wrong with the side that should get it.
pub(super) fn not_fetched(error: SendError) -> SendError {
    match error {
        SendError::Refused { .. } => error,
        error => of_the_source(error, "the file cannot be fetched now"),
    }
}

/// The same of the side that has a text.
pub(super) fn not_read(error: SendError) -> SendError {
    of_the_source(error, "what the message said before cannot be read now")
}

fn of_the_source(error: SendError, what: &str) -> SendError {
    let (after, source) = match error {
        SendError::Retry { .. } => return error,
        SendError::Limited { after } => (
            after,
            anyhow::anyhow!("{what}: the side that has it is asked too often"),
        ),
        other => (None, anyhow::anyhow!("{what}: {other}")),
    };
    SendError::Retry {
        after,
        outcome: Outcome::NotDone,
        source,
    }
}
