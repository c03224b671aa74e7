//! The sender with an unsigned device is notified in the room where they wrote, in a way that this device can display,
//! and again when the device is signed. P02.

use footbridge_core::{
    budget::Budget,
    lane::{self, Lane, LaneEnd, OutletHealth},
};
use footbridge_store::Scope;

use super::*;

fn back(lane: LaneId) -> LaneId {
    LaneId {
        toward: Side::Matrix,
        ..lane
    }
}

/// How many deliveries the room ever had from the bridge, and how many of them are pending.
async fn owed(bridge: &TestBridge, lane: LaneId) -> (u64, u64) {
    let tallies = bridge.store.lane_counters().await.unwrap();
    let tally = tallies.iter().find(|tally| tally.lane == back(lane));
    tally.map_or((0, 0), |tally| (tally.accepted, tally.pending))
}

/// Sends the pending deliveries to the room.
async fn send_owed(bridge: &TestBridge, lane: LaneId) {
    let stop = CancellationToken::new();
    let lane_back = Lane {
        id: back(lane),
        outlet: bridge.outlet(),
        sender: footbridge_core::lane::LaneSender::default(),
        source: bridge.outlet(),
        spool: footbridge_core::spool::Spool::new(std::env::temp_dir(), 1 << 20),
        store: bridge.store.clone(),
        signals: Signals::default(),
        clock: bridge.clock,
        limits: lane::RetryLimits {
            attempts: 8,
            give_up: Duration::from_hours(24),
        },
        health: OutletHealth::default(),
        budget: Budget::default(),
        coalesce: true,
        people: footbridge_core::persons::People::default(),
        peer_bridges: footbridge_core::peer_bridges::PeerBridges::default(),
        links: None,
        filters: lane::RelayFilters::default(),
    };
    let mut running = JoinSet::new();
    running.spawn(lane_back.run(stop.clone()));
    let waited = timeout(Duration::from_mins(1), async {
        while owed(bridge, lane).await.1 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the pending deliveries are sent");
    stop.cancel();
    let ended = running.join_all().await.pop().unwrap();
    assert_eq!(ended.unwrap(), LaneEnd::Stopped);
}

/// Sends a message that is not relayed, and waits until it is settled.
async fn refused(
    bridge: &TestBridge,
    stranger: &TestClient,
    room: &str,
    lane: LaneId,
    nth: u64,
) -> String {
    let event = stranger.say(room, "believe me").await.unwrap();
    let waited = timeout(Duration::from_mins(1), async {
        while bridge.skipped(lane, "untrusted-device").await < nth {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.expect("the message is skipped");
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_the_owner_of_an_unsigned_device_gets_a_notice_and_another_when_it_is_solved() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (stranger, _files) = person_in(synapse, &person, &room, Identity::None).await;
    let (place, user) = (Place::room(&room), stranger.user_id());
    // Nobody is notified about users who have opted out, nor are they.
    let opted_out =
        bridge
            .store
            .opt_out(&place, &user, Scope::Here, |_, _| false, bridge.clock.now());
    opted_out.await.unwrap();
    refused(&bridge, &stranger, &room, lane, 1).await;
    assert_eq!(owed(&bridge, lane).await, (0, 0));
    let opted_in = bridge.store.opt_in(&place, &user, Scope::Here);
    assert!(opted_in.await.unwrap());
    let event = refused(&bridge, &stranger, &room, lane, 2).await;
    assert_eq!(owed(&bridge, lane).await, (2, 2), "a reaction and a notice");
    send_owed(&bridge, lane).await;
    let sign = wait_for(&stranger, |seen| seen.event_type == "m.reaction").await;
    let relation = json!({"rel_type": "m.annotation", "event_id": event, "key": "🔒"});
    assert_eq!(sign.content["m.relates_to"], relation);
    assert_eq!(sign.sender, bridge.user);
    let keys: Vec<_> = sign.content.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["m.relates_to", "org.footbridge.delivery"]);
    let notice = wait_for(&person, |seen| {
        seen.sender == bridge.user && seen.event_type == "m.room.message"
    })
    .await;
    assert!(notice.encrypted, "{notice:?}");
    let body = notice.content["body"].as_str().unwrap();
    assert!(body.contains("you have not signed that device"), "{body}");
    let answered = &notice.content["m.relates_to"]["m.in_reply_to"]["event_id"];
    assert_eq!(*answered, event);
    let device = synapse.events(&room).await.unwrap();
    let device = device.iter().find(|sent| sent.event_id == event).unwrap();
    let device = device.json["content"]["device_id"].as_str().unwrap();
    assert!(body.contains(device), "{body}");

    // Once per sender and day, also by another process.
    bridge.reopen().await;
    bridge.listen(&room);
    refused(&bridge, &stranger, &room, lane, 3).await;
    assert_eq!(owed(&bridge, lane).await, (2, 0));

    stranger.replace_identity(PASSWORD).await.unwrap();
    stranger.discard_room_key(&room).await.unwrap();
    stranger.say(&room, "signed now").await.unwrap();
    let mut there = Vec::new();
    let waited = timeout(Duration::from_mins(1), async {
        while !there.contains(&"signed now".to_owned()) {
            there.push(text_of(&bridge.next(lane).await));
        }
        while owed(&bridge, lane).await.1 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited
        .await
        .expect("messages are relayed, and people are notified");
    send_owed(&bridge, lane).await;
    let notice_id = notice.event_id.as_str();
    let over = wait_for(&person, |seen| {
        seen.content["m.relates_to"]["event_id"] == notice_id && seen.sender == bridge.user
    })
    .await;
    let body = over.content["m.new_content"]["body"].as_str().unwrap();
    assert!(body.contains("your device is signed now"), "{body}");
    assert!(body.contains("2 messages could not be relayed"), "{body}");
    there.push(text_of(&bridge.next(lane).await));
    let told = there.iter().filter(|text| text.contains("are not relayed"));
    assert_eq!(told.count(), 1, "{there:?}");
    assert!(there.last().unwrap().contains("is signed now"), "{there:?}");
    bridge.rest().await;
}
