//! B14: what a flood of commands gets, on a real store, and what it must not prevent.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use footbridge_core::{
    clock::Clock,
    inbox::Signals,
    message::{Command, Sender},
    persons::UserIdentities,
};
use footbridge_store::{
    Arrival, Batch, LaneId, Payload, Place, Portal, PortalSpec, Side, Store, StoreKey, Tombstone,
};

use super::super::{
    AlreadyDone, AnswerLimits, Audience, Backend, BackendError, CodeProof, Control, ControlConfig,
    FoundChannel, MemberRights, Successor,
};

/// A backend in which `@mod:x` may decide about every room. Counts the look-ups.
#[derive(Default)]
struct FakeBackend {
    looked: AtomicUsize,
}

#[async_trait]
impl Backend for FakeBackend {
    async fn room(&self, _: &str) -> Result<Place, BackendError> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        Err(BackendError::Unavailable(
            "its server does not answer".into(),
        ))
    }

    async fn member_rights(&self, _: &Place, user: &str) -> Result<MemberRights, BackendError> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        Ok(MemberRights {
            joined: true,
            level: if user == "@mod:x" { 100 } else { 0 },
            to_change_power: 100,
            state_default: 50,
            encrypted: false,
        })
    }

    async fn channel(&self, _: &str, _: &str) -> Result<FoundChannel, BackendError> {
        Err(BackendError::Unavailable(
            "nobody asks for channels here".into(),
        ))
    }

    async fn audience(&self, _: &str, _: &str) -> Audience {
        Audience::default()
    }

    async fn find_code(
        &self,
        _: &str,
        _: &Place,
        _: &str,
    ) -> Result<Option<CodeProof>, BackendError> {
        Ok(None)
    }

    async fn show(&self, _: &Portal) -> Result<(), BackendError> {
        Ok(())
    }

    async fn successor(&self, _: &Tombstone) -> Result<Successor, BackendError> {
        Err(BackendError::Unavailable("nothing moves here".into()))
    }

    async fn identities(&self, _: &str) -> Result<UserIdentities, BackendError> {
        Ok(UserIdentities::default())
    }

    async fn approve(&self, _: &str, _: &str) -> Result<Option<u64>, BackendError> {
        Ok(None)
    }
}

struct Fixture {
    control: Control,
    backend: Arc<FakeBackend>,
    portal: Portal,
    asked: usize,
    _files: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let key = StoreKey::read_or_create(&files.path().join("key")).unwrap();
        let store = Store::open(&files.path().join("data"), &key).await.unwrap();
        let (backend, clock) = (Arc::new(FakeBackend::default()), Clock::start());
        let spec = PortalSpec {
            room: "!r:x".into(),
            silo: "gitter".into(),
            channel: "org/room".into(),
        };
        let (room, channel) = (Place::room("!r:x"), Place::new("gitter", "c1"));
        let portal = store
            .open_portal(&spec, &room, &channel, clock.now())
            .await
            .unwrap();
        let rules = ControlConfig {
            admins: Vec::new(),
            delay: std::time::Duration::ZERO,
            operator: "Example Org".into(),
            disclose_joins: false,
            limits: std::collections::HashMap::new(),
            proving_silos: std::collections::HashMap::new(),
        };
        let control = Control {
            store,
            signals: Signals::default(),
            clock,
            verify: Arc::new(|_, _| String::new()),
            rules: Arc::new(rules),
            backend: backend.clone(),
            shown: Arc::new(AlreadyDone::default()),
            answers: AnswerLimits::default(),
        };
        Self {
            control,
            backend,
            portal,
            asked: 0,
            _files: files,
        }
    }

    /// These people give this command in turn, `times` times in all, at one end, and the bridge handles all of it.
    async fn flood(&mut self, toward: Side, words: &str, who: &[&str], times: usize) {
        let place = match toward {
            Side::Matrix => &self.portal.room,
            Side::Silo => &self.portal.channel,
        };
        let who = who.iter().cycle().take(times);
        let arrivals: Vec<Arrival> = who
            .map(|id| {
                self.asked += 1;
                let command = Command {
                    sender: Sender {
                        id: (*id).to_owned(),
                        name: "A".into(),
                        avatar: None,
                    },
                    arguments: words.to_owned(),
                    target: None,
                    thread: None,
                    moderator: false,
                    by_reaction: false,
                    encrypted: false,
                };
                Arrival {
                    place: place.clone(),
                    event_id: format!("asked-{}", self.asked).as_str().into(),
                    message: None,
                    thread: None,
                    sent_at: self.control.clock.now(),
                    payload: Payload::Command(command.to_bytes().unwrap()),
                }
            })
            .collect();
        let batch = Batch {
            arrivals,
            ..Batch::default()
        };
        let (store, now) = (&self.control.store, self.control.clock.now());
        store.accept(batch, now).await.unwrap();
        for question in store.commands().await.unwrap() {
            self.control.answer(question).await.unwrap();
        }
        assert!(store.commands().await.unwrap().is_empty(), "all are closed");
    }

    /// How many notices are pending at this end.
    async fn pending(&self, toward: Side) -> u64 {
        let lane = LaneId {
            portal: self.portal.id,
            toward,
        };
        let all_counters = self.control.store.lane_counters().await.unwrap();
        all_counters
            .iter()
            .find(|counters| counters.lane == lane)
            .unwrap()
            .pending
    }

    async fn is_paused(&self) -> bool {
        let now = self.control.clock.now();
        !self
            .control
            .store
            .portal_holds(now)
            .await
            .unwrap()
            .is_empty()
    }
}

const TEN: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[tokio::test(start_paused = true)]
async fn b14_two_hundred_commands_get_few_replies_from_any_user_and_in_any_place() {
    let all = [
        ("help", 200),
        ("why", 40),
        ("status", 40),
        ("retry", 40),
        ("no such thing", 40),
        ("trust", 40),
        ("verify", 40),
    ];
    for toward in [Side::Matrix, Side::Silo] {
        for (words, times) in all {
            let mut one = Fixture::new().await;
            one.flood(toward, words, &["@ann:x"], times).await;
            let pending = one.pending(toward).await;
            assert_eq!(pending, 11, "{words}: ten answers and a warning");
            let withheld = one.control.answers.withheld();
            let withheld = withheld.values().sum::<u64>();
            assert_eq!(withheld, u64::try_from(times).unwrap() - 10, "{words}");
        }
        let mut ten = Fixture::new().await;
        ten.flood(toward, "help", &TEN, 200).await;
        assert_eq!(ten.pending(toward).await, 25, "twenty, and five warnings");
    }
}

#[tokio::test(start_paused = true)]
async fn b14_what_is_refused_is_looked_up_a_bounded_number_of_times() {
    for words in ["pause", "pause in #room:evil.example", "portal remove"] {
        let mut fixture = Fixture::new().await;
        fixture.flood(Side::Matrix, words, &["@ann:x"], 200).await;
        let looked = fixture.backend.looked.load(Ordering::SeqCst);
        assert!(looked <= 10, "{words}: {looked}");
        assert!(fixture.pending(Side::Matrix).await <= 11, "{words}");
        fixture.flood(Side::Matrix, words, &TEN, 200).await;
        let looked = fixture.backend.looked.load(Ordering::SeqCst);
        assert!(looked <= 110, "{words}: {looked}");
        assert!(fixture.pending(Side::Matrix).await <= 45, "{words}");
        // Whoever has the permission is served all the same, and gets an answer.
        let before = fixture.pending(Side::Matrix).await;
        fixture.flood(Side::Matrix, "pause", &["@mod:x"], 1).await;
        assert!(fixture.is_paused().await, "{words}");
        assert_eq!(fixture.pending(Side::Matrix).await, before + 1, "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn b14_permitted_commands_are_executed_however_often_they_are_sent() {
    let mut fixture = Fixture::new().await;
    fixture.flood(Side::Matrix, "help", &["@mod:x"], 40).await;
    fixture.flood(Side::Matrix, "resume", &["@mod:x"], 40).await;
    fixture.flood(Side::Matrix, "pause", &["@mod:x"], 1).await;
    assert!(fixture.is_paused().await);
    assert!(
        fixture.pending(Side::Matrix).await <= 31,
        "commands have their own limits"
    );
    fixture.flood(Side::Silo, "optout off", &["tom"], 40).await;
    fixture.flood(Side::Silo, "optout", &["tom"], 1).await;
    let tom = (fixture.portal.channel.clone(), "tom".to_owned());
    let store = &fixture.control.store;
    assert_eq!(store.opted_out(vec![tom]).await.unwrap(), [true]);
    assert!(fixture.pending(Side::Silo).await <= 7);
}
