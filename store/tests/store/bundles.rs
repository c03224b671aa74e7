//! Bundles: created, split, settled.

use footbridge_store::{Bundle, DeliveryId, Error, FailureNotice, Millis, RemoteId, Undelivered};

use crate::support::{Ground, NOW, balances, copy, payload, sealed_letter, to_silo};

async fn three() -> (Ground, Vec<DeliveryId>) {
    let ground = Ground::with_one_portal().await;
    for id in ["$1", "$2", "$3", "$4"] {
        ground.accept(vec![payload(&ground.room, id)]).await;
    }
    let lane = to_silo(&ground.a);
    let first = ground.ready(lane).await.id;
    let line = ground.store.lookahead(lane, first, 10, NOW).await.unwrap();
    (ground, line.into_iter().map(|owed| owed.id).collect())
}

fn bundle(members: &[DeliveryId]) -> Bundle {
    Bundle {
        plan: b"together".to_vec(),
        members: members.to_vec(),
        merged: Vec::new(),
        included: Vec::new(),
    }
}

#[tokio::test]
async fn bound_debts_are_settled_together_and_linked_to_the_same_message() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    assert!(ground.store.create_bundle(bundle(&ids[..3])).await.unwrap());
    let ground = ground.restart().await;
    let head = ground.ready(lane).await;
    assert_eq!(
        (head.id, head.plan.as_deref()),
        (ids[0], Some(&b"together"[..]))
    );
    ground.deliver(lane, "c1").await;
    let counters = ground.counters(lane).await;
    assert_eq!((counters.delivered, counters.pending), (3, 1));
    for (slot, event_id) in (0..).zip(["$1", "$2", "$3"]) {
        let event_id = RemoteId::from(event_id);
        let found = ground
            .store
            .copies(&ground.room, &event_id, &ground.a.channel)
            .await
            .unwrap();
        assert_eq!(found.copies[0].remote.as_str(), "c1");
        assert_eq!(found.slot, Some(slot));
    }
    assert_eq!(ground.ready(lane).await.payload, b"$4");
    let left: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 1, "what was delivered leaves no letter");
    // One part is removed; the message stays, and a reply to it replies to the last part that is left.
    ground.accept(vec![payload(&ground.room, "$5")]).await;
    let removal = ground.ready(lane).await;
    ground
        .store
        .complete_part_removal(removal.id, (&"c1".into(), 2), &copy("c1, edited"), true)
        .await
        .unwrap();
    // The event that removed it contains the other parts: it must stay while they do, whatever becomes of the part.
    let struck = RemoteId::from("$3");
    let found = ground
        .store
        .copies(&ground.room, &struck, &ground.a.channel);
    assert!(found.await.unwrap().shared);
    let found = ground
        .store
        .copies(&ground.a.channel, &"c1".into(), &ground.room)
        .await
        .unwrap();
    assert_eq!(found.copies[0].remote.as_str(), "$2");
    // The event that removed it has the texts of the others, and is deleted with the last of them.
    for (event_id, is_shared, edits) in [("$1", true, 1), ("$2", false, 2)] {
        let place = (&ground.room, RemoteId::from(event_id));
        let found = ground
            .store
            .copies(place.0, &place.1, &ground.a.channel)
            .await
            .unwrap();
        assert_eq!(found.edits[0], ("c1".into(), "c1, edited".into()));
        assert_eq!(
            (found.shared, found.edits.len()),
            (is_shared, edits),
            "{event_id}"
        );
        let removal = payload(&ground.room, &format!("{event_id} is taken back"));
        ground.accept(vec![removal]).await;
        let (removal, slot) = (ground.ready(lane).await, found.slot.unwrap());
        let by = copy(&format!("c1, without {event_id}"));
        ground
            .store
            .complete_part_removal(removal.id, (&"c1".into(), slot), &by, true)
            .await
            .unwrap();
    }
    assert!(balances(&ground.counters(lane).await));
}

#[tokio::test]
async fn debts_taken_apart_are_owed_one_by_one_and_never_bound_again() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    assert!(ground.store.create_bundle(bundle(&ids[..3])).await.unwrap());
    ground.store.split_bundle(ids[0]).await.unwrap();
    let line = ground.store.lookahead(lane, ids[0], 10, NOW).await.unwrap();
    let apart: Vec<_> = line
        .iter()
        .map(|owed| (owed.attempts, owed.plan.is_some()))
        .collect();
    assert_eq!(apart, [(1, false), (1, false), (1, false), (0, false)]);
}

#[tokio::test]
async fn bound_debts_end_together_when_the_first_is_given_up() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    assert!(ground.store.create_bundle(bundle(&ids[..3])).await.unwrap());
    let how = Undelivered::Failed {
        kind: "unknown",
        reason: "nobody knows".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    ground
        .store
        .end_undelivered(ids[0], how, NOW)
        .await
        .unwrap();
    let counters = ground.counters(lane).await;
    assert_eq!(
        (counters.failed, counters.pending, counters.parked),
        (3, 1, 3)
    );
    assert_eq!(ground.ready(lane).await.id, ids[3]);
}

#[tokio::test]
async fn nothing_is_bound_that_is_no_longer_owed() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    ground.deliver(lane, "c1").await;
    assert!(!ground.store.create_bundle(bundle(&ids[..3])).await.unwrap());
    assert_eq!(ground.ready(lane).await.plan, None);
}

#[tokio::test]
async fn the_line_ends_where_the_lane_would_hold() {
    let ground = Ground::with_one_portal().await;
    let later = NOW.0 + 1_000;
    ground
        .accept(vec![
            payload(&ground.room, "$1"),
            sealed_letter(&ground.room, "$2", NOW.0 - 1),
            payload(&ground.room, "$3"),
            sealed_letter(&ground.room, "$4", later),
            payload(&ground.room, "$5"),
        ])
        .await;
    let lane = to_silo(&ground.a);
    let first = ground.ready(lane).await.id;
    let line = |now| ground.store.lookahead(lane, first, 10, now);
    let letters = |line: Vec<footbridge_store::Delivery>| -> Vec<String> {
        let letters = line
            .into_iter()
            .map(|owed| String::from_utf8(owed.payload).unwrap());
        letters.collect()
    };
    assert_eq!(letters(line(NOW).await.unwrap()), ["$1", "$3"]);
    assert_eq!(
        letters(line(Millis(later)).await.unwrap()),
        ["$1", "$3", "$5"]
    );
}

#[tokio::test]
async fn one_message_is_a_whole_or_shared_but_never_two_wholes() {
    let (ground, _) = three().await;
    let lane = to_silo(&ground.a);
    ground.deliver(lane, "c1").await;
    let second = ground.ready(lane).await;
    let twice = ground
        .store
        .complete_step(second.id, Some(&copy("c1")), None, true, NOW)
        .await;
    assert!(matches!(twice, Err(Error::Sqlite { .. })), "{twice:?}");
    assert_eq!(ground.ready(lane).await.id, second.id);
}
