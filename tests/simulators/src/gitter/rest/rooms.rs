//! The calls for rooms, members, bans and the activity feed.

use serde_json::{Value, json};

use super::{Answer, Handled, Route, Turn, people::rooms_of};
use crate::gitter::{
    api_error::ApiError,
    ids::well_formed,
    listing::limit,
    time::iso,
    view,
    world::{Channel, Event, World},
};

pub(super) const ROUTES: &[Route] = &[
    ("GET", "/rooms", list),
    ("POST", "/rooms", resolve),
    ("GET", "/rooms/:id", one),
    ("PUT", "/rooms/:id", change),
    ("DELETE", "/rooms/:id", remove),
    ("GET", "/rooms/:id/users", users),
    ("POST", "/rooms/:id/users", add_user),
    ("DELETE", "/rooms/:id/users/:user", remove_user),
    ("GET", "/rooms/:id/bans", bans),
    ("POST", "/rooms/:id/bans", ban),
    ("DELETE", "/rooms/:id/bans/:username", unban),
    ("GET", "/rooms/:id/events", activity),
];

fn list(turn: &mut Turn<'_>) -> Handled {
    let me = turn.me()?;
    let Some(words) = turn.asked("q") else {
        return Ok(Answer::Json(Value::Array(rooms_of(turn, me))));
    };
    let words = words.to_lowercase();
    let most = limit(turn.asked("limit"), 10, 100);
    let skip = turn
        .asked("skip")
        .and_then(|skip| skip.parse().ok())
        .unwrap_or(0);
    let found: Vec<&Channel> = turn
        .world
        .channels
        .values()
        .filter(|room| room.pair.is_none() && room.uri.to_lowercase().contains(&words))
        .filter(|room| turn.world.readable(&room.id, Some(me)).is_ok())
        .collect();
    let more = found.len() > skip + most;
    let results: Vec<Value> = found
        .into_iter()
        .skip(skip)
        .take(most)
        .map(|room| view::room(turn.world, room, Some(me)))
        .collect();
    Ok(Answer::Json(json!({
        "results": results, "hasMoreResults": more, "limit": most, "skip": skip,
    })))
}

/// Finds a room by its uri, or opens the one-to-one with a user. Does not join other rooms.
fn resolve(turn: &mut Turn<'_>) -> Handled {
    let me = turn.me()?;
    let uri = turn.body.get("uri").and_then(Value::as_str);
    let uri = uri
        .filter(|uri| !uri.is_empty())
        .ok_or(ApiError::BAD_REQUEST)?;
    let found = turn.world.channel_named(uri).map(|room| room.id.clone());
    let id = if let Some(id) = found {
        let unseen = turn.world.readable(&id, Some(me)).is_err();
        let banned = turn.world.channel(&id)?.bans.contains_key(me);
        if banned {
            return Err(ApiError::FORBIDDEN);
        }
        if unseen {
            return Err(ApiError::NOT_FOUND);
        }
        id
    } else {
        let other = turn.world.person_named(uri).map(|person| person.id.clone());
        let other = other
            .filter(|other| other != me)
            .ok_or(ApiError::NOT_FOUND)?;
        turn.world.one_to_one(me, &other, turn.now_ms)?
    };
    show(turn.world, &id, Some(me))
}

fn show(world: &World, room: &str, viewer: Option<&str>) -> Handled {
    let room = world.channel(room)?;
    Ok(Answer::Json(view::room(world, room, viewer)))
}

fn one(turn: &mut Turn<'_>) -> Handled {
    turn.world.readable(turn.param(0), turn.viewer())?;
    show(turn.world, turn.param(0), turn.viewer())
}

/// The room and the caller, if the caller is one of the room's admins.
fn administered<'a>(turn: &Turn<'a>) -> Result<(&'a str, &'a str), ApiError> {
    let room = turn.param(0);
    let (_, me) = turn.world.writable(room, turn.viewer())?;
    if turn.world.is_admin(room, me) {
        Ok((room, me))
    } else {
        Err(ApiError::FORBIDDEN)
    }
}

fn change(turn: &mut Turn<'_>) -> Handled {
    let (room, me) = administered(turn)?;
    let channel = turn.world.channel_mut(room)?;
    if let Some(topic) = turn.body.get("topic").and_then(Value::as_str) {
        topic.clone_into(&mut channel.topic);
    }
    if let Some(noindex) = turn.body.get("noindex").and_then(Value::as_bool) {
        channel.noindex = noindex;
    }
    match turn.body.get("tags") {
        Some(Value::String(tags)) => {
            channel.tags = tags.split(',').map(|tag| tag.trim().to_owned()).collect();
        }
        Some(Value::Array(tags)) => {
            channel.tags = tags
                .iter()
                .filter_map(|tag| Some(tag.as_str()?.to_owned()))
                .collect();
        }
        _ => {}
    }
    channel.version += 1;
    turn.world.events.push(Event::RoomChanged {
        room: room.to_owned(),
    });
    show(turn.world, room, Some(me))
}

fn remove(turn: &mut Turn<'_>) -> Handled {
    let (room, _) = administered(turn)?;
    turn.world.remove_channel(room)?;
    Ok(Answer::Json(json!({"success": true})))
}

fn users(turn: &mut Turn<'_>) -> Handled {
    let room = turn.world.readable(turn.param(0), turn.viewer())?;
    let most = limit(turn.asked("limit"), 30, 100);
    let skip = turn
        .asked("skip")
        .and_then(|skip| skip.parse().ok())
        .unwrap_or(0);
    let words = turn.asked("q").map(str::to_lowercase);
    let found: Vec<Value> = room
        .members
        .iter()
        .filter_map(|id| turn.world.people.get(id))
        .filter(|person| {
            words.as_ref().is_none_or(|words| {
                person.username.to_lowercase().starts_with(words)
                    || person.display_name.to_lowercase().contains(words)
            })
        })
        .skip(skip)
        .take(most)
        .map(|person| {
            let mut user = view::user(person);
            if let (Some(fields), true) = (user.as_object_mut(), room.admins.contains(&person.id)) {
                fields.insert("role".into(), json!("admin"));
            }
            user
        })
        .collect();
    // The type-ahead search wraps its results.
    Ok(Answer::Json(match words {
        Some(_) => json!({"results": found}),
        None => Value::Array(found),
    }))
}

fn named_user(turn: &Turn<'_>) -> Result<String, ApiError> {
    let username = turn.body.get("username").and_then(Value::as_str);
    let username = username.ok_or(ApiError::BAD_REQUEST)?;
    let person = turn
        .world
        .person_named(username)
        .ok_or(ApiError::NOT_FOUND)?;
    Ok(person.id.clone())
}

fn add_user(turn: &mut Turn<'_>) -> Handled {
    let room = turn.param(0);
    turn.world.writable(room, turn.viewer())?;
    let user = named_user(turn)?;
    if turn.world.channel(room)?.bans.contains_key(&user) {
        return Err(ApiError::FORBIDDEN);
    }
    turn.world.join(room, &user)?;
    Ok(Answer::Json(view::user(turn.world.person(&user)?)))
}

fn remove_user(turn: &mut Turn<'_>) -> Handled {
    let (room, user) = (turn.param(0), turn.param(1));
    let (_, me) = turn.world.writable(room, turn.viewer())?;
    let user = if user == "me" { me } else { user };
    if !well_formed(user) {
        return Err(ApiError::BAD_REQUEST);
    }
    if user != me && !turn.world.is_admin(room, me) {
        return Err(ApiError::FORBIDDEN);
    }
    turn.world.leave(room, user)?;
    Ok(Answer::Json(json!({"success": true})))
}

fn ban_view(world: &World, user: &str, banned_ms: i64) -> Value {
    match world.people.get(user) {
        Some(person) => json!({"user": view::user(person), "dateBanned": iso(banned_ms)}),
        None => json!({"dateBanned": iso(banned_ms)}),
    }
}

fn bans(turn: &mut Turn<'_>) -> Handled {
    let (room, _) = administered(turn)?;
    let bans = &turn.world.channel(room)?.bans;
    let bans: Vec<Value> = bans
        .iter()
        .map(|(user, banned)| ban_view(turn.world, user, *banned))
        .collect();
    Ok(Answer::Json(Value::Array(bans)))
}

fn ban(turn: &mut Turn<'_>) -> Handled {
    let (room, _) = administered(turn)?;
    let user = named_user(turn)?;
    if !turn.world.channel(room)?.public {
        // Nobody can rejoin a private room without an invite.
        turn.world.leave(room, &user)?;
        return Ok(Answer::Accepted(json!({"removed": true})));
    }
    turn.world.ban(room, &user, turn.now_ms)?;
    Ok(Answer::Json(ban_view(turn.world, &user, turn.now_ms)))
}

fn unban(turn: &mut Turn<'_>) -> Handled {
    let (room, _) = administered(turn)?;
    let person = turn
        .world
        .person_named(turn.param(1))
        .ok_or(ApiError::NOT_FOUND)?;
    let user = person.id.clone();
    turn.world.unban(room, &user)?;
    Ok(Answer::Json(json!({"success": true})))
}

/// Newest first, unlike messages.
fn activity(turn: &mut Turn<'_>) -> Handled {
    let room = turn.world.readable(turn.param(0), turn.viewer())?;
    let most = limit(turn.asked("limit"), 50, 100);
    let skip = turn
        .asked("skip")
        .and_then(|skip| skip.parse().ok())
        .unwrap_or(0);
    let before = turn.asked("beforeId");
    if before.is_some_and(|id| !well_formed(id)) {
        return Err(ApiError::BROKEN);
    }
    let entries: Vec<Value> = room
        .activity
        .iter()
        .rev()
        .filter(|entry| before.is_none_or(|before| entry.id.as_str() < before))
        .skip(skip)
        .take(most)
        .map(view::activity)
        .collect();
    Ok(Answer::Json(Value::Array(entries)))
}
