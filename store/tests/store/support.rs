//! The fixture of every test: a store in its own directory, two portals, and short helpers for the operations.

use std::path::{Path, PathBuf};

use footbridge_store::{
    Accepted, Arrival, Batch, Copy, Delivery, LaneCounters, LaneId, Millis, Payload, Place, Portal,
    PortalSpec, QueueHead, RemoteId, Side, Store, StoreKey,
};

pub const NOW: Millis = Millis(1_000_000);

/// One room linked to the channels `a` and `b`, each by a portal.
pub struct Fixture {
    pub home: tempfile::TempDir,
    pub store: Store,
    pub room: Place,
    pub a: Portal,
    pub b: Portal,
}

impl Fixture {
    pub async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path()).await;
        let room = Place::room("!room");
        let a = portal(&store, &room, "a").await;
        let b = portal(&store, &room, "b").await;
        Self {
            home,
            store,
            room,
            a,
            b,
        }
    }

    /// A fixture with the portal to channel `a` only.
    pub async fn with_one_portal() -> Self {
        let fixture = Self::new().await;
        fixture
            .store
            .deactivate_unlisted_portals(&[fixture.a.id], NOW)
            .await
            .unwrap();
        fixture
    }

    pub async fn restart(self) -> Self {
        let Self {
            home,
            store,
            room,
            a,
            b,
        } = self;
        drop(store);
        let store = open(home.path()).await;
        Self {
            home,
            store,
            room,
            a,
            b,
        }
    }

    pub fn data(&self) -> PathBuf {
        data(self.home.path())
    }

    pub async fn accept(&self, arrivals: Vec<Arrival>) -> Vec<Accepted> {
        let batch = Batch {
            arrivals,
            ..Batch::default()
        };
        self.store.accept(batch, NOW).await.unwrap()
    }

    pub async fn ready(&self, lane: LaneId) -> Delivery {
        match self.store.queue_head(lane, NOW).await.unwrap() {
            QueueHead::Ready(delivery) => *delivery,
            other => panic!("{lane:?} has {other:?}"),
        }
    }

    pub async fn deliver(&self, lane: LaneId, remote: &str) -> Delivery {
        let delivery = self.ready(lane).await;
        self.store
            .complete_step(delivery.id, Some(&copy(remote)), None, true, NOW)
            .await
            .unwrap();
        delivery
    }

    pub async fn counters(&self, lane: LaneId) -> LaneCounters {
        let tallies = self.store.lane_counters().await.unwrap();
        tallies
            .into_iter()
            .find(|counters| counters.lane == lane)
            .unwrap()
    }

    /// A second connection to the database, past the store.
    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.data().join("footbridge.db")).unwrap()
    }
}

pub fn data(home: &Path) -> PathBuf {
    home.join("data")
}

pub fn key(home: &Path) -> StoreKey {
    StoreKey::read_or_create(&home.join("footbridge.key")).unwrap()
}

pub async fn open(home: &Path) -> Store {
    Store::open(&data(home), &key(home)).await.unwrap()
}

pub async fn portal(store: &Store, room: &Place, channel: &str) -> Portal {
    let spec = PortalSpec {
        room: "#room:example.org".to_owned(),
        silo: "gitter".to_owned(),
        channel: channel.to_owned(),
    };
    store
        .open_portal(&spec, room, &Place::new("gitter", channel), NOW)
        .await
        .unwrap()
}

pub fn to_silo(portal: &Portal) -> LaneId {
    LaneId {
        portal: portal.id,
        toward: Side::Silo,
    }
}

pub fn to_matrix(portal: &Portal) -> LaneId {
    LaneId {
        portal: portal.id,
        toward: Side::Matrix,
    }
}

pub fn arrival(place: &Place, id: &str, payload: Payload) -> Arrival {
    Arrival {
        place: place.clone(),
        event_id: RemoteId::from(id),
        message: Some(RemoteId::from(id)),
        thread: None,
        sent_at: NOW,
        payload,
    }
}

pub fn payload(place: &Place, id: &str) -> Arrival {
    arrival(place, id, Payload::Ready(id.as_bytes().to_vec()))
}

pub fn undecryptable_arrival(place: &Place, id: &str, key_wait_until: i64) -> Arrival {
    let payload = Payload::Undecryptable {
        session: format!("session of {id}"),
        raw: id.as_bytes().to_vec(),
        key_wait_until: Millis(key_wait_until),
    };
    arrival(place, id, payload)
}

pub fn copy(remote: &str) -> Copy {
    Copy {
        remote: RemoteId::from(remote),
        thread: None,
        sent_at: NOW,
        file: None,
    }
}

pub fn balances(counters: &LaneCounters) -> bool {
    let skipped: u64 = counters.skipped.iter().map(|(_, count)| count).sum();
    counters.accepted == counters.delivered + counters.failed + skipped + counters.pending
}
