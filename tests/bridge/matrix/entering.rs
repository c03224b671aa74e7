//! Coming into a room and going out of it: what of it is read.

use super::{
    bare::{Bare, create, own, say},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_after_linking_a_room_that_we_are_in_already_crosses() {
    let synapse = Synapse::shared().await.unwrap();
    // Whether the bridge has seen the room before it is linked.
    for seen in [true, false] {
        let mut bare = Bare::new(synapse, None).await;
        bare.say(synapse, "hello").await;
        assert_eq!(text_of(&bare.house.next(bare.lane).await), "hello");
        if !seen {
            bare.house.rest().await;
        }
        let second = create(synapse, &bare.owner, None).await;
        // Nobody has configured it yet, so the bridge would refuse an invite.
        let public = json!({"join_rule": "public"});
        let rules = format!("rooms/{second}/state/m.room.join_rules/");
        raw(synapse, &bare.owner, "PUT", &rules, public).await;
        let path = format!("rooms/{second}/join");
        raw(synapse, &own(&bare.house).await, "POST", &path, json!({})).await;
        say(synapse, &bare.owner, &second, "before it was linked").await;
        if seen {
            bare.say(synapse, "a sync has passed").await;
            let passed = bare.house.next(bare.lane).await;
            assert_eq!(text_of(&passed), "a sync has passed");
        }
        bare.house.reopen().await;
        if !seen {
            say(synapse, &bare.owner, &second, "still not linked").await;
        }
        let lane = bare.house.portal(&second).await;
        bare.house.listen_to(&[&bare.room, &second]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        say(synapse, &bare.owner, &second, "first").await;
        assert_eq!(text_of(&bare.house.next(lane).await), "first");
        say(synapse, &bare.owner, &second, "second").await;
        assert_eq!(text_of(&bare.house.next(lane).await), "second");
        bare.house.rest().await;
    }
}
