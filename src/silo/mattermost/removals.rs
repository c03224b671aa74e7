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
/// The same where an edit gave the message other files or fewer posts.
const REPLACED: &str = "*(replaced by an edit)*";

impl Mattermost {
    /// Takes a post back. Mattermost deletes a whole thread with its first post, whoever wrote what stands in it: where
    /// others have answered, the text goes and the thread stays. Who deletes a message wants its file gone for everybody, so
    /// a post with a file is deleted all the same, and so is one whose text can no longer be changed. An edit (`replaced`)
    /// deletes no thread: it takes the file from the post, and leaves a post that can no longer be changed as it is.
    pub(super) async fn remove(&self, target: &RemoteId, replaced: bool) -> Result<Done, Fault> {
        let id = target.as_str();
        let post = match self.client.post(id).await {
            Err(Fault::Gone) => return Ok(Done::Gone(target.clone())),
            found => found?,
        };
        let answered = post.root_id.is_empty() && post.reply_count > 0;
        let ours = post.user_id == self.me().await?.id;
        if answered && ours && (replaced || post.metadata.files.is_empty()) {
            let emptied = if replaced {
                self.client.empty(id, REPLACED).await
            } else {
                self.client.patch(id, EMPTIED).await
            };
            match emptied {
                Ok(left) if left.metadata.files.is_empty() => {
                    return Ok(Done::Emptied(target.clone()));
                }
                // The file is still there: the post goes with the message, once that is deleted.
                Ok(_) => return Ok(Done::Changed(target.clone())),
                Err(Fault::Gone) => return Ok(Done::Gone(target.clone())),
                Err(Fault::TooLate | Fault::Forbidden | Fault::Refused(_) | Fault::Rejected(_)) => {
                }
                Err(fault) => return Err(fault),
            }
        }
        if answered && replaced {
            return Ok(Done::Changed(target.clone()));
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
