//! Brings a database to the present schema, one numbered step at a time, each in its own transaction.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::{
    Error,
    database::{Fault, explain},
    seal::{Cell, Seal},
};

/// The steps; the schema's number is how many of them were taken.
const STEPS: [&str; 31] = [
    include_str!("../migrations/001_init.sql"),
    include_str!("../migrations/002_bundles.sql"),
    include_str!("../migrations/003_parked.sql"),
    include_str!("../migrations/004_notices.sql"),
    include_str!("../migrations/005_writers.sql"),
    include_str!("../migrations/006_edits.sql"),
    include_str!("../migrations/007_trust.sql"),
    include_str!("../migrations/008_retired.sql"),
    include_str!("../migrations/009_control.sql"),
    include_str!("../migrations/010_reactions.sql"),
    include_str!("../migrations/011_pictures.sql"),
    include_str!("../migrations/012_offers.sql"),
    include_str!("../migrations/013_paths.sql"),
    include_str!("../migrations/014_unlinked.sql"),
    include_str!("../migrations/015_begun.sql"),
    include_str!("../migrations/016_rivals.sql"),
    include_str!("../migrations/017_identities.sql"),
    include_str!("../migrations/018_said.sql"),
    include_str!("../migrations/019_paths_before.sql"),
    include_str!("../migrations/020_told_here.sql"),
    include_str!("../migrations/021_openings.sql"),
    include_str!("../migrations/022_changes.sql"),
    include_str!("../migrations/023_edits.sql"),
    include_str!("../migrations/024_emptied.sql"),
    include_str!("../migrations/025_edits_of.sql"),
    include_str!("../migrations/026_refused_invites.sql"),
    include_str!("../migrations/027_taken_back.sql"),
    include_str!("../migrations/028_along.sql"),
    include_str!("../migrations/029_kept.sql"),
    include_str!("../migrations/030_crossed.sql"),
    include_str!("../migrations/031_rewritten.sql"),
];

/// Marks the file as ours: `FtBr`.
const APPLICATION: i64 = 0x4674_4272;

/// What only the right key opens.
const CHECK: Cell = Cell {
    table: "meta",
    column: "value",
    row: 1,
};
const CHECK_NAME: &str = "key_check";
const CHECK_LETTER: &[u8] = b"footbridge";

/// What a file turns out to be before anything in it is changed.
pub(crate) enum Found {
    /// Nothing written yet.
    Empty,
    /// A store of ours with this schema.
    Store(usize),
}

/// Looks at a file without changing it: is it ours, whole, and not from the future?
pub(crate) fn inspect(connection: &Connection, path: &Path) -> Result<Found, Error> {
    let (version, application, tables) =
        marks(connection).map_err(|source| explain(path, "read its schema", source.into()))?;
    let damaged = || Error::Damaged {
        path: path.to_owned(),
    };
    if version == 0 && application == 0 && tables == 0 {
        return Ok(Found::Empty);
    }
    if application != APPLICATION {
        return Err(damaged());
    }
    match usize::try_from(version) {
        Ok(known) if (1..=STEPS.len()).contains(&known) => Ok(Found::Store(known)),
        Ok(0) | Err(_) => Err(damaged()),
        Ok(_) => Err(Error::TooNew {
            found: version,
            known: i64::try_from(STEPS.len()).unwrap_or(i64::MAX),
        }),
    }
}

fn marks(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
    connection.query_row(
        "SELECT (SELECT user_version FROM pragma_user_version),
                (SELECT application_id FROM pragma_application_id),
                (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

/// Finds torn or overwritten pages before anything is built on them.
pub(crate) fn verify(connection: &Connection, path: &Path) -> Result<(), Error> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| explain(path, "check its pages", source.into()))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Error::Damaged {
        path: path.to_owned(),
    })
}

/// Proves that the key is the one this store was sealed with.
pub(crate) fn prove(connection: &Connection, seal: &Seal, path: &Path) -> Result<(), Error> {
    let sealed: Option<Vec<u8>> = connection
        .query_row(
            "SELECT value FROM meta WHERE name = ?1",
            [CHECK_NAME],
            |row| row.get(0),
        )
        .optional()
        .map_err(|source| explain(path, "read its key check", source.into()))?;
    let sealed = sealed.ok_or_else(|| Error::Damaged {
        path: path.to_owned(),
    })?;
    match seal.open(CHECK, &sealed) {
        Ok(letter) if letter == CHECK_LETTER => Ok(()),
        _ => Err(Error::WrongKey),
    }
}

/// Takes the steps that are missing.
pub(crate) fn migrate(connection: &mut Connection, seal: &Seal, from: usize) -> Result<(), Fault> {
    for (number, step) in STEPS.iter().enumerate().skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        if number == 0 {
            transaction.execute(
                "INSERT INTO meta (name, value) VALUES (?1, ?2)",
                params![CHECK_NAME, seal.seal(CHECK, CHECK_LETTER)?],
            )?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
        }
        transaction.pragma_update(
            None,
            "user_version",
            i64::try_from(number + 1).unwrap_or(i64::MAX),
        )?;
        transaction.commit()?;
        tracing::debug!(schema = number + 1, "Took a step of the schema");
    }
    // A store that was only just made has no old one.
    if (1..STEPS.len()).contains(&from) {
        tracing::info!(from, to = STEPS.len(), "The store has a new schema");
    }
    Ok(())
}
