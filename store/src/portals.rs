//! Portals: which room is joined to which channel.

use crate::{Error, Millis, Place, PortalId, Store};

/// A portal as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortalSpec {
    /// Room alias or id.
    pub room: String,
    /// The silo's name.
    pub silo: String,
    /// The channel's name in the silo.
    pub channel: String,
}

/// A portal whose both ends are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its row.
    pub id: PortalId,
    /// How the configuration names it.
    pub spec: PortalSpec,
    /// The room.
    pub room: Place,
    /// The channel.
    pub channel: Place,
    /// Whether the configuration still has it. An inactive portal accepts nothing.
    pub active: bool,
}

impl Store {
    /// All portals ever opened, by id.
    pub async fn portals(&self) -> Result<Vec<Portal>, Error> {
        unimplemented!()
    }

    /// Joins `room` and `channel`, or finds the portal that already does and updates its names. Makes it active.
    pub async fn open_portal(
        &self,
        spec: &PortalSpec,
        room: &Place,
        channel: &Place,
        now: Millis,
    ) -> Result<Portal, Error> {
        let _ = (spec, room, channel, now);
        unimplemented!()
    }

    /// Makes inactive every portal not listed, and settles their debts as skipped (`portal-removed`).
    pub async fn keep_portals(&self, listed: &[PortalId], now: Millis) -> Result<(), Error> {
        let _ = (listed, now);
        unimplemented!()
    }
}
