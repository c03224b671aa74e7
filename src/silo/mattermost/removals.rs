//! How posts of ours are taken back, and which deletions that the feed tells of are our own.

use footbridge_core::outlet::Done;
use footbridge_store::{Cascade, Millis, Place, RemoteId};

use super::{
    Mattermost,
    api::Post,
    errors::RequestError,
    listener::{EventSource, ListenError, Listener},
};

/// What stands in the place of a post that was taken back and has a thread. Mattermost's apps say the same of a deleted post.
const DELETED_TEXT: &str = "*(message deleted)*";
/// The same where an edit gave the message other files or fewer posts.
const REPLACED_TEXT: &str = "*(replaced by an edit)*";

/// The most answers that are noted one by one. Of a longer thread that we delete, and of one that cannot be read, every answer
/// counts as gone with it.
const MAX_REPLIES: u64 = 1_000;

/// The most reactions that are taken from a post before it is emptied. Mattermost takes fewer different ones.
const MAX_REACTIONS: usize = 500;

impl Mattermost {
    /// Takes a post back. Mattermost deletes a whole thread with its first post, whoever wrote what stands in it: where
    /// others have answered, the text goes and the thread stays. Who deletes a message wants its file gone for everybody, so
    /// a post with a file is deleted all the same, and so is one whose text can no longer be changed. An edit (`replaced`)
    /// deletes no thread: it takes the file from the post, and leaves a post that can no longer be changed as it is.
    pub(super) async fn remove(
        &self,
        target: &RemoteId,
        replaced: bool,
    ) -> Result<Done, RequestError> {
        let id = target.as_str();
        let post = match self.client.post(id).await {
            Err(RequestError::Gone) => return Ok(Done::Deleted(target.clone())),
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
                    Err(fault) => Err(fault),
                }
            };
            match emptied {
                Ok(left) if !left.has_files() => return Ok(Done::Emptied(target.clone())),
                // The file is still there, or the text is.
                Ok(_)
                | Err(
                    RequestError::TooLate
                    | RequestError::Forbidden
                    | RequestError::Refused(_)
                    | RequestError::Rejected(_),
                ) => {}
                Err(RequestError::Gone) => return Ok(Done::Deleted(target.clone())),
                Err(fault) => return Err(fault),
            }
        }
        if answered && replaced {
            return Ok(Done::Leftover(target.clone()));
        }
        // Somebody may answer to the first post of a thread before it goes.
        if post.root_id.is_empty() {
            return match self.thread_removal(&post).await {
                Ok(along) => Ok(Done::NeedsCascade(along)),
                Err(RequestError::Gone) => Ok(Done::Deleted(target.clone())),
                Err(fault) => Err(fault),
            };
        }
        self.delete(target).await
    }

    /// Deletes a post, and its thread with it.
    pub(super) async fn delete(&self, target: &RemoteId) -> Result<Done, RequestError> {
        let id = target.as_str();
        // Before the request: Mattermost publishes the removal before it answers.
        self.echoes.note_removing(id);
        match self.client.delete(id).await {
            Ok(()) => Ok(Done::Deleted(target.clone())),
            Err(fault) => {
                if fault.is_answer() {
                    self.echoes.cancel_removing(id);
                }
                Err(fault)
            }
        }
    }

    /// Takes our reactions from a post: nobody is of any mind about what is deleted.
    async fn withdraw(&self, id: &str) -> Result<(), RequestError> {
        let me = &self.me().await?.id;
        // The words matter more.
        let or_not = |fault| match fault {
            RequestError::Forbidden | RequestError::Refused(_) | RequestError::Rejected(_) => {
                Ok(())
            }
            fault => Err(fault),
        };
        let reactions = match self.client.reactions(id).await {
            Ok(reactions) => reactions,
            Err(fault) => return or_not(fault),
        };
        let ours = reactions
            .into_iter()
            .filter(|reaction| reaction.user_id == *me);
        for reaction in ours.take(MAX_REACTIONS) {
            let ended = self.client.unreact(id, &reaction.emoji_name).await;
            ended.or_else(or_not)?;
        }
        Ok(())
    }

    /// What goes with the first post of a thread: the answers that are there now, and those that are written until then.
    async fn thread_removal(&self, post: &Post) -> Result<Cascade, RequestError> {
        let mut along = Cascade {
            root: post.remote(),
            others: Vec::new(),
            until: Millis(0),
        };
        if post.reply_count > MAX_REPLIES {
            return Ok(along);
        }
        if post.reply_count == 0 {
            let written = Millis(post.create_at);
            along.until = self.client.now().map_or(written, |now| now.max(written));
            return Ok(along);
        }
        let thread = match self.client.thread(&post.id).await {
            Ok(thread) => thread,
            // Nobody tells which they are.
            Err(RequestError::Forbidden | RequestError::Refused(_) | RequestError::Rejected(_)) => {
                return Ok(along);
            }
            Err(fault) => return Err(fault),
        };
        let answers = thread
            .iter()
            .filter(|answer| answer.root_id == post.id && !answer.is_deleted());
        along.others = answers.map(Post::remote).collect();
        let newest = thread.iter().map(|post| Millis(post.create_at)).max();
        along.until = newest.max(self.client.now()).unwrap_or_default();
        Ok(along)
    }
}

impl Listener {
    /// Whether a post is gone because we deleted it, or the first post of its thread, with which the thread goes.
    pub(super) async fn was_removed_by_us(
        &self,
        place: &Place,
        post: &Post,
        heard: EventSource<'_>,
    ) -> Result<bool, ListenError> {
        if self.shared.echoes.has_removed(&post.id) {
            return Ok(true);
        }
        let is_answer = !post.root_id.is_empty();
        // Of a thread that goes, Mattermost publishes the first post only: whatever else is told, somebody has deleted.
        if is_answer && matches!(heard, EventSource::Live { .. }) {
            return Ok(false);
        }
        let root = RemoteId::from(if is_answer { &*post.root_id } else { &*post.id });
        let store = self.inbox.store();
        let gone = (&post.remote(), Millis(post.create_at));
        if !store.is_cascade_deleted(place, &root, gone).await? {
            return Ok(false);
        }
        let known = store.find_message(place, &root).await?;
        if !is_answer || known.is_some_and(|root| root.deleted) {
            return Ok(true);
        }
        // Nobody knows yet whether we deleted the thread.
        match self.shared.client.post(root.as_str()).await {
            Err(RequestError::Gone) => Ok(true),
            Err(fault) => Err(fault.into()),
            Ok(_) => Ok(false),
        }
    }
}
