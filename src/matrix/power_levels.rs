//! Power levels in a room, as the homeserver reports them now: nothing here comes from the SDK's cache. Also the few
//! actions of chat commands in rooms: joining the successor of an upgraded room, and writing the state event that names
//! a portal's channel.

use footbridge_store::{Place, Tombstone};
use matrix_sdk::ruma::{
    OwnedRoomId, RoomId, RoomOrAliasId, UserId,
    api::client::{
        membership::join_room_by_id_or_alias,
        state::{get_state_event_for_key, send_state_event},
    },
    events::StateEventType,
    serde::Raw,
};
use serde_json::{Value, json};

use super::{Boxed, Matrix, MatrixError, request_error::RequestError};

/// The level of a creator in a room version that gives creators unlimited power.
const CREATOR_LEVEL: i64 = i64::MAX;
/// The first room version that gives creators unlimited power.
const FIRST_CREATOR_VERSION: u32 = 12;

/// The membership and power of a user in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRights {
    /// Whether they have joined the room.
    pub joined: bool,
    /// Their power level.
    pub level: i64,
    /// The level that is required to change power levels.
    pub to_change_power: i64,
    /// The level that is required for a state event without a level of its own.
    pub state_default: i64,
    /// Whether the room is or ever was encrypted.
    pub encrypted: bool,
}

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

impl Matrix {
    /// The user id of the bridge's account.
    #[must_use]
    pub fn user(&self) -> &str {
        self.own.as_str()
    }

    /// The rights of a user in a joined room, queried from the homeserver.
    pub fn member_rights<'a>(
        &'a self,
        room: &'a Place,
        user: &'a str,
    ) -> Boxed<'a, Result<MemberRights, MatrixError>> {
        Box::pin(async move {
            let rights = self.fetch_member_rights(room, user).await;
            let rights =
                rights.map_err(|error| error.into_matrix_error("read the room's state"))?;
            let ever = self.was_encrypted(room).await?;
            Ok(MemberRights {
                encrypted: rights.encrypted || ever,
                ..rights
            })
        })
    }

    async fn fetch_member_rights(
        &self,
        room: &Place,
        user: &str,
    ) -> Result<MemberRights, RequestError> {
        let id = room_id(room)?;
        let create = self.state(&id, StateEventType::RoomCreate, "", StateForm::Event);
        let create = create.await?.unwrap_or_default();
        let power = self.state(&id, StateEventType::RoomPowerLevels, "", StateForm::Content);
        let power = power.await?;
        let member = self.state(&id, StateEventType::RoomMember, user, StateForm::Content);
        let member = member.await?.unwrap_or_default();
        let encryption = self.state(&id, StateEventType::RoomEncryption, "", StateForm::Content);
        let encrypted = encryption.await?.is_some();
        Ok(MemberRights {
            joined: member.get("membership").and_then(Value::as_str) == Some("join"),
            encrypted,
            ..levels(&create, power.as_ref(), user)
        })
    }

    /// Joins the room that replaces another one, and returns its properties.
    pub fn join_successor<'a>(
        &'a self,
        tombstone: &'a Tombstone,
    ) -> Boxed<'a, Result<Successor, MatrixError>> {
        Box::pin(async move {
            let successor = self.fetch_successor(tombstone).await;
            let next = successor.map_err(|error| error.into_matrix_error("join the new room"))?;
            self.store.forget_refused_invite(&next.place).await?;
            Ok(next)
        })
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
        let create = self.state(&next, StateEventType::RoomCreate, "", StateForm::Content);
        let create = create.await?.unwrap_or_default();
        let encryption = self.state(
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
    pub fn put_plaintext_state<'a>(
        &'a self,
        room: &'a Place,
        (event_type, key): (&'a str, &'a str),
        content: &'a Value,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(async move {
            if self.was_encrypted(room).await? {
                return Ok(false);
            }
            match self.put_state(room, (event_type, key), content).await {
                Ok(written) => Ok(written),
                Err(RequestError::Forbidden(_) | RequestError::Invalid(_)) => Ok(false),
                Err(error) => Err(error.into_matrix_error("mark the room")),
            }
        })
    }

    async fn put_state(
        &self,
        room: &Place,
        (event_type, key): (&str, &str),
        content: &Value,
    ) -> Result<bool, RequestError> {
        let id = room_id(room)?;
        let encryption = self.state(&id, StateEventType::RoomEncryption, "", StateForm::Content);
        if encryption.await?.is_some() {
            return Ok(false);
        }
        let kind = StateEventType::from(event_type);
        let before = self
            .state(&id, kind.clone(), key, StateForm::Content)
            .await?;
        // Content that is there already, or is empty and has never been set, need not be written.
        if before.as_ref().unwrap_or(&json!({})) == content {
            return Ok(true);
        }
        self.write_state(id, kind, key, content)
            .await
            .map(|()| true)
    }

    /// Writes a state event, which every member's homeserver can read.
    pub(super) async fn write_state(
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
    pub(super) async fn state(
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

/// The effective levels, from the create event and the power levels event. A value that cannot be read gives nobody any
/// power.
fn levels(create: &Value, power: Option<&Value>, user: &str) -> MemberRights {
    let content = create.get("content").unwrap_or(create);
    let creator = create.get("sender").and_then(Value::as_str);
    let version = content.get("room_version").and_then(Value::as_str);
    let version: u32 = version
        .and_then(|version| version.parse().ok())
        .unwrap_or(1);
    let also = content.get("additional_creators").and_then(Value::as_array);
    let also = also.is_some_and(|users| users.iter().any(|one| one.as_str() == Some(user)));
    let is_creator = creator == Some(user);
    let (level, state_default, to_change_power) = match power {
        Some(power) => {
            let base = number(power.get("users_default")).unwrap_or(0);
            let own = power.get("users").and_then(|users| users.get(user));
            let state = number(power.get("state_default")).unwrap_or(50);
            let events = power.get("events");
            let change = events.and_then(|events| number(events.get("m.room.power_levels")));
            (number(own).unwrap_or(base), state, change.unwrap_or(state))
        }
        // Without a power levels event only the room's creator has any power.
        None => (if is_creator { 100 } else { 0 }, 50, 100),
    };
    let rules = version >= FIRST_CREATOR_VERSION && (is_creator || also);
    MemberRights {
        joined: false,
        encrypted: false,
        level: if rules { CREATOR_LEVEL } else { level },
        to_change_power,
        state_default,
    }
}

/// A power level; old rooms write it as text.
fn number(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p14_levels_come_from_state_and_missing_values_give_no_power() {
        let create = |version: &str| {
            json!({"sender": "@maker:x", "content": {"room_version": version,
                "additional_creators": ["@second:x"]}})
        };
        let power = json!({"users": {"@ann:x": 100, "@mod:x": "60", "@odd:x": []}, "users_default": 5,
            "state_default": 60, "events": {"m.room.power_levels": 95}});
        for (version, power, user, expected) in [
            ("10", Some(&power), "@ann:x", (100, 60, 95)),
            ("10", Some(&power), "@mod:x", (60, 60, 95)),
            ("10", Some(&power), "@odd:x", (5, 60, 95)),
            ("10", Some(&power), "@who:x", (5, 60, 95)),
            ("10", Some(&power), "@maker:x", (5, 60, 95)),
            ("12", Some(&power), "@maker:x", (CREATOR_LEVEL, 60, 95)),
            ("12", Some(&power), "@second:x", (CREATOR_LEVEL, 60, 95)),
            ("11", Some(&power), "@second:x", (5, 60, 95)),
            ("10", Some(&json!({})), "@ann:x", (0, 50, 50)),
            ("10", None, "@maker:x", (100, 50, 100)),
            ("10", None, "@ann:x", (0, 50, 100)),
        ] {
            let rights = levels(&create(version), power, user);
            let found = (rights.level, rights.state_default, rights.to_change_power);
            assert_eq!(found, expected, "{version} {power:?} {user}");
        }
    }
}
