//! What a walk has found: an arrival with what must be written down beside it, in the same transaction.

use footbridge_store::{Arrival, Batch, Opened, Place, RemoteId, Rival, Shown, Suspect};

use super::{Matrix, walk::Envelope};
use crate::origin::Origins;

/// An arrival and what belongs to it.
#[derive(Debug)]
pub(super) struct Found {
    pub arrival: Arrival,
    /// Who wrote it, if others may speak of it.
    pub writer: Option<(Place, RemoteId, String)>,
    /// What it was decrypted with.
    pub opened: Option<Opened>,
    /// The identity that somebody in charge has to look at before it crosses.
    pub held: Option<Suspect>,
    /// What is noted of another bridge.
    pub bridges: Vec<Rival>,
    /// How it was shown.
    pub shown: Shown,
}

impl Found {
    /// Puts it into a batch.
    pub(super) fn file(self, batch: &mut Batch) {
        let place = || self.arrival.place.clone();
        let fact = || self.arrival.fact.clone();
        batch
            .opened
            .extend(self.opened.map(|opened| (place(), fact(), opened)));
        batch
            .held
            .extend(self.held.map(|suspect| (place(), fact(), suspect)));
        batch.rivals.extend(self.bridges);
        batch.writers.extend(self.writer);
        batch.shown.push(self.shown);
        batch.arrivals.push(self.arrival);
    }
}

impl Matrix {
    /// Which channels rooms are joined to.
    #[must_use]
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// What is noted of the bridge that this is from.
    pub(super) fn other_bridges(&self, place: &Place, envelope: &Envelope) -> Vec<Rival> {
        let others = self.origins.others(place, &envelope.content).into_iter();
        let named = others.filter_map(|other| {
            Some(Rival {
                place: other.place,
                account: other.account?,
                claimant: envelope.sender.clone(),
            })
        });
        named.collect()
    }
}
