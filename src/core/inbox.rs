//! The single entry for incoming events: the inbox writes what a listener received into the journal, then wakes the lanes.

mod changes;
mod content;
mod flood_guard;
mod notices;
mod notice_limiter;
mod recent_texts;
mod undecryptable;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use footbridge_store::{
    Accepted, DecryptedWith, EntryId, Error, LaneId, Place, RemoteId, ScreenResult, SkipRule,
    Store, UnknownOutcome,
};
use tokio::sync::Notify;

use changes::change_of;
pub use changes::is_retraction;
pub use content::{Arrival, ArrivalContent, Batch};
use flood_guard::FloodGuard;
use notice_limiter::NoticeLimiter;
pub use undecryptable::UndecryptableTexts;

use crate::{
    clock::Clock,
    crash_points,
    message::{Action, Message, Sender},
    peer_bridges::PeerBridges,
};

/// With this begins each code by which people prove that an account on a silo is theirs.
pub const PERSON_CODE: &str = "footbridge-me-";
/// The warning in a room where another bridge serves the same channel.
const PEER_BRIDGE_WARNING: &str = "⚠️ Another Footbridge links this room to the same channel, so every message would \
     appear twice. I do not relay the copies that it sends; please remove one of the two bridges from the room.";
/// The warning about a message loop that the bridge no longer relays.
const LOOP_WARNING: &str = "⚠️ Messages of one account keep coming back from the other side, as when two bridges \
     relay each other's copies. I do not relay these messages until that stops; all other messages are relayed.";

/// The inbox. Cheap to clone; every listener has one.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: Store,
    signals: Signals,
    clock: Clock,
    flood: FloodGuard,
    peer_bridges: PeerBridges,
    /// The silos whose authors are the accounts that have written.
    proving_silos: Arc<HashSet<String>>,
    limiter: NoticeLimiter,
}

impl Inbox {
    /// An inbox for this store.
    #[must_use]
    pub fn new(store: Store, signals: Signals, clock: Clock) -> Self {
        Self {
            store,
            signals,
            clock,
            flood: FloodGuard::default(),
            peer_bridges: PeerBridges::default(),
            proving_silos: Arc::default(),
            limiter: NoticeLimiter::default(),
        }
    }

    /// The same inbox, with the links between rooms and channels.
    #[must_use]
    pub fn with_peer_bridges(mut self, peer_bridges: PeerBridges) -> Self {
        self.peer_bridges = peer_bridges;
        self
    }

    /// The same inbox, for which these silos prove who has written a message: who posts a code there has that account.
    #[must_use]
    pub fn with_proving_silos(mut self, silos: HashSet<String>) -> Self {
        self.proving_silos = Arc::new(silos);
        self
    }

    /// Stores a batch. When this returns, the listener may acknowledge receipt to its source. Returns one [`Accepted`] per
    /// arrival, in order.
    pub async fn accept(&self, mut batch: Batch) -> Result<Vec<Accepted>, Error> {
        crash_points::point("accept.before");
        // Before the cursor moves: a process that ends in between reads these events again.
        self.fill_waiting(&batch).await?;
        let is_command = |arrival: &Arrival| matches!(arrival.payload, ArrivalContent::Command(_));
        let has_command = batch.arrivals.iter().any(is_command);
        // What the control task must react to.
        let has_news =
            !(batch.flags.is_empty() && batch.tombstones.is_empty() && batch.joined.is_empty());
        self.screen(&mut batch).await?;
        let has_proof = self.take_proofs(&mut batch).await?;
        let warnings = warnings(&batch);
        let batch = batch.map(ArrivalContent::into_payload);
        let accepted = self.store.accept(batch, self.clock.now()).await?;
        crash_points::point("accept.after");
        for one in &accepted {
            if let Accepted::New(lanes) = one {
                for lane in lanes {
                    self.signals.wake(*lane);
                }
            }
        }
        if has_command || has_news || has_proof {
            self.signals.commands.notify_one();
        }
        for (place, rule, text) in warnings {
            if rule != SkipRule::Loop {
                self.send_notice(&place, &format!("{rule}/{place}"), text)
                    .await?;
                continue;
            }
            // In every room that now misses messages, at most every ten minutes.
            let when = self.clock.now().0 / 600_000;
            let joined = self.store.places_linked_to(&place).await?;
            let rooms = joined.iter().chain([&place]);
            let rooms = rooms.filter(|place| place.network() == Place::MATRIX);
            for room in rooms.collect::<BTreeSet<_>>() {
                self.send_notice(room, &format!("{rule}/{place}/{room}/{when}"), text)
                    .await?;
            }
        }
        Ok(accepted)
    }

    /// Skips what its author marked as not to be relayed, skips floods, and records the authors of the rest.
    async fn screen(&self, batch: &mut Batch) -> Result<(), Error> {
        let mut written = Vec::new();
        for (number, arrival) in batch.arrivals.iter_mut().enumerate() {
            let Some(message) = arrival.payload.human_message().cloned() else {
                continue;
            };
            batch.changes.extend(change_of(arrival, &message));
            let user = message.sender.id.clone();
            let (place, event_id) = (arrival.place.clone(), arrival.event_id.clone());
            if arrival.message.is_some() && !matches!(message.action, Action::React { .. }) {
                batch
                    .last_authors
                    .push((place.clone(), event_id.clone(), user.clone()));
            }
            if place.network() != Place::MATRIX && !user.is_empty() {
                if let Some(new) = &arrival.message {
                    let writer = (place.clone(), new.clone(), user.clone());
                    batch.authors.push(writer);
                } else if let Action::Edit { target, .. } = &message.action
                    && self.store.is_author(&place, target, &user).await? == Some(false)
                {
                    arrival.payload = ArrivalContent::Skipped(SkipRule::ForeignEdit);
                    continue;
                }
            }
            if message.is_nobridge() {
                arrival.payload = ArrivalContent::Skipped(SkipRule::NoBridge);
            } else if !is_retraction(&message) {
                written.push((number, (place, event_id, user), message));
            }
        }
        let senders = written.iter().map(|(_, who, _)| who.clone());
        let known = self.store.screen(senders.collect()).await?;
        for ((number, (place, ..), message), known) in written.into_iter().zip(known) {
            let rule = match known {
                // An event that is read again is neither stored nor counted again.
                ScreenResult::Known => continue,
                ScreenResult::OptedOut => Some(SkipRule::OptedOut),
                ScreenResult::New if self.is_from_peer_bridge(&place, &message).await? => {
                    Some(SkipRule::PeerBridge)
                }
                ScreenResult::New => {
                    let id = batch.arrivals.get(number);
                    let id = id.and_then(|arrival| arrival.message.as_ref());
                    let joined = if self.flood.may_be_echo(&place, id, &message) {
                        self.store.places_linked_to(&place).await?
                    } else {
                        HashSet::new()
                    };
                    let now = self.clock.now();
                    self.flood.check(&place, id, &message, &joined, now)
                }
            };
            if let (Some(rule), Some(arrival)) = (rule, batch.arrivals.get_mut(number)) {
                arrival.payload = ArrivalContent::Skipped(rule);
            }
        }
        Ok(())
    }

    /// Takes the codes out of a batch by which people prove that an account on a silo is theirs. Returns whether there was one.
    async fn take_proofs(&self, batch: &mut Batch) -> Result<bool, Error> {
        let mut found = false;
        for arrival in &mut batch.arrivals {
            if !self.proving_silos.contains(arrival.place.network()) {
                continue;
            }
            let Some((code, sender)) = arrival.payload.human_message().and_then(posted_code) else {
                continue;
            };
            let (silo, now) = (arrival.place.network(), self.clock.now());
            let proved = self
                .store
                .prove_person(silo, &sender.id, &sender.name, &code, now);
            if proved.await? {
                arrival.payload = ArrivalContent::Skipped(SkipRule::Command);
                self.signals.notify_accounts_changed();
                found = true;
            }
        }
        Ok(found)
    }

    /// Whether another bridge wrote this for somebody in a room that both bridges link to the channel (C18).
    async fn is_from_peer_bridge(&self, place: &Place, message: &Message) -> Result<bool, Error> {
        let peer_account_hashes = self.peer_bridges.peer_account_hashes(place, message);
        self.store.is_peer_account(place, peer_account_hashes).await
    }

    /// The same for an entry whose room key came late.
    async fn screen_late(
        &self,
        entry: EntryId,
        content: ArrivalContent,
    ) -> Result<ArrivalContent, Error> {
        let Some(message) = content.human_message() else {
            return Ok(content);
        };
        if message.is_nobridge() {
            return Ok(ArrivalContent::Skipped(SkipRule::NoBridge));
        }
        let may_relay = matches!(message.action, Action::Delete { .. })
            || !self
                .store
                .is_author_opted_out(entry, &message.sender.id)
                .await?;
        Ok(if may_relay {
            content
        } else {
            ArrivalContent::Skipped(SkipRule::OptedOut)
        })
    }

    /// A late room key decrypted an entry. Returns whether the entry turned out to be an old ciphertext in a new event, and was
    /// dropped.
    pub async fn fill(
        &self,
        entry: EntryId,
        content: ArrivalContent,
        decrypted_with: Option<DecryptedWith>,
    ) -> Result<bool, Error> {
        crash_points::point("fill.before");
        let is_command = matches!(content, ArrivalContent::Command(_));
        let now = self.clock.now();
        let edited = content
            .human_message()
            .and_then(|message| match &message.action {
                Action::Edit { target, .. } => Some(target.clone()),
                _ => None,
            });
        let payload = self.screen_late(entry, content).await?.into_payload();
        let filled = self
            .store
            .fill_decrypted(entry, payload, decrypted_with, edited, now);
        let result = filled.await?;
        self.wake(result.lanes);
        if is_command {
            self.signals.commands.notify_one();
        }
        Ok(result.replayed)
    }

    /// An account brings an event readable for whose room key the entry of another account waits: the entry is filled.
    async fn fill_waiting(&self, batch: &Batch) -> Result<(), Error> {
        let readable = batch.arrivals.iter().filter(|arrival| {
            arrival.place.network() == Place::MATRIX
                && matches!(
                    arrival.payload,
                    ArrivalContent::Message(_) | ArrivalContent::Command(_)
                )
        });
        let ids: Vec<(Place, RemoteId)> = readable
            .map(|arrival| (arrival.place.clone(), arrival.event_id.clone()))
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        for (place, event_id, entry) in self.store.waiting_entries(ids).await? {
            let is_it = |at: &Place, id: &RemoteId| *at == place && *id == event_id;
            let mut arrivals = batch.arrivals.iter();
            let Some(arrival) = arrivals.find(|one| is_it(&one.place, &one.event_id)) else {
                continue;
            };
            let mut used = batch.decrypted_with.iter();
            let decrypted_with = used.find(|(at, id, _)| is_it(at, id));
            let decrypted_with = decrypted_with.map(|(_, _, with)| with.clone());
            self.fill(entry, arrival.payload.clone(), decrypted_with)
                .await?;
        }
        Ok(())
    }

    fn wake(&self, lanes: Vec<LaneId>) {
        for lane in lanes {
            self.signals.wake(lane);
        }
    }

    /// Waits until every step toward `place` that is now in progress or has an unknown outcome is settled. A listener that
    /// receives a message of the bridge's own account calls this first: afterwards [`Inbox::accept`] knows the bridge's copies by
    /// their links, and a message that it does not know was written by a person who shares the account. Steps that begin in the
    /// meantime cannot have created a message that was received before.
    pub async fn wait_settled(&self, place: &Place) -> Result<(), Error> {
        let mut waited: Option<Vec<UnknownOutcome>> = None;
        loop {
            let change = self.signals.settled_signal();
            let changed = change.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let unknown_outcomes = self.store.unknown_outcomes(place).await?;
            let waited = waited.get_or_insert_with(|| unknown_outcomes.clone());
            waited.retain(|outcome| unknown_outcomes.contains(outcome));
            if waited.is_empty() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// The store behind the inbox, for cursors, gaps and flags.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The signals that it sends.
    #[must_use]
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

/// The code that a message consists of, and its author.
fn posted_code(message: &Message) -> Option<(String, &Sender)> {
    let Action::Post { body, .. } = &message.action else {
        return None;
    };
    let text = body.to_plain();
    let code = text.trim();
    let is_code = code.starts_with(PERSON_CODE) && !message.sender.id.is_empty();
    is_code.then(|| (code.to_owned(), &message.sender))
}

/// The warnings that a batch causes: the place, the rule and the text.
fn warnings(batch: &Batch) -> BTreeSet<(Place, SkipRule, &'static str)> {
    let arrivals = batch.arrivals.iter();
    let warned = arrivals.filter_map(|arrival| {
        let (rule, text) = match arrival.payload {
            // The room shows which bridge it is; what that bridge's account writes in the channel follows from it.
            ArrivalContent::Skipped(SkipRule::PeerBridge)
                if arrival.place.network() == Place::MATRIX =>
            {
                (SkipRule::PeerBridge, PEER_BRIDGE_WARNING)
            }
            ArrivalContent::Skipped(SkipRule::Loop) => (SkipRule::Loop, LOOP_WARNING),
            _ => return None,
        };
        Some((arrival.place.clone(), rule, text))
    });
    warned.collect::<BTreeSet<_>>()
}

/// One signal per lane. The outbox is the queue; a signal only wakes the lane.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    lanes: Arc<Mutex<HashMap<LaneId, Arc<Notify>>>>,
    settled: Arc<Notify>,
    commands: Arc<Notify>,
    portals: Arc<Notify>,
    accounts: Arc<Notify>,
}

impl Signals {
    /// The signal that wakes a lane.
    #[must_use]
    pub fn of_lane(&self, lane: LaneId) -> Arc<Notify> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(lane).or_default().clone()
    }

    /// Wakes a lane.
    pub fn wake(&self, lane: LaneId) {
        self.of_lane(lane).notify_one();
    }

    /// Sent by a lane whenever a step was settled.
    pub fn notify_step_settled(&self) {
        self.settled.notify_waiters();
    }

    /// Sent when somebody gave the bridge a command.
    #[must_use]
    pub fn commands(&self) -> Arc<Notify> {
        self.commands.clone()
    }

    /// Sent when portals were created or removed while the bridge runs.
    pub fn notify_portals_changed(&self) {
        self.portals.notify_one();
    }

    /// The signal of [`Signals::notify_portals_changed`].
    #[must_use]
    pub fn portals(&self) -> Arc<Notify> {
        self.portals.clone()
    }

    /// Sent when an account has logged in or out while the bridge runs, or a person has linked or unlinked an account on a silo.
    pub fn notify_accounts_changed(&self) {
        self.accounts.notify_one();
    }

    /// The signal of [`Signals::notify_accounts_changed`].
    #[must_use]
    pub fn accounts(&self) -> Arc<Notify> {
        self.accounts.clone()
    }

    fn settled_signal(&self) -> Arc<Notify> {
        self.settled.clone()
    }
}
