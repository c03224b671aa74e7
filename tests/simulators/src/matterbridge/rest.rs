//! The calls: who may make them, what they do, and what they respond, which is not always the same.

use std::sync::Arc;

use axum::{
    Json, RequestExt, Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State, WebSocketUpgrade},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Message, Shared, message::escaped, socket, stream};
use crate::{call_faults, connections::Switch};

/// The largest body that is accepted.
const MAX_BODY: usize = 64 << 20;
/// The calls and their methods.
const ROUTES: [(&str, Method); 5] = [
    ("messages", Method::GET),
    ("stream", Method::GET),
    ("websocket", Method::GET),
    ("message", Method::POST),
    ("health", Method::GET),
];
/// The fields that must be strings.
const TEXTS: [&str; 8] = [
    "text",
    "username",
    "userid",
    "avatar",
    "event",
    "gateway",
    "parent_id",
    "channel",
];

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let call = path.strip_prefix("/api/").unwrap_or_default();
    let Some((call, method)) = ROUTES.into_iter().find(|(name, _)| *name == call) else {
        return refusal(StatusCode::NOT_FOUND, "Not Found");
    };
    if request.method() != method {
        let refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        return ([(header::ALLOW, format!("OPTIONS, {method}"))], refused).into_response();
    }
    let route = format!("{method} {call}");
    shared.calls.count(&route);
    let fault = shared.faults.take(&route);
    let no = |status: StatusCode| refusal(status, status.canonical_reason().unwrap_or_default());
    if let Some(struck) = call_faults::before(&switch, fault, no).await {
        return struck;
    }
    if let Some(refused) = unauthorized(shared.world.token().as_deref(), request.headers()) {
        return refused;
    }
    let response = match call {
        "health" => "OK".into_response(),
        "stream" => stream::answer(&shared),
        "messages" => {
            let all = shared.world.drain();
            let text = serde_json::to_string_pretty(&all).unwrap_or_default();
            ([(header::CONTENT_TYPE, "application/json")], escaped(&text)).into_response()
        }
        "websocket" => upgrade(&shared, request).await,
        _ => post(&shared, request).await,
    };
    call_faults::after(&switch, fault, response).await
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

/// The error response to a request without the token; `None` if it has the token.
fn unauthorized(token: Option<&str>, headers: &HeaderMap) -> Option<Response> {
    let token = token?;
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let Some((scheme, given)) = given.and_then(|value| value.split_once(' ')) else {
        return Some(refusal(
            StatusCode::BAD_REQUEST,
            "missing key in request header",
        ));
    };
    let right = scheme.eq_ignore_ascii_case("bearer") && given == token;
    (!right).then(|| refusal(StatusCode::UNAUTHORIZED, "Unauthorized"))
}

async fn upgrade(shared: &Arc<Shared>, mut request: Request) -> Response {
    match request.extract_parts::<WebSocketUpgrade>().await {
        Ok(upgrade) => {
            let shared = Arc::clone(shared);
            upgrade.on_upgrade(move |socket| socket::serve(shared, socket))
        }
        Err(_) => refusal(StatusCode::BAD_REQUEST, "Bad Request"),
    }
}

async fn post(shared: &Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let message = if kind.starts_with("application/json") {
        match parse_body(body).await {
            Ok(message) => message,
            Err(refused) => return *refused,
        }
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        Message::default()
    } else {
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type");
    };
    let taken = shared.world.post(message, &shared.faults, None);
    ([(header::CONTENT_TYPE, "application/json")], taken.json()).into_response()
}

/// Parses a body as Go does.
async fn parse_body(body: Body) -> Result<Message, Box<Response>> {
    let refused = |status, message: &str| Box::new(refusal(status, message));
    let bytes = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|_| refused(StatusCode::BAD_REQUEST, "unexpected EOF"))?;
    let wrong = TEXTS.into_iter().find_map(|key| match value.get(key) {
        Some(Value::Number(_)) => Some((key, "number")),
        Some(Value::Bool(_)) => Some((key, "bool")),
        Some(Value::Array(_)) => Some((key, "array")),
        Some(Value::Object(_)) => Some((key, "object")),
        _ => None,
    });
    if let Some((key, got)) = wrong {
        let message =
            format!("Unmarshal type error: expected=string, got={got}, field={key}, offset=10");
        return Err(refused(StatusCode::BAD_REQUEST, &message));
    }
    let message: Message = serde_json::from_value(value)
        .map_err(|_| refused(StatusCode::BAD_REQUEST, "unexpected EOF"))?;
    let files = message.extra.get("file").and_then(Value::as_array);
    let mut files = files.into_iter().flatten();
    if files.any(|file| !file.get("Data").is_some_and(Value::is_string)) {
        return Err(refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "invalid format for data",
        ));
    }
    Ok(message)
}
