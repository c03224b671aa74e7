//! Edits and deletions of messages that are still pending, and messages that end because their author opts out.

use footbridge_store::{
    Accepted, Arrival, Batch, Bundle, Change, Consent, DeliveryId, FailureNotice, Flag, LaneId,
    MergedMessage, Millis, Payload, Place, QueueHead, RemoteId, Scope, Undelivered,
};

use crate::support::{Ground, NOW, arrival, balances, payload, portal, to_matrix, to_silo};

/// An event in the room that edits or redacts a message there.
async fn change(ground: &Ground, event_id: &str, target: &str, is_retraction: bool) -> Vec<LaneId> {
    let said = Payload::Ready(event_id.as_bytes().to_vec());
    changed(ground, event_id, target, (is_retraction, false), said).await
}

/// The same; `stays` where its author has opted out.
async fn changed(
    ground: &Ground,
    event_id: &str,
    target: &str,
    (is_retraction, stays): (bool, bool),
    said: Payload,
) -> Vec<LaneId> {
    let change = Change {
        place: ground.room.clone(),
        event_id: RemoteId::from(event_id),
        target: Some(RemoteId::from(target)),
        is_retraction,
        stays,
    };
    let arrival = Arrival {
        message: None,
        ..arrival(&ground.room, event_id, said)
    };
    let batch = Batch {
        arrivals: vec![arrival],
        changes: vec![change],
        ..Batch::default()
    };
    match ground.store.accept(batch, NOW).await.unwrap().pop() {
        Some(Accepted::New(lanes)) => lanes,
        other => panic!("{other:?}"),
    }
}

/// The room was encrypted after it was linked, `waits` was sent, and somebody has consented.
async fn agreed(ground: &Ground, waits: Vec<Arrival>) {
    ground
        .store
        .note_unencrypted_room(&ground.room)
        .await
        .unwrap();
    let batch = Batch {
        flags: vec![(ground.room.clone(), Flag::EverEncrypted)],
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
    ground.accept(waits).await;
    let consent = Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at: Millis(NOW.0 + 60_000),
    };
    let agreed = ground.store.record_consent(ground.a.id, consent, NOW).await;
    agreed.unwrap();
}

#[tokio::test]
async fn in_the_delay_of_a_consent_taking_back_is_owed_and_an_edit_keeps_its_message_in_the_room() {
    let ground = Ground::with_one_portal().await;
    let second = portal(&ground.store, &Place::room("!second"), "a").await;
    let lanes = [to_silo(&ground.a), to_matrix(&second)];
    let room = &ground.room;
    agreed(&ground, vec![payload(room, "$1"), payload(room, "$2")]).await;
    assert_eq!(change(&ground, "$gone", "$1", true).await, lanes);
    assert_eq!(change(&ground, "$edit", "$2", false).await, []);
    let ground = ground.restart().await;
    for lane in lanes {
        let counters = ground.counters(lane).await;
        assert!(balances(&counters));
        assert_eq!(counters.pending, 2, "$1 and what takes it back");
        assert_eq!(counters.skipped, [("before-consent".to_owned(), 2)]);
    }
    let kept: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL OR target IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, 2);
}

#[tokio::test]
async fn an_edit_whose_key_comes_in_the_delay_keeps_its_message_in_the_room() {
    let ground = Ground::with_one_portal().await;
    agreed(&ground, vec![payload(&ground.room, "$1")]).await;
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    let edit = Arrival {
        message: None,
        ..arrival(&ground.room, "$edit", sealed)
    };
    ground.accept(vec![edit]).await;
    let entry = ground.store.undecryptable_events(None).await.unwrap()[0].entry;
    let opened = Payload::Ready(b"edit".to_vec());
    let target = Some(RemoteId::from("$1"));
    let filled = ground
        .store
        .fill_decrypted(entry, opened, (None, target), NOW);
    filled.await.unwrap();
    let counters = ground.counters(to_silo(&ground.a)).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.skipped[0].1), (0, 2));
}

#[tokio::test]
async fn the_changes_behind_a_message_are_those_of_its_own_lane() {
    let ground = Ground::new().await;
    let (a, b) = (to_silo(&ground.a), to_silo(&ground.b));
    let room = &ground.room;
    ground
        .accept(vec![payload(room, "$1"), payload(room, "$2")])
        .await;
    change(&ground, "$edit", "$1", false).await;
    change(&ground, "$gone", "$1", true).await;
    change(&ground, "$other", "$2", true).await;
    for lane in [a, b] {
        let head = ground.ready(lane).await;
        let behind = ground.store.pending_changes(head.id).await.unwrap();
        let mut read = Vec::new();
        for (id, taken_back) in behind {
            assert!(!taken_back);
            let change = ground
                .store
                .pending_delivery(lane, id)
                .await
                .unwrap()
                .unwrap();
            read.push((change.lane, change.payload));
        }
        assert_eq!(read, [(lane, b"$edit".to_vec()), (lane, b"$gone".to_vec())]);
    }
    let done = ground.ready(a).await;
    ground.deliver(a, "c1").await;
    let behind = ground.store.pending_changes(done.id).await.unwrap();
    assert!(behind.is_empty());
}

#[tokio::test]
async fn an_edit_that_was_taken_back_itself_changes_nothing_that_waits() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    change(&ground, "$edit", "$1", false).await;
    change(&ground, "$other edit", "$1", false).await;
    change(&ground, "$gone", "$edit", true).await;
    let head = ground.ready(lane).await;
    let behind = ground.store.pending_changes(head.id).await.unwrap();
    let taken_back: Vec<bool> = behind.iter().map(|(_, taken_back)| *taken_back).collect();
    assert_eq!(taken_back, [true, false]);
    for (id, taken_back) in behind {
        let edit = ground
            .store
            .pending_delivery(lane, id)
            .await
            .unwrap()
            .unwrap();
        let known = ground.store.is_edit_redacted(edit.entry).await.unwrap();
        assert_eq!(known, taken_back);
    }
}

/// The message includes this edit when it is sent.
async fn include(ground: &Ground, message: DeliveryId, edit: DeliveryId) -> bool {
    let rewritten = MergedMessage {
        message,
        edits: vec![(edit, b"as it reads".to_vec())],
    };
    let included = vec![(edit, "edit-included".to_owned())];
    ground
        .store
        .include_edits(rewritten, included)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_edit_that_is_redacted_while_it_is_included_is_in_no_message() {
    for together in [false, true] {
        let ground = Ground::with_one_portal().await;
        let lane = to_silo(&ground.a);
        let room = &ground.room;
        ground
            .accept(vec![payload(room, "$1"), payload(room, "$2")])
            .await;
        change(&ground, "$edit", "$1", false).await;
        let line = ground
            .store
            .lookahead(lane, ground.ready(lane).await.id, 9, NOW);
        let ids: Vec<_> = line.await.unwrap().iter().map(|owed| owed.id).collect();
        // The caller that looked at them has seen no redaction.
        change(&ground, "$gone", "$edit", true).await;
        let is_included = if together {
            let bundle = Bundle {
                plan: b"together".to_vec(),
                members: ids[..2].to_vec(),
                merged: vec![MergedMessage {
                    message: ids[0],
                    edits: vec![(ids[2], b"as it reads".to_vec())],
                }],
                included: vec![(ids[2], "edit-included".to_owned())],
            };
            ground.store.create_bundle(bundle).await.unwrap()
        } else {
            include(&ground, ids[0], ids[2]).await
        };
        assert!(!is_included);
        let head = ground.ready(lane).await;
        assert_eq!((head.payload.as_slice(), head.plan), (&b"$1"[..], None));
        assert_eq!(ground.counters(lane).await.pending, 4);
    }
}

#[tokio::test]
async fn messages_that_are_taken_apart_say_what_their_edits_said() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let room = &ground.room;
    ground
        .accept(vec![payload(room, "$1"), payload(room, "$2")])
        .await;
    change(&ground, "$edit", "$2", false).await;
    let line = ground
        .store
        .lookahead(lane, ground.ready(lane).await.id, 9, NOW);
    let ids: Vec<_> = line.await.unwrap().iter().map(|owed| owed.id).collect();
    let bundle = Bundle {
        plan: b"together".to_vec(),
        members: ids[..2].to_vec(),
        merged: vec![MergedMessage {
            message: ids[1],
            edits: vec![(ids[2], b"as it reads".to_vec())],
        }],
        included: vec![(ids[2], "edit-included".to_owned())],
    };
    assert!(ground.store.create_bundle(bundle).await.unwrap());
    ground.store.split_bundle(ids[0]).await.unwrap();
    ground.deliver(lane, "c1").await;
    assert_eq!(ground.ready(lane).await.payload, b"as it reads");
}

#[tokio::test]
async fn an_older_edit_whose_key_comes_late_does_not_go_after_one_that_was_included() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    changed(&ground, "$old", "$1", (false, false), sealed).await;
    change(&ground, "$new", "$1", false).await;
    let old = ground.store.undecryptable_events(None).await.unwrap()[0].entry;
    let head = ground.ready(lane).await;
    let behind = ground.store.pending_changes(head.id).await.unwrap();
    include(&ground, head.id, behind[0].0).await;
    ground.deliver(lane, "c1").await;
    let (room, channel, target) = (&ground.room, &ground.a.channel, RemoteId::from("$1"));
    let is_latest = ground
        .store
        .advance_latest_edit(room, &target, channel, old);
    assert!(!is_latest.await.unwrap());
}

#[tokio::test]
async fn an_edit_by_which_the_author_keeps_a_message_here_keeps_what_waits() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    let skipped = || Payload::Skipped("nobridge");
    changed(&ground, "$foreign", "$1", (false, false), skipped()).await;
    assert_eq!(ground.counters(lane).await.pending, 1, "not for any rule");
    changed(&ground, "$edit", "$1", (false, true), skipped()).await;
    let counters = ground.counters(lane).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.skipped[0].1), (0, 3));
}

/// Whether the head of a lane counts as being under way when the lane starts.
async fn in_flight(ground: &Ground, lane: LaneId) -> bool {
    in_flight_at(ground, lane, NOW).await
}

async fn in_flight_at(ground: &Ground, lane: LaneId, now: Millis) -> bool {
    let latest = Millis(NOW.0 + 90_000);
    ground
        .store
        .start_lane(lane, (now, latest), true)
        .await
        .unwrap();
    let later = Millis(NOW.0 + 80_000);
    match ground.store.queue_head(lane, later).await.unwrap() {
        QueueHead::Ready(delivery) => delivery.unanswered_since.is_some(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_came_while_a_portal_was_held_up_was_not_on_its_way_when_the_bridge_stopped() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let paused = ground.store.pause(ground.a.id, "@ann:x", NOW);
    paused.await.unwrap();
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    let latest = Millis(NOW.0 + 90_000);
    ground
        .store
        .start_lane(lane, (NOW, latest), true)
        .await
        .unwrap();
    ground.store.resume(ground.a.id).await.unwrap();
    let head = ground.ready(lane).await;
    assert_eq!(head.unanswered_since, None);
    assert!(in_flight(&ground, lane).await, "it may be by now");

    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    agreed(&ground, vec![payload(&ground.room, "$1")]).await;
    assert!(!in_flight(&ground, lane).await);
    // Lanes open by the clock, whether a sync has returned the events from before or not.
    let until = Millis(NOW.0 + 60_000);
    assert!(in_flight_at(&ground, lane, until).await);
}

#[tokio::test]
async fn what_another_portal_on_its_way_held_up_was_not_on_its_way_when_the_bridge_stopped() {
    let ground = Ground::with_one_portal().await;
    let second = portal(&ground.store, &Place::room("!second"), "a").await;
    let lane = to_matrix(&second);
    let paused = ground.store.pause(ground.a.id, "@ann:x", NOW);
    paused.await.unwrap();
    ground.accept(vec![payload(&ground.room, "$held")]).await;
    ground
        .accept(vec![payload(&ground.a.channel, "free")])
        .await;
    let latest = Millis(NOW.0 + 90_000);
    let started = ground.store.start_lane(lane, (NOW, latest), true);
    started.await.unwrap();
    assert_eq!(ground.ready(lane).await.payload, b"free");
    assert!(ground.ready(lane).await.unanswered_since.is_some());
    ground.deliver(lane, "c1").await;
    ground.store.resume(ground.a.id).await.unwrap();
    let head = ground.ready(lane).await;
    assert_eq!(
        (head.payload.as_slice(), head.unanswered_since),
        (&b"$held"[..], None)
    );
}

#[tokio::test]
async fn what_is_about_a_message_in_another_lane_goes_on_there() {
    // A channel between two rooms; then the first room gets the second one's channel, too.
    let ground = Ground::with_one_portal().await;
    let room = ground.room.clone();
    let second = portal(&ground.store, &Place::room("!second"), "a").await;
    let far = portal(&ground.store, &second.room, "far").await;
    ground.accept(vec![payload(&room, "$1")]).await;
    let old = ground.ready(to_silo(&far)).await;
    let near = portal(&ground.store, &room, "far").await;
    change(&ground, "$edit", "$1", false).await;
    let edit = ground.ready(to_silo(&near)).await;
    assert!(ground.store.queue_behind(edit.id, old.id).await.unwrap());
    assert!(!ground.store.queue_behind(edit.id, old.id).await.unwrap());
    let counters = ground.counters(to_silo(&near)).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.accepted), (0, 1));
    ground.deliver(to_silo(&far), "c1").await;
    assert_eq!(ground.ready(to_silo(&far)).await.id, edit.id);
    let counters = ground.counters(to_silo(&far)).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.accepted), (1, 2));
}

#[tokio::test]
async fn of_a_person_who_opts_out_nothing_that_failed_is_kept() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let room = &ground.room;
    let said = ["$ann 1", "$bob 1", "$ann takes back"];
    ground
        .accept(said.iter().map(|said| payload(room, said)).collect())
        .await;
    for _ in said {
        let failed = Undelivered::Failed {
            kind: "refused",
            reason: "it does not want it".to_owned(),
            about: None,
            notice: FailureNotice::ToSender,
        };
        let head = ground.ready(lane).await;
        let ended = ground.store.end_undelivered(head.id, failed, NOW);
        ended.await.unwrap();
    }
    let speaks = |payload: &[u8], user: &str| {
        let payload = String::from_utf8_lossy(payload);
        payload.starts_with(&format!("${user}")) && !payload.ends_with("back")
    };
    let store = &ground.store;
    let dropped = store.opt_out(room, "ann", Scope::Here, speaks, NOW);
    assert_eq!(dropped.await.unwrap(), 0, "none was waiting");
    let mut kept = Vec::new();
    for said in said {
        for parked in store
            .parked_deliveries_of(room, &said.into())
            .await
            .unwrap()
        {
            kept.push((said, parked.retryable));
            assert!(
                store
                    .is_failed_author_opted_out(parked.id, "ann")
                    .await
                    .unwrap()
            );
            assert!(
                !store
                    .is_failed_author_opted_out(parked.id, "bob")
                    .await
                    .unwrap()
            );
            let again = store.retry_parked(&[parked.id]).await.unwrap();
            assert_eq!(again.len(), usize::from(parked.retryable), "{said}");
        }
    }
    assert_eq!(kept, [(said[0], false), (said[1], true), (said[2], true)]);
    assert!(balances(&ground.counters(lane).await));
}
