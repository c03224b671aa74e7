//! Emoji as Mattermost names them: by a list of its own, which it publishes, and by the names that teams give to what they have
//! made themselves. Some servers refuse names that nobody has given: those are told in words.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::reactions::{self, Reacted};

/// How a name ends that says a colour of skin.
const SKIN: &str = "_skin_tone";
/// The colours, as they stand before that. Of those of which one ends like another, the longer first.
const TONES: [&str; 5] = [
    "_medium_light",
    "_medium_dark",
    "_light",
    "_medium",
    "_dark",
];
/// How long a name counts as one that the server does not have.
const LACKING: Duration = Duration::from_hours(1);
/// The most such names that are remembered.
const MOST_LACKING: usize = 500;

/// Mattermost's own list, both ways.
static NAMES: LazyLock<Names> = LazyLock::new(Names::read);

struct Names {
    emoji: HashMap<&'static str, &'static str>,
    /// By the emoji without what says how it is drawn.
    names: HashMap<String, &'static str>,
}

impl Names {
    fn read() -> Self {
        let (mut emoji, mut names) = (HashMap::new(), HashMap::new());
        let listed = include_str!("emoji.txt").lines();
        for line in listed.filter(|line| !line.starts_with("# ")) {
            let mut words = line.split(' ');
            let Some(character) = words.next() else {
                continue;
            };
            for (place, name) in words.enumerate() {
                emoji.insert(name, character);
                if place == 0 {
                    names.insert(bare(character), name);
                }
            }
        }
        Self { emoji, names }
    }
}

/// Without what says how it is drawn: some write it, others do not.
fn bare(emoji: &str) -> String {
    emoji.replace('\u{fe0f}', "")
}

/// The name of an emoji; `None` where Mattermost has none for it.
pub fn name_of(key: &str) -> Option<String> {
    if let Some(emoji) = emojis::get(key) {
        let plain = emoji.with_skin_tone(emojis::SkinTone::Default);
        let plain = bare(plain.unwrap_or(emoji).as_str());
        return NAMES.names.get(&plain).map(|name| (*name).to_owned());
    }
    let own = key.strip_prefix(':')?.strip_suffix(':')?;
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_+-".contains(c);
    (!own.is_empty() && own.chars().all(known)).then(|| own.to_owned())
}

/// What people mean by a name: the emoji, or for one that a team has made itself its shortcode.
pub fn key_of(name: &str) -> Option<String> {
    let mut plain = name;
    while let Some(colourless) = without_skin(plain) {
        plain = colourless;
    }
    let listed = NAMES.emoji.get(plain).copied();
    // Newer servers have more than the list; they go by the names that everybody uses.
    let newer = || emojis::get_by_shortcode(plain).map(emojis::Emoji::as_str);
    match listed.or_else(newer) {
        Some(emoji) => reactions::key(emoji),
        None => reactions::key(&format!(":{name}:")),
    }
}

fn without_skin(name: &str) -> Option<&str> {
    let name = name.strip_suffix(SKIN)?;
    TONES.iter().find_map(|tone| name.strip_suffix(tone))
}

/// The names that the server did not have when it was asked.
#[derive(Default)]
pub struct Lacking(Mutex<HashMap<String, Instant>>);

impl Lacking {
    /// The server does not have this.
    pub fn note(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, since| since.elapsed() < LACKING);
        if names.len() >= MOST_LACKING
            && let Some(oldest) = names.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = oldest.0.clone();
            names.remove(&oldest);
        }
        names.insert(name.to_owned(), Instant::now());
    }

    /// Whether the server does not have this, as far as is known.
    pub fn has(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .get(name)
            .is_some_and(|since| since.elapsed() < LACKING)
    }
}

/// Which reactions to a message are told in words. What was told once is told as long as anybody means it, whatever is
/// remembered of the server: a line names who does.
pub struct Told<'a> {
    lacking: &'a Lacking,
    /// By name: whether a reaction of ours shows it, and whether the line tells it.
    known: HashMap<String, (bool, bool)>,
}

impl<'a> Told<'a> {
    /// `reacted` is all that is known of the message.
    pub fn of(lacking: &'a Lacking, reacted: &[Reacted]) -> Self {
        let mut known: HashMap<String, (bool, bool)> = HashMap::new();
        for one in reacted {
            if let Some(name) = name_of(&one.letter.key) {
                let (is_shown, is_told) = known.entry(name).or_default();
                *is_shown |= one.shown.is_some() && !one.line;
                *is_told |= one.line;
            }
        }
        Self { lacking, known }
    }

    /// The name of the emoji that shows it; `None` for what is told.
    pub fn shown_as(&self, key: &str) -> Option<String> {
        name_of(key).filter(|name| match self.known.get(name) {
            Some((true, _)) => true,
            Some((false, true)) => false,
            _ => !self.lacking.has(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write};

    use sha2::{Digest, Sha256};

    use super::*;

    /// Of the lines `name code-points`, in the order of the names, that Mattermost's published list consists of.
    const PUBLISHED: &str = "7654905cb42d9796cd429039f354b519ca25e1c2c8e6ec28f725e5647a7ec657";

    #[test]
    fn the_list_is_the_one_that_mattermost_publishes() {
        let listed: BTreeMap<&str, &str> = NAMES.emoji.iter().map(|(a, b)| (*a, *b)).collect();
        assert_eq!(listed.len(), 2_333);
        let mut lines = String::new();
        for (name, emoji) in listed {
            let points = emoji.chars().map(|c| format!("{:04x}", u32::from(c)));
            let points: Vec<String> = points.collect();
            writeln!(lines, "{name} {}", points.join("-")).unwrap();
        }
        let digest = Sha256::digest(lines.as_bytes());
        let digest = digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert_eq!(digest, PUBLISHED);
    }

    #[test]
    fn every_name_of_the_list_stands_for_its_emoji_and_every_emoji_has_a_name_of_the_list() {
        for (name, emoji) in &NAMES.emoji {
            let key = key_of(name).unwrap();
            assert_eq!(bare(&key), bare(emoji), "{name}");
            // An emoji of a colour of skin alone is that of no colour.
            if !name.starts_with("skin-tone-") {
                let sent = name_of(&key).unwrap();
                assert_eq!(NAMES.emoji.get(sent.as_str()), Some(emoji), "{name}");
            }
        }
    }

    #[test]
    fn emoji_and_their_names() {
        for (key, name) in [
            ("👍", "+1"),
            ("🎉", "tada"),
            ("🤨", "face_with_raised_eyebrow"),
            ("🤔", "thinking_face"),
            ("📡", "satellite_antenna"),
            ("🛰\u{fe0f}", "satellite"),
            ("☂\u{fe0f}", "umbrella"),
            ("🤷\u{200d}♂\u{fe0f}", "man-shrugging"),
            (":shipit:", "shipit"),
        ] {
            assert_eq!(name_of(key).as_deref(), Some(name), "{key}");
            assert_eq!(key_of(name).as_deref(), Some(key), "{name}");
        }
        assert_eq!(name_of("👍🏽").as_deref(), Some("+1"));
        assert_eq!(name_of("☂").as_deref(), Some("umbrella"));
        assert_eq!(key_of("thumbsup").as_deref(), Some("👍"));
        assert_eq!(key_of("+1_medium_skin_tone").as_deref(), Some("👍"));
        let couple = "people_holding_hands_medium_dark_skin_tone_light_skin_tone";
        assert_eq!(key_of(couple), key_of("people_holding_hands"));
        // Newer than the list: such a name is understood, and not sent.
        assert_eq!(key_of("melting_face").as_deref(), Some("🫠"));
        assert_eq!(name_of("🫠"), None);
        assert_eq!(name_of("yes"), None);
        assert_eq!(name_of(":a b:"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_lacks_is_remembered_for_a_while() {
        let lacking = Lacking::default();
        lacking.note("parrot");
        assert!(lacking.has("parrot") && !lacking.has("tada"));
        for number in 0..MOST_LACKING {
            lacking.note(&number.to_string());
        }
        assert_eq!(lacking.0.lock().unwrap().len(), MOST_LACKING);
        tokio::time::advance(LACKING).await;
        assert!(!lacking.has("1"));
    }
}
