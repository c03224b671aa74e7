//! Everything that Bob can do in a channel, and everything that users see there.

use serde_json::json;

use super::silo_channel::{GATEWAY, SiloChannel, Simulator};
use crate::gitter::GitterSim;
use crate::matterbridge::{self, MatterbridgeSim};
use crate::mattermost::MattermostSim;

/// An action of Bob's.
#[derive(Clone, Copy)]
pub enum UserAction<'a> {
    /// Posts this, in the network's own dialect.
    Say(&'a str),
    /// `/me does something`
    Emote(&'a str),
    /// Replies to a message; in its thread if the network has no replies.
    Reply(&'a str, &'a str),
    /// Posts in the thread of this message.
    Thread(&'a str, &'a str),
    /// Edits this message to this text.
    Edit(&'a str, &'a str),
    /// Deletes this message.
    Delete(&'a str),
    /// Reacts to this message with this emoji, by its name.
    React(&'a str, &'a str),
    /// Removes this reaction.
    Unreact(&'a str, &'a str),
    /// Sends a file of this name, with a text.
    File(&'a str, &'a str),
    /// Adds a user to the channel.
    Join,
    /// Posts as a bot.
    Notice(&'a str),
    /// Posts as an integration, with this attachment in JSON.
    Attach(&'a str),
    /// Edits this message to this text, and adds a file of this name.
    AddFile(&'a str, &'a str, &'a str),
}

/// Who acts in which channel, by their ids.
#[derive(Clone, Copy)]
pub struct Actor<'a> {
    /// The channel id.
    pub channel: &'a str,
    /// The user id.
    pub person: &'a str,
}

impl UserAction<'_> {
    /// Performs the action on Gitter. All of these return the id of the result, or `None` if the network does not
    /// support the action or reports no id.
    #[must_use]
    pub fn on_gitter(self, sim: &GitterSim, by: Actor<'_>) -> Option<String> {
        let (room, bob) = (by.channel, by.person);
        Some(match self {
            UserAction::Say(text) => sim.say(room, bob, text).id,
            UserAction::Emote(text) => sim.say_status(room, bob, text).ok()?.id,
            UserAction::Thread(root, text) => sim.say_in_thread(room, bob, root, text).id,
            UserAction::Edit(id, text) => sim.edit(room, id, text).ok().map(|_| id.to_owned())?,
            UserAction::Delete(id) => sim.delete(room, id).ok().map(|()| id.to_owned())?,
            _ => return None,
        })
    }

    /// Performs the action on Mattermost.
    #[must_use]
    pub fn on_mattermost(self, sim: &MattermostSim, by: Actor<'_>) -> Option<String> {
        let (channel, bob) = (by.channel, by.person);
        Some(match self {
            UserAction::Say(text) => sim.say(channel, bob, text).id,
            UserAction::Emote(text) => sim.say_me(channel, bob, text).id,
            UserAction::Thread(root, text) => sim.say_in_thread(channel, bob, root, text).id,
            UserAction::Edit(id, text) => {
                sim.edit(id, text);
                id.to_owned()
            }
            UserAction::Delete(id) => {
                sim.delete(id);
                id.to_owned()
            }
            UserAction::React(id, emoji) => {
                sim.react(bob, id, emoji);
                id.to_owned()
            }
            UserAction::Unreact(id, emoji) => {
                sim.unreact(bob, id, emoji);
                id.to_owned()
            }
            UserAction::File(name, words) => sim.say_file_with(channel, bob, words, name, PIXEL).id,
            UserAction::Attach(attachment) => {
                let attachment: serde_json::Value = serde_json::from_str(attachment).ok()?;
                let props = json!({"from_webhook": "true", "attachments": [attachment]});
                sim.say_with(channel, bob, "", &props).id
            }
            UserAction::AddFile(id, words, name) => {
                let files = sim.posts(channel).into_iter().find(|post| post.id == id)?;
                let had = sim.files_of(&files);
                let kept: Vec<&str> = had.iter().map(|(name, _)| name.as_str()).collect();
                sim.edit_files(id, words, &kept, Some((name, PIXEL)));
                id.to_owned()
            }
            UserAction::Join => {
                let told = "carol joined the channel.";
                sim.say_system(channel, bob, "system_join_channel", told).id
            }
            UserAction::Reply(..) | UserAction::Notice(_) => return None,
        })
    }

    /// Performs the action as bob on IRC, in this gateway of a Matterbridge.
    #[must_use]
    pub fn on_matterbridge(self, sim: &MatterbridgeSim, gateway: &str) -> Option<String> {
        let from_bob = |text: &str| matterbridge::Message::from_irc(gateway, "bob", text);
        let message = match self {
            UserAction::Say(text) => from_bob(text),
            UserAction::Emote(text) => from_bob(text).event("user_action"),
            UserAction::Reply(_, text) | UserAction::Thread(_, text) => {
                let mut answer = from_bob(text);
                "msg-parent-not-found".clone_into(&mut answer.parent_id);
                answer
            }
            // Matterbridge only passes on the new text of an edit.
            UserAction::Edit(_, text) => from_bob(&format!("{text} (edited)")),
            UserAction::File(name, words) => {
                let mut file = from_bob("");
                file.extra = json!({"file": [
                    {"Name": name, "Data": PIXEL_BASE64, "Comment": words, "URL": "", "Size": 0, "Avatar": false,
                        "SHA": "", "NativeID": ""},
                ]});
                file
            }
            UserAction::Join => matterbridge::Message::from_irc(gateway, "system", "carol joins")
                .event("join_leave"),
            // IRC notices are relayed to IRC only.
            UserAction::Notice(_)
            | UserAction::Delete(_)
            | UserAction::React(..)
            | UserAction::Unreact(..)
            | UserAction::Attach(_)
            | UserAction::AddFile(..) => return None,
        };
        Some(sim.say(message).timestamp)
    }
}

impl SiloChannel {
    /// Performs an action of Bob's. Returns the id of the result, or `None` if the network does not support the action
    /// or reports no id.
    pub fn act(&self, act: UserAction<'_>) -> Option<String> {
        match self.ground() {
            Simulator::Gitter { sim, room, bob, .. } => act.on_gitter(
                sim,
                Actor {
                    channel: &room.id,
                    person: &bob.id,
                },
            ),
            Simulator::Mattermost {
                sim, channel, bob, ..
            } => act.on_mattermost(
                sim,
                Actor {
                    channel: &channel.id,
                    person: &bob.id,
                },
            ),
            Simulator::Matterbridge { sim } => act.on_matterbridge(sim, GATEWAY),
        }
    }

    /// What users see in the channel, in order: an id for each message, its author, and its content with its position,
    /// files and reactions.
    pub fn shown(&self) -> Vec<(String, String)> {
        match self.ground() {
            Simulator::Gitter { sim, room, .. } => {
                let messages = sim.messages(&room.id).into_iter();
                let shown = messages.map(|message| {
                    let place = message.parent_id.as_ref().map_or("", |_| "↳ ");
                    let how = if message.status { " (/me)" } else { "" };
                    let who = &message.from_username;
                    (message.id, format!("{place}{who}{how}: {}", message.text))
                });
                shown.collect()
            }
            Simulator::Mattermost { sim, channel, .. } => {
                let posts = sim.posts(&channel.id).into_iter();
                let shown = posts.map(|post| {
                    let place = if post.root_id.is_empty() { "" } else { "↳ " };
                    let files = sim.files_of(&post).into_iter();
                    let files =
                        files.map(|(name, bytes)| format!(" [{name}, {} bytes]", bytes.len()));
                    let reactions = post.reactions.iter();
                    let reactions =
                        reactions.map(|(emoji, who)| format!(" {{:{emoji}: {}}}", who.len()));
                    let rest: String = files.chain(reactions).collect();
                    let who = sim.name_of(&post.user_id);
                    (
                        post.id.clone(),
                        format!("{place}{who}: {}{rest}", post.message),
                    )
                });
                shown.collect()
            }
            Simulator::Matterbridge { sim } => {
                let posted = sim.posted().into_iter();
                let shown = posted.map(|message| {
                    let files = message
                        .extra
                        .get("file")
                        .and_then(|files| files.as_array())
                        .cloned()
                        .unwrap_or_default();
                    let files = files.iter().map(|file| {
                        let text = |key: &str| {
                            file.get(key)
                                .and_then(|text| text.as_str())
                                .unwrap_or_default()
                                .to_owned()
                        };
                        format!(" [{}: {:?}]", text("Name"), text("Comment"))
                    });
                    let files: String = files.collect();
                    let event = match message.event.as_str() {
                        "" => String::new(),
                        event => format!(" ({event})"),
                    };
                    let who = &message.username;
                    let line = format!("{who}{event}: {}{files}", message.text);
                    (message.timestamp, line)
                });
                shown.collect()
            }
        }
    }
}

/// A picture of one pixel, as PNG.
const PIXEL: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0,
    1, 0, 0, 0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89,
];
/// The same image in Base64.
const PIXEL_BASE64: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ";
