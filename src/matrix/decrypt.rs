//! Decryption of events by the bridge itself. The SDK drops the ciphertext of what it decrypts, and with it the ratchet
//! index; so the events of rooms with a portal arrive encrypted (see `crypto_store`), and are decrypted here.

use std::{borrow::Cow, fmt::Write as _, sync::Arc};

use footbridge_store::{DecryptedWith, Millis, Place, RemoteId, SeenEvent, UndecryptableEvent};
use matrix_sdk::{
    Client, Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::serde::Raw,
};
use matrix_sdk_crypto::{olm::SenderData, store::CryptoStore as _};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::warn;
use vodozemac::megolm::MegolmMessage;

use super::{crypto_store::BufferedCryptoStore, relation, trust_policy::PinStatus};

/// An event, decrypted if that is possible.
pub(super) struct DecryptionResult<'a> {
    /// The event: decrypted, or with the reason why it is not.
    pub event: Cow<'a, TimelineEvent>,
    /// The room key and ratchet index of its encryption, also where the event is still encrypted.
    pub opened: Option<DecryptedWith>,
    /// The public master key of the identity that had signed the sender's device when its room key arrived. It never
    /// changes, whatever identity the homeserver shows later.
    pub signer: Option<String>,
    /// How that identity compares with the sender's pinned one; not looked up for an unencrypted event.
    pub pin: PinStatus,
}

impl<'a> DecryptionResult<'a> {
    /// The room key and ratchet index, if the event was decrypted and counts as read.
    pub(super) fn opened_with(&self, is_read: bool) -> Option<DecryptedWith> {
        let open = matches!(self.event.kind, TimelineEventKind::Decrypted(_));
        self.opened.clone().filter(|_| open && is_read)
    }

    /// The event as it arrived in the room, with the digest of its ciphertext.
    pub(super) fn shown(&self, place: &Place, came: &TimelineEvent) -> SeenEvent {
        let encrypted = EncryptedFields::of(came.raw().json().get());
        SeenEvent {
            place: place.clone(),
            event: RemoteId(came.event_id().map(|id| id.to_string()).unwrap_or_default()),
            ciphertext: encrypted.map(|encrypted| encrypted.content.digest()),
            decrypted_with: self.opened_with(true),
        }
    }

    /// An event that was not encrypted.
    fn clear(event: &'a TimelineEvent) -> Self {
        Self {
            event: Cow::Borrowed(event),
            opened: None,
            signer: None,
            pin: PinStatus::None,
        }
    }
}

/// The fields of an encrypted event that name its encryption.
#[derive(Deserialize)]
struct EncryptedFields {
    #[serde(rename = "type")]
    event_type: String,
    sender: String,
    origin_server_ts: i64,
    content: Ciphertext,
}

#[derive(Deserialize)]
struct Ciphertext {
    session_id: String,
    ciphertext: String,
}

impl EncryptedFields {
    /// `None` for an event that is not encrypted with a room key, or whose shape is unknown.
    fn of(json: &str) -> Option<Self> {
        let fields: Self = serde_json::from_str(json).ok()?;
        (fields.event_type == "m.room.encrypted").then_some(fields)
    }

    /// The room key and ratchet index of the ciphertext. Nobody can change them without breaking the ciphertext's
    /// signature.
    fn opened(&self) -> Option<DecryptedWith> {
        let message = MegolmMessage::from_base64(&self.content.ciphertext).ok()?;
        Some(DecryptedWith {
            session: self.content.session_id.clone(),
            ratchet_index: message.message_index(),
            sent_at: Millis(self.origin_server_ts),
        })
    }
}

impl Ciphertext {
    /// A digest for which nobody can find another ciphertext. Several Base64 texts decode to the same bytes; all of
    /// them have the same digest.
    fn digest(&self) -> String {
        let message = MegolmMessage::from_base64(&self.ciphertext);
        let canonical =
            message.map_or_else(|_| self.ciphertext.clone(), |message| message.to_base64());
        let mut text = String::new();
        for byte in Sha256::digest(canonical.as_bytes()) {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").ok();
        }
        text
    }
}

/// Decrypts with the keys of one device.
#[derive(Debug)]
pub(super) struct Decryptor {
    client: Client,
    /// The SDK's crypto store, for the identity under which a room key arrived.
    keys: Arc<BufferedCryptoStore>,
}

impl Decryptor {
    pub(super) fn of(client: Client, keys: Arc<BufferedCryptoStore>) -> Self {
        Self { client, keys }
    }

    /// Events from before a link, as they arrived. Only what identifies them again is kept.
    pub(super) async fn shown_events(
        &self,
        room: Option<&Room>,
        place: &Place,
        events: &[TimelineEvent],
    ) -> Vec<SeenEvent> {
        let mut all = Vec::new();
        for event in events {
            let unsealed = match room {
                Some(room) => self.decrypt(room, event).await,
                None => DecryptionResult::clear(event),
            };
            all.push(unsealed.shown(place, event));
        }
        all
    }

    /// Decrypts an event that arrived encrypted.
    pub(super) async fn decrypt<'a>(
        &self,
        room: &Room,
        event: &'a TimelineEvent,
    ) -> DecryptionResult<'a> {
        let encrypted = match &event.kind {
            TimelineEventKind::Decrypted(_) => None,
            TimelineEventKind::UnableToDecrypt { .. } | TimelineEventKind::PlainText { .. } => {
                EncryptedFields::of(event.raw().json().get())
            }
        };
        let Some(encrypted) = encrypted else {
            let unencrypted = DecryptionResult::clear(event);
            let TimelineEventKind::Decrypted(open) = &event.kind else {
                return unencrypted;
            };
            let sender = open.encryption_info.sender.as_str();
            let session = open.encryption_info.session_id().unwrap_or_default();
            return self.signed(room, session, sender, unencrypted).await;
        };
        match room
            .decrypt_event(event.raw().cast_ref_unchecked(), None)
            .await
        {
            Ok(read) => {
                let read = DecryptionResult {
                    opened: encrypted.opened(),
                    event: Cow::Owned(relation::with_outer_relation(read, event)),
                    ..DecryptionResult::clear(event)
                };
                let session = &encrypted.content.session_id;
                self.signed(room, session, &encrypted.sender, read).await
            }
            Err(error) => {
                warn!(matrix.room = %room.room_id(), error = %error, "Failed to decrypt an event");
                DecryptionResult::clear(event)
            }
        }
    }

    /// Adds to an event the identity under which its room key arrived. Looked up after the SDK has decrypted the event,
    /// which may save a signature that has become known meanwhile.
    async fn signed<'a>(
        &self,
        room: &Room,
        session: &str,
        sender: &str,
        mut event: DecryptionResult<'a>,
    ) -> DecryptionResult<'a> {
        let key = self
            .keys
            .get_inbound_group_session(room.room_id(), session)
            .await;
        event.pin = match key {
            Ok(key) => {
                event.signer = key.and_then(|key| signer_of(&key.sender_data, sender));
                let pins = self.keys.pins();
                pins.pin_status(sender, event.signer.as_deref())
            }
            Err(error) => {
                let error = error.to_string();
                warn!(matrix.room = %room.room_id(), error, "Failed to read the identity of a room key; message held");
                PinStatus::Changed
            }
        };
        event
    }

    /// Whether this session id is of another room's key: then the ciphertext was copied here from that room.
    pub(super) async fn is_of_another_room(&self, room: &Room, session: &str) -> bool {
        for other in self.client.rooms() {
            let id = other.room_id();
            if id == room.room_id() {
                continue;
            }
            let key = self.keys.get_inbound_group_session(id, session).await;
            if matches!(key, Ok(Some(_))) {
                return true;
            }
        }
        false
    }
}

/// An undecryptable entry, as the event that arrived.
pub(super) fn as_received(waiting: &UndecryptableEvent) -> Option<TimelineEvent> {
    let raw = String::from_utf8(waiting.raw.clone()).ok()?;
    let raw = Raw::from_json_string(raw).ok()?;
    Some(TimelineEvent::from_plaintext(raw))
}

/// The public master key of the identity that had signed this sender's device when the room key arrived.
fn signer_of(data: &SenderData, sender: &str) -> Option<String> {
    match data {
        SenderData::VerificationViolation(known)
        | SenderData::SenderUnverified(known)
        | SenderData::SenderVerified(known) => {
            (known.user_id == sender).then(|| known.master_key.to_base64())
        }
        SenderData::UnknownDevice { .. } | SenderData::DeviceInfo { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::{
        Account,
        olm::InboundGroupSession,
        types::{EventEncryptionAlgorithm, events::room::encrypted::EncryptedEvent},
    };
    use ruma::{device_id, room_id, user_id};
    use serde_json::{Value, json};
    use vodozemac::megolm::{GroupSession, SessionConfig};

    use super::*;

    /// An encrypted text message with this key, for this room.
    fn event(session: &mut GroupSession, room: &str) -> Value {
        let payload = json!({
            "type": "m.room.message",
            "room_id": room,
            "content": {"msgtype": "m.text", "body": "hello"},
        });
        json!({
            "type": "m.room.encrypted",
            "event_id": "$1",
            "sender": "@ann:x",
            "origin_server_ts": 5,
            "content": {
                "algorithm": "m.megolm.v1.aes-sha2",
                "sender_key": "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw",
                "device_id": "ANN",
                "session_id": session.session_id(),
                "ciphertext": session.encrypt(payload.to_string()).to_base64(),
            },
        })
    }

    #[test]
    fn p06_the_place_in_the_ratchet_is_read_from_the_ciphertext() {
        let mut session = GroupSession::new(SessionConfig::version_1());
        for index in 0..3 {
            let json = event(&mut session, "!room:x").to_string();
            let opened = EncryptedFields::of(&json).unwrap().opened().unwrap();
            assert_eq!(
                (
                    opened.session.as_str(),
                    opened.ratchet_index,
                    opened.sent_at
                ),
                (session.session_id().as_str(), index, Millis(5))
            );
        }
        let plaintext = json!({"type": "m.room.message", "sender": "@ann:x", "origin_server_ts": 5, "content": {}});
        assert!(EncryptedFields::of(&plaintext.to_string()).is_none());
        let mut nonsense = event(&mut session, "!room:x");
        nonsense["content"]["ciphertext"] = "nonsense".into();
        assert!(
            EncryptedFields::of(&nonsense.to_string())
                .unwrap()
                .opened()
                .is_none()
        );
    }

    #[test]
    fn p02_who_signed_a_message_is_read_from_its_room_key_and_counts_for_the_sender_only() {
        let ann = Account::with_device_id(user_id!("@ann:x"), device_id!("ANN"));
        let (user, device, key) = (ann.user_id(), ann.device_id(), ann.identity_keys().ed25519);
        for data in [
            SenderData::sender_verification_violation(user, device, key),
            SenderData::sender_unverified(user, device, key),
            SenderData::sender_verified(user, device, key),
        ] {
            assert_eq!(signer_of(&data, "@ann:x"), Some(key.to_base64()));
            assert_eq!(signer_of(&data, "@eve:x"), None);
        }
        let unsigned = SenderData::device_info(ann.device_keys());
        for data in [SenderData::unknown(), unsigned] {
            assert_eq!(signer_of(&data, "@ann:x"), None);
        }
    }

    #[tokio::test]
    async fn p07_what_was_written_for_another_room_does_not_open() {
        let ann = Account::with_device_id(user_id!("@ann:x"), device_id!("ANN"));
        let mut session = GroupSession::new(SessionConfig::version_1());
        let keys = ann.identity_keys();
        let key = InboundGroupSession::new(
            keys.curve25519,
            keys.ed25519,
            room_id!("!room:x"),
            &session.session_key(),
            SenderData::unknown(),
            None,
            EventEncryptionAlgorithm::MegolmV1AesSha2,
            None,
            false,
        )
        .unwrap();
        for (room, opens) in [("!room:x", true), ("!other:x", false)] {
            let event = event(&mut session, room).to_string();
            let event: EncryptedEvent = serde_json::from_str(&event).unwrap();
            let read = key.decrypt(&event).await;
            assert_eq!(read.is_ok(), opens, "{room}: {read:?}");
        }
    }

    #[test]
    fn p06_a_ciphertext_has_one_name_however_its_base64_is_written() {
        let mut session = GroupSession::new(SessionConfig::version_1());
        let mut names = Vec::new();
        for text in ["a", "bcde", "another one"] {
            let plain = session.encrypt(text).to_base64();
            let padded = format!("{plain}{}", "=".repeat((4 - plain.len() % 4) % 4));
            let name = |ciphertext: &str| {
                let ciphertext = Ciphertext {
                    session_id: session.session_id(),
                    ciphertext: ciphertext.to_owned(),
                };
                ciphertext.digest()
            };
            assert_eq!(name(&plain), name(&padded));
            assert!(!names.contains(&name(&plain)));
            names.push(name(&plain));
        }
    }
}
