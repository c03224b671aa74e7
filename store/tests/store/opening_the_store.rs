//! Opening the store: the lock, the key, the modes of files, and files that are no store.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use footbridge_store::{Error, Snapshot, Store, StoreKey};

use crate::support::{Fixture, data, key, open, payload, to_silo};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The process that holds the lock writes to it, and every reader rebuilds the shared index of the log.
        .filter(|path| !path.ends_with("lock") && !path.to_string_lossy().ends_with("-shm"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_second_store_in_the_same_directory_is_refused_and_names_the_holder() {
    let fixture = Fixture::new().await;
    let refused = Store::open(&fixture.data(), &key(fixture.home.path())).await;
    let Err(Error::Locked { pid, since, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(pid, std::process::id().to_string());
    let since: jiff::Timestamp = since.parse().unwrap();
    assert_eq!(since.subsec_nanosecond(), 0);
    let fixture = fixture.restart().await;
    assert_eq!(fixture.store.portals().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_clone_keeps_the_lock_until_it_is_dropped() {
    let fixture = Fixture::new().await;
    let clone = fixture.store.clone();
    let Fixture { home, store, .. } = fixture;
    drop(store);
    assert!(matches!(
        Store::open(&data(home.path()), &key(home.path())).await,
        Err(Error::Locked { .. })
    ));
    drop(clone);
    open(home.path()).await;
}

#[tokio::test]
async fn everything_in_the_directory_is_for_its_owner_alone() {
    let fixture = Fixture::new().await;
    assert_eq!(mode(&fixture.data()), 0o700);
    for (path, _) in files(&fixture.data()) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&fixture.data().join("lock")), 0o600);
    assert_eq!(mode(&fixture.home.path().join("footbridge.key")), 0o600);
}

#[tokio::test]
async fn a_directory_and_a_database_open_to_others_are_closed() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(data(home.path())).unwrap();
    fs::write(data(home.path()).join("footbridge.db"), "").unwrap();
    fs::set_permissions(data(home.path()), Permissions::from_mode(0o755)).unwrap();
    let _store = open(home.path()).await;
    assert_eq!(mode(&data(home.path())), 0o700);
    assert_eq!(mode(&data(home.path()).join("footbridge.db")), 0o600);
}

#[tokio::test]
async fn a_wrong_key_opens_nothing_and_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let log = fixture.data().join("footbridge.db-wal");
    let torn_off = fs::read(&log).unwrap();
    let lane = to_silo(&fixture.a);
    let Fixture { home, store, .. } = fixture;
    drop(store);
    // As after a crash: the write-ahead log is still beside the file.
    fs::write(&log, torn_off).unwrap();
    let before = files(&data(home.path()));
    let wrong = StoreKey::read_or_create(&home.path().join("another.key")).unwrap();
    let refused = Store::open(&data(home.path()), &wrong).await;
    assert!(matches!(refused, Err(Error::WrongKey)), "{refused:?}");
    assert_eq!(files(&data(home.path())), before);
    let store = open(home.path()).await;
    let counters = store.lane_counters().await.unwrap();
    let pending = counters.iter().find(|counters| counters.pending > 0);
    assert_eq!(pending.map(|counters| counters.lane), Some(lane));
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_left_alone() {
    let fixture = Fixture::new().await;
    fixture
        .sql()
        .pragma_update(None, "user_version", 1_000)
        .unwrap();
    let Fixture { home, store, .. } = fixture;
    drop(store);
    let before = files(&data(home.path()));
    let refused = Store::open(&data(home.path()), &key(home.path())).await;
    assert!(
        matches!(
            refused,
            Err(Error::SchemaTooNew {
                found: 1_000,
                known: 1..
            })
        ),
        "{refused:?}"
    );
    let peeked = Store::snapshot(&data(home.path())).await;
    assert!(
        matches!(peeked, Err(Error::SchemaTooNew { .. })),
        "{peeked:?}"
    );
    assert_eq!(files(&data(home.path())), before);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_reported_as_damaged_and_not_changed() {
    let foreign = |path: &Path| {
        let sql = rusqlite::Connection::open(path).unwrap();
        sql.execute_batch("CREATE TABLE recipes (name TEXT)")
            .unwrap();
    };
    let text = |path: &Path| fs::write(path, "dear diary\n".repeat(1_000)).unwrap();
    for spoil in [&foreign as &dyn Fn(&Path), &text] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(data(home.path())).unwrap();
        spoil(&data(home.path()).join("footbridge.db"));
        let before = files(&data(home.path()));
        let refused = Store::open(&data(home.path()), &key(home.path())).await;
        assert!(
            matches!(refused, Err(Error::CorruptFile { .. })),
            "{refused:?}"
        );
        assert_eq!(files(&data(home.path())), before);
    }
}

#[tokio::test]
async fn f09_a_truncated_empty_or_missing_database_is_refused_and_not_changed() {
    let fixture = Fixture::new().await;
    let arrivals = (0..50).map(|n| payload(&fixture.room, &format!("${n}")));
    fixture.accept(arrivals.collect()).await;
    fixture.store.checkpoint().await.unwrap();
    let Fixture { home, store, .. } = fixture;
    drop(store);
    // The directory that the SDK makes.
    fs::create_dir(data(home.path()).join("devices")).unwrap();
    let path = data(home.path()).join("footbridge.db");
    let whole = fs::read(&path).unwrap();
    let half = whole.len() / 2;
    for length in [1, 50, 99, 100, 511, 4096, 5000, half, whole.len() - 4096] {
        fs::write(&path, &whole[..length]).unwrap();
        let refused = Store::open(&data(home.path()), &key(home.path())).await;
        assert!(
            matches!(refused, Err(Error::CorruptFile { .. })),
            "{length}: {refused:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), whole[..length]);
    }
    fs::write(&path, "").unwrap();
    let refused = Store::open(&data(home.path()), &key(home.path())).await;
    assert!(
        matches!(refused, Err(Error::DatabaseMissing { .. })),
        "{refused:?}"
    );
    fs::remove_file(&path).unwrap();
    let refused = Store::open(&data(home.path()), &key(home.path())).await;
    assert!(
        matches!(refused, Err(Error::DatabaseMissing { .. })),
        "{refused:?}"
    );
    assert!(!path.exists());
    fs::write(&path, &whole).unwrap();
    open(home.path()).await;
}

#[tokio::test]
async fn an_overwritten_page_is_found_before_anything_is_built_on_it() {
    let fixture = Fixture::new().await;
    let arrivals = (0..200).map(|n| payload(&fixture.room, &format!("${n}")));
    fixture.accept(arrivals.collect()).await;
    fixture.store.checkpoint().await.unwrap();
    let Fixture { home, store, .. } = fixture;
    drop(store);
    let path = data(home.path()).join("footbridge.db");
    let mut bytes = fs::read(&path).unwrap();
    // Not the page of the key check: opening reads that one in any case.
    let last = bytes.len() - 4096;
    for byte in &mut bytes[last..] {
        *byte ^= 0x5a;
    }
    fs::write(&path, bytes).unwrap();
    let refused = Store::open(&data(home.path()), &key(home.path())).await;
    assert!(
        matches!(refused, Err(Error::CorruptFile { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn somebody_may_look_on_while_the_store_is_open_and_after_it_was_closed() {
    let fixture = Fixture::new().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let sees_all = |snapshot: &Snapshot, tallies: &[_]| {
        assert_eq!(snapshot.portals, [fixture.a.clone(), fixture.b.clone()]);
        assert_eq!(snapshot.all_counters, tallies);
        assert_eq!(snapshot.account, None);
    };
    let tallies = fixture.store.lane_counters().await.unwrap();
    assert_eq!(
        tallies.iter().map(|counters| counters.pending).sum::<u64>(),
        2
    );
    sees_all(&Store::snapshot(&fixture.data()).await.unwrap(), &tallies);
    let Fixture { home, store, .. } = fixture;
    drop(store);
    let snapshot = Store::snapshot(&data(home.path())).await.unwrap();
    assert_eq!(snapshot.portals, [fixture.a, fixture.b]);
    assert_eq!(snapshot.all_counters, tallies);
}

#[tokio::test]
async fn looking_at_a_directory_without_a_store_sees_an_empty_one_and_makes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let snapshot = Store::snapshot(&data(home.path())).await.unwrap();
    assert!(
        snapshot.portals.is_empty()
            && snapshot.all_counters.is_empty()
            && snapshot.account.is_none()
    );
    assert!(!data(home.path()).exists());
}

#[test]
fn a_key_is_made_once_and_read_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("footbridge.key");
    let made = StoreKey::read_or_create(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!((text.len(), text.ends_with('\n')), (65, true));
    for read in [
        StoreKey::read_or_create(&path).unwrap(),
        StoreKey::read(&path).unwrap(),
    ] {
        assert_eq!(read.derive("one purpose"), made.derive("one purpose"));
    }
    assert_ne!(made.derive("one purpose"), made.derive("another"));
    assert_eq!(format!("{made:?}"), "StoreKey(..)");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_known_key_derives_known_keys() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("footbridge.key");
    fs::write(&path, format!("{}\n", "0b".repeat(32))).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    // The output of HKDF-SHA256 (RFC 5869, no salt) for this key and purpose.
    let derived = StoreKey::read(&path).unwrap().derive("sdk");
    let expected = "b15e90b6a7fffc207993773b05d399a156f6b2064a9321328b8721fecc105291";
    for (digits, byte) in expected.as_bytes().chunks_exact(2).zip(derived) {
        assert_eq!(digits, format!("{byte:02x}").as_bytes());
    }
}

#[test]
fn an_unsafe_or_invalid_key_file_is_refused_with_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let good = "ab".repeat(32);
    let link = home.path().join("link");
    symlink(write("good", &good, 0o600), &link).unwrap();
    let cases = [
        (write("open", &good, 0o640), "chmod 600"),
        (write("world", &good, 0o604), "chmod 600"),
        (write("short", &good[..62], 0o600), "64 hexadecimal digits"),
        (
            write("long", &format!("{good}ab"), 0o600),
            "64 hexadecimal digits",
        ),
        (
            write("words", &"zz".repeat(32), 0o600),
            "64 hexadecimal digits",
        ),
        (write("empty", "", 0o600), "64 hexadecimal digits"),
        (link, "regular file"),
        (home.path().to_owned(), "regular file"),
    ];
    for (path, cure) in cases {
        for refused in [StoreKey::read(&path), StoreKey::read_or_create(&path)] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(cure), "{text}");
            assert!(!text.contains("abab"), "{text}");
        }
    }
    assert!(StoreKey::read(&write("bare", &good, 0o400)).is_ok());
    // With a byte order mark and CRLF, as editors of other systems write it.
    let marked = format!("\u{feff}{good}\r\n");
    assert!(StoreKey::read(&write("marked", &marked, 0o400)).is_ok());
    let missing = StoreKey::read(&home.path().join("missing"));
    assert!(matches!(missing, Err(Error::Io { .. })));
}

#[test]
fn a_key_file_that_cannot_be_written_completely_is_not_left_behind() {
    const NAME: &str =
        "opening_the_store::a_key_file_that_cannot_be_written_completely_is_not_left_behind";
    const CHILD: &str = "FOOTBRIDGE_TEST_KEY_FILE";
    if let Some(path) = std::env::var_os(CHILD) {
        assert!(StoreKey::read_or_create(Path::new(&path)).is_err());
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("footbridge.key");
    // A process that may write no byte into a file.
    let limited = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 0; exec \"$0\" --exact \"$1\"",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(CHILD, &path)
        .output()
        .unwrap();
    assert!(limited.status.success(), "{limited:?}");
    assert!(!path.exists());
    StoreKey::read_or_create(&path).unwrap();
}
