//! The API's JSON for users, rooms and messages. Keys without a value are omitted, as by the service's own serializers.

use serde_json::{Map, Value, json};

use super::{
    posts::Post,
    time::iso,
    world::{Activity, Channel, Person, Unread, World},
};

/// Switches between the formats that the service used at different times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compatibility {
    /// `editedAt: null` on messages never edited, as the documentation of 2014 shows.
    pub edited_at_null: bool,
    /// `meta: {}` instead of `meta: []`.
    pub meta_object: bool,
}

/// Who the JSON is for, and which details it has.
#[derive(Clone, Copy, Default)]
pub(super) struct ViewOptions<'a> {
    /// The user id; `None` in realtime events, which have no current user.
    pub(super) viewer: Option<&'a str>,
    /// Fewer fields, no empty lists.
    pub(super) lean: bool,
    /// `fromUser` is an id, to be looked up elsewhere in the response.
    pub(super) user_ids_only: bool,
    pub(super) compatibility: Compatibility,
}

pub(super) fn user(person: &Person) -> Value {
    let name = &person.username;
    let shown = if person.display_name.is_empty() {
        name
    } else {
        &person.display_name
    };
    let picture = person.avatar_url.clone();
    let picture = picture.unwrap_or_else(|| format!("https://avatars-01.gitter.im/gh/uv/4/{name}"));
    json!({
        "id": person.id,
        "username": name,
        "displayName": shown,
        "url": format!("/{name}"),
        "avatarUrl": picture,
        "avatarUrlSmall": format!("/api/private/user-avatar/{name}?s=60"),
        "avatarUrlMedium": format!("/api/private/user-avatar/{name}?s=128"),
        "v": 1,
        "gv": "4",
    })
}

/// The viewer's own account, with the fields that only its owner sees.
pub(super) fn own_user(person: &Person) -> Value {
    let mut value = user(person);
    if let Some(fields) = value.as_object_mut() {
        let provider = match person.username.rsplit_once('_') {
            Some((_, "gitlab")) => "gitlab",
            Some((_, "twitter")) => "twitter",
            _ => "github",
        };
        fields.insert("providers".into(), json!([provider]));
    }
    value
}

fn lean_user(person: &Person) -> Value {
    json!({"id": person.id, "username": person.username, "v": 1})
}

fn sender(world: &World, post: &Post, look: ViewOptions<'_>) -> Option<Value> {
    if let Some(virtual_user) = &post.virtual_user {
        let avatar = virtual_user.avatar_url.clone().unwrap_or_default();
        return Some(json!({
            "id": format!("{}-{}", virtual_user.r#type, virtual_user.external_id),
            "username": virtual_user.external_id,
            "displayName": virtual_user.display_name,
            "avatarUrl": avatar,
            "avatarUrlSmall": avatar,
            "avatarUrlMedium": avatar,
        }));
    }
    let person = world.people.get(&post.message.from_user_id)?;
    if person.removed {
        return None;
    }
    Some(if look.user_ids_only {
        json!(person.id)
    } else if look.lean {
        lean_user(person)
    } else {
        user(person)
    })
}

fn mentions(post: &Post) -> Vec<Value> {
    post.mentions
        .iter()
        .map(|mention| {
            let mut fields = Map::new();
            fields.insert("screenName".into(), json!(mention.screen_name));
            if let Some(id) = &mention.user_id {
                fields.insert("userId".into(), json!(id));
            }
            if mention.group {
                fields.insert("userIds".into(), json!(mention.user_ids));
                fields.insert("group".into(), json!(true));
            }
            if mention.announcement {
                fields.insert("announcement".into(), json!(true));
            }
            Value::Object(fields)
        })
        .collect()
}

fn issues(post: &Post) -> Vec<Value> {
    post.issues
        .iter()
        .map(|issue| match &issue.repo {
            Some(repo) => json!({"number": issue.number, "repo": repo}),
            None => json!({"number": issue.number}),
        })
        .collect()
}

/// A message.
pub(super) fn message(world: &World, post: &Post, look: ViewOptions<'_>) -> Value {
    let stored = &post.message;
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("id", json!(stored.id));
    put("text", json!(stored.text));
    put("html", json!(stored.html));
    if stored.status {
        put("status", json!(true));
    }
    put("sent", json!(iso(stored.sent_ms)));
    match stored.edited_ms {
        Some(edited) => drop(put("editedAt", json!(iso(edited)))),
        None if look.compatibility.edited_at_null => drop(put("editedAt", Value::Null)),
        None => {}
    }
    if let Some(parent) = &stored.parent_id {
        put("parentId", json!(parent));
    }
    if let Some(count) = stored.thread_message_count {
        put("threadMessageCount", json!(count));
    }
    if let Some(from) = sender(world, post, look) {
        put("fromUser", from);
    }
    if let Some(virtual_user) = &post.virtual_user {
        put("virtualUser", json!(virtual_user));
    }
    if let Some(viewer) = look.viewer {
        let key = (viewer.to_owned(), stored.room_id.clone());
        let unread = world.unread.get(&key);
        let unread = unread.is_some_and(|unread| unread.chat.contains(&stored.id));
        put("unread", json!(unread));
    }
    put("readBy", json!(post.read_by.len()));
    let lists = [
        (
            "urls",
            post.urls.iter().map(|url| json!({"url": url})).collect(),
        ),
        ("mentions", mentions(post)),
        ("issues", issues(post)),
    ];
    for (key, list) in lists {
        if !(look.lean && list.is_empty()) {
            put(key, Value::Array(list));
        }
    }
    if look.compatibility.meta_object {
        put("meta", json!({}));
    } else if !look.lean {
        put("meta", json!([]));
    }
    if stored.version > 0 {
        put("v", json!(stored.version));
    }
    Value::Object(fields)
}

/// The name and the user of a room, as shown to this viewer: in a one-to-one, the other user.
fn room_name(world: &World, room: &Channel, viewer: Option<&str>) -> (String, Option<Value>) {
    let Some((a, b)) = &room.pair else {
        return (room.uri.clone(), None);
    };
    let other = if viewer == Some(a.as_str()) { b } else { a };
    match world.people.get(other) {
        Some(person) => (person.display_name.clone(), Some(user(person))),
        None => (String::new(), None),
    }
}

fn github_type(room: &Channel) -> &'static str {
    match (room.pair.is_some(), room.uri.split('/').count()) {
        (true, _) => "ONETOONE",
        (_, 1) => "ORG",
        (_, 2) => "REPO",
        _ => "REPO_CHANNEL",
    }
}

/// A room as this viewer sees it.
pub(super) fn room(world: &World, room: &Channel, viewer: Option<&str>) -> Value {
    let (name, other) = room_name(world, room, viewer);
    let group = room.uri.split('/').next().unwrap_or_default();
    let key = viewer.map(|viewer| (viewer.to_owned(), room.id.clone()));
    let unread = key.and_then(|key| world.unread.get(&key));
    let member = viewer.is_some_and(|viewer| room.members.iter().any(|member| member == viewer));
    let mut value = json!({
        "id": room.id,
        "name": name,
        "topic": room.topic,
        "oneToOne": room.pair.is_some(),
        "userCount": room.members.len(),
        "unreadItems": unread.map_or(0, |unread| unread.chat.len()),
        "mentions": unread.map_or(0, |unread| unread.mention.len()),
        "lurk": false,
        "url": format!("/{}", room.uri),
        "githubType": github_type(room),
        "security": if room.public { "PUBLIC" } else { "PRIVATE" },
        "noindex": room.noindex,
        "tags": room.tags,
        "permissions": {"admin": viewer.is_some_and(|viewer| room.admins.contains(viewer))},
        "roomMember": member,
        "public": room.public,
        "v": room.version,
    });
    if let Some(fields) = value.as_object_mut() {
        if room.pair.is_none() {
            fields.insert("uri".into(), json!(room.uri));
            fields.insert("groupId".into(), json!(group_id(group)));
            let avatar = room.picture.clone();
            let avatar =
                avatar.unwrap_or_else(|| format!("https://avatars-02.gitter.im/group/i/{group}"));
            fields.insert("avatarUrl".into(), json!(avatar));
        }
        if let Some(other) = other {
            fields.insert("user".into(), other);
        }
    }
    value
}

/// A group's id, made from its name: here a group is only the first part of a room's uri.
pub(super) fn group_id(name: &str) -> String {
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("57542c12{sum:016x}")
}

pub(super) fn activity(entry: &Activity) -> Value {
    json!({
        "id": entry.id,
        "text": entry.text,
        "html": entry.html,
        "sent": iso(entry.sent_ms),
        "meta": {},
        "v": 1,
    })
}

pub(super) fn unread(unread: &Unread) -> Value {
    json!({"chat": unread.chat, "mention": unread.mention})
}
