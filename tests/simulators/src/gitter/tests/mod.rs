//! Tests of the simulator from outside, over real HTTP and websockets. The numbers are those of the list of behaviours
//! that it must show.

mod bayeux;
mod chat;
mod control;
mod events;
mod frame;
mod listing;
mod rooms;
mod stream;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message as Frame,
};

use super::{GitterSim, Options, Room, RoomOptions, User};

/// The longest wait for something that should arrive at once.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing must arrive for it to count as silence.
const SILENCE: Duration = Duration::from_millis(250);

/// A simulator with two users in a public room.
struct SimScenario {
    sim: GitterSim,
    me: User,
    alice: User,
    room: Room,
    http: Client,
}

impl SimScenario {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let sim = GitterSim::start(options).await.unwrap();
        let me = sim.add_user("bridge", "Bridge Bot");
        let alice = sim.add_user("alice", "Alice");
        let members = vec![me.id.clone(), alice.id.clone()];
        let room = sim.add_room(
            "Org/Repo",
            RoomOptions {
                members,
                ..RoomOptions::default()
            },
        );
        let http = Client::builder().timeout(EVENT_TIMEOUT).build().unwrap();
        Self {
            sim,
            me,
            alice,
            room,
            http,
        }
    }

    fn chat(&self) -> String {
        format!("/rooms/{}/chatMessages", self.room.id)
    }

    fn request(&self, method: Method, token: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.sim.api_url());
        self.http.request(method, url).bearer_auth(token)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(
            self.request(Method::GET, &self.me.token, path)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.send_as(&self.me.token, method, path, body).await
    }

    async fn send_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        read(
            self.request(method, token, path)
                .json(&body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    async fn post(&self, text: &str) -> (StatusCode, Value) {
        self.send(Method::POST, &self.chat(), json!({"text": text}))
            .await
    }

    fn say(&self, text: &str) -> String {
        self.sim.say(&self.room.id, &self.alice.id, text).id
    }

    async fn listed(&self, query: &str) -> Vec<String> {
        let (status, list) = self.get(&format!("{}?{query}", self.chat())).await;
        assert_eq!(status, 200, "{list}");
        texts(&list)
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|message| message["text"].as_str().unwrap().to_owned())
        .collect()
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// A Bayeux client on a websocket.
struct BayeuxClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    client: String,
    count: u64,
    /// Events that were received and not returned yet.
    waiting: Vec<Value>,
}

impl BayeuxClient {
    /// Connects and performs the handshake; returns the client and the handshake's reply.
    async fn open(stage: &SimScenario, token: &str) -> (Self, Value) {
        let (socket, _) = connect_async(stage.sim.realtime_url()).await.unwrap();
        let mut listener = Self {
            socket,
            client: String::new(),
            count: 0,
            waiting: Vec::new(),
        };
        let hello = listener
            .ask(json!({
                "channel": "/meta/handshake", "version": "1.0",
                "supportedConnectionTypes": ["websocket"], "ext": {"token": token},
            }))
            .await;
        hello["clientId"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut listener.client);
        (listener, hello)
    }

    /// A client that is subscribed to the scenario's room.
    async fn listening(stage: &SimScenario) -> Self {
        let (mut listener, _) = Self::open(stage, &stage.me.token).await;
        let answer = listener
            .subscribe(&format!("/api/v1{}", stage.chat()))
            .await;
        assert_eq!(answer["successful"], true, "{answer}");
        listener
    }

    async fn tell(&mut self, mut message: Value) -> String {
        self.count += 1;
        let id = self.count.to_string();
        message["id"] = json!(id);
        if !self.client.is_empty() && message.get("clientId").is_none() {
            message["clientId"] = json!(self.client);
        }
        self.socket
            .send(Frame::text(json!([message]).to_string()))
            .await
            .unwrap();
        id
    }

    async fn ask(&mut self, message: Value) -> Value {
        let id = self.tell(message).await;
        self.find(|message| message["id"] == id.as_str() && message.get("successful").is_some())
            .await
    }

    async fn subscribe(&mut self, channel: &str) -> Value {
        self.ask(json!({"channel": "/meta/subscribe", "subscription": channel}))
            .await
    }

    async fn receive(&mut self) -> Option<()> {
        loop {
            let frame = self.socket.next().await?.ok()?;
            if let Frame::Text(text) = frame {
                let messages: Vec<Value> = serde_json::from_str(&text).unwrap();
                self.waiting.extend(messages);
                return Some(());
            }
        }
    }

    async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                if let Some(at) = self.waiting.iter().position(&wanted) {
                    return self.waiting.remove(at);
                }
                self.receive().await.expect("the socket to stay open");
            }
        };
        tokio::time::timeout(EVENT_TIMEOUT, search)
            .await
            .expect("a message of this kind")
    }

    /// The next event, as (operation, model, `ext.c`).
    async fn event(&mut self) -> (String, Value, u64) {
        let mut event = self.find(|message| message.get("data").is_some()).await;
        let operation = event["data"]["operation"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let count = event["ext"]["c"].as_u64().unwrap();
        (operation, event["data"]["model"].take(), count)
    }

    async fn hears_nothing(&mut self) {
        let received = tokio::time::timeout(SILENCE, self.receive()).await;
        assert!(
            received.is_err() && self.waiting.is_empty(),
            "{:?}",
            self.waiting
        );
    }
}
