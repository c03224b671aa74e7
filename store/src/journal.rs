//! Facts: what arrived, accepted exactly once, with the cursor that proves how far we have read.

use crate::{EntryId, Error, LaneId, Millis, Place, RemoteId, Store};

/// Something that happened in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where.
    pub place: Place,
    /// Its id, unique in the place. A message's own id; an edit or deletion has an id of its own.
    pub fact: RemoteId,
    /// For a new message, how others will refer to it: makes the first link.
    pub message: Option<RemoteId>,
    /// The thread it belongs to in its place (the thread's first message), if any.
    pub thread: Option<RemoteId>,
    /// When the source says it was sent; kept on the link.
    pub sent_at: Millis,
    /// What it says.
    pub payload: Payload,
}

/// The letter in the envelope.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// Readable: the neutral message, serialised.
    Ready(Vec<u8>),
    /// Not decryptable yet: the raw event. Its lanes hold at it until `hold_until`, then let others pass.
    Waiting {
        /// The session whose key is missing.
        session: String,
        /// The event as received.
        raw: Vec<u8>,
        /// How long its lanes wait for it.
        hold_until: Millis,
    },
    /// Accepted and at once settled as skipped by this rule. Nothing is kept of it but its id.
    Skipped(&'static str),
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready(..)",
            Self::Waiting { .. } => "Waiting(..)",
            Self::Skipped(_) => "Skipped(..)",
        })
    }
}

/// What one step of listening learnt. One transaction: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In the order in which they happened.
    pub arrivals: Vec<Arrival>,
    /// Cursors to move: name, value.
    pub cursors: Vec<(String, String)>,
    /// Gaps to open, or to move when the place has one already (`stop` then stays as it was).
    pub gaps: Vec<Gap>,
    /// Gaps that this batch fills: removed if still as given.
    pub filled: Vec<Gap>,
    /// Flags to raise. A raised flag is never lowered.
    pub flags: Vec<(Place, Flag)>,
}

/// Events of a place that must still be fetched: everything after `stop`, up to the position `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub place: Place,
    /// The position to page backwards from.
    pub from: String,
    /// The newest event already walked; `None` when there is none.
    pub stop: Option<RemoteId>,
}

/// Something true of a place for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// The room is or was end-to-end encrypted.
    EverEncrypted,
}

/// What became of an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Written down; these lanes owe a copy.
    New(Vec<LaneId>),
    /// We had it (or it is a copy that we made ourselves).
    Seen,
    /// No active portal has this place; not written.
    Unlinked,
}

/// An entry that waits for its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The entry.
    pub entry: EntryId,
    /// Where it happened.
    pub place: Place,
    /// Its id there.
    pub fact: RemoteId,
    /// The session whose key is missing.
    pub session: String,
    /// The event as received.
    pub raw: Vec<u8>,
}

impl Store {
    /// Takes in a batch. Answers one [`Accepted`] per arrival, in order.
    pub async fn accept(&self, batch: Batch, now: Millis) -> Result<Vec<Accepted>, Error> {
        let _ = (batch, now);
        unimplemented!()
    }

    /// Entries that wait for a key: all, or those of one session.
    pub async fn waiting(&self, session: Option<&str>) -> Result<Vec<Waiting>, Error> {
        let _ = session;
        unimplemented!()
    }

    /// The key came: the entry is readable now (or, with [`Payload::Skipped`], settled). If it had been passed
    /// by others its deliveries are marked late. Answers the lanes to ring.
    pub async fn fill(
        &self,
        entry: EntryId,
        payload: Payload,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        let _ = (entry, payload, now);
        unimplemented!()
    }

    /// A cursor's value.
    pub async fn cursor(&self, name: &str) -> Result<Option<String>, Error> {
        let _ = name;
        unimplemented!()
    }

    /// The open gaps of a network.
    pub async fn gaps(&self, network: &str) -> Result<Vec<Gap>, Error> {
        let _ = network;
        unimplemented!()
    }

    /// Whether a flag is raised.
    pub async fn flag(&self, place: &Place, flag: Flag) -> Result<bool, Error> {
        let _ = (place, flag);
        unimplemented!()
    }
}
