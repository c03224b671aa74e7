//! The meaning of Gitter's error responses. Gitter's error bodies contain only the reason phrase, so the status decides.

use std::time::Duration;

use crate::request_error::Service;
pub use crate::request_error::{RepeatSafety, RequestError, Subject, no_channel};

/// Gitter. With 401 it also destroys all tokens of an account, so that no request is retried with the same token.
pub static SERVICE: Service = Service {
    name: "Gitter",
    signed_out: "Gitter no longer accepts the account's token; put a new one in the configuration",
    address_key: "api",
};

/// Gitter refuses the token.
pub const SIGNED_OUT: RequestError = RequestError::SignedOut(&SERVICE);

/// The meaning of a status other than success. `after` is the wait that the rate limit headers ask for.
pub fn classify(
    subject: Subject,
    repeat: RepeatSafety,
    status: u16,
    after: Duration,
) -> RequestError {
    match (status, subject) {
        (401, _) => SIGNED_OUT,
        (403, Subject::Channel) => RequestError::Closed(
            "Gitter does not allow this account into the channel (banned, or it is private)",
        ),
        (404, Subject::Channel) => RequestError::Closed("The channel does not exist on Gitter"),
        (404, Subject::Message) => RequestError::Gone(&SERVICE),
        (403, Subject::Message) => RequestError::Forbidden(&SERVICE),
        (429, _) => RequestError::RateLimited {
            service: &SERVICE,
            after,
        },
        (408 | 500.. | ..=399, _) => SERVICE.unexpected_status(repeat, status),
        (413, _) => RequestError::Refused("The message is too large for Gitter".to_owned()),
        (_, _) => RequestError::Rejected(format!("Gitter refused it with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use footbridge_core::outlet::Outcome;

    use super::*;

    /// An error as one word.
    fn word(error: &RequestError) -> &'static str {
        match error {
            RequestError::SignedOut(_) => "signed out",
            RequestError::Closed(_) => "closed",
            RequestError::Gone(_) => "gone",
            RequestError::Forbidden(_) => "forbidden",
            RequestError::Refused(_) => "refused",
            RequestError::Rejected(_) => "rejected",
            RequestError::TooLate(_) => "too late",
            RequestError::NoEmoji(_) | RequestError::NoThread(_) => "never",
            RequestError::RateLimited { .. } => "busy",
            RequestError::CircuitOpen { .. } => "out",
            RequestError::TooLong(_) => "too long",
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
        use Subject::{Account, Channel, Message};
        let table = [
            (Account, Safe, 401, "signed out"),
            (Channel, Unsafe, 401, "signed out"),
            (Message, Safe, 401, "signed out"),
            (Channel, Unsafe, 403, "closed"),
            (Channel, Safe, 403, "closed"),
            (Channel, Unsafe, 404, "closed"),
            (Message, Safe, 404, "gone"),
            (Message, Safe, 403, "forbidden"),
            (Channel, Unsafe, 400, "rejected"),
            (Message, Safe, 400, "rejected"),
            (Channel, Unsafe, 406, "rejected"),
            (Channel, Unsafe, 413, "refused"),
            (Channel, Unsafe, 422, "rejected"),
            (Channel, Unsafe, 429, "busy"),
            (Account, Safe, 429, "busy"),
            (Channel, Unsafe, 408, "unknown"),
            (Channel, Unsafe, 500, "unknown"),
            (Channel, Unsafe, 502, "unknown"),
            (Channel, Unsafe, 503, "unknown"),
            (Channel, Unsafe, 504, "unknown"),
            (Message, Safe, 502, "not done"),
            (Channel, Safe, 503, "not done"),
            (Channel, Unsafe, 302, "unknown"),
            (Account, Safe, 302, "not done"),
        ];
        for (subject, repeat, status, meaning) in table {
            let error = classify(subject, repeat, status, Duration::from_secs(3));
            assert_eq!(word(&error), meaning, "{subject:?} {repeat:?} {status}");
        }
    }
}
