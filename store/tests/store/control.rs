//! What holds a portal up, how it ends, and whose messages stay.

use footbridge_store::{
    Accepted, Batch, Consent, Flag, Gap, Head, Hold, LaneId, Millis, Origin, Place, PortalSpec,
    RemoteId, Scope, Telling, Tombstone, Wish,
};

use crate::ground::{Ground, NOW, balances, letter, sealed_letter, to_matrix, to_silo};

fn consent(effective_at: Millis) -> Consent {
    Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at,
    }
}

/// Raises the flag of an encrypted room.
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
    // Encrypted from the start, a portal of the configuration is the operator's consent.
    ground.accept(vec![letter(&ground.room, "$1")]).await;
    encrypt(&ground, &ground.room).await;
    assert!(ground.store.lacking_consent().await.unwrap().is_empty());
    ground.deliver(there, "m1").await;
    // Seen in the clear before, it is not.
    ground.store.seen_in_clear(&ground.room).await.unwrap();
    assert!(ground.store.is_silenced(&ground.room).await.unwrap());
    ground.accept(vec![letter(&ground.room, "$2")]).await;
    ground.accept(vec![letter(&ground.a.channel, "m2")]).await;
    let ground = ground.restart().await;
    for lane in [there, here] {
        assert_eq!(ground.store.head(lane, NOW).await.unwrap(), Head::Empty);
    }
    let holds = ground.store.holds(NOW).await.unwrap();
    assert_eq!(holds, [(ground.a.id, Hold::Consent)]);
    // What the bridge itself says passes.
    let fact = RemoteId::from("asked");
    let said = ground.store.say(&ground.room, &fact, b"agree?", NOW);
    assert_eq!(said.await.unwrap(), Some(here));
    assert_eq!(ground.deliver(here, "$asked").await.payload, b"agree?");

    let until = Millis(NOW.0 + 60_000);
    let (kept, _) = ground
        .store
        .agree(ground.a.id, consent(until), NOW)
        .await
        .unwrap();
    assert_eq!(kept.effective_at, until);
    // A second consent does not begin the delay anew.
    let later = consent(Millis(until.0 + 5));
    let (kept, _) = ground.store.agree(ground.a.id, later, NOW).await.unwrap();
    assert_eq!(kept.effective_at, until);
    let held = ground.store.head(there, NOW).await.unwrap();
    assert_eq!(held, Head::NotBefore(until));
    for lane in [there, here] {
        let head = ground.store.head(lane, until).await.unwrap();
        assert!(matches!(head, Head::Ready(_)), "{head:?}");
    }
}

#[tokio::test]
async fn p15_what_is_said_between_a_consent_and_the_end_of_its_delay_stays_in_the_room() {
    let ground = Ground::with_one_portal().await;
    let second = crate::ground::portal(&ground.store, &Place::room("!second"), "a").await;
    let (there, here) = (to_silo(&ground.a), to_matrix(&ground.a));
    let beyond = to_matrix(&second);
    ground.store.seen_in_clear(&ground.room).await.unwrap();
    encrypt(&ground, &ground.room).await;
    ground.accept(vec![letter(&ground.room, "$waited")]).await;
    let until = Millis(NOW.0 + 60_000);
    let agreed = ground.store.agree(ground.a.id, consent(until), NOW).await;
    agreed.unwrap();
    let waiting = ground.store.waiting_to_leave(ground.a.id).await.unwrap();
    assert_eq!(waiting, 1);

    let early = [
        letter(&ground.room, "$early"),
        sealed_letter(&ground.room, "$late-key", until.0 + 5),
    ];
    let accepted = ground.accept(early.to_vec()).await;
    assert_eq!(accepted, [Accepted::New(vec![]), Accepted::New(vec![])]);
    ground.accept(vec![letter(&ground.a.channel, "m1")]).await;
    let ground = ground.restart().await;
    // The clock alone begins nothing: the bridge may have been away, and what it hears now was said at any time. Neither
    // does what was heard while something of the room is still to be fetched.
    let later = Batch {
        arrivals: vec![letter(&ground.room, "$heard-late")],
        gaps: vec![Gap {
            place: ground.room.clone(),
            from: "t".to_owned(),
            stop: None,
        }],
        ..Batch::default()
    };
    let after = Millis(until.0 + 10);
    ground.store.begin_consents(NOW).await.unwrap();
    ground.store.accept(later.clone(), after).await.unwrap();
    ground.store.begin_consents(after).await.unwrap();
    assert!(matches!(
        ground.store.holds(after).await.unwrap()[..],
        [(_, Hold::Delay { .. })]
    ));
    let fetched = Batch {
        arrivals: vec![letter(&ground.room, "$fetched")],
        filled: later.gaps,
        ..Batch::default()
    };
    ground.store.accept(fetched, after).await.unwrap();
    ground.store.begin_consents(after).await.unwrap();
    assert_eq!(ground.store.holds(after).await.unwrap(), []);
    assert_eq!(ground.store.next_consent(NOW).await.unwrap(), None);
    let in_time = Batch {
        arrivals: vec![letter(&ground.room, "$in-time")],
        ..Batch::default()
    };
    // Whatever the clock says by then.
    ground.store.accept(in_time, Millis(1)).await.unwrap();

    late_key(&ground, after).await;
    for lane in [there, beyond] {
        let mut said = vec![&b"$waited"[..], b"m1", b"$in-time"];
        said.retain(|said| lane == beyond || *said != b"m1");
        deliver_at(&ground, lane, &said, after).await;
        let tally = ground.tally(lane).await;
        assert!(balances(&tally));
        assert_eq!(tally.skipped, [("before-consent".to_owned(), 4)]);
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

/// A key that comes late makes no difference, and leaves nothing behind.
async fn late_key(ground: &Ground, now: Millis) {
    let waits = ground.store.waiting(None).await.unwrap();
    let letter = footbridge_store::Payload::Ready(b"late".to_vec());
    let lanes = ground.store.fill(waits[0].entry, letter, now).await;
    assert_eq!(lanes.unwrap(), []);
}

/// The lane delivers this at that moment, in this order, and nothing else.
async fn deliver_at(ground: &Ground, lane: LaneId, said: &[&[u8]], now: Millis) {
    for said in said {
        let head = ground.store.head(lane, now).await.unwrap();
        let Head::Ready(delivery) = head else {
            panic!("{lane:?}: {head:?}");
        };
        assert_eq!(delivery.payload, *said);
        let made = crate::ground::copy(&format!("{lane:?} {said:?}"));
        let done = ground
            .store
            .step_done(delivery.id, Some(&made), None, true, now);
        done.await.unwrap();
    }
    assert_eq!(ground.store.head(lane, now).await.unwrap(), Head::Empty);
}

#[tokio::test]
async fn p15_nobody_is_told_of_messages_that_stay_in_the_room_and_a_command_among_them_counts() {
    let ground = Ground::with_one_portal().await;
    ground.store.seen_in_clear(&ground.room).await.unwrap();
    encrypt(&ground, &ground.room).await;
    let until = Millis(NOW.0 + 60_000);
    let agreed = ground.store.agree(ground.a.id, consent(until), NOW).await;
    agreed.unwrap();
    ground
        .accept(vec![
            sealed_letter(&ground.room, "$1", 0),
            sealed_letter(&ground.room, "$2", 0),
        ])
        .await;
    let waiting = ground.store.waiting(None).await.unwrap();
    let telling = Telling {
        entries: waiting.iter().map(|one| one.entry).collect(),
        place: ground.room.clone(),
        sender: "@ann:x".to_owned(),
        reason: "no-key".to_owned(),
        once_within: std::time::Duration::from_hours(1),
        here: true,
        device: None,
    };
    let told = ground
        .store
        .tell(telling, |_| Some(b"of Ann".to_vec()), NOW)
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
    assert_eq!(commands[0].letter, b"!bridge pause");
    assert!(ground.store.give_up(waiting[1].entry, NOW).await.unwrap());
    assert!(ground.store.waiting(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_paused_portal_keeps_its_queue_and_a_begun_delivery_waits_as_well() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground
        .accept(vec![letter(&ground.room, "$1"), letter(&ground.room, "$2")])
        .await;
    let begun = ground.ready(lane).await;
    ground.store.unsure(begun.id, None, NOW).await.unwrap();
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
    // It is looked for; found nowhere, it waits.
    assert!(!ground.store.may_go(begun.id, 1, NOW).await.unwrap());
    assert_eq!(ground.ready(lane).await.id, begun.id);
    ground.store.held_back(begun.id).await.unwrap();
    assert_eq!(ground.store.head(lane, NOW).await.unwrap(), Head::Empty);
    let since = Hold::Paused {
        by: "@ann:x".to_owned(),
        since: NOW,
    };
    assert_eq!(
        ground.store.holds(NOW).await.unwrap(),
        [(ground.a.id, since)]
    );
    ground.store.resume(ground.a.id).await.unwrap();
    assert_eq!(ground.ready(lane).await.id, begun.id);
    assert_eq!(ground.tally(lane).await.pending, 2);
}

#[tokio::test]
async fn p18_an_unlinked_portal_ends_all_it_owes_erases_it_and_says_how_much_it_was_once() {
    let ground = Ground::with_one_portal().await;
    let (there, here) = (to_silo(&ground.a), to_matrix(&ground.a));
    ground
        .accept(vec![letter(&ground.room, "$1"), letter(&ground.room, "$2")])
        .await;
    ground.accept(vec![letter(&ground.a.channel, "m1")]).await;
    let fact = RemoteId::from("notice");
    ground
        .store
        .say(&ground.room, &fact, b"a notice", NOW)
        .await
        .unwrap();
    let told = |dropped: usize| Some(format!("dropped {dropped}").into_bytes());
    let ids = [ground.a.id];
    let removed = ground
        .store
        .remove_portals(&ids, None, told, NOW)
        .await
        .unwrap();
    // Three messages; the notice is none.
    assert_eq!((removed.portals, removed.dropped), (1, 3));
    for lane in [there, here] {
        let tally = ground.tally(lane).await;
        assert!(balances(&tally) && tally.pending == 0, "{tally:?}");
        assert!(tally.skipped.iter().any(|(rule, _)| rule == "unlinked"));
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
    // It is said at the room's desk, and nothing is said a second time.
    let said = ground.ready(removed.lanes[0]).await;
    assert_eq!(said.payload, b"dropped 3");
    assert_eq!(said.to, ground.room);
    let again = ground
        .store
        .remove_portals(&ids, None, told, NOW)
        .await
        .unwrap();
    assert_eq!((again.portals, again.dropped), (0, 0));
    // A message in a room with nothing but a desk goes nowhere.
    let accepted = ground.accept(vec![letter(&ground.room, "$3")]).await;
    assert_eq!(accepted, [footbridge_store::Accepted::Unlinked]);
    // Those of people are not what the configuration decides.
    ground.store.keep_portals(&[], NOW).await.unwrap();
    let desks = ground.store.portals_beside_the_file().await.unwrap();
    assert_eq!(desks.len(), 1);
    assert!(ground.store.close_desk(&ground.room, NOW).await.unwrap());
    assert!(!ground.store.close_desk(&ground.room, NOW).await.unwrap());
}

#[tokio::test]
async fn a_person_who_opts_out_is_known_by_a_hash_and_what_waits_is_dropped() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground
        .accept(vec![
            letter(&ground.room, "$ann 1"),
            letter(&ground.room, "$bob 1"),
        ])
        .await;
    let is_theirs = |letter: &[u8], user: &str| {
        String::from_utf8_lossy(letter).starts_with(&format!("${user}"))
    };
    let room = ground.room.clone();
    let dropped = ground
        .store
        .opt_out(&room, "ann", Scope::Here, is_theirs, NOW)
        .await
        .unwrap();
    assert_eq!(dropped, 1);
    let tally = ground.tally(lane).await;
    assert!(balances(&tally));
    assert_eq!(tally.skipped, [("opted-out".to_owned(), 1)]);
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
        .query_row("SELECT group_concat(person) FROM optout", [], |row| {
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
    let code = ground.store.code_of(&room, &question).await.unwrap();
    assert_eq!(code, ground.store.code_of(&room, &question).await.unwrap());
    let other = RemoteId::from("$other");
    assert_ne!(code, ground.store.code_of(&room, &other).await.unwrap());
    let wish = Wish {
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
        proven_at: None,
    };
    ground.store.wish(wish.clone()).await.unwrap();
    let kept = ground.store.wishes().await.unwrap();
    ground.store.proven(kept[0].id, NOW, NOW).await.unwrap();
    // Asked again after a kill, what is proven stays proven; another code has to be shown anew.
    ground.store.wish(wish.clone()).await.unwrap();
    assert_eq!(ground.store.wishes().await.unwrap()[0].proven_at, Some(NOW));
    let other = Wish {
        code: "another".to_owned(),
        ..wish
    };
    ground.store.wish(other).await.unwrap();
    let kept = ground.store.wishes().await.unwrap();
    assert_eq!((kept.len(), kept[0].proven_at), (1, None));
    encrypt(&ground, &room).await;
    let linking = footbridge_store::Linking {
        wish: kept[0].id,
        consent: Some(consent(NOW)),
        question: None,
        told: b"told".to_vec(),
        heard: false,
    };
    let (portal, _) = ground
        .store
        .link(linking.clone(), NOW)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(portal.origin, Origin::Chat);
    assert!(ground.store.lacking_consent().await.unwrap().is_empty());
    assert!(ground.store.link(linking, NOW).await.unwrap().is_none());
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
    ground.accept(vec![letter(&ground.a.channel, "m1")]).await;
    for _ in 0..2 {
        let batch = Batch {
            arrivals: vec![letter(&ground.room, "$1")],
            tombstones: vec![tombstone.clone()],
            ..Batch::default()
        };
        ground.store.accept(batch, NOW).await.unwrap();
    }
    for lane in [there, here] {
        assert_eq!(ground.store.head(lane, NOW).await.unwrap(), Head::Empty);
    }
    let upgrades = ground.store.upgrades().await.unwrap();
    assert_eq!(upgrades.len(), 1);
    assert_eq!(upgrades[0].tombstone, tombstone);
    let next = Place::room("!next");
    ground
        .store
        .follow_upgrade(&ground.room, (&next, true), b"moved", NOW)
        .await
        .unwrap();
    assert!(ground.store.flag(&next, Flag::EverEncrypted).await.unwrap());
    let said = ground.ready(here).await;
    assert_eq!(
        (said.to, said.payload.as_slice()),
        (next, b"moved".as_slice())
    );
    assert_eq!(ground.ready(there).await.payload, b"$1");
    assert!(ground.store.upgrades().await.unwrap().is_empty());
}
