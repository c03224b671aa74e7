//! The calls for users, their rooms, groups and unread items.

use serde_json::{Value, json};

use super::{Answer, Handled, Route, Turn};
use crate::gitter::{api_error::ApiError, ids::well_formed, view};

pub(super) const ROUTES: &[Route] = &[
    ("GET", "/user", current),
    ("GET", "/user/:id", one),
    ("GET", "/users/:username", profile),
    ("GET", "/user/:id/rooms", rooms),
    ("POST", "/user/:id/rooms", join),
    ("DELETE", "/user/:id/rooms/:room", hide),
    ("GET", "/user/:id/rooms/:room/unreadItems", unread),
    ("POST", "/user/:id/rooms/:room/unreadItems", read),
    ("DELETE", "/user/:id/rooms/:room/unreadItems/all", read_all),
    ("GET", "/user/:id/groups", groups),
    ("GET", "/user/:id/orgs", none),
    ("GET", "/user/:id/repos", none),
    ("GET", "/groups", all_groups),
    ("GET", "/groups/:id/rooms", group_rooms),
];

/// The caller's user id, if the path names the caller.
fn own<'a>(turn: &Turn<'a>) -> Result<&'a str, ApiError> {
    let me = turn.me()?;
    match turn.param(0) {
        "me" => Ok(me),
        id if id == me => Ok(me),
        _ => Err(ApiError::FORBIDDEN),
    }
}

fn current(turn: &mut Turn<'_>) -> Handled {
    let me = turn.viewer().ok_or(ApiError::FORBIDDEN)?;
    if let Some(words) = turn.asked("q") {
        let words = words.to_lowercase();
        let found: Vec<Value> = turn
            .world
            .people
            .values()
            .filter(|person| !person.removed)
            .filter(|person| {
                person.username.to_lowercase().contains(&words)
                    || person.display_name.to_lowercase().contains(&words)
            })
            .map(view::user)
            .collect();
        return Ok(Answer::Json(json!({"results": found})));
    }
    let person = turn.world.person(me)?;
    Ok(Answer::Json(json!([view::own_user(person)])))
}

fn one(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    Ok(Answer::Json(view::own_user(turn.world.person(me)?)))
}

fn profile(turn: &mut Turn<'_>) -> Handled {
    let person = turn
        .world
        .person_named(turn.param(0))
        .ok_or(ApiError::NOT_FOUND)?;
    Ok(Answer::Json(view::user(person)))
}

/// The rooms that a user is in and has not hidden.
pub(super) fn rooms_of(turn: &Turn<'_>, me: &str) -> Vec<Value> {
    turn.world
        .channels
        .values()
        .filter(|room| room.members.iter().any(|member| member == me))
        .filter(|room| {
            !turn
                .world
                .hidden
                .contains(&(me.to_owned(), room.id.clone()))
        })
        .map(|room| view::room(turn.world, room, Some(me)))
        .collect()
}

fn rooms(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    Ok(Answer::Json(Value::Array(rooms_of(turn, me))))
}

fn join(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    let room = match (turn.body.get("id"), turn.body.get("uri")) {
        (Some(Value::String(id)), _) => id.clone(),
        (_, Some(Value::String(uri))) => {
            let room = turn.world.channel_named(uri).ok_or(ApiError::NOT_FOUND)?;
            room.id.clone()
        }
        _ => return Err(ApiError::BAD_REQUEST),
    };
    if well_formed(&room) && !turn.world.channels.contains_key(&room) {
        return Err(ApiError::BROKEN);
    }
    turn.world.readable(&room, Some(me))?;
    turn.world.join(&room, me)?;
    let room = turn.world.channel(&room)?;
    Ok(Answer::Json(view::room(turn.world, room, Some(me))))
}

fn hide(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    let room = turn.param(1);
    turn.world.readable(room, Some(me))?;
    turn.world.hidden.insert((me.to_owned(), room.to_owned()));
    Ok(Answer::Json(json!({"success": true})))
}

fn unread(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    let room = turn.param(1);
    turn.world.readable(room, Some(me))?;
    let key = (me.to_owned(), room.to_owned());
    let unread = turn.world.unread.get(&key).cloned().unwrap_or_default();
    Ok(Answer::Json(view::unread(&unread)))
}

fn read(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    let room = turn.param(1);
    turn.world.readable(room, Some(me))?;
    let ids: Vec<String> = ["chat", "mention"]
        .into_iter()
        .filter_map(|key| turn.body.get(key)?.as_array())
        .flatten()
        .filter_map(|id| Some(id.as_str()?.to_owned()))
        .collect();
    if ids.is_empty() {
        return Err(ApiError::BAD_REQUEST);
    }
    turn.world.mark_read(room, me, &ids);
    Ok(Answer::Json(json!({"success": true})))
}

fn read_all(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    let room = turn.param(1);
    turn.world.readable(room, Some(me))?;
    let key = (me.to_owned(), room.to_owned());
    let unread = turn.world.unread.get(&key).cloned().unwrap_or_default();
    let ids: Vec<String> = unread.chat.into_iter().collect();
    turn.world.mark_read(room, me, &ids);
    Ok(Answer::Json(json!({"success": true})))
}

fn group_names(turn: &Turn<'_>, me: &str) -> Vec<Value> {
    let mut names: Vec<&str> = turn
        .world
        .channels
        .values()
        .filter(|room| room.pair.is_none() && room.members.iter().any(|member| member == me))
        .filter_map(|room| room.uri.split('/').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            json!({
                "id": view::group_id(name),
                "name": name,
                "uri": name,
                "backedBy": {"type": "GH_ORG", "linkPath": name},
                "avatarUrl": format!("https://avatars-02.gitter.im/group/i/{name}"),
            })
        })
        .collect()
}

fn groups(turn: &mut Turn<'_>) -> Handled {
    let me = own(turn)?;
    Ok(Answer::Json(Value::Array(group_names(turn, me))))
}

fn all_groups(turn: &mut Turn<'_>) -> Handled {
    let me = turn.me()?;
    Ok(Answer::Json(Value::Array(group_names(turn, me))))
}

fn group_rooms(turn: &mut Turn<'_>) -> Handled {
    let me = turn.me()?;
    let wanted = turn.param(0);
    let rooms: Vec<Value> = turn
        .world
        .channels
        .values()
        .filter(|room| room.uri.split('/').next().map(view::group_id).as_deref() == Some(wanted))
        .filter(|room| turn.world.readable(&room.id, Some(me)).is_ok())
        .map(|room| view::room(turn.world, room, Some(me)))
        .collect();
    if rooms.is_empty() {
        return Err(ApiError::NOT_FOUND);
    }
    Ok(Answer::Json(Value::Array(rooms)))
}

/// Users of the simulator have no repositories.
fn none(turn: &mut Turn<'_>) -> Handled {
    own(turn)?;
    Ok(Answer::Json(json!([])))
}
