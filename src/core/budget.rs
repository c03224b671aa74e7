//! The rate limit of an account. The budget holds nothing back until the other side answers "too fast"; then it lets one step at
//! a time pass, at the pace that it learns from the refusals, and the waiting lanes take turns.
//!
//! A default Synapse accepts ten events at once from an ordinary account and then one every five seconds. Lanes that each retried
//! by themselves would waste most of that on refusals, and the one with the most luck would win.

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

/// Added to every wait, against differing clocks and network delays.
const MARGIN: Duration = Duration::from_millis(100);
/// The waits after refusals that name none.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How often a waiting step is passed over before only its age counts: then the oldest goes first.
const MAX_PASSED_OVER: u32 = 12;
/// After this many steps that passed at one pace, the budget tries a tenth faster: the limit may have been lifted.
const PROBE: u32 = 10;
/// If this many steps passed without a known pace, there is no limit any more.
const UNLIMITED: u32 = 3;

/// The kind of a step. Earlier ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A new message.
    Text,
    /// An edit of an existing message.
    Edit,
    /// A deletion.
    Deletion,
}

/// The budget of one account. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// Whether the budget learns a pace; not where the other side counts by fixed windows.
    learns: bool,
}

#[derive(Debug)]
struct State {
    /// Present while the account is limited.
    gate: Option<Gate>,
    /// The time from one step to the next, once learned. Outlives the gate.
    interval: Option<Duration>,
    /// The average number of messages that recent steps carried.
    carried: f64,
    /// By ticket: the first in the queue has the lowest.
    waiting: BTreeMap<u64, Waiter>,
    ticket: u64,
    /// When each portal had its last turn, counted in turns.
    last_turns: HashMap<PortalId, u64>,
    turn: u64,
}

#[derive(Debug)]
struct Gate {
    /// No step passes before this moment.
    next: Instant,
    /// Whether a step is in progress.
    busy: bool,
    /// When the last step that passed began, if it was alone.
    passed: Option<Instant>,
    /// Steps that passed in a row.
    passes: u32,
    /// Refusals in a row.
    refusals: u32,
    used: Instant,
}

#[derive(Debug)]
struct Waiter {
    lane: LaneId,
    priority: Priority,
    passed_over: u32,
}

/// The pace of a limited account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The time from one step to the next, once learned.
    pub interval: Option<Duration>,
    /// The recent number of messages per step.
    pub carried: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Budget {
    /// A budget without knowledge, for an other side that refills it steadily.
    #[must_use]
    pub fn steady() -> Self {
        Self::new(true)
    }

    /// A budget for an other side that counts by fixed windows: a refusal says when the next window begins.
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
                last_turns: HashMap::new(),
                turn: 0,
            }),
            changed: Notify::new(),
            learns,
        }))
    }

    /// Waits for this lane's turn to perform one step. Dropping the future gives up the place in the queue.
    pub async fn acquire(&self, lane: LaneId, priority: Priority) -> Permit {
        let position = QueueTicket::take(self, lane, priority);
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let granted = self.lock().grant(position.ticket, Instant::now());
            match granted {
                Grant::Now { limited } => {
                    return Permit {
                        budget: self.clone(),
                        began: Instant::now(),
                        limited,
                        unreported: true,
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
        state.reset_when_idle(Instant::now());
        state.gate.as_ref()?;
        Some(Pace {
            interval: state.interval,
            carried: state.carried,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify_waiters(&self) {
        self.0.changed.notify_waiters();
    }
}

impl Pace {
    /// When a lane with this backlog will be empty, beside lanes with these backlogs (messages each, the lane's own among them)
    /// that take turns with it. `None` while no pace is known.
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
        let next = self.next_in_queue();
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
        if let Some(waiter) = self.waiting.remove(&ticket) {
            self.turn += 1;
            self.last_turns.insert(waiter.lane.portal, self.turn);
        }
        for left in self.waiting.values_mut() {
            left.passed_over = left.passed_over.saturating_add(1);
        }
        Grant::Now { limited: true }
    }

    /// First those that were passed over too often, the oldest first; then by priority, and among these the portal whose last
    /// turn is the longest ago.
    fn next_in_queue(&self) -> Option<u64> {
        let order = |(ticket, waiting): &(&u64, &Waiter)| {
            let aged = waiting.passed_over >= MAX_PASSED_OVER;
            let turn = self.last_turns.get(&waiting.lane.portal).copied();
            let turn = (waiting.priority, turn.unwrap_or(0));
            (!aged, (!aged).then_some(turn), **ticket)
        };
        let first = self.waiting.iter().min_by_key(order);
        first.map(|(ticket, _)| *ticket)
    }

    /// Opens the gate when no lane has waited for long enough that the other side accepts steps again.
    fn reset_when_idle(&mut self, now: Instant) {
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
        self.last_turns.clear();
        info!("No longer rate-limited");
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
        let requested = after.map(|after| after.min(LONGEST_WAIT * 60));
        if alone {
            gate.busy = false;
            gate.refusals = gate.refusals.saturating_add(1);
            // The step before this one used the last of the budget: the time that the other side needs to refill one step is the
            // pace.
            if let (Some(passed), Some(after), true) = (gate.passed.take(), requested, learns) {
                let learned = (began + after).saturating_duration_since(passed);
                self.interval = Some(learned.min(LONGEST_WAIT));
            }
        }
        gate.passes = 0;
        let doubled = 2_u32.saturating_pow(gate.refusals.saturating_sub(1));
        let blind = SHORTEST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
        let wait = requested.or(self.interval).unwrap_or(blind);
        gate.next = gate.next.max(began + wait + MARGIN);
        if was_open {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            info!(wait_ms, "Rate-limited by the other side; pacing deliveries");
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

/// A position in the queue, given up when dropped.
struct QueueTicket<'a> {
    budget: &'a Budget,
    ticket: u64,
}

impl<'a> QueueTicket<'a> {
    fn take(budget: &'a Budget, lane: LaneId, priority: Priority) -> Self {
        let mut state = budget.lock();
        state.reset_when_idle(Instant::now());
        state.ticket += 1;
        let ticket = state.ticket;
        let waiting = Waiter {
            lane,
            priority,
            passed_over: 0,
        };
        state.waiting.insert(ticket, waiting);
        Self { budget, ticket }
    }
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        if self.budget.lock().waiting.remove(&self.ticket).is_some() {
            self.budget.notify_waiters();
        }
    }
}

#[cfg(test)]
#[path = "budget/budget_tests.rs"]
mod tests;
