//! The server's replies to Bayeux messages: the protocol's own channels, subscriptions with their snapshots, and the
//! ping.

use std::time::Duration;

use rand::Rng;
use serde_json::{Map, Value, json};

use super::snapshot::take_snapshot;

use crate::{
    call_faults::Fault,
    connections::{Cut, Switch},
    gitter::{auth, shared::Shared, view},
};

const CONNECTION_TYPES: [&str; 4] = [
    "long-polling",
    "cross-origin-long-polling",
    "callback-polling",
    "websocket",
];
/// The interval that means "never again", in milliseconds.
const TEN_DAYS: u64 = 864_000_000;

/// How to reply to a message.
pub(super) enum Reply {
    Now(Value),
    /// The reply to a connect, sent when events arrive or the timeout ends.
    Hold {
        answer: Value,
        client: String,
        wait: Duration,
    },
}

/// An error string with its advice.
pub(super) struct BayeuxError {
    error: String,
    advice: Option<Value>,
}

impl BayeuxError {
    pub(super) fn plain(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            advice: None,
        }
    }

    fn never(error: &str) -> Self {
        Self {
            error: error.to_owned(),
            advice: Some(json!({"reconnect": "none", "interval": TEN_DAYS})),
        }
    }

    fn unknown_client(client: &str) -> Self {
        Self {
            error: format!("401:{client}:Unknown client"),
            advice: Some(json!({"reconnect": "handshake"})),
        }
    }

    fn not_authenticated(client: &str) -> Self {
        Self {
            error: format!("401::Client {client} not authenticated"),
            advice: Some(json!({"reconnect": "handshake", "interval": 2000})),
        }
    }
}

type Fields = Map<String, Value>;

/// Handles one message.
pub(super) fn reply(shared: &Shared, switch: &Switch, message: &Value, timeout: Duration) -> Reply {
    let channel = text(message, "channel").unwrap_or_default();
    let label = match channel {
        "/api/v1/ping2" => "BAYEUX /api/v1/ping2".to_owned(),
        meta if meta.starts_with("/meta/") => format!("BAYEUX {meta}"),
        _ => "BAYEUX publish".to_owned(),
    };
    shared.count(&label);
    let mut fields = Fields::new();
    for key in ["id", "clientId", "channel"] {
        if let Some(value) = message.get(key) {
            fields.insert(key.into(), value.clone());
        }
    }
    let handled = match shared.faults.take(&label) {
        Some(Fault::Status { status } | Fault::Html { status }) => {
            Err(BayeuxError::plain(format!("{status}::Internal error")))
        }
        Some(Fault::DropBefore | Fault::DropAfter) => {
            switch.cut(Cut::Close);
            Ok(())
        }
        _ => match channel {
            "/meta/handshake" => handshake(shared, message, timeout, &mut fields),
            "/meta/connect" => connect(shared, message, timeout, &mut fields),
            "/meta/subscribe" => subscribe(shared, message, timeout, &mut fields),
            "/meta/unsubscribe" => unsubscribe(shared, message, timeout, &mut fields),
            "/meta/disconnect" => disconnect(shared, message, timeout),
            "/api/v1/ping2" => known(shared, message, timeout).map(|_| ()),
            other if other.starts_with("/meta/") => {
                Err(BayeuxError::plain(format!("403:{other}:Forbidden channel")))
            }
            _ => Err(BayeuxError::plain("403::Push access denied")),
        },
    };
    fields.insert("successful".into(), json!(handled.is_ok()));
    match handled {
        Ok(()) if channel == "/meta/connect" => Reply::Hold {
            answer: Value::Object(fields),
            client: text(message, "clientId").unwrap_or_default().to_owned(),
            wait: asked_wait(message).unwrap_or(timeout),
        },
        Ok(()) => Reply::Now(Value::Object(fields)),
        Err(problem) => {
            fields.insert("error".into(), json!(problem.error));
            if let Some(advice) = problem.advice {
                fields.insert("advice".into(), advice);
            }
            if channel == "/meta/connect" || channel == "/meta/disconnect" {
                fields.remove("clientId");
            }
            Reply::Now(Value::Object(fields))
        }
    }
}

pub(super) fn text<'a>(message: &'a Value, key: &str) -> Option<&'a str> {
    message.get(key)?.as_str()
}

fn asked_wait(message: &Value) -> Option<Duration> {
    let wait = message.get("advice")?.get("timeout")?.as_u64()?;
    Some(Duration::from_millis(wait))
}

fn advice(timeout: Duration) -> Value {
    json!({"reconnect": "retry", "interval": 500, "timeout": timeout.as_millis()})
}

/// The client id of a message, if its session is alive. A session is dropped after twice the idle timeout without a
/// message.
fn known<'a>(
    shared: &Shared,
    message: &'a Value,
    timeout: Duration,
) -> Result<&'a str, BayeuxError> {
    let client = text(message, "clientId")
        .ok_or_else(|| BayeuxError::plain("402:clientId:Missing required parameter"))?;
    shared
        .sessions
        .with(client, shared.faults.age(), timeout * 2, |_| ())
        .map(|()| client)
        .ok_or_else(|| BayeuxError::unknown_client(client))
}

fn handshake(
    shared: &Shared,
    message: &Value,
    timeout: Duration,
    fields: &mut Fields,
) -> Result<(), BayeuxError> {
    fields.insert("version".into(), json!("1.0"));
    fields.insert("supportedConnectionTypes".into(), json!(CONNECTION_TYPES));
    let token = message.get("ext").and_then(|ext| text(ext, "token"));
    let token = token
        .filter(|token| !token.is_empty())
        .ok_or_else(|| BayeuxError::never("401::Access token required"))?;
    let caller = shared
        .with_world(|world| auth::caller_of(world, token))
        .ok_or_else(|| BayeuxError::never("401::Invalid access token"))?;
    if text(message, "version").is_none() {
        return Err(BayeuxError::plain("402:version:Missing required parameter"));
    }
    let types = message
        .get("supportedConnectionTypes")
        .and_then(Value::as_array)
        .ok_or_else(|| {
            BayeuxError::plain("402:supportedConnectionTypes:Missing required parameter")
        })?;
    let asked: Vec<&str> = types.iter().filter_map(Value::as_str).collect();
    if !asked.iter().any(|kind| CONNECTION_TYPES.contains(kind)) {
        let asked = asked.join(",");
        return Err(BayeuxError::plain(format!(
            "301:{asked}:Connection types not supported"
        )));
    }
    let client: String = shared.with_world(|world| {
        (0..31)
            .filter_map(|_| char::from_digit(world.rng.random_range(0..36), 36))
            .collect()
    });
    shared
        .sessions
        .open(&client, token, caller.user.clone(), shared.faults.age());
    fields.insert("clientId".into(), json!(client));
    fields.insert("advice".into(), advice(timeout));
    let user = caller.user.as_deref();
    let person = shared.with_world(|world| {
        user.and_then(|user| world.people.get(user))
            .map(view::own_user)
    });
    let mut ext = json!({"appVersion": "21.56.9", "context": {"user": person}});
    if let (Some(ext), Some(user)) = (ext.as_object_mut(), user) {
        ext.insert("userId".into(), json!(user));
    }
    fields.insert("ext".into(), ext);
    Ok(())
}

fn connect(
    shared: &Shared,
    message: &Value,
    timeout: Duration,
    fields: &mut Fields,
) -> Result<(), BayeuxError> {
    known(shared, message, timeout)?;
    let kind = text(message, "connectionType")
        .ok_or_else(|| BayeuxError::plain("402:connectionType:Missing required parameter"))?;
    if !CONNECTION_TYPES.contains(&kind) {
        return Err(BayeuxError::plain(format!(
            "301:{kind}:Connection types not supported"
        )));
    }
    fields.insert("advice".into(), advice(timeout));
    Ok(())
}

fn disconnect(shared: &Shared, message: &Value, timeout: Duration) -> Result<(), BayeuxError> {
    let client = known(shared, message, timeout)?;
    shared.sessions.close(client);
    Ok(())
}

fn unsubscribe(
    shared: &Shared,
    message: &Value,
    timeout: Duration,
    fields: &mut Fields,
) -> Result<(), BayeuxError> {
    let client = known(shared, message, timeout)?;
    let channel = text(message, "subscription")
        .ok_or_else(|| BayeuxError::plain("402:subscription:Missing required parameter"))?;
    fields.insert("subscription".into(), json!(channel));
    shared
        .sessions
        .with(client, shared.faults.age(), timeout * 2, |session| {
            session.subscriptions.remove(channel)
        });
    Ok(())
}

fn subscribe(
    shared: &Shared,
    message: &Value,
    timeout: Duration,
    fields: &mut Fields,
) -> Result<(), BayeuxError> {
    let client = text(message, "clientId")
        .ok_or_else(|| BayeuxError::plain("402:clientId:Missing required parameter"))?;
    let channel = text(message, "subscription")
        .ok_or_else(|| BayeuxError::plain("402:subscription:Missing required parameter"))?;
    fields.insert("subscription".into(), json!(channel));
    let age = shared.faults.age();
    let token = shared
        .sessions
        .with(client, age, timeout * 2, |session| session.token.clone())
        .ok_or_else(|| BayeuxError::not_authenticated(client))?;
    let asked = message.get("ext").and_then(|ext| ext.get("snapshot"));
    // Check, subscription and snapshot under one lock, so that nothing happens between the snapshot and the first
    // event.
    let snapshot = shared.with_world(|world| {
        let caller =
            auth::caller_of(world, &token).ok_or_else(|| BayeuxError::not_authenticated(client))?;
        let viewer = caller.user.as_deref();
        let picture = take_snapshot(shared, world, viewer, channel, asked)?;
        shared
            .sessions
            .with(client, age, timeout * 2, |session| {
                session.subscriptions.insert(channel.to_owned())
            })
            .ok_or_else(|| BayeuxError::not_authenticated(client))?;
        Ok(picture)
    })?;
    if let (Some(snapshot), false) = (snapshot, asked == Some(&Value::Bool(false))) {
        fields.insert("ext".into(), json!({"snapshot": snapshot}));
    }
    Ok(())
}
