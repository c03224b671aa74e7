//! A simulated Matterbridge with one gateway, for tests that run on every silo. Bob is on IRC behind it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{Cut, Fault, MatterbridgeSim, Message, Options};
use crate::{
    channel::{PIXEL_BASE64, Route, SimulatedChannel, SimulatorKind, UserAction, quoted},
    file_server::FileServer,
};

/// A Matterbridge whose buffer is large and read fast.
pub static SIMULATOR: SimulatorKind = SimulatorKind {
    name: "matterbridge",
    open: || {
        Box::pin(async {
            let channel = MatterbridgeChannel::open(Options {
                token: Some(TOKEN.to_owned()),
                buffer: 1_000,
                pace: Duration::from_millis(1),
                ..Options::default()
            });
            Ok(Arc::new(channel.await?) as Arc<dyn SimulatedChannel>)
        })
    },
};

/// The route of the calls that post.
pub const POST: &str = "POST message";
/// The gateway.
pub const GATEWAY: &str = "gateway1";
/// The token of the API account.
pub const TOKEN: &str = "a-token-for-the-testbed";

/// A server with one gateway.
pub struct MatterbridgeChannel {
    /// The server.
    pub sim: MatterbridgeSim,
    token: Option<String>,
    files: FileServer,
}

impl MatterbridgeChannel {
    /// Starts it.
    pub async fn open(options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            token: options.token.clone(),
            sim: MatterbridgeSim::start(options).await?,
            files: FileServer::start().await?,
        })
    }
}

#[async_trait]
impl SimulatedChannel for MatterbridgeChannel {
    fn kind(&self) -> &'static SimulatorKind {
        &SIMULATOR
    }

    fn url(&self) -> String {
        self.sim.url()
    }

    fn section(&self, api: Route<'_>, feed: Route<'_>) -> String {
        format!(
            "api = {}\naccount = \"api.footbridge\"\nmedia_hosts = [{}]",
            quoted(&feed(&api(&self.sim.url()))),
            quoted(&self.files.host()),
        )
    }

    fn token(&self) -> String {
        self.token.clone().unwrap_or_default()
    }

    // An API account has one token.
    fn add_account(&self) -> Option<String> {
        None
    }

    fn file_server(&self) -> &FileServer {
        &self.files
    }

    fn name(&self) -> String {
        GATEWAY.to_owned()
    }

    fn add_channel(&self) -> (String, String) {
        ("gateway2".to_owned(), "gateway2".to_owned())
    }

    fn act(&self, action: UserAction<'_>) -> Option<String> {
        let from_bob = |text: &str| Message::from_irc(GATEWAY, "bob", text);
        let message = match action {
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
            UserAction::Join => {
                Message::from_irc(GATEWAY, "system", "carol joins").event("join_leave")
            }
            // IRC notices are relayed to IRC only.
            UserAction::Notice(_)
            | UserAction::Delete(_)
            | UserAction::React(..)
            | UserAction::Unreact(..)
            | UserAction::Attach(_)
            | UserAction::AddFile(..) => return None,
        };
        Some(self.sim.say(message).timestamp)
    }

    fn say_in(&self, channel: &str, text: &str) {
        self.sim.say(Message::from_irc(channel, "bob", text));
    }

    // An API account never receives its own messages.
    fn say_as_bridge(&self, _text: &str) -> Option<String> {
        None
    }

    fn shown(&self) -> Vec<(String, String)> {
        let posted = self.sim.posted().into_iter();
        let shown = posted.map(|message| {
            let files = message.extra.get("file").and_then(|files| files.as_array());
            let files = files.into_iter().flatten().map(|file| {
                let text = |key: &str| {
                    let text = file.get(key).and_then(|text| text.as_str());
                    text.unwrap_or_default().to_owned()
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
            (message.timestamp.clone(), line)
        });
        shown.collect()
    }

    fn bridge_texts(&self) -> Vec<String> {
        let posted = self.sim.posted().into_iter();
        posted.map(|message| message.text).collect()
    }

    fn bridge_texts_ever(&self) -> Vec<String> {
        self.bridge_texts()
    }

    // A gateway has no profile, its people have no avatars that it stores, and nobody is banned from it.
    fn set_profile(&self, _name: &str, _topic: &str, _avatar: Vec<u8>) {}

    fn topic(&self) -> Option<String> {
        None
    }

    fn set_bob_avatar(&self, _content: Vec<u8>) {}

    fn ban(&self) {}

    fn revoke_token(&self) {
        self.sim.set_token(Some("another"));
    }

    fn accept_token(&self) {
        self.sim.set_token(self.token.as_deref());
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
        self.sim.faults().echo(true);
    }

    fn garble(&self) {
        self.sim.faults().garbage(1);
    }

    fn lost_by_itself(&self) -> Vec<String> {
        let lost = self.sim.overwritten().into_iter();
        let lost = lost.chain(self.sim.handed_out());
        lost.map(|message| message.text).collect()
    }
}
