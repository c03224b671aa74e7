//! The contract of silos, and what is Mattermost's own, against the simulator.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use footbridge_core::{
    clock::Clock,
    message::{Action, Message, Style},
    outlet::{SendError, Step},
    secret::Secret,
    text::Body,
};
use footbridge_silo::{
    FeedState, Silo, SiloError,
    mattermost::{Mattermost, MattermostConfig},
    plan::Attribution,
};
use footbridge_store::{RemoteId, Side};
use footbridge_testbed::{
    mattermost::{Channel, Cut, Fault, MattermostSim, Options, Post, Team, User},
    multi_silo::{Actor, UserAction},
};
use serde_json::json;

use crate::silo_contract::{self as contract, House, Network, post, text};

const WRITE: &str = "POST posts";

/// A simulated Mattermost with one channel and two people; the bridge is a bot.
pub struct Ground {
    sim: MattermostSim,
    team: Team,
    bridge: User,
    bob: User,
    channel: Channel,
    names: Attribution,
    ping: Duration,
    audit: Duration,
    /// Where it is reached, if not at the simulator's own address.
    door: Option<std::net::SocketAddr>,
}

impl Ground {
    pub async fn with(options: Options) -> Self {
        let sim = MattermostSim::start(options).await.unwrap();
        let (bridge, bob) = (sim.add_bot("bridge"), sim.add_user("bob"));
        let team = sim.add_team("team");
        let channel = sim.add_channel(&team, "town", "O", &[&bridge, &bob]);
        Self {
            sim,
            team,
            bridge,
            bob,
            channel,
            names: Attribution::Inline,
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

    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    fn posts(&self) -> Vec<Post> {
        self.sim.posts(&self.channel.id)
    }
}

#[async_trait]
impl Network for Ground {
    fn silo(&self) -> Arc<dyn Silo> {
        let config = MattermostConfig {
            name: "mm".to_owned(),
            token: Secret::new(self.bridge.token.clone()),
            url: self.address(),
            names: self.names,
            icon: None,
            ping: self.ping,
            audit: self.audit,
        };
        let http = footbridge_core::http_client::client().unwrap();
        Arc::new(Mattermost::new(config, http).unwrap())
    }
    fn channel(&self) -> String {
        "Team/Town".to_owned()
    }
    fn pass_through(&mut self, door: std::net::SocketAddr) {
        self.door = Some(door);
    }
    fn socket_url(&self) -> String {
        self.sim.url()
    }
    fn open_another(&self) -> (String, String) {
        let members = [&self.bridge, &self.bob];
        let channel = self.sim.add_channel(&self.team, "another", "O", &members);
        ("team/another".to_owned(), channel.id)
    }
    fn say_in(&self, channel: &str, text: &str) {
        self.sim.say(channel, &self.bob.id, text);
    }
    fn say(&self, text: &str) -> String {
        self.sim.say(&self.channel.id, &self.bob.id, text).id
    }
    fn say_on_our_account(&self, text: &str) -> String {
        self.sim.say(&self.channel.id, &self.bridge.id, text).id
    }
    fn act(&self, act: UserAction<'_>) -> Option<String> {
        let (channel, person) = (&self.channel.id, &self.bob.id);
        act.on_mattermost(&self.sim, Actor { channel, person })
    }
    fn texts(&self) -> Vec<String> {
        self.posts().into_iter().map(|post| post.message).collect()
    }
    fn read(&self) -> Vec<String> {
        let read = self.posts().into_iter().map(|post| {
            let in_thread = if post.root_id.is_empty() {
                ""
            } else {
                "  ↳ "
            };
            let shown = post
                .props
                .get("override_username")
                .and_then(|name| name.as_str());
            let name = shown.map_or_else(|| self.sim.name_of(&post.user_id), str::to_owned);
            format!("{in_thread}{name}: {}", post.message)
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
        self.sim.faults().next(WRITE, Fault::DropAfter, 1);
    }
    fn lose_request(&self) {
        self.sim.faults().next(WRITE, Fault::DropBefore, 1);
    }
    fn echo_first(&self) {
        self.sim.faults().echo_first(150);
    }
    fn sign_out(&self) {
        self.sim.revoke(&self.bridge.token);
    }
    fn sign_in(&self) {
        self.sim.accept(&self.bridge);
    }
    fn ban(&self) {
        self.sim.remove(&self.channel.id, &self.bridge.id);
    }
}

macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test] async fn $name() { contract::$name(&Ground::new().await).await; })+
    };
}
contract!(
    what_is_said_arrives_once_and_in_order,
    nothing_is_lost_when_the_house_falls_down,
    catch_up_leaves_nothing_out,
    what_was_said_before_the_channel_was_linked_is_not_relayed,
    b11_two_portals_on_one_channel_both_hear_it,
    b13_a_cursor_from_the_future_is_repaired,
    b11_two_portals_on_one_channel_outlive_a_connection,
    b11_portals_on_one_channel_come_and_go,
    b11_two_channels_in_one_room_hear_each_other,
    a_storm_of_broken_connections_loses_nothing,
    an_outage_ends_by_itself,
    listening_stops_when_told,
    a_step_of_unknown_outcome_is_made_once,
    echoes_are_held_until_they_are_known,
    an_echo_without_an_answer_is_no_news,
    a_person_on_our_account_is_heard,
    a_dead_token_stops_the_whole_side,
    a_token_that_is_accepted_again_needs_no_new_bridge,
    a_ban_closes_the_channel_only,
    an_unknown_channel_is_no_outage,
);

#[tokio::test]
async fn b16_a_redirect_takes_no_token_along() {
    contract::b16_a_redirect_takes_no_token_along(&mut Ground::new().await).await;
}

/// A day from now, by the simulator's clock.
fn tomorrow() -> i64 {
    Clock::start().now().plus(Duration::from_hours(24)).0
}

#[tokio::test]
async fn b13_a_post_from_the_future_hides_no_gap() {
    let ground = Ground::new().await;
    let mut house = House::start(&ground).await;
    let id = ground.say("from tomorrow");
    assert_eq!(house.heard_texts(1).await, ["from tomorrow"]);
    ground.sim.date(&id, tomorrow());
    // The next reading shows it.
    house = house.rebuild(&ground).await;
    house.listen().await;
    house = house.rebuild(&ground).await;
    ground.say("during an absence");
    house.listen().await;
    assert_eq!(house.heard_texts(1).await, ["during an absence"]);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn b13_a_channel_is_linked_behind_a_post_from_the_future() {
    let ground = Ground::new().await;
    let id = ground.say("history from tomorrow");
    ground.sim.date(&id, tomorrow());
    let mut house = House::start(&ground).await;
    ground.say("news");
    assert_eq!(house.heard_texts(1).await, ["news"]);
    house = house.rebuild(&ground).await;
    ground.say("during an absence");
    house.listen().await;
    assert_eq!(house.heard_texts(1).await, ["during an absence"]);
    house.hears_nothing_more().await;
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
    let ground = Ground::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    ground.lose_answer();
    house.said("$1", "once").await;
    house.said("$2", "next").await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["**Ann**: once", "**Ann**: next"]);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_death_while_a_message_was_on_its_way_makes_no_second_one() {
    let ground = Ground::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "on its way").await;
    // It is made, and the house falls before the answer comes.
    ground
        .sim
        .faults()
        .next(WRITE, Fault::SlowAnswer { ms: 60_000 }, 1);
    let died = tokio::time::timeout(Duration::from_secs(2), house.deliver()).await;
    assert!(died.is_err());
    assert_eq!(ground.texts().len(), 1);
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["**Ann**: on its way"]);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn c20_a_key_below_somebody_elses_post_makes_it_none_of_ours() {
    let ground = Ground::with(Options {
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "on its way").await;
    ground
        .sim
        .faults()
        .next(WRITE, Fault::SlowAnswer { ms: 60_000 }, 1);
    let died = tokio::time::timeout(Duration::from_secs(2), house.deliver()).await;
    assert!(died.is_err());
    let ours = ground.posts().remove(0);
    let props = json!(ours.props);
    ground
        .sim
        .say_with(&ground.channel.id, &ground.bob.id, "mine", &props);
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.deliver().await;
    house.happens("$2", edit("$1", "arrived")).await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["**Ann**: arrived", "mine"]);
}

#[tokio::test]
async fn what_the_websocket_leaves_out_shows_in_its_numbers() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.say("one");
    assert_eq!(house.heard_texts(1).await, ["one"]);
    ground.sim.faults().skip_events(2);
    let edited = ground.say("two");
    ground.say("three");
    ground.sim.edit(&edited, "two, corrected");
    assert_eq!(house.heard_texts(2).await, ["two, corrected", "three"]);
    ground.sim.faults().garbage(1);
    ground.say("four");
    assert_eq!(house.heard_texts(1).await, ["four"]);
    house.hears_nothing_more().await;
}

/// "Restore this version" of a post's edit history is an edit that says what was said before.
#[tokio::test]
async fn a_version_of_a_post_that_its_author_restores_is_an_edit() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    let id = ground.say("one");
    assert_eq!(house.heard_texts(1).await, ["one"]);
    for text in ["two", "one", "two", "one"] {
        ground.sim.edit(&id, text);
        assert_eq!(house.heard_texts(1).await, [text]);
    }
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn what_no_number_tells_of_is_found_by_reading() {
    let mut ground = Ground::new().await;
    ground.audit = Duration::from_millis(300);
    let house = House::start(&ground).await;
    ground.sim.faults().lose_events(3);
    let id = ground.say("never told of");
    ground.sim.edit(&id, "edited");
    assert_eq!(house.heard_texts(1).await.len(), 1);
    ground.sim.faults().clear();
    ground.sim.faults().lose_events(1);
    ground.sim.delete(&id);
    house.heard(1).await;
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_silent_connection_is_left() {
    let mut ground = Ground::new().await;
    ground.ping = Duration::from_millis(200);
    let house = House::start(&ground).await;
    ground.sim.cut(Cut::Freeze);
    ground.say("into silence");
    assert_eq!(house.heard_texts(1).await, ["into silence"]);
    house.live().await;
}

#[tokio::test]
async fn more_changes_than_one_answer_holds_are_read_page_by_page() {
    let ground = Ground::with(Options {
        since_cap: 1_000,
        ..Options::default()
    })
    .await;
    let mut house = House::start(&ground).await;
    let kept = ground.say("before");
    assert_eq!(house.heard_texts(1).await, ["before"]);
    house = house.rebuild(&ground).await;
    let texts: Vec<String> = (0..1_300)
        .map(|number| format!("message {number}"))
        .collect();
    for text in &texts {
        ground.say(text);
    }
    ground.sim.edit(&kept, "before, corrected");
    house.listen().await;
    let mut heard = house.heard_texts(texts.len() + 1).await;
    heard.retain(|text| text != "before, corrected");
    assert_eq!(heard, texts);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn edits_and_deletions_while_nobody_listened_are_found() {
    let ground = Ground::new().await;
    let mut house = House::start(&ground).await;
    let (kept, gone) = (ground.say("kept"), ground.say("gone"));
    ground.act(UserAction::Thread(&gone, "below"));
    assert_eq!(house.heard_texts(3).await, ["kept", "gone", "below"]);
    house = house.rebuild(&ground).await;
    ground.sim.edit(&kept, "kept, corrected");
    ground.sim.delete(&gone);
    ground.sim.react(&ground.bob.id, &kept, "tada");
    house.listen().await;
    let heard = house.heard(4).await;
    let reacted = |message: &&Message| matches!(message.action, Action::React { .. });
    assert_eq!(heard.iter().filter(reacted).count(), 1);
    let edits = heard
        .iter()
        .filter(|message| text(message) == "kept, corrected");
    assert_eq!(edits.count(), 1);
    let deleted: Vec<_> = heard
        .iter()
        .filter(|message| matches!(message.action, Action::Delete { .. }))
        .collect();
    assert_eq!(deleted.len(), 2, "the thread went with its first message");
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_thread_that_goes_with_its_first_message_goes_in_the_room_too() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    let root = ground.say("root");
    ground.act(UserAction::Thread(&root, "below"));
    house.heard(2).await;
    ground.sim.delete(&root);
    let gone = house.heard(2).await;
    assert!(
        gone.iter()
            .all(|message| matches!(message.action, Action::Delete { .. }))
    );
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn our_own_edits_and_deletions_are_no_news() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.said("$2", "two").await;
    house.deliver().await;
    house.happens("$3", edit("$1", "one, corrected")).await;
    house.happens("$4", delete("$2")).await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["**Ann**: one, corrected"]);
    ground.say("from somebody else");
    assert_eq!(house.heard_texts(1).await, ["from somebody else"]);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_message_of_ours_that_somebody_takes_back_is_taken_back() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    ground.sim.make_admin(&ground.channel.id, &ground.bob.id);
    let id = ground.posts()[0].id.clone();
    ground.sim.delete(&id);
    let gone = house.heard(1).await.remove(0);
    assert!(matches!(gone.action, Action::Delete { .. }));
}

#[tokio::test]
async fn an_answer_goes_into_the_thread_and_a_thread_that_is_gone_costs_nothing() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.say("root");
    house.heard(1).await;
    house.said("$1", "first").await;
    house.deliver().await;
    let first = ground.posts()[1].id.clone();
    let answer = Action::Post {
        body: Body::plain("an answer"),
        style: Style::Text,
        reply_to: Some(RemoteId::from("$1")),
        thread: None,
    };
    house.happens("$2", answer.clone()).await;
    house.deliver().await;
    assert_eq!(ground.posts()[2].root_id, first);
    ground.sim.make_admin(&ground.channel.id, &ground.bob.id);
    ground.sim.faults().lose_events(1);
    ground.sim.delete(&first);
    house.happens("$3", answer).await;
    house.deliver().await;
    let left: Vec<String> = ground.texts();
    assert_eq!(left, ["root", "**Ann**: an answer"]);
}

#[tokio::test]
async fn a_long_message_is_cut_at_the_servers_limit() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", &"many words ".repeat(3_100)).await;
    house.deliver().await;
    let texts = ground.texts();
    assert_eq!(texts.len(), 3);
    assert!(
        texts
            .iter()
            .all(|text| text.chars().count() <= 16_383 && text.contains("Ann"))
    );
    house.happens("$2", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty());
}

#[tokio::test]
async fn names_stand_beside_the_text_where_the_server_permits_it() {
    let mut ground = Ground::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    ground.names = Attribution::Override;
    let house = House::start(&ground).await;
    house.said("$1", "hi").await;
    house.deliver().await;
    house.happens("$2", edit("$1", "hi, all")).await;
    house.deliver().await;
    assert_eq!(ground.read(), ["Ann: hi, all"]);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn names_stand_in_the_text_where_it_does_not() {
    let mut ground = Ground::new().await;
    ground.names = Attribution::Override;
    let house = House::start(&ground).await;
    house.said("$1", "hi").await;
    house.deliver().await;
    assert_eq!(ground.read(), ["bridge: **Ann**: hi"]);
}

#[tokio::test]
async fn an_edit_that_comes_too_late_is_a_new_message_and_goes_with_the_old_one() {
    let ground = Ground::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "hi").await;
    house.deliver().await;
    house.happens("$2", edit("$1", "hi, all")).await;
    house.deliver().await;
    let texts = ground.texts();
    assert_eq!(texts.len(), 2);
    assert!(
        texts[1].contains("/team/pl/") && texts[1].ends_with("hi, all"),
        "{texts:?}"
    );
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty());
}

#[tokio::test]
async fn d04_what_is_posted_instead_of_an_edit_is_posted_once() {
    let ground = Ground::with(Options {
        edit_limit: Some(Duration::ZERO),
        remembered: Duration::ZERO,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "hi").await;
    house.deliver().await;
    ground.lose_answer();
    house.happens("$2", edit("$1", "hi, all")).await;
    house.deliver().await;
    let texts = ground.texts();
    assert_eq!(texts.len(), 2, "{texts:?}");
    // What was found belongs to the message like what was made.
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty(), "{:?}", ground.texts());
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn the_servers_request_limit_is_kept() {
    let ground = Ground::with(Options {
        rate_limit: Some((20, 10)),
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    for number in 0..40 {
        house
            .said(&format!("${number}"), &format!("message {number}"))
            .await;
    }
    house.deliver().await;
    let texts = ground.texts();
    assert_eq!(texts.len(), 40);
    let in_order = texts
        .iter()
        .enumerate()
        .all(|(number, text)| text.ends_with(&format!("message {number}")));
    assert!(in_order);
}

#[tokio::test]
async fn somebody_who_is_let_in_again_reads_what_was_missed() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.ban();
    house
        .until("the channel is closed", || house.silo.closed() == 1)
        .await;
    ground.say("meanwhile");
    ground.sim.join(&ground.channel.id, &ground.bridge.id);
    assert_eq!(house.heard_texts(1).await, ["meanwhile"]);
    assert_eq!(house.silo.closed(), 0);
}

#[tokio::test]
async fn an_open_channel_is_joined_and_a_private_one_is_not() {
    let ground = Ground::new().await;
    ground
        .sim
        .add_channel(&ground.team, "lobby", "O", &[&ground.bob]);
    ground
        .sim
        .add_channel(&ground.team, "cellar", "P", &[&ground.bob]);
    let silo = ground.silo();
    let lobby = silo.resolve("team/lobby").await.unwrap();
    assert_eq!(lobby.name, "team/lobby");
    assert!(silo.resolve("team/cellar").await.is_err());
    assert_eq!(silo.audience("team/lobby").await.public, Some(true));
}

#[tokio::test]
async fn integrations_and_other_names_are_heard() {
    let ground = Ground::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    let hook = ground.sim.add_bot("hook");
    ground.sim.join(&ground.channel.id, &hook.id);
    let attachment = json!({"fallback": "red", "title": "Build 7", "text": "**green**"});
    let props =
        json!({"from_webhook": "true", "override_username": "CI", "attachments": [attachment]});
    ground
        .sim
        .say_with(&ground.channel.id, &hook.id, "", &props);
    let heard = house.heard(1).await.remove(0);
    assert_eq!(heard.sender.name, "CI");
    assert_eq!(text(&heard), "Build 7\n\ngreen");
}

#[tokio::test]
async fn a_code_shows_who_decides() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    let place = &house.channel.place;
    assert!(house.silo.find_code(place, "1234").await.unwrap().is_none());
    ground.say(" 1234 ");
    let poster = house.silo.find_code(place, "1234").await.unwrap().unwrap();
    assert_eq!(
        (poster.name.as_str(), poster.is_admin),
        ("bob", Some(false))
    );
    ground.sim.make_admin(&ground.channel.id, &ground.bob.id);
    let poster = house.silo.find_code(place, "1234").await.unwrap().unwrap();
    assert_eq!(poster.is_admin, Some(true));
}

#[tokio::test]
async fn b15_a_name_that_a_person_claims_decides_nothing() {
    let ground = Ground::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    let place = &house.channel.place;
    ground.sim.make_admin(&ground.channel.id, &ground.bob.id);
    let claim = json!({"from_webhook": "true", "override_username": "Ann"});
    for text in ["hello", "!bridge pause", "4321"] {
        ground
            .sim
            .say_with(&ground.channel.id, &ground.bob.id, text, &claim);
    }
    let heard = house.heard(3).await;
    for (message, said) in heard.iter().zip(["hello", "!bridge pause", "4321"]) {
        let sender = &message.sender;
        assert_eq!(
            (sender.name.as_str(), &sender.id),
            ("bob (as Ann)", &ground.bob.id)
        );
        assert_eq!(text(message), said, "it is a message, and no command");
    }
    assert!(house.silo.find_code(place, "4321").await.unwrap().is_none());
    ground.say("4321");
    assert!(house.silo.find_code(place, "4321").await.unwrap().is_some());
}

#[tokio::test]
async fn b15_a_post_of_our_own_account_proves_no_code() {
    for names in [Attribution::Override, Attribution::Inline] {
        let mut ground = Ground::with(Options {
            overrides: true,
            ..Options::default()
        })
        .await;
        ground.names = names;
        let house = House::start(&ground).await;
        ground.sim.make_admin(&ground.channel.id, &ground.bridge.id);
        house.said("$1", "9876").await;
        house.deliver().await;
        ground.say_on_our_account("9876");
        let place = &house.channel.place;
        assert!(house.silo.find_code(place, "9876").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn events_that_come_twice_or_out_of_order_are_taken_once() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.sim.faults().duplicate(4);
    for number in 0..4 {
        ground.say(&format!("twice {number}"));
    }
    house.heard(4).await;
    ground.sim.faults().swap(true);
    for number in 0..4 {
        ground.say(&format!("swapped {number}"));
    }
    let mut heard = house.heard_texts(4).await;
    heard.sort();
    assert_eq!(heard, ["swapped 0", "swapped 1", "swapped 2", "swapped 3"]);
    house.hears_nothing_more().await;
    ground.sim.type_in(&ground.channel.id, &ground.bob.id);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_restarted_server_that_answers_garbage_first_costs_nothing() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.stop().await;
    ground.say("while it was out");
    ground.restart().await;
    ground
        .sim
        .faults()
        .next("GET websocket", Fault::Html { status: 502 }, 1);
    ground
        .sim
        .faults()
        .next("GET channels/:id/posts", Fault::Html { status: 200 }, 2);
    assert_eq!(house.heard_texts(1).await, ["while it was out"]);
    assert_eq!(house.silo.feed(), FeedState::Live);
    ground
        .sim
        .faults()
        .next(WRITE, Fault::HtmlAfter { status: 200 }, 1);
    house.happens("$1", post("through garbage")).await;
    house.deliver().await;
    assert_eq!(ground.texts().len(), 2);
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

/// What nobody is told of: posts go while the events about it are lost.
fn delete_unheard(ground: &Ground) {
    let posts = ground.posts();
    ground.sim.faults().lose_events(posts.len() as u64);
    for post in posts {
        ground.sim.delete(&post.id);
    }
}

#[tokio::test]
async fn a_copy_that_an_admin_deleted_counts_as_taken_back() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    delete_unheard(&ground);
    house.happens("$2", react("$1", "🎉")).await;
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    let tally = house.tally(Side::Silo).await;
    assert_eq!(
        (tally.failed, tally.pending),
        (1, 0),
        "only the reaction failed"
    );
}

#[tokio::test]
async fn an_edit_of_a_copy_that_an_admin_deleted_does_not_bring_it_back() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    delete_unheard(&ground);
    house.happens("$2", edit("$1", "one, corrected")).await;
    house
        .happens("$3", edit("$1", "one, corrected again"))
        .await;
    house.deliver().await;
    assert!(ground.texts().is_empty(), "{:?}", ground.texts());
    assert_eq!(house.tally(Side::Silo).await.failed, 0);
}

#[tokio::test]
async fn a_change_that_is_forbidden_is_no_message_that_is_gone() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    let forbidden = Fault::Status { status: 403 };
    ground.sim.faults().next("DELETE posts/:id", forbidden, 1);
    house.happens("$2", delete("$1")).await;
    house.deliver().await;
    assert_eq!(house.tally(Side::Silo).await.failed, 1);
    assert_eq!(ground.texts(), ["**Ann**: one"]);
}

#[tokio::test]
async fn whoever_was_removed_from_an_open_channel_changes_messages_once_let_in_again() {
    for action in [
        edit("$1", "one, corrected"),
        delete("$1"),
        react("$1", "🎉"),
    ] {
        let ground = Ground::new().await;
        let house = House::start(&ground).await;
        house.said("$1", "one").await;
        house.deliver().await;
        ground.ban();
        house
            .until("the channel is closed", || house.silo.closed() == 1)
            .await;
        house.happens("$2", action.clone()).await;
        let is_shut = async {
            while house.tally(Side::Silo).await.closed_since.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = house.deliver() => panic!("it was given up: {action:?}"),
            shut = tokio::time::timeout(Duration::from_mins(1), is_shut) => shut.unwrap(),
        }
        ground.sim.join(&ground.channel.id, &ground.bridge.id);
        house.deliver().await;
        let tally = house.tally(Side::Silo).await;
        assert_eq!((tally.failed, tally.delivered), (0, 2), "{action:?}");
    }
}

#[tokio::test]
async fn emoji_go_by_the_names_that_mattermost_has_for_them() {
    let ground = Ground::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    for (number, key) in ["🤨", "🤔", "📡", "🤷🏽\u{200d}♂️", "🇩🇪"].iter().enumerate()
    {
        house
            .happens(&format!("$r{number}"), react("$1", key))
            .await;
    }
    house.deliver().await;
    let names: Vec<String> = ground.posts()[0].reactions.keys().cloned().collect();
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
    let post = ground.posts()[0].id.clone();
    ground.sim.react(&ground.bob.id, &post, "satellite");
    ground
        .sim
        .react(&ground.bob.id, &post, "woman-shrugging_dark_skin_tone");
    let heard = house.heard(2).await.into_iter();
    let keys: Vec<String> = heard
        .map(|message| match message.action {
            Action::React { key, .. } => key,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(keys, ["🛰\u{fe0f}", "🤷\u{200d}♀\u{fe0f}"]);
}

#[tokio::test]
async fn an_emoji_that_the_server_has_no_name_for_is_told_in_words() {
    let ground = Ground::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    // Newer than the table, and a name that no team has given.
    house.happens("$2", react("$1", "🫠")).await;
    house.happens("$3", react("$1", ":party_parrot:")).await;
    house.happens("$4", react("$1", "🎉")).await;
    house.deliver().await;
    let tally = house.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.delivered), (0, 4));
    assert_eq!(
        ground.texts(),
        ["**Ann**: one", "🫠 Ann · :party_parrot: Ann"]
    );
    let names: Vec<String> = ground.posts()[0].reactions.keys().cloned().collect();
    assert_eq!(names, ["tada"]);
}

#[tokio::test]
async fn what_was_told_in_a_line_stays_told_there_after_a_restart() {
    let ground = Ground::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.happens("$2", react("$1", ":party_parrot:")).await;
    house.happens_by("$3", "Bob", react("$1", ":shipit:")).await;
    house.deliver().await;
    assert_eq!(ground.texts()[1..], [":party_parrot: Ann · :shipit: Bob"]);
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.happens("$4", unreact("$1", ":party_parrot:")).await;
    house.deliver().await;
    assert_eq!(ground.texts()[1..], [":shipit: Bob"]);
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    // What is told anew leaves nothing out.
    house.happens("$5", react("$1", "🫠")).await;
    house.deliver().await;
    assert_eq!(ground.texts()[1..], [":shipit: Bob · 🫠 Ann"]);
    let asked = ground.sim.calls()["POST reactions"];
    assert_eq!(asked, 2, "each name is asked for once");
    // All that is told of one message ends with its line.
    house.happens("$6", unreact("$1", "🫠")).await;
    house
        .happens_by("$7", "Bob", unreact("$1", ":shipit:"))
        .await;
    house.deliver().await;
    assert_eq!(ground.texts(), ["**Ann**: one"]);
    let tally = house.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.pending), (0, 0));
}

#[tokio::test]
async fn an_emoji_that_two_lanes_find_missing_at_once_is_refused_to_neither() {
    let ground = Ground::with(Options {
        knows_emoji: true,
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    let step = Step::React {
        target: RemoteId::from(ground.posts()[0].id.as_str()),
        key: ":party_parrot:".to_owned(),
        unencrypted: false,
        is_marker: false,
    };
    for key in ["one.0", "two.0"] {
        let reacted = house.silo.perform(&house.channel.place, key, &step).await;
        let reacted = reacted.unwrap_err();
        assert!(matches!(reacted, SendError::Retry { .. }), "{reacted}");
    }
}

/// A thread whose first message is Ann's, with answers of Bob's and of Cy's in the room.
async fn thread(ground: &Ground, house: &House) {
    house.said("$1", "root").await;
    house.deliver().await;
    let root = ground.posts()[0].id.clone();
    ground.act(UserAction::Thread(&root, "from the channel"));
    house.heard(1).await;
    let answer = Action::Post {
        body: Body::plain("from the room"),
        style: Style::Text,
        reply_to: Some(RemoteId::from("$1")),
        thread: None,
    };
    house.happens_by("$2", "Cy", answer).await;
    house.deliver().await;
    assert_eq!(ground.posts()[2].root_id, root);
}

#[tokio::test]
async fn the_first_message_of_a_thread_is_emptied_where_others_answered() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    let left = [
        "*(message deleted)*",
        "from the channel",
        "**Cy**: from the room",
    ];
    assert_eq!(ground.texts(), left);
    house.hears_nothing_more().await;
    // Nothing brings it back.
    house.happens("$4", edit("$1", "root again")).await;
    house.deliver().await;
    assert_eq!(ground.texts(), left);
    // What is answered later belongs to the thread.
    let answer = Action::Post {
        body: Body::plain("later"),
        style: Style::Text,
        reply_to: None,
        thread: Some(RemoteId::from("$1")),
    };
    house.happens("$4a", answer).await;
    house.deliver().await;
    let later = ground.posts().pop().unwrap();
    assert_eq!(later.root_id, ground.posts()[0].id);
    ground.sim.delete(&later.id);
    assert!(matches!(
        house.heard(1).await[0].action,
        Action::Delete { .. }
    ));
    let tally = house.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.pending), (0, 0));
    // Without answers it goes.
    house.said("$5", "alone").await;
    house.deliver().await;
    house.happens("$6", delete("$5")).await;
    house.deliver().await;
    assert_eq!(ground.texts(), left);
    // Who deletes the thread there is heard.
    ground.sim.delete(&ground.posts()[0].id);
    let gone = house.heard(3).await;
    assert!(
        gone.iter()
            .all(|message| matches!(message.action, Action::Delete { .. }))
    );
}

#[tokio::test]
async fn what_goes_with_a_message_that_we_delete_is_deleted_by_nobody() {
    // Where it cannot be emptied any more, the thread goes with it.
    let ground = Ground::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty(), "{:?}", ground.texts());
    ground.say("after");
    assert_eq!(house.heard_texts(1).await, ["after"]);
    house.hears_nothing_more().await;
    // Neither is it news for a bridge that only sees what is left.
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_thread_that_we_deleted_unheard_is_deleted_by_nobody() {
    let ground = Ground::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    let house = house.rebuild(&ground).await;
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty());
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    ground.say("after");
    assert_eq!(house.heard_texts(1).await, ["after"]);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn an_emptied_message_keeps_no_reaction_of_ours() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    house.happens("$r1", react("$1", "🎉")).await;
    house.happens("$r2", react("$1", "🤨")).await;
    house.deliver().await;
    let root = ground.posts()[0].id.clone();
    ground.sim.react(&ground.bob.id, &root, "tada");
    house.heard(1).await;
    let (room, channel) = (&house.portal.room, &house.channel.place);
    let message = RemoteId::from("$1");
    let known = house.store().copies(room, &message, channel).await;
    let entry = known.unwrap().entry.unwrap();
    assert_eq!(ground.posts()[0].reactions.len(), 2);
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert_eq!(ground.texts()[0], "*(message deleted)*");
    let left: Vec<_> = ground.posts()[0].reactions["tada"]
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        (ground.posts()[0].reactions.len(), left),
        (1, vec![ground.bob.id.clone()])
    );
    // Nothing is kept of whose they were.
    let kept = house.store().reactions(entry, channel).await.unwrap();
    assert!(kept.is_empty(), "{}", kept.len());
    house.happens("$r3", unreact("$1", "🎉")).await;
    house.deliver().await;
    assert_eq!(house.tally(Side::Silo).await.failed, 0);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_file_that_is_only_named_goes_with_its_message() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    ground.sim.describe_no_files();
    let root = ground.posts()[0].id.clone();
    let file = Some(("cat.png", b"a cat".as_slice()));
    ground.sim.edit_files(&root, "root", &[], file);
    assert_eq!(ground.sim.files_of(&ground.posts()[0]).len(), 1);
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty(), "{:?}", ground.texts());
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn an_edit_that_leaves_nothing_of_a_message_leaves_its_thread() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    let root = ground.posts()[0].id.clone();
    let file = Some(("cat.png", b"a cat".as_slice()));
    ground.sim.edit_files(&root, "root", &[], file);
    house.happens("$3", edit("$1", "")).await;
    house.deliver().await;
    let left = ground.texts();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(left[0], "*(replaced by an edit)*");
    assert!(ground.sim.files_of(&ground.posts()[0]).is_empty());
    house.hears_nothing_more().await;
}

/// A house whose messages can no longer be edited in the channel, with a [`thread`].
async fn with_thread() -> (Ground, House) {
    let ground = Ground::with(Options {
        edit_limit: Some(Duration::ZERO),
        ..Options::default()
    })
    .await;
    let house = House::start(&ground).await;
    thread(&ground, &house).await;
    (ground, house)
}

#[tokio::test]
async fn d03_a_thread_whose_deletion_was_not_settled_is_deleted_by_nobody() {
    for fault in [
        Fault::SlowAnswer { ms: 60_000 },
        Fault::HtmlAfter { status: 502 },
    ] {
        let (ground, house) = with_thread().await;
        ground.sim.faults().next("DELETE posts/:id", fault, 1);
        house.happens("$3", delete("$1")).await;
        // It is done, and the house falls before that is settled.
        let is_done = house.until("the thread is gone", || ground.texts().is_empty());
        tokio::select! {
            _ = house.deliver() => panic!("it was settled"),
            () = is_done => {}
        }
        let mut house = house.rebuild(&ground).await;
        house.listen().await;
        house.hears_nothing_more().await;
        house.deliver().await;
        assert_eq!(house.tally(Side::Silo).await.failed, 0);
        let mut house = house.rebuild(&ground).await;
        house.listen().await;
        house.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_while_its_message_is_being_deleted_is_deleted_by_nobody() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "alone").await;
    house.deliver().await;
    let root = ground.posts()[0].id.clone();
    let slow = Fault::Delay { ms: 1_500 };
    ground.sim.faults().next("DELETE posts/:id", slow, 1);
    house.happens("$2", delete("$1")).await;
    let answers = async {
        let is_asked = || ground.sim.calls().contains_key("DELETE posts/:id");
        house.until("it was asked for", is_asked).await;
        ground.act(UserAction::Thread(&root, "too late"));
    };
    tokio::join!(house.deliver(), answers);
    assert!(ground.texts().is_empty(), "{:?}", ground.texts());
    assert_eq!(house.heard_texts(1).await, ["too late"]);
    // Its author has deleted nothing.
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn a_thread_that_we_may_not_delete_is_deleted_by_whoever_does() {
    let (ground, house) = with_thread().await;
    let forbidden = Fault::Status { status: 403 };
    ground.sim.faults().next("DELETE posts/:id", forbidden, 1);
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert_eq!(house.tally(Side::Silo).await.failed, 1);
    ground.sim.delete(&ground.posts()[0].id);
    // Beside what the room is told of the failure.
    let heard = house.heard(4).await;
    let is_deletion = |message: &&Message| matches!(message.action, Action::Delete { .. });
    assert_eq!(heard.iter().filter(is_deletion).count(), 3);
}

#[tokio::test]
async fn an_answer_that_its_author_deleted_before_its_thread_went_is_taken_back() {
    let (ground, house) = with_thread().await;
    let (root, answer) = (ground.posts()[0].id.clone(), ground.posts()[1].id.clone());
    // Nobody listens.
    let house = house.rebuild(&ground).await;
    ground.sim.delete(&answer);
    house.happens("$3", delete("$1")).await;
    house.deliver().await;
    assert!(ground.texts().is_empty());
    let mut house = house.rebuild(&ground).await;
    house.listen().await;
    let gone = house.heard(1).await.remove(0);
    assert!(matches!(&gone.action, Action::Delete { target } if target.as_str() == answer));
    assert_ne!(root, answer);
    house.hears_nothing_more().await;
}

#[tokio::test]
async fn an_answer_that_its_author_deletes_while_the_thread_is_still_to_go_is_taken_back() {
    for listens in [true, false] {
        let (ground, mut house) = with_thread().await;
        let answer = ground.posts()[1].id.clone();
        let out = Fault::Html { status: 502 };
        ground.sim.faults().next("DELETE posts/:id", out, 1);
        house.happens("$3", delete("$1")).await;
        let is_asked = house.until("it was asked for", || {
            ground.sim.calls().contains_key("DELETE posts/:id")
        });
        tokio::select! {
            _ = house.deliver() => panic!("it was settled"),
            () = is_asked => {}
        }
        if listens {
            ground.sim.delete(&answer);
        } else {
            house = house.rebuild(&ground).await;
            ground.sim.delete(&answer);
            house.listen().await;
        }
        let gone = house.heard(1).await.remove(0);
        assert!(matches!(&gone.action, Action::Delete { target } if target.as_str() == answer));
        house.deliver().await;
        assert!(ground.texts().is_empty());
        house.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn names_follow_the_server_into_the_text_and_back() {
    let mut ground = Ground::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    ground.names = Attribution::Override;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.deliver().await;
    ground.sim.allow_overrides(false);
    ground.say("seen");
    house.heard(1).await;
    house.said("$2", "two").await;
    house.happens("$3", edit("$1", "one, corrected")).await;
    house.deliver().await;
    ground.sim.allow_overrides(true);
    ground.say("seen again");
    house.heard(1).await;
    house.said("$4", "three").await;
    house.deliver().await;
    assert_eq!(
        ground.read(),
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
    let mut ground = Ground::with(Options {
        overrides: true,
        ..Options::default()
    })
    .await;
    ground.names = Attribution::Override;
    let house = House::start(&ground).await;
    let waves = Action::Post {
        body: Body::plain("waves"),
        style: Style::Emote,
        reply_to: None,
        thread: None,
    };
    house.happens("$1", waves).await;
    house.deliver().await;
    assert_eq!(ground.read(), ["Ann: \\* waves"]);
}

#[tokio::test]
async fn a_channel_that_cannot_be_opened_says_what_it_may_be() {
    let ground = Ground::new().await;
    let cellar = [&ground.bob];
    ground.sim.add_channel(&ground.team, "cellar", "P", &cellar);
    let members = [&ground.bridge, &ground.bob];
    let attic = ground.sim.add_channel(&ground.team, "attic", "O", &members);
    ground.sim.archive(&attic.id);
    ground.sim.add_channel(&ground.team, "old", "O", &members);
    let silo = ground.silo();
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
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    house.said("$1", "one").await;
    house.happens("$2", react("$1", "🎉")).await;
    house.deliver().await;
    assert_eq!(ground.posts()[0].reactions.len(), 1);
    ground.sim.archive(&ground.channel.id);
    house.happens("$3", unreact("$1", "🎉")).await;
    let asked = "DELETE users/:id/posts/:post/reactions/:name";
    let is_asked = house.until("it was asked for", || {
        ground.sim.calls().contains_key(asked)
    });
    tokio::select! {
        _ = house.deliver() => panic!("it was given up"),
        () = is_asked => {}
    }
    ground.sim.unarchive(&ground.channel.id);
    house.deliver().await;
    assert!(ground.posts()[0].reactions.is_empty());
    assert_eq!(house.tally(Side::Silo).await.failed, 0);
}

#[tokio::test]
async fn an_archived_channel_is_closed_until_it_is_restored() {
    let ground = Ground::new().await;
    let house = House::start(&ground).await;
    ground.sim.archive(&ground.channel.id);
    house
        .until("the channel is closed", || house.silo.closed() == 1)
        .await;
    // Nor is it open for a connection that finds it so.
    let looks = || ground.sim.calls()["GET channels/:id"];
    let before = looks();
    ground.sim.cut(Cut::Close);
    house
        .until("it is looked at again", || looks() > before)
        .await;
    // The next look begins when this one has ended.
    let before = looks();
    ground.sim.join(&ground.channel.id, &ground.bridge.id);
    house
        .until("it is looked at once more", || looks() > before)
        .await;
    assert_eq!(house.silo.closed(), 1);
    ground.sim.unarchive(&ground.channel.id);
    house
        .until("the channel is open", || house.silo.closed() == 0)
        .await;
    ground.say("back again");
    assert_eq!(house.heard_texts(1).await, ["back again"]);
}
