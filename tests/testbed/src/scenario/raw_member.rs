//! A member of a room without an SDK, who can send what no client would.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::TestClient;
use serde_json::{Value, json};

use super::{PASSWORD, unique};
use crate::synapse::{Registered, Synapse};

/// A member of one room.
pub struct RawMember {
    user: Registered,
    rooms: String,
    http: reqwest::Client,
    events: AtomicU32,
}

impl RawMember {
    /// Joins a room by the invite of this client.
    pub async fn enter(synapse: &Synapse, host: &TestClient, room: &str) -> anyhow::Result<Self> {
        let name = format!("stranger{}", unique());
        let user = synapse.register_session(&name, PASSWORD).await?;
        host.invite(room, &user.user_id).await?;
        let member = Self {
            user,
            rooms: format!("{}/_matrix/client/v3/rooms/{room}", synapse.url()),
            http: reqwest::Client::new(),
            events: AtomicU32::new(0),
        };
        let join = member.http.post(format!("{}/join", member.rooms));
        member.ask(join.json(&json!({}))).await?;
        Ok(member)
    }

    /// Sends an encrypted message whose room key nobody has.
    pub async fn send_undecryptable(&self) -> anyhow::Result<()> {
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        let path = format!("{}/send/m.room.encrypted/{number}", self.rooms);
        let event = undecryptable_event(&format!("a session that nobody has {number}"));
        self.ask(self.http.put(path).json(&event)).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> anyhow::Result<()> {
        let request = request.bearer_auth(&self.user.access_token);
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

/// The content of an encrypted event whose room key nobody has.
#[must_use]
pub fn undecryptable_event(session: &str) -> Value {
    json!({
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": well_formed(),
        "device_id": "NOBODY",
        "sender_key": "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw",
        "session_id": session,
    })
}

/// A well-formed Megolm message: version 3, index 0, a block of ciphertext, MAC and signature.
fn well_formed() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![3, 0x08, 0, 0x12, 16];
    bytes.extend([7_u8; 16 + 8 + 64]);
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    (0..bytes.len() * 8)
        .step_by(6)
        .map(|at| {
            let digit = (at..at + 6).fold(0, |digit, at| digit << 1 | usize::from(bit(at)));
            char::from(ALPHABET.get(digit).copied().unwrap_or(b'A'))
        })
        .collect()
}
