//! The portals that a message passes before the last one of its route: a portal that holds or skips it keeps it from
//! the later ones.

use footbridge_core::{
    inbox::ArrivalContent,
    lane::{EncryptedPolicy, RelayFilter, RelayFilters},
    message::{Action, Message, Sender, Style},
    outlet::SendError,
    text::Body,
};
use footbridge_store::{Flag, LaneId, Millis, Place, PortalSpec, Side, SkipRule};
use tokio_util::sync::CancellationToken;

use super::{Bench, FakeOutlet, LONG, Next, post};

/// A second room on the channel of the bench; its lane.
async fn second(bench: &Bench) -> LaneId {
    let spec = PortalSpec {
        room: "#s:x".into(),
        silo: "wall".into(),
        channel: "c".into(),
    };
    let room = Place::room("!s");
    let channel = &bench.portal.channel;
    let portal = bench.store.open_portal(&spec, &room, channel, Millis(1));
    LaneId {
        portal: portal.await.unwrap().id,
        toward: Side::Matrix,
    }
}

/// Sends the pending deliveries of the second room's lane.
async fn send_pending(
    bench: &Bench,
    lane: LaneId,
    outlet: &std::sync::Arc<FakeOutlet>,
    filters: RelayFilters,
) {
    let stop = CancellationToken::new();
    let mut ours = bench.lane(Side::Matrix, outlet.clone());
    (ours.id, ours.filters) = (lane, filters);
    let run = ours.run(stop.clone());
    tokio::pin!(run);
    let watch = async {
        let end = tokio::time::Instant::now() + std::time::Duration::from_mins(2);
        while tally(bench, lane).await.pending > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        stop.cancel();
    };
    let (end, ()) = tokio::join!(run, watch);
    end.unwrap();
}

async fn tally(bench: &Bench, lane: LaneId) -> footbridge_store::LaneCounters {
    let tallies = bench.store.lane_counters().await.unwrap();
    tallies
        .into_iter()
        .find(|tally| tally.lane == lane)
        .unwrap()
}

fn react() -> Action {
    Action::React {
        target: "$1".into(),
        key: "👍".to_owned(),
    }
}

fn notice() -> ArrivalContent {
    let mut message = Message::notice("", Millis(1));
    message.sender = Sender {
        id: "@ci:x".to_owned(),
        name: "CI".to_owned(),
        avatar: None,
    };
    message.action = Action::Post {
        body: Body::plain("build 7 is green"),
        style: Style::Notice,
        reply_to: None,
        thread: None,
    };
    ArrivalContent::from(message)
}

#[tokio::test(start_paused = true)]
async fn c22_a_reaction_of_an_encrypted_room_reaches_no_unencrypted_one_through_a_channel() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let lane = second(&bench).await;
    let batch = footbridge_store::Batch {
        flags: vec![(bench.portal.room.clone(), Flag::EverEncrypted)],
        ..footbridge_store::Batch::default()
    };
    bench.store.accept(batch, Millis(1)).await.unwrap();
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.arrive("$1", post("one")).await;
    bench.arrive("$2", react()).await;
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert_eq!(outlet.texts(), ["one"]);
    let skipped = [(SkipRule::ReactionInEncryptedRoom, 1)];
    assert_eq!(tally(&bench, lane).await.skipped, skipped);
}

#[tokio::test(start_paused = true)]
async fn what_one_portal_does_not_want_reaches_nothing_behind_it() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let lane = second(&bench).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.arrive("$1", post("one")).await;
    bench.arrive("$2", react()).await;
    bench
        .arrive_payload("$3", Some("$3".into()), notice())
        .await;
    let wanted = RelayFilter {
        reactions: EncryptedPolicy::Always,
        notices: true,
        ..RelayFilter::default()
    };
    let filters = RelayFilters::only(lane.portal, wanted);
    let unwanted = RelayFilter {
        reactions: EncryptedPolicy::Never,
        ..RelayFilter::default()
    };
    filters.set(bench.portal.id, unwanted);
    send_pending(&bench, lane, &outlet, filters).await;
    assert_eq!(outlet.texts(), ["one"]);
    let skipped = [(SkipRule::Notice, 1), (SkipRule::ReactionUnwanted, 1)];
    assert_eq!(tally(&bench, lane).await.skipped, skipped);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_begins_between_two_steps_stops_the_second() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let lane = second(&bench).await;
    let outlet = FakeOutlet::new(
        true,
        vec![Next::WorkThenPause(bench.store.clone(), bench.portal.id)],
    );
    bench.arrive("$1", post("one|two")).await;
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert_eq!(outlet.texts(), ["one"]);
    assert_eq!(tally(&bench, lane).await.on_hold, 1);
    bench.store.resume(bench.portal.id).await.unwrap();
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert_eq!(outlet.texts(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_in_doubt_when_a_portal_was_paused_is_looked_for_and_not_sent() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let lane = second(&bench).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    bench.arrive("$1", post("one")).await;
    let footbridge_store::QueueHead::Ready(head) =
        bench.store.queue_head(lane, Millis(1)).await.unwrap()
    else {
        panic!("the delivery is due");
    };
    bench
        .store
        .mark_outcome_unknown(head.id, None, Millis(1))
        .await
        .unwrap();
    bench
        .store
        .pause(bench.portal.id, "@a:x", Millis(1))
        .await
        .unwrap();
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert!(outlet.texts().is_empty());
    // A listener to the room does not wait for it.
    let unknown = bench
        .store
        .unknown_outcomes(&Place::room("!s"))
        .await
        .unwrap();
    assert_eq!(unknown, []);
    bench.store.resume(bench.portal.id).await.unwrap();
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert_eq!(outlet.texts(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_whose_response_was_lost_is_reconciled_when_part_of_it_is_on_hold() {
    for arrived in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let bench = Bench::open(home.path()).await;
        let lane = second(&bench).await;
        let limited = SendError::RateLimited {
            after: Some(std::time::Duration::from_secs(5)),
        };
        let lost = Next::PauseThenLose(bench.store.clone(), bench.portal.id, arrived);
        // The head at the start of a lane is sent alone. Then the account is rate-limited, and messages are bundled.
        let script = vec![Next::Work, Next::Work, Next::Fail(limited), lost];
        let outlet = FakeOutlet::new(true, script);
        bench.arrive_in_channel("x0", post("x0")).await;
        bench.arrive("$0", post("r0")).await;
        bench.arrive_in_channel("x1", post("x1")).await;
        bench.arrive("$1", post("r1")).await;
        bench.arrive_in_channel("x2", post("x2")).await;
        send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
        // The hold of the room's message does not block the channel's, and nothing is sent twice.
        let tally = tally(&bench, lane).await;
        if arrived {
            assert_eq!(outlet.texts(), ["x0", "r0", "x1 + r1 + x2"]);
            assert_eq!((tally.delivered, tally.pending), (5, 0));
        } else {
            assert_eq!(outlet.texts(), ["x0", "r0", "x1", "x2"]);
            assert_eq!((tally.delivered, tally.on_hold), (4, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reaction_to_a_waiting_message_waits_with_it() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    let lane = second(&bench).await;
    bench.arrive("$1", post("one")).await;
    bench.run(&FakeOutlet::new(true, Vec::new()), LONG).await;
    bench
        .store
        .pause(bench.portal.id, "@a:x", Millis(1))
        .await
        .unwrap();
    let react = Action::React {
        target: "wall-0".into(),
        key: "👍".to_owned(),
    };
    bench.arrive_in_channel("x1", react).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert_eq!(tally(&bench, lane).await.on_hold, 2);
    bench.store.resume(bench.portal.id).await.unwrap();
    send_pending(&bench, lane, &outlet, RelayFilters::default()).await;
    assert_eq!(outlet.texts(), ["one"]);
    // The outlet has no reactions, but it knows the message.
    let skipped = [(SkipRule::NoReactions, 1)];
    assert_eq!(tally(&bench, lane).await.skipped, skipped);
}
