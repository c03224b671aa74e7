//! What can go wrong in the store. "Not there" is never an error.

use std::path::PathBuf;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SQLite` said no.
    #[error("the store cannot {doing}: {source}")]
    Sqlite {
        /// What we were doing, e.g. `accept a batch`.
        doing: &'static str,
        /// Its word.
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
    #[error("the store has schema {found}, this program knows up to {known}")]
    TooNew {
        /// The file's schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A row that cannot be.
    #[error("damaged row {row} in table {table}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// Its row.
        row: i64,
    },
    /// The file is not a database, or damaged.
    #[error("{path} is damaged", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The database is gone or empty, and what stood beside it is still there.
    #[error("{path} is gone, but not what stood beside it", path = path.display())]
    Lost {
        /// The database.
        path: PathBuf,
    },
    /// A key file that is no key, or that others may read.
    #[error("{path}: {reason}", path = path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and how to mend it.
        reason: String,
    },
}
