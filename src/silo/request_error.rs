//! Why a request to a silo failed, and what that means to the lanes and listeners. Each silo has a table of its own from its
//! answers to these errors.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::{Outcome, SendError};

use crate::SiloError;

/// A kind of silo, as errors and logs name it.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// What an operator reads where the token is refused, with the remedy.
    pub signed_out: &'static str,
    /// The key of the configuration that holds its address.
    pub address_key: &'static str,
}

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The account, users, settings, the list of channels.
    Account,
    /// A channel: reading it, joining it, posting in it.
    Channel,
    /// One message that exists already.
    Message,
    /// The same, for adding a reaction.
    Reaction,
    /// A file.
    File,
}

/// Whether repeating a request could do its work twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatSafety {
    /// Each request makes something new.
    Unsafe,
    /// It reads, or sets the same value again.
    Safe,
}

impl RepeatSafety {
    /// The outcome of a request without an answer.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Unsafe => Outcome::Unknown,
            Self::Safe => Outcome::NotDone,
        }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The silo refuses the token.
    #[error("{}", .0.signed_out)]
    SignedOut(&'static Service),
    /// The channel is closed to this account.
    #[error("{0}")]
    Closed(&'static str),
    /// The message does not exist (any more).
    #[error("the message does not exist on {}", .0.name)]
    Gone(&'static Service),
    /// The account may not change the message.
    #[error("{} does not allow this account to change that message", .0.name)]
    Forbidden(&'static Service),
    /// The server has no emoji of that name.
    #[error("{} has no emoji of that name", .0.name)]
    NoEmoji(&'static Service),
    /// The thread of a message does not exist (any more).
    #[error("the thread does not exist on {}", .0.name)]
    NoThread(&'static Service),
    /// An answer that looks permanent and gives no reason.
    #[error("{0}")]
    Rejected(String),
    /// The silo will never accept this.
    #[error("{0}")]
    Refused(String),
    /// The time in which a message may be edited is over.
    #[error("{} does not allow an edit that late", .0.name)]
    TooLate(&'static Service),
    /// Too many requests.
    #[error("the request limit of {} is reached", .service.name)]
    RateLimited {
        /// The silo, or a proxy in front of it.
        service: &'static Service,
        /// How long to wait.
        after: Duration,
    },
    /// The service is out, and another request is the probe.
    #[error("{} is unavailable; retrying periodically", .service.name)]
    CircuitOpen {
        /// The silo.
        service: &'static Service,
        /// How long to wait.
        after: Duration,
    },
    /// The answer is longer than the bridge reads.
    #[error("an answer of {} is too long", .0.name)]
    TooLong(&'static Service),
    /// The silo cannot be reached, or gives an unexpected answer.
    #[error("{}", footbridge_core::error_chain::format(.source.as_ref()))]
    Unavailable {
        /// Whether the request may have been processed.
        outcome: Outcome,
        /// The cause.
        source: anyhow::Error,
    },
}

impl Service {
    /// The error of a request without an answer.
    pub fn no_response(&self, repeat: RepeatSafety, error: reqwest::Error) -> RequestError {
        let outcome = if error.is_connect() || error.is_builder() {
            Outcome::NotDone
        } else {
            repeat.outcome()
        };
        // The URL contains ids of channels and people, so it is left out.
        let source = anyhow::Error::new(error.without_url())
            .context(format!("{} did not answer", self.name));
        RequestError::Unavailable { outcome, source }
    }

    /// The error of an answer in an unexpected format.
    pub fn unexpected_format(&self, repeat: RepeatSafety) -> RequestError {
        RequestError::Unavailable {
            outcome: repeat.outcome(),
            source: anyhow!("the answer of {} has an unexpected format", self.name),
        }
    }

    /// The error of a status that says nothing about the request. A redirect is not followed, because the request carries the
    /// token.
    pub fn unexpected_status(&self, repeat: RepeatSafety, status: u16) -> RequestError {
        let Self {
            name, address_key, ..
        } = self;
        let source = if (300..=399).contains(&status) {
            anyhow!(
                "{name} answered with a redirect (status {status}); write the address that it redirects to into `{address_key}`"
            )
        } else {
            anyhow!("{name} answered with status {status}")
        };
        RequestError::Unavailable {
            outcome: repeat.outcome(),
            source,
        }
    }
}

impl RequestError {
    /// Whether the silo answered that it will not perform the request. Not so if it was not reached, or asks to wait.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Closed(_)
            | Self::Gone(_)
            | Self::Forbidden(_)
            | Self::NoEmoji(_)
            | Self::NoThread(_)
            | Self::Rejected(_)
            | Self::Refused(_)
            | Self::TooLate(_) => true,
            Self::SignedOut(_)
            | Self::RateLimited { .. }
            | Self::CircuitOpen { .. }
            | Self::TooLong(_)
            | Self::Unavailable { .. } => false,
        }
    }

    /// How long the silo asks the bridge to wait, if it says so.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after, .. } | Self::CircuitOpen { after, .. } => Some(*after),
            _ => None,
        }
    }
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        let reason = error.to_string();
        match error {
            RequestError::SignedOut(_) => Self::SignedOut { reason },
            RequestError::Closed(_) => Self::Closed { reason },
            RequestError::Gone(_)
            | RequestError::Forbidden(_)
            | RequestError::NoThread(_)
            | RequestError::Refused(_) => Self::Refused { reason },
            RequestError::Rejected(_) => Self::Rejected { reason },
            // Planned again at once: an emoji without a name goes into the text line.
            RequestError::NoEmoji(_) => Self::Retry {
                after: Some(Duration::ZERO),
                outcome: Outcome::NotDone,
                source: anyhow!(reason),
            },
            RequestError::TooLate(_) => Self::TooLate,
            RequestError::RateLimited { after, .. } => Self::RateLimited { after: Some(after) },
            RequestError::CircuitOpen { after, .. } => Self::Retry {
                after: Some(after),
                outcome: Outcome::NotDone,
                source: anyhow!(reason),
            },
            RequestError::TooLong(_) => Self::Retry {
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

/// The error of a look-up: what the silo refuses is no channel of this account.
pub fn no_channel(error: RequestError) -> SiloError {
    match error {
        RequestError::Refused(reason) | RequestError::Rejected(reason) => {
            SiloError::NoChannel(reason)
        }
        other => other.into(),
    }
}

impl From<RequestError> for SiloError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::SignedOut(_) => Self::SignedOut(error.to_string()),
            RequestError::Closed(reason) => Self::NoChannel(reason.to_owned()),
            RequestError::Unavailable { source, .. } => Self::Unavailable(source),
            other => Self::Unavailable(anyhow::Error::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SERVICE: Service = Service {
        name: "Chat",
        signed_out: "Chat refuses the token",
        address_key: "url",
    };

    #[test]
    fn a_lane_waits_as_long_as_the_silo_asks() {
        let after = Duration::from_secs(7);
        let error = RequestError::RateLimited {
            service: &SERVICE,
            after,
        };
        assert_eq!(error.wait(), Some(after));
        let SendError::RateLimited { after: waits } = SendError::from(error) else {
            panic!("a rate limit is no fault of the message");
        };
        assert_eq!(waits, Some(after));
    }

    #[test]
    fn a_closed_channel_closes_its_lane_and_not_the_account() {
        let closed = || RequestError::Closed("closed");
        assert!(matches!(
            SendError::from(closed()),
            SendError::Closed { .. }
        ));
        assert!(matches!(SiloError::from(closed()), SiloError::NoChannel(_)));
    }

    #[test]
    fn a_status_that_says_nothing_leaves_the_outcome_of_a_new_message_unknown() {
        for (repeat, outcome) in [
            (RepeatSafety::Unsafe, Outcome::Unknown),
            (RepeatSafety::Safe, Outcome::NotDone),
        ] {
            for status in [302, 503] {
                let error = SERVICE.unexpected_status(repeat, status);
                let RequestError::Unavailable { outcome: found, .. } = error else {
                    panic!("{status} says nothing about a message");
                };
                assert_eq!(found, outcome, "{status}");
            }
        }
        let redirect = SERVICE.unexpected_status(RepeatSafety::Safe, 301);
        assert!(redirect.to_string().contains("into `url`"), "{redirect}");
    }
}
