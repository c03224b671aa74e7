//! Messages from before a portal was linked that are accepted after it do not pass that portal: the bridge may not have
//! read everything yet in a place that it already followed.

use footbridge_store::{
    Accepted, Arrival, Batch, Gap, LaneId, LinkBarrier, Millis, Place, Portal, RemoteId, SkipRule,
};

use crate::support::{
    Fixture, NOW, balances, payload, portal, to_matrix, to_silo, undecryptable_arrival,
};

const LATER: Millis = Millis(NOW.0 + 1_000);

/// Sets the cursors of places that the bridge already follows.
async fn followed(fixture: &Fixture, places: &[&Place]) {
    let cursors = places.iter();
    let cursors = cursors.map(|place| (format!("{place}/since"), "5".to_owned()));
    let batch = Batch {
        cursors: cursors.collect(),
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
}

async fn mark(fixture: &Fixture, place: &Place) -> Option<LinkBarrier> {
    fixture
        .store
        .newest_link_barrier(vec![place.clone()])
        .await
        .unwrap()
}

/// Everything that the bridge had requested so far was accepted.
async fn caught_up(fixture: &Fixture, place: &Place) {
    let mark = mark(fixture, place).await.expect("there is a link barrier");
    let heard = fixture.store.lift_link_barriers(vec![place.clone()], mark);
    heard.await.unwrap();
}

/// The lanes with a pending delivery.
async fn accepted_lanes(fixture: &Fixture, arrival: Arrival) -> Vec<LaneId> {
    match fixture.accept(vec![arrival]).await.pop() {
        Some(Accepted::New(lanes)) => lanes,
        other => panic!("{other:?}"),
    }
}

/// Links a second portal of the fixture's only room, to channel `b`.
async fn linked(fixture: &Fixture) -> Portal {
    portal(&fixture.store, &fixture.room, "b").await
}

#[tokio::test]
async fn messages_from_before_a_second_link_go_to_the_first_channel_only() {
    let fixture = Fixture::with_one_portal().await;
    followed(&fixture, &[&fixture.room]).await;
    let asked_before = mark(&fixture, &fixture.room).await;
    assert_eq!(asked_before, None);
    let second = linked(&fixture).await;
    let (first, new) = (to_silo(&fixture.a), to_silo(&second));
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$night")).await,
        [first]
    );
    let late_key = undecryptable_arrival(&fixture.room, "$no-key", NOW.0 + 5);
    assert_eq!(accepted_lanes(&fixture, late_key).await, [first]);
    // A process that ends meanwhile has accepted nothing more.
    let fixture = fixture.restart().await;
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$more")).await,
        [first]
    );
    // Nobody followed its own channel before: its messages pass to the room.
    let there = accepted_lanes(&fixture, payload(&second.channel, "m")).await;
    assert!(there.contains(&to_matrix(&second)), "{there:?}");

    caught_up(&fixture, &fixture.room).await;
    let now = accepted_lanes(&fixture, payload(&fixture.room, "$now")).await;
    assert_eq!(now, [first, new]);
    let counters = fixture.counters(new).await;
    assert!(balances(&counters));
    assert_eq!(counters.skipped, [(SkipRule::BeforeLink, 3)]);
}

#[tokio::test]
async fn what_was_asked_for_before_a_link_or_left_a_gap_proves_nothing() {
    let fixture = Fixture::with_one_portal().await;
    followed(&fixture, &[&fixture.room]).await;
    let c = portal(&fixture.store, &fixture.room, "c").await;
    let asked = mark(&fixture, &fixture.room).await.unwrap();
    let second = linked(&fixture).await;
    let (first, third) = (to_silo(&fixture.a), to_silo(&c));
    let place = || vec![fixture.room.clone()];
    fixture
        .store
        .lift_link_barriers(place(), asked)
        .await
        .unwrap();
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$1")).await,
        [first, third]
    );
    let gap = Gap {
        place: fixture.room.clone(),
        from: "$2".to_owned(),
        stop: None,
    };
    let open = Batch {
        gaps: vec![gap.clone()],
        ..Batch::default()
    };
    fixture.store.accept(open, NOW).await.unwrap();
    caught_up(&fixture, &fixture.room).await;
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$2")).await,
        [first, third]
    );
    let filled = Batch {
        filled: vec![gap],
        ..Batch::default()
    };
    fixture.store.accept(filled, NOW).await.unwrap();
    caught_up(&fixture, &fixture.room).await;
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$3")).await,
        [first, to_silo(&second), third]
    );
}

#[tokio::test]
async fn messages_from_before_a_second_room_was_linked_go_to_the_first_room_only() {
    let fixture = Fixture::with_one_portal().await;
    let beyond = portal(&fixture.store, &Place::room("!other"), "b").await;
    followed(
        &fixture,
        &[&fixture.a.channel, &beyond.room, &beyond.channel],
    )
    .await;
    // It links both channels, and the rooms behind them.
    let joint = linked(&fixture).await;
    let first = to_matrix(&fixture.a);
    let a = &fixture.a.channel;
    assert_eq!(accepted_lanes(&fixture, payload(a, "m1")).await, [first]);
    let other = &beyond.room;
    let theirs = accepted_lanes(&fixture, payload(other, "$1")).await;
    assert_eq!(theirs, [to_silo(&beyond)]);
    // Each place has its own barrier.
    caught_up(&fixture, a).await;
    let all = [first, to_silo(&joint), to_matrix(&beyond)];
    assert_eq!(accepted_lanes(&fixture, payload(a, "m2")).await, all);
    assert_eq!(
        accepted_lanes(&fixture, payload(other, "$2")).await,
        [to_silo(&beyond)]
    );
    caught_up(&fixture, other).await;
    let all = [to_silo(&beyond), to_matrix(&joint), to_silo(&fixture.a)];
    assert_eq!(accepted_lanes(&fixture, payload(other, "$3")).await, all);
}

#[tokio::test]
async fn a_portal_that_is_linked_again_starts_empty_while_another_follows_the_room() {
    let fixture = Fixture::with_one_portal().await;
    followed(&fixture, &[&fixture.room]).await;
    let second = linked(&fixture).await;
    caught_up(&fixture, &fixture.room).await;
    let (first, new) = (to_silo(&fixture.a), to_silo(&second));
    let both = [first, new];
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$1")).await,
        both
    );
    // A portal that a start finds again is the same link.
    linked(&fixture).await;
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$2")).await,
        both
    );
    let ids = [second.id];
    let removed = fixture.store.remove_portals(&ids, None, |_| None, NOW);
    removed.await.unwrap();
    linked(&fixture).await;
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$3")).await,
        [first]
    );
    caught_up(&fixture, &fixture.room).await;
    assert_eq!(
        accepted_lanes(&fixture, payload(&fixture.room, "$4")).await,
        both
    );
}

#[tokio::test]
async fn among_older_events_only_those_newer_than_a_link_pass_it() {
    let fixture = Fixture::with_one_portal().await;
    followed(&fixture, &[&fixture.room]).await;
    let spec = linked(&fixture).await.spec;
    let ids = [fixture.b.id];
    let removed = fixture.store.remove_portals(&ids, None, |_| None, NOW);
    removed.await.unwrap();
    let channel = fixture.b.channel.clone();
    let second = fixture
        .store
        .open_portal(&spec, &fixture.room, &channel, LATER)
        .await
        .unwrap();
    caught_up(&fixture, &fixture.room).await;
    let said = |id: &str, sent_at: i64| Arrival {
        sent_at: Millis(sent_at),
        ..payload(&fixture.room, id)
    };
    let event_id = |id: &str| (fixture.room.clone(), RemoteId::from(id));
    let batch = Batch {
        arrivals: vec![
            said("$audited", NOW.0 + 1),
            said("$overlaps", NOW.0 + 2),
            said("$since", LATER.0 + 1),
            // The clock of the sender's server does not matter.
            said("$in-order", 3),
        ],
        late: vec![event_id("$audited"), event_id("$since")],
        out_of_order: vec![event_id("$overlaps")],
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, LATER).await.unwrap();
    let (first, new) = (to_silo(&fixture.a), to_silo(&second));
    let both = Accepted::New(vec![first, new]);
    let one = Accepted::New(vec![first]);
    assert_eq!(accepted, [one.clone(), one, both.clone(), both]);
}

#[tokio::test]
async fn an_upgrade_to_a_linked_room_relays_no_earlier_messages_either_way() {
    let fixture = Fixture::with_one_portal().await;
    let there = portal(&fixture.store, &Place::room("!next"), "b").await;
    followed(
        &fixture,
        &[
            &fixture.room,
            &fixture.a.channel,
            &there.room,
            &there.channel,
        ],
    )
    .await;
    let next = &there.room;
    let moved = fixture
        .store
        .follow_room_upgrade(&fixture.room, next, false, b"moved", NOW);
    moved.await.unwrap();
    let (a, b) = (&fixture.a, &there);
    assert_eq!(
        accepted_lanes(&fixture, payload(next, "$1")).await,
        [to_silo(b)]
    );
    assert_eq!(
        accepted_lanes(&fixture, payload(&b.channel, "m1")).await,
        [to_matrix(b)]
    );
    assert_eq!(
        accepted_lanes(&fixture, payload(&a.channel, "n1")).await,
        [to_matrix(a)]
    );
    for place in [next, &a.channel, &b.channel] {
        caught_up(&fixture, place).await;
    }
    let all = accepted_lanes(&fixture, payload(next, "$2")).await;
    assert_eq!(all, [to_silo(a), to_silo(b)]);
}

#[tokio::test]
async fn until_then_messages_take_the_longer_route_that_was_open_before() {
    let fixture = Fixture::with_one_portal().await;
    let back = portal(&fixture.store, &Place::room("!second"), "a").await;
    let on = portal(&fixture.store, &back.room, "b").await;
    followed(&fixture, &[&fixture.room]).await;
    let short = linked(&fixture).await;
    let (first, second) = (to_silo(&fixture.a), to_matrix(&back));
    let long = accepted_lanes(&fixture, payload(&fixture.room, "$night")).await;
    assert_eq!(long.len(), 3);
    for lane in [first, second, to_silo(&on)] {
        assert!(long.contains(&lane), "{long:?}");
    }
    caught_up(&fixture, &fixture.room).await;
    let now = accepted_lanes(&fixture, payload(&fixture.room, "$now")).await;
    assert!(now.contains(&to_silo(&short)), "{now:?}");
}
