//! Homeservers whose history leaves out what their syncs bring: positions that exclude the event they name, workers that
//! are behind, an entry that is not shown.

use footbridge_testbed::proxy::{Proxy, Rewrite};

use super::{
    bare::{Bare, own},
    *,
};

async fn before(synapse: &Synapse, lies: impl IntoIterator<Item = Rewrite>) -> Proxy {
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    for lie in lies {
        proxy.tell(lie);
    }
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_message_of_a_limited_sync_crosses_where_history_leaves_it_out() {
    let synapse = Synapse::shared().await.unwrap();
    for lie in [Rewrite::exclusive_positions, Rewrite::history_behind] {
        let proxy = before(synapse, None).await;
        let mut bare = Bare::behind(synapse, &proxy).await;
        bare.enter(synapse).await;
        bare.say(synapse, "hello").await;
        assert_eq!(text_of(&bare.house.next(bare.lane).await), "hello");
        bare.house.rest().await;
        for number in 0..5 {
            bare.say(synapse, &format!("missed {number}")).await;
        }
        proxy.tell(lie());
        proxy.limit_timeline(Some(2));
        bare.house.listen(&bare.room);
        for number in 0..5 {
            let heard = bare.house.next(bare.lane).await;
            assert_eq!(text_of(&heard), format!("missed {number}"));
        }
        bare.say(synapse, "afterwards").await;
        assert_eq!(text_of(&bare.house.next(bare.lane).await), "afterwards");
        bare.house.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_before_our_entry_crosses_where_history_leaves_it_out() {
    let synapse = Synapse::shared().await.unwrap();
    for encrypted in [false, true] {
        let proxy = before(synapse, [Rewrite::exclusive_positions()]).await;
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
            let skipped = bare.house.skipped(bare.lane, "plaintext-in-encrypted-room");
            assert_eq!(skipped.await, 1);
            let head = bare
                .house
                .store
                .queue_head(bare.lane, bare.house.clock.now());
            assert!(matches!(head.await.unwrap(), QueueHead::Empty));
        } else {
            assert_eq!(text_of(&bare.house.next(bare.lane).await), "first");
        }
        bare.house.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_follows_our_entry_crosses_where_no_page_shows_it() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = before(synapse, None).await;
    let mut bare = Bare::behind(synapse, &proxy).await;
    bare.say(synapse, "written before the bridge came").await;
    bare.invite(synapse).await;
    // As if we had died after the request to enter.
    let path = format!("rooms/{}/join", bare.room);
    let account = own(&bare.house).await;
    raw(synapse, &account, "POST", &path, json!({})).await;
    let place = Place::room(&bare.room);
    let batch = Batch {
        cursors: vec![(place.as_str().to_owned(), "join".to_owned())],
        ..Batch::default()
    };
    bare.house.inbox().accept(batch).await.unwrap();
    for number in 0..5 {
        bare.say(synapse, &format!("after {number}")).await;
    }
    proxy.tell(Rewrite::without_entry(&bare.house.user));
    proxy.limit_timeline(Some(2));
    bare.house.listen(&bare.room);
    for number in 0..5 {
        let heard = bare.house.next(bare.lane).await;
        assert_eq!(text_of(&heard), format!("after {number}"));
    }
    bare.house.rest().await;
}
