//! The accounts of persons that may send to one side, beside its relay account: each speaks for the person whose account it is,
//! and for nobody else.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::{AccountId, Millis, Place};
use tokio::time::Instant;

use super::OutletHealth;
use crate::{budget::Budget, outlet::Outlet};

/// How often a person is told that the relay speaks for them, at most, for each reason.
const TOLD_EVERY: Duration = Duration::from_hours(1);
/// For how long a place that refused an account counts as closed to it.
const CLOSED_FOR: Duration = Duration::from_mins(10);

/// An account of a person that can send now.
#[derive(Clone)]
pub struct PersonalAccount {
    /// The account.
    pub account: AccountId,
    /// The way out of this account.
    pub outlet: Arc<dyn Outlet>,
    /// Its own rate limit.
    pub budget: Budget,
    /// What the lanes know of it.
    pub health: OutletHealth,
}

/// An author on the other side: the network, and the immutable id there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Author {
    /// The network: Matrix, or the name of a silo.
    pub network: String,
    /// The immutable id.
    pub user: String,
}

/// The account that speaks for an author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The account.
    pub account: AccountId,
    /// Since when this is so. What was accepted earlier may have been attempted by the relay without a record of that.
    pub since: Millis,
}

/// Why the relay account speaks for a person who has an account of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StandIn {
    /// The account is rate limited.
    Limited,
    /// The account may not write in the place, or its homeserver does not take what it sends.
    Closed,
    /// The person has removed the device.
    Removed,
}

/// The personal accounts of one side. Cheap to clone; an empty one has none.
#[derive(Clone, Default)]
pub struct PersonalAccounts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: HashMap<AccountId, PersonalAccount>,
    authors: HashMap<Author, Speaker>,
    closed: HashMap<(AccountId, Place), Instant>,
    /// For whom the relay speaks, or did.
    stand_ins: HashMap<(AccountId, StandIn), StandInState>,
}

/// What is known of one reason for which the relay speaks for somebody.
#[derive(Default)]
struct StandInState {
    /// Whether it applies now.
    is_open: bool,
    /// Whether it began since it was last reported, and is to be reported.
    is_new: bool,
    reported_at: Option<Instant>,
}

impl std::fmt::Debug for PersonalAccounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersonalAccounts").finish_non_exhaustive()
    }
}

impl PersonalAccounts {
    /// This account can send from now on, also where a place refused it before.
    pub fn add(&self, account: PersonalAccount) {
        let mut state = self.state();
        state
            .closed
            .retain(|(closed, _), _| *closed != account.account);
        state.running.insert(account.account, account);
    }

    /// This account can no longer send.
    pub fn remove(&self, account: AccountId) {
        let mut state = self.state();
        state.closed.retain(|(closed, _), _| *closed != account);
        state.running.remove(&account);
    }

    /// Which accounts speak for which authors.
    pub fn set_authors(&self, authors: HashMap<Author, Speaker>) {
        self.state().authors = authors;
    }

    /// Whether this account can send now.
    #[must_use]
    pub fn is_running(&self, account: AccountId) -> bool {
        self.state().running.contains_key(&account)
    }

    /// For whom the relay has begun to speak since the last call, and why; each reason at most once an hour.
    #[must_use]
    pub fn new_stand_ins(&self) -> BTreeSet<(AccountId, StandIn)> {
        let mut state = self.state();
        let new = state.stand_ins.iter_mut().filter(|(_, one)| one.is_new);
        new.map(|(who, one)| {
            one.is_new = false;
            one.reported_at = Some(Instant::now());
            *who
        })
        .collect()
    }

    /// The account, if it can write in this place.
    pub(crate) fn get(&self, account: AccountId, to: &Place) -> Option<PersonalAccount> {
        let mut state = self.state();
        let key = (account, to.clone());
        if let Some(until) = state.closed.get(&key) {
            if Instant::now() < *until {
                return None;
            }
            state.closed.remove(&key);
        }
        state.running.get(&account).cloned()
    }

    /// The account that speaks for this author, whether or not it can send now.
    pub(crate) fn of_author(&self, author: &Author) -> Option<Speaker> {
        self.state().authors.get(author).copied()
    }

    /// This account, if it can write a new message in this place now: it is not rate limited.
    pub(crate) fn speaker(&self, account: AccountId, to: &Place) -> Option<PersonalAccount> {
        let speaker = self.get(account, to)?;
        if speaker.budget.pace().is_some() {
            self.stand_in(account, StandIn::Limited);
            return None;
        }
        for ((away, _), one) in &mut self.state().stand_ins {
            if *away == account {
                one.is_open = false;
            }
        }
        Some(speaker)
    }

    /// Whether an account speaks for this author, now or as soon as it can.
    pub(crate) fn has_speaker(&self, author: &Author) -> bool {
        let state = self.state();
        let speaker = state.authors.get(author);
        speaker.is_some_and(|speaker| state.running.contains_key(&speaker.account))
    }

    /// The place refused the account.
    pub(crate) fn note_closed(&self, account: AccountId, place: &Place) {
        let until = Instant::now() + CLOSED_FOR;
        let key = (account, place.clone());
        self.state().closed.insert(key, until);
        self.stand_in(account, StandIn::Closed);
    }

    /// The relay speaks for the owner of this account.
    pub fn stand_in(&self, account: AccountId, why: StandIn) {
        let mut state = self.state();
        let one = state.stand_ins.entry((account, why)).or_default();
        let was_told = one.reported_at.is_some_and(|at| at.elapsed() < TOLD_EVERY);
        one.is_new |= !one.is_open && !was_told;
        one.is_open = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
