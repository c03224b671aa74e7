//! What an error of the SDK means. The only place that reads HTTP status codes and Matrix error codes.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::{
    error_chain,
    outlet::{Outcome, SendError},
};
use matrix_sdk::{
    HttpError, RefreshTokenError,
    ruma::api::error::{ErrorKind, RetryAfter},
};

use tracing::debug;

use super::MatrixError;

/// How long to wait when the account is not, or not yet, in the room.
const NOT_JOINED: Duration = Duration::from_secs(5);

const FORBIDDEN: &str = "the homeserver does not allow the bridge's account to do that in the room: it was removed from the room (then \
     invite it again), or has no permission to send there";
const NOT_FOUND: &str = "the homeserver does not find the room, or does not show it to the bridge's account; invite it again";
const TOO_LARGE: &str = "the homeserver refuses it as too large";
const WRONG: &str = "the homeserver refuses it as invalid";

/// An error of a request, by what the caller does about it. The text is for people and contains no message text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// The homeserver no longer accepts the session, or has deactivated the account.
    SignedOut(String),
    /// Rate-limited, with the delay if the homeserver named one.
    RateLimited(Option<Duration>),
    /// Not allowed.
    Forbidden(String),
    /// Not found.
    NotFound(String),
    /// Too large for an event.
    TooLarge(String),
    /// The request is invalid and will stay so.
    Invalid(String),
    /// The account is not in the room.
    NotJoined,
    /// The request did not reach the homeserver, or had no effect.
    NotSent(String),
    /// The request may have reached the homeserver.
    Unknown(String),
}

impl From<&HttpError> for RequestError {
    fn from(error: &HttpError) -> Self {
        if let HttpError::Reqwest(error) = error {
            let text = error_chain::format(error);
            return if error.is_connect() || error.is_builder() {
                Self::NotSent(text)
            } else {
                Self::Unknown(text)
            };
        }
        if let HttpError::Cached(error) = error {
            return Self::from(error.as_ref());
        }
        if let HttpError::RefreshToken(error) = error {
            return Self::from_refresh(error);
        }
        let mut text = error.to_string();
        let Some(answer) = error.as_client_api_error() else {
            // Not a Matrix response: a proxy's page, or a broken body.
            return Self::Unknown(text);
        };
        let status = answer.status_code.as_u16();
        match answer.error_kind() {
            Some(ErrorKind::LimitExceeded(limit)) => Self::RateLimited(match limit.retry_after {
                Some(RetryAfter::Delay(wait)) => Some(wait),
                _ => None,
            }),
            Some(ErrorKind::UnknownToken(data)) if data.soft_logout => {
                text.push_str(" (the session has expired, the device still exists: log in again)");
                Self::SignedOut(text)
            }
            Some(
                ErrorKind::UnknownToken(_)
                | ErrorKind::MissingToken
                | ErrorKind::UserDeactivated
                | ErrorKind::UserLocked
                | ErrorKind::UserSuspended,
            ) => Self::SignedOut(text),
            Some(ErrorKind::Forbidden) => Self::Forbidden(text),
            Some(ErrorKind::TooLarge) => Self::TooLarge(text),
            Some(ErrorKind::NotFound) => Self::NotFound(text),
            // The request reached a wrong worker of the homeserver, which says nothing about the resource.
            Some(ErrorKind::Unrecognized) => Self::NotSent(text),
            Some(_) => match status {
                401 => Self::SignedOut(text),
                403 => Self::Forbidden(text),
                404 => Self::NotFound(text),
                413 => Self::TooLarge(text),
                429 => Self::RateLimited(None),
                400..=499 => Self::Invalid(text),
                _ => Self::Unknown(text),
            },
            // A proxy sent this response: it says nothing about the account or its rooms.
            None => match status {
                413 => Self::TooLarge(text),
                429 => Self::RateLimited(None),
                _ => Self::Unknown(text),
            },
        }
    }
}

impl From<&matrix_sdk::Error> for RequestError {
    fn from(error: &matrix_sdk::Error) -> Self {
        match error {
            matrix_sdk::Error::Http(error) => Self::from(error.as_ref()),
            matrix_sdk::Error::WrongRoomState(_) => Self::NotJoined,
            // Errors of the bridge's own encryption happen before anything is sent.
            matrix_sdk::Error::OlmError(_)
            | matrix_sdk::Error::MegolmError(_)
            | matrix_sdk::Error::CryptoStoreError(_)
            | matrix_sdk::Error::StateStore(_)
            | matrix_sdk::Error::NoOlmMachine => Self::NotSent(error_chain::format(error)),
            error => Self::Unknown(error_chain::format(error)),
        }
    }
}

impl RequestError {
    /// A failed refresh. The session had expired, so the homeserver had rejected the request itself.
    pub(super) fn from_refresh(error: &RefreshTokenError) -> Self {
        let RefreshTokenError::MatrixAuth(error) = error else {
            return Self::SignedOut(error.to_string());
        };
        let answer = error.as_client_api_error();
        if let Some(ErrorKind::UnknownToken(data)) = answer.and_then(|answer| answer.error_kind())
            && !data.soft_logout
        {
            return Self::SignedOut(format!(
                "{error} (about the refresh token: either somebody logged the device out, or the token had been used \
                 before and its response was lost, for example by a kill during a renewal, and the homeserver \
                 removed the device because of that. If the device no longer exists, `footbridge device reset` \
                 creates a new one and keeps the queue)"
            ));
        }
        match Self::from(error.as_ref()) {
            Self::Forbidden(why) | Self::NotFound(why) | Self::Invalid(why) => Self::SignedOut(
                format!("{why} (the session has expired and is not renewed: log in again)"),
            ),
            Self::Unknown(why) => Self::NotSent(why),
            error => error,
        }
    }

    /// The error of a request before the event was sent, as the result of a step: whatever became of the request, the step was not
    /// done.
    pub(super) fn into_unsent_error(self) -> SendError {
        match self {
            Self::Unknown(why) => Self::NotSent(why).into_send_error(),
            error => error.into_send_error(),
        }
    }

    /// The error as the result of a step.
    pub(super) fn into_send_error(self) -> SendError {
        match self {
            Self::SignedOut(reason) => SendError::SignedOut { reason },
            Self::RateLimited(after) => SendError::RateLimited { after },
            Self::Forbidden(answer) => SendError::Closed {
                reason: in_words(&answer, FORBIDDEN),
            },
            Self::NotFound(answer) => SendError::Closed {
                reason: in_words(&answer, NOT_FOUND),
            },
            Self::TooLarge(answer) => SendError::Refused {
                reason: in_words(&answer, TOO_LARGE),
            },
            // A proxy, or a homeserver with a defect, also answers with this.
            Self::Invalid(answer) => SendError::Rejected {
                reason: format!("{} ({})", in_words(&answer, WRONG), code_of(&answer)),
            },
            Self::NotJoined => retry(Some(NOT_JOINED), Outcome::NotDone, "not in the room"),
            Self::NotSent(reason) => retry(None, Outcome::NotDone, &reason),
            Self::Unknown(reason) => retry(None, Outcome::Unknown, &reason),
        }
    }

    /// The error as the result of anything but a step.
    pub(super) fn into_matrix_error(self, doing: &str) -> MatrixError {
        match self {
            Self::SignedOut(reason) => MatrixError::SignedOut(format!(
                "the homeserver does not accept the bridge's session: {reason}"
            )),
            Self::RateLimited(wait) => MatrixError::Unavailable(anyhow!(
                "cannot {doing}: the homeserver asks to wait {} s",
                wait.map_or(60, |wait| wait.as_secs().max(1))
            )),
            Self::NotJoined => MatrixError::NoRoom(format!("cannot {doing}: not in the room")),
            Self::Forbidden(reason) | Self::NotFound(reason) => {
                MatrixError::NoRoom(format!("cannot {doing}: {reason}"))
            }
            Self::TooLarge(reason)
            | Self::Invalid(reason)
            | Self::NotSent(reason)
            | Self::Unknown(reason) => {
                MatrixError::Unavailable(anyhow!("cannot {doing}: {reason}"))
            }
        }
    }
}

/// The text for people in a channel, which may be public. The homeserver's own message names rooms and accounts, so it
/// is only logged.
fn in_words(answer: &str, words: &str) -> String {
    debug!(answer, "The homeserver refused a step");
    words.to_owned()
}

/// `400 / M_BAD_JSON`, as the SDK shows it at the beginning of an error.
fn code_of(answer: &str) -> &str {
    let code = answer
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    code.map_or("no code", |(code, _)| code)
}

pub(super) fn retry(after: Option<Duration>, outcome: Outcome, why: &str) -> SendError {
    SendError::Retry {
        after,
        outcome,
        source: anyhow!("{why}"),
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{
        api::{EndpointError as _, client::uiaa::UiaaResponse, error::FromHttpResponseError},
        exports::http::Response,
    };
    use serde_json::{Value, json};

    use super::*;

    fn answer(status: u16, body: &str) -> HttpError {
        let response = Response::builder()
            .status(status)
            .body(body.as_bytes())
            .unwrap();
        let error = UiaaResponse::from_http_response(response);
        HttpError::Api(Box::new(FromHttpResponseError::Server(error)))
    }

    fn coded(status: u16, code: &str, more: Value) -> HttpError {
        let mut body = json!({"errcode": code, "error": "words"});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        answer(status, &body.to_string())
    }

    /// The resulting `SendError`, in one word.
    fn word(error: &HttpError) -> String {
        match RequestError::from(error).into_send_error() {
            SendError::Retry { after, outcome, .. } => format!("{outcome:?} {after:?}"),
            SendError::RateLimited { after } => format!("Limited {after:?}"),
            SendError::Refused { .. } => "Refused".into(),
            SendError::Rejected { .. } => "Rejected".into(),
            SendError::Closed { .. } => "Closed".into(),
            SendError::SignedOut { .. } => "SignedOut".into(),
            SendError::TooLate => "TooLate".into(),
        }
    }

    #[test]
    fn each_answer_of_a_homeserver_has_its_meaning() {
        let table = [
            (
                401,
                "M_UNKNOWN_TOKEN",
                json!({"soft_logout": false}),
                "SignedOut",
            ),
            (
                401,
                "M_UNKNOWN_TOKEN",
                json!({"soft_logout": true}),
                "SignedOut",
            ),
            (401, "M_MISSING_TOKEN", json!({}), "SignedOut"),
            (403, "M_USER_DEACTIVATED", json!({}), "SignedOut"),
            (401, "M_USER_LOCKED", json!({}), "SignedOut"),
            (403, "M_FORBIDDEN", json!({}), "Closed"),
            (404, "M_NOT_FOUND", json!({}), "Closed"),
            (404, "M_UNRECOGNIZED", json!({}), "NotDone None"),
            (413, "M_TOO_LARGE", json!({}), "Refused"),
            (400, "M_BAD_JSON", json!({}), "Rejected"),
            (400, "M_UNKNOWN", json!({}), "Rejected"),
            (
                429,
                "M_LIMIT_EXCEEDED",
                json!({"retry_after_ms": 1500}),
                "Limited Some(1.5s)",
            ),
            (429, "M_LIMIT_EXCEEDED", json!({}), "Limited None"),
            (500, "M_UNKNOWN", json!({}), "Unknown None"),
            (502, "M_SOMETHING_NEW", json!({}), "Unknown None"),
        ];
        for (status, code, more, meaning) in table {
            assert_eq!(word(&coded(status, code, more)), meaning, "{status} {code}");
        }
    }

    #[test]
    fn reasons_for_people_contain_no_response_of_the_homeserver() {
        for (status, code) in [
            (403, "M_FORBIDDEN"),
            (404, "M_NOT_FOUND"),
            (413, "M_TOO_LARGE"),
            (400, "M_BAD_JSON"),
        ] {
            let error = json!({"error": "User @bridge:x not in room !abc:x"});
            let refusal = RequestError::from(&coded(status, code, error)).into_send_error();
            let (SendError::Closed { reason }
            | SendError::Refused { reason }
            | SendError::Rejected { reason }) = refusal
            else {
                panic!("{status}: {refusal:?}");
            };
            assert!(
                !reason.contains("@bridge")
                    && !reason.contains('!')
                    && !reason.contains("server returned"),
                "{status}: {reason}"
            );
            assert_eq!(
                reason.contains("400 / M_BAD_JSON"),
                status == 400,
                "{reason}"
            );
        }
    }

    #[test]
    fn a_response_of_a_proxy_closes_no_channel_and_signs_no_account_out() {
        for status in [401, 403, 404, 500, 502, 503, 504, 520] {
            assert_eq!(
                word(&answer(status, "<html>no</html>")),
                "Unknown None",
                "{status}"
            );
        }
        assert_eq!(word(&answer(413, "<html>no</html>")), "Refused");
        assert_eq!(word(&answer(429, "<html>no</html>")), "Limited None");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_was_sent_nothing() {
        let http = footbridge_core::http_client::client().unwrap();
        // Port 9 of the loopback interface: no server listens there.
        let error = http.get("http://127.0.0.1:9/").send().await.unwrap_err();
        assert_eq!(word(&HttpError::Reqwest(error)), "NotDone None");
    }
}
