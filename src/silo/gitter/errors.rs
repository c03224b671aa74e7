//! The meaning of Gitter's error responses: one table from status codes to errors, and from those to the errors that
//! the lanes and listeners handle. Gitter's error bodies contain only the reason phrase, so the status decides.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::{Outcome, SendError};

use crate::SiloError;

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The account, or the list of rooms.
    Account,
    /// A room: reading it, joining it, posting in it.
    Room,
    /// One message that exists already.
    Message,
}

/// Whether repeating the request could do its work twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatSafety {
    /// Each request makes something new.
    Unsafe,
    /// It reads, or sets the same value again.
    Safe,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Gitter refuses the token. With this response Gitter also destroys all tokens of an account: never retried.
    #[error("Gitter no longer accepts the account's token; put a new one in the configuration")]
    SignedOut,
    /// The room is closed to this account.
    #[error("{0}")]
    Closed(&'static str),
    /// The message does not exist (any more).
    #[error("The message does not exist on Gitter")]
    Gone,
    /// The account may not change the message, or is banned from its room: only reading the room tells which.
    #[error("Gitter does not allow this account to change that message")]
    Forbidden,
    /// A response that looks permanent and gives no reason.
    #[error("{0}")]
    Rejected(String),
    /// Gitter will never accept this.
    #[error("{0}")]
    Refused(String),
    /// The ten minutes in which a message may be edited are over.
    #[error("Gitter allows edits for ten minutes only")]
    TooLate,
    /// The account's requests of this minute are used up.
    #[error("Gitter's request limit is reached")]
    RateLimited {
        /// How long to wait.
        after: Duration,
    },
    /// The service is out, and another request is the probe.
    #[error("Gitter is unavailable; retrying periodically")]
    CircuitOpen {
        /// How long to wait.
        after: Duration,
    },
    /// The response is longer than the bridge reads.
    #[error("Gitter's response is too long")]
    TooLong,
    /// Gitter cannot be reached, or gives an unexpected response.
    #[error("{}", footbridge_core::error_chain::format(source.as_ref()))]
    Unavailable {
        /// Whether the request may have been processed.
        outcome: Outcome,
        /// The cause.
        source: anyhow::Error,
    },
}

fn outcome_of(repeat: RepeatSafety) -> Outcome {
    match repeat {
        RepeatSafety::Unsafe => Outcome::Unknown,
        RepeatSafety::Safe => Outcome::NotDone,
    }
}

/// The meaning of a status other than success. `after` is the wait that the rate limit headers ask for.
pub fn classify(
    subject: Subject,
    repeat: RepeatSafety,
    status: u16,
    after: Duration,
) -> RequestError {
    match (status, subject) {
        (401, _) => RequestError::SignedOut,
        (403, Subject::Room) => RequestError::Closed(
            "Gitter does not allow this account into the channel (banned, or it is private)",
        ),
        (404, Subject::Room) => RequestError::Closed("The channel does not exist on Gitter"),
        (404, Subject::Message) => RequestError::Gone,
        (403, Subject::Message) => RequestError::Forbidden,
        (429, _) => RequestError::RateLimited { after },
        // A redirect is not followed, because the request carries the token.
        (300..=399, _) => RequestError::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!(
                "Gitter answered with a redirect (status {status}); write the address that it redirects to into `api`"
            ),
        },
        (408 | 500.. | ..=299, _) => RequestError::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!("Gitter answered with status {status}"),
        },
        (413, _) => RequestError::Refused("The message is too large for Gitter".to_owned()),
        (_, _) => RequestError::Rejected(format!("Gitter refused it with status {status}")),
    }
}

/// The error of a request without a response.
pub fn classify_no_response(repeat: RepeatSafety, error: reqwest::Error) -> RequestError {
    let outcome = match repeat {
        RepeatSafety::Safe => Outcome::NotDone,
        RepeatSafety::Unsafe if error.is_connect() || error.is_builder() => Outcome::NotDone,
        RepeatSafety::Unsafe => Outcome::Unknown,
    };
    // The URL contains ids of rooms and people, so it is left out.
    let source = anyhow::Error::new(error.without_url()).context("Gitter did not answer");
    RequestError::Unavailable { outcome, source }
}

impl RequestError {
    /// How long Gitter asks the bridge to wait, if it says so.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after } | Self::CircuitOpen { after } => Some(*after),
            _ => None,
        }
    }
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        let reason = error.to_string();
        match error {
            RequestError::SignedOut => Self::SignedOut { reason },
            RequestError::Closed(_) => Self::Closed { reason },
            RequestError::Gone | RequestError::Forbidden | RequestError::Refused(_) => {
                Self::Refused { reason }
            }
            RequestError::Rejected(_) => Self::Rejected { reason },
            RequestError::TooLate => Self::TooLate,
            RequestError::RateLimited { after } => Self::RateLimited { after: Some(after) },
            RequestError::CircuitOpen { after } => Self::Retry {
                after: Some(after),
                outcome: Outcome::NotDone,
                source: anyhow!(reason),
            },
            RequestError::TooLong => Self::Retry {
                after: None,
                outcome: Outcome::Unknown,
                source: anyhow!(reason),
            },
            RequestError::Unavailable { outcome, source } => Self::Retry {
                after: None,
                outcome,
                source,
            },
        }
    }
}

impl From<RequestError> for SiloError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::SignedOut => Self::SignedOut(error.to_string()),
            RequestError::Closed(reason) => Self::NoChannel(reason.to_owned()),
            RequestError::Unavailable { source, .. } => Self::Unavailable(source),
            other => Self::Unavailable(anyhow::Error::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as one word.
    fn word(error: &RequestError) -> &'static str {
        match error {
            RequestError::SignedOut => "signed out",
            RequestError::Closed(_) => "closed",
            RequestError::Gone => "gone",
            RequestError::Forbidden => "forbidden",
            RequestError::Refused(_) => "refused",
            RequestError::Rejected(_) => "rejected",
            RequestError::TooLate => "too late",
            RequestError::RateLimited { .. } => "busy",
            RequestError::CircuitOpen { .. } => "out",
            RequestError::TooLong => "too long",
            RequestError::Unavailable {
                outcome: Outcome::NotDone,
                ..
            } => "not done",
            RequestError::Unavailable {
                outcome: Outcome::Unknown,
                ..
            } => "unknown",
        }
    }

    #[test]
    fn every_status_has_one_meaning() {
        use RepeatSafety::{Safe, Unsafe};
        use Subject::{Account, Message, Room};
        let table = [
            (Account, Safe, 401, "signed out"),
            (Room, Unsafe, 401, "signed out"),
            (Message, Safe, 401, "signed out"),
            (Room, Unsafe, 403, "closed"),
            (Room, Safe, 403, "closed"),
            (Room, Unsafe, 404, "closed"),
            (Message, Safe, 404, "gone"),
            (Message, Safe, 403, "forbidden"),
            (Room, Unsafe, 400, "rejected"),
            (Message, Safe, 400, "rejected"),
            (Room, Unsafe, 406, "rejected"),
            (Room, Unsafe, 413, "refused"),
            (Room, Unsafe, 422, "rejected"),
            (Room, Unsafe, 429, "busy"),
            (Account, Safe, 429, "busy"),
            (Room, Unsafe, 408, "unknown"),
            (Room, Unsafe, 500, "unknown"),
            (Room, Unsafe, 502, "unknown"),
            (Room, Unsafe, 503, "unknown"),
            (Room, Unsafe, 504, "unknown"),
            (Message, Safe, 502, "not done"),
            (Room, Safe, 503, "not done"),
            (Room, Unsafe, 302, "unknown"),
            (Account, Safe, 302, "not done"),
        ];
        for (subject, repeat, status, meaning) in table {
            let error = classify(subject, repeat, status, Duration::from_secs(3));
            assert_eq!(word(&error), meaning, "{subject:?} {repeat:?} {status}");
        }
    }

    #[test]
    fn the_wait_that_gitter_asks_for_is_in_the_send_error() {
        let busy = classify(
            Subject::Room,
            RepeatSafety::Unsafe,
            429,
            Duration::from_secs(7),
        );
        let SendError::RateLimited { after } = SendError::from(busy) else {
            panic!("a busy Gitter is tried again");
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_closed_room_closes_its_lane_and_not_the_account() {
        let closed = || classify(Subject::Room, RepeatSafety::Unsafe, 403, Duration::ZERO);
        assert!(matches!(
            SendError::from(closed()),
            SendError::Closed { .. }
        ));
        assert!(matches!(SiloError::from(closed()), SiloError::NoChannel(_)));
    }
}
