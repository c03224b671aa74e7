//! The one door in: what a listener heard is written to the journal, then the bells of the lanes ring.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use footbridge_store::{
    Accepted, Arrival, Batch, EntryId, Error, LaneId, Opened, Payload, Place, RemoteId, Resolved,
    Side, Store, Telling,
};
use tokio::sync::Notify;

use crate::{
    clock::Clock,
    crash,
    message::{Action, Message},
};

/// The rule for what its author marked as to be kept where it is written.
const KEPT_HERE: &str = "nobridge";
/// The rule for messages of people who do not want to be carried over.
const OPTED_OUT: &str = "opted-out";

/// The door. Cheap to clone; every listener has one.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: Store,
    bells: Bells,
    clock: Clock,
}

impl Inbox {
    /// A door into this store.
    #[must_use]
    pub fn new(store: Store, bells: Bells, clock: Clock) -> Self {
        Self {
            store,
            bells,
            clock,
        }
    }

    /// Writes a batch down. When this returns the source may be told "received". Answers one [`Accepted`] per
    /// arrival, in order.
    pub async fn accept(&self, mut batch: Batch) -> Result<Vec<Accepted>, Error> {
        crash::point("accept.before");
        let asks = |arrival: &Arrival| matches!(arrival.payload, Payload::Command(_));
        let asked = batch.arrivals.iter().any(asks);
        // What control has to do something about.
        let news =
            !(batch.flags.is_empty() && batch.tombstones.is_empty() && batch.entered.is_empty());
        self.screen(&mut batch).await?;
        let accepted = self.store.accept(batch, self.clock.now()).await?;
        crash::point("accept.after");
        for one in &accepted {
            if let Accepted::New(lanes) = one {
                for lane in lanes {
                    self.bells.ring(*lane);
                }
            }
        }
        if asked || news {
            self.bells.questions.notify_one();
        }
        Ok(accepted)
    }

    /// Keeps here what its author wants to keep here, and notes who wrote the rest.
    async fn screen(&self, batch: &mut Batch) -> Result<(), Error> {
        let mut written = Vec::new();
        for (number, arrival) in batch.arrivals.iter_mut().enumerate() {
            let Some(message) = said(&arrival.payload) else {
                continue;
            };
            let user = message.sender.id.clone();
            if message.stays_here() {
                arrival.payload = Payload::Skipped(KEPT_HERE);
            } else if !matches!(message.action, Action::Delete { .. }) {
                written.push((number, arrival.place.clone(), user.clone()));
            }
            if arrival.message.is_some() {
                let fact = arrival.fact.clone();
                batch.authors.push((arrival.place.clone(), fact, user));
            }
        }
        let people = written
            .iter()
            .map(|(_, place, user)| (place.clone(), user.clone()));
        let stay = self.store.opted_out(people.collect()).await?;
        for ((number, ..), _) in written.iter().zip(stay).filter(|(_, stays)| *stays) {
            if let Some(arrival) = batch.arrivals.get_mut(*number) {
                arrival.payload = Payload::Skipped(OPTED_OUT);
            }
        }
        Ok(())
    }

    /// The same for an entry whose key came late.
    async fn screened(&self, entry: EntryId, payload: Payload) -> Result<Payload, Error> {
        let Some(message) = said(&payload) else {
            return Ok(payload);
        };
        if message.stays_here() {
            return Ok(Payload::Skipped(KEPT_HERE));
        }
        let may_cross = matches!(message.action, Action::Delete { .. })
            || !self.store.entry_stays(entry, &message.sender.id).await?;
        Ok(if may_cross {
            payload
        } else {
            Payload::Skipped(OPTED_OUT)
        })
    }

    /// A late key made an entry readable. Answers whether it turned out to be an old ciphertext under a new event, and
    /// was dropped.
    pub async fn fill(
        &self,
        entry: EntryId,
        payload: Payload,
        opened: Option<Opened>,
    ) -> Result<bool, Error> {
        crash::point("fill.before");
        let asked = matches!(payload, Payload::Command(_));
        let payload = self.screened(entry, payload).await?;
        let now = self.clock.now();
        let read = self.store.fill_opened(entry, payload, opened, now).await?;
        for lane in read.lanes {
            self.bells.ring(lane);
        }
        if asked {
            self.bells.questions.notify_one();
        }
        Ok(read.replayed)
    }

    /// The bridge itself says something in a room, once for each fact.
    pub async fn say(&self, room: &Place, fact: &str, text: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let Ok(letter) = Message::notice(text, now).to_bytes() else {
            return Ok(());
        };
        let portals = self.store.portals().await?;
        // One of several portals of a room is enough: all of them lead to the same people.
        let Some(portal) = portals
            .iter()
            .find(|portal| portal.active && portal.room == *room)
        else {
            return Ok(());
        };
        let lane = LaneId {
            portal: portal.id,
            toward: Side::Matrix,
        };
        let fact = RemoteId::from(fact);
        if let Some(lane) = self.store.notice(lane, &fact, &letter, now).await? {
            self.bells.ring(lane);
        }
        Ok(())
    }

    /// People are told this of entries that cannot be read.
    pub async fn tell(&self, telling: Telling, text: &str) -> Result<(), Error> {
        let (text, now) = (text.to_owned(), self.clock.now());
        let letter = move |changed: Option<&RemoteId>| {
            let message = match changed {
                Some(fact) => Message::changed_notice(fact.clone(), &text, now),
                None => Message::notice(&text, now),
            };
            message.to_bytes().ok()
        };
        for lane in self.store.tell(telling, letter, now).await? {
            self.bells.ring(lane);
        }
        Ok(())
    }

    /// People are told how it ended: `there` instead of what they were told before, `here` where the entries were
    /// sent.
    pub async fn tell_end(
        &self,
        group: Resolved,
        there: Option<&str>,
        here: Option<&str>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let there = there.map(str::to_owned);
        let here = here.and_then(|text| Message::notice(text, now).to_bytes().ok());
        let changed = move |fact: &RemoteId| {
            let text = there.as_ref()?;
            Message::changed_notice(fact.clone(), text, now)
                .to_bytes()
                .ok()
        };
        for lane in self.store.tell_end(group, changed, here, now).await? {
            self.bells.ring(lane);
        }
        Ok(())
    }

    /// Waits until no step toward `place` is under way or in doubt. A listener that hears a message of our own
    /// account asks this first: afterwards [`Inbox::accept`] knows our copies by their links, and what it does
    /// not know was written by a person who shares the account.
    pub async fn settled(&self, place: &Place) -> Result<(), Error> {
        loop {
            let change = self.bells.settlement();
            let changed = change.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.store.in_doubt(place).await? {
                return Ok(());
            }
            changed.await;
        }
    }

    /// The store behind the door, for cursors, gaps and flags.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The bells it rings.
    #[must_use]
    pub fn bells(&self) -> &Bells {
        &self.bells
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

/// What a person said, if somebody did.
fn said(payload: &Payload) -> Option<Message> {
    let Payload::Ready(letter) = payload else {
        return None;
    };
    let message = Message::from_bytes(letter).ok()?;
    (!message.sender.is_bridge()).then_some(message)
}

/// One bell per lane. The table is the queue; a bell only wakes.
#[derive(Clone, Debug, Default)]
pub struct Bells {
    lanes: Arc<Mutex<HashMap<LaneId, Arc<Notify>>>>,
    settled: Arc<Notify>,
    questions: Arc<Notify>,
    portals: Arc<Notify>,
}

impl Bells {
    /// The bell of a lane.
    #[must_use]
    pub fn of(&self, lane: LaneId) -> Arc<Notify> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(lane).or_default().clone()
    }

    /// Wakes a lane.
    pub fn ring(&self, lane: LaneId) {
        self.of(lane).notify_one();
    }

    /// Rung by a lane whenever a step was settled.
    pub fn step_settled(&self) {
        self.settled.notify_waiters();
    }

    /// Rung when somebody asked something of the bridge.
    #[must_use]
    pub fn questions(&self) -> Arc<Notify> {
        self.questions.clone()
    }

    /// Rung when portals were made or taken apart while the bridge runs.
    pub fn portals_changed(&self) {
        self.portals.notify_one();
    }

    /// The bell of [`Bells::portals_changed`].
    #[must_use]
    pub fn portals(&self) -> Arc<Notify> {
        self.portals.clone()
    }

    fn settlement(&self) -> Arc<Notify> {
        self.settled.clone()
    }
}
