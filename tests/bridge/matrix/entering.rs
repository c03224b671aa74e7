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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_we_were_put_out_of_a_room_crosses() {
    let synapse = Synapse::shared().await.unwrap();
    // With the second number the homeserver leaves out the beginning.
    for (count, invited_again) in [(1, false), (1, true), (110, false)] {
        let mut bare = Bare::new(synapse, None).await;
        bare.say(synapse, "hello").await;
        assert_eq!(text_of(&bare.house.next(bare.lane).await), "hello");
        bare.house.reopen().await;
        for number in 0..count {
            bare.say(synapse, &format!("before {number}")).await;
        }
        bare.kick(synapse).await;
        if invited_again {
            bare.invite(synapse).await;
        }
        bare.house.listen(&bare.room);
        for number in 0..count {
            let heard = bare.house.next(bare.lane).await;
            assert_eq!(text_of(&heard), format!("before {number}"));
        }
        if !invited_again {
            bare.invite(synapse).await;
        }
        bare.joined(synapse).await;
        bare.say(synapse, "we are back").await;
        assert_eq!(text_of(&bare.house.next(bare.lane).await), "we are back");
        bare.house.rest().await;
    }
}
