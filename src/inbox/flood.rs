//! Against floods at the door (C22), and against what comes back again and again (C18).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footbridge_store::{Millis, Place};

use crate::message::{Action, Message};

/// The rule for more reactions than one person has within a minute.
const FLOOD: &str = "reaction-flood";
/// How many reactions of one person are taken within a minute.
const REACTIONS: usize = 20;
/// The rule for what one author brings back again and again: two bridges that hand each other's copies back do that.
pub const LOOP: &str = "loop";
/// So often within a minute is no chance any more.
const RETURNS: usize = 20;
/// What has come by somebody's hands only once has not come back: another program that quotes, or a bridge that joins what
/// is said here to something else, brings everything once.
const ONCE: u32 = 1;
/// How many texts of each place are compared, and how many bytes of the end of each.
const TEXTS: usize = 64;
const TAIL: usize = 256;
const MINUTE: Duration = Duration::from_mins(1);
const MINUTE_MILLIS: u64 = 60_000;

/// Who reacted where and when within the last minute. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    reactions: Arc<Mutex<HashMap<Who, Vec<Millis>>>>,
    said: Arc<Mutex<HashMap<Place, VecDeque<Said>>>>,
}

/// What somebody said, and when they say it was.
#[derive(Debug)]
struct Said {
    by: String,
    at: Millis,
    /// In bytes.
    length: usize,
    tail: String,
    /// How often it came by already: one more than something shorter in which it ends, and that was said before elsewhere or
    /// by themselves, where portals join both places. 0 for what is new.
    passes: u32,
}

/// A person in a place.
type Who = (Place, String);

impl Flood {
    /// Whether this ends in something that was said in another place lately, so that it has to be known whether portals join
    /// the two.
    pub fn may_be_echo(&self, place: &Place, message: &Message) -> bool {
        let Some((heard, _)) = Heard::of(message) else {
            return false;
        };
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = said.iter().filter(|(other, _)| *other != place);
        others.any(|(_, texts)| texts.iter().any(|text| heard.grows_from(text)))
    }

    /// The rule by which this goes no further, if any. `joined` are the places that portals join to this one: what goes on
    /// from one to another place that no portal joins to it does not come back by us.
    pub fn against(
        &self,
        place: &Place,
        message: &Message,
        joined: &HashSet<Place>,
        now: Millis,
    ) -> Option<&'static str> {
        if let Some((heard, by)) = Heard::of(message) {
            // What was said long ago and comes in one go has come back no oftener than when it was said.
            return self.comes_back((place, joined), by, heard);
        }
        if !matches!(message.action, Action::React { .. }) {
            return None;
        }
        let mut heard = self
            .reactions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for moments in heard.values_mut() {
            moments.retain(|moment| now.since(*moment) < MINUTE);
        }
        // Who was quiet for a minute is forgotten.
        heard.retain(|_, moments| !moments.is_empty());
        let who = (place.clone(), message.sender.id.clone());
        let moments = heard.entry(who).or_default();
        if moments.len() >= REACTIONS {
            return Some(FLOOD);
        }
        moments.push(now);
        None
    }

    fn comes_back(
        &self,
        (place, joined): (&Place, &HashSet<Place>),
        by: &str,
        heard: Heard,
    ) -> Option<&'static str> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let near = said.iter().flat_map(|(other, texts)| {
            let texts = texts.iter().map(move |text| (other, text));
            texts.filter(|(_, text)| heard.grows_from(text))
        });
        let before = near.filter(|(other, text)| {
            if *other == place {
                text.by == by
            } else {
                joined.contains(other)
            }
        });
        let before = before.map(|(_, text)| text.passes).max();
        let passes = before.map_or(0, |before| before.saturating_add(1));
        let texts = said.entry(place.clone()).or_default();
        let returned = texts
            .iter()
            .filter(|text| heard.is_near(text) && text.passes > ONCE && text.by == by)
            .count();
        if texts.len() >= TEXTS {
            texts.pop_front();
        }
        texts.push_back(Said {
            by: by.to_owned(),
            at: heard.at,
            length: heard.length,
            tail: heard.tail,
            passes,
        });
        (passes > ONCE && returned >= RETURNS).then_some(LOOP)
    }
}

/// A text to be compared with what was said before.
struct Heard {
    at: Millis,
    /// In bytes.
    length: usize,
    tail: String,
}

impl Heard {
    /// The text of a message, and its author; `None` where there is none.
    fn of(message: &Message) -> Option<(Self, &str)> {
        let (Action::Post { body, .. } | Action::Edit { body, .. }) = &message.action else {
            return None;
        };
        let mut text = body.to_plain();
        let length = text.len();
        let start = length.saturating_sub(TAIL);
        let start = (start..=length).find(|at| text.is_char_boundary(*at))?;
        let heard = Self {
            at: message.sent_at,
            length,
            tail: text.split_off(start),
        };
        Some((heard, message.sender.id.as_str()))
    }

    fn is_near(&self, text: &Said) -> bool {
        text.at.0.abs_diff(self.at.0) < MINUTE_MILLIS
    }

    /// Whether it is this with more before it.
    fn grows_from(&self, text: &Said) -> bool {
        // Names stand apart from the words behind them; of a long text only the end is compared.
        let more = self.tail.strip_suffix(&text.tail);
        let grows = more.is_some_and(|more| {
            self.length > text.length && (more.is_empty() || more.ends_with(char::is_whitespace))
        });
        grows && !text.tail.is_empty() && self.is_near(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Body;

    fn reacted(user: &str) -> Message {
        let mut message = Message::notice("", Millis(0));
        user.clone_into(&mut message.sender.id);
        message.action = Action::React {
            target: "m".into(),
            key: "👍".to_owned(),
        };
        message
    }

    #[test]
    fn c22_twenty_reactions_of_one_person_in_a_minute_are_enough() {
        let (flood, place) = (Flood::default(), Place::room("!r:x"));
        let taken = |user: &str, from: i64, count: i64| {
            (from..from + count)
                .filter(|at| {
                    flood
                        .against(&place, &reacted(user), &HashSet::new(), Millis(at * 10))
                        .is_none()
                })
                .count()
        };
        assert_eq!(taken("@ann:x", 0, 60), 20);
        assert_eq!(taken("@bob:x", 60, 5), 5);
        assert_eq!(taken("@ann:x", 6_100, 25), 20, "a minute later");
    }

    fn said(by: &str, text: &str, at: i64) -> Message {
        let mut message = reacted(by);
        message.sent_at = Millis(at);
        message.action = Action::Post {
            body: Body::plain(text),
            style: crate::message::Style::Text,
            reply_to: None,
            thread: None,
        };
        message
    }

    /// How many of these go on, all of which are taken in at once and were said so far apart. Portals join the places.
    fn pass(texts: &[(&Place, &str, String)], apart: i64) -> usize {
        let all: Vec<&Place> = texts.iter().map(|(place, ..)| *place).collect();
        pass_where(texts, apart, &all)
    }

    /// The same where portals join these places.
    fn pass_where(texts: &[(&Place, &str, String)], apart: i64, joined: &[&Place]) -> usize {
        let joined: HashSet<Place> = joined.iter().copied().cloned().collect();
        let flood = Flood::default();
        let texts = texts.iter().zip(0_i64..);
        let passed = texts.filter(|((place, by, text), at)| {
            let message = said(by, text, at * apart);
            flood.against(place, &message, &joined, Millis(0)).is_none()
        });
        passed.count()
    }

    #[test]
    fn c18_what_comes_back_longer_each_time_or_from_the_other_side_is_stopped() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        // Behind what Bob said, each time with one more name before it.
        let grown = |hops: usize| (&here, "them", format!("{}hi", "them: ".repeat(hops)));
        let grown: Vec<_> = (0..60).map(grown).collect();
        assert_eq!(pass(&grown, 100), 22);
        assert_eq!(pass(&grown, 10_000), 60, "slowly");
        let swings = |hop: usize| {
            let place = if hop.is_multiple_of(2) { &here } else { &there };
            (place, "them", format!("{}hi", "them: ".repeat(hop)))
        };
        let swings: Vec<_> = (0..100).map(swings).collect();
        assert_eq!(pass(&swings, 100), 42);
        // Longer than what is compared.
        let long = |hops: usize| {
            let place = if hops.is_multiple_of(2) {
                &here
            } else {
                &there
            };
            (
                place,
                "them",
                format!("{}{}", "them: ".repeat(hops), "é".repeat(4_000)),
            )
        };
        assert_eq!(pass(&(0..100).map(long).collect::<Vec<_>>(), 100), 42);
    }

    #[test]
    fn c18_what_somebody_else_s_bridge_brings_once_is_no_loop() {
        let (here, there) = (Place::room("!r:x"), Place::new("gitter", "2"));
        let chain = |number: usize| {
            let text = format!("message {}", number / 2);
            if number.is_multiple_of(2) {
                (&here, "@ann:x", text)
            } else {
                (&there, "them", format!("us: Ann: {text}"))
            }
        };
        let chain: Vec<_> = (0..160).map(chain).collect();
        // Joined by somebody else's bridge only, and, where they are joined by us as well, by a program that quotes.
        assert_eq!(pass_where(&chain, 100, &[]), 160);
        assert_eq!(pass(&chain, 100), 160);
        let flood = Flood::default();
        flood.against(&here, &said("@ann:x", "hi", 0), &HashSet::new(), Millis(0));
        assert!(flood.may_be_echo(&there, &said("them", "Ann: hi", 5)));
        assert!(!flood.may_be_echo(&here, &said("them", "Ann: hi", 5)));
        assert!(!flood.may_be_echo(&there, &said("them", "Ann: high", 5)));
    }

    #[test]
    fn c18_nothing_is_taken_for_a_loop_that_one_side_says_alone() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        let same = vec![(&here, "ci", "build: ok".to_owned()); 200];
        assert_eq!(pass(&same, 100), 200);
        let counted = |number: usize| (&here, "ci", number.to_string());
        assert_eq!(pass(&(0..200).map(counted).collect::<Vec<_>>(), 100), 200);
        let numbered = |number: usize| (&here, "ci", format!("host{number}: ok"));
        assert_eq!(pass(&(0..200).map(numbered).collect::<Vec<_>>(), 100), 200);
        // A program that says the same on both sides.
        let both = |number: usize| {
            let place = if number.is_multiple_of(2) {
                &here
            } else {
                &there
            };
            (place, "ci", format!("message {}", number / 2))
        };
        assert_eq!(pass(&(0..200).map(both).collect::<Vec<_>>(), 100), 200);
        // Many people agree on both sides.
        let names: Vec<String> = (0..50).map(|number| format!("p{number}")).collect();
        let agree = names.iter().enumerate().map(|(number, name)| {
            let place = if number.is_multiple_of(2) {
                &here
            } else {
                &there
            };
            (place, name.as_str(), "+1".to_owned())
        });
        assert_eq!(pass(&agree.collect::<Vec<_>>(), 100), 50);
    }
}
