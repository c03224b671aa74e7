//! What Gitter's refusals mean: one table from status codes to faults, and from faults to the errors the house
//! branches on. Gitter's error bodies say nothing beyond the reason phrase, so the status decides.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::{Outcome, SendError};

use crate::SiloError;

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Our account, or the list of rooms.
    Account,
    /// A room: reading it, joining it, writing into it.
    Room,
    /// One message that exists already.
    Message,
}

/// Whether repeating the request could do its work twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It makes something new each time.
    Doubles,
    /// It reads, or sets something to what it is already.
    Harmless,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The token is dead. Gitter also destroys all tokens of an account when it answers so: never retried.
    #[error("Gitter no longer accepts the account's token; put a new one in the configuration")]
    SignedOut,
    /// The room is closed to this account.
    #[error("{0}")]
    Closed(&'static str),
    /// The message does not exist (any more).
    #[error("The message does not exist on Gitter")]
    Gone,
    /// The account may not change the message, or is banned from its room: only reading the room tells.
    #[error("Gitter does not let this account change that message")]
    Forbidden,
    /// An answer that looks like never, but that says nothing of the reason.
    #[error("{0}")]
    Rejected(String),
    /// Gitter will never take this.
    #[error("{0}")]
    Refused(String),
    /// The ten minutes in which a message may be edited are over.
    #[error("Gitter lets a message be edited for ten minutes only")]
    TooLate,
    /// The account's requests of this minute are used up.
    #[error("Gitter's request limit is reached")]
    Busy {
        /// When it may be tried again.
        after: Duration,
    },
    /// The service is out, and somebody else finds out when it is back.
    #[error("Gitter is out; it is asked again from time to time")]
    Out {
        /// When it may be tried again.
        after: Duration,
    },
    /// The answer is longer than we are ready to read.
    #[error("Gitter's answer is too long")]
    TooLong,
    /// Gitter cannot be reached, or does not answer as it should.
    #[error("{}", footbridge_core::error_chain::format(source.as_ref()))]
    Unavailable {
        /// Whether the work may have been done all the same.
        outcome: Outcome,
        /// What went wrong.
        source: anyhow::Error,
    },
}

fn outcome_of(repeat: Repeat) -> Outcome {
    match repeat {
        Repeat::Doubles => Outcome::Unknown,
        Repeat::Harmless => Outcome::NotDone,
    }
}

/// The meaning of a status other than success. `after` is what the rate headers ask us to wait.
pub fn fault_of(subject: Subject, repeat: Repeat, status: u16, after: Duration) -> Fault {
    match (status, subject) {
        (401, _) => Fault::SignedOut,
        (403, Subject::Room) => Fault::Closed(
            "Gitter does not let this account into the channel (banned, or it is private)",
        ),
        (404, Subject::Room) => Fault::Closed("The channel does not exist on Gitter (any more)"),
        (404, Subject::Message) => Fault::Gone,
        (403, Subject::Message) => Fault::Forbidden,
        (429, _) => Fault::Busy { after },
        // It is not followed, because the token would go along.
        (300..=399, _) => Fault::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!(
                "Gitter answered with a redirect (status {status}); write the address that it leads to into `api`"
            ),
        },
        (408 | 500.. | ..=299, _) => Fault::Unavailable {
            outcome: outcome_of(repeat),
            source: anyhow!("Gitter answered with status {status}"),
        },
        (413, _) => Fault::Refused("The message is too large for Gitter".to_owned()),
        (_, _) => Fault::Rejected(format!("Gitter refused it with status {status}")),
    }
}

/// The fault behind a request that got no answer.
pub fn fault_of_silence(repeat: Repeat, error: reqwest::Error) -> Fault {
    let outcome = match repeat {
        Repeat::Harmless => Outcome::NotDone,
        Repeat::Doubles if error.is_connect() || error.is_builder() => Outcome::NotDone,
        Repeat::Doubles => Outcome::Unknown,
    };
    // The address names rooms and people's ids; the cause is enough.
    let source = anyhow::Error::new(error.without_url()).context("Gitter did not answer");
    Fault::Unavailable { outcome, source }
}

impl Fault {
    /// How long we are asked to wait, if anybody said.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Busy { after } | Self::Out { after } => Some(*after),
            _ => None,
        }
    }
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> Self {
        let reason = fault.to_string();
        match fault {
            Fault::SignedOut => Self::SignedOut { reason },
            Fault::Closed(_) => Self::Closed { reason },
            Fault::Gone | Fault::Forbidden | Fault::Refused(_) => Self::Refused { reason },
            Fault::Rejected(_) => Self::Rejected { reason },
            Fault::TooLate => Self::TooLate,
            Fault::Busy { after } => Self::RateLimited { after: Some(after) },
            Fault::Out { after } => Self::Retry {
                after: Some(after),
                outcome: Outcome::NotDone,
                source: anyhow!(reason),
            },
            Fault::TooLong => Self::Retry {
                after: None,
                outcome: Outcome::Unknown,
                source: anyhow!(reason),
            },
            Fault::Unavailable { outcome, source } => Self::Retry {
                after: None,
                outcome,
                source,
            },
        }
    }
}

impl From<Fault> for SiloError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::SignedOut => Self::SignedOut(fault.to_string()),
            Fault::Closed(reason) => Self::NoChannel(reason.to_owned()),
            Fault::Unavailable { source, .. } => Self::Unavailable(source),
            other => Self::Unavailable(anyhow::Error::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault in one word.
    fn word(fault: &Fault) -> &'static str {
        match fault {
            Fault::SignedOut => "signed out",
            Fault::Closed(_) => "closed",
            Fault::Gone => "gone",
            Fault::Forbidden => "forbidden",
            Fault::Refused(_) => "refused",
            Fault::Rejected(_) => "rejected",
            Fault::TooLate => "too late",
            Fault::Busy { .. } => "busy",
            Fault::Out { .. } => "out",
            Fault::TooLong => "too long",
            Fault::Unavailable {
                outcome: Outcome::NotDone,
                ..
            } => "not done",
            Fault::Unavailable {
                outcome: Outcome::Unknown,
                ..
            } => "unknown",
        }
    }

    #[test]
    fn every_status_has_one_meaning() {
        use Repeat::{Doubles, Harmless};
        use Subject::{Account, Message, Room};
        let table = [
            (Account, Harmless, 401, "signed out"),
            (Room, Doubles, 401, "signed out"),
            (Message, Harmless, 401, "signed out"),
            (Room, Doubles, 403, "closed"),
            (Room, Harmless, 403, "closed"),
            (Room, Doubles, 404, "closed"),
            (Message, Harmless, 404, "gone"),
            (Message, Harmless, 403, "forbidden"),
            (Room, Doubles, 400, "rejected"),
            (Message, Harmless, 400, "rejected"),
            (Room, Doubles, 406, "rejected"),
            (Room, Doubles, 413, "refused"),
            (Room, Doubles, 422, "rejected"),
            (Room, Doubles, 429, "busy"),
            (Account, Harmless, 429, "busy"),
            (Room, Doubles, 408, "unknown"),
            (Room, Doubles, 500, "unknown"),
            (Room, Doubles, 502, "unknown"),
            (Room, Doubles, 503, "unknown"),
            (Room, Doubles, 504, "unknown"),
            (Message, Harmless, 502, "not done"),
            (Room, Harmless, 503, "not done"),
            (Room, Doubles, 302, "unknown"),
            (Account, Harmless, 302, "not done"),
        ];
        for (subject, repeat, status, meaning) in table {
            let fault = fault_of(subject, repeat, status, Duration::from_secs(3));
            assert_eq!(word(&fault), meaning, "{subject:?} {repeat:?} {status}");
        }
    }

    #[test]
    fn the_house_is_told_how_long_gitter_wants_us_to_wait() {
        let busy = fault_of(Subject::Room, Repeat::Doubles, 429, Duration::from_secs(7));
        let SendError::RateLimited { after } = SendError::from(busy) else {
            panic!("a busy Gitter is tried again");
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_closed_room_closes_its_lane_and_not_the_account() {
        let closed = || fault_of(Subject::Room, Repeat::Doubles, 403, Duration::ZERO);
        assert!(matches!(
            SendError::from(closed()),
            SendError::Closed { .. }
        ));
        assert!(matches!(SiloError::from(closed()), SiloError::NoChannel(_)));
    }
}
