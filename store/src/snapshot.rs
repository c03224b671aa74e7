//! Snapshots: what another process may see of a store in use.

use std::path::Path;

use rusqlite::Connection;

use crate::{
    AccountInfo, Error, LaneCounters, Millis, Portal, PortalHold, PortalId, PortalSpec,
    RefusedInvite, SenderWithoutKeys, Store, StoreKey, accounts, counters,
    database::{TxError, into_store_error, open_read_only, run_blocking},
    directory::database_path,
    holds::LACKS_CONSENT,
    migrate::{self, FileState},
    portal_requests, portals, refused_invites,
    seal::Seal,
    senders_without_keys,
};

/// What `status` shows of a store in use.
#[derive(Debug)]
pub struct Snapshot {
    /// The portals.
    pub portals: Vec<Portal>,
    /// One row per lane.
    pub all_counters: Vec<LaneCounters>,
    /// The holds of portals.
    pub holds: Vec<(PortalId, PortalHold)>,
    /// Portals of the command line, by name.
    pub operator_portals: Vec<PortalSpec>,
    /// Who sent messages although no room key of theirs has ever arrived.
    pub senders_without_keys: Vec<SenderWithoutKeys>,
    /// Invites that were refused because no portal named their rooms.
    pub refused: Vec<RefusedInvite>,
    /// The bridge's account, if there is one, without its secrets.
    pub account: Option<AccountInfo>,
}

impl Store {
    /// Reads the counters and portals of a store that another process may have open. Takes no lock, needs no key, writes nothing.
    /// A directory without a store gives an empty snapshot.
    pub async fn snapshot(directory: &Path) -> Result<Snapshot, Error> {
        let path = database_path(directory);
        run_blocking(move || read_snapshot(&path)).await
    }

    /// Proves that the key is that of a store which another process may have open. Writes nothing.
    ///
    /// # Errors
    /// [`Error::WrongKey`] where it is not, and what is wrong with the file. A directory without a store fits every key.
    pub async fn verify_key(directory: &Path, key: &StoreKey) -> Result<(), Error> {
        let (path, seal) = (database_path(directory), Seal::new(key));
        run_blocking(move || {
            if !path.exists() {
                return Ok(());
            }
            let connection = open_read_only(&path)?;
            match migrate::inspect(&connection, &path)? {
                FileState::Empty => Ok(()),
                FileState::Store(_) => migrate::verify_key(&connection, &seal, &path),
            }
        })
        .await
    }
}

fn read_snapshot(path: &Path) -> Result<Snapshot, Error> {
    let empty = Snapshot {
        portals: Vec::new(),
        all_counters: Vec::new(),
        holds: Vec::new(),
        operator_portals: Vec::new(),
        senders_without_keys: Vec::new(),
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
    if let FileState::Empty = migrate::inspect(&connection, path)? {
        return Ok(empty);
    }
    let read = |connection: &mut Connection| -> Result<Snapshot, TxError> {
        // One transaction, so that the numbers belong together.
        let state = connection.transaction()?;
        Ok(Snapshot {
            portals: portals::all(&state)?,
            // The process that looks on has no clock of the bridge.
            all_counters: counters::lane_counters(&state, Millis(i64::MAX))?,
            holds: holds(&state, Millis(i64::MAX))?,
            operator_portals: portal_requests::operator_portals(&state)?,
            senders_without_keys: senders_without_keys::senders_without_keys(&state)?,
            refused: refused_invites::refused(&state)?,
            account: accounts::relay_info(&state)?,
        })
    };
    read(&mut connection).map_err(|error| into_store_error(path, "look at the state", error))
}

/// The holds of each portal. A delay is left out that ended before `now`, and after which an event was accepted in the room.
pub(crate) fn holds(sql: &Connection, now: Millis) -> Result<Vec<(PortalId, PortalHold)>, TxError> {
    let mut holds: Vec<(PortalId, PortalHold)> = sql
        .prepare_cached(
            "SELECT portal_id, reason, since, held_by FROM portal_hold ORDER BY portal_id",
        )?
        .query_map([], |row| {
            let since = row.get(2)?;
            let hold = match row.get_ref(1)?.as_str()? {
                "upgraded" => PortalHold::Upgraded { since },
                _ => PortalHold::Paused {
                    by: row.get(3)?,
                    since,
                },
            };
            Ok((row.get(0)?, hold))
        })?
        .collect::<Result<_, _>>()?;
    for portal in lacking_consent(sql)? {
        holds.push((portal.id, PortalHold::Consent));
    }
    let delays = sql
        .prepare_cached(
            "SELECT portal_id, effective_at FROM consent WHERE active = 0 OR effective_at > ?1",
        )?
        .query_map([now], |row| {
            Ok((row.get(0)?, PortalHold::Delay { until: row.get(1)? }))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    holds.extend(delays);
    Ok(holds)
}

/// The portals whose encrypted room has not consented.
pub(crate) fn lacking_consent(sql: &Connection) -> Result<Vec<Portal>, TxError> {
    let ids: Vec<PortalId> = sql
        .prepare_cached(&format!("SELECT p.id FROM portal p WHERE {LACKS_CONSENT}"))?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut portals = portals::all(sql)?;
    portals.retain(|portal| ids.contains(&portal.id));
    Ok(portals)
}
