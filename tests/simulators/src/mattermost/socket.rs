//! The WebSocket: authentication, a greeting, and then every event that the user may see, numbered.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{Message as Frame, WebSocket};
use serde_json::{Value, json};

use super::{Shared, world::new_id};

/// How long a client may stay unauthenticated.
const UNKNOWN: Duration = Duration::from_secs(5);

/// Serves a connection; `user` is known if the upgrade request had a token.
pub(super) async fn serve(shared: Arc<Shared>, mut socket: WebSocket, user: Option<String>) {
    let Some((user, reply)) = introduced(&shared, &mut socket, user).await else {
        return;
    };
    let (number, mut queue) = shared.world.listen(&user);
    talk(&shared, &mut socket, reply, &mut queue).await;
    shared.world.leave(number);
}

/// Waits until the client authenticates; returns the user and the number of that message.
async fn introduced(
    shared: &Shared,
    socket: &mut WebSocket,
    user: Option<String>,
) -> Option<(String, Option<u64>)> {
    if let Some(user) = user {
        return Some((user, None));
    }
    let waiting = async {
        while let Some(Ok(frame)) = socket.recv().await {
            let Frame::Text(text) = frame else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).ok()?;
            if message["action"] != "authentication_challenge" {
                continue;
            }
            let token = message["data"]["token"].as_str()?;
            return Some((shared.world.who(token)?, message["seq"].as_u64()));
        }
        None
    };
    tokio::time::timeout(UNKNOWN, waiting).await.ok().flatten()
}

async fn talk(
    shared: &Shared,
    socket: &mut WebSocket,
    reply: Option<u64>,
    queue: &mut tokio::sync::mpsc::Receiver<String>,
) {
    let broadcast = json!({"omit_users": null, "user_id": "", "channel_id": "", "team_id": ""});
    let data = json!({"server_version": "5.37.0.dev", "connection_id": new_id()});
    let hello = json!({"event": "hello", "data": data, "broadcast": broadcast, "seq": 0});
    let mut first = vec![hello];
    first.extend(reply.map(|seq| json!({"status": "OK", "seq_reply": seq})));
    for text in first {
        if socket.send(Frame::text(text.to_string())).await.is_err() {
            return;
        }
    }
    loop {
        let sent = tokio::select! {
            () = shared.stop.cancelled() => return,
            text = queue.recv() => match text {
                Some(text) => socket.send(Frame::text(text)).await,
                None => return,
            },
            frame = socket.recv() => match frame {
                Some(Ok(Frame::Text(text))) => match answer(&text) {
                    Some(answer) => socket.send(Frame::text(answer)).await,
                    None => Ok(()),
                },
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => Ok(()),
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn answer(text: &str) -> Option<String> {
    let message: Value = serde_json::from_str(text).ok()?;
    let seq = message["seq"].as_u64()?;
    let answer = match message["action"].as_str()? {
        "ping" => {
            let data = json!({"text": "pong", "version": "5.37.0", "server_time": super::world::now_ms(), "node_id": ""});
            json!({"status": "OK", "data": data, "seq_reply": seq})
        }
        "authentication_challenge" | "user_typing" | "get_statuses" => {
            json!({"status": "OK", "seq_reply": seq})
        }
        _ => json!({
            "status": "FAIL",
            "error": {"id": "api.web_socket_router.bad_action.app_error", "message": "Unknown WebSocket action.",
                "detailed_error": "", "status_code": 500},
            "seq_reply": seq,
        }),
    };
    Some(answer.to_string())
}
