//! Looking on: what another process may see of a store in use.

use std::path::Path;

use rusqlite::Connection;

use crate::{
    AccountFace, Error, Hold, Keyless, Millis, Portal, PortalId, PortalSpec, RefusedInvite, Store,
    StoreKey, Tally, accounts,
    database::{Fault, explain, off_thread, open_read_only},
    directory::database_path,
    holds::LACKS_CONSENT,
    invites, keyless,
    migrate::{self, Found},
    portals,
    seal::Seal,
    settle, wishes,
};

/// What `status` may see of a store in use.
#[derive(Debug)]
pub struct Peek {
    /// The portals.
    pub portals: Vec<Portal>,
    /// One row per lane.
    pub tallies: Vec<Tally>,
    /// What holds up which portal.
    pub holds: Vec<(PortalId, Hold)>,
    /// Portals of the command line, by name.
    pub wanted: Vec<PortalSpec>,
    /// Who wrote although no room key of theirs has ever come.
    pub keyless: Vec<Keyless>,
    /// Invites that were refused because no portal named their rooms.
    pub refused: Vec<RefusedInvite>,
    /// Our account, if there is one, with the secrets left out.
    pub account: Option<AccountFace>,
}

impl Store {
    /// Reads the tallies and portals of a store that another process may have open. Takes no lock, needs no
    /// key, writes nothing. A directory without a store is seen as an empty one.
    pub async fn peek(directory: &Path) -> Result<Peek, Error> {
        let path = database_path(directory);
        off_thread(move || look(&path)).await
    }

    /// Proves that the key is that of a store which another process may have open. Writes nothing.
    ///
    /// # Errors
    /// [`Error::WrongKey`] where it is not, and what is wrong with the file. A directory without a store fits every key.
    pub async fn fits(directory: &Path, key: &StoreKey) -> Result<(), Error> {
        let (path, seal) = (database_path(directory), Seal::new(key));
        off_thread(move || {
            if !path.exists() {
                return Ok(());
            }
            let connection = open_read_only(&path)?;
            match migrate::inspect(&connection, &path)? {
                Found::Empty => Ok(()),
                Found::Store(_) => migrate::prove(&connection, &seal, &path),
            }
        })
        .await
    }
}

fn look(path: &Path) -> Result<Peek, Error> {
    let empty = Peek {
        portals: Vec::new(),
        tallies: Vec::new(),
        holds: Vec::new(),
        wanted: Vec::new(),
        keyless: Vec::new(),
        refused: Vec::new(),
        account: None,
    };
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(empty),
        Err(source) => {
            return Err(Error::Io {
                path: path.to_owned(),
                source,
            });
        }
    }
    let mut connection = open_read_only(path)?;
    if let Found::Empty = migrate::inspect(&connection, path)? {
        return Ok(empty);
    }
    let read = |connection: &mut Connection| -> Result<Peek, Fault> {
        // One transaction, so that the numbers belong together.
        let state = connection.transaction()?;
        Ok(Peek {
            portals: portals::all(&state)?,
            // Whoever looks on has no clock of ours.
            tallies: settle::tallies(&state, Millis(i64::MAX))?,
            holds: holds(&state, Millis(i64::MAX))?,
            wanted: wishes::wanted(&state)?,
            keyless: keyless::keyless(&state)?,
            refused: invites::refused(&state)?,
            account: accounts::face(&state)?,
        })
    };
    read(&mut connection).map_err(|fault| explain(path, "look at the state", fault))
}

/// What holds up each portal that is held up. A delay is left out that ended before `now`, and after which something was
/// heard in the room.
pub(crate) fn holds(sql: &Connection, now: Millis) -> Result<Vec<(PortalId, Hold)>, Fault> {
    let mut holds: Vec<(PortalId, Hold)> = sql
        .prepare_cached("SELECT portal_id, reason, since, by_whom FROM hold ORDER BY portal_id")?
        .query_map([], |row| {
            let since = row.get(2)?;
            let hold = match row.get_ref(1)?.as_str()? {
                "upgraded" => Hold::Upgraded { since },
                _ => Hold::Paused {
                    by: row.get(3)?,
                    since,
                },
            };
            Ok((row.get(0)?, hold))
        })?
        .collect::<Result<_, _>>()?;
    for portal in lacking_consent(sql)? {
        holds.push((portal.id, Hold::Consent));
    }
    let delays = sql
        .prepare_cached(
            "SELECT portal_id, effective_at FROM consent WHERE begun = 0 OR effective_at > ?1",
        )?
        .query_map([now], |row| {
            Ok((row.get(0)?, Hold::Delay { until: row.get(1)? }))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    holds.extend(delays);
    Ok(holds)
}

/// The portals whose encrypted room has not agreed.
pub(crate) fn lacking_consent(sql: &Connection) -> Result<Vec<Portal>, Fault> {
    let ids: Vec<PortalId> = sql
        .prepare_cached(&format!("SELECT p.id FROM portal p WHERE {LACKS_CONSENT}"))?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut portals = portals::all(sql)?;
    portals.retain(|portal| ids.contains(&portal.id));
    Ok(portals)
}
