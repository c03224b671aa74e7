//! Channels by their name in the configuration, and links to their messages.

use std::sync::PoisonError;

use footbridge_store::{Place, RemoteId};

use super::{Mattermost, errors::RequestError};
use crate::Channel;

impl Mattermost {
    /// The channel `team/channel`; the account joins it if it is open, and if `join`.
    pub(super) async fn find(&self, name: &str, join: bool) -> Result<Channel, RequestError> {
        let Some((team, channel)) = name.split_once('/') else {
            return Err(RequestError::Refused(
                "Write a channel of Mattermost as team/channel, as in its address".to_owned(),
            ));
        };
        let me = self.me().await?;
        let (team, channel) = (team.to_lowercase(), channel.to_lowercase());
        let found = self.client.find_channel(&team, &channel).await?;
        let is_open = found.kind == "O";
        match self.client.member(&found.id, &me.id).await {
            Ok(_) => {}
            Err(RequestError::Closed(_)) if is_open => {
                if join {
                    self.client.join(&found.id, &me.id).await?;
                }
            }
            Err(error) => return Err(error),
        }
        let name = format!("{team}/{channel}");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(found.id.clone(), (name.clone(), is_open));
        Ok(Channel {
            place: Place::new(&self.account.silo, &found.id),
            name,
            backfill: 0,
        })
    }

    /// The address of a message on the website.
    pub(super) fn permalink(&self, channel: &str, message: &RemoteId) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let team = known
            .get(channel)
            .and_then(|(name, _)| name.split('/').next());
        let base = self.url.as_str().trim_end_matches('/');
        format!("{base}/{}/pl/{message}", team.unwrap_or("_redirect"))
    }
}
