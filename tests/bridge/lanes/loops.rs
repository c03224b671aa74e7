//! Messages that somebody else's bridge brings back, and messages that only that bridge relays on (C18).

use super::*;
use footbridge_store::SkipRule;

async fn join(bench: &Bench, room: &str, channel: &str) -> Portal {
    let spec = PortalSpec {
        room: room.into(),
        silo: "wall".into(),
        channel: channel.into(),
    };
    let ends = (Place::room(room), Place::new("wall", channel));
    let opened = bench.store.open_portal(&spec, &ends.0, &ends.1, Millis(1));
    opened.await.unwrap()
}

async fn says(bench: &Bench, place: &Place, by: &str, text: &str, at: i64) {
    let event_id = RemoteId(format!("{by}-{at}"));
    let sender = Sender {
        id: by.into(),
        name: by.into(),
        avatar: None,
    };
    let message = Message {
        sender,
        sent_at: Millis(at),
        files: Vec::new(),
        action: post(text),
    };
    let arrival = Arrival {
        place: place.clone(),
        event_id: event_id.clone(),
        message: Some(event_id),
        thread: None,
        sent_at: Millis(at),
        payload: ArrivalContent::from(message),
    };
    let batch = Batch {
        arrivals: vec![arrival],
        ..Batch::default()
    };
    bench.inbox.accept(batch).await.unwrap();
}

async fn looped(bench: &Bench) -> u64 {
    let tallies = bench.store.lane_counters().await.unwrap();
    let rules = tallies.iter().flat_map(|tally| &tally.skipped);
    rules
        .filter(|(rule, _)| *rule == SkipRule::Loop)
        .map(|(_, count)| count)
        .sum()
}

/// All pending deliveries to a room, in order.
async fn owed(bench: &Bench, portal: &Portal) -> Vec<String> {
    let lane = LaneId {
        portal: portal.id,
        toward: Side::Matrix,
    };
    let (mut texts, mut made) = (Vec::new(), 0);
    while let QueueHead::Ready(delivery) = bench
        .store
        .queue_head(lane, bench.clock.now())
        .await
        .unwrap()
    {
        let message = Message::from_bytes(&delivery.payload).unwrap();
        match &message.action {
            Action::Post { body, .. } => texts.push(body.to_plain()),
            Action::Bridge { text, .. } => texts.push(text.clone()),
            _ => {}
        }
        made += 1;
        let copy = Copy {
            remote: RemoteId(format!("copy-{}-{made}", portal.id)),
            thread: None,
            sent_at: Millis(1),
            file: None,
        };
        let now = bench.clock.now();
        let done = bench
            .store
            .complete_step(delivery.id, Some(&copy), None, true, now);
        done.await.unwrap();
    }
    texts
}

#[tokio::test]
async fn c18_two_portals_that_a_foreign_bridge_links_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let first = bench.portal.clone();
    let second = join(&bench, "!second", "d").await;
    // Ann talks in one room and Bob in the other; one account of somebody else's bridge relays between the channels.
    for number in 0..80 {
        let at = number * 500;
        let (ann, bob) = (format!("from ann {number}"), format!("from bob {number}"));
        says(&bench, &first.room, "@ann:x", &ann, at).await;
        let carried = format!("us: Ann: {ann}");
        says(&bench, &second.channel, "them", &carried, at + 1).await;
        says(&bench, &second.room, "@bob:x", &bob, at + 2).await;
        let carried = format!("us: Bob: {bob}");
        says(&bench, &first.channel, "them", &carried, at + 3).await;
    }
    assert_eq!(looped(&bench).await, 0);
    for portal in [&first, &second] {
        assert_eq!(owed(&bench, portal).await.len(), 80);
    }
}

/// Faster than anything is sent, as fast as an ordinary account may send, and where each return waits in a queue.
#[tokio::test]
async fn c18_returned_messages_are_skipped_and_each_room_gets_a_notice() {
    for apart in [100, 5_000, 300_000] {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::open(directory.path()).await;
        let first = bench.portal.clone();
        // The same channel in another room, and an unrelated portal.
        let second = join(&bench, "!second", "c").await;
        let elsewhere = join(&bench, "!apart", "d").await;
        says(&bench, &first.room, "@ann:x", "hi", 0).await;
        for hop in 1..30 {
            let text = format!("{}hi", "them: ".repeat(hop));
            let place = if hop % 2 == 0 {
                &first.room
            } else {
                &first.channel
            };
            let at = i64::try_from(hop).unwrap() * apart;
            says(&bench, place, "them", &text, at).await;
        }
        // The messages that have come back eight times and more, each counted for both portals.
        assert_eq!(looped(&bench).await, 2 * 21);
        for (portal, count) in [(&first, 1), (&second, 1), (&elsewhere, 0)] {
            let texts = owed(&bench, portal).await;
            let told = texts
                .iter()
                .filter(|text| text.contains("keep coming back"));
            assert!(told.count() >= count, "{texts:?}");
            assert_eq!(texts.is_empty(), count == 0, "{texts:?}");
        }
    }
}
