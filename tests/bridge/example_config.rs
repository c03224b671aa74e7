//! `config.toml.example` is the documentation of the options: it loads as it is, names every key, and shows the
//! defaults of the code.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use footbridge::config::{Config, PortalConfig, keys::TABLES};

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example")).unwrap()
}

/// The example with the media gateway, whose other keys have no effect without it.
fn example_with_links() -> String {
    example().replace("# public_url = ", "public_url = ")
}

fn load(directory: &Path, text: &str) -> Config {
    let token = directory.join("gitter.token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let path = directory.join("config.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path).unwrap_or_else(|report| panic!("{report}"))
}

/// `#key = value`: a default that is shown. Prose has a space after the `#`.
fn shown_default(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?;
    rest.starts_with(|c: char| c.is_ascii_lowercase())
        .then_some(rest)
}

fn settings(config: &Config) -> [String; 8] {
    // The portals without their positions in the file, which differ between two texts.
    let portals: Vec<_> = config
        .portals
        .iter()
        .map(|portal| PortalConfig {
            channel_span: 0..0,
            room_span: 0..0,
            ..portal.clone()
        })
        .collect();
    [
        format!("{:?}", config.store),
        format!("{:?}", config.matrix),
        format!("{:?}", config.silos),
        format!("{portals:?}"),
        format!("{:?}", config.delivery),
        format!("{:?}", config.media),
        format!("{:?}", config.consent),
        format!("{:?}", config.admin),
    ]
}

#[test]
fn the_example_loads_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let config = load(directory.path(), &example());
    assert_eq!(config.matrix.user, "@bridge:example.org");
    assert_eq!((config.silos.len(), config.portals.len()), (1, 1));
    assert_eq!(config.store.path, directory.path().join("data"));
}

#[test]
fn every_default_shown_is_the_default_of_the_code() {
    let directory = tempfile::tempdir().unwrap();
    let bare = load(directory.path(), &example_with_links());
    assert!(bare.media.gateway.is_some());
    let mut shown = 0;
    let spelt_out: Vec<String> = example_with_links()
        .lines()
        .map(|line| match shown_default(line) {
            Some(default) => {
                shown += 1;
                default.to_owned()
            }
            None => line.to_owned(),
        })
        .collect();
    assert!(shown >= 36, "only {shown} defaults are shown");
    let explicit = load(directory.path(), &spelt_out.join("\n"));
    assert_eq!(settings(&explicit), settings(&bare));
}

#[test]
fn a_default_that_is_changed_is_noticed() {
    // The comparison above must be able to fail for every one of the defaults.
    let directory = tempfile::tempdir().unwrap();
    let bare = settings(&load(directory.path(), &example_with_links()));
    let others = [
        ("#path = \"data\"", "path = \"other\""),
        ("#key_file = \"footbridge.key\"", "key_file = \"other\""),
        ("#min_free_mib = 64", "min_free_mib = 65"),
        ("#device_name = \"Footbridge\"", "device_name = \"Other\""),
        ("#key_wait = \"5s\"", "key_wait = \"6s\""),
        (
            "#api = \"https://api.gitter.im/v1\"",
            "api = \"https://other.example/v1\"",
        ),
        (
            "#stream = \"https://stream.gitter.im/v1\"",
            "stream = \"https://other.example/v1\"",
        ),
        (
            "#realtime = \"wss://ws.gitter.im/bayeux\"",
            "realtime = \"wss://other.example/bayeux\"",
        ),
        ("#feed = \"realtime\"", "feed = \"stream\""),
        ("#requests_per_minute = 95", "requests_per_minute = 94"),
        ("#settle = \"20s\"", "settle = \"21s\""),
        ("#overlap = \"10s\"", "overlap = \"11s\""),
        ("#audit = \"5m\"", "audit = \"6m\""),
        ("#trust = \"cross-signed\"", "trust = \"any-device\""),
        ("#coalesce = true", "coalesce = false"),
        ("#notice_after = \"30s\"", "notice_after = \"31s\""),
        ("#key_limit = \"7d\"", "key_limit = \"8d\""),
        ("#unknown_after = \"20h\"", "unknown_after = \"21h\""),
        ("#give_up = \"24h\"", "give_up = \"25h\""),
        ("#attempts = 8", "attempts = 9"),
        ("#max_mib = 100", "max_mib = 99"),
        ("#notices = false", "notices = true"),
        ("#system_messages = false", "system_messages = true"),
        ("#reactions = \"open\"", "reactions = \"always\""),
        ("#file_links = \"open\"", "file_links = \"never\""),
        ("#backfill = 0", "backfill = 1"),
        ("#room_name = \"off\"", "room_name = \"both\""),
        ("#room_topic = \"off\"", "room_topic = \"both\""),
        ("#room_picture = \"off\"", "room_picture = \"from-channel\""),
        (
            "#gateway_listen = \"127.0.0.1:29321\"",
            "gateway_listen = \"127.0.0.1:29322\"",
        ),
        ("#links_last = \"30d\"", "links_last = \"31d\""),
        ("#delay = \"1m\"", "delay = \"2m\""),
        ("#disclose_joins = false", "disclose_joins = true"),
        (
            "# users = [\"@me:example.org\", \"example.org\"]",
            "users = [\"example.org\"]",
        ),
        (
            "#listen = \"127.0.0.1:29320\"",
            "listen = \"127.0.0.1:29321\"",
        ),
    ];
    for (default, other) in others {
        let text = example_with_links();
        assert!(text.contains(default), "{default}");
        let changed = settings(&load(directory.path(), &text.replace(default, other)));
        assert_ne!(changed, bare, "{other}");
    }
}

#[test]
fn every_key_is_in_the_example_below_its_table() {
    let text = example();
    for table in TABLES.iter() {
        let (table, keys) = (table.name, &table.keys);
        let header = text
            .find(&format!("\n[{table}]\n"))
            .or_else(|| text.find(&format!("\n[[{table}]]\n")))
            .or_else(|| text.find(&format!("\n# [[{table}]]\n")));
        let start = header.unwrap_or_else(|| panic!("no table {table}")) + 2;
        let end = text[start..]
            .find("\n[")
            .map_or(text.len(), |end| start + end);
        for key in keys.iter().map(|key| key.name) {
            let there = text[start..end].lines().any(|line| {
                line.trim_start_matches(['#', ' '])
                    .starts_with(&format!("{key} = "))
            });
            assert!(there, "`{key}` of {table} is not in the example");
        }
    }
}

/// An operator who removes the comment marks must not get a key twice.
#[test]
fn no_option_of_a_section_is_in_the_example_twice() {
    let example = example();
    let (mut section, mut keys) = ("", std::collections::HashSet::new());
    for line in example.lines() {
        let line = line.trim_start_matches('#').trim_start();
        if line.starts_with('[') && line.ends_with(']') && !line.contains(' ') {
            (section, keys) = (line, std::collections::HashSet::new());
        }
        let key = line.split_once(" = ").map(|(key, _)| key);
        let is_key = |key: &&str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if let Some(key) = key.filter(is_key) {
            assert!(keys.insert(key), "{section} has `{key}` twice");
        }
    }
}
