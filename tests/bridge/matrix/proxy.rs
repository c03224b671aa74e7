//! Between a bridge and the homeserver: keeps room keys back, loses answers, says that a session has expired.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::*;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// What the proxy does besides passing things on.
#[derive(Default)]
pub struct Rules {
    /// Messages from device to device are kept back while this stands, and brought by the first sync after it.
    pub keep_keys: AtomicBool,
    kept: Mutex<Vec<Value>>,
    /// Of so many sends the answer is lost; the homeserver has done its work by then.
    pub lose_sends: AtomicU32,
    /// So many sends are refused by the proxy itself: the homeserver never hears of them.
    pub stop_sends: AtomicU32,
    /// Requests with this access token are told that it has expired and the device has not.
    pub expired: Mutex<Option<String>>,
    /// Sessions are not renewed any more.
    pub unrenewable: AtomicBool,
    /// The homeserver fails when it is asked for a single event.
    pub hide_events: AtomicBool,
    /// Sends that reached the homeserver.
    pub sends: AtomicU32,
}

pub struct Proxy {
    pub url: String,
    pub rules: Arc<Rules>,
    _serving: JoinSet<()>,
}

impl Proxy {
    pub async fn before(synapse: &Synapse) -> Self {
        let rules = Arc::<Rules>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = (rules.clone(), synapse.url(), super::http());
        let router = Router::new().fallback(pass).with_state(state);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            url,
            rules,
            _serving: serving,
        }
    }
}

/// A scene whose house is behind a proxy and has little patience.
pub async fn scene(synapse: &Synapse, encrypted: bool, patience: Patience) -> (Scene, Proxy) {
    let proxy = Proxy::before(synapse).await;
    let mut house = House::new(synapse).await;
    house.config.homeserver = Homeserver::Url(proxy.url.parse().unwrap());
    house.config.patience = patience;
    house.login(None).await.unwrap();
    house.open(Trust::CrossSigned).await;
    let (person, files) = person(synapse, Identity::New).await;
    let invited = [house.user.clone()];
    let room = person
        .create_room("A room", encrypted, &invited)
        .await
        .unwrap();
    let lane = house.portal(&room).await;
    house.listen(&room);
    wait_for_member(&person, &room, &house.user, "join").await;
    house.entered(&room).await;
    let scene = Scene {
        house,
        person,
        room,
        lane,
        _files: files,
    };
    (scene, proxy)
}

type Shared = (Arc<Rules>, String, reqwest::Client);

async fn pass(State((rules, upstream, http)): State<Shared>, request: Request) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if given.is_some() && given == rules.expired.lock().unwrap().as_deref() {
        let body = json!({"errcode": "M_UNKNOWN_TOKEN", "error": "expired", "soft_logout": true});
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.to_string();
    if path.ends_with("/refresh") && rules.unrenewable.load(Ordering::SeqCst) {
        let body =
            json!({"errcode": "M_FORBIDDEN", "error": "The supplied refresh token has expired"});
        return (StatusCode::FORBIDDEN, axum::Json(body)).into_response();
    }
    if path.contains("/event/") && rules.hide_events.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let is_send = parts.method == "PUT" && path.contains("/send/");
    let one_less = |left: u32| left.checked_sub(1);
    let take = |left: &AtomicU32| {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    };
    if is_send && take(&rules.stop_sends) {
        return StatusCode::GATEWAY_TIMEOUT.into_response();
    }
    // A long poll would hide for half a minute that keys are no longer kept back.
    let path = path.replace("timeout=30000", "timeout=500");
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut forward = http.request(parts.method, format!("{upstream}{path}"));
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            forward = forward.header(name, value);
        }
    }
    let Ok(answer) = forward.body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut bytes) = (answer.status(), answer.bytes().await.unwrap());
    if is_send && status.is_success() {
        rules.sends.fetch_add(1, Ordering::SeqCst);
        if take(&rules.lose_sends) {
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
    }
    if path.contains("/sync?") && status.is_success() {
        bytes = sift(&rules, &bytes).into();
    }
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(bytes))
        .unwrap()
}

/// Keeps messages from device to device back, or brings what was kept back.
fn sift(rules: &Rules, bytes: &[u8]) -> Vec<u8> {
    let mut answer: Value = serde_json::from_slice(bytes).unwrap();
    let mut kept = rules.kept.lock().unwrap();
    let fresh = answer["to_device"]["events"].as_array().cloned();
    kept.extend(fresh.unwrap_or_default());
    let events = if rules.keep_keys.load(Ordering::SeqCst) {
        Vec::new()
    } else {
        std::mem::take(&mut *kept)
    };
    answer["to_device"] = json!({ "events": events });
    answer.to_string().into_bytes()
}
