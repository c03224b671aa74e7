//! The open file: one connection that writes, on blocking threads, with every durability setting switched on and read back; and a
//! read-only one for other processes.

use std::{
    cell,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, TransactionBehavior,
    ffi::{self, SQLITE_INTERRUPT, SQLITE_MISUSE},
};

use crate::{
    Error, directory,
    migrate::{self, FileState},
    seal::{Seal, StoreKey},
    transient_error,
};

/// How long a statement waits for another process to release the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);
/// Beyond this size the write-ahead log is truncated even shortly after the last time.
const WAL_LIMIT: u64 = 4 << 20;
/// While messages flow, erased payloads leave the log at most this often.
const TRUNCATE_EVERY: Duration = Duration::from_secs(1);

/// A database has one page of at least 512 bytes.
const MIN_FILE_SIZE: u64 = 511;

/// What can go wrong inside a transaction. It becomes an [`Error`] where the operation is known.
#[derive(Debug)]
pub(crate) enum TxError {
    Sqlite(rusqlite::Error),
    CorruptRow { table: &'static str, row: i64 },
    NoRandomness,
}

impl From<rusqlite::Error> for TxError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What a piece of work may use.
pub(crate) struct Tx<'a> {
    pub sql: &'a Connection,
    pub seal: &'a Seal,
    erased: &'a cell::Cell<bool>,
}

impl Tx<'_> {
    /// Says that sealed payloads were erased, so that the log must be truncated soon.
    pub fn mark_erased(&self) {
        self.erased.set(true);
    }
}

/// The file, its one writer, and what is needed to seal. The fields are dropped in this order: the lock last.
pub(crate) struct Database {
    writer: Mutex<Writer>,
    seal: Seal,
    pub directory: PathBuf,
    path: PathBuf,
    pub state: transient_error::State,
    _lock: directory::Lock,
}

struct Writer {
    connection: Connection,
    /// Whether erased payloads may still be in the log.
    erased: bool,
    truncated_at: Option<Instant>,
}

impl Database {
    /// Locks the directory, inspects the file without changing it, and only then opens it for writing.
    pub fn open(directory: &Path, key: &StoreKey) -> Result<Self, Error> {
        directory::secure(directory)?;
        let lock = directory::lock(directory)?;
        let path = directory::database_path(directory);
        let seal = Seal::new(key);
        // A new store has a directory to itself.
        let has_subdirectories = directory::has_subdirectories(directory)?;
        match directory::size(&path) {
            0 if has_subdirectories => return Err(Error::DatabaseMissing { path }),
            // SQLite takes a file of this size for an empty one, and would overwrite it.
            1..=MIN_FILE_SIZE => return Err(Error::CorruptFile { path }),
            _ => {}
        }
        directory::secure_file(&path)?;
        let found = {
            let connection = open_read_only(&path)?;
            let found = migrate::inspect(&connection, &path)?;
            match found {
                FileState::Store(_) => {
                    migrate::check_pages(&connection, &path)?;
                    migrate::verify_key(&connection, &seal, &path)?;
                }
                FileState::Empty if has_subdirectories => {
                    return Err(Error::DatabaseMissing { path });
                }
                FileState::Empty => {}
            }
            found
        };
        let error = |operation| {
            let path = path.clone();
            move |error| into_store_error(&path, operation, error)
        };
        let mut connection = open_read_write(&path).map_err(error("open its file"))?;
        let from = match found {
            FileState::Empty => 0,
            FileState::Store(schema) => schema,
        };
        migrate::migrate(&mut connection, &seal, from)
            .map_err(error("bring its schema up to date"))?;
        Ok(Self {
            writer: Mutex::new(Writer {
                connection,
                // A crash may have left erased payloads in the log.
                erased: true,
                truncated_at: None,
            }),
            seal,
            directory: directory.to_owned(),
            path,
            state: transient_error::State::default(),
            _lock: lock,
        })
    }

    /// Runs `work` as one transaction that writes: all of it is on the disk when this returns, or none.
    pub fn transaction<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, TxError>,
    ) -> Result<T, Error> {
        let mut writer = self.writer();
        let erased = cell::Cell::new(false);
        let done = writer
            .transaction(&self.seal, &erased, work)
            .map_err(|error| into_store_error(&self.path, operation, error))?;
        writer.erased |= erased.get();
        writer.truncate_wal_if_due(&self.path);
        Ok(done)
    }

    /// Runs `work`, which only reads, on one state of the file.
    pub fn read<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, TxError>,
    ) -> Result<T, Error> {
        let mut writer = self.writer();
        let found = work(&Tx {
            sql: &writer.connection,
            seal: &self.seal,
            erased: &cell::Cell::new(false),
        })
        .map_err(|error| into_store_error(&self.path, operation, error))?;
        writer.truncate_wal_if_due(&self.path);
        Ok(found)
    }

    /// Moves the log into the file and truncates it.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.writer()
            .truncate_wal()
            .map_err(|source| into_store_error(&self.path, "truncate its log", source.into()))
    }

    // A panic inside a transaction rolls it back, so what a poisoned lock guards is whole.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn transaction<T>(
        &mut self,
        seal: &Seal,
        erased: &cell::Cell<bool>,
        work: impl FnOnce(&Tx<'_>) -> Result<T, TxError>,
    ) -> Result<T, TxError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&Tx {
            sql: &transaction,
            seal,
            erased,
        })?;
        transaction.commit()?;
        Ok(done)
    }

    /// Truncates the log when erased payloads may be in it. The work itself is done by then, so an error here does not fail it: a
    /// later call tries again.
    fn truncate_wal_if_due(&mut self, path: &Path) {
        if !self.erased {
            return;
        }
        let due = self
            .truncated_at
            .is_none_or(|then| then.elapsed() >= TRUNCATE_EVERY);
        if !due && wal_size(path) < WAL_LIMIT {
            return;
        }
        self.truncated_at = Some(Instant::now());
        // A reader must not delay the messages.
        let truncated_at = self
            .connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| self.truncate_wal());
        if let Err(error) = truncated_at {
            tracing::debug!(%error, "The write-ahead log could not be truncated yet");
        }
        if let Err(error) = self.connection.busy_timeout(BUSY_TIMEOUT) {
            tracing::warn!(%error, "The busy timeout could not be restored");
        }
    }

    fn truncate_wal(&mut self) -> rusqlite::Result<()> {
        let busy: i64 =
            self.connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy != 0 {
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_BUSY),
                None,
            ));
        }
        self.erased = false;
        Ok(())
    }
}

fn wal_size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).map_or(0, |found| found.len())
}

/// Runs database work on a thread that may block.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Sqlite {
                operation: "work while the process stops",
                source: rusqlite::Error::SqliteFailure(ffi::Error::new(SQLITE_INTERRUPT), None),
            }),
        },
    }
}

/// Opens the file so that nothing can be written through this connection.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| connection.busy_timeout(BUSY_TIMEOUT).map(|()| connection))
        .map_err(|source| into_store_error(path, "open its file for reading", source.into()))
}

/// Opens a database that is not ours as it is, and makes none where there is none.
pub(crate) fn open_foreign(path: &Path) -> Result<Connection, TxError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn open_read_write(path: &Path) -> Result<Connection, TxError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    set_pragma(&connection, "journal_mode", "wal")?;
    // FULL: a commit is on the disk before the event is acknowledged to anybody.
    set_pragma(&connection, "synchronous", "2")?;
    set_pragma(&connection, "secure_delete", "1")?;
    set_pragma(&connection, "foreign_keys", "1")?;
    set_pragma(
        &connection,
        "busy_timeout",
        &BUSY_TIMEOUT.as_millis().to_string(),
    )?;
    Ok(connection)
}

/// Sets a pragma and makes sure that it is set.
fn set_pragma(connection: &Connection, pragma: &str, value: &str) -> Result<(), TxError> {
    connection.pragma_update(None, pragma, value)?;
    let found = connection.pragma_query_value(None, pragma, |row| {
        row.get_ref(0).map(|value| match value {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        })
    })?;
    if found == value {
        return Ok(());
    }
    Err(TxError::Sqlite(rusqlite::Error::SqliteFailure(
        ffi::Error::new(SQLITE_MISUSE),
        Some(format!("{pragma} is {found}, but must be {value}")),
    )))
}

/// The error for callers outside of the store.
pub(crate) fn into_store_error(path: &Path, operation: &'static str, error: TxError) -> Error {
    match error {
        TxError::CorruptRow { table, row } => Error::CorruptRow { table, row },
        TxError::NoRandomness => Error::Io {
            path: path.to_owned(),
            source: std::io::Error::other("the system provides no random numbers"),
        },
        TxError::Sqlite(source) => match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::CorruptFile {
                path: path.to_owned(),
            },
            _ => Error::Sqlite { operation, source },
        },
    }
}
