//! The open file: one connection that writes, on blocking threads, with every promise of durability switched
//! on and read back; and a second one, read-only, for looking on from another process.

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
    Error, directory, hindrance,
    migrate::{self, Found},
    seal::{Seal, StoreKey},
};

/// How long a statement waits for another process to let go of the file.
const BUSY: Duration = Duration::from_secs(3);
/// Beyond this size the write-ahead log is truncated even while debts are open.
const LOG_LIMIT: u64 = 4 << 20;
/// While messages flow, erased letters leave the log at most this often.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// A database has one page of at least 512 bytes.
const SMALLEST: u64 = 511;

/// What can go wrong inside a transaction; it becomes an [`Error`] when it is known what we were doing.
#[derive(Debug)]
pub(crate) enum Fault {
    Sqlite(rusqlite::Error),
    Corrupt { table: &'static str, row: i64 },
    Unsealable,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What a piece of work may touch.
pub(crate) struct Desk<'a> {
    pub sql: &'a Connection,
    pub seal: &'a Seal,
    erased: &'a cell::Cell<bool>,
}

impl Desk<'_> {
    /// Says that sealed letters were taken out, so that the log must be truncated soon.
    pub fn erased(&self) {
        self.erased.set(true);
    }
}

/// The file, its one writer, and what is needed to seal. The fields are dropped in this order: the lock last.
pub(crate) struct Database {
    writer: Mutex<Writer>,
    seal: Seal,
    pub directory: PathBuf,
    path: PathBuf,
    pub state: hindrance::State,
    _lock: directory::Lock,
}

struct Writer {
    connection: Connection,
    /// Whether letters that were erased may still stand in the log.
    erased: bool,
    tidied: Option<Instant>,
}

impl Database {
    /// Locks the directory, looks at the file without touching it, and only then opens it for writing.
    pub fn open(directory: &Path, key: &StoreKey) -> Result<Self, Error> {
        directory::secure(directory)?;
        let lock = directory::lock(directory)?;
        let path = directory::database_path(directory);
        let seal = Seal::new(key);
        // A new store has a directory to itself.
        let is_lived_in = directory::is_lived_in(directory)?;
        match directory::size(&path) {
            0 if is_lived_in => return Err(Error::Lost { path }),
            // SQLite takes so little for an empty file, and would write over it.
            1..=SMALLEST => return Err(Error::Damaged { path }),
            _ => {}
        }
        directory::secure_file(&path)?;
        let found = {
            let connection = open_read_only(&path)?;
            let found = migrate::inspect(&connection, &path)?;
            match found {
                Found::Store(_) => {
                    migrate::verify(&connection, &path)?;
                    migrate::prove(&connection, &seal, &path)?;
                }
                Found::Empty if is_lived_in => return Err(Error::Lost { path }),
                Found::Empty => {}
            }
            found
        };
        let fault = |doing| {
            let path = path.clone();
            move |fault| explain(&path, doing, fault)
        };
        let mut connection = open_writing(&path).map_err(fault("open its file"))?;
        let from = match found {
            Found::Empty => 0,
            Found::Store(schema) => schema,
        };
        migrate::migrate(&mut connection, &seal, from)
            .map_err(fault("bring its schema up to date"))?;
        Ok(Self {
            writer: Mutex::new(Writer {
                connection,
                // A crash may have left erased letters in the log.
                erased: true,
                tidied: None,
            }),
            seal,
            directory: directory.to_owned(),
            path,
            state: hindrance::State::default(),
            _lock: lock,
        })
    }

    /// Runs `work` as one transaction that writes: all of it is on the disk when this returns, or none.
    pub fn transaction<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Desk<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let mut writer = self.writer();
        let erased = cell::Cell::new(false);
        let done = writer
            .transaction(&self.seal, &erased, work)
            .map_err(|fault| explain(&self.path, doing, fault))?;
        writer.erased |= erased.get();
        writer.tidy(&self.path);
        Ok(done)
    }

    /// Runs `work`, which only reads, on one state of the file.
    pub fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Desk<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let mut writer = self.writer();
        let found = work(&Desk {
            sql: &writer.connection,
            seal: &self.seal,
            erased: &cell::Cell::new(false),
        })
        .map_err(|fault| explain(&self.path, doing, fault))?;
        writer.tidy(&self.path);
        Ok(found)
    }

    /// Moves the log into the file and truncates it.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.writer()
            .truncate_log()
            .map_err(|source| explain(&self.path, "truncate its log", source.into()))
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
        work: impl FnOnce(&Desk<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&Desk {
            sql: &transaction,
            seal,
            erased,
        })?;
        transaction.commit()?;
        Ok(done)
    }

    /// Truncates the log when erased letters may stand in it. What was asked for is done by then, so a failure
    /// is no failure of it: it is tried again with a later call.
    fn tidy(&mut self, path: &Path) {
        if !self.erased {
            return;
        }
        let due = self.tidied.is_none_or(|then| then.elapsed() >= TIDY_EVERY);
        if !due && log_size(path) < LOG_LIMIT {
            return;
        }
        self.tidied = Some(Instant::now());
        // Somebody who reads must not hold up the messages.
        let tidied = self
            .connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| self.truncate_log());
        if let Err(error) = tidied {
            tracing::debug!(%error, "The log could not be truncated yet");
        }
        if let Err(error) = self.connection.busy_timeout(BUSY) {
            tracing::warn!(%error, "The busy timeout could not be set again");
        }
    }

    fn truncate_log(&mut self) -> rusqlite::Result<()> {
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

fn log_size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).map_or(0, |found| found.len())
}

/// Runs database work on a thread that may block.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Sqlite {
                doing: "work while the process stops",
                source: rusqlite::Error::SqliteFailure(ffi::Error::new(SQLITE_INTERRUPT), None),
            }),
        },
    }
}

/// Opens the file so that nothing can be written through this connection.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| connection.busy_timeout(BUSY).map(|()| connection))
        .map_err(|source| explain(path, "open its file for reading", source.into()))
}

/// Opens a database that is not ours as it is, and makes none where there is none.
pub(crate) fn open_foreign(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn open_writing(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    demand(&connection, "journal_mode", "wal")?;
    // FULL: a commit is on the disk before anybody is told "received".
    demand(&connection, "synchronous", "2")?;
    demand(&connection, "secure_delete", "1")?;
    demand(&connection, "foreign_keys", "1")?;
    demand(&connection, "busy_timeout", &BUSY.as_millis().to_string())?;
    Ok(connection)
}

/// Switches something on and makes sure that it is.
fn demand(connection: &Connection, pragma: &str, value: &str) -> Result<(), Fault> {
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
    Err(Fault::Sqlite(rusqlite::Error::SqliteFailure(
        ffi::Error::new(SQLITE_MISUSE),
        Some(format!("{pragma} is {found}, but must be {value}")),
    )))
}

/// The error for somebody outside.
pub(crate) fn explain(path: &Path, doing: &'static str, fault: Fault) -> Error {
    match fault {
        Fault::Corrupt { table, row } => Error::Corrupt { table, row },
        Fault::Unsealable => Error::Io {
            path: path.to_owned(),
            source: std::io::Error::other("the system gives no random numbers"),
        },
        Fault::Sqlite(source) => match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::Damaged {
                path: path.to_owned(),
            },
            _ => Error::Sqlite { doing, source },
        },
    }
}
