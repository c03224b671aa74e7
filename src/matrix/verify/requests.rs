//! Verification requests in a sync response. The answers are commands; so that the bridge reads them, the room in which
//! an admin requests verification becomes a management room.

use std::collections::BTreeMap;

use footbridge_core::inbox::Inbox;
use footbridge_store::Place;
use matrix_sdk::{
    deserialized_responses::TimelineEventKind,
    ruma::{
        OwnedRoomId, RoomId, TransactionId, UserId, api::client::to_device::send_event_to_device,
        serde::Raw, to_device::DeviceIdOrAllDevices,
    },
    sync::SyncResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{Matrix, MatrixError};
use crate::event_fields::EventFields;

/// A verification request.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    user: String,
    /// The id of the flow.
    flow: String,
    by: RequestTransport,
}

/// How the request arrived.
#[derive(Debug)]
enum RequestTransport {
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

impl Matrix {
    /// Finds the verification requests in a sync response.
    pub(crate) fn verification_requests(&self, response: &SyncResponse) -> Vec<IncomingRequest> {
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
            let room = self.client.get_room(id);
            let encrypted = room.is_none_or(|room| room.encryption_state().is_encrypted());
            let events = update.timeline.events.iter();
            let events = events.filter(|event| {
                !encrypted || matches!(event.kind, TimelineEventKind::Decrypted(_))
            });
            let events = events.filter_map(EventFields::open);
            let asking = events.filter(|envelope| self.asks_us(envelope));
            requests.extend(asking.map(|envelope| IncomingRequest {
                user: envelope.sender,
                flow: envelope.event_id,
                by: RequestTransport::Room(id.clone()),
            }));
        }
        requests
    }

    /// Declines a user, whose device need not be known.
    async fn decline(&self, user: &UserId, device: &str, flow: &str) {
        warn!(matrix.user = %user, "A user who is not on the list of admins wants to verify the bridge; declined");
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
            debug!(matrix.user = %user, error, "Failed to send the decline of a verification");
        }
    }

    fn asks_us(&self, envelope: &EventFields) -> bool {
        let text = |key| envelope.content.get(key).and_then(Value::as_str);
        envelope.event_type == "m.room.message"
            && text("msgtype") == Some("m.key.verification.request")
            && text("to") == Some(self.own.as_str())
    }

    /// Handles the requests, once the sync response is saved.
    pub(crate) async fn handle_requests(
        &self,
        requests: Vec<IncomingRequest>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        for IncomingRequest { user, flow, by } in requests {
            let Ok(user) = UserId::parse(user) else {
                continue;
            };
            let is_admin = self.verify.is_admin(user.as_str());
            if !is_admin && !self.verify.admits_decline(user.as_str()) {
                debug!(matrix.user = %user, "Verification request ignored: declined too often");
                continue;
            }
            match &by {
                RequestTransport::Device(Some(device)) if !is_admin => {
                    self.decline(&user, device, &flow).await;
                    continue;
                }
                RequestTransport::Device(_) | RequestTransport::Room(_) => {}
            }
            let encryption = self.client.encryption();
            match encryption.get_verification_request(&user, &flow).await {
                Some(request) if !request.we_started() && !request.is_passive() => {
                    if let RequestTransport::Room(room) = by
                        && is_admin
                    {
                        self.listen_in_room(&room, inbox).await?;
                    }
                    // The receiver lives as long as this object.
                    let _sent = self.verify.requests.send(request);
                }
                // Too old, malformed, or started by the bridge.
                _ => debug!(matrix.user = %user, "Ignored a malformed verification request"),
            }
        }
        Ok(())
    }

    /// Makes this room a management room, unless the bridge follows it already. Events from before that are recorded
    /// when the sync loop reads the room, and not by an event that anybody may have forged.
    async fn listen_in_room(&self, room: &RoomId, inbox: &Inbox) -> Result<(), MatrixError> {
        let place = Place::room(room.as_str());
        let portals = self.store.portals().await?;
        if portals
            .iter()
            .any(|portal| portal.active && portal.room == place)
        {
            return Ok(());
        }
        self.store
            .open_management_room(&place, None, self.clock.now())
            .await?;
        inbox.signals().notify_portals_changed();
        Ok(())
    }
}
