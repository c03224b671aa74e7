//! Errors of the API: the status and its standard phrase, without the reason.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// An error, by its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiError(pub StatusCode);

impl ApiError {
    pub(super) const BAD_REQUEST: Self = Self(StatusCode::BAD_REQUEST);
    pub(super) const UNAUTHORIZED: Self = Self(StatusCode::UNAUTHORIZED);
    pub(super) const FORBIDDEN: Self = Self(StatusCode::FORBIDDEN);
    pub(super) const NOT_FOUND: Self = Self(StatusCode::NOT_FOUND);
    pub(super) const TOO_MANY: Self = Self(StatusCode::TOO_MANY_REQUESTS);
    pub(super) const BROKEN: Self = Self(StatusCode::INTERNAL_SERVER_ERROR);

    /// The HTTP response; `now_ms` is the `uniqueId` of server errors.
    pub(super) fn response(self, now_ms: i64) -> Response {
        let phrase = self.0.canonical_reason().unwrap_or("Unknown");
        let body = if self.0.is_server_error() {
            json!({"error": phrase, "uniqueId": now_ms})
        } else {
            json!({"error": phrase})
        };
        (self.0, Json(body)).into_response()
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused with status {}", self.0)
    }
}

impl std::error::Error for ApiError {}
