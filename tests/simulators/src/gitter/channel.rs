//! A simulated Gitter with one room, for tests that run on every silo.

use std::sync::Arc;

use anyhow::anyhow;
use async_trait::async_trait;

use super::{Cut, Echo, Fault, GitterSim, Options, Room, RoomOptions, User};
use crate::{
    channel::{Route, SimulatedChannel, SimulatorKind, UserAction, quoted},
    file_server::FileServer,
};

/// Gitter.
pub static SIMULATOR: SimulatorKind = SimulatorKind {
    name: "gitter",
    open: || {
        Box::pin(async {
            let channel = GitterChannel::open(Options {
                rate_limit: 100_000,
                ..Options::default()
            });
            Ok(Arc::new(channel.await?) as Arc<dyn SimulatedChannel>)
        })
    },
};

/// The route of the calls that post.
pub const POST: &str = "POST /rooms/:id/chatMessages";

/// A server with one room.
pub struct GitterChannel {
    /// The server.
    pub sim: GitterSim,
    /// The room.
    pub room: Room,
    /// The bridge's account.
    pub bot: User,
    /// The other person.
    pub bob: User,
    files: FileServer,
}

impl GitterChannel {
    /// Starts it.
    pub async fn open(options: Options) -> anyhow::Result<Self> {
        let sim = GitterSim::start(options).await?;
        let bot = sim.add_user("bridge", "Bridge");
        let bob = sim.add_user("bob", "Bob");
        let room = sim.add_room("org/room", RoomOptions::default());
        for user in [&bot, &bob] {
            sim.join(&room.id, &user.id)
                .map_err(|refusal| anyhow!("{refusal}"))?;
        }
        Ok(Self {
            sim,
            room,
            bot,
            bob,
            files: FileServer::start().await?,
        })
    }
}

#[async_trait]
impl SimulatedChannel for GitterChannel {
    fn kind(&self) -> &'static SimulatorKind {
        &SIMULATOR
    }

    fn url(&self) -> String {
        self.sim.api_url()
    }

    fn feed_url(&self) -> String {
        self.sim.realtime_url()
    }

    fn section(&self, api: Route<'_>, feed: Route<'_>) -> String {
        format!(
            "api = {}\nstream = {}\nrealtime = {}\nrequests_per_minute = 60000\nsettle = \"2s\"\nmedia_hosts = [{}]",
            quoted(&api(&self.sim.api_url())),
            quoted(&feed(&self.sim.stream_url())),
            quoted(&feed(&self.sim.realtime_url())),
            quoted(&self.files.host()),
        )
    }

    fn token(&self) -> String {
        self.bot.token.clone()
    }

    fn add_account(&self) -> Option<String> {
        let second = self.sim.add_user("second", "Second");
        self.sim.join(&self.room.id, &second.id).ok()?;
        Some(second.token)
    }

    fn file_server(&self) -> &FileServer {
        &self.files
    }

    fn name(&self) -> String {
        self.room.uri.clone()
    }

    fn add_channel(&self) -> (String, String) {
        let members = vec![self.bot.id.clone(), self.bob.id.clone()];
        let options = RoomOptions {
            members,
            ..RoomOptions::default()
        };
        let room = self.sim.add_room("org/another", options);
        (room.uri, room.id)
    }

    fn act(&self, action: UserAction<'_>) -> Option<String> {
        let (sim, room, bob) = (&self.sim, &self.room.id, &self.bob.id);
        Some(match action {
            UserAction::Say(text) => sim.say(room, bob, text).id,
            UserAction::Emote(text) => sim.say_status(room, bob, text).ok()?.id,
            UserAction::Thread(root, text) => sim.say_in_thread(room, bob, root, text).id,
            UserAction::Edit(id, text) => sim.edit(room, id, text).ok().map(|_| id.to_owned())?,
            UserAction::Delete(id) => sim.delete(room, id).ok().map(|()| id.to_owned())?,
            _ => return None,
        })
    }

    fn say_in(&self, channel: &str, text: &str) {
        self.sim.say(channel, &self.bob.id, text);
    }

    fn say_as_bridge(&self, text: &str) -> Option<String> {
        Some(self.sim.say(&self.room.id, &self.bot.id, text).id)
    }

    fn shown(&self) -> Vec<(String, String)> {
        let messages = self.sim.messages(&self.room.id).into_iter();
        let shown = messages.map(|message| {
            let place = message.parent_id.as_ref().map_or("", |_| "↳ ");
            let how = if message.status { " (/me)" } else { "" };
            let who = &message.from_username;
            (message.id, format!("{place}{who}{how}: {}", message.text))
        });
        shown.collect()
    }

    fn bridge_texts(&self) -> Vec<String> {
        let mut messages = self.sim.messages(&self.room.id);
        messages.retain(|message| message.from_user_id == self.bot.id);
        messages.into_iter().map(|message| message.text).collect()
    }

    fn bridge_texts_ever(&self) -> Vec<String> {
        self.bridge_texts()
    }

    fn set_profile(&self, _name: &str, topic: &str, avatar: Vec<u8>) {
        let url = self.files.put("group.png", "image/png", avatar);
        self.sim.make_admin(&self.room.id, &self.bot.id);
        self.sim.head(&self.room.id, topic, Some(&url));
    }

    fn topic(&self) -> Option<String> {
        self.sim.topic(&self.room.id)
    }

    fn set_bob_avatar(&self, content: Vec<u8>) {
        let url = self.files.put("bob.png", "image/png", content);
        self.sim.set_avatar(&self.bob.id, &url);
    }

    fn ban(&self) {
        self.sim.ban(&self.room.id, &self.bot.id).ok();
    }

    fn revoke_token(&self) {
        self.sim.revoke_token(&self.bot.token);
    }

    fn accept_token(&self) {
        self.sim.accept_token(&self.bot);
    }

    async fn stop(&self) {
        self.sim.stop_listening().await;
    }

    async fn restart(&self) -> anyhow::Result<()> {
        self.sim.restart().await
    }

    fn cut(&self) -> usize {
        let faults = self.sim.faults();
        faults.cut_realtime(Cut::Reset) + faults.cut_streams(Cut::Reset)
    }

    fn lose_response(&self) {
        self.sim.faults().next(POST, Fault::DropAfter, 1);
    }

    fn lose_request(&self) {
        self.sim.faults().next(POST, Fault::DropBefore, 1);
    }

    fn respond_after_feed(&self) {
        self.sim.faults().set_echo(Echo::Before { ms: 150 });
    }

    // Its feeds are garbled by rules of the proxy.
    fn garble(&self) {}
}
