//! What happens to a portal request over time, on a real store: nobody posts the code, nobody agrees, and the asker has
//! lost the permission.

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

/// A backend in which the code is in the channel or not, and everybody in the room has these rights.
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

    async fn find_code(
        &self,
        _: &str,
        _: &Place,
        _: &str,
    ) -> Result<Option<CodeProof>, BackendError> {
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

struct Fixture {
    control: Control,
    backend: Arc<FakeBackend>,
    room: Place,
    _files: tempfile::TempDir,
}

impl Fixture {
    /// Somebody has requested a portal, in a room of this kind; the request is valid for `seconds_left` more seconds.
    async fn with_request(encrypted: bool, shown: bool, seconds_left: i64) -> Self {
        let files = tempfile::tempdir().unwrap();
        let key = StoreKey::read_or_create(&files.path().join("key")).unwrap();
        let store = Store::open(&files.path().join("data"), &key).await.unwrap();
        let rights = MemberRights {
            joined: true,
            level: 100,
            to_change_power: 100,
            state_default: 50,
            encrypted,
        };
        let backend = Arc::new(FakeBackend {
            shown,
            member_rights: Mutex::new(rights),
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
            room,
            _files: files,
        }
    }

    /// The next notice in the queue of the room's management portal.
    async fn next_notice(&self) -> Option<String> {
        let portals = self.control.store.portals().await.unwrap();
        let portal_of_room = portals.iter().find(|portal| portal.room == self.room)?;
        let lane = LaneId {
            portal: portal_of_room.id,
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
async fn p14_a_code_that_is_not_posted_in_time_expires() {
    let fixture = Fixture::with_request(false, false, 60).await;
    assert!(fixture.run_once().await, "it is looked for again");
    assert_eq!(fixture.next_notice().await, None);
    // Also where the code is there when the request has expired.
    let fixture = Fixture::with_request(false, true, -1).await;
    assert!(!fixture.run_once().await);
    assert!(fixture.is_over().await);
    let notice = fixture.next_notice().await.unwrap();
    assert!(notice.contains("Nobody posted the code"), "{notice}");
}

#[tokio::test]
async fn p15_an_encrypted_room_without_consent_in_time_is_not_linked() {
    let fixture = Fixture::with_request(true, true, 60).await;
    fixture.run_once().await;
    assert!(!fixture.is_over().await, "a day for consent");
    let notice = fixture.next_notice().await.unwrap();
    assert!(
        notice.contains("!bridge consent gitter org/room"),
        "{notice}"
    );
    let request = fixture
        .control
        .store
        .portal_requests()
        .await
        .unwrap()
        .remove(0);
    let (id, past) = (request.id, footbridge_store::Millis(1));
    fixture
        .control
        .store
        .confirm_portal_request(id, past, past)
        .await
        .unwrap();
    fixture.run_once().await;
    assert!(fixture.is_over().await);
}

#[tokio::test]
async fn p14_a_user_who_lost_the_power_before_the_code_was_posted_is_refused() {
    let fixture = Fixture::with_request(false, true, 60).await;
    fixture.backend.member_rights.lock().await.level = 49;
    fixture.run_once().await;
    assert!(fixture.is_over().await);
    let notice = fixture.next_notice().await.unwrap();
    assert!(notice.contains("50 is required"), "{notice}");
    // With the power level, the room is linked.
    let fixture = Fixture::with_request(false, true, 60).await;
    fixture.run_once().await;
    assert!(
        fixture
            .control
            .store
            .portal_requests()
            .await
            .unwrap()
            .is_empty()
    );
    assert!(!fixture.is_over().await);
}
