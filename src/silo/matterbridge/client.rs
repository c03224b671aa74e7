//! Matterbridge's REST API: whether it is there, and sending. Bounded answers, one meaning per status. Its
//! `GET /api/messages` is never called: it empties the buffer that the feed reads, and makes it a small one for good.

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

/// From the request to the last byte of the answer.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for a message that carries a file.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);
/// The longest answer we read, in bytes: our own message comes back in it.
const MAX_RESPONSE: usize = 4 << 20;

/// The REST side of one API account.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

impl Client {
    /// Prepares requests; makes none.
    pub fn new(http: reqwest::Client, base: Url, token: Option<Secret>) -> Self {
        Self { http, base, token }
    }

    /// Whether a Matterbridge that lets us in is there.
    pub async fn ready(&self) -> Result<(), RequestError> {
        let request = self.request(Method::GET, "health");
        let response = answered(RequestKind::Read, request).await?;
        let body = read_bounded(response).await;
        let body = body
            .ok_or_else(|| RequestError::Unavailable(anyhow!("Matterbridge's answer broke off")))?;
        if body.trim_ascii() == b"OK" {
            Ok(())
        } else {
            Err(RequestError::Unavailable(anyhow!(
                "what answers at the configured `api` is not Matterbridge's API"
            )))
        }
    }

    /// Sends a message. Answers what Matterbridge made of it: taken, and no more than that.
    pub async fn send(&self, post: &Post<'_>) -> Result<Event, RequestError> {
        let request = self.request(Method::POST, "message").json(post);
        taken(answered(RequestKind::Send, request).await?).await
    }

    /// Sends a message that is so long, in bytes, that it is never whole in memory.
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

/// The address of a call below the configured one, which may have the `/api` in it already.
pub fn address(base: &Url, call: &str) -> Url {
    let path = base.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path);
    let mut url = base.clone();
    url.set_path(&format!("{path}/api/{call}"));
    url
}

/// What Matterbridge made of a message.
async fn taken(response: Response) -> Result<Event, RequestError> {
    match read_bounded(response).await {
        // It was taken before the answer began.
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
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = said.get("message").and_then(Value::as_str);
    Err(classify(request, status, message.unwrap_or_default()))
}

/// The body of an answer; `None` where it broke off or is too long.
async fn read_bounded(response: Response) -> Option<Vec<u8>> {
    bounded::body(response, MAX_RESPONSE).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_stand_below_the_configured_address() {
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
