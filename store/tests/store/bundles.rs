//! Bundles: created, split, settled.

use footbridge_store::{Bundle, DeliveryId, FailureNotice, Millis, RemoteId, Undelivered};

use crate::support::{Fixture, NOW, balances, copy, payload, to_silo, undecryptable_arrival};

async fn three() -> (Fixture, Vec<DeliveryId>) {
    let fixture = Fixture::with_one_portal().await;
    for id in ["$1", "$2", "$3", "$4"] {
        fixture.accept(vec![payload(&fixture.room, id)]).await;
    }
    let lane = to_silo(&fixture.a);
    let first = fixture.ready(lane).await.id;
    let line = fixture.store.lookahead(lane, first, 10, NOW).await.unwrap();
    (fixture, line.into_iter().map(|owed| owed.id).collect())
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
async fn bundled_deliveries_are_settled_together_and_linked_to_the_same_message() {
    let (fixture, ids) = three().await;
    let lane = to_silo(&fixture.a);
    assert!(
        fixture
            .store
            .create_bundle(bundle(&ids[..3]))
            .await
            .unwrap()
    );
    let fixture = fixture.restart().await;
    let head = fixture.ready(lane).await;
    assert_eq!(
        (head.id, head.plan.as_deref()),
        (ids[0], Some(&b"together"[..]))
    );
    fixture.deliver(lane, "c1").await;
    let counters = fixture.counters(lane).await;
    assert_eq!((counters.delivered, counters.pending), (3, 1));
    for (slot, event_id) in (0..).zip(["$1", "$2", "$3"]) {
        let event_id = RemoteId::from(event_id);
        let found = fixture
            .store
            .copies(&fixture.room, &event_id, &fixture.a.channel)
            .await
            .unwrap();
        assert_eq!(found.copies[0].remote.as_str(), "c1");
        assert_eq!(found.slot, Some(slot));
    }
    assert_eq!(fixture.ready(lane).await.payload, b"$4");
    let left: i64 = fixture
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 1, "the payloads of delivered entries are erased");
    // One part is deleted; the message stays, and a reply to it replies to the last part that is left.
    fixture.accept(vec![payload(&fixture.room, "$5")]).await;
    let removal = fixture.ready(lane).await;
    fixture
        .store
        .complete_part_removal(removal.id, &"c1".into(), 2, &copy("c1, edited"), true)
        .await
        .unwrap();
    // The event that deleted it contains the other parts: it stays as long as they do, whatever happens to the part.
    let struck = RemoteId::from("$3");
    let found = fixture
        .store
        .copies(&fixture.room, &struck, &fixture.a.channel);
    assert!(found.await.unwrap().shared);
    let found = fixture
        .store
        .copies(&fixture.a.channel, &"c1".into(), &fixture.room)
        .await
        .unwrap();
    assert_eq!(found.copies[0].remote.as_str(), "$2");
    // The event that deleted it has the texts of the other parts, and is deleted with the last of them.
    for (event_id, is_shared, edits) in [("$1", true, 1), ("$2", false, 2)] {
        let place = (&fixture.room, RemoteId::from(event_id));
        let found = fixture
            .store
            .copies(place.0, &place.1, &fixture.a.channel)
            .await
            .unwrap();
        assert_eq!(found.edits[0], ("c1".into(), "c1, edited".into()));
        assert_eq!(
            (found.shared, found.edits.len()),
            (is_shared, edits),
            "{event_id}"
        );
        let removal = payload(&fixture.room, &format!("{event_id} is taken back"));
        fixture.accept(vec![removal]).await;
        let (removal, slot) = (fixture.ready(lane).await, found.slot.unwrap());
        let by = copy(&format!("c1, without {event_id}"));
        fixture
            .store
            .complete_part_removal(removal.id, &"c1".into(), slot, &by, true)
            .await
            .unwrap();
    }
    assert!(balances(&fixture.counters(lane).await));
}

#[tokio::test]
async fn deliveries_of_a_split_bundle_are_pending_one_by_one_and_never_bundled_again() {
    let (fixture, ids) = three().await;
    let lane = to_silo(&fixture.a);
    assert!(
        fixture
            .store
            .create_bundle(bundle(&ids[..3]))
            .await
            .unwrap()
    );
    fixture.store.split_bundle(ids[0]).await.unwrap();
    let line = fixture
        .store
        .lookahead(lane, ids[0], 10, NOW)
        .await
        .unwrap();
    let apart: Vec<_> = line
        .iter()
        .map(|owed| (owed.attempts, owed.plan.is_some()))
        .collect();
    assert_eq!(apart, [(1, false), (1, false), (1, false), (0, false)]);
}

#[tokio::test]
async fn bundled_deliveries_end_together_when_the_first_fails() {
    let (fixture, ids) = three().await;
    let lane = to_silo(&fixture.a);
    assert!(
        fixture
            .store
            .create_bundle(bundle(&ids[..3]))
            .await
            .unwrap()
    );
    let how = Undelivered::Failed {
        kind: "unknown",
        reason: "nobody knows".to_owned(),
        about: None,
        notice: FailureNotice::ToSender,
    };
    fixture
        .store
        .end_undelivered(ids[0], how, NOW)
        .await
        .unwrap();
    let counters = fixture.counters(lane).await;
    assert_eq!(
        (counters.failed, counters.pending, counters.parked),
        (3, 1, 3)
    );
    assert_eq!(fixture.ready(lane).await.id, ids[3]);
}

#[tokio::test]
async fn nothing_is_bundled_that_is_no_longer_pending() {
    let (fixture, ids) = three().await;
    let lane = to_silo(&fixture.a);
    fixture.deliver(lane, "c1").await;
    assert!(
        !fixture
            .store
            .create_bundle(bundle(&ids[..3]))
            .await
            .unwrap()
    );
    assert_eq!(fixture.ready(lane).await.plan, None);
}

#[tokio::test]
async fn the_line_ends_where_the_lane_would_hold() {
    let fixture = Fixture::with_one_portal().await;
    let later = NOW.0 + 1_000;
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            undecryptable_arrival(&fixture.room, "$2", NOW.0 - 1),
            payload(&fixture.room, "$3"),
            undecryptable_arrival(&fixture.room, "$4", later),
            payload(&fixture.room, "$5"),
        ])
        .await;
    let lane = to_silo(&fixture.a);
    let first = fixture.ready(lane).await.id;
    let line = |now| fixture.store.lookahead(lane, first, 10, now);
    let arrivals = |line: Vec<footbridge_store::Delivery>| -> Vec<String> {
        let arrivals = line
            .into_iter()
            .map(|owed| String::from_utf8(owed.payload).unwrap());
        arrivals.collect()
    };
    assert_eq!(arrivals(line(NOW).await.unwrap()), ["$1", "$3"]);
    assert_eq!(
        arrivals(line(Millis(later)).await.unwrap()),
        ["$1", "$3", "$5"]
    );
}

#[tokio::test]
async fn one_message_is_a_whole_or_shared_but_never_two_wholes() {
    let (fixture, _) = three().await;
    let lane = to_silo(&fixture.a);
    fixture.deliver(lane, "c1").await;
    let second = fixture.ready(lane).await;
    let twice = fixture
        .store
        .complete_step(second.id, Some(&copy("c1")), None, true, NOW)
        .await;
    twice.unwrap();
    let room = &fixture.room;
    let copies = async |message: &str| {
        let (message, channel) = (RemoteId::from(message), &fixture.a.channel);
        let found = fixture.store.copies(room, &message, channel);
        found.await.unwrap().copies
    };
    assert_eq!(copies("$1").await, [copy("c1")]);
    assert_eq!(copies("$2").await, []);
}
