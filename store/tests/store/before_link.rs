//! Events that were seen while their room was not linked are never relayed, however they are shown later.

use footbridge_store::{
    Accepted, Batch, DecryptedWith, Millis, Payload, PortalSpec, RemoteId, SeenEvent,
};

use crate::support::{Ground, NOW, payload, to_silo};

fn shown(ground: &Ground, id: &str, ciphertext: Option<&str>, index: Option<u32>) -> SeenEvent {
    SeenEvent {
        place: ground.room.clone(),
        event: RemoteId::from(id),
        ciphertext: ciphertext.map(str::to_owned),
        decrypted_with: index.map(|index| DecryptedWith {
            session: "s".to_owned(),
            ratchet_index: index,
            sent_at: Millis(1),
        }),
    }
}

async fn take(ground: &Ground, shown: SeenEvent) -> Accepted {
    let arrival = payload(&ground.room, shown.event.as_str());
    let opened = shown.decrypted_with.clone().into_iter();
    let batch = Batch {
        decrypted_with: opened
            .map(|opened| (ground.room.clone(), shown.event.clone(), opened))
            .collect(),
        arrivals: vec![arrival],
        seen_events: vec![shown],
        ..Batch::default()
    };
    let accepted = ground.store.accept(batch, NOW).await.unwrap();
    accepted.into_iter().next().unwrap()
}

async fn unlink(ground: &Ground) {
    let store = &ground.store;
    store
        .remove_portals(&[ground.a.id], None, |_| None, NOW)
        .await
        .unwrap();
}

async fn link(ground: &Ground) {
    let spec: PortalSpec = ground.a.spec.clone();
    let opened = ground
        .store
        .open_portal(&spec, &ground.room, &ground.a.channel, NOW);
    opened.await.unwrap();
}

#[tokio::test]
async fn p06_what_was_seen_between_two_links_is_known_by_id_ciphertext_and_place() {
    let ground = Ground::with_one_portal().await;
    let new = Accepted::New(vec![to_silo(&ground.a)]);
    unlink(&ground).await;
    for (id, ciphertext, index) in [
        ("$clear", None, None),
        ("$closed", Some("one"), None),
        ("$open", Some("two"), Some(5)),
    ] {
        let accepted = take(&ground, shown(&ground, id, ciphertext, index)).await;
        assert_eq!(accepted, Accepted::NotLinked, "{id}");
    }
    link(&ground).await;
    let ground = ground.restart().await;
    for (id, ciphertext, index) in [
        ("$clear", None, None),
        ("$closed", Some("one"), Some(7)),
        ("$another", Some("one"), Some(7)),
        ("$another", Some("two"), Some(5)),
        ("$older", Some("three"), Some(4)),
        // Decrypted by now, it tells how far the room key was used.
        ("$between", Some("four"), Some(6)),
    ] {
        let accepted = take(&ground, shown(&ground, id, ciphertext, index)).await;
        assert_eq!(accepted, Accepted::Duplicate, "{id} {index:?}");
    }
    let after = shown(&ground, "$after", Some("five"), Some(8));
    assert_eq!(take(&ground, after).await, new);
    let after = shown(&ground, "$after_in_clear", None, None);
    assert_eq!(take(&ground, after).await, new);
    let ids = ["$clear", "$after"].map(RemoteId::from).to_vec();
    let unlinked = ground
        .store
        .events_before_link(&ground.room, ids)
        .await
        .unwrap();
    assert_eq!(
        unlinked.into_iter().collect::<Vec<_>>(),
        [RemoteId::from("$clear")]
    );
}

#[tokio::test]
async fn p06_a_key_that_comes_late_does_not_open_what_was_written_before_the_link() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let arrival = footbridge_store::Arrival {
        payload: Payload::Undecryptable {
            session: "s".to_owned(),
            raw: b"closed".to_vec(),
            key_wait_until: NOW,
        },
        ..payload(&ground.room, "$waits")
    };
    let batch = Batch {
        arrivals: vec![arrival],
        before_link: vec![shown(&ground, "$before", Some("one"), Some(3))],
        seen_events: vec![shown(&ground, "$waits", Some("two"), None)],
        ..Batch::default()
    };
    let accepted = ground.store.accept(batch, NOW).await.unwrap();
    assert_eq!(accepted, [Accepted::New(vec![lane])]);
    let waiting = ground.store.undecryptable_events(Some("s")).await.unwrap();
    let opened = shown(&ground, "$waits", None, Some(2)).decrypted_with;
    let filled = ground.store.fill_decrypted(
        waiting[0].entry,
        Payload::Ready(b"read".to_vec()),
        (opened, None),
        NOW,
    );
    filled.await.unwrap();
    assert_eq!(
        ground.counters(lane).await.skipped,
        [("before-link".to_owned(), 1)]
    );
}

#[tokio::test]
async fn p06_members_do_not_decide_how_much_is_kept_of_the_time_before_a_link() {
    let ground = Ground::with_one_portal().await;
    let before: Vec<_> = (0..4_100)
        .map(|number| shown(&ground, &format!("${number}"), None, None))
        .collect();
    let batch = Batch {
        before_link: before,
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
    let ids = (0..4_100)
        .map(|number| RemoteId(format!("${number}")))
        .collect();
    let kept = ground
        .store
        .events_before_link(&ground.room, ids)
        .await
        .unwrap();
    assert_eq!(kept.len(), 4_000);
    assert!(kept.contains(&RemoteId::from("$4099")) && !kept.contains(&RemoteId::from("$0")));
}

#[tokio::test]
async fn what_was_missed_is_marked_as_late_and_nothing_else_is() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    let batch = Batch {
        arrivals: ["$1", "$late"].map(|id| payload(&ground.room, id)).to_vec(),
        late: vec![(ground.room.clone(), RemoteId::from("$late"))],
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
    let marks = [
        ground.deliver(lane, "copy 1").await.late,
        ground.deliver(lane, "copy 2").await.late,
    ];
    assert_eq!(marks, [false, true]);
}

#[tokio::test]
async fn p06_no_number_of_new_showings_pushes_out_what_is_kept_of_the_time_before_a_link() {
    let ground = Ground::with_one_portal().await;
    let batch = Batch {
        before_link: vec![
            shown(&ground, "$first", Some("one"), None),
            shown(&ground, "$second", Some("two"), None),
        ],
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
    let again: Vec<_> = (0..4_100)
        .map(|number| shown(&ground, &format!("$x{number}"), Some("two"), None))
        .collect();
    let arrivals = again
        .iter()
        .map(|shown| payload(&ground.room, shown.event.as_str()));
    let batch = Batch {
        arrivals: arrivals.collect(),
        seen_events: again,
        ..Batch::default()
    };
    let accepted = ground.store.accept(batch, NOW).await.unwrap();
    assert!(accepted.iter().all(|one| *one == Accepted::Duplicate));
    let first = take(&ground, shown(&ground, "$new", Some("one"), Some(7))).await;
    assert_eq!(first, Accepted::Duplicate);
}

#[tokio::test]
async fn a_question_whose_key_comes_late_is_asked_where_nothing_is_joined_and_stays_there() {
    for asked in [true, false] {
        let ground = Ground::with_one_portal().await;
        unlink(&ground).await;
        ground
            .store
            .open_management_room(&ground.room, None, NOW)
            .await
            .unwrap();
        let batch = Batch {
            arrivals: vec![crate::support::sealed_letter(&ground.room, "$waits", NOW.0)],
            seen_events: vec![shown(&ground, "$waits", Some("one"), None)],
            ..Batch::default()
        };
        let accepted = ground.store.accept(batch, NOW).await.unwrap();
        assert_eq!(accepted, [Accepted::New(Vec::new())]);
        // A later message is decrypted first.
        let later = take(&ground, shown(&ground, "$later", Some("two"), Some(5))).await;
        assert_eq!(later, Accepted::NotLinked);
        if !asked {
            link(&ground).await;
        }
        let waiting = ground.store.undecryptable_events(None).await.unwrap();
        let opened = shown(&ground, "$waits", None, Some(4)).decrypted_with;
        let payload = if asked {
            Payload::Command(b"help".to_vec())
        } else {
            Payload::Ready(b"said".to_vec())
        };
        let filled = ground
            .store
            .fill_decrypted(waiting[0].entry, payload, (opened, None), NOW);
        assert_eq!(filled.await.unwrap().lanes, []);
        let commands = ground.store.commands().await.unwrap();
        let letters: Vec<_> = commands.iter().map(|one| one.payload.as_slice()).collect();
        assert_eq!(
            letters,
            if asked {
                vec![b"help".as_slice()]
            } else {
                vec![]
            }
        );
        // Its text is relayed under no other id.
        let again = take(&ground, shown(&ground, "$again", Some("one"), Some(4))).await;
        assert_eq!(again, Accepted::Duplicate);
    }
}
