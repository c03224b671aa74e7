//! Holds of portals, how they end, and opt-outs.

use footbridge_store::{
    Accepted, Batch, Consent, Flag, Gap, LaneId, Millis, Place, PortalHold, PortalRequest,
    PortalSource, PortalSpec, QueueHead, RemoteId, Scope, Tombstone, UndecryptableNotice,
};

use crate::support::{Ground, NOW, balances, payload, sealed_letter, to_matrix, to_silo};

fn consent(effective_at: Millis) -> Consent {
    Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at,
    }
}

/// Sets the flag of an encrypted room.
async fn encrypt(ground: &Ground, room: &Place) {
    let batch = Batch {
        flags: vec![(room.clone(), Flag::EverEncrypted)],
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
}

#[tokio::test]
async fn p15_a_room_encrypted_after_it_was_linked_holds_both_lanes_until_consent_and_its_delay() {
    let ground = Ground::with_one_portal().await;
    let (there, here) = (to_silo(&ground.a), to_matrix(&ground.a));
    // Where the room was encrypted from the start, the configuration is the operator's consent.
    ground.accept(vec![payload(&ground.room, "$1")]).await;
    encrypt(&ground, &ground.room).await;
    assert!(ground.store.lacking_consent().await.unwrap().is_empty());
    ground.deliver(there, "m1").await;
    // Where it was seen unencrypted before, it is not.
    ground
        .store
        .note_unencrypted_room(&ground.room)
        .await
        .unwrap();
    assert!(ground.store.may_not_relay_into(&ground.room).await.unwrap());
    ground.accept(vec![payload(&ground.room, "$2")]).await;
    ground.accept(vec![payload(&ground.a.channel, "m2")]).await;
    let ground = ground.restart().await;
    for lane in [there, here] {
        assert_eq!(
            ground.store.queue_head(lane, NOW).await.unwrap(),
            QueueHead::Empty
        );
    }
    let holds = ground.store.portal_holds(NOW).await.unwrap();
    assert_eq!(holds, [(ground.a.id, PortalHold::Consent)]);
    // Notices of the bridge pass.
    let event_id = RemoteId::from("asked");
    let said = ground
        .store
        .send_notice(&ground.room, &event_id, b"agree?", NOW);
    assert_eq!(said.await.unwrap(), Some(here));
    assert_eq!(ground.deliver(here, "$asked").await.payload, b"agree?");

    let until = Millis(NOW.0 + 60_000);
    let (kept, _) = ground
        .store
        .record_consent(ground.a.id, consent(until), NOW)
        .await
        .unwrap();
    assert_eq!(kept.effective_at, until);
    // A second consent does not start the delay again.
    let later = consent(Millis(until.0 + 5));
    let (kept, _) = ground
        .store
        .record_consent(ground.a.id, later, NOW)
        .await
        .unwrap();
    assert_eq!(kept.effective_at, until);
    let held = ground.store.queue_head(there, NOW).await.unwrap();
    assert_eq!(held, QueueHead::NotBefore(until));
    for lane in [there, here] {
        let head = ground.store.queue_head(lane, until).await.unwrap();
        assert!(matches!(head, QueueHead::Ready(_)), "{head:?}");
    }
}

#[tokio::test]
async fn p15_what_is_said_between_a_consent_and_the_end_of_its_delay_stays_in_the_room() {
    let ground = Ground::with_one_portal().await;
    let second = crate::support::portal(&ground.store, &Place::room("!second"), "a").await;
    let (there, here) = (to_silo(&ground.a), to_matrix(&ground.a));
    let beyond = to_matrix(&second);
    ground
        .store
        .note_unencrypted_room(&ground.room)
        .await
        .unwrap();
    encrypt(&ground, &ground.room).await;
    ground.accept(vec![payload(&ground.room, "$waited")]).await;
    let until = Millis(NOW.0 + 60_000);
    let agreed = ground
        .store
        .record_consent(ground.a.id, consent(until), NOW)
        .await;
    agreed.unwrap();
    let waiting = ground.store.waiting_to_leave(ground.a.id).await.unwrap();
    assert_eq!(waiting, 1);

    let early = [
        payload(&ground.room, "$early"),
        sealed_letter(&ground.room, "$late-key", until.0 + 5),
    ];
    let accepted = ground.accept(early.to_vec()).await;
    assert_eq!(accepted, [Accepted::New(vec![]), Accepted::New(vec![])]);
    ground.accept(vec![payload(&ground.a.channel, "m1")]).await;
    let ground = ground.restart().await;
    // The clock alone activates nothing: the bridge may have been away, and the events that it receives now were sent at
    // any time. Neither do events that arrive while the room has a gap.
    let later = Batch {
        arrivals: vec![payload(&ground.room, "$heard-late")],
        gaps: vec![Gap {
            place: ground.room.clone(),
            from: "t".to_owned(),
            stop: None,
        }],
        ..Batch::default()
    };
    let after = Millis(until.0 + 10);
    ground.store.activate_consents(NOW).await.unwrap();
    ground.store.accept(later.clone(), after).await.unwrap();
    ground.store.activate_consents(after).await.unwrap();
    assert!(matches!(
        ground.store.portal_holds(after).await.unwrap()[..],
        [(_, PortalHold::Delay { .. })]
    ));
    let fetched = Batch {
        arrivals: vec![payload(&ground.room, "$fetched")],
        filled: later.gaps,
        ..Batch::default()
    };
    ground.store.accept(fetched, after).await.unwrap();
    ground.store.activate_consents(after).await.unwrap();
    assert_eq!(ground.store.portal_holds(after).await.unwrap(), []);
    assert_eq!(ground.store.next_consent_at(NOW).await.unwrap(), None);
    let in_time = Batch {
        arrivals: vec![payload(&ground.room, "$in-time")],
        ..Batch::default()
    };
    // Whatever the clock says by then.
    ground.store.accept(in_time, Millis(1)).await.unwrap();

    late_key(&ground, after).await;
    for lane in [there, beyond] {
        let mut said = vec![&b"$waited"[..], b"m1", b"$in-time"];
        said.retain(|said| lane == beyond || *said != b"m1");
        deliver_at(&ground, lane, &said, after).await;
        let counters = ground.counters(lane).await;
        assert!(balances(&counters));
        assert_eq!(counters.skipped, [("before-consent".to_owned(), 4)]);
    }
    deliver_at(&ground, here, &[b"m1"], after).await;
    let kept: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, 0);
}

/// A room key that arrives late makes no difference, and leaves nothing behind.
async fn late_key(ground: &Ground, now: Millis) {
    let waits = ground.store.undecryptable_events(None).await.unwrap();
    let payload = footbridge_store::Payload::Ready(b"late".to_vec());
    let lanes = ground.store.fill(waits[0].entry, payload, now).await;
    assert_eq!(lanes.unwrap(), []);
}

/// The lane delivers exactly this at that moment, in this order.
async fn deliver_at(ground: &Ground, lane: LaneId, said: &[&[u8]], now: Millis) {
    for said in said {
        let head = ground.store.queue_head(lane, now).await.unwrap();
        let QueueHead::Ready(delivery) = head else {
            panic!("{lane:?}: {head:?}");
        };
        assert_eq!(delivery.payload, *said);
        let made = crate::support::copy(&format!("{lane:?} {said:?}"));
        let done = ground
            .store
            .complete_step(delivery.id, Some(&made), None, true, now);
        done.await.unwrap();
    }
    assert_eq!(
        ground.store.queue_head(lane, now).await.unwrap(),
        QueueHead::Empty
    );
}

#[tokio::test]
async fn p15_nobody_is_told_of_messages_that_stay_in_the_room_and_a_command_among_them_counts() {
    let ground = Ground::with_one_portal().await;
    ground
        .store
        .note_unencrypted_room(&ground.room)
        .await
        .unwrap();
    encrypt(&ground, &ground.room).await;
    let until = Millis(NOW.0 + 60_000);
    let agreed = ground
        .store
        .record_consent(ground.a.id, consent(until), NOW)
        .await;
    agreed.unwrap();
    ground
        .accept(vec![
            sealed_letter(&ground.room, "$1", 0),
            sealed_letter(&ground.room, "$2", 0),
        ])
        .await;
    let waiting = ground.store.undecryptable_events(None).await.unwrap();
    let telling = UndecryptableNotice {
        entries: waiting.iter().map(|one| one.entry).collect(),
        place: ground.room.clone(),
        sender: "@ann:x".to_owned(),
        reason: "no-key".to_owned(),
        merge_within: std::time::Duration::from_hours(1),
        here: true,
        device: None,
    };
    let told = ground
        .store
        .notify_undecryptable(telling, |_| Some(b"of Ann".to_vec()), NOW)
        .await
        .unwrap();
    assert_eq!(told, []);
    let asked = footbridge_store::Payload::Command(b"!bridge pause".to_vec());
    ground
        .store
        .fill(waiting[0].entry, asked, NOW)
        .await
        .unwrap();
    let commands = ground.store.commands().await.unwrap();
    assert_eq!(commands[0].payload, b"!bridge pause");
    assert!(
        ground
            .store
            .fail_key_wait(waiting[1].entry, NOW)
            .await
            .unwrap()
    );
    assert!(
        ground
            .store
            .undecryptable_events(None)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_paused_portal_keeps_its_queue_and_a_begun_delivery_waits_as_well() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground
        .accept(vec![
            payload(&ground.room, "$1"),
            payload(&ground.room, "$2"),
        ])
        .await;
    let active = ground.ready(lane).await;
    ground
        .store
        .mark_outcome_unknown(active.id, None, NOW)
        .await
        .unwrap();
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    ground
        .store
        .pause(ground.a.id, "@bob:x", Millis(NOW.0 + 9))
        .await
        .unwrap();
    let ground = ground.restart().await;
    // The bridge looks for it; not found, it waits.
    assert!(!ground.store.may_send(active.id, 1, NOW).await.unwrap());
    assert_eq!(ground.ready(lane).await.id, active.id);
    ground.store.mark_not_attempted(active.id).await.unwrap();
    assert_eq!(
        ground.store.queue_head(lane, NOW).await.unwrap(),
        QueueHead::Empty
    );
    let since = PortalHold::Paused {
        by: "@ann:x".to_owned(),
        since: NOW,
    };
    assert_eq!(
        ground.store.portal_holds(NOW).await.unwrap(),
        [(ground.a.id, since)]
    );
    ground.store.resume(ground.a.id).await.unwrap();
    assert_eq!(ground.ready(lane).await.id, active.id);
    assert_eq!(ground.counters(lane).await.pending, 2);
}

#[tokio::test]
async fn p18_an_unlinked_portal_ends_all_it_owes_erases_it_and_says_how_much_it_was_once() {
    let ground = Ground::with_one_portal().await;
    let (there, here) = (to_silo(&ground.a), to_matrix(&ground.a));
    ground
        .accept(vec![
            payload(&ground.room, "$1"),
            payload(&ground.room, "$2"),
        ])
        .await;
    ground.accept(vec![payload(&ground.a.channel, "m1")]).await;
    let event_id = RemoteId::from("notice");
    ground
        .store
        .send_notice(&ground.room, &event_id, b"a notice", NOW)
        .await
        .unwrap();
    let told = |dropped: usize| Some(format!("dropped {dropped}").into_bytes());
    let ids = [ground.a.id];
    let removed = ground
        .store
        .remove_portals(&ids, None, told, NOW)
        .await
        .unwrap();
    // Three messages; the notice does not count.
    assert_eq!((removed.portals, removed.dropped), (1, 3));
    for lane in [there, here] {
        let counters = ground.counters(lane).await;
        assert!(balances(&counters) && counters.pending == 0, "{counters:?}");
        assert!(counters.skipped.iter().any(|(rule, _)| rule == "unlinked"));
    }
    let kept: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL AND place <> 'bridge:notice'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, 0);
    // The notice goes to the management room, and only once.
    let said = ground.ready(removed.lanes[0]).await;
    assert_eq!(said.payload, b"dropped 3");
    assert_eq!(said.to, ground.room);
    let again = ground
        .store
        .remove_portals(&ids, None, told, NOW)
        .await
        .unwrap();
    assert_eq!((again.portals, again.dropped), (0, 0));
    // A message in a mere management room is not relayed.
    let accepted = ground.accept(vec![payload(&ground.room, "$3")]).await;
    assert_eq!(accepted, [footbridge_store::Accepted::NotLinked]);
    // The configuration does not decide about portals from other sources.
    ground
        .store
        .deactivate_unlisted_portals(&[], NOW)
        .await
        .unwrap();
    let portals = ground.store.portals().await.unwrap();
    let open: Vec<_> = portals.iter().filter(|portal| portal.active).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].source, footbridge_store::PortalSource::Management);
    assert!(
        ground
            .store
            .close_management_room(&ground.room, NOW)
            .await
            .unwrap()
    );
    assert!(
        !ground
            .store
            .close_management_room(&ground.room, NOW)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_person_who_opts_out_is_known_by_a_hash_and_what_waits_is_dropped() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground
        .accept(vec![
            payload(&ground.room, "$ann 1"),
            payload(&ground.room, "$bob 1"),
        ])
        .await;
    let is_theirs = |payload: &[u8], user: &str| {
        String::from_utf8_lossy(payload).starts_with(&format!("${user}"))
    };
    let room = ground.room.clone();
    let dropped = ground
        .store
        .opt_out(&room, "ann", Scope::Here, is_theirs, NOW)
        .await
        .unwrap();
    assert_eq!(dropped, 1);
    let counters = ground.counters(lane).await;
    assert!(balances(&counters));
    assert_eq!(counters.skipped, [("opted-out".to_owned(), 1)]);
    let stays = async |place: &Place, user: &str| {
        let asked = vec![(place.clone(), user.to_owned())];
        ground.store.opted_out(asked).await.unwrap()[0]
    };
    let other = Place::room("!other");
    assert!(stays(&room, "ann").await && !stays(&other, "ann").await);
    assert!(!stays(&room, "bob").await);
    let everywhere = Scope::Everywhere;
    ground
        .store
        .opt_out(&room, "bob", everywhere, is_theirs, NOW)
        .await
        .unwrap();
    assert!(stays(&other, "bob").await);
    // The same id in another network is another person.
    assert!(!stays(&ground.a.channel, "bob").await);
    assert!(
        !ground
            .store
            .opt_in(&room, "bob", Scope::Here)
            .await
            .unwrap()
    );
    assert!(ground.store.opt_in(&room, "bob", everywhere).await.unwrap());
    assert!(!stays(&room, "bob").await);
    let names: String = ground
        .sql()
        .query_row("SELECT group_concat(person_hash) FROM opt_out", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(!names.contains("ann") && names.len() == 32, "{names}");
}

#[tokio::test]
async fn a_key_for_names_is_of_one_purpose_and_of_this_store() {
    let (ground, other) = (
        Ground::with_one_portal().await,
        Ground::with_one_portal().await,
    );
    let key = ground.store.naming_key("one").await.unwrap();
    assert_eq!(key, ground.store.naming_key("one").await.unwrap());
    assert_ne!(key, ground.store.naming_key("two").await.unwrap());
    assert_ne!(key, other.store.naming_key("one").await.unwrap());
}

#[tokio::test]
async fn a_wish_comes_true_once_and_its_code_is_the_same_whenever_it_is_asked_for() {
    let ground = Ground::with_one_portal().await;
    let (room, channel) = (Place::room("!new"), Place::new("gitter", "new"));
    let question = RemoteId::from("$question");
    let store = &ground.store;
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
    ground
        .store
        .add_portal_request(request.clone())
        .await
        .unwrap();
    let kept = ground.store.portal_requests().await.unwrap();
    ground
        .store
        .confirm_portal_request(kept[0].id, NOW, NOW)
        .await
        .unwrap();
    // Requested again after a kill, a confirmed request stays confirmed; another code must be posted again.
    ground
        .store
        .add_portal_request(request.clone())
        .await
        .unwrap();
    assert_eq!(
        ground.store.portal_requests().await.unwrap()[0].confirmed_at,
        Some(NOW)
    );
    let other = PortalRequest {
        code: "another".to_owned(),
        ..request
    };
    ground.store.add_portal_request(other).await.unwrap();
    let kept = ground.store.portal_requests().await.unwrap();
    assert_eq!((kept.len(), kept[0].confirmed_at), (1, None));
    encrypt(&ground, &room).await;
    let linking = footbridge_store::ApprovedRequest {
        request: kept[0].id,
        consent: Some(consent(NOW)),
        question: None,
        told: b"told".to_vec(),
        heard: false,
    };
    let (portal, _) = ground
        .store
        .open_requested_portal(linking.clone(), NOW)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(portal.source, PortalSource::Chat);
    assert!(ground.store.lacking_consent().await.unwrap().is_empty());
    assert!(
        ground
            .store
            .open_requested_portal(linking, NOW)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(ground.ready(to_matrix(&portal)).await.payload, b"told");
}

#[tokio::test]
async fn p19_a_room_that_moved_holds_its_portal_until_it_is_followed_with_all_it_owes() {
    let ground = Ground::with_one_portal().await;
    let (there, here) = (to_silo(&ground.a), to_matrix(&ground.a));
    let tombstone = Tombstone {
        room: ground.room.clone(),
        successor: "!next".to_owned(),
        sender: "@ann:x".to_owned(),
    };
    ground.accept(vec![payload(&ground.a.channel, "m1")]).await;
    for _ in 0..2 {
        let batch = Batch {
            arrivals: vec![payload(&ground.room, "$1")],
            tombstones: vec![tombstone.clone()],
            ..Batch::default()
        };
        ground.store.accept(batch, NOW).await.unwrap();
    }
    for lane in [there, here] {
        assert_eq!(
            ground.store.queue_head(lane, NOW).await.unwrap(),
            QueueHead::Empty
        );
    }
    let upgrades = ground.store.room_upgrades().await.unwrap();
    assert_eq!(upgrades.len(), 1);
    assert_eq!(upgrades[0].tombstone, tombstone);
    let next = Place::room("!next");
    ground
        .store
        .follow_room_upgrade(&ground.room, (&next, true), b"moved", NOW)
        .await
        .unwrap();
    assert!(ground.store.flag(&next, Flag::EverEncrypted).await.unwrap());
    let said = ground.ready(here).await;
    assert_eq!(
        (said.to, said.payload.as_slice()),
        (next, b"moved".as_slice())
    );
    assert_eq!(ground.ready(there).await.payload, b"$1");
    assert!(ground.store.room_upgrades().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hold_is_on_the_portal_that_was_paused_and_on_no_other() {
    let ground = Ground::new().await;
    let (a, b, store) = (ground.a.id, ground.b.id, &ground.store);
    let held = async |portal| store.is_portal_held(portal, NOW).await.unwrap();
    assert!(!held(a).await);
    store.pause(a, "@ann:x", NOW).await.unwrap();
    assert!(held(a).await && !held(b).await);
    store.resume(a).await.unwrap();
    assert!(!held(a).await);
    // A room that is encrypted, and has not consented, gets no messages of people.
    let closed = async || store.may_not_relay_into(&ground.room).await.unwrap();
    ground
        .store
        .note_unencrypted_room(&ground.room)
        .await
        .unwrap();
    assert!(!closed().await);
    encrypt(&ground, &ground.room).await;
    assert!(closed().await);
}
