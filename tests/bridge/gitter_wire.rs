//! Invalid input on the connection (reliability: F34, F35): garbage, pieces of every size, endless frames and headers,
//! slow or broken connections. The bridge does not crash, and loses no valid message.

use std::{sync::atomic::Ordering, time::Duration};

use footbridge_silo::gitter::Feed;

use crate::{
    faulty_server::{ConnectionBehavior, FaultyServer, GOOD_LINK, Link},
    gitter::{Fixture, fast},
    silo_contract::{Network, TestBridge},
};

/// The fixture behind a faulty server.
async fn behind(feed: Feed, script: Vec<ConnectionBehavior>) -> (Fixture, FaultyServer) {
    let mut fixture = Fixture::with(fast(), feed).await;
    let honest = match feed {
        Feed::Realtime => fixture.sim.realtime_url(),
        Feed::Stream => fixture.sim.stream_url(),
    };
    let faulty_server = FaultyServer::in_front_of(&honest, script).await;
    fixture.proxy_address = Some(faulty_server.address);
    (fixture, faulty_server)
}

/// Sends messages while the faults happen, and checks that all of them arrive.
async fn receives_all(fixture: &Fixture, faulty_server: &FaultyServer, faults: usize) {
    let mut bridge = TestBridge::build(fixture).await;
    bridge.start_listening();
    // The moment of linking, so that nothing below counts as history.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut said = Vec::new();
    let began = tokio::time::Instant::now();
    while faulty_server.connection_count.load(Ordering::SeqCst) <= faults || said.len() < 20 {
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "the faults have happened"
        );
        let text = format!("grün 🦆 {}", said.len());
        fixture.say(&text);
        said.push(text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bridge.until_live().await;
    let after = "after all the faults".to_owned();
    fixture.say(&after);
    said.push(after);
    assert_eq!(bridge.received_texts(said.len()).await, said);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn f34_garbage_on_the_stream_has_no_effect() {
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
        ConnectionBehavior::Response(garbage, 0),
        ConnectionBehavior::EndlessHeaders,
        ConnectionBehavior::Response(Vec::new(), 100),
        ConnectionBehavior::Forward(GOOD_LINK),
    ];
    let (fixture, faulty_server) = behind(Feed::Stream, script).await;
    receives_all(&fixture, &faulty_server, 3).await;
    let bytes_taken = faulty_server.bytes_taken.load(Ordering::SeqCst);
    assert!(
        bytes_taken > 100 << 20,
        "the long line was read to its end: {bytes_taken}"
    );
}

#[tokio::test]
async fn f34_garbage_on_the_realtime_feed_has_no_effect() {
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
        // Not UTF-8: the session cannot continue.
        frame(b"[\"\xff\xfe\"]"),
    ];
    // A frame that claims to be a hundred MiB long.
    let mut endless = vec![frame(welcome)];
    let mut head = vec![0x81, 127];
    head.extend_from_slice(&(100_u64 << 20).to_be_bytes());
    endless.push(head);
    // A frame with reserved bits set.
    let broken = vec![frame(welcome), vec![0xf1, 0x02, b'h', b'e']];
    let script = vec![
        ConnectionBehavior::WebSocket(garbage, 0),
        ConnectionBehavior::EndlessHeaders,
        ConnectionBehavior::WebSocket(endless, 100),
        ConnectionBehavior::WebSocket(broken, 0),
        ConnectionBehavior::Response(vec![b"{}".to_vec()], 0),
        ConnectionBehavior::Forward(GOOD_LINK),
    ];
    let (fixture, faulty_server) = behind(Feed::Realtime, script).await;
    receives_all(&fixture, &faulty_server, 5).await;
    let bytes_taken = faulty_server.bytes_taken.load(Ordering::SeqCst);
    assert!(
        bytes_taken < 32 << 20,
        "it hung up on the long frame: {bytes_taken}"
    );
}

#[tokio::test]
async fn f35_a_line_that_passes_one_byte_at_a_time_or_breaks_loses_nothing() {
    let slow = Link {
        piece: 1,
        pause: Duration::ZERO,
        breaks_after: 6_000,
    };
    let late = Link {
        piece: 1 << 10,
        pause: Duration::from_millis(300),
        breaks_after: 9_000,
    };
    let broken = Link {
        breaks_after: 700,
        ..GOOD_LINK
    };
    for feed in [Feed::Realtime, Feed::Stream] {
        let script = vec![
            ConnectionBehavior::Forward(slow),
            ConnectionBehavior::Forward(broken),
            ConnectionBehavior::Forward(late),
            ConnectionBehavior::Forward(GOOD_LINK),
        ];
        let (fixture, faulty_server) = behind(feed, script).await;
        receives_all(&fixture, &faulty_server, 3).await;
    }
}

/// TCP is up and nothing responds: noticed after twenty seconds, on either feed.
#[tokio::test]
async fn f35_half_open_connections_are_given_up() {
    let feeds = [Feed::Realtime, Feed::Stream].map(|feed| async move {
        let (fixture, faulty_server) = behind(
            feed,
            vec![
                ConnectionBehavior::HalfOpen,
                ConnectionBehavior::Forward(GOOD_LINK),
            ],
        )
        .await;
        receives_all(&fixture, &faulty_server, 1).await;
    });
    let [realtime, stream] = feeds;
    tokio::join!(realtime, stream);
}
