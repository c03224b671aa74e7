//! The tables and keys that the file may have, and what to say of those that it may not. Each key is declared here or, where only
//! one kind of silo has it, in the folder of that silo.

use std::sync::LazyLock;

use footbridge_core::{
    config_keys::{HTTP, Key, KeyValue},
    lane::EncryptedPolicy,
    room_profile::SyncDirection,
};
use footbridge_silo::{KINDS, capabilities::SiloKind};

use super::{diagnostic::Diagnostic, values::nearest};

const DAY: u64 = 24 * 3_600;

/// `[store]`.
pub(super) mod store {
    use super::Key;

    pub static PATH: Key = Key::text("path");
    pub static KEY_FILE: Key = Key::text("key_file");
    pub static MIN_FREE: Key = Key::number("min_free_mib", 0..=1_048_576, 64);
    pub static ALL: &[&Key] = &[&PATH, &KEY_FILE, &MIN_FREE];
}

/// `[matrix]`.
pub(super) mod matrix {
    use super::Key;

    pub static HOMESERVER: Key = Key::text("homeserver").required("\"https://matrix.example.org\"");
    pub static USER: Key = Key::text("user").required("\"@bridge:example.org\"");
    pub static PASSWORD_FILE: Key = Key::text("password_file");
    pub static RECOVERY_KEY_FILE: Key = Key::text("recovery_key_file");
    pub static DEVICE_NAME: Key = Key::text("device_name");
    pub static KEY_WAIT: Key = Key::duration("key_wait", 0..=300, 5);
    pub static AUDIT: Key = Key::duration("audit", 10..=3600, 300);
    pub static ALL: &[&Key] = &[
        &HOMESERVER,
        &USER,
        &PASSWORD_FILE,
        &RECOVERY_KEY_FILE,
        &DEVICE_NAME,
        &KEY_WAIT,
        &AUDIT,
    ];
}

/// `[[silo]]`, of every kind.
pub(super) mod silo {
    use footbridge_silo::config::AUDIT;

    use super::Key;

    pub static NAME: Key = Key::text("name").required("\"gitter\"");
    pub static KIND: Key = Key::text("kind").required("\"gitter\"");
    pub static TOKEN: Key = Key::secret("token");
    pub static TOKEN_FILE: Key = Key::text("token_file").required("\"gitter.token\"");
    pub static COMMON: &[&Key] = &[&NAME, &KIND, &TOKEN, &TOKEN_FILE, &AUDIT];
}

/// `[[portal]]`.
pub(super) mod portal {
    use super::{EncryptedPolicy, Key, SyncDirection};

    pub static ROOM: Key = Key::text("room").required("\"#room:example.org\"");
    pub static SILO: Key = Key::text("silo").required("\"gitter\"");
    pub static CHANNEL: Key = Key::text("channel").required("\"org/room\"");
    pub static GATEWAY: Key = Key::text("channel").required("\"gateway1\"");
    pub static TRUST: Key = Key::word("trust", &["cross-signed", "any-device"]);
    pub static SYSTEM_MESSAGES: Key = Key::flag("system_messages", false);
    pub static NOTICES: Key = Key::flag("notices", false);
    pub static REACTIONS: Key = Key::word("reactions", &EncryptedPolicy::WORDS);
    pub static FILE_LINKS: Key = Key::word("file_links", &EncryptedPolicy::WORDS);
    pub static BACKFILL: Key = Key::number("backfill", 0..=100, 0);
    pub static ROOM_NAME: Key = Key::word("room_name", &SyncDirection::WORDS);
    pub static ROOM_TOPIC: Key = Key::word("room_topic", &SyncDirection::WORDS);
    /// No silo lets a bot set a channel's picture.
    pub static ROOM_PICTURE: Key = Key::word("room_picture", &["off", "from-channel"]);
    pub static ALL: &[&Key] = &[
        &ROOM,
        &SILO,
        &CHANNEL,
        &TRUST,
        &SYSTEM_MESSAGES,
        &NOTICES,
        &REACTIONS,
        &FILE_LINKS,
        &BACKFILL,
        &ROOM_NAME,
        &ROOM_TOPIC,
        &ROOM_PICTURE,
    ];
}

/// `[[person]]`.
pub(super) mod person {
    use super::{Key, portal};

    pub static USER: Key = Key::text("user").required("\"@ann:example.org\"");
    pub static ACCOUNT: Key = Key::text("account").required("\"ann\"");
    pub static ALL: &[&Key] = &[&USER, &portal::SILO, &ACCOUNT];
}

/// `[delivery]`.
pub mod delivery {
    use super::{DAY, Key};

    /// Whether short messages share events.
    pub static COALESCE: Key = Key::flag("coalesce", true);
    /// When the other side gets a notice that a message cannot be decrypted yet.
    pub static NOTICE_AFTER: Key = Key::duration("notice_after", 1..=DAY, 30);
    /// When a room key is no longer expected.
    pub static KEY_LIMIT: Key = Key::duration("key_limit", 1..=90 * DAY, 7 * DAY);
    /// When a send of unknown outcome is no longer repeated unseen.
    pub static UNKNOWN_AFTER: Key = Key::duration("unknown_after", 1..=DAY, 20 * 3_600);
    /// When a message is parked that the other side does not take.
    pub static GIVE_UP: Key = Key::duration("give_up", 1..=30 * DAY, DAY);
    /// How often a message is tried that is refused.
    pub static ATTEMPTS: Key = Key::number("attempts", 1..=100, 8);
    pub(super) static ALL: &[&Key] = &[
        &COALESCE,
        &NOTICE_AFTER,
        &KEY_LIMIT,
        &UNKNOWN_AFTER,
        &GIVE_UP,
        &ATTEMPTS,
    ];
}

/// `[media]`.
pub(super) mod media {
    use super::{DAY, HTTP, Key};

    pub static MAX_MIB: Key = Key::number("max_mib", 0..=4_096, 100);
    pub static PUBLIC_URL: Key = Key::url("public_url", HTTP);
    pub static GATEWAY_LISTEN: Key = Key::text("gateway_listen");
    pub static LINKS_LAST: Key = Key::duration("links_last", 60..=365 * DAY, 30 * DAY);
    pub static ALL: &[&Key] = &[&MAX_MIB, &PUBLIC_URL, &GATEWAY_LISTEN, &LINKS_LAST];
}

/// `[consent]`.
pub(super) mod consent {
    use super::{DAY, Key};

    pub static DELAY: Key = Key::duration("delay", 0..=DAY, 60);
    pub static OPERATOR: Key = Key::text("operator");
    pub static DISCLOSE_JOINS: Key = Key::flag("disclose_joins", false);
    pub static ALL: &[&Key] = &[&DELAY, &OPERATOR, &DISCLOSE_JOINS];
}

/// `[admin]`.
pub(super) mod admin {
    use super::Key;

    pub static LISTEN: Key = Key::text("listen");
    pub static ALLOW_REMOTE: Key = Key::flag("allow_remote", false);
    pub static USERS: Key = Key::texts("users");
    pub static ALL: &[&Key] = &[&LISTEN, &ALLOW_REMOTE, &USERS];
}

/// A table of the file.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Whether it may appear in the file several times.
    pub is_repeated: bool,
    /// Its keys. Those of `[[silo]]` are those of all kinds.
    pub keys: Vec<&'static Key>,
}

/// The tables of the file.
pub static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let table = |name, is_repeated, keys: &[&'static Key]| Table {
        name,
        is_repeated,
        keys: keys.to_vec(),
    };
    vec![
        table("store", false, store::ALL),
        table("matrix", false, matrix::ALL),
        table("silo", true, &silo_keys()),
        table("portal", true, portal::ALL),
        table("person", true, person::ALL),
        table("delivery", false, delivery::ALL),
        table("media", false, media::ALL),
        table("consent", false, consent::ALL),
        table("admin", false, admin::ALL),
    ]
});

/// The keys of all kinds of silos, each name once.
fn silo_keys() -> Vec<&'static Key> {
    let mut keys = silo::COMMON.to_vec();
    for key in KINDS.iter().flat_map(|kind| kind.keys) {
        if !keys.iter().any(|known| known.name == key.name) {
            keys.push(key);
        }
    }
    keys
}

/// The kind of silo of this name.
pub(super) fn silo_kind(name: &str) -> Option<&'static SiloKind> {
    KINDS.iter().copied().find(|kind| kind.word == name)
}

fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The names of the tables.
pub(super) fn table_names() -> impl Iterator<Item = &'static str> + Clone {
    TABLES.iter().map(|table| table.name)
}

/// Whether a table may appear in the file several times.
pub(super) fn is_repeated(name: &str) -> bool {
    table(name).is_some_and(|table| table.is_repeated)
}

/// The names of the keys of a table.
pub(super) fn keys_of(name: &str) -> impl Iterator<Item = &'static str> + Clone {
    let keys = table(name).map_or(&[][..], |table| &table.keys);
    keys.iter().map(|key| key.name)
}

/// The first table that has a key of this name.
pub(super) fn table_of(key: &str) -> Option<&'static str> {
    let has_key = |table: &&Table| table.keys.iter().any(|known| known.name == key);
    TABLES.iter().find(has_key).map(|table| table.name)
}

/// The names of keys whose values must never be shown.
pub(super) fn secret_keys() -> impl Iterator<Item = &'static str> {
    let keys = TABLES.iter().flat_map(|table| &table.keys);
    keys.filter(|key| matches!(key.value, KeyValue::Secret))
        .map(|key| key.name)
}

/// `[name]` or `[[name]]`, as it is written in the file.
#[must_use]
pub fn header(name: &str) -> String {
    if is_repeated(name) {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}

pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    nearest(name, table_names().flat_map(keys_of))
}

pub(super) fn belongs(name: &str, table: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new("B02", format!("`{name}` belongs in `{}`", header(table)));
    match nearest(name, keys_of(table)) {
        Some(nearest_key) if nearest_key != name => diagnostic.help(format!(
            "move the line below `{}`, as `{nearest_key}`",
            header(table)
        )),
        _ => diagnostic.help(format!("move the line below `{}`", header(table))),
    }
}

pub(super) fn unknown_key(table: &str, name: &str) -> Diagnostic {
    Diagnostic::new(
        "B01",
        format!("unknown key `{name}` in `{}`", header(table)),
    )
    .note(format!("the keys here are {}", listed(keys_of(table))))
}

pub(super) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
