//! Behaviours 1 to 4: tokens, errors, requests that are refused before a handler runs, the rate limit.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use reqwest::{Body, Method};
use serde_json::{Value, json};

use super::{SimScenario, read};
use crate::gitter::{Fault, Options};

#[tokio::test]
async fn behaviour_01_a_token_works_in_each_of_its_three_places() {
    let stage = SimScenario::new().await;
    let url = format!("{}/user/me", stage.sim.api_url());
    let token = &stage.me.token;
    let ask = |url: &str| stage.http.get(url);
    let cases = [
        ask(&url).header("Authorization", format!("Bearer {token}")),
        ask(&url).header("authorization", format!("bEARER {token}")),
        ask(&url).header("x-access-token", token),
        ask(&format!("{url}?access_token={token}")),
        ask(&url.replace("/v1/", "/api/v1/")).header("x-access-token", token),
    ];
    for case in cases {
        let (status, user) = read(case.send().await.unwrap()).await;
        assert_eq!(
            (status.as_u16(), user["id"].as_str()),
            (200, Some(stage.me.id.as_str()))
        );
    }
}

#[tokio::test]
async fn behaviour_01_contradicting_and_missing_tokens_give_different_errors() {
    let stage = SimScenario::new().await;
    let url = format!("{}/user", stage.sim.api_url());
    let ask = || stage.http.get(&url);
    let cases = [
        (ask(), 401),
        (ask().header("Authorization", "Bearer nonsense"), 401),
        (ask().header("Authorization", "Bearer"), 400),
        (ask().header("Authorization", "Bearer one two"), 400),
        (
            ask()
                .bearer_auth(&stage.me.token)
                .header("x-access-token", &stage.alice.token),
            400,
        ),
        (
            stage
                .http
                .get(format!("{url}?access_token=other"))
                .bearer_auth(&stage.me.token),
            400,
        ),
    ];
    for (case, expected) in cases {
        let response = case.send().await.unwrap();
        assert_eq!(response.status(), expected);
        assert!(response.headers().get("x-ratelimit-limit").is_none());
        let phrase = if expected == 401 {
            "Unauthorized"
        } else {
            "Bad Request"
        };
        assert_eq!(read(response).await.1, json!({"error": phrase}));
    }
}

#[tokio::test]
async fn behaviour_01_a_revoked_token_stops_working_at_once() {
    let stage = SimScenario::new().await;
    assert_eq!(stage.get("/user").await.0, 200);
    stage.sim.revoke_token(&stage.me.token);
    assert_eq!(stage.get("/user").await.0, 401);
}

#[tokio::test]
async fn behaviour_02_errors_contain_the_phrase_and_nothing_else() {
    let stage = SimScenario::new().await;
    let (status, body) = stage.get("/rooms/000000000000000000000000").await;
    assert_eq!(
        (status.as_u16(), body),
        (404, json!({"error": "Not Found"}))
    );
    let (status, body) = stage.get("/no/such/path").await;
    assert_eq!(
        (status.as_u16(), body),
        (404, json!({"error": "Not Found"}))
    );
    let (status, body) = stage.send(Method::POST, "/no/such/path", json!({})).await;
    assert_eq!(status, 404);
    assert!(body.as_str().unwrap().contains("Cannot POST"), "{body}");
    stage
        .sim
        .faults()
        .next("*", Fault::Status { status: 503 }, 1);
    let (status, body) = stage.get("/user").await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (503, &json!("Service Unavailable"))
    );
    let keys: BTreeSet<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 2);
    assert!(body["uniqueId"].as_i64().unwrap() > 1_600_000_000_000);
}

#[tokio::test]
async fn behaviour_02_a_fault_strikes_its_route_as_often_as_armed() {
    let stage = SimScenario::new().await;
    let faults = stage.sim.faults();
    faults.next("GET /user", Fault::Html { status: 502 }, 2);
    assert_eq!(stage.get("/rooms").await.0, 200);
    for _ in 0..2 {
        let (status, body) = stage.get("/user").await;
        assert_eq!(status, 502);
        assert!(body.as_str().unwrap().starts_with("<html>"), "{body}");
    }
    assert_eq!(stage.get("/user").await.0, 200);
    faults.next("GET /user", Fault::SlowAnswer { ms: 200 }, 1);
    let start = Instant::now();
    assert_eq!(stage.get("/user").await.0, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn behaviour_02_a_lost_answer_may_or_may_not_have_done_the_work() {
    let stage = SimScenario::new().await;
    let route = "POST /rooms/:id/chatMessages";
    let cases = [
        (Fault::DropBefore, false),
        (Fault::DropAfter, true),
        (Fault::ResetAfter, true),
    ];
    for (fault, done) in cases {
        let before = stage.sim.messages(&stage.room.id).len();
        stage.sim.faults().next(route, fault, 1);
        let request = stage.request(Method::POST, &stage.me.token, &stage.chat());
        let result = request.json(&json!({"text": "is it there?"})).send().await;
        assert!(result.is_err(), "{fault:?} answered");
        let after = stage.sim.messages(&stage.room.id).len();
        assert_eq!(after - before, usize::from(done), "{fault:?}");
    }
    let before = stage.sim.messages(&stage.room.id).len();
    stage
        .sim
        .faults()
        .next(route, Fault::HtmlAfter { status: 504 }, 1);
    assert_eq!(stage.post("and this?").await.0, 504);
    assert_eq!(stage.sim.messages(&stage.room.id).len(), before + 1);
}

#[tokio::test]
async fn behaviour_02_faults_by_chance_follow_the_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let stage = SimScenario::new().await;
        stage
            .sim
            .faults()
            .sometimes("GET /user", Fault::Status { status: 500 }, 0.5);
        let mut run = Vec::new();
        for _ in 0..20 {
            run.push(stage.get("/user").await.0.as_u16());
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&200) && runs[0].contains(&500));
}

#[tokio::test]
async fn behaviour_03_chunked_and_oversized_requests_are_refused() {
    let stage = SimScenario::new().await;
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(r#"{"text":"hi"}"#)]);
    let request = stage.request(Method::POST, &stage.me.token, &stage.chat());
    let request = request.header("content-type", "application/json");
    let (status, body) = read(
        request
            .body(Body::wrap_stream(chunks))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (status.as_u16(), body),
        (406, json!({"error": "Not Acceptable"}))
    );
    assert_eq!(stage.post(&"x".repeat(101 * 1024)).await.0, 413);
    assert!(stage.sim.messages(&stage.room.id).is_empty());
}

#[tokio::test]
async fn behaviour_03_malformed_ids_are_refused_as_the_service_did() {
    let stage = SimScenario::new().await;
    let chat = stage.chat();
    let cases = [
        (Method::GET, "/rooms/nonsense".to_owned(), 400),
        (Method::GET, "/rooms/nonsense/chatMessages".to_owned(), 400),
        (Method::GET, format!("{chat}/nonsense"), 500),
        (Method::PUT, format!("{chat}/nonsense"), 500),
        (Method::DELETE, format!("{chat}/nonsense"), 500),
        (Method::GET, format!("{chat}?beforeId=nonsense"), 500),
        (Method::GET, format!("{chat}?afterId=nonsense"), 500),
    ];
    for (method, path, expected) in cases {
        let (status, body) = stage.send(method, &path, json!({"text": "x"})).await;
        assert_eq!(status, expected, "{path}");
        assert_eq!(body.get("uniqueId").is_some(), expected == 500, "{path}");
    }
    let request = stage.request(Method::POST, &stage.me.token, &chat);
    let request = request
        .header("content-type", "application/json")
        .body("{nonsense");
    assert_eq!(request.send().await.unwrap().status(), 400);
}

async fn rate(stage: &SimScenario, token: &str) -> (u16, i64, i64, bool) {
    let response = stage
        .request(Method::GET, token, "/user")
        .send()
        .await
        .unwrap();
    let number = |name| {
        let value = response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap());
        value.unwrap().parse::<i64>().unwrap()
    };
    let (remaining, reset) = (number("x-ratelimit-remaining"), number("x-ratelimit-reset"));
    assert_eq!(number("x-ratelimit-limit"), 3);
    (
        response.status().as_u16(),
        remaining,
        reset,
        response.headers().contains_key("retry-after"),
    )
}

#[tokio::test]
async fn behaviour_04_the_window_is_fixed_and_counts_refused_calls() {
    let stage = SimScenario::with(Options {
        rate_limit: 3,
        ..Options::default()
    })
    .await;
    let token = &stage.me.token;
    let now = stage.sim.now_ms();
    let first = rate(&stage, token).await;
    assert!(
        (now + 60_000..now + 65_000).contains(&first.2),
        "reset is in milliseconds"
    );
    assert_eq!((first.0, first.1), (200, 2));
    assert_eq!(rate(&stage, token).await.1, 1);
    assert_eq!(rate(&stage, token).await.1, 0);
    stage.sim.advance(Duration::from_secs(50));
    assert_eq!(rate(&stage, token).await, (429, 0, first.2, false));
    let (status, body) = stage.get("/rooms").await;
    assert_eq!(
        (status.as_u16(), body),
        (429, json!({"error": "Too Many Requests"}))
    );
    // Refused calls did not lengthen the window.
    stage.sim.advance(Duration::from_secs(11));
    let fresh = rate(&stage, token).await;
    assert_eq!((fresh.0, fresh.1), (200, 2));
    assert!(fresh.2 > first.2);
}

#[tokio::test]
async fn behaviour_04_users_and_clients_are_counted_apart() {
    let stage = SimScenario::with(Options {
        rate_limit: 3,
        ..Options::default()
    })
    .await;
    let other_client = stage.sim.add_token(&stage.me.id, "other", false);
    let same_client = stage.sim.add_token(&stage.me.id, "personal", false);
    for _ in 0..4 {
        rate(&stage, &stage.me.token).await;
    }
    assert_eq!(rate(&stage, &same_client).await.0, 429);
    assert_eq!(rate(&stage, &other_client).await.0, 200);
    assert_eq!(rate(&stage, &stage.alice.token).await.0, 200);
    assert_eq!(
        stage
            .http
            .get(format!("{}/user", stage.sim.api_url()))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again() {
    let stage = SimScenario::new().await;
    let first = stage
        .request(Method::GET, &stage.me.token, "/user")
        .send()
        .await
        .unwrap();
    let tag = first.headers()["etag"].clone();
    let again = stage
        .request(Method::GET, &stage.me.token, "/user")
        .header("if-none-match", tag);
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), 304);
    assert!(again.headers().contains_key("x-ratelimit-remaining"));
    assert_eq!(read(again).await.1, Value::String(String::new()));
}

#[tokio::test]
async fn an_outage_drops_connections_and_keeps_the_world() {
    let stage = SimScenario::new().await;
    stage.post("before").await;
    stage.sim.stop_listening().await;
    let request = stage.request(Method::GET, &stage.me.token, "/user");
    assert!(request.send().await.is_err());
    stage.say("meanwhile");
    stage.sim.restart().await.unwrap();
    assert_eq!(stage.listed("limit=10").await, ["before", "meanwhile"]);
}

#[tokio::test]
async fn the_ports_close_with_the_last_handle() {
    let stage = SimScenario::new().await;
    let url = stage.sim.api_url();
    let SimScenario { sim, http, .. } = stage;
    drop(sim);
    for _ in 0..100 {
        if http.get(&url).send().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still listening");
}
