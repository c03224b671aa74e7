//! A room of a user without any SDK: for tests that need only the homeserver's API.

use footbridge_testbed::proxy::Proxy;

use super::*;

/// The owner of a room, and a bridge that has a portal to it and listens in it.
pub struct Bare {
    pub bridge: TestBridge,
    pub owner: Registered,
    pub room: String,
    pub lane: LaneId,
}

impl Bare {
    pub async fn new(synapse: &Synapse, encryption: Option<Value>) -> Self {
        let mut bare = Self::outside(synapse, TestBridge::ready(synapse).await, encryption).await;
        bare.enter(synapse).await;
        bare
    }

    /// A bridge that reaches the homeserver through a proxy, and has not joined the room.
    pub async fn behind(synapse: &Synapse, proxy: &Proxy) -> Self {
        Self::behind_with(synapse, proxy, |_| {}).await
    }

    /// The same with another configuration.
    pub async fn behind_with(
        synapse: &Synapse,
        proxy: &Proxy,
        configure: impl FnOnce(&mut MatrixConfig),
    ) -> Self {
        let mut bridge = TestBridge::new(synapse).await;
        configure(&mut bridge.config);
        let url = proxy.url_for(&synapse.url());
        bridge.config.homeserver = Homeserver::Url(url.parse().unwrap());
        bridge.login(None).await.unwrap();
        bridge.open(Trust::CrossSigned).await;
        Self::outside(synapse, bridge, None).await
    }

    async fn outside(synapse: &Synapse, bridge: TestBridge, encryption: Option<Value>) -> Self {
        let owner = synapse
            .register_session(&unique("owner"), PASSWORD)
            .await
            .unwrap();
        let room = create(synapse, &owner, encryption).await;
        let lane = bridge.portal(&room).await;
        Self {
            bridge,
            owner,
            room,
            lane,
        }
    }

    /// The bridge listens, is invited and joins.
    pub async fn enter(&mut self, synapse: &Synapse) {
        self.bridge.listen(&self.room);
        self.invite(synapse).await;
        self.joined(synapse).await;
    }

    pub async fn say(&self, synapse: &Synapse, text: &str) -> String {
        say(synapse, &self.owner, &self.room, text).await
    }

    pub async fn invite(&self, synapse: &Synapse) {
        let path = format!("rooms/{}/invite", self.room);
        let body = json!({"user_id": self.bridge.user});
        raw(synapse, &self.owner, "POST", &path, body).await;
    }

    pub async fn kick(&self, synapse: &Synapse) {
        let path = format!("rooms/{}/kick", self.room);
        let body = json!({"user_id": self.bridge.user});
        raw(synapse, &self.owner, "POST", &path, body).await;
    }

    /// Waits until the bridge is in the room.
    pub async fn joined(&self, synapse: &Synapse) {
        let path = format!("rooms/{}/joined_members", self.room);
        let waited = timeout(LIMIT, async {
            loop {
                let members = raw(synapse, &self.owner, "GET", &path, Value::Null).await;
                if members["joined"].get(&self.bridge.user).is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("the bridge joins the room");
        self.bridge.entered(&self.room).await;
    }
}

pub async fn create(synapse: &Synapse, owner: &Registered, encryption: Option<Value>) -> String {
    let state: Vec<Value> = encryption
        .into_iter()
        .map(|content| json!({"type": "m.room.encryption", "state_key": "", "content": content}))
        .collect();
    let body = json!({"preset": "private_chat", "initial_state": state});
    let made = raw(synapse, owner, "POST", "createRoom", body).await;
    made["room_id"].as_str().unwrap().to_owned()
}

pub async fn say(synapse: &Synapse, user: &Registered, room: &str, text: &str) -> String {
    let path = format!("rooms/{room}/send/m.room.message/{}", unique("t"));
    let body = json!({"msgtype": "m.text", "body": text});
    let sent = raw(synapse, user, "PUT", &path, body).await;
    sent["event_id"].as_str().unwrap().to_owned()
}

/// The session of the bridge's own account, for requests by hand.
pub async fn own(bridge: &TestBridge) -> Registered {
    let account = bridge.store.relay_account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    Registered {
        user_id: account.info.user_id.clone(),
        access_token: session["access_token"].as_str().unwrap().to_owned(),
        device_id: account.info.device_id.clone(),
    }
}
