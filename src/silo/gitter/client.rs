//! Gitter's REST API: requests within the budget, bounded responses, one meaning per status.

mod response;
mod users;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use footbridge_core::{clock::Clock, secret::Secret};
use footbridge_store::Millis;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use response::{read_bounded, readable, unreadable};
pub use users::PEOPLE_PAGE;

use super::{
    api::{ChatMessage, Room, User, messages_from_values},
    errors::{RepeatSafety, RequestError, Subject, classify, classify_no_response},
    rate_limiter::{MAX_WAIT, Priority, RateLimiter},
};
use crate::{circuit_breaker::CircuitBreaker, markdown::units, server_clock::date_header};

/// The time limit of a request, up to the last byte of the response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest text that Gitter accepts, in UTF-16 units.
pub const MAX_UNITS: usize = 4096;
/// The most messages in one listing.
pub const PAGE: usize = 100;

/// The REST client of one account.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Secret,
    rate_limiter: RateLimiter,
    breaker: CircuitBreaker,
    clock: Clock,
    /// Gitter's clock minus the bridge's, in milliseconds.
    offset: AtomicI64,
}

/// A request, before it is sent.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    need: Priority,
    subject: Subject,
    repeat: RepeatSafety,
}

impl<'a> Call<'a> {
    fn get(need: Priority, subject: Subject, path: &'a [&'a str]) -> Self {
        Self {
            method: Method::GET,
            path,
            query: Vec::new(),
            body: None,
            need,
            subject,
            repeat: RepeatSafety::Safe,
        }
    }

    fn write(method: Method, subject: Subject, path: &'a [&'a str], body: Option<Value>) -> Self {
        Self {
            method,
            body,
            ..Self::get(Priority::Send, subject, path)
        }
    }
}

/// Which messages of a room to list.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Only ids greater than this.
    pub after: Option<String>,
    /// Only ids less than this: the newest of them.
    pub before: Option<String>,
    /// How many of those to skip.
    pub skip: usize,
}

/// One page of a room, oldest first.
pub struct Page {
    /// The readable messages.
    pub messages: Vec<ChatMessage>,
    /// Whether more may follow.
    pub full: bool,
}

impl Client {
    /// Builds the client; sends no request.
    pub fn new(
        http: reqwest::Client,
        base: Url,
        token: Secret,
        pacer: RateLimiter,
        clock: Clock,
    ) -> Self {
        Self {
            http,
            base,
            token,
            rate_limiter: pacer,
            breaker: CircuitBreaker::default(),
            clock,
            offset: AtomicI64::new(0),
        }
    }

    /// The present time of Gitter's clock, as far as its responses tell it.
    pub fn now(&self) -> Millis {
        self.server_time(self.clock.now())
    }

    /// A time of the bridge's clock, converted to Gitter's.
    pub fn server_time(&self, ours: Millis) -> Millis {
        Millis(ours.0.saturating_add(self.offset.load(Ordering::Relaxed)))
    }

    /// The account of the token.
    pub async fn user(&self) -> Result<User, RequestError> {
        let call = Call::get(Priority::Read, Subject::Account, &["user"]);
        let response: Value = self.ask(call).await?;
        let user = match response {
            Value::Array(users) => users.into_iter().next().unwrap_or_default(),
            other => other,
        };
        readable(user)
    }

    /// The rooms of the account, and some others that mention it.
    pub async fn rooms(&self) -> Result<Vec<Room>, RequestError> {
        let call = Call::get(Priority::Read, Subject::Account, &["rooms"]);
        let rooms: Vec<Value> = self.ask(call).await?;
        Ok(rooms
            .into_iter()
            .filter_map(|room| serde_json::from_value(room).ok())
            .collect())
    }

    /// One room.
    pub async fn room(&self, room: &str) -> Result<Room, RequestError> {
        self.ask(Call::get(Priority::Read, Subject::Room, &["rooms", room]))
            .await
    }

    /// Changes the topic of a room, which needs an admin.
    pub async fn set_topic(&self, room: &str, topic: &str) -> Result<(), RequestError> {
        let path = ["rooms", room];
        let mut call = Call::get(Priority::Audit, Subject::Room, &path);
        (call.method, call.body) = (Method::PUT, Some(json!({ "topic": topic })));
        self.ask::<Value>(call).await.map(drop)
    }

    /// Finds a room by its name, without joining it.
    pub async fn find_room(&self, uri: &str) -> Result<Room, RequestError> {
        let call = Call {
            body: Some(json!({ "uri": uri })),
            method: Method::POST,
            ..Call::get(Priority::Read, Subject::Room, &["rooms"])
        };
        self.ask(call).await
    }

    /// Joins a room. Being in it already is fine.
    pub async fn join(&self, user: &str, room: &str) -> Result<(), RequestError> {
        let path = ["user", user, "rooms"];
        let call = Call {
            body: Some(json!({ "id": room })),
            method: Method::POST,
            ..Call::get(Priority::Read, Subject::Room, &path)
        };
        self.send(call).await.map(drop)
    }

    /// A page of a room: the newest messages, with `after` the first ones after it, with `before` the last ones before
    /// it. Thread replies are included.
    pub async fn messages(
        &self,
        need: Priority,
        room: &str,
        range: &Range,
    ) -> Result<Page, RequestError> {
        let mut limit = PAGE;
        loop {
            let path = ["rooms", room, "chatMessages"];
            let mut call = Call::get(need, Subject::Room, &path);
            call.query.push(("limit", limit.to_string()));
            call.query.push(("includeThreads", "true".to_owned()));
            if let Some(after) = &range.after {
                call.query.push(("afterId", after.clone()));
            }
            if let Some(before) = &range.before {
                call.query.push(("beforeId", before.clone()));
            }
            if range.skip > 0 {
                call.query.push(("skip", range.skip.to_string()));
            }
            match self.ask::<Vec<Value>>(call).await {
                Err(RequestError::TooLong) if limit > 1 => limit /= 4,
                Err(error) => return Err(error),
                Ok(values) => {
                    let full = values.len() >= limit;
                    let (messages, unreadable) = messages_from_values(values);
                    if unreadable > 0 {
                        tracing::warn!(
                            count = unreadable,
                            "Unreadable messages in a listing of Gitter's"
                        );
                    }
                    return Ok(Page { messages, full });
                }
            }
        }
    }

    /// One message.
    pub async fn message(
        &self,
        need: Priority,
        room: &str,
        id: &str,
    ) -> Result<ChatMessage, RequestError> {
        let path = ["rooms", room, "chatMessages", id];
        self.ask(Call::get(need, Subject::Message, &path)).await
    }

    /// Posts a message. A repeated request posts it twice.
    pub async fn create(
        &self,
        room: &str,
        text: &str,
        status: bool,
        parent: Option<&str>,
    ) -> Result<ChatMessage, RequestError> {
        let mut body = json!({ "text": fitting(text)? });
        if let Some(fields) = body.as_object_mut() {
            if status {
                fields.insert("status".to_owned(), Value::Bool(true));
            }
            if let Some(parent) = parent {
                fields.insert("parentId".to_owned(), Value::String(parent.to_owned()));
            }
        }
        let path = ["rooms", room, "chatMessages"];
        let mut call = Call::write(Method::POST, Subject::Room, &path, Some(body));
        call.repeat = RepeatSafety::Unsafe;
        self.ask(call).await
    }

    /// Changes the text of a message of the bridge, within Gitter's ten minutes.
    pub async fn edit(
        &self,
        room: &str,
        id: &str,
        text: &str,
    ) -> Result<ChatMessage, RequestError> {
        let path = ["rooms", room, "chatMessages", id];
        let body = json!({ "text": fitting(text)? });
        let call = Call::write(Method::PUT, Subject::Message, &path, Some(body));
        match self.ask(call).await {
            Err(error) => Err(self.explained(room, error).await),
            edited => edited,
        }
    }

    /// Why a change was forbidden: an account that is banned from a room may not change its messages in it either.
    async fn explained(&self, room: &str, error: RequestError) -> RequestError {
        if !matches!(error, RequestError::Forbidden) {
            return error;
        }
        match self.room(room).await {
            Ok(_) => error,
            Err(why) => why,
        }
    }

    /// Deletes a message of the bridge. A message that does not exist any more is success.
    pub async fn delete(&self, room: &str, id: &str) -> Result<(), RequestError> {
        let path = ["rooms", room, "chatMessages", id];
        match self
            .send(Call::write(Method::DELETE, Subject::Message, &path, None))
            .await
        {
            Ok(_) | Err(RequestError::Gone) => Ok(()),
            Err(error) => Err(self.explained(room, error).await),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, RequestError> {
        let repeat = call.repeat;
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|_| unreadable(repeat))
    }

    /// Sends a request when the rate limiter allows it, and reads the response.
    async fn send(&self, call: Call<'_>) -> Result<Vec<u8>, RequestError> {
        let (subject, repeat) = (call.subject, call.repeat);
        let request = self.request(&call)?;
        self.breaker
            .admits()
            .map_err(|after| RequestError::CircuitOpen { after })?;
        let slot = self.rate_limiter.turn(call.need).await;
        let probe = self
            .breaker
            .acquire()
            .map_err(|after| RequestError::CircuitOpen { after })?;
        let sent = request.send().await;
        let status = sent.as_ref().map(|response| response.status().as_u16());
        // A proxy's error status for a service that does not answer counts as no answer.
        if matches!(status, Err(_) | Ok(502..=504)) {
            if probe.silent() {
                tracing::error!("Gitter is unavailable; retrying periodically");
                self.rate_limiter.out();
            }
        } else if probe.answered() {
            tracing::info!("Gitter answers again");
        }
        let response = sent.map_err(|error| classify_no_response(repeat, error))?;
        let status = response.status().as_u16();
        let limits = self.read_headers(response.headers());
        let limits_known = limits.is_some_and(|(left, reset_in)| slot.learn(left, reset_in));
        tracing::debug!(subject = ?subject, status, "Gitter answered");
        if status < 500 && status != 429 {
            slot.worked(limits_known);
        }
        if response.status().is_success() {
            return read_bounded(response, repeat).await;
        }
        let mut after = Duration::ZERO;
        if status == 429 {
            after = slot.refused(limits.map(|(_, reset_in)| reset_in));
            tracing::warn!(
                wait_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                "Gitter's request limit is reached"
            );
        }
        Err(classify(subject, repeat, status, after))
    }

    /// How many requests per minute audits may send.
    pub fn audits_per_minute(&self) -> u32 {
        self.rate_limiter.audits_per_minute()
    }

    fn request(&self, call: &Call<'_>) -> Result<RequestBuilder, RequestError> {
        let mut url = address(&self.base, call.path)?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .timeout(RESPONSE_TIMEOUT)
            .bearer_auth(self.token.expose());
        if let Some(body) = &call.body {
            // A body in one piece is sent with its length: Gitter refuses chunked ones.
            request = request.json(body);
        }
        Ok(request)
    }

    /// Updates Gitter's clock; returns how many requests are left and for how long that number is valid.
    fn read_headers(&self, headers: &HeaderMap) -> Option<(u32, Duration)> {
        let ours = self.clock.now();
        if let Some(date) = date_header(headers) {
            // The header has whole seconds: a difference below two seconds counts as none.
            let offset = date.0 + 500 - ours.0;
            let offset = if offset.abs() < 2000 { 0 } else { offset };
            self.offset.store(offset, Ordering::Relaxed);
        }
        let number =
            |name: &str| -> Option<i64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
        let remaining = u32::try_from(number("x-ratelimit-remaining")?.max(0)).ok()?;
        let reset = Millis(number("x-ratelimit-reset")?);
        Some((remaining, reset.since(self.server_time(ours)).min(MAX_WAIT)))
    }
}

/// The address of a path below a base; every segment is encoded.
pub fn address(base: &Url, path: &[&str]) -> Result<Url, RequestError> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| {
            RequestError::Refused("The configured Gitter address cannot have a path".to_owned())
        })?
        .pop_if_empty()
        .extend(path);
    Ok(url)
}

/// The text, if Gitter accepts it: its error response would not give the reason.
fn fitting(text: &str) -> Result<&str, RequestError> {
    if text.is_empty() {
        return Err(RequestError::Refused(
            "An empty message cannot be sent to Gitter".to_owned(),
        ));
    }
    if units(text) > MAX_UNITS {
        return Err(RequestError::Refused(format!(
            "The message is longer than Gitter's {MAX_UNITS} characters"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_cannot_change_the_path() {
        let base: Url = "https://api.gitter.example/v1/".parse().unwrap();
        let url = address(&base, &["rooms", "../x?y#z", "chatMessages"]).unwrap();
        assert_eq!(
            url.as_str(),
            "https://api.gitter.example/v1/rooms/..%2Fx%3Fy%23z/chatMessages"
        );
    }

    #[test]
    fn lengths_are_counted_in_utf16_units() {
        assert!(fitting(&"x".repeat(4096)).is_ok());
        assert!(fitting(&"x".repeat(4097)).is_err());
        assert!(fitting(&"🦆".repeat(2048)).is_ok());
        assert!(fitting(&"🦆".repeat(2049)).is_err());
        assert!(fitting("").is_err());
    }
}
