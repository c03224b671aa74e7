//! The windows in which Gitter's side could lose or double a message (reliability: D04–D07, D13, F12, F13, F15, F20),
//! against the simulator, over both feeds where the feed matters.

use std::time::Duration;

use footbridge_core::message::Action;
use footbridge_silo::{FeedState, gitter::Feed};
use footbridge_store::Side;
use footbridge_testbed::gitter::{Cut, Fault, Framing, Options};

use crate::{
    gitter::{Ground, WRITE, fast},
    silo_contract::{House, Network, text},
};

const FEEDS: [Feed; 2] = [Feed::Realtime, Feed::Stream];

fn calls(ground: &Ground, route: &str) -> u64 {
    ground.sim.calls().get(route).copied().unwrap_or_default()
}

/// How often the feed was connected to.
fn connections(ground: &Ground) -> u64 {
    match ground.feed {
        Feed::Realtime => calls(ground, "BAYEUX upgrade"),
        Feed::Stream => calls(ground, "STREAM /rooms/:id/chatMessages"),
    }
}

#[tokio::test]
async fn f13_a_message_that_gitter_publishes_late_is_not_doubled_within_the_settle_time() {
    let ground = Ground::realtime().await;
    let house = House::start(&ground).await;
    for (number, ms) in [300, 900, 1700].into_iter().enumerate() {
        let late = Fault::Late { ms };
        ground.sim.faults().next(WRITE, late, 1);
        house
            .said(&format!("${number}"), &format!("late by {ms} ms"))
            .await;
        house.deliver().await;
    }
    assert_eq!(ground.texts().len(), 3);
    assert_eq!(house.tally(Side::Matrix).await.skipped, []);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn f13_what_is_published_later_than_that_is_doubled_counted_and_no_news() {
    let ground = Ground::realtime().await;
    let house = House::start(&ground).await;
    ground.sim.faults().next(WRITE, Fault::Late { ms: 6000 }, 1);
    house.said("$1", "later than anybody waits").await;
    house.deliver().await;
    assert_eq!(ground.texts().len(), 1, "it was sent again");
    let began = tokio::time::Instant::now();
    while ground.texts().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    house.hears_nothing_more().await;
    let skipped = house.tally(Side::Matrix).await.skipped;
    assert_eq!(skipped, [("late-duplicate".to_owned(), 1)]);
    // Nor after a fall.
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn d05_an_outage_right_after_a_lost_answer_doubles_nothing() {
    let ground = Ground::realtime().await;
    let house = House::start(&ground).await;
    ground.lose_answer();
    house.said("$1", "made, and nobody told us").await;
    let outage = async {
        while ground.texts().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ground.stop().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        ground.restart().await;
    };
    tokio::join!(house.deliver(), outage);
    assert_eq!(ground.texts().len(), 1);
    house.live().await;
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn f12_twenty_resets_of_the_feed_lose_double_and_reorder_nothing() {
    let storms = FEEDS.map(|feed| async move {
        // Eight processes make ids whose order within a second says nothing.
        let options = Options {
            processes: 8,
            ..fast()
        };
        let ground = Ground::with(options, feed).await;
        let house = House::start(&ground).await;
        let mut said = Vec::new();
        for round in 0..20 {
            let before = connections(&ground);
            for number in 0..10 {
                let text = format!("{round}.{number}");
                ground.say(&text);
                said.push(text);
                if number % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            ground.cut();
            let began = tokio::time::Instant::now();
            while connections(&ground) == before {
                assert!(began.elapsed() < Duration::from_secs(30));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(house.heard_texts(said.len()).await, said);
        house.hears_nothing_more().await;
        connections(&ground)
    });
    let [realtime, stream] = storms;
    let (realtime, stream) = tokio::join!(realtime, stream);
    assert!(realtime > 20 && stream > 20, "{realtime} {stream}");
}

/// A feed that is connected, answers every sign of life and tells nothing.
fn mute(ground: &Ground, muted: bool) {
    ground.sim.faults().mute_realtime(muted);
    ground.sim.faults().set_framing(Framing {
        mute: muted,
        ..Framing::default()
    });
}

#[tokio::test]
async fn f15_an_audit_finds_what_a_mute_feed_leaves_out_and_begins_it_anew() {
    let silences = FEEDS.map(|feed| async move {
        let mut ground = Ground::with(fast(), feed).await;
        ground.audit = Duration::from_millis(1500);
        let house = House::start(&ground).await;
        let (edited, deleted) = (ground.say("edited"), ground.say("deleted"));
        house.heard(2).await;
        let before = connections(&ground);
        mute(&ground, true);
        let fresh = ground.say("fresh");
        assert_eq!(house.heard_texts(1).await, ["fresh"], "{feed:?}");
        // Messages younger than this may be missing from a listing that is merely late.
        tokio::time::sleep(Duration::from_millis(5200)).await;
        ground.edit(&edited, "better");
        ground.delete(&deleted);
        let mut heard = house.heard(2).await;
        heard.sort_by_key(|message| matches!(message.action, Action::Delete { .. }));
        assert!(
            matches!(&heard[0].action, Action::Edit { target, .. } if target.as_str() == edited)
        );
        assert_eq!(text(&heard[0]), "better");
        assert!(
            matches!(&heard[1].action, Action::Delete { target } if target.as_str() == deleted)
        );
        house
            .until("the feed is begun anew", || connections(&ground) > before)
            .await;
        mute(&ground, false);
        house.live().await;
        ground.edit(&fresh, "fresher");
        ground.say("live");
        house.heard(1).await;
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
    let ground = Ground::with(options, Feed::Stream).await;
    let house = House::start(&ground).await;
    // Long enough to learn how far they are apart.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ground.sim.faults().cut_streams(Cut::Freeze);
    ground.say("into the silence");
    let began = tokio::time::Instant::now();
    assert_eq!(house.heard_texts(1).await, ["into the silence"]);
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// TCP is up and nothing answers. Real time: two pings of the realtime feed are a minute.
#[tokio::test]
async fn d07_half_open_connections_are_noticed_by_their_deadlines() {
    let feeds = FEEDS.map(|feed| async move {
        let options = Options {
            keepalive: Duration::from_secs(1),
            ..fast()
        };
        let ground = Ground::with(options, feed).await;
        let house = House::start(&ground).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = connections(&ground);
        ground.sim.faults().cut_api(Cut::Freeze);
        ground.sim.faults().cut_realtime(Cut::Freeze);
        ground.sim.faults().cut_streams(Cut::Freeze);
        ground.say("into the silence");
        let began = tokio::time::Instant::now();
        while connections(&ground) == before {
            assert!(began.elapsed() < Duration::from_secs(70), "{feed:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(house.heard_texts(1).await, ["into the silence"]);
        // And whoever writes is not held up by a dead connection for ever.
        ground.sim.faults().cut_api(Cut::Freeze);
        house.said("$1", "out of it").await;
        house.deliver().await;
        assert_eq!(ground.texts().len(), 2);
    });
    let [realtime, stream] = feeds;
    tokio::join!(realtime, stream);
}

#[tokio::test]
async fn f20_an_outage_of_everything_is_asked_about_by_one_and_loses_nothing() {
    let outages = FEEDS.map(|feed| async move {
        let ground = Ground::with(fast(), feed).await;
        let house = House::start(&ground).await;
        ground.stop().await;
        let said: Vec<String> = (0..40).map(|number| format!("message {number}")).collect();
        for (number, text) in said.iter().enumerate() {
            ground.say(text);
            house.said(&format!("${number}"), text).await;
        }
        let back = async {
            tokio::time::sleep(Duration::from_secs(6)).await;
            ground.restart().await;
        };
        tokio::join!(house.deliver(), back);
        assert_eq!(house.heard_texts(said.len()).await, said, "{feed:?}");
        house.hears_nothing_more().await;
        assert_eq!(ground.texts().len(), 2 * said.len());
        house.live().await;
        assert_eq!(house.silo.feed(), FeedState::Live);
    });
    let [realtime, stream] = outages;
    tokio::join!(realtime, stream);
}

#[tokio::test]
async fn f11_five_hundred_messages_edits_and_deletions_while_nobody_listened() {
    let ground = Ground::realtime().await;
    let mut house = House::start(&ground).await;
    let old = ground.say("old");
    let going = ground.say("going");
    house.heard(2).await;
    house = house.rebuild(&ground).await;
    tokio::time::sleep(Duration::from_millis(5200)).await;
    let root = ground.say("root");
    let mut said = vec!["root".to_owned()];
    let mut ids = Vec::new();
    for number in 0..500 {
        let text = format!("message {number}");
        ids.push(if number % 5 == 0 {
            ground.thread(&root, &text)
        } else {
            ground.say(&text)
        });
        said.push(text);
    }
    ground.edit(&ids[100], "changed");
    said[101] = "changed".to_owned();
    // Nobody will ever have seen this one.
    ground.delete(&ids[200]);
    said.remove(201);
    ground.edit(&old, "newer");
    ground.delete(&going);
    house.listen().await;
    let heard = house.heard(said.len() + 2).await;
    let posts: Vec<String> = heard
        .iter()
        .filter(|message| matches!(message.action, Action::Post { .. }))
        .map(text)
        .collect();
    assert_eq!(posts, said);
    let others: Vec<_> = heard
        .iter()
        .filter(|message| !matches!(message.action, Action::Post { .. }))
        .collect();
    assert!(others.iter().any(
        |message| matches!(&message.action, Action::Edit { target, .. } if target.as_str() == old)
    ));
    assert!(others.iter().any(
        |message| matches!(&message.action, Action::Delete { target } if target.as_str() == going)
    ));
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn f11_a_message_deleted_seconds_after_it_was_said_is_found_at_the_next_start() {
    for feed in FEEDS {
        let ground = Ground::with(fast(), feed).await;
        let mut house = House::start(&ground).await;
        let going = ground.say("going");
        house.heard(1).await;
        house = house.rebuild(&ground).await;
        ground.delete(&going);
        ground.say("later");
        house.listen().await;
        let heard = house.heard(2).await;
        // A listing may lag behind what is so young: it is asked for a little later.
        assert!(heard.iter().any(
            |message| matches!(&message.action, Action::Delete { target } if target.as_str() == going)
        ));
        house.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn f11_what_changed_beyond_the_overlap_is_found_behind_many_missed_messages() {
    let mut ground = Ground::realtime().await;
    ground.overlap = Duration::ZERO;
    let mut house = House::start(&ground).await;
    let old = ground.say("old");
    let going = ground.say("going");
    house.heard(2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ground.say("the last that is heard");
    house.heard(1).await;
    house = house.rebuild(&ground).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 0..130 {
        ground.say(&format!("message {number}"));
    }
    ground.edit(&old, "newer");
    ground.delete(&going);
    house.listen().await;
    let heard = house.heard(132).await;
    let changed = |wanted: &dyn Fn(&Action) -> bool| {
        let found = heard.iter().filter(|message| wanted(&message.action));
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
    house.hears_nothing_more().await;
}
