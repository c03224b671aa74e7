//! Deliveries: their order, their steps, and how each ends.

use footbridge_store::{
    Arrival, Batch, Copy, EditResult, Gap, Millis, Payload, Place, QueueHead, RemoteId,
    RetryDecision, SkipRule, Undelivered,
};

use crate::support::{Fixture, NOW, balances, copy, payload, to_silo, undecryptable_arrival};

#[tokio::test]
async fn deliveries_leave_in_the_order_of_arrival_even_over_restarts() {
    let mut fixture = Fixture::with_one_portal().await;
    for part in 0..3 {
        let payloads = (0..5).map(|n| payload(&fixture.room, &format!("${part}{n}")));
        fixture.accept(payloads.collect()).await;
    }
    let mut delivered = Vec::new();
    for n in 0..15 {
        let delivery = fixture.deliver(to_silo(&fixture.a), &format!("g{n}")).await;
        delivered.push(String::from_utf8(delivery.payload).unwrap());
        if n % 4 == 0 {
            fixture = fixture.restart().await;
        }
    }
    let expected: Vec<_> = (0..3)
        .flat_map(|part| (0..5).map(move |n| format!("${part}{n}")))
        .collect();
    assert_eq!(delivered, expected);
    assert_eq!(
        fixture
            .store
            .queue_head(to_silo(&fixture.a), NOW)
            .await
            .unwrap(),
        QueueHead::Empty
    );
}

#[tokio::test]
async fn a_delivery_that_has_begun_is_finished_before_one_that_was_filled_late() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let arrivals = vec![
        undecryptable_arrival(&fixture.room, "$1", NOW.0),
        payload(&fixture.room, "$2"),
    ];
    fixture.accept(arrivals).await;
    let second = fixture.ready(lane).await;
    fixture
        .store
        .save_plan(second.id, b"two steps")
        .await
        .unwrap();
    fixture
        .store
        .complete_step(second.id, Some(&copy("g2a")), None, false, NOW)
        .await
        .unwrap();
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    fixture
        .store
        .fill(entry, Payload::Ready(b"$1".to_vec()), NOW)
        .await
        .unwrap();
    assert_eq!(fixture.deliver(lane, "g2b").await.id, second.id);
    assert!(fixture.deliver(lane, "g1").await.late);
}

#[tokio::test]
async fn a_plan_and_its_steps_outlive_a_restart_and_each_copy_is_a_part() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let delivery = fixture.ready(lane).await;
    fixture
        .store
        .save_plan(delivery.id, b"the plan")
        .await
        .unwrap();
    let done = |remote| {
        fixture
            .store
            .complete_step(delivery.id, remote, None, false, NOW)
    };
    let first = copy("g1");
    done(Some(&first)).await.unwrap();
    done(Some(&first)).await.unwrap();
    let fixture = fixture.restart().await;
    let delivery = fixture.ready(lane).await;
    assert_eq!(delivery.plan.as_deref(), Some(b"the plan".as_slice()));
    assert_eq!(delivery.steps_done, 2);
    let from = (fixture.room.clone(), RemoteId::from("$1"));
    let owed = fixture
        .store
        .copies(&from.0, &from.1, &fixture.a.channel)
        .await
        .unwrap();
    assert_eq!(owed.pending, Some(delivery.id));
    fixture.deliver(lane, "g2").await;
    let copies = fixture
        .store
        .copies(&from.0, &from.1, &fixture.a.channel)
        .await
        .unwrap();
    assert_eq!((copies.entry, copies.pending), (Some(delivery.entry), None));
    assert_eq!(copies.copies, [copy("g1"), copy("g2")]);
    let back = fixture
        .store
        .copies(&fixture.a.channel, &RemoteId::from("g2"), &fixture.room)
        .await;
    assert_eq!(back.unwrap().copies, [copy("$1")]);
}

#[tokio::test]
async fn a_copy_of_one_entry_is_never_linked_to_another() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    fixture.deliver(lane, "g1").await;
    let second = fixture.ready(lane).await;
    let made = copy("g1");
    assert!(
        fixture
            .store
            .is_copy_of_another(second.id, &made.remote)
            .await
            .unwrap()
    );
    // A lane asks before it settles the step; the store links nothing even if none did.
    let settled = fixture
        .store
        .complete_step(second.id, Some(&made), None, true, NOW);
    settled.await.unwrap();
    let (channel, made) = (&fixture.a.channel, RemoteId::from("g1"));
    let back = fixture.store.copies(channel, &made, &fixture.room).await;
    assert_eq!(back.unwrap().copies, [copy("$1")]);
    let message = RemoteId::from("$2");
    let of_second = fixture.store.copies(&fixture.room, &message, channel).await;
    assert_eq!(of_second.unwrap().copies, []);
}

#[tokio::test]
async fn a_postponed_step_waits_and_counts_and_holds_those_behind_it() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    let first = fixture.ready(lane).await;
    let due = Millis(NOW.0 + 60_000);
    fixture
        .store
        .postpone(
            first.id,
            RetryDecision::without_blame(NOW, due, true, "not-done"),
        )
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    assert_eq!(
        fixture.store.queue_head(lane, NOW).await.unwrap(),
        QueueHead::NotBefore(due)
    );
    let QueueHead::Ready(again) = fixture.store.queue_head(lane, due).await.unwrap() else {
        panic!("the delivery is due");
    };
    assert_eq!((again.id, again.attempts), (first.id, 1));
    fixture
        .store
        .complete_step(first.id, Some(&copy("g1")), None, false, NOW)
        .await
        .unwrap();
    assert_eq!(fixture.ready(lane).await.attempts, 0);
}

/// Whether the outcome of some step toward a place is unknown.
async fn unknown(fixture: &Fixture, place: &Place) -> bool {
    let unknown = fixture.store.unknown_outcomes(place).await.unwrap();
    !unknown.is_empty()
}

#[tokio::test]
async fn an_unknown_outcome_keeps_its_first_time_until_it_is_known() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let id = fixture.ready(lane).await.id;
    assert!(!unknown(&fixture, &fixture.a.channel).await);
    fixture
        .store
        .mark_outcome_unknown(id, Some(b"plan"), Millis(7))
        .await
        .unwrap();
    fixture
        .store
        .mark_outcome_unknown(id, None, Millis(9))
        .await
        .unwrap();
    fixture
        .store
        .postpone(
            id,
            RetryDecision::without_blame(NOW, NOW, false, "not-done"),
        )
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    assert!(unknown(&fixture, &fixture.a.channel).await);
    assert!(!unknown(&fixture, &fixture.room).await);
    let delivery = fixture.ready(lane).await;
    assert_eq!(delivery.outcome_unknown_since, Some(Millis(7)));
    assert_eq!(delivery.plan.as_deref(), Some(b"plan".as_slice()));
    fixture
        .store
        .postpone(id, RetryDecision::without_blame(NOW, NOW, true, "not-done"))
        .await
        .unwrap();
    assert!(!unknown(&fixture, &fixture.a.channel).await);
    fixture
        .store
        .mark_outcome_unknown(id, None, Millis(11))
        .await
        .unwrap();
    fixture
        .store
        .complete_step(id, Some(&copy("g1")), None, true, NOW)
        .await
        .unwrap();
    assert!(!unknown(&fixture, &fixture.a.channel).await);
}

#[tokio::test]
async fn a_skipped_delivery_is_counted_by_its_rule_and_the_next_proceeds() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    let first = fixture.ready(lane).await.id;
    let how = Undelivered::Skipped(SkipRule::UnknownTarget);
    assert_eq!(
        fixture
            .store
            .end_undelivered(first, how, NOW)
            .await
            .unwrap(),
        ()
    );
    assert_eq!(fixture.ready(lane).await.payload, b"$2");
    assert_eq!(
        fixture.counters(lane).await.skipped,
        [(SkipRule::UnknownTarget, 1)]
    );
}

#[tokio::test]
async fn a_delivery_keeps_its_key_and_every_delivery_has_its_own() {
    let fixture = Fixture::new().await;
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    let (a, b) = (to_silo(&fixture.a), to_silo(&fixture.b));
    let keys = [fixture.ready(a).await.key, fixture.ready(b).await.key];
    assert_ne!(keys[0], keys[1]);
    assert!(
        keys.iter()
            .all(|key| key.len() == 32 && key.bytes().all(|c| c.is_ascii_hexdigit()))
    );
    let fixture = fixture.restart().await;
    assert_eq!(
        keys,
        [fixture.ready(a).await.key, fixture.ready(b).await.key]
    );
    fixture.deliver(a, "g1").await;
    assert_ne!(fixture.ready(a).await.key, keys[0]);
}

#[tokio::test]
async fn a_delivery_settled_by_a_removed_portal_is_no_error_for_its_lane() {
    let fixture = Fixture::new().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let id = fixture.ready(to_silo(&fixture.a)).await.id;
    fixture
        .store
        .deactivate_unlisted_portals(&[fixture.b.id], NOW)
        .await
        .unwrap();
    fixture.store.save_plan(id, b"plan").await.unwrap();
    fixture
        .store
        .mark_outcome_unknown(id, None, NOW)
        .await
        .unwrap();
    fixture
        .store
        .postpone(id, RetryDecision::without_blame(NOW, NOW, true, "not-done"))
        .await
        .unwrap();
    fixture
        .store
        .complete_step(id, Some(&copy("g1")), None, true, NOW)
        .await
        .unwrap();
    assert!(
        fixture
            .store
            .lane_counters()
            .await
            .unwrap()
            .iter()
            .all(balances)
    );
}

#[tokio::test]
async fn d09_what_may_have_been_on_its_way_at_a_stop_is_unanswered_at_the_next_start() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let arrivals = vec![
        undecryptable_arrival(&fixture.room, "$1", 0),
        payload(&fixture.room, "$2"),
        payload(&fixture.room, "$3"),
    ];
    fixture.accept(arrivals).await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let payload = Payload::Ready(b"$1".to_vec());
    fixture.store.fill(entry, payload, NOW).await.unwrap();
    // The room key arrived while the second delivery was under way: the unanswered step belongs to one of these two,
    // not to the third.
    fixture
        .store
        .start_lane(lane, NOW, NOW, true)
        .await
        .unwrap();
    for (remote, doubtful) in [("g1", true), ("g2", true), ("g3", false)] {
        let delivery = fixture.deliver(lane, remote).await;
        assert_eq!(
            delivery.unanswered_since,
            doubtful.then_some(NOW),
            "{remote}"
        );
    }
}

#[tokio::test]
async fn a_starting_lane_waits_no_longer_than_the_limit() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let far = Millis(NOW.0 + 3_600_000);
    let delivery = fixture.ready(lane).await;
    fixture
        .store
        .postpone(
            delivery.id,
            RetryDecision::without_blame(NOW, far, true, "not-done"),
        )
        .await
        .unwrap();
    let latest = Millis(NOW.0 + 1_000);
    fixture
        .store
        .start_lane(lane, NOW, latest, false)
        .await
        .unwrap();
    let head = fixture.store.queue_head(lane, NOW).await.unwrap();
    assert_eq!(head, QueueHead::NotBefore(latest));
}

#[tokio::test]
async fn a_portal_that_is_linked_again_starts_empty() {
    let fixture = Fixture::new().await;
    let (a, b, room) = (&fixture.a, &fixture.b, &fixture.room);
    let gap = |place: &Place| Gap {
        place: place.clone(),
        from: "t1".into(),
        stop: None,
    };
    let names = [&a.channel, &b.channel, room].map(|place| place.as_str().to_owned());
    let since = format!("{}/since", names[0]);
    let other = format!("{}x", names[0]);
    let cursors = names.iter().chain([&since, &other]);
    let batch = Batch {
        cursors: cursors.map(|name| (name.clone(), "5".into())).collect(),
        gaps: vec![gap(&a.channel), gap(room)],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    fixture
        .store
        .deactivate_unlisted_portals(&[b.id], NOW)
        .await
        .unwrap();

    let cursor = async |name: &str| fixture.store.cursor(name).await.unwrap();
    assert_eq!(cursor(&names[0]).await, None);
    assert_eq!(cursor(&since).await, None);
    // The cursors of the other portal's room and channel stay as they were, and so does one with a similar name.
    for name in [&names[1], &names[2], &other] {
        assert_eq!(cursor(name).await.as_deref(), Some("5"), "{name}");
    }
    assert_eq!(fixture.store.gaps(a.channel.network()).await.unwrap(), []);
    assert_eq!(
        fixture.store.gaps(room.network()).await.unwrap(),
        [gap(room)]
    );
}

#[tokio::test]
async fn what_an_edit_made_belongs_to_the_message_and_what_replaces_its_text_is_no_copy() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let (room, channel) = (&fixture.room, &fixture.a.channel);
    let target = RemoteId::from("$1");
    fixture.accept(vec![payload(room, "$1")]).await;
    fixture.deliver(lane, "c1").await;
    let edit = Arrival {
        message: None,
        ..payload(room, "$edit")
    };
    fixture.accept(vec![edit]).await;
    let owed = fixture.ready(lane).await;
    let (replaced, file) = (RemoteId::from("c1"), Some("f1".to_owned()));
    let by = copy("c1, edited");
    let target_copy = replaced.clone();
    let replacing = EditResult::Replaced {
        target: target_copy,
        by: by.clone(),
    };
    assert!(
        fixture
            .store
            .complete_edit_step(&owed, &target, replacing, false)
            .await
            .unwrap()
    );
    let more = Copy {
        file: file.clone(),
        ..copy("c2")
    };
    let step = EditResult::Created(more);
    assert!(
        fixture
            .store
            .complete_edit_step(&owed, &target, step, true)
            .await
            .unwrap()
    );
    // The delivery has ended already, but the store still records the copy.
    let late = copy("c3");
    let step = EditResult::Created(late);
    assert!(
        !fixture
            .store
            .complete_edit_step(&owed, &target, step, true)
            .await
            .unwrap()
    );
    let known = fixture.store.copies(room, &target, channel).await.unwrap();
    let copies: Vec<_> = known
        .copies
        .iter()
        .map(|copy| copy.remote.as_str())
        .collect();
    assert_eq!(copies, ["c1", "c2", "c3"]);
    assert_eq!(known.copies[1].file, file);
    assert_eq!(known.edits, [(replaced, by.remote.clone())]);
    let of = fixture
        .store
        .copies(channel, &by.remote, room)
        .await
        .unwrap();
    assert_eq!(of.entry, known.entry);
    assert!(balances(&fixture.counters(lane).await));
}
