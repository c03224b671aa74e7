//! A Matrix client for tests: a user with their own device and store. It shares no code with the bridge.

mod files;
mod identity;
mod room_admin;
mod seen_event;
mod session;
mod verification;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;
use matrix_sdk::{
    Client, Room,
    deserialized_responses::TimelineEvent,
    room::MessagesOptions,
    ruma::{
        EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
        api::client::room::create_room,
        events::{AnyInitialStateEvent, room::encrypted::OriginalSyncRoomEncryptedEvent},
        serde::Raw,
        uint,
    },
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub use self::{
    identity::Identity,
    seen_event::SeenEvent,
    verification::{EmojiComparison, VerificationScreen},
};

/// A future on the heap: those of the SDK are large, and each of its callers would contain them.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A user at a Matrix client.
#[derive(Clone)]
pub struct TestClient {
    client: Client,
    timeline: Arc<Mutex<ReadState>>,
    verifications: verification::KnownFlows,
}

/// How far this client has read.
#[derive(Default)]
struct ReadState {
    /// The newest event seen, per room.
    newest: HashMap<OwnedRoomId, OwnedEventId>,
    /// The events that could not be decrypted yet.
    unread: VecDeque<(OwnedRoomId, Raw<OriginalSyncRoomEncryptedEvent>)>,
}

impl TestClient {
    /// Logs in on a new device, creates a cross-signing identity, and syncs once.
    #[must_use]
    pub fn login(
        homeserver: &str,
        user: &str,
        password: &str,
        directory: &Path,
    ) -> Boxed<'static, anyhow::Result<Self>> {
        Self::login_as(homeserver, user, password, directory, Identity::New)
    }

    /// Logs in on a new device and signs it as `identity` says.
    #[must_use]
    pub fn login_as(
        homeserver: &str,
        user: &str,
        password: &str,
        directory: &Path,
        identity: Identity,
    ) -> Boxed<'static, anyhow::Result<Self>> {
        let (homeserver, user) = (homeserver.to_owned(), user.to_owned());
        let (password, directory) = (password.to_owned(), directory.to_owned());
        Box::pin(async move {
            // This client excludes insecure devices, as clients are beginning to do: it decrypts only what a signed
            // device of the bridge sent, and sends room keys to signed devices only.
            let signed_only = !matches!(identity, Identity::None);
            let client = session::build(&homeserver, &directory, signed_only).await?;
            client
                .matrix_auth()
                .login_username(&user, &password)
                .initial_device_display_name("A person")
                .send()
                .await?;
            client
                .encryption()
                .wait_for_e2ee_initialization_tasks()
                .await;
            session::sync(&client, Duration::ZERO).await?;
            match identity {
                Identity::New => identity::sign_device(&client, &password).await?,
                Identity::Recovered(key) => client.encryption().recovery().recover(&key).await?,
                Identity::None => {}
            }
            let person = Self {
                client,
                timeline: Arc::default(),
                verifications: verification::KnownFlows::default(),
            };
            person.sync(Duration::ZERO).await?;
            Ok(person)
        })
    }

    /// The user id.
    #[must_use]
    pub fn user_id(&self) -> String {
        let id = self.client.user_id();
        id.map(ToString::to_string).unwrap_or_default()
    }

    /// The device id.
    #[must_use]
    pub fn device_id(&self) -> String {
        let id = self.client.device_id();
        id.map(ToString::to_string).unwrap_or_default()
    }

    /// Creates a private room and invites these users; returns the room id.
    #[must_use]
    pub fn create_room(
        &self,
        name: &str,
        encrypted: bool,
        invite: &[String],
    ) -> Boxed<'_, anyhow::Result<String>> {
        let (name, invite) = (name.to_owned(), invite.to_owned());
        Box::pin(async move {
            let mut request = create_room::v3::Request::new();
            request.name = Some(name);
            request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
            request.invite = invite
                .iter()
                .map(|user| OwnedUserId::try_from(user.as_str()))
                .collect::<Result<_, _>>()?;
            if encrypted {
                let event = json!({
                    "type": "m.room.encryption",
                    "state_key": "",
                    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
                });
                request.initial_state = vec![Raw::<AnyInitialStateEvent>::from_json_string(
                    event.to_string(),
                )?];
            }
            let room = self.client.create_room(request).await?;
            Ok(room.room_id().to_string())
        })
    }

    /// Joins a room by id or alias.
    #[must_use]
    pub fn join(&self, room: &str) -> Boxed<'_, anyhow::Result<()>> {
        let room = room.to_owned();
        Box::pin(async move {
            let room = <&matrix_sdk::ruma::RoomOrAliasId>::try_from(room.as_str())?;
            self.client.join_room_by_id_or_alias(room, &[]).await?;
            Ok(())
        })
    }

    /// Leaves a room.
    #[must_use]
    pub fn leave(&self, room: &str) -> Boxed<'_, anyhow::Result<()>> {
        let room = room.to_owned();
        Box::pin(async move { Ok(self.room(&room)?.leave().await?) })
    }

    /// Invites a user.
    #[must_use]
    pub fn invite(&self, room: &str, user: &str) -> Boxed<'_, anyhow::Result<()>> {
        let (room, user) = (room.to_owned(), user.to_owned());
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            Ok(self.room(&room)?.invite_user_by_id(user).await?)
        })
    }

    /// Enables encryption in a room.
    #[must_use]
    pub fn enable_encryption(&self, room: &str) -> Boxed<'_, anyhow::Result<()>> {
        let room = room.to_owned();
        Box::pin(async move {
            let content = json!({"algorithm": "m.megolm.v1.aes-sha2"});
            self.room(&room)?
                .send_state_event_raw("m.room.encryption", "", content)
                .await?;
            Ok(())
        })
    }

    /// Changes the display name.
    #[must_use]
    pub fn set_display_name(&self, name: &str) -> Boxed<'_, anyhow::Result<()>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(self.client.account().set_display_name(Some(&name)).await?) })
    }

    /// Sends a text message; returns the event id.
    #[must_use]
    pub fn say(&self, room: &str, text: &str) -> Boxed<'_, anyhow::Result<String>> {
        self.send(
            room,
            "m.room.message",
            json!({"msgtype": "m.text", "body": text}),
        )
    }

    /// Sends an event of any type, encrypted if the room is; returns the event id.
    #[must_use]
    pub fn send(
        &self,
        room: &str,
        event_type: &str,
        content: Value,
    ) -> Boxed<'_, anyhow::Result<String>> {
        let (room, event_type) = (room.to_owned(), event_type.to_owned());
        Box::pin(async move {
            let room = self.room(&room)?;
            let sent = room.send_raw(&event_type, content).await?;
            Ok(sent.response.event_id.to_string())
        })
    }

    /// Discards the current room key, so that the next message needs a new one.
    #[must_use]
    pub fn discard_room_key(&self, room: &str) -> Boxed<'_, anyhow::Result<()>> {
        let room = room.to_owned();
        Box::pin(async move { Ok(self.room(&room)?.discard_room_key().await?) })
    }

    /// Edits a message; returns the id of the edit event.
    #[must_use]
    pub fn edit(
        &self,
        room: &str,
        event_id: &str,
        text: &str,
    ) -> Boxed<'_, anyhow::Result<String>> {
        let content = json!({
            "msgtype": "m.text",
            "body": format!("* {text}"),
            "m.new_content": {"msgtype": "m.text", "body": text},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        });
        self.send(room, "m.room.message", content)
    }

    /// Replies to an event; returns the reply's event id.
    #[must_use]
    pub fn reply(
        &self,
        room: &str,
        event_id: &str,
        text: &str,
    ) -> Boxed<'_, anyhow::Result<String>> {
        let content = json!({
            "msgtype": "m.text",
            "body": text,
            "m.relates_to": {"m.in_reply_to": {"event_id": event_id}},
        });
        self.send(room, "m.room.message", content)
    }

    /// Sends a message in a thread; returns the event id.
    #[must_use]
    pub fn in_thread(
        &self,
        room: &str,
        thread: &str,
        text: &str,
    ) -> Boxed<'_, anyhow::Result<String>> {
        let content = json!({
            "msgtype": "m.text",
            "body": text,
            "m.relates_to": {
                "rel_type": "m.thread",
                "event_id": thread,
                "is_falling_back": true,
                "m.in_reply_to": {"event_id": thread},
            },
        });
        self.send(room, "m.room.message", content)
    }

    /// Redacts an event; returns the redaction's id.
    #[must_use]
    pub fn redact(&self, room: &str, event_id: &str) -> Boxed<'_, anyhow::Result<String>> {
        let (room, event_id) = (room.to_owned(), event_id.to_owned());
        Box::pin(async move {
            let event_id = <&EventId>::try_from(event_id.as_str())?;
            let answer = self.room(&room)?.redact(event_id, None, None).await?;
            Ok(answer.event_id.to_string())
        })
    }

    /// Syncs once, waiting at most `timeout`, and returns the new timeline events in order, with gaps filled. Call it
    /// in a loop.
    #[must_use]
    pub fn sync(&self, timeout: Duration) -> Boxed<'_, anyhow::Result<Vec<SeenEvent>>> {
        Box::pin(async move {
            let mut timeline = self.timeline.lock().await;
            let response = session::sync(&self.client, timeout).await?;
            let mut seen = self.read_late(&mut timeline).await?;
            for (room_id, update) in response.rooms.joined {
                let mut events = update.timeline.events;
                let stop = timeline.newest.get(&room_id).cloned();
                if let (true, Some(stop), Some(from)) =
                    (update.timeline.limited, stop, update.timeline.prev_batch)
                {
                    let mut missed = self.page_back(&room_id, from, &stop).await?;
                    missed.append(&mut events);
                    events = missed;
                }
                for event in events {
                    if let Some(id) = event.event_id() {
                        timeline.newest.insert(room_id.clone(), id);
                    }
                    if event.kind.is_utd() {
                        timeline
                            .unread
                            .push_back((room_id.clone(), event.raw().clone().cast_unchecked()));
                    }
                    seen.push(SeenEvent::of(&room_id, &event)?);
                }
            }
            Ok(seen)
        })
    }

    /// The events between `stop` and `from`, oldest first.
    async fn page_back(
        &self,
        room: &RoomId,
        from: String,
        stop: &EventId,
    ) -> anyhow::Result<Vec<TimelineEvent>> {
        let room = self.room(room.as_str())?;
        let mut events = Vec::new();
        let mut from = Some(from);
        while let Some(position) = from {
            let mut options = MessagesOptions::backward().from(position.as_str());
            options.limit = uint!(500);
            let page = room.messages(options).await?;
            for event in page.chunk {
                if event.event_id().is_some_and(|id| id == stop) {
                    events.reverse();
                    return Ok(events);
                }
                events.push(event);
            }
            from = page.end;
        }
        events.reverse();
        Ok(events)
    }

    /// Tries again to decrypt the events that could not be decrypted.
    async fn read_late(&self, timeline: &mut ReadState) -> anyhow::Result<Vec<SeenEvent>> {
        let mut seen = Vec::new();
        for (room_id, raw) in std::mem::take(&mut timeline.unread) {
            let event = self
                .room(room_id.as_str())?
                .decrypt_event(&raw, None)
                .await?;
            if event.kind.is_utd() {
                timeline.unread.push_back((room_id, raw));
            } else {
                seen.push(SeenEvent::of(&room_id, &event)?);
            }
        }
        Ok(seen)
    }

    fn room(&self, id: &str) -> anyhow::Result<Room> {
        let id = <&RoomId>::try_from(id)?;
        self.client
            .get_room(id)
            .ok_or_else(|| anyhow!("this client is not in the room {id}"))
    }
}
