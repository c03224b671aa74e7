//! Gitter's REST API: requests within the budget, bounded responses, one meaning per status.

mod users;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use footbridge_core::{clock::Clock, secret::Secret};
use footbridge_store::Millis;
use reqwest::{Method, header::HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

pub use users::PEOPLE_PAGE;

use super::{
    api::{ChatMessage, Room, User, messages_from_values},
    errors::{RepeatSafety, RequestError, SERVICE, Subject, classify},
    rate_limiter::{MAX_WAIT, Priority, RateLimiter},
};
use crate::{
    markdown::units,
    rest::{Call, RestClient},
    server_clock::date_header,
};

/// The longest text that Gitter accepts, in UTF-16 units.
pub const MAX_UNITS: usize = 4096;
/// The longest answer, in bytes: several times a full listing of long messages.
const MAX_RESPONSE: usize = 8 << 20;
/// The most messages in one listing.
pub const PAGE: usize = 100;

/// The REST client of one account.
pub struct Client {
    rest: RestClient,
    rate_limiter: RateLimiter,
    clock: Clock,
    /// Gitter's clock minus the bridge's, in milliseconds.
    offset: AtomicI64,
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
            rest: RestClient::new(&SERVICE, http, base, Some(token), MAX_RESPONSE),
            rate_limiter: pacer,
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
        let call = Call::get(Subject::Account, &["user"]);
        let response: Value = self.ask(Priority::Read, call).await?;
        let user = match response {
            Value::Array(users) => users.into_iter().next().unwrap_or_default(),
            other => other,
        };
        serde_json::from_value(user).map_err(|_| SERVICE.unexpected_format(RepeatSafety::Safe))
    }

    /// The rooms of the account, and some others that mention it.
    pub async fn rooms(&self) -> Result<Vec<Room>, RequestError> {
        let call = Call::get(Subject::Account, &["rooms"]);
        let rooms: Vec<Value> = self.ask(Priority::Read, call).await?;
        Ok(rooms
            .into_iter()
            .filter_map(|room| serde_json::from_value(room).ok())
            .collect())
    }

    /// One room.
    pub async fn room(&self, room: &str) -> Result<Room, RequestError> {
        let path = ["rooms", room];
        self.ask(Priority::Read, Call::get(Subject::Channel, &path))
            .await
    }

    /// Changes the topic of a room, which needs an admin.
    pub async fn set_topic(&self, room: &str, topic: &str) -> Result<(), RequestError> {
        let path = ["rooms", room];
        let call = Call::new(Method::PUT, Subject::Channel, &path).json(json!({ "topic": topic }));
        self.ask::<Value>(Priority::Audit, call).await.map(drop)
    }

    /// Finds a room by its name, without joining it.
    pub async fn find_room(&self, uri: &str) -> Result<Room, RequestError> {
        let call = Call::new(Method::POST, Subject::Channel, &["rooms"]);
        self.ask(Priority::Read, call.json(json!({ "uri": uri })))
            .await
    }

    /// Joins a room. Being in it already is fine.
    pub async fn join(&self, user: &str, room: &str) -> Result<(), RequestError> {
        let path = ["user", user, "rooms"];
        let call = Call::new(Method::POST, Subject::Channel, &path).json(json!({ "id": room }));
        self.send(Priority::Read, call).await.map(drop)
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
            let mut call = Call::get(Subject::Channel, &path)
                .query("limit", limit)
                .query("includeThreads", true);
            if let Some(after) = &range.after {
                call = call.query("afterId", after);
            }
            if let Some(before) = &range.before {
                call = call.query("beforeId", before);
            }
            if range.skip > 0 {
                call = call.query("skip", range.skip);
            }
            match self.ask::<Vec<Value>>(need, call).await {
                Err(RequestError::TooLong(_)) if limit > 1 => limit /= 4,
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
        self.ask(need, Call::get(Subject::Message, &path)).await
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
        let call = Call::new(Method::POST, Subject::Channel, &path);
        self.ask(Priority::Send, call.json(body).unrepeatable())
            .await
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
        let call = Call::new(Method::PUT, Subject::Message, &path).json(body);
        match self.ask(Priority::Send, call).await {
            Err(error) => Err(self.explained(room, error).await),
            edited => edited,
        }
    }

    /// Why a change was forbidden: an account that is banned from a room may not change its messages in it either.
    async fn explained(&self, room: &str, error: RequestError) -> RequestError {
        if !matches!(error, RequestError::Forbidden(_)) {
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
            .send(
                Priority::Send,
                Call::new(Method::DELETE, Subject::Message, &path),
            )
            .await
        {
            Ok(_) | Err(RequestError::Gone(_)) => Ok(()),
            Err(error) => Err(self.explained(room, error).await),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        priority: Priority,
        call: Call<'_>,
    ) -> Result<T, RequestError> {
        let repeat = call.repeat;
        let body = self.send(priority, call).await?;
        self.rest.read(&body, repeat)
    }

    /// Sends a request when the rate limiter allows it, and reads the answer.
    async fn send(&self, priority: Priority, call: Call<'_>) -> Result<Vec<u8>, RequestError> {
        let (subject, repeat) = (call.subject, call.repeat);
        let request = self.rest.request_of(&call)?;
        self.rest.check_breaker()?;
        let slot = self.rate_limiter.turn(priority).await;
        let sent = self.rest.send(request, repeat).await;
        if self.rest.is_out() {
            self.rate_limiter.out();
        }
        let response = sent?;
        let status = response.status().as_u16();
        let limits = self.read_headers(response.headers());
        let limits_known = limits.is_some_and(|(left, reset_in)| slot.learn(left, reset_in));
        tracing::debug!(subject = ?subject, status, "Gitter answered");
        if status < 500 && status != 429 {
            slot.worked(limits_known);
        }
        if response.status().is_success() {
            return self.rest.body(response, repeat).await;
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
    fn lengths_are_counted_in_utf16_units() {
        assert!(fitting(&"x".repeat(4096)).is_ok());
        assert!(fitting(&"x".repeat(4097)).is_err());
        assert!(fitting(&"🦆".repeat(2048)).is_ok());
        assert!(fitting(&"🦆".repeat(2049)).is_err());
        assert!(fitting("").is_err());
    }
}
