//! Holds of portals, how they end, and opt-outs.

use footbridge_store::{
    Accepted, Batch, Consent, Flag, Gap, LaneId, Millis, Place, PortalHold, PortalRequest,
    PortalSource, PortalSpec, QueueHead, RemoteId, Scope, SkipRule, Tombstone, UndecryptableNotice,
};

use crate::support::{Fixture, NOW, balances, payload, to_matrix, to_silo, undecryptable_arrival};

fn consent(effective_at: Millis) -> Consent {
    Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at,
    }
}

/// Sets the flag that a room is encrypted.
async fn encrypt(fixture: &Fixture, room: &Place) {
    let batch = Batch {
        flags: vec![(room.clone(), Flag::EverEncrypted)],
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
}

#[tokio::test]
async fn p15_a_room_encrypted_after_it_was_linked_holds_both_lanes_until_consent_and_its_delay() {
    let fixture = Fixture::with_one_portal().await;
    let (there, here) = (to_silo(&fixture.a), to_matrix(&fixture.a));
    // Where the room was encrypted from the start, the configuration is the operator's consent.
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    encrypt(&fixture, &fixture.room).await;
    assert!(fixture.store.lacking_consent().await.unwrap().is_empty());
    fixture.deliver(there, "m1").await;
    // Where the room was seen unencrypted before, the configuration is not a consent.
    fixture
        .store
        .note_unencrypted_room(&fixture.room)
        .await
        .unwrap();
    assert!(
        fixture
            .store
            .may_not_relay_into(&fixture.room)
            .await
            .unwrap()
    );
    fixture.accept(vec![payload(&fixture.room, "$2")]).await;
    fixture
        .accept(vec![payload(&fixture.a.channel, "m2")])
        .await;
    let fixture = fixture.restart().await;
    for lane in [there, here] {
        assert_eq!(
            fixture.store.queue_head(lane, NOW).await.unwrap(),
            QueueHead::Empty
        );
    }
    let holds = fixture.store.portal_holds(NOW).await.unwrap();
    assert_eq!(holds, [(fixture.a.id, PortalHold::Consent)]);
    // Notices of the bridge are still delivered.
    let event_id = RemoteId::from("asked");
    let said = fixture
        .store
        .send_notice(&fixture.room, &event_id, b"agree?", NOW);
    assert_eq!(said.await.unwrap(), Some(here));
    assert_eq!(fixture.deliver(here, "$asked").await.payload, b"agree?");

    let until = Millis(NOW.0 + 60_000);
    let (kept, _) = fixture
        .store
        .record_consent(fixture.a.id, consent(until), NOW)
        .await
        .unwrap();
    assert_eq!(kept.effective_at, until);
    // A second consent does not start the delay again.
    let later = consent(Millis(until.0 + 5));
    let (kept, _) = fixture
        .store
        .record_consent(fixture.a.id, later, NOW)
        .await
        .unwrap();
    assert_eq!(kept.effective_at, until);
    let held = fixture.store.queue_head(there, NOW).await.unwrap();
    assert_eq!(held, QueueHead::NotBefore(until));
    for lane in [there, here] {
        let head = fixture.store.queue_head(lane, until).await.unwrap();
        assert!(matches!(head, QueueHead::Ready(_)), "{head:?}");
    }
}

#[tokio::test]
async fn p15_messages_between_a_consent_and_the_end_of_its_delay_are_not_relayed() {
    let fixture = Fixture::with_one_portal().await;
    let second = crate::support::portal(&fixture.store, &Place::room("!second"), "a").await;
    let (there, here) = (to_silo(&fixture.a), to_matrix(&fixture.a));
    let beyond = to_matrix(&second);
    fixture
        .store
        .note_unencrypted_room(&fixture.room)
        .await
        .unwrap();
    encrypt(&fixture, &fixture.room).await;
    fixture
        .accept(vec![payload(&fixture.room, "$waited")])
        .await;
    let until = Millis(NOW.0 + 60_000);
    let store = &fixture.store;
    let agreed = store.record_consent(fixture.a.id, consent(until), NOW);
    agreed.await.unwrap();
    let waiting = fixture.store.waiting_to_leave(fixture.a.id).await.unwrap();
    assert_eq!(waiting, 1);

    let early = [
        payload(&fixture.room, "$early"),
        undecryptable_arrival(&fixture.room, "$late-key", until.0 + 5),
    ];
    let accepted = fixture.accept(early.to_vec()).await;
    assert_eq!(accepted, [Accepted::New(vec![]), Accepted::New(vec![])]);
    fixture
        .accept(vec![payload(&fixture.a.channel, "m1")])
        .await;
    let fixture = fixture.restart().await;
    // The clock alone activates nothing: the bridge may have been away, and the events that it receives now were sent at
    // any time. Neither do events that arrive while the room has a gap.
    let later = Batch {
        arrivals: vec![payload(&fixture.room, "$heard-late")],
        gaps: vec![Gap {
            place: fixture.room.clone(),
            from: "t".to_owned(),
            stop: None,
        }],
        ..Batch::default()
    };
    let after = Millis(until.0 + 10);
    fixture.store.activate_consents(NOW).await.unwrap();
    fixture.store.accept(later.clone(), after).await.unwrap();
    fixture.store.activate_consents(after).await.unwrap();
    assert!(matches!(
        fixture.store.portal_holds(after).await.unwrap()[..],
        [(_, PortalHold::Delay { .. })]
    ));
    let fetched = Batch {
        arrivals: vec![payload(&fixture.room, "$fetched")],
        filled: later.gaps,
        ..Batch::default()
    };
    fixture.store.accept(fetched, after).await.unwrap();
    fixture.store.activate_consents(after).await.unwrap();
    assert_eq!(fixture.store.portal_holds(after).await.unwrap(), []);
    assert_eq!(fixture.store.next_consent_at(NOW).await.unwrap(), None);
    let in_time = Batch {
        arrivals: vec![payload(&fixture.room, "$in-time")],
        ..Batch::default()
    };
    // The time of the clock does not matter here.
    fixture.store.accept(in_time, Millis(1)).await.unwrap();

    late_key(&fixture, after).await;
    for lane in [there, beyond] {
        let mut said = vec![&b"$waited"[..], b"m1", b"$in-time"];
        said.retain(|said| lane == beyond || *said != b"m1");
        deliver_at(&fixture, lane, &said, after).await;
        let counters = fixture.counters(lane).await;
        assert!(balances(&counters));
        assert_eq!(counters.skipped, [(SkipRule::BeforeConsent, 4)]);
    }
    deliver_at(&fixture, here, &[b"m1"], after).await;
    let kept: i64 = fixture
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, 0);
}

/// A room key that arrives late changes nothing and leaves nothing in the store.
async fn late_key(fixture: &Fixture, now: Millis) {
    let waits = fixture.store.undecryptable_events(None).await.unwrap();
    let payload = footbridge_store::Payload::Ready(b"late".to_vec());
    let lanes = fixture.store.fill(waits[0].entry, payload, now).await;
    assert_eq!(lanes.unwrap(), []);
}

/// The lane delivers exactly these payloads at that time, in this order.
async fn deliver_at(fixture: &Fixture, lane: LaneId, said: &[&[u8]], now: Millis) {
    for said in said {
        let head = fixture.store.queue_head(lane, now).await.unwrap();
        let QueueHead::Ready(delivery) = head else {
            panic!("{lane:?}: {head:?}");
        };
        assert_eq!(delivery.payload, *said);
        let made = crate::support::copy(&format!("{lane:?} {said:?}"));
        let done = fixture
            .store
            .complete_step(delivery.id, Some(&made), None, true, now);
        done.await.unwrap();
    }
    assert_eq!(
        fixture.store.queue_head(lane, now).await.unwrap(),
        QueueHead::Empty
    );
}

#[tokio::test]
async fn p15_messages_that_are_not_relayed_give_no_notice_and_a_command_among_them_counts() {
    let fixture = Fixture::with_one_portal().await;
    fixture
        .store
        .note_unencrypted_room(&fixture.room)
        .await
        .unwrap();
    encrypt(&fixture, &fixture.room).await;
    let until = Millis(NOW.0 + 60_000);
    let agreed = fixture
        .store
        .record_consent(fixture.a.id, consent(until), NOW)
        .await;
    agreed.unwrap();
    fixture
        .accept(vec![
            undecryptable_arrival(&fixture.room, "$1", 0),
            undecryptable_arrival(&fixture.room, "$2", 0),
        ])
        .await;
    let waiting = fixture.store.undecryptable_events(None).await.unwrap();
    let telling = UndecryptableNotice {
        entries: waiting.iter().map(|one| one.entry).collect(),
        place: fixture.room.clone(),
        sender: "@ann:x".to_owned(),
        reason: "no-key".to_owned(),
        merge_within: std::time::Duration::from_hours(1),
        here: true,
        device: None,
    };
    let told = fixture
        .store
        .notify_undecryptable(telling, |_| Some(b"of Ann".to_vec()), NOW)
        .await
        .unwrap();
    assert_eq!(told, []);
    let asked = footbridge_store::Payload::Command(b"!bridge pause".to_vec());
    fixture
        .store
        .fill(waiting[0].entry, asked, NOW)
        .await
        .unwrap();
    let commands = fixture.store.commands().await.unwrap();
    assert_eq!(commands[0].payload, b"!bridge pause");
    assert!(
        fixture
            .store
            .fail_key_wait(waiting[1].entry, NOW)
            .await
            .unwrap()
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
async fn a_paused_portal_keeps_its_queue_and_a_begun_delivery_waits_as_well() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    let active = fixture.ready(lane).await;
    fixture
        .store
        .mark_outcome_unknown(active.id, None, NOW)
        .await
        .unwrap();
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    fixture
        .store
        .pause(fixture.a.id, "@bob:x", Millis(NOW.0 + 9))
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    // The lane reconciles the step; it did not happen, so the delivery waits.
    assert!(!fixture.store.may_send(active.id, 1, NOW).await.unwrap());
    assert_eq!(fixture.ready(lane).await.id, active.id);
    fixture.store.mark_not_attempted(active.id).await.unwrap();
    assert_eq!(
        fixture.store.queue_head(lane, NOW).await.unwrap(),
        QueueHead::Empty
    );
    let since = PortalHold::Paused {
        by: "@ann:x".to_owned(),
        since: NOW,
    };
    assert_eq!(
        fixture.store.portal_holds(NOW).await.unwrap(),
        [(fixture.a.id, since)]
    );
    fixture.store.resume(fixture.a.id).await.unwrap();
    assert_eq!(fixture.ready(lane).await.id, active.id);
    assert_eq!(fixture.counters(lane).await.pending, 2);
}

#[tokio::test]
async fn p18_an_unlinked_portal_erases_its_pending_messages_and_reports_their_number_once() {
    let fixture = Fixture::with_one_portal().await;
    let (there, here) = (to_silo(&fixture.a), to_matrix(&fixture.a));
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    fixture
        .accept(vec![payload(&fixture.a.channel, "m1")])
        .await;
    let event_id = RemoteId::from("notice");
    fixture
        .store
        .send_notice(&fixture.room, &event_id, b"a notice", NOW)
        .await
        .unwrap();
    let told = |dropped: usize| Some(format!("dropped {dropped}").into_bytes());
    let ids = [fixture.a.id];
    let removed = fixture
        .store
        .remove_portals(&ids, None, told, NOW)
        .await
        .unwrap();
    // Three messages are dropped; the notice does not count.
    assert_eq!((removed.portals, removed.dropped), (1, 3));
    for lane in [there, here] {
        let counters = fixture.counters(lane).await;
        assert!(balances(&counters) && counters.pending == 0, "{counters:?}");
        assert!(
            counters
                .skipped
                .iter()
                .any(|(rule, _)| *rule == SkipRule::Unlinked)
        );
    }
    let kept: i64 = fixture
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL AND place <> 'bridge:notice'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, 0);
    // The notice goes to the management room, and only once.
    let said = fixture.ready(removed.lanes[0]).await;
    assert_eq!(said.payload, b"dropped 3");
    assert_eq!(said.to, fixture.room);
    let again = fixture
        .store
        .remove_portals(&ids, None, told, NOW)
        .await
        .unwrap();
    assert_eq!((again.portals, again.dropped), (0, 0));
    // A message in a room that is only a management room is not relayed.
    let accepted = fixture.accept(vec![payload(&fixture.room, "$3")]).await;
    assert_eq!(accepted, [footbridge_store::Accepted::NotLinked]);
    // The configuration does not decide about portals from other sources.
    fixture
        .store
        .deactivate_unlisted_portals(&[], NOW)
        .await
        .unwrap();
    let portals = fixture.store.portals().await.unwrap();
    let open: Vec<_> = portals.iter().filter(|portal| portal.active).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].source, footbridge_store::PortalSource::Management);
    assert!(
        fixture
            .store
            .close_management_room(&fixture.room, NOW)
            .await
            .unwrap()
    );
    assert!(
        !fixture
            .store
            .close_management_room(&fixture.room, NOW)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_person_who_opts_out_is_known_by_a_hash_and_what_waits_is_dropped() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![
            payload(&fixture.room, "$ann 1"),
            payload(&fixture.room, "$bob 1"),
        ])
        .await;
    let is_theirs = |payload: &[u8], user: &str| {
        String::from_utf8_lossy(payload).starts_with(&format!("${user}"))
    };
    let room = fixture.room.clone();
    let dropped = fixture
        .store
        .opt_out(&room, "ann", Scope::Here, is_theirs, NOW)
        .await
        .unwrap();
    assert_eq!(dropped, 1);
    let counters = fixture.counters(lane).await;
    assert!(balances(&counters));
    assert_eq!(counters.skipped, [(SkipRule::OptedOut, 1)]);
    let stays = async |place: &Place, user: &str| {
        let asked = vec![(place.clone(), user.to_owned())];
        fixture.store.opted_out(asked).await.unwrap()[0]
    };
    let other = Place::room("!other");
    assert!(stays(&room, "ann").await && !stays(&other, "ann").await);
    assert!(!stays(&room, "bob").await);
    let everywhere = Scope::Everywhere;
    fixture
        .store
        .opt_out(&room, "bob", everywhere, is_theirs, NOW)
        .await
        .unwrap();
    assert!(stays(&other, "bob").await);
    // The same user id in another network is another person.
    assert!(!stays(&fixture.a.channel, "bob").await);
    assert!(
        !fixture
            .store
            .opt_in(&room, "bob", Scope::Here)
            .await
            .unwrap()
    );
    assert!(
        fixture
            .store
            .opt_in(&room, "bob", everywhere)
            .await
            .unwrap()
    );
    assert!(!stays(&room, "bob").await);
    let names: String = fixture
        .sql()
        .query_row("SELECT group_concat(person_hash) FROM opt_out", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(!names.contains("ann") && names.len() == 32, "{names}");
}

#[tokio::test]
async fn a_key_for_names_is_of_one_purpose_and_of_this_store() {
    let (fixture, other) = (
        Fixture::with_one_portal().await,
        Fixture::with_one_portal().await,
    );
    let key = fixture.store.naming_key("one").await.unwrap();
    assert_eq!(key, fixture.store.naming_key("one").await.unwrap());
    assert_ne!(key, fixture.store.naming_key("two").await.unwrap());
    assert_ne!(key, other.store.naming_key("one").await.unwrap());
}

#[tokio::test]
async fn a_wish_comes_true_once_and_its_code_is_the_same_whenever_it_is_asked_for() {
    let fixture = Fixture::with_one_portal().await;
    let (room, channel) = (Place::room("!new"), Place::new("gitter", "new"));
    let question = RemoteId::from("$question");
    let store = &fixture.store;
    let code_of = async |event: &RemoteId| store.confirmation_code(&room, event).await.unwrap();
    let code = code_of(&question).await;
    assert_eq!(code, code_of(&question).await);
    assert_ne!(code, code_of(&RemoteId::from("$other")).await);
    let request = PortalRequest {
        id: 0,
        spec: PortalSpec {
            room: "!new".to_owned(),
            silo: "gitter".to_owned(),
            channel: "org/new".to_owned(),
        },
        room: room.clone(),
        channel,
        asked_by: "@ann:x".to_owned(),
        asked_in: room.clone(),
        code,
        expires_at: Millis(NOW.0 + 10),
        confirmed_at: None,
    };
    fixture
        .store
        .add_portal_request(request.clone())
        .await
        .unwrap();
    let kept = fixture.store.portal_requests().await.unwrap();
    fixture
        .store
        .confirm_portal_request(kept[0].id, NOW, NOW)
        .await
        .unwrap();
    // After a kill the request is made again: a confirmed one stays confirmed; a new code must be posted again.
    fixture
        .store
        .add_portal_request(request.clone())
        .await
        .unwrap();
    assert_eq!(
        fixture.store.portal_requests().await.unwrap()[0].confirmed_at,
        Some(NOW)
    );
    let other = PortalRequest {
        code: "another".to_owned(),
        ..request
    };
    fixture.store.add_portal_request(other).await.unwrap();
    let kept = fixture.store.portal_requests().await.unwrap();
    assert_eq!((kept.len(), kept[0].confirmed_at), (1, None));
    encrypt(&fixture, &room).await;
    let linking = footbridge_store::ApprovedRequest {
        request: kept[0].id,
        consent: Some(consent(NOW)),
        question: None,
        notice: b"told".to_vec(),
        is_caught_up: false,
    };
    let (portal, _) = fixture
        .store
        .open_requested_portal(linking.clone(), NOW)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(portal.source, PortalSource::Chat);
    assert!(fixture.store.lacking_consent().await.unwrap().is_empty());
    assert!(
        fixture
            .store
            .open_requested_portal(linking, NOW)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(fixture.ready(to_matrix(&portal)).await.payload, b"told");
}

#[tokio::test]
async fn p19_an_upgraded_room_holds_its_portal_until_it_moves_with_its_pending_messages() {
    let fixture = Fixture::with_one_portal().await;
    let (there, here) = (to_silo(&fixture.a), to_matrix(&fixture.a));
    let tombstone = Tombstone {
        room: fixture.room.clone(),
        successor: "!next".to_owned(),
        sender: "@ann:x".to_owned(),
    };
    fixture
        .accept(vec![payload(&fixture.a.channel, "m1")])
        .await;
    for _ in 0..2 {
        let batch = Batch {
            arrivals: vec![payload(&fixture.room, "$1")],
            tombstones: vec![tombstone.clone()],
            ..Batch::default()
        };
        fixture.store.accept(batch, NOW).await.unwrap();
    }
    for lane in [there, here] {
        assert_eq!(
            fixture.store.queue_head(lane, NOW).await.unwrap(),
            QueueHead::Empty
        );
    }
    let upgrades = fixture.store.room_upgrades().await.unwrap();
    assert_eq!(upgrades.len(), 1);
    assert_eq!(upgrades[0].tombstone, tombstone);
    let next = Place::room("!next");
    fixture
        .store
        .follow_room_upgrade(&fixture.room, &next, true, b"moved", NOW)
        .await
        .unwrap();
    assert!(
        fixture
            .store
            .flag(&next, Flag::EverEncrypted)
            .await
            .unwrap()
    );
    let said = fixture.ready(here).await;
    assert_eq!(
        (said.to, said.payload.as_slice()),
        (next, b"moved".as_slice())
    );
    assert_eq!(fixture.ready(there).await.payload, b"$1");
    assert!(fixture.store.room_upgrades().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hold_is_on_the_portal_that_was_paused_and_on_no_other() {
    let fixture = Fixture::new().await;
    let (a, b, store) = (fixture.a.id, fixture.b.id, &fixture.store);
    let held = async |portal| store.is_portal_held(portal, NOW).await.unwrap();
    assert!(!held(a).await);
    store.pause(a, "@ann:x", NOW).await.unwrap();
    assert!(held(a).await && !held(b).await);
    store.resume(a).await.unwrap();
    assert!(!held(a).await);
    // An encrypted room without consent receives no messages of people.
    let closed = async || store.may_not_relay_into(&fixture.room).await.unwrap();
    fixture
        .store
        .note_unencrypted_room(&fixture.room)
        .await
        .unwrap();
    assert!(!closed().await);
    encrypt(&fixture, &fixture.room).await;
    assert!(closed().await);
}
