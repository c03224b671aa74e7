//! Consent and control between a real Synapse and the Gitter simulator: portals added and removed in chat, rooms that
//! must consent, people who opt out, rooms that are upgraded (P14 to P19).

mod kills;
mod moving;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use footbridge_simulators::gitter::{Room, RoomOptions};
use footbridge_testbed::{
    scenario::{Options, Scenario, until},
    synapse::Synapse,
};
use serde_json::json;

use crate::matrix::{raw, raw_member};

const PATIENCE: Duration = Duration::from_secs(90);
const ADMINS: &str = "users = [\"{ann}\"]\n\n[consent]\ndelay = \"0s\"\noperator = \"Example Org\"\ndisclose_joins = true";

/// A scenario whose configured room is encrypted or not, with Ann as an admin.
async fn open(encrypted: bool) -> (&'static Synapse, Scenario) {
    open_with(encrypted, ADMINS).await
}

/// The same, with a delay before a consent takes effect.
async fn open_slowly(encrypted: bool) -> (&'static Synapse, Scenario) {
    open_with(encrypted, &ADMINS.replace("\"0s\"", "\"4s\"")).await
}

async fn open_with(encrypted: bool, admins: &str) -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    "requests_per_minute = 6000\nsettle = \"2s\"".clone_into(&mut options.silo_options);
    admins.clone_into(&mut options.admin_options);
    options.encrypted = encrypted;
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

/// A channel that the bridge is not in, with these admins.
fn channel(scene: &Scenario, uri: &str, admins: &[&str]) -> Room {
    let options = RoomOptions {
        admins: admins.iter().map(|id| (*id).to_owned()).collect(),
        ..RoomOptions::default()
    };
    let channel = scene.sim.add_room(uri, options);
    for user in [&scene.mary, &scene.tom] {
        scene.sim.join(&channel.id, &user.id).unwrap();
    }
    channel
}

/// A room that no configuration names, which the bridge joined on Ann's invite.
async fn room(scene: &Scenario, encrypted: bool) -> String {
    let invited = [scene.bridge_user.clone()];
    let room = scene
        .ann
        .create_room("A new room", encrypted, &invited)
        .await
        .unwrap();
    hear(scene, &room, "Hello.").await;
    room
}

/// The same, not encrypted and of a room version in which its creator can lose power.
async fn old_room(scene: &Scenario) -> String {
    let invited = [scene.bridge_user.clone()];
    let room = scene.ann.create_old_room(&invited).await.unwrap();
    hear(scene, &room, "Hello.").await;
    room
}

/// The messages of the bridge in a room, without edits.
fn said(scene: &Scenario, room: &str) -> Vec<String> {
    scene.room_observer.pick(room, |heard| {
        let text = heard.text()?;
        (heard.seen.sender == scene.bridge_user).then(|| text.to_owned())
    })
}

/// Waits for a message of the bridge with these words.
async fn hear(scene: &Scenario, room: &str, words: &str) -> String {
    let found = || {
        said(scene, room)
            .into_iter()
            .find(|text| text.contains(words))
    };
    let waited = until(PATIENCE, || found().is_some()).await;
    waited.unwrap_or_else(|_| {
        panic!(
            "nothing says {words:?}: {:#?}\n{}",
            said(scene, room),
            scene.bridge.logs_end()
        )
    });
    found().unwrap()
}

/// Waits until the bridge has sent this so many times.
async fn hear_times(scene: &Scenario, room: &str, words: &str, times: usize) {
    let count = || {
        said(scene, room)
            .iter()
            .filter(|text| text.contains(words))
            .count()
    };
    let waited = until(PATIENCE, || count() >= times).await;
    waited.unwrap_or_else(|_| panic!("{words:?} {times} times: {:#?}", said(scene, room)));
}

/// The posts of the bridge's account in a channel.
fn posted(scene: &Scenario, channel: &Room) -> Vec<String> {
    let messages = scene.sim.messages(&channel.id);
    let ours = messages
        .into_iter()
        .filter(|message| message.from_user_id == scene.bot.id);
    ours.map(|message| message.text).collect()
}

async fn read(scene: &Scenario, channel: &Room, words: &str) {
    let found = || {
        posted(scene, channel)
            .iter()
            .any(|text| text.contains(words))
    };
    let waited = until(PATIENCE, found).await;
    waited.unwrap_or_else(|_| {
        panic!(
            "{words:?} is not in the channel: {:#?}\n{}",
            posted(scene, channel),
            scene.bridge.logs_end()
        )
    });
}

/// Requests a portal; returns the code.
async fn ask(scene: &Scenario, room: &str, channel: &Room) -> String {
    let words = format!("!bridge portal add gitter {}", channel.uri);
    scene.ann.say(room, &words).await.unwrap();
    let text = hear(scene, room, "post this code there").await;
    text.split_whitespace().last().unwrap().to_owned()
}

/// Requests and confirms a portal, and consents where the room is encrypted.
async fn link(scene: &Scenario, room: &str, channel: &Room, encrypted: bool) {
    let code = ask(scene, room, channel).await;
    scene.sim.say(&channel.id, &scene.mary.id, &code);
    if encrypted {
        hear(scene, room, "has posted the code").await;
        let words = format!("!bridge consent gitter {}", channel.uri);
        scene.ann.say(room, &words).await.unwrap();
    }
    hear(scene, room, "every message in this room").await;
}

/// Runs a command line in the bridge's directory.
async fn command(scene: &Scenario, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_footbridge"));
    command
        .args(arguments)
        .env_clear()
        .current_dir(scene.bridge.directory())
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Ann consents with the right words, encrypted; nothing else is a consent.
async fn agree(scene: &Scenario, room: &str) {
    // A consent to another channel, and a consent in plaintext, do not count.
    scene
        .ann
        .say(room, "!bridge consent gitter footbridge/elsewhere")
        .await
        .unwrap();
    hear(scene, room, "Nothing was changed").await;
    scene
        .ann
        .say_in_clear(room, "!bridge consent gitter footbridge/made-in-chat")
        .await
        .unwrap();
    scene.ann.say(room, "!bridge status").await.unwrap();
    // In a management room a named admin sees every portal: here only the configured one.
    let status = hear(scene, room, "delivered").await;
    assert!(!status.contains("made-in-chat"), "{status}");

    let words = "!bridge consent gitter footbridge/made-in-chat";
    scene.ann.say(room, words).await.unwrap();
    let told = hear(scene, room, "every message in this room").await;
    for part in [
        "gitter footbridge/made-in-chat",
        "Example Org",
        "`!nobridge`",
        "In 4 s",
        "Messages written here until then are not relayed",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// Waits until the delay of a consent is over.
async fn begun(scene: &Scenario, room: &str) {
    let answers = || {
        let said = said(scene, room);
        let answers = said.into_iter().filter(|text| text.contains("delivered"));
        answers.collect::<Vec<_>>()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let before = answers().len();
        scene.ann.say(room, "!bridge status").await.unwrap();
        until(PATIENCE, || answers().len() > before).await.unwrap();
        let answer = answers().pop().unwrap();
        if !answer.contains("Consent given;") {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A portal with pending deliveries is removed: they are dropped and counted, and nothing of them stays.
async fn take_apart(scene: &Scenario, room: &str, channel: &Room) {
    scene.ann.say(room, "!bridge pause").await.unwrap();
    hear(scene, room, "Paused.").await;
    scene.ann.say(room, "canary-4711 one").await.unwrap();
    scene.ann.say(room, "canary-4711 two").await.unwrap();
    scene
        .sim
        .say(&channel.id, &scene.tom.id, "canary-4711 three");
    scene.ann.say(room, "!bridge status").await.unwrap();
    let told = || {
        let said = said(scene, room);
        said.iter().any(|text| text.contains("Paused by"))
    };
    until(PATIENCE, told).await.unwrap();
    let pending = async || scene.bridge.conservation().await.unwrap().pending;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while pending().await < 3 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "three messages are pending"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.ann.say(room, "!bridge portal remove").await.unwrap();
    let end = hear(scene, room, "no longer linked").await;
    assert!(end.contains(" 3 waiting messages were erased"), "{end}");
    scene.ann.say(room, "said after the end").await.unwrap();
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "said there after the end");
    scene.ann.say(room, "!bridge portal remove").await.unwrap();
    hear(scene, room, "has no such link").await;
    let all = [posted(scene, channel), said(scene, room)]
        .concat()
        .join("\n");
    assert!(
        !all.contains("after the end") && !all.contains("canary"),
        "{all}"
    );
}

#[tokio::test]
async fn p14_p15_a_portal_is_made_in_a_chat_from_nothing_in_an_encrypted_room_and_taken_apart() {
    let (synapse, scene) = open_slowly(true).await;
    let room = room(&scene, true).await;
    let channel = channel(&scene, "footbridge/made-in-chat", &[]);
    let code = ask(&scene, &room, &channel).await;
    scene.ann.say(&room, "said before the code").await.unwrap();
    scene.sim.say(&channel.id, &scene.mary.id, &code);
    let asked = hear(&scene, &room, "has posted the code").await;
    assert!(
        asked.contains("!bridge consent gitter footbridge/made-in-chat"),
        "{asked}"
    );
    scene
        .ann
        .say(&room, "said before the consent")
        .await
        .unwrap();

    agree(&scene, &room).await;
    let early = scene.ann.say(&room, "said in the delay").await.unwrap();
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "waits for the delay");
    begun(&scene, &room).await;
    hear(&scene, &room, "waits for the delay").await;
    // The edit of a message that stays in the room stays too.
    scene
        .ann
        .edit(&room, &early, "said in the delay, corrected")
        .await
        .unwrap();
    scene
        .ann
        .say(&room, "said after the consent")
        .await
        .unwrap();
    read(&scene, &channel, "said after the consent").await;
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "hello from the channel");
    hear(&scene, &room, "hello from the channel").await;

    // The portal is in the store, not in the configuration.
    scene.bridge.terminate().await.unwrap();
    scene.bridge.start().await.unwrap();
    scene
        .ann
        .say(&room, "said after a new start")
        .await
        .unwrap();
    read(&scene, &channel, "said after a new start").await;
    let texts = posted(&scene, &channel).join("\n");
    assert!(
        !texts.contains("before the code")
            && !texts.contains("before the consent")
            && !texts.contains("in the delay"),
        "{texts}"
    );

    take_apart(&scene, &room, &channel).await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
    let metrics = scene.bridge.metrics().await.unwrap();
    assert_eq!(
        metrics.sum_where("footbridge_skipped_total", "rule", "unlinked"),
        3
    );
    scene.bridge.terminate().await.unwrap();
    let marks: [&[u8]; 1] = [b"canary-4711"];
    let traces =
        footbridge_testbed::scenario::files_containing(scene.bridge.directory(), &marks).unwrap();
    assert!(traces.is_empty(), "{traces:?}");
    for event in synapse.events(&room).await.unwrap() {
        let is_message = event.sender == scene.bridge_user && event.json.get("state_key").is_none();
        assert!(
            !is_message || event.event_type == "m.room.encrypted",
            "{}",
            event.event_type
        );
    }
}

/// Commands about trust, about a verification, about a room that is encrypted.
#[tokio::test]
async fn p15_what_the_homeserver_could_have_written_is_refused() {
    let (_, scene) = open(true).await;
    let room = room(&scene, false).await;
    let stage = &scene.stage.room;
    for words in [
        "!bridge trust @bob:footbridge.test".to_owned(),
        "!bridge verify".to_owned(),
        "!bridge verify yes".to_owned(),
        format!("!bridge pause in {stage}"),
    ] {
        scene.ann.say(&room, &words).await.unwrap();
    }
    hear_times(&scene, &room, "only if it is sent encrypted", 4).await;
    scene.say_in_room().await.unwrap();
    scene.settle(PATIENCE).await.unwrap();
    assert!(
        scene.toward_channel().is_clean(),
        "no message is lost or delayed"
    );
}

#[tokio::test]
async fn p14_a_user_without_permission_is_refused_with_the_reason() {
    let (synapse, scene) = open(true).await;
    let room = old_room(&scene).await;
    let channel = channel(&scene, "footbridge/guarded", &[&scene.tom.id]);
    let words = format!("!bridge portal add gitter {}", channel.uri);

    // Bob is not on the list of admins.
    let bob = raw_member(synapse, &scene.ann, &room).await;
    let say = async |number: u32, text: &str| {
        let path = format!("rooms/{room}/send/m.room.message/{number}");
        raw(
            synapse,
            &bob,
            "PUT",
            &path,
            json!({"msgtype": "m.text", "body": text}),
        )
        .await;
    };
    say(1, &words).await;
    hear(&scene, &room, "has not listed you").await;
    // Too low a power level.
    let levels = |ann: u32| {
        json!({"users": {scene.ann.user_id(): ann, scene.bridge_user.clone(): 50}, "state_default": 50,
            "events": {"m.room.power_levels": 40}})
    };
    let power = ("m.room.power_levels", "");
    scene
        .ann
        .send_state(&room, power, levels(49))
        .await
        .unwrap();
    scene.ann.say(&room, &words).await.unwrap();
    hear(&scene, &room, "is 49, and 50 is required").await;
    scene.ann.say(&room, "!bridge pause").await.unwrap();
    hear_times(&scene, &room, "is 49, and 50 is required", 2).await;
    // A silo and a channel that do not exist; a room that the bridge is not in. Nobody who lost power can restore it,
    // so Ann creates a room.
    let room = self::room(&scene, false).await;
    scene
        .ann
        .say(&room, "!bridge portal add giter org/room")
        .await
        .unwrap();
    hear(&scene, &room, "No silo `giter` is configured").await;
    scene
        .ann
        .say(&room, "!bridge portal add gitter no/where")
        .await
        .unwrap();
    hear(&scene, &room, "I cannot use that channel").await;
    let other = scene
        .ann
        .create_room("Elsewhere", false, &[])
        .await
        .unwrap();
    scene
        .ann
        .say(&room, &format!("{words} in {other}"))
        .await
        .unwrap();
    hear(&scene, &room, "I am not in that room").await;

    // A user without admin rights in the channel posts the code, and nothing is relayed.
    let code = ask(&scene, &room, &channel).await;
    scene.sim.say(&channel.id, &scene.mary.id, &code);
    hear(&scene, &room, "is not an admin there").await;
    scene.ann.say(&room, "said too early").await.unwrap();
    // An admin posts it. The room is not encrypted, so that is enough.
    scene.sim.say(&channel.id, &scene.tom.id, &code);
    hear(&scene, &room, "From now on every message").await;
    scene.ann.say(&room, "said in time").await.unwrap();
    read(&scene, &channel, "said in time").await;
    assert!(!posted(&scene, &channel).join("\n").contains("too early"));
    // The state of the room names the channel.
    let shown = async || {
        let events = synapse.events(&room).await.unwrap();
        events
            .iter()
            .any(|event| event.event_type == "uk.half-shot.bridge")
    };
    // Without the power to write that state, it does not.
    assert!(!shown().await);
    // An admin of the room may remove the portal without being a named admin; nobody else may.
    let carl = raw_member(synapse, &scene.ann, &room).await;
    // A new member gets a notice that names the linked channel.
    hear(&scene, &room, "For new members").await;
    let path = format!("rooms/{room}/send/m.room.message/9");
    let body = json!({"msgtype": "m.text", "body": "!bridge portal remove"});
    raw(synapse, &carl, "PUT", &path, body).await;
    hear(&scene, &room, "is 0, and 50 is required").await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}

/// Ann accepts her own identity: a command without a key decides nothing, and the reply lists the keys.
async fn trusts_by_key(scene: &Scenario, direct: &str) {
    let trust = format!("!bridge trust {}", scene.ann.user_id());
    scene.ann.say(direct, &trust).await.unwrap();
    let words = format!("The identity of {} with the key `", scene.ann.user_id());
    hear(scene, direct, &words).await;
    let told = said(scene, direct).join("\n");
    let (_, key) = told.split_once(&words).unwrap();
    let (key, _) = key.split_once('`').unwrap();
    scene
        .ann
        .say(direct, &format!("{trust} {key}"))
        .await
        .unwrap();
    hear(scene, direct, "is trusted, and no other").await;
}

#[tokio::test]
async fn p14_a_direct_message_names_the_room_and_withdraws_what_was_not_shown_yet() {
    let (synapse, scene) = open(true).await;
    let direct = room(&scene, true).await;
    let room = old_room(&scene).await;
    let power = json!({"users": {scene.ann.user_id(): 100, scene.bridge_user.clone(): 50}});
    scene
        .ann
        .send_state(&room, ("m.room.power_levels", ""), power)
        .await
        .unwrap();
    let channel = channel(&scene, "footbridge/direct", &[]);
    let words = format!("!bridge portal add gitter {} in {room}", channel.uri);
    scene.ann.say(&direct, &words).await.unwrap();
    hear(&scene, &direct, "post this code there").await;
    scene
        .ann
        .say(&direct, &format!("!bridge unbridge in {room}"))
        .await
        .unwrap();
    hear(&scene, &direct, "request to link the room was cancelled").await;
    scene
        .ann
        .say(
            &direct,
            &format!("!bridge link gitter {} in {room}", channel.uri),
        )
        .await
        .unwrap();
    let two = || {
        said(&scene, &direct)
            .iter()
            .filter(|text| text.contains("post this"))
            .count()
            == 2
    };
    until(PATIENCE, two).await.unwrap();
    let last = said(&scene, &direct)
        .into_iter()
        .rfind(|text| text.contains("post this"))
        .unwrap();
    let code = last.split_whitespace().last().unwrap();
    scene.sim.say(&channel.id, &scene.mary.id, code);
    hear(&scene, &room, "From now on every message").await;
    hear(&scene, &direct, "From now on every message").await;
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "hello over there");
    hear(&scene, &room, "hello over there").await;
    let marked = async || {
        let events = synapse.events(&room).await.unwrap();
        let mut marks = events
            .into_iter()
            .filter(|event| event.event_type == "uk.half-shot.bridge");
        marks.next_back().map(|event| event.json["content"].clone())
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mark = loop {
        if let Some(mark) = marked().await {
            break mark;
        }
        assert!(tokio::time::Instant::now() < deadline, "the room is marked");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(mark["channel"]["displayname"], "footbridge/direct");
    assert_eq!(mark["bridgebot"], scene.bridge_user);
    trusts_by_key(&scene, &direct).await;
    // In the direct message only the sender of a command gets replies.
    assert!(
        !said(&scene, &direct)
            .join("\n")
            .contains("hello over there")
    );
}

#[tokio::test]
async fn p15_a_room_that_is_encrypted_after_it_was_linked_waits_for_consent_and_loses_nothing() {
    let (_, scene) = open_slowly(false).await;
    let room = scene.stage.room.clone();
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    scene.settle(PATIENCE).await.unwrap();
    scene.ann.enable_encryption(&room).await.unwrap();
    hear(&scene, &room, "This room is encrypted now").await;
    for _ in 0..3 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    // The wait continues after a restart, and a restart is no consent.
    scene.bridge.kill().await.unwrap();
    scene.bridge.launch().unwrap();
    scene.ann.say(&room, "!bridge status").await.unwrap();
    let status = hear(&scene, &room, "Waiting for consent").await;
    assert!(
        status.contains("`!bridge consent gitter footbridge/lounge1`"),
        "{status}"
    );
    let waits = scene.toward_channel();
    assert_eq!(waits.lost.len(), 3, "{waits:?}");
    assert_eq!(scene.toward_room().lost.len(), 3);
    let asked = said(&scene, &room);
    let asked = asked
        .iter()
        .filter(|text| text.contains("is encrypted now"))
        .count();
    assert_eq!(asked, 1, "once");
    scene
        .ann
        .say(&room, "!bridge consent gitter footbridge/lounge1")
        .await
        .unwrap();
    let told = hear(&scene, &room, "every message in this room").await;
    for part in [
        "Messages that wait here (3 messages) are relayed then, too",
        "written between now and then are not",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // It is not relayed even if the bridge does not run at that moment.
    scene
        .ann
        .say(&room, "said in the delay, and heard after it")
        .await
        .unwrap();
    scene.bridge.kill().await.unwrap();
    scene
        .ann
        .say(&room, "said while nobody listened")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.bridge.launch().unwrap();
    begun(&scene, &room).await;
    scene.ann.say(&room, "said after all that").await.unwrap();
    read(&scene, &scene.stage.channel, "said after all that").await;
    let texts = posted(&scene, &scene.stage.channel).join("\n");
    assert!(
        !texts.contains("in the delay") && !texts.contains("nobody listened"),
        "{texts}"
    );
    scene.settle(PATIENCE).await.unwrap();
    let (there, here) = (scene.toward_channel(), scene.toward_room());
    assert!(there.is_clean(), "{there:?}");
    assert!(here.is_clean(), "{here:?}");
    scene.bridge.conservation().await.unwrap();
}

#[tokio::test]
async fn people_keep_their_messages_and_a_pause_keeps_the_queue() {
    let (_, scene) = open(true).await;
    let (room, channel) = (scene.stage.room.clone(), scene.stage.channel.clone());
    // Paused, also after a restart.
    scene.ann.say(&room, "!bridge pause").await.unwrap();
    hear(&scene, &room, "Paused.").await;
    for _ in 0..3 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    scene.bridge.kill().await.unwrap();
    scene.bridge.launch().unwrap();
    scene.ann.say(&room, "!bridge status").await.unwrap();
    let status = hear(&scene, &room, "Paused by").await;
    assert!(status.contains(&scene.ann.user_id()), "{status}");
    assert_eq!(scene.toward_channel().lost.len(), 3);
    let shown = command(&scene, &["status"]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("paused by"), "{shown}");
    scene.ann.say(&room, "!bridge resume").await.unwrap();
    hear(&scene, &room, "Resumed.").await;
    scene.settle(PATIENCE).await.unwrap();
    assert!(scene.toward_channel().is_clean() && scene.toward_room().is_clean());

    // One message is not relayed, then all of Ann's, then none.
    scene.ann.say(&room, "!nobridge hush-1").await.unwrap();
    scene.ann.say(&room, "!bridge optout").await.unwrap();
    hear(&scene, &room, "Your messages here are not relayed").await;
    scene.ann.say(&room, "hush-2").await.unwrap();
    scene.ann.say(&room, "!bridge optout off").await.unwrap();
    hear(&scene, &room, "From now on your messages").await;
    scene.ann.say(&room, "heard again").await.unwrap();
    read(&scene, &channel, "heard again").await;
    // Mary's opt-out applies in the channel.
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "!bridge optout everywhere");
    read(
        &scene,
        &channel,
        "Your messages in every room are not relayed",
    )
    .await;
    scene.sim.say(&channel.id, &scene.mary.id, "hush-3");
    scene.sim.say(&channel.id, &scene.tom.id, "Tom is heard");
    hear(&scene, &room, "Tom is heard").await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    let all = [posted(&scene, &channel), said(&scene, &room)]
        .concat()
        .join("\n");
    assert!(!all.contains("hush-"), "{all}");
    let metrics = scene.bridge.metrics().await.unwrap();
    let skipped = |rule: &str| metrics.sum_where("footbridge_skipped_total", "rule", rule);
    assert_eq!((skipped("nobridge"), skipped("opted-out")), (1, 2));
    scene.bridge.conservation().await.unwrap();
}

#[tokio::test]
async fn the_command_line_joins_a_room_that_the_configuration_does_not_name() {
    let (_, scene) = open(true).await;
    let invited = [scene.bridge_user.clone()];
    let room = scene
        .ann
        .create_room("Of the operator", true, &invited)
        .await
        .unwrap();
    let channel = channel(&scene, "footbridge/operator", &[]);
    let add = ["portal", "add", &room, "gitter", "footbridge/operator"];
    let refused = command(&scene, &add).await;
    assert_eq!(refused.status.code(), Some(75));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("!bridge portal add gitter footbridge/operator"),
        "{told}"
    );
    scene.bridge.terminate().await.unwrap();
    let added = command(&scene, &add).await;
    assert_eq!(added.status.code(), Some(0), "{added:?}");
    scene.bridge.start().await.unwrap();
    // The operator has consented by naming the portal.
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "hello to the operator's room");
    hear(&scene, &room, "hello to the operator's room").await;
    scene
        .ann
        .say(&room, "hello to the operator's channel")
        .await
        .unwrap();
    read(&scene, &channel, "hello to the operator's channel").await;
    scene.bridge.terminate().await.unwrap();
    let list = command(&scene, &["portal", "list"]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(
        list.contains("by the command line") && list.contains("by the configuration"),
        "{list}"
    );
    let removed = command(&scene, &["portal", "remove", &room]).await;
    assert_eq!(removed.status.code(), Some(0), "{removed:?}");
    scene.bridge.start().await.unwrap();
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "nobody hears this");
    scene.say_in_room().await.unwrap();
    scene.settle(PATIENCE).await.unwrap();
    assert!(!said(&scene, &room).join("\n").contains("nobody hears this"));
    scene.bridge.conservation().await.unwrap();
}
