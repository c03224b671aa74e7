//! The silo contract as far as Matterbridge's API can keep it, and Matterbridge's own behaviour, against the simulator.
//! The part that it cannot keep (its API cannot look up whether a message was sent) is shown here.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    message::{Action, Style},
    secret::Secret,
    text::Body,
};
use footbridge_silo::{
    FeedState, Silo,
    matterbridge::{Matterbridge, MatterbridgeConfig},
};
use footbridge_simulators::{
    channel::SimulatedChannel,
    matterbridge::{
        Cut, Fault, MatterbridgeChannel, Message, Options,
        channel::{GATEWAY, POST},
    },
};
use footbridge_store::{LaneId, QueueHead, RemoteId, Side};

use crate::silo_contract::{Network, TestBridge, post, text, through};

/// A simulated Matterbridge, and what the tests vary of its section.
pub struct Fixture {
    at: MatterbridgeChannel,
    ping: Duration,
    audit: Duration,
    /// The address at which the silo reaches it, if not the simulator's own.
    proxy_address: Option<SocketAddr>,
}

impl Deref for Fixture {
    type Target = MatterbridgeChannel;

    fn deref(&self) -> &MatterbridgeChannel {
        &self.at
    }
}

impl Fixture {
    pub async fn with(options: Options) -> Self {
        Self {
            at: MatterbridgeChannel::open(options).await.unwrap(),
            ping: Duration::from_secs(30),
            audit: Duration::from_mins(5),
            proxy_address: None,
        }
    }

    /// With a large buffer that is read fast.
    pub async fn new() -> Self {
        Self::with(large()).await
    }

    fn hear(&self, message: Message) {
        self.sim.say(message);
    }

    fn texts(&self) -> Vec<String> {
        let posted = self.sim.posted().into_iter();
        posted
            .map(|message| format!("{}: {}", message.username, message.text))
            .collect()
    }

    fn posted(&self) -> Vec<(String, String, String)> {
        let posted = self.sim.posted().into_iter();
        posted
            .map(|message| (message.username, message.event, message.text))
            .collect()
    }
}

fn large() -> Options {
    Options {
        token: Some("secret".to_owned()),
        buffer: 1_000,
        pace: Duration::from_millis(1),
        ..Options::default()
    }
}

impl Network for Fixture {
    fn silo(&self) -> Arc<dyn Silo> {
        let config = MatterbridgeConfig {
            name: "mb".to_owned(),
            token: Some(Secret::new("secret".to_owned())),
            api: through(&self.sim.url(), self.proxy_address)
                .parse()
                .unwrap(),
            account: Some("api.footbridge".to_owned()),
            avatar: None,
            media_hosts: Vec::new(),
            ping: self.ping,
            audit: self.audit,
        };
        Arc::new(Matterbridge::new(config, Clock::start()).unwrap())
    }
    fn channel(&self) -> &dyn SimulatedChannel {
        &self.at
    }
    fn pass_through(&mut self, proxy_address: SocketAddr) {
        self.proxy_address = Some(proxy_address);
    }
}

/// What nginx does to a WebSocket unless it is configured to pass it.
#[tokio::test]
async fn a_proxy_that_passes_no_websockets_is_no_refusal_of_the_token() {
    let fixture = Fixture::new().await;
    let refused = |route: &str, status| {
        let refused = Fault::Status { status };
        fixture.sim.faults().next(route, refused, 1);
    };
    refused("GET websocket", 400);
    refused("GET stream", 401);
    let bridge = TestBridge::start(&fixture).await;
    assert!(!bridge.silo.account().is_signed_out());
    fixture.say("through the proxy");
    assert_eq!(bridge.received_texts(1).await, ["through the proxy"]);
}

fn edit(target: &str, words: &str) -> Action {
    Action::Edit {
        target: RemoteId::from(target),
        body: Body::plain(words),
        style: Style::Text,
    }
}

/// The room's notice about a message of which nobody can know whether it was sent.
async fn is_told_of_doubt(bridge: &TestBridge) {
    let told = bridge.received(1).await.remove(0);
    let Action::Bridge { text, .. } = told.action else {
        panic!("a notice");
    };
    assert!(text.contains("may or may not have arrived"), "{text}");
}

#[tokio::test]
async fn a_message_with_unknown_outcome_gives_a_notice_and_is_not_repeated() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.lose_response();
    bridge.room_message("$1", "arrived all the same").await;
    bridge.room_message("$2", "next").await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["Ann: arrived all the same", "Ann: next"]);
    is_told_of_doubt(&bridge).await;
    fixture.lose_request();
    bridge.room_message("$3", "never arrived").await;
    bridge.deliver().await;
    assert_eq!(fixture.texts().len(), 2);
    let tally = bridge.lane_counters(Side::Silo).await;
    let counts = (tally.accepted, tally.delivered, tally.failed, tally.parked);
    assert_eq!(counts, (3, 1, 2, 2), "it is parked until somebody decides");
}

#[tokio::test]
async fn a_kill_during_a_send_gives_a_notice_and_is_not_repeated() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "on its way").await;
    let lane = LaneId {
        portal: bridge.portal.id,
        toward: Side::Silo,
    };
    let now = Clock::start().now();
    let QueueHead::Ready(delivery) = bridge.store().queue_head(lane, now).await.unwrap() else {
        panic!("the delivery is due");
    };
    bridge
        .store()
        .mark_outcome_unknown(delivery.id, None, now)
        .await
        .unwrap();
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.deliver().await;
    assert!(fixture.texts().is_empty());
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 1);
    is_told_of_doubt(&bridge).await;
}

#[tokio::test]
async fn an_outage_costs_no_message() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.stop().await;
    bridge
        .until("the outage is noticed", || {
            bridge.silo.feed() != FeedState::Live
        })
        .await;
    bridge.room_message("$1", "into the void").await;
    let delivered = bridge.deliver();
    let restarted = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        fixture.restart().await;
        // The proxy in front of it sends error pages that would leave the outcome of a message unknown.
        let page = Fault::Html { status: 502 };
        fixture.sim.faults().next("GET websocket", page, 1);
        fixture.sim.faults().next("GET health", page, 1);
    };
    tokio::join!(delivered, restarted);
    assert_eq!(fixture.texts(), ["Ann: into the void"]);
    assert_eq!(bridge.lane_counters(Side::Silo).await.delivered, 1);
}

#[tokio::test]
async fn names_actions_edits_and_deletions_are_shown_as_the_api_allows() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    let waves = Action::Post {
        body: Body::plain("waves"),
        style: Style::Emote,
        reply_to: Some(RemoteId::from("$1")),
        thread: None,
    };
    bridge.room_event("$2", waves).await;
    bridge.deliver().await;
    bridge.room_event("$3", edit("$1", "two")).await;
    bridge.deliver().await;
    let target = RemoteId::from("$1");
    bridge.room_event("$4", Action::Delete { target }).await;
    bridge.deliver().await;
    let posted = fixture.posted();
    let told: Vec<(&str, &str)> = posted
        .iter()
        .map(|(_, event, text)| (event.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        told[..3],
        [
            ("", "one"),
            ("user_action", "↪ waves"),
            ("", "two (edited)")
        ]
    );
    let (event, text) = told[3];
    assert!(
        event == "user_action" && text.starts_with("has deleted the message of "),
        "{text}"
    );
    assert!(posted.iter().all(|(name, ..)| name == "Ann"));
    let ids = fixture.sim.posted();
    assert!(
        ids.iter()
            .all(|message| message.userid == "@ann:example.org")
    );
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn the_redaction_of_an_edit_that_was_posted_is_posted_and_takes_nothing_back() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    bridge.room_event("$2", edit("$1", "two")).await;
    bridge.deliver().await;
    let target = RemoteId::from("$2");
    bridge.room_event("$3", Action::Delete { target }).await;
    bridge.deliver().await;
    let tally = bridge.lane_counters(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (3, 0));
    let posted = fixture.posted();
    assert!(posted[2].2.contains("An edit of this message was redacted"));
}

#[tokio::test]
async fn known_events_are_read_and_unknown_ones_are_ignored() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().garbage(1);
    let said = |text: &str| Message::from_irc(GATEWAY, "bob", text);
    fixture.hear(said("waves").event("user_action"));
    fixture.hear(said("something new").event("something_new"));
    fixture.hear(said("for irc alone").event("notice_irc"));
    fixture.hear(said("alice joins").event("join"));
    fixture.hear(Message::from_irc("elsewhere", "bob", "not ours"));
    fixture.hear(said("").event(""));
    fixture.hear(Message {
        parent_id: "mattermost etdi9bzgzir5tx8qctqs994zxh".to_owned(),
        ..said("yes")
    });
    let received = bridge.received(3).await;
    let styles = received.iter().map(|message| match &message.action {
        Action::Post { style, .. } => Some(*style),
        Action::System { summary } if summary == "alice joins" => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        styles.collect::<Vec<_>>(),
        [Some(Style::Emote), None, Some(Style::Text)]
    );
    assert_eq!(text(&received[2]), "↪ yes");
    assert_eq!(received[0].sender.id, "irc.local/~bob@127.0.0.1");
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_connection_that_is_open_and_dead_is_noticed_and_caught_up_with() {
    let mut fixture = Fixture::new().await;
    fixture.ping = Duration::from_millis(500);
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.cut(Cut::Freeze);
    for number in 0..5 {
        fixture.say(&format!("message {number}"));
    }
    let texts: Vec<String> = (0..5).map(|number| format!("message {number}")).collect();
    assert_eq!(bridge.received_texts(5).await, texts);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn what_the_socket_leaves_out_is_found_in_the_buffer() {
    let mut fixture = Fixture::new().await;
    fixture.audit = Duration::from_secs(1);
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().skip_broadcasts(3);
    for number in 0..5 {
        fixture.say(&format!("message {number}"));
    }
    let mut received = bridge.received_texts(5).await;
    received.sort();
    assert_eq!(received[0], "message 0");
    bridge.receives_nothing_more().await;
}

/// Matterbridge returns a burst in another order than it was written, and so are the times: the only order to be had is
/// Matterbridge's own, on the WebSocket and in the buffer alike.
#[tokio::test]
async fn a_burst_keeps_the_order_in_which_matterbridge_sends_it() {
    let mut fixture = Fixture::new().await;
    fixture.audit = Duration::from_secs(1);
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().swap(true);
    for number in 0..6 {
        fixture.say(&number.to_string());
    }
    assert_eq!(
        bridge.received_texts(6).await,
        ["1", "0", "3", "2", "5", "4"]
    );
    fixture.stop().await;
    for number in 6..10 {
        fixture.say(&number.to_string());
    }
    fixture.restart().await;
    assert_eq!(bridge.received_texts(4).await, ["7", "6", "9", "8"]);
    bridge.receives_nothing_more().await;
}

/// Where Matterbridge's clock is coarse, several messages of one person have the same time.
#[tokio::test]
async fn messages_of_one_moment_and_length_arrive_once_each() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let moment = fixture.say("first");
    let say = |text: &str| {
        fixture.hear(Message {
            timestamp: moment.clone(),
            ..Message::from_irc(GATEWAY, "bob", text)
        });
    };
    ["one", "two", "two"].into_iter().for_each(say);
    let received = bridge.received_texts(4).await;
    assert_eq!(received, ["first", "one", "two", "two"]);
    fixture.cut();
    bridge.until_live().await;
    bridge.receives_nothing_more().await;
    ["six", "ten"].into_iter().for_each(say);
    assert_eq!(bridge.received_texts(2).await, ["six", "ten"]);
    let mut bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.receives_nothing_more().await;
}

/// A message with a file of this many bytes of base64.
fn with_file(words: &str, content: usize) -> Message {
    Message {
        extra: serde_json::json!({"file": [{"Name": "film.mp4", "Data": "A".repeat(content), "Comment": words, "URL": "", "Size": 0,
            "Avatar": false, "SHA": "", "NativeID": ""}]}),
        ..Message::from_irc(GATEWAY, "bob", words)
    }
}

/// A message of more than 32 MiB, which is a file of 24 MB.
#[tokio::test]
async fn a_large_file_is_relayed() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.hear(with_file("our film", 33 << 20));
    let received = bridge.received(1).await.remove(0);
    assert_eq!(text(&received), "our film");
    assert_eq!(received.files[0].size, Some((33 << 20) / 4 * 3));
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_small_buffer_loses_the_oldest_messages_of_a_downtime() {
    let fixture = Fixture::with(Options {
        buffer: 10,
        ..large()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.stop().await;
    for number in 0..15 {
        fixture.say(&format!("message {number}"));
    }
    fixture.restart().await;
    let texts: Vec<String> = (5..15).map(|number| format!("message {number}")).collect();
    assert_eq!(bridge.received_texts(10).await, texts);
    bridge.receives_nothing_more().await;
}

/// Connections that break while the bridge does not read the buffer: the buffer still has what they did not deliver.
/// What Matterbridge takes out of the buffer for a reader that has just disconnected is lost, and only Matterbridge
/// could prevent that.
#[tokio::test]
async fn connections_that_break_lose_nothing() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let texts: Vec<String> = (0..60).map(|number| format!("message {number}")).collect();
    for (index, text) in texts.iter().enumerate() {
        fixture.say(text);
        if index % 12 == 5 {
            bridge.until_live().await;
            let how = [Cut::Reset, Cut::Close];
            fixture.sim.cut(how[index / 12 % 2]);
        }
    }
    assert_eq!(bridge.received_texts(texts.len()).await, texts);
    bridge.receives_nothing_more().await;
}

/// The bridge crashes while it listens: the buffer still has what it did not store.
#[tokio::test]
async fn nothing_is_lost_in_a_crash_while_it_listens() {
    let fixture = Fixture::new().await;
    let mut bridge = TestBridge::start(&fixture).await;
    let mut texts = Vec::new();
    for round in 0_u64..5 {
        bridge.until_live().await;
        for number in 0..10 {
            texts.push(format!("message {round}.{number}"));
            fixture.say(texts.last().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        bridge = bridge.rebuild(&fixture).await;
        texts.push(format!("message {round} while nobody listens"));
        fixture.say(texts.last().unwrap());
        bridge.start_listening();
    }
    assert_eq!(bridge.received_texts(texts.len()).await, texts);
    bridge.receives_nothing_more().await;
}

/// A bridge that is stopped in the middle of the buffer stops directly after a message, and loses nothing.
#[tokio::test]
async fn stopping_in_the_middle_of_the_buffer_loses_nothing() {
    let fixture = Fixture::with(Options {
        // Slower than Matterbridge's own, because its API loses what it hands out while a reader on a busy machine
        // disconnects.
        pace: Duration::from_millis(300),
        ..large()
    })
    .await;
    let bridge = TestBridge::start(&fixture).await;
    let mut bridge = bridge.rebuild(&fixture).await;
    let texts: Vec<String> = (0..20).map(|number| format!("message {number}")).collect();
    for text in &texts {
        fixture.say(text);
    }
    bridge.start_listening();
    tokio::time::sleep(Duration::from_millis(2_250)).await;
    bridge.stop.cancel();
    bridge.until_ended().await.unwrap();
    assert!(fixture.sim.buffered() > 5, "it was in the middle");
    bridge.stop = tokio_util::sync::CancellationToken::new();
    bridge.listen().await;
    assert_eq!(bridge.received_texts(20).await, texts);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn what_matterbridge_will_never_take_fails_and_the_next_one_passes() {
    let fixture = Fixture::new().await;
    let bridge = TestBridge::start(&fixture).await;
    let never = Fault::Status { status: 413 };
    fixture.sim.faults().next(POST, never, 1);
    bridge.room_event("$1", post("too large")).await;
    bridge.room_message("$2", "next").await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), ["Ann: next"]);
    assert_eq!(bridge.lane_counters(Side::Silo).await.failed, 1);
}

/// `footbridge import`: what it writes passes `check` unchanged, and the token is in a separate file.
#[test]
fn a_configuration_of_matterbridge_becomes_one_of_ours() {
    let directory = tempfile::tempdir().unwrap();
    let theirs = "[matrix.home]\nServer=\"https://matrix.example.org\"\nMxID=\"@bot:example.org\"\nPassword=\"hush\"\n\
        [api.us]\nBindAddress=\"127.0.0.1:4343\"\nToken=\"hush-token\"\nBuffer=1000\n\
        [[gateway]]\nname=\"one\"\nenable=true\n\
        [[gateway.inout]]\naccount=\"matrix.home\"\nchannel=\"#one:example.org\"\n\
        [[gateway.inout]]\naccount=\"api.us\"\nchannel=\"api\"\n\
        [[gateway]]\nname=\"my gateway\"\nenable=true\n\
        [[gateway.inout]]\naccount=\"matrix.home\"\nchannel=\"#two:example.org\"\n";
    std::fs::write(directory.path().join("matterbridge.toml"), theirs).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_footbridge"))
        .args(["import", "matterbridge.toml"])
        .env_clear()
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("2 of 2 Matrix rooms") && !said.contains("hush"),
        "{said}"
    );
    let config = footbridge::config::Config::load(&directory.path().join("config.toml"));
    let config = config.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config.silos.len(), 1);
    let channels = config.portals.iter().map(|portal| portal.channel.as_str());
    assert_eq!(channels.collect::<Vec<_>>(), ["one", "my gateway"]);
    let silo: &dyn std::any::Any = config.silos[0].as_ref();
    let silo: &MatterbridgeConfig = silo.downcast_ref().unwrap();
    assert_eq!(silo.token.as_ref().unwrap().expose(), "hush-token");
    assert_eq!(
        (silo.account.as_deref(), silo.api.port()),
        (Some("api.us"), Some(4343))
    );
}
