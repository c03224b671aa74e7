//! Looking on: what another process may see of a store in use.

use std::path::Path;

use crate::{
    AccountFace, Error, Portal, Store, Tally, accounts,
    database::{Fault, explain, off_thread, open_read_only},
    directory::database_path,
    migrate::{self, Found},
    portals, settle,
};

/// What `status` may see of a store in use.
#[derive(Debug)]
pub struct Peek {
    /// The portals.
    pub portals: Vec<Portal>,
    /// One row per lane.
    pub tallies: Vec<Tally>,
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
}

fn look(path: &Path) -> Result<Peek, Error> {
    let empty = Peek {
        portals: Vec::new(),
        tallies: Vec::new(),
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
    let read = |connection: &mut rusqlite::Connection| -> Result<Peek, Fault> {
        // One transaction, so that the numbers belong together.
        let state = connection.transaction()?;
        Ok(Peek {
            portals: portals::all(&state)?,
            tallies: settle::tallies(&state)?,
            account: accounts::face(&state)?,
        })
    };
    read(&mut connection).map_err(|fault| explain(path, "look at the state", fault))
}
