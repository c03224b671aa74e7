//! Behaviours 5, 6 and 14: users, rooms, permissions, membership and unread items.

use reqwest::Method;
use serde_json::json;

use super::SimScenario;
use crate::gitter::RoomOptions;

#[tokio::test]
async fn behaviour_05_the_current_user_is_a_list_of_one() {
    let stage = SimScenario::new().await;
    let (_, list) = stage.get("/user").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["username"], "bridge");
    assert_eq!(list[0]["displayName"], "Bridge Bot");
    let (_, me) = stage.get("/user/me").await;
    assert_eq!(me, list[0]);
    assert_eq!(stage.get(&format!("/user/{}", stage.me.id)).await.1, me);
    assert_eq!(stage.get(&format!("/user/{}", stage.alice.id)).await.0, 403);
    assert_eq!(stage.get("/users/ALICE").await.1["id"], stage.alice.id);
    let (_, found) = stage.get("/user?q=ali").await;
    assert_eq!(found["results"][0]["id"], stage.alice.id);
}

#[tokio::test]
async fn behaviour_05_resolving_a_room_does_not_join_it() {
    let stage = SimScenario::new().await;
    let other = stage.sim.add_room("Org/Other/Sub", RoomOptions::default());
    let resolve = |uri: &'static str| stage.send(Method::POST, "/rooms", json!({"uri": uri}));
    let (status, room) = resolve("oRG/oTHER/sUB").await;
    assert_eq!(
        (status.as_u16(), room["id"].as_str()),
        (200, Some(other.id.as_str()))
    );
    assert_eq!(
        (&room["uri"], &room["roomMember"]),
        (&json!("Org/Other/Sub"), &json!(false))
    );
    assert_eq!(stage.get("/rooms").await.1.as_array().unwrap().len(), 1);
    assert_eq!(resolve("Org/Missing").await.0, 404);
    assert_eq!(stage.send(Method::POST, "/rooms", json!({})).await.0, 400);
    let hidden = RoomOptions {
        public: false,
        ..RoomOptions::default()
    };
    stage.sim.add_room("Org/Hidden", hidden);
    assert_eq!(resolve("Org/Hidden").await.0, 404);
    let (status, direct) = resolve("alice").await;
    assert_eq!((status.as_u16(), &direct["oneToOne"]), (200, &json!(true)));
    assert_eq!(direct["user"]["id"], stage.alice.id);
    assert!(direct.get("uri").is_none());
    assert_eq!(resolve("alice").await.1["id"], direct["id"]);
}

#[tokio::test]
async fn behaviour_05_joining_twice_is_joining_once() {
    let stage = SimScenario::new().await;
    let other = stage.sim.add_room("org/other", RoomOptions::default());
    let path = format!("/user/{}/rooms", stage.me.id);
    for _ in 0..2 {
        let (status, room) = stage
            .send(Method::POST, &path, json!({"id": other.id}))
            .await;
        assert_eq!(
            (status.as_u16(), room["userCount"].as_u64()),
            (200, Some(1))
        );
        assert_eq!(room["roomMember"], true);
    }
    assert_eq!(stage.get("/rooms").await.1.as_array().unwrap().len(), 2);
    let join = |body| stage.send(Method::POST, &path, body);
    assert_eq!(join(json!({})).await.0, 400);
    assert_eq!(join(json!({"id": "nonsense"})).await.0, 400);
    assert_eq!(join(json!({"id": "0".repeat(24)})).await.0, 500);
    let foreign = format!("/user/{}/rooms", stage.alice.id);
    assert_eq!(
        stage
            .send(Method::POST, &foreign, json!({"id": other.id}))
            .await
            .0,
        403
    );
}

#[tokio::test]
async fn behaviour_06_a_public_room_needs_no_membership_and_a_ban_shuts_it() {
    let stage = SimScenario::new().await;
    stage.sim.leave(&stage.room.id, &stage.me.id).unwrap();
    assert_eq!(stage.post("as a guest").await.0, 200);
    assert_eq!(stage.listed("").await, ["as a guest"]);
    stage.sim.ban(&stage.room.id, &stage.me.id).unwrap();
    assert_eq!(stage.post("banned").await.0, 403);
    assert_eq!(stage.get(&stage.chat()).await.0, 403);
    assert_eq!(stage.get(&format!("/rooms/{}", stage.room.id)).await.0, 403);
    stage.sim.unban(&stage.room.id, &stage.me.id).unwrap();
    assert_eq!(stage.post("back").await.0, 200);
}

#[tokio::test]
async fn behaviour_06_private_rooms_and_anonymous_tokens() {
    let stage = SimScenario::new().await;
    let anonymous = stage.sim.add_anonymous_token();
    let options = RoomOptions {
        public: false,
        members: vec![stage.alice.id.clone()],
        ..RoomOptions::default()
    };
    let private = stage.sim.add_room("org/private", options);
    let path = format!("/rooms/{}/chatMessages", private.id);
    let body = || json!({"text": "x"});
    assert_eq!(stage.get(&path).await.0, 403);
    assert_eq!(stage.send(Method::POST, &path, body()).await.0, 403);
    let as_nobody = |method, path: String| {
        let (stage, anonymous) = (&stage, &anonymous);
        async move {
            stage
                .send_as(anonymous, method, &path, body())
                .await
                .0
                .as_u16()
        }
    };
    assert_eq!(as_nobody(Method::GET, path.clone()).await, 401);
    assert_eq!(as_nobody(Method::GET, stage.chat()).await, 200);
    assert_eq!(as_nobody(Method::POST, stage.chat()).await, 401);
    assert_eq!(as_nobody(Method::GET, "/user".to_owned()).await, 403);
    assert_eq!(
        stage
            .send_as(&stage.alice.token, Method::POST, &path, body())
            .await
            .0,
        200
    );
    assert_eq!(
        stage
            .get(&format!("/rooms/{}/chatMessages", "0".repeat(24)))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn behaviour_14_room_users_come_in_pages_with_roles() {
    let stage = SimScenario::new().await;
    let options = RoomOptions {
        admins: vec![stage.alice.id.clone()],
        members: (0..120)
            .map(|n| stage.sim.add_user(&format!("u{n}"), "").id)
            .collect(),
        ..RoomOptions::default()
    };
    let room = stage.sim.add_room("org/crowd", options);
    let users = |query: &'static str| {
        let path = format!("/rooms/{}/users?{query}", room.id);
        let stage = &stage;
        async move { stage.get(&path).await.1 }
    };
    assert_eq!(users("").await.as_array().unwrap().len(), 30);
    assert_eq!(users("limit=500").await.as_array().unwrap().len(), 100);
    assert_eq!(
        users("limit=100&skip=100").await.as_array().unwrap().len(),
        21
    );
    let first = users("limit=2").await;
    assert_eq!(
        (&first[0]["username"], &first[0]["role"]),
        (&json!("alice"), &json!("admin"))
    );
    assert!(first[1].get("role").is_none());
    assert_eq!(first[1]["displayName"], "u0");
}

#[tokio::test]
async fn behaviour_14_membership_changes_answer_success() {
    let stage = SimScenario::new().await;
    let users = format!("/rooms/{}/users", stage.room.id);
    let of = |id: &str| format!("{users}/{id}");
    let remove = |path: String| async {
        let path = path;
        stage.send(Method::DELETE, &path, json!({})).await
    };
    assert_eq!(remove(of(&stage.alice.id)).await.0, 403);
    let done = json!({"success": true});
    assert_eq!(
        remove(of(&stage.me.id)).await,
        (reqwest::StatusCode::OK, done.clone())
    );
    assert_eq!(remove(of(&stage.me.id)).await.0, 404);
    let (status, user) = stage
        .send(Method::POST, &users, json!({"username": "bridge"}))
        .await;
    assert_eq!(
        (status.as_u16(), user["id"].as_str()),
        (200, Some(stage.me.id.as_str()))
    );
    let hide = format!("/user/{}/rooms/{}", stage.me.id, stage.room.id);
    assert_eq!(remove(hide).await.1, done);
    assert!(stage.get("/rooms").await.1.as_array().unwrap().is_empty());
}

#[tokio::test]
async fn behaviour_14_unread_items_come_and_go() {
    let stage = SimScenario::new().await;
    let plain = stage.say("plain");
    let mention = stage.say("hello @bridge");
    stage.post("my own is not unread").await;
    let path = format!("/user/{}/rooms/{}/unreadItems", stage.me.id, stage.room.id);
    let (_, unread) = stage.get(&path).await;
    assert_eq!(unread["chat"].as_array().unwrap().len(), 2);
    assert_eq!(unread["mention"], json!([mention]));
    let (_, room) = stage.get(&format!("/rooms/{}", stage.room.id)).await;
    assert_eq!(
        (&room["unreadItems"], &room["mentions"]),
        (&json!(2), &json!(1))
    );
    let (_, message) = stage.get(&format!("{}/{plain}", stage.chat())).await;
    assert_eq!(
        (&message["unread"], &message["readBy"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(
        stage.send(Method::POST, &path, json!({"chat": []})).await.0,
        400
    );
    let (_, done) = stage
        .send(Method::POST, &path, json!({"chat": [plain]}))
        .await;
    assert_eq!(done, json!({"success": true}));
    assert_eq!(stage.get(&path).await.1["chat"], json!([mention]));
    let (_, message) = stage.get(&format!("{}/{plain}", stage.chat())).await;
    assert_eq!(
        (&message["unread"], &message["readBy"]),
        (&json!(false), &json!(1))
    );
    stage
        .send(Method::DELETE, &format!("{path}/all"), json!({}))
        .await;
    assert_eq!(stage.get(&path).await.1, json!({"chat": [], "mention": []}));
}

#[tokio::test]
async fn behaviour_14_admins_ban_and_change_the_room() {
    let stage = SimScenario::new().await;
    let options = RoomOptions {
        admins: vec![stage.me.id.clone()],
        members: vec![stage.alice.id.clone()],
        ..RoomOptions::default()
    };
    let room = stage.sim.add_room("org/mine", options);
    let path = format!("/rooms/{}", room.id);
    let (status, changed) = stage
        .send(Method::PUT, &path, json!({"topic": "New"}))
        .await;
    assert_eq!((status.as_u16(), &changed["topic"]), (200, &json!("New")));
    let bans = format!("{path}/bans");
    let ban = json!({"username": "alice"});
    assert_eq!(
        stage
            .send_as(&stage.alice.token, Method::POST, &bans, ban.clone())
            .await
            .0,
        403
    );
    assert_eq!(stage.send(Method::POST, &bans, ban).await.0, 200);
    assert_eq!(stage.get(&bans).await.1[0]["user"]["id"], stage.alice.id);
    assert_eq!(
        stage
            .send_as(&stage.alice.token, Method::GET, &path, json!({}))
            .await
            .0,
        403
    );
    let (_, events) = stage.get(&format!("{path}/events")).await;
    assert!(events[0]["text"].as_str().unwrap().contains("alice"));
    assert!(events[0].get("fromUser").is_none());
    assert_eq!(
        stage
            .send(Method::DELETE, &format!("{bans}/alice"), json!({}))
            .await
            .0,
        200
    );
    let (_, done) = stage.send(Method::DELETE, &path, json!({})).await;
    assert_eq!(done, json!({"success": true}));
    assert_eq!(stage.get(&path).await.0, 404);
}
