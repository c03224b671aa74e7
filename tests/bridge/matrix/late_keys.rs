//! F27, F28: room keys that arrive late or never. Later messages overtake, people are notified once, and every wait
//! ends visibly.

use std::sync::atomic::Ordering;

use footbridge_store::{Delivery, Millis, Scope};

use super::{proxy::scene, *};

fn patience(notice_after: u64, key_limit: u64) -> Timeouts {
    Timeouts {
        notice_after: Duration::from_secs(notice_after),
        key_limit: Duration::from_secs(key_limit),
        ..Timeouts::default()
    }
}

/// The next delivery of the lane, which counts as delivered afterwards, with its message.
async fn take(bridge: &TestBridge, lane: LaneId) -> (Box<Delivery>, Message) {
    let waited = timeout(LIMIT, async {
        loop {
            let head = bridge
                .store
                .queue_head(lane, bridge.clock.now())
                .await
                .unwrap();
            if let QueueHead::Ready(delivery) = head {
                return delivery;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let delivery = waited.await.expect("a delivery");
    let copy = Copy {
        remote: RemoteId(unique("copy")),
        thread: None,
        sent_at: bridge.clock.now(),
        file: None,
    };
    let message = Message::from_bytes(&delivery.payload).unwrap();
    let made = (!matches!(message.action, Action::Edit { .. })).then_some(&copy);
    bridge
        .store
        .complete_step(delivery.id, made, None, true, bridge.clock.now())
        .await
        .unwrap();
    (delivery, message)
}

/// The next delivery of the lane must be the bridge's own: a notice, or with `changed` an edit of one that has a copy.
/// Returns its text.
async fn notice_about(bridge: &TestBridge, lane: LaneId, changed: bool) -> String {
    let (delivery, message) = take(bridge, lane).await;
    assert!(message.sender.is_bridge(), "{}", text_of(&message));
    match &message.action {
        Action::Bridge { .. } => assert!(!changed),
        Action::Edit { target, .. } => {
            assert!(changed);
            let found = bridge.store.copies(&delivery.from, target, &delivery.to);
            assert_eq!(found.await.unwrap().copies.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    text_of(&message)
}

async fn balance(bridge: &TestBridge, lane: LaneId) -> (u64, u64, u64) {
    let tallies = bridge.store.lane_counters().await.unwrap();
    let tally = tallies.iter().find(|tally| tally.lane == lane).unwrap();
    let skipped: u64 = tally.skipped.iter().map(|(_, count)| count).sum();
    assert_eq!(
        tally.accepted,
        tally.delivered + tally.failed + skipped + tally.pending
    );
    (tally.delivered, tally.failed, tally.pending)
}

fn back(lane: LaneId) -> LaneId {
    LaneId {
        toward: Side::Matrix,
        ..lane
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_a_late_key_delivers_late_others_pass_and_there_is_one_notice() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, patience(2, 3_600)).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let (other, _files) = person_in(synapse, &person, &room, Identity::New).await;
    for one in [&person, &other] {
        one.say(&room, "hello").await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), "hello");
    }
    proxy.rules.keep_keys.store(true, Ordering::SeqCst);
    person.discard_room_key(&room).await.unwrap();
    let since = std::time::Instant::now();
    for text in ["late 1", "late 2"] {
        person.say(&room, text).await.unwrap();
    }
    other.say(&room, "passes").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "passes");
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "others are not held up"
    );
    let notice = notice_about(&bridge, lane, false).await;
    assert!(notice.starts_with("🔒 Messages from person"), "{notice}");
    assert!(
        notice.contains("the bridge has not received the key"),
        "{notice}"
    );
    // A third undecryptable message within the hour causes no second notice; nor does a restart.
    person.say(&room, "late 3").await.unwrap();
    bridge.reopen().await;
    bridge.listen(&room);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(balance(&bridge, lane).await, (4, 0, 3));

    proxy.rules.keep_keys.store(false, Ordering::SeqCst);
    // The SDK drops a sync response that contains only to-device events.
    other.say(&room, "wake up").await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..5 {
        let (delivery, message) = take(&bridge, lane).await;
        let text = text_of(&message);
        assert_eq!(delivery.late, text.starts_with("late"));
        if let Action::Edit { target, .. } = &message.action {
            let found = bridge.store.copies(&delivery.from, target, &delivery.to);
            assert_eq!(
                found.await.unwrap().copies.len(),
                1,
                "the edit finds the notice"
            );
        }
        heard.push(text);
    }
    // The message that woke the sync may come before or after the late ones.
    heard.retain(|text| text != "wake up");
    let [first, second, third, end] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!([first, second, third], ["late 1", "late 2", "late 3"]);
    assert!(end.starts_with("🔓 3 messages from person"), "{end}");
    assert!(end.ends_with("arrived late."), "{end}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(balance(&bridge, lane).await, (9, 0, 0));
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_a_key_that_never_comes_ends_as_failed_with_a_notice_on_both_sides() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, _proxy) = scene(synapse, true, patience(1, 5)).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let stranger = raw_member(synapse, &person, &room).await;
    for _ in 0..2 {
        send_undecryptable(synapse, &stranger, &room, "a session that nobody has").await;
    }
    let notice = notice_about(&bridge, lane, false).await;
    assert!(notice.starts_with("🔒 Messages from raw"), "{notice}");
    // While the bridge does not listen, the wait does not grow, and nothing is forgotten.
    bridge.reopen().await;
    assert_eq!(balance(&bridge, lane).await, (1, 0, 2));
    bridge.listen(&room);
    let end = notice_about(&bridge, lane, true).await;
    assert!(end.starts_with("🔒 2 messages from raw"), "{end}");
    assert!(end.contains("will not appear"), "{end}");
    assert_eq!(balance(&bridge, lane).await, (2, 2, 0));
    let (_, here) = take(&bridge, back(lane)).await;
    assert!(
        text_of(&here).starts_with("⚠ 2 messages from raw"),
        "{here:?}"
    );
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_who_wants_to_stay_here_is_named_in_no_notice_on_the_other_side() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, _proxy) = scene(synapse, true, patience(1, 6)).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let stay = async |bridge: &TestBridge, user: &str| {
        let (place, now) = (Place::room(&room), bridge.clock.now());
        let kept = bridge
            .store
            .opt_out(&place, user, Scope::Here, |_, _| false, now);
        kept.await.unwrap();
    };
    // A sender whose messages a notice reported before, and one whom no notice has named.
    let named = raw_member(synapse, &person, &room).await;
    send_undecryptable(synapse, &named, &room, "a session that nobody has").await;
    let notice = notice_about(&bridge, lane, false).await;
    assert!(notice.starts_with("🔒 Messages from raw"), "{notice}");
    stay(&bridge, &named.user_id).await;
    let hidden = raw_member(synapse, &person, &room).await;
    stay(&bridge, &hidden.user_id).await;
    send_undecryptable(synapse, &hidden, &room, "another one").await;
    let end = notice_about(&bridge, lane, true).await;
    assert!(end.starts_with("🔒 1 message from somebody"), "{end}");
    let waited = timeout(Duration::from_secs(40), async {
        while balance(&bridge, lane).await.1 < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.expect("both entries end as failed");
    person.say(&room, "and nothing else").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "and nothing else");
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_a_withheld_key_gives_a_notice_with_the_reason() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, _proxy) = scene(synapse, true, patience(1, 3_600)).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let (guest, _files) = person_in(synapse, &person, &room, Identity::None).await;
    guest.block(&bridge.user).await.unwrap();
    guest.say(&room, "not for the bridge").await.unwrap();
    let notice = notice_about(&bridge, lane, false).await;
    assert!(notice.contains("whose device is blocked there"), "{notice}");
    assert_eq!(balance(&bridge, lane).await, (1, 0, 1));
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f26_a_clock_put_forward_a_year_gives_up_no_key() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, _proxy) = scene(synapse, true, patience(1, 3_600)).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let stranger = raw_member(synapse, &person, &room).await;
    send_undecryptable(synapse, &stranger, &room, "a session that nobody has").await;
    notice_about(&bridge, lane, false).await;
    for outlet in [
        bridge.clock.now().plus(Duration::from_hours(365 * 24)),
        Millis(0),
    ] {
        bridge.rest().await;
        bridge.clock = Clock::at(outlet);
        bridge.reopen().await;
        bridge.listen(&room);
        person.say(&room, "the sync goes on").await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), "the sync goes on");
        let (_, failed, pending) = balance(&bridge, lane).await;
        assert_eq!((failed, pending), (0, 1));
    }
    bridge.rest().await;
}
