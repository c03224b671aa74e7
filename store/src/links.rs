//! Links: where each copy of an entry lives, the original included.

use crate::{DeliveryId, EntryId, Error, Millis, Place, RemoteId, Store};

/// One copy of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its id in its place.
    pub remote: RemoteId,
    /// The first message of the thread it belongs to there, if any.
    pub thread: Option<RemoteId>,
    /// When it was sent, by the clock of its network.
    pub sent_at: Millis,
}

/// The copies of one entry in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// The entry, if we know the id at all.
    pub entry: Option<EntryId>,
    /// Its copies in the place asked for, in part order.
    pub copies: Vec<Copy>,
    /// A delivery of the entry to that place that is still owed.
    pub owed: Option<DeliveryId>,
}

impl Store {
    /// The copies in `to` of the message that `from` calls `remote`.
    pub async fn copies(
        &self,
        from: &Place,
        remote: &RemoteId,
        to: &Place,
    ) -> Result<Copies, Error> {
        let _ = (from, remote, to);
        unimplemented!()
    }

    /// Whether the message is known: an original we accepted or a copy we made.
    pub async fn is_linked(&self, place: &Place, remote: &RemoteId) -> Result<bool, Error> {
        let _ = (place, remote);
        unimplemented!()
    }
}
