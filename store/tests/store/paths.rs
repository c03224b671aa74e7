//! What a message has to pass between the place where it was said and the place where it is to be read: every portal on
//! its path holds it up, and the removal of any ends it.

use std::time::Duration;

use footbridge_store::{
    Batch, Bundle, Consent, Delivery, Flag, Head, LaneId, Millis, ParkedState, Place, Portal, Side,
    Stand, Tell, Telling, Tombstone, Undelivered,
};

use crate::ground::{
    Ground, NOW, arrival, balances, copy, letter, portal, sealed_letter, to_matrix, to_silo,
};

/// Room and channels `a` and `b` of [`Ground`], and a second room that has channel `a` as well.
async fn ground() -> (Ground, Portal) {
    let ground = Ground::new().await;
    let second = portal(&ground.store, &Place::room("!second"), "a").await;
    (ground, second)
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

async fn stop(ground: &Ground, portal: &Portal, how: Stop) {
    let store = &ground.store;
    match how {
        Stop::NoConsent | Stop::Delay => {
            store.seen_in_clear(&portal.room).await.unwrap();
            let batch = Batch {
                flags: vec![(portal.room.clone(), Flag::EverEncrypted)],
                ..Batch::default()
            };
            store.accept(batch, NOW).await.unwrap();
            if how == Stop::Delay {
                store.agree(portal.id, consent(LATER), NOW).await.unwrap();
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

/// Lets go what this stopped, and all that was stopped with it. Answers the lanes to ring.
async fn release(ground: &Ground, how: Stop) -> Vec<LaneId> {
    let mut rung = Vec::new();
    for (portal, _) in ground.store.holds(NOW).await.unwrap() {
        rung.extend(match how {
            Stop::NoConsent | Stop::Delay => {
                let agreed = ground.store.agree(portal, consent(NOW), NOW).await;
                agreed.unwrap().1
            }
            Stop::Pause | Stop::Replaced => ground.store.resume(portal).await.unwrap(),
            Stop::Removed => Vec::new(),
        });
    }
    rung
}

async fn head_at(ground: &Ground, lane: LaneId, now: Millis) -> Option<Delivery> {
    match ground.store.head(lane, now).await.unwrap() {
        Head::Ready(delivery) => Some(*delivery),
        _ => None,
    }
}

async fn is_held(ground: &Ground, portal: &Portal) -> bool {
    let holds = ground.store.holds(NOW).await.unwrap();
    holds.iter().any(|(held, _)| *held == portal.id)
}

/// Whether somebody who asks is told that the first message is held up.
async fn stands_held(ground: &Ground, from: &Place, lane: LaneId) -> bool {
    let story = ground.store.story(from, &"1".into()).await.unwrap();
    let portals = ground.store.portals().await.unwrap();
    let portal = portals.iter().find(|portal| portal.id == lane.portal);
    let to = portal.map(|portal| match lane.toward {
        Side::Matrix => portal.room.clone(),
        Side::Silo => portal.channel.clone(),
    });
    let stands = story.unwrap().stands.into_iter();
    let mut there = stands.filter(|(place, _)| Some(place) == to.as_ref());
    matches!(there.next(), Some((_, Stand::Pending { held: true, .. })))
}

/// Stops `stopped` while a message of `from` waits in `lane`, of the portal `last`, and another one that does not pass
/// there.
async fn nothing_passes(
    ground: Ground,
    how: Stop,
    stopped: &Portal,
    (from, lane, last): (&Place, LaneId, &Portal),
    free: &Place,
) {
    let said = format!("{how:?}");
    ground
        .accept(vec![
            letter(from, "1"),
            letter(free, "free"),
            letter(from, "2"),
        ])
        .await;
    let first = ground.ready(lane).await;
    assert_eq!(first.payload, b"1", "{said}");
    assert_eq!(first.path.last(), Some(&lane), "{said}");
    stop(&ground, stopped, how).await;
    // What was ready a moment ago is not any more.
    assert!(
        !ground.store.may_go(first.id, 1, NOW).await.unwrap(),
        "{said}"
    );
    if how != Stop::Delay {
        let held = stands_held(&ground, from, lane).await;
        assert_eq!(held, how != Stop::Removed, "{said}");
    }
    ground.accept(vec![letter(from, "3")]).await;
    let ground = ground.restart().await;
    let mut waits = vec![b"1".to_vec(), b"2".to_vec()];
    // What is said in a room during its delay stays there.
    let stays = how == Stop::Delay && first.path.contains(&to_silo(stopped));
    if how != Stop::Removed && !stays {
        waits.push(b"3".to_vec());
    }
    if is_held(&ground, last).await {
        assert_eq!(head_at(&ground, lane, NOW).await, None, "{said}");
    } else {
        // What does not pass there goes on.
        assert_eq!(
            ground.deliver(lane, "c-free").await.payload,
            b"free",
            "{said}"
        );
        let tally = ground.tally(lane).await;
        if how != Stop::Delay {
            assert_eq!(tally.held, tally.pending, "{said}");
            assert_eq!(tally.oldest_free, None, "{said}");
        }
    }
    match how {
        Stop::Removed => {
            assert_eq!(head_at(&ground, lane, NOW).await, None);
            let tally = ground.tally(lane).await;
            assert!(balances(&tally) && tally.pending == 0, "{tally:?}");
            assert_eq!(tally.skipped, [("unlinked".to_owned(), 2)]);
            // Linked again, nothing of it comes back.
            let channel = stopped.channel.address().to_owned();
            portal(&ground.store, &stopped.room, &channel).await;
            assert_eq!(head_at(&ground, lane, LATER).await, None);
        }
        Stop::Delay => {
            let waits_until = ground.store.head(lane, NOW).await.unwrap();
            assert_eq!(waits_until, Head::NotBefore(LATER), "{said}");
            release(&ground, how).await;
        }
        _ => {
            assert!(release(&ground, how).await.contains(&lane), "{said}");
        }
    }
    if how != Stop::Removed {
        // In order, and past what was free where that waited as well.
        let mut came = Vec::new();
        for count in 0.. {
            let Some(next) = head_at(&ground, lane, LATER).await else {
                break;
            };
            let made = copy(&format!("c{count}"));
            let done = ground
                .store
                .step_done(next.id, Some(&made), None, true, LATER);
            done.await.unwrap();
            came.push(next.payload);
        }
        came.retain(|said| said != b"free");
        assert_eq!(came, waits, "{said}");
    }
    assert!(balances(&ground.tally(lane).await), "{said}");
}

#[tokio::test]
async fn of_two_rooms_on_one_channel_what_stops_the_first_stops_its_messages_to_the_second() {
    for how in STOPS {
        let (ground, second) = ground().await;
        let (room, a) = (ground.room.clone(), ground.a.clone());
        let way = (&room, to_matrix(&second), &second);
        nothing_passes(ground, how, &a, way, &a.channel).await;
    }
}

#[tokio::test]
async fn of_two_channels_on_one_room_what_stops_the_first_stops_its_messages_to_the_second() {
    for how in STOPS {
        let ground = Ground::new().await;
        let (room, a, b) = (ground.room.clone(), ground.a.clone(), ground.b.clone());
        let way = (&a.channel, to_silo(&b), &b);
        nothing_passes(ground, how, &a, way, &room).await;
    }
}

#[tokio::test]
async fn in_a_chain_of_three_each_portal_stops_what_passes_it() {
    for how in STOPS {
        for first in [true, false] {
            let (ground, second) = ground().await;
            let (a, b) = (ground.a.clone(), ground.b.clone());
            let stopped = if first { &b } else { &a };
            let way = (&b.channel, to_matrix(&second), &second);
            nothing_passes(ground, how, stopped, way, &a.channel).await;
        }
    }
}

#[tokio::test]
async fn a_delivery_knows_which_portals_it_passes_and_in_which_direction() {
    let (ground, second) = ground().await;
    ground.accept(vec![letter(&ground.b.channel, "1")]).await;
    let there = ground.ready(to_matrix(&second)).await;
    let path = [to_matrix(&ground.b), to_silo(&ground.a), to_matrix(&second)];
    assert_eq!(there.path, path);
    let line = ground
        .store
        .line(there.lane, there.id, 5, NOW)
        .await
        .unwrap();
    assert_eq!(line[0].path, path);
}

#[tokio::test]
async fn another_path_carries_on_what_one_holds_up_but_none_that_was_linked_later() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "before")]).await;
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    // From the first room by channel `b` and a third room to channel `a`.
    let third = Place::room("!third");
    portal(&ground.store, &third, "b").await;
    portal(&ground.store, &third, "a").await;
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    ground.accept(vec![letter(&ground.room, "after")]).await;
    // It may be about what was said before it, and waits behind that.
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    ground.accept(vec![letter(&third, "other")]).await;
    let other = ground.ready(lane).await;
    assert_eq!(other.payload, b"other");
    let line = ground.store.line(lane, other.id, 9, NOW).await.unwrap();
    assert_eq!(line.len(), 1);
    ground.deliver(lane, "c0").await;
    // Removed, the path that was there from the beginning takes with it what was said before the other one was.
    stop(&ground, &ground.a, Stop::Removed).await;
    assert_eq!(ground.deliver(lane, "c1").await.payload, b"after");
    let tally = ground.tally(lane).await;
    assert_eq!(tally.skipped, [("unlinked".to_owned(), 1)]);
    assert!(balances(&tally) && tally.pending == 0);
}

#[tokio::test]
async fn a_clock_that_was_put_back_neither_ends_nor_holds_up_what_is_said_after_the_link() {
    let (ground, second) = ground().await;
    let batch = Batch {
        arrivals: vec![letter(&ground.room, "1")],
        ..Batch::default()
    };
    ground.store.accept(batch, Millis(5)).await.unwrap();
    assert_eq!(ground.ready(to_matrix(&second)).await.payload, b"1");
}

#[tokio::test]
async fn what_failed_is_not_tried_again_once_a_portal_before_its_own_is_removed() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    let fail = async |fact: &str| {
        ground.accept(vec![letter(&ground.room, fact)]).await;
        let delivery = ground.ready(lane).await;
        let how = Undelivered::Failed {
            kind: "rejected",
            reason: "no".to_owned(),
            about: None,
            tell: Tell::Sender,
        };
        ground
            .store
            .undelivered(delivery.id, how, NOW)
            .await
            .unwrap();
        delivery.id
    };
    let (one, two) = (fail("1").await, fail("2").await);
    // Held up it waits when it is tried again.
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    assert_eq!(ground.store.try_again(&[one]).await.unwrap(), [lane]);
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    stop(&ground, &ground.a, Stop::Removed).await;
    assert_eq!(ground.store.try_again(&[one, two]).await.unwrap(), []);
    let about = ground
        .store
        .parked_about(&ground.room, &"2".into())
        .await
        .unwrap();
    let left = about.iter().find(|parked| parked.lane == lane).unwrap();
    assert_eq!((left.state, left.kept), (ParkedState::Failed, false));
    let tally = ground.tally(lane).await;
    assert!(
        balances(&tally) && tally.pending == 0 && tally.parked == 0,
        "{tally:?}"
    );
}

fn bundle(members: &[Delivery]) -> Bundle {
    Bundle {
        plan: b"together".to_vec(),
        members: members.iter().map(|member| member.id).collect(),
        rewritten: Vec::new(),
        included: Vec::new(),
    }
}

/// Messages of the channel and of the first room, bound in the lane to the second room.
async fn bound() -> (Ground, LaneId, Vec<Delivery>) {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    for (from, id) in [
        (&ground.a.channel, "x1"),
        (&ground.room, "r1"),
        (&ground.a.channel, "x2"),
    ] {
        ground.accept(vec![letter(from, id)]).await;
    }
    let head = ground.ready(lane).await;
    let line = ground.store.line(lane, head.id, 9, NOW).await.unwrap();
    assert_eq!(line.len(), 3);
    assert!(ground.store.bind(bundle(&line)).await.unwrap());
    (ground, lane, line)
}

#[tokio::test]
async fn messages_that_were_to_go_together_go_apart_when_one_of_them_is_held_up() {
    let (ground, lane, line) = bound().await;
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    assert!(!ground.store.may_go(line[0].id, 3, NOW).await.unwrap());
    for said in [&b"x1"[..], b"x2"] {
        let delivery = ground.ready(lane).await;
        assert_eq!((delivery.payload.as_slice(), &delivery.plan), (said, &None));
        let line = ground.store.line(lane, delivery.id, 9, NOW).await.unwrap();
        assert!(line.iter().all(|owed| owed.payload != b"r1"));
        ground.deliver(lane, &String::from_utf8_lossy(said)).await;
    }
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    ground.store.resume(ground.a.id).await.unwrap();
    assert_eq!(ground.deliver(lane, "r1").await.payload, b"r1");
}

#[tokio::test]
async fn messages_of_which_nobody_knows_whether_they_went_together_wait_together() {
    let (ground, lane, line) = bound().await;
    ground.store.unanswered(line[0].id, NOW).await.unwrap();
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    ground.accept(vec![letter(&ground.a.channel, "x3")]).await;
    // Alone they might come twice, and what comes later would come before them: first they are looked for.
    let looked_for = ground.ready(lane).await;
    assert_eq!(
        (looked_for.id, looked_for.unanswered_since),
        (line[0].id, Some(NOW))
    );
    assert!(!ground.store.may_go(looked_for.id, 3, NOW).await.unwrap());
    assert!(!ground.store.sets_off(looked_for.id, 3, NOW).await.unwrap());
    assert_eq!(ground.ready(lane).await.plan, looked_for.plan);
    // Removed, the text of the room goes nowhere any more, and the channel's messages end as failed.
    stop(&ground, &ground.a, Stop::Removed).await;
    let tally = ground.tally(lane).await;
    assert!(balances(&tally), "{tally:?}");
    assert_eq!((tally.failed, tally.parked, tally.pending), (2, 2, 1));
    assert_eq!(tally.skipped, [("unlinked".to_owned(), 1)]);
    let left = ground.deliver(lane, "x3").await;
    assert_eq!((left.payload.as_slice(), left.plan), (&b"x3"[..], None));
}

#[tokio::test]
async fn what_was_said_elsewhere_goes_on_once_it_is_known_that_a_shared_message_is_not_there() {
    let (ground, lane, line) = bound().await;
    ground.store.unanswered(line[0].id, NOW).await.unwrap();
    stop(&ground, &ground.a, Stop::Pause).await;
    assert_eq!(ground.ready(lane).await.id, line[0].id);
    ground.store.unbind(line[0].id).await.unwrap();
    for said in [&b"x1"[..], b"x2"] {
        let delivery = ground.deliver(lane, &String::from_utf8_lossy(said)).await;
        assert_eq!((delivery.payload.as_slice(), delivery.plan), (said, None));
        assert_eq!(delivery.unanswered_since, None);
    }
    ground.store.resume(ground.a.id).await.unwrap();
    assert_eq!(ground.deliver(lane, "r1").await.payload, b"r1");
}

#[tokio::test]
async fn a_shared_message_that_was_taken_apart_does_not_go_as_it_was_written() {
    let (ground, lane, line) = bound().await;
    // It waits for its turn, with its plan in hand, while a portal is removed.
    assert!(ground.store.may_go(line[0].id, 3, NOW).await.unwrap());
    stop(&ground, &ground.a, Stop::Removed).await;
    assert!(!ground.store.may_go(line[0].id, 3, NOW).await.unwrap());
    assert!(!ground.store.sets_off(line[0].id, 3, NOW).await.unwrap());
    for said in [&b"x1"[..], b"x2"] {
        let delivery = ground.deliver(lane, &String::from_utf8_lossy(said)).await;
        assert_eq!((delivery.payload.as_slice(), delivery.plan), (said, None));
    }
    assert_eq!(head_at(&ground, lane, NOW).await, None);
}

#[tokio::test]
async fn a_shared_message_that_is_under_way_counts_as_tried_when_a_portal_is_removed() {
    let (ground, lane, line) = bound().await;
    assert!(ground.store.sets_off(line[0].id, 3, NOW).await.unwrap());
    stop(&ground, &ground.a, Stop::Removed).await;
    // Nothing of it is sent a second time.
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    let tally = ground.tally(lane).await;
    assert!(balances(&tally), "{tally:?}");
    assert_eq!((tally.failed, tally.pending), (2, 0));
}

#[tokio::test]
async fn a_shared_message_that_was_turned_away_is_taken_apart_like_one_that_was_not_tried() {
    let (ground, lane, line) = bound().await;
    assert!(ground.store.sets_off(line[0].id, 3, NOW).await.unwrap());
    ground.store.answered(line[0].id).await.unwrap();
    stop(&ground, &ground.a, Stop::Removed).await;
    assert_eq!(ground.deliver(lane, "x1").await.payload, b"x1");
    assert_eq!(ground.deliver(lane, "x2").await.payload, b"x2");
}

#[tokio::test]
async fn messages_that_were_to_go_together_lose_the_one_whose_portal_is_removed() {
    let (ground, lane, _) = bound().await;
    stop(&ground, &ground.a, Stop::Removed).await;
    for said in [&b"x1"[..], b"x2"] {
        let delivery = ground.deliver(lane, &String::from_utf8_lossy(said)).await;
        assert_eq!((delivery.payload.as_slice(), delivery.plan), (said, None));
    }
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    assert!(balances(&ground.tally(lane).await));
}

#[tokio::test]
async fn what_is_in_doubt_is_looked_for_while_it_is_held_up_and_then_waits() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    let begun = ground.ready(lane).await;
    ground.store.unsure(begun.id, None, NOW).await.unwrap();
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    let looked_for = ground.ready(lane).await;
    assert_eq!(
        (looked_for.id, looked_for.unsure_since),
        (begun.id, Some(NOW))
    );
    assert!(!ground.store.may_go(begun.id, 1, NOW).await.unwrap());
    ground.store.held_back(begun.id).await.unwrap();
    assert_eq!(head_at(&ground, lane, NOW).await, None);
}

#[tokio::test]
async fn a_notice_about_a_room_waits_and_ends_like_what_was_said_there() {
    for removed in [false, true] {
        let (ground, second) = ground().await;
        let lane = to_matrix(&second);
        ground
            .accept(vec![sealed_letter(&ground.room, "1", 0)])
            .await;
        stop(&ground, &ground.a, Stop::Pause).await;
        let waiting = ground.store.waiting(None).await.unwrap();
        let telling = Telling {
            entries: waiting.iter().map(|one| one.entry).collect(),
            place: ground.room.clone(),
            sender: "@ann:x".to_owned(),
            reason: "no-key".to_owned(),
            once_within: Duration::from_hours(1),
            here: false,
            device: None,
        };
        let told = ground
            .store
            .tell(telling, |_| Some(b"of Ann".to_vec()), NOW)
            .await
            .unwrap();
        assert!(told.contains(&lane));
        assert_eq!(head_at(&ground, lane, NOW).await, None);
        if removed {
            stop(&ground, &ground.a, Stop::Removed).await;
            assert_eq!(ground.tally(lane).await.pending, 0);
        } else {
            ground.store.resume(ground.a.id).await.unwrap();
            assert_eq!(ground.ready(lane).await.payload, b"of Ann");
        }
    }
}

#[tokio::test]
async fn what_waits_on_a_path_comes_along_when_the_room_moves() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    stop(&ground, &ground.a, Stop::Replaced).await;
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    let next = Place::room("!next");
    let rung = ground
        .store
        .follow_upgrade(&ground.room, (&next, false), b"moved", NOW)
        .await
        .unwrap();
    assert!(rung.contains(&lane));
    assert_eq!(ground.ready(lane).await.payload, b"1");
}

#[tokio::test]
async fn twenty_portals_and_thousands_of_messages_that_are_held_up_cost_little() {
    let ground = Ground::new().await;
    let mut rooms = Vec::new();
    for number in 0..20 {
        let room = Place::room(&format!("!r{number}"));
        rooms.push(portal(&ground.store, &room, "a").await);
    }
    let mut held = Vec::new();
    for number in 0..3_000 {
        let id = format!("{number}");
        held.push(arrival(
            &ground.room,
            &id,
            footbridge_store::Payload::Ready(vec![1]),
        ));
    }
    ground.accept(held).await;
    ground.accept(vec![letter(&rooms[1].room, "free")]).await;
    let lane = LaneId {
        portal: rooms[0].id,
        toward: Side::Matrix,
    };
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    assert_eq!(ground.ready(lane).await.payload, b"free");
    // By the index, and not through all that waits.
    let plan: Vec<String> = ground
        .sql()
        .prepare(
            "EXPLAIN QUERY PLAN SELECT o.id FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.portal_id = 1 AND o.toward = 'matrix' AND o.from_place = 'x' AND o.entry_id > 1
             AND (j.hold_until IS NULL OR j.hold_until > 1 AND o.accepted_at <= 1)
             AND o.leader IS NULL ORDER BY o.id LIMIT 1",
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
    let (ground, second) = ground().await;
    ground
        .store
        .pause(ground.a.id, "@ann:x", NOW)
        .await
        .unwrap();
    let rung = ground.store.resume(ground.a.id).await.unwrap();
    for portal in [&ground.a, &ground.b, &second] {
        assert!(rung.contains(&to_matrix(portal)) && rung.contains(&to_silo(portal)));
    }
}

#[tokio::test]
async fn the_deletion_of_a_part_of_a_shared_message_that_was_not_sent_takes_that_alone() {
    for deleted in [0, 1] {
        let (ground, lane, line) = bound().await;
        ground.accept(vec![letter(&ground.a.channel, "gone")]).await;
        let all = ground.store.line(lane, line[0].id, 9, NOW).await.unwrap();
        let deletion = all.last().unwrap().id;
        let owed = line[deleted].id;
        let ended = ground.store.take_back_owed(owed, deletion, "taken-back");
        assert!(ended.await.unwrap());
        for said in ["x1", "r1", "x2"] {
            if line[deleted].payload != said.as_bytes() {
                let delivery = ground.deliver(lane, said).await;
                let read = (delivery.payload.as_slice(), delivery.plan);
                assert_eq!(read, (said.as_bytes(), None));
            }
        }
        assert_eq!(head_at(&ground, lane, NOW).await, None);
        assert!(balances(&ground.tally(lane).await));
    }
}

#[tokio::test]
async fn the_deletion_of_what_may_have_arrived_waits_behind_it() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    let owed = ground.ready(lane).await.id;
    ground.store.unanswered(owed, NOW).await.unwrap();
    stop(&ground, &ground.a, Stop::Pause).await;
    ground.accept(vec![letter(&ground.a.channel, "gone")]).await;
    let deletion = ground.ready(lane).await.id;
    let ended = ground.store.take_back_owed(owed, deletion, "taken-back");
    assert!(!ended.await.unwrap());
    assert_eq!(head_at(&ground, lane, NOW).await, None);
    ground.store.resume(ground.a.id).await.unwrap();
    assert_eq!(ground.deliver(lane, "c1").await.payload, b"1");
    assert_eq!(ground.ready(lane).await.id, deletion);
}

#[tokio::test]
async fn what_is_about_a_message_that_is_held_up_waits_and_ends_with_it() {
    for removed in [false, true] {
        let (ground, second) = ground().await;
        let lane = to_matrix(&second);
        ground.accept(vec![letter(&ground.room, "1")]).await;
        let owed = ground.ready(lane).await.id;
        stop(&ground, &ground.a, Stop::Pause).await;
        ground
            .accept(vec![letter(&ground.a.channel, "liked")])
            .await;
        let liked = ground.ready(lane).await.id;
        assert!(ground.store.wait_behind(liked, owed).await.unwrap());
        assert!(!ground.store.wait_behind(liked, owed).await.unwrap());
        assert_eq!(head_at(&ground, lane, NOW).await, None);
        if removed {
            stop(&ground, &ground.a, Stop::Removed).await;
            assert_eq!(ground.tally(lane).await.pending, 0);
        } else {
            ground.store.resume(ground.a.id).await.unwrap();
            assert_eq!(ground.deliver(lane, "c1").await.payload, b"1");
            assert_eq!(ground.deliver(lane, "c2").await.payload, b"liked");
        }
    }
}

#[tokio::test]
async fn what_is_in_doubt_when_a_portal_is_removed_ends_when_it_was_looked_for() {
    for arrived in [true, false] {
        let (ground, second) = ground().await;
        let lane = to_matrix(&second);
        ground.accept(vec![letter(&ground.room, "1")]).await;
        let begun = ground.ready(lane).await;
        ground.store.unsure(begun.id, None, NOW).await.unwrap();
        stop(&ground, &ground.a, Stop::Removed).await;
        let looked_for = ground.ready(lane).await;
        assert_eq!(looked_for.id, begun.id);
        assert!(!ground.store.may_go(begun.id, 1, NOW).await.unwrap());
        if arrived {
            ground.deliver(lane, "c1").await;
        } else {
            ground.store.held_back(begun.id).await.unwrap();
        }
        let known = ground.store.is_linked(&second.room, &"c1".into()).await;
        assert_eq!(known.unwrap(), arrived);
        let tally = ground.tally(lane).await;
        assert!(balances(&tally) && tally.pending == 0, "{tally:?}");
    }
}

#[tokio::test]
async fn a_copy_that_was_made_after_its_delivery_had_ended_is_known_as_a_copy() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    let begun = ground.ready(lane).await;
    stop(&ground, &ground.a, Stop::Removed).await;
    let made = copy("c1");
    let done = ground
        .store
        .step_done(begun.id, Some(&made), None, true, NOW);
    assert!(!done.await.unwrap());
    let noted = ground.store.made_too_late(begun.entry, &begun.to, &made);
    noted.await.unwrap();
    let echo = ground.accept(vec![letter(&second.room, "c1")]).await;
    assert_eq!(echo, [footbridge_store::Accepted::Seen]);
}

#[tokio::test]
async fn the_lanes_in_which_messages_are_taken_apart_are_rung_when_a_portal_is_removed() {
    let (ground, lane, _) = bound().await;
    let ids = [ground.a.id];
    let removed = ground.store.remove_portals(&ids, None, |_| None, NOW).await;
    assert!(removed.unwrap().lanes.contains(&lane));
}

#[tokio::test]
async fn a_reaction_that_is_put_off_or_ends_unlinked_is_told_of_by_nothing() {
    for removed in [true, false] {
        let (ground, second) = ground().await;
        let lane = to_matrix(&second);
        ground.accept(vec![letter(&ground.a.channel, "1")]).await;
        let target = ground.deliver(lane, "c1").await.entry;
        ground.accept(vec![letter(&ground.room, "liked")]).await;
        let delivery = ground.ready(lane).await;
        let reacting = footbridge_store::Reacting {
            target,
            to: second.room.clone(),
            who: "ann".to_owned(),
            letter: b"+1".to_vec(),
        };
        assert!(ground.store.react(delivery.entry, reacting).await.unwrap());
        if removed {
            stop(&ground, &ground.a, Stop::Removed).await;
        } else {
            let later = ground.store.react_later(delivery.entry, &second.room);
            later.await.unwrap();
        }
        let noted = ground.store.reactions(target, &second.room).await.unwrap();
        assert_eq!(noted, []);
    }
}

#[tokio::test]
async fn what_failed_and_is_tried_again_when_its_room_moves_can_be_tried_again_after_that() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    let id = ground.ready(lane).await.id;
    let fail = || async {
        let how = Undelivered::Failed {
            kind: "rejected",
            reason: "no".to_owned(),
            about: None,
            tell: Tell::Sender,
        };
        ground.store.undelivered(id, how, NOW).await.unwrap();
    };
    fail().await;
    ground.store.try_again(&[id]).await.unwrap();
    stop(&ground, &ground.a, Stop::Replaced).await;
    let next = Place::room("!next");
    let moved = ground
        .store
        .follow_upgrade(&ground.room, (&next, false), b"moved", NOW);
    moved.await.unwrap();
    fail().await;
    ground
        .store
        .keep_portals(&[ground.a.id, ground.b.id, second.id], NOW)
        .await
        .unwrap();
    assert_eq!(ground.store.try_again(&[id]).await.unwrap(), [lane]);
    assert_eq!(ground.ready(lane).await.payload, b"1");
}

#[tokio::test]
async fn what_the_delay_of_a_consent_holds_up_is_not_overdue() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    stop(&ground, &ground.a, Stop::Delay).await;
    let tallies = ground.store.tallies_at(NOW).await.unwrap();
    let tally = tallies.iter().find(|tally| tally.lane == lane).unwrap();
    assert_eq!((tally.held, tally.oldest_free), (1, None));
}

#[tokio::test]
async fn what_waited_when_paths_were_introduced_goes_on() {
    let (ground, second) = ground().await;
    let lane = to_matrix(&second);
    ground.accept(vec![letter(&ground.room, "1")]).await;
    stop(&ground, &ground.a, Stop::Replaced).await;
    let next = Place::room("!next");
    let moved = ground
        .store
        .follow_upgrade(&ground.room, (&next, false), b"moved", NOW);
    moved.await.unwrap();
    let sql = ground.sql();
    // As the step that introduced them left a store whose clock had been put back.
    sql.execute(
        "UPDATE outbox SET from_place = ?1 WHERE from_place = ?2",
        [&ground.room, &next],
    )
    .unwrap();
    sql.execute("UPDATE portal SET opened_after = 1000", [])
        .unwrap();
    sql.execute_batch(include_str!("../../migrations/019_paths_before.sql"))
        .unwrap();
    let listed = [ground.a.id, ground.b.id, second.id];
    ground.store.keep_portals(&listed, NOW).await.unwrap();
    assert_eq!(ground.ready(lane).await.payload, b"1");
}
