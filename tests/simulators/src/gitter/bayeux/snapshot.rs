//! What a subscriber gets at once, and whether they may subscribe at all.

use serde_json::{Value, json};

use super::meta::{BayeuxError, text};
use crate::gitter::{
    api_error::ApiError,
    ids::well_formed,
    listing::{ListQuery, MAX_LIMIT},
    shared::Shared,
    view::{self, ViewOptions},
    world::World,
};

/// The default number of items in a snapshot.
const SNAPSHOT: usize = 30;

fn denied(refusal: ApiError) -> BayeuxError {
    match refusal {
        ApiError::BAD_REQUEST | ApiError::BROKEN => BayeuxError::plain("400::Invalid ID: "),
        _ => BayeuxError::plain("403::Authorisation denied."),
    }
}

fn id(part: &str) -> Result<(), BayeuxError> {
    if well_formed(part) {
        Ok(())
    } else {
        Err(BayeuxError::plain(format!("400::Invalid ID: {part}")))
    }
}

/// The snapshot of a channel for this subscriber; an error if they may not subscribe to it.
pub(super) fn take_snapshot(
    shared: &Shared,
    world: &World,
    viewer: Option<&str>,
    channel: &str,
    asked: Option<&Value>,
) -> Result<Option<Value>, BayeuxError> {
    let unknown = || BayeuxError::plain(format!("404::Unknown subscription {channel}"));
    let path = channel.strip_prefix("/api/v1/").ok_or_else(unknown)?;
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["ping"] => return Ok(None),
        ["token", _] => return Ok(Some(json!({}))),
        ["rooms", room, ..] => {
            id(room)?;
            world.readable(room, viewer).map_err(denied)?;
        }
        ["user", user, ..] => {
            id(user)?;
            if viewer != Some(user) {
                return Err(denied(ApiError::FORBIDDEN));
            }
        }
        _ => return Err(unknown()),
    }
    match parts[..] {
        ["rooms" | "user", _] | ["rooms", _, "chatMessages", _, "readBy"] => Ok(None),
        ["rooms", room, "chatMessages"] => chat(shared, world, viewer, room, asked).map(Some),
        ["rooms", room, feed @ ("users" | "events")] => {
            let room = world.channel(room).map_err(denied)?;
            Ok(Some(if feed == "users" {
                let people = room.members.iter().filter_map(|id| world.people.get(id));
                people.take(SNAPSHOT).map(view::user).collect()
            } else {
                room.activity
                    .iter()
                    .rev()
                    .take(SNAPSHOT)
                    .map(view::activity)
                    .collect()
            }))
        }
        ["user", user, "rooms"] => Ok(Some(
            world
                .channels
                .values()
                .filter(|room| room.members.iter().any(|member| member == user))
                .map(|room| view::room(world, room, viewer))
                .collect(),
        )),
        ["user", _, "groups" | "orgs"] => Ok(Some(json!([]))),
        ["user", user, "rooms", room, "unreadItems"] => {
            id(room)?;
            world.readable(room, viewer).map_err(denied)?;
            let key = (user.to_owned(), room.to_owned());
            let unread = world.unread.get(&key).cloned().unwrap_or_default();
            let mut items = view::unread(&unread);
            if let Some(items) = items.as_object_mut() {
                items.insert("_meta".into(), json!({"lurk": false}));
            }
            Ok(Some(items))
        }
        _ => Err(unknown()),
    }
}

fn chat(
    shared: &Shared,
    world: &World,
    viewer: Option<&str>,
    room: &str,
    asked: Option<&Value>,
) -> Result<Value, BayeuxError> {
    let set = |key| {
        asked
            .and_then(|asked| asked.get(key))
            .is_some_and(|set| set == true)
    };
    let limit = asked
        .and_then(|asked| asked.get("limit"))
        .and_then(Value::as_u64);
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let wanted = ListQuery {
        limit: limit.unwrap_or(SNAPSHOT).min(MAX_LIMIT),
        before_inclusive: asked
            .and_then(|asked| text(asked, "beforeInclId"))
            .map(str::to_owned),
        threads: set("includeThreads"),
        ..ListQuery::default()
    };
    let room = world.channel(room).map_err(denied)?;
    let look = ViewOptions {
        lean: set("lean"),
        ..shared.look(viewer)
    };
    let posts = wanted.pick(room).map_err(denied)?;
    Ok(posts
        .into_iter()
        .map(|post| view::message(world, post, look))
        .collect())
}
