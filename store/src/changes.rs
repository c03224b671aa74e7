//! What a batch says of its arrivals besides.

use std::collections::HashSet;

use crate::{Arrival, Batch, Millis, Place, RemoteId};

/// What a batch says of its arrivals besides.
pub(crate) struct Besides<'a> {
    older: HashSet<(&'a Place, &'a RemoteId)>,
}

/// What it says of one.
#[derive(Clone, Copy)]
pub(crate) struct Of {
    /// When it was written, where it stands among what was taken in before.
    pub dated: Option<Millis>,
}

impl<'a> Besides<'a> {
    pub fn of_batch(batch: &'a Batch) -> Self {
        let older = batch.late.iter().chain(&batch.older);
        Self {
            older: older.map(|(place, fact)| (place, fact)).collect(),
        }
    }

    pub fn of(&self, arrival: &Arrival) -> Of {
        let is_older = self.older.contains(&(&arrival.place, &arrival.fact));
        Of {
            dated: is_older.then_some(arrival.sent_at),
        }
    }
}
