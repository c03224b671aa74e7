//! A proxy between a bridge and the homeserver: holds room keys back, drops responses, reports an expired session.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use super::*;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// What the proxy does besides forwarding.
#[derive(Default)]
pub struct Rules {
    /// To-device messages are held back while this is set; the first sync after that returns them.
    pub keep_keys: AtomicBool,
    kept: Mutex<Vec<Value>>,
    /// The responses to this many sends are dropped; the homeserver has processed the sends.
    pub lose_sends: AtomicU32,
    /// The proxy itself refuses this many sends: they never reach the homeserver.
    pub stop_sends: AtomicU32,
    /// Requests with this access token fail with a soft logout: the token has expired, the device has not.
    pub expired: Mutex<Option<String>>,
    /// The homeserver refuses to refresh sessions.
    pub unrenewable: AtomicBool,
    /// The events of this user are from 1970 in the history of a room, as their server may claim.
    pub dated_back: Mutex<Option<String>>,
    /// Requests for single events fail.
    pub hide_events: AtomicBool,
    /// Sends that reached the homeserver.
    pub sends: AtomicU32,
    /// The responses to this many refresh requests are dropped; the homeserver has processed the requests.
    pub lose_renewals: AtomicU32,
    /// The same, but the connection stays open without a response.
    pub mute_renewals: AtomicU32,
    /// A refresh token that is used again this long after its first use removes the device, as on Tuwunel.
    pub grace: Mutex<Option<Duration>>,
    spent: Mutex<HashMap<String, Instant>>,
    /// The device was removed.
    pub removed: AtomicBool,
    /// Clients behind the proxy do not learn of this user's devices, as on a homeserver that does not announce a new
    /// one (Continuwuity).
    pub hidden: Mutex<Option<String>>,
    /// The token lifetime in login responses, in milliseconds.
    pub lifetime: Mutex<Option<u64>>,
}

impl Rules {
    /// Records the use of a refresh token.
    fn spend(&self, body: &[u8]) {
        let Some(grace) = *self.grace.lock().unwrap() else {
            return;
        };
        let body: Value = serde_json::from_slice(body).unwrap();
        let token = body["refresh_token"].as_str().unwrap().to_owned();
        let mut spent = self.spent.lock().unwrap();
        if spent.get(&token).is_some_and(|at| at.elapsed() > grace) {
            self.removed.store(true, Ordering::SeqCst);
        }
        spent.entry(token).or_insert_with(Instant::now);
    }
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

/// A scenario whose bridge is behind a proxy, with these short timeouts.
pub async fn scene(synapse: &Synapse, encrypted: bool, patience: Timeouts) -> (Scene, Proxy) {
    let proxy = Proxy::before(synapse).await;
    scene_behind(proxy, synapse, encrypted, patience).await
}

/// The same behind this proxy.
pub async fn scene_behind(
    proxy: Proxy,
    synapse: &Synapse,
    encrypted: bool,
    patience: Timeouts,
) -> (Scene, Proxy) {
    let mut bridge = TestBridge::new(synapse).await;
    bridge.config.homeserver = Homeserver::Url(proxy.url.parse().unwrap());
    bridge.config.timeouts = patience;
    bridge.login(None).await.unwrap();
    bridge.open(Trust::CrossSigned).await;
    let (person, files) = person(synapse, Identity::New).await;
    let invited = [bridge.user.clone()];
    let room = person
        .create_room("A room", encrypted, &invited)
        .await
        .unwrap();
    let lane = bridge.portal(&room).await;
    bridge.listen(&room);
    wait_for_member(&person, &room, &bridge.user, "join").await;
    bridge.entered(&room).await;
    let scene = Scene {
        bridge,
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
    let given = given.map(str::to_owned);
    if given.is_some() && given == *rules.expired.lock().unwrap() {
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
    // A long poll would delay by half a minute the end of holding room keys back.
    let path = path.replace("timeout=30000", "timeout=500");
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let is_renewal = path.ends_with("/refresh");
    if is_renewal {
        rules.spend(&body);
    }
    if rules.removed.load(Ordering::SeqCst) && (given.is_some() || is_renewal) {
        let body =
            json!({"errcode": "M_UNKNOWN_TOKEN", "error": "no such token", "soft_logout": false});
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
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
    if is_renewal && status.is_success() {
        if take(&rules.lose_renewals) {
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
        if take(&rules.mute_renewals) {
            return std::future::pending().await;
        }
    }
    if status.is_success() {
        bytes = rewritten(&rules, &path, bytes);
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

/// The response with the configured token lifetime in logins, and without the hidden devices.
fn rewritten(rules: &Rules, path: &str, mut bytes: Bytes) -> Bytes {
    let lifetime = *rules.lifetime.lock().unwrap();
    if let (true, Some(lifetime)) = (path.ends_with("/login"), lifetime) {
        let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
        if answer["access_token"].is_string() {
            answer["expires_in_ms"] = json!(lifetime);
            bytes = answer.to_string().into();
        }
    }
    let dated_back = rules.dated_back.lock().unwrap().clone();
    if let (Some(user), true) = (dated_back, path.contains("/messages?")) {
        let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
        for event in answer["chunk"].as_array_mut().unwrap() {
            if event["sender"] == user.as_str() {
                event["origin_server_ts"] = json!(1);
            }
        }
        bytes = answer.to_string().into();
    }
    let hidden = rules.hidden.lock().unwrap().clone();
    if let (Some(user), true) = (hidden, path.contains("/keys/query")) {
        let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
        for part in ["device_keys", "master_keys", "self_signing_keys"] {
            if let Some(all) = answer.get_mut(part).and_then(Value::as_object_mut) {
                all.remove(&user);
            }
        }
        bytes = answer.to_string().into();
    }
    bytes
}

/// Holds to-device messages back, or adds those that were held back.
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
    if let (Some(user), Some(changed)) = (
        rules.hidden.lock().unwrap().as_deref(),
        answer
            .pointer_mut("/device_lists/changed")
            .and_then(Value::as_array_mut),
    ) {
        changed.retain(|changed| changed != user);
    }
    answer["to_device"] = json!({ "events": events });
    answer.to_string().into_bytes()
}
