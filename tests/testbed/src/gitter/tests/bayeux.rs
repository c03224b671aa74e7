//! Behaviours 18 to 22: the realtime API.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{Ear, SOON, Stage, read, texts};
use crate::gitter::{Cut, Echo, Fault, Options, RoomOptions};

async fn poll(stage: &Stage, messages: Value) -> Value {
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
    let stage = Stage::new().await;
    let (mut ear, hello) = Ear::open(&stage, &stage.me.token).await;
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
    let answer = ear.ask(connect).await;
    assert_eq!(
        (&answer["successful"], &answer["advice"]),
        (&json!(true), &advice)
    );
    let channel = format!("/api/v1{}", stage.chat());
    let answer = ear.subscribe(&channel).await;
    assert_eq!(
        (&answer["successful"], &answer["subscription"]),
        (&json!(true), &json!(channel))
    );
    stage.say("heard");
    assert_eq!(ear.event().await.1["text"], "heard");
    let answer = ear
        .ask(json!({"channel": "/meta/unsubscribe", "subscription": channel}))
        .await;
    assert_eq!(answer["successful"], true);
    stage.say("unheard");
    ear.hears_nothing().await;
    assert_eq!(
        ear.ask(json!({"channel": "/meta/disconnect"})).await["successful"],
        true
    );
    assert_eq!(stage.sim.open_sessions(), 0);
}

#[tokio::test]
async fn behaviour_18_a_session_by_long_polling_hears_the_same() {
    let stage = Stage::new().await;
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
    // What comes between two polls waits for the second.
    stage.say("between polls");
    assert_eq!(
        poll(&stage, connect).await[1]["data"]["model"]["text"],
        "between polls"
    );
}

#[tokio::test]
async fn behaviour_18_a_script_or_a_form_may_carry_the_messages() {
    let stage = Stage::new().await;
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
    let stage = Stage::with(options).await;
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
        assert!(start.elapsed() < SOON);
    }
}

#[tokio::test]
async fn behaviour_18_refusals_have_the_services_words() {
    let stage = Stage::new().await;
    let never = json!({"reconnect": "none", "interval": 864_000_000});
    let (_, answer) = Ear::open(&stage, "").await;
    assert_eq!(
        (&answer["error"], &answer["advice"]),
        (&json!("401::Access token required"), &never)
    );
    let (_, answer) = Ear::open(&stage, "nonsense").await;
    assert_eq!(
        (&answer["error"], &answer["advice"]),
        (&json!("401::Invalid access token"), &never)
    );
    let (mut ear, _) = Ear::open(&stage, &stage.me.token).await;
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
        let answer = ear.subscribe(&channel).await;
        assert_eq!(
            (&answer["successful"], &answer["error"]),
            (&json!(false), &json!(error))
        );
    }
    "unknown".clone_into(&mut ear.client);
    let answer = ear
        .ask(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(answer["error"], "401:unknown:Unknown client");
    assert_eq!(answer["advice"]["reconnect"], "handshake");
    let answer = ear.subscribe("/api/v1/ping").await;
    assert_eq!(answer["error"], "401::Client unknown not authenticated");
    assert_eq!(
        answer["advice"],
        json!({"reconnect": "handshake", "interval": 2000})
    );
}

#[tokio::test]
async fn behaviour_18_snapshots_follow_their_options_and_cost_no_rate() {
    let stage = Stage::new().await;
    let root = stage.say("root");
    for n in 0..120 {
        stage.say(&n.to_string());
    }
    stage
        .sim
        .say_in_thread(&stage.room.id, &stage.alice.id, &root, "reply");
    let (mut ear, _) = Ear::open(&stage, &stage.me.token).await;
    let channel = format!("/api/v1{}", stage.chat());
    let mut snapshot = async |options: Value| {
        let ext = json!({"snapshot": options});
        let mut answer = ear
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
    let rooms = ear
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
async fn behaviour_19_events_carry_their_operation_and_number() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    let id = stage.say("first");
    let (operation, model, count) = ear.event().await;
    assert_eq!(
        (operation.as_str(), &model["id"], count),
        ("create", &json!(id), 1)
    );
    assert!(model.get("unread").is_none());
    stage.sim.edit(&stage.room.id, &id, "second").unwrap();
    let (operation, model, count) = ear.event().await;
    assert_eq!(
        (operation.as_str(), &model["text"], count),
        ("update", &json!("second"), 2)
    );
    stage
        .sim
        .read(&stage.room.id, &stage.me.id, std::slice::from_ref(&id));
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), model),
        ("patch", json!({"id": id, "readBy": 1, "v": 2}))
    );
    stage.sim.edit(&stage.room.id, &id, "").unwrap();
    let (operation, model, _) = ear.event().await;
    assert_eq!((operation.as_str(), &model["text"]), ("update", &json!("")));
    stage.sim.delete(&stage.room.id, &id).unwrap();
    let (operation, model, count) = ear.event().await;
    assert_eq!(
        (operation.as_str(), model, count),
        ("remove", json!({"id": id}), 5)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn behaviour_19_events_come_in_the_order_of_acceptance() {
    let stage = Stage::with(Options {
        rate_limit: 1000,
        ..Options::default()
    })
    .await;
    let mut ear = Ear::listening(&stage).await;
    let posts = (0..40).map(|n| {
        let stage = &stage;
        async move { stage.post(&format!("at once {n}")).await.0 }
    });
    let answers = futures_util::future::join_all(posts).await;
    assert!(answers.iter().all(|status| *status == 200));
    let stored = stage.sim.messages(&stage.room.id);
    assert_eq!(stored.len(), 40);
    for (message, expected) in stored.iter().zip(1..) {
        let (_, model, count) = ear.event().await;
        assert_eq!((&model["id"], count), (&json!(message.id), expected));
    }
}

#[tokio::test]
async fn behaviour_19_a_roots_update_precedes_its_replys_create() {
    let stage = Stage::new().await;
    let root = stage.say("root");
    let mut ear = Ear::listening(&stage).await;
    let reply = stage
        .sim
        .say_in_thread(&stage.room.id, &stage.alice.id, &root, "reply");
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), &model["threadMessageCount"]),
        ("update", &json!(1))
    );
    assert!(model.get("editedAt").is_none());
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), &model["id"]),
        ("create", &json!(reply.id))
    );
    assert_eq!(model["parentId"], root);
    stage.sim.delete(&stage.room.id, &root).unwrap();
    let (operation, model, _) = ear.event().await;
    assert_eq!((operation.as_str(), &model["text"]), ("update", &json!("")));
    assert!(model.get("editedAt").is_none());
}

#[tokio::test]
async fn behaviour_19_joins_are_told_in_small_rooms_and_to_the_one_who_joins() {
    let stage = Stage::new().await;
    let (mut ear, _) = Ear::open(&stage, &stage.me.token).await;
    let members = (0..99)
        .map(|n| stage.sim.add_user(&format!("u{n}"), "").id)
        .collect();
    let crowd = stage.sim.add_room(
        "org/crowd",
        RoomOptions {
            members,
            ..RoomOptions::default()
        },
    );
    ear.subscribe(&format!("/api/v1/rooms/{}/users", crowd.id))
        .await;
    ear.subscribe(&format!("/api/v1/user/{}/rooms", stage.me.id))
        .await;
    stage.sim.join(&crowd.id, &stage.me.id).unwrap();
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), &model["id"]),
        ("create", &json!(stage.me.id))
    );
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), &model["uri"]),
        ("create", &json!("org/crowd"))
    );
    stage.sim.join(&crowd.id, &stage.alice.id).unwrap();
    ear.hears_nothing().await;
}

#[tokio::test]
async fn an_empty_list_is_a_heartbeat() {
    let stage = Stage::new().await;
    let (mut ear, _) = Ear::open(&stage, &stage.me.token).await;
    ear.socket.send(Frame::text("[]")).await.unwrap();
    assert!(
        tokio::time::timeout(SOON, ear.receive())
            .await
            .unwrap()
            .is_some()
    );
    assert!(ear.waiting.is_empty());
}

/// Which came first for one's own message: the echo or the answer.
async fn echo_is_first(stage: &Stage, ear: &mut Ear) -> (bool, Duration) {
    let post = async {
        assert_eq!(stage.post("echo").await.0, 200);
        Instant::now()
    };
    let hear = async {
        assert_eq!(ear.event().await.1["text"], "echo");
        Instant::now()
    };
    let (answered, heard) = tokio::join!(post, hear);
    let apart = heard.max(answered) - heard.min(answered);
    (heard < answered, apart)
}

#[tokio::test]
async fn behaviour_20_the_echo_can_overtake_the_answer_or_trail_it() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    stage.sim.faults().set_echo(Echo::Before { ms: 200 });
    let (first, apart) = echo_is_first(&stage, &mut ear).await;
    assert!(first && apart > Duration::from_millis(100));
    stage.sim.faults().set_echo(Echo::After { ms: 200 });
    let (first, apart) = echo_is_first(&stage, &mut ear).await;
    assert!(!first && apart > Duration::from_millis(100));
    stage.sim.faults().set_echo(Echo::With);
    // A busy machine may part them once, not every time.
    let mut nearest = SOON;
    for _ in 0..5 {
        nearest = nearest.min(echo_is_first(&stage, &mut ear).await.1);
    }
    assert!(nearest < Duration::from_millis(100));
}

#[tokio::test]
async fn behaviour_20_a_lost_delivery_leaves_a_gap_in_the_numbers() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    stage.say("one");
    stage.sim.faults().skip_deliveries(1);
    stage.say("lost");
    stage.say("three");
    assert_eq!(ear.event().await.2, 1);
    let (_, model, count) = ear.event().await;
    assert_eq!((model["text"].as_str(), count), (Some("three"), 3));
}

#[tokio::test]
async fn behaviour_20_a_forgotten_session_is_unknown_and_hears_nothing() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    stage.sim.faults().expire_sessions();
    stage.say("unheard");
    ear.hears_nothing().await;
    let answer = ear
        .ask(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(
        answer["error"],
        format!("401:{}:Unknown client", ear.client)
    );
    assert_eq!(answer["advice"]["reconnect"], "handshake");
    assert!(answer.get("clientId").is_none());
    let mut again = Ear::listening(&stage).await;
    stage.say("heard");
    assert_eq!(again.event().await.2, 1);
}

#[tokio::test]
async fn behaviour_20_a_silent_session_expires() {
    let connect_timeout = Duration::from_millis(50);
    let stage = Stage::with(Options {
        connect_timeout,
        ..Options::default()
    })
    .await;
    let (mut ear, _) = Ear::open(&stage, &stage.me.token).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let answer = ear
        .ask(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(
        answer["error"],
        format!("401:{}:Unknown client", ear.client)
    );
}

#[tokio::test]
async fn behaviour_20_sockets_close_freeze_and_fall_mute() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    stage.sim.faults().mute_realtime(true);
    stage.say("muted");
    assert_eq!(
        ear.ask(json!({"channel": "/api/v1/ping2"})).await["successful"],
        true
    );
    ear.hears_nothing().await;
    stage.sim.faults().mute_realtime(false);
    stage.sim.faults().cut_realtime(Cut::Freeze);
    ear.tell(json!({"channel": "/api/v1/ping2"})).await;
    ear.hears_nothing().await;
    for how in [Cut::Close, Cut::Reset] {
        let mut ear = Ear::listening(&stage).await;
        stage.sim.faults().cut_realtime(how);
        let end = tokio::time::timeout(SOON, ear.receive()).await.unwrap();
        assert!(end.is_none());
    }
    stage
        .sim
        .faults()
        .next("BAYEUX upgrade", Fault::Html { status: 503 }, 1);
    assert!(
        tokio_tungstenite::connect_async(stage.sim.realtime_url())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn behaviour_20_a_socket_that_answers_no_ping_is_closed() {
    let socket_ping = Duration::from_millis(200);
    let stage = Stage::with(Options {
        socket_ping,
        ..Options::default()
    })
    .await;
    let mut answering = Ear::listening(&stage).await;
    let mut deaf = Ear::listening(&stage).await;
    // Pongs are sent by reading.
    let heard = tokio::time::timeout(Duration::from_millis(700), answering.receive()).await;
    assert!(heard.is_err(), "closed although it answered");
    assert!(
        tokio::time::timeout(SOON, deaf.receive())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn behaviour_20_a_session_goes_on_over_a_new_socket() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    stage.sim.faults().cut_realtime(Cut::Close);
    assert!(
        tokio::time::timeout(SOON, ear.receive())
            .await
            .unwrap()
            .is_none()
    );
    stage.say("while away");
    let (socket, _) = tokio_tungstenite::connect_async(stage.sim.realtime_url())
        .await
        .unwrap();
    ear.socket = socket;
    ear.tell(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(ear.event().await.1["text"], "while away");
}

#[tokio::test]
async fn behaviour_21_a_ban_is_told_once_and_then_there_is_silence() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    ear.subscribe(&format!("/api/v1/rooms/{}/users", stage.room.id))
        .await;
    ear.subscribe(&format!("/api/v1/user/{}/rooms", stage.me.id))
        .await;
    stage.sim.ban(&stage.room.id, &stage.me.id).unwrap();
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), model),
        ("remove", json!({"id": stage.me.id}))
    );
    let (operation, model, _) = ear.event().await;
    assert_eq!(
        (operation.as_str(), model),
        ("remove", json!({"id": stage.room.id}))
    );
    stage.say("unheard");
    ear.hears_nothing().await;
    assert_eq!(stage.post("refused").await.0, 403);
}

#[tokio::test]
async fn behaviour_21_a_kicked_member_hears_nothing_and_may_come_back() {
    let stage = Stage::new().await;
    let mut ear = Ear::listening(&stage).await;
    stage.sim.kick(&stage.room.id, &stage.me.id).unwrap();
    stage.say("unheard");
    ear.hears_nothing().await;
    stage.sim.join(&stage.room.id, &stage.me.id).unwrap();
    ear.subscribe(&format!("/api/v1{}", stage.chat())).await;
    stage.say("heard");
    assert_eq!(ear.event().await.1["text"], "heard");
}

#[tokio::test]
async fn behaviour_22_pings_are_answered_and_nothing_else_may_be_published() {
    let stage = Stage::new().await;
    let (mut ear, _) = Ear::open(&stage, &stage.me.token).await;
    let ping = json!({"channel": "/api/v1/ping2", "data": {"reason": "ping"}});
    assert_eq!(ear.ask(ping).await["successful"], true);
    let publish = json!({"channel": format!("/api/v1{}", stage.chat()), "data": {"text": "hi"}});
    let answer = ear.ask(publish).await;
    assert_eq!(
        (&answer["successful"], &answer["error"]),
        (&json!(false), &json!("403::Push access denied"))
    );
    assert!(stage.sim.messages(&stage.room.id).is_empty());
}
