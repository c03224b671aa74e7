//! Homeservers whose history omits events that their syncs return: positions that exclude the event they name, workers
//! that lag behind, a join event that is not shown.

use footbridge_testbed::proxy::{Proxy, Rewrite};

use super::{
    bare::{Bare, own},
    *,
};

async fn proxy_with(synapse: &Synapse, rewrites: impl IntoIterator<Item = Rewrite>) -> Proxy {
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    for rewrite in rewrites {
        proxy.set_rewrite(rewrite);
    }
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_message_of_a_limited_sync_is_relayed_where_history_omits_it() {
    let synapse = Synapse::shared().await.unwrap();
    for rewrite in [Rewrite::exclusive_positions, Rewrite::history_behind] {
        let proxy = proxy_with(synapse, None).await;
        let mut bare = Bare::behind(synapse, &proxy).await;
        bare.enter(synapse).await;
        bare.say(synapse, "hello").await;
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "hello");
        bare.bridge.rest().await;
        for number in 0..5 {
            bare.say(synapse, &format!("missed {number}")).await;
        }
        proxy.set_rewrite(rewrite());
        proxy.limit_timeline(Some(2));
        bare.bridge.listen(&bare.room);
        for number in 0..5 {
            let heard = bare.bridge.next(bare.lane).await;
            assert_eq!(text_of(&heard), format!("missed {number}"));
        }
        bare.say(synapse, "afterwards").await;
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "afterwards");
        bare.bridge.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_before_the_join_is_relayed_where_history_omits_it() {
    let synapse = Synapse::shared().await.unwrap();
    for encrypted in [false, true] {
        let proxy = proxy_with(synapse, [Rewrite::exclusive_positions()]).await;
        proxy.limit_timeline(Some(1));
        let mut bare = Bare::behind(synapse, &proxy).await;
        bare.say(synapse, "written before the bridge came").await;
        if encrypted {
            let path = format!("rooms/{}/state/m.room.encryption/", bare.room);
            let content = json!({"algorithm": "m.megolm.v1.aes-sha2"});
            raw(synapse, &bare.owner, "PUT", &path, content).await;
        }
        bare.enter(synapse).await;
        bare.say(synapse, "first").await;
        if encrypted {
            let skipped = bare
                .bridge
                .skipped(bare.lane, "plaintext-in-encrypted-room");
            assert_eq!(skipped.await, 1);
            let head = bare
                .bridge
                .store
                .queue_head(bare.lane, bare.bridge.clock.now());
            assert!(matches!(head.await.unwrap(), QueueHead::Empty));
        } else {
            assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "first");
        }
        bare.bridge.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_events_after_the_join_are_relayed_where_no_page_shows_it() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = proxy_with(synapse, None).await;
    let mut bare = Bare::behind(synapse, &proxy).await;
    bare.say(synapse, "written before the bridge came").await;
    bare.invite(synapse).await;
    // As if the bridge had died after its join request.
    let path = format!("rooms/{}/join", bare.room);
    let account = own(&bare.bridge).await;
    raw(synapse, &account, "POST", &path, json!({})).await;
    let place = Place::room(&bare.room);
    let batch = Batch {
        cursors: vec![(place.as_str().to_owned(), "join".to_owned())],
        ..Batch::default()
    };
    bare.bridge.inbox().accept(batch).await.unwrap();
    for number in 0..5 {
        bare.say(synapse, &format!("after {number}")).await;
    }
    proxy.set_rewrite(Rewrite::without_entry(&bare.bridge.user));
    proxy.limit_timeline(Some(2));
    bare.bridge.listen(&bare.room);
    for number in 0..5 {
        let heard = bare.bridge.next(bare.lane).await;
        assert_eq!(text_of(&heard), format!("after {number}"));
    }
    bare.bridge.rest().await;
}
