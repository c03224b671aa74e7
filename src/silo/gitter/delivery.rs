//! Performs the steps of a plan, and finds out whether a step whose response was lost happened.

use std::time::Duration;

use footbridge_core::{
    message::Style,
    outlet::{Content, Done, SimilarMessages, Step},
};
use footbridge_store::{Copy, Millis, RemoteId};

use super::{
    api::{ChatMessage, id_at_time},
    client::{Client, Range},
    errors::{RequestError, SERVICE},
    rate_limiter::Priority,
};
use crate::{echoes::Echoes, feed_health::FeedHealth};

/// How far Gitter's clock may be behind the bridge's, beyond the known offset.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// How far ids and times of different Gitter servers may differ, in milliseconds.
const SERVER_SKEW_MS: i64 = 2_000;
/// The most pages of a search for a message of the bridge.
const MAX_PAGES: usize = 20;

/// Performs one step.
pub async fn perform(
    client: &Client,
    echoes: &Echoes,
    health: &FeedHealth,
    room: &str,
    step: &Step,
) -> Result<Done, RequestError> {
    match step {
        Step::Post {
            content, thread, ..
        } => post(client, echoes, health, room, content, thread.as_ref()).await,
        Step::Edit {
            target,
            content,
            fallback,
            ..
        } => {
            match client.edit(room, target.as_str(), &content.text).await {
                // Gone: somebody deleted it, and an edit does not restore it. The feed reports the deletion.
                Ok(_) | Err(RequestError::Gone(_)) => Ok(Done::Edited(target.clone())),
                // The text was checked before, so Gitter refuses because of the time. The fallback posts a message, and
                // the lane must record that before it happens.
                Err(
                    RequestError::Forbidden(_)
                    | RequestError::Refused(_)
                    | RequestError::Rejected(_),
                ) if fallback.is_some() => Err(RequestError::TooLate(&SERVICE)),
                Err(error) => Err(error),
            }
        }
        Step::Delete { target, .. } => {
            // Before the request: Gitter may publish the deletion before it answers.
            echoes.note_removing(target.as_str());
            match client.delete(room, target.as_str()).await {
                Ok(()) => Ok(Done::Deleted(target.clone())),
                Err(error) => {
                    if matches!(
                        error,
                        RequestError::Closed(_)
                            | RequestError::Forbidden(_)
                            | RequestError::Refused(_)
                            | RequestError::Rejected(_)
                    ) {
                        // The message still exists: a later deletion is somebody else's.
                        echoes.cancel_removing(target.as_str());
                    }
                    Err(error)
                }
            }
        }
        // Never planned for this silo.
        Step::SendFile { .. }
        | Step::React { .. }
        | Step::Unreact { .. }
        | Step::Bundle { .. }
        | Step::EditPart { .. } => Err(RequestError::Refused(
            "Gitter takes one message at a time".to_owned(),
        )),
    }
}

async fn post(
    client: &Client,
    echoes: &Echoes,
    health: &FeedHealth,
    room: &str,
    content: &Content,
    thread: Option<&RemoteId>,
) -> Result<Done, RequestError> {
    let emote = content.style == Style::Emote;
    let made = client
        .create(room, &content.text, emote, thread.map(RemoteId::as_str))
        .await?;
    echoes.made(&made.id);
    if made.v.is_none() {
        let seen = client.message(Priority::Send, room, &made.id).await;
        if matches!(seen, Err(RequestError::Gone(_))) {
            if health.dropped() {
                tracing::error!(
                    "Gitter silently drops this account's messages: it reports success and publishes nothing. \
                     Its spam rules do this to new accounts, permanently; ask Gitter, or use another account"
                );
            }
            return Err(RequestError::Refused(
                "Gitter silently drops this account's messages".to_owned(),
            ));
        }
    }
    health.published();
    Ok(Done::Created(Copy {
        remote: made.remote(),
        thread: thread.cloned(),
        sent_at: made.sent_at(),
        file: None,
    }))
}

/// The text of the message that a step may have made.
pub fn sent_text(step: &Step) -> Option<&str> {
    match step {
        Step::Post { content, .. } => Some(&content.text),
        Step::SendFile { .. }
        | Step::Edit { .. }
        | Step::Delete { .. }
        | Step::React { .. }
        | Step::Unreact { .. }
        | Step::Bundle { .. }
        | Step::EditPart { .. } => None,
    }
}

/// The account's messages with exactly this text since `since` (the bridge's clock), oldest first.
pub async fn find_similar(
    client: &Client,
    me: &str,
    room: &str,
    text: &str,
    since: Millis,
) -> Result<SimilarMessages, RequestError> {
    let skew = i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or_default();
    let since = Millis(client.server_time(since).0.saturating_sub(skew));
    // Ids are made a little after the time of the message, but by other clocks.
    let mut range = Range {
        after: Some(id_at_time(Millis(since.0.saturating_sub(skew)))),
        ..Range::default()
    };
    let mut matching: Vec<ChatMessage> = Vec::new();
    let mut is_cut_off = true;
    for _ in 0..MAX_PAGES {
        let page = client.messages(Priority::Send, room, &range).await?;
        let newest = page.messages.iter().map(ChatMessage::sent_at).max();
        // Skipping messages makes Gitter read from a replica, which may lag: the next page begins at a later time
        // instead, unless one time fills a whole page.
        let next = newest.map(|newest| id_at_time(Millis(newest.0.saturating_sub(SERVER_SKEW_MS))));
        if next > range.after {
            range = Range {
                after: next,
                ..Range::default()
            };
        } else {
            range.skip += page.messages.len();
        }
        matching.extend(page.messages.into_iter().filter(|message| {
            message.is_from(me) && message.raw() == text && message.sent_at() >= since
        }));
        if !page.full {
            is_cut_off = false;
            break;
        }
    }
    matching.sort_by(|a, b| (a.sent_at(), &a.id).cmp(&(b.sent_at(), &b.id)));
    matching.dedup_by(|a, b| a.id == b.id);
    let copies = matching.into_iter().map(|message| Copy {
        remote: message.remote(),
        sent_at: message.sent_at(),
        thread: message.parent_id.map(RemoteId),
        file: None,
    });
    Ok(SimilarMessages {
        copies: copies.collect(),
        is_cut_off,
    })
}
