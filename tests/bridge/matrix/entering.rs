//! Joining and leaving a room: which of its events the bridge reads.

use super::{
    bare::{Bare, create, own, say},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_after_linking_a_joined_room_is_relayed() {
    let synapse = Synapse::shared().await.unwrap();
    // Whether the bridge has seen the room before it is linked.
    for seen in [true, false] {
        let mut bare = Bare::new(synapse, None).await;
        bare.say(synapse, "hello").await;
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "hello");
        if !seen {
            bare.bridge.rest().await;
        }
        let second = create(synapse, &bare.owner, None).await;
        // The room is not configured yet, so the bridge would refuse an invite.
        let public = json!({"join_rule": "public"});
        let rules = format!("rooms/{second}/state/m.room.join_rules/");
        raw(synapse, &bare.owner, "PUT", &rules, public).await;
        let path = format!("rooms/{second}/join");
        raw(synapse, &own(&bare.bridge).await, "POST", &path, json!({})).await;
        say(synapse, &bare.owner, &second, "before it was linked").await;
        if seen {
            bare.say(synapse, "a sync has passed").await;
            let passed = bare.bridge.next(bare.lane).await;
            assert_eq!(text_of(&passed), "a sync has passed");
        }
        bare.bridge.reopen().await;
        if !seen {
            say(synapse, &bare.owner, &second, "still not linked").await;
        }
        let lane = bare.bridge.portal(&second).await;
        bare.bridge.listen_to(&[&bare.room, &second]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        say(synapse, &bare.owner, &second, "first").await;
        assert_eq!(text_of(&bare.bridge.next(lane).await), "first");
        say(synapse, &bare.owner, &second, "second").await;
        assert_eq!(text_of(&bare.bridge.next(lane).await), "second");
        bare.bridge.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_from_before_the_bridge_was_removed_from_a_room_are_relayed() {
    let synapse = Synapse::shared().await.unwrap();
    // With the last count the homeserver omits the beginning.
    for (count, invited_again) in [(1, false), (1, true), (110, false)] {
        let mut bare = Bare::new(synapse, None).await;
        bare.say(synapse, "hello").await;
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "hello");
        bare.bridge.reopen().await;
        for number in 0..count {
            bare.say(synapse, &format!("before {number}")).await;
        }
        bare.kick(synapse).await;
        if invited_again {
            bare.invite(synapse).await;
        }
        bare.bridge.listen(&bare.room);
        for number in 0..count {
            let heard = bare.bridge.next(bare.lane).await;
            assert_eq!(text_of(&heard), format!("before {number}"));
        }
        if !invited_again {
            bare.invite(synapse).await;
        }
        bare.joined(synapse).await;
        bare.say(synapse, "we are back").await;
        assert_eq!(text_of(&bare.bridge.next(bare.lane).await), "we are back");
        bare.bridge.rest().await;
    }
}

/// The membership of the bridge's account in a room, as its owner sees it: `invite`, `join`, `leave`.
async fn membership(synapse: &Synapse, bare: &Bare, room: &str) -> String {
    let path = format!("rooms/{room}/state/m.room.member/{}", bare.bridge.user);
    let state = raw(synapse, &bare.owner, "GET", &path, Value::Null).await;
    state["membership"].as_str().unwrap_or_default().to_owned()
}

async fn invite_to(synapse: &Synapse, bare: &Bare, room: &str) {
    let path = format!("rooms/{room}/invite");
    let body = json!({"user_id": bare.bridge.user});
    raw(synapse, &bare.owner, "POST", &path, body).await;
}

async fn reaches(synapse: &Synapse, bare: &Bare, room: &str, wanted: &str) {
    let waited = timeout(LIMIT, async {
        while membership(synapse, bare, room).await != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("the bridge never reaches {wanted} in {room}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_to_a_named_room_is_not_refused_while_nothing_is_followed_there() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bare = Bare::new(synapse, None).await;
    bare.bridge.reopen().await;
    let owner = &bare.owner;
    let mut rooms = Vec::new();
    for _ in 0..5 {
        rooms.push(create(synapse, owner, None).await);
    }
    let [by_id, by_alias, rests, next, strange] = rooms.try_into().unwrap();
    let server = owner.user_id.split_once(':').unwrap().1;
    let alias = format!("#{}:{server}", unique("alias"));
    let path = format!("directory/room/{}", alias.replace('#', "%23"));
    raw(synapse, owner, "PUT", &path, json!({"room_id": by_alias})).await;
    bare.bridge
        .matrix()
        .network()
        .set_awaited_rooms(vec![by_id.clone(), alias]);
    // A portal of a silo that is no longer configured, and a room that will replace another.
    bare.bridge.portal(&rests).await;
    let batch = Batch {
        tombstones: vec![footbridge_store::Tombstone {
            room: Place::room(&bare.room),
            successor: next.clone(),
            sender: owner.user_id.clone(),
        }],
        ..Batch::default()
    };
    bare.bridge.inbox().accept(batch).await.unwrap();
    bare.bridge.listen(&bare.room.clone());
    let named = [by_id, by_alias, rests, next];
    for room in named.iter().chain([&strange]) {
        invite_to(synapse, &bare, room).await;
    }
    // This invite came last, and no configuration names its room.
    reaches(synapse, &bare, &strange, "leave").await;
    let refused = bare.bridge.store.refused_invites().await.unwrap();
    let strange = Place::room(&strange);
    assert!(
        refused.iter().all(|invite| invite.room == strange),
        "{refused:?}"
    );
    for room in &named {
        assert_eq!(membership(synapse, &bare, room).await, "invite", "{room}");
    }
    // The portal is added.
    bare.bridge.reopen().await;
    let lane = bare.bridge.portal(&named[1]).await;
    bare.bridge.listen_to(&[&bare.room, &named[1]]);
    reaches(synapse, &bare, &named[1], "join").await;
    say(synapse, &bare.owner, &named[1], "at last").await;
    assert_eq!(text_of(&bare.bridge.next(lane).await), "at last");
    bare.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_invite_was_refused_is_reported_when_a_portal_names_it_and_joined_when_possible()
 {
    let synapse = Synapse::shared().await.unwrap();
    let mut bare = Bare::new(synapse, None).await;
    let room = create(synapse, &bare.owner, None).await;
    invite_to(synapse, &bare, &room).await;
    reaches(synapse, &bare, &room, "leave").await;
    let place = Place::room(&room);
    let told = || async {
        let refused = bare.bridge.store.refused_invites().await.unwrap();
        refused.iter().any(|invite| invite.room == place)
    };
    let waited = timeout(LIMIT, async {
        while !told().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the refusal is recorded");
    bare.bridge.reopen().await;
    bare.bridge.portal(&room).await;
    bare.bridge.listen_to(&[&bare.room, &room]);
    let content = Content {
        mentions: Vec::new(),
        author: None,
        text: "hello".to_owned(),
        html: None,
        style: Style::Text,
    };
    let step = Step::Post {
        content,
        thread: None,
        reply_to: None,
    };
    let place = Place::room(&room);
    let closed = timeout(LIMIT, async {
        loop {
            match bare.bridge.outlet().perform(&place, "k", &step).await {
                Err(SendError::Closed { reason }) => return reason,
                // Until a sync has shown that the bridge is no longer in the room.
                Err(SendError::Retry { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                sent => panic!("{sent:?}"),
            }
        }
    });
    let reason = closed.await.expect("the send is refused");
    assert!(reason.contains("refused the invite"), "{reason}");
    // The room becomes public: nobody has to invite the bridge again.
    let public = json!({"join_rule": "public"});
    let rules = format!("rooms/{room}/state/m.room.join_rules/");
    raw(synapse, &bare.owner, "PUT", &rules, public).await;
    bare.bridge.reopen().await;
    bare.bridge.listen_to(&[&bare.room, &room]);
    bare.say(synapse, "there is something to sync").await;
    reaches(synapse, &bare, &room, "join").await;
    let waited = timeout(LIMIT, async {
        while !bare
            .bridge
            .store
            .refused_invites()
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the refused invite is forgotten");
    bare.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_without_an_invite_is_closed_and_joined_as_soon_as_there_is_one() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bare = Bare::new(synapse, None).await;
    bare.bridge.reopen().await;
    let room = create(synapse, &bare.owner, None).await;
    let lane = bare.bridge.portal(&room).await;
    let lane = LaneId {
        toward: Side::Matrix,
        ..lane
    };
    let begun = tokio::time::Instant::now();
    bare.bridge.listen_to(&[&bare.room, &room]);
    let store = bare.bridge.store.clone();
    let why = || async {
        let tallies = store.lane_counters().await.unwrap();
        let tally = tallies.into_iter().find(|tally| tally.lane == lane);
        tally.unwrap().closed_reason
    };
    // Even though no delivery is pending.
    let waited = timeout(LIMIT, async {
        while why().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the lane is closed");
    let cure = format!("invite {}", bare.bridge.user);
    assert!(why().await.unwrap().contains(&cure), "{:?}", why().await);
    let place = Place::room(&room);
    assert!(bare.bridge.device().is_unjoined(&place));
    match bare.bridge.post(&room, "k", "too soon").await {
        Err(SendError::Closed { reason }) => assert!(reason.contains(&cure), "{reason}"),
        sent => panic!("{sent:?}"),
    }

    invite_to(synapse, &bare, &room).await;
    reaches(synapse, &bare, &room, "join").await;
    // A failed attempt is repeated after 30 s; a new invite does not wait for that.
    assert!(begun.elapsed() < Duration::from_secs(29), "{begun:?}");
    let waited = timeout(LIMIT, async {
        while why().await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the lane is open");
    assert!(!bare.bridge.device().is_unjoined(&place));

    // Somebody lets the account in while the bridge does not run: no sync shows that as news.
    bare.bridge.rest().await;
    let removed = "the bridge's account was removed from the room; invite it again";
    let now = bare.bridge.clock.now();
    store.close_lane(lane, removed, now).await.unwrap();
    bare.bridge.reopen().await;
    bare.bridge.listen_to(&[&bare.room, &room]);
    let waited = timeout(LIMIT, async {
        while why().await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the lane is open again");

    // Kicked while no delivery is pending: the bridge notices that too.
    let path = format!("rooms/{room}/kick");
    let body = json!({"user_id": bare.bridge.user});
    raw(synapse, &bare.owner, "POST", &path, body).await;
    let waited = timeout(LIMIT, async {
        while why().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the lane is closed again");
    assert!(why().await.unwrap().contains("was removed from the room"));
    bare.bridge.rest().await;
}
