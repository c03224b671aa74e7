//! Handles one request: injects its fault, forwards it, and passes the response on.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rand::Rng as _;
use serde_json::json;

use super::rule::{Fault, Page};
use super::shaping::{Shape, pump, shaped};
use super::{Cut, Inner};
use footbridge_simulators::connections::Switch;

/// Larger than any request or sync response here.
const MAX_BODY: usize = 256 << 20;

/// Headers that concern one connection only.
const HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

pub(super) async fn serve(
    State(proxy): State<Arc<Inner>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let path = parts
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return gone(&switch, Cut::Close);
    };
    if let Some(since) = parts.uri.query().and_then(since_in) {
        proxy.lock().held_back.acknowledge(&since);
    }
    let fault = proxy.pick_fault(&parts.method, &path);
    if let Some(answer) = before(fault.as_ref(), &switch).await {
        return answer;
    }
    let Ok(answer) = forward(&proxy, &parts, &path, &body).await else {
        // The client sees the same as when the server is down.
        return gone(&switch, Cut::Close);
    };
    if matches!(fault, Some(Fault::Duplicate)) {
        // Read to its end, because otherwise the server might not have handled it.
        if let Ok(second) = forward(&proxy, &parts, &path, &body).await
            && second.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            second.bytes().await.ok();
        }
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgraded(answer, upgrade, Shape::of(fault.as_ref()), switch);
    }
    after(&proxy, &parts.method, &path, fault, answer, switch).await
}

/// The stream position (`since`) of a sync request.
fn since_in(query: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(name, value)| (name == "since").then(|| value.into_owned()))
}

/// The response of a fault that does not forward the request; `None` if the request is to be forwarded.
async fn before(fault: Option<&Fault>, switch: &Switch) -> Option<Response> {
    match fault? {
        Fault::DropRequest(how) => Some(gone(switch, *how)),
        Fault::Delay(least, most) => {
            tokio::time::sleep(between(*least, *most)).await;
            None
        }
        fault @ Fault::Status {
            after_work: false, ..
        } => Some(refusal(fault)),
        _ => None,
    }
}

/// What the client gets after the server has responded.
async fn after(
    proxy: &Inner,
    method: &Method,
    path: &str,
    fault: Option<Fault>,
    answer: reqwest::Response,
    switch: Switch,
) -> Response {
    let shape = Shape::of(fault.as_ref());
    match fault {
        Some(Fault::DropReply(how)) => {
            answer.bytes().await.ok();
            return gone(&switch, how);
        }
        Some(fault @ Fault::Status { .. }) => {
            answer.bytes().await.ok();
            return refusal(&fault);
        }
        Some(Fault::Garbage(count)) => {
            answer.bytes().await.ok();
            let mut dice = rand::rng();
            let noise: Vec<u8> = (0..count).map(|_| dice.random()).collect();
            return ([(header::CONTENT_TYPE, "application/json")], noise).into_response();
        }
        Some(Fault::DelayReply(least, most)) => {
            tokio::time::sleep(between(least, most)).await;
        }
        _ => {}
    }
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    strip(&mut headers);
    let is_sync = *method == Method::GET && path.contains("/sync");
    let keeps = is_sync && !proxy.lock().held_back.is_idle();
    let rewrites = status.is_success() && proxy.lock().rewrites.concern(method, path);
    if keeps || rewrites {
        let Ok(whole) = answer.bytes().await else {
            return gone(&switch, Cut::Close);
        };
        headers.remove(header::CONTENT_LENGTH);
        let body = changed(proxy, (method, path), whole, keeps);
        return respond(status, headers, Body::from(body));
    }
    respond(status, headers, shaped(answer, shape, switch))
}

/// A sync response without the to-device messages that are kept back, and with the rewrites.
fn changed(proxy: &Inner, request: (&Method, &str), mut body: Bytes, keeps: bool) -> Bytes {
    let mut guard = proxy.lock();
    let state = &mut *guard;
    let since = request
        .1
        .split_once('?')
        .and_then(|(_, query)| since_in(query));
    if keeps && let Some(kept) = state.held_back.rewrite(since.as_deref(), &body) {
        body = kept.into();
    }
    let rewritten = state
        .rewrites
        .set_rewrite(request, &body, &mut state.injected);
    rewritten.map_or(body, Bytes::from)
}

async fn forward(
    proxy: &Inner,
    parts: &Parts,
    path: &str,
    body: &Bytes,
) -> reqwest::Result<reqwest::Response> {
    let mut url = proxy.upstream.clone();
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    let limit = proxy.lock().timeline_limit;
    let query = query.map(|query| limit.map_or(query.to_owned(), |limit| limited(query, limit)));
    url.set_query(query.as_deref());
    let mut headers = parts.headers.clone();
    let upgrade = headers.get(header::UPGRADE).cloned();
    strip(&mut headers);
    if let Some(upgrade) = upgrade {
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("upgrade"),
        );
        headers.insert(header::UPGRADE, upgrade);
    }
    proxy
        .http
        .request(parts.method.clone(), url)
        .headers(headers)
        .body(body.clone())
        .send()
        .await
}

/// The query of a sync request with this limit in its filter.
fn limited(query: &str, limit: u32) -> String {
    let name = "%22limit%22%3A";
    let Some((before, after)) = query.split_once(name) else {
        return query.to_owned();
    };
    let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    format!("{before}{name}{limit}{rest}")
}

/// Relays bytes between the two upgraded connections.
fn upgraded(
    answer: reqwest::Response,
    client: Option<OnUpgrade>,
    shape: Shape,
    switch: Switch,
) -> Response {
    let headers = answer.headers().clone();
    tokio::spawn(async move {
        let Some(client) = client else { return };
        if let (Ok(client), Ok(upstream)) = (client.await, answer.upgrade().await) {
            pump(TokioIo::new(client), upstream, shape, &switch).await;
        }
    });
    respond(StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty())
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn strip(headers: &mut HeaderMap) {
    for name in &HOP {
        headers.remove(name);
    }
}

/// Cuts the connection. The response returned here is never sent.
fn gone(switch: &Switch, how: Cut) -> Response {
    switch.cut(how);
    StatusCode::NO_CONTENT.into_response()
}

fn refusal(fault: &Fault) -> Response {
    let Fault::Status {
        status,
        page,
        headers,
        retry_after_ms,
        ..
    } = fault
    else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
    let (kind, body) = match page {
        Page::Empty => ("text/plain", String::new()),
        Page::Html => (
            "text/html",
            format!("<html><body><center><h1>{status}</h1></center></body></html>\r\n"),
        ),
        Page::Matrix => {
            let code = match status.as_u16() {
                404 => "M_NOT_FOUND",
                429 => "M_LIMIT_EXCEEDED",
                _ => "M_UNKNOWN",
            };
            let mut body = json!({"errcode": code, "error": "not now"});
            if let (Some(wait), Some(body)) = (retry_after_ms, body.as_object_mut()) {
                body.insert("retry_after_ms".to_owned(), json!(wait));
            }
            ("application/json", body.to_string())
        }
    };
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn between(least: Duration, most: Duration) -> Duration {
    rand::rng().random_range(least..=most.max(least))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_limit_in_a_filter_changes() {
        let query = "filter=%7B%22limit%22%3A100%2C%22x%22%3A1%7D&timeout=0";
        let wanted = "filter=%7B%22limit%22%3A5%2C%22x%22%3A1%7D&timeout=0";
        assert_eq!(super::limited(query, 5), wanted);
        assert_eq!(super::limited("timeout=0", 5), "timeout=0");
    }
}
