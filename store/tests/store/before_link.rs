//! Events that were seen while their room was not linked are never relayed, however the homeserver shows them later.

use footbridge_store::{
    Accepted, Batch, DecryptedWith, Millis, Payload, PortalSpec, RemoteId, SeenEvent, SkipRule,
};

use crate::support::{Fixture, NOW, payload, to_silo};

fn shown(fixture: &Fixture, id: &str, ciphertext: Option<&str>, index: Option<u32>) -> SeenEvent {
    SeenEvent {
        place: fixture.room.clone(),
        event: RemoteId::from(id),
        ciphertext: ciphertext.map(str::to_owned),
        decrypted_with: index.map(|index| DecryptedWith {
            session: "s".to_owned(),
            ratchet_index: index,
            sent_at: Millis(1),
        }),
    }
}

async fn take(fixture: &Fixture, shown: SeenEvent) -> Accepted {
    let arrival = payload(&fixture.room, shown.event.as_str());
    let opened = shown.decrypted_with.clone().into_iter();
    let batch = Batch {
        decrypted_with: opened
            .map(|opened| (fixture.room.clone(), shown.event.clone(), opened))
            .collect(),
        arrivals: vec![arrival],
        seen_events: vec![shown],
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, NOW).await.unwrap();
    accepted.into_iter().next().unwrap()
}

async fn unlink(fixture: &Fixture) {
    let store = &fixture.store;
    store
        .remove_portals(&[fixture.a.id], None, |_| None, NOW)
        .await
        .unwrap();
}

async fn link(fixture: &Fixture) {
    let spec: PortalSpec = fixture.a.spec.clone();
    let opened = fixture
        .store
        .open_portal(&spec, &fixture.room, &fixture.a.channel, NOW);
    opened.await.unwrap();
}

#[tokio::test]
async fn p06_what_was_seen_between_two_links_is_known_by_id_ciphertext_and_place() {
    let fixture = Fixture::with_one_portal().await;
    let new = Accepted::New(vec![to_silo(&fixture.a)]);
    unlink(&fixture).await;
    for (id, ciphertext, index) in [
        ("$clear", None, None),
        ("$closed", Some("one"), None),
        ("$open", Some("two"), Some(5)),
    ] {
        let accepted = take(&fixture, shown(&fixture, id, ciphertext, index)).await;
        assert_eq!(accepted, Accepted::NotLinked, "{id}");
    }
    link(&fixture).await;
    let fixture = fixture.restart().await;
    for (id, ciphertext, index) in [
        ("$clear", None, None),
        ("$closed", Some("one"), Some(7)),
        ("$another", Some("one"), Some(7)),
        ("$another", Some("two"), Some(5)),
        ("$older", Some("three"), Some(4)),
        // This event was decrypted at that time, so it shows how far the room key was used.
        ("$between", Some("four"), Some(6)),
    ] {
        let accepted = take(&fixture, shown(&fixture, id, ciphertext, index)).await;
        assert_eq!(accepted, Accepted::Duplicate, "{id} {index:?}");
    }
    let after = shown(&fixture, "$after", Some("five"), Some(8));
    assert_eq!(take(&fixture, after).await, new);
    let after = shown(&fixture, "$after_in_clear", None, None);
    assert_eq!(take(&fixture, after).await, new);
    let ids = ["$clear", "$after"].map(RemoteId::from).to_vec();
    let unlinked = fixture
        .store
        .events_before_link(&fixture.room, ids)
        .await
        .unwrap();
    assert_eq!(
        unlinked.into_iter().collect::<Vec<_>>(),
        [RemoteId::from("$clear")]
    );
}

#[tokio::test]
async fn p06_a_key_that_comes_late_does_not_open_what_was_written_before_the_link() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let arrival = footbridge_store::Arrival {
        payload: Payload::Undecryptable {
            session: "s".to_owned(),
            raw: b"closed".to_vec(),
            key_wait_until: NOW,
        },
        ..payload(&fixture.room, "$waits")
    };
    let batch = Batch {
        arrivals: vec![arrival],
        before_link: vec![shown(&fixture, "$before", Some("one"), Some(3))],
        seen_events: vec![shown(&fixture, "$waits", Some("two"), None)],
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, NOW).await.unwrap();
    assert_eq!(accepted, [Accepted::New(vec![lane])]);
    let waiting = fixture.store.undecryptable_events(Some("s")).await.unwrap();
    let opened = shown(&fixture, "$waits", None, Some(2)).decrypted_with;
    let filled = fixture.store.fill_decrypted(
        waiting[0].entry,
        Payload::Ready(b"read".to_vec()),
        opened,
        None,
        NOW,
    );
    filled.await.unwrap();
    assert_eq!(
        fixture.counters(lane).await.skipped,
        [(SkipRule::BeforeLink, 1)]
    );
}

#[tokio::test]
async fn p06_members_do_not_decide_how_much_is_kept_of_the_time_before_a_link() {
    let fixture = Fixture::with_one_portal().await;
    let before: Vec<_> = (0..4_100)
        .map(|number| shown(&fixture, &format!("${number}"), None, None))
        .collect();
    let batch = Batch {
        before_link: before,
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    let ids = (0..4_100)
        .map(|number| RemoteId(format!("${number}")))
        .collect();
    let kept = fixture
        .store
        .events_before_link(&fixture.room, ids)
        .await
        .unwrap();
    assert_eq!(kept.len(), 4_000);
    assert!(kept.contains(&RemoteId::from("$4099")) && !kept.contains(&RemoteId::from("$0")));
}

#[tokio::test]
async fn what_was_missed_is_marked_as_late_and_nothing_else_is() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let batch = Batch {
        arrivals: ["$1", "$late"]
            .map(|id| payload(&fixture.room, id))
            .to_vec(),
        late: vec![(fixture.room.clone(), RemoteId::from("$late"))],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    let marks = [
        fixture.deliver(lane, "copy 1").await.late,
        fixture.deliver(lane, "copy 2").await.late,
    ];
    assert_eq!(marks, [false, true]);
}

#[tokio::test]
async fn p06_no_number_of_new_showings_pushes_out_what_is_kept_of_the_time_before_a_link() {
    let fixture = Fixture::with_one_portal().await;
    let batch = Batch {
        before_link: vec![
            shown(&fixture, "$first", Some("one"), None),
            shown(&fixture, "$second", Some("two"), None),
        ],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    let again: Vec<_> = (0..4_100)
        .map(|number| shown(&fixture, &format!("$x{number}"), Some("two"), None))
        .collect();
    let arrivals = again
        .iter()
        .map(|shown| payload(&fixture.room, shown.event.as_str()));
    let batch = Batch {
        arrivals: arrivals.collect(),
        seen_events: again,
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, NOW).await.unwrap();
    assert!(accepted.iter().all(|one| *one == Accepted::Duplicate));
    let first = take(&fixture, shown(&fixture, "$new", Some("one"), Some(7))).await;
    assert_eq!(first, Accepted::Duplicate);
}

#[tokio::test]
async fn a_command_whose_key_comes_late_is_answered_in_an_unlinked_room_and_not_relayed() {
    for asked in [true, false] {
        let fixture = Fixture::with_one_portal().await;
        unlink(&fixture).await;
        fixture
            .store
            .open_management_room(&fixture.room, None, NOW)
            .await
            .unwrap();
        let batch = Batch {
            arrivals: vec![crate::support::undecryptable_arrival(
                &fixture.room,
                "$waits",
                NOW.0,
            )],
            seen_events: vec![shown(&fixture, "$waits", Some("one"), None)],
            ..Batch::default()
        };
        let accepted = fixture.store.accept(batch, NOW).await.unwrap();
        assert_eq!(accepted, [Accepted::New(Vec::new())]);
        // A later message is decrypted first.
        let later = take(&fixture, shown(&fixture, "$later", Some("two"), Some(5))).await;
        assert_eq!(later, Accepted::NotLinked);
        if !asked {
            link(&fixture).await;
        }
        let waiting = fixture.store.undecryptable_events(None).await.unwrap();
        let opened = shown(&fixture, "$waits", None, Some(4)).decrypted_with;
        let payload = if asked {
            Payload::Command(b"help".to_vec())
        } else {
            Payload::Ready(b"said".to_vec())
        };
        let filled = fixture
            .store
            .fill_decrypted(waiting[0].entry, payload, opened, None, NOW);
        assert_eq!(filled.await.unwrap().lanes, []);
        let commands = fixture.store.commands().await.unwrap();
        let payloads: Vec<_> = commands.iter().map(|one| one.payload.as_slice()).collect();
        assert_eq!(
            payloads,
            if asked {
                vec![b"help".as_slice()]
            } else {
                vec![]
            }
        );
        // The same ciphertext is relayed under no other event id.
        let again = take(&fixture, shown(&fixture, "$again", Some("one"), Some(4))).await;
        assert_eq!(again, Accepted::Duplicate);
    }
}
