//! Against floods at the door (C22), and against what comes back again and again (C18).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footbridge_store::{Millis, Place, RemoteId};

use crate::{
    message::{Action, Message},
    names,
    text::is_invisible,
};

/// The rule for more reactions than one person has within a minute.
const FLOOD: &str = "reaction-flood";
/// How many reactions of one person are taken within a minute.
const REACTIONS: usize = 20;
/// The rule for what comes back again and again: two bridges that hand each other's copies back do that.
pub const LOOP: &str = "loop";
/// What has come back so often is in a loop, however slowly: an account may send only so many messages a minute, and what waits for
/// its turn returns late.
const DEPTH: u32 = 8;
/// So many of one author that have come back twice or more often, within a minute, are a loop before one of them has that depth.
const RETURNS: usize = 20;
/// What has come by somebody's hands only once has not come back: another program that quotes, or a bridge that joins what
/// is said here to something else, brings everything once.
const ONCE: u32 = 1;
/// For this long after a loop was found what the same author brings back there goes no further.
const HELD: Duration = Duration::from_mins(10);
/// The most authors that are remembered for that.
const MOST_HELD: usize = 1_000;
/// How many texts of each place are compared of those that are new, and how many of those that came back.
const TEXTS: usize = 2_048;
/// The most bytes that a bridge puts in front of what it brings back, and how many of a name are kept.
const LONGEST_FRONT: usize = 256;
const LONGEST_NAME: usize = 64;
const MINUTE: Duration = Duration::from_mins(1);
const MINUTE_MILLIS: u64 = 60_000;

/// Who reacted where and when within the last minute, and what was said lately. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    reactions: Arc<Mutex<HashMap<Who, Vec<Millis>>>>,
    said: Arc<Mutex<HashMap<Place, Texts>>>,
    /// Who brought back what is in a loop, and when last.
    loops: Arc<Mutex<HashMap<Who, Millis>>>,
}

/// What was said in a place, oldest first. What came back is kept apart: it is rare where nothing loops, and must not be forgotten
/// over what people say in between.
#[derive(Debug, Default)]
struct Texts {
    new: VecDeque<Said>,
    returned: VecDeque<Said>,
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = &Said> {
        self.new.iter().chain(&self.returned)
    }

    /// Keeps a text; of one message the last one.
    fn keep(&mut self, said: Said) {
        if said.id.is_some() {
            for texts in [&mut self.new, &mut self.returned] {
                texts.retain(|text| text.id != said.id);
            }
        }
        let texts = if said.passes == 0 {
            &mut self.new
        } else {
            &mut self.returned
        };
        if texts.len() >= TEXTS {
            texts.pop_front();
        }
        texts.push_back(said);
    }
}

/// What somebody said; of all but their name a digest.
#[derive(Debug)]
struct Said {
    /// Of what the message is known by.
    id: Option<u64>,
    by: u64,
    /// Their name, as [`words`]; as it is where it has none.
    name: String,
    /// When they say it was said.
    at: Millis,
    /// In bytes, without what is not seen.
    length: usize,
    /// Of the text, as [`digests`].
    text: u64,
    /// How often it came back: once more than what it ends in.
    passes: u32,
}

/// A person in a place.
type Who = (Place, String);

impl Flood {
    /// Whether this ends in something that was said in another place lately, so that it has to be known whether portals join
    /// the two. `id` is what the message, or the one that it changes, is known by.
    pub fn may_be_echo(&self, place: &Place, id: Option<&RemoteId>, message: &Message) -> bool {
        let Some(heard) = Heard::of(id, message) else {
            return false;
        };
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = said.iter().filter(|(other, _)| *other != place);
        others.any(|(_, texts)| {
            texts
                .iter()
                .any(|said| heard.brings_back(said))
        })
    }

    /// The rule by which this goes no further, if any. `joined` are the places that portals join to this one: what goes on
    /// from one to another place that no portal joins to it does not come back by us.
    pub fn against(
        &self,
        (place, id): (&Place, Option<&RemoteId>),
        message: &Message,
        joined: &HashSet<Place>,
        now: Millis,
    ) -> Option<&'static str> {
        if let Some(heard) = Heard::of(id, message) {
            let by = message.sender.id.clone();
            return self.comes_back((place, joined), heard, by, now);
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
        heard: Heard,
        by: String,
        now: Millis,
    ) -> Option<&'static str> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let near = said
            .iter()
            .filter(|(other, _)| *other == place || joined.contains(other));
        let before = near.flat_map(|(_, texts)| texts.iter());
        // Of the same message: an edit, which did not come from anywhere.
        let before = before.filter(|text| {
            let is_same = heard.said.id.is_some() && heard.said.id == text.id;
            !is_same && heard.brings_back(text)
        });
        let before = before.map(|text| text.passes).max();
        let mut heard = heard.said;
        let passes = before.map_or(0, |before| before.saturating_add(1));
        let texts = said.entry(place.clone()).or_default();
        // What was said long ago and comes in one go has come back no oftener than when it was said.
        let returned = texts.returned.iter().filter(|text| {
            let is_near = text.at.0.abs_diff(heard.at.0) < MINUTE_MILLIS;
            is_near && text.passes > ONCE && text.by == heard.by
        });
        let returned = returned.count();
        let who = (place.clone(), by);
        heard.passes = passes;
        texts.keep(heard);
        drop(said);
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = loops.get(&who).is_some_and(|last| now.since(*last) < HELD);
        let is_loop = passes >= DEPTH || (passes > ONCE && (is_held || returned >= RETURNS));
        if is_loop {
            loops.retain(|_, last| now.since(*last) < HELD);
            if loops.len() < MOST_HELD || loops.contains_key(&who) {
                loops.insert(who, now);
            }
        }
        is_loop.then_some(LOOP)
    }
}

/// A text to be compared with others.
#[derive(Debug)]
struct Heard {
    said: Said,
    /// How it begins.
    head: String,
    /// The digest of all of it, without its first byte, without its first two, and so on.
    ends: Vec<u64>,
}

impl Heard {
    /// The text of a message; `None` where there is none.
    fn of(id: Option<&RemoteId>, message: &Message) -> Option<Self> {
        let (body, id) = match &message.action {
            Action::Post { body, .. } => (body, id),
            Action::Edit { target, body, .. } => (body, Some(target)),
            _ => return None,
        };
        let text = seen(&body.to_plain());
        let sender = &message.sender;
        let shown = names::shown(&sender.name, &sender.id);
        let name = words(&shown);
        let name = if name.trim().is_empty() { shown } else { name };
        let ends = digests(&text);
        Some(Self {
            said: Said {
                id: id.map(|id| digest(id.as_str())),
                by: digest(&sender.id),
                name: beginning(&name, LONGEST_NAME).to_owned(),
                at: message.sent_at,
                length: text.len(),
                text: ends.first().copied().unwrap_or_default(),
                passes: 0,
            },
            head: beginning(&text, LONGEST_FRONT).to_owned(),
            ends,
        })
    }

    /// Whether this is a text that was said before with the name of who said it in front of it: how one bridge hands on what
    /// another one, or itself, has brought. What people put before something that was said has no such name.
    fn brings_back(&self, said: &Said) -> bool {
        let Some(front) = self.said.length.checked_sub(said.length) else {
            return false;
        };
        if front == 0 || said.length == 0 || self.ends.get(front) != Some(&said.text) {
            return false;
        }
        let Some(front) = self.head.get(..front) else {
            return false;
        };
        // A list whose newest line stands first has the name in other lines.
        let line = front.rsplit('\n').next().unwrap_or_default();
        let stands_apart = !front.ends_with(char::is_alphanumeric);
        stands_apart && (words(line).contains(&said.name) || line.contains(&said.name))
    }
}

/// A short form of a text by which it is known again.
fn digest(text: &str) -> u64 {
    digests(text).first().copied().unwrap_or_default()
}

/// The digest of a text, of the text without its first byte, and so on, as far as a front may reach. It is read from its end,
/// so that all of them take no longer than one.
fn digests(text: &str) -> Vec<u64> {
    let (mut hasher, mut digests) = (DefaultHasher::new(), Vec::new());
    for (at, byte) in text.bytes().enumerate().rev() {
        hasher.write_u8(byte);
        if at <= LONGEST_FRONT {
            digests.push(hasher.finish());
        }
    }
    digests.reverse();
    digests
}

/// A text as people see it: without what is invisible, which bridges put into names, and each blank one blank.
fn seen(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = None;
    for c in text.chars().filter(|c| *c == '\n' || !is_invisible(*c)) {
        if c.is_whitespace() {
            blank = blank
                .filter(|blank| *blank == '\n')
                .or(Some(if c == '\n' { c } else { ' ' }));
            continue;
        }
        out.extend(blank.take().filter(|_| !out.is_empty()));
        out.push(c);
    }
    out
}

/// The words of a line, each between two blanks.
fn words(line: &str) -> String {
    let words = line.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |all, word| {
        all + word.to_lowercase().as_str() + " "
    })
}

/// The first bytes of a text, at most so many.
fn beginning(text: &str, most: usize) -> &str {
    let end = most.min(text.len());
    let end = (0..=end).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::Style, text::Body};

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
                        .against(
                            (&place, None),
                            &reacted(user),
                            &HashSet::new(),
                            Millis(at * 10),
                        )
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
        by.clone_into(&mut message.sender.name);
        message.sent_at = Millis(at);
        message.action = Action::Post {
            body: Body::plain(text),
            style: Style::Text,
            reply_to: None,
            thread: None,
        };
        message
    }

    fn edited(target: &str, by: &str, text: &str, at: i64) -> Message {
        let mut message = said(by, text, at);
        message.action = Action::Edit {
            target: target.into(),
            body: Body::plain(text),
            style: Style::Text,
        };
        message
    }

    /// How many of these go on, which come so far apart, in milliseconds.
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
            let now = Millis(at * apart);
            flood
                .against((place, None), &message, &joined, now)
                .is_none()
        });
        passed.count()
    }

    /// Fast, as fast as an ordinary account may send, and where each return waits for its turn.
    const APART: [i64; 3] = [100, 5_000, 900_000];

    #[test]
    fn c18_what_comes_back_again_and_again_is_stopped_at_any_speed() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        let place = |hop: usize| {
            if hop.is_multiple_of(2) { &here } else { &there }
        };
        // Heard on one side alone: somebody else's bridge brings each copy back there.
        let grown = |hops: usize| (&here, "them", format!("{}hi", "them: ".repeat(hops)));
        let swings = |hops: usize| {
            (
                place(hops),
                "them",
                format!("{}hi", "us (them): ".repeat(hops)),
            )
        };
        // Longer than what is compared.
        let long = |hops: usize| {
            let text = format!("{}{}", "<them> ".repeat(hops), "é ".repeat(4_000));
            (place(hops), "them", text)
        };
        for apart in APART {
            assert_eq!(pass(&(0..60).map(grown).collect::<Vec<_>>(), apart), 8);
            assert_eq!(pass(&(0..60).map(swings).collect::<Vec<_>>(), apart), 8);
            assert_eq!(pass(&(0..60).map(long).collect::<Vec<_>>(), apart), 8);
            // While people talk.
            let amid = (0..60 * 20).map(|number: usize| match number % 20 {
                0 => grown(number / 20),
                _ => (&here, "@ann:x", format!("message {number}")),
            });
            let people = 60 * 19;
            assert_eq!(pass(&amid.collect::<Vec<_>>(), apart), people + 8);
        }
        // Names are parted by what is not seen, blanks change.
        let parted = |hops: usize| {
            let text = format!("{}hi", "us: @\u{200b}a\u{200b}nn  B: ".repeat(hops));
            (place(hops), "@ann B", text)
        };
        assert_eq!(pass(&(0..60).map(parted).collect::<Vec<_>>(), 5_000), 8);
    }

    #[test]
    fn c18_many_loops_are_stopped_before_each_is_deep_and_until_they_end() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        let joined = HashSet::from([here.clone(), there.clone()]);
        let flood = Flood::default();
        let goes_on = |place: &Place, text: &str, at: i64| {
            let message = said("them", text, at);
            flood
                .against((place, None), &message, &joined, Millis(at))
                .is_none()
        };
        let all = |hops: usize, at: i64| {
            let text = |number: i64| format!("{}message {number}", "us: them: ".repeat(hops));
            (0..30)
                .filter(|number| goes_on(&here, &text(*number), at + number * 100))
                .count()
        };
        assert_eq!(all(0, 0) + all(1, 3_000), 60);
        assert_eq!(all(2, 6_000), 20);
        assert_eq!(all(3, 9_000), 0);
        // Elsewhere, and what came back once, it goes on.
        assert!(goes_on(&there, "us: them: us: them: message 1", 12_000));
        assert!(goes_on(&here, "news", 12_000) && goes_on(&here, "us: them: news", 12_100));
        assert!(!goes_on(&here, "us: them: us: them: news", 12_200));
        let later = 12_200 + 600_000;
        assert!(goes_on(&here, "more", later) && goes_on(&here, "them: more", later));
        assert!(goes_on(&here, "them: them: more", later));
    }

    #[test]
    fn c18_what_somebody_else_s_bridge_brings_once_is_no_loop() {
        let (here, there) = (Place::room("!r:x"), Place::new("gitter", "2"));
        let chain = |number: usize| {
            let text = format!("message {}", number / 2);
            if number.is_multiple_of(2) {
                (&here, "@ann:x", text)
            } else {
                (&there, "them", format!("us: @ann:x: {text}"))
            }
        };
        let chain: Vec<_> = (0..160).map(chain).collect();
        // Joined by somebody else's bridge only, and, where they are joined by us as well, by a program that quotes.
        for apart in APART {
            assert_eq!(pass_where(&chain, apart, &[]), 160);
            assert_eq!(pass(&chain, apart), 160);
        }
        let flood = Flood::default();
        let (none, now) = (HashSet::new(), Millis(0));
        flood.against((&here, None), &said("@ann:x", "hi", 0), &none, now);
        let may_be_echo = |place, text| flood.may_be_echo(place, None, &said("them", text, 5));
        assert!(may_be_echo(&there, "<ann x> hi"));
        assert!(!may_be_echo(&here, "ann x: hi"));
        assert!(!may_be_echo(&there, "ann x: high") && !may_be_echo(&there, "ann x: xhi"));
        assert!(!may_be_echo(&there, "hi") && !may_be_echo(&there, "oh, hi"));
    }

    #[test]
    fn c18_nothing_is_taken_for_a_loop_that_people_and_programs_say_themselves() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        let place = |number: usize| {
            if number.is_multiple_of(2) {
                &here
            } else {
                &there
            }
        };
        let alone = |text: &dyn Fn(usize) -> String| {
            (0..200)
                .map(|number| (&here, "ci", text(number)))
                .collect::<Vec<_>>()
        };
        let both = |text: &dyn Fn(usize) -> String| {
            let said = (0..200).map(|number| (place(number), "ci", text(number)));
            said.collect::<Vec<_>>()
        };
        // Many people agree on both sides, and go on with what was said.
        let names: Vec<String> = (0..50).map(|number| format!("p{number}")).collect();
        let people = |text: &dyn Fn(usize) -> String| {
            let names = names.iter().enumerate();
            let said = names.map(|(number, name)| (place(number), name.as_str(), text(number)));
            said.collect::<Vec<_>>()
        };
        let newest_first = |line: &str, number: usize| {
            let lines = (0..=number).rev().map(|line_| format!("{line}{line_}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        for apart in APART {
            for said in [
                alone(&|_| "build: ok".to_owned()),
                alone(&|number| number.to_string()),
                alone(&|number| format!("host{number}: ok")),
                alone(&|number| "ok ".repeat(number + 1)),
                alone(&|number| newest_first("l", number)),
                alone(&|number| newest_first("ci: build ", number)),
                // Long ones that end alike.
                alone(&|number| {
                    let failed = "!".repeat(number * 37 % 101);
                    format!(
                        "ci: {failed}build {number}: {}",
                        "the same footer ".repeat(30)
                    )
                }),
                // A program that says the same on both sides.
                both(&|number| format!("message {}", number / 2)),
                both(&|_| "ok".to_owned()),
                people(&|_| "+1".to_owned()),
                people(&|number| format!("{}dog", "big ".repeat(number))),
                people(&|number| format!("{}> hi", "and: ".repeat(number))),
            ] {
                assert_eq!(pass(&said, apart), said.len(), "{:?}", said[9]);
            }
        }
    }

    #[test]
    fn c18_a_message_that_is_edited_comes_from_nowhere() {
        let place = Place::room("!r:x");
        let flood = Flood::default();
        let joined = HashSet::new();
        let id = RemoteId::from("m");
        let first = said("ci", "ci: 0", 0);
        assert_eq!(
            flood.against((&place, Some(&id)), &first, &joined, Millis(0)),
            None
        );
        let mut text = "ci: 0".to_owned();
        for number in 1..100 {
            text = format!("ci: {number} | {text}");
            let edit = edited("m", "ci", &text, number * 2_000);
            let now = Millis(number * 2_000);
            assert_eq!(
                flood.against((&place, None), &edit, &joined, now),
                None,
                "{number}"
            );
        }
        let said = flood.said.lock().unwrap();
        assert_eq!(said[&place].iter().count(), 1);
    }

    #[test]
    fn c18_a_loop_of_many_messages_is_found_however_many_they_are() {
        let here = Place::new("gitter", "1");
        for apart in [100, 900_000] {
            for many in [65, 150, 1_000] {
                let all = (0..many * 12).map(|number| {
                    let (hops, number) = (number / many, number % many);
                    (&here, "them", format!("{}message {number}", "them: ".repeat(hops)))
                });
                let passed = pass(&all.collect::<Vec<_>>(), apart);
                assert!(passed <= many * 8, "{passed} of {many}");
            }
        }
    }

    #[test]
    fn c18_the_memory_is_bounded() {
        let (flood, place) = (Flood::default(), Place::room("!r:x"));
        let joined = HashSet::new();
        for number in 0..3_000_i64 {
            let by = format!("p{number}");
            let text = format!("{}{}", format!("{by}: ").repeat(9), "x".repeat(100));
            for hops in (0..9).step_by(2) {
                let text = &text[(9 - hops) * (by.len() + 2)..];
                flood.against((&place, None), &said(&by, text, 0), &joined, Millis(0));
            }
            flood.against((&place, None), &said(&by, &text, 0), &joined, Millis(0));
        }
        let said = flood.said.lock().unwrap();
        let texts = &said[&place];
        assert_eq!((texts.new.len(), texts.returned.len()), (TEXTS, TEXTS));
        assert!(flood.loops.lock().unwrap().len() <= MOST_HELD);
    }
}
