//! The calls for messages.

use serde_json::{Map, Value, json};

use super::{Answer, Handled, Route, Turn};
use crate::gitter::{
    api_error::ApiError,
    ids::well_formed,
    listing::{ListQuery, MAX_LIMIT, limit},
    posts::{Draft, Post, VirtualUser},
    view::{self, ViewOptions},
};

pub(super) const ROUTES: &[Route] = &[
    ("GET", "/rooms/:id/chatMessages", list),
    ("POST", "/rooms/:id/chatMessages", create),
    ("GET", "/rooms/:id/chatMessages/:message", one),
    ("PUT", "/rooms/:id/chatMessages/:message", edit),
    ("DELETE", "/rooms/:id/chatMessages/:message", delete),
    ("GET", "/rooms/:id/chatMessages/:message/thread", thread),
    ("GET", "/rooms/:id/chatMessages/:message/readBy", read_by),
    ("POST", "/rooms/:id/chatMessages/:message/report", report),
];

fn wanted(turn: &Turn<'_>) -> ListQuery {
    let given = |key| turn.asked(key).map(str::to_owned);
    ListQuery {
        limit: limit(turn.asked("limit"), 50, MAX_LIMIT),
        skip: turn
            .asked("skip")
            .and_then(|skip| skip.parse().ok())
            .unwrap_or(0),
        before: given("beforeId"),
        before_inclusive: given("beforeInclId"),
        after: given("afterId"),
        around: given("aroundId"),
        search: given("q"),
        threads: turn.asked("includeThreads") == Some("true"),
        thread: None,
    }
}

fn first_unread(turn: &Turn<'_>) -> Option<String> {
    let key = (turn.viewer()?.to_owned(), turn.param(0).to_owned());
    turn.world.unread.get(&key)?.chat.first().cloned()
}

fn list(turn: &mut Turn<'_>) -> Handled {
    let mut wanted = wanted(turn);
    if turn.asked("marker") == Some("first-unread") {
        wanted.around = first_unread(turn);
    }
    let room = turn.world.readable(turn.param(0), turn.viewer())?;
    let posts = wanted.pick(room)?;
    let look = ViewOptions {
        lean: turn.asked("lean") == Some("true"),
        user_ids_only: turn.asked("lookups") == Some("user"),
        ..turn.shared.look(turn.viewer())
    };
    Ok(Answer::Json(items(
        turn,
        &posts,
        look,
        wanted.around.as_deref(),
    )))
}

fn items(turn: &Turn<'_>, posts: &[&Post], look: ViewOptions<'_>, initial: Option<&str>) -> Value {
    let items: Vec<Value> = posts
        .iter()
        .map(|post| {
            let mut item = view::message(turn.world, post, look);
            if let (Some(fields), true) = (
                item.as_object_mut(),
                initial == Some(post.message.id.as_str()),
            ) {
                fields.insert("initial".into(), json!(true));
            }
            item
        })
        .collect();
    if !look.user_ids_only {
        return Value::Array(items);
    }
    let users: Map<String, Value> = posts
        .iter()
        .filter_map(|post| turn.world.people.get(&post.message.from_user_id))
        .filter(|person| !person.removed)
        .map(|person| (person.id.clone(), view::user(person)))
        .collect();
    json!({"items": items, "lookups": {"users": users}})
}

fn show(turn: &Turn<'_>, post: &Post) -> Answer {
    Answer::Json(view::message(
        turn.world,
        post,
        turn.shared.look(turn.viewer()),
    ))
}

fn virtual_user(turn: &Turn<'_>) -> Result<Option<VirtualUser>, ApiError> {
    let given = match turn.body.get("virtualUser") {
        None | Some(Value::Null) => return Ok(None),
        Some(given) => given,
    };
    if !turn.caller.approved {
        return Err(ApiError::FORBIDDEN);
    }
    let user: VirtualUser =
        serde_json::from_value(given.clone()).map_err(|_| ApiError::BAD_REQUEST)?;
    let too_long = [&user.r#type, &user.external_id, &user.display_name]
        .into_iter()
        .any(|text| text.len() > 255);
    let avatar_too_long = user.avatar_url.as_ref().is_some_and(|url| url.len() > 2000);
    if too_long || avatar_too_long {
        return Err(ApiError::BAD_REQUEST);
    }
    Ok(Some(user))
}

fn truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(set)) => *set,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(_) => true,
    }
}

fn create(turn: &mut Turn<'_>) -> Handled {
    let room = turn.param(0);
    let (_, me) = turn.world.writable(room, turn.viewer())?;
    let draft = Draft {
        text: turn
            .body
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        status: truthy(turn.body.get("status")),
        parent_id: match turn.body.get("parentId") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(ApiError::BAD_REQUEST),
        },
        virtual_user: virtual_user(turn)?,
    };
    let post = turn.world.create(room, me, draft, turn.now_ms)?;
    Ok(show(turn, &post))
}

/// The message that the path names, in a room that the caller may read. A malformed id fails an assertion of the
/// service.
fn named(turn: &Turn<'_>) -> Result<Post, ApiError> {
    turn.world.readable(turn.param(0), turn.viewer())?;
    turn.me()?;
    if !well_formed(turn.param(1)) {
        return Err(ApiError::BROKEN);
    }
    let id = turn.param(1).to_ascii_lowercase();
    turn.world.post(turn.param(0), &id).cloned()
}

fn one(turn: &mut Turn<'_>) -> Handled {
    let post = named(turn)?;
    Ok(show(turn, &post))
}

fn edit(turn: &mut Turn<'_>) -> Handled {
    let post = named(turn)?;
    let text = match turn.body.get("text") {
        None => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(ApiError::BROKEN),
    };
    let me = turn.me()?;
    let room = turn.param(0);
    let post = turn
        .world
        .edit(room, me, &post.message.id, text, turn.now_ms)?;
    Ok(show(turn, &post))
}

fn delete(turn: &mut Turn<'_>) -> Handled {
    let post = named(turn)?;
    let me = turn.me()?;
    turn.world.delete(turn.param(0), me, &post.message.id)?;
    Ok(Answer::Empty)
}

fn thread(turn: &mut Turn<'_>) -> Handled {
    let root = named(turn)?;
    let wanted = ListQuery {
        thread: Some(root.message.id),
        ..wanted(turn)
    };
    let posts = wanted.pick(turn.world.channel(turn.param(0))?)?;
    let look = turn.shared.look(turn.viewer());
    Ok(Answer::Json(items(turn, &posts, look, None)))
}

fn read_by(turn: &mut Turn<'_>) -> Handled {
    let post = named(turn)?;
    let readers: Vec<Value> = post
        .read_by
        .iter()
        .filter_map(|id| turn.world.people.get(id))
        .map(view::user)
        .collect();
    Ok(Answer::Json(Value::Array(readers)))
}

fn report(turn: &mut Turn<'_>) -> Handled {
    let post = named(turn)?;
    Ok(Answer::Json(json!({
        "messageId": post.message.id,
        "messageText": post.message.text,
        "messageUserId": post.message.from_user_id,
        "reporterUserId": turn.me()?,
    })))
}
