//! Changes of existing posts: edits, reactions, deletions. Mattermost's error is the same for a post that does not
//! exist and for a missing right, so the client checks which it is.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    api::{Listing, Post, Reaction},
    client::Client,
    errors::{FORBIDDEN_CHANNEL, RequestError, Subject},
};
use crate::rest::Call;

impl Client {
    /// A post.
    pub async fn post(&self, id: &str) -> Result<Post, RequestError> {
        let found = self.ask(Call::get(Subject::Message, &["posts", id])).await;
        found.map_err(|error| match error {
            // An account that may not even read it was removed from its channel.
            RequestError::Forbidden(_) => RequestError::Closed(FORBIDDEN_CHANNEL),
            other => other,
        })
    }

    /// The posts of a thread, including the first post `id`.
    pub async fn thread(&self, id: &str) -> Result<Vec<Post>, RequestError> {
        let path = ["posts", id, "thread"];
        let listing = self
            .ask::<Listing>(Call::get(Subject::Message, &path))
            .await?;
        Ok(listing.oldest_first().0)
    }

    /// The reactions to a post. The response is null if there are none.
    pub async fn reactions(&self, id: &str) -> Result<Vec<Reaction>, RequestError> {
        let path = ["posts", id, "reactions"];
        let found: Option<_> = self.ask(Call::get(Subject::Message, &path)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Changes the text of a post of the bridge.
    pub async fn patch(&self, id: &str, text: &str) -> Result<Post, RequestError> {
        self.change(id, json!({ "message": text })).await
    }

    /// The same, and removes all files. The returned post has the files that the server did not remove.
    pub async fn empty(&self, id: &str, text: &str) -> Result<Post, RequestError> {
        self.change(id, json!({ "message": text, "file_ids": [] }))
            .await
    }

    /// <https://api.mattermost.com/#tag/posts/operation/PatchPost>
    async fn change(&self, id: &str, what: Value) -> Result<Post, RequestError> {
        let path = ["posts", id, "patch"];
        let call = Call::new(Method::PUT, Subject::Message, &path).json(what);
        match self.ask(call).await {
            Err(error) => Err(self.explained(id, error).await),
            patched => patched,
        }
    }

    /// Deletes a post. A post that does not exist any more is success.
    pub async fn delete(&self, id: &str) -> Result<(), RequestError> {
        let path = ["posts", id];
        let deleted = self
            .send(Call::new(Method::DELETE, Subject::Message, &path))
            .await;
        self.ignore_gone(id, deleted).await
    }

    async fn ignore_gone(
        &self,
        id: &str,
        done: Result<Vec<u8>, RequestError>,
    ) -> Result<(), RequestError> {
        let Err(error) = done else {
            return Ok(());
        };
        match self.explained(id, error).await {
            RequestError::Gone(_) => Ok(()),
            error => Err(error),
        }
    }

    /// Why a change of a post was forbidden. Mattermost's error is the same for a post that does not exist and for a
    /// missing right; only reading the post and the account's membership in its channel tells which.
    async fn explained(&self, id: &str, error: RequestError) -> RequestError {
        if !matches!(error, RequestError::Forbidden(_)) {
            return error;
        }
        let post = match self.post(id).await {
            Ok(post) => post,
            Err(why) => return why,
        };
        // Everybody may read an open channel, also an account that was removed from it.
        match self.member(&post.channel_id, "me").await {
            Ok(_) => error,
            Err(RequestError::Closed(_)) => RequestError::Closed(FORBIDDEN_CHANNEL),
            Err(why) => why,
        }
    }

    /// Adds a reaction to a post. An existing one is success.
    pub async fn react(&self, post: &str, emoji: &str) -> Result<(), RequestError> {
        let me = self.me().await?.id;
        let call = Call::new(Method::POST, Subject::Reaction, &["reactions"]);
        let body = json!({ "user_id": me, "post_id": post, "emoji_name": emoji });
        match self.send(call.json(body)).await {
            Err(error) => Err(self.explained(post, error).await),
            Ok(_) => Ok(()),
        }
    }

    /// Removes a reaction of the bridge. One that does not exist any more is success.
    pub async fn unreact(&self, post: &str, emoji: &str) -> Result<(), RequestError> {
        let path = ["users", "me", "posts", post, "reactions", emoji];
        let ended = self
            .send(Call::new(Method::DELETE, Subject::Message, &path))
            .await;
        self.ignore_gone(post, ended).await
    }
}
