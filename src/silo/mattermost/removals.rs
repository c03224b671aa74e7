//! How posts of the bridge are deleted, and which deletions in the feed are the bridge's own.

use footbridge_core::outlet::Done;
use footbridge_store::{Cascade, Millis, Place, RemoteId};

use super::{
    Mattermost,
    api::Post,
    errors::RequestError,
    listener::{EventSource, ListenError, Listener},
};

/// The text of a deleted post that has a thread. Mattermost's apps show the same for a deleted post.
const DELETED_TEXT: &str = "*(message deleted)*";
/// The same where an edit gave the message other files or fewer posts.
const REPLACED_TEXT: &str = "*(replaced by an edit)*";

/// The most replies that are recorded one by one. If the bridge deletes a longer thread, or one that it cannot read,
/// every reply counts as deleted with it.
const MAX_REPLIES: u64 = 1_000;

/// The most reactions that are removed from a post before it is emptied. Mattermost allows fewer different ones.
const MAX_REACTIONS: usize = 500;

impl Mattermost {
    /// Deletes a post. Mattermost deletes a whole thread with its first post, whoever wrote the replies: where others
    /// have replied, the post is emptied and the thread stays. Whoever deletes a message wants its file deleted for
    /// everybody, so a post with a file is deleted all the same, and so is one whose text can no longer be changed. An
    /// edit (`replaced`) deletes no thread: it removes the file from the post, and leaves a post that can no longer be
    /// changed as it is.
    pub(super) async fn remove(
        &self,
        target: &RemoteId,
        replaced: bool,
    ) -> Result<Done, RequestError> {
        let id = target.as_str();
        let post = match self.client.post(id).await {
            Err(RequestError::Gone(_)) => return Ok(Done::Deleted(target.clone())),
            found => found?,
        };
        let answered = post.root_id.is_empty() && post.reply_count > 0;
        let ours = post.user_id == self.me().await?.id;
        if answered && ours && (replaced || !post.has_files()) {
            let emptied = if replaced {
                self.client.empty(id, REPLACED_TEXT).await
            } else {
                match self.withdraw(id).await {
                    Ok(()) => self.client.patch(id, DELETED_TEXT).await,
                    Err(error) => Err(error),
                }
            };
            match emptied {
                Ok(left) if !left.has_files() => return Ok(Done::Emptied(target.clone())),
                // The file still exists, or the text does.
                Ok(_)
                | Err(
                    RequestError::TooLate(_)
                    | RequestError::Forbidden(_)
                    | RequestError::Refused(_)
                    | RequestError::Rejected(_),
                ) => {}
                Err(RequestError::Gone(_)) => return Ok(Done::Deleted(target.clone())),
                Err(error) => return Err(error),
            }
        }
        if answered && replaced {
            return Ok(Done::Leftover(target.clone()));
        }
        // Somebody may reply to the first post of a thread before it is deleted.
        if post.root_id.is_empty() {
            return match self.thread_removal(&post).await {
                Ok(cascade) => Ok(Done::NeedsCascade(cascade)),
                Err(RequestError::Gone(_)) => Ok(Done::Deleted(target.clone())),
                Err(error) => Err(error),
            };
        }
        self.delete(target).await
    }

    /// Deletes a post, and its thread with it.
    pub(super) async fn delete(&self, target: &RemoteId) -> Result<Done, RequestError> {
        let id = target.as_str();
        // Before the request: Mattermost publishes the deletion before it answers.
        self.echoes.note_removing(id);
        match self.client.delete(id).await {
            Ok(()) => Ok(Done::Deleted(target.clone())),
            Err(error) => {
                if error.is_answer() {
                    self.echoes.cancel_removing(id);
                }
                Err(error)
            }
        }
    }

    /// Removes the bridge's reactions from a post that is deleted.
    async fn withdraw(&self, id: &str) -> Result<(), RequestError> {
        let me = &self.me().await?.id;
        // An error here must not prevent the deletion of the text.
        let or_not = |error| match error {
            RequestError::Forbidden(_) | RequestError::Refused(_) | RequestError::Rejected(_) => {
                Ok(())
            }
            error => Err(error),
        };
        let reactions = match self.client.reactions(id).await {
            Ok(reactions) => reactions,
            Err(error) => return or_not(error),
        };
        let ours = reactions
            .into_iter()
            .filter(|reaction| reaction.user_id == *me);
        for reaction in ours.take(MAX_REACTIONS) {
            let removed = self.client.unreact(id, &reaction.emoji_name).await;
            removed.or_else(or_not)?;
        }
        Ok(())
    }

    /// What is deleted with the first post of a thread: the present replies, and those that are written before the
    /// deletion.
    async fn thread_removal(&self, post: &Post) -> Result<Cascade, RequestError> {
        let mut cascade = Cascade {
            root: post.remote(),
            others: Vec::new(),
            until: Millis(0),
        };
        if post.reply_count > MAX_REPLIES {
            return Ok(cascade);
        }
        if post.reply_count == 0 {
            let written = Millis(post.create_at);
            cascade.until = self.client.now().map_or(written, |now| now.max(written));
            return Ok(cascade);
        }
        let thread = match self.client.thread(&post.id).await {
            Ok(thread) => thread,
            // The replies are unknown.
            Err(
                RequestError::Forbidden(_) | RequestError::Refused(_) | RequestError::Rejected(_),
            ) => {
                return Ok(cascade);
            }
            Err(error) => return Err(error),
        };
        let answers = thread
            .iter()
            .filter(|answer| answer.root_id == post.id && !answer.is_deleted());
        cascade.others = answers.map(Post::remote).collect();
        let newest = thread.iter().map(|post| Millis(post.create_at)).max();
        cascade.until = newest.max(self.client.now()).unwrap_or_default();
        Ok(cascade)
    }
}

impl Listener {
    /// Whether a post was deleted by the bridge, itself or with the first post of its thread.
    pub(super) async fn was_removed_by_us(
        &self,
        place: &Place,
        post: &Post,
        source: EventSource<'_>,
    ) -> Result<bool, ListenError> {
        if self.shared.echoes.has_removed(&post.id) {
            return Ok(true);
        }
        let is_answer = !post.root_id.is_empty();
        // When a thread is deleted, Mattermost publishes the first post only: any other deletion event is somebody
        // else's.
        if is_answer && matches!(source, EventSource::Live { .. }) {
            return Ok(false);
        }
        let root = RemoteId::from(if is_answer { &*post.root_id } else { &*post.id });
        let store = self.inbox.store();
        let (remote, written_at) = (post.remote(), Millis(post.create_at));
        let is_ours = store.is_cascade_deleted(place, &root, &remote, written_at);
        if !is_ours.await? {
            return Ok(false);
        }
        let known = store.find_message(place, &root).await?;
        if !is_answer || known.is_some_and(|root| root.deleted) {
            return Ok(true);
        }
        // It is unknown whether the bridge deleted the thread.
        match self.shared.client.post(root.as_str()).await {
            Err(RequestError::Gone(_)) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(false),
        }
    }
}
