//! What people see of a failure and what they can do about it, between a real Synapse and the Gitter simulator (D22,
//! D23).

use std::{path::PathBuf, time::Duration};

use footbridge_simulators::gitter::{Fault, Message};
use footbridge_testbed::{
    scenario::{Options, PASSWORD, Scenario, until},
    synapse::{Registered, Synapse},
};
use serde_json::{Value, json};

use crate::matrix::{raw, raw_member};

const PATIENCE: Duration = Duration::from_mins(1);
/// The endpoint at which the bridge posts into the channel.
const POST: &str = "POST /rooms/:id/chatMessages";
/// A response that looks like a permanent refusal.
const REFUSED: Fault = Fault::Status { status: 400 };

async fn open() -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    "attempts = 1".clone_into(&mut options.delivery_options);
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

async fn close(scene: &Scenario) {
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}

/// One message of the bridge in the room.
#[derive(Clone, Debug)]
struct Said {
    id: String,
    text: String,
    answers: Option<String>,
}

/// The messages of the bridge in the room, in order, each with its latest text.
fn said(scene: &Scenario) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let events = scene.room_observer.pick(&scene.stage.room, |heard| {
        let by_bridge =
            heard.seen.sender == scene.bridge_user && heard.seen.event_type == "m.room.message";
        by_bridge.then(|| {
            assert!(heard.seen.encrypted, "the bridge sent plaintext");
            (
                heard.seen.event_id.clone(),
                heard.edits().map(str::to_owned),
                heard.seen.content.clone(),
            )
        })
    });
    let text = |content: &Value| content["body"].as_str().unwrap_or_default().to_owned();
    for (id, edits, content) in events {
        match edits {
            Some(target) => {
                for said in all.iter_mut().filter(|said| said.id == target) {
                    said.text = text(&content["m.new_content"]);
                }
            }
            None => all.push(Said {
                id,
                text: text(&content),
                answers: content
                    .pointer("/m.relates_to/m.in_reply_to/event_id")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            }),
        }
    }
    all
}

/// The one message of the bridge in the room with these words; waits for it.
async fn hear(scene: &Scenario, words: &str) -> Said {
    let found = || {
        let all = said(scene);
        all.into_iter().find(|said| said.text.contains(words))
    };
    let waited = until(PATIENCE, || found().is_some()).await;
    waited.unwrap_or_else(|_| {
        panic!(
            "nothing says {words:?}: {:#?}\n{}",
            said(scene),
            scene.bridge.logs_end()
        )
    });
    found().unwrap()
}

/// The one message of the bridge in the channel with these words; waits for it.
async fn read(scene: &Scenario, words: &str) -> Message {
    let found = || {
        let all = scene.in_channel();
        all.into_iter().find(|message| message.text.contains(words))
    };
    let waited = until(PATIENCE, || found().is_some()).await;
    waited.unwrap_or_else(|_| {
        let texts: Vec<String> = scene.in_channel().into_iter().map(|m| m.text).collect();
        panic!(
            "nothing says {words:?}: {texts:#?}\n{}",
            scene.bridge.logs_end()
        )
    });
    found().unwrap()
}

async fn react(scene: &Scenario, target: &str, key: &str) {
    let relation = json!({"rel_type": "m.annotation", "event_id": target, "key": key});
    scene
        .ann
        .send(
            &scene.stage.room,
            "m.reaction",
            json!({"m.relates_to": relation}),
        )
        .await
        .unwrap();
}

async fn skipped_as_commands(scene: &Scenario) -> u64 {
    let metrics = scene.bridge.metrics().await.unwrap();
    metrics.sum_where("footbridge_skipped_total", "rule", "command")
}

/// A session of Ann's for raw requests.
async fn session_of_ann(synapse: &Synapse, scene: &Scenario) -> Registered {
    let nobody = Registered {
        user_id: String::new(),
        access_token: String::new(),
        device_id: String::new(),
    };
    let identifier = json!({"type": "m.id.user", "user": scene.ann.user_id()});
    let login = json!({"type": "m.login.password", "identifier": identifier, "password": PASSWORD});
    let answer = raw(synapse, &nobody, "POST", "login", login).await;
    Registered {
        user_id: scene.ann.user_id(),
        access_token: answer["access_token"].as_str().unwrap().to_owned(),
        device_id: answer["device_id"].as_str().unwrap().to_owned(),
    }
}

#[tokio::test]
async fn d23_a_failure_has_a_notice_and_a_reaction_on_it_delivers_after_all() {
    let (_, scene) = open().await;
    scene.sim.faults().next(POST, REFUSED, 1);
    let poison = scene.ann.say(&scene.stage.room, "poison").await.unwrap();
    let follows = scene.ann.say(&scene.stage.room, "follows").await.unwrap();
    let notice = hear(&scene, "could not be delivered to the gitter channel").await;
    assert!(notice.text.contains("React with 🔁"), "{}", notice.text);
    assert_eq!(notice.answers.as_deref(), Some(poison.as_str()));
    read(&scene, "follows").await;
    let metrics = scene.bridge.metrics().await.unwrap();
    assert_eq!(metrics.sum("footbridge_parked"), 1);

    // Other reactions do nothing, and are not relayed as messages.
    react(&scene, &notice.id, "👍").await;
    react(&scene, &notice.id, "🔁\u{fe0f}").await;
    read(&scene, "poison").await;
    let edited = hear(&scene, "Delivered to the gitter channel after all").await;
    assert_eq!(edited.id, notice.id);

    for (event, words) in [
        (&poison, "at attempt 2"),
        (&follows, "To the gitter channel: delivered"),
        (&notice.id, "at attempt 2"),
    ] {
        let before = said(&scene).len();
        let asked = scene
            .ann
            .reply(&scene.stage.room, event, "!bridge why")
            .await
            .unwrap();
        until(PATIENCE, || said(&scene).len() > before)
            .await
            .expect("an answer");
        let answer = said(&scene).pop().unwrap();
        assert!(answer.text.contains(words), "{answer:?}");
        assert_eq!(answer.answers, Some(asked));
    }
    assert_eq!(scene.in_channel().len(), 2, "commands are not relayed");
    let said = said(&scene);
    assert_eq!(said.len(), 4, "one notice and three answers: {said:#?}");
    assert_eq!(skipped_as_commands(&scene).await, 4);
    let metrics = scene.bridge.metrics().await.unwrap();
    // Matrix never encrypts reactions, so the bridge does not warn about them.
    let reactions = "reaction-in-encrypted-room";
    assert_eq!(
        metrics.sum_where("footbridge_skipped_total", "rule", reactions),
        1
    );
    assert_eq!(
        (
            metrics.sum("footbridge_failed_total"),
            metrics.sum("footbridge_parked")
        ),
        (0, 0)
    );
    close(&scene).await;
}

#[tokio::test]
async fn commands_are_answered_where_they_were_given_and_only_encrypted_ones_count() {
    let (synapse, scene) = open().await;
    let room = &scene.stage.room;
    let witness = raw_member(synapse, &scene.ann, room).await;
    scene.ann.say(room, "!bridge status").await.unwrap();
    let status = hear(&scene, "To gitter ").await;
    assert!(status.text.contains("To here: "), "{}", status.text);
    let limits = "To the channel, in another form: author,";
    assert!(status.text.contains(limits), "{}", status.text);
    scene.ann.say(room, "!bridge rerty").await.unwrap();
    hear(&scene, "Did you mean `!bridge retry`?").await;
    scene.ann.say(room, "!bridge").await.unwrap();
    hear(&scene, "to see its status").await;
    let unknown = "$nobody:knows.this";
    scene.ann.reply(room, unknown, "!bridge why").await.unwrap();
    hear(&scene, "I do not know that message").await;
    let path = format!("rooms/{room}/send/m.room.message/clear");
    let body = json!({"msgtype": "m.text", "body": "!bridge status"});
    raw(synapse, &witness, "PUT", &path, body).await;
    scene.ann.say(room, "an ordinary word").await.unwrap();
    read(&scene, "an ordinary word").await;
    // People are notified of a plaintext command; it is not executed.
    hear(&scene, "was not encrypted").await;
    close(&scene).await;
    assert_eq!(scene.in_channel().len(), 1);
    assert_eq!(said(&scene).len(), 5, "{:#?}", said(&scene));
    assert_eq!(skipped_as_commands(&scene).await, 4);
    let metrics = scene.bridge.metrics().await.unwrap();
    let in_clear = "plaintext-in-encrypted-room";
    assert_eq!(
        metrics.sum_where("footbridge_skipped_total", "rule", in_clear),
        1
    );
}

#[tokio::test]
async fn d22_a_removed_bridge_gives_one_notice_and_resumes_when_it_is_invited_again() {
    let (synapse, scene) = open().await;
    let (room, channel) = (&scene.stage.room, &scene.stage.channel.id);
    let ann = session_of_ann(synapse, &scene).await;
    let path = format!("rooms/{room}/kick");
    raw(
        synapse,
        &ann,
        "POST",
        &path,
        json!({"user_id": scene.bridge_user}),
    )
    .await;
    let first = scene.sim.say(channel, &scene.mary.id, "first");
    scene.sim.say(channel, &scene.mary.id, "second");
    let notice = read(&scene, "cannot write to the Matrix room").await;
    let question = "!bridge why";
    scene
        .sim
        .say_in_thread(channel, &scene.mary.id, &first.id, question);
    let answer = read(&scene, "because the bridge has had no access there for").await;
    assert_eq!(answer.parent_id.as_deref(), Some(first.id.as_str()));
    scene.sim.say(channel, &scene.mary.id, question);
    read(&scene, "behind 1 other message").await;
    scene.sim.say(channel, &scene.tom.id, question);
    read(&scene, "I have no message from you here").await;
    let status = scene.bridge.run("status").await.unwrap();
    assert!(status.contains("no access to the place"), "{status}");

    scene.ann.invite(room, &scene.bridge_user).await.unwrap();
    hear(&scene, "first").await;
    hear(&scene, "second").await;
    let again = read(&scene, "can write to the Matrix room again").await;
    assert_eq!(again.id, notice.id, "the notice was edited");
    scene.sim.say(channel, &scene.mary.id, question);
    read(&scene, "To the Matrix room: delivered").await;
    close(&scene).await;
    assert_eq!(said(&scene).len(), 2, "{:#?}", said(&scene));
    assert_eq!(scene.in_channel().len(), 5, "one notice and four answers");
}

/// Waits until the armed process has died, and starts another.
async fn die_and_restart(scene: &Scenario) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while scene.bridge.ended().unwrap().is_none() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the point was never passed\n{}",
            scene.bridge.logs_end()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.bridge.reap().await.unwrap();
    scene.bridge.start().await.unwrap();
}

/// F02 for the crash points of failures and commands.
#[tokio::test]
async fn a_kill_around_a_failure_or_a_command_loses_and_doubles_nothing() {
    let (_, scene) = open().await;
    let room = &scene.stage.room;
    scene.sim.faults().next(POST, REFUSED, 1);
    scene.bridge.kill().await.unwrap();
    scene.bridge.launch_armed("delivery.parked:1").unwrap();
    scene.ann.say(room, "poison").await.unwrap();
    die_and_restart(&scene).await;
    let notice = hear(&scene, "could not be delivered").await;

    scene.bridge.kill().await.unwrap();
    scene.bridge.launch_armed("command.received:1").unwrap();
    scene
        .ann
        .reply(room, &notice.id, "!bridge why")
        .await
        .unwrap();
    die_and_restart(&scene).await;
    hear(&scene, "`!bridge retry` sends it again").await;

    scene.bridge.kill().await.unwrap();
    scene.bridge.launch_armed("command.done:1").unwrap();
    scene
        .ann
        .reply(room, &notice.id, "!bridge retry")
        .await
        .unwrap();
    die_and_restart(&scene).await;
    read(&scene, "poison").await;
    hear(&scene, "after all").await;
    close(&scene).await;
    assert_eq!(scene.in_channel().len(), 1);
    assert_eq!(
        said(&scene).len(),
        3,
        "a notice and two answers: {:#?}",
        said(&scene)
    );
}

/// Waits until the bridge has sent this in the channel so often; returns how much it has sent there.
async fn posts_until(scene: &Scenario, words: &str) -> usize {
    let posts = || {
        let messages = scene.sim.messages(&scene.stage.channel.id);
        let ours = messages.into_iter();
        let ours = ours.filter(|message| message.from_user_id == scene.bot.id);
        ours.map(|message| message.text).collect::<Vec<_>>()
    };
    let found = || posts().iter().any(|text| text.contains(words));
    let waited = until(PATIENCE, found).await;
    waited.unwrap_or_else(|_| panic!("{words:?}: {:#?}", posts()));
    posts().len()
}

#[tokio::test]
async fn b14_a_flood_of_commands_from_either_end_keeps_no_message_back() {
    let (_synapse, scene) = open().await;
    let channel = &scene.stage.channel.id;
    for number in 0..200 {
        let by = if number % 2 == 0 {
            &scene.tom
        } else {
            &scene.mary
        };
        scene.sim.say(channel, &by.id, "!bridge help");
    }
    for _ in 0..40 {
        scene
            .ann
            .say(&scene.stage.room, "!bridge help")
            .await
            .unwrap();
    }
    scene
        .ann
        .say(&scene.stage.room, "said meanwhile")
        .await
        .unwrap();
    scene.sim.say(channel, &scene.mary.id, "heard meanwhile");
    let before = posts_until(&scene, "said meanwhile").await;
    assert!(before <= 30, "{before}");
    let heard = || {
        said(&scene)
            .iter()
            .any(|said| said.text.contains("heard meanwhile"))
    };
    until(PATIENCE, heard).await.unwrap();
    close(&scene).await;
    // Ten for each sender, twenty for a place, and each sender gets one warning about the limit.
    let answers = said(&scene)
        .iter()
        .filter(|said| said.text.contains("!bridge why"))
        .count();
    assert!((10..=20).contains(&answers), "{answers}");
    let all = posts_until(&scene, "You send commands too often").await;
    assert!((20..=40).contains(&all), "{all}");
}
