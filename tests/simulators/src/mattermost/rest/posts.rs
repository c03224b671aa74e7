//! The calls for posts and their reactions.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call, places};
use crate::mattermost::{
    Post,
    world::{self, ApiError, Inner},
};

pub(super) fn write(call: &Call<'_>) -> Answer {
    let body = &call.body;
    let files = body["file_ids"].as_array().into_iter().flatten();
    let post = Post {
        user_id: call.me.clone(),
        channel_id: call.text("channel_id"),
        root_id: call.text("root_id"),
        message: call.text("message"),
        props: body["props"].as_object().cloned().unwrap_or_default(),
        file_ids: files.filter_map(Value::as_str).map(str::to_owned).collect(),
        pending_post_id: call.text("pending_post_id"),
        ..Post::default()
    };
    let made = call.shared.world.write(post, &call.shared.faults)?;
    Ok((StatusCode::CREATED, made))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let post = readable(call, call.at(0))?;
    Ok((StatusCode::OK, call.shared.world.inner().json(&post)))
}

/// A post in a channel that the caller may see: everybody may read the posts of an open channel.
fn readable(call: &Call<'_>, id: &str) -> Result<Post, ApiError> {
    let post = call.shared.world.inner().post(id).cloned();
    let post = post
        .filter(|post| post.delete_at == 0)
        .ok_or(ApiError::NO_POST)?;
    places::find(call, |channel| channel.id == post.channel_id)?;
    Ok(post)
}

pub(super) fn patch(call: &Call<'_>) -> Answer {
    let message = call.body["message"].as_str().map(str::to_owned);
    let files = call.body["file_ids"].as_array().map(|ids| {
        let ids = ids.iter().filter_map(Value::as_str);
        ids.map(str::to_owned).collect()
    });
    let world = &call.shared.world;
    let made = world.edit(&call.me, call.at(0), (message, files), &call.shared.faults)?;
    Ok((StatusCode::OK, made))
}

pub(super) fn delete(call: &Call<'_>) -> Answer {
    call.shared
        .world
        .delete(&call.me, call.at(0), &call.shared.faults)?;
    Ok((StatusCode::OK, json!({"status": "OK"})))
}

pub(super) fn thread(call: &Call<'_>) -> Answer {
    let post = readable(call, call.at(0))?;
    let root = if post.root_id.is_empty() {
        post.id
    } else {
        post.root_id
    };
    let inner = call.shared.world.inner();
    let posts = world::newest_first(&inner.posts, |other| {
        other.delete_at == 0 && (other.id == root || other.root_id == root)
    });
    Ok((StatusCode::OK, world::list(&inner, &posts, ("", ""))))
}

/// The posts of a channel: a page, before or after a post, or what changed since a time.
pub(super) fn list(call: &Call<'_>) -> Answer {
    let channel = places::own(call, call.at(0))?;
    let inner = call.shared.world.inner();
    if let Some(since) = call.query("since").and_then(|text| text.parse().ok()) {
        return Ok((StatusCode::OK, changed(call, &inner, &channel.id, since)));
    }
    let (page, size) = (call.number("page", 0), call.number("per_page", 60).min(200));
    let here = world::newest_first(&inner.posts, |post| {
        post.channel_id == channel.id && post.delete_at == 0
    });
    // Posts of the same millisecond are neither before nor after.
    let moment = |id: &str| {
        inner
            .post(id)
            .map(|post| post.create_at)
            .ok_or(ApiError::NO_POST)
    };
    let chosen: Vec<&Post> = if let Some(id) = call.query("after").filter(|id| !id.is_empty()) {
        let moment = moment(id)?;
        let newer: Vec<&Post> = here
            .iter()
            .copied()
            .filter(|post| post.create_at > moment)
            .collect();
        let end = newer.len().saturating_sub(page * size);
        newer
            .into_iter()
            .take(end)
            .skip(end.saturating_sub(size))
            .collect()
    } else {
        let older: Vec<&Post> = match call.query("before").filter(|id| !id.is_empty()) {
            Some(id) => {
                let moment = moment(id)?;
                here.iter()
                    .copied()
                    .filter(|post| post.create_at < moment)
                    .collect()
            }
            None => here.clone(),
        };
        older.into_iter().skip(page * size).take(size).collect()
    };
    let around = neighbours(&here, &chosen);
    Ok((
        StatusCode::OK,
        world::list(&inner, &chosen, (&around.0, &around.1)),
    ))
}

/// The ids of the posts next to the chosen ones: the newer one, and the older one.
fn neighbours(here: &[&Post], chosen: &[&Post]) -> (String, String) {
    let newer = chosen.first().and_then(|first| {
        here.iter()
            .rev()
            .find(|post| post.create_at > first.create_at)
    });
    let older = chosen
        .last()
        .and_then(|last| here.iter().find(|post| post.create_at < last.create_at));
    let id = |post: Option<&&Post>| post.map(|post| post.id.clone()).unwrap_or_default();
    (id(newer), id(older))
}

/// Everything that changed after a time, with deleted posts and old versions, but no more rows than the cap; which rows
/// are cut follows no reliable order.
fn changed(call: &Call<'_>, inner: &Inner, channel: &str, since: i64) -> Value {
    let rows = inner
        .posts
        .iter()
        .filter(|post| post.channel_id == channel && post.update_at > since);
    let mut rows: Vec<&Post> = rows.take(call.shared.options.since_cap).collect();
    rows.reverse();
    rows.sort_by_key(|post| std::cmp::Reverse(post.create_at));
    world::list(inner, &rows, ("", ""))
}

pub(super) fn reactions(call: &Call<'_>) -> Answer {
    let post = readable(call, call.at(0))?;
    let value = call.shared.world.inner().json(&post);
    Ok((StatusCode::OK, value["metadata"]["reactions"].clone()))
}

/// The permission to react depends on the post's channel, so it is checked first: an unknown post is in no channel.
fn reactable(call: &Call<'_>, id: &str) -> Result<(), ApiError> {
    let post = call.shared.world.inner().post(id).cloned();
    let post = post.ok_or(ApiError::PERMISSIONS)?;
    places::own(call, &post.channel_id)?;
    readable(call, id).map(drop)
}

pub(super) fn react(call: &Call<'_>) -> Answer {
    let (post, emoji) = (call.text("post_id"), call.text("emoji_name"));
    reactable(call, &post)?;
    let reaction = call
        .shared
        .world
        .react(&call.me, &post, &emoji, true, &call.shared.faults)?;
    Ok((StatusCode::CREATED, reaction))
}

pub(super) fn unreact(call: &Call<'_>) -> Answer {
    reactable(call, call.at(1))?;
    call.shared
        .world
        .react(&call.me, call.at(1), call.at(2), false, &call.shared.faults)?;
    Ok((StatusCode::OK, json!({"status": "OK"})))
}
