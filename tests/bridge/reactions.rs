//! Reactions through the program itself: the bridge's account shows one for many people, a line reports them where the
//! silo has none, and they leave an encrypted room only where the portal allows it (C22).

use std::{path::PathBuf, time::Duration};

use footbridge_simulators::mattermost::Post;
use footbridge_simulators::{
    channel::SimulatorKind, gitter, mattermost, mattermost::MattermostChannel,
};
use footbridge_testbed::client::SeenEvent;
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    scenario::files_containing,
    synapse::Synapse,
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_mins(1);

async fn scene(kind: &'static SimulatorKind, in_clear: bool, options: &str) -> MultiSiloScenario {
    let plan = MultiSiloOptions {
        in_clear,
        portal_options: options.to_owned(),
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

async fn wait(scene: &MultiSiloScenario, what: &str, is_so: impl Fn() -> bool) {
    scene.wait(what, is_so).await.unwrap();
}

/// The bridge's event with this text; waits for it.
async fn event(scene: &MultiSiloScenario, text: &str) -> SeenEvent {
    let find = || {
        let found = scene.room_observer.pick(&scene.rooms[0], |heard| {
            let ours = heard.seen.sender == scene.bridge_user;
            let says = heard.text().is_some_and(|said| said.ends_with(text));
            (ours && says).then(|| heard.seen.clone())
        });
        found.into_iter().next()
    };
    wait(scene, text, || find().is_some()).await;
    find().unwrap()
}

/// Ann asks something; its post in the channel.
async fn question(scene: &MultiSiloScenario) -> String {
    scene
        .ann
        .say(&scene.rooms[0], "what do you think?")
        .await
        .unwrap();
    wait(scene, "the question", || posts(scene).len() == 1).await;
    posts(scene).remove(0).id
}

/// The reactions of the bridge in the room that are not redacted: event, and key.
fn shown(scene: &MultiSiloScenario) -> Vec<(String, String)> {
    let mut standing: Vec<(String, String)> = Vec::new();
    let all = scene.room_observer.pick(&scene.rooms[0], |heard| {
        (heard.seen.sender == scene.bridge_user).then(|| heard.seen.clone())
    });
    for seen in all {
        match seen.event_type.as_str() {
            "m.reaction" => {
                let relation = &seen.content["m.relates_to"];
                let text = |key: &str| relation[key].as_str().unwrap_or_default().to_owned();
                standing.push((seen.event_id.clone(), text("key")));
            }
            "m.room.redaction" => {
                let gone = seen.content["redacts"].as_str();
                standing.retain(|(event, _)| Some(event.as_str()) != gone);
            }
            _ => {}
        }
    }
    standing
}

fn keys(scene: &MultiSiloScenario) -> Vec<String> {
    shown(scene).into_iter().map(|(_, key)| key).collect()
}

async fn react(scene: &MultiSiloScenario, event: &str, key: &str) -> String {
    let content = json!({"m.relates_to": {
        "rel_type": "m.annotation", "event_id": event, "key": key}});
    let sent = scene.ann.send(&scene.rooms[0], "m.reaction", content);
    sent.await.unwrap()
}

/// The posts of the channel, in their present form.
fn posts(scene: &MultiSiloScenario) -> Vec<Post> {
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    sim.posts(&channel.id)
}

/// The emoji on a post, and how many people chose each.
fn on_post(scene: &MultiSiloScenario, id: &str) -> Vec<(String, usize)> {
    let post = posts(scene).into_iter().find(|post| post.id == id);
    let reactions = post.map(|post| post.reactions).unwrap_or_default();
    let counts = reactions
        .into_iter()
        .map(|(emoji, users)| (emoji, users.len()));
    counts.collect()
}

#[tokio::test]
async fn c22_one_account_shows_in_a_room_what_many_mean_in_mattermost() {
    let scene = scene(&mattermost::SIMULATOR, true, "").await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let (cy, di) = (sim.add_user("cy"), sim.add_user("di"));
    for user in [&cy, &di] {
        sim.join(&channel.id, &user.id);
    }
    let question = question(&scene).await;

    sim.react(&cy.id, &question, "tada");
    wait(&scene, "a reaction", || keys(&scene) == ["🎉"]).await;
    sim.react(&di.id, &question, "tada");
    sim.react(&di.id, &question, "shipit");
    wait(&scene, "another", || keys(&scene) == ["🎉", ":shipit:"]).await;
    sim.unreact(&cy.id, &question, "tada");
    sim.unreact(&di.id, &question, "shipit");
    wait(&scene, "the end of one", || keys(&scene) == ["🎉"]).await;

    // Reactions that change while the bridge does not listen are found by comparing.
    scene.bridge.terminate().await.unwrap();
    sim.unreact(&di.id, &question, "tada");
    sim.react(&cy.id, &question, "heart");
    scene.bridge.start().await.unwrap();
    wait(&scene, "what was missed", || keys(&scene) == ["❤\u{fe0f}"]).await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    assert_eq!(posts(&scene).len(), 1, "a reaction is no message");
    nothing_tells(&scene, &["tada", "shipit", "/heart"]);
}

/// No file of the bridge shows which emoji were chosen.
fn nothing_tells(scene: &MultiSiloScenario, emoji: &[&str]) {
    let words: Vec<&[u8]> = emoji.iter().map(|emoji| emoji.as_bytes()).collect();
    let told = files_containing(scene.bridge.directory(), &words).unwrap();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn c22_a_reaction_of_a_room_is_one_of_the_account_in_mattermost() {
    let scene = scene(&mattermost::SIMULATOR, true, "").await;
    let post = scene.sites[0].say("what do you think?").unwrap();
    let asked = event(&scene, "what do you think?").await.event_id;
    let thumb = react(&scene, &asked, "👍\u{fe0f}").await;
    wait(&scene, "a reaction", || {
        on_post(&scene, &post) == [("+1".to_owned(), 1)]
    })
    .await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    nothing_tells(&scene, &["/+1"]);
    // Mattermost has no emoji for a word: a line reports it.
    let word = react(&scene, &asked, "well done").await;
    wait(&scene, "a line", || {
        posts(&scene)
            .last()
            .is_some_and(|post| post.message == "well done Ann" && !post.root_id.is_empty())
    })
    .await;
    for event in [thumb, word] {
        scene.ann.redact(&scene.rooms[0], &event).await.unwrap();
    }
    wait(&scene, "the end of both", || {
        on_post(&scene, &post).is_empty() && posts(&scene).len() == 1
    })
    .await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    assert!(
        keys(&scene).is_empty(),
        "no reaction of the bridge came back"
    );
}

#[tokio::test]
async fn c22_where_a_silo_has_no_reactions_one_line_gathers_them() {
    let scene = scene(&gitter::SIMULATOR, true, "").await;
    scene.sites[0].say("what do you think?").unwrap();
    let asked = event(&scene, "what do you think?").await.event_id;
    let is_told = |line: &str| {
        let said = scene.sites[0].bridge_texts();
        if line.is_empty() {
            said.is_empty()
        } else {
            said == [line]
        }
    };
    let thumb = react(&scene, &asked, "👍").await;
    wait(&scene, "a line", || is_told("👍 Ann")).await;
    let cheer = react(&scene, &asked, "🎉").await;
    wait(&scene, "the same line", || is_told("👍 Ann · 🎉 Ann")).await;
    scene.ann.redact(&scene.rooms[0], &thumb).await.unwrap();
    wait(&scene, "less of it", || is_told("🎉 Ann")).await;
    scene.ann.redact(&scene.rooms[0], &cheer).await.unwrap();
    wait(&scene, "its end", || is_told("")).await;
    // When a message is deleted, its line is deleted with it.
    let said = scene.ann.say(&scene.rooms[0], "I do").await.unwrap();
    react(&scene, &said, "👀").await;
    wait(&scene, "a new line", || {
        scene.sites[0].bridge_texts() == ["**Ann**: I do", "👀 Ann"]
    })
    .await;
    scene.ann.redact(&scene.rooms[0], &said).await.unwrap();
    // Gitter keeps an empty message where a thread was attached to it.
    wait(&scene, "the end of it all", || {
        scene.sites[0].bridge_texts().iter().all(String::is_empty)
    })
    .await;
    scene.bridge.settle(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn c22_no_reaction_enters_or_leaves_an_encrypted_room_unless_the_portal_allows_it() {
    for (options, crosses) in [("", false), ("reactions = \"always\"", true)] {
        let scene = scene(&mattermost::SIMULATOR, false, options).await;
        let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
        let cy = sim.add_user("cy");
        sim.join(&channel.id, &cy.id);
        let post = scene.sites[0].say("what do you think?").unwrap();
        let asked = event(&scene, "what do you think?").await.event_id;
        react(&scene, &asked, "👍").await;
        sim.react(&cy.id, &post, "tada");
        scene.ann.say(&scene.rooms[0], "and then").await.unwrap();
        wait(&scene, "what follows", || posts(&scene).len() == 2).await;
        scene.bridge.settle(PATIENCE).await.unwrap();
        let bots = on_post(&scene, &post)
            .iter()
            .any(|(emoji, _)| emoji == "+1");
        assert_eq!((bots, keys(&scene).len()), (crosses, usize::from(crosses)));
        let metrics = scene.bridge.metrics().await.unwrap();
        let rule = "reaction-in-encrypted-room";
        let skipped = metrics.sum_where("footbridge_skipped_total", "rule", rule);
        assert_eq!(skipped, if crosses { 0 } else { 2 });
    }
}

#[tokio::test]
async fn c22_a_flood_of_reactions_is_counted_and_dropped() {
    let scene = scene(&mattermost::SIMULATOR, true, "").await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let cy = sim.add_user("cy");
    sim.join(&channel.id, &cy.id);
    let question = question(&scene).await;
    for number in 0..60 {
        sim.react(&cy.id, &question, &format!("own{number}"));
    }
    // The flood does not delay a message.
    scene.sites[0].say("after the flood").unwrap();
    event(&scene, "after the flood").await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    assert_eq!(keys(&scene).len(), 20);
    let metrics = scene.bridge.metrics().await.unwrap();
    let dropped = metrics.sum_where("footbridge_skipped_total", "rule", "reaction-flood");
    assert_eq!(dropped, 40);
}

#[tokio::test]
async fn c22_a_reaction_that_comes_before_the_id_of_its_target_is_relayed() {
    let scene = scene(&mattermost::SIMULATOR, true, "").await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let cy = sim.add_user("cy");
    sim.join(&channel.id, &cy.id);
    sim.faults().echo_first(3_000);
    let rooms = &scene.rooms[0];
    scene.ann.say(rooms, "what do you think?").await.unwrap();
    wait(&scene, "the question", || posts(&scene).len() == 1).await;
    sim.react(&cy.id, &posts(&scene).remove(0).id, "tada");
    wait(&scene, "the reaction", || keys(&scene) == ["🎉"]).await;
}
