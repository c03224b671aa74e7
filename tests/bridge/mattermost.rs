//! Mattermost's own behaviour, against the simulator.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use footbridge_core::{
    capabilities::Attribution,
    clock::Clock,
    message::{Action, Message, Style},
    outlet::{SendError, Step},
    secret::Secret,
    text::Body,
};
use footbridge_silo::{
    FeedState, Silo, SiloError,
    mattermost::{Mattermost, MattermostConfig},
};
use footbridge_simulators::{
    channel::{SimulatedChannel, UserAction},
    mattermost::{Cut, Fault, MattermostChannel, Options, Post, channel::POST},
};
use footbridge_store::{RemoteId, Side};
use serde_json::json;

use crate::silo_contract::{Network, TestBridge, post, text, through};

/// A simulated Mattermost, and what the tests vary of its section.
pub struct Fixture {
    at: MattermostChannel,
    names: Attribution,
    ping: Duration,
    audit: Duration,
    /// The address at which the silo reaches it, if not the simulator's own.
    proxy_address: Option<SocketAddr>,
}

impl Deref for Fixture {
    type Target = MattermostChannel;

    fn deref(&self) -> &MattermostChannel {
        &self.at
    }
}

impl Fixture {
    pub async fn with(options: Options) -> Self {
        Self {
            at: MattermostChannel::open(options).await.unwrap(),
            names: Attribution::Inline,
            ping: Duration::from_secs(30),
            audit: Duration::from_mins(5),
            proxy_address: None,
        }
    }

    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// All texts of the channel, in the order in which they were accepted.
    fn texts(&self) -> Vec<String> {
        self.posts().into_iter().map(|post| post.message).collect()
    }

    fn posts(&self) -> Vec<Post> {
        self.sim.posts(&self.channel.id)
    }
}

impl Network for Fixture {
    fn silo(&self) -> Arc<dyn Silo> {
        let config = MattermostConfig {
            name: "mm".to_owned(),
            token: Secret::new(self.bot.token.clone()),
            url: through(&self.sim.url(), self.proxy_address)
                .parse()
                .unwrap(),
            names: self.names,
            icon: None,
            ping: self.ping,
            audit: self.audit,
        };
        let http = footbridge_core::http_client::client().unwrap();
        Arc::new(Mattermost::new(config, http).unwrap())
    }
    fn channel(&self) -> &dyn SimulatedChannel {
        &self.at
    }
    fn pass_through(&mut self, proxy_address: SocketAddr) {
        self.proxy_address = Some(proxy_address);
    }
}

/// A day from now, by the simulator's clock.
fn tomorrow() -> i64 {
    Clock::start().now().plus(Duration::from_hours(24)).0
}

#[tokio::test]
async fn a_look_up_enters_no_channel() {
    let fixture = Fixture::new().await;
    fixture.sim.add_channel(&fixture.team, "other", "O", &[]);
    let silo = fixture.silo();
    assert_eq!(silo.look_up("team/other").await.unwrap().name, "team/other");
    let changes = || {
        let calls = fixture.sim.calls();
        calls
            .keys()
            .filter(|route| !route.starts_with("GET"))
            .count()
    };
    assert_eq!(changes(), 0);
    silo.resolve("team/other").await.unwrap();
    assert_eq!(changes(), 1);
}

#[tokio::test]
async fn b13_a_post_from_the_future_hides_no_gap() {
    let fixture = Fixture::new().await;
    let mut bridge = TestBridge::start(&fixture).await;
    let id = fixture.say("from tomorrow");
    assert_eq!(bridge.received_texts(1).await, ["from tomorrow"]);
    fixture.sim.date(&id, tomorrow());
    // The next catch-up finds it.
    bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge = bridge.rebuild(&fixture).await;
    fixture.say("during an absence");
    bridge.listen().await;
    assert_eq!(bridge.received_texts(1).await, ["during an absence"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn b13_a_channel_is_linked_behind_a_post_from_the_future() {
    let fixture = Fixture::new().await;
    let id = fixture.say("history from tomorrow");
    fixture.sim.date(&id, tomorrow());
    let mut bridge = TestBridge::start(&fixture).await;
    fixture.say("news");
    assert_eq!(bridge.received_texts(1).await, ["news"]);
    bridge = bridge.rebuild(&fixture).await;
    fixture.say("during an absence");
    bridge.listen().await;
    assert_eq!(bridge.received_texts(1).await, ["during an absence"]);
    bridge.receives_nothing_more().await;
}

fn edit(target: &str, words: &str) -> Action {
    Action::Edit {
        target: RemoteId::from(target),
        body: Body::plain(words),
        style: Style::Text,
    }
}

fn delete(target: &str) -> Action {
    Action::Delete {
        target: RemoteId::from(target),
    }
}

#[tokio::test]
async fn a_key_that_the_server_has_forgotten_is_looked_for() {
    let fixture = Fixture::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.lose_response();
    bridge.room_message("$1", "once").await;
    bridge.room_message("$2", "next").await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["**Ann**: once", "**Ann**: next"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_kill_during_a_send_doubles_no_message() {
    let fixture = Fixture::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "on its way").await;
    // The server creates the post, and the bridge crashes before the response.
    fixture
        .sim
        .faults()
        .next(POST, Fault::SlowAnswer { ms: 60_000 }, 1);
    let died = tokio::time::timeout(Duration::from_secs(2), bridge.deliver()).await;
    assert!(died.is_err());
    assert_eq!(fixture.texts().len(), 1);
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["**Ann**: on its way"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_post_behind_too_many_others_to_be_found_is_not_repeated() {
    let fixture = Fixture::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "on its way").await;
    fixture
        .sim
        .faults()
        .next(POST, Fault::SlowAnswer { ms: 60_000 }, 1);
    let died = tokio::time::timeout(Duration::from_secs(2), bridge.deliver()).await;
    assert!(died.is_err());
    for number in 0..10_050 {
        fixture.say(&number.to_string());
    }
    let bridge = bridge.rebuild(&fixture).await;
    bridge.deliver().await;
    let counters = bridge.lane_counters(Side::Silo).await;
    assert_eq!((counters.failed, counters.pending), (1, 0));
    let texts = fixture.texts();
    let copies = texts.iter().filter(|text| text.ends_with("on its way"));
    assert_eq!(copies.count(), 1);
}

#[tokio::test]
async fn c20_a_key_in_a_foreign_post_does_not_make_it_the_bridges_own() {
    let fixture = Fixture::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "on its way").await;
    fixture
        .sim
        .faults()
        .next(POST, Fault::SlowAnswer { ms: 60_000 }, 1);
    let died = tokio::time::timeout(Duration::from_secs(2), bridge.deliver()).await;
    assert!(died.is_err());
    let ours = fixture.posts().remove(0);
    let props = json!(ours.props);
    fixture
        .sim
        .say_with(&fixture.channel.id, &fixture.bob.id, "mine", &props);
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.deliver().await;
    bridge.room_event("$2", edit("$1", "arrived")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["**Ann**: arrived", "mine"]);
}

#[tokio::test]
async fn what_the_websocket_leaves_out_shows_in_its_numbers() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.say("one");
    assert_eq!(bridge.received_texts(1).await, ["one"]);
    fixture.sim.faults().skip_events(2);
    let edited = fixture.say("two");
    fixture.say("three");
    fixture.sim.edit(&edited, "two, corrected");
    assert_eq!(bridge.received_texts(2).await, ["two, corrected", "three"]);
    fixture.sim.faults().garbage(1);
    fixture.say("four");
    assert_eq!(bridge.received_texts(1).await, ["four"]);
    bridge.receives_nothing_more().await;
}

/// "Restore this version" in a post's edit history is an edit to the earlier text.
#[tokio::test]
async fn a_version_of_a_post_that_its_author_restores_is_an_edit() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let id = fixture.say("one");
    assert_eq!(bridge.received_texts(1).await, ["one"]);
    for text in ["two", "one", "two", "one"] {
        fixture.sim.edit(&id, text);
        assert_eq!(bridge.received_texts(1).await, [text]);
    }
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn events_lost_at_the_end_of_the_sequence_are_found_by_reading() {
    let mut fixture = Fixture::new().await;
    fixture.audit = Duration::from_millis(300);
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().lose_events(3);
    let id = fixture.say("never told of");
    fixture.sim.edit(&id, "edited");
    assert_eq!(bridge.received_texts(1).await.len(), 1);
    fixture.sim.faults().clear();
    fixture.sim.faults().lose_events(1);
    fixture.sim.delete(&id);
    bridge.received(1).await;
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_silent_connection_is_left() {
    let mut fixture = Fixture::new().await;
    fixture.ping = Duration::from_millis(200);
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.cut(Cut::Freeze);
    fixture.say("into silence");
    assert_eq!(bridge.received_texts(1).await, ["into silence"]);
    bridge.until_live().await;
}

#[tokio::test]
async fn more_changes_than_one_answer_holds_are_read_page_by_page() {
    let fixture = Fixture::with(Options {
        since_cap: 1_000,
        ..Options::default()
    })
    .await;
    let mut bridge = TestBridge::start(&fixture).await;
    let kept = fixture.say("before");
    assert_eq!(bridge.received_texts(1).await, ["before"]);
    bridge = bridge.rebuild(&fixture).await;
    let texts: Vec<String> = (0..1_300)
        .map(|number| format!("message {number}"))
        .collect();
    for text in &texts {
        fixture.say(text);
    }
    fixture.sim.edit(&kept, "before, corrected");
    bridge.listen().await;
    let mut received = bridge.received_texts(texts.len() + 1).await;
    received.retain(|text| text != "before, corrected");
    assert_eq!(received, texts);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn edits_and_deletions_during_a_downtime_are_found() {
    let fixture = Fixture::new().await;
    let mut bridge = TestBridge::start(&fixture).await;
    let (kept, gone) = (fixture.say("kept"), fixture.say("gone"));
    fixture.act(UserAction::Thread(&gone, "below"));
    assert_eq!(bridge.received_texts(3).await, ["kept", "gone", "below"]);
    bridge = bridge.rebuild(&fixture).await;
    fixture.sim.edit(&kept, "kept, corrected");
    fixture.sim.delete(&gone);
    fixture.sim.react(&fixture.bob.id, &kept, "tada");
    bridge.listen().await;
    let received = bridge.received(4).await;
    let reacted = |message: &&Message| matches!(message.action, Action::React { .. });
    assert_eq!(received.iter().filter(reacted).count(), 1);
    let edits = received
        .iter()
        .filter(|message| text(message) == "kept, corrected");
    assert_eq!(edits.count(), 1);
    let deleted: Vec<_> = received
        .iter()
        .filter(|message| matches!(message.action, Action::Delete { .. }))
        .collect();
    assert_eq!(
        deleted.len(),
        2,
        "the thread was deleted with its first message"
    );
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_thread_that_is_deleted_with_its_first_message_is_deleted_in_the_room_too() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let root = fixture.say("root");
    fixture.act(UserAction::Thread(&root, "below"));
    bridge.received(2).await;
    fixture.sim.delete(&root);
    let gone = bridge.received(2).await;
    assert!(
        gone.iter()
            .all(|message| matches!(message.action, Action::Delete { .. }))
    );
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn our_own_edits_and_deletions_are_no_news() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.room_message("$2", "two").await;
    bridge.deliver().await;
    bridge.room_event("$3", edit("$1", "one, corrected")).await;
    bridge.room_event("$4", delete("$2")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["**Ann**: one, corrected"]);
    fixture.say("from somebody else");
    assert_eq!(bridge.received_texts(1).await, ["from somebody else"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_deletion_of_the_bridges_message_by_a_user_is_relayed() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    fixture.sim.make_admin(&fixture.channel.id, &fixture.bob.id);
    let id = fixture.posts()[0].id.clone();
    fixture.sim.delete(&id);
    let gone = bridge.received(1).await.remove(0);
    assert!(matches!(gone.action, Action::Delete { .. }));
}

#[tokio::test]
async fn a_reply_goes_into_the_thread_and_a_deleted_thread_loses_no_message() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.say("root");
    bridge.received(1).await;
    bridge.room_message("$1", "first").await;
    bridge.deliver().await;
    let first = fixture.posts()[1].id.clone();
    let answer = Action::Post {
        body: Body::plain("an answer"),
        style: Style::Text,
        reply_to: Some(RemoteId::from("$1")),
        thread: None,
    };
    bridge.room_event("$2", answer.clone()).await;
    bridge.deliver().await;
    assert_eq!(fixture.posts()[2].root_id, first);
    fixture.sim.make_admin(&fixture.channel.id, &fixture.bob.id);
    fixture.sim.faults().lose_events(1);
    fixture.sim.delete(&first);
    bridge.room_event("$3", answer).await;
    bridge.deliver().await;
    let left: Vec<String> = fixture.texts();
    assert_eq!(left, ["root", "**Ann**: an answer"]);
}

#[tokio::test]
async fn a_long_message_is_cut_at_the_servers_limit() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge
        .room_message("$1", &"many words ".repeat(3_100))
        .await;
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 3);
    assert!(
        texts
            .iter()
            .all(|text| text.chars().count() <= 16_383 && text.contains("Ann"))
    );
    bridge.room_event("$2", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty());
}

#[tokio::test]
async fn names_override_the_username_where_the_server_permits_it() {
    let mut fixture = Fixture::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    fixture.names = Attribution::Override;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "hi").await;
    bridge.deliver().await;
    bridge.room_event("$2", edit("$1", "hi, all")).await;
    bridge.deliver().await;
    assert_eq!(fixture.read(), ["Ann: hi, all"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn names_are_in_the_text_where_the_server_does_not_permit_overrides() {
    let mut fixture = Fixture::new().await;
    fixture.names = Attribution::Override;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "hi").await;
    bridge.deliver().await;
    assert_eq!(fixture.read(), ["bridge: **Ann**: hi"]);
}

#[tokio::test]
async fn an_edit_that_comes_too_late_is_a_new_message_and_is_deleted_with_the_old_one() {
    let fixture = Fixture::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "hi").await;
    bridge.deliver().await;
    bridge.room_event("$2", edit("$1", "hi, all")).await;
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 2);
    assert!(
        texts[1].contains("/team/pl/") && texts[1].ends_with("hi, all"),
        "{texts:?}"
    );
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty());
}

#[tokio::test]
async fn d04_what_is_posted_instead_of_an_edit_is_posted_once() {
    let fixture = Fixture::with(Options {
        edit_limit: Some(Duration::ZERO),
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "hi").await;
    bridge.deliver().await;
    fixture.lose_response();
    bridge.room_event("$2", edit("$1", "hi, all")).await;
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 2, "{texts:?}");
    // A post that was found belongs to the message like one that was created.
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty(), "{:?}", fixture.texts());
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn the_servers_request_limit_is_kept() {
    let fixture = Fixture::with(Options {
        rate_limit: Some((20, 10)),
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    for number in 0..40 {
        bridge
            .room_message(&format!("${number}"), &format!("message {number}"))
            .await;
    }
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 40);
    let in_order = texts
        .iter()
        .enumerate()
        .all(|(number, text)| text.ends_with(&format!("message {number}")));
    assert!(in_order);
}

#[tokio::test]
async fn somebody_who_is_let_in_again_reads_what_was_missed() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.at.ban();
    bridge
        .until("the channel is closed", || {
            bridge.silo.closed_channels().len() == 1
        })
        .await;
    fixture.say("meanwhile");
    fixture.sim.join(&fixture.channel.id, &fixture.bot.id);
    assert_eq!(bridge.received_texts(1).await, ["meanwhile"]);
    bridge
        .until("the channel is open", || {
            bridge.silo.closed_channels().is_empty()
        })
        .await;
}

#[tokio::test]
async fn an_open_channel_is_joined_and_a_private_one_is_not() {
    let fixture = Fixture::new().await;
    fixture
        .sim
        .add_channel(&fixture.team, "lobby", "O", &[&fixture.bob]);
    fixture
        .sim
        .add_channel(&fixture.team, "cellar", "P", &[&fixture.bob]);
    let silo = fixture.silo();
    let lobby = silo.resolve("team/lobby").await.unwrap();
    assert_eq!(lobby.name, "team/lobby");
    assert!(silo.resolve("team/cellar").await.is_err());
    assert_eq!(silo.audience("team/lobby").await.public, Some(true));
}

#[tokio::test]
async fn integrations_and_other_names_are_read() {
    let fixture = Fixture::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    let hook = fixture.sim.add_bot("hook");
    fixture.sim.join(&fixture.channel.id, &hook.id);
    let attachment = json!({"fallback": "red", "title": "Build 7", "text": "**green**"});
    let props =
        json!({"from_webhook": "true", "override_username": "CI", "attachments": [attachment]});
    fixture
        .sim
        .say_with(&fixture.channel.id, &hook.id, "", &props);
    let received = bridge.received(1).await.remove(0);
    assert_eq!(received.sender.name, "CI");
    assert_eq!(text(&received), "Build 7\n\ngreen");
}

#[tokio::test]
async fn a_code_shows_who_decides() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let place = &bridge.channel.place;
    assert!(
        bridge
            .silo
            .find_code(place, "1234")
            .await
            .unwrap()
            .is_none()
    );
    fixture.say(" 1234 ");
    let poster = bridge.silo.find_code(place, "1234").await.unwrap().unwrap();
    assert_eq!(
        (poster.name.as_str(), poster.is_admin),
        ("bob", Some(false))
    );
    fixture.sim.make_admin(&fixture.channel.id, &fixture.bob.id);
    let poster = bridge.silo.find_code(place, "1234").await.unwrap().unwrap();
    assert_eq!(poster.is_admin, Some(true));
}

#[tokio::test]
async fn b15_a_name_that_a_person_claims_decides_nothing() {
    let fixture = Fixture::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    let place = &bridge.channel.place;
    fixture.sim.make_admin(&fixture.channel.id, &fixture.bob.id);
    let claim = json!({"from_webhook": "true", "override_username": "Ann"});
    for text in ["hello", "!bridge pause", "4321"] {
        fixture
            .sim
            .say_with(&fixture.channel.id, &fixture.bob.id, text, &claim);
    }
    let received = bridge.received(3).await;
    for (message, said) in received.iter().zip(["hello", "!bridge pause", "4321"]) {
        let sender = &message.sender;
        assert_eq!(
            (sender.name.as_str(), &sender.id),
            ("bob (as Ann)", &fixture.bob.id)
        );
        assert_eq!(text(message), said, "it is a message, not a command");
    }
    assert!(
        bridge
            .silo
            .find_code(place, "4321")
            .await
            .unwrap()
            .is_none()
    );
    fixture.say("4321");
    assert!(
        bridge
            .silo
            .find_code(place, "4321")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn b15_a_post_of_our_own_account_proves_no_code() {
    for names in [Attribution::Override, Attribution::Inline] {
        let mut fixture = Fixture::with(Options {
            overrides: true,
            ..Options::default()
        })
        .await;
        fixture.names = names;
        let bridge = TestBridge::start(&fixture).await;
        fixture.sim.make_admin(&fixture.channel.id, &fixture.bot.id);
        bridge.room_message("$1", "9876").await;
        bridge.deliver().await;
        fixture.say_on_our_account("9876");
        let place = &bridge.channel.place;
        assert!(
            bridge
                .silo
                .find_code(place, "9876")
                .await
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test]
async fn events_that_come_twice_or_out_of_order_are_taken_once() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().duplicate(4);
    for number in 0..4 {
        fixture.say(&format!("twice {number}"));
    }
    bridge.received(4).await;
    fixture.sim.faults().swap(true);
    for number in 0..4 {
        fixture.say(&format!("swapped {number}"));
    }
    let mut received = bridge.received_texts(4).await;
    received.sort();
    assert_eq!(
        received,
        ["swapped 0", "swapped 1", "swapped 2", "swapped 3"]
    );
    bridge.receives_nothing_more().await;
    fixture.sim.type_in(&fixture.channel.id, &fixture.bob.id);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_restarted_server_that_answers_garbage_first_costs_nothing() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.stop().await;
    fixture.say("while it was out");
    fixture.restart().await;
    fixture
        .sim
        .faults()
        .next("GET websocket", Fault::Html { status: 502 }, 1);
    fixture
        .sim
        .faults()
        .next("GET channels/:id/posts", Fault::Html { status: 200 }, 2);
    assert_eq!(bridge.received_texts(1).await, ["while it was out"]);
    assert_eq!(bridge.silo.feed(), FeedState::Live);
    fixture
        .sim
        .faults()
        .next(POST, Fault::HtmlAfter { status: 200 }, 1);
    bridge.room_event("$1", post("through garbage")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts().len(), 2);
}

fn react(target: &str, key: &str) -> Action {
    Action::React {
        target: RemoteId::from(target),
        key: key.to_owned(),
    }
}

fn unreact(target: &str, key: &str) -> Action {
    Action::Unreact {
        target: RemoteId::from(target),
        key: key.to_owned(),
    }
}

/// Deletes posts while the events about the deletions are lost.
fn delete_unheard(fixture: &Fixture) {
    let posts = fixture.posts();
    fixture.sim.faults().lose_events(posts.len() as u64);
    for post in posts {
        fixture.sim.delete(&post.id);
    }
}

#[tokio::test]
async fn a_copy_that_an_admin_deleted_counts_as_deleted() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    delete_unheard(&fixture);
    bridge.room_event("$2", react("$1", "🎉")).await;
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    let tally = bridge.lane_counters(Side::Silo).await;
    assert_eq!(
        (tally.failed, tally.pending),
        (1, 0),
        "only the reaction failed"
    );
}

#[tokio::test]
async fn an_edit_of_a_copy_that_an_admin_deleted_does_not_bring_it_back() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    delete_unheard(&fixture);
    bridge.room_event("$2", edit("$1", "one, corrected")).await;
    bridge
        .room_event("$3", edit("$1", "one, corrected again"))
        .await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty(), "{:?}", fixture.texts());
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 0);
}

#[tokio::test]
async fn an_edit_of_a_message_of_which_an_admin_deleted_a_part_changes_the_rest() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let words = |first: &str, second: &str| {
        let fill = "word ".repeat(2_400);
        format!("{first} {fill}\n\n{second} {fill}")
    };
    bridge.room_message("$1", &words("one", "two")).await;
    bridge.deliver().await;
    let posts = fixture.posts();
    assert_eq!(posts.len(), 2);
    fixture.sim.faults().lose_events(1);
    fixture.sim.delete(&posts[0].id);
    let deleted = RemoteId::from(posts[0].id.as_str());
    let channel = &bridge.portal.channel;
    bridge
        .store()
        .mark_copy_deleted(channel, &deleted)
        .await
        .unwrap();
    bridge
        .room_event("$2", edit("$1", &words("three", "four")))
        .await;
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("four") && !texts[0].contains("three"));
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 0);
}

#[tokio::test]
async fn a_forbidden_change_does_not_mean_that_the_message_is_deleted() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    let forbidden = Fault::Status { status: 403 };
    fixture.sim.faults().next("DELETE posts/:id", forbidden, 1);
    bridge.room_event("$2", delete("$1")).await;
    bridge.deliver().await;
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 1);
    assert_eq!(fixture.texts(), ["**Ann**: one"]);
}

#[tokio::test]
async fn whoever_was_removed_from_an_open_channel_changes_messages_once_let_in_again() {
    for action in [
        edit("$1", "one, corrected"),
        delete("$1"),
        react("$1", "🎉"),
    ] {
        let fixture = Fixture::new().await;
        let bridge = TestBridge::start(&fixture).await;
        bridge.room_message("$1", "one").await;
        bridge.deliver().await;
        fixture.at.ban();
        bridge
            .until("the channel is closed", || {
                bridge.silo.closed_channels().len() == 1
            })
            .await;
        bridge.room_event("$2", action.clone()).await;
        let is_shut = async {
            while bridge
                .lane_counters(Side::Silo)
                .await
                .closed_since
                .is_none()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = bridge.deliver() => panic!("the delivery was given up: {action:?}"),
            shut = tokio::time::timeout(Duration::from_mins(1), is_shut) => shut.unwrap(),
        }
        fixture.sim.join(&fixture.channel.id, &fixture.bot.id);
        bridge.deliver().await;
        let tally = bridge.lane_counters(Side::Silo).await;
        assert_eq!((tally.failed, tally.delivered), (0, 2), "{action:?}");
    }
}

#[tokio::test]
async fn emoji_use_mattermosts_names() {
    let fixture = Fixture::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    for (number, key) in ["🤨", "🤔", "📡", "🤷🏽\u{200d}♂️", "🇩🇪"].iter().enumerate()
    {
        bridge
            .room_event(&format!("$r{number}"), react("$1", key))
            .await;
    }
    bridge.deliver().await;
    let names: Vec<String> = fixture.posts()[0].reactions.keys().cloned().collect();
    assert_eq!(
        names,
        [
            "de",
            "face_with_raised_eyebrow",
            "man-shrugging",
            "satellite_antenna",
            "thinking_face"
        ]
    );
    let post = fixture.posts()[0].id.clone();
    fixture.sim.react(&fixture.bob.id, &post, "satellite");
    fixture
        .sim
        .react(&fixture.bob.id, &post, "woman-shrugging_dark_skin_tone");
    let received = bridge.received(2).await.into_iter();
    let keys: Vec<String> = received
        .map(|message| match message.action {
            Action::React { key, .. } => key,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(keys, ["🛰\u{fe0f}", "🤷\u{200d}♀\u{fe0f}"]);
}

#[tokio::test]
async fn an_emoji_that_the_server_has_no_name_for_is_shown_in_a_line() {
    let fixture = Fixture::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    // An emoji newer than the table, and a custom emoji that no team has defined.
    bridge.room_event("$2", react("$1", "🫠")).await;
    bridge.room_event("$3", react("$1", ":party_parrot:")).await;
    bridge.room_event("$4", react("$1", "🎉")).await;
    bridge.deliver().await;
    let tally = bridge.lane_counters(Side::Silo).await;
    assert_eq!((tally.failed, tally.delivered), (0, 4));
    assert_eq!(
        fixture.texts(),
        ["**Ann**: one", "🫠 Ann · :party_parrot: Ann"]
    );
    let names: Vec<String> = fixture.posts()[0].reactions.keys().cloned().collect();
    assert_eq!(names, ["tada"]);
}

#[tokio::test]
async fn a_reaction_in_a_line_stays_there_after_a_restart() {
    let fixture = Fixture::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.room_event("$2", react("$1", ":party_parrot:")).await;
    bridge
        .room_event_by("$3", "Bob", react("$1", ":shipit:"))
        .await;
    bridge.deliver().await;
    assert_eq!(fixture.texts()[1..], [":party_parrot: Ann · :shipit: Bob"]);
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge
        .room_event("$4", unreact("$1", ":party_parrot:"))
        .await;
    bridge.deliver().await;
    assert_eq!(fixture.texts()[1..], [":shipit: Bob"]);
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    // The rewritten line omits nobody.
    bridge.room_event("$5", react("$1", "🫠")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts()[1..], [":shipit: Bob · 🫠 Ann"]);
    let asked = fixture.sim.calls()["POST reactions"];
    assert_eq!(asked, 2, "each name is requested once");
    // When the last reaction of a message ends, its line is deleted.
    bridge.room_event("$6", unreact("$1", "🫠")).await;
    bridge
        .room_event_by("$7", "Bob", unreact("$1", ":shipit:"))
        .await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["**Ann**: one"]);
    let tally = bridge.lane_counters(Side::Silo).await;
    assert_eq!((tally.failed, tally.pending), (0, 0));
}

#[tokio::test]
async fn an_emoji_that_two_lanes_find_missing_at_once_is_refused_to_neither() {
    let fixture = Fixture::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    let step = Step::React {
        target: RemoteId::from(fixture.posts()[0].id.as_str()),
        key: ":party_parrot:".to_owned(),
        unencrypted: false,
        is_marker: false,
    };
    for key in ["one.0", "two.0"] {
        let reacted = bridge.silo.perform(&bridge.channel.place, key, &step).await;
        let reacted = reacted.unwrap_err();
        assert!(matches!(reacted, SendError::Retry { .. }), "{reacted}");
    }
}

/// A thread whose first message is Ann's, with replies of Bob's and of Cy's in the room.
async fn thread(fixture: &Fixture, bridge: &TestBridge) {
    bridge.room_message("$1", "root").await;
    bridge.deliver().await;
    let root = fixture.posts()[0].id.clone();
    fixture.act(UserAction::Thread(&root, "from the channel"));
    bridge.received(1).await;
    let answer = Action::Post {
        body: Body::plain("from the room"),
        style: Style::Text,
        reply_to: Some(RemoteId::from("$1")),
        thread: None,
    };
    bridge.room_event_by("$2", "Cy", answer).await;
    bridge.deliver().await;
    assert_eq!(fixture.posts()[2].root_id, root);
}

#[tokio::test]
async fn the_first_message_of_a_thread_is_emptied_where_others_answered() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    let left = [
        "*(message deleted)*",
        "from the channel",
        "**Cy**: from the room",
    ];
    assert_eq!(fixture.texts(), left);
    bridge.receives_nothing_more().await;
    // An edit does not restore it.
    bridge.room_event("$4", edit("$1", "root again")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), left);
    // A later reply still belongs to the thread.
    let answer = Action::Post {
        body: Body::plain("later"),
        style: Style::Text,
        reply_to: None,
        thread: Some(RemoteId::from("$1")),
    };
    bridge.room_event("$4a", answer).await;
    bridge.deliver().await;
    let later = fixture.posts().pop().unwrap();
    assert_eq!(later.root_id, fixture.posts()[0].id);
    fixture.sim.delete(&later.id);
    assert!(matches!(
        bridge.received(1).await[0].action,
        Action::Delete { .. }
    ));
    let tally = bridge.lane_counters(Side::Silo).await;
    assert_eq!((tally.failed, tally.pending), (0, 0));
    // Without replies the message is deleted.
    bridge.room_message("$5", "alone").await;
    bridge.deliver().await;
    bridge.room_event("$6", delete("$5")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), left);
    // A deletion of the thread in Mattermost is relayed.
    fixture.sim.delete(&fixture.posts()[0].id);
    let gone = bridge.received(3).await;
    assert!(
        gone.iter()
            .all(|message| matches!(message.action, Action::Delete { .. }))
    );
}

#[tokio::test]
async fn replies_deleted_with_a_message_of_the_bridge_are_not_deleted_by_a_user() {
    // Where it can no longer be emptied, the whole thread is deleted.
    let fixture = Fixture::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty(), "{:?}", fixture.texts());
    fixture.say("after");
    assert_eq!(bridge.received_texts(1).await, ["after"]);
    bridge.receives_nothing_more().await;
    // A bridge that sees only what is left does not report it as new either.
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_thread_that_the_bridge_deleted_while_not_listening_is_not_deleted_again() {
    let fixture = Fixture::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    let bridge = bridge.rebuild(&fixture).await;
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty());
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    fixture.say("after");
    assert_eq!(bridge.received_texts(1).await, ["after"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn an_emptied_message_keeps_no_reaction_of_ours() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    bridge.room_event("$r1", react("$1", "🎉")).await;
    bridge.room_event("$r2", react("$1", "🤨")).await;
    bridge.deliver().await;
    let root = fixture.posts()[0].id.clone();
    fixture.sim.react(&fixture.bob.id, &root, "tada");
    bridge.received(1).await;
    let (room, channel) = (&bridge.portal.room, &bridge.channel.place);
    let message = RemoteId::from("$1");
    let known = bridge.store().copies(room, &message, channel).await;
    let entry = known.unwrap().entry.unwrap();
    assert_eq!(fixture.posts()[0].reactions.len(), 2);
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts()[0], "*(message deleted)*");
    let left: Vec<_> = fixture.posts()[0].reactions["tada"]
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        (fixture.posts()[0].reactions.len(), left),
        (1, vec![fixture.bob.id.clone()])
    );
    // The store keeps nothing about who reacted.
    let kept = bridge.store().reactions(entry, channel).await.unwrap();
    assert!(kept.is_empty(), "{}", kept.len());
    bridge.room_event("$r3", unreact("$1", "🎉")).await;
    bridge.deliver().await;
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 0);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_file_that_is_only_named_is_deleted_with_its_message() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    fixture.sim.describe_no_files();
    let root = fixture.posts()[0].id.clone();
    let file = Some(("cat.png", b"a cat".as_slice()));
    fixture.sim.edit_files(&root, "root", &[], file);
    assert_eq!(fixture.sim.files_of(&fixture.posts()[0]).len(), 1);
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty(), "{:?}", fixture.texts());
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn an_edit_that_leaves_nothing_of_a_message_leaves_its_thread() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    let root = fixture.posts()[0].id.clone();
    let file = Some(("cat.png", b"a cat".as_slice()));
    fixture.sim.edit_files(&root, "root", &[], file);
    bridge.room_event("$3", edit("$1", "")).await;
    bridge.deliver().await;
    let left = fixture.texts();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(left[0], "*(replaced by an edit)*");
    assert!(fixture.sim.files_of(&fixture.posts()[0]).is_empty());
    bridge.receives_nothing_more().await;
}

/// A bridge whose messages can no longer be edited in the channel, with a [`thread`].
async fn with_thread() -> (Fixture, TestBridge) {
    let fixture = Fixture::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    thread(&fixture, &bridge).await;
    (fixture, bridge)
}

#[tokio::test]
async fn d03_a_thread_whose_deletion_was_not_settled_is_not_deleted_by_a_user() {
    for fault in [
        Fault::SlowAnswer { ms: 60_000 },
        Fault::HtmlAfter { status: 502 },
    ] {
        let (fixture, bridge) = with_thread().await;
        fixture.sim.faults().next("DELETE posts/:id", fault, 1);
        bridge.room_event("$3", delete("$1")).await;
        // The server has performed it, and the bridge crashes before it is settled.
        let is_done = bridge.until("the thread is gone", || fixture.texts().is_empty());
        tokio::select! {
            _ = bridge.deliver() => panic!("the delivery was settled"),
            () = is_done => {}
        }
        let mut bridge = bridge.rebuild(&fixture).await;
        bridge.listen().await;
        bridge.receives_nothing_more().await;
        bridge.deliver().await;
        assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 0);
        let mut bridge = bridge.rebuild(&fixture).await;
        bridge.listen().await;
        bridge.receives_nothing_more().await;
    }
}

#[tokio::test]
async fn a_reply_that_comes_while_its_message_is_being_deleted_is_not_deleted_by_a_user() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "alone").await;
    bridge.deliver().await;
    let root = fixture.posts()[0].id.clone();
    let slow = Fault::Delay { ms: 1_500 };
    fixture.sim.faults().next("DELETE posts/:id", slow, 1);
    bridge.room_event("$2", delete("$1")).await;
    let answers = async {
        let is_asked = || fixture.sim.calls().contains_key("DELETE posts/:id");
        bridge.until("it was asked for", is_asked).await;
        fixture.act(UserAction::Thread(&root, "too late"));
    };
    tokio::join!(bridge.deliver(), answers);
    assert!(fixture.texts().is_empty(), "{:?}", fixture.texts());
    assert_eq!(bridge.received_texts(1).await, ["too late"]);
    // Its author has deleted nothing.
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_thread_that_the_bridge_may_not_delete_is_deleted_later_by_a_user() {
    let (fixture, bridge) = with_thread().await;
    let forbidden = Fault::Status { status: 403 };
    fixture.sim.faults().next("DELETE posts/:id", forbidden, 1);
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 1);
    fixture.sim.delete(&fixture.posts()[0].id);
    // Besides the room's notice of the failure.
    let received = bridge.received(4).await;
    let is_deletion = |message: &&Message| matches!(message.action, Action::Delete { .. });
    assert_eq!(received.iter().filter(is_deletion).count(), 3);
}

#[tokio::test]
async fn a_reply_that_its_author_deleted_before_its_thread_is_deleted() {
    let (fixture, bridge) = with_thread().await;
    let (root, answer) = (fixture.posts()[0].id.clone(), fixture.posts()[1].id.clone());
    // The bridge does not listen.
    let bridge = bridge.rebuild(&fixture).await;
    fixture.sim.delete(&answer);
    bridge.room_event("$3", delete("$1")).await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty());
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    let gone = bridge.received(1).await.remove(0);
    assert!(matches!(&gone.action, Action::Delete { target } if target.as_str() == answer));
    assert_ne!(root, answer);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_reply_that_its_author_deletes_while_the_thread_waits_is_deleted() {
    for listens in [true, false] {
        let (fixture, mut bridge) = with_thread().await;
        let answer = fixture.posts()[1].id.clone();
        let out = Fault::Html { status: 502 };
        fixture.sim.faults().next("DELETE posts/:id", out, 1);
        bridge.room_event("$3", delete("$1")).await;
        let is_asked = bridge.until("it was asked for", || {
            fixture.sim.calls().contains_key("DELETE posts/:id")
        });
        tokio::select! {
            _ = bridge.deliver() => panic!("the delivery was settled"),
            () = is_asked => {}
        }
        if listens {
            fixture.sim.delete(&answer);
        } else {
            bridge = bridge.rebuild(&fixture).await;
            fixture.sim.delete(&answer);
            bridge.listen().await;
        }
        let gone = bridge.received(1).await.remove(0);
        assert!(matches!(&gone.action, Action::Delete { target } if target.as_str() == answer));
        bridge.deliver().await;
        assert!(fixture.texts().is_empty());
        bridge.receives_nothing_more().await;
    }
}

#[tokio::test]
async fn names_follow_the_server_into_the_text_and_back() {
    let mut fixture = Fixture::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    fixture.names = Attribution::Override;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    fixture.sim.allow_overrides(false);
    fixture.say("seen");
    bridge.received(1).await;
    bridge.room_message("$2", "two").await;
    bridge.room_event("$3", edit("$1", "one, corrected")).await;
    bridge.deliver().await;
    fixture.sim.allow_overrides(true);
    fixture.say("seen again");
    bridge.received(1).await;
    bridge.room_message("$4", "three").await;
    bridge.deliver().await;
    assert_eq!(
        fixture.read(),
        [
            "Ann: **Ann**: one, corrected",
            "bob: seen",
            "bridge: **Ann**: two",
            "bob: seen again",
            "Ann: three"
        ]
    );
}

#[tokio::test]
async fn an_action_is_one_beside_its_name_too() {
    let mut fixture = Fixture::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    fixture.names = Attribution::Override;
    let bridge = TestBridge::start(&fixture).await;
    let waves = Action::Post {
        body: Body::plain("waves"),
        style: Style::Emote,
        reply_to: None,
        thread: None,
    };
    bridge.room_event("$1", waves).await;
    bridge.deliver().await;
    assert_eq!(fixture.read(), ["Ann: \\* waves"]);
}

#[tokio::test]
async fn the_error_of_a_channel_that_cannot_be_opened_names_possible_causes() {
    let fixture = Fixture::new().await;
    let cellar = [&fixture.bob];
    fixture
        .sim
        .add_channel(&fixture.team, "cellar", "P", &cellar);
    let members = [&fixture.bot, &fixture.bob];
    let attic = fixture
        .sim
        .add_channel(&fixture.team, "attic", "O", &members);
    fixture.sim.archive(&attic.id);
    fixture.sim.add_channel(&fixture.team, "old", "O", &members);
    let silo = fixture.silo();
    let why = async |channel: &str| match silo.resolve(channel).await {
        Err(SiloError::NoChannel(reason)) => reason,
        other => panic!("{channel}: {:?}", other.map(|channel| channel.name)),
    };
    assert!(why("team/attic").await.contains("is archived"));
    for hidden in ["team/cellar", "team/renamed"] {
        let why = why(hidden).await;
        for possible in ["private", "renamed", "/invite"] {
            assert!(why.contains(possible), "{why}");
        }
    }
    assert!(why("nowhere/town").await.contains("team"));
}

#[tokio::test]
async fn a_reaction_in_an_archived_channel_ends_once_it_is_restored() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.room_event("$2", react("$1", "🎉")).await;
    bridge.deliver().await;
    assert_eq!(fixture.posts()[0].reactions.len(), 1);
    fixture.sim.archive(&fixture.channel.id);
    bridge.room_event("$3", unreact("$1", "🎉")).await;
    let asked = "DELETE users/:id/posts/:post/reactions/:name";
    let is_asked = bridge.until("it was asked for", || {
        fixture.sim.calls().contains_key(asked)
    });
    tokio::select! {
        _ = bridge.deliver() => panic!("the delivery was given up"),
        () = is_asked => {}
    }
    fixture.sim.unarchive(&fixture.channel.id);
    bridge.deliver().await;
    assert!(fixture.posts()[0].reactions.is_empty());
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 0);
}

#[tokio::test]
async fn an_archived_channel_is_closed_until_it_is_restored() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.archive(&fixture.channel.id);
    bridge
        .until("the channel is closed", || {
            bridge.silo.closed_channels().len() == 1
        })
        .await;
    // Nor is it open for a new connection that still finds it closed.
    let looks = || fixture.sim.calls()["GET channels/:id"];
    let before = looks();
    fixture.sim.cut(Cut::Close);
    bridge
        .until("it is looked at again", || looks() > before)
        .await;
    // The next check begins when this one has ended.
    let before = looks();
    fixture.sim.join(&fixture.channel.id, &fixture.bot.id);
    bridge
        .until("it is looked at once more", || looks() > before)
        .await;
    assert_eq!(bridge.silo.closed_channels().len(), 1);
    fixture.sim.unarchive(&fixture.channel.id);
    bridge
        .until("the channel is open", || {
            bridge.silo.closed_channels().is_empty()
        })
        .await;
    fixture.say("back again");
    assert_eq!(bridge.received_texts(1).await, ["back again"]);
}
