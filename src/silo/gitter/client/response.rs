//! Reads Gitter's responses: bounded, and without relying on the documented format.

use anyhow::{Context, anyhow};
use footbridge_core::{
    bounded::{self, BodyError},
    outlet::Outcome,
};
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::errors::{RepeatSafety, RequestError, classify_no_response};

/// The longest response: several times a full listing of long messages.
const MAX_RESPONSE: usize = 8 << 20;

/// The error for a response in an unexpected format.
pub fn unreadable(repeat: RepeatSafety) -> RequestError {
    RequestError::Unavailable {
        outcome: match repeat {
            RepeatSafety::Unsafe => Outcome::Unknown,
            RepeatSafety::Safe => Outcome::NotDone,
        },
        source: anyhow!("Gitter's response has an unexpected format"),
    }
}

/// Reads a part of a response.
pub fn readable<T: DeserializeOwned>(value: Value) -> Result<T, RequestError> {
    serde_json::from_value(value)
        .context("Gitter's response has an unexpected format")
        .map_err(|source| RequestError::Unavailable {
            outcome: Outcome::NotDone,
            source,
        })
}

/// The body of a response, if it is not too long.
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
