//! Reactions through the program itself: one account shows what many mean, a line tells of them where the silo has none, and
//! the border of an encrypted room is theirs only where the portal says so (C22).

use std::{path::PathBuf, time::Duration};

use footbridge_matrix::person::SeenEvent;
use footbridge_testbed::{
    mattermost::Post,
    multi_silo::{MultiSiloOptions, MultiSiloScenario, SimulatorKind},
    scenario::files_containing,
    synapse::Synapse,
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_mins(1);

async fn town(kind: SimulatorKind, in_clear: bool, options: &str) -> MultiSiloScenario {
    let plan = MultiSiloOptions {
        in_clear,
        portal_options: options.to_owned(),
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

async fn wait(town: &MultiSiloScenario, what: &str, is_so: impl Fn() -> bool) {
    town.wait(what, is_so).await.unwrap();
}

/// The event that shows this text of the bridge's.
async fn event(town: &MultiSiloScenario, text: &str) -> SeenEvent {
    let find = || {
        let found = town.room_observer.pick(&town.rooms[0], |heard| {
            let ours = heard.seen.sender == town.bridge_user;
            let says = heard.text().is_some_and(|said| said.ends_with(text));
            (ours && says).then(|| heard.seen.clone())
        });
        found.into_iter().next()
    };
    wait(town, text, || find().is_some()).await;
    find().unwrap()
}

/// Ann asks something; its post in the channel.
async fn question(town: &MultiSiloScenario) -> String {
    town.ann
        .say(&town.rooms[0], "what do you think?")
        .await
        .unwrap();
    wait(town, "the question", || posts(town).len() == 1).await;
    posts(town).remove(0).id
}

/// The reactions of the bridge that stand in the room: event, and with what.
fn shown(town: &MultiSiloScenario) -> Vec<(String, String)> {
    let mut standing: Vec<(String, String)> = Vec::new();
    let all = town.room_observer.pick(&town.rooms[0], |heard| {
        (heard.seen.sender == town.bridge_user).then(|| heard.seen.clone())
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

fn keys(town: &MultiSiloScenario) -> Vec<String> {
    shown(town).into_iter().map(|(_, key)| key).collect()
}

async fn react(town: &MultiSiloScenario, event: &str, key: &str) -> String {
    let content = json!({"m.relates_to": {
        "rel_type": "m.annotation", "event_id": event, "key": key}});
    let sent = town.ann.send(&town.rooms[0], "m.reaction", content);
    sent.await.unwrap()
}

/// Posts of the channel, as they stand now.
fn posts(town: &MultiSiloScenario) -> Vec<Post> {
    let (sim, channel) = town.sites[0].mattermost().unwrap();
    sim.posts(&channel.id)
}

/// The emoji on a post, and how many people chose each.
fn on_post(town: &MultiSiloScenario, id: &str) -> Vec<(String, usize)> {
    let post = posts(town).into_iter().find(|post| post.id == id);
    let reactions = post.map(|post| post.reactions).unwrap_or_default();
    let counts = reactions
        .into_iter()
        .map(|(emoji, users)| (emoji, users.len()));
    counts.collect()
}

#[tokio::test]
async fn c22_one_account_shows_in_a_room_what_many_mean_in_mattermost() {
    let town = town(SimulatorKind::Mattermost, true, "").await;
    let (sim, channel) = town.sites[0].mattermost().unwrap();
    let (cy, di) = (sim.add_user("cy"), sim.add_user("di"));
    for user in [&cy, &di] {
        sim.join(&channel.id, &user.id);
    }
    let question = question(&town).await;

    sim.react(&cy.id, &question, "tada");
    wait(&town, "a reaction", || keys(&town) == ["🎉"]).await;
    sim.react(&di.id, &question, "tada");
    sim.react(&di.id, &question, "shipit");
    wait(&town, "another", || keys(&town) == ["🎉", ":shipit:"]).await;
    sim.unreact(&cy.id, &question, "tada");
    sim.unreact(&di.id, &question, "shipit");
    wait(&town, "the end of one", || keys(&town) == ["🎉"]).await;

    // What happens while nobody listens is found by comparing.
    town.bridge.terminate().await.unwrap();
    sim.unreact(&di.id, &question, "tada");
    sim.react(&cy.id, &question, "heart");
    town.bridge.start().await.unwrap();
    wait(&town, "what was missed", || keys(&town) == ["❤\u{fe0f}"]).await;
    town.bridge.settle(PATIENCE).await.unwrap();
    assert_eq!(posts(&town).len(), 1, "a reaction is no message");
    nothing_tells(&town, &["tada", "shipit", "/heart"]);
}

/// No file of the bridge's tells which emoji were chosen.
fn nothing_tells(town: &MultiSiloScenario, emoji: &[&str]) {
    let words: Vec<&[u8]> = emoji.iter().map(|emoji| emoji.as_bytes()).collect();
    let told = files_containing(town.bridge.directory(), &words).unwrap();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn c22_a_reaction_of_a_room_is_one_of_the_account_in_mattermost() {
    let town = town(SimulatorKind::Mattermost, true, "").await;
    let post = town.sites[0].say("what do you think?").unwrap();
    let asked = event(&town, "what do you think?").await.event_id;
    let thumb = react(&town, &asked, "👍\u{fe0f}").await;
    wait(&town, "a reaction", || {
        on_post(&town, &post) == [("+1".to_owned(), 1)]
    })
    .await;
    town.bridge.settle(PATIENCE).await.unwrap();
    nothing_tells(&town, &["/+1"]);
    // A word is no emoji there: a line tells of it.
    let word = react(&town, &asked, "well done").await;
    wait(&town, "a line", || {
        posts(&town)
            .last()
            .is_some_and(|post| post.message == "well done Ann" && !post.root_id.is_empty())
    })
    .await;
    for event in [thumb, word] {
        town.ann.redact(&town.rooms[0], &event).await.unwrap();
    }
    wait(&town, "the end of both", || {
        on_post(&town, &post).is_empty() && posts(&town).len() == 1
    })
    .await;
    town.bridge.settle(PATIENCE).await.unwrap();
    assert!(keys(&town).is_empty(), "nothing of ours came back");
}

#[tokio::test]
async fn c22_where_a_silo_has_no_reactions_one_line_gathers_them() {
    let town = town(SimulatorKind::Gitter, true, "").await;
    town.sites[0].say("what do you think?").unwrap();
    let asked = event(&town, "what do you think?").await.event_id;
    let is_told = |line: &str| {
        let said = town.sites[0].read();
        if line.is_empty() {
            said.is_empty()
        } else {
            said == [line]
        }
    };
    let thumb = react(&town, &asked, "👍").await;
    wait(&town, "a line", || is_told("👍 Ann")).await;
    let cheer = react(&town, &asked, "🎉").await;
    wait(&town, "the same line", || is_told("👍 Ann · 🎉 Ann")).await;
    town.ann.redact(&town.rooms[0], &thumb).await.unwrap();
    wait(&town, "less of it", || is_told("🎉 Ann")).await;
    town.ann.redact(&town.rooms[0], &cheer).await.unwrap();
    wait(&town, "its end", || is_told("")).await;
    // What is taken back takes its line along.
    let said = town.ann.say(&town.rooms[0], "I do").await.unwrap();
    react(&town, &said, "👀").await;
    wait(&town, "a new line", || {
        town.sites[0].read() == ["**Ann**: I do", "👀 Ann"]
    })
    .await;
    town.ann.redact(&town.rooms[0], &said).await.unwrap();
    // Gitter leaves an empty message where a thread has hung on it.
    wait(&town, "the end of it all", || {
        town.sites[0].read().iter().all(String::is_empty)
    })
    .await;
    town.bridge.settle(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn c22_no_reaction_crosses_the_border_of_an_encrypted_room_unless_the_portal_says_so() {
    for (options, crosses) in [("", false), ("reactions = \"always\"", true)] {
        let town = town(SimulatorKind::Mattermost, false, options).await;
        let (sim, channel) = town.sites[0].mattermost().unwrap();
        let cy = sim.add_user("cy");
        sim.join(&channel.id, &cy.id);
        let post = town.sites[0].say("what do you think?").unwrap();
        let asked = event(&town, "what do you think?").await.event_id;
        react(&town, &asked, "👍").await;
        sim.react(&cy.id, &post, "tada");
        town.ann.say(&town.rooms[0], "and then").await.unwrap();
        wait(&town, "what follows", || posts(&town).len() == 2).await;
        town.bridge.settle(PATIENCE).await.unwrap();
        let bots = on_post(&town, &post).iter().any(|(emoji, _)| emoji == "+1");
        assert_eq!((bots, keys(&town).len()), (crosses, usize::from(crosses)));
        let metrics = town.bridge.metrics().await.unwrap();
        let rule = "reaction-in-encrypted-room";
        let skipped = metrics.sum_where("footbridge_skipped_total", "rule", rule);
        assert_eq!(skipped, if crosses { 0 } else { 2 });
    }
}

#[tokio::test]
async fn c22_a_flood_of_reactions_is_counted_and_dropped() {
    let town = town(SimulatorKind::Mattermost, true, "").await;
    let (sim, channel) = town.sites[0].mattermost().unwrap();
    let cy = sim.add_user("cy");
    sim.join(&channel.id, &cy.id);
    let question = question(&town).await;
    for number in 0..60 {
        sim.react(&cy.id, &question, &format!("own{number}"));
    }
    // Another one is not held up by it.
    town.sites[0].say("after the flood").unwrap();
    event(&town, "after the flood").await;
    town.bridge.settle(PATIENCE).await.unwrap();
    assert_eq!(keys(&town).len(), 20);
    let metrics = town.bridge.metrics().await.unwrap();
    let dropped = metrics.sum_where("footbridge_skipped_total", "rule", "reaction-flood");
    assert_eq!(dropped, 40);
}

#[tokio::test]
async fn c22_a_reaction_that_comes_before_the_id_of_what_it_is_on_crosses() {
    let town = town(SimulatorKind::Mattermost, true, "").await;
    let (sim, channel) = town.sites[0].mattermost().unwrap();
    let cy = sim.add_user("cy");
    sim.join(&channel.id, &cy.id);
    sim.faults().echo_first(3_000);
    let rooms = &town.rooms[0];
    town.ann.say(rooms, "what do you think?").await.unwrap();
    wait(&town, "the question", || posts(&town).len() == 1).await;
    sim.react(&cy.id, &posts(&town).remove(0).id, "tada");
    wait(&town, "the reaction", || keys(&town) == ["🎉"]).await;
}
