//! The control port: what a test in another process can do to the simulated service, as JSON over HTTP, and a page for
//! a person who wants to chat in a room.

use std::{collections::HashMap, sync::Weak, time::Duration};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{Html, IntoResponse, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    ApiError, Cut, Echo, Fault, Framing, GitterSim, Message, RoomOptions, SimInner,
    actions::DEFAULT_ACCOUNT_AGE, posts::Draft, rest::query, time::iso,
};

/// Why the control port did not perform a request; worded for people, unlike the service's own errors.
struct ControlError(StatusCode, String);

impl From<ApiError> for ControlError {
    fn from(refusal: ApiError) -> Self {
        Self(refusal.0, refusal.to_string())
    }
}

fn complain(text: impl Into<String>) -> ControlError {
    ControlError(StatusCode::BAD_REQUEST, text.into())
}

type Done = Result<Value, ControlError>;

pub(super) fn router(house: Weak<SimInner>) -> Router {
    Router::new().fallback(serve).with_state(house)
}

async fn serve(State(house): State<Weak<SimInner>>, request: Request) -> Response {
    let Some(house) = house.upgrade() else {
        return StatusCode::GONE.into_response();
    };
    let sim = GitterSim(house);
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if parts.method == Method::GET && path == "/" {
        return Html(include_str!("page.html")).into_response();
    }
    let done = if parts.method == Method::GET {
        look(&sim, path, &query(&parts))
    } else {
        match to_bytes(body, 1 << 20).await {
            Err(error) => Err(complain(error.to_string())),
            Ok(body) if body.is_empty() => act(&sim, path, json!({})).await,
            Ok(body) => match serde_json::from_slice(&body) {
                Ok(order) => act(&sim, path, order).await,
                Err(error) => Err(complain(error.to_string())),
            },
        }
    };
    match done {
        Ok(value) => Json(value).into_response(),
        Err(ControlError(status, error)) => (status, Json(json!({"error": error}))).into_response(),
    }
}

fn parse<T: DeserializeOwned>(order: Value) -> Result<T, ControlError> {
    serde_json::from_value(order).map_err(|error| complain(error.to_string()))
}

/// The id of a room given by id or uri.
fn room_id(sim: &GitterSim, name: &str) -> Result<String, ControlError> {
    sim.change(|world, _| {
        let by_id = world.channels.get(name);
        by_id
            .or_else(|| world.channel_named(name))
            .map(|room| room.id.clone())
    })
    .ok_or_else(|| ControlError(StatusCode::NOT_FOUND, format!("there is no room {name}")))
}

/// The id of a user given by id or name.
fn user_id(sim: &GitterSim, name: &str) -> Result<String, ControlError> {
    sim.change(|world, _| {
        let by_id = world.people.get(name);
        by_id
            .or_else(|| world.person_named(name))
            .map(|person| person.id.clone())
    })
    .ok_or_else(|| ControlError(StatusCode::NOT_FOUND, format!("there is no user {name}")))
}

fn message(message: &Message) -> Value {
    json!({
        "id": message.id,
        "room": message.room_id,
        "user": message.from_username,
        "userId": message.from_user_id,
        "text": message.text,
        "html": message.html,
        "status": message.status,
        "sent": iso(message.sent_ms),
        "editedAt": message.edited_ms.map(iso),
        "parentId": message.parent_id,
        "threadMessageCount": message.thread_message_count,
        "v": message.version,
    })
}

fn look(sim: &GitterSim, path: &str, query: &HashMap<String, String>) -> Done {
    match path {
        "/addresses" => Ok(json!({
            "api": sim.api_url(), "stream": sim.stream_url(),
            "realtime": sim.realtime_url(), "control": sim.control_url(),
        })),
        "/calls" => Ok(json!(sim.calls())),
        "/listeners" => Ok(json!({
            "streams": sim.open_streams(), "sessions": sim.open_sessions(),
        })),
        "/rooms" => Ok(sim.change(|world, _| {
            let rooms = world.channels.values();
            rooms
                .map(|room| json!({"id": room.id, "uri": room.uri, "public": room.public, "members": room.members}))
                .collect()
        })),
        "/users" => Ok(sim.change(|world, _| {
            let people = world.people.values();
            people
                .map(|person| json!({"id": person.id, "username": person.username, "displayName": person.display_name}))
                .collect()
        })),
        "/messages" => {
            let room = query.get("room").ok_or_else(|| complain("which ?room="))?;
            let messages = sim.messages(&room_id(sim, room)?);
            Ok(messages.iter().map(message).collect())
        }
        _ => Err(ControlError(StatusCode::NOT_FOUND, format!("nothing to read at {path}"))),
    }
}

#[derive(Deserialize)]
struct Say {
    room: String,
    user: String,
    text: String,
    #[serde(default)]
    status: bool,
    parent: Option<String>,
}

#[derive(Deserialize)]
struct OnMessage {
    room: String,
    message: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Member {
    room: String,
    user: String,
}

#[derive(Deserialize)]
struct NewUser {
    username: String,
    #[serde(default)]
    display_name: String,
    age_days: Option<u64>,
}

#[derive(Deserialize)]
#[serde(default)]
struct NewRoom {
    uri: String,
    public: bool,
    members: Vec<String>,
    admins: Vec<String>,
    topic: String,
}

impl Default for NewRoom {
    fn default() -> Self {
        Self {
            uri: String::new(),
            public: true,
            members: Vec::new(),
            admins: Vec::new(),
            topic: String::new(),
        }
    }
}

async fn act(sim: &GitterSim, path: &str, order: Value) -> Done {
    match path {
        "/say" => say(sim, parse(order)?),
        "/edit" => {
            let order: OnMessage = parse(order)?;
            let room = room_id(sim, &order.room)?;
            Ok(message(&sim.edit(&room, &order.message, &order.text)?))
        }
        "/delete" => {
            let order: OnMessage = parse(order)?;
            sim.delete(&room_id(sim, &order.room)?, &order.message)?;
            Ok(json!({}))
        }
        "/join" | "/leave" | "/kick" | "/ban" | "/unban" => {
            let order: Member = parse(order)?;
            let (room, user) = (room_id(sim, &order.room)?, user_id(sim, &order.user)?);
            match path {
                "/join" => sim.join(&room, &user)?,
                "/ban" => sim.ban(&room, &user)?,
                "/unban" => sim.unban(&room, &user)?,
                _ => sim.leave(&room, &user)?,
            }
            Ok(json!({}))
        }
        "/users" => {
            let order: NewUser = parse(order)?;
            let age = order.age_days.map_or(DEFAULT_ACCOUNT_AGE, |days| {
                Duration::from_secs(days * 86_400)
            });
            let user = sim.add_user_aged(&order.username, &order.display_name, age);
            Ok(json!({"id": user.id, "username": user.username, "token": user.token}))
        }
        "/users/delete" => {
            sim.delete_user(&user_id(sim, &parse::<Named>(order)?.user)?);
            Ok(json!({}))
        }
        "/rooms" => add_room(sim, parse(order)?),
        "/stop" => {
            sim.stop_listening().await;
            Ok(json!({}))
        }
        "/restart" => match sim.restart().await {
            Ok(()) => Ok(json!({})),
            Err(error) => Err(ControlError(StatusCode::CONFLICT, format!("{error:#}"))),
        },
        _ => last_error(sim, path, order),
    }
}

fn say(sim: &GitterSim, order: Say) -> Done {
    let (room, user) = (room_id(sim, &order.room)?, user_id(sim, &order.user)?);
    let draft = Draft {
        text: order.text,
        status: order.status,
        parent_id: order.parent,
        virtual_user: None,
    };
    Ok(message(&sim.post(&room, &user, draft)?))
}

fn add_room(sim: &GitterSim, order: NewRoom) -> Done {
    if order.uri.is_empty() {
        return Err(complain("a room needs a uri"));
    }
    let ids = |names: &[String]| {
        names
            .iter()
            .map(|name| user_id(sim, name))
            .collect::<Result<_, _>>()
    };
    let options = RoomOptions {
        public: order.public,
        members: ids(&order.members)?,
        admins: ids(&order.admins)?,
        topic: order.topic,
    };
    let room = sim.add_room(&order.uri, options);
    Ok(json!({"id": room.id, "uri": room.uri}))
}

#[derive(Deserialize)]
struct ArmFault {
    route: String,
    #[serde(flatten)]
    fault: Fault,
    times: Option<u32>,
    probability: Option<f64>,
}

#[derive(Deserialize)]
struct CutOrder {
    port: String,
    how: String,
}

#[derive(Deserialize)]
struct Realtime {
    skip: Option<u64>,
    mute: Option<bool>,
    #[serde(default)]
    expire: bool,
}

#[derive(Deserialize)]
struct ClockOrder {
    now_ms: Option<i64>,
    advance_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    user: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    allow: bool,
}

/// Handles the requests that inject faults.
fn last_error(sim: &GitterSim, path: &str, order: Value) -> Done {
    let faults = sim.faults();
    match path {
        "/fault" => {
            let order: ArmFault = parse(order)?;
            match order.probability {
                Some(probability) => faults.sometimes(&order.route, order.fault, probability),
                None => faults.next(&order.route, order.fault, order.times.unwrap_or(1)),
            }
        }
        "/faults/clear" => faults.clear(),
        "/framing" => faults.set_framing(parse::<Framing>(order)?),
        "/keepalives" => faults.burst_keepalives(parse::<Named>(order)?.count),
        "/echo" => faults.set_echo(parse::<Echo>(order)?),
        "/chunked" => faults.allow_chunked(parse::<Named>(order)?.allow),
        "/cut" => {
            let order: CutOrder = parse(order)?;
            let how = match order.how.as_str() {
                "close" => Cut::Close,
                "reset" => Cut::Reset,
                "freeze" => Cut::Freeze,
                _ => return Err(complain("how is close, reset or freeze")),
            };
            let cut = match order.port.as_str() {
                "api" => faults.cut_api(how),
                "stream" => faults.cut_streams(how),
                "realtime" => faults.cut_realtime(how),
                _ => return Err(complain("port is api, stream or realtime")),
            };
            return Ok(json!({"connections": cut}));
        }
        "/realtime" => {
            let order: Realtime = parse(order)?;
            if let Some(skip) = order.skip {
                faults.skip_deliveries(skip);
            }
            if let Some(mute) = order.mute {
                faults.mute_realtime(mute);
            }
            if order.expire {
                faults.expire_sessions();
            }
        }
        "/clock" => {
            let order: ClockOrder = parse(order)?;
            if let Some(now_ms) = order.now_ms {
                sim.set_clock(now_ms);
            }
            sim.advance(Duration::from_millis(order.advance_ms.unwrap_or(0)));
            return Ok(json!({"now_ms": sim.now_ms()}));
        }
        "/hellban" => sim.hellban(&user_id(sim, &parse::<Named>(order)?.user)?),
        "/revoke" => sim.revoke_token(&parse::<Named>(order)?.token),
        _ => {
            return Err(ControlError(
                StatusCode::NOT_FOUND,
                format!("nothing to do at {path}"),
            ));
        }
    }
    Ok(json!({}))
}
