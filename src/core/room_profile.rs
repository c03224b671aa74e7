//! The profile of a channel and of a room: name, topic, avatar. Decides which side follows the other, and when.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::text::is_at_reference;

/// The longest name or topic that is relayed, in Unicode scalars.
const LONGEST: usize = 1_000;

/// A field of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProfileField {
    /// The name shown.
    Name,
    /// The topic.
    Topic,
    /// The avatar: an address, as an opaque key of its side.
    Avatar,
}

impl ProfileField {
    /// All fields.
    pub const ALL: [Self; 3] = [Self::Name, Self::Topic, Self::Avatar];

    /// The name under which the store records it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Topic => "topic",
            Self::Avatar => "picture",
        }
    }
}

/// The profile of one side. A field is empty where it is not set, and `None` where the side has no such field.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RoomProfile {
    /// See [`ProfileField::Name`].
    pub name: Option<String>,
    /// See [`ProfileField::Topic`].
    pub topic: Option<String>,
    /// See [`ProfileField::Avatar`].
    pub picture: Option<String>,
}

// Text that people write does not belong in a log.
impl std::fmt::Debug for RoomProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoomProfile(..)")
    }
}

impl RoomProfile {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: ProfileField) -> Option<&str> {
        match field {
            ProfileField::Name => self.name.as_deref(),
            ProfileField::Topic => self.topic.as_deref(),
            ProfileField::Avatar => self.picture.as_deref(),
        }
    }
}

/// Which side follows the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncDirection {
    /// Neither.
    #[default]
    Off,
    /// The room follows the channel.
    FromChannel,
    /// The channel follows the room.
    FromRoom,
    /// Each follows the other's changes.
    Both,
}

impl SyncDirection {
    /// The words of the configuration.
    pub const WORDS: [&'static str; 4] = ["off", "from-channel", "from-room", "both"];

    /// Parses a word of the configuration.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "off" => Self::Off,
            "from-channel" => Self::FromChannel,
            "from-room" => Self::FromRoom,
            "both" => Self::Both,
            _ => return None,
        })
    }

    fn room_follows(self) -> bool {
        matches!(self, Self::FromChannel | Self::Both)
    }

    fn channel_follows(self) -> bool {
        matches!(self, Self::FromRoom | Self::Both)
    }
}

/// The direction in which a portal syncs each field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileSync {
    /// For the name.
    pub name: SyncDirection,
    /// For the topic.
    pub topic: SyncDirection,
    /// For the avatar.
    pub picture: SyncDirection,
}

impl ProfileSync {
    /// The direction for a field.
    #[must_use]
    pub fn of(self, field: ProfileField) -> SyncDirection {
        match field {
            ProfileField::Name => self.name,
            ProfileField::Topic => self.topic,
            ProfileField::Avatar => self.picture,
        }
    }

    /// Whether any field is synced.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// A fingerprint of both sides' values when they were last read, enough to detect a change. Stored unsealed, so it contains no
/// text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileFingerprint {
    room: String,
    channel: String,
}

impl ProfileFingerprint {
    /// The fingerprint of the current values.
    #[must_use]
    pub fn of(room: &str, channel: &str) -> Self {
        Self {
            room: digest(room),
            channel: digest(channel),
        }
    }

    /// The stored form.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{} {}", self.room, self.channel)
    }

    /// Reads the stored form back.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (room, channel) = text.split_once(' ')?;
        Some(Self {
            room: room.to_owned(),
            channel: channel.to_owned(),
        })
    }
}

fn digest(text: &str) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(text))
}

/// Which side gets the value of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileUpdate {
    /// Neither.
    None,
    /// The room.
    Room,
    /// The channel.
    Channel,
}

/// The side that changed since both were last read is followed; where both changed, the channel is. At first the side that
/// follows takes over the value of the other; where each follows the other, only a side without a value does.
#[must_use]
pub fn profile_update(
    follow: SyncDirection,
    seen: Option<&ProfileFingerprint>,
    room: &str,
    channel: &str,
) -> ProfileUpdate {
    if room == channel {
        return ProfileUpdate::None;
    }
    let now = ProfileFingerprint::of(room, channel);
    let (to_room, to_channel) = match seen {
        Some(seen) => (now.channel != seen.channel, now.room != seen.room),
        None if follow == SyncDirection::Both => (room.is_empty(), channel.is_empty()),
        None => (!channel.is_empty(), !room.is_empty()),
    };
    if to_room && follow.room_follows() {
        ProfileUpdate::Room
    } else if to_channel && follow.channel_follows() {
        ProfileUpdate::Channel
    } else {
        ProfileUpdate::None
    }
}

/// A name or topic that is valid anywhere: on one line, without invisible characters or direction overrides, and no longer than
/// the other side accepts, in Unicode scalars.
#[must_use]
pub fn sanitize_line(text: &str, longest: usize) -> String {
    let invisible: HashSet<char> = "\u{200b}\u{200e}\u{200f}\u{2060}\u{feff}".chars().collect();
    let is_direction = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_direction(*c) && !invisible.contains(c));
    let plain: String = plain.collect();
    let plain = plain.split(' ').filter(|word| !word.is_empty());
    let plain = plain.collect::<Vec<_>>().join(" ");
    let most = longest.min(LONGEST);
    if plain.chars().count() <= most {
        return plain;
    }
    let mut cut: String = plain.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The same for a side where an `@` mentions people: a zero-width space separates it from what follows, and is removed again
/// before values are compared. The same holds for the ampersand of what Markdown reads as an `@`.
#[must_use]
pub fn sanitize_without_mentions(text: &str, longest: usize) -> String {
    let text = sanitize_line(text, longest);
    let mut separated = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        separated.push(c);
        let after = text.get(at + c.len_utf8()..).unwrap_or_default();
        if c == '@' || c == '&' && is_at_reference(after) {
            separated.push('\u{200b}');
        }
    }
    separated.chars().take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_that_changed_is_followed_as_the_portal_configures() {
        use ProfileUpdate::{Channel, Room};
        use SyncDirection::{Both, FromChannel, FromRoom, Off};
        let none = ProfileUpdate::None;
        let seen = |room, channel| Some(ProfileFingerprint::of(room, channel));
        for (follow, seen, room, channel, expected) in [
            (Both, None, "a", "a", none),
            (Off, None, "", "b", none),
            (Off, seen("a", "b"), "a", "c", none),
            (FromChannel, None, "a", "b", Room),
            (FromChannel, None, "a", "", none),
            (FromChannel, seen("a", "b"), "a", "b", none),
            (FromChannel, seen("a", "b"), "x", "b", none),
            (FromChannel, seen("b", "b"), "b", "", Room),
            (FromRoom, None, "a", "b", Channel),
            (FromRoom, seen("a", "b"), "a", "x", none),
            (FromRoom, seen("a", "b"), "x", "b", Channel),
            (Both, None, "a", "b", none),
            (Both, None, "", "b", Room),
            (Both, None, "a", "", Channel),
            (Both, seen("a", "a"), "x", "a", Channel),
            (Both, seen("a", "a"), "a", "x", Room),
            (Both, seen("a", "a"), "x", "y", Room),
        ] {
            let found = profile_update(follow, seen.as_ref(), room, channel);
            assert_eq!(found, expected, "{follow:?} {room:?} {channel:?}");
        }
    }

    #[test]
    fn a_fingerprint_contains_no_text() {
        let seen = ProfileFingerprint::of("secret plans", "");
        let text = seen.to_text();
        assert!(!text.contains("secret"));
        assert_eq!(ProfileFingerprint::from_text(&text), Some(seen));
        assert_eq!(ProfileFingerprint::from_text("x"), None);
    }

    #[test]
    fn a_name_or_topic_is_one_sanitized_line() {
        assert_eq!(sanitize_line(" a\n\tb\u{202e}c\u{200b} ", 100), "a bc");
        assert_eq!(sanitize_line("abcdef", 4), "abc…");
        assert_eq!(
            sanitize_without_mentions("ask @all", 100),
            "ask @\u{200b}all"
        );
        assert_eq!(
            sanitize_without_mentions("&commat;ann &#64;b &#x40;c &amp; &#65;", 100),
            "&\u{200b}commat;ann &\u{200b}#64;b &\u{200b}#x40;c &amp; &#65;"
        );
        assert_eq!(
            sanitize_line(&sanitize_without_mentions("&commat;all", 20), 20),
            "&commat;all"
        );
        assert_eq!(sanitize_without_mentions("@@@", 4), "@\u{200b}@\u{200b}");
        assert_eq!(
            sanitize_line(&sanitize_without_mentions("@all", 9), 9),
            "@all"
        );
        assert_eq!(
            sanitize_line(&"é".repeat(5_000), 5_000).chars().count(),
            LONGEST
        );
    }
}
