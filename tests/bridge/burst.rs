//! F17 and D11 against a real Synapse that rate-limits the bridge's account: a burst arrives once, in order and under
//! the right names; each part of a bundle can be edited, replied to and deleted; and a kill between bundling and
//! sending changes only the delay.

use std::{path::PathBuf, time::Duration};

use footbridge_testbed::{
    scenario::{Burst, ObservedEvent, Options, Outcome, Scenario, burst, until},
    synapse::{Limits, Synapse},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

/// Low enough that forty messages must wait, and high enough that the test ends in time.
const TIGHT: Limits = Limits::Messages {
    burst: 4,
    every_ms: 700,
};

fn options() -> Options {
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    options.silo_options.push_str("\nsettle = \"2s\"");
    options
}

async fn forty(synapse: &Synapse, coalesce: bool) -> Outcome {
    let plan = Burst {
        messages: 40,
        within: Duration::from_secs(2),
        authors: 4,
        coalesce,
        patience: PATIENCE,
    };
    burst(synapse, options(), plan, &|_| ()).await.unwrap()
}

#[tokio::test]
async fn f17_a_burst_at_a_tight_limit_is_read_once_in_order_and_under_the_right_names() {
    let synapse = Synapse::start(TIGHT).await.unwrap();
    let together = forty(&synapse, true).await;
    assert!(together.verdict.is_clean(), "{together:?}");
    assert_eq!(together.misattributed, 0, "{together:?}");
    let alone = forty(&synapse, false).await;
    assert!(alone.verdict.is_clean(), "{alone:?}");
    assert_eq!(alone.misattributed, 0, "{alone:?}");
    assert_eq!(alone.events, 40);
    assert!(
        together.events * 2 < alone.events && together.took < alone.took,
        "{together:?}\n{alone:?}"
    );
    // While messages waited, the status showed the pace and the estimate. On a machine that is slower than the limit
    // there was no pace to learn.
    if let Some(pace) = alone.pace {
        assert!((0.5..1.5).contains(&pace), "{pace}");
        assert!((5..60).contains(&alone.estimate), "{}", alone.estimate);
    } else {
        assert!(alone.took > Duration::from_millis(36 * 700), "{alone:?}");
    }
}

/// A scenario in which the next messages from the channel wait for the account, and are bundled.
async fn limited() -> (Synapse, Scenario) {
    let limits = Limits::Messages {
        burst: 3,
        every_ms: 4_000,
    };
    let synapse = Synapse::start(limits).await.unwrap();
    let scene = Scenario::set_up(&synapse, options(), &|_| ())
        .await
        .unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

fn parts(heard: &ObservedEvent) -> Option<&Vec<Value>> {
    heard.seen.content.get("org.footbridge.parts")?.as_array()
}

/// The first event that carries at least `least` messages: its id and its text.
fn shared(scene: &Scenario, least: usize) -> Option<(String, String)> {
    let found = scene.in_room(|heard, text| {
        let wide = parts(heard).is_some_and(|parts| parts.len() >= least);
        wide.then(|| (heard.seen.event_id.clone(), text.to_owned()))
    });
    found.into_iter().next()
}

/// The latest text of an event.
fn text_now(scene: &Scenario, event: &str) -> Option<String> {
    let texts = scene.room_observer.pick(&scene.stage.room, |heard| {
        let edits = heard.edits() == Some(event);
        let text = heard.seen.content.get("m.new_content")?.get("body")?;
        edits.then(|| text.as_str().unwrap_or_default().to_owned())
    });
    texts.into_iter().next_back()
}

/// The events that were redacted in the room.
fn redacted(scene: &Scenario) -> Vec<String> {
    scene.room_observer.pick(&scene.stage.room, |heard| {
        let redacts = heard.seen.content.get("redacts").and_then(Value::as_str);
        let redacts = redacts.map(str::to_owned);
        redacts.filter(|_| heard.seen.event_type == "m.room.redaction")
    })
}

#[tokio::test]
async fn d11_messages_in_a_shared_event_are_edited_answered_and_deleted_one_by_one() {
    let (_synapse, scene) = limited().await;
    let channel = &scene.stage.channel.id;
    let mut said = Vec::new();
    for number in 0..9 {
        let author = if number % 2 == 0 {
            &scene.mary
        } else {
            &scene.tom
        };
        let text = scene.from_channel.number();
        said.push(scene.sim.say(channel, &author.id, &text));
    }
    until(PATIENCE, || shared(&scene, 3).is_some())
        .await
        .unwrap();
    let (event, text) = shared(&scene, 3).unwrap();
    let numbers = scene.from_channel.numbers_in(&text);
    let at = |place: usize| usize::try_from(numbers[place]).unwrap();

    scene
        .sim
        .edit(channel, &said[at(1)].id, "written anew")
        .unwrap();
    let edited = || text_now(&scene, &event).is_some_and(|text| text.contains("written anew"));
    until(PATIENCE, edited).await.unwrap();
    let text = text_now(&scene, &event).unwrap();
    assert_eq!(
        scene.from_channel.numbers_in(&text).len(),
        numbers.len() - 1
    );

    scene.sim.delete(channel, &said[at(0)].id).unwrap();
    let first = numbers[0];
    let taken_out = || {
        text_now(&scene, &event)
            .is_some_and(|text| !scene.from_channel.numbers_in(&text).contains(&first))
    };
    until(PATIENCE, taken_out).await.unwrap();
    let text = text_now(&scene, &event).unwrap();
    assert!(text.contains("written anew"), "{text}");

    // A reply to the event is a reply to its last part.
    scene
        .ann
        .reply(&scene.stage.room, &event, "an answer from the room")
        .await
        .unwrap();
    let answer = || {
        let mut messages = scene.in_channel().into_iter();
        messages.find(|message| message.text.contains("an answer from the room"))
    };
    until(PATIENCE, || answer().is_some()).await.unwrap();
    let last = &said[at(numbers.len() - 1)];
    assert_eq!(
        answer().unwrap().parent_id.as_deref(),
        Some(last.id.as_str())
    );

    // When its last part is deleted, the event itself is redacted.
    for place in 1..numbers.len() {
        scene.sim.delete(channel, &said[at(place)].id).unwrap();
    }
    let is_gone = || redacted(&scene).contains(&event);
    until(PATIENCE, is_gone).await.unwrap();
    scene.bridge.settle(PATIENCE).await.unwrap();
    // So are its edits: they contain the texts of all parts.
    let edits = scene.room_observer.pick(&scene.stage.room, |heard| {
        (heard.edits() == Some(&event)).then(|| heard.seen.event_id.clone())
    });
    assert!(edits.len() >= 2, "{edits:?}");
    until(PATIENCE, || {
        let redacted = redacted(&scene);
        edits.iter().all(|edit| redacted.contains(edit))
    })
    .await
    .unwrap();
    let tally = scene.bridge.conservation().await.unwrap();
    assert_eq!(
        (tally.failed, tally.pending),
        (0, 0),
        "{}",
        scene.bridge.logs_end()
    );
}

#[tokio::test]
async fn a_kill_between_bundling_and_sending_changes_only_the_delay() {
    let (synapse, scene) = limited().await;
    for passage in [1, 2] {
        scene.bridge.terminate().await.unwrap();
        scene
            .bridge
            .launch_armed(&format!("bundle.saved:{passage}"))
            .unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while scene.bridge.ended().unwrap().is_none() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the crash point was never passed"
            );
            scene.say_in_channel();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        scene.bridge.reap().await.unwrap();
        scene.say_in_channel();
        scene.bridge.start().await.unwrap();
        scene.say_in_channel();
        scene.settle(PATIENCE).await.unwrap();
        let verdict = scene.toward_room();
        assert!(
            verdict.is_clean(),
            "{passage}: {verdict:?}\n{}",
            scene.bridge.logs_end()
        );
        scene.bridge.settle(PATIENCE).await.unwrap();
        scene.bridge.conservation().await.unwrap();
    }
    scene.all_encrypted(&synapse).await.unwrap();
}
