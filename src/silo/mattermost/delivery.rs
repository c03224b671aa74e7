//! Performs the steps of a plan, and finds out later whether a step whose response was lost happened.

use std::{borrow::Cow, time::Duration};

use footbridge_core::{
    capabilities::Attribution,
    message::{Sender, Style},
    names,
    outlet::{Content, Done, Outcome, Step},
    spool::Spooled,
};
use footbridge_store::{Copy, Millis, RemoteId};
use serde_json::{Map, json};

use super::{
    Mattermost,
    api::Post,
    capabilities::{MARKDOWN, MAX_UNITS},
    client::{NewPost, PAGE, Range},
    emoji,
    errors::{RequestError, SERVICE},
};
use crate::markdown::{ACTION_PREFIX, joined, prefix, units};

/// How far Mattermost's clock may be behind the bridge's.
const CLOCK_SKEW: Duration = Duration::from_mins(5);
/// The most pages of a search for a post of the bridge.
const MAX_PAGES: usize = 50;

impl Mattermost {
    /// Performs one step.
    pub(super) async fn step(
        &self,
        channel: &str,
        key: &str,
        step: &Step,
    ) -> Result<Done, RequestError> {
        match step {
            Step::Post {
                content, thread, ..
            } => {
                let root = thread.as_ref().map(footbridge_store::RemoteId::as_str);
                self.say(channel, content, root, key, None).await
            }
            Step::SendFile { .. } => Err(RequestError::Refused(
                "The file was not downloaded".to_owned(),
            )),
            Step::Edit {
                target,
                content,
                fallback,
                ..
            } => match self.replace(target.as_str(), content).await {
                // Gone: somebody deleted it, and an edit does not restore it. The feed reports the deletion.
                Ok(()) | Err(RequestError::Gone(_)) => Ok(Done::Edited(target.clone())),
                // The fallback makes a post, and the lane must record that before it happens.
                Err(
                    RequestError::Forbidden(_)
                    | RequestError::Refused(_)
                    | RequestError::Rejected(_),
                ) if fallback.is_some() => Err(RequestError::TooLate(&SERVICE)),
                Err(error) => Err(error),
            },
            Step::Delete { target, by_edit } => self.remove(target, *by_edit).await,
            Step::React { target, key, .. } => {
                let Some(name) = emoji::name_of(key) else {
                    return Err(RequestError::Refused(
                        "Mattermost has no such emoji".to_owned(),
                    ));
                };
                let reacted = self.client.react(target.as_str(), &name).await;
                if matches!(reacted, Err(RequestError::NoEmoji(_))) {
                    // The next plan then puts the reaction into the text line, also if another lane has noted the name
                    // before.
                    self.lacking.note(&name);
                }
                reacted?;
                Ok(Done::ReactionAdded(Copy {
                    remote: RemoteId(format!("{target}/{name}")),
                    thread: None,
                    sent_at: Millis(0),
                    file: None,
                }))
            }
            Step::Unreact { shown } => {
                if let Some((post, name)) = shown.as_str().split_once('/') {
                    self.client.unreact(post, name).await?;
                }
                Ok(Done::ReactionRemoved(shown.clone()))
            }
            // Never planned for this silo.
            Step::Bundle { .. } | Step::EditPart { .. } => Err(RequestError::Refused(
                "Mattermost takes one message at a time".to_owned(),
            )),
        }
    }

    /// Uploads a file and posts it.
    pub(super) async fn send_with(
        &self,
        channel: &str,
        key: &str,
        step: &Step,
        spooled: &Spooled,
    ) -> Result<Done, RequestError> {
        let Step::SendFile {
            file,
            content,
            thread,
            ..
        } = step
        else {
            return Err(RequestError::Refused("Only files are uploaded".to_owned()));
        };
        let name = file.safe_name();
        let id = self.client.upload(channel, &name, spooled).await?;
        let root = thread.as_ref().map(footbridge_store::RemoteId::as_str);
        self.say(channel, content, root, key, Some(&id)).await
    }

    async fn say(
        &self,
        channel: &str,
        content: &Content,
        root: Option<&str>,
        key: &str,
        file: Option<&str>,
    ) -> Result<Done, RequestError> {
        let post = match self.create(channel, content, root, key, file).await {
            // The thread was deleted: the reply becomes a post of its own.
            Err(RequestError::NoThread(_)) => {
                self.create(channel, content, None, key, file).await?
            }
            made => made?,
        };
        Ok(Done::Created(copy(&post)))
    }

    async fn create(
        &self,
        channel: &str,
        content: &Content,
        root: Option<&str>,
        key: &str,
        file: Option<&str>,
    ) -> Result<Post, RequestError> {
        let mut props = Map::new();
        let overrides = self.attribution.names() == Attribution::Override;
        if let Some(author) = content.author.as_ref().filter(|_| overrides) {
            // Apps show it as the author, also in their notifications.
            let name = names::bidi_isolate(&names::display_name(&author.name, &author.id));
            let name = name.replace('@', "@\u{200b}");
            props.insert("from_webhook".to_owned(), json!("true"));
            props.insert("override_username".to_owned(), json!(name));
            if let Some(icon) = &self.icon {
                props.insert("override_icon_url".to_owned(), json!(icon.as_str()));
            }
        }
        let text = self.text_of(content);
        let new = NewPost {
            text: &text,
            root,
            file,
        };
        let made = self.client.create(channel, new, key, props).await?;
        let named = self.inline_attribution(&made, content).await;
        named.map_err(|error| match error {
            // The message exists, even if its name could not be added.
            RequestError::Unavailable { source, .. } => RequestError::Unavailable {
                outcome: Outcome::Unknown,
                source,
            },
            other => other,
        })?;
        Ok(made)
    }

    async fn replace(&self, id: &str, content: &Content) -> Result<(), RequestError> {
        let changed = self.client.patch(id, &self.text_of(content)).await?;
        self.inline_attribution(&changed, content).await
    }

    /// The text as it is sent: with its author's name in front if the name was planned as an override that is no longer
    /// permitted.
    fn text_of<'a>(&self, content: &'a Content) -> Cow<'a, str> {
        match &content.author {
            Some(author) if self.attribution.names() == Attribution::Inline => {
                prefix_name(author, content)
            }
            _ => Cow::Borrowed(&content.text),
        }
    }

    /// Puts the author's name in front of the text if the server did not accept it as an override.
    async fn inline_attribution(&self, post: &Post, content: &Content) -> Result<(), RequestError> {
        let Some(author) = &content.author else {
            return Ok(());
        };
        let in_text = self.attribution.names() == Attribution::Inline;
        if in_text || post.props.override_username.is_some() {
            return Ok(());
        }
        self.attribution.refused();
        let text = prefix_name(author, content);
        self.client.patch(&post.id, &text).await.map(drop)
    }

    /// The post of a step whose response was lost, if it exists. Mattermost stores the key with the post, but
    /// deduplicates by it for half a minute only.
    pub(super) async fn find_made_post(
        &self,
        channel: &str,
        key: &str,
        since: Millis,
    ) -> Result<Option<Post>, RequestError> {
        let skew = i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or_default();
        let since = since.0.saturating_sub(skew);
        // Anybody in the channel can read a key and set it on a post of their own.
        let me = &self.me().await?.id;
        for page in 0..MAX_PAGES {
            let posts = self.client.posts(channel, &Range::Newest(page)).await?;
            let is_last =
                posts.len() < PAGE || posts.first().is_some_and(|post| post.create_at < since);
            let found = posts
                .into_iter()
                .find(|post| post.user_id == *me && post.props.mark.as_deref() == Some(key));
            if found.is_some() || is_last {
                return Ok(found);
            }
        }
        Err(RequestError::Refused(
            "so many posts followed it that nobody can tell whether it arrived".to_owned(),
        ))
    }
}

/// Whether a step may make a post. Repeating any other step changes nothing.
pub(super) fn may_post(step: &Step) -> bool {
    match step {
        Step::Post { .. } | Step::SendFile { .. } => true,
        // The fallback post has the same key.
        Step::Edit { fallback, .. } => fallback.is_some(),
        _ => false,
    }
}

/// Puts the name in front, if there is space.
fn prefix_name<'a>(author: &Sender, content: &'a Content) -> Cow<'a, str> {
    let name = names::display_name(&author.name, &author.id);
    let action = content.text.strip_prefix(ACTION_PREFIX);
    let (style, text) = match (content.style, action) {
        (Style::Emote | Style::Notice, Some(text)) => (Style::Emote, text),
        (style, _) => (style, content.text.as_str()),
    };
    let named = joined(&prefix(&name, style, MARKDOWN), text);
    if units(&named) > MAX_UNITS {
        Cow::Borrowed(&content.text)
    } else {
        Cow::Owned(named)
    }
}

/// A post that was found as that of a step. The line that replaces a file which was refused has the same key as the file's post.
pub(super) fn copy_of_step(post: &Post, step: &Step) -> Copy {
    let file = match step {
        Step::SendFile { file, .. } if !post.has_files() => Some(file),
        _ => None,
    };
    Copy {
        file: file.map(|file| Copy::placeholder_for(&file.digest())),
        ..copy(post)
    }
}

/// A post of the bridge as a copy.
pub(super) fn copy(post: &Post) -> Copy {
    Copy {
        remote: post.remote(),
        thread: post.thread(),
        sent_at: post.sent_at(),
        file: None,
    }
}

#[cfg(test)]
mod tests {
    use footbridge_core::file::File;

    use super::*;

    #[test]
    fn a_line_that_was_posted_instead_of_a_file_is_found_as_that_line() {
        let step = Step::SendFile {
            file: File {
                source: "mxc://x/cat".to_owned(),
                ..File::default()
            },
            content: Content {
                text: String::new(),
                html: None,
                style: Style::Text,
                author: None,
                mentions: Vec::new(),
            },
            thread: None,
            reply_to: None,
            fallback: None,
        };
        let post = |files: serde_json::Value| -> Post {
            let post = json!({ "id": "p", "channel_id": "c", "user_id": "me", "create_at": 1, "file_ids": files });
            serde_json::from_value(post).unwrap()
        };
        assert!(copy_of_step(&post(json!([])), &step).is_file_placeholder());
        assert_eq!(copy_of_step(&post(json!(["f"])), &step).file, None);
    }
}
