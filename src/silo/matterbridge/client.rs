//! Matterbridge's REST API: a health check, and sending. Bounded responses, one meaning per status. The bridge never
//! calls `GET /api/messages`: it empties the buffer that the feed reads, and shrinks it permanently.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::{secret::Secret, spool::Blocks};
use reqwest::{
    Body, Method, RequestBuilder, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde_json::Value;
use url::Url;

use super::{
    api::{self, Event, Post},
    errors::{
        RepeatSafety, RequestError, SERVICE, classify, explained, outcome_unknown, unavailable,
    },
};
use crate::rest::RestClient;

/// The time limit of a message with a file, up to the last byte of the response.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);
/// The longest response, in bytes: it contains the message that was sent.
const MAX_RESPONSE: usize = 4 << 20;

/// The REST client of one API account.
pub struct Client(RestClient);

impl Client {
    /// Builds the client; sends no request. It has no circuit breaker: whether Matterbridge answers is found out by the feed, and
    /// asked before each message while the feed is not live.
    pub fn new(http: reqwest::Client, base: &Url, token: Option<Secret>) -> Self {
        let rest = RestClient::new(&SERVICE, http, api_url(base), token, MAX_RESPONSE);
        Self(rest.without_breaker())
    }

    /// Whether Matterbridge responds and accepts the token.
    pub async fn ready(&self) -> Result<(), RequestError> {
        let request = self.request(Method::GET, "health")?;
        let response = self.answered(RepeatSafety::Safe, request).await?;
        let body = self.0.body(response, RepeatSafety::Safe).await?;
        if body.trim_ascii() == b"OK" {
            Ok(())
        } else {
            Err(unavailable(anyhow!(
                "the server at the configured `api` is not Matterbridge's API"
            )))
        }
    }

    /// Sends a message. Returns the message as Matterbridge accepted it, which does not prove that it was delivered.
    pub async fn send(&self, post: &Post<'_>) -> Result<Event, RequestError> {
        let request = self.request(Method::POST, "message")?.json(post);
        self.taken(request).await
    }

    /// Sends a message of `length` bytes as a stream, as it is too long for memory.
    pub async fn send_long(&self, length: u64, json: Blocks) -> Result<Event, RequestError> {
        let request = self
            .request(Method::POST, "message")?
            .timeout(TRANSFER_TIMEOUT)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, length)
            .body(Body::wrap_stream(json));
        self.taken(request).await
    }

    fn request(&self, method: Method, call: &str) -> Result<RequestBuilder, RequestError> {
        Ok(self.0.request(method, self.0.address(&[call])?))
    }

    /// The message as Matterbridge accepted it.
    async fn taken(&self, request: RequestBuilder) -> Result<Event, RequestError> {
        let response = self.answered(RepeatSafety::Unsafe, request).await?;
        match self.0.body(response, RepeatSafety::Unsafe).await {
            // Matterbridge accepted it before it began the response.
            Err(_) => Ok(Event::default()),
            Ok(body) => api::read(&body).ok_or_else(outcome_unknown),
        }
    }

    async fn answered(
        &self,
        repeat: RepeatSafety,
        request: RequestBuilder,
    ) -> Result<Response, RequestError> {
        let sent = self.0.send(request, repeat).await;
        let response = sent.map_err(|error| explained(repeat, error))?;
        let status = response.status().as_u16();
        tracing::debug!(status, "Matterbridge answered");
        if response.status().is_success() {
            return Ok(response);
        }
        let body = self.0.body(response, repeat).await.unwrap_or_default();
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = error.get("message").and_then(Value::as_str);
        Err(classify(repeat, status, message.unwrap_or_default()))
    }
}

/// The base of the API's addresses; the configured one may already end in `/api`.
pub fn api_url(base: &Url) -> Url {
    let path = base.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path);
    let mut url = base.clone();
    url.set_path(&format!("{path}/api"));
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest;

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
            let api = api_url(&base.parse().unwrap());
            let health = rest::address(&SERVICE, &api, &["health"]).unwrap();
            assert_eq!(health.as_str(), url);
        }
    }
}
