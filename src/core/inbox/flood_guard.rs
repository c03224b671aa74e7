//! Limits floods in the inbox (C22), and stops messages that return again and again (C18).

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footbridge_store::{Millis, Place, RemoteId, SkipRule};

use super::recent_texts::{ONCE, RecentTexts, SeenText, TEXTS};
use crate::{
    message::{Action, Message},
    names,
    text::is_invisible,
};

/// How many reactions of one person the inbox accepts within a minute.
const REACTIONS: usize = 20;
/// A text that has returned this often is in a loop, however slowly: an account may send only so many messages a minute, and
/// messages in a queue return late.
const LOOP_PASSES: u32 = 8;
/// This many texts of one author that have returned twice or more often, within a minute, are a loop before one of them reaches
/// that depth.
const LOOP_RETURNS: usize = 20;
/// For this long after a loop was found, texts of the same author that return in that place are not relayed.
const LOOP_BLOCKED_FOR: Duration = Duration::from_mins(10);
/// The most authors that are remembered for that.
const MAX_BLOCKED: usize = 1_000;
/// The most bytes that a bridge puts in front of a text that it relays, and how many bytes of a name are kept.
const LONGEST_FRONT: usize = 256;
const LONGEST_NAME: usize = 64;
const MINUTE: Duration = Duration::from_mins(1);

/// The reactions of each person and place within the last minute, and the recent texts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FloodGuard {
    reactions: Arc<Mutex<HashMap<Who, Vec<Millis>>>>,
    recent: Arc<Mutex<RecentTexts>>,
    /// The authors whose texts are in a loop, and when the last one returned.
    loops: Arc<Mutex<HashMap<Who, Millis>>>,
}

/// A person in a place.
type Who = (Place, String);

impl FloodGuard {
    /// Whether this ends in a text that was sent in another place recently, so that the inbox must look up whether portals link
    /// the two places. `id` is the id of the message, or of the message that it edits.
    pub fn may_be_echo(&self, place: &Place, id: Option<&RemoteId>, message: &Message) -> bool {
        let Some(probe) = TextProbe::of(id, message) else {
            return false;
        };
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let here = place_digest(place);
        probe.ends().any(|(length, text)| {
            // Where very many agree, the first few thousand are enough.
            let mut others = recent.elsewhere(here, text).take(TEXTS);
            others.any(|earlier| probe.ends_in(length, earlier))
        })
    }

    /// The rule by which this message is not relayed, if any. `joined` are the places that portals link to this one: a text that
    /// moves between two places that no portal links does not return through this bridge.
    pub fn check(
        &self,
        place: &Place,
        id: Option<&RemoteId>,
        message: &Message,
        joined: &HashSet<Place>,
        now: Millis,
    ) -> Option<SkipRule> {
        if let Some(probe) = TextProbe::of(id, message) {
            let by = message.sender.id.clone();
            return self.check_loop(place, joined, probe, by, now);
        }
        if !matches!(message.action, Action::React { .. }) {
            return None;
        }
        let mut reactions = self
            .reactions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for moments in reactions.values_mut() {
            moments.retain(|moment| now.since(*moment) < MINUTE);
        }
        // Persons without a reaction in the last minute are forgotten.
        reactions.retain(|_, moments| !moments.is_empty());
        let who = (place.clone(), message.sender.id.clone());
        let moments = reactions.entry(who).or_default();
        if moments.len() >= REACTIONS {
            return Some(SkipRule::ReactionFlood);
        }
        moments.push(now);
        None
    }

    fn check_loop(
        &self,
        place: &Place,
        joined: &HashSet<Place>,
        probe: TextProbe,
        by: String,
        now: Millis,
    ) -> Option<SkipRule> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let here = place_digest(place);
        let near: HashSet<u64> = joined.iter().map(place_digest).chain([here]).collect();
        let passes = probe.passes(&recent, &near);
        // Texts that were sent long ago and are received together count as returned only as often as when they were sent.
        let returned = recent.returned_often(here, probe.text.by, probe.text.at);
        let returned = returned.take(LOOP_RETURNS).count();
        let who = (place.clone(), by);
        recent.keep(SeenText {
            place: here,
            passes,
            ..probe.text
        });
        drop(recent);
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let is_blocked = loops
            .get(&who)
            .is_some_and(|last| now.since(*last) < LOOP_BLOCKED_FOR);
        let is_loop =
            passes >= LOOP_PASSES || (passes > ONCE && (is_blocked || returned >= LOOP_RETURNS));
        if is_loop {
            loops.retain(|_, last| now.since(*last) < LOOP_BLOCKED_FOR);
            if loops.len() < MAX_BLOCKED || loops.contains_key(&who) {
                loops.insert(who, now);
            }
        }
        is_loop.then_some(SkipRule::Loop)
    }
}

/// A text to be compared with others.
#[derive(Debug)]
struct TextProbe {
    text: SeenText,
    /// The beginning of the text.
    head: String,
    /// The digest of the whole text, of the text without its first byte, without its first two, and so on.
    ends: Vec<u64>,
    /// Of a prefix of this length: the words of its last line, once somebody has asked for them.
    prefix_words: Vec<OnceCell<String>>,
}

impl TextProbe {
    /// The text of a message; `None` where it has none.
    fn of(id: Option<&RemoteId>, message: &Message) -> Option<Self> {
        let (body, id) = match &message.action {
            Action::Post { body, .. } => (body, id),
            Action::Edit { target, body, .. } => (body, Some(target)),
            _ => return None,
        };
        let text = visible_text(&body.to_plain());
        let sender = &message.sender;
        let shown = names::display_name(&sender.name, &sender.id);
        let name = words(&shown);
        let name = if name.trim().is_empty() { shown } else { name };
        let ends = digests(&text);
        Some(Self {
            text: SeenText {
                place: 0,
                id: id.map(|id| digest(id.as_str())),
                by: digest(&sender.id),
                name: prefix(&name, LONGEST_NAME).into(),
                at: message.sent_at,
                length: text.len(),
                text: ends.first().copied().unwrap_or_default(),
                passes: 0,
            },
            head: prefix(&text, LONGEST_FRONT).to_owned(),
            prefix_words: vec![OnceCell::new(); ends.len()],
            ends,
        })
    }

    /// How often this has returned: once more than the text of these places that it ends in.
    fn passes(&self, recent: &RecentTexts, near: &HashSet<u64>) -> u32 {
        let mut passes = 0;
        for (length, text) in self.ends() {
            for earlier in near.iter().flat_map(|place| recent.of(*place, text)) {
                // A text of the same message is an edit, which did not return from anywhere.
                let is_same = self.text.id.is_some() && self.text.id == earlier.id;
                if !is_same && self.ends_in(length, earlier) {
                    passes = passes.max(earlier.passes.saturating_add(1));
                }
            }
        }
        passes
    }

    /// The lengths of what may be a name in front of an earlier text, each with the digest of the text behind it.
    fn ends(&self) -> impl Iterator<Item = (usize, u64)> {
        let ends = self.ends.iter().copied().enumerate().skip(1);
        ends.filter(|(length, _)| {
            let front = self.head.get(..*length);
            front.is_some_and(|front| !front.ends_with(char::is_alphanumeric))
        })
    }

    /// Whether this is an earlier text, from this length on, with the name of its author in front of it: that is how a bridge
    /// relays what another bridge, or the bridge itself, has relayed. A prefix that a person puts before an earlier text has no
    /// such name.
    fn ends_in(&self, length: usize, earlier: &SeenText) -> bool {
        if earlier.length == 0
            || self.text.length.checked_sub(earlier.length) != Some(length)
            || self.ends.get(length) != Some(&earlier.text)
        {
            return false;
        }
        let (Some(front), Some(known)) = (self.head.get(..length), self.prefix_words.get(length))
        else {
            return false;
        };
        // A list whose newest line is the first has the name in other lines.
        let line = front.rsplit('\n').next().unwrap_or_default();
        let name: &str = &earlier.name;
        known.get_or_init(|| words(line)).contains(name) || line.contains(name)
    }
}

/// A hash of a place, by which its texts are found.
fn place_digest(place: &Place) -> u64 {
    digest(&format!("{}:{}", place.network(), place.address()))
}

/// A hash of a text, by which it is recognised.
fn digest(text: &str) -> u64 {
    digests(text).first().copied().unwrap_or_default()
}

/// The digests of a text, of the text without its first byte, and so on, up to [`LONGEST_FRONT`] bytes. The text is hashed from
/// its end, so that all digests take no longer than one.
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

/// A text as people see it: without invisible characters, which bridges put into names, and with each run of white space as one
/// blank.
fn visible_text(text: &str) -> String {
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

/// The words of a line in lower case, with one blank before and after each.
fn words(line: &str) -> String {
    let words = line.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |all, word| {
        all + word.to_lowercase().as_str() + " "
    })
}

/// The first bytes of a text, at most this many.
fn prefix(text: &str, most: usize) -> &str {
    let suffix = most.min(text.len());
    let suffix = (0..=suffix).rev().find(|at| text.is_char_boundary(*at));
    text.get(..suffix.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::recent_texts::ALL_TEXTS, *};
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
        let (flood, place) = (FloodGuard::default(), Place::room("!r:x"));
        let accepted = |user: &str, from: i64, count: i64| {
            (from..from + count)
                .filter(|at| {
                    flood
                        .check(
                            &place,
                            None,
                            &reacted(user),
                            &HashSet::new(),
                            Millis(at * 10),
                        )
                        .is_none()
                })
                .count()
        };
        assert_eq!(accepted("@ann:x", 0, 60), 20);
        assert_eq!(accepted("@bob:x", 60, 5), 5);
        assert_eq!(accepted("@ann:x", 6_100, 25), 20, "a minute later");
    }

    fn post(by: &str, text: &str, at: i64) -> Message {
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
        let mut message = post(by, text, at);
        message.action = Action::Edit {
            target: target.into(),
            body: Body::plain(text),
            style: Style::Text,
        };
        message
    }

    /// How many of these texts are relayed, which are sent this many milliseconds apart.
    fn pass(texts: &[(&Place, &str, String)], apart: i64) -> usize {
        let all: Vec<&Place> = texts.iter().map(|(place, ..)| *place).collect();
        pass_where(texts, apart, &all)
    }

    /// The same where portals link these places.
    fn pass_where(texts: &[(&Place, &str, String)], apart: i64, joined: &[&Place]) -> usize {
        let joined: HashSet<Place> = joined.iter().copied().cloned().collect();
        let flood = FloodGuard::default();
        let texts = texts.iter().zip(0_i64..);
        let passed = texts.filter(|((place, by, text), at)| {
            let message = post(by, text, at * apart);
            let now = Millis(at * apart);
            flood.check(place, None, &message, &joined, now).is_none()
        });
        passed.count()
    }

    /// Fast; as fast as an ordinary account may send; and where each return waits for the rate limit.
    const APART: [i64; 3] = [100, 5_000, 900_000];

    #[test]
    fn c18_what_comes_back_again_and_again_is_stopped_at_any_speed() {
        let (here, there) = (Place::new("gitter", "1"), Place::room("!r:x"));
        let place = |hop: usize| {
            if hop.is_multiple_of(2) { &here } else { &there }
        };
        // Received on one side only: somebody else's bridge brings each copy back there.
        let grown = |hops: usize| (&here, "them", format!("{}hi", "them: ".repeat(hops)));
        let swings = |hops: usize| {
            (
                place(hops),
                "them",
                format!("{}hi", "us (them): ".repeat(hops)),
            )
        };
        // Longer than the part that is compared.
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
        // Invisible characters separate the names, and the white space changes.
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
        let flood = FloodGuard::default();
        let goes_on = |place: &Place, text: &str, at: i64| {
            let message = post("them", text, at);
            flood
                .check(place, None, &message, &joined, Millis(at))
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
        // Elsewhere, and for texts that returned once, it is relayed.
        assert!(goes_on(&there, "us: them: us: them: message 1", 12_000));
        assert!(goes_on(&here, "news", 12_000) && goes_on(&here, "us: them: news", 12_100));
        assert!(!goes_on(&here, "us: them: us: them: news", 12_200));
        let later = 12_200 + 600_000;
        assert!(goes_on(&here, "more", later) && goes_on(&here, "them: more", later));
        assert!(goes_on(&here, "them: them: more", later));
    }

    #[test]
    fn c18_a_message_that_a_foreign_bridge_relays_once_is_no_loop() {
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
        // Linked by somebody else's bridge only, and, where this bridge links them as well, by a program that quotes.
        for apart in APART {
            assert_eq!(pass_where(&chain, apart, &[]), 160);
            assert_eq!(pass(&chain, apart), 160);
        }
        let flood = FloodGuard::default();
        let (none, now) = (HashSet::new(), Millis(0));
        flood.check(&here, None, &post("@ann:x", "hi", 0), &none, now);
        let may_be_echo = |place, text| flood.may_be_echo(place, None, &post("them", text, 5));
        assert!(may_be_echo(&there, "<ann x> hi"));
        assert!(!may_be_echo(&here, "ann x: hi"));
        assert!(!may_be_echo(&there, "ann x: high") && !may_be_echo(&there, "ann x: xhi"));
        assert!(!may_be_echo(&there, "hi") && !may_be_echo(&there, "oh, hi"));
    }

    #[test]
    fn c18_messages_that_people_and_programs_repeat_are_no_loop() {
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
            let texts = (0..200).map(|number| (place(number), "ci", text(number)));
            texts.collect::<Vec<_>>()
        };
        // Many people agree on both sides, and continue an earlier message.
        let names: Vec<String> = (0..50).map(|number| format!("p{number}")).collect();
        let people = |text: &dyn Fn(usize) -> String| {
            let names = names.iter().enumerate();
            let texts = names.map(|(number, name)| (place(number), name.as_str(), text(number)));
            texts.collect::<Vec<_>>()
        };
        let newest_first = |line: &str, number: usize| {
            let lines = (0..=number).rev().map(|line_| format!("{line}{line_}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        for apart in APART {
            for texts in [
                alone(&|_| "build: ok".to_owned()),
                alone(&|number| number.to_string()),
                alone(&|number| format!("host{number}: ok")),
                alone(&|number| "ok ".repeat(number + 1)),
                alone(&|number| newest_first("l", number)),
                alone(&|number| newest_first("ci: build ", number)),
                // Long texts that end alike.
                alone(&|number| {
                    let failed = "!".repeat(number * 37 % 101);
                    format!(
                        "ci: {failed}build {number}: {}",
                        "the same footer ".repeat(30)
                    )
                }),
                // A program that sends the same text on both sides.
                both(&|number| format!("message {}", number / 2)),
                both(&|_| "ok".to_owned()),
                people(&|_| "+1".to_owned()),
                people(&|number| format!("{}dog", "big ".repeat(number))),
                people(&|number| format!("{}> hi", "and: ".repeat(number))),
            ] {
                assert_eq!(pass(&texts, apart), texts.len(), "{:?}", texts[9]);
            }
        }
    }

    #[test]
    fn c18_a_message_that_is_edited_comes_from_nowhere() {
        let place = Place::room("!r:x");
        let flood = FloodGuard::default();
        let joined = HashSet::new();
        let id = RemoteId::from("m");
        let first = post("ci", "ci: 0", 0);
        assert_eq!(
            flood.check(&place, Some(&id), &first, &joined, Millis(0)),
            None
        );
        let mut text = "ci: 0".to_owned();
        for number in 1..100 {
            text = format!("ci: {number} | {text}");
            let edit = edited("m", "ci", &text, number * 2_000);
            let now = Millis(number * 2_000);
            assert_eq!(
                flood.check(&place, None, &edit, &joined, now),
                None,
                "{number}"
            );
        }
        assert_eq!(flood.recent.lock().unwrap().counts(), (1, 0));
    }

    #[test]
    fn c18_a_loop_of_many_messages_is_found_however_many_they_are() {
        let here = Place::new("gitter", "1");
        for apart in [100, 900_000] {
            for many in [65, 150, 1_000] {
                let all = (0..many * 12).map(|number| {
                    let (hops, number) = (number / many, number % many);
                    (
                        &here,
                        "them",
                        format!("{}message {number}", "them: ".repeat(hops)),
                    )
                });
                let passed = pass(&all.collect::<Vec<_>>(), apart);
                assert!(passed <= many * 8, "{passed} of {many}");
            }
        }
    }

    #[test]
    fn c18_the_memory_is_bounded() {
        let (flood, place) = (FloodGuard::default(), Place::room("!r:x"));
        let joined = HashSet::new();
        for number in 0..2_200_i64 {
            let by = format!("p{number}");
            let text = format!("{}message {number}", format!("{by}: ").repeat(9));
            for hops in 0..=9 {
                let text = &text[(9 - hops) * (by.len() + 2)..];
                flood.check(&place, None, &post(&by, text, 0), &joined, Millis(0));
            }
        }
        assert_eq!(flood.recent.lock().unwrap().counts(), (TEXTS, TEXTS));
        assert_eq!(flood.loops.lock().unwrap().len(), MAX_BLOCKED);
    }

    #[test]
    fn c18_the_memory_is_bounded_in_any_number_of_places() {
        let (flood, joined) = (FloodGuard::default(), HashSet::new());
        let say = |place: &Place, by: &str, text: &str| {
            flood.check(place, None, &post(by, text, 0), &joined, Millis(0))
        };
        let places: Vec<Place> = (0..40)
            .map(|number| Place::room(&format!("!{number}:x")))
            .collect();
        for number in 0..1_100 {
            for place in &places {
                say(place, "p", &format!("message {number}"));
            }
        }
        assert_eq!(flood.recent.lock().unwrap().counts(), (ALL_TEXTS, 0));
        // The newest are there, whichever place they are from, and what is looked for is found among all of them.
        for place in &places {
            assert_eq!(say(place, "q", "p: message 1099"), None);
        }
        assert_eq!(
            flood.recent.lock().unwrap().counts(),
            (ALL_TEXTS, places.len())
        );
        let message = post("q", "p: message 1099", 0);
        assert!(flood.may_be_echo(&places[0], None, &message));
        // Those that were pushed out are not.
        let message = post("q", "p: message 9", 0);
        assert!(!flood.may_be_echo(&places[0], None, &message));
    }
}
