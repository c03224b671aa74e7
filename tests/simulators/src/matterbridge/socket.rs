//! `/api/websocket`: sends every message to every client as it arrives; no earlier messages, no acknowledgements.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use tokio::time::Instant;

use super::{Message, Shared};

/// The largest frame that is accepted, in bytes.
const MAX_FRAME: usize = 512;
/// How much longer than a ping interval a client may be silent.
const GRACE: Duration = Duration::from_secs(6);

pub(super) async fn serve(shared: Arc<Shared>, mut socket: WebSocket) {
    let (number, mut queue) = shared.world.listen();
    talk(&shared, &mut socket, number, &mut queue).await;
    shared.world.leave(number);
}

async fn talk(
    shared: &Shared,
    socket: &mut WebSocket,
    number: u64,
    queue: &mut tokio::sync::mpsc::Receiver<String>,
) {
    let hello = shared.world.hello().json();
    if socket.send(Frame::text(hello)).await.is_err() {
        return;
    }
    let ping = shared.options.ping;
    let mut beat = tokio::time::interval_at(Instant::now() + ping, ping);
    let mut last_frame = Instant::now();
    loop {
        let sent = tokio::select! {
            () = shared.stop.cancelled() => return,
            text = queue.recv() => match text {
                Some(text) => socket.send(Frame::text(text)).await,
                None => return,
            },
            _ = beat.tick() => {
                if last_frame.elapsed() > ping + GRACE {
                    return;
                }
                socket.send(Frame::Ping(Vec::new().into())).await
            }
            frame = socket.recv() => {
                last_frame = Instant::now();
                match frame {
                    Some(Ok(Frame::Text(text))) if text.len() > MAX_FRAME => {
                        let close = CloseFrame { code: 1009, reason: "".into() };
                        drop(socket.send(Frame::Close(Some(close))).await);
                        return;
                    }
                    Some(Ok(Frame::Text(text))) => {
                        if let Ok(message) = serde_json::from_str::<Message>(&text) {
                            shared.world.post(message, &shared.faults, Some(number));
                        }
                        Ok(())
                    }
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => Ok(()),
                }
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
