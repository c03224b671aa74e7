//! Edits and deletions of messages that are still pending, and messages that end because their author opts out.

use footbridge_store::{
    Accepted, Arrival, Batch, Bundle, Change, Consent, DeliveryId, FailureNotice, Flag, LaneId,
    MergedMessage, Millis, Payload, Place, QueueHead, RemoteId, Scope, SkipRule, Undelivered,
};

use crate::support::{Fixture, NOW, arrival, balances, payload, portal, to_matrix, to_silo};

/// An event in the room that edits or redacts a message there.
async fn change(
    fixture: &Fixture,
    event_id: &str,
    target: &str,
    is_retraction: bool,
) -> Vec<LaneId> {
    let said = Payload::Ready(event_id.as_bytes().to_vec());
    changed(fixture, event_id, target, (is_retraction, false), said).await
}

/// The same; `stays` is set where the author of the target has opted out.
async fn changed(
    fixture: &Fixture,
    event_id: &str,
    target: &str,
    (is_retraction, stays): (bool, bool),
    said: Payload,
) -> Vec<LaneId> {
    let change = Change {
        place: fixture.room.clone(),
        event_id: RemoteId::from(event_id),
        target: Some(RemoteId::from(target)),
        is_retraction,
        stays,
    };
    let arrival = Arrival {
        message: None,
        ..arrival(&fixture.room, event_id, said)
    };
    let batch = Batch {
        arrivals: vec![arrival],
        changes: vec![change],
        ..Batch::default()
    };
    match fixture.store.accept(batch, NOW).await.unwrap().pop() {
        Some(Accepted::New(lanes)) => lanes,
        other => panic!("{other:?}"),
    }
}

/// The room was encrypted after it was linked, `waits` was sent, and somebody has consented.
async fn agreed(fixture: &Fixture, waits: Vec<Arrival>) {
    fixture
        .store
        .note_unencrypted_room(&fixture.room)
        .await
        .unwrap();
    let batch = Batch {
        flags: vec![(fixture.room.clone(), Flag::EverEncrypted)],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    fixture.accept(waits).await;
    let consent = Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at: Millis(NOW.0 + 60_000),
    };
    let agreed = fixture
        .store
        .record_consent(fixture.a.id, consent, NOW)
        .await;
    agreed.unwrap();
}

#[tokio::test]
async fn in_the_delay_of_a_consent_deletions_are_relayed_and_edited_messages_are_not() {
    let fixture = Fixture::with_one_portal().await;
    let second = portal(&fixture.store, &Place::room("!second"), "a").await;
    let lanes = [to_silo(&fixture.a), to_matrix(&second)];
    let room = &fixture.room;
    agreed(&fixture, vec![payload(room, "$1"), payload(room, "$2")]).await;
    assert_eq!(change(&fixture, "$gone", "$1", true).await, lanes);
    assert_eq!(change(&fixture, "$edit", "$2", false).await, []);
    let fixture = fixture.restart().await;
    for lane in lanes {
        let counters = fixture.counters(lane).await;
        assert!(balances(&counters));
        assert_eq!(counters.pending, 2, "$1 and what takes it back");
        assert_eq!(counters.skipped, [(SkipRule::BeforeConsent, 2)]);
    }
    let kept: i64 = fixture
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
    let fixture = Fixture::with_one_portal().await;
    agreed(&fixture, vec![payload(&fixture.room, "$1")]).await;
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    let edit = Arrival {
        message: None,
        ..arrival(&fixture.room, "$edit", sealed)
    };
    fixture.accept(vec![edit]).await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let opened = Payload::Ready(b"edit".to_vec());
    let target = Some(RemoteId::from("$1"));
    let filled = fixture
        .store
        .fill_decrypted(entry, opened, None, target, NOW);
    filled.await.unwrap();
    let counters = fixture.counters(to_silo(&fixture.a)).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.skipped[0].1), (0, 2));
}

#[tokio::test]
async fn the_changes_behind_a_message_are_those_of_its_own_lane() {
    let fixture = Fixture::new().await;
    let (a, b) = (to_silo(&fixture.a), to_silo(&fixture.b));
    let room = &fixture.room;
    fixture
        .accept(vec![payload(room, "$1"), payload(room, "$2")])
        .await;
    change(&fixture, "$edit", "$1", false).await;
    change(&fixture, "$gone", "$1", true).await;
    change(&fixture, "$other", "$2", true).await;
    for lane in [a, b] {
        let head = fixture.ready(lane).await;
        let behind = fixture.store.pending_changes(head.id).await.unwrap();
        let mut read = Vec::new();
        for (id, is_redacted) in behind {
            assert!(!is_redacted);
            let change = fixture
                .store
                .pending_delivery(lane, id)
                .await
                .unwrap()
                .unwrap();
            read.push((change.lane, change.payload));
        }
        assert_eq!(read, [(lane, b"$edit".to_vec()), (lane, b"$gone".to_vec())]);
    }
    let done = fixture.ready(a).await;
    fixture.deliver(a, "c1").await;
    let behind = fixture.store.pending_changes(done.id).await.unwrap();
    assert!(behind.is_empty());
}

#[tokio::test]
async fn a_redacted_edit_changes_no_waiting_message() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    change(&fixture, "$edit", "$1", false).await;
    change(&fixture, "$other edit", "$1", false).await;
    change(&fixture, "$gone", "$edit", true).await;
    let head = fixture.ready(lane).await;
    let behind = fixture.store.pending_changes(head.id).await.unwrap();
    let is_redacted: Vec<bool> = behind.iter().map(|(_, is_redacted)| *is_redacted).collect();
    assert_eq!(is_redacted, [true, false]);
    for (id, is_redacted) in behind {
        let edit = fixture
            .store
            .pending_delivery(lane, id)
            .await
            .unwrap()
            .unwrap();
        let known = fixture.store.is_edit_redacted(edit.entry).await.unwrap();
        assert_eq!(known, is_redacted);
    }
}

/// Includes this edit in the pending message. Returns whether it was possible.
async fn include(fixture: &Fixture, message: DeliveryId, edit: DeliveryId) -> bool {
    let rewritten = MergedMessage {
        message,
        edits: vec![(edit, b"as it reads".to_vec())],
    };
    let included = vec![(edit, SkipRule::EditIncluded)];
    fixture
        .store
        .include_edits(rewritten, included)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_edit_that_is_redacted_while_it_is_included_is_in_no_message() {
    for together in [false, true] {
        let fixture = Fixture::with_one_portal().await;
        let lane = to_silo(&fixture.a);
        let room = &fixture.room;
        fixture
            .accept(vec![payload(room, "$1"), payload(room, "$2")])
            .await;
        change(&fixture, "$edit", "$1", false).await;
        let line = fixture
            .store
            .lookahead(lane, fixture.ready(lane).await.id, 9, NOW);
        let ids: Vec<_> = line.await.unwrap().iter().map(|owed| owed.id).collect();
        // The caller read the queue before the redaction arrived.
        change(&fixture, "$gone", "$edit", true).await;
        let is_included = if together {
            let bundle = Bundle {
                plan: b"together".to_vec(),
                members: ids[..2].to_vec(),
                merged: vec![MergedMessage {
                    message: ids[0],
                    edits: vec![(ids[2], b"as it reads".to_vec())],
                }],
                included: vec![(ids[2], SkipRule::EditIncluded)],
            };
            fixture.store.create_bundle(bundle).await.unwrap()
        } else {
            include(&fixture, ids[0], ids[2]).await
        };
        assert!(!is_included);
        let head = fixture.ready(lane).await;
        assert_eq!((head.payload.as_slice(), head.plan), (&b"$1"[..], None));
        assert_eq!(fixture.counters(lane).await.pending, 4);
    }
}

#[tokio::test]
async fn messages_of_a_split_bundle_have_their_edited_text() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let room = &fixture.room;
    fixture
        .accept(vec![payload(room, "$1"), payload(room, "$2")])
        .await;
    change(&fixture, "$edit", "$2", false).await;
    let line = fixture
        .store
        .lookahead(lane, fixture.ready(lane).await.id, 9, NOW);
    let ids: Vec<_> = line.await.unwrap().iter().map(|owed| owed.id).collect();
    let bundle = Bundle {
        plan: b"together".to_vec(),
        members: ids[..2].to_vec(),
        merged: vec![MergedMessage {
            message: ids[1],
            edits: vec![(ids[2], b"as it reads".to_vec())],
        }],
        included: vec![(ids[2], SkipRule::EditIncluded)],
    };
    assert!(fixture.store.create_bundle(bundle).await.unwrap());
    fixture.store.split_bundle(ids[0]).await.unwrap();
    fixture.deliver(lane, "c1").await;
    assert_eq!(fixture.ready(lane).await.payload, b"as it reads");
}

#[tokio::test]
async fn an_older_edit_whose_key_comes_late_is_not_sent_after_an_included_one() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let sealed = Payload::Undecryptable {
        session: "s".to_owned(),
        raw: b"raw".to_vec(),
        key_wait_until: Millis(NOW.0 + 5),
    };
    changed(&fixture, "$old", "$1", (false, false), sealed).await;
    change(&fixture, "$new", "$1", false).await;
    let old = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let head = fixture.ready(lane).await;
    let behind = fixture.store.pending_changes(head.id).await.unwrap();
    include(&fixture, head.id, behind[0].0).await;
    fixture.deliver(lane, "c1").await;
    let (room, channel, target) = (&fixture.room, &fixture.a.channel, RemoteId::from("$1"));
    let is_latest = fixture
        .store
        .advance_latest_edit(room, &target, channel, old);
    assert!(!is_latest.await.unwrap());
}

#[tokio::test]
async fn an_edit_by_which_the_author_keeps_a_message_here_keeps_what_waits() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let skipped = || Payload::Skipped(SkipRule::NoBridge);
    changed(&fixture, "$foreign", "$1", (false, false), skipped()).await;
    assert_eq!(
        fixture.counters(lane).await.pending,
        1,
        "this rule does not end the message"
    );
    changed(&fixture, "$edit", "$1", (false, true), skipped()).await;
    let counters = fixture.counters(lane).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.skipped[0].1), (0, 3));
}

/// Whether the lane treats its head as possibly sent when the lane starts.
async fn in_flight(fixture: &Fixture, lane: LaneId) -> bool {
    in_flight_at(fixture, lane, NOW).await
}

async fn in_flight_at(fixture: &Fixture, lane: LaneId, now: Millis) -> bool {
    let latest = Millis(NOW.0 + 90_000);
    fixture
        .store
        .start_lane(lane, now, latest, true)
        .await
        .unwrap();
    let later = Millis(NOW.0 + 80_000);
    match fixture.store.queue_head(lane, later).await.unwrap() {
        QueueHead::Ready(delivery) => delivery.unanswered_since.is_some(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_that_came_during_a_hold_was_not_being_sent_when_the_bridge_stopped() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let paused = fixture.store.pause(fixture.a.id, "@ann:x", NOW);
    paused.await.unwrap();
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let latest = Millis(NOW.0 + 90_000);
    fixture
        .store
        .start_lane(lane, NOW, latest, true)
        .await
        .unwrap();
    fixture.store.resume(fixture.a.id).await.unwrap();
    let head = fixture.ready(lane).await;
    assert_eq!(head.unanswered_since, None);
    assert!(
        in_flight(&fixture, lane).await,
        "it may be under way by now"
    );

    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    agreed(&fixture, vec![payload(&fixture.room, "$1")]).await;
    assert!(!in_flight(&fixture, lane).await);
    // Lanes open by the clock, whether or not a sync has returned the earlier events.
    let until = Millis(NOW.0 + 60_000);
    assert!(in_flight_at(&fixture, lane, until).await);
}

#[tokio::test]
async fn a_message_held_by_another_portal_on_its_route_was_not_being_sent_when_the_bridge_stopped()
{
    let fixture = Fixture::with_one_portal().await;
    let second = portal(&fixture.store, &Place::room("!second"), "a").await;
    let lane = to_matrix(&second);
    let paused = fixture.store.pause(fixture.a.id, "@ann:x", NOW);
    paused.await.unwrap();
    fixture.accept(vec![payload(&fixture.room, "$held")]).await;
    fixture
        .accept(vec![payload(&fixture.a.channel, "free")])
        .await;
    let latest = Millis(NOW.0 + 90_000);
    let started = fixture.store.start_lane(lane, NOW, latest, true);
    started.await.unwrap();
    assert_eq!(fixture.ready(lane).await.payload, b"free");
    assert!(fixture.ready(lane).await.unanswered_since.is_some());
    fixture.deliver(lane, "c1").await;
    fixture.store.resume(fixture.a.id).await.unwrap();
    let head = fixture.ready(lane).await;
    assert_eq!(
        (head.payload.as_slice(), head.unanswered_since),
        (&b"$held"[..], None)
    );
}

#[tokio::test]
async fn changes_of_a_message_in_another_lane_are_sent_there() {
    // A channel links two rooms; then the first room is linked to the second room's channel too.
    let fixture = Fixture::with_one_portal().await;
    let room = fixture.room.clone();
    let second = portal(&fixture.store, &Place::room("!second"), "a").await;
    let far = portal(&fixture.store, &second.room, "far").await;
    fixture.accept(vec![payload(&room, "$1")]).await;
    let old = fixture.ready(to_silo(&far)).await;
    let near = portal(&fixture.store, &room, "far").await;
    change(&fixture, "$edit", "$1", false).await;
    let edit = fixture.ready(to_silo(&near)).await;
    assert!(fixture.store.queue_behind(edit.id, old.id).await.unwrap());
    assert!(!fixture.store.queue_behind(edit.id, old.id).await.unwrap());
    let counters = fixture.counters(to_silo(&near)).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.accepted), (0, 1));
    fixture.deliver(to_silo(&far), "c1").await;
    assert_eq!(fixture.ready(to_silo(&far)).await.id, edit.id);
    let counters = fixture.counters(to_silo(&far)).await;
    assert!(balances(&counters));
    assert_eq!((counters.pending, counters.accepted), (1, 2));
}

#[tokio::test]
async fn of_a_person_who_opts_out_nothing_that_failed_is_kept() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let room = &fixture.room;
    let said = ["$ann 1", "$bob 1", "$ann takes back"];
    fixture
        .accept(said.iter().map(|said| payload(room, said)).collect())
        .await;
    for _ in said {
        let failed = Undelivered::Failed {
            kind: "refused",
            reason: "it does not want it".to_owned(),
            about: None,
            notice: FailureNotice::ToSender,
        };
        let head = fixture.ready(lane).await;
        let ended = fixture.store.end_undelivered(head.id, failed, NOW);
        ended.await.unwrap();
    }
    let speaks = |payload: &[u8], user: &str| {
        let payload = String::from_utf8_lossy(payload);
        payload.starts_with(&format!("${user}")) && !payload.ends_with("back")
    };
    let store = &fixture.store;
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
    assert!(balances(&fixture.counters(lane).await));
}
