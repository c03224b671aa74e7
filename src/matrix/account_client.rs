//! The account of a device as it runs: the SDK's client and the account's user id, with look-ups in what the SDK
//! already knows. No request is made here.

use footbridge_core::names;
use footbridge_store::{AccountId, Place};
use matrix_sdk::{
    Client, Room,
    ruma::{OwnedUserId, RoomId, UserId},
};

use super::{MatrixError, event_fields::DisplayNames};

/// A client that is logged in. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct AccountClient {
    id: AccountId,
    client: Client,
    user: OwnedUserId,
}

impl AccountClient {
    /// For a client whose session was restored.
    ///
    /// # Errors
    /// [`MatrixError::NoAccount`] where it has no session.
    pub(super) fn of(id: AccountId, client: Client) -> Result<Self, MatrixError> {
        let user = client.user_id().ok_or(MatrixError::NoAccount)?.to_owned();
        Ok(Self { id, client, user })
    }

    /// The account.
    pub(super) fn id(&self) -> AccountId {
        self.id
    }

    /// The SDK's client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The name of the cursor that says how far the account has synced.
    pub(super) fn sync_cursor(&self) -> String {
        sync_cursor_name(self.id)
    }

    /// The account's user id.
    pub(super) fn user(&self) -> &UserId {
        &self.user
    }

    /// Whether this is the account's user id.
    pub(super) fn is_own(&self, user: &str) -> bool {
        user == self.user.as_str()
    }

    /// The room, if the SDK knows it.
    pub(super) fn room(&self, place: &Place) -> Option<Room> {
        let id = <&RoomId>::try_from(place.address()).ok()?;
        self.client.get_room(id)
    }

    /// The display name of a user in a room, made harmless.
    pub(super) async fn display_name(&self, place: &Place, user: &str) -> String {
        let name = match self.room(place) {
            Some(room) => DisplayNames::default().of(&room, user).await,
            None => String::new(),
        };
        names::display_name(&name, user)
    }
}

/// The name of the cursor that says how far an account has synced.
pub(super) fn sync_cursor_name(account: AccountId) -> String {
    format!("sync/{account}")
}
