//! What a listener brings: the events of one step, with everything that is stored in the same transaction.

use crate::{
    Change, Millis, Payload, PeerClaim, Place, RemoteId, Tombstone,
    before_link::SeenEvent,
    cursors::{Flag, Gap},
    replay::DecryptedWith,
    trust::HeldIdentity,
};

/// An event that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival<P = Payload> {
    /// Where.
    pub place: Place,
    /// Its id, unique in the place. A message has its own id; an edit or deletion has an id of its own.
    pub event_id: RemoteId,
    /// For a new message, the id by which others will refer to it. It becomes the first link.
    pub message: Option<RemoteId>,
    /// The thread it belongs to in its place (the thread's first message), if any.
    pub thread: Option<RemoteId>,
    /// When the source says it was sent; kept on the link.
    pub sent_at: Millis,
    /// Its content; listeners bring it in a form that the store does not know.
    pub payload: P,
}

/// What one step of a listener brings. One transaction: all of it or nothing.
#[derive(Clone, Debug)]
pub struct Batch<P = Payload> {
    /// In the order in which they happened.
    pub arrivals: Vec<Arrival<P>>,
    /// Cursors to move: name, value.
    pub cursors: Vec<(String, String)>,
    /// Gaps to open, or to move where the place has one already (`stop` then stays).
    pub gaps: Vec<Gap>,
    /// Gaps that this batch fills: removed if still as given.
    pub filled: Vec<Gap>,
    /// Flags to set. A flag is never removed.
    pub flags: Vec<(Place, Flag)>,
    /// The authors of the arrivals: place, event id, author. Kept as a keyed hash, the newest arrival of each author.
    pub last_authors: Vec<(Place, RemoteId, String)>,
    /// The authors of new messages: place, message, user. Kept as a keyed hash.
    pub authors: Vec<(Place, RemoteId, String)>,
    /// What arrivals were decrypted with: place, event id, session and ratchet index. Each ratchet index belongs to one event for
    /// ever.
    pub decrypted_with: Vec<(Place, RemoteId, DecryptedWith)>,
    /// The undecryptable arrivals that wait for the approval of an identity: place, event id, identity.
    pub trust_holds: Vec<(Place, RemoteId, HeldIdentity)>,
    /// Rooms that are unencrypted.
    pub unencrypted: Vec<Place>,
    /// Who joined which room. Kept as a keyed hash.
    pub joined: Vec<(Place, String)>,
    /// The late arrivals: events that were sent after them were accepted before.
    pub late: Vec<(Place, RemoteId)>,
    /// Other arrivals: events that were sent after them may have been accepted before.
    pub out_of_order: Vec<(Place, RemoteId)>,
    /// What arrivals edit or delete.
    pub changes: Vec<Change>,
    /// Accounts in channels that somebody claims to be another bridge's.
    pub peer_claims: Vec<PeerClaim>,
    /// Tombstones of rooms.
    pub tombstones: Vec<Tombstone>,
    /// How the homeserver showed the arrivals. One that was seen while its room was not linked is [`crate::Accepted::Duplicate`].
    pub seen_events: Vec<SeenEvent>,
    /// Events that were sent before their rooms were linked.
    pub before_link: Vec<SeenEvent>,
}

impl<P> Default for Batch<P> {
    fn default() -> Self {
        Self {
            arrivals: Vec::new(),
            cursors: Vec::new(),
            gaps: Vec::new(),
            filled: Vec::new(),
            flags: Vec::new(),
            last_authors: Vec::new(),
            authors: Vec::new(),
            decrypted_with: Vec::new(),
            trust_holds: Vec::new(),
            unencrypted: Vec::new(),
            joined: Vec::new(),
            late: Vec::new(),
            out_of_order: Vec::new(),
            changes: Vec::new(),
            peer_claims: Vec::new(),
            tombstones: Vec::new(),
            seen_events: Vec::new(),
            before_link: Vec::new(),
        }
    }
}

impl<P> Batch<P> {
    /// The same batch with the contents of its arrivals in another form.
    pub fn map<Q>(self, form: impl Fn(P) -> Q) -> Batch<Q> {
        let arrivals = self.arrivals.into_iter();
        Batch {
            arrivals: arrivals
                .map(|arrival| Arrival {
                    place: arrival.place,
                    event_id: arrival.event_id,
                    message: arrival.message,
                    thread: arrival.thread,
                    sent_at: arrival.sent_at,
                    payload: form(arrival.payload),
                })
                .collect(),
            cursors: self.cursors,
            gaps: self.gaps,
            filled: self.filled,
            flags: self.flags,
            last_authors: self.last_authors,
            authors: self.authors,
            decrypted_with: self.decrypted_with,
            trust_holds: self.trust_holds,
            unencrypted: self.unencrypted,
            joined: self.joined,
            late: self.late,
            out_of_order: self.out_of_order,
            changes: self.changes,
            peer_claims: self.peer_claims,
            tombstones: self.tombstones,
            seen_events: self.seen_events,
            before_link: self.before_link,
        }
    }
}
