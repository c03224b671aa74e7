//! The data directory: only its owner may enter it (0700), and one process at a time holds its lock.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, Unit};

use crate::Error;

/// The name of the lock file.
const LOCK: &str = "lock";
/// The name of the database.
const DATABASE: &str = "footbridge.db";

/// The database in a data directory.
pub(crate) fn database_path(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}

/// The user this process acts as, if the system reports it.
pub(crate) fn own_uid() -> Option<u32> {
    std::fs::metadata("/proc/self")
        .ok()
        .map(|process| process.uid())
}

/// Creates the directory, or makes sure that only its owner can enter it.
pub(crate) fn secure(directory: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io {
        path: directory.to_owned(),
        source,
    };
    if !directory.exists() {
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    let found = std::fs::metadata(directory).map_err(failed)?;
    if !found.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    restrict_permissions(directory, &found, 0o700)
}

/// Creates an empty file of mode 0600 when there is none, and restricts one that others may read.
pub(crate) fn secure_file(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    restrict_permissions(path, &file.metadata().map_err(failed)?, 0o600)?;
    Ok(file)
}

/// Whether there is a directory in this one.
pub(crate) fn has_subdirectories(directory: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Io {
        path: directory.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        if entry
            .and_then(|entry| entry.file_type())
            .map_err(failed)?
            .is_dir()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The size of a file; 0 where there is none.
pub(crate) fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn restrict_permissions(path: &Path, found: &std::fs::Metadata, mode: u32) -> Result<(), Error> {
    let shared = found.mode() & 0o077;
    if shared == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| Error::Io {
        path: path.to_owned(),
        source: std::io::Error::new(
            error.kind(),
            format!("other users can read it, and its mode cannot be changed ({error}); run: chmod go-rwx"),
        ),
    })?;
    tracing::warn!(
        path = %path.display(),
        "Other users could read this path; its permissions were restricted"
    );
    Ok(())
}

/// The lock of a directory, held until this is dropped.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a program that is being started at this moment has a copy of the open file until it
        // runs, and with it the lock.
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "The data directory could not be unlocked; closing the file unlocks it");
        }
    }
}

/// Takes the lock of the directory.
pub(crate) fn lock(directory: &Path) -> Result<Lock, Error> {
    let path = directory.join(LOCK);
    let mut file = secure_file(&path)?;
    let failed = |source| Error::Io {
        path: path.clone(),
        source,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(locked(directory, &mut file)),
        Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    write_holder(&mut file).map_err(failed)?;
    Ok(Lock(file))
}

/// Writes who holds the lock and since when. The time is the file's own, because the store reads no clock.
fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())?;
    let since = Timestamp::try_from(file.metadata()?.modified()?)
        .and_then(|moment| moment.round(Unit::Second))
        .map_err(std::io::Error::other)?;
    writeln!(file, "{since}")
}

fn locked(directory: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // Who holds it is extra information; the error is that it is held.
    if file.take(128).read_to_string(&mut text).is_err() {
        text.clear();
    }
    let mut lines = text.lines().map(str::to_owned);
    let mut line = || lines.next().unwrap_or_else(|| "unknown".to_owned());
    Error::Locked {
        path: directory.to_owned(),
        pid: line(),
        since: line(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_even_where_a_program_that_starts_has_a_copy_of_its_file() {
        let home = tempfile::tempdir().unwrap();
        let held = lock(home.path()).unwrap();
        let inherited = held.0.try_clone().unwrap();
        assert!(matches!(lock(home.path()), Err(Error::Locked { .. })));
        drop(held);
        lock(home.path()).unwrap();
        drop(inherited);
    }
}
