//! Gitter's own behaviour, against the simulator.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    message::{Action, Style},
    outlet::{Content, SendError, SimilarMessages, Step},
    secret::Secret,
    text::Body,
};
use footbridge_silo::{
    FeedState, Silo,
    gitter::{Feed, Gitter, GitterConfig},
};
use footbridge_simulators::{
    channel::SimulatedChannel,
    gitter::{Fault, GitterChannel, Options, RoomOptions, channel::POST},
};
use footbridge_store::{Millis, Place, RemoteId};

use crate::silo_contract::{Network, TestBridge, post, text, through};

/// A simulated Gitter, and what the tests vary of its section.
pub struct Fixture {
    at: GitterChannel,
    pub feed: Feed,
    pub audit: Duration,
    pub overlap: Duration,
    /// The address of its feed, if not the simulator's own.
    pub proxy_address: Option<SocketAddr>,
}

impl Deref for Fixture {
    type Target = GitterChannel;

    fn deref(&self) -> &GitterChannel {
        &self.at
    }
}

impl Fixture {
    pub async fn with(options: Options, feed: Feed) -> Self {
        Self {
            at: GitterChannel::open(options).await.unwrap(),
            feed,
            audit: Duration::from_mins(5),
            overlap: Duration::from_secs(10),
            proxy_address: None,
        }
    }

    pub async fn realtime() -> Self {
        Self::with(fast(), Feed::Realtime).await
    }

    pub async fn stream() -> Self {
        Self::with(fast(), Feed::Stream).await
    }

    fn feed_address(&self, url: &str) -> url::Url {
        through(url, self.proxy_address).parse().unwrap()
    }

    /// All texts of the channel, in the order in which they were accepted.
    pub fn texts(&self) -> Vec<String> {
        let messages = self.sim.messages(&self.room.id).into_iter();
        messages.map(|message| message.text).collect()
    }

    pub fn thread(&self, root: &str, text: &str) -> String {
        self.sim
            .say_in_thread(&self.room.id, &self.bob.id, root, text)
            .id
    }

    pub fn edit(&self, id: &str, text: &str) {
        self.sim.edit(&self.room.id, id, text).unwrap();
    }

    pub fn delete(&self, id: &str) {
        self.sim.delete(&self.room.id, id).unwrap();
    }
}

/// Without a rate limit to wait for: the limit has its own tests.
pub fn fast() -> Options {
    Options {
        rate_limit: 100_000,
        ..Options::default()
    }
}

impl Network for Fixture {
    fn silo(&self) -> Arc<dyn Silo> {
        let config = GitterConfig {
            media_hosts: Vec::new(),
            name: "gitter".to_owned(),
            token: Secret::new(self.bot.token.clone()),
            api: self.sim.api_url().parse().unwrap(),
            stream: self.feed_address(&self.sim.stream_url()),
            realtime: self.feed_address(&self.sim.realtime_url()),
            feed: self.feed,
            requests_per_minute: 90_000,
            settle: Duration::from_secs(2),
            overlap: self.overlap,
            audit: self.audit,
        };
        let http = footbridge_core::http_client::client().unwrap();
        Arc::new(Gitter::new(config, http, Clock::start()).unwrap())
    }
    fn channel(&self) -> &dyn SimulatedChannel {
        &self.at
    }
    fn pass_through(&mut self, proxy_address: SocketAddr) {
        self.proxy_address = Some(proxy_address);
    }
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
async fn edits_deletions_and_threads_are_received() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    let root = fixture.say("root");
    let reply = fixture.thread(&root, "reply");
    fixture.edit(&reply, "better");
    fixture.delete(&reply);
    let received = bridge.received(4).await;
    assert!(matches!(
        &received[0].action,
        Action::Post { thread: None, .. }
    ));
    assert!(
        matches!(&received[1].action, Action::Post { thread: Some(thread), .. } if thread.as_str() == root)
    );
    assert!(matches!(&received[2].action, Action::Edit { target, .. } if target.as_str() == reply));
    assert_eq!(text(&received[2]), "better");
    assert!(matches!(&received[3].action, Action::Delete { target } if target.as_str() == reply));
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn emptied_messages_count_as_deleted_and_read_marks_as_nothing() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    let emptied = fixture.say("emptied");
    fixture.edit(&emptied, "");
    let root = fixture.say("root");
    fixture.thread(&root, "reply");
    fixture.sim.read(
        &fixture.room.id,
        &fixture.bot.id,
        std::slice::from_ref(&root),
    );
    // A deleted root with replies stays listed, without its text.
    fixture.delete(&root);
    let received = bridge.received(5).await;
    assert!(matches!(&received[1].action, Action::Delete { target } if target.as_str() == emptied));
    assert!(matches!(&received[4].action, Action::Delete { target } if target.as_str() == root));
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn an_outage_hides_no_edit_and_no_deletion() {
    let fixture = Fixture::realtime().await;
    let mut bridge = TestBridge::start(&fixture).await;
    let (edited, deleted) = (fixture.say("edited"), fixture.say("deleted"));
    bridge.received(2).await;
    bridge = bridge.rebuild(&fixture).await;
    // A younger message may be missing from a listing only because the listing lags behind.
    tokio::time::sleep(Duration::from_millis(5200)).await;
    fixture.edit(&edited, "better");
    fixture.delete(&deleted);
    let fresh = fixture.say("fresh");
    fixture.edit(&fresh, "fresher");
    bridge.listen().await;
    let received = bridge.received(3).await;
    assert!(
        matches!(&received[0].action, Action::Edit { target, .. } if target.as_str() == edited)
    );
    assert_eq!(text(&received[1]), "fresher");
    assert!(matches!(&received[2].action, Action::Delete { target } if target.as_str() == deleted));
    // The same comparison after another crash finds nothing new.
    bridge = bridge.rebuild(&fixture).await;
    bridge.listen().await;
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn the_stream_finds_edits_by_reading_again_after_a_break() {
    let fixture = Fixture::stream().await;
    let bridge = TestBridge::start(&fixture).await;
    let id = fixture.say("edited");
    bridge.received(1).await;
    fixture.edit(&id, "better");
    fixture.cut();
    assert_eq!(bridge.received_texts(1).await, ["better"]);
}

#[tokio::test]
async fn lost_events_are_noticed_by_their_count() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    for round in 0..3 {
        fixture.sim.faults().skip_deliveries(1);
        fixture.say(&format!("lost {round}"));
        fixture.say(&format!("received {round}"));
        assert_eq!(
            bridge.received_texts(2).await,
            [format!("lost {round}"), format!("received {round}")]
        );
    }
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_forgotten_session_is_begun_again() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.faults().expire_sessions();
    fixture.say("while nobody was known");
    fixture.cut();
    assert_eq!(bridge.received_texts(1).await, ["while nobody was known"]);
}

#[tokio::test]
async fn a_kick_closes_the_room_until_we_are_let_in_again() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.kick(&fixture.room.id, &fixture.bot.id).unwrap();
    bridge
        .until("the kick is noticed", || {
            bridge.silo.feed() == FeedState::Down
        })
        .await;
    fixture.say("not for us to hear yet");
    fixture.sim.join(&fixture.room.id, &fixture.bot.id).unwrap();
    bridge.until_live().await;
    fixture.say("again");
    assert_eq!(
        bridge.received_texts(2).await,
        ["not for us to hear yet", "again"]
    );
}

#[tokio::test]
async fn edits_and_deletions_reach_gitter() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "wrogn").await;
    bridge.room_message("$2", "regretted").await;
    bridge.room_event("$1e", edit("$1", "right")).await;
    bridge.room_event("$2d", delete("$2")).await;
    bridge.room_event("$3d", delete("$unknown")).await;
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].ends_with("right"));
    // None of it is relayed back.
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn an_edit_of_a_copy_that_an_admin_deleted_does_not_bring_it_back() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::build(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    fixture.delete(&fixture.sim.messages(&fixture.room.id)[0].id);
    bridge.room_event("$1e", edit("$1", "one, corrected")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), [""; 0]);
    let tally = bridge.lane_counters(footbridge_store::Side::Silo).await;
    assert_eq!((tally.failed, tally.pending), (0, 0));
}

#[tokio::test]
async fn a_message_that_the_bridge_may_not_delete_is_deleted_later_by_a_user() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "one").await;
    bridge.deliver().await;
    let forbidden = Fault::Status { status: 403 };
    let route = "DELETE /rooms/:id/chatMessages/:message";
    fixture.sim.faults().next(route, forbidden, 1);
    bridge.room_event("$2", delete("$1")).await;
    bridge.deliver().await;
    assert_eq!(
        bridge
            .lane_counters(footbridge_store::Side::Silo)
            .await
            .failed,
        1
    );
    fixture.delete(&fixture.sim.messages(&fixture.room.id)[0].id);
    // After the room's notice of the failure.
    while !matches!(bridge.received(1).await[0].action, Action::Delete { .. }) {}
}

#[tokio::test]
async fn an_edit_that_comes_too_late_points_to_the_old_text() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge.room_message("$1", "old").await;
    bridge.deliver().await;
    // The bridge's own clock still allows the edit: Gitter's refusal decides.
    fixture.sim.advance(Duration::from_secs(700));
    bridge.room_event("$1e", edit("$1", "new")).await;
    bridge.deliver().await;
    let all = fixture.sim.messages(&fixture.room.id);
    assert_eq!(all.len(), 2);
    assert!(all[0].text.ends_with("old"));
    let link = format!("/org/room?at={}\n", all[0].id);
    assert!(all[1].text.starts_with("Edit of http") && all[1].text.contains(&link));
    assert!(all[1].text.ends_with("new"));
    // Deleting the original also deletes the edit.
    bridge.room_event("$1d", delete("$1")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts(), [""; 0]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn a_long_message_is_relayed_in_parts_and_shrinks_when_edited() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    bridge
        .room_message("$1", &"a long story ".repeat(800))
        .await;
    bridge.deliver().await;
    let parts = fixture.texts();
    assert_eq!(parts.len(), 3);
    assert!(parts.iter().all(|part| part.encode_utf16().count() <= 4096));
    bridge.room_event("$1e", edit("$1", "in short")).await;
    bridge.deliver().await;
    assert_eq!(fixture.texts().len(), 1);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn replies_go_into_threads_of_one_level() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    let root = fixture.say("root");
    let reply = fixture.thread(&root, "reply");
    // Both get a copy in the room; a reply to the copy of the reply belongs to the root.
    for event in ["$root", "$reply"] {
        let lane = footbridge_store::LaneId {
            portal: bridge.portal.id,
            toward: footbridge_store::Side::Matrix,
        };
        let delivery = loop {
            match bridge
                .store()
                .queue_head(lane, bridge.inbox.clock().now())
                .await
                .unwrap()
            {
                footbridge_store::QueueHead::Ready(delivery) => break delivery,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let copy = footbridge_store::Copy {
            remote: RemoteId::from(event),
            thread: None,
            sent_at: bridge.inbox.clock().now(),
            file: None,
        };
        let done = bridge.store().complete_step(
            delivery.id,
            Some(&copy),
            None,
            true,
            bridge.inbox.clock().now(),
        );
        done.await.unwrap();
    }
    let Action::Post { body, style, .. } = post("an answer") else {
        panic!("a post");
    };
    let answer = Action::Post {
        body,
        style,
        reply_to: Some(RemoteId::from("$reply")),
        thread: None,
    };
    bridge.room_event("$answer", answer).await;
    bridge.deliver().await;
    let last = fixture.sim.messages(&fixture.room.id).pop().unwrap();
    assert_eq!(last.parent_id, Some(root));
    assert_ne!(last.parent_id, Some(reply));
}

#[tokio::test]
async fn whoever_was_banned_changes_messages_once_let_in_again() {
    for change in [edit("$1", "one, corrected"), delete("$1")] {
        let fixture = Fixture::realtime().await;
        let bridge = TestBridge::start(&fixture).await;
        bridge.room_message("$1", "one").await;
        bridge.deliver().await;
        fixture.at.ban();
        bridge.room_event("$2", change).await;
        let asked = || fixture.sim.calls().get("GET /rooms/:id").copied();
        let before = asked();
        let is_asked = bridge.until("it is looked into", || asked() > before);
        tokio::select! {
            _ = bridge.deliver() => panic!("the delivery was given up"),
            () = is_asked => {}
        }
        fixture
            .sim
            .unban(&fixture.room.id, &fixture.bot.id)
            .unwrap();
        bridge.deliver().await;
        let tally = bridge.lane_counters(footbridge_store::Side::Silo).await;
        assert_eq!((tally.failed, tally.delivered), (0, 2));
    }
}

#[tokio::test]
async fn a_silent_ban_is_noticed() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.sim.hellban(&fixture.bot.id);
    let refused = bridge.attempt("into the void").await;
    assert!(
        matches!(refused, Err(SendError::Refused { reason }) if reason.contains("silently drops"))
    );
    assert_eq!(bridge.silo.feed(), FeedState::Down);
}

#[tokio::test]
async fn a_look_up_enters_no_channel() {
    let fixture = Fixture::realtime().await;
    fixture.sim.add_room("org/other", RoomOptions::default());
    let silo = fixture.silo();
    assert_eq!(silo.look_up("org/other").await.unwrap().name, "org/other");
    let changes = || {
        let calls = fixture.sim.calls();
        // That one only finds a room by its URI.
        let is_change = |route: &&String| !route.starts_with("GET") && *route != "POST /rooms";
        calls.keys().filter(is_change).count()
    };
    assert_eq!(changes(), 0);
    silo.resolve("org/other").await.unwrap();
    assert_eq!(changes(), 1);
}

#[tokio::test]
async fn d04_a_message_that_is_looked_for_among_too_many_is_not_taken_for_missing() {
    let fixture = Fixture::realtime().await;
    let silo = fixture.silo();
    let place = Place::new("gitter", &fixture.room.id);
    let sent = |text: &str| Step::Post {
        content: Content {
            text: text.to_owned(),
            html: None,
            style: Style::Text,
            author: None,
            mentions: Vec::new(),
        },
        thread: None,
        reply_to: None,
    };
    let sought = sent("sought");
    let since = Millis(fixture.sim.now_ms());
    let say = |count: usize| {
        for _ in 0..count {
            fixture.sim.say(&fixture.room.id, &fixture.bob.id, "other");
        }
    };
    // The most that a search reads are 20 pages of 100 messages.
    say(1_000);
    let found = silo.find_similar(&place, &sought, since).await.unwrap();
    assert_eq!(found, SimilarMessages::default());
    fixture.sim.say(&fixture.room.id, &fixture.bot.id, "sought");
    let found = silo.find_similar(&place, &sought, since).await.unwrap();
    assert_eq!((found.copies.len(), found.is_cut_off), (1, false));
    say(2_000);
    let missing = sent("never sent");
    let found = silo.find_similar(&place, &missing, since).await.unwrap();
    assert_eq!((found.copies.len(), found.is_cut_off), (0, true));
}

#[tokio::test]
async fn the_request_limit_is_obeyed_before_gitter_has_to_refuse() {
    let options = Options {
        rate_limit: 30,
        rate_window: Duration::from_secs(4),
        ..Options::default()
    };
    let fixture = Fixture::with(options, Feed::Realtime).await;
    let bridge = TestBridge::start(&fixture).await;
    for number in 0..50 {
        bridge
            .room_message(&format!("${number}"), &format!("message {number}"))
            .await;
    }
    bridge.deliver().await;
    let texts = fixture.texts();
    assert_eq!(texts.len(), 50);
    for (number, text) in texts.iter().enumerate() {
        assert!(text.ends_with(&format!("message {number}")));
    }
    let calls = fixture.sim.calls();
    assert_eq!(
        calls.get(POST),
        Some(&50),
        "no request was refused and repeated"
    );
}

#[tokio::test]
async fn broken_gateways_neither_lose_nor_double() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    for (number, fault) in [
        Fault::Html { status: 502 },
        Fault::HtmlAfter { status: 502 },
        Fault::Status { status: 500 },
        Fault::ResetAfter,
    ]
    .into_iter()
    .enumerate()
    {
        fixture.sim.faults().next(POST, fault, 1);
        bridge
            .room_message(&format!("${number}"), &format!("message {number}"))
            .await;
        bridge.deliver().await;
    }
    assert_eq!(fixture.texts().len(), 4);
}

#[tokio::test]
async fn garbled_streams_lose_nothing() {
    use footbridge_simulators::gitter::Framing;
    for framing in [
        Framing {
            crlf: true,
            glue_keepalive: true,
            ..Framing::default()
        },
        Framing {
            split: true,
            duplicate: true,
            ..Framing::default()
        },
        Framing {
            coalesce: 3,
            ..Framing::default()
        },
    ] {
        let options = Options {
            keepalive: Duration::from_millis(50),
            ..fast()
        };
        let fixture = Fixture::with(options, Feed::Stream).await;
        fixture.sim.faults().set_framing(framing);
        let bridge = TestBridge::start(&fixture).await;
        let texts: Vec<String> = (0..12).map(|number| format!("grün 🦆 {number}")).collect();
        for text in &texts {
            fixture.say(text);
        }
        assert_eq!(bridge.received_texts(12).await, texts);
        bridge.receives_nothing_more().await;
    }
}

#[tokio::test]
async fn a_snapshot_too_long_to_read_is_fetched_in_pieces() {
    let fixture = Fixture::realtime().await;
    let mut bridge = TestBridge::start(&fixture).await;
    bridge = bridge.rebuild(&fixture).await;
    // As HTML each of these is five times as long.
    let text = "<".repeat(4090);
    for _ in 0..100 {
        fixture.say(&text);
    }
    bridge.listen().await;
    assert_eq!(bridge.received(100).await.len(), 100);
    assert!(
        fixture
            .sim
            .calls()
            .contains_key("GET /rooms/:id/chatMessages")
    );
    fixture.say("after");
    assert_eq!(bridge.received_texts(1).await, ["after"]);
    bridge.receives_nothing_more().await;
}

#[tokio::test]
async fn d22_a_room_that_must_wait_or_is_closed_holds_up_no_other() {
    let fixture = Fixture::realtime().await;
    let mut bridge = TestBridge::build(&fixture).await;
    let members = RoomOptions {
        members: vec![fixture.bot.id.clone(), fixture.bob.id.clone()],
        ..RoomOptions::default()
    };
    let other = fixture.sim.add_room("org/other", members);
    let channel = bridge.add_portal("org/other", "!other:example.org").await;
    bridge.listen().await;
    // The response to the bridge's message is slow, and its echo must wait for it.
    let slow = Fault::SlowAnswer { ms: 3000 };
    fixture.sim.faults().next(POST, slow, 1);
    bridge.room_message("$1", "an echo to be").await;
    let delivered = bridge.deliver();
    let heard_elsewhere = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = std::time::Instant::now();
        fixture.sim.say(&other.id, &fixture.bob.id, "elsewhere");
        assert_eq!(bridge.received_in(channel, 1).await, ["elsewhere"]);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "it waited for the other room"
        );
    };
    tokio::join!(delivered, heard_elsewhere);
    bridge.receives_nothing_more().await;
    // A ban in one room does not affect the other.
    fixture.sim.ban(&fixture.room.id, &fixture.bot.id).unwrap();
    bridge
        .until("the ban is shown", || {
            bridge.silo.closed_channels().len() == 1
        })
        .await;
    fixture.sim.say(&other.id, &fixture.bob.id, "still here");
    assert_eq!(bridge.received_in(channel, 1).await, ["still here"]);
    assert_eq!(bridge.silo.feed(), FeedState::Live, "the other is");
}

#[tokio::test]
async fn a_person_is_shown_as_gitter_names_them() {
    let fixture = Fixture::realtime().await;
    let bridge = TestBridge::start(&fixture).await;
    fixture.say("hello");
    fixture
        .sim
        .say_status(&fixture.room.id, &fixture.bob.id, "@bob waves")
        .unwrap();
    let received = bridge.received(2).await;
    assert_eq!(
        (received[0].sender.name.as_str(), &received[0].sender.id),
        ("Bob", &fixture.bob.id)
    );
    assert!(matches!(
        &received[1].action,
        Action::Post {
            style: Style::Emote,
            ..
        }
    ));
    assert_eq!(text(&received[1]), "waves");
}
