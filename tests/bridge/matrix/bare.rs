//! A room of a user who needs no SDK: for what only the homeserver's API can do.

use footbridge_testbed::proxy::Proxy;

use super::*;

/// The owner of a room, and a house that has a portal to it and is listening in.
pub struct Bare {
    pub house: House,
    pub owner: Registered,
    pub room: String,
    pub lane: LaneId,
}

impl Bare {
    pub async fn new(synapse: &Synapse, encryption: Option<Value>) -> Self {
        let mut bare = Self::outside(synapse, House::ready(synapse).await, encryption).await;
        bare.enter(synapse).await;
        bare
    }

    /// A house that reaches the homeserver through a proxy, and has not entered the room.
    pub async fn behind(synapse: &Synapse, proxy: &Proxy) -> Self {
        Self::behind_with(synapse, proxy, |_| {}).await
    }

    /// The same with another configuration.
    pub async fn behind_with(
        synapse: &Synapse,
        proxy: &Proxy,
        configure: impl FnOnce(&mut MatrixConfig),
    ) -> Self {
        let mut house = House::new(synapse).await;
        configure(&mut house.config);
        let url = proxy.url_for(&synapse.url());
        house.config.homeserver = Homeserver::Url(url.parse().unwrap());
        house.login(None).await.unwrap();
        house.open(Trust::CrossSigned).await;
        Self::outside(synapse, house, None).await
    }

    async fn outside(synapse: &Synapse, house: House, encryption: Option<Value>) -> Self {
        let owner = synapse
            .register_session(&unique("owner"), PASSWORD)
            .await
            .unwrap();
        let room = create(synapse, &owner, encryption).await;
        let lane = house.portal(&room).await;
        Self {
            house,
            owner,
            room,
            lane,
        }
    }

    /// The house listens and is invited in.
    pub async fn enter(&mut self, synapse: &Synapse) {
        self.house.listen(&self.room);
        self.invite(synapse).await;
        self.joined(synapse).await;
    }

    pub async fn say(&self, synapse: &Synapse, text: &str) -> String {
        say(synapse, &self.owner, &self.room, text).await
    }

    pub async fn invite(&self, synapse: &Synapse) {
        let path = format!("rooms/{}/invite", self.room);
        let body = json!({"user_id": self.house.user});
        raw(synapse, &self.owner, "POST", &path, body).await;
    }

    pub async fn kick(&self, synapse: &Synapse) {
        let path = format!("rooms/{}/kick", self.room);
        let body = json!({"user_id": self.house.user});
        raw(synapse, &self.owner, "POST", &path, body).await;
    }

    /// Waits until the house is in the room.
    pub async fn joined(&self, synapse: &Synapse) {
        let path = format!("rooms/{}/joined_members", self.room);
        let waited = timeout(LIMIT, async {
            loop {
                let members = raw(synapse, &self.owner, "GET", &path, Value::Null).await;
                if members["joined"].get(&self.house.user).is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("the house enters the room");
        self.house.entered(&self.room).await;
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

/// The access of the house's own account, for what somebody does by hand.
pub async fn own(house: &House) -> Registered {
    let account = house.store.account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    Registered {
        user_id: account.info.user_id.clone(),
        access_token: session["access_token"].as_str().unwrap().to_owned(),
        device_id: account.info.device_id.clone(),
    }
}
