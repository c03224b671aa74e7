//! Mattermost's REST API: bounded responses, one meaning per error, and no more requests than the server allows.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::secret::Secret;
use footbridge_store::Millis;
use reqwest::{
    Method,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use url::Url;

use super::{
    api::{Channel, Listing, Member, Post, STEP_KEY_PROP, Settings, User},
    errors::{
        ARCHIVED_CHANNEL, HIDDEN_CHANNEL, NO_CHANNEL, RepeatSafety, RequestError, SERVICE, Subject,
        classify,
    },
};
use crate::{
    rest::{Call, RestClient},
    server_clock::ServerClock,
};

/// The most posts of one page.
pub const PAGE: usize = 200;
/// The longest response, in bytes: several times a full page of long posts.
const MAX_RESPONSE: usize = 64 << 20;
/// The longest wait that the client accepts from the server.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// The REST client of one account.
pub struct Client {
    pub(super) rest: RestClient,
    server: Url,
    clock: ServerClock,
    /// The server accepts no request before this.
    quiet_until: Mutex<Option<Instant>>,
}

/// The error id in Mattermost's error responses.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorBody {
    pub(super) id: String,
}

/// What a new post says.
#[derive(Clone, Copy, Debug)]
pub struct NewPost<'a> {
    /// Its text, in Markdown.
    pub text: &'a str,
    /// The first post of its thread.
    pub root: Option<&'a str>,
    /// A file that was uploaded for it.
    pub file: Option<&'a str>,
}

/// Which posts of a channel to list.
#[derive(Clone, Debug)]
pub enum Range {
    /// A page of its newest posts; page 0 is the newest.
    Newest(usize),
    /// The posts after this one, oldest page first.
    After(String),
    /// The newest posts before this one.
    Before(String),
    /// All posts that changed after this time, in milliseconds: also deleted posts and old texts. At most a thousand.
    Since(i64),
}

impl Client {
    /// Builds the client; sends no request.
    pub fn new(http: reqwest::Client, base: &Url, token: Secret) -> Self {
        let api = api_url(base);
        Self {
            server: base.clone(),
            rest: RestClient::new(&SERVICE, http, api, Some(token), MAX_RESPONSE),
            clock: ServerClock::default(),
            quiet_until: Mutex::default(),
        }
    }

    /// The address of the server.
    pub fn server(&self) -> &Url {
        &self.server
    }

    /// The server's time, up to a second early; `None` until a response had one.
    pub fn now(&self) -> Option<Millis> {
        self.clock.now()
    }

    /// The account of the token.
    pub async fn me(&self) -> Result<User, RequestError> {
        self.ask(Call::get(Subject::Account, &["users", "me"]))
            .await
    }

    /// A user.
    pub async fn user(&self, id: &str) -> Result<User, RequestError> {
        self.ask(Call::get(Subject::Account, &["users", id])).await
    }

    /// Several users at once.
    pub async fn users(&self, ids: &[String]) -> Result<Vec<User>, RequestError> {
        let call = Call::new(Method::POST, Subject::Account, &["users", "ids"]);
        self.ask(call.json(json!(ids))).await
    }

    /// The server's settings that it shows its clients.
    pub async fn settings(&self) -> Result<Settings, RequestError> {
        let call = Call::get(Subject::Account, &["config", "client"]);
        self.ask(call.query("format", "old")).await
    }

    /// Finds a channel by its name and its team's name.
    pub async fn find_channel(&self, team: &str, channel: &str) -> Result<Channel, RequestError> {
        let path = ["teams", "name", team, "channels", "name", channel];
        match self.ask(Call::get(Subject::Channel, &path)).await {
            Err(RequestError::Closed(NO_CHANNEL)) => {}
            found => return found,
        }
        let call = Call::get(Subject::Channel, &path).query("include_deleted", true);
        match self.ask::<Channel>(call).await {
            Ok(_) => Err(RequestError::Closed(ARCHIVED_CHANNEL)),
            Err(RequestError::Closed(NO_CHANNEL)) => Err(RequestError::Closed(HIDDEN_CHANNEL)),
            Err(error) => Err(error),
        }
    }

    /// A channel.
    pub async fn channel(&self, id: &str) -> Result<Channel, RequestError> {
        self.ask(Call::get(Subject::Channel, &["channels", id]))
            .await
    }

    /// Changes a field of a channel: `display_name` or `header`.
    pub async fn patch_channel(
        &self,
        id: &str,
        what: &str,
        value: &str,
    ) -> Result<(), RequestError> {
        let path = ["channels", id, "patch"];
        let call = Call::new(Method::PUT, Subject::Channel, &path).json(json!({ what: value }));
        self.ask::<Channel>(call).await.map(drop)
    }

    /// A user's membership in a channel.
    pub async fn member(&self, channel: &str, user: &str) -> Result<Member, RequestError> {
        let path = ["channels", channel, "members", user];
        self.ask(Call::get(Subject::Channel, &path)).await
    }

    /// Joins a channel.
    pub async fn join(&self, channel: &str, user: &str) -> Result<(), RequestError> {
        let path = ["channels", channel, "members"];
        let call = Call::new(Method::POST, Subject::Channel, &path);
        let joined = self.send(call.json(json!({ "user_id": user }))).await;
        joined.map(drop)
    }

    /// A page of a channel, oldest first.
    pub async fn posts(&self, channel: &str, range: &Range) -> Result<Vec<Post>, RequestError> {
        let path = ["channels", channel, "posts"];
        let (key, value) = match range {
            Range::Newest(page) => ("page", page.to_string()),
            Range::After(id) => ("after", id.clone()),
            Range::Before(id) => ("before", id.clone()),
            Range::Since(moment) => ("since", moment.to_string()),
        };
        let mut call = Call::get(Subject::Channel, &path).query(key, value);
        if !matches!(range, Range::Since(_)) {
            call = call.query("per_page", PAGE);
        }
        let (posts, unreadable) = self.ask::<Listing>(call).await?.oldest_first();
        if unreadable > 0 {
            tracing::warn!(
                count = unreadable,
                "Unreadable posts in a listing of Mattermost's; skipped"
            );
        }
        Ok(posts)
    }

    /// Creates a post. The same key twice makes one, for as long as the server remembers it.
    pub async fn create(
        &self,
        channel: &str,
        new: NewPost<'_>,
        key: &str,
        mut props: Map<String, Value>,
    ) -> Result<Post, RequestError> {
        props.insert(STEP_KEY_PROP.to_owned(), json!(key));
        let call = Call::new(Method::POST, Subject::Channel, &["posts"]);
        let body = json!({
            "channel_id": channel, "message": new.text, "root_id": new.root.unwrap_or_default(),
            "pending_post_id": key, "props": props, "file_ids": new.file.as_slice(),
        });
        let post: Post = self.ask(call.json(body).unrepeatable()).await?;
        if post.id.is_empty() {
            return Err(SERVICE.unexpected_format(RepeatSafety::Unsafe));
        }
        Ok(post)
    }

    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, RequestError> {
        let repeat = call.repeat;
        let body = self.send(call).await?;
        self.rest.read(&body, repeat)
    }

    /// Sends a request when the server allows it, and reads the answer.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Vec<u8>, RequestError> {
        let (subject, repeat) = (call.subject, call.repeat);
        let request = self.rest.request_of(&call)?;
        self.turn().await;
        let response = self.rest.send(request, repeat).await?;
        let status = response.status();
        tracing::debug!(subject = ?subject, status = status.as_u16(), "Mattermost answered");
        let after = self.learn(status.as_u16(), response.headers());
        let body = self.rest.body(response, repeat).await;
        if status.is_success() {
            return body;
        }
        let refusal = refusal_in(body);
        Err(classify(
            subject,
            repeat,
            status.as_u16(),
            &refusal.id,
            after,
        ))
    }

    /// Waits while the server accepts no requests.
    pub(super) async fn turn(&self) {
        loop {
            let until = *self.quiet();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// Reads the server's time from a response, and how long to wait before the next request.
    pub(super) fn learn(&self, status: u16, headers: &HeaderMap) -> Duration {
        self.clock.learn(headers);
        let number =
            |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
        let asked = number(RETRY_AFTER.as_str()).or_else(|| number("x-ratelimit-reset"));
        let refused = status == 429;
        let used_up = number("x-ratelimit-remaining") == Some(0);
        if !refused && !used_up {
            return Duration::ZERO;
        }
        let wait = Duration::from_secs(asked.unwrap_or(1).max(1)).min(MAX_WAIT);
        if refused {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(wait_ms, "Mattermost's request limit is reached");
        }
        let until = Instant::now() + wait;
        let mut quiet = self.quiet();
        *quiet = Some(quiet.map_or(until, |known| known.max(until)));
        wait
    }

    fn quiet(&self) -> MutexGuard<'_, Option<Instant>> {
        self.quiet_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mattermost's error body; empty if a proxy answered.
pub(super) fn refusal_in(body: Result<Vec<u8>, RequestError>) -> ErrorBody {
    let body = body.ok();
    body.and_then(|body| serde_json::from_slice(&body).ok())
        .unwrap_or_default()
}

/// The base of the API's addresses.
pub fn api_url(base: &Url) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "v4"]);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest;

    #[test]
    fn paths_are_below_the_configured_url_and_encoded() {
        let of = |base: &str, path: &[&str]| {
            let api = api_url(&base.parse().unwrap());
            rest::address(&SERVICE, &api, path).unwrap()
        };
        let url = of("https://chat.example.org", &["posts", "a/../b"]);
        assert_eq!(
            url.as_str(),
            "https://chat.example.org/api/v4/posts/a%2F..%2Fb"
        );
        let url = of("https://example.org/chat/", &["users", "me"]);
        assert_eq!(url.as_str(), "https://example.org/chat/api/v4/users/me");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_limit_of_the_server_is_learnt_from_its_headers() {
        let client = Client::new(
            footbridge_core::http_client::client().unwrap(),
            &"http://127.0.0.1:1".parse().unwrap(),
            Secret::new("t".to_owned()),
        );
        let headers = |left: &str, reset: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-remaining", left.parse().unwrap());
            headers.insert("x-ratelimit-reset", reset.parse().unwrap());
            headers
        };
        assert_eq!(client.learn(200, &headers("3", "9")), Duration::ZERO);
        assert_eq!(
            client.learn(200, &headers("0", "2")),
            Duration::from_secs(2)
        );
        assert_eq!(client.learn(429, &headers("0", "9000")), MAX_WAIT);
        let began = Instant::now();
        client.turn().await;
        assert_eq!(began.elapsed(), MAX_WAIT);
    }
}
