//! Behaviours 7 and 8: ids and lists.

use std::{collections::BTreeSet, time::Duration};

use super::{SimScenario, texts};

#[tokio::test]
async fn behaviour_07_ids_inside_a_second_are_out_of_time_order() {
    let stage = SimScenario::new().await;
    for n in 0..60 {
        stage.say(&format!("message {n}"));
    }
    let messages = stage.sim.messages(&stage.room.id);
    let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 60);
    assert!(
        ids.iter()
            .all(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    );
    assert!(!ids.is_sorted(), "one process made all ids");
    let marks: BTreeSet<&str> = ids.iter().map(|id| &id[8..18]).collect();
    assert_eq!(marks.len(), 3);
    for message in &messages {
        let seconds = i64::from_str_radix(&message.id[..8], 16).unwrap();
        assert_eq!(seconds, message.sent_ms / 1000);
    }
}

#[tokio::test]
async fn behaviour_07_asking_after_the_last_seen_id_misses_messages_and_a_made_up_id_does_not() {
    let stage = SimScenario::new().await;
    for n in 0..60 {
        stage.say(&format!("message {n}"));
    }
    let messages = stage.sim.messages(&stage.room.id);
    let at = (0..59)
        .find(|at| {
            messages[at + 1].id < messages[*at].id
                && messages[at + 1].sent_ms / 1000 == messages[*at].sent_ms / 1000
        })
        .expect("two processes in one second");
    let after = |id: String| format!("limit=100&afterId={id}");
    let missed = stage.listed(&after(messages[at].id.clone())).await;
    assert!(!missed.contains(&messages[at + 1].text));
    let made_up = format!("{:08x}{}", messages[at].sent_ms / 1000 - 30, "0".repeat(16));
    let found = stage.listed(&after(made_up)).await;
    assert_eq!(found.len(), 60);
    let sent: Vec<i64> = messages.iter().map(|message| message.sent_ms).collect();
    assert!(sent.is_sorted());
}

/// A scenario with `count` messages, each a second after the other, so that ids and times agree.
async fn spaced(count: usize) -> (SimScenario, Vec<String>) {
    let stage = SimScenario::new().await;
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(stage.say(&n.to_string()));
        stage.sim.advance(Duration::from_secs(1));
    }
    (stage, ids)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn behaviour_08_lists_are_oldest_first_within_their_limits() {
    let (stage, ids) = spaced(130).await;
    assert_eq!(stage.listed("").await, numbers(80..130));
    assert_eq!(stage.listed("limit=1000").await, numbers(30..130));
    assert_eq!(stage.listed("limit=0").await, numbers(80..130));
    assert_eq!(stage.listed("limit=nonsense").await, numbers(80..130));
    assert_eq!(stage.listed("limit=5&skip=10").await, numbers(115..120));
    assert_eq!(
        stage.get(&format!("{}?skip=5001", stage.chat())).await.0,
        400
    );
    let before = format!("limit=5&beforeId={}", ids[50]);
    assert_eq!(stage.listed(&before).await, numbers(45..50));
    let after = format!("limit=5&afterId={}", ids[50]);
    assert_eq!(stage.listed(&after).await, numbers(51..56));
    let around = format!("limit=6&aroundId={}", ids[50]);
    assert_eq!(stage.listed(&around).await, numbers(48..54));
    assert_eq!(
        stage.listed(&format!("afterId={}", "f".repeat(24))).await,
        numbers(0..0)
    );
    let all_after = format!("limit=3&afterId={}", "0".repeat(24));
    assert_eq!(stage.listed(&all_after).await, numbers(0..3));
}

#[tokio::test]
async fn behaviour_08_thread_replies_show_only_when_asked_for() {
    let stage = SimScenario::new().await;
    let root = stage.say("root");
    stage
        .sim
        .say_in_thread(&stage.room.id, &stage.alice.id, &root, "reply one");
    stage.say("between");
    stage
        .sim
        .say_in_thread(&stage.room.id, &stage.me.id, &root, "reply two");
    assert_eq!(stage.listed("").await, ["root", "between"]);
    let all = ["root", "reply one", "between", "reply two"];
    assert_eq!(stage.listed("includeThreads=true").await, all);
    let (_, thread) = stage.get(&format!("{}/{root}/thread", stage.chat())).await;
    assert_eq!(texts(&thread), ["reply one", "reply two"]);
    assert_eq!(thread[0]["parentId"], root);
    let (_, message) = stage.get(&format!("{}/{root}", stage.chat())).await;
    assert_eq!(message["threadMessageCount"], 2);
}

#[tokio::test]
async fn behaviour_08_searches_lean_answers_and_lookups() {
    let stage = SimScenario::new().await;
    stage.say("apples");
    stage.say("pears");
    stage.say("apples and more apples");
    assert_eq!(
        stage.listed("q=apples").await,
        ["apples and more apples", "apples"]
    );
    let (_, lean) = stage
        .get(&format!("{}?lean=true&limit=1", stage.chat()))
        .await;
    assert!(lean[0].get("urls").is_none() && lean[0]["fromUser"].get("avatarUrl").is_none());
    let (_, split) = stage
        .get(&format!("{}?lookups=user&limit=1", stage.chat()))
        .await;
    let author = split["items"][0]["fromUser"].as_str().unwrap();
    assert_eq!(split["lookups"]["users"][author]["username"], "alice");
}

#[tokio::test]
async fn behaviour_08_the_first_unread_message_can_be_the_middle() {
    let (stage, ids) = spaced(20).await;
    let read: Vec<String> = ids[..10].to_vec();
    stage.sim.read(&stage.room.id, &stage.me.id, &read);
    let (_, list) = stage
        .get(&format!("{}?marker=first-unread&limit=4", stage.chat()))
        .await;
    assert_eq!(texts(&list), numbers(9..13));
    assert_eq!(list[1]["initial"], true);
}
