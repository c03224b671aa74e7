//! The calls: who may make them, their responses, and their rate limit.

#![expect(
    clippy::unnecessary_wraps,
    reason = "all handlers have the same signature"
)]

mod files;
mod people;
mod places;
mod posts;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, RequestExt, Router,
    body::to_bytes,
    extract::{ConnectInfo, Request, State, WebSocketUpgrade},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use files::Upload;

use super::{
    Shared, socket,
    world::{ApiError, new_id},
};
use crate::{call_faults, connections::Switch};

/// The largest body that is accepted.
const MAX_BODY: usize = 160 << 20;

/// A call.
struct Call<'a> {
    shared: &'a Shared,
    /// The id of the caller.
    me: String,
    /// The values of the route's `:…` parameters.
    at: Vec<String>,
    query: Vec<(String, String)>,
    body: Value,
    /// The files of a form, or the one file of a plain body.
    files: Vec<Upload>,
}

impl Call<'_> {
    fn at(&self, index: usize) -> &str {
        self.at.get(index).map_or("", String::as_str)
    }

    fn query(&self, key: &str) -> Option<&str> {
        let found = self.query.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str, default: usize) -> usize {
        self.query(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    }

    fn text(&self, key: &str) -> String {
        self.body[key].as_str().unwrap_or_default().to_owned()
    }
}

type Answer = Result<(StatusCode, Value), ApiError>;
type Handler = fn(&Call<'_>) -> Answer;

const ROUTES: &[(&str, Handler)] = &[
    ("POST users/login", people::login),
    ("POST users/logout", people::ok),
    ("GET users/me", people::me),
    ("GET users/:id", people::user),
    ("GET users/username/:name", people::by_name),
    ("POST users/ids", people::by_ids),
    ("POST users/usernames", people::by_names),
    ("POST users/status/ids", people::none),
    ("GET users/:id/image", files::content),
    ("GET users/:id/preferences", people::none),
    ("GET users/:id/teams", places::teams),
    ("GET users/:id/teams/:team/channels", places::channels),
    ("GET teams", places::teams),
    ("GET teams/name/:name", places::team_by_name),
    ("GET teams/:id", places::team),
    ("GET teams/:id/channels/name/:name", places::channel_by_name),
    (
        "GET teams/name/:team/channels/name/:name",
        places::channel_by_names,
    ),
    ("GET channels/:id", places::channel),
    ("PUT channels/:id/patch", places::patch),
    ("GET channels/:id/members", places::members),
    ("GET channels/:id/members/:user", places::member),
    ("POST channels/:id/members", places::join),
    ("GET channels/:id/posts", posts::list),
    ("POST posts", posts::write),
    ("GET posts/:id", posts::get),
    ("PUT posts/:id/patch", posts::patch),
    ("PUT posts/:id", posts::patch),
    ("DELETE posts/:id", posts::delete),
    ("GET posts/:id/thread", posts::thread),
    ("GET posts/:id/reactions", posts::reactions),
    ("POST reactions", posts::react),
    (
        "DELETE users/:id/posts/:post/reactions/:name",
        posts::unreact,
    ),
    ("POST files", files::upload),
    ("GET files/:id", files::content),
    ("GET files/:id/preview", files::content),
    ("GET files/:id/info", files::info),
    ("GET config/client", people::config),
    ("GET license/client", people::ok),
    ("GET system/ping", people::ok),
];

/// Calls that need no token.
const OPEN: [&str; 4] = [
    "POST users/login",
    "GET config/client",
    "GET license/client",
    "GET system/ping",
];

struct RateGate {
    shared: Arc<Shared>,
    bucket: Mutex<(f64, Instant)>,
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let burst = shared.options.rate_limit.map_or(0, |(_, burst)| burst);
    let doors = RateGate {
        shared,
        bucket: Mutex::new((f64::from(burst), Instant::now())),
    };
    Router::new().fallback(serve).with_state(Arc::new(doors))
}

async fn serve(
    State(doors): State<Arc<RateGate>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let shared = &doors.shared;
    let path = request.uri().path().to_owned();
    let call = path.strip_prefix("/api/v4/").unwrap_or_default();
    let method = request.method().as_str();
    let (route, handler, at) = if call == "websocket" {
        ("GET websocket", None, Vec::new())
    } else {
        let Some((route, handler, at)) = found(method, call) else {
            return refusal(&ApiError(
                404,
                "api.context.404.app_error",
                "Sorry, we could not find the page.",
            ));
        };
        (route, Some(handler), at)
    };
    shared.calls.count(route);
    let fault = shared.faults.take(route);
    let no =
        |status: StatusCode| refusal(&ApiError(status.as_u16(), "a.simulated.fault", "A fault."));
    if let Some(struck) = call_faults::before(&switch, fault, no).await {
        return struck;
    }
    let limits = doors.limited();
    if let Some((_, true)) = limits {
        let mut response = (StatusCode::TOO_MANY_REQUESTS, "limit exceeded\n").into_response();
        mark(response.headers_mut(), limits);
        return response;
    }
    let token = bearer(request.headers());
    let me = token.and_then(|token| shared.world.who(&token));
    let mut response = match handler {
        None => upgrade(shared, request, me).await,
        Some(handler) => answer(shared, route, handler, at, me, request).await,
    };
    mark(response.headers_mut(), limits);
    if route == "POST posts" {
        tokio::time::sleep(Duration::from_millis(shared.faults.answer_later())).await;
    }
    call_faults::after(&switch, fault, response).await
}

fn found(method: &str, call: &str) -> Option<(&'static str, Handler, Vec<String>)> {
    ROUTES.iter().find_map(|(route, handler)| {
        let (verb, pattern) = route.split_once(' ')?;
        if verb != method {
            return None;
        }
        let (wanted, given): (Vec<&str>, Vec<&str>) =
            (pattern.split('/').collect(), call.split('/').collect());
        if wanted.len() != given.len() {
            return None;
        }
        let mut at = Vec::new();
        for (wanted, given) in wanted.into_iter().zip(given) {
            if wanted.starts_with(':') {
                at.push(given.to_owned());
            } else if wanted != given {
                return None;
            }
        }
        Some((*route, *handler, at))
    })
}

async fn answer(
    shared: &Shared,
    route: &str,
    handler: Handler,
    at: Vec<String>,
    me: Option<String>,
    request: Request,
) -> Response {
    if me.is_none() && !OPEN.contains(&route) {
        return refusal(&ApiError(
            401,
            "api.context.session_expired.app_error",
            "Invalid or expired session, please login again.",
        ));
    }
    let query = request.uri().query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let mut query: Vec<(String, String)> = query;
    let kind = header_of(request.headers(), header::CONTENT_TYPE);
    let Ok(bytes) = to_bytes(request.into_body(), MAX_BODY).await else {
        return refusal(&ApiError(
            400,
            "api.context.invalid_body_param.app_error",
            "Invalid body.",
        ));
    };
    let (mut body, mut files) = (Value::Null, Vec::new());
    if route == "POST files" {
        match files::uploaded(&kind, bytes, &mut query).await {
            Ok(uploaded) => files = uploaded,
            Err(no) => return refusal(&no),
        }
    } else {
        body = serde_json::from_slice(&bytes).unwrap_or_default();
    }
    let me = me.unwrap_or_default();
    let call = Call {
        shared,
        me,
        at,
        query,
        body,
        files,
    };
    if route == "GET files/:id" {
        return files::response(&call).unwrap_or_else(|no| refusal(&no));
    }
    if route == "GET files/:id/preview" {
        return files::preview(&call).unwrap_or_else(|no| refusal(&no));
    }
    if route == "GET users/:id/image" {
        return files::picture(&call).unwrap_or_else(|no| refusal(&no));
    }
    match handler(&call) {
        Ok((status, value)) => {
            let token = value["simulated_token"].as_str().map(str::to_owned);
            let mut response = (status, Json(value)).into_response();
            if let Some(token) = token.and_then(|token| HeaderValue::from_str(&token).ok()) {
                response.headers_mut().insert("Token", token);
            }
            response
        }
        Err(no) => refusal(&no),
    }
}

fn refusal(no: &ApiError) -> Response {
    let status = StatusCode::from_u16(no.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({
        "id": no.1, "message": no.2, "detailed_error": "", "request_id": new_id(), "status_code": no.0,
    });
    (status, Json(body)).into_response()
}

fn header_of(headers: &HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The token of a request, after either of the two schemes that the server accepts.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    let known = ["bearer", "token"]
        .iter()
        .any(|word| scheme.eq_ignore_ascii_case(word));
    known.then(|| token.to_owned())
}

async fn upgrade(shared: &Arc<Shared>, mut request: Request, user: Option<String>) -> Response {
    let refused = request.headers().contains_key(header::AUTHORIZATION) && user.is_none();
    match request.extract_parts::<WebSocketUpgrade>().await {
        Ok(upgrade) => {
            let shared = Arc::clone(shared);
            upgrade.on_upgrade(move |connection| async move {
                if !refused {
                    socket::serve(shared, connection, user).await;
                }
            })
        }
        Err(_) => refusal(&ApiError(
            400,
            "api.web_socket.connect.upgrade.app_error",
            "Failed to upgrade.",
        )),
    }
}

/// How many calls are still allowed, and whether this one is refused.
type Limits = Option<(f64, bool)>;

impl RateGate {
    fn limited(&self) -> Limits {
        let (per_second, burst) = self.shared.options.rate_limit?;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *bucket;
        let left =
            (left + since.elapsed().as_secs_f64() * f64::from(per_second)).min(f64::from(burst));
        let too_much = left < 1.0;
        let left = if too_much { left } else { left - 1.0 };
        *bucket = (left, Instant::now());
        Some((left, too_much))
    }
}

fn mark(headers: &mut HeaderMap, limits: Limits) {
    let Some((left, too_much)) = limits else {
        return;
    };
    let whole = left.max(0.0).floor();
    headers.insert("X-Ratelimit-Limit", HeaderValue::from_static("100"));
    if let Ok(value) = HeaderValue::from_str(&format!("{whole:.0}")) {
        headers.insert("X-Ratelimit-Remaining", value);
    }
    headers.insert("X-Ratelimit-Reset", HeaderValue::from_static("1"));
    if too_much {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
}
