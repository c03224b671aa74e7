//! The parser of chat commands (pure): the words after `!bridge`. One line is one command; a text with a line break or
//! a control character is none.

/// A parsed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedCommand {
    /// Report what happened to a message.
    Why,
    /// Try a failed message again.
    Retry,
    /// Show the status of the portals of this place.
    Status,
    /// Begin to verify the bridge, or say whether the emoji are the same.
    Verify(Option<bool>),
    /// Show the commands.
    Help,
    /// Link a room to a channel.
    Add(ChannelRef, RoomRef),
    /// Remove a portal: this one, or the only one of the room.
    Remove(Option<ChannelRef>, RoomRef),
    /// Agree that messages of an encrypted room are relayed there.
    Consent(ChannelRef, RoomRef),
    /// Put a room's portals on hold.
    Pause(RoomRef),
    /// Resume them.
    Resume(RoomRef),
    /// Trust the identity of a user that has this key; without a key, list the known identities.
    Trust(String, Option<String>),
    /// Link an account on this silo to the asker.
    SiloLogin(String),
    /// Unlink the asker's accounts on this silo.
    SiloLogout(String),
    /// Show what the bridge holds for the asker.
    Devices,
    /// Give the bridge a device on the asker's account.
    Login,
    /// Take it back.
    Logout,
    /// Do not relay the sender's messages.
    OptOut(OptOutScope),
    /// Relay them again.
    OptIn(OptOutScope),
    /// The command is known, but its arguments are wrong; this is its usage.
    Incomplete(&'static str),
    /// An unknown command, with the one that was perhaps meant.
    Unknown(Option<&'static str>),
}

impl ParsedCommand {
    /// The room that the command names, if any.
    #[must_use]
    pub fn room(&self) -> Option<&str> {
        match self {
            Self::Add(_, room)
            | Self::Remove(_, room)
            | Self::Consent(_, room)
            | Self::Pause(room)
            | Self::Resume(room) => room.as_deref(),
            _ => None,
        }
    }
}

/// A channel as people write it in a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRef {
    /// The silo's name.
    pub silo: String,
    /// The channel's name there.
    pub channel: String,
}

/// The room that a command is about, alias or id; `None` for the room in which it is given.
pub type RoomRef = Option<String>;

/// The scope of a choice about one's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptOutScope {
    /// This place.
    Here,
    /// Everywhere.
    Everywhere,
}

/// The words that begin a command.
const COMMANDS: [&str; 19] = [
    "why", "retry", "status", "help", "portal", "consent", "pause", "resume", "optout", "bridge",
    "unbridge", "link", "unlink", "trust", "verify", "silo", "devices", "login", "logout",
];

const ADD: &str = "portal add <silo> <channel>";
const REMOVE: &str = "portal remove";
const CONSENT: &str = "consent <silo> <channel>";
const VERIFY: &str = "verify`, `!bridge verify yes` or `!bridge verify no";
const SILO: &str = "silo login <silo>` or `!bridge silo logout <silo>";
const TRUST: &str = "trust @user:server <key>";
const OPT_OUT: &str = "optout`, `!bridge optout everywhere` or `!bridge optout off";

/// Parses a command.
#[must_use]
pub fn parse(words: &str) -> ParsedCommand {
    if words.chars().any(char::is_control) {
        return ParsedCommand::Unknown(None);
    }
    let mut words: Vec<&str> = words.split_whitespace().collect();
    let Some(first) = words.first().map(|word| word.to_lowercase()) else {
        return ParsedCommand::Help;
    };
    words.remove(0);
    let place = named_room(&mut words);
    match (first.as_str(), words.as_slice()) {
        ("why", []) => ParsedCommand::Why,
        ("retry", []) => ParsedCommand::Retry,
        ("status", []) => ParsedCommand::Status,
        ("verify", []) => ParsedCommand::Verify(None),
        ("verify", [answer]) if answer.eq_ignore_ascii_case("yes") => {
            ParsedCommand::Verify(Some(true))
        }
        ("verify", [answer]) if answer.eq_ignore_ascii_case("no") => {
            ParsedCommand::Verify(Some(false))
        }
        ("verify", _) => ParsedCommand::Incomplete(VERIFY),
        ("help", []) => ParsedCommand::Help,
        ("portal", [verb, rest @ ..]) => match verb.to_lowercase().as_str() {
            "add" => with_end(rest, place, ADD, ParsedCommand::Add),
            "remove" => removal(rest, place),
            other => ParsedCommand::Unknown(
                nearest(other, &["add", "remove"])
                    .map(|verb| if verb == "add" { ADD } else { REMOVE }),
            ),
        },
        ("portal", []) => ParsedCommand::Incomplete(ADD),
        ("bridge" | "link", rest) => with_end(rest, place, ADD, ParsedCommand::Add),
        ("unbridge" | "unlink", rest) => removal(rest, place),
        ("consent", rest) => with_end(rest, place, CONSENT, ParsedCommand::Consent),
        ("pause", []) => ParsedCommand::Pause(place),
        ("resume", []) => ParsedCommand::Resume(place),
        ("trust", [user]) if is_user(user) => ParsedCommand::Trust((*user).to_owned(), None),
        // Clients show keys in groups.
        ("trust", [user, key @ ..]) if is_user(user) => match key_in(&key.concat()) {
            Some(key) => ParsedCommand::Trust((*user).to_owned(), Some(key)),
            None => ParsedCommand::Incomplete(TRUST),
        },
        ("trust", _) => ParsedCommand::Incomplete(TRUST),
        ("silo", [verb, silo]) => match verb.to_lowercase().as_str() {
            "login" => ParsedCommand::SiloLogin((*silo).to_owned()),
            "logout" => ParsedCommand::SiloLogout((*silo).to_owned()),
            _ => ParsedCommand::Incomplete(SILO),
        },
        ("silo", _) => ParsedCommand::Incomplete(SILO),
        ("devices", []) => ParsedCommand::Devices,
        ("login", []) => ParsedCommand::Login,
        ("logout", []) => ParsedCommand::Logout,
        ("optout", rest) => choice(rest),
        (word, _) if COMMANDS.contains(&word) => ParsedCommand::Unknown(None),
        (word, []) => ParsedCommand::Unknown(nearest(word, &COMMANDS)),
        _ => ParsedCommand::Unknown(None),
    }
}

fn is_user(word: &str) -> bool {
    word.starts_with('@') && word.contains(':')
}

/// A public key: 32 bytes in base64, with or without the padding.
fn key_in(word: &str) -> Option<String> {
    let key = word.strip_suffix('=').unwrap_or(word);
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/".contains(c);
    (key.len() == 43 && key.chars().all(is_base64)).then(|| key.to_owned())
}

/// Takes `in #room:server` off the end.
fn named_room(words: &mut Vec<&str>) -> RoomRef {
    let [.., joint, room] = words.as_slice() else {
        return None;
    };
    if !joint.eq_ignore_ascii_case("in") || !room.starts_with(['#', '!']) {
        return None;
    }
    let room = (*room).to_owned();
    words.truncate(words.len() - 2);
    Some(room)
}

fn end_of(words: &[&str]) -> Option<ChannelRef> {
    let (silo, channel) = words.split_first()?;
    (!channel.is_empty()).then(|| ChannelRef {
        silo: (*silo).to_owned(),
        channel: channel.join(" "),
    })
}

fn with_end(
    words: &[&str],
    place: RoomRef,
    usage: &'static str,
    make: fn(ChannelRef, RoomRef) -> ParsedCommand,
) -> ParsedCommand {
    match end_of(words) {
        Some(end) => make(end, place),
        None => ParsedCommand::Incomplete(usage),
    }
}

fn removal(words: &[&str], place: RoomRef) -> ParsedCommand {
    match (words, end_of(words)) {
        ([], _) => ParsedCommand::Remove(None, place),
        (_, Some(end)) => ParsedCommand::Remove(Some(end), place),
        (_, None) => ParsedCommand::Incomplete(REMOVE),
    }
}

fn choice(words: &[&str]) -> ParsedCommand {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => ParsedCommand::OptOut(OptOutScope::Here),
        ["everywhere"] => ParsedCommand::OptOut(OptOutScope::Everywhere),
        ["off"] => ParsedCommand::OptIn(OptOutScope::Here),
        ["off", "everywhere"] | ["everywhere", "off"] => {
            ParsedCommand::OptIn(OptOutScope::Everywhere)
        }
        _ => ParsedCommand::Incomplete(OPT_OUT),
    }
}

/// The word that was probably meant.
fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), *known))
        .filter(|(edits, known)| *edits <= 2 && *edits < known.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(silo: &str, channel: &str) -> ChannelRef {
        ChannelRef {
            silo: silo.to_owned(),
            channel: channel.to_owned(),
        }
    }

    #[test]
    fn every_command_that_the_pages_show_is_one() {
        let pages = [
            include_str!("../../../README.md"),
            include_str!("../../../SECURITY.md"),
            include_str!("../README.md"),
            include_str!("README.md"),
        ];
        let shown: Vec<&str> = pages
            .iter()
            .flat_map(|page| page.split("`!bridge ").skip(1))
            .filter_map(|behind| behind.split('`').next())
            .collect();
        assert!(shown.len() >= 20, "only {} were found", shown.len());
        for words in shown {
            let parsed = parse(&words.replace(['\n', '<', '>'], " "));
            assert!(!matches!(parsed, ParsedCommand::Unknown(_)), "{words}");
        }
    }

    #[test]
    fn a_misspelt_command_gets_the_nearest_word_and_only_known_commands_are_executed() {
        for (words, expected) in [
            ("why", ParsedCommand::Why),
            ("RETRY", ParsedCommand::Retry),
            ("status", ParsedCommand::Status),
            ("", ParsedCommand::Help),
            ("rerty", ParsedCommand::Unknown(Some("retry"))),
            ("stat", ParsedCommand::Unknown(Some("status"))),
            ("puase", ParsedCommand::Unknown(Some("pause"))),
            ("retry now", ParsedCommand::Unknown(None)),
            (
                "portal ad gitter org/room",
                ParsedCommand::Unknown(Some(ADD)),
            ),
            ("trusty", ParsedCommand::Unknown(Some("trust"))),
        ] {
            assert_eq!(parse(words), expected, "{words:?}");
        }
    }

    #[test]
    fn c08_one_line_is_one_command_and_trailing_lines_are_refused() {
        for words in [
            "retry\nwhy",
            "portal add gitter org/room\nportal remove",
            "pause\r",
            "optout\u{0}",
            "consent gitter org/\u{9b}room",
            "portal add gitter org/room\u{2028}",
        ] {
            let refused = parse(words) == ParsedCommand::Unknown(None);
            // Rust treats U+2028 as white space, and it ends no line.
            let harmless = words.ends_with('\u{2028}');
            assert_eq!(refused, !harmless, "{words:?}");
        }
        assert_eq!(
            parse("portal add gitter org/room;portal remove"),
            ParsedCommand::Add(end("gitter", "org/room;portal remove"), None)
        );
    }

    #[test]
    fn portal_commands_accept_the_words_of_other_bridges() {
        let room = Some("#room:example.org".to_owned());
        for (words, expected) in [
            (
                "portal add gitter org/room",
                ParsedCommand::Add(end("gitter", "org/room"), None),
            ),
            (
                "bridge gitter org/room",
                ParsedCommand::Add(end("gitter", "org/room"), None),
            ),
            (
                "Portal Add gitter org/room IN #room:example.org",
                ParsedCommand::Add(end("gitter", "org/room"), room.clone()),
            ),
            (
                "link zulip a topic with blanks in !id:example.org",
                ParsedCommand::Add(
                    end("zulip", "a topic with blanks"),
                    Some("!id:example.org".to_owned()),
                ),
            ),
            ("portal remove", ParsedCommand::Remove(None, None)),
            (
                "unbridge in #room:example.org",
                ParsedCommand::Remove(None, room.clone()),
            ),
            (
                "unlink gitter org/room",
                ParsedCommand::Remove(Some(end("gitter", "org/room")), None),
            ),
            (
                "consent gitter org/room",
                ParsedCommand::Consent(end("gitter", "org/room"), None),
            ),
            ("pause", ParsedCommand::Pause(None)),
            ("resume in #room:example.org", ParsedCommand::Resume(room)),
            (
                "trust @ann:example.org",
                ParsedCommand::Trust("@ann:example.org".into(), None),
            ),
            (
                "Trust @ann:example.org yU2h/M56dDGRCUgLdWEwdvILS7jCZsmlPq9Rp3+6jVE",
                ParsedCommand::Trust(
                    "@ann:example.org".into(),
                    Some("yU2h/M56dDGRCUgLdWEwdvILS7jCZsmlPq9Rp3+6jVE".into()),
                ),
            ),
            (
                "trust @ann:example.org yU2h /M56 dDGR CUgL dWEw dvIL S7jC Zsml Pq9R p3+6 jVE=",
                ParsedCommand::Trust(
                    "@ann:example.org".into(),
                    Some("yU2h/M56dDGRCUgLdWEwdvILS7jCZsmlPq9Rp3+6jVE".into()),
                ),
            ),
            (
                "trust @ann:example.org `key`",
                ParsedCommand::Incomplete(TRUST),
            ),
            ("portal add gitter", ParsedCommand::Incomplete(ADD)),
            ("portal", ParsedCommand::Incomplete(ADD)),
            ("consent", ParsedCommand::Incomplete(CONSENT)),
            ("unlink gitter", ParsedCommand::Incomplete(REMOVE)),
            ("trust ann", ParsedCommand::Incomplete(TRUST)),
        ] {
            assert_eq!(parse(words), expected, "{words:?}");
        }
    }

    #[test]
    fn an_opt_out_is_for_this_place_unless_it_is_everywhere() {
        for (words, expected) in [
            ("optout", ParsedCommand::OptOut(OptOutScope::Here)),
            (
                "optout everywhere",
                ParsedCommand::OptOut(OptOutScope::Everywhere),
            ),
            ("optout off", ParsedCommand::OptIn(OptOutScope::Here)),
            (
                "optout off everywhere",
                ParsedCommand::OptIn(OptOutScope::Everywhere),
            ),
            ("optout please", ParsedCommand::Incomplete(OPT_OUT)),
        ] {
            assert_eq!(parse(words), expected, "{words:?}");
        }
    }
}
