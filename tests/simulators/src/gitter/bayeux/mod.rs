//! Gitter's realtime API: the Bayeux protocol as its Faye server implemented it. `session` stores the subscriptions,
//! `meta` replies to the protocol's messages, `snapshot` builds what a new subscriber gets, and this file transports
//! them over websocket and long-polling.

mod meta;
mod session;
mod snapshot;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{
        ConnectInfo, FromRequestParts, Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

pub(super) use session::Sessions;

use self::meta::Reply;
use super::{
    rest::{query, strike_before},
    shared::Shared,
};
use crate::connections::Switch;

/// Largest body of a long-polling request.
const MAX_BODY: usize = 1024 * 1024;

/// The realtime host's router.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let idle = shared.options.connect_timeout;
    let legacy = shared.options.legacy_connect_timeout;
    let mount = |timeout: Duration| {
        any(move |state, switch, request| serve(state, switch, request, timeout))
    };
    Router::new()
        .route("/bayeux", mount(idle))
        .route("/faye", mount(legacy))
        .with_state(shared)
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
    timeout: Duration,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .ok();
    let label = if upgrade.is_some() {
        "BAYEUX upgrade"
    } else {
        "BAYEUX post"
    };
    shared.count(label);
    if let Some(response) = strike_before(&shared, &switch, shared.faults.take(label)).await {
        return response;
    }
    if let Some(upgrade) = upgrade {
        return upgrade.on_upgrade(move |socket| converse(shared, switch, socket, timeout));
    }
    let Ok(bytes) = to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let Some((messages, callback)) = posted(&parts, &bytes) else {
        return (StatusCode::BAD_REQUEST, "Bad request").into_response();
    };
    let mut answers = Vec::new();
    for message in messages {
        match meta::reply(&shared, &switch, &message, timeout) {
            Reply::Now(answer) => answers.push(answer),
            Reply::Hold {
                answer,
                client,
                wait,
            } => {
                let events = shared.sessions.await_events(&client, wait).await;
                answers.push(answer);
                answers.extend(events);
            }
        }
    }
    match callback {
        None => Json(answers).into_response(),
        Some(callback) => {
            let kind = (header::CONTENT_TYPE, "text/javascript; charset=utf-8");
            let script = format!("/**/{callback}({});", Value::Array(answers));
            ([kind], script).into_response()
        }
    }
}

/// The messages of a request: a JSON body, a form's `message`, or a `message` in the query (JSONP, with the callback's
/// name).
fn posted(parts: &Parts, bytes: &[u8]) -> Option<(Vec<Value>, Option<String>)> {
    if parts.method == Method::GET {
        let query = query(parts);
        let callback = query.get("jsonp").map_or("jsonpcallback", String::as_str);
        let safe = callback
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "_$.".contains(letter));
        let messages = as_list(serde_json::from_str(query.get("message")?).ok()?)?;
        return safe.then(|| (messages, Some(callback.to_owned())));
    }
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let messages = if kind.starts_with("application/x-www-form-urlencoded") {
        let mut pairs = url::form_urlencoded::parse(bytes);
        let (_, message) = pairs.find(|(key, _)| key == "message")?;
        serde_json::from_str(&message).ok()?
    } else {
        serde_json::from_slice(bytes).ok()?
    };
    Some((as_list(messages)?, None))
}

fn as_list(messages: Value) -> Option<Vec<Value>> {
    match messages {
        Value::Array(messages) => Some(messages),
        message @ Value::Object(_) => Some(vec![message]),
        _ => None,
    }
}

/// Serves one websocket until either side closes it.
async fn converse(shared: Arc<Shared>, switch: Switch, mut socket: WebSocket, timeout: Duration) {
    let (events, mut pushed) = mpsc::unbounded_channel::<Value>();
    let mut held = FuturesUnordered::new();
    let mut ping = tokio::time::interval(shared.options.socket_ping);
    // The first tick is immediate.
    ping.tick().await;
    // Faye allows a peer a quarter of the period to answer.
    let patience = shared.options.socket_ping / 4;
    let mut overdue: Option<Instant> = None;
    loop {
        let outgoing = tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => return,
            now = ping.tick() => {
                overdue = Some(now + patience);
                Message::Ping("".into())
            }
            Some(event) = pushed.recv() => text(vec![event]),
            Some(answer) = held.next() => text(vec![answer]),
            incoming = socket.recv() => {
                let Some(Ok(incoming)) = incoming else { return };
                let incoming = match incoming {
                    Message::Text(incoming) => serde_json::from_str(&incoming),
                    Message::Binary(incoming) => serde_json::from_slice(&incoming),
                    Message::Close(_) => return,
                    Message::Ping(_) => continue,
                    Message::Pong(_) => {
                        overdue = None;
                        continue;
                    }
                };
                // Faye drops what it cannot parse.
                let Some(messages) = incoming.ok().and_then(as_list) else { continue };
                // An empty list is a heartbeat; the reply is another one.
                let heartbeat = messages.is_empty();
                let mut answers = Vec::new();
                for message in messages {
                    let reply = meta::reply(&shared, &switch, &message, timeout);
                    if let Some(client) = message.get("clientId").and_then(Value::as_str) {
                        shared.sessions.attach(client, &events);
                    }
                    match reply {
                        Reply::Now(answer) => answers.push(answer),
                        Reply::Hold { answer, wait, .. } => held.push(async move {
                            tokio::time::sleep(wait).await;
                            answer
                        }),
                    }
                }
                if answers.is_empty() && !heartbeat {
                    continue;
                }
                text(answers)
            }
        };
        if socket.send(outgoing).await.is_err() {
            return;
        }
    }
}

fn text(messages: Vec<Value>) -> Message {
    Message::Text(Value::Array(messages).to_string().into())
}
