//! What can go wrong in the store. A missing row is never an error.

use std::path::PathBuf;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SQLite` reported an error.
    #[error("the store cannot {operation}: {source}")]
    Sqlite {
        /// The operation, e.g. `accept a batch`.
        operation: &'static str,
        /// `SQLite`'s error.
        source: rusqlite::Error,
    },
    /// A file or directory of the store cannot be made, read or locked.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds the directory.
    #[error("another Footbridge (process {pid}, since {since}) uses {path}", path = path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The holder's process id, or `unknown`.
        pid: String,
        /// When the holder started, or `unknown`.
        since: String,
    },
    /// The key does not open what is stored.
    #[error("cannot unlock the store: wrong key")]
    WrongKey,
    /// The file was written by a newer program.
    #[error("the store has schema {found}; this version supports up to {known}")]
    SchemaTooNew {
        /// The file's schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A row that cannot be right.
    #[error("damaged row {row} in table {table}")]
    CorruptRow {
        /// The table.
        table: &'static str,
        /// Its row.
        row: i64,
    },
    /// The file is not a database, or damaged.
    #[error("{path} is damaged", path = path.display())]
    CorruptFile {
        /// The file.
        path: PathBuf,
    },
    /// The database is missing or empty, although other data beside it is still there.
    #[error("{path} is missing although other data of this store exists", path = path.display())]
    DatabaseMissing {
        /// The database.
        path: PathBuf,
    },
    /// A file that is no key file, or that others may read.
    #[error("{path}: {reason}", path = path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and how to repair it.
        reason: String,
    },
}
