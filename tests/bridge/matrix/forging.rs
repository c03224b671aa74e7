//! A homeserver or a member that forges events: an event without end-to-end authentication changes no message, and what
//! the bridge reads back of its own events is sent again only where it is what the bridge sent. C20.

use axum::body::Bytes;
use footbridge_core::{
    file::File,
    outlet::{FetchedFile, Part, TextBeforeEdit},
    spool::Spool,
};
use footbridge_store::Scope;
use footbridge_testbed::proxy::{Fault, Matcher, Page, Proxy, Rewrite, Rule};

use super::*;

/// A bridge that reaches its homeserver through a proxy that rewrites responses, with a person in its encrypted room.
async fn scene_behind_proxy(synapse: &Synapse) -> (Scene, Proxy) {
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    let mut bridge = TestBridge::new(synapse).await;
    bridge.config.homeserver = Homeserver::Url(proxy.url_for(&synapse.url()).parse().unwrap());
    bridge.login(None).await.unwrap();
    bridge.open(Trust::CrossSigned).await;
    let (person, files) = person(synapse, Identity::New).await;
    let invited = [bridge.user.clone()];
    let room = person.create_room("A room", true, &invited).await.unwrap();
    let lane = bridge.portal(&room).await;
    bridge.listen(&room);
    wait_for_member(&person, &room, &bridge.user, "join").await;
    bridge.entered(&room).await;
    let scene = Scene {
        bridge,
        person,
        room,
        lane,
        _files: files,
    };
    (scene, proxy)
}

/// The requests by which the bridge reads this event back.
fn reads_of(event: &str) -> Matcher {
    let id = event.trim_start_matches('$');
    Matcher::of("GET".parse().unwrap()).with("/event/").with(id)
}

/// The sync requests.
fn syncs() -> Matcher {
    Matcher::of("GET".parse().unwrap()).with("/sync")
}

fn part(author: &str, body: &str) -> Part {
    Part {
        author: author.to_owned(),
        body: body.to_owned(),
        html: body.to_owned(),
        ..Part::default()
    }
}

/// Fields that the homeserver adds to an encrypted event.
fn forged_parts() -> Value {
    json!({
        "msgtype": "m.text",
        "body": "forged",
        "org.footbridge.parts": [part("Ann", "forged"), part("Bob", "forged")],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_redaction_inside_of_an_encrypted_event_deletes_nothing() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (other, _files) = person_in(synapse, &person, &room, Identity::New).await;
    let event = person.say(&room, "mine").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "mine");
    for (event_type, content) in [
        ("m.room.redaction", json!({"redacts": event})),
        ("m.room.tombstone", json!({"replacement_room": "!other:x"})),
        ("m.room.encrypted", json!({"redacts": event})),
    ] {
        other.send(&room, event_type, content).await.unwrap();
    }
    person.say(&room, "still there").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "still there");
    assert_eq!(
        bridge.skipped(lane, "redaction-or-state-encrypted").await,
        3
    );
    assert_eq!(bridge.refused("redaction-or-state-encrypted"), 3);
    // A redaction that the homeserver has checked counts.
    person.redact(&room, &event).await.unwrap();
    assert_eq!(
        text_of(&bridge.next(lane).await),
        format!("deleted {event}")
    );
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_bundle_that_the_homeserver_forged_is_not_sent_again() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene_behind_proxy(synapse).await;
    let Scene {
        mut bridge,
        person,
        room,
        ..
    } = scene;
    let place = Place::room(&room);
    let bundle = Step::Bundle {
        parts: vec![part("Ann", "one"), part("Bob", "two")],
        thread: None,
    };
    let Ok(Done::Created(copy)) = bridge.outlet().perform(&place, "bundle", &bundle).await else {
        panic!("the message is sent");
    };
    let event = copy.remote.0.clone();
    let revise = async |key: &str, slot: u32, text: &str| {
        let step = Step::EditPart {
            target: copy.remote.clone(),
            slot,
            part: Some(part("Ann", text)),
            fallback: None,
        };
        bridge.outlet().perform(&place, key, &step).await
    };
    // The event itself is forged; then its latest edit.
    let bridge_user = bridge.user.clone();
    proxy.set_rewrite(Rewrite::once("event", reads_of(&event), move |answer| {
        answer["type"] = "m.room.message".into();
        answer["content"] = forged_parts();
        true
    }));
    let refused = revise("1", 0, "edited").await;
    assert!(matches!(refused, Err(SendError::TooLate)), "{refused:?}");
    let target = event.clone();
    proxy.set_rewrite(Rewrite::once("edit", reads_of(&event), move |answer| {
        let relation = json!({"rel_type": "m.replace", "event_id": target});
        answer["unsigned"]["m.relations"]["m.replace"] = json!({
            "type": "m.room.message",
            "event_id": "$forged",
            "sender": bridge_user,
            "origin_server_ts": 1,
            "content": {"m.new_content": forged_parts(), "m.relates_to": relation},
        });
        true
    }));
    let refused = revise("2", 0, "edited").await;
    assert!(matches!(refused, Err(SendError::TooLate)), "{refused:?}");
    // An older version instead of the latest.
    revise("3", 0, "edited").await.unwrap();
    proxy.set_rewrite(Rewrite::once("older", reads_of(&event), |answer| {
        answer["unsigned"]["m.relations"] = json!({});
        true
    }));
    let refused = revise("4", 1, "brings the first text back").await;
    assert!(matches!(refused, Err(SendError::TooLate)), "{refused:?}");
    let told: Vec<_> = proxy.injected().into_keys().collect();
    assert_eq!(told, ["edit", "event", "older"]);
    assert_eq!(bridge.refused("forged-read-back"), 3);
    // Authentic events are edited, also by another process.
    bridge.reopen().await;
    bridge.listen(&room);
    let step = Step::EditPart {
        target: copy.remote.clone(),
        slot: 1,
        part: Some(part("Bob", "last")),
        fallback: None,
    };
    bridge.outlet().perform(&place, "5", &step).await.unwrap();
    let last = wait_for(&person, |seen| {
        assert!(!seen.content.to_string().contains("forged"), "{seen:?}");
        seen.content["m.new_content"]["body"] == "Ann: edited\nBob: last"
    })
    .await;
    assert!(last.encrypted);
    assert_eq!(bridge.refused("forged-read-back"), 0);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_file_that_the_homeserver_forged_is_not_sent_again() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene_behind_proxy(synapse).await;
    let Scene {
        mut bridge,
        person,
        room,
        ..
    } = scene;
    let place = Place::room(&room);
    let spool = Spool::new(std::env::temp_dir(), 1 << 20);
    let bytes = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"cat"))]);
    let fetched = FetchedFile {
        spooled: spool.seal(bytes).await.unwrap(),
        thumbnail: None,
    };
    let file = File {
        name: "cat.txt".into(),
        mime: "text/plain".into(),
        size: Some(3),
        ..File::default()
    };
    let send = Step::SendFile {
        file,
        content: content("my cat"),
        thread: None,
        reply_to: None,
        fallback: None,
    };
    let outlet = bridge.outlet();
    let sent = outlet.send_file(&place, "file", &send, &fetched);
    let Ok(Done::Created(copy)) = sent.await else {
        panic!("the message is sent");
    };
    let caption = Step::Edit {
        target: copy.remote.clone(),
        content: content("my dog"),
        is_caption: true,
        fallback: None,
    };
    proxy.set_rewrite(Rewrite::once(
        "event",
        reads_of(copy.remote.as_str()),
        |answer| {
            answer["type"] = "m.room.message".into();
            answer["content"] = json!({
                "msgtype": "m.file", "body": "x", "filename": "forged.exe",
                "file": {"url": "mxc://forged/1"},
            });
            true
        },
    ));
    let refused = bridge.outlet().perform(&place, "1", &caption).await;
    assert!(matches!(refused, Err(SendError::TooLate)), "{refused:?}");
    assert_eq!(bridge.refused("forged-read-back"), 1);
    bridge
        .outlet()
        .perform(&place, "2", &caption)
        .await
        .unwrap();
    let seen = wait_for(&person, |seen| {
        assert!(!seen.content.to_string().contains("forged"), "{seen:?}");
        seen.content["m.new_content"]["body"] == "my dog"
    })
    .await;
    assert_eq!(seen.content["m.new_content"]["filename"], "cat.txt");
    bridge.rest().await;
}

/// The text that the bridge restores for this message after these edits were redacted, if any.
async fn before(bridge: &TestBridge, room: &str, message: &str, edits: &[&str]) -> Option<String> {
    let edits: Vec<RemoteId> = edits.iter().map(|edit| RemoteId::from(*edit)).collect();
    let (place, message) = (Place::room(room), RemoteId::from(message));
    let found = bridge
        .outlet()
        .text_before_edit(&place, &message, &edits)
        .await;
    match found.unwrap() {
        TextBeforeEdit::Text(said, _) => {
            assert!(matches!(&said.action, Action::Edit { target, .. } if *target == message));
            Some(text_of(&said))
        }
        TextBeforeEdit::Redacted | TextBeforeEdit::Unreadable => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_what_the_redaction_of_an_edit_restores_is_what_was_read_before() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene_behind_proxy(synapse).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let mut said = Vec::new();
    for text in ["mine", "another"] {
        said.push(person.say(&room, text).await.unwrap());
        assert_eq!(text_of(&bridge.next(lane).await), text);
    }
    let (message, another) = (said[0].clone(), said[1].clone());
    let mut edits = Vec::new();
    for text in ["mine, edited", "mine, edited again"] {
        edits.push(person.edit(&room, &message, text).await.unwrap());
        assert_eq!(text_of(&bridge.next(lane).await), text);
    }
    let (first, second) = (edits[0].as_str(), edits[1].as_str());
    let found = before(&bridge, &room, &message, &[second, first]).await;
    assert_eq!(found.as_deref(), Some("mine, edited again"));
    person.redact(&room, second).await.unwrap();
    let found = before(&bridge, &room, &message, &[second, first]).await;
    assert_eq!(found.as_deref(), Some("mine, edited"));
    let found = before(&bridge, &room, &message, &[]).await;
    assert_eq!(found.as_deref(), Some("mine"));
    // Where the homeserver says that a great many edits are redacted, the bridge does not request every one.
    let many = vec![second; 25];
    assert_eq!(before(&bridge, &room, &message, &many).await, None);
    // An event that the homeserver does not return is one that cannot be read.
    let hidden = Fault::status(403, Page::Matrix);
    proxy.add(Rule::times("hidden", reads_of(&message), hidden, 1));
    assert_eq!(before(&bridge, &room, &message, &[]).await, None);
    // Another message of the same person under its id; a plaintext event; an edit of another message.
    let path = format!("rooms/{room}/event/{another}");
    let own = super::bare::own(&bridge).await;
    let other = raw(synapse, &own, "GET", &path, Value::Null).await["content"].clone();
    proxy.set_rewrite(Rewrite::once(
        "swapped",
        reads_of(&message),
        move |answer| {
            answer["content"] = other.clone();
            true
        },
    ));
    assert_eq!(before(&bridge, &room, &message, &[]).await, None);
    proxy.set_rewrite(Rewrite::once("clear", reads_of(&message), |answer| {
        answer["type"] = "m.room.message".into();
        answer["content"] = json!({"msgtype": "m.text", "body": "forged"});
        true
    }));
    assert_eq!(before(&bridge, &room, &message, &[]).await, None);
    let target = another.clone();
    proxy.set_rewrite(Rewrite::once("related", reads_of(first), move |answer| {
        answer["content"]["m.relates_to"]["event_id"] = target.clone().into();
        true
    }));
    assert_eq!(before(&bridge, &room, &message, &[first]).await, None);
    assert_eq!(proxy.injected().len(), 4);
    // The same for another process.
    bridge.reopen().await;
    let found = before(&bridge, &room, &message, &[first]).await;
    assert_eq!(found.as_deref(), Some("mine, edited"));
    // Nothing is restored for somebody who has opted out since.
    let (place, now) = (Place::room(&room), bridge.clock.now());
    let user = person.user_id();
    let kept = bridge
        .store
        .opt_out(&place, &user, Scope::Here, |_, _| false, now);
    kept.await.unwrap();
    assert_eq!(before(&bridge, &room, &message, &[first]).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_relation_only_inside_the_ciphertext_is_ignored() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene_behind_proxy(synapse).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let first = person.say(&room, "first").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "first");
    let second = person.say(&room, "second").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "second");
    // The SDK writes a relation into the ciphertext and next to it. Here the proxy removes the one next to it.
    let (id, beside) = (room.clone(), second.clone());
    proxy.set_rewrite(Rewrite::always("relations", syncs(), move |answer| {
        let update = answer
            .pointer_mut("/rooms/join")
            .and_then(|all| all.get_mut(&id));
        let events = update.and_then(|update| update.pointer_mut("/timeline/events"));
        let mut changed = false;
        for event in events.and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(relation) = event.pointer_mut("/content/m.relates_to") else {
                continue;
            };
            if relation["key"] == "moved" {
                *relation = json!({"rel_type": "m.replace", "event_id": beside});
            } else if let Some(content) = event["content"].as_object_mut() {
                content.remove("m.relates_to");
            }
            changed = true;
        }
        changed
    }));
    person.edit(&room, &first, "edited").await.unwrap();
    let message = bridge.next(lane).await;
    assert!(matches!(message.action, Action::Post { .. }), "{message:?}");
    assert_eq!(text_of(&message), "* edited");
    person.reply(&room, &first, "a reply").await.unwrap();
    person
        .in_thread(&room, &first, "in a thread")
        .await
        .unwrap();
    for text in ["a reply", "in a thread"] {
        let message = bridge.next(lane).await;
        assert_eq!(text_of(&message), text);
        assert_eq!(message.target(), None, "{message:?}");
    }
    // The relation next to the ciphertext counts.
    let moved = json!({
        "msgtype": "m.text",
        "body": "* moved",
        "m.new_content": {"msgtype": "m.text", "body": "moved"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": first, "key": "moved"},
    });
    person.send(&room, "m.room.message", moved).await.unwrap();
    let message = bridge.next(lane).await;
    assert!(matches!(message.action, Action::Edit { .. }), "{message:?}");
    assert_eq!(message.target().unwrap().as_str(), second);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_the_homeserver_does_not_decide_who_wrote_a_message() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene_behind_proxy(synapse).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let (other, _files) = person_in(synapse, &person, &room, Identity::New).await;
    let event = person.say(&room, "mine").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "mine");
    // The event is shown again, as another member's.
    let again = json!({
        "type": "m.room.message",
        "event_id": event,
        "sender": other.user_id(),
        "origin_server_ts": 1,
        "content": {"msgtype": "m.text", "body": "mine"},
    });
    proxy.set_rewrite(Rewrite::event_in("shown again", &room, again));
    other.edit(&room, &event, "theirs").await.unwrap();
    assert_eq!(bridge.skipped(lane, "foreign-edit").await, 1);
    // The same for a message of the bridge, which this process no longer remembers.
    let Ok(Done::Created(copy)) = bridge.post(&room, "post", "of the channel").await else {
        panic!("the message is sent");
    };
    person.say(&room, "after that").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "after that");
    bridge.reopen().await;
    bridge.listen(&room);
    let claimed = other.user_id();
    proxy.set_rewrite(Rewrite::always(
        "claimed",
        reads_of(copy.remote.as_str()),
        move |answer| {
            answer["sender"] = claimed.clone().into();
            true
        },
    ));
    other
        .edit(&room, copy.remote.as_str(), "theirs, too")
        .await
        .unwrap();
    assert_eq!(bridge.skipped(lane, "unknown-target").await, 1);
    person.edit(&room, &event, "still mine").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "still mine");
    assert_eq!(proxy.injected().len(), 2);
    bridge.rest().await;
}
