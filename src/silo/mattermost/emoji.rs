//! Names of emoji in Mattermost: its own published list, and the names of a team's custom emoji. Some servers refuse
//! unknown names: those reactions go into a text line.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::reactions::{self, ReactionState};
use tokio::time::Instant;

use crate::shortcodes::{ShortcodeTable, bare};

/// The end of a name with a skin tone.
const SKIN_TONE_SUFFIX: &str = "_skin_tone";
/// The skin tones, which precede that end. If one ends like another, the longer comes first.
const TONES: [&str; 5] = [
    "_medium_light",
    "_medium_dark",
    "_light",
    "_medium",
    "_dark",
];
/// How long a name counts as missing on the server.
const MISSING_TTL: Duration = Duration::from_hours(1);
/// The most missing names that are remembered.
const MAX_MISSING: usize = 500;

/// Mattermost's own list, in both directions.
static NAMES: LazyLock<ShortcodeTable> =
    LazyLock::new(|| ShortcodeTable::read(include_str!("emoji.txt")));

/// The name of an emoji; `None` if Mattermost has none for it.
pub fn name_of(key: &str) -> Option<String> {
    if let Some(emoji) = emojis::get(key) {
        let plain = emoji.with_skin_tone(emojis::SkinTone::Default);
        let plain = bare(plain.unwrap_or(emoji).as_str());
        return NAMES.name_of(&plain).map(ToOwned::to_owned);
    }
    let own = key.strip_prefix(':')?.strip_suffix(':')?;
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_+-".contains(c);
    (!own.is_empty() && own.chars().all(known)).then(|| own.to_owned())
}

/// The emoji of a name; for a team's custom emoji its shortcode.
pub fn key_of(name: &str) -> Option<String> {
    let mut plain = name;
    while let Some(colourless) = without_skin(plain) {
        plain = colourless;
    }
    match emoji_of(plain) {
        Some(emoji) => reactions::key(emoji),
        None => reactions::key(&format!(":{name}:")),
    }
}

/// Newer servers have more emoji than the list, under their common names.
fn emoji_of(name: &str) -> Option<&'static str> {
    let newer = || emojis::get_by_shortcode(name).map(emojis::Emoji::as_str);
    NAMES.emoji_of(name).or_else(newer)
}

/// The emoji that Mattermost's apps show for a name in a text, with its skin tone; `None` for unknown names and for
/// custom emoji. Case does not matter.
pub fn shown(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let name = name.as_str();
    if let Some(emoji) = emoji_of(name) {
        return Some(emoji.to_owned());
    }
    let plain = without_skin(name)?;
    let tone = skin_tone(name.get(plain.len()..)?)?;
    let coloured = |emoji: &str| emojis::get(emoji)?.with_skin_tone(tone);
    match emoji_of(plain) {
        Some(emoji) => Some(
            coloured(emoji)
                .map_or(emoji, emojis::Emoji::as_str)
                .to_owned(),
        ),
        // Two people with two skin tones: shown without them.
        None => Some(emoji_of(without_skin(plain)?)?.to_owned()),
    }
}

fn skin_tone(end: &str) -> Option<emojis::SkinTone> {
    Some(match end.strip_suffix(SKIN_TONE_SUFFIX)? {
        "_light" => emojis::SkinTone::Light,
        "_medium_light" => emojis::SkinTone::MediumLight,
        "_medium" => emojis::SkinTone::Medium,
        "_medium_dark" => emojis::SkinTone::MediumDark,
        "_dark" => emojis::SkinTone::Dark,
        _ => return None,
    })
}

fn without_skin(name: &str) -> Option<&str> {
    let name = name.strip_suffix(SKIN_TONE_SUFFIX)?;
    TONES.iter().find_map(|tone| name.strip_suffix(tone))
}

/// The names that the server did not have.
#[derive(Default)]
pub struct MissingEmoji(Mutex<HashMap<String, Instant>>);

impl MissingEmoji {
    /// The server does not have this name.
    pub fn note(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, since| since.elapsed() < MISSING_TTL);
        if names.len() >= MAX_MISSING
            && let Some(oldest) = names.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = oldest.0.clone();
            names.remove(&oldest);
        }
        names.insert(name.to_owned(), Instant::now());
    }

    /// Whether the server is known not to have this name.
    pub fn has(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .get(name)
            .is_some_and(|since| since.elapsed() < MISSING_TTL)
    }
}

/// Which reactions to a message go into its text line. A reaction in the line stays there as long as somebody has it,
/// whatever is known of the server by then: the line names its people.
pub struct WordedReactions<'a> {
    lacking: &'a MissingEmoji,
    /// By name: whether a reaction of the bridge shows it, and whether it is in the line.
    known: HashMap<String, (bool, bool)>,
}

impl<'a> WordedReactions<'a> {
    /// `reacted` are all known reactions to the message.
    pub fn of(lacking: &'a MissingEmoji, reacted: &[ReactionState]) -> Self {
        let mut known: HashMap<String, (bool, bool)> = HashMap::new();
        for one in reacted {
            if let Some(name) = name_of(&one.stored.key) {
                let (is_shown, is_told) = known.entry(name).or_default();
                *is_shown |= one.shown.is_some() && !one.in_summary;
                *is_told |= one.in_summary;
            }
        }
        Self { lacking, known }
    }

    /// The name of the emoji that shows it; `None` for one of the line.
    pub fn emoji_for(&self, key: &str) -> Option<String> {
        name_of(key).filter(|name| match self.known.get(name) {
            Some((true, _)) => true,
            Some((false, true)) => false,
            _ => !self.lacking.has(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::shortcodes::digest;

    /// The digest of Mattermost's published list as lines `name code-points`, sorted by name.
    const PUBLISHED: &str = "7654905cb42d9796cd429039f354b519ca25e1c2c8e6ec28f725e5647a7ec657";

    #[test]
    fn the_list_is_the_one_that_mattermost_publishes() {
        let listed = NAMES.all();
        assert_eq!(listed.len(), 2_333);
        let mut lines = String::new();
        for (name, emoji) in listed {
            let points = emoji
                .unwrap()
                .chars()
                .map(|c| format!("{:04x}", u32::from(c)));
            let points: Vec<String> = points.collect();
            writeln!(lines, "{name} {}", points.join("-")).unwrap();
        }
        assert_eq!(digest(&lines), PUBLISHED);
    }

    #[test]
    fn every_name_of_the_list_has_its_emoji_and_every_emoji_a_name_of_the_list() {
        for (name, emoji) in NAMES.all() {
            let emoji = emoji.unwrap();
            let key = key_of(name).unwrap();
            assert_eq!(bare(&key), bare(emoji), "{name}");
            assert_eq!(shown(name).as_deref(), Some(emoji), "{name}");
            // An emoji of a skin tone alone counts as one without a tone.
            if !name.starts_with("skin-tone-") {
                let sent = name_of(&key).unwrap();
                assert_eq!(NAMES.emoji_of(&sent), Some(emoji), "{name}");
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
        // Newer than the list: the bridge reads such a name, and does not send it.
        assert_eq!(key_of("melting_face").as_deref(), Some("🫠"));
        assert_eq!(name_of("🫠"), None);
        assert_eq!(name_of("yes"), None);
        assert_eq!(name_of(":a b:"), None);
    }

    #[test]
    fn names_in_texts_are_shown_in_their_colour() {
        for (name, emoji) in [
            ("thinking_face", "🤔"),
            ("satellite", "🛰\u{fe0f}"),
            ("+1_medium_skin_tone", "👍🏽"),
            ("wave_dark_skin_tone", "👋🏿"),
            ("wave_medium_dark_skin_tone", "👋🏾"),
            ("melting_face", "🫠"),
            ("tada_dark_skin_tone", "🎉"),
            ("TADA", "🎉"),
            ("Wave_Dark_Skin_Tone", "👋🏿"),
            ("ID", "🆔"),
        ] {
            assert_eq!(shown(name).as_deref(), Some(emoji), "{name}");
        }
        let couple = "people_holding_hands_medium_dark_skin_tone_light_skin_tone";
        assert_eq!(shown(couple), shown("people_holding_hands"));
        for name in ["blobcat", "blobcat_dark_skin_tone", "_dark_skin_tone", ""] {
            assert_eq!(shown(name), None, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_lacks_is_remembered_for_a_while() {
        let lacking = MissingEmoji::default();
        lacking.note("parrot");
        assert!(lacking.has("parrot") && !lacking.has("tada"));
        for number in 0..MAX_MISSING {
            lacking.note(&number.to_string());
        }
        assert_eq!(lacking.0.lock().unwrap().len(), MAX_MISSING);
        tokio::time::advance(MISSING_TTL).await;
        assert!(!lacking.has("1"));
    }
}
