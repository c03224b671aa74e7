//! The state of rooms, as the homeserver reports it now: nothing here comes from the SDK's cache. Also the few actions of
//! chat commands in rooms: joining the successor of an upgraded room, and writing the state event that names a portal's
//! channel.

use std::sync::Arc;

use footbridge_store::{Place, Store, Tombstone};
use matrix_sdk::{
    Client, RoomMemberships,
    room::RoomMember,
    ruma::{
        OwnedRoomId, RoomId, RoomOrAliasId, UserId,
        api::client::{
            membership::join_room_by_id_or_alias,
            state::{get_state_event_for_key, send_state_event},
        },
        events::StateEventType,
        serde::Raw,
    },
};
use serde_json::{Value, json};

use super::{
    MatrixError,
    power_levels::{MemberRights, levels},
    request_error::RequestError,
    room_flags::RoomFlags,
};

/// The room that replaces another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The room.
    pub place: Place,
    /// The room that it names as its predecessor.
    pub predecessor: Option<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// Reads and writes the state of rooms.
#[derive(Debug)]
pub(super) struct RoomState {
    client: Client,
    store: Store,
    flags: Arc<RoomFlags>,
}

impl RoomState {
    pub(super) fn of(client: Client, store: Store, flags: Arc<RoomFlags>) -> Self {
        Self {
            client,
            store,
            flags,
        }
    }

    /// The rights of a user in a joined room, queried from the homeserver.
    pub(super) async fn member_rights(
        &self,
        room: &Place,
        user: &str,
    ) -> Result<MemberRights, MatrixError> {
        let rights = self.fetch_member_rights(room, user).await;
        let rights = rights.map_err(|error| error.into_matrix_error("read the room's state"))?;
        let ever = self.flags.was_encrypted(room).await?;
        Ok(MemberRights {
            encrypted: rights.encrypted || ever,
            ..rights
        })
    }

    /// Whether nobody but the account and this user is in a room, or invited.
    pub(super) async fn is_private_with(
        &self,
        room: &Place,
        user: &str,
    ) -> Result<bool, MatrixError> {
        let id =
            room_id(room).map_err(|error| error.into_matrix_error("read the room's members"))?;
        let (Some(room), Some(own)) = (self.client.get_room(&id), self.client.user_id()) else {
            return Ok(false);
        };
        let members = room.members(RoomMemberships::ACTIVE).await;
        let members = members.map_err(|error| {
            RequestError::from(&error).into_matrix_error("read the room's members")
        })?;
        let is_either = |member: &RoomMember| member.user_id() == own || member.user_id() == user;
        Ok(members.len() == 2 && members.iter().all(is_either))
    }

    async fn fetch_member_rights(
        &self,
        room: &Place,
        user: &str,
    ) -> Result<MemberRights, RequestError> {
        let id = room_id(room)?;
        let create = self.read(&id, StateEventType::RoomCreate, "", StateForm::Event);
        let create = create.await?.unwrap_or_default();
        let power = self.read(&id, StateEventType::RoomPowerLevels, "", StateForm::Content);
        let power = power.await?;
        let member = self.read(&id, StateEventType::RoomMember, user, StateForm::Content);
        let member = member.await?.unwrap_or_default();
        let encryption = self.read(&id, StateEventType::RoomEncryption, "", StateForm::Content);
        let encrypted = encryption.await?.is_some();
        Ok(MemberRights {
            joined: member.get("membership").and_then(Value::as_str) == Some("join"),
            encrypted,
            ..levels(&create, power.as_ref(), user)
        })
    }

    /// Joins the room that replaces another one, and returns its properties.
    pub(super) async fn join_successor(
        &self,
        tombstone: &Tombstone,
    ) -> Result<Successor, MatrixError> {
        let successor = self.fetch_successor(tombstone).await;
        let next = successor.map_err(|error| error.into_matrix_error("join the new room"))?;
        self.store.forget_refused_invite(&next.place).await?;
        Ok(next)
    }

    async fn fetch_successor(&self, tombstone: &Tombstone) -> Result<Successor, RequestError> {
        let next = RoomId::parse(&tombstone.successor)
            .map_err(|_| RequestError::Invalid("the new room has no valid id".into()))?;
        let named = <&RoomOrAliasId>::from(&*next).to_owned();
        let mut request = join_room_by_id_or_alias::v3::Request::new(named);
        let sender = <&UserId>::try_from(tombstone.sender.as_str());
        request.via = sender
            .map(|sender| vec![sender.server_name().to_owned()])
            .unwrap_or_default();
        self.client
            .send(request)
            .await
            .map_err(|error| RequestError::from(&error))?;
        let create = self.read(&next, StateEventType::RoomCreate, "", StateForm::Content);
        let create = create.await?.unwrap_or_default();
        let encryption = self.read(
            &next,
            StateEventType::RoomEncryption,
            "",
            StateForm::Content,
        );
        Ok(Successor {
            place: Place::room(next.as_str()),
            predecessor: create
                .pointer("/predecessor/room_id")
                .and_then(Value::as_str)
                .map(str::to_owned),
            encrypted: encryption.await?.is_some(),
        })
    }

    /// Writes a state event into a room that is not and never was encrypted. Returns whether that was possible: the
    /// room's homeserver can read its state.
    pub(super) async fn put_plaintext(
        &self,
        room: &Place,
        event_type: &str,
        key: &str,
        content: &Value,
    ) -> Result<bool, MatrixError> {
        if self.flags.was_encrypted(room).await? {
            return Ok(false);
        }
        match self.put_if_plaintext(room, event_type, key, content).await {
            Ok(written) => Ok(written),
            Err(RequestError::Forbidden(_) | RequestError::Invalid(_)) => Ok(false),
            Err(error) => Err(error.into_matrix_error("mark the room")),
        }
    }

    async fn put_if_plaintext(
        &self,
        room: &Place,
        event_type: &str,
        key: &str,
        content: &Value,
    ) -> Result<bool, RequestError> {
        let id = room_id(room)?;
        let encryption = self.read(&id, StateEventType::RoomEncryption, "", StateForm::Content);
        if encryption.await?.is_some() {
            return Ok(false);
        }
        let kind = StateEventType::from(event_type);
        let before = self
            .read(&id, kind.clone(), key, StateForm::Content)
            .await?;
        // Content that is there already, or is empty and has never been set, need not be written.
        if before.as_ref().unwrap_or(&json!({})) == content {
            return Ok(true);
        }
        self.write(id, kind, key, content).await.map(|()| true)
    }

    /// Writes a state event, which every member's homeserver can read.
    pub(super) async fn write(
        &self,
        room: OwnedRoomId,
        kind: StateEventType,
        key: &str,
        content: &Value,
    ) -> Result<(), RequestError> {
        let content = Raw::from_json(
            serde_json::value::to_raw_value(content)
                .map_err(|error| RequestError::Invalid(error.to_string()))?,
        );
        let request = send_state_event::v3::Request::new_raw(room, kind, key.to_owned(), content);
        let sent = self.client.send(request).await;
        sent.map(drop).map_err(|error| RequestError::from(&error))
    }

    /// A state event of a joined room; `None` if the room has none.
    pub(super) async fn read(
        &self,
        room: &RoomId,
        event_type: StateEventType,
        key: &str,
        form: StateForm,
    ) -> Result<Option<Value>, RequestError> {
        let mut request =
            get_state_event_for_key::v3::Request::new(room.to_owned(), event_type, key.to_owned());
        if form == StateForm::Event {
            request.format = get_state_event_for_key::v3::StateEventFormat::Event;
        }
        match self.client.send(request).await {
            Ok(answer) => {
                let event = serde_json::from_str(answer.event_or_content.get());
                Ok(Some(event.unwrap_or_default()))
            }
            Err(error) => match RequestError::from(&error) {
                RequestError::NotFound(_) => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// How much of a state event is requested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StateForm {
    Content,
    Event,
}

pub(super) fn room_id(room: &Place) -> Result<OwnedRoomId, RequestError> {
    RoomId::parse(room.address())
        .map_err(|_| RequestError::Invalid("this is not a room id".to_owned()))
}
