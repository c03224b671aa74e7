//! Members of large rooms: accounts with one cross-signed device and one-time keys each, made by plain requests. No
//! client runs for them; tests can read what the homeserver has queued for their devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Map, Value, json};
use vodozemac::Ed25519Keypair;
use vodozemac::olm::Account;

use crate::scenario::PASSWORD;
use crate::synapse::{Registered, Synapse};

/// How many accounts are created at the same time.
const CONCURRENCY: usize = 8;
/// One-time keys that each device uploads.
const ONE_TIME_KEYS: usize = 5;

/// Plain requests with the token of an account.
#[derive(Clone)]
pub struct Member {
    /// Its session.
    pub session: Arc<Registered>,
    http: reqwest::Client,
    homeserver: String,
}

/// Registers `count` members whose names begin with `name`, each with a signed device and one-time keys.
pub async fn register(synapse: &Synapse, name: &str, count: usize) -> anyhow::Result<Vec<Member>> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_mins(2))
        .build()?;
    stream::iter(0..count)
        .map(|number| {
            let http = http.clone();
            async move {
                let name = format!("{name}{number}");
                let session = synapse.register_session(&name, PASSWORD).await?;
                let member = Member {
                    session: Arc::new(session),
                    http,
                    homeserver: synapse.url(),
                };
                member.upload_keys().await?;
                anyhow::Ok(member)
            }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}

/// Makes all of them join a room, several at a time.
pub async fn join(members: &[Member], room: &str) -> anyhow::Result<()> {
    stream::iter(members)
        .map(|member| member.join(room))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

impl Member {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let address = format!("{}/_matrix/client/{path}", self.homeserver);
        let mut request = self.http.request(method, address);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request
            .bearer_auth(&self.session.access_token)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path} answers {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Joins a public room, or a room that the member was invited to.
    pub async fn join(&self, room: &str) -> anyhow::Result<()> {
        let path = format!("v3/rooms/{}/join", segment(room));
        self.ask(Method::POST, &path, Some(json!({})))
            .await
            .map(drop)
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &str) -> anyhow::Result<()> {
        let path = format!("v3/rooms/{}/leave", segment(room));
        self.ask(Method::POST, &path, Some(json!({})))
            .await
            .map(drop)
    }

    /// How many messages were sent to its device, by type; a room key has the type `m.room.encrypted`.
    pub async fn sent_to_device(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut types = BTreeMap::new();
        let mut since = String::new();
        loop {
            let path = format!("v3/sync?timeout=0&filter={FILTER}{since}");
            let answer = self.ask(Method::GET, &path, None).await?;
            let events = answer
                .pointer("/to_device/events")
                .and_then(Value::as_array);
            let Some(events) = events.filter(|events| !events.is_empty()) else {
                return Ok(types);
            };
            for event in events {
                let kind = event.get("type").and_then(Value::as_str);
                *types
                    .entry(kind.unwrap_or_default().to_owned())
                    .or_default() += 1;
            }
            let next = answer.get("next_batch").and_then(Value::as_str);
            since = format!(
                "&since={}",
                next.context("the sync response has no next_batch")?
            );
        }
    }

    /// Syncs from `since` (at first from the beginning of the room) and returns how many encrypted events of `sender`
    /// there were, and the next position.
    pub async fn receive(
        &self,
        room: &str,
        sender: &str,
        since: Option<&str>,
    ) -> anyhow::Result<(usize, String)> {
        let since = since.map_or_else(String::new, |since| format!("&since={since}"));
        let path = format!("v3/sync?timeout=5000&filter={LISTENING}{since}");
        let answer = self.ask(Method::GET, &path, None).await?;
        let next = answer.get("next_batch").and_then(Value::as_str);
        let next = next
            .context("the sync response has no next_batch")?
            .to_owned();
        let joined = answer.get("rooms").and_then(|rooms| rooms.get("join"));
        let room = joined.and_then(|joined| joined.get(room));
        let events = room.and_then(|room| room.pointer("/timeline/events"));
        let events = events.and_then(Value::as_array).into_iter().flatten();
        let encrypted = events.filter(|event| {
            let is = |field: &str, wanted: &str| {
                event.get(field).and_then(Value::as_str) == Some(wanted)
            };
            is("sender", sender) && is("type", "m.room.encrypted")
        });
        Ok((encrypted.count(), next))
    }

    /// Uploads a cross-signing identity, a device signed by it, and keys for new Olm sessions.
    async fn upload_keys(&self) -> anyhow::Result<()> {
        let (user, device) = (&self.session.user_id, &self.session.device_id);
        let mut account = Account::new();
        let one_time_keys = account_keys(&mut account);
        let (master, signing, users) = (
            Ed25519Keypair::new(),
            Ed25519Keypair::new(),
            Ed25519Keypair::new(),
        );
        let master_id = format!("ed25519:{}", master.public_key().to_base64());
        let by_master = |content: Value| {
            signed(content, user, &master_id, |message| {
                master.sign(message).to_base64()
            })
        };
        let key = |usage: &str, key: &Ed25519Keypair| {
            let key = key.public_key().to_base64();
            json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{key}"): key } })
        };
        let identity = json!({
            "master_key": key("master", &master),
            "self_signing_key": by_master(key("self_signing", &signing)),
            "user_signing_key": by_master(key("user_signing", &users)),
        });
        self.ask(
            Method::POST,
            "v3/keys/device_signing/upload",
            Some(identity),
        )
        .await?;

        let device_id = format!("ed25519:{device}");
        let keys = account.identity_keys();
        let content = json!({
            "user_id": user,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{device}"): keys.curve25519.to_base64(),
                device_id.as_str(): keys.ed25519.to_base64(),
            },
        });
        let by_device = |content: Value| {
            signed(content, user, &device_id, |message| {
                account.sign(message).to_base64()
            })
        };
        let signing_id = format!("ed25519:{}", signing.public_key().to_base64());
        let device_keys = signed(by_device(content), user, &signing_id, |message| {
            signing.sign(message).to_base64()
        });
        let one_time_keys: Map<_, _> = one_time_keys
            .into_iter()
            .map(|(id, key)| {
                (
                    format!("signed_curve25519:{id}"),
                    by_device(json!({ "key": key })),
                )
            })
            .collect();
        let keys = json!({ "device_keys": device_keys, "one_time_keys": one_time_keys });
        self.ask(Method::POST, "v3/keys/upload", Some(keys))
            .await
            .map(drop)
    }
}

/// A sync filter without rooms.
const FILTER: &str =
    "%7B%22room%22%3A%7B%22rooms%22%3A%5B%5D%7D%2C%22presence%22%3A%7B%22types%22%3A%5B%5D%7D%7D";
/// A sync filter with messages and nothing else.
const LISTENING: &str = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A100%2C%22types%22%3A%5B%22m.room.encrypted%22%5D%7D%2C%22state%22%3A%7B%22types%22%3A%5B%5D%7D%2C%22ephemeral%22%3A%7B%22types%22%3A%5B%5D%7D%2C%22account_data%22%3A%7B%22types%22%3A%5B%5D%7D%7D%2C%22presence%22%3A%7B%22types%22%3A%5B%5D%7D%7D";

fn account_keys(account: &mut Account) -> Vec<(String, String)> {
    account.generate_one_time_keys(ONE_TIME_KEYS);
    let keys = account.one_time_keys().into_iter();
    keys.map(|(id, key)| (id.to_base64(), key.to_base64()))
        .collect()
}

/// Adds a signature to an object, over its canonical form without signatures (specification, "Signing JSON"). The keys
/// of a `serde_json` object are sorted.
fn signed(mut content: Value, user: &str, key: &str, sign: impl Fn(&[u8]) -> String) -> Value {
    let Some(object) = content.as_object_mut() else {
        return content;
    };
    let mut signatures = match object.remove("signatures") {
        Some(Value::Object(signatures)) => signatures,
        _ => Map::new(),
    };
    let signature = sign(Value::Object(object.clone()).to_string().as_bytes());
    let of_user = signatures.entry(user).or_insert_with(|| json!({}));
    if let Some(of_user) = of_user.as_object_mut() {
        of_user.insert(key.to_owned(), signature.into());
    }
    object.insert("signatures".to_owned(), Value::Object(signatures));
    content
}

fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
