//! The recent texts of all places, found by their digests: a message is compared with the few that it may end in, however many
//! places there are. All of them together take no more than a few megabytes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::RangeInclusive,
};

use footbridge_store::Millis;

/// How many texts of each place are kept for comparison: this many new ones, and this many returned ones.
pub(super) const TEXTS: usize = 2_048;
/// How many of all places together, so that memory does not grow with the number of portals.
pub(super) const ALL_TEXTS: usize = 32_768;

/// A text that another program relayed only once has not looped: a program that quotes, or a bridge that links this place to
/// another network, brings every message once.
pub(super) const ONCE: u32 = 1;
const MINUTE_MILLIS: i64 = 60_000;

/// A text that somebody sent; all but the name as a digest.
#[derive(Debug)]
pub(super) struct SeenText {
    /// Digest of the place.
    pub place: u64,
    /// Digest of the message id.
    pub id: Option<u64>,
    pub by: u64,
    /// The author's name in words; unchanged where it has no words.
    pub name: Box<str>,
    /// When it was sent, by the source's clock.
    pub at: Millis,
    /// In bytes, without invisible characters.
    pub length: usize,
    /// Digest of the text.
    pub text: u64,
    /// How often it returned: once more than the text that it ends in.
    pub passes: u32,
}

/// The recent texts. Returned texts are kept apart: they are rare where nothing loops, and new texts must not push them out.
#[derive(Debug, Default)]
pub(super) struct RecentTexts {
    new: Texts,
    returned: Texts,
    /// The number of the next text.
    next: u64,
}

impl RecentTexts {
    /// Keeps a text; of one message the last one.
    pub fn keep(&mut self, seen: SeenText) {
        if let Some(id) = seen.id {
            for texts in [&mut self.new, &mut self.returned] {
                texts.forget(seen.place, id);
            }
        }
        let texts = if seen.passes == 0 {
            &mut self.new
        } else {
            &mut self.returned
        };
        texts.add(self.next, seen);
        self.next += 1;
    }

    /// The texts of a place that have this digest.
    pub fn of(&self, place: u64, text: u64) -> impl Iterator<Item = &SeenText> {
        let kinds = [&self.new, &self.returned].into_iter();
        kinds.flat_map(move |texts| texts.between(text, place..=place))
    }

    /// The texts of other places that have this digest.
    pub fn elsewhere(&self, place: u64, text: u64) -> impl Iterator<Item = &SeenText> {
        let kinds = [&self.new, &self.returned].into_iter();
        kinds.flat_map(move |texts| {
            let below = place.checked_sub(1);
            let below = below.map(|last| texts.between(text, 0..=last));
            let above = place.checked_add(1);
            let above = above.map(|first| texts.between(text, first..=u64::MAX));
            below.into_iter().chain(above).flatten()
        })
    }

    /// The texts of an author that returned twice or more often in a place, and were sent within a minute of this moment.
    pub fn returned_often(
        &self,
        place: u64,
        by: u64,
        at: Millis,
    ) -> impl Iterator<Item = &(u64, u64, i64, u64)> {
        let first = (place, by, at.0.saturating_sub(MINUTE_MILLIS - 1), 0);
        let last = (place, by, at.0.saturating_add(MINUTE_MILLIS - 1), u64::MAX);
        self.returned.often.range(first..=last)
    }

    /// How many texts are kept: new ones, and returned ones.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        (self.new.by_number.len(), self.returned.by_number.len())
    }
}

/// Texts with their numbers: the oldest has the lowest.
#[derive(Debug, Default)]
struct Texts {
    by_number: BTreeMap<u64, SeenText>,
    /// By text, place and number.
    index: BTreeSet<(u64, u64, u64)>,
    of_place: HashMap<u64, VecDeque<u64>>,
    /// Those that returned twice or more often, by place, author, time and number.
    often: BTreeSet<(u64, u64, i64, u64)>,
    /// The number of each message's text, by place and id.
    of_message: HashMap<(u64, u64), u64>,
}

impl Texts {
    /// The texts with this digest of the places whose digests are in this range.
    fn between(&self, text: u64, places: RangeInclusive<u64>) -> impl Iterator<Item = &SeenText> {
        let (first, last) = places.into_inner();
        let found = self.index.range((text, first, 0)..=(text, last, u64::MAX));
        found.filter_map(|(_, _, number)| self.by_number.get(number))
    }

    fn add(&mut self, number: u64, seen: SeenText) {
        let here = self.of_place.get(&seen.place);
        let surplus = here
            .filter(|numbers| numbers.len() >= TEXTS)
            .and_then(|numbers| numbers.front().copied());
        let oldest = self.by_number.keys().next().copied();
        let surplus = surplus.or(oldest.filter(|_| self.by_number.len() >= ALL_TEXTS));
        if let Some(surplus) = surplus {
            self.remove(surplus);
        }
        self.index.insert((seen.text, seen.place, number));
        let here = self.of_place.entry(seen.place).or_default();
        here.push_back(number);
        if seen.passes > ONCE {
            self.often.insert((seen.place, seen.by, seen.at.0, number));
        }
        if let Some(id) = seen.id {
            self.of_message.insert((seen.place, id), number);
        }
        self.by_number.insert(number, seen);
    }

    /// Forgets the text of a message.
    fn forget(&mut self, place: u64, id: u64) {
        if let Some(number) = self.of_message.get(&(place, id)).copied() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(gone) = self.by_number.remove(&number) else {
            return;
        };
        self.index.remove(&(gone.text, gone.place, number));
        self.often.remove(&(gone.place, gone.by, gone.at.0, number));
        if let Some(id) = gone.id {
            self.of_message.remove(&(gone.place, id));
        }
        if let Some(numbers) = self.of_place.get_mut(&gone.place) {
            if let Ok(at) = numbers.binary_search(&number) {
                numbers.remove(at);
            }
            if numbers.is_empty() {
                // Of a place without recent texts, such as that of a removed portal, nothing stays.
                self.of_place.remove(&gone.place);
            }
        }
    }
}
