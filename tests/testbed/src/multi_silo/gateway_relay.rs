//! What a Matterbridge does whose gateway links its API account to a channel of a Mattermost: it relays messages both
//! ways.

use std::time::Duration;

use tokio::task::AbortHandle;

use super::SiloChannel;
use footbridge_simulators::{
    matterbridge::{MatterbridgeChannel, Message},
    mattermost::MattermostChannel,
};

/// How often both ends are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The running relay. Dropping it stops it.
pub struct GatewayRelay(AbortHandle);

impl GatewayRelay {
    /// Links a gateway to a channel; `None` if the channels are of other kinds.
    pub fn between(gateway: &SiloChannel, channel: &SiloChannel) -> Option<Self> {
        let api = gateway.of::<MatterbridgeChannel>()?.sim.clone();
        let channel = channel.of::<MattermostChannel>()?;
        let (chat, place) = (channel.sim.clone(), channel.channel.id.clone());
        let own = chat.add_bot("matterbridge");
        chat.join(&place, &own.id);
        let name = gateway.name();
        let task = tokio::spawn(async move {
            let (mut posted, mut relayed) = (0, 0);
            loop {
                let out = api.posted();
                for message in out.iter().skip(posted) {
                    let text = match message.event.as_str() {
                        "user_action" => format!("*{}*", message.text),
                        _ => message.text.clone(),
                    };
                    chat.say(&place, &own.id, &format!("[{}] {text}", message.username));
                }
                posted = out.len();
                let back = chat.ever(&place);
                for post in back
                    .iter()
                    .skip(relayed)
                    .filter(|post| post.user_id != own.id)
                {
                    api.say(Message {
                        text: post.message.clone(),
                        channel: "town".to_owned(),
                        username: chat.name_of(&post.user_id),
                        userid: post.user_id.clone(),
                        account: "mattermost.team".to_owned(),
                        protocol: "mattermost".to_owned(),
                        gateway: name.clone(),
                        ..Message::default()
                    });
                }
                relayed = back.len();
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Some(Self(task.abort_handle()))
    }
}

impl Drop for GatewayRelay {
    fn drop(&mut self) {
        self.0.abort();
    }
}
