//! What a walk has found: an arrival with what must be written down beside it, in the same transaction.

use footbridge_core::origin::Origins;
use footbridge_store::{Arrival, Batch, Opened, Place, RemoteId, Rival, Shown, Suspect};

use super::{Matrix, walk::Envelope};

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
    /// Puts it into a batch. Of events that are shown under one id the first is taken: what belongs to an arrival is
    /// found again by its id.
    pub(super) fn file(self, batch: &mut Batch) {
        let place = || self.arrival.place.clone();
        let fact = || self.arrival.fact.clone();
        let mut others = batch.arrivals.iter();
        if others.any(|other| other.fact == self.arrival.fact && other.place == self.arrival.place)
        {
            return;
        }
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

#[cfg(test)]
mod tests {
    use footbridge_store::{Millis, Payload};

    use super::*;

    fn found(event: &str, index: Option<u32>) -> Found {
        let place = Place::room("!r");
        let opened = index.map(|index| Opened {
            session: "s".to_owned(),
            index,
            sent_at: Millis(1),
        });
        Found {
            arrival: Arrival {
                place: place.clone(),
                fact: RemoteId::from(event),
                message: None,
                thread: None,
                sent_at: Millis(1),
                payload: Payload::Skipped("nothing"),
            },
            writer: None,
            opened: opened.clone(),
            held: None,
            bridges: Vec::new(),
            shown: Shown {
                place,
                event: RemoteId::from(event),
                ciphertext: None,
                opened,
            },
        }
    }

    #[test]
    fn p06_of_events_under_one_id_the_first_is_taken() {
        let mut batch = Batch::default();
        for (event, index) in [
            ("$a", Some(1)),
            ("$a", None),
            ("$b", Some(2)),
            ("$a", Some(7)),
        ] {
            found(event, index).file(&mut batch);
        }
        let opened: Vec<_> = batch
            .opened
            .iter()
            .map(|(_, _, opened)| opened.index)
            .collect();
        assert_eq!(opened, [1, 2]);
        assert_eq!((batch.arrivals.len(), batch.shown.len()), (2, 2));
    }
}
