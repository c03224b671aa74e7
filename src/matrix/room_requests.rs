//! The requests that send an event to a room or redact one.

use footbridge_core::outlet::{Done, SendError};
use footbridge_store::RemoteId;
use matrix_sdk::{
    Room,
    room::futures::SendMessageLikeEventResult,
    ruma::{
        EventId, OwnedTransactionId, TransactionId,
        api::{
            Metadata, OutgoingRequest, auth_scheme::AuthScheme, client::redact::redact_event,
            error::IntoHttpError, path_builder::PathBuilder,
        },
        exports::{
            bytes::BufMut,
            http::{self, Method},
        },
    },
};
use serde_json::Value;

use super::{crypto_store, delivery_mark, request_error::RequestError};

/// Every unencrypted event and every event that the SDK encrypts is sent here; the caller has called
/// `EncryptionGuard::check`.
pub(super) async fn put(
    room: &Room,
    key: &TransactionId,
    event_type: &str,
    content: Value,
) -> matrix_sdk::Result<SendMessageLikeEventResult> {
    let sending = room.send_raw(event_type, content);
    crypto_store::sharing(sending.with_transaction_id(key).into_future()).await
}

/// A redaction with its transaction id in the content, by which it is recognised (see `delivery_mark`): the specification allows
/// further fields there, and ruma's request has none.
#[derive(Clone, Debug)]
struct MarkedRedaction(redact_event::v3::Request);

impl Metadata for MarkedRedaction {
    const METHOD: Method = redact_event::v3::Request::METHOD;
    const RATE_LIMITED: bool = redact_event::v3::Request::RATE_LIMITED;
    type Authentication = <redact_event::v3::Request as Metadata>::Authentication;
    type PathBuilder = <redact_event::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = redact_event::v3::Request::PATH_BUILDER;
}

impl OutgoingRequest for MarkedRedaction {
    type EndpointError = <redact_event::v3::Request as OutgoingRequest>::EndpointError;
    type IncomingResponse = redact_event::v3::Response;

    fn try_into_http_request<T: Default + BufMut + AsRef<[u8]>>(
        self,
        base_url: &str,
        token: <Self::Authentication as AuthScheme>::Input<'_>,
        versions: <Self::PathBuilder as PathBuilder>::Input<'_>,
    ) -> Result<http::Request<T>, IntoHttpError> {
        let key = self.0.txn_id.to_string();
        let request = self
            .0
            .try_into_http_request::<Vec<u8>>(base_url, token, versions)?;
        let (parts, body) = request.into_parts();
        let mut content = serde_json::from_slice(&body)?;
        delivery_mark::set(&mut content, &key);
        let mut marked = T::default();
        marked.put_slice(&serde_json::to_vec(&content)?);
        Ok(http::Request::from_parts(parts, marked))
    }
}

/// Redacts an event. One that does not exist, or exists no longer, counts as redacted.
pub(super) async fn redact(
    room: &Room,
    target: &RemoteId,
    key: OwnedTransactionId,
) -> Result<Done, SendError> {
    let Ok(event) = <&EventId>::try_from(target.as_str()) else {
        return Err(SendError::Refused {
            reason: "the message to delete has no valid event id".into(),
        });
    };
    let room_id = room.room_id().to_owned();
    let request = redact_event::v3::Request::new(room_id, event.to_owned(), key);
    match room.client().send(MarkedRedaction(request)).await {
        Ok(_) => Ok(Done::Deleted(target.clone())),
        Err(error) => match RequestError::from(&error) {
            RequestError::NotFound(_) => Ok(Done::Deleted(target.clone())),
            // The room is not closed to the bridge; only this event, of another user, cannot be redacted.
            RequestError::Forbidden(_) => Err(SendError::Refused {
                reason:
                    "the bridge has no permission to delete other people's messages in the room"
                        .into(),
            }),
            error => Err(error.into_send_error()),
        },
    }
}
