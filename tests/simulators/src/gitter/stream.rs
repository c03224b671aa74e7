//! The HTTP stream of a room: one object per line, keep-alives between them, only new messages, nothing replayed.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, MissedTickBehavior},
};

use super::{
    api_error::ApiError,
    auth,
    faults::{Faults, Framing},
    rest::{add_rate_headers, query, segments, strike_before, take_rate},
    shared::{Shared, lock},
};
use crate::connections::Switch;

struct Subscriber {
    room: String,
    feed: String,
    user: Option<String>,
    /// The user was removed from the room: the connection stays open, but nothing is sent any more.
    silent: bool,
    lines: mpsc::UnboundedSender<Line>,
}

/// A line and its framing, which is set when the line is published.
type Line = (String, Framing);

/// The open streams.
#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<Subscriber>>);

impl Streams {
    fn add(&self, room: &str, feed: &str, user: Option<String>) -> mpsc::UnboundedReceiver<Line> {
        let (lines, receiver) = mpsc::unbounded_channel();
        let mut listeners = lock(&self.0);
        listeners.retain(|listener| !listener.lines.is_closed());
        listeners.push(Subscriber {
            room: room.to_owned(),
            feed: feed.to_owned(),
            user,
            silent: false,
            lines,
        });
        receiver
    }

    pub(super) fn send(&self, framing: Framing, room: &str, feed: &str, body: &Value) {
        if framing.mute {
            return;
        }
        let line = body.to_string();
        lock(&self.0).retain(|listener| {
            let wanted = listener.room == room && listener.feed == feed && !listener.silent;
            !wanted || listener.lines.send((line.clone(), framing)).is_ok()
        });
    }

    pub(super) fn silence(&self, room: &str, user: &str) {
        for listener in lock(&self.0).iter_mut() {
            if listener.room == room && listener.user.as_deref() == Some(user) {
                listener.silent = true;
            }
        }
    }

    /// The number of open streams.
    pub(super) fn count(&self) -> usize {
        let mut listeners = lock(&self.0);
        listeners.retain(|listener| !listener.lines.is_closed());
        listeners.len()
    }
}

/// The stream host's router.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let now_ms = shared.clock.now_ms();
    let found = segments(parts.uri.path());
    let Some(["rooms", room, feed @ ("chatMessages" | "events")]) = found.as_deref() else {
        return ApiError::NOT_FOUND.response(now_ms);
    };
    let label = format!("STREAM /rooms/:id/{feed}");
    shared.count(&label);
    if let Some(response) = strike_before(&shared, &switch, shared.faults.take(&label)).await {
        return response;
    }
    let query = query(&parts);
    let token = query.get("access_token").map(String::as_str);
    let caller = match shared.with_world(|world| {
        let caller = auth::caller(world, &parts.headers, token)?;
        world.readable(room, caller.user.as_deref())?;
        Ok(caller)
    }) {
        Ok(caller) => caller,
        Err(refusal) => return ApiError::response(refusal, now_ms),
    };
    let mut headers = HeaderMap::new();
    if shared.options.streams_cost {
        let allowance = take_rate(&shared, &caller, now_ms);
        add_rate_headers(&mut headers, allowance);
        if allowance.refused {
            return (headers, ApiError::TOO_MANY.response(now_ms)).into_response();
        }
    }
    let lines = shared.streams.add(room, feed, caller.user);
    let (chunks, receiver) = mpsc::channel(16);
    super::start(pump(Arc::clone(&shared), lines, chunks));
    let body = stream::unfold(receiver, |mut receiver| async {
        let chunk: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    let kind = (header::CONTENT_TYPE, "application/json");
    (headers, [kind], Body::from_stream(body)).into_response()
}

/// Sends lines to one connection until it or the simulator ends.
async fn pump(
    shared: Arc<Shared>,
    mut lines: mpsc::UnboundedReceiver<Line>,
    chunks: mpsc::Sender<Bytes>,
) {
    let period = shared.options.keepalive;
    let mut beat = tokio::time::interval_at(Instant::now() + period, period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held: Vec<String> = Vec::new();
    loop {
        let sent = tokio::select! {
            () = shared.stop.cancelled() => return,
            () = chunks.closed() => return,
            line = lines.recv() => match line {
                None => return,
                Some((line, framing)) => {
                    held.push(line);
                    flush(framing, &mut held, &chunks).await
                }
            },
            _ = beat.tick() => beat_once(&shared.faults, &mut held, &chunks).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

type Sent = Result<(), mpsc::error::SendError<Bytes>>;

fn end(framing: Framing) -> &'static str {
    if framing.crlf { "\r\n" } else { "\n" }
}

/// Sends keep-alives, after the lines that waited in vain for more.
async fn beat_once(faults: &Faults, held: &mut Vec<String>, chunks: &mpsc::Sender<Bytes>) -> Sent {
    let end = end(faults.framing());
    for line in held.drain(..) {
        chunks.send(format!("{line}{end}").into()).await?;
    }
    for _ in 0..faults.take_keepalives() {
        chunks.send(format!(" {end}").into()).await?;
    }
    Ok(())
}

/// Sends the held lines once there are as many as the framing requires.
async fn flush(framing: Framing, held: &mut Vec<String>, chunks: &mpsc::Sender<Bytes>) -> Sent {
    let enough = framing.coalesce.max(if framing.swap { 2 } else { 1 });
    if held.len() < enough {
        return Ok(());
    }
    if framing.swap {
        for pair in held.chunks_mut(2) {
            pair.reverse();
        }
    }
    let end = end(framing);
    let times = if framing.duplicate { 2 } else { 1 };
    let texts: Vec<String> = held
        .drain(..)
        .map(|line| format!("{line}{end}").repeat(times))
        .collect();
    let texts = if framing.coalesce > 1 {
        vec![texts.concat()]
    } else {
        texts
    };
    for text in texts {
        let text = if framing.glue_keepalive {
            format!(" {end}{text}")
        } else {
            text
        };
        if !framing.split {
            chunks.send(text.into()).await?;
            continue;
        }
        for piece in pieces(&text) {
            chunks.send(piece).await?;
            // Sent at separate times, because otherwise the kernel joins them again.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Splits a line into three: early, and inside its first multi-byte character (in the middle if it has none).
fn pieces(text: &str) -> Vec<Bytes> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let inside = text
        .char_indices()
        .find(|(_, letter)| letter.len_utf8() > 1)
        .map_or(text.len() / 2, |(index, _)| index + 1);
    let early = (inside / 2).min(7);
    vec![
        bytes.slice(..early),
        bytes.slice(early..inside),
        bytes.slice(inside..),
    ]
}
