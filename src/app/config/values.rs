//! The grammar of single values: a text of the file becomes a typed value or a [`ValueError`].

mod address;

use std::{net::SocketAddr, time::Duration};

use footbridge_matrix::Trust;
use footbridge_silo::capabilities::{ChannelName, SiloKind};
use ruma::{OwnedUserId, RoomAliasId};

pub use address::{base_url, homeserver};
pub use footbridge_core::config_keys::ValueError;

fn value_error<T>(
    code: &'static str,
    what: impl Into<String>,
    help: impl Into<String>,
) -> Result<T, ValueError> {
    Err(ValueError {
        code,
        what: what.into(),
        help: help.into(),
    })
}

/// A duration such as `20s`, `500ms`, `5m`, `1h`.
pub fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, ValueError> {
    let help = format!(
        "write a number and a unit between {} and {}, for example \"20s\"",
        format_duration(least),
        format_duration(most)
    );
    if text.starts_with('-') {
        return value_error("B04", "a duration cannot be negative", help);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let Ok(count) = digits.trim_end().parse::<u64>() else {
        return value_error("B04", format!("`{text}` is not a duration"), help);
    };
    let millis_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return value_error("B04", format!("`{text}` has no unit"), help),
        _ => {
            return value_error(
                "B04",
                format!("`{unit}` is not a unit of time; the units are ms, s, m, h and d"),
                help,
            );
        }
    };
    let span = Duration::from_millis(count.saturating_mul(millis_each));
    if span < least || span > most {
        return value_error("B04", format!("`{text}` is out of range"), help);
    }
    Ok(span)
}

/// A duration as the file writes it.
#[must_use]
pub fn format_duration(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(86_400_000) => format!("{}d", millis / 86_400_000),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A user id.
pub fn user(text: &str) -> Result<OwnedUserId, ValueError> {
    const HELP: &str = "write the whole user id, for example \"@bridge:example.org\"";
    if text.trim() != text {
        return value_error("B12", "the user id has spaces around it", HELP);
    }
    let what = match text.chars().next() {
        None => "the user id is empty".to_owned(),
        Some('@') if !text.contains(':') => format!("the user id `{text}` lacks its server part"),
        Some('@') => match OwnedUserId::try_from(text) {
            Ok(user) => return Ok(user),
            Err(reason) => format!("`{text}` is not a user id: {reason}"),
        },
        Some('#' | '!') => format!("`{text}` is a room, not a user"),
        Some(_) if text.contains("://") => "this is a URL, not a user id".to_owned(),
        Some(_) => format!("the user id `{text}` does not begin with `@`"),
    };
    value_error("B12", what, HELP)
}

/// The name behind an `@` on a silo. Words that mention everybody are no account.
pub fn account(text: &str) -> Result<String, ValueError> {
    const HELP: &str = "write the name that follows the @ in a mention there, for example \"ann\"";
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(known) {
        return value_error("B12", format!("`{text}` is not an account"), HELP);
    }
    let everybody = ["all", "here", "channel", "everyone", "room", "group"];
    if everybody.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return value_error("B12", format!("`@{text}` mentions everybody"), HELP);
    }
    Ok(text.to_owned())
}

/// An admin: a user id, or a server all of whose users are admins.
pub fn admin(text: &str) -> Result<String, ValueError> {
    if text.starts_with('@') {
        return user(text).map(|user| user.to_string());
    }
    match ruma::ServerName::parse(text) {
        Ok(server) => Ok(server.to_string()),
        Err(_) => value_error(
            "B12",
            format!("`{text}` is neither a user id nor the name of a server"),
            "write a user id, for example \"@me:example.org\", or a server name, for example \"example.org\"",
        ),
    }
}

/// A room alias or id. Ids of room version 12 have no server part: `!` and 43 characters of a hash.
pub fn room(text: &str) -> Result<String, ValueError> {
    const HELP: &str = "write an alias, for example \"#room:example.org\", or a room id, for example \"!abc:example.org\"";
    if text.trim() != text {
        return value_error("B12", "the room has spaces around it", HELP);
    }
    let named = |what: &str| {
        value_error(
            "B12",
            format!("the {what} `{text}` lacks its server part"),
            HELP,
        )
    };
    let what = match text.chars().next() {
        None => "the room is empty".to_owned(),
        Some('#') if !text.contains(':') => return named("room alias"),
        Some('#') => match RoomAliasId::parse(text) {
            Ok(_) => return Ok(text.to_owned()),
            Err(reason) => format!("`{text}` is not a room alias: {reason}"),
        },
        Some('!') if !text.contains(':') && text.len() != 44 => return named("room id"),
        Some('!') => match ruma::RoomId::parse(text) {
            Ok(_) => return Ok(text.to_owned()),
            Err(reason) => format!("`{text}` is not a room id: {reason}"),
        },
        Some('@') => format!("`{text}` is a user, not a room"),
        Some(_) if text.contains("://") => "this is a URL, not a room".to_owned(),
        Some(_) => format!("the room `{text}` begins with neither `#` nor `!`"),
    };
    value_error("B12", what, HELP)
}

/// A channel's name in its silo.
pub fn channel(text: &str) -> Result<String, ValueError> {
    const HELP: &str = "write it as the silo does, for example \"org/room\"";
    if let Some((_, rest)) = text.split_once("://") {
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        return value_error(
            "B12",
            "this is a URL, not the name of a channel",
            format!("write \"{path}\""),
        );
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '#' | '?' | '@' | ':');
    if text.is_empty()
        || text.len() > 255
        || text.contains(bad)
        || text.split('/').any(str::is_empty)
    {
        return value_error(
            "B12",
            format!("`{text}` is not the name of a channel"),
            HELP,
        );
    }
    Ok(text.to_owned())
}

/// The name of a gateway of a Matterbridge: any text that its configuration may contain.
pub fn gateway(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.len() > 255 || text.trim() != text || text.contains(char::is_control)
    {
        return value_error(
            "B12",
            format!("`{}` cannot be the name of a gateway", text.escape_debug()),
            "write the `name` of the `[[gateway]]`, for example \"gateway1\"",
        );
    }
    Ok(text.to_owned())
}

/// The name of a silo. The store writes it in front of a colon in places.
pub fn silo_name(text: &str) -> Result<String, ValueError> {
    const HELP: &str =
        "use up to 32 lower-case letters, digits, `-` and `_`, for example \"gitter\"";
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > 32 || !text.chars().all(plain) {
        return value_error(
            "B04",
            format!("`{text}` cannot be the name of a silo"),
            HELP,
        );
    }
    if text == footbridge_store::Place::MATRIX {
        return value_error("B04", "a silo cannot be named `matrix`", HELP);
    }
    Ok(text.to_owned())
}

/// Whose messages are relayed: one of the words of `trust`.
#[must_use]
pub fn trust(word: &str) -> Trust {
    match word {
        "any-device" => Trust::AnyDevice,
        _ => Trust::CrossSigned,
    }
}

/// A channel's name in a silo of this kind.
pub fn channel_of(kind: &SiloKind, text: &str) -> Result<String, ValueError> {
    match kind.channel_name {
        ChannelName::Path => channel(text),
        ChannelName::Line => gateway(text),
    }
}

/// Refuses a word that is not one of `words`.
pub fn one_of<T>(text: &str, words: &[&str]) -> Result<T, ValueError> {
    let list = words
        .iter()
        .map(|word| format!("\"{word}\""))
        .collect::<Vec<_>>()
        .join(" or ");
    let help = match nearest(text, words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("write {list}"),
    };
    value_error("B04", format!("`{text}` is not {list}"), help)
}

/// An address to listen on.
pub fn address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().or_else(|_| {
        value_error(
            "B04",
            format!("`{text}` is not an address with a port"),
            "write, for example, \"127.0.0.1:29320\" or \"[::1]:29320\"",
        )
    })
}

/// A free text: one line, not empty, and not longer than 255 bytes.
pub fn line(name: &str, text: &str) -> Result<String, ValueError> {
    if text.trim().is_empty() {
        return value_error(
            "B04",
            format!("the {name} is empty"),
            format!("give a {name} or remove the line"),
        );
    }
    if text.len() > 255 || text.contains(char::is_control) {
        return value_error(
            "B04",
            format!("the {name} is too long or has control characters"),
            "use one line of at most 255 bytes",
        );
    }
    Ok(text.to_owned())
}

/// The word that was probably meant: at most two edits away, and fewer edits than half of its characters.
pub fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words
        .map(|word| (strsim::damerau_levenshtein(text, word), word))
        .filter(|(edits, word)| *edits <= 2 && *edits * 2 < word.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_need_a_unit_and_a_range() {
        let read = |text| duration(text, Duration::from_secs(1), Duration::from_hours(1));
        for (text, millis) in [
            ("20s", 20_000),
            ("1500ms", 1_500),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2 s", 2_000),
        ] {
            assert_eq!(read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "20",
            "-5s",
            "5 minutes",
            "0s",
            "2h",
            "",
            "s",
            "1.5s",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert_eq!(read(text).unwrap_err().code, "B04", "{text}");
        }
    }

    #[test]
    fn a_duration_is_formatted_as_it_is_read() {
        for text in ["0s", "20s", "500ms", "5m", "2h"] {
            let span = duration(text, Duration::ZERO, Duration::from_hours(2)).unwrap();
            assert_eq!(format_duration(span), text);
        }
    }

    #[test]
    fn users_and_rooms_have_their_sigils_and_servers() {
        assert!(user("@bridge:example.org").is_ok());
        for bad in [
            "bridge",
            "@bridge",
            "#bridge:example.org",
            "bridge:example.org",
            "https://example.org",
            "",
            " @a:b.org",
            "@ü:b.org ",
        ] {
            assert_eq!(user(bad).unwrap_err().code, "B12", "{bad}");
        }
        for good in [
            "#room:example.org",
            "!abc:example.org",
            "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
        ] {
            assert!(room(good).is_ok(), "{good}");
        }
        for bad in [
            "room",
            "#room",
            "!abc",
            "@room:example.org",
            "https://matrix.to/#/#room:example.org",
            "",
            "#room:example.org ",
        ] {
            assert_eq!(room(bad).unwrap_err().code, "B12", "{bad}");
        }
    }

    #[test]
    fn a_pasted_channel_url_gets_a_suggestion() {
        assert!(channel("org/room").is_ok());
        assert_eq!(
            channel("https://gitter.im/org/room?at=5f1e")
                .unwrap_err()
                .help,
            "write \"org/room\""
        );
        for bad in ["", "org//room", "/org", "org/ room", "#org"] {
            assert_eq!(channel(bad).unwrap_err().code, "B12", "{bad}");
        }
    }

    #[test]
    fn a_gateway_keeps_its_name_in_matterbridge() {
        for good in ["gateway1", "my gateway", "#a: b@c?", "two  spaces"] {
            assert_eq!(gateway(good).unwrap(), good);
        }
        for bad in ["", " ", "one ", "a\nb", &"x".repeat(256)] {
            assert_eq!(gateway(bad).unwrap_err().code, "B12", "{bad}");
        }
    }

    #[test]
    fn silo_names_cannot_be_mistaken_for_matrix() {
        assert!(silo_name("gitter-2").is_ok());
        for bad in ["matrix", "", "Gitter", "a:b", "x y"] {
            assert!(silo_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_word_is_at_most_two_edits_away() {
        let words = || ["homeserver", "user", "key"].into_iter();
        assert_eq!(nearest("homesever", words()), Some("homeserver"));
        assert_eq!(nearest("usre", words()), Some("user"));
        assert_eq!(nearest("password", words()), None);
        assert_eq!(nearest("", words()), None);
    }
}
