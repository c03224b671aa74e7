//! Writes reactions to the journal: those of the WebSocket's events, and those found by comparing a post with the
//! stored reactions, because a removal that was missed only shows as an absent reaction.

use std::time::Duration;

use footbridge_core::{
    inbox::{Arrival, Batch},
    reactions::StoredReaction,
};
use footbridge_store::{LinkedMessage, Place, RemoteId};

use super::{
    api::{Post, Reaction},
    arrival,
    listener::{ListenError, Listener},
};

/// How long to wait for the id of a post of the bridge.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

impl Listener {
    /// Writes an added or removed reaction.
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
                let (post, user) = (&reaction.post_id, &reaction.user_id);
                let now = self.inbox.clock().now().0;
                arrival::reaction_removed(&place, post, user, &key, now)
            })
        };
        let batch = Batch {
            arrivals: arrival.into_iter().collect(),
            ..Batch::default()
        };
        self.inbox.accept(batch).await?;
        Ok(())
    }

    /// Finds the reactions of a post that the WebSocket missed. The journal recognises known ones.
    pub(super) async fn compare_reactions(
        &self,
        place: &Place,
        post: &Post,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), ListenError> {
        let shown = &post.metadata.reactions;
        let remote = post.remote();
        let is_pending = arrivals
            .iter()
            .any(|arrival| arrival.message.as_ref() == Some(&remote));
        // A post that never changed has no reactions, and never had any.
        let is_touched = post.update_at > post.create_at || !shown.is_empty();
        if !is_touched || !(is_pending || self.is_known(place, &remote).await?) {
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
        let stored = self.inbox.store().reactions_from(place, &remote).await?;
        let stored = stored
            .iter()
            .filter_map(|bytes| serde_json::from_slice::<StoredReaction>(bytes).ok());
        for old in stored {
            let is_shown = shown.iter().any(|one| {
                one.user_id == old.user
                    && super::emoji::key_of(&one.emoji_name).as_ref() == Some(&old.key)
            });
            if !is_shown {
                arrivals.push(arrival::reaction_removed(
                    place,
                    &post.id,
                    &old.user,
                    &old.key,
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

    /// The link of a post. Somebody may reply to a post of the bridge before the bridge knows its id.
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
            // Mattermost does not answer. The next reading finds what is missed here.
            Err(_) => return Ok(None),
        }
        Ok(self.inbox.store().find_message(place, post).await?)
    }
}
