//! The contract of silos as far as Matterbridge's API can keep it, and what is Matterbridge's own, against the
//! simulator. What of the contract it cannot keep (nobody can look up there what became of a message) is shown here.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
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
use footbridge_store::{LaneId, QueueHead, RemoteId, Side};
use footbridge_testbed::{
    matterbridge::{Cut, Fault, MatterbridgeSim, Message, Options},
    multi_silo::UserAction,
};

use crate::silo_contract::{self as contract, House, Network, post, text};

const GATEWAY: &str = "gateway1";
const SEND: &str = "POST message";

/// A simulated Matterbridge with one gateway.
pub struct Ground {
    sim: MatterbridgeSim,
    ping: Duration,
    audit: Duration,
    /// Where it is reached, if not at the simulator's own address.
    door: Option<std::net::SocketAddr>,
}

impl Ground {
    pub async fn with(options: Options) -> Self {
        Self {
            sim: MatterbridgeSim::start(options).await.unwrap(),
            ping: Duration::from_secs(30),
            audit: Duration::from_mins(5),
            door: None,
        }
    }

    /// Where the silo is reached.
    fn address(&self) -> url::Url {
        let mut url: url::Url = self.sim.url().parse().unwrap();
        if let Some(door) = self.door {
            url.set_port(Some(door.port())).unwrap();
        }
        url
    }

    /// With a large buffer that is read fast.
    pub async fn new() -> Self {
        Self::with(large()).await
    }

    fn hear(&self, message: Message) {
        self.sim.say(message);
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

#[async_trait]
impl Network for Ground {
    fn silo(&self) -> Arc<dyn Silo> {
        let config = MatterbridgeConfig {
            name: "mb".to_owned(),
            token: Some(Secret::new("secret".to_owned())),
            api: self.address(),
            account: Some("api.footbridge".to_owned()),
            avatar: None,
            media_hosts: Vec::new(),
            ping: self.ping,
            audit: self.audit,
        };
        Arc::new(Matterbridge::new(config, Clock::start()).unwrap())
    }
    fn channel(&self) -> String {
        GATEWAY.to_owned()
    }
    fn watermark(&self) -> &'static str {
        "/since"
    }
    fn pass_through(&mut self, door: std::net::SocketAddr) {
        self.door = Some(door);
    }
    fn socket_url(&self) -> String {
        self.sim.url()
    }
    fn open_another(&self) -> (String, String) {
        ("gateway2".to_owned(), "gateway2".to_owned())
    }
    fn say_in(&self, channel: &str, text: &str) {
        self.sim.say(Message::from_irc(channel, "bob", text));
    }
    fn say(&self, text: &str) -> String {
        self.sim
            .say(Message::from_irc(GATEWAY, "bob", text))
            .timestamp
    }
    fn say_on_our_account(&self, _: &str) -> String {
        panic!("whatever an API account says it never hears");
    }
    fn texts(&self) -> Vec<String> {
        let posted = self.sim.posted().into_iter();
        posted
            .map(|message| format!("{}: {}", message.username, message.text))
            .collect()
    }
    fn act(&self, act: UserAction<'_>) -> Option<String> {
        act.on_matterbridge(&self.sim, GATEWAY)
    }
    fn read(&self) -> Vec<String> {
        let posted = self.posted().into_iter();
        let read = posted.map(|(name, event, text)| match event.as_str() {
            "" => format!("{name}: {text}"),
            event => format!("{name} ({event}): {text}"),
        });
        read.collect()
    }
    async fn stop(&self) {
        self.sim.stop_listening().await;
    }
    async fn restart(&self) {
        self.sim.restart().await.unwrap();
    }
    fn cut(&self) {
        self.sim.cut(Cut::Reset);
    }
    fn lose_answer(&self) {
        self.sim.faults().next(SEND, Fault::DropAfter, 1);
    }
    fn lose_request(&self) {
        self.sim.faults().next(SEND, Fault::DropBefore, 1);
    }
    fn echo_first(&self) {
        self.sim.faults().echo(true);
    }
    fn sign_out(&self) {
        self.sim.set_token(Some("another"));
    }
    fn sign_in(&self) {
        self.sim.set_token(Some("secret"));
    }
    fn ban(&self) {
        panic!("nobody is banned from a gateway");
    }
}

macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test] async fn $name() { contract::$name(&Ground::new().await).await; })+
    };
}
contract!(
    what_is_said_arrives_once_and_in_order,
    catch_up_leaves_nothing_out,
    what_was_said_before_the_channel_was_linked_is_not_relayed,
    b11_two_portals_on_one_channel_both_hear_it,
    b13_a_cursor_from_the_future_is_repaired,
    b11_portals_on_one_channel_come_and_go,
    b11_two_channels_in_one_room_hear_each_other,
    an_outage_ends_by_itself,
    listening_stops_when_told,
    echoes_are_held_until_they_are_known,
    a_dead_token_stops_the_whole_side,
    a_token_that_is_accepted_again_needs_no_new_bridge,
);

#[tokio::test]
async fn b16_a_redirect_takes_no_token_along() {
    contract::b16_a_redirect_takes_no_token_along(&mut Ground::new().await).await;
}

/// What nginx makes of a WebSocket as long as it is not told otherwise.
#[tokio::test]
async fn a_proxy_that_passes_no_websockets_is_no_refusal_of_the_token() {
    let ground = Ground::new().await;
    let refused = |route: &str, status| {
        let refused = Fault::Status { status };
        ground.sim.faults().next(route, refused, 1);
    };
    refused("GET websocket", 400);
    refused("GET stream", 401);
    let house = House::start(&ground).await;
    assert!(!house.silo.is_signed_out());
    ground.say("through the proxy");
    assert_eq!(house.heard_texts(1).await, ["through the proxy"]);
}

fn edit(target: &str, words: &str) -> Action {
    Action::Edit {
        target: RemoteId::from(target),
        body: Body::plain(words),
        style: Style::Text,
    }
}

/// What the room is told about a message that nobody can tell the fate of.
async fn is_told_of_doubt(house: &House) {
    let told = house.heard(1).await.remove(0);
    let Action::Bridge { text, .. } = told.action else {
        panic!("a notice");
    };
    assert!(text.contains("may or may not have arrived"), "{text}");
}

#[tokio::test]
async fn a_message_of_unknown_fate_is_told_of_and_not_repeated() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.lose_answer();
    house.said("$1", "arrived all the same").await;
    house.said("$2", "next").await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["Ann: arrived all the same", "Ann: next"]);
    is_told_of_doubt(&house).await;
    ground.lose_request();
    house.said("$3", "never arrived").await;
    house.deliver().await;
    assert_eq!(ground.texts().len(), 2);
    let tally = house.tally(Side::Silo).await;
    let counts = (tally.accepted, tally.delivered, tally.failed, tally.parked);
    assert_eq!(counts, (3, 1, 2, 2), "it waits for somebody who decides");
}

#[tokio::test]
async fn a_death_while_a_message_was_on_its_way_is_told_of_and_not_repeated() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "on its way").await;
    let lane = LaneId {
        portal: house.portal.id,
        toward: Side::Silo,
    };
    let now = Clock::start().now();
    let QueueHead::Ready(delivery) = house.store().queue_head(lane, now).await.unwrap() else {
        panic!("it is owed");
    };
    house
        .store()
        .mark_outcome_unknown(delivery.id, None, now)
        .await
        .unwrap();
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.deliver().await;
    assert!(ground.texts().is_empty());
    assert_eq!(house.tally(Side::Silo).await.failed, 1);
    is_told_of_doubt(&house).await;
}

#[tokio::test]
async fn an_outage_costs_no_message() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.stop().await;
    house
        .until("the outage is noticed", || {
            house.silo.feed() != FeedState::Live
        })
        .await;
    house.said("$1", "into the void").await;
    let delivered = house.deliver();
    let restarted = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        ground.restart().await;
        // What stands before it says so in a way that would leave open what became of a message.
        let page = Fault::Html { status: 502 };
        ground.sim.faults().next("GET websocket", page, 1);
        ground.sim.faults().next("GET health", page, 1);
    };
    tokio::join!(delivered, restarted);
    assert_eq!(ground.texts(), ["Ann: into the void"]);
    assert_eq!(house.tally(Side::Silo).await.delivered, 1);
}

#[tokio::test]
async fn names_actions_edits_and_deletions_are_shown_as_the_api_allows() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    let waves = Action::Post {
        body: Body::plain("waves"),
        style: Style::Emote,
        reply_to: Some(RemoteId::from("$1")),
        thread: None,
    };
    house.happens("$2", waves).await;
    house.deliver().await;
    house.happens("$3", edit("$1", "two")).await;
    house.deliver().await;
    let target = RemoteId::from("$1");
    house.happens("$4", Action::Delete { target }).await;
    house.deliver().await;
    let posted = ground.posted();
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
    let ids = ground.sim.posted();
    assert!(
        ids.iter()
            .all(|message| message.userid == "@ann:example.org")
    );
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn the_redaction_of_an_edit_that_was_posted_is_posted_and_takes_nothing_back() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    house.happens("$2", edit("$1", "two")).await;
    house.deliver().await;
    let target = RemoteId::from("$2");
    house.happens("$3", Action::Delete { target }).await;
    house.deliver().await;
    let tally = house.tally(Side::Silo).await;
    assert_eq!((tally.delivered, tally.failed), (3, 0));
    let posted = ground.posted();
    assert!(posted[2].2.contains("An edit of this message was redacted"));
}

#[tokio::test]
async fn events_are_heard_as_what_they_are_and_unknown_ones_are_not() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.sim.faults().garbage(1);
    let said = |text: &str| Message::from_irc(GATEWAY, "bob", text);
    ground.hear(said("waves").event("user_action"));
    ground.hear(said("something new").event("something_new"));
    ground.hear(said("for irc alone").event("notice_irc"));
    ground.hear(said("alice joins").event("join"));
    ground.hear(Message::from_irc("elsewhere", "bob", "not ours"));
    ground.hear(said("").event(""));
    ground.hear(Message {
        parent_id: "mattermost etdi9bzgzir5tx8qctqs994zxh".to_owned(),
        ..said("yes")
    });
    let heard = house.heard(3).await;
    let styles = heard.iter().map(|message| match &message.action {
        Action::Post { style, .. } => Some(*style),
        Action::System { summary } if summary == "alice joins" => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        styles.collect::<Vec<_>>(),
        [Some(Style::Emote), None, Some(Style::Text)]
    );
    assert_eq!(text(&heard[2]), "↪ yes");
    assert_eq!(heard[0].sender.id, "irc.local/~bob@127.0.0.1");
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_connection_that_is_open_and_dead_is_noticed_and_caught_up_with() {
    let mut ground = Ground::new().await;
    ground.ping = Duration::from_millis(500);
    let house = House::start(&ground).await;
    ground.sim.cut(Cut::Freeze);
    for number in 0..5 {
        ground.say(&format!("message {number}"));
    }
    let texts: Vec<String> = (0..5).map(|number| format!("message {number}")).collect();
    assert_eq!(house.heard_texts(5).await, texts);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn what_the_socket_leaves_out_is_found_in_the_buffer() {
    let mut ground = Ground::new().await;
    ground.audit = Duration::from_secs(1);
    let house = House::start(&ground).await;
    ground.sim.faults().skip_broadcasts(3);
    for number in 0..5 {
        ground.say(&format!("message {number}"));
    }
    let mut heard = house.heard_texts(5).await;
    heard.sort();
    assert_eq!(heard[0], "message 0");
    house.hears_nothing_more().await;
}

/// What is written in a burst comes out of Matterbridge in another order, and so do its times: no order but Matterbridge's own
/// can be had, on the WebSocket and in the buffer alike.
#[tokio::test]
async fn a_burst_keeps_the_order_in_which_matterbridge_tells_it() {
    let mut ground = Ground::new().await;
    ground.audit = Duration::from_secs(1);
    let house = House::start(&ground).await;
    ground.sim.faults().swap(true);
    for number in 0..6 {
        ground.say(&number.to_string());
    }
    assert_eq!(house.heard_texts(6).await, ["1", "0", "3", "2", "5", "4"]);
    ground.stop().await;
    for number in 6..10 {
        ground.say(&number.to_string());
    }
    ground.restart().await;
    assert_eq!(house.heard_texts(4).await, ["7", "6", "9", "8"]);
    house.hears_nothing_more().await;
}

/// Where Matterbridge's clock is coarse, several messages of one person have the same time.
#[tokio::test]
async fn messages_of_one_moment_and_length_arrive_once_each() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    let moment = ground.say("first");
    let say = |text: &str| {
        ground.hear(Message {
            timestamp: moment.clone(),
            ..Message::from_irc(GATEWAY, "bob", text)
        });
    };
    ["one", "two", "two"].into_iter().for_each(say);
    let heard = house.heard_texts(4).await;
    assert_eq!(heard, ["first", "one", "two", "two"]);
    ground.cut();
    house.live().await;
    house.hears_nothing_more().await;
    ["six", "ten"].into_iter().for_each(say);
    assert_eq!(house.heard_texts(2).await, ["six", "ten"]);
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.hears_nothing_more().await;
}

/// A message of somebody with a file of so many bytes of base64.
fn with_file(words: &str, content: usize) -> Message {
    Message {
        extra: serde_json::json!({"file": [{"Name": "film.mp4", "Data": "A".repeat(content), "Comment": words, "URL": "", "Size": 0,
            "Avatar": false, "SHA": "", "NativeID": ""}]}),
        ..Message::from_irc(GATEWAY, "bob", words)
    }
}

/// A message of more than 32 MiB, which is a file of 24 MB.
#[tokio::test]
async fn a_large_file_crosses() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.hear(with_file("our film", 33 << 20));
    let heard = house.heard(1).await.remove(0);
    assert_eq!(text(&heard), "our film");
    assert_eq!(heard.files[0].size, Some((33 << 20) / 4 * 3));
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_small_buffer_costs_the_oldest_of_what_was_said_while_nobody_listened() {
    let ground = Ground::with(Options {
        buffer: 10,
        ..large()
    })
    .await;
    let house = House::start(&ground).await;
    ground.stop().await;
    for number in 0..15 {
        ground.say(&format!("message {number}"));
    }
    ground.restart().await;
    let texts: Vec<String> = (5..15).map(|number| format!("message {number}")).collect();
    assert_eq!(house.heard_texts(10).await, texts);
    house.hears_nothing_more().await;
}

/// Connections that break while the buffer is not being read: it still has what they did not bring. What Matterbridge
/// takes out of it for a reader that has just gone is lost, and nobody but Matterbridge could help that.
#[tokio::test]
async fn connections_that_break_lose_nothing() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    let texts: Vec<String> = (0..60).map(|number| format!("message {number}")).collect();
    for (index, text) in texts.iter().enumerate() {
        ground.say(text);
        if index % 12 == 5 {
            house.live().await;
            let how = [Cut::Reset, Cut::Close];
            ground.sim.cut(how[index / 12 % 2]);
        }
    }
    assert_eq!(house.heard_texts(texts.len()).await, texts);
    house.hears_nothing_more().await;
}

/// The house falls down while it listens: the buffer still has what it did not write down.
#[tokio::test]
async fn nothing_is_lost_when_the_house_falls_down_while_it_listens() {
    let ground = Ground::new().await;
    let mut house = House::start(&ground).await;
    let mut texts = Vec::new();
    for round in 0_u64..5 {
        house.live().await;
        for number in 0..10 {
            texts.push(format!("message {round}.{number}"));
            ground.say(texts.last().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        house = house.rebuild(&ground).await;
        texts.push(format!("message {round} while nobody listens"));
        ground.say(texts.last().unwrap());
        house.begin_to_listen();
    }
    assert_eq!(house.heard_texts(texts.len()).await, texts);
    house.hears_nothing_more().await;
}

/// Told to stop in the middle of the buffer, it leaves right behind a message, and nothing is lost.
#[tokio::test]
async fn stopping_in_the_middle_of_the_buffer_loses_nothing() {
    let ground = Ground::with(Options {
        // Slower than Matterbridge's own, as what it hands out while a busy machine leaves is lost by its API.
        pace: Duration::from_millis(300),
        ..large()
    })
    .await;
    let house = House::start(&ground).await;
    let mut house = house.rebuild(&ground).await;
    let texts: Vec<String> = (0..20).map(|number| format!("message {number}")).collect();
    for text in &texts {
        ground.say(text);
    }
    house.begin_to_listen();
    tokio::time::sleep(Duration::from_millis(2_250)).await;
    house.stop.cancel();
    house.ended().await.unwrap();
    assert!(ground.sim.buffered() > 5, "it was in the middle");
    house.stop = tokio_util::sync::CancellationToken::new();
    house.listen().await;
    assert_eq!(house.heard_texts(20).await, texts);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn what_matterbridge_will_never_take_fails_and_the_next_one_passes() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    let never = Fault::Status { status: 413 };
    ground.sim.faults().next(SEND, never, 1);
    house.happens("$1", post("too large")).await;
    house.said("$2", "next").await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["Ann: next"]);
    assert_eq!(house.tally(Side::Silo).await.failed, 1);
}

/// `footbridge import`: what it writes can be checked as it is, and the token stands in a file of its own.
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
