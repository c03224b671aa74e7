//! Changes of posts that exist: a new text, a reaction, their end. Mattermost forbids changes of what does not exist in the
//! same words as those that the account has no right to, so that a refusal is looked into before it is believed.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    api::{Listing, Post, Reaction},
    client::{Call, Client},
    errors::{FORBIDDEN_CHANNEL, RequestError, Subject},
};

impl Client {
    /// A post.
    pub async fn post(&self, id: &str) -> Result<Post, RequestError> {
        let found = self.ask(Call::get(Subject::Post, &["posts", id])).await;
        found.map_err(|fault| match fault {
            // Who may not even read it was removed from its channel.
            RequestError::Forbidden => RequestError::Closed(FORBIDDEN_CHANNEL),
            other => other,
        })
    }

    /// What is in the thread of a post, the post itself included.
    pub async fn thread(&self, id: &str) -> Result<Vec<Post>, RequestError> {
        let path = ["posts", id, "thread"];
        let listing = self.ask::<Listing>(Call::get(Subject::Post, &path)).await?;
        Ok(listing.oldest_first().0)
    }

    /// What people think of a post. There is no list where nobody thinks anything.
    pub async fn reactions(&self, id: &str) -> Result<Vec<Reaction>, RequestError> {
        let path = ["posts", id, "reactions"];
        let found: Option<_> = self.ask(Call::get(Subject::Post, &path)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Changes the text of a post of ours.
    pub async fn patch(&self, id: &str, text: &str) -> Result<Post, RequestError> {
        self.change(id, json!({ "message": text })).await
    }

    /// The same, and takes all files from it. What the server left of them stands in the post that it answers with.
    pub async fn empty(&self, id: &str, text: &str) -> Result<Post, RequestError> {
        self.change(id, json!({ "message": text, "file_ids": [] }))
            .await
    }

    /// <https://api.mattermost.com/#tag/posts/operation/PatchPost>
    async fn change(&self, id: &str, what: Value) -> Result<Post, RequestError> {
        let path = ["posts", id, "patch"];
        let mut call = Call::new(Method::PUT, Subject::Post, &path);
        call.body = Some(what);
        match self.ask(call).await {
            Err(fault) => Err(self.explained(id, fault).await),
            patched => patched,
        }
    }

    /// Deletes a post. Gone already is success.
    pub async fn delete(&self, id: &str) -> Result<(), RequestError> {
        let path = ["posts", id];
        let deleted = self
            .send(Call::new(Method::DELETE, Subject::Post, &path))
            .await;
        self.ignore_gone(id, deleted).await
    }

    async fn ignore_gone(
        &self,
        id: &str,
        done: Result<Vec<u8>, RequestError>,
    ) -> Result<(), RequestError> {
        let Err(fault) = done else {
            return Ok(());
        };
        match self.explained(id, fault).await {
            RequestError::Gone => Ok(()),
            fault => Err(fault),
        }
    }

    /// Why a change of a post was forbidden. Mattermost forbids changes of posts that do not exist in the same words as those
    /// that the account has no right to; only reading the post tells them apart, and asking whether we are in its channel.
    async fn explained(&self, id: &str, fault: RequestError) -> RequestError {
        if !matches!(fault, RequestError::Forbidden) {
            return fault;
        }
        let post = match self.post(id).await {
            Ok(post) => post,
            Err(why) => return why,
        };
        // Everybody may read an open channel, also whoever was removed from it.
        match self.member(&post.channel_id, "me").await {
            Ok(_) => fault,
            Err(RequestError::Closed(_)) => RequestError::Closed(FORBIDDEN_CHANNEL),
            Err(why) => why,
        }
    }

    /// Reacts to a post. That we have done so already is success.
    pub async fn react(&self, post: &str, emoji: &str) -> Result<(), RequestError> {
        let me = self.me().await?.id;
        let mut call = Call::new(Method::POST, Subject::Reaction, &["reactions"]);
        call.body = Some(json!({ "user_id": me, "post_id": post, "emoji_name": emoji }));
        match self.send(call).await {
            Err(fault) => Err(self.explained(post, fault).await),
            Ok(_) => Ok(()),
        }
    }

    /// Takes a reaction of ours back. Gone already is success.
    pub async fn unreact(&self, post: &str, emoji: &str) -> Result<(), RequestError> {
        let path = ["users", "me", "posts", post, "reactions", emoji];
        let ended = self
            .send(Call::new(Method::DELETE, Subject::Post, &path))
            .await;
        self.ignore_gone(post, ended).await
    }
}
