//! Tests of the throwaway homeserver, with a real Synapse.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "all of this file is tests"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use footbridge_testbed::synapse::{Limits, Registered, Synapse};
use serde_json::{Value, json};

fn client(timeout: Duration) -> reqwest::Client {
    reqwest::Client::builder().timeout(timeout).build().unwrap()
}

async fn call(
    synapse: &Synapse,
    user: &Registered,
    method: &str,
    path: &str,
    body: Value,
) -> reqwest::Response {
    let address = format!("{}/_matrix/client/v3/{path}", synapse.url());
    let request = client(Duration::from_secs(30)).request(method.parse().unwrap(), address);
    request
        .bearer_auth(&user.access_token)
        .json(&body)
        .send()
        .await
        .unwrap()
}

async fn create_room(synapse: &Synapse, user: &Registered) -> String {
    let answer = call(synapse, user, "POST", "createRoom", json!({})).await;
    let answer: Value = answer.error_for_status().unwrap().json().await.unwrap();
    answer["room_id"].as_str().unwrap().to_owned()
}

async fn say(synapse: &Synapse, user: &Registered, room: &str, number: usize) -> reqwest::Response {
    let room = room.replace('!', "%21").replace(':', "%3A");
    let body = json!({ "msgtype": "m.text", "body": format!("number {number}") });
    call(
        synapse,
        user,
        "PUT",
        &format!("rooms/{room}/send/m.room.message/t{number}"),
        body,
    )
    .await
}

async fn answers(synapse: &Synapse) -> bool {
    let address = format!("{}/_matrix/client/versions", synapse.url());
    client(Duration::from_millis(500))
        .get(address)
        .send()
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_its_address_and_its_events_over_a_restart() {
    let synapse = Synapse::start(Limits::Relaxed).await.unwrap();
    let user = synapse.register_session("ann", "secret").await.unwrap();
    assert_eq!(user.user_id, format!("@ann:{}", synapse.server_name()));
    let room = create_room(&synapse, &user).await;
    // Far more than the default limits allow.
    for number in 0..15 {
        assert!(
            say(&synapse, &user, &room, number)
                .await
                .status()
                .is_success()
        );
    }
    let address = synapse.url();
    synapse.stop().await.unwrap();
    assert!(!answers(&synapse).await);
    synapse.restart().await.unwrap();
    assert_eq!(synapse.url(), address);
    let said: Vec<_> = synapse.events(&room).await.unwrap();
    let said: Vec<_> = said
        .iter()
        .filter(|event| event.event_type == "m.room.message")
        .collect();
    assert_eq!(said.len(), 15);
    assert_eq!(said[14].json["content"]["body"], "number 14");
    assert_eq!(said[14].sender, user.user_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_frozen_and_leaves_nothing_behind() {
    let synapse = Synapse::start(Limits::Default).await.unwrap();
    let user = synapse.register_session("ann", "secret").await.unwrap();
    let room = create_room(&synapse, &user).await;
    let mut statuses = Vec::new();
    for number in 0..12 {
        statuses.push(say(&synapse, &user, &room, number).await.status().as_u16());
    }
    assert!(
        statuses.contains(&429),
        "the default limits hold: {statuses:?}"
    );

    synapse.freeze().unwrap();
    assert!(!answers(&synapse).await);
    synapse.thaw().unwrap();
    assert!(answers(&synapse).await);

    // Killed even while it is frozen.
    synapse.freeze().unwrap();
    let (directory, pid) = (synapse.directory().to_owned(), synapse.pid().unwrap());
    drop(synapse);
    assert!(!directory.exists());
    assert!(footbridge_testbed::signal::send(pid, "-0").is_err());
}

#[ignore = "not a test: the process which the next test kills"]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_waits_to_be_orphaned() {
    let synapse = Synapse::start(Limits::Relaxed).await.unwrap();
    println!(
        "\nserver {} {}",
        synapse.pid().unwrap(),
        synapse.directory().display()
    );
    tokio::time::sleep(Duration::from_mins(2)).await;
}

#[test]
fn a_server_ends_when_its_parent_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "a_server_waits_to_be_orphaned",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .find_map(|line| line.unwrap().strip_prefix("server ").map(str::to_owned))
        .unwrap();
    let (pid, directory) = line.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(footbridge_testbed::signal::send(pid, "-0").is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..100 {
        if footbridge_testbed::signal::send(pid, "-0").is_err()
            && !std::path::Path::new(directory).exists()
        {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the server outlived us");
}
