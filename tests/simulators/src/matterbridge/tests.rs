//! Tests of the simulator from outside, over real HTTP and web sockets: what was observed on a real Matterbridge.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message as Frame, client::IntoClientRequest},
};

use super::{Fault, MatterbridgeSim, Message, Options};

/// The longest wait for something that should arrive at once.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing must arrive for it to count as silence.
const SILENCE: Duration = Duration::from_millis(250);

struct SimScenario {
    sim: MatterbridgeSim,
    http: Client,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl SimScenario {
    async fn with(options: Options) -> Self {
        let sim = MatterbridgeSim::start(options).await.unwrap();
        let http = Client::builder().timeout(EVENT_TIMEOUT).build().unwrap();
        Self { sim, http }
    }

    async fn new() -> Self {
        Self::with(Options {
            pace: Duration::from_millis(5),
            ..Options::default()
        })
        .await
    }

    fn url(&self, call: &str) -> String {
        format!("{}/api/{call}", self.sim.url())
    }

    async fn get(&self, call: &str) -> Response {
        self.http.get(self.url(call)).send().await.unwrap()
    }

    async fn post(&self, body: &Value) -> (u16, Value) {
        let sent = self.http.post(self.url("message")).json(body).send().await;
        let response = sent.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    fn say(&self, text: &str) {
        self.sim.say(Message::from_irc("gateway1", "alice", text));
    }

    async fn socket(&self) -> Socket {
        let url = self.url("websocket").replace("http", "ws");
        let (mut socket, _) = connect_async(url.into_client_request().unwrap())
            .await
            .unwrap();
        assert_eq!(next_event(&mut socket).await["event"], "api_connected");
        socket
    }
}

async fn next_event(socket: &mut Socket) -> Value {
    let frame = tokio::time::timeout(EVENT_TIMEOUT, socket.next())
        .await
        .expect("a frame");
    match frame.unwrap().unwrap() {
        Frame::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The next `count` lines of a stream.
async fn lines(response: &mut Response, count: usize) -> Vec<String> {
    let mut text = String::new();
    while text.matches('\n').count() < count {
        let chunk = tokio::time::timeout(EVENT_TIMEOUT, response.chunk())
            .await
            .expect("a chunk");
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_token_is_required_for_every_call() {
    let token = Some("secret".to_owned());
    let stage = SimScenario::with(Options {
        token,
        ..Options::default()
    })
    .await;
    let missing = stage.get("health").await;
    assert_eq!(missing.status(), 400);
    assert_eq!(
        missing.json::<Value>().await.unwrap()["message"],
        "missing key in request header"
    );
    for (given, status) in [
        ("Bearer wrong", 401),
        ("Bearer secret", 200),
        ("bearer secret", 200),
    ] {
        let asked = stage
            .http
            .get(stage.url("health"))
            .header("authorization", given);
        assert_eq!(asked.send().await.unwrap().status(), status, "{given}");
    }
}

#[tokio::test]
async fn unknown_calls_and_methods_are_refused() {
    let stage = SimScenario::new().await;
    assert_eq!(stage.get("gateways").await.status(), 404);
    let wrong = stage.get("message").await;
    assert_eq!(wrong.status(), 405);
    assert!(wrong.headers().contains_key("allow"));
    assert_eq!(stage.get("health").await.text().await.unwrap(), "OK");
}

#[tokio::test]
async fn whatever_is_posted_is_answered_with_200() {
    let stage = SimScenario::new().await;
    let (status, taken) = stage
        .post(&json!({"gateway": "gateway1", "username": "Ann", "text": "a < b", "id": "x", "account": "y"}))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        (
            taken["account"].as_str(),
            taken["protocol"].as_str(),
            taken["id"].as_str()
        ),
        (Some("api.footbridge"), Some("api"), Some(""))
    );
    for lost in [
        json!({"gateway": "gateway2", "username": "Ann", "text": "x"}),
        json!({"username": "Ann", "text": "x"}),
        json!({"gateway": "gateway1", "username": "Ann", "text": ""}),
        json!({"gateway": "gateway1", "text": "x", "event": "msg_delete"}),
    ] {
        assert_eq!(stage.post(&lost).await.0, 200, "{lost}");
    }
    assert_eq!((stage.sim.posted().len(), stage.sim.dropped()), (1, 4));
}

#[tokio::test]
async fn what_go_cannot_read_is_refused() {
    let stage = SimScenario::new().await;
    let bare = stage.http.post(stage.url("message")).body("{}");
    assert_eq!(bare.send().await.unwrap().status(), 415);
    let broken = stage
        .http
        .post(stage.url("message"))
        .header("content-type", "application/json");
    assert_eq!(broken.body("{\"text\"").send().await.unwrap().status(), 400);
    let (status, said) = stage.post(&json!({"text": 1})).await;
    assert_eq!(status, 400);
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .starts_with("Unmarshal type error")
    );
    let file = json!({"gateway": "gateway1", "Extra": {"file": [{"Name": "a", "data": ""}]}});
    assert_eq!(stage.post(&file).await.0, 500);
}

#[tokio::test]
async fn the_ring_drops_the_oldest_and_shrinks_for_good() {
    let stage = SimScenario::with(Options {
        buffer: 20,
        ..Options::default()
    })
    .await;
    for number in 0..25 {
        stage.say(&number.to_string());
    }
    let all: Vec<Value> = stage.get("messages").await.json().await.unwrap();
    assert_eq!((all.len(), all[0]["text"].as_str()), (20, Some("5")));
    for number in 0..25 {
        stage.say(&number.to_string());
    }
    assert_eq!(stage.sim.buffered(), 10);
}

#[tokio::test]
async fn the_stream_takes_from_the_ring_one_by_one() {
    let stage = SimScenario::new().await;
    stage.say("a < b");
    stage.say("two");
    let mut stream = stage.get("stream").await;
    let received = lines(&mut stream, 3).await;
    assert!(received[0].contains("\"event\":\"api_connected\""));
    assert!(
        received[1].starts_with("{\"text\":\"a \\u003c b\",\"channel\":\"#test\""),
        "{}",
        received[1]
    );
    assert!(
        received[2].ends_with("\"id\":\"\",\"Extra\":null}"),
        "{}",
        received[2]
    );
    assert_eq!(stage.sim.buffered(), 0);
    stage.say("three");
    assert!(lines(&mut stream, 1).await[0].contains("three"));
}

#[tokio::test]
async fn the_socket_sends_to_everybody_and_takes_nothing_from_the_ring() {
    let stage = SimScenario::new().await;
    stage.say("before");
    let (mut one, mut two) = (stage.socket().await, stage.socket().await);
    for number in 0..100 {
        stage.say(&number.to_string());
    }
    for socket in [&mut one, &mut two] {
        for number in 0..100 {
            assert_eq!(next_event(socket).await["text"], number.to_string());
        }
    }
    assert_eq!((stage.sim.buffered(), stage.sim.open_sockets()), (10, 2));
}

#[tokio::test]
async fn an_account_receives_its_own_messages_only_from_another_socket() {
    let stage = SimScenario::new().await;
    let (mut one, mut two) = (stage.socket().await, stage.socket().await);
    stage
        .post(&json!({"gateway": "gateway1", "username": "Ann", "text": "posted"}))
        .await;
    let said = json!({"gateway": "gateway1", "username": "Ann", "text": "said"}).to_string();
    one.send(Frame::text(said)).await.unwrap();
    assert_eq!(next_event(&mut two).await["text"], "said");
    assert!(tokio::time::timeout(SILENCE, one.next()).await.is_err());
    assert_eq!(stage.sim.buffered(), 0);
}

#[tokio::test]
async fn a_long_frame_closes_the_socket() {
    let stage = SimScenario::new().await;
    let mut socket = stage.socket().await;
    socket.send(Frame::text("x".repeat(513))).await.unwrap();
    let closed = tokio::time::timeout(EVENT_TIMEOUT, socket.next())
        .await
        .unwrap();
    assert!(matches!(closed, Some(Ok(Frame::Close(Some(frame)))) if u16::from(frame.code) == 1009));
}

#[tokio::test]
async fn faults_strike_as_often_as_they_are_armed() {
    let stage = SimScenario::new().await;
    let body = json!({"gateway": "gateway1", "username": "Ann", "text": "x"});
    stage
        .sim
        .faults()
        .next("POST message", Fault::Status { status: 500 }, 1);
    assert_eq!(stage.post(&body).await.0, 500);
    stage.sim.faults().next("POST message", Fault::DropAfter, 1);
    let lost = stage
        .http
        .post(stage.url("message"))
        .json(&body)
        .send()
        .await;
    assert!(lost.is_err());
    assert_eq!(stage.sim.posted().len(), 1, "the work was done");
    let mut socket = stage.socket().await;
    stage.sim.faults().skip_broadcasts(1);
    stage.say("skipped");
    stage.say("told");
    assert_eq!(next_event(&mut socket).await["text"], "told");
}

/// A burst arrives in another order than it was written in, on the WebSocket and in the buffer alike, and so do its
/// times.
#[tokio::test]
async fn a_burst_may_arrive_reordered_and_its_timestamps_do_not_show_it() {
    let stage = SimScenario::new().await;
    let mut socket = stage.socket().await;
    stage.sim.faults().swap(true);
    for number in 0..4 {
        stage.say(&number.to_string());
    }
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(next_event(&mut socket).await);
    }
    let of = |key: &str| -> Vec<String> {
        let words = received.iter().map(|event| event[key].as_str());
        words.map(|word| word.unwrap().to_owned()).collect()
    };
    assert_eq!(of("text"), ["1", "0", "3", "2"]);
    let times = of("timestamp");
    assert!(times.is_sorted(), "{times:?}");
    let kept: Vec<Value> = stage.get("messages").await.json().await.unwrap();
    assert_eq!(kept, received);
}

/// Every object has every key, in this order, whichever way it is read; missing values are empty or `null`.
#[tokio::test]
async fn every_object_has_every_key() {
    const REST: &str = "\"event\":\"\",\"protocol\":\"irc\",\"gateway\":\"gateway1\",\"parent_id\":\"\",\"timestamp\":";
    let stage = SimScenario::new().await;
    stage.sim.say(Message {
        id: "a native id".to_owned(),
        ..Message::from_irc("gateway1", "alice", "hello")
    });
    let mut stream = stage.get("stream").await;
    for (line, rest) in lines(&mut stream, 2).await.iter().zip([
        "\"event\":\"api_connected\",\"protocol\":\"\",\"gateway\":\"\",\"parent_id\":\"\",\"timestamp\":",
        REST,
    ]) {
        assert!(line.contains(rest), "{line}");
        assert!(line.ends_with(",\"id\":\"\",\"Extra\":null}"), "{line}");
    }
}

#[tokio::test]
async fn events_for_irc_only_are_not_sent() {
    let stage = SimScenario::new().await;
    let mut socket = stage.socket().await;
    for event in ["msg_delete", "user_typing", "notice_irc"] {
        stage
            .sim
            .say(Message::from_irc("gateway1", "alice", "x").event(event));
    }
    stage.say("told");
    assert_eq!(next_event(&mut socket).await["text"], "told");
    assert_eq!(stage.sim.buffered(), 1);
}

#[tokio::test]
async fn an_outage_loses_no_message() {
    let stage = SimScenario::new().await;
    let mut socket = stage.socket().await;
    stage.sim.stop_listening().await;
    assert!(!matches!(socket.next().await, Some(Ok(Frame::Text(_)))));
    stage.say("into the void");
    stage.sim.restart().await.unwrap();
    let all: Vec<Value> = stage.get("messages").await.json().await.unwrap();
    assert_eq!(all[0]["text"], "into the void");
}
