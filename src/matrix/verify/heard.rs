//! What a sync brings about verifications: requests, and answers given in rooms that have no portal (direct rooms).
//! Commands in the rooms of portals go the way of all commands.

use std::collections::BTreeMap;

use matrix_sdk::{
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::{
        OwnedRoomId, RoomId, TransactionId, UserId, api::client::to_device::send_event_to_device,
        serde::Raw, to_device::DeviceIdOrAllDevices,
    },
    sync::SyncResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{Answer, Matrix};
use crate::{
    matrix::{
        envelope::Envelope,
        trust::{Origin, Pin, Verdict, verdict},
    },
    message::Command,
};

/// What is worth a second look.
#[derive(Debug)]
pub(in crate::matrix) struct Heard {
    /// Requests: who, on which device if it was from device to device, and the name of the flow.
    requests: Vec<(String, Option<String>, String)>,
    /// Commands in rooms without a portal: where, who, what.
    commands: Vec<(OwnedRoomId, String, Answer)>,
}

/// A message from device to device, as far as it matters here.
#[derive(Deserialize)]
struct ToDevice {
    sender: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content: Value,
}

impl Matrix {
    /// Picks out of a sync what it says about verifications. `followed` tells which rooms have a portal.
    pub(in crate::matrix) fn hear(
        &self,
        response: &SyncResponse,
        followed: impl Fn(&RoomId) -> bool,
    ) -> Heard {
        let to_device = response.to_device.iter().filter_map(|event| {
            let event: ToDevice = serde_json::from_str(event.as_raw().json().get()).ok()?;
            let text = |key| event.content.get(key)?.as_str().map(str::to_owned);
            let (flow, device) = (text("transaction_id")?, text("from_device"));
            (event.kind == "m.key.verification.request").then_some((event.sender, device, flow))
        });
        let mut heard = Heard {
            requests: to_device.collect(),
            commands: Vec::new(),
        };
        for (id, update) in &response.rooms.joined {
            for event in &update.timeline.events {
                let Some(envelope) = Envelope::open(event) else {
                    continue;
                };
                if self.asks_us(&envelope) {
                    heard
                        .requests
                        .push((envelope.sender, None, envelope.event_id));
                } else if !followed(id)
                    && let Some(said) = self.said(event, &envelope)
                {
                    heard.commands.push((id.clone(), envelope.sender, said));
                }
            }
        }
        heard
    }

    /// Says no to somebody whose device we need not even know.
    async fn decline(&self, user: &UserId, device: &str, flow: &str) {
        warn!(matrix.user = %user, "Somebody who is not on the list of admins wants to verify the bridge; declined");
        let content = json!({
            "transaction_id": flow,
            "code": "m.user",
            "reason": "Only the operators of this bridge can verify it",
        });
        let Ok(content) = Raw::new(&content) else {
            return;
        };
        let to = BTreeMap::from([(
            DeviceIdOrAllDevices::DeviceId(device.into()),
            content.cast_unchecked(),
        )]);
        let request = send_event_to_device::v3::Request::new_raw(
            "m.key.verification.cancel".into(),
            TransactionId::new(),
            BTreeMap::from([(user.to_owned(), to)]),
        );
        if let Err(error) = self.client.send(request).await {
            let error = error.to_string();
            debug!(matrix.user = %user, error, "Nobody was told that it was declined");
        }
    }

    fn asks_us(&self, envelope: &Envelope) -> bool {
        let text = |key| envelope.content.get(key).and_then(Value::as_str);
        envelope.event_type == "m.room.message"
            && text("msgtype") == Some("m.key.verification.request")
            && text("to") == Some(self.own.as_str())
    }

    /// The answer of an admin in a direct room: encrypted, and from a device that is signed.
    fn said(&self, event: &TimelineEvent, envelope: &Envelope) -> Option<Answer> {
        let TimelineEventKind::Decrypted(decrypted) = &event.kind else {
            return None;
        };
        // Which identity it is, is what the verification is to show.
        let state = &decrypted.encryption_info.verification_state;
        let signed = verdict(self.trust, Origin::Device(state, &Pin::Same));
        if signed != Verdict::Relay || !self.verify.is_admin(&envelope.sender) {
            return None;
        }
        let is_text = envelope.event_type == "m.room.message"
            && envelope.content.get("msgtype").and_then(Value::as_str) == Some("m.text");
        let body = envelope.content.get("body").and_then(Value::as_str)?;
        is_text
            .then(|| answer_in(Command::words_of(body)?))
            .flatten()
    }

    /// Acts on it, once what came with it is written down.
    pub(in crate::matrix) async fn act_on(&self, heard: Heard) {
        for (user, device, flow) in heard.requests {
            let Ok(user) = <&UserId>::try_from(user.as_str()) else {
                continue;
            };
            if let (false, Some(device)) = (self.verify.is_admin(user.as_str()), device) {
                self.decline(user, &device, &flow).await;
                continue;
            }
            let encryption = self.client.encryption();
            match encryption.get_verification_request(user, &flow).await {
                Some(request) if !request.we_started() && !request.is_passive() => {
                    // The receiver lives as long as we do.
                    let _sent = self.verify.requests.send(request);
                }
                // Too old, malformed, or of our own making.
                _ => debug!(matrix.user = %user, "A request for a verification is none"),
            }
        }
        for (room, user, said) in heard.commands {
            let text = self.verify.obey(&user, said);
            self.say_there(&room, &text).await;
        }
    }
}

/// `verify`, `verify yes`, `verify no`.
fn answer_in(words: &str) -> Option<Answer> {
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["verify"] => Some(Answer::Begin),
        ["verify", "yes"] => Some(Answer::Same),
        ["verify", "no"] => Some(Answer::Different),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_words_answer() {
        for (words, answer) in [
            ("verify", Some(Answer::Begin)),
            ("Verify  YES", Some(Answer::Same)),
            ("verify no", Some(Answer::Different)),
            ("verify maybe", None),
            ("verify yes please", None),
            ("yes", None),
        ] {
            assert_eq!(answer_in(words), answer, "{words}");
        }
    }
}
