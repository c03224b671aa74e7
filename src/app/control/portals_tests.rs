//! What time does to a wish, on a real store: nobody posts the code, nobody agrees, and whoever asked may no longer.

use std::sync::Arc;

use async_trait::async_trait;
use footbridge_core::{clock::Clock, inbox::Signals, message::Message, persons::UserIdentities};
use footbridge_store::{
    LaneId, Place, Portal, PortalRequest, PortalSpec, QueueHead, Side, Store, StoreKey, Tombstone,
};
use tokio::sync::Mutex;

use super::super::{
    AlreadyDone, AnswerLimits, Audience, Backend, BackendError, CodeProof, Control, ControlConfig,
    FoundChannel, MemberRights, Successor,
};

/// Both sides: the code stands in the channel or does not, and everybody in the room is of this standing.
struct FakeBackend {
    shown: bool,
    member_rights: Mutex<MemberRights>,
}

#[async_trait]
impl Backend for FakeBackend {
    async fn room(&self, name: &str) -> Result<Place, BackendError> {
        Ok(Place::room(name))
    }

    async fn member_rights(&self, _: &Place, _: &str) -> Result<MemberRights, BackendError> {
        Ok(*self.member_rights.lock().await)
    }

    async fn channel(&self, silo: &str, name: &str) -> Result<FoundChannel, BackendError> {
        let (place, name) = (Place::new(silo, name), name.to_owned());
        Ok(FoundChannel { place, name })
    }

    async fn audience(&self, _: &str, _: &str) -> Audience {
        Audience::default()
    }

    async fn heard(&self, _: &str, _: &Place, _: &str) -> Result<Option<CodeProof>, BackendError> {
        let by = "Mary".to_owned();
        let in_control = None;
        Ok(self.shown.then_some(CodeProof { by, in_control }))
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

struct Ground {
    control: Control,
    sides: Arc<FakeBackend>,
    room: Place,
    _files: tempfile::TempDir,
}

impl Ground {
    /// Somebody has asked, in a room of this kind; the wish is good for so many seconds more.
    async fn with_a_wish(encrypted: bool, shown: bool, seconds_left: i64) -> Self {
        let files = tempfile::tempdir().unwrap();
        let key = StoreKey::read_or_create(&files.path().join("key")).unwrap();
        let store = Store::open(&files.path().join("data"), &key).await.unwrap();
        let standing = MemberRights {
            joined: true,
            level: 100,
            to_change_power: 100,
            state_default: 50,
            encrypted,
        };
        let sides = Arc::new(FakeBackend {
            shown,
            member_rights: Mutex::new(standing),
        });
        let clock = Clock::start();
        let (room, now) = (Place::room("!r:x"), clock.now());
        store.open_management_room(&room, None, now).await.unwrap();
        let mut expires_at = now;
        expires_at.0 += seconds_left * 1_000;
        let request = PortalRequest {
            id: 0,
            spec: PortalSpec {
                room: "!r:x".into(),
                silo: "gitter".into(),
                channel: "org/room".into(),
            },
            room: room.clone(),
            channel: Place::new("gitter", "c1"),
            asked_by: "@me:x".into(),
            asked_in: room.clone(),
            code: "footbridge-123456789012".into(),
            expires_at,
            confirmed_at: None,
        };
        store.add_portal_request(request).await.unwrap();
        let rules = ControlConfig {
            admins: vec!["@me:x".into()],
            delay: std::time::Duration::from_mins(1),
            operator: "Example Org".into(),
            disclose_joins: false,
            limits: std::collections::HashMap::new(),
        };
        let control = Control {
            store,
            signals: Signals::default(),
            clock,
            verify: Arc::new(|_, _| String::new()),
            rules: Arc::new(rules),
            backend: sides.clone(),
            shown: Arc::new(AlreadyDone::default()),
            answers: AnswerLimits::default(),
        };
        Self {
            control,
            sides,
            room,
            _files: files,
        }
    }

    /// What the desk of the room has to say next.
    async fn said(&self) -> Option<String> {
        let portals = self.control.store.portals().await.unwrap();
        let desk = portals.iter().find(|portal| portal.room == self.room)?;
        let lane = LaneId {
            portal: desk.id,
            toward: Side::Matrix,
        };
        match self
            .control
            .store
            .queue_head(lane, self.control.clock.now())
            .await
            .unwrap()
        {
            QueueHead::Ready(delivery) => {
                let message = Message::from_bytes(&delivery.payload).unwrap();
                Some(format!("{:?}", message.action))
            }
            _ => None,
        }
    }

    async fn run_once(&self) -> bool {
        self.control.check_portal_requests().await.unwrap()
    }

    async fn is_over(&self) -> bool {
        let portals = self.control.store.portals().await.unwrap();
        let linked = portals.iter().any(|portal| portal.spec.silo == "gitter");
        self.control
            .store
            .portal_requests()
            .await
            .unwrap()
            .is_empty()
            && !linked
    }
}

#[tokio::test]
async fn p14_a_code_that_nobody_posts_in_time_is_worth_nothing_afterwards() {
    let ground = Ground::with_a_wish(false, false, 60).await;
    assert!(ground.run_once().await, "it is looked for again");
    assert_eq!(ground.said().await, None);
    // Even a code that stands there when the time is over.
    let ground = Ground::with_a_wish(false, true, -1).await;
    assert!(!ground.run_once().await);
    assert!(ground.is_over().await);
    let said = ground.said().await.unwrap();
    assert!(said.contains("Nobody posted the code"), "{said}");
}

#[tokio::test]
async fn p15_an_encrypted_room_that_does_not_agree_in_time_is_joined_to_nothing() {
    let ground = Ground::with_a_wish(true, true, 60).await;
    ground.run_once().await;
    assert!(!ground.is_over().await, "a day for consent");
    let said = ground.said().await.unwrap();
    assert!(said.contains("!bridge consent gitter org/room"), "{said}");
    let request = ground
        .control
        .store
        .portal_requests()
        .await
        .unwrap()
        .remove(0);
    let (id, past) = (request.id, footbridge_store::Millis(1));
    ground
        .control
        .store
        .confirm_portal_request(id, past, past)
        .await
        .unwrap();
    ground.run_once().await;
    assert!(ground.is_over().await);
}

#[tokio::test]
async fn p14_whoever_lost_the_power_before_the_code_was_posted_is_refused() {
    let ground = Ground::with_a_wish(false, true, 60).await;
    ground.sides.member_rights.lock().await.level = 49;
    ground.run_once().await;
    assert!(ground.is_over().await);
    let said = ground.said().await.unwrap();
    assert!(said.contains("it takes 50"), "{said}");
    // With it, the room is joined.
    let ground = Ground::with_a_wish(false, true, 60).await;
    ground.run_once().await;
    assert!(
        ground
            .control
            .store
            .portal_requests()
            .await
            .unwrap()
            .is_empty()
    );
    assert!(!ground.is_over().await);
}
