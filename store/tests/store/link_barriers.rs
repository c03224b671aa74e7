//! Messages from before a portal was linked that are accepted after it do not pass that portal: a place that was already
//! followed may be behind.

use footbridge_store::{
    Accepted, Arrival, Batch, Gap, LaneId, LinkBarrier, Millis, Place, Portal, RemoteId,
};

use crate::support::{Ground, NOW, balances, payload, portal, sealed_letter, to_matrix, to_silo};

const LATER: Millis = Millis(NOW.0 + 1_000);

/// The places have been read this far.
async fn followed(ground: &Ground, places: &[&Place]) {
    let cursors = places.iter();
    let cursors = cursors.map(|place| (format!("{place}/since"), "5".to_owned()));
    let batch = Batch {
        cursors: cursors.collect(),
        ..Batch::default()
    };
    ground.store.accept(batch, NOW).await.unwrap();
}

async fn mark(ground: &Ground, place: &Place) -> Option<LinkBarrier> {
    ground
        .store
        .newest_link_barrier(vec![place.clone()])
        .await
        .unwrap()
}

/// All events that were requested now have been accepted.
async fn caught_up(ground: &Ground, place: &Place) {
    let mark = mark(ground, place).await.expect("a link is new");
    let heard = ground.store.lift_link_barriers(vec![place.clone()], mark);
    heard.await.unwrap();
}

/// The lanes with a pending delivery.
async fn owing(ground: &Ground, arrival: Arrival) -> Vec<LaneId> {
    match ground.accept(vec![arrival]).await.pop() {
        Some(Accepted::New(lanes)) => lanes,
        other => panic!("{other:?}"),
    }
}

/// A second portal of the ground's only room, to channel `b`, and messages on either side before all events were accepted.
async fn linked(ground: &Ground) -> Portal {
    portal(&ground.store, &ground.room, "b").await
}

#[tokio::test]
async fn what_a_followed_room_had_before_a_second_link_goes_to_the_first_channel_only() {
    let ground = Ground::with_one_portal().await;
    followed(&ground, &[&ground.room]).await;
    let asked_before = mark(&ground, &ground.room).await;
    assert_eq!(asked_before, None);
    let second = linked(&ground).await;
    let (first, new) = (to_silo(&ground.a), to_silo(&second));
    assert_eq!(
        owing(&ground, payload(&ground.room, "$night")).await,
        [first]
    );
    let late_key = sealed_letter(&ground.room, "$no-key", NOW.0 + 5);
    assert_eq!(owing(&ground, late_key).await, [first]);
    // A process that dies meanwhile has accepted nothing more.
    let ground = ground.restart().await;
    assert_eq!(
        owing(&ground, payload(&ground.room, "$more")).await,
        [first]
    );
    // Its own channel was not followed before: its messages pass to the room.
    let there = owing(&ground, payload(&second.channel, "m")).await;
    assert!(there.contains(&to_matrix(&second)), "{there:?}");

    caught_up(&ground, &ground.room).await;
    let now = owing(&ground, payload(&ground.room, "$now")).await;
    assert_eq!(now, [first, new]);
    let counters = ground.counters(new).await;
    assert!(balances(&counters));
    assert_eq!(counters.skipped, [("before-link".to_owned(), 3)]);
}

#[tokio::test]
async fn what_was_asked_for_before_a_link_or_left_a_gap_proves_nothing() {
    let ground = Ground::with_one_portal().await;
    followed(&ground, &[&ground.room]).await;
    let c = portal(&ground.store, &ground.room, "c").await;
    let asked = mark(&ground, &ground.room).await.unwrap();
    let second = linked(&ground).await;
    let (first, third) = (to_silo(&ground.a), to_silo(&c));
    let place = || vec![ground.room.clone()];
    ground
        .store
        .lift_link_barriers(place(), asked)
        .await
        .unwrap();
    assert_eq!(
        owing(&ground, payload(&ground.room, "$1")).await,
        [first, third]
    );
    let gap = Gap {
        place: ground.room.clone(),
        from: "$2".to_owned(),
        stop: None,
    };
    let open = Batch {
        gaps: vec![gap.clone()],
        ..Batch::default()
    };
    ground.store.accept(open, NOW).await.unwrap();
    caught_up(&ground, &ground.room).await;
    assert_eq!(
        owing(&ground, payload(&ground.room, "$2")).await,
        [first, third]
    );
    let filled = Batch {
        filled: vec![gap],
        ..Batch::default()
    };
    ground.store.accept(filled, NOW).await.unwrap();
    caught_up(&ground, &ground.room).await;
    assert_eq!(
        owing(&ground, payload(&ground.room, "$3")).await,
        [first, to_silo(&second), third]
    );
}

#[tokio::test]
async fn what_a_channel_had_before_a_second_room_was_linked_goes_to_the_first_room_and_no_further()
{
    let ground = Ground::with_one_portal().await;
    let beyond = portal(&ground.store, &Place::room("!other"), "b").await;
    followed(&ground, &[&ground.a.channel, &beyond.room, &beyond.channel]).await;
    // It links both channels, and the rooms behind them.
    let joint = linked(&ground).await;
    let first = to_matrix(&ground.a);
    let a = &ground.a.channel;
    assert_eq!(owing(&ground, payload(a, "m1")).await, [first]);
    let other = &beyond.room;
    let theirs = owing(&ground, payload(other, "$1")).await;
    assert_eq!(theirs, [to_silo(&beyond)]);
    // Each place by itself.
    caught_up(&ground, a).await;
    let all = [first, to_silo(&joint), to_matrix(&beyond)];
    assert_eq!(owing(&ground, payload(a, "m2")).await, all);
    assert_eq!(
        owing(&ground, payload(other, "$2")).await,
        [to_silo(&beyond)]
    );
    caught_up(&ground, other).await;
    let all = [to_silo(&beyond), to_matrix(&joint), to_silo(&ground.a)];
    assert_eq!(owing(&ground, payload(other, "$3")).await, all);
}

#[tokio::test]
async fn a_portal_that_is_removed_and_linked_again_while_another_follows_the_room_begins_anew() {
    let ground = Ground::with_one_portal().await;
    followed(&ground, &[&ground.room]).await;
    let second = linked(&ground).await;
    caught_up(&ground, &ground.room).await;
    let (first, new) = (to_silo(&ground.a), to_silo(&second));
    let both = [first, new];
    assert_eq!(owing(&ground, payload(&ground.room, "$1")).await, both);
    // Found again at a start it is the same link.
    linked(&ground).await;
    assert_eq!(owing(&ground, payload(&ground.room, "$2")).await, both);
    let ids = [second.id];
    let removed = ground.store.remove_portals(&ids, None, |_| None, NOW);
    removed.await.unwrap();
    linked(&ground).await;
    assert_eq!(owing(&ground, payload(&ground.room, "$3")).await, [first]);
    caught_up(&ground, &ground.room).await;
    assert_eq!(owing(&ground, payload(&ground.room, "$4")).await, both);
}

#[tokio::test]
async fn of_what_stands_among_what_was_taken_in_before_only_what_is_newer_than_a_link_passes_it() {
    let ground = Ground::with_one_portal().await;
    followed(&ground, &[&ground.room]).await;
    let spec = linked(&ground).await.spec;
    let ids = [ground.b.id];
    let removed = ground.store.remove_portals(&ids, None, |_| None, NOW);
    removed.await.unwrap();
    let channel = ground.b.channel.clone();
    let second = ground
        .store
        .open_portal(&spec, &ground.room, &channel, LATER)
        .await
        .unwrap();
    caught_up(&ground, &ground.room).await;
    let said = |id: &str, sent_at: i64| Arrival {
        sent_at: Millis(sent_at),
        ..payload(&ground.room, id)
    };
    let event_id = |id: &str| (ground.room.clone(), RemoteId::from(id));
    let batch = Batch {
        arrivals: vec![
            said("$audited", NOW.0 + 1),
            said("$overlaps", NOW.0 + 2),
            said("$since", LATER.0 + 1),
            // Whatever the clock of its server says.
            said("$in-order", 3),
        ],
        late: vec![event_id("$audited"), event_id("$since")],
        out_of_order: vec![event_id("$overlaps")],
        ..Batch::default()
    };
    let accepted = ground.store.accept(batch, LATER).await.unwrap();
    let (first, new) = (to_silo(&ground.a), to_silo(&second));
    let both = Accepted::New(vec![first, new]);
    let one = Accepted::New(vec![first]);
    assert_eq!(accepted, [one.clone(), one, both.clone(), both]);
}

#[tokio::test]
async fn a_room_that_follows_into_one_that_is_linked_brings_nothing_of_before_either_way() {
    let ground = Ground::with_one_portal().await;
    let there = portal(&ground.store, &Place::room("!next"), "b").await;
    followed(
        &ground,
        &[&ground.room, &ground.a.channel, &there.room, &there.channel],
    )
    .await;
    let next = &there.room;
    let moved = ground
        .store
        .follow_room_upgrade(&ground.room, (next, false), b"moved", NOW);
    moved.await.unwrap();
    let (a, b) = (&ground.a, &there);
    assert_eq!(owing(&ground, payload(next, "$1")).await, [to_silo(b)]);
    assert_eq!(
        owing(&ground, payload(&b.channel, "m1")).await,
        [to_matrix(b)]
    );
    assert_eq!(
        owing(&ground, payload(&a.channel, "n1")).await,
        [to_matrix(a)]
    );
    for place in [next, &a.channel, &b.channel] {
        caught_up(&ground, place).await;
    }
    let all = owing(&ground, payload(next, "$2")).await;
    assert_eq!(all, [to_silo(a), to_silo(b)]);
}

#[tokio::test]
async fn until_then_what_is_said_takes_the_longer_way_that_was_open_before() {
    let ground = Ground::with_one_portal().await;
    let back = portal(&ground.store, &Place::room("!second"), "a").await;
    let on = portal(&ground.store, &back.room, "b").await;
    followed(&ground, &[&ground.room]).await;
    let short = linked(&ground).await;
    let (first, second) = (to_silo(&ground.a), to_matrix(&back));
    let long = owing(&ground, payload(&ground.room, "$night")).await;
    assert_eq!(long.len(), 3);
    for lane in [first, second, to_silo(&on)] {
        assert!(long.contains(&lane), "{long:?}");
    }
    caught_up(&ground, &ground.room).await;
    let now = owing(&ground, payload(&ground.room, "$now")).await;
    assert!(now.contains(&to_silo(&short)), "{now:?}");
}
