//! How fast an account may act. Nothing is held back until the other side says "too fast"; then one step at a time
//! passes, at the pace that the refusals teach, and the lanes that wait take turns.
//!
//! A default Synapse gives an ordinary account ten events at once and then one every five seconds. Lanes that each
//! tried again by themselves would waste most of that on refusals, and the one with the most luck would win.

mod permit;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::{LaneId, PortalId};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::info;

pub use permit::Permit;

/// What is added to every wait, against clocks and ways of different length.
const MARGIN: Duration = Duration::from_millis(100);
/// Waits after refusals that name none.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How often a waiting step is passed over before its age alone counts: then the oldest goes first.
const PATIENCE: u32 = 12;
/// After so many steps that passed at one pace, a tenth faster is tried: the limit may have been lifted.
const PROBE: u32 = 10;
/// So many steps that passed without any pace being known mean that there is no limit any more.
const UNLIMITED: u32 = 3;

/// What a step is about. Earlier ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A new message.
    Text,
    /// A new text for one that is there.
    Edit,
    /// Taking one back.
    Deletion,
}

/// The budget of one account. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// Whether a pace is learnt; not where the other side counts by fixed windows.
    learns: bool,
}

#[derive(Debug)]
struct State {
    /// There while the account is limited.
    gate: Option<Gate>,
    /// From one step to the next, once learnt. Outlives the gate.
    interval: Option<Duration>,
    /// Messages that a step has carried lately, on average.
    carried: f64,
    /// By ticket: who came first has the lowest.
    waiting: BTreeMap<u64, Waiting>,
    ticket: u64,
    /// When each portal had its last turn, counted in turns.
    served: HashMap<PortalId, u64>,
    turn: u64,
}

#[derive(Debug)]
struct Gate {
    /// Nothing passes before.
    next: Instant,
    /// Whether a step is on its way.
    busy: bool,
    /// When the last one began that passed, if it did so alone.
    passed: Option<Instant>,
    /// Steps that passed in a row.
    passes: u32,
    /// Refusals in a row.
    refusals: u32,
    used: Instant,
}

#[derive(Debug)]
struct Waiting {
    lane: LaneId,
    rank: Rank,
    passed_over: u32,
}

/// How fast a limited account goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// From one step to the next, once learnt.
    pub interval: Option<Duration>,
    /// Messages per step, lately.
    pub carried: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Budget {
    /// A budget of which nothing is known yet, for an other side that refills it steadily.
    #[must_use]
    pub fn steady() -> Self {
        Self::new(true)
    }

    /// A budget for an other side that counts by fixed windows: a refusal says when the next one begins.
    #[must_use]
    pub fn windowed() -> Self {
        Self::new(false)
    }

    fn new(learns: bool) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                gate: None,
                interval: None,
                carried: 1.0,
                waiting: BTreeMap::new(),
                ticket: 0,
                served: HashMap::new(),
                turn: 0,
            }),
            changed: Notify::new(),
            learns,
        }))
    }

    /// Waits for this lane's turn to do one step. Giving up the wait gives up the place.
    pub async fn acquire(&self, lane: LaneId, rank: Rank) -> Permit {
        let place = Place::take(self, lane, rank);
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let granted = self.lock().grant(place.ticket, Instant::now());
            match granted {
                Grant::Now { limited } => {
                    return Permit {
                        budget: self.clone(),
                        began: Instant::now(),
                        limited,
                        open: true,
                    };
                }
                Grant::At(moment) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(moment) => {}
                },
                Grant::Later => changed.await,
            }
        }
    }

    /// The pace, while the account is limited.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let mut state = self.lock();
        state.open_when_quiet(Instant::now());
        state.gate.as_ref()?;
        Some(Pace {
            interval: state.interval,
            carried: state.carried,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.0.changed.notify_waiters();
    }
}

impl Pace {
    /// When a lane with this backlog will be empty, beside lanes with these backlogs (messages each, the lane's own
    /// among them) that take turns with it. `None` while no pace is known.
    #[must_use]
    pub fn empty_after(&self, backlog: u64, all: &[u64]) -> Option<Duration> {
        let turns: u64 = all.iter().map(|other| (*other).min(backlog)).sum();
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        let seconds = self.interval?.as_secs_f64() * f64::from(turns) / self.carried.max(1.0);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

enum Grant {
    Now { limited: bool },
    At(Instant),
    Later,
}

impl State {
    fn grant(&mut self, ticket: u64, now: Instant) -> Grant {
        let next = self.next_in_line();
        let Some(gate) = &mut self.gate else {
            self.waiting.remove(&ticket);
            return Grant::Now { limited: false };
        };
        if gate.busy || next != Some(ticket) {
            return Grant::Later;
        }
        if now < gate.next {
            return Grant::At(gate.next);
        }
        gate.busy = true;
        gate.used = now;
        if let Some(served) = self.waiting.remove(&ticket) {
            self.turn += 1;
            self.served.insert(served.lane.portal, self.turn);
        }
        for left in self.waiting.values_mut() {
            left.passed_over = left.passed_over.saturating_add(1);
        }
        Grant::Now { limited: true }
    }

    /// Who has waited through too many turns, the oldest first; then by rank, the portal whose last turn is the
    /// longest ago first.
    fn next_in_line(&self) -> Option<u64> {
        let order = |(ticket, waiting): &(&u64, &Waiting)| {
            let aged = waiting.passed_over >= PATIENCE;
            let turn = self.served.get(&waiting.lane.portal).copied();
            let turn = (waiting.rank, turn.unwrap_or(0));
            (!aged, (!aged).then_some(turn), **ticket)
        };
        let first = self.waiting.iter().min_by_key(order);
        first.map(|(ticket, _)| *ticket)
    }

    /// Nobody wants anything, and for long enough that the other side has something to give again.
    fn open_when_quiet(&mut self, now: Instant) {
        let rest = self.interval.unwrap_or(SHORTEST_WAIT) * 2;
        if let Some(gate) = &self.gate
            && self.waiting.is_empty()
            && !gate.busy
            && now >= gate.next
            && now.duration_since(gate.used) >= rest
        {
            self.open();
        }
    }

    fn open(&mut self) {
        self.gate = None;
        self.served.clear();
        info!("The other side's limit is no longer felt");
    }

    fn passed(&mut self, began: Instant, alone: bool, messages: usize) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        if alone {
            self.carried += (f64::from(messages) - self.carried) / 4.0;
        }
        let Some(gate) = self.gate.as_mut().filter(|_| alone) else {
            return;
        };
        gate.busy = false;
        gate.refusals = 0;
        gate.passes += 1;
        gate.passed = Some(began);
        match &mut self.interval {
            Some(interval) => {
                if gate.passes % PROBE == 0 {
                    *interval = interval.mul_f64(0.9);
                }
                gate.next = gate.next.max(began + *interval + MARGIN);
            }
            None if gate.passes >= UNLIMITED => self.open(),
            None => {}
        }
    }

    fn refused(&mut self, began: Instant, alone: bool, after: Option<Duration>, learns: bool) {
        let now = Instant::now();
        let was_open = self.gate.is_none();
        let gate = self.gate.get_or_insert(Gate {
            next: now,
            busy: false,
            passed: None,
            passes: 0,
            refusals: 0,
            used: now,
        });
        let named = after.map(|after| after.min(LONGEST_WAIT * 60));
        if alone {
            gate.busy = false;
            gate.refusals = gate.refusals.saturating_add(1);
            // The step before this one took the last that there was: what it needs to be given anew is the pace.
            if let (Some(passed), Some(after), true) = (gate.passed.take(), named, learns) {
                let taught = (began + after).saturating_duration_since(passed);
                self.interval = Some(taught.min(LONGEST_WAIT));
            }
        }
        gate.passes = 0;
        let doubled = 2_u32.saturating_pow(gate.refusals.saturating_sub(1));
        let blind = SHORTEST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
        let wait = named.or(self.interval).unwrap_or(blind);
        gate.next = gate.next.max(began + wait + MARGIN);
        if was_open {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            info!(
                wait_ms,
                "The other side wants us slower: the lanes take turns"
            );
        }
    }

    fn spent(&mut self, began: Instant) {
        if let Some(gate) = &mut self.gate {
            gate.busy = false;
            gate.passed = None;
            gate.next = gate.next.max(began + self.interval.unwrap_or_default());
        }
    }
}

/// A place in the line, given up when dropped.
struct Place<'a> {
    budget: &'a Budget,
    ticket: u64,
}

impl<'a> Place<'a> {
    fn take(budget: &'a Budget, lane: LaneId, rank: Rank) -> Self {
        let mut state = budget.lock();
        state.open_when_quiet(Instant::now());
        state.ticket += 1;
        let ticket = state.ticket;
        let waiting = Waiting {
            lane,
            rank,
            passed_over: 0,
        };
        state.waiting.insert(ticket, waiting);
        Self { budget, ticket }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.budget.lock().waiting.remove(&self.ticket).is_some() {
            self.budget.tell();
        }
    }
}

#[cfg(test)]
#[path = "budget/budget_tests.rs"]
mod tests;
