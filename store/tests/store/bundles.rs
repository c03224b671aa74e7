//! Debts that one message pays: bound, taken apart, settled, and a store from before they could be bound.

use footbridge_store::{Bundle, DeliveryId, Error, Millis, RemoteId, Tell, Undelivered};

use crate::ground::{Ground, NOW, balances, copy, letter, sealed_letter, to_silo};

async fn three() -> (Ground, Vec<DeliveryId>) {
    let ground = Ground::with_one_portal().await;
    for id in ["$1", "$2", "$3", "$4"] {
        ground.accept(vec![letter(&ground.room, id)]).await;
    }
    let lane = to_silo(&ground.a);
    let first = ground.ready(lane).await.id;
    let line = ground.store.line(lane, first, 10, NOW).await.unwrap();
    (ground, line.into_iter().map(|owed| owed.id).collect())
}

fn bundle(members: &[DeliveryId]) -> Bundle {
    Bundle {
        plan: b"together".to_vec(),
        members: members.to_vec(),
        rewritten: Vec::new(),
        included: Vec::new(),
    }
}

#[tokio::test]
async fn bound_debts_are_settled_together_and_linked_to_the_same_message() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    assert!(ground.store.bind(bundle(&ids[..3])).await.unwrap());
    let ground = ground.restart().await;
    let head = ground.ready(lane).await;
    assert_eq!(
        (head.id, head.plan.as_deref()),
        (ids[0], Some(&b"together"[..]))
    );
    ground.deliver(lane, "c1").await;
    let tally = ground.tally(lane).await;
    assert_eq!((tally.delivered, tally.pending), (3, 1));
    for (slot, fact) in (0..).zip(["$1", "$2", "$3"]) {
        let fact = RemoteId::from(fact);
        let found = ground
            .store
            .copies(&ground.room, &fact, &ground.a.channel)
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
    // One part is taken out; the message stays, and whoever answers it answers the last that is left.
    ground.accept(vec![letter(&ground.room, "$5")]).await;
    let removal = ground.ready(lane).await;
    ground
        .store
        .struck(removal.id, (&"c1".into(), 2), &copy("c1, edited"), true)
        .await
        .unwrap();
    // What took it out says it no more: it must not go while others stand there, whatever becomes of the part.
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
    // What took it out has the words of the others, and goes with the last of them.
    for (fact, is_shared, edits) in [("$1", true, 1), ("$2", false, 2)] {
        let place = (&ground.room, RemoteId::from(fact));
        let found = ground
            .store
            .copies(place.0, &place.1, &ground.a.channel)
            .await
            .unwrap();
        assert_eq!(found.edits[0], ("c1".into(), "c1, edited".into()));
        assert_eq!(
            (found.shared, found.edits.len()),
            (is_shared, edits),
            "{fact}"
        );
        let removal = letter(&ground.room, &format!("{fact} is taken back"));
        ground.accept(vec![removal]).await;
        let (removal, slot) = (ground.ready(lane).await, found.slot.unwrap());
        let by = copy(&format!("c1, without {fact}"));
        ground
            .store
            .struck(removal.id, (&"c1".into(), slot), &by, true)
            .await
            .unwrap();
    }
    assert!(balances(&ground.tally(lane).await));
}

#[tokio::test]
async fn debts_taken_apart_are_owed_one_by_one_and_never_bound_again() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    assert!(ground.store.bind(bundle(&ids[..3])).await.unwrap());
    ground.store.unbind(ids[0]).await.unwrap();
    let line = ground.store.line(lane, ids[0], 10, NOW).await.unwrap();
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
    assert!(ground.store.bind(bundle(&ids[..3])).await.unwrap());
    let how = Undelivered::Failed {
        kind: "unknown",
        reason: "nobody knows".to_owned(),
        about: None,
        tell: Tell::Sender,
    };
    ground.store.undelivered(ids[0], how, NOW).await.unwrap();
    let tally = ground.tally(lane).await;
    assert_eq!((tally.failed, tally.pending, tally.parked), (3, 1, 3));
    assert_eq!(ground.ready(lane).await.id, ids[3]);
}

#[tokio::test]
async fn nothing_is_bound_that_is_no_longer_owed() {
    let (ground, ids) = three().await;
    let lane = to_silo(&ground.a);
    ground.deliver(lane, "c1").await;
    assert!(!ground.store.bind(bundle(&ids[..3])).await.unwrap());
    assert_eq!(ground.ready(lane).await.plan, None);
}

#[tokio::test]
async fn the_line_ends_where_the_lane_would_hold() {
    let ground = Ground::with_one_portal().await;
    let later = NOW.0 + 1_000;
    ground
        .accept(vec![
            letter(&ground.room, "$1"),
            sealed_letter(&ground.room, "$2", NOW.0 - 1),
            letter(&ground.room, "$3"),
            sealed_letter(&ground.room, "$4", later),
            letter(&ground.room, "$5"),
        ])
        .await;
    let lane = to_silo(&ground.a);
    let first = ground.ready(lane).await.id;
    let line = |now| ground.store.line(lane, first, 10, now);
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

#[test]
fn a_store_from_before_bundles_keeps_its_links_and_debts() {
    let sql = rusqlite::Connection::open_in_memory().unwrap();
    sql.execute_batch(include_str!("../../migrations/001_init.sql"))
        .unwrap();
    sql.execute_batch(
        "INSERT INTO portal VALUES (1, '!r', 'c', '#r', 'gitter', 'c', 1, 0);
         INSERT INTO journal (id, place, fact, accepted_at, payload) VALUES (1, '!r', '$1', 0, x'00');
         INSERT INTO outbox (id, entry_id, portal_id, toward, to_place, key, accepted_at, attempts)
         VALUES (7, 1, 1, 'silo', 'c', 'k', 0, 3);
         INSERT INTO link (place, remote, entry_id, part, thread, sent_at, gone)
         VALUES ('!r', '$1', 1, 0, '$t', 5, 0), ('c', 'm1', 1, 0, NULL, 6, 1);",
    )
    .unwrap();
    sql.execute_batch(include_str!("../../migrations/002_bundles.sql"))
        .unwrap();
    let links: Vec<String> = sql
        .prepare(
            "SELECT format('%s %s %d %d %d %s %d %d', place, remote, slot, entry_id, part,
                           coalesce(thread, '-'), sent_at, gone) FROM link ORDER BY sent_at",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(links, ["!r $1 -1 1 0 $t 5 0", "c m1 -1 1 0 - 6 1"]);
    let debt: (i64, i64, Option<i64>) = sql
        .query_row("SELECT id, attempts, leader FROM outbox", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(debt, (7, 3, None));
}

#[tokio::test]
async fn one_message_is_a_whole_or_shared_but_never_two_wholes() {
    let (ground, _) = three().await;
    let lane = to_silo(&ground.a);
    ground.deliver(lane, "c1").await;
    let second = ground.ready(lane).await;
    let twice = ground
        .store
        .step_done(second.id, Some(&copy("c1")), None, true, NOW)
        .await;
    assert!(matches!(twice, Err(Error::Sqlite { .. })), "{twice:?}");
    assert_eq!(ground.ready(lane).await.id, second.id);
}
