//! The situations in which Gitter's side could lose or duplicate a message (reliability: D04–D07, D13, F12, F13, F15,
//! F20), against the simulator, over both feeds where the feed matters.

use std::time::Duration;

use footbridge_core::message::Action;
use footbridge_silo::{FeedState, gitter::Feed};
use footbridge_simulators::gitter::{Cut, Fault, Framing, Options, channel::POST};
use footbridge_store::{Side, SkipRule};

use crate::{
    gitter::{Fixture, fast},
    silo_contract::{Network, TestBridge, text},
};

const FEEDS: [Feed; 2] = [Feed::Realtime, Feed::Stream];

fn calls(fixture: &Fixture, route: &str) -> u64 {
    fixture.sim.calls().get(route).copied().unwrap_or_default()
}

/// How many connections the feed has had.
fn connections(fixture: &Fixture) -> u64 {
    match fixture.feed {
        Feed::Realtime => calls(fixture, "BAYEUX upgrade"),
        Feed::Stream => calls(fixture, "STREAM /rooms/:id/chatMessages"),
    }
}

#[tokio::test]
async fn f13_a_message_that_gitter_publishes_late_is_not_doubled_within_the_settle_time() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    for (number, ms) in [300, 900, 1700].into_iter().enumerate() {
        let late = Fault::Late { ms };
        fixture.sim.faults().next(POST, late, 1);
        bridge
            .room_message(&format!("${number}"), &format!("late by {ms} ms"))
            .await;
        bridge.deliver().await;
    }
    assert_eq!(fixture.texts().len(), 3);
    assert_eq!(bridge.lane_counters(Side::Matrix).await.skipped, []);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn f13_what_is_published_later_than_that_is_doubled_counted_and_no_news() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().next(POST, Fault::Late { ms: 6000 }, 1);
    bridge.room_message("$1", "later than anybody waits").await;
    bridge.deliver().await;
    assert_eq!(fixture.texts().len(), 1, "it was sent again");
    let began = tokio::time::Instant::now();
    while fixture.texts().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bridge.receives_nothing_more().await;
    let skipped = bridge.lane_counters(Side::Matrix).await.skipped;
    assert_eq!(skipped, [(SkipRule::LateDuplicate, 1)]);
    // Nor after a crash.
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn d05_an_outage_right_after_a_lost_answer_doubles_nothing() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.lose_response();
    bridge.room_message("$1", "made, and nobody told us").await;
    let outage = async {
        while fixture.texts().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fixture.stop().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        fixture.restart().await;
    };
    tokio::join!(bridge.deliver(), outage);
    assert_eq!(fixture.texts().len(), 1);
    bridge.until_live().await;
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn f12_twenty_resets_of_the_feed_lose_double_and_reorder_nothing() {
    let storms = FEEDS.map(|feed| async move {
        // Eight server processes create ids whose order within a second has no meaning.
        let options = Options {
            processes: 8,
            ..fast()
        };
        let fixture = Fixture::with(options, feed).await;
        let bridge = TestBridge::start(&fixture).await;
        let mut said = Vec::new();
        for round in 0..20 {
            let before = connections(&fixture);
            for number in 0..10 {
                let text = format!("{round}.{number}");
                fixture.say(&text);
                said.push(text);
                if number % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            fixture.cut();
            let began = tokio::time::Instant::now();
            while connections(&fixture) == before {
                assert!(began.elapsed() < Duration::from_secs(30));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(bridge.received_texts(said.len()).await, said);
        bridge.receives_nothing_more().await;
        connections(&fixture)
    });
    let [realtime, stream] = storms;
    let (realtime, stream) = tokio::join!(realtime, stream);
    assert!(realtime > 20 && stream > 20, "{realtime} {stream}");
}

/// Makes the feed stay connected, respond to every ping and deliver nothing.
fn mute(fixture: &Fixture, muted: bool) {
    fixture.sim.faults().mute_realtime(muted);
    fixture.sim.faults().set_framing(Framing {
        mute: muted,
        ..Framing::default()
    });
}

#[tokio::test]
async fn f15_an_audit_finds_what_a_silent_feed_omits_and_restarts_it() {
    let silences = FEEDS.map(|feed| async move {
        let mut fixture = Fixture::with(fast(), feed).await;
        fixture.audit = Duration::from_millis(1500);
        let bridge = TestBridge::start(&fixture).await;
        let (edited, deleted) = (fixture.say("edited"), fixture.say("deleted"));
        bridge.received(2).await;
        let before = connections(&fixture);
        mute(&fixture, true);
        let fresh = fixture.say("fresh");
        assert_eq!(bridge.received_texts(1).await, ["fresh"], "{feed:?}");
        // A younger message may be missing from a listing only because the listing lags behind.
        tokio::time::sleep(Duration::from_millis(5200)).await;
        fixture.edit(&edited, "better");
        fixture.delete(&deleted);
        let mut received = bridge.received(2).await;
        received.sort_by_key(|message| matches!(message.action, Action::Delete { .. }));
        assert!(
            matches!(&received[0].action, Action::Edit { target, .. } if target.as_str() == edited)
        );
        assert_eq!(text(&received[0]), "better");
        assert!(
            matches!(&received[1].action, Action::Delete { target } if target.as_str() == deleted)
        );
        bridge
            .until("the feed is begun anew", || connections(&fixture) > before)
            .await;
        mute(&fixture, false);
        bridge.until_live().await;
        fixture.edit(&fresh, "fresher");
        fixture.say("live");
        bridge.received(1).await;
    });
    let [realtime, stream] = silences;
    tokio::join!(realtime, stream);
}

#[tokio::test]
async fn d07_a_stream_without_a_sign_of_life_is_left_after_two_keep_alives() {
    let options = Options {
        keepalive: Duration::from_millis(400),
        ..fast()
    };
    let fixture = Fixture::with(options, Feed::Stream).await;
    let bridge = TestBridge::start(&fixture).await;
    // Long enough to learn the interval between keepalives.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    fixture.sim.faults().cut_streams(Cut::Freeze);
    fixture.say("into the silence");
    let began = tokio::time::Instant::now();
    assert_eq!(bridge.received_texts(1).await, ["into the silence"]);
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// TCP is up and nothing responds. Real time: two pings of the realtime feed take a minute.
#[tokio::test]
async fn d07_half_open_connections_are_noticed_by_their_deadlines() {
    let feeds = FEEDS.map(|feed| async move {
        let options = Options {
            keepalive: Duration::from_secs(1),
            ..fast()
        };
        let fixture = Fixture::with(options, feed).await;
        let bridge = TestBridge::start(&fixture).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = connections(&fixture);
        fixture.sim.faults().cut_api(Cut::Freeze);
        fixture.sim.faults().cut_realtime(Cut::Freeze);
        fixture.sim.faults().cut_streams(Cut::Freeze);
        fixture.say("into the silence");
        let began = tokio::time::Instant::now();
        while connections(&fixture) == before {
            assert!(began.elapsed() < Duration::from_secs(70), "{feed:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(bridge.received_texts(1).await, ["into the silence"]);
        // A dead connection does not block a sender for ever either.
        fixture.sim.faults().cut_api(Cut::Freeze);
        bridge.room_message("$1", "out of it").await;
        bridge.deliver().await;
        assert_eq!(fixture.texts().len(), 2);
    });
    let [realtime, stream] = feeds;
    tokio::join!(realtime, stream);
}

#[tokio::test]
async fn f20_an_outage_of_everything_is_asked_about_by_one_and_loses_nothing() {
    let outages = FEEDS.map(|feed| async move {
        let fixture = Fixture::with(fast(), feed).await;
        let bridge = TestBridge::start(&fixture).await;
        fixture.stop().await;
        let said: Vec<String> = (0..40).map(|number| format!("message {number}")).collect();
        for (number, text) in said.iter().enumerate() {
            fixture.say(text);
            bridge.room_message(&format!("${number}"), text).await;
        }
        let back = async {
            tokio::time::sleep(Duration::from_secs(6)).await;
            fixture.restart().await;
        };
        tokio::join!(bridge.deliver(), back);
        assert_eq!(bridge.received_texts(said.len()).await, said, "{feed:?}");
        bridge.receives_nothing_more().await;
        assert_eq!(fixture.texts().len(), 2 * said.len());
        bridge.until_live().await;
        assert_eq!(bridge.silo.feed(), FeedState::Live);
    });
    let [realtime, stream] = outages;
    tokio::join!(realtime, stream);
}

#[tokio::test]
async fn f11_five_hundred_messages_edits_and_deletions_during_a_downtime() {
    let fixture = Fixture::realtime().await;
    let mut bridge = TestBridge::start(&fixture).await;
    let old = fixture.say("old");
    let going = fixture.say("going");
    bridge.received(2).await;
    bridge = bridge.rebuild(&fixture).await;
    tokio::time::sleep(Duration::from_millis(5200)).await;
    let root = fixture.say("root");
    let mut said = vec!["root".to_owned()];
    let mut ids = Vec::new();
    for number in 0..500 {
        let text = format!("message {number}");
        ids.push(if number % 5 == 0 {
            fixture.thread(&root, &text)
        } else {
            fixture.say(&text)
        });
        said.push(text);
    }
    fixture.edit(&ids[100], "changed");
    said[101] = "changed".to_owned();
    // No reader can have seen this one.
    fixture.delete(&ids[200]);
    said.remove(201);
    fixture.edit(&old, "newer");
    fixture.delete(&going);
    bridge.listen().await;
    let received = bridge.received(said.len() + 2).await;
    let posts: Vec<String> = received
        .iter()
        .filter(|message| matches!(message.action, Action::Post { .. }))
        .map(text)
        .collect();
    assert_eq!(posts, said);
    let others: Vec<_> = received
        .iter()
        .filter(|message| !matches!(message.action, Action::Post { .. }))
        .collect();
    assert!(others.iter().any(
        |message| matches!(&message.action, Action::Edit { target, .. } if target.as_str() == old)
    ));
    assert!(others.iter().any(
        |message| matches!(&message.action, Action::Delete { target } if target.as_str() == going)
    ));
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn f11_a_message_deleted_seconds_after_it_was_sent_is_found_at_the_next_start() {
    for feed in FEEDS {
        let fixture = Fixture::with(fast(), feed).await;
        let mut bridge = TestBridge::start(&fixture).await;
        let going = fixture.say("going");
        bridge.received(1).await;
        bridge = bridge.rebuild(&fixture).await;
        fixture.delete(&going);
        fixture.say("later");
        bridge.listen().await;
        let received = bridge.received(2).await;
        // A listing may lag behind for a message this young: the silo reads it again a little later.
        assert!(received.iter().any(
            |message| matches!(&message.action, Action::Delete { target } if target.as_str() == going)
        ));
        bridge.receives_nothing_more().await;
    }
}

#[tokio::test]
async fn f11_what_changed_beyond_the_overlap_is_found_behind_many_missed_messages() {
    let mut fixture = Fixture::realtime().await;
    fixture.overlap = Duration::ZERO;
    let mut bridge = TestBridge::start(&fixture).await;
    let old = fixture.say("old");
    let going = fixture.say("going");
    bridge.received(2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    fixture.say("the last that is received");
    bridge.received(1).await;
    bridge = bridge.rebuild(&fixture).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 0..130 {
        fixture.say(&format!("message {number}"));
    }
    fixture.edit(&old, "newer");
    fixture.delete(&going);
    bridge.listen().await;
    let received = bridge.received(132).await;
    let changed = |wanted: &dyn Fn(&Action) -> bool| {
        let found = received.iter().filter(|message| wanted(&message.action));
        found.count()
    };
    assert_eq!(
        changed(&|action| matches!(action, Action::Edit { target, .. } if target.as_str() == old)),
        1
    );
    assert_eq!(
        changed(&|action| matches!(action, Action::Delete { target } if target.as_str() == going)),
        1
    );
    bridge.receives_nothing_more().await;
}
