//! Each rule against a tiny server that counts the requests that reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{State, WebSocketUpgrade, ws};
use axum::http::Method;
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Json, Router};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Cut, Fault, Matcher, Page, Proxy, Rule, ToDevice};

struct Scene {
    proxy: Proxy,
    work: Arc<AtomicU64>,
    http: reqwest::Client,
}

impl Scene {
    async fn open() -> Self {
        let work = Arc::new(AtomicU64::new(0));
        let router = Router::new()
            .route("/ws", get(echo))
            .route("/_matrix/client/v3/sync", get(sync))
            .fallback(any(count))
            .with_state(Arc::clone(&work));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            proxy: Proxy::start(&upstream, 1).await.unwrap(),
            work,
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
        }
    }

    fn url(&self, path: &str) -> String {
        self.proxy.url_for(&format!("http://upstream{path}"))
    }

    async fn put(&self) -> reqwest::Result<reqwest::Response> {
        self.http
            .put(self.url("/x/send/1"))
            .body("hello")
            .send()
            .await
    }

    fn work(&self) -> u64 {
        self.work.load(Ordering::SeqCst)
    }

    fn always(&self, fault: Fault) {
        self.proxy.clear();
        self.proxy.add(Rule::always("it", Matcher::all(), fault));
    }
}

async fn count(State(work): State<Arc<AtomicU64>>, body: Bytes) -> String {
    work.fetch_add(1, Ordering::SeqCst);
    format!("{} bytes", body.len())
}

async fn sync() -> Json<Value> {
    Json(json!({"next_batch": "s", "to_device": {"events": [{"type": "m.room.encrypted"}]}}))
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if let ws::Message::Text(_) = &message
                && socket.send(message).await.is_err()
            {
                return;
            }
        }
    })
}

#[tokio::test]
async fn what_no_rule_is_about_passes_unchanged() {
    let scene = Scene::open().await;
    scene.proxy.add(Rule::always(
        "posts",
        Matcher::posts(),
        Fault::DropRequest(Cut::Reset),
    ));
    let answer = scene.put().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "5 bytes");
    assert_eq!((scene.work(), scene.proxy.fault_count()), (1, 0));
}

#[tokio::test]
async fn a_dropped_reply_leaves_the_work_done_and_a_dropped_request_does_not() {
    let scene = Scene::open().await;
    for (fault, work) in [
        (Fault::DropReply(Cut::Reset), 1),
        (Fault::DropReply(Cut::Close), 2),
        (Fault::DropRequest(Cut::Reset), 2),
        (Fault::DropRequest(Cut::Close), 2),
    ] {
        scene.always(fault);
        assert!(scene.put().await.is_err());
        assert_eq!(scene.work(), work);
    }
    assert_eq!(scene.proxy.injected()["it"], 4);
}

#[tokio::test]
async fn a_duplicate_is_done_twice_and_answered_once() {
    let scene = Scene::open().await;
    scene.always(Fault::Duplicate);
    assert_eq!(scene.put().await.unwrap().text().await.unwrap(), "5 bytes");
    assert_eq!(scene.work(), 2);
}

#[tokio::test]
async fn delays_hold_the_request_or_the_answer() {
    let scene = Scene::open().await;
    let wait = Duration::from_millis(150);
    for fault in [Fault::Delay(wait, wait), Fault::DelayReply(wait, wait)] {
        scene.always(fault);
        let began = Instant::now();
        scene.put().await.unwrap();
        assert!(began.elapsed() >= wait);
    }
}

#[tokio::test]
async fn a_status_comes_with_the_body_and_headers_it_was_given() {
    let scene = Scene::open().await;
    scene.always(Fault::Status {
        status: 429,
        page: Page::Matrix,
        headers: vec![("x-ratelimit-remaining", "0".to_owned())],
        retry_after_ms: Some(1500),
        after_work: false,
    });
    let answer = scene.put().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["x-ratelimit-remaining"], "0");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errcode"], "M_LIMIT_EXCEEDED");
    assert_eq!(body["retry_after_ms"], 1500);
    assert_eq!(scene.work(), 0);
    for (page, contains) in [(Page::Html, "<html>"), (Page::Empty, "")] {
        scene.always(Fault::status(502, page));
        let answer = scene.put().await.unwrap();
        assert_eq!(answer.status(), 502);
        let body = answer.text().await.unwrap();
        assert!(body.starts_with(contains) && body.is_empty() == contains.is_empty());
    }
}

#[tokio::test]
async fn a_status_after_the_work_hides_that_it_was_done() {
    let scene = Scene::open().await;
    scene.always(Fault::Status {
        status: 504,
        page: Page::Html,
        headers: Vec::new(),
        retry_after_ms: None,
        after_work: true,
    });
    assert_eq!(scene.put().await.unwrap().status(), 504);
    assert_eq!(scene.work(), 1);
}

#[tokio::test]
async fn a_cut_body_ends_early_and_a_trickle_is_whole() {
    let scene = Scene::open().await;
    scene.always(Fault::CutAfter(3, Cut::Close));
    let mut answer = scene.put().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "5 b");
    assert!(answer.chunk().await.is_err(), "the end is missing");
    scene.always(Fault::Trickle(1, Duration::from_millis(10)));
    let began = Instant::now();
    assert_eq!(scene.put().await.unwrap().text().await.unwrap(), "5 bytes");
    assert!(began.elapsed() >= Duration::from_millis(70));
}

#[tokio::test]
async fn garbage_hides_that_the_work_was_done() {
    let scene = Scene::open().await;
    scene.always(Fault::Garbage(100));
    let answer = scene.put().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 100);
    assert_eq!(scene.work(), 1);
}

#[tokio::test]
async fn a_fault_rule_applies_as_often_as_configured() {
    let scene = Scene::open().await;
    let fault = Fault::status(503, Page::Empty);
    let began = Instant::now();
    scene
        .proxy
        .add(Rule::times("twice", Matcher::sends(), fault.clone(), 2));
    scene
        .proxy
        .add(Rule::sometimes("half", Matcher::sends(), fault, 0.5));
    for _ in 0..102 {
        scene.put().await.unwrap();
    }
    let struck = scene.proxy.injected();
    assert_eq!(struck["twice"], 2);
    assert!((30..=70).contains(&struck["half"]), "{struck:?}");
    let sends = scene.proxy.recorded_requests(began, &Matcher::sends());
    assert_eq!(sends.len(), 102);
}

#[tokio::test]
async fn a_proxy_that_is_down_refuses_and_comes_back_on_the_same_port() {
    let scene = Scene::open().await;
    scene.put().await.unwrap();
    scene.proxy.down().await;
    let error = scene.put().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    scene.proxy.up().await.unwrap();
    scene.put().await.unwrap();
    assert_eq!(scene.work(), 2);
}

#[tokio::test]
async fn messages_to_the_device_are_held_and_given_later() {
    let scene = Scene::open().await;
    let events = async || -> usize {
        let answer = scene
            .http
            .get(scene.url("/_matrix/client/v3/sync?timeout=0"))
            .send();
        let body: Value = answer.await.unwrap().json().await.unwrap();
        body["to_device"]["events"].as_array().unwrap().len()
    };
    assert_eq!(events().await, 1);
    scene.proxy.set_to_device(ToDevice::Hold);
    assert_eq!((events().await, events().await), (0, 0));
    scene.proxy.set_to_device(ToDevice::Pass);
    // Delivered again until the client acknowledges them, which this client never does.
    assert_eq!((events().await, events().await), (3, 3));
    assert_eq!(scene.proxy.to_device_taken(), 2);
}

#[tokio::test]
async fn an_upgraded_connection_passes_and_can_be_cut() {
    let scene = Scene::open().await;
    let url = scene.proxy.url_for("ws://upstream/ws");
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(Message::text("one")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one"));
    assert_eq!(scene.proxy.cut_all(Cut::Reset), 1);
    assert!(socket.next().await.is_none_or(|end| end.is_err()));

    // Of a frame of 2 + 3 bytes only four arrive.
    scene.proxy.add(Rule::always(
        "cut",
        Matcher::of(Method::GET),
        Fault::CutAfter(4, Cut::Close),
    ));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(Message::text("two")).await.unwrap();
    assert!(socket.next().await.is_none_or(|end| end.is_err()));
}
