//! Arrivals: accepted once, fanned out, held until their room keys arrive; and the cursors saved with them.

use footbridge_store::{
    Accepted, Batch, Cascade, Emptied, Flag, Gap, Millis, Payload, Place, QueueHead, RemoteId,
    SkipRule, Undelivered,
};

use crate::support::{
    Fixture, NOW, arrival, balances, copy, payload, to_matrix, to_silo, undecryptable_arrival,
};

#[tokio::test]
async fn a_message_in_the_room_is_pending_for_every_channel() {
    let fixture = Fixture::new().await;
    let accepted = fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    assert_eq!(
        accepted,
        [Accepted::New(vec![
            to_silo(&fixture.a),
            to_silo(&fixture.b)
        ])]
    );
}

#[tokio::test]
async fn a_message_in_a_channel_reaches_the_room_and_the_other_channel() {
    let fixture = Fixture::new().await;
    let accepted = fixture
        .accept(vec![payload(&fixture.a.channel, "m1")])
        .await;
    assert_eq!(
        accepted,
        [Accepted::New(vec![
            to_matrix(&fixture.a),
            to_silo(&fixture.b)
        ])]
    );
    let to_room = fixture.ready(to_matrix(&fixture.a)).await;
    assert_eq!(
        (to_room.from, to_room.to),
        (fixture.a.channel.clone(), fixture.room.clone())
    );
    let to_b = fixture.ready(to_silo(&fixture.b)).await;
    assert_eq!(
        (to_b.from, to_b.to),
        (fixture.a.channel.clone(), fixture.b.channel.clone())
    );
    assert_eq!(fixture.counters(to_matrix(&fixture.b)).await.accepted, 0);
}

#[tokio::test]
async fn a_fact_and_an_echo_of_our_copy_are_seen_and_owe_nothing() {
    let fixture = Fixture::with_one_portal().await;
    let twice = vec![payload(&fixture.room, "$1"), payload(&fixture.room, "$1")];
    let accepted = fixture.accept(twice).await;
    assert_eq!(accepted[1], Accepted::Duplicate);
    fixture.deliver(to_silo(&fixture.a), "g1").await;
    let fixture = fixture.restart().await;
    let again = vec![
        payload(&fixture.room, "$1"),
        payload(&fixture.a.channel, "g1"),
    ];
    assert_eq!(
        fixture.accept(again).await,
        [Accepted::Duplicate, Accepted::Duplicate]
    );
    let counters = fixture.store.lane_counters().await.unwrap();
    assert!(counters.iter().all(|lane| lane.pending == 0));
}

#[tokio::test]
async fn a_place_without_a_portal_is_unlinked_but_progress_is_kept() {
    let fixture = Fixture::new().await;
    let nowhere = Place::room("!nowhere");
    let gap = Gap {
        place: nowhere.clone(),
        from: "t9".to_owned(),
        stop: Some(RemoteId::from("$0")),
    };
    let batch = Batch {
        arrivals: vec![payload(&nowhere, "$1")],
        cursors: vec![("sync".to_owned(), "s1".to_owned())],
        gaps: vec![gap.clone()],
        flags: vec![(nowhere.clone(), Flag::EverEncrypted)],
        ..Batch::default()
    };
    assert_eq!(
        fixture.store.accept(batch, NOW).await.unwrap(),
        [Accepted::NotLinked]
    );
    let fixture = fixture.restart().await;
    assert_eq!(
        fixture.store.cursor("sync").await.unwrap().as_deref(),
        Some("s1")
    );
    assert_eq!(fixture.store.cursor("other").await.unwrap(), None);
    assert_eq!(fixture.store.gaps(Place::MATRIX).await.unwrap(), [gap]);
    assert!(fixture.store.gaps("gitter").await.unwrap().is_empty());
    assert!(
        fixture
            .store
            .flag(&nowhere, Flag::EverEncrypted)
            .await
            .unwrap()
    );
    assert!(
        !fixture
            .store
            .flag(&fixture.room, Flag::EverEncrypted)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_gap_that_moved_keeps_its_stop_and_is_not_filled_by_the_old_answer() {
    let fixture = Fixture::new().await;
    let gap = |from: &str, stop: &str| Gap {
        place: fixture.room.clone(),
        from: from.to_owned(),
        stop: Some(RemoteId::from(stop)),
    };
    let open = |gap: Gap| Batch {
        gaps: vec![gap],
        ..Batch::default()
    };
    let fill = |gap: Gap| Batch {
        filled: vec![gap],
        ..Batch::default()
    };
    fixture
        .store
        .accept(open(gap("t1", "$0")), NOW)
        .await
        .unwrap();
    fixture
        .store
        .accept(open(gap("t2", "$5")), NOW)
        .await
        .unwrap();
    fixture
        .store
        .accept(fill(gap("t1", "$0")), NOW)
        .await
        .unwrap();
    assert_eq!(
        fixture.store.gaps(Place::MATRIX).await.unwrap(),
        [gap("t2", "$0")]
    );
    fixture
        .store
        .accept(fill(gap("t2", "$0")), NOW)
        .await
        .unwrap();
    assert!(fixture.store.gaps(Place::MATRIX).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_skipped_arrival_is_counted_and_known_but_creates_no_delivery() {
    let fixture = Fixture::new().await;
    let skipped = arrival(&fixture.room, "$1", Payload::Skipped(SkipRule::BeforeLink));
    assert_eq!(
        fixture.accept(vec![skipped.clone()]).await,
        [Accepted::New(vec![])]
    );
    assert_eq!(fixture.accept(vec![skipped]).await, [Accepted::Duplicate]);
    for lane in [to_silo(&fixture.a), to_silo(&fixture.b)] {
        let counters = fixture.counters(lane).await;
        assert_eq!(counters.skipped, [(SkipRule::BeforeLink, 1)]);
        assert_eq!((counters.accepted, counters.pending), (1, 0));
    }
    assert!(
        fixture
            .store
            .is_linked(&fixture.room, &RemoteId::from("$1"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_lane_holds_at_a_missing_key_and_then_lets_others_pass() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let until = NOW.0 + 5_000;
    let arrivals = vec![
        undecryptable_arrival(&fixture.room, "$1", until),
        payload(&fixture.room, "$2"),
    ];
    fixture.accept(arrivals).await;
    assert_eq!(
        fixture.store.queue_head(lane, NOW).await.unwrap(),
        QueueHead::NotBefore(Millis(until))
    );
    let QueueHead::Ready(second) = fixture.store.queue_head(lane, Millis(until)).await.unwrap()
    else {
        panic!("the second should pass");
    };
    assert_eq!(
        (second.payload.as_slice(), second.late),
        (b"$2".as_slice(), false)
    );
    fixture
        .store
        .complete_step(second.id, Some(&copy("g2")), None, true, NOW)
        .await
        .unwrap();
    assert_eq!(
        fixture.store.queue_head(lane, Millis(until)).await.unwrap(),
        QueueHead::Empty
    );
    let counters = fixture.counters(lane).await;
    assert_eq!((counters.pending, counters.waiting), (1, 1));

    let waiting = fixture
        .store
        .undecryptable_events(Some("session of $1"))
        .await
        .unwrap();
    assert_eq!(waiting[0].raw, b"$1");
    assert!(
        fixture
            .store
            .undecryptable_events(Some("another"))
            .await
            .unwrap()
            .is_empty()
    );
    let filled = Payload::Ready(b"opened".to_vec());
    let woken = fixture
        .store
        .fill(waiting[0].entry, filled, Millis(until))
        .await
        .unwrap();
    assert_eq!(woken, [lane]);
    let opened = fixture.ready(lane).await;
    assert_eq!(
        (opened.payload.as_slice(), opened.late),
        (b"opened".as_slice(), true)
    );
    assert!(
        fixture
            .store
            .undecryptable_events(None)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_key_that_comes_in_time_keeps_the_order_and_is_not_late() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let arrivals = vec![
        undecryptable_arrival(&fixture.room, "$1", NOW.0 + 5_000),
        payload(&fixture.room, "$2"),
    ];
    fixture.accept(arrivals).await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    fixture
        .store
        .fill(entry, Payload::Ready(b"opened".to_vec()), NOW)
        .await
        .unwrap();
    let again = fixture
        .store
        .fill(entry, Payload::Ready(b"twice".to_vec()), NOW)
        .await
        .unwrap();
    assert!(
        again.is_empty(),
        "an entry that does not wait is not filled"
    );
    let first = fixture.deliver(lane, "g1").await;
    assert_eq!(
        (first.payload.as_slice(), first.late),
        (b"opened".as_slice(), false)
    );
    assert_eq!(fixture.deliver(lane, "g2").await.payload, b"$2");
}

#[tokio::test]
async fn a_filled_entry_may_turn_out_to_be_skipped() {
    let fixture = Fixture::new().await;
    fixture
        .accept(vec![undecryptable_arrival(&fixture.room, "$1", NOW.0)])
        .await;
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    let woken = fixture
        .store
        .fill(entry, Payload::Skipped(SkipRule::UntrustedDevice), NOW)
        .await
        .unwrap();
    assert_eq!(woken, [to_silo(&fixture.a), to_silo(&fixture.b)]);
    let counters = fixture.counters(to_silo(&fixture.b)).await;
    assert_eq!(counters.skipped, [(SkipRule::UntrustedDevice, 1)]);
    assert!(balances(&counters) && counters.pending == 0);
}

#[tokio::test]
async fn a_deleted_copy_is_no_copy_but_its_echo_is_still_the_bridges() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "g1").await;
    let mut deletion = payload(&fixture.room, "$2");
    deletion.message = None;
    fixture.accept(vec![deletion]).await;
    let gone = RemoteId::from("g1");
    let delivery = fixture.ready(lane).await;
    fixture
        .store
        .complete_step(delivery.id, None, Some(&gone), true, NOW)
        .await
        .unwrap();
    let from = RemoteId::from("$1");
    let copies = fixture
        .store
        .copies(&fixture.room, &from, &fixture.a.channel)
        .await
        .unwrap();
    assert!(copies.copies.is_empty());
    let echo = vec![payload(&fixture.a.channel, "g1")];
    assert_eq!(fixture.accept(echo).await, [Accepted::Duplicate]);
}

#[tokio::test]
async fn an_emptied_copy_is_no_copy_but_answers_to_it_belong_there() {
    let fixture = Fixture::with_one_portal().await;
    let (lane, channel) = (to_silo(&fixture.a), fixture.a.channel.clone());
    let store = &fixture.store;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "g1").await;
    let mut deletion = payload(&fixture.room, "$2");
    deletion.message = None;
    fixture.accept(vec![deletion]).await;
    let copy = RemoteId::from("g1");
    let delivery = fixture.ready(lane).await;
    let emptied = store.complete_emptied_step(delivery.id, &copy, Emptied::Deleted, true);
    emptied.await.unwrap();
    let from = RemoteId::from("$1");
    let copies = store.copies(&fixture.room, &from, &channel).await.unwrap();
    assert!(copies.copies.is_empty());
    let entry = copies.entry.unwrap();
    let emptied = store.emptied_copies(entry, &channel).await.unwrap();
    assert_eq!(emptied[0].remote, copy);
    // The copy still exists there, so a deletion of it there counts.
    let linked = store.find_message(&channel, &copy).await.unwrap();
    assert!(!linked.unwrap().deleted);
    store.mark_copy_deleted(&channel, &copy).await.unwrap();
    assert!(
        store
            .emptied_copies(entry, &channel)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_file_that_an_edit_could_not_remove_is_no_copy_and_is_deleted_with_the_message() {
    let fixture = Fixture::with_one_portal().await;
    let (lane, channel) = (to_silo(&fixture.a), fixture.a.channel.clone());
    let store = &fixture.store;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "g1").await;
    let mut edit = payload(&fixture.room, "$2");
    edit.message = None;
    fixture.accept(vec![edit]).await;
    let copy = RemoteId::from("g1");
    let delivery = fixture.ready(lane).await;
    let emptied = store.complete_emptied_step(delivery.id, &copy, Emptied::Leftover, true);
    emptied.await.unwrap();
    let from = RemoteId::from("$1");
    let known = async || store.copies(&fixture.room, &from, &channel).await.unwrap();
    assert_eq!(
        (known().await.copies, known().await.leftovers),
        (vec![], vec![copy.clone()])
    );
    store.mark_copy_deleted(&channel, &copy).await.unwrap();
    assert!(known().await.leftovers.is_empty());
}

#[tokio::test]
async fn a_cascade_of_deletions_counts_as_the_bridges_only_while_it_deletes_the_root() {
    let fixture = Fixture::with_one_portal().await;
    let (lane, channel) = (to_silo(&fixture.a), fixture.a.channel.clone());
    let store = &fixture.store;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(lane, "g1").await;
    let goes = async |remote: &str, at: i64| {
        let (root, remote) = (RemoteId::from("g1"), RemoteId::from(remote));
        let goes = store.is_cascade_deleted(&channel, &root, &remote, Millis(at));
        goes.await.unwrap()
    };
    let along = |others: &[&str]| Cascade {
        root: RemoteId::from("g1"),
        others: others.iter().map(|other| RemoteId::from(*other)).collect(),
        until: Millis(5),
    };
    let mut deletions = ["$2", "$3", "$4"].map(|id| payload(&fixture.room, id));
    for deletion in &mut deletions {
        deletion.message = None;
    }
    fixture.accept(deletions.to_vec()).await;
    // The other side refused the deletion.
    let delivery = fixture.ready(lane).await;
    let noted = store.note_cascade(delivery.id, &channel, along(&["a", "b"]));
    noted.await.unwrap();
    assert!(goes("g1", 1).await && goes("a", 2).await && goes("b", 3).await);
    assert!(!goes("c", 4).await, "it was deleted before");
    assert!(goes("d", 6).await, "it was written after that");
    store.forget_cascade(delivery.id).await.unwrap();
    assert!(!goes("g1", 1).await && !goes("a", 2).await && !goes("d", 6).await);
    // The deletion failed for good.
    let noted = store.note_cascade(delivery.id, &channel, along(&["a"]));
    noted.await.unwrap();
    let skipped = Undelivered::Skipped(SkipRule::NothingToDo);
    let ended = store.end_undelivered(delivery.id, skipped, NOW);
    ended.await.unwrap();
    assert!(!goes("a", 2).await);
    // A second attempt deletes what exists at that time.
    let delivery = fixture.ready(lane).await;
    for others in [&["a", "b"][..], &["b"]] {
        let noted = store.note_cascade(delivery.id, &channel, along(others));
        noted.await.unwrap();
    }
    assert!(!goes("a", 2).await && goes("b", 3).await);
    let gone = RemoteId::from("g1");
    let done = store.complete_step(delivery.id, None, Some(&gone), true, NOW);
    done.await.unwrap();
    assert!(goes("b", 3).await && !goes("a", 2).await);
    // Emptying a copy has deleted nothing else.
    let delivery = fixture.ready(lane).await;
    let noted = store.note_cascade(delivery.id, &channel, along(&["b"]));
    noted.await.unwrap();
    let emptied = store.complete_emptied_step(delivery.id, &gone, Emptied::Deleted, true);
    emptied.await.unwrap();
    assert!(!goes("b", 3).await);
}

#[tokio::test]
async fn a_removed_portal_accepts_nothing_until_it_is_opened_again() {
    let fixture = Fixture::new().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture
        .store
        .deactivate_unlisted_portals(&[fixture.b.id], NOW)
        .await
        .unwrap();
    let counters = fixture.counters(to_silo(&fixture.a)).await;
    assert_eq!(counters.skipped, [(SkipRule::PortalRemoved, 1)]);
    assert_eq!(fixture.counters(to_silo(&fixture.b)).await.pending, 1);
    let accepted = fixture
        .accept(vec![
            payload(&fixture.a.channel, "m1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    assert_eq!(
        accepted,
        [
            Accepted::NotLinked,
            Accepted::New(vec![to_silo(&fixture.b)])
        ]
    );
    let again = crate::support::portal(&fixture.store, &fixture.room, "a").await;
    assert_eq!(again, fixture.a, "the same row, active again");
    assert_eq!(
        fixture.store.portals().await.unwrap(),
        [again, fixture.b.clone()]
    );
}

#[tokio::test]
async fn the_writer_of_a_message_and_what_is_known_since_linking_are_remembered() {
    let fixture = Fixture::new().await;
    let (room, id) = (fixture.room.clone(), RemoteId::from("$written"));
    let batch = Batch {
        arrivals: vec![payload(&room, "$written")],
        authors: vec![(room.clone(), id.clone(), "@ann:x".to_owned())],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    let wrote = async |user| fixture.store.is_author(&room, &id, user).await.unwrap();
    assert_eq!(wrote("@ann:x").await, Some(true));
    assert_eq!(wrote("@bob:x").await, Some(false));
    let other = RemoteId::from("$other");
    let asked = fixture
        .store
        .is_author(&room, &other, "@ann:x")
        .await
        .unwrap();
    assert_eq!(asked, None);
    let known = fixture
        .store
        .known_events(&room, vec![id.clone(), other])
        .await;
    assert_eq!(known.unwrap().into_iter().collect::<Vec<_>>(), [id]);
}

#[tokio::test]
async fn c20_a_second_showing_under_another_name_changes_no_writer() {
    let fixture = Fixture::new().await;
    let lane = to_silo(&fixture.a);
    let (room, id) = (fixture.room.clone(), RemoteId::from("$written"));
    let shown = async |place: &Place, event_id: &str, user: &str| {
        let batch = Batch {
            arrivals: vec![payload(place, event_id)],
            authors: vec![(place.clone(), event_id.into(), user.to_owned())],
            ..Batch::default()
        };
        fixture.store.accept(batch, NOW).await.unwrap()
    };
    let first = shown(&room, "$written", "@ann:x").await;
    assert!(matches!(first[..], [Accepted::New(_)]));
    let again = shown(&room, "$written", "@bob:x").await;
    assert_eq!(again, [Accepted::Duplicate]);
    let wrote = async |user| fixture.store.is_author(&room, &id, user).await.unwrap();
    assert_eq!(wrote("@ann:x").await, Some(true));
    assert_eq!(wrote("@bob:x").await, Some(false));
    // Nobody becomes the author of a copy either.
    fixture.deliver(lane, "copy").await;
    let channel = fixture.a.channel.clone();
    assert_eq!(shown(&channel, "copy", "bob").await, [Accepted::Duplicate]);
    let asked = fixture
        .store
        .is_author(&channel, &"copy".into(), "bob")
        .await;
    assert_eq!(asked.unwrap(), None);
}

#[tokio::test]
async fn c20_the_newest_content_of_an_event_is_recognised_and_nothing_older() {
    let fixture = Fixture::new().await;
    let (room, id) = (fixture.room.clone(), RemoteId::from("$ours"));
    let says = async |content| {
        fixture
            .store
            .matches_event_digest(&room, &id, content)
            .await
            .unwrap()
    };
    assert_eq!(says("one").await, None, "no digest is stored");
    fixture
        .store
        .save_event_digest(&room, &id, "one")
        .await
        .unwrap();
    let now = [says("one").await, says("two").await];
    assert_eq!(now, [Some(true), Some(false)]);
    // The edit may have arrived or not.
    let change = fixture
        .store
        .save_next_event_digest(&room, &id, "one", "two");
    change.await.unwrap();
    let now = [says("one").await, says("two").await, says("three").await];
    assert_eq!(now, [Some(true), Some(true), Some(false)]);
    let change = fixture
        .store
        .save_next_event_digest(&room, &id, "two", "three");
    change.await.unwrap();
    let now = [says("one").await, says("two").await, says("three").await];
    assert_eq!(now, [Some(false), Some(true), Some(true)]);
    let elsewhere = fixture
        .store
        .matches_event_digest(&fixture.a.channel, &id, "three")
        .await;
    assert_eq!(elsewhere.unwrap(), None);
}

/// C28: other people choose the ids.
#[tokio::test]
async fn c28_an_id_is_never_part_of_a_statement() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    for (number, id) in [
        "'; DROP TABLE link; --",
        "\" OR 1=1 --",
        "$1' UNION SELECT payload FROM journal --",
        "?1",
        "%",
        "_",
        "\0",
        "x' AND '1'='1",
    ]
    .into_iter()
    .enumerate()
    {
        fixture.accept(vec![payload(&fixture.room, id)]).await;
        let copy = format!("m{number}{id}");
        fixture.deliver(lane, &copy).await;
        let found = fixture
            .store
            .copies(&fixture.room, &id.into(), &fixture.a.channel)
            .await
            .unwrap();
        let copies: Vec<&str> = found
            .copies
            .iter()
            .map(|copy| copy.remote.as_str())
            .collect();
        assert_eq!(copies, [copy.as_str()], "{id:?}");
        let back = fixture
            .store
            .is_linked(&fixture.a.channel, &copy.as_str().into())
            .await;
        assert!(back.unwrap());
        let unknown = RemoteId(format!("{id}x"));
        let known = fixture.store.is_linked(&fixture.room, &unknown).await;
        assert!(!known.unwrap(), "{id:?}");
    }
    let tallies = fixture.store.lane_counters().await.unwrap();
    assert!(tallies.iter().all(balances));
}
