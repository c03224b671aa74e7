//! The frame of the REST API: it finds the route, applies armed faults, checks the token and the rate limit, and passes
//! the call to its handler.

mod chat;
mod people;
mod rooms;

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Response},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    api_error::ApiError,
    auth::{self, Caller},
    faults::Echo,
    ids::hex,
    rate::Allowance,
    shared::{Shared, lock},
    world::World,
};
use crate::{
    call_faults::Fault,
    connections::{Cut, Switch},
};

/// The largest body that is read: body-parser's limit.
const MAX_BODY: usize = 100 * 1024;

/// A call, as its handler gets it.
pub(super) struct Turn<'a> {
    pub(super) shared: &'a Shared,
    pub(super) world: &'a mut World,
    pub(super) caller: &'a Caller,
    pub(super) params: &'a [&'a str],
    pub(super) query: &'a HashMap<String, String>,
    pub(super) body: &'a Value,
    /// When the call was received.
    pub(super) now_ms: i64,
}

impl<'a> Turn<'a> {
    /// The n-th parameter of the path.
    fn param(&self, index: usize) -> &'a str {
        self.params.get(index).copied().unwrap_or_default()
    }

    fn asked(&self, key: &str) -> Option<&'a str> {
        self.query.get(key).map(String::as_str)
    }

    fn viewer(&self) -> Option<&'a str> {
        self.caller.user.as_deref()
    }

    /// The caller's user id: 401 for an anonymous token.
    fn me(&self) -> Result<&'a str, ApiError> {
        self.viewer().ok_or(ApiError::UNAUTHORIZED)
    }
}

/// The successful response of a handler.
pub(super) enum Answer {
    Json(Value),
    Accepted(Value),
    Empty,
}

type Handled = Result<Answer, ApiError>;
type Handler = fn(&mut Turn<'_>) -> Handled;

/// Method, pattern, handler. The label of a route is its method and pattern with a blank between them.
type Route = (&'static str, &'static str, Handler);

fn routes() -> impl Iterator<Item = &'static Route> {
    people::ROUTES
        .iter()
        .chain(rooms::ROUTES)
        .chain(chat::ROUTES)
}

fn matched<'p>(pattern: &str, segments: &[&'p str]) -> Option<Vec<&'p str>> {
    let pattern: Vec<&str> = pattern.split('/').skip(1).collect();
    if pattern.len() != segments.len() {
        return None;
    }
    let mut params = Vec::new();
    for (expected, found) in pattern.iter().zip(segments) {
        if expected.starts_with(':') {
            params.push(*found);
        } else if expected != found {
            return None;
        }
    }
    Some(params)
}

/// The path below `/v1` or `/api/v1`.
pub(super) fn segments(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix("/api").unwrap_or(path);
    let rest = path.strip_prefix("/v1/")?;
    Some(rest.trim_end_matches('/').split('/').collect())
}

/// The API's router.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let segments = segments(&path).unwrap_or_default();
    let method = if parts.method == Method::HEAD {
        "GET"
    } else {
        parts.method.as_str()
    };
    let found = routes().find_map(|route| {
        (route.0 == method)
            .then(|| matched(route.1, &segments).map(|params| (route, params)))
            .flatten()
    });
    let label = match &found {
        Some((route, _)) => format!("{} {}", route.0, route.1),
        None => format!("{method} (unknown)"),
    };
    shared.count(&label);
    let fault = shared.faults.take(&label);
    if let Some(response) = strike_before(&shared, &switch, fault).await {
        return response;
    }
    if let (Some(Fault::Late { ms }), Some((route, params))) = (fault, &found) {
        let params = params.iter().map(ToString::to_string).collect();
        work_later(
            shared,
            parts,
            body,
            route.2,
            params,
            Duration::from_millis(ms),
        )
        .await;
        switch.cut(Cut::Close);
        // Never sent, because the connection is cut.
        return StatusCode::NO_CONTENT.into_response();
    }
    let response = match found {
        Some((route, params)) => answer(&shared, &parts, body, route.2, &params).await,
        None => unknown(&shared, &parts),
    };
    strike_after(&switch, fault, response).await
}

/// Performs the call after this delay, whatever happened to the caller.
async fn work_later(
    shared: Arc<Shared>,
    parts: Parts,
    body: Body,
    handler: Handler,
    params: Vec<String>,
    delay: Duration,
) {
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return;
    };
    crate::gitter::start(async move {
        tokio::time::sleep(delay).await;
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        // Nobody waits for the response.
        drop(answer(&shared, &parts, Body::from(body), handler, &params).await);
    });
}

/// An error page of a load balancer.
fn page(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let body = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    (status, Html(body)).into_response()
}

/// The response of a fault that does not let the call through; `None` if the call continues.
pub(super) async fn strike_before(
    shared: &Shared,
    switch: &Switch,
    fault: Option<Fault>,
) -> Option<Response> {
    let fault = fault?;
    if let Some(delay) = fault.delay() {
        tokio::time::sleep(delay).await;
    }
    match fault {
        Fault::Status { status } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Some(ApiError(status).response(shared.clock.now_ms()))
        }
        Fault::Html { status } => Some(page(status)),
        Fault::DropBefore => {
            switch.cut(Cut::Close);
            // Never sent, because the connection is cut.
            Some(StatusCode::NO_CONTENT.into_response())
        }
        _ => None,
    }
}

async fn strike_after(switch: &Switch, fault: Option<Fault>, response: Response) -> Response {
    match fault {
        Some(Fault::HtmlAfter { status }) => return page(status),
        Some(Fault::DropAfter) => switch.cut(Cut::Close),
        Some(Fault::ResetAfter) => switch.cut(Cut::Reset),
        Some(Fault::SlowAnswer { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
    response
}

fn unknown(shared: &Shared, parts: &Parts) -> Response {
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return ApiError::NOT_FOUND.response(shared.clock.now_ms());
    }
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Error</title>\n</head>\n<body>\n<pre>Cannot {} {}</pre>\n</body>\n</html>\n",
        parts.method,
        parts.uri.path().replace('<', "&lt;")
    );
    (StatusCode::NOT_FOUND, Html(body)).into_response()
}

async fn answer(
    shared: &Shared,
    parts: &Parts,
    body: Body,
    handler: Handler,
    params: &[&str],
) -> Response {
    let now_ms = shared.clock.now_ms();
    let body = match read_body(shared, parts, body).await {
        Ok(body) => body,
        Err(refusal) => return refusal.response(now_ms),
    };
    let query = query(parts);
    let token = query.get("access_token").map(String::as_str);
    let caller = match shared.with_world(|world| auth::caller(world, &parts.headers, token)) {
        Ok(caller) => caller,
        Err(refusal) => return refusal.response(now_ms),
    };
    let allowance = take_rate(shared, &caller, now_ms);
    let mut response = if allowance.refused {
        ApiError::TOO_MANY.response(now_ms)
    } else {
        let outcome = shared.with_world(|world| {
            handler(&mut Turn {
                shared,
                world,
                caller: &caller,
                params,
                query: &query,
                body: &body,
                now_ms,
            })
        });
        if let (Echo::Before { ms }, true) = (shared.faults.echo(), parts.method != Method::GET) {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        rendered(outcome, parts, now_ms)
    };
    add_rate_headers(response.headers_mut(), allowance);
    response
}

pub(super) fn take_rate(shared: &Shared, caller: &Caller, now_ms: i64) -> Allowance {
    let window_ms = i64::try_from(shared.options.rate_window.as_millis()).unwrap_or(i64::MAX);
    let limit = shared.options.rate_limit;
    lock(&shared.windows).take(&caller.rate_key, now_ms, limit, window_ms)
}

pub(super) fn add_rate_headers(headers: &mut HeaderMap, allowance: Allowance) {
    headers.insert("x-ratelimit-limit", allowance.limit.into());
    headers.insert("x-ratelimit-remaining", allowance.remaining.into());
    headers.insert("x-ratelimit-reset", allowance.reset_ms.into());
}

pub(super) fn query(parts: &Parts) -> HashMap<String, String> {
    let query = parts.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect()
}

async fn read_body(shared: &Shared, parts: &Parts, body: Body) -> Result<Value, ApiError> {
    let chunked = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = chunked
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("chunked"));
    if chunked && !shared.faults.chunked_allowed() {
        return Err(ApiError(StatusCode::NOT_ACCEPTABLE));
    }
    let bytes: Bytes = to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| ApiError(StatusCode::PAYLOAD_TOO_LARGE))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        let pairs = url::form_urlencoded::parse(&bytes)
            .map(|(key, value): (Cow<'_, str>, Cow<'_, str>)| (key.into_owned(), value.into()));
        return Ok(Value::Object(pairs.collect()));
    }
    if kind.starts_with("application/json") {
        return serde_json::from_slice(&bytes).map_err(|_| ApiError::BAD_REQUEST);
    }
    // Express does not parse a body of another type.
    Ok(Value::Null)
}

fn rendered(handled: Handled, parts: &Parts, now_ms: i64) -> Response {
    let value = match handled {
        Ok(Answer::Json(value)) => value,
        Ok(Answer::Accepted(value)) => return (StatusCode::ACCEPTED, Json(value)).into_response(),
        Ok(Answer::Empty) => return StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => return refusal.response(now_ms),
    };
    let body = value.to_string();
    let mark = Sha256::digest(body.as_bytes());
    let mark = hex(mark.get(..12).unwrap_or_default());
    let tag = format!("W/\"{:x}-{mark}\"", body.len());
    let known = parts.headers.get(header::IF_NONE_MATCH);
    let mut response = if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = (header::CONTENT_TYPE, "application/json; charset=utf-8");
        ([kind], body).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
