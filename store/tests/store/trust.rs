//! P02, P06: one ratchet index decrypts one event for ever; the store never gives up entries on trust hold.

use std::time::Duration;

use footbridge_store::{
    Accepted, Arrival, Batch, DecryptedWith, HeldIdentity, Millis, Payload, RemoteId, SkipRule,
};

use crate::support::{Fixture, NOW, balances, payload, to_silo, undecryptable_arrival};

fn opened(session: &str, index: u32, sent_at: i64) -> DecryptedWith {
    DecryptedWith {
        session: session.to_owned(),
        ratchet_index: index,
        sent_at: Millis(sent_at),
    }
}

/// Accepts one event that was decrypted with this session and ratchet index.
async fn take(fixture: &Fixture, id: &str, with: DecryptedWith, now: Millis) -> Accepted {
    let arrival: Arrival = payload(&fixture.room, id);
    let batch = Batch {
        decrypted_with: vec![(fixture.room.clone(), RemoteId::from(id), with)],
        arrivals: vec![arrival],
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, now).await.unwrap();
    accepted.into_iter().next().unwrap()
}

#[tokio::test]
async fn p06_one_message_of_a_room_key_is_one_event() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let new = Accepted::New(vec![lane]);
    assert_eq!(take(&fixture, "$1", opened("s", 7, 10), NOW).await, new);
    // The same event a second time is harmless.
    let again = take(&fixture, "$1", opened("s", 7, 10), NOW).await;
    assert_eq!(again, Accepted::Duplicate);
    for (id, sent_at) in [("$2", 10), ("$2", 11), ("$1", 11)] {
        let replay = take(&fixture, id, opened("s", 7, sent_at), NOW).await;
        assert_eq!(replay, Accepted::Replayed, "{id} {sent_at}");
    }
    // Another ratchet index or another session means another message.
    assert_eq!(take(&fixture, "$3", opened("s", 8, 10), NOW).await, new);
    assert_eq!(take(&fixture, "$4", opened("t", 7, 10), NOW).await, new);
    let fixture = fixture.restart().await;
    let replay = take(&fixture, "$5", opened("s", 7, 10), NOW).await;
    assert_eq!(replay, Accepted::Replayed);
    let counters = fixture.counters(lane).await;
    assert_eq!(counters.skipped, [(SkipRule::Replayed, 2)]);
    assert!(balances(&counters) && counters.pending == 3);
    let linked = fixture
        .store
        .is_linked(&fixture.room, &RemoteId::from("$5"))
        .await;
    assert!(!linked.unwrap(), "nothing may refer to it");
}

#[tokio::test]
async fn p06_of_two_events_in_one_batch_the_first_is_the_message() {
    let fixture = Fixture::with_one_portal().await;
    let both = ["$1", "$2"];
    let batch = Batch {
        arrivals: both.iter().map(|id| payload(&fixture.room, id)).collect(),
        decrypted_with: both
            .iter()
            .map(|id| (fixture.room.clone(), RemoteId::from(*id), opened("s", 0, 1)))
            .collect(),
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, NOW).await.unwrap();
    let new = Accepted::New(vec![to_silo(&fixture.a)]);
    assert_eq!(accepted, [new, Accepted::Replayed]);
}

#[tokio::test]
async fn p06_a_place_is_used_for_ever_and_its_event_is_known_for_30_days() {
    let fixture = Fixture::with_one_portal().await;
    let day = |days: u64| NOW.plus(Duration::from_hours(24 * days));
    let new = Accepted::New(vec![to_silo(&fixture.a)]);
    for (id, index) in [("$0", 0), ("$1", 1), ("$2", 2), ("$9", 9)] {
        assert_eq!(take(&fixture, id, opened("s", index, 1), NOW).await, new);
    }
    // Of a session that is still in use, every index is kept.
    assert_eq!(take(&fixture, "$a", opened("t", 0, 1), NOW).await, new);
    assert_eq!(take(&fixture, "$b", opened("t", 1, 1), day(20)).await, new);
    let reads = async |event: &str, index| {
        let (event, with) = (RemoteId::from(event), opened("s", index, 1));
        let known = fixture.store.was_decrypted_with(&event, &with);
        known.await.unwrap()
    };
    assert_eq!((reads("$1", 1).await, reads("$1", 2).await), (true, false));
    assert_eq!(
        fixture.store.compact_used_indexes(day(29)).await.unwrap(),
        0
    );
    assert_eq!(
        fixture.store.compact_used_indexes(day(31)).await.unwrap(),
        4
    );
    // Compaction forgets the event ids: otherwise the homeserver could show another message of the session under such
    // an id.
    assert_eq!((reads("$1", 1).await, reads("$1", 2).await), (false, false));
    let ranges: i64 = fixture
        .sql()
        .query_row("SELECT count(*) FROM used_ratchet_range", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(ranges, 2, "0 to 2, and 9");
    for index in [0, 1, 2, 9] {
        let id = format!("$x{index}");
        let replay = take(&fixture, &id, opened("s", index, 1), day(31)).await;
        assert_eq!(replay, Accepted::Replayed, "{index}");
    }
    // An event with the same id in another place does not make the replay a known event.
    fixture
        .accept(vec![crate::support::payload(
            &fixture.a.channel,
            "$elsewhere",
        )])
        .await;
    let replay = take(&fixture, "$elsewhere", opened("s", 1, 1), day(31)).await;
    assert_eq!(replay, Accepted::Replayed);
    // A known event that is shown again is harmless, and a late message of the room key is no replay.
    let again = take(&fixture, "$1", opened("s", 1, 1), day(31)).await;
    assert_eq!(again, Accepted::Duplicate);
    assert_eq!(take(&fixture, "$5", opened("s", 5, 1), day(31)).await, new);
    assert_eq!(
        fixture.store.compact_used_indexes(day(70)).await.unwrap(),
        3
    );
    let replay = take(&fixture, "$y", opened("s", 5, 1), day(70)).await;
    assert_eq!(replay, Accepted::Replayed);
}

#[tokio::test]
async fn p06_a_late_key_opens_no_replay() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    take(&fixture, "$1", opened("s", 3, 10), NOW).await;
    fixture
        .accept(vec![undecryptable_arrival(&fixture.room, "$2", NOW.0)])
        .await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let payload = Payload::Ready(b"opened".to_vec());
    let read = fixture
        .store
        .fill_decrypted(entry, payload.clone(), Some(opened("s", 3, 11)), None, NOW)
        .await
        .unwrap();
    assert!(read.replayed && read.lanes == [lane]);
    let counters = fixture.counters(lane).await;
    assert_eq!(counters.skipped, [(SkipRule::Replayed, 1)]);
    assert!(balances(&counters) && counters.pending == 1);

    fixture
        .accept(vec![undecryptable_arrival(&fixture.room, "$3", NOW.0)])
        .await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let read = fixture
        .store
        .fill_decrypted(entry, payload, Some(opened("s", 4, 12)), None, NOW)
        .await
        .unwrap();
    assert!(!read.replayed);
    let replay = take(&fixture, "$4", opened("s", 4, 12), NOW).await;
    assert_eq!(replay, Accepted::Replayed);
}

#[tokio::test]
async fn p02_the_first_identity_is_trusted_and_another_one_only_after_approval() {
    let fixture = Fixture::new().await;
    let ann = "@ann:x";
    assert_eq!(fixture.store.pinned_identities().await.unwrap(), []);
    let first = fixture.store.pin_identity(ann, "first", NOW).await.unwrap();
    assert_eq!(first, "first");
    let second = fixture
        .store
        .pin_identity(ann, "second", NOW)
        .await
        .unwrap();
    assert_eq!(second, "first", "the first stays");
    // The pinned identity is not noted as a changed one.
    for key in ["first", "second"] {
        fixture
            .store
            .note_changed_identity(ann, key, NOW)
            .await
            .unwrap();
    }
    let fixture = fixture.restart().await;
    let others = fixture.store.changed_identities().await.unwrap();
    assert_eq!(others, [(ann.to_owned(), "second".to_owned())]);
    fixture.store.replace_pin(ann, "second", NOW).await.unwrap();
    let fixture = fixture.restart().await;
    let pins = fixture.store.pinned_identities().await.unwrap();
    assert_eq!(pins, [(ann.to_owned(), "second".to_owned())]);
    assert_eq!(fixture.store.changed_identities().await.unwrap(), []);
}

#[tokio::test]
async fn p02_of_many_other_identities_the_newest_are_remembered() {
    let fixture = Fixture::new().await;
    for number in 0..20 {
        let (key, seen_at) = (format!("{:02}", 99 - number), Millis(NOW.0 + number));
        fixture
            .store
            .note_changed_identity("@ann:x", &key, seen_at)
            .await
            .unwrap();
    }
    fixture
        .store
        .note_changed_identity("@bob:x", "key", NOW)
        .await
        .unwrap();
    let others = fixture.store.changed_identities().await.unwrap();
    let keys: Vec<_> = others.iter().map(|(_, key)| key.as_str()).collect();
    let operator_portals = ["87", "86", "85", "84", "83", "82", "81", "80", "key"];
    assert_eq!(keys, operator_portals);
}

/// A batch in which this event waits for the approval of this identity.
fn held(fixture: &Fixture, id: &str, key: Option<&str>) -> Batch {
    let identity = HeldIdentity {
        user: "@ann:x".to_owned(),
        master_key: key.map(str::to_owned),
    };
    Batch {
        arrivals: vec![undecryptable_arrival(&fixture.room, id, NOW.0)],
        trust_holds: vec![(fixture.room.clone(), RemoteId::from(id), identity)],
        ..Batch::default()
    }
}

#[tokio::test]
async fn p02_only_what_the_accepted_identity_signed_is_released() {
    let fixture = Fixture::with_one_portal().await;
    fixture
        .store
        .pin_identity("@ann:x", "a", NOW)
        .await
        .unwrap();
    for (id, key) in [
        ("$1", Some("b")),
        ("$2", None),
        ("$3", Some("c")),
        ("$4", Some("b")),
    ] {
        fixture
            .store
            .accept(held(&fixture, id, key), NOW)
            .await
            .unwrap();
    }
    // An identity with entries on trust hold is a known changed identity, also after a restart.
    let fixture = fixture.restart().await;
    let releasable = async || {
        let waiting = fixture.store.releasable_trust_holds().await.unwrap();
        let ids = waiting.iter().map(|one| one.event_id.0.clone());
        ids.collect::<Vec<_>>()
    };
    let others = fixture.store.changed_identities_of("@ann:x").await.unwrap();
    assert_eq!(others, [("b".to_owned(), 2), ("c".to_owned(), 1)]);
    assert_eq!(releasable().await, ["$2"]);
    fixture.store.replace_pin("@ann:x", "b", NOW).await.unwrap();
    assert_eq!(releasable().await, ["$1", "$2", "$4"]);
    // Another identity turned out to have signed the device.
    let entry = fixture.store.releasable_trust_holds().await.unwrap()[1].entry;
    let identity = HeldIdentity {
        user: "@ann:x".to_owned(),
        master_key: Some("d".to_owned()),
    };
    fixture
        .store
        .hold_for_trust(entry, &identity, NOW)
        .await
        .unwrap();
    assert_eq!(releasable().await, ["$1", "$4"]);
    let others = fixture.store.changed_identities_of("@ann:x").await.unwrap();
    assert_eq!(others, [("c".to_owned(), 1), ("d".to_owned(), 1)]);
    let noted = fixture.store.changed_identities().await.unwrap();
    assert_eq!(noted, [("@ann:x".to_owned(), "d".to_owned())]);
}

#[tokio::test]
async fn p02_what_is_held_waits_without_end_and_is_found_again() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let ann = HeldIdentity {
        user: "@ann:x".to_owned(),
        master_key: None,
    };
    let batch = Batch {
        arrivals: vec![
            undecryptable_arrival(&fixture.room, "$1", NOW.0),
            undecryptable_arrival(&fixture.room, "$2", NOW.0),
            payload(&fixture.room, "$3"),
        ],
        trust_holds: ["$1", "$3"]
            .map(|id| (fixture.room.clone(), RemoteId::from(id), ann.clone()))
            .to_vec(),
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    let held = || fixture.store.trust_holds();
    assert_eq!(held().await.unwrap(), [("@ann:x".to_owned(), 1)]);
    // Only the entry without a trust hold ages.
    let week = Duration::from_hours(7 * 24);
    let overdue = fixture
        .store
        .age_key_waits(week, NOW.plus(week))
        .await
        .unwrap();
    let waited: Vec<_> = overdue.iter().map(|one| one.waited).collect();
    assert_eq!(waited, [Duration::ZERO, week]);

    let second = overdue[1].entry;
    fixture
        .store
        .hold_for_trust(second, &ann, NOW)
        .await
        .unwrap();
    fixture
        .store
        .hold_for_trust(second, &ann, NOW)
        .await
        .unwrap();
    assert_eq!(held().await.unwrap(), [("@ann:x".to_owned(), 2)]);
    let waiting = fixture.store.releasable_trust_holds().await.unwrap();
    let raws: Vec<_> = waiting.iter().map(|one| one.raw.as_slice()).collect();
    assert_eq!(raws, [b"$1", b"$2"]);
    for one in &waiting {
        let payload = Payload::Ready(one.raw.clone());
        fixture.store.fill(one.entry, payload, NOW).await.unwrap();
    }
    assert!(held().await.unwrap().is_empty());
    for id in ["$1", "$2", "$3"] {
        let delivery = fixture.deliver(lane, id).await;
        assert_eq!(delivery.payload, id.as_bytes());
    }
}

#[tokio::test]
async fn p02_the_newest_thousand_held_messages_of_a_user_are_kept_and_the_rest_gives_a_notice() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let mut batch = Batch::default();
    for number in 0..1_003 {
        let one = held(&fixture, &format!("${number}"), Some("b"));
        batch.arrivals.extend(one.arrivals);
        batch.trust_holds.extend(one.trust_holds);
    }
    fixture.store.accept(batch, NOW).await.unwrap();
    let holds = fixture.store.trust_holds().await.unwrap();
    assert_eq!(holds, [("@ann:x".to_owned(), 1_000)]);
    let waiting = fixture.store.undecryptable_events(None).await.unwrap();
    assert_eq!(waiting[0].event_id.as_str(), "$3");
    let counters = fixture.counters(lane).await;
    assert_eq!((counters.failed, counters.pending), (3, 1_000));
    // Released entries no longer count towards the limit, so a new one displaces nobody.
    let payload = Payload::Ready(waiting[999].raw.clone());
    let released = fixture.store.fill(waiting[999].entry, payload, NOW);
    released.await.unwrap();
    let one = held(&fixture, "$new", Some("b"));
    fixture.store.accept(one, NOW).await.unwrap();
    assert_eq!(fixture.counters(lane).await.failed, 3);
}
