//! Limits of answers to chat commands. Whoever asks more often gets no answer, which is counted; a command that changes
//! something (`pause`, `portal remove`, `optout`) is executed all the same, and only its answer is withheld.
//!
//! Each class of answers has its own token buckets, so that a flood of questions does not use up the tokens of commands
//! that change something, and refusals do not use up the tokens of permitted users.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::{
    persons::is_admin,
    rate_limiter::{Rate, RateLimiter},
};
use footbridge_store::Place;
use tokio::time::Instant;

use super::{Control, parse::ParsedCommand, replies};

/// The class of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AnswerClass {
    /// Information: `help`, `why`, `status`, an unknown command.
    Info,
    /// The retry of a failed message.
    Retry,
    /// A choice about one's own messages: `optout` and its end.
    OwnChoice,
    /// A command of somebody who has the permission.
    Command,
    /// A refusal: the asker lacks the permission.
    Refusal,
    /// The look-up of another room for somebody whom the operator has not named.
    LookUp,
    /// The warning that somebody asks too often.
    Warning,
}

impl AnswerClass {
    /// The class of the answer to this command when it is executed.
    pub(super) fn of(parsed: &ParsedCommand) -> Self {
        match parsed {
            ParsedCommand::Why
            | ParsedCommand::Status
            | ParsedCommand::Help
            | ParsedCommand::Devices
            | ParsedCommand::Login
            | ParsedCommand::Incomplete(_)
            | ParsedCommand::Unknown(_) => Self::Info,
            ParsedCommand::Retry => Self::Retry,
            ParsedCommand::OptOut(_)
            | ParsedCommand::OptIn(_)
            | ParsedCommand::SiloLogout(_)
            | ParsedCommand::Logout => Self::OwnChoice,
            ParsedCommand::Verify(_)
            | ParsedCommand::Add(..)
            | ParsedCommand::Remove(..)
            | ParsedCommand::Consent(..)
            | ParsedCommand::Pause(_)
            | ParsedCommand::SiloLogin(_)
            | ParsedCommand::Resume(_)
            | ParsedCommand::Trust(..) => Self::Command,
        }
    }

    /// The limit of each asker, in all places of a network together.
    fn of_asker(self) -> Rate {
        match self {
            Self::Info | Self::Refusal => rate(10, 20),
            Self::Retry => rate(10, 30),
            Self::OwnChoice => rate(6, 60),
            Self::Command => rate(20, 15),
            Self::LookUp => rate(5, 60),
            Self::Warning => rate(1, 3_600),
        }
    }

    /// The limit of each place, so that many askers together get no more than the place allows.
    fn of_place(self) -> Rate {
        match self {
            Self::Info | Self::Refusal | Self::OwnChoice => rate(20, 15),
            Self::Retry => rate(30, 15),
            Self::Command => rate(40, 15),
            Self::LookUp => rate(10, 30),
            Self::Warning => rate(5, 600),
        }
    }
}

const fn rate(burst: u32, seconds: u64) -> Rate {
    Rate {
        burst,
        every: Duration::from_secs(seconds),
    }
}

/// Who gives a command, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// The place.
    pub place: &'a Place,
    /// The user id, or the account's id in the silo.
    pub id: &'a str,
}

/// The key of a token bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum BucketKey {
    /// The class, the network and the asker's id.
    Asker(AnswerClass, String, String),
    Place(AnswerClass, Place),
}

/// The token buckets and the counts of withheld answers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AnswerLimits {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    buckets: RateLimiter<BucketKey>,
    withheld: BTreeMap<String, u64>,
}

impl AnswerLimits {
    /// Takes a token of the asker and one of the place, if both have one.
    pub(super) fn admits(&self, class: AnswerClass, asker: Asker<'_>) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let keys = keys(class, asker);
        let admitted = keys
            .iter()
            .all(|(key, rate)| state.buckets.has(key, *rate, now));
        if admitted {
            for (key, rate) in &keys {
                state.buckets.take(key, *rate, now);
            }
        }
        admitted
    }

    /// Whether the asker and the place have a token left.
    pub(super) fn has_room(&self, class: AnswerClass, asker: Asker<'_>) -> bool {
        let (now, state) = (Instant::now(), self.lock());
        keys(class, asker)
            .iter()
            .all(|(key, rate)| state.buckets.has(key, *rate, now))
    }

    /// Whether this asker has a token left, whatever others in the place have used.
    pub(super) fn has_left(&self, class: AnswerClass, asker: Asker<'_>) -> bool {
        let [(key, rate), _] = keys(class, asker);
        self.lock().buckets.has(&key, rate, Instant::now())
    }

    /// Takes a token of the asker alone.
    pub(super) fn charge(&self, class: AnswerClass, asker: Asker<'_>) {
        let [(key, rate), _] = keys(class, asker);
        self.lock().buckets.take(&key, rate, Instant::now());
    }

    /// Counts a withheld answer.
    pub(super) fn withhold(&self, asker: Asker<'_>) {
        let mut state = self.lock();
        let network = asker.place.network().to_owned();
        let count = state.withheld.entry(network).or_default();
        *count = count.saturating_add(1);
    }

    /// How many answers were withheld since the start, by network.
    #[must_use]
    pub fn withheld(&self) -> BTreeMap<String, u64> {
        self.lock().withheld.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// The class of the answer. `verify` counts as information for those who may not verify the bridge: the reply
    /// only says that.
    pub(super) fn class(&self, parsed: &ParsedCommand, asker: Asker<'_>) -> AnswerClass {
        match AnswerClass::of(parsed) {
            AnswerClass::Command
                if matches!(parsed, ParsedCommand::Verify(_))
                    && !is_admin(&self.rules.admins, asker.id) =>
            {
                AnswerClass::Info
            }
            class => class,
        }
    }

    /// Whether the command is executed at all. Information and retries are not where the answer would be withheld; and
    /// whoever was refused too often is not checked again.
    pub(super) fn may_begin(&self, parsed: &ParsedCommand, asker: Asker<'_>) -> bool {
        match self.class(parsed, asker) {
            class @ (AnswerClass::Info | AnswerClass::Retry) => self.answers.has_room(class, asker),
            AnswerClass::OwnChoice => true,
            _ => {
                let is_known_room =
                    parsed.room().is_none() || is_admin(&self.rules.admins, asker.id);
                self.answers.has_left(AnswerClass::Refusal, asker)
                    && (is_known_room || self.answers.admits(AnswerClass::LookUp, asker))
            }
        }
    }

    /// Whether this answer is sent. A refusal counts for the asker also where it is withheld.
    pub(super) fn admits(&self, class: AnswerClass, asker: Asker<'_>) -> bool {
        let admitted = self.answers.admits(class, asker);
        if !admitted && class == AnswerClass::Refusal {
            self.answers.charge(class, asker);
        }
        admitted
    }

    /// Counts a withheld answer. Returns the warning to send instead, once in a while.
    pub(super) fn withhold(&self, asker: Asker<'_>) -> Option<String> {
        self.answers.withhold(asker);
        let warns = self.answers.admits(AnswerClass::Warning, asker);
        warns.then(|| replies::rate_limited().to_owned())
    }
}

fn keys(class: AnswerClass, asker: Asker<'_>) -> [(BucketKey, Rate); 2] {
    let network = asker.place.network().to_owned();
    [
        (
            BucketKey::Asker(class, network, asker.id.to_owned()),
            class.of_asker(),
        ),
        (
            BucketKey::Place(class, asker.place.clone()),
            class.of_place(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b14_many_askers_get_no_more_than_the_place_and_one_asker_no_more_in_many_places() {
        let limits = AnswerLimits::default();
        let room = Place::room("!r:x");
        let names: Vec<String> = (0..10).map(|number| format!("@p{number}:x")).collect();
        let answered = (0..200)
            .filter(|number| {
                let id = names.get(number % 10).map_or("", String::as_str);
                limits.admits(AnswerClass::Info, Asker { place: &room, id })
            })
            .count();
        assert_eq!(answered, 20);
        // A flood of questions does not use up the answers to commands either.
        let ann = |place| Asker { place, id: "@p0:x" };
        assert!(limits.admits(AnswerClass::Command, ann(&room)));
        let limits = AnswerLimits::default();
        let rooms: Vec<Place> = (0..50)
            .map(|number| Place::room(&format!("!{number}")))
            .collect();
        let rooms = rooms.iter().cycle().take(200);
        let answered = rooms.filter(|room| limits.admits(AnswerClass::Info, ann(room)));
        assert_eq!(answered.count(), 10);
    }
}

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood;
