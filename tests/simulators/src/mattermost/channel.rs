//! A simulated Mattermost with one channel, for tests that run on every silo.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::{Channel, Cut, Fault, MattermostSim, Options, Team, User};
use crate::{
    channel::{PIXEL, Route, SimulatedChannel, SimulatorKind, UserAction, quoted},
    file_server::FileServer,
};

/// Mattermost.
pub static SIMULATOR: SimulatorKind = SimulatorKind {
    name: "mattermost",
    open: || {
        Box::pin(async {
            let channel = MattermostChannel::open(Options::default()).await?;
            Ok(Arc::new(channel) as Arc<dyn SimulatedChannel>)
        })
    },
};

/// The route of the calls that post.
pub const POST: &str = "POST posts";

/// A server with one channel.
pub struct MattermostChannel {
    /// The server.
    pub sim: MattermostSim,
    /// The channel's team.
    pub team: Team,
    /// The channel.
    pub channel: Channel,
    /// The bridge's account.
    pub bot: User,
    /// The other person.
    pub bob: User,
    files: FileServer,
}

impl MattermostChannel {
    /// Starts it.
    pub async fn open(options: Options) -> anyhow::Result<Self> {
        let sim = MattermostSim::start(options).await?;
        let (bot, bob) = (sim.add_bot("bridge"), sim.add_user("bob"));
        let team = sim.add_team("team");
        let channel = sim.add_channel(&team, "town", "O", &[&bot, &bob]);
        Ok(Self {
            sim,
            team,
            channel,
            bot,
            bob,
            files: FileServer::start().await?,
        })
    }

    fn files(&self, id: &str, text: &str, added: &str) -> Option<String> {
        let mut posts = self.sim.posts(&self.channel.id).into_iter();
        let post = posts.find(|post| post.id == id)?;
        let had = self.sim.files_of(&post);
        let kept: Vec<&str> = had.iter().map(|(name, _)| name.as_str()).collect();
        self.sim.edit_files(id, text, &kept, Some((added, PIXEL)));
        Some(id.to_owned())
    }
}

#[async_trait]
impl SimulatedChannel for MattermostChannel {
    fn kind(&self) -> &'static SimulatorKind {
        &SIMULATOR
    }

    fn url(&self) -> String {
        self.sim.url()
    }

    fn section(&self, api: Route<'_>, feed: Route<'_>) -> String {
        format!("url = {}", quoted(&feed(&api(&self.sim.url()))))
    }

    fn token(&self) -> String {
        self.bot.token.clone()
    }

    fn add_account(&self) -> Option<String> {
        let second = self.sim.add_bot("second");
        self.sim.join(&self.channel.id, &second.id);
        Some(second.token)
    }

    fn file_server(&self) -> &FileServer {
        &self.files
    }

    fn name(&self) -> String {
        "team/town".to_owned()
    }

    fn add_channel(&self) -> (String, String) {
        let members = [&self.bot, &self.bob];
        let channel = self.sim.add_channel(&self.team, "another", "O", &members);
        ("team/another".to_owned(), channel.id)
    }

    fn act(&self, action: UserAction<'_>) -> Option<String> {
        let (sim, channel, bob) = (&self.sim, &self.channel.id, &self.bob.id);
        Some(match action {
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
            UserAction::AddFile(id, words, name) => return self.files(id, words, name),
            UserAction::Join => {
                let told = "carol joined the channel.";
                sim.say_system(channel, bob, "system_join_channel", told).id
            }
            UserAction::Reply(..) | UserAction::Notice(_) => return None,
        })
    }

    fn say_in(&self, channel: &str, text: &str) {
        self.sim.say(channel, &self.bob.id, text);
    }

    fn say_as_bridge(&self, text: &str) -> Option<String> {
        Some(self.sim.say(&self.channel.id, &self.bot.id, text).id)
    }

    fn shown(&self) -> Vec<(String, String)> {
        let posts = self.sim.posts(&self.channel.id).into_iter();
        let shown = posts.map(|post| {
            let place = if post.root_id.is_empty() { "" } else { "↳ " };
            let files = self.sim.files_of(&post).into_iter();
            let files = files.map(|(name, bytes)| format!(" [{name}, {} bytes]", bytes.len()));
            let reactions = post.reactions.iter();
            let reactions = reactions.map(|(emoji, who)| format!(" {{:{emoji}: {}}}", who.len()));
            let rest: String = files.chain(reactions).collect();
            let name = post.props.get("override_username");
            let name = name.and_then(|name| name.as_str());
            let who = name.map_or_else(|| self.sim.name_of(&post.user_id), str::to_owned);
            (
                post.id.clone(),
                format!("{place}{who}: {}{rest}", post.message),
            )
        });
        shown.collect()
    }

    fn bridge_texts(&self) -> Vec<String> {
        let mut posts = self.sim.posts(&self.channel.id);
        posts.retain(|post| post.user_id == self.bot.id);
        posts.into_iter().map(|post| post.message).collect()
    }

    fn bridge_texts_ever(&self) -> Vec<String> {
        let mut posts = self.sim.ever(&self.channel.id);
        posts.retain(|post| post.user_id == self.bot.id);
        posts.into_iter().map(|post| post.message).collect()
    }

    fn set_profile(&self, name: &str, topic: &str, _avatar: Vec<u8>) {
        self.sim.head(&self.channel.id, name, topic);
    }

    fn topic(&self) -> Option<String> {
        Some(self.sim.heading(&self.channel.id)?.1)
    }

    fn set_bob_avatar(&self, content: Vec<u8>) {
        self.sim.set_picture(&self.bob.id, content);
    }

    fn ban(&self) {
        self.sim.remove(&self.channel.id, &self.bot.id);
    }

    fn revoke_token(&self) {
        self.sim.revoke(&self.bot.token);
    }

    fn accept_token(&self) {
        self.sim.accept(&self.bot);
    }

    async fn stop(&self) {
        self.sim.stop_listening().await;
    }

    async fn restart(&self) -> anyhow::Result<()> {
        self.sim.restart().await
    }

    fn cut(&self) -> usize {
        self.sim.cut(Cut::Reset)
    }

    fn lose_response(&self) {
        self.sim.faults().next(POST, Fault::DropAfter, 1);
    }

    fn lose_request(&self) {
        self.sim.faults().next(POST, Fault::DropBefore, 1);
    }

    fn respond_after_feed(&self) {
        self.sim.faults().echo_first(150);
    }

    fn garble(&self) {
        self.sim.faults().garbage(1);
    }
}
