//! Performs the steps of a plan, and finds out later whether a step whose answer was lost happened.

use std::{borrow::Cow, time::Duration};

use footbridge_core::{
    message::{Sender, Style},
    names,
    outlet::{Content, Done, Outcome, Step},
    spool::Spooled,
};
use footbridge_store::{Copy, Millis, RemoteId};
use serde_json::{Map, json};

use super::{
    MAX_UNITS, Mattermost,
    api::Post,
    client::{PAGE, Range},
    emoji,
    errors::RequestError,
};
use crate::{
    markdown::{Flavour, joined, prefix, units},
    plan::{ACTION_PREFIX, Attribution},
};

/// How far Mattermost's clock may stand behind ours.
const CLOCK_SKEW: Duration = Duration::from_mins(5);
/// The most pages that are searched for a post of ours.
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
                self.say(channel, (content, root), key, None).await
            }
            Step::SendFile { .. } => {
                Err(RequestError::Refused("A file was not fetched".to_owned()))
            }
            Step::Edit {
                target,
                content,
                fallback,
                ..
            } => match self.replace(target.as_str(), content).await {
                // Gone: somebody deleted it, and a new text does not bring it back. The feed tells of the deletion.
                Ok(()) | Err(RequestError::Gone) => Ok(Done::Edited(target.clone())),
                // What is done instead makes a message, and the lane must note that before it happens.
                Err(
                    RequestError::Forbidden | RequestError::Refused(_) | RequestError::Rejected(_),
                ) if fallback.is_some() => Err(RequestError::TooLate),
                Err(fault) => Err(fault),
            },
            Step::Delete { target, by_edit } => self.remove(target, *by_edit).await,
            Step::React { target, key, .. } => {
                let Some(name) = emoji::name_of(key) else {
                    return Err(RequestError::Refused(
                        "Mattermost has no such emoji".to_owned(),
                    ));
                };
                let reacted = self.client.react(target.as_str(), &name).await;
                if matches!(reacted, Err(RequestError::NoEmoji)) {
                    // Planned anew it is told, also where another lane found out meanwhile.
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
            // Never planned for this side.
            Step::Bundle { .. } | Step::EditPart { .. } => Err(RequestError::Refused(
                "Mattermost takes one message at a time".to_owned(),
            )),
        }
    }

    /// Uploads a file and writes the post that carries it.
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
        let id = self.client.upload(channel, (&name, spooled)).await?;
        let root = thread.as_ref().map(footbridge_store::RemoteId::as_str);
        self.say(channel, (content, root), key, Some(&id)).await
    }

    async fn say(
        &self,
        channel: &str,
        (content, root): (&Content, Option<&str>),
        key: &str,
        file: Option<&str>,
    ) -> Result<Done, RequestError> {
        let post = match self.create(channel, (content, root), key, file).await {
            // Its thread was deleted meanwhile: what was said in it stands by itself.
            Err(RequestError::NoThread) => self.create(channel, (content, None), key, file).await?,
            made => made?,
        };
        Ok(Done::Created(copy(&post)))
    }

    async fn create(
        &self,
        channel: &str,
        (content, root): (&Content, Option<&str>),
        key: &str,
        file: Option<&str>,
    ) -> Result<Post, RequestError> {
        let mut props = Map::new();
        let beside = self.attribution.names() == Attribution::Override;
        if let Some(author) = content.author.as_ref().filter(|_| beside) {
            // It stands beside the text, and in the notices that apps make of it.
            let name = names::bidi_isolate(&names::display_name(&author.name, &author.id));
            let name = name.replace('@', "@\u{200b}");
            props.insert("from_webhook".to_owned(), json!("true"));
            props.insert("override_username".to_owned(), json!(name));
            if let Some(icon) = &self.icon {
                props.insert("override_icon_url".to_owned(), json!(icon.as_str()));
            }
        }
        let made = self
            .client
            .create(channel, (&self.text_of(content), root, file), key, props)
            .await?;
        let named = self.inline_attribution(&made, content).await;
        named.map_err(|fault| match fault {
            // The message exists, whatever became of its name.
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

    /// The text as it is sent: with its author's name in front if that was to stand beside it, but no longer may.
    fn text_of<'a>(&self, content: &'a Content) -> Cow<'a, str> {
        match &content.author {
            Some(author) if self.attribution.names() == Attribution::Inline => {
                prefix_name(author, content)
            }
            _ => Cow::Borrowed(&content.text),
        }
    }

    /// A name that should stand beside the text and does not is put in front of it.
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

    /// The post that a step made whose answer was lost, if it did. Mattermost keeps the key with the post, but makes one
    /// post of the same key for half a minute only.
    pub(super) async fn find_made_post(
        &self,
        channel: &str,
        key: &str,
        since: Millis,
    ) -> Result<Option<Post>, RequestError> {
        let skew = i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or_default();
        let since = since.0.saturating_sub(skew);
        // Whoever reads the channel can read a key there, and write it below a post of their own.
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
        Ok(None)
    }
}

/// Whether a step may make a post. Whatever else we do twice changes nothing the second time.
pub(super) fn may_post(step: &Step) -> bool {
    match step {
        Step::Post { .. } | Step::SendFile { .. } => true,
        // What is posted instead has the same key.
        Step::Edit { fallback, .. } => fallback.is_some(),
        _ => false,
    }
}

/// With the name in front, as far as there is room for it.
fn prefix_name<'a>(author: &Sender, content: &'a Content) -> Cow<'a, str> {
    let name = names::display_name(&author.name, &author.id);
    let action = content.text.strip_prefix(ACTION_PREFIX);
    let (style, text) = match (content.style, action) {
        (Style::Emote | Style::Notice, Some(text)) => (Style::Emote, text),
        (style, _) => (style, content.text.as_str()),
    };
    let named = joined(&prefix(&name, style, Flavour::Mattermost), text);
    if units(&named) > MAX_UNITS {
        Cow::Borrowed(&content.text)
    } else {
        Cow::Owned(named)
    }
}

/// A post of ours as a copy.
pub(super) fn copy(post: &Post) -> Copy {
    Copy {
        remote: post.remote(),
        thread: post.thread(),
        sent_at: post.sent_at(),
        file: None,
    }
}
