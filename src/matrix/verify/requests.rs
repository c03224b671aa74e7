//! Verification requests in a sync response. The answers are commands; so that the bridge reads them, the room in which
//! an admin requests verification becomes a management room.

use matrix_sdk::{
    deserialized_responses::TimelineEventKind, ruma::OwnedRoomId, sync::SyncResponse,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{account_client::AccountClient, event_fields::EventFields};

/// A verification request.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    pub(super) user: String,
    /// The id of the flow.
    pub(super) flow: String,
    pub(super) by: RequestTransport,
}

/// How the request arrived.
#[derive(Debug)]
pub(super) enum RequestTransport {
    /// As a to-device message from this device, if it names one.
    Device(Option<String>),
    /// In a room.
    Room(OwnedRoomId),
}

/// The fields of a to-device message that matter here.
#[derive(Deserialize)]
struct ToDeviceMessage {
    sender: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content: Value,
}

/// Finds the verification requests in a sync response.
pub(crate) fn requests_in(
    account: &AccountClient,
    response: &SyncResponse,
) -> Vec<IncomingRequest> {
    let to_device = response.to_device.iter().filter_map(|event| {
        let event: ToDeviceMessage = serde_json::from_str(event.as_raw().json().get()).ok()?;
        let text = |key| event.content.get(key)?.as_str().map(str::to_owned);
        let (flow, device) = (text("transaction_id")?, text("from_device"));
        (event.kind == "m.key.verification.request").then_some(IncomingRequest {
            user: event.sender,
            flow,
            by: RequestTransport::Device(device),
        })
    });
    let mut requests: Vec<IncomingRequest> = to_device.collect();
    for (id, update) in &response.rooms.joined {
        let room = account.client().get_room(id);
        let encrypted = room.is_none_or(|room| room.encryption_state().is_encrypted());
        let events = update.timeline.events.iter();
        let events = events
            .filter(|event| !encrypted || matches!(event.kind, TimelineEventKind::Decrypted(_)));
        let events = events.filter_map(EventFields::open);
        let asking = events.filter(|envelope| asks_us(account, envelope));
        requests.extend(asking.map(|envelope| IncomingRequest {
            user: envelope.sender,
            flow: envelope.event_id,
            by: RequestTransport::Room(id.clone()),
        }));
    }
    requests
}

/// Whether this event requests that the account verifies its sender.
fn asks_us(account: &AccountClient, envelope: &EventFields) -> bool {
    let text = |key| envelope.content.get(key).and_then(Value::as_str);
    envelope.event_type == "m.room.message"
        && text("msgtype") == Some("m.key.verification.request")
        && text("to") == Some(account.user().as_str())
}
