//! The bridge's accounts on Matrix, of people and its own, and which events of a room they have sent for it. A person also writes
//! with other clients: only what the bridge's device has sent is the bridge's own, and is not relayed back.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use footbridge_store::{AccountId, OwnAccount, Place, RemoteId, Store};
use matrix_sdk::deserialized_responses::TimelineEvent;
use serde_json::Value;
use tracing::error;

use super::{account_client::AccountClient, delivery_mark, event_fields::EventFields};

/// The accounts, by user id.
#[derive(Debug)]
pub(super) struct OwnAccounts {
    store: Store,
    by_user: RwLock<HashMap<String, OwnAccount>>,
}

impl OwnAccounts {
    /// Loads the accounts from the store.
    pub(super) async fn load(store: Store) -> Result<Self, footbridge_store::Error> {
        let accounts = Self {
            store,
            by_user: RwLock::default(),
        };
        accounts.reload().await?;
        Ok(accounts)
    }

    /// Reads the accounts again: one has logged in or out.
    pub(super) async fn reload(&self) -> Result<(), footbridge_store::Error> {
        let accounts = self.store.own_accounts().await?.into_iter();
        let by_user = accounts.map(|account| (account.user_id.clone(), account));
        *self.by_user.write().unwrap_or_else(PoisonError::into_inner) = by_user.collect();
        Ok(())
    }

    /// The account with this id, logged in or not.
    pub(super) fn get(&self, id: AccountId) -> Option<OwnAccount> {
        let by_user = self.by_user.read().unwrap_or_else(PoisonError::into_inner);
        by_user.values().find(|account| account.id == id).cloned()
    }

    fn of_user(&self, user: &str) -> Option<OwnAccount> {
        let by_user = self.by_user.read().unwrap_or_else(PoisonError::into_inner);
        by_user.get(user).cloned()
    }

    /// Whether a device of the bridge on another account than `own` has sent this event. `event` is decrypted where that was possible.
    pub(super) async fn have_sent(
        &self,
        own: &AccountClient,
        place: &Place,
        envelope: &EventFields,
        event: &TimelineEvent,
    ) -> bool {
        let account = self.of_user(&envelope.sender);
        let Some(account) = account.filter(|other| !own.is_own(&other.user_id)) else {
            return false;
        };
        if encrypting_device(envelope, event).as_deref() == Some(&account.device_id) {
            return true;
        }
        let Some(mark) = delivery_mark::of(envelope) else {
            return false;
        };
        // Nobody else's client writes the mark into a redaction. A message that somebody forwards may contain it.
        if envelope.event_type == "m.room.redaction" {
            return true;
        }
        let event_id = RemoteId(envelope.event_id.clone());
        let sent = self
            .store
            .was_sent_by(account.id, place, &event_id, mark)
            .await;
        sent.unwrap_or_else(|error| {
            // The batch with this event cannot be written either, so the event is read again.
            error!(error = %error, "The sender of an event could not be looked up");
            true
        })
    }
}

/// The device that has encrypted an event: as its room key proves, or, while the key is missing, as the event says.
fn encrypting_device(envelope: &EventFields, event: &TimelineEvent) -> Option<String> {
    match event.encryption_info() {
        Some(info) => info.sender_device.as_ref().map(ToString::to_string),
        None if envelope.event_type == "m.room.encrypted" => {
            let device = envelope.content.get("device_id").and_then(Value::as_str);
            device.map(ToOwned::to_owned)
        }
        None => None,
    }
}
