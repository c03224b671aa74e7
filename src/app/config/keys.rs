//! The tables and keys that the file may have, and what to say of those that it may not.

use super::{diagnostic::Diagnostic, values::nearest};

/// The tables of the file and their keys.
pub const TABLES: &[(&str, &[&str])] = &[
    ("store", &["path", "key_file", "min_free_mib"]),
    (
        "matrix",
        &[
            "homeserver",
            "user",
            "password_file",
            "recovery_key_file",
            "device_name",
            "key_wait",
            "audit",
        ],
    ),
    (
        "silo",
        &[
            "name",
            "kind",
            "token",
            "token_file",
            "api",
            "stream",
            "realtime",
            "feed",
            "requests_per_minute",
            "settle",
            "overlap",
            "audit",
            "account",
            "avatar",
            "media_hosts",
            "ping",
            "url",
            "names",
            "icon",
        ],
    ),
    (
        "portal",
        &[
            "room",
            "silo",
            "channel",
            "trust",
            "system_messages",
            "notices",
            "reactions",
            "file_links",
            "backfill",
            "room_name",
            "room_topic",
            "room_picture",
        ],
    ),
    ("person", &["user", "silo", "account"]),
    (
        "delivery",
        &[
            "coalesce",
            "notice_after",
            "key_limit",
            "unknown_after",
            "give_up",
            "attempts",
        ],
    ),
    (
        "media",
        &["max_mib", "public_url", "gateway_listen", "links_last"],
    ),
    ("consent", &["delay", "operator", "disclose_joins"]),
    ("admin", &["listen", "allow_remote", "users"]),
];

/// The kinds of silos, each with the keys that not every kind has.
pub const KINDS: &[(&str, &[&str])] = &[
    (
        "gitter",
        &[
            "api",
            "stream",
            "realtime",
            "feed",
            "requests_per_minute",
            "settle",
            "overlap",
            "media_hosts",
        ],
    ),
    (
        "matterbridge",
        &["api", "account", "avatar", "media_hosts", "ping"],
    ),
    ("mattermost", &["url", "names", "icon", "ping"]),
];

/// Keys whose values are spans of time.
pub(super) const DURATIONS: &[&str] = &[
    "key_wait",
    "settle",
    "overlap",
    "audit",
    "ping",
    "notice_after",
    "key_limit",
    "unknown_after",
    "give_up",
    "links_last",
    "delay",
];

/// The tables that may stand in the file several times.
pub(super) const REPEATED: &[&str] = &["silo", "portal", "person"];

/// Keys whose values are secret.
pub const SECRET: &[&str] = &["token"];

pub(super) fn keys_of(table: &str) -> &'static [&'static str] {
    TABLES
        .iter()
        .find(|(name, _)| *name == table)
        .map_or(&[], |(_, keys)| keys)
}

pub(super) fn table_of(key: &str) -> Option<&'static str> {
    TABLES
        .iter()
        .find(|(_, keys)| keys.contains(&key))
        .map(|(name, _)| *name)
}

/// `[name]` or `[[name]]`, as it is written in the file.
#[must_use]
pub fn header(name: &str) -> String {
    if REPEATED.contains(&name) {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}

pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    nearest(
        name,
        TABLES.iter().flat_map(|(_, keys)| keys.iter().copied()),
    )
}

pub(super) fn belongs(name: &str, home: &str) -> Diagnostic {
    let known = keys_of(home);
    let fault = Diagnostic::new("B02", format!("`{name}` belongs in `{}`", header(home)));
    match nearest(name, known.iter().copied()) {
        Some(meant) if meant != name => fault.help(format!(
            "move the line below `{}`, as `{meant}`",
            header(home)
        )),
        _ => fault.help(format!("move the line below `{}`", header(home))),
    }
}

pub(super) fn unknown_key(table: &str, name: &str) -> Diagnostic {
    Diagnostic::new(
        "B01",
        format!("unknown key `{name}` in `{}`", header(table)),
    )
    .note(format!(
        "the keys here are {}",
        listed(keys_of(table).iter().copied())
    ))
}

pub(super) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
