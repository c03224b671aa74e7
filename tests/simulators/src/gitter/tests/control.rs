//! Tests of the control port, and that clients cannot see it.

use serde_json::{Value, json};

use super::{SimScenario, read};

async fn order(stage: &SimScenario, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}{path}", stage.sim.control_url());
    let (status, value) = read(stage.http.post(url).json(&body).send().await.unwrap()).await;
    (status.as_u16(), value)
}

async fn look(stage: &SimScenario, path: &str) -> Value {
    let url = format!("{}{path}", stage.sim.control_url());
    read(stage.http.get(url).send().await.unwrap()).await.1
}

#[tokio::test]
async fn the_control_port_speaks_for_other_people() {
    let stage = SimScenario::new().await;
    let (status, sent) = order(
        &stage,
        "/say",
        json!({"room": "org/repo", "user": "alice", "text": "hi"}),
    )
    .await;
    assert_eq!((status, &sent["user"]), (200, &json!("alice")));
    let edit = json!({"room": stage.room.id, "message": sent["id"], "text": "hello"});
    assert_eq!(order(&stage, "/edit", edit).await.1["text"], "hello");
    assert_eq!(
        look(&stage, "/messages?room=org/repo").await[0]["text"],
        "hello"
    );
    assert_eq!(stage.listed("").await, ["hello"]);
    let delete = json!({"room": stage.room.id, "message": sent["id"]});
    assert_eq!(order(&stage, "/delete", delete).await.0, 200);
    assert_eq!(look(&stage, "/messages?room=org/repo").await, json!([]));
    let calls = look(&stage, "/calls").await;
    assert_eq!(calls, json!({"GET /rooms/:id/chatMessages": 1}));
}

#[tokio::test]
async fn the_control_port_makes_people_rooms_and_trouble() {
    let stage = SimScenario::new().await;
    let (_, eve) = order(&stage, "/users", json!({"username": "eve"})).await;
    let room = json!({"uri": "org/new", "public": false, "members": ["eve", "bridge"]});
    let (_, room) = order(&stage, "/rooms", room).await;
    let path = format!("/rooms/{}/chatMessages", room["id"].as_str().unwrap());
    assert_eq!(stage.get(&path).await.0, 200);
    let member = json!({"room": "org/new", "user": "bridge"});
    assert_eq!(order(&stage, "/kick", member).await.0, 200);
    assert_eq!(stage.get(&path).await.0, 403);
    let fault = json!({"route": "GET /user", "kind": "status", "status": 500});
    assert_eq!(order(&stage, "/fault", fault).await.0, 200);
    assert_eq!(stage.get("/user").await.0, 500);
    assert_eq!(stage.get("/user").await.0, 200);
    let now = stage.sim.now_ms();
    order(&stage, "/clock", json!({"advance_ms": 60_000})).await;
    assert!(stage.sim.now_ms() >= now + 60_000);
    order(&stage, "/revoke", json!({"token": eve["token"]})).await;
    let token = eve["token"].as_str().unwrap();
    assert_eq!(
        stage
            .send_as(token, reqwest::Method::GET, "/user", json!({}))
            .await
            .0,
        401
    );
    assert_eq!(order(&stage, "/stop", json!({})).await.0, 200);
    let request = stage.request(reqwest::Method::GET, &stage.me.token, "/user");
    assert!(request.send().await.is_err());
    assert_eq!(order(&stage, "/restart", json!({})).await.0, 200);
    assert_eq!(stage.get("/user").await.0, 200);
}

#[tokio::test]
async fn the_control_port_reports_what_is_wrong_with_a_request() {
    let stage = SimScenario::new().await;
    let cases = [
        (
            "/say",
            json!({"room": "org/none", "user": "alice", "text": "x"}),
            404,
        ),
        (
            "/say",
            json!({"room": "org/repo", "user": "nobody", "text": "x"}),
            404,
        ),
        (
            "/say",
            json!({"room": "org/repo", "user": "alice", "text": ""}),
            400,
        ),
        ("/say", json!({"room": "org/repo"}), 400),
        ("/fault", json!({"route": "*", "kind": "nonsense"}), 400),
        ("/cut", json!({"port": "api", "how": "gently"}), 400),
        ("/nonsense", json!({}), 404),
    ];
    for (path, body, expected) in cases {
        let (status, answer) = order(&stage, path, body).await;
        assert_eq!(status, expected, "{path}");
        assert!(answer["error"].is_string(), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_person_can_talk_on_the_page_and_clients_cannot_see_it() {
    let stage = SimScenario::new().await;
    let page = look(&stage, "/").await;
    assert!(
        page.as_str()
            .unwrap()
            .contains("<title>Simulated Gitter</title>")
    );
    for base in [stage.sim.api_url(), stage.sim.stream_url()] {
        for path in ["", "/say", "/calls", "/messages"] {
            let url = base.replace("/v1", path);
            assert_eq!(stage.http.get(url).send().await.unwrap().status(), 404);
        }
    }
}
