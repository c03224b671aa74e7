//! Wrong input: for each row of the list, the whole message that people get and the exit code. The real binary runs;
//! its stderr is compared with a file in `golden/` (`FOOTBRIDGE_GOLDEN=rewrite` writes them).

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use footbridge::config::{
    Config,
    keys::{TABLES, Table},
};
use footbridge_silo::{KINDS, capabilities::SiloKind};
use footbridge_store::{AccountInfo, AccountRole, Millis, SecretBytes, Store, StoreKey};
use proptest::prelude::*;

/// The value of every secret in these tests; no output may contain it.
const CANARY: &str = "hush5e1f9canary";

/// A working configuration without silos, so that the bridge contacts only the homeserver.
const PLAIN: &str =
    "[matrix]\nhomeserver = \"https://matrix.example.org\"\nuser = \"@bridge:example.org\"\n";

/// A working configuration with every required key.
const WHOLE: &str = r##"[matrix]
homeserver = "https://matrix.example.org"
user = "@bridge:example.org"

[[silo]]
name = "gitter"
kind = "gitter"
token_file = "gitter.token"

[[portal]]
room = "#room:example.org"
silo = "gitter"
channel = "org/room"
"##;

/// A directory to run in, with a valid token file.
struct WorkDir {
    directory: tempfile::TempDir,
}

impl WorkDir {
    fn new() -> Self {
        let work_dir = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        work_dir.put("gitter.token", format!("{CANARY}\n"), 0o600);
        work_dir
    }

    fn with(config: &str) -> Self {
        let work_dir = Self::new();
        work_dir.put("config.toml", config, 0o600);
        work_dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, contents: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(name);
        fs::write(&path, contents.as_ref()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_footbridge"));
        command
            .args(arguments)
            .env_clear()
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program and compares its stderr with the golden file, which is named after the row.
    fn golden(&self, name: &str, arguments: &[&str]) {
        compare(name, &self.run(arguments), self.directory.path());
    }
}

/// `check --offline` of this configuration, compared with the golden file.
fn golden_config(name: &str, config: &str) {
    WorkDir::with(config).golden(name, &["check", "--offline"]);
}

pub fn compare(name: &str, output: &Output, directory: &Path) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    for stream in [&stderr, &stdout] {
        assert!(!stream.contains(CANARY), "{name} shows a secret:\n{stream}");
    }
    let seen = format!(
        "exit code {}\n{}",
        output.status.code().unwrap(),
        normal(&stderr, directory)
    );
    let row = name.split('-').next().unwrap();
    assert!(
        seen.contains(&format!("error[{row}]")) || seen.contains(&format!("warning[{row}]")),
        "{name} is another fault:\n{seen}"
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/bridge/golden")
        .join(format!("{name}.txt"));
    if std::env::var("FOOTBRIDGE_GOLDEN").is_ok_and(|wish| wish == "rewrite") {
        fs::write(&file, &seen).unwrap();
        return;
    }
    let golden = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}\n{seen}", file.display()));
    assert_eq!(seen, golden, "{name}");
}

/// The same on every machine: temporary directories, ports, process ids, times and the user are replaced.
fn normal(stderr: &str, directory: &Path) -> String {
    let mut text = stderr.replace(&directory.display().to_string(), "<directory>");
    for (before, end, word) in [
        ("127.0.0.1:", ' ', "<port>"),
        ("process ", ',', "<pid>"),
        ("kill ", ')', "<pid>"),
        ("started ", '\n', "<time>"),
        ("user ", ' ', "<uid>"),
        ("lease epoch is ", ',', "<count>"),
        ("homeserver's is ", ':', "<count>"),
        ("schemas up to ", '\n', "<schema>"),
        ("was seen ", ' ', "<seconds>"),
    ] {
        text = text
            .split_inclusive(before)
            .enumerate()
            .map(|(nth, piece)| {
                if nth == 0 {
                    piece.to_owned()
                } else {
                    masked(piece, end, word)
                }
            })
            .collect();
    }
    let mut of_root = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("error") || line.starts_with("warning") {
            of_root = line.starts_with("warning[B32]");
        }
        if !of_root {
            kept.push_str(line.trim_end());
            kept.push('\n');
        }
    }
    kept
}

/// The piece with its leading digits (and what belongs to them) replaced.
fn masked(piece: &str, end: char, word: &str) -> String {
    if !piece.starts_with(|c: char| c.is_ascii_digit()) {
        return piece.to_owned();
    }
    let stop = piece
        .find(|c: char| c == end || c == '\n' || (word != "<time>" && !c.is_ascii_digit()))
        .unwrap_or(piece.len());
    format!("{word}{}", &piece[stop..])
}

#[test]
fn b01_unknown_keys_and_tables_are_named_with_what_was_meant() {
    golden_config("B01-unknown-key", &WHOLE.replace("homeserver", "homesever"));
    golden_config(
        "B01-unknown-table",
        &WHOLE.replace("[[portal]]", "[[portals]]"),
    );
    golden_config(
        "B01-unknown-secret",
        &format!("{WHOLE}access_token = \"{CANARY}\" # {CANARY}\n"),
    );
}

#[test]
fn b02_a_key_in_the_wrong_table_is_reported_with_the_right_table() {
    golden_config(
        "B02-wrong-table",
        &WHOLE.replace("[[portal]]\n", "[[portal]]\ndevice_name = \"x\"\n"),
    );
    golden_config(
        "B02-top-level",
        &format!("user = \"@bridge:example.org\"\n{WHOLE}"),
    );
    golden_config(
        "B02-another-kind",
        &matterbridge("settle = \"20s\"\nfeed = \"stream\"\n"),
    );
}

/// A working configuration of another kind of silo, with these additional lines.
fn matterbridge(lines: &str) -> String {
    WHOLE.replace(
        "kind = \"gitter\"\ntoken_file = \"gitter.token\"\n",
        &format!("kind = \"matterbridge\"\napi = \"http://127.0.0.1:4242\"\n{lines}"),
    )
}

fn mattermost(lines: &str) -> String {
    WHOLE.replace(
        "kind = \"gitter\"\n",
        &format!("kind = \"mattermost\"\n{lines}"),
    )
}

#[test]
fn a_mattermost_needs_its_address_and_a_token() {
    let ends = |config: &str| {
        WorkDir::with(config)
            .run(&["check", "--offline"])
            .status
            .code()
    };
    let url = "url = \"https://chat.example.org\"\n";
    assert_eq!(ends(&mattermost(url)), Some(0));
    let all = format!(
        "{url}names = \"override\"\nicon = \"https://example.org/a.png\"\nping = \"5s\"\naudit = \"1m\"\n"
    );
    assert_eq!(ends(&mattermost(&all)), Some(0));
    golden_config("B04-mattermost", &mattermost("names = \"overide\"\n"));
    golden_config(
        "B02-api",
        &mattermost(&format!("{url}api = \"https://chat.example.org\"\n")),
    );
    golden_config(
        "B11-mattermost",
        &mattermost("url = \"https://chat.example.org/api/v4\"\n"),
    );
}

#[test]
fn a_matterbridge_needs_its_address_and_nothing_else() {
    let ends = |config: &str| {
        let output = WorkDir::with(config).run(&["check", "--offline"]);
        output.status.code()
    };
    assert_eq!(ends(&matterbridge("")), Some(0));
    let all =
        "token_file = \"gitter.token\"\naccount = \"api.us\"\nping = \"5s\"\naudit = \"1m\"\n";
    assert_eq!(ends(&matterbridge(all)), Some(0));
}

#[test]
fn b03_twins_are_shown_with_both_places() {
    golden_config("B03-key", &WHOLE.replace("kind =", "name = \"x\"\nkind ="));
    let silo = "\n[[silo]]\nname = \"gitter\"\nkind = \"gitter\"\ntoken_file = \"gitter.token\"\n";
    golden_config("B03-silo", &format!("{WHOLE}{silo}"));
    let portal =
        "\n[[portal]]\nroom = \"#room:example.org\"\nsilo = \"gitter\"\nchannel = \"Org/Room\"\n";
    golden_config("B03-portal", &format!("{WHOLE}{portal}"));
    golden_config(
        "B03-no-such-silo",
        &WHOLE.replace("silo = \"gitter\"", "silo = \"giter\""),
    );
}

#[test]
fn b04_wrong_types_ranges_and_units_are_reported_with_valid_values() {
    golden_config("B04-type", &WHOLE.replace("\"@bridge:example.org\"", "5"));
    golden_config("B04-single-table", &WHOLE.replace("[[silo]]", "[silo]"));
    golden_config(
        "B04-range",
        &WHOLE.replace("kind =", "requests_per_minute = 0\nkind ="),
    );
    golden_config(
        "B04-negative",
        &WHOLE.replace("kind =", "settle = \"-20s\"\nkind ="),
    );
    golden_config(
        "B04-no-unit",
        &WHOLE.replace("kind =", "settle = 20\noverlap = \"10\"\nkind ="),
    );
    golden_config(
        "B04-missing-key",
        &WHOLE.replace("user = \"@bridge:example.org\"\n", ""),
    );
    golden_config(
        "B04-matterbridge",
        &matterbridge("account = \"footbridge\"\nping = \"0s\"\n")
            .replace("api = \"http://127.0.0.1:4242\"\n", ""),
    );
    golden_config(
        "B04-kind",
        &WHOLE.replace("kind = \"gitter\"", "kind = \"matterbrige\""),
    );
    golden_config("B04-one-of", &format!("{WHOLE}trust = \"cross-singed\"\n"));
}

#[test]
fn b05_broken_syntax_is_shown_at_its_place_and_without_secrets() {
    golden_config(
        "B05-quote",
        &WHOLE.replace("\"@bridge:example.org\"", "\"@bridge:example.org"),
    );
    let secret = WHOLE.replace(
        "token_file = \"gitter.token\"",
        &format!("token = \"{CANARY}"),
    );
    golden_config("B05-secret", &secret);
    golden_config(
        "B05-no-equals",
        &WHOLE.replace("kind = \"gitter\"", "kind \"gitter\""),
    );
    let work_dir = WorkDir::new();
    work_dir.put(
        "config.toml",
        [PLAIN.as_bytes(), b"device_name = \"\xff\"\n"].concat(),
        0o600,
    );
    work_dir.golden("B05-not-utf8", &["check", "--offline"]);
}

#[test]
fn a_byte_order_mark_carriage_returns_and_tabs_are_no_fault() {
    let config = format!(
        "\u{feff}{}",
        WHOLE.replace(" = ", "\t=\t").replace('\n', "\r\n")
    );
    let output = WorkDir::with(&config).run(&["check", "--offline"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn b06_missing_empty_and_wrong_files_give_different_errors() {
    golden_config("B06-empty", "\n\n");
    WorkDir::new().golden("B06-missing", &["check"]);
    let work_dir = WorkDir::new();
    fs::create_dir(work_dir.path("config.toml")).unwrap();
    work_dir.golden("B06-directory", &["check"]);
}

#[test]
fn b07_an_unreadable_file_is_reported_with_owner_and_mode() {
    let work_dir = WorkDir::with(WHOLE);
    work_dir.put("config.toml", WHOLE, 0o000);
    fs::set_permissions(work_dir.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = work_dir.command(&["check"]);
    if footbridge::config::secret_file::own_user() == Some(0) {
        // Root may read everything, so another user must run the program; everybody may execute this copy.
        let program = work_dir.path("footbridge");
        // `cp` copies it: a file that this process has open for writing may be "busy" in the child of another test.
        let copied = Command::new("cp")
            .args([Path::new(env!("CARGO_BIN_EXE_footbridge")), &program])
            .status()
            .unwrap();
        assert!(copied.success());
        command = Command::new(program);
        command
            .arg("check")
            .env_clear()
            .current_dir(work_dir.directory.path())
            .uid(65_534);
    }
    compare(
        "B07-unreadable",
        &command.output().unwrap(),
        work_dir.directory.path(),
    );
}

#[test]
fn b08_a_secret_that_others_may_read_is_refused() {
    let inline = WHOLE.replace(
        "token_file = \"gitter.token\"",
        &format!("token = \"{CANARY}\""),
    );
    let work_dir = WorkDir::new();
    work_dir.put("config.toml", &inline, 0o644);
    work_dir.golden("B08-token-in-open-file", &["check", "--offline"]);
    work_dir.put("config.toml", &inline, 0o600);
    assert_eq!(work_dir.run(&["check", "--offline"]).status.code(), Some(0));
    let work_dir = WorkDir::with(WHOLE);
    work_dir.put("gitter.token", CANARY, 0o640);
    work_dir.golden("B08-open-token-file", &["check", "--offline"]);
}

#[test]
fn b09_a_secret_given_twice_is_refused_with_both_places() {
    golden_config(
        "B09-token-twice",
        &WHOLE.replace("token_file", &format!("token = \"{CANARY}\"\ntoken_file")),
    );
}

#[test]
fn b10_a_secret_file_holds_one_short_line_of_text() {
    let work_dir = WorkDir::with(WHOLE);
    for (name, contents) in [
        ("B10-empty", Vec::new()),
        ("B10-newline-only", b"\n".to_vec()),
        ("B10-too-long", vec![b'x'; 5000]),
        ("B10-binary", vec![0, 255, 1, 2]),
        (
            "B10-two-lines",
            format!("{CANARY}\n{CANARY}\n").into_bytes(),
        ),
    ] {
        work_dir.put("gitter.token", contents, 0o600);
        work_dir.golden(name, &["check", "--offline"]);
    }
    let utf16: Vec<u8> = format!("\u{feff}{CANARY}\r\n")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    work_dir.put("gitter.token", utf16, 0o600);
    work_dir.golden("B10-utf16", &["check", "--offline"]);
    work_dir.put("gitter.token", "\u{feff}\r\n", 0o600);
    work_dir.golden("B10-empty", &["check", "--offline"]);
    for whole in [format!("{CANARY}\r\n"), format!("\u{feff}{CANARY}\r\n")] {
        work_dir.put("gitter.token", whole, 0o600);
        assert_eq!(work_dir.run(&["check", "--offline"]).status.code(), Some(0));
    }
    let config = WHOLE.replace(
        "\"gitter.token\"",
        "\"0123456789abcdef0123456789abcdef01234567\"",
    );
    golden_config("B18-token-as-file", &config);
    golden_config("B18-no-file", &WHOLE.replace("gitter.token", "other.token"));
}

#[test]
fn b11_a_homeserver_url_is_refused_for_an_exact_reason() {
    let with = |url: &str| PLAIN.replace("https://matrix.example.org", url);
    golden_config(
        "B11-matterbridge",
        &matterbridge("").replace("127.0.0.1", "matterbridge"),
    );
    golden_config(
        "B11-path",
        &with("https://matrix.example.org/_matrix/client"),
    );
    golden_config(
        "B11-credentials",
        &with(&format!("https://bridge:{CANARY}@matrix.example.org")),
    );
    golden_config("B11-not-encrypted", &with("http://matrix.example.org"));
    golden_config("B11-spaces", &with("https://matrix.example.org "));
    golden_config("B11-international", &with("https://mаtrix.example.org"));
    golden_config("B11-no-scheme", &with("matrix.example.org/_matrix"));
    golden_config("B11-this-machine", &with("localhost:8008"));
    golden_config(
        "B11-silo-without-scheme",
        &mattermost("url = \"localhost:8065\"\n"),
    );
}

#[test]
fn b12_ids_of_the_wrong_kind_are_reported_with_the_right_form() {
    golden_config(
        "B12-user-as-homeserver",
        &PLAIN.replace("https://matrix.example.org", "@bridge:example.org"),
    );
    golden_config(
        "B12-user-without-server",
        &PLAIN.replace("@bridge:example.org", "@bridge"),
    );
    golden_config(
        "B12-alias-as-user",
        &PLAIN.replace("@bridge:example.org", "#bridge:example.org"),
    );
    golden_config(
        "B12-room-without-sigil",
        &WHOLE.replace("#room:example.org", "room:example.org"),
    );
    golden_config(
        "B12-room-without-server",
        &WHOLE.replace("#room:example.org", "!room"),
    );
    golden_config(
        "B12-channel-url",
        &WHOLE.replace("org/room", "https://gitter.im/org/room?at=5f1e"),
    );
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A server that sends the same response to every request.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _length = stream.read(&mut request);
            let _gone = write!(stream, "HTTP/1.1 {answer}");
        }
    });
    port
}

fn at_port(port: u16) -> String {
    let url = format!("http://127.0.0.1:{port}");
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{}\"\n", closed_port());
    PLAIN.replace("https://matrix.example.org", &url) + admin.as_str()
}

#[test]
fn b13_the_step_toward_the_homeserver_that_fails_is_named() {
    WorkDir::with(&at_port(closed_port())).golden("B13-refused", &["check"]);
    let web = answering("200 OK\r\ncontent-length: 14\r\nconnection: close\r\n\r\n<html></html>\n");
    WorkDir::with(&at_port(web)).golden("B13-not-matrix", &["check"]);
    let old = answering(
        "200 OK\r\ncontent-length: 23\r\nconnection: close\r\n\r\n{\"versions\":[\"r0.6.1\"]}",
    );
    WorkDir::with(&at_port(old)).golden("B13-too-old", &["check"]);
    let rude = answering("hello\r\n\r\n");
    let config = at_port(rude);
    WorkDir::with(&config).golden("B13-no-http", &["check"]);
    let tls = config.replace("homeserver = \"http://", "homeserver = \"https://");
    let output = WorkDir::with(&tls).run(&["check"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(
        stderr.contains("error[B13]: the TLS connection to 127.0.0.1:"),
        "{stderr}"
    );
    assert!(
        stderr.contains("help: write \"http://127.0.0.1:"),
        "{stderr}"
    );
}

#[test]
fn b14_an_error_of_a_silo_is_reported_at_its_section() {
    let homeserver = answering(
        "200 OK\r\ncontent-length: 22\r\nconnection: close\r\n\r\n{\"versions\":[\"v1.11\"]}",
    );
    let with_silo = |port: u16| {
        let silo = format!("kind = \"gitter\"\napi = \"http://127.0.0.1:{port}/v1\"");
        let admin = format!("\n[admin]\nlisten = \"127.0.0.1:{}\"\n", closed_port());
        WHOLE.replace("kind = \"gitter\"", &silo).replace(
            "https://matrix.example.org",
            &format!("http://127.0.0.1:{homeserver}"),
        ) + admin.as_str()
    };
    let refusing = answering(
        "401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 24\r\nconnection: close\r\n\r\n{\"error\":\"Unauthorized\"}",
    );
    WorkDir::with(&with_silo(refusing)).golden("B14-token", &["check"]);
    let output = WorkDir::with(&with_silo(closed_port())).run(&["check"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(
        stderr.contains("error[B14]: silo `gitter` cannot be used"),
        "{stderr}"
    );
}

#[test]
fn b15_places_that_cannot_hold_the_store_are_refused_before_they_are_touched() {
    let work_dir = WorkDir::with(&format!("{PLAIN}[store]\npath = \"data\"\n"));
    work_dir.put("data", "", 0o600);
    work_dir.golden("B15-file", &["login"]);
    let work_dir = WorkDir::with(&format!("{PLAIN}[store]\npath = \"file/data\"\n"));
    work_dir.put("file", "", 0o600);
    work_dir.golden("B15-below-a-file", &["login"]);
    let work_dir = WorkDir::with(&format!("{PLAIN}[store]\npath = \"open/data\"\n"));
    fs::create_dir(work_dir.path("open")).unwrap();
    fs::set_permissions(work_dir.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    work_dir.golden("B15-open-parent", &["login"]);
    work_dir.golden("B15-open-parent", &["check", "--offline"]);
    assert!(!work_dir.path("open/data").exists() && !work_dir.path("footbridge.key").exists());
}

/// What is stored below a directory: names, sizes and a hash of the contents. Without the lock and SQLite's scratch
/// files, which every reader creates.
fn stored(directory: &Path) -> Vec<(PathBuf, usize, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(stored(&path));
        } else if name != "lock" && !name.ends_with("-wal") && !name.ends_with("-shm") {
            let bytes = fs::read(&path).unwrap();
            let mut hasher = std::hash::DefaultHasher::new();
            bytes.hash(&mut hasher);
            found.push((path, bytes.len(), hasher.finish()));
        }
    }
    found.sort();
    found
}

#[test]
fn b17_a_wrong_key_is_reported_and_changes_nothing() {
    let config = format!("{PLAIN}password_file = \"password.txt\"\n");
    let config = config.replace(
        "https://matrix.example.org",
        &format!("http://127.0.0.1:{}", closed_port()),
    );
    let work_dir = WorkDir::with(&config);
    work_dir.put("password.txt", CANARY, 0o600);
    // The homeserver is unreachable, but `login` creates the store with its key.
    assert_eq!(work_dir.run(&["login"]).status.code(), Some(69));
    let key = fs::read_to_string(work_dir.path("footbridge.key")).unwrap();
    let other: String = key
        .chars()
        .map(|c| if c == '0' { '1' } else { c })
        .collect();
    let other = if other == key {
        key.replacen('1', "0", 1)
    } else {
        other
    };
    work_dir.put("footbridge.key", other, 0o600);
    let before = stored(&work_dir.path("data"));
    work_dir.golden("B17-wrong-key", &["login"]);
    work_dir.golden("B17-wrong-key", &["run"]);
    work_dir.golden("B17-wrong-key", &["check", "--offline"]);
    let after = stored(&work_dir.path("data"));
    assert_eq!(before, after);
    fs::remove_file(work_dir.path("footbridge.key")).unwrap();
    for arguments in [&["login"][..], &["run"], &["check", "--offline"]] {
        work_dir.golden("B18-key-vanished", arguments);
    }
    assert!(
        !work_dir.path("footbridge.key").exists(),
        "a new key was made for an old store"
    );
    assert!(!before.is_empty());
}

/// A process that is killed when the test ends, also when it panics.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn b19_a_second_instance_reports_who_holds_the_store() {
    // A homeserver that accepts the connection and never responds blocks the first login, which holds the store.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let config =
        PLAIN.replace("https://matrix.example.org", &url) + "password_file = \"password.txt\"\n";
    let work_dir = WorkDir::with(&config);
    work_dir.put("password.txt", CANARY, 0o600);
    let first = work_dir
        .command(&["login"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let first = Killed(first);
    let (_held, _) = silent.accept().unwrap();
    let asked = Instant::now();
    let output = work_dir.run(&["login"]);
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&format!("process {}, started ", first.0.id())),
        "{stderr}"
    );
    compare("B19-second-instance", &output, work_dir.directory.path());
    work_dir.golden("B19-second-instance", &["run"]);
}

/// A directory whose store belongs to `user`, with a session that the homeserver may or may not know.
fn with_account(config: &str, user: &str) -> WorkDir {
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{}\"\n", closed_port());
    let work_dir = WorkDir::with(&format!("{config}{admin}"));
    let (data, key_file) = (work_dir.path("data"), work_dir.path("footbridge.key"));
    let face = AccountInfo {
        user_id: user.to_owned(),
        device_id: "OLDDEVICE".to_owned(),
        homeserver: "https://matrix.example.org/".to_owned(),
        ed25519: Some("finger".to_owned()),
        master_key: Some("master".to_owned()),
    };
    let session =
        format!(r#"{{"user_id": "{user}", "device_id": "OLDDEVICE", "access_token": "{CANARY}"}}"#);
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let key = StoreKey::read_or_create(&key_file).unwrap();
        let store = Store::open(&data, &key).await.unwrap();
        let session = SecretBytes(session.into_bytes());
        let role = AccountRole::Relay;
        let kept = store.save_account(role, &face, &session, Millis(1)).await;
        assert!(kept.unwrap().is_some());
        store.checkpoint().await.unwrap();
    });
    work_dir
}

#[test]
fn b16_a_store_of_another_account_is_refused_with_both_names() {
    let work_dir = with_account(PLAIN, "@other:example.org");
    for arguments in [&["run"][..], &["login"], &["device", "reset"], &["logout"]] {
        work_dir.golden("B16-another-account", arguments);
    }
}

#[test]
fn b20_a_logged_out_device_is_reported_with_the_remedy() {
    const ANSWER: &str = "401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\
                          Connection: close\r\n\r\n\
                          {\"errcode\":\"M_UNKNOWN_TOKEN\",\"error\":\"gone\",\"soft_logout\":false}";
    assert_eq!(ANSWER.split("\r\n\r\n").nth(1).unwrap().len(), 64);
    let url = format!("http://127.0.0.1:{}", answering(ANSWER));
    let config = PLAIN.replace("https://matrix.example.org", &url);
    let work_dir = with_account(&config, "@bridge:example.org");
    work_dir.golden("B20-logged-out", &["login"]);
    let nobody = WorkDir::with(PLAIN);
    nobody.golden("B20-nobody", &["run"]);
}

#[test]
fn b20_a_homeserver_without_login_by_password_is_not_reported_as_a_wrong_password() {
    const FLOWS: &str =
        r#"{"versions":["v1.11"],"flows":[{"type":"m.login.sso"},{"type":"m.login.token"}]}"#;
    let answer = format!(
        "200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{FLOWS}",
        FLOWS.len()
    );
    let config = at_port(answering(answer.leak()));
    let config = config.replace("[admin]", "password_file = \"password.txt\"\n[admin]");
    let work_dir = WorkDir::with(&config);
    work_dir.put("password.txt", CANARY, 0o600);
    work_dir.golden("B20-no-passwords", &["login"]);
}

#[test]
fn b21_an_unsigned_device_does_not_bridge() {
    let work_dir = with_account(PLAIN, "@bridge:example.org");
    // Two databases without any content.
    let make = "import sqlite3, sys\nfor name in sys.argv[1:]:\n    sql = sqlite3.connect(name)\n    \
                sql.execute('CREATE TABLE t (x)')\n    sql.execute('DROP TABLE t')\n    sql.commit()";
    let keys = work_dir.path("data/devices/1");
    fs::create_dir_all(&keys).unwrap();
    let names = ["matrix-sdk-crypto.sqlite3", "matrix-sdk-state.sqlite3"];
    let made = Command::new("python3")
        .args(["-c", make])
        .args(names.map(|name| keys.join(name)))
        .status();
    assert!(made.unwrap().success());
    work_dir.golden("B21-unsigned", &["run"]);
}

#[test]
fn b23_a_damaged_database_is_named_and_left_as_it_is() {
    let work_dir = with_account(PLAIN, "@bridge:example.org");
    let file = work_dir.path("data/footbridge.db");
    let whole = fs::read(&file).unwrap();
    let mut torn = whole.clone();
    for byte in torn.iter_mut().skip(4096).step_by(3) {
        *byte = 0xa5;
    }
    for (name, bytes) in [
        ("B23-torn", &torn[..]),
        (
            "B23-no-database",
            &b"this is no database, and it is long enough to be taken for one".repeat(20)[..],
        ),
        ("B23-cut-short", &whole[..100]),
    ] {
        fs::write(&file, bytes).unwrap();
        for arguments in [&["run"][..], &["login"], &["device", "reset"]] {
            work_dir.golden(name, arguments);
        }
        assert_eq!(fs::read(&file).unwrap(), bytes, "{name} was changed");
    }
}

#[test]
fn b24_a_store_of_a_newer_program_is_not_opened() {
    let work_dir = with_account(PLAIN, "@bridge:example.org");
    let file = work_dir.path("data/footbridge.db");
    let mut bytes = fs::read(&file).unwrap();
    // The offset of SQLite's `user_version`.
    bytes[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
    fs::write(&file, &bytes).unwrap();
    let shown = work_dir.run(&["run"]);
    let text = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(text.contains("schema 9999"), "{text}");
    compare("B24-newer", &shown, work_dir.directory.path());
    assert_eq!(fs::read(&file).unwrap(), bytes, "the file was changed");
}

#[test]
fn b26_a_wrong_command_line_is_reported_with_the_nearest_right_one() {
    let work_dir = WorkDir::with(WHOLE);
    work_dir.golden("B26-subcommand", &["chek"]);
    work_dir.golden("B26-letters", &["rnu"]);
    work_dir.golden("B26-flag", &["check", "--ofline"]);
    work_dir.golden("B26-no-command", &[]);
    work_dir.golden("B26-no-value", &["check", "--config"]);
    work_dir.golden("B26-twice", &["check", "--offline", "--offline"]);
    work_dir.golden(
        "B26-init-answers",
        &[
            "--config",
            "new.toml",
            "init",
            "--yes",
            "--user",
            "@bridge:example.org",
        ],
    );
}

#[test]
fn b27_a_misspelt_log_level_is_reported() {
    let work_dir = WorkDir::with(WHOLE);
    let output = work_dir
        .command(&["check", "--offline"])
        .env("FOOTBRIDGE_LOG", "debgu")
        .output()
        .unwrap();
    compare("B27-level", &output, work_dir.directory.path());
}

#[test]
fn b28_what_contradicts_each_other_is_shown_with_the_rule() {
    golden_config(
        "B28-limit",
        &WHOLE.replace("kind =", "requests_per_minute = 120\nkind ="),
    );
    let elsewhere = WHOLE.replace(
        "kind =",
        "requests_per_minute = 6000\napi = \"http://127.0.0.1:9/v1\"\nkind =",
    );
    assert_eq!(
        WorkDir::with(&elsewhere)
            .run(&["check", "--offline"])
            .status
            .code(),
        Some(0)
    );
    let other = "trust = \"any-device\"\n\n[[portal]]\nroom = \"#other:example.org\"\nsilo = \"gitter\"\nchannel = \"org/other\"\n";
    golden_config("B28-trust", &format!("{WHOLE}{other}"));
}

#[test]
fn b31_a_remote_or_used_admin_address_is_refused() {
    golden_config(
        "B31-remote",
        &format!("{WHOLE}\n[admin]\nlisten = \"0.0.0.0:29320\"\n"),
    );
    let allowed = format!("{WHOLE}\n[admin]\nlisten = \"0.0.0.0:0\"\nallow_remote = true\n");
    assert_eq!(
        WorkDir::with(&allowed)
            .run(&["check", "--offline"])
            .status
            .code(),
        Some(0)
    );
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = holder.local_addr().unwrap();
    let taken = format!("{WHOLE}\n[admin]\nlisten = \"{listen}\"\n");
    WorkDir::with(&taken).golden("B31-in-use", &["check", "--offline"]);
    let health = r#"{"ready":true,"store":true,"store_place":"1:1","silos":{},"portals":0,"portals_running":0}"#;
    let answer = format!(
        "200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{health}",
        health.len()
    );
    let port = answering(answer.leak());
    let other = format!("{WHOLE}\n[admin]\nlisten = \"127.0.0.1:{port}\"\n");
    let work_dir = WorkDir::with(&other);
    work_dir.golden("B31-another", &["check", "--offline"]);
    let status = work_dir.run(&["status"]);
    let (said, told) = (
        String::from_utf8_lossy(&status.stdout),
        String::from_utf8_lossy(&status.stderr),
    );
    assert!(
        said.contains("not running") && told.contains("another Footbridge"),
        "{said}{told}"
    );
}

#[test]
fn b34_a_misspelt_environment_variable_is_reported() {
    let work_dir = WorkDir::with(WHOLE);
    let output = work_dir
        .command(&["check", "--offline"])
        .env("FOOTBRIDGE_CONFG", "x")
        .output()
        .unwrap();
    compare("B34-variable", &output, work_dir.directory.path());
}

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    let config = WHOLE
        .replace("homeserver", "homesever")
        .replace("@bridge:example.org", "bridge")
        .replace("kind =", "settle = \"20\"\nkind =")
        .replace("gitter.token", "absent.token")
        .replace("#room:example.org", "room");
    let work_dir = WorkDir::with(&config);
    let output = work_dir.run(&["check"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    for row in [
        "error[B01]",
        "error[B12]: the user id",
        "error[B04]",
        "error[B18]",
        "error[B12]: the room",
    ] {
        assert!(stderr.contains(row), "{row} is missing:\n{stderr}");
    }
    assert!(
        stderr.ends_with("5 errors; nothing was started\n"),
        "{stderr}"
    );
    compare("B01-five-faults", &output, work_dir.directory.path());
    assert_eq!(
        fs::read_dir(work_dir.directory.path()).unwrap().count(),
        2,
        "a file was written"
    );
}

#[test]
fn import_writes_over_nothing_and_nothing_useless() {
    let work_dir = WorkDir::with(WHOLE);
    work_dir.put("matterbridge.toml", "[irc.a]\n", 0o600);
    work_dir.golden("B15-import-exists", &["import", "matterbridge.toml"]);
    assert_eq!(
        fs::read_to_string(work_dir.path("config.toml")).unwrap(),
        WHOLE
    );
    let work_dir = WorkDir::new();
    let one_way = "[[gateway]]\nname = \"one\"\nenable = true\n[[gateway.in]]\naccount = \"matrix.x\"\n\
                   channel = \"#one:example.org\"\n";
    let token = format!("[api.x]\nToken = \"{CANARY}\"\n");
    work_dir.put("matterbridge.toml", format!("{token}{one_way}"), 0o600);
    work_dir.golden("B04-import-nothing", &["import", "matterbridge.toml"]);
    assert!(!work_dir.path("config.toml").exists());
    work_dir.put(
        "matterbridge.toml",
        format!("{token}Buffer = \"{CANARY}\n"),
        0o600,
    );
    work_dir.golden("B05-import", &["import", "matterbridge.toml"]);
    work_dir.golden("B06-import", &["import", "absent.toml"]);
    // Files of an earlier attempt.
    work_dir.put("matterbridge.token", CANARY, 0o600);
    let both_ways = one_way.replace("gateway.in]", "gateway.inout]");
    work_dir.put("matterbridge.toml", format!("{token}{both_ways}"), 0o600);
    let told = work_dir.run(&["import", "matterbridge.toml"]);
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(
        told.contains("error[B15]: matterbridge.token exists already"),
        "{told}"
    );
    assert!(
        told.contains("remove it if it is from an earlier attempt"),
        "{told}"
    );
}

/// Runs `init` with these options and those that every run needs. Returns its diagnostics.
fn init(work_dir: &WorkDir, options: &str) -> String {
    let typed = format!(
        "init --yes --user @bridge:example.org --homeserver http://127.0.0.1:{} --room #room:example.org {options}",
        closed_port()
    );
    let output = work_dir.run(&typed.split(' ').collect::<Vec<_>>());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn init_writes_nothing_invalid_and_reports_all_errors_at_once() {
    let work_dir = WorkDir::new();
    let mattermost =
        "--silo-kind mattermost --silo-token-file gitter.token --silo-api https://chat.example.org";
    work_dir.put("password.txt", CANARY, 0o600);
    let with_password = "--channel a/b --password-file password.txt";
    for (options, told) in [
        (format!("{mattermost}/api/v4 {with_password}"), "api/v4"),
        (
            format!("{mattermost} --channel a/b --password-file absent.txt"),
            "absent.txt, named by `--password-file`, does not exist",
        ),
        (
            format!("{mattermost} {with_password} --recovery-key-file absent.txt"),
            "absent.txt, named by `--recovery-key-file`, does not exist",
        ),
    ] {
        let faults = init(&work_dir, &options);
        assert!(faults.contains(told), "{options}: {faults}");
        assert!(
            !work_dir.path("config.toml").exists(),
            "{options}: {faults}"
        );
    }
    work_dir.put("open.txt", CANARY, 0o644);
    work_dir.put("open.token", CANARY, 0o644);
    let open = "--password-file open.txt --silo-token-file open.token --channel org/room";
    let faults = init(&work_dir, open);
    for file in ["open.txt has mode 0644", "open.token has mode 0644"] {
        assert!(faults.contains(file), "{faults}");
    }
}

#[test]
fn init_asks_for_no_token_where_the_silo_may_have_none() {
    let work_dir = WorkDir::new();
    let options = "--silo-kind matterbridge --silo-api http://127.0.0.1:4242 --channel gateway1";
    work_dir.put("password.txt", CANARY, 0o600);
    let faults = init(
        &work_dir,
        &format!("{options} --password-file password.txt"),
    );
    assert!(faults.contains("error[B13]"), "{faults}");
    assert!(faults.contains("correct it where it is wrong"), "{faults}");
    let written = fs::read_to_string(work_dir.path("config.toml")).unwrap();
    assert!(!written.contains("token"), "{written}");
}

#[test]
fn init_writes_over_nothing() {
    let work_dir = WorkDir::with(WHOLE);
    work_dir.golden("B15-init-exists", &["init", "--yes"]);
    assert_eq!(
        fs::read_to_string(work_dir.path("config.toml")).unwrap(),
        WHOLE
    );
}

/// A valid value for the key.
fn value(table: &str, key: &str) -> &'static str {
    match (table, key) {
        ("matrix", "homeserver") => "\"example.org\"",
        ("matrix", "user") => "\"@bridge:example.org\"",
        ("silo", "name" | "kind") | ("portal" | "person", "silo") => "\"gitter\"",
        ("silo", "token_file") => "\"gitter.token\"",
        ("silo", "requests_per_minute") => "95",
        ("store", "min_free_mib") => "64",
        ("silo", "feed") => "\"realtime\"",
        ("media", "public_url") | ("silo", "api" | "stream" | "url") => {
            "\"https://api.example.org\""
        }
        ("silo", "names") => "\"text\"",
        ("silo", "realtime") => "\"wss://api.example.org\"",
        ("portal", "room") => "\"#room:example.org\"",
        ("portal", "channel") => "\"org/room\"",
        ("portal", "trust") => "\"cross-signed\"",
        ("admin", "listen") | ("media", "gateway_listen") => "\"127.0.0.1:29320\"",
        ("admin", "allow_remote")
        | ("delivery", "coalesce")
        | ("consent", "disclose_joins")
        | ("portal", "system_messages" | "notices") => "true",
        ("portal", "reactions" | "file_links") => "\"always\"",
        ("portal", "room_name" | "room_topic" | "room_picture") => "\"from-channel\"",
        ("media", "max_mib") | ("portal", "backfill") => "100",
        ("person", "user") => "\"@ann:example.org\"",
        ("admin", "users") => "[\"example.org\"]",
        ("consent", "delay") | ("media", "links_last") => "\"1m\"",
        ("delivery", "attempts") => "8",
        ("silo", "media_hosts") => "[\"media.example.org\"]",
        ("silo" | "matrix", "audit") => "\"5m\"",
        ("silo", "account") => "\"api.footbridge\"",
        ("silo", "avatar" | "icon") => "\"https://example.org/picture.png\"",
        (_, "key_wait" | "settle" | "overlap" | "ping") | ("delivery", _) => "\"5s\"",
        _ => "\"x\"",
    }
}

/// A file with every key, one of them misspelt.
fn misspelt(wrong_table: &str, wrong_key: &str, typo: &str) -> String {
    let mut text = String::new();
    let has = |kind: &SiloKind, key: &str| kind.keys.iter().any(|known| known.name == key);
    let of = |key: &str| KINDS.iter().find(|kind| has(kind, key));
    let kind = of(wrong_key).map_or("gitter", |kind| kind.word);
    let own = KINDS.iter().find(|own| own.word == kind).unwrap();
    for Table {
        name: table, keys, ..
    } in TABLES.iter()
    {
        let header = if matches!(*table, "silo" | "portal" | "person") {
            format!("[[{table}]]\n")
        } else {
            format!("[{table}]\n")
        };
        text.push_str(&header);
        for key in keys.iter().map(|key| key.name) {
            let here = *table == wrong_table && key == wrong_key;
            // Of two ways to give the token one must be left out.
            let other_token = match wrong_key {
                "token" => key == "token_file",
                _ => key == "token",
            };
            // What belongs to silos of another kind is a fault of its own.
            let is_own = has(own, key);
            let foreign = *table == "silo" && of(key).is_some() && !is_own;
            if (!other_token && !foreign) || here {
                let written = if here { typo } else { key };
                let quoted = format!("\"{kind}\"");
                let value = match key {
                    "kind" => &quoted,
                    _ => value(table, key),
                };
                text.push_str(&[written, " = ", value, "\n"].concat());
            }
        }
    }
    text
}

/// Every word that one typing error makes of a key.
fn slips(key: &str) -> Vec<String> {
    let letters: Vec<char> = key.chars().collect();
    let word = |letters: &[char]| letters.iter().collect::<String>();
    let mut found = Vec::new();
    for at in 0..letters.len() {
        let mut left_out = letters.clone();
        left_out.remove(at);
        found.push(word(&left_out));
        if at > 0 {
            let mut swapped = letters.clone();
            swapped.swap(at - 1, at);
            found.push(word(&swapped));
        }
        for other in "aeiqsxz_".chars() {
            let mut changed = letters.clone();
            changed[at] = other;
            found.push(word(&changed));
            let mut longer = letters.clone();
            longer.insert(at, other);
            found.push(word(&longer));
        }
    }
    found.retain(|slip| slip != key && !slip.is_empty());
    found.sort();
    found.dedup();
    found
}

#[test]
fn every_misspelt_key_is_reported_with_the_nearest_key() {
    let work_dir = WorkDir::new();
    let (mut tried, mut wrong) = (0, Vec::new());
    for Table {
        name: table, keys, ..
    } in TABLES.iter()
    {
        let keys: Vec<&str> = keys.iter().map(|key| key.name).collect();
        for key in &keys {
            // A slip that makes another key is no slip that anybody could tell.
            let slips = slips(key).into_iter();
            for slip in slips.filter(|slip| !keys.contains(&slip.as_str())) {
                work_dir.put("config.toml", misspelt(table, key, &slip), 0o600);
                let report = Config::load(&work_dir.path("config.toml")).unwrap_err();
                let right = report.diagnostics.iter().any(|fault| {
                    fault.code == "B01"
                        && fault.help.as_deref() == Some(&format!("did you mean `{key}`?"))
                });
                tried += 1;
                if !right || report.diagnostics.len() != 1 {
                    wrong.push(format!("{table}.{key} as {slip}: {report}"));
                }
            }
        }
    }
    assert!(tried > 2_000, "only {tried} slips were tried");
    assert!(
        wrong.is_empty(),
        "{} of {tried} slips:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the file contains, the result is a configuration or a report, never a panic, and never shows the
    /// secret.
    #[test]
    fn no_file_makes_the_reader_panic(cuts in proptest::collection::vec((0_usize..400, any::<char>(), 0_u8..3), 1..6)) {
        let work_dir = WorkDir::new();
        let mut text: Vec<char> = WHOLE.replace("token_file = \"gitter.token\"", &format!("token = \"{CANARY}\"")).chars().collect();
        for (at, payload, how) in cuts {
            if text.is_empty() {
                break;
            }
            let at = at % text.len();
            match how {
                0 => { text.remove(at); }
                1 => text.insert(at, payload),
                _ => text.truncate(at.max(1)),
            }
        }
        work_dir.put("config.toml", text.into_iter().collect::<String>(), 0o600);
        if let Err(report) = Config::load(&work_dir.path("config.toml")) {
            prop_assert!(!report.diagnostics.is_empty());
            let shown = report.to_string();
            prop_assert!(!shown.contains(CANARY), "{}", shown);
        }
    }
}

/// A store with a portal that people added.
async fn store_with_portal(work_dir: &WorkDir, silo: &str, encrypted: bool) {
    use footbridge_store::{Batch, Flag, Millis, Place, PortalSource, PortalSpec, Store, StoreKey};
    let key = StoreKey::read_or_create(&work_dir.path("footbridge.key")).unwrap();
    let store = Store::open(&work_dir.path("data"), &key).await.unwrap();
    let spec = PortalSpec {
        room: "#made:example.org".to_owned(),
        silo: silo.to_owned(),
        channel: "org/made".to_owned(),
    };
    let room = Place::room("!made:example.org");
    let channel = Place::new(silo, "5f");
    store
        .open_portal_of(PortalSource::Chat, &spec, &room, &channel, Millis(1))
        .await
        .unwrap();
    if encrypted {
        let batch = Batch {
            flags: vec![(room, Flag::EverEncrypted)],
            ..Batch::default()
        };
        store.accept(batch, Millis(2)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_a_portal_without_consent_is_off_and_the_report_names_the_command() {
    let work_dir = WorkDir::with(WHOLE);
    store_with_portal(&work_dir, "gitter", true).await;
    work_dir.golden("B29-no-consent", &["check", "--offline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_a_portal_whose_silo_is_missing_is_named_and_does_not_affect_the_others() {
    let work_dir = WorkDir::with(WHOLE);
    store_with_portal(&work_dir, "zulip", false).await;
    work_dir.golden("B30-silo-gone", &["check", "--offline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_a_portal_whose_room_is_closed_is_named_and_is_no_fault_of_the_others() {
    use footbridge_store::{LaneId, Millis, Side, Store, StoreKey};
    let work_dir = WorkDir::with(WHOLE);
    store_with_portal(&work_dir, "gitter", false).await;
    {
        let key = StoreKey::read(&work_dir.path("footbridge.key")).unwrap();
        let store = Store::open(&work_dir.path("data"), &key).await.unwrap();
        let lane = LaneId {
            portal: store.portals().await.unwrap()[0].id,
            toward: Side::Matrix,
        };
        store.close_lane(lane, "banned", Millis(3)).await.unwrap();
    }
    work_dir.golden("B30-room-gone", &["check", "--offline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b19_the_running_bridge_holds_the_store_and_a_portal_is_made_in_the_chat_instead() {
    use footbridge_store::{Store, StoreKey};
    let work_dir = WorkDir::with(&format!("{WHOLE}\n[admin]\nusers = [\"example.org\"]\n"));
    let key = StoreKey::read_or_create(&work_dir.path("footbridge.key")).unwrap();
    let _held = Store::open(&work_dir.path("data"), &key).await.unwrap();
    let add = ["portal", "add", "#made:example.org", "gitter", "org/made"];
    work_dir.golden("B19-portal-while-running", &add);
    // A request that would fail without a running bridge too is refused at once.
    for (room, why) in [
        ("#room:example.org", "is in the configuration"),
        (
            "#none:example.org",
            "nothing is linked to #none:example.org",
        ),
    ] {
        let output = work_dir.run(&["portal", "remove", room]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(why), "{told}");
    }
    // Where nobody may add a portal in chat, the message does not suggest that.
    work_dir.put("config.toml", WHOLE, 0o600);
    let told = work_dir.run(&add);
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(
        !told.contains("!bridge") && told.contains("help: stop the bridge"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_lists_and_removes_portals_and_points_at_what_is_wrong() {
    let work_dir = WorkDir::with(WHOLE);
    store_with_portal(&work_dir, "gitter", true).await;
    let said = |arguments: &[&str]| {
        let output = work_dir.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let made = ["portal", "add", "#made:example.org", "gitter", "org/made"];
    assert!(said(&["portal", "list"]).contains("waiting for consent"));
    // The operator consents by naming the portal here.
    assert!(said(&made).contains("Consent recorded"));
    assert!(!said(&["portal", "list"]).contains("waiting for consent"));
    assert!(said(&made).contains("added already"));
    assert!(said(&["portal", "add", "#more:example.org", "gitter", "org/more"]).contains("Added"));
    let list = said(&["portal", "list"]);
    for part in [
        "#made:example.org",
        "#more:example.org",
        "#room:example.org",
        "never opened yet",
    ] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(said(&["portal", "remove", "#made:example.org"]).contains("no longer linked"));
    assert!(said(&["portal", "remove", "#more:example.org"]).contains("no longer linked"));
    assert!(!said(&["portal", "list"]).contains("#made:example.org"));
    work_dir.golden(
        "B03-portal-nothing",
        &["portal", "remove", "#made:example.org"],
    );
    let wrong = ["portal", "add", "made", "giter", "org/made"];
    work_dir.golden("B03-portal-add", &wrong);
}
