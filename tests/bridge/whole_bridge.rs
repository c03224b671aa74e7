//! The whole bridge, as a process, between a real Synapse and the Gitter simulator. Every test ends with the
//! conservation check: accepted = delivered + skipped + failed + pending.

use std::{path::PathBuf, time::Duration};

use footbridge_simulators::gitter::Message;
use footbridge_testbed::{
    scenario::{Options, Scenario, until},
    synapse::Synapse,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

fn options() -> Options {
    Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000)
}

/// A running bridge that has joined its room.
async fn open() -> (&'static Synapse, Scenario) {
    open_with(options()).await
}

async fn open_with(options: Options) -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

/// Every message was delivered, and the bridge's counters balance.
async fn close(scene: &Scenario) {
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}

/// The bridge's messages in the channel; waits until there are `count`.
async fn in_channel(scene: &Scenario, count: usize) -> Vec<Message> {
    until(PATIENCE, || scene.in_channel().len() >= count)
        .await
        .unwrap_or_else(|_| {
            panic!(
                "{} of {count} arrived\n{}",
                scene.in_channel().len(),
                scene.bridge.logs_end()
            )
        });
    scene.in_channel()
}

/// The contents of the bridge's messages in the room; waits until there are `count`; edits count.
async fn in_room(scene: &Scenario, count: usize) -> Vec<Value> {
    let seen = || {
        scene.room_observer.pick(&scene.stage.room, |heard| {
            let by_bridge =
                heard.seen.sender == scene.bridge_user && heard.seen.event_type == "m.room.message";
            by_bridge.then(|| {
                assert!(heard.seen.encrypted, "the bridge sent plaintext");
                let mut content = heard.seen.content.clone();
                content["event_id"] = json!(heard.seen.event_id);
                content
            })
        })
    };
    until(PATIENCE, || seen().len() >= count)
        .await
        .unwrap_or_else(|_| {
            panic!(
                "{} of {count} arrived\n{}",
                seen().len(),
                scene.bridge.logs_end()
            )
        });
    seen()
}

#[tokio::test]
async fn messages_of_the_room_reach_the_channel_with_their_formatting() {
    let (_, scene) = open().await;
    let content = json!({
        "msgtype": "m.text",
        "body": "fallback",
        "format": "org.matrix.custom.html",
        "formatted_body": "<p>a <strong>b</strong> <em>c</em> <code>d</code></p><pre><code class=\"language-rust\">fn x() {}\n</code></pre><p>@mary #12</p>",
    });
    scene
        .ann
        .send(&scene.stage.room, "m.room.message", content)
        .await
        .unwrap();
    let messages = in_channel(&scene, 1).await;
    let html = &messages[0].html;
    assert!(html.contains("<strong>Ann</strong>"), "{html}");
    assert!(
        html.contains("<strong>b</strong> <em>c</em> <code>d</code>"),
        "{html}"
    );
    assert!(html.contains("<code class=\"rust\">"), "{html}");
    // C01, C04: no accidental mention and no accidental issue link.
    assert!(!html.contains("data-link-type"), "{html}");
    close(&scene).await;
}

#[tokio::test]
async fn messages_of_the_channel_reach_the_room_and_mention_nobody() {
    let (_, scene) = open().await;
    scene.sim.say(
        &scene.stage.channel.id,
        &scene.mary.id,
        "a **b** `c` @room @ann :tada:\n\n```rust\nfn x() {}\n```",
    );
    let messages = in_room(&scene, 1).await;
    let html = messages[0]["formatted_body"].as_str().unwrap();
    assert!(html.contains("<strong>b</strong> <code>c</code>"), "{html}");
    assert!(html.contains("language-rust"), "{html}");
    assert!(html.contains('🎉'), "{html}");
    // C03: intentional mentions are present, and empty.
    assert_eq!(messages[0]["m.mentions"], json!({}));
    close(&scene).await;
}

#[tokio::test]
async fn edits_and_deletions_are_relayed_in_both_directions() {
    let (synapse, scene) = open().await;
    let room = &scene.stage.room;
    let (kept, dropped) = (
        scene.ann.say(room, "one").await.unwrap(),
        scene.ann.say(room, "two").await.unwrap(),
    );
    in_channel(&scene, 2).await;
    scene.ann.edit(room, &kept, "one, corrected").await.unwrap();
    scene.ann.redact(room, &dropped).await.unwrap();
    until(PATIENCE, || {
        let messages = scene.in_channel();
        messages.len() == 1 && messages[0].text.contains("one, corrected")
    })
    .await
    .expect("the edit and the deletion reach the channel");

    let (sim, channel) = (&scene.sim, &scene.stage.channel.id);
    let kept = sim.say(channel, &scene.mary.id, "three");
    let dropped = sim.say(channel, &scene.mary.id, "four");
    let originals = in_room(&scene, 2).await;
    sim.edit(channel, &kept.id, "three, corrected").unwrap();
    sim.delete(channel, &dropped.id).unwrap();
    let all = in_room(&scene, 3).await;
    assert_eq!(all[2]["m.relates_to"]["rel_type"], "m.replace");
    assert_eq!(all[2]["m.relates_to"]["event_id"], originals[0]["event_id"]);
    assert!(
        all[2]["m.new_content"]["body"]
            .as_str()
            .unwrap()
            .contains("three, corrected")
    );
    let redacted = originals[1]["event_id"].as_str().unwrap().to_owned();
    let mut gone = false;
    for _ in 0..100 {
        let events = synapse.events(room).await.unwrap();
        gone = events.iter().any(|event| {
            event.event_type == "m.room.redaction"
                && event.sender == scene.bridge_user
                && (event.json["redacts"] == redacted.as_str()
                    || event.json["content"]["redacts"] == redacted.as_str())
        });
        if gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(gone, "the deletion reaches the room");
    close(&scene).await;
    // Nothing comes back: no second copy, no edit of an edit, no deletion of a deletion.
    assert_eq!(scene.in_channel().len(), 1);
    assert_eq!(in_room(&scene, 3).await.len(), 3);
    let redactions = synapse.events(room).await.unwrap();
    let by_bridge = redactions.iter().filter(|event| {
        event.event_type == "m.room.redaction" && event.sender == scene.bridge_user
    });
    assert_eq!(by_bridge.count(), 1);
}

#[tokio::test]
async fn the_redaction_of_an_edit_restores_the_earlier_text_in_the_channel() {
    let (_, scene) = open().await;
    let (room, ann) = (&scene.stage.room, &scene.ann);
    let reads = async |text: &str| {
        let is_so = || {
            let messages = scene.in_channel();
            messages.len() == 1 && messages[0].text.ends_with(text)
        };
        let waited = until(PATIENCE, is_so).await;
        waited.unwrap_or_else(|_| panic!("{text}: {:?}", scene.in_channel()));
    };
    let message = ann.say(room, "one").await.unwrap();
    reads("one").await;
    let first = ann.edit(room, &message, "two").await.unwrap();
    reads("two").await;
    let second = ann.edit(room, &message, "three").await.unwrap();
    reads("three").await;
    ann.redact(room, &second).await.unwrap();
    reads("two").await;
    // The redaction happens while the bridge is away, and is processed after its restart.
    scene.bridge.kill().await.unwrap();
    ann.redact(room, &first).await.unwrap();
    scene.bridge.start().await.unwrap();
    reads("one").await;
    // An edit that is redacted before it is relayed never appears, and nobody gets its text.
    scene.bridge.kill().await.unwrap();
    let unseen = ann.edit(room, &message, "four").await.unwrap();
    ann.redact(room, &unseen).await.unwrap();
    scene.bridge.start().await.unwrap();
    ann.edit(room, &message, "five").await.unwrap();
    reads("five").await;
    close(&scene).await;
}

/// A moderator of the channel deletes Ann's message there; the bridge has no right to redact it in the room.
#[tokio::test]
async fn a_deletion_of_a_copy_in_the_channel_does_not_block_what_follows() {
    let (_, scene) = open().await;
    scene.ann.say(&scene.stage.room, "hers").await.unwrap();
    let copy = in_channel(&scene, 1).await.remove(0);
    scene.sim.delete(&scene.stage.channel.id, &copy.id).unwrap();
    scene
        .sim
        .say(&scene.stage.channel.id, &scene.mary.id, "and on it goes");
    let shown = in_room(&scene, 1).await;
    assert!(
        shown[0]["body"]
            .as_str()
            .unwrap()
            .contains("and on it goes")
    );
    // The bridge tried nothing in the room, so there is no failure to report.
    close(&scene).await;
}

#[tokio::test]
async fn threads_are_relayed_in_both_directions() {
    let (_, scene) = open().await;
    let (sim, channel) = (&scene.sim, &scene.stage.channel.id);
    let root = sim.say(channel, &scene.mary.id, "root");
    let shown = in_room(&scene, 1).await;
    let root_event = shown[0]["event_id"].as_str().unwrap().to_owned();
    sim.say_in_thread(channel, &scene.tom.id, &root.id, "from the channel");
    let shown = in_room(&scene, 2).await;
    assert_eq!(shown[1]["m.relates_to"]["rel_type"], "m.thread");
    assert_eq!(shown[1]["m.relates_to"]["event_id"], root_event.as_str());
    scene
        .ann
        .in_thread(&scene.stage.room, &root_event, "from the room")
        .await
        .unwrap();
    let reply_event = shown[1]["event_id"].as_str().unwrap();
    scene
        .ann
        .reply(&scene.stage.room, reply_event, "a reply to the reply")
        .await
        .unwrap();
    let messages = in_channel(&scene, 2).await;
    // Gitter's threads have one level: the parent is always the root.
    for message in &messages {
        assert_eq!(message.parent_id.as_deref(), Some(root.id.as_str()));
    }
    close(&scene).await;
}

#[tokio::test]
async fn unsupported_content_arrives_as_a_readable_notice() {
    let (_, scene) = open().await;
    let image = json!({
        "msgtype": "m.image",
        "body": "cat.png",
        "info": { "size": 2_000_000, "mimetype": "image/png" },
        "file": { "url": "mxc://x/y", "v": "v2", "key": {}, "iv": "", "hashes": {} },
    });
    scene
        .ann
        .send(&scene.stage.room, "m.room.message", image)
        .await
        .unwrap();
    let messages = in_channel(&scene, 1).await;
    let text = &messages[0].text;
    assert!(
        text.contains("Ann") && text.contains("image") && text.contains("cat.png"),
        "{text}"
    );
    assert!(
        !text.contains("mxc:"),
        "C26: no media address leaves the room: {text}"
    );
    close(&scene).await;
}

#[tokio::test]
async fn a_long_message_is_cut_at_safe_places_and_edited_and_deleted_as_one() {
    let (_, scene) = open().await;
    let room = &scene.stage.room;
    let sentences: Vec<String> = (0..400)
        .map(|number| format!("sentence number {number}."))
        .collect();
    let long = sentences.join(" ");
    let event = scene.ann.say(room, &long).await.unwrap();
    let parts = in_channel(&scene, 2).await;
    for part in &parts {
        assert!(part.text.encode_utf16().count() <= 4_096);
    }
    scene.ann.edit(room, &event, "short").await.unwrap();
    until(PATIENCE, || scene.in_channel().len() == 1)
        .await
        .expect("the surplus parts are deleted");
    assert!(scene.in_channel()[0].text.contains("short"));
    scene.ann.redact(room, &event).await.unwrap();
    until(PATIENCE, || scene.in_channel().is_empty())
        .await
        .expect("all parts are deleted");
    close(&scene).await;
}

#[tokio::test]
async fn a_hundred_and_thirty_messages_each_way_wait_for_a_stopped_bridge() {
    let (synapse, scene) = open().await;
    assert!(scene.bridge.terminate().await.unwrap().success());
    for _ in 0..130 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    scene.bridge.start().await.unwrap();
    scene.settle(Duration::from_mins(3)).await.unwrap();
    let (toward_channel, toward_room) = (scene.toward_channel(), scene.toward_room());
    assert!(
        toward_channel.is_clean(),
        "F10: {toward_channel:?}\n{}",
        scene.bridge.logs_end()
    );
    assert!(
        toward_room.is_clean(),
        "F11: {toward_room:?}\n{}",
        scene.bridge.logs_end()
    );
    assert!(scene.all_encrypted(synapse).await.unwrap() >= 260);
    close(&scene).await;
}

#[tokio::test]
async fn no_text_stays_in_files_or_logs_once_it_is_delivered() {
    let mut options = options();
    "trace".clone_into(&mut options.log_filter);
    let (_, scene) = open_with(options).await;
    for _ in 0..20 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    scene.settle(PATIENCE).await.unwrap();
    close(&scene).await;
    // F41, while the bridge runs and after it stopped.
    assert_eq!(scene.traces().unwrap(), Vec::<PathBuf>::new());
    scene.bridge.terminate().await.unwrap();
    assert_eq!(scene.traces().unwrap(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_second_bridge_on_the_same_files_refuses_and_leaves_the_first_alone() {
    let (_, scene) = open().await;
    let refusal = scene.bridge.run("run").await.unwrap_err();
    // B19: another instance runs.
    assert!(
        format!("{refusal:#}").contains("exit status: 75"),
        "{refusal:#}"
    );
    scene.say_in_room().await.unwrap();
    scene.settle(PATIENCE).await.unwrap();
    assert!(scene.toward_channel().is_clean());
    close(&scene).await;
}

#[tokio::test]
async fn a_clean_stop_is_quick_and_leaves_no_log_behind() {
    let (_, scene) = open().await;
    scene.say_in_room().await.unwrap();
    scene.settle(PATIENCE).await.unwrap();
    let began = std::time::Instant::now();
    let status = scene.bridge.terminate().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(15), "D24");
    let log = scene.bridge.data_directory().join("footbridge.db-wal");
    assert_eq!(std::fs::metadata(log).map_or(0, |found| found.len()), 0);
}

#[tokio::test]
async fn a_room_whose_silo_is_unreachable_at_the_first_start_is_joined_when_it_answers() {
    let synapse = Synapse::shared().await.unwrap();
    let scene = Scenario::set_up(synapse, options(), &|_| ()).await.unwrap();
    scene.sim.stop_listening().await;
    scene.bridge.launch().unwrap();
    let logs = || scene.bridge.logs();
    until(PATIENCE, || logs().contains("invite"))
        .await
        .expect("the bridge sees the invite");
    assert!(!logs().contains("Refused an invite"), "{}", logs());
    // Logged once for each reason: the silo refuses connections, and then its circuit breaker opens.
    let said = logs();
    let unopened = said.matches("Not opened yet").count();
    assert!((1..=2).contains(&unopened), "{said}");
    assert!(said.contains(&scene.stage.channel.uri), "{said}");
    let status = scene.bridge.run("status").await.unwrap();
    assert!(status.contains("never opened yet"), "{status}");
    scene.sim.restart().await.unwrap();
    scene.bridge.wait_ready().await.unwrap();
    let joined = || {
        let entries = scene.room_observer.pick(&scene.stage.room, |heard| {
            let by_bridge = heard.seen.sender == scene.bridge_user;
            (by_bridge && heard.seen.content["membership"] == "join").then_some(())
        });
        !entries.is_empty()
    };
    until(PATIENCE, joined)
        .await
        .expect("the bridge joins the room");
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    scene.settle(PATIENCE).await.unwrap();
    assert!(scene.toward_channel().is_clean() && scene.toward_room().is_clean());
    close(&scene).await;
}

#[tokio::test]
async fn an_account_that_is_deactivated_and_activated_resumes_by_itself() {
    let (_, scene) = open().await;
    scene.sim.revoke_token(&scene.bot.token);
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    let logs = || scene.bridge.logs();
    until(PATIENCE, || logs().contains("Delivery paused: the account"))
        .await
        .expect("the refusal is noticed");
    assert!(!scene.bridge.is_ready().await.unwrap());
    scene.sim.accept_token(&scene.bot);
    // The bridge probes the silo periodically.
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    scene.settle(PATIENCE).await.unwrap();
    assert!(scene.toward_channel().is_clean() && scene.toward_room().is_clean());
    scene.bridge.wait_ready().await.unwrap();
    close(&scene).await;
}

#[tokio::test]
async fn a_lane_whose_silo_answers_again_does_not_sleep_on() {
    let (_, scene) = open().await;
    scene.sim.stop_listening().await;
    scene.say_in_room().await.unwrap();
    let logs = || scene.bridge.logs();
    until(PATIENCE, || logs().contains("Delivery attempt failed"))
        .await
        .expect("an attempt fails");
    // As after an outage of hours: the next attempt is far in the future.
    let far = "UPDATE outbox SET retry_at = retry_at + 1200000
               WHERE last_error IN ('not-done', 'unknown', 'slowed'); COMMIT";
    loop {
        let store = scene.bridge.hold_store().unwrap();
        let sleeps = "SELECT count(*) FROM outbox WHERE retry_at > (unixepoch() + 600) * 1000";
        let asleep: i64 = store.query_row(sleeps, [], |row| row.get(0)).unwrap();
        if asleep > 0 {
            break;
        }
        store.execute_batch(far).unwrap();
        drop(store);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    scene.sim.restart().await.unwrap();
    scene.settle(PATIENCE).await.unwrap();
    assert!(
        scene.toward_channel().is_clean(),
        "{}",
        scene.bridge.logs_end()
    );
    close(&scene).await;
}
