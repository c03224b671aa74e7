//! Files on their way between an encrypted room and a channel, through the program itself: byte by byte what was sent,
//! encrypted on the homeserver, named where they cannot be carried, and nothing of them left on our disk.

use std::{path::PathBuf, time::Duration};

use footbridge::matrix::person::Seen;
use footbridge_testbed::{
    mattermost,
    scenario::until,
    synapse::Synapse,
    town::{Kind, Plan, Town},
};

const PATIENCE: Duration = Duration::from_mins(1);

async fn town(kind: Kind) -> Town {
    let plan = Plan {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![kind],
        rooms: 1,
        portals: vec![(0, 0)],
        seed: 1,
        log_filter: "info".to_owned(),
    };
    Town::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

/// Bytes that no encoding leaves as they are by accident.
fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect()
}

/// The messages of the bridge in the room that are of this type.
fn in_room(town: &Town, kind: &str) -> Vec<Seen> {
    town.ear.pick(&town.rooms[0], |heard| {
        let ours = heard.seen.sender == town.bridge_user;
        (ours && heard.seen.content["msgtype"] == kind).then(|| heard.seen.clone())
    })
}

async fn wait(town: &Town, what: &str, is_so: impl Fn() -> bool) {
    let happened = until(PATIENCE, is_so).await.is_ok();
    assert!(
        happened,
        "{what} did not happen\n{}",
        town.bridge.logs_end()
    );
}

/// A post's text, and its files by name.
type Carried = (String, Vec<(String, Vec<u8>)>);

/// What the bridge's posts carry.
fn carried(town: &Town) -> Vec<Carried> {
    let (sim, channel) = town.sites[0].mattermost().unwrap();
    let posts = sim.posts(&channel.id).into_iter();
    let ours = posts.filter(|post: &mattermost::Post| post.props.contains_key("footbridge"));
    ours.map(|post| (post.message.clone(), sim.files_of(&post)))
        .collect()
}

#[tokio::test]
async fn a_file_of_an_encrypted_room_reaches_mattermost_byte_by_byte() {
    let town = town(Kind::Mattermost).await;
    let (room, sent) = (&town.rooms[0], bytes(300_001));
    let cat = ("../cat.png", "image/png");
    let file = town.ann.send_file(room, cat, sent.clone(), None);
    file.await.unwrap();
    let file = town.ann.send_file(
        room,
        ("report.txt", "text/plain"),
        b"all is well".to_vec(),
        Some("please *read*"),
    );
    file.await.unwrap();
    town.ann.say(room, "after the files").await.unwrap();
    wait(&town, "the last message", || carried(&town).len() == 3).await;
    let carried = carried(&town);
    assert_eq!(carried[0].1, [("cat.png".to_owned(), sent)]);
    assert!(carried[0].0.contains("Ann") && carried[0].0.contains("sent an image"));
    assert_eq!(
        carried[1].1,
        [("report.txt".to_owned(), b"all is well".to_vec())]
    );
    assert_eq!(carried[1].0, "**Ann**: please \\*read\\*");
    assert!(carried[2].0.ends_with("after the files") && carried[2].1.is_empty());
}

#[tokio::test]
async fn a_file_of_mattermost_reaches_an_encrypted_room_encrypted() {
    let town = town(Kind::Mattermost).await;
    let (sim, channel) = town.sites[0].mattermost().unwrap();
    let bob = town.sites[0].say("before the file").unwrap();
    let bob = sim
        .posts(&channel.id)
        .into_iter()
        .find(|post| post.id == bob)
        .unwrap()
        .user_id;
    let sent = bytes(300_001);
    sim.say_file(&channel.id, &bob, "cat.bin", &sent);
    wait(&town, "the file", || in_room(&town, "m.file").len() == 1).await;
    let seen = in_room(&town, "m.file").remove(0);
    let content = &seen.content;
    assert_eq!(content["filename"], "cat.bin");
    assert_eq!(content["info"]["size"], 300_001);
    assert!(content["url"].is_null(), "{content}");
    assert_eq!(content["m.mentions"], serde_json::json!({}));
    let profile = &content["com.beeper.per_message_profile"];
    assert_eq!(profile["id"], bob.as_str());
    assert_eq!(
        content["body"],
        format!("{}: cat.bin", profile["displayname"].as_str().unwrap())
    );
    assert_eq!(town.ann.read_file(content).await.unwrap(), sent);
}

#[tokio::test]
async fn where_files_cannot_go_a_line_names_them() {
    let town = town(Kind::Gitter).await;
    let room = &town.rooms[0];
    let cat = ("cat.png", "image/png");
    let file = town.ann.send_file(room, cat, bytes(2_123), None);
    file.await.unwrap();
    let file = town.ann.send_file(room, cat, bytes(2_123), Some("look"));
    file.await.unwrap();
    wait(&town, "two lines", || town.sites[0].read().len() == 2).await;
    let lines = town.sites[0].read();
    assert!(lines[0].contains("sent an image: cat.png"), "{lines:?}");
    assert!(
        lines[1].contains("look") && lines[1].contains("📎 an image: cat.png"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_file_that_was_forged_or_is_too_large_is_named_and_the_next_message_goes_on() {
    let town = town(Kind::Mattermost).await;
    let room = &town.rooms[0];
    let file = town
        .ann
        .send_file(room, ("true.bin", "a/b"), bytes(5_000), None);
    let id = file.await.unwrap();
    wait(&town, "the true one", || carried(&town).len() == 1).await;
    let own = town.ear.pick(room, |heard| {
        (heard.seen.event_id == id).then(|| heard.seen.content.clone())
    });
    // The same file under another hash: what the homeserver gives out is not what Ann encrypted.
    let mut forged = own[0].clone();
    forged["file"]["hashes"]["sha256"] = "ANdt819a8bZl4jKy3Z+jcqtiNICa2y0AW4BBJ/iQRAU".into();
    forged["body"] = "forged.bin".into();
    town.ann.send(room, "m.room.message", forged).await.unwrap();
    let mut gone = own[0].clone();
    gone["file"]["url"] = "mxc://localhost/nothinglikethis".into();
    gone["body"] = "gone.bin".into();
    town.ann.send(room, "m.room.message", gone).await.unwrap();
    town.ann.say(room, "goes on").await.unwrap();
    wait(&town, "what follows", || carried(&town).len() == 4).await;
    let carried = carried(&town);
    for (line, name) in [(1, "forged.bin"), (2, "gone.bin")] {
        assert!(
            carried[line].0.contains(&format!("sent a file: {name}")),
            "{carried:?}"
        );
        assert!(carried[line].1.is_empty());
    }
    assert!(carried[3].0.ends_with("goes on"));
}
