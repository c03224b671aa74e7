//! Checks of the SDK's databases before the SDK opens them. Where one is missing or empty, the SDK creates a new one,
//! and the bridge would continue without keys or without knowing which rooms are encrypted (F09). And the databases
//! must not hold statistics of the time when they were empty.

use std::{fs::File, io::Read, path::Path};

use super::MatrixError;

/// The databases of an account that has logged in.
const DATABASES: [&str; 2] = ["matrix-sdk-crypto.sqlite3", "matrix-sdk-state.sqlite3"];
/// The header of every `SQLite` database (<https://sqlite.org/fileformat.html>, 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Refuses a directory in which one of the databases is missing or empty. Changes nothing.
pub(super) fn require_databases(directory: &Path) -> Result<(), MatrixError> {
    for name in DATABASES {
        let path = directory.join(name);
        let mut start = [0; 16];
        let read = File::open(&path).and_then(|mut file| file.read_exact(&mut start));
        match read {
            Ok(()) if &start == MAGIC => {}
            Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(footbridge_store::Error::Io { path, source }.into());
            }
            _ => return Err(MatrixError::DatabaseMissing(path)),
        }
    }
    Ok(())
}

/// Removes the row statistics of `SQLite` from the databases. Must be called before the SDK opens them.
///
/// `SqliteStoreConfig` runs `PRAGMA optimize=0x10002` by default (matrix-sdk-sqlite 0.18, `utils.rs`, `optimize`): in a
/// store of one device that saves `1 1` for the table `device`, which `SQLite` scans from then on for each lookup. The
/// stores are opened without it ([`super::client::store_config`]), but older stores still have those statistics.
pub(super) async fn drop_statistics(directory: &Path) -> Result<(), footbridge_store::Error> {
    for name in DATABASES {
        let path = directory.join(name);
        if path.exists() {
            footbridge_store::forget_statistics(&path).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f09_a_missing_an_empty_and_a_foreign_file_are_refused_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        for name in DATABASES {
            std::fs::write(home.path().join(name), [MAGIC.as_slice(), b"more"].concat()).unwrap();
        }
        require_databases(home.path()).unwrap();
        for name in DATABASES {
            let path = home.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            for harmed in [Some(&b""[..]), Some(b"no database, only words"), None] {
                match harmed {
                    Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
                let refused = require_databases(home.path()).unwrap_err();
                assert!(matches!(refused, MatrixError::DatabaseMissing(lost) if lost == path));
                assert_eq!(std::fs::read(&path).ok().as_deref(), harmed);
            }
            std::fs::write(&path, whole).unwrap();
        }
    }
}
