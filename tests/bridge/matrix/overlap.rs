//! Events of other servers that arrive late: in the timeline they precede events that were processed already.

use super::{
    bare::{Bare, own},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_before_the_end_of_a_gap_is_found() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bare = Bare::new(synapse, None).await;
    bare.say(synapse, "known").await;
    assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "known");
    bare.bridge.rest().await;
    bare.say(synapse, "late").await;
    let stop = RemoteId(bare.say(synapse, "walked").await);
    // As if the bridge had processed the room up to here, and had never seen the earlier event that arrived late.
    let answer = raw(
        synapse,
        &own(&bare.bridge).await,
        "GET",
        "sync",
        Value::Null,
    )
    .await;
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
    bare.bridge.inbox().accept(batch).await.unwrap();
    bare.bridge.reopen().await;
    bare.bridge.listen(&bare.room);
    for text in ["late", "new"] {
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), text);
    }
    bare.bridge.rest().await;
}
