//! Behaviours 9 to 13: creating, editing, deleting, omitted fields, the silent drop, and rendering.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::SimScenario;
use crate::gitter::{Compatibility, Operation, Options, RoomOptions};

#[tokio::test]
async fn behaviour_09_creating_answers_the_message_with_200() {
    let stage = SimScenario::new().await;
    let body = json!({"text": "@bridge waves", "status": true});
    let (status, message) = stage.send(Method::POST, &stage.chat(), body).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&message["status"], &message["v"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(message["fromUser"]["id"], stage.me.id);
    let sent = message["sent"].as_str().unwrap();
    assert!(
        sent.len() == 24 && sent.ends_with('Z') && sent.as_bytes()[19] == b'.',
        "{sent}"
    );
    let stored = &stage.sim.messages(&stage.room.id)[0];
    assert_eq!(message["id"], stored.id);
}

#[tokio::test]
async fn behaviour_09_the_length_is_counted_in_utf16() {
    let stage = SimScenario::new().await;
    let cases = [
        ("x".repeat(4096), 200),
        ("x".repeat(4097), 400),
        ("🎉".repeat(2048), 200),
        (format!("{}x", "🎉".repeat(2048)), 400),
        ("ä".repeat(4096), 200),
        (String::new(), 400),
        (" \n ".to_owned(), 200),
    ];
    for (text, expected) in cases {
        assert_eq!(stage.post(&text).await.0, expected, "{} bytes", text.len());
    }
    for body in [json!({}), json!({"text": null}), json!({"text": 5})] {
        assert_eq!(stage.send(Method::POST, &stage.chat(), body).await.0, 400);
    }
}

#[tokio::test]
async fn behaviour_09_the_same_post_twice_is_two_messages() {
    let stage = SimScenario::new().await;
    let first = stage.post("again").await.1;
    let second = stage.post("again").await.1;
    assert_ne!(first["id"], second["id"]);
    assert_eq!(stage.listed("").await, ["again", "again"]);
}

#[tokio::test]
async fn behaviour_09_parents_must_be_in_the_room_and_are_saved_first() {
    let stage = SimScenario::new().await;
    let elsewhere = stage.sim.add_room("org/other", RoomOptions::default());
    let foreign = stage
        .sim
        .say(&elsewhere.id, &stage.alice.id, "elsewhere")
        .id;
    let root = stage.say("root");
    let reply = |parent: Value| {
        let body = json!({"text": "reply", "parentId": parent});
        async { stage.send(Method::POST, &stage.chat(), body).await }
    };
    for wrong in [
        json!("nonsense"),
        json!("0".repeat(24)),
        json!(foreign),
        json!(7),
    ] {
        assert_eq!(reply(wrong).await.0, 400);
    }
    let mut changes = stage.sim.subscribe();
    let (status, message) = reply(json!(root)).await;
    assert_eq!((status.as_u16(), &message["parentId"]), (200, &json!(root)));
    let order: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok())
        .map(|change| (change.operation, change.message.id))
        .collect();
    let child = message["id"].as_str().unwrap().to_owned();
    assert_eq!(
        order,
        [
            (Operation::Update, root),
            (Operation::Create, child.clone())
        ]
    );
    // A reply to a reply keeps that reply as its parent: the service does not flatten threads.
    assert_eq!(reply(json!(child)).await.1["parentId"], child);
}

#[tokio::test]
async fn behaviour_09_virtual_users_are_for_approved_clients() {
    let stage = SimScenario::new().await;
    let user = json!({"type": "matrix", "externalId": "eve:example.org", "displayName": "Eve"});
    let body = json!({"text": "hello", "virtualUser": user});
    assert_eq!(
        stage
            .send(Method::POST, &stage.chat(), body.clone())
            .await
            .0,
        403
    );
    let token = stage.sim.add_token(&stage.me.id, "matrix-bridge", true);
    let (status, message) = stage
        .send_as(&token, Method::POST, &stage.chat(), body)
        .await;
    assert_eq!(status, 200);
    assert_eq!(message["fromUser"]["id"], "matrix-eve:example.org");
    assert_eq!(message["virtualUser"], user);
    let long = json!({"type": "matrix", "externalId": "e".repeat(256), "displayName": "Eve"});
    let body = json!({"text": "hello", "virtualUser": long});
    assert_eq!(
        stage
            .send_as(&token, Method::POST, &stage.chat(), body)
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn behaviour_10_editing_is_for_authors_within_the_window() {
    let stage = SimScenario::new().await;
    let (_, message) = stage.post("first").await;
    let path = format!("{}/{}", stage.chat(), message["id"].as_str().unwrap());
    let edit = |body: Value| async { stage.send(Method::PUT, &path, body).await };
    let (status, edited) = edit(json!({"text": "**second**"})).await;
    assert_eq!((status.as_u16(), &edited["v"]), (200, &json!(2)));
    assert_eq!(edited["html"], "<strong>second</strong>");
    assert!(edited["editedAt"].is_string());
    assert_eq!(edited["sent"], message["sent"]);
    let theirs = stage
        .send_as(&stage.alice.token, Method::PUT, &path, json!({"text": "x"}))
        .await;
    assert_eq!(theirs.0, 403);
    assert_eq!(edit(json!({"text": "x".repeat(4097)})).await.0, 400);
    assert_eq!(edit(json!({"text": null})).await.0, 500);
    let (status, emptied) = edit(json!({})).await;
    assert_eq!(
        (status.as_u16(), &emptied["text"], &emptied["html"]),
        (200, &json!(""), &json!(""))
    );
    stage.sim.advance(Duration::from_secs(590));
    assert_eq!(edit(json!({"text": "in time"})).await.0, 200);
    stage.sim.advance(Duration::from_secs(20));
    assert_eq!(edit(json!({"text": "too late"})).await.0, 400);
    let missing = format!("{}/{}", stage.chat(), "0".repeat(24));
    assert_eq!(
        stage
            .send(Method::PUT, &missing, json!({"text": "x"}))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn behaviour_10_deleting_is_for_authors_and_admins() {
    let stage = SimScenario::new().await;
    let (_, message) = stage.post("mine").await;
    let path = format!("{}/{}", stage.chat(), message["id"].as_str().unwrap());
    stage.sim.advance(Duration::from_hours(24));
    let theirs = stage
        .send_as(&stage.alice.token, Method::DELETE, &path, json!({}))
        .await;
    assert_eq!(theirs.0, 403);
    let (status, body) = stage.send(Method::DELETE, &path, json!({})).await;
    assert_eq!((status.as_u16(), body), (204, json!("")));
    assert_eq!(stage.send(Method::DELETE, &path, json!({})).await.0, 404);
    assert_eq!(stage.get(&path).await.0, 404);
    let options = RoomOptions {
        admins: vec![stage.me.id.clone()],
        ..RoomOptions::default()
    };
    let mine = stage.sim.add_room("org/mine", options);
    let theirs = stage.sim.say(&mine.id, &stage.alice.id, "theirs").id;
    let path = format!("/rooms/{}/chatMessages/{theirs}", mine.id);
    assert_eq!(stage.send(Method::DELETE, &path, json!({})).await.0, 204);
}

#[tokio::test]
async fn behaviour_10_a_thread_root_with_replies_is_emptied_instead() {
    let stage = SimScenario::new().await;
    let root = stage.say("root");
    let reply = stage
        .sim
        .say_in_thread(&stage.room.id, &stage.me.id, &root, "reply")
        .id;
    stage.sim.delete(&stage.room.id, &root).unwrap();
    let (_, message) = stage.get(&format!("{}/{root}", stage.chat())).await;
    assert_eq!(
        (&message["text"], &message["html"]),
        (&json!(""), &json!(""))
    );
    assert!(message.get("editedAt").is_none());
    stage.sim.delete(&stage.room.id, &reply).unwrap();
    let (_, message) = stage.get(&format!("{}/{root}", stage.chat())).await;
    assert_eq!(message["threadMessageCount"], 0);
    stage.sim.delete(&stage.room.id, &root).unwrap();
    assert_eq!(stage.get(&format!("{}/{root}", stage.chat())).await.0, 404);
}

#[tokio::test]
async fn behaviour_11_what_has_no_value_is_left_out() {
    let stage = SimScenario::new().await;
    let id = stage.say("see #12 and @nobody");
    let (_, message) = stage.get(&format!("{}/{id}", stage.chat())).await;
    for key in [
        "editedAt",
        "parentId",
        "status",
        "threadMessageCount",
        "virtualUser",
    ] {
        assert!(message.get(key).is_none(), "{key}");
    }
    assert_eq!(message["meta"], json!([]));
    assert_eq!(message["issues"], json!([{"number": "12"}]));
    assert_eq!(message["mentions"], json!([{"screenName": "nobody"}]));
    stage.sim.delete_user(&stage.alice.id);
    let (_, message) = stage.get(&format!("{}/{id}", stage.chat())).await;
    assert!(message.get("fromUser").is_none());
}

#[tokio::test]
async fn behaviour_11_the_older_form_can_be_switched_on() {
    let compatibility = Compatibility {
        edited_at_null: true,
        meta_object: true,
    };
    let stage = SimScenario::with(Options {
        compatibility,
        ..Options::default()
    })
    .await;
    let (_, message) = stage.post("old times").await;
    assert_eq!(message.get("editedAt"), Some(&Value::Null));
    assert_eq!(message["meta"], json!({}));
}

#[tokio::test]
async fn behaviour_12_a_hellbanned_sender_is_answered_and_dropped() {
    let stage = SimScenario::new().await;
    let mut changes = stage.sim.subscribe();
    stage.sim.hellban(&stage.me.id);
    let (status, message) = stage.post("can you hear me?").await;
    assert_eq!(status, 200);
    assert!(message.get("v").is_none());
    let path = format!("{}/{}", stage.chat(), message["id"].as_str().unwrap());
    assert_eq!(stage.get(&path).await.0, 404);
    assert!(stage.sim.messages(&stage.room.id).is_empty());
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn behaviour_12_young_accounts_are_banned_for_repeating_themselves() {
    let cases = [
        ("short", 100),
        ("ten to 19 cc", 20),
        ("a text of twenty or more", 10),
    ];
    for (text, allowed) in cases {
        let stage = SimScenario::with(Options {
            rate_limit: 1000,
            ..Options::default()
        })
        .await;
        let young = stage
            .sim
            .add_user_aged("young", "", Duration::from_hours(24 * 13));
        let old = stage
            .sim
            .add_user_aged("old", "", Duration::from_hours(24 * 15));
        let other = stage.sim.add_room("org/other", RoomOptions::default());
        for n in 0..=allowed {
            let room = if n % 2 == 0 {
                &stage.room.id
            } else {
                &other.id
            };
            let sent = stage.sim.say(room, &young.id, text);
            assert_eq!(sent.version > 0, n < allowed, "{text} {n}");
            assert_eq!(stage.sim.say(room, &old.id, text).version, 1);
        }
        stage.sim.advance(Duration::from_hours(13));
        let later = stage.sim.say(&stage.room.id, &young.id, "something new");
        assert_eq!(later.version, 0, "the ban is for good");
    }
}

#[tokio::test]
async fn behaviour_13_html_urls_mentions_and_issues_come_with_the_message() {
    let stage = SimScenario::new().await;
    let (_, message) = stage
        .post("**hi** @Alice, see https://example.org/a. and org/repo#5")
        .await;
    let html = message["html"].as_str().unwrap();
    assert!(
        html.starts_with("<strong>hi</strong> <span data-link-type=\"mention\""),
        "{html}"
    );
    assert_eq!(message["urls"], json!([{"url": "https://example.org/a"}]));
    assert_eq!(
        message["mentions"],
        json!([{"screenName": "Alice", "userId": stage.alice.id}])
    );
    assert_eq!(
        message["issues"],
        json!([{"number": "5", "repo": "org/repo"}])
    );
}
