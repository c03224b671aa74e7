//! Behaviours 18 and 22: Bayeux sessions, snapshots, refusals and pings. The tests of their events are in `events`.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{BayeuxClient, EVENT_TIMEOUT, SimScenario, read, texts};
use crate::gitter::{Options, RoomOptions};

async fn poll(stage: &SimScenario, messages: Value) -> Value {
    let url = stage.sim.realtime_url().replace("ws:", "http:");
    let (status, answers) = read(stage.http.post(url).json(&messages).send().await.unwrap()).await;
    assert_eq!(status, 200);
    answers
}

fn handshake(token: &str) -> Value {
    json!([{
        "channel": "/meta/handshake", "id": "1", "version": "1.0",
        "supportedConnectionTypes": ["long-polling"], "ext": {"token": token},
    }])
}

#[tokio::test]
async fn behaviour_18_a_session_by_websocket_has_the_services_advice() {
    let stage = SimScenario::new().await;
    let (mut listener, hello) = BayeuxClient::open(&stage, &stage.me.token).await;
    let advice = json!({"reconnect": "retry", "interval": 500, "timeout": 120_000});
    assert_eq!(
        (&hello["successful"], &hello["advice"]),
        (&json!(true), &advice)
    );
    assert_eq!(
        (&hello["version"], &hello["ext"]["userId"]),
        (&json!("1.0"), &json!(stage.me.id))
    );
    let connect = json!({
        "channel": "/meta/connect", "connectionType": "websocket", "advice": {"timeout": 0},
    });
    let answer = listener.ask(connect).await;
    assert_eq!(
        (&answer["successful"], &answer["advice"]),
        (&json!(true), &advice)
    );
    let channel = format!("/api/v1{}", stage.chat());
    let answer = listener.subscribe(&channel).await;
    assert_eq!(
        (&answer["successful"], &answer["subscription"]),
        (&json!(true), &json!(channel))
    );
    stage.say("heard");
    assert_eq!(listener.event().await.1["text"], "heard");
    let answer = listener
        .ask(json!({"channel": "/meta/unsubscribe", "subscription": channel}))
        .await;
    assert_eq!(answer["successful"], true);
    stage.say("unheard");
    listener.hears_nothing().await;
    assert_eq!(
        listener.ask(json!({"channel": "/meta/disconnect"})).await["successful"],
        true
    );
    assert_eq!(stage.sim.open_sessions(), 0);
}

#[tokio::test]
async fn behaviour_18_a_session_by_long_polling_receives_the_same() {
    let stage = SimScenario::new().await;
    let hello = poll(&stage, handshake(&stage.me.token)).await;
    let client = hello[0]["clientId"].as_str().unwrap().to_owned();
    let channel = format!("/api/v1{}", stage.chat());
    let subscribe = json!([{
        "channel": "/meta/subscribe", "id": "2", "clientId": client, "subscription": channel,
    }]);
    assert_eq!(poll(&stage, subscribe).await[0]["successful"], true);
    let connect = json!([{
        "channel": "/meta/connect", "id": "3", "clientId": client, "connectionType": "long-polling",
    }]);
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.say("polled")
    };
    let start = Instant::now();
    let (answers, id) = tokio::join!(poll(&stage, connect.clone()), waiting);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(answers[0]["channel"], "/meta/connect");
    assert_eq!(
        (&answers[1]["data"]["model"]["id"], &answers[1]["ext"]["c"]),
        (&json!(id), &json!(1))
    );
    // An event between two polls waits for the second poll.
    stage.say("between polls");
    assert_eq!(
        poll(&stage, connect).await[1]["data"]["model"]["text"],
        "between polls"
    );
}

#[tokio::test]
async fn behaviour_18_a_script_or_a_form_may_contain_the_messages() {
    let stage = SimScenario::new().await;
    let url = stage.sim.realtime_url().replace("ws:", "http:");
    let message = handshake(&stage.me.token).to_string();
    let encode = |key: &str| {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair(key, &message)
            .append_pair("jsonp", "answer")
            .finish()
    };
    let script = stage
        .http
        .get(format!("{url}?{}", encode("message")))
        .send();
    let script = script.await.unwrap().text().await.unwrap();
    assert!(
        script.starts_with("/**/answer([{") && script.contains("\"successful\":true"),
        "{script}"
    );
    let form = stage.http.post(&url).body(encode("message"));
    let form = form
        .header("content-type", "application/x-www-form-urlencoded")
        .send();
    assert_eq!(read(form.await.unwrap()).await.1[0]["successful"], true);
    let nothing = stage.http.get(format!("{url}?{}", encode("other"))).send();
    assert_eq!(nothing.await.unwrap().status(), 400);
}

#[tokio::test]
async fn behaviour_18_the_idle_timeout_answers_and_differs_by_mount() {
    let options = Options {
        connect_timeout: Duration::from_millis(400),
        legacy_connect_timeout: Duration::from_millis(900),
        ..Options::default()
    };
    let stage = SimScenario::with(options).await;
    for (mount, timeout) in [("bayeux", 400), ("faye", 900)] {
        let url = stage
            .sim
            .realtime_url()
            .replace("ws:", "http:")
            .replace("bayeux", mount);
        let ask = |messages: Value| {
            let request = stage.http.post(&url).json(&messages);
            async { read(request.send().await.unwrap()).await.1 }
        };
        let hello = ask(handshake(&stage.me.token)).await;
        assert_eq!(hello[0]["advice"]["timeout"], timeout);
        let connect = json!([{
            "channel": "/meta/connect", "clientId": hello[0]["clientId"],
            "connectionType": "long-polling",
        }]);
        let start = Instant::now();
        assert_eq!(ask(connect).await[0]["successful"], true);
        assert!(start.elapsed() >= Duration::from_millis(timeout));
        assert!(start.elapsed() < EVENT_TIMEOUT);
    }
}

#[tokio::test]
async fn behaviour_18_refusals_have_the_services_text() {
    let stage = SimScenario::new().await;
    let never = json!({"reconnect": "none", "interval": 864_000_000});
    let (_, answer) = BayeuxClient::open(&stage, "").await;
    assert_eq!(
        (&answer["error"], &answer["advice"]),
        (&json!("401::Access token required"), &never)
    );
    let (_, answer) = BayeuxClient::open(&stage, "nonsense").await;
    assert_eq!(
        (&answer["error"], &answer["advice"]),
        (&json!("401::Invalid access token"), &never)
    );
    let (mut listener, _) = BayeuxClient::open(&stage, &stage.me.token).await;
    let options = RoomOptions {
        public: false,
        ..Default::default()
    };
    let private = stage.sim.add_room("org/private", options).id;
    let cases = [
        (
            "/api/v1/nonsense".to_owned(),
            "404::Unknown subscription /api/v1/nonsense",
        ),
        (
            "/api/v1/rooms/nonsense/chatMessages".to_owned(),
            "400::Invalid ID: nonsense",
        ),
        (
            format!("/api/v1/rooms/{private}/chatMessages"),
            "403::Authorisation denied.",
        ),
        (
            format!("/api/v1/user/{}/rooms", stage.alice.id),
            "403::Authorisation denied.",
        ),
    ];
    for (channel, error) in cases {
        let answer = listener.subscribe(&channel).await;
        assert_eq!(
            (&answer["successful"], &answer["error"]),
            (&json!(false), &json!(error))
        );
    }
    "unknown".clone_into(&mut listener.client);
    let answer = listener
        .ask(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(answer["error"], "401:unknown:Unknown client");
    assert_eq!(answer["advice"]["reconnect"], "handshake");
    let answer = listener.subscribe("/api/v1/ping").await;
    assert_eq!(answer["error"], "401::Client unknown not authenticated");
    assert_eq!(
        answer["advice"],
        json!({"reconnect": "handshake", "interval": 2000})
    );
}

#[tokio::test]
async fn behaviour_18_snapshots_follow_their_options_and_cost_no_rate() {
    let stage = SimScenario::new().await;
    let root = stage.say("root");
    for n in 0..120 {
        stage.say(&n.to_string());
    }
    stage
        .sim
        .say_in_thread(&stage.room.id, &stage.alice.id, &root, "reply");
    let (mut listener, _) = BayeuxClient::open(&stage, &stage.me.token).await;
    let channel = format!("/api/v1{}", stage.chat());
    let mut snapshot = async |options: Value| {
        let ext = json!({"snapshot": options});
        let mut answer = listener
            .ask(json!({"channel": "/meta/subscribe", "subscription": channel, "ext": ext}))
            .await;
        answer["ext"]["snapshot"].take()
    };
    let numbers = |from: usize| (from..120).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&snapshot(json!({})).await), numbers(90));
    assert_eq!(texts(&snapshot(json!({"limit": 1000})).await), numbers(20));
    let threads = snapshot(json!({"limit": 3, "includeThreads": true})).await;
    assert_eq!(texts(&threads), ["118", "119", "reply"]);
    assert_eq!(snapshot(json!(false)).await, Value::Null);
    let rooms = listener
        .subscribe(&format!("/api/v1/user/{}/rooms", stage.me.id))
        .await;
    assert_eq!(rooms["ext"]["snapshot"][0]["id"], stage.room.id);
    let response = stage
        .request(Method::GET, &stage.me.token, "/user")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["x-ratelimit-remaining"], "99");
}

#[tokio::test]
async fn behaviour_22_pings_are_answered_and_nothing_else_may_be_published() {
    let stage = SimScenario::new().await;
    let (mut listener, _) = BayeuxClient::open(&stage, &stage.me.token).await;
    let ping = json!({"channel": "/api/v1/ping2", "data": {"reason": "ping"}});
    assert_eq!(listener.ask(ping).await["successful"], true);
    let publish = json!({"channel": format!("/api/v1{}", stage.chat()), "data": {"text": "hi"}});
    let answer = listener.ask(publish).await;
    assert_eq!(
        (&answer["successful"], &answer["error"]),
        (&json!(false), &json!("403::Push access denied"))
    );
    assert!(stage.sim.messages(&stage.room.id).is_empty());
}

#[tokio::test]
async fn an_empty_list_is_a_heartbeat() {
    let stage = SimScenario::new().await;
    let (mut listener, _) = BayeuxClient::open(&stage, &stage.me.token).await;
    listener.socket.send(Frame::text("[]")).await.unwrap();
    assert!(
        tokio::time::timeout(EVENT_TIMEOUT, listener.receive())
            .await
            .unwrap()
            .is_some()
    );
    assert!(listener.waiting.is_empty());
}
