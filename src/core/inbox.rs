//! The one door in: what a listener heard is written to the journal, then the bells of the lanes ring.

mod changes;
mod flood;
mod notices;
mod pace;
mod unreadable;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use footbridge_store::{
    Accepted, Arrival, Batch, Doubt, EntryId, Error, LaneId, Opened, Payload, Place, Screened,
    Store,
};
use tokio::sync::Notify;

pub use changes::takes_back;
use changes::{change_of, said};
use flood::{Flood, LOOP};
use pace::Pace;
pub use unreadable::Unreadable;

use crate::{
    clock::Clock,
    crash,
    message::{Action, Message},
    origin::{ANOTHER_BRIDGE, Origins},
};

/// The rule for what its author marked as to be kept where it is written.
const KEPT_HERE: &str = "nobridge";
/// The rule for an edit by somebody else than the author. A room's events are asked about before they come here.
const FOREIGN_EDIT: &str = "foreign-edit";
/// The rule for messages of people who do not want to be carried over.
const OPTED_OUT: &str = "opted-out";

/// What people are told when another bridge does the same.
const DOUBLE: &str = "⚠️ Another Footbridge joins this room to the same channel, so everything comes twice. I carry on \
     nothing that it brings; please remove one of us from the room.";
/// What people are told of what is carried on no more.
const LOOPS: &str = "⚠️ What somebody says comes back from the other side again and again, as where two bridges hand each other's \
     copies back. I do not carry that on until it stops; everything else crosses.";

/// The door. Cheap to clone; every listener has one.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: Store,
    bells: Bells,
    clock: Clock,
    flood: Flood,
    origins: Origins,
    pace: Pace,
}

impl Inbox {
    /// A door into this store.
    #[must_use]
    pub fn new(store: Store, bells: Bells, clock: Clock) -> Self {
        Self {
            store,
            bells,
            clock,
            flood: Flood::default(),
            origins: Origins::default(),
            pace: Pace::default(),
        }
    }

    /// The same door where it is known which rooms are joined to which channels.
    #[must_use]
    pub fn among(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
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
        let warnings = warnings(&batch);
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
        for (place, rule, text) in warnings {
            if rule != LOOP {
                self.say(&place, &format!("{rule}/{place}"), text).await?;
                continue;
            }
            // In every room that lacks something now, at most every ten minutes.
            let when = self.clock.now().0 / 600_000;
            let joined = self.store.joined_to(&place).await?;
            let rooms = joined.iter().chain([&place]);
            let rooms = rooms.filter(|place| place.network() == Place::MATRIX);
            for room in rooms.collect::<BTreeSet<_>>() {
                self.say(room, &format!("{rule}/{place}/{room}/{when}"), text)
                    .await?;
            }
        }
        Ok(accepted)
    }

    /// Keeps here what its author wants to keep here, leaves out what floods, and notes who wrote the rest.
    async fn screen(&self, batch: &mut Batch) -> Result<(), Error> {
        let mut written = Vec::new();
        for (number, arrival) in batch.arrivals.iter_mut().enumerate() {
            let Some(message) = said(&arrival.payload) else {
                continue;
            };
            batch.changes.extend(change_of(arrival, &message));
            let user = message.sender.id.clone();
            let (place, fact) = (arrival.place.clone(), arrival.fact.clone());
            if arrival.message.is_some() && !matches!(message.action, Action::React { .. }) {
                batch
                    .authors
                    .push((place.clone(), fact.clone(), user.clone()));
            }
            if place.network() != Place::MATRIX && !user.is_empty() {
                if let Some(new) = &arrival.message {
                    let writer = (place.clone(), new.clone(), user.clone());
                    batch.writers.push(writer);
                } else if let Action::Edit { target, .. } = &message.action
                    && self.store.wrote(&place, target, &user).await? == Some(false)
                {
                    arrival.payload = Payload::Skipped(FOREIGN_EDIT);
                    continue;
                }
            }
            if message.stays_here() {
                arrival.payload = Payload::Skipped(KEPT_HERE);
            } else if !takes_back(&message) {
                written.push((number, (place, fact, user), message));
            }
        }
        let asked = written.iter().map(|(_, who, _)| who.clone());
        let known = self.store.screen(asked.collect()).await?;
        for ((number, (place, ..), message), known) in written.into_iter().zip(known) {
            let rule = match known {
                // Read once more, it is neither kept nor counted again.
                Screened::Known => continue,
                Screened::Stays => Some(OPTED_OUT),
                Screened::New if self.is_anothers(&place, &message).await? => Some(ANOTHER_BRIDGE),
                Screened::New => {
                    let id = batch.arrivals.get(number);
                    let id = id.and_then(|arrival| arrival.message.as_ref());
                    let joined = if self.flood.may_be_echo(&place, id, &message) {
                        self.store.joined_to(&place).await?
                    } else {
                        HashSet::new()
                    };
                    let now = self.clock.now();
                    self.flood.against((&place, id), &message, &joined, now)
                }
            };
            if let (Some(rule), Some(arrival)) = (rule, batch.arrivals.get_mut(number)) {
                arrival.payload = Payload::Skipped(rule);
            }
        }
        Ok(())
    }

    /// Whether another bridge wrote this for somebody of a room that both of us join to the channel (C18).
    async fn is_anothers(&self, place: &Place, message: &Message) -> Result<bool, Error> {
        let suspects = self.origins.suspects(place, message);
        self.store.is_rival(place, suspects).await
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
        let now = self.clock.now();
        let edited = said(&payload).and_then(|message| match message.action {
            Action::Edit { target, .. } => Some(target),
            _ => None,
        });
        let payload = self.screened(entry, payload).await?;
        let filled = self
            .store
            .fill_opened(entry, payload, (opened, edited), now);
        let read = filled.await?;
        self.ring(read.lanes);
        if asked {
            self.bells.questions.notify_one();
        }
        Ok(read.replayed)
    }

    fn ring(&self, lanes: Vec<LaneId>) {
        for lane in lanes {
            self.bells.ring(lane);
        }
    }

    /// Waits until every step toward `place` that is under way or in doubt now is so no more. A listener that hears a
    /// message of our own account asks this first: afterwards [`Inbox::accept`] knows our copies by their links, and
    /// what it does not know was written by a person who shares the account. Steps that begin meanwhile cannot have made
    /// what was heard before.
    pub async fn settled(&self, place: &Place) -> Result<(), Error> {
        let mut waited: Option<Vec<Doubt>> = None;
        loop {
            let change = self.bells.settlement();
            let changed = change.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let doubts = self.store.doubts(place).await?;
            let waited = waited.get_or_insert_with(|| doubts.clone());
            waited.retain(|doubt| doubts.contains(doubt));
            if waited.is_empty() {
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

/// What people have to be told of a batch: where, by which rule.
fn warnings(batch: &Batch) -> BTreeSet<(Place, &'static str, &'static str)> {
    let arrivals = batch.arrivals.iter();
    let warned = arrivals.filter_map(|arrival| {
        let (rule, text) = match arrival.payload {
            // The room shows who; what its account writes in the channel follows from that.
            Payload::Skipped(ANOTHER_BRIDGE) if arrival.place.network() == Place::MATRIX => {
                (ANOTHER_BRIDGE, DOUBLE)
            }
            Payload::Skipped(LOOP) => (LOOP, LOOPS),
            _ => return None,
        };
        Some((arrival.place.clone(), rule, text))
    });
    warned.collect::<BTreeSet<_>>()
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
