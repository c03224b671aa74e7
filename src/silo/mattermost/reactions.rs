//! What people think of posts → the journal: as the WebSocket tells it, and by comparing what a reading shows with what is
//! known, because an end that was missed leaves no trace but that something is not there any more.

use std::time::Duration;

use footbridge_core::reactions::StoredReaction;
use footbridge_store::{Arrival, Batch, LinkedMessage, Place, RemoteId};

use super::{
    api::{Post, Reaction},
    arrival,
    listener::{ListenError, Listener},
};

/// How long is waited for the id of a post of ours.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

impl Listener {
    /// Writes down that a reaction was added, or that it ended.
    pub async fn take_reaction(
        &self,
        channel: &str,
        reaction: &Reaction,
        added: bool,
    ) -> Result<(), ListenError> {
        let Some(place) = self.place(channel) else {
            return Ok(());
        };
        let post = RemoteId::from(reaction.post_id.as_str());
        if reaction.user_id == self.me || !self.is_known(&place, &post).await? {
            return Ok(());
        }
        let people = std::iter::once(reaction.user_id.clone()).collect();
        self.shared
            .people
            .learn(&self.shared.client, people)
            .await?;
        let arrival = if added {
            let name = self.shared.people.name(&reaction.user_id, "");
            arrival::reaction(&place, reaction, &name)
        } else {
            super::emoji::key_of(&reaction.emoji_name).map(|key| {
                let ended = (reaction.user_id.as_str(), key.as_str());
                let now = self.inbox.clock().now().0;
                arrival::reaction_removed(&place, &reaction.post_id, ended, now)
            })
        };
        let batch = Batch {
            arrivals: arrival.into_iter().collect(),
            ..Batch::default()
        };
        self.inbox.accept(batch).await?;
        Ok(())
    }

    /// What a reading of a post tells of reactions that was not heard. Those that are known by the journal already are
    /// recognised by it.
    pub(super) async fn compare_reactions(
        &self,
        place: &Place,
        post: &Post,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), ListenError> {
        let shown = &post.metadata.reactions;
        let remote = post.remote();
        let waits = arrivals
            .iter()
            .any(|arrival| arrival.message.as_ref() == Some(&remote));
        // What was never changed has no reactions, and never had.
        let is_touched = post.update_at > post.create_at || !shown.is_empty();
        if !is_touched || !(waits || self.is_known(place, &remote).await?) {
            return Ok(());
        }
        for reaction in shown.iter().filter(|one| one.user_id != self.me) {
            let name = self.shared.people.name(&reaction.user_id, "");
            let reaction = Reaction {
                post_id: post.id.clone(),
                ..reaction.clone()
            };
            arrivals.extend(arrival::reaction(place, &reaction, &name));
        }
        let noted = self.inbox.store().reactions_from(place, &remote).await?;
        let noted = noted
            .iter()
            .filter_map(|letter| serde_json::from_slice::<StoredReaction>(letter).ok());
        for letter in noted {
            let is_shown = shown.iter().any(|one| {
                one.user_id == letter.user
                    && super::emoji::key_of(&one.emoji_name).as_ref() == Some(&letter.key)
            });
            if !is_shown {
                let ended = (letter.user.as_str(), letter.key.as_str());
                arrivals.push(arrival::reaction_removed(
                    place,
                    &post.id,
                    ended,
                    post.update_at,
                ));
            }
        }
        Ok(())
    }

    async fn is_known(&self, place: &Place, post: &RemoteId) -> Result<bool, ListenError> {
        let link = self.link(place, post).await?;
        Ok(link.is_some_and(|link| !link.deleted))
    }

    /// What is known of a post. Somebody may answer to one of ours before we know its id.
    pub(super) async fn link(
        &self,
        place: &Place,
        post: &RemoteId,
    ) -> Result<Option<LinkedMessage>, ListenError> {
        let link = self.inbox.store().find_message(place, post).await?;
        if link.is_some() {
            return Ok(link);
        }
        match tokio::time::timeout(LINK_TIMEOUT, self.inbox.wait_settled(place)).await {
            Ok(settled) => settled?,
            // Mattermost does not answer. What is missed by that is found by the reading that follows.
            Err(_) => return Ok(None),
        }
        Ok(self.inbox.store().find_message(place, post).await?)
    }
}
