//! Tests of the simulator from outside, over real HTTP and web sockets: what was observed on a real server.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message as Frame,
};

use super::{Channel, Fault, MattermostSim, Options, Post, User};

/// The longest wait for something that should arrive at once.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct SimScenario {
    sim: MattermostSim,
    http: Client,
    bot: User,
    bob: User,
    channel: Channel,
}

impl SimScenario {
    async fn with(options: Options) -> Self {
        let sim = MattermostSim::start(options).await.unwrap();
        let (bot, bob) = (sim.add_bot("bridge"), sim.add_user("bob"));
        let team = sim.add_team("team");
        let channel = sim.add_channel(&team, "town", "O", &[&bot, &bob]);
        Self {
            // A connection that was cut may not serve the next call.
            http: Client::builder()
                .timeout(EVENT_TIMEOUT)
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
            sim,
            bot,
            bob,
            channel,
        }
    }

    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v4/{path}", self.sim.url());
        let request = self.http.request(method, url).bearer_auth(&self.bot.token);
        let response = request.json(body).send().await.unwrap();
        (
            response.status().as_u16(),
            response.json().await.unwrap_or_default(),
        )
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call(Method::GET, path, &json!({})).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    async fn write(&self, text: &str, pending: &str) -> (u16, Value) {
        let body =
            json!({"channel_id": self.channel.id, "message": text, "pending_post_id": pending});
        self.call(Method::POST, "posts", &body).await
    }

    fn say(&self, text: &str) -> String {
        self.sim.say(&self.channel.id, &self.bob.id, text).id
    }

    async fn socket(&self) -> Socket {
        let url = format!("{}/api/v4/websocket", self.sim.url().replace("http", "ws"));
        let (mut socket, _) = connect_async(url).await.unwrap();
        let token = json!({"token": self.bot.token});
        let who = json!({"seq": 1, "action": "authentication_challenge", "data": token});
        socket.send(Frame::text(who.to_string())).await.unwrap();
        let hello = next_event(&mut socket).await;
        assert_eq!(
            (&hello["event"], &hello["seq"]),
            (&json!("hello"), &json!(0))
        );
        assert_eq!(next_event(&mut socket).await["seq_reply"], 1);
        socket
    }
}

async fn frame(socket: &mut Socket) -> String {
    let frame = tokio::time::timeout(EVENT_TIMEOUT, socket.next())
        .await
        .expect("a frame");
    match frame.unwrap().unwrap() {
        Frame::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn next_event(socket: &mut Socket) -> Value {
    serde_json::from_str(&frame(socket).await).unwrap()
}

/// The post in an event: JSON inside JSON.
fn inner(event: &Value) -> Value {
    serde_json::from_str(event["data"]["post"].as_str().unwrap()).unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    let order = list["order"].as_array().unwrap().iter();
    order
        .map(|id| {
            list["posts"][id.as_str().unwrap()]["message"]
                .as_str()
                .unwrap()
        })
        .collect()
}

#[tokio::test]
async fn a_pending_post_id_makes_one_post_until_it_is_forgotten() {
    let stage = SimScenario::with(Options {
        remembered: Duration::from_millis(300),
        ..Options::default()
    })
    .await;
    let (status, first) = stage.write("one", "key").await;
    assert_eq!((status, &first["props"]["from_bot"]), (201, &json!("true")));
    let (status, again) = stage.write("one", "key").await;
    assert_eq!((status, &again["id"]), (201, &first["id"]));
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_ne!(stage.write("one", "key").await.1["id"], first["id"]);
    stage.sim.restart().await.unwrap();
    assert_eq!(stage.sim.posts(&stage.channel.id).len(), 2);
}

#[tokio::test]
async fn what_is_too_long_foreign_or_unknown_is_refused_in_the_servers_form() {
    let stage = SimScenario::new().await;
    assert_eq!(stage.write(&"ü".repeat(16_383), "").await.0, 201);
    let (status, error) = stage.write(&"ü".repeat(16_384), "").await;
    assert_eq!(
        (status, &error["id"]),
        (400, &json!("model.post.is_valid.msg.app_error"))
    );
    assert_eq!(error["status_code"], 400);
    assert_eq!(
        stage.write("", "").await.0,
        201,
        "an empty message is accepted"
    );
    let theirs = stage.say("theirs");
    let patch = format!("posts/{theirs}/patch");
    let (status, error) = stage
        .call(Method::PUT, &patch, &json!({"message": "mine"}))
        .await;
    assert_eq!(
        (status, &error["id"]),
        (403, &json!("api.context.permissions.app_error"))
    );
    assert_eq!(
        stage.call(Method::GET, "posts/nothing", &json!({})).await.0,
        404
    );
    assert_eq!(stage.call(Method::GET, "nothing", &json!({})).await.0, 404);
    stage.sim.remove(&stage.channel.id, &stage.bot.id);
    assert_eq!(stage.write("out", "").await.0, 403);
    stage.sim.revoke(&stage.bot.token);
    let (status, error) = stage.call(Method::GET, "users/me", &json!({})).await;
    assert_eq!(
        (status, &error["id"]),
        (401, &json!("api.context.session_expired.app_error"))
    );
}

#[tokio::test]
async fn changes_of_a_missing_post_are_forbidden_and_only_reading_it_shows_why() {
    let stage = SimScenario::new().await;
    let (_, post) = stage.write("gone", "").await;
    let post = post["id"].as_str().unwrap().to_owned();
    stage.sim.delete(&post);
    let path = format!("posts/{post}");
    let reaction = json!({"user_id": stage.bot.id, "post_id": post, "emoji_name": "tada"});
    for (method, path, body, status, id) in [
        (
            Method::DELETE,
            path.clone(),
            &json!({}),
            403,
            "api.context.permissions.app_error",
        ),
        (
            Method::PUT,
            format!("{path}/patch"),
            &json!({"message": "x"}),
            403,
            "api.context.permissions.app_error",
        ),
        (
            Method::POST,
            "reactions".to_owned(),
            &reaction,
            404,
            "app.post.get.app_error",
        ),
        (Method::GET, path, &json!({}), 404, "app.post.get.app_error"),
    ] {
        let answer = stage.call(method, &path, body).await;
        assert_eq!((answer.0, &answer.1["id"]), (status, &json!(id)), "{path}");
    }
}

#[tokio::test]
async fn a_channel_that_is_not_to_be_seen_does_not_exist() {
    let stage = SimScenario::new().await;
    let team = stage.sim.add_team("another");
    let hidden = stage.sim.add_channel(&team, "hidden", "P", &[&stage.bob]);
    let members = [&stage.bot, &stage.bob];
    let old = stage.sim.add_channel(&team, "old", "O", &members);
    stage.sim.archive(&old.id);
    for (path, status) in [
        ("teams/name/another/channels/name/hidden", 404),
        ("teams/name/another/channels/name/old", 404),
        (
            "teams/name/another/channels/name/old?include_deleted=true",
            200,
        ),
        ("teams/name/nowhere/channels/name/old", 404),
    ] {
        let answer = stage.call(Method::GET, path, &json!({})).await;
        assert_eq!(answer.0, status, "{path}");
    }
    stage.sim.join(&hidden.id, &stage.bot.id);
    let path = "teams/name/another/channels/name/hidden";
    assert_eq!(stage.call(Method::GET, path, &json!({})).await.0, 200);
}

#[tokio::test]
async fn newer_servers_do_not_find_unnamed_emoji() {
    for (knows_emoji, status) in [(false, 201), (true, 404)] {
        let stage = SimScenario::with(Options {
            knows_emoji,
            ..Options::default()
        })
        .await;
        let post = stage.say("hi");
        for (name, status) in [
            ("raised_eyebrow", status),
            ("man-shrugging_medium_dark_skin_tone", 201),
        ] {
            let body = json!({"user_id": stage.bot.id, "post_id": post, "emoji_name": name});
            let answer = stage.call(Method::POST, "reactions", &body).await;
            assert_eq!(answer.0, status, "{name}");
        }
    }
}

#[tokio::test]
async fn since_returns_edits_deletions_and_old_texts() {
    let stage = SimScenario::new().await;
    let (kept, gone) = (stage.say("one"), stage.say("two"));
    let reply = stage
        .sim
        .say_in_thread(&stage.channel.id, &stage.bob.id, &gone, "below")
        .id;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let moment = super::world::now_ms();
    tokio::time::sleep(Duration::from_millis(5)).await;
    stage.sim.edit(&kept, "one, corrected");
    stage.sim.delete(&gone);
    let list = stage
        .get(&format!(
            "channels/{}/posts?since={moment}",
            stage.channel.id
        ))
        .await;
    let posts = list["posts"].as_object().unwrap();
    let old = posts
        .values()
        .find(|post| post["original_id"] == json!(kept))
        .unwrap();
    assert_eq!(
        (&old["message"], old["delete_at"] == 0),
        (&json!("one"), false)
    );
    assert_eq!(list["posts"][&kept]["message"], "one, corrected");
    assert_eq!(list["posts"][&gone]["message"], "", "its text is gone");
    assert_ne!(
        list["posts"][&reply]["delete_at"], 0,
        "it went with its thread"
    );
    assert_eq!(list["order"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn pages_lead_through_a_channel_in_both_directions() {
    let stage = SimScenario::new().await;
    let mut ids = Vec::new();
    for number in 0..9 {
        ids.push(stage.say(&number.to_string()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let posts = format!("channels/{}/posts", stage.channel.id);
    let page = stage.get(&format!("{posts}?per_page=4")).await;
    assert_eq!(texts(&page), ["8", "7", "6", "5"]);
    assert_eq!(page["prev_post_id"], json!(ids[4]));
    let page = stage
        .get(&format!("{posts}?per_page=4&before={}", ids[5]))
        .await;
    assert_eq!(texts(&page), ["4", "3", "2", "1"]);
    let page = stage
        .get(&format!("{posts}?per_page=4&after={}", ids[2]))
        .await;
    assert_eq!(texts(&page), ["6", "5", "4", "3"]);
    assert_eq!(page["next_post_id"], json!(ids[7]));
}

#[tokio::test]
async fn the_websocket_numbers_its_events() {
    let stage = SimScenario::new().await;
    let mut socket = stage.socket().await;
    let id = stage.say("one");
    let event = next_event(&mut socket).await;
    assert_eq!(
        (&event["event"], &event["seq"]),
        (&json!("posted"), &json!(1))
    );
    assert_eq!(event["broadcast"]["channel_id"], json!(stage.channel.id));
    assert_eq!(event["data"]["sender_name"], "@bob");
    assert_eq!(inner(&event)["message"], "one");
    stage.sim.edit(&id, "two");
    assert_eq!(next_event(&mut socket).await["event"], "post_edited");
    stage.sim.react(&stage.bob.id, &id, "tada");
    let event = next_event(&mut socket).await;
    let reaction: Value =
        serde_json::from_str(event["data"]["reaction"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&event["event"], &reaction["emoji_name"]),
        (&json!("reaction_added"), &json!("tada"))
    );
    stage.sim.delete(&id);
    assert_eq!(next_event(&mut socket).await["event"], "post_deleted");
    socket
        .send(Frame::text(r#"{"seq":2,"action":"ping"}"#))
        .await
        .unwrap();
    assert_eq!(next_event(&mut socket).await["data"]["text"], "pong");

    stage.sim.faults().skip_events(1);
    stage.say("skipped");
    stage.sim.faults().lose_events(1);
    stage.say("lost");
    stage.say("told");
    let event = next_event(&mut socket).await;
    assert_eq!(
        (inner(&event)["message"].as_str(), &event["seq"]),
        (Some("told"), &json!(6))
    );
    stage.sim.faults().garbage(1);
    stage.say("after garbage");
    assert!(serde_json::from_str::<Value>(&frame(&mut socket).await).is_err());
    assert_eq!(
        inner(&next_event(&mut socket).await)["message"],
        "after garbage"
    );
}

#[tokio::test]
async fn a_stranger_receives_nothing() {
    let stage = SimScenario::new().await;
    let url = format!("{}/api/v4/websocket", stage.sim.url().replace("http", "ws"));
    let (mut socket, _) = connect_async(url).await.unwrap();
    let who = r#"{"seq":1,"action":"authentication_challenge","data":{"token":"wrong"}}"#;
    socket.send(Frame::text(who)).await.unwrap();
    let end = tokio::time::timeout(EVENT_TIMEOUT, socket.next())
        .await
        .unwrap();
    assert!(!matches!(end, Some(Ok(Frame::Text(_)))), "it is closed");
    assert_eq!(stage.sim.open_sockets(), 0);
}

#[tokio::test]
async fn anybody_may_write_another_name_beside_a_post_outside_of_the_hardened_mode() {
    for (overrides, hardened) in [(false, false), (true, false), (true, true)] {
        let stage = SimScenario::with(Options {
            overrides,
            hardened,
            ..Options::default()
        })
        .await;
        let props = json!({"from_webhook": "true", "override_username": "Ann"});
        let body = json!({"channel_id": stage.channel.id, "message": "hi", "props": props});
        // The apps decide whether it is shown.
        let (status, post) = stage.call(Method::POST, "posts", &body).await;
        assert_eq!(
            (status, &post["props"]["override_username"]),
            (201, &json!("Ann"))
        );
        let props = props.as_object().cloned().unwrap();
        let by_person = stage.sim.write(Post {
            channel_id: stage.channel.id.clone(),
            user_id: stage.bob.id.clone(),
            message: "hi".to_owned(),
            props,
            ..Post::default()
        });
        assert_eq!(by_person.is_err(), hardened);
    }
}

#[tokio::test]
async fn too_many_calls_are_refused() {
    let stage = SimScenario::with(Options {
        rate_limit: Some((1, 3)),
        ..Options::default()
    })
    .await;
    let mut statuses = Vec::new();
    for number in 0..5 {
        statuses.push(stage.write(&number.to_string(), "").await.0);
    }
    assert_eq!(statuses, [201, 201, 201, 429, 429]);
}

#[tokio::test]
async fn faults_strike_before_or_after_the_work() {
    let stage = SimScenario::new().await;
    stage.sim.faults().next("POST posts", Fault::DropBefore, 1);
    let url = format!("{}/api/v4/posts", stage.sim.url());
    let body = json!({"channel_id": stage.channel.id, "message": "x"});
    let send = || {
        stage
            .http
            .post(&url)
            .bearer_auth(&stage.bot.token)
            .json(&body)
            .send()
    };
    assert!(send().await.is_err());
    assert_eq!(stage.sim.posts(&stage.channel.id).len(), 0);
    stage.sim.faults().next("POST posts", Fault::DropAfter, 1);
    assert!(send().await.is_err());
    assert_eq!(stage.sim.posts(&stage.channel.id).len(), 1);
}
