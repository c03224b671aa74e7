//! The meaning of Matterbridge's error responses. Behind a reverse proxy some of the responses are the proxy's.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::outlet::Outcome;

use crate::request_error::Service;
pub use crate::request_error::{RepeatSafety, RequestError};

/// Matterbridge.
pub static SERVICE: Service = Service {
    name: "Matterbridge",
    signed_out: "Matterbridge does not accept the token; write the `Token` of its API account into the configuration",
    address_key: "api",
};

/// Matterbridge refuses the token.
pub const SIGNED_OUT: RequestError = RequestError::SignedOut(&SERVICE);

/// How long to wait after a 429, which only a proxy sends.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(10);

/// The API has no look-up, so the outcome of a message without a response stays unknown.
pub const OUTCOME_UNKNOWN: &str = "Matterbridge's response was lost, so the message may or may not have arrived: check there before you retry it";

/// A message was sent, and no response came.
pub fn outcome_unknown() -> RequestError {
    RequestError::Unavailable {
        outcome: Outcome::Unknown,
        source: anyhow!(OUTCOME_UNKNOWN),
    }
}

/// Matterbridge cannot be reached or gives an unexpected response; the message was not sent.
pub fn unavailable(source: anyhow::Error) -> RequestError {
    RequestError::Unavailable {
        outcome: Outcome::NotDone,
        source,
    }
}

/// The meaning of a status other than success and of the message in its body. A message is sent by a request that is not safe to
/// repeat.
pub fn classify(repeat: RepeatSafety, status: u16, message: &str) -> RequestError {
    use RepeatSafety::{Safe, Unsafe};
    match (status, repeat) {
        // Without an authorization header the API answers 400; a reading request can have no other error.
        (401, _) | (400, Safe) => SIGNED_OUT,
        (400, _) if message.contains("missing key") => SIGNED_OUT,
        (500, _) if message.contains("invalid format") => {
            RequestError::Refused("Matterbridge does not accept the file".to_owned())
        }
        (413, _) => RequestError::Refused(
            "The message is too large for the proxy in front of Matterbridge".to_owned(),
        ),
        (400 | 415, Unsafe) => RequestError::Refused(format!(
            "Matterbridge cannot parse the message (status {status})"
        )),
        (429, _) => RequestError::RateLimited {
            service: &SERVICE,
            after: RATE_LIMIT_PAUSE,
        },
        // A redirect is not followed, and a 503 is that of a proxy which cannot reach Matterbridge: nothing was sent.
        (503 | ..=399, _) | (_, Safe) => SERVICE.unexpected_status(Safe, status),
        (408 | 500.., Unsafe) => outcome_unknown(),
        (_, Unsafe) => RequestError::Rejected(format!(
            "the server at the configured `api` is not Matterbridge's API (status {status})"
        )),
    }
}

/// The error of a request without a response: of a message whose outcome is unknown it says what to do.
pub fn explained(repeat: RepeatSafety, error: RequestError) -> RequestError {
    match error {
        RequestError::Unavailable {
            outcome: Outcome::Unknown,
            ..
        } if repeat == RepeatSafety::Unsafe => outcome_unknown(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use footbridge_core::outlet::SendError;

    use super::*;

    #[test]
    fn every_status_has_one_meaning() {
        use RepeatSafety::{Safe, Unsafe};
        let table = [
            (Unsafe, 401, "Unauthorized", "signed-out"),
            (Safe, 401, "Unauthorized", "signed-out"),
            (Unsafe, 400, "missing key in request header", "signed-out"),
            (Safe, 400, "", "signed-out"),
            (Unsafe, 400, "unexpected EOF", "refused"),
            (Unsafe, 415, "Unsupported Media Type", "refused"),
            (Unsafe, 413, "", "refused"),
            (Unsafe, 500, "invalid format for data", "refused"),
            (Unsafe, 500, "Internal Server Error", "unknown"),
            (Unsafe, 502, "", "unknown"),
            (Unsafe, 504, "", "unknown"),
            (Unsafe, 408, "", "unknown"),
            (Unsafe, 503, "", "not-done"),
            (Unsafe, 302, "", "not-done"),
            (Unsafe, 429, "", "limited"),
            (Unsafe, 404, "Not Found", "rejected"),
            (Safe, 404, "Not Found", "not-done"),
            (Safe, 502, "", "not-done"),
            (Safe, 500, "", "not-done"),
        ];
        for (repeat, status, message, meaning) in table {
            let error = SendError::from(classify(repeat, status, message));
            assert_eq!(error.kind(), meaning, "{repeat:?} {status} {message}");
        }
    }
}
