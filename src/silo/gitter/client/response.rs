//! Reading Gitter's answers: bounded, and never trusted to be what the API promises.

use anyhow::{Context, anyhow};
use footbridge_core::{
    bounded::{self, BodyError},
    outlet::Outcome,
};
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::errors::{RepeatSafety, RequestError, classify_no_response};

/// The longest answer we read: a full listing of long messages, several times over.
const MAX_RESPONSE: usize = 8 << 20;

/// An answer that is not what the API promises.
pub fn unreadable(repeat: RepeatSafety) -> RequestError {
    RequestError::Unavailable {
        outcome: match repeat {
            RepeatSafety::Unsafe => Outcome::Unknown,
            RepeatSafety::Safe => Outcome::NotDone,
        },
        source: anyhow!("Gitter's answer is not what the API promises"),
    }
}

/// Reads a part of an answer.
pub fn readable<T: DeserializeOwned>(value: Value) -> Result<T, RequestError> {
    serde_json::from_value(value)
        .context("Gitter's answer is not what the API promises")
        .map_err(|source| RequestError::Unavailable {
            outcome: Outcome::NotDone,
            source,
        })
}

/// The body of an answer, if it is not too long.
pub async fn read_bounded(
    response: Response,
    repeat: RepeatSafety,
) -> Result<Vec<u8>, RequestError> {
    let body = bounded::body(response, MAX_RESPONSE).await;
    body.map_err(|unread| match unread {
        BodyError::Broken(error) => classify_no_response(repeat, error),
        BodyError::TooLong(_) | BodyError::NotJson(_) => RequestError::TooLong,
    })
}
