//! Carries out verifications: asks for them, accepts requests of admins, declines others, and runs what is open.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use footbridge_core::{clock::Clock, inbox::Inbox};
use footbridge_store::{Place, Store};
use futures_util::{StreamExt, stream::FuturesUnordered};
use matrix_sdk::{
    encryption::verification::VerificationRequest,
    ruma::{
        RoomId, TransactionId, UserId, api::client::to_device::send_event_to_device,
        events::key::verification::VerificationMethod, serde::Raw, to_device::DeviceIdOrAllDevices,
    },
};
use serde_json::json;
use tracing::{debug, info, warn};

use super::{
    VerificationStage, Verifications,
    flow::VerificationFlow,
    requests::{IncomingRequest, RequestTransport},
};
use crate::{
    MatrixError, account_client::AccountClient, crypto_store, event_sender::EventSender,
    identities::Identities, request_error::RequestError,
};

/// How long cancelling the verifications may delay the end of the process.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Verifies one device.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub account: AccountClient,
    pub store: Store,
    pub clock: Clock,
    pub identities: Arc<Identities>,
    pub events: Arc<EventSender>,
    pub verifications: Verifications,
}

impl Verifier {
    /// Requests that a user on the admin list verifies the bridge. It proceeds while [`Verifier::run`] runs.
    ///
    /// # Errors
    /// The user is not on the list, has no cross-signing identity, or the homeserver does not answer.
    pub(crate) async fn ask(&self, user: &UserId) -> Result<(), MatrixError> {
        if !self.verifications.is_admin(user.as_str()) {
            return Err(MatrixError::Identity(format!(
                "{user} is not on the list `[admin] users`"
            )));
        }
        let failed = |error: &matrix_sdk::Error| {
            RequestError::from(error).into_matrix_error("ask to verify")
        };
        let identity = self
            .account
            .client()
            .encryption()
            .request_user_identity(user)
            .await;
        let identity = identity.map_err(|error| failed(&error))?.ok_or_else(|| {
            MatrixError::Identity(format!("{user} has no cross-signing identity"))
        })?;
        let request = identity
            .request_verification_with_methods(vec![VerificationMethod::SasV1])
            .await
            .map_err(|error| {
                MatrixError::Unavailable(anyhow::anyhow!("cannot ask to verify: {error}"))
            })?;
        // The receiver lives as long as this object.
        let _sent = self.verifications.requests.send(request);
        Ok(())
    }

    /// Runs verifications. Does not return by itself; after it is dropped, `cancel_all` cancels the open
    /// ones.
    pub(crate) async fn run(&self) {
        // The SDK ignores requests of devices that it does not know.
        for admin in self.verifications.admins.iter() {
            let queried = self
                .account
                .client()
                .encryption()
                .request_user_identity(admin)
                .await;
            if let Err(error) = queried {
                let error = error.to_string();
                debug!(matrix.user = %admin, error, "Failed to query the devices of an admin");
            }
        }
        let mut waiting = self.verifications.waiting.lock().await;
        let mut flows = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(request) = waiting.recv() => {
                    // Messages that the SDK sends in a room by itself are encrypted as well.
                    flows.push(Box::pin(crypto_store::sharing(VerificationFlow::of(self, request).run())));
                }
                Some(()) = flows.next(), if !flows.is_empty() => {}
            }
        }
    }

    /// Cancels the verifications that are not finished, and tells the other sides.
    pub(crate) async fn cancel_all(&self) {
        let open: Vec<(String, String)> = {
            let open = self.verifications.lock();
            let going = open.iter().filter(|(_, open)| !open.stage.is_over());
            going
                .map(|(user, open)| (user.clone(), open.flow.clone()))
                .collect()
        };
        for (user, flow) in open {
            let Ok(user) = UserId::parse(user) else {
                continue;
            };
            let encryption = self.account.client().encryption();
            if let Some(request) = encryption.get_verification_request(&user, &flow).await {
                let cancelled = tokio::time::timeout(CANCEL_TIMEOUT, request.cancel()).await;
                if !matches!(cancelled, Ok(Ok(()))) {
                    warn!(matrix.user = %user, "Failed to notify the other side that a verification was cancelled");
                }
            }
            let why = "the bridge stopped".to_owned();
            self.verifications
                .set(&user, &flow, VerificationStage::Cancelled(why));
        }
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
            let is_admin = self.verifications.is_admin(user.as_str());
            if !is_admin && !self.verifications.admits_decline(user.as_str()) {
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
            let encryption = self.account.client().encryption();
            match encryption.get_verification_request(&user, &flow).await {
                Some(request) if !request.we_started() && !request.is_passive() => {
                    if let RequestTransport::Room(room) = by
                        && is_admin
                    {
                        self.listen_in_room(&room, inbox).await?;
                    }
                    // The receiver lives as long as this object.
                    let _sent = self.verifications.requests.send(request);
                }
                // Too old, malformed, or started by the bridge.
                _ => debug!(matrix.user = %user, "Ignored a malformed verification request"),
            }
        }
        Ok(())
    }

    /// Sends a notice to the user of a verification: in its room, or in the direct room with them.
    pub(super) async fn notify(&self, request: &VerificationRequest, text: &str) {
        let user = request.other_user_id();
        let room = match request.room_id() {
            Some(room) => self.account.client().get_room(room),
            None if user == self.account.user() => None,
            None => self.account.client().get_dm_room(user),
        };
        let Some(room) = room else {
            info!(matrix.user = %user, "There is no direct room for this notice: {text}");
            return;
        };
        self.send_notice_in(room.room_id(), text).await;
    }

    async fn send_notice_in(&self, room: &RoomId, text: &str) {
        let Some(room) = self.account.client().get_room(room) else {
            return;
        };
        let place = Place::room(room.room_id().as_str());
        let key = format!("verify-{:016x}", rand::random::<u64>());
        let content = json!({ "msgtype": "m.notice", "body": text });
        if let Err(error) = self
            .events
            .send_message(&room, &place, key.into(), content)
            .await
        {
            let error = error.to_string();
            warn!(matrix.room = %room.room_id(), error, "Failed to send a notice about a verification");
        }
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
        if let Err(error) = self.account.client().send(request).await {
            let error = error.to_string();
            debug!(matrix.user = %user, error, "Failed to send the decline of a verification");
        }
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
