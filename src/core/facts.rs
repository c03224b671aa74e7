//! What stands at the head of a channel and of a room: name, topic, picture. Which side follows the other, and when.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::text::is_at_reference;

/// The longest name or topic that is carried over, in Unicode scalars.
const LONGEST: usize = 1_000;

/// One of the things that stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// The name shown.
    Name,
    /// What it is about.
    Topic,
    /// A picture: an address, in the words of its side.
    Picture,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Name, Self::Topic, Self::Picture];

    /// Its name, where something is noted of it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Topic => "topic",
            Self::Picture => "picture",
        }
    }
}

/// What stands at the head of one side. Empty where nothing does; `None` where the side knows no such thing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// See [`Fact::Name`].
    pub name: Option<String>,
    /// See [`Fact::Topic`].
    pub topic: Option<String>,
    /// See [`Fact::Picture`].
    pub picture: Option<String>,
}

// What people write is no log material.
impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Facts(..)")
    }
}

impl Facts {
    /// One of them.
    #[must_use]
    pub fn get(&self, fact: Fact) -> Option<&str> {
        match fact {
            Fact::Name => self.name.as_deref(),
            Fact::Topic => self.topic.as_deref(),
            Fact::Picture => self.picture.as_deref(),
        }
    }
}

/// Which side follows the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
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

impl Follow {
    /// The words of the configuration.
    pub const WORDS: [&'static str; 4] = ["off", "from-channel", "from-room", "both"];

    /// What a word means.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
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

/// What a portal shares of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Of the name.
    pub name: Follow,
    /// Of the topic.
    pub topic: Follow,
    /// Of the picture.
    pub picture: Follow,
}

impl Shares {
    /// Of one of them.
    #[must_use]
    pub fn of(self, fact: Fact) -> Follow {
        match fact {
            Fact::Name => self.name,
            Fact::Topic => self.topic,
            Fact::Picture => self.picture,
        }
    }

    /// Whether anything is shared.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// What stood on both sides when they were last looked at, as far as it is needed to see that it changed. Kept outside the
/// seal, so it is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    room: String,
    channel: String,
}

impl Seen {
    /// What is seen now.
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

/// Which side is to get what stands on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Neither.
    None,
    /// The room.
    Room,
    /// The channel.
    Channel,
}

/// Who has changed since both were last seen is followed; where both have, the channel is. At first the side that follows
/// takes over what the other has; where each follows the other, only who has nothing does.
#[must_use]
pub fn change(follow: Follow, seen: Option<&Seen>, room: &str, channel: &str) -> Change {
    if room == channel {
        return Change::None;
    }
    let now = Seen::of(room, channel);
    let (to_room, to_channel) = match seen {
        Some(seen) => (now.channel != seen.channel, now.room != seen.room),
        None if follow == Follow::Both => (room.is_empty(), channel.is_empty()),
        None => (!channel.is_empty(), !room.is_empty()),
    };
    if to_room && follow.room_follows() {
        Change::Room
    } else if to_channel && follow.channel_follows() {
        Change::Channel
    } else {
        Change::None
    }
}

/// A name or topic as it may stand anywhere: on one line, without what cannot be seen or turns the direction of text, and
/// no longer than the other side takes, in Unicode scalars.
#[must_use]
pub fn harmless(text: &str, longest: usize) -> String {
    let unseen: HashSet<char> = "\u{200b}\u{200e}\u{200f}\u{2060}\u{feff}".chars().collect();
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !turns(*c) && !unseen.contains(c));
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

/// The same for a side where an `@` calls people: parted from what follows by a zero-width space, which is taken away
/// again before anything is compared. So is the ampersand of what Markdown reads as an `@`.
#[must_use]
pub fn uncalled(text: &str, longest: usize) -> String {
    let text = harmless(text, longest);
    let mut parted = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        parted.push(c);
        let after = text.get(at + c.len_utf8()..).unwrap_or_default();
        if c == '@' || c == '&' && is_at_reference(after) {
            parted.push('\u{200b}');
        }
    }
    parted.chars().take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changed_is_followed_as_far_as_the_portal_wants_it() {
        use Change::{Channel, Room};
        use Follow::{Both, FromChannel, FromRoom, Off};
        let none = Change::None;
        let seen = |room, channel| Some(Seen::of(room, channel));
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
            let found = change(follow, seen.as_ref(), room, channel);
            assert_eq!(found, expected, "{follow:?} {room:?} {channel:?}");
        }
    }

    #[test]
    fn what_was_seen_is_kept_without_its_text() {
        let seen = Seen::of("secret plans", "");
        let text = seen.to_text();
        assert!(!text.contains("secret"));
        assert_eq!(Seen::from_text(&text), Some(seen));
        assert_eq!(Seen::from_text("x"), None);
    }

    #[test]
    fn a_name_or_topic_is_one_harmless_line() {
        assert_eq!(harmless(" a\n\tb\u{202e}c\u{200b} ", 100), "a bc");
        assert_eq!(harmless("abcdef", 4), "abc…");
        assert_eq!(uncalled("ask @all", 100), "ask @\u{200b}all");
        assert_eq!(
            uncalled("&commat;ann &#64;b &#x40;c &amp; &#65;", 100),
            "&\u{200b}commat;ann &\u{200b}#64;b &\u{200b}#x40;c &amp; &#65;"
        );
        assert_eq!(harmless(&uncalled("&commat;all", 20), 20), "&commat;all");
        assert_eq!(uncalled("@@@", 4), "@\u{200b}@\u{200b}");
        assert_eq!(harmless(&uncalled("@all", 9), 9), "@all");
        assert_eq!(harmless(&"é".repeat(5_000), 5_000).chars().count(), LONGEST);
    }
}
