//! Opening a room for a step: the account has to be in it, and the store has to be the newest of its device.

use std::sync::Arc;

use footbridge_core::outlet::{Outcome, SendError};
use footbridge_store::Place;
use matrix_sdk::{Room, RoomState};

use super::{
    MatrixError, account_client::AccountClient, lease::Lease, request_error::retry,
    unjoined_rooms::UnjoinedRooms,
};

/// Opens the rooms of one account for sends.
#[derive(Debug)]
pub(super) struct RoomAccess {
    unjoined_rooms: Arc<UnjoinedRooms>,
    lease: Arc<Lease>,
    /// The account of a person, which the bridge takes into no room.
    person: Option<AccountClient>,
}

impl RoomAccess {
    pub(super) fn of(unjoined_rooms: Arc<UnjoinedRooms>, lease: Arc<Lease>) -> Self {
        Self {
            unjoined_rooms,
            lease,
            person: None,
        }
    }

    /// The same for the account of a person.
    pub(super) fn of_person(self, account: AccountClient) -> Self {
        Self {
            person: Some(account),
            ..self
        }
    }

    /// The room, if the account may write into it.
    ///
    /// # Errors
    /// [`SendError::Closed`] where the account is not in the room. Nothing is sent before it is certain that this store
    /// is the newest of its device.
    pub(super) async fn open(&self, to: &Place) -> Result<Room, SendError> {
        let room = match &self.person {
            None => self.unjoined_rooms.joined_room(to).await?,
            Some(account) => {
                let room = account.room(to);
                let joined = room.filter(|room| room.state() == RoomState::Joined);
                joined.ok_or_else(|| SendError::Closed {
                    reason: "the person's account is not in the room".to_owned(),
                })?
            }
        };
        self.lease.hold().await.map_err(|error| match error {
            MatrixError::SignedOut(reason) => SendError::SignedOut { reason },
            error => retry(None, Outcome::NotDone, &format!("{error:#}")),
        })?;
        Ok(room)
    }
}
