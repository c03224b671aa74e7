//! Against floods at the door (C22), and against what comes back again and again (C18).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footbridge_store::{Millis, Place};

use crate::{
    message::{Action, Message},
    text::Body,
};

/// The rule for more reactions than one person has within a minute.
const FLOOD: &str = "reaction-flood";
/// How many reactions of one person are taken within a minute.
const REACTIONS: usize = 20;
/// The rule for what one author brings back again and again: two bridges that hand each other's copies back do that.
pub const LOOP: &str = "loop";
/// So often within a minute is no chance any more.
const ECHOES: usize = 20;
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
    /// Whether it ends in something shorter that was said before: elsewhere, or by themselves.
    is_echo: bool,
}

/// A person in a place.
type Who = (Place, String);

impl Flood {
    /// The rule by which this goes no further, if any.
    pub fn against(&self, place: &Place, message: &Message, now: Millis) -> Option<&'static str> {
        if let Action::Post { body, .. } | Action::Edit { body, .. } = &message.action {
            // What was said long ago and comes in one go has come back no oftener than when it was said.
            return self.comes_back(place, &message.sender.id, body, message.sent_at);
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

    fn comes_back(&self, place: &Place, by: &str, body: &Body, at: Millis) -> Option<&'static str> {
        let mut text = body.to_plain();
        let length = text.len();
        let start = length.saturating_sub(TAIL);
        let start = (start..=text.len()).find(|at| text.is_char_boundary(*at))?;
        let tail = text.split_off(start);
        if tail.is_empty() {
            return None;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_near = |text: &&Said| text.at.0.abs_diff(at.0) < MINUTE_MILLIS;
        let is_echo = said.iter().any(|(other, texts)| {
            texts.iter().filter(is_near).any(|text| {
                // Names stand apart from the words behind them; of a long text only the end is compared.
                let more = tail.strip_suffix(&text.tail);
                let grows = more.is_some_and(|more| {
                    length > text.length && (more.is_empty() || more.ends_with(char::is_whitespace))
                });
                grows && (other != place || text.by == by)
            })
        });
        let texts = said.entry(place.clone()).or_default();
        let before = texts.iter().filter(is_near);
        let echoes = before.filter(|text| text.is_echo && text.by == by).count();
        if texts.len() >= TEXTS {
            texts.pop_front();
        }
        texts.push_back(Said {
            by: by.to_owned(),
            at,
            length,
            tail,
            is_echo,
        });
        (is_echo && echoes >= ECHOES).then_some(LOOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                        .against(&place, &reacted(user), Millis(at * 10))
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

    /// How many of these go on, all of which are taken in at once and were said so far apart.
    fn pass(texts: &[(&Place, &str, String)], apart: i64) -> usize {
        let flood = Flood::default();
        let texts = texts.iter().zip(0_i64..);
        let passed = texts.filter(|((place, by, text), at)| {
            let message = said(by, text, at * apart);
            flood.against(place, &message, Millis(0)).is_none()
        });
        passed.count()
    }

    #[test]
    fn c18_what_comes_back_longer_each_time_or_from_the_other_side_is_stopped() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        // Behind what Bob said, each time with one more name before it.
        let grown = |hops: usize| (&here, "them", format!("{}hi", "them: ".repeat(hops)));
        let grown: Vec<_> = (0..60).map(grown).collect();
        assert_eq!(pass(&grown, 100), 21);
        assert_eq!(pass(&grown, 10_000), 60, "slowly");
        let swings = |hop: usize| {
            let place = if hop.is_multiple_of(2) { &here } else { &there };
            (place, "them", format!("{}hi", "them: ".repeat(hop)))
        };
        let swings: Vec<_> = (0..100).map(swings).collect();
        assert_eq!(pass(&swings, 100), 41);
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
        assert_eq!(pass(&(0..100).map(long).collect::<Vec<_>>(), 100), 41);
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
