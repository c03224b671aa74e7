//! Events of other servers that arrive late: they stand before what was walked already.

use super::{
    bare::{Bare, own},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_that_stands_before_the_end_of_a_gap_is_found() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bare = Bare::new(synapse, None).await;
    bare.say(synapse, "known").await;
    assert_eq!(text_of(&bare.house.next(bare.lane).await), "known");
    bare.house.rest().await;
    bare.say(synapse, "late").await;
    let stop = RemoteId(bare.say(synapse, "walked").await);
    // As if the bridge had walked up to here, and had never been shown what came in late before it.
    let answer = raw(synapse, &own(&bare.house).await, "GET", "sync", Value::Null).await;
    let cursor = answer["next_batch"].as_str().unwrap().to_owned();
    let place = Place::room(&bare.room);
    bare.say(synapse, "new").await;
    let gap = Gap {
        place: place.clone(),
        from: end_of(synapse, &bare.owner, &bare.room).await,
        stop: Some(stop.clone()),
    };
    let batch = Batch {
        cursors: vec![
            ("matrix".to_owned(), cursor),
            (place.as_str().to_owned(), stop.0),
        ],
        gaps: vec![gap],
        ..Batch::default()
    };
    bare.house.inbox().accept(batch).await.unwrap();
    bare.house.reopen().await;
    bare.house.listen(&bare.room);
    for text in ["late", "new"] {
        assert_eq!(text_of(&bare.house.next(bare.lane).await), text);
    }
    bare.house.rest().await;
}
