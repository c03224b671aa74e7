//! Files relayed between an encrypted room and a channel, through the program itself: byte for byte what was sent,
//! encrypted on the homeserver, named where they cannot be relayed, and nothing of them left on the bridge's disk.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use footbridge_simulators::{
    channel::SimulatorKind,
    file_server::FileServer,
    gitter,
    matterbridge::{self, MatterbridgeChannel},
    mattermost::{self, MattermostChannel},
};
use footbridge_testbed::client::SeenEvent;
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    synapse::Synapse,
};
use serde_json::{Value, json};

async fn scene(kind: &'static SimulatorKind) -> MultiSiloScenario {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_footbridge"));
    let plan = MultiSiloOptions::of_one(binary, kind);
    MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

/// Bytes that no encoding preserves by accident.
fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect()
}

/// The bridge's messages of this type in the room.
fn in_room(scene: &MultiSiloScenario, kind: &str) -> Vec<SeenEvent> {
    scene.room_observer.pick(&scene.rooms[0], |heard| {
        let ours = heard.seen.sender == scene.bridge_user;
        (ours && heard.seen.content["msgtype"] == kind).then(|| heard.seen.clone())
    })
}

async fn wait(scene: &MultiSiloScenario, what: &str, is_so: impl Fn() -> bool) {
    scene.wait(what, is_so).await.unwrap();
}

/// A post's text, and its files by name.
type Carried = (String, Vec<(String, Vec<u8>)>);

/// The contents of the bridge's posts.
fn carried(scene: &MultiSiloScenario) -> Vec<Carried> {
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let posts = sim.posts(&channel.id).into_iter();
    let ours = posts.filter(|post: &mattermost::Post| post.props.contains_key("footbridge"));
    ours.map(|post| (post.message.clone(), sim.files_of(&post)))
        .collect()
}

#[tokio::test]
async fn a_file_of_an_encrypted_room_reaches_mattermost_byte_by_byte() {
    let scene = scene(&mattermost::SIMULATOR).await;
    let (room, sent) = (&scene.rooms[0], bytes(300_001));
    let cat = ("../cat.png", "image/png");
    let file = scene.ann.send_file(room, cat, sent.clone(), None);
    file.await.unwrap();
    let file = scene.ann.send_file(
        room,
        ("report.txt", "text/plain"),
        b"all is well".to_vec(),
        Some("please *read*"),
    );
    file.await.unwrap();
    scene.ann.say(room, "after the files").await.unwrap();
    wait(&scene, "the last message", || carried(&scene).len() == 3).await;
    let carried = carried(&scene);
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
    let scene = scene(&mattermost::SIMULATOR).await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let bob = scene.sites[0].say("before the file").unwrap();
    let bob = sim
        .posts(&channel.id)
        .into_iter()
        .find(|post| post.id == bob)
        .unwrap()
        .user_id;
    let sent = bytes(300_001);
    sim.say_file(&channel.id, &bob, "cat.bin", &sent);
    wait(&scene, "the file", || in_room(&scene, "m.file").len() == 1).await;
    let seen = in_room(&scene, "m.file").remove(0);
    let content = &seen.content;
    assert_eq!(content["filename"], "cat.bin");
    assert_eq!(content["info"]["size"], 300_001);
    assert!(content["url"].is_null(), "{content}");
    assert_eq!(content["m.mentions"], json!({}));
    let profile = &content["com.beeper.per_message_profile"];
    assert_eq!(profile["id"], bob.as_str());
    assert_eq!(
        content["body"],
        format!("{}: cat.bin", profile["displayname"].as_str().unwrap())
    );
    assert_eq!(scene.ann.read_file(content).await.unwrap(), sent);
}

#[tokio::test]
async fn a_large_picture_of_mattermost_comes_with_its_small_one_and_its_size() {
    let scene = scene(&mattermost::SIMULATOR).await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let bob = scene.sites[0].say("before the picture").unwrap();
    let posts = sim.posts(&channel.id);
    let bob = &posts.iter().find(|post| post.id == bob).unwrap().user_id;
    let sent = bytes(300_001);
    sim.say_file(&channel.id, bob, "large.png", &sent);
    sim.say_file(&channel.id, bob, "small.png", &sent[..2_000]);
    wait(&scene, "the pictures", || {
        in_room(&scene, "m.image").len() == 2
    })
    .await;
    let pictures = in_room(&scene, "m.image");
    let info = &pictures[0].content["info"];
    assert_eq!((&info["w"], &info["h"]), (&json!(3_840), &json!(2_160)));
    let about = &info["thumbnail_info"];
    assert_eq!(
        *about,
        json!({"mimetype": "image/jpeg", "size": 1_000, "w": 1_920, "h": 1_080})
    );
    assert!(info["thumbnail_url"].is_null(), "{info}");
    let small = json!({ "file": info["thumbnail_file"] });
    assert_eq!(scene.ann.read_file(&small).await.unwrap(), sent[..1_000]);
    assert!(
        pictures[1].content["info"]["thumbnail_info"].is_null(),
        "it is small itself"
    );
}

#[tokio::test]
async fn words_below_a_file_change_and_leave_the_file_as_it_is() {
    let scene = scene(&mattermost::SIMULATOR).await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let bob = scene.sites[0].say("before the picture").unwrap();
    let posts = sim.posts(&channel.id);
    let bob = &posts.iter().find(|post| post.id == bob).unwrap().user_id;
    let sent = bytes(3_001);
    let post = sim.say_file_with(&channel.id, bob, "my dog", "cat.png", &sent);
    wait(&scene, "the picture", || {
        in_room(&scene, "m.image").len() == 1
    })
    .await;
    let picture = in_room(&scene, "m.image").remove(0);
    let body = |content: &Value| content["body"].as_str().unwrap().to_owned();
    assert!(body(&picture.content).ends_with(": my dog"));
    sim.edit(&post.id, "my **cat**");
    // An edit that is still pending when the next one arrives is never sent.
    wait(&scene, "an edit", || in_room(&scene, "m.image").len() == 2).await;
    sim.edit(&post.id, "");
    wait(&scene, "two edits", || {
        in_room(&scene, "m.image").len() == 3
    })
    .await;
    let edits = in_room(&scene, "m.image");
    for (edit, ending) in edits[1..].iter().zip([": my cat", ": cat.png"]) {
        assert_eq!(
            edit.content["m.relates_to"]["event_id"],
            picture.event_id.as_str()
        );
        let new = &edit.content["m.new_content"];
        assert!(body(new).ends_with(ending), "{new}");
        assert_eq!(new["filename"], "cat.png");
        assert_eq!(scene.ann.read_file(new).await.unwrap(), sent);
    }
    scene.sites[0].delete(&post.id);
    let gone = || {
        let redactions = scene.room_observer.pick(&scene.rooms[0], |heard| {
            let is_one = heard.seen.event_type == "m.room.redaction";
            is_one.then(|| heard.seen.content["redacts"].clone())
        });
        redactions
            .iter()
            .any(|target| target == picture.event_id.as_str())
    };
    wait(&scene, "its deletion", gone).await;
}

#[tokio::test]
async fn a_line_names_files_that_cannot_be_sent() {
    let scene = scene(&gitter::SIMULATOR).await;
    let room = &scene.rooms[0];
    let cat = ("cat.png", "image/png");
    let file = scene.ann.send_file(room, cat, bytes(2_123), None);
    file.await.unwrap();
    let file = scene.ann.send_file(room, cat, bytes(2_123), Some("look"));
    file.await.unwrap();
    wait(&scene, "two lines", || {
        scene.sites[0].bridge_texts().len() == 2
    })
    .await;
    let lines = scene.sites[0].bridge_texts();
    assert!(lines[0].contains("sent an image: cat.png"), "{lines:?}");
    assert!(
        lines[1].contains("look") && lines[1].contains("📎 an image: cat.png"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_forged_or_too_large_file_is_named_and_the_next_message_is_delivered() {
    let scene = scene(&mattermost::SIMULATOR).await;
    let room = &scene.rooms[0];
    let file = scene
        .ann
        .send_file(room, ("true.bin", "a/b"), bytes(5_000), None);
    let id = file.await.unwrap();
    wait(&scene, "the true one", || carried(&scene).len() == 1).await;
    let own = scene.room_observer.pick(room, |heard| {
        (heard.seen.event_id == id).then(|| heard.seen.content.clone())
    });
    // The same file with another hash: the homeserver does not return what Ann encrypted.
    let mut forged = own[0].clone();
    forged["file"]["hashes"]["sha256"] = "ANdt819a8bZl4jKy3Z+jcqtiNICa2y0AW4BBJ/iQRAU".into();
    forged["body"] = "forged.bin".into();
    scene
        .ann
        .send(room, "m.room.message", forged)
        .await
        .unwrap();
    let mut gone = own[0].clone();
    gone["file"]["url"] = "mxc://localhost/nothinglikethis".into();
    gone["body"] = "gone.bin".into();
    scene.ann.send(room, "m.room.message", gone).await.unwrap();
    scene.ann.say(room, "goes on").await.unwrap();
    wait(&scene, "what follows", || carried(&scene).len() == 4).await;
    let carried = carried(&scene);
    for (line, name) in [(1, "forged.bin"), (2, "gone.bin")] {
        assert!(
            carried[line].0.contains(&format!("sent a file: {name}")),
            "{carried:?}"
        );
        assert!(carried[line].1.is_empty());
    }
    assert!(carried[3].0.ends_with("goes on"));
}

/// How many of the bridge's events in the room after the first `before` are not redacted.
async fn kept(scene: &MultiSiloScenario, before: usize) -> usize {
    let synapse = Synapse::shared().await.unwrap();
    let events = synapse.events(&scene.rooms[0]).await.unwrap();
    let redacted: Vec<&Value> = events
        .iter()
        .filter(|event| event.event_type == "m.room.redaction")
        .flat_map(|event| [&event.json["redacts"], &event.json["content"]["redacts"]])
        .collect();
    let ours = events.iter().filter(|event| {
        event.sender == scene.bridge_user
            && event.event_type == "m.room.encrypted"
            && !redacted.contains(&&Value::from(event.event_id.as_str()))
    });
    ours.count() - before
}

#[tokio::test]
async fn an_edit_adds_and_removes_files_and_after_a_deletion_nothing_is_left_of_any_of_its_events()
{
    let scene = scene(&mattermost::SIMULATOR).await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let first = scene.sites[0].say("before the files").unwrap();
    let posts = sim.posts(&channel.id);
    let bob = &posts.iter().find(|post| post.id == first).unwrap().user_id;
    wait(&scene, "the first message", || {
        in_room(&scene, "m.text").len() == 1
    })
    .await;
    let before = kept(&scene, 0).await;
    let names = || {
        let seen = in_room(&scene, "m.image").into_iter();
        let whole = seen.filter(|seen| seen.content.get("m.relates_to").is_none());
        whole
            .map(|seen| seen.content["filename"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let id = sim.say_file(&channel.id, bob, "cat.png", b"a cat").id;
    wait(&scene, "the picture", || names() == ["cat.png"]).await;
    sim.edit_files(&id, "two", &["cat.png"], Some(("dog.png", b"a dog")));
    wait(&scene, "the second picture", || {
        names() == ["cat.png", "dog.png"]
    })
    .await;
    sim.edit_files(&id, "one", &["dog.png"], None);
    let caption = |text: &str| {
        let mut seen = in_room(&scene, "m.image").into_iter();
        seen.any(|seen| {
            let body = seen.content["m.new_content"]["body"].as_str();
            body.is_some_and(|body| body.ends_with(text))
                && seen.content["m.new_content"]["filename"] == "dog.png"
        })
    };
    wait(&scene, "the words below the second", || caption("one")).await;
    let long = "word ".repeat(3_200);
    scene.sites[0].edit(&id, &long);
    let parts = || in_room(&scene, "m.text").len() >= 3;
    wait(&scene, "the words beside it", parts).await;
    scene.sites[0].delete(&id);
    scene.sites[0].say("after the deletion");
    let said = || {
        let seen = in_room(&scene, "m.text").into_iter();
        let mut texts = seen.filter_map(|seen| seen.content["body"].as_str().map(str::to_owned));
        texts.any(|text| text.ends_with("after the deletion"))
    };
    wait(&scene, "what follows", said).await;
    assert_eq!(kept(&scene, before).await, 1, "only the latest edit");
}

#[tokio::test]
async fn an_edit_with_another_file_keeps_the_replies_of_others() {
    let scene = scene(&mattermost::SIMULATOR).await;
    let MattermostChannel { sim, channel, .. } = scene.sites[0].of().unwrap();
    let room = &scene.rooms[0];
    let hello = scene.sites[0].say("before the files").unwrap();
    let posts = sim.posts(&channel.id);
    let bob = &posts.iter().find(|post| post.id == hello).unwrap().user_id;
    for is_kept in [false, true] {
        sim.keep_files(is_kept);
        let before = sim.posts(&channel.id).len();
        let mut sent = Vec::new();
        for words in ["first", "second"] {
            let name = format!("{words}.png");
            let image = (name.as_str(), "image/png");
            let file = scene.ann.send_file(room, image, bytes(2_000), Some(words));
            sent.push(file.await.unwrap());
        }
        let posts = || sim.posts(&channel.id).split_off(before);
        wait(&scene, "two files", || posts().len() == 2).await;
        let root = posts().remove(0).id;
        sim.say_in_thread(&channel.id, bob, &root, "an answer");
        let mut later = scene.room_observer.pick(room, |heard| {
            (heard.seen.event_id == sent[1]).then(|| heard.seen.content.clone())
        });
        let mut edit = later.remove(0);
        edit["m.new_content"] = edit.clone();
        edit["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": sent[0]});
        scene
            .ann
            .send(room, "m.room.message", edit.clone())
            .await
            .unwrap();
        let carried = || {
            let posts = posts().into_iter();
            let carried = posts.map(|post| {
                let files = sim.files_of(&post).into_iter().map(|(name, _)| name);
                let text = post.message.rsplit(": ").next().unwrap().to_owned();
                (text, files.collect::<Vec<_>>())
            });
            carried.collect::<Vec<_>>()
        };
        let is_replaced = || carried()[0].0 == "*(replaced by an edit)*";
        wait(&scene, "the edit", is_replaced).await;
        let second = || ("second".to_owned(), vec!["second.png".to_owned()]);
        let old: &[String] = if is_kept {
            &["first.png".to_owned()]
        } else {
            &[]
        };
        let left = [
            ("*(replaced by an edit)*".to_owned(), old.to_vec()),
            second(),
            ("an answer".to_owned(), Vec::new()),
            second(),
        ];
        assert!(carried() == left, "{:?}", carried());
        // A replaced file stays replaced: a later edit changes the text of the replacement, and sends no file again.
        let mut edit = edit.clone();
        edit["m.new_content"]["body"] = json!("third");
        scene.ann.send(room, "m.room.message", edit).await.unwrap();
        let third = || ("third".to_owned(), vec!["second.png".to_owned()]);
        wait(&scene, "the later edit", || carried()[3..] == [third()]).await;
        assert!(carried()[..3] == left[..3], "{:?}", carried());
        // Whatever the server kept of the files, nothing of a deleted message stays.
        scene.ann.redact(room, &sent[0]).await.unwrap();
        let left: &[_] = if is_kept { &[second()] } else { &left[..3] };
        wait(&scene, "the deletion", || carried() == left).await;
    }
}

/// A user on IRC sends this.
fn on_irc(
    scene: &MultiSiloScenario,
    text: &str,
    file: &serde_json::Value,
) -> matterbridge::Message {
    let sim = &scene.sites[0].of::<MatterbridgeChannel>().unwrap().sim;
    let mut message = matterbridge::Message::from_irc("gateway1", "bob", text);
    message.extra = json!({ "file": [file] });
    sim.say(message)
}

#[tokio::test]
async fn a_file_is_relayed_through_a_matterbridge_inside_its_messages() {
    let scene = scene(&matterbridge::SIMULATOR).await;
    let (room, sent) = (&scene.rooms[0], bytes(300_001));
    let file = scene.ann.send_file(
        room,
        ("../cat.png", "image/png"),
        sent.clone(),
        Some("look at *this*"),
    );
    file.await.unwrap();
    scene.ann.say(room, "after the file").await.unwrap();
    let sim = &scene.sites[0].of::<MatterbridgeChannel>().unwrap().sim;
    wait(&scene, "both messages", || sim.posted().len() == 2).await;
    let posted = sim.posted();
    let file = &posted[0].extra["file"][0];
    assert_eq!(
        (posted[0].text.as_str(), file["Comment"].as_str()),
        ("look at *this*", Some("look at *this*"))
    );
    assert_eq!(
        (&posted[0].username, &file["Name"]),
        (&"Ann".to_owned(), &"cat.png".into())
    );
    let content = BASE64.decode(file["Data"].as_str().unwrap()).unwrap();
    assert!(content == sent, "every byte is the same");

    // A file whose content comes with the message: everybody in the room may read it.
    let file = json!({"Name": "dog.png", "Data": BASE64.encode(&sent), "Comment": "", "URL": ""});
    on_irc(&scene, "and this", &file);
    wait(&scene, "the image", || {
        in_room(&scene, "m.image").len() == 1
    })
    .await;
    let content = in_room(&scene, "m.image").remove(0).content;
    assert_eq!(content["filename"], "dog.png");
    assert!(
        content["url"].is_null() && content["info"]["mimetype"] == "image/png",
        "{content}"
    );
    assert_eq!(scene.ann.read_file(&content).await.unwrap(), sent);
}

#[tokio::test]
async fn c16_a_file_is_fetched_from_hosts_that_the_operator_named_and_from_no_other() {
    let scene = scene(&matterbridge::SIMULATOR).await;
    let (here, elsewhere) = (
        scene.sites[0].file_server(),
        FileServer::start().await.unwrap(),
    );
    let sent = bytes(5_000);
    let link = |url: &str| json!({"Name": "cat.png", "Data": "", "Comment": "", "URL": url});
    let url = here.put("1/cat.png", "image/png", sent.clone());
    on_irc(&scene, "", &link(&url));
    wait(&scene, "the image", || {
        in_room(&scene, "m.image").len() == 1
    })
    .await;
    let content = in_room(&scene, "m.image").remove(0).content;
    assert_eq!(scene.ann.read_file(&content).await.unwrap(), sent);
    // From a host that is not listed: the room gets a link, which everybody may follow themselves.
    let url = elsewhere.put("cat.png", "image/png", sent);
    on_irc(&scene, "", &link(&url));
    // From a listed host, but the file is missing.
    let gone = format!("http://{}/gone.png", here.host());
    on_irc(&scene, "", &link(&gone));
    scene.sites[0].say("after the files");
    let said = |text: &str| {
        let found = scene.room_observer.pick(&scene.rooms[0], |heard| {
            heard.text().filter(|said| said.contains(text)).map(|_| ())
        });
        !found.is_empty()
    };
    wait(&scene, "what follows", || said("after the files")).await;
    assert!(said(&url) && said("sent an image: cat.png"));
    assert_eq!(
        (elsewhere.fetched("cat.png"), here.fetched("1/cat.png")),
        (0, 1)
    );
}
