//! The Matrix side against a real Synapse: login, encryption, gaps, late keys, invites, sending.

mod audit;
mod bare;
mod claiming;
mod encrypting;
mod entering;
mod exclusive;
mod late_keys;
mod lease;
mod overlap;
mod proxy;
mod unanswered;
mod unknown_device;
mod verifying;
mod expired;
mod before_link;
mod trusting;
mod switching;
mod forging;
mod unsigned;

use std::{path::PathBuf, sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    inbox::{Batch, Inbox, Signals},
    message::{Action, Message, Style},
    outlet::{Content, Done, Outcome, Outlet, SendError, Step},
    secret::Secret,
};
use footbridge_matrix::{
    Device, Homeserver, Matrix, MatrixConfig, MatrixError, Timeouts, Trust,
    account::{LoggedIn, Login, login},
    session::{self, SessionState},
};
use footbridge_store::{
    Consent, Copy, Flag, Gap, LaneId, Place, PortalSpec, QueueHead, RemoteId, Side, Store, StoreKey,
};
use footbridge_testbed::synapse::{Registered, Synapse};
use footbridge_testbed::{
    client::{Identity, SeenEvent, TestClient},
    scenario::undecryptable_event,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "correct horse battery staple";

/// How long a test waits for an expected event; on a busy machine one step of several processes takes a minute.
const LIMIT: Duration = Duration::from_mins(3);

/// The Matrix side of a bridge, with a portal to a channel that no silo serves.
struct TestBridge {
    directory: tempfile::TempDir,
    user: String,
    store: Store,
    key: StoreKey,
    clock: Clock,
    config: MatrixConfig,
    matrix: Option<Arc<Matrix>>,
    listening: JoinSet<Result<(), MatrixError>>,
    stop: CancellationToken,
}

impl TestBridge {
    async fn new(synapse: &Synapse) -> Self {
        let user = synapse.register(&unique("bridge"), PASSWORD).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let key = StoreKey::read_or_create(&directory.path().join("key")).unwrap();
        let store = Store::open(&directory.path().join("data"), &key)
            .await
            .unwrap();
        Self {
            store,
            key,
            clock: Clock::start(),
            config: MatrixConfig {
                inviters: Vec::new(),
                greeting: String::new(),
                homeserver: Homeserver::Url(synapse.url().parse().unwrap()),
                user: user.as_str().try_into().unwrap(),
                password_file: None,
                recovery_key_file: None,
                device_name: "Footbridge".into(),
                key_wait: Duration::from_secs(1),
                admins: Vec::new(),
                timeouts: Timeouts::default(),
            },
            user,
            directory,
            matrix: None,
            listening: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// A bridge that is logged in.
    async fn ready(synapse: &Synapse) -> Self {
        let mut bridge = Self::new(synapse).await;
        bridge.login(None).await.unwrap();
        bridge.open(Trust::CrossSigned).await;
        bridge
    }

    async fn login(&self, recovery_key: Option<&str>) -> Result<LoggedIn, MatrixError> {
        login(Login {
            store: self.store.clone(),
            key: &self.key,
            config: self.config.clone(),
            password: Secret::new(PASSWORD.into()),
            recovery_key: recovery_key.map(|key| Secret::new(key.into())),
            http: http(),
            clock: self.clock,
            progress: &|_| {},
        })
        .await
    }

    async fn open(&mut self, trust: Trust) {
        let opened = Matrix::open(
            self.store.clone(),
            &self.key,
            self.config.clone(),
            trust,
            http(),
            self.clock,
        );
        self.matrix = Some(opened.await.unwrap());
    }

    fn matrix(&self) -> &Arc<Matrix> {
        self.matrix.as_ref().unwrap()
    }

    fn device(&self) -> &Device {
        self.matrix().device()
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        self.device().outlet()
    }

    /// How many events were refused in this class.
    fn refused(&self, class: &str) -> u64 {
        self.matrix().network().security_counts()[class]
    }

    fn inbox(&self) -> Inbox {
        Inbox::new(self.store.clone(), Signals::default(), self.clock)
    }

    /// Links the room to a new channel; returns the lane toward the channel.
    async fn portal(&self, room: &str) -> LaneId {
        let channel = unique("channel");
        let spec = PortalSpec {
            room: room.into(),
            silo: "gitter".into(),
            channel: channel.clone(),
        };
        let place = Place::new("gitter", &channel);
        let portal = self
            .store
            .open_portal(&spec, &Place::room(room), &place, self.clock.now())
            .await;
        LaneId {
            portal: portal.unwrap().id,
            toward: Side::Silo,
        }
    }

    /// Waits until the portal of this lane lacks consent, and gives it.
    async fn agree(&self, lane: LaneId) {
        let lacks = async {
            while self.store.lacking_consent().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = timeout(LIMIT, lacks).await;
        waited.expect("a sync shows the encryption");
        let consent = Consent {
            by: "@ann:x".to_owned(),
            text_version: 1,
            effective_at: self.clock.now(),
        };
        let agreed = self
            .store
            .record_consent(lane.portal, consent, self.clock.now());
        agreed.await.unwrap();
    }

    fn listen(&mut self, room: &str) {
        self.listen_to(&[room]);
    }

    fn listen_to(&mut self, rooms: &[&str]) {
        self.stop = CancellationToken::new();
        let (matrix, inbox) = (self.matrix().clone(), self.inbox());
        let rooms = rooms.iter().map(|room| Place::room(room)).collect();
        let stop = self.stop.clone();
        self.listening
            .spawn(async move { matrix.device().listen(rooms, inbox, stop).await });
    }

    /// Waits until a sync has shown that the bridge is in the room.
    async fn entered(&self, room: &str) {
        let waited = timeout(LIMIT, async {
            let place = Place::room(room);
            while !self.device().encryption().await.contains_key(&place) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("a sync shows the room");
    }

    async fn rest(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.listening.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    /// Stops the sync loop, closes the account and opens it again on the same files.
    async fn reopen(&mut self) {
        self.rest().await;
        self.matrix = None;
        self.open(Trust::CrossSigned).await;
    }

    /// The next message of the lane, which counts as delivered afterwards.
    async fn next(&self, lane: LaneId) -> Message {
        let waited = timeout(LIMIT, async {
            loop {
                if let QueueHead::Ready(delivery) =
                    self.store.queue_head(lane, self.clock.now()).await.unwrap()
                {
                    let copy = Copy {
                        remote: RemoteId(unique("copy")),
                        thread: None,
                        sent_at: self.clock.now(),
                        file: None,
                    };
                    self.store
                        .complete_step(delivery.id, Some(&copy), None, true, self.clock.now())
                        .await
                        .unwrap();
                    return Message::from_bytes(&delivery.payload).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("a message arrives")
    }

    /// How many messages of the lane this rule has skipped; waits for the first.
    async fn skipped(&self, lane: LaneId, rule: &str) -> u64 {
        let began = tokio::time::Instant::now();
        while began.elapsed() < LIMIT {
            let tallies = self.store.lane_counters().await.unwrap();
            let count = tallies
                .iter()
                .filter(|tally| tally.lane == lane)
                .flat_map(|tally| &tally.skipped)
                .find(|(name, _)| name.as_str() == rule)
                .map_or(0, |(_, count)| *count);
            if count > 0 {
                return count;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        0
    }

    async fn post(&self, room: &str, key: &str, text: &str) -> Result<Done, SendError> {
        let step = Step::Post {
            content: content(text),
            thread: None,
            reply_to: None,
        };
        self.outlet().perform(&Place::room(room), key, &step).await
    }
}

/// A person, and an encrypted room that the bridge has a portal to and listens in.
struct Scene {
    bridge: TestBridge,
    person: TestClient,
    room: String,
    lane: LaneId,
    _files: tempfile::TempDir,
}

impl Scene {
    async fn new(synapse: &Synapse, encrypted: bool) -> Self {
        let mut bridge = TestBridge::ready(synapse).await;
        let (person, files) = person(synapse, Identity::New).await;
        let invited = [bridge.user.clone()];
        let room = person
            .create_room("A room", encrypted, &invited)
            .await
            .unwrap();
        let lane = bridge.portal(&room).await;
        bridge.listen(&room);
        wait_for_member(&person, &room, &bridge.user, "join").await;
        bridge.entered(&room).await;
        Self {
            bridge,
            person,
            room,
            lane,
            _files: files,
        }
    }
}

async fn person(synapse: &Synapse, identity: Identity) -> (TestClient, tempfile::TempDir) {
    let name = unique("person");
    synapse.register(&name, PASSWORD).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let person =
        TestClient::login_as(&synapse.url(), &name, PASSWORD, files.path(), identity).await;
    (person.unwrap(), files)
}

/// Syncs until the user has this membership in the room.
async fn wait_for_member(
    person: &TestClient,
    room: &str,
    user: &str,
    membership: &str,
) -> SeenEvent {
    wait_for(person, |seen| {
        seen.room == room
            && seen.event_type == "m.room.member"
            && seen.sender == user
            && seen.content["membership"] == membership
    })
    .await
}

async fn wait_for(person: &TestClient, wanted: impl Fn(&SeenEvent) -> bool) -> SeenEvent {
    let waited = timeout(LIMIT, async {
        loop {
            let seen = person.sync(Duration::from_secs(1)).await.unwrap();
            if let Some(found) = seen.into_iter().find(|seen| wanted(seen)) {
                return found;
            }
        }
    });
    waited.await.expect("the person receives it")
}

fn http() -> reqwest::Client {
    footbridge_core::http_client::client().unwrap()
}

fn unique(stem: &str) -> String {
    format!("{stem}{:016x}", rand::random::<u64>())
}

fn content(text: &str) -> Content {
    Content {
        mentions: Vec::new(),
        author: None,
        text: text.into(),
        html: None,
        style: Style::Text,
    }
}

fn text_of(message: &Message) -> String {
    match &message.action {
        Action::Post { body, .. } | Action::Edit { body, .. } => body.to_plain(),
        Action::Delete { target } => format!("deleted {target}"),
        Action::React { key, .. } | Action::Unreact { key, .. } | Action::Marker { key, .. } => {
            key.clone()
        }
        Action::Unsupported { summary } | Action::System { summary } => summary.clone(),
        Action::Bridge { text, .. } => text.clone(),
    }
}

/// A request by a user without any SDK.
pub async fn raw(
    synapse: &Synapse,
    user: &Registered,
    method: &str,
    path: &str,
    body: Value,
) -> Value {
    let url = format!("{}/_matrix/client/v3/{path}", synapse.url());
    let request = http()
        .request(method.parse().unwrap(), url)
        .bearer_auth(&user.access_token);
    let request = if method == "GET" {
        request
    } else {
        request.json(&body)
    };
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.unwrap()
}

/// The present end of the room, as a position to page backwards from.
pub async fn end_of(synapse: &Synapse, user: &Registered, room: &str) -> String {
    let path = format!("rooms/{room}/messages?dir=b&limit=1");
    let page = raw(synapse, user, "GET", &path, Value::Null).await;
    page["start"].as_str().unwrap().to_owned()
}

pub async fn raw_member(synapse: &Synapse, person: &TestClient, room: &str) -> Registered {
    let user = synapse
        .register_session(&unique("raw"), PASSWORD)
        .await
        .unwrap();
    person.invite(room, &user.user_id).await.unwrap();
    raw(
        synapse,
        &user,
        "POST",
        &format!("rooms/{room}/join"),
        json!({}),
    )
    .await;
    user
}

/// Sends an encrypted event whose room key nobody has.
pub async fn send_undecryptable(synapse: &Synapse, user: &Registered, room: &str, session: &str) {
    let path = format!("rooms/{room}/send/m.room.encrypted/{}", unique("t"));
    raw(synapse, user, "PUT", &path, undecryptable_event(session)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn login_makes_a_signed_device_and_is_never_repeated() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bridge = TestBridge::new(synapse).await;
    let first = bridge.login(None).await.unwrap();
    assert!(first.recovery_key.is_some());
    assert!(first.face.ed25519.is_some() && first.face.master_key.is_some());
    let second = bridge.login(None).await.unwrap();
    assert_eq!(second.face, first.face);
    assert_eq!(second.recovery_key, None, "a recovery key is shown once");
    // Opening checks that the device is cross-signed.
    bridge.open(Trust::CrossSigned).await;

    let wrong = TestBridge::new(synapse).await;
    let refused = login(Login {
        store: wrong.store.clone(),
        key: &wrong.key,
        config: wrong.config.clone(),
        password: Secret::new("wrong".into()),
        recovery_key: None,
        http: http(),
        clock: wrong.clock,
        progress: &|_| {},
    })
    .await;
    assert!(
        matches!(refused, Err(MatrixError::Refused(_))),
        "{refused:?}"
    );
    assert!(wrong.store.relay_account().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_an_identity_is_joined_by_its_recovery_key() {
    let synapse = Synapse::shared().await.unwrap();
    let bridge = TestBridge::new(synapse).await;
    let files = tempfile::tempdir().unwrap();
    let owner = TestClient::login(&synapse.url(), &bridge.user, PASSWORD, files.path())
        .await
        .unwrap();
    let recovery_key = owner.make_recovery_key().await.unwrap();

    let without = bridge.login(None).await;
    assert!(
        matches!(without, Err(MatrixError::Identity(_))),
        "{without:?}"
    );
    let device = bridge
        .store
        .relay_account()
        .await
        .unwrap()
        .unwrap()
        .info
        .device_id;
    let wrong = bridge.login(Some("EsTc nonsense")).await;
    assert!(matches!(wrong, Err(MatrixError::Identity(_))), "{wrong:?}");
    let joined = bridge.login(Some(&recovery_key)).await.unwrap();
    assert_eq!(
        joined.face.device_id, device,
        "the interrupted login was finished"
    );
    assert_eq!(
        joined.recovery_key, None,
        "the key was the owner's, not made here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_encrypted_room_have_names_and_steps_are_sent_there_encrypted_and_once() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let first = person.say(&room, "hello from the room").await.unwrap();
    let message = bridge.next(lane).await;
    assert_eq!(text_of(&message), "hello from the room");
    assert_eq!(message.sender.id, person.user_id());
    assert!(
        person.user_id().contains(&message.sender.name),
        "{}",
        message.sender.name
    );
    person.edit(&room, &first, "hello again").await.unwrap();
    let edit = bridge.next(lane).await;
    assert!(matches!(&edit.action, Action::Edit { target, .. } if target.as_str() == first));
    assert_eq!(text_of(&edit), "hello again");
    person.redact(&room, &first).await.unwrap();
    assert_eq!(
        text_of(&bridge.next(lane).await),
        format!("deleted {first}")
    );

    let Ok(Done::Created(copy)) = bridge.post(&room, "key-1", "from the channel").await else {
        panic!()
    };
    let again = bridge
        .post(&room, "key-1", "from the channel")
        .await
        .unwrap();
    assert!(
        matches!(again, Done::Created(same) if same.remote == copy.remote),
        "one key, one event"
    );
    let seen = wait_for(&person, |seen| seen.event_id == copy.remote.as_str()).await;
    assert!(seen.encrypted && !seen.undecryptable);
    assert_eq!(seen.content["body"], "from the channel");
    let place = Place::room(&room);
    let replace = Step::Edit {
        target: copy.remote.clone(),
        content: content("changed"),
        is_caption: false,
        fallback: None,
    };
    bridge
        .outlet()
        .perform(&place, "key-2", &replace)
        .await
        .unwrap();
    let seen = wait_for(&person, |seen| {
        seen.content["m.new_content"]["body"] == "changed"
    })
    .await;
    assert_eq!(
        seen.content["m.relates_to"]["event_id"],
        copy.remote.as_str()
    );
    for key in ["key-3", "key-4"] {
        let remove = Step::Delete {
            target: copy.remote.clone(),
            by_edit: false,
        };
        let gone = bridge.outlet().perform(&place, key, &remove).await.unwrap();
        assert_eq!(
            gone,
            Done::Deleted(copy.remote.clone()),
            "gone already is success"
        );
    }
    // None of the bridge's own messages came back, and the server never saw a plaintext.
    person.say(&room, "last").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "last");
    let stored = synapse.events(&room).await.unwrap();
    assert!(
        stored
            .iter()
            .all(|event| event.event_type != "m.room.message")
    );
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_sent_during_a_downtime_come_once_and_in_order() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    person.say(&room, "before").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "before");
    bridge.reopen().await;
    for number in 0..130 {
        person
            .say(&room, &format!("message {number}"))
            .await
            .unwrap();
    }
    bridge.listen(&room);
    for number in 0..130 {
        assert_eq!(
            text_of(&bridge.next(lane).await),
            format!("message {number}")
        );
    }
    person.say(&room, "after").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "after");
    assert!(bridge.store.gaps(Place::MATRIX).await.unwrap().is_empty());
    // The same account may listen again, and misses nothing in between.
    bridge.rest().await;
    person.say(&room, "between").await.unwrap();
    bridge.listen(&room);
    assert_eq!(text_of(&bridge.next(lane).await), "between");
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_key_comes_later_is_read_then() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let witness = raw_member(synapse, &person, &room).await;
    let mark = person.say(&room, "first").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "first");
    bridge.reopen().await;
    person.discard_room_key(&room).await.unwrap();
    person.say(&room, "with a new key").await.unwrap();
    // As after a crash with an open gap: the bridge reads history before the sync that brings the room key.
    let gap = Gap {
        place: Place::room(&room),
        from: end_of(synapse, &witness, &room).await,
        stop: Some(RemoteId(mark)),
    };
    bridge
        .inbox()
        .accept(Batch {
            gaps: vec![gap],
            ..Batch::default()
        })
        .await
        .unwrap();
    bridge.listen(&room);
    assert_eq!(text_of(&bridge.next(lane).await), "with a new key");
    assert!(
        bridge
            .store
            .undecryptable_events(None)
            .await
            .unwrap()
            .is_empty()
    );
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_relayed_unencrypted_where_a_room_was_ever_encrypted() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let intruder = raw_member(synapse, &person, &room).await;
    let path = format!("rooms/{room}/send/m.room.message/1");
    let body = json!({"msgtype": "m.text", "body": "in the clear"});
    raw(synapse, &intruder, "PUT", &path, body).await;
    assert_eq!(bridge.skipped(lane, "plaintext-in-encrypted-room").await, 1);
    bridge.rest().await;

    let Scene {
        mut bridge, room, ..
    } = Scene::new(synapse, false).await;
    bridge
        .post(&room, "a", "plain room, plain text")
        .await
        .unwrap();
    let flags = vec![(Place::room(&room), Flag::EverEncrypted)];
    bridge
        .inbox()
        .accept(Batch {
            flags,
            ..Batch::default()
        })
        .await
        .unwrap();
    let held = bridge.post(&room, "b", "must not be sent").await;
    assert!(
        matches!(
            held,
            Err(SendError::Retry {
                outcome: Outcome::NotDone,
                ..
            })
        ),
        "{held:?}"
    );
    let stored = synapse.events(&room).await.unwrap();
    let messages = stored
        .iter()
        .filter(|event| event.event_type == "m.room.message")
        .count();
    assert_eq!(messages, 1);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_unsigned_device_are_not_relayed() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (stranger, _files) = person_in(synapse, &person, &room, Identity::None).await;
    stranger.say(&room, "believe me").await.unwrap();
    person.say(&room, "trusted").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "trusted");
    assert_eq!(bridge.skipped(lane, "untrusted-device").await, 1);
    bridge.rest().await;
}

async fn person_in(
    synapse: &Synapse,
    host: &TestClient,
    room: &str,
    identity: Identity,
) -> (TestClient, tempfile::TempDir) {
    let (guest, files) = person(synapse, identity).await;
    host.invite(room, &guest.user_id()).await.unwrap();
    guest.join(room).await.unwrap();
    guest.sync(Duration::ZERO).await.unwrap();
    (guest, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_counts_only_from_the_author() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (other, _files) = person_in(synapse, &person, &room, Identity::New).await;
    let event = person.say(&room, "mine").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "mine");
    other.edit(&room, &event, "yours").await.unwrap();
    assert_eq!(bridge.skipped(lane, "foreign-edit").await, 1);
    // The same where the bridge no longer remembers the author.
    bridge.reopen().await;
    bridge.listen(&room);
    other.edit(&room, &event, "yours again").await.unwrap();
    person.edit(&room, &event, "still mine").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "still mine");
    assert_eq!(bridge.skipped(lane, "foreign-edit").await, 2);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_relayed_although_the_homeserver_does_not_name_the_author_of_the_message() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = proxy::scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let event = person.say(&room, "first").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "first");
    bridge.reopen().await;
    proxy
        .rules
        .hide_events
        .store(true, std::sync::atomic::Ordering::SeqCst);
    person.edit(&room, &event, "changed").await.unwrap();
    bridge.listen(&room);
    assert_eq!(text_of(&bridge.next(lane).await), "changed");
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_person_who_shares_the_account_are_relayed() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let key = bridge
        .store
        .relay_account()
        .await
        .unwrap()
        .unwrap()
        .recovery_key
        .unwrap();
    let key = String::from_utf8(key.0.clone()).unwrap();
    let files = tempfile::tempdir().unwrap();
    let identity = Identity::Recovered(key);
    let sharer = TestClient::login_as(
        &synapse.url(),
        &bridge.user,
        PASSWORD,
        files.path(),
        identity,
    )
    .await;
    sharer
        .unwrap()
        .say(&room, "a human behind the bridge")
        .await
        .unwrap();
    assert_eq!(
        text_of(&bridge.next(lane).await),
        "a human behind the bridge"
    );
    drop(person);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invites_to_portals_are_accepted_and_others_refused() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        ..
    } = Scene::new(synapse, true).await;
    let foreign = person
        .create_room("Elsewhere", true, &[bridge.user.clone()])
        .await
        .unwrap();
    let refusal = wait_for_member(&person, &foreign, &bridge.user, "leave").await;
    assert!(
        refusal.content["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );
    assert_eq!(
        bridge.device().encryption().await.get(&Place::room(&room)),
        Some(&true)
    );
    let found = bridge.device().resolve(&room).await.unwrap();
    assert_eq!(found, Place::room(&room));
    let missing = bridge
        .device()
        .resolve(&format!("#nowhere:{}", synapse.server_name()))
        .await;
    assert!(
        matches!(missing, Err(MatrixError::NoRoom(_))),
        "{missing:?}"
    );
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_reported_as_signed_out() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        ..
    } = Scene::new(synapse, false).await;
    let account = bridge.store.relay_account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    let us = Registered {
        user_id: account.info.user_id.clone(),
        access_token: session["access_token"].as_str().unwrap().to_owned(),
        device_id: account.info.device_id.clone(),
    };
    raw(synapse, &us, "POST", "logout", json!({})).await;
    let ended = timeout(LIMIT, bridge.listening.join_next()).await.unwrap();
    let ended = ended.unwrap().unwrap();
    assert!(matches!(ended, Err(MatrixError::SignedOut(_))), "{ended:?}");
    let sent = bridge.post(&room, "x", "too late").await;
    assert!(matches!(sent, Err(SendError::SignedOut { .. })), "{sent:?}");
    drop(person);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_keys_is_refused() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bridge = TestBridge::ready(synapse).await;
    bridge.matrix = None;
    let keys: PathBuf = bridge.directory.path().join("data/devices/1");
    std::fs::remove_dir_all(&keys).unwrap();
    let opened = Matrix::open(
        bridge.store.clone(),
        &bridge.key,
        bridge.config.clone(),
        Trust::CrossSigned,
        http(),
        bridge.clock,
    )
    .await;
    assert!(
        matches!(opened, Err(MatrixError::DatabaseMissing(_))),
        "{opened:?}"
    );
}
