//! A homeserver whose sync responses silently omit an event: the audit, which compares rooms with their history, finds
//! it.

use footbridge_testbed::proxy::{Proxy, Rewrite};

use super::{
    bare::{self, Bare},
    *,
};

/// Waits for the lane's next delivery, and returns whether it is marked as late.
async fn next_is_late(bare: &Bare) -> bool {
    let waited = timeout(Duration::from_secs(30), async {
        loop {
            let head = bare
                .bridge
                .store
                .queue_head(bare.lane, bare.bridge.clock.now());
            if let QueueHead::Ready(delivery) = head.await.unwrap() {
                return delivery.late;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("a message arrives")
}

/// Waits until this many missed events are counted.
async fn counted(bare: &Bare, missed: u64) {
    let waited = timeout(Duration::from_secs(20), async {
        while bare.bridge.device().missed() < missed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("it is counted");
    assert_eq!(bare.bridge.device().missed(), missed);
}

fn left_out(bare: &Bare, text: &str) -> Rewrite {
    let text = json!(text);
    Rewrite::left_out_of_sync(&bare.room, move |event| {
        event.pointer("/content/body") == Some(&text)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_sync_omits_are_relayed_late_once_and_counted() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    let mut bare = Bare::behind_with(synapse, &proxy, |config| {
        config.timeouts.audit = Duration::from_secs(4);
    })
    .await;
    bare.say(synapse, "before the bridge came").await;
    // A gap of another room that nobody can fill does not prevent the audit of this room.
    let shut = bare::create(synapse, &bare.owner, None).await;
    bare.bridge.portal(&shut).await;
    let gap = Gap {
        place: Place::room(&shut),
        from: "$newest".to_owned(),
        stop: Some(RemoteId::from("$oldest")),
    };
    let batch = footbridge_store::Batch {
        gaps: vec![gap],
        ..footbridge_store::Batch::default()
    };
    bare.bridge
        .store
        .accept(batch, footbridge_store::Millis(1))
        .await
        .unwrap();
    bare.bridge.listen_to(&[&bare.room, &shut]);
    bare.invite(synapse).await;
    bare.joined(synapse).await;
    for (dropped, number) in [("left out", 1), ("left out again", 2)] {
        bare.say(synapse, &format!("heard {number}")).await;
        let heard = bare.bridge.next(bare.lane).await;
        assert_eq!(text_of(&heard), format!("heard {number}"));
        proxy.set_rewrite(left_out(&bare, dropped));
        bare.say(synapse, dropped).await;
        // In the first round newer events follow, in the second none.
        if number == 1 {
            for text in ["next", "last"] {
                bare.say(synapse, text).await;
                assert_eq!(text_of(&bare.bridge.next(bare.lane).await), text);
            }
        }
        assert!(next_is_late(&bare).await, "{dropped}");
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), dropped);
        counted(&bare, number).await;
    }
    assert_eq!(proxy.injected()["left out of a sync"], 2);
    // The next audit finds nothing more.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let head = bare
        .bridge
        .store
        .queue_head(bare.lane, bare.bridge.clock.now());
    assert!(matches!(head.await.unwrap(), QueueHead::Empty));
    bare.say(synapse, "afterwards").await;
    assert!(!next_is_late(&bare).await);
    assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "afterwards");
    assert_eq!(bare.bridge.device().missed(), 2);
    let gaps = bare.bridge.store.gaps(Place::MATRIX).await.unwrap();
    assert_eq!(gaps.len(), 1);
    bare.bridge.rest().await;
}
