//! The result of processing an event: an arrival, with what must be saved in the same transaction.

use footbridge_core::{
    inbox::{Arrival, Batch},
    peer_bridges::PeerBridges,
};
use footbridge_store::{DecryptedWith, HeldIdentity, PeerClaim, Place, RemoteId, SeenEvent};

use super::event_fields::EventFields;

/// An arrival and the data that belong to it.
#[derive(Debug)]
pub(super) struct ProcessedEvent {
    pub arrival: Arrival,
    /// Who wrote it, if other events can refer to it.
    pub writer: Option<(Place, RemoteId, String)>,
    /// The room key and ratchet index of its encryption.
    pub opened: Option<DecryptedWith>,
    /// The identity that an admin has to approve before the message is relayed.
    pub held: Option<HeldIdentity>,
    /// What it claims about another bridge.
    pub bridges: Vec<PeerClaim>,
    /// The event as it arrived in the room.
    pub shown: SeenEvent,
}

impl ProcessedEvent {
    /// Adds it to a batch. Of several events with one id only the first is accepted: the data of an arrival are found
    /// by its id.
    pub(super) fn file(self, batch: &mut Batch) {
        let place = || self.arrival.place.clone();
        let event_id = || self.arrival.event_id.clone();
        let mut others = batch.arrivals.iter();
        if others.any(|other| {
            other.event_id == self.arrival.event_id && other.place == self.arrival.place
        }) {
            return;
        }
        batch
            .decrypted_with
            .extend(self.opened.map(|opened| (place(), event_id(), opened)));
        batch
            .trust_holds
            .extend(self.held.map(|suspect| (place(), event_id(), suspect)));
        batch.peer_claims.extend(self.bridges);
        batch.authors.extend(self.writer);
        batch.seen_events.push(self.shown);
        batch.arrivals.push(self.arrival);
    }
}

/// The claims of the peer bridge that sent this event.
pub(super) fn peer_claims(
    bridges: &PeerBridges,
    place: &Place,
    envelope: &EventFields,
) -> Vec<PeerClaim> {
    let others = bridges.peers_in(place, &envelope.content).into_iter();
    let named = others.filter_map(|other| {
        Some(PeerClaim {
            place: other.place,
            account: other.account?,
            claimant: envelope.sender.clone(),
        })
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use footbridge_core::inbox::ArrivalContent;
    use footbridge_store::{Millis, SkipRule};

    use super::*;

    fn found(event: &str, ratchet_index: Option<u32>) -> ProcessedEvent {
        let place = Place::room("!r");
        let opened = ratchet_index.map(|ratchet_index| DecryptedWith {
            session: "s".to_owned(),
            ratchet_index,
            sent_at: Millis(1),
        });
        ProcessedEvent {
            arrival: Arrival {
                place: place.clone(),
                event_id: RemoteId::from(event),
                message: None,
                thread: None,
                sent_at: Millis(1),
                payload: ArrivalContent::Skipped(SkipRule::Empty),
            },
            writer: None,
            opened: opened.clone(),
            held: None,
            bridges: Vec::new(),
            shown: SeenEvent {
                place,
                event: RemoteId::from(event),
                ciphertext: None,
                decrypted_with: opened,
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
            .decrypted_with
            .iter()
            .map(|(_, _, opened)| opened.ratchet_index)
            .collect();
        assert_eq!(opened, [1, 2]);
        assert_eq!((batch.arrivals.len(), batch.seen_events.len()), (2, 2));
    }
}
