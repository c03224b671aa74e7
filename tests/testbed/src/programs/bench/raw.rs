//! The speed of the homeserver itself: unencrypted messages by plain requests, one after the other, without an SDK.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use footbridge_testbed::client::TestClient;
use footbridge_testbed::scenario::PASSWORD;
use footbridge_testbed::synapse::{Registered, Synapse};
use serde_json::{Value, json};

/// An unencrypted room, with a sender and, as in the bridged room, a listener.
pub struct RawRoom {
    http: reqwest::Client,
    sender: Registered,
    address: String,
}

impl RawRoom {
    /// Creates the room; the listener joins it.
    pub async fn open(synapse: &Synapse, listener: &TestClient) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            .build()?;
        let sender = synapse.register_session("raw", PASSWORD).await?;
        let body = json!({ "preset": "private_chat", "invite": [listener.user_id()] });
        let answer = http
            .post(format!("{}/_matrix/client/v3/createRoom", synapse.url()))
            .bearer_auth(&sender.access_token)
            .json(&body)
            .send()
            .await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let room = answer
            .get("room_id")
            .and_then(Value::as_str)
            .context("no room was made")?;
        listener.join(room).await?;
        let mut address = url::Url::parse(&synapse.url())?;
        address
            .path_segments_mut()
            .ok()
            .context("the homeserver has no paths")?
            .extend([
                "_matrix",
                "client",
                "v3",
                "rooms",
                room,
                "send",
                "m.room.message",
            ]);
        Ok(Self {
            http,
            sender,
            address: address.into(),
        })
    }

    /// How long it takes to send this many messages.
    pub async fn send(&self, messages: usize) -> anyhow::Result<Duration> {
        let run: u64 = rand::random();
        let began = Instant::now();
        for number in 0..messages {
            let body = json!({
                "msgtype": "m.text",
                "body": format!("raw{run:020}{number:05} says the one who counts"),
            });
            let request = self.http.put(format!("{}/{run}-{number}", self.address));
            let answer = request
                .bearer_auth(&self.sender.access_token)
                .json(&body)
                .send()
                .await?;
            answer.error_for_status()?;
        }
        Ok(began.elapsed())
    }
}
