//! Every kind of message, both ways, on every silo: real events of an encrypted room on Synapse, real calls on the
//! silo. What people see on the other side is compared with a text file, one for each kind of silo.
//! `FOOTBRIDGE_GOLDEN=rewrite` writes the files anew.

use std::{collections::HashMap, fmt::Write as _, fs, path::Path, path::PathBuf, time::Duration};

use footbridge_simulators::{
    channel::{SimulatorKind, UserAction},
    gitter,
    matterbridge::{self, MatterbridgeChannel},
    mattermost,
};
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    scenario::ObservedEvent,
    synapse::Synapse,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long the bridge may take to notice an event.
const NOTICED: Duration = Duration::from_secs(8);

/// An event of Ann's: the name by which later events refer to it, its type, and its content; `{x}` is the event named
/// x.
type Event = (&'static str, &'static str, Value);

fn said(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

fn html(body: &str, html: &str) -> Value {
    json!({"msgtype": "m.text", "body": body, "format": "org.matrix.custom.html", "formatted_body": html})
}

#[expect(clippy::too_many_lines, reason = "it is the table itself")]
fn words() -> Vec<(&'static str, Vec<Event>)> {
    let message = "m.room.message";
    vec![
        (
            "Text",
            vec![("a", message, said("good morning *all* [x](y) <b> #12"))],
        ),
        (
            "Formatting",
            vec![(
                "",
                message,
                html(
                    "-",
                    "<h2>Plan</h2><p>a <strong>b</strong> <em>c</em> <code>d</code> <del>e</del></p>\
                 <pre><code class=\"language-rust\">fn x() {}\n</code></pre><blockquote><p>quoted</p></blockquote>\
                 <ol><li>one</li><li>two</li></ol><p><a href=\"https://example.org/a\">there</a></p>",
                ),
            )],
        ),
        (
            "Tables, maths, spoilers, emoji",
            vec![(
                "",
                message,
                html(
                    "-",
                    "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody>\
                 </table><p><span data-mx-maths=\"x^2\">x²</span> <span data-mx-spoiler>secret</span> 🎉 :tada:</p>",
                ),
            )],
        ),
        (
            "/me",
            vec![("", message, json!({"msgtype": "m.emote", "body": "waves"}))],
        ),
        (
            "Notice",
            vec![(
                "",
                message,
                json!({"msgtype": "m.notice", "body": "build 7 is green"}),
            )],
        ),
        (
            "Edit",
            vec![
                ("e", message, said("good mroning")),
                (
                    "",
                    message,
                    json!({"msgtype": "m.text", "body": "* good morning",
                    "m.new_content": said("good morning"),
                    "m.relates_to": {"rel_type": "m.replace", "event_id": "{e}"}}),
                ),
            ],
        ),
        (
            "Deletion",
            vec![
                ("d", message, said("to be deleted")),
                ("", "m.room.redaction", json!({"redacts": "{d}"})),
            ],
        ),
        (
            "Reply",
            vec![(
                "",
                message,
                json!({"msgtype": "m.text", "body": "an answer",
                "m.relates_to": {"m.in_reply_to": {"event_id": "{a}"}}}),
            )],
        ),
        (
            "Thread",
            vec![(
                "",
                message,
                json!({"msgtype": "m.text", "body": "in the thread",
                "m.relates_to": {"rel_type": "m.thread", "event_id": "{a}", "is_falling_back": true,
                    "m.in_reply_to": {"event_id": "{a}"}}}),
            )],
        ),
        (
            "Reaction",
            vec![(
                "r",
                "m.reaction",
                json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "{a}", "key": "🎉"}}),
            )],
        ),
        (
            "Reaction taken back",
            vec![("", "m.room.redaction", json!({"redacts": "{r}"}))],
        ),
        (
            "Mention",
            vec![(
                "",
                message,
                html(
                    "Carl: @all @here",
                    "<a href=\"https://matrix.to/#/@carl:example.org\">Carl</a>: @all @here",
                ),
            )],
        ),
        (
            "Sticker",
            vec![(
                "",
                "m.sticker",
                json!({"body": "a waving cat", "url": "mxc://example.org/gone",
                "info": {"mimetype": "image/png", "size": 2048}}),
            )],
        ),
        (
            "Location",
            vec![(
                "",
                message,
                json!({"msgtype": "m.location", "body": "The bridge",
                "geo_uri": "geo:51.5055,-0.0754"}),
            )],
        ),
        (
            "Poll",
            vec![(
                "",
                "org.matrix.msc3381.poll.start",
                json!({"org.matrix.msc3381.poll.start": {
                "question": {"org.matrix.msc1767.text": "Tea or coffee?"}, "kind": "org.matrix.msc3381.poll.disclosed",
                "max_selections": 1, "answers": [
                    {"id": "1", "org.matrix.msc1767.text": "Tea"}, {"id": "2", "org.matrix.msc1767.text": "Coffee"}]}}),
            )],
        ),
        (
            "Poll closed",
            vec![(
                "",
                "org.matrix.msc3381.poll.end",
                json!({"org.matrix.msc3381.poll.end": {},
                    "org.matrix.msc1767.text": "The poll has ended. Top answer: Tea",
                    "m.relates_to": {"rel_type": "m.reference", "event_id": "{a}"}}),
            )],
        ),
        (
            "Call",
            vec![(
                "",
                "m.call.invite",
                json!({"call_id": "c", "party_id": "p", "version": "1", "lifetime": 60000,
                "offer": {"type": "offer", "sdp": ""}}),
            )],
        ),
    ]
}

/// Messages as people really write them, and messages that once came out wrong: the name by which later events refer to
/// each, and its content.
fn as_people_write() -> Vec<(&'static str, Value)> {
    let gone = "mxc://example.org/gone";
    let replaces = |event: &str| json!({"rel_type": "m.replace", "event_id": event});
    vec![
        ("", said(r"C:\Users\me \\server\share \d+ \* \")),
        (
            "",
            said(
                "https://x.example/a:smile:b a:x:b 12:100:30 :thinking_face: :thinking: :satellite: :shipit:",
            ),
        ),
        (
            "",
            json!({"msgtype": "nic.custom.confetti", "body": "congratulations"}),
        ),
        (
            "",
            json!({"msgtype": "io.element.effect.snowfall", "body": "let it snow",
            "format": "org.matrix.custom.html", "formatted_body": "let it <strong>snow</strong>"}),
        ),
        (
            "",
            json!({"msgtype": "dm.filament.gallery", "body": "two of them", "itemtypes": [
                {"itemtype": "m.image", "body": "image", "url": gone, "info": {"mimetype": "image/png"}},
                {"itemtype": "m.file", "body": "notes", "url": "mxc://example.org/gone-too", "info": {"mimetype": "text/plain"}}]}),
        ),
        (
            "",
            html(
                "-",
                "look <img data-mx-emoticon src=\"mxc://example.org/e\" alt=\":party:\"> <img src=\"https://x.example/a.png\" alt=\"a cat\">",
            ),
        ),
        ("me", json!({"msgtype": "m.emote", "body": "wavs"})),
        (
            "",
            json!({"msgtype": "m.emote", "body": "* waves",
            "m.new_content": {"msgtype": "m.emote", "body": "waves"}, "m.relates_to": replaces("{me}")}),
        ),
        ("words", said("see below")),
        (
            "",
            json!({"msgtype": "m.image", "body": "* see here", "url": gone,
            "m.new_content": {"msgtype": "m.image", "body": "see here", "filename": "image", "url": gone,
                "info": {"mimetype": "image/png"}},
            "m.relates_to": replaces("{words}")}),
        ),
    ]
}

/// A scenario, the posts at the last comparison, and the names of events.
struct Table {
    scene: MultiSiloScenario,
    stood: Vec<(String, String)>,
    heard: usize,
    names: HashMap<String, String>,
    out: String,
}

impl Table {
    async fn accepted(&self) -> u64 {
        self.scene.bridge.conservation().await.unwrap().accepted
    }

    /// Waits until the bridge has accepted an event, and has delivered what follows.
    async fn done(&self, before: u64) {
        let deadline = Instant::now() + NOTICED;
        while self.accepted().await == before && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
        }
        self.scene
            .bridge
            .settle(Duration::from_secs(30))
            .await
            .unwrap();
        sleep(Duration::from_millis(300)).await;
    }

    async fn ann_does(&mut self, (name, kind, content): Event) {
        let before = self.accepted().await;
        let mut text = content.to_string();
        for (known, id) in &self.names {
            text = text.replace(&format!("{{{known}}}"), id);
        }
        let content: Value = serde_json::from_str(&text).unwrap();
        let (ann, room) = (&self.scene.ann, &self.scene.rooms[0]);
        let sent = match kind {
            "m.room.redaction" => ann.redact(room, content["redacts"].as_str().unwrap()).await,
            _ => ann.send(room, kind, content).await,
        };
        if !name.is_empty() {
            self.names.insert(name.to_owned(), sent.unwrap());
        }
        self.done(before).await;
    }

    async fn ann_sends(&mut self, name: (&str, &str), bytes: &[u8], words: Option<&str>) {
        let before = self.accepted().await;
        let room = &self.scene.rooms[0];
        let sent = self.scene.ann.send_file(room, name, bytes.to_vec(), words);
        sent.await.unwrap();
        self.done(before).await;
    }

    /// Messages in the room as people really write them, and messages that once came out wrong. One comparison for all
    /// of them.
    async fn ann_writes_as_people_do(&mut self) {
        for (name, content) in as_people_write() {
            self.ann_does((name, "m.room.message", content)).await;
        }
        for name in [
            ("Voice message", "audio/ogg"),
            ("👍 (thumbs up sign)", "image/webp"),
        ] {
            self.ann_sends(name, b"no real file", None).await;
        }
        self.in_the_channel("As people write");
    }

    /// Actions in the channel as people really perform them, and actions that once came out wrong. One comparison for
    /// all of them.
    async fn bob_acts_as_people_do(&mut self) {
        for text in [
            r"C:\Users\me \\server\share \d+ \* \\",
            "https://x.example/a:smile:b a:x:b 12:100:30 :thinking_face: :thinking: :satellite: :shipit:",
            "![a cat](https://x.example/cat.gif) ![](https://x.example/dog.gif) [![build](https://x.example/b.svg)](https://x.example/)",
            "![here](/files/cat.gif)",
        ] {
            self.bob_does(UserAction::Say(text)).await;
        }
        for attachment in [
            r#"{"image_url": "https://x.example/chart.png"}"#,
            r#"{"author_name": "CI", "footer": "build 7"}"#,
            r#"{"text": "![a](https://x.example/a.png) done", "thumb_url": "https://x.example/t.png"}"#,
        ] {
            self.bob_does(UserAction::Attach(attachment)).await;
        }
        if let Some(me) = self.bob_does(UserAction::Emote("wavs")).await {
            self.bob_does(UserAction::Edit(&me, "waves")).await;
        }
        self.bob_does(UserAction::File("Voice message", "")).await;
        if let Some(words) = self.bob_does(UserAction::Say("see below")).await {
            self.bob_does(UserAction::AddFile(&words, "see here", "cat.png"))
                .await;
        }
    }

    /// Writes what has changed in the channel.
    fn in_the_channel(&mut self, title: &str) {
        writeln!(self.out, "\n## {title}: what the channel shows").unwrap();
        let now = self.scene.sites[0].shown();
        let mut changes = 0;
        for (id, line) in &now {
            let sign = match self.stood.iter().find(|(known, _)| known == id) {
                None => '+',
                Some((_, old)) if old != line => '~',
                Some(_) => continue,
            };
            changes += 1;
            writeln!(self.out, "{sign} {line}").unwrap();
        }
        for (_, line) in self
            .stood
            .iter()
            .filter(|(id, _)| !now.iter().any(|(known, _)| known == id))
        {
            changes += 1;
            writeln!(self.out, "- {line}").unwrap();
        }
        if changes == 0 {
            writeln!(self.out, "nothing").unwrap();
        }
        self.stood = now;
    }

    /// Writes what the bridge has done in the room since the last comparison.
    async fn in_the_room(&mut self, title: &str) {
        // The silo's response to the bridge may arrive before Ann's sync.
        sleep(Duration::from_millis(700)).await;
        writeln!(self.out, "\n## {title}: what the room shows").unwrap();
        let user = self.scene.bridge_user.clone();
        let all = self
            .scene
            .room_observer
            .pick(&self.scene.rooms[0], |heard| {
                let said = heard.seen.sender == user && !heard.seen.undecryptable;
                let counts = matches!(
                    heard.seen.event_type.as_str(),
                    "m.room.message" | "m.reaction" | "m.room.redaction"
                );
                (said && counts).then(|| heard.clone())
            });
        let news = all.get(self.heard..).unwrap_or_default();
        if news.is_empty() {
            writeln!(self.out, "nothing").unwrap();
        }
        for heard in news {
            let number = format!("#{}", self.names.len());
            self.names
                .insert(number.clone(), heard.seen.event_id.clone());
            let line = self.told(heard);
            writeln!(self.out, "{number} {line}").unwrap();
        }
        self.heard = all.len();
        self.stood = self.scene.sites[0].shown();
    }

    fn called(&self, id: &Value) -> String {
        let id = id.as_str().unwrap_or_default();
        let known = self.names.iter().find(|(_, known)| *known == id);
        known.map_or_else(|| "?".to_owned(), |(name, _)| name.clone())
    }

    fn told(&self, heard: &ObservedEvent) -> String {
        let content = &heard.seen.content;
        let relation = &content["m.relates_to"];
        match heard.seen.event_type.as_str() {
            "m.room.redaction" => return format!("redacts {}", self.called(&content["redacts"])),
            "m.reaction" => {
                let (key, about) = (&relation["key"], self.called(&relation["event_id"]));
                return format!("reacts to {about} with {key}");
            }
            _ => {}
        }
        assert!(heard.seen.encrypted, "{content}");
        let mut line = String::new();
        let shown = match relation["rel_type"].as_str() {
            Some("m.replace") => {
                write!(line, "edits {}: ", self.called(&relation["event_id"])).unwrap();
                &content["m.new_content"]
            }
            Some("m.thread") => {
                write!(
                    line,
                    "in the thread of {}: ",
                    self.called(&relation["event_id"])
                )
                .unwrap();
                content
            }
            _ => content,
        };
        write!(line, "{} {}", shown["msgtype"], shown["body"]).unwrap();
        let answered = &relation["m.in_reply_to"]["event_id"];
        if answered.is_string() && relation["is_falling_back"] != json!(true) {
            write!(line, "\n   answers {}", self.called(answered)).unwrap();
        }
        if let Some(html) = shown["formatted_body"].as_str() {
            write!(line, "\n   html {html:?}").unwrap();
        }
        let profile = &shown["com.beeper.per_message_profile"];
        if profile.is_object() {
            write!(line, "\n   as {}", profile["displayname"]).unwrap();
        }
        if let Some(name) = shown["filename"].as_str() {
            let sealed = if shown["file"].is_object() {
                "encrypted"
            } else {
                "IN THE CLEAR"
            };
            write!(line, "\n   file {name:?} {} {sealed}", shown["info"]).unwrap();
        }
        write!(line, "\n   calls {}", shown["m.mentions"]).unwrap();
        line
    }

    async fn bob_does(&mut self, act: UserAction<'_>) -> Option<String> {
        let before = self.accepted().await;
        let id = self.scene.sites[0].act(act)?;
        self.done(before).await;
        Some(id)
    }

    /// What only Matterbridge does to a message, both ways.
    async fn through_a_matterbridge(&mut self) {
        for (title, body) in [
            (
                "Text that looks like markup",
                "*stars* _lines_ `code` ~~no~~ [x](https://example.org) # <b>b</b>\n# not a heading\n> no quote",
            ),
            (
                "Names of emoji",
                ":tada: 10:100:30 10:30:45 std::fs::read https://x.example/a:b/c:x:d",
            ),
            (
                "Calls of every network",
                "@bob @**Ann B** <@U1> <!here> <@&5> *all [id1|Ann] [x](tg://user?id=1) https://x.example/@bob bob@example.org #general",
            ),
        ] {
            self.ann_does(("", "m.room.message", said(body))).await;
            self.in_the_channel(title);
        }
        let from = |text: &str| matterbridge::Message::from_irc("gateway1", "bob", text);
        let file = |name: &str, words: &str, size: u64| {
            json!([{"Name": name, "Data": null, "Comment": words, "URL": "", "Size": size, "Avatar": false, "SHA": "",
                "NativeID": ""}])
        };
        let large = matterbridge::Message {
            extra: json!({"file_failure_size": file("film.mp4", "our film", 1_500_000)}),
            ..from("our film").event("file_failure_size")
        };
        let twin = from("one");
        let moment = self
            .hears(
                "Text that looks like markup",
                from("*stars* `code` <b> # @room"),
            )
            .await;
        let twins = ["two", "six"].map(|text| matterbridge::Message {
            timestamp: moment.clone(),
            text: text.to_owned(),
            ..twin.clone()
        });
        for twin in twins {
            self.hears("Another one of the same moment", twin).await;
        }
        self.hears("A file above MediaDownloadSize", large).await;
        self.hears(
            "Calls of every network",
            from("@ann <@U1> <!here> @**all** https://matrix.to/#/@ann:example.org"),
        )
        .await;
    }

    /// A user behind Matterbridge sends this. Returns the time.
    async fn hears(&mut self, title: &str, message: matterbridge::Message) -> String {
        let before = self.accepted().await;
        let sim = &self.scene.sites[0].of::<MatterbridgeChannel>().unwrap().sim;
        let moment = sim.say(message).timestamp;
        self.done(before).await;
        self.in_the_room(title).await;
        moment
    }

    async fn bob_acts(&mut self, title: &str, act: UserAction<'_>) -> Option<String> {
        let done = self.bob_does(act).await;
        if done.is_none() {
            writeln!(
                self.out,
                "\n## {title}: unknown to the network, or not told"
            )
            .unwrap();
            return None;
        }
        self.in_the_room(title).await;
        done
    }
}

/// The output with its random parts replaced.
fn steady(table: &Table) -> String {
    let mut out = table.out.clone();
    for (id, _) in &table.stood {
        out = out.replace(id, "<id>");
    }
    for id in table.names.values() {
        out = out.replace(id, "<event>");
    }
    // The only dates are those of deletions, in UTC.
    let dated = out.split(" UTC").map(|before| {
        let moment = before.len().saturating_sub("2026-01-01 00:00".len());
        match before.split_at_checked(moment) {
            Some((before, moment)) if moment.matches('-').count() == 2 => {
                format!("{before}<moment>")
            }
            _ => before.to_owned(),
        }
    });
    let out = dated.collect::<Vec<_>>().join(" UTC");
    let mut masked = String::new();
    for piece in out.split_inclusive(|c: char| c.is_whitespace() || c == '(' || c == ')') {
        match piece.split_once("://127.0.0.1:") {
            Some((scheme, rest)) => {
                let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                write!(masked, "{scheme}://host{rest}").unwrap();
            }
            None => masked.push_str(piece),
        }
    }
    masked
}

async fn holds(name: &str, kind: &'static SimulatorKind) {
    let plan = MultiSiloOptions {
        portal_options: "reactions = \"always\"\nnotices = true\nsystem_messages = true".to_owned(),
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    let scene = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap();
    let mut table = Table {
        scene,
        stood: Vec::new(),
        heard: 0,
        names: HashMap::new(),
        out: format!("# {name}: every kind of message, from an encrypted room and to it\n"),
    };
    for (title, events) in words() {
        for event in events {
            table.ann_does(event).await;
        }
        table.in_the_channel(title);
    }
    table
        .ann_sends(("notes.txt", "text/plain"), b"a few words", None)
        .await;
    table.in_the_channel("File");
    table
        .ann_sends(("cat.png", "image/png"), b"no real picture", Some("my cat"))
        .await;
    table.in_the_channel("Picture with a caption");
    table.ann_writes_as_people_do().await;

    let first = table
        .bob_acts(
            "Text",
            UserAction::Say("good **morning** `x` @ann @room <b>"),
        )
        .await
        .unwrap();
    let formatted = "## Plan\n\n> quoted\n\n1. one\n2. two\n\n```rust\nfn x() {}\n```\n\n[there](https://example.org/a) :tada:";
    table
        .bob_acts("Formatting", UserAction::Say(formatted))
        .await;
    table.bob_acts("/me", UserAction::Emote("waves")).await;
    table
        .bob_acts("Notice", UserAction::Notice("build 7 is green"))
        .await;
    table
        .bob_acts("Reply", UserAction::Reply(&first, "an answer"))
        .await;
    table
        .bob_acts("Thread", UserAction::Thread(&first, "in the thread"))
        .await;
    table
        .bob_acts("Reaction", UserAction::React(&first, "tada"))
        .await;
    table
        .bob_acts("Reaction taken back", UserAction::Unreact(&first, "tada"))
        .await;
    table
        .bob_acts("Edit", UserAction::Edit(&first, "good morning"))
        .await;
    table.bob_acts("Deletion", UserAction::Delete(&first)).await;
    table
        .bob_acts("Picture with words", UserAction::File("cat.png", "my cat"))
        .await;
    table.bob_acts("Somebody joins", UserAction::Join).await;
    table.bob_acts_as_people_do().await;
    table.in_the_room("As people write").await;
    if table.scene.sites[0].of::<MatterbridgeChannel>().is_some() {
        table.through_a_matterbridge().await;
    }

    let seen = steady(&table);
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bridge/golden/table-{name}.txt"));
    if std::env::var("FOOTBRIDGE_GOLDEN").is_ok_and(|wish| wish == "rewrite") {
        fs::write(&golden, &seen).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    compare(&expected, &seen);
}

fn compare(expected: &str, seen: &str) {
    let pairs = expected.lines().zip(seen.lines());
    let first = pairs.clone().find(|(expected, seen)| expected != seen);
    assert!(expected == seen, "the first difference: {first:?}\n{seen}");
}

#[tokio::test]
async fn every_kind_of_message_is_relayed_between_a_room_and_gitter() {
    holds("gitter", &gitter::SIMULATOR).await;
}

#[tokio::test]
async fn every_kind_of_message_is_relayed_between_a_room_and_a_matterbridge() {
    holds("matterbridge", &matterbridge::SIMULATOR).await;
}

#[tokio::test]
async fn every_kind_of_message_is_relayed_between_a_room_and_mattermost() {
    holds("mattermost", &mattermost::SIMULATOR).await;
}
