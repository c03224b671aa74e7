//! What comes over the wire is not what it should be (reliability: F34, F35): garbage, pieces of every size, frames
//! and headers without end, lines that are slow or break. Nobody falls, nothing that is valid is lost.

use std::{sync::atomic::Ordering, time::Duration};

use footbridge_silo::gitter::Feed;

use crate::{
    gitter::{Ground, fast},
    liar::{GOOD, Liar, Lie, Line},
    silo_contract::{House, Network},
};

/// The ground behind a liar.
async fn behind(feed: Feed, script: Vec<Lie>) -> (Ground, Liar) {
    let mut ground = Ground::with(fast(), feed).await;
    let honest = match feed {
        Feed::Realtime => ground.sim.realtime_url(),
        Feed::Stream => ground.sim.stream_url(),
    };
    let liar = Liar::before(&honest, script).await;
    ground.door = Some(liar.address);
    (ground, liar)
}

/// Talks while the lies are told, and hears all of it.
async fn hears_all(ground: &Ground, liar: &Liar, lies: usize) {
    let mut house = House::build(ground).await;
    house.begin_to_listen();
    // The moment of linking, so that nothing below counts as history.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut said = Vec::new();
    let began = tokio::time::Instant::now();
    while liar.met.load(Ordering::SeqCst) <= lies || said.len() < 20 {
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "the lies are told"
        );
        let text = format!("grün 🦆 {}", said.len());
        ground.say(&text);
        said.push(text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    house.live().await;
    let after = "after all the lies".to_owned();
    ground.say(&after);
    said.push(after);
    assert_eq!(house.heard_texts(said.len()).await, said);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn f34_garbage_on_the_stream_harms_nobody() {
    let garbage: Vec<Vec<u8>> = [
        &b"\xff\xfe\xc3(\n"[..],
        b"{\"id\":\"5f1e\n",
        b"null\n[]\n7\n\"text\"\n{}\n",
        b"\0\0\0\0\n\x1b[2J\n",
        b"{\"id\":\"5f1e00000000000000000001\",\"text\":\"gr\xc3",
        b"\xbcn\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
    ]
    .map(<[u8]>::to_vec)
    .into();
    let script = vec![
        Lie::Answer(garbage, 0),
        Lie::EndlessHeaders,
        Lie::Answer(Vec::new(), 100),
        Lie::Line(GOOD),
    ];
    let (ground, liar) = behind(Feed::Stream, script).await;
    hears_all(&ground, &liar, 3).await;
    let swallowed = liar.swallowed.load(Ordering::SeqCst);
    assert!(
        swallowed > 100 << 20,
        "the long line was read to its end: {swallowed}"
    );
}

#[tokio::test]
async fn f34_garbage_on_the_realtime_feed_harms_nobody() {
    /// A text frame of up to 125 bytes, as a server sends it.
    fn frame(text: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81, u8::try_from(text.len()).unwrap()];
        frame.extend_from_slice(text);
        frame
    }
    let welcome = br#"[{"channel":"/meta/handshake","successful":true,"clientId":"c"}]"#;
    let garbage = vec![
        frame(welcome),
        frame(b"no json at all"),
        frame(b"[null, 7, {}, [[]]]"),
        frame(br#"[{"channel":"/api/v1/rooms/x/chatMessages","data":{"operation":"create"}}]"#),
        // Not UTF-8: the session cannot go on.
        frame(b"[\"\xff\xfe\"]"),
    ];
    // A frame that says it is a hundred MiB long.
    let mut endless = vec![frame(welcome)];
    let mut head = vec![0x81, 127];
    head.extend_from_slice(&(100_u64 << 20).to_be_bytes());
    endless.push(head);
    // A frame with bits that nobody has agreed on.
    let broken = vec![frame(welcome), vec![0xf1, 0x02, b'h', b'e']];
    let script = vec![
        Lie::WebSocket(garbage, 0),
        Lie::EndlessHeaders,
        Lie::WebSocket(endless, 100),
        Lie::WebSocket(broken, 0),
        Lie::Answer(vec![b"{}".to_vec()], 0),
        Lie::Line(GOOD),
    ];
    let (ground, liar) = behind(Feed::Realtime, script).await;
    hears_all(&ground, &liar, 5).await;
    let swallowed = liar.swallowed.load(Ordering::SeqCst);
    assert!(
        swallowed < 32 << 20,
        "it hung up on the long frame: {swallowed}"
    );
}

#[tokio::test]
async fn f35_a_line_that_passes_one_byte_at_a_time_or_breaks_loses_nothing() {
    let slow = Line {
        piece: 1,
        pause: Duration::ZERO,
        breaks_after: 6_000,
    };
    let late = Line {
        piece: 1 << 10,
        pause: Duration::from_millis(300),
        breaks_after: 9_000,
    };
    let broken = Line {
        breaks_after: 700,
        ..GOOD
    };
    for feed in [Feed::Realtime, Feed::Stream] {
        let script = vec![
            Lie::Line(slow),
            Lie::Line(broken),
            Lie::Line(late),
            Lie::Line(GOOD),
        ];
        let (ground, liar) = behind(feed, script).await;
        hears_all(&ground, &liar, 3).await;
    }
}

/// TCP is up and nobody answers: noticed after twenty seconds, on either feed.
#[tokio::test]
async fn f35_half_open_connections_are_given_up() {
    let feeds = [Feed::Realtime, Feed::Stream].map(|feed| async move {
        let (ground, liar) = behind(feed, vec![Lie::HalfOpen, Lie::Line(GOOD)]).await;
        hears_all(&ground, &liar, 1).await;
    });
    let [realtime, stream] = feeds;
    tokio::join!(realtime, stream);
}
