//! Matterbridge's REST API: a health check, and sending. Bounded responses, one meaning per status. The bridge never
//! calls `GET /api/messages`: it empties the buffer that the feed reads, and shrinks it permanently.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::{bounded, secret::Secret, spool::Blocks};
use reqwest::{
    Body, Method, RequestBuilder, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde_json::Value;
use url::Url;

use super::{
    api::{self, Event, Post},
    errors::{RequestError, RequestKind, classify, classify_no_response},
};

/// The time limit of a request, up to the last byte of the response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for a message with a file.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);
/// The longest response, in bytes: it contains the message that was sent.
const MAX_RESPONSE: usize = 4 << 20;

/// The REST client of one API account.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

impl Client {
    /// Builds the client; sends no request.
    pub fn new(http: reqwest::Client, base: Url, token: Option<Secret>) -> Self {
        Self { http, base, token }
    }

    /// Whether Matterbridge responds and accepts the token.
    pub async fn ready(&self) -> Result<(), RequestError> {
        let request = self.request(Method::GET, "health");
        let response = answered(RequestKind::Read, request).await?;
        let body = read_bounded(response).await;
        let body = body.ok_or_else(|| {
            RequestError::Unavailable(anyhow!("Matterbridge's response was cut off"))
        })?;
        if body.trim_ascii() == b"OK" {
            Ok(())
        } else {
            Err(RequestError::Unavailable(anyhow!(
                "the server at the configured `api` is not Matterbridge's API"
            )))
        }
    }

    /// Sends a message. Returns the message as Matterbridge accepted it, which does not prove that it was delivered.
    pub async fn send(&self, post: &Post<'_>) -> Result<Event, RequestError> {
        let request = self.request(Method::POST, "message").json(post);
        taken(answered(RequestKind::Send, request).await?).await
    }

    /// Sends a message of `length` bytes as a stream, as it is too long for memory.
    pub async fn send_long(&self, length: u64, json: Blocks) -> Result<Event, RequestError> {
        let request = self
            .request(Method::POST, "message")
            .timeout(TRANSFER_TIMEOUT)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, length)
            .body(Body::wrap_stream(json));
        taken(answered(RequestKind::Send, request).await?).await
    }

    fn request(&self, method: Method, call: &str) -> RequestBuilder {
        let request = self.http.request(method, address(&self.base, call));
        let request = request.timeout(RESPONSE_TIMEOUT);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }
}

/// The address of an API call; the configured base may already end in `/api`.
pub fn address(base: &Url, call: &str) -> Url {
    let path = base.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path);
    let mut url = base.clone();
    url.set_path(&format!("{path}/api/{call}"));
    url
}

/// The message as Matterbridge accepted it.
async fn taken(response: Response) -> Result<Event, RequestError> {
    match read_bounded(response).await {
        // Matterbridge accepted it before it began the response.
        None => Ok(Event::default()),
        Some(body) => api::read(&body).ok_or(RequestError::OutcomeUnknown),
    }
}

async fn answered(request: RequestKind, builder: RequestBuilder) -> Result<Response, RequestError> {
    let sent = builder.send().await;
    let response = sent.map_err(|error| classify_no_response(request, error))?;
    let status = response.status().as_u16();
    tracing::debug!(status, "Matterbridge answered");
    if response.status().is_success() {
        return Ok(response);
    }
    let body = read_bounded(response).await.unwrap_or_default();
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = error.get("message").and_then(Value::as_str);
    Err(classify(request, status, message.unwrap_or_default()))
}

/// The body of a response; `None` if it was cut off or is too long.
async fn read_bounded(response: Response) -> Option<Vec<u8>> {
    bounded::body(response, MAX_RESPONSE).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_below_the_configured_address() {
        for (base, url) in [
            ("http://127.0.0.1:4242", "http://127.0.0.1:4242/api/health"),
            (
                "http://127.0.0.1:4242/api/",
                "http://127.0.0.1:4242/api/health",
            ),
            (
                "https://chat.example/mb",
                "https://chat.example/mb/api/health",
            ),
        ] {
            assert_eq!(address(&base.parse().unwrap(), "health").as_str(), url);
        }
    }
}
