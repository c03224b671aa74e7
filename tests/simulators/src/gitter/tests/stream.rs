//! Behaviours 15 to 17: the HTTP stream.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

use super::{EVENT_TIMEOUT, SILENCE, SimScenario};
use crate::gitter::{Cut, Fault, Framing, Options};

/// An open stream, read chunk by chunk.
struct StreamClient {
    response: Response,
    held: Vec<u8>,
}

impl StreamClient {
    async fn open(stage: &SimScenario) -> Self {
        let response = connect(stage, &stage.me.token).await;
        assert_eq!(response.status(), 200);
        Self {
            response,
            held: Vec::new(),
        }
    }

    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let chunk = tokio::time::timeout(EVENT_TIMEOUT, self.response.chunk())
            .await
            .expect("a chunk");
        chunk.ok().flatten().map(|chunk| chunk.to_vec())
    }

    /// The next object; keep-alives are skipped.
    async fn object(&mut self) -> Value {
        loop {
            if let Some(at) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=at).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line).unwrap();
            }
            let chunk = self.chunk().await.expect("the stream to stay open");
            self.held.extend(chunk);
        }
    }

    async fn text(&mut self) -> String {
        self.object().await["text"].as_str().unwrap().to_owned()
    }

    async fn hears_nothing(&mut self) {
        let received = tokio::time::timeout(SILENCE, self.response.chunk()).await;
        assert!(received.is_err() && self.held.is_empty(), "{received:?}");
    }
}

async fn connect(stage: &SimScenario, token: &str) -> Response {
    let url = format!("{}{}", stage.sim.stream_url(), stage.chat());
    stage.http.get(url).bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn behaviour_15_one_object_per_line_and_keepalives_between() {
    let keepalive = Duration::from_millis(60);
    let stage = SimScenario::with(Options {
        keepalive,
        ..Options::default()
    })
    .await;
    let mut tap = StreamClient::open(&stage).await;
    assert_eq!(tap.response.headers()["content-type"], "application/json");
    assert_eq!(tap.response.headers()["transfer-encoding"], "chunked");
    assert_eq!(tap.chunk().await.unwrap(), b" \n");
    stage.say("two\nlines");
    let message = tap.object().await;
    assert_eq!(message["text"], "two\nlines");
    assert_eq!(message["fromUser"]["username"], "alice");
    assert!(message.get("operation").is_none() && message.get("unread").is_none());
    stage.sim.faults().set_framing(Framing {
        crlf: true,
        ..Framing::default()
    });
    tap.held.clear();
    while tap.chunk().await.unwrap() != b" \r\n" {}
    stage.sim.faults().burst_keepalives(50);
    let mut spaces = 0;
    let start = std::time::Instant::now();
    while spaces < 50 {
        let chunk = tap.chunk().await.unwrap();
        spaces += String::from_utf8(chunk).unwrap().matches(' ').count();
    }
    assert!(start.elapsed() < keepalive * 20, "not at once");
}

#[tokio::test]
async fn behaviour_15_chunks_do_not_align_with_lines_or_characters() {
    let stage = SimScenario::new().await;
    let mut tap = StreamClient::open(&stage).await;
    let faults = stage.sim.faults();
    faults.set_framing(Framing {
        split: true,
        ..Framing::default()
    });
    stage.say("ä split one");
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    while !chunks.concat().ends_with(b"\n") {
        chunks.push(tap.chunk().await.unwrap());
    }
    assert!(chunks.len() > 1);
    let whole = chunks
        .iter()
        .all(|chunk| std::str::from_utf8(chunk).is_ok());
    assert!(!whole, "no character was cut");
    let message: Value = serde_json::from_slice(&chunks.concat()).unwrap();
    assert_eq!(message["text"], "ä split one");
    faults.set_framing(Framing {
        glue_keepalive: true,
        ..Framing::default()
    });
    stage.say("glued");
    let chunk = tap.chunk().await.unwrap();
    assert!(chunk.starts_with(b" \n{") && chunk.ends_with(b"}\n"));
    faults.set_framing(Framing {
        coalesce: 3,
        ..Framing::default()
    });
    for text in ["a", "b", "c"] {
        stage.say(text);
    }
    let chunk = tap.chunk().await.unwrap();
    assert_eq!(String::from_utf8(chunk).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn behaviour_16_only_creations_are_streamed_and_nothing_is_replayed() {
    let stage = SimScenario::new().await;
    stage.say("before");
    let mut tap = StreamClient::open(&stage).await;
    let first = stage.say("first");
    stage.post("my own").await;
    stage.sim.edit(&stage.room.id, &first, "edited").unwrap();
    stage.sim.delete(&stage.room.id, &first).unwrap();
    stage.say("last");
    assert_eq!(tap.text().await, "first");
    assert_eq!(tap.text().await, "my own");
    assert_eq!(tap.text().await, "last");
    tap.hears_nothing().await;
}

#[tokio::test]
async fn behaviour_16_connections_end_in_every_way() {
    let keepalive = Duration::from_millis(40);
    let stage = SimScenario::with(Options {
        keepalive,
        ..Options::default()
    })
    .await;
    for how in [Cut::Close, Cut::Reset] {
        let mut tap = StreamClient::open(&stage).await;
        assert!(tap.chunk().await.is_some());
        assert!(stage.sim.faults().cut_streams(how) >= 1);
        while tap.chunk().await.is_some() {}
    }
    let mut tap = StreamClient::open(&stage).await;
    assert!(tap.chunk().await.is_some());
    stage.sim.faults().cut_streams(Cut::Freeze);
    while let Ok(chunk) = tokio::time::timeout(SILENCE, tap.response.chunk()).await {
        assert!(chunk.unwrap().is_some(), "closed instead of frozen");
    }
    stage.say("never heard");
    tap.hears_nothing().await;
    let mut tap = StreamClient::open(&stage).await;
    stage.sim.faults().set_framing(Framing {
        mute: true,
        ..Framing::default()
    });
    stage.say("muted");
    for _ in 0..5 {
        assert_eq!(tap.chunk().await.unwrap(), b" \n");
    }
}

#[tokio::test]
async fn behaviour_16_connecting_can_be_refused() {
    let stage = SimScenario::new().await;
    assert_eq!(connect(&stage, "nonsense").await.status(), 401);
    for status in [401, 403, 404, 429, 503] {
        let route = "STREAM /rooms/:id/chatMessages";
        stage.sim.faults().next(route, Fault::Status { status }, 1);
        assert_eq!(connect(&stage, &stage.me.token).await.status(), status);
    }
    stage.sim.ban(&stage.room.id, &stage.me.id).unwrap();
    assert_eq!(connect(&stage, &stage.me.token).await.status(), 403);
    assert_eq!(stage.sim.calls()["STREAM /rooms/:id/chatMessages"], 7);
}

#[tokio::test]
async fn behaviour_17_a_gap_is_filled_by_rest_and_overlaps_it() {
    let stage = SimScenario::new().await;
    let mut tap = StreamClient::open(&stage).await;
    let seen = stage.say("seen");
    assert_eq!(tap.object().await["id"], seen);
    stage.sim.faults().cut_streams(Cut::Close);
    while tap.chunk().await.is_some() {}
    stage.say("in the gap");
    let mut tap = StreamClient::open(&stage).await;
    let both = stage.say("by both ways");
    assert_eq!(tap.object().await["id"], both);
    tap.hears_nothing().await;
    assert_eq!(
        stage.listed("").await,
        ["seen", "in the gap", "by both ways"]
    );
}

#[tokio::test]
async fn behaviour_17_lines_can_come_twice_and_neighbours_change_places() {
    let stage = SimScenario::new().await;
    let mut tap = StreamClient::open(&stage).await;
    stage.sim.faults().set_framing(Framing {
        duplicate: true,
        ..Framing::default()
    });
    stage.say("twice");
    assert_eq!(
        (tap.text().await, tap.text().await),
        ("twice".into(), "twice".into())
    );
    stage.sim.faults().set_framing(Framing {
        swap: true,
        ..Framing::default()
    });
    stage.say("one");
    stage.say("two");
    assert_eq!(
        (tap.text().await, tap.text().await),
        ("two".into(), "one".into())
    );
}

#[tokio::test]
async fn behaviour_21_a_banned_listener_receives_nothing_more_on_the_stream() {
    let stage = SimScenario::new().await;
    let mut tap = StreamClient::open(&stage).await;
    stage.say("heard");
    assert_eq!(tap.text().await, "heard");
    stage.sim.ban(&stage.room.id, &stage.me.id).unwrap();
    stage.say("unheard");
    tap.hears_nothing().await;
}
