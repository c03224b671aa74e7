//! The meaning of Matterbridge's error responses: one table from status codes to errors, and from those to the errors
//! that the lanes and listeners handle. Behind a reverse proxy some of the responses are the proxy's.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::{Outcome, SendError};

use crate::SiloError;

/// How long to wait after a 429 of a proxy.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(10);

/// The API has no look-up, so the outcome of a message without a response stays unknown.
pub const OUTCOME_UNKNOWN: &str = "Matterbridge's response was lost, so the message may or may not have arrived: check there before you retry it";

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// To read, or to check that the server responds.
    Read,
    /// To send a message.
    Send,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The token is wrong or missing.
    #[error(
        "Matterbridge does not accept the token; write the `Token` of its API account into the configuration"
    )]
    SignedOut,
    /// Matterbridge will never accept this.
    #[error("{0}")]
    Refused(String),
    /// A response that looks permanent, but may be a proxy's.
    #[error("{0}")]
    Rejected(String),
    /// A proxy in between limits the rate.
    #[error("the proxy in front of Matterbridge is rate-limiting us")]
    RateLimited,
    /// A message was sent and no response came.
    #[error("{OUTCOME_UNKNOWN}")]
    OutcomeUnknown,
    /// Matterbridge cannot be reached or gives an unexpected response; the message was not sent.
    #[error("{}", footbridge_core::error_chain::format(.0.as_ref()))]
    Unavailable(anyhow::Error),
}

/// The meaning of a status other than success and of the message in its body.
pub fn classify(request: RequestKind, status: u16, message: &str) -> RequestError {
    match (status, request) {
        // Without an authorization header the API answers 400; a reading request can have no other error.
        (401, _) | (400, RequestKind::Read) => RequestError::SignedOut,
        (400, _) if message.contains("missing key") => RequestError::SignedOut,
        (500, _) if message.contains("invalid format") => {
            RequestError::Refused("Matterbridge does not accept the file".to_owned())
        }
        (413, _) => RequestError::Refused(
            "The message is too large for the proxy in front of Matterbridge".to_owned(),
        ),
        (400 | 415, RequestKind::Send) => RequestError::Refused(format!(
            "Matterbridge cannot parse the message (status {status})"
        )),
        (429, _) => RequestError::RateLimited,
        // A redirect is not followed, because the request carries the token.
        (300..=399, _) => RequestError::Unavailable(anyhow!(
            "Matterbridge answered with a redirect (status {status}); write the address that it redirects to into `api`"
        )),
        // A proxy that cannot reach Matterbridge.
        (503 | ..=299, _) | (_, RequestKind::Read) => unavailable(status),
        (408 | 500.., RequestKind::Send) => RequestError::OutcomeUnknown,
        (_, RequestKind::Send) => RequestError::Rejected(format!(
            "the server at the configured `api` is not Matterbridge's API (status {status})"
        )),
    }
}

fn unavailable(status: u16) -> RequestError {
    RequestError::Unavailable(anyhow!("Matterbridge answered with status {status}"))
}

/// The error of a request without a response.
pub fn classify_no_response(request: RequestKind, error: reqwest::Error) -> RequestError {
    if request == RequestKind::Send && !error.is_connect() && !error.is_builder() {
        return RequestError::OutcomeUnknown;
    }
    RequestError::Unavailable(
        anyhow::Error::new(error.without_url()).context("Matterbridge did not answer"),
    )
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        let reason = error.to_string();
        match error {
            RequestError::SignedOut => Self::SignedOut { reason },
            RequestError::Refused(_) => Self::Refused { reason },
            RequestError::Rejected(_) => Self::Rejected { reason },
            RequestError::RateLimited => Self::RateLimited {
                after: Some(RATE_LIMIT_PAUSE),
            },
            RequestError::OutcomeUnknown => Self::Retry {
                after: None,
                outcome: Outcome::Unknown,
                source: anyhow!(reason),
            },
            RequestError::Unavailable(source) => Self::Retry {
                after: None,
                outcome: Outcome::NotDone,
                source,
            },
        }
    }
}

impl From<RequestError> for SiloError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::SignedOut => Self::SignedOut(error.to_string()),
            RequestError::Unavailable(source) => Self::Unavailable(source),
            other => Self::Unavailable(anyhow::Error::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(error: &RequestError) -> &'static str {
        match error {
            RequestError::SignedOut => "signed out",
            RequestError::Refused(_) => "refused",
            RequestError::Rejected(_) => "rejected",
            RequestError::RateLimited => "busy",
            RequestError::OutcomeUnknown => "unsure",
            RequestError::Unavailable(_) => "not done",
        }
    }

    #[test]
    fn every_status_has_one_meaning() {
        use RequestKind::{Read, Send};
        let table = [
            (Send, 401, "Unauthorized", "signed out"),
            (Read, 401, "Unauthorized", "signed out"),
            (Send, 400, "missing key in request header", "signed out"),
            (Read, 400, "", "signed out"),
            (Send, 400, "unexpected EOF", "refused"),
            (Send, 415, "Unsupported Media Type", "refused"),
            (Send, 413, "", "refused"),
            (Send, 500, "invalid format for data", "refused"),
            (Send, 500, "Internal Server Error", "unsure"),
            (Send, 502, "", "unsure"),
            (Send, 504, "", "unsure"),
            (Send, 408, "", "unsure"),
            (Send, 503, "", "not done"),
            (Send, 302, "", "not done"),
            (Send, 429, "", "busy"),
            (Send, 404, "Not Found", "rejected"),
            (Read, 404, "Not Found", "not done"),
            (Read, 502, "", "not done"),
            (Read, 500, "", "not done"),
        ];
        for (request, status, message, meaning) in table {
            let error = classify(request, status, message);
            assert_eq!(word(&error), meaning, "{request:?} {status} {message}");
        }
    }

    #[test]
    fn what_may_have_arrived_is_in_doubt() {
        assert!(matches!(
            SendError::from(RequestError::OutcomeUnknown),
            SendError::Retry {
                outcome: Outcome::Unknown,
                ..
            }
        ));
    }
}
