//! The route of a message between its place and another place: a hold of any portal on it holds the message, and the
//! removal of any ends it.

use std::time::Duration;

use footbridge_store::{
    Batch, Bundle, Consent, Delivery, DeliveryStatus, FailureNotice, Flag, LaneId, Millis,
    ParkedState, Place, Portal, QueueHead, Side, SkipRule, Tombstone, UndecryptableNotice,
    Undelivered,
};

use crate::support::{
    Fixture, NOW, arrival, balances, copy, payload, portal, to_matrix, to_silo,
    undecryptable_arrival,
};

/// Room and channels `a` and `b` of [`Fixture`], and a second room that has channel `a` as well.
async fn fixture() -> (Fixture, Portal) {
    let fixture = Fixture::new().await;
    let second = portal(&fixture.store, &Place::room("!second"), "a").await;
    (fixture, second)
}

const LATER: Millis = Millis(NOW.0 + 60_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    NoConsent,
    Delay,
    Pause,
    Replaced,
    Removed,
}

const STOPS: [Stop; 5] = [
    Stop::NoConsent,
    Stop::Delay,
    Stop::Pause,
    Stop::Replaced,
    Stop::Removed,
];

fn consent(effective_at: Millis) -> Consent {
    Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at,
    }
}

async fn stop(fixture: &Fixture, portal: &Portal, how: Stop) {
    let store = &fixture.store;
    match how {
        Stop::NoConsent | Stop::Delay => {
            store.note_unencrypted_room(&portal.room).await.unwrap();
            let batch = Batch {
                flags: vec![(portal.room.clone(), Flag::EverEncrypted)],
                ..Batch::default()
            };
            store.accept(batch, NOW).await.unwrap();
            if how == Stop::Delay {
                store
                    .record_consent(portal.id, consent(LATER), NOW)
                    .await
                    .unwrap();
            }
        }
        Stop::Pause => store.pause(portal.id, "@ann:x", NOW).await.unwrap(),
        Stop::Replaced => {
            let batch = Batch {
                tombstones: vec![Tombstone {
                    room: portal.room.clone(),
                    successor: "!next".to_owned(),
                    sender: "@ann:x".to_owned(),
                }],
                ..Batch::default()
            };
            store.accept(batch, NOW).await.unwrap();
        }
        Stop::Removed => {
            let ids = [portal.id];
            let removed = store.remove_portals(&ids, None, |_| None, NOW);
            assert_eq!(removed.await.unwrap().portals, 1);
        }
    }
}

/// Ends this hold. Returns the lanes to wake.
async fn release(fixture: &Fixture, how: Stop) -> Vec<LaneId> {
    let mut woken = Vec::new();
    for (portal, _) in fixture.store.portal_holds(NOW).await.unwrap() {
        woken.extend(match how {
            Stop::NoConsent | Stop::Delay => {
                let agreed = fixture
                    .store
                    .record_consent(portal, consent(NOW), NOW)
                    .await;
                agreed.unwrap().1
            }
            Stop::Pause | Stop::Replaced => fixture.store.resume(portal).await.unwrap(),
            Stop::Removed => Vec::new(),
        });
    }
    woken
}

async fn head_at(fixture: &Fixture, lane: LaneId, now: Millis) -> Option<Delivery> {
    match fixture.store.queue_head(lane, now).await.unwrap() {
        QueueHead::Ready(delivery) => Some(*delivery),
        _ => None,
    }
}

async fn is_portal_held(fixture: &Fixture, portal: &Portal) -> bool {
    let holds = fixture.store.portal_holds(NOW).await.unwrap();
    holds.iter().any(|(held, _)| *held == portal.id)
}

/// Whether the status of the first message says that it is on hold.
async fn is_shown_on_hold(fixture: &Fixture, from: &Place, lane: LaneId) -> bool {
    let story = fixture
        .store
        .message_status(from, &"1".into())
        .await
        .unwrap();
    let portals = fixture.store.portals().await.unwrap();
    let portal = portals.iter().find(|portal| portal.id == lane.portal);
    let to = portal.map(|portal| match lane.toward {
        Side::Matrix => portal.room.clone(),
        Side::Silo => portal.channel.clone(),
    });
    let deliveries = story.unwrap().deliveries.into_iter();
    let mut there = deliveries.filter(|(place, _)| Some(place) == to.as_ref());
    matches!(
        there.next(),
        Some((_, DeliveryStatus::Pending { held: true, .. }))
    )
}

/// Stops `stopped` while a message of `from` is pending in `lane`, of the portal `last`, and another one whose route
/// does not pass `stopped`.
async fn nothing_passes(
    fixture: Fixture,
    how: Stop,
    stopped: &Portal,
    (from, lane, last): (&Place, LaneId, &Portal),
    free: &Place,
) {
    let said = format!("{how:?}");
    fixture
        .accept(vec![
            payload(from, "1"),
            payload(free, "free"),
            payload(from, "2"),
        ])
        .await;
    let first = fixture.ready(lane).await;
    assert_eq!(first.payload, b"1", "{said}");
    assert_eq!(first.path.last(), Some(&lane), "{said}");
    stop(&fixture, stopped, how).await;
    // A delivery that was ready before the stop may not be sent any more.
    assert!(
        !fixture.store.may_send(first.id, 1, NOW).await.unwrap(),
        "{said}"
    );
    if how != Stop::Delay {
        let held = is_shown_on_hold(&fixture, from, lane).await;
        assert_eq!(held, how != Stop::Removed, "{said}");
    }
    fixture.accept(vec![payload(from, "3")]).await;
    let fixture = fixture.restart().await;
    let mut waits = vec![b"1".to_vec(), b"2".to_vec()];
    // Messages that were sent in a room during the consent delay stay there.
    let stays = how == Stop::Delay && first.path.contains(&to_silo(stopped));
    if how != Stop::Removed && !stays {
        waits.push(b"3".to_vec());
    }
    if is_portal_held(&fixture, last).await {
        assert_eq!(head_at(&fixture, lane, NOW).await, None, "{said}");
    } else {
        // The delivery whose route does not pass the stopped portal is sent.
        assert_eq!(
            fixture.deliver(lane, "c-free").await.payload,
            b"free",
            "{said}"
        );
        let counters = fixture.counters(lane).await;
        if how != Stop::Delay {
            assert_eq!(counters.on_hold, counters.pending, "{said}");
            assert_eq!(counters.oldest_not_on_hold, None, "{said}");
        }
    }
    match how {
        Stop::Removed => {
            assert_eq!(head_at(&fixture, lane, NOW).await, None);
            let counters = fixture.counters(lane).await;
            assert!(balances(&counters) && counters.pending == 0, "{counters:?}");
            assert_eq!(counters.skipped, [(SkipRule::Unlinked, 2)]);
            // After the portal is linked again, none of it is delivered.
            let channel = stopped.channel.address().to_owned();
            portal(&fixture.store, &stopped.room, &channel).await;
            assert_eq!(head_at(&fixture, lane, LATER).await, None);
        }
        Stop::Delay => {
            let waits_until = fixture.store.queue_head(lane, NOW).await.unwrap();
            assert_eq!(waits_until, QueueHead::NotBefore(LATER), "{said}");
            release(&fixture, how).await;
        }
        _ => {
            assert!(release(&fixture, how).await.contains(&lane), "{said}");
        }
    }
    if how != Stop::Removed {
        // In order, and after the free one where that was held too.
        let mut came = Vec::new();
        for count in 0.. {
            let Some(next) = head_at(&fixture, lane, LATER).await else {
                break;
            };
            let made = copy(&format!("c{count}"));
            let done = fixture
                .store
                .complete_step(next.id, Some(&made), None, true, LATER);
            done.await.unwrap();
            came.push(next.payload);
        }
        came.retain(|said| said != b"free");
        assert_eq!(came, waits, "{said}");
    }
    assert!(balances(&fixture.counters(lane).await), "{said}");
}

#[tokio::test]
async fn of_two_rooms_on_one_channel_what_stops_the_first_stops_its_messages_to_the_second() {
    for how in STOPS {
        let (fixture, second) = fixture().await;
        let (room, a) = (fixture.room.clone(), fixture.a.clone());
        let way = (&room, to_matrix(&second), &second);
        nothing_passes(fixture, how, &a, way, &a.channel).await;
    }
}

#[tokio::test]
async fn of_two_channels_on_one_room_what_stops_the_first_stops_its_messages_to_the_second() {
    for how in STOPS {
        let fixture = Fixture::new().await;
        let (room, a, b) = (fixture.room.clone(), fixture.a.clone(), fixture.b.clone());
        let way = (&a.channel, to_silo(&b), &b);
        nothing_passes(fixture, how, &a, way, &room).await;
    }
}

#[tokio::test]
async fn in_a_chain_of_three_each_portal_stops_what_passes_it() {
    for how in STOPS {
        for first in [true, false] {
            let (fixture, second) = fixture().await;
            let (a, b) = (fixture.a.clone(), fixture.b.clone());
            let stopped = if first { &b } else { &a };
            let way = (&b.channel, to_matrix(&second), &second);
            nothing_passes(fixture, how, stopped, way, &a.channel).await;
        }
    }
}

#[tokio::test]
async fn a_delivery_knows_which_portals_it_passes_and_in_which_direction() {
    let (fixture, second) = fixture().await;
    fixture.accept(vec![payload(&fixture.b.channel, "1")]).await;
    let there = fixture.ready(to_matrix(&second)).await;
    let path = [
        to_matrix(&fixture.b),
        to_silo(&fixture.a),
        to_matrix(&second),
    ];
    assert_eq!(there.path, path);
    let line = fixture
        .store
        .lookahead(there.lane, there.id, 5, NOW)
        .await
        .unwrap();
    assert_eq!(line[0].path, path);
}

#[tokio::test]
async fn another_route_relays_what_one_holds_but_no_route_that_was_linked_later() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "before")]).await;
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    // A second route from the first room: by channel `b` and a third room to channel `a`.
    let third = Place::room("!third");
    portal(&fixture.store, &third, "b").await;
    portal(&fixture.store, &third, "a").await;
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    fixture.accept(vec![payload(&fixture.room, "after")]).await;
    // It may depend on the earlier message, and waits behind that.
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    fixture.accept(vec![payload(&third, "other")]).await;
    let other = fixture.ready(lane).await;
    assert_eq!(other.payload, b"other");
    let line = fixture
        .store
        .lookahead(lane, other.id, 9, NOW)
        .await
        .unwrap();
    assert_eq!(line.len(), 1);
    fixture.deliver(lane, "c0").await;
    // The route that existed from the start is removed: messages from before the other route end with it.
    stop(&fixture, &fixture.a, Stop::Removed).await;
    assert_eq!(fixture.deliver(lane, "c1").await.payload, b"after");
    let counters = fixture.counters(lane).await;
    assert_eq!(counters.skipped, [(SkipRule::Unlinked, 1)]);
    assert!(balances(&counters) && counters.pending == 0);
}

#[tokio::test]
async fn a_clock_that_was_put_back_neither_drops_nor_delays_messages_after_the_link() {
    let (fixture, second) = fixture().await;
    let batch = Batch {
        arrivals: vec![payload(&fixture.room, "1")],
        ..Batch::default()
    };
    fixture.store.accept(batch, Millis(5)).await.unwrap();
    assert_eq!(fixture.ready(to_matrix(&second)).await.payload, b"1");
}

#[tokio::test]
async fn what_failed_is_not_tried_again_once_a_portal_before_its_own_is_removed() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    let fail = async |event_id: &str| {
        fixture.accept(vec![payload(&fixture.room, event_id)]).await;
        let delivery = fixture.ready(lane).await;
        let how = Undelivered::Failed {
            kind: "rejected",
            reason: "no".to_owned(),
            about: None,
            notice: FailureNotice::ToSender,
        };
        fixture
            .store
            .end_undelivered(delivery.id, how, NOW)
            .await
            .unwrap();
        delivery.id
    };
    let (one, two) = (fail("1").await, fail("2").await);
    // A retried delivery whose portal is on hold waits.
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    assert_eq!(fixture.store.retry_parked(&[one]).await.unwrap(), [lane]);
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    stop(&fixture, &fixture.a, Stop::Removed).await;
    assert_eq!(fixture.store.retry_parked(&[one, two]).await.unwrap(), []);
    let about = fixture
        .store
        .parked_deliveries_of(&fixture.room, &"2".into())
        .await
        .unwrap();
    let left = about.iter().find(|parked| parked.lane == lane).unwrap();
    assert_eq!((left.state, left.retryable), (ParkedState::Failed, false));
    let counters = fixture.counters(lane).await;
    assert!(
        balances(&counters) && counters.pending == 0 && counters.parked == 0,
        "{counters:?}"
    );
}

fn bundle(members: &[Delivery]) -> Bundle {
    Bundle {
        plan: b"together".to_vec(),
        members: members.iter().map(|member| member.id).collect(),
        merged: Vec::new(),
        included: Vec::new(),
    }
}

/// Messages of the channel and of the first room, bundled in the lane to the second room.
async fn bound() -> (Fixture, LaneId, Vec<Delivery>) {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    for (from, id) in [
        (&fixture.a.channel, "x1"),
        (&fixture.room, "r1"),
        (&fixture.a.channel, "x2"),
    ] {
        fixture.accept(vec![payload(from, id)]).await;
    }
    let head = fixture.ready(lane).await;
    let line = fixture
        .store
        .lookahead(lane, head.id, 9, NOW)
        .await
        .unwrap();
    assert_eq!(line.len(), 3);
    assert!(fixture.store.create_bundle(bundle(&line)).await.unwrap());
    (fixture, lane, line)
}

#[tokio::test]
async fn a_bundle_is_split_when_one_of_its_messages_is_on_hold() {
    let (fixture, lane, line) = bound().await;
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    assert!(!fixture.store.may_send(line[0].id, 3, NOW).await.unwrap());
    for said in [&b"x1"[..], b"x2"] {
        let delivery = fixture.ready(lane).await;
        assert_eq!((delivery.payload.as_slice(), &delivery.plan), (said, &None));
        let line = fixture
            .store
            .lookahead(lane, delivery.id, 9, NOW)
            .await
            .unwrap();
        assert!(line.iter().all(|owed| owed.payload != b"r1"));
        fixture.deliver(lane, &String::from_utf8_lossy(said)).await;
    }
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    fixture.store.resume(fixture.a.id).await.unwrap();
    assert_eq!(fixture.deliver(lane, "r1").await.payload, b"r1");
}

#[tokio::test]
async fn messages_of_a_bundle_with_unknown_outcome_wait_together() {
    let (fixture, lane, line) = bound().await;
    fixture
        .store
        .mark_unanswered(line[0].id, NOW)
        .await
        .unwrap();
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    fixture
        .accept(vec![payload(&fixture.a.channel, "x3")])
        .await;
    // Sent alone, they might arrive twice and later ones before them: first the lane reconciles the bundle.
    let looked_for = fixture.ready(lane).await;
    assert_eq!(
        (looked_for.id, looked_for.unanswered_since),
        (line[0].id, Some(NOW))
    );
    assert!(!fixture.store.may_send(looked_for.id, 3, NOW).await.unwrap());
    assert!(
        !fixture
            .store
            .begin_bundle_attempt(looked_for.id, 3, NOW)
            .await
            .unwrap()
    );
    assert_eq!(fixture.ready(lane).await.plan, looked_for.plan);
    // After the removal the room's text is not sent, and the channel's messages end as failed.
    stop(&fixture, &fixture.a, Stop::Removed).await;
    let counters = fixture.counters(lane).await;
    assert!(balances(&counters), "{counters:?}");
    assert_eq!(
        (counters.failed, counters.parked, counters.pending),
        (2, 2, 1)
    );
    assert_eq!(counters.skipped, [(SkipRule::Unlinked, 1)]);
    let left = fixture.deliver(lane, "x3").await;
    assert_eq!((left.payload.as_slice(), left.plan), (&b"x3"[..], None));
}

#[tokio::test]
async fn messages_of_other_places_proceed_once_a_bundle_is_known_not_to_have_arrived() {
    let (fixture, lane, line) = bound().await;
    fixture
        .store
        .mark_unanswered(line[0].id, NOW)
        .await
        .unwrap();
    stop(&fixture, &fixture.a, Stop::Pause).await;
    assert_eq!(fixture.ready(lane).await.id, line[0].id);
    fixture.store.split_bundle(line[0].id).await.unwrap();
    for said in [&b"x1"[..], b"x2"] {
        let delivery = fixture.deliver(lane, &String::from_utf8_lossy(said)).await;
        assert_eq!((delivery.payload.as_slice(), delivery.plan), (said, None));
        assert_eq!(delivery.unanswered_since, None);
    }
    fixture.store.resume(fixture.a.id).await.unwrap();
    assert_eq!(fixture.deliver(lane, "r1").await.payload, b"r1");
}

#[tokio::test]
async fn a_bundle_that_was_split_is_not_sent_as_it_was_written() {
    let (fixture, lane, line) = bound().await;
    // The bundle waits with its plan saved while a portal is removed.
    assert!(fixture.store.may_send(line[0].id, 3, NOW).await.unwrap());
    stop(&fixture, &fixture.a, Stop::Removed).await;
    assert!(!fixture.store.may_send(line[0].id, 3, NOW).await.unwrap());
    assert!(
        !fixture
            .store
            .begin_bundle_attempt(line[0].id, 3, NOW)
            .await
            .unwrap()
    );
    for said in [&b"x1"[..], b"x2"] {
        let delivery = fixture.deliver(lane, &String::from_utf8_lossy(said)).await;
        assert_eq!((delivery.payload.as_slice(), delivery.plan), (said, None));
    }
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
}

#[tokio::test]
async fn a_shared_message_that_is_under_way_counts_as_tried_when_a_portal_is_removed() {
    let (fixture, lane, line) = bound().await;
    assert!(
        fixture
            .store
            .begin_bundle_attempt(line[0].id, 3, NOW)
            .await
            .unwrap()
    );
    stop(&fixture, &fixture.a, Stop::Removed).await;
    // Nothing of it is sent a second time.
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    let counters = fixture.counters(lane).await;
    assert!(balances(&counters), "{counters:?}");
    assert_eq!((counters.failed, counters.pending), (2, 0));
}

#[tokio::test]
async fn a_refused_bundle_is_split_like_one_that_was_not_attempted() {
    let (fixture, lane, line) = bound().await;
    assert!(
        fixture
            .store
            .begin_bundle_attempt(line[0].id, 3, NOW)
            .await
            .unwrap()
    );
    fixture.store.mark_answered(line[0].id).await.unwrap();
    stop(&fixture, &fixture.a, Stop::Removed).await;
    assert_eq!(fixture.deliver(lane, "x1").await.payload, b"x1");
    assert_eq!(fixture.deliver(lane, "x2").await.payload, b"x2");
}

#[tokio::test]
async fn a_bundle_loses_the_message_whose_portal_is_removed() {
    let (fixture, lane, _) = bound().await;
    stop(&fixture, &fixture.a, Stop::Removed).await;
    for said in [&b"x1"[..], b"x2"] {
        let delivery = fixture.deliver(lane, &String::from_utf8_lossy(said)).await;
        assert_eq!((delivery.payload.as_slice(), delivery.plan), (said, None));
    }
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    assert!(balances(&fixture.counters(lane).await));
}

#[tokio::test]
async fn an_unknown_outcome_is_reconciled_during_a_hold_and_then_waits() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "1")]).await;
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
    let looked_for = fixture.ready(lane).await;
    assert_eq!(
        (looked_for.id, looked_for.outcome_unknown_since),
        (active.id, Some(NOW))
    );
    assert!(!fixture.store.may_send(active.id, 1, NOW).await.unwrap());
    fixture.store.mark_not_attempted(active.id).await.unwrap();
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
}

#[tokio::test]
async fn a_notice_about_a_room_waits_and_ends_like_its_messages() {
    for removed in [false, true] {
        let (fixture, second) = fixture().await;
        let lane = to_matrix(&second);
        fixture
            .accept(vec![undecryptable_arrival(&fixture.room, "1", 0)])
            .await;
        stop(&fixture, &fixture.a, Stop::Pause).await;
        let waiting = fixture.store.undecryptable_events(None).await.unwrap();
        let telling = UndecryptableNotice {
            entries: waiting.iter().map(|one| one.entry).collect(),
            place: fixture.room.clone(),
            sender: "@ann:x".to_owned(),
            reason: "no-key".to_owned(),
            merge_within: Duration::from_hours(1),
            here: false,
            device: None,
        };
        let told = fixture
            .store
            .notify_undecryptable(telling, |_| Some(b"of Ann".to_vec()), NOW)
            .await
            .unwrap();
        assert!(told.contains(&lane));
        assert_eq!(head_at(&fixture, lane, NOW).await, None);
        if removed {
            stop(&fixture, &fixture.a, Stop::Removed).await;
            assert_eq!(fixture.counters(lane).await.pending, 0);
        } else {
            fixture.store.resume(fixture.a.id).await.unwrap();
            assert_eq!(fixture.ready(lane).await.payload, b"of Ann");
        }
    }
}

#[tokio::test]
async fn what_waits_on_a_path_comes_along_when_the_room_moves() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "1")]).await;
    stop(&fixture, &fixture.a, Stop::Replaced).await;
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    let next = Place::room("!next");
    let woken = fixture
        .store
        .follow_room_upgrade(&fixture.room, &next, false, b"moved", NOW)
        .await
        .unwrap();
    assert!(woken.contains(&lane));
    assert_eq!(fixture.ready(lane).await.payload, b"1");
}

#[tokio::test]
async fn twenty_portals_and_thousands_of_waiting_messages_cost_little() {
    let fixture = Fixture::new().await;
    let mut rooms = Vec::new();
    for number in 0..20 {
        let room = Place::room(&format!("!r{number}"));
        rooms.push(portal(&fixture.store, &room, "a").await);
    }
    let mut held = Vec::new();
    for number in 0..3_000 {
        let id = format!("{number}");
        held.push(arrival(
            &fixture.room,
            &id,
            footbridge_store::Payload::Ready(vec![1]),
        ));
    }
    fixture.accept(held).await;
    fixture.accept(vec![payload(&rooms[1].room, "free")]).await;
    let lane = LaneId {
        portal: rooms[0].id,
        toward: Side::Matrix,
    };
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    assert_eq!(fixture.ready(lane).await.payload, b"free");
    // The query uses the index and does not scan the whole backlog.
    let plan: Vec<String> = fixture
        .sql()
        .prepare(
            "EXPLAIN QUERY PLAN SELECT o.id FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.portal_id = 1 AND o.toward = 'matrix' AND o.from_place = 'x' AND o.entry_id > 1
             AND (j.key_wait_until IS NULL OR j.key_wait_until > 1 AND o.accepted_at <= 1)
             AND o.bundle_leader_id IS NULL ORDER BY o.id LIMIT 1",
        )
        .unwrap()
        .query_map([], |row| row.get(3))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let plan = plan.join("\n");
    assert!(
        plan.contains("outbox_source") && !plan.contains("TEMP B-TREE"),
        "{plan}"
    );
}

#[tokio::test]
async fn the_lanes_of_other_portals_are_rung_when_one_is_resumed() {
    let (fixture, second) = fixture().await;
    fixture
        .store
        .pause(fixture.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    let woken = fixture.store.resume(fixture.a.id).await.unwrap();
    for portal in [&fixture.a, &fixture.b, &second] {
        assert!(woken.contains(&to_matrix(portal)) && woken.contains(&to_silo(portal)));
    }
}

#[tokio::test]
async fn the_deletion_of_a_part_of_a_shared_message_that_was_not_sent_takes_that_alone() {
    for deleted in [0, 1] {
        let (fixture, lane, line) = bound().await;
        fixture
            .accept(vec![payload(&fixture.a.channel, "gone")])
            .await;
        let all = fixture
            .store
            .lookahead(lane, line[0].id, 9, NOW)
            .await
            .unwrap();
        let deletion = all.last().unwrap().id;
        let owed = line[deleted].id;
        let ended = fixture
            .store
            .cancel_pending(owed, deletion, SkipRule::DeletedBeforeDelivery);
        assert!(ended.await.unwrap());
        for said in ["x1", "r1", "x2"] {
            if line[deleted].payload != said.as_bytes() {
                let delivery = fixture.deliver(lane, said).await;
                let read = (delivery.payload.as_slice(), delivery.plan);
                assert_eq!(read, (said.as_bytes(), None));
            }
        }
        assert_eq!(head_at(&fixture, lane, NOW).await, None);
        assert!(balances(&fixture.counters(lane).await));
    }
}

#[tokio::test]
async fn the_deletion_of_what_may_have_arrived_waits_behind_it() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "1")]).await;
    let owed = fixture.ready(lane).await.id;
    fixture.store.mark_unanswered(owed, NOW).await.unwrap();
    stop(&fixture, &fixture.a, Stop::Pause).await;
    fixture
        .accept(vec![payload(&fixture.a.channel, "gone")])
        .await;
    let deletion = fixture.ready(lane).await.id;
    let ended = fixture
        .store
        .cancel_pending(owed, deletion, SkipRule::DeletedBeforeDelivery);
    assert!(!ended.await.unwrap());
    assert_eq!(head_at(&fixture, lane, NOW).await, None);
    fixture.store.resume(fixture.a.id).await.unwrap();
    assert_eq!(fixture.deliver(lane, "c1").await.payload, b"1");
    assert_eq!(fixture.ready(lane).await.id, deletion);
}

#[tokio::test]
async fn changes_of_a_waiting_message_wait_and_end_with_it() {
    for removed in [false, true] {
        let (fixture, second) = fixture().await;
        let lane = to_matrix(&second);
        fixture.accept(vec![payload(&fixture.room, "1")]).await;
        let owed = fixture.ready(lane).await.id;
        stop(&fixture, &fixture.a, Stop::Pause).await;
        fixture
            .accept(vec![payload(&fixture.a.channel, "liked")])
            .await;
        let liked = fixture.ready(lane).await.id;
        assert!(fixture.store.queue_behind(liked, owed).await.unwrap());
        assert!(!fixture.store.queue_behind(liked, owed).await.unwrap());
        assert_eq!(head_at(&fixture, lane, NOW).await, None);
        if removed {
            stop(&fixture, &fixture.a, Stop::Removed).await;
            assert_eq!(fixture.counters(lane).await.pending, 0);
        } else {
            fixture.store.resume(fixture.a.id).await.unwrap();
            assert_eq!(fixture.deliver(lane, "c1").await.payload, b"1");
            assert_eq!(fixture.deliver(lane, "c2").await.payload, b"liked");
        }
    }
}

#[tokio::test]
async fn what_is_in_doubt_when_a_portal_is_removed_ends_when_it_was_looked_for() {
    for arrived in [true, false] {
        let (fixture, second) = fixture().await;
        let lane = to_matrix(&second);
        fixture.accept(vec![payload(&fixture.room, "1")]).await;
        let active = fixture.ready(lane).await;
        fixture
            .store
            .mark_outcome_unknown(active.id, None, NOW)
            .await
            .unwrap();
        stop(&fixture, &fixture.a, Stop::Removed).await;
        let looked_for = fixture.ready(lane).await;
        assert_eq!(looked_for.id, active.id);
        assert!(!fixture.store.may_send(active.id, 1, NOW).await.unwrap());
        if arrived {
            fixture.deliver(lane, "c1").await;
        } else {
            fixture.store.mark_not_attempted(active.id).await.unwrap();
        }
        let known = fixture.store.is_linked(&second.room, &"c1".into()).await;
        assert_eq!(known.unwrap(), arrived);
        let counters = fixture.counters(lane).await;
        assert!(balances(&counters) && counters.pending == 0, "{counters:?}");
    }
}

#[tokio::test]
async fn a_copy_that_was_made_after_its_delivery_had_ended_is_known_as_a_copy() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "1")]).await;
    let active = fixture.ready(lane).await;
    stop(&fixture, &fixture.a, Stop::Removed).await;
    let made = copy("c1");
    let done = fixture
        .store
        .complete_step(active.id, Some(&made), None, true, NOW);
    assert!(!done.await.unwrap());
    let noted = fixture
        .store
        .link_late_copy(active.entry, &active.to, &made);
    noted.await.unwrap();
    let echo = fixture.accept(vec![payload(&second.room, "c1")]).await;
    assert_eq!(echo, [footbridge_store::Accepted::Duplicate]);
}

#[tokio::test]
async fn the_lanes_in_which_messages_are_taken_apart_are_rung_when_a_portal_is_removed() {
    let (fixture, lane, _) = bound().await;
    let ids = [fixture.a.id];
    let removed = fixture
        .store
        .remove_portals(&ids, None, |_| None, NOW)
        .await;
    assert!(removed.unwrap().lanes.contains(&lane));
}

#[tokio::test]
async fn a_reaction_that_is_postponed_or_ends_unlinked_is_in_no_line() {
    for removed in [true, false] {
        let (fixture, second) = fixture().await;
        let lane = to_matrix(&second);
        fixture.accept(vec![payload(&fixture.a.channel, "1")]).await;
        let target = fixture.deliver(lane, "c1").await.entry;
        fixture.accept(vec![payload(&fixture.room, "liked")]).await;
        let delivery = fixture.ready(lane).await;
        let reacting = footbridge_store::ReactionChange {
            target,
            to: second.room.clone(),
            reactor: "ann".to_owned(),
            payload: b"+1".to_vec(),
            owner: None,
        };
        assert!(
            fixture
                .store
                .add_reaction(delivery.entry, reacting)
                .await
                .unwrap()
        );
        if removed {
            stop(&fixture, &fixture.a, Stop::Removed).await;
        } else {
            let later = fixture
                .store
                .forget_unsent_reaction(delivery.entry, &second.room);
            later.await.unwrap();
        }
        let noted = fixture.store.reactions(target, &second.room).await.unwrap();
        assert_eq!(noted, []);
    }
}

#[tokio::test]
async fn what_failed_and_is_tried_again_when_its_room_moves_can_be_tried_again_after_that() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "1")]).await;
    let id = fixture.ready(lane).await.id;
    let fail = || async {
        let how = Undelivered::Failed {
            kind: "rejected",
            reason: "no".to_owned(),
            about: None,
            notice: FailureNotice::ToSender,
        };
        fixture.store.end_undelivered(id, how, NOW).await.unwrap();
    };
    fail().await;
    fixture.store.retry_parked(&[id]).await.unwrap();
    stop(&fixture, &fixture.a, Stop::Replaced).await;
    let next = Place::room("!next");
    let moved = fixture
        .store
        .follow_room_upgrade(&fixture.room, &next, false, b"moved", NOW);
    moved.await.unwrap();
    fail().await;
    fixture
        .store
        .deactivate_unlisted_portals(&[fixture.a.id, fixture.b.id, second.id], NOW)
        .await
        .unwrap();
    assert_eq!(fixture.store.retry_parked(&[id]).await.unwrap(), [lane]);
    assert_eq!(fixture.ready(lane).await.payload, b"1");
}

#[tokio::test]
async fn what_the_delay_of_a_consent_holds_up_is_not_overdue() {
    let (fixture, second) = fixture().await;
    let lane = to_matrix(&second);
    fixture.accept(vec![payload(&fixture.room, "1")]).await;
    stop(&fixture, &fixture.a, Stop::Delay).await;
    let tallies = fixture.store.lane_counters_at(NOW).await.unwrap();
    let counters = tallies
        .iter()
        .find(|counters| counters.lane == lane)
        .unwrap();
    assert_eq!((counters.on_hold, counters.oldest_not_on_hold), (1, None));
}
