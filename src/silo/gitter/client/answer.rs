//! Reading Gitter's answers: bounded, and never trusted to be what the API promises.

use anyhow::{Context, anyhow};
use footbridge_core::{
    bounded::{self, BodyError},
    outlet::Outcome,
};
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::fault::{Fault, Repeat, fault_of_silence};

/// The longest answer we read: a full listing of long messages, several times over.
const LONGEST_ANSWER: usize = 8 << 20;

/// An answer that is not what the API promises.
pub fn unreadable(repeat: Repeat) -> Fault {
    Fault::Unavailable {
        outcome: match repeat {
            Repeat::Doubles => Outcome::Unknown,
            Repeat::Harmless => Outcome::NotDone,
        },
        source: anyhow!("Gitter's answer is not what the API promises"),
    }
}

/// Reads a part of an answer.
pub fn readable<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_json::from_value(value)
        .context("Gitter's answer is not what the API promises")
        .map_err(|source| Fault::Unavailable {
            outcome: Outcome::NotDone,
            source,
        })
}

/// The body of an answer, if it is not too long.
pub async fn read_bounded(response: Response, repeat: Repeat) -> Result<Vec<u8>, Fault> {
    let body = bounded::body(response, LONGEST_ANSWER).await;
    body.map_err(|unread| match unread {
        BodyError::Broken(error) => fault_of_silence(repeat, error),
        BodyError::TooLong(_) | BodyError::NotJson(_) => Fault::TooLong,
    })
}
