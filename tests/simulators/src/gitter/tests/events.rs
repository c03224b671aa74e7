//! Behaviours 19 to 21: the events of the realtime API, their order, and their faults.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{BayeuxClient, EVENT_TIMEOUT, SimScenario};
use crate::gitter::{Cut, Echo, Fault, Options, RoomOptions};

#[tokio::test]
async fn behaviour_19_events_carry_their_operation_and_number() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    let id = stage.say("first");
    let (operation, model, count) = listener.event().await;
    assert_eq!(
        (operation.as_str(), &model["id"], count),
        ("create", &json!(id), 1)
    );
    assert!(model.get("unread").is_none());
    stage.sim.edit(&stage.room.id, &id, "second").unwrap();
    let (operation, model, count) = listener.event().await;
    assert_eq!(
        (operation.as_str(), &model["text"], count),
        ("update", &json!("second"), 2)
    );
    stage
        .sim
        .read(&stage.room.id, &stage.me.id, std::slice::from_ref(&id));
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), model),
        ("patch", json!({"id": id, "readBy": 1, "v": 2}))
    );
    stage.sim.edit(&stage.room.id, &id, "").unwrap();
    let (operation, model, _) = listener.event().await;
    assert_eq!((operation.as_str(), &model["text"]), ("update", &json!("")));
    stage.sim.delete(&stage.room.id, &id).unwrap();
    let (operation, model, count) = listener.event().await;
    assert_eq!(
        (operation.as_str(), model, count),
        ("remove", json!({"id": id}), 5)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn behaviour_19_events_come_in_the_order_of_acceptance() {
    let stage = SimScenario::with(Options {
        rate_limit: 1000,
        ..Options::default()
    })
    .await;
    let mut listener = BayeuxClient::listening(&stage).await;
    let posts = (0..40).map(|n| {
        let stage = &stage;
        async move { stage.post(&format!("at once {n}")).await.0 }
    });
    let answers = futures_util::future::join_all(posts).await;
    assert!(answers.iter().all(|status| *status == 200));
    let stored = stage.sim.messages(&stage.room.id);
    assert_eq!(stored.len(), 40);
    for (message, expected) in stored.iter().zip(1..) {
        let (_, model, count) = listener.event().await;
        assert_eq!((&model["id"], count), (&json!(message.id), expected));
    }
}

#[tokio::test]
async fn behaviour_19_a_roots_update_precedes_its_replys_create() {
    let stage = SimScenario::new().await;
    let root = stage.say("root");
    let mut listener = BayeuxClient::listening(&stage).await;
    let reply = stage
        .sim
        .say_in_thread(&stage.room.id, &stage.alice.id, &root, "reply");
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), &model["threadMessageCount"]),
        ("update", &json!(1))
    );
    assert!(model.get("editedAt").is_none());
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), &model["id"]),
        ("create", &json!(reply.id))
    );
    assert_eq!(model["parentId"], root);
    stage.sim.delete(&stage.room.id, &root).unwrap();
    let (operation, model, _) = listener.event().await;
    assert_eq!((operation.as_str(), &model["text"]), ("update", &json!("")));
    assert!(model.get("editedAt").is_none());
}

#[tokio::test]
async fn behaviour_19_joins_are_announced_in_small_rooms_and_to_the_one_who_joins() {
    let stage = SimScenario::new().await;
    let (mut listener, _) = BayeuxClient::open(&stage, &stage.me.token).await;
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
    listener
        .subscribe(&format!("/api/v1/rooms/{}/users", crowd.id))
        .await;
    listener
        .subscribe(&format!("/api/v1/user/{}/rooms", stage.me.id))
        .await;
    stage.sim.join(&crowd.id, &stage.me.id).unwrap();
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), &model["id"]),
        ("create", &json!(stage.me.id))
    );
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), &model["uri"]),
        ("create", &json!("org/crowd"))
    );
    stage.sim.join(&crowd.id, &stage.alice.id).unwrap();
    listener.hears_nothing().await;
}

/// Whether the echo of a message came before the response of its call, and the time between the two.
async fn echo_is_first(stage: &SimScenario, listener: &mut BayeuxClient) -> (bool, Duration) {
    let post = async {
        assert_eq!(stage.post("echo").await.0, 200);
        Instant::now()
    };
    let hear = async {
        assert_eq!(listener.event().await.1["text"], "echo");
        Instant::now()
    };
    let (answered, echoed) = tokio::join!(post, hear);
    let apart = echoed.max(answered) - echoed.min(answered);
    (echoed < answered, apart)
}

#[tokio::test]
async fn behaviour_20_the_echo_can_overtake_the_answer_or_trail_it() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    stage.sim.faults().set_echo(Echo::Before { ms: 200 });
    let (first, apart) = echo_is_first(&stage, &mut listener).await;
    assert!(first && apart > Duration::from_millis(100));
    stage.sim.faults().set_echo(Echo::After { ms: 200 });
    let (first, apart) = echo_is_first(&stage, &mut listener).await;
    assert!(!first && apart > Duration::from_millis(100));
    stage.sim.faults().set_echo(Echo::With);
    // A busy machine may separate them once, but not every time.
    let mut nearest = EVENT_TIMEOUT;
    for _ in 0..5 {
        nearest = nearest.min(echo_is_first(&stage, &mut listener).await.1);
    }
    assert!(nearest < Duration::from_millis(100));
}

#[tokio::test]
async fn behaviour_20_a_lost_delivery_leaves_a_gap_in_the_numbers() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    stage.say("one");
    stage.sim.faults().skip_deliveries(1);
    stage.say("lost");
    stage.say("three");
    assert_eq!(listener.event().await.2, 1);
    let (_, model, count) = listener.event().await;
    assert_eq!((model["text"].as_str(), count), (Some("three"), 3));
}

#[tokio::test]
async fn behaviour_20_a_forgotten_session_is_unknown_and_receives_nothing() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    stage.sim.faults().expire_sessions();
    stage.say("unheard");
    listener.hears_nothing().await;
    let answer = listener
        .ask(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(
        answer["error"],
        format!("401:{}:Unknown client", listener.client)
    );
    assert_eq!(answer["advice"]["reconnect"], "handshake");
    assert!(answer.get("clientId").is_none());
    let mut again = BayeuxClient::listening(&stage).await;
    stage.say("heard");
    assert_eq!(again.event().await.2, 1);
}

#[tokio::test]
async fn behaviour_20_a_silent_session_expires() {
    let connect_timeout = Duration::from_millis(50);
    let stage = SimScenario::with(Options {
        connect_timeout,
        ..Options::default()
    })
    .await;
    let (mut listener, _) = BayeuxClient::open(&stage, &stage.me.token).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let answer = listener
        .ask(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(
        answer["error"],
        format!("401:{}:Unknown client", listener.client)
    );
}

#[tokio::test]
async fn behaviour_20_sockets_close_freeze_and_fall_mute() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    stage.sim.faults().mute_realtime(true);
    stage.say("muted");
    assert_eq!(
        listener.ask(json!({"channel": "/api/v1/ping2"})).await["successful"],
        true
    );
    listener.hears_nothing().await;
    stage.sim.faults().mute_realtime(false);
    stage.sim.faults().cut_realtime(Cut::Freeze);
    listener.tell(json!({"channel": "/api/v1/ping2"})).await;
    listener.hears_nothing().await;
    for how in [Cut::Close, Cut::Reset] {
        let mut listener = BayeuxClient::listening(&stage).await;
        stage.sim.faults().cut_realtime(how);
        let end = tokio::time::timeout(EVENT_TIMEOUT, listener.receive())
            .await
            .unwrap();
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
    let stage = SimScenario::with(Options {
        socket_ping,
        ..Options::default()
    })
    .await;
    let mut answering = BayeuxClient::listening(&stage).await;
    let mut deaf = BayeuxClient::listening(&stage).await;
    // The client sends pongs only while it reads.
    let received = tokio::time::timeout(Duration::from_millis(700), answering.receive()).await;
    assert!(received.is_err(), "closed although it answered");
    assert!(
        tokio::time::timeout(EVENT_TIMEOUT, deaf.receive())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn behaviour_20_a_session_continues_over_a_new_socket() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    stage.sim.faults().cut_realtime(Cut::Close);
    assert!(
        tokio::time::timeout(EVENT_TIMEOUT, listener.receive())
            .await
            .unwrap()
            .is_none()
    );
    stage.say("while away");
    let (socket, _) = tokio_tungstenite::connect_async(stage.sim.realtime_url())
        .await
        .unwrap();
    listener.socket = socket;
    listener
        .tell(json!({"channel": "/meta/connect", "connectionType": "websocket"}))
        .await;
    assert_eq!(listener.event().await.1["text"], "while away");
}

#[tokio::test]
async fn behaviour_21_a_ban_is_announced_once_and_then_there_is_silence() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    listener
        .subscribe(&format!("/api/v1/rooms/{}/users", stage.room.id))
        .await;
    listener
        .subscribe(&format!("/api/v1/user/{}/rooms", stage.me.id))
        .await;
    stage.sim.ban(&stage.room.id, &stage.me.id).unwrap();
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), model),
        ("remove", json!({"id": stage.me.id}))
    );
    let (operation, model, _) = listener.event().await;
    assert_eq!(
        (operation.as_str(), model),
        ("remove", json!({"id": stage.room.id}))
    );
    stage.say("unheard");
    listener.hears_nothing().await;
    assert_eq!(stage.post("refused").await.0, 403);
}

#[tokio::test]
async fn behaviour_21_a_kicked_member_receives_nothing_and_may_come_back() {
    let stage = SimScenario::new().await;
    let mut listener = BayeuxClient::listening(&stage).await;
    stage.sim.kick(&stage.room.id, &stage.me.id).unwrap();
    stage.say("unheard");
    listener.hears_nothing().await;
    stage.sim.join(&stage.room.id, &stage.me.id).unwrap();
    listener
        .subscribe(&format!("/api/v1{}", stage.chat()))
        .await;
    stage.say("heard");
    assert_eq!(listener.event().await.1["text"], "heard");
}
