//! How posts of ours are taken back, and which deletions that the feed tells of are our own.

use footbridge_store::{Place, RemoteId};

use super::{
    Mattermost,
    api::Post,
    arrival,
    fault::Fault,
    listener::{Failure, Listener},
};
use crate::outlet::Done;

/// What stands in the place of a post that was taken back and has a thread. Mattermost's apps say the same of a deleted post.
const EMPTIED: &str = "*(message deleted)*";

impl Mattermost {
    /// Takes a post back. Mattermost deletes a whole thread with its first post, whoever wrote what stands in it: where
    /// others have answered, the text goes and the thread stays. A file does not go with the text, so such a post is deleted
    /// all the same, and so is one whose text can no longer be changed.
    pub(super) async fn remove(&self, target: &RemoteId) -> Result<Done, Fault> {
        let id = target.as_str();
        let post = match self.client.post(id).await {
            Err(Fault::Gone) => return Ok(Done::Gone(target.clone())),
            found => found?,
        };
        let answered = post.root_id.is_empty() && post.reply_count > 0;
        let ours = post.user_id == self.me().await?.id;
        if answered && ours && post.metadata.files.is_empty() {
            match self.client.patch(id, EMPTIED).await {
                Ok(_) => return Ok(Done::Emptied(target.clone())),
                Err(Fault::Gone) => return Ok(Done::Gone(target.clone())),
                Err(Fault::TooLate | Fault::Forbidden | Fault::Refused(_) | Fault::Rejected(_)) => {
                }
                Err(fault) => return Err(fault),
            }
        }
        // Before the request: Mattermost publishes the removal before it answers.
        self.echoes.removing(id);
        self.client.delete(id).await?;
        Ok(Done::Gone(target.clone()))
    }
}

impl Listener {
    /// Whether a post is gone because we deleted it, or the first post of its thread, with which the thread goes.
    pub(super) async fn was_removed_by_us(
        &self,
        place: &Place,
        post: &Post,
    ) -> Result<bool, Failure> {
        let echoes = &self.shared.echoes;
        if echoes.has_removed(&post.id) || post.root_id.is_empty() {
            return Ok(echoes.has_removed(&post.id));
        }
        if echoes.has_removed(&post.root_id) {
            return Ok(true);
        }
        let root = RemoteId::from(post.root_id.as_str());
        let told = arrival::deletion_fact(&post.root_id);
        Ok(self
            .inbox
            .store()
            .is_taken_back(place, &root, &told)
            .await?)
    }
}
